// What a Cache-Control, a targeted or an Age field says: see src/http/cache-control.ts.

import { describe, expect, it } from 'vitest'
import { MAX_DELTA_SECONDS, parseAge, parseCacheControl, parseTargeted } from '../../src/http/cache-control.ts'
import type { CacheControl } from '../../src/http/cache-control.ts'

const NOTHING: CacheControl = {
  maxAgeSeconds: null,
  sMaxAgeSeconds: null,
  noStore: false,
  noCache: false,
  noCacheFields: [],
  isPrivate: false,
  privateFields: [],
  isPublic: false,
  mustRevalidate: false,
  proxyRevalidate: false,
  mustUnderstand: false,
  immutable: false,
  noTransform: false,
  staleWhileRevalidateSeconds: null,
  staleIfErrorSeconds: null,
}

describe('directives', () => {
  it.each<[string, Partial<CacheControl>]>([
    ['', {}],
    [' , ,\t,', {}],
    ['max-age=60', { maxAgeSeconds: 60 }],
    ['MaX-aGe=60', { maxAgeSeconds: 60 }],
    ['s-maxage=1, max-age=3600', { sMaxAgeSeconds: 1, maxAgeSeconds: 3600 }],
    ['No-StOrE', { noStore: true }],
    ['no-cache', { noCache: true }],
    ['private', { isPrivate: true }],
    ['public,must-revalidate', { isPublic: true, mustRevalidate: true }],
    ['proxy-revalidate , must-understand', { proxyRevalidate: true, mustUnderstand: true }],
    ['no-transform\t,public', { noTransform: true, isPublic: true }],
    ['foobar, max-age=3600, foo=bar', { maxAgeSeconds: 3600 }],
  ])('[RFC 9111 §5.2] %j', (value, said) => {
    expect(parseCacheControl(value)).toEqual({ ...NOTHING, ...said })
  })

  it('[RFC 8246 §2] immutable', () => {
    expect(parseCacheControl('max-age=9, immutable')).toEqual({ ...NOTHING, maxAgeSeconds: 9, immutable: true })
  })

  it('[RFC 5861 §3, §4] stale-while-revalidate and stale-if-error', () => {
    expect(parseCacheControl('stale-while-revalidate=30, stale-if-error=600')).toEqual({
      ...NOTHING,
      staleWhileRevalidateSeconds: 30,
      staleIfErrorSeconds: 600,
    })
  })

  it.each<[string, Partial<CacheControl>]>([
    ['no-cache="Set-Cookie"', { noCache: true, noCacheFields: ['set-cookie'] }],
    ['no-cache="a, B" , max-age=5', { noCache: true, noCacheFields: ['a', 'b'], maxAgeSeconds: 5 }],
    ['no-cache=a, no-cache="b"', { noCache: true, noCacheFields: ['a', 'b'] }],
    ['private="X-User,, X-Plan"', { isPrivate: true, privateFields: ['x-user', 'x-plan'] }],
    ['private=""', { isPrivate: true }],
  ])('[RFC 9111 §5.2.2.4, §5.2.2.7] %s counts as unqualified, and its fields are named', (value, said) => {
    expect(parseCacheControl(value)).toEqual({ ...NOTHING, ...said })
  })

  it.each(['no-store=x', 'no-store="a b"', 'no-store, no-store'])(
    'a directive that forbids counts however it is dressed: %s',
    (value) => {
      expect(parseCacheControl(value)).toEqual({ ...NOTHING, noStore: true })
    },
  )

  it.each(['public=x', 'immutable="x"', 'must-understand=1'])(
    'a directive that allows counts only as it is defined: %s',
    (value) => {
      expect(parseCacheControl(value)).toEqual(NOTHING)
    },
  )
})

describe('seconds', () => {
  it.each([
    ['max-age=0', 0],
    ['max-age=003600', 3600],
    ['max-age="60"', 60],
    [String.raw`max-age="\6\0"`, 60],
    ['max-age=2147483647', 2147483647],
    ['max-age=2147483648', MAX_DELTA_SECONDS],
    ['max-age=99999999999', MAX_DELTA_SECONDS],
    [`max-age=${'9'.repeat(30)}`, MAX_DELTA_SECONDS],
  ])('[RFC 9111 §1.2.2] %s', (value, seconds) => {
    expect(parseCacheControl(value)?.maxAgeSeconds).toBe(seconds)
  })

  it.each([
    'max-age',
    'max-age=-3600',
    'max-age=+60',
    'max-age=3600.0',
    'max-age=3600.5',
    'max-age=a3600',
    'max-age=3600a',
    'max-age=1e3',
    'max-age=0x10',
    "max-age='3600'",
    'max-age=""',
    'max-age=" 60"',
    'max-age="-1"',
  ])('[RFC 9111 §4.2.1] an invalid number is stale: %s', (value) => {
    expect(parseCacheControl(value)).toEqual({ ...NOTHING, maxAgeSeconds: 0 })
  })

  it.each(['s-maxage=x', 's-maxage'])('[RFC 9111 §4.2.1] so in %s', (value) => {
    expect(parseCacheControl(value)).toEqual({ ...NOTHING, sMaxAgeSeconds: 0 })
  })

  it.each(['max-age=1800, max-age=1', 'max-age=1, max-age=1800', 'max-age=1, Max-Age=1, max-age=1800'])(
    '[RFC 9111 §4.2.1] of duplicates the smaller counts: %s',
    (value) => {
      expect(parseCacheControl(value)?.maxAgeSeconds).toBe(1)
    },
  )

  it('[RFC 9111 §4.2.1] an invalid duplicate is the smaller', () => {
    expect(parseCacheControl('s-maxage=60, s-maxage=x')?.sMaxAgeSeconds).toBe(0)
  })
})

describe('quoting', () => {
  it.each([
    'extension="max-age=3600", max-age=1',
    'max-age=1, extension="max-age=3600"',
    'max-age=1, extension="a, max-age=0, no-store"',
    String.raw`max-age=1, extension="a\", no-store, \""`,
  ])('[RFC 9110 §5.6.4] what is inside quotes is no directive: %s', (value) => {
    expect(parseCacheControl(value)).toEqual({ ...NOTHING, maxAgeSeconds: 1 })
  })

  it.each(["x='a, max-age=1, b'", "x=', max-age=1"])('an apostrophe quotes nothing: %s', (value) => {
    expect(parseCacheControl(value)).toEqual({ ...NOTHING, maxAgeSeconds: 1 })
  })

  it.each([
    'max-age="60',
    'extension="a, max-age=60',
    String.raw`max-age=60, x="a\"`,
    'max-age=60"',
    '"max-age=60"',
    'max-age="60"s',
    'max-age =3600',
    'max-age= 3600',
    'max-age=',
    '=60',
    'max-age==60',
    'max-age=60; public',
    'max-age=60 public',
    'max-age: 60',
    '{}',
    'max-age=60, \xe9',
    'no-cache=a b',
  ])('[RFC 9111 §5.2] %j has no grammar', (value) => {
    expect(parseCacheControl(value)).toBeNull()
  })

  it('takes time in proportion to the length of blanks and quotes, not to its square', () => {
    const started = performance.now()
    expect(parseCacheControl(`${' '.repeat(100_000)};`)).toBeNull()
    expect(parseCacheControl(`a="${String.raw`\a`.repeat(50_000)}`)).toBeNull()
    expect(performance.now() - started).toBeLessThan(1000)
  })
})

describe('targeted fields', () => {
  it.each<[string, Partial<CacheControl>]>([
    ['max-age=3600', { maxAgeSeconds: 3600 }],
    ['max-age=0', { maxAgeSeconds: 0 }],
    ['max-age=-1', { maxAgeSeconds: 0 }],
    ['max-age=007', { maxAgeSeconds: 7 }],
    ['max-age=2147483648', { maxAgeSeconds: MAX_DELTA_SECONDS }],
    ['max-age=99999999999', { maxAgeSeconds: MAX_DELTA_SECONDS }],
    ['s-maxage=1,max-age=60', { sMaxAgeSeconds: 1, maxAgeSeconds: 60 }],
    ['stale-while-revalidate=30, stale-if-error=600', { staleWhileRevalidateSeconds: 30, staleIfErrorSeconds: 600 }],
    ['no-store', { noStore: true }],
    ['private, no-cache', { isPrivate: true, noCache: true }],
    ['public, must-revalidate', { isPublic: true, mustRevalidate: true }],
    ['proxy-revalidate, must-understand', { proxyRevalidate: true, mustUnderstand: true }],
    ['immutable, no-transform', { immutable: true, noTransform: true }],
    ['no-cache="Set-Cookie, X-A"', { noCache: true, noCacheFields: ['set-cookie', 'x-a'] }],
    ['private=X-User', { isPrivate: true, privateFields: ['x-user'] }],
    ['foobar, max-age=3600, foo="no-store", bar=(a b), baz=1.5', { maxAgeSeconds: 3600 }],
    ['none', {}],
  ])('[RFC 9213 §2.1] %j', (value, said) => {
    expect(parseTargeted(value)).toEqual({ ...NOTHING, ...said })
  })

  it.each<[string, Partial<CacheControl>]>([
    ['max-age=60;no-store;x="private"', { maxAgeSeconds: 60 }],
    ['no-store;max-age=60', { noStore: true }],
  ])('[RFC 9213 §2.1] parameters mean nothing: %s', (value, said) => {
    expect(parseTargeted(value)).toEqual({ ...NOTHING, ...said })
  })

  it.each([
    ['max-age=60, max-age=10', 10],
    ['max-age=10, max-age=60', 60],
  ])('[RFC 9651 §4.2.2] of duplicates the last counts: %s', (value, seconds) => {
    expect(parseTargeted(value)?.maxAgeSeconds).toBe(seconds)
  })

  it.each([
    '',
    '  ',
    'max-age=10000, &&&&&',
    'max-age=60,',
    'max-age=60, ',
    'max-age =100',
    'max-age= 100',
    'MaX-aGe=3600',
    'max-age="60',
    'max-age: 60',
    'max-age=60 public',
    'max-age=9999999999999999',
    'no-store, NO-CACHE',
  ])('[RFC 9213 §2.1] %j is ignored: it is empty, or no dictionary', (value) => {
    expect(parseTargeted(value)).toBeNull()
  })

  it.each([
    'max-age="10000"',
    'max-age=60.0',
    'max-age=a60',
    'max-age',
    'max-age=?1',
    'max-age=(60)',
    'max-age=@60',
    'max-age=:60==:',
    'public, max-age="60"',
    'max-age=60, s-maxage="1"',
    'max-age=60, stale-if-error',
    'max-age=60, stale-while-revalidate=1.5',
  ])('[RFC 9213 §2.1] %j is ignored: seconds are integers, and nothing is made into one', (value) => {
    expect(parseTargeted(value)).toBeNull()
  })

  it.each<[string, Partial<CacheControl>]>([
    ['no-store, max-age="60"', { noStore: true }],
    ['max-age="60", private', { isPrivate: true }],
    ['max-age, no-cache, s-maxage=5', { noCache: true, sMaxAgeSeconds: 5 }],
  ])('a directive that forbids is not undone by a slip beside it: %s', (value, said) => {
    expect(parseTargeted(value)).toEqual({ ...NOTHING, ...said })
  })

  it.each<[string, Partial<CacheControl>]>([
    ['no-store=1', { noStore: true }],
    ['no-store=?0', { noStore: true }],
    ['private=(a b), no-cache=2.5', { isPrivate: true, noCache: true }],
    ['must-revalidate="x"', { mustRevalidate: true }],
    ['public=?0, immutable=1, must-understand="x"', {}],
  ])('what forbids counts however it is dressed, what allows only as it is defined: %s', (value, said) => {
    expect(parseTargeted(value)).toEqual({ ...NOTHING, ...said })
  })
})

describe('Age', () => {
  it.each([
    [['0'], 0],
    [['7200'], 7200],
    [[' 7200 '], 7200],
    [['007'], 7],
    [['7200, 0'], 7200],
    [['0, 7200'], 0],
    [['7200', '0'], 7200],
    [['0', '7200'], 0],
    [['', '7200'], 7200],
    [['2147483647'], 2147483647],
    [['2147483649'], MAX_DELTA_SECONDS],
    [['99999999999999999999'], MAX_DELTA_SECONDS],
  ])('[RFC 9111 §5.1] %j is %i', (values, seconds) => {
    expect(parseAge(values)).toBe(seconds)
  })

  it.each([
    [[]],
    [['']],
    [['abc']],
    [['-7200']],
    [['7200.0']],
    [['+1']],
    [['7200;foo=bar']],
    [['x, 7200']],
    [['x', '7200']],
  ])('[RFC 9111 §5.1] %j is ignored', (values) => {
    expect(parseAge(values)).toBeNull()
  })
})
