import { describe, expect, it } from 'vitest'
import type { CacheStore } from '../../src/cache/store.ts'
import { createMemoryStore } from '../../src/cache/stores/memory.ts'
import { entryOf } from '../support/entry.ts'
import { describeStore } from './store-contract.ts'

describeStore('the memory store', (maxBytes) => createMemoryStore(maxBytes))
describeStore('the memory store, all of whose keys fall together', (maxBytes) =>
  createMemoryStore(maxBytes, { of: () => -1 }),
)

describe('the memory store', () => {
  const SIZE = entryOf({ key: 'http://gateway.test/0' }).sizeBytes
  const fill = (keys: readonly number[]) => {
    const store = createMemoryStore(4 * SIZE)
    for (const i of keys) store.put(entryOf({ key: `http://gateway.test/${i}` }))
    const stored = () => keys.filter((i) => store.get(`http://gateway.test/${i}`) !== null)
    return { store, stored }
  }

  it('evicts the oldest first', () => {
    const { stored } = fill([1, 2, 3, 4, 5, 6])
    expect(stored()).toEqual([3, 4, 5, 6])
  })

  const url = (i: number | string) => `http://gateway.test/${i}`
  const use = (store: CacheStore, i: number | string) => store.get(url(i))?.forEach((entry) => store.touch(entry))

  it('keeps what was used while it was new, and lets it go when it has had its laps', () => {
    const { store, stored } = fill([1, 2, 3, 4])
    for (const i of [1, 1, 2]) use(store, i)
    store.put(entryOf({ key: url(5) }))
    expect(stored()).toEqual([1, 3, 4])
    // Unused in the main queue, it makes room for those who are.
    for (const i of [6, 7, 8, 9]) {
      store.put(entryOf({ key: url(i) }))
      for (const _ of [1, 2]) use(store, i)
    }
    for (const i of [10, 11, 12]) store.put(entryOf({ key: url(i) }))
    expect(store.get(url(1))).toBeNull()
  })

  it('is not flushed by a scan of keys that are asked for once', () => {
    const store = createMemoryStore(100 * SIZE)
    const hot = Array.from({ length: 50 }, (_, i) => `h${i}`)
    for (const i of hot) {
      store.put(entryOf({ key: url(i) }))
      for (const _ of [1, 2]) use(store, i)
    }
    for (let i = 0; i < 1000; i++) store.put(entryOf({ key: url(i) }))
    expect(hot.filter((i) => store.get(url(i)) === null)).toEqual([])
  })

  it('keeps most keys that come back soon after they went, and none that is new', () => {
    const store = createMemoryStore(200 * entryOf({ key: url('hot/00') }).sizeBytes)
    const put = (prefix: string, count: number) => {
      for (let i = 0; i < count; i++) store.put(entryOf({ key: url(`${prefix}/${i}`) }))
    }
    const kept = (prefix: string) =>
      Array.from({ length: 20 }, (_, i) => i).filter((i) => store.get(url(`${prefix}/${i}`)))
    put('hot', 40)
    for (let i = 0; i < 40; i++) for (const _ of [1, 2]) use(store, `hot/${i}`)
    put('back', 20)
    put('scan', 220)
    expect(kept('back')).toEqual([])
    put('back', 20)
    put('new', 20)
    put('other', 220)
    expect(kept('new')).toEqual([])
    // A ghost may have lost its place in the table to another.
    expect(kept('back').length).toBeGreaterThanOrEqual(8)
  })

  it('keeps in use what is stored anew because it has aged', () => {
    const store = createMemoryStore(10 * SIZE)
    store.put(entryOf({ key: url('hot') }))
    for (const _ of [1, 2]) use(store, 'hot')
    for (let i = 0; i < 20; i++) store.put(entryOf({ key: url(i) }))
    store.put(entryOf({ key: url('hot') }))
    for (let i = 20; i < 40; i++) store.put(entryOf({ key: url(i) }))
    expect(store.get(url('hot'))).not.toBeNull()
  })

  it('keeps what is dear to fetch again rather than what is cheap, and not for ever', () => {
    const store = createMemoryStore(50 * SIZE)
    for (let i = 0; i < 100; i++) store.put(entryOf({ key: url(i), costMs: 10 }))
    store.put(entryOf({ key: url('dear'), costMs: 10_000 }))
    for (let i = 100; i < 300; i++) store.put(entryOf({ key: url(i), costMs: 10 }))
    expect(store.get(url('dear'))).not.toBeNull()
    for (let round = 0; round < 10; round++) {
      for (let i = 0; i < 50; i++) {
        store.put(entryOf({ key: url(`${round} ${i}`), costMs: 10 }))
        for (const _ of [1, 2, 3]) use(store, `${round} ${i}`)
      }
    }
    expect(store.get(url('dear'))).toBeNull()
  })

  it('makes room for a large entry at the cost of small ones', () => {
    const { store, stored } = fill([1, 2, 3, 4])
    expect(store.put(entryOf({ key: url(9), body: Buffer.alloc(2 * SIZE) }))).toBe(true)
    expect(stored()).toEqual([4])
  })

  it('drops the oldest variants of a key that alone would be beyond the bound', () => {
    const store = createMemoryStore(3 * SIZE)
    for (const i of [1, 2, 3, 4]) store.put(entryOf({ vary: ['a'], request: ['a', String(i)] }))
    expect(store.get('http://gateway.test/')?.map(({ varyValues }) => varyValues[0])).toEqual(['4', '3'])
  })

  it('counts keys, fields, selecting values and bodies', () => {
    const small = entryOf({ key: 'k', headers: [], body: '' })
    const text = 'x'.repeat(100)
    for (const parts of [{ key: `k${text}` }, { claims: text }, { body: text }]) {
      expect(entryOf({ key: 'k', headers: [], body: '', ...parts }).sizeBytes).toBe(small.sizeBytes + 100)
    }
    expect(entryOf({ key: 'k', body: '', headers: ['a', text] }).sizeBytes).toBeGreaterThan(small.sizeBytes + 101)
    const varied = entryOf({ key: 'k', headers: [], body: '', vary: ['a'], request: ['a', text] })
    expect(varied.sizeBytes).toBeGreaterThan(small.sizeBytes + 101)
  })
})
