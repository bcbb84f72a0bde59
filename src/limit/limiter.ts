// The stages that limit: whom a request counts for and how much, one question to the store, the answer to the client.
// Policies are charged all or nothing, over both checks: a refused request costs nothing anywhere.
//
//   check        policies that count every request, or what it turns out to be (a success, a failure)
//   checkMiss    policies that count what goes to the upstream, and then the slots; only for requests that do
//   at the end   what a request turned out to have cost, where that is not what was charged. Of tokens, when what it has
//                asked the upstream for has come to its end, be that for others: whoever leads a fetch pays for it
//
// Runs on every request: what a plan can know is built once, and where nothing is left to be done after the check, a
// request makes no object. Where the store decides here, so does the stage, without waiting.

import type { FetchOrigin, HeaderList, RequestContext, Reply, Stage } from '../core/context.ts'
import type { ExplainedLimit } from '../core/control.ts'
import { GatewayError } from '../core/errors.ts'
import { getHeader } from '../http/headers.ts'
import { problemReply } from '../http/problem.ts'
import type { DecisionSource, Standing } from './algorithm.ts'
import type { Decisions, Tally } from './decisions.ts'
import { type Draft, createDraft, fillIn, turnTo } from './draft.ts'
import { SINGLE_FIELDS, TOKEN_FIELDS, wholeSeconds } from './fields.ts'
import { Meter, type Spent, metered } from './meter.ts'
import { type NamedLimit, type Policy, compilePolicy } from './policy.ts'
import type { Quota, QuotaStore } from './quota.ts'
import type { Slot, SlotStore } from './slots.ts'
import { compileUsage } from './usage.ts'
import { compileVerdict, waitOf } from './verdict.ts'

export interface Limiter {
  /** Fields of answers that the gateway writes itself, in lower case; none where all policies only watch. */
  readonly ownFields: ReadonlySet<string>
  /** Charges every policy that counts all requests, or refuses; sets ctx.quota and adds to ctx.fields. */
  readonly check: Stage
  /** The same for what goes to the upstream; null where no policy counts that. */
  readonly checkMiss: Stage | null
  /** True where checkMiss goes by the body of a request that has one: it had better be held then. */
  readonly readsBody: boolean
  /** Reads from an answer what it has cost; null where no policy wants to know. */
  readonly onAnswer: ((ctx: RequestContext, headers: HeaderList) => void) | null
  /** Asked before checkMiss: whether so little is left that what is stored had better answer; null where no policy says
   *  when that is. */
  readonly isLow: ((ctx: RequestContext) => boolean) | null
  /** The same fetch, with what its answers use read for the policies that charge that; null where no policy does. */
  readonly metered: ((fetch: FetchOrigin) => FetchOrigin) | null
  /** What the checks would say now, policy by policy; charges nothing. Policies that do not apply are left out. */
  explain(ctx: RequestContext): ExplainedLimit[]
}

/** What the limits have counted; outlives a configuration. */
export interface LimitState {
  readonly quotas: QuotaStore
  readonly slots: SlotStore
  readonly decisions: Decisions
}

export interface LimiterSetup extends LimitState {
  /** Wall clock, epoch milliseconds. */
  readonly clock: () => number
  /** From 0 to below 1; spreads Retry-After. */
  readonly random?: () => number
}

/** Compiles the policies of a route, or of several that have the same; their order is that of the fields, those for misses last. A name that comes twice
 *  counts once. */
export function compileLimiter(limits: readonly NamedLimit[], setup: LimiterSetup): Limiter {
  const { quotas: store, slots, decisions, clock, random = Math.random } = setup
  const named = [...new Map(limits.map((limit) => [limit.name, limit])).values()].map((limit) =>
    compilePolicy(limit, decisions.of(limit.name).learned),
  )
  const ofTurn = (turn: Policy['turn']) => named.filter((policy) => policy.turn === turn)
  const [checks, misses, slotted] = [ofTurn('check'), ofTurn('miss'), ofTurn('slot')]
  const policies = [...checks, ...misses, ...slotted]
  const missesAt = checks.length
  const slotsAt = missesAt + misses.length
  const barring = policies.filter(({ bars }) => bars !== null)
  const isDoneAfterCheck = missesAt === policies.length && checks.every(({ finalCostOf }) => finalCostOf === null)
  const verdict = compileVerdict(policies, random)
  const tallies = policies.map(({ name }) => decisions.of(name))
  const now = () => Math.floor(clock())
  const readsBody = policies.some((policy) => policy.readsBody)
  const usage = compileUsage(policies.flatMap(({ usage }) => usage ?? []))

  // One suffices while nothing is left to be done for a request after its check; others have their own.
  let spare: Draft | null = null
  const drafts = new WeakMap<RequestContext, Draft>()

  function check(ctx: RequestContext): ReturnType<Stage> {
    for (const { bars, isEnforced, name } of barring) {
      if (bars?.(ctx) !== true) continue
      if (isEnforced) return refuseEntry(ctx)
      ctx.shadowedBy = name
    }
    const draft = spare ?? createDraft(policies)
    spare = null
    const applies = fillIn(draft, policies, ctx)
    if (!applies) {
      spare = draft
      return null
    }
    const charged = !turnTo(draft, 0, missesAt, now()) || store.charge(draft, draft.atMs[0] as number)
    return typeof charged === 'boolean'
      ? checked(ctx, draft, charged)
      : charged.then((admitted) => checked(ctx, draft, admitted))
  }

  function checked(ctx: RequestContext, draft: Draft, admitted: boolean): Reply | null {
    noteDecisions(ctx, draft, admitted)
    if (!admitted || isDoneAfterCheck) {
      const reply = admitted ? verdict.admit(ctx, draft) : verdict.refuse(ctx, draft)
      spare = draft
      return reply
    }
    noteTaken(draft)
    peekMisses(draft)
    verdict.admit(ctx, draft)
    drafts.set(ctx, draft)
    ctx.whenEnded(settle)
    return null
  }

  /** What is left of budgets that this request may not have to draw on. */
  function peekMisses(draft: Draft): void {
    if (!turnTo(draft, missesAt, policies.length, now())) return
    draft.to = slotsAt
    store.peek(draft, draft.atMs[missesAt] as number)
    for (let i = slotsAt; i < policies.length; i++) {
      const subject = draft.subjects[i] as string | null
      if (subject === null) continue
      const used = slots.used(draft.quotas[i] as Quota, subject)
      tellSlots(draft, i, used, used < (policies[i] as Policy).limit)
    }
  }

  function checkMiss(ctx: RequestContext): ReturnType<Stage> {
    const draft = drafts.get(ctx)
    if (draft === undefined) return null
    if (readsBody) estimate(ctx, draft)
    const charged = !turnTo(draft, missesAt, slotsAt, now()) || store.charge(draft, draft.atMs[missesAt] as number)
    return typeof charged === 'boolean'
      ? missed(ctx, draft, charged)
      : charged.then((admitted) => missed(ctx, draft, admitted))
  }

  /** Before the check, no body had been read. */
  function estimate(ctx: RequestContext, draft: Draft): void {
    for (let i = missesAt; i < slotsAt; i++) {
      const { readsBody, costOf } = policies[i] as Policy
      if (readsBody && draft.subjects[i] !== null) draft.costs[i] = costOf(ctx)
    }
  }

  function missed(ctx: RequestContext, draft: Draft, admitted: boolean): ReturnType<Stage> {
    noteDecisions(ctx, draft, admitted)
    if (!admitted) return refuseMiss(ctx, draft)
    noteTaken(draft)
    if (usage.count > 0) draft.meter ??= new Meter(usage)
    // A client that has gone in the meantime has been settled for without this.
    ctx.whenEnded(settle)
    return takeSlots(ctx, draft, slotsAt)
  }

  function isLow(ctx: RequestContext): boolean {
    const draft = drafts.get(ctx)
    if (draft === undefined) return false
    return policies.some(({ lowAt }, i) => {
      const applies = lowAt !== null && i >= missesAt && draft.subjects[i] !== null
      return applies && (draft.standings[i] as Standing).remaining <= lowAt
    })
  }

  /** Takes the slots from `at` on. */
  function takeSlots(ctx: RequestContext, draft: Draft, at: number): ReturnType<Stage> {
    for (let i = at; i < policies.length; i++) {
      const subject = draft.subjects[i] as string | null
      if (subject === null) continue
      const taken = slots.acquire(draft.quotas[i] as Quota, subject)
      if (taken instanceof Promise) {
        return taken.then((answer) =>
          holdSlot(ctx, draft, i, answer) ? takeSlots(ctx, draft, i + 1) : refuseMiss(ctx, draft),
        )
      }
      if (!holdSlot(ctx, draft, i, taken)) return refuseMiss(ctx, draft)
    }
    draft.to = policies.length
    verdict.admit(ctx, draft)
    return null
  }

  /** True where the request may go on, with the slot or because the policy only watches. */
  function holdSlot(ctx: RequestContext, draft: Draft, i: number, answer: Slot | DecisionSource): boolean {
    const { limit, isEnforced } = policies[i] as Policy
    draft.to = i + 1
    const isRefused = typeof answer === 'string'
    tellSlots(draft, i, isRefused ? limit : limit - answer.remaining, !isRefused)
    ;(draft.standings[i] as Standing).source = isRefused ? answer : answer.source
    noteDecision(ctx, draft, i, !isRefused)
    if (isRefused) return !isEnforced
    draft.slots.push(answer)
    if (isEnforced && answer.remaining === 0) ctx.hasLastSlot = true
    ctx.whenThrough(releaseSlots)
    return true
  }

  /** How long a slot is held nobody knows beforehand: a second is as good a time to come back as any. */
  function tellSlots(draft: Draft, i: number, used: number, admitted: boolean): void {
    const standing = draft.standings[i] as Standing
    standing.admitted = admitted
    standing.remaining = Math.max(0, (policies[i] as Policy).limit - used)
    standing.waitMs = standing.nextMs = standing.fullMs = used === 0 ? 0 : 1000
  }

  function releaseSlots(ctx: RequestContext): void {
    for (const slot of drafts.get(ctx)?.slots.splice(0) ?? []) slot.release()
  }

  /** Refuses what has been admitted before, and gives back what that took. */
  function refuseMiss(ctx: RequestContext, draft: Draft): Reply {
    releaseSlots(ctx)
    const nowMs = now()
    for (let i = 0; i < slotsAt; i++) correct(draft, i, 0, nowMs)
    return verdict.refuse(ctx, draft)
  }

  /** Corrects what was charged, once it is known what the request was. */
  function settle(ctx: RequestContext): void {
    const draft = drafts.get(ctx)
    if (draft === undefined) return
    const { meter } = draft
    if (meter === null || meter.isIdle) return settleAll(ctx, draft)
    const nowMs = now()
    for (let i = 0; i < slotsAt; i++) if ((policies[i] as Policy).usage === null) settleOne(ctx, draft, i, null, nowMs)
    meter.whenIdle(() => settleAll(ctx, draft))
  }

  function settleAll(ctx: RequestContext, draft: Draft): void {
    const nowMs = now()
    const { meter } = draft
    for (let i = 0; i < slotsAt; i++) {
      const rule = (policies[i] as Policy).usage
      settleOne(ctx, draft, i, rule === null || meter === null ? null : meter.spent(usage.numberOf(rule)), nowMs)
    }
    if (usage.count > 0 && !draft.isCounted) countTokens(ctx, draft)
  }

  function settleOne(ctx: RequestContext, draft: Draft, i: number, spent: Spent | null, nowMs: number): void {
    const { finalCostOf, countsUse, isLearning } = policies[i] as Policy
    const taken = draft.taken[i] as number
    if (finalCostOf === null || taken === 0) return
    const cost = finalCostOf(ctx, taken, draft.told[i] as number | null, spent)
    if (countsUse) (tallies[i] as Tally).settle(taken, cost)
    if (isLearning && cost > 0) (tallies[i] as Tally).learned.note(ctx, cost)
    correct(draft, i, cost, nowMs)
  }

  function countTokens({ route, sparedMs }: RequestContext, draft: Draft): void {
    draft.isCounted = true
    const spent = draft.meter?.spent(0) ?? null
    if (spent !== null) decisions.tokens.use(route ?? '', spent)
    else if (sparedMs !== null) decisions.tokens.spare(route ?? '')
  }

  /** Makes `cost` of what was charged, once: nothing is left to be corrected afterwards. */
  function correct(draft: Draft, i: number, cost: number, nowMs: number): void {
    const delta = cost - (draft.taken[i] as number)
    if ((draft.taken[i] as number) > 0 && delta !== 0) {
      const { source } = draft.standings[i] as Standing
      store.settle(draft.quotas[i] as Quota, draft.subjects[i] as string, delta, draft.atMs[i] as number, nowMs, source)
    }
    draft.taken[i] = 0
  }

  /** Those that the store was just asked about, and has charged. */
  function noteTaken(draft: Draft): void {
    for (let i = draft.from; i < draft.to; i++) {
      const isTaken = draft.subjects[i] !== null && (draft.standings[i] as Standing).admitted
      draft.taken[i] = isTaken ? (draft.costs[i] as number) : 0
    }
  }

  /** admitted: the request, by all that the store was just asked about. */
  function noteDecisions(ctx: RequestContext, draft: Draft, admitted: boolean): void {
    for (let i = draft.from; i < draft.to; i++) if (draft.subjects[i] !== null) noteDecision(ctx, draft, i, admitted)
  }

  function noteDecision(ctx: RequestContext, draft: Draft, i: number, admitted: boolean): void {
    const standing = draft.standings[i] as Standing
    // It had room, and was not charged.
    if (standing.admitted && !admitted) return
    const { isEnforced, name } = policies[i] as Policy
    if (!standing.admitted && !isEnforced) ctx.shadowedBy = name
    const result = standing.admitted ? 'admitted' : isEnforced ? 'refused' : 'shadowed'
    const tally = tallies[i] as Tally
    tally.add(result, standing.source, draft.subjects[i] as string, draft.costs[i] as number, draft.atMs[i] as number)
  }

  function onAnswer(ctx: RequestContext, headers: HeaderList): void {
    const draft = drafts.get(ctx)
    // What another request has cost is told in its answer, not in ours.
    if (draft === undefined || !ctx.wasForwarded) return
    for (let i = 0; i < slotsAt; i++) {
      const { costField } = policies[i] as Policy
      const value = costField === null ? null : getHeader(headers, costField)
      if (value !== null && UNITS.test(value)) draft.told[i] = Number(value)
    }
  }

  function explain(ctx: RequestContext): ExplainedLimit[] {
    const draft = createDraft(policies)
    fillIn(draft, policies, ctx)
    if (turnTo(draft, 0, missesAt, now())) store.peek(draft, draft.atMs[0] as number)
    peekMisses(draft)
    return policies.flatMap((policy, i): ExplainedLimit[] => {
      const { admitted, remaining } = draft.standings[i] as Standing
      const key = policy.keyTextOf(ctx)
      if (key === null || draft.subjects[i] === null) return []
      const waitMs = waitOf(policy, draft, i)
      return [
        {
          policy: policy.name,
          mode: policy.isEnforced ? 'enforce' : 'shadow',
          counts: policy.turn === 'check' ? 'requests' : 'misses',
          admitted,
          unit: policy.facts.unit,
          limit: policy.limit,
          remaining: Math.min(remaining, policy.limit),
          window_s: policy.turn === 'slot' ? null : policy.quota.rate.windowMs / 1000,
          key,
          retry_after_s: admitted || waitMs === Infinity ? null : Math.max(1, wholeSeconds(waitMs)),
        },
      ]
    })
  }

  return {
    ownFields: ownFields(policies.filter(({ isEnforced }) => isEnforced)),
    check,
    checkMiss: missesAt === policies.length ? null : checkMiss,
    readsBody,
    onAnswer: policies.some(({ costField }) => costField !== null) ? onAnswer : null,
    isLow: policies.some(({ lowAt }) => lowAt !== null) ? isLow : null,
    metered: usage.count === 0 ? null : (fetch) => metered(fetch, (ctx) => drafts.get(ctx)?.meter ?? null),
    explain,
  }
}

const ownFields = (enforced: readonly Policy[]): ReadonlySet<string> =>
  new Set([
    ...(enforced.length > 0 ? SINGLE_FIELDS : []),
    ...(enforced.some(({ isTokens }) => isTokens) ? TOKEN_FIELDS : []),
  ])

/** Units as a response field gives them: a whole number that no arithmetic overflows by. */
const UNITS = /^\d{1,9}$/

/** 403 for who is on a policy's list, or does not say what its key asks for. */
function refuseEntry(ctx: RequestContext): Reply {
  ctx.error = FORBIDDEN
  return problemReply(FORBIDDEN, ctx.id)
}

const FORBIDDEN = new GatewayError('forbidden', 'This client is not let in.')
