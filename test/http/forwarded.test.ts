// Who the client is behind proxies, and what upstreams are told: see src/http/forwarded.ts.

import { describe, expect, it } from 'vitest'
import {
  FORWARDING_FIELDS,
  UNTRUSTED_FIELDS,
  compileTrust,
  forwardingFields,
  hasOwnVia,
  parseCidr,
  resolveClient,
  unmapAddress,
} from '../../src/http/forwarded.ts'
import type { Cidr } from '../../src/http/forwarded.ts'

function trust(...ranges: string[]): (address: string) => boolean {
  return compileTrust(ranges.map((range) => parseCidr(range) as Cidr))
}

describe('address ranges', () => {
  it.each([
    ['10.0.0.0/8', { family: 'ipv4', address: '10.0.0.0', prefix: 8 }],
    ['0.0.0.0/0', { family: 'ipv4', address: '0.0.0.0', prefix: 0 }],
    ['192.0.2.7', { family: 'ipv4', address: '192.0.2.7', prefix: 32 }],
    ['2001:db8::/32', { family: 'ipv6', address: '2001:db8::', prefix: 32 }],
    ['::1', { family: 'ipv6', address: '::1', prefix: 128 }],
  ])('%s is a range', (text, cidr) => {
    expect(parseCidr(text)).toEqual(cidr)
  })

  it.each([
    '',
    'localhost',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/08',
    '10.0.0.0/-1',
    '10.0.0/8',
    '010.0.0.0/8',
    '10.0.0.0/8 ',
    '2001:db8::/129',
    'fe80::1%eth0',
    '::ffff:10.0.0.0/8',
    '::FFFF:10.0.0.0/104',
    '::ffff:a00:0/104',
    '0:0:0:0:0:ffff:a00:1',
  ])('%j is none', (text) => {
    expect(parseCidr(text)).toBeNull()
  })

  it.each([
    ['::ffff:1.2.3.4', '1.2.3.4'],
    ['::FFFF:1.2.3.4', '1.2.3.4'],
    ['::ffff:0102:0304', '1.2.3.4'],
    ['0:0:0:0:0:ffff:102:304', '1.2.3.4'],
    ['1.2.3.4', '1.2.3.4'],
    ['2001:DB8:0:0::1', '2001:db8::1'],
    ['fe80::1%eth0', 'fe80::1'],
    ['::ffff:0:1.2.3.4', '::ffff:0:102:304'],
    ['not:an:address', 'not:an:address'],
    ['', ''],
  ])('%s compares as %s', (address, plain) => {
    expect(unmapAddress(address)).toBe(plain)
  })
})

describe('trust', () => {
  it.each([
    ['10.1.2.3', true],
    ['::ffff:10.1.2.3', true],
    ['11.1.2.3', false],
    ['2001:db8:1::1', true],
    ['2001:db9::1', false],
    ['fe80::1%eth0', true],
    ['', false],
    ['unknown', false],
  ])('of %s is %s', (address, expected) => {
    expect(trust('10.0.0.0/8', '2001:db8::/32', 'fe80::/10')(address)).toBe(expected)
  })

  it('of nobody is the default', () => {
    expect(trust()('127.0.0.1')).toBe(false)
  })

  it('of all IPv6 holds no IPv4 address', () => {
    expect(trust('::/0')('2001:db8::1')).toBe(true)
    expect(trust('::/0')('10.0.0.1')).toBe(false)
    expect(trust('::/0')('::ffff:10.0.0.1')).toBe(false)
  })
})

describe('the client behind proxies', () => {
  const isTrusted = trust('10.0.0.0/8', '2001:db8:ffff::/48')
  const behind = (...headers: string[]) => resolveClient('10.0.0.1', headers, isTrusted)

  it('is the peer when the peer is not trusted, whatever it claims', () => {
    expect(resolveClient('203.0.113.9', ['X-Forwarded-For', '192.0.2.1'], isTrusted)).toBe('203.0.113.9')
    expect(resolveClient('::ffff:203.0.113.9', ['Forwarded', 'for=192.0.2.1'], isTrusted)).toBe('203.0.113.9')
  })

  it.each([
    ['no chain: the peer', [], '10.0.0.1'],
    ['an empty chain: the peer', [' , ,'], '10.0.0.1'],
    ['one address', ['192.0.2.1'], '192.0.2.1'],
    ['the first untrusted from the right', ['198.51.100.1, 192.0.2.1, 10.0.0.2'], '192.0.2.1'],
    ['all trusted: the one furthest away', ['10.0.0.4, 10.0.0.3'], '10.0.0.4'],
    ['several lines are one chain', ['198.51.100.1', '192.0.2.1', '10.0.0.2'], '192.0.2.1'],
    ['malformed: the last good address', ['192.0.2.1, unknown, 10.0.0.2'], '10.0.0.2'],
    ['malformed at once: the peer', ['192.0.2.1, x'], '10.0.0.1'],
    ['an IPv4 port is cut', ['192.0.2.1:5678'], '192.0.2.1'],
    ['brackets and port are cut', ['[2001:DB8::1]:443'], '2001:db8::1'],
    ['brackets are cut', ['[2001:db8::1]'], '2001:db8::1'],
    ['bare IPv6', ['2001:db8::1'], '2001:db8::1'],
    ['mapped IPv6 is unmapped', ['::ffff:192.0.2.1'], '192.0.2.1'],
    ['a mapped trusted proxy is passed', ['192.0.2.1, ::ffff:10.0.0.2'], '192.0.2.1'],
    ['zones are malformed', ['192.0.2.1, fe80::1%eth0'], '10.0.0.1'],
    ['octal is malformed', ['192.0.2.1, 010.0.0.2'], '10.0.0.1'],
    ['empty members are passed over', ['192.0.2.1, , 10.0.0.2,'], '192.0.2.1'],
    ['a quote left open by the client swallows nothing', ['", 192.0.2.1'], '192.0.2.1'],
  ])('X-Forwarded-For with %s', (_what, lines, client) => {
    expect(behind(...lines.flatMap((line) => ['x-forwarded-for', line]))).toBe(client)
  })

  it.each([
    ['one address', 'for=192.0.2.1', '192.0.2.1'],
    ['other pairs around it', 'by=10.0.0.1;FOR=192.0.2.1;proto=https', '192.0.2.1'],
    ['quoted IPv6 with port', 'for="[2001:db8::1]:47011"', '2001:db8::1'],
    ['an obfuscated port', 'for="192.0.2.1:_a"', '192.0.2.1'],
    ['the first untrusted from the right', 'for=198.51.100.1, for=192.0.2.1;host="a,b", for=10.0.0.2', '192.0.2.1'],
    ['an unknown client: the last good address', 'for=unknown, for=10.0.0.2', '10.0.0.2'],
    ['an obfuscated client', 'for=_hidden', '10.0.0.1'],
    ['no for', 'proto=https', '10.0.0.1'],
    ['two for in one element', 'for=192.0.2.1;for=192.0.2.2', '10.0.0.1'],
    ['no grammar', 'for=192.0.2.1;;', '10.0.0.1'],
    ['a quote left open by the client', 'for=198.51.100.1;x=", for="[2001:db8::1]"', '2001:db8::1'],
    ['an escaped quote', String.raw`for=198.51.100.1, for=192.0.2.1;x="a\",b", for=10.0.0.2`, '192.0.2.1'],
  ])('[RFC 7239 §4] Forwarded with %s', (_what, value, client) => {
    expect(behind('Forwarded', value)).toBe(client)
  })

  it('is read from X-Forwarded-For alone where both are present', () => {
    expect(behind('Forwarded', 'for=198.51.100.1', 'X-Forwarded-For', '192.0.2.1')).toBe('192.0.2.1')
    expect(behind('Forwarded', 'for=198.51.100.1', 'X-Forwarded-For', 'unknown')).toBe('10.0.0.1')
  })

  it('is looked for at most 20 hops away', () => {
    const hops = (count: number) => Array.from({ length: count }, (_, i) => `10.0.1.${i}`).join(', ')
    expect(behind('X-Forwarded-For', `192.0.2.1, ${hops(19)}`)).toBe('192.0.2.1')
    expect(behind('X-Forwarded-For', `192.0.2.1, ${hops(20)}`)).toBe('10.0.1.0')
  })
})

describe('what upstreams are told', () => {
  const request = {
    peerAddress: '203.0.113.9',
    peerIsTrusted: false,
    headers: [] as string[],
    host: 'shop.example',
    scheme: 'https',
    version: '1.1',
  } as const
  const told = (over: Partial<Parameters<typeof forwardingFields>[0]> = {}) => {
    const fields = forwardingFields({ ...request, ...over }, 'weirgate')
    return Object.fromEntries(fields.flatMap((name, i) => (i % 2 === 0 ? [[name, fields[i + 1]]] : [])))
  }
  const claims = [
    'X-Forwarded-For',
    '192.0.2.1',
    'x-forwarded-for',
    '10.0.0.2',
    'Forwarded',
    'for=198.51.100.1;host=evil.example',
    'X-Forwarded-Proto',
    'http',
    'X-Forwarded-Host',
    'front.example',
    'Via',
    '1.0 fred',
  ]

  it('is the peer, the scheme, the host and the way', () => {
    expect(told()).toEqual({
      'X-Forwarded-For': '203.0.113.9',
      'X-Forwarded-Proto': 'https',
      'X-Forwarded-Host': 'shop.example',
      Forwarded: 'for=203.0.113.9;host=shop.example;proto=https',
      Via: '1.1 weirgate',
    })
  })

  it('holds nothing that an untrusted peer said, but its Via', () => {
    expect(told({ headers: claims })).toEqual({ ...told(), Via: '1.0 fred, 1.1 weirgate' })
  })

  it('continues the chain of a trusted peer and keeps its scheme and host, but not the family that was not read', () => {
    expect(told({ headers: claims, peerIsTrusted: true })).toEqual({
      'X-Forwarded-For': '192.0.2.1, 10.0.0.2, 203.0.113.9',
      'X-Forwarded-Proto': 'http',
      'X-Forwarded-Host': 'front.example',
      Forwarded: 'for=192.0.2.1, for=10.0.0.2, for=203.0.113.9;host=shop.example;proto=https',
      Via: '1.0 fred, 1.1 weirgate',
    })
  })

  it('[RFC 7239 §7.4] tells the same chain in both families when a trusted peer speaks Forwarded', () => {
    const headers = ['Forwarded', 'for=unknown, for="[2001:db8::1]:80";by=_x', 'Forwarded', 'for=10.0.0.2']
    expect(told({ headers, peerIsTrusted: true })).toMatchObject({
      'X-Forwarded-For': '2001:db8::1, 10.0.0.2, 203.0.113.9',
      Forwarded:
        'for=unknown, for="[2001:db8::1]:80";by=_x, for=10.0.0.2, for=203.0.113.9;host=shop.example;proto=https',
    })
  })

  it('[RFC 7239 §6] puts IPv6 and a host with a port in quotes', () => {
    expect(told({ peerAddress: '2001:db8::9', host: 'shop.example:8443' })).toMatchObject({
      'X-Forwarded-For': '2001:db8::9',
      Forwarded: 'for="[2001:db8::9]";host="shop.example:8443";proto=https',
    })
  })

  it('[RFC 9110 §7.6.3] names the version that was received, and no host where there was none', () => {
    expect(told({ version: '1.0', host: '' })).toEqual({
      'X-Forwarded-For': '203.0.113.9',
      'X-Forwarded-Proto': 'https',
      Forwarded: 'for=203.0.113.9;proto=https',
      Via: '1.0 weirgate',
    })
  })

  it('replaces exactly the fields that are dropped from the copy', () => {
    const names = forwardingFields(request, 'weirgate').filter((_, i) => i % 2 === 0)
    expect(new Set(names.map((name) => name.toLowerCase()))).toEqual(FORWARDING_FIELDS)
  })
})

describe('loops', () => {
  it.each([
    [['Via', '1.1 weirgate'], true],
    [['via', '1.0 fred, HTTP/1.1 WeirGate (comment)'], true],
    [['Via', '1.1 a', 'Via', '1.1 weirgate'], true],
    [['Via', '1.1 weirgate-2'], false],
    [['Via', '1.1 other.weirgate'], false],
    [['Via', 'weirgate'], false],
    [['X-Via', '1.1 weirgate'], false],
    [[], false],
  ])('[RFC 9110 §7.6.3] %j names us: %s', (headers, expected) => {
    expect(hasOwnVia(headers, 'weirgate')).toBe(expected)
  })
})

describe('claims that only a proxy may make', () => {
  it.each([
    'x-forwarded-for',
    'x-forwarded-anything-new',
    'forwarded',
    'x-real-ip',
    'x-original-url',
    'x-rewrite-url',
    'x-original-host',
    'x-original-path',
    'x-override-url',
    'x-script-name',
    'x-invoke-path',
    'x-matched-path',
    'x-middleware-subrequest',
    'x-http-method-override',
    'x-http-method',
    'x-method-override',
    'x-client-ip',
    'true-client-ip',
    'cf-connecting-ip',
    'x-cluster-client-ip',
  ])('hold %s', (name) => {
    expect(UNTRUSTED_FIELDS.has(name)).toBe(true)
  })

  it.each(['host', 'via', 'cookie', 'authorization', 'x-request-id', 'forward', 'x-forward-for'])(
    'do not hold %s',
    (name) => {
      expect(UNTRUSTED_FIELDS.has(name)).toBe(false)
    },
  )
})
