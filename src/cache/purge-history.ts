// Which purges have been carried out, each with its place in the purge log, so that a stored response which comes from
// elsewhere can be held against those that it has not seen: the ones after the place at which its fetch began.
//
// Bounded: names (URLs and tags) are kept with their latest purge only, and beyond the bounds the oldest purges are
// forgotten. What began before a forgotten one counts as purged.

import type { CacheEntry } from './entry.ts'
import { type KeyTest, type PurgeRule, afterPurge, compileKeyTest, spellingsOf } from './purge-rule.ts'

const MAX_NAMES = 50_000
const MAX_BYTES = 8 * 1024 ** 2
/** Prefixes, patterns and soft purges of everything, which are tried one by one. */
const MAX_TESTS = 1000
/** What a name or a test takes beside its text. */
const OVERHEAD_BYTES = 150

export interface PurgeHistory {
  /** Carried out. seq: its place, later than all before; in microseconds, so that it tells when. */
  note(rule: PurgeRule, seq: number): void
  /** Purges up to this place may have been missed: what began before it counts as purged. */
  forgetBefore(seq: number): void
  /** What later purges have left of an entry: itself, the same made stale, or null. nowMs: wall clock. */
  leaves<Entry extends CacheEntry>(entry: Entry, nowMs: number): Entry | null
}

/** Places of the latest purges of one name; 0: none. */
interface Latest {
  readonly hard: number
  readonly soft: number
}

interface Test {
  readonly matches: KeyTest
  readonly isSoft: boolean
  readonly seq: number
  readonly bytes: number
}

export function createPurgeHistory(): PurgeHistory {
  /** Tags begin with a blank, which no URL does. The names purged longest ago come first, as do the tests. */
  const names = new Map<string, Latest>()
  const tests: Test[] = []
  let bytes = 0
  let floor = 0

  function noteName(name: string, seq: number, isSoft: boolean): void {
    const { hard, soft } = names.get(name) ?? NEVER
    if (names.delete(name)) bytes -= name.length + OVERHEAD_BYTES
    names.set(name, isSoft ? { hard, soft: seq } : { hard: seq, soft })
    bytes += name.length + OVERHEAD_BYTES
  }

  function noteTest(rule: PurgeRule, seq: number, isSoft: boolean): void {
    const matches = compileKeyTest(rule)
    if (matches === null) return
    const test = { matches, isSoft, seq, bytes: OVERHEAD_BYTES + (rule.prefix ?? rule.pattern ?? '').length }
    tests.push(test)
    bytes += test.bytes
  }

  function forgetOldest(): void {
    const [name, latest] = names.entries().next().value ?? ['', NEVER]
    const [test] = tests
    const nameSeq = name === '' ? Infinity : Math.max(latest.hard, latest.soft)
    if (test !== undefined && (tests.length > MAX_TESTS || test.seq < nameSeq)) {
      tests.shift()
      bytes -= test.bytes
      floor = Math.max(floor, test.seq)
    } else {
      names.delete(name)
      bytes -= name.length + OVERHEAD_BYTES
      floor = Math.max(floor, nameSeq)
    }
  }

  return {
    note(rule, seq) {
      const { urls = [], tags = [], prefix, pattern } = rule
      const isSoft = rule.soft === true
      if (rule.all === true && !isSoft) {
        names.clear()
        tests.length = 0
        bytes = 0
        floor = Math.max(floor, seq)
        return
      }
      for (const url of urls) noteName(url, seq, isSoft)
      for (const tag of tags) noteName(` ${tag}`, seq, isSoft)
      if (prefix !== undefined) noteTest({ prefix }, seq, isSoft)
      if (pattern !== undefined) noteTest({ pattern }, seq, isSoft)
      if (rule.all === true) noteTest({ all: true }, seq, isSoft)
      while (names.size > MAX_NAMES || tests.length > MAX_TESTS || bytes > MAX_BYTES) forgetOldest()
    },
    forgetBefore(seq) {
      floor = Math.max(floor, seq)
    },
    leaves(entry, nowMs) {
      const { key, tags, purgeSeq } = entry
      if (purgeSeq < floor) return null
      let softSeq = 0
      for (const name of [...spellingsOf(key), ...tags.map((tag) => ` ${tag}`)]) {
        const { hard, soft } = names.get(name) ?? NEVER
        if (hard > purgeSeq) return null
        softSeq = Math.max(softSeq, soft)
      }
      for (let i = tests.length - 1; i >= 0; i--) {
        const { seq, isSoft, matches } = tests[i] as Test
        if (seq <= purgeSeq) break
        // A soft one says no more than an earlier soft one has said.
        if ((isSoft && softSeq > purgeSeq) || !matches(key)) continue
        if (!isSoft) return null
        softSeq = seq
      }
      return softSeq > purgeSeq ? afterPurge(entry, true, Math.min(nowMs, softSeq / 1000)) : entry
    },
  }
}

const NEVER: Latest = { hard: 0, soft: 0 }
