// Decoders for what YAML says in its own units: durations, sizes, counts, words. Built on zod, so one description
// gives the parser, the JSON Schema and the error; every refusal carries what was expected and how to cure it.
//
// A value may come from the environment (`"${RATE_LIMIT_PER_MINUTE:-60}"`) and is then a string, so numbers and
// booleans are taken as text too, and every pattern of the schema lets `${` through.

import { z } from 'zod'

// zod would write a function for each mapping and have it compiled: for a file that is read once, that takes longer.
z.config({ jitless: true })

/** What a refused value should have been. Travels in the `params` of a zod custom issue. */
export interface Refusal {
  readonly expected: string
  readonly cure: string | null
}

/** Parsed value, or why not. Use `refuse()` for the latter. */
type Parse<T> = (value: unknown) => T | Refused
class Refused {
  readonly cure: string | null
  constructor(cure: string | null) {
    this.cure = cure
  }
}
const refuse = (cure: string | null = null): Refused => new Refused(cure)

function scalar<T>(expected: string, json: Record<string, unknown>, parse: Parse<T>) {
  const decoder = ANYTHING.transform((value, ctx): T => {
    const parsed = parse(value)
    if (!(parsed instanceof Refused)) return parsed
    ctx.issues.push({ code: 'custom', input: value, params: { expected, cure: parsed.cure } satisfies Refusal })
    return z.NEVER
  })
  // `meta` would make a copy.
  return decoder.register(z.globalRegistry, json)
}

/** One for all: there are hundreds of decoders, and each schema takes 20 us to make. */
const ANYTHING = z.unknown()

export const NOT_SUPPORTED_YET = 'not supported yet'

const ENV = String.raw`\$\{`
const MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
const BYTES = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 } as const

/** Milliseconds from `250ms 30s 10m 1h 7d` or a sum such as `1h30m`; null for anything else. */
export function parseDuration(text: string): number | null {
  if (!/^(?:\d+(?:ms|s|m|h|d))+$/.test(text)) return null
  let ms = 0
  for (const [, count, unit] of text.matchAll(/(\d+)(ms|s|m|h|d)/g)) ms += Number(count) * MS[unit as keyof typeof MS]
  return Number.isSafeInteger(ms) ? ms : null
}

/** Bytes from `512B 64KiB 10MiB 2GiB`; null for anything else. */
export function parseSize(text: string): number | null {
  const match = /^(\d+)(B|KiB|MiB|GiB)$/.exec(text)
  if (match === null) return null
  const bytes = Number(match[1]) * BYTES[match[2] as keyof typeof BYTES]
  return Number.isSafeInteger(bytes) ? bytes : null
}

/** `1500` as `1s500ms`: the same text that parseDuration reads. */
export function formatDuration(ms: number): string {
  let rest = ms
  let text = ''
  for (const [unit, size] of Object.entries(MS).toReversed()) {
    const count = Math.floor(rest / size)
    if (count > 0) text += `${count}${unit}`
    rest -= count * size
  }
  return text === '' ? '0s' : text
}

/** `65536` as `64KiB`: the same text that parseSize reads. */
export function formatSize(bytes: number): string {
  for (const [unit, size] of Object.entries(BYTES).toReversed()) {
    if (bytes >= size && bytes % size === 0) return `${bytes / size}${unit}`
  }
  return `${bytes}B`
}

/** A duration, in milliseconds. A bare number is refused: it does not say its unit. named: lengths that have a name. */
export function duration(range: { minMs?: number; named?: Readonly<Record<string, number>> } = {}) {
  const { minMs = 0, named = {} } = range
  const names = Object.keys(named)
  const least = minMs > 0 ? `, at least ${formatDuration(minMs)}` : ''
  const expected = [`a duration such as "30s"${least}`, ...names].join(', or ')
  const pattern = [String.raw`^(\d+(ms|s|m|h|d))+$`, ...names.map((name) => `^${name}$`), ENV].join('|')
  return scalar(expected, { type: 'string', pattern }, (value) => {
    if (typeof value === 'string' && Object.hasOwn(named, value)) return named[value] as number
    if (typeof value === 'number' || (typeof value === 'string' && /^\d+$/.test(value))) {
      return refuse(`add the unit: "${value}s" for seconds, "${value}ms" for milliseconds`)
    }
    const ms = typeof value === 'string' ? parseDuration(value) : null
    if (ms === null) return refuse(wholeDuration(value) ?? 'units are ms, s, m, h, d')
    return ms < minMs ? refuse() : ms
  })
}

/** `1.5h` in whole units. */
function wholeDuration(value: unknown): string | null {
  const match = /^(\d+\.\d+)(ms|s|m|h|d)$/.exec(String(value))
  return match === null
    ? null
    : `write ${formatDuration(Math.round(Number(match[1]) * MS[match[2] as keyof typeof MS]))}`
}

function wholeSize(value: unknown): string | null {
  const match = /^(\d+\.\d+)(B|KiB|MiB|GiB)$/.exec(String(value))
  return match === null
    ? null
    : `write ${formatSize(Math.round(Number(match[1]) * BYTES[match[2] as keyof typeof BYTES]))}`
}

/** A size, in bytes. A bare number is refused: it does not say its unit. */
export function size(range: { minBytes?: number } = {}) {
  const minBytes = range.minBytes ?? 0
  const expected = `a size such as "64KiB"${minBytes > 0 ? `, at least ${formatSize(minBytes)}` : ''}`
  return scalar(expected, { type: 'string', pattern: `^\\d+(B|KiB|MiB|GiB)$|${ENV}` }, (value) => {
    if (typeof value === 'number' || (typeof value === 'string' && /^\d+$/.test(value))) {
      return refuse(`add the unit: "${value}B" for bytes, "${value}MiB" for mebibytes`)
    }
    const bytes = typeof value === 'string' ? parseSize(value) : null
    if (bytes === null) return refuse(wholeSize(value) ?? 'units are B, KiB, MiB, GiB')
    return bytes < minBytes ? refuse() : bytes
  })
}

/** A whole number. */
export function count(range: { min: number; max: number }) {
  const { min, max } = range
  const expected = `a whole number from ${min} to ${max}`
  const json = {
    anyOf: [
      { type: 'integer', minimum: min, maximum: max },
      { type: 'string', pattern: `^\\d+$|${ENV}` },
    ],
  }
  return scalar(expected, json, (value) => {
    const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value
    if (typeof number !== 'number' || !Number.isInteger(number)) return refuse()
    return number < min || number > max ? refuse() : number
  })
}

/** A whole number, or one of a few words. */
export function countOr<const W extends string>(range: { min: number; max: number }, words: readonly W[]) {
  const { min, max } = range
  const listed = words.map((w) => `"${w}"`).join(', ')
  const json = {
    anyOf: [
      { type: 'integer', minimum: min, maximum: max },
      { type: 'string', pattern: `^(\\d+|${words.join('|')})$|${ENV}` },
    ],
  }
  return scalar(`a whole number from ${min} to ${max} or ${listed}`, json, (value): number | W | Refused => {
    const number = typeof value === 'string' && /^\d+$/.test(value) ? Number(value) : value
    if (typeof number === 'number' && Number.isInteger(number) && number >= min && number <= max) return number
    return words.find((w) => w === value) ?? refuse()
  })
}

/** How much of something that has its own unit: any number above 0, or from 0 on. expected: where that has a name of its own. */
export function amount(range: { max?: number; orNothing?: boolean; expected?: string } = {}) {
  const { max = 1e9, orNothing = false, expected = `a number ${orNothing ? 'from' : 'above'} 0, such as 0.02` } = range
  const json = {
    anyOf: [
      { type: 'number', [orNothing ? 'minimum' : 'exclusiveMinimum']: 0, maximum: max },
      { type: 'string', pattern: String.raw`^(\d+(\.\d+)?|\.\d+)$|${ENV}` },
    ],
  }
  return scalar(expected, json, (value) => {
    const number = typeof value === 'string' && /^(?:\d+(?:\.\d+)?|\.\d+)$/.test(value) ? Number(value) : value
    if (typeof number !== 'number' || !(number <= max)) return refuse()
    return number > 0 || (orNothing && number === 0) ? number : refuse()
  })
}

/** A part of a whole: above 0, up to 1. */
export function fraction() {
  const json = {
    anyOf: [
      { type: 'number', exclusiveMinimum: 0, maximum: 1 },
      { type: 'string', pattern: String.raw`^(0?\.\d+|1(\.0+)?)$|${ENV}` },
    ],
  }
  return scalar('a number above 0, up to 1', json, (value) => {
    const number = typeof value === 'string' && /^(?:0?\.\d+|1(?:\.0+)?)$/.test(value) ? Number(value) : value
    if (typeof number === 'number' && number > 0 && number <= 1) return number
    const percent = typeof number === 'string' ? /^(\d+)%$/.exec(number) : null
    return refuse(percent === null ? null : `write ${Number(percent[1]) / 100}`)
  })
}

/** true or false. */
export function flag() {
  const json = { anyOf: [{ type: 'boolean' }, { type: 'string', pattern: `^(true|false)$|${ENV}` }] }
  return scalar('true or false', json, (value) => {
    if (value === true || value === 'true') return true
    if (value === false || value === 'false') return false
    return refuse(value === 'yes' || value === 'no' ? `in YAML 1.2 "${value}" is a text; write true or false` : null)
  })
}

/** A flag that can also be one of a few words. */
export function flagOr<const W extends string>(words: readonly W[]) {
  const listed = words.map((w) => `"${w}"`).join(', ')
  const json = { anyOf: [{ type: 'boolean' }, { type: 'string', pattern: `^(true|false|${words.join('|')})$|${ENV}` }] }
  return scalar(`true, false or ${listed}`, json, (value): boolean | W | Refused => {
    if (value === true || value === 'true') return true
    if (value === false || value === 'false') return false
    return words.find((w) => w === value) ?? refuse(null)
  })
}

/** One of a few words, in any case. laterWords: words of the design that are refused by name until they work. */
export function word<const W extends string>(words: readonly W[], laterWords: readonly string[] = []) {
  const listed = words.map((w) => `"${w}"`).join(', ')
  const json = { type: 'string', anyOf: [{ enum: [...words] }, { pattern: ENV }] }
  return scalar(words.length === 1 ? listed : `one of ${listed}`, json, (value): W | Refused => {
    const lower = typeof value === 'string' ? value.toLowerCase() : ''
    const found = words.find((w) => w === lower)
    return found ?? refuse(laterWords.includes(lower) ? `"${lower}" is ${NOT_SUPPORTED_YET}` : null)
  })
}

/** A text that `check` accepts; check answers null, or what is wrong with the text. */
export function text(
  expected: string,
  check: (value: string) => string | null = () => null,
  json: Record<string, unknown> = {},
) {
  return scalar(expected, { type: 'string', ...json }, (value) => {
    if (typeof value !== 'string') return refuse(typeof value === 'number' ? `quote it: "${value}"` : null)
    const wrong = check(value)
    return wrong === null ? value : refuse(wrong)
  })
}

/** A text that is decoded into something else; `decode` answers null for what it does not know. */
export function decoded<T>(expected: string, cure: string | null, decode: (value: string) => T | null) {
  return scalar(expected, { type: 'string' }, (value): T | Refused => {
    const result = typeof value === 'string' ? decode(value) : null
    return result === null ? refuse(cure) : result
  })
}

/** Any data that `accepts` takes, lists and mappings among it, as it is. */
export function data<T>(expected: string, cure: string | null, accepts: (value: unknown) => value is T) {
  return scalar(expected, {}, (value): T | Refused => (accepts(value) ? value : refuse(cure)))
}

/** An option of the design whose engine is not here. Refused by name rather than ignored: whoever writes it relies on it. */
export function later() {
  return z.never({ error: NOT_SUPPORTED_YET }).optional().meta({ description: NOT_SUPPORTED_YET })
}
