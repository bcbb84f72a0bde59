// One policy of the route table, compiled: whom it applies to, what a request costs, what it says of itself in the
// fields, and what a request turns out to have cost once its answer is known.

import type { RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { compileTrust } from '../http/forwarded.ts'
import { MONTH_MS } from './calendar.ts'
import { CONCURRENT, formatPolicy } from './fields.ts'
import { compileKey, compileKeyText } from './key.ts'
import type { LearnedReserve } from './learned-reserve.ts'
import type { Spent } from './meter.ts'
import type { LimitOptions, Member } from './options.ts'
import { type Quota, compileQuota } from './quota.ts'
import { type TokenCost, compileTokenCost } from './token-cost.ts'
import type { UsageRule } from './usage.ts'

export interface NamedLimit {
  readonly name: string
  readonly options: LimitOptions
}

/** When a policy has its turn: with every request, where the upstream is about to be asked, or after all others. */
export type Turn = 'check' | 'miss' | 'slot'

export interface Policy {
  readonly name: string
  readonly turn: Turn
  readonly limit: number
  readonly limitText: string
  /** False for one that only watches. */
  readonly isEnforced: boolean
  readonly quota: Quota
  /** Whose budget; null where the policy does not apply to the request. */
  readonly subjectOf: (ctx: RequestContext) => string | null
  readonly keyTextOf: (ctx: RequestContext) => string | null
  /** True for who is not let in at all; null where that is nobody. */
  readonly bars: ((ctx: RequestContext) => boolean) | null
  readonly costOf: (ctx: RequestContext) => number
  /** What a request that was charged `cost` has really cost, asked when it is over; null where that is the same. told:
   *  what its answer says in `costField`. spent: by `usage`; null where nothing was asked that could be read. */
  readonly finalCostOf: ((ctx: RequestContext, cost: number, told: number | null, spent: Spent | null) => number) | null
  /** The response field that tells the cost, in lower case. */
  readonly costField: string | null
  /** Where an answer says what it used; null where that is not charged. */
  readonly usage: UsageRule | null
  /** It charges what was used, and not a number of requests. */
  readonly countsUse: boolean
  /** What it costs beforehand goes by the body, as far as that is held. */
  readonly readsBody: boolean
  /** Its reservations go by what was used. */
  readonly isLearning: boolean
  /** With so many units left or fewer, what is stored answers before the upstream is asked; null: never. */
  readonly lowAt: number | null
  /** It counts tokens, as services of AI count them. */
  readonly isTokens: boolean
  /** For who is refused: what its key is made of, and what is counted. */
  readonly facts: { readonly scope: string; readonly unit: string }
  /** null: the window is too short for the two fields of the draft, or nobody is to know of the policy. */
  readonly policyItem: string | null
  /** Made once: an Error takes its stack, and refusals come in floods. */
  readonly refusal: GatewayError
}

/** learned: what its requests have used so far. */
export function compilePolicy({ name, options }: NamedLimit, learned: LearnedReserve): Policy {
  const quota = compileQuota(name, options)
  const { key, onMissing, burst, mode } = options
  const { limit } = quota.rate
  const tokens = compileTokenCost(options, quota.rate, learned)
  const isEnforced = mode === 'enforce'
  const keyOf = compileKey(key, onMissing)
  const isAllowed = compileMembership(options.allow, true)
  return {
    name,
    turn: turnOf(options),
    limit,
    limitText: String(limit),
    isEnforced,
    quota,
    subjectOf: compileSubject(options, keyOf, isAllowed),
    keyTextOf: compileKeyText(key, onMissing),
    bars: compileBar(options, keyOf, isAllowed),
    costOf: tokens?.reservedOf ?? compileCost(options),
    finalCostOf: compileFinalCost(options, tokens),
    costField: options.costField ?? null,
    usage: tokens?.usage ?? null,
    countsUse: tokens !== null,
    readsBody: tokens?.readsBody ?? false,
    isLearning: tokens?.isLearning ?? false,
    lowAt: options.staleFrom === undefined || !isEnforced ? null : limit * (1 - options.staleFrom),
    isTokens: options.unit === 'tokens',
    facts: { scope: quota.scope, unit: options.kind === 'concurrency' ? 'concurrent-requests' : UNITS[options.unit] },
    policyItem: isEnforced
      ? formatPolicy(name, quota.rate, { burst: burst === undefined ? null : quota.rate.burst, unit: unitOf(options) })
      : null,
    refusal: new GatewayError('quota_exceeded', describe(name, options)),
  }
}

function turnOf({ kind, count, unit }: LimitOptions): Turn {
  if (kind === 'concurrency') return 'slot'
  return count === 'miss' || unit !== 'requests' ? 'miss' : 'check'
}

/** How the draft names what is counted; null for requests, which it takes for granted. */
function unitOf({ kind, unit }: LimitOptions): string | null {
  if (kind === 'concurrency') return CONCURRENT
  return unit === 'requests' ? null : `gw-unit="${UNITS[unit]}"`
}

/** What is counted, as clients are told. */
const UNITS: Readonly<Record<LimitOptions['unit'], string>> = {
  requests: 'requests',
  tokens: 'tokens',
  cost: 'cost-millionths',
}

function describe(name: string, { limit, window: windowMs, burst, kind, unit }: LimitOptions): string {
  const things = unit === 'cost' ? 'of cost' : unit === 'tokens' ? 'tokens' : limit === 1 ? 'request' : 'requests'
  if (kind === 'concurrency') return `Policy ${name}: ${limit} ${things} at the same time.`
  const atOnce = burst === undefined ? '' : `, ${burst} at once`
  const span = windowMs === MONTH_MS ? 'month' : `${(windowMs ?? 0) / 1000} s`
  return `Policy ${name}: ${limit} ${things} per ${span}${atOnce}.`
}

function compileSubject(
  { enabledPercent }: LimitOptions,
  keyOf: (ctx: RequestContext) => string | null,
  isAllowed: ((ctx: RequestContext) => boolean) | null,
): Policy['subjectOf'] {
  // The common case needs no further call.
  if (isAllowed === null && enabledPercent === 100) return keyOf
  return (ctx) => {
    const subject = isAllowed?.(ctx) === true ? null : keyOf(ctx)
    return subject !== null && isInSample(subject, enabledPercent) ? subject : null
  }
}

/** Takes in the same subjects every time, in every instance, and more of them with a larger share. */
function isInSample(subject: string, percent: number): boolean {
  let state = 0x811c9dc5
  for (let i = 0; i < subject.length; i++) state = Math.imul(state ^ subject.charCodeAt(i), 0x01000193)
  return ((state ^ (state >>> 15)) >>> 0) % 100 < percent
}

/** needsProof: a user counts only where the name is proved. */
function compileMembership(members: readonly Member[], needsProof: boolean): ((ctx: RequestContext) => boolean) | null {
  if (members.length === 0) return null
  const isInside = compileTrust(members.flatMap((member) => (member.kind === 'network' ? [member.cidr] : [])))
  const users = new Set(members.flatMap((member) => (member.kind === 'user' ? [member.id] : [])))
  return ({ clientAddress, user }) =>
    isInside(clientAddress) || (user !== null && (user.isProved || !needsProof) && users.has(user.id))
}

function compileBar(
  { deny, onMissing }: LimitOptions,
  keyOf: (ctx: RequestContext) => string | null,
  isAllowed: ((ctx: RequestContext) => boolean) | null,
): Policy['bars'] {
  // Whoever claims a name that is kept out is kept out; a name that is let through has to be proved.
  const isDenied = compileMembership(deny, false)
  if (isDenied === null && onMissing !== 'deny') return null
  return (ctx) => {
    if (isDenied?.(ctx) === true) return true
    return onMissing === 'deny' && isAllowed?.(ctx) !== true && keyOf(ctx) === null
  }
}

function compileCost({ cost }: LimitOptions): (ctx: RequestContext) => number {
  const { every, byMethod } = cost
  return byMethod === null ? () => every : ({ method }) => byMethod.get(method) ?? every
}

function compileFinalCost({ count, costField }: LimitOptions, tokens: TokenCost | null): Policy['finalCostOf'] {
  if (tokens !== null) return compileUsed(count, tokens)
  const isCounted = COUNTS[count]
  if (isCounted === null && costField === undefined) return null
  return (ctx, cost, told) => (isCounted?.(ctx) === false ? 0 : (told ?? cost))
}

function compileUsed(count: LimitOptions['count'], { usedOf }: TokenCost): Policy['finalCostOf'] {
  const isCounted = count === 'success' ? hasNoError : count === 'failure' ? COUNTS.failure : null
  const isMiss = COUNTS.miss
  return (ctx, cost, told, spent) => {
    if (isCounted?.(ctx) === false) return 0
    // Where nothing can be read, as of a WebSocket, it is as with requests.
    return spent === null && isMiss?.(ctx) === false ? 0 : usedOf(cost, told, spent)
  }
}

/** Who hangs up has had it worked on all the same. */
const hasNoError = ({ status }: RequestContext): boolean => status < 400

const COUNTS: Readonly<Record<LimitOptions['count'], ((ctx: RequestContext) => boolean) | null>> = {
  all: null,
  // Where the gateway itself has failed, the upstream was kept from answering.
  miss: ({ wasForwarded, error }) => wasForwarded && error?.kind.source !== 'gateway',
  success: ({ status, aborted }) => status < 400 && !aborted,
  failure: ({ status }) => status >= 400 && status < 500 && !NO_FAILURE.has(status),
}

/** What says nothing of what was tried: too slow, over a limit, gone. */
const NO_FAILURE: ReadonlySet<number> = new Set([408, 429, 499])
