// The fast path: what is beyond doubt and stored in memory is answered here, before node:http has seen a byte of it, in one
// write. It is a reader (request-head.ts), the plan's answerNow and a writer (respond.ts), no more; everything else, and
// everything in doubt, is left untouched to the full lane. A client can never tell the lanes apart:
// test/end-to-end/lanes.test.ts sends the same bytes through both and compares what comes back, what is logged and what
// is counted.

import type { Socket } from 'node:net'
import { type Reply, RequestContext } from '../core/context.ts'
import { asGatewayError } from '../core/errors.ts'
import type { Door } from './door.ts'
import type { Peer } from './full-lane.ts'
import type { ListenOptions } from './options.ts'
import { type RequestFields, mayBeHead, readRequestHead } from './request-head.ts'
import { nextRequestId } from './request-id.ts'
import { discard, refusal, respondAtOnce } from './respond.ts'

/** Characters of a head that are kept for comparison with the next one. */
const MAX_KNOWN_CHARS = 4096

/** What the fast path needs of the client's connection. */
export interface FastPeer extends Peer {
  /** A request is being answered; nothing else may be read until onFastEnd. */
  onFastBegin(bytes: number): void
  /** The answer has left this process, or never will. mayReuse: the connection may stay. */
  onFastEnd(mayReuse: boolean): void
}

/** One connection's. */
export class FastPath {
  readonly #socket: Socket
  readonly #options: ListenOptions
  readonly #door: Door
  readonly #peer: FastPeer
  #known: RequestFields | null = null

  constructor(socket: Socket, options: ListenOptions, door: Door, peer: FastPeer) {
    this.#socket = socket
    this.#options = options
    this.#door = door
    this.#peer = peer
  }

  /** Answers the request that `length` bytes are, all of them; false where it is for the full lane, and nothing has
   *  happened. */
  take(buffer: Buffer, length: number): boolean {
    if (!mayBeHead(buffer, length, this.#options.headBytes)) return false
    const head = readRequestHead(buffer.toString('latin1', 0, length), this.#options, this.#known)
    if (head === null) return false
    const { method, path, query, fields } = head
    if (fields.text.length <= MAX_KNOWN_CHARS) this.#known = fields
    const ctx = new RequestContext(
      {
        method,
        scheme: 'http',
        host: fields.host,
        path,
        query,
        version: '1.1',
        headers: fields.headers,
        body: null,
        peerAddress: this.#peer.address,
        receivedAtMs: performance.now(),
      },
      nextRequestId(),
    )
    const answered = this.#door.answerNow(ctx)
    if (answered === null) return false
    this.#peer.onFastBegin(length)
    if (answered instanceof Promise) void answered.then((reply) => this.#send(ctx, reply, fields.wantsClose))
    else this.#send(ctx, answered, fields.wantsClose)
    return true
  }

  #send(ctx: RequestContext, reply: Reply, wantsClose: boolean): void {
    const socket = this.#socket
    // It may have gone while its limits were asked for.
    if (socket.destroyed) return this.#end(ctx, reply, false, true)
    let close = reply.close === true || !this.#peer.mayReuse()
    const keepAliveMs = wantsClose ? null : this.#options.keepAlive
    try {
      respondAtOnce(socket, ctx, reply, close, keepAliveMs)
    } catch (cause) {
      // A fault of ours. The client must not wait for an answer that cannot be sent.
      close = true
      ctx.fields.length = 0
      respondAtOnce(socket, ctx, refusal(ctx, asGatewayError(cause)), close, keepAliveMs)
    }
    const mayReuse = !close && !wantsClose
    if (socket.writableLength === 0) return this.#end(ctx, reply, mayReuse, socket.destroyed)
    // Called when all before it has been written, or cannot be.
    socket.write('', (error) => this.#end(ctx, reply, mayReuse, socket.destroyed || Boolean(error)))
  }

  #end(ctx: RequestContext, reply: Reply, mayReuse: boolean, isGone: boolean): void {
    if (isGone && ctx.error === null) {
      ctx.abort()
      discard(reply)
    }
    ctx.durationMs = performance.now() - ctx.receivedAtMs
    this.#door.record(ctx)
    this.#peer.onFastEnd(mayReuse && !isGone)
  }
}
