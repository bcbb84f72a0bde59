// How many further attempts an upstream gets: in any ten seconds a tenth of its requests, and 30 more, so that few requests
// may be tried again as well. When all of it fails, attempts would double what it has to bear just then. Attempts that
// bring no work to anybody are not counted here: no connection was made, or a kept one was closed.

const SECONDS = 10
const SHARE = 0.1
const FREE_PER_SECOND = 3

export class RetryBudget {
  readonly #requests = new Uint32Array(SECONDS)
  readonly #retries = new Uint32Array(SECONDS)
  #second = 0

  /** A request comes. */
  note(nowMs: number): void {
    const second = Math.floor(nowMs / 1000)
    if (second !== this.#second) this.#turn(second)
    const slot = this.#second % SECONDS
    this.#requests[slot] = (this.#requests[slot] as number) + 1
  }

  /** True where one may be tried again, which then counts. */
  take(nowMs: number): boolean {
    this.#turn(Math.floor(nowMs / 1000))
    if (sum(this.#retries) >= SHARE * sum(this.#requests) + SECONDS * FREE_PER_SECOND) return false
    const slot = this.#second % SECONDS
    this.#retries[slot] = (this.#retries[slot] as number) + 1
    return true
  }

  /** Never back: whoever comes with an older time is counted in the latest second. */
  #turn(second: number): void {
    for (let past = Math.max(this.#second + 1, second - SECONDS + 1); past <= second; past++) {
      this.#requests[past % SECONDS] = this.#retries[past % SECONDS] = 0
    }
    this.#second = Math.max(this.#second, second)
  }
}

function sum(counts: Uint32Array): number {
  let all = 0
  for (const count of counts) all += count
  return all
}
