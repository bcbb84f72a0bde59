// What a request under a limit in tokens or in money is charged: what is reserved before the upstream is asked, and what it
// has used in the end. Tokens of each kind have a weight, which is what one of them costs in units of the budget. Budgets
// in money count millionths, so a price for a million tokens is the weight of one.

import type { RequestContext } from '../core/context.ts'
import type { Rate } from './algorithm.ts'
import type { LearnedReserve } from './learned-reserve.ts'
import type { Spent } from './meter.ts'
import type { LimitOptions } from './options.ts'
import { estimateRequest } from './request-tokens.ts'
import { type Tokens, type UsageRule, usageRule } from './usage.ts'

/** Units of a budget in money to the whole. */
export const MILLIONTHS = 1_000_000

/** Units of a budget in what the route table gives an amount in. */
export const unitsIn = ({ unit }: Pick<LimitOptions, 'unit'>, amount: number): number =>
  unit === 'cost' ? Math.max(1, Math.round(amount * MILLIONTHS)) : amount

/** Tokens that are reserved as long as too little is known. Of a small budget a tenth, or the first call would keep those
 *  waiting that something could be learned from. */
const UNTIL_LEARNED = 1000
const UNTIL_LEARNED_SHARE = 0.1

export interface TokenCost {
  /** Where an answer says what it used; null where a field says what it cost. */
  readonly usage: UsageRule | null
  /** Units. */
  readonly reservedOf: (ctx: RequestContext) => number
  /** It goes by the body, as far as that is held. */
  readonly readsBody: boolean
  /** It goes by what was used before. */
  readonly isLearning: boolean
  /** What was used, in units. told: by a field; spent: by `usage`, null where nothing was asked that could be read. */
  readonly usedOf: (reserved: number, told: number | null, spent: Spent | null) => number
}

/** null for a policy that counts requests. */
export function compileTokenCost(options: LimitOptions, { burst }: Rate, learned: LearnedReserve): TokenCost | null {
  const { unit, reserve, usage, costField } = options
  if (unit === 'requests') return null
  const weights = weightsOf(options)
  // A reservation that can never fit would lock everybody out. What is reserved is taken for the answer, mostly.
  const fitting = (units: number) => Math.min(Math.max(1, Math.ceil(units - ROUNDING)), burst)
  const isLearning = reserve === 'learned'
  // What a call has used beyond all that there is at once is owed, up to as much again: no single one locks its client out
  // for longer than that takes.
  const most = 2 * burst
  return {
    usage: usage === undefined && costField !== undefined ? null : usageRule(usage ?? 'auto'),
    reservedOf: compileReserve(),
    readsBody: typeof reserve === 'object',
    isLearning,
    usedOf: (reserved, told, spent) =>
      Math.min(most, told ?? (spent === null ? reserved : unitsOf(spent, weights, reserved))),
  }

  function compileReserve(): TokenCost['reservedOf'] {
    if (typeof reserve === 'object') return (ctx) => fitting(weigh(estimateRequest(ctx, reserve), weights))
    if (reserve === 'learned') {
      const atFirst = fitting(Math.min(UNTIL_LEARNED * weights.output, UNTIL_LEARNED_SHARE * burst))
      return (ctx) => fitting(learned.of(ctx) ?? atFirst)
    }
    const reserved = fitting(reserve * weights.output)
    return () => reserved
  }
}

/** Of one token, in units. */
function weightsOf({ unit, weights, price }: LimitOptions): Tokens {
  if (unit !== 'cost') return { input: weights?.input ?? 1, cached: weights?.cached ?? 0, output: weights?.output ?? 1 }
  // Refused without; and who says nothing of what is cached pays for it like for the rest.
  const { input = 0, cached = input, output = 0 } = price ?? {}
  return { input, cached, output }
}

/** 0.3 * 10 is more than 3, and that costs nobody a unit. */
const ROUNDING = 1e-6

/** Nothing that has been worked on is free. reserved: units that stand for what nobody could estimate. */
function unitsOf(spent: Spent, weights: Tokens, reserved: number): number {
  const { isEstimated, isPart } = spent
  return Math.max(Math.ceil(weigh(spent, weights) - ROUNDING), isPart ? reserved : isEstimated ? 1 : 0)
}

const weigh = ({ input, cached, output }: Tokens, weights: Tokens): number =>
  input * weights.input + cached * weights.cached + output * weights.output
