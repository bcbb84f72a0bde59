// The way of a request through the cache, in two stages. `lookup` answers what is fresh and joins what is being fetched;
// `fill` asks the origin, once per key and variant, and stores while it streams.
//
//   lookup: bypass? -> fresh? HIT -> may be stale? STALE -> a flight to join? COLLAPSED -> pass on (miss)
//           behind memory there may be tiers: before the join, they are read, and the lookup begins again
//           what the client turns down counts as stale, and it joins nobody; where it wants nothing else: 504
//   fill:   bypass: may it? forward
//           a flight to join? COLLAPSED -> another about to lead one? wait, and look again -> may it? -> lead one: MISS, or
//           REVALIDATED where what is stored was asked about and is still good, or STALE where the origin has failed
//
// "May it?" are the limits on misses, which take what the request costs. So they are asked when nothing is left to be done
// but to go to the origin, and by one request for all who would share its fetch: who waits costs nothing.
//
// Who asks for a part may get it from parts that are stored; what it gets from the origin is added to them (parts.ts), and
// of a whole that lacks one piece only that is fetched (missing.ts).
//
// The verdicts are policy.ts and select.ts, the sharing places.ts and collapse.ts, the asking asking.ts, what becomes of
// an answer fill.ts; what is here is their order.

import type { FetchOrigin, Reply, RequestContext, Stage } from '../core/context.ts'
import type { ExplainedCache } from '../core/control.ts'
import { GatewayError } from '../core/errors.ts'
import type { JsonValue } from '../http/json.ts'
import { compileAnswers } from './answers.ts'
import { GONE, compileAsking, failed } from './asking.ts'
import { compileBodyReading } from './body-reading.ts'
import { type Bid, unlessGone } from './bids.ts'
import { isChoosy } from './client-control.ts'
import { sayMayVary } from './coding.ts'
import type { Flight, SharedAnswer } from './collapse.ts'
import { Finishing } from './detached.ts'
import { type StoredResponse, isSelected } from './entry.ts'
import type { KeyRule } from './key-rule.ts'
import { claimsOf } from './key.ts'
import { isKeyedByBody } from './methods.ts'
import { compileMissLook } from './near-misses.ts'
import { compileOneFetch } from './one-fetch.ts'
import type { OnAbort } from './options.ts'
import { compilePlaces } from './places.ts'
import { type CachePolicy, asksForPart, fillRefusal, lookupRefusal } from './policy.ts'
import type { Reason } from './reasons.ts'
import { type TierRead, compileReadThrough } from './read-through.ts'
import { isUnchangedFor, notModified, storedReply } from './reply.ts'
import { isOutage, refreshing } from './revalidate.ts'
import { compileSelection, explainLookup, explainUnasked } from './select.ts'
import type { SharedCache } from './shared.ts'
import { type ForwardReason, forwardReason, note, sayCollapsed, sayNotStored } from './status.ts'

export interface RouteCache {
  readonly lookup: Stage
  /** What lookup would answer to a GET or HEAD as a hit at once, from memory; null: nothing. Changes nothing but the
   *  context. */
  readonly findNow: (ctx: RequestContext) => StoredResponse | null
  /** That hit. */
  readonly answerFound: (ctx: RequestContext, found: StoredResponse) => Reply
  /** mayAsk: asked before the origin is, once at most; what it answers is the answer. null: it always may. */
  readonly fill: (ctx: RequestContext, mayAsk?: Stage | null) => Promise<Reply>
  /** What is stored in memory, in the place of a refusal: fresh, or as stale as it may be when the origin fails; null where
   *  there is none. Asks nobody, and reads no body: before the lookup, a request that is told apart by one has none. */
  readonly answerUnasked: (ctx: RequestContext) => Reply | null
  /** What lookup would say. What tiers hold of it comes into memory, as it would by a request. */
  explain(ctx: RequestContext): Promise<ExplainedCache>
  /** What answerUnasked would answer. isRead: after the lookup, where a body that is part of the key has been read. */
  explainUnasked(ctx: RequestContext, isRead: boolean): ExplainedCache | null
}

export interface RouteCacheSetup {
  /** Its name. */
  readonly route: string
  readonly shared: SharedCache
  readonly policy: CachePolicy
  readonly key: KeyRule
  /** Concurrent misses share one fetch: here, or across all instances that share a Redis. */
  readonly collapse: boolean | 'shared'
  /** Bytes of the largest request body that the route takes. */
  readonly maxBodyBytes: number
  /** Changes when the same URL would be forwarded to something else; older entries are then not used. */
  readonly epoch: string
  /** What becomes of a fetch that nobody waits for any more. */
  readonly onAbort: OnAbort
  /** Whom it asks, and of how many such fetches that may go on at the same time. */
  readonly upstream: string
  readonly mostDetached: number
  /** How long one fetch may take. */
  readonly longestFetchMs: number
  readonly fetch: FetchOrigin
}

export function compileCache(setup: RouteCacheSetup): RouteCache {
  const { shared, policy } = setup
  const { bids, flights } = shared
  // What was shared on purpose must not outlive that purpose.
  const epoch = `${setup.epoch} ${policy.isPublic} ${policy.storeSetCookie} ${setup.key.id} ${policy.answerRule.id}${policy.streamRule.id}`
  const selection = compileSelection(shared, policy, epoch)
  const { find, unaskedReason, unwantedReason, wishOf } = selection
  const places = compilePlaces(shared, policy, setup.collapse !== false, epoch)
  const answers = compileAnswers(shared, policy, selection)
  const { key: keyRule, onAbort, upstream, mostDetached: most, fetch } = setup
  const { detached, now } = shared
  const finishing = onAbort === 'abort' ? null : new Finishing({ onAbort, upstream, most, detached, now })
  const asked = { shared, policy, keyRule, epoch, selection, places, answers, finishing, fetch }
  const { lead, forward, forwardHead } = compileAsking(asked)
  const readThrough = compileReadThrough(shared, places, epoch)
  const { leases } = shared
  const oneFetch =
    leases === null || setup.collapse !== 'shared'
      ? null
      : compileOneFetch(shared, leases, places, epoch, find, setup.longestFetchMs)
  const lookAtMiss = compileMissLook(shared.nearMisses.ofRoute(setup.route, setup.key.id), setup.key)
  const readPart = compileBodyReading(shared, setup.key, setup.maxBodyBytes)

  const lookup: Stage = (ctx) => {
    const refusal = lookupRefusal(ctx, policy)
    if (refusal !== null) return note(ctx, 'bypass', refusal)
    const key = setup.key.ofGet(ctx)
    const isByBody = isKeyedByBody(ctx.method)
    // Whoever asks, a mutation of GraphQL has to be known as one, for what it makes out of date.
    if (key === null && !(isByBody && setup.key.isGraphql)) return note(ctx, 'bypass', setup.key.whyNone(ctx))
    return isByBody || key === null ? lookByBody(ctx) : look(ctx, key, null, null)
  }

  function findNow(ctx: RequestContext): StoredResponse | null {
    if (lookupRefusal(ctx, policy) !== null) return null
    const key = setup.key.ofGet(ctx)
    if (key === null) return null
    const nowMs = shared.now()
    const found = find(ctx, key, nowMs)
    if (typeof found !== 'object' || found.freshUntilMs <= nowMs || unwantedReason(ctx, found, nowMs) !== null)
      return null
    ctx.cacheKey = key
    return found
  }

  /** The same but for what is sent at its own pace: that takes its time. */
  function findUnpaced(ctx: RequestContext): StoredResponse | null {
    const found = findNow(ctx)
    return found?.timeline === null ? found : null
  }

  async function lookByBody(ctx: RequestContext): Promise<Reply | null> {
    const read = await readPart(ctx)
    const key = read.ok ? setup.key.ofBody(ctx, read.part) : null
    if (!read.ok) return note(ctx, 'bypass', read.reason)
    return key === null ? note(ctx, 'bypass', setup.key.whyNone(ctx)) : look(ctx, key, null, read.counted)
  }

  /** read: what has been brought into memory for this request. counted: what counts of its body. */
  function look(
    ctx: RequestContext,
    key: string,
    read: TierRead | null,
    counted: JsonValue | null,
  ): Reply | null | Promise<Reply | null> {
    ctx.cacheKey = key
    const nowMs = shared.now()
    const found = find(ctx, key, nowMs)
    const unwanted = typeof found === 'object' ? unwantedReason(ctx, found, nowMs) : null
    if (typeof found === 'object' && unwanted === null) {
      if (found.freshUntilMs > nowMs) return answers.hit(ctx, found, nowMs, read?.source ?? null)
      const unasked = unaskedReason(ctx, found, nowMs)
      // An upstream that has just failed would not have been worth waiting for.
      const isSpared = unasked === 'refreshing' ? !refresh(ctx, found) : unasked === 'client-max-stale'
      if (unasked !== null) return answers.stale(ctx, found, nowMs, unasked, isSpared)
    }
    const isPart = asksForPart(ctx.method, ctx.headers)
    const parts = isPart ? answers.hitParts(ctx, key, nowMs) : null
    if (parts !== null) return parts
    const reading = unwanted === 'client-no-cache' ? null : readThrough(ctx, key, found, read)
    if (reading !== null) return reading.then((next) => look(ctx, key, next, counted))
    const wish = wishOf(ctx)
    const reason = unwanted ?? (typeof found === 'object' ? 'expired' : found)
    if (wish?.onlyIfCached === true) {
      sayNotStored(ctx, reason)
      throw NOT_STORED
    }
    if (found === 'authorization' || found === 'cookie') return note(ctx, 'bypass', found)
    if (wish?.noStore === true) return note(ctx, 'bypass', 'client-no-store')
    note(ctx, 'miss', reason)
    if (isPart || (wish !== null && isChoosy(wish))) return null
    const flight = places.joinable(ctx, key)
    if (flight !== undefined) return join(ctx, flight)
    lookAtMiss(ctx, reason, counted, nowMs)
    return null
  }

  async function fill(ctx: RequestContext, mayAsk: Stage | null = null): Promise<Reply> {
    const refusal = ctx.cache === 'bypass' ? null : fillRefusal(ctx.headers)
    if (refusal !== null) note(ctx, 'bypass', refusal)
    const key = ctx.cacheKey
    const isBypass = ctx.cache === 'bypass' || key === null
    if (!isBypass && ctx.method !== 'HEAD') return leadAtOnce(ctx, key, mayAsk) ?? share(ctx, key, mayAsk)
    const refused = mayAsk?.(ctx) ?? null
    const reply = refused instanceof Promise ? await refused : refused
    return reply ?? (isBypass ? forward(ctx) : forwardHead(ctx, key))
  }

  /** What share() would do where there is nobody to wait for, and nothing to ask; null where there is. */
  function leadAtOnce(ctx: RequestContext, key: string, mayAsk: Stage | null): Promise<Reply> | null {
    const mayWait = mayAsk !== null || oneFetch !== null || bids.size > 0 || places.joinable(ctx, key) !== undefined
    return mayWait ? null : lead(ctx, key, findStored(ctx, key), false)
  }

  /** Gets the answer by another's fetch, or by one that others may share. */
  async function share(ctx: RequestContext, key: string, mayAsk: Stage | null): Promise<Reply> {
    const wish = wishOf(ctx)
    const isAlone = asksForPart(ctx.method, ctx.headers) || (wish !== null && isChoosy(wish))
    const maxJoins = isAlone ? 0 : MAX_JOINS
    const miss: Miss = { isAlone, sinceMs: performance.now(), mayAsk, waits: 0 }
    let joins = 0
    for (;;) {
      for (; joins < maxJoins; joins++) {
        const flight = places.joinable(ctx, key)
        if (flight === undefined) break
        const hasSeenError = isSick(ctx)
        const why = forwardReason(ctx)
        const reply = await join(ctx, flight)
        if (reply !== null) return reply
        // Two requests got an error, one after the other: so it is not for something in the one.
        if (hasSeenError && isSick(ctx))
          return answers.inPlaceOfError(ctx, key) ?? Promise.reject(failed(ctx, why, FAILING))
      }
      const reply = await leadInTurn(ctx, key, miss)
      if (reply !== undefined) return reply
      if (ctx.isGivenUp) throw GONE
      const stored = findFresh(ctx, key)
      if (stored !== null) return answers.collapsed(ctx, stored, shared.now())
    }
  }

  /** Leads a flight, where it may and nobody else is about to; undefined where something has come that may answer instead,
   *  or where others may lead now. Only who has to wait for leave bids for the place, and no longer than until the flight
   *  is there to be joined. */
  async function leadInTurn(ctx: RequestContext, key: string, miss: Miss): Promise<Reply | undefined> {
    const isForOthers = !miss.isAlone && places.mayWait(ctx, key, shared.now())
    const mayBid = isForOthers && miss.waits < MAX_WAITS
    const other = mayBid && bids.size > 0 ? bids.at(bidPlace(ctx, key)) : null
    if (other !== null) {
      miss.waits++
      return unlessGone(ctx, other) as Promise<undefined>
    }
    let bid: Bid | null = null
    try {
      if (oneFetch !== null && mayBid) bid = bids.open(bidPlace(ctx, key))
      const turn = oneFetch === null || !isForOthers ? null : await oneFetch.turn(ctx, key, miss.sinceMs)
      if (turn === 'again') return undefined
      const leave = miss.mayAsk?.(ctx) ?? null
      miss.mayAsk = null
      if (leave instanceof Promise && mayBid) bid ??= bids.open(bidPlace(ctx, key))
      const refused = leave instanceof Promise ? await leave : leave
      const hasWaited = leave instanceof Promise && !miss.isAlone
      const isOvertaken = hasWaited && (findFresh(ctx, key) !== null || places.joinable(ctx, key) !== undefined)
      if (refused !== null || isOvertaken) {
        turn?.begin(null)
        return refused ?? undefined
      }
      const replying = lead(ctx, key, findStored(ctx, key), false)
      turn?.begin(flights.at(places.of(ctx, key)) ?? null)
      return replying
    } finally {
      bid?.end()
    }
  }

  const bidPlace = (ctx: RequestContext, key: string): string => `${epoch}\n${places.of(ctx, key)}`

  function findStored(ctx: RequestContext, key: string): StoredResponse | null {
    const found = find(ctx, key, shared.now())
    return typeof found === 'object' ? found : null
  }

  function findFresh(ctx: RequestContext, key: string): StoredResponse | null {
    const nowMs = shared.now()
    const found = find(ctx, key, nowMs)
    return typeof found === 'object' && found.freshUntilMs > nowMs ? found : null
  }

  // ---- stale ----

  function answerUnasked(ctx: RequestContext): Reply | null {
    const nowMs = shared.now()
    if (lookupRefusal(ctx, policy) !== null) return null
    // A body is not read for who is over a limit; it may have been, before one of those that count misses was asked.
    const key = isKeyedByBody(ctx.method) ? ctx.cacheKey : setup.key.ofGet(ctx)
    const entry = key === null ? null : selection.findUnasked(ctx, key, nowMs)
    if (entry === null) return null
    if (entry.freshUntilMs <= nowMs) return answers.stale(ctx, entry, nowMs, 'limited', false)
    ctx.cacheReason = 'limited' satisfies Reason
    return answers.hit(ctx, entry, nowMs, ctx.cacheReason)
  }

  /** Fetches anew what is stale, for whoever comes later. One for each place, as with flights that are joined. Answers
   *  whether the upstream is asked on this behalf, as far as that is known now. */
  function refresh(client: RequestContext, stale: StoredResponse): boolean {
    if (fillRefusal(client.headers) !== null || wishOf(client)?.noStore === true) return false
    const ctx = refreshing(client)
    const { key } = stale
    const ask = (entry: StoredResponse): boolean => {
      if (flights.at(places.ofRefresh(ctx, key)) !== undefined) return false
      // What it failed by is remembered, and answered to whoever has to wait for it the next time.
      lead(ctx, key, entry, true).catch(() => {})
      return true
    }
    const askInTurn = (entry: StoredResponse): boolean => {
      if (oneFetch === null || !places.mayWait(ctx, key, shared.now())) return ask(entry)
      const place = bidPlace(ctx, key)
      if (bids.at(place) !== null) return false
      const bid = bids.open(place)
      void oneFetch.turnOrNothing(ctx, key).then((turn) => {
        if (turn !== null) ask(entry)
        turn?.begin(flights.at(places.ofRefresh(ctx, key)) ?? null)
        bid.end()
      })
      return true
    }
    const reading = readThrough(ctx, key, stale, null)
    if (reading === null) return askInTurn(stale)
    // Another instance may have refreshed it, or a purge may have taken it away.
    void reading.then(() => {
      const nowMs = shared.now()
      const found = find(ctx, key, nowMs)
      if (typeof found === 'object' && found.freshUntilMs <= nowMs) askInTurn(found)
    })
    return true
  }

  // ---- sharing ----

  /** Waits for a flight and reads along; null when its answer is not for this request. */
  async function join(ctx: RequestContext, flight: Flight): Promise<Reply | null> {
    const why = forwardReason(ctx)
    if (flight.isFull) {
      const reply = answers.inPlaceOfError(ctx, flight.key)
      if (reply !== null) return reply
      throw failed(ctx, why, FULL)
    }
    const leave = flight.join()
    ctx.whenAborted(leave)
    let answer: SharedAnswer | null
    try {
      answer = await flight.landed
    } catch (error) {
      leave()
      const reply = isOutage(error) ? answers.inPlaceOfError(ctx, flight.key) : null
      if (reply !== null) return reply
      throw failed(ctx, why, error)
    }
    const isOurs = answer !== null && isSelected(ctx.headers, claimsOf(ctx), answer.head)
    const reply = answer !== null && isOurs ? readAlong(ctx, why, answer, leave) : null
    if (reply !== null) return reply
    const untold = flight.isSpoiled ? 'purged' : flight.isSick ? 'sick' : 'not-shared'
    // After that: the last who leaves spoils it.
    leave()
    ctx.whenAborted(null)
    // Who was not selected has learnt by which fields, and may share with others like it.
    return note(ctx, 'miss', answer === null || isOurs ? untold : 'vary')
  }

  function readAlong(ctx: RequestContext, why: ForwardReason, answer: SharedAnswer, leave: () => void): Reply | null {
    const { head } = answer
    const ageMs = shared.now() - head.bornAtMs
    if (isUnchangedFor(ctx, head)) {
      leave()
      sayCollapsed(ctx, why, ageMs)
      sayMayVary(ctx, policy, head)
      return notModified(ctx, head)
    }
    const opened = answer.open(leave)
    if (opened === null) return null
    sayCollapsed(ctx, why, ageMs)
    sayMayVary(ctx, policy, head)
    return storedReply(head, opened.body)
  }

  return {
    lookup,
    findNow: policy.pace === null ? findNow : findUnpaced,
    answerFound: (ctx, found) => answers.hit(ctx, found, shared.now(), null),
    fill,
    answerUnasked,
    async explain(ctx) {
      const told = () => explainLookup(ctx, shared, policy, setup.key, selection)
      const { outcome, key } = told()
      if (outcome === 'miss' && key !== null) await readThrough(ctx, key, find(ctx, key, shared.now()), null)
      return told()
    },
    explainUnasked: (ctx, isRead) => explainUnasked(ctx, shared, policy, setup.key, selection, isRead),
  }
}

/** A request on its way to the origin. */
interface Miss {
  /** It waits for nobody, and nobody for it. */
  readonly isAlone: boolean
  /** When it began to wait (performance.now()). */
  readonly sinceMs: number
  /** Null once it has been asked. */
  mayAsk: Stage | null
  /** How often it has waited for another who was about to lead. */
  waits: number
}

/** Flights to join: one for whoever asks for the key, to learn by which fields its variants are selected, and one for its
 *  own variant. */
const MAX_JOINS = 2
/** Of others who were about to lead, and did not: each had to be asked about one after the other. */
const MAX_WAITS = 8

/** Made once: an Error takes its stack. */
const NOT_STORED = new GatewayError(
  'not_cached',
  'Nothing that is stored may answer this request, which wants nothing else (only-if-cached).',
)
/** It has waited, and what it waited for was an error. */
const isSick = ({ cacheReason }: RequestContext): boolean => cacheReason === ('sick' satisfies Reason)
const FAILING = new GatewayError('upstream_failing', 'The upstream answers with errors at present. Try again later.', {
  retryAfterSeconds: 1,
})
const FULL = new GatewayError('saturated', 'Too many requests wait for this very answer. Try again later.', {
  retryAfterSeconds: 1,
})
