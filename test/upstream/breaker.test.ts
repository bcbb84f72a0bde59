// When a target may not be asked, and when one request may see whether it is well: outcomes at times of the test's own.

import { describe, expect, it } from 'vitest'
import { TargetBreaker } from '../../src/upstream/breaker.ts'

const RULES = { failureRate: 0.5, windowMs: 10_000, minRequests: 4, cooldownMs: 5000 }

/** `f` a failure, `g` a good outcome, each of a request that went just then. Answers the states after each. */
function play(breaker: TargetBreaker, events: string, startMs: number, stepMs = 100): string {
  return events
    .split('')
    .map((event, i) => {
      const nowMs = startMs + stepMs * i
      if (breaker.mayTake(nowMs)) {
        breaker.take(nowMs)
        breaker.record(event === 'f', nowMs)
      }
      return breaker.state(nowMs)[0]
    })
    .join('')
}

/** Open since 300. */
function opened(): TargetBreaker {
  const breaker = new TargetBreaker(RULES)
  play(breaker, 'ffff', 0)
  return breaker
}

describe('a breaker', () => {
  it.each([
    ['fff', 'ccc'],
    ['ffff', 'ccco'],
    ['ggff', 'ccco'],
    ['gggff', 'ccccc'],
    ['gggfff', 'ccccco'],
    // It is a failure that opens it.
    ['ffgggg', 'cccccc'],
    ['fffgf', 'cccco'],
    ['gggggggggg', 'cccccccccc'],
  ])('%s: %s', (events, states) => {
    expect(play(new TargetBreaker(RULES), events, 0)).toBe(states)
  })

  it('opens for a rate of 1 only where all fail', () => {
    const strict = () => new TargetBreaker({ ...RULES, failureRate: 1 })
    expect(play(strict(), 'gfffffffff', 0)).toBe('cccccccccc')
    expect(play(strict(), 'ffff', 0)).toBe('ccco')
  })

  it('forgets what is older than the window', () => {
    const breaker = new TargetBreaker(RULES)
    expect(play(breaker, 'fff', 0)).toBe('ccc')
    expect(play(breaker, 'fff', 10_000)).toBe('ccc')
    expect(play(breaker, 'f', 10_300)).toBe('o')
    const slow = new TargetBreaker(RULES)
    expect(play(slow, 'ffffffff', 0, 4000)).toBe('cccccccc')
  })

  it('lets nothing go while it is open, and one request after the cooldown', () => {
    const breaker = opened()
    expect([301, 2000, 5299].map((nowMs) => breaker.mayTake(nowMs))).toEqual([false, false, false])
    expect([300, 2800, 5299, 5300].map((nowMs) => breaker.waitMs(nowMs))).toEqual([5000, 2500, 1, 0])
    expect([breaker.state(5299), breaker.state(5300)]).toEqual(['open', 'half-open'])
    expect(breaker.mayTake(5300)).toBe(true)
    breaker.take(5300)
    expect([breaker.mayTake(5301), breaker.state(5301)]).toEqual([false, 'half-open'])
  })

  it('closes after two good outcomes, one after the other, and begins anew', () => {
    const breaker = opened()
    breaker.take(6000)
    expect([breaker.record(false, 6100), breaker.state(6100), breaker.mayTake(6100)]).toEqual([
      false,
      'half-open',
      true,
    ])
    breaker.take(6100)
    expect(breaker.mayTake(6100)).toBe(false)
    expect([breaker.record(false, 6200), breaker.state(6200)]).toEqual([true, 'closed'])
    expect(play(breaker, 'fff', 6300)).toBe('ccc')
  })

  it('opens again after a bad one, for a whole cooldown', () => {
    for (const before of ['', 'g']) {
      const breaker = opened()
      play(breaker, before, 6000)
      breaker.take(7000)
      expect([breaker.record(true, 9000), breaker.state(9000), breaker.waitMs(9000)]).toEqual([false, 'open', 5000])
    }
  })

  it('lets another go where the one that went to see tells nothing', () => {
    const breaker = opened()
    breaker.take(6000)
    expect([breaker.mayTake(10_999), breaker.mayTake(11_000)]).toEqual([false, true])
  })

  it('hears nothing of those that went before it opened', () => {
    const breaker = opened()
    expect(breaker.record(false, 400)).toBe(false)
    expect(breaker.record(false, 500)).toBe(false)
    expect(breaker.record(true, 5000)).toBe(false)
    expect([breaker.state(5000), breaker.waitMs(5000)]).toEqual(['open', 300])
  })

  it('tells of each change once', () => {
    const breaker = new TargetBreaker(RULES)
    const told = [0, 1, 2, 3, 4].map((nowMs) => breaker.record(true, nowMs))
    expect(told).toEqual([false, false, false, true, false])
  })
})
