// What the cache tells the client of itself: X-Cache, Cache-Status (RFC 9211) and Age (RFC 9111 §5.1).

import type { CacheOutcome, RequestContext } from '../core/context.ts'
import { FieldPattern, HOLE } from '../core/field-pattern.ts'
import type { Reason } from './reasons.ts'

/** Why a request went forward, in the words of RFC 9211 §2.2. */
export type ForwardReason = 'bypass' | 'method' | 'miss' | 'partial' | 'request' | 'stale' | 'vary-miss'

/** Notes the verdict of the lookup, for log and metrics; answers null, as a stage that passes on. */
export function note(ctx: RequestContext, outcome: CacheOutcome, reason: Reason): null {
  ctx.cache = outcome
  ctx.cacheReason = reason
  return null
}

/** Why this request goes forward. Ask before the answer is there: its own reason then takes the place of the lookup's. */
export function forwardReason({ cache, cacheReason }: RequestContext): ForwardReason {
  if (cacheReason === ('method' satisfies Reason)) return 'method'
  if (cache === 'bypass') return 'bypass'
  if (cacheReason === ('expired' satisfies Reason)) return 'stale'
  if (cacheReason === ('incomplete' satisfies Reason)) return 'partial'
  if (cacheReason !== null && TURNED_DOWN.has(cacheReason)) return 'request'
  return cacheReason === ('vary' satisfies Reason) ? 'vary-miss' : 'miss'
}

/** Fresh, but not what the client wants. */
const TURNED_DOWN: ReadonlySet<string> = new Set<Reason>(['client-no-cache', 'client-max-age', 'client-min-fresh'])

/** Answered from the store. ttlMs: for how long it stays fresh. detail: where it was read for this request, or why it
 *  answers; null: from memory, as ever. */
export function sayHit(ctx: RequestContext, ageMs: number, ttlMs: number, detail: string | null): void {
  ctx.cache = 'hit'
  const age = wholeSeconds(ageMs)
  const ttl = wholeSeconds(ttlMs)
  ctx.hitFields = detail === null ? HIT.with(age, ttl) : HIT_IN_DETAIL.with(age, ttl, detail)
}

const HIT = new FieldPattern([
  ['Age', HOLE],
  ['X-Cache', 'HIT'],
  ['Cache-Status', 'weirgate; hit; ttl=', HOLE],
])
const HIT_IN_DETAIL = new FieldPattern([
  ['Age', HOLE],
  ['X-Cache', 'HIT'],
  ['Cache-Status', 'weirgate; hit; ttl=', HOLE, '; detail=', HOLE],
])

/** Answered from the store though it is stale, without asking, or after having asked in vain. */
export function sayStale(ctx: RequestContext, ageMs: number, ttlMs: number, reason: Reason): void {
  note(ctx, 'stale', reason)
  ctx.fields.push('Age', String(wholeSeconds(ageMs)), 'X-Cache', 'STALE', 'Cache-Status')
  // RFC 9211 §2.1, §2.4: from the store alone is a hit, and what is stale has no positive time to live.
  if (reason === 'failed') ctx.fields.push(`weirgate; fwd=stale; detail=${reason}`)
  else ctx.fields.push(`weirgate; hit; ttl=${Math.min(0, Math.ceil(ttlMs / 1000))}; detail=${reason}`)
}

/** Answered from the store, after the upstream has said that it is still good. ageMs: of what it said. */
export function sayRevalidated(ctx: RequestContext, forward: ForwardReason, ageMs: number, stored: boolean): void {
  ctx.cache = 'revalidated'
  ctx.fields.push('Age', String(wholeSeconds(ageMs)))
  say(ctx, forward === 'request' ? forward : 'stale', `; fwd-status=304${stored ? '; stored' : ''}`)
}

/** Answered along with another request's fetch. */
export function sayCollapsed(ctx: RequestContext, forward: ForwardReason, ageMs: number): void {
  ctx.cache = 'collapsed'
  ctx.fields.push('Age', String(wholeSeconds(ageMs)))
  say(ctx, forward, '; collapsed')
}

/** Answered by the upstream, or not at all. */
export function sayForwarded(ctx: RequestContext, forward: ForwardReason, stored: boolean): void {
  say(ctx, forward, stored ? '; stored' : '')
}

/** Not answered: the client wants nothing but what is stored, and that may not answer it. */
export function sayNotStored(ctx: RequestContext, reason: Reason): void {
  note(ctx, 'miss', reason)
  ctx.fields.push('X-Cache', 'MISS', 'Cache-Status', `weirgate; detail=${reason}`)
}

function say(ctx: RequestContext, forward: ForwardReason, parameters: string): void {
  const { cache, cacheReason } = ctx
  const detail = cacheReason === null ? '' : `; detail=${cacheReason}`
  ctx.fields.push(
    'X-Cache',
    (cache ?? 'miss').toUpperCase(),
    'Cache-Status',
    `weirgate; fwd=${forward}${parameters}${detail}`,
  )
}

/** Rounded down, as ages are; a clock that was set back makes no negative one. */
export const wholeSeconds = (ms: number): number => Math.max(0, Math.floor(ms / 1000))
