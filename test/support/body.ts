// Bodies without sockets: an origin's side that keeps to the contract of BodyStream, and readers that note what they get.

import type { BodySink, BodyStream } from '../../src/core/context.ts'
import { GatewayError } from '../../src/core/errors.ts'

export const BROKEN = new GatewayError('upstream_reset', 'The upstream broke the connection off.')

/** A body that a test sends by hand. It refuses to send what its reader has no room for. */
export class HandBody implements BodyStream {
  /** True while the reader has asked it to wait. */
  isWaiting = false
  isCancelled = false
  /** True when it has ended or failed. */
  isOver = false
  #sink: BodySink | null = null
  #failure: GatewayError | null = null

  pipeTo(sink: BodySink): void {
    if (this.#sink !== null) throw new Error('piped twice')
    this.#sink = sink
    if (this.#failure !== null) sink.fail(this.#failure)
  }

  resume(): void {
    if (!this.isWaiting) throw new Error('resumed without having been asked to wait')
    this.isWaiting = false
  }

  cancel(): void {
    this.isCancelled = true
    this.#sink = null
  }

  send(chunk: Buffer | string): void {
    if (this.isWaiting) throw new Error('sent to a reader without room')
    this.isWaiting = this.#sink?.write(Buffer.from(chunk)) === false
  }

  end(): void {
    if (this.isOver) throw new Error('ended twice')
    this.isOver = true
    this.#sink?.end()
  }

  fail(error: GatewayError = BROKEN): void {
    if (this.isOver) return
    this.isOver = true
    this.#failure = error
    this.#sink?.fail(error)
  }
}

/** A reader of a body. roomFor: chunks that it takes before it asks its body to wait. */
export class NotingSink implements BodySink {
  readonly chunks: Buffer[] = []
  outcome: 'open' | 'whole' | 'broken' = 'open'
  error: GatewayError | null = null
  #room: number
  readonly #roomFor: number

  constructor(roomFor = Infinity) {
    this.#roomFor = roomFor
    this.#room = roomFor
  }

  get bytes(): number {
    return this.chunks.reduce((sum, chunk) => sum + chunk.length, 0)
  }

  get text(): string {
    return Buffer.concat(this.chunks).toString()
  }

  get isFull(): boolean {
    return this.#room <= 0
  }

  write(chunk: Buffer): boolean {
    if (this.outcome !== 'open') throw new Error('a write after the end')
    if (this.#room <= 0) throw new Error('a write without room')
    this.chunks.push(chunk)
    return --this.#room > 0
  }

  /** There is room again; tell the body. */
  drain(): void {
    this.#room = this.#roomFor
  }

  end(): void {
    if (this.outcome !== 'open') throw new Error('ended twice')
    this.outcome = 'whole'
  }

  fail(error: GatewayError): void {
    if (this.outcome !== 'open') throw new Error('ended twice')
    this.outcome = 'broken'
    this.error = error
  }
}
