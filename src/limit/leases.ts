// Units taken beforehand, around counters that instances share: who asks often has a block of them here, from which requests
// are decided at once. lease.ts says for whom, and how large; this file alone knows which blocks there are.
//
// Its promise: never more than the limit. A block is charged like a request, before anything of it is spent, and spent
// only while that means the same as a charge at that time: until its slice, its window or its time is over by the clock of
// Redis, taken from when the call was sent, which is never too late. One that may not have been charged is not spent, nor
// one that a reset or a lower limit has overtaken. A request is decided here only where each of its policies has a block
// for it; else all of them are asked of Redis.
//
// What is not spent goes back when its time is over, and at the end. An instance that dies loses a block per subject.
// What a request gives back goes into the block that it came from, where that is still here and counts as when it was
// charged; else it waits for the next look at the blocks, or for a question to Redis, and goes back in one with others.
// A reset by another instance is not heard of: until their time is over, blocks of before may be spent on top.
//
// Bounds: 10,000 subjects are watched at a time. Runs on every request: what is found here makes no object.

import { type DecisionSource, type Standing, WHENEVER, blankStanding } from './algorithm.ts'
import { type LeaseRule, blockUnits, compileLease } from './lease.ts'
import type { Demand, Quota, QuotaStore, SharedQuotaStore } from './quota.ts'

const MAX_SUBJECTS = 10_000
/** Between looks for blocks that are over. */
const SWEEP_MS = 25
/** Over which it is measured how much a subject takes. */
const PERIOD_MS = 1000
/** Left of a block when the next is asked for. */
const REFILL_AT = 0.25
/** Times at which what is given back was charged; those of one subject that wait. */
const MAX_RETURNS = 32
/** Clocks do not tick alike, and Redis tells whole milliseconds. */
const MARGIN_MS = 2

export interface LeasesSetup {
  /** What all instances share. */
  readonly counters: SharedQuotaStore
  /** Instances that share the counters, this one among them. */
  readonly instances: () => number
  /** Wall clock, epoch milliseconds. */
  readonly clock: () => number
  /** Milliseconds since whenever, steady. */
  readonly steadyClock: () => number
}

interface Block {
  left: number
  /** By the steady clock; by the wall clock as well, since the steady one stands still while a machine sleeps. */
  readonly endMs: number
  readonly endWallMs: number
  /** By the clock of Redis. */
  readonly chargedAtMs: number
}

/** Units to be given back of what was charged at one time. */
interface Return {
  units: number
  readonly chargedAtMs: number
}

/** One subject under one policy. */
interface Borrower {
  readonly subject: string
  /** Of who asked last: after a reload, the new one. */
  rule: LeaseRule
  /** Oldest first; two at most. */
  readonly blocks: Block[]
  /** Of blocks that are gone. */
  readonly returns: Return[]
  /** Units of the last block, for knowing when it is nearly spent. */
  units: number
  /** While a block is on its way. */
  asking: Promise<void> | null
  /** Taken in this period. */
  taken: number
  /** Units a second in the period before; 0 where that is too few. */
  rate: number
  /** As Redis told when it charged the last block, and when that was by the steady clock. */
  readonly told: Standing
  toldAtMs: number
}

/** Units. */
export interface LeaseCounts {
  /** In blocks now, not spent. */
  readonly held: number
  readonly taken: number
  /** Given back when their time was over, or lost with it. */
  readonly returned: number
  readonly lapsed: number
}

export interface Leases extends QuotaStore {
  readonly counts: LeaseCounts
  /** Gives back what is over, and measures anew who takes how much. A timer does it; tests have a time of their own. */
  sweep(): void
  close(): Promise<void>
}

export const createLeases = (setup: LeasesSetup): Leases => new Lender(setup)

/** Those of one policy. */
type Borrowers = Map<string, Borrower>

class Lender implements Leases {
  readonly #counters: SharedQuotaStore
  readonly #setup: LeasesSetup
  /** By policy; as many as have ever been configured. */
  readonly #byPolicy = new Map<string, Borrowers>()
  /** The same, and the rule, for each quota object: routes have their own of the same policy. null: nothing is lent. */
  readonly #lending = new WeakMap<Quota, { readonly rule: LeaseRule; readonly borrowers: Borrowers } | null>()
  #watched = 0
  /** Those that have blocks. */
  readonly #holders = new Set<Borrower>()
  #taken = 0
  #returned = 0
  #lapsed = 0
  #timer: NodeJS.Timeout | undefined
  #periodBeganMs: number
  #isClosed = false
  /** Those with something to give back. */
  readonly #returning = new Set<Borrower>()
  /** Of the request at hand, by the indexes of its demand. */
  readonly #borrowers: (Borrower | null)[] = []

  constructor(setup: LeasesSetup) {
    this.#setup = setup
    this.#counters = setup.counters
    this.#periodBeganMs = setup.steadyClock()
  }

  get counts(): LeaseCounts {
    let held = 0
    for (const borrower of this.#holders) held += leftOf(borrower)
    return { held, taken: this.#taken, returned: this.#returned, lapsed: this.#lapsed }
  }

  charge(demand: Demand, nowMs: number): boolean | Promise<boolean> {
    const { quotas, subjects, costs, from, to } = demand
    const steadyMs = this.#setup.steadyClock()
    let isHeld = true
    let isLent = true
    for (let i = from; i < to; i++) {
      const subject = subjects[i] as string | null
      if (subject === null) continue
      const borrower = this.#watch(quotas[i] as Quota, subject, costs[i] as number)
      this.#borrowers[i] = borrower
      if (borrower === null || borrower.rate === 0) isLent = isHeld = false
      else if (isHeld && this.#usable(borrower, costs[i] as number, steadyMs, nowMs) === null) isHeld = false
    }
    if (isHeld) {
      this.#spend(demand, steadyMs)
      return true
    }
    if (this.#returning.size > 0) this.#giveReturnsBefore(demand)
    const decided = this.#counters.charge(demand, nowMs)
    return isLent && typeof decided !== 'boolean' ? this.#lendAfter(decided, demand) : decided
  }

  /** Counts what a subject asks for; null where nothing is lent, or no more subjects can be watched. */
  #watch(quota: Quota, subject: string, cost: number): Borrower | null {
    let lending = this.#lending.get(quota)
    if (lending === undefined) {
      const rule = compileLease(quota)
      lending = rule && { rule, borrowers: this.#borrowersOf(quota) }
      this.#lending.set(quota, lending)
    }
    if (lending === null || cost > lending.rule.maxCost) return null
    let borrower = lending.borrowers.get(subject)
    if (borrower === undefined) {
      if (this.#watched >= MAX_SUBJECTS) return null
      borrower = {
        subject,
        rule: lending.rule,
        blocks: [],
        returns: [],
        units: 0,
        asking: null,
        taken: 0,
        rate: 0,
        told: blankStanding(),
        toldAtMs: 0,
      }
      lending.borrowers.set(subject, borrower)
      this.#watched++
      this.#timer ??= setInterval(() => this.sweep(), SWEEP_MS).unref()
    }
    if (borrower.rule !== lending.rule) this.#follow(borrower, lending.rule)
    borrower.taken += cost
    return borrower
  }

  #borrowersOf({ id }: Quota): Borrowers {
    const known = this.#byPolicy.get(id)
    if (known !== undefined) return known
    const made: Borrowers = new Map()
    this.#byPolicy.set(id, made)
    return made
  }

  /** Takes on the rule of another quota object: of another route, or of a new configuration. */
  #follow(borrower: Borrower, rule: LeaseRule): void {
    if (!isSameLimit(borrower.rule, rule)) this.#giveAllBack(borrower)
    borrower.rule = rule
  }

  /** The block that has room for a cost, which is the first then. */
  #usable(borrower: Borrower, cost: number, steadyMs: number, wallMs: number): Block | null {
    for (;;) {
      const block = borrower.blocks[0]
      if (block === undefined) return null
      if (block.left >= cost && steadyMs < block.endMs && wallMs < block.endWallMs) return block
      borrower.blocks.shift()
      this.#giveBack(borrower, block)
    }
  }

  #spend({ subjects, costs, standings, atMs, from, to }: Demand, steadyMs: number): void {
    for (let i = from; i < to; i++) {
      if (subjects[i] === null) continue
      const borrower = this.#borrowers[i] as Borrower
      const block = borrower.blocks[0] as Block
      block.left -= costs[i] as number
      const left = leftOf(borrower)
      const { told, toldAtMs, rule } = borrower
      const standing = standings[i] as Standing
      standing.admitted = true
      standing.remaining = Math.min(rule.quota.rate.burst, told.remaining + left)
      standing.waitMs = 0
      standing.nextMs = Math.max(1, Math.ceil(told.nextMs - (steadyMs - toldAtMs)))
      // From when the block was charged, as atMs is.
      standing.fullMs = told.fullMs
      standing.source = 'lease'
      atMs[i] = block.chargedAtMs
      if (left <= borrower.units * REFILL_AT) this.#lend(borrower, left, told.remaining)
    }
  }

  /** Takes a block for each of the policies once it is known how much is left. */
  async #lendAfter(decided: Promise<boolean>, { subjects, standings, from, to }: Demand): Promise<boolean> {
    const borrowers = this.#borrowers.slice(0, to)
    const admitted = await decided
    if (!admitted) return false
    for (let i = from; i < to; i++) {
      const { source, remaining } = standings[i] as Standing
      if (subjects[i] === null || source !== 'redis') continue
      const borrower = borrowers[i] as Borrower
      // What was asked before a block came may be answered after it.
      if (leftOf(borrower) === 0) this.#lend(borrower, 0, remaining)
    }
    return true
  }

  #lend(borrower: Borrower, held: number, remaining: number): void {
    if (borrower.asking !== null || borrower.blocks.length > 1 || this.#isClosed) return
    this.#giveReturnsOf(borrower)
    const { rule, rate } = borrower
    const units = blockUnits(rule, { rate, remaining, held, instances: this.#setup.instances() })
    if (units > 0) borrower.asking = this.#take(borrower, rule, units).finally(() => void (borrower.asking = null))
  }

  async #take(borrower: Borrower, rule: LeaseRule, units: number): Promise<void> {
    const { clock, steadyClock } = this.#setup
    const [askedAtMs, askedAtWallMs] = [steadyClock(), clock()]
    const standing = blankStanding()
    const chargedAtMs = await this.#counters.take(rule.quota, borrower.subject, units, standing)
    if (chargedAtMs === null) return
    this.#taken += units
    const lifetimeMs = rule.lifetimeMs(chargedAtMs) - MARGIN_MS
    const block = { left: units, endMs: askedAtMs + lifetimeMs, endWallMs: askedAtWallMs + lifetimeMs, chargedAtMs }
    if (!isSameLimit(borrower.rule, rule)) {
      this.#giveBack(borrower, block)
      return
    }
    Object.assign(borrower.told, standing)
    borrower.toldAtMs = steadyClock()
    borrower.units = units + leftOf(borrower)
    borrower.blocks.push(block)
    this.#holders.add(borrower)
  }

  #giveBack({ rule, subject }: Borrower, { left, chargedAtMs }: Block): void {
    if (rule.isReturned) this.#returned += left
    else this.#lapsed += left
    if (left === 0 || !rule.isReturned) return
    this.#counters.settle(rule.quota, subject, -left, chargedAtMs, Math.floor(this.#setup.clock()))
  }

  #giveAllBack(borrower: Borrower): void {
    for (const block of borrower.blocks.splice(0)) this.#giveBack(borrower, block)
  }

  /** Gives back what waits for that. */
  #giveReturns(): void {
    for (const borrower of this.#returning) this.#giveReturnsOf(borrower)
  }

  /** Who is asked about shall not be refused what has been given back already. */
  #giveReturnsBefore({ subjects, from, to }: Demand): void {
    for (let i = from; i < to; i++) {
      const borrower = subjects[i] === null ? null : this.#borrowers[i]
      if (borrower) this.#giveReturnsOf(borrower)
    }
  }

  #giveReturnsOf(borrower: Borrower): void {
    const { returns, rule, subject } = borrower
    if (!this.#returning.delete(borrower)) return
    const nowMs = Math.floor(this.#setup.clock())
    for (const { units, chargedAtMs } of returns.splice(0)) {
      this.#counters.settle(rule.quota, subject, -units, chargedAtMs, nowMs)
    }
  }

  sweep(): void {
    this.#giveReturns()
    const { clock, steadyClock } = this.#setup
    const [steadyMs, wallMs] = [steadyClock(), clock()]
    for (const borrower of this.#holders) {
      if (this.#usable(borrower, 1, steadyMs, wallMs) === null) this.#holders.delete(borrower)
    }
    const periodMs = steadyMs - this.#periodBeganMs
    if (periodMs < PERIOD_MS) return
    this.#periodBeganMs = steadyMs
    for (const borrowers of this.#byPolicy.values()) {
      for (const borrower of borrowers.values()) {
        const rate = (borrower.taken * 1000) / periodMs
        borrower.taken = 0
        borrower.rate = rate < borrower.rule.minRate ? 0 : rate
        if (borrower.rate > 0 || borrower.asking !== null || borrower.blocks.length > 0) continue
        borrowers.delete(borrower.subject)
        this.#watched--
      }
    }
    if (this.#watched > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  peek(demand: Demand, nowMs: number): void {
    this.#counters.peek(demand, nowMs)
    const { quotas, subjects, costs, standings, from, to } = demand
    for (let i = from; i < to; i++) {
      const { id, rate } = quotas[i] as Quota
      const subject = subjects[i] as string | null
      const borrower = subject === null ? undefined : this.#byPolicy.get(id)?.get(subject)
      const left = borrower === undefined ? 0 : leftOf(borrower)
      if (left === 0) continue
      const standing = standings[i] as Standing
      standing.remaining = Math.min(rate.burst, standing.remaining + left)
      if (standing.remaining < (costs[i] as number)) continue
      standing.admitted = true
      standing.waitMs = 0
    }
  }

  inspect(demand: Demand, nowMs: number): Promise<void> {
    this.#giveReturns()
    return this.#counters.inspect(demand, nowMs)
  }

  settle(
    quota: Quota,
    subject: string,
    delta: number,
    chargedAtMs: number,
    nowMs: number,
    source?: DecisionSource,
  ): void {
    const borrower = this.#byPolicy.get(quota.id)?.get(subject)
    const isOften = borrower !== undefined && (borrower.rate > 0 || borrower.blocks.length > 0)
    // What was decided without Redis was never in a block.
    const isTheirs = isOften && source !== 'share' && chargedAtMs !== WHENEVER
    if (isTheirs && delta < 0) this.#takeBack(borrower, -delta, chargedAtMs)
    else this.#counters.settle(quota, subject, delta, chargedAtMs, nowMs, source)
  }

  #takeBack(borrower: Borrower, units: number, chargedAtMs: number): void {
    const { rule, blocks, returns } = borrower
    // What was charged at the same time, in a block or not, is counted until the same time.
    const block = rule.isReturned ? blocks.find((each) => each.chargedAtMs === chargedAtMs) : undefined
    if (block !== undefined) {
      block.left += units
      return
    }
    const same = returns.find((each) => each.chargedAtMs === chargedAtMs)
    if (same === undefined) returns.push({ units, chargedAtMs })
    else same.units += units
    this.#returning.add(borrower)
    if (returns.length >= MAX_RETURNS) this.#giveReturnsOf(borrower)
  }

  async reset(quota: Quota, subject: string, nowMs: number): Promise<void> {
    const borrower = this.#byPolicy.get(quota.id)?.get(subject)
    if (borrower === undefined) return this.#counters.reset(quota, subject, nowMs)
    // What is held here, on its way or to be given back was taken from what is forgotten now.
    while (borrower.asking !== null) await borrower.asking
    for (const { left } of borrower.blocks.splice(0)) this.#lapsed += left
    borrower.returns.splice(0)
    return this.#counters.reset(quota, subject, nowMs)
  }

  async close(): Promise<void> {
    this.#isClosed = true
    clearInterval(this.#timer)
    this.#giveReturns()
    for (const borrowers of this.#byPolicy.values()) {
      for (const borrower of borrowers.values()) {
        await borrower.asking
        this.#giveAllBack(borrower)
      }
    }
    await this.#counters.close()
  }
}

/** A lower limit holds at once, so what was taken under another one is not spent. */
const isSameLimit = ({ quota: { rate: a } }: LeaseRule, { quota: { rate: b } }: LeaseRule): boolean =>
  a.limit === b.limit && a.burst === b.burst

function leftOf({ blocks }: Borrower): number {
  let left = 0
  for (const block of blocks) left += block.left
  return left
}
