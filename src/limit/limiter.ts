// The stage that limits: subjects of all policies, one question to the store, the fields of the answer. This file alone
// knows which policy binds: admitted, the one with the least of its limit left; refused, the violated one with the
// longest wait. Policies are charged all or nothing, so a refused request costs nothing anywhere.
//
// Runs on every request: what a plan can know is built once, and per request there are only the subjects, the field
// values and the verdict. Where the store decides here, so does the stage, without waiting.

import type { RequestContext, Reply, Stage } from '../core/context.ts'
import type { ExplainedLimit } from '../core/control.ts'
import { GatewayError } from '../core/errors.ts'
import { problemReply } from '../http/problem.ts'
import { blankStanding, type Standing } from './algorithm.ts'
import { formatPolicy, formatStanding, quotedString, retryAfterSeconds, wholeSeconds } from './fields.ts'
import { compileKey, compileKeyText } from './key.ts'
import type { LimitOptions } from './options.ts'
import { compileQuota, type Quota, type QuotaStore } from './quota.ts'

export interface LimitPolicy {
  readonly name: string
  readonly options: LimitOptions
}

export interface Limiter {
  /** Charges every policy or refuses; sets ctx.quota and adds to ctx.fields. */
  readonly check: Stage
  /** What check would say now, policy by policy; charges nothing. Policies that do not apply are left out. */
  explain(ctx: RequestContext): ExplainedLimit[]
}

/** Requests cost one unit each. */
const COST = 1

/** Compiles the policies of one route, in the order of the fields; a name that comes twice counts once.
 *  clock: wall clock in epoch milliseconds. random: from 0 to below 1, spreads Retry-After. */
export function compileLimiter(
  policies: readonly LimitPolicy[],
  store: QuotaStore,
  clock: () => number,
  random: () => number = Math.random,
): Limiter {
  const compiled = [...new Map(policies.map((policy) => [policy.name, compilePolicy(policy)])).values()]
  const quotas = compiled.map((policy) => policy.quota)
  const policyText = formatPolicies(compiled, null)
  // One suffices while the store answers at once; requests that overlap make their own.
  let spare: Draft | null = null

  function check(ctx: RequestContext): ReturnType<Stage> {
    const draft = spare ?? createDraft(compiled.length)
    spare = null
    const nowMs = Math.floor(clock())
    let applying = 0
    for (let i = 0; i < compiled.length; i++) {
      const subject = (compiled[i] as CompiledPolicy).subjectOf(ctx)
      draft.subjects[i] = subject
      if (subject !== null) applying++
    }
    if (applying === 0) {
      spare = draft
      return null
    }
    const charged = store.charge(quotas, draft.subjects, COST, nowMs, draft.standings)
    if (typeof charged === 'boolean') return conclude(ctx, draft, applying, charged, nowMs)
    return charged.then((admitted) => conclude(ctx, draft, applying, admitted, nowMs))
  }

  function conclude(
    ctx: RequestContext,
    draft: Draft,
    applying: number,
    admitted: boolean,
    nowMs: number,
  ): Reply | null {
    const bindingAt = admitted ? tightest(compiled, draft) : longestWait(draft)
    const binding = compiled[bindingAt] as CompiledPolicy
    const standing = draft.standings[bindingAt] as Standing
    const remaining = left(standing, binding)
    ctx.quota = { admitted, policy: binding.name, limit: binding.limit, remaining }

    const resetSeconds = wholeSeconds(nowMs + standing.fullMs)
    ctx.fields.push('X-RateLimit-Limit', binding.limitText, 'X-RateLimit-Remaining', String(remaining))
    ctx.fields.push('X-RateLimit-Reset', String(resetSeconds))
    const described = applying === compiled.length ? policyText : formatPolicies(compiled, draft)
    if (described !== '') ctx.fields.push('RateLimit-Policy', described)
    const standings = formatStandings(compiled, draft, admitted)
    if (standings !== '') ctx.fields.push('RateLimit', standings)

    const refusal = admitted ? null : refuse(ctx, draft, binding, standing.waitMs)
    spare = draft
    return refusal
  }

  function refuse(ctx: RequestContext, draft: Draft, binding: CompiledPolicy, waitMs: number): Reply {
    const retryAfter = retryAfterSeconds(waitMs, binding.quota.rate.windowMs, random())
    const violated: string[] = []
    for (let i = 0; i < compiled.length; i++) {
      if (isViolated(draft, i)) violated.push((compiled[i] as CompiledPolicy).name)
    }
    const extra = { 'violated-policies': violated, retryAfter }
    return problemReply(binding.refusal, ctx.id, extra, ['Retry-After', String(retryAfter)])
  }

  function explain(ctx: RequestContext): ExplainedLimit[] {
    const { subjects, standings } = createDraft(compiled.length)
    for (const [i, policy] of compiled.entries()) subjects[i] = policy.subjectOf(ctx)
    store.peek(quotas, subjects, COST, Math.floor(clock()), standings)
    return compiled.flatMap((policy, i): ExplainedLimit[] => {
      const standing = standings[i] as Standing
      const key = policy.keyTextOf(ctx)
      if (key === null) return []
      return [
        {
          policy: policy.name,
          admitted: standing.admitted,
          limit: policy.limit,
          remaining: left(standing, policy),
          window_s: policy.quota.rate.windowMs / 1000,
          key,
          retry_after_s: standing.admitted ? null : Math.max(1, wholeSeconds(standing.waitMs)),
        },
      ]
    })
  }

  return { check, explain }
}

interface CompiledPolicy {
  readonly name: string
  readonly limit: number
  readonly limitText: string
  readonly quota: Quota
  readonly subjectOf: (ctx: RequestContext) => string | null
  readonly keyTextOf: (ctx: RequestContext) => string | null
  readonly quotedName: string
  /** null: the window is too short for the two fields of the draft. */
  readonly policyItem: string | null
  /** Made once: an Error takes its stack, and refusals come in floods. */
  readonly refusal: GatewayError
}

function compilePolicy({ name, options }: LimitPolicy): CompiledPolicy {
  const quota = compileQuota(name, options)
  const { limit, key, onMissing, burst } = options
  return {
    name,
    limit,
    limitText: String(limit),
    quota,
    subjectOf: compileKey(key, onMissing),
    keyTextOf: compileKeyText(key, onMissing),
    quotedName: quotedString(name),
    policyItem: formatPolicy(name, quota.rate, burst ?? null),
    refusal: new GatewayError('quota_exceeded', describe(name, options)),
  }
}

function describe(name: string, { limit, window: windowMs, burst }: LimitOptions): string {
  const atOnce = burst === undefined ? '' : `, ${burst} at once`
  return `Policy ${name}: ${limit} ${limit === 1 ? 'request' : 'requests'} per ${windowMs / 1000} s${atOnce}.`
}

/** The numbers of one request, by policy; used again when it is done. */
interface Draft {
  readonly subjects: (string | null)[]
  readonly standings: readonly Standing[]
}

const createDraft = (policies: number): Draft => ({
  subjects: Array.from({ length: policies }, () => null),
  standings: Array.from({ length: policies }, blankStanding),
})

const isViolated = (draft: Draft, i: number): boolean =>
  draft.subjects[i] !== null && !(draft.standings[i] as Standing).admitted

/** A burst may be larger than the limit; what a client is told never is. */
const left = (standing: Standing, policy: CompiledPolicy): number => Math.min(standing.remaining, policy.limit)

function tightest(compiled: readonly CompiledPolicy[], draft: Draft): number {
  let found = 0
  let least = Infinity
  for (let i = 0; i < compiled.length; i++) {
    if (draft.subjects[i] === null) continue
    const policy = compiled[i] as CompiledPolicy
    const share = left(draft.standings[i] as Standing, policy) / policy.limit
    if (share >= least) continue
    least = share
    found = i
  }
  return found
}

function longestWait(draft: Draft): number {
  let found = 0
  let longestMs = -1
  for (let i = 0; i < draft.standings.length; i++) {
    const { waitMs } = draft.standings[i] as Standing
    if (!isViolated(draft, i) || waitMs <= longestMs) continue
    longestMs = waitMs
    found = i
  }
  return found
}

/** The RateLimit-Policy field: every policy, or those that apply to one request. */
function formatPolicies(compiled: readonly CompiledPolicy[], draft: Draft | null): string {
  const items: string[] = []
  for (const [i, { policyItem }] of compiled.entries()) {
    if (policyItem !== null && draft?.subjects[i] !== null) items.push(policyItem)
  }
  return items.join(', ')
}

/** The RateLimit field: every policy that applies, or on refusal the violated ones only, so that no `t` in it comes
 *  after Retry-After. */
function formatStandings(compiled: readonly CompiledPolicy[], draft: Draft, admitted: boolean): string {
  let text = ''
  for (let i = 0; i < compiled.length; i++) {
    const policy = compiled[i] as CompiledPolicy
    if (draft.subjects[i] === null || policy.policyItem === null) continue
    const standing = draft.standings[i] as Standing
    if (!admitted && standing.admitted) continue
    const seconds = wholeSeconds(admitted ? standing.nextMs : standing.waitMs)
    const item = formatStanding(policy.quotedName, left(standing, policy), seconds)
    text = text === '' ? item : `${text}, ${item}`
  }
  return text
}
