// Counters in this process. Exact for the first 100,000 subjects over all policies; an entry leaves when its state has
// expired, found by a cursor that looks at a few entries whenever a stranger comes, so there is never a long scan.
//
// A stranger who finds no room shares one of 65,536 hashed counters of the policy with others. That is stricter for
// strangers, and a flood of made-up subjects (one /64 of IPv6 after another) can never push out a live client, as it
// could out of an LRU. The shared counters are GCRA, whatever the policy counts with, at a rate that keeps its promise
// (`Quota.sharedRate`). Memory at most: 10.4 MB of cells, a table of 4 MB, and 2 MiB for each policy that overflows. The
// numbers of an entry are cells[entry * STRIDE ...].

import { sharedGcra } from '../algorithms/gcra.ts'
import type { Standing } from '../algorithm.ts'
import { ALGORITHMS, type Demand, type Quota, type QuotaStore } from '../quota.ts'
import { NO_ENTRY, SubjectTable } from './subject-table.ts'

export const MAX_SUBJECTS = 100_000
const OVERFLOW_SLOTS = 2 ** 16
/** With four looked at for each that comes, expired entries are a quarter of all at most. */
const SWEPT_PER_STRANGER = 4
const STRIDE = Math.max(...ALGORITHMS.map((algorithm) => algorithm.cells))

/** Where a subject is counted: an entry (0 and up), nowhere yet, or in overflow slot `OVERFLOW - place`. */
const NOWHERE = -1
const OVERFLOW = -2

export interface MemoryStore extends QuotaStore {
  charge(demand: Demand, nowMs: number): boolean
  /** Entries held, live or not yet swept; at most MAX_SUBJECTS. */
  readonly subjects: number
  /** Charges asked for so far, by policy, of strangers who had no entry and shared a counter. */
  readonly overflowed: number
}

/** Decides at once, for this process alone. Give it to each configuration in turn: what clients have used stays. */
export const createMemoryStore = (): MemoryStore => new ProcessMemory()

/** What one quota identity has counted. */
class Ledger {
  /** The one that used it last: after a reload, the new one. */
  quota: Quota
  readonly salt: number
  entries = 0
  overflow: Float64Array | null = null
  /** From when on no overflow counter can matter. */
  overflowIdleAtMs = 0

  constructor(quota: Quota, salt: number) {
    this.quota = quota
    this.salt = salt
  }
}

class ProcessMemory implements MemoryStore {
  readonly #ledgers = new Map<string, Ledger>()
  readonly #table = new SubjectTable<Ledger>(MAX_SUBJECTS)
  // Reserved at once, since a growing array would have to be copied; untouched pages take no memory.
  readonly #cells = new Float64Array(MAX_SUBJECTS * STRIDE)
  readonly #blank = new Float64Array(STRIDE)
  #ledgersMade = 0
  #cursor = 0
  #overflowed = 0
  /** Of the request at hand, by policy. */
  readonly #ledgerOf: Ledger[] = []
  readonly #placeOf: number[] = []
  readonly #lowOf: number[] = []
  readonly #highOf: number[] = []

  get subjects(): number {
    return this.#table.size
  }

  get overflowed(): number {
    return this.#overflowed
  }

  charge(demand: Demand, nowMs: number): boolean {
    const strangers = this.#locate(demand, nowMs)
    const admitted = this.#judge(demand, nowMs)
    if (admitted) this.#take(demand, nowMs)
    this.#measure(demand, nowMs)
    if (strangers > 0) {
      this.#noteOverflow(demand)
      // Last, since it may free an entry that this request has just been judged by.
      this.#sweep(strangers * SWEPT_PER_STRANGER, nowMs)
    }
    return admitted
  }

  peek(demand: Demand, nowMs: number): void {
    this.#locate(demand, nowMs)
    this.#judge(demand, nowMs)
    this.#measure(demand, nowMs)
  }

  inspect(demand: Demand, nowMs: number): Promise<void> {
    this.peek(demand, nowMs)
    return Promise.resolve()
  }

  settle(quota: Quota, subject: string, delta: number, chargedAtMs: number, nowMs: number): void {
    const ledger = this.#ledger(quota)
    const low = this.#table.hash.of(subject, ledger.salt)
    const { high } = this.#table.hash
    let place = this.#table.find(low, high, ledger)
    if (place === NO_ENTRY) {
      // Forgotten, so there is nothing to give back; in a counter that strangers share, it may be another's.
      if (delta < 0) return
      place = this.#placeOfStranger(ledger, low, high, 0, nowMs)
      if (place === NOWHERE) place = this.#enter(low, high, ledger)
    }
    if (place >= 0) {
      quota.algorithm.settle(this.#cells, place * STRIDE, quota.rate, delta, chargedAtMs, nowMs)
      return
    }
    const overflow = ledger.overflow as Float64Array
    sharedGcra.settle(overflow, (OVERFLOW - place) * sharedGcra.cells, quota.sharedRate, delta, chargedAtMs, nowMs)
    ledger.overflowIdleAtMs = Math.max(ledger.overflowIdleAtMs, idleAtMs(ledger, overflow, OVERFLOW - place))
  }

  reset(quota: Quota, subject: string, nowMs: number): Promise<void> {
    const ledger = this.#ledger(quota)
    const low = this.#table.hash.of(subject, ledger.salt)
    const { high } = this.#table.hash
    let place = this.#table.find(low, high, ledger)
    if (place !== NO_ENTRY) {
      this.#table.remove(place)
      ledger.entries--
    }
    // Who shares its counter is forgiven too.
    place = this.#placeOfStranger(ledger, low, high, 0, nowMs)
    if (place <= OVERFLOW) {
      const slot = (OVERFLOW - place) * sharedGcra.cells
      ledger.overflow?.fill(0, slot, slot + sharedGcra.cells)
    }
    return Promise.resolve()
  }

  /** Nothing is held but memory, which goes with the store. */
  close(): void {}

  /** Finds where each subject is counted; answers how many have no entry. */
  #locate({ quotas, subjects, from, to }: Demand, nowMs: number): number {
    let strangers = 0
    let entering = 0
    for (let i = from; i < to; i++) {
      const subject = subjects[i] as string | null
      if (subject === null) continue
      const ledger = this.#ledger(quotas[i] as Quota)
      const low = this.#table.hash.of(subject, ledger.salt)
      const { high } = this.#table.hash
      let place = this.#table.find(low, high, ledger)
      if (place === NO_ENTRY) {
        strangers++
        place = this.#placeOfStranger(ledger, low, high, entering, nowMs)
        if (place === NOWHERE) entering++
      }
      this.#ledgerOf[i] = ledger
      this.#placeOf[i] = place
      this.#lowOf[i] = low
      this.#highOf[i] = high
    }
    return strangers
  }

  #ledger(quota: Quota): Ledger {
    let ledger = this.#ledgers.get(quota.id)
    if (ledger === undefined) {
      ledger = new Ledger(quota, Math.imul(++this.#ledgersMade, 0x9e3779b1))
      this.#ledgers.set(quota.id, ledger)
    }
    ledger.quota = quota
    return ledger
  }

  /** A stranger gets an entry where there is room, unless its overflow counter still holds use of the last window: that
   *  use may be its own, and a fresh entry would forget it. entering: strangers of this request before this one. */
  #placeOfStranger(ledger: Ledger, low: number, high: number, entering: number, nowMs: number): number {
    const slot = high & (OVERFLOW_SLOTS - 1)
    if (!this.#table.hasRoom(low, entering + 1)) {
      ledger.overflow ??= new Float64Array(OVERFLOW_SLOTS * sharedGcra.cells)
      return OVERFLOW - slot
    }
    if (ledger.overflow === null || ledger.overflowIdleAtMs <= nowMs) return NOWHERE
    return idleAtMs(ledger, ledger.overflow, slot) <= nowMs ? NOWHERE : OVERFLOW - slot
  }

  /** Sets `admitted` of each; answers whether all that are enforced have room. */
  #judge({ quotas, subjects, costs, standings, from, to }: Demand, nowMs: number): boolean {
    let all = true
    for (let i = from; i < to; i++) {
      if (subjects[i] === null) continue
      const { algorithm, rate, sharedRate, isEnforced } = quotas[i] as Quota
      const cost = costs[i] as number
      const place = this.#placeOf[i] as number
      const standing = standings[i] as Standing
      let fits = cost <= rate.burst
      if (place >= 0) {
        fits = algorithm.fits(this.#cells, place * STRIDE, rate, cost, nowMs)
      } else if (place !== NOWHERE) {
        const overflow = (this.#ledgerOf[i] as Ledger).overflow as Float64Array
        fits = sharedGcra.fits(overflow, (OVERFLOW - place) * sharedGcra.cells, sharedRate, cost, nowMs)
      }
      standing.admitted = fits
      standing.source = 'memory'
      if (!fits && isEnforced) all = false
    }
    return all
  }

  #take({ quotas, subjects, costs, standings, from, to }: Demand, nowMs: number): void {
    for (let i = from; i < to; i++) {
      // One that only watches is charged as it would be if it were enforced.
      if (subjects[i] === null || !(standings[i] as Standing).admitted) continue
      const cost = costs[i] as number
      const { algorithm, rate, sharedRate } = quotas[i] as Quota
      const ledger = this.#ledgerOf[i] as Ledger
      let place = this.#placeOf[i] as number
      if (place <= OVERFLOW) {
        const overflow = ledger.overflow as Float64Array
        sharedGcra.charge(overflow, (OVERFLOW - place) * sharedGcra.cells, sharedRate, cost, nowMs)
        ledger.overflowIdleAtMs = Math.max(ledger.overflowIdleAtMs, idleAtMs(ledger, overflow, OVERFLOW - place))
        continue
      }
      if (place === NOWHERE) {
        place = this.#enter(this.#lowOf[i] as number, this.#highOf[i] as number, ledger)
        this.#placeOf[i] = place
      }
      algorithm.charge(this.#cells, place * STRIDE, rate, cost, nowMs)
    }
  }

  #measure({ quotas, subjects, costs, standings, from, to }: Demand, nowMs: number): void {
    for (let i = from; i < to; i++) {
      if (subjects[i] === null) continue
      const cost = costs[i] as number
      const { algorithm, rate, sharedRate } = quotas[i] as Quota
      const place = this.#placeOf[i] as number
      const standing = standings[i] as Standing
      if (place >= 0) {
        algorithm.measure(this.#cells, place * STRIDE, rate, cost, nowMs, standing)
      } else if (place === NOWHERE) {
        algorithm.measure(this.#blank.fill(0), 0, rate, cost, nowMs, standing)
      } else {
        const overflow = (this.#ledgerOf[i] as Ledger).overflow as Float64Array
        sharedGcra.measure(overflow, (OVERFLOW - place) * sharedGcra.cells, sharedRate, cost, nowMs, standing)
      }
    }
  }

  #noteOverflow({ subjects, from, to }: Demand): void {
    for (let i = from; i < to; i++) {
      if (subjects[i] !== null && (this.#placeOf[i] as number) <= OVERFLOW) this.#overflowed++
    }
  }

  #enter(low: number, high: number, ledger: Ledger): number {
    const entry = this.#table.add(low, high, ledger)
    this.#cells.fill(0, entry * STRIDE, (entry + 1) * STRIDE)
    ledger.entries++
    return entry
  }

  /** Looks at the next `count` entries and lets the expired go. */
  #sweep(count: number, nowMs: number): void {
    for (let looked = 0; looked < count; looked++) {
      if (this.#cursor >= this.#table.highWater) {
        this.#cursor = 0
        this.#dropIdleLedgers(nowMs)
      }
      const entry = this.#cursor++
      const ledger = this.#table.ownerOf(entry)
      if (ledger === null) continue
      const { algorithm, rate } = ledger.quota
      if (algorithm.fullAtMs(this.#cells, entry * STRIDE, rate) > nowMs) continue
      this.#table.remove(entry)
      ledger.entries--
    }
  }

  /** Once per round of the cursor: overflow counters that nothing depends on, and policies that no reload kept. */
  #dropIdleLedgers(nowMs: number): void {
    for (const [id, ledger] of this.#ledgers) {
      if (ledger.overflowIdleAtMs <= nowMs) ledger.overflow = null
      if (ledger.entries === 0 && ledger.overflow === null) this.#ledgers.delete(id)
    }
  }
}

/** When an overflow counter has been empty for a whole window, so that a fresh entry breaks no promise. */
const idleAtMs = ({ quota }: Ledger, overflow: Float64Array, slot: number): number =>
  sharedGcra.fullAtMs(overflow, slot * sharedGcra.cells, quota.sharedRate) + quota.rate.windowMs
