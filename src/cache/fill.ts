// What becomes of an origin's answer to the leader of a flight: stored while it streams, to the leader and to whoever
// reads along, or handed over with the reason why not.
//
// Recording costs memory before it is known to be of use, so all of it together is bounded (MAX_FILL_BYTES). Beyond
// that, and beyond the route's maxObject, an answer just passes through. What slow readers have still to read of what is
// not kept any more is bounded as well (CROWDED_BYTES): beyond that who lags is cut off sooner.
//
// What its body says decides at its end: JSON by answer-rule.ts, a stream of events, which is listened to while it comes,
// by stream-rule.ts.

import type { BodyStream, HeaderList, OriginAnswer, Reply, ReplyBody, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { remember } from '../core/remember.ts'
import { compareWithHead, freshenHeaders } from '../http/conditional.ts'
import { formatHttpDate } from '../http/date.ts'
import { getHeader, getHeaders, hasHeader, ownText, withoutHeaders } from '../http/headers.ts'
import { joinTags } from '../http/tags.ts'
import { mayCode, recoded, sayMayVary } from './coding.ts'
import type { Flight, SharedAnswer } from './collapse.ts'
import { type StoredHead, type StoredResponse, entrySizeBytes, selectorOf } from './entry.ts'
import { claimsOf } from './key.ts'
import { OverheardBody } from './overheard.ts'
import { type CachePolicy, type Storable, type StoreVerdict, credentialOf, decideStore, varyNames } from './policy.ts'
import type { Reason } from './reasons.ts'
import { Recording, exactCopy } from './recording.ts'
import { OF_THE_BYTES, answerStored, isUnchangedFor, notModified, originReply, storedReply } from './reply.ts'
import type { SharedCache } from './shared.ts'
import { type ForwardReason, sayForwarded, sayRevalidated } from './status.ts'
import type { StreamRecord } from './stream-rule.ts'

export const MAX_FILL_BYTES = 128 * 1024 ** 2
/** Of all recordings, with what is held for slow readers alone; beyond it nobody may be much slower than others. */
export const CROWDED_BYTES = 256 * 1024 ** 2

/** A request that has gone to the origin. */
export interface Asked {
  readonly ctx: RequestContext
  readonly shared: SharedCache
  readonly policy: CachePolicy
  /** Wall clock when it went out, milliseconds. */
  readonly sentAtMs: number
}

/** A fetch that a leader has sent. */
export interface Fill extends Asked {
  readonly flight: Flight
  readonly why: ForwardReason
  /** What is remembered when the answer turns out not to be for sharing. */
  readonly memoryKey: string
  /** What the upstream was asked about with its validators; null where it was asked for the whole. */
  readonly validated: StoredResponse | null
  /** What is stored and was to be replaced, validated or not; null where nothing is, or only a part was asked for. */
  readonly stored: StoredResponse | null
  /** True when no client waits for it. */
  readonly isBackground: boolean
  /** Says that the leader has all or has gone. */
  readonly leave: () => void
}

/** Takes the answer in and starts its body. Answers the leader. */
export function takeAnswer(fill: Fill, answer: OriginAnswer): Reply {
  const { ctx, flight, shared, policy, memoryKey, leave } = fill
  const nowMs = shared.now()
  if (answer.status < 500) shared.failures.delete(flight.key)
  if (answer.status === 304 && fill.validated !== null) return freshen(fill, fill.validated, answer, nowMs)
  const verdict = decideStore(ctx, answer, policy, nowMs, nowMs - fill.sentAtMs)
  const isGone = answer.status === 404 || answer.status === 410 || isWithdrawn(verdict)
  // What is stored must not be used any more, not even stale; unless that holds for one user alone.
  if (fill.stored !== null && isGone && mayWithdraw(fill)) forget(shared, flight)
  if (!verdict.store) {
    const body = verdict.reason === 'no-length' ? provedBody(fill, answer) : undefined
    return pass(fill, answer, verdict.reason, body)
  }
  const tags = joinTags(policy.tagsOf(ctx.params), answer.tags === undefined ? [] : answer.tags)
  if (tags === null) return pass(fill, answer, 'tags')
  if (!flight.landWith(tags)) return pass(fill, answer, 'purged')
  const length = getHeader(answer.headers, 'content-length')
  const declaredBytes = length === null ? null : Number(length)
  if (shared.fillBytes + (declaredBytes ?? 0) > MAX_FILL_BYTES) return pass(fill, answer, 'fill-budget')

  const body = answer.takeBody()
  if (Buffer.isBuffer(body) && body.length > policy.maxObjectBytes) return pass(fill, answer, 'too-large', body)
  const head = storedHead(ctx, answer, nowMs, verdict.ageMs)
  const isFresh = verdict.freshMs > 0
  const costMs = () => Math.max(0, shared.now() - fill.sentAtMs)
  const stream = policy.streamRule.recordOf(ctx.method, answer.headers)
  const isJudged = stream !== null || policy.answerRule.concerns(ctx.method, answer)
  // What takes the place of another takes no more memory.
  const noRoom = shared.memory.isFull && fill.stored === null ? ('heap-full' as const) : null
  ctx.cacheReason = noRoom ?? ctx.cacheReason
  const keep = (whole: Buffer) => {
    const refusal = noRoom ?? (isJudged ? judge(fill, answer, stream, whole) : null)
    // Whoever reads along has it all the same, as if it were stored: asking again would be the same answer once more.
    if (refusal !== null) ctx.cacheReason = refusal
    else if (!flight.isSpoiled) {
      const entry =
        stream === null
          ? storedResponse(flight, head, whole, verdict, nowMs, costMs())
          : storedStream(flight, head, whole, verdict, nowMs, costMs(), stream)
      save(shared, entry)
      flight.stored(entry, entry.costMs)
    }
    if (isFresh) shared.flights.unshareable.delete(memoryKey)
    flight.close()
    return refusal
  }
  const share = (shared: SharedAnswer) => (isFresh ? flight.share(shared) : flight.keepToLeader())
  // What has to be validated before each use is not for those who have only waited.
  if (!isFresh) shared.flights.unshareable.add(memoryKey, nowMs)
  if (body === null || Buffer.isBuffer(body)) {
    const whole = body === null ? exactCopy([], 0) : exactCopy([body], body.length)
    stream?.write(whole, nowMs)
    sayForwarded(ctx, fill.why, keep(whole) === null)
    sayMayVary(ctx, policy, head)
    share(wholeAnswer(head, whole))
    return isUnchangedFor(ctx, answer) ? unchanged(ctx, answer) : originReply(answer, body)
  }

  // Whether what is to be looked into is stored, nobody knows before its end.
  sayForwarded(ctx, fill.why, !isJudged && noRoom === null)
  sayMayVary(ctx, policy, head)
  const recording = new Recording(stream === null ? body : heard(stream, shared, body), declaredBytes, {
    hold(deltaBytes) {
      shared.fillBytes += deltaBytes
    },
    refuse(bytes) {
      if (bytes > policy.maxObjectBytes) return 'too-large'
      return shared.fillBytes > MAX_FILL_BYTES ? 'fill-budget' : null
    },
    isCrowded: () => shared.fillBytes > CROWDED_BYTES,
    kept: keep,
    refused(why) {
      if (why === 'too-large') shared.flights.unshareable.add(memoryKey, nowMs)
      flight.close()
    },
  })
  share({ head, open: (left) => recording.open(left) })
  flight.recordedBy(noRoom === null ? recording : null)
  // The leader's part is taken before the start: from the first byte on, what nobody has still to read may be let go of.
  let reply: Reply
  if (fill.isBackground || isUnchangedFor(ctx, answer)) {
    recording.stay(leave)
    reply = unchanged(ctx, answer)
  } else reply = originReply(answer, recording.reader(leave))
  recording.start()
  return reply
}

/** What its body says against storing it, now that it is whole. */
function judge({ ctx, policy }: Fill, answer: OriginAnswer, stream: StreamRecord | null, whole: Buffer): Reason | null {
  return stream === null ? policy.answerRule.refusal(ctx.method, answer, whole) : stream.refusal()
}

const heard = (stream: StreamRecord, { now }: SharedCache, body: BodyStream): BodyStream =>
  new OverheardBody(body, { hear: (chunk) => stream.write(chunk, now()), objection: () => null })

/** The body of an answer that ends with its connection, as everything else does that breaks off. A stream tells where it
 *  cannot end: where it ends there, it is broken off. Throws where that is known already. */
function provedBody({ ctx, policy, shared }: Fill, answer: OriginAnswer): ReplyBody {
  const stream = policy.streamRule.recordOf(ctx.method, answer.headers)
  const body = answer.takeBody()
  if (stream === null || body === null) return body
  const objection = () => (stream.isCutOff ? CUT_OFF : null)
  if (!Buffer.isBuffer(body)) {
    return new OverheardBody(body, { hear: (chunk) => stream.write(chunk, shared.now()), objection })
  }
  stream.write(body, shared.now())
  if (stream.isCutOff) throw CUT_OFF
  return body
}

const CUT_OFF = new GatewayError('upstream_reset', 'The upstream broke the stream off before its end.')

/** RFC 9111 §4.3.4: what is stored is still good, and lives on with the fields of the 304. */
function freshen(fill: Fill, stored: StoredResponse, answer: OriginAnswer, nowMs: number): Reply {
  const { ctx, flight, shared, policy, memoryKey } = fill
  const { body } = stored
  const { verdict, head } = freshened(fill, stored, answer, nowMs)
  const tags = joinTags(joinTags(stored.tags, policy.tagsOf(ctx.params)), answer.tags === undefined ? [] : answer.tags)
  // A purge of one of them meanwhile spoils what was asked for before it.
  const hasLanded = tags !== null && flight.landWith(tags)
  const entry = verdict.store ? storedResponse(flight, head, body, verdict, nowMs, stored.costMs, stored) : null
  if (entry !== null && hasLanded && !flight.isSpoiled) {
    save(shared, entry)
    flight.stored(entry, null)
  } else if (isWithdrawn(verdict) && mayWithdraw(fill)) forget(shared, flight)
  if (verdict.store && hasLanded && verdict.freshMs > 0) {
    shared.flights.unshareable.delete(memoryKey)
    flight.share(wholeAnswer(head, body))
  } else {
    shared.flights.unshareable.add(memoryKey, nowMs)
    flight.keepToLeader()
  }
  flight.close()
  sayRevalidated(ctx, fill.why, nowMs - head.bornAtMs, verdict.store)
  const cookies = cookiesOf(answer.headers)
  if (entry !== null && (policy.storeSetCookie || cookies.length === 0)) {
    return answerStored(ctx, entry, policy.compress ? shared.compressor : null)
  }
  sayMayVary(ctx, policy, head)
  const whole = policy.storeSetCookie ? head : { ...head, headers: [...head.headers, ...cookies] }
  return isUnchangedFor(ctx, whole) ? unchanged(ctx, whole) : storedReply(whole, body)
}

const cookiesOf = (headers: HeaderList): string[] =>
  getHeaders(headers, 'set-cookie').flatMap((value) => ['Set-Cookie', value])

/** For the leader alone, who gets the cookies that came for it: what it holds is the same, its session may not be. */
function unchanged(ctx: RequestContext, head: Pick<StoredHead, 'status' | 'headers'>): Reply {
  const reply = notModified(ctx, head)
  const cookies = cookiesOf(head.headers)
  return cookies.length === 0 ? reply : { ...reply, headers: [...reply.headers, ...cookies] }
}

/** A HEAD that went to the origin tells of what is stored, too (RFC 9111 §4.3.5): where it proves that that is the same,
 *  it lives on. What has changed is stale already, or the HEAD would have been answered here. */
export function freshenByHead(asked: Asked, stored: StoredResponse, answer: OriginAnswer): void {
  const { shared } = asked
  const isThere = shared.store.get(stored.key)?.includes(stored) === true
  if (!isThere || answer.status !== 200 || stored.status !== 200) return
  if (compareWithHead(stored.headers, answer.headers, stored.body.length) !== 'same') return
  const nowMs = shared.now()
  const { verdict, head } = freshened(asked, stored, answer, nowMs)
  if (verdict.store) save(shared, storedResponse(stored, head, stored.body, verdict, nowMs, stored.costMs, stored))
}

/** A stored response with the fields of a later head, and whether it is to be stored so. */
export function freshened(
  { ctx, policy, sentAtMs }: Asked,
  { status, headers }: Pick<StoredHead, 'status' | 'headers'>,
  answer: Pick<OriginAnswer, 'headers'>,
  nowMs: number,
): { readonly verdict: StoreVerdict; readonly head: StoredHead } {
  const newer = withoutHeaders(answer.headers, policy.storeSetCookie ? OF_ONE_EXCHANGE : OF_ONE_USER)
  if (!hasHeader(newer, 'date')) newer.push('Date', formatHttpDate(nowMs))
  const ages = getHeaders(answer.headers, 'age').flatMap((value) => ['Age', value])
  const judged = { status, headers: [...freshenHeaders(headers, newer), ...ages], framed: true }
  const verdict = decideStore(ctx, judged, policy, nowMs, nowMs - sentAtMs)
  return { verdict, head: storedHead(ctx, judged, nowMs, verdict.store ? verdict.ageMs : 0) }
}

export function save({ store, tiers }: SharedCache, entry: StoredResponse): void {
  store.put(entry)
  tiers.write(entry)
}

/** All variants, wherever they are stored. */
export function forget({ store, tiers }: SharedCache, { key, epoch }: Pick<StoredResponse, 'key' | 'epoch'>): void {
  store.delete(key)
  tiers.delete(key, epoch)
}

/** False where what the origin says may hold for one of those alone who share what is stored. */
const mayWithdraw = ({ ctx, policy }: Asked): boolean =>
  policy.isPerUser || credentialOf(ctx.headers, policy.credentials) === null

/** True when the origin does not want it to be kept any more. */
const isWithdrawn = (verdict: StoreVerdict): boolean =>
  !verdict.store && (verdict.reason === 'no-store' || verdict.reason === 'private')

const wholeAnswer = (head: StoredHead, body: Buffer): SharedAnswer => ({
  head,
  open(left) {
    left()
    return { body }
  },
})

/** Hands the answer to the leader alone. */
function pass(
  { ctx, flight, shared, why, memoryKey, isBackground }: Fill,
  answer: OriginAnswer,
  reason: Reason,
  taken?: ReplyBody,
): Reply {
  if (!isOfTheMoment(reason, answer.status)) shared.flights.unshareable.add(memoryKey, shared.now())
  flight.pass(isSick(answer.status))
  ctx.cacheReason = reason
  sayForwarded(ctx, why, false)
  const body = taken === undefined ? answer.takeBody() : taken
  if (!isBackground && !isUnchangedFor(ctx, answer)) return originReply(answer, body)
  if (body !== null && !Buffer.isBuffer(body)) body.cancel()
  return unchanged(ctx, answer)
}

/** True for an error of the moment: the origin cannot, or is asked too much. */
const isSick = (status: number): boolean => status >= 500 || status === 429

/** True where the answer to this request tells nothing about the answers to the next ones. */
const isOfTheMoment = (reason: Reason, status: number): boolean =>
  isSick(status) || status === 304 || reason === 'fill-budget' || reason === 'heap-full' || reason === 'purged'

/** Fields that belong to one exchange: a stored copy would repeat them to others. Retry-After counts from its own answer:
 *  from the cache it would send clients away for as long as the copy is fresh. Names in lower case. */
const OF_ONE_EXCHANGE: { has(lowerName: string): boolean } = {
  has: (lowerName) =>
    lowerName === 'age' ||
    lowerName === 'x-cache' ||
    lowerName === 'cache-status' ||
    lowerName === 'retry-after' ||
    lowerName.startsWith('ratelimit') ||
    lowerName.startsWith('x-ratelimit'),
}

/** Names that are told apart once. */
const MAX_KNOWN_NAMES = 500

const isOfOneExchange = remember((name): boolean => OF_ONE_EXCHANGE.has(name.toLowerCase()), MAX_KNOWN_NAMES)

const OF_ONE_USER: { has(lowerName: string): boolean } = {
  has: (lowerName) => lowerName === 'set-cookie' || OF_ONE_EXCHANGE.has(lowerName),
}

export function storedHead(
  ctx: RequestContext,
  { status, headers }: Storable,
  nowMs: number,
  ageMs: number,
): StoredHead {
  const kept: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    if (!isOfOneExchange(name)) kept.push(name, headers[i + 1] as string)
  }
  // RFC 9110 §6.6.1: a response without Date is given the time at which it came.
  if (!hasHeader(kept, 'date')) kept.push('Date', formatHttpDate(nowMs))
  const { claims, varyNames: names, varyValues } = selectorOf(ctx.headers, claimsOf(ctx), varyNames(headers) ?? [])
  // What it is selected by is a part of a client's request.
  const values = names.length === 0 ? varyValues : varyValues.map((value) => value && ownText(value))
  return { status, headers: kept, bornAtMs: nowMs - ageMs, claims, varyNames: names, varyValues: values }
}

type Named = Pick<StoredResponse, 'key' | 'epoch' | 'tags' | 'purgeSeq'>

/** known: of the same body, which is kept. */
export function storedResponse(
  named: Named,
  head: StoredHead,
  body: Buffer,
  verdict: StoreVerdict & { store: true },
  nowMs: number,
  costMs: number,
  { timeline, coded: forms }: Pick<StoredResponse, 'coded' | 'timeline'> = NOTHING_KNOWN,
): StoredResponse {
  const hasLength = hasHeader(head.headers, 'content-length') || head.status === 204
  const headers = hasLength ? head.headers : [...head.headers, 'Content-Length', String(body.length)]
  const isCodable = timeline === null && mayCode({ status: head.status, headers })
  const coded = isCodable ? recoded(forms ?? [], headers) : null
  const entry: StoredResponse = storedEntry(named, head, headers, verdict, nowMs, costMs, body, timeline, coded)
  entry.sizeBytes = entrySizeBytes(entry)
  return entry
}

const NOTHING_KNOWN: Pick<StoredResponse, 'coded' | 'timeline'> = { coded: [], timeline: null }

/** Fields that vouch for the very bytes that came, comments and all. Lower case. */
const OF_ALL_ITS_BYTES: ReadonlySet<string> = new Set([...OF_THE_BYTES, 'digest', 'repr-digest', 'etag'])

/** The same for a stream: its events alone, and when they came. */
function storedStream(
  named: Named,
  head: StoredHead,
  whole: Buffer,
  verdict: StoreVerdict & { store: true },
  nowMs: number,
  costMs: number,
  stream: StreamRecord,
): StoredResponse {
  const { body, timeline } = stream.recorded(whole)
  const ofEvents = body === whole ? head : { ...head, headers: withoutHeaders(head.headers, OF_ALL_ITS_BYTES) }
  return storedResponse(named, ofEvents, body, verdict, nowMs, costMs, { coded: null, timeline })
}

/** What is stored, but for its size; body: null where parts of one are. All of it at once: a copy with more fields would have
 *  those in an object of their own. */
export function storedEntry<Body extends Buffer | null>(
  { key, epoch, tags, purgeSeq }: Named,
  { status, bornAtMs, claims, varyNames, varyValues }: Omit<StoredHead, 'headers'>,
  headers: HeaderList,
  verdict: StoreVerdict & { store: true },
  nowMs: number,
  costMs: number,
  body: Body,
  timeline: Buffer | null,
  coded: StoredResponse['coded'],
): Omit<StoredResponse, 'body'> & { readonly body: Body } {
  const freshUntilMs = nowMs + verdict.freshMs
  return {
    status,
    headers,
    bornAtMs,
    claims,
    varyNames,
    varyValues,
    key,
    epoch,
    freshUntilMs,
    originFreshUntilMs: verdict.originFreshMs === 0 ? 0 : nowMs + verdict.originFreshMs,
    staleWhileRevalidateUntilMs: freshUntilMs + verdict.staleWhileRevalidateMs,
    staleIfErrorUntilMs: freshUntilMs + verdict.staleIfErrorMs,
    sharedDespiteAuthorization: verdict.sharedDespiteAuthorization,
    purgeSeq,
    tags,
    costMs,
    uses: 0,
    body,
    timeline,
    coded,
    sizeBytes: 0,
  }
}
