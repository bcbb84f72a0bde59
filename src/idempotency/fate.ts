// What an answer, or the want of one, says of its key: pure, so that every rule is one row in test/idempotency/fate.test.ts.
//
//   answered   it is what the request has come to: recorded, and never asked for again
//   free       nothing was done, certainly: the next request with the key is the first one
//   unknown    it may have been done or not. Nobody sends it again, unless the route says that the upstream can tell
//
// A 401 frees the key, which the usual lists forget: it is about credentials that a client renews, to send the same again.

import type { ErrorCode, GatewayError } from '../core/errors.ts'

export type Fate = 'answered' | 'free' | 'unknown'

/** Refused before it was looked into, or for now (RFC 9110 §15, RFC 6585 §4, RFC 8470 §5.2). */
const REFUSALS: ReadonlySet<number> = new Set([401, 407, 408, 409, 421, 425, 429])
/** A server that broke down on the way, or one behind it: before or after the deed. */
const AMBIGUOUS: ReadonlySet<number> = new Set([500, 502, 504])

/** Of what the upstream has answered, or what the gateway says in its place. */
export function fateOfStatus(status: number): Fate {
  if (status < 500) return REFUSALS.has(status) ? 'free' : 'answered'
  return AMBIGUOUS.has(status) ? 'unknown' : 'free'
}

/** The upstream has seen nothing of the request. */
const NOT_SENT: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'body_too_large',
  'breaker_open',
  'cooling_down',
  'forbidden',
  'limits_unavailable',
  'loop_detected',
  'not_cached',
  'overloaded',
  'quota_exceeded',
  'saturated',
  'share_exceeded',
  'timeout_body',
  'timeout_connect',
  'timeout_queue',
  'unauthenticated',
  'upstream_failing',
  'upstream_refused',
])

/** Of a request that failed. */
export const fateOfError = ({ code }: GatewayError): Fate => (NOT_SENT.has(code) ? 'free' : 'unknown')
