// After how long a target closes a connection that nobody uses, learned where it does not say so. A POST that crosses such a
// close is lost: nobody knows whether it was read, not even from a reset, so it may not be sent again. So connections are
// given up before. Pure: times in, a time out, so that every rule is a row in test/upstream/idle-limit.test.ts.
//
// What closes by the clock does so after the same time again and again, and nothing stays open for longer. A target that
// is started anew closes all it has at once, whatever their age: that is seen once, and in other times the next time.

/** Closes that agree, less those that do not, each of a connection that was still in use at the one before. */
const ENOUGH = 3
const MOST = 6
/** What looks for idle connections now and then only finds them late. */
const TOLERANCE = 1.5
const WEIGHT = 0.25
/** Of the time after which they close. */
const SHARE = 0.66
/** The target may have been given more time meanwhile, which nobody sees who closes first. */
const KEPT_MS = 600_000

export class IdleLimit {
  /** On average. */
  #limitMs = 0
  /** What speaks for it. */
  #votes = 0
  #seenAtMs = -Infinity

  /** Milliseconds for which a connection may be idle; Infinity: as far as is known. nowMs: any clock, the same in all calls. */
  keepMs(nowMs: number): number {
    if (this.#votes < ENOUGH) return Infinity
    if (nowMs - this.#seenAtMs < KEPT_MS) return SHARE * this.#limitMs
    this.#votes = 0
    return Infinity
  }

  /** One was still open after so long. */
  survived(idleMs: number): void {
    if (this.#votes > 0 && idleMs > TOLERANCE * this.#limitMs) this.#votes--
  }

  /** The target has closed one that was idle for so long. */
  closed(idleMs: number, nowMs: number): void {
    if (nowMs - idleMs < this.#seenAtMs) return
    this.#seenAtMs = nowMs
    if (this.#votes === 0) {
      this.#limitMs = idleMs
      this.#votes = 1
    } else if (idleMs > TOLERANCE * this.#limitMs || idleMs * TOLERANCE < this.#limitMs) this.#votes--
    else {
      this.#limitMs += WEIGHT * (idleMs - this.#limitMs)
      this.#votes = Math.min(MOST, this.#votes + 1)
    }
  }
}
