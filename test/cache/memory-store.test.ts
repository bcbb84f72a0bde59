import { describe, expect, it } from 'vitest'
import { createMemoryStore } from '../../src/cache/stores/memory.ts'
import { entryOf } from '../support/entry.ts'
import { describeStore } from './store-contract.ts'

describeStore('the memory store', createMemoryStore)

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

  it('gives what was hit a second chance, once', () => {
    const { store, stored } = fill([1, 2, 3, 4])
    store.get('http://gateway.test/1')?.forEach((entry) => store.touch(entry))
    store.put(entryOf({ key: 'http://gateway.test/5' }))
    expect(stored()).toEqual([1, 3, 4])
    for (const i of [6, 7, 8]) store.put(entryOf({ key: `http://gateway.test/${i}` }))
    expect(stored()).toEqual([])
  })

  it('makes room for a large entry at the cost of many small ones', () => {
    const { store, stored } = fill([1, 2, 3, 4])
    expect(store.put(entryOf({ key: 'http://gateway.test/9', body: Buffer.alloc(2 * SIZE) }))).toBe(true)
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
