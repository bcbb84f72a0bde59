// How the checks of config/ read the raw document: plain data of any shape, which the schema judges elsewhere.

import { parseDuration } from '../core/decode.ts'
import type { Finding } from './issues.ts'
import { valueAt } from './path.ts'
import type { Path } from './path.ts'

/** A route with its place, reduced to what the checks read. */
export interface RawRoute {
  readonly path: Path
  readonly fields: Record<string, unknown>
}

export const methodsOf = ({ fields }: RawRoute): string[] | null => upperCase(fields['methods'])

/** Each text of a list once; null where it is no list. */
export function upperCase(list: unknown): string[] | null {
  if (!Array.isArray(list)) return null
  const texts = (list as unknown[]).filter((method) => typeof method === 'string')
  return [...new Set(texts.map((method) => method.toUpperCase()))]
}

export function durationAt(root: unknown, path: Path): number | null {
  const text = valueAt(root, path)
  return typeof text === 'string' ? parseDuration(text) : null
}

export function listAt(root: unknown, path: Path): readonly unknown[] {
  const value = valueAt(root, path)
  return Array.isArray(value) ? value : []
}

export const complaint = (path: Path, got: string, cure: string): Finding => ({
  path,
  at: 'value',
  expected: null,
  got,
  cure,
})
