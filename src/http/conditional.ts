// Conditional GET and HEAD (RFC 9110 §8.8, §13): whether a client that already holds a representation needs it again.
// Only the weak comparison is here; If-Match, If-Unmodified-Since and If-Range are for the origin. What cannot be read
// counts as no match, so the client gets the whole response.

import type { HeaderList } from '../core/context.ts'
import { parseHttpDate } from './date.ts'
import { getCombined, getHeader } from './headers.ts'

/** Fields that make a request conditional. Lower case. */
export const CONDITIONAL_FIELDS: ReadonlySet<string> = new Set([
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'if-range',
])

/** Whether a GET or HEAD that would be answered with this 200 is to be answered with 304 instead. */
export function isNotModified(request: HeaderList, response: HeaderList): boolean {
  const noneMatch = getCombined(request, 'if-none-match')
  // RFC 9110 §13.1.3: with If-None-Match present, If-Modified-Since is ignored, whatever the former says.
  if (noneMatch !== null) return listsTag(noneMatch, getHeader(response, 'etag'))
  // Two lines joined are no date any more, and so ignored, as the same section asks.
  const since = parseHttpDate(getCombined(request, 'if-modified-since') ?? '')
  const modified = since === null ? null : parseHttpDate(getHeader(response, 'last-modified') ?? '')
  return since !== null && modified !== null && modified <= since
}

const KEPT: ReadonlySet<string> = new Set([
  'cache-control',
  'content-location',
  'date',
  'etag',
  'expires',
  'last-modified',
  'vary',
])

/** The fields of a 200 that its 304 carries (RFC 9110 §15.4.5), and Last-Modified, by which a client without the ETag
 *  asks next time. A new list. */
export function notModifiedHeaders(response: HeaderList): string[] {
  const kept: string[] = []
  for (let i = 0; i < response.length; i += 2) {
    const name = response[i] as string
    if (KEPT.has(name.toLowerCase())) kept.push(name, response[i + 1] as string)
  }
  return kept
}

/** One entity-tag of a list, or an empty member; sticky, so that matching ends where the grammar does. Commas and
 *  backslashes inside the quotes are part of the tag (RFC 9110 §8.8.3). Blanks can be matched in one way only: the list
 *  is the client's, and backtracking over it would be the client's lever. */
const MEMBER = /[\t ]*(?:(?:W\/)?("[^"]*")[\t ]*)?(?:,|$)/gy

/** Weak comparison (RFC 9110 §8.8.3.2) of a tag with each of a list; `*` matches any response there is. */
function listsTag(list: string, tag: string | null): boolean {
  if (list.trim() === '*') return true
  if (tag === null) return false
  // An echo is a match even where the origin forgot the quotes.
  if (list === tag) return true
  const opaque = tag.startsWith('W/') ? tag.slice(2) : tag
  for (const match of list.matchAll(MEMBER)) if (match[1] === opaque) return true
  return false
}
