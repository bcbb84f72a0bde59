// How far the clock of a Redis is ahead of ours, from the times that it tells. Pure.
//
// An answer was made after its question was sent and before it came, so each bounds the difference from both sides; a quick
// one closely, a late one hardly. What all of them allow holds. An answer that fits none of what was known tells that
// one of the clocks has been set, and begins anew. So no answer, however late, sets a clock back that stands right.
//
// All times are whole milliseconds, rounded down.

export class RemoteClock {
  #least: number | null = null
  #most = 0

  /** Milliseconds, by the lower of the bounds: what ends by that clock is never taken to have ended too early. null: it has
   *  told nothing yet. */
  get aheadMs(): number | null {
    return this.#least
  }

  /** sentAtMs, heardAtMs: by our clock, when the question went out and when the answer came. */
  heard(theirMs: number, sentAtMs: number, heardAtMs: number): void {
    const least = theirMs - heardAtMs
    // Our own clock may have been set back in between.
    const most = Math.max(least, theirMs + 1 - sentAtMs)
    const isNews = this.#least === null || least > this.#most || most < this.#least
    this.#least = isNews ? least : Math.max(least, this.#least as number)
    this.#most = isNews ? most : Math.min(most, this.#most)
  }
}
