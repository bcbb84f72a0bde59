import { expect, it } from 'vitest'
import { blankStanding } from '../../../src/limit/algorithm.ts'
import { Share } from '../../../src/limit/stores/redis-share.ts'
import { Subject } from '../../../src/limit/stores/redis-subjects.ts'
import { demandOf, quotaOf } from '../../support/quotas.ts'

const NOW_MS = 1_000_000_000
const quota = quotaOf('hour', { limit: 90, window: '1h' })

/** How many of three instances' one admits. remaining: as Redis told last. untold: what it did not know of. */
function admits(remaining: number, untold: number): number {
  const subject = new Subject('k')
  const told = { ...blankStanding(), remaining, nextMs: 60_000, fullMs: 3_600_000 }
  subject.mark(quota).learn(quota, 1, told, NOW_MS)
  const share = new Share(() => untold)
  let count = 0
  while (share.charge(demandOf([quota], ['x']), [subject], 3, NOW_MS)) count++
  return count
}

it.each([
  ['begins with its part of what is left', 60, 0, 20],
  ['takes what Redis is yet to charge from its own part, not from that of all', 60, 5, 15],
  ['has nothing where all of its part is on its way', 60, 25, 0],
  ['has its part, rounded down', 2, 0, 0],
] as const)('%s', (_case, remaining, untold, expected) => {
  expect(admits(remaining, untold)).toBe(expected)
})
