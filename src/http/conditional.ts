// Validators (RFC 9110 §8.8, §13; RFC 9111 §3.2, §4.3): whether a client that holds a representation needs it again, how
// to ask an origin whether what is stored is still good, and what its answer means for that. If-Match and
// If-Unmodified-Since are for the origin alone.
//
// What cannot be read counts as no match, and in doubt two responses are of different representations: the client gets
// the whole response, the cache fetches it anew.

import type { HeaderList } from '../core/context.ts'
import { parseHttpDate } from './date.ts'
import { HOP_BY_HOP, connectionNames, getCombined, getHeader, withoutHeaders } from './headers.ts'

/** Fields that make a request conditional. Lower case. */
export const CONDITIONAL_FIELDS: ReadonlySet<string> = new Set([
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'if-range',
])

// ---- a client asks ----

/** Whether a GET or HEAD that would be answered with this 200 is to be answered with 304 instead. */
export function isNotModified(request: HeaderList, response: HeaderList): boolean {
  const noneMatch = getCombined(request, 'if-none-match')
  // RFC 9110 §13.1.3: with If-None-Match present, If-Modified-Since is ignored, whatever the former says.
  if (noneMatch !== null) return listsTag(noneMatch, getHeader(response, 'etag'))
  // Two lines joined are no date any more, and so ignored, as the same section asks.
  const since = getCombined(request, 'if-modified-since')
  const sinceMs = since === null ? null : parseHttpDate(since)
  if (sinceMs === null) return false
  // RFC 9111 §4.3.2: what does not say when it was changed was not changed after it was made.
  const modifiedMs = parseHttpDate(getHeader(response, 'last-modified') ?? getHeader(response, 'date') ?? '')
  return modifiedMs !== null && modifiedMs <= sinceMs
}

/** Whether the Range of a request may be answered from this response (RFC 9110 §13.1.5); true without If-Range. Only
 *  what is certain to be of the same bytes will do, since the client puts the parts together. */
export function ifRangeMatches(request: HeaderList, response: HeaderList): boolean {
  const condition = getCombined(request, 'if-range')
  if (condition === null) return true
  if (condition.startsWith('"')) return condition === getHeader(response, 'etag')
  const dateMs = parseHttpDate(condition)
  return dateMs !== null && dateMs === lastModifiedMs(response) && isDateStrong(response)
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

/** The fields of a 200 that its 304 carries (RFC 9110 §15.4.5), Last-Modified, by which a client without the ETag asks
 *  next time, and whatever is a Cache-Control for other caches by its name (RFC 9213 §2.2). A new list. */
export function notModifiedHeaders(response: HeaderList): string[] {
  const kept: string[] = []
  for (let i = 0; i < response.length; i += 2) {
    const name = response[i] as string
    const lower = name.toLowerCase()
    if (KEPT.has(lower) || lower.endsWith('-cache-control')) kept.push(name, response[i + 1] as string)
  }
  return kept
}

/** A request whose If-Match names strong tags where it named weak ones, for origins whose tags are weakened on the way to
 *  clients: as it was, it could match nothing (RFC 9110 §13.1.1), and who has read what is there could not write it. The
 *  same list where it has none. */
export function withStrongIfMatch(request: string[]): string[] {
  const tags = getCombined(request, 'if-match')
  if (tags === null || !tags.includes('W/"')) return request
  return [...withoutHeaders(request, IF_MATCH), 'If-Match', tags.replace(TAGS, '$1')]
}

const IF_MATCH: ReadonlySet<string> = new Set(['if-match'])
/** Each tag as a whole, since what is inside the quotes of one may look like the beginning of another. */
const TAGS = /(?:W\/)?("[^"]*")/g

// ---- the cache asks ----

/** The fields that ask whether a stored response is still good (RFC 9111 §4.3.1), flat; empty where it has no validator.
 *  They replace CONDITIONAL_FIELDS of the request. */
export function validatorsOf(stored: HeaderList): string[] {
  const fields: string[] = []
  const tag = getHeader(stored, 'etag')
  if (tag !== null && USABLE_TAG.test(tag)) fields.push('If-None-Match', tag)
  // The origin's own text, since some compare it as such.
  const modified = getHeader(stored, 'last-modified') ?? ''
  if (parseHttpDate(modified) !== null) fields.push('If-Modified-Since', modified)
  return fields
}

/** A tag, or what an origin that forgot the quotes will know again. Not `*`, which matches whatever there is: with it the
 *  origin would be asked nothing and answer 304 for ever. */
const USABLE_TAG = /^(?:(?:W\/)?"[^"]*"|(?!\*$)[^\s",]+)$/

/** Whether a 304 is about this stored response (RFC 9111 §4.3.4), given that it answers a request which carried
 *  validatorsOf() it and no other condition: so a 304 without validators is. Of any other nothing may be used, and the
 *  representation has to be fetched whole. */
export function sameRepresentation(stored: HeaderList, from304: HeaderList): boolean {
  const ours = getHeader(stored, 'etag')
  const theirs = getHeader(from304, 'etag')
  const sameDate = agreesOnDate(stored, from304)
  if (theirs === null) return sameDate !== false
  if (theirs === ours) return true
  if (ours !== null && opaque(theirs) !== opaque(ours)) return false
  if (ours !== null && !isStrong(theirs)) return true
  // A strong tag is not the same as a weak one, or as none; a strong date can stand in for it.
  return sameDate === true && isDateStrong(stored)
}

/** What the head of a 200 to HEAD proves about a stored 200 to GET (RFC 9111 §4.3.5): `same`, it may be freshened by it;
 *  `changed`, it is to count as stale; `unproven`, the head names no validator. The RFC would freshen then, too, and so
 *  declare fresh a body that nobody has vouched for. storedLength: of the body as the origin sent it, in bytes. */
export function compareWithHead(
  stored: HeaderList,
  head: HeaderList,
  storedLength: number,
): 'same' | 'changed' | 'unproven' {
  const length = getHeader(head, 'content-length')
  if (length !== null && Number(length) !== storedLength) return 'changed'
  const ours = getHeader(stored, 'etag')
  const theirs = getHeader(head, 'etag')
  if (theirs !== null && (ours === null || opaque(theirs) !== opaque(ours))) return 'changed'
  const sameDate = agreesOnDate(stored, head)
  if (sameDate === false) return 'changed'
  return theirs !== null || sameDate === true ? 'same' : 'unproven'
}

/** Fields that describe the bytes as they are stored, which no later head can change (RFC 9111 §3.2). The stored body may
 *  have been coded here. All else is updated, Content-Type too. */
const OF_STORED_BYTES: ReadonlySet<string> = new Set(['content-length', 'content-encoding', 'content-range'])

/** The fields of a stored response, updated by those of a 304, a HEAD or a part (RFC 9111 §3.2): each field that `newer`
 *  carries replaces the stored one, with all its lines. A new list. Leave out of `newer` before what is not to be stored
 *  (Set-Cookie of one user), give it a Date if it has none, and judge the result anew: freshness and Vary may differ. */
export function freshenHeaders(stored: HeaderList, newer: HeaderList): string[] {
  const named = connectionNames(newer)
  const taken = withoutHeaders(newer, {
    has: (name) => OF_STORED_BYTES.has(name) || HOP_BY_HOP.has(name) || named.includes(name),
  })
  const replaced = new Set(taken.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase()))
  return [...withoutHeaders(stored, replaced), ...taken]
}

// ---- validators ----

/** Whether two responses are certain to be of the same bytes, so that parts of them may be put together (RFC 9111 §3.4).
 *  Where either has a tag, the tags decide. */
export function sharesStrongValidator(a: HeaderList, b: HeaderList): boolean {
  const tag = getHeader(a, 'etag')
  const other = getHeader(b, 'etag')
  if (tag !== null || other !== null) return tag !== null && tag === other && isStrong(tag)
  return agreesOnDate(a, b) === true && isDateStrong(a) && isDateStrong(b)
}

/** The weak form of a tag; what is no strong one stays as it is. */
export const weakened = (tag: string): string => (isStrong(tag) ? `W/${tag}` : tag)

const isStrong = (tag: string): boolean => tag.startsWith('"')

/** What the weak comparison compares (RFC 9110 §8.8.3.2). */
const opaque = (tag: string): string => (tag.startsWith('W/') ? tag.slice(2) : tag)

const lastModifiedMs = (response: HeaderList): number | null =>
  parseHttpDate(getHeader(response, 'last-modified') ?? '')

/** Whether the newer one's Last-Modified is the stored one's; null where it has none that is a date. */
function agreesOnDate(stored: HeaderList, newer: HeaderList): boolean | null {
  const ms = lastModifiedMs(newer)
  return ms === null ? null : ms === lastModifiedMs(stored)
}

/** RFC 9110 §8.8.2.2: the second of the last change was over when the response was made, so no other change can bear the
 *  same date. */
function isDateStrong(response: HeaderList): boolean {
  const modifiedMs = lastModifiedMs(response)
  const dateMs = parseHttpDate(getHeader(response, 'date') ?? '')
  return modifiedMs !== null && dateMs !== null && dateMs - modifiedMs >= 1000
}

/** One entity-tag of a list, or an empty member; sticky, so that matching ends where the grammar does. Commas and
 *  backslashes inside the quotes are part of the tag (RFC 9110 §8.8.3). Blanks can be matched in one way only: the list
 *  is the client's, and backtracking over it would be the client's lever. */
const MEMBER = /[\t ]*(?:(?:W\/)?("[^"]*")[\t ]*)?(?:,|$)/gy

/** Weak comparison of a tag with each of a list; `*` matches any response there is. */
function listsTag(list: string, tag: string | null): boolean {
  if (list.trim() === '*') return true
  if (tag === null) return false
  // An echo is a match even where the origin forgot the quotes.
  if (list === tag) return true
  const ours = opaque(tag)
  for (const match of list.matchAll(MEMBER)) if (match[1] === ours) return true
  return false
}
