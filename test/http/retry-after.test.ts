// Retry-After in all its forms.

import { describe, expect, it } from 'vitest'
import { readRetryAfter } from '../../src/http/retry-after.ts'

const NOW_MS = Date.UTC(2026, 10, 22, 12)

describe('[RFC 9110 §10.2.3] Retry-After', () => {
  it.each([
    ['30', 30_000],
    ['0', 0],
    ['Sun, 22 Nov 2026 12:00:30 GMT', 30_000],
    ['Sunday, 22-Nov-26 12:00:30 GMT', 30_000],
    ['Sun, 22 Nov 2026 11:00:00 GMT', 0],
    ['-5', null],
    ['1.5', null],
    ['soon', null],
    ['', null],
    ['99999999999', null],
  ])('%j is %j ms', (value, expected) => {
    expect(readRetryAfter(['Retry-After', value], NOW_MS)).toBe(expected)
  })

  it('may be absent', () => {
    expect(readRetryAfter(['Date', 'Sun, 22 Nov 2026 12:00:30 GMT'], NOW_MS)).toBe(null)
  })
})

describe('retry-after-ms', () => {
  it.each([
    ['250', 250],
    ['12.5', 12.5],
    ['soon', 2000],
    ['-1', 2000],
  ])('%j is %j ms beside 2 s, which it is finer than', (value, expected) => {
    expect(readRetryAfter(['Retry-After', '2', 'Retry-After-Ms', value], NOW_MS)).toBe(expected)
    expect(readRetryAfter(['retry-after-ms', value, 'retry-after', '2'], NOW_MS)).toBe(expected)
  })
})
