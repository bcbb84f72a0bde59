// The whole where all but one piece is stored: only that piece is fetched (RFC 9111 §3.4, RFC 9110 §14.2), and the answer
// is put together while it streams, so that for everybody behind this it is a 200 like any other.
//
// Not a byte goes out before the origin has named the strong validator of what is stored, and just the piece; whatever
// else it sends is used as it is, or fetched whole. A piece that breaks off breaks the whole off.

import type { BodySink, BodyStream, FetchOrigin, OriginAnswer, OriginFetch, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { CONDITIONAL_FIELDS, freshenHeaders, sharesStrongValidator } from '../http/conditional.ts'
import { formatHttpDate } from '../http/date.ts'
import { getHeader, hasHeader, withoutHeaders } from '../http/headers.ts'
import { type Part, type Span, gapsIn } from '../http/range.ts'
import { joinTags } from '../http/tags.ts'
import type { StoredParts } from './entry.ts'
import { partIn } from './parts.ts'
import { OF_THE_BYTES } from './reply.ts'

/** The piece that what is stored lacks. */
export interface Gap extends Span {
  readonly stored: StoredParts
  readonly completeBytes: number
  readonly tag: string
}

/** null where more than one piece is missing, or where it cannot be asked for as a piece of just this representation. */
export function gapOf(stored: StoredParts): Gap | null {
  const { headers, parts, completeBytes } = stored
  const tag = getHeader(headers, 'etag')
  // A date would do, were it not for origins that compare it with something else than the text they sent.
  if (completeBytes === null || tag === null || !tag.startsWith('"')) return null
  const [gap, ...more] = gapsIn({ first: 0, last: completeBytes - 1 }, parts)
  return gap === undefined || more.length > 0 ? null : { ...gap, stored, completeBytes, tag }
}

/** Asks for the piece. now: wall clock, milliseconds. */
export function fetchMissing(fetch: FetchOrigin, ctx: RequestContext, gap: Gap, now: () => number): OriginFetch {
  let current = fetch(ctx, CONDITIONAL_FIELDS, ['Range', `bytes=${gap.first}-${gap.last}`, 'If-Range', gap.tag])
  let aborted: GatewayError | null = null
  const answer = current.answer.then((first) => {
    if (first.status !== 206 && first.status !== 416) return first
    const body = first.takeBody()
    if (body !== null && fillsGap(gap, first, body)) return wholeOf(gap, first, body, now())
    if (body !== null && !Buffer.isBuffer(body)) body.cancel()
    if (aborted !== null) throw aborted
    current = fetch(ctx, CONDITIONAL_FIELDS)
    return current.answer
  })
  return {
    answer,
    get isSent() {
      return current.isSent
    },
    abort(reason) {
      aborted ??= reason
      current.abort(reason)
    },
  }
}

function fillsGap(gap: Gap, answer: OriginAnswer, body: Buffer | BodyStream): boolean {
  const part = partIn(answer)
  if (part === null || part.first !== gap.first || part.last !== gap.last) return false
  if (part.completeLength !== null && part.completeLength !== gap.completeBytes) return false
  if (Buffer.isBuffer(body) && body.length !== lengthOf(gap)) return false
  return sharesStrongValidator(gap.stored.headers, answer.headers)
}

const joined = (before: readonly Part[], body: Buffer, after: readonly Part[]): Buffer =>
  Buffer.concat([...before.map((part) => part.body), body, ...after.map((part) => part.body)])

const lengthOf = ({ first, last }: Span): number => last - first + 1

function wholeOf(
  gap: Gap,
  { headers, tags, framed }: OriginAnswer,
  body: Buffer | BodyStream,
  nowMs: number,
): OriginAnswer {
  const newer = withoutHeaders(headers, OF_THE_BYTES)
  if (!hasHeader(newer, 'date')) newer.push('Date', formatHttpDate(nowMs))
  const fields = [...freshenHeaders(gap.stored.headers, newer), 'Content-Length', String(gap.completeBytes)]
  const { parts } = gap.stored
  const inOrder = parts.toSorted((a, b) => a.first - b.first)
  const before = inOrder.filter(({ last }) => last < gap.first)
  const after = inOrder.filter(({ first }) => first > gap.last)
  return {
    status: 200,
    headers: fields,
    framed,
    tags: joinTags(gap.stored.tags, tags === undefined ? [] : tags),
    takeBody: () =>
      Buffer.isBuffer(body) ? joined(before, body, after) : new Spliced(before, body, lengthOf(gap), after),
  }
}

/** A body that arrives, between what is there already. */
class Spliced implements BodyStream, BodySink {
  readonly #arriving: BodyStream
  readonly #after: readonly Part[]
  /** What the sink has still to get. What has arrived waits here only behind what was there before it. */
  readonly #queue: Buffer[]
  #restBytes: number
  #sink: BodySink | null = null
  #hasRoom = true
  #isFlowing = false
  /** Whoever sends has been told to wait for resume(). */
  #isWaiting = false
  #isOver = false

  constructor(before: readonly Part[], arriving: BodyStream, bytes: number, after: readonly Part[]) {
    this.#arriving = arriving
    this.#after = after
    this.#queue = before.map(({ body }) => body)
    this.#restBytes = bytes
  }

  pipeTo(sink: BodySink): void {
    this.#sink = sink
    this.#flow()
    // At once, however much there is before it: its failure has to be heard of at any time.
    if (this.#sink !== null) this.#arriving.pipeTo(this)
  }

  resume(): void {
    this.#hasRoom = true
    this.#flow()
    if (!this.#isWaiting || !this.#hasRoom) return
    this.#isWaiting = false
    this.#arriving.resume()
  }

  cancel(): void {
    this.#sink = null
    this.#arriving.cancel()
  }

  write(chunk: Buffer): boolean {
    this.#restBytes -= chunk.length
    if (this.#restBytes < 0) {
      this.#arriving.cancel()
      this.fail(WRONG_LENGTH)
      return false
    }
    this.#queue.push(chunk)
    this.#flow()
    this.#isWaiting = !this.#hasRoom
    return this.#hasRoom
  }

  end(): void {
    if (this.#restBytes > 0) return this.fail(WRONG_LENGTH)
    for (const { body } of this.#after) this.#queue.push(body)
    this.#isOver = true
    this.#isWaiting = false
    this.#flow()
  }

  fail(error: GatewayError): void {
    this.#sink?.fail(error)
    this.#sink = null
  }

  #flow(): void {
    // A sink that asks for more while it is being given some is served by the loop that is already running.
    if (this.#isFlowing) return
    this.#isFlowing = true
    while (this.#sink !== null && this.#hasRoom) {
      const next = this.#queue.shift()
      if (next === undefined) break
      // Before the call, because a sink may ask for more from inside it and answer false all the same.
      this.#hasRoom = false
      if (this.#sink.write(next)) this.#hasRoom = true
    }
    this.#isFlowing = false
    if (!this.#isOver || this.#queue.length > 0) return
    this.#sink?.end()
    this.#sink = null
  }
}

const WRONG_LENGTH = new GatewayError('upstream_invalid', 'The part is not as long as its Content-Range says.')
