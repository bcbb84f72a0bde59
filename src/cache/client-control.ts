// What a client may say of the answer that it wants (RFC 9111 §5.2.1, §5.4), on routes that honour it
// (`clientControl: honor`). By it a client turns down what is stored, or accepts it for longer; it never gets what the
// origin or the route gives to nobody.

import type { HeaderList } from '../core/context.ts'
import { type RequestControl, parseRequestControl } from '../http/cache-control.ts'
import { getCombined, listMembers } from '../http/headers.ts'
import type { StoredResponse } from './entry.ts'
import type { Reason } from './reasons.ts'

/** What it depends on whether a client wants it. */
export type StoredTimes = Pick<
  StoredResponse,
  'bornAtMs' | 'freshUntilMs' | 'staleWhileRevalidateUntilMs' | 'staleIfErrorUntilMs'
>

/** What a request asks for; null where it asks for nothing, or nothing that can be read. */
export function wishOf(request: HeaderList): RequestControl | null {
  const control = getCombined(request, 'cache-control')
  if (control !== null) return parseRequestControl(control)
  const pragma = getCombined(request, 'pragma')
  return pragma !== null && listMembers(pragma.toLowerCase()).includes('no-cache') ? RELOAD : null
}

const RELOAD = parseRequestControl('no-cache')

/** Why a client does not want what is stored; null where it does, as far as that is fresh or may answer stale. */
export function unwantedBy(
  wish: RequestControl,
  { bornAtMs, freshUntilMs }: StoredTimes,
  nowMs: number,
): Reason | null {
  const { noCache, maxAgeSeconds, minFreshSeconds, maxStaleSeconds } = wish
  const freshMs = freshUntilMs - nowMs
  if (freshMs <= 0) {
    if (noCache || minFreshSeconds !== null || isTooOld(wish, bornAtMs, nowMs)) return 'expired'
    if (maxStaleSeconds !== null) return -freshMs > maxStaleSeconds * 1000 ? 'expired' : null
    return maxAgeSeconds === null ? null : 'expired'
  }
  if (noCache) return 'client-no-cache'
  if (isTooOld(wish, bornAtMs, nowMs)) return 'client-max-age'
  return minFreshSeconds !== null && freshMs < minFreshSeconds * 1000 ? 'client-min-fresh' : null
}

/** max-age=0 is how browsers reload: they want the origin asked, however young the answer is. */
const isTooOld = ({ maxAgeSeconds }: RequestControl, bornAtMs: number, nowMs: number): boolean =>
  maxAgeSeconds !== null && (maxAgeSeconds === 0 || nowMs - bornAtMs > maxAgeSeconds * 1000)

/** True where a client takes a stale response that it does not turn down, within the time in which it may answer stale to
 *  anybody: by must-revalidate and its kin there is none. */
export const acceptsStale = (wish: RequestControl, stored: StoredTimes, nowMs: number): boolean =>
  wish.maxStaleSeconds !== null && Math.max(stored.staleWhileRevalidateUntilMs, stored.staleIfErrorUntilMs) > nowMs

/** True where an answer that another request is already waiting for may not be what this one wants. */
export const isChoosy = ({ noCache, maxAgeSeconds, minFreshSeconds }: RequestControl): boolean =>
  noCache || maxAgeSeconds !== null || minFreshSeconds !== null
