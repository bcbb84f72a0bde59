import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { shortestMs } from '../../src/core/milliseconds.ts'

const milliseconds = fc.oneof(
  fc.double({ min: 0, max: 12, noNaN: true }),
  fc.double(),
  fc.nat(3000).map((n) => n / 200),
)

describe('milliseconds as text', () => {
  it.each([
    [0, '0'],
    [0.004, '0'],
    [0.1, '0.1'],
    [0.125, '0.13'],
    [10.239, '10.24'],
    [125.43, '125.43'],
  ])('%d are %s', (ms, text) => {
    expect(shortestMs(ms)).toBe(text)
  })

  it('are what String makes of them, rounded to the hundredth', () => {
    fc.assert(
      fc.property(milliseconds, (ms) => {
        expect(shortestMs(ms)).toBe(String(Math.round(ms * 100) / 100))
      }),
      { numRuns: 5000 },
    )
  })
})
