// What the body of an answer says of whether it may be stored, once it is whole. A 200 need not be a success: services say
// in it that they failed, or that they were cut short, and what is stored of that answers for as long as it is fresh.
//
// Of an answer to a POST, unless the route says otherwise, JSON must be what its type says, have no `error`, and name no
// end but a proper one where the formats of language models say how it ended. On top come the route's own conditions,
// for any method. Only what nobody can doubt passes: an answer that cannot be looked into is not stored.
//
// The body is read as it came, decoded if need be, on the event loop: once for each miss, 4 MiB at most.

import { brotliDecompressSync, gunzipSync, inflateSync, zstdDecompressSync } from 'node:zlib'
import type { HeaderList } from '../core/context.ts'
import { getCombined, getHeader } from '../http/headers.ts'
import type { PlainJson } from '../http/json.ts'
import { type Condition, holds } from './condition.ts'
import type { Reason } from './reasons.ts'

export interface AnswerRuleOptions {
  /** All of these must hold. */
  readonly storeIf?: readonly Condition[] | undefined
  /** None of these may hold. */
  readonly rejectIf?: readonly Condition[] | undefined
  /** Errors and answers that were cut short count as any other. */
  readonly storeUnfinished: boolean
  /** Answers are those of GraphQL, which are stored with data and without errors alone. */
  readonly isGraphql?: boolean
}

export interface AnswerRule {
  /** Whether a body has to be looked into, as far as method and head tell. */
  readonly concerns: (method: string, answer: Head) => boolean
  /** Why the answer may not be stored; null when it may. body: whole. Ask where concerns() says so; never throws. */
  readonly refusal: (method: string, answer: Head, body: Buffer) => Reason | null
  /** Stands for the rule: what was stored under a laxer one is not looked at. */
  readonly id: string
}

interface Head {
  readonly status: number
  readonly headers: HeaderList
}

/** Bytes of the largest text that is looked into. */
export const MAX_READ_BYTES = 4 * 1024 ** 2

export function compileAnswerRule(options: AnswerRuleOptions): AnswerRule {
  const { storeIf = [], rejectIf = [], storeUnfinished, isGraphql = false } = options
  const hasConditions = storeIf.length > 0 || rejectIf.length > 0
  const judges = (method: string): boolean => method === 'POST' && !storeUnfinished
  return {
    // Conditions are about successes; an error is stored where the route's ttl names its status.
    concerns: (method, { status, headers }) =>
      status < 300 &&
      (hasConditions ||
        (judges(method) && typeOf(headers) !== 'other') ||
        // By GET there may be pages under the same URL.
        (isGraphql && (method !== 'GET' || typeOf(headers) !== 'other'))),
    refusal(method, { headers }, body) {
      const type = typeOf(headers)
      if (type === 'other') return 'answer-not-json'
      const text = textOf(headers, body)
      if (text === null) return 'unread'
      const json = parse(text)
      if (json === undefined) return 'answer-not-json'
      if (isGraphql && !isWithoutErrors(json)) return 'error-answer'
      if (judges(method)) {
        if (type === 'problem' || tellsError(json)) return 'error-answer'
        if (isCutShort(json)) return 'unfinished'
      }
      if (rejectIf.some((condition) => holds(condition, json) !== false)) return 'reject-if'
      return storeIf.every((condition) => holds(condition, json) === true) ? null : 'store-if'
    },
    id: hasConditions || storeUnfinished ? JSON.stringify([storeIf, rejectIf, storeUnfinished]) : '',
  }
}

/** problem: RFC 9457, which says of itself that it is an error. */
function typeOf(headers: HeaderList): 'json' | 'problem' | 'other' {
  const [essence = ''] = (getHeader(headers, 'content-type') ?? '').toLowerCase().split(';')
  const type = essence.trim()
  if (type === 'application/problem+json') return 'problem'
  return type === 'application/json' || type.endsWith('+json') ? 'json' : 'other'
}

type Decoder = (body: Buffer, limits: { readonly maxOutputLength: number }) => Buffer

const DECODERS: ReadonlyMap<string, Decoder> = new Map<string, Decoder>([
  ['gzip', gunzipSync],
  ['x-gzip', gunzipSync],
  ['deflate', inflateSync],
  ['br', brotliDecompressSync],
  ['zstd', zstdDecompressSync],
])

/** Null for what is too long, or in a coding that is broken or not known here. */
function textOf(headers: HeaderList, body: Buffer): Buffer | null {
  const coding = getCombined(headers, 'content-encoding')?.trim().toLowerCase() ?? ''
  if (coding === '' || coding === 'identity') return body.length > MAX_READ_BYTES ? null : body
  try {
    return DECODERS.get(coding)?.(body, { maxOutputLength: MAX_READ_BYTES }) ?? null
  } catch {
    return null
  }
}

function parse(text: Buffer): PlainJson | undefined {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(text)) as PlainJson
  } catch {
    return undefined
  }
}

type JsonObject = Exclude<PlainJson, null | boolean | number | string | readonly PlainJson[]>

const isObject = (value: PlainJson | undefined): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** A member of an object; undefined of anything else. */
export const memberOf = (value: PlainJson | undefined, name: string): PlainJson | undefined =>
  isObject(value) && Object.hasOwn(value, name) ? value[name] : undefined

const elementsOf = (value: PlainJson | undefined): readonly PlainJson[] => (Array.isArray(value) ? value : [])

/** `"error": false` and the like say that there is none. `errors` is GraphQL's, where the rest may be there in part. */
export function tellsError(json: PlainJson): boolean {
  const error = memberOf(json, 'error') ?? null
  return (error !== null && error !== false && error !== '') || elementsOf(memberOf(json, 'errors')).length > 0
}

/** What of an answer says that it was cut short, or does not say how it ended. */
function isCutShort(json: PlainJson): boolean {
  const ends = endsOf(json)
  if (ends.some((end) => end === null || isEarly(end))) return true
  const status = memberOf(json, 'status')
  return (
    (memberOf(json, 'incomplete_details') ?? null) !== null ||
    (memberOf(json, 'object') === 'response' && status !== undefined && status !== 'completed')
  )
}

/** The same of one event of a stream, most of which say nothing of the end. */
export const isCutShortBy = (json: PlainJson): boolean =>
  [...endsOf(json), ...endsOf(memberOf(json, 'delta') ?? null)].some(isEarly) ||
  (memberOf(memberOf(json, 'response'), 'incomplete_details') ?? null) !== null

/** The answer to a GraphQL request, with its data and no errors: those may be of the moment, or of one user. */
const isWithoutErrors = (json: PlainJson): boolean =>
  elementsOf(memberOf(json, 'errors')).length === 0 &&
  Array.isArray(memberOf(json, 'errors') ?? []) &&
  isObject(memberOf(json, 'data'))

/** Whether an answer to a GraphQL request says that nothing of it was carried out: there are errors and no data, not even
 *  null, which may stand in the place of what failed after it was done (GraphQL §7.1.2). body: whole. */
export function saysNothingDone(headers: HeaderList, body: Buffer): boolean {
  const text = typeOf(headers) === 'json' ? textOf(headers, body) : null
  const json = text === null ? undefined : parse(text)
  return isObject(json) && elementsOf(memberOf(json, 'errors')).length > 0 && !Object.hasOwn(json, 'data')
}

/** By the members in which OpenAI (chat, completions, responses), Anthropic, Google, Amazon, Ollama, and those who speak
 *  their formats, say how an answer ended. Null: it did not. */
const endsOf = (json: PlainJson): (PlainJson | undefined)[] => [
  ...ENDS.map((name) => memberOf(json, name)),
  ...elementsOf(memberOf(json, 'choices')).map((choice) => memberOf(choice, 'finish_reason')),
  ...elementsOf(memberOf(json, 'candidates')).map((candidate) => memberOf(candidate, 'finishReason')),
]

const isEarly = (end: PlainJson | undefined): boolean => typeof end === 'string' && CUT.has(end.toLowerCase())

const ENDS = ['finish_reason', 'stop_reason', 'stopReason', 'done_reason'] as const

/** In small letters. */
const CUT: ReadonlySet<string> = new Set([
  // out of room
  'length',
  'max_tokens',
  'max_output_tokens',
  'model_length',
  'model_context_window_exceeded',
  // filtered
  'blocklist',
  'content_filter',
  'content_filtered',
  'guardrail_intervened',
  'prohibited_content',
  'recitation',
  'refusal',
  'safety',
  'spii',
  // broken off
  'abort',
  'cancelled',
  'error',
  'malformed_function_call',
  'pause_turn',
])
