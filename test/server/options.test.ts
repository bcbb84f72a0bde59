import { describe, expect, it } from 'vitest'
import { formatAddress, listenOptions, parseAddress } from '../../src/server/options.ts'

describe('an address', () => {
  it.each([
    ['0.0.0.0:8080', { host: '0.0.0.0', port: 8080 }],
    ['127.0.0.1:0', { host: '127.0.0.1', port: 0 }],
    ['localhost:65535', { host: 'localhost', port: 65_535 }],
    ['[::1]:80', { host: '::1', port: 80 }],
    ['[::ffff:127.0.0.1]:80', { host: '::ffff:127.0.0.1', port: 80 }],
  ])('%s is read, and written as it was', (text, expected) => {
    const address = parseAddress(text)
    expect(address).toEqual(expected)
    expect(formatAddress(expected)).toBe(text)
  })

  it.each([
    '',
    '8080',
    ':8080',
    '0.0.0.0',
    '0.0.0.0:',
    '0.0.0.0:65536',
    '0.0.0.0:-1',
    '::1:80',
    '[::1]',
    'a b:1',
    '[x]:1',
  ])('%j is none', (text) => {
    expect(parseAddress(text)).toBeNull()
  })
})

describe('the options of the listener', () => {
  it('have every bound on when only the address is given', () => {
    expect(listenOptions.parse('127.0.0.1:0')).toEqual({
      address: { host: '127.0.0.1', port: 0 },
      connections: 10_000,
      connectionsPerAddress: 256,
      requestsPerConnection: 1000,
      headBytes: 16 * 1024,
      headLine: 8 * 1024,
      headFields: 100,
      target: 8 * 1024,
      headTimeout: 10_000,
      bodyIdle: 10_000,
      bodyRate: 500,
      keepAlive: 65_000,
      writeStall: 30_000,
      drain: 30_000,
    })
  })
})
