// Counters in Redis, shared by all instances with the same namespace: exact across them. All requests of one turn of the
// event loop go in one call of the script (redis-lanes.ts), each charged all or nothing; of a Redis Cluster, which cannot
// decide over two keys at once, in one call per subject, and what is charged in one while another refuses is given back.
//
// Its promise: no request waits longer than the deadline from its arrival, and none at all while Redis is lost; what is
// not answered in time is decided here, as `fallback` says (redis-share.ts). No request finds out whether Redis is back.
// While one master of a cluster is lost, only its subjects are decided here, also of a request that is about others too.
//
// A refusal is remembered for as long as it holds, at most a second: who hammers an empty budget costs one call in that
// time. It is exact unless somebody gives units back.
//
// Nothing is charged twice: no call is repeated, and a call without an answer counts as carried out. What was used here in
// long windows is taken from the shared counters as well, within a second or as soon as they are back (redis-debts.ts), and
// an answer that comes late is not in vain (redis-late.ts).
//
// Bounds: as its parts have them.

import type { BucketHistogram } from '../../core/bucket-histogram.ts'
import type { RedisLink, RedisScript } from '../../core/redis.ts'
import type { DecisionSource, Standing } from '../algorithm.ts'
import type { Demand, Quota, SharedQuotaStore } from '../quota.ts'
import type { SubjectTag } from '../subject-tag.ts'
import { Ask, Call, type Told, type Unanswered } from './redis-call.ts'
import { Debts } from './redis-debts.ts'
import { type Lane, Lanes } from './redis-lanes.ts'
import { Late } from './redis-late.ts'
import { Peers } from './redis-peers.ts'
import { QUOTA_SCRIPT } from './redis-script.ts'
import { Share } from './redis-share.ts'
import { type Mark, type Subject, Subjects, recall } from './redis-subjects.ts'

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
  readonly #share: Share
  readonly #late: Late
  readonly #unlisten: () => void
  // Of the demand at hand, by its indexes: whom it is about, as far as known; who would be asked; what is decided here.
  readonly #known: (Subject | null)[] = []
  readonly #lane: (Lane | null)[] = []
  readonly #isHere: boolean[] = []
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
        this.#late.toldAll()
      },
      never: (call, why) => call.fail((ask, i) => this.#late.never(ask, i, why), noOp),
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
    this.#debts = new Debts({ subjects: this.#subjects, lanes: this.#lanes, clock })
    this.#share = new Share((mark) => mark.pending + this.#debts.of(mark))
    this.#late = new Late({
      share: this.#share,
      instances: () => this.#peers.count,
      nowThere: (subject) => this.#lanes.of(subject).there(this.#ourNow()),
      owe: (quota, subject, units) => this.#debts.owe(quota, subject, units, this.#ourNow()),
      giveBack: (ask, i) => this.#giveBack(ask, i),
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
    return this.#share.subjects
  }

  get overflowed(): number {
    return this.#share.overflowed
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
    return this.#laneOf(quota, subject)?.isUsable === true
  }

  async whenReady(maxMs: number): Promise<void> {
    await this.#link.whenUp(maxMs)
    await this.#peers.beat()
  }

  charge(demand: Demand, ourMs: number): boolean | Promise<boolean> {
    this.#recognize(demand, this.#lanes.areUsable)
    if (this.#isRefused(demand, ourMs)) return false
    const part = this.#sort(demand, true)
    if (part === 'none') return this.#decideHere(demand, this.#known, ourMs)
    const subjects = this.#known.slice(0, demand.to)
    const here = part === 'all' ? null : this.#partHere(demand)
    if (here !== null) {
      const admitted = this.#decideHere(here, subjects, ourMs)
      if (!admitted) {
        this.#recall(demand, ourMs)
        return false
      }
      for (let i = demand.from; i < demand.to; i++) if (this.#isHere[i] === true) subjects[i] = null
    }
    return new Promise((resolve) => {
      const ask = new Ask(demand, subjects, resolve)
      ask.chargedHere = here
      this.#ask(ask)
    })
  }

  take(quota: Quota, subject: string, units: number, standing: Standing): Promise<number | null> {
    const lane = this.#laneOf(quota, subject)
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
    this.#recognize(demand, false)
    const part = this.#sort(demand, false)
    if (part !== 'none') this.#recall(demand, ourMs)
    if (part === 'all') return
    const here = part === 'none' ? demand : this.#partHere(demand)
    this.#share.peek(here, this.#known, this.#peers.count, this.#timeFor(here, this.#known, ourMs))
  }

  async inspect(demand: Demand, ourMs: number): Promise<void> {
    // What is on its way counts.
    this.#lanes.flush()
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
        const nowMs = this.#lanes.of(subject).there(Math.floor(ourMs))
        const reply = await this.#script(call.keys, [call.message(nowMs)]).catch(() => null)
        if (reply !== null) call.read(reply as Buffer, noOp, noOp)
      }),
    )
  }

  settle(
    quota: Quota,
    subject: string,
    delta: number,
    chargedAtMs: number,
    ourMs: number,
    source?: DecisionSource,
  ): void {
    const known = this.#subjectOf(quota, subject)
    const lane = known === null ? this.#lanes.only : this.#lanes.of(known)
    const isThere = lane?.isUsable === true
    const isOurs = source === 'share'
    if (!isThere || isOurs) {
      const nowMs = (lane ?? this.#lanes).there(ourMs)
      this.#share.settle(quota, subject, delta, { chargedAtMs, nowMs, instances: this.#peers.count })
    }
    if (delta > 0) {
      if (known !== null && isThere) this.#take(quota, known, subject, delta)
      else this.#debts.owe(quota, subject, delta, ourMs)
      return
    }
    // In an outage, a stranger has not been charged.
    if (known === null) return
    known.mark(quota).refusedUntilMs = 0
    if (isOurs) this.#debts.disown(quota, known, -delta, chargedAtMs)
    else this.#debts.giveBack(quota, known, -delta, chargedAtMs)
  }

  /** Takes what no request waits for: what one has used beyond its charge, what Redis has lost. */
  #take(quota: Quota, known: Subject, subject: string, units: number): void {
    const lane = this.#lanes.of(known)
    const mark = known.mark(quota)
    mark.own += units
    lane.correct(quota, known, units, lane.there(this.#ourNow()), (isDone) => {
      if (isDone) return
      mark.own = Math.max(0, mark.own - units)
      this.#debts.owe(quota, subject, units, this.#ourNow())
    })
  }

  async reset(quota: Quota, subject: string, ourMs: number): Promise<void> {
    const known = this.#subjects.get(quota, subject)
    const lane = this.#lanes.of(known)
    const nowMs = lane.there(ourMs)
    const mark = known.mark(quota)
    mark.forget()
    this.#debts.forget(mark)
    this.#share.reset(quota, subject, nowMs)
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

  /** takesIn: strangers as well. Not in an outage, when a flood of them would leave much to be collected. */
  #recognize({ quotas, subjects, from, to }: Demand, takesIn: boolean): void {
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
  #sort({ subjects, from, to }: Demand, isAsked: boolean): 'all' | 'some' | 'none' {
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

  #partHere(demand: Demand): Demand {
    return partOf(demand, (i) => this.#isHere[i] === true)
  }

  /** True where it is known that a policy refuses; then all standings are as far as is known. A refusal that is about to be
   *  forgotten is asked about anew. */
  #isRefused(demand: Demand, ourMs: number): boolean {
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
      this.#recall(demand, ourMs)
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
  #recall({ quotas, costs, subjects, standings, from, to }: Demand, ourMs: number): void {
    for (let i = from; i < to; i++) {
      if (subjects[i] === null || this.#isHere[i] === true) continue
      const quota = quotas[i] as Quota
      const mark = this.#known[i]?.findMark(quota) ?? null
      const nowMs = (this.#lane[i] ?? this.#lanes).there(ourMs)
      recall(mark, quota, costs[i] as number, nowMs, standings[i] as Standing)
    }
  }

  /** Decides over what Redis has not been asked about. */
  #decideHere(demand: Demand, known: readonly (Subject | null)[], ourMs: number): boolean {
    const nowMs = this.#timeFor(demand, known, ourMs)
    const admitted = this.#share.charge(demand, known, this.#peers.count, nowMs)
    if (admitted) this.#oweCosts(demand, ourMs)
    return admitted
  }

  #oweCosts({ quotas, subjects, costs, standings, from, to }: Demand, ourMs: number): void {
    for (let i = from; i < to; i++) {
      const subject = subjects[i] as string | null
      if (subject === null || !(standings[i] as Standing).admitted) continue
      this.#debts.owe(quotas[i] as Quota, subject, costs[i] as number, ourMs)
    }
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
    this.#late.told(ask, i, charged)
  }

  /** Counts what this instance has charged in the calendar's window. In an entry that was born anew since then, Redis has
   *  lost it: it is taken once more. */
  #count({ quota, subject, name, mark, cost, endMs, born }: Counted): void {
    const before = mark.own
    if (mark.ownEndMs !== endMs || mark.ownBorn !== born) mark.own = 0
    if (mark.ownEndMs === endMs && mark.ownBorn !== born && before > 0) this.#take(quota, subject, name, before)
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
    if (ask.isFailed) ask.isAdmitted = ask.isDecidedHere && this.#decideRest(ask)
    if (!ask.isAdmitted) this.#takeBack(ask)
    if (ask.isFailed) this.#late.expect(ask)
    ask.answer(ask.isAdmitted)
  }

  /** Decides here what Redis has not answered. */
  #decideRest({ demand, subjects, outcomes, isAdmitted }: Ask): boolean {
    const ourMs = this.#ourNow()
    const rest = partOf(demand, (i) => outcomes[i] !== 'charged' && outcomes[i] !== 'told')
    const nowMs = this.#timeFor(rest, subjects, ourMs)
    if (!isAdmitted) {
      this.#share.peek(rest, subjects, this.#peers.count, nowMs)
      return false
    }
    if (!this.#share.charge(rest, subjects, this.#peers.count, nowMs)) return false
    this.#oweCosts(
      partOf(rest, (i) => outcomes[i] === 'unasked'),
      ourMs,
    )
    return true
  }

  /** Gives back what has been charged of a request that another policy refuses. */
  #takeBack(ask: Ask): void {
    const { subjects, outcomes, chargedHere } = ask
    for (const [index, outcome] of outcomes.entries()) if (outcome === 'charged') this.#giveBack(ask, index)
    if (chargedHere === null) return
    const { quotas, costs, standings, atMs, from, to } = chargedHere
    for (let i = from; i < to; i++) {
      const subject = chargedHere.subjects[i] as string | null
      if (subject === null || !(standings[i] as Standing).admitted) continue
      const quota = quotas[i] as Quota
      const known = this.#subjectOf(quota, subject)
      if (known !== null) this.#debts.disown(quota, known, costs[i] as number, atMs[i] as number)
    }
    const nowMs = this.#timeFor(chargedHere, subjects, this.#ourNow())
    this.#share.takeBack(chargedHere, subjects, this.#peers.count, nowMs)
  }

  #giveBack({ demand, subjects }: Ask, index: number): void {
    const quota = demand.quotas[index] as Quota
    const cost = demand.costs[index] as number
    const subject = subjects[index] as Subject
    const standing = demand.standings[index] as Standing
    const mark = subject.mark(quota)
    standing.remaining = Math.min(quota.rate.burst, standing.remaining + cost)
    mark.remaining = Math.min(quota.rate.burst, mark.remaining + cost)
    mark.refusedUntilMs = 0
    this.#debts.giveBack(quota, subject, cost, demand.atMs[index] as number)
  }

  /** Which shards there are, or which of them are up, has changed. */
  async #follow(): Promise<void> {
    this.#lanes.follow()
    this.#debts.tell()
    await this.#peers.beat()
    // Some may have told their time for the first time.
    this.#debts.tell()
  }

  /** null where it is not known yet who would be asked. */
  #laneOf(quota: Quota, subject: string): Lane | null {
    const { only } = this.#lanes
    if (only !== null) return only
    const known = this.#subjectOf(quota, subject)
    return known && this.#lanes.of(known)
  }

  /** null: a stranger in an outage, see #recognize. */
  #subjectOf(quota: Quota, subject: string): Subject | null {
    return this.#lanes.areUsable ? this.#subjects.get(quota, subject) : this.#subjects.find(quota, subject)
  }

  /** By the clock that the first of those counts by whom the demand is about. */
  #timeFor({ subjects, from, to }: Demand, known: readonly (Subject | null)[], ourMs: number): number {
    for (let i = from; i < to; i++) {
      const subject = known[i] ?? null
      if (subjects[i] !== null && subject !== null) return this.#lanes.of(subject).there(ourMs)
    }
    return this.#lanes.there(ourMs)
  }

  #ourNow(): number {
    return Math.floor(this.#clock())
  }
}

/** The same with some of its policies only. */
function partOf(demand: Demand, takes: (index: number) => boolean): Demand {
  const { subjects, from } = demand
  return { ...demand, subjects: subjects.map((subject, i) => (i >= from && takes(i) ? subject : null)) }
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
