// How many further attempts an upstream gets: in any ten seconds a tenth of its requests, and 30 more, so that few requests
// may be tried again as well. When all of it fails, attempts would double what it has to bear just then. Attempts that
// bring no work to anybody are not counted here: no connection was made, or a kept one was closed.

import { SlidingCount } from '../core/sliding-count.ts'

const SECONDS = 10
const SHARE = 0.1
const FREE_PER_SECOND = 3

export class RetryBudget {
  readonly #requests = new SlidingCount(SECONDS * 1000)
  readonly #retries = new SlidingCount(SECONDS * 1000)

  /** A request comes. */
  note(nowMs: number): void {
    this.#requests.add(nowMs)
  }

  /** True where one may be tried again, which then counts. */
  take(nowMs: number): boolean {
    const most = SHARE * this.#requests.within(nowMs) + SECONDS * FREE_PER_SECOND
    if (this.#retries.within(nowMs) >= most) return false
    this.#retries.add(nowMs)
    return true
  }
}
