// What a purge names, as a value: it can be carried out here (purge.ts), sent to other instances, kept, and held against
// a single entry. Each URL in it is in the spelling of cache keys, and says how much of a key it means:
//
//   http://host/path?query   that URL          //host/path   by http and https alike          /path   on every host
//
// A pattern is matched by searching for its pieces one after another: no text from outside becomes a regular expression,
// and no pattern takes longer than its length times the URL's.

import { validatorsOf } from '../http/conditional.ts'
import type { CacheEntry } from './entry.ts'
import { pathOfKey, urlOfKey } from './key.ts'

/** Names what any one of its members names. Plain JSON. */
export interface PurgeRule {
  readonly urls?: readonly string[]
  readonly tags?: readonly string[]
  /** The beginning of URLs: `//host/path` or `/path`. */
  readonly prefix?: string
  /** Whole URLs, `*` for any text: `//host/path` or `/path`. */
  readonly pattern?: string
  readonly all?: true
  /** What is named becomes stale at once, in place of being removed. */
  readonly soft?: true
}

/** True when a rule names what is stored under a key. */
export type KeyTest = (key: string) => boolean

/** What a rule says of keys, tags aside; null where it says nothing of them. */
export function compileKeyTest({ urls = [], prefix, pattern, all }: PurgeRule): KeyTest | null {
  if (all === true) return () => true
  const tests: KeyTest[] = []
  if (urls.length > 0) {
    const named = new Set(urls)
    tests.push((key) => spellingsOf(key).some((url) => named.has(url)))
  }
  if (prefix !== undefined) tests.push((key) => inFormOf(prefix, key).startsWith(prefix))
  if (pattern !== undefined) {
    const glob = compileGlob(pattern)
    tests.push((key) => glob(inFormOf(pattern, key)))
  }
  const [only, ...more] = tests
  if (only === undefined || more.length === 0) return only ?? null
  return (key) => tests.some((test) => test(key))
}

/** The URLs by which a rule may name a key, the narrowest first. */
export function spellingsOf(key: string): readonly [url: string, onBothSchemes: string, onEveryHost: string] {
  const url = urlOfKey(key)
  return [url, url.slice(url.indexOf('://') + 1), pathOfKey(url)]
}

/** A rule in parts of at most maxChars of text each, or of one text that is longer: together they name the same. */
export function splitRule(rule: PurgeRule, maxChars: number): readonly PurgeRule[] {
  const { urls = [], tags = [], ...rest } = rule
  if ([...urls, ...tags].reduce((chars, text) => chars + text.length, 0) <= maxChars) return [rule]
  const soft = rule.soft === undefined ? {} : { soft: rule.soft }
  const parts: PurgeRule[] = []
  for (const [kind, texts] of [['urls', urls] as const, ['tags', tags] as const]) {
    let part: string[] = []
    let chars = 0
    for (const text of texts) {
      if (part.length > 0 && chars + text.length > maxChars) {
        parts.push({ [kind]: part, ...soft })
        part = []
        chars = 0
      }
      part.push(text)
      chars += text.length
    }
    if (part.length > 0) parts.push({ [kind]: part, ...soft })
  }
  if (rest.prefix !== undefined || rest.pattern !== undefined || rest.all === true) parts.push(rest)
  return parts
}

/** What a purge leaves of an entry: null for nothing, the entry itself where there is nothing to change. nowMs: when
 *  it came.
 *
 *  Softly purged, an entry is stale from then on, and its times for answering stale begin then, as they would have
 *  begun at the end of its freshness; so none of them ends later than before. What may not answer stale is kept for
 *  its validator alone. */
export function afterPurge<Entry extends CacheEntry>(entry: Entry, isSoft: boolean, nowMs: number): Entry | null {
  if (!isSoft) return null
  const lostMs = entry.freshUntilMs - nowMs
  if (lostMs <= 0) return entry
  const staleWhileRevalidateUntilMs = entry.staleWhileRevalidateUntilMs - lostMs
  const staleIfErrorUntilMs = entry.staleIfErrorUntilMs - lostMs
  const mayAnswer = Math.max(staleWhileRevalidateUntilMs, staleIfErrorUntilMs) > nowMs
  if (!mayAnswer && validatorsOf(entry.headers).length === 0) return null
  return {
    ...entry,
    freshUntilMs: nowMs,
    originFreshUntilMs: Math.min(entry.originFreshUntilMs, nowMs),
    staleWhileRevalidateUntilMs,
    staleIfErrorUntilMs,
  }
}

/** A key as far as a prefix or a pattern of this form speaks of it. */
function inFormOf(form: string, key: string): string {
  const [, onBothSchemes, onEveryHost] = spellingsOf(key)
  return form.startsWith('//') ? onBothSchemes : onEveryHost
}

/** A test for whole texts, in which `*` stands for any text. */
function compileGlob(pattern: string): (text: string) => boolean {
  const [first = '', ...middle] = pattern.split('*')
  const last = middle.pop()
  if (last === undefined) return (text) => text === pattern
  return (text) => {
    if (!text.startsWith(first)) return false
    let at = first.length
    for (const piece of middle) {
      const found = text.indexOf(piece, at)
      if (found < 0) return false
      at = found + piece.length
    }
    return text.length - last.length >= at && text.endsWith(last)
  }
}
