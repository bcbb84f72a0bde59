// A body on its way to its reader, which somebody listens to: each piece is heard before it is passed on, and what was
// heard may say that the end is none.

import type { BodySink, BodyStream } from '../core/context.ts'
import type { GatewayError } from '../core/errors.ts'

export interface BodyListener {
  hear(chunk: Buffer): void
  /** At its end: why that must not look like one; null where it may. */
  objection(): GatewayError | null
}

export class OverheardBody implements BodyStream, BodySink {
  readonly #source: BodyStream
  readonly #listener: BodyListener
  #sink: BodySink | null = null

  constructor(source: BodyStream, listener: BodyListener) {
    this.#source = source
    this.#listener = listener
  }

  pipeTo(sink: BodySink): void {
    this.#sink = sink
    this.#source.pipeTo(this)
  }

  resume(): void {
    this.#source.resume()
  }

  cancel(): void {
    this.#sink = null
    this.#source.cancel()
  }

  write(chunk: Buffer): boolean {
    this.#listener.hear(chunk)
    return this.#sink?.write(chunk) ?? true
  }

  end(): void {
    const error = this.#listener.objection()
    if (error === null) this.#sink?.end()
    else this.#sink?.fail(error)
  }

  fail(error: GatewayError): void {
    this.#sink?.fail(error)
  }
}
