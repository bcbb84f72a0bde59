// Counters in Redis, shared by all instances with the same namespace: exact across them. All requests of one turn of the
// event loop go in one call of the script (redis-lanes.ts), each charged all or nothing; of a Redis Cluster, which cannot
// decide over two keys at once, in one call per subject, and what is charged in one while another refuses is given back.
//
// Its promise: no request waits longer than the deadline from its arrival, and none at all while Redis is lost; what is
// not answered in time is decided here, as `fallback` says (redis-alone.ts). No request finds out whether Redis is back.
// While one master of a cluster is lost, only its subjects are decided here, also of a request that is about others too.
//
// Nothing is charged twice: no call is repeated, and one whose connection breaks before its answer counts as carried out. What
// was used here in long windows is taken from the shared counters as well, within a second or as soon as they are back
// (redis-debts.ts), and an answer that comes late is not in vain (redis-late.ts). A refusal that is remembered costs no call
// (redis-sight.ts).
//
// Bounds: as its parts have them.

import type { BucketHistogram } from '../../core/bucket-histogram.ts'
import type { RedisLink, RedisScript } from '../../core/redis.ts'
import type { Standing } from '../algorithm.ts'
import type { Demand, Quota, QuotaStore, SharedQuotaStore } from '../quota.ts'
import type { SubjectTag } from '../subject-tag.ts'
import { Alone } from './redis-alone.ts'
import { Ask, Call, type Told, type Unanswered } from './redis-call.ts'
import { Debts } from './redis-debts.ts'
import { Lanes } from './redis-lanes.ts'
import { Peers } from './redis-peers.ts'
import { QUOTA_SCRIPT } from './redis-script.ts'
import { Sight } from './redis-sight.ts'
import { type Mark, type Subject, Subjects } from './redis-subjects.ts'

export interface RedisStoreSetup {
  /** A connection of its own, whose probes write. */
  readonly link: RedisLink
  readonly namespace: string
  /** The same in all instances. */
  readonly tagOf: SubjectTag
  /** This instance's name, unlike any other's. */
  readonly instance: string
  /** How many instances there are taken to be until Redis has said; default 1. */
  readonly assumedInstances?: number
  /** Longest wait of a request. */
  readonly deadlineMs: number
  /** Wall clock, epoch milliseconds. */
  readonly clock: () => number
}

export interface RedisStore extends SharedQuotaStore {
  /** Instances that share the counters, as far as is known. */
  readonly instances: number
  /** False while all is decided here. */
  readonly isUsed: boolean
  /** Subjects of which it is known how they stand in Redis. */
  readonly known: number
  /** Of the counters for an outage, see MemoryStore. */
  readonly subjects: number
  readonly overflowed: number
  /** See Debts. */
  readonly owed: number
  readonly forgiven: number
  /** See Lanes. */
  readonly batches: BucketHistogram
  readonly waits: BucketHistogram
  /** True while the shared counters of a subject can be used. */
  reaches(quota: Quota, subject: string): boolean
  /** Resolves when the shared counters can be used, or after maxMs. */
  whenReady(maxMs: number): Promise<void>
  close(): Promise<void>
}

export const createRedisStore = (setup: RedisStoreSetup): RedisStore => new SharedCounters(setup)

class SharedCounters implements RedisStore {
  readonly #link: RedisLink
  readonly #script: RedisScript
  readonly #clock: () => number
  readonly #lanes: Lanes
  readonly #peers: Peers
  readonly #subjects: Subjects
  readonly #debts: Debts
  readonly #sight: Sight
  readonly #alone: Alone
  readonly #unlisten: () => void
  #isClosed = false

  constructor(setup: RedisStoreSetup) {
    const { link, namespace, tagOf, instance, assumedInstances = 1, deadlineMs, clock } = setup
    this.#link = link
    this.#script = link.script(QUOTA_SCRIPT)
    this.#clock = clock
    this.#lanes = new Lanes({
      link,
      script: this.#script,
      deadlineMs,
      clock,
      answered: (call, reply) => call.read(reply, this.#told, this.#ended),
      failed: (call, why) => this.#fail(call, why),
      late: (call, reply) => {
        call.read(reply, this.#toldLate, noOp)
        this.#alone.late.toldAll()
      },
      never: (call, why) => call.fail((ask, i) => this.#alone.late.never(ask, i, why), noOp),
    })
    this.#peers = new Peers({
      link,
      namespace,
      instance,
      assumed: assumedInstances,
      clock,
      heard: (shard, theirMs, sentAtMs) => this.#lanes.heard(shard, theirMs, sentAtMs),
    })
    this.#subjects = new Subjects(namespace, tagOf)
    this.#sight = new Sight(this.#subjects, this.#lanes)
    this.#debts = new Debts({ subjects: this.#subjects, lanes: this.#lanes, clock })
    this.#alone = new Alone({
      sight: this.#sight,
      lanes: this.#lanes,
      debts: this.#debts,
      instances: () => this.#peers.count,
      ourNow: () => this.#ourNow(),
    })
    this.#unlisten = link.onChange(() => void this.#follow())
  }

  get instances(): number {
    return this.#peers.count
  }

  get isUsed(): boolean {
    return this.#lanes.areUsable
  }

  get known(): number {
    return this.#subjects.size
  }

  get subjects(): number {
    return this.#alone.share.subjects
  }

  get overflowed(): number {
    return this.#alone.share.overflowed
  }

  get owed(): number {
    return this.#debts.size
  }

  get forgiven(): number {
    return this.#debts.forgiven
  }

  get batches(): BucketHistogram {
    return this.#lanes.batches
  }

  get waits(): BucketHistogram {
    return this.#lanes.waits
  }

  reaches(quota: Quota, subject: string): boolean {
    return this.#sight.laneOf(quota, subject)?.isUsable === true
  }

  async whenReady(maxMs: number): Promise<void> {
    await this.#link.whenUp(maxMs)
    await this.#peers.beat()
  }

  charge(demand: Demand, ourMs: number): boolean | Promise<boolean> {
    const sight = this.#sight
    sight.turnTo(demand, this.#lanes.areUsable)
    if (sight.isRefused(demand, ourMs)) return false
    const part = sight.sort(demand, true)
    if (part === 'none') return this.#alone.decide(demand, sight.known, ourMs)
    const here = part === 'all' ? null : sight.partHere(demand)
    if (here !== null && !this.#alone.decide(here, sight.known, ourMs)) {
      sight.recall(demand, ourMs)
      return false
    }
    return new Promise((resolve) => {
      const ask = new Ask(demand, sight.knownThere(demand), resolve)
      ask.chargedHere = here
      this.#ask(ask)
    })
  }

  take(quota: Quota, subject: string, units: number, standing: Standing): Promise<number | null> {
    const lane = this.#sight.laneOf(quota, subject)
    if (lane?.isUsable !== true) return Promise.resolve(null)
    const known = this.#subjects.get(quota, subject)
    const isRefused = known.findMark(quota)?.refuses(units, lane.there(this.#ourNow())) === true
    if (isRefused || !lane.hasRoom) return Promise.resolve(null)
    const demand = {
      quotas: [quota],
      subjects: [subject],
      costs: [units],
      standings: [standing],
      atMs: [0] as [number],
      from: 0,
      to: 1,
    }
    return new Promise((resolve) => {
      // Where it only watches, a policy admits what it has no room for.
      const answer = (admitted: boolean): void => resolve(admitted && standing.admitted ? demand.atMs[0] : null)
      const ask = new Ask(demand, [known], answer)
      ask.isDecidedHere = false
      this.#ask(ask)
    })
  }

  peek(demand: Demand, ourMs: number): void {
    const sight = this.#sight
    sight.turnTo(demand, false)
    const part = sight.sort(demand, false)
    if (part !== 'none') sight.recall(demand, ourMs)
    if (part === 'all') return
    this.#alone.peek(part === 'none' ? demand : sight.partHere(demand), sight.known, ourMs)
  }

  async inspect(demand: Demand, ourMs: number): Promise<void> {
    // What is on its way counts.
    this.#lanes.flush()
    this.peek(demand, ourMs)
    this.#sight.turnTo(demand, true)
    const subjects = this.#sight.known.slice(0, demand.to)
    // One call each, so that a Redis Cluster can answer as well.
    await Promise.all(
      subjects.map(async (subject) => {
        if (subject === null) return
        const ask = new Ask(demand, subjects, () => {})
        ask.isCharged = false
        const call = new Call()
        call.ask(ask, (each) => each === subject)
        const nowMs = this.#lanes.of(subject).there(Math.floor(ourMs))
        const reply = await this.#script(call.keys, [call.message(nowMs)]).catch(() => null)
        if (reply !== null) call.read(reply as Buffer, noOp, noOp)
      }),
    )
  }

  settle(...correction: Parameters<QuotaStore['settle']>): void {
    this.#alone.settle(...correction)
  }

  async reset(quota: Quota, subject: string, ourMs: number): Promise<void> {
    const known = this.#subjects.get(quota, subject)
    const lane = this.#lanes.of(known)
    const nowMs = lane.there(ourMs)
    const mark = known.mark(quota)
    mark.forget()
    this.#debts.forget(mark)
    this.#alone.share.reset(quota, subject, nowMs)
    lane.flush()
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
    this.#debts.close()
    await this.#lanes.close()
    await this.#peers.close()
  }

  #ask(ask: Ask): void {
    const { only } = this.#lanes
    if (only !== null) {
      only.ask(ask, '')
      return
    }
    const asked = new Set<string>()
    for (const subject of ask.subjects) {
      if (subject === null || asked.has(subject.key)) continue
      asked.add(subject.key)
      this.#lanes.of(subject).ask(ask, subject.key)
    }
  }

  readonly #told: Told = (ask, i, charged, nowMs, born) => {
    const quota = ask.demand.quotas[i] as Quota
    const cost = ask.demand.costs[i] as number
    const standing = ask.demand.standings[i] as Standing
    const subject = ask.subjects[i] as Subject
    const mark = subject.mark(quota)
    mark.learn(quota, cost, standing, nowMs)
    if (this.#link.isCluster || ask.isFailed) ask.outcomes[i] = charged ? 'charged' : 'told'
    if (!charged || quota.rate.calendar === null) return
    const name = ask.demand.subjects[i] as string
    this.#count({ quota, subject, name, mark, cost, endMs: nowMs + standing.nextMs, born })
  }

  readonly #toldLate: Told = (ask, i, charged, nowMs, born) => {
    this.#told(ask, i, charged, nowMs, born)
    this.#alone.late.told(ask, i, charged)
  }

  /** Counts what this instance has charged in the calendar's window. In an entry that was born anew since then, Redis has
   *  lost it: it is taken once more. */
  #count({ quota, subject, name, mark, cost, endMs, born }: Counted): void {
    const before = mark.own
    if (mark.ownEndMs !== endMs || mark.ownBorn !== born) mark.own = 0
    if (mark.ownEndMs === endMs && mark.ownBorn !== born && before > 0) this.#debts.take(quota, subject, name, before)
    mark.own += cost + mark.ownLater
    mark.ownLater = 0
    mark.ownEndMs = endMs
    mark.ownBorn = born
  }

  #fail(call: Call, why: Unanswered): void {
    call.fail((ask, i) => {
      ask.isFailed = true
      ask.outcomes[i] = why
    }, this.#ended)
  }

  readonly #ended = (ask: Ask): void => {
    if (--ask.pending > 0) return
    if (ask.isFailed) ask.isAdmitted = ask.isDecidedHere && this.#alone.decideRest(ask)
    if (!ask.isAdmitted) this.#alone.takeBack(ask)
    if (ask.isFailed) this.#alone.late.expect(ask)
    ask.answer(ask.isAdmitted)
  }

  /** Which shards there are, or which of them are up, has changed. */
  async #follow(): Promise<void> {
    this.#lanes.follow()
    this.#debts.tell()
    await this.#peers.beat()
    // Some may have told their time for the first time.
    this.#debts.tell()
  }

  #ourNow(): number {
    return Math.floor(this.#clock())
  }
}

/** What Redis has charged for one policy of a request. */
interface Counted {
  readonly quota: Quota
  readonly subject: Subject
  readonly name: string
  readonly mark: Mark
  readonly cost: number
  /** Of the calendar's window. */
  readonly endMs: number
  readonly born: number
}

const noOp = (): void => {}
