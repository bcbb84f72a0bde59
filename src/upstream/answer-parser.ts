// Answers as the bytes of one connection say them (RFC 9112 §2, §4-§7). Strict: what two parsers could read in two ways
// is a fault, never repaired, for the bytes behind a repair could be an answer that somebody else has prepared (§11.1,
// §11.2). So CRLF and nothing else ends a line, no field goes on in the next line, no blank stands before a colon, a
// length is one number, and no length stands beside a transfer coding.
//
// A head is parsed when all of it is there, a body is handed on as it comes. What is kept between two reads is bounded by
// MAX_HEAD_BYTES. Written here because it is the largest part of what a miss costs: against undici's parser, which calls
// back for each field and reads into a buffer of its own for each answer, it saves 10 us of 30 (bench miss).

import { isToken, listMembers } from '../http/headers.ts'

/** Bytes of a head, and of the fields after chunks. */
export const MAX_HEAD_BYTES = 32 * 1024
const MAX_FIELDS = 200
/** Bytes that may stand behind the size of a chunk. */
const MAX_EXTENSION_BYTES = 16 * 1024
const MAX_SIZE_DIGITS = 16

/** By what the end of a body shows: there is none, its length, its chunks, or the end of the connection. */
export type Framing = 'none' | 'length' | 'chunks' | 'end'

/** Is told what comes. It may stop() the parser at any time, and is not called any more then. */
export interface AnswerListener {
  /** A head has come; the parser's own fields tell it. An interim one (below 200) is followed by another. */
  onHead(): void
  /** Some of the body: these of the bytes, which are good during the call only. */
  onBody(bytes: Buffer, from: number, to: number): void
  /** The answer is whole. hasMore: bytes follow it, which are not read. */
  onEnd(hasMore: boolean): void
}

type State =
  | 'idle'
  | 'head'
  | 'body'
  | 'body_to_end'
  | 'size'
  | 'extension'
  | 'size_end'
  | 'chunk'
  | 'chunk_end'
  | 'trailer'
  | 'stopped'

/** In the place of a position. */
const NEEDS_MORE = -1
const FAULTY = -2

const CR = 0x0d
const LF = 0x0a
const SP = 0x20
const HTAB = 0x09
const COLON = 0x3a
const SEMICOLON = 0x3b
const VERSION = Buffer.from('HTTP/1.')
const HEAD_END = Buffer.from('\r\n\r\n')

/** 1 for what may stand in a token, and in a field value (RFC 9110 §5.5, §5.6.2). */
const TOKEN_BYTES = Uint8Array.from({ length: 256 }, (_, byte) => Number(isToken(String.fromCharCode(byte))))
const VALUE_BYTES = Uint8Array.from({ length: 256 }, (_, byte) =>
  Number(byte === HTAB || (byte >= SP && byte !== 0x7f)),
)

export class AnswerParser {
  status = 0
  /** As they came, hop-by-hop fields and all. */
  headers: string[] = []
  framing: Framing = 'none'
  /** The upstream keeps the connection open, and nothing about this answer is a reason not to use it again. */
  staysOpen = false
  /** For how long the upstream keeps it, where it says so. */
  keptMs: number | null = null
  /** What is wrong with the bytes, once take() has refused them. */
  fault = ''

  readonly #listener: AnswerListener
  #method = ''
  #isLenient = false
  #mayUpgrade = false
  #state: State = 'idle'
  /** The beginning of a head, or of the fields after chunks, of which the rest is still to come. */
  #partial: Buffer | null = null
  /** The fields of the answer before. An upstream says nearly the same each time: what it says again is the same text, of
   *  which there is then one for all that is stored. */
  #known: readonly string[] = []
  /** Of the head just read: its length and codings, where it has such fields, and what it says of the connection. */
  #length = -1
  #coding: string | null = null
  #connection: string | null = null
  /** Bytes of the body, or of the chunk, that are still to come. */
  #left = 0
  /** Digits, and then bytes, of the line that a chunk begins with. */
  #lineBytes = 0

  constructor(listener: AnswerListener) {
    this.#listener = listener
  }

  /** An answer is due. isLenient: a transfer coding that nobody knows counts as none. mayUpgrade: it may be a 101; what
   *  follows that is its body, to the end of the connection. */
  expect(method: string, isLenient: boolean, mayUpgrade: boolean): void {
    this.#method = method
    this.#isLenient = isLenient
    this.#mayUpgrade = mayUpgrade
    this.#state = 'head'
  }

  /** Nothing more is read, whatever comes. */
  stop(): void {
    this.#state = 'stopped'
    this.#partial = null
  }

  /** The connection has ended. True where that is the end of the answer. */
  end(): boolean {
    const isWhole = this.#state === 'body_to_end'
    if (isWhole) this.#end(false)
    return isWhole
  }

  /** Takes what has come. False: it cannot be read, see fault; the parser is of no use any more. */
  take(bytes: Buffer): boolean {
    const held = this.#partial
    const all = held === null ? bytes : Buffer.concat([held, bytes])
    this.#partial = null
    let at = 0
    while (at < all.length) {
      at = this.#step(all, at, held === null ? 0 : held.length)
      if (at === NEEDS_MORE) return true
      if (at === FAULTY) return false
    }
    return true
  }

  /** Reads on from `at`; answers from where the next step does. known: so many bytes have been looked through before. */
  #step(bytes: Buffer, at: number, known: number): number {
    switch (this.#state) {
      case 'head':
        return this.#takeHead(bytes, at, known)
      case 'body':
      case 'chunk':
        return this.#takeBody(bytes, at)
      case 'body_to_end':
        this.#listener.onBody(bytes, at, bytes.length)
        return bytes.length
      case 'size':
        return this.#takeSize(bytes, at)
      case 'extension':
        return this.#takeExtension(bytes, at)
      case 'size_end':
        if (bytes[at] !== LF) return this.#refuse('a chunk size that does not end in CRLF')
        this.#state = this.#left === 0 ? 'trailer' : 'chunk'
        return at + 1
      case 'chunk_end':
        // Its two bytes are CR and LF.
        if (bytes[at] !== (this.#left === 2 ? CR : LF)) return this.#refuse('a chunk that is longer than its size')
        this.#left--
        if (this.#left === 0) this.#state = 'size'
        return at + 1
      case 'trailer':
        return this.#takeTrailer(bytes, at, known)
      case 'stopped':
        return bytes.length
      case 'idle':
      default:
        return this.#refuse('bytes that nobody asked for')
    }
  }

  #refuse(fault: string): typeof FAULTY {
    this.fault = fault
    this.stop()
    return FAULTY
  }

  // ---- heads ----

  #takeHead(bytes: Buffer, from: number, known: number): number {
    let at = from
    // Some end a body with a line more than its length says.
    while (bytes[at] === CR && bytes[at + 1] === LF) at += 2
    if (bytes[at] === CR && at + 1 === bytes.length) return this.#keep(bytes, at)
    const end = bytes.indexOf(HEAD_END, Math.max(at, known - 3))
    // What is no answer need not be waited for.
    for (let i = 0; i < VERSION.length && at + i < bytes.length; i++) {
      if (bytes[at + i] !== VERSION[i]) return this.#refuse('no valid HTTP')
    }
    if (end < 0) return this.#keep(bytes, at)
    if (end - at > MAX_HEAD_BYTES) return this.#refuse('a head that is too long')
    const fault = this.#readHead(bytes, at, end) ?? this.#frame(bytes[at + 7] === 0x31)
    if (fault !== null) return this.#refuse(fault)
    this.#begin(end + 4 < bytes.length)
    return end + 4
  }

  /** The rest of something is still to come. */
  #keep(bytes: Buffer, from: number): number {
    if (bytes.length - from > MAX_HEAD_BYTES) return this.#refuse('a head that is too long')
    // A copy: what was read into will be written to again.
    this.#partial = Buffer.from(bytes.subarray(from))
    return NEEDS_MORE
  }

  /** end: of the last line. Answers what is wrong with it; null: nothing. */
  #readHead(bytes: Buffer, at: number, end: number): string | null {
    const minor = bytes[at + 7]
    let status = 0
    for (let i = at + 9; i < at + 12; i++) {
      const digit = (bytes[i] as number) - 0x30
      if (!(digit >= 0 && digit <= 9)) return 'no valid HTTP'
      status = status * 10 + digit
    }
    let lineEnd = at + 12
    if (bytes[lineEnd] === SP) while (VALUE_BYTES[bytes[lineEnd] as number] === 1) lineEnd++
    if (
      (minor !== 0x30 && minor !== 0x31) ||
      bytes[at + 8] !== SP ||
      bytes[lineEnd] !== CR ||
      bytes[lineEnd + 1] !== LF
    )
      return 'no valid HTTP'
    this.status = status
    this.#known = this.headers
    // An invitation to go on, unasked as well, has to be passed over (RFC 9110 §15.2).
    if (status < 100 || (status === 101 && !this.#mayUpgrade)) return `a status ${status} that nobody asked for`
    return this.#readFields(bytes, lineEnd + 2, end)
  }

  /** end: of the last line. Answers what is wrong with them; null: nothing. */
  #readFields(bytes: Buffer, from: number, end: number): string | null {
    const known = this.#known
    const headers: string[] = []
    this.headers = headers
    this.keptMs = null
    this.#length = -1
    this.#coding = null
    this.#connection = null
    let at = from
    while (at < end) {
      const nameAt = at
      let name = known[headers.length] ?? ''
      if (bytes[at + name.length] === COLON && isAt(bytes, at, name)) at += name.length
      else {
        while (TOKEN_BYTES[bytes[at] as number] === 1) at++
        name = bytes.toString('latin1', nameAt, at)
      }
      if (at === nameAt || bytes[at] !== COLON) return 'a header field that is not valid'
      at++
      while (bytes[at] === SP || bytes[at] === HTAB) at++
      let value = known[headers.length + 1] ?? ''
      if (bytes[at + value.length] === CR && isAt(bytes, at, value)) at += value.length
      else {
        const valueAt = at
        let valueEnd = at
        for (let byte = bytes[at] as number; VALUE_BYTES[byte] === 1; byte = bytes[++at] as number) {
          if (byte !== SP && byte !== HTAB) valueEnd = at + 1
        }
        value = bytes.toString('latin1', valueAt, valueEnd)
      }
      if (bytes[at] !== CR || bytes[at + 1] !== LF) return 'a header field that is not valid'
      at += 2
      if (headers.push(name, value) > 2 * MAX_FIELDS) return 'too many header fields'
      const fault = this.#note(name, value)
      if (fault !== null) return fault
    }
    return null
  }

  /** What concerns the connection. Names are told apart by their length first, which settles nearly all. */
  #note(name: string, value: string): string | null {
    switch (name.length) {
      case 10: {
        const lower = name.toLowerCase()
        if (lower === 'connection') this.#connection = join(this.#connection, value)
        else if (lower === 'keep-alive') this.keptMs = keptMs(value)
        return null
      }
      case 14:
        if (name.toLowerCase() !== 'content-length') return null
        if (this.#length >= 0 || !/^\d{1,15}$/.test(value)) return 'a length that is not one number'
        this.#length = Number(value)
        return null
      case 17:
        if (name.toLowerCase() === 'transfer-encoding') this.#coding = join(this.#coding, value)
        return null
      default:
        return null
    }
  }

  /** How the body ends (RFC 9112 §6.3), and whether the connection may be used after it. */
  #frame(isHttp11: boolean): string | null {
    const { status } = this
    const isHead = this.#method === 'HEAD'
    const hasNone = isHead || status < 200 || status === 204 || status === 304
    const coding = this.#coding
    const length = this.#length
    if (status === 101) {
      this.framing = 'end'
      this.staysOpen = false
      return coding === null && length <= 0 && this.#names('upgrade') ? null : 'a status 101 that is not valid'
    }
    if (coding !== null && length >= 0) return 'a length beside a transfer coding'
    const isChunked = coding !== null && coding.toLowerCase() === 'chunked'
    // RFC 9112 §6.1: we have asked for no other coding, and could not decode it.
    if (coding !== null && !isChunked && !(this.#isLenient && isNoCoding(coding))) return 'an unknown transfer coding'
    this.framing = hasNone ? 'none' : isChunked ? 'chunks' : length >= 0 ? 'length' : 'end'
    // Who says how long the body is that there cannot be may send it, and it would look like the next answer.
    const mayBeFollowed = hasNone && !isHead && status >= 200 && (length > 0 || coding !== null)
    // RFC 9112 §6.1: HTTP/1.0 knows no codings, so who speaks it may have meant something else.
    const isOutOfStep = mayBeFollowed || (coding !== null && !isHttp11)
    this.staysOpen =
      this.framing !== 'end' && !isOutOfStep && (isHttp11 ? !this.#names('close') : this.#names('keep-alive'))
    return status < 200 && !this.staysOpen ? 'an interim answer with which its connection ends' : null
  }

  #names(option: string): boolean {
    return this.#connection !== null && listMembers(this.#connection.toLowerCase()).includes(option)
  }

  #begin(hasMore: boolean): void {
    this.#listener.onHead()
    if (this.#state === 'stopped' || (this.status < 200 && this.framing !== 'end')) return
    if (this.framing === 'end') this.#state = 'body_to_end'
    else if (this.framing === 'chunks') {
      this.#state = 'size'
      this.#left = 0
    } else if (this.framing === 'none' || this.#length === 0) this.#end(hasMore)
    else {
      this.#state = 'body'
      this.#left = this.#length
    }
  }

  #end(hasMore: boolean): void {
    this.#state = hasMore ? 'stopped' : 'idle'
    this.#listener.onEnd(hasMore)
  }

  // ---- bodies ----

  #takeBody(bytes: Buffer, at: number): number {
    const end = Math.min(bytes.length, at + this.#left)
    this.#left -= end - at
    this.#listener.onBody(bytes, at, end)
    if (this.#left > 0 || this.#state === 'stopped') return end
    if (this.#state === 'body') this.#end(end < bytes.length)
    else {
      this.#state = 'chunk_end'
      this.#left = 2
    }
    return end
  }

  #takeSize(bytes: Buffer, from: number): number {
    let at = from
    for (; at < bytes.length; at++) {
      const digit = hexDigit(bytes[at] as number)
      if (digit < 0) break
      this.#left = this.#left * 16 + digit
      if (++this.#lineBytes > MAX_SIZE_DIGITS || !Number.isSafeInteger(this.#left)) {
        return this.#refuse('a chunk size that is not valid')
      }
    }
    if (at === bytes.length) return at
    const isEnd = bytes[at] === CR || bytes[at] === SEMICOLON
    if (this.#lineBytes === 0 || !isEnd) return this.#refuse('a chunk size that is not valid')
    this.#lineBytes = 0
    this.#state = 'extension'
    return at
  }

  #takeExtension(bytes: Buffer, from: number): number {
    let at = from
    while (VALUE_BYTES[bytes[at] as number] === 1) at++
    this.#lineBytes += at - from
    if (this.#lineBytes > MAX_EXTENSION_BYTES) return this.#refuse('a chunk extension that is too long')
    if (at === bytes.length) return at
    if (bytes[at] !== CR) return this.#refuse('a chunk extension that is not valid')
    this.#lineBytes = 0
    this.#state = 'size_end'
    return at + 1
  }

  /** The fields after the last chunk are checked, and dropped: what they say comes too late for anybody. */
  #takeTrailer(bytes: Buffer, at: number, known: number): number {
    let after = at + 2
    if (bytes[at] !== CR || bytes[at + 1] !== LF) {
      const end = bytes.indexOf(HEAD_END, Math.max(at, known - 3))
      if (end < 0) return this.#keep(bytes, at)
      if (end - at > MAX_HEAD_BYTES) return this.#refuse('trailer fields that are too long')
      const fault = this.#readFields(bytes, at, end)
      if (fault !== null) return this.#refuse(fault)
      after = end + 4
    }
    this.#end(after < bytes.length)
    return after
  }
}

/** Whether these bytes are this text, byte for byte. */
function isAt(bytes: Buffer, at: number, text: string): boolean {
  for (let i = 0; i < text.length; i++) if (bytes[at + i] !== text.charCodeAt(i)) return false
  return true
}

const join = (before: string | null, value: string): string => (before === null ? value : `${before}, ${value}`)

/** `Keep-Alive: timeout=5, max=100`; null where it names no time. */
function keptMs(value: string): number | null {
  const seconds = /(?:^|[,\s])timeout=(\d{1,9})/i.exec(value)?.[1]
  return seconds === undefined ? null : Number(seconds) * 1000
}

function hexDigit(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const lower = byte | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}

/** RFC 9112 §7: what is registered has been done to the body, which would not be what the client takes it for. */
const CODINGS: ReadonlySet<string> = new Set(['chunked', 'gzip', 'x-gzip', 'deflate', 'compress', 'x-compress'])

/** One word that means no coding. Such a body is not chunked, so it ends with its connection (RFC 9112 §6.3). */
const isNoCoding = (coding: string): boolean => isToken(coding) && !CODINGS.has(coding.toLowerCase())
