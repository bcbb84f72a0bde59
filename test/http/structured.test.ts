// What is a dictionary and what is not: see src/http/structured.ts.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type BareItem, type Item, parseDictionary } from '../../src/http/structured.ts'

/** The member of `a=<text>`, or null where that is no dictionary. */
const member = (text: string): Item | null => parseDictionary(`a=${text}`)?.get('a') ?? null

const valueOf = (text: string): Item['value'] | null => member(text)?.value ?? null

/** Keys and values of a dictionary, without types. */
const plain = (text: string): unknown[] | null => {
  const members = parseDictionary(text)
  return members && [...members].flatMap(([key, { value }]) => [key, value.value])
}

describe('dictionaries', () => {
  it.each<[string, unknown[]]>([
    ['', []],
    ['   ', []],
    ['a', ['a', true]],
    ['  a=1  ', ['a', 1]],
    ['a=1\t', ['a', 1]],
    ['a=1,b=2', ['a', 1, 'b', 2]],
    ['a=1 \t,\t  b', ['a', 1, 'b', true]],
    ['*a_-.*9=?0', ['*a_-.*9', false]],
    ['max-age=60, no-store', ['max-age', 60, 'no-store', true]],
    ['constructor, tostring=1', ['constructor', true, 'tostring', 1]],
  ])('[RFC 9651 §4.2.2] reads %j', (text, members) => {
    expect(plain(text)).toEqual(members)
  })

  it('[RFC 9651 §4.2.2] takes the last of duplicates, in the place of the first', () => {
    expect(plain('a=1, b=2, a=3')).toEqual(['a', 3, 'b', 2])
    expect(plain('a=1, a')).toEqual(['a', true])
  })

  it.each([
    ',',
    'a,',
    'a, ',
    ',a',
    'a,,b',
    'a=1,  , b=2',
    'a=1 b=2',
    'a;',
    'a=',
    'a= 1',
    'a =1',
    'a==1',
    '=1',
    'A=1',
    'aB',
    '9a',
    '-a',
    '_a',
    '"a"=1',
    '\ta',
    'a=1, &&&&&',
    'a=1 ; b',
    'max-age: 60',
    'é=1',
    'a=1\n',
    'a=1\0',
  ])('[RFC 9651 §4.2.2] %j is none', (text) => {
    expect(plain(text)).toBeNull()
  })
})

describe('items', () => {
  it.each<[string, BareItem]>([
    ['0', { type: 'integer', value: 0 }],
    ['-0', { type: 'integer', value: 0 }],
    ['042', { type: 'integer', value: 42 }],
    ['-999999999999999', { type: 'integer', value: -999_999_999_999_999 }],
    ['1.5', { type: 'decimal', value: 1.5 }],
    ['-123456789012.125', { type: 'decimal', value: -123_456_789_012.125 }],
    ['""', { type: 'string', value: '' }],
    ['"a b"', { type: 'string', value: 'a b' }],
    [String.raw`"\"\\"`, { type: 'string', value: '"\\' }],
    ['"max-age=1, no-store"', { type: 'string', value: 'max-age=1, no-store' }],
    ['foo', { type: 'token', value: 'foo' }],
    ['*', { type: 'token', value: '*' }],
    ["A/b:c!#$%&'*+-.^_`|~9", { type: 'token', value: "A/b:c!#$%&'*+-.^_`|~9" }],
    ['?1', { type: 'boolean', value: true }],
    ['?0', { type: 'boolean', value: false }],
    ['::', { type: 'bytes', value: Buffer.alloc(0) }],
    [':aGVsbG8=:', { type: 'bytes', value: Buffer.from('hello') }],
    [':aGVsbG8:', { type: 'bytes', value: Buffer.from('hello') }],
    [':/+Ah:', { type: 'bytes', value: Buffer.from([0xff, 0xe0, 0x21]) }],
    ['@1659578233', { type: 'date', value: 1_659_578_233 }],
    ['@-1', { type: 'date', value: -1 }],
    ['%"f%c3%bc%c3%bc %22\\%25"', { type: 'display-string', value: 'füü "\\%' }],
    ['%""', { type: 'display-string', value: '' }],
  ])('[RFC 9651 §4.2.3.1] reads %s', (text, item) => {
    expect(valueOf(text)).toStrictEqual(item)
  })

  it.each([
    '1000000000000000',
    '1.',
    '1.2345',
    '1234567890123.1',
    '1.2.3',
    '.5',
    '-',
    '--1',
    '+1',
    '1e3',
    '0x10',
    '1a',
    '"a',
    '"a\\',
    String.raw`"\a"`,
    '"a"b',
    '"\x7f"',
    '"\t"',
    '"é"',
    "'a'",
    '?',
    '?2',
    '?10',
    '?true',
    ':aGVsbG8=',
    ':aGVs bG8=:',
    ':a:',
    ':aG=:',
    ':aGVs=:',
    ':a-_b:',
    '@',
    '@1.5',
    '@x',
    '%"a',
    '%a',
    '%"%C3%BC"',
    '%"%c3"',
    '%"%ff"',
    '%"%ed%a0%80"',
    '%"%c3%x"',
    '%"\x01"',
    '%"ü"',
    'a b',
    'a@b',
    '&',
    '()a',
  ])('[RFC 9651 §4.2.3.1] %j is none', (text) => {
    expect(member(text)).toBeNull()
  })
})

describe('inner lists and parameters', () => {
  it.each<[string, unknown[]]>([
    ['()', []],
    ['(  )', []],
    ['(1)', [1]],
    ['( 1  "b" c )', [1, 'b', 'c']],
  ])('[RFC 9651 §4.2.1.2] %s is a list', (text, values) => {
    const value = valueOf(text)
    expect(value).toMatchObject({ type: 'inner-list' })
    expect(value?.type === 'inner-list' && value.value.map((item) => item.value.value)).toEqual(values)
  })

  it.each(['(', '(1', '(1,2)', '(1\t2)', '(1"b")', '("a"', '((1))', '1)'])('[RFC 9651 §4.2.1.2] %j is none', (text) => {
    expect(member(text)).toBeNull()
  })

  it.each<[string, unknown[]]>([
    ['1', []],
    ['1;q', ['q', true]],
    ['1;  q=0.5;r=b', ['q', 0.5, 'r', 'b']],
    ['1;q=1;r;q=2', ['q', 2, 'r', true]],
    ['(1;x 2);y="z"', ['y', 'z']],
  ])('[RFC 9651 §4.2.3.2] the parameters of %s', (text, params) => {
    expect([...(member(text)?.params ?? [])].flatMap(([key, { value }]) => [key, value])).toEqual(params)
  })

  it('[RFC 9651 §4.2.2] a key without a value may have parameters, and so may each item of a list', () => {
    const members = parseDictionary('a;x=1, b=(c;y)')
    expect(members?.get('a')?.params.get('x')).toEqual({ type: 'integer', value: 1 })
    const list = members?.get('b')?.value
    expect(list?.type === 'inner-list' && list.value[0]?.params.has('y')).toBe(true)
  })

  it.each(['1;', '1; ', '1 ;q', '1;Q', '1;q=', '1;q =1', '1;q=(1)', '1;=1', '1;\tq'])(
    '[RFC 9651 §4.2.3.2] %j has no parameters',
    (text) => {
      expect(member(text)).toBeNull()
    },
  )
})

describe('any text', () => {
  const key = fc.stringMatching(/^[a-z*][a-z0-9_\-.*]{0,5}$/)
  const bare = fc.oneof(
    fc
      .integer({ min: -999_999_999_999_999, max: 999_999_999_999_999 })
      .map((value): [string, BareItem] => [String(value), { type: 'integer', value }]),
    fc
      .integer({ min: -999_999, max: 999_999 })
      .map((n): [string, BareItem] => [(n / 1000).toFixed(3), { type: 'decimal', value: n / 1000 }]),
    fc
      .stringMatching(/^[ -~]{0,8}$/)
      .map((value): [string, BareItem] => [`"${value.replaceAll(/["\\]/g, '\\$&')}"`, { type: 'string', value }]),
    fc
      .stringMatching(/^[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]{0,8}$/)
      .map((value): [string, BareItem] => [value, { type: 'token', value }]),
    fc.boolean().map((value): [string, BareItem] => [value ? '?1' : '?0', { type: 'boolean', value }]),
    fc
      .uint8Array({ maxLength: 8 })
      .map((bytes): [string, BareItem] => [
        `:${Buffer.from(bytes).toString('base64')}:`,
        { type: 'bytes', value: Buffer.from(bytes) },
      ]),
    fc
      .string({ unit: 'binary', maxLength: 6 })
      .map((value): [string, BareItem] => [
        `%"${[...Buffer.from(value)].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join('')}"`,
        { type: 'display-string', value },
      ]),
  )

  it('[RFC 9651 §4.1] that a sender may write is read as it was meant', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.tuple(key, bare), { selector: ([key]) => key, maxLength: 6 }), (members) => {
        const text = members.map(([key, [written]]) => `${key}=${written}`).join(', ')
        const read = parseDictionary(text)
        expect(read && [...read].map(([key, { value }]) => [key, value])).toEqual(
          members.map(([key, [, item]]) => [key, item]),
        )
      }),
      { numRuns: 500 },
    )
  })

  it('is read or refused, and never throws', () => {
    const soup = fc.string({ unit: fc.constantFrom(...'ab=,;()"\\?:@%-.01 \t*é'.split('')), maxLength: 20 })
    fc.assert(
      fc.property(soup, (text) => {
        expect([null, 'object']).toContain(parseDictionary(text) && 'object')
      }),
      { numRuns: 2000 },
    )
  })

  it('takes time in proportion to its length, not to the square of it', () => {
    const started = performance.now()
    const n = 50_000
    for (const text of [' '.repeat(n), `a=${' '.repeat(n)}`, `a=(${' '.repeat(n)}`, `a=:${'A'.repeat(n)}`]) {
      parseDictionary(text)
    }
    for (const part of [String.raw`\"`, '%c3%bc', '1', ';a', 'a, ']) parseDictionary(`a="${part.repeat(n)}`)
    parseDictionary(`a=(${'1 '.repeat(n)}`)
    parseDictionary(`a${';b'.repeat(n)}`)
    expect(performance.now() - started).toBeLessThan(2000)
  })
})
