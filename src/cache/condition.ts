// Conditions on a JSON value, as a route table writes them: a field, and what is said of it.
//
//   temperature > 0      stream == true      /choices/0/finish_reason != "stop"      error exists      /slides empty
//
// The field is a name at the top or a JSON Pointer (RFC 6901). `exists` and `absent`: null counts as absent, here and
// everywhere; `empty` and `filled` are said of texts, lists and objects; `== != < <= > >=` compare with one JSON text,
// number, true or false. There is no more to it: no `and`, no `or`, no patterns.
//
// A third outcome beside true and false keeps it honest. Of a value of another type than what it is compared with (is
// "0.7" > 0?) nobody can tell what the origin makes of it, and whoever asks takes the side on which nothing is stored.

import { type JsonPointer, type JsonValue, type PlainJson, parseField, valueAt } from '../http/json.ts'

const WORDS = ['exists', 'absent', 'filled', 'empty'] as const
const SIGNS = ['==', '!=', '<', '<=', '>', '>='] as const

type Word = (typeof WORDS)[number]
type Sign = (typeof SIGNS)[number]

export type Condition =
  | { readonly field: JsonPointer; readonly is: Word }
  | { readonly field: JsonPointer; readonly is: Sign; readonly than: string | number | boolean }

/** One condition; null where the text is none. */
export function parseCondition(text: string): Condition | null {
  const [, name = '', is = '', operand] = /^(\S+) +(\S+)(?: +(\S.*))?$/.exec(text) ?? []
  const field = parseField(name)
  if (field === null) return null
  const word = WORDS.find((known) => known === is)
  if (word !== undefined) return operand === undefined ? { field, is: word } : null
  const sign = SIGNS.find((known) => known === is)
  const than = operand === undefined ? null : parseOperand(operand)
  if (sign === undefined || than === null) return null
  const isOrder = sign !== '==' && sign !== '!='
  return isOrder && typeof than !== 'number' ? null : { field, is: sign, than }
}

function parseOperand(text: string): string | number | boolean | null {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return null
  }
  if (typeof value === 'number') return Number.isFinite(value) ? value : null
  return typeof value === 'string' || typeof value === 'boolean' ? value : null
}

/** Whether a condition holds of a value; null: nobody can tell. */
export function holds(condition: Condition, root: JsonValue | PlainJson): boolean | null {
  const found = valueAt(root, condition.field) ?? null
  if ('than' in condition) return compares(found, condition.is, condition.than)
  if (condition.is === 'exists') return found !== null
  if (condition.is === 'absent') return found === null
  const empty = isEmpty(found)
  return empty === null || condition.is === 'empty' ? empty : !empty
}

function isEmpty(value: JsonValue | PlainJson): boolean | null {
  if (value === null || value === '') return true
  if (typeof value === 'string') return false
  if (typeof value !== 'object') return null
  if (value instanceof Map) return value.size === 0
  return (Array.isArray(value) ? value : Object.keys(value)).length === 0
}

function compares(value: JsonValue | PlainJson, sign: Sign, than: string | number | boolean): boolean | null {
  if (value === null) return sign === '!='
  if (typeof value !== typeof than) return null
  if (sign === '==') return value === than
  if (sign === '!=') return value !== than
  // parseCondition() compares the order of numbers only.
  const [a, b] = [value as number, than as number]
  if (sign === '<') return a < b
  if (sign === '<=') return a <= b
  return sign === '>' ? a > b : a >= b
}
