// The memory store beside lru-cache, both bounded in bytes: nanoseconds of a lookup and of a store at four sizes and bytes
// beside the entries, each in a process of its own, and how many requests of a trace each answers. Every lookup has a key
// joined anew, as a request's is; the row `key` is what that alone takes. Run on its own: node bench/cache-store.ts

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { LRUCache } from 'lru-cache'
import { type CacheEntry, type StoredResponse, entrySizeBytes } from '../src/cache/entry.ts'
import { createMemoryStore } from '../src/cache/stores/memory.ts'

const FILE = fileURLToPath(import.meta.url)
const SIZES = [1000, 10_000, 100_000, 1_000_000] as const
const LOOKUPS = 1_000_000

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
  const cache = new LRUCache<string, StoredResponse>({
    maxSize: maxBytes,
    sizeCalculation: ({ sizeBytes }) => sizeBytes,
  })
  return {
    get: (key) => cache.get(key) ?? null,
    put: (entry) => void cache.set(entry.key, entry),
  }
}

/** The keys alone. */
const nothing = (): Cache => ({ get: (key) => (key.charCodeAt(key.length - 1) === 0 ? null : ABSENT), put() {} })

const NO_BODY = Buffer.alloc(0)
const HEADERS = ['Content-Type', 'application/json']

function entryOf(key: string, costMs: number): StoredResponse {
  const entry = {
    key,
    epoch: 'bench',
    status: 200,
    headers: HEADERS,
    body: NO_BODY,
    coded: null,
    claims: '',
    varyNames: [],
    varyValues: [],
    timeline: null,
    bornAtMs: 0,
    freshUntilMs: 60_000,
    originFreshUntilMs: 0,
    staleWhileRevalidateUntilMs: 60_000,
    staleIfErrorUntilMs: 60_000,
    sharedDespiteAuthorization: false,
    tags: [],
    purgeSeq: 0,
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

const ABSENT = entryOf('', 0)
const CACHES = { weirgate, 'lru-cache': lru, key: nothing } as const

export function benchCacheStore(): void {
  console.log(
    'ns            entries      hit     miss    store  store when full  longest store, ms  bytes beside an entry',
  )
  for (const name of Object.keys(CACHES)) {
    for (const size of SIZES) {
      const { stdout, stderr, status } = spawnSync(process.execPath, ['--expose-gc', FILE, name, String(size)], {
        encoding: 'utf8',
      })
      if (status !== 0) throw new Error(stderr)
      console.log(`${name.padEnd(12)} ${String(size).padStart(8)} ${stdout}`)
    }
  }
  console.log('\nshare answered from a cache of 5,000 entries, of 1,000,000 requests for 100,000 keys by Zipf (1.0)')
  console.log('               hits, no scans   hits, 30 % scans   cost saved, 1 in 10 keys costs 20 times as much')
  for (const name of ['weirgate', 'lru-cache'] as const) {
    const cells = [traceOf(CACHES[name], 0).hits, traceOf(CACHES[name], 0.3).hits, traceOf(CACHES[name], 0.3).saved]
    console.log(`${name.padEnd(12)} ${cells.map((share) => `${(share * 100).toFixed(1)} %`.padStart(16)).join('   ')}`)
  }
}

function timesOf(create: (maxBytes: number) => Cache, size: number): string {
  const random = createRandom(1)
  const perCall = (count: number, call: (i: number) => void): number => {
    const startedAtMs = performance.now()
    for (let i = 0; i < count; i++) call(i)
    return ((performance.now() - startedAtMs) * 1e6) / count
  }
  const picks = Uint32Array.from({ length: LOOKUPS }, () => Math.floor(random() * size))
  const entries = (from: number) => Array.from({ length: size }, (_, i) => entryOf(keyOf(from + i), 1))
  const [first, second] = [entries(0), entries(size)]
  const before = usedBytes()
  const cache = create(size * (second.at(-1) as StoredResponse).sizeBytes)
  let longestMs = 0
  const store = perCall(size, (i) => {
    const startedAtMs = performance.now()
    cache.put(first[i] as StoredResponse)
    longestMs = Math.max(longestMs, performance.now() - startedAtMs)
  })
  const bytes = (usedBytes() - before) / size
  let found = 0
  const look = (from: number) =>
    perCall(LOOKUPS, (i) => {
      if (cache.get(keyOf((picks[i] as number) + from)) !== null) found++
    })
  look(0)
  const hit = Math.min(look(0), look(0), look(0))
  if (found < 4 * LOOKUPS) throw new Error('entries that fit are lost')
  look(size)
  const miss = Math.min(look(size), look(size))
  const full = perCall(size, (i) => cache.put(second[i] as StoredResponse))
  const cells = [hit, miss, store, full].map((ns) => ns.toFixed(0).padStart(8))
  return `${cells.join(' ')} ${longestMs.toFixed(1).padStart(27)} ${bytes.toFixed(0).padStart(22)}`
}

function usedBytes(): number {
  for (let i = 0; i < 3; i++) globalThis.gc?.()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
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

const [, script, name, size] = process.argv
if (script === FILE) {
  if (name === undefined) benchCacheStore()
  else process.stdout.write(timesOf(CACHES[name as keyof typeof CACHES], Number(size)))
}
