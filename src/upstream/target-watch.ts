// Looks after the health of one target: hears what becomes of its requests, checks it where the table says so, tries to
// connect while it is out, and tells of each change once.

import type { Alarm, Alarms } from '../core/alarms.ts'
import type { GatewayError } from '../core/errors.ts'
import type { Connect } from './connect.ts'
import { TargetHealth } from './health.ts'
import { type Look, compileCheck, compileKnock } from './look.ts'
import type { HealthOptions } from './options.ts'

export interface WatchSetup {
  readonly origin: URL
  readonly connect: Connect
  readonly alarms: Alarms
  readonly options: HealthOptions
  /** It was out under the configuration before. */
  readonly isOut: boolean
  readonly onChange: (isOut: boolean, why: string) => void
}

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
  readonly #onChange: WatchSetup['onChange']
  #callOff: (() => void) | null = null
  #isClosed = false

  constructor({ origin, connect, alarms, options, isOut, onChange }: WatchSetup) {
    const { path, failures, slowStart, interval, timeout, healthyAfter, unhealthyAfter } = options
    const checks = path === undefined ? null : { intervalMs: interval, healthyAfter, unhealthyAfter }
    this.#health = new TargetHealth({ failures, slowStartMs: slowStart, checks }, isOut)
    this.#look = path === undefined ? compileKnock(connect) : compileCheck(connect, origin, path, timeout)
    this.#alarms = alarms
    this.#onChange = onChange
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

  /** An answer has come whole. */
  answered(status: number): void {
    const health = this.#health
    if (isFailing(status)) this.#update(`answers with ${status}`, () => health.failed(false, performance.now()))
    else if (health.isInDoubt) this.#update('answers', () => health.answered(performance.now()))
  }

  /** A request that the target was to answer has failed. */
  failed(error: GatewayError): void {
    const { code } = error
    const isUnreachable = UNREACHABLE.has(code)
    if (isUnreachable || FAILED.has(code)) {
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

  #update(why: string, change: () => void): void {
    const wasOut = this.#health.isOut
    change()
    const { isOut } = this.#health
    if (isOut === wasOut) return
    this.#schedule()
    this.#onChange(isOut, why)
  }

  #schedule(): void {
    const nextMs = this.#health.nextLookMs(Math.random())
    if (this.#isClosed || this.#callOff !== null) return
    if (nextMs === null) this.#alarms.clear(this)
    else this.#alarms.set(this, performance.now() + nextMs)
  }
}
