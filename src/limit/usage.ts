// What an answer of an AI service says it has used, read as it passes. This file alone knows where services say so:
//
//   openai      usage.prompt_tokens, completion_tokens, prompt_tokens_details.cached_tokens (a part of the prompt); in a
//               stream in one of the last events, where the request has asked for it
//   responses   usage.input_tokens, output_tokens, input_tokens_details.cached_tokens (a part of the input); in a stream in
//               response.completed, under `response`
//   anthropic   the same names, under `message` in the first event of a stream, and at its end; what was read from the
//               service's cache or written to it is told apart, and is no part of input_tokens
//
// A number may come more than once in a stream, the last one not always as the whole: the largest counts.
//
// An answer that says nothing is estimated: four bytes of text are about one token. Of the events of a stream only what
// differs from the one before counts, since the frame around each token is many times as long as it; at least one token
// each. Of bytes that are no text nothing can be said.

import { EventStreamReader } from '../http/event-stream.ts'
import type { HeaderList } from '../core/context.ts'
import { getHeader } from '../http/headers.ts'
import { JsonLinesReader } from '../http/json-lines.ts'
import { NumberScan, type NumberPlaces, numberPlaces } from '../http/json-numbers.ts'
import { type JsonPointer, parsePointer } from '../http/json.ts'

/** Where an answer says how many tokens it has used. */
export interface UsageRule {
  readonly input: readonly JsonPointer[]
  readonly output: readonly JsonPointer[]
  /** Of the input, what the service had in its own cache. */
  readonly cached: readonly JsonPointer[]
  /** The same, where it is no part of the input. */
  readonly cachedApart: readonly JsonPointer[]
  /** Input that is no part of `input`. */
  readonly more: readonly JsonPointer[]
}

/** Whole tokens; input: without what was cached. */
export interface Tokens {
  readonly input: number
  readonly cached: number
  readonly output: number
}

export const USAGE_FORMATS = ['auto', 'openai', 'responses', 'anthropic'] as const
export type UsageFormat = (typeof USAGE_FORMATS)[number]

const under = (parents: readonly string[], name: string): JsonPointer[] =>
  parents.map((parent) => parsePointer(`${parent}/${name}`) ?? [])

const openai: UsageRule = {
  input: under(['/usage'], 'prompt_tokens'),
  output: under(['/usage'], 'completion_tokens'),
  cached: under(['/usage/prompt_tokens_details'], 'cached_tokens'),
  cachedApart: [],
  more: [],
}

const OF_RESPONSES = ['/usage', '/response/usage']
const responses: UsageRule = {
  input: under(OF_RESPONSES, 'input_tokens'),
  output: under(OF_RESPONSES, 'output_tokens'),
  cached: OF_RESPONSES.flatMap((parent) => under([`${parent}/input_tokens_details`], 'cached_tokens')),
  cachedApart: [],
  more: [],
}

const OF_MESSAGES = ['/usage', '/message/usage']
const anthropic: UsageRule = {
  input: under(OF_MESSAGES, 'input_tokens'),
  output: under(OF_MESSAGES, 'output_tokens'),
  cached: [],
  cachedApart: under(OF_MESSAGES, 'cache_read_input_tokens'),
  more: under(OF_MESSAGES, 'cache_creation_input_tokens'),
}

/** Any of them: no name means one thing in the one and something else in the other. */
const auto: UsageRule = {
  input: [...openai.input, ...responses.input, ...anthropic.input],
  output: [...openai.output, ...responses.output, ...anthropic.output],
  cached: [...openai.cached, ...responses.cached],
  cachedApart: anthropic.cachedApart,
  more: anthropic.more,
}

export const usageFormats: Readonly<Record<UsageFormat, UsageRule>> = { auto, openai, responses, anthropic }

/** What the route table says: a service whose answers are known, or the fields of another one. */
export type UsageOptions =
  | UsageFormat
  | {
      readonly input: readonly JsonPointer[]
      readonly output: readonly JsonPointer[]
      readonly cached?: readonly JsonPointer[] | undefined
    }

export const usageRule = (options: UsageOptions): UsageRule =>
  typeof options === 'string'
    ? usageFormats[options]
    : { input: options.input, output: options.output, cached: options.cached ?? [], cachedApart: [], more: [] }

/** The rules that the policies of a route go by, each once, to be read in one pass. */
export interface UsagePlan {
  readonly count: number
  numberOf(rule: UsageRule): number
  readonly places: NumberPlaces
  /** The last names of all places: what holds none of them holds no number. */
  readonly names: readonly string[]
}

const KINDS = ['input', 'output', 'cached', 'cachedApart', 'more'] as const
const [INPUT, OUTPUT, CACHED, CACHED_APART, MORE] = [0, 1, 2, 3, 4] as const

export function compileUsage(all: readonly UsageRule[]): UsagePlan {
  const rules = [...new Map(all.map((rule) => [JSON.stringify(rule), rule])).values()]
  const numbers = new Map(
    all.map((rule) => [rule, rules.findIndex((each) => JSON.stringify(each) === JSON.stringify(rule))]),
  )
  const pointers = rules.flatMap((rule, i) =>
    KINDS.flatMap((kind, k) => rule[kind].map((at) => ({ at, slot: i * KINDS.length + k }))),
  )
  const names = new Set(pointers.flatMap(({ at }) => at.at(-1) ?? []))
  return {
    count: rules.length,
    numberOf: (rule) => numbers.get(rule) ?? 0,
    places: numberPlaces(pointers),
    names: [...names],
  }
}

/** What is known of an answer by one rule. null: nothing. */
export interface Figures {
  /** With all that is no part of it. */
  readonly input: number | null
  readonly cached: number
  readonly output: number | null
}

/** Reads the body of one answer. */
export interface UsageReader {
  read(chunk: Buffer): void
  /** By the rule of that number. */
  figures(rule: number): Figures
  /** Tokens of what has come so far; null where nobody can say. */
  readonly estimate: number | null
}

/** A token, in bytes of text. */
const BYTES_PER_TOKEN = 4

export const tokensIn = (bytes: number): number => Math.ceil(bytes / BYTES_PER_TOKEN)

const JSON_TYPE = /^application\/(?:[\w.-]+\+)?json\s*(?:;|$)/i
const EVENT_TYPE = /^text\/event-stream\s*(?:;|$)/i
const LINES_TYPE = /^application\/(?:(?:x-)?ndjson|jsonl|json-seq|stream\+json)\s*(?:;|$)/i
const TEXT_TYPE = /^text\//i

/** headers: of the answer. One that is coded, or that is no text, says nothing. */
export function usageReader(plan: UsagePlan, headers: HeaderList): UsageReader {
  const type = getHeader(headers, 'content-type') ?? ''
  const coding = getHeader(headers, 'content-encoding') ?? 'identity'
  if (coding.trim().toLowerCase() !== 'identity') return new Blind()
  if (EVENT_TYPE.test(type)) return new Events(plan, (listener) => new EventStreamReader(listener))
  if (LINES_TYPE.test(type)) return new Events(plan, (listener) => new JsonLinesReader(listener))
  if (JSON_TYPE.test(type)) return new Json(plan)
  return TEXT_TYPE.test(type) ? new Text() : new Blind()
}

const NOTHING: Figures = { input: null, cached: 0, output: null }

class Blind implements UsageReader {
  readonly estimate = null
  read(): void {}
  figures(): Figures {
    return NOTHING
  }
}

class Text implements UsageReader {
  #bytes = 0
  read(chunk: Buffer): void {
    this.#bytes += chunk.length
  }
  figures(): Figures {
    return NOTHING
  }
  get estimate(): number {
    return tokensIn(this.#bytes)
  }
}

/** The largest number of each kind, by rule. */
class Found {
  readonly scan: NumberScan
  readonly #largest: (number | null)[]

  constructor({ count, places }: UsagePlan) {
    this.#largest = Array.from({ length: count * KINDS.length }, () => null)
    this.scan = new NumberScan(places, (slot, value) => {
      if (Number.isSafeInteger(value) && value >= 0) this.#largest[slot] = Math.max(this.#largest[slot] ?? 0, value)
    })
  }

  figures(rule: number): Figures {
    const at = (kind: number): number | null => this.#largest[rule * KINDS.length + kind] ?? null
    const input = at(INPUT)
    const cached = Math.min(at(CACHED) ?? 0, input ?? 0)
    const apart = at(CACHED_APART) ?? 0
    const whole = input === null ? null : input + apart + (at(MORE) ?? 0)
    return { input: whole, cached: cached + (whole === null ? 0 : apart), output: at(OUTPUT) }
  }
}

class Json implements UsageReader {
  readonly #found: Found
  #bytes = 0

  constructor(plan: UsagePlan) {
    this.#found = new Found(plan)
  }

  read(chunk: Buffer): void {
    this.#bytes += chunk.length
    this.#found.scan.read(chunk)
  }

  figures(rule: number): Figures {
    return this.#found.figures(rule)
  }

  get estimate(): number {
    return tokensIn(this.#bytes)
  }
}

interface EventListener {
  onEvent(event: { readonly data: string | null }): void
}

interface EventReader {
  write(chunk: Buffer): void
  readonly eventBytes: number
}

class Events implements UsageReader, EventListener {
  estimate = 0
  readonly #names: readonly string[]
  readonly #found: Found
  readonly #reader: EventReader
  /** The event before, and where it ended. */
  #previous = ''
  #eventBytes = 0

  constructor(plan: UsagePlan, readerFor: (listener: EventListener) => EventReader) {
    this.#names = plan.names
    this.#found = new Found(plan)
    this.#reader = readerFor(this)
  }

  read(chunk: Buffer): void {
    this.#reader.write(chunk)
  }

  onEvent({ data }: { readonly data: string | null }): void {
    const bytes = this.#reader.eventBytes - this.#eventBytes
    this.#eventBytes += bytes
    if (data === null) {
      this.estimate += tokensIn(bytes)
      return
    }
    this.estimate += Math.max(1, tokensIn(newBytes(this.#previous, data)))
    this.#previous = data
    if (!this.#names.some((name) => data.includes(name))) return
    this.#found.scan.reset()
    this.#found.scan.read(Buffer.from(data))
  }

  figures(rule: number): Figures {
    return this.#found.figures(rule)
  }
}

/** Bytes of a text between what it has in common with the one before at its beginning and at its end. */
function newBytes(before: string, text: string): number {
  const most = Math.min(before.length, text.length)
  let head = 0
  while (head < most && before.charCodeAt(head) === text.charCodeAt(head)) head++
  let tail = 0
  while (tail < most - head && before.charCodeAt(before.length - 1 - tail) === text.charCodeAt(text.length - 1 - tail))
    tail++
  return Buffer.byteLength(text.slice(head, text.length - tail))
}
