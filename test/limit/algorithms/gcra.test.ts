import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { blankStanding, type Rate } from '../../../src/limit/algorithm.ts'
import { gcra } from '../../../src/limit/algorithms/gcra.ts'

const START_MS = 1_795_341_600_000

function admissions(rate: Rate, timesMs: readonly number[]): number[] {
  const cells = new Float64Array(gcra.cells)
  return timesMs.filter((nowMs) => {
    if (!gcra.fits(cells, 0, rate, 1, nowMs)) return false
    gcra.charge(cells, 0, rate, 1, nowMs)
    return true
  })
}

/** The textbook form, a theoretical arrival time, in exact fractions: all times in 1/limit milliseconds. */
function modelAdmissions(rate: Rate, timesMs: readonly number[]): number[] {
  const limit = BigInt(rate.limit)
  const increment = BigInt(rate.windowMs)
  const tolerance = increment * BigInt(rate.burst)
  let arrival = 0n
  return timesMs.filter((ms) => {
    const now = BigInt(ms) * limit
    const next = (arrival > now ? arrival : now) + increment
    if (next > now + tolerance) return false
    arrival = next
    return true
  })
}

describe('GCRA', () => {
  it('admits at most burst + rate x span in any span, and decides as the theoretical arrival time does', () => {
    fc.assert(
      fc.property(
        fc.record({
          limit: fc.integer({ min: 1, max: 50 }),
          windowMs: fc.integer({ min: 100, max: 5000 }),
          burst: fc.integer({ min: 1, max: 30 }),
          calendar: fc.constant(null),
        }),
        fc.array(fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 3000 })), { maxLength: 120 }),
        (rate, gaps) => {
          let nowMs = START_MS
          const timesMs = gaps.map((gap) => (nowMs += gap))
          const admitted = admissions(rate, timesMs)
          expect(admitted).toEqual(modelAdmissions(rate, timesMs))
          for (const [i, fromMs] of admitted.entries()) {
            for (const [j, toMs] of admitted.entries()) {
              if (j < i) continue
              expect(j - i + 1).toBeLessThanOrEqual(rate.burst + (rate.limit * (toMs - fromMs)) / rate.windowMs)
            }
          }
        },
      ),
      { numRuns: 300 },
    )
  })

  it('admits 100/s with a burst of 20 as 520 in five hammered seconds, and 119 or 120 in any one', () => {
    const timesMs = Array.from({ length: 50_000 }, (_, i) => START_MS + Math.floor(i / 10))
    const admitted = admissions({ limit: 100, windowMs: 1000, burst: 20, calendar: null }, timesMs)
    const perSecond = admitted.map((t) => admitted.filter((ms) => ms > t - 1000 && ms <= t).length)
    expect(admitted).toHaveLength(519)
    expect(Math.max(...perSecond)).toBeLessThanOrEqual(120)
    expect(Math.max(...perSecond)).toBeGreaterThanOrEqual(119)
  })

  it.each([
    { at: 0, fits: false, remaining: 0, waitMs: 34, nextMs: 34, fullMs: 67 },
    { at: 33, fits: false, remaining: 0, waitMs: 1, nextMs: 1, fullMs: 34 },
    { at: 34, fits: true, remaining: 1, waitMs: 0, nextMs: 33, fullMs: 33 },
    { at: 66, fits: true, remaining: 1, waitMs: 0, nextMs: 1, fullMs: 1 },
    { at: 67, fits: true, remaining: 2, waitMs: 0, nextMs: 0, fullMs: 0 },
  ])('30 per second, $at ms after a burst of 2: $remaining left', ({ at, fits, ...expected }) => {
    const rate = { limit: 30, windowMs: 1000, burst: 2, calendar: null }
    const cells = new Float64Array(gcra.cells)
    gcra.charge(cells, 0, rate, 2, START_MS)
    const standing = blankStanding()
    gcra.measure(cells, 0, rate, 1, START_MS + at, standing)
    expect(standing).toMatchObject(expected)
    expect(gcra.fits(cells, 0, rate, 1, START_MS + at)).toBe(fits)
  })

  it('keeps a slow rate exact: 3 a day is one each 28,800 seconds, to the millisecond', () => {
    const day = 86_400_000
    const timesMs = [0, 1, day / 3 - 1, day / 3, (2 * day) / 3 - 1, (2 * day) / 3].map((ms) => START_MS + ms)
    const admitted = admissions({ limit: 3, windowMs: day, burst: 1, calendar: null }, timesMs)
    expect(admitted.map((ms) => ms - START_MS)).toEqual([0, day / 3, (2 * day) / 3])
  })
})
