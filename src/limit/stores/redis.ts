// Counters in Redis, shared by all instances with the same namespace: exact across them. All requests of one turn of the
// event loop go in one call of the script, each charged all or nothing; of a Redis Cluster, which cannot decide over two
// keys at once, in one call per subject, and what is charged in one while another refuses is given back.
//
// Its promise: no request waits longer than the deadline from its arrival, and none at all while Redis is lost; what is
// not answered in time is decided here, as `fallback` says (redis-share.ts). No request finds out whether Redis is back.
//
// A refusal is remembered for as long as it holds, at most a second: who hammers an empty budget costs no call. It is
// exact unless somebody gives units back.
//
// Nothing is charged twice: no call is repeated, and a call without an answer counts as carried out. After an outage,
// what was used in long windows is taken from the shared counters as well; short ones heal by themselves.
//
// Bounds: 128 requests a call, 4 calls in flight, 32 that wait; subjects as redis-subjects.ts has it; debts of 10,000.

import { Sweeper, type Wait } from '../../core/deadlines.ts'
import type { RedisLink } from '../../core/redis.ts'
import type { Standing } from '../algorithm.ts'
import type { Demand, Quota, QuotaStore } from '../quota.ts'
import type { SubjectTag } from '../subject-tag.ts'
import { Ask, Call } from './redis-call.ts'
import { Peers } from './redis-peers.ts'
import { timeOf } from './redis-reply.ts'
import { QUOTA_SCRIPT } from './redis-script.ts'
import { Share } from './redis-share.ts'
import { type Mark, type Subject, Subjects, recall } from './redis-subjects.ts'

const MAX_ASKS = 128
/** Corrections in one call. */
const MAX_CORRECTIONS = 512
/** Calls in flight; in a Redis Cluster, batches of them. */
const MAX_IN_FLIGHT = 4
const MAX_WAITING = 32
/** Of a batch for a Redis Cluster: a call for each of its subjects. */
const MAX_CLUSTER_ASKS = 64
const MAX_DEBTS = 10_000
/** Use in shorter windows is forgotten when Redis comes back. */
const LONG_WINDOW_MS = 60_000

export interface RedisStoreSetup {
  /** A connection of its own, whose probes write. */
  readonly link: RedisLink
  readonly namespace: string
  /** The same in all instances. */
  readonly tagOf: SubjectTag
  /** This instance's name, unlike any other's. */
  readonly instance: string
  /** Longest wait of a request. */
  readonly deadlineMs: number
  /** Wall clock, epoch milliseconds. */
  readonly clock: () => number
}

export interface RedisStore extends QuotaStore {
  /** Instances that share the counters, as far as is known. */
  readonly instances: number
  /** Resolves when the shared counters can be used, or after maxMs. */
  whenReady(maxMs: number): Promise<void>
  close(): Promise<void>
}

export const createRedisStore = (setup: RedisStoreSetup): RedisStore => new SharedCounters(setup)

/** Requests and corrections that go out together. */
class Batch {
  /** One, or one per subject. */
  readonly calls = new Map<string, Call>()
  readonly asks: Ask[] = []
  corrections = 0
  wait: Wait | null = null
  isSent = false
  /** Its requests have been decided here. */
  isOver = false
}

/** What was used here while Redis was lost. */
interface Debt {
  readonly quota: Quota
  readonly subject: Subject
  units: number
  atMs: number
}

class SharedCounters implements RedisStore {
  readonly #link: RedisLink
  readonly #script: ReturnType<RedisLink['script']>
  readonly #clock: () => number
  readonly #peers: Peers
  readonly #subjects: Subjects
  readonly #share = new Share()
  readonly #deadlines: Sweeper
  readonly #unlisten: () => void
  readonly #maxAsks: number
  /** Those that the demand at hand is about, by its indexes. */
  readonly #known: (Subject | null)[] = []
  #open: Batch | null = null
  #waiting: Batch[] = []
  readonly #inFlight = new Set<Batch>()
  #isFlushDue = false
  readonly #debts = new Map<Mark, Debt>()
  #isClosed = false

  constructor({ link, namespace, tagOf, instance, deadlineMs, clock }: RedisStoreSetup) {
    this.#link = link
    this.#script = link.script(QUOTA_SCRIPT)
    this.#clock = clock
    this.#peers = new Peers({ link, namespace, instance, clock })
    this.#subjects = new Subjects(namespace, tagOf)
    this.#deadlines = new Sweeper(deadlineMs, () => {})
    this.#maxAsks = link.isCluster ? MAX_CLUSTER_ASKS : MAX_ASKS
    this.#unlisten = link.onChange((isUp) => (isUp ? this.#comeBack() : this.#giveUp()))
  }

  get instances(): number {
    return this.#peers.count
  }

  async whenReady(maxMs: number): Promise<void> {
    if (await this.#link.whenUp(maxMs)) await this.#peers.beat()
  }

  charge(demand: Demand, ourMs: number): boolean | Promise<boolean> {
    const nowMs = this.#peers.there(ourMs)
    const isUsable = this.#isUsable
    this.#recognize(demand, isUsable)
    if (this.#isRefused(demand, nowMs)) return false
    const batch = isUsable ? this.#batch() : null
    if (batch === null) return this.#decideHere(demand, this.#known, nowMs, true)
    return new Promise((resolve) => this.#ask(batch, new Ask(demand, this.#known.slice(0, demand.to), resolve)))
  }

  peek(demand: Demand, ourMs: number): void {
    const nowMs = this.#peers.there(ourMs)
    this.#recognize(demand, false)
    if (this.#isUsable) this.#recall(demand, nowMs)
    else this.#share.peek(demand, this.#known, this.#peers.count, nowMs)
  }

  async inspect(demand: Demand, ourMs: number): Promise<void> {
    // What is on its way counts.
    this.#flush()
    this.peek(demand, ourMs)
    this.#recognize(demand, true)
    const subjects = this.#known.slice(0, demand.to)
    // One call each, so that a Redis Cluster can answer as well.
    await Promise.all(
      subjects.map(async (subject) => {
        if (subject === null) return
        const ask = new Ask(demand, subjects, () => {})
        ask.isCharged = false
        const call = new Call()
        call.ask(ask, (each) => each === subject)
        const reply = await this.#script(call.keys, [call.message(this.#now())]).catch(() => null)
        if (reply !== null) call.read(reply as Buffer, noOp, noOp)
      }),
    )
  }

  settle(quota: Quota, subject: string, delta: number, chargedAtMs: number, ourMs: number): void {
    if (this.#isUsable) {
      const known = this.#subjects.get(quota, subject)
      const mark = known.mark(quota)
      mark.own = Math.max(0, mark.own + delta)
      if (delta < 0) mark.refusedUntilMs = 0
      this.#correct(quota, known, delta, chargedAtMs)
      return
    }
    const nowMs = this.#peers.there(ourMs)
    this.#share.settle(quota, subject, delta, { chargedAtMs, nowMs, instances: this.#peers.count })
    this.#owe(quota, subject, delta, nowMs)
  }

  async reset(quota: Quota, subject: string, ourMs: number): Promise<void> {
    const nowMs = this.#peers.there(ourMs)
    const known = this.#subjects.get(quota, subject)
    const mark = known.mark(quota)
    mark.forget()
    this.#debts.delete(mark)
    this.#share.reset(quota, subject, nowMs)
    this.#flush()
    const call = new Call()
    call.correct(quota, known, 0, 0)
    await this.#script(call.keys, [call.message(nowMs)])
    // A charge that was under way may have told of what is forgotten now.
    mark.forget()
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#unlisten()
    this.#giveUp()
    for (const batch of this.#inFlight) this.#expire(batch)
    await this.#peers.close()
  }

  get #isUsable(): boolean {
    return this.#link.isUp && this.#peers.isHeard && !this.#isClosed
  }

  /** takesIn: strangers as well. Not in an outage, when a flood of them would leave much to be collected. */
  #recognize({ quotas, subjects, from, to }: Demand, takesIn: boolean): void {
    for (let i = 0; i < to; i++) {
      const quota = quotas[i] as Quota
      const subject = subjects[i] as string | null
      if (i < from || subject === null) this.#known[i] = null
      else this.#known[i] = takesIn ? this.#subjects.get(quota, subject) : this.#subjects.find(quota, subject)
    }
  }

  /** True where it is known that a policy refuses; then all standings are as far as is known. */
  #isRefused(demand: Demand, nowMs: number): boolean {
    const { quotas, costs, from, to } = demand
    for (let i = from; i < to; i++) {
      const quota = quotas[i] as Quota
      const known = this.#known[i] ?? null
      if (known === null || !quota.isEnforced) continue
      const cost = costs[i] as number
      if (cost <= quota.rate.burst && known.findMark(quota)?.refuses(cost, nowMs) !== true) continue
      this.#recall(demand, nowMs)
      return true
    }
    return false
  }

  #recall({ quotas, costs, standings, from, to }: Demand, nowMs: number): void {
    for (let i = from; i < to; i++) {
      const quota = quotas[i] as Quota
      const mark = this.#known[i]?.findMark(quota) ?? null
      recall(mark, quota, costs[i] as number, nowMs, standings[i] as Standing)
    }
  }

  /** isUnasked: Redis knows nothing of the request. */
  #decideHere(demand: Demand, known: readonly (Subject | null)[], nowMs: number, isUnasked: boolean): boolean {
    const admitted = this.#share.charge(demand, known, this.#peers.count, nowMs)
    if (!admitted || !isUnasked) return admitted
    for (let i = demand.from; i < demand.to; i++) {
      const subject = demand.subjects[i] as string | null
      if (subject === null || !(demand.standings[i] as Standing).admitted) continue
      this.#owe(demand.quotas[i] as Quota, subject, demand.costs[i] as number, nowMs)
    }
    return admitted
  }

  /** The batch that takes one more; null where too many wait. */
  #batch(): Batch | null {
    if (this.#open !== null) {
      if (this.#open.asks.length < this.#maxAsks && this.#open.corrections < MAX_CORRECTIONS) return this.#open
      this.#waiting.push(this.#open)
      this.#open = null
      this.#send()
    }
    if (this.#waiting.length >= MAX_WAITING) return null
    this.#open = new Batch()
    if (!this.#isFlushDue) {
      this.#isFlushDue = true
      setImmediate(() => {
        this.#isFlushDue = false
        this.#flush()
      })
    }
    return this.#open
  }

  #ask(batch: Batch, ask: Ask): void {
    batch.asks.push(ask)
    batch.wait ??= this.#deadlines.add(() => this.#expire(batch))
    if (!this.#link.isCluster) {
      this.#callFor(batch, '').ask(ask, () => true)
      return
    }
    const keys = new Set(ask.subjects.flatMap((subject) => subject?.key ?? []))
    for (const key of keys) this.#callFor(batch, key).ask(ask, (subject) => subject.key === key)
  }

  #correct(quota: Quota, subject: Subject, delta: number, chargedAtMs: number): void {
    const batch = this.#batch()
    if (batch === null) return
    this.#callFor(batch, this.#link.isCluster ? subject.key : '').correct(quota, subject, delta, chargedAtMs)
    batch.corrections++
  }

  #callFor(batch: Batch, key: string): Call {
    let call = batch.calls.get(key)
    if (call === undefined) {
      call = new Call()
      batch.calls.set(key, call)
    }
    return call
  }

  #flush(): void {
    if (this.#open !== null) this.#waiting.push(this.#open)
    this.#open = null
    this.#send()
  }

  #send(): void {
    while (this.#inFlight.size < MAX_IN_FLIGHT) {
      const batch = this.#waiting.shift()
      if (batch === undefined) return
      if (batch.isOver) continue
      batch.isSent = true
      this.#inFlight.add(batch)
      const nowMs = this.#now()
      let pending = batch.calls.size
      const settled = (): void => {
        if (--pending > 0) return
        if (batch.wait !== null) this.#deadlines.delete(batch.wait)
        this.#inFlight.delete(batch)
        this.#send()
      }
      for (const call of batch.calls.values()) {
        this.#script(call.keys, [call.message(nowMs)]).then(
          (reply) => {
            this.#read(batch, call, reply as Buffer)
            settled()
          },
          () => {
            if (!batch.isOver) for (const ask of call.asks) this.#fail(ask)
            settled()
          },
        )
      }
    }
  }

  #read(batch: Batch, call: Call, reply: Buffer): void {
    this.#peers.heard(timeOf(reply))
    // Too late: the requests have been decided, and may have ended.
    if (batch.isOver) return
    call.read(reply, this.#told, this.#ended)
  }

  readonly #told = (ask: Ask, i: number, charged: boolean, nowMs: number, born: number): void => {
    const quota = ask.demand.quotas[i] as Quota
    const cost = ask.demand.costs[i] as number
    const standing = ask.demand.standings[i] as Standing
    const subject = ask.subjects[i] as Subject
    const mark = subject.mark(quota)
    mark.learn(quota, cost, standing, nowMs)
    if (charged && this.#link.isCluster) ask.chargedAtMs[i] = nowMs
    if (charged && quota.rate.calendar !== null)
      this.#count({ quota, subject, mark, cost, endMs: nowMs + standing.nextMs, born })
  }

  /** Counts what this instance has charged in the calendar's window. In an entry that was born anew since then, Redis has
   *  lost it: it is taken once more. */
  #count(charge: { quota: Quota; subject: Subject; mark: Mark; cost: number; endMs: number; born: number }): void {
    const { quota, subject, mark, cost, endMs, born } = charge
    if (mark.ownEndMs !== endMs) mark.own = 0
    else if (mark.ownBorn !== born && mark.own > 0) this.#correct(quota, subject, mark.own, this.#now())
    mark.own += cost + mark.ownLater
    mark.ownLater = 0
    mark.ownEndMs = endMs
    mark.ownBorn = born
  }

  readonly #ended = (ask: Ask): void => {
    if (--ask.pending === 0) this.#conclude(ask)
  }

  #fail(ask: Ask): void {
    ask.isFailed = true
    this.#ended(ask)
  }

  #conclude(ask: Ask): void {
    if (ask.isDone) return
    ask.isDone = true
    if (ask.isFailed || !ask.isAdmitted) this.#refund(ask)
    ask.answer(ask.isFailed ? this.#decideHere(ask.demand, ask.subjects, this.#now(), false) : ask.isAdmitted)
  }

  /** Gives back what one call has charged while another has refused. */
  #refund({ demand, subjects, chargedAtMs }: Ask): void {
    for (const [index, atMs] of chargedAtMs.entries()) {
      if (atMs === undefined) continue
      const quota = demand.quotas[index] as Quota
      const cost = demand.costs[index] as number
      const subject = subjects[index] as Subject
      const standing = demand.standings[index] as Standing
      const mark = subject.mark(quota)
      mark.own = Math.max(0, mark.own - cost)
      standing.remaining = mark.remaining = Math.min(quota.rate.burst, standing.remaining + cost)
      this.#correct(quota, subject, -cost, atMs)
    }
  }

  /** Decides here what Redis has not answered. */
  #expire(batch: Batch): void {
    batch.isOver = true
    if (batch.wait !== null) this.#deadlines.delete(batch.wait)
    for (const ask of batch.asks) {
      if (ask.isDone) continue
      ask.isDone = true
      this.#refund(ask)
      ask.answer(this.#decideHere(ask.demand, ask.subjects, this.#now(), !batch.isSent))
    }
  }

  /** Redis is lost: nothing that has not been sent is waited for. */
  #giveUp(): void {
    const unsent = this.#open === null ? this.#waiting : [...this.#waiting, this.#open]
    this.#waiting = []
    this.#open = null
    for (const batch of unsent) this.#expire(batch)
  }

  /** Redis is there again: it learns what was used meanwhile. */
  #comeBack(): void {
    void this.#peers.beat()
    const nowMs = this.#now()
    const debts = [...this.#debts.values()]
    this.#debts.clear()
    for (const { quota, subject, units, atMs } of debts) {
      const { calendar, windowMs } = quota.rate
      const isOver = calendar === null ? nowMs - atMs > windowMs : calendar.startMs(nowMs) > atMs
      if (isOver || units === 0) continue
      subject.mark(quota).ownLater += units
      this.#correct(quota, subject, units, nowMs)
    }
  }

  /** Beyond the bound, who comes first stays: a flood of strangers must not push out who was known before. */
  #owe(quota: Quota, subject: string, units: number, nowMs: number): void {
    if (quota.rate.windowMs < LONG_WINDOW_MS) return
    const mark = this.#subjects.find(quota, subject)?.findMark(quota) ?? null
    const debt = mark === null ? undefined : this.#debts.get(mark)
    if (debt !== undefined) {
      debt.units = Math.max(0, debt.units + units)
      debt.atMs = nowMs
    } else if (units > 0 && this.#debts.size < MAX_DEBTS) {
      const known = this.#subjects.get(quota, subject)
      this.#debts.set(known.mark(quota), { quota, subject: known, units, atMs: nowMs })
    }
  }

  #now(): number {
    return this.#peers.there(Math.floor(this.#clock()))
  }
}

const noOp = (): void => {}
