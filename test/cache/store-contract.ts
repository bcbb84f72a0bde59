// What every cache store promises (src/cache/store.ts). Call it once for each, with a way to make an empty one.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type CodedForm, type StoredResponse, entrySizeBytes, formSizeBytes } from '../../src/cache/entry.ts'
import { urlTag } from '../../src/cache/key.ts'
import type { CacheStore } from '../../src/cache/store.ts'
import type { Coding } from '../../src/http/negotiation.ts'
import { entryOf } from '../support/entry.ts'

const SIZE = entryOf().sizeBytes
const TAGS = [[], ['odd'], ['odd', 'even']] as const
const CODINGS: readonly Coding[] = ['br', 'zstd', 'gzip']

const formOf = (coding: Coding = 'br', bytes = 10): CodedForm => ({ coding, headers: [], body: Buffer.alloc(bytes) })

export function describeStore(name: string, create: (maxBytes: number) => CacheStore): void {
  const bodies = (store: CacheStore, key = 'http://gateway.test/') =>
    store.get(key)?.map(({ body }) => String(body)) ?? null

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

    it('removes one variant, once, and leaves the others', () => {
      const store = create(100_000)
      const [one, two] = ['1', '2'].map((a) => entryOf({ vary: ['a'], request: ['a', a] }))
      for (const entry of [one, two]) if (entry !== undefined) store.put(entry)
      expect(one && [store.remove(one), store.remove(one)]).toEqual([true, false])
      expect(store.get('http://gateway.test/')).toEqual([two])
      expect(two && store.remove(two)).toBe(true)
      expect([store.get('http://gateway.test/'), store.entries, store.bytes]).toEqual([null, 0, 0])
    })

    it('does not take an entry that was replaced for the one in its place', () => {
      const store = create(100_000)
      const old = entryOf({ body: 'old', tags: ['a'] })
      store.put(old)
      store.put(entryOf({ body: 'new', tags: ['a'] }))
      expect(store.remove(old)).toBe(false)
      expect(bodies(store)).toEqual(['new'])
      expect(store.tagged('a')?.size).toBe(1)
    })

    it('puts an entry in the place of another, among its variants and to eviction', () => {
      const store = create(4 * SIZE)
      const [one, two] = ['1', '2'].map((a) => entryOf({ vary: ['a'], request: ['a', a], tags: ['t'] })) as [
        StoredResponse,
        StoredResponse,
      ]
      for (const entry of [one, two]) store.put(entry)
      store.touch(one)
      const next = { ...one, freshUntilMs: 1, uses: 0 }
      expect(store.replace(one, next)).toBe(true)
      expect([store.replace(one, next), store.remove(one)]).toEqual([false, false])
      expect(store.get(one.key)).toEqual([two, next])
      expect(store.get(one.key)?.[1]).toBe(next)
      expect(next.uses).toBe(one.uses)
      expect(store.tagged('t')).toEqual(new Set([two, next]))
      expect([store.entries, store.bytes]).toEqual([2, one.sizeBytes + two.sizeBytes])
      for (let i = 0; i < 8; i++) store.put(entryOf({ key: `http://gateway.test/${i}` }))
      expect(store.get(one.key)).toBeNull()
      expect(store.tagged('t')).toBeNull()
    })

    it.each<[string, boolean, (store: CacheStore, entry: StoredResponse) => void]>([
      ['is touched', true, (store, entry) => store.touch(entry)],
      ['goes', false, (store, entry) => void store.remove(entry)],
      ['makes way for others', false, (store) => store.resize(0)],
      ['is replaced', false, (store) => void store.put(entryOf({ body: 'new' }))],
      [
        'is touched, after another was put in its place',
        true,
        (store, entry) => {
          const next = { ...entry, freshUntilMs: 1 }
          store.replace(entry, next)
          store.touch(next)
        },
      ],
    ])('tells once whether an entry is of use: %s', (_what, wasUsed, act) => {
      const store = create(4 * SIZE)
      const entry = entryOf({})
      const told: boolean[] = []
      store.put(entry)
      for (let i = 0; i < 5; i++) store.touch(entry)
      store.watch(entry, (used) => told.push(used))
      expect(told).toEqual([])
      act(store, entry)
      store.touch(entry)
      store.delete(entry.key)
      expect(told).toEqual([wasUsed])
      store.watch(entry, (used) => told.push(used))
      expect(told).toEqual([wasUsed, false])
    })

    it('adds each coded form of an entry once, and counts it until the entry goes', () => {
      const store = create(100_000)
      const entry = entryOf()
      store.put(entry)
      const [br, gzip] = [formOf('br', 100), formOf('gzip', 200)]
      expect([br, gzip, formOf('br', 300)].map((form) => store.addForm(entry, form))).toEqual([true, true, false])
      expect(entry.coded).toEqual([br, gzip])
      expect(store.bytes).toBe(SIZE + formSizeBytes(br) + formSizeBytes(gzip))
      expect([entry.sizeBytes, entrySizeBytes(entry)]).toEqual([store.bytes, store.bytes])
      store.remove(entry)
      expect([store.entries, store.bytes]).toEqual([0, 0])
    })

    it('adds no coded form to what is not there any more, or may have none', () => {
      const store = create(100_000)
      const [gone, plain] = [entryOf({ key: 'http://a.test/' }), entryOf({ headers: [] })]
      for (const entry of [gone, plain]) store.put(entry)
      store.put(entryOf({ key: gone.key }))
      const { bytes } = store
      for (const entry of [gone, plain]) expect(store.addForm(entry, formOf())).toBe(false)
      expect([gone.coded, plain.coded, store.bytes]).toEqual([[], null, bytes])
    })

    it('makes room for a coded form, or does without', () => {
      const store = create(6 * SIZE)
      const others = [1, 2, 3, 4].map((i) => entryOf({ key: `http://gateway.test/${i}` }))
      const entry = entryOf()
      for (const each of [...others, entry]) store.put(each)
      store.touch(entry)
      expect(store.addForm(entry, formOf('br', 6 * SIZE))).toBe(false)
      expect(store.entries).toBe(5)
      expect(store.addForm(entry, formOf('br', 3 * SIZE))).toBe(true)
      expect(store.get(entry.key)).toEqual([entry])
      expect(store.entries).toBeLessThan(5)
      expect(store.bytes).toBeLessThanOrEqual(6 * SIZE)
    })

    it('tells all keys, also while what they tell is removed and more comes', () => {
      const store = create(100_000)
      const paths = ['/a', '/b', '/c'].map((path) => `http://gateway.test${path}`)
      for (const key of paths) store.put(entryOf({ key }))
      const told: string[] = []
      for (const key of store.keys()) {
        told.push(key)
        store.delete(key)
        if (told.length === 1) store.put(entryOf({ key: 'http://gateway.test/late' }))
      }
      expect(told.slice(0, 3).toSorted()).toEqual(paths)
    })

    it('tells the entries with a tag, whatever becomes of the others', () => {
      const store = create(100_000)
      const ab = entryOf({ key: 'http://a.test/', tags: ['a', 'b'] })
      const b = entryOf({ key: 'http://b.test/', tags: ['b'] })
      for (const entry of [ab, b, entryOf({ key: 'http://none.test/' })]) store.put(entry)
      const tagged = (tag: string) => [...(store.tagged(tag) ?? [])]
      expect([tagged('a'), tagged('b'), store.tagged('c')]).toEqual([[ab], [ab, b], null])
      store.put(entryOf({ key: 'http://a.test/', tags: ['c'] }))
      expect([store.tagged('a'), tagged('b'), tagged('c').length]).toEqual([null, [b], 1])
      store.delete('http://b.test/')
      expect(store.tagged('b')).toBeNull()
      store.resize(0)
      expect(store.tagged('c')).toBeNull()
    })

    it('tells the entries whose keys are a URL and more, as long as they are there', () => {
      const store = create(100_000)
      const url = 'http://a.test/x?1'
      const [one, two] = ['with:1', 'with:2'].map((word) => entryOf({ key: `${url}\n${word}`, tags: ['a'] }))
      for (const entry of [one, two, entryOf({ key: url }), entryOf({ key: `${url}2\nwith:1` })]) {
        if (entry !== undefined) store.put(entry)
      }
      const ofUrl = () => [...(store.tagged(urlTag(url)) ?? [])]
      expect(ofUrl()).toEqual([one, two])
      expect(store.tagged('a')?.size).toBe(2)
      store.delete(`${url}\nwith:1`)
      expect(ofUrl()).toEqual([two])
      if (two !== undefined) store.remove(two)
      expect(store.tagged(urlTag(url))).toBeNull()
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
        do: fc.constantFrom('put', 'put', 'put', 'touch', 'delete', 'remove', 'replace', 'form', 'form', 'resize'),
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
              if (
                store.put(
                  entryOf({
                    key,
                    body,
                    vary: ['v'],
                    request: ['v', String(variant)],
                    tags: TAGS[i % 3] ?? [],
                  }),
                )
              )
                latest.set(`${key} ${variant}`, body)
            } else if (what === 'touch') store.get(key)?.forEach((entry) => store.touch(entry))
            else if (what === 'delete') store.delete(key)
            else if (what === 'remove')
              store
                .get(key)
                ?.slice(-1)
                .forEach((entry) => store.remove(entry))
            else if (what === 'replace')
              store
                .get(key)
                ?.slice(-1)
                .forEach((entry) => store.replace(entry, { ...entry, freshUntilMs: i }))
            else if (what === 'form')
              store
                .get(key)
                ?.slice(-1)
                .forEach((entry) => entry.body !== null && store.addForm(entry, formOf(CODINGS[variant % 3], bytes)))
            else store.resize(bytes * 4)

            const all = ['a', 'b', 'c', 'd', 'e'].flatMap((each) => store.get(each) ?? [])
            expect(store.bytes).toBeLessThanOrEqual(store.maxBytes)
            expect(store.entries).toBe(all.length)
            expect(store.bytes).toBe(all.reduce((sum, entry) => sum + entrySizeBytes(entry), 0))
            for (const tag of ['odd', 'even']) {
              const carriers = new Set(all.filter(({ tags }) => tags.includes(tag)))
              expect(store.tagged(tag) ?? new Set()).toEqual(carriers)
            }
            for (const entry of all) expect(String(entry.body)).toBe(latest.get(`${entry.key} ${entry.varyValues[0]}`))
          }
        }),
        { numRuns: 200 },
      )
    })
  })
}
