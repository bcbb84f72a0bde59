import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { KeyedHash } from '../../src/core/keyed-hash.ts'

/** HalfSipHash-c-d with 64 bits, as its paper has it. */
function halfSip(key: Buffer, message: Buffer, c: number, d: number): Buffer {
  const [k0, k1] = [key.readUInt32LE(0), key.readUInt32LE(4)]
  const v = Uint32Array.of(k0, k1 ^ 0xee, k0 ^ 0x6c796765, k1 ^ 0x74656462) as Uint32Array &
    [number, number, number, number]
  const turned = (word: number, by: number) => (word << by) | (word >>> (32 - by))
  const rounds = (count: number) => {
    for (let i = 0; i < count; i++) {
      v[0] += v[1]
      v[1] = turned(v[1], 5) ^ v[0]
      v[0] = turned(v[0], 16)
      v[2] += v[3]
      v[3] = turned(v[3], 8) ^ v[2]
      v[0] += v[3]
      v[3] = turned(v[3], 7) ^ v[0]
      v[2] += v[1]
      v[1] = turned(v[1], 13) ^ v[2]
      v[2] = turned(v[2], 16)
    }
  }
  const padded = Buffer.alloc((message.length & ~3) + 4)
  message.copy(padded)
  padded[padded.length - 1] = message.length & 255
  for (let at = 0; at < padded.length; at += 4) {
    v[3] ^= padded.readUInt32LE(at)
    rounds(c)
    v[0] ^= padded.readUInt32LE(at)
  }
  const out = Buffer.alloc(8)
  v[2] ^= 0xee
  rounds(d)
  out.writeUInt32LE((v[1] ^ v[3]) >>> 0, 0)
  v[1] ^= 0xdd
  rounds(d)
  out.writeUInt32LE((v[1] ^ v[3]) >>> 0, 4)
  return out
}

const KEY = Buffer.from([0, 1, 2, 3, 4, 5, 6, 7])

function hashOf(text: string, salt: number): Buffer {
  const hash = new KeyedHash(KEY)
  const out = Buffer.alloc(8)
  out.writeInt32LE(hash.of(text, salt), 4)
  out.writeInt32LE(hash.high, 0)
  return out
}

function bytesOf(text: string, salt: number, encoding: 'latin1' | 'utf16le'): Buffer {
  const head = Buffer.alloc(4)
  head.writeInt32LE(salt)
  return Buffer.concat([head, Buffer.from(text, encoding)])
}

const salts = fc.integer()

describe('a keyed hash', () => {
  it('has a model that gives the published values of HalfSipHash-2-4', () => {
    expect(halfSip(KEY, Buffer.from([]), 2, 4).toString('hex')).toBe('218d1f59b9b83cc8')
    expect(halfSip(KEY, Buffer.from([0]), 2, 4).toString('hex')).toBe('be552412f8387315')
  })

  it('is HalfSipHash-1-3 of the salt and the bytes of the text', () => {
    const texts = fc.string({ unit: fc.integer({ min: 0, max: 255 }).map((unit) => String.fromCharCode(unit)) })
    fc.assert(
      fc.property(texts, salts, (text, salt) => {
        expect(hashOf(text, salt)).toEqual(halfSip(KEY, bytesOf(text, salt, 'latin1'), 1, 3))
      }),
    )
  })

  it('tells every other text by its UTF-16', () => {
    const texts = fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)) })
    fc.assert(
      fc.property(texts, salts, (text, salt) => {
        const wide = `${text}\u{100}`
        expect(hashOf(wide, salt)).toEqual(halfSip(KEY, bytesOf(wide, ~salt, 'utf16le'), 1, 3))
      }),
    )
  })

  it('has another key each time', () => {
    const low = new Set(Array.from({ length: 20 }, () => new KeyedHash().of('192.0.2.7', 0)))
    expect(low.size).toBeGreaterThan(1)
  })
})
