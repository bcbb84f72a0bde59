// What the limits have decided, by policy: how often it admitted a request, refused it, or would have refused it (a policy
// that only watches), and who decided. Counted where it is decided, on every request, so counters are resolved once and a
// decision is an addition. A request that another policy refused counts for that one alone.
//
// Outlives a reload: policies of the same name go on counting, others are dropped.

import type { DecisionSource } from './algorithm.ts'
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
  readonly #counts: Record<Result, Partial<Record<DecisionSource, number>>> = {
    admitted: {},
    refused: {},
    shadowed: {},
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
  readonly #tallies = new Map<string, Tally>()

  of(policy: string): Tally {
    const known = this.#tallies.get(policy)
    if (known !== undefined) return known
    const tally = new Tally()
    this.#tallies.set(policy, tally)
    return tally
  }

  /** Forgets all policies but these. */
  keep(live: ReadonlySet<string>): void {
    for (const policy of this.#tallies.keys()) if (!live.has(policy)) this.#tallies.delete(policy)
  }

  counts(): DecisionCount[] {
    return [...this.#tallies].flatMap(([policy, tally]) => tally.counts(policy))
  }
}
