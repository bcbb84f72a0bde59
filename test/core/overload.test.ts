import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { type Load, Overload, processPulse } from '../../src/core/overload.ts'

/** What is over after each load in turn, and what was told. */
function judged(loads: readonly (readonly [lagMs: number, heapFill: number | null])[]) {
  const told: (string | null)[] = []
  const full: boolean[] = []
  const overload = new Overload(
    { lag: 200, heap: 0.9, storing: 0.8 },
    { over: (why) => void told.push(why), full: (isFull) => void full.push(isFull) },
  )
  const states = loads.map(([lagMs, heapFill]) => {
    overload.judge({ lagMs, heapFill })
    return overload.isOver
  })
  return { states, told, full, overload }
}

describe('an overload', () => {
  it('by lag begins above the line and ends at half of it', () => {
    const { states, told } = judged([
      [200, null],
      [201, null],
      [150, null],
      [101, null],
      [100, null],
      [150, null],
    ])
    expect(states).toEqual([false, true, true, true, false, false])
    expect(told).toEqual(['lag', null])
  })

  it('by heap ends with a collection that has freed enough', () => {
    const { states, told } = judged([
      [0, 0.9],
      [0, 0.91],
      [0, null],
      [0, 0.95],
      [0, 0.9],
    ])
    expect(states).toEqual([false, true, true, true, false])
    expect(told).toEqual(['heap', null])
  })

  it('by heap is not for ever where nothing is collected any more', () => {
    const quiet = Array.from({ length: 6 }, () => [0, null] as const)
    expect(judged([[0, 0.99], ...quiet]).states).toEqual([true, true, true, true, true, false, false])
  })

  it('by heap is preceded by a time without storing, which ends as it does', () => {
    const { states, full, overload } = judged([
      [0, 0.81],
      [0, 0.95],
      [0, 0.85],
      [0, null],
    ])
    expect([states, full, overload.isFull]).toEqual([[false, true, false, false], [true], true])
    overload.judge({ lagMs: 0, heapFill: 0.8 })
    expect([full, overload.isFull]).toEqual([[true, false], false])
    overload.judge({ lagMs: 0, heapFill: 0.81 })
    for (let i = 0; i < 5; i++) overload.judge({ lagMs: 0, heapFill: null })
    expect(overload.isFull).toBe(false)
  })

  it('ends at once where it is switched off, and begins no more', () => {
    const { overload, told } = judged([[900, 0.99]])
    expect([overload.why, overload.isFull]).toEqual(['lag', true])
    overload.configure(false)
    expect([overload.isOver, overload.why, overload.isFull]).toEqual([false, null, false])
    overload.judge({ lagMs: 900, heapFill: 0.99 })
    expect([overload.isOver, overload.lagMs]).toEqual([false, 900])
    expect(told).toEqual(['lag', null])
  })

  it('takes other lines with the next load', () => {
    const { overload } = judged([[300, null]])
    overload.configure({ lag: 1000, heap: 0.9, storing: 0.8 })
    overload.judge({ lagMs: 450, heapFill: null })
    expect(overload.isOver).toBe(false)
  })
})

describe('the load of a process', () => {
  it('has the lag of an event loop whose turns are long, and the heap after a full collection', async () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const loads: Load[] = []
    const stop = processPulse((load) => void loads.push(load))
    while (loads.length < 2) {
      const endMs = performance.now() + 80
      while (performance.now() < endMs);
      collect()
      // A turn of the loop, timers and all.
      await new Promise((resolve) => setTimeout(resolve))
    }
    stop()
    for (const { lagMs, heapFill } of loads) {
      expect(lagMs).toBeGreaterThan(40)
      expect(heapFill).toBeGreaterThan(0)
      expect(heapFill).toBeLessThan(1)
    }
  })

  it('makes no overload of one long pause', async () => {
    const loads: Load[] = []
    const stop = processPulse((load) => void loads.push(load))
    const endMs = performance.now() + 1500
    while (performance.now() < endMs);
    while (loads.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    stop()
    expect(loads[0]?.lagMs).toBeLessThan(1000)
  })
})
