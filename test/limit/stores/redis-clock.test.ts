import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RemoteClock } from '../../../src/limit/stores/redis-clock.ts'

/** told: how far it is ahead, and how long a question and its answer were on the way. */
function aheadAfter(told: readonly (readonly [aheadMs: number, thereMs: number, backMs: number])[]): number | null {
  const clock = new RemoteClock()
  let ourMs = 1_000_000
  for (const [aheadMs, thereMs, backMs] of told) {
    const theirMs = ourMs + thereMs + aheadMs
    clock.heard(theirMs, ourMs, ourMs + thereMs + backMs)
    ourMs += thereMs + backMs + 100
  }
  return clock.aheadMs
}

describe('the clock of a Redis', () => {
  it.each([
    ['is not known before it has told', [], null],
    ['is known by the first answer', [[500, 1, 1]], 499],
    [
      'is not set back by an answer that was long on its way',
      [
        [500, 1, 1],
        [500, 1, 2000],
      ],
      499,
    ],
    [
      'nor set ahead by a question that was',
      [
        [500, 1, 1],
        [500, 2000, 1],
      ],
      499,
    ],
    [
      'is better known by a quicker answer',
      [
        [500, 1, 2000],
        [500, 1, 3],
      ],
      497,
    ],
    [
      'and not worse by a slower one after that',
      [
        [500, 1, 2000],
        [500, 1, 3],
        [500, 1, 30],
      ],
      497,
    ],
    [
      'has been set back, as an answer says that cannot be otherwise',
      [
        [500, 1, 1],
        [-9500, 1, 1],
      ],
      -9501,
    ],
    [
      'has been set ahead',
      [
        [500, 1, 1],
        [10_500, 1, 1],
      ],
      10_499,
    ],
    [
      'has been set back, as no late answer can tell',
      [
        [500, 1, 1],
        [-9500, 1, 12_000],
        [-9500, 1, 1],
      ],
      -9501,
    ],
  ] as const)('%s', (_case, told, expected) => {
    expect(aheadAfter(told)).toBe(expected)
  })

  it('goes by the answer where ours was set back while the question was on its way', () => {
    const clock = new RemoteClock()
    clock.heard(1_000_000, 1_000_000, 1_000_001)
    clock.heard(1_000_010, 1_000_005, 900_000)
    expect(clock.aheadMs).toBe(100_010)
    clock.heard(1_000_020, 900_015, 900_016)
    expect(clock.aheadMs).toBe(100_004)
  })

  it('is never further from the truth than the quickest answer was long', () => {
    const trip = fc.tuple(fc.nat(3000), fc.nat(3000))
    fc.assert(
      fc.property(fc.integer({ min: -10_000, max: 10_000 }), fc.array(trip, { minLength: 1 }), (aheadMs, trips) => {
        const known = aheadAfter(trips.map(([there, back]) => [aheadMs, there, back] as const)) as number
        const quickest = Math.min(...trips.map(([there, back]) => there + back))
        expect(known).toBeLessThanOrEqual(aheadMs)
        expect(known).toBeGreaterThanOrEqual(aheadMs - quickest)
      }),
    )
  })
})
