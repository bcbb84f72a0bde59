import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { TopSubjects } from '../../src/limit/top-subjects.ts'

const START_MS = 1_795_341_600_000

describe('the subjects that draw the most', () => {
  it('are told with what they asked for, most first, and how often they were refused', () => {
    const top = new TopSubjects()
    for (let i = 0; i < 5; i++) top.add('a', 1, true, START_MS)
    for (let i = 0; i < 3; i++) top.add('b', 7, i === 0, START_MS)
    expect(top.list(10, START_MS)).toEqual([
      { subject: 'b', units: 21, excess: 0, refused: 2 },
      { subject: 'a', units: 5, excess: 0, refused: 0 },
    ])
    expect(top.list(1, START_MS)).toHaveLength(1)
  })

  it('are found among a hundred thousand others, at an estimate of what they asked for', () => {
    const top = new TopSubjects()
    for (let i = 0; i < 100_000; i++) {
      top.add(`stranger-${i}`, 1, true, START_MS)
      if (i % 50 === 0) for (let heavy = 0; heavy < 5; heavy++) top.add(`heavy-${heavy}`, 30, true, START_MS)
    }
    const found = top.list(5, START_MS)
    expect(found.map(({ subject }) => subject).toSorted()).toEqual(Array.from({ length: 5 }, (_, i) => `heavy-${i}`))
    for (const { units, excess } of found) {
      // 2000 additions of 30 each, one in sixteen looked at: four standard deviations are a third.
      expect(units).toBeGreaterThan(40_000)
      expect(units - excess).toBeLessThan(80_000)
    }
  })

  it('hold what they promise for any history: units - excess <= asked for <= units', () => {
    fc.assert(
      fc.property(
        fc.array(fc.record({ who: fc.integer({ min: 0, max: 600 }), units: fc.integer({ min: 1, max: 9 }) }), {
          maxLength: 2000,
        }),
        (history) => {
          const top = new TopSubjects()
          const real = new Map<string, number>()
          for (const { who, units } of history) {
            top.add(`s${who}`, units, true, START_MS)
            real.set(`s${who}`, (real.get(`s${who}`) ?? 0) + units)
          }
          const listed = top.list(1000, START_MS)
          expect(listed.length).toBeLessThanOrEqual(256)
          for (const { subject, units, excess } of listed) {
            expect(units).toBeGreaterThanOrEqual(real.get(subject) as number)
            expect(units - excess).toBeLessThanOrEqual(real.get(subject) as number)
          }
        },
      ),
      { numRuns: 50 },
    )
  })

  it('are those of the last five to ten minutes', () => {
    const top = new TopSubjects()
    const MINUTE_MS = 60_000
    const units = (atMs: number) => top.list(10, atMs).map((each) => each.units)
    top.add('a', 1, true, START_MS)
    expect(units(START_MS + 4 * MINUTE_MS)).toEqual([1])
    top.add('a', 1, true, START_MS + 6 * MINUTE_MS)
    expect(units(START_MS + 6 * MINUTE_MS)).toEqual([2])
    expect(units(START_MS + 11 * MINUTE_MS)).toEqual([1])
    expect(units(START_MS + 60 * MINUTE_MS)).toEqual([])
    // A clock that steps back begins anew.
    top.add('a', 1, true, START_MS - 60 * MINUTE_MS)
    expect(units(START_MS - 60 * MINUTE_MS)).toEqual([1])
  })
})
