import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { HeaderList } from '../../src/core/context.ts'
import type { KeyPart } from '../../src/limit/options.ts'
import { addressBlock, compileKey, compileKeyText } from '../../src/limit/key.ts'
import { request, type RequestParts } from './request.ts'

const apiKey: KeyPart = { kind: 'header', name: 'x-api-key' }
const tenant: KeyPart = { kind: 'header', name: 'x-tenant' }
const ip: KeyPart = { kind: 'ip' }
const headers = (key: string, tenant: string) => ['X-API-Key', key, 'X-Tenant', tenant]

describe('the block of an address', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['::FFFF:192.0.2.1', '192.0.2.1'],
    ['::ffff:c000:201', '192.0.2.1'],
    ['0:0:0:0:0:ffff:192.0.2.1', '192.0.2.1'],
    ['::ffff:0.0.0.0', '0.0.0.0'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:0DB8:0001:0002::', '2001:db8:1:2::/64'],
    ['2001:db8:1:2::ffff', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['2001:db8::2:3:4:5:6', '2001:db8:0:2::/64'],
    ['::', '0:0:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['::2:3:4:5:6:7:8', '0:2:3:4::/64'],
    ['1::', '1:0:0:0::/64'],
    ['1:2:3:4:5:6:7::', '1:2:3:4::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['fe80::1:2:3:4%25', 'fe80:0:0:0::/64'],
    ['64:ff9b::192.0.2.33', '64:ff9b:0:0::/64'],
    ['::192.0.2.1', '0:0:0:0::/64'],
    ['1:2:3:4:5:6:192.0.2.1', '1:2:3:4::/64'],
  ])('[RFC 4291 §2.2] of %s is %s', (address, block) => {
    expect(addressBlock(address)).toBe(block)
  })

  it.each([
    ':',
    ':::',
    '1:2',
    '1::2::3',
    '1:2:3:4:5:6:7:8:9',
    '12345::',
    ':1::',
    '1:',
    'g::',
    '::ffff:1.2.3',
    '::256.1.1.1',
    '1:2:3:4:5:6:7:1.2.3.4',
  ])('of %j, which is no address, is the text itself', (text) => {
    expect(addressBlock(text)).toBe(text)
  })

  it('is one for a whole /64 and another for any other, however the address is written', () => {
    const group = fc.integer({ min: 0, max: 0xffff })
    const groups = fc.array(fc.oneof(fc.constant(0), group), { minLength: 8, maxLength: 8 })
    fc.assert(
      fc.property(groups, fc.array(group, { minLength: 4, maxLength: 4 }), (address, host) => {
        fc.pre(address.slice(0, 4).some((g) => g !== 0))
        const full = address.map((g) => g.toString(16).padStart(4, '0').toUpperCase()).join(':')
        // The URL parser writes the canonical text of RFC 5952.
        const short = new URL(`http://[${full}]/`).hostname.slice(1, -1)
        const neighbour = [...address.slice(0, 4), ...host].map((g) => g.toString(16)).join(':')
        const expected = `${address
          .slice(0, 4)
          .map((g) => g.toString(16))
          .join(':')}::/64`
        expect([full, short, neighbour].map(addressBlock)).toEqual([expected, expected, expected])
      }),
    )
  })
})

describe('a key', () => {
  const same = (parts: readonly KeyPart[], a: RequestParts, b: RequestParts) =>
    compileKey(parts, 'ip')(request(a)) === compileKey(parts, 'ip')(request(b))

  it.each<[string, readonly KeyPart[], RequestParts, RequestParts]>([
    ['a mapped address and its IPv4', [ip], { ip: '::ffff:192.0.2.1' }, { ip: '192.0.2.1' }],
    ['two hosts of one /64', [ip], { ip: '2001:db8::1' }, { ip: '2001:db8::ffff:1' }],
    ['a header name in another case', [apiKey], { headers: ['X-API-KEY', 'a'] }, { headers: ['x-api-key', 'a'] }],
    ['other methods where the method is no part', [ip], { method: 'GET' }, { method: 'PUT' }],
    ['a missing and an empty header', [apiKey], {}, { headers: ['X-API-Key', ''] }],
    ['two ports of one host', [{ kind: 'host' }], { host: 'a.test' }, { host: 'a.test:8080' }],
    ['two ports of one address', [{ kind: 'host' }], { host: '[::1]' }, { host: '[::1]:8080' }],
    [
      'a header and another line of it, whatever they say',
      [apiKey],
      { headers: ['X-API-Key', 'a', 'X-API-Key', 'b'] },
      { headers: ['X-API-Key', 'a', 'X-API-Key', 'c'] },
    ],
  ])('is one for %s', (_, parts, a, b) => {
    expect(same(parts, a, b)).toBe(true)
  })

  it.each<[string, readonly KeyPart[], RequestParts, RequestParts]>([
    ['two IPv4 addresses', [ip], { ip: '192.0.2.1' }, { ip: '192.0.2.2' }],
    ['two mapped addresses', [ip], { ip: '::ffff:192.0.2.1' }, { ip: '::ffff:192.0.2.2' }],
    ['two /64', [ip], { ip: '2001:db8:0:1::1' }, { ip: '2001:db8:0:2::1' }],
    ['("a", "bc") and ("ab", "c")', [apiKey, tenant], { headers: headers('a', 'bc') }, { headers: headers('ab', 'c') }],
    [
      'parts that hold a length',
      [apiKey, tenant],
      { headers: headers('a1:b', 'c') },
      { headers: headers('a', 'b1:c') },
    ],
    ['two routes', [ip, { kind: 'route' }], { route: '/a' }, { route: '/b' }],
    ['two methods', [{ kind: 'method' }], { method: 'GET' }, { method: 'PUT' }],
    ['two hosts', [{ kind: 'host' }], { host: 'a.test' }, { host: 'b.test' }],
    [
      'two long values that differ at their end',
      [apiKey],
      { headers: ['X-API-Key', `${'k'.repeat(4000)}1`] },
      { headers: ['X-API-Key', `${'k'.repeat(4000)}2`] },
    ],
    ['one line and two', [apiKey], { headers: ['X-API-Key', 'a'] }, { headers: ['X-API-Key', 'a', 'X-API-Key', 'b'] }],
    ['a missing header and one that names the address', [apiKey], {}, { headers: ['X-API-Key', '192.0.2.7'] }],
  ])('tells apart %s', (_, parts, a, b) => {
    expect(same(parts, a, b)).toBe(false)
  })

  it('tells any two lists of parts apart', () => {
    const key = compileKey([apiKey, tenant], 'ip')
    const value = fc.oneof(fc.constantFrom('', '1', '1:', ':1', '@1:', '#'), fc.string({ minLength: 1, maxLength: 4 }))
    fc.assert(
      fc.property(value, value, value, value, (a, b, c, d) => {
        const equal = key(request({ headers: headers(a, b) })) === key(request({ headers: headers(c, d) }))
        expect(equal).toBe(a === c && b === d)
      }),
    )
  })

  it('is of bounded length, whatever a client sends', () => {
    const subject = compileKey(
      [apiKey, tenant],
      'ip',
    )(request({ headers: headers('a'.repeat(16_000), 'b'.repeat(256)) }))
    expect(subject?.length).toBeLessThan(2 * 300)
    expect(compileKey([apiKey], 'ip')(request({ headers: ['X-API-Key', 'a'.repeat(256)] }))).toContain('a'.repeat(256))
  })

  it('never is a text that looks like an array index, where a client chooses it', () => {
    expect(compileKey([apiKey], 'ip')(request({ headers: ['X-API-Key', '4294967294'] }))).not.toMatch(/^\d+$/)
  })

  it.each([
    ['ip', '@9:192.0.2.7'],
    ['skip', null],
  ] as const)('with onMissing %s and no header is %j', (onMissing, expected) => {
    expect(compileKey([apiKey], onMissing)(request())).toBe(expected)
    expect(compileKey([apiKey], onMissing)(request({ headers: ['X-API-Key', 'a'] }))).toBe('1:a')
  })

  const session: KeyPart = { kind: 'cookie', name: 'sid' }

  it.each<[string, KeyPart, HeaderList]>([
    ['two lines of a header', apiKey, ['X-API-Key', 'a', 'X-API-Key', 'b']],
    ['a header and an empty line of it', apiKey, ['X-API-Key', 'a', 'x-api-key', '']],
    ['a cookie twice', session, ['Cookie', 'sid=a; sid=b']],
    ['cookies that not all read alike', session, ['Cookie', 'sid=a; x="b c']],
  ])('is the address for %s, unless who lacks it is refused', (_name, part, sent) => {
    const of = (onMissing: 'ip' | 'skip' | 'deny') => compileKey([part], onMissing)(request({ headers: sent }))
    expect([of('ip'), of('skip'), of('deny')]).toEqual(['@9:192.0.2.7', '@9:192.0.2.7', null])
    expect(compileKeyText([part], 'skip')(request({ headers: sent }))).toBe('ip=192.0.2.7')
  })

  it.each<[readonly KeyPart[], RequestParts, string | null]>([
    [[ip], {}, 'ip=192.0.2.7'],
    [[ip, { kind: 'route' }], {}, 'ip=192.0.2.7, route=/x'],
    [[ip], { ip: '2001:db8::1' }, 'ip=2001:db8:0:0::/64'],
    [[{ kind: 'method' }, { kind: 'host' }], {}, 'method=GET, host=gateway.test'],
    [[apiKey], { headers: ['X-API-Key', 'a', 'x-api-key', 'b'] }, 'ip=192.0.2.7'],
    [[apiKey], {}, 'ip=192.0.2.7'],
  ])('of %j reads for people', (parts, request_, expected) => {
    expect(compileKeyText(parts, 'ip')(request(request_))).toBe(expected)
  })

  it('reads for people as a digest where it is long, and as nothing where it is skipped', () => {
    const text = compileKeyText([apiKey], 'skip')
    expect(text(request({ headers: ['X-API-Key', 'a'.repeat(257)] }))).toMatch(/^header:x-api-key=sha256:[\w-]{43}$/)
    expect(text(request())).toBeNull()
  })
})
