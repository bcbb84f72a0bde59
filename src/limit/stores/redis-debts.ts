// What was used here without Redis, in windows long enough to matter afterwards: Redis is told as soon as it is back, or
// within half a second where it is there all the time and single requests were decided here, as where too many wait.
// Shorter windows heal by themselves.
//
// Each debt is told once; one whose word was not sent is told again.

import type { Quota } from '../quota.ts'
import type { Lanes } from './redis-lanes.ts'
import type { Mark, Subject, Subjects } from './redis-subjects.ts'

const MAX_DEBTS = 10_000
const LONG_WINDOW_MS = 60_000
/** Between a use without Redis, where it is there, and the word on that. */
const SOON_MS = 500

/** False where what is used without Redis is forgotten. */
export const isLong = ({ rate: { windowMs } }: Quota): boolean => windowMs >= LONG_WINDOW_MS

export interface DebtsSetup {
  readonly subjects: Subjects
  readonly lanes: Lanes
  /** Wall clock, epoch milliseconds. */
  readonly clock: () => number
}

interface Debt {
  readonly quota: Quota
  readonly subject: Subject
  /** Not told yet. */
  units: number
  /** Told, and not known to have been heard. */
  onTheirWay: number
  /** When it was used last, by our clock. */
  atOurMs: number
}

export class Debts {
  readonly #setup: DebtsSetup
  readonly #debts = new Map<Mark, Debt>()
  #forgiven = 0
  #timer: NodeJS.Timeout | undefined
  #isClosed = false

  constructor(setup: DebtsSetup) {
    this.#setup = setup
  }

  /** Those that Redis is yet to hear of. */
  get size(): number {
    return this.#debts.size
  }

  /** Units of others, of which it will not hear. */
  get forgiven(): number {
    return this.#forgiven
  }

  /** Units that Redis is yet to hear of. */
  of(mark: Mark): number {
    const debt = this.#debts.get(mark)
    return debt === undefined ? 0 : debt.units + debt.onTheirWay
  }

  /** Beyond the bound, who comes first stays: a flood of strangers must not push out who was known before. */
  owe(quota: Quota, subject: string, units: number, ourMs: number): void {
    if (!isLong(quota)) return
    const { subjects } = this.#setup
    const mark = subjects.find(quota, subject)?.findMark(quota) ?? null
    const debt = mark === null ? undefined : this.#debts.get(mark)
    if (debt !== undefined) {
      debt.units = Math.max(0, debt.units + units)
      debt.atOurMs = ourMs
    } else if (units > 0 && this.#debts.size < MAX_DEBTS) {
      const known = subjects.get(quota, subject)
      this.#debts.set(known.mark(quota), { quota, subject: known, units, onTheirWay: 0, atOurMs: ourMs })
    } else {
      this.#forgiven += Math.max(0, units)
      return
    }
    this.#paySoon()
  }

  forget(mark: Mark): void {
    this.#debts.delete(mark)
  }

  /** Tells Redis what can be told now. */
  pay(): void {
    for (const [mark, debt] of this.#debts) this.#pay(mark, debt)
    // Not all have found room, or some of the shards are lost.
    if (this.#debts.size > 0 && this.#setup.lanes.areUsable) this.#paySoon()
  }

  /** Tells what can be told. */
  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.pay()
  }

  #pay(mark: Mark, debt: Debt): void {
    const { quota, subject, units, atOurMs } = debt
    const lane = this.#setup.lanes.of(subject)
    if (units > 0 && !lane.hasRoom) return
    debt.units = 0
    const ourMs = Math.floor(this.#setup.clock())
    const [nowMs, atMs] = [lane.there(ourMs), lane.there(atOurMs)]
    const { calendar, windowMs } = quota.rate
    const isOver = calendar === null ? nowMs - atMs > windowMs : calendar.startMs(nowMs) > atMs
    if (units === 0 || isOver) {
      this.#dropPaid(mark, debt)
      return
    }
    debt.onTheirWay += units
    mark.ownLater += units
    lane.correct(quota, subject, units, nowMs, (isDone) => {
      debt.onTheirWay -= units
      if (!isDone) {
        debt.units += units
        mark.ownLater -= units
        this.#paySoon()
      }
      this.#dropPaid(mark, debt)
    })
  }

  #dropPaid(mark: Mark, debt: Debt): void {
    if (debt.units + debt.onTheirWay === 0 && this.#debts.get(mark) === debt) this.#debts.delete(mark)
  }

  #paySoon(): void {
    if (this.#isClosed) return
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      // Of a return, the store hears.
      if (this.#setup.lanes.areUsable) this.pay()
    }, SOON_MS).unref()
  }
}
