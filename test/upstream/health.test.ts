// When a target is out, and when it is back: events at times of the test's own.

import { describe, expect, it } from 'vitest'
import { type HealthRules, TargetHealth } from '../../src/upstream/health.ts'

const PASSIVE: HealthRules = { failures: 5, slowStartMs: 10_000, checks: null }
const CHECKED: HealthRules = {
  failures: 5,
  slowStartMs: 10_000,
  checks: { intervalMs: 5000, healthyAfter: 2, unhealthyAfter: 3 },
}

/** `f` a failed request, `r` a refused connection, `a` an answer, `+` and `-` looks; one a second. */
function after(events: string, rules: HealthRules): TargetHealth {
  const health = new TargetHealth(rules)
  for (const [i, event] of events.split('').entries()) play(health, event, 1000 * i)
  return health
}

function play(health: TargetHealth, event: string, nowMs: number): void {
  if (event === 'f' || event === 'r') health.failed(event === 'r', nowMs)
  else if (event === 'a') health.answered(nowMs)
  else health.checked(event === '+', nowMs)
}

describe('without checks', () => {
  it.each([
    ['', 'up'],
    ['ffff', 'up'],
    ['fffff', 'out'],
    ['ffffaf', 'up'],
    ['ffffafffff', 'out'],
    ['rr', 'up'],
    ['rrr', 'out'],
    ['rrarr', 'up'],
    // A refusal is as good a sign after two that came late.
    ['ffr', 'out'],
    ['rrff', 'up'],
    ['rrfff', 'out'],
    // A look that fails leaves it out, one that does not brings it back, and so does an answer.
    ['rrr---', 'out'],
    ['rrr-+', 'up'],
    ['rrra', 'up'],
    // On trial: one failure is enough, until there is an answer.
    ['rrr+f', 'out'],
    ['rrr+r', 'out'],
    ['rrr+af', 'up'],
    // Nobody looks at one that is up.
    ['-----', 'up'],
  ])('%j: %s', (events, state) => {
    expect(after(events, PASSIVE).isOut ? 'out' : 'up').toBe(state)
  })

  it('takes nobody out for failures where there is no number of them', () => {
    expect(after('fffffffffrrrrrrr', { ...PASSIVE, failures: 0 }).isOut).toBe(false)
  })

  it('takes a target out for fewer refusals where fewer failures are enough', () => {
    expect(after('r', { ...PASSIVE, failures: 1 }).isOut).toBe(true)
  })

  it('looks only at one that is out, at first soon', () => {
    expect(after('ff', PASSIVE).nextLookMs(0.5)).toBe(null)
    expect(after('rrr', PASSIVE).nextLookMs(0.5)).toBe(500)
    expect([after('rrr', PASSIVE).nextLookMs(0), after('rrr', PASSIVE).nextLookMs(1)]).toEqual([450, 550])
  })

  it('looks less often for as long as it is not back, and every 4 s at least', () => {
    const looks = ['rrr', 'rrr-', 'rrr--', 'rrr---', 'rrr----', 'rrr-----'].map((events) =>
      after(events, PASSIVE).nextLookMs(0.5),
    )
    expect(looks).toEqual([500, 1000, 2000, 4000, 4000, 4000])
  })

  it('waits longer for one that has failed again at once, and not for one that was well for a while', () => {
    expect(after('rrr+r', PASSIVE).nextLookMs(0.5)).toBe(1000)
    expect(after('rrr+r+r', PASSIVE).nextLookMs(0.5)).toBe(2000)
    const health = after('rrr+', PASSIVE)
    for (let i = 0; i < 5; i++) health.failed(false, 14_000)
    expect(health.nextLookMs(0.5)).toBe(500)
  })
})

describe('with checks', () => {
  it.each([
    ['--', 'up'],
    ['---', 'out'],
    ['--+--', 'up'],
    ['--+---', 'out'],
    ['---+', 'out'],
    ['---++', 'up'],
    ['---+-+', 'out'],
    // Requests can take it out, and cannot bring it back.
    ['rrr', 'out'],
    ['fffff', 'out'],
    ['rrraaaa', 'out'],
    ['rrr++', 'up'],
    // Who passes its checks is not on trial.
    ['rrr++f', 'up'],
    ['ffff+f', 'out'],
  ])('%j: %s', (events, state) => {
    expect(after(events, CHECKED).isOut ? 'out' : 'up').toBe(state)
  })

  it('checks at the interval, soon after a failed check, and every second while it is out', () => {
    const looks = ['', '+', '-', '-+', '---', '---+', '---++'].map((events) => after(events, CHECKED).nextLookMs(0.5))
    expect(looks).toEqual([5000, 5000, 250, 5000, 1000, 1000, 5000])
    const often = { ...CHECKED, checks: { intervalMs: 200, healthyAfter: 2, unhealthyAfter: 3 } }
    expect(after('---', often).nextLookMs(0.5)).toBe(200)
  })
})

describe('its share', () => {
  it('is all from the start, and nothing while it is out', () => {
    expect(after('', PASSIVE).share(0)).toBe(1)
    expect(after('rrr', PASSIVE).share(3000)).toBe(0)
  })

  it('grows from a tenth after its return', () => {
    const health = after('rrr+', PASSIVE)
    expect([3000, 5000, 8000, 12_999, 13_000].map((nowMs) => Math.round(100 * health.share(nowMs)))).toEqual([
      10, 28, 55, 100, 100,
    ])
    expect(after('rrr+', { ...PASSIVE, slowStartMs: 0 }).share(3000)).toBe(1)
  })
})

it('counts how often it went out', () => {
  expect(after('rrr-+r', PASSIVE).exits).toBe(2)
})

it('may begin as one that was out before', () => {
  const health = new TargetHealth(PASSIVE, true)
  expect([health.isOut, health.exits, health.nextLookMs(0.5)]).toEqual([true, 0, 500])
  health.checked(true, 0)
  expect(health.isOut).toBe(false)
})
