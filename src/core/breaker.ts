// When Redis counts as up, and when to look again. Pure: events and times in, a state out, so that every rule is a row
// in test/core/breaker.test.ts.
//
//   closed     requests use Redis
//   open       no request does, so none waits; probes in the background look for it
//   half-open  the last probes were good, not yet enough of them
//
// A Redis that comes and goes has to be good for longer each time: otherwise every short spell of health would cost a
// few requests their full deadline.

import { SlidingCount } from './sliding-count.ts'

export type BreakerState = 'closed' | 'open' | 'half-open'

/** Sweeps with missed deadlines that open. A hung server answers nothing, so two are reached within two deadlines. */
const MISSED_SWEEPS = 2
/** A miss is forgotten when a good reply comes this long after it. */
const MISS_MEMORY_MS = 1000
/** Opens when, of at least MIN_REPLIES in a second, half are errors. */
const MIN_REPLIES = 20
const ERROR_SHARE = 0.5
const REPLIES_MS = 1000

const FIRST_PROBE_MS = 100
const LAST_PROBE_MS = 500
const PROBE_GROWTH = 1.5
const PROBE_JITTER = 0.2

const GOOD_PROBES = 2
/** Good probes asked of a Redis that keeps failing: at most 8, which at half a second each is four seconds. */
const MAX_GOOD_PROBES = 8
/** Failing again within this time after closing is flapping. */
const FLAP_MS = 5000

export class Breaker {
  #state: BreakerState = 'open'
  #goodProbes = 0
  /** One at the start: nothing has gone wrong yet. */
  #goodProbesNeeded = 1
  #probeMs = FIRST_PROBE_MS
  #closedAtMs = 0
  #missedSweeps = 0
  #missedAtMs = 0
  readonly #replies = new SlidingCount(REPLIES_MS)
  readonly #errors = new SlidingCount(REPLIES_MS)

  get state(): BreakerState {
    return this.#state
  }

  /** A reply came in time, and the server is well. */
  good(nowMs: number): void {
    this.#replies.add(nowMs)
    if (nowMs - this.#missedAtMs > MISS_MEMORY_MS) this.#missedSweeps = 0
  }

  /** The server answered that it cannot serve. */
  error(nowMs: number): void {
    this.#replies.add(nowMs)
    this.#errors.add(nowMs)
    if (this.#state !== 'closed') return
    const replies = this.#replies.within(nowMs)
    if (replies >= MIN_REPLIES && this.#errors.within(nowMs) >= replies * ERROR_SHARE) this.trip(nowMs)
  }

  /** One sweep found this many commands past their deadline. */
  missed(count: number, nowMs: number): void {
    for (let i = 0; i < count; i++) this.error(nowMs)
    this.#missedSweeps++
    this.#missedAtMs = nowMs
    if (this.#missedSweeps >= MISSED_SWEEPS) this.trip(nowMs)
  }

  /** Opens at once: the connection is gone, or a rule above was met. */
  trip(nowMs: number): void {
    if (this.#state === 'closed') {
      const flaps = nowMs - this.#closedAtMs < FLAP_MS
      this.#goodProbesNeeded = flaps ? Math.min(2 * this.#goodProbesNeeded, MAX_GOOD_PROBES) : GOOD_PROBES
      this.hasten()
    }
    this.#state = 'open'
    this.#goodProbes = 0
  }

  /** The outcome of a probe while not closed. */
  probed(isGood: boolean, nowMs: number): void {
    if (this.#state === 'closed') return
    if (!isGood) return this.trip(nowMs)
    this.#goodProbes++
    this.#state = this.#goodProbes < this.#goodProbesNeeded ? 'half-open' : 'closed'
    if (this.#state !== 'closed') return
    this.#closedAtMs = nowMs
    this.#missedSweeps = 0
    this.#replies.clear()
    this.#errors.clear()
  }

  /** Probes begin anew with short intervals, because something has changed. */
  hasten(): void {
    this.#probeMs = FIRST_PROBE_MS
  }

  /** Milliseconds to the next probe, each time longer. random: 0 to 1, spreads the probes of several instances. */
  nextProbeMs(random: number): number {
    const spread = 1 + PROBE_JITTER * (2 * random - 1)
    const probeMs = this.#probeMs * spread
    this.#probeMs = Math.min(this.#probeMs * PROBE_GROWTH, LAST_PROBE_MS)
    return probeMs
  }
}
