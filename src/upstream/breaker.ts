// Whether a target may be asked at all, by how many of its last answers were failures. Pure: outcomes and times in, a state
// out, so that every rule is a row in test/upstream/breaker.test.ts.
//
//   closed     every request may go
//   open       none may, for the cooldown: the target gets time, and clients an answer at once
//   half-open  one at a time may, to see: two good outcomes close it, a bad one opens it again
//
// Unlike health.ts it knows no targets beside, and no exception: where all are open, requests are refused.

import { GatewayError } from '../core/errors.ts'
import { SlidingCount } from '../core/sliding-count.ts'

export interface BreakerRules {
  /** Of the outcomes within the window, from above 0 to 1. */
  readonly failureRate: number
  readonly windowMs: number
  /** Outcomes within the window, below which nothing opens it. */
  readonly minRequests: number
  readonly cooldownMs: number
}

export type BreakerState = 'closed' | 'open' | 'half-open'

const GOOD_PROBES = 2

export class TargetBreaker {
  readonly #rules: BreakerRules
  readonly #outcomes: SlidingCount
  readonly #failures: SlidingCount
  #isClosed = true
  /** While not closed: when the next request may go, which has not told its outcome yet. */
  #nextAtMs = 0
  #goodProbes = 0
  #isProbed = false

  constructor(rules: BreakerRules) {
    this.#rules = rules
    this.#outcomes = new SlidingCount(rules.windowMs)
    this.#failures = new SlidingCount(rules.windowMs)
  }

  state(nowMs: number): BreakerState {
    if (this.#isClosed) return 'closed'
    return this.#isProbed || nowMs >= this.#nextAtMs ? 'half-open' : 'open'
  }

  /** True where a request may go now. */
  mayTake(nowMs: number): boolean {
    return this.#isClosed || nowMs >= this.#nextAtMs
  }

  /** A request goes. Where it never tells an outcome, since its client has gone, the next one may after the cooldown. */
  take(nowMs: number): void {
    if (this.#isClosed) return
    this.#isProbed = true
    this.#nextAtMs = nowMs + this.#rules.cooldownMs
  }

  /** Milliseconds until a request may go; 0: one may. */
  waitMs(nowMs: number): number {
    return this.#isClosed ? 0 : Math.max(0, this.#nextAtMs - nowMs)
  }

  /** True where this has opened or closed it. Outcomes of requests that went before it opened say nothing new. */
  record(isFailure: boolean, nowMs: number): boolean {
    if (!this.#isClosed) return this.#isProbed && this.#judgeProbe(isFailure, nowMs)
    this.#outcomes.add(nowMs)
    if (!isFailure) return false
    this.#failures.add(nowMs)
    const outcomes = this.#outcomes.within(nowMs)
    const isTooMuch = this.#failures.within(nowMs) >= this.#rules.failureRate * outcomes
    if (outcomes < this.#rules.minRequests || !isTooMuch) return false
    this.#open(nowMs)
    return true
  }

  #judgeProbe(isFailure: boolean, nowMs: number): boolean {
    if (isFailure) {
      this.#open(nowMs)
      return false
    }
    this.#nextAtMs = nowMs
    if (++this.#goodProbes < GOOD_PROBES) return false
    this.#isClosed = true
    this.#outcomes.clear()
    this.#failures.clear()
    return true
  }

  #open(nowMs: number): void {
    this.#isClosed = this.#isProbed = false
    this.#goodProbes = 0
    this.#nextAtMs = nowMs + this.#rules.cooldownMs
  }
}

export const breakerOpen = (waitMs: number): GatewayError =>
  new GatewayError('breaker_open', 'The upstream has failed too often of late and is left alone. Try again later.', {
    retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)),
  })
