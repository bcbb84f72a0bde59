// One attempt at one target: what its connection tells in, an answer whose body is read under the reader's
// back-pressure out.
//
// Every phase has its own limit (queue, first byte, first event, idle, total; connect is in connect.ts), so a failure names the one
// that was passed. No time runs against the upstream while somebody else is slow: not while the reader has no room, not
// while the client sends nothing. Only the total goes on.
//
// An answer broken off after its head fails its reader: it can never look whole. Small answers are often whole by the
// time the caller sees the head; they are handed over as one buffer.

import type { Readable } from 'node:stream'
import type { Alarm } from '../core/alarms.ts'
import type { BodySink, BodyStream, HeaderList, Upgraded } from '../core/context.ts'
import { GatewayError, type ErrorCode } from '../core/errors.ts'
import { EventStreamReader, isEventStream } from '../http/event-stream.ts'
import { getHeader } from '../http/headers.ts'
import type { AnswerHead, UpstreamConnection } from './connection.ts'
import type { Timeouts } from './pool.ts'
import { type OutgoingHead, formatHead } from './request-head.ts'
import type { Exchange, Sending, Sent, Target } from './target.ts'

/** Bytes taken in while nobody reads; beyond it the upstream waits. */
const MAX_UNREAD_BYTES = 64 * 1024
const MAX_INTERIM_ANSWERS = 10

/** What is asked, and who hears how that ends. */
export interface Asker {
  readonly method: string
  /** Path and query as the target shall see them. */
  readonly path: string
  readonly relayInterim: ((status: number, headers: HeaderList) => void) | null
  /** A body that ends with its connection counts as whole, even in a transfer coding that nobody knows. */
  readonly isLenient: boolean
  /** It offers to go on as a WebSocket: an answer may be a 101. */
  readonly isHandshake: boolean
  readonly timeouts: Timeouts
  /** performance.now() when the first attempt began; the total timeout counts from there. */
  readonly startedAtMs: number
  /** Called when a connection is there, or about to be. A buffer is all of it. */
  openBody(): Buffer | Readable | null
  /** Its target is out before a byte of an answer: true where another is to be asked. The attempt then ends with ANOTHER.
   *  isSent: this one may have begun to work on it. */
  mayLeave(isSent: boolean): boolean
  /** Exactly one of these two is called, once: with the head of the answer, or with why there is none. */
  onAnswer(answer: AttemptAnswer): void
  onFailed(failure: AttemptFailure): void
  /** The target is through with it: after the last byte of an answer, or before onFailed. */
  onLeft(): void
}

/** The head has come. `takeBody` may be called once, at any later time. */
export interface AttemptAnswer {
  readonly status: number
  /** As the upstream sent them, hop-by-hop fields and all. */
  readonly headers: readonly string[]
  /** True when the end of the body can be proved: by Content-Length, by chunks, or because there is none; or, of a
   *  lenient request, is taken on trust. */
  readonly framed: boolean
  /** It is a stream of events (text/event-stream). */
  readonly isEvents: boolean
  /** What follows a 101, in place of a body. */
  readonly upgraded: Upgraded | null
  takeBody(): Buffer | BodyStream | null
}

/** Why an attempt failed, and how far it got. */
export interface AttemptFailure {
  readonly target: Target
  readonly error: GatewayError
  /** not_sent: nothing reached the wire. unanswered: sent, but not one byte came back. answered: too late for another try. */
  readonly phase: 'not_sent' | 'unanswered' | 'answered'
  /** True where it went out on a connection that had carried others before. */
  readonly wasKept: boolean
}

type Phase = 'queue' | 'connect' | 'send' | 'first_byte' | 'idle' | 'paused' | 'done'

/** One exchange with one target. */
export class Attempt implements Exchange, Upgraded, AttemptAnswer, Alarm {
  status = 0
  headers: readonly string[] = []
  framed = false
  isEvents = false
  upgraded: Upgraded | null = null
  onSpace: (() => void) | null = null
  // One alarm for the phase that runs and for the total.
  dueMs = 0
  place = -1

  readonly #asker: Asker
  readonly #target: Target
  readonly #headers: HeaderList
  readonly #how: Sending
  /** What is read while it is sent; a body that is held goes out at once. */
  #requestBody: Readable | null = null
  #sent: Sent | null = null
  /** From the moment on that the request goes out. */
  #connection: UpstreamConnection | null = null
  #isInPlace = false
  #hasBody = false
  #isAnswered = false
  #isSettled = false
  #isEnded = false
  #failure: GatewayError | null = null
  #interimAnswers = 0

  #sink: BodySink | null = null
  #sinkHasRoom = true
  #isFlowing = false
  readonly #unread: Buffer[] = []
  #unreadBytes = 0

  #phase: Phase = 'queue'
  /** How long the phase may be without anything moving; 0: the total alone counts. */
  #limitMs = 0
  #activeAtMs = 0
  #totalMs: number
  #idleMs: number
  /** Until the first event of a stream whose first event has a limit. */
  #firstEvent: EventStreamReader | null = null
  #firstEventDueMs = Infinity

  /** headers: of the request, for this target. */
  constructor(asker: Asker, target: Target, headers: HeaderList, how: Sending) {
    this.#asker = asker
    this.#target = target
    this.#headers = headers
    this.#how = how
    this.#totalMs = asker.timeouts.totalMs
    this.#idleMs = asker.timeouts.idleMs
  }

  /** False while it waits for a connection. */
  get isSent(): boolean {
    return this.#connection !== null
  }

  start(): void {
    this.#isInPlace = true
    if (this.#target.enter(this)) {
      // Whose turn has come at once waits in no line, and needs no deadline for that.
      if (this.#phase === 'queue') this.#enter('queue', this.#asker.timeouts.queueMs)
      return
    }
    this.#isInPlace = false
    this.#fail(new GatewayError('saturated', 'Too many requests wait for this upstream.', { retryAfterSeconds: 1 }))
  }

  /** Gives up, for the client's or a timer's reason. The upstream's connection is closed. */
  abort(reason: GatewayError): void {
    if (this.#phase === 'done') return
    this.#sent?.destroy()
    this.#leave()
    this.#fail(reason)
  }

  ring(nowMs: number): void {
    // A body that is not held back is waited for by the upstream too: the gap is the client's, who has a deadline.
    if (this.#phase === 'send' && this.#requestBody?.isPaused() === false) this.#activeAtMs = nowMs
    if (this.#totalDueMs() - nowMs < 1) {
      return this.abort(timeout('timeout_total', 'The exchange was not finished', this.#totalMs))
    }
    if (this.#firstEventDueMs - nowMs < 1) {
      return this.abort(timeout('timeout_first_event', 'No event came', this.#asker.timeouts.firstEventMs))
    }
    const limitMs = this.#limitMs
    if (limitMs === 0 || this.#activeAtMs + limitMs - nowMs >= 1) return this.#setAlarm()
    if (this.#phase === 'queue') this.abort(timeout('timeout_queue', 'No connection was free', limitMs))
    else if (this.#phase === 'first_byte')
      this.abort(timeout('timeout_first_byte', 'The answer did not begin', limitMs))
    else this.abort(timeout('timeout_idle', 'No byte moved', limitMs))
  }

  // ---- what its target and its connection tell ----

  onTurn(): void {
    const { method, path, isLenient, isHandshake } = this.#asker
    this.#phase = 'connect'
    const body = this.#asker.openBody()
    this.#requestBody = Buffer.isBuffer(body) ? null : body
    let head: OutgoingHead
    try {
      head = formatHead(method, path, this.#headers, body)
    } catch (cause) {
      this.onFailure(new GatewayError('internal', 'The request could not be forwarded.', { cause }))
      return
    }
    const sent = this.#target.send({ head, body, isLenient, isHandshake }, this, this.#how)
    this.#sent ??= sent
    // The connection has its own timer.
    if (this.#phase === 'connect') this.#enter('connect', 0)
  }

  onConnection(connection: UpstreamConnection): void {
    this.#sent = connection
    this.#connection = connection
    if (this.#requestBody === null) this.#enter('first_byte', this.#asker.timeouts.firstByteMs)
    else this.#enter('send', this.#asker.timeouts.idleMs)
  }

  onSending(): void {
    this.#activeAtMs = performance.now()
  }

  onSent(): void {
    if (this.#phase === 'send') this.#enter('first_byte', this.#asker.timeouts.firstByteMs)
  }

  onAnswering(): void {
    this.#target.heard()
    this.#isAnswered = true
  }

  onHead({ status, headers, framing }: AnswerHead): void {
    if (status < 200 && status !== 101) return this.#onInterim(status, headers)
    this.status = status
    this.headers = headers
    this.framed = this.#asker.isLenient || framing !== 'end'
    this.#hasBody = framing !== 'none'
    if (status === 101) this.#onUpgraded()
    else if (isStream(headers)) {
      this.#totalMs = this.#asker.timeouts.streamTotalMs
      this.isEvents = isEventStream(headers)
      if (this.isEvents && this.#asker.timeouts.firstEventMs > 0) return this.#awaitFirstEvent()
    }
    this.#enter('idle', this.#idleMs)
    this.#settle()
  }

  onData(chunk: Buffer): void {
    this.#target.heard()
    this.#activeAtMs = performance.now()
    this.#unread.push(chunk)
    this.#unreadBytes += chunk.length
    this.#firstEvent?.write(chunk)
    if (!this.#isSettled) this.#settle()
    this.#flow()
  }

  onRoom(): void {
    this.onSpace?.()
  }

  onEnd(): void {
    this.#leave()
    this.#isEnded = true
    this.#stopAlarm()
    if (this.upgraded === null) this.#target.answered(this.status)
    if (!this.#isSettled) this.#settle()
    this.#flow()
  }

  onFailure(error: GatewayError): void {
    this.#leave()
    this.#fail(error)
  }

  onTargetOut(isMute: boolean): void {
    if (this.#phase === 'done' || this.#isAnswered || (this.isSent && !isMute)) return
    if (this.#asker.mayLeave(this.isSent)) this.abort(ANOTHER)
  }

  // ---- the answer, for whoever asked ----

  takeBody(): Buffer | BodyStream | null {
    if (!this.#hasBody) return null
    if (!this.#isEnded) return this
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
    this.#unread.length = 0
    this.abort(new GatewayError('client_gone', 'The client has gone.'))
  }

  // ---- after a 101 ----

  /** A WebSocket has no length that could be too long, and is in the way of nobody. */
  #onUpgraded(): void {
    this.upgraded = this
    this.#totalMs = Infinity
    this.#idleMs = this.#asker.timeouts.websocketIdleMs
    this.#target.answered(this.status)
    this.#leave()
  }

  send(chunk: Buffer): boolean {
    this.#activeAtMs = performance.now()
    return this.#connection?.write(chunk) ?? true
  }

  sendEnd(): void {
    this.#connection?.end()
  }

  // ---- inside ----

  #settle(): void {
    this.#isSettled = true
    this.#asker.onAnswer(this)
  }

  /** The head is held until the first byte of the body, so that a stream which never begins is a failure with a status of its
   *  own. Comments keep a stream from being idle, and are no event. */
  #awaitFirstEvent(): void {
    this.#firstEvent = new EventStreamReader({ onEvent: () => this.#awaitNoEvent() })
    this.#firstEventDueMs = performance.now() + this.#asker.timeouts.firstEventMs
    this.#enter('idle', this.#idleMs)
  }

  #awaitNoEvent(): void {
    this.#firstEvent = null
    this.#firstEventDueMs = Infinity
  }

  /** Moves what has come as far as it can go, and holds the upstream where it cannot. */
  #flow(): void {
    // A sink that asks for more while it is being given some is served by the loop that is already running.
    if (this.#isFlowing) return
    this.#isFlowing = true
    while (this.#sink !== null && this.#sinkHasRoom && this.#failure === null) {
      const chunk = this.#unread.shift()
      if (chunk === undefined) break
      this.#unreadBytes -= chunk.length
      this.#sinkHasRoom = this.#sink.write(chunk)
    }
    this.#isFlowing = false
    const sink = this.#sink
    if (sink !== null && (this.#failure !== null || (this.#isEnded && this.#unread.length === 0))) {
      this.#sink = null
      if (this.#failure === null) sink.end()
      else sink.fail(this.#failure)
      return
    }
    const isFull = this.#unreadBytes > MAX_UNREAD_BYTES
    if (isFull && this.#phase === 'idle') {
      // Nobody reads what has come: it is not the upstream that is waited for.
      this.#awaitNoEvent()
      this.#enter('paused', 0)
      this.#connection?.pause()
    } else if (!isFull && this.#phase === 'paused') {
      this.#enter('idle', this.#idleMs)
      this.#connection?.resume()
    }
  }

  #onInterim(status: number, headers: HeaderList): void {
    if (++this.#interimAnswers <= MAX_INTERIM_ANSWERS) return this.#asker.relayInterim?.(status, headers)
    this.abort(new GatewayError('upstream_invalid', 'The upstream sent too many interim answers.'))
  }

  #fail(error: GatewayError): void {
    if (this.#phase === 'done') return
    const phase = this.#connection === null ? 'not_sent' : this.#isAnswered ? 'answered' : 'unanswered'
    this.#stopAlarm()
    this.#failure = error
    // A WebSocket's end is nobody's failure for certain: its target has done its part with the 101.
    if (this.upgraded === null && isOfTarget(error.code, phase, this.#connection)) this.#target.failed(error)
    if (this.#isSettled) return this.#flow()
    this.#isSettled = true
    this.#asker.onFailed({ target: this.#target, error, phase, wasKept: this.#connection?.wasUsed === true })
  }

  /** Once, when its connection is through with it: the next one's turn depends on it. */
  #leave(): void {
    if (!this.#isInPlace) return
    this.#isInPlace = false
    this.#target.leave(this)
    this.#asker.onLeft()
  }

  #enter(phase: Phase, limitMs: number): void {
    this.#phase = phase
    this.#limitMs = limitMs
    this.#activeAtMs = performance.now()
    this.#setAlarm()
  }

  #totalDueMs(): number {
    return this.#asker.startedAtMs + this.#totalMs
  }

  #setAlarm(): void {
    const endMs = Math.min(this.#totalDueMs(), this.#firstEventDueMs)
    const dueMs = this.#limitMs === 0 ? endMs : Math.min(endMs, this.#activeAtMs + this.#limitMs)
    this.#target.alarms.set(this, dueMs)
  }

  #stopAlarm(): void {
    this.#phase = 'done'
    this.#target.alarms.clear(this)
  }
}

/** False where a failure says nothing of the target: it may close a kept connection at any time, and that an exchange took
 *  too long as a whole is the reader's doing as often, or that of those in line before it. */
function isOfTarget(code: ErrorCode, phase: AttemptFailure['phase'], connection: UpstreamConnection | null): boolean {
  if (phase !== 'unanswered') return code !== 'timeout_total'
  return code !== 'upstream_reset' || connection?.wasUsed === false
}

/** Why an attempt is broken off. */
export const ANOTHER = new GatewayError('upstream_failing', 'Another target is asked.')

/** What a timer says that has fired. */
export const timeout = (code: ErrorCode, what: string, limitMs: number): GatewayError =>
  new GatewayError(code, `${what} within ${limitMs} ms.`)

/** True for types that are sent for as long as there is something to tell. */
const isStream = (headers: HeaderList): boolean => STREAMS.test(getHeader(headers, 'content-type') ?? '')

const STREAMS =
  /^(?:text\/event-stream|application\/(?:grpc(?:-web(?:-text)?)?(?:\+[\w.-]+)?|(?:x-)?ndjson|jsonl|json-seq|stream\+json)|multipart\/x-mixed-replace)\s*(?:;|$)/i
