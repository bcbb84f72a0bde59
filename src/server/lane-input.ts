// What node:http's parser has been given, and whether it is known to stand between two messages: only then may the next
// bytes of a connection be looked at by anybody else. Node does not tell, so it is concluded from the bytes themselves,
// and where that cannot be, the parser keeps the connection.
//
// After a message that offers to upgrade (RFC 9110 §7.8) Node's parser takes back nothing of what it has read, whether the
// offer is taken or not: what stands behind it in the same chunk is gone, and errors in the next message go unsaid.

import type { HeaderList } from '../core/context.ts'
import { hasHeader } from '../http/headers.ts'

const [CR, LF] = [0x0d, 0x0a]
const HEAD_END = '\r\n\r\n'
const NOTHING = Buffer.alloc(0)

export class LaneInput {
  /** Since the parser last stood between two messages for certain. */
  #bytes = 0
  /** Of the first message since; 0 while its end has not come. */
  #headBytes = 0
  /** What the end of a head may have begun with, in the bytes before the next. */
  #tail: Buffer = NOTHING
  #messages = 0
  #endsBlank = false
  /** Of the latest message. */
  #offersUpgrade = false
  #hasLost = false

  /** True where bytes may be gone that nobody has read: nothing behind them can be told apart any more. */
  get hasLost(): boolean {
    return this.#hasLost
  }

  get isEmpty(): boolean {
    return this.#bytes === 0
  }

  /** The parser is about to be given this. */
  note(chunk: Buffer): void {
    if (this.#bytes === 0) {
      this.#headBytes = 0
      this.#tail = NOTHING
    }
    if (this.#headBytes === 0) this.#findHeadEnd(chunk)
    this.#bytes += chunk.length
    const { length } = chunk
    this.#endsBlank =
      chunk[length - 1] === LF && chunk[length - 2] === CR && chunk[length - 3] === LF && chunk[length - 4] === CR
  }

  #findHeadEnd(chunk: Buffer): void {
    const tail = this.#tail
    const bytes = tail.length === 0 ? chunk : Buffer.concat([tail, chunk])
    const at = bytes.indexOf(HEAD_END, 0, 'latin1')
    if (at < 0) this.#tail = bytes.subarray(1 - HEAD_END.length)
    else this.#headBytes = this.#bytes - tail.length + at + HEAD_END.length
  }

  /** The parser has found a message with these fields. */
  noteMessage(fields: HeaderList): void {
    this.#messages++
    this.#offersUpgrade = hasHeader(fields, 'upgrade')
    if (!this.#offersUpgrade) return
    const hasBody = hasHeader(fields, 'content-length') || hasHeader(fields, 'transfer-encoding')
    const isAlone = this.#messages === 1 && this.#bytes === this.#headBytes && !hasBody
    if (!isAlone) this.#hasLost = true
  }

  /** All messages so far are complete and answered. bodyBytes: the length that the last one has declared; null where it
   *  has declared none. */
  settle(bodyBytes: number | null): void {
    // An empty line ends a head or a chunked body, and one more message would have been found; or it is the end of a body
    // of declared length, or stands behind one, where it means nothing (RFC 9112 §2.2).
    const isExact = this.#messages === 1 && this.#headBytes > 0 && this.#bytes === this.#headBytes + (bodyBytes ?? 0)
    if (this.#offersUpgrade || (!this.#endsBlank && !isExact)) return
    this.#bytes = this.#messages = 0
  }
}
