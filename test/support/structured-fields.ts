// A strict reader of RFC 9651 lists: it follows the parsing algorithm of §4.2 and throws where that fails, so a field
// that passes is one that any conforming client can read. Inner lists, byte sequences, dates and display strings are
// refused: the gateway sends none.

export interface Token {
  readonly token: string
}
export type BareItem = number | string | boolean | Token

export interface Item {
  readonly value: BareItem
  readonly params: ReadonlyMap<string, BareItem>
}

/** §4.2.1. */
export function parseList(text: string): Item[] {
  const reader = new Reader(text)
  const members: Item[] = []
  reader.skip(/ */y)
  while (!reader.done) {
    members.push(parseItem(reader))
    reader.skip(/[ \t]*/y)
    if (reader.done) return members
    reader.take(/,/y, 'a comma between members')
    reader.skip(/[ \t]*/y)
    if (reader.done) throw new SyntaxError(`expected a member after the comma of ${text}`)
  }
  return members
}

/** §4.2.3. */
function parseItem(reader: Reader): Item {
  const value = parseBareItem(reader)
  const params = new Map<string, BareItem>()
  while (reader.skip(/;/y)) {
    reader.skip(/ */y)
    const key = reader.take(/[a-z*][a-z0-9_\-.*]*/y, 'a parameter key')
    params.set(key, reader.skip(/=/y) ? parseBareItem(reader) : true)
  }
  return { value, params }
}

/** §4.2.3.1. */
function parseBareItem(reader: Reader): BareItem {
  const number = reader.match(/-?\d+(?:\.\d+)?/y)
  if (number !== null) {
    const [whole, fraction] = number.replace('-', '').split('.') as [string, string?]
    const fits = fraction === undefined ? whole.length <= 15 : whole.length <= 12 && fraction.length <= 3
    if (!fits) throw new SyntaxError(`expected a number in range, got ${number}`)
    return Number(number)
  }
  if (reader.skip(/"/y)) {
    const escaped = reader.take(/(?:[ !#-[\]-~]|\\["\\])*/y, 'string characters')
    reader.take(/"/y, 'a closing quote')
    return escaped.replace(/\\(.)/g, '$1')
  }
  const boolean = reader.match(/\?[01]/y)
  if (boolean !== null) return boolean === '?1'
  return { token: reader.take(/[A-Za-z*][!#$%&'*+\-.^_`|~0-9A-Za-z:/]*/y, 'an item') }
}

class Reader {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  get done(): boolean {
    return this.#at >= this.#text.length
  }

  /** What the sticky pattern matches here, or null. */
  match(sticky: RegExp): string | null {
    sticky.lastIndex = this.#at
    const found = sticky.exec(this.#text)
    if (found === null) return null
    this.#at = sticky.lastIndex
    return found[0]
  }

  skip(sticky: RegExp): boolean {
    return this.match(sticky) !== null
  }

  take(sticky: RegExp, expected: string): string {
    const found = this.match(sticky)
    if (found === null) throw new SyntaxError(`expected ${expected} at ${this.#at} of ${this.#text}`)
    return found
  }
}
