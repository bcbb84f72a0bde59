// The forms of `redis.url`, and what is refused.

import { describe, expect, it } from 'vitest'
import { formatRedisAddress, parseRedisUrl } from '../../src/core/redis-url.ts'

const bare = { tls: false, user: '', password: '' }
const a = { host: 'a', port: 6379 }

describe('parseRedisUrl', () => {
  it.each([
    ['redis://a', { kind: 'single', hosts: [a], database: 0, ...bare }],
    ['redis://a/', { kind: 'single', hosts: [a], database: 0, ...bare }],
    ['redis://a:7000/3', { kind: 'single', hosts: [{ host: 'a', port: 7000 }], database: 3, ...bare }],
    ['redis://[::1]:7000', { kind: 'single', hosts: [{ host: '::1', port: 7000 }], database: 0, ...bare }],
    ['rediss://u:p%40%2F@a', { kind: 'single', hosts: [a], database: 0, tls: true, user: 'u', password: 'p@/' }],
    ['redis://:p@a', { kind: 'single', hosts: [a], database: 0, tls: false, user: '', password: 'p' }],
    ['redis://u:a:b@a', { kind: 'single', hosts: [a], database: 0, tls: false, user: 'u', password: 'a:b' }],
    ['redis+cluster://a,b:7000', { kind: 'cluster', hosts: [a, { host: 'b', port: 7000 }], ...bare }],
    ['rediss+cluster://:p@a', { kind: 'cluster', hosts: [a], tls: true, user: '', password: 'p' }],
    [
      'redis+sentinel://a,b:7000/main/2',
      {
        kind: 'sentinel',
        hosts: [
          { host: 'a', port: 26_379 },
          { host: 'b', port: 7000 },
        ],
        master: 'main',
        database: 2,
        ...bare,
      },
    ],
  ])('reads %s', (url, address) => {
    expect(parseRedisUrl(url)).toEqual(address)
  })

  it.each([
    ['', 'write redis://'],
    ['http://a', 'write redis://'],
    ['redis://a?db=1', 'write redis://'],
    ['redis://', 'each host'],
    ['redis://a:0', 'each host'],
    ['redis://a:70000', 'each host'],
    ['redis://a b', 'each host'],
    ['redis+cluster://a,,b', 'each host'],
    ['redis+cluster://a,b/1', 'leave the path out'],
    ['redis://a,b', 'several hosts'],
    ['redis://a/x', 'number of the database'],
    ['redis://a/1/2', 'number of the database'],
    ['redis+sentinel://a', 'name the master'],
    ['redis://%zz:p@a', 'percent-encode'],
    ['redis://secret@a', 'a user needs a password'],
  ])('refuses %j with a cure', (url, cure) => {
    const address = parseRedisUrl(url)
    expect(address).toEqual({ kind: 'invalid', cure: expect.stringContaining(cure) })
    expect(JSON.stringify(address)).not.toContain('secret')
  })
})

describe('formatRedisAddress', () => {
  it.each([
    ['redis://u:secret@a/2', 'redis://a:6379/2'],
    ['rediss://:secret@[::1]', 'rediss://[::1]:6379'],
    ['redis+cluster://:secret@a,b', 'redis+cluster://a:6379,b:6379'],
    ['redis+sentinel://:secret@a/main', 'redis+sentinel://a:26379/main'],
  ])('writes %s without its secrets', (url, text) => {
    const address = parseRedisUrl(url)
    if (address.kind === 'invalid') throw new Error(address.cure)
    expect(formatRedisAddress(address)).toBe(text)
  })
})
