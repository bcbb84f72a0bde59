// What one route does with its upstream, compiled once: the head is rebuilt, the path rewritten, the request sent, the
// answer cleaned. Gives FetchOrigin for the cache, and the stage that just forwards for routes without one.

import type { FetchOrigin, HeaderList, OriginAnswer, Reply, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import type { Overload } from '../core/overload.ts'
import { withStrongIfMatch } from '../http/conditional.ts'
import { hasHeader } from '../http/headers.ts'
import { readTags } from '../http/tags.ts'
import { acceptsHandshake } from '../http/websocket.ts'
import type { AttemptAnswer } from './fetch.ts'
import { type HeadEdit, compileEdit, compileRewrite, requestHead, responseHead } from './head.ts'
import { compileHashKey } from './hash-key.ts'
import { HedgedFetch, mayBeHedged } from './hedge.ts'
import type {
  Balance,
  HeaderEditOptions,
  RefusalOptions,
  RewriteOptions,
  RouteTimeoutOptions,
  TimeoutOptions,
} from './options.ts'
import type { Mirror } from './mirror.ts'
import { DEFAULT_TIMEOUTS, type Timeouts, type UpstreamPool } from './pool.ts'
import { UpstreamFetch, type UpstreamRequest } from './retry.ts'

export interface ForwardOptions {
  readonly pool: UpstreamPool
  readonly balance: Balance
  readonly timeouts: Timeouts
  readonly retries: number
  readonly refusals: RefusalOptions
  readonly maxBodyBytes: number
  /** Answers that end with their connection count as whole. */
  readonly isLenient: boolean
  readonly rewrite: RewriteOptions | undefined
  readonly requestEdits: HeaderEditOptions | null
  readonly responseEdits: HeaderEditOptions | null
  /** Clients get strong tags of the upstream's as weak ones. */
  readonly weakensTags: boolean
  /** Lower-case names of answer fields that the gateway writes itself on this route. */
  readonly replacedFields: ReadonlySet<string>
  /** How this instance signs the Via field of requests. */
  readonly viaToken: string
  /** What else is to be known of the answers; null: nothing. */
  readonly metered: ((fetch: FetchOrigin) => FetchOrigin) | null
  /** Copies some of the requests to another upstream; null: none. */
  readonly mirror: Mirror | null
  /** While there is one, nothing is sent. */
  readonly overload: Overload
}

export interface Forwarder {
  readonly fetch: FetchOrigin
  readonly stage: (ctx: RequestContext) => Promise<Reply>
  /** The last stage of a WebSocket handshake: what the upstream answers, a 101 or not. */
  readonly handshake: (ctx: RequestContext) => Promise<Reply>
  /** The path as the upstream sees it. */
  rewritePath(path: string): string
}

const NOTHING: ReadonlySet<string> = new Set()
export const CLIENT_GONE = new GatewayError('client_gone', 'The client has gone.')

export function compileForward(options: ForwardOptions): Forwarder {
  const { pool, timeouts, retries, refusals, maxBodyBytes, isLenient, replacedFields, viaToken, mirror, overload } =
    options
  const patience = { timeouts, retries, refusals }
  const hashOf = options.balance.rule === 'hash' ? compileHashKey(options.balance.key) : null
  const rewritePath = compileRewrite(options.rewrite)
  const editAsTold = compileEdit(options.requestEdits ?? undefined)
  const editRequest: HeadEdit = options.weakensTags ? (head) => editAsTold(withStrongIfMatch(head)) : editAsTold
  const editResponse = compileEdit(options.responseEdits ?? undefined)

  const ask: FetchOrigin = (ctx, drop, add) => {
    const declaredBytes = ctx.body?.declaredBytes ?? 0
    if (declaredBytes > maxBodyBytes) {
      throw new GatewayError(
        'body_too_large',
        `The body may have ${maxBodyBytes} bytes, this one has ${declaredBytes}.`,
      )
    }
    const request = requestOf(ctx, drop, add, false)
    return send(ctx, mirror === null ? request : mirror(request), clean)
  }

  function requestOf(
    ctx: RequestContext,
    drop: ReadonlySet<string>,
    add: HeaderList | undefined,
    isHandshake: boolean,
  ): UpstreamRequest {
    return {
      method: ctx.method,
      path: rewritePath(ctx.path) + ctx.query,
      headers: requestHead(ctx, viaToken, editRequest, drop, add),
      body: ctx.body,
      maxBodyBytes,
      relayInterim: interimRelay(ctx),
      isLenient,
      hash: hashOf === null ? null : hashOf(ctx),
      isHandshake,
      hasStandIn: ctx.hasStandIn,
      onSent: null,
      onAttempts: (count: number) => sayAttempts(ctx, count),
      onUnsent: () => void (ctx.wasForwarded = false),
      // A name that anybody can give would be as many turns as there are names.
      client: ctx.user?.isProved === true ? ctx.user.id : ctx.clientAddress,
    }
  }

  function send<Answer>(
    ctx: RequestContext,
    request: UpstreamRequest,
    read: (raw: AttemptAnswer) => Answer | GatewayError,
  ): Pick<UpstreamFetch<Answer>, 'answer' | 'abort' | 'isSent' | 'workedOn'> {
    if (overload.isOver) {
      return { answer: Promise.reject(overload.refuse()), abort: () => {}, isSent: false, workedOn: 0 }
    }
    ctx.wasForwarded = true
    const sentAtMs = performance.now()
    const readInTime = (raw: AttemptAnswer): Answer | GatewayError => {
      ctx.upstreamMs = performance.now() - sentAtMs
      return read(raw)
    }
    const { hedging } = pool
    return hedging !== null && mayBeHedged(request)
      ? new HedgedFetch(pool, hedging, request, patience, overload, readInTime)
      : new UpstreamFetch(pool, request, patience, readInTime)
  }

  /** An interim answer is cleaned as a final one is; what cannot be is dropped, since it is for information alone. */
  function interimRelay({ relayInterim }: RequestContext): RequestContext['relayInterim'] {
    if (relayInterim === null) return null
    return (status, raw) => {
      const headers = responseHead(status, raw, editResponse, replacedFields)
      if (headers !== null) relayInterim(status, headers)
    }
  }

  function clean(raw: AttemptAnswer): OriginAnswer | GatewayError {
    const { status, framed } = raw
    const headers = responseHead(status, raw.headers, editResponse, replacedFields)
    if (headers === null)
      return new GatewayError('upstream_invalid', 'The upstream sent a header field that is not valid.')
    if (raw.isEvents && !hasHeader(headers, UNBUFFERED[0])) headers.push(...UNBUFFERED)
    return { status, headers, framed, tags: readTags(raw.headers), takeBody: () => raw.takeBody() }
  }

  const fetch = options.metered?.(ask) ?? ask

  const stage: Forwarder['stage'] = (ctx) => {
    const origin = fetch(ctx, NOTHING)
    ctx.whenAborted(() => origin.abort(CLIENT_GONE))
    return origin.answer.then(passOn)
  }

  const handshake: Forwarder['handshake'] = (ctx) => {
    const request = requestOf(ctx, NOTHING, undefined, true)
    const sent = send(ctx, request, (raw): Reply | GatewayError => {
      const answer = clean(raw)
      if (answer instanceof GatewayError) return answer
      if (raw.upgraded === null) return passOn(answer)
      if (!acceptsHandshake(request.headers, raw.headers)) {
        return new GatewayError('upstream_invalid', 'The upstream switched to another protocol than it was asked for.')
      }
      return { status: answer.status, headers: answer.headers, body: null, upgraded: raw.upgraded }
    })
    ctx.whenAborted(() => sent.abort(CLIENT_GONE))
    return sent.answer
  }

  return { fetch, stage, handshake, rewritePath }
}

/** On the answer that they have led to. */
function sayAttempts({ fields }: RequestContext, count: number): void {
  const at = fields.indexOf(ATTEMPTS)
  if (at < 0) fields.push(ATTEMPTS, String(count))
  else fields[at + 1] = String(count)
}

/** Tells proxies like nginx to pass each event on when it comes. */
const UNBUFFERED = ['X-Accel-Buffering', 'no'] as const

const ATTEMPTS = 'X-Weirgate-Attempts'

function passOn(answer: OriginAnswer): Reply {
  const { status, headers } = answer
  const body = answer.takeBody()
  return answer.framed ? { status, headers, body } : { status, headers, body, isUnframed: true }
}

/** The upstream's timeouts with the route's over them. */
export function resolveTimeouts(upstream: TimeoutOptions, route: RouteTimeoutOptions = {}): Timeouts {
  return {
    connectMs: upstream.connect ?? DEFAULT_TIMEOUTS.connectMs,
    queueMs: route.queue ?? upstream.queue ?? DEFAULT_TIMEOUTS.queueMs,
    firstByteMs: route.firstByte ?? upstream.firstByte ?? DEFAULT_TIMEOUTS.firstByteMs,
    firstEventMs: route.firstEvent ?? upstream.firstEvent ?? DEFAULT_TIMEOUTS.firstEventMs,
    idleMs: route.idle ?? upstream.idle ?? DEFAULT_TIMEOUTS.idleMs,
    totalMs: route.total ?? upstream.total ?? DEFAULT_TIMEOUTS.totalMs,
    streamTotalMs: route.streamTotal ?? upstream.streamTotal ?? DEFAULT_TIMEOUTS.streamTotalMs,
    websocketIdleMs: route.websocketIdle ?? upstream.websocketIdle ?? DEFAULT_TIMEOUTS.websocketIdleMs,
  }
}
