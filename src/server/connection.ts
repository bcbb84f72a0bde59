// One client's connection: its requests take turns, what cannot be read is refused once and after the answers before
// it, and the end never destroys an answer on its way. node:http hands over every request that it finds in what it has
// read, hundreds at a time, so the turns are kept here (RFC 9112 §9.3.2): while one is answered the others wait unread,
// and nothing behind an answer that closes is ever looked at (§9.6).
//
// Promise: a socket that is here is destroyed in bounded time after its last answer, whatever the client does.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type Reply, RequestContext, type Upgraded } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { getHeader } from '../http/headers.ts'
import { MAX_UNWANTED_BYTES } from './client-body.ts'
import type { Door } from './door.ts'
import { FastPath, type FastPeer } from './fast-path.ts'
import type { Begun, Exchange, FullLane } from './full-lane.ts'
import { LaneInput } from './lane-input.ts'
import type { ListenOptions } from './options.ts'
import { explainParseError, isHeadTimeout, isTruncation } from './parse-error.ts'
import { nextRequestId } from './request-id.ts'
import { refuseSocket, respondUpgraded } from './respond.ts'
import { readShared } from './shared-read.ts'
import { Tunnel } from './tunnel.ts'

/** Requests that may wait behind the one that is answered. What node:http has read before it can be stopped may hold
 *  thousands; nobody who means well sends them. */
const MAX_WAITING = 100

/** Bytes that are kept of a client that does not wait for the answer to its handshake. */
const MAX_EARLY_BYTES = 16 * 1024

/** How long a client may take to end its side after ours, and to send a body that nobody reads. */
const MAX_LINGER_MS = 1000

/** How much longer than it says the gateway keeps an idle connection: a request that was sent in time is on its way. */
export const KEEP_ALIVE_GRACE_MS = 1000

/** How long a kept connection is left open while shutting down: its client may just be sending. */
const RETIRE_AFTER_MS = 200

/** When a client that has ended its side is probed, each time from the one before, while its answer is not complete. Two
 *  come soon, so that one that has gone is found out within 100 ms; those that follow are for clients far away, whose reset
 *  takes longer. One that waits sees five interim answers at most, and none where its answer is there by then. */
const PROBES_AFTER_MS = [25, 25, 70, 230, 1000]

interface Turn {
  readonly message: IncomingMessage
  readonly response: ServerResponse
}

export interface ConnectionSetup {
  /** Paused; it is the connection's from now on. */
  readonly accepted: Socket
  /** IPv4-mapped IPv6 already unmapped. */
  readonly address: string
  readonly options: ListenOptions
  readonly door: Door
  readonly lane: FullLane
  readonly lanes: Lanes
  /** Gives a socket to node:http; answers what takes its bytes. */
  readonly engage: (socket: Socket) => (chunk: Buffer) => void
  readonly tally: Tally
}

/** Of all connections. */
export interface Tally {
  /** Requests that the fast path has answered. */
  fastAnswers: number
  /** Connections that are WebSockets now. */
  websockets: number
}

/** 'full': without the fast path, which nobody can tell but by the time it takes. */
export type Lanes = 'both' | 'full'

export class ClientConnection implements FastPeer {
  readonly address: string
  readonly socket: Socket
  readonly #options: ListenOptions
  readonly #door: Door
  readonly #lane: FullLane
  /** null: all of them take the full lane. */
  readonly #fast: FastPath | null
  readonly #tally: Tally
  readonly #engage: (socket: Socket) => (chunk: Buffer) => void
  /** node:http's own listener, which takes what the fast path does not answer; null before there was any. */
  #parse: ((chunk: Buffer) => void) | null = null
  readonly #input = new LaneInput()
  /** True while the fast path answers. */
  #isFastBusy = false
  /** True from a fast answer on until node:http, which has timeouts of its own, is given something. */
  #isFastIdle = false
  /** What the fast path has begun with the request that node:http is about to find. */
  #begun: Begun | null = null
  #current: Exchange | null = null
  /** From a handshake on, until it is answered: what has come behind it. */
  #early: Buffer[] | null = null
  /** From a 101 on. */
  #tunnel: Tunnel | null = null
  readonly #waiting: Turn[] = []
  /** Why what follows the waiting requests cannot be read. */
  #refusal: GatewayError | null = null
  #requests = 0
  /** Bytes received when the last answer ended: more than these mean that a request has begun. */
  #bytesAtRest = 0
  /** True from the moment on that no further request is looked at. */
  #ending = false
  /** Bytes that are still taken after that. */
  #unwantedBytes = MAX_UNWANTED_BYTES
  readonly #onIdleTimeout = (): void => this.onTimeout()

  constructor(setup: ConnectionSetup) {
    const { accepted, address, options, door, lane, lanes, engage, tally } = setup
    const socket = readShared(accepted, (buffer, length) => this.#onRead(buffer, length))
    this.#tally = tally
    this.#engage = engage
    this.address = address
    this.socket = socket
    this.#options = options
    this.#door = door
    this.#lane = lane
    this.#fast = lanes === 'full' ? null : new FastPath(socket, options, door, this)
    // A socket without a listener would end the process; what the error means, 'close' says as well.
    socket.on('error', () => {})
    socket.once('end', () => this.#onEnd())
    socket.setTimeout(options.headTimeout)
    socket.on('timeout', this.#onIdleTimeout)
    socket.once('close', () => this.#onClose())
    // node:http ends a connection with this after the last answer, at once and with a reset where bytes are unread.
    socket.destroySoon = () => this.hangUp()
  }

  mayReuse(): boolean {
    const { keepAlive, requestsPerConnection } = this.#options
    if (keepAlive === 0 || this.#requests >= requestsPerConnection || !this.#door.mayReuseConnections()) return false
    return this.#waiting.length > 0 || !(this.socket.readableEnded || this.#input.hasLost)
  }

  /** No request is being answered. */
  get #isIdle(): boolean {
    return this.#current === null && !this.#isFastBusy
  }

  /** In doubt it is node:http's. */
  #onRead(buffer: Buffer, length: number): void {
    if (this.#ending) return this.#discard(length)
    if (this.#tunnel !== null) return this.#tunnel.onData(Buffer.from(buffer.subarray(0, length)))
    if (this.#early !== null) return this.#keepEarly(this.#early, Buffer.from(buffer.subarray(0, length)))
    // Behind what cannot be read nothing is looked at.
    if (this.#refusal !== null) return
    // What comes behind a request that is still to be answered takes its turn in the full lane.
    if (this.#isFastBusy && this.#fast?.leave() === true) return this.#onRead(buffer, length)
    if (this.#current === null && this.#input.isEmpty && this.#fast?.take(buffer, length) === true) return
    this.#giveToParser(Buffer.from(buffer.subarray(0, length)))
  }

  #giveToParser(chunk: Buffer): void {
    this.#parse ??= this.#beginParsing()
    if (this.#isFastIdle) {
      this.#isFastIdle = false
      this.socket.setTimeout(this.#options.writeStall)
    }
    this.#input.note(chunk)
    this.#parse(chunk)
  }

  #beginParsing(): (chunk: Buffer) => void {
    this.socket.off('timeout', this.#onIdleTimeout)
    return this.#engage(this.socket)
  }

  #discard(length: number): void {
    this.#unwantedBytes -= length
    if (this.#unwantedBytes < 0) this.socket.pause()
  }

  #keepEarly(early: Buffer[], chunk: Buffer): void {
    early.push(chunk)
    if (early.reduce((sum, { length }) => sum + length, 0) > MAX_EARLY_BYTES) this.socket.pause()
  }

  #onEnd(): void {
    // Whose client may have gone is probed by the full lane.
    if (this.#fast?.leave() === true) return
    if (this.#tunnel !== null) this.#tunnel.onEnd()
    // Half a WebSocket is none.
    else if (this.#early !== null) this.socket.destroy()
    else if (this.#parse === null) this.hangUp()
    else this.#probe(0, this.socket.bytesWritten)
  }

  onFastBegin(bytes: number, isFromMemory: boolean): void {
    if (isFromMemory) this.#tally.fastAnswers++
    this.#requests++
    this.#bytesAtRest += bytes
    this.#isFastBusy = true
  }

  onFastSending(): void {
    this.#isFastIdle = false
    this.socket.setTimeout(this.#options.writeStall)
    this.socket.pause()
  }

  onFastLeft(head: Buffer, begun: Begun): boolean {
    this.#isFastBusy = false
    if (this.socket.destroyed) {
      this.#ending = true
      return false
    }
    this.#requests--
    this.#bytesAtRest -= head.length
    this.#begun = begun
    this.#giveToParser(head)
    const isTaken = this.#begun === null
    this.#begun = null
    return isTaken
  }

  onFastEnd(mayReuse: boolean): void {
    this.#isFastBusy = false
    const socket = this.socket
    if (socket.destroyed) {
      // What came behind it is as little looked at as what waits in the full lane.
      this.#ending = true
      return
    }
    if (!mayReuse) return this.hangUp()
    if (!this.#isFastIdle) {
      this.#isFastIdle = true
      socket.setTimeout(this.#options.keepAlive + KEEP_ALIVE_GRACE_MS)
    }
    if (socket.isPaused()) socket.resume()
    if (!this.#door.mayReuseConnections()) this.retire()
  }

  /** The head of a request has come. */
  take(turn: Turn): void {
    if (this.#ending) return
    this.#input.noteMessage(turn.message.rawHeaders)
    if (this.#current === null) return this.#begin(turn)
    if (this.#waiting.length === MAX_WAITING) return this.#cutOff()
    this.#waiting.push(turn)
    this.socket.pause()
  }

  #begin({ message, response }: Turn): void {
    this.#requests++
    const begun = this.#begun
    this.#begun = null
    const exchange =
      begun === null ? this.#lane.take(message, response, this) : this.#lane.adopt(message, response, this, begun)
    this.#current = exchange
    if (exchange.isUpgrading) this.#early = []
    // What cannot be read is its own body, which came while it waited.
    if (this.#refusal !== null && !message.complete) exchange.breakBody(this.#refusal)
    // After the lane's own listener: what comes next is recorded behind this request.
    response.once('close', () => this.#onAnswered(exchange))
    if (this.socket.readableEnded) this.#probe(0, this.socket.bytesWritten)
  }

  isAlone(): boolean {
    return !this.#input.hasLost && this.#waiting.length === 0
  }

  upgrade(ctx: RequestContext, reply: Reply, upgraded: Upgraded): void {
    respondUpgraded(this.socket, ctx, reply)
    const tunnel = new Tunnel(this.socket, ctx, upgraded, () => this.hangUp())
    this.#tunnel = tunnel
    this.#tally.websockets++
    this.socket.once('close', () => this.#tally.websockets--)
    const early = this.#early ?? []
    this.#early = null
    if (early.length > 0) this.socket.resume()
    for (const chunk of early) tunnel.onData(chunk)
    tunnel.start()
    if (!this.#door.mayReuseConnections()) tunnel.goAway()
  }

  #onAnswered(exchange: Exchange): void {
    const { message } = exchange
    this.#current = null
    this.#early = null
    this.#bytesAtRest = this.socket.bytesRead
    // Whoever still reads the body reads for nobody.
    if (!message.complete) exchange.breakBody(new GatewayError('client_gone', 'The request is answered already.'))
    if (this.#ending || this.socket.destroyed) return
    if (!message.complete) return this.#awaitRest(message)
    const next = this.#waiting.shift()
    if (next === undefined) return this.#rest(message)
    if (this.#waiting.length === 0 && this.#refusal === null) this.socket.resume()
    this.#begin(next)
  }

  /** Nothing is left to answer. last: the latest message. */
  #rest(last: IncomingMessage): void {
    const length = getHeader(last.rawHeaders, 'content-length')
    this.#input.settle(length === null ? null : Number(length))
    if (this.#refusal !== null) this.#refuse(this.#refusal)
    else if (!this.#door.mayReuseConnections()) this.retire()
  }

  /** The answer has said that the connection stays, so a body that nobody read has to go first. */
  #awaitRest(message: IncomingMessage): void {
    const timer = setTimeout(() => this.hangUp(), MAX_LINGER_MS)
    message.once('close', () => {
      clearTimeout(timer)
      if (this.#current !== null) return
      this.#bytesAtRest = this.socket.bytesRead
      this.#rest(message)
    })
    message.resume()
  }

  /** What has come cannot be read, or has not come in time. */
  onParseError(error: Error): void {
    if (this.#ending || this.socket.destroyed || this.#tunnel !== null || this.#early !== null) return
    // Node does not see what the fast path answers, and counts the time for a head from the last that it has seen.
    if (isHeadTimeout(error) && this.#input.isEmpty && this.#requests > 0) return
    const current = this.#current
    if (current !== null && !current.message.complete) {
      // A client that ends its side in the middle of a body has given it up.
      if (isTruncation(error)) this.socket.destroy()
      else current.breakBody(explainParseError(error, this.#options))
      return
    }
    this.#refusal ??= explainParseError(error, this.#options)
    if (current !== null) this.socket.pause()
    else if (isTruncation(error) || this.socket.bytesRead === this.#bytesAtRest) this.socket.destroy()
    else this.#refuse(this.#refusal)
  }

  /** CONNECT. node:http has let go of the socket by now, so an answer that is on its way could not be finished. */
  onConnect(message: IncomingMessage): void {
    if (this.#current !== null) return this.#cutOff()
    const error = new GatewayError('method_not_allowed', 'CONNECT is not for a gateway.')
    this.#refuse(error, 'CONNECT', (message.url ?? '').slice(0, this.#options.target))
  }

  /** Nothing has moved for a while, or the time between two requests is over. */
  onTimeout(): void {
    if (this.#isIdle) {
      // Before the first request that node:http reads, it bounds the time for a head.
      if (this.#parse === null || this.#requests > 0) this.socket.destroy()
    } else if (this.socket.writableLength > 0) {
      // A client that takes nothing of what waits for it. One that waits for us is not idle.
      this.#cutOff()
    }
  }

  /** Shutting down: ends the connection if nothing comes on it for a moment. A request that was on its way is answered,
   *  and told that it was the last. */
  retire(): void {
    if (this.#tunnel !== null) return this.#tunnel.goAway()
    setTimeout(() => {
      // After a turn of the loop, so that what has come meanwhile has been read.
      setImmediate(() => {
        if (this.#isIdle && this.socket.bytesRead === this.#bytesAtRest) this.hangUp()
      })
    }, RETIRE_AFTER_MS)
  }

  /** Ends our side, then waits for the client to end its own: a close with unread bytes is a reset, which can destroy
   *  an answer on its way (RFC 9112 §9.6). */
  hangUp(): void {
    if (this.#ending) return
    this.#ending = true
    const socket = this.socket
    if (socket.destroyed) return
    socket.end()
    const timer = setTimeout(() => socket.destroy(), MAX_LINGER_MS)
    socket.once('close', () => clearTimeout(timer))
    socket.resume()
  }

  #cutOff(): void {
    this.#ending = true
    this.socket.resetAndDestroy()
  }

  /** A client that ends its side may wait for its answer or be gone, which looks the same until something is sent: what
   *  reaches one that has gone comes back as a reset, and the next write meets that. Before the head an interim answer
   *  is what can be sent; after it the answer itself is, and one that has nothing to send for all that time is given up.
   *  sentBytes: how much had been sent when the client ended its side, or this answer began. */
  #probe(step: number, sentBytes: number): void {
    const response = this.#current?.response
    const delayMs = PROBES_AFTER_MS[step]
    if (response === undefined || delayMs === undefined) return
    setTimeout(() => {
      const socket = this.socket
      if (this.#current?.response !== response || socket.destroyed) return
      if (!response.headersSent) {
        // RFC 9110 §15.2: HTTP/1.0 knows no interim answers. Any other client has to skip them.
        if (response.req.httpVersion !== '1.0') response.writeContinue()
      } else if (socket.bytesWritten > sentBytes) {
        socket.write('')
      } else if (socket.writableLength === 0 && step === PROBES_AFTER_MS.length - 1) {
        return this.#cutOff()
      }
      this.#probe(step + 1, sentBytes)
    }, delayMs)
  }

  #onClose(): void {
    this.#waiting.length = 0
    this.#fast?.onGone()
    if (this.#ending || !this.#isIdle || this.socket.bytesRead === this.#bytesAtRest) return
    const ctx = this.#unreadRequest('-', '-')
    ctx.error = new GatewayError('client_gone', 'The client went before its request was whole.')
    ctx.abort()
    this.#door.record(ctx)
  }

  #refuse(error: GatewayError, method = '-', path = '-'): void {
    const ctx = this.#unreadRequest(method, path)
    refuseSocket(this.socket, ctx, error)
    this.hangUp()
    this.#door.record(ctx)
  }

  /** Stands for a request that never came to be one. */
  #unreadRequest(method: string, path: string): RequestContext {
    return new RequestContext(
      {
        method,
        scheme: 'http',
        host: '',
        path,
        query: '',
        version: '1.1',
        headers: [],
        body: null,
        peerAddress: this.address,
        receivedAtMs: performance.now(),
      },
      nextRequestId(),
    )
  }
}
