// Byte ranges (RFC 9110 §14): what a Range field asks of a body whose length is known, what Content-Range says of a part,
// and parts put together: several in one answer (§15.3.7.2), or what is held of one representation (§15.3.7.3).
//
// A Range is a wish. Whatever is malformed, in another unit, or of more parts than anybody has use for is ignored, and
// the answer is the whole: no range makes an answer larger than the body and a few part heads. A Content-Range is a
// claim: one that does not add up is null, and such a part is not to be stored.

/** Bytes from first to last, both included. */
export interface Span {
  readonly first: number
  readonly last: number
}

/** The parts to send, at least one, in the order asked; or none is to be had (416); or answer as if nothing was asked. */
export type RangeVerdict = readonly Span[] | 'unsatisfiable' | 'ignore'

/** A request for more parts, after those that meet have been joined, is answered with the whole. */
export const MAX_PARTS = 16

/** One range of a list, or an empty member, with its comma; sticky, so that matching ends where the grammar does. Blanks
 *  can be matched in one way only, so that a long run of them costs no backtracking. */
const MEMBER = /[\t ]*(?:(?:(\d+)-(\d*)|-(\d+))[\t ]*)?(?:,|$)/gy

/** What a Range field asks of a representation of `length` bytes. Ranges that overlap or touch become one part, where the
 *  first of them stood. length: Infinity where it is not known; a range that needs it then has a last of Infinity. */
export function parseRange(value: string, length: number): RangeVerdict {
  const unit = /^bytes=/i.exec(value)
  if (unit === null) return 'ignore'
  const ranges = value.slice(unit[0].length)
  const spans: Span[] = []
  let end = 0
  let count = 0
  for (const match of ranges.matchAll(MEMBER)) {
    end = match.index + match[0].length
    const [, from, to, suffix] = match
    if (from === undefined && suffix === undefined) continue
    count++
    // Numbers too large to be told apart lie beyond the end of any body, all of them.
    if (from !== undefined) {
      const first = Number(from)
      const last = to === '' ? Infinity : Number(to)
      if (last < first) return 'ignore'
      if (first < length) spans.push({ first, last: Math.min(last, length - 1) })
    } else if (Number(suffix) > 0) {
      // RFC 9110 §14.1.2: an empty body satisfies a suffix, but a 206 has no way to say so.
      if (length === 0) return 'ignore'
      spans.push({ first: Math.max(0, length - Number(suffix)), last: length - 1 })
    }
  }
  if (end !== ranges.length || count === 0) return 'ignore'
  if (spans.length === 0) return 'unsatisfiable'
  const parts = joined(spans)
  return parts.length > MAX_PARTS ? 'ignore' : parts
}

function joined(spans: readonly Span[]): Span[] {
  if (spans.length === 1) return [...spans]
  const parts: { first: number; last: number; place: number }[] = []
  const ascending = spans.map((span, place) => ({ ...span, place })).sort((a, b) => a.first - b.first)
  for (const span of ascending) {
    const part = parts.at(-1)
    if (part === undefined || span.first > part.last + 1) {
      parts.push(span)
      continue
    }
    part.last = Math.max(part.last, span.last)
    part.place = Math.min(part.place, span.place)
  }
  return parts.sort((a, b) => a.place - b.place).map(({ first, last }) => ({ first, last }))
}

/** What a 206 of one part says of itself. */
export interface ContentRange extends Span {
  /** null where the origin did not know it. */
  readonly completeLength: number | null
}

/** RFC 9110 §14.4. null for anything but bytes, for what does not add up, and beyond 15 digits. */
export function parseContentRange(value: string): ContentRange | { readonly unsatisfied: number } | null {
  const match = /^bytes (?:(\d{1,15})-(\d{1,15})\/(?:(\d{1,15})|\*)|\*\/(\d{1,15}))$/i.exec(value)
  if (match === null) return null
  if (match[4] !== undefined) return { unsatisfied: Number(match[4]) }
  const first = Number(match[1])
  const last = Number(match[2])
  const completeLength = match[3] === undefined ? null : Number(match[3])
  return first <= last && last < (completeLength ?? Infinity) ? { first, last, completeLength } : null
}

/** completeLength: null where it is not known. */
export const contentRange = (first: number, last: number, completeLength: number | null): string =>
  `bytes ${first}-${last}/${completeLength ?? '*'}`

/** The Content-Range of a 416. */
export const unsatisfiedRange = (completeLength: number): string => `bytes */${completeLength}`

/** The body of a 206 with several parts (§14.6). completeLength: null where it is not known. contentType: that of the
 *  whole. boundary: 1 to 70 letters and digits that occur nowhere in the body, so make it of random ones. */
export function multipartBody(
  parts: readonly Part[],
  completeLength: number | null,
  contentType: string | null,
  boundary: string,
): Buffer {
  const type = contentType === null ? '' : `Content-Type: ${contentType}\r\n`
  const pieces: Buffer[] = []
  for (const { first, last, body } of parts) {
    const range = contentRange(first, last, completeLength)
    const lead = pieces.length === 0 ? '' : '\r\n'
    pieces.push(Buffer.from(`${lead}--${boundary}\r\n${type}Content-Range: ${range}\r\n\r\n`, 'latin1'))
    pieces.push(body)
  }
  pieces.push(Buffer.from(`\r\n--${boundary}--\r\n`, 'latin1'))
  return Buffer.concat(pieces)
}

/** The Content-Type of such an answer. */
export const multipartType = (boundary: string): string => `multipart/byteranges; boundary=${boundary}`

// ---- parts that are kept ----

/** A span of a representation with its bytes: last - first + 1 of them. */
export interface Part extends Span {
  readonly body: Buffer
}

/** Parts of one representation that are held beside each other. More are joined, and if that does not help let go of. */
export const MAX_HELD_PARTS = 128

/** What of a span none of the parts holds, from the first byte to the last. */
export function gapsIn({ first, last }: Span, parts: readonly Span[]): Span[] {
  let gaps: Span[] = [{ first, last }]
  for (const part of parts) gaps = gaps.flatMap((gap) => without(gap, part))
  return gaps
}

function without(gap: Span, part: Span): Span[] {
  if (part.last < gap.first || part.first > gap.last) return [gap]
  const rest: Span[] = []
  if (gap.first < part.first) rest.push({ first: gap.first, last: part.first - 1 })
  if (gap.last > part.last) rest.push({ first: part.last + 1, last: gap.last })
  return rest
}

/** The bytes of a span; null where the parts do not hold all of them. A view where one of them does, else a buffer of its
 *  own. */
export function cutFrom(parts: readonly Part[], { first, last }: Span): Buffer | null {
  const pieces: Buffer[] = []
  for (let at = first; at <= last;) {
    const part = parts.find((each) => each.first <= at && at <= each.last)
    if (part === undefined) return null
    pieces.push(part.body.subarray(at - part.first, last + 1 - part.first))
    at = part.last + 1
  }
  const [only] = pieces
  return pieces.length === 1 && only !== undefined ? only : joinedExactly(pieces)
}

/** Parts of one representation, none of which overlap, and a further one, of which only what is new is added. Ask
 *  sharesStrongValidator() before whether it is of that representation (RFC 9111 §3.4). null where they do not agree on
 *  the bytes that both have: then the validator lied. Where it all gets too much (maxBytes, MAX_HELD_PARTS) the further
 *  one stays alone. Its body is kept: it must be no view of a larger buffer. */
export function addPart(parts: readonly Part[], part: Part, maxBytes: number): readonly Part[] | null {
  for (const held of parts) if (!agree(held, part)) return null
  const added = gapsIn(part, parts).map((gap) => {
    const isWhole = gap.first === part.first && gap.last === part.last
    const body = part.body.subarray(gap.first - part.first, gap.last - part.first + 1)
    return isWhole ? part : { first: gap.first, last: gap.last, body: joinedExactly([body]) }
  })
  const all = [...parts, ...added]
  if (lengthOf(all) > maxBytes) return [part]
  if (all.length <= MAX_HELD_PARTS) return all
  // Not with each part that comes: for each byte that a client asks for, all that is held would be copied.
  const runs = joinTouching(all)
  return runs.length > MAX_HELD_PARTS / 2 ? [part] : runs
}

/** Bytes of all of them. */
export function lengthOf(parts: readonly Part[]): number {
  let bytes = 0
  for (const { body } of parts) bytes += body.length
  return bytes
}

/** RFC 9110 §15.3.7.3 trusts the validator; where there are bytes to compare, nobody has to. */
function agree(a: Part, b: Part): boolean {
  const first = Math.max(a.first, b.first)
  const end = Math.min(a.last, b.last) + 1
  if (end <= first) return true
  return a.body.subarray(first - a.first, end - a.first).equals(b.body.subarray(first - b.first, end - b.first))
}

function joinTouching(parts: readonly Part[]): Part[] {
  const runs: Part[][] = []
  for (const part of parts.toSorted((a, b) => a.first - b.first)) {
    const run = runs.at(-1)
    if (run?.at(-1)?.last === part.first - 1) run.push(part)
    else runs.push([part])
  }
  return runs.map((run) => {
    const [first, last] = [run[0] as Part, run.at(-1) as Part]
    if (first === last) return first
    return { first: first.first, last: last.last, body: joinedExactly(run.map(({ body }) => body)) }
  })
}

/** Not a piece of a shared slab: this is for keeping. */
function joinedExactly(pieces: readonly Buffer[]): Buffer {
  let bytes = 0
  for (const piece of pieces) bytes += piece.length
  const joined = Buffer.allocUnsafeSlow(bytes)
  let at = 0
  for (const piece of pieces) at += piece.copy(joined, at)
  return joined
}
