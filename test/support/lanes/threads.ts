// Node's threads, without them: what they do is done at once, so that when it is there does not depend on the machine.

import { createHmac } from 'node:crypto'
import type * as zlib from 'node:zlib'
import { type MockInstance, vi } from 'vitest'

/** Bodies are coded at once. For vi.mock('node:zlib'). */
export function codeAtOnce(original: typeof zlib): unknown {
  const { brotliCompressSync, gzipSync, zstdCompressSync } = original
  const calling =
    <Options>(code: (body: Buffer, options: Options) => Buffer) =>
    (body: Buffer, options: Options, done: (error: Error | null, coded?: Buffer) => void) => {
      let coded: Buffer
      try {
        coded = code(body, options)
      } catch (error) {
        return done(error as Error)
      }
      done(null, coded)
    }
  return {
    ...original,
    brotliCompress: calling(brotliCompressSync),
    gzip: calling(gzipSync),
    zstdCompress: calling(zstdCompressSync),
  }
}

/** The one secret that tokens are signed with. */
export const JWT_SECRET = 'a secret of thirty-two bytes and more'

/** Tokens are verified at once. */
export const verifyAtOnce = (): MockInstance =>
  vi.spyOn(crypto.subtle, 'verify').mockImplementation(async (_algorithm, _key, signature, data) => {
    const expected = createHmac('sha256', JWT_SECRET).update(bytesOf(data)).digest()
    return expected.equals(bytesOf(signature))
  })

const bytesOf = (source: NodeJS.ArrayBufferView | ArrayBuffer): Buffer =>
  ArrayBuffer.isView(source) ? Buffer.from(source.buffer, source.byteOffset, source.byteLength) : Buffer.from(source)
