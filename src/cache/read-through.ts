// When a request reads the tiers: where memory has nothing fresh for it, another request's fetch is not under way either,
// and what tiers hold may be of use. Then the lookup begins again, with what has come into memory.

import type { RequestContext } from '../core/context.ts'
import type { StoredResponse } from './entry.ts'
import { claimsOf } from './key.ts'
import type { Places } from './places.ts'
import type { Reason } from './reasons.ts'
import type { SharedCache } from './shared.ts'
import type { CacheTier } from './tier.ts'

/** What has been read for one request. */
export interface TierRead {
  /** Where the last entry came from that was brought into memory; null: from nowhere. */
  readonly source: CacheTier['name'] | null
  /** Where to read once more, because the first read was for another variant; null: all has been read. */
  readonly notAt: string | null
}

/** Reads what tiers hold for a request. found: what memory has. read: what has been read for it already. Null where there
 *  is nothing to read. Never rejects. */
export type ReadThrough = (
  ctx: RequestContext,
  key: string,
  found: StoredResponse | Reason,
  read: TierRead | null,
) => Promise<TierRead> | null

/** What may be otherwise in a tier. All other reasons lie in the request. */
const MAY_BE_ELSEWHERE: ReadonlySet<Reason> = new Set(['absent', 'incomplete', 'vary', 'expired', 'config-changed'])

/** epoch: of the route. */
export function compileReadThrough({ tiers, flights, now }: SharedCache, places: Places, epoch: string): ReadThrough {
  if (tiers.all.length === 0) return () => null
  return (ctx, key, found, read) => {
    if (typeof found === 'string' && !MAY_BE_ELSEWHERE.has(found)) return null
    const place = places.of(ctx, key)
    // Only what came meanwhile tells by which fields variants differ, and so that this request has a place of its own.
    if (read !== null && (read.notAt === null || read.notAt === place)) return null
    if (places.joinable(ctx, key) !== undefined || flights.unshareable.has(places.memoryKey(ctx, key), now()))
      return null
    const reading = tiers.read(place, key, epoch, { headers: ctx.headers, claims: claimsOf(ctx) })
    if (reading === null) return null
    const notAt = reading.isShared && read === null ? place : null
    return reading.done.then((source) => ({ source, notAt }))
  }
}
