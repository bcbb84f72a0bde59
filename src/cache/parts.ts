// What becomes of the 206 to a client that asked for a part (RFC 9111 §3.3, §3.4): stored while it streams, and put
// together with what is stored of the same representation. Which that is, a strong validator says, and where there are
// bytes to compare, the bytes; in doubt nothing is put together. What is whole in the end is stored as a 200.
//
// The part is asked for as the client asks: the whole would be the surer hit for the next one, but may be a film of which
// nobody wants more. Who asks is alone with it, since nobody else can know what will come of which bytes.

import type { OriginAnswer, Reply } from '../core/context.ts'
import { sharesStrongValidator } from '../http/conditional.ts'
import { getHeader, getHeaders, hasHeader, withoutHeaders } from '../http/headers.ts'
import { type ContentRange, type Part, addPart, cutFrom, parseContentRange } from '../http/range.ts'
import { joinTags } from '../http/tags.ts'
import { type CacheEntry, type StoredHead, entrySizeBytes, isSelected } from './entry.ts'
import {
  CROWDED_BYTES,
  type Fill,
  MAX_FILL_BYTES,
  forget,
  freshened,
  save,
  storedHead,
  storedEntry,
  storedResponse,
} from './fill.ts'
import { claimsOf } from './key.ts'
import { type StoreVerdict, decideStore } from './policy.ts'
import type { Reason } from './reasons.ts'
import { Recording, exactCopy } from './recording.ts'
import { OF_THE_BYTES, originReply } from './reply.ts'
import { sayForwarded } from './status.ts'

/** The one part that an answer brings, as far as its head can prove that; null where it brings none that may be put
 *  together with others. */
export function partIn({ status, headers }: Pick<OriginAnswer, 'status' | 'headers'>): ContentRange | null {
  const [range, ...more] = getHeaders(headers, 'content-range')
  if (status !== 206 || range === undefined || more.length > 0) return null
  const part = parseContentRange(range)
  if (part === null || 'unsatisfied' in part) return null
  if (/^multipart\/byteranges\b/i.test(getHeader(headers, 'content-type') ?? '')) return null
  const length = getHeader(headers, 'content-length')
  if (length !== null && Number(length) !== lengthOf(part)) return null
  return sharesStrongValidator(headers, headers) ? part : null
}

const lengthOf = ({ first, last }: ContentRange): number => last - first + 1

/** A part whose head has come. */
interface Arriving {
  readonly fill: Fill
  readonly answer: OriginAnswer
  readonly range: ContentRange
  /** Of the part alone. */
  readonly verdict: StoreVerdict & { store: true }
  readonly tags: readonly string[]
  /** Wall clock when its head came, milliseconds. */
  readonly nowMs: number
}

/** Takes the answer to a request for a part, which is not the whole, and starts its body. Answers the client. */
export function takePart(fill: Fill, answer: OriginAnswer): Reply {
  const { ctx, flight, shared, policy } = fill
  const nowMs = shared.now()
  if (answer.status < 500) shared.failures.delete(flight.key)
  if (answer.status !== 206) return pass(fill, answer, 'range')
  const range = partIn(answer)
  if (range === null) return pass(fill, answer, 'partial')
  // Judged as the 200 would be that it is a part of.
  const verdict = decideStore(ctx, { ...answer, status: 200 }, policy, nowMs, nowMs - fill.sentAtMs)
  if (!verdict.store) return pass(fill, answer, verdict.reason)
  // A part does not tell what its whole says.
  const isJudged = policy.answerRule.concerns(ctx.method, { ...answer, status: 200 })
  if (isJudged || policy.streamRule.isStream(ctx.method, answer.headers)) return pass(fill, answer, 'partial')
  if (lengthOf(range) > policy.maxObjectBytes) return pass(fill, answer, 'too-large')
  const held = sameIn(fill, answer)
  // RFC 9110 §15.3.7: to who has the fields already, an origin need not send those of the representation again.
  if (held === null && hasHeader(ctx.headers, 'if-range')) return pass(fill, answer, 'partial')
  const given = joinTags(policy.tagsOf(ctx.params), answer.tags === undefined ? [] : answer.tags)
  const tags = joinTags(held?.tags ?? [], given)
  if (tags === null) return pass(fill, answer, 'tags')
  if (!flight.landWith(tags)) return pass(fill, answer, 'purged')
  if (shared.fillBytes + lengthOf(range) > MAX_FILL_BYTES) return pass(fill, answer, 'fill-budget')
  if (shared.memory.isFull) return pass(fill, answer, 'heap-full')
  return record({ fill, answer, range, verdict, tags, nowMs })
}

/** Hands it to the client alone. Nothing is said of the whole, for which others may still wait for each other. */
function pass({ ctx, flight, why }: Fill, answer: OriginAnswer, reason: Reason, taken?: Buffer): Reply {
  flight.pass()
  ctx.cacheReason = reason
  sayForwarded(ctx, why, false)
  return originReply(answer, taken ?? answer.takeBody())
}

function record(arriving: Arriving): Reply {
  const { fill, answer, range } = arriving
  const { ctx, flight, shared } = fill
  const keep = (body: Buffer) => {
    if (!flight.isSpoiled && body.length === lengthOf(range)) store(arriving, { ...range, body })
    flight.close()
  }
  const body = answer.takeBody() ?? Buffer.alloc(0)
  if (Buffer.isBuffer(body)) {
    if (body.length !== lengthOf(range)) return pass(fill, answer, 'partial', body)
    keep(exactCopy([body], body.length))
    flight.pass()
    sayForwarded(ctx, fill.why, true)
    return originReply(answer, body)
  }
  const recording = new Recording(body, lengthOf(range), {
    hold(deltaBytes) {
      shared.fillBytes += deltaBytes
    },
    refuse(bytes) {
      if (bytes > lengthOf(range)) return 'partial'
      return shared.fillBytes > MAX_FILL_BYTES ? 'fill-budget' : null
    },
    isCrowded: () => shared.fillBytes > CROWDED_BYTES,
    kept: keep,
    refused: () => flight.close(),
  })
  flight.keepToLeader()
  sayForwarded(ctx, fill.why, true)
  const reply = originReply(answer, recording.reader(fill.leave))
  recording.start()
  return reply
}

/** What is stored for this request, of whatever validator. */
function* storedFor({ ctx, flight, shared }: Fill): Generator<CacheEntry> {
  const claims = claimsOf(ctx)
  for (const entry of shared.store.get(flight.key) ?? []) {
    if (entry.epoch === flight.epoch && isSelected(ctx.headers, claims, entry)) yield entry
  }
}

/** What is stored of the same representation. */
function sameIn(fill: Fill, { headers }: OriginAnswer): CacheEntry | null {
  for (const entry of storedFor(fill)) {
    if ((entry.body === null || entry.status === 200) && sharesStrongValidator(entry.headers, headers)) return entry
  }
  return null
}

function store(arriving: Arriving, part: Part): void {
  const { fill, answer, range, verdict, nowMs } = arriving
  const { ctx, shared } = fill
  const held = sameIn(fill, answer)
  if (held !== null) return combine(arriving, held, part)
  for (const entry of storedFor(fill)) {
    // It came meanwhile, or this would not have been asked for: which of the two is newer nobody can tell.
    if (entry.body !== null && entry.freshUntilMs > shared.now()) return
  }
  const headers = withoutHeaders(answer.headers, OF_THE_BYTES)
  const head = storedHead(ctx, { status: 200, headers, framed: true }, nowMs, verdict.ageMs)
  put(arriving, head, [part], range.completeLength, verdict, null)
}

/** RFC 9111 §3.4: what is stored gets the part, and the fields of its head. */
function combine(arriving: Arriving, held: CacheEntry, part: Part): void {
  const { fill, answer, range, nowMs } = arriving
  const heldParts = held.body === null ? held.parts : [{ first: 0, last: held.body.length - 1, body: held.body }]
  const heldComplete = held.body === null ? held.completeBytes : held.body.length
  const completeBytes = heldComplete ?? range.completeLength
  const parts = addPart(heldParts, part, fill.policy.maxObjectBytes)
  const fits = [...heldParts, part].every(({ last }) => last < (completeBytes ?? Infinity))
  if (parts === null || !fits || completeBytes !== (range.completeLength ?? completeBytes)) {
    // The validator says that it is the same, and it is not: neither is to be trusted.
    forget(fill.shared, fill.flight)
    return
  }
  const newer = { headers: withoutHeaders(answer.headers, OF_THE_BYTES) }
  const { verdict, head } = freshened(fill, { status: 200, headers: held.headers }, newer, nowMs)
  if (verdict.store) put(arriving, head, parts, completeBytes, verdict, held)
}

/** Stores what there is now: as the whole, where it is all. */
function put(
  { fill, tags, nowMs }: Arriving,
  head: StoredHead,
  parts: readonly Part[],
  completeBytes: number | null,
  verdict: StoreVerdict & { store: true },
  held: CacheEntry | null,
): void {
  const { flight, sentAtMs, shared } = fill
  const { key, epoch, purgeSeq } = flight
  const all = joinTags(held?.tags ?? [], tags)
  if (all === null) return
  const named = { key, epoch, purgeSeq, tags: all }
  const costMs = (held?.costMs ?? 0) + Math.max(0, shared.now() - sentAtMs)
  const whole = completeBytes === null ? null : cutFrom(parts, { first: 0, last: completeBytes - 1 })
  if (whole !== null) {
    return save(shared, storedResponse(named, { ...head, status: 200 }, whole, verdict, nowMs, costMs))
  }
  const { headers } = head
  const meta = storedEntry(named, { ...head, status: 206 }, headers, verdict, nowMs, costMs, null, null, null)
  const entry = { ...meta, parts, completeBytes }
  shared.store.put({ ...entry, sizeBytes: entrySizeBytes(entry) })
}
