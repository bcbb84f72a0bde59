// The full lane: node:http parses, this file decides whether what it parsed is beyond doubt, makes a RequestContext of
// it and sends the answer. Framing that two parsers could read in two ways is refused, never repaired (RFC 9112 §6.3,
// §11.2). Only rawHeaders is read: Node's header objects hide, merge and rename fields.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { type Reply, RequestContext, type RequestFacts, type Upgraded } from '../core/context.ts'
import { GatewayError, asGatewayError } from '../core/errors.ts'
import { getCombined, getHeader, getHeaders } from '../http/headers.ts'
import { METHODS, isKnownMethod } from '../http/methods.ts'
import { normalizeHost, normalizeTarget } from '../http/target.ts'
import { ClientBody } from './client-body.ts'
import type { Door } from './door.ts'
import type { ListenOptions } from './options.ts'
import { nextRequestId } from './request-id.ts'
import { breakOff, discard, refusal, relayInterim, respond } from './respond.ts'

/** What a lane needs of the client's connection. */
export interface Peer {
  /** IPv4-mapped IPv6 already unmapped. */
  readonly address: string
  /** False: the connection ends with the answer that begins now. */
  mayReuse(): boolean
  /** True where nothing but the request that begins now is on the connection. */
  isAlone(): boolean
  /** Goes on in another protocol. Throws where the head is not valid, before any byte is sent. */
  upgrade(ctx: RequestContext, reply: Reply, upgraded: Upgraded): void
}

/** A request that is being answered. */
export interface Exchange {
  readonly message: IncomingMessage
  readonly response: ServerResponse
  /** The rest of the request cannot be read, for a reason that the client shall know. */
  breakBody(error: GatewayError): void
  /** What comes on the connection is for what it may be upgraded to. */
  readonly isUpgrading: boolean
}

export interface FullLane {
  /** Reads a request and answers it. */
  take(message: IncomingMessage, response: ServerResponse, peer: Peer): Exchange
  /** Goes on with a request that the fast path has read, and whose answer it is waiting for. */
  adopt(message: IncomingMessage, response: ServerResponse, peer: Peer, begun: Begun): Exchange
}

/** A request that is being answered. */
export interface Begun {
  readonly ctx: RequestContext
  readonly answer: Reply | Promise<Reply>
}

export function createFullLane(options: ListenOptions, door: Door): FullLane {
  /** Sends what is answered, and records how that has ended. */
  function attend(response: ServerResponse, peer: Peer, ctx: RequestContext, body: ClientBody | null) {
    // RFC 9110 §15.2: HTTP/1.0 knows no interim answers.
    if (ctx.version === '1.1') ctx.relayInterim = (status, headers) => relayInterim(response, status, headers)
    response.once('close', () => {
      ctx.durationMs = performance.now() - ctx.receivedAtMs
      // A break that we made has its error; any other is the client's, but for what may end at any time.
      if (!response.writableFinished && ctx.error === null && !isUpgraded) ctx.abort()
      door.record(ctx)
    })

    let isUpgraded = false
    const send = (reply: Reply): void => {
      const close =
        !peer.mayReuse() ||
        reply.close === true ||
        ctx.version === '1.0' ||
        body?.mayStayUnread === false ||
        ctx.isUpgrading
      try {
        if (reply.upgraded === undefined || response.destroyed) return respond(response, ctx, reply, close)
        peer.upgrade(ctx, reply, reply.upgraded)
        isUpgraded = true
      } catch (cause) {
        fail(cause, reply)
      }
    }
    /** A fault of ours. The client must not wait for an answer that cannot be sent. */
    const fail = (cause: unknown, reply: Reply | null): void => {
      if (reply !== null) discard(reply)
      ctx.unsay()
      ctx.error = asGatewayError(cause)
      if (response.headersSent) return breakOff(response)
      respond(response, ctx, refusal(ctx, ctx.error), true)
    }
    return {
      with(reply: Reply | Promise<Reply>): void {
        if (reply instanceof Promise) reply.then(send, (cause: unknown) => fail(cause, null))
        // A body that came with its head is parsed by then and known to be whole, and the connection stays.
        else if (body !== null) setImmediate(send, reply)
        else send(reply)
      },
    }
  }

  return {
    take(message, response, peer) {
      const read = readRequest(message, response, peer, options)
      const { body } = read
      const ctx = new RequestContext(read.facts, nextRequestId())
      ctx.mayUpgrade = peer.isAlone()
      const answering = attend(response, peer, ctx, body)
      if ('error' in read) answering.with(refusal(ctx, read.error))
      else answering.with(read.isAsterisk ? OPTIONS_OF_THE_SERVER : door.answer(ctx))
      return { message, response, breakBody: (error) => body?.fail(error), isUpgrading: ctx.isUpgrading }
    },
    adopt(message, response, peer, { ctx, answer }) {
      attend(response, peer, ctx, null).with(answer)
      return { message, response, breakBody() {}, isUpgrading: false }
    },
  }
}

/** RFC 9110 §9.3.7: `OPTIONS *` asks about the server as a whole. */
const OPTIONS_OF_THE_SERVER: Reply = { status: 204, headers: ['Allow', METHODS.join(', ')], body: null }

type ReadRequest = { readonly facts: RequestFacts; readonly body: ClientBody | null } & (
  | { readonly isAsterisk: boolean }
  | { readonly error: GatewayError }
)

function readRequest(
  message: IncomingMessage,
  response: ServerResponse,
  peer: Peer,
  options: ListenOptions,
): ReadRequest {
  const headers = message.rawHeaders
  const method = message.method ?? ''
  const rawTarget = message.url ?? ''
  const base = {
    method,
    scheme: 'http',
    version: message.httpVersion === '1.0' ? '1.0' : '1.1',
    headers,
    peerAddress: peer.address,
    receivedAtMs: performance.now(),
  } as const
  const expectation = base.version === '1.0' ? null : getCombined(headers, 'expect')
  const declared = declaredBody(headers)
  const body =
    declared === null || declared === 0
      ? null
      : new ClientBody(message, declared === 'chunked' ? null : declared, {
          idleMs: options.bodyIdle,
          minRate: options.bodyRate,
          invite: expectation === null ? null : () => response.writeContinue(),
        })

  const refuse = (error: GatewayError): ReadRequest => ({
    facts: { ...base, host: '', path: rawTarget.slice(0, options.target), query: '', body },
    body,
    error,
  })
  const wrongHead = checkHead(message, options) ?? checkFraming(message, body !== null)
  if (wrongHead !== null) return refuse(wrongHead)
  if (expectation !== null && expectation.toLowerCase() !== '100-continue') {
    return refuse(new GatewayError('expectation_failed', 'The only expectation that can be met is 100-continue.'))
  }

  const target = normalizeTarget(rawTarget)
  if (target instanceof GatewayError) return refuse(target)
  const isAsterisk = target.form === 'asterisk'
  if (isAsterisk && method !== 'OPTIONS') {
    return refuse(new GatewayError('bad_target', 'The target * goes with OPTIONS only.'))
  }
  const hostFields = getHeaders(headers, 'host')
  const mayOmitHost = base.version === '1.0' && hostFields.length === 0
  const named = hostFields.length === 1 ? normalizeHost(hostFields[0] as string, target.scheme ?? base.scheme) : null
  if (named === null && !mayOmitHost) {
    return refuse(new GatewayError('bad_host', 'Exactly one valid Host field is needed.'))
  }
  if (target.authority !== null && named !== null && target.authority !== named) {
    return refuse(new GatewayError('bad_host', 'Host differs from the host of the request target.'))
  }
  const host = named ?? target.authority ?? ''
  return { facts: { ...base, host, path: target.path, query: target.query, body }, body, isAsterisk }
}

/** Declared bytes, 'chunked', or null when the message has no body. */
function declaredBody(headers: readonly string[]): number | 'chunked' | null {
  if (getHeader(headers, 'transfer-encoding') !== null) return 'chunked'
  const length = getHeader(headers, 'content-length')
  return length === null ? null : Number(length)
}

function checkHead(message: IncomingMessage, options: ListenOptions): GatewayError | null {
  const { rawHeaders: headers, method = '', url = '', httpVersion } = message
  if (httpVersion !== '1.1' && httpVersion !== '1.0') {
    return new GatewayError('version_unsupported', 'Speak HTTP/1.1.')
  }
  if (url.length > options.target) {
    return new GatewayError('target_too_long', `The request target may have ${options.target} bytes.`)
  }
  // Node frames by fields that it would hide beyond its own count, so that count is off and this one stands.
  if (headers.length / 2 > options.headFields) {
    return new GatewayError('head_too_large', `A request may have ${options.headFields} header fields.`)
  }
  for (let i = 0; i < headers.length; i += 2) {
    if ((headers[i] as string).length + (headers[i + 1] as string).length > options.headLine) {
      return new GatewayError('head_too_large', `A header field may have ${options.headLine} bytes.`)
    }
  }
  if (isKnownMethod(method)) return null
  if (method === 'TRACE') return new GatewayError('method_not_allowed', 'TRACE is not forwarded.')
  return new GatewayError('method_unknown', `Known methods: ${METHODS.join(', ')}.`)
}

function checkFraming(message: IncomingMessage, hasBody: boolean): GatewayError | null {
  const { rawHeaders: headers, method, httpVersion } = message
  const codings = getHeaders(headers, 'transfer-encoding')
  const lengths = getHeaders(headers, 'content-length')
  if (codings.length > 0 && (httpVersion === '1.0' || lengths.length > 0)) {
    return new GatewayError('bad_message', 'Transfer-Encoding goes neither with Content-Length nor with HTTP/1.0.')
  }
  if (codings.length > 1 || (codings.length === 1 && codings[0]?.toLowerCase() !== 'chunked')) {
    return new GatewayError('bad_message', 'The only transfer coding that is understood is one "chunked".')
  }
  if (lengths.length > 1 || (lengths.length === 1 && !isLength(lengths[0] as string))) {
    return new GatewayError('bad_message', 'Content-Length must be one whole number.')
  }
  if (hasBody && (method === 'GET' || method === 'HEAD')) {
    return new GatewayError(
      'bad_message',
      `${method} with a body means nothing (RFC 9110 §9.3.1); send it by POST or QUERY.`,
    )
  }
  return null
}

const isLength = (text: string): boolean => /^\d+$/.test(text) && Number.isSafeInteger(Number(text))
