// The limits of the running plan for operators: their rules, what they have decided, and one subject of a policy read,
// reset or refunded. A policy is the one of the configuration; where a route only watches (`mode: shadow`), what it has
// counted is kept apart, and goes with a reset.

import type { LimitCounts, LimitRow, LimitStanding, LimitSubject, LimitTop } from '../core/control.ts'
import { formatDuration } from '../core/decode.ts'
import { GatewayError } from '../core/errors.ts'
import { WHENEVER, blankStanding } from '../limit/algorithm.ts'
import { MONTH_MS } from '../limit/calendar.ts'
import type { Decisions, Tally } from '../limit/decisions.ts'
import { wholeSeconds } from '../limit/fields.ts'
import { formatSubject, subjectOf } from '../limit/key.ts'
import type { LimitState } from '../limit/limiter.ts'
import { type LimitOptions, formatKeyPart } from '../limit/options.ts'
import { type Quota, compileQuota } from '../limit/quota.ts'
import type { GatewayPlan } from './compile.ts'

const MAX_TOP = 100

export interface LimitDesk {
  rows(plan: GatewayPlan): LimitRow[]
  standing(plan: GatewayPlan, policy: string, subject: LimitSubject): Promise<LimitStanding>
  reset(plan: GatewayPlan, policy: string, subject: LimitSubject): Promise<LimitStanding>
  refund(plan: GatewayPlan, policy: string, subject: LimitSubject, units: number): Promise<LimitStanding>
  top(plan: GatewayPlan, policy: string): LimitTop
}

/** now: wall clock, milliseconds. */
export function createLimitDesk({ quotas, slots, decisions }: LimitState, now: () => number): LimitDesk {
  async function standing(plan: GatewayPlan, policy: string, values: LimitSubject): Promise<LimitStanding> {
    const { options, quota, subject } = find(plan, policy, values)
    const { admitted, remaining, waitMs, fullMs } = (await read(options, quota, subject)).found
    return {
      policy,
      mode: options.mode,
      key: formatSubject(options.key, subject),
      admitted,
      limit: quota.rate.limit,
      remaining: Math.min(remaining, quota.rate.limit),
      retry_after_s: admitted ? null : Math.max(1, wholeSeconds(waitMs)),
      full_after_s: wholeSeconds(fullMs),
    }
  }

  /** How a subject stands, and when that was: by the clock of Redis, where that counts. */
  async function read({ kind, limit }: LimitOptions, quota: Quota, subject: string) {
    const found = blankStanding()
    const atMs = [now()] as [number]
    if (kind === 'concurrency') {
      found.remaining = Math.max(0, limit - slots.used(quota, subject))
      found.admitted = found.remaining > 0
      found.waitMs = found.fullMs = found.remaining < limit ? 1000 : 0
    } else {
      const demand = { quotas: [quota], subjects: [subject], costs: [1], standings: [found], atMs, from: 0, to: 1 }
      await quotas.inspect(demand, atMs[0])
    }
    return { found, atMs: atMs[0] }
  }

  return {
    rows: ({ config, routes }) =>
      Object.entries(config.limits).map(([policy, options]) => ({
        policy,
        mode: options.mode,
        rule: describeRule(options),
        key: options.key.map(formatKeyPart),
        routes: routes.flatMap(({ row }) => (row.limits.includes(policy) ? [row.route] : [])),
        decisions: countsOf(decisions.of(policy), policy),
      })),
    standing,
    async reset(plan, policy, values) {
      const { options, subject } = find(plan, policy, values)
      refuseSlots(options)
      const modes = ['enforce', 'shadow'] as const
      await Promise.all(modes.map((mode) => quotas.reset(compileQuota(policy, { ...options, mode }), subject, now())))
      return standing(plan, policy, values)
    },
    async refund(plan, policy, values, units) {
      const { options, quota, subject } = find(plan, policy, values)
      refuseSlots(options)
      quotas.settle(quota, subject, -units, WHENEVER, now())
      return standing(plan, policy, values)
    },
    top(plan, policy) {
      const { key } = optionsOf(plan, policy)
      const subjects = decisions.of(policy).top.list(MAX_TOP, now())
      return {
        policy,
        subjects: subjects.map(({ subject, units, excess, refused }) => ({
          key: formatSubject(key, subject),
          units,
          excess,
          refused,
        })),
      }
    },
  }
}

/** What the limits have decided since the start, by policy. */
export function countDecisions({ config }: GatewayPlan, decisions: Decisions): Record<string, LimitCounts> {
  return Object.fromEntries(
    Object.keys(config.limits).map((policy) => [policy, countsOf(decisions.of(policy), policy)]),
  )
}

function countsOf(tally: Tally, policy: string): LimitCounts {
  const totals = { admitted: 0, refused: 0, shadowed: 0 }
  const bySource: Record<string, number> = {}
  for (const { result, source, count } of tally.counts(policy)) {
    totals[result] += count
    bySource[source] = (bySource[source] ?? 0) + count
  }
  return { ...totals, by_source: bySource }
}

function optionsOf({ config }: GatewayPlan, policy: string): LimitOptions {
  const options = Object.hasOwn(config.limits, policy) ? config.limits[policy] : undefined
  if (options === undefined)
    throw new GatewayError('no_route', `There is no limit ${policy}; GET /api/limits lists them.`)
  return options
}

function find(plan: GatewayPlan, policy: string, values: LimitSubject) {
  const options = optionsOf(plan, policy)
  const known = new Set([...options.key.map(formatKeyPart), ...(options.onMissing === 'ip' ? ['ip'] : [])])
  const unknown = Object.keys(values).filter((name) => !known.has(name))
  if (unknown.length > 0) {
    throw new GatewayError('bad_message', `${unknown.join(', ')}: a subject of ${policy} has ${[...known].join(', ')}.`)
  }
  const found = subjectOf(options.key, options.onMissing, values)
  if ('missing' in found) {
    throw new GatewayError('bad_message', `A subject of ${policy} needs ${found.missing.join(', ')} as well.`)
  }
  return { options, quota: compileQuota(policy, options), subject: found.subject }
}

function refuseSlots({ kind }: LimitOptions): void {
  if (kind !== 'concurrency') return
  throw new GatewayError('bad_message', 'Slots are given back by the requests that hold them, and by nobody else.')
}

function describeRule(options: LimitOptions): string {
  const { limit, window: windowMs = 0, burst, align, kind, unit, count, cost, costField, staleFrom } = options
  const units = unit === 'tokens' ? ' tokens' : unit === 'cost' ? ' of cost' : ''
  if (kind === 'concurrency') return `${limit} at the same time`
  const words = [`${limit}${units} per ${windowMs === MONTH_MS ? 'month' : formatDuration(windowMs)}`]
  if (burst !== undefined) words.push(`${burst} at once`)
  if (align !== undefined) words.push(`by the calendar of ${align}`)
  if (count !== 'all') words.push(`counts ${COUNTED[count]}`)
  if (cost.byMethod !== null)
    words.push([...cost.byMethod].map(([method, each]) => `${method} costs ${each}`).join(', '))
  else if (cost.every !== 1) words.push(`each costs ${cost.every}`)
  if (costField !== undefined) words.push(`as ${costField} says`)
  if (unit !== 'requests') words.push(...describeTokens(options))
  if (staleFrom !== undefined) words.push(`what is stored first from ${Math.round(staleFrom * 100)} % on`)
  return words.join(', ')
}

function describeTokens({ reserve, weights, price, unit }: LimitOptions): string[] {
  const perKind = Object.entries((unit === 'cost' ? price : weights) ?? {})
  const each = perKind.map(([kind, value]) => `${kind} ${value}`).join(', ')
  const reserved =
    typeof reserve === 'object' ? 'what the body asks for' : reserve === 'learned' ? 'as learned' : reserve
  return [
    `reserves ${reserved}`,
    ...(each === '' ? [] : [unit === 'cost' ? `a million tokens at ${each}` : `weights ${each}`]),
  ]
}

const COUNTED = { miss: 'what the upstream is asked', success: 'successes', failure: 'failures' } as const
