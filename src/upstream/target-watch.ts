// Looks after one target: hears what becomes of its requests, for its health, its breaker and its cool-down, checks it where
// the table says so, tries to connect while it is out, and tells of each change once.
//
// A target that stalls fails no request before a deadline passes, and those are long. So where it is checked, one that has
// requests and says nothing is checked at once: slow it may well be, but then it passes. While that check goes unanswered
// as well, the next one is sent beside it, and others are asked before this target: that costs nobody anything, so it
// needs no verdict. Out it goes when the checks say so.

import type { Alarm, Alarms } from '../core/alarms.ts'
import type { GatewayError } from '../core/errors.ts'
import { type BreakerState, TargetBreaker, breakerOpen } from './breaker.ts'
import type { Connect } from './connect.ts'
import { CoolDown, coolingDown } from './cool-down.ts'
import { TargetHealth } from './health.ts'
import { type Look, compileCheck, compileKnock, isSilence } from './look.ts'
import type { BreakerOptions, HealthOptions, RefusalOptions } from './options.ts'

export interface WatchSetup {
  readonly origin: URL
  readonly connect: Connect
  readonly alarms: Alarms
  readonly health: HealthOptions
  readonly breaker: BreakerOptions | undefined
  readonly refusals: RefusalOptions
  /** It was out under the configuration before. */
  readonly isOut: boolean
  /** How many requests it has. */
  readonly load: () => number
  readonly tell: (event: TargetEvent, why: string) => void
  /** It goes out. isMute: since it says nothing; otherwise what it has may be answered yet. */
  readonly onOut: (isMute: boolean) => void
}

/** What may happen to a target: it goes out and comes back, its breaker opens and closes, it is left alone for a while. */
export type TargetEvent = 'out' | 'back' | 'open' | 'closed' | 'cooling' | 'unresolved' | 'resolved'

/** Answers that speak of the target, not of the request: 500 may be the fault of one URL. */
export const isFailing = (status: number): boolean => status === 502 || status === 503 || status === 504

const UNREACHABLE: ReadonlySet<string> = new Set(['upstream_refused', 'timeout_connect'])
const FAILED: ReadonlySet<string> = new Set([
  'upstream_reset',
  'upstream_invalid',
  'timeout_first_byte',
  'timeout_first_event',
  'timeout_idle',
  'timeout_total',
])

/** How often it is seen to that a target which has requests is heard of. */
const SILENCE_MS = 250
/** Between two looks that were not due yet. */
const MIN_PAUSE_MS = 1000
/** At the same time. */
const MAX_LOOKS = 3

export class TargetWatch implements Alarm {
  dueMs = 0
  place = -1
  readonly #health: TargetHealth
  readonly #look: Look
  readonly #alarms: Alarms
  readonly #breaker: TargetBreaker | null
  readonly #coolDown: CoolDown | null
  readonly #tell: WatchSetup['tell']
  readonly #onOut: WatchSetup['onOut']
  /** What was told last: one that comes back on trial and fails again was never back. */
  #isToldOut: boolean
  /** Those that are under way, by what calls them off. */
  readonly #looks = new Set<() => void>()
  readonly #maxLooks: number
  #isClosed = false
  readonly #isChecked: boolean
  readonly #load: WatchSetup['load']
  /** Infinity while one is under way. */
  #lookDueMs = 0
  #suspectedAtMs = -Infinity
  /** How often something has come from it; and by the last time that somebody saw to it. */
  #heard = 0
  #heardBefore = 0
  #hadRequests = false
  /** #heard when a look went unanswered too; -1: none does. */
  #muteSince = -1

  constructor({ origin, connect, alarms, health, breaker, refusals, isOut, load, tell, onOut }: WatchSetup) {
    const { path, failures, slowStart, interval, timeout, healthyAfter, unhealthyAfter } = health
    const checks = path === undefined ? null : { intervalMs: interval, healthyAfter, unhealthyAfter }
    this.#isToldOut = isOut
    this.#isChecked = path !== undefined
    this.#maxLooks = Math.min(unhealthyAfter, MAX_LOOKS)
    this.#load = load
    this.#health = new TargetHealth({ failures, slowStartMs: slowStart, checks }, isOut)
    this.#look = path === undefined ? compileKnock(connect) : compileCheck(connect, origin, path, timeout)
    this.#alarms = alarms
    this.#tell = tell
    this.#onOut = onOut
    this.#breaker = breaker === undefined ? null : compileBreaker(breaker)
    this.#coolDown = refusals.coolDown === 'off' ? null : compileCoolDown(refusals)
    if (path !== undefined) this.#lookIn(Math.random() * Math.min(interval, 1000))
    else this.#schedule()
  }

  get isOut(): boolean {
    return this.#health.isOut
  }

  get exits(): number {
    return this.#health.exits
  }

  /** Of its weight: 0 while it is out, or mute. */
  share(nowMs: number): number {
    return this.#muteSince === this.#heard ? 0 : this.#health.share(nowMs)
  }

  /** It is back since a short time ago. */
  isStarting(nowMs: number): boolean {
    return this.#health.share(nowMs) < 1
  }

  /** Null: it has none. */
  breakerState(nowMs: number): BreakerState | null {
    return this.#breaker === null ? null : this.#breaker.state(nowMs)
  }

  /** False while its breaker lets no request go, or it has asked to be left alone. */
  mayTake(nowMs: number): boolean {
    return (
      (this.#breaker === null || this.#breaker.mayTake(nowMs)) &&
      (this.#coolDown === null || this.#coolDown.waitMs(nowMs) === 0)
    )
  }

  /** A request goes. */
  take(nowMs: number): void {
    this.#breaker?.take(nowMs)
  }

  /** Milliseconds until it may be asked. */
  waitMs(nowMs: number): number {
    return Math.max(this.#breakerWaitMs(nowMs), this.#coolDown === null ? 0 : this.#coolDown.waitMs(nowMs))
  }

  /** Why it may not. */
  refusal(nowMs: number): GatewayError {
    const waitMs = this.waitMs(nowMs)
    return waitMs > this.#breakerWaitMs(nowMs) ? coolingDown(waitMs) : breakerOpen(waitMs)
  }

  /** performance.now() until which it has asked to be left alone. */
  get restsUntilMs(): number {
    return this.#coolDown === null ? -Infinity : this.#coolDown.untilMs
  }

  /** An answer's head says when to come again. What that changes for how long it is left alone. */
  refused(status: number, retryAfterMs: number): 'longer' | 'news' | null {
    const nowMs = performance.now()
    const change = this.#coolDown === null ? null : this.#coolDown.refused(status, retryAfterMs, nowMs)
    if (change === 'news') this.#tell('cooling', `status ${status}, ${inSeconds(this.waitMs(nowMs))}`)
    return change
  }

  /** Another instance has been told so. */
  rest(wantedMs: number): 'longer' | 'news' | null {
    const nowMs = performance.now()
    const change = this.#coolDown === null ? null : this.#coolDown.rest(wantedMs, nowMs)
    if (change === 'news') this.#tell('cooling', `told by another instance, ${inSeconds(this.waitMs(nowMs))}`)
    return change
  }

  /** An answer has come whole. */
  answered(status: number): void {
    if (this.#breaker !== null) this.#count(this.#breaker, status >= 500, `status ${status}`)
    const health = this.#health
    if (isFailing(status)) this.#update(`answers with ${status}`, () => health.failed(false, performance.now()))
    else if (health.isInDoubt || this.#isToldOut) this.#update('answers', () => health.answered(performance.now()))
  }

  /** Something has come from it. */
  heard(): void {
    this.#heard++
  }

  /** It may be unwell. */
  suspect(): void {
    if (!this.#isChecked || this.#isClosed || this.isOut || this.#looks.size > 0) return
    const nowMs = performance.now()
    const dueMs = Math.max(nowMs, this.#suspectedAtMs + MIN_PAUSE_MS)
    if (dueMs >= this.#lookDueMs) return
    this.#suspectedAtMs = dueMs
    this.#lookIn(dueMs - nowMs)
  }

  /** A request that the target was to answer has failed. */
  failed(error: GatewayError): void {
    const { code } = error
    const isUnreachable = UNREACHABLE.has(code)
    if (isUnreachable || FAILED.has(code)) {
      if (this.#breaker !== null) this.#count(this.#breaker, true, code)
      this.#update(code, () => this.#health.failed(isUnreachable, performance.now()), isSilence(code))
      this.suspect()
    }
  }

  ring(nowMs: number): void {
    if (this.#lookDueMs - nowMs < 1 || this.#isToBeSeen(nowMs)) this.#begin()
    this.#setAlarm(nowMs)
  }

  close(): void {
    this.#isClosed = true
    this.#alarms.clear(this)
    for (const callOff of this.#looks) callOff()
    this.#looks.clear()
  }

  #breakerWaitMs(nowMs: number): number {
    return this.#breaker === null ? 0 : this.#breaker.waitMs(nowMs)
  }

  #count(breaker: TargetBreaker, isFailure: boolean, why: string): void {
    if (breaker.record(isFailure, performance.now())) this.#tell(isFailure ? 'open' : 'closed', why)
  }

  #update(why: string, change: () => void, isMute = false): void {
    const wasOut = this.#health.isOut
    change()
    const { isOut, isInDoubt } = this.#health
    if (isOut !== wasOut) this.#schedule()
    if (isOut !== this.#isToldOut && (isOut || !isInDoubt)) {
      this.#isToldOut = isOut
      this.#tell(isOut ? 'out' : 'back', why)
    }
    if (isOut && !wasOut) this.#onOut(isMute)
  }

  #schedule(): void {
    const nextMs = this.#health.nextLookMs(Math.random())
    if (this.#isClosed || this.#looks.size > 0) return
    if (nextMs === null) this.#alarms.clear(this)
    else this.#lookIn(nextMs)
  }

  #lookIn(delayMs: number): void {
    const nowMs = performance.now()
    this.#lookDueMs = nowMs + delayMs
    this.#setAlarm(nowMs)
  }

  #setAlarm(nowMs: number): void {
    const seesToIt = this.#isChecked && !this.isOut
    const dueMs = seesToIt ? Math.min(this.#lookDueMs, nowMs + SILENCE_MS) : this.#lookDueMs
    if (dueMs === Infinity) this.#alarms.clear(this)
    else this.#alarms.set(this, dueMs)
  }

  #begin(): void {
    this.#lookDueMs = Infinity
    const callOff = this.#look((verdict) => {
      this.#looks.delete(callOff)
      if (verdict !== 'mute') this.#muteSince = -1
      const isWell = verdict === 'well'
      if (verdict !== null) {
        const why = isWell ? 'passes its checks' : 'fails its checks'
        this.#update(why, () => this.#health.checked(isWell, performance.now()), verdict === 'mute')
      }
      this.#schedule()
    })
    this.#looks.add(callOff)
  }

  /** It is silent, and nobody has looked of late, or whoever looks has no answer either. */
  #isToBeSeen(nowMs: number): boolean {
    if (!this.#isSilent()) return false
    if (this.#looks.size > 0) {
      this.#muteSince = this.#heard
      return this.#looks.size < this.#maxLooks
    }
    if (nowMs - this.#suspectedAtMs < MIN_PAUSE_MS) return false
    this.#suspectedAtMs = nowMs
    return true
  }

  /** It has had requests since the last time, and nothing has come. */
  #isSilent(): boolean {
    const hasRequests = this.#load() > 0
    const isSilent = hasRequests && this.#hadRequests && this.#heard === this.#heardBefore
    this.#hadRequests = hasRequests
    this.#heardBefore = this.#heard
    return isSilent
  }
}

const compileBreaker = ({ failureRate, window, minRequests, cooldown }: BreakerOptions): TargetBreaker =>
  new TargetBreaker({ failureRate, windowMs: window, minRequests, cooldownMs: cooldown })

const compileCoolDown = ({ coolDown, maxCoolDown }: RefusalOptions): CoolDown =>
  new CoolDown({ statuses: new Set(coolDown === 'all' ? [503, 429] : [503]), maxMs: maxCoolDown })

const inSeconds = (ms: number): string => `${Math.ceil(ms / 100) / 10} s`
