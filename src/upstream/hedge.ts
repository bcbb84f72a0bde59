// A request that asks a second target where the first is late with the head of its answer: the head that comes first is the
// answer, and the other attempt is broken off, its connection with it. Both are requests like others to gate, targets and
// breakers; the second has no further attempts, and the time that is left to the first. Only what changes nothing is asked
// twice, and only with no body, or one that is held.
//
// No second attempt where the upstream has no place for it, no other target is well, the first still waits for a place or
// has already failed once, or the gateway is overloaded.

import type { Alarm } from '../core/alarms.ts'
import { GatewayError } from '../core/errors.ts'
import type { Overload } from '../core/overload.ts'
import type { AttemptAnswer } from './fetch.ts'
import type { Hedging } from './hedging.ts'
import type { UpstreamPool } from './pool.ts'
import { type Patience, UpstreamFetch, type UpstreamRequest, isHeld, isReadOnly } from './retry.ts'
import { isFailing } from './target-watch.ts'

export const mayBeHedged = ({ method, body, isHandshake }: UpstreamRequest): boolean =>
  isReadOnly(method) && isHeld(body) && !isHandshake

const NO_REFUSALS = { wait: 0, methods: 'idempotent' } as const
const OVERTAKEN = new GatewayError('upstream_failing', 'Another attempt has answered.')

export class HedgedFetch<Answer> implements Alarm {
  dueMs = 0
  place = -1
  /** Rejects with a GatewayError. */
  readonly answer: Promise<Answer>
  readonly #pool: UpstreamPool
  readonly #hedging: Hedging
  readonly #request: UpstreamRequest
  readonly #patience: Patience
  readonly #overload: Overload
  readonly #read: (answer: AttemptAnswer) => Answer | GatewayError
  readonly #resolve: (answer: Answer) => void
  readonly #reject: (error: GatewayError) => void
  readonly #first: UpstreamFetch<Answer>
  #second: UpstreamFetch<Answer> | null = null
  /** Those that may still answer. */
  #out = 1
  /** The one that has answered. */
  #winner: UpstreamFetch<Answer> | null = null

  constructor(
    pool: UpstreamPool,
    hedging: Hedging,
    request: UpstreamRequest,
    patience: Patience,
    overload: Overload,
    read: (answer: AttemptAnswer) => Answer | GatewayError,
  ) {
    this.#pool = pool
    this.#hedging = hedging
    this.#request = request
    this.#patience = patience
    this.#overload = overload
    this.#read = read
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    this.answer = promise
    this.#resolve = resolve
    this.#reject = reject
    hedging.begin()
    this.#first = this.#send(request, patience, null)
    const { delayMs } = hedging
    if (delayMs !== null) hedging.alarms.set(this, performance.now() + delayMs)
  }

  /** True while a target has it. */
  get isSent(): boolean {
    return this.#first.isSent || this.#second?.isSent === true
  }

  /** How many attempts a target may have worked on, those that were broken off among them. */
  get workedOn(): number {
    return this.#first.workedOn + (this.#second?.workedOn ?? 0)
  }

  /** Gives up, at any point of it. */
  abort(reason: GatewayError): void {
    if (this.#winner === null && this.#out > 0 && !this.isSent) this.#request.onUnsent()
    this.#hedging.alarms.clear(this)
    this.#first.abort(reason)
    this.#second?.abort(reason)
  }

  /** The first is late. */
  ring(nowMs: number): void {
    const { target, attempts, startedAtMs } = this.#first
    if (target === null || attempts > 1 || this.#out === 0 || this.#overload.isOver) return
    if (this.#pool.gate?.hasRoom === false || !this.#pool.hasWell([target]) || !this.#hedging.take()) return
    const { timeouts } = this.#patience
    const leftMs = startedAtMs + timeouts.totalMs - nowMs
    this.#out++
    this.#second = this.#send(
      { ...this.#request, relayInterim: null, onSent: null },
      { timeouts: { ...timeouts, totalMs: Math.max(1, leftMs) }, retries: 0, refusals: NO_REFUSALS },
      target,
    )
  }

  #send(request: UpstreamRequest, patience: Patience, other: UpstreamFetch<Answer>['target']): UpstreamFetch<Answer> {
    const fetch: UpstreamFetch<Answer> = new UpstreamFetch<Answer>(
      this.#pool,
      // What is to be told of both is told here.
      { ...request, onAttempts: () => {}, onUnsent: () => {} },
      patience,
      (answer) => this.#judge(fetch, answer),
      other === null ? [] : [other],
    )
    fetch.answer.then(this.#resolve, (error: GatewayError) => this.#onFailed(fetch, error))
    return fetch
  }

  /** A head has come. */
  #judge(fetch: UpstreamFetch<Answer>, answer: AttemptAnswer): Answer | GatewayError {
    // The other one may do better.
    if (this.#out > 1 && isFailing(answer.status)) {
      fetch.target?.answered(answer.status)
      return new GatewayError('upstream_failing', `One of two attempts was answered with ${answer.status}.`)
    }
    this.#hedging.alarms.clear(this)
    this.#winner = fetch
    const nowMs = performance.now()
    this.#hedging.note(nowMs - this.#first.startedAtMs)
    if (this.#second !== null) {
      const isSecond = fetch === this.#second
      if (isSecond) {
        this.#hedging.won++
        this.#first.target?.suspect()
      }
      const loser = isSecond ? this.#first : this.#second
      loser.abort(OVERTAKEN)
      this.#request.onAttempts(this.#attempts)
    } else if (fetch.attempts > 1) this.#request.onAttempts(fetch.attempts)
    return this.#read(answer)
  }

  #onFailed(fetch: UpstreamFetch<Answer>, error: GatewayError): void {
    this.#out--
    // Of the one that has answered: what it says could not be used.
    if (this.#winner === null ? this.#out > 0 : this.#winner !== fetch) return
    this.#hedging.alarms.clear(this)
    if (this.#attempts > 1) this.#request.onAttempts(this.#attempts)
    this.#reject(error)
  }

  get #attempts(): number {
    return this.#first.attempts + (this.#second?.attempts ?? 0)
  }
}
