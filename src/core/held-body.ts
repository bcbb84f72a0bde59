// A request body that is read before the request is forwarded, by whoever has to know it first. Whole, it is kept and can be
// sent as often as need be, whether or not its client is still there; what is too long to keep goes on from its first
// byte, as if nobody had looked.

import { Readable } from 'node:stream'
import type { RequestBody } from './context.ts'
import { GatewayError } from './errors.ts'

/** All of a body. */
export class HeldBody implements RequestBody {
  readonly declaredBytes: number | null
  readonly bytes: Buffer
  readonly mayReopen = true
  readonly #release: () => void

  /** release: called once at most, when the request needs it no more. */
  constructor(bytes: Buffer, declaredBytes: number | null, release: () => void = () => {}) {
    this.bytes = bytes
    this.declaredBytes = declaredBytes
    this.#release = once(release)
  }

  open(): Readable {
    const { bytes } = this
    return new Readable({
      read() {
        if (bytes.length > 0) this.push(bytes)
        this.push(null)
      },
    })
  }

  release(): void {
    this.#release()
  }
}

/** A body of which some has been read, and put back. */
class BegunBody implements RequestBody {
  readonly declaredBytes: number | null
  readonly #stream: Readable
  readonly #release: () => void

  constructor(stream: Readable, declaredBytes: number | null, release: () => void) {
    this.#stream = stream
    this.declaredBytes = declaredBytes
    this.#release = once(release)
  }

  open(): Readable {
    return this.#stream
  }

  release(): void {
    this.#release()
  }
}

export interface HoldLimits {
  /** Bytes of the largest body that is kept. */
  readonly maxHeldBytes: number
  /** Bytes of the largest body that the client may send. */
  readonly maxBodyBytes: number
}

/** Reads a body; the answer takes its place. Rejects with a GatewayError where a client-side limit is broken, or the
 *  client goes. release: called once, when what is held here is not needed any more. */
export async function holdBody(
  body: RequestBody,
  { maxHeldBytes, maxBodyBytes }: HoldLimits,
  release: () => void,
): Promise<RequestBody> {
  const stream = body.open(maxBodyBytes)
  try {
    const bytes = await collect(stream, maxHeldBytes)
    const { declaredBytes } = body
    return bytes === null ? new BegunBody(stream, declaredBytes, release) : new HeldBody(bytes, declaredBytes, release)
  } catch (error) {
    release()
    throw error
  }
}

/** All of a stream; null where it is longer, and the stream then stands at its beginning again. */
function collect(stream: Readable, maxBytes: number): Promise<Buffer | null> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let bytes = 0
    const stop = (): void => {
      stream.off('data', onData).off('end', onEnd).off('error', onError).off('close', onClose)
    }
    const onData = (chunk: Buffer): void => {
      chunks.push(chunk)
      bytes += chunk.length
      if (bytes <= maxBytes) return
      stop()
      stream.pause()
      stream.unshift(Buffer.concat(chunks, bytes))
      resolve(null)
    }
    const onEnd = (): void => {
      stop()
      resolve(Buffer.concat(chunks, bytes))
    }
    const onError = (error: Error): void => {
      stop()
      reject(error)
    }
    const onClose = (): void => onError(new GatewayError('client_gone', 'The client has gone.'))
    stream.on('data', onData).on('end', onEnd).on('error', onError).on('close', onClose)
  })
}

function once(act: () => void): () => void {
  let isDone = false
  return () => {
    if (isDone) return
    isDone = true
    act()
  }
}
