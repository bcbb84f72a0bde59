import { describe, expect, it } from 'vitest'
import { urlOf, claimsOf, pathOfKey } from '../../src/cache/key.ts'
import type { HeaderList } from '../../src/core/context.ts'

const asking = (headers: HeaderList, peerIsTrusted: boolean) => ({
  scheme: 'http' as const,
  host: 'gateway.test:8080',
  path: '/a',
  query: '?b=c',
  headers,
  peerIsTrusted,
})

describe('the key of a request', () => {
  it('is the URL it asks for', () => {
    expect(urlOf(asking([], false))).toBe('http://gateway.test:8080/a?b=c')
  })

  it.each<[string, HeaderList, string]>([
    ['X-Forwarded-Proto', ['X-Forwarded-Proto', 'HTTPS'], 'https://gateway.test:8080/a?b=c'],
    ['X-Forwarded-Host', ['X-Forwarded-Host', 'Shop.Test:80'], 'http://shop.test/a?b=c'],
    [
      'both, and so the port of the scheme',
      ['X-Forwarded-Proto', 'https', 'X-Forwarded-Host', 'shop.test:443'],
      'https://shop.test/a?b=c',
    ],
    [
      'neither, where neither can be read',
      ['X-Forwarded-Proto', 'ws', 'X-Forwarded-Host', 'a/b'],
      'http://gateway.test:8080/a?b=c',
    ],
  ])('is the URL that the client of a trusted proxy asked for, by %s', (_name, headers, expected) => {
    expect(urlOf(asking(headers, true))).toBe(expected)
    expect(urlOf(asking(headers, false))).toBe('http://gateway.test:8080/a?b=c')
  })

  it.each([
    ['http://gateway.test/a?b=c', '/a?b=c'],
    ['https://[::1]:8080/', '/'],
    ['http:///old', '/old'],
  ])('%s ends in %s', (key, path) => {
    expect(pathOfKey(key)).toBe(path)
  })
})

describe('what a trusted proxy says beyond the key', () => {
  it.each<[string, HeaderList, string]>([
    ['nothing of the scheme, which is in it', ['X-Forwarded-Proto', 'https'], ''],
    [
      'the host by which it was routed, where another is in it',
      ['X-Forwarded-Host', 'shop.test'],
      'x-forwarded-host: for gateway.test:8080\n',
    ],
    [
      'nothing of addresses',
      ['X-Forwarded-For', '192.0.2.1', 'X-Real-IP', '192.0.2.1', 'CF-Connecting-IP', '192.0.2.1'],
      '',
    ],
    ['nothing of what no upstream believes', ['Accept', '*/*', 'X-Whatever', '1'], ''],
    ['who the user is', ['X-Forwarded-User', 'ann'], 'x-forwarded-user: ann\n'],
    ['another method', ['X-HTTP-Method-Override', 'DELETE'], 'x-http-method-override: DELETE\n'],
    [
      'another target, and where it was mounted',
      ['X-Original-URL', '/x', 'X-Forwarded-Prefix', '/p'],
      'x-original-url: /x\nx-forwarded-prefix: /p\n',
    ],
    [
      'a scheme and a host that cannot be read',
      ['X-Forwarded-Proto', 'ws', 'X-Forwarded-Host', 'a b'],
      'x-forwarded-proto: ws\nx-forwarded-host: a b\n',
    ],
    [
      'scheme and host of Forwarded, without its addresses',
      ['Forwarded', 'for=192.0.2.1;proto=https;host=a, for="[::1]:1";by=b'],
      'forwarded: proto=https;host=a, \n',
    ],
    ['no scheme in Forwarded', ['Forwarded', 'for=192.0.2.1, for="[2001:db8::1]"'], ''],
  ])('%s', (_name, headers, expected) => {
    expect(claimsOf(asking(headers, true))).toBe(expected)
    expect(claimsOf(asking(headers, false))).toBe('')
  })
})
