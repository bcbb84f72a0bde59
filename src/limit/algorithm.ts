// What a rate-limit algorithm is: pure rules over a few numbers per subject. This file alone knows their contract; each
// algorithm is one file in algorithms/, registered in quota.ts.
//
// The numbers lie in a Float64Array that the store owns, `cells` of them from `at` on, so a request makes no object.
// All zeros is a subject that has never been seen. Time is a parameter: whole milliseconds of a wall clock. A clock
// that steps back must not lock anybody out, so fits() and measure() first pull a state that lies in the future back
// to now and write it down; nothing else is written before charge().

/** What a policy allows. */
export interface Rate {
  /** Units per window; at least 1. */
  readonly limit: number
  /** Whole milliseconds; at least 1. */
  readonly windowMs: number
  /** Units that fit at once when nothing has been used: the capacity. At least 1. */
  readonly burst: number
  /** Where windows begin and end, for the algorithm that counts in fixed ones; null for the others. */
  readonly calendar: Calendar | null
}

/** Windows that everybody can name: a day in UTC, a month in Berlin. Whole milliseconds of the wall clock. */
export interface Calendar {
  /** The beginning of the window that holds nowMs. */
  startMs(nowMs: number): number
  /** Its end, which is the beginning of the next. */
  endMs(nowMs: number): number
}

/** How one subject stands with one policy. Filled in place, so that a request makes no object. */
export interface Standing {
  /** False where this policy refuses the request. */
  admitted: boolean
  /** Whole units left, after the charge where there was one. */
  remaining: number
  /** Milliseconds until the cost fits; 0 where it fits now. Waiting exactly that long is enough. */
  waitMs: number
  /** Milliseconds until one unit more is left; 0 where nothing is used. */
  nextMs: number
  /** Milliseconds until nothing counts as used. */
  fullMs: number
  /** Who has decided; set by the store. */
  source: DecisionSource
}

/** Counters of this process; counters that all instances share; units taken from those beforehand; a refusal that is
 *  remembered; what `fallback` says while the shared ones cannot be reached, `closed` where it lets nobody pass. */
export type DecisionSource = 'memory' | 'redis' | 'lease' | 'remembered' | 'share' | 'closed'

/** The time of a charge that is given back wherever it was taken: who asks for that knows of no charge. */
export const WHENEVER = -1

export interface Algorithm {
  readonly name: string
  /** Numbers per subject. */
  readonly cells: number
  /** True when `cost` fits now. cost: whole units, 1 to the capacity. */
  fits(cells: Float64Array, at: number, rate: Rate, cost: number, nowMs: number): boolean
  /** Takes `cost`, which fits. Separate from fits(), so that several policies are charged all or nothing. */
  charge(cells: Float64Array, at: number, rate: Rate, cost: number, nowMs: number): void
  /** Corrects an earlier charge. delta below 0 gives back, only what is still counted of what was charged at chargedAtMs:
   *  afterwards the state is as if that had never been charged, or stricter. Above 0 it takes, beyond the capacity
   *  too, and what is beyond has to be paid off first. Two corrections of the same sign and charge are as good as one. */
  settle(cells: Float64Array, at: number, rate: Rate, delta: number, chargedAtMs: number, nowMs: number): void
  /** Fills everything but `admitted` and `source`. cost: what waitMs is about. */
  measure(cells: Float64Array, at: number, rate: Rate, cost: number, nowMs: number, standing: Standing): void
  /** The time from which on this state says no more than zeros would. */
  fullAtMs(cells: Float64Array, at: number, rate: Rate): number
  /** Until then (and not at that time) what was charged may be spent as if it were charged only then. */
  spendableUntilMs(rate: Rate, chargedAtMs: number): number
  /** The same rules for Redis; a test holds the two equal. */
  readonly lua: LuaRules
}

/** Rules as the script of stores/redis-script.ts runs them. Lua's numbers are the doubles of JavaScript, so what is
 *  written down in the same order comes out the same. */
export interface LuaRules {
  /** How struct.pack packs the state, little-endian: what is always there, and what a state that isBrief() goes without. They
   *  differ in length. Another layout needs another name for the algorithm. */
  readonly brief: string
  readonly rest: string
  /** Takes the cells, which are all zeros, out of a packed state that lies there. */
  read(bytes: Buffer, from: number, to: number, cells: Float64Array, at: number): void
  /** Lua before the rules, for what is theirs alone. */
  readonly locals: string
  /** Lua fields: fits, charge, settle and fullAt. They take the state c, whose values are c[4] and up, the rate r as
   *  {limit, window, burst, starts, ends}, the last two of the calendar's window that holds now, and times in ms. charge
   *  comes after a fits of the same request; fullAt, of what was taken now, may be 0 where an earlier one said as much.
   *  prepare(r, now) adds to the rate before what all states share; isBrief(c), and fill(c) with what a brief one has not.
   *  Where the clock has stepped back, `moved` is set. floor, ceil, max, min, unpackBytes, pack and sub are at hand. */
  readonly rules: string
}

export const blankStanding = (): Standing => ({
  admitted: true,
  remaining: 0,
  waitMs: 0,
  nextMs: 0,
  fullMs: 0,
  source: 'memory',
})
