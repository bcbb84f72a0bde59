// What node:http's parser has been given, and whether it is known to stand between two messages: only then may the next
// bytes of a connection be looked at by anybody else. Node does not tell, so it is concluded from the bytes themselves,
// and where that cannot be, the parser keeps the connection.

const [CR, LF] = [0x0d, 0x0a]
const HEAD_END = '\r\n\r\n'

export class LaneInput {
  /** Since the parser last stood between two messages for certain. */
  #bytes = 0
  #headBytes = 0
  #messages = 0
  #endsBlank = false

  get isEmpty(): boolean {
    return this.#bytes === 0
  }

  /** The parser is about to be given this. */
  note(chunk: Buffer): void {
    if (this.#bytes === 0) {
      const at = chunk.indexOf(HEAD_END, 0, 'latin1')
      this.#headBytes = at < 0 ? 0 : at + HEAD_END.length
    }
    this.#bytes += chunk.length
    const { length } = chunk
    this.#endsBlank =
      chunk[length - 1] === LF && chunk[length - 2] === CR && chunk[length - 3] === LF && chunk[length - 4] === CR
  }

  /** The parser has found a message. */
  noteMessage(): void {
    this.#messages++
  }

  /** All messages so far are complete and answered. bodyBytes: the length that the last one has declared; null where it
   *  has declared none. */
  settle(bodyBytes: number | null): void {
    // An empty line ends a head or a chunked body, and one more message would have been found; or it is the end of a body
    // of declared length, or stands behind one, where it means nothing (RFC 9112 §2.2).
    const isExact = this.#messages === 1 && this.#headBytes > 0 && this.#bytes === this.#headBytes + (bodyBytes ?? 0)
    if (!this.#endsBlank && !isExact) return
    this.#bytes = this.#messages = 0
  }
}
