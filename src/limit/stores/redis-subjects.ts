// What this instance knows of subjects whose counters are in Redis: the name of the record, how the subject stood when
// Redis last told, refusals that still hold. For at most 100,000 subjects; those that nobody asks for make room.
//
// A record is named after the subject's tag (subject-tag.ts), which is worked out once. Times are by Redis' clock.

import type { Standing } from '../algorithm.ts'
import type { Quota } from '../quota.ts'
import type { SubjectTag } from '../subject-tag.ts'
import { NO_ENTRY, SubjectTable } from './subject-table.ts'

const MAX_SUBJECTS = 100_000
/** Entries looked at to make room for a stranger. */
const MAX_LOOKS = 8
/** A refusal is not remembered for longer, since what others give back is not heard of. */
export const MAX_REFUSAL_MS = 1000
/** For so long before that one request may ask anew, while others are still refused: or all of a flood would, until the
 *  first answer is there. */
const RENEWAL_MS = 100
/** Of what is reckoned to be the time of Redis. */
const CLOCK_ERROR_MS = 100

/** One subject under one policy, as this instance knows it. */
export class Mark {
  readonly quotaId: string
  remaining = 0
  nextAtMs = 0
  /** From then on, nothing that is known counts any more. */
  fullAtMs = 0
  /** Until then, who asks for `refusedCost` or more is refused. */
  refusedUntilMs = 0
  refusedCost = 0
  waitEndsAtMs = 0
  /** A request asks whether the refusal still holds. */
  isRenewing = false
  /** Units that this instance has charged, in the calendar's window that ends at `ownEndMs`, in the entry born then. */
  own = 0
  ownEndMs = 0
  ownBorn = 0
  /** Units of its own that Redis has been told of and that `own` does not have yet. */
  ownLater = 0
  /** True where the counters for an outage do not have it yet. */
  isNews = false
  /** Units used here that Redis has been asked for and has not answered for: they are not in what it has told. */
  pending = 0

  constructor(quotaId: string) {
    this.quotaId = quotaId
  }

  /** Takes in what Redis has told of a charge. */
  learn(quota: Quota, cost: number, standing: Standing, nowMs: number): void {
    this.remaining = standing.remaining
    this.nextAtMs = nowMs + standing.nextMs
    this.fullAtMs = nowMs + standing.fullMs
    this.isNews = true
    this.isRenewing = false
    if (standing.admitted || !quota.isEnforced) {
      this.refusedUntilMs = 0
      return
    }
    this.refusedCost = cost
    this.waitEndsAtMs = nowMs + standing.waitMs
    this.refusedUntilMs = nowMs + Math.min(standing.waitMs, MAX_REFUSAL_MS)
  }

  /** True where it is known that this cost does not fit. */
  refuses(cost: number, nowMs: number): boolean {
    const leftMs = this.refusedUntilMs - nowMs
    // Much longer than ever said: the clock has stepped back. How far it is from ours is known to some milliseconds only.
    return leftMs > 0 && leftMs <= MAX_REFUSAL_MS + CLOCK_ERROR_MS && cost >= this.refusedCost
  }

  /** True for a refusal that holds on, is about to be forgotten, and that nobody asks about. */
  isDue(nowMs: number): boolean {
    const { refusedUntilMs } = this
    return !this.isRenewing && nowMs >= refusedUntilMs - RENEWAL_MS && refusedUntilMs < this.waitEndsAtMs
  }

  forget(): void {
    this.fullAtMs = this.refusedUntilMs = this.own = this.ownLater = 0
  }
}

/** How a subject stands as far as is known; never better than Redis said and time has mended since. */
export function recall(mark: Mark | null, quota: Quota, cost: number, nowMs: number, standing: Standing): void {
  const { burst } = quota.rate
  const knows = mark !== null && mark.fullAtMs > nowMs
  const nextMs = knows ? Math.max(0, mark.nextAtMs - nowMs) : 0
  standing.remaining = knows ? Math.min(burst, mark.remaining + (nextMs === 0 ? 1 : 0)) : burst
  standing.fullMs = knows ? mark.fullAtMs - nowMs : 0
  standing.nextMs = knows && nextMs === 0 ? standing.fullMs : nextMs
  standing.admitted = cost <= standing.remaining
  standing.waitMs = standing.admitted ? 0 : cost === standing.remaining + 1 ? standing.nextMs : standing.fullMs
  standing.source = 'remembered'
  if (mark?.refuses(cost, nowMs) !== true) return
  standing.admitted = false
  standing.waitMs = Math.max(1, mark.waitEndsAtMs - nowMs)
}

export class Subject {
  /** Of its record. */
  readonly key: string
  #marks: readonly Mark[] = []
  /** False since the search for room passed by. */
  isInUse = true
  /** Where the call that is being written has its key. */
  call: object | null = null
  keyAt = 0

  constructor(key: string) {
    this.key = key
  }

  findMark({ id }: Quota): Mark | null {
    for (const mark of this.#marks) if (mark.quotaId === id) return mark
    return null
  }

  mark(quota: Quota): Mark {
    const known = this.findMark(quota)
    if (known !== null) return known
    const made = new Mark(quota.id)
    // Not pushed: the first push makes room for 17, and there are 100,000 such lists.
    this.#marks = [...this.#marks, made]
    return made
  }
}

export class Subjects {
  readonly #prefix: string
  readonly #tagOf: SubjectTag
  readonly #table = new SubjectTable<string>(MAX_SUBJECTS)
  readonly #subjects: Subject[] = []
  #cursor = 0

  constructor(namespace: string, tagOf: SubjectTag) {
    this.#prefix = `${namespace}:r2:`
    this.#tagOf = tagOf
  }

  get size(): number {
    return this.#table.size
  }

  /** null: never seen, or forgotten. */
  find({ scope }: Quota, subject: string): Subject | null {
    const low = this.#table.hash.of(subject, saltOf(scope))
    const entry = this.#table.find(low, this.#table.hash.high, scope)
    return entry === NO_ENTRY ? null : (this.#subjects[entry] as Subject)
  }

  /** A stranger is taken in where there is room. */
  get({ scope }: Quota, subject: string): Subject {
    const low = this.#table.hash.of(subject, saltOf(scope))
    const { high } = this.#table.hash
    const entry = this.#table.find(low, high, scope)
    if (entry !== NO_ENTRY) {
      const known = this.#subjects[entry] as Subject
      known.isInUse = true
      return known
    }
    const made = new Subject(this.#keyOf(scope, subject))
    if (!this.#table.hasRoom(low, 1)) this.#makeRoom()
    if (this.#table.hasRoom(low, 1)) this.#subjects[this.#table.add(low, high, scope)] = made
    return made
  }

  #makeRoom(): void {
    for (let looked = 0; looked < MAX_LOOKS; looked++) {
      if (this.#cursor >= this.#table.highWater) this.#cursor = 0
      const entry = this.#cursor++
      const scope = this.#table.ownerOf(entry)
      const subject = this.#subjects[entry]
      if (scope === null || subject === undefined) continue
      if (!subject.isInUse) {
        this.#table.remove(entry)
        return
      }
      subject.isInUse = false
    }
  }

  /** The braces send all keys of a subject to the same place in a Redis Cluster. */
  #keyOf(scope: string, subject: string): string {
    // Joined, not added up: a sum of texts keeps its parts.
    return [this.#prefix, '{', this.#tagOf(scope, subject), '}'].join('')
  }
}

/** Only spreads what scopes have in common. */
const saltOf = (scope: string): number => Math.imul(scope.length, 0x9e3779b1)
