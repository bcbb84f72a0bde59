// The stages of a request, and why in this order. This is the one place that says so.
//
//   identity     who asks, where the route table says how users are known; 401 where a route is for known users only.
//   limits       every request counts, hits too: a client cannot hide behind the cache. A refusal costs the least here.
//                On routes with `onLimited: stale`, what is stored answers in the place of a refusal: after the limits,
//                since only they know of one, and from the store alone, since a client over its limit must cost the
//                upstream nothing. What the client is told of its limits stays as it is.
//   idempotency  one deed for each Idempotency-Key: what repeats a request gets the answer to the first, and all that comes
//                after this is walked once. After identity, since a key belongs to who asks; after the limits that count every
//                request, since a repeat is one; before those on misses and the slots, since it asks nothing of the upstream.
//                Before the lookup: the same key has the same answer, whatever is stored meanwhile, and another body with
//                it is a fault even where its answer is stored.
//   lookup       what is fresh is answered without waiting, what is being fetched is joined.
//   fill         one fetch per key, stored while it streams; without a cache, the request is just forwarded.
//   misses       limits on what the upstream is asked, and the slots: the last thing that can refuse a request. So the
//                fill asks them, when nothing is left to be done but to go to the upstream, and only for the request
//                that leads: who waits for its fetch costs nothing and takes no slot. Where the leader is refused, the
//                next who waits is asked about, for itself. What is stored answers in the place of such a refusal as well.
//                While the gateway is overloaded, upstream/forward.ts refuses what has come through all this: what is stored
//                may answer as when the upstream fails, and limits on misses give back what they took.
//                Where a limit says from when on its budget is low, what is stored answers before it is spent.
//   invalidate   after an unsafe request that succeeded, what is stored under its URL goes (RFC 9111 §4.4), and what
//                carries a tag that the route purges. Then what the answer itself brings for later GETs is stored.
//
// A stage that a route does not use is absent, not empty. The walk awaits nothing that is not a promise, so a memory
// hit has no await in it.

import type { HeaderList, Reply, ReplyBody, RequestContext, Stage } from '../core/context.ts'

/** What a route has in memory, and answers without asking anybody. H: what is found, and answered from. */
export interface Memory<H> {
  /** null: nothing for this request. Changes nothing but the context. */
  readonly findNow: (ctx: RequestContext) => H | null
  readonly answerFound: (ctx: RequestContext, found: H) => Reply
}

export interface RouteStages {
  readonly identity: Stage | null
  readonly limits: Stage | null
  /** Asked for an answer in the place of a refusal by the limits; null: there is none. */
  readonly whenLimited: ((ctx: RequestContext) => Reply | null) | null
  /** null: there is no cache. */
  readonly lookup: Stage | null
  readonly misses: Stage | null
  /** Asked before `misses`: whether whenLimited is to answer already; null: never. */
  readonly isLow: ((ctx: RequestContext) => boolean) | null
  /** The last stage: always answers or throws. With a cache, it asks `misses` before the upstream. */
  readonly fetch: (ctx: RequestContext, misses: Stage | null) => ReturnType<Pipeline>
  /** Called with what an unsafe request was answered; its client hears of it when the promise resolves. */
  readonly invalidate: (
    ctx: RequestContext,
    status: number,
    headers: HeaderList,
    body: ReplyBody,
  ) => Promise<unknown> | null
  /** Called with every answer of the last stage. */
  readonly onAnswer: ((ctx: RequestContext, headers: HeaderList) => void) | null
}

/** One function from request to answer. Throws or rejects with GatewayError. */
export type Pipeline = (ctx: RequestContext) => Reply | Promise<Reply>

/** The same, of what is in memory; null: that does not answer, and nothing has happened. */
export type AnswerNow = (ctx: RequestContext) => Reply | Promise<Reply> | null

/** once: takes the place of what comes after the limits, and calls that where it has to; null: it is walked each time. */
export function compilePipeline(route: RouteStages, once: ((rest: Pipeline) => Pipeline) | null = null): Pipeline {
  const { identity, limits, whenLimited, lookup, fetch, invalidate, onAnswer } = route
  const misses = whenLow(route.isLow, orInstead(route.misses, whenLimited), whenLimited)
  // Without a cache nobody shares a fetch: every request is asked about.
  const [first, asked] = lookup === null ? [misses, null] : [null, misses]
  const last: Pipeline = (ctx) => {
    const fetched = fetch(ctx, asked)
    const isPlain = ctx.method === 'GET' && onAnswer === null
    return isPlain || !(fetched instanceof Promise) ? fetched : fetched.then((reply) => conclude(ctx, reply))
  }

  async function conclude(ctx: RequestContext, reply: Reply): Promise<Reply> {
    onAnswer?.(ctx, reply.headers)
    if (ctx.method === 'GET') return reply
    // Whoever has been told of a change must not read what was there before.
    await invalidate(ctx, reply.status, reply.headers, reply.body)
    return reply.keep?.() ?? reply
  }

  const entrance = [identity, orInstead(limits, whenLimited)].filter((stage) => stage !== null)
  const rest = [lookup, first].filter((stage) => stage !== null)
  return once === null ? inOrder([...entrance, ...rest], last) : inOrder(entrance, once(inOrder(rest, last)))
}

/** A stage that limits, with another answer in the place of a 429; who is not let in at all (403) gets none. */
function orInstead(limits: Stage | null, answer: RouteStages['whenLimited']): Stage | null {
  if (limits === null || answer === null) return limits
  const instead = (ctx: RequestContext, refusal: Reply | null) =>
    refusal?.status === 429 ? (answer(ctx) ?? refusal) : refusal
  return (ctx) => {
    const refusal = limits(ctx)
    return refusal instanceof Promise ? refusal.then((reply) => instead(ctx, reply)) : instead(ctx, refusal)
  }
}

/** The same before there is a refusal: what is stored answers while the rest of a budget is kept for what is not. */
function whenLow(isLow: RouteStages['isLow'], misses: Stage | null, answer: RouteStages['whenLimited']): Stage | null {
  if (misses === null || isLow === null || answer === null) return misses
  return (ctx) => (isLow(ctx) ? answer(ctx) : null) ?? misses(ctx)
}

/** The walk of a WebSocket handshake: nothing of it is in a cache. It is charged as a request that goes to the upstream, and
 *  its slots come free when the socket ends, since that is when its answer is finished. */
export function compileHandshake(
  { identity, limits, misses, onAnswer }: Pick<RouteStages, 'identity' | 'limits' | 'misses' | 'onAnswer'>,
  handshake: Pipeline,
): Pipeline {
  const last: Pipeline = async (ctx) => {
    const reply = await handshake(ctx)
    onAnswer?.(ctx, reply.headers)
    return reply
  }
  return inOrder(
    [identity, limits, misses].filter((stage) => stage !== null),
    last,
  )
}

/** The same walk for a GET or HEAD, as far as it ends with what is in memory: the same stages in the same order, but that it
 *  looks first, so that nobody is charged for what is then answered by the other walk. null: that one has to answer, and
 *  nothing has happened. A promise where a stage asks elsewhere; what was found before answers after it, as it would if
 *  the limits had answered at once. */
export function compileAnswerNow<H>(
  { identity, limits, whenLimited }: Pick<RouteStages, 'identity' | 'limits' | 'whenLimited'>,
  { findNow, answerFound }: Memory<H>,
): AnswerNow {
  const checked = orInstead(limits, whenLimited)
  return (ctx) => {
    if (identity !== null) {
      const refusal = identity(ctx)
      // Who it is has to be found out: that is remembered, and the other walk waits for it.
      if (refusal instanceof Promise) {
        refusal.catch(() => {})
        return null
      }
      if (refusal !== null) return refusal
    }
    const found = findNow(ctx)
    if (found === null) return null
    const refusal = checked === null ? null : checked(ctx)
    return refusal instanceof Promise
      ? refusal.then((reply) => reply ?? answerFound(ctx, found))
      : (refusal ?? answerFound(ctx, found))
  }
}

/** Stages that may answer, and then one that does. */
const inOrder =
  (stages: readonly Stage[], last: Pipeline): Pipeline =>
  (ctx) =>
    walk(stages, last, ctx, 0)

function walk(stages: readonly Stage[], last: Pipeline, ctx: RequestContext, from: number): Reply | Promise<Reply> {
  for (let i = from; i < stages.length; i++) {
    const outcome = (stages[i] as Stage)(ctx)
    if (outcome === null) continue
    if (outcome instanceof Promise) return outcome.then((reply) => reply ?? walk(stages, last, ctx, i + 1))
    return outcome
  }
  return last(ctx)
}
