import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Histogram, MAX_LATENCY_MS } from '../../src/observe/histogram.ts'

function of(...latenciesMs: number[]): Histogram {
  const histogram = new Histogram()
  for (const ms of latenciesMs) histogram.observe(ms)
  return histogram
}

const summary = (h: Histogram) => ({
  count: h.count,
  mean: h.meanMs,
  max: h.maxMs,
  quantiles: [0, 0.25, 0.5, 0.75, 0.95, 0.99, 1].map((q) => h.quantileMs(q)),
})

describe('a quantile', () => {
  it.each([0.01, 0.0101, 0.05, 0.37, 1, 1.03, 7.77, 99.9, 1234.5, 59_999, 599_999])(
    'of values around %f ms is at most 1.7 % off',
    (ms) => {
      // The largest value must not be the one asked for, or the exact maximum would hide the bucket.
      expect(Math.abs(of(ms, ms, ms, MAX_LATENCY_MS).quantileMs(0.5) - ms) / ms).toBeLessThanOrEqual(0.017)
    },
  )

  it('is within 5 % of the sorted values, whatever they are', () => {
    const latency = fc.double({ min: 0.01, max: MAX_LATENCY_MS, noNaN: true })
    fc.assert(
      fc.property(
        fc.array(latency, { minLength: 1, maxLength: 200 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (values, q) => {
          const sorted = values.toSorted((a, b) => a - b)
          const exact = sorted[Math.max(1, Math.ceil(q * sorted.length)) - 1] as number
          expect(Math.abs(of(...values).quantileMs(q) - exact) / exact).toBeLessThanOrEqual(0.05)
        },
      ),
    )
  })

  it('never exceeds the largest value', () => {
    expect(of(10.001).quantileMs(0.99)).toBe(10.001)
  })

  it('tells the median, the tail and the largest apart', () => {
    const histogram = of(...Array.from({ length: 1000 }, (_, i) => i + 1))
    expect(histogram.quantileMs(0.5)).toBeGreaterThan(490)
    expect(histogram.quantileMs(0.5)).toBeLessThan(510)
    expect(histogram.quantileMs(0.99)).toBeGreaterThan(970)
    expect(histogram.quantileMs(1)).toBe(1000)
  })
})

describe('mean and maximum', () => {
  it('are exact', () => {
    const histogram = of(1, 2, 6)
    expect(histogram.meanMs).toBe(3)
    expect(histogram.maxMs).toBe(6)
    expect(histogram.count).toBe(3)
  })

  it('are 0 where nothing was counted, as is every quantile', () => {
    expect(summary(of())).toEqual({ count: 0, mean: 0, max: 0, quantiles: [0, 0, 0, 0, 0, 0, 0] })
  })
})

describe('values out of range', () => {
  it.each([
    [-1, 0],
    [Number.NaN, 0],
    [0, 0],
    [MAX_LATENCY_MS * 10, MAX_LATENCY_MS],
    [Number.POSITIVE_INFINITY, MAX_LATENCY_MS],
  ])('%f ms counts as %f ms', (ms, counted) => {
    const histogram = of(ms)
    expect(histogram.count).toBe(1)
    expect(histogram.maxMs).toBe(counted)
    expect(histogram.meanMs).toBe(counted)
  })
})

describe('merge and reset', () => {
  it('merging equals counting everything in one', () => {
    const merged = of(0.25, 5, 300)
    merged.merge(of(0.25, 7000))
    expect(summary(merged)).toEqual(summary(of(0.25, 5, 300, 0.25, 7000)))
  })

  it('merging leaves the other as it was', () => {
    const other = of(5)
    of(1).merge(other)
    expect(summary(other)).toEqual(summary(of(5)))
  })
})
