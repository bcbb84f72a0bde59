import {
  type Arbitrary,
  array,
  assert,
  constant,
  double,
  integer,
  maxSafeNat,
  nat,
  oneof,
  property,
  string,
  tuple,
} from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FieldPattern, type FieldValue, HOLE, type PatternField, putBytes } from '../../src/core/field-pattern.ts'

/** What write() puts behind `at` bytes that are not its own, in exactly the room that it asks for. */
function written(pattern: FieldPattern, values: readonly FieldValue[], at = 0): string {
  const into = Buffer.alloc(at + pattern.mostBytes(values))
  const end = pattern.write(into, at, values)
  expect(end).toBeLessThanOrEqual(into.length)
  return into.toString('latin1', at, end)
}

const linesOf = (fields: readonly string[]): string => {
  let lines = ''
  for (let i = 0; i < fields.length; i += 2) lines += `${fields[i]}: ${fields[i + 1]}\r\n`
  return lines
}

describe('a pattern of fields', () => {
  const pattern = new FieldPattern([
    ['Age', HOLE],
    ['X-Cache', 'HIT'],
    ['Cache-Status', 'weirgate; hit; ttl=', HOLE, '; detail=', HOLE],
  ])

  it('fills its holes in their order, as fields and as lines', () => {
    expect(pattern.fields([7, 53, 'disk'])).toEqual([
      'Age',
      '7',
      'X-Cache',
      'HIT',
      'Cache-Status',
      'weirgate; hit; ttl=53; detail=disk',
    ])
    expect(written(pattern, [7, 53, 'disk'], 3)).toBe(
      'Age: 7\r\nX-Cache: HIT\r\nCache-Status: weirgate; hit; ttl=53; detail=disk\r\n',
    )
    expect(pattern.with(7, 53, 'disk').fields).toEqual(pattern.fields([7, 53, 'disk']))
  })

  it.each([
    0,
    1,
    9,
    10,
    99,
    100,
    101,
    999_999_999,
    1_000_000_000,
    2_147_483_647,
    2_147_483_648,
    4_294_967_296,
    Number.MAX_SAFE_INTEGER,
    1e21,
    -1,
    -2_147_483_648,
    0.5,
    1.25e-7,
  ])('writes %d as String does', (value) => {
    expect(written(new FieldPattern([['N', HOLE]]), [value])).toBe(`N: ${value}\r\n`)
  })

  it('says the same as lines and as fields, whatever they are', () => {
    const text = string({ unit: integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)) })
    const piece = oneof(text, constant(HOLE))
    const field: Arbitrary<PatternField> = oneof(tuple(text), tuple(text, piece), tuple(text, piece, piece, piece))
    const value = oneof(nat(), maxSafeNat(), double({ noNaN: true }), text)
    const values = array(value, { minLength: 24, maxLength: 24 })
    assert(
      property(array(field, { maxLength: 6 }), values, (fields, all) => {
        const pattern = new FieldPattern(fields)
        const some = all.slice(0, pattern.blank.length)
        expect(written(pattern, some)).toBe(linesOf(pattern.fields(some)))
      }),
    )
  })
})

it.each([0, 1, 31, 32, 33, 500])('puts %i bytes where they belong', (length) => {
  const bytes = Buffer.from(Array.from({ length }, (_, i) => 1 + (i % 255)))
  const into = Buffer.alloc(length + 4)
  expect(putBytes(into, 2, bytes)).toBe(length + 2)
  expect(into).toEqual(Buffer.concat([Buffer.alloc(2), bytes, Buffer.alloc(2)]))
})
