// Structured fields (RFC 9651): a dictionary, from text to typed items, by the algorithm of §4.2 and as strict as that. A
// field with one fault anywhere is no dictionary at all, so that two readers never take the same text for different
// things. Never throws.
//
// Each type has one pattern, anchored where the reader stands, and none can match a text in two ways: the time taken
// grows with the length of the field and no faster.

export type BareItem =
  | { readonly type: 'integer' | 'decimal'; readonly value: number }
  | { readonly type: 'string' | 'token' | 'display-string'; readonly value: string }
  | { readonly type: 'boolean'; readonly value: boolean }
  | { readonly type: 'bytes'; readonly value: Buffer }
  /** Epoch seconds. */
  | { readonly type: 'date'; readonly value: number }

export interface InnerList {
  readonly type: 'inner-list'
  readonly value: readonly Item<BareItem>[]
}

export interface Item<Value = BareItem | InnerList> {
  readonly value: Value
  readonly params: ReadonlyMap<string, BareItem>
}

/** The members by key, in the order in which their keys first came; of duplicates the last counts (§4.2.2). Several lines
 *  of a field are to be joined by ", " before. Empty for an empty field; null for what is no dictionary. */
export function parseDictionary(text: string): Map<string, Item> | null {
  const reader = new Reader(text)
  const members = new Map<string, Item>()
  reader.take(SPACES)
  while (!reader.atEnd) {
    const key = reader.take(KEY)?.[0]
    const member = key === undefined ? null : parseMember(reader)
    if (key === undefined || member === null) return null
    members.set(key, member)
    reader.take(BLANKS)
    if (reader.atEnd) break
    // A comma with nothing behind it is a fault, too.
    if (reader.take(COMMA) === null || reader.atEnd) return null
  }
  return members
}

const SPACES = / */y
const BLANKS = /[\t ]*/y
const COMMA = /,[\t ]*/y
const EQUALS = /=/y
const SEMICOLON = /; */y
const OPEN = /\( */y
const CLOSE = / *\)/y
const KEY = /[a-z*][a-z0-9_\-.*]*/y

const INTEGER = /-?\d{1,15}(?![\d.])/y
const DECIMAL = /-?\d{1,12}\.\d{1,3}(?![\d.])/y
const STRING = /"((?:[ !#-[\]-~]|\\["\\])*)"/y
const TOKEN = /[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*/y
const BOOLEAN = /\?([01])/y
/** Missing padding is made up for; a lone character at the end encodes nothing. */
const BYTES = /:((?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?):/y
const DATE = /@(-?\d{1,15})(?![\d.])/y
const DISPLAY_STRING = /%"((?:[ !#$&-~]|%[0-9a-f]{2})*)"/y

/** What follows a key: a value and parameters, or parameters alone, which stand for true. */
function parseMember(reader: Reader): Item | null {
  if (reader.take(EQUALS) === null) return withParams(reader, { type: 'boolean', value: true })
  return reader.take(OPEN) === null ? parseItem(reader) : parseInnerList(reader)
}

/** §4.2.1.2, the bracket already read. */
function parseInnerList(reader: Reader): Item<InnerList> | null {
  const items: Item<BareItem>[] = []
  while (reader.take(CLOSE) === null) {
    const item = parseItem(reader)
    // Items stand apart by spaces, and nothing else.
    if (item === null || !(reader.sees(' ') || reader.sees(')'))) return null
    reader.take(SPACES)
    items.push(item)
  }
  return withParams(reader, { type: 'inner-list', value: items })
}

/** §4.2.3. */
function parseItem(reader: Reader): Item<BareItem> | null {
  const value = parseBareItem(reader)
  return value === null ? null : withParams(reader, value)
}

/** §4.2.3.2. */
function withParams<Value>(reader: Reader, value: Value): Item<Value> | null {
  const params = new Map<string, BareItem>()
  while (reader.take(SEMICOLON) !== null) {
    const key = reader.take(KEY)?.[0]
    if (key === undefined) return null
    const param = reader.take(EQUALS) === null ? TRUE : parseBareItem(reader)
    if (param === null) return null
    params.set(key, param)
  }
  return { value, params }
}

const TRUE: BareItem = { type: 'boolean', value: true }

/** §4.2.3.1. The first character alone tells the type, but for integers and decimals. */
function parseBareItem(reader: Reader): BareItem | null {
  let match = reader.take(INTEGER)
  if (match !== null) return { type: 'integer', value: numberOf(match[0]) }
  match = reader.take(DECIMAL)
  if (match !== null) return { type: 'decimal', value: numberOf(match[0]) }
  match = reader.take(STRING)
  if (match !== null) return { type: 'string', value: (match[1] as string).replaceAll(/\\(.)/g, '$1') }
  match = reader.take(TOKEN)
  if (match !== null) return { type: 'token', value: match[0] }
  match = reader.take(BOOLEAN)
  if (match !== null) return { type: 'boolean', value: match[1] === '1' }
  match = reader.take(BYTES)
  if (match !== null) return { type: 'bytes', value: Buffer.from(match[1] as string, 'base64') }
  match = reader.take(DATE)
  if (match !== null) return { type: 'date', value: numberOf(match[1] as string) }
  match = reader.take(DISPLAY_STRING)
  const text = match === null ? null : decodeDisplay(match[1] as string)
  return text === null ? null : { type: 'display-string', value: text }
}

/** -0 is 0. */
const numberOf = (digits: string): number => Number(digits) + 0

/** §4.2.10: escaped UTF-8; null where the bytes are none. */
function decodeDisplay(escaped: string): string | null {
  try {
    return decodeURIComponent(escaped)
  } catch {
    return null
  }
}

class Reader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  get atEnd(): boolean {
    return this.#at >= this.#text.length
  }

  sees(character: string): boolean {
    return this.#text[this.#at] === character
  }

  /** What the sticky pattern matches here, which is then read; or null, and nothing is. */
  take(sticky: RegExp): RegExpExecArray | null {
    sticky.lastIndex = this.#at
    const match = sticky.exec(this.#text)
    if (match !== null) this.#at = sticky.lastIndex
    return match
  }
}
