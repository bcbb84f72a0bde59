// The answer to the first request of a key on its way to that client, and kept for those that repeat it. The client gets it
// as it comes. While it is kept, the upstream is read as fast as it sends: what is held is bounded, and a slow client
// must not make an answer time out that others will ask for. Once it is too large to be kept, its client sets the pace.
//
// Where the client goes, it is read to its end all the same: the upstream is not to see a request broken off that it is
// carrying out, and its timers bound it.

import type { BodySink, BodyStream } from '../core/context.ts'
import type { GatewayError } from '../core/errors.ts'

export interface RecordingOwner {
  /** Whether so many bytes more may be held, all in all that many. Not asked again after a no; what was held is free then. */
  mayHold(moreBytes: number, bytes: number): boolean
  /** It has ended. body: in a buffer of its own; null: it was not kept. Called once, or broken is. */
  whole(body: Buffer | null): void
  broken(error: GatewayError): void
}

export class Recording implements BodySink, BodyStream {
  readonly #source: BodyStream
  readonly #owner: RecordingOwner
  #chunks: Buffer[] = []
  /** Of the chunks, those that the client has. */
  #passed = 0
  #bytes = 0
  #isKept = true
  #end: 'whole' | GatewayError | null = null
  #client: BodySink | 'expected' | 'gone' = 'expected'
  #hasRoom = true
  #isAdvancing = false
  /** The source has been told to wait. */
  #isWaiting = false

  constructor(source: BodyStream, owner: RecordingOwner) {
    this.#source = source
    this.#owner = owner
  }

  start(): void {
    this.#source.pipeTo(this)
  }

  // ---- the upstream's side ----

  write(chunk: Buffer): boolean {
    this.#bytes += chunk.length
    this.#chunks.push(chunk)
    if (this.#isKept && !this.#owner.mayHold(chunk.length, this.#bytes)) this.#isKept = false
    this.#advance()
    this.#isWaiting = !this.#mayGoOn()
    return !this.#isWaiting
  }

  end(): void {
    this.#end = 'whole'
    this.#owner.whole(this.#isKept ? exactCopy(this.#chunks, this.#bytes) : null)
    this.#advance()
  }

  fail(error: GatewayError): void {
    this.#end = error
    this.#owner.broken(error)
    this.#advance()
  }

  // ---- the client's side ----

  pipeTo(sink: BodySink): void {
    this.#client = sink
    this.#moved()
  }

  resume(): void {
    this.#hasRoom = true
    this.#moved()
  }

  cancel(): void {
    this.#client = 'gone'
    this.#moved()
  }

  // ---- inside ----

  #mayGoOn(): boolean {
    return this.#isKept || this.#passed === this.#chunks.length
  }

  #moved(): void {
    this.#advance()
    if (!this.#isWaiting || !this.#mayGoOn()) return
    this.#isWaiting = false
    this.#source.resume()
  }

  /** Gives the client what has come, as far as it has room, and lets go of what nobody needs. */
  #advance(): void {
    // A sink that asks for more while it is being given some is served by the loop that is already running.
    if (this.#isAdvancing) return
    this.#isAdvancing = true
    while (typeof this.#client === 'object' && this.#hasRoom && this.#passed < this.#chunks.length) {
      const chunk = this.#chunks[this.#passed++] as Buffer
      // Before the call, because a sink may ask for more from inside it and answer false all the same.
      this.#hasRoom = false
      if (this.#client.write(chunk)) this.#hasRoom = true
    }
    this.#isAdvancing = false
    if (this.#client === 'gone') this.#passed = this.#chunks.length
    if (!this.#isKept || (this.#end !== null && this.#client === 'gone')) {
      this.#chunks.splice(0, this.#passed)
      this.#passed = 0
    }
    const client = this.#client
    if (typeof client !== 'object' || this.#end === null) return
    if (this.#end !== 'whole') {
      this.#client = 'gone'
      client.fail(this.#end)
    } else if (this.#passed === this.#chunks.length) {
      this.#client = 'gone'
      client.end()
    }
  }
}

/** One buffer of just these bytes: allocUnsafe would cut small ones from a shared slab and keep that alive. */
function exactCopy(chunks: readonly Buffer[], bytes: number): Buffer {
  const copy = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (const chunk of chunks) at += chunk.copy(copy, at)
  return copy
}
