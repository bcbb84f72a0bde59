// Where requests meet that wait for one fetch: who may share at all, and which key and variant a flight is for.

import type { RequestContext } from '../core/context.ts'
import type { Flight } from './collapse.ts'
import { isSelected, selectorOf } from './entry.ts'
import { claimsOf } from './key.ts'
import { type CachePolicy, barringCredential } from './policy.ts'
import type { Reason } from './reasons.ts'
import type { SharedCache } from './shared.ts'

export interface Places {
  /** With credentials an answer may be this client's alone: nobody waits for it, and it waits for nobody. */
  readonly mayShare: (ctx: RequestContext) => boolean
  /** True where an answer may be for others as well. For who has waited in vain nobody waits: else all of them would go
   *  to the origin one by one. nowMs: wall clock. */
  readonly mayWait: (ctx: RequestContext, key: string, nowMs: number) => boolean
  /** The flight that this request may wait for. */
  readonly joinable: (ctx: RequestContext, key: string) => Flight | undefined
  /** Where flights for the same key and variant meet. Which fields select a variant is known from what is stored, or from
   *  a flight that has landed; before that, all requests for a key meet at one place. */
  readonly of: (ctx: RequestContext, key: string) => string
  /** The same for a refresh in the background: with credentials nobody joins, so that has a place of its own. */
  readonly ofRefresh: (ctx: RequestContext, key: string) => string
  /** Under what it is remembered that answers to requests like this one are not for sharing. */
  readonly memoryKey: (ctx: RequestContext, key: string) => string
}

/** isCollapsing: false where each request of the route asks for itself. epoch: of the route. */
export function compilePlaces(
  { store, flights }: Pick<SharedCache, 'store' | 'flights'>,
  policy: CachePolicy,
  isCollapsing: boolean,
  epoch: string,
): Places {
  const mayShare = (ctx: RequestContext): boolean =>
    isCollapsing && ctx.method !== 'HEAD' && barringCredential(ctx.headers, policy) === null

  function joinable(ctx: RequestContext, key: string): Flight | undefined {
    if (!mayShare(ctx)) return undefined
    const flight = flights.at(placeOf(ctx, key))
    return flight?.epoch === epoch ? flight : undefined
  }

  function placeOf(ctx: RequestContext, key: string): string {
    const claims = claimsOf(ctx)
    // Neither a key nor a claim has an empty line in it. A key alone has been hashed before.
    const place = claims === '' ? key : `${key}\n\n${claims}`
    const landed = flights.at(place)?.answer?.head ?? null
    if (landed !== null && isSelected(ctx.headers, claims, landed)) return place
    const { varyNames } = landed ?? store.get(key)?.[0] ?? { varyNames: [] }
    if (varyNames.length === 0) return place
    return `${key}\n\n${claims}\n${JSON.stringify(selectorOf(ctx.headers, claims, varyNames).varyValues)}`
  }

  const memoryKey = (ctx: RequestContext, key: string): string => (mayShare(ctx) ? key : `${key} with credentials`)

  return {
    mayShare,
    mayWait: (ctx, key, nowMs) =>
      mayShare(ctx) &&
      ctx.cacheReason !== ('not-shared' satisfies Reason) &&
      !flights.unshareable.has(memoryKey(ctx, key), nowMs),
    joinable,
    of: placeOf,
    ofRefresh: (ctx, key) => (mayShare(ctx) ? placeOf(ctx, key) : `${placeOf(ctx, key)}\nalone`),
    memoryKey,
  }
}
