import { describe, expect, it } from 'vitest'
import { parseList } from './structured-fields.ts'

describe('the structured field reader', () => {
  it.each([
    ['', []],
    [
      '"a";q=100;w=1, "b";x',
      [
        ['a', { q: 100, w: 1 }],
        ['b', { x: true }],
      ],
    ],
    [String.raw`"a\"b\\c"`, [['a"b\\c', {}]]],
    ['weirgate; hit;  ttl=-5', [[{ token: 'weirgate' }, { hit: true, ttl: -5 }]]],
    ['1.5;a=?0', [[1.5, { a: false }]]],
    ['999999999999999', [[999_999_999_999_999, {}]]],
  ])('[RFC 9651 §4.2] reads %j', (text, expected) => {
    expect(parseList(text).map(({ value, params }) => [value, Object.fromEntries(params)])).toEqual(expected)
  })

  it.each([
    '"a",',
    '"a" "b"',
    '"a',
    '"a\\n"',
    '"é"',
    '"a";Q=1',
    '"a" ;q=1',
    '"a";q= 1',
    '1000000000000000',
    '1.',
    '(1 2)',
    ',',
  ])('[RFC 9651 §4.2] refuses %j', (text) => {
    expect(() => parseList(text)).toThrow(/^expected /)
  })
})
