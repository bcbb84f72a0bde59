import { describe, expect, it } from 'vitest'
import { ERRORS, type ErrorCode, GatewayError } from '../../src/core/errors.ts'
import { fateOfError, fateOfStatus } from '../../src/idempotency/fate.ts'

describe('what an answer says of its key', () => {
  it.each([200, 201, 202, 204, 206, 301, 303, 307, 400, 402, 403, 404, 405, 410, 412, 413, 422, 451])(
    '%i is what the request has come to',
    (status) => expect(fateOfStatus(status)).toBe('answered'),
  )
  it.each([401, 407, 408, 409, 421, 425, 429, 501, 503, 505, 529])('after %i nothing was done', (status) =>
    expect(fateOfStatus(status)).toBe('free'),
  )
  it.each([500, 502, 504])('after %i nobody knows', (status) => expect(fateOfStatus(status)).toBe('unknown'))
})

describe('what a failure says of its key', () => {
  const of = (code: ErrorCode): string => fateOfError(new GatewayError(code, ''))

  it.each<ErrorCode>([
    'upstream_refused',
    'timeout_connect',
    'timeout_queue',
    'breaker_open',
    'saturated',
    'overloaded',
  ])('%s: nothing was sent', (code) => expect(of(code)).toBe('free'))
  it.each<ErrorCode>([
    'upstream_reset',
    'upstream_invalid',
    'timeout_first_byte',
    'timeout_idle',
    'timeout_total',
    'draining',
  ])('%s: it may have been done', (code) => expect(of(code)).toBe('unknown'))
  it('a failure that nobody has thought of may have come after the deed', () => {
    const free = (Object.keys(ERRORS) as ErrorCode[]).filter((code) => of(code) === 'free')
    expect(free.toSorted()).toMatchInlineSnapshot(`
      [
        "body_too_large",
        "breaker_open",
        "cooling_down",
        "forbidden",
        "limits_unavailable",
        "loop_detected",
        "not_cached",
        "overloaded",
        "quota_exceeded",
        "saturated",
        "share_exceeded",
        "timeout_body",
        "timeout_connect",
        "timeout_queue",
        "unauthenticated",
        "upstream_failing",
        "upstream_refused",
      ]
    `)
  })
})
