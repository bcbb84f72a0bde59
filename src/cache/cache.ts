// The way of a request through the cache, in two stages with the limits on misses between them. `lookup` answers what
// is fresh and joins what is being fetched; `fill` asks the origin, once per key and variant, and stores while it streams.
//
//   lookup: bypass? -> fresh? HIT -> may be stale? STALE -> a flight to join? COLLAPSED -> pass on (miss)
//   fill:   bypass: forward -> a flight to join? COLLAPSED -> lead one: MISS, or REVALIDATED where what is stored was
//           asked about and is still good, or STALE where the origin has failed
//
// The verdicts are policy.ts, the sharing collapse.ts, what becomes of an answer fill.ts; what is here is their order.

import type { FetchOrigin, Reply, RequestContext, Stage } from '../core/context.ts'
import type { ExplainedCache } from '../core/control.ts'
import { GatewayError } from '../core/errors.ts'
import { CONDITIONAL_FIELDS, validatorsOf } from '../http/conditional.ts'
import type { Flight, SharedAnswer } from './collapse.ts'
import { type StoredResponse, isSelected, selectorOf } from './entry.ts'
import { freshenByHead, takeAnswer } from './fill.ts'
import { cacheKey, claimsOf } from './key.ts'
import { type CachePolicy, asksForPart, credentialOf, fillRefusal, lookupRefusal, reuseRefusal } from './policy.ts'
import { REASONS, type Reason } from './reasons.ts'
import { answerStored, isUnchangedFor, notModified, originReply, storedReply } from './reply.ts'
import { fetchIfChanged, isErrorStatus, isOutage, refreshing, retryAfterMs } from './revalidate.ts'
import type { SharedCache } from './shared.ts'
import {
  type ForwardReason,
  forwardReason,
  note,
  sayCollapsed,
  sayForwarded,
  sayHit,
  sayStale,
  wholeSeconds,
} from './status.ts'

export interface RouteCache {
  readonly lookup: Stage
  readonly fill: Stage
  explain(ctx: RequestContext): ExplainedCache
}

export interface RouteCacheSetup {
  readonly shared: SharedCache
  readonly policy: CachePolicy
  readonly collapse: boolean
  /** Changes when the same URL would be forwarded to something else; older entries are then not used. */
  readonly epoch: string
  readonly fetch: FetchOrigin
}

export function compileCache(setup: RouteCacheSetup): RouteCache {
  const { shared, policy, fetch } = setup
  const { store, flights } = shared
  // What was shared on purpose must not outlive that purpose.
  const epoch = `${setup.epoch} ${policy.isPublic} ${policy.storeSetCookie}`

  const lookup: Stage = (ctx) => {
    const refusal = lookupRefusal(ctx.method)
    if (refusal !== null) return note(ctx, 'bypass', refusal)
    const nowMs = shared.now()
    const key = cacheKey(ctx)
    const found = find(ctx, key, nowMs)
    if (typeof found === 'object') {
      if (found.freshUntilMs > nowMs) return hit(ctx, found, nowMs)
      const unasked = unaskedReason(found, nowMs)
      if (unasked === 'refreshing') refresh(ctx, found)
      if (unasked !== null) return answerStale(ctx, found, nowMs, unasked)
    }
    if (asksForPart(ctx.method, ctx.headers)) return note(ctx, 'bypass', 'range')
    if (found === 'authorization' || found === 'cookie') return note(ctx, 'bypass', found)
    note(ctx, 'miss', typeof found === 'object' ? 'expired' : found)
    const flight = joinable(ctx, key)
    return flight === undefined ? null : join(ctx, flight)
  }

  const fill: Stage = async (ctx) => {
    const refusal = ctx.cache === 'bypass' ? null : fillRefusal(ctx.headers)
    if (refusal !== null) note(ctx, 'bypass', refusal)
    if (ctx.cache === 'bypass') return forward(ctx)
    const key = cacheKey(ctx)
    if (ctx.method === 'HEAD') return forwardHead(ctx, key)
    for (let waits = 0; waits < MAX_WAITS; waits++) {
      const flight = joinable(ctx, key)
      if (flight === undefined) break
      const reply = await join(ctx, flight)
      if (reply !== null) return reply
    }
    const stored = find(ctx, key, shared.now())
    return lead(ctx, key, typeof stored === 'object' ? stored : null, false)
  }

  /** The entry that answers this request, fresh where there is a fresh one, or why there is none. */
  function find(ctx: RequestContext, key: string, nowMs: number): StoredResponse | Reason {
    const variants = store.get(key)
    if (variants === null) return 'absent'
    const claims = claimsOf(ctx)
    let miss: Reason = 'vary'
    let stale: StoredResponse | null = null
    for (const entry of variants) {
      if (!isSelected(ctx.headers, claims, entry)) continue
      if (entry.epoch !== epoch) miss = 'config-changed'
      else if (entry.freshUntilMs > nowMs) return reuseRefusal(ctx.headers, entry, policy, nowMs) ?? entry
      else {
        miss = 'expired'
        if (reuseRefusal(ctx.headers, entry, policy, 0) === null) stale ??= entry
      }
    }
    return stale ?? miss
  }

  function hit(ctx: RequestContext, entry: StoredResponse, nowMs: number): Reply {
    store.touch(entry)
    sayHit(ctx, nowMs - entry.bornAtMs, entry.freshUntilMs - nowMs)
    return answerStored(ctx, entry)
  }

  // ---- stale ----

  /** Why a stale entry may answer without the origin being asked; null when it may not. */
  function unaskedReason(entry: StoredResponse, nowMs: number): 'refreshing' | 'backing-off' | null {
    const isBackingOff = shared.failures.has(entry.key, nowMs)
    if (isBackingOff && entry.staleIfErrorUntilMs > nowMs) return 'backing-off'
    if (entry.staleWhileRevalidateUntilMs <= nowMs) return null
    return isBackingOff ? 'backing-off' : 'refreshing'
  }

  function answerStale(ctx: RequestContext, entry: StoredResponse, nowMs: number, reason: Reason): Reply {
    store.touch(entry)
    sayStale(ctx, nowMs - entry.bornAtMs, entry.freshUntilMs - nowMs, reason)
    return answerStored(ctx, entry)
  }

  /** The stale entry that answers in place of an origin that has failed, if it may. */
  function inPlaceOfError(ctx: RequestContext, key: string): Reply | null {
    const nowMs = shared.now()
    const found = find(ctx, key, nowMs)
    if (typeof found !== 'object' || found.staleIfErrorUntilMs <= nowMs || isErrorStatus(found.status)) return null
    ctx.whenAborted(null)
    return answerStale(ctx, found, nowMs, 'failed')
  }

  /** Fetches anew what is stale, for whoever comes later. One for each place, as with flights that are joined. */
  function refresh(client: RequestContext, entry: StoredResponse): void {
    const ctx = refreshing(client)
    if (fillRefusal(client.headers) !== null || flights.at(refreshPlaceOf(ctx, entry.key)) !== undefined) return
    // What it failed by is remembered, and answered to whoever has to wait for it the next time.
    lead(ctx, entry.key, entry, true).catch(() => {})
  }

  /** With credentials nobody joins, so such a refresh has a place of its own. */
  const refreshPlaceOf = (ctx: RequestContext, key: string): string =>
    mayShare(ctx) ? placeOf(ctx, key) : `${placeOf(ctx, key)}\nalone`

  // ---- sharing ----

  /** With credentials an answer may be this client's alone: nobody waits for it, and it waits for nobody. */
  const mayShare = (ctx: RequestContext): boolean =>
    setup.collapse && ctx.method === 'GET' && (policy.isPublic || credentialOf(ctx.headers) === null)

  function joinable(ctx: RequestContext, key: string): Flight | undefined {
    if (!mayShare(ctx)) return undefined
    const flight = flights.at(placeOf(ctx, key))
    return flight?.epoch === epoch ? flight : undefined
  }

  /** Where flights for the same key and variant meet. Which fields select a variant is known from what is stored, or from
   *  a flight that has landed; before that, all requests for a key meet at one place. */
  function placeOf(ctx: RequestContext, key: string): string {
    const claims = claimsOf(ctx)
    const place = `${key}\n${claims}`
    const landed = flights.at(place)?.answer?.head ?? null
    if (landed !== null && isSelected(ctx.headers, claims, landed)) return place
    const { varyNames } = landed ?? store.get(key)?.[0] ?? { varyNames: [] }
    if (varyNames.length === 0) return place
    return `${place}\n${JSON.stringify(selectorOf(ctx.headers, claims, varyNames).varyValues)}`
  }

  /** Waits for a flight and reads along; null when its answer is not for this request. */
  async function join(ctx: RequestContext, flight: Flight): Promise<Reply | null> {
    const why = forwardReason(ctx)
    const leave = flight.join()
    ctx.whenAborted(leave)
    let answer: SharedAnswer | null
    try {
      answer = await flight.landed
    } catch (error) {
      leave()
      const reply = isOutage(error) ? inPlaceOfError(ctx, flight.key) : null
      if (reply !== null) return reply
      throw failed(ctx, why, error)
    }
    const isOurs = answer !== null && isSelected(ctx.headers, claimsOf(ctx), answer.head)
    const reply = answer !== null && isOurs ? readAlong(ctx, why, answer, leave) : null
    if (reply !== null) return reply
    leave()
    ctx.whenAborted(null)
    // Who was not selected has learnt by which fields, and may share with others like it.
    const untold = flight.isSpoiled ? 'purged' : 'not-shared'
    return note(ctx, 'miss', answer === null || isOurs ? untold : 'vary')
  }

  function readAlong(ctx: RequestContext, why: ForwardReason, answer: SharedAnswer, leave: () => void): Reply | null {
    const { head } = answer
    const ageMs = shared.now() - head.bornAtMs
    if (isUnchangedFor(ctx, head)) {
      leave()
      sayCollapsed(ctx, why, ageMs)
      return notModified(head)
    }
    const opened = answer.open(leave)
    if (opened === null) return null
    sayCollapsed(ctx, why, ageMs)
    return storedReply(head, opened.body)
  }

  // ---- asking ----

  /** Asks the origin, on behalf of everybody who comes for this key and variant meanwhile: whether what is stored is
   *  still good, or for the whole. */
  async function lead(
    ctx: RequestContext,
    key: string,
    stored: StoredResponse | null,
    isBackground: boolean,
  ): Promise<Reply> {
    if (ctx.aborted) throw GONE
    const why = forwardReason(ctx)
    const sentAtMs = shared.now()
    if (stored !== null && unaskedReason(stored, sentAtMs) === 'backing-off') {
      return answerStale(ctx, stored, sentAtMs, 'backing-off')
    }
    const memoryKey = mayShare(ctx) ? key : `${key} with credentials`
    const isHopeless = flights.unshareable.has(memoryKey, sentAtMs)
    // For who has waited in vain nobody waits: else all of them would go to the origin one by one.
    const hasWaited = ctx.cacheReason === ('not-shared' satisfies Reason)
    const mayJoin = mayShare(ctx) && !isHopeless && !hasWaited
    const place = isBackground ? refreshPlaceOf(ctx, key) : mayJoin ? placeOf(ctx, key) : null
    const validated = stored !== null && validatorsOf(stored.headers).length > 0 ? stored : null
    // The client's condition stays here, so that what comes is whole and can be stored; unless it will not be.
    const tags = [...(policy.tagsOf(ctx.params) ?? []), ...(stored?.tags ?? [])]
    const originFetch =
      validated !== null ? fetchIfChanged(fetch, ctx, validated) : fetch(ctx, isHopeless ? NOTHING : CONDITIONAL_FIELDS)
    const flight = flights.open(key, epoch, place, originFetch, tags)
    const leave = flight.join()
    ctx.whenAborted(leave)
    try {
      const answer = await originFetch.answer
      if (stored !== null && isErrorStatus(answer.status)) {
        shared.failures.add(key, shared.now(), retryAfterMs(answer.headers, shared.now()))
        const reply = inPlaceOfError(ctx, key)
        if (reply !== null) {
          // Who waits finds the failure remembered, and what is stored.
          flight.pass()
          leave()
          return reply
        }
      }
      const fill = { ctx, flight, shared, policy, why, memoryKey, validated, isBackground, sentAtMs, leave }
      return takeAnswer(fill, answer)
    } catch (error) {
      flight.fail(error)
      leave()
      if (isOutage(error)) {
        if (stored !== null) shared.failures.add(key, shared.now(), 0)
        const reply = inPlaceOfError(ctx, key)
        if (reply !== null) return reply
      }
      throw failed(ctx, why, error)
    }
  }

  /** Asks the origin for this client alone; nothing is stored. */
  async function forward(ctx: RequestContext): Promise<Reply> {
    const why = forwardReason(ctx)
    const originFetch = fetch(ctx, NOTHING)
    ctx.whenAborted(() => originFetch.abort(GONE))
    try {
      const answer = await originFetch.answer
      sayForwarded(ctx, why, false)
      return originReply(answer, answer.takeBody())
    } catch (error) {
      throw failed(ctx, why, error)
    }
  }

  /** HEAD asks for a head alone: nothing to store, nothing to share. But it tells of what is stored, and that answers it
   *  when the origin fails. */
  async function forwardHead(ctx: RequestContext, key: string): Promise<Reply> {
    const why = forwardReason(ctx)
    const sentAtMs = shared.now()
    const stored = find(ctx, key, sentAtMs)
    const originFetch = fetch(ctx, NOTHING)
    ctx.whenAborted(() => originFetch.abort(GONE))
    try {
      const answer = await originFetch.answer
      if (typeof stored === 'object') freshenByHead({ ctx, shared, policy, sentAtMs }, stored, answer)
      const reply = isErrorStatus(answer.status) ? inPlaceOfError(ctx, key) : null
      if (reply !== null) return reply
      sayForwarded(ctx, why, false)
      return originReply(answer, answer.takeBody())
    } catch (error) {
      const reply = isOutage(error) ? inPlaceOfError(ctx, key) : null
      if (reply !== null) return reply
      throw failed(ctx, why, error)
    }
  }

  function explain(ctx: RequestContext): ExplainedCache {
    const key = cacheKey(ctx)
    const refusal = lookupRefusal(ctx.method)
    if (refusal !== null) return { outcome: 'bypass', reason: REASONS[refusal], key, age_s: null, ttl_s: null }
    const nowMs = shared.now()
    const found = find(ctx, key, nowMs)
    const unasked = typeof found === 'object' && found.freshUntilMs <= nowMs ? unaskedReason(found, nowMs) : null
    if (typeof found === 'object' && (unasked !== null || found.freshUntilMs > nowMs)) {
      const { bornAtMs, freshUntilMs } = found
      return {
        outcome: unasked === null ? 'hit' : 'stale',
        reason: unasked === null ? null : REASONS[unasked],
        key,
        age_s: wholeSeconds(nowMs - bornAtMs),
        ttl_s: wholeSeconds(freshUntilMs - nowMs),
      }
    }
    if (asksForPart(ctx.method, ctx.headers)) {
      return { outcome: 'bypass', reason: REASONS.range, key, age_s: null, ttl_s: null }
    }
    const outcome = found === 'authorization' || found === 'cookie' ? 'bypass' : 'miss'
    return { outcome, reason: REASONS[typeof found === 'object' ? 'expired' : found], key, age_s: null, ttl_s: null }
  }

  return { lookup, fill, explain }
}

/** One for whoever asks for the key, to learn by which fields its variants are selected, and one for its own variant. */
const MAX_WAITS = 2

const NOTHING: ReadonlySet<string> = new Set()
const GONE = new GatewayError('client_gone', 'The client has gone.')

/** Tells the client what the cache did, error or not. Answers the error. */
function failed(ctx: RequestContext, why: ForwardReason, error: unknown): unknown {
  ctx.cacheReason = 'failed' satisfies Reason
  sayForwarded(ctx, why, false)
  return error
}
