// How much memory does a stored response take, and does the store count it right? 100,000 small responses go the whole
// way through a route's cache, each shape in a process of its own. Printed per entry: growth of heap and of external
// memory after a full collection, growth of resident memory (with what V8 and the allocator keep beside the two, and
// with what the collector has not given back), and the bytes that the store counts. The constants of cache/entry.ts
// are right when that is no less than heap and external together.

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { compileCache } from '../src/cache/cache.ts'
import { codedForm } from '../src/cache/coding.ts'
import { routeCacheOptions } from '../src/cache/options.ts'
import { compileKeyRule } from '../src/cache/key-rule.ts'
import { compilePolicy } from '../src/cache/policy.ts'
import { exactCopy } from '../src/cache/recording.ts'
import { type SharedCache, createSharedCache } from '../src/cache/shared.ts'
import { createMemoryStore } from '../src/cache/stores/memory.ts'
import { RequestContext } from '../src/core/context.ts'
import type { Coding } from '../src/http/negotiation.ts'

const ENTRIES = 100_000
const MAX_BYTES = 4 * 1024 ** 3

interface Shape {
  readonly name: string
  readonly bodyBytes: number
  /** Fields beside Date and Content-Type. */
  readonly fields: number
  readonly varies: boolean
  /** At hand in these, CODED_BYTES each. */
  readonly codings?: readonly Coding[]
}

const CODED_BYTES = 500
const CODED = Buffer.alloc(CODED_BYTES)

const SHAPES: readonly Shape[] = [
  { name: 'no body, 2 fields', bodyBytes: 0, fields: 0, varies: false },
  { name: '200 B, 2 fields', bodyBytes: 200, fields: 0, varies: false },
  { name: '200 B, 12 fields', bodyBytes: 200, fields: 10, varies: false },
  { name: '200 B, 12 fields, Vary', bodyBytes: 200, fields: 10, varies: true },
  { name: '4 KiB, 12 fields', bodyBytes: 4096, fields: 10, varies: false },
  { name: '4 KiB, 12 fields, 1 coding', bodyBytes: 4096, fields: 10, varies: false, codings: ['br'] },
  { name: '4 KiB, 12 fields, 3 codings', bodyBytes: 4096, fields: 10, varies: false, codings: ['br', 'zstd', 'gzip'] },
]

const FILE = fileURLToPath(import.meta.url)

export function benchCacheMemory(): void {
  console.log(`bytes per entry, ${ENTRIES} entries    heap  external  resident  counted  counted/used`)
  for (const [i, { name }] of SHAPES.entries()) {
    const { stdout, stderr, status } = spawnSync(process.execPath, ['--expose-gc', FILE, String(i)], {
      encoding: 'utf8',
    })
    if (status !== 0) throw new Error(stderr)
    const { heapUsed, external, rss, counted } = JSON.parse(stdout) as Figures
    const cells = [heapUsed, external, rss, counted].map((bytes) => bytes.toFixed(0).padStart(8))
    const ratio = (counted / (heapUsed + external)).toFixed(2).padStart(12)
    console.log(`${name.padEnd(32)} ${cells.join('  ')}  ${ratio}`)
  }
}

/** Bytes per entry. */
interface Figures {
  readonly heapUsed: number
  readonly external: number
  readonly rss: number
  readonly counted: number
}

async function measure(shape: Shape): Promise<Figures> {
  // Some for nothing, so that code and feedback are not counted.
  await fill(shape, 1000)
  const before = await settled()
  const { store } = await fill(shape, ENTRIES)
  const after = await settled()
  const per = (key: keyof NodeJS.MemoryUsage) => (after[key] - before[key]) / ENTRIES
  const counted = store.bytes / store.entries
  return { heapUsed: per('heapUsed'), external: per('external'), rss: per('rss'), counted }
}

async function settled(): Promise<NodeJS.MemoryUsage> {
  for (let i = 0; i < 3; i++) {
    globalThis.gc?.()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return process.memoryUsage()
}

async function fill(shape: Shape, entries: number): Promise<SharedCache> {
  const shared = createSharedCache(createMemoryStore(MAX_BYTES), Date.now)
  const options = routeCacheOptions.parse({ ttl: '1h' })
  const { lookup, fill } = compileCache({
    route: '/*',
    shared,
    policy: compilePolicy(options, { maxObjectBytes: 8 * 1024 ** 2 }),
    key: compileKeyRule({}, false),
    collapse: true,
    maxBodyBytes: 0,
    epoch: 'bench',
    onAbort: 'auto',
    upstream: 'bench',
    mostDetached: 1,
    longestFetchMs: 60_000,
    fetch: () => ({
      answer: Promise.resolve({
        status: 200,
        headers: headOf(shape),
        framed: true,
        takeBody: () => read(shape.bodyBytes),
      }),
      isSent: true,
      abort() {},
    }),
  })
  for (let i = 0; i < entries; i++) {
    const ctx = requestFor(i, shape)
    await (lookup(ctx) ?? fill(ctx))
    const [entry] = shared.store.get(ctx.cacheKey ?? '') ?? []
    if (entry === undefined || entry.body === null) throw new Error('It was not stored.')
    for (const coding of shape.codings ?? []) {
      shared.store.addForm(entry, codedForm(entry.headers, coding, exactCopy([CODED], CODED_BYTES)))
    }
  }
  return shared
}

/** Text as it comes from a socket: strings of their own. */
const text = (value: string): string => Buffer.from(value).toString('latin1')

function headOf({ fields, varies }: Shape): string[] {
  const head = ['Date', 'Sun, 22 Nov 2026 12:00:00 GMT', 'Content-Type', 'application/json']
  for (let i = 0; i < fields; i++) head.push(`X-Field-${i}`, `a value of some length ${i}`)
  if (varies) head.push('Vary', 'Accept-Encoding, Accept-Language')
  return head.map(text)
}

/** A body as it comes from a socket: a piece of what was read. */
const read = (bytes: number): Buffer => Buffer.alloc(64 * 1024, 'x').subarray(0, bytes)

function requestFor(i: number, { varies }: Shape): RequestContext {
  const headers = varies ? ['Accept-Encoding', 'gzip, br', 'Accept-Language', `en-${i}`] : []
  return new RequestContext(
    {
      method: 'GET',
      scheme: 'http',
      host: text('gateway.test'),
      path: text(`/api/v1/presentations/${i}`),
      query: text('?page=1&size=20'),
      version: '1.1',
      headers: headers.map(text),
      body: null,
      peerAddress: '192.0.2.7',
      receivedAtMs: 0,
    },
    'bench',
  )
}

if (process.argv[1] === FILE) {
  const shape = SHAPES[Number(process.argv[2])]
  if (shape === undefined) throw new Error(`no shape ${process.argv[2]}`)
  process.stdout.write(JSON.stringify(await measure(shape)))
}
