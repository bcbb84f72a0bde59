// Answers as clients get them. A client's condition is evaluated here, since fetches that are to be stored are made
// without it (RFC 9110 §13, RFC 9111 §4.3.2).

import { randomBytes } from 'node:crypto'
import type { HeaderList, Reply, ReplyBody, RequestContext } from '../core/context.ts'
import { ifRangeMatches, isNotModified, notModifiedHeaders } from '../http/conditional.ts'
import { getCombined, getHeader, hasHeader, withoutHeaders } from '../http/headers.ts'
import { contentRange, multipartBody, multipartType, parseRange, unsatisfiedRange } from '../http/range.ts'

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
  return partOf(ctx, stored) ?? storedReply(stored, stored.body)
}

/** The parts that a client asks for (RFC 9110 §14.2); null where it is to get the whole: it asks for no part, or holds one
 *  of something else (If-Range). */
function partOf({ method, headers: request }: RequestContext, stored: Head & { readonly body: Buffer }): Reply | null {
  const { status, headers, body } = stored
  const range = method === 'GET' && status === 200 ? getCombined(request, 'range') : null
  if (range === null || !ifRangeMatches(request, headers)) return null
  const parts = parseRange(range, body.length)
  if (parts === 'ignore') return null
  if (parts === 'unsatisfiable') {
    const fields = ['Content-Range', unsatisfiedRange(body.length), 'Content-Length', '0']
    return { status: 416, headers: fields, body: Buffer.alloc(0) }
  }
  const [first, ...more] = parts
  const type = getHeader(headers, 'content-type')
  if (first !== undefined && more.length === 0) {
    const fields = ['Content-Range', contentRange(first.first, first.last, body.length)]
    return partial(withoutHeaders(headers, OF_WHOLE), fields, body.subarray(first.first, first.last + 1))
  }
  const boundary = randomBytes(16).toString('hex')
  const kept = withoutHeaders(headers, OF_ONE_PART)
  return partial(kept, ['Content-Type', multipartType(boundary)], multipartBody(parts, body, type, boundary))
}

const OF_WHOLE: ReadonlySet<string> = new Set(['content-length', 'content-range'])
const OF_ONE_PART: ReadonlySet<string> = new Set([...OF_WHOLE, 'content-type'])

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
