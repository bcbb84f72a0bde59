import { describe, expect, it } from 'vitest'
import { purgeTags, purgeWhere } from '../../src/cache/purge.ts'
import { createSharedCache } from '../../src/cache/shared.ts'
import { createMemoryStore } from '../../src/cache/stores/memory.ts'
import { createTurns } from '../../src/cache/turns.ts'
import { entryOf } from '../support/entry.ts'

function filled(count: number) {
  const shared = createSharedCache(createMemoryStore(1024 ** 3), () => 0)
  for (let i = 0; i < count; i++) {
    shared.store.put(entryOf({ key: `http://gateway.test/${i}`, tags: i % 2 === 0 ? ['even'] : [] }))
  }
  return shared
}

/** A purge that takes several slices on any machine: each key costs at least `stepMs`. */
const slowly = (stepMs: number) => () => {
  const endMs = performance.now() + stepMs
  while (performance.now() < endMs);
  return true
}

describe('a large purge', () => {
  it('lets the event loop go on, and what is stored meanwhile may stay', async () => {
    const shared = filled(500)
    let turns = 0
    let isOver = false
    const count = () => {
      turns++
      shared.store.put(entryOf({ key: `http://gateway.test/late/${turns}` }))
      if (!isOver) setImmediate(count)
    }
    setImmediate(count)
    const purged = await purgeWhere(shared, slowly(0.2))
    isOver = true
    expect(turns).toBeGreaterThanOrEqual(4)
    expect(purged).toBe(500)
    expect(shared.store.get('http://gateway.test/499')).toBeNull()
    expect(shared.store.entries).toBe(turns)
  })

  it('by tag counts what it removed itself, also where others remove at the same time', async () => {
    const shared = filled(20_000)
    const [one, two] = await Promise.all([purgeTags(shared, ['even']), purgeTags(shared, ['even'])])
    expect(one + two).toBe(10_000)
    expect([shared.store.entries, shared.store.tagged('even')]).toEqual([10_000, null])
  })
})

describe('turns', () => {
  it('are given in order, one to a turn of the event loop', async () => {
    const turns = createTurns()
    let turn = 0
    const tick = () => {
      turn++
      if (turn < 20) setImmediate(tick)
    }
    setImmediate(tick)
    const at = await Promise.all([1, 2, 3].map(() => turns.next().then(() => turn)))
    expect(new Set(at).size).toBe(3)
    expect(at).toEqual(at.toSorted((a, b) => a - b))
  })
})
