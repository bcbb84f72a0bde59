import { describe, expect, it } from 'vitest'
import { createGuard, isLoopback } from '../../src/admin/auth.ts'

const TOKEN = 'correct-horse-battery-staple-0123456789'
const ADDRESS = '192.0.2.7'
const guarded = () => createGuard({ listen: { host: '0.0.0.0', port: 9090 }, token: TOKEN })
const open = (host = '127.0.0.1') => createGuard({ listen: { host, port: 9090 }, token: '' })
const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

describe('loopback', () => {
  it.each([
    ['127.0.0.1', true],
    ['127.9.9.9', true],
    ['::1', true],
    ['localhost', true],
    ['0.0.0.0', false],
    ['::', false],
    ['192.0.2.7', false],
    ['127.evil.test', false],
    ['localhost.evil.test', false],
    ['', false],
  ])('%j is loopback: %s', (host, expected) => {
    expect(isLoopback(host)).toBe(expected)
  })
})

describe('Host, where no token is set', () => {
  it.each([
    ['localhost:9090', true],
    ['LOCALHOST', true],
    ['127.0.0.1:9090', true],
    ['127.0.0.1:1234', true],
    ['[::1]:9090', true],
    ['admin.test:9090', true],
    ['evil.test:9090', false],
    ['localhost.evil.test', false],
    ['localhost@evil.test', false],
    ['localhost:9090:80', false],
    ['192.0.2.7', false],
    ['', false],
    [undefined, false],
  ])('%j is let in: %s', (host, isLetIn) => {
    const refusal = open('admin.test').checkSource(host === undefined ? {} : { host })
    expect(refusal?.status ?? 200).toBe(isLetIn ? 200 : 421)
  })

  it('is not looked at where a token is set', () => {
    expect(guarded().checkSource({ host: 'gateway.example' })).toBeNull()
  })
})

describe('a browser', () => {
  const host = 'localhost:9090'
  it.each([
    [{}, true],
    [{ 'sec-fetch-site': 'same-origin', origin: 'http://localhost:9090' }, true],
    [{ 'sec-fetch-site': 'none' }, true],
    [{ origin: 'http://LOCALHOST:9090' }, true],
    [{ 'sec-fetch-site': 'cross-site' }, false],
    [{ 'sec-fetch-site': 'same-site' }, false],
    [{ 'sec-fetch-site': 'same-origin, cross-site' }, false],
    [{ origin: 'http://evil.test' }, false],
    [{ origin: 'http://localhost:8080' }, false],
    [{ origin: 'http://localhost:9090.evil.test' }, false],
    [{ origin: 'null' }, false],
    [{ origin: '' }, false],
  ])('that sends %j is let in: %s', (headers, isLetIn) => {
    for (const guard of [open(), guarded()]) {
      expect(guard.checkSource({ host, ...headers })?.status ?? 200).toBe(isLetIn ? 200 : 403)
    }
  })
})

describe('the token', () => {
  it.each([
    [`Bearer ${TOKEN}`, 200],
    [`bearer ${TOKEN}`, 200],
    [`Bearer  ${TOKEN} `, 200],
    [`Bearer ${TOKEN}x`, 401],
    [`Bearer ${TOKEN.slice(0, -1)}`, 401],
    [`Basic ${TOKEN}`, 401],
    [TOKEN, 401],
    ['Bearer', 401],
    [`Bearer ${TOKEN} ${TOKEN}`, 401],
    ['', 401],
  ])('in "%s" answers %i', (authorization, status) => {
    expect(guarded().checkToken({ authorization }, ADDRESS, 0)?.status ?? 200).toBe(status)
  })

  it('is not asked for where none is set', () => {
    expect(open().checkToken({}, ADDRESS, 0)).toBeNull()
  })

  it('[RFC 6750 §3] its absence is challenged, and a wrong one is called invalid', () => {
    expect(guarded().checkToken({}, ADDRESS, 0)?.headers).toEqual({
      'WWW-Authenticate': 'Bearer realm="weirgate admin"',
    })
    expect(guarded().checkToken(bearer('wrong'), ADDRESS, 0)?.headers).toEqual({
      'WWW-Authenticate': 'Bearer realm="weirgate admin", error="invalid_token"',
    })
  })
})

describe('wrong tokens', () => {
  const failTimes = (guard: ReturnType<typeof guarded>, times: number, nowMs: number, address = ADDRESS) =>
    Array.from({ length: times }, () => guard.checkToken(bearer('wrong'), address, nowMs)?.status)

  it('lock the address out after ten in a minute, even for the right one, and say for how long', () => {
    const guard = guarded()
    expect(failTimes(guard, 11, 0)).toEqual([...Array.from({ length: 10 }, () => 401), 429])
    const refusal = guard.checkToken(bearer(TOKEN), ADDRESS, 20_500)
    expect(refusal?.status).toBe(429)
    expect(refusal?.headers['Retry-After']).toBe('40')
  })

  it('are forgotten after a minute', () => {
    const guard = guarded()
    failTimes(guard, 10, 0)
    expect(guard.checkToken(bearer(TOKEN), ADDRESS, 59_999)?.status).toBe(429)
    expect(guard.checkToken(bearer(TOKEN), ADDRESS, 60_000)).toBeNull()
  })

  it('count in any minute, not by the clock', () => {
    const guard = guarded()
    failTimes(guard, 5, 50_000)
    failTimes(guard, 5, 70_000)
    expect(guard.checkToken(bearer(TOKEN), ADDRESS, 109_999)?.status).toBe(429)
    expect(guard.checkToken(bearer(TOKEN), ADDRESS, 110_000)).toBeNull()
  })

  it('lock out nobody else', () => {
    const guard = guarded()
    failTimes(guard, 10, 0)
    expect(guard.checkToken(bearer(TOKEN), '192.0.2.8', 0)).toBeNull()
  })

  it('do not include missing ones', () => {
    const guard = guarded()
    for (let i = 0; i < 20; i++) guard.checkToken({}, ADDRESS, 0)
    expect(guard.checkToken(bearer(TOKEN), ADDRESS, 0)).toBeNull()
  })

  it('are remembered for a thousand addresses at most; the oldest is forgotten', () => {
    const guard = guarded()
    failTimes(guard, 10, 0)
    for (let i = 0; i < 999; i++) failTimes(guard, 1, 0, `198.51.100.${i}`)
    expect(guard.checkToken(bearer(TOKEN), ADDRESS, 0)?.status).toBe(429)
    failTimes(guard, 1, 0, 'one too many')
    expect(guard.checkToken(bearer(TOKEN), ADDRESS, 0)).toBeNull()
  })
})
