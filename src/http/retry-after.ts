// How long a server asks to be left alone: Retry-After in seconds or as a date (RFC 9110 §10.2.3), and the field by which
// AI services say it in milliseconds.

import type { HeaderList } from '../core/context.ts'
import { parseHttpDate } from './date.ts'
import { getHeader } from './headers.ts'

/** Milliseconds from now, 0 for a time that has passed; null where it says none that can be read. nowMs: wall clock. */
export function readRetryAfter(headers: HeaderList, nowMs: number): number | null {
  const fineMs = getHeader(headers, 'retry-after-ms')
  if (fineMs !== null && /^\d{1,13}(?:\.\d{1,6})?$/.test(fineMs)) return Number(fineMs)
  const value = getHeader(headers, 'retry-after')
  if (value === null) return null
  if (/^\d{1,10}$/.test(value)) return Number(value) * 1000
  const dateMs = parseHttpDate(value)
  return dateMs === null ? null : Math.max(0, dateMs - nowMs)
}
