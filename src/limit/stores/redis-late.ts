// Requests that were decided here since Redis had not answered in time, and what becomes of them when it answers after
// all: what was used is counted once, there where all instances count, and what was not used is not counted at all.
//
//                       Redis has charged it                      Redis has refused it
//   admitted here       it is no longer counted here as well      it is owed (redis-debts.ts)
//   refused here        it is given back                          nothing
//
// Where it was not carried out, since Redis did not know the script, that is a refusal; where the connection broke first, nobody
// will know, and it is taken to be charged.
//
// Until then, what was admitted here is known to be missing in all that Redis tells (Mark.pending).

import { type Standing, blankStanding } from '../algorithm.ts'
import type { Demand, Quota } from '../quota.ts'
import type { Ask, Never } from './redis-call.ts'
import { isLong } from './redis-debts.ts'
import type { Share } from './redis-share.ts'
import type { Subject } from './redis-subjects.ts'

export interface LateSetup {
  readonly share: Share
  readonly instances: () => number
  /** The time by the clock of who counts a subject. */
  readonly nowThere: (subject: Subject) => number
  readonly owe: (quota: Quota, subject: string, units: number) => void
  /** Gives back what Redis has charged for one policy of a request. */
  readonly giveBack: (ask: Ask, index: number) => void
}

export class Late {
  readonly #setup: LateSetup
  /** Of the answer at hand. */
  readonly #unused: { readonly ask: Ask; readonly index: number }[] = []

  constructor(setup: LateSetup) {
    this.#setup = setup
  }

  /** A request has been decided without an answer that may still come. What it is about is kept, since its owner has use
   *  for the demand. */
  expect(ask: Ask): void {
    const { demand, outcomes, subjects, isAdmitted } = ask
    if (!outcomes.includes('late')) return
    ask.spentHere = demand.costs.map((cost, i) => {
      const isSpent = outcomes[i] === 'late' && isAdmitted && (demand.standings[i] as Standing).admitted
      const units = isSpent ? cost : 0
      if (units > 0) (subjects[i] as Subject).mark(demand.quotas[i] as Quota).pending += units
      return { units, atMs: demand.atMs[i] as number }
    })
    ask.demand = copyOf(demand)
  }

  /** Redis has told what it did for one policy of a request. */
  told(ask: Ask, index: number, charged: boolean): void {
    const spent = ask.spentHere?.[index]
    // Who is still waited for is decided with this.
    if (spent === undefined) return
    const { share, instances, nowThere, owe } = this.#setup
    const quota = ask.demand.quotas[index] as Quota
    const name = ask.demand.subjects[index] as string
    const subject = ask.subjects[index] as Subject
    subject.mark(quota).pending -= spent.units
    if (spent.units === 0) {
      if (charged) this.#unused.push({ ask, index })
    } else if (!charged) {
      owe(quota, name, spent.units)
    } else if (isLong(quota)) {
      // Shorter windows are forgotten in any case, and until then it is safer to count twice.
      const times = { chargedAtMs: spent.atMs, nowMs: nowThere(subject), instances: instances() }
      share.settle(quota, name, -spent.units, times)
    }
  }

  /** Redis has told of all that it was asked in one call: how a subject stood in between does not matter any more. */
  toldAll(): void {
    for (const { ask, index } of this.#unused.splice(0)) this.#setup.giveBack(ask, index)
  }

  /** It will not tell. */
  never(ask: Ask, index: number, why: Never): void {
    const spent = ask.spentHere?.[index]
    if (spent === undefined) {
      ask.outcomes[index] = why
      return
    }
    const quota = ask.demand.quotas[index] as Quota
    ;(ask.subjects[index] as Subject).mark(quota).pending -= spent.units
    if (why === 'unasked' && spent.units > 0) {
      this.#setup.owe(quota, ask.demand.subjects[index] as string, spent.units)
    }
  }
}

const copyOf = ({ quotas, subjects, costs, standings, atMs, from, to }: Demand): Demand => ({
  quotas,
  subjects: [...subjects],
  costs: [...costs],
  standings: standings.map(blankStanding),
  atMs: [...atMs],
  from,
  to,
})
