// Answers as clients get them. A client's condition is evaluated here, since fetches that are to be stored are made
// without it (RFC 9110 §13, RFC 9111 §4.3.2).

import type { HeaderList, Reply, ReplyBody, RequestContext } from '../core/context.ts'
import { isNotModified, notModifiedHeaders } from '../http/conditional.ts'
import { hasHeader, withoutHeaders } from '../http/headers.ts'

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

/** An answer straight from the origin. What the gateway says itself, the origin's word of it would contradict. */
export const originReply = ({ status, headers }: Head, body: ReplyBody): Reply => ({
  status,
  headers: hasHeader(headers, 'x-cache') ? withoutHeaders(headers, X_CACHE) : headers,
  body,
})

const X_CACHE: ReadonlySet<string> = new Set(['x-cache'])
