import { describe, expect, it } from 'vitest'
import { purge } from '../../src/cache/purge.ts'
import { createSharedCache } from '../../src/cache/shared.ts'
import type { CacheStore } from '../../src/cache/store.ts'
import { createMemoryStore } from '../../src/cache/stores/memory.ts'
import { createTurns } from '../../src/cache/turns.ts'
import { entryOf } from '../support/entry.ts'

const ETAG = ['ETag', '"v"']

function filled(count: number) {
  const shared = createSharedCache(createMemoryStore(1024 ** 3), () => 0)
  for (let i = 0; i < count; i++) {
    shared.store.put(entryOf({ key: `http://gateway.test/${i}`, tags: i % 2 === 0 ? ['even'] : [], headers: ETAG }))
  }
  return shared
}

/** A store in which each removal takes so long that a purge needs several slices on any machine. */
function slow(store: CacheStore, stepMs: number): CacheStore {
  const slowly = <T>(act: () => T): T => {
    const endMs = performance.now() + stepMs
    while (performance.now() < endMs);
    return act()
  }
  const removeKey: CacheStore['delete'] = (key) => slowly(() => store.delete(key))
  const remove: CacheStore['remove'] = (entry) => slowly(() => store.remove(entry))
  const replace: CacheStore['replace'] = (entry, next) => slowly(() => store.replace(entry, next))
  const values = { delete: removeKey, remove, replace }
  return Object.create(store, Object.getOwnPropertyDescriptors(values)) as CacheStore
}

describe('a large purge', () => {
  it.each([{}, { soft: true }] as const)(
    'lets the event loop go on, and what comes meanwhile may stay: %j',
    async (how) => {
      const shared = filled(500)
      let turns = 0
      let isOver = false
      const count = () => {
        turns++
        shared.store.put(entryOf({ key: `http://gateway.test/late/${turns}` }))
        if (!isOver) setImmediate(count)
      }
      setImmediate(count)
      const purged = await purge({ ...shared, store: slow(shared.store, 0.2) }, { all: true, ...how })
      isOver = true
      expect(turns).toBeGreaterThanOrEqual(4)
      expect(purged).toBe(500)
      const left = [...shared.store.keys()].flatMap((key) => shared.store.get(key) ?? [])
      expect(left.filter(({ freshUntilMs }) => freshUntilMs > 0)).toHaveLength(turns)
    },
  )

  it.each([{ all: true }, { tags: ['even'] }] as const)(
    'reaches what others move behind what came meanwhile: %j',
    async (rule) => {
      const shared = filled(500)
      let isOver = false
      const move = () => {
        // The last of those that were there, as a validation stores it anew.
        for (let late = 0; late < 3; late++) shared.store.put(entryOf({ key: `http://gateway.test/late/${late}` }))
        const [last] = shared.store.get('http://gateway.test/498') ?? []
        if (last !== undefined) shared.store.put({ ...last })
        if (!isOver) setImmediate(move)
      }
      setImmediate(move)
      const slowly = slow(shared.store, 0.2)
      await purge({ ...shared, store: slowly }, rule)
      isOver = true
      expect(shared.store.get('http://gateway.test/498')).toBeNull()
    },
  )

  it.each([{}, { soft: true }] as const)(
    'by tag counts what it took itself, also where others do so at the same time: %j',
    async (how) => {
      const shared = filled(20_000)
      const rule = { tags: ['even'], ...how }
      const [one, two] = await Promise.all([purge(shared, rule), purge(shared, rule)])
      expect(one + two).toBe(10_000)
      expect(shared.store.entries).toBe('soft' in how ? 20_000 : 10_000)
    },
  )
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

describe('a purge by URL', () => {
  const URL = 'http://gateway.test/a?x=1'

  it.each([[[URL]], [['//gateway.test/a?x=1']], [['/a?x=1']]])('takes all keys of %j and no others', async (urls) => {
    const shared = createSharedCache(createMemoryStore(1024 ** 2), () => 0)
    for (const key of [URL, `${URL}\nwith:1`, `${URL}\nuser:1`, `${URL}2`, `${URL}2\nwith:1`]) {
      shared.store.put(entryOf({ key }))
    }
    expect(await purge(shared, { urls })).toBe(3)
    expect([...shared.store.keys()]).toEqual([`${URL}2`, `${URL}2\nwith:1`])
  })

  it('makes all of its keys stale where it is soft', async () => {
    const shared = createSharedCache(createMemoryStore(1024 ** 2), () => 0)
    for (const word of ['with:1', 'with:2']) shared.store.put(entryOf({ key: `${URL}\n${word}`, headers: ETAG }))
    expect(await purge(shared, { urls: [URL], soft: true })).toBe(2)
    expect([...(shared.store.tagged(`\n${URL}`) ?? [])].map(({ freshUntilMs }) => freshUntilMs)).toEqual([0, 0])
  })
})
