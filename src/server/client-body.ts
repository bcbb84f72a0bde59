// The body of a request as the gateway reads it: not before it is asked for, within its bounds, and apart from the
// connection. Whoever reads it may give it up (an upstream that answers early does) without cutting off the client, and
// a body that breaks fails its reader with a reason of its own, while the connection can still carry the answer.

import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type { RequestBody } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'

/** A body that is not wanted is read to its end where it has no more than this; beyond it the connection is closed. */
export const MAX_UNWANTED_BYTES = 64 * 1024

/** How far a client may fall behind the rate that is asked of it, in milliseconds. */
const MAX_BEHIND_MS = 10_000

export interface ClientBodyOptions {
  /** Longest gap, in milliseconds, while the gateway waits for more. */
  readonly idleMs: number
  /** Bytes a second that are to come while the gateway waits for them. */
  readonly minRate: number
  /** Sends `100 Continue`; null where the client does not wait for it. */
  readonly invite: (() => void) | null
}

/** The body of a message that has one. */
export class ClientBody implements RequestBody {
  readonly declaredBytes: number | null
  readonly #message: IncomingMessage
  readonly #options: ClientBodyOptions
  /** What the client still waits for. */
  #invite: (() => void) | null
  #stream: BodyReader | null = null
  #failure: GatewayError | null = null

  constructor(message: IncomingMessage, declaredBytes: number | null, options: ClientBodyOptions) {
    this.declaredBytes = declaredBytes
    this.#message = message
    this.#options = options
    this.#invite = options.invite
  }

  open(maxBytes: number): Readable {
    this.#invite?.()
    this.#invite = null
    this.#stream = new BodyReader(this.#message, maxBytes, this.#options)
    if (this.#failure !== null) this.#stream.destroy(this.#failure)
    return this.#stream
  }

  /** The rest will not come. */
  fail(error: GatewayError): void {
    this.#failure ??= error
    this.#stream?.destroy(error)
  }

  /** True when the connection can be used again although nobody reads the rest: it is all there, or soon will be. A
   *  client that was not told to continue may send its body or not, so where the next request begins is open. */
  get mayStayUnread(): boolean {
    if (this.#message.complete) return true
    return this.#invite === null && this.declaredBytes !== null && this.declaredBytes <= MAX_UNWANTED_BYTES
  }
}

class BodyReader extends Readable {
  readonly #message: IncomingMessage
  readonly #maxBytes: number
  readonly #idleMs: number
  readonly #minRate: number
  #bytes = 0
  /** By how much less has come than at the rate, as the time that makes. */
  #behindMs = 0
  /** When the client last sent, or we last asked; only while we wait is the gap the client's. */
  #waitingSinceMs = 0
  #isWaiting = false
  #timer: NodeJS.Timeout

  constructor(message: IncomingMessage, maxBytes: number, { idleMs, minRate }: ClientBodyOptions) {
    super()
    this.#message = message
    this.#maxBytes = maxBytes
    this.#idleMs = idleMs
    this.#minRate = minRate
    this.#timer = setTimeout(() => this.#onTimer(), idleMs)
    message.on('data', this.#onData).on('end', this.#onEnd).on('close', this.#onClose).on('error', this.#onClose)
    message.pause()
    // Its reader listens while it reads; a failure after that is nobody's, and must not end the process.
    this.on('error', () => {})
  }

  override _read(): void {
    if (!this.#isWaiting) this.#waitingSinceMs = performance.now()
    this.#isWaiting = true
    this.#message.resume()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearTimeout(this.#timer)
    // The message keeps its error listener: it may fail later, and unheard that would be a fault of the process.
    this.#message.off('data', this.#onData).off('end', this.#onEnd).off('close', this.#onClose)
    this.#message.pause()
    done(error)
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#bytes += chunk.length
    const nowMs = performance.now()
    if (this.#minRate > 0 && this.#isWaiting) {
      const waitedMs = nowMs - this.#waitingSinceMs
      this.#behindMs = Math.max(0, this.#behindMs + waitedMs - (chunk.length / this.#minRate) * 1000)
    }
    this.#waitingSinceMs = nowMs
    if (this.#behindMs > MAX_BEHIND_MS) {
      this.destroy(new GatewayError('timeout_body', `A body has to come at ${this.#minRate} bytes a second.`))
    } else if (this.#bytes > this.#maxBytes) {
      this.destroy(new GatewayError('body_too_large', `The body may have ${this.#maxBytes} bytes.`))
    } else if (!this.push(chunk)) {
      this.#isWaiting = false
      this.#message.pause()
    }
  }

  readonly #onEnd = (): void => {
    this.#isWaiting = false
    clearTimeout(this.#timer)
    this.push(null)
  }

  readonly #onClose = (): void => {
    if (!this.#message.complete) this.destroy(new GatewayError('client_gone', 'The client has gone.'))
  }

  #onTimer(): void {
    const restMs = this.#isWaiting ? this.#idleMs - (performance.now() - this.#waitingSinceMs) : this.#idleMs
    if (restMs < 1) {
      this.destroy(new GatewayError('timeout_body', `No byte of the body came within ${this.#idleMs} ms.`))
      return
    }
    this.#timer = setTimeout(() => this.#onTimer(), restMs)
  }
}
