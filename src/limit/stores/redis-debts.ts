// What was used here without Redis, in windows long enough to matter afterwards; Redis learns of it when it is back. Shorter
// ones heal by themselves.

import type { Quota } from '../quota.ts'
import type { Mark, Subject, Subjects } from './redis-subjects.ts'

const MAX_DEBTS = 10_000
const LONG_WINDOW_MS = 60_000

/** False where what is used without Redis is forgotten. */
export const isLong = ({ rate: { windowMs } }: Quota): boolean => windowMs >= LONG_WINDOW_MS

export interface Debt {
  readonly quota: Quota
  readonly subject: Subject
  units: number
  /** When it was used last, by our clock. */
  atOurMs: number
}

export class Debts {
  readonly #subjects: Subjects
  readonly #debts = new Map<Mark, Debt>()
  #forgiven = 0

  constructor(subjects: Subjects) {
    this.#subjects = subjects
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
    return this.#debts.get(mark)?.units ?? 0
  }

  /** Beyond the bound, who comes first stays: a flood of strangers must not push out who was known before. */
  owe(quota: Quota, subject: string, units: number, ourMs: number): void {
    if (!isLong(quota)) return
    const mark = this.#subjects.find(quota, subject)?.findMark(quota) ?? null
    const debt = mark === null ? undefined : this.#debts.get(mark)
    if (debt !== undefined) {
      debt.units = Math.max(0, debt.units + units)
      debt.atOurMs = ourMs
    } else if (units > 0 && this.#debts.size < MAX_DEBTS) {
      const known = this.#subjects.get(quota, subject)
      this.#debts.set(known.mark(quota), { quota, subject: known, units, atOurMs: ourMs })
    } else {
      this.#forgiven += Math.max(0, units)
    }
  }

  /** Redis has not heard of one that it was to be told. */
  oweAgain(debt: Debt): void {
    const mark = debt.subject.mark(debt.quota)
    const newer = this.#debts.get(mark)
    if (newer !== undefined) newer.units += debt.units
    else if (this.#debts.size < MAX_DEBTS) this.#debts.set(mark, debt)
    else this.#forgiven += debt.units
  }

  forget(mark: Mark): void {
    this.#debts.delete(mark)
  }

  /** Calls `pay` for each; those for which it answers false stay. */
  settle(pay: (debt: Debt) => boolean): void {
    for (const [mark, debt] of this.#debts) if (pay(debt)) this.#debts.delete(mark)
  }
}
