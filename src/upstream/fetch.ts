// One attempt at one target: undici's events in, an answer whose body is read under the reader's back-pressure out.
//
// Every phase has its own timer (queue, first byte, idle, total; connect is in pool.ts), so a failure names the one
// that fired. No timer runs against the upstream while somebody else is slow: not while the reader has no room, not
// while the client sends nothing. Only the total goes on.
//
// An answer broken off after its head fails its reader: it can never look whole. Small answers are often whole by the
// time the caller sees the head; they are handed over as one buffer.

import type { Readable } from 'node:stream'
import { errors, type Dispatcher } from 'undici'
import type { BodySink, BodyStream, HeaderList } from '../core/context.ts'
import { GatewayError, type ErrorCode } from '../core/errors.ts'
import { getCombined, getHeader, hasHeader, isToken } from '../http/headers.ts'
import type { Exchange, Target, Timeouts } from './pool.ts'

/** Bytes taken in before anybody reads; beyond it the upstream waits. */
const MAX_UNREAD_BYTES = 64 * 1024
const MAX_INTERIM_ANSWERS = 10
const MAX_RESPONSE_FIELDS = 200

export interface AttemptRequest {
  readonly method: string
  /** Path and query as the target shall see them. */
  readonly path: string
  readonly headers: readonly string[]
  /** Called when a connection is there, or about to be. */
  readonly openBody: () => Readable | null
  readonly relayInterim: ((status: number, headers: HeaderList) => void) | null
  /** A body that ends with its connection counts as whole, even in a transfer coding that nobody knows. */
  readonly isLenient: boolean
}

/** The head has come. `takeBody` may be called once, at any later time. */
export interface AttemptAnswer {
  readonly status: number
  /** As the upstream sent them, hop-by-hop fields and all. */
  readonly headers: readonly string[]
  /** True when the end of the body can be proved: by Content-Length, by chunks, or because there is none; or, of a
   *  lenient request, is taken on trust. */
  readonly framed: boolean
  takeBody(): Buffer | BodyStream | null
}

/** Why an attempt failed, and how far it got. */
export interface AttemptFailure {
  readonly error: GatewayError
  /** not_sent: nothing reached the wire. unanswered: sent, but not one byte came back. answered: too late for another try. */
  readonly phase: 'not_sent' | 'unanswered' | 'answered'
}

type Phase = 'queue' | 'connect' | 'send' | 'first_byte' | 'idle' | 'paused' | 'done'

type Settle = (answer: AttemptAnswer | null, failure: AttemptFailure | null) => void

/** One exchange with one target. `settle` is called exactly once: with the answer's head, or with the failure. */
export class Attempt implements Exchange, BodyStream, AttemptAnswer {
  refusedUnsent = false
  status = 0
  headers: readonly string[] = []
  framed = false

  readonly #request: AttemptRequest
  readonly #timeouts: Timeouts
  readonly #settle: Settle
  /** Null before the start, and once its place is free again. */
  #target: Target | null = null
  #onFreshConnection = false
  #requestBody: Readable | null = null
  /** Undici's hold on the exchange, from the moment it begins to write. */
  #controller: Dispatcher.DispatchController | null = null
  #answered = false
  #settled = false
  #ended = false
  #failure: GatewayError | null = null
  #interimAnswers = 0

  #sink: BodySink | null = null
  #sinkHasRoom = true
  #flowing = false
  #unread: Buffer[] = []
  #unreadBytes = 0

  // One timer for the phase that runs, re-armed lazily: activity only notes the time.
  #phase: Phase = 'queue'
  #phaseTimer: NodeJS.Timeout | null = null
  #activeAtMs = 0
  #totalTimer: NodeJS.Timeout
  readonly #startedAtMs: number

  /** startedAtMs: performance.now() when the first attempt began; the total timeout counts from there. */
  constructor(request: AttemptRequest, timeouts: Timeouts, startedAtMs: number, settle: Settle) {
    this.#request = request
    this.#timeouts = timeouts
    this.#settle = settle
    this.#startedAtMs = startedAtMs
    this.#totalTimer = this.#startTotal(timeouts.totalMs)
  }

  start(target: Target, onFreshConnection: boolean): void {
    this.#target = target
    this.#onFreshConnection = onFreshConnection
    this.#enter('queue', this.#timeouts.queueMs)
    if (target.enter(this)) return
    this.#target = null
    this.#fail(new GatewayError('saturated', 'Too many requests wait for this upstream.', { retryAfterSeconds: 1 }))
  }

  onTurn(): void {
    const { method, path, headers, openBody } = this.#request
    // The connection has its own timer, since it outlives the request that it was made for.
    this.#enter('connect', 0)
    this.#requestBody = openBody()
    const options: Dispatcher.DispatchOptions & { servername: string } = {
      method,
      path,
      headers: headers as string[],
      body: this.#requestBody,
      // Undici would take it from the Host field and drop its connections whenever that changes.
      servername: this.#target?.origin.hostname ?? '',
    }
    this.#target?.send(options, this, this.#onFreshConnection)
  }

  /** Gives up, for the client's or a timer's reason. The upstream's connection is closed. */
  abort(reason: GatewayError): void {
    if (this.#phase === 'done') return
    const inLine = this.#phase === 'queue'
    this.#fail(reason)
    // A connection that is being made is let go of when it stands: undici has no way back before.
    if (inLine) this.#leave()
    else this.#controller?.abort(reason)
  }

  // ---- undici's events ----

  onRequestStart(controller: Dispatcher.DispatchController): void {
    if (this.#failure !== null) return controller.abort(this.#failure)
    this.#controller = controller
    if (this.#requestBody === null) this.#enter('first_byte', this.#timeouts.firstByteMs)
    else this.#enter('send', this.#timeouts.idleMs)
  }

  onBodySent(): void {
    this.#activeAtMs = performance.now()
  }

  onRequestSent(): void {
    if (this.#phase === 'send') this.#enter('first_byte', this.#timeouts.firstByteMs)
  }

  onResponseStarted(): void {
    this.#answered = true
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    const headers = readHead(controller.rawHeaders)
    const { method, isLenient } = this.#request
    const fault = headers === null ? 'too many header fields' : headFault(status, headers, isLenient)
    if (headers === null || fault !== null) return this.abort(invalid(fault ?? ''))
    if (status < 200) return this.#onInterim(status, headers)
    this.status = status
    this.headers = headers
    this.framed = isLenient || isFramed(method, status, headers)
    if (isEventStream(headers)) {
      clearTimeout(this.#totalTimer)
      this.#totalTimer = this.#startTotal(this.#timeouts.streamTotalMs)
    }
    this.#enter('idle', this.#timeouts.idleMs)
    this.#settled = true
    this.#settle(this, null)
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#activeAtMs = performance.now()
    this.#unread.push(chunk)
    this.#unreadBytes += chunk.length
    this.#flow()
  }

  onResponseEnd(): void {
    this.#leave()
    this.#ended = true
    this.#stopTimers()
    this.#flow()
  }

  onResponseError(controller: Dispatcher.DispatchController | null, cause: Error): void {
    // Without a controller the request never got onto a connection.
    if (controller === null || controller === undefined) this.refusedUnsent = true
    this.#leave()
    this.#fail(this.#classify(cause))
  }

  // ---- the answer, for whoever asked ----

  takeBody(): Buffer | BodyStream | null {
    if (!hasBody(this.#request.method, this.status)) return null
    if (!this.#ended) return this
    const [only] = this.#unread
    return this.#unread.length === 1 && only !== undefined ? only : Buffer.concat(this.#unread)
  }

  pipeTo(sink: BodySink): void {
    this.#sink = sink
    this.#flow()
  }

  resume(): void {
    this.#sinkHasRoom = true
    this.#flow()
  }

  cancel(): void {
    this.#sink = null
    this.#unread = []
    this.abort(new GatewayError('client_gone', 'The client has gone.'))
  }

  // ---- inside ----

  /** Moves what has come as far as it can go, and holds the upstream where it cannot. */
  #flow(): void {
    // A sink that asks for more while it is being given some is served by the loop that is already running.
    if (this.#flowing) return
    this.#flowing = true
    while (this.#sink !== null && this.#sinkHasRoom && this.#failure === null) {
      const chunk = this.#unread.shift()
      if (chunk === undefined) break
      this.#unreadBytes -= chunk.length
      this.#sinkHasRoom = this.#sink.write(chunk)
    }
    this.#flowing = false
    const sink = this.#sink
    if (sink !== null && (this.#failure !== null || (this.#ended && this.#unread.length === 0))) {
      this.#sink = null
      if (this.#failure === null) sink.end()
      else sink.fail(this.#failure)
      return
    }
    const isFull = sink === null ? this.#unreadBytes > MAX_UNREAD_BYTES : !this.#sinkHasRoom
    if (isFull && this.#phase === 'idle') {
      this.#enter('paused', 0)
      this.#controller?.pause()
    } else if (!isFull && this.#phase === 'paused') {
      this.#enter('idle', this.#timeouts.idleMs)
      this.#controller?.resume()
    }
  }

  #onInterim(status: number, headers: HeaderList): void {
    if (++this.#interimAnswers > MAX_INTERIM_ANSWERS) return this.abort(invalid('too many interim answers'))
    this.#request.relayInterim?.(status, headers)
  }

  #fail(error: GatewayError): void {
    if (this.#phase === 'done') return
    const phase = this.#controller === null ? 'not_sent' : this.#answered ? 'answered' : 'unanswered'
    this.#stopTimers()
    this.#failure = error
    if (this.#settled) return this.#flow()
    this.#settled = true
    this.#settle(null, { error, phase })
  }

  /** Exactly when undici is through with it, or never had it: the next one's turn depends on it. */
  #leave(): void {
    this.#target?.leave(this)
    this.#target = null
  }

  #enter(phase: Phase, limitMs: number): void {
    this.#phase = phase
    this.#activeAtMs = performance.now()
    if (this.#phaseTimer !== null) clearTimeout(this.#phaseTimer)
    this.#phaseTimer = limitMs > 0 ? setTimeout(() => this.#onPhaseTimer(limitMs), limitMs) : null
  }

  #onPhaseTimer(limitMs: number): void {
    // A body that undici has not paused is waited for by the upstream too: the gap is the client's, who has a deadline.
    if (this.#phase === 'send' && this.#requestBody?.isPaused() === false) this.#activeAtMs = performance.now()
    const restMs = limitMs - (performance.now() - this.#activeAtMs)
    if (restMs >= 1) {
      this.#phaseTimer = setTimeout(() => this.#onPhaseTimer(limitMs), restMs)
      return
    }
    if (this.#phase === 'queue') this.abort(timeout('timeout_queue', 'No connection was free', limitMs))
    else if (this.#phase === 'first_byte')
      this.abort(timeout('timeout_first_byte', 'The answer did not begin', limitMs))
    else this.abort(timeout('timeout_idle', 'No byte moved', limitMs))
  }

  #startTotal(totalMs: number): NodeJS.Timeout {
    const restMs = Math.max(1, totalMs - (performance.now() - this.#startedAtMs))
    return setTimeout(() => this.abort(timeout('timeout_total', 'The exchange was not finished', totalMs)), restMs)
  }

  #stopTimers(): void {
    this.#phase = 'done'
    clearTimeout(this.#totalTimer)
    if (this.#phaseTimer !== null) clearTimeout(this.#phaseTimer)
    this.#phaseTimer = null
  }

  /** Undici's and the system's errors in our words. */
  #classify(cause: Error & { code?: unknown }): GatewayError {
    if (cause instanceof GatewayError) return cause
    const code = typeof cause.code === 'string' ? cause.code : ''
    if (OURS.has(code)) return new GatewayError('internal', 'The request could not be forwarded.', { cause })
    if (CLOSED.has(code)) return new GatewayError('draining', 'The gateway is shutting down.', { cause })
    if (this.#controller === null) {
      return new GatewayError('upstream_refused', 'No connection to the upstream could be made.', { cause })
    }
    // A body that is too short fails with the code of a head with two lengths.
    if (!this.#settled && (INVALID.has(code) || isProtocolError(cause))) return invalid('no valid HTTP', cause)
    return new GatewayError('upstream_reset', 'The upstream broke the connection off.', { cause })
  }
}

const timeout = (code: ErrorCode, what: string, limitMs: number): GatewayError =>
  new GatewayError(code, `${what} within ${limitMs} ms.`)

const invalid = (what: string, cause?: unknown): GatewayError =>
  new GatewayError('upstream_invalid', `The upstream sent ${what}.`, { cause })

/** RFC 9110 §6.4.1: which answers have no content, whatever their fields say. */
const hasBody = (method: string, status: number): boolean => method !== 'HEAD' && status !== 204 && status !== 304

function isFramed(method: string, status: number, headers: HeaderList): boolean {
  if (!hasBody(method, status)) return true
  return getHeader(headers, 'content-length') !== null || getHeader(headers, 'transfer-encoding') !== null
}

/** What the parser lets through and must not be: null when nothing. Control bytes it has refused. */
function headFault(status: number, headers: HeaderList, isLenient: boolean): string | null {
  // We never ask for another protocol (RFC 9110 §15.2.2).
  if (status < 100 || status === 101) return `a status ${status} that nobody asked for`
  const coding = getCombined(headers, 'transfer-encoding')
  if (coding === null || coding.toLowerCase() === 'chunked') return null
  if (isLenient && isNoCoding(coding) && !hasHeader(headers, 'content-length')) return null
  // RFC 9112 §6.1: we have asked for no other coding, and could not decode it.
  return 'an unknown transfer coding'
}

/** RFC 9112 §7: what is registered has been done to the body, which would not be what the client takes it for. */
const CODINGS: ReadonlySet<string> = new Set(['chunked', 'gzip', 'x-gzip', 'deflate', 'compress', 'x-compress'])

/** One word that means no coding. Such a body is not chunked, so it ends with its connection (RFC 9112 §6.3). */
const isNoCoding = (coding: string): boolean => isToken(coding) && !CODINGS.has(coding.toLowerCase())

const isEventStream = (headers: HeaderList): boolean =>
  getHeader(headers, 'content-type')?.toLowerCase().startsWith('text/event-stream') === true

/** Raw fields as latin1 text; null where there are too many. */
function readHead(raw: Dispatcher.DispatchController['rawHeaders']): string[] | null {
  if (!Array.isArray(raw) || raw.length > 2 * MAX_RESPONSE_FIELDS) return null
  return raw.map((part) => (typeof part === 'string' ? part : part.toString('latin1')))
}

/** An answer that the parser refused, or one of the two that undici refuses itself: 100 and 101 unasked. */
const isProtocolError = (cause: Error): boolean =>
  cause instanceof errors.HTTPParserError || (cause instanceof errors.SocketError && cause.message.startsWith('bad '))

const INVALID = new Set(['UND_ERR_HEADERS_OVERFLOW', 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH'])
const OURS = new Set(['UND_ERR_INVALID_ARG', 'UND_ERR_NOT_SUPPORTED', 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH'])
const CLOSED = new Set(['UND_ERR_DESTROYED', 'UND_ERR_CLOSED'])
