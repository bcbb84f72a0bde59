// A body on its way into the cache, and any number of readers of it while it comes. A slow reader holds nobody: each has
// its own cursor and its own back-pressure, and the origin is read at the pace of the fastest, or beyond it. The body is
// kept only when it has ended properly; one that breaks off fails every reader, so that it looks whole to nobody.
//
// What is held: while it is kept, all of it, then one exact buffer, which is the store's. Once it may not be kept, what
// some reader has still to read, at most MAX_LAG_BYTES, or CROWDED_LAG_BYTES while all recordings together hold too much;
// who falls further behind the others is cut off.
// The origin waits while even the fastest reader has this much to read: any amount where the length is declared, and so
// known to fit; AHEAD_BYTES where it is not; UNKEPT_AHEAD_BYTES once it is not kept.

import type { BodySink, BodyStream, ReplyBody } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import type { Reason } from './reasons.ts'

const AHEAD_BYTES = 1024 ** 2
const UNKEPT_AHEAD_BYTES = 64 * 1024
const MAX_LAG_BYTES = 8 * 1024 ** 2
const CROWDED_LAG_BYTES = 64 * 1024

/** Who pays for a recording's memory and gets it in the end. At most one of kept and refused is called; neither is when
 *  the body breaks off first. */
export interface RecordingOwner {
  /** The recording holds that many bytes more than before, or fewer; in the end they sum up to 0. */
  hold(deltaBytes: number): void
  /** Why a body that has grown to this many bytes may not be kept; null: it may. */
  refuse(bytes: number): Reason | null
  /** Too much is held by all recordings together. */
  isCrowded(): boolean
  /** It is whole, in a buffer of its own. */
  kept(body: Buffer): void
  /** It is not kept; its readers go on. */
  refused(why: Reason): void
}

export class Recording implements BodySink {
  readonly #source: BodyStream
  readonly #owner: RecordingOwner
  readonly #aheadBytes: number
  #chunks: Buffer[] = []
  /** Chunks let go of at the front. */
  #dropped = 0
  #bytes = 0
  #heldBytes = 0
  #isKept = true
  #body: Buffer | null = null
  #end: 'whole' | GatewayError | null = null
  /** The origin has been told to wait for resume(). */
  #waiting = false
  readonly #readers = new Set<Reader>()
  readonly #patrons = new Set<() => void>()

  /** declaredBytes: its Content-Length; null where there is none. */
  constructor(source: BodyStream, declaredBytes: number | null, owner: RecordingOwner) {
    this.#source = source
    this.#owner = owner
    this.#aheadBytes = declaredBytes === null ? AHEAD_BYTES : Infinity
  }

  /** Starts reading the origin. Have the first reader, or stay, before. */
  start(): void {
    this.#source.pipeTo(this)
  }

  /** The body from its beginning, for one reader, while open() would answer it. left: called once, when this reader has
   *  the end or has gone. */
  reader(left: () => void): BodyStream {
    const reader = new Reader(this, left)
    this.#readers.add(reader)
    return reader
  }

  /** The same for whoever comes later; null when it is too late. */
  open(left: () => void): { readonly body: ReplyBody } | null {
    if (this.#body === null) return this.#isKept && this.#end === null ? { body: this.reader(left) } : null
    left()
    return { body: this.#body }
  }

  /** Wants it kept, and reads nothing. left: called once, when it is decided whether it is. */
  stay(left: () => void): void {
    if (!this.#isKept || this.#end !== null) return left()
    this.#patrons.add(left)
    // It may have waited for readers that have gone.
    this.moved()
  }

  // ---- the origin's side ----

  write(chunk: Buffer): boolean {
    this.#chunks.push(chunk)
    this.#bytes += chunk.length
    this.#hold(chunk.length)
    const refusal = this.#isKept ? this.#owner.refuse(this.#bytes) : null
    if (refusal !== null) {
      this.#isKept = false
      this.#owner.refused(refusal)
      this.#dismissPatrons()
    }
    for (const reader of this.#readers) reader.advance()
    this.#waiting = !this.#mayGoOn()
    return !this.#waiting
  }

  end(): void {
    this.#end = 'whole'
    if (this.#isKept) {
      this.#body = exactCopy(this.#chunks, this.#bytes)
      this.#release()
      this.#owner.kept(this.#body)
      this.#dismissPatrons()
    }
    for (const reader of this.#readers) reader.advance()
    this.#letGo()
  }

  fail(error: GatewayError): void {
    this.#end = error
    this.#release()
    this.#dismissPatrons()
    for (const reader of this.#readers) reader.fail(error)
  }

  get isOver(): boolean {
    return this.#end !== null
  }

  // ---- the readers' side ----

  get isWhole(): boolean {
    return this.#end === 'whole'
  }

  /** What a reader reads next; null when it has not come yet, or there is no more. */
  next({ chunks, bytes }: Reader): Buffer | null {
    if (this.#body === null) return this.#chunks[chunks - this.#dropped] ?? null
    return bytes < this.#body.length ? this.#body.subarray(bytes) : null
  }

  /** A reader has moved on. */
  moved(): void {
    if (this.#end === 'whole') return this.#letGo()
    if (!this.#waiting) return
    // Not waiting while that is found out: cutting a reader off comes back here, and so may the origin's next chunk.
    this.#waiting = false
    if (this.#mayGoOn()) this.#source.resume()
    else this.#waiting = true
  }

  left(reader: Reader): void {
    this.#readers.delete(reader)
    this.moved()
  }

  // ---- inside ----

  /** Whether the origin may send more. Cuts off who lags too far behind those who want it. */
  #mayGoOn(): boolean {
    if (this.#end !== null) return true
    let fastest = this.#patrons.size > 0 ? this.#bytes : 0
    for (const reader of this.#readers) fastest = Math.max(fastest, reader.bytes)
    if (this.#bytes - fastest > (this.#isKept ? this.#aheadBytes : UNKEPT_AHEAD_BYTES)) return false
    if (this.#isKept) return true
    const maxLagBytes = this.#owner.isCrowded() ? CROWDED_LAG_BYTES : MAX_LAG_BYTES
    for (const reader of this.#readers) if (this.#bytes - reader.bytes > maxLagBytes) reader.fail(TOO_SLOW)
    this.#letGo()
    return true
  }

  /** Drops what every reader is past. */
  #letGo(): void {
    let slowest = this.#dropped + this.#chunks.length
    for (const reader of this.#readers) slowest = Math.min(slowest, reader.chunks)
    const passed = this.#chunks.splice(0, slowest - this.#dropped)
    this.#dropped = slowest
    for (const chunk of passed) this.#hold(-chunk.length)
  }

  #release(): void {
    this.#chunks = []
    this.#hold(-this.#heldBytes)
  }

  #hold(deltaBytes: number): void {
    this.#heldBytes += deltaBytes
    this.#owner.hold(deltaBytes)
  }

  #dismissPatrons(): void {
    for (const left of this.#patrons) left()
    this.#patrons.clear()
  }
}

const TOO_SLOW = new GatewayError('client_gone', 'The client fell too far behind others who read the same answer.')

class Reader implements BodyStream {
  /** Chunks and bytes that the sink has been given. */
  chunks = 0
  bytes = 0
  readonly #recording: Recording
  readonly #left: () => void
  #sink: BodySink | null = null
  #room = true
  #advancing = false
  #failure: GatewayError | null = null
  #gone = false

  constructor(recording: Recording, left: () => void) {
    this.#recording = recording
    this.#left = left
  }

  pipeTo(sink: BodySink): void {
    this.#sink = sink
    if (this.#failure === null) this.advance()
    else this.#leave()?.fail(this.#failure)
  }

  resume(): void {
    this.#room = true
    this.advance()
  }

  cancel(): void {
    this.#leave()
  }

  /** The sink is told at once, whatever it has still to read, or as soon as there is one. */
  fail(error: GatewayError): void {
    this.#failure = error
    this.#leave()?.fail(error)
  }

  /** Gives the sink what has come, as far as it has room. */
  advance(): void {
    // A sink that asks for more while it is being given some is served by the loop that is already running.
    if (this.#advancing) return
    this.#advancing = true
    while (this.#sink !== null && this.#room) {
      const next = this.#recording.next(this)
      if (next === null) break
      this.chunks++
      this.bytes += next.length
      // Before the call, because a sink may ask for more from inside it and answer false all the same.
      this.#room = false
      if (this.#sink.write(next)) this.#room = true
      this.#recording.moved()
    }
    this.#advancing = false
    if (this.#sink !== null && this.#recording.isWhole && this.#recording.next(this) === null) this.#leave()?.end()
  }

  /** Answers the sink that is still to be told. */
  #leave(): BodySink | null {
    const sink = this.#sink
    this.#sink = null
    if (this.#gone) return sink
    this.#gone = true
    this.#recording.left(this)
    this.#left()
    return sink
  }
}

/** One buffer of just these bytes: allocUnsafe would cut small ones from a shared slab and keep that alive. */
export function exactCopy(chunks: readonly Buffer[], bytes: number): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (const chunk of chunks) at += chunk.copy(copy, at)
  return copy
}
