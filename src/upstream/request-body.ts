// A request body on its way out: as fast as the upstream takes it, and exactly as long as it was said to be, or in chunks.

import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'

/** Is told how far it is. */
export interface BodyListener {
  /** Some of it has gone out. */
  onSending(): void
  onSent(): void
  /** It cannot be sent to its end. */
  onUnsendable(cause: Error): void
}

export class BodySender {
  readonly #socket: Socket
  readonly #body: Readable
  readonly #bodyBytes: number | null
  readonly #listener: BodyListener
  #sentBytes = 0

  /** bodyBytes: how long it was said to be; null: it goes out in chunks. */
  constructor(socket: Socket, body: Readable, bodyBytes: number | null, listener: BodyListener) {
    this.#socket = socket
    this.#body = body
    this.#bodyBytes = bodyBytes
    this.#listener = listener
  }

  /** Sends the head, and with it what is there already. */
  start(head: string): void {
    const socket = this.#socket
    socket.cork()
    socket.write(head, 'latin1')
    // What the body has already comes in the next ticks.
    setImmediate(() => socket.uncork())
    socket.on('drain', this.#onDrain)
    this.#body.on('data', this.#onData).on('end', this.#onEnd).on('error', this.#onError).on('close', this.#onClose)
    // Who has looked at its beginning has left it paused.
    this.#body.resume()
  }

  /** Gives it up. */
  stop(): void {
    this.#detach()
    this.#body.destroy()
  }

  #detach(): void {
    this.#socket.off('drain', this.#onDrain)
    const body = this.#body
    body.off('data', this.#onData).off('end', this.#onEnd).off('error', this.#onError).off('close', this.#onClose)
  }

  readonly #onData = (chunk: Buffer): void => {
    if (chunk.length === 0) return
    this.#sentBytes += chunk.length
    const isChunked = this.#bodyBytes === null
    if (!isChunked && this.#sentBytes > this.#bodyBytes) return this.#fail('The body is longer than it was said to be.')
    const socket = this.#socket
    if (isChunked) {
      socket.cork()
      socket.write(`${chunk.length.toString(16)}\r\n`, 'latin1')
    }
    let hasRoom = socket.write(chunk)
    if (isChunked) {
      hasRoom = socket.write('\r\n', 'latin1')
      socket.uncork()
    }
    if (!hasRoom) this.#body.pause()
    this.#listener.onSending()
  }

  readonly #onDrain = (): void => {
    this.#body.resume()
  }

  readonly #onEnd = (): void => {
    if (this.#bodyBytes !== null && this.#sentBytes < this.#bodyBytes) {
      return this.#fail('The body is shorter than it was said to be.')
    }
    this.#detach()
    if (this.#bodyBytes === null) this.#socket.write('0\r\n\r\n', 'latin1')
    this.#listener.onSent()
  }

  readonly #onError = (cause: Error): void => {
    this.#detach()
    this.#listener.onUnsendable(cause)
  }

  readonly #onClose = (): void => this.#fail('The body was closed before its end.')

  #fail(why: string): void {
    this.#onError(new Error(why))
  }
}
