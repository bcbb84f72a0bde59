// A client's connection after a 101: bytes go both ways as they come, each way as fast as it is taken in, until either side
// ends. Both then end: a WebSocket is nothing without its other half, and a client that sees an end without a Close frame
// knows that it was cut off (RFC 6455 §7.1.5).
//
// When the gateway shuts down, its client is told so in a Close frame, between two frames of the backend. Its own Close
// then goes to the backend, which ends the connection as it always does; where either does not, patience does.
//
// A client that is held back, because its backend takes nothing, is not read, and so its end is not seen either. What is
// sent to one that has gone comes back as a reset, so it is sent a Ping now and then.

import type { Socket } from 'node:net'
import type { BodySink, RequestContext, Upgraded } from '../core/context.ts'
import type { GatewayError } from '../core/errors.ts'
import { FrameBorders, GOING_AWAY, PING } from '../http/websocket.ts'

/** How long either side may take to end, once the other has or has been asked to. */
const MAX_CLOSING_MS = 2000
/** Between two Pings to a client that is not read. */
const PING_INTERVAL_MS = 5000

export class Tunnel implements BodySink {
  readonly #socket: Socket
  readonly #ctx: RequestContext
  readonly #upgraded: Upgraded
  readonly #hangUp: () => void
  /** Of what the upstream sends. */
  readonly #borders = new FrameBorders()
  #isGoingAway = false
  /** A Close frame has been sent to the client, so nothing else may be. */
  #hasSaidClose = false
  #isOver = false
  #timer: NodeJS.Timeout | null = null
  /** While the client is held back. */
  #pings: NodeJS.Timeout | null = null

  /** socket: the head of the 101 is on its way. hangUp: ends the connection once all is written. */
  constructor(socket: Socket, ctx: RequestContext, upgraded: Upgraded, hangUp: () => void) {
    this.#socket = socket
    this.#ctx = ctx
    this.#upgraded = upgraded
    this.#hangUp = hangUp
    upgraded.onSpace = () => this.#release()
    socket.on('drain', () => upgraded.resume())
    socket.once('close', () => {
      if (this.#timer !== null) clearTimeout(this.#timer)
      if (this.#pings !== null) clearTimeout(this.#pings)
      upgraded.cancel()
    })
  }

  /** Whole, and once. */
  start(): void {
    this.#upgraded.pipeTo(this)
  }

  // ---- from the client ----

  /** The chunk is the upstream's from here on. */
  onData(chunk: Buffer): void {
    if (this.#isOver || this.#upgraded.send(chunk)) return
    this.#socket.pause()
    this.#pings ??= setTimeout(() => this.#ping(), PING_INTERVAL_MS)
  }

  #release(): void {
    if (this.#pings !== null) clearTimeout(this.#pings)
    this.#pings = null
    this.#socket.resume()
  }

  #ping(): void {
    this.#pings = setTimeout(() => this.#ping(), PING_INTERVAL_MS)
    // One that does not read either is cut off as any other.
    if (this.#mayInsert && this.#socket.writableLength === 0) this.#send(PING)
  }

  onEnd(): void {
    if (this.#isOver) return
    this.#upgraded.sendEnd()
    this.#endSoon()
  }

  // ---- from the upstream ----

  write(chunk: Buffer): boolean {
    if (this.#hasSaidClose) return true
    const end = this.#borders.read(chunk, this.#isGoingAway)
    const hasRoom = this.#send(end === chunk.length ? chunk : chunk.subarray(0, end))
    if (this.#isGoingAway) this.#sayClose()
    return hasRoom
  }

  end(): void {
    this.#over()
  }

  fail(error: GatewayError): void {
    if (!this.#isGoingAway) this.#ctx.error = error
    this.#over()
  }

  // ---- shutting down ----

  /** Tells the client to go, and ends in bounded time. */
  goAway(): void {
    if (this.#isGoingAway || this.#isOver) return
    this.#isGoingAway = true
    this.#sayClose()
    this.#endSoon()
  }

  #sayClose(): void {
    if (!this.#mayInsert) return
    this.#hasSaidClose = true
    this.#send(GOING_AWAY)
  }

  // ---- inside ----

  /** A frame of ours may stand here, between two of the backend. */
  get #mayInsert(): boolean {
    return !this.#isOver && !this.#hasSaidClose && !this.#borders.hasClosed && this.#borders.isBetween
  }

  #send(bytes: Buffer): boolean {
    this.#ctx.bytesSent += bytes.length
    return this.#socket.write(bytes)
  }

  #endSoon(): void {
    this.#timer ??= setTimeout(() => this.#over(), MAX_CLOSING_MS)
  }

  #over(): void {
    if (this.#isOver) return
    this.#isOver = true
    const socket = this.#socket
    if (socket.destroyed) return
    // What the upstream has said last shall arrive; a client that does not take it is cut off as any other.
    if (socket.writableLength === 0) this.#hangUp()
    else socket.write('', () => this.#hangUp())
  }
}
