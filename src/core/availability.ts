// Whether a service that the gateway can do without is there now: a breaker, the probes that feed it in the background,
// and the news of each change. Knows no protocol; the owner brings the probe and tells what it sees of the connection.
//
// Its promise: isUp costs nothing to ask; a change is told once, by one log line and one call of each listener; a service
// lost while nobody uses it shows within two heartbeats of its last reply. One that replies to who uses it is not probed
// besides. One that stays down is told of now and then, with the reason as it is by then: a server that has gone may be
// back with another password.

import { Breaker } from './breaker.ts'
import { Sweeper } from './deadlines.ts'

/** Where changes are told. */
export interface ChangeLog {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}

export interface AvailabilityOptions {
  /** Of the service, for the message: `Redis`. */
  readonly service: string
  /** For every line: who is meant. */
  readonly fields: object
  /** A good probe takes no longer. */
  readonly probeLimitMs: number
  /** Answers null when all is well, else what is wrong, in words. Never rejects. */
  readonly probe: () => Promise<string | null>
  /** Called after each change of isUp. */
  readonly onChange: () => void
}

/** Between probes while up. */
const HEARTBEAT_MS = 1000
/** After a bad one while up. */
const SECOND_LOOK_MS = 100
/** A service that is not up after this long at the start is told to be down. */
const START_MS = 1000
/** How often it is told again of a service that is down. */
const STILL_MS = 30_000

export class Availability {
  readonly #options: AvailabilityOptions
  readonly #log: ChangeLog
  readonly #breaker = new Breaker()
  readonly #probes: Sweeper
  readonly #startedAtMs = performance.now()
  #downSinceMs = this.#startedAtMs
  #isUp = false
  /** What the log said last. */
  #told: 'up' | 'down' | null = null
  #toldAtMs = this.#startedAtMs
  /** The latest trouble, in words for the log. */
  #trouble = 'not connected yet'
  #probeTimer: NodeJS.Timeout | undefined
  #isProbing = false
  /** Since the last heartbeat. */
  #hasReplied = false
  #hasFailed = false
  #isClosed = false

  constructor(options: AvailabilityOptions, log: ChangeLog) {
    this.#options = options
    this.#log = log
    this.#probes = new Sweeper(options.probeLimitMs, () => {})
    this.#probeAfter(this.#breaker.nextProbeMs(Math.random()))
  }

  get isUp(): boolean {
    return this.#isUp
  }

  /** Looks at once, instead of with the next probe: there is a connection, or other news. */
  look(): void {
    this.#breaker.hasten()
    this.#hasReplied = false
    this.#probeAfter(0)
  }

  /** There is none (any more): down at once. */
  lost(trouble: string): void {
    this.#trouble = trouble
    this.#breaker.trip(performance.now())
    this.#update()
  }

  /** A reply came in time. */
  good(): void {
    this.#hasReplied = true
    this.#breaker.good(performance.now())
  }

  /** The service answered that it cannot serve. */
  unwell(trouble: string): void {
    this.#trouble = trouble
    this.#hasFailed = true
    this.#breaker.error(performance.now())
    this.#update()
  }

  /** One sweep found this many waits past their deadline. */
  missed(count: number): void {
    this.#trouble = 'no reply by the deadline'
    this.#hasFailed = true
    this.#breaker.missed(count, performance.now())
    this.#update()
  }

  /** Down for good: onChange tells, the log does not. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#update()
    clearTimeout(this.#probeTimer)
  }

  /** Brings isUp in line with the breaker, and tells who wants to know. */
  #update(): void {
    const isUp = this.#breaker.state === 'closed' && !this.#isClosed
    const nowMs = performance.now()
    const hasChanged = isUp !== this.#isUp
    this.#isUp = isUp
    if (hasChanged && !isUp) {
      this.#downSinceMs = nowMs
      this.#probeAfter(this.#breaker.nextProbeMs(Math.random()))
    }
    this.#tell(nowMs)
    if (hasChanged) this.#options.onChange()
  }

  #tell(nowMs: number): void {
    const news = this.#isUp ? 'up' : 'down'
    const isStarting = this.#told === null && news === 'down' && nowMs - this.#startedAtMs < START_MS
    const isStill = news === 'down' && this.#told === 'down' && nowMs - this.#toldAtMs >= STILL_MS
    if ((news === this.#told && !isStill) || isStarting || this.#isClosed) return
    this.#told = news
    this.#toldAtMs = nowMs
    const { service, fields } = this.#options
    const down_ms = Math.round(nowMs - this.#downSinceMs)
    if (this.#isUp) this.#log.info({ ...fields, down_ms }, `${service} is up`)
    else if (isStill) this.#log.warn({ ...fields, reason: this.#trouble, down_ms }, `${service} is still down`)
    else this.#log.warn({ ...fields, reason: this.#trouble }, `${service} is down`)
  }

  #probeAfter(delayMs: number): void {
    if (this.#isClosed) return
    clearTimeout(this.#probeTimer)
    this.#probeTimer = setTimeout(() => {
      const isProved = this.#isUp && this.#hasReplied && !this.#hasFailed
      this.#hasReplied = this.#hasFailed = false
      if (isProved) this.#probeAfter(HEARTBEAT_MS)
      else void this.#probe()
    }, delayMs)
  }

  async #probe(): Promise<void> {
    if (this.#isProbing) return
    this.#isProbing = true
    const trouble = await this.#probeInTime()
    this.#isProbing = false
    if (trouble !== null) {
      this.#trouble = trouble
      this.#hasFailed = true
    }
    if (!this.#isUp) this.#breaker.probed(trouble === null, performance.now())
    else if (trouble === null) this.#breaker.good(performance.now())
    else this.#breaker.missed(1, performance.now())
    this.#update()
    // One bad probe is not the end, so the next one shall tell.
    if (this.#isUp) this.#probeAfter(trouble === null ? HEARTBEAT_MS : SECOND_LOOK_MS)
    else this.#probeAfter(this.#breaker.nextProbeMs(Math.random()))
  }

  #probeInTime(): Promise<string | null> {
    return new Promise((resolve) => {
      const wait = this.#probes.add(() => resolve('no reply to a probe'))
      void this.#options.probe().then((trouble) => {
        if (this.#probes.delete(wait)) resolve(trouble)
      })
    })
  }
}
