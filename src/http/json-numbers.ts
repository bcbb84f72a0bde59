// Numbers in a JSON text (RFC 8259) that passes piece by piece, found by where they are. Nothing of the text is kept but the
// name or the number at hand, so it may be of any length. The text is for somebody else: what is no JSON is not refused
// here, it just has no such numbers.
//
// Only members of objects are looked into, by names without escapes: who names a place means one, and an array has many.

import type { JsonPointer } from './json.ts'

/** Where numbers are, by the names on the way there from the root. */
export interface NumberPlaces {
  readonly below: ReadonlyMap<string, NumberPlaces>
  /** What a number here is found as. */
  readonly slots: readonly number[]
}

/** One place for each pointer; a number is found as its slot. */
export function numberPlaces(pointers: readonly { readonly at: JsonPointer; readonly slot: number }[]): NumberPlaces {
  const deeper = Map.groupBy(
    pointers.filter(({ at }) => at.length > 0),
    ({ at }) => at[0] as string,
  )
  const further = [...deeper].map(([name, group]) => {
    const rest = group.map(({ at, slot }) => ({ at: at.slice(1), slot }))
    return [name, numberPlaces(rest)] as const
  })
  return { below: new Map(further), slots: pointers.flatMap(({ at, slot }) => (at.length === 0 ? [slot] : [])) }
}

const QUOTE = 0x22
const BACKSLASH = 0x5c
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d
const OPEN_ARRAY = 0x5b
const CLOSE_ARRAY = 0x5d

const MAX_NAME_BYTES = 128
/** Far more than a number has that anybody counts with. */
const MAX_NUMBER_BYTES = 32

/** In the object at hand: before a name, in one, behind it, before a value, in a number. Or in a text that is a value. */
type Phase = 'name' | 'in_name' | 'colon' | 'value' | 'number' | 'text'

/** Finds numbers in one text after the other. */
export class NumberScan {
  readonly #places: NumberPlaces
  readonly #found: (slot: number, value: number) => void
  /** The objects that the text is in, outermost first. */
  readonly #path: NumberPlaces[] = []
  /** Arrays and objects around this place in which nothing is looked for. */
  #passedOver = 0
  #phase: Phase = 'value'
  /** Where the name leads that was read last. */
  #place: NumberPlaces | null
  #token = ''
  #isEscaped = false
  #isName = false

  constructor(places: NumberPlaces, found: (slot: number, value: number) => void) {
    this.#places = places
    this.#found = found
    this.#place = places
  }

  /** Another text begins. */
  reset(): void {
    this.#path.length = 0
    this.#passedOver = 0
    this.#phase = 'value'
    this.#place = this.#places
    this.#isEscaped = false
  }

  read(chunk: Buffer): void {
    for (let i = 0; i < chunk.length; i++) {
      if (this.#phase === 'text' || this.#phase === 'in_name') i = this.#readText(chunk, i)
      else this.#readByte(chunk[i] as number)
    }
  }

  /** Answers where the text ends, or the last byte. */
  #readText(chunk: Buffer, from: number): number {
    for (let at = from; ;) {
      const end = chunk.indexOf(QUOTE, at)
      const upTo = end < 0 ? chunk.length : end
      let first = upTo
      while (first > at && chunk[first - 1] === BACKSLASH) first--
      // As many as there are make pairs, but for the last; the one before the first byte at hand counts with them.
      const isOdd = (upTo - first) % 2 === 1
      const isEscaped = first === at ? isOdd !== this.#isEscaped : isOdd
      if (end >= 0 && isEscaped) {
        this.#keepName(chunk, at, end)
        this.#isName = false
        this.#isEscaped = false
        at = end + 1
        continue
      }
      this.#keepName(chunk, at, upTo)
      this.#isEscaped = end < 0 && isEscaped
      if (end < 0) return chunk.length
      this.#endText()
      return end
    }
  }

  #keepName(chunk: Buffer, from: number, to: number): void {
    if (this.#phase !== 'in_name' || !this.#isName) return
    this.#isName = this.#token.length + to - from <= MAX_NAME_BYTES
    if (this.#isName) this.#token += chunk.toString('latin1', from, to)
  }

  #endText(): void {
    if (this.#phase === 'text') {
      this.#phase = 'name'
      return
    }
    const name = Buffer.from(this.#token, 'latin1').toString()
    this.#place = this.#isName ? (this.#path.at(-1)?.below.get(name) ?? null) : null
    this.#phase = 'colon'
  }

  #readByte(byte: number): void {
    if (this.#phase === 'number') {
      if (isOfNumber(byte) && this.#token.length < MAX_NUMBER_BYTES) {
        this.#token += String.fromCharCode(byte)
        return
      }
      this.#tell()
    }
    if (byte === QUOTE) this.#beginText()
    else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) this.#open(byte)
    else if (byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) this.#close()
    else if (this.#passedOver > 0) return
    else if (byte === COLON) this.#phase = 'value'
    else if (byte === COMMA) this.#phase = 'name'
    else if (this.#phase === 'value' && this.#place !== null && isOfNumber(byte)) {
      this.#phase = 'number'
      this.#token = String.fromCharCode(byte)
    }
  }

  #beginText(): void {
    this.#isEscaped = false
    this.#token = ''
    this.#isName = true
    this.#phase = this.#passedOver === 0 && this.#phase === 'name' ? 'in_name' : 'text'
  }

  #open(byte: number): void {
    const place = this.#phase === 'value' ? this.#place : null
    if (this.#passedOver > 0 || place === null || byte === OPEN_ARRAY) this.#passedOver++
    else this.#path.push(place)
    this.#place = null
    this.#phase = 'name'
  }

  #close(): void {
    if (this.#passedOver > 0) this.#passedOver--
    else this.#path.pop()
    this.#place = null
    this.#phase = 'name'
  }

  #tell(): void {
    const value = Number(this.#token)
    this.#phase = 'name'
    if (!Number.isFinite(value)) return
    for (const slot of this.#place?.slots ?? []) this.#found(slot, value)
  }
}

const isOfNumber = (byte: number): boolean =>
  (byte >= 0x30 && byte <= 0x39) || byte === 0x2d || byte === 0x2b || byte === 0x2e || byte === 0x65 || byte === 0x45
