// How one request becomes one or more attempts. A further attempt is made only where it is certain that no work is
// done twice (RFC 9110 §9.2.2): the connection was never made, so even a POST may go to a target not yet asked; or a
// GET, HEAD or QUERY, whose body if any is held here, was cut off before any byte of an answer, as happens when a kept
// connection closes just then. All attempts share one deadline. Nothing is retried after a byte has come back, or for a
// client that has gone.

import type { Readable } from 'node:stream'
import type { RequestBody } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { Attempt, type AttemptAnswer, type AttemptFailure, type AttemptRequest } from './fetch.ts'
import type { Target, Timeouts, UpstreamPool } from './pool.ts'

export interface UpstreamRequest {
  readonly method: string
  readonly path: string
  readonly headers: readonly string[]
  readonly body: RequestBody | null
  readonly maxBodyBytes: number
  readonly relayInterim: AttemptRequest['relayInterim']
  readonly isLenient: boolean
}

/** A request on its way upstream. */
export interface UpstreamFetch {
  /** Rejects with a GatewayError. */
  readonly answer: Promise<AttemptAnswer>
  /** Gives up, at any point of it; the upstream's connection is closed. */
  abort(reason: GatewayError): void
}

/** Sends a request to the pool's next target, with up to `retries` further attempts. */
export function fetchUpstream(
  pool: UpstreamPool,
  request: UpstreamRequest,
  timeouts: Timeouts,
  retries: number,
): UpstreamFetch {
  const { method, path, headers, relayInterim, isLenient } = request
  const startedAtMs = performance.now()
  let current: Attempt | null = null
  let body: Readable | null = null

  /** Opened by the first attempt that has a connection; one that was never made has read nothing of it. */
  function openBody(): Readable | null {
    if (body !== null || request.body === null) return body
    body = request.body.open(request.maxBodyBytes)
    // Undici listens only while it sends; the client may go, or break its limits, at any time.
    body.on('error', (error) => {
      if (error instanceof GatewayError) current?.abort(error)
    })
    return body
  }

  const answer = new Promise<AttemptAnswer>((resolve, reject) => {
    let attempts = 0
    function attempt(target: Target, onFreshConnection: boolean): void {
      attempts++
      const settle = (head: AttemptAnswer | null, failure: AttemptFailure | null) => {
        if (head !== null) return resolve(head)
        if (failure === null) return
        const next = attempts > retries ? 'stop' : nextAttempt(failure, request, attempts < pool.targetCount)
        if (next === 'fresh') {
          body?.destroy()
          body = null
        }
        if (next !== 'stop') return attempt(pool.next(target), next === 'fresh')
        body?.destroy()
        reject(failure.error)
      }
      const ownHeaders = withTargetHost(headers, target.origin)
      const toTarget = { method, path, headers: ownHeaders, openBody, relayInterim, isLenient }
      current = new Attempt(toTarget, timeouts, startedAtMs, settle)
      current.start(target, onFreshConnection)
    }
    attempt(pool.next(null), false)
  })

  return { answer, abort: (reason) => current?.abort(reason) }
}

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
  const { method, body } = request
  const isIdempotent = method === 'GET' || method === 'HEAD' || method === 'QUERY'
  const harmless = isIdempotent && (body === null || body.mayReopen === true)
  // Another pooled connection may be as dead as the first, so this one is new.
  return harmless ? 'fresh' : 'stop'
}

/** A target reached by https serves by name and certificate, and would not know our Host: it gets its own, unless the
 *  route sets one. upstream/head.ts puts the client's Host first. */
function withTargetHost(headers: readonly string[], target: URL): readonly string[] {
  if (target.protocol !== 'https:' || headers[0] !== 'Host') return headers
  return ['Host', target.host, ...headers.slice(2)]
}
