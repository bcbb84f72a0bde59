import { expect, it } from 'vitest'
import { formatStats } from '../../src/cli/stats.ts'
import { STATS } from '../admin/control.ts'

const { since_start } = STATS

it('prints a row for each route, with the time that was saved', () => {
  expect(formatStats(STATS).split('\n')).toEqual([
    'ROUTE  REQUESTS  ERRORS  LIMITED  HITS    P50 MS  P99 MS  SAVED',
    'total  2         0       0        50.0 %  1.00    2.00    2.0s',
    '/a     2         0       0        50.0 %  1.00    2.00    2.0s',
    '',
    'cache: 1 entries, 50 of 1000 bytes',
  ])
})

it('prints what that is in money where calls have a price, and long times in whole units', () => {
  const saved = { fetches: 9, seconds: 90_061.4, cost: 0.18, collapsed_fetches: 1, collapsed_cost: 0.02 }
  const total = { ...since_start.total, saved }
  const free = { ...total, saved: { fetches: 0, seconds: 0, cost: 0, collapsed_fetches: 0, collapsed_cost: 0 } }
  expect(
    formatStats({ ...STATS, since_start: { total, routes: { '/a': free } } })
      .split('\n')
      .slice(0, 3),
  ).toEqual([
    expect.stringMatching(/ SAVED +SAVED COST$/),
    expect.stringMatching(/ 1d1h1m1s +0\.20$/),
    expect.stringMatching(/ - +-$/),
  ])
})

it('prints what misses differ in, with the advice where there is one', () => {
  const differs = [
    { field: '/id', percent_of_misses: 93, advice: '/id differs in 93 % of misses: do this' },
    { field: '/prompt', percent_of_misses: 60, advice: null },
  ]
  expect(formatStats({ ...STATS, near_misses: { 'POST /a': { misses: 40, differs } } })).toMatch(
    /bytes\n\nnear misses of POST \/a:\n {2}\/id differs in 93 % of misses: do this\n {2}\/prompt differs in 60 % of misses$/,
  )
})
