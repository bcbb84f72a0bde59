import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FieldPattern } from '../../src/core/field-pattern.ts'
import {
  CONCURRENT,
  formatPolicy,
  quotedString,
  retryAfterSeconds,
  standingPattern,
  wholeSeconds,
} from '../../src/limit/fields.ts'
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
    [100, 1000, null, null, '"api";q=100;w=1'],
    [100, 1000, 20, null, '"api";q=100;w=1;gw-burst=20'],
    [10_000, 86_400_000, null, null, '"api";q=10000;w=86400'],
    [5, 1500, null, null, '"api";q=5;w=2'],
    [5, 999, null, null, null],
    [100_000, 60_000, null, 'gw-unit="tokens"', '"api";q=100000;w=60;gw-unit="tokens"'],
    [50, 1000, null, CONCURRENT, '"api";q=50;qu="concurrent-requests"'],
  ])('describes %i per %i ms with burst %j and unit %j as %j', (limit, windowMs, burst, unit, expected) => {
    const rate = { limit, windowMs, burst: burst ?? limit, calendar: null }
    expect(formatPolicy('api', rate, { burst, unit })).toBe(expected)
  })

  it('says how a policy stands', () => {
    const pattern = new FieldPattern([['RateLimit', ...standingPattern('api')]])
    expect(pattern.fields([19, 1])).toEqual(['RateLimit', '"api";r=19;t=1'])
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
