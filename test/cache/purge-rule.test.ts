import { describe, expect, it } from 'vitest'
import { type PurgeRule, afterPurge, compileKeyTest, splitRule } from '../../src/cache/purge-rule.ts'
import { type EntryParts, entryOf } from '../support/entry.ts'

describe('a rule', () => {
  const KEYS = [
    'http://a.test/x',
    'https://a.test/x',
    'http://b.test/x',
    'http://a.test/x?q=1',
    'http://a.test/x/y',
    'http://a.test/x\nPOST {"n":1}',
    'http://a.test/y\nx: /x',
  ]

  it.each<[PurgeRule, readonly number[]]>([
    [{ urls: ['http://a.test/x'] }, [0, 5]],
    [{ urls: ['//a.test/x'] }, [0, 1, 5]],
    [{ urls: ['/x'] }, [0, 1, 2, 5]],
    [{ urls: ['/x/y', 'https://a.test/x'] }, [1, 4]],
    [{ prefix: '//a.test/x' }, [0, 1, 3, 4, 5]],
    [{ prefix: '/x/' }, [4]],
    [{ pattern: '/x' }, [0, 1, 2, 5]],
    [{ pattern: '/*x' }, [0, 1, 2, 5]],
    [{ pattern: '//b*' }, [2]],
    [{ urls: ['/x/y'], pattern: '//b*' }, [2, 4]],
    [{ all: true }, [0, 1, 2, 3, 4, 5, 6]],
  ])('%j names the right keys, whatever stands behind their URL', (rule, expected) => {
    const test = compileKeyTest(rule)
    expect(KEYS.flatMap((key, i) => (test?.(key) === true ? [i] : []))).toEqual(expected)
  })

  it('of tags alone says nothing of keys', () => {
    expect(compileKeyTest({ tags: ['a'] })).toBeNull()
  })

  it.each<[PurgeRule, readonly PurgeRule[]]>([
    [{ all: true }, [{ all: true }]],
    [{ prefix: '/a', soft: true }, [{ prefix: '/a', soft: true }]],
    [{ urls: ['/a', '/b'], tags: ['t'] }, [{ urls: ['/a', '/b'], tags: ['t'] }]],
    [
      { urls: ['/aa', '/bb', '/cccccccc', '/d'], tags: ['t'], soft: true },
      [
        { urls: ['/aa', '/bb'], soft: true },
        { urls: ['/cccccccc'], soft: true },
        { urls: ['/d'], soft: true },
        { tags: ['t'], soft: true },
      ],
    ],
  ])('%j is told in parts that name the same', (rule, parts) => {
    expect(splitRule(rule, 6)).toEqual(parts)
  })
})

describe('a soft purge', () => {
  const VALIDATOR: EntryParts = { headers: ['ETag', '"v"'] }
  const aged = (parts: EntryParts, freshUntilMs: number, whileRevalidateMs = 0, ifErrorMs = 0) => ({
    ...entryOf(parts),
    freshUntilMs,
    staleWhileRevalidateUntilMs: freshUntilMs + whileRevalidateMs,
    staleIfErrorUntilMs: freshUntilMs + ifErrorMs,
  })

  it('makes an entry stale, and its times for answering stale begin', () => {
    const entry = { ...aged({}, 1000, 60, 600), originFreshUntilMs: 900 }
    expect(afterPurge(entry, true, 100)).toEqual({
      ...entry,
      freshUntilMs: 100,
      originFreshUntilMs: 100,
      staleWhileRevalidateUntilMs: 160,
      staleIfErrorUntilMs: 700,
    })
  })

  it('changes nothing in what is stale already', () => {
    const entry = aged({}, 1000, 60, 600)
    expect(afterPurge(entry, true, 1010)).toBe(entry)
  })

  it.each([
    ['what may not answer stale and has no validator', aged({}, 1000), null],
    ['what may not answer stale and can be validated', aged(VALIDATOR, 1000), 100],
  ])('keeps only what can still be of use: %s', (_what, entry, staleUntilMs) => {
    expect(afterPurge(entry, true, 100)?.staleIfErrorUntilMs ?? null).toBe(staleUntilMs)
  })

  it('gives no freshness by the origin to what had none', () => {
    expect(afterPurge(aged(VALIDATOR, 1000), true, 100)?.originFreshUntilMs).toBe(0)
  })

  it('unlike a hard one leaves something', () => {
    expect(afterPurge(aged(VALIDATOR, 1000, 60, 600), false, 100)).toBeNull()
  })
})
