// Which policies lend units in blocks, and how large a block may be. Pure.
//
// A block is charged where all instances count, and spent by the one that has it, unit by unit, without asking. So all of
// them together never spend more than the limit; what a block costs is that others are refused what lies in it unspent.
// That stays within a tenth of what is left, for a moment, and near the end, where it would matter, there are no blocks.

import { gcra } from './algorithms/gcra.ts'
import { type Quota, blockQuotaOf } from './quota.ts'

/** How long a block is held, at most: of limits that are used up and full again within the minute, and of others. */
const SHORT_MS = 50
const LONG_MS = 1000
const LONG_WINDOW_MS = 60_000
/** Of what is left, what all instances together may hold in blocks. */
const MAX_SHARE = 0.1
const MIN_UNITS = 2

/** `lease: auto` lends to who takes so many units a second here, of limits from so many per second, or at all, on. */
const AUTO = { subjectRate: 50, limitRate: 200, limit: 100_000 }

export interface LeaseRule {
  /** What a block is charged to. */
  readonly quota: Quota
  /** Units a second from which on a subject is worth a block. */
  readonly minRate: number
  /** Requests that cost more are decided one by one. */
  readonly maxCost: number
  /** What has not been spent is given back. Not to GCRA: its level has drained meanwhile, as that of a full bucket would,
   *  so what is taken off again may be more than was left of it. It drains anyway. */
  readonly isReturned: boolean
  /** For how many milliseconds after Redis charged a block, at that time, it may be spent. */
  lifetimeMs(chargedAtMs: number): number
}

/** The capacity below which there is never a block: a tenth is too little, or all of it drains while one is held. */
export function smallestLent({ algorithm, rate: { limit, windowMs } }: Quota): number {
  const drained = algorithm === gcra ? Math.ceil((SHORT_MS * limit) / windowMs) : 0
  return Math.max(MIN_UNITS / MAX_SHARE, drained + MIN_UNITS)
}

/** null: no blocks of this policy. */
export function compileLease(quota: Quota): LeaseRule | null {
  const { lease, algorithm, rate } = quota
  if (rate.burst < smallestLent(quota)) return null
  const isAuto = lease === 'auto'
  const isLarge = (rate.limit * 1000) / rate.windowMs >= AUTO.limitRate || rate.limit >= AUTO.limit
  if (lease === 'off' || (isAuto && !isLarge)) return null
  const isGcra = algorithm === gcra
  const longestMs = isGcra || rate.windowMs < LONG_WINDOW_MS ? SHORT_MS : LONG_MS
  const block = blockQuotaOf(quota)
  return {
    quota: block,
    minRate: isAuto ? AUTO.subjectRate : (MIN_UNITS * 1000) / longestMs,
    maxCost: isAuto ? 1 : Infinity,
    isReturned: !isGcra,
    lifetimeMs: (chargedAtMs) => Math.min(longestMs, block.algorithm.spendableUntilMs(rate, chargedAtMs) - chargedAtMs),
  }
}

/** Units of the next block; 0 where one is not worth its call. rate: units a second that a subject takes here. remaining:
 *  what all instances have left. held: what is left of the block before. */
export function blockUnits(
  rule: LeaseRule,
  { rate, remaining, held, instances }: { rate: number; remaining: number; held: number; instances: number },
): number {
  const { windowMs } = rule.quota.rate
  const wanted = Math.ceil((rate * (windowMs < LONG_WINDOW_MS ? SHORT_MS : LONG_MS)) / 1000)
  const units = Math.min(wanted, Math.floor((remaining * MAX_SHARE) / instances)) - held
  return units < MIN_UNITS ? 0 : units
}
