// Answers as clients get them. A client's condition is evaluated here, since fetches that are to be stored are made
// without it (RFC 9110 §13, RFC 9111 §4.3.2).

import { randomBytes } from 'node:crypto'
import type { HeaderList, Reply, ReplyBody, RequestContext } from '../core/context.ts'
import { isKeyedByBody } from './methods.ts'
import { ifRangeMatches, isNotModified, notModifiedHeaders, weakened } from '../http/conditional.ts'
import { fieldLines, getCombined, getHeader, hasHeader, ownText, withoutHeaders } from '../http/headers.ts'
import { type Coding, acceptsEncoding } from '../http/negotiation.ts'
import {
  type Part,
  contentRange,
  cutFrom,
  multipartBody,
  multipartType,
  parseRange,
  unsatisfiedRange,
} from '../http/range.ts'
import { mayCode, sayVaries } from './coding.ts'
import type { Compressor } from './compress.ts'
import type { CodedForm, StoredParts, StoredResponse } from './entry.ts'

interface Head {
  readonly status: number
  readonly headers: HeaderList
}

/** True when this client has what the answer brings; it then gets notModified(). RFC 9110 §13.1.3: only GET and HEAD ask
 *  for that. */
export const isUnchangedFor = (ctx: RequestContext, { status, headers }: Head): boolean =>
  status === 200 && !isKeyedByBody(ctx.method) && isNotModified(ctx.headers, headers)

export const notModified = (ctx: RequestContext, head: Head): Reply => ({
  status: 304,
  headers: mayCode(head) ? asHeld(ctx.headers, notModifiedHeaders(head.headers)) : notModifiedHeaders(head.headers),
  body: null,
})

/** Names the tag of a 304 as the client does. Who holds the weak form of a strong tag holds other bytes, those of a coding,
 *  and must not come to take them for the ones of the strong tag. */
function asHeld(request: HeaderList, headers: string[]): string[] {
  const tag = weakened(getHeader(headers, 'etag') ?? '')
  const isHeldWeak = tag !== '' && getCombined(request, 'if-none-match')?.includes(tag) === true
  return isHeldWeak ? [...withoutHeaders(headers, ETAG), 'ETag', tag] : headers
}

const ETAG: ReadonlySet<string> = new Set(['etag'])

/** A stored response, or one that is being stored. RFC 9110 §15.3.5: a 204 has no content, not even an empty one. */
export const storedReply = ({ status, headers }: Head, body: ReplyBody): Reply => ({
  status,
  headers,
  body: status === 204 ? null : body,
})

/** What a whole stored response answers to this request: that nothing has changed, a part of it, or all of it, coded where
 *  that may be. compressor: null where the route leaves bodies as they are. */
export function answerStored(ctx: RequestContext, stored: StoredResponse, compressor: Compressor | null): Reply {
  const isCodable = compressor !== null && stored.coded !== null
  if (isCodable) sayVaries(ctx, stored)
  const { status, headers, body } = stored
  const range = ctx.method === 'GET' && status === 200 ? getCombined(ctx.headers, 'range') : null
  const coded = isCodable && range === null ? codedReply(ctx, stored, compressor) : null
  if (isUnchangedFor(ctx, stored)) return notModified(ctx, coded ?? stored)
  if (range === null) return coded ?? wholeReply(stored, status, body)
  // All forms have the same date: by that alone the client may hold a part of a coded one.
  if (isCodable && getHeader(ctx.headers, 'if-range')?.startsWith('"') === false) return storedReply(stored, body)
  const whole = { first: 0, last: body.length - 1, body }
  return partOf(ctx, range, headers, body.length, [whole]) ?? storedReply(stored, body)
}

/** A whole stored form. Its fields have been made lines by the first that was sent. */
function wholeReply(form: StoredResponse | CodedForm, status: number, body: Buffer): Reply {
  const { headers } = form
  return { status, headers, body: status === 204 ? null : body, lines: (form.lines ??= ownText(fieldLines(headers))) }
}

/** What is stored, in the coding that this client likes best of those at hand; null: as it is. One that it would like
 *  better still is made for those who come later. On the way of every hit: no closures. */
function codedReply(ctx: RequestContext, stored: StoredResponse, compressor: Compressor): Reply | null {
  const forms = stored.coded
  const accepted = getCombined(ctx.headers, 'accept-encoding')
  if (forms === null || accepted === null) return null
  const codings = acceptsEncoding(accepted)
  for (let i = 0; i < codings.length; i++) {
    const form = formIn(forms, codings[i] as Coding)
    if (i === 0 && form === null) compressor.want(stored, codings[i] as Coding)
    if (form !== null && form.body !== null) return wholeReply(form, 200, form.body)
  }
  return null
}

function formIn(forms: readonly CodedForm[], coding: Coding): CodedForm | null {
  for (const form of forms) if (form.coding === coding) return form
  return null
}

/** What stored parts answer to this request; null where that takes more of the whole than they hold (RFC 9111 §3.3). */
export function answerParts(ctx: RequestContext, { headers, parts, completeBytes }: StoredParts): Reply | null {
  const range = ctx.method === 'GET' ? getCombined(ctx.headers, 'range') : null
  const reply = range === null ? null : partOf(ctx, range, headers, completeBytes, parts)
  return reply !== null && isNotModified(ctx.headers, headers) ? notModified(ctx, { status: 206, headers }) : reply
}

/** The parts that a client asks for (RFC 9110 §14.2); null where it is to get something else: it asks for no part, holds
 *  one of something else (If-Range), or asks for what is not held. completeBytes: null where it is not known. */
function partOf(
  { headers: request }: RequestContext,
  range: string,
  headers: HeaderList,
  completeBytes: number | null,
  held: readonly Part[],
): Reply | null {
  if (!ifRangeMatches(request, headers)) return null
  const spans = parseRange(range, completeBytes ?? Infinity)
  if (spans === 'ignore') return null
  if (spans === 'unsatisfiable') {
    if (completeBytes === null) return null
    const fields = ['Content-Range', unsatisfiedRange(completeBytes), 'Content-Length', '0']
    return { status: 416, headers: fields, body: Buffer.alloc(0) }
  }
  const parts: Part[] = []
  for (const span of spans) {
    const body = cutFrom(held, span)
    if (body === null) return null
    parts.push({ ...span, body })
  }
  const [only, ...more] = parts
  if (only !== undefined && more.length === 0) {
    const fields = ['Content-Range', contentRange(only.first, only.last, completeBytes)]
    return partial(withoutHeaders(headers, OF_THE_BYTES), fields, only.body)
  }
  const type = getHeader(headers, 'content-type')
  const boundary = randomBytes(16).toString('hex')
  const kept = withoutHeaders(headers, OF_THE_BYTES_AND_TYPE)
  const body = multipartBody(parts, completeBytes, type, boundary)
  return partial(kept, ['Content-Type', multipartType(boundary)], body)
}

/** Fields that describe the very bytes of one message, so not those of another part, or of the whole (RFC 9110 §8.6,
 *  §14.4; RFC 9530 §2). Lower case. */
export const OF_THE_BYTES: ReadonlySet<string> = new Set([
  'content-length',
  'content-range',
  'content-digest',
  'content-md5',
])
const OF_THE_BYTES_AND_TYPE: ReadonlySet<string> = new Set([...OF_THE_BYTES, 'content-type'])

const partial = (kept: string[], fields: HeaderList, body: Buffer): Reply => ({
  status: 206,
  headers: [...kept, ...fields, 'Content-Length', String(body.length)],
  body,
})

/** An answer straight from the origin. What the gateway says itself, the origin's word of it would contradict. */
export function originReply(answer: Head & { readonly framed?: boolean }, body: ReplyBody): Reply {
  const { status } = answer
  const headers = hasHeader(answer.headers, 'x-cache') ? withoutHeaders(answer.headers, X_CACHE) : answer.headers
  return answer.framed === false ? { status, headers, body, isUnframed: true } : { status, headers, body }
}

const X_CACHE: ReadonlySet<string> = new Set(['x-cache'])
