// The only place where bytes go to a client. An answer ends in exactly one of two ways: whole, or visibly broken; what
// failed after its head was sent is cut off with a reset, so that it can never be taken for a whole one. Framing is
// node:http's own: the length where it is known, chunks where it is not, the end of the connection for HTTP/1.0.
//
// A stream of events can say why it ends: by an `event: error`, after which its connection closes without the last chunk.
// Only in chunks, since with a length those bytes could make up for the missing ones, and only between two events:
// behind half an event, which no client may dispatch, they would end it.

import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { BodySink, BodyStream, HeaderList, Reply, RequestContext } from '../core/context.ts'
import type { GatewayError } from '../core/errors.ts'
import { FieldPattern, HOLE, putText } from '../core/field-pattern.ts'
import { fixedMs } from '../core/milliseconds.ts'
import { http } from '../core/node-http.ts'
import { formatHttpDate } from '../http/date.ts'
import { EventTail, isEventStream } from '../http/event-stream.ts'
import { fieldLines, hasHeader, ownText } from '../http/headers.ts'
import { METHODS } from '../http/methods.ts'
import { problemReply } from '../http/problem.ts'

/** How the gateway signs the Via field of answers (RFC 9110 §7.6.3). */
const VIA = '1.1 weirgate'

/** RFC 9110 §15.5.6: what is allowed in place of a method that is not. */
const ALLOW: HeaderList = ['Allow', METHODS.join(', ')]

/** Sends an answer; close: the connection ends with it. Throws where the head is not valid, before any byte is sent. */
export function respond(response: ServerResponse, ctx: RequestContext, reply: Reply, close: boolean): void {
  if (response.destroyed) return discard(reply)
  const { body } = reply
  ctx.status = reply.status
  ctx.headMs = performance.now() - ctx.receivedAtMs

  const fields = [...reply.headers]
  if (Buffer.isBuffer(body) && !hasHeader(reply.headers, 'content-length'))
    fields.push('Content-Length', String(body.length))
  fields.push(...ctx.ownFields, ...SIGNATURE.fields(signed(ctx)))
  if (close) fields.push('Connection', 'close')
  response.writeHead(reply.status, fields)

  if (body === null || ctx.method === 'HEAD') {
    discard(reply)
    response.end()
  } else if (Buffer.isBuffer(body)) {
    ctx.bytesSent = body.length
    response.end(body)
  } else {
    stream(response, ctx, body, isEventStream(reply.headers) ? new EventTail() : null)
  }
}

/** events: of a stream of events, how far they have gone. */
function stream(response: ServerResponse, ctx: RequestContext, body: BodyStream, events: EventTail | null): void {
  const sink: BodySink = {
    write(chunk) {
      ctx.bytesSent += chunk.length
      events?.note(chunk)
      return response.write(chunk)
    },
    end() {
      response.end()
    },
    fail(error) {
      ctx.error = error
      if (events?.isAtBoundary === true && response.chunkedEncoding) endByError(response, ctx, error)
      else breakOff(response)
    },
  }
  response.on('drain', () => body.resume())
  response.on('close', () => {
    if (!response.writableFinished) body.cancel()
  })
  body.pipeTo(sink)
  // Whoever waits for the first event of a stream wants to know that it has begun.
  if (ctx.bytesSent === 0) response.flushHeaders()
}

/** Answers a 101 on the bare socket, and with it nothing else. Throws where the head is not valid, before any byte is sent. */
export function respondUpgraded(socket: Socket, ctx: RequestContext, reply: Reply): void {
  ctx.status = reply.status
  ctx.headMs = performance.now() - ctx.receivedAtMs
  const head = `${statusLine(reply.status)}${fieldLines(reply.headers)}${ownTextLines(ctx)}`
  socket.write(`${head}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`, 'latin1')
}

/** Lets go of a body that nobody will read. */
export function discard({ body, upgraded }: Reply): void {
  upgraded?.cancel()
  if (body !== null && !Buffer.isBuffer(body)) body.cancel()
}

/** Tells clients of a stream why it ends, and closes without the end that a whole one has: what was written is sent before
 *  that, where a reset could overtake it. */
function endByError(response: ServerResponse, ctx: RequestContext, { code }: GatewayError): void {
  const { socket } = response
  // Who has gone, or is too slow for its own answer, is not there to be told.
  if (socket === null || socket.destroyed || code === 'client_gone') return breakOff(response)
  const event = Buffer.from(`event: error\ndata: ${JSON.stringify({ code, request_id: ctx.id })}\n\n`)
  ctx.bytesSent += event.length
  response.write(event, () => socket.destroySoon())
}

/** Ends an answer so that nobody takes it for whole: a plain close would be the proper end of one without length or
 *  chunks. */
export function breakOff(response: ServerResponse): void {
  const { socket } = response
  if (socket !== null && !socket.destroyed) socket.resetAndDestroy()
  response.destroy()
}

/** Answers on the bare socket as respond() does through node:http, byte for byte. The reply is whole. close: the gateway ends
 *  the connection. keepAliveMs: for how long it stays else; null: the client has asked for its end. Throws where the head is
 *  not valid, before any byte is sent. */
export function respondAtOnce(
  socket: Socket,
  ctx: RequestContext,
  reply: Reply,
  close: boolean,
  keepAliveMs: number | null,
): void {
  const { status, headers, body } = reply
  if (body !== null && !Buffer.isBuffer(body)) throw new TypeError('What is answered at once has come whole.')
  ctx.status = status
  ctx.headMs = performance.now() - ctx.receivedAtMs
  const lines = reply.lines ?? ownLines(reply)
  const sent = ctx.method === 'HEAD' ? null : body
  ctx.bytesSent = sent === null ? 0 : sent.length
  // node:http says what it adds itself behind its Date.
  const date = reply.lines === undefined && !hasHeader(headers, 'date') ? `Date: ${httpDateNow()}\r\n` : ''
  const last = (close ? CLOSE : '') + date + (close ? '\r\n' : lastLines(keepAliveMs))

  if (lines.length + mostOwnBytes(ctx) + last.length + ctx.bytesSent > SLAB_BYTES) {
    socket.cork()
    socket.write(`${statusLine(status)}${lines}${ownTextLines(ctx)}${last}`, 'latin1')
    if (sent !== null) socket.write(sent)
    socket.uncork()
    return
  }
  let end = putText(slab, 0, statusLine(status))
  end += slab.write(lines, end, 'latin1')
  end = putOwnLines(end, ctx)
  end = putText(slab, end, last)
  if (sent !== null) slab.set(sent, end)
  socket.write(slab.subarray(0, end + ctx.bytesSent))
  // What has not left at once is still to be read from there.
  if (socket.writableLength > 0) slab = Buffer.allocUnsafeSlow(SLAB_BYTES)
}

/** Where small answers are put together, one after the other: as texts they would be garbage by the next. Larger bodies are
 *  not copied. */
const SLAB_BYTES = 16 * 1024
let slab = Buffer.allocUnsafeSlow(SLAB_BYTES)

/** Writes into the slab what this request alone adds, and answers where that ends. */
function putOwnLines(at: number, ctx: RequestContext): number {
  let end = ctx.quotaFields?.write(slab, at) ?? at
  end = ctx.hitFields?.write(slab, end) ?? end
  if (ctx.fields.length > 0) end = putText(slab, end, gatewayLines(ctx.fields))
  return SIGNATURE.write(slab, end, signed(ctx))
}

/** No fewer than a status line and putOwnLines() take. */
function mostOwnBytes(ctx: RequestContext): number {
  let bytes = MOST_STATUS_BYTES + SIGNATURE.mostBytes(signed(ctx))
  bytes += (ctx.quotaFields?.mostBytes ?? 0) + (ctx.hitFields?.mostBytes ?? 0)
  for (const text of ctx.fields) bytes += text.length + 2
  return bytes
}

const statusLines: string[] = []

const statusLine = (status: number): string =>
  (statusLines[status] ??= ownText(`HTTP/1.1 ${status} ${http.STATUS_CODES[status] ?? 'unknown'}\r\n`))

/** Room for any status line: the longest phrase of node:http has 31 characters. */
const MOST_STATUS_BYTES = 64

function ownLines({ headers, body }: Reply): string {
  const lines = fieldLines(headers)
  const isWithoutLength = Buffer.isBuffer(body) && !hasHeader(headers, 'content-length')
  return isWithoutLength ? `${lines}Content-Length: ${body.length}\r\n` : lines
}

/** What every answer says of itself. */
const SIGNATURE = new FieldPattern([
  ['Via', VIA],
  ['X-Request-Id', HOLE],
  ['X-Process-Time', HOLE, 'ms'],
])
const signed = (ctx: RequestContext): [id: string, ms: string] => [ctx.id, fixedMs(ctx.headMs)]

const ownTextLines = (ctx: RequestContext): string => gatewayLines([...ctx.ownFields, ...SIGNATURE.fields(signed(ctx))])

/** The gateway's own words need no check. */
function gatewayLines(fields: HeaderList): string {
  let lines = ''
  for (let i = 0; i < fields.length; i += 2) lines += `${fields[i]}: ${fields[i + 1]}\r\n`
  return lines
}

const CLOSE = 'Connection: close\r\n'

let keptAliveMs: number | null = null
let keepAliveText = ''

/** The end of a head; the text is made once. null: the client has asked for the end of its connection. */
function lastLines(keepAliveMs: number | null): string {
  if (keepAliveMs === null) return `${CLOSE}\r\n`
  if (keepAliveMs !== keptAliveMs) {
    keptAliveMs = keepAliveMs
    keepAliveText = ownText(`Connection: keep-alive\r\nKeep-Alive: timeout=${Math.floor(keepAliveMs / 1000)}\r\n\r\n`)
  }
  return keepAliveText
}

let dateSecond = 0
let dateText = ''

/** The text is made once a second. */
function httpDateNow(): string {
  const second = Math.floor(Date.now() / 1000)
  if (second !== dateSecond) {
    dateSecond = second
    dateText = formatHttpDate(second * 1000)
  }
  return dateText
}

/** Passes an interim answer on, with its fields (RFC 9110 §15.2). But 100, which the gateway says itself where it has been
 *  asked for it. */
export function relayInterim(response: ServerResponse, status: number, headers: HeaderList): void {
  if (status === 100 || response.headersSent || response.destroyed) return
  try {
    response.writeInformation(status, headers)
  } catch {
    // What node:http does not take is no loss: it may happen at any hop (RFC 8297 §2), and the answer is still to come.
  }
}

/** The answer for a request that was refused before any route was asked. */
export function refusal(ctx: RequestContext, error: GatewayError): Reply {
  ctx.error = error
  return problemReply(error, ctx.id, {}, error.code === 'method_not_allowed' ? ALLOW : [])
}

/** Answers, on the bare socket, bytes that never became a request. The caller closes it. */
export function refuseSocket(socket: Socket, ctx: RequestContext, error: GatewayError): void {
  const reply = refusal(ctx, error)
  ctx.status = reply.status
  ctx.headMs = ctx.durationMs = performance.now() - ctx.receivedAtMs
  const fields = [...reply.headers, 'Date', formatHttpDate(Date.now()), ...SIGNATURE.fields(signed(ctx))]
  fields.push('Connection', 'close')
  let head = `HTTP/1.1 ${reply.status} ${error.kind.title}\r\n`
  for (let i = 0; i < fields.length; i += 2) head += `${fields[i]}: ${fields[i + 1]}\r\n`
  const body = reply.body as Buffer
  ctx.bytesSent = body.length
  socket.write(Buffer.concat([Buffer.from(`${head}\r\n`, 'latin1'), body]))
}
