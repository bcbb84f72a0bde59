// What the guard calls a regression.

import { describe, expect, it } from 'vitest'
import { type Results, regressions } from '../../bench/results.ts'
import type { Check } from '../../bench/scenario.ts'

const check = (what: string, value: number, guarded = true): Check => ({ what, value, goal: null, guarded })

function resultsOf(checks: readonly Check[], nginx = '1.22.1'): Results {
  return {
    measuredAt: '',
    commit: '',
    machine: '',
    load: '',
    rounds: 5,
    roundSeconds: 2,
    quick: false,
    missing: [],
    servers: { nginx: { version: nginx, does: '' } },
    scenarios: { hit: { title: '', loadAverage: 0, rows: [], checks } },
  }
}

const ratio = 'CPU per request, weirgate / nginx'
const growth = 'CPU per request, weirgate, 10,000 routes / weirgate, 10 routes'

describe('the guard', () => {
  const baseline = resultsOf([check(ratio, 1), check(growth, 1), check('p99, weirgate / nginx', 1, false)])

  it('takes a ratio that is 15 % worse, and none that is worse than that', () => {
    expect(regressions(baseline, resultsOf([check(ratio, 1.15)]))).toEqual({ compared: 1, worse: [] })
    expect(regressions(baseline, resultsOf([check(ratio, 1.16)]))).toEqual({
      compared: 1,
      worse: [{ scenario: 'hit', what: ratio, was: 1, is: 1.16 }],
    })
  })

  it('holds the gateway beside itself', () => {
    expect(regressions(baseline, resultsOf([check(growth, 1.2)])).worse).toHaveLength(1)
  })

  it.each([
    ['a peer of another version', resultsOf([check(ratio, 9)], '1.30.0')],
    ['what is no CPU ratio', resultsOf([check('p99, weirgate / nginx', 9, false)])],
    ['what the baseline does not have', resultsOf([check('CPU per request, weirgate / Varnish', 9)])],
    ['what was not measured', resultsOf([])],
  ])('leaves out %s', (_what, results) => {
    expect(regressions(baseline, results)).toEqual({ compared: 0, worse: [] })
  })
})
