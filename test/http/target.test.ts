// One spelling per resource, or a refusal: see src/http/target.ts.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../src/core/errors.ts'
import { normalizeHost, normalizeTarget } from '../../src/http/target.ts'
import type { NormalTarget } from '../../src/http/target.ts'

function accepted(raw: string): NormalTarget {
  const target = normalizeTarget(raw)
  if (target instanceof GatewayError) throw target
  return target
}

/** A text as the bytes that a socket would carry, one latin1 character each. */
const onTheWire = (text: string): string => Buffer.from(text, 'utf8').toString('latin1')

describe('forms of a target', () => {
  it.each([
    ['/', { form: 'origin', path: '/', query: '', authority: null, scheme: null }],
    ['/a/b?c=d', { form: 'origin', path: '/a/b', query: '?c=d', authority: null, scheme: null }],
    ['/a?', { form: 'origin', path: '/a', query: '?', authority: null, scheme: null }],
    ['*', { form: 'asterisk', path: '*', query: '', authority: null, scheme: null }],
    ['http://h/a?b', { form: 'absolute', path: '/a', query: '?b', authority: 'h', scheme: 'http' }],
    ['HTTPS://H.Example:443/', { form: 'absolute', path: '/', query: '', authority: 'h.example', scheme: 'https' }],
    ['http://h:8080', { form: 'absolute', path: '/', query: '', authority: 'h:8080', scheme: 'http' }],
    ['http://h?b', { form: 'absolute', path: '/', query: '?b', authority: 'h', scheme: 'http' }],
    ['http://h//a/%7e', { form: 'absolute', path: '/a/~', query: '', authority: 'h', scheme: 'http' }],
  ])('[RFC 9112 §3.2] takes %s apart', (raw, expected) => {
    expect(normalizeTarget(raw)).toEqual(expected)
  })

  it.each([
    '',
    'a',
    '?a',
    '*a',
    '**',
    'h.example:443',
    'ftp://h/',
    'http:/a',
    'http:///a',
    'http://user@h/',
    'http://h:70000/',
    'http://h#a',
    'javascript:alert(1)',
    ' /a',
  ])('[RFC 9112 §3.2] refuses %j', (raw) => {
    expect(normalizeTarget(raw)).toMatchObject({ code: 'bad_target' })
  })
})

describe('one spelling of a path', () => {
  it.each([
    ['unreserved characters are decoded', '/%41%7e%2D%2e%5f0', '/A~-._0'],
    ['escapes are upper-cased', '/%c3%a9%3a', '/%C3%A9%3A'],
    ['reserved characters keep their spelling', '/a!%21;b%3Bc', '/a!%21;b%3Bc'],
    ['raw UTF-8 is escaped', onTheWire('/é/日本'), '/%C3%A9/%E6%97%A5%E6%9C%AC'],
    ['raw and escaped bytes join into one character', '/\xc3%a9', '/%C3%A9'],
    ['the highest code point is taken', '/%F4%8F%BF%BF', '/%F4%8F%BF%BF'],
    ['characters that no path may contain raw are escaped', '/a{b}|"<>^`[]', '/a%7Bb%7D%7C%22%3C%3E%5E%60%5B%5D'],
    ['repeated slashes are merged', '//a///b//', '/a/b/'],
    ['path parameters stay', '/a;v=1/b;w', '/a;v=1/b;w'],
    ['an escaped percent sign is decoded once', '/%252e%252e/', '/%252e%252e/'],
    ['an escaped question mark is no query', '/a%3fb', '/a%3Fb'],
    ['a dot that is no whole segment stays', '/.well-known/a..b/.../c.', '/.well-known/a..b/.../c.'],
  ])('[RFC 3986 §6.2.2] %s', (_rule, raw, path) => {
    expect(accepted(raw)).toMatchObject({ path, query: '' })
  })

  it.each([
    ['NUL', '/a%00b'],
    ['a raw control byte', '/a\x01b'],
    ['a raw NUL', '/a\0'],
    ['an escaped line break', '/a%0D%0Ab'],
    ['DEL', '/a%7F'],
    ['a raw backslash', '/a\\b'],
    ['an escaped backslash', '/a%5cb'],
    ['a fragment', '/a#b'],
    ['a raw space', '/a b'],
    ['an escape without digits', '/a%zz'],
    ['an escape cut short', '/a%4'],
    ['a lone percent sign', '/100%'],
    ['a sign inside an escape', '/%+1'],
    ['an encoded slash', '/a%2Fb'],
    ['an encoded slash in small letters', '/a%2fb'],
    ['a lone continuation byte', '/%80'],
    ['a character cut short at the end', '/%C3'],
    ['a character cut short by a slash', '/%C3/a'],
    ['an overlong slash', '/%C0%AF'],
    ['an overlong form of three bytes', '/%E0%80%AF'],
    ['an overlong form of four bytes', '/%F0%80%80%AF'],
    ['a surrogate', '/%ED%A0%80'],
    ['a code point beyond Unicode', '/%F4%90%80%80'],
    ['a lead byte beyond Unicode', '/%F5%80%80%80'],
    ['raw latin1', '/\xe9'],
    ['a character that is no byte', '/日'],
  ])('refuses %s in a path', (_what, raw) => {
    expect(normalizeTarget(raw)).toMatchObject({ code: 'bad_target' })
  })

  it.each([
    '/..',
    '/.',
    '/../',
    '/a/../b',
    '/a/./b',
    '/a/..',
    '/%2e%2e/a',
    '/%2E./a',
    '/a/.%2e',
    '/a/%2e',
    '//../a',
    '/..;/a',
    '/a/..;x=1/b',
    '/a/.;x',
    '/a/..%3B/b',
    '/a/%2e%2e%3bx',
    'http://h/a/../b',
    '/..?a',
  ])('refuses the dot segment in %s', (raw) => {
    expect(normalizeTarget(raw)).toMatchObject({ code: 'bad_target', detail: expect.stringContaining('segment') })
  })

  it('says what was wrong', () => {
    expect(normalizeTarget('/a%2Fb')).toMatchObject({ detail: 'The path has an encoded slash (%2F).' })
  })

  it('[RFC 3986 §6.2.2] changes nothing on a second pass, whatever came first', () => {
    const piece = fc.oneof(
      fc.constantFrom(
        '/',
        '.',
        '..',
        '%2e',
        '%252e',
        '%25',
        ';',
        '%3b',
        '%C3%A9',
        '\xc3\xa9',
        '%e2%82%ac',
        '{',
        '%7E',
        '?',
      ),
      fc.string({ unit: fc.integer({ min: 0x21, max: 0xff }).map((code) => String.fromCharCode(code)), maxLength: 4 }),
    )
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const once = normalizeTarget(`/${pieces.join('')}`)
        fc.pre(!(once instanceof GatewayError))
        expect(normalizeTarget(once.path + once.query)).toEqual(once)
      }),
      { numRuns: 2000 },
    )
  })

  it('lets through only bytes that RFC 3986 allows in a path', () => {
    const anyByte = fc.string({ unit: fc.integer({ min: 0, max: 0xff }).map((code) => String.fromCharCode(code)) })
    fc.assert(
      fc.property(anyByte, (bytes) => {
        const target = normalizeTarget(`/${bytes}`)
        fc.pre(!(target instanceof GatewayError))
        expect(target.path).toMatch(/^(?:\/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-F]{2})*)+$/)
        expect(() => decodeURIComponent(target.path)).not.toThrow()
      }),
      { numRuns: 2000 },
    )
  })
})

describe('query', () => {
  it.each(['?a=%', '?%zz', '?a=%2f..%2F/../', '?a[]=1&b={}', '?%00', '?a?b', '?\\', '?\xe9'])(
    'keeps %s as it came',
    (query) => {
      expect(accepted(`/a${query}`)).toMatchObject({ path: '/a', query })
      // The long way through the path leaves the query alone too.
      expect(accepted(`/%C3%A9${query}`)).toMatchObject({ path: '/%C3%A9', query })
    },
  )

  it.each(['?a b', '?a\tb', '?a\r\nb', '?\0', '?\x7f', '?a#b', '?日'])('refuses %j', (query) => {
    expect(normalizeTarget(`/a${query}`)).toMatchObject({ code: 'bad_target' })
  })
})

describe('host', () => {
  it.each([
    ['example.com', 'http', 'example.com'],
    ['EXAMPLE.Com', 'http', 'example.com'],
    ['example.com.', 'http', 'example.com'],
    ['example.com.:80', 'http', 'example.com'],
    ['example.com:80', 'http', 'example.com'],
    ['example.com:443', 'https', 'example.com'],
    ['example.com:443', 'http', 'example.com:443'],
    ['example.com:80', 'https', 'example.com:80'],
    ['example.com:', 'http', 'example.com'],
    ['example.com:08080', 'http', 'example.com:8080'],
    ['example.com:65535', 'http', 'example.com:65535'],
    ['my_service-1', 'http', 'my_service-1'],
    ['192.0.2.1:8080', 'http', '192.0.2.1:8080'],
    ['[2001:DB8::1]', 'http', '[2001:db8::1]'],
    ['[::1]:80', 'http', '[::1]'],
    ['[::ffff:192.0.2.1]:81', 'http', '[::ffff:192.0.2.1]:81'],
  ] as const)('[RFC 3986 §6.2.2.1, §6.2.3] %s over %s is %s', (raw, scheme, host) => {
    expect(normalizeHost(raw, scheme)).toBe(host)
    expect(normalizeHost(host, scheme)).toBe(host)
  })

  it.each([
    '',
    '.',
    ':80',
    ' ',
    'a b',
    ' a',
    'a,b',
    'user@a',
    'a/b',
    'a?b',
    'a#b',
    'a%41',
    'a\\b',
    'a\0',
    'a\n',
    'é',
    'a..b',
    'a..',
    '.a',
    'a:0',
    'a:65536',
    'a:123456',
    'a:-1',
    'a:8o',
    'a:80:80',
    '::1',
    '[::1',
    '[::1]a',
    '[]',
    '[1.2.3.4]',
    '[fe80::1%25eth0]',
    '[v1.a]',
    'a'.repeat(255),
  ])('[RFC 9110 §7.2] %j is no host', (raw) => {
    expect(normalizeHost(raw, 'http')).toBeNull()
  })
})
