// The fast path: a GET or HEAD that is beyond doubt is read and answered here, before node:http has seen a byte of it, which
// is more than half of what an answer costs. It is a reader (request-head.ts), the plan's two doors and a writer
// (respond.ts), no more. Everything else, and everything in doubt, is left untouched to the full lane; and so is a request
// that still waits for its answer when anything else happens on its connection (more bytes, the end of the client's side,
// an interim answer), or when that answer does not come whole: node:http then gets its bytes after all, and the full lane
// goes on with what has been begun. A client can never tell the lanes apart: test/end-to-end/lanes.test.ts sends the same
// bytes through both and compares what comes back, what is logged and what is counted.

import type { Socket } from 'node:net'
import { type HeaderList, type Reply, RequestContext } from '../core/context.ts'
import { asGatewayError } from '../core/errors.ts'
import { isFieldValue } from '../http/headers.ts'
import type { Door } from './door.ts'
import type { Begun, Peer } from './full-lane.ts'
import type { ListenOptions } from './options.ts'
import { type RequestFields, type RequestHead, mayBeHead, readRequestHead } from './request-head.ts'
import { nextRequestId } from './request-id.ts'
import { discard, refusal, respondAtOnce } from './respond.ts'

/** Of a head, what is kept for comparison with the next one. */
const MAX_KNOWN_BYTES = 4096

/** What the fast path needs of the client's connection. */
export interface FastPeer extends Peer {
  /** A request is being answered. isFromMemory: by what is at hand. */
  onFastBegin(bytes: number, isFromMemory: boolean): void
  /** An answer is on its way that does not leave this process at once; nothing else may be read until onFastEnd. */
  onFastSending(): void
  /** The answer has left this process, or never will. mayReuse: the connection may stay. */
  onFastEnd(mayReuse: boolean): void
  /** The request that has begun is for the full lane. False where that has not taken it. */
  onFastLeft(head: Buffer, begun: Begun): boolean
}

/** A request whose answer has not come yet. */
interface Waiting extends Begun {
  readonly head: RequestHead
  readonly answer: Promise<Reply>
}

/** One connection's. */
export class FastPath {
  readonly #socket: Socket
  readonly #options: ListenOptions
  readonly #door: Door
  readonly #peer: FastPeer
  #known: RequestFields | null = null
  #waiting: Waiting | null = null

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
    const head = readRequestHead(buffer, length, this.#options, this.#known)
    if (head === null) return false
    const { method, path, query, fields } = head
    if (fields.bytes.length <= MAX_KNOWN_BYTES) this.#known = fields
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
    const { wantsClose } = fields
    const found = this.#door.answerNow(ctx)
    this.#peer.onFastBegin(length, found !== null)
    const answer = found ?? this.#answer(ctx)
    if (answer instanceof Promise) this.#await({ ctx, head, answer })
    else if (found === null) this.#take(ctx, head, answer)
    else this.#send(ctx, answer, wantsClose)
    return true
  }

  /** Gives a request that waits for its answer to the full lane. False: none does. */
  leave(): boolean {
    const waiting = this.#waiting
    if (waiting === null) return false
    this.#waiting = null
    this.#giveAway(waiting, waiting.head)
    return true
  }

  /** The client has gone. */
  onGone(): void {
    const waiting = this.#waiting
    if (waiting === null) return
    this.#waiting = null
    this.#drop(waiting)
    this.#peer.onFastEnd(false)
  }

  #answer(ctx: RequestContext): Reply | Promise<Reply> {
    // The full lane relays interim answers: with the request it has put its own way in the place of this one.
    const relay = (status: number, headers: HeaderList): void => {
      if (this.#waiting?.ctx === ctx) this.leave()
      if (ctx.relayInterim !== relay) ctx.relayInterim?.(status, headers)
    }
    ctx.relayInterim = relay
    return this.#door.answer(ctx)
  }

  #await(waiting: Waiting): void {
    const { ctx, head, answer } = waiting
    this.#waiting = waiting
    const take = (reply: Reply): void => {
      if (this.#waiting !== waiting) return
      this.#waiting = null
      this.#take(ctx, head, reply)
    }
    answer.then(take, (cause: unknown) => take({ ...refusal(ctx, asGatewayError(cause)), close: true }))
  }

  #take(ctx: RequestContext, head: RequestHead, reply: Reply): void {
    if (isWhole(ctx, reply)) this.#send(ctx, reply, head.fields.wantsClose)
    else this.#giveAway({ ctx, answer: reply }, head)
  }

  #giveAway(begun: Begun, { line, fields }: RequestHead): void {
    const bytes = Buffer.concat([Buffer.from(`${line}\r\n`, 'latin1'), fields.bytes])
    if (!this.#peer.onFastLeft(bytes, begun)) this.#drop(begun)
  }

  /** Nobody takes the answer. */
  #drop({ ctx, answer }: Begun): void {
    if (ctx.error === null) ctx.abort()
    ctx.durationMs = performance.now() - ctx.receivedAtMs
    this.#door.record(ctx)
    if (answer instanceof Promise) void answer.then(discard)
    else discard(answer)
  }

  #send(ctx: RequestContext, reply: Reply, wantsClose: boolean): void {
    const socket = this.#socket
    if (socket.destroyed) return this.#end(ctx, reply, false, true)
    let close = reply.close === true || !this.#peer.mayReuse()
    const keepAliveMs = wantsClose ? null : this.#options.keepAlive
    try {
      respondAtOnce(socket, ctx, reply, close, keepAliveMs)
    } catch (cause) {
      // A fault of ours. The client must not wait for an answer that cannot be sent.
      close = true
      ctx.unsay()
      respondAtOnce(socket, ctx, refusal(ctx, asGatewayError(cause)), close, keepAliveMs)
    }
    const mayReuse = !close && !wantsClose
    if (socket.writableLength === 0) return this.#end(ctx, reply, mayReuse, socket.destroyed)
    this.#peer.onFastSending()
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

/** True where it is beyond doubt: it can go out in one piece, framed by its length or by having no body (RFC 9112 §6.3). */
function isWhole({ method, fields }: RequestContext, { status, body }: Reply): boolean {
  if (status < 200 || status > 999) return false
  if (body === null ? method !== 'HEAD' && status !== 204 && status !== 304 : !Buffer.isBuffer(body)) return false
  for (let i = 1; i < fields.length; i += 2) if (!isFieldValue(fields[i] as string)) return false
  return true
}
