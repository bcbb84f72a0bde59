// What can be said of a request before Redis is asked: whom it is about as far as they are known, who of the shards would be
// asked, which part is left to be decided here, and whether a refusal that is remembered holds.
//
// A refusal is remembered for as long as it holds, at most a second: who hammers an empty budget costs one call in that
// time. It is exact unless somebody gives units back.
//
// Runs on every request: one at a time is at hand, and no request makes an object here.

import type { Standing } from '../algorithm.ts'
import type { Demand, Quota } from '../quota.ts'
import type { Lane, Lanes } from './redis-lanes.ts'
import { type Subject, type Subjects, recall } from './redis-subjects.ts'

export class Sight {
  readonly #subjects: Subjects
  readonly #lanes: Lanes
  // Of the demand at hand, by its indexes: whom it is about, as far as known; who would be asked; what is decided here.
  readonly #known: (Subject | null)[] = []
  readonly #lane: (Lane | null)[] = []
  readonly #isHere: boolean[] = []

  constructor(subjects: Subjects, lanes: Lanes) {
    this.#subjects = subjects
    this.#lanes = lanes
  }

  /** Whom the demand at hand is about, by its indexes; null where nobody, or a stranger. */
  get known(): readonly (Subject | null)[] {
    return this.#known
  }

  /** Turns to a demand. takesIn: strangers as well. Not in an outage, when a flood of them would leave much to be collected. */
  turnTo({ quotas, subjects, from, to }: Demand, takesIn: boolean): void {
    for (let i = 0; i < to; i++) {
      const quota = quotas[i] as Quota
      const subject = subjects[i] as string | null
      const isAbout = i >= from && subject !== null
      const known = !isAbout ? null : takesIn ? this.#subjects.get(quota, subject) : this.#subjects.find(quota, subject)
      this.#known[i] = known
      this.#lane[i] = known === null ? this.#lanes.only : this.#lanes.of(known)
    }
  }

  /** Finds out how much of the demand at hand is decided by Redis. isAsked: it is about to be asked. */
  sort({ subjects, from, to }: Demand, isAsked: boolean): 'all' | 'some' | 'none' {
    let there = 0
    let here = 0
    for (let i = from; i < to; i++) {
      this.#isHere[i] = false
      if (subjects[i] === null) continue
      const lane = this.#lane[i] as Lane | null
      const isThere = lane === null ? this.#lanes.areUsable : isAsked ? lane.hasRoom : lane.isUsable
      this.#isHere[i] = !isThere
      if (isThere) there++
      else here++
    }
    return here === 0 && there > 0 ? 'all' : there > 0 ? 'some' : 'none'
  }

  /** The part of the demand at hand that Redis does not decide, as it was sorted. */
  partHere(demand: Demand): Demand {
    return partOf(demand, (i) => this.#isHere[i] === true)
  }

  /** The subjects of the other part. */
  knownThere({ from, to }: Demand): (Subject | null)[] {
    const known = this.#known.slice(0, to)
    for (let i = from; i < to; i++) if (this.#isHere[i] === true) known[i] = null
    return known
  }

  /** True where it is known that a policy refuses; then all standings are as far as is known. A refusal that is about to be
   *  forgotten is asked about anew. */
  isRefused(demand: Demand, ourMs: number): boolean {
    const { quotas, costs, from, to } = demand
    let isDue = false
    for (let i = from; i < to; i++) {
      const quota = quotas[i] as Quota
      const known = this.#known[i] ?? null
      if (known === null || !quota.isEnforced) continue
      const cost = costs[i] as number
      const lane = this.#lane[i] ?? null
      const nowMs = (lane ?? this.#lanes).there(ourMs)
      if (cost <= quota.rate.burst) {
        const mark = known.findMark(quota)
        if (mark?.refuses(cost, nowMs) !== true) continue
        if (lane?.isUsable === true && mark.isDue(nowMs)) {
          isDue = true
          continue
        }
      }
      this.#isHere.fill(false, from, to)
      this.recall(demand, ourMs)
      return true
    }
    if (isDue) this.#renew(demand, ourMs)
    return false
  }

  /** This request asks, and who comes meanwhile does not. */
  #renew({ quotas, from, to }: Demand, ourMs: number): void {
    for (let i = from; i < to; i++) {
      const mark = this.#known[i]?.findMark(quotas[i] as Quota) ?? null
      if (mark?.isDue((this.#lane[i] ?? this.#lanes).there(ourMs)) === true) mark.isRenewing = true
    }
  }

  /** How those stand whom this instance does not decide about, as far as is known. */
  recall({ quotas, costs, subjects, standings, from, to }: Demand, ourMs: number): void {
    for (let i = from; i < to; i++) {
      if (subjects[i] === null || this.#isHere[i] === true) continue
      const quota = quotas[i] as Quota
      const mark = this.#known[i]?.findMark(quota) ?? null
      const nowMs = (this.#lane[i] ?? this.#lanes).there(ourMs)
      recall(mark, quota, costs[i] as number, nowMs, standings[i] as Standing)
    }
  }

  /** Of any subject; null: a stranger in an outage, see turnTo(). */
  subjectOf(quota: Quota, subject: string): Subject | null {
    return this.#lanes.areUsable ? this.#subjects.get(quota, subject) : this.#subjects.find(quota, subject)
  }

  /** null where it is not known yet who would be asked. */
  laneOf(quota: Quota, subject: string): Lane | null {
    const { only } = this.#lanes
    if (only !== null) return only
    const known = this.subjectOf(quota, subject)
    return known && this.#lanes.of(known)
  }

  /** By the clock that the first of those counts by whom a demand is about. */
  timeFor({ subjects, from, to }: Demand, known: readonly (Subject | null)[], ourMs: number): number {
    for (let i = from; i < to; i++) {
      const subject = known[i] ?? null
      if (subjects[i] !== null && subject !== null) return this.#lanes.of(subject).there(ourMs)
    }
    return this.#lanes.there(ourMs)
  }
}

/** The same with some of its policies only. */
export function partOf(demand: Demand, takes: (index: number) => boolean): Demand {
  const { subjects, from } = demand
  return { ...demand, subjects: subjects.map((subject, i) => (i >= from && takes(i) ? subject : null)) }
}
