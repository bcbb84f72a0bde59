import { crc32 } from 'node:zlib'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decodeEntry, encodeEntry } from '../../src/cache/encoding.ts'
import { type StoredResponse, entrySizeBytes } from '../../src/cache/entry.ts'
import { TimelineWriter } from '../../src/cache/timeline.ts'
import { entryOf } from '../support/entry.ts'

/** Any string at all: header text, other scripts, lone surrogates. */
const anyText = fc.oneof(
  fc.string({ unit: 'binary-ascii' }),
  fc.string({ unit: fc.integer({ min: 0, max: 0xff }).map((code) => String.fromCharCode(code)) }),
  fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((code) => String.fromCharCode(code)) }),
  fc.string({ unit: 'binary' }),
)
const anyTexts = fc.array(anyText, { maxLength: 8 })

const anyEntry: fc.Arbitrary<StoredResponse> = fc
  .record({
    key: anyText,
    epoch: anyText,
    claims: anyText,
    varyNames: anyTexts,
    varyValues: fc.array(fc.option(anyText), { maxLength: 8 }),
    status: fc.integer({ min: 200, max: 599 }),
    headers: anyTexts,
    bornAtMs: fc.double({ noNaN: true }),
    freshUntilMs: fc.double({ noNaN: true }),
    originFreshUntilMs: fc.double({ noNaN: true }),
    staleWhileRevalidateUntilMs: fc.double({ noNaN: true }),
    staleIfErrorUntilMs: fc.double({ noNaN: true }),
    sharedDespiteAuthorization: fc.boolean(),
    tags: anyTexts,
    purgeSeq: fc.double({ noNaN: true }),
    costMs: fc.double({ noNaN: true }),
    body: fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
  })
  // Of all that is in the body, or none.
  .chain((parts) => anyTimeline(parts.body.length).map((timeline) => sized({ ...parts, timeline })))

const anyTimeline = (bodyBytes: number): fc.Arbitrary<Buffer | null> =>
  fc.option(fc.array(fc.nat(100_000), { minLength: 1, maxLength: 20 })).map((gaps) => {
    if (gaps === null || bodyBytes === 0) return null
    const writer = new TimelineWriter()
    let nowMs = 1e12
    for (const [i, gapMs] of gaps.entries()) {
      nowMs += gapMs
      writer.note(i === gaps.length - 1 ? bodyBytes : Math.floor((bodyBytes * (i + 1)) / gaps.length), nowMs)
    }
    return writer.finish()
  })

function sized(parts: Omit<StoredResponse, 'coded' | 'sizeBytes' | 'uses'>): StoredResponse {
  const entry = { ...parts, coded: null, uses: 0 }
  return { ...entry, sizeBytes: entrySizeBytes(entry) }
}

const anyBytes = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes))

const SMALL = entryOf({
  key: 'http://gateway.test/a?b=c',
  headers: ['Content-Type', 'text/plain', 'X-Note', 'é'],
  vary: ['accept', 'x-empty', 'x-wide'],
  request: ['X-Empty', '', 'X-Wide', '漢'],
  tags: ['one', 'two'],
  body: 'the body',
})

/** Where things stand; see the head of encoding.ts. */
const VERSION_AT = 4
const CHECKSUM_AT = 5
const CHECKED_AT = 9
const HEAD_BYTES_AT = 9
const BODY_BYTES_AT = 13
const HEAD_AT = 19

/** The change with its checksum set right, as whoever writes there on purpose can: of two texts of one length, checksums
 *  differ by the same wherever they began. */
function resealed(before: Buffer, change: (bytes: Buffer) => void): Buffer {
  const bytes = Buffer.from(before)
  change(bytes)
  const checksum =
    before.readUInt32BE(CHECKSUM_AT) ^ crc32(before.subarray(CHECKED_AT)) ^ crc32(bytes.subarray(CHECKED_AT))
  bytes.writeUInt32BE(checksum >>> 0, CHECKSUM_AT)
  return bytes
}

describe('an encoded entry', () => {
  it('comes back as it was, with its size counted anew and no uses', () => {
    fc.assert(
      fc.property(anyEntry, fc.nat(3), (entry, uses) => {
        expect(decodeEntry(encodeEntry({ ...entry, uses, sizeBytes: 1 }))).toEqual(entry)
      }),
    )
  })

  it('comes back without its coded forms, which can be made anew', () => {
    const entry = entryOf({ body: 'x'.repeat(2000), headers: ['Content-Type', 'text/plain'] })
    const coded = [{ coding: 'br', headers: [], body: Buffer.alloc(100) }] as const
    expect(decodeEntry(encodeEntry({ ...entry, coded }))).toEqual(entry)
    expect(decodeEntry(encodeEntry(entryOf({ headers: ['Content-Type', 'image/png'] })))?.coded).toBeNull()
  })

  it('tells what is absent from what is empty', () => {
    expect(SMALL.varyValues).toContain(null)
    expect(SMALL.varyValues).toContain('')
    expect(decodeEntry(encodeEntry(SMALL))).toEqual(SMALL)
  })

  it('keeps a body of any bytes and of megabytes', () => {
    const body = Buffer.allocUnsafe(5 * 1024 ** 2).fill('\0\xff\r\n', 'latin1')
    expect(decodeEntry(encodeEntry(entryOf({ body })))?.body.equals(body)).toBe(true)
  })

  it('is cut from nothing larger, and neither is the body read from it', () => {
    const encoded = encodeEntry(SMALL)
    expect(encoded.buffer.byteLength).toBe(encoded.length)
    const readBuffer = Buffer.concat([Buffer.alloc(64 * 1024), encoded])
    const body = decodeEntry(readBuffer.subarray(64 * 1024))?.body
    expect(body?.toString()).toBe('the body')
    expect(body?.buffer.byteLength).toBe(8)
  })

  it('is nothing with any one bit changed', () => {
    const encoded = encodeEntry(SMALL)
    const taken: number[] = []
    for (let bit = 0; bit < encoded.length * 8; bit++) {
      const changed = Buffer.from(encoded)
      changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7))
      if (decodeEntry(changed) !== null) taken.push(bit)
    }
    expect(taken).toEqual([])
  })

  it('is nothing when cut off anywhere, or with more behind it', () => {
    const encoded = encodeEntry(SMALL)
    for (let bytes = 0; bytes < encoded.length; bytes++) expect(decodeEntry(encoded.subarray(0, bytes))).toBeNull()
    expect(decodeEntry(Buffer.concat([encoded, Buffer.alloc(1)]))).toBeNull()
  })

  it('is nothing when a part of it was never written', () => {
    fc.assert(
      fc.property(anyEntry, fc.nat(), fc.nat(), (entry, from, to) => {
        const encoded = encodeEntry(entry)
        const torn = Buffer.from(encoded).fill(0, from % encoded.length, to % (encoded.length + 1))
        fc.pre(!torn.equals(encoded))
        expect(decodeEntry(torn)).toBeNull()
      }),
    )
  })

  it('is nothing of another version', () => {
    for (let version = 0; version < 256; version++) {
      const encoded = encodeEntry(SMALL)
      const ours = encoded.readUInt8(VERSION_AT)
      encoded.writeUInt8(version, VERSION_AT)
      expect(decodeEntry(encoded) !== null).toBe(version === ours)
    }
  })

  it('is nothing of another set of fields', () => {
    const encoded = encodeEntry(SMALL)
    // As a checksum would be that counts no fields.
    encoded.writeUInt32BE(crc32(encoded.subarray(CHECKED_AT)), CHECKSUM_AT)
    expect(decodeEntry(encoded)).toBeNull()
  })

  it('is nothing with a time that is no number', () => {
    expect(decodeEntry(encodeEntry({ ...SMALL, freshUntilMs: Infinity }))).not.toBeNull()
    expect(decodeEntry(encodeEntry({ ...SMALL, freshUntilMs: NaN }))).toBeNull()
  })

  it('is not found in random bytes, whatever they begin with', () => {
    const prefix = encodeEntry(SMALL).subarray(0, HEAD_AT)
    fc.assert(
      fc.property(anyBytes, fc.nat(HEAD_AT), (bytes, like) => {
        expect(decodeEntry(bytes)).toBeNull()
        expect(decodeEntry(Buffer.concat([prefix.subarray(0, like), bytes]))).toBeNull()
      }),
    )
  })

  it('is whole or nothing even where the checksum is right', () => {
    const change = fc.tuple(fc.nat(), fc.oneof(fc.nat(2), fc.nat(255)))
    fc.assert(
      fc.property(anyEntry, fc.array(change, { minLength: 1, maxLength: 4 }), (entry, changes) => {
        const bytes = resealed(encodeEntry(entry), (inside) => {
          for (const [at, byte] of changes) inside[CHECKED_AT + (at % (inside.length - CHECKED_AT))] = byte
        })
        const decoded = decodeEntry(bytes)
        expect(decoded === null || encodeEntry(decoded).equals(bytes)).toBe(true)
      }),
      { numRuns: 2000 },
    )
  })

  it.each([
    ['the head', HEAD_BYTES_AT],
    ['the body', BODY_BYTES_AT],
    ['the key', HEAD_AT + 1],
  ])('makes nothing of a length of %s that is not there', (_what, at) => {
    const bytes = resealed(encodeEntry(SMALL), (inside) => inside.writeUInt32BE(0xffff_fff0, at))
    expect(decodeEntry(bytes)).toBeNull()
  })

  it('makes nothing of a list that claims more members than bytes', () => {
    const { varyNames } = SMALL
    const listAt = encodeEntry(SMALL).indexOf(varyNames[0] as string) - 9
    const bytes = resealed(encodeEntry(SMALL), (inside) => {
      expect(inside.readUInt32BE(listAt)).toBe(varyNames.length)
      inside.writeUInt32BE(0xffff_ffff, listAt)
    })
    expect(decodeEntry(bytes)).toBeNull()
  })
})
