// How one request becomes one or more attempts. A further attempt is made only where it is certain that no work is
// done twice (RFC 9110 §9.2.2): the connection was never made, so even a POST may go to a target not yet asked; or a
// GET, HEAD or QUERY, whose body if any is held here, was cut off before any byte of an answer, as happens when a kept
// connection closes just then. All attempts share one deadline. Nothing is retried after a byte has come back, or for a
// client that has gone.

import type { Readable } from 'node:stream'
import type { RequestBody } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { hasHeader } from '../http/headers.ts'
import { type Asker, Attempt, type AttemptAnswer, type AttemptFailure } from './fetch.ts'
import type { Target, Timeouts, UpstreamPool } from './pool.ts'

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
}

/** How many further attempts, and how long for all of them together. */
export interface Patience {
  readonly timeouts: Timeouts
  readonly retries: number
}

/** A request on its way upstream, sent to a target that the pool chooses. */
export class UpstreamFetch<Answer> implements Asker {
  readonly method: string
  readonly path: string
  readonly relayInterim: Asker['relayInterim']
  readonly isLenient: boolean
  readonly isHandshake: boolean
  readonly timeouts: Timeouts
  readonly startedAtMs = performance.now()
  /** Rejects with a GatewayError. */
  readonly answer: Promise<Answer>

  readonly #pool: UpstreamPool
  readonly #request: UpstreamRequest
  readonly #read: (answer: AttemptAnswer) => Answer | GatewayError
  readonly #resolve: (answer: Answer) => void
  readonly #reject: (error: GatewayError) => void
  readonly #retries: number
  #attempts = 0
  /** Targets that have failed it, in order. */
  #tried: readonly Target[] = NONE
  #current: Attempt | null = null
  #body: Readable | null = null

  /** read: makes of an answer what is wanted; with an error the exchange ends there. */
  constructor(
    pool: UpstreamPool,
    request: UpstreamRequest,
    { timeouts, retries }: Patience,
    read: (answer: AttemptAnswer) => Answer | GatewayError,
  ) {
    this.method = request.method
    this.path = request.path
    this.relayInterim = request.relayInterim
    this.isLenient = request.isLenient
    this.isHandshake = request.isHandshake
    this.timeouts = timeouts
    this.#pool = pool
    this.#request = request
    this.#read = read
    this.#retries = retries
    const { promise, resolve, reject } = Promise.withResolvers<Answer>()
    this.answer = promise
    this.#resolve = resolve
    this.#reject = reject
    this.#attempt(pool.next(NONE, request.hash), false)
  }

  /** Gives up, at any point of it; the upstream's connection is closed. */
  abort(reason: GatewayError): void {
    this.#current?.abort(reason)
  }

  /** Opened by the first attempt that has a connection; one that was never made has read nothing of it. */
  openBody(): Buffer | Readable | null {
    const { body, maxBodyBytes } = this.#request
    if (body?.bytes !== undefined) return body.bytes
    if (this.#body !== null || body === null) return this.#body
    this.#body = body.open(maxBodyBytes)
    // Who sends it listens only meanwhile; the client may go, or break its limits, at any time.
    this.#body.on('error', (error) => {
      if (error instanceof GatewayError) this.abort(error)
    })
    return this.#body
  }

  onAnswer(answer: AttemptAnswer): void {
    const read = this.#read(answer)
    if (!(read instanceof GatewayError)) return this.#resolve(read)
    this.abort(read)
    this.#reject(read)
  }

  onFailed(failure: AttemptFailure): void {
    this.#tried = [...this.#tried, failure.target]
    const hasOther = this.#pool.hasOther(this.#tried)
    const next = this.#attempts > this.#retries ? 'stop' : nextAttempt(failure, this.#request, hasOther)
    if (next !== 'pooled') {
      this.#body?.destroy()
      this.#body = null
    }
    if (next === 'stop') this.#reject(failure.error)
    else this.#attempt(this.#pool.next(this.#tried, this.#request.hash), next === 'fresh')
  }

  #attempt(target: Target, onFreshConnection: boolean): void {
    this.#attempts++
    const mayGoAgain = this.#attempts <= this.#retries && isHarmless(this.#request)
    // A connection that becomes a WebSocket has been nothing else before: not all backends could tell.
    const how = onFreshConnection || this.isHandshake ? 'fresh' : mayGoAgain ? 'kept' : 'checked'
    const attempt = new Attempt(this, target, withTargetHost(this.#request.headers, target.origin), how)
    this.#current = attempt
    attempt.start()
  }
}

const NONE: readonly Target[] = []

function nextAttempt(
  { error, phase }: AttemptFailure,
  request: UpstreamRequest,
  hasOtherTarget: boolean,
): 'pooled' | 'fresh' | 'stop' {
  if (phase === 'not_sent') {
    const isUnreachable = error.code === 'upstream_refused' || error.code === 'timeout_connect'
    return isUnreachable && hasOtherTarget ? 'pooled' : 'stop'
  }
  if (phase === 'answered' || error.code !== 'upstream_reset') return 'stop'
  // Another pooled connection may be as dead as the first, so this one is new.
  return isHarmless(request) ? 'fresh' : 'stop'
}

/** True where nothing is done twice, should the upstream see the request twice. */
function isHarmless({ method, body }: UpstreamRequest): boolean {
  const isIdempotent = method === 'GET' || method === 'HEAD' || method === 'QUERY'
  return isIdempotent && (body === null || body.mayReopen === true)
}

/** A target reached by https serves by name and certificate, and would not know our Host: it gets its own, unless the
 *  route sets one. upstream/head.ts puts the client's Host first. So does a target where there is none (RFC 9112 §3.2). */
function withTargetHost(headers: readonly string[], target: URL): readonly string[] {
  if (target.protocol === 'https:' && headers[0] === 'Host') return ['Host', target.host, ...headers.slice(2)]
  return hasHeader(headers, 'host') ? headers : ['Host', target.host, ...headers]
}
