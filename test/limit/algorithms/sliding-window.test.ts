import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { blankStanding, type Rate } from '../../../src/limit/algorithm.ts'
import { slidingWindow } from '../../../src/limit/algorithms/sliding-window.ts'

/** A multiple of every window below, so that windows begin here. */
const START_MS = 1_795_341_600_000
const rateOf = (limit: number, windowMs: number): Rate => ({ limit, windowMs, burst: limit, calendar: null })

/** The times of a trace that are admitted. */
function admissions(rate: Rate, timesMs: readonly number[]): number[] {
  const cells = new Float64Array(slidingWindow.cells)
  return timesMs.filter((nowMs) => {
    if (!slidingWindow.fits(cells, 0, rate, 1, nowMs)) return false
    slidingWindow.charge(cells, 0, rate, 1, nowMs)
    return true
  })
}

/** The same by a log of admissions and exact arithmetic: all count that lie in a slice which the window touches. */
function modelAdmissions(rate: Rate, timesMs: readonly number[]): number[] {
  const sliceOf = (ms: number) => (BigInt(ms) * 10n) / BigInt(rate.windowMs)
  const log: number[] = []
  for (const nowMs of timesMs) {
    const used = log.filter((ms) => sliceOf(ms) >= sliceOf(nowMs) - 10n).length
    if (used < rate.limit) log.push(nowMs)
  }
  return log
}

/** Most admissions in any (t - spanMs, t]. */
function worst(admittedMs: readonly number[], spanMs: number): number {
  return Math.max(0, ...admittedMs.map((t) => admittedMs.filter((ms) => ms > t - spanMs && ms <= t).length))
}

const range = (fromMs: number, toMs: number, stepMs: number) =>
  Array.from({ length: Math.ceil((toMs - fromMs) / stepMs) }, (_, i) => fromMs + i * stepMs)

describe('the sliding window', () => {
  it('never admits more than the limit in any window, and decides as the log of admissions does', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 100, max: 3000 }),
        fc.array(fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 4000 })), { maxLength: 150 }),
        (limit, windowMs, gaps) => {
          const rate = rateOf(limit, windowMs)
          let nowMs = START_MS
          const timesMs = gaps.map((gap) => (nowMs += gap))
          const admitted = admissions(rate, timesMs)
          expect(admitted).toEqual(modelAdmissions(rate, timesMs))
          expect(worst(admitted, windowMs)).toBeLessThanOrEqual(limit)
        },
      ),
      { numRuns: 500 },
    )
  })

  it.each([0, 0.5, 0.95, 0.999])(
    'gives an adversary who starts at %d of a window no more than 100 in any second',
    (phase) => {
      const fromMs = START_MS + phase * 1000
      const admitted = admissions(rateOf(100, 1000), range(fromMs, fromMs + 3000, 1))
      expect(worst(admitted, 1000)).toBe(100)
      expect(admitted.length).toBeGreaterThanOrEqual(270)
      expect(admitted.length).toBeLessThanOrEqual(300)
    },
  )

  it('gives a client who asks at its pace every request', () => {
    const timesMs = range(START_MS, START_MS + 60_000, 110)
    expect(admissions(rateOf(10, 1000), timesMs)).toEqual(timesMs)
  })

  it.each([
    { at: 0, fits: false, remaining: 0, waitMs: 650, nextMs: 650, fullMs: 1050 },
    { at: 649, fits: false, remaining: 0, waitMs: 1, nextMs: 1, fullMs: 401 },
    { at: 650, fits: true, remaining: 2, waitMs: 0, nextMs: 400, fullMs: 400 },
    { at: 1049, fits: true, remaining: 2, waitMs: 0, nextMs: 1, fullMs: 1 },
    { at: 1050, fits: true, remaining: 3, waitMs: 0, nextMs: 0, fullMs: 0 },
  ])(
    '$at ms after two uses in one slice and one four slices later: $remaining of 3 left',
    ({ at, fits, ...expected }) => {
      const rate = rateOf(3, 1000)
      const cells = new Float64Array(slidingWindow.cells)
      // Slices of 100 ms; the last use is at 450, so the first two leave when slice 1 + 11 begins, the last with 4 + 11.
      for (const ms of [0, 99, 450]) slidingWindow.charge(cells, 0, rate, 1, START_MS + ms)
      const nowMs = START_MS + 450 + at
      const standing = blankStanding()
      slidingWindow.measure(cells, 0, rate, 1, nowMs, standing)
      expect(standing).toMatchObject(expected)
      expect(slidingWindow.fits(cells, 0, rate, 1, nowMs)).toBe(fits)
    },
  )

  it('says when one unit more is left, even where a lowered limit has long been passed', () => {
    const cells = new Float64Array(slidingWindow.cells)
    slidingWindow.charge(cells, 0, rateOf(5, 1000), 3, START_MS)
    slidingWindow.charge(cells, 0, rateOf(5, 1000), 2, START_MS + 450)
    const standing = blankStanding()
    slidingWindow.measure(cells, 0, rateOf(2, 1000), 1, START_MS + 450, standing)
    expect(standing).toMatchObject({ remaining: 0, waitMs: 1050, nextMs: 1050, fullMs: 1050 })
    slidingWindow.measure(cells, 0, rateOf(3, 1000), 1, START_MS + 450, standing)
    expect(standing).toMatchObject({ remaining: 0, waitMs: 650, nextMs: 650, fullMs: 1050 })
  })

  it('charges costs as units: 7 each against 1000 admits 142', () => {
    const rate = rateOf(1000, 60_000)
    const cells = new Float64Array(slidingWindow.cells)
    let admitted = 0
    for (let i = 0; i < 1000; i++) {
      if (!slidingWindow.fits(cells, 0, rate, 7, START_MS + i)) continue
      slidingWindow.charge(cells, 0, rate, 7, START_MS + i)
      admitted++
    }
    expect(admitted).toBe(142)
  })
})
