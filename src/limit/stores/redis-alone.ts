// What this instance decides while Redis does not: all of a request, or what Redis has not answered in time; and how that is
// made good afterwards, there and here. Joins the counters for an outage (redis-share.ts), what Redis is to be told of
// (redis-debts.ts), and answers that come late (redis-late.ts).
//
// Its promise: what is used is counted once, there where all instances count, and what is given back is taken off from where
// it was counted.

import type { DecisionSource, Standing } from '../algorithm.ts'
import type { Demand, Quota } from '../quota.ts'
import type { Ask } from './redis-call.ts'
import type { Debts } from './redis-debts.ts'
import { Late } from './redis-late.ts'
import type { Lanes } from './redis-lanes.ts'
import { Share } from './redis-share.ts'
import { type Sight, partOf } from './redis-sight.ts'
import type { Subject } from './redis-subjects.ts'

export interface AloneSetup {
  readonly sight: Sight
  readonly lanes: Lanes
  readonly debts: Debts
  /** That share the counters, as far as is known. */
  readonly instances: () => number
  /** Wall clock, epoch milliseconds, whole ones. */
  readonly ourNow: () => number
}

export class Alone {
  readonly share: Share
  readonly late: Late
  readonly #setup: AloneSetup

  constructor(setup: AloneSetup) {
    const { lanes, debts, instances, ourNow } = setup
    this.#setup = setup
    this.share = new Share((mark) => mark.pending + debts.of(mark))
    this.late = new Late({
      share: this.share,
      instances,
      nowThere: (subject) => lanes.of(subject).there(ourNow()),
      owe: (quota, subject, units) => debts.owe(quota, subject, units, ourNow()),
      giveBack: (ask, i) => this.#giveBack(ask, i),
    })
  }

  /** Decides over what Redis has not been asked about. */
  decide(demand: Demand, known: readonly (Subject | null)[], ourMs: number): boolean {
    const admitted = this.share.charge(demand, known, this.#setup.instances(), this.#timeFor(demand, known, ourMs))
    if (admitted) this.#owe(demand, ourMs)
    return admitted
  }

  peek(demand: Demand, known: readonly (Subject | null)[], ourMs: number): void {
    this.share.peek(demand, known, this.#setup.instances(), this.#timeFor(demand, known, ourMs))
  }

  /** Decides what Redis has not answered. */
  decideRest({ demand, subjects, outcomes, isAdmitted }: Ask): boolean {
    const { instances, ourNow } = this.#setup
    const ourMs = ourNow()
    const rest = partOf(demand, (i) => outcomes[i] !== 'charged' && outcomes[i] !== 'told')
    if (!isAdmitted) {
      this.peek(rest, subjects, ourMs)
      return false
    }
    if (!this.share.charge(rest, subjects, instances(), this.#timeFor(rest, subjects, ourMs))) return false
    // Of the others, it may have charged them.
    this.#owe(
      partOf(rest, (i) => outcomes[i] === 'unasked'),
      ourMs,
    )
    return true
  }

  #owe({ quotas, subjects, costs, standings, from, to }: Demand, ourMs: number): void {
    for (let i = from; i < to; i++) {
      const subject = subjects[i] as string | null
      if (subject === null || !(standings[i] as Standing).admitted) continue
      this.#setup.debts.owe(quotas[i] as Quota, subject, costs[i] as number, ourMs)
    }
  }

  /** Gives back what has been charged, there and here, of a request that another policy refuses. */
  takeBack(ask: Ask): void {
    const { subjects, outcomes, chargedHere } = ask
    for (const [index, outcome] of outcomes.entries()) if (outcome === 'charged') this.#giveBack(ask, index)
    if (chargedHere === null) return
    const { sight, debts, instances, ourNow } = this.#setup
    const { quotas, costs, standings, atMs, from, to } = chargedHere
    for (let i = from; i < to; i++) {
      const subject = chargedHere.subjects[i] as string | null
      if (subject === null || !(standings[i] as Standing).admitted) continue
      const quota = quotas[i] as Quota
      const known = sight.subjectOf(quota, subject)
      if (known !== null) debts.disown(quota, known, costs[i] as number, atMs[i] as number)
    }
    this.share.takeBack(chargedHere, subjects, instances(), this.#timeFor(chargedHere, subjects, ourNow()))
  }

  /** Gives back what Redis has charged for one policy of a request. */
  #giveBack({ demand, subjects }: Ask, index: number): void {
    const quota = demand.quotas[index] as Quota
    const cost = demand.costs[index] as number
    const subject = subjects[index] as Subject
    const standing = demand.standings[index] as Standing
    const mark = subject.mark(quota)
    standing.remaining = Math.min(quota.rate.burst, standing.remaining + cost)
    mark.remaining = Math.min(quota.rate.burst, mark.remaining + cost)
    mark.refusedUntilMs = 0
    this.#setup.debts.giveBack(quota, subject, cost, demand.atMs[index] as number)
  }

  /** As QuotaStore.settle(). */
  settle(
    quota: Quota,
    subject: string,
    delta: number,
    chargedAtMs: number,
    ourMs: number,
    source?: DecisionSource,
  ): void {
    const { sight, lanes, debts, instances } = this.#setup
    const known = sight.subjectOf(quota, subject)
    const lane = known === null ? lanes.only : lanes.of(known)
    const isThere = lane?.isUsable === true
    const isOurs = source === 'share'
    if (!isThere || isOurs) {
      const nowMs = (lane ?? lanes).there(ourMs)
      this.share.settle(quota, subject, delta, { chargedAtMs, nowMs, instances: instances() })
    }
    if (delta > 0) {
      if (known !== null && isThere) debts.take(quota, known, subject, delta)
      else debts.owe(quota, subject, delta, ourMs)
      return
    }
    // In an outage, a stranger has not been charged.
    if (known === null) return
    known.mark(quota).refusedUntilMs = 0
    if (isOurs) debts.disown(quota, known, -delta, chargedAtMs)
    else debts.giveBack(quota, known, -delta, chargedAtMs)
  }

  #timeFor(demand: Demand, known: readonly (Subject | null)[], ourMs: number): number {
    return this.#setup.sight.timeFor(demand, known, ourMs)
  }
}
