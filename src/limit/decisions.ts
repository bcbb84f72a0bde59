// What the limits have decided, by policy: how often it admitted a request, refused it, or would have refused it (a policy
// that only watches), and who decided. Counted where it is decided, on every request, so counters are resolved once and a
// decision is an addition. A request that another policy refused counts for that one alone.
//
// Outlives a reload: policies of the same name go on counting, others are dropped.

import type { DecisionSource } from './algorithm.ts'
import { LearnedReserve } from './learned-reserve.ts'
import { TokenCounts } from './token-counts.ts'
import { TopSubjects } from './top-subjects.ts'

export type Result = 'admitted' | 'refused' | 'shadowed'

export interface DecisionCount {
  readonly policy: string
  readonly result: Result
  readonly source: DecisionSource
  readonly count: number
}

/** The decisions of one policy. */
export class Tally {
  readonly top = new TopSubjects()
  /** Units that requests which are over had reserved, and what they were charged, where these may differ. */
  reservedUnits = 0
  chargedUnits = 0
  /** What a reservation goes by that is learned. */
  readonly learned = new LearnedReserve()
  readonly #counts: Record<Result, Partial<Record<DecisionSource, number>>> = {
    admitted: {},
    refused: {},
    shadowed: {},
  }

  settle(reserved: number, charged: number): void {
    this.reservedUnits += reserved
    this.chargedUnits += charged
  }

  /** cost: units that were asked for. nowMs: wall clock. */
  add(result: Result, source: DecisionSource, subject: string, cost: number, nowMs: number): void {
    const counts = this.#counts[result]
    counts[source] = (counts[source] ?? 0) + 1
    this.top.add(subject, cost, result === 'admitted', nowMs)
  }

  counts(policy: string): DecisionCount[] {
    return Object.entries(this.#counts).flatMap(([result, bySource]) =>
      Object.entries(bySource).map(([source, count]) => ({
        policy,
        result: result as Result,
        source: source as DecisionSource,
        count,
      })),
    )
  }
}

export class Decisions {
  readonly tokens = new TokenCounts()
  readonly #tallies = new Map<string, Tally>()

  of(policy: string): Tally {
    const known = this.#tallies.get(policy)
    if (known !== undefined) return known
    const tally = new Tally()
    this.#tallies.set(policy, tally)
    return tally
  }

  /** Forgets all policies and routes but these. */
  keep(policies: ReadonlySet<string>, routes: ReadonlySet<string>): void {
    for (const policy of this.#tallies.keys()) if (!policies.has(policy)) this.#tallies.delete(policy)
    this.tokens.keep(routes)
  }

  counts(): DecisionCount[] {
    return [...this.#tallies].flatMap(([policy, tally]) => tally.counts(policy))
  }

  /** Of policies that charge what was used. */
  reservations(): { policy: string; reserved: number; charged: number }[] {
    return [...this.#tallies].flatMap(([policy, { reservedUnits: reserved, chargedUnits: charged }]) =>
      reserved === 0 ? [] : [{ policy, reserved, charged }],
    )
  }
}
