// A recorded answer, and how it lies in Redis: packed by zstd where that pays, since answers are JSON or events, and sealed
// where the deployment has a cipher. Layout before that:
//
//   0  magic "WGI1"     4  form, u8: as it is, or zstd     5  bytes of the rest, unpacked, u32     then
//   bytes of the head, u32     head: JSON, [status, fields, whether there is a body]     the body
//
// What comes from Redis is believed in nothing: what does not read as written is no answer, and never a broken one.

import { promisify } from 'node:util'
import { constants, zstdCompress, zstdDecompress } from 'node:zlib'
import type { HeaderList, Reply } from '../core/context.ts'
import { withoutHeaders } from '../http/headers.ts'

export interface Answer {
  readonly status: number
  readonly headers: HeaderList
  readonly body: Buffer | null
}

/** A value is read within one deadline of some milliseconds, and nothing else on the connection meanwhile. */
const MAX_PACKED_BYTES = 1024 ** 2
/** Unpacked: what is larger hardly ever shrinks to a value. */
const MAX_PLAIN_BYTES = 16 * 1024 ** 2
const MIN_COMPRESSED_BYTES = 1024

const MAGIC = Buffer.from('WGI1')
const HEAD_BYTES = 9
const PLAIN = 0
const ZSTD = 1

const compress = promisify(zstdCompress)
const decompress = promisify(zstdDecompress)
const FAST = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }

/** As it goes to whoever repeats the request. */
export const replayed = ({ status, headers, body }: Answer): Reply => ({
  status,
  headers: [...withoutHeaders(headers, OWN), 'Idempotency-Replayed', 'true'],
  body,
})

/** An upstream that knows keys itself may have said so of its own. */
const OWN: ReadonlySet<string> = new Set(['idempotency-replayed'])

/** Of memory, as near as matters. */
export function sizeOf({ headers, body }: Answer): number {
  let bytes = body?.length ?? 0
  for (const text of headers) bytes += text.length + 16
  return bytes
}

/** Null for what is too large. */
export async function packAnswer({ status, headers, body }: Answer): Promise<Buffer | null> {
  const head = Buffer.from(JSON.stringify([status, headers, body !== null]))
  const headLength = Buffer.alloc(4)
  headLength.writeUInt32BE(head.length)
  const plain = Buffer.concat([headLength, head, ...(body === null ? [] : [body])])
  if (plain.length > MAX_PLAIN_BYTES) return null
  const packed = plain.length < MIN_COMPRESSED_BYTES ? plain : await compress(plain, FAST)
  const payload = packed.length < plain.length ? packed : plain
  if (payload.length > MAX_PACKED_BYTES) return null
  const start = Buffer.alloc(HEAD_BYTES)
  MAGIC.copy(start)
  start.writeUInt8(payload === plain ? PLAIN : ZSTD, 4)
  start.writeUInt32BE(plain.length, 5)
  return Buffer.concat([start, payload])
}

/** Null for what packAnswer did not make. */
export async function unpackAnswer(value: Buffer): Promise<Answer | null> {
  if (value.length < HEAD_BYTES || MAGIC.compare(value, 0, MAGIC.length) !== 0) return null
  const [form, bytes] = [value.readUInt8(4), value.readUInt32BE(5)]
  if (bytes > MAX_PLAIN_BYTES || (form !== PLAIN && form !== ZSTD)) return null
  try {
    const payload = value.subarray(HEAD_BYTES)
    const plain = form === PLAIN ? payload : await decompress(payload, { maxOutputLength: Math.max(1, bytes) })
    return plain.length === bytes ? parse(plain) : null
  } catch {
    return null
  }
}

function parse(plain: Buffer): Answer | null {
  const bodyAt = 4 + plain.readUInt32BE(0)
  if (bodyAt > plain.length) return null
  const head: unknown = JSON.parse(plain.toString('utf8', 4, bodyAt))
  if (!Array.isArray(head) || head.length !== 3) return null
  const [status, headers, hasBody] = head as unknown[]
  const isHead =
    typeof status === 'number' && Array.isArray(headers) && headers.every((text) => typeof text === 'string')
  if (!isHead || typeof hasBody !== 'boolean') return null
  // A copy: what Redis sends lies in larger buffers.
  return { status, headers, body: hasBody ? Buffer.from(plain.subarray(bodyAt)) : null }
}
