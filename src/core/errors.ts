// Every way a request can fail, in one table: code -> status, title, and whose fault it was. Clients see the code as
// problem+json (http/problem.ts), the log has the cause, the README lists the table (a test holds the two equal).

/** Whose fault: the client's message, the gateway's own rules or state, or the upstream. */
export type ErrorSource = 'client' | 'gateway' | 'upstream'

export interface ErrorKind {
  readonly status: number
  readonly title: string
  readonly source: ErrorSource
  /** True when the message's framing is in doubt or its body unread, so the connection must not be used again. */
  readonly close: boolean
}

const kind = (status: number, title: string, source: ErrorSource, close = false): ErrorKind => ({
  status,
  title,
  source,
  close,
})

export const ERRORS = {
  bad_message: kind(400, 'Bad Request', 'client', true),
  bad_target: kind(400, 'Bad Request Target', 'client', true),
  bad_host: kind(400, 'Bad Host', 'client', true),
  idempotency_key_missing: kind(400, 'Idempotency-Key Missing', 'client'),
  idempotency_key_invalid: kind(400, 'Idempotency-Key Invalid', 'client'),
  unauthenticated: kind(401, 'Unauthenticated', 'client'),
  forbidden: kind(403, 'Forbidden', 'client'),
  no_route: kind(404, 'No Route', 'client'),
  method_not_allowed: kind(405, 'Method Not Allowed', 'client'),
  timeout_head: kind(408, 'Request Head Timeout', 'client', true),
  timeout_body: kind(408, 'Request Body Timeout', 'client', true),
  idempotency_in_flight: kind(409, 'Request in Flight', 'client'),
  idempotency_unknown: kind(409, 'Outcome Unknown', 'client'),
  idempotency_not_kept: kind(409, 'Answer Not Kept', 'client'),
  body_too_large: kind(413, 'Body Too Large', 'client', true),
  target_too_long: kind(414, 'Target Too Long', 'client', true),
  expectation_failed: kind(417, 'Expectation Failed', 'client', true),
  unknown_host: kind(421, 'Misdirected Request', 'client'),
  idempotency_key_reused: kind(422, 'Idempotency-Key Reused', 'client'),
  quota_exceeded: kind(429, 'Quota Exceeded', 'client'),
  share_exceeded: kind(429, 'Too Many Requests of One Client in Line', 'client'),
  head_too_large: kind(431, 'Request Head Too Large', 'client', true),
  client_gone: kind(499, 'Client Closed Request', 'client', true),
  internal: kind(500, 'Internal Error', 'gateway'),
  method_unknown: kind(501, 'Method Not Implemented', 'client', true),
  upstream_refused: kind(502, 'Upstream Refused the Connection', 'upstream'),
  upstream_reset: kind(502, 'Upstream Broke the Connection', 'upstream'),
  upstream_invalid: kind(502, 'Upstream Sent an Invalid Answer', 'upstream'),
  upstream_failing: kind(503, 'Upstream Is Failing', 'upstream'),
  breaker_open: kind(503, 'Upstream Breaker Is Open', 'gateway'),
  cooling_down: kind(503, 'Upstream Is Cooling Down', 'gateway'),
  saturated: kind(503, 'Too Many Requests in Flight', 'gateway'),
  overloaded: kind(503, 'Gateway Is Overloaded', 'gateway'),
  limits_unavailable: kind(503, 'Limits Unavailable', 'gateway'),
  draining: kind(503, 'Shutting Down', 'gateway', true),
  timeout_connect: kind(504, 'Upstream Connect Timeout', 'upstream'),
  timeout_queue: kind(504, 'Upstream Queue Timeout', 'upstream'),
  timeout_first_byte: kind(504, 'Upstream First Byte Timeout', 'upstream'),
  timeout_first_event: kind(504, 'Upstream First Event Timeout', 'upstream'),
  timeout_idle: kind(504, 'Upstream Idle Timeout', 'upstream'),
  timeout_total: kind(504, 'Upstream Total Timeout', 'upstream'),
  not_cached: kind(504, 'Not in the Cache', 'client'),
  version_unsupported: kind(505, 'HTTP Version Not Supported', 'client', true),
  loop_detected: kind(508, 'Loop Detected', 'gateway'),
} as const satisfies Record<string, ErrorKind>

export type ErrorCode = keyof typeof ERRORS

/** A failed request. `detail` is for the client: what was expected, what came, what to do; never internals.
 *  `cause` is for the log alone. */
export class GatewayError extends Error {
  readonly code: ErrorCode
  readonly detail: string
  /** Whole seconds for Retry-After; null sends none. */
  readonly retryAfterSeconds: number | null

  constructor(code: ErrorCode, detail: string, options: { cause?: unknown; retryAfterSeconds?: number } = {}) {
    super(`${code}: ${detail}`, { cause: options.cause })
    this.name = 'GatewayError'
    this.code = code
    this.detail = detail
    this.retryAfterSeconds = options.retryAfterSeconds ?? null
  }

  get kind(): ErrorKind {
    return ERRORS[this.code]
  }
}

/** The error as ours: a GatewayError stays, anything else is a fault of the gateway. */
export function asGatewayError(error: unknown): GatewayError {
  if (error instanceof GatewayError) return error
  return new GatewayError('internal', 'The gateway failed to answer this request.', { cause: error })
}
