// Asking the origin: for everybody who comes for a key and variant meanwhile, for one client alone, or for a head. What
// becomes of an answer that may be stored is fill.ts, of a part parts.ts, of the answer to a POST post.ts.

import type { FetchOrigin, OriginFetch, Reply, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { CONDITIONAL_FIELDS, validatorsOf } from '../http/conditional.ts'
import { readRetryAfter } from '../http/retry-after.ts'
import type { Answers } from './answers.ts'
import type { Finishing } from './detached.ts'
import { sayMayVary } from './coding.ts'
import type { StoredResponse } from './entry.ts'
import { freshenByHead, takeAnswer } from './fill.ts'
import type { KeyRule } from './key-rule.ts'
import { isKeyedByBody } from './methods.ts'
import { fetchMissing, gapOf } from './missing.ts'
import { takePart } from './parts.ts'
import type { Places } from './places.ts'
import { type CachePolicy, asksForPart, varyNames } from './policy.ts'
import { keptReply } from './post.ts'
import type { Reason } from './reasons.ts'
import { originReply } from './reply.ts'
import { OF_THE_CLIENT, fetchIfChanged, isErrorStatus, isOutage, isOwnFailure } from './revalidate.ts'
import type { Selection } from './select.ts'
import type { SharedCache } from './shared.ts'
import { type ForwardReason, forwardReason, sayForwarded } from './status.ts'

export interface Asking {
  /** Asks the origin, on behalf of everybody who comes for this key and variant meanwhile: whether what is stored is
   *  still good, for what is missing of it, or for the whole. A part is asked for as its client does, and for it alone. */
  readonly lead: (
    ctx: RequestContext,
    key: string,
    stored: StoredResponse | null,
    isBackground: boolean,
  ) => Promise<Reply>
  /** Asks the origin for this client alone; nothing is stored but a POST's answer that asks for it. */
  readonly forward: (ctx: RequestContext) => Promise<Reply>
  /** HEAD asks for a head alone: nothing to store, nothing to share. But it tells of what is stored, and that answers it
   *  when the origin fails. */
  readonly forwardHead: (ctx: RequestContext, key: string) => Promise<Reply>
}

export interface AskingSetup {
  readonly shared: SharedCache
  readonly policy: CachePolicy
  readonly keyRule: KeyRule
  readonly epoch: string
  readonly selection: Selection
  readonly places: Places
  readonly answers: Answers
  /** Null: what nobody waits for is given up. */
  readonly finishing: Finishing | null
  readonly fetch: FetchOrigin
}

export function compileAsking(setup: AskingSetup): Asking {
  const { shared, policy, keyRule, epoch, selection, places, answers, finishing, fetch } = setup
  const { flights } = shared
  const { find, findParts, unaskedReason, unwantedReason, wishOf } = selection

  async function lead(
    ctx: RequestContext,
    key: string,
    stored: StoredResponse | null,
    isBackground: boolean,
  ): Promise<Reply> {
    if (ctx.isGivenUp) throw GONE
    const why = forwardReason(ctx)
    const sentAtMs = shared.now()
    const isWanted = stored !== null && unwantedReason(ctx, stored, sentAtMs) === null
    if (isWanted && unaskedReason(ctx, stored, sentAtMs) === 'backing-off') {
      return answers.stale(ctx, stored, sentAtMs, 'backing-off', false)
    }
    ctx.hasStandIn = stored !== null && stored.staleIfErrorUntilMs > sentAtMs
    const memoryKey = places.memoryKey(ctx, key)
    const isHopeless = flights.unshareable.has(memoryKey, sentAtMs)
    const isPart = asksForPart(ctx.method, ctx.headers)
    const mayJoin = !isPart && places.mayWait(ctx, key, sentAtMs)
    const place = isBackground ? places.ofRefresh(ctx, key) : mayJoin ? places.of(ctx, key) : null
    const isByBody = isKeyedByBody(ctx.method)
    const mayAsk = !isPart && !isByBody && stored !== null && validatorsOf(stored.headers).length > 0
    const validated = mayAsk ? stored : null
    const parts = findParts(ctx, key, 0)
    const gap = parts === null || isPart || isHopeless || stored !== null ? null : gapOf(parts)
    const ofRoute = policy.tagsOf(ctx.params) ?? []
    const tags =
      stored === null && parts === null
        ? ofRoute
        : [...ofRoute, ...(stored ?? NO_TAGS).tags, ...(parts ?? NO_TAGS).tags]
    // The client's condition stays here, so that what comes is whole and can be stored; unless it will not be.
    const dropped = isHopeless || isPart ? NOTHING : isByBody ? OF_THE_CLIENT : CONDITIONAL_FIELDS
    let originFetch: OriginFetch
    if (validated !== null) originFetch = fetchIfChanged(fetch, ctx, validated)
    else if (gap !== null) originFetch = fetchMissing(fetch, ctx, gap, shared.now)
    else originFetch = fetch(ctx, dropped)
    const flight = flights.open(key, epoch, place, originFetch, tags, shared.purgeSeq)
    const leave = flight.join(ctx)
    // A part is of use to who asks for just that, and of others like it nothing was stored.
    if (finishing !== null && !isBackground && !isPart && !isHopeless) flight.mayGoOn(finishing, ctx)
    ctx.whenAborted(leave)
    try {
      const answer = await originFetch.answer
      if (stored !== null && isErrorStatus(answer.status)) {
        const nowMs = shared.now()
        shared.failures.add(key, nowMs, readRetryAfter(answer.headers, nowMs) ?? 0)
        const reply = answers.inPlaceOfError(ctx, key)
        if (reply !== null) {
          // Who waits finds the failure remembered, and what is stored.
          flight.pass()
          leave()
          return reply
        }
      }
      const replaced = isPart ? null : stored
      const fill = {
        ctx,
        flight,
        shared,
        policy,
        why,
        memoryKey,
        isBackground,
        sentAtMs,
        leave,
        validated,
        stored: replaced,
      }
      return isPart && answer.status !== 200 ? takePart(fill, answer) : takeAnswer(fill, answer)
    } catch (error) {
      flight.fail(error)
      leave()
      if (isOutage(error)) {
        if (stored !== null && !isOwnFailure(error)) shared.failures.add(key, shared.now(), 0)
        const reply = answers.inPlaceOfError(ctx, key)
        if (reply !== null) return reply
      }
      throw failed(ctx, why, error)
    }
  }

  async function forward(ctx: RequestContext): Promise<Reply> {
    const why = forwardReason(ctx)
    const sentAtMs = shared.now()
    const originFetch = fetch(ctx, NOTHING)
    const tags = policy.tagsOf(ctx.params) ?? []
    const mayServeGet = ctx.method === 'POST' && !policy.methods.has('POST') && wishOf(ctx)?.noStore !== true
    const key = mayServeGet ? keyRule.ofGet(ctx) : null
    const watch = key === null ? null : flights.open(key, epoch, null, originFetch, tags, shared.purgeSeq)
    ctx.whenAborted(() => originFetch.abort(GONE))
    try {
      const answer = await originFetch.answer
      const kept = watch && keptReply({ ctx, shared, policy, sentAtMs, why, originFetch, watch }, answer)
      if (kept !== null) return kept
      watch?.close()
      sayForwarded(ctx, why, false)
      return originReply(answer, answer.takeBody())
    } catch (error) {
      watch?.close()
      throw failed(ctx, why, error)
    }
  }

  async function forwardHead(ctx: RequestContext, key: string): Promise<Reply> {
    const why = forwardReason(ctx)
    const sentAtMs = shared.now()
    const stored = find(ctx, key, sentAtMs)
    ctx.hasStandIn = typeof stored === 'object' && stored.staleIfErrorUntilMs > sentAtMs
    const originFetch = fetch(ctx, NOTHING)
    ctx.whenAborted(() => originFetch.abort(GONE))
    try {
      const answer = await originFetch.answer
      if (typeof stored === 'object') freshenByHead({ ctx, shared, policy, sentAtMs }, stored, answer)
      const reply = isErrorStatus(answer.status) ? answers.inPlaceOfError(ctx, key) : null
      if (reply !== null) return reply
      sayForwarded(ctx, why, false)
      sayMayVary(ctx, policy, { ...answer, varyNames: varyNames(answer.headers) ?? [] })
      return originReply(answer, answer.takeBody())
    } catch (error) {
      const reply = isOutage(error) ? answers.inPlaceOfError(ctx, key) : null
      if (reply !== null) return reply
      throw failed(ctx, why, error)
    }
  }

  return { lead, forward, forwardHead }
}

const NOTHING: ReadonlySet<string> = new Set()
const NO_TAGS: { readonly tags: readonly string[] } = { tags: [] }

export const GONE = new GatewayError('client_gone', 'The client has gone.')

/** Tells the client what the cache did, error or not. Answers the error. */
export function failed(ctx: RequestContext, why: ForwardReason, error: unknown): unknown {
  ctx.cacheReason = 'failed' satisfies Reason
  sayForwarded(ctx, why, false)
  return error
}
