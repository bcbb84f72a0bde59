// The one form in which a stored response leaves this process, for a tier that outlives it. Layout, all big-endian:
//
//   0  magic "WGCE"     4  version, u8     5  checksum of all that follows, u32
//   9  bytes of head, u32     13  bytes of body, u48     19  head: the fields, in the order of FIELDS     then the body
//
// What comes back is what was written, to the last bit, or nothing: a torn write, a flipped bit, another version, another
// set of fields. Every length is compared with what is there before anything is made of it.
//
// The checksum is CRC-32: it sees every error within 32 neighbouring bits and misses one in 2^32 of the others, in 1.8 ms
// for 8 MiB on the event loop, where SHA-256 takes 4.8. Neither proves anything against somebody who writes there on
// purpose: they can compute it as well.

import { crc32 } from 'node:zlib'
import { mayCode } from './coding.ts'
import { type StoredResponse, entrySizeBytes } from './entry.ts'
import { exactCopy } from './recording.ts'
import { readTimeline } from './timeline.ts'

/** How fields are written. To change with that; which fields there are counts by itself. */
const VERSION = 1
const MAGIC = Buffer.from('WGCE')

const VERSION_AT = 4
const CHECKSUM_AT = 5
const CHECKED_AT = 9
const HEAD_BYTES_AT = 9
const BODY_BYTES_AT = 13
const HEAD_AT = 19

/** How values of one type are written and read. */
interface Kind<T> {
  /** Bytes that it takes at most. */
  bound(value: T): number
  write(into: Writer, value: T): void
  /** What is read where the reader has failed does not matter. */
  read(from: Reader): T
}

const number: Kind<number> = {
  bound: () => 8,
  write: (into, value) => into.number(value),
  read: (from) => from.number(),
}

const flag: Kind<boolean> = {
  bound: () => 1,
  write: (into, value) => into.byte(value ? 1 : 0),
  read: (from) => from.byte(1) === 1,
}

/** Header text is latin1 and takes a byte a character; any other string takes two, which keeps lone surrogates too. */
const LATIN1 = 0
const UTF16 = 1
const ABSENT = 2
const BEYOND_LATIN1 = /[^\0-\xff]/

const textOrAbsent: Kind<string | null> = {
  bound: (value) => 5 + 2 * (value?.length ?? 0),
  write(into, value) {
    if (value === null) return into.byte(ABSENT)
    const isWide = BEYOND_LATIN1.test(value)
    into.byte(isWide ? UTF16 : LATIN1)
    into.text(value, isWide ? 'utf16le' : 'latin1')
  },
  read(from) {
    const form = from.byte(ABSENT)
    if (form === ABSENT) return null
    const value = from.text(form === UTF16 ? 'utf16le' : 'latin1')
    if (form === UTF16 && !BEYOND_LATIN1.test(value)) from.fail()
    return value
  },
}

const text: Kind<string> = {
  ...textOrAbsent,
  read(from) {
    const value = textOrAbsent.read(from)
    if (value === null) from.fail()
    return value ?? ''
  },
}

const timeline: Kind<Buffer | null> = {
  bound: (value) => 4 + (value?.length ?? 0),
  write(into, value) {
    into.count(value === null ? 0 : value.length)
    if (value !== null) into.bytes(value)
  },
  // That of a stream has one step at least.
  read: (from) => from.bytes(from.count()),
}

const listOf = <T>(kind: Kind<T>): Kind<readonly T[]> => ({
  bound: (values) => values.reduce((bytes, value) => bytes + kind.bound(value), 4),
  write(into, values) {
    into.count(values.length)
    for (const value of values) kind.write(into, value)
  },
  read(from) {
    const values: T[] = []
    // However many it claims to have, it grows only with what is there.
    for (let left = from.count(); left > 0 && from.isGood; left--) values.push(kind.read(from))
    return values
  },
})

/** What is not kept: `body` has its own place, `coded`, `lines` and `sizeBytes` are made anew, `uses` belong to one store. */
type Unkept = 'body' | 'coded' | 'lines' | 'sizeBytes' | 'uses'

/** All other fields, each once. A field that is new to StoredResponse does not compile until it stands here. */
const FIELDS: { readonly [Name in Exclude<keyof StoredResponse, Unkept>]: Kind<StoredResponse[Name]> } = {
  key: text,
  epoch: text,
  claims: text,
  varyNames: listOf(text),
  varyValues: listOf(textOrAbsent),
  status: number,
  headers: listOf(text),
  bornAtMs: number,
  freshUntilMs: number,
  originFreshUntilMs: number,
  staleWhileRevalidateUntilMs: number,
  staleIfErrorUntilMs: number,
  sharedDespiteAuthorization: flag,
  purgeSeq: number,
  tags: listOf(text),
  costMs: number,
  timeline,
}

const fields = Object.entries(FIELDS) as [keyof typeof FIELDS, Kind<unknown>][]
const FIELD_NAMES = Object.keys(FIELDS).join(' ')
/** Part of every checksum: what was written with other fields does not match. */
const FIELDS_CHECKSUM = crc32(FIELD_NAMES)
/** Of what is written here. Where it is part of a name, instances of different versions do not meet. */
export const ENCODING = `${VERSION} ${FIELD_NAMES}`

/** An entry as bytes, in a buffer of its own. */
export function encodeEntry(entry: StoredResponse): Buffer {
  const { body } = entry
  let bound = 0
  for (const [name, kind] of fields) bound += kind.bound(entry[name])
  const head = new Writer(bound)
  for (const [name, kind] of fields) kind.write(head, entry[name])
  const bytes = Buffer.allocUnsafeSlow(HEAD_AT + head.written.length + body.length)
  MAGIC.copy(bytes)
  bytes.writeUInt8(VERSION, VERSION_AT)
  bytes.writeUInt32BE(head.written.length, HEAD_BYTES_AT)
  bytes.writeUIntBE(body.length, BODY_BYTES_AT, 6)
  head.written.copy(bytes, HEAD_AT)
  body.copy(bytes, HEAD_AT + head.written.length)
  bytes.writeUInt32BE(checksumOf(bytes), CHECKSUM_AT)
  return bytes
}

/** The entry that encodeEntry of this version made these bytes of; null for any other bytes. Its body is a buffer of its
 *  own. Never throws. */
export function decodeEntry(bytes: Buffer): StoredResponse | null {
  if (bytes.length < HEAD_AT || MAGIC.compare(bytes, 0, VERSION_AT) !== 0) return null
  if (bytes.readUInt8(VERSION_AT) !== VERSION) return null
  const bodyAt = HEAD_AT + bytes.readUInt32BE(HEAD_BYTES_AT)
  const bodyBytes = bytes.readUIntBE(BODY_BYTES_AT, 6)
  if (bodyAt + bodyBytes !== bytes.length || bytes.readUInt32BE(CHECKSUM_AT) !== checksumOf(bytes)) return null
  const head = new Reader(bytes.subarray(HEAD_AT, bodyAt))
  const read: Record<string, unknown> = {}
  for (const [name, kind] of fields) read[name] = kind.read(head)
  if (!head.isAtItsEnd) return null
  const kept = read as unknown as Omit<StoredResponse, Unkept>
  const body = exactCopy([bytes.subarray(bodyAt)], bodyBytes)
  if (kept.timeline !== null && readTimeline(kept.timeline, bodyBytes) === null) return null
  const entry = { ...kept, body, coded: kept.timeline === null && mayCode(kept) ? [] : null, uses: 0 }
  return { ...entry, sizeBytes: entrySizeBytes(entry) }
}

const checksumOf = (bytes: Buffer): number => crc32(bytes.subarray(CHECKED_AT), FIELDS_CHECKSUM)

type TextForm = 'latin1' | 'utf16le'

class Writer {
  readonly #bytes: Buffer
  #at = 0

  constructor(bound: number) {
    this.#bytes = Buffer.allocUnsafe(bound)
  }

  get written(): Buffer {
    return this.#bytes.subarray(0, this.#at)
  }

  byte(value: number): void {
    this.#at = this.#bytes.writeUInt8(value, this.#at)
  }

  count(value: number): void {
    this.#at = this.#bytes.writeUInt32BE(value, this.#at)
  }

  number(value: number): void {
    this.#at = this.#bytes.writeDoubleBE(value, this.#at)
  }

  bytes(value: Buffer): void {
    this.#at += value.copy(this.#bytes, this.#at)
  }

  text(value: string, form: TextForm): void {
    const bytes = this.#bytes.write(value, this.#at + 4, form)
    this.count(bytes)
    this.#at += bytes
  }
}

/** Reads what is there. The first thing that is not as a Writer leaves it fails the reader for good. */
class Reader {
  isGood = true
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  /** True when all has been read, and it was good. */
  get isAtItsEnd(): boolean {
    return this.isGood && this.#at === this.#bytes.length
  }

  fail(): void {
    this.isGood = false
  }

  byte(max: number): number {
    const at = this.#pass(1)
    const value = at === null ? 0 : this.#bytes.readUInt8(at)
    if (value > max) this.fail()
    return value
  }

  count(): number {
    const at = this.#pass(4)
    return at === null ? 0 : this.#bytes.readUInt32BE(at)
  }

  number(): number {
    const at = this.#pass(8)
    const value = at === null ? 0 : this.#bytes.readDoubleBE(at)
    // No time and no status, and there are many spellings of it.
    if (Number.isNaN(value)) this.fail()
    return value
  }

  text(form: TextForm): string {
    const bytes = this.count()
    const at = this.#pass(bytes)
    if (form === 'utf16le' && bytes % 2 === 1) this.fail()
    return at === null ? '' : this.#bytes.toString(form, at, at + bytes)
  }

  /** In a buffer of its own; null: none. */
  bytes(count: number): Buffer | null {
    const at = count === 0 ? null : this.#pass(count)
    return at === null ? null : exactCopy([this.#bytes.subarray(at, at + count)], count)
  }

  /** Where the next bytes begin; null where there are not so many. */
  #pass(bytes: number): number | null {
    const at = this.#at
    if (!this.isGood || at + bytes > this.#bytes.length) {
      this.fail()
      return null
    }
    this.#at = at + bytes
    return at
  }
}
