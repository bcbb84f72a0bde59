import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fixedMs, shortestMs } from '../../src/core/milliseconds.ts'

/** Also what lies about half way between two hundredths. */
const milliseconds = fc.oneof(
  fc.double({ min: 0, max: 12, noNaN: true }),
  fc.double(),
  fc.nat(3000).map((n) => n / 200),
  fc.nat(3000).map((n) => n / 200 + 2 ** -50),
)

describe('milliseconds as text', () => {
  it.each([
    [0, '0.00', '0'],
    [0.004, '0.00', '0'],
    [0.1, '0.10', '0.1'],
    [0.125, '0.13', '0.13'],
    [1.005, '1.00', '1'],
    [8.345, '8.35', '8.35'],
    [10.239, '10.24', '10.24'],
    [125.43, '125.43', '125.43'],
  ])('%d are %s, or %s with as few digits as it takes', (ms, fixed, shortest) => {
    expect([fixedMs(ms), shortestMs(ms)]).toEqual([fixed, shortest])
  })

  it('are what toFixed and String make of them', () => {
    fc.assert(
      fc.property(milliseconds, (ms) => {
        expect([fixedMs(ms), shortestMs(ms)]).toEqual([ms.toFixed(2), String(Math.round(ms * 100) / 100)])
      }),
      { numRuns: 5000 },
    )
  })
})
