import { describe, expect, it } from 'vitest'
import { createFailures } from '../../src/cache/failures.ts'

/** For how many seconds from a failure at `nowMs` the origin is left alone. */
function pauseSeconds(failures: ReturnType<typeof createFailures>, nowMs: number, retryAfterMs = 0): number {
  failures.add('k', nowMs, retryAfterMs)
  let seconds = 0
  while (failures.has('k', nowMs + seconds * 1000)) seconds++
  return seconds
}

describe('the pause after a failure', () => {
  it('doubles with each in a row up to a minute, and begins anew after a success', () => {
    const failures = createFailures()
    const pauses = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => pauseSeconds(failures, i * 1_000_000))
    expect(pauses).toEqual([1, 2, 4, 8, 16, 32, 60, 60])
    failures.delete('k')
    expect(failures.has('k', 0)).toBe(false)
    expect(pauseSeconds(failures, 9_000_000)).toBe(1)
  })

  it('[RFC 9110 §10.2.3] is as long as the origin asks, up to ten minutes', () => {
    expect(pauseSeconds(createFailures(), 0, 30_000)).toBe(30)
    expect(pauseSeconds(createFailures(), 0, 86_400_000)).toBe(600)
  })

  it('is not made longer by those that fail at the same time', () => {
    const failures = createFailures()
    failures.add('k', 0, 0)
    failures.add('k', 500, 60_000)
    expect([failures.has('k', 999), failures.has('k', 1000)]).toEqual([true, false])
  })

  it('is remembered for as many keys as fit into 2 MiB, the latest ones', () => {
    const failures = createFailures()
    const long = (i: number) => `${i}`.padEnd(8192, 'x')
    for (let i = 0; i < 1000; i++) failures.add(long(i), 0, 0)
    const known = Array.from({ length: 1000 }, (_, i) => failures.has(long(i), 0))
    expect(known.filter(Boolean)).toHaveLength(251)
    expect(known.at(-1)).toBe(true)
  })
})
