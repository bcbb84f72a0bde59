// One call of the script: what it asks on behalf of several requests, as text, and where its answers belong.

import type { Calendar, Standing } from '../algorithm.ts'
import type { Demand, Quota } from '../quota.ts'
import { Reply } from './redis-reply.ts'
import { kindOf } from './redis-script.ts'
import type { Subject } from './redis-subjects.ts'

/** What has become of one policy of a request: the script has charged it, or not; it may have, and may say so later, or will
 *  not say; it has not run. */
export type Outcome = 'charged' | 'told' | Unanswered
export type Unanswered = 'late' | Never
export type Never = 'lost' | 'unasked'

/** Units used here. */
export interface Spent {
  readonly units: number
  readonly atMs: number
}

/** A request that waits. */
export class Ask {
  demand: Demand
  /** By the indexes of the demand; null where a policy does not apply, or is not decided by Redis. */
  readonly subjects: readonly (Subject | null)[]
  readonly answer: (admitted: boolean) => void
  /** Calls that it is spread over and that have not ended. The last one's end gives the demand back to its owner. */
  pending = 0
  /** False for who only wants to know. */
  isCharged = true
  /** False for units that nobody waits for: they are not worth a decision without Redis. */
  isDecidedHere = true
  isAdmitted = true
  isFailed = false
  /** By the indexes of the demand: of requests that are spread over calls, and of what has failed. */
  readonly outcomes: Outcome[] = []
  /** The part that has been charged here. */
  chargedHere: Demand | null = null
  /** Once it has been decided without answers that may still come: what was used here of what they are about, by the
   *  indexes of the demand. */
  spentHere: readonly Spent[] | null = null

  constructor(demand: Demand, subjects: readonly (Subject | null)[], answer: (admitted: boolean) => void) {
    this.demand = demand
    this.subjects = subjects
    this.answer = answer
  }
}

/** How the script has answered for one policy of a request. charged: it has taken the cost. born: see redis-script.ts. */
export type Told = (ask: Ask, index: number, charged: boolean, nowMs: number, born: number) => void

export class Call {
  readonly keys: string[] = []
  readonly #keyAts = new Map<string, number>()
  readonly #quotas: Quota[] = []
  readonly #asks: Ask[] = []
  /** Indexes of the demands, those of one ask after the other; and where each has its key and its quota. */
  readonly #indexes: number[] = []
  readonly #keyOf: number[] = []
  readonly #quotaOf: number[] = []
  /** How many of them each ask has. */
  readonly #counts: number[] = []
  /** Keys in the order in which the requests come to them; the script tells of their records. */
  readonly #told = new Set<number>()
  /** What requests have in common, most often all: which policies at which cost, and which of them go by the same key. */
  readonly #shapes = new Map<string, number>()
  readonly #keysOfRequest: number[] = []
  #requests = ''
  #corrections = ''
  #correctionCount = 0
  readonly #whenCorrected: ((isDone: boolean) => void)[] = []

  /** Adds the policies of a request that `takes` picks. */
  ask(ask: Ask, takes: (subject: Subject) => boolean): void {
    const { quotas, costs, from, to } = ask.demand
    const keys = this.#keysOfRequest
    keys.length = 0
    let count = 0
    let shape = ''
    let keyTexts = ''
    for (let i = from; i < to; i++) {
      const subject = ask.subjects[i] as Subject | null
      if (subject === null || !takes(subject)) continue
      const keyAt = this.#keyAt(subject)
      const quotaAt = this.#quotaAt(quotas[i] as Quota)
      let whose = keys.indexOf(keyAt) + 1
      if (whose === 0) {
        whose = keys.push(keyAt)
        keyTexts += `,${keyAt}`
        this.#told.add(keyAt)
      }
      shape += `,${whose},${quotaAt},${costs[i] as number}`
      this.#indexes.push(i)
      this.#keyOf.push(keyAt)
      this.#quotaOf.push(quotaAt)
      count++
    }
    shape = `,${count},${keys.length}${shape}`
    let shapeAt = this.#shapes.get(shape)
    if (shapeAt === undefined) this.#shapes.set(shape, (shapeAt = this.#shapes.size + 1))
    this.#requests += `,${ask.isCharged ? shapeAt : -shapeAt}${keyTexts}`
    this.#counts.push(count)
    this.#asks.push(ask)
    ask.pending++
  }

  /** delta 0: forgets what has been used. whenEnded: see corrected(). */
  correct(
    quota: Quota,
    subject: Subject,
    delta: number,
    chargedAtMs: number,
    whenEnded: ((isDone: boolean) => void) | null = null,
  ): void {
    this.#corrections += `,${this.#keyAt(subject)},${this.#quotaAt(quota)},${delta},${chargedAtMs}`
    this.#correctionCount++
    if (whenEnded !== null) this.#whenCorrected.push(whenEnded)
  }

  /** Says to whom it matters that the corrections have been made, as far as can be known, or have not. Once. */
  corrected(isDone: boolean): void {
    for (const ended of this.#whenCorrected.splice(0)) ended(isDone)
  }

  /** nowMs: Redis' clock, as far as it is known. */
  message(nowMs: number): string {
    let rates = ''
    for (const { number, algorithm, rate, isEnforced } of this.#quotas) {
      const { limit, windowMs, burst, calendar } = rate
      rates += `,${number},${kindOf(algorithm)},${limit},${windowMs},${burst},${isEnforced ? 1 : 0}`
      rates += calendar === null ? ',0,0,0,0' : boundsAt(calendar, nowMs).text
    }
    const shapes = [...this.#shapes.keys()].join('')
    const requests = `${this.#shapes.size}${shapes},${this.#asks.length}${this.#requests}`
    return `[${this.#quotas.length}${rates},${this.#correctionCount}${this.#corrections},${requests}]`
  }

  /** Fills in the standings; while its requests wait, or are kept (redis-late.ts). told: called for each policy; ended: for each request. */
  read(bytes: Buffer, told: Told, ended: (ask: Ask) => void): void {
    const reply = new Reply(bytes, this.#quotas, this.keys.length, this.#told)
    const { nowMs } = reply
    let at = 0
    for (let asked = 0; asked < this.#asks.length; asked++) {
      const ask = this.#asks[asked] as Ask
      const { quotas, costs, standings, atMs } = ask.demand
      reply.next()
      if (!reply.isAdmitted) ask.isAdmitted = false
      for (const endAt = at + (this.#counts[asked] as number); at < endAt; at++) {
        const i = this.#indexes[at] as number
        const quota = quotas[i] as Quota
        const cost = costs[i] as number
        const standing = standings[i] as Standing
        const place = reply.place(this.#keyOf[at] as number, this.#quotaOf[at] as number)
        const hasRoom = reply.nextHasRoom()
        const isCharged = hasRoom && reply.isAdmitted && ask.isCharged
        if (isCharged) reply.charge(place, quota, cost)
        reply.measure(place, quota, cost, standing)
        standing.admitted = hasRoom
        standing.source = 'redis'
        atMs[i] = nowMs
        told(ask, i, isCharged, nowMs, reply.bornOf(place))
      }
      ended(ask)
    }
  }

  /** There will be no answer. lost: called for each policy; ended: for each request. */
  fail(lost: (ask: Ask, index: number) => void, ended: (ask: Ask) => void): void {
    let at = 0
    for (const [asked, ask] of this.#asks.entries()) {
      for (const endAt = at + (this.#counts[asked] as number); at < endAt; at++) lost(ask, this.#indexes[at] as number)
      ended(ask)
    }
  }

  /** The script must see a record once, or it would write it twice; a stranger whom there is no room to know comes as
   *  another object each time. */
  #keyAt(subject: Subject): number {
    if (subject.call === this) return subject.keyAt
    let at = this.#keyAts.get(subject.key)
    if (at === undefined) {
      at = this.keys.push(subject.key)
      this.#keyAts.set(subject.key, at)
    }
    subject.call = this
    subject.keyAt = at
    return at
  }

  #quotaAt(quota: Quota): number {
    const known = this.#quotas.indexOf(quota)
    return known < 0 ? this.#quotas.push(quota) : known + 1
  }
}

interface Bounds {
  readonly startMs: number
  readonly endMs: number
  /** Of the window before, this one and the next, as the message has them. */
  readonly text: string
}

/** Of the window that was asked for last: a calendar that is asked for two windows in turn would reckon each time. */
const lastBounds = new WeakMap<Calendar, Bounds>()

function boundsAt(calendar: Calendar, nowMs: number): Bounds {
  const last = lastBounds.get(calendar)
  if (last !== undefined && nowMs >= last.startMs && nowMs < last.endMs) return last
  const startMs = calendar.startMs(nowMs)
  const endMs = calendar.endMs(nowMs)
  const bounds = {
    startMs,
    endMs,
    text: `,${calendar.startMs(startMs - 1)},${startMs},${endMs},${calendar.endMs(endMs)}`,
  }
  lastBounds.set(calendar, bounds)
  return bounds
}
