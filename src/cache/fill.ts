// What becomes of an origin's answer to the leader of a flight: stored while it streams, to the leader and to whoever
// reads along, or handed over with the reason why not.
//
// Recording costs memory before it is known to be of use, so all of it together is bounded (MAX_FILL_BYTES). Beyond
// that, and beyond the route's maxObject, an answer just passes through.

import type { OriginAnswer, Reply, RequestContext } from '../core/context.ts'
import { formatHttpDate } from '../http/date.ts'
import { getHeader, hasHeader, withoutHeaders } from '../http/headers.ts'
import { joinTags } from '../http/tags.ts'
import type { Flight, SharedAnswer } from './collapse.ts'
import { type StoredHead, type StoredResponse, entrySizeBytes, selectorOf } from './entry.ts'
import { claimsOf } from './key.ts'
import { type CachePolicy, type StoreVerdict, decideStore, varyNames } from './policy.ts'
import type { Reason } from './reasons.ts'
import { Recording, exactCopy } from './recording.ts'
import { isUnchangedFor, notModified, originReply } from './reply.ts'
import type { SharedCache } from './shared.ts'
import { type ForwardReason, sayForwarded } from './status.ts'

const MAX_FILL_BYTES = 128 * 1024 ** 2

/** A fetch that a leader has sent. */
export interface Fill {
  readonly ctx: RequestContext
  readonly flight: Flight
  readonly shared: SharedCache
  readonly policy: CachePolicy
  readonly why: ForwardReason
  /** What is remembered when the answer turns out not to be for sharing. */
  readonly memoryKey: string
  /** Wall clock when it went out, milliseconds. */
  readonly sentAtMs: number
  /** Says that the leader has all or has gone. */
  readonly leave: () => void
}

/** Takes the answer in and starts its body. Answers the leader. */
export function takeAnswer(fill: Fill, answer: OriginAnswer): Reply {
  const { ctx, flight, shared, policy, memoryKey, leave } = fill
  const nowMs = shared.now()
  const verdict = decideStore(ctx, answer, policy, nowMs, nowMs - fill.sentAtMs)
  if (!verdict.store) return pass(fill, answer, verdict.reason)
  const tags = joinTags(policy.tagsOf(ctx.params), answer.tags === undefined ? [] : answer.tags)
  if (tags === null) return pass(fill, answer, 'tags')
  if (!flight.landWith(tags)) return pass(fill, answer, 'purged')
  const length = getHeader(answer.headers, 'content-length')
  const declaredBytes = length === null ? null : Number(length)
  if (shared.fillBytes + (declaredBytes ?? 0) > MAX_FILL_BYTES) return pass(fill, answer, 'fill-budget')

  const body = answer.takeBody()
  if (Buffer.isBuffer(body) && body.length > policy.maxObjectBytes) return pass(fill, answer, 'too-large', body)
  const head = storedHead(ctx, answer, nowMs, verdict.ageMs)
  const costMs = () => Math.max(0, shared.now() - fill.sentAtMs)
  const keep = (whole: Buffer) => {
    if (!flight.isSpoiled) shared.store.put(storedResponse(flight, head, whole, verdict, nowMs, costMs()))
    shared.flights.unshareable.delete(memoryKey)
    flight.close()
  }
  sayForwarded(ctx, fill.why, true)

  if (body === null || Buffer.isBuffer(body)) {
    const whole = body === null ? exactCopy([], 0) : exactCopy([body], body.length)
    keep(whole)
    flight.share(wholeAnswer(head, whole))
    return isUnchangedFor(ctx, answer) ? notModified(answer) : originReply(answer, body)
  }

  const recording = new Recording(body, declaredBytes, {
    hold(deltaBytes) {
      shared.fillBytes += deltaBytes
    },
    refuse(bytes) {
      if (bytes > policy.maxObjectBytes) return 'too-large'
      return shared.fillBytes > MAX_FILL_BYTES ? 'fill-budget' : null
    },
    kept: keep,
    refused(why) {
      if (why === 'too-large') shared.flights.unshareable.add(memoryKey, nowMs)
      flight.close()
    },
  })
  flight.share({ head, open: (left) => recording.open(left) })
  // The leader's part is taken before the start: from the first byte on, what nobody has still to read may be let go of.
  let reply: Reply
  if (isUnchangedFor(ctx, answer)) {
    recording.stay(leave)
    reply = notModified(answer)
  } else reply = originReply(answer, recording.reader(leave))
  recording.start()
  return reply
}

const wholeAnswer = (head: StoredHead, body: Buffer): SharedAnswer => ({
  head,
  open(left) {
    left()
    return { body }
  },
})

/** Hands the answer to the leader alone. */
function pass(
  { ctx, flight, shared, why, memoryKey }: Fill,
  answer: OriginAnswer,
  reason: Reason,
  taken?: Buffer,
): Reply {
  if (!isOfTheMoment(reason, answer.status)) shared.flights.unshareable.add(memoryKey, shared.now())
  flight.pass()
  ctx.cacheReason = reason
  sayForwarded(ctx, why, false)
  const body = taken ?? answer.takeBody()
  if (!isUnchangedFor(ctx, answer)) return originReply(answer, body)
  if (body !== null && !Buffer.isBuffer(body)) body.cancel()
  return notModified(answer)
}

/** True where the answer to this request tells nothing about the answers to the next ones. */
const isOfTheMoment = (reason: Reason, status: number): boolean =>
  status >= 500 || status === 304 || reason === 'fill-budget' || reason === 'purged'

/** Fields that belong to one exchange: a stored copy would repeat them to others. Names in lower case. */
const OF_ONE_EXCHANGE: { has(lowerName: string): boolean } = {
  has: (lowerName) =>
    lowerName === 'age' ||
    lowerName === 'x-cache' ||
    lowerName === 'cache-status' ||
    lowerName.startsWith('ratelimit') ||
    lowerName.startsWith('x-ratelimit'),
}

function storedHead(ctx: RequestContext, { status, headers }: OriginAnswer, nowMs: number, ageMs: number): StoredHead {
  const kept = withoutHeaders(headers, OF_ONE_EXCHANGE)
  // RFC 9110 §6.6.1: a response without Date is given the time at which it came.
  if (!hasHeader(kept, 'date')) kept.push('Date', formatHttpDate(nowMs))
  const selector = selectorOf(ctx.headers, claimsOf(ctx), varyNames(headers) ?? [])
  return { status, headers: kept, bornAtMs: nowMs - ageMs, ...selector }
}

function storedResponse(
  { key, epoch, tags }: Flight,
  head: StoredHead,
  body: Buffer,
  { freshMs, originFreshMs, sharedDespiteAuthorization }: StoreVerdict & { store: true },
  nowMs: number,
  costMs: number,
): StoredResponse {
  const hasLength = hasHeader(head.headers, 'content-length') || head.status === 204
  const entry = {
    ...head,
    headers: hasLength ? head.headers : [...head.headers, 'Content-Length', String(body.length)],
    key,
    epoch,
    body,
    freshUntilMs: nowMs + freshMs,
    originFreshUntilMs: originFreshMs === 0 ? 0 : nowMs + originFreshMs,
    sharedDespiteAuthorization,
    tags,
    costMs,
    uses: 0,
  }
  return { ...entry, sizeBytes: entrySizeBytes(entry) }
}
