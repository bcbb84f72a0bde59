// From what zod says to what the operator reads: every refusal of the schema as a Finding.
//
// A union's refusal is that of the one branch whose shape fits the value: who wrote a mapping hears about its keys,
// who wrote `30` hears about the unit. Only a value that fits no branch is told all of them.

import type { z } from 'zod'
import { NOT_SUPPORTED_YET } from '../core/decode.ts'
import type { Refusal } from '../core/decode.ts'
import { suggestName } from './issues.ts'
import type { Finding } from './issues.ts'
import { isMapping, quote, valueAt } from './path.ts'
import type { Path } from './path.ts'
import { keysAt } from './shapes.ts'

type Issue = z.core.$ZodIssue

/** All findings of a failed parse, in no particular order. raw: the value that was parsed. */
export function explainRefusals(schema: z.ZodType, error: z.ZodError, raw: unknown): Finding[] {
  return error.issues.flatMap((issue) => explain(schema, issue, [], raw))
}

/** base: path of what the issue's own path begins at. */
function explain(schema: z.ZodType, issue: Issue, base: Path, raw: unknown): Finding[] {
  const path = [...base, ...issue.path] as Path
  if (issue.code === 'unrecognized_keys') {
    const known = keysAt(schema, path)
    return issue.keys.map((key) => {
      const cure = key === '<<' ? 'merge keys are not part of YAML 1.2; write the keys out' : suggestName(key, known)
      return { path: [...path, key], at: 'key', expected: null, got: `unknown key ${quote(key)}`, cure }
    })
  }
  if (issue.code === 'invalid_union') return explainUnion(schema, issue.errors, path, raw)
  if (issue.code === 'invalid_key') {
    return [{ path, at: 'key', ...wanted(issue.issues[0]), got: quote(String(path.at(-1))) }]
  }
  if (issue.code === 'invalid_type' && issue.expected === 'never') {
    return [{ path, at: 'key', expected: null, got: NOT_SUPPORTED_YET, cure: 'remove it' }]
  }
  return [refused(schema, path, wanted(issue), raw)]
}

function refused(schema: z.ZodType, path: Path, { expected, cure }: Refusal, raw: unknown): Finding {
  const parent = valueAt(raw, path.slice(0, -1))
  const key = path.at(-1)
  const isMissing = typeof key === 'string' && isMapping(parent) && !Object.hasOwn(parent, key)
  if (isMissing) return { path, at: 'value', expected, got: null, cure: `add ${quote(key)}` }
  const value = valueAt(raw, path)
  const emptied = key !== undefined && value === null ? EMPTY_CURES.get(expected) : undefined
  return { path, at: 'value', expected, got: null, cure: emptied ?? cure ?? shapeCure(schema, path, expected, value) }
}

/** How to write what has another shape altogether. Repeats no value: that may be a secret. */
function shapeCure(schema: z.ZodType, path: Path, expected: string, value: unknown): string | null {
  if (expected === LIST) return isMapping(value) ? 'begin each item with "- "' : 'put brackets around it: [...]'
  if (expected !== MAPPING) return null
  if (path.length === 0) return 'a route table has "upstreams:" and "routes:" at least'
  return `write {${keysAt(schema, path)[0] ?? 'name'}: ...}`
}

const MAPPING = 'a mapping'
const LIST = 'a list'

/** A key with nothing after it: often everything below was commented out. */
const EMPTY_CURES: ReadonlyMap<string, string> = new Map([
  [MAPPING, 'write {} for an empty one, or remove it'],
  [LIST, 'write [] for an empty one, or remove it'],
])

/** What one issue asks for. */
function wanted(issue: Issue | undefined): Refusal {
  // Every decoder of core/decode.ts puts a Refusal there, and nothing else raises custom issues.
  if (issue?.code === 'custom') return issue.params as Refusal
  if (issue?.code === 'invalid_type') return { expected: issue.expected === 'array' ? LIST : MAPPING, cure: null }
  if (issue?.code === 'too_small') {
    return { expected: `at least ${issue.minimum} ${issue.minimum === 1 ? 'item' : 'items'}`, cure: null }
  }
  return { expected: issue?.message ?? 'another value', cure: null }
}

function explainUnion(schema: z.ZodType, branches: readonly Issue[][], path: Path, raw: unknown): Finding[] {
  const value = valueAt(raw, path)
  const fitting = branches.filter((branch) => branch.every((issue) => issue.path.length > 0 || fits(issue, value)))
  // Beside a literal (health: false or a path) stands a decoder whose words name both.
  const chosen = fitting.find((branch) => branch.some((issue) => issue.code !== 'invalid_value')) ?? fitting[0]
  if (chosen !== undefined) return chosen.flatMap((issue) => explain(schema, issue, path, raw))
  const others = branches.filter((branch) => branch[0]?.code !== 'invalid_value')
  const expected = others.map((branch) => wanted(branch[0]).expected).join(' or ')
  return [refused(schema, path, { expected, cure: null }, raw)]
}

/** False where the issue says that the value has another shape altogether, a mapping in place of a text for instance. */
function fits(issue: Issue, value: unknown): boolean {
  if (issue.code === 'custom' || issue.code === 'invalid_value') return typeof value !== 'object'
  return issue.code !== 'invalid_type'
}
