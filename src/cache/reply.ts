// Answers as clients get them. A client's condition is evaluated here, since fetches that are to be stored are made
// without it (RFC 9110 §13, RFC 9111 §4.3.2).

import { randomBytes } from 'node:crypto'
import type { HeaderList, Reply, ReplyBody, RequestContext } from '../core/context.ts'
import { ifRangeMatches, isNotModified, notModifiedHeaders } from '../http/conditional.ts'
import { getCombined, getHeader, hasHeader, withoutHeaders } from '../http/headers.ts'
import {
  type Part,
  contentRange,
  cutFrom,
  multipartBody,
  multipartType,
  parseRange,
  unsatisfiedRange,
} from '../http/range.ts'
import type { StoredParts } from './entry.ts'

interface Head {
  readonly status: number
  readonly headers: HeaderList
}

/** True when this client has what the answer brings; it then gets notModified(). */
export const isUnchangedFor = (ctx: RequestContext, { status, headers }: Head): boolean =>
  status === 200 && isNotModified(ctx.headers, headers)

export const notModified = ({ headers }: Head): Reply => ({
  status: 304,
  headers: notModifiedHeaders(headers),
  body: null,
})

/** A stored response, or one that is being stored. RFC 9110 §15.3.5: a 204 has no content, not even an empty one. */
export const storedReply = ({ status, headers }: Head, body: ReplyBody): Reply => ({
  status,
  headers,
  body: status === 204 ? null : body,
})

/** What a whole stored response answers to this request: that nothing has changed, a part of it, or all of it. */
export function answerStored(ctx: RequestContext, stored: Head & { readonly body: Buffer }): Reply {
  if (isUnchangedFor(ctx, stored)) return notModified(stored)
  const { status, headers, body } = stored
  const range = ctx.method === 'GET' && status === 200 ? getCombined(ctx.headers, 'range') : null
  if (range === null) return storedReply(stored, body)
  const whole = { first: 0, last: body.length - 1, body }
  return partOf(ctx, range, headers, body.length, [whole]) ?? storedReply(stored, body)
}

/** What stored parts answer to this request; null where that takes more of the whole than they hold (RFC 9111 §3.3). */
export function answerParts(ctx: RequestContext, { headers, parts, completeBytes }: StoredParts): Reply | null {
  const range = ctx.method === 'GET' ? getCombined(ctx.headers, 'range') : null
  const reply = range === null ? null : partOf(ctx, range, headers, completeBytes, parts)
  return reply !== null && isNotModified(ctx.headers, headers) ? notModified({ status: 206, headers }) : reply
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
export const originReply = ({ status, headers }: Head, body: ReplyBody): Reply => ({
  status,
  headers: hasHeader(headers, 'x-cache') ? withoutHeaders(headers, X_CACHE) : headers,
  body,
})

const X_CACHE: ReadonlySet<string> = new Set(['x-cache'])
