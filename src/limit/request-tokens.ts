// How many tokens a request is going to use, as far as its JSON body tells: what it asks by its length, what it may get by
// the caps that it names. Services have no cap of one name, so the largest counts, once for each answer that is asked for.
//
// A body that is none of this, or that was too long to be held, is told by its length, and gets what is taken for granted.

import type { RequestContext } from '../core/context.ts'
import { type JsonPointer, type JsonValue, readJson } from '../http/json.ts'
import { requestTokens } from './meter.ts'
import type { Tokens } from './usage.ts'
import { tokensIn } from './usage.ts'

export interface ReserveRule {
  /** Fields whose texts are what is asked; absent: the whole body is. */
  readonly input?: readonly JsonPointer[] | undefined
  /** Fields that cap the tokens of an answer. */
  readonly output: readonly JsonPointer[]
  /** The field that says how many answers are wanted. */
  readonly times?: JsonPointer | undefined
  /** Tokens of an answer that has no cap. */
  readonly default: number
}

const MAX_DEPTH = 64
/** Nobody gets more at once; and no number of a client's own overflows anything. */
const MAX_TIMES = 128
const MAX_TOKENS = 2 ** 31

export function estimateRequest(ctx: RequestContext, rule: ReserveRule): Tokens {
  const bytes = ctx.body?.bytes
  const json = bytes === undefined ? null : readJson(bytes, { maxDepth: MAX_DEPTH })
  const whole = requestTokens(ctx) ?? 0
  if (json?.ok !== true) return { input: whole, cached: 0, output: rule.default }
  const { value } = json
  const input =
    rule.input === undefined ? whole : tokensIn(rule.input.reduce((sum, at) => sum + textBytes(find(value, at)), 0))
  const caps = rule.output.flatMap((at) => wholeNumber(find(value, at), MAX_TOKENS) ?? [])
  const times = rule.times === undefined ? null : wholeNumber(find(value, rule.times), MAX_TIMES)
  return { input, cached: 0, output: (caps.length === 0 ? rule.default : Math.max(...caps)) * (times ?? 1) }
}

/** undefined: it has no such field. */
function find(value: JsonValue, at: JsonPointer): JsonValue | undefined {
  let found: JsonValue | undefined = value
  for (const name of at) {
    if (found instanceof Map) found = found.get(name)
    else if (Array.isArray(found)) found = /^(?:0|[1-9]\d{0,5})$/.test(name) ? found[Number(name)] : undefined
    else return undefined
  }
  return found
}

function wholeNumber(value: JsonValue | undefined, most: number): number | null {
  return typeof value === 'number' && value >= 1 ? Math.min(most, Math.ceil(value)) : null
}

/** Of all texts in it, without the names of members. */
function textBytes(value: JsonValue | undefined): number {
  if (typeof value === 'string') return Buffer.byteLength(value)
  let bytes = 0
  if (Array.isArray(value)) for (const element of value) bytes += textBytes(element)
  else if (value instanceof Map) for (const member of value.values()) bytes += textBytes(member)
  return bytes
}
