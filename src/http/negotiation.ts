// Content negotiation (RFC 9110 §12.5) as a cache needs it: one spelling for selecting fields that mean the same, so that
// Vary does not tell them apart (RFC 9111 §4.1), and the content codings that a client takes, best first.
//
// Two spellings are one only where every origin must read them alike by the field's own definition; what the grammar of
// a field does not cover keeps its spelling but for blanks around commas. Guessing what an origin would choose is no
// spelling and not done here: that serves a client what it never asked for.

import { isToken } from './headers.ts'

/** Of a value that is read; longer ones are what they are. No client has a use for more, and each variant of a response asks
 *  for it anew: 8 KiB took 0.4 ms for each of sixteen. */
const MAX_READ_CHARS = 512

/** The value by which Vary compares a request field: equal for values of the same meaning. value: its lines joined by
 *  ", "; null is absent, which is not the same as empty. lowerName: in lower case. */
export function normalizeSelecting(lowerName: string, value: string | null): string | null {
  if (value === null) return null
  if (value.length > MAX_READ_CHARS) return trimmed(value)
  const normalize = WEIGHTED.get(lowerName)
  if (normalize !== undefined) return normalize(value)
  return value.includes(',') && !IN_PROSE.has(lowerName) ? tight(value) : trimmed(value)
}

/** Codings that an answer can be compressed with here, in the order of preference where a client has none. */
const CODINGS = ['br', 'zstd', 'gzip'] as const
export type Coding = (typeof CODINGS)[number]

/** The codings that a client takes and does not like less than none, best first (RFC 9110 §12.5.3). Without the field, and
 *  where it cannot be read, an answer is better left as it is. */
export const acceptsEncoding = (acceptEncoding: string | null): readonly Coding[] =>
  acceptEncoding === null || acceptEncoding.length > MAX_READ_CHARS ? [] : preferredCodings(acceptEncoding)

const preferredCodings = remembered((value: string): readonly Coding[] => {
  const weights = new Map<string, number>()
  for (const { name, weight } of parseWeighted('accept-encoding', value) ?? []) {
    weights.set(name, Math.min(weight, weights.get(name) ?? 1))
  }
  const ofOthers = weights.get('*') ?? 0
  const ofIdentity = weights.get('identity') ?? ofOthers
  const weightOf = (coding: Coding): number => weights.get(coding) ?? ofOthers
  return CODINGS.filter((coding) => weightOf(coding) > 0 && weightOf(coding) >= ofIdentity).toSorted(
    (a, b) => weightOf(b) - weightOf(a),
  )
})

/** Fields with commas inside sentences and names, where a blank may make a difference. */
const IN_PROSE: ReadonlySet<string> = new Set(['authorization', 'cookie', 'referer', 'user-agent'])

/** Lists whose members have weights, which alone order them. */
const WEIGHTED: ReadonlyMap<string, (value: string) => string> = new Map(
  ['accept', 'accept-charset', 'accept-encoding', 'accept-language'].map((lowerName) => [
    lowerName,
    remembered((value) => inOrder(lowerName, value)),
  ]),
)

/** The members by name; a weight of 1 is left out. Members of the same name stay in their order, since it is nowhere said
 *  which of them counts. */
function inOrder(lowerName: string, value: string): string {
  const members = parseWeighted(lowerName, value)
  if (members === null) return tight(value)
  return members
    .toSorted((a, b) => Number(a.name > b.name) - Number(a.name < b.name))
    .map(({ name, weight }) => (weight === 1 ? name : `${name};q=${weight}`))
    .join(',')
}

interface Weighted {
  /** Lower case but for the values of parameters: `gzip`, `de-ch`, `text/html;version=A`. */
  readonly name: string
  /** 0 to 1. */
  readonly weight: number
}

const TCHARS = String.raw`[!#$%&'*+\-.^_\x60|~0-9A-Za-z]+`
const MEDIA_RANGE = new RegExp(`^${TCHARS}/${TCHARS}$`)
const PARAMETER = new RegExp(String.raw`^(${TCHARS})=(${TCHARS}|"(?:[^"\\]|\\[^])*")$`)
const WEIGHT = /^(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)$/

/** null for what is no such list. */
function parseWeighted(lowerName: string, value: string): Weighted[] | null {
  const isMedia = lowerName === 'accept'
  const pieces = splitUnquoted(value, ',')
  if (pieces === null) return null
  const members: Weighted[] = []
  for (const piece of pieces) {
    if (piece === '') continue
    const [range = '', ...parameters] = splitUnquoted(piece, ';') ?? []
    if (!(isMedia ? MEDIA_RANGE.test(range) : isToken(range))) return null
    let name = lowerName === 'accept-encoding' ? withoutAlias(range.toLowerCase()) : range.toLowerCase()
    let weight: number | null = null
    for (const parameter of parameters) {
      const [, key, text] = PARAMETER.exec(parameter) ?? []
      // The weight comes last (RFC 9110 §12.5.1); what follows it has no meaning any more.
      if (key === undefined || text === undefined || weight !== null) return null
      if (key.toLowerCase() === 'q') {
        if (!WEIGHT.test(text)) return null
        weight = Number(text)
      } else if (isMedia) name += `;${key.toLowerCase()}=${text}`
      else return null
    }
    members.push({ name, weight: weight ?? 1 })
  }
  return members
}

/** RFC 9110 §8.4.1: two codings have an old name. */
const withoutAlias = (name: string): string => (name === 'x-gzip' || name === 'x-compress' ? name.slice(2) : name)

/** Without blanks around the commas outside quotes (RFC 9110 §5.6.1). */
const tight = (value: string): string => splitUnquoted(value, ',')?.join(',') ?? trimmed(value)

/** The pieces between separators outside quotes, blanks around them gone; null when a quote stays open. */
function splitUnquoted(text: string, separator: ',' | ';'): string[] | null {
  if (!text.includes('"')) return text.split(separator).map(trimmed)
  const pieces: string[] = []
  let from = 0
  let isQuoted = false
  for (let i = 0; i < text.length; i++) {
    const character = text[i]
    if (character === '"') isQuoted = !isQuoted
    else if (isQuoted && character === '\\') i++
    else if (!isQuoted && character === separator) {
      pieces.push(trimmed(text.slice(from, i)))
      from = i + 1
    }
  }
  return isQuoted ? null : [...pieces, trimmed(text.slice(from))]
}

/** Without blanks and tabs at both ends. Not String.trim: to HTTP a no-break space is text. */
function trimmed(text: string): string {
  let start = 0
  let end = text.length
  while (start < end && isBlank(text.charCodeAt(start))) start++
  while (end > start && isBlank(text.charCodeAt(end - 1))) end--
  return text.slice(start, end)
}

const isBlank = (code: number): boolean => code === 0x20 || code === 0x09

const MAX_REMEMBERED = 256

/** The same pure function, quick for values that come again and again: a few browsers send most of them. What it keeps
 *  is at most MAX_REMEMBERED texts, all short; beyond that it starts afresh, which a flood of new values may bring about and
 *  then costs what it would without. */
function remembered<Result>(compute: (value: string) => Result): (value: string) => Result {
  const known = new Map<string, Result>()
  return (value) => {
    const found = known.get(value)
    if (found !== undefined) return found
    // A copy: a piece of a request's text would keep all of it alive.
    const copy = Buffer.from(value, 'utf8').toString('utf8')
    const result = compute(copy)
    if (known.size >= MAX_REMEMBERED) known.clear()
    known.set(copy, result)
    return result
  }
}
