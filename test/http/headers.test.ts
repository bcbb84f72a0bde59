// Look-ups in flat header lists: see src/http/headers.ts.

import { describe, expect, it } from 'vitest'
import {
  HOP_BY_HOP,
  connectionNames,
  getCombined,
  getHeader,
  getHeaders,
  hasHeader,
  isFieldValue,
  isToken,
  listMembers,
  sameName,
  withoutHeaders,
} from '../../src/http/headers.ts'

const HEADERS = [
  'Accept',
  'a',
  'X-A',
  '1',
  'accept',
  'b',
  'x-a-b',
  '2',
  'ACCEPT',
  '',
  '__proto__',
  'x',
  'X-Value',
  'accept',
]

describe('look-ups', () => {
  it('[RFC 9110 §5.1] ignore the case of names and keep the order of lines', () => {
    expect(getHeader(HEADERS, 'accept')).toBe('a')
    expect(getHeaders(HEADERS, 'accept')).toEqual(['a', 'b', ''])
    expect(getHeader(HEADERS, 'x-a')).toBe('1')
    expect(hasHeader(HEADERS, 'x-a-b')).toBe(true)
  })

  it('[RFC 9110 §5.3] combine the lines of a list field', () => {
    expect(getCombined(HEADERS, 'accept')).toBe('a, b, ')
    expect(getCombined(HEADERS, 'x-a')).toBe('1')
  })

  it('find nothing where there is nothing, not even on an object prototype', () => {
    for (const name of ['via', 'constructor', 'toString', '']) {
      expect(getHeader(HEADERS, name)).toBeNull()
      expect(getHeaders(HEADERS, name)).toEqual([])
      expect(getCombined(HEADERS, name)).toBeNull()
      expect(hasHeader(HEADERS, name)).toBe(false)
    }
    expect(getHeader(HEADERS, '__proto__')).toBe('x')
  })

  it('find a field that is there without a value', () => {
    expect(getHeader(['A', ''], 'a')).toBe('')
    expect(getCombined(['A', ''], 'a')).toBe('')
    expect(hasHeader(['A', ''], 'a')).toBe(true)
  })

  it.each([
    ['Host', 'host', true],
    ['host', 'host', true],
    ['hosts', 'host', false],
    ['hast', 'host', false],
  ])('%s is %s: %s', (name, lowerName, expected) => {
    expect(sameName(name, lowerName)).toBe(expected)
  })
})

it('a copy leaves out what is dropped, in any case, and keeps the rest as it came', () => {
  const copy = withoutHeaders(HEADERS, new Set(['accept', 'x-a']))
  expect(copy).toEqual(['x-a-b', '2', '__proto__', 'x', 'X-Value', 'accept'])
  expect(HEADERS).toHaveLength(14)
})

it.each([
  ['a, b ,\tc', ['a', 'b', 'c']],
  [' , a,, ', ['a']],
  ['', []],
])('[RFC 9110 §5.6.1] members of %j', (value, members) => {
  expect(listMembers(value)).toEqual(members)
})

describe('fields of one connection', () => {
  it('[RFC 9110 §7.6.1] are those that Connection names, on all its lines', () => {
    expect(connectionNames(['Connection', 'Close, X-A', 'connection', 'x-b'])).toEqual(['close', 'x-a', 'x-b'])
    expect(connectionNames(['X-Connection', 'x-a'])).toEqual([])
  })

  it.each([
    'connection',
    'keep-alive',
    'proxy-connection',
    'proxy-authorization',
    'te',
    'trailer',
    'transfer-encoding',
    'upgrade',
  ])('[RFC 9110 §7.6.1] include %s, named or not', (name) => {
    expect(HOP_BY_HOP.has(name)).toBe(true)
  })

  it.each(['content-length', 'host', 'authorization', 'cookie', 'set-cookie', 'via'])('do not include %s', (name) => {
    expect(HOP_BY_HOP.has(name)).toBe(false)
  })
})

describe('grammar', () => {
  it.each([
    ['X-A', true],
    ["!#$%&'*+-.^_`|~09", true],
    ['', false],
    ['a b', false],
    ['a:', false],
    ['a\n', false],
    ['\xe9', false],
    ['a"', false],
  ])('[RFC 9110 §5.1] %j is a name: %s', (name, expected) => {
    expect(isToken(name)).toBe(expected)
  })

  it.each([
    ['', true],
    ['a\tb c', true],
    ['\xe9\xff', true],
    ['a\nb', false],
    ['a\r', false],
    ['a\n', false],
    ['a\0', false],
    ['\x7f', false],
    ['日', false],
  ])('[RFC 9110 §5.5] %j is a value: %s', (value, expected) => {
    expect(isFieldValue(value)).toBe(expected)
  })
})
