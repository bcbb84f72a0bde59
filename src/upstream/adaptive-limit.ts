// How many requests an upstream is given at the same time, found out by how long it takes to answer. Pure: what begins and
// ends, with times, in; a limit out; test/upstream/adaptive-limit.test.ts simulates servers.
//
// An upstream that has more than it can work on lets the rest wait, and all answers take longer: more requests at a time
// then bring nothing but delay. So requests are watched in cohorts, each begun after the last verdict, and the median of
// a cohort is compared with what is usual while nobody waits:
//
//   as usual     the limit grows by its root, where all of it was used; at first it doubles
//   longer       it shrinks by as much
//   failed       it shrinks by half their share: timeouts, no connection, 429, 502, 503, 504
//
// A median of few requests that differ by nature is a guess, so what counts as longer is beyond twice its standard error.
// What is usual changes as well. Where giving the upstream fewer requests has not made it faster, they were not what made
// it slow: then that is usual now. And every so often it is given fewer to see whether that makes it faster. Compare the
// gradient limits of Netflix (concurrency-limits) and Envoy (adaptive concurrency), which go down to a few requests for that.

export interface LimitRange {
  readonly min: number
  readonly max: number
}

/** Of requests that nobody watches. */
export const NO_COHORT = -1
/** A cohort has twice the limit, within this. */
const MIN_COHORT = 20
const MAX_COHORT = 200
/** At first, when it has the limit at least. */
const START_COHORT = 8
const MIN_COHORT_MS = 100
/** Of a cohort, whose end is enough to know its median: some requests hang. */
const ENOUGH = 0.75
/** Longer than usual by this is not longer. */
const SLACK = 0.1
/** The same while few requests have said what is usual. */
const START_SLACK = 0.5
const STANDARD_ERRORS = 2
const MAX_SHRINK = 0.5
/** What is usual follows this much of what is measured. */
const FOLLOW = 0.25
/** Cohorts between two trials with fewer requests, and how many fewer. */
const TRIAL_EVERY = 20
const TRIAL_PART = 0.7
/** Shrunk to this without becoming faster, it was not too much. */
const IN_VAIN_PART = 0.7
const IN_VAIN_LATENCY = 0.9

export class AdaptiveLimit {
  readonly #range: LimitRange
  /** Not whole, so that small limits can grow slowly. */
  #limit: number
  /** Median while nobody waits, milliseconds; 0: not known. */
  #usualMs = 0
  /** It doubles, until something speaks against it. */
  #isStarting = true
  #trialIn = TRIAL_EVERY
  /** Before a trial; 0: there is none. */
  #limitBefore = 0
  /** When it began to shrink. */
  #shrunkFrom: { readonly limit: number; readonly medianMs: number } | null = null

  // The cohort.
  #cohort = 0
  #openedAtMs = -Infinity
  #size = 0
  #failures = 0
  #isUsed = false
  readonly #latenciesMs = new Float64Array(MAX_COHORT)
  #ended = 0

  constructor(range: LimitRange) {
    this.#range = range
    this.#limit = range.min
  }

  get limit(): number {
    return Math.floor(this.#limit)
  }

  /** A request goes out, with which there are `taken`. Answers its cohort, to which its end is owed. */
  begin(taken: number, nowMs: number): number {
    if (taken >= this.limit) this.#isUsed = true
    if (this.#isClosed(nowMs) && !this.#isJudged()) return NO_COHORT
    if (this.#size === 0) this.#openedAtMs = nowMs
    this.#size++
    return this.#cohort
  }

  /** latencyMs: to the head of its answer; 'failed': the upstream had none; 'gone': nobody knows. */
  end(cohort: number, latencyMs: number | 'failed' | 'gone', nowMs: number): void {
    if (cohort !== this.#cohort) return
    if (latencyMs === 'gone') this.#size--
    else if (latencyMs === 'failed') this.#failures++
    else this.#latenciesMs[this.#ended++] = latencyMs
    if (this.#isClosed(nowMs)) this.#isJudged()
  }

  #isClosed(nowMs: number): boolean {
    if (this.#size >= MAX_COHORT) return true
    const wanted = this.#isStarting ? Math.max(START_COHORT, this.limit) : Math.max(MIN_COHORT, 2 * this.#limit)
    return this.#size >= wanted && nowMs - this.#openedAtMs >= MIN_COHORT_MS
  }

  /** True where enough of the cohort have ended; then the next one begins. */
  #isJudged(): boolean {
    if (this.#ended + this.#failures < ENOUGH * this.#size) return false
    this.#judge()
    return true
  }

  #judge(): void {
    const failed = this.#failures / this.#size
    const latencies = this.#latenciesMs.subarray(0, this.#ended).sort()
    // Those that have not ended take longer than most.
    const count = this.#size - this.#failures
    const medianMs = latencies[(count - 1) >> 1] ?? Infinity
    const deviationMs = (medianMs - (latencies[(count - 1) >> 2] ?? medianMs)) / 0.6745
    const errorMs = (1.2533 * deviationMs) / Math.sqrt(count)
    const isUsed = this.#isUsed
    this.#cohort++
    this.#size = this.#failures = this.#ended = 0
    this.#isUsed = false
    if (failed < 0.5) this.#learn(medianMs, errorMs, isUsed)
    if (failed > 0) this.#set(this.#limit * (1 - failed / 2))
  }

  #learn(medianMs: number, errorMs: number, isUsed: boolean): void {
    if (this.#usualMs === 0) this.#usualMs = medianMs
    if (this.#limitBefore > 0) return this.#endTrial(medianMs, errorMs)
    if (!isUsed) {
      // Nobody waits for anybody, or not by our doing.
      this.#usualMs += FOLLOW * (medianMs - this.#usualMs)
      return
    }
    const isStarting = this.#isStarting
    if (this.#isFaster(medianMs, errorMs)) this.#usualMs = medianMs
    else if (medianMs < this.#usualMs) this.#usualMs += FOLLOW * (medianMs - this.#usualMs)
    const mostMs = this.#usualMs * (1 + (isStarting ? START_SLACK : SLACK)) + STANDARD_ERRORS * errorMs
    if (medianMs > mostMs) return this.#shrink(medianMs, Math.max(MAX_SHRINK, mostMs / medianMs))
    this.#shrunkFrom = null
    if (isStarting) {
      // The later, the more requests.
      this.#usualMs = (this.#usualMs + medianMs) / 2
      return this.#set(2 * this.#limit)
    }
    this.#set(this.#limit + Math.sqrt(this.#limit))
    if (--this.#trialIn > 0) return
    this.#tryFewer()
  }

  #shrink(medianMs: number, part: number): void {
    this.#isStarting = false
    // What was let in before may still have to be worked off.
    if (this.#shrunkFrom === null || medianMs > this.#shrunkFrom.medianMs)
      this.#shrunkFrom = { limit: this.#limit, medianMs }
    const { limit, medianMs: beforeMs } = this.#shrunkFrom
    if (this.#limit <= IN_VAIN_PART * limit && medianMs > IN_VAIN_LATENCY * beforeMs) {
      this.#usualMs = medianMs
      this.#shrunkFrom = null
      this.#set(limit)
    } else this.#set(this.#limit * part)
  }

  #endTrial(medianMs: number, errorMs: number): void {
    const isFaster = this.#isFaster(medianMs, errorMs)
    const before = this.#limitBefore
    this.#usualMs += (isFaster ? 1 : FOLLOW) * (medianMs - this.#usualMs)
    this.#limitBefore = 0
    this.#trialIn = TRIAL_EVERY
    if (!isFaster) this.#set(before)
    else if (this.#limit > this.#range.min) this.#tryFewer()
  }

  /** Beyond what may be chance. */
  #isFaster(medianMs: number, errorMs: number): boolean {
    return medianMs + errorMs < this.#usualMs * (1 - SLACK)
  }

  #tryFewer(): void {
    this.#limitBefore = this.#limit
    this.#set(this.#limit * TRIAL_PART)
  }

  #set(limit: number): void {
    const { min, max } = this.#range
    this.#limit = Math.min(max, Math.max(min, limit))
    if (this.#limit === min) this.#isStarting = true
    if (this.#limit === max) this.#isStarting = false
  }
}
