// For how long a target is left alone because it has asked for that, by a 503 or 429 with Retry-After. Pure: answers and
// times in, a verdict out. Unlike a breaker it takes the target at its word: one answer is enough, and nobody tries.

import { GatewayError } from '../core/errors.ts'

export interface CoolDownRules {
  /** 429 says of one client, as often as not, that it has asked for too much: not everybody wants that heard for all. */
  readonly statuses: ReadonlySet<number>
  /** However long it asks for. */
  readonly maxMs: number
}

/** Several answers of one moment say the same: what one of them adds to the others is not worth telling. */
const NEWS_MS = 250

export class CoolDown {
  readonly #rules: CoolDownRules
  #untilMs = -Infinity
  #toldUntilMs = -Infinity

  constructor(rules: CoolDownRules) {
    this.#rules = rules
  }

  /** performance.now() at which requests may go again; a time that has passed where they may go now. */
  get untilMs(): number {
    return this.#untilMs
  }

  /** An answer says when to come again. Null: that changes nothing. */
  refused(status: number, retryAfterMs: number, nowMs: number): 'longer' | 'news' | null {
    return this.#rules.statuses.has(status) ? this.rest(retryAfterMs, nowMs) : null
  }

  /** The same by anybody's word. */
  rest(wantedMs: number, nowMs: number): 'longer' | 'news' | null {
    const untilMs = nowMs + Math.min(wantedMs, this.#rules.maxMs)
    if (untilMs <= nowMs || untilMs <= this.#untilMs) return null
    this.#untilMs = untilMs
    if (untilMs - this.#toldUntilMs < NEWS_MS) return 'longer'
    this.#toldUntilMs = untilMs
    return 'news'
  }

  /** Milliseconds until requests may go; 0: they may. */
  waitMs(nowMs: number): number {
    return Math.max(0, this.#untilMs - nowMs)
  }
}

export const coolingDown = (waitMs: number): GatewayError =>
  new GatewayError('cooling_down', 'The upstream has asked to be left alone for a while. Try again later.', {
    retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)),
  })
