// What a client is told whose request with an Idempotency-Key is not carried out, and how to cure it.

import { GatewayError } from '../core/errors.ts'

/** Why a key cannot be used (again), in the words of the statistics. */
export type Refusal = 'reused' | 'unknown' | 'not_kept' | 'in_flight'

export const REFUSALS: Readonly<Record<Refusal, GatewayError>> = {
  reused: new GatewayError(
    'idempotency_key_reused',
    'This Idempotency-Key was used for another request (method, URL or body). Make a new key for each.',
  ),
  unknown: new GatewayError(
    'idempotency_unknown',
    'The first request with this Idempotency-Key may have been carried out or not, and is not sent again. Find out, then use a new key.',
  ),
  not_kept: new GatewayError(
    'idempotency_not_kept',
    'The request with this Idempotency-Key was carried out, but its answer is not at hand any more, and it is not sent again.',
  ),
  in_flight: new GatewayError(
    'idempotency_in_flight',
    'A request with this Idempotency-Key is under way at another instance. Try again later.',
    { retryAfterSeconds: 1 },
  ),
}

export const MISSING = new GatewayError(
  'idempotency_key_missing',
  'This request needs an Idempotency-Key: send a new UUID with each, and the same one when it is repeated.',
)
export const CROWDED = new GatewayError(
  'saturated',
  'Too much is held for requests with an Idempotency-Key. Try again later.',
  {
    retryAfterSeconds: 1,
  },
)
