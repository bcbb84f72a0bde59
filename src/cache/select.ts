// Which stored response answers a request, fresh or stale, or why none does (RFC 9111 §4). What is stored in parts is
// never among those that answer who wants the whole: it is another type, with another way to it. Reads the store and the
// failures that are remembered; changes nothing.

import type { RequestContext } from '../core/context.ts'
import type { ExplainedCache } from '../core/control.ts'
import type { RequestControl } from '../http/cache-control.ts'
import { type StoredTimes, acceptsStale, unwantedBy, wishOf } from './client-control.ts'
import { HeldBody } from '../core/held-body.ts'
import { type StoredParts, type StoredResponse, isAhead, isSelected } from './entry.ts'
import type { KeyRule } from './key-rule.ts'
import { claimsOf } from './key.ts'
import { isKeyedByBody } from './methods.ts'
import { type CachePolicy, asksForPart, lookupRefusal, reuseRefusal } from './policy.ts'
import { REASONS, type Reason } from './reasons.ts'
import { answerParts } from './reply.ts'
import { isErrorStatus } from './revalidate.ts'
import type { SharedCache } from './shared.ts'
import { wholeSeconds } from './status.ts'

export interface Selection {
  /** The entry that answers this request, fresh where there is a fresh one, or why there is none. */
  readonly find: (ctx: RequestContext, key: string, nowMs: number) => StoredResponse | Reason
  /** The parts that this request selects, fresh ones; with nowMs 0 any, to be asked about or added to. */
  readonly findParts: (ctx: RequestContext, key: string, nowMs: number) => StoredParts | null
  /** Why a stale entry may answer without the origin being asked; null when it may not. */
  readonly unaskedReason: (
    ctx: RequestContext,
    entry: StoredResponse,
    nowMs: number,
  ) => 'refreshing' | 'backing-off' | 'client-max-stale' | null
  /** The entry that answers where the origin must not be asked: fresh, or as stale as it may be when that fails. */
  readonly findUnasked: (ctx: RequestContext, key: string, nowMs: number) => StoredResponse | null
  /** What the client asks for, where the route honours it; null: nothing. */
  readonly wishOf: (ctx: RequestContext) => RequestControl | null
  /** Why the client does not want this entry; null where it does. */
  readonly unwantedReason: (ctx: RequestContext, entry: StoredTimes, nowMs: number) => Reason | null
}

/** epoch: of the route; entries of another are not used. */
export function compileSelection(
  { store, failures, now }: Pick<SharedCache, 'store' | 'failures' | 'now'>,
  policy: CachePolicy,
  epoch: string,
): Selection {
  const wish = (ctx: RequestContext) => (policy.honorsClient ? wishOf(ctx.headers) : null)
  const selection: Selection = {
    wishOf: wish,
    unwantedReason(ctx, entry, nowMs) {
      const asked = wish(ctx)
      return asked === null ? null : unwantedBy(asked, entry, nowMs)
    },
    find(ctx: RequestContext, key: string, nowMs: number): StoredResponse | Reason {
      const variants = store.get(key)
      if (variants === null) return 'absent'
      const claims = claimsOf(ctx)
      let miss: Reason = 'vary'
      let stale: StoredResponse | null = null
      for (const entry of variants) {
        if (!isSelected(ctx.headers, claims, entry)) continue
        if (entry.epoch !== epoch) miss = 'config-changed'
        else if (isAhead(entry, nowMs)) miss = 'expired'
        else if (entry.body === null) {
          const isFresh = entry.freshUntilMs > nowMs
          miss = isFresh ? (reuseRefusal(ctx.headers, entry, policy, nowMs) ?? 'incomplete') : 'expired'
        } else if (entry.freshUntilMs > nowMs) return reuseRefusal(ctx.headers, entry, policy, nowMs) ?? entry
        else {
          miss = 'expired'
          if (reuseRefusal(ctx.headers, entry, policy, 0) === null) stale ??= entry
        }
      }
      return stale ?? miss
    },
    findUnasked(ctx, key, nowMs) {
      const found = selection.find(ctx, key, nowMs)
      if (typeof found !== 'object' || selection.unwantedReason(ctx, found, nowMs) !== null) return null
      if (found.freshUntilMs > nowMs) return found
      const mayAnswerUntilMs = Math.max(found.staleIfErrorUntilMs, found.staleWhileRevalidateUntilMs)
      return mayAnswerUntilMs > nowMs && !isErrorStatus(found.status) ? found : null
    },
    findParts(ctx: RequestContext, key: string, nowMs: number): StoredParts | null {
      const claims = claimsOf(ctx)
      for (const entry of store.get(key) ?? []) {
        if (entry.body !== null || entry.epoch !== epoch || entry.freshUntilMs <= nowMs) continue
        if (!isSelected(ctx.headers, claims, entry) || isAhead(entry, now())) continue
        if (reuseRefusal(ctx.headers, entry, policy, nowMs) === null) return entry
      }
      return null
    },
    unaskedReason(ctx, entry, nowMs) {
      const isBackingOff = failures.has(entry.key, nowMs)
      if (isBackingOff && entry.staleIfErrorUntilMs > nowMs) return 'backing-off'
      if (entry.staleWhileRevalidateUntilMs > nowMs) return isBackingOff ? 'backing-off' : 'refreshing'
      const asked = wish(ctx)
      return asked !== null && acceptsStale(asked, entry, nowMs) ? 'client-max-stale' : null
    },
  }
  return selection
}

/** What the lookup would say of a request, in words. Its body, where there is one, is held. */
export function explainLookup(
  ctx: RequestContext,
  shared: Pick<SharedCache, 'now'>,
  policy: CachePolicy,
  rule: KeyRule,
  { find, findParts, unaskedReason, unwantedReason, wishOf }: Selection,
): ExplainedCache {
  const { refusal, ...told } = explainKey(ctx, policy, rule)
  const { key } = told
  const unanswered = (outcome: 'miss' | 'bypass', reason: Reason): ExplainedCache => ({
    outcome,
    reason: REASONS[reason],
    ...told,
    age_s: null,
    ttl_s: null,
  })
  if (key === null) return unanswered('bypass', refusal ?? rule.whyNone(ctx))

  const nowMs = shared.now()
  const found = find(ctx, key, nowMs)
  const unwanted = typeof found === 'object' ? unwantedReason(ctx, found, nowMs) : null
  const unasked = typeof found === 'object' && found.freshUntilMs <= nowMs ? unaskedReason(ctx, found, nowMs) : null
  if (typeof found === 'object' && unwanted === null && (unasked !== null || found.freshUntilMs > nowMs)) {
    return { ...told, ...explainEntry(found, nowMs, unasked) }
  }
  const parts = asksForPart(ctx.method, ctx.headers) ? findParts(ctx, key, nowMs) : null
  if (parts !== null && unwantedReason(ctx, parts, nowMs) === null && answerParts(ctx, parts) !== null) {
    const [age_s, ttl_s] = [wholeSeconds(nowMs - parts.bornAtMs), wholeSeconds(parts.freshUntilMs - nowMs)]
    return { outcome: 'hit', reason: null, ...told, age_s, ttl_s }
  }
  const isBarred = found === 'authorization' || found === 'cookie'
  if (!isBarred && wishOf(ctx)?.noStore === true) return unanswered('bypass', 'client-no-store')
  return unanswered(isBarred ? 'bypass' : 'miss', unwanted ?? (typeof found === 'object' ? 'expired' : found))
}

/** What is stored and would answer in the place of a refusal, in words; null where there is none. isRead: the refusal comes
 *  when the body, where it is part of the key, has been read. */
export function explainUnasked(
  ctx: RequestContext,
  shared: Pick<SharedCache, 'now'>,
  policy: CachePolicy,
  rule: KeyRule,
  { findUnasked }: Selection,
  isRead: boolean,
): ExplainedCache | null {
  if (isKeyedByBody(ctx.method) && !isRead) return null
  const { refusal: _, ...told } = explainKey(ctx, policy, rule)
  const nowMs = shared.now()
  const found = told.key === null ? null : findUnasked(ctx, told.key, nowMs)
  return found === null ? null : { ...told, ...explainEntry(found, nowMs, 'limited') }
}

/** The key of a request, what it is made of, and why it is not looked up under it. */
function explainKey(
  ctx: RequestContext,
  policy: CachePolicy,
  rule: KeyRule,
): Pick<ExplainedCache, 'key' | 'key_parts' | 'tags'> & { readonly refusal: Reason | null } {
  const body = ctx.body instanceof HeldBody ? ctx.body.bytes : null
  const part = isKeyedByBody(ctx.method) ? rule.bodyPart(ctx.headers, body ?? Buffer.alloc(0)) : null
  const refusal = lookupRefusal(ctx, policy) ?? (part?.ok === false ? part.reason : null)
  const key = part?.ok === true ? rule.ofBody(ctx, part.part) : rule.ofGet(ctx)
  return {
    refusal,
    key: refusal === null ? key : null,
    key_parts: rule.parts(ctx, part === null ? null : body),
    tags: policy.tagsOf(ctx.params) ?? [],
  }
}

/** An entry that answers; reason: why, where it is stale or answers in another's place. */
function explainEntry(
  { bornAtMs, freshUntilMs }: StoredResponse,
  nowMs: number,
  reason: Reason | null,
): Omit<ExplainedCache, 'key' | 'key_parts' | 'tags'> {
  return {
    outcome: freshUntilMs > nowMs ? 'hit' : 'stale',
    reason: reason === null ? null : REASONS[reason],
    age_s: wholeSeconds(nowMs - bornAtMs),
    ttl_s: wholeSeconds(freshUntilMs - nowMs),
  }
}
