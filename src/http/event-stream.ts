// Server-Sent Events as bytes (WHATWG HTML §9.2.5-6), read as they come, in pieces cut anywhere: lines that end by LF, CRLF
// or CR, events that end by a blank line. Nothing is changed and nothing held back; what is told is where events end, what
// is in them, and what is none of them: comments, and blank lines that end nothing.
//
// A line's end may come in two pieces. CR ends it at once, and an LF behind it belongs to it: an event is told as soon as
// it has come, and the boundary moves on over that LF.

import type { HeaderList } from '../core/context.ts'
import { getHeader } from './headers.ts'

/** What a client would dispatch, and beside that an event without data, which some clients take as well. */
export interface StreamEvent {
  /** `message` where it has none. */
  readonly name: string
  /** Its lines of data, LF between them; null: it is longer than what is read of one. */
  readonly data: string | null
}

export interface StreamListener {
  /** An event has come whole. */
  onEvent(event: StreamEvent): void
  /** These bytes, counted from the beginning, belong to no event, and can be left out: a comment, or a blank line between
   *  events. */
  onNoise?(from: number, to: number): void
}

/** Reads a stream in pieces. */
export interface StreamReader {
  write(chunk: Buffer): void
  /** True where nothing is begun: before the first event, or behind the end of one. */
  readonly isAtBoundary: boolean
  /** Bytes of all whole events so far, without what can be left out. */
  readonly eventBytes: number
  /** True where something can be left out. */
  readonly hasNoise: boolean
}

/** Of one event: what is read. */
export const MAX_EVENT_BYTES = 1024 ** 2

const TYPE = /^\s*text\/event-stream\s*(?:;|$)/i

export const isEventStream = (headers: HeaderList): boolean => TYPE.test(getHeader(headers, 'content-type') ?? '')

/** Two ends of a line, in any mixture. */
const BLANK_LINE = /(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)$/
/** Of the longest blank line. */
const TAIL_CHARS = 4

/** Where a stream stands that passes by, as far as its last bytes tell. */
export class EventTail {
  #tail = ''

  note(chunk: Buffer): void {
    this.#tail = (this.#tail + chunk.toString('latin1', Math.max(0, chunk.length - TAIL_CHARS))).slice(-TAIL_CHARS)
  }

  /** True before the first byte, and behind a blank line. */
  get isAtBoundary(): boolean {
    return this.#tail === '' || BLANK_LINE.test(this.#tail)
  }
}

const LF = 0x0a
const CR = 0x0d
const COLON = 0x3a
const SPACE = 0x20
const BYTE_ORDER_MARK = Buffer.from('\u{FEFF}')
const EMPTY = Buffer.alloc(0)

export class EventStreamReader implements StreamReader {
  hasNoise = false
  eventBytes = 0
  readonly #listener: StreamListener
  readonly #maxEventBytes: number
  /** Bytes before the piece that is being read. */
  #before = 0
  /** Of events, the one that is under way among them. */
  #keptBytes = 0
  #keptEndsByCr = false
  /** Of the line that is under way: what is read of it, and how long it is. */
  #pieces: Buffer[] = []
  #lineBytes = 0
  #isFirstLine = true
  /** The last byte was a CR, and what became of its line. */
  #afterCr: 'kept' | 'noise' | null = null

  // The event that is under way.
  #hasLines = false
  #isEvent = false
  #name = ''
  #data: string[] = []
  /** Of its lines of data and name. */
  #bytes = 0

  /** maxEventBytes: of one event; it is told without its data where it is longer. */
  constructor(listener: StreamListener, maxEventBytes: number = MAX_EVENT_BYTES) {
    this.#listener = listener
    this.#maxEventBytes = maxEventBytes
  }

  get isAtBoundary(): boolean {
    return !this.#hasLines && this.#lineBytes === 0
  }

  write(chunk: Buffer): void {
    let at = 0
    if (chunk.length > 0 && this.#afterCr !== null) {
      if (chunk[0] === LF) this.#endLate(this.#afterCr, ++at)
      this.#afterCr = null
    }
    while (at < chunk.length) {
      const end = endOfLine(chunk, at)
      this.#take(chunk, at, end)
      if (end === chunk.length) break
      const isCr = chunk[end] === CR
      at = isCr && chunk[end + 1] === LF ? end + 2 : end + 1
      const endsByCr = isCr && at === end + 1
      const became = this.#endLine(this.#before + at, at - end, endsByCr)
      if (endsByCr && at === chunk.length) this.#afterCr = became
    }
    this.#before += chunk.length
  }

  #take(chunk: Buffer, from: number, to: number): void {
    if (to === from) return
    if (this.#lineBytes <= this.#maxEventBytes) this.#pieces.push(chunk.subarray(from, to))
    this.#lineBytes += to - from
  }

  /** end: where the next line begins. breakBytes: of what ends this one. */
  #endLine(end: number, breakBytes: number, endsByCr: boolean): 'kept' | 'noise' {
    const bytes = this.#lineBytes + breakBytes
    const line = this.#readLine()
    const isComment = line[0] === COLON
    const isBlank = line.length === 0
    const isNoise = isComment || (isBlank && !this.#hasLines)
    // Between a CR and an LF it keeps the two apart, which would be one end of a line.
    if (isNoise && !this.#keptEndsByCr) {
      this.#noise(end - bytes, end)
      return 'noise'
    }
    this.#keptBytes += bytes
    this.#keptEndsByCr = endsByCr
    if (isNoise) this.#moveBoundary()
    else if (isBlank) this.#endEvent()
    else this.#readField(line, bytes - breakBytes)
    return 'kept'
  }

  /** The LF of a line that a CR has ended before. */
  #endLate(became: 'kept' | 'noise', at: number): void {
    if (became === 'noise') return this.#noise(this.#before + at - 1, this.#before + at)
    this.#keptBytes++
    this.#keptEndsByCr = false
    this.#moveBoundary()
  }

  /** Over what is kept behind an event and is none. */
  #moveBoundary(): void {
    if (!this.#hasLines) this.eventBytes = this.#keptBytes
  }

  #noise(from: number, to: number): void {
    this.hasNoise = true
    this.#listener.onNoise?.(from, to)
  }

  /** As far as it was kept. */
  #readLine(): Buffer {
    const pieces = this.#pieces
    const line = pieces.length === 0 ? EMPTY : pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces)
    if (pieces.length > 0) this.#pieces = []
    this.#lineBytes = 0
    if (!this.#isFirstLine) return line
    this.#isFirstLine = false
    return line.subarray(0, BYTE_ORDER_MARK.length).equals(BYTE_ORDER_MARK)
      ? line.subarray(BYTE_ORDER_MARK.length)
      : line
  }

  /** line: as far as it was kept, which is enough to tell the field. */
  #readField(line: Buffer, lineBytes: number): void {
    this.#hasLines = true
    const colon = line.indexOf(COLON)
    const field = line.toString('latin1', 0, colon < 0 ? line.length : colon)
    if (field !== 'event' && field !== 'data') return
    this.#isEvent = true
    this.#bytes += lineBytes
    if (this.#bytes > this.#maxEventBytes) return
    const value = colon < 0 ? '' : line.toString('utf8', line[colon + 1] === SPACE ? colon + 2 : colon + 1)
    if (field === 'event') this.#name = value
    else this.#data.push(value)
  }

  #endEvent(): void {
    this.eventBytes = this.#keptBytes
    this.#hasLines = false
    if (!this.#isEvent) return
    const data = this.#bytes > this.#maxEventBytes ? null : this.#data.join('\n')
    const name = this.#name === '' ? 'message' : this.#name
    this.#isEvent = false
    this.#name = ''
    this.#data = []
    this.#bytes = 0
    this.#listener.onEvent({ name, data })
  }
}

/** Where the line ends that is under way at a place; the length where that is not in this piece. */
function endOfLine(chunk: Buffer, from: number): number {
  for (let at = from; at < chunk.length; at++) {
    const byte = chunk[at]
    if (byte === LF || byte === CR) return at
  }
  return chunk.length
}

/** The events of a whole stream without what can be left out, byte for byte; the same buffer where there is nothing. */
export function eventsAlone(stream: Buffer): Buffer {
  const kept: Buffer[] = []
  let at = 0
  const reader = new EventStreamReader(
    {
      onEvent() {},
      onNoise(from, to) {
        if (from > at) kept.push(stream.subarray(at, from))
        at = to
      },
    },
    0,
  )
  reader.write(stream)
  if (!reader.hasNoise) return stream
  kept.push(stream.subarray(at))
  return Buffer.concat(kept)
}
