// Deadlines of many short waits under one timer, judged so that a stalled event loop is never taken for a slow peer.
// Deadlines is the rule, with time as a parameter; Sweeper is the rule with a timer and the clock.
//
// Each sweep marks first and judges after the loop has polled its sockets once more, so that a reply which lies in the
// socket already counts as come. A sweep that is itself late tells of a stall in which no reply could be read: the clock
// of every wait has stood still for as long as that. Between two sweeps it goes on by the period at least, so an always
// late loop ends every wait as well: within the limit and its own delays.

/** Period of the sweeps, while there is something to sweep. */
const SWEEP_MS = 5
/** A sweep later than this tells of a stall. */
const LATE_MS = 12

/** One wait; an opaque handle outside. */
export interface Wait {
  readonly expire: () => void
  deadlineMs: number
}

export class Deadlines {
  readonly #limitMs: number
  /** Oldest first, and so the earliest deadline first: all have the same limit. */
  readonly #waits = new Set<Wait>()
  #markedAtMs = 0

  constructor(limitMs: number) {
    this.#limitMs = limitMs
  }

  get size(): number {
    return this.#waits.size
  }

  add(nowMs: number, expire: () => void): Wait {
    const wait = { expire, deadlineMs: nowMs + this.#limitMs }
    this.#waits.add(wait)
    return wait
  }

  /** The wait has ended in time; false when it had expired before. */
  delete(wait: Wait): boolean {
    return this.#waits.delete(wait)
  }

  /** A sweep begins, which was due at expectedMs. */
  mark(nowMs: number, expectedMs: number): void {
    this.#excuse(nowMs - expectedMs, nowMs)
    this.#markedAtMs = nowMs
  }

  /** Ends the sweep after one more poll: expires what was due at its mark. Answers how many that were. */
  judge(nowMs: number): number {
    this.#excuse(nowMs - this.#markedAtMs, nowMs)
    let expired = 0
    for (const wait of this.#waits) {
      if (wait.deadlineMs > this.#markedAtMs) break
      this.#waits.delete(wait)
      wait.expire()
      expired++
    }
    return expired
  }

  #excuse(lateMs: number, nowMs: number): void {
    if (lateMs <= LATE_MS) return
    for (const wait of this.#waits) wait.deadlineMs = Math.min(wait.deadlineMs + lateMs, nowMs + this.#limitMs)
  }
}

/** Deadlines with their timer, which runs only while something waits. onMissed is called once for each sweep that found
 *  some, after their own callbacks. */
export class Sweeper {
  readonly #deadlines: Deadlines
  readonly #onMissed: (count: number) => void
  #isRunning = false

  constructor(limitMs: number, onMissed: (count: number) => void) {
    this.#deadlines = new Deadlines(limitMs)
    this.#onMissed = onMissed
  }

  /** expire: called when limitMs have passed, unless delete comes first. */
  add(expire: () => void): Wait {
    const nowMs = performance.now()
    if (!this.#isRunning) this.#start(nowMs)
    return this.#deadlines.add(nowMs, expire)
  }

  /** The wait has ended in time; false when it had expired before. */
  delete(wait: Wait): boolean {
    return this.#deadlines.delete(wait)
  }

  #start(nowMs: number): void {
    this.#isRunning = true
    setTimeout(() => {
      this.#deadlines.mark(performance.now(), nowMs + SWEEP_MS)
      setImmediate(() => this.#finish())
    }, SWEEP_MS)
  }

  #finish(): void {
    const nowMs = performance.now()
    const missed = this.#deadlines.judge(nowMs)
    this.#isRunning = false
    if (this.#deadlines.size > 0) this.#start(nowMs)
    if (missed > 0) this.#onMissed(missed)
  }
}
