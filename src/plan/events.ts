// Streams of events that must not look dead to what stands between here and the client: while nothing comes from the
// upstream, a comment goes out from time to time, between two events; and where an answer takes long, a client that takes
// events is sent the head of one before there is any. It costs the truth of the status: what the answer turns out to be
// then, other than a stream, is told by an `event: error` (server/respond.ts).

import type { BodySink, BodyStream, Reply, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { EventTail, isEventStream } from '../http/event-stream.ts'
import { getCombined } from '../http/headers.ts'

export interface EventsOptions {
  /** Milliseconds of silence. */
  readonly keepAlive: number
  /** Milliseconds without an answer; absent: however long. */
  readonly earlyHead?: number | undefined
}

/** What becomes of an answer that is waited for. It never rejects. */
export type EventKeeping = (ctx: RequestContext, answered: Promise<Reply>) => Promise<Reply>

export function compileEventKeeping({ keepAlive, earlyHead }: EventsOptions): EventKeeping {
  const keep = (ctx: RequestContext, reply: Reply): Reply => {
    const { body } = reply
    const isWhole = body === null || Buffer.isBuffer(body) || ctx.method === 'HEAD'
    if (isWhole || !isEventStream(reply.headers)) return reply
    const kept = new KeptBody(keepAlive)
    kept.follow(body)
    return { ...reply, body: kept }
  }
  if (earlyHead === undefined) return async (ctx, answered) => keep(ctx, await answered)
  return (ctx, answered) =>
    takesEvents(ctx)
      ? answerInTime(ctx, answered, keep, earlyHead, keepAlive)
      : answered.then((reply) => keep(ctx, reply))
}

const takesEvents = ({ method, headers }: RequestContext): boolean =>
  method !== 'HEAD' && getCombined(headers, 'accept')?.toLowerCase().includes('text/event-stream') === true

/** The answer, or after so long a beginning of one. */
function answerInTime(
  ctx: RequestContext,
  answered: Promise<Reply>,
  keep: (ctx: RequestContext, reply: Reply) => Reply,
  earlyHeadMs: number,
  keepAliveMs: number,
): Promise<Reply> {
  const { promise, resolve } = Promise.withResolvers<Reply>()
  let early: KeptBody | null = null
  const timer = setTimeout(() => {
    early = new KeptBody(keepAliveMs)
    resolve({ status: 200, headers: EARLY_HEAD, body: early })
  }, earlyHeadMs)
  void answered.then((reply) => {
    clearTimeout(timer)
    if (early === null) resolve(keep(ctx, reply))
    else goOn(ctx, early, reply)
  })
  return promise
}

const EARLY_HEAD = [
  'Content-Type',
  'text/event-stream',
  'Cache-Control',
  'no-cache',
  'X-Accel-Buffering',
  'no',
] as const

function goOn(ctx: RequestContext, early: KeptBody, { status, headers, body }: Reply): void {
  if (status === 200 && isEventStream(headers)) return early.follow(body)
  if (body !== null && !Buffer.isBuffer(body)) body.cancel()
  early.fail(ctx.error ?? new GatewayError('upstream_invalid', `The answer was no stream of events, but a ${status}.`))
}

const COMMENT = Buffer.from(':\n\n')

/** A stream of events with comments where it is silent. What it follows may come later than its reader. */
class KeptBody implements BodyStream, BodySink {
  readonly #keepAliveMs: number
  readonly #tail = new EventTail()
  #source: BodyStream | Buffer | null = null
  #hasSource = false
  #sink: BodySink | null = null
  #failure: GatewayError | null = null
  #isOver = false
  #hasRoom = true
  #isSourceWaiting = false
  #activeAtMs = 0
  #timer: NodeJS.Timeout | null = null

  constructor(keepAliveMs: number) {
    this.#keepAliveMs = keepAliveMs
  }

  /** Once, at any time. */
  follow(source: BodyStream | Buffer | null): void {
    this.#source = source
    this.#hasSource = true
    if (this.#isOver) this.#cancelSource()
    else if (this.#sink !== null) this.#begin()
  }

  // ---- for the reader ----

  pipeTo(sink: BodySink): void {
    if (this.#isOver) return
    this.#sink = sink
    if (this.#failure !== null) return this.fail(this.#failure)
    this.#activeAtMs = performance.now()
    this.#setTimer(this.#keepAliveMs)
    if (this.#hasSource) this.#begin()
    else this.#hasRoom = sink.write(COMMENT)
  }

  resume(): void {
    this.#hasRoom = true
    if (!this.#isSourceWaiting || this.#source === null || Buffer.isBuffer(this.#source)) return
    this.#isSourceWaiting = false
    this.#source.resume()
  }

  cancel(): void {
    this.#finish()
    this.#cancelSource()
  }

  // ---- from the source ----

  write(chunk: Buffer): boolean {
    this.#activeAtMs = performance.now()
    this.#tail.note(chunk)
    this.#hasRoom = this.#sink?.write(chunk) ?? true
    this.#isSourceWaiting = !this.#hasRoom
    return this.#hasRoom
  }

  end(): void {
    this.#finish()?.end()
  }

  fail(error: GatewayError): void {
    this.#failure = error
    if (this.#sink !== null) this.#finish()?.fail(error)
  }

  // ---- inside ----

  #begin(): void {
    const source = this.#source
    if (source !== null && !Buffer.isBuffer(source)) return source.pipeTo(this)
    if (source !== null) this.write(source)
    this.end()
  }

  #cancelSource(): void {
    if (this.#source !== null && !Buffer.isBuffer(this.#source)) this.#source.cancel()
  }

  /** Answers the sink that is still to be told. */
  #finish(): BodySink | null {
    const sink = this.#sink
    this.#isOver = true
    this.#sink = null
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    return sink
  }

  #setTimer(ms: number): void {
    this.#timer = setTimeout(() => this.#onTime(), Math.max(1, ms))
  }

  /** Not put off with every event: it is looked at when it rings. */
  #onTime(): void {
    const nowMs = performance.now()
    const restMs = this.#activeAtMs + this.#keepAliveMs - nowMs
    if (restMs >= 1) return this.#setTimer(restMs)
    // Within an event it would be a part of that, and a client without room has enough to read.
    if (this.#hasRoom && this.#tail.isAtBoundary) this.#hasRoom = this.#sink?.write(COMMENT) ?? true
    this.#activeAtMs = nowMs
    this.#setTimer(this.#keepAliveMs)
  }
}
