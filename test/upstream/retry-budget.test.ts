// How many further attempts there are: a tenth of the requests of ten seconds, and three for each second.

import { describe, expect, it } from 'vitest'
import { RetryBudget } from '../../src/upstream/retry-budget.ts'

const taken = (budget: RetryBudget, nowMs: number, wanted = 1000): number =>
  Array.from({ length: wanted }, () => budget.take(nowMs)).filter(Boolean).length

const noted = (count: number, nowMs: number, budget = new RetryBudget()): RetryBudget => {
  for (let i = 0; i < count; i++) budget.note(nowMs)
  return budget
}

describe('the budget for further attempts', () => {
  it.each([
    [0, 30],
    [1, 31],
    [10, 31],
    [300, 60],
    [5000, 530],
  ])('after %d requests is %d', (requests, retries) => {
    expect(taken(noted(requests, 500), 999)).toBe(retries)
  })

  it('counts the last ten seconds, of requests as of attempts', () => {
    const budget = noted(1000, 500)
    expect(taken(budget, 5000)).toBe(130)
    expect(taken(budget, 9999)).toBe(0)
    // The requests have gone, what they have paid for has not.
    expect(taken(budget, 10_000)).toBe(0)
    expect(taken(budget, 14_999)).toBe(0)
    expect(taken(budget, 15_000)).toBe(30)
  })

  it('forgets all after a pause of any length', () => {
    const budget = noted(1000, 500)
    expect(taken(budget, 500)).toBe(130)
    expect(taken(budget, 86_400_000)).toBe(30)
  })

  it('takes an older time as the latest it knows', () => {
    const budget = noted(0, 0)
    expect(taken(budget, 20_000)).toBe(30)
    expect(taken(budget, 3000)).toBe(0)
    expect(taken(noted(1000, 100, budget), 29_999)).toBe(100)
    expect(taken(budget, 30_000)).toBe(0)
    expect(taken(budget, 39_000)).toBe(30)
  })
})
