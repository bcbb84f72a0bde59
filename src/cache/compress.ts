// Makes the coded forms of stored responses: each once, when a client that takes it has come, on threads beside the event
// loop. No request waits for it. Its result belongs to the entry it was made of and to nothing else: where that is not
// stored any more, it is dropped.

import { promisify } from 'node:util'
import { brotliCompress, constants, gzip, zstdCompress } from 'node:zlib'
import type { Coding } from '../http/negotiation.ts'
import { codedForm } from './coding.ts'
import type { StoredResponse } from './entry.ts'
import { exactCopy } from './recording.ts'
import type { CacheStore } from './store.ts'

export interface Compressor {
  /** Has a stored response coded for those who come later; nothing where that is under way, or too much is waiting. */
  want(entry: StoredResponse, coding: Coding): void
}

/** A body in a coding; null where that would take more than maxBytes. */
export type Encode = (coding: Coding, body: Buffer, maxBytes: number) => Promise<Buffer | null>

/** Of the four threads of Node's pool, which resolve names and read files as well. */
const MAX_AT_ONCE = 2
/** Bodies that wait for their turn or have it. The store counts them, as long as it has not let go of them. */
const MAX_WANTED_BYTES = 64 * 1024 ** 2
/** A coded body that is larger than this share of the body is not worth its memory. */
const WORTHWHILE_SHARE = 0.9

export function createCompressor(store: CacheStore, encode: Encode = encodeBody): Compressor {
  const queue: { readonly entry: StoredResponse; readonly coding: Coding }[] = []
  const wanted = new Map<StoredResponse, Set<Coding>>()
  let wantedBytes = 0
  let running = 0

  async function code(entry: StoredResponse, coding: Coding): Promise<void> {
    if (store.get(entry.key)?.includes(entry) !== true) return
    const coded = await encode(coding, entry.body, Math.floor(entry.body.length * WORTHWHILE_SHARE))
    const body = coded === null ? null : exactCopy([coded], coded.length)
    if (store.addForm(entry, codedForm(entry.headers, coding, body))) return
    // Where there is no room for it, there is for a note that says so.
    store.addForm(entry, codedForm(entry.headers, coding, null))
  }

  function start(): void {
    while (running < MAX_AT_ONCE) {
      const next = queue.shift()
      if (next === undefined) return
      running++
      void code(next.entry, next.coding).finally(() => {
        running--
        done(next.entry, next.coding)
        start()
      })
    }
  }

  function done(entry: StoredResponse, coding: Coding): void {
    const codings = wanted.get(entry)
    codings?.delete(coding)
    if (codings?.size === 0) wanted.delete(entry)
    wantedBytes -= entry.body.length
  }

  return {
    want(entry, coding) {
      const codings = wanted.get(entry)
      if (codings?.has(coding) === true || wantedBytes + entry.body.length > MAX_WANTED_BYTES) return
      if (codings === undefined) wanted.set(entry, new Set([coding]))
      else codings.add(coding)
      wantedBytes += entry.body.length
      queue.push({ entry, coding })
      start()
    },
  }
}

/** Levels at which twice the time buys less than 3 % of the size. 58 KiB of JSON, milliseconds on one core: br 4 0.25, 6727
 *  bytes; br 5 0.56, 6090; br 6 0.69, 6085; br 9 5.2, 5815; br 11 82, 4348; zstd 6 0.28, 6353; zstd 9 0.48, 5985;
 *  zstd 12 0.85, 5834; zstd 19 21, 5047; gzip 6 0.43, 7343; gzip 9 1.0, 6794. Of 1.4 KiB: br 5 304 bytes, zstd 9 354,
 *  gzip 6 373; of 50 KiB of JavaScript 11324, 11439, 11542. So br comes first: never the larger by much, and smallest
 *  where most answers of an API are. */
const BROTLI_QUALITY = 5
/** Its window is 4 MiB; clients need not take more than 8 (RFC 9659). */
const ZSTD_LEVEL = 9
const GZIP_LEVEL = 6

const brotli = promisify(brotliCompress)
const zstd = promisify(zstdCompress)
const deflate = promisify(gzip)

const ENCODERS: { readonly [C in Coding]: (body: Buffer, maxOutputLength: number) => Promise<Buffer> } = {
  br: (body, maxOutputLength) =>
    brotli(body, {
      maxOutputLength,
      params: {
        [constants.BROTLI_PARAM_QUALITY]: BROTLI_QUALITY,
        [constants.BROTLI_PARAM_SIZE_HINT]: body.length,
      },
    }),
  zstd: (body, maxOutputLength) =>
    zstd(body, { maxOutputLength, params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL } }),
  gzip: (body, maxOutputLength) => deflate(body, { maxOutputLength, level: GZIP_LEVEL }),
}

/** Never rejects: what cannot be coded once, for whatever reason, is not tried again. */
const encodeBody: Encode = (coding, body, maxBytes) => ENCODERS[coding](body, maxBytes).catch(() => null)
