// Conditions on JSON values: see src/cache/condition.ts.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Condition, holds, parseCondition } from '../../src/cache/condition.ts'
import { type PlainJson, fromPlainJson } from '../../src/http/json.ts'

/** Of the value as JSON.parse gives it, and as the reader of request bodies does: the same. */
function outcome(text: string, value: PlainJson): boolean | null {
  const condition = parseCondition(text) as Condition
  const [plain, read] = [holds(condition, value), holds(condition, fromPlainJson(value))]
  expect(read).toBe(plain)
  return plain
}

describe('a condition', () => {
  it.each<[string, PlainJson, boolean | null]>([
    ['a exists', { a: 0 }, true],
    ['a exists', { a: null }, false],
    ['a exists', {}, false],
    ['a exists', ['a'], false],
    ['a absent', { a: null }, true],
    ['a absent', { a: '' }, false],
    ['toString exists', {}, false],
    ['/a/1/b exists', { a: [0, { b: 1 }] }, true],
    ['/a/01/b exists', { a: [0, { b: 1 }] }, false],
    ['/0 exists', [1], true],
    ['/a~1b exists', { 'a/b': 1 }, true],
    ['a/b exists', { 'a/b': 1 }, true],
    ['a empty', {}, true],
    ['a empty', { a: '' }, true],
    ['a empty', { a: [] }, true],
    ['a empty', { a: {} }, true],
    ['a empty', { a: ' ' }, false],
    ['a empty', { a: [null] }, false],
    ['a empty', { a: 0 }, null],
    ['a empty', { a: false }, null],
    ['a filled', { a: { b: null } }, true],
    ['a filled', {}, false],
    ['a filled', { a: '' }, false],
    ['a filled', { a: 1 }, null],
    ['t > 0', { t: 0 }, false],
    ['t > 0', { t: 0.1 }, true],
    ['t > 0', { t: -1 }, false],
    ['t > 0', {}, false],
    ['t > 0', { t: null }, false],
    ['t > 0', { t: '1' }, null],
    ['t > 0', { t: true }, null],
    ['t > 0', { t: [1] }, null],
    ['t >= 1', { t: 1 }, true],
    ['t < 1', { t: 1 }, false],
    ['t <= 1e0', { t: 1 }, true],
    ['s == true', { s: true }, true],
    ['s == true', { s: false }, false],
    ['s == true', { s: 'true' }, null],
    ['s == true', {}, false],
    ['s != true', {}, true],
    ['s != true', { s: 1 }, null],
    ['s == "a b"', { s: 'a b' }, true],
    ['s != "stop"', { s: 'length' }, true],
    ['s != "stop"', { s: { a: 1 } }, null],
  ])('%s of %j: %s', (text, value, wanted) => {
    expect(outcome(text, value)).toBe(wanted)
  })

  it.each([
    '',
    'a',
    'exists',
    ' a exists',
    'a exists ',
    'a Exists',
    'a exists b',
    'a is 1',
    'a = 1',
    'a => 1',
    'a > ',
    'a > x',
    'a > "1"',
    'a < true',
    'a == null',
    'a == [1]',
    'a == {}',
    "a == 'b'",
    'a == 01',
    'a > 1e999',
    'a==1',
    '/~2 exists',
  ])('is not %j', (text) => {
    expect(parseCondition(text)).toBeNull()
  })

  it('compares as numbers do, and says never both of opposites', () => {
    const number = fc.oneof(fc.integer({ min: -2, max: 2 }), fc.double({ noNaN: true, noDefaultInfinity: true }))
    fc.assert(
      fc.property(number, number, (a, b) => {
        const is = (sign: string) => outcome(`a ${sign} ${String(b)}`, { a })
        expect([is('<'), is('<='), is('>'), is('>='), is('=='), is('!=')]).toEqual([
          a < b,
          a <= b,
          a > b,
          a >= b,
          a === b,
          a !== b,
        ])
      }),
    )
  })

  it('never throws, whatever it is asked of', () => {
    const text = fc.constantFrom('a exists', '/a/0 empty', 'a == "x"', '/a/b > 1', 'a != true')
    fc.assert(
      fc.property(text, fc.jsonValue(), (condition, value) => {
        expect([true, false, null]).toContain(outcome(condition, value as PlainJson))
      }),
    )
  })
})
