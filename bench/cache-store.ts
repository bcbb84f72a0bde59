// The memory store beside an LRU of the same parts (a Map and a queue that every hit relinks): nanoseconds of a lookup and of
// a store at three sizes, and how many requests of a trace each answers. Run on its own: node bench/cache-store.ts

import { fileURLToPath } from 'node:url'
import { type CacheEntry, type StoredResponse, entrySizeBytes } from '../src/cache/entry.ts'
import { Fifo, type Place } from '../src/cache/stores/fifo.ts'
import { createMemoryStore } from '../src/cache/stores/memory.ts'

const SIZES = [10_000, 100_000, 1_000_000] as const
const LOOKUPS = 1_000_000
const ENTRY_BYTES = 1100

/** What both are asked for here. */
interface Cache {
  get(key: string): CacheEntry | null
  put(entry: StoredResponse): void
}

function weirgate(maxBytes: number): Cache {
  const store = createMemoryStore(maxBytes)
  return {
    get(key) {
      const entry = store.get(key)?.[0] ?? null
      if (entry !== null) store.touch(entry)
      return entry
    },
    put: (entry) => void store.put(entry),
  }
}

function lru(maxBytes: number): Cache {
  const places = new Map<string, Place>()
  const queue = new Fifo()
  const drop = (place: Place): void => {
    queue.remove(place)
    places.delete(place.entry.key)
  }
  return {
    get(key) {
      const place = places.get(key)
      if (place === undefined) return null
      queue.remove(place)
      queue.push(place)
      return place.entry
    },
    put(entry) {
      const replaced = places.get(entry.key)
      if (replaced !== undefined) drop(replaced)
      const place: Place = { entry, credit: 0, queue, older: null, newer: null }
      queue.push(place)
      places.set(entry.key, place)
      while (queue.bytes > maxBytes && queue.oldest !== null) drop(queue.oldest)
    },
  }
}

const CACHES = { weirgate, LRU: lru } as const

const NO_BODY = Buffer.alloc(0)
const HEADERS = ['Content-Type', 'application/json']

function entryOf(key: string, costMs: number): StoredResponse {
  const entry = {
    key,
    epoch: 'bench',
    status: 200,
    headers: HEADERS,
    body: NO_BODY,
    claims: '',
    varyNames: [],
    varyValues: [],
    bornAtMs: 0,
    freshUntilMs: 60_000,
    originFreshUntilMs: 0,
    staleWhileRevalidateUntilMs: 60_000,
    staleIfErrorUntilMs: 60_000,
    sharedDespiteAuthorization: false,
    purgeSeq: 0,
    tags: [],
    costMs,
    uses: 0,
  }
  return { ...entry, sizeBytes: entrySizeBytes(entry) }
}

/** A key as a request makes it: joined anew, never the same string twice. */
const keyOf = (i: number): string => `http://gateway.test/api/v1/presentations/${i}?page=1`

/** Uniform in 0..1, the same in every run. */
function createRandom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

export function benchCacheStore(): void {
  console.log('ns            entries      hit     miss    store  store when full')
  for (const [name, create] of Object.entries(CACHES)) for (const size of SIZES) printTimes(name, create, size)
  console.log('\nshare answered from a cache of 5,000 entries, of 1,000,000 requests for 100,000 keys by Zipf (1.0)')
  console.log('               hits, no scans   hits, 30 % scans   cost saved, 1 in 10 keys costs 20 times as much')
  for (const [name, create] of Object.entries(CACHES)) {
    const cells = [traceOf(create, 0).hits, traceOf(create, 0.3).hits, traceOf(create, 0.3).saved]
    console.log(`${name.padEnd(12)} ${cells.map((share) => `${(share * 100).toFixed(1)} %`.padStart(16)).join('   ')}`)
  }
}

function printTimes(name: string, create: (maxBytes: number) => Cache, size: number): void {
  const cache = create(size * ENTRY_BYTES)
  const random = createRandom(1)
  const perCall = (count: number, call: (i: number) => void): number => {
    const startedAtMs = performance.now()
    for (let i = 0; i < count; i++) call(i)
    return ((performance.now() - startedAtMs) * 1e6) / count
  }
  const picks = Uint32Array.from({ length: LOOKUPS }, () => Math.floor(random() * size))
  const store = perCall(size, (i) => cache.put(entryOf(keyOf(i), 1)))
  let found = 0
  const look = (from: number) =>
    perCall(LOOKUPS, (i) => {
      if (cache.get(keyOf((picks[i] as number) + from)) !== null) found++
    })
  look(0)
  const hit = look(0)
  if (found < LOOKUPS) throw new Error(`${name} lost entries that fit`)
  const miss = look(size)
  const full = perCall(size, (i) => cache.put(entryOf(keyOf(size + i), 1)))
  const cells = [hit, miss, store, full].map((ns) => ns.toFixed(0).padStart(8))
  console.log(`${name.padEnd(12)} ${String(size).padStart(8)} ${cells.join(' ')}`)
}

/** A cache-aside run. scanShare: requests for keys that come once and never again. */
function traceOf(create: (maxBytes: number) => Cache, scanShare: number): { hits: number; saved: number } {
  const [keys, requests] = [100_000, 1_000_000]
  const cache = create(5000 * entryOf(keyOf(10_000), 1).sizeBytes)
  const random = createRandom(2)
  const cumulative = new Float64Array(keys)
  let sum = 0
  for (let i = 0; i < keys; i++) cumulative[i] = sum += 1 / (i + 1)
  const pick = (): number => {
    const at = random() * sum
    let [low, high] = [0, keys - 1]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((cumulative[middle] as number) < at) low = middle + 1
      else high = middle
    }
    return low
  }
  let [hits, saved, cost] = [0, 0, 0]
  for (let i = 0; i < requests; i++) {
    const id = random() < scanShare ? keys + i : pick()
    const costMs = id % 10 === 3 ? 2000 : 100
    cost += costMs
    if (cache.get(keyOf(id)) === null) cache.put(entryOf(keyOf(id), costMs))
    else {
      hits++
      saved += costMs
    }
  }
  return { hits: hits / requests, saved: saved / cost }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) benchCacheStore()
