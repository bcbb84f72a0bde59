// What is stored: one response with everything precomputed that a hit compares or sends. Times are wall clock in
// milliseconds, floored to seconds only at output (RFC 9111 §5.1). Bodies are exact buffers: a slice of a socket's
// read buffer would keep 64 KiB alive for 200 bytes.

import type { HeaderList } from '../core/context.ts'
import { WELL_KNOWN } from '../http/credentials.ts'
import { getCombined } from '../http/headers.ts'
import { type Coding, normalizeSelecting } from '../http/negotiation.ts'
import { type Part, lengthOf } from '../http/range.ts'
import { digested, legible } from './digest.ts'
import { listingsOf } from './key.ts'

/** What selects a response among those under one key (RFC 9111 §4.1). */
export interface Selector {
  /** What a trusted proxy said beside the URL; see claimsOf. */
  readonly claims: string
  /** Lower-case request field names, sorted, and their values then, of credentials a digest; null is absent. */
  readonly varyNames: readonly string[]
  readonly varyValues: readonly (string | null)[]
}

/** The part of a stored response that is known before its body has ended. */
export interface StoredHead extends Selector {
  readonly status: number
  /** End-to-end fields, without Age and what belongs to one exchange. */
  readonly headers: HeaderList
  /** When the response came, less the age it had then: now - bornAtMs is its age. */
  readonly bornAtMs: number
}

/** What is stored beside the head, whole or not. */
interface StoredMeta extends StoredHead {
  /** The URL it answers, and what its route tells answers apart by beside that; see key.ts. */
  readonly key: string
  /** Identity of what the route forwards and shares; an entry of another epoch is not used. */
  readonly epoch: string
  readonly freshUntilMs: number
  /** Until when it is fresh by the origin's own word, without the route's ttl or a heuristic; 0 where that says
   *  nothing. Counts beside freshUntilMs, not in its place. */
  readonly originFreshUntilMs: number
  /** Until when it may answer stale while it is being refreshed, and when the origin fails; not later than
   *  freshUntilMs where it may not. */
  readonly staleWhileRevalidateUntilMs: number
  readonly staleIfErrorUntilMs: number
  /** RFC 9111 §3.5: the origin allows it for requests with Authorization. */
  readonly sharedDespiteAuthorization: boolean
  /** Place in the purge log when its fetch began (purge-log.ts): purges after it may be about what was fetched. 0 where
   *  there is no log. */
  readonly purgeSeq: number
  /** By which it can be purged, each once. */
  readonly tags: readonly string[]
  /** Bytes of memory it takes, overhead counted. Grows with its coded forms, by the store alone. */
  sizeBytes: number
  /** Milliseconds that it took to fetch; 0: not known. */
  readonly costMs: number
  /** These very `headers` as lines of a message, once they have been sent; a copy with others has none. sizeBytes counts
   *  them from the beginning. */
  lines?: string
  /** The store's count for eviction; nobody else sets it. */
  uses: number
}

/** A stored response in a content coding, as it is sent. */
export interface CodedForm {
  readonly coding: Coding
  /** All fields of its head; none without a body. */
  readonly headers: HeaderList
  lines?: string
  /** null: it is not worth its memory, which is known now. */
  readonly body: Buffer | null
}

/** A response that is stored whole: the only one that answers who has not asked for a part. */
export interface StoredResponse extends StoredMeta {
  readonly body: Buffer
  /** Of a stream of events, when they came (timeline.ts); null: it is none. */
  readonly timeline: Buffer | null
  /** Its forms in other codings, at most one of each; null: it may have none (coding.ts). It grows by the store's
   *  addForm alone. */
  coded: readonly CodedForm[] | null
}

/** An incomplete response (RFC 9111 §3.3), as its 206 came, without the fields that describe one part. It answers only
 *  who asks for bytes that are there. It is kept in this process and goes no further: who shares a store with other
 *  instances, or writes one to disk, passes over it. */
export interface StoredParts extends StoredMeta {
  readonly body: null
  /** At least one; none overlap. */
  readonly parts: readonly Part[]
  /** Length of the whole; null where the origin did not know it. */
  readonly completeBytes: number | null
}

/** What a store holds. */
export type CacheEntry = StoredResponse | StoredParts

/** What an entry takes beside its text and body: objects, arrays, its places in maps, and what V8 and the allocator keep
 *  for its buffer. Measured by bench/cache-memory.ts: 650-720 bytes on the heap and about 200 outside. */
const ENTRY_OVERHEAD_BYTES = 900
/** What a string takes beside its characters: header, padding and a reference to it. */
const STRING_OVERHEAD_BYTES = 32
/** What a tag takes beside its characters where no other entry has it: its string, and a set of its own in an index. */
const TAG_OVERHEAD_BYTES = 320
/** What a coded form takes beside its body and its places in the list of its fields: objects, and the fields of its own. */
const FORM_OVERHEAD_BYTES = 640
const FIELD_PLACE_BYTES = 8
/** What a timeline takes beside its bytes: a buffer. */
const TIMELINE_OVERHEAD_BYTES = 280
/** The same for one that has no body. */
const NO_FORM_BYTES = 64

/** What a part takes beside its bytes: an object, its buffer, and what the allocator keeps for that. Measured for parts of
 *  64 bytes: 340 bytes on the heap and 180 outside. */
const PART_OVERHEAD_BYTES = 550

/** Memory that an entry takes. Strings are one byte a character: header text is latin1. */
export function entrySizeBytes(entry: Omit<StoredResponse, 'sizeBytes'> | Omit<StoredParts, 'sizeBytes'>): number {
  const { key, claims, headers, varyNames, varyValues, tags } = entry
  let bytes = ENTRY_OVERHEAD_BYTES + key.length + claims.length
  if (entry.body === null) bytes += lengthOf(entry.parts) + entry.parts.length * PART_OVERHEAD_BYTES
  else {
    bytes += entry.body.length + (entry.timeline === null ? 0 : TIMELINE_OVERHEAD_BYTES + entry.timeline.length)
    for (const form of entry.coded ?? []) bytes += formSizeBytes(form)
  }
  for (const texts of [headers, varyNames, varyValues])
    for (const text of texts) bytes += (text?.length ?? 0) + STRING_OVERHEAD_BYTES
  if (entry.body !== null) bytes += linesSizeBytes(headers)
  for (const listing of listingsOf({ key, tags })) bytes += listing.length + TAG_OVERHEAD_BYTES
  return bytes
}

/** Memory that a coded form adds to its entry. */
export const formSizeBytes = ({ headers, body }: CodedForm): number =>
  body === null
    ? NO_FORM_BYTES
    : FORM_OVERHEAD_BYTES + FIELD_PLACE_BYTES * headers.length + linesSizeBytes(headers) + body.length

function linesSizeBytes(headers: HeaderList): number {
  // Behind a name stands a colon with a space, behind a value the end of its line.
  let bytes = STRING_OVERHEAD_BYTES
  for (const text of headers) bytes += text.length + 2
  return bytes
}

/** What a request with these fields selects by. varyNames: sorted, lower case. */
export const selectorOf = (request: HeaderList, claims: string, varyNames: readonly string[]): Selector => ({
  claims,
  varyNames,
  varyValues: varyNames.length === 0 ? NOTHING : varyNames.map((name) => keptValue(request, name)),
})

/** One for all that is selected by nothing. */
const NOTHING: readonly (string | null)[] = []

/** True when a request with these fields selects this response. */
export function isSelected(
  request: HeaderList,
  claims: string,
  { claims: theirs, varyNames, varyValues }: Selector,
): boolean {
  if (claims !== theirs) return false
  for (let i = 0; i < varyNames.length; i++) {
    if (keptValue(request, varyNames[i] as string) !== varyValues[i]) return false
  }
  return true
}

/** Clocks of instances differ by that much, and are set right by that much, and nobody is to notice. */
const MAX_AHEAD_MS = 60_000

/** True for what was stored, by its own word, later than now: a clock was wrong then, or is now, and nobody knows how old it
 *  really is. It must not be fresh until its clock comes true. */
export const isAhead = ({ bornAtMs }: Pick<StoredHead, 'bornAtMs'>, nowMs: number): boolean =>
  bornAtMs > nowMs + MAX_AHEAD_MS

/** True when the request that `newer` answered would have selected `older` too, so the newer takes its place. */
export function takesPlaceOf(newer: Selector, older: Selector): boolean {
  if (newer.claims !== older.claims) return false
  return older.varyNames.every((name, i) => {
    const at = newer.varyNames.indexOf(name)
    return (at < 0 ? null : newer.varyValues[at]) === older.varyValues[i]
  })
}

/** What is kept of a value that selects goes where entries go: to other instances, to disk and to the admin port. So of
 *  credentials it is a digest, and of what nobody here knows the meaning of, unless it is too short for one. */
function keptValue(request: HeaderList, lowerName: string): string | null {
  const value = selectingValue(request, lowerName)
  if (value === null || NEGOTIATING.has(lowerName)) return value
  return lowerName === 'cookie' || WELL_KNOWN.names.has(lowerName) ? digested(value) : legible(value)
}

/** Fields that say what a client takes, is or asks, and never who it is. Lower case. */
const NEGOTIATING: ReadonlySet<string> = new Set([
  'accept',
  'accept-charset',
  'accept-encoding',
  'accept-language',
  'content-type',
  'origin',
  'user-agent',
  'x-requested-with',
])

/** Values of the same meaning in one spelling; null when absent, which is not the same as empty. */
export const selectingValue = (request: HeaderList, lowerName: string): string | null =>
  normalizeSelecting(lowerName, getCombined(request, lowerName))
