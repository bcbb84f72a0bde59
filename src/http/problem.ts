// Error answers as problem+json (RFC 9457). The client learns the code and the cure, never an internal.

import type { HeaderList, Reply } from '../core/context.ts'
import type { GatewayError } from '../core/errors.ts'

/** The registered problem type of the rate-limit draft; all others are our own URNs, named after their code. */
const QUOTA_EXCEEDED = 'https://iana.org/assignments/http-problem-types#quota-exceeded'

/** The answer for a failed request. extra: further members of the body; headers: further fields, flat. */
export function problemReply(
  error: GatewayError,
  requestId: string,
  extra: Readonly<Record<string, unknown>> = {},
  headers: HeaderList = [],
): Reply {
  const { status, title, close } = error.kind
  const type = error.code === 'quota_exceeded' ? QUOTA_EXCEEDED : `urn:weirgate:error:${error.code}`
  const body = Buffer.from(
    JSON.stringify({ type, title, status, code: error.code, detail: error.detail, request_id: requestId, ...extra }),
  )
  const fields = [
    'Content-Type',
    'application/problem+json',
    'Content-Length',
    String(body.length),
    'Cache-Control',
    'no-store',
  ]
  if (error.retryAfterSeconds !== null) fields.push('Retry-After', String(error.retryAfterSeconds))
  return { status, headers: [...fields, ...headers], body, close }
}
