// Asking the origin about what is stored (RFC 9111 §4.3), and when it may answer unasked (§4.2.4, RFC 5861): which answer
// of an origin counts as none.

import { type FetchOrigin, type OriginFetch, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { CONDITIONAL_FIELDS, sameRepresentation, validatorsOf } from '../http/conditional.ts'
import { withoutHeaders } from '../http/headers.ts'
import type { StoredResponse } from './entry.ts'

/** Asks whether `stored` is still good; a 304 that it answers is about just that. Where the origin's 304 is about
 *  something else, the whole is fetched after all. */
export function fetchIfChanged(fetch: FetchOrigin, ctx: RequestContext, stored: StoredResponse): OriginFetch {
  let current = fetch(ctx, CONDITIONAL_FIELDS, validatorsOf(stored.headers))
  let aborted: GatewayError | null = null
  const answer = current.answer.then((first) => {
    if (first.status !== 304 || sameRepresentation(stored.headers, first.headers)) return first
    if (aborted !== null) throw aborted
    current = fetch(ctx, CONDITIONAL_FIELDS)
    return current.answer
  })
  return {
    answer,
    get isSent() {
      return current.isSent
    },
    abort(reason) {
      aborted ??= reason
      current.abort(reason)
    },
  }
}

/** The request by which a stale response is refreshed: that of the client who found it, whom it outlives, a held body and
 *  all; for a HEAD a GET. It asks for the whole, and tells that client nothing. */
export function refreshing(ctx: RequestContext): RequestContext {
  const { scheme, host, path, query, version, body, peerAddress } = ctx
  const method = ctx.method === 'HEAD' ? 'GET' : ctx.method
  const headers = withoutHeaders(ctx.headers, OF_THE_CLIENT)
  const facts = { method, scheme, host, path, query, version, headers, body, peerAddress }
  const refresh = new RequestContext({ ...facts, receivedAtMs: performance.now() }, ctx.id)
  refresh.clientAddress = ctx.clientAddress
  refresh.peerIsTrusted = ctx.peerIsTrusted
  refresh.route = ctx.route
  refresh.params = ctx.params
  refresh.user = ctx.user
  refresh.cache = 'miss'
  refresh.cacheReason = 'expired'
  return refresh
}

/** What a client asks for beside the whole. A POST asks for nothing else, whatever it says (RFC 9110 §13.1.3, §14.2). */
export const OF_THE_CLIENT: ReadonlySet<string> = new Set([...CONDITIONAL_FIELDS, 'range'])

/** RFC 5861 §4: the statuses that count as an error. */
const ERRORS: ReadonlySet<number> = new Set([500, 502, 503, 504])

/** True when a stale response is better than an answer with this status. */
export const isErrorStatus = (status: number): boolean => ERRORS.has(status)

/** True when a stale response is better than this failure: the upstream's, or that it is not to be asked, for its own sake
 *  or for that of the gateway. */
export const isOutage = (error: unknown): boolean =>
  error instanceof GatewayError && (error.kind.source === 'upstream' || SPARED.has(error.code))

const SPARED: ReadonlySet<string> = new Set([
  'saturated',
  'share_exceeded',
  'breaker_open',
  'cooling_down',
  'overloaded',
])

/** True when this failure says nothing of the upstream, so that it need not be left alone afterwards. */
export const isOwnFailure = (error: unknown): boolean => error instanceof GatewayError && error.code === 'overloaded'
