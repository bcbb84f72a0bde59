// What the demo backends accept, and how they refuse it: rules for fields of a body, a query or a path, and the 422
// answer in the form that FastAPI gives it ({"detail": [{type, loc, msg}]}). Numbers are taken as text too, unknown
// fields are ignored: as pydantic does.

import type { IncomingHttpHeaders } from 'node:http'
import { failure } from './backend.ts'
import type { Answer } from './backend.ts'

type Place = 'body' | 'query' | 'path'

interface Issue {
  readonly type: string
  readonly loc: readonly string[]
  readonly msg: string
}

type Verdict<T> = { readonly value: T } | { readonly type: string; readonly msg: string }

interface Rule<T> {
  readonly parse: (value: unknown) => Verdict<T>
  /** Taken where the field is missing; undefined makes the field required. */
  readonly fallback: T | undefined
}

type Rules = Readonly<Record<string, Rule<unknown>>>
type Fields<R extends Rules> = { readonly [K in keyof R]: R[K] extends Rule<infer T> ? T : never }

/** The fields, or the 422 that names everything wrong with them. */
export type Decoded<R extends Rules> = { readonly fields: Fields<R> } | { readonly refusal: Answer }

/** The rule with another fallback; null marks a field that may be left out. */
export function optional<T, F>(rule: Rule<T>, fallback: F): Rule<T | F> {
  return { parse: rule.parse, fallback }
}

/** A text of minChars to maxChars characters. */
export function string(minChars: number, maxChars: number): Rule<string> {
  const parse = (value: unknown): Verdict<string> => {
    if (typeof value !== 'string') return { type: 'string_type', msg: 'Input should be a valid string' }
    if (value.length < minChars) {
      return { type: 'string_too_short', msg: `String should have at least ${minChars} characters` }
    }
    if (value.length > maxChars) {
      return { type: 'string_too_long', msg: `String should have at most ${maxChars} characters` }
    }
    return { value }
  }
  return { parse, fallback: undefined }
}

/** A whole number from min to max. */
export function integer(min: number, max: number): Rule<number> {
  const parse = (input: unknown): Verdict<number> => {
    const value = typeof input === 'string' && /^-?\d{1,15}$/.test(input) ? Number(input) : input
    if (typeof value !== 'number' || !Number.isInteger(value)) {
      return { type: 'int_parsing', msg: 'Input should be a valid integer' }
    }
    if (value < min) return { type: 'greater_than_equal', msg: `Input should be greater than or equal to ${min}` }
    if (value > max) return { type: 'less_than_equal', msg: `Input should be less than or equal to ${max}` }
    return { value }
  }
  return { parse, fallback: undefined }
}

/** One of a few words. */
export function choice<const W extends string>(words: readonly W[]): Rule<W> {
  const parse = (input: unknown): Verdict<W> => {
    const value = words.find((word) => word === input)
    return value === undefined ? { type: 'enum', msg: `Input should be one of ${words.join(', ')}` } : { value }
  }
  return { parse, fallback: undefined }
}

/** true or false. */
export function boolean(): Rule<boolean> {
  const parse = (value: unknown): Verdict<boolean> =>
    typeof value === 'boolean' ? { value } : { type: 'bool_type', msg: 'Input should be a valid boolean' }
  return { parse, fallback: undefined }
}

/** Decodes a mapping; place: where it came from, as the client reads it in `loc`. */
export function decodeFields<R extends Rules>(
  rules: R,
  input: Readonly<Record<string, unknown>>,
  place: Place,
): Decoded<R> {
  const issues: Issue[] = []
  const fields: Record<string, unknown> = {}
  for (const [name, rule] of Object.entries(rules)) {
    if (!Object.hasOwn(input, name)) {
      if (rule.fallback === undefined) issues.push({ type: 'missing', loc: [place, name], msg: 'Field required' })
      fields[name] = rule.fallback
      continue
    }
    const verdict = rule.parse(input[name])
    if ('value' in verdict) fields[name] = verdict.value
    else issues.push({ type: verdict.type, loc: [place, name], msg: verdict.msg })
  }
  return issues.length === 0 ? { fields: fields as Fields<R> } : { refusal: failure(422, issues) }
}

/** Decodes a JSON body. As in FastAPI, a body that is not labelled as JSON is no object. */
export function decodeBody<R extends Rules>(rules: R, body: Buffer, headers: IncomingHttpHeaders): Decoded<R> {
  const refuse = (type: string, msg: string) => ({ refusal: failure(422, [{ type, loc: ['body'], msg }]) })
  if (body.length === 0) return refuse('missing', 'Field required')
  const input = isJson(headers['content-type']) ? parseJson(body) : null
  if (input === undefined) return refuse('json_invalid', 'JSON decode error')
  if (typeof input !== 'object' || input === null || Array.isArray(input)) {
    return refuse('model_attributes_type', 'Input should be a valid dictionary or object to extract fields from')
  }
  return decodeFields(rules, input as Record<string, unknown>, 'body')
}

const isJson = (contentType: string | undefined): boolean =>
  /^application\/(?:[^;]+\+)?json\s*(?:;|$)/i.test(contentType ?? '')

/** undefined for anything that is no JSON text. */
function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString()) as unknown
  } catch {
    return undefined
  }
}
