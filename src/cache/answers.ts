// What is stored, as an answer: fresh, stale, in place of an error, or a part of it. Says what it is (X-Cache,
// Cache-Status, Age), and notes that it was of use, and the fetch that it has spared.
//
// A fetch is spared where the request would have gone out otherwise: not by what answers in the place of a refusal, or of
// an error that the upstream has been asked for, nor by a stale answer for which it is asked all the same.

import type { Reply, RequestContext } from '../core/context.ts'
import type { CacheEntry, StoredResponse } from './entry.ts'
import type { CachePolicy } from './policy.ts'
import type { Reason } from './reasons.ts'
import { pacedBody } from './replay.ts'
import { answerParts, answerStored } from './reply.ts'
import { isErrorStatus } from './revalidate.ts'
import type { Selection } from './select.ts'
import type { SharedCache } from './shared.ts'
import { forwardReason, sayCollapsed, sayHit, sayStale } from './status.ts'

export interface Answers {
  /** detail: where it was read for this request, or why it answers; null: from memory, as ever. */
  readonly hit: (ctx: RequestContext, entry: StoredResponse, nowMs: number, detail: string | null) => Reply
  /** The part that a client asks for, where it is there and fresh. */
  readonly hitParts: (ctx: RequestContext, key: string, nowMs: number) => Reply | null
  /** Another instance has fetched it. */
  readonly collapsed: (ctx: RequestContext, entry: StoredResponse, nowMs: number) => Reply
  /** isSpared: it is not fetched on this behalf. */
  readonly stale: (
    ctx: RequestContext,
    entry: StoredResponse,
    nowMs: number,
    reason: Reason,
    isSpared: boolean,
  ) => Reply
  /** The stale entry that answers in place of an origin that has failed, if it may. */
  readonly inPlaceOfError: (ctx: RequestContext, key: string) => Reply | null
}

export function compileAnswers(
  shared: SharedCache,
  policy: CachePolicy,
  { find, findParts, unwantedReason }: Selection,
): Answers {
  const { store } = shared
  const compressor = policy.compress ? shared.compressor : null
  const { pace } = policy

  const answer = (ctx: RequestContext, entry: StoredResponse): Reply => answerStored(ctx, entry, compressor)

  /** The same at its own pace, where that is a stream, and all of it. */
  function replay(ctx: RequestContext, entry: StoredResponse): Reply {
    const reply = answer(ctx, entry)
    if (pace === null || entry.timeline === null || reply.body !== entry.body) return reply
    return { ...reply, body: pacedBody(entry.body, entry.timeline, pace) }
  }

  const whole = pace === null ? answer : replay

  function collapsed(ctx: RequestContext, entry: StoredResponse, nowMs: number): Reply {
    store.touch(entry)
    sayCollapsed(ctx, forwardReason(ctx), nowMs - entry.bornAtMs)
    return whole(ctx, entry)
  }

  function hit(ctx: RequestContext, entry: StoredResponse, nowMs: number, detail: string | null): Reply {
    store.touch(entry)
    sayHit(ctx, nowMs - entry.bornAtMs, entry.freshUntilMs - nowMs, detail)
    const reply = whole(ctx, entry)
    if (detail !== LIMITED) ctx.sparedMs = sparedBy(ctx, reply, entry)
    return reply
  }

  function hitParts(ctx: RequestContext, key: string, nowMs: number): Reply | null {
    const entry = findParts(ctx, key, nowMs)
    const reply = entry === null ? null : answerParts(ctx, entry)
    if (entry === null || reply === null || unwantedReason(ctx, entry, nowMs) !== null) return null
    store.touch(entry)
    sayHit(ctx, nowMs - entry.bornAtMs, entry.freshUntilMs - nowMs, null)
    ctx.sparedMs = sparedBy(ctx, reply, entry)
    return reply
  }

  function stale(ctx: RequestContext, entry: StoredResponse, nowMs: number, reason: Reason, isSpared: boolean): Reply {
    store.touch(entry)
    sayStale(ctx, nowMs - entry.bornAtMs, entry.freshUntilMs - nowMs, reason)
    const reply = whole(ctx, entry)
    if (isSpared) ctx.sparedMs = sparedBy(ctx, reply, entry)
    return reply
  }

  function inPlaceOfError(ctx: RequestContext, key: string): Reply | null {
    const nowMs = shared.now()
    const found = find(ctx, key, nowMs)
    if (typeof found !== 'object' || found.staleIfErrorUntilMs <= nowMs || isErrorStatus(found.status)) return null
    if (unwantedReason(ctx, found, nowMs) !== null) return null
    ctx.whenAborted(null)
    return stale(ctx, found, nowMs, 'failed', false)
  }

  return { hit, hitParts, collapsed, stale, inPlaceOfError }
}

const LIMITED: Reason = 'limited'

/** How long the fetch of this answer would have taken; of a part of what was fetched whole, or a head alone, nobody knows. */
const sparedBy = (ctx: RequestContext, reply: Reply, { body, costMs }: CacheEntry): number =>
  ctx.method === 'HEAD' || (reply.status === 206 && body !== null) ? 0 : costMs
