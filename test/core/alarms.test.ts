// Deadlines of any length under one timer, with the clock in the test's hands.

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type Alarm, Alarms } from '../../src/core/alarms.ts'

beforeEach(() => vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] }))
afterEach(() => vi.useRealTimers())

function watched() {
  const alarms = new Alarms()
  const rung: string[] = []
  const add = (name: string, afterMs: number, act: () => void = () => {}): Alarm => {
    const alarm = {
      dueMs: 0,
      place: -1,
      ring() {
        rung.push(`${name} at ${Math.round(performance.now() - startedAtMs)}`)
        act()
      },
    }
    alarms.set(alarm, performance.now() + afterMs)
    return alarm
  }
  const startedAtMs = performance.now()
  return { alarms, rung, add, put: (alarm: Alarm, afterMs: number) => alarms.set(alarm, performance.now() + afterMs) }
}

describe('Alarms', () => {
  it('ring when they are due, and once', () => {
    const { add, rung } = watched()
    add('b', 200)
    add('a', 50)
    add('c', 1000)
    vi.advanceTimersByTime(49)
    expect(rung).toEqual([])
    vi.advanceTimersByTime(10_000)
    expect(rung).toEqual(['a at 50', 'b at 200', 'c at 1000'])
  })

  it('can be put off, brought forward and taken back', () => {
    const { alarms, add, put, rung } = watched()
    const [off, forward, back] = [add('off', 100), add('forward', 500), add('back', 100)]
    vi.advanceTimersByTime(10)
    put(off, 300)
    put(forward, 50)
    alarms.clear(back)
    alarms.clear(back)
    vi.advanceTimersByTime(10_000)
    expect(rung).toEqual(['forward at 60', 'off at 310'])
  })

  it('may set and clear others, and themselves, while they ring', () => {
    const { alarms, add, put, rung } = watched()
    let times = 0
    const again: Alarm = add('again', 100, () => {
      if (++times < 3) put(again, 100)
    })
    const victim = add('victim', 101)
    add('killer', 100, () => alarms.clear(victim))
    add('maker', 100, () => add('made', 20))
    vi.advanceTimersByTime(10_000)
    expect(rung).toEqual([
      'again at 100',
      'killer at 100',
      'maker at 100',
      'made at 120',
      'again at 200',
      'again at 300',
    ])
  })

  it('keep one timer among all of them, and none that is not needed', () => {
    const { alarms, add } = watched()
    const all = Array.from({ length: 100 }, (_, i) => add(`${i}`, 1000 + i))
    expect(vi.getTimerCount()).toBe(1)
    for (const alarm of all) alarms.clear(alarm)
    vi.advanceTimersByTime(1000)
    expect(vi.getTimerCount()).toBe(0)
  })

  it('may be further away than a timer reaches', () => {
    const { add, rung } = watched()
    add('far', 2 ** 31 + 1000)
    vi.advanceTimersByTime(2 ** 31)
    expect(rung).toEqual([])
    vi.advanceTimersByTime(1000)
    expect(rung).toHaveLength(1)
  })
})
