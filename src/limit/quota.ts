// A policy's budget as the stores see it: which algorithm counts, at what rate, and under what identity. This file alone
// knows which algorithms there are and which options choose one, and what a store promises.
//
// The identity says what a counter means, so it outlives a reload with another limit or burst, and ends where the
// numbers would mean something else: another algorithm, window or key.

import { hash } from 'node:crypto'
import { fixedWindow } from './algorithms/fixed-window.ts'
import { gcra, leasedGcra } from './algorithms/gcra.ts'
import { slidingWindow } from './algorithms/sliding-window.ts'
import type { Algorithm, DecisionSource, Rate, Standing } from './algorithm.ts'
import { compileCalendar } from './calendar.ts'
import { formatKeyPart, type LimitOptions } from './options.ts'
import { unitsIn } from './token-cost.ts'

/** Every algorithm; the contract suite runs over them and stores size their cells by them. */
export const ALGORITHMS: readonly Algorithm[] = [slidingWindow, gcra, fixedWindow]
/** How blocks are charged to the counters of an algorithm, where that is not as requests are. */
export const BLOCK_ALGORITHMS: readonly Algorithm[] = [leasedGcra]

export interface Quota {
  readonly id: string
  /** Stands for the identity where there is room for 32 bits only, never 0; no two policies of a configuration have the
   *  same. */
  readonly number: number
  /** What the key is made of. Subjects of quotas with the same scope are the same. */
  readonly scope: string
  readonly algorithm: Algorithm
  readonly rate: Rate
  /** False for one that only watches: it is charged, and refuses nothing. */
  readonly isEnforced: boolean
  /** For a counter that strangers share: GCRA that never admits what the algorithm would not. */
  readonly sharedRate: Rate
  /** What holds while counters that instances share cannot be reached. */
  readonly fallback: LimitOptions['fallback']
  /** Whether units may be taken in blocks from counters that instances share. */
  readonly lease: LimitOptions['lease']
}

/** What one request asks of the quotas that apply to it. The lists belong together by index; no quota comes twice. */
export interface Demand {
  readonly quotas: readonly Quota[]
  /** Texts of bounded length (key.ts); null where a quota does not apply to the request. */
  readonly subjects: readonly (string | null)[]
  /** Whole units, from 1. One beyond the capacity never fits. */
  readonly costs: readonly number[]
  /** What holds afterwards, filled in by the store where there is a subject. */
  readonly standings: readonly Standing[]
  /** When each is charged: `nowMs` beforehand, afterwards by the clock of whoever has counted. */
  readonly atMs: number[]
  /** Of the lists, what is asked about: from `from` to before `to`. */
  readonly from: number
  readonly to: number
}

/** Counts. nowMs: wall clock, whole milliseconds. */
export interface QuotaStore {
  /** Charges every subject its cost, or none when one of the quotas refuses. A quota that is not enforced is charged
   *  where it has room, and refuses nothing. True when charged. A store that must ask elsewhere answers later and has
   *  the demand to itself until then; one that decides here answers at once. Never rejects. */
  charge(demand: Demand, nowMs: number): boolean | Promise<boolean>
  /** What charge() would say, from what this instance knows; charges nothing. */
  peek(demand: Demand, nowMs: number): void
  /** The same, asked wherever the store counts; for people. */
  inspect(demand: Demand, nowMs: number): Promise<void>
  /** Corrects an earlier charge by delta units, see Algorithm.settle(). source: who has charged it, where that is known. Waits
   *  for nothing; may be lost with the store that it is sent to. */
  settle(
    quota: Quota,
    subject: string,
    delta: number,
    chargedAtMs: number,
    nowMs: number,
    source?: DecisionSource,
  ): void
  /** Forgets what one subject has used. Resolves when that holds wherever the store counts. */
  reset(quota: Quota, subject: string, nowMs: number): Promise<void>
  /** Lets go of everything the store holds; no call may follow. */
  close(): void | Promise<void>
}

/** Counters that instances share. */
export interface SharedQuotaStore extends QuotaStore {
  /** Charges units that nobody has asked for yet, and fills in the standing. Answers when that was, by the clock of whoever
   *  has counted; null where they were refused, or where that is not known in time: then they go back. Never rejects. */
  take(quota: Quota, subject: string, units: number, standing: Standing): Promise<number | null>
}

/** name: unique among the policies of a configuration. */
export function compileQuota(name: string, options: LimitOptions): Quota {
  const { window: windowMs = 1000, align, mode, unit } = options
  const limit = unitsIn(options, options.limit)
  const burst = options.burst === undefined ? undefined : unitsIn(options, options.burst)
  const algorithm = align !== undefined ? fixedWindow : burst === undefined ? slidingWindow : gcra
  const calendar = align === undefined ? null : compileCalendar(windowMs, align)
  const rate = { limit, windowMs, burst: burst ?? limit, calendar }
  const isEnforced = mode === 'enforce'
  const scope = options.key.map(formatKeyPart).join(' ')
  // What is only watched is counted apart, or its use would hit clients on the day that it is enforced.
  const money = unit === 'cost' ? [unit] : []
  const id = [name, algorithm.name, windowMs, align ?? '', mode, scope, ...money].join(' ')
  return {
    id,
    number: hash('sha256', id, 'buffer').readUInt32LE(0) || 1,
    scope,
    algorithm,
    rate,
    sharedRate: algorithm === gcra ? rate : strictRate(rate),
    isEnforced,
    fallback: options.fallback,
    lease: isKnownBeforehand(options) ? options.lease : 'off',
  }
}

/** False where a request may cost more than it was charged: what a budget owes must stop the next one, and a block would
 *  let it pass. */
const isKnownBeforehand = ({ unit, costField }: LimitOptions): boolean => unit === 'requests' && costField === undefined

/** The same quota, its counters and all, for who charges a block of units and spends them one by one. */
export const blockQuotaOf = (quota: Quota): Quota =>
  quota.algorithm === gcra ? { ...quota, algorithm: leasedGcra } : quota

/** The same quota for one of several instances that count apart, each at least one unit. */
export function shareOf(quota: Quota, instances: number): Quota {
  const of = (units: number): number => Math.max(1, Math.floor(units / instances))
  const rate = { ...quota.rate, limit: of(quota.rate.limit), burst: of(quota.rate.burst) }
  return { ...quota, rate, sharedRate: quota.algorithm === gcra ? rate : strictRate(rate) }
}

/** GCRA that admits at most `limit` in any window. A window holds the burst and what the rate gives until just before
 *  its end, burst + perWindow - 1; half of each keeps both a burst and a pace. */
function strictRate({ limit, windowMs }: Rate): Rate {
  const perWindow = Math.ceil(limit / 2)
  return { limit: perWindow, windowMs, burst: limit + 1 - perWindow, calendar: null }
}
