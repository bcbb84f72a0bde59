// How a stored response lies in Redis: bytes of a fixed head, the names of the fields that select it, then the entry
// (encoding.ts), compressed where that pays. Layout, all big-endian:
//
//   0  magic "WGR1"     4  form, u8: as it is, or zstd     5  bytes of the entry, u32     9  family, 8 bytes
//   17  selector, 16 bytes     33  bytes of names, u16     35  names, JSON     then the entry
//
// Where the deployment has a cipher, all but what the script needs is sealed for the key of its primary, so that it opens
// for no other, and the names are a digest:
//
//   0  magic "WGS1"     4  zeros     9  family     17  selector     33  16, u16     35  digest of names     51  sealed:
//   form     bytes of the entry     bytes of names     names     the entry
//
// Whose variant it is can be told from the head alone, here and by the script that writes it (redis.ts). What comes
// from Redis is believed in nothing: every length is compared with what is there, and nothing is unpacked beyond the
// length that the head tells, which is bounded.
//
// Compressed: level 1, of 1 KiB or more. 4 KiB of JSON become a fifth in 48 us of another thread, 64 KiB a sixth in
// 117 us; level 3 saves nothing more and takes twice as long. Small ones are unpacked at once, in 15-20 us: another
// thread would take longer to be asked.

import { createHmac, hash } from 'node:crypto'
import { promisify } from 'node:util'
import { constants, zstdCompress, zstdDecompress, zstdDecompressSync } from 'node:zlib'
import { hasHeader } from '../../http/headers.ts'
import { decodeEntry, encodeEntry } from '../encoding.ts'
import type { Selector, StoredResponse } from '../entry.ts'
import type { Privacy } from '../privacy.ts'

/** A value is read within one deadline of some milliseconds, and nothing else on the connection meanwhile. */
export const MAX_VALUE_BYTES = 512 * 1024
/** Of an entry, unpacked. What is larger than this hardly ever shrinks to a value. */
export const MAX_ENTRY_BYTES = 4 * 1024 ** 2

const OPEN_MAGIC = Buffer.from('WGR1')
const SEALED_MAGIC = Buffer.from('WGS1')
export const MAGIC_BYTES = 4
export const FAMILY_AT = 9
export const FAMILY_BYTES = 8
export const SELECTOR_AT = 17
export const SELECTOR_BYTES = 16
export const NAMES_AT = 33

const FORM_AT = 4
const SIZE_AT = 5
const HEAD_BYTES = 35
/** Before the names in what is sealed. */
const INNER_BYTES = FAMILY_AT - FORM_AT + 2
/** What a sealed value takes beside an open one, at most. */
const MAX_SEALING_BYTES = 128
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

/** A value whose head makes sense. */
export interface Opened {
  readonly family: Buffer
  readonly selector: Buffer
  readonly varyNames: readonly string[]
  readonly form: typeof PLAIN | typeof ZSTD
  /** Of the entry, unpacked. */
  readonly bytes: number
  readonly payload: Buffer
}

/** Why there is no value. locked: sealed with a key that is not known here; others may have use for it. */
export type Unreadable = 'bad' | 'locked'

export interface Values {
  /** Stands for the form: values of different ones do not meet. */
  readonly form: string
  /** Names one variant under a key. */
  readonly selectorDigest: (selector: Selector) => Buffer
  /** primary: the key that it, or the first variant, lies under. Null for what is too large. */
  readonly sealEntry: (entry: StoredResponse, primary: string) => Promise<Sealed | null>
  /** Reads the head. */
  readonly openValue: (value: Buffer, primary: string) => Opened | Unreadable
  /** The entry of a value; null where it is damaged, or another than its head says. */
  readonly unsealEntry: (opened: Opened) => Promise<StoredResponse | null>
}

export function createValues({ secret, cipher }: Privacy): Values {
  const digest = (text: string): Buffer => {
    const whole = secret === null ? hash('sha256', text, 'buffer') : createHmac('sha256', secret).update(text).digest()
    return whole.subarray(0, SELECTOR_BYTES)
  }
  const selectorDigest = ({ claims, varyNames, varyValues }: Selector): Buffer =>
    digest(JSON.stringify([claims, varyNames, varyValues]))
  const magic = cipher === null ? OPEN_MAGIC : SEALED_MAGIC

  async function sealEntry(entry: StoredResponse, primary: string): Promise<Sealed | null> {
    const plain = encodeEntry(entry)
    const names = Buffer.from(JSON.stringify(entry.varyNames))
    if (plain.length > MAX_ENTRY_BYTES || names.length > 0xffff) return null
    const packed = mayShrink(entry, plain) ? await compress(plain, FAST) : plain
    const payload = packed.length < plain.length * WORTHWHILE ? packed : plain
    if (HEAD_BYTES + names.length + payload.length > MAX_VALUE_BYTES - MAX_SEALING_BYTES) return null
    const start = Buffer.alloc(FAMILY_AT)
    magic.copy(start)
    start.writeUInt8(payload === plain ? PLAIN : ZSTD, FORM_AT)
    start.writeUInt32BE(plain.length, SIZE_AT)
    const selector = selectorDigest(entry)
    if (cipher === null) return { start, selector, names: withLength(names), payload }
    const sealed = cipher.seal(primary, Buffer.concat([start.subarray(FORM_AT), withLength(names), payload]))
    return { start: start.fill(0, FORM_AT), selector, names: withLength(digest(names.toString())), payload: sealed }
  }

  function openValue(value: Buffer, primary: string): Opened | Unreadable {
    if (value.length < HEAD_BYTES || value.length > MAX_VALUE_BYTES) return 'bad'
    if (magic.compare(value, 0, MAGIC_BYTES) !== 0) return 'bad'
    const family = value.subarray(FAMILY_AT, FAMILY_AT + FAMILY_BYTES)
    const selector = value.subarray(SELECTOR_AT, SELECTOR_AT + SELECTOR_BYTES)
    const restAt = HEAD_BYTES + value.readUInt16BE(NAMES_AT)
    if (restAt > value.length) return 'bad'
    if (cipher === null) {
      const start = value.subarray(FORM_AT, FAMILY_AT)
      return openRest(family, selector, start, value.subarray(HEAD_BYTES, restAt), value.subarray(restAt))
    }
    const plain = cipher.open(primary, value.subarray(restAt))
    if (plain === 'foreign') return 'locked'
    if (plain === 'forged' || plain.length < INNER_BYTES) return 'bad'
    const payloadAt = INNER_BYTES + plain.readUInt16BE(INNER_BYTES - 2)
    if (payloadAt > plain.length) return 'bad'
    const names = plain.subarray(INNER_BYTES, payloadAt)
    // By it the script tells variants apart.
    if (!digest(names.toString()).equals(value.subarray(HEAD_BYTES, restAt))) return 'bad'
    return openRest(family, selector, plain, names, plain.subarray(payloadAt))
  }

  async function unsealEntry({ form, bytes, payload, selector }: Opened): Promise<StoredResponse | null> {
    let plain: Buffer
    try {
      plain = form === PLAIN ? payload : await unpack(payload, bytes)
    } catch {
      return null
    }
    const entry = plain.length === bytes ? decodeEntry(plain) : null
    return entry !== null && selectorDigest(entry).equals(selector) ? entry : null
  }

  return { form: cipher === null ? 'open' : 'sealed', selectorDigest, sealEntry, openValue, unsealEntry }
}

const FAST = { params: { [constants.ZSTD_c_compressionLevel]: 1 } }

/** A coded body has been compressed once. */
const mayShrink = ({ headers }: StoredResponse, { length }: Buffer): boolean =>
  length >= MIN_COMPRESSED_BYTES && !hasHeader(headers, 'content-encoding')

function withLength(bytes: Buffer): Buffer {
  const length = Buffer.alloc(2)
  length.writeUInt16BE(bytes.length)
  return Buffer.concat([length, bytes])
}

/** start: form and size. */
function openRest(family: Buffer, selector: Buffer, start: Buffer, names: Buffer, payload: Buffer): Opened | 'bad' {
  const form = start.readUInt8(0)
  const bytes = start.readUInt32BE(SIZE_AT - FORM_AT)
  const varyNames = parseNames(names.toString())
  if ((form !== PLAIN && form !== ZSTD) || bytes > MAX_ENTRY_BYTES || varyNames === null) return 'bad'
  return { family, selector, varyNames, form, bytes, payload }
}

function parseNames(json: string): readonly string[] | null {
  try {
    const names: unknown = JSON.parse(json)
    return Array.isArray(names) && names.every((name) => typeof name === 'string') ? names : null
  } catch {
    return null
  }
}

/** Fails beyond this many bytes. */
const unpack = (payload: Buffer, maxOutputLength: number): Buffer | Promise<Buffer> =>
  maxOutputLength <= MAX_SYNC_BYTES
    ? zstdDecompressSync(payload, { maxOutputLength: Math.max(1, maxOutputLength) })
    : decompress(payload, { maxOutputLength })
