// The one place where a finished request is counted and logged: once, whatever became of it. The line has the same
// fields in the same order for all requests. One that a limit would have refused if it did not only watch adds
// `limit_shadow`, a failed one `error`, and `cause` where the fault was ours or the upstream's. Authorization, cookies
// and bodies are never read here, and secrets in the query are masked.
//
// On the path of every request: one object of one shape, one line, nothing else.

import { hash } from 'node:crypto'
import type { RequestContext } from '../core/context.ts'
import type { ErrorCode, GatewayError } from '../core/errors.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import type { LogOptions } from './options.ts'
import { createRedact } from './redact.ts'
import type { Statistics } from './statistics.ts'
import { finalStatus } from './verdict.ts'

/** Longest text from outside in a line, in characters. */
const MAX_TEXT_CHARS = 2048

export type RecordOptions = Pick<LogOptions, 'slow' | 'redactQuery' | 'userId'>

export interface Recorder {
  /** Counts and logs a request that has ended, well or not. Call it once per request. */
  record(ctx: RequestContext): void
  /** Takes new options, for a reload. */
  configure(options: RecordOptions): void
}

/** The line of one request. Names and order are the contract with whoever reads the log. */
interface RequestLine {
  readonly message: string
  readonly request_id: string
  /** Hashed where it is known. */
  readonly user_id: string | null
  readonly client_ip: string
  readonly route: string | null
  readonly method: string
  readonly path: string
  readonly status_code: number
  readonly duration_ms: number
  readonly upstream_ms: number | null
  readonly cache: string | null
  readonly cache_reason: string | null
  /** The policy that refused the request. */
  readonly limit: string | null
  readonly bytes: number
  /** The policy that would have refused it, if it did not only watch. */
  limit_shadow?: string
  error?: ErrorCode
  cause?: string
}

export function createRecorder(
  sinks: { readonly log: Log; readonly metrics: Metrics; readonly statistics: Statistics },
  options: RecordOptions,
): Recorder {
  const { log, metrics, statistics } = sinks
  let slowMs = options.slow
  let redact = createRedact(options.redactQuery)
  let showsUsers = options.userId === 'plain'

  return {
    record(ctx) {
      const status = finalStatus(ctx)
      metrics.record(ctx, status)
      statistics.record(ctx, status)

      const isSlow = ctx.durationMs > slowMs
      // A bug is an error even where the request was served in time; all other failures are the traffic's own.
      const level = ctx.error?.code === 'internal' ? 'error' : isSlow ? 'warn' : 'info'
      if (!log.isEnabled(level)) return
      const line: RequestLine = {
        message: isSlow ? 'Slow request' : 'Request completed',
        request_id: cut(ctx.id),
        user_id: ctx.user === null ? null : cut(showsUsers ? ctx.user.id : pseudonym(ctx.user.id)),
        client_ip: ctx.clientAddress,
        route: ctx.route,
        method: cut(ctx.method),
        path: cut(ctx.query === '' ? ctx.path : ctx.path + redact(ctx.query)),
        status_code: status,
        duration_ms: hundredths(ctx.durationMs),
        upstream_ms: ctx.upstreamMs === null ? null : hundredths(ctx.upstreamMs),
        cache: ctx.cache,
        cache_reason: ctx.cacheReason,
        limit: ctx.quota === null || ctx.quota.admitted ? null : ctx.quota.policy,
        bytes: ctx.bytesSent,
      }
      if (ctx.shadowedBy !== null) line.limit_shadow = ctx.shadowedBy
      if (ctx.error !== null) addError(line, ctx.error)
      log.line(level, line)
    },
    configure(next) {
      slowMs = next.slow
      redact = createRedact(next.redactQuery)
      showsUsers = next.userId === 'plain'
    },
  }
}

function addError(line: RequestLine, error: GatewayError): void {
  line.error = error.code
  if (error.kind.source !== 'client') line.cause = cut(describeCause(error))
}

/** For a bug the stack, since nothing else tells where it is; for all else the message, or what the client was told. */
function describeCause(error: GatewayError): string {
  const { cause, code, detail } = error
  if (code === 'internal') return (cause instanceof Error ? cause.stack : error.stack) ?? detail
  if (!(cause instanceof Error)) return typeof cause === 'string' ? cause : detail
  // A connection tried on several addresses fails with an AggregateError, whose own message is empty.
  if (cause.message === '' && cause instanceof AggregateError) return cause.errors.map(String).join('; ')
  return cause.message === '' ? cause.name : cause.message
}

/** The same for one user in every instance and after every restart. */
const pseudonym = (userId: string): string => hash('sha256', `user_id ${userId}`, 'base64url').slice(0, 22)

const cut = (text: string): string => (text.length <= MAX_TEXT_CHARS ? text : `${text.slice(0, MAX_TEXT_CHARS)}...`)

const hundredths = (ms: number): number => Math.round(ms * 100) / 100
