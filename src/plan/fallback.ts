// What a route answers where its upstream gives no answer and nothing that is stored may: after all retries, behind the cache.

import { isOutage } from '../cache/revalidate.ts'
import type { Reply } from '../core/context.ts'
import type { GatewayError } from '../core/errors.ts'
import type { FallbackOptions } from '../upstream/options.ts'

/** Null: this failure is told as it is. */
export type Fallback = (error: GatewayError) => Reply | null

export function compileFallback({ status, body, type }: FallbackOptions): Fallback {
  const content = body === '' ? null : Buffer.from(body)
  const fields = ['Cache-Control', 'no-store']
  if (content !== null) {
    const said = type ?? (isJson(body) ? 'application/json' : 'text/plain; charset=utf-8')
    fields.push('Content-Type', said, 'Content-Length', String(content.length))
  } else if (status !== 204 && status !== 304) fields.push('Content-Length', '0')
  return (error) => {
    if (!isOutage(error)) return null
    const { retryAfterSeconds } = error
    const headers = retryAfterSeconds === null ? fields : [...fields, 'Retry-After', String(retryAfterSeconds)]
    return { status, headers, body: content }
  }
}

function isJson(text: string): boolean {
  try {
    return typeof JSON.parse(text) === 'object'
  } catch {
    return false
  }
}
