// Calls of the script on their way. A lane leads to one shard: what is asked in one turn of the event loop goes together, in
// one call; in a Redis Cluster, which cannot decide over two keys at once, in one call per subject. Whoever asks one shard
// never waits for another.
//
// Its promise: each call is answered, or has failed, when the deadline has passed since its first request came; at once
// where its shard is lost before it is sent. It is never repeated. An answer that comes after that is told of as well.
//
// Each shard has a clock of its own. One that has not told its time yet is taken to agree with the one that told last.
//
// Bounds, for each lane: 128 requests a call, of a cluster 64 calls a batch; 4 batches in flight, 32 that wait.

import { BucketHistogram } from '../../core/bucket-histogram.ts'
import { Sweeper, type Wait } from '../../core/deadlines.ts'
import type { RedisLink, RedisScript, RedisShard } from '../../core/redis.ts'
import { RedisError, type RedisReply } from '../../core/redis-reply.ts'
import type { Quota } from '../quota.ts'
import { type Ask, Call, type Never, type Unanswered } from './redis-call.ts'
import { RemoteClock } from './redis-clock.ts'
import { timeOf } from './redis-reply.ts'
import type { Subject } from './redis-subjects.ts'

const MAX_ASKS = 128
/** Of a batch for a Redis Cluster: a call for each of its subjects. */
const MAX_CLUSTER_ASKS = 64
/** Corrections in one batch. */
const MAX_CORRECTIONS = 512
/** Batches in flight. */
const MAX_IN_FLIGHT = 4
const MAX_WAITING = 32
const BATCH_BOUNDS = [1, 2, 4, 8, 16, 32, 64, 128]
const WAIT_BOUNDS_SECONDS = [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1]

export interface LanesSetup {
  readonly link: RedisLink
  readonly script: RedisScript
  /** Longest wait of a request. */
  readonly deadlineMs: number
  /** Wall clock, epoch milliseconds. */
  readonly clock: () => number
  /** Called once for each call, unless failed() is: all its requests wait for this. */
  readonly answered: (call: Call, reply: Buffer) => void
  readonly failed: (call: Call, why: Unanswered) => void
  /** One of them is called once after failed() with `late`: with the answer, or with why none comes any more. */
  readonly late: (call: Call, reply: Buffer) => void
  readonly never: (call: Call, why: Never) => void
}

/** Requests and corrections that go out together. */
class Batch {
  /** One, or one per subject. */
  readonly calls = new Map<string, Call>()
  /** Those that have neither been answered nor failed. */
  readonly open = new Set<Call>()
  asks = 0
  corrections = 0
  wait: Wait | null = null
  isSent = false
  /** Steady clock. */
  readonly openedAtMs = performance.now()
}

export class Lanes {
  /** Requests that went together. */
  readonly batches = new BucketHistogram(BATCH_BOUNDS)
  /** Seconds from the first of them to the last answer, or to the end of waiting for it. */
  readonly waits = new BucketHistogram(WAIT_BOUNDS_SECONDS)
  readonly #setup: LanesSetup
  readonly #deadlines: Sweeper
  readonly #lanes = new Map<RedisShard, Lane>()
  /** Where there is but one. */
  readonly #only: Lane | null
  /** The clock that told last, less ours; null: none has. */
  #aheadMs: number | null = null
  #isClosed = false

  constructor(setup: LanesSetup) {
    this.#setup = setup
    this.#deadlines = new Sweeper(setup.deadlineMs, () => {})
    this.#only = setup.link.isCluster ? null : this.#laneTo(setup.link.shardOf(''))
  }

  /** The lane to whom a subject's record is with; it may lead nowhere now. */
  of(subject: Subject): Lane {
    return this.#only ?? this.#laneTo(this.#setup.link.shardOf(subject.key))
  }

  /** The lane of all subjects; null where each has its own. */
  get only(): Lane | null {
    return this.#only
  }

  /** False where nobody can be asked. */
  get areUsable(): boolean {
    if (this.#only !== null) return this.#only.isUsable
    for (const lane of this.#lanes.values()) if (lane.isUsable) return true
    return this.#setup.link.shards.some((shard) => this.#laneTo(shard).isUsable)
  }

  /** A time of ours by Redis' clock, as far as is known; whole milliseconds. */
  there(ourMs: number): number {
    return ourMs + (this.#aheadMs ?? 0)
  }

  /** A shard has just told its time, when asked at sentAtMs. */
  heard(shard: RedisShard, theirMs: number, sentAtMs: number): void {
    this.#laneTo(shard).heard(theirMs, sentAtMs)
  }

  /** Something has changed about which shards there are, or are up. */
  follow(): void {
    const { shards } = this.#setup.link
    for (const [shard, lane] of this.#lanes) {
      if (!shard.isUp) lane.giveUp()
      if (!shards.includes(shard)) this.#lanes.delete(shard)
    }
  }

  flush(): void {
    for (const lane of this.#lanes.values()) lane.flush()
  }

  /** Takes no more; resolves when what waits, as what is given back at the end, has been told, or cannot be. */
  async close(): Promise<void> {
    this.#isClosed = true
    await Promise.all([...this.#lanes.values()].map((lane) => lane.close()))
  }

  #laneTo(shard: RedisShard): Lane {
    let lane = this.#lanes.get(shard)
    if (lane === undefined) {
      lane = new Lane(shard, this.#setup, this.#deadlines, {
        aheadMs: () => this.#aheadMs,
        heard: (aheadMs) => void (this.#aheadMs = aheadMs),
        isClosed: () => this.#isClosed,
        batches: this.batches,
        waits: this.waits,
      })
      this.#lanes.set(shard, lane)
    }
    return lane
  }
}

/** What lanes know of each other. */
interface Siblings {
  readonly aheadMs: () => number | null
  readonly heard: (aheadMs: number | null) => void
  readonly isClosed: () => boolean
  readonly batches: BucketHistogram
  readonly waits: BucketHistogram
}

export class Lane {
  readonly #shard: RedisShard
  readonly #setup: LanesSetup
  readonly #deadlines: Sweeper
  readonly #siblings: Siblings
  readonly #maxAsks: number
  #open: Batch | null = null
  #waiting: Batch[] = []
  readonly #inFlight = new Set<Batch>()
  #isFlushDue = false
  readonly #clock = new RemoteClock()
  /** Called when nothing is under way, nor waits. */
  #whenSent = (): void => {}

  constructor(shard: RedisShard, setup: LanesSetup, deadlines: Sweeper, siblings: Siblings) {
    this.#shard = shard
    this.#setup = setup
    this.#deadlines = deadlines
    this.#siblings = siblings
    this.#maxAsks = setup.link.isCluster ? MAX_CLUSTER_ASKS : MAX_ASKS
  }

  get isUsable(): boolean {
    return this.#shard.isUp && this.#knownAheadMs !== null && !this.#siblings.isClosed()
  }

  /** True where ask() may be called in this turn. */
  get hasRoom(): boolean {
    return this.isUsable && this.#batch() !== null
  }

  /** A time of ours by the shard's clock, as far as is known; whole milliseconds. */
  there(ourMs: number): number {
    return ourMs + (this.#knownAheadMs ?? 0)
  }

  /** The shard has just told its time, when asked at sentAtMs. */
  heard(theirMs: number, sentAtMs: number): void {
    this.#clock.heard(theirMs, Math.floor(sentAtMs), Math.floor(this.#setup.clock()))
    this.#siblings.heard(this.#clock.aheadMs)
  }

  /** Asks for what a request wants of one record; key '': of all. Only where it has just had room. */
  ask(ask: Ask, key: string): void {
    const batch = this.#open
    if (batch === null) throw new Error('asked a lane without room')
    batch.asks++
    batch.wait ??= this.#deadlines.add(() => this.#expire(batch))
    callFor(batch, key).ask(ask, (subject) => key === '' || subject.key === key)
  }

  /** Where too many wait, it is left undone. whenEnded: called once it has been made, as far as can be known, or has not. */
  correct(
    quota: Quota,
    subject: Subject,
    delta: number,
    chargedAtMs: number,
    whenEnded: ((isDone: boolean) => void) | null = null,
  ): void {
    const batch = this.#batch()
    if (batch === null) {
      whenEnded?.(false)
      return
    }
    const key = this.#setup.link.isCluster ? subject.key : ''
    callFor(batch, key).correct(quota, subject, delta, chargedAtMs, whenEnded)
    batch.corrections++
  }

  flush(): void {
    if (this.#open !== null) this.#waiting.push(this.#open)
    this.#open = null
    this.#send()
  }

  /** The shard is lost: nothing that has not been sent is waited for. */
  giveUp(): void {
    const unsent = this.#open === null ? this.#waiting : [...this.#waiting, this.#open]
    this.#waiting = []
    this.#open = null
    for (const batch of unsent) this.#expire(batch)
  }

  /** As Lanes.close(). Each call ends within the deadline of the link. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenSent = resolve
      this.flush()
    })
  }

  get #knownAheadMs(): number | null {
    return this.#clock.aheadMs ?? this.#siblings.aheadMs()
  }

  /** The batch that takes one more; null where too many wait. */
  #batch(): Batch | null {
    if (this.#open !== null) {
      if (this.#open.asks < this.#maxAsks && this.#open.corrections < MAX_CORRECTIONS) return this.#open
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
        this.flush()
      })
    }
    return this.#open
  }

  #send(): void {
    while (this.#inFlight.size < MAX_IN_FLIGHT) {
      const batch = this.#waiting.shift()
      if (batch === undefined) break
      // Its time may be over, and nobody asks any more.
      if (batch.open.size === 0) continue
      batch.isSent = true
      if (batch.asks > 0) this.#siblings.batches.observe(batch.asks)
      this.#inFlight.add(batch)
      const sentAtMs = Math.floor(this.#setup.clock())
      const nowMs = this.there(sentAtMs)
      let pending = batch.calls.size
      const ended = (): void => {
        if (--pending > 0) return
        if (batch.wait !== null) this.#deadlines.delete(batch.wait)
        this.#inFlight.delete(batch)
        this.#send()
      }
      for (const call of batch.calls.values()) {
        const answered = (reply: Buffer): void => {
          this.heard(timeOf(reply), sentAtMs)
          this.#answered(batch, call, reply)
        }
        const late = (reply: RedisReply | RedisError): void =>
          reply instanceof RedisError ? this.#failed(batch, call, whyOf(reply)) : answered(reply as Buffer)
        this.#setup.script(call.keys, [call.message(nowMs)], late).then(
          (reply) => {
            answered(reply as Buffer)
            ended()
          },
          (error: unknown) => {
            this.#failed(batch, call, whyOf(error))
            ended()
          },
        )
      }
    }
    if (this.#inFlight.size === 0) this.#whenSent()
  }

  #answered(batch: Batch, call: Call, reply: Buffer): void {
    call.corrected(true)
    // Its requests have been decided without it, and may have ended.
    if (!batch.open.delete(call)) this.#setup.late(call, reply)
    else {
      this.#setup.answered(call, reply)
      if (batch.open.size === 0) this.#noteWait(batch)
    }
  }

  #failed(batch: Batch, call: Call, why: Unanswered): void {
    if (why !== 'late') call.corrected(why === 'lost')
    if (batch.open.delete(call)) {
      this.#setup.failed(call, why)
      if (batch.open.size === 0) this.#noteWait(batch)
    } else if (why !== 'late') {
      this.#setup.never(call, why)
    }
  }

  #noteWait({ asks, openedAtMs }: Batch): void {
    if (asks > 0) this.#siblings.waits.observe((performance.now() - openedAtMs) / 1000)
  }

  #expire(batch: Batch): void {
    if (batch.wait !== null) this.#deadlines.delete(batch.wait)
    if (batch.open.size > 0) this.#noteWait(batch)
    const failed = [...batch.open]
    batch.open.clear()
    for (const call of failed) {
      if (!batch.isSent) call.corrected(false)
      this.#setup.failed(call, batch.isSent ? 'late' : 'unasked')
    }
  }
}

/** What is known of a call that has failed. */
function whyOf(error: unknown): Unanswered {
  if (!(error instanceof RedisError) || error.code === 'redis_lost') return 'lost'
  // Else refused, by the server or by the link. A server that does not know the script (any more) refuses as well, and one that
  // says so late is not sent it in full.
  return error.code === 'redis_timeout' ? 'late' : 'unasked'
}

function callFor(batch: Batch, key: string): Call {
  let call = batch.calls.get(key)
  if (call === undefined) {
    call = new Call()
    batch.calls.set(key, call)
    batch.open.add(call)
  }
  return call
}
