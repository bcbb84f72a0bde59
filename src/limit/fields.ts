// The texts of the rate-limit fields, from numbers: RateLimit-Policy and RateLimit of
// draft-ietf-httpapi-ratelimit-headers-10 (lists of Strings with Integer parameters, RFC 9651), Retry-After (RFC 9110
// §10.2.3) and the X-RateLimit-* of custom. Times are rounded up, so that nobody who waits as told comes too early.

import { HOLE, type Piece } from '../core/field-pattern.ts'
import type { Rate } from './algorithm.ts'

/** The fields that can say one thing only, in lower case: an upstream's own would contradict ours. RateLimit and
 *  RateLimit-Policy are lists, in which both have their place. */
export const SINGLE_FIELDS: ReadonlySet<string> = new Set([
  'x-ratelimit-limit',
  'x-ratelimit-remaining',
  'x-ratelimit-reset',
])

/** The same for tokens, as services of AI name them. */
export const TOKEN_FIELDS: ReadonlySet<string> = new Set([
  'x-ratelimit-limit-tokens',
  'x-ratelimit-remaining-tokens',
  'x-ratelimit-reset-tokens',
])

/** An RFC 9651 §3.3.3 String. What it cannot hold, anything but printable ASCII, becomes `?`. */
export const quotedString = (text: string): string =>
  `"${text.replace(/[^ -~]/gu, '?').replace(/["\\]/g, String.raw`\$&`)}"`

/** `"api";q=100;w=1`: a policy in RateLimit-Policy; null for windows below a second, which the draft cannot say.
 *  The window is rounded up; slots have none. burst: units at once where that is a rule of its own, else null. unit: a
 *  parameter that names it, where it is not requests. */
export function formatPolicy(
  name: string,
  rate: Rate,
  { burst, unit }: { readonly burst: number | null; readonly unit: string | null },
): string | null {
  if (rate.windowMs < 1000) return null
  const window = unit === CONCURRENT ? '' : `;w=${wholeSeconds(rate.windowMs)}`
  const item = `${quotedString(name)};q=${rate.limit}${window}`
  return `${item}${burst === null ? '' : `;gw-burst=${burst}`}${unit === null ? '' : `;${unit}`}`
}

/** The quota unit of slots, registered by the draft. */
export const CONCURRENT = 'qu="concurrent-requests"'

/** `"api";r=19;t=1`: how a policy stands, in RateLimit; a hole for what remains, and one for the seconds. */
export const standingPattern = (name: string): Piece[] => [`${quotedString(name)};r=`, HOLE, ';t=', HOLE]

export const wholeSeconds = (ms: number): number => Math.ceil(ms / 1000)

/** Windows from this length on get jitter: short ones drain unevenly enough by themselves. */
const JITTERED_WINDOW_MS = 60_000

/** Seconds for Retry-After: at least 1, never before the wait is over. Long windows add up to a tenth, so that clients
 *  that were refused together do not come back together. random: from 0 to below 1. */
export function retryAfterSeconds(waitMs: number, windowMs: number, random: number): number {
  const seconds = Math.max(1, wholeSeconds(waitMs))
  if (windowMs < JITTERED_WINDOW_MS) return seconds
  return seconds + Math.floor(random * (Math.floor(seconds / 10) + 1))
}
