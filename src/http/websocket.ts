// WebSocket as far as a gateway has to know it (RFC 6455): its handshake, and where one frame ends and the next begins.
// What the frames say is between client and backend.

import { createHash } from 'node:crypto'
import type { HeaderList, RequestContext } from '../core/context.ts'
import { connectionNames, getCombined, getHeader, getHeaders, listMembers } from './headers.ts'

/** True for a request that offers to go on as a WebSocket (RFC 6455 §4.2.1). Its version is for the backend to judge. */
export function isHandshake(ctx: Pick<RequestContext, 'method' | 'version' | 'headers' | 'body'>): boolean {
  const { method, version, headers, body } = ctx
  if (method !== 'GET' || version !== '1.1' || body !== null) return false
  const offers = getCombined(headers, 'upgrade')
  if (offers === null || !listMembers(offers.toLowerCase()).includes(PROTOCOL)) return false
  return connectionNames(headers).includes('upgrade') && getHeaders(headers, 'sec-websocket-key').length === 1
}

const PROTOCOL = 'websocket'

/** True where the fields of a 101 answer this very handshake (RFC 6455 §4.1): a backend that can be brought to say 101 to
 *  anything has not thereby agreed to a tunnel. */
export function acceptsHandshake(request: HeaderList, answer: HeaderList): boolean {
  const key = getHeader(request, 'sec-websocket-key') ?? ''
  const accepted = createHash('sha1').update(`${key}${ACCEPTED}`).digest('base64')
  const accepts = getHeaders(answer, 'sec-websocket-accept')
  return getHeader(answer, 'upgrade')?.toLowerCase() === PROTOCOL && accepts.length === 1 && accepts[0] === accepted
}

const ACCEPTED = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

/** A whole Close frame of a server, with the code 1001: it goes away (RFC 6455 §5.5.1, §7.4.1). */
export const GOING_AWAY = Buffer.from([0x88, 0x02, 0x03, 0xe9])

/** A whole Ping frame of a server. Its Pong goes to the backend, which takes one that it has not asked for (§5.5.3). */
export const PING = Buffer.from([0x89, 0x00])

const CLOSE = 0x8

/** Follows the frames in one direction of a connection (RFC 6455 §5.2). Frames of control may stand between any two. */
export class FrameBorders {
  /** True once a Close frame has gone by: no frame may follow it. */
  hasClosed = false
  #opcode = 0
  #headBytes = 0
  #headLength = 2
  /** How many bytes of the head tell the length. */
  #lengthBytes = 0
  #payloadLeft = 0

  /** The bytes so far end with a frame. */
  get isBetween(): boolean {
    return this.#headBytes === 0
  }

  /** Reads on. upToBorder: no further than to the end of the next frame that ends here. Answers how many bytes it has read. */
  read(bytes: Buffer, upToBorder: boolean): number {
    let at = 0
    while (at < bytes.length) {
      if (this.#headBytes < this.#headLength) this.#readHead(bytes[at++] as number)
      else {
        const length = Math.min(this.#payloadLeft, bytes.length - at)
        this.#payloadLeft -= length
        at += length
      }
      if (this.#headBytes < this.#headLength || this.#payloadLeft > 0) continue
      this.hasClosed ||= this.#opcode === CLOSE
      this.#headBytes = 0
      this.#headLength = 2
      if (upToBorder) return at
    }
    return at
  }

  #readHead(byte: number): void {
    const place = this.#headBytes++
    if (place === 0) this.#opcode = byte & 0x0f
    else if (place === 1) {
      const code = byte & 0x7f
      this.#lengthBytes = code === 126 ? 2 : code === 127 ? 8 : 0
      this.#payloadLeft = this.#lengthBytes === 0 ? code : 0
      this.#headLength = 2 + this.#lengthBytes + (byte >= 0x80 ? 4 : 0)
    } else if (place < 2 + this.#lengthBytes) this.#payloadLeft = this.#payloadLeft * 256 + byte
  }
}
