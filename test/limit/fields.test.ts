import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatPolicy, formatStanding, quotedString, retryAfterSeconds, wholeSeconds } from '../../src/limit/fields.ts'
import { parseList } from '../support/structured-fields.ts'

describe('the rate limit fields', () => {
  it.each([
    ['api', '"api"'],
    ['a"b\\c', String.raw`"a\"b\\c"`],
    ['tab\tand é', '"tab?and ?"'],
    ['', '""'],
  ])('[RFC 9651 §3.3.3] writes %j as %s', (text, expected) => {
    expect(quotedString(text)).toBe(expected)
  })

  it('[RFC 9651 §3.3.3] writes any printable ASCII so that a strict reader gets it back', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme-ascii' }), (text) => {
        expect(parseList(quotedString(text))).toEqual([{ value: text, params: new Map() }])
      }),
    )
  })

  it.each([
    [{ limit: 100, windowMs: 1000, burst: 100 }, null, '"api";q=100;w=1'],
    [{ limit: 100, windowMs: 1000, burst: 20 }, 20, '"api";q=100;w=1;gw-burst=20'],
    [{ limit: 10_000, windowMs: 86_400_000, burst: 10_000 }, null, '"api";q=10000;w=86400'],
    [{ limit: 5, windowMs: 1500, burst: 5 }, null, '"api";q=5;w=2'],
    [{ limit: 5, windowMs: 999, burst: 5 }, null, null],
  ])('describes %j with burst %j as %j', (rate, burst, expected) => {
    expect(formatPolicy('api', rate, burst)).toBe(expected)
  })

  it('says how a policy stands', () => {
    expect(formatStanding(quotedString('api'), 19, 1)).toBe('"api";r=19;t=1')
  })

  it.each([
    [0, 0],
    [1, 1],
    [1000, 1],
    [1001, 2],
    [1_795_341_600_001, 1_795_341_601],
  ])('rounds %i ms up to %i s', (ms, seconds) => {
    expect(wholeSeconds(ms)).toBe(seconds)
  })

  it.each([
    { waitMs: 1, windowMs: 1000, random: 0.999, expected: 1 },
    { waitMs: 0, windowMs: 1000, random: 0, expected: 1 },
    { waitMs: 24_001, windowMs: 59_999, random: 0.999, expected: 25 },
    { waitMs: 50_000, windowMs: 60_000, random: 0, expected: 50 },
    { waitMs: 50_000, windowMs: 60_000, random: 0.999, expected: 55 },
    { waitMs: 5000, windowMs: 60_000, random: 0.999, expected: 5 },
  ])('[RFC 9110 §10.2.3] Retry-After of $waitMs ms in a window of $windowMs ms is $expected', (row) => {
    expect(retryAfterSeconds(row.waitMs, row.windowMs, row.random)).toBe(row.expected)
  })

  it('never names a Retry-After before the wait is over, nor more than a tenth after', () => {
    const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 90_000_000 }),
        fc.integer({ min: 1, max: 90_000_000 }),
        random,
        (wait, window, r) => {
          const seconds = retryAfterSeconds(wait, window, r)
          expect(seconds * 1000).toBeGreaterThanOrEqual(wait)
          expect(seconds).toBeLessThanOrEqual(Math.ceil(wait / 1000) * 1.1)
        },
      ),
    )
  })
})
