// Bodies of requests with a key, which are read and held before anything is sent: their bytes tell whether two requests are the
// same, and what has begun does not wait for a client. What is held counts as it comes, so that who only announces much
// takes no room from others; and one client gets no more than a part of it, but for a single body.

import type { RequestBody, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { HeldBody, holdBody } from '../core/held-body.ts'
import { CROWDED } from './refusals.ts'

const MAX_BYTES = 64 * 1024 ** 2
const MAX_BYTES_OF_ONE = 16 * 1024 ** 2

const NOTHING = Buffer.alloc(0)

/** A body that has come whole. */
export interface ReadBody {
  readonly bytes: Buffer
  /** It need not be held any more. Further calls do nothing. */
  readonly release: () => void
}

export class HeldBodies {
  #bytes = 0
  /** By client address. */
  readonly #ofOne = new Map<string, number>()

  get bytes(): number {
    return this.#bytes
  }

  /** Reads the body of a request, and puts in its place what can be sent. maxHeldBytes: of the largest. Rejects with a
   *  GatewayError where it is larger, where there is no room, or where the client breaks off. */
  async read(ctx: RequestContext, maxHeldBytes: number, maxBodyBytes: number): Promise<ReadBody> {
    const { body, clientAddress } = ctx
    if (body === null) return { bytes: NOTHING, release: () => {} }
    const { declaredBytes } = body
    if (declaredBytes !== null && declaredBytes > maxHeldBytes) throw tooLarge(maxHeldBytes)
    let own = 0
    const release = (): void => {
      this.#count(clientAddress, -own)
      own = 0
    }
    const counted: RequestBody = {
      declaredBytes,
      open: (maxBytes) => {
        const stream = body.open(maxBytes)
        return stream.on('data', ({ length }: Buffer) => {
          const others = (this.#ofOne.get(clientAddress) ?? 0) - own
          own += length
          this.#count(clientAddress, length)
          const isCrowded = this.#bytes > MAX_BYTES || (others > 0 && others + own > MAX_BYTES_OF_ONE)
          if (isCrowded) stream.destroy(CROWDED)
        })
      },
    }
    const held = await holdBody(counted, { maxHeldBytes, maxBodyBytes }, release)
    if (!(held instanceof HeldBody)) {
      release()
      throw tooLarge(maxHeldBytes)
    }
    ctx.body = held
    return { bytes: held.bytes, release }
  }

  #count(address: string, deltaBytes: number): void {
    this.#bytes += deltaBytes
    const left = (this.#ofOne.get(address) ?? 0) + deltaBytes
    if (left > 0) this.#ofOne.set(address, left)
    else this.#ofOne.delete(address)
  }
}

const tooLarge = (mostBytes: number): GatewayError =>
  new GatewayError('body_too_large', `With an Idempotency-Key, a body may have ${mostBytes} bytes here.`)
