import { randomBytes } from 'node:crypto'
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { type Encode, createCompressor } from '../../src/cache/compress.ts'
import type { StoredResponse } from '../../src/cache/entry.ts'
import { createMemoryStore } from '../../src/cache/stores/memory.ts'
import type { Coding } from '../../src/http/negotiation.ts'
import { settle } from '../support/cache.ts'
import { entryOf } from '../support/entry.ts'
import { until } from '../support/gateway.ts'

const TEXT = 'All work and no play makes Jack a dull boy. '.repeat(100)
const DECODERS = { br: brotliDecompressSync, zstd: zstdDecompressSync, gzip: gunzipSync }

/** A store of `count` entries, and a compressor whose encoders a test answers by hand. */
function start({ count = 1, body = Buffer.from(TEXT), maxBytes = 256 * 1024 ** 2 } = {}) {
  const store = createMemoryStore(maxBytes)
  const entries = Array.from({ length: count }, (_, i) => entryOf({ key: `http://a.test/${i}`, body }))
  for (const entry of entries) store.put(entry)
  const asked: { coding: Coding; maxBytes: number; answer: (coded: Buffer | null) => Promise<void> }[] = []
  const encode: Encode = (coding, _body, limit) => {
    const { promise, resolve } = Promise.withResolvers<Buffer | null>()
    asked.push({
      coding,
      maxBytes: limit,
      answer(coded) {
        resolve(coded)
        return settle()
      },
    })
    return promise
  }
  const [entry] = entries as [StoredResponse]
  return { store, entry, entries, asked, compressor: createCompressor(store, encode) }
}

const codings = (entry: StoredResponse) => entry.coded?.map(({ coding, body }) => `${coding} ${body?.length ?? '-'}`)

describe('coding what is stored', () => {
  it.each(['br', 'zstd', 'gzip'] as const)('in %s gives the same bytes again, in fewer', async (coding) => {
    const { store, entry } = start()
    createCompressor(store).want(entry, coding)
    await until(() => entry.coded?.length === 1, 'the coded form')
    const coded = entry.coded?.[0]?.body ?? Buffer.alloc(0)
    expect(DECODERS[coding](coded).toString()).toBe(TEXT)
    expect(coded.length).toBeLessThan(200)
    // Not a slice of the encoder's own buffer, which is larger.
    expect(coded.buffer.byteLength).toBe(coded.length)
  })

  it.each(['br', 'zstd', 'gzip'] as const)(
    'keeps nothing in %s that saves too little, and notes that',
    async (coding) => {
      const { store, entry } = start({ body: randomBytes(5000) })
      createCompressor(store).want(entry, coding)
      await until(() => entry.coded?.length === 1, 'the note')
      expect(codings(entry)).toEqual([`${coding} -`])
    },
  )

  it('happens once for each coding, however many want it', async () => {
    const { compressor, entry, asked } = start()
    for (let i = 0; i < 100; i++) for (const coding of ['br', 'gzip'] as const) compressor.want(entry, coding)
    await settle()
    expect(asked.map(({ coding }) => coding)).toEqual(['br', 'gzip'])
    await asked[0]?.answer(Buffer.alloc(10))
    await asked[1]?.answer(null)
    expect([asked.length, codings(entry)]).toEqual([2, ['br 10', 'gzip -']])
  })

  it('is worth a tenth of the body at least', () => {
    const { compressor, entry, asked } = start({ body: Buffer.alloc(2000, 'x') })
    compressor.want(entry, 'br')
    expect(asked[0]?.maxBytes).toBe(1800)
  })

  it('happens to two at a time, the others in their order', async () => {
    const { compressor, entries, asked } = start({ count: 4 })
    for (const entry of entries) compressor.want(entry, 'br')
    await settle()
    expect(asked).toHaveLength(2)
    await asked[1]?.answer(Buffer.alloc(1))
    expect([asked.length, ...entries.map(codings)]).toEqual([3, [], ['br 1'], [], []])
    for (const i of [0, 2, 3]) await asked[i]?.answer(Buffer.alloc(i + 2))
    expect(entries.map(codings)).toEqual([['br 2'], ['br 1'], ['br 4'], ['br 5']])
  })

  it('waits for no more than a bounded number of bytes, and has room again afterwards', async () => {
    const { compressor, entries, asked } = start({ count: 5, body: Buffer.alloc(16 * 1024 ** 2) })
    for (const entry of entries) compressor.want(entry, 'br')
    for (let i = 0; i < 4; i++) await asked[i]?.answer(Buffer.alloc(1))
    expect(entries.map(codings)).toEqual([['br 1'], ['br 1'], ['br 1'], ['br 1'], []])
    compressor.want(entries[4] as StoredResponse, 'br')
    await asked[4]?.answer(Buffer.alloc(1))
    expect(codings(entries[4] as StoredResponse)).toEqual(['br 1'])
  })

  it('does not begin for what has gone meanwhile, and leaves no trace of what has gone since', async () => {
    const { compressor, store, entries, asked } = start({ count: 3 })
    for (const entry of entries) compressor.want(entry, 'br')
    store.delete(entries[2]?.key ?? '')
    store.delete(entries[0]?.key ?? '')
    const bytes = store.bytes
    await asked[0]?.answer(Buffer.alloc(10))
    expect([asked.length, store.bytes, store.get(entries[0]?.key ?? '')]).toEqual([2, bytes, null])
  })

  it('gives nothing to what has taken the place of the entry', async () => {
    const { compressor, store, entry, asked } = start()
    compressor.want(entry, 'br')
    const next = entryOf({ key: entry.key, body: 'another' })
    store.put(next)
    await asked[0]?.answer(Buffer.alloc(10))
    expect([codings(next), store.get(entry.key)]).toEqual([[], [next]])
  })

  it('is not tried again where there is no room for the result', async () => {
    const { compressor, store, entry, asked } = start({ maxBytes: 6000 })
    compressor.want(entry, 'br')
    await asked[0]?.answer(Buffer.alloc(3000))
    expect([codings(entry), store.get(entry.key)]).toEqual([['br -'], [entry]])
  })
})
