// JSON as one canonical text (RFC 8259 in, RFC 8785 out), so that bodies which say the same have the same text, and no
// two others do: names sorted, elements in order, strings unescaped, numbers by value (1, 1.0 and 1e0 are one). JSON.parse
// cannot serve: it hides repeated names and what a number was before it became a double.
//
// Refused is what readers of the same bytes disagree about, since a cache must not decide for the origin: repeated names
// (§4), numbers that a double does not hold (§6), lone surrogates (§8.2), nesting beyond a bound (§9). A byte order mark
// is a syntax error (§8.1). Objects are Maps, so `__proto__` is a name like any other.
//
// One pass over the text and one over the value, linear but for the sort of each object's names; the stack is as deep as
// the nesting, which is bounded.

import { isUtf8 } from 'node:buffer'

export type JsonValue = null | boolean | number | string | JsonValue[] | Map<string, JsonValue>

export type JsonRefusal = 'not-utf8' | 'syntax' | 'too-deep' | 'duplicate-member' | 'unsafe-number' | 'lone-surrogate'

export type ReadJson =
  | { readonly ok: true; readonly value: JsonValue }
  | { readonly ok: false; readonly reason: JsonRefusal }

export type CanonicalJson =
  | { readonly ok: true; readonly value: JsonValue; readonly canonical: string }
  | { readonly ok: false; readonly reason: JsonRefusal }

/** Reads one JSON text. maxDepth: how many arrays and objects may lie in one another. A refusal names the first fault in
 *  reading order; never throws. */
export function readJson(bytes: Buffer, limits: { readonly maxDepth: number }): ReadJson {
  if (!isUtf8(bytes)) return { ok: false, reason: 'not-utf8' }
  const reader = new Reader(bytes.toString('utf8'), limits.maxDepth)
  const value = reader.readText()
  return value === undefined ? { ok: false, reason: reader.refusal } : { ok: true, value }
}

/** The same with its canonical text. */
export function canonicalJson(bytes: Buffer, limits: { readonly maxDepth: number }): CanonicalJson {
  const read = readJson(bytes, limits)
  return read.ok ? { ...read, canonical: formatCanonical(read.value) } : read
}

/** JSON as JSON.parse gives it. */
export type PlainJson = null | boolean | number | string | readonly PlainJson[] | { readonly [name: string]: PlainJson }

/** Whether this is JSON data whose canonical text loses nothing: no number that a double may have rounded, no lone
 *  surrogate. What is nested without end is the caller's fault. */
export function isPlainJson(value: unknown): value is PlainJson {
  if (value === null || typeof value === 'boolean') return true
  if (typeof value === 'string') return value.isWellFormed()
  if (typeof value === 'number')
    return Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value))
  if (typeof value !== 'object') return false
  const within = Array.isArray(value) ? (value as unknown[]) : [...Object.keys(value), ...Object.values(value)]
  return within.every(isPlainJson)
}

/** The same data as readJson() would have it, all of it new. */
export function fromPlainJson(value: PlainJson): JsonValue {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return (value as readonly PlainJson[]).map(fromPlainJson)
  return new Map(Object.entries(value).map(([name, member]) => [name, fromPlainJson(member)]))
}

/** Names and array indexes from the root to a value (RFC 6901), unescaped. */
export type JsonPointer = readonly string[]

/** `/a/0/b~1c` as its parts, `''` (the whole document) as none; null where the text is no JSON Pointer (RFC 6901 §3). */
export function parsePointer(text: string): JsonPointer | null {
  if (text === '') return []
  if (!text.startsWith('/') || /~(?![01])/.test(text)) return null
  // §4: first ~1, then ~0, or `~01` would become `/`.
  return text
    .slice(1)
    .split('/')
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/** A name at the top level, or a JSON Pointer to anything below; null for what is neither. */
export function parseField(text: string): JsonPointer | null {
  if (text.startsWith('/')) return parsePointer(text)
  return text === '' ? null : [text]
}

/** What a pointer points at; undefined where there is nothing (RFC 6901 §4), `-` and indexes like `01` among that.
 *  value: of readJson() or JSON.parse. */
export function valueAt<V extends JsonValue | PlainJson>(value: V, pointer: JsonPointer): V | undefined {
  let found: unknown = value
  for (const token of pointer) {
    if (found instanceof Map) found = found.get(token)
    else if (Array.isArray(found)) found = /^(?:0|[1-9]\d*)$/.test(token) ? found[Number(token)] : undefined
    else if (typeof found === 'object' && found !== null && Object.hasOwn(found, token)) {
      found = (found as Record<string, unknown>)[token]
    } else return undefined
  }
  return found as V | undefined
}

/** A whole number token; the parts are for `decimalOf`. Sticky; each digit can be matched in one way only. */
const NUMBER = /-?(0|[1-9]\d*)(?:\.(\d+))?(?:[eE]([+-]?\d+))?/y

/** Recursive descent over one text. Each read answers undefined where it fails, with the reason in `refusal`. */
class Reader {
  readonly #text: string
  readonly #maxDepth: number
  #at = 0
  refusal: JsonRefusal = 'syntax'

  constructor(text: string, maxDepth: number) {
    this.#text = text
    this.#maxDepth = maxDepth
  }

  readText(): JsonValue | undefined {
    const value = this.#readValue(0)
    return this.#peek() === '' ? value : undefined
  }

  /** depth: how many arrays and objects are open around this value. */
  #readValue(depth: number): JsonValue | undefined {
    switch (this.#peek()) {
      case '{':
        return depth < this.#maxDepth ? this.#readObject(depth + 1) : this.#refuse('too-deep')
      case '[':
        return depth < this.#maxDepth ? this.#readArray(depth + 1) : this.#refuse('too-deep')
      case '"':
        return this.#readString()
      case 't':
        return this.#readLiteral('true', true)
      case 'f':
        return this.#readLiteral('false', false)
      case 'n':
        return this.#readLiteral('null', null)
      default:
        return this.#readNumber()
    }
  }

  #readObject(depth: number): JsonValue | undefined {
    const members = new Map<string, JsonValue>()
    this.#at++
    if (this.#take('}')) return members
    do {
      const name = this.#peek() === '"' ? this.#readString() : undefined
      if (name === undefined || !this.#take(':')) return undefined
      if (members.has(name)) return this.#refuse('duplicate-member')
      const value = this.#readValue(depth)
      if (value === undefined) return undefined
      members.set(name, value)
    } while (this.#take(','))
    return this.#take('}') ? members : undefined
  }

  #readArray(depth: number): JsonValue | undefined {
    const elements: JsonValue[] = []
    this.#at++
    if (this.#take(']')) return elements
    do {
      const value = this.#readValue(depth)
      if (value === undefined) return undefined
      elements.push(value)
    } while (this.#take(','))
    return this.#take(']') ? elements : undefined
  }

  #readString(): string | undefined {
    const start = this.#at
    let escaped = false
    for (let i = start + 1; i < this.#text.length; i++) {
      const unit = this.#text.charCodeAt(i)
      if (unit === 0x22) {
        this.#at = i + 1
        return escaped ? this.#unescape(this.#text.slice(start, i + 1)) : this.#text.slice(start + 1, i)
      }
      if (unit < 0x20) return undefined
      if (unit === 0x5c) {
        escaped = true
        i++
      }
    }
    return undefined
  }

  /** token: with its quotes. Within one string, JSON.parse hides nothing. */
  #unescape(token: string): string | undefined {
    let text: unknown
    try {
      text = JSON.parse(token)
    } catch {
      return undefined
    }
    return typeof text === 'string' && text.isWellFormed() ? text : this.#refuse('lone-surrogate')
  }

  #readNumber(): number | undefined {
    NUMBER.lastIndex = this.#at
    const token = NUMBER.exec(this.#text)?.[0]
    if (token === undefined) return undefined
    this.#at += token.length
    const value = Number(token)
    return survives(token, value) ? value : this.#refuse('unsafe-number')
  }

  #readLiteral<V extends boolean | null>(text: string, value: V): V | undefined {
    if (!this.#text.startsWith(text, this.#at)) return undefined
    this.#at += text.length
    return value
  }

  /** The next character that is not blank, which is not taken yet; '' at the end. */
  #peek(): string {
    for (;;) {
      const next = this.#text.charAt(this.#at)
      if (next !== ' ' && next !== '\n' && next !== '\r' && next !== '\t') return next
      this.#at++
    }
  }

  #take(wanted: string): boolean {
    if (this.#peek() !== wanted) return false
    this.#at++
    return true
  }

  #refuse(reason: JsonRefusal): undefined {
    this.refusal = reason
  }
}

/** Whether a number says the same after its way through a double, compared as decimals: of 0.1 and 0.1000000000000000055,
 *  which are one double, only the former does; of 1, 1.0 and 1e0 each. A reader with exact decimals or large integers
 *  thus never sees two values under one text. */
function survives(token: string, value: number): boolean {
  const written = String(value)
  return written === token || (Number.isFinite(value) && decimalOf(written) === decimalOf(token))
}

/** The magnitude of a number token in one spelling: its digits without outer zeros, and a power of ten. Loops rather than
 *  /0+$/, which takes quadratic time over a long run of zeros that is not the last. */
function decimalOf(token: string): string {
  NUMBER.lastIndex = 0
  const [, whole = '', fraction = '', exponent = '0'] = NUMBER.exec(token) ?? []
  const digits = whole + fraction
  let start = 0
  while (digits[start] === '0') start++
  let end = digits.length
  while (end > start && digits[end - 1] === '0') end--
  if (start === end) return '0'
  return `${digits.slice(start, end)}e${Number(exponent) - fraction.length + digits.length - end}`
}

/** Well-formed Unicode: hashed as UTF-8, it loses nothing. */
export function formatCanonical(value: JsonValue): string {
  // RFC 8785 writes -0 as 0; here it stays itself, for readers that tell the two apart (1/x, copysign, its own text).
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : String(value)
  // RFC 8785 §3.2.2.2 is how ECMAScript writes a string.
  if (typeof value !== 'object' || value === null) return JSON.stringify(value)
  // Sums of strings, which are not copied before the end; with join, each level would copy all that lies below it.
  let text = ''
  if (Array.isArray(value)) {
    for (const element of value) text += text === '' ? formatCanonical(element) : `,${formatCanonical(element)}`
    return `[${text}]`
  }
  // RFC 8785 §3.2.3: by UTF-16 code unit, as Array.sort compares.
  for (const name of [...value.keys()].sort()) {
    const member = `${JSON.stringify(name)}:${formatCanonical(value.get(name) as JsonValue)}`
    text += text === '' ? member : `,${member}`
  }
  return `{${text}}`
}
