// JSON texts one a line (ndjson, JSON Lines), or one a record (RFC 7464, whose records begin with RS and end with LF), read
// as they come, in pieces cut anywhere. Each line that is not blank is an event; its bytes stay as they are.

import { MAX_EVENT_BYTES, type StreamListener, type StreamReader } from './event-stream.ts'

const LF = 0x0a
const RECORD_SEPARATOR = '\u{1E}'

export class JsonLinesReader implements StreamReader {
  readonly hasNoise = false
  eventBytes = 0
  readonly #listener: Pick<StreamListener, 'onEvent'>
  readonly #maxLineBytes: number
  #bytes = 0
  #pieces: Buffer[] = []
  #lineBytes = 0

  constructor(listener: Pick<StreamListener, 'onEvent'>, maxLineBytes: number = MAX_EVENT_BYTES) {
    this.#listener = listener
    this.#maxLineBytes = maxLineBytes
  }

  get isAtBoundary(): boolean {
    return this.#lineBytes === 0
  }

  write(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      const found = chunk.indexOf(LF, at)
      const end = found < 0 ? chunk.length : found
      if (this.#lineBytes <= this.#maxLineBytes) this.#pieces.push(chunk.subarray(at, end))
      this.#lineBytes += end - at
      if (found < 0) break
      at = found + 1
      this.eventBytes = this.#bytes + at
      this.#endLine()
    }
    this.#bytes += chunk.length
  }

  #endLine(): void {
    const isTooLong = this.#lineBytes > this.#maxLineBytes
    const line = isTooLong ? null : Buffer.concat(this.#pieces).toString().trim()
    this.#pieces = []
    this.#lineBytes = 0
    if (line === '' || line === RECORD_SEPARATOR) return
    const data = line !== null && line.startsWith(RECORD_SEPARATOR) ? line.slice(1) : line
    this.#listener.onEvent({ name: 'message', data })
  }
}
