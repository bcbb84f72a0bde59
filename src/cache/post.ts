// The answer to a POST that is what its URL shows from now on (RFC 9110 §9.3.3, RFC 9111 §4): the origin says so by
// naming that URL in Content-Location, with freshness of its own. Stored, it answers the GETs that come later.
//
// Before that, what is stored under the URL goes, since the POST may have changed it: so there are two flights, one from
// the moment when the POST was sent, which its own change spoils once and a change by anybody else a second time, and one
// from after its own change, by which its answer is stored. Never for who shows credentials, whatever the scope: an answer to a POST is about what was sent.

import type { OriginAnswer, OriginFetch, Reply, RequestContext } from '../core/context.ts'
import { CONDITIONAL_FIELDS } from '../http/conditional.ts'
import { getHeaders, hasHeader } from '../http/headers.ts'
import { joinTags } from '../http/tags.ts'
import type { Flight } from './collapse.ts'
import { type Asked, takeAnswer } from './fill.ts'
import { urlOfKey } from './key.ts'
import { type CachePolicy, credentialOf, decideStore, fillRefusal } from './policy.ts'
import { urlNamedBy } from './purge.ts'
import type { Reason } from './reasons.ts'
import { originReply } from './reply.ts'
import { type ForwardReason, sayForwarded } from './status.ts'

/** A POST on its way to the origin. */
export interface Posted extends Asked {
  readonly why: ForwardReason
  readonly originFetch: OriginFetch
  /** Open since it was sent, under the key of a GET. Closed by keep(), or where there is none by the caller. */
  readonly watch: Flight
}

/** The answer to a POST as one that may be stored when its `keep` is called, which must be after the invalidation that it
 *  calls for; null where it is for this client alone. */
export function keptReply(posted: Posted, answer: OriginAnswer): Reply | null {
  const { ctx, shared, policy, sentAtMs, watch } = posted
  if (watch.isSpoiled || answer.status !== 200 || !isAboutItself(watch.key, answer) || !isPlain(ctx, policy))
    return null
  const nowMs = shared.now()
  const verdict = decideStore(ctx, answer, policy, nowMs, nowMs - sentAtMs)
  if (!verdict.store || verdict.originFreshMs === 0) return null
  const body = answer.takeBody()
  return { ...originReply(answer, body), keep: () => keep(posted, { ...answer, takeBody: () => body }) }
}

function keep(posted: Posted, answer: OriginAnswer): Reply {
  const { ctx, policy, why, watch } = posted
  // Of another change nobody can tell whether the origin had made it before it answered.
  watch.landWith(joinTags(policy.tagsOf(ctx.params), answer.tags === undefined ? [] : answer.tags) ?? [])
  watch.close()
  if (watch.isSpoiled && !watch.isSpoiledTwice) return store(posted, answer)
  ctx.cacheReason = 'purged' satisfies Reason
  sayForwarded(ctx, why, false)
  return originReply(answer, answer.takeBody())
}

function store({ originFetch, watch, ...asked }: Posted, answer: OriginAnswer): Reply {
  const { ctx, shared } = asked
  const { key, epoch, tags } = watch
  const flight = shared.flights.open(key, epoch, null, originFetch, tags, shared.purgeSeq)
  const leave = flight.join()
  ctx.whenAborted(leave)
  return takeAnswer(
    { ...asked, flight, memoryKey: `POST ${key}`, validated: null, stored: null, isBackground: false, leave },
    answer,
  )
}

function isAboutItself(key: string, { headers }: OriginAnswer): boolean {
  const [named, ...more] = getHeaders(headers, 'content-location')
  const url = urlOfKey(key)
  return named !== undefined && more.length === 0 && urlNamedBy(named, url) === url
}

/** Nothing in the request but its body tells its answer from one to a GET. */
const isPlain = ({ headers }: RequestContext, { credentials }: CachePolicy): boolean =>
  credentialOf(headers, credentials) === null &&
  fillRefusal(headers) === null &&
  ![...CONDITIONAL_FIELDS, 'range'].some((name) => hasHeader(headers, name))
