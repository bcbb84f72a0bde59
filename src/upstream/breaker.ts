// Whether a target may be asked at all, by how many of its last answers were failures. Pure: outcomes and times in, a state
// out, so that every rule is a row in test/upstream/breaker.test.ts.
//
//   closed     every request may go
//   open       none may, for the cooldown: the target gets time, and clients an answer at once
//   half-open  one at a time may, to see: two good outcomes close it, a bad one opens it again
//
// Unlike health.ts it knows no targets beside, and no exception: where all are open, requests are refused.

export interface BreakerRules {
  /** Of the outcomes within the window, from above 0 to 1. */
  readonly failureRate: number
  readonly windowMs: number
  /** Outcomes within the window, below which nothing opens it. */
  readonly minRequests: number
  readonly cooldownMs: number
}

export type BreakerState = 'closed' | 'open' | 'half-open'

/** The window slides by tenths. */
const SLICES = 10
const GOOD_PROBES = 2

export class TargetBreaker {
  readonly #rules: BreakerRules
  readonly #outcomes = new Uint32Array(SLICES)
  readonly #failures = new Uint32Array(SLICES)
  #slice = 0
  #isClosed = true
  /** While not closed: when the next request may go, which has not told its outcome yet. */
  #nextAtMs = 0
  #goodProbes = 0
  #isProbed = false

  constructor(rules: BreakerRules) {
    this.#rules = rules
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
    this.#turn(Math.floor(nowMs / (this.#rules.windowMs / SLICES)))
    const slot = this.#slice % SLICES
    this.#outcomes[slot] = (this.#outcomes[slot] as number) + 1
    if (!isFailure) return false
    this.#failures[slot] = (this.#failures[slot] as number) + 1
    const outcomes = sum(this.#outcomes)
    const isTooMuch = sum(this.#failures) >= this.#rules.failureRate * outcomes
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
    this.#outcomes.fill(0)
    this.#failures.fill(0)
    return true
  }

  #open(nowMs: number): void {
    this.#isClosed = this.#isProbed = false
    this.#goodProbes = 0
    this.#nextAtMs = nowMs + this.#rules.cooldownMs
  }

  #turn(slice: number): void {
    for (let past = Math.max(this.#slice + 1, slice - SLICES + 1); past <= slice; past++) {
      this.#outcomes[past % SLICES] = this.#failures[past % SLICES] = 0
    }
    this.#slice = Math.max(this.#slice, slice)
  }
}

function sum(counts: Uint32Array): number {
  let all = 0
  for (const count of counts) all += count
  return all
}
