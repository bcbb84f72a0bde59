// What a sliding count tells, of a window of one second.

import { expect, it } from 'vitest'
import { SlidingCount } from '../../src/core/sliding-count.ts'

it.each<[what: string, atMs: number[], nowMs: number, within: number]>([
  ['nothing', [], 5000, 0],
  ['all of one moment', [5000, 5000, 5000], 5000, 3],
  ['all of the window', [5000, 5450, 5900], 5999, 3],
  ['not what is a window ago', [5000, 5450, 5900], 6000, 2],
  ['nothing after a long time', [5000, 5450, 5900], 1_000_000, 0],
  ['nothing after just one window', [5050], 6050, 0],
  ['an older time in the latest slice', [5900, 5000], 6899, 2],
  ['times as they are on a wall clock', [1_795_000_000_000, 1_795_000_000_500], 1_795_000_000_900, 2],
])('%s', (_what, atMs, nowMs, within) => {
  const count = new SlidingCount(1000)
  for (const each of atMs) count.add(each)
  expect(count.within(nowMs)).toBe(within)
})

it('is nothing when cleared', () => {
  const count = new SlidingCount(1000)
  count.add(5000)
  count.clear()
  expect(count.within(5000)).toBe(0)
})
