// Looks after one target: hears what becomes of its requests, for its health and its breaker, checks it where the table says
// so, tries to connect while it is out, and tells of each change once.

import type { Alarm, Alarms } from '../core/alarms.ts'
import type { GatewayError } from '../core/errors.ts'
import { type BreakerState, TargetBreaker } from './breaker.ts'
import type { Connect } from './connect.ts'
import { TargetHealth } from './health.ts'
import { type Look, compileCheck, compileKnock } from './look.ts'
import type { BreakerOptions, HealthOptions } from './options.ts'

export interface WatchSetup {
  readonly origin: URL
  readonly connect: Connect
  readonly alarms: Alarms
  readonly health: HealthOptions
  readonly breaker: BreakerOptions | undefined
  /** It was out under the configuration before. */
  readonly isOut: boolean
  readonly tell: (event: TargetEvent, why: string) => void
}

/** What may happen to a target: it goes out and comes back, its breaker opens and closes. */
export type TargetEvent = 'out' | 'back' | 'open' | 'closed'

/** Answers that speak of the target, not of the request: 500 may be the fault of one URL. */
export const isFailing = (status: number): boolean => status === 502 || status === 503 || status === 504

const UNREACHABLE: ReadonlySet<string> = new Set(['upstream_refused', 'timeout_connect'])
const FAILED: ReadonlySet<string> = new Set([
  'upstream_reset',
  'upstream_invalid',
  'timeout_first_byte',
  'timeout_idle',
  'timeout_total',
])

export class TargetWatch implements Alarm {
  dueMs = 0
  place = -1
  readonly #health: TargetHealth
  readonly #look: Look
  readonly #alarms: Alarms
  readonly #breaker: TargetBreaker | null
  readonly #tell: WatchSetup['tell']
  /** What was told last: one that comes back on trial and fails again was never back. */
  #isToldOut: boolean
  #callOff: (() => void) | null = null
  #isClosed = false

  constructor({ origin, connect, alarms, health, breaker, isOut, tell }: WatchSetup) {
    const { path, failures, slowStart, interval, timeout, healthyAfter, unhealthyAfter } = health
    const checks = path === undefined ? null : { intervalMs: interval, healthyAfter, unhealthyAfter }
    this.#isToldOut = isOut
    this.#health = new TargetHealth({ failures, slowStartMs: slowStart, checks }, isOut)
    this.#look = path === undefined ? compileKnock(connect) : compileCheck(connect, origin, path, timeout)
    this.#alarms = alarms
    this.#tell = tell
    this.#breaker = breaker === undefined ? null : compileBreaker(breaker)
    if (path !== undefined) alarms.set(this, performance.now() + Math.random() * Math.min(interval, 1000))
    else this.#schedule()
  }

  get isOut(): boolean {
    return this.#health.isOut
  }

  get exits(): number {
    return this.#health.exits
  }

  share(nowMs: number): number {
    return this.#health.share(nowMs)
  }

  /** Null: it has none. */
  breakerState(nowMs: number): BreakerState | null {
    return this.#breaker === null ? null : this.#breaker.state(nowMs)
  }

  /** False while its breaker lets no request go. */
  mayTake(nowMs: number): boolean {
    return this.#breaker === null || this.#breaker.mayTake(nowMs)
  }

  /** A request goes. */
  take(nowMs: number): void {
    this.#breaker?.take(nowMs)
  }

  /** Milliseconds until its breaker lets a request go. */
  waitMs(nowMs: number): number {
    return this.#breaker === null ? 0 : this.#breaker.waitMs(nowMs)
  }

  /** An answer has come whole. */
  answered(status: number): void {
    if (this.#breaker !== null) this.#count(this.#breaker, status >= 500, `status ${status}`)
    const health = this.#health
    if (isFailing(status)) this.#update(`answers with ${status}`, () => health.failed(false, performance.now()))
    else if (health.isInDoubt || this.#isToldOut) this.#update('answers', () => health.answered(performance.now()))
  }

  /** A request that the target was to answer has failed. */
  failed(error: GatewayError): void {
    const { code } = error
    const isUnreachable = UNREACHABLE.has(code)
    if (isUnreachable || FAILED.has(code)) {
      if (this.#breaker !== null) this.#count(this.#breaker, true, code)
      this.#update(code, () => this.#health.failed(isUnreachable, performance.now()))
    }
  }

  ring(): void {
    this.#callOff = this.#look((isGood) => {
      this.#callOff = null
      this.#update(isGood ? 'passes its checks' : 'fails its checks', () =>
        this.#health.checked(isGood, performance.now()),
      )
      this.#schedule()
    })
  }

  close(): void {
    this.#isClosed = true
    this.#alarms.clear(this)
    this.#callOff?.()
    this.#callOff = null
  }

  #count(breaker: TargetBreaker, isFailure: boolean, why: string): void {
    if (breaker.record(isFailure, performance.now())) this.#tell(isFailure ? 'open' : 'closed', why)
  }

  #update(why: string, change: () => void): void {
    const wasOut = this.#health.isOut
    change()
    const { isOut, isInDoubt } = this.#health
    if (isOut !== wasOut) this.#schedule()
    if (isOut === this.#isToldOut || (!isOut && isInDoubt)) return
    this.#isToldOut = isOut
    this.#tell(isOut ? 'out' : 'back', why)
  }

  #schedule(): void {
    const nextMs = this.#health.nextLookMs(Math.random())
    if (this.#isClosed || this.#callOff !== null) return
    if (nextMs === null) this.#alarms.clear(this)
    else this.#alarms.set(this, performance.now() + nextMs)
  }
}

const compileBreaker = ({ failureRate, window, minRequests, cooldown }: BreakerOptions): TargetBreaker =>
  new TargetBreaker({ failureRate, windowMs: window, minRequests, cooldownMs: cooldown })
