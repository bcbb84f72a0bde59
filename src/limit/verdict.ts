// What a client is told of the limits: the fields of its answer, or a refusal. This file alone knows which policy binds:
// admitted, the one with the least of its limit left; refused, the violated one with the longest wait. A policy that only
// watches is told to nobody.

import type { Reply, RequestContext } from '../core/context.ts'
import { formatDuration } from '../core/decode.ts'
import { GatewayError } from '../core/errors.ts'
import { FieldPattern, FilledFields, HOLE, type PatternField } from '../core/field-pattern.ts'
import { problemReply } from '../http/problem.ts'
import type { Standing } from './algorithm.ts'
import type { Draft } from './draft.ts'
import { retryAfterSeconds, standingPattern, wholeSeconds } from './fields.ts'
import type { Policy } from './policy.ts'

export interface Verdict {
  /** Says how all policies stand that apply; null, as a stage that passes on. */
  admit(ctx: RequestContext, draft: Draft): null
  /** Says which of the policies before `draft.to` are violated. */
  refuse(ctx: RequestContext, draft: Draft): Reply
}

/** Ways in which the policies of one route can stand whose fields are kept as patterns. */
const MAX_PATTERNS = 256

/** random: from 0 to below 1; spreads Retry-After. */
export function compileVerdict(policies: readonly Policy[], random: () => number): Verdict {
  const countsTokens = policies.some(({ isTokens, isEnforced }) => isTokens && isEnforced)
  /** By what binds, where all apply and admit. */
  const common: (Shown | undefined)[] = policies.map(() => undefined)
  const others = new Map<string, Shown>()

  function say(ctx: RequestContext, draft: Draft, bindingAt: number, admitted: boolean): void {
    const { name, limit } = policies[bindingAt] as Policy
    const standing = draft.standings[bindingAt] as Standing
    const remaining = Math.min(standing.remaining, limit)
    ctx.quota = { admitted, policy: name, limit, remaining }

    const shown = shownOf(draft, bindingAt, admitted)
    const { standingsAt, tokensAt } = shown
    const values = shown.pattern.blank.slice()
    values[0] = remaining
    values[1] = wholeSeconds((draft.atMs[bindingAt] as number) + standing.fullMs)
    let next = 2
    for (let i = 0; i < standingsAt.length; i++) {
      const at = standingsAt[i] as number
      const policy = policies[at] as Policy
      const { nextMs } = draft.standings[at] as Standing
      const waitMs = admitted ? nextMs : waitOf(policy, draft, at)
      values[next++] = left(draft.standings[at] as Standing, policy)
      // What never fits has no wait; then it is told when there is one unit more.
      values[next++] = wholeSeconds(waitMs === Infinity ? nextMs : waitMs)
    }
    if (tokensAt >= 0) {
      const { fullMs } = draft.standings[tokensAt] as Standing
      values[next++] = left(draft.standings[tokensAt] as Standing, policies[tokensAt] as Policy)
      values[next] = formatDuration(wholeSeconds(fullMs) * 1000)
    }
    ctx.quotaFields = new FilledFields(shown.pattern, values)
  }

  function shownOf(draft: Draft, bindingAt: number, admitted: boolean): Shown {
    if (draft.isWhole && admitted && !countsTokens) {
      return (common[bindingAt] ??= compileShown(policies, bindingAt, [...policies.keys()], null, -1))
    }
    const applying = [...policies.keys()].filter((i) => draft.subjects[i] !== null)
    // On refusal the violated ones only, so that no `t` comes after Retry-After.
    const violated = admitted ? null : applying.filter((i) => isViolated(policies[i] as Policy, draft, i))
    const tokensAt = countsTokens ? tightest(policies, draft, isOfTokens) : -1
    const key = `${bindingAt} ${tokensAt} ${applying.join()} ${violated?.join()}`
    const known = others.get(key)
    if (known !== undefined) return known
    const shown = compileShown(policies, bindingAt, applying, violated, tokensAt)
    if (others.size < MAX_PATTERNS) others.set(key, shown)
    return shown
  }

  return {
    admit(ctx, draft) {
      const bindingAt = tightest(policies, draft, isOfAny)
      if (bindingAt >= 0) say(ctx, draft, bindingAt, true)
      return null
    },
    refuse(ctx, draft) {
      const closed = policies.find(
        (policy, i) => isViolated(policy, draft, i) && draft.standings[i]?.source === 'closed',
      )
      if (closed !== undefined) return refuseAll(ctx, closed)
      const bindingAt = longestWait(policies, draft)
      const { refusal, quota, facts } = policies[bindingAt] as Policy
      say(ctx, draft, bindingAt, false)
      const violated = policies.filter((policy, i) => isViolated(policy, draft, i)).map((policy) => policy.name)
      const waitMs = waitOf(policies[bindingAt] as Policy, draft, bindingAt)
      const why = { 'violated-policies': violated, ...facts }
      if (waitMs === Infinity) return problemReply(refusal, ctx.id, why)
      const retryAfter = retryAfterSeconds(waitMs, quota.rate.windowMs, random())
      const reset = wholeSeconds((draft.atMs[bindingAt] as number) + (draft.standings[bindingAt] as Standing).fullMs)
      const extra = { ...why, reset, retryAfter }
      return problemReply(refusal, ctx.id, extra, ['Retry-After', String(retryAfter)])
    },
  }
}

/** A policy that lets nobody pass while its counters cannot be reached: not a fault of the client, and no number to tell. */
function refuseAll(ctx: RequestContext, { name, limit }: Policy): Reply {
  ctx.quota = { admitted: false, policy: name, limit, remaining: 0 }
  ctx.error = UNAVAILABLE
  return problemReply(UNAVAILABLE, ctx.id)
}

const UNAVAILABLE = new GatewayError('limits_unavailable', 'Requests cannot be counted at the moment.', {
  retryAfterSeconds: 1,
})

function isViolated(policy: Policy, draft: Draft, i: number): boolean {
  if (i >= draft.to || !policy.isEnforced || draft.subjects[i] === null) return false
  return !(draft.standings[i] as Standing).admitted
}

/** Milliseconds until the cost of the request fits; Infinity where it is more than there ever is. */
export const waitOf = ({ quota }: Policy, draft: Draft, i: number): number =>
  (draft.costs[i] as number) > quota.rate.burst ? Infinity : (draft.standings[i] as Standing).waitMs

/** A burst may be larger than the limit; what a client is told never is. */
const left = (standing: Standing, policy: Policy): number => Math.min(standing.remaining, policy.limit)

const isOfAny = (): boolean => true
const isOfTokens = ({ isTokens }: Policy): boolean => isTokens

/** -1 where nothing of that kind applies and is enforced. */
function tightest(policies: readonly Policy[], draft: Draft, isOfKind: (policy: Policy) => boolean): number {
  let found = -1
  let least = Infinity
  for (let i = 0; i < policies.length; i++) {
    const policy = policies[i] as Policy
    if (draft.subjects[i] === null || !policy.isEnforced || !isOfKind(policy)) continue
    const share = left(draft.standings[i] as Standing, policy) / policy.limit
    if (share >= least) continue
    least = share
    found = i
  }
  return found
}

function longestWait(policies: readonly Policy[], draft: Draft): number {
  let found = -1
  let longestMs = -1
  for (let i = 0; i < draft.to; i++) {
    const policy = policies[i] as Policy
    const waitMs = waitOf(policy, draft, i)
    if (!isViolated(policy, draft, i) || waitMs <= longestMs) continue
    longestMs = waitMs
    found = i
  }
  return found
}

/** What is told where the policies stand in one way: X-RateLimit-* of the one that binds, RateLimit-Policy, RateLimit, and the
 *  fields of tokens. Its values: remaining and reset of what binds, remaining and seconds of each standing, remaining and
 *  reset of the tokens. */
interface Shown {
  readonly pattern: FieldPattern
  /** The policies that stand in RateLimit. */
  readonly standingsAt: readonly number[]
  /** The policy that the fields of tokens tell of; -1: none. */
  readonly tokensAt: number
}

/** applying: the policies that apply; violated: those that refuse, null where all admit. */
function compileShown(
  policies: readonly Policy[],
  bindingAt: number,
  applying: readonly number[],
  violated: readonly number[] | null,
  tokensAt: number,
): Shown {
  const named = (at: readonly number[]) => at.filter((i) => policies[i]?.policyItem !== null)
  const standingsAt = named(violated ?? applying)
  const described = named(applying).map((i) => (policies[i] as Policy).policyItem as string)
  const fields: PatternField[] = [
    ['X-RateLimit-Limit', (policies[bindingAt] as Policy).limitText],
    ['X-RateLimit-Remaining', HOLE],
    ['X-RateLimit-Reset', HOLE],
  ]
  if (described.length > 0) fields.push(['RateLimit-Policy', described.join(', ')])
  const standings = standingsAt.flatMap((i, nth) => [
    nth === 0 ? '' : ', ',
    ...standingPattern((policies[i] as Policy).name),
  ])
  if (standings.length > 0) fields.push(['RateLimit', ...standings])
  if (tokensAt >= 0) {
    fields.push(['X-RateLimit-Limit-Tokens', (policies[tokensAt] as Policy).limitText])
    fields.push(['X-RateLimit-Remaining-Tokens', HOLE], ['X-RateLimit-Reset-Tokens', HOLE])
  }
  return { pattern: new FieldPattern(fields), standingsAt, tokensAt }
}
