import { describe, expect, it } from 'vitest'
import { createPurgeHistory } from '../../src/cache/purge-history.ts'
import type { PurgeRule } from '../../src/cache/purge-rule.ts'
import { type EntryParts, entryOf } from '../support/entry.ts'

const NOW_MS = 1_000_000
/** Places are microseconds. */
const T = NOW_MS * 1000
const entry = (parts: EntryParts = {}) => ({
  ...entryOf({ key: 'http://a.test/x', tags: ['t'], purgeSeq: T - 10, ...parts }),
  freshUntilMs: NOW_MS + 1000,
  staleWhileRevalidateUntilMs: NOW_MS + 1000,
  staleIfErrorUntilMs: NOW_MS + 3000,
})

describe('what is known of purges', () => {
  it.each<[PurgeRule, boolean]>([
    [{ urls: ['http://a.test/x'] }, true],
    [{ urls: ['//a.test/x'] }, true],
    [{ urls: ['/x'] }, true],
    [{ urls: ['https://a.test/x', '//b.test/x', '/y'] }, false],
    [{ tags: ['s', 't'] }, true],
    [{ tags: ['http://a.test/x', '/x'] }, false],
    [{ urls: ['t'] }, false],
    [{ prefix: '//a.test/' }, true],
    [{ prefix: '/y' }, false],
    [{ pattern: '//a*' }, true],
    [{ pattern: '/y*' }, false],
    [{ all: true }, true],
  ])('finds entries that %j names: %s', (rule, isNamed) => {
    const hard = createPurgeHistory()
    hard.note(rule, T)
    expect(hard.leaves(entry(), NOW_MS) === null).toBe(isNamed)
    const soft = createPurgeHistory()
    soft.note({ ...rule, soft: true }, T)
    const left = soft.leaves(entry(), NOW_MS)
    expect([left?.freshUntilMs, left?.staleIfErrorUntilMs]).toEqual(
      isNamed ? [NOW_MS, NOW_MS + 2000] : [NOW_MS + 1000, NOW_MS + 3000],
    )
  })

  it.each<PurgeRule>([{ urls: ['/x'] }, { tags: ['t'] }, { prefix: '/' }, { pattern: '*' }, { all: true }])(
    'leaves alone what was fetched after %j, whether hard or soft',
    (rule) => {
      const history = createPurgeHistory()
      history.note({ ...rule, soft: true }, T - 5)
      history.note(rule, T)
      const later = entry({ purgeSeq: T })
      expect(history.leaves(later, NOW_MS)).toBe(later)
      expect(history.leaves(entry(), NOW_MS)).toBeNull()
    },
  )

  it.each<[string, PurgeRule, PurgeRule]>([
    ['a name', { tags: ['t'] }, { tags: ['t'], soft: true }],
    ['two names', { urls: ['/x'] }, { tags: ['t'], soft: true }],
    ['tests', { prefix: '/' }, { pattern: '*', soft: true }],
    ['a test and a name', { prefix: '/' }, { tags: ['t'], soft: true }],
    ['all', { all: true }, { all: true, soft: true }],
  ])('does not let a later soft purge hide a hard one: %s', (_what, hard, soft) => {
    const history = createPurgeHistory()
    history.note(hard, T - 5)
    history.note(soft, T)
    expect(history.leaves(entry(), NOW_MS)).toBeNull()
    expect(history.leaves(entry({ purgeSeq: T - 5 }), NOW_MS)?.freshUntilMs).toBe(NOW_MS)
  })

  it('tells since when what was purged softly is stale', () => {
    const history = createPurgeHistory()
    history.note({ tags: ['t'], soft: true }, T - 400_000)
    expect(history.leaves(entry({ purgeSeq: T - 500_000 }), NOW_MS)?.freshUntilMs).toBe(NOW_MS - 400)
  })

  it('counts what began before a forgotten purge as purged', () => {
    const history = createPurgeHistory()
    history.forgetBefore(T)
    expect(history.leaves(entry(), NOW_MS)).toBeNull()
    expect(history.leaves(entry({ purgeSeq: T }), NOW_MS)).not.toBeNull()
  })

  it.each<[string, (i: number) => PurgeRule, number]>([
    ['names', (i) => ({ tags: [`tag-${i}`] }), 200_000],
    ['long names', (i) => ({ urls: [`/${i}/${'x'.repeat(8000)}`] }), 3000],
    ['patterns', (i) => ({ pattern: `/y/${i}*` }), 5000],
  ])('is bounded by forgetting the oldest: %s', (_what, rule, count) => {
    const history = createPurgeHistory()
    for (let i = 1; i <= count; i++) history.note(rule(i), i)
    expect(history.leaves(entry({ purgeSeq: 1 }), NOW_MS)).toBeNull()
    const late = entry({ purgeSeq: count - 500 })
    expect(history.leaves(late, NOW_MS)).toBe(late)
  })

  it('takes no more room for a name that is purged again and again', () => {
    const history = createPurgeHistory()
    for (let i = 1; i <= 200_000; i++) history.note({ tags: ['other'] }, i)
    const early = entry({ purgeSeq: 1 })
    expect(history.leaves(early, NOW_MS)).toBe(early)
  })
})
