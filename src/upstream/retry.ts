// How one request becomes one or more attempts. What is certain of the last one decides (RFC 9110 §9.2.2):
//
//   the connection was never made          any request goes to a target not yet asked, a POST with its body too
//   cut off before any byte of an answer   GET, HEAD and QUERY go out again on a connection of their own, once more for
//                                          each retry: a kept connection may be closed by its target at any time
//   answered by 502, 503 or 504            idempotent requests go to another target that is well, after a short pause
//   none, and its target goes out          who waits in line, or for its connection, goes to another target that is well;
//                                          so do GET, HEAD and QUERY that were sent, where that one has said nothing
//   refused until a time: 429 or 503       the same; where no other target is well, when the time has come, unless that
//   with Retry-After                       is too late, or something stored may answer meanwhile
//
// A POST that was refused stays refused: what a 503 comes after, nobody knows, and a proxy must not repeat such requests
// by itself (§9.2.2). Where an upstream has promised to refuse before it does anything, `refusals.methods` says so.
// Who waits until a time gives its place at the upstream away, and gets in line again.
//
// A body goes out again only where all of it is held. The budget of the upstream (retry-budget.ts) bounds what would
// bring work to targets that fail already. All attempts share one deadline. Nothing else is retried: not after the first
// byte of any other answer, and not for a client that has gone.

import type { Readable } from 'node:stream'
import type { RequestBody } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { hasHeader } from '../http/headers.ts'
import { isIdempotentMethod, isSafeMethod } from '../http/methods.ts'
import { readRetryAfter } from '../http/retry-after.ts'
import { ANOTHER, type Asker, Attempt, type AttemptAnswer, type AttemptFailure, timeout } from './fetch.ts'
import type { Guest } from './gate.ts'
import type { RefusalOptions } from './options.ts'
import type { TargetChoice, Timeouts, UpstreamPool } from './pool.ts'
import { Place } from './place.ts'
import { MAX_REPLAY_BYTES, Replay } from './replay.ts'
import type { Target } from './target.ts'
import { isFailing } from './target-watch.ts'

export interface UpstreamRequest {
  readonly method: string
  readonly path: string
  readonly headers: readonly string[]
  readonly body: RequestBody | null
  readonly maxBodyBytes: number
  readonly relayInterim: Asker['relayInterim']
  readonly isLenient: boolean
  /** Of the key by which it keeps to a target; null where there is none. */
  readonly hash: number | null
  /** It offers to go on as a WebSocket. */
  readonly isHandshake: boolean
  /** What is stored may answer it in the place of an error. */
  readonly hasStandIn: boolean
  /** Called when it has gone to a target for the first time; null: nobody wants to know. */
  readonly onSent: (() => void) | null
  /** Called before the end of it is told, where it has taken more than one attempt. */
  readonly onAttempts: (count: number) => void
  /** Called where it is given up before anything of it was sent. */
  readonly onUnsent: () => void
  /** Whose it is, where requests wait in line. */
  readonly client: string
}

/** How many further attempts, and how long for all of them together. */
export interface Patience {
  readonly timeouts: Timeouts
  readonly retries: number
  readonly refusals: Pick<RefusalOptions, 'wait' | 'methods'>
}

/** A request on its way upstream, sent to a target that the pool chooses. */
export class UpstreamFetch<Answer> implements Asker, Guest {
  readonly method: string
  readonly path: string
  readonly relayInterim: Asker['relayInterim']
  readonly isLenient: boolean
  readonly isHandshake: boolean
  readonly client: string
  readonly timeouts: Timeouts
  readonly startedAtMs = performance.now()
  /** Rejects with a GatewayError. */
  readonly answer: Promise<Answer>

  readonly #pool: UpstreamPool
  readonly #targets: TargetChoice
  readonly #request: UpstreamRequest
  readonly #read: (answer: AttemptAnswer) => Answer | GatewayError
  readonly #resolve: (answer: Answer) => void
  readonly #reject: (error: GatewayError) => void
  readonly #retries: number
  readonly #refusals: Patience['refusals']
  #attempts = 0
  /** Targets that have failed it, in order. */
  #tried: readonly Target[]
  #current: Attempt | null = null
  #target: Target | null = null
  #body: Readable | null = null
  /** Of a body that may have to go out again. */
  #replay: Replay | null = null
  /** Until the next attempt, or the next time in line. */
  #pause: NodeJS.Timeout | null = null
  /** Null: the upstream takes as many as come. */
  readonly #place: Place | null
  #isAtTarget = false
  #isAnswered = false
  #workedOn = 0
  #isOver = false

  /** read: makes of an answer what is wanted; with an error the exchange ends there. tried: targets that others are asked
   *  before. */
  constructor(
    pool: UpstreamPool,
    request: UpstreamRequest,
    { timeouts, retries, refusals }: Patience,
    read: (answer: AttemptAnswer) => Answer | GatewayError,
    tried: readonly Target[] = NONE,
  ) {
    this.method = request.method
    this.path = request.path
    this.relayInterim = request.relayInterim
    this.isLenient = request.isLenient
    this.isHandshake = request.isHandshake
    this.client = request.client
    this.timeouts = timeouts
    this.#pool = pool
    this.#targets = pool.writes === null || isSafeMethod(request.method) ? pool : pool.writes
    this.#request = request
    this.#read = read
    this.#tried = tried
    this.#retries = retries
    this.#refusals = refusals
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    this.answer = promise
    this.#resolve = resolve
    this.#reject = reject
    this.#place = pool.gate === null ? null : new Place(pool.gate)
    pool.budget.note(this.startedAtMs)
    this.#begin()
  }

  /** Who was asked last; null: it has not come to that. */
  get target(): Target | null {
    return this.#target
  }

  /** How often it has been sent. */
  get attempts(): number {
    return this.#attempts
  }

  /** Of the time that there is for all of it. */
  get longestWaitMs(): number {
    return this.startedAtMs + this.timeouts.totalMs - performance.now()
  }

  /** How many attempts a target may have worked on: they have gone there, and were not turned away. */
  get workedOn(): number {
    return this.#workedOn
  }

  get isSent(): boolean {
    return this.#attempts > 1 || this.#pause !== null || this.#current?.isSent === true
  }

  /** Gives up, at any point of it; the upstream's connection is closed. */
  abort(reason: GatewayError): void {
    if (!this.#isOver && !this.isSent) this.#request.onUnsent()
    if (this.#pause === null && this.#place?.isWaitedFor !== true) return this.#current?.abort(reason)
    this.#endPause()
    this.#fail(reason)
  }

  onPlace(): void {
    this.#place?.taken()
    this.#askNext(null, false)
  }

  onRefused(error: GatewayError): void {
    this.#fail(error)
  }

  onTooLate(): void {
    this.onRefused(timeout('timeout_total', 'The exchange was not finished', this.timeouts.totalMs))
  }

  /** The place is kept through all attempts, and to the end of the answer. */
  onLeft(): void {
    this.#isAtTarget = false
    if (this.#isAnswered) this.#place?.leave()
  }

  /** Opened by the first attempt that has a connection; one that was never made has read nothing of it. */
  openBody(): Buffer | Readable | null {
    const { body, maxBodyBytes } = this.#request
    const held = body?.bytes ?? this.#replay?.bytes ?? null
    if (held !== null) return held
    if (this.#body !== null || body === null) return this.#body
    this.#body = body.open(maxBodyBytes)
    if (this.#retries > 0 && mayReplay(this.#request, this.#refusals)) this.#replay = new Replay(this.#body)
    // Who sends it listens only meanwhile; the client may go, or break its limits, at any time.
    this.#body.on('error', (error) => {
      if (error instanceof GatewayError) this.abort(error)
    })
    return this.#body
  }

  onAnswer(answer: AttemptAnswer): void {
    const { status, headers } = answer
    const mayRefuse = status === 429 || status === 503
    if (!mayRefuse) this.#workedOn++
    const retryAfterMs = mayRefuse ? readRetryAfter(headers, Date.now()) : null
    if (retryAfterMs !== null) this.#target?.refused(status, retryAfterMs)
    if ((retryAfterMs !== null || isFailing(status)) && this.#isAskedAgain(status, retryAfterMs)) return
    const read = this.#read(answer)
    if (!(read instanceof GatewayError)) {
      this.#tellAttempts()
      this.#isAnswered = true
      this.#place?.measured(mayRefuse || isFailing(status) ? 'failed' : 'answered')
      if (!this.#isAtTarget) this.#place?.leave()
      return this.#resolve(read)
    }
    this.abort(read)
    this.#fail(read)
  }

  onFailed(failure: AttemptFailure): void {
    if (failure.phase !== 'not_sent') this.#workedOn++
    this.#tried = [...this.#tried, failure.target]
    const next = this.#attempts > this.#retries ? 'stop' : this.#nextAfter(failure)
    if (next === 'stop' || failure.phase !== 'not_sent') this.#dropBody()
    if (next === 'stop') this.#fail(failure.error)
    else this.#askNext(failure.error, next === 'fresh')
  }

  mayLeave(isSent: boolean): boolean {
    const target = this.#target
    if (target === null || this.#attempts > this.#retries || !this.#targets.hasWell([...this.#tried, target]))
      return false
    return !isSent || (isReadOnly(this.method) && this.#mayGoAgain() && this.#pool.budget.take(performance.now()))
  }

  #nextAfter({ error, phase, wasKept }: AttemptFailure): 'pooled' | 'fresh' | 'stop' {
    if (error === ANOTHER) return 'pooled'
    if (phase === 'not_sent') {
      const isUnreachable = error.code === 'upstream_refused' || error.code === 'timeout_connect'
      return isUnreachable && this.#targets.hasOther(this.#tried) ? 'pooled' : 'stop'
    }
    if (phase === 'answered' || error.code !== 'upstream_reset') return 'stop'
    const isHarmless = isReadOnly(this.#request.method) && this.#mayGoAgain()
    // Another pooled connection may be as dead as the first, so this one is new.
    return isHarmless && (wasKept || this.#pool.budget.take(performance.now())) ? 'fresh' : 'stop'
  }

  /** True where another attempt is to have a better answer. */
  #isAskedAgain(status: number, retryAfterMs: number | null): boolean {
    const target = this.#target
    if (target === null || this.#attempts > this.#retries) return false
    const mayRepeat = isIdempotentMethod(this.method) || (retryAfterMs !== null && this.#refusals.methods === 'all')
    if (!mayRepeat) return false
    const tried = [...this.#tried, target]
    // Not all at the same time; full jitter.
    const spread = Math.random() * 2 ** (this.#attempts - 1)
    const isElsewhere = this.#targets.hasWell(tried)
    if (!isElsewhere && (retryAfterMs === null || !this.#mayWait(status, retryAfterMs))) return false
    // Timers fire up to a millisecond early.
    const pauseMs = isElsewhere ? spread * FIRST_PAUSE_MS : (retryAfterMs ?? 0) + spread * BACK_OFF_MS + 1
    const nowMs = performance.now()
    const isInTime = nowMs + pauseMs < this.startedAtMs + this.timeouts.totalMs
    if (!isInTime || !this.#mayGoAgain() || !this.#pool.budget.take(nowMs)) return false
    this.#tried = tried
    target.answered(status)
    this.#current?.abort(ANOTHER)
    this.#dropBody()
    if (!isElsewhere) {
      this.#place?.measured('failed')
      this.#place?.leave()
    }
    this.#pool.pausing.add(this)
    this.#pause = setTimeout(() => {
      this.#endPause()
      if (isElsewhere) this.#askNext(null, false)
      else this.#begin()
    }, pauseMs)
    return true
  }

  #mayWait(status: number, retryAfterMs: number): boolean {
    const { wait } = this.#refusals
    // What is stored never answers in the place of a 429.
    return wait > 0 && retryAfterMs <= wait && !(this.#request.hasStandIn && status === 503)
  }

  #endPause(): void {
    if (this.#pause === null) return
    clearTimeout(this.#pause)
    this.#pause = null
    this.#pool.pausing.delete(this)
  }

  #begin(): void {
    if (this.#place === null) this.#askNext(null, false)
    else this.#place.enter(this)
  }

  /** error: what it ends with where no target may be asked; null: that. */
  #askNext(error: GatewayError | null, onFreshConnection: boolean): void {
    const target = this.#targets.next(this.#tried, this.#request.hash)
    if (target !== null) return this.#attempt(target, onFreshConnection)
    this.#dropBody()
    this.#fail(error ?? this.#targets.refusal())
  }

  #attempt(target: Target, onFreshConnection: boolean): void {
    this.#attempts++
    if (this.#attempts > 1) this.#pool.countRetry()
    const mayGoAgain = this.#attempts <= this.#retries && isReadOnly(this.method) && isHeld(this.#request.body)
    // A connection that becomes a WebSocket has been nothing else before: not all backends could tell.
    const how = onFreshConnection || this.isHandshake ? 'fresh' : mayGoAgain ? 'kept' : 'checked'
    const attempt = new Attempt(this, target, withTargetHost(this.#request.headers, target.origin), how)
    this.#target = target
    this.#current = attempt
    this.#isAtTarget = true
    attempt.start()
    if (this.#attempts === 1) this.#request.onSent?.()
  }

  #fail(error: GatewayError): void {
    this.#isOver = true
    this.#place?.measured(error.kind.source === 'upstream' ? 'failed' : 'gone')
    this.#place?.leave()
    this.#tellAttempts()
    this.#reject(error)
  }

  #tellAttempts(): void {
    if (this.#attempts > 1) this.#request.onAttempts(this.#attempts)
  }

  /** True where the body, if any, can be sent once more. */
  #mayGoAgain(): boolean {
    return isHeld(this.#request.body) || (this.#replay !== null && this.#replay.bytes !== null)
  }

  #dropBody(): void {
    this.#body?.destroy()
    this.#body = null
  }
}

const NONE: readonly Target[] = []
/** Doubled with each attempt; a pause is a random part of it. */
const FIRST_PAUSE_MS = 25
/** The same, beyond the time that an upstream has asked for. */
const BACK_OFF_MS = 250

/** Asked again after a cut: they change nothing. */
export const isReadOnly = (method: string): boolean => method === 'GET' || method === 'HEAD' || method === 'QUERY'

export const isHeld = (body: RequestBody | null): boolean => body === null || body.mayReopen === true

/** False where it is known beforehand that it will not be sent again, so that nothing need be kept. */
function mayReplay({ method, body }: UpstreamRequest, { methods }: Patience['refusals']): boolean {
  return (
    (isIdempotentMethod(method) || methods === 'all') && !isHeld(body) && (body?.declaredBytes ?? 0) <= MAX_REPLAY_BYTES
  )
}

/** A target reached by https serves by name and certificate, and would not know our Host: it gets its own, unless the
 *  route sets one. upstream/head.ts puts the client's Host first. So does a target where there is none (RFC 9112 §3.2). */
function withTargetHost(headers: readonly string[], target: URL): readonly string[] {
  if (target.protocol === 'https:' && headers[0] === 'Host') return ['Host', target.host, ...headers.slice(2)]
  return hasHeader(headers, 'host') ? headers : ['Host', target.host, ...headers]
}
