// What a client is told of the limits: the fields of its answer, or a refusal. This file alone knows which policy binds:
// admitted, the one with the least of its limit left; refused, the violated one with the longest wait. A policy that only
// watches is told to nobody.

import type { Reply, RequestContext } from '../core/context.ts'
import { formatDuration } from '../core/decode.ts'
import { GatewayError } from '../core/errors.ts'
import { problemReply } from '../http/problem.ts'
import type { Standing } from './algorithm.ts'
import type { Draft } from './draft.ts'
import { formatStanding, retryAfterSeconds, wholeSeconds } from './fields.ts'
import type { Policy } from './policy.ts'

export interface Verdict {
  /** Says how all policies stand that apply; null, as a stage that passes on. */
  admit(ctx: RequestContext, draft: Draft): null
  /** Says which of the policies before `draft.to` are violated. */
  refuse(ctx: RequestContext, draft: Draft): Reply
}

/** random: from 0 to below 1; spreads Retry-After. */
export function compileVerdict(policies: readonly Policy[], random: () => number): Verdict {
  const countsTokens = policies.some(({ isTokens, isEnforced }) => isTokens && isEnforced)
  const policyText = policies.flatMap(({ policyItem }) => policyItem ?? []).join(', ')

  function say(ctx: RequestContext, draft: Draft, bindingAt: number, admitted: boolean): void {
    const { name, limit, limitText } = policies[bindingAt] as Policy
    const standing = draft.standings[bindingAt] as Standing
    const remaining = Math.min(standing.remaining, limit)
    ctx.quota = { admitted, policy: name, limit, remaining }

    const reset = wholeSeconds((draft.atMs[bindingAt] as number) + standing.fullMs)
    if (draft.said > 0) ctx.fields.splice(draft.saidAt, draft.said)
    const { fields } = ctx
    // At the end, also the second time: no other stage counts on a place.
    draft.saidAt = fields.length
    fields.push('X-RateLimit-Limit', limitText, 'X-RateLimit-Remaining', String(remaining))
    fields.push('X-RateLimit-Reset', String(reset))
    const described = draft.isWhole ? policyText : formatPolicies(policies, draft)
    if (described !== '') fields.push('RateLimit-Policy', described)
    const standings = formatStandings(policies, draft, admitted)
    if (standings !== '') fields.push('RateLimit', standings)
    if (countsTokens) sayTokens(fields, draft)
    draft.said = fields.length - draft.saidAt
  }

  function sayTokens(fields: string[], draft: Draft): void {
    const at = tightest(policies, draft, isOfTokens)
    if (at < 0) return
    const { limit, limitText } = policies[at] as Policy
    const { remaining, fullMs } = draft.standings[at] as Standing
    fields.push('X-RateLimit-Limit-Tokens', limitText)
    fields.push('X-RateLimit-Remaining-Tokens', String(Math.min(remaining, limit)))
    fields.push('X-RateLimit-Reset-Tokens', formatDuration(wholeSeconds(fullMs) * 1000))
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

/** The RateLimit-Policy field: the policies that apply to one request. */
function formatPolicies(policies: readonly Policy[], draft: Draft): string {
  const items: string[] = []
  for (const [i, { policyItem }] of policies.entries()) {
    if (policyItem !== null && draft.subjects[i] !== null) items.push(policyItem)
  }
  return items.join(', ')
}

/** The RateLimit field: every policy that applies, or on refusal the violated ones only, so that no `t` in it comes
 *  after Retry-After. */
function formatStandings(policies: readonly Policy[], draft: Draft, admitted: boolean): string {
  let text = ''
  for (let i = 0; i < policies.length; i++) {
    const policy = policies[i] as Policy
    if (draft.subjects[i] === null || policy.policyItem === null) continue
    if (!admitted && !isViolated(policy, draft, i)) continue
    const standing = draft.standings[i] as Standing
    const waitMs = admitted ? standing.nextMs : waitOf(policy, draft, i)
    // What never fits has no wait; then it is told when there is one unit more.
    const seconds = wholeSeconds(waitMs === Infinity ? standing.nextMs : waitMs)
    const item = formatStanding(policy.quotedName, left(standing, policy), seconds)
    text = text === '' ? item : `${text}, ${item}`
  }
  return text
}
