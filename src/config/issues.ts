// What is wrong with a configuration file, in words: the one form of every message, how a value is shown without
// giving a secret away, and which known name somebody probably meant.
//
// A Finding speaks of a place by its path; load.ts, which has the positions, turns it into a ConfigIssue.

import { MAX_SHOWN_CHARS, formatPath, quote } from './path.ts'
import type { Path } from './path.ts'

export interface Position {
  readonly file: string
  /** 1-based; 0 where the file could not be read at all. */
  readonly line: number
  /** 1-based, in UTF-16 units; 0 where the file could not be read at all. */
  readonly column: number
}

/** One fault of the file. */
export interface ConfigIssue extends Position {
  /** `routes[2].cache.ttl`; '' is the whole file. */
  readonly path: string
  /** What should stand there; null where nothing could, and `got` is then the whole complaint. */
  readonly expected: string | null
  readonly got: string
  readonly cure: string | null
}

/** A fault before it has a position. */
export interface Finding {
  readonly path: Path
  /** Which half of the entry to point at. */
  readonly at: 'key' | 'value'
  readonly expected: string | null
  /** null: describe the value that stands there. */
  readonly got: string | null
  readonly cure: string | null
}

/** `weirgate.yaml:14:9 routes[2].cache.ttl: expected a duration such as "30s", got 30; add the unit: "30s" ...` */
export function formatIssue(issue: ConfigIssue): string {
  const position = issue.line === 0 ? issue.file : `${issue.file}:${issue.line}:${issue.column}`
  const place = issue.path === '' ? position : `${position} ${issue.path}`
  const complaint = issue.expected === null ? issue.got : `expected ${issue.expected}, got ${issue.got}`
  return `${place}: ${complaint}${issue.cure === null ? '' : `; ${issue.cure}`}`
}

/** The finding with its position. value: what stands there; isSubstituted: it came from outside the file, so it may be
 *  a secret whatever its name. */
export function toIssue(finding: Finding, position: Position, value: unknown, isSubstituted: boolean): ConfigIssue {
  const isHidden = isSubstituted || isSecret(finding.path, value)
  return {
    ...position,
    path: formatPath(finding.path),
    expected: finding.expected,
    got: finding.got ?? describeValue(value, isHidden),
    // Some cures repeat the value, with its unit added for instance.
    cure: isHidden && repeats(finding.cure, value) ? null : finding.cure,
  }
}

function repeats(cure: string | null, value: unknown): boolean {
  if (typeof value !== 'string' && typeof value !== 'number') return false
  return value !== '' && cure !== null && cure.toLowerCase().includes(String(value).toLowerCase())
}

/** A value as a message may show it. hidden: its type only, because the value may be a secret; that it is empty is none. */
export function describeValue(value: unknown, hidden: boolean): string {
  if (value === null || value === undefined) return 'nothing'
  if (Array.isArray(value)) return value.length === 0 ? 'an empty list' : 'a list'
  if (typeof value === 'object') return Object.keys(value).length === 0 ? 'an empty mapping' : 'a mapping'
  if (value === '' && hidden) return 'an empty text'
  if (typeof value === 'string') return hidden ? 'a text that is not shown' : quote(value)
  if (typeof value === 'number') return hidden ? 'a number that is not shown' : String(value)
  return value === true ? 'true' : 'false'
}

const SECRET_KEY = /(?:^|[-_])(?:token|password|passwd|secrets?|authorization|cookie|api[-_]?key)$/i
/** `redis://user:password@host`, with or without the scheme. */
const USER_INFO = /:\S*@/

/** True where a value must not be shown: by the key it stands under, or because it carries user information. */
export function isSecret(path: Path, value: unknown): boolean {
  if (path.some((step) => typeof step === 'string' && SECRET_KEY.test(step))) return true
  // API keys stand under the names of their users.
  if (path[0] === 'identity' && path.includes('keys')) return true
  return typeof value === 'string' && USER_INFO.test(value)
}

const MAX_LISTED_NAMES = 20

/** The cure for a name that is not known: the one that was meant, or all there are. */
export function suggestName(name: string, known: readonly string[]): string | null {
  const nearest = nearestName(name, known)
  if (nearest !== null) return `did you mean "${nearest}"?`
  if (known.length === 0) return null
  const rest = known.length - MAX_LISTED_NAMES
  return `known: ${known.slice(0, MAX_LISTED_NAMES).join(', ')}${rest > 0 ? ` and ${rest} more` : ''}`
}

/** The known name that `name` is most likely a slip of; null when none is close. Case, - and _ do not count, and one
 *  slip is allowed for every three letters. */
export function nearestName(name: string, known: readonly string[]): string | null {
  const wanted = bare(name)
  if (wanted.length > MAX_SHOWN_CHARS) return null
  let nearest: string | null = null
  let least = Math.floor(wanted.length / 3) + 1
  for (const candidate of known) {
    const slips = countSlips(wanted, bare(candidate), least)
    if (slips < least) {
      least = slips
      nearest = candidate
    }
  }
  return nearest
}

const bare = (name: string): string => name.toLowerCase().replaceAll(/[-_]/g, '')

/** Damerau-Levenshtein distance (a letter more, less, changed, or two swapped); `limit` where it is that much or more. */
function countSlips(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit
  let before: number[] = []
  let above = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1]
      let slips = Math.min(
        (above[column] as number) + 1,
        (current[column - 1] as number) + 1,
        (above[column - 1] as number) + (same ? 0 : 1),
      )
      if (a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1]) {
        slips = Math.min(slips, (before[column - 2] as number) + 1)
      }
      current.push(slips)
    }
    before = above
    above = current
  }
  return Math.min(above[b.length] as number, limit)
}
