// One connection to a target: one exchange after the other, each over before the next begins. What comes when nobody has
// asked ends it, and so does whatever leaves open where the next answer would begin: an answer to a request that was not
// sent to its end, one that is given up, one to HEAD (some send a body all the same).

import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import type { Alarm } from '../core/alarms.ts'
import { GatewayError } from '../core/errors.ts'
import { type AnswerListener, AnswerParser } from './answer-parser.ts'
import type { Connect } from './connect.ts'
import { type BodyListener, BodySender } from './request-body.ts'
import { type OutgoingHead, expectsContent } from './request-head.ts'

const MAX_REQUESTS = 1000
/** An idle connection is kept this long: shorter than any usual server's keep-alive, so that we close first. */
const KEEP_MS = 4000
/** The time that a server names is used up to this, less the margin. */
const MAX_KEEP_MS = 30_000
const KEEP_MARGIN_MS = 2000

const KEEP = 'Connection: keep-alive\r\n\r\n'
const CLOSE = 'Connection: close\r\n\r\n'
const UPGRADE = 'Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n'

export interface OutgoingRequest {
  readonly head: OutgoingHead
  /** A buffer is all of it. */
  readonly body: Buffer | Readable | null
  /** A transfer coding that nobody knows counts as none. */
  readonly isLenient: boolean
  /** It offers to go on as a WebSocket. */
  readonly isHandshake: boolean
}

/** The answer's head, as the parser has read it. */
export type AnswerHead = Pick<AnswerParser, 'status' | 'headers' | 'framing'>

/** Who has sent a request, and hears of its answer. */
export interface Carried {
  /** The request goes out now. It may be given up from inside. */
  onConnection(connection: UpstreamConnection): void
  /** Some of its body has gone out, and all of it. */
  onSending(): void
  onSent(): void
  /** The first byte of an answer has come. */
  onAnswering(): void
  onHead(head: AnswerHead): void
  /** The chunk is the receiver's. */
  onData(chunk: Buffer): void
  /** After a 101: there is room again for what is sent. */
  onRoom(): void
  onEnd(): void
  /** The last call, like onEnd. Without onConnection before, nothing reached the wire. */
  onFailure(error: GatewayError): void
  /** See Exchange. */
  onTargetOut(isMute: boolean): void
}

export interface ConnectionOwner {
  /** It can be used again. */
  onFree(connection: UpstreamConnection): void
  /** It goes on in another protocol, for as long as that takes. */
  onUpgraded(connection: UpstreamConnection): void
  /** The other side has closed it while nobody used it; onGone follows. */
  onLost(connection: UpstreamConnection): void
  /** It is no more. */
  onGone(connection: UpstreamConnection): void
}

export class UpstreamConnection implements AnswerListener, BodyListener, Alarm {
  /** When an idle one is to be closed. */
  dueMs = 0
  place = -1
  readonly openedAtMs = performance.now()
  /** For how long it may stay idle; and since when it is. */
  keepMs = KEEP_MS
  idleSinceMs = 0
  /** True where it has carried a request before the one at hand: then it may have been closed just now by a target that
   *  is well. */
  wasUsed = false
  /** It carries no further request. */
  isRetired = false
  readonly #owner: ConnectionOwner
  readonly #socket: Socket
  readonly #parser = new AnswerParser(this)
  #isOpen = false
  #requests = 0
  #request: OutgoingRequest | null = null
  #carried: Carried | null = null
  #sender: BodySender | null = null
  #isAnswering = false
  #hasHead = false
  #isPaused = false
  #isLast = false
  #isGone = false

  constructor(connect: Connect, owner: ConnectionOwner) {
    this.#owner = owner
    this.#socket = connect(
      (bytes) => this.#take(bytes),
      (error) => this.#onOpened(error),
    )
    this.#socket.once('close', () => this.#onClosed())
  }

  /** Null while it is being made. */
  get remoteAddress(): string | null {
    return this.#socket.remoteAddress ?? null
  }

  get isUsable(): boolean {
    return !this.#socket.destroyed && this.#socket.writable
  }

  /** Sends a request, at once or when the connection stands. isLast: it is closed after the answer. */
  carry(request: OutgoingRequest, carried: Carried, isLast: boolean): void {
    this.#request = request
    this.#carried = carried
    this.#isLast = isLast
    if (this.#isOpen) this.#begin(request, carried)
  }

  /** Reads no more of the answer; resume() goes on. */
  pause(): void {
    this.#isPaused = true
    this.#socket.pause()
  }

  resume(): void {
    this.#isPaused = false
    this.#socket.resume()
  }

  /** After a 101. False: there is no more room until onRoom. */
  write(chunk: Buffer): boolean {
    return this.#socket.write(chunk)
  }

  /** After a 101: nothing more is written. */
  end(): void {
    this.#socket.end()
  }

  /** Closes it; who has sent a request is not called any more. */
  destroy(): void {
    this.#parser.stop()
    this.#release()
    this.#socket.destroy()
    if (this.#isGone) return
    this.#isGone = true
    this.#owner.onGone(this)
  }

  /** Breaks off, and says so to who has sent a request. */
  fail(error: GatewayError): void {
    const carried = this.#carried
    if (carried === null && this.wasUsed && !this.#isGone) this.#owner.onLost(this)
    this.destroy()
    carried?.onFailure(error)
  }

  /** An idle one has been idle for long enough. */
  ring(): void {
    this.destroy()
  }

  onTargetOut(isMute: boolean): void {
    this.#carried?.onTargetOut(isMute)
  }

  // ---- the request ----

  #onOpened(error: GatewayError | null): void {
    if (error !== null) return this.fail(error)
    this.#isOpen = true
    this.#socket.on('error', this.#onError).once('end', () => this.#onEnded())
    if (this.#request !== null && this.#carried !== null) this.#begin(this.#request, this.#carried)
  }

  #begin({ head, body, isLenient, isHandshake }: OutgoingRequest, carried: Carried): void {
    this.#parser.expect(head.method, isLenient, isHandshake)
    this.#isAnswering = false
    carried.onConnection(this)
    if (this.#carried !== carried) return
    // Content that means nothing may not be read by whom it is sent to (RFC 9110 §9.3).
    const isOdd = head.method === 'HEAD' || (body !== null && !expectsContent(head.method))
    this.#isLast ||= isOdd || ++this.#requests >= MAX_REQUESTS
    const text = head.text + (isHandshake ? UPGRADE : this.#isLast ? CLOSE : KEEP)
    if (body === null) this.#socket.write(text, 'latin1')
    else if (Buffer.isBuffer(body)) {
      this.#socket.cork()
      this.#socket.write(text, 'latin1')
      this.#socket.write(body)
      this.#socket.uncork()
    } else {
      this.#sender = new BodySender(this.#socket, body, head.bodyBytes, this)
      this.#sender.start(text)
    }
  }

  onSending(): void {
    this.#carried?.onSending()
  }

  onSent(): void {
    this.#sender = null
    this.#carried?.onSent()
  }

  onUnsendable(cause: Error): void {
    if (cause instanceof GatewayError) return this.fail(cause)
    this.fail(new GatewayError('internal', 'The request could not be forwarded.', { cause }))
  }

  // ---- the answer ----

  #take(bytes: Buffer): void {
    const carried = this.#carried
    if (carried !== null && !this.#isAnswering) {
      this.#isAnswering = true
      carried.onAnswering()
    }
    // What follows an answer leaves that as it is: whole.
    if (!this.#parser.take(bytes)) this.fail(this.#hasHead ? reset(this.#parser.fault) : invalid(this.#parser.fault))
  }

  onHead(): void {
    const isUpgraded = this.#parser.status === 101
    this.#hasHead = this.#parser.status >= 200 || isUpgraded
    if (isUpgraded) {
      this.#owner.onUpgraded(this)
      this.#socket.on('drain', () => this.#carried?.onRoom())
    }
    this.#carried?.onHead(this.#parser)
  }

  onBody(bytes: Buffer, from: number, to: number): void {
    const chunk = Buffer.allocUnsafe(to - from)
    bytes.copy(chunk, 0, from, to)
    this.#carried?.onData(chunk)
  }

  onEnd(hasMore: boolean): void {
    const carried = this.#carried
    const { staysOpen, keptMs } = this.#parser
    this.keepMs = keptMs === null ? KEEP_MS : Math.min(keptMs - KEEP_MARGIN_MS, MAX_KEEP_MS)
    const isInStep = staysOpen && !hasMore && this.#sender === null
    this.#release()
    this.wasUsed = true
    if (isInStep && !this.#isLast && this.keepMs > 0 && this.isUsable) this.#owner.onFree(this)
    else this.destroy()
    carried?.onEnd()
  }

  // ---- its end ----

  readonly #onError = (cause: Error): void => this.fail(reset(cause))

  /** The other side has ended its own properly. */
  #onEnded(): void {
    if (!this.#parser.end()) this.#onClosed()
  }

  #onClosed(): void {
    if (!this.#isGone) this.fail(reset('the end of the connection'))
  }

  /** Lets go of a request. */
  #release(): void {
    this.#carried = null
    this.#request = null
    this.#hasHead = false
    if (this.#isPaused) this.resume()
    if (this.#sender === null) return
    this.#sender.stop()
    this.#sender = null
  }
}

const reset = (cause: unknown): GatewayError =>
  new GatewayError('upstream_reset', 'The upstream broke the connection off.', { cause })

const invalid = (what: string): GatewayError => new GatewayError('upstream_invalid', `The upstream sent ${what}.`)
