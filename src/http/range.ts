// Byte ranges (RFC 9110 §14): what a Range field asks of a body whose length is known, what Content-Range says of a part,
// and parts put together: several in one answer (§15.3.7.2), or two into a larger one (§15.3.7.3).
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

/** The one part that a Range field asks for, where a stored 206 holds all of it; else null. */
export function rangeWithin(value: string, stored: ContentRange): Span | null {
  const verdict = parseRange(value, stored.completeLength ?? Infinity)
  const part = typeof verdict !== 'string' && verdict.length === 1 ? verdict[0] : undefined
  return part !== undefined && part.first >= stored.first && part.last <= stored.last ? part : null
}

/** The body of a 206 with several parts of `body` (§14.6). contentType: that of the whole. boundary: 1 to 70 letters and
 *  digits that occur nowhere in the body, so make it of random ones. */
export function multipartBody(
  parts: readonly Span[],
  body: Buffer,
  contentType: string | null,
  boundary: string,
): Buffer {
  const type = contentType === null ? '' : `Content-Type: ${contentType}\r\n`
  const pieces: Buffer[] = []
  for (const { first, last } of parts) {
    const range = contentRange(first, last, body.length)
    const lead = pieces.length === 0 ? '' : '\r\n'
    pieces.push(Buffer.from(`${lead}--${boundary}\r\n${type}Content-Range: ${range}\r\n\r\n`, 'latin1'))
    pieces.push(body.subarray(first, last + 1))
  }
  pieces.push(Buffer.from(`\r\n--${boundary}--\r\n`, 'latin1'))
  return Buffer.concat(pieces)
}

/** The Content-Type of such an answer. */
export const multipartType = (boundary: string): string => `multipart/byteranges; boundary=${boundary}`

/** A span of a representation with its bytes: last - first + 1 of them. */
export interface Part extends Span {
  readonly body: Buffer
}

/** Two parts of one representation as one, where they overlap or touch. Ask sharesStrongValidator() before whether they
 *  are of one (RFC 9111 §3.4). null where there is a gap, and where they do not agree on the bytes that both have: then
 *  the validator lied. Answers one of the two where it holds the other, else a part with a buffer of its own. */
export function combineSpans(a: Part, b: Part): Part | null {
  const [low, high] = a.first < b.first || (a.first === b.first && a.last >= b.last) ? [a, b] : [b, a]
  const overlap = Math.min(low.last, high.last) - high.first + 1
  if (overlap < 0) return null
  const at = high.first - low.first
  if (!low.body.subarray(at, at + overlap).equals(high.body.subarray(0, overlap))) return null
  if (high.last <= low.last) return low
  // Not a piece of a shared slab: this is for keeping.
  const body = Buffer.allocUnsafeSlow(high.last - low.first + 1)
  low.body.copy(body)
  high.body.copy(body, at, 0)
  return { first: low.first, last: high.last, body }
}
