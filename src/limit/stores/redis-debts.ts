// What Redis is to be told of afterwards, as far as windows are long enough for it to matter; shorter ones heal by themselves.
//
//   debts     what was used here without it: told as soon as it is back, or within half a second where it is there all the
//             time and single requests were decided here, as where too many wait
//   refunds   what is given back: told at once, or as soon as that can be, as long as it would still count
//
// Each is told once; one whose word was not sent is told again. A word that was sent when the connection broke counts as
// heard. What is given back of a debt that has not been told yet is not told at all.
//
// Bounds: 10,000 debts, 10,000 refunds that wait; what is more, Redis does not hear of.

import { WHENEVER } from '../algorithm.ts'
import type { Quota } from '../quota.ts'
import type { Lane, Lanes } from './redis-lanes.ts'
import type { Mark, Subject, Subjects } from './redis-subjects.ts'

const MAX_DEBTS = 10_000
const MAX_REFUNDS = 10_000
const LONG_MS = 60_000
/** Between a use without Redis, where it is there, and the word on that. */
const SOON_MS = 500

/** For how long a charge counts; that of a calendar, until its window ends. */
const countsForMs = ({ rate: { windowMs, burst, limit } }: Quota): number => windowMs * Math.max(1, burst / limit)

/** False where what Redis does not hear of at once is forgotten. */
export const isLong = (quota: Quota): boolean => countsForMs(quota) >= LONG_MS

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

interface Refund {
  readonly quota: Quota
  readonly subject: Subject
  units: number
}

export class Debts {
  readonly #setup: DebtsSetup
  readonly #debts = new Map<Mark, Debt>()
  /** By the time of the charge, by the clock of Redis. */
  readonly #refunds = new Map<Mark, Map<number, Refund>>()
  #refundCount = 0
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

  /** Beyond the bound, who comes first stays: a flood of strangers must not push out who was
   *  known before. */
  owe(quota: Quota, subject: string, units: number, ourMs: number): void {
    if (!isLong(quota)) return
    const { subjects } = this.#setup
    const mark = subjects.find(quota, subject)?.findMark(quota) ?? null
    let debt = mark === null ? undefined : this.#debts.get(mark)
    if (debt === undefined && this.#debts.size >= MAX_DEBTS) {
      this.#forgiven += units
      return
    }
    if (debt === undefined) {
      const known = subjects.get(quota, subject)
      debt = { quota, subject: known, units: 0, onTheirWay: 0, atOurMs: ourMs }
      this.#debts.set(known.mark(quota), debt)
    }
    debt.atOurMs = ourMs
    debt.units += units
    this.#tellSoon()
  }

  /** Takes at once, or as soon as that can be, what no request waits for: what one has used beyond its charge, what Redis has
   *  lost. */
  take(quota: Quota, known: Subject, subject: string, units: number): void {
    const lane = this.#setup.lanes.of(known)
    const mark = known.mark(quota)
    mark.own += units
    lane.correct(quota, known, units, lane.there(this.#ourNow()), (isDone) => {
      if (isDone) return
      mark.own = Math.max(0, mark.own - units)
      this.owe(quota, subject, units, this.#ourNow())
    })
  }

  /** Gives back what Redis has charged at that time. */
  giveBack(quota: Quota, subject: Subject, units: number, chargedAtMs: number): void {
    const mark = subject.mark(quota)
    mark.own = Math.max(0, mark.own - units)
    this.#refund({ quota, subject, units }, chargedAtMs)
  }

  /** Gives back what was used here at that time, by the clock of Redis. */
  disown(quota: Quota, subject: Subject, units: number, usedAtMs: number): void {
    if (!isLong(quota)) return
    const mark = subject.mark(quota)
    const debt = this.#debts.get(mark)
    const untold = Math.min(units, debt?.units ?? 0)
    if (debt !== undefined) {
      debt.units -= untold
      this.#dropTold(mark, debt)
    }
    const isOver = this.#isOver(quota, this.#setup.lanes.of(subject), usedAtMs)
    // What has been told was charged when it was told.
    if (untold < units && !isOver) this.giveBack(quota, subject, units - untold, WHENEVER)
  }

  forget(mark: Mark): void {
    this.#debts.delete(mark)
    this.#refundCount -= this.#refunds.get(mark)?.size ?? 0
    this.#refunds.delete(mark)
  }

  /** Tells Redis what can be told now. */
  tell(): void {
    for (const [mark, debt] of this.#debts) this.#tell(mark, debt)
    // Afterwards, since of what has not been charged yet nothing can be given back.
    for (const [mark, refunds] of this.#refunds) this.#tellRefunds(mark, refunds)
    // Not all have found room, or some of the shards are lost.
    if (this.#debts.size + this.#refundCount > 0 && this.#setup.lanes.areUsable) this.#tellSoon()
  }

  /** Tells what can be told. */
  close(): void {
    this.#isClosed = true
    clearTimeout(this.#timer)
    this.tell()
  }

  #tell(mark: Mark, debt: Debt): void {
    const { quota, subject, units, atOurMs } = debt
    const lane = this.#setup.lanes.of(subject)
    if (units > 0 && !lane.hasRoom) return
    debt.units = 0
    if (units === 0 || this.#isOver(quota, lane, lane.there(atOurMs))) {
      this.#dropTold(mark, debt)
      return
    }
    debt.onTheirWay += units
    mark.ownLater += units
    lane.correct(quota, subject, units, lane.there(this.#ourNow()), (isDone) => {
      debt.onTheirWay -= units
      if (!isDone) {
        debt.units += units
        mark.ownLater -= units
        this.#tellSoon()
      }
      this.#dropTold(mark, debt)
    })
  }

  #dropTold(mark: Mark, debt: Debt): void {
    if (debt.units + debt.onTheirWay === 0 && this.#debts.get(mark) === debt) this.#debts.delete(mark)
  }

  #tellRefunds(mark: Mark, refunds: Map<number, Refund>): void {
    for (const [chargedAtMs, refund] of refunds) {
      if (!this.#setup.lanes.of(refund.subject).hasRoom) return
      refunds.delete(chargedAtMs)
      this.#refundCount--
      if (refunds.size === 0) this.#refunds.delete(mark)
      this.#refund(refund, chargedAtMs)
    }
  }

  #refund(refund: Refund, chargedAtMs: number): void {
    const { quota, subject, units } = refund
    const lane = this.#setup.lanes.of(subject)
    if (chargedAtMs !== WHENEVER && this.#isOver(quota, lane, chargedAtMs)) return
    if (!lane.hasRoom) {
      this.#keep(refund, chargedAtMs)
      return
    }
    lane.correct(quota, subject, -units, chargedAtMs, (isDone) => {
      if (!isDone) this.#keep(refund, chargedAtMs)
    })
  }

  #keep({ quota, subject, units }: Refund, chargedAtMs: number): void {
    if (!isLong(quota)) return
    const mark = subject.mark(quota)
    const refunds = this.#refunds.get(mark) ?? new Map<number, Refund>()
    const kept = refunds.get(chargedAtMs)
    if (kept !== undefined) {
      kept.units += units
      return
    }
    if (this.#refundCount >= MAX_REFUNDS) return
    this.#refundCount++
    this.#refunds.set(mark, refunds.set(chargedAtMs, { quota, subject, units }))
    this.#tellSoon()
  }

  /** True where what was charged then, by the clock of Redis, does not count any more. */
  #isOver(quota: Quota, lane: Lane, chargedAtMs: number): boolean {
    const nowMs = lane.there(this.#ourNow())
    const { calendar } = quota.rate
    return calendar === null ? nowMs - chargedAtMs > countsForMs(quota) : calendar.startMs(nowMs) > chargedAtMs
  }

  #ourNow(): number {
    return Math.floor(this.#setup.clock())
  }

  #tellSoon(): void {
    if (this.#isClosed) return
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined
      // Of a return, the store hears.
      if (this.#setup.lanes.areUsable) this.tell()
    }, SOON_MS).unref()
  }
}
