import { describe, expect, it } from 'vitest'
import { Hedging } from '../../src/upstream/hedging.ts'

const times = (count: number, act: () => void): void => {
  for (let i = 0; i < count; i++) act()
}

/** Durations from 1 to count. */
const noted = (hedging: Hedging, count: number): Hedging => {
  for (let ms = 1; ms <= count; ms++) hedging.note(ms)
  return hedging
}

describe('how long a request waits for its first target', () => {
  it('is what the table says', () => {
    expect(noted(new Hedging({ after: 250, percent: 5 }), 100).delayMs).toBe(250)
  })

  it('is unknown until 20 have been answered, where it goes by them', () => {
    expect(noted(new Hedging({ after: 'auto', percent: 5 }), 19).delayMs).toBeNull()
    expect(noted(new Hedging({ after: 'auto', percent: 5 }), 20).delayMs).toBe(20)
  })

  it('is what 19 of 20 take', () => {
    expect(noted(new Hedging({ after: 'auto', percent: 5 }), 100).delayMs).toBe(96)
  })

  it('is 20 ms at least', () => {
    const hedging = new Hedging({ after: 'auto', percent: 5 })
    times(100, () => hedging.note(1))
    expect(hedging.delayMs).toBe(20)
  })

  it('goes by the last 200', () => {
    const hedging = noted(new Hedging({ after: 'auto', percent: 5 }), 1000)
    times(200, () => hedging.note(50))
    expect(hedging.delayMs).toBe(50)
  })
})

describe('second attempts', () => {
  it('are so many of a hundred requests, and one more', () => {
    const hedging = new Hedging({ after: 1, percent: 5 })
    let taken = 0
    times(1000, () => {
      hedging.begin()
      if (hedging.take()) taken++
    })
    expect([taken, hedging.sent]).toEqual([51, 51])
  })

  it('are saved up to ten', () => {
    const hedging = new Hedging({ after: 1, percent: 100 })
    times(1000, () => hedging.begin())
    let taken = 0
    times(100, () => {
      if (hedging.take()) taken++
    })
    expect(taken).toBe(10)
  })

  it('are as many as there are requests, where all may have one', () => {
    const hedging = new Hedging({ after: 1, percent: 100 })
    times(100, () => {
      hedging.begin()
      expect(hedging.take()).toBe(true)
    })
  })
})
