// How a stored response lies in Redis: bytes of a fixed head, the names of the fields that select it, then the entry
// (encoding.ts), compressed where that pays. Layout, all big-endian:
//
//   0  magic "WGR1"     4  form, u8: as it is, or zstd     5  bytes of the entry, u32     9  family, 8 bytes
//   17  selector, 16 bytes     33  bytes of names, u16     35  names, JSON     then the entry
//
// Whose variant it is can be told from the head alone, here and by the script that writes it (redis.ts). What comes
// from Redis is believed in nothing: every length is compared with what is there, and nothing is unpacked beyond the
// length that the head tells, which is bounded.
//
// Compressed: level 1, of 1 KiB or more. 4 KiB of JSON become a fifth in 48 us of another thread, 64 KiB a sixth in
// 117 us; level 3 saves nothing more and takes twice as long. Small ones are unpacked at once, in 15-20 us: another
// thread would take longer to be asked.

import { hash } from 'node:crypto'
import { promisify } from 'node:util'
import { constants, zstdCompress, zstdDecompress, zstdDecompressSync } from 'node:zlib'
import { hasHeader } from '../../http/headers.ts'
import { decodeEntry, encodeEntry } from '../encoding.ts'
import type { Selector, StoredResponse } from '../entry.ts'

/** A value is read within one deadline of some milliseconds, and nothing else on the connection meanwhile. */
export const MAX_VALUE_BYTES = 512 * 1024
/** Of an entry, unpacked. What is larger than this hardly ever shrinks to a value. */
export const MAX_ENTRY_BYTES = 4 * 1024 ** 2

export const MAGIC = Buffer.from('WGR1')
export const FAMILY_AT = 9
export const FAMILY_BYTES = 8
export const SELECTOR_AT = 17
export const SELECTOR_BYTES = 16
export const NAMES_AT = 33

const FORM_AT = 4
const SIZE_AT = 5
const HEAD_BYTES = 35
const PLAIN = 0
const ZSTD = 1

const MIN_COMPRESSED_BYTES = 1024
/** What is left when it is compressed has to be less than this share. */
const WORTHWHILE = 0.9
const MAX_SYNC_BYTES = 64 * 1024

const compress = promisify(zstdCompress)
const decompress = promisify(zstdDecompress)

/** A value to be written. Its family is the writer's to put between the parts. */
export interface Sealed {
  /** As far as the family. */
  readonly start: Buffer
  readonly selector: Buffer
  /** With their length. */
  readonly names: Buffer
  readonly payload: Buffer
}

export interface Opened {
  readonly family: Buffer
  readonly selector: Buffer
  readonly varyNames: readonly string[]
  readonly form: typeof PLAIN | typeof ZSTD
  /** Of the entry, unpacked. */
  readonly bytes: number
  readonly payload: Buffer
}

/** Names one variant under a key. */
export const selectorDigest = ({ claims, varyNames, varyValues }: Selector): Buffer =>
  hash('sha256', JSON.stringify([claims, varyNames, varyValues]), 'buffer').subarray(0, SELECTOR_BYTES)

/** Null for what is too large. */
export async function sealEntry(entry: StoredResponse): Promise<Sealed | null> {
  const plain = encodeEntry(entry)
  const names = Buffer.from(JSON.stringify(entry.varyNames))
  if (plain.length > MAX_ENTRY_BYTES || names.length > 0xffff) return null
  const packed = mayShrink(entry, plain) ? await compress(plain, FAST) : plain
  const payload = packed.length < plain.length * WORTHWHILE ? packed : plain
  if (HEAD_BYTES + names.length + payload.length > MAX_VALUE_BYTES) return null
  const start = Buffer.alloc(FAMILY_AT)
  MAGIC.copy(start)
  start.writeUInt8(payload === plain ? PLAIN : ZSTD, FORM_AT)
  start.writeUInt32BE(plain.length, SIZE_AT)
  const namesBytes = Buffer.alloc(2)
  namesBytes.writeUInt16BE(names.length)
  return { start, selector: selectorDigest(entry), names: Buffer.concat([namesBytes, names]), payload }
}

const FAST = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }

/** A coded body has been compressed once. */
const mayShrink = ({ headers }: StoredResponse, { length }: Buffer): boolean =>
  length >= MIN_COMPRESSED_BYTES && !hasHeader(headers, 'content-encoding')

/** Reads the head; null for what sealEntry did not make. */
export function openValue(value: Buffer): Opened | null {
  if (value.length < HEAD_BYTES || value.length > MAX_VALUE_BYTES) return null
  if (MAGIC.compare(value, 0, MAGIC.length) !== 0) return null
  const form = value.readUInt8(FORM_AT)
  const bytes = value.readUInt32BE(SIZE_AT)
  const payloadAt = HEAD_BYTES + value.readUInt16BE(NAMES_AT)
  if ((form !== PLAIN && form !== ZSTD) || bytes > MAX_ENTRY_BYTES || payloadAt > value.length) return null
  const varyNames = parseNames(value.toString('utf8', HEAD_BYTES, payloadAt))
  if (varyNames === null) return null
  return {
    family: value.subarray(FAMILY_AT, FAMILY_AT + FAMILY_BYTES),
    selector: value.subarray(SELECTOR_AT, SELECTOR_AT + SELECTOR_BYTES),
    varyNames,
    form,
    bytes,
    payload: value.subarray(payloadAt),
  }
}

function parseNames(json: string): readonly string[] | null {
  try {
    const names: unknown = JSON.parse(json)
    return Array.isArray(names) && names.every((name) => typeof name === 'string') ? names : null
  } catch {
    return null
  }
}

/** The entry of a value; null where it is damaged, or another than its head says. */
export async function unsealEntry({ form, bytes, payload, selector }: Opened): Promise<StoredResponse | null> {
  let plain: Buffer
  try {
    plain = form === PLAIN ? payload : await unpack(payload, bytes)
  } catch {
    return null
  }
  const entry = plain.length === bytes ? decodeEntry(plain) : null
  return entry !== null && selectorDigest(entry).equals(selector) ? entry : null
}

/** Fails beyond this many bytes. */
const unpack = (payload: Buffer, maxOutputLength: number): Buffer | Promise<Buffer> =>
  maxOutputLength <= MAX_SYNC_BYTES
    ? zstdDecompressSync(payload, { maxOutputLength: Math.max(1, maxOutputLength) })
    : decompress(payload, { maxOutputLength })
