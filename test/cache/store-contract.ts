// What every cache store promises (src/cache/store.ts). Call it once for each, with a way to make an empty one.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { CacheStore } from '../../src/cache/store.ts'
import { entryOf } from '../support/entry.ts'

const SIZE = entryOf().sizeBytes

export function describeStore(name: string, create: (maxBytes: number) => CacheStore): void {
  const bodies = (store: CacheStore, key = 'http://gateway.test/') =>
    store.get(key)?.map(({ body }) => body.toString()) ?? null

  describe(`${name}, as any cache store`, () => {
    it('is empty at first', () => {
      const store = create(1000)
      expect(store.get('http://gateway.test/')).toBeNull()
      expect([store.entries, store.bytes, store.maxBytes]).toEqual([0, 0, 1000])
    })

    it('gives back what was stored, under its key alone', () => {
      const store = create(100_000)
      const entry = entryOf({ key: 'http://a.test/x?1' })
      expect(store.put(entry)).toBe(true)
      expect(store.get('http://a.test/x?1')).toEqual([entry])
      expect(store.get('http://a.test/x')).toBeNull()
      expect([store.entries, store.bytes]).toEqual([1, entry.sizeBytes])
    })

    it('replaces what the same requests select', () => {
      const store = create(100_000)
      store.put(entryOf({ body: 'old' }))
      store.put(entryOf({ body: 'new' }))
      expect(bodies(store)).toEqual(['new'])
      expect([store.entries, store.bytes]).toEqual([1, SIZE - 1])
    })

    it('[RFC 9111 §4.1] keeps variants side by side, the newest first', () => {
      const store = create(100_000)
      for (const language of ['en', 'de']) {
        store.put(entryOf({ body: language, vary: ['accept-language'], request: ['Accept-Language', language] }))
      }
      store.put(entryOf({ body: 'none', vary: ['accept-language'] }))
      store.put(entryOf({ body: 'empty', vary: ['accept-language'], request: ['Accept-Language', ''] }))
      store.put(entryOf({ body: 'mine', claims: 'x-forwarded-user: me\n', vary: ['accept-language'] }))
      expect(bodies(store)).toEqual(['mine', 'empty', 'none', 'de', 'en'])
      store.put(entryOf({ body: 'EN', vary: ['accept-language'], request: ['accept-language', 'en'] }))
      expect(bodies(store)).toEqual(['EN', 'mine', 'empty', 'none', 'de'])
      expect(store.entries).toBe(5)
    })

    it('replaces what varied by less, and keeps what varied by more', () => {
      const store = create(100_000)
      store.put(entryOf({ body: 'plain' }))
      store.put(entryOf({ body: 'one', vary: ['a'], request: ['a', '1'] }))
      expect(bodies(store)).toEqual(['one'])
      store.put(entryOf({ body: 'both', vary: ['a', 'b'], request: ['a', '2', 'b', '1'] }))
      store.put(entryOf({ body: 'a alone', vary: ['a', 'b'], request: ['a', '2'] }))
      store.put(entryOf({ body: 'two', vary: ['a'], request: ['a', '2'] }))
      expect(bodies(store)).toEqual(['two', 'both', 'one'])
    })

    it('keeps no more than a bounded number of variants of a key', () => {
      const store = create(1_000_000)
      for (let i = 0; i < 100; i++) store.put(entryOf({ body: String(i), vary: ['a'], request: ['a', String(i)] }))
      expect(store.entries).toBeLessThanOrEqual(16)
      expect(bodies(store)?.[0]).toBe('99')
    })

    it('removes all variants of a key', () => {
      const store = create(100_000)
      store.put(entryOf({ vary: ['a'], request: ['a', '1'] }))
      store.put(entryOf({ vary: ['a'], request: ['a', '2'] }))
      store.put(entryOf({ key: 'http://other.test/' }))
      expect(store.delete('http://gateway.test/')).toBe(2)
      expect(store.delete('http://gateway.test/')).toBe(0)
      expect([store.entries, store.get('http://other.test/')?.length]).toEqual([1, 1])
    })

    it('removes what a test of keys accepts', () => {
      const store = create(100_000)
      for (const path of ['/a', '/ab', '/b']) store.put(entryOf({ key: `http://gateway.test${path}` }))
      expect(store.deleteWhere((key) => key.includes('/a'))).toBe(2)
      expect(store.deleteWhere((key) => key.includes('/a'))).toBe(0)
      expect([store.entries, store.bytes > 0, store.get('http://gateway.test/b')?.length]).toEqual([1, true, 1])
    })

    it('refuses an entry that does not fit at all, and keeps what it has', () => {
      const store = create(2 * SIZE)
      store.put(entryOf({ body: 'old' }))
      expect(store.put(entryOf({ body: Buffer.alloc(2 * SIZE) }))).toBe(false)
      expect(bodies(store)).toEqual(['old'])
    })

    it('keeps the entry that came last, whatever else was of use', () => {
      const store = create(4 * SIZE)
      for (let i = 0; i < 50; i++) {
        const key = `http://gateway.test/${i}`
        store.put(entryOf({ key }))
        expect(store.get(key)).not.toBeNull()
        for (let j = 0; j <= i; j++) store.get(`http://gateway.test/${j}`)?.forEach((entry) => store.touch(entry))
      }
    })

    it('keeps what is of use when others come that are not', () => {
      const store = create(10 * SIZE)
      const hot = entryOf({ key: 'http://gateway.test/hot' })
      store.put(hot)
      for (let i = 0; i < 200; i++) {
        store.get(hot.key)?.forEach((entry) => store.touch(entry))
        store.put(entryOf({ key: `http://gateway.test/${i}` }))
      }
      expect(store.get(hot.key)).not.toBeNull()
    })

    it('evicts when it is made smaller, down to nothing', () => {
      const store = create(10 * SIZE)
      for (let i = 0; i < 5; i++) {
        const entry = entryOf({ key: `http://gateway.test/${i}` })
        store.put(entry)
        store.touch(entry)
      }
      store.resize(3 * SIZE)
      expect(store.bytes).toBeLessThanOrEqual(3 * SIZE)
      expect(store.entries).toBeGreaterThan(0)
      store.resize(0)
      expect([store.entries, store.bytes, store.maxBytes]).toEqual([0, 0, 0])
    })

    it('is never beyond its bound, counts right, and gives back only what was put last, whatever happens', () => {
      const operation = fc.record({
        do: fc.constantFrom('put', 'put', 'put', 'touch', 'delete', 'deleteWhere', 'resize'),
        key: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
        variant: fc.nat(3),
        bytes: fc.nat(3000),
      })
      fc.assert(
        fc.property(fc.array(operation, { maxLength: 80, size: 'max' }), (operations) => {
          const store = create(8 * SIZE)
          const latest = new Map<string, string>()
          for (const [i, { do: what, key, variant, bytes }] of operations.entries()) {
            if (what === 'put') {
              const body = `${i} `.padEnd(bytes, 'x')
              if (store.put(entryOf({ key, body, vary: ['v'], request: ['v', String(variant)] })))
                latest.set(`${key} ${variant}`, body)
            } else if (what === 'touch') store.get(key)?.forEach((entry) => store.touch(entry))
            else if (what === 'delete') store.delete(key)
            else if (what === 'deleteWhere') store.deleteWhere((other) => other === key)
            else store.resize(bytes * 4)

            const all = ['a', 'b', 'c', 'd', 'e'].flatMap((each) => store.get(each) ?? [])
            expect(store.bytes).toBeLessThanOrEqual(store.maxBytes)
            expect(store.entries).toBe(all.length)
            expect(store.bytes).toBe(all.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0))
            for (const entry of all)
              expect(entry.body.toString()).toBe(latest.get(`${entry.key} ${entry.varyValues[0]}`))
          }
        }),
        { numRuns: 200 },
      )
    })
  })
}
