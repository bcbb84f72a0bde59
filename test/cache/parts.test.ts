// Parts on their way into the store, and out of it again with the rest: see src/cache/parts.ts and src/cache/missing.ts.
// What needs no hand on the origin's body is in test/end-to-end/cache-parts.test.ts.

import { describe, expect, it } from 'vitest'
import type { StoredResponse } from '../../src/cache/entry.ts'
import { partIn } from '../../src/cache/parts.ts'
import type { HeaderList } from '../../src/core/context.ts'
import { BROKEN } from '../support/body.ts'
import { type Asked, type Bench, START_MS, createBench, settle } from '../support/cache.ts'
import { createHandTier } from '../support/tier.ts'

const KEY = 'http://gateway.test/'
const TAGGED = ['ETag', '"a"']
const FRESH = ['Cache-Control', 'max-age=60', ...TAGGED]
const last = ({ asked }: Bench): Asked => asked.at(-1) as Asked
const date = (ms: number): string => new Date(ms).toUTCString()

describe('the part that an answer brings', () => {
  const FOUR = ['Content-Range', 'bytes 4-7/10']
  const RANGE = { first: 4, last: 7, completeLength: 10 }

  it.each<[string, HeaderList]>([
    ['a strong tag', [...FOUR, ...TAGGED]],
    ['its length', [...FOUR, ...TAGGED, 'Content-Length', '4']],
    ['a date that is strong', [...FOUR, 'Last-Modified', date(START_MS - 1000), 'Date', date(START_MS)]],
  ])('[RFC 9111 §3.4] is known by %s', (_what, headers) => {
    expect(partIn({ status: 206, headers })).toEqual(RANGE)
  })

  it('may be of a whole whose length is not known', () => {
    const headers = ['Content-Range', 'bytes 4-7/*', ...TAGGED]
    expect(partIn({ status: 206, headers })).toEqual({ ...RANGE, completeLength: null })
  })

  it.each<[string, HeaderList, number?]>([
    ['no Content-Range', TAGGED],
    ['one that is not read', ['Content-Range', 'bytes 4-7', ...TAGGED]],
    ['one that names no part', ['Content-Range', 'bytes */10', ...TAGGED]],
    ['one in another unit', ['Content-Range', 'lines 4-7/10', ...TAGGED]],
    ['two', [...FOUR, ...FOUR, ...TAGGED]],
    ['another length', [...FOUR, ...TAGGED, 'Content-Length', '5']],
    ['several parts', [...FOUR, ...TAGGED, 'Content-Type', 'Multipart/ByteRanges;boundary=a']],
    ['a weak tag', [...FOUR, 'ETag', 'W/"a"']],
    ['a weak tag beside a strong date', [...FOUR, 'ETag', 'W/"a"', 'Last-Modified', date(0), 'Date', date(START_MS)]],
    ['a date that is weak', [...FOUR, 'Last-Modified', date(START_MS), 'Date', date(START_MS)]],
    ['a date that nothing is compared with', [...FOUR, 'Last-Modified', date(0)]],
    ['no validator', FOUR],
    ['another status', [...FOUR, ...TAGGED], 200],
  ])('[RFC 9111 §3.4] is not told by an answer with %s', (_what, headers, status = 206) => {
    expect(partIn({ status, headers })).toBeNull()
  })
})

/** A part of `0123456789`, stored. */
async function startWith(first: number, end: number, route: Record<string, unknown> = {}): Promise<Bench> {
  const bench = createBench(route)
  bench.ask({ headers: ['Range', `bytes=${first}-${end}`] })
  await settle()
  const range = ['Content-Range', `bytes ${first}-${end}/10`]
  last(bench).reply([...FRESH, ...range], '0123456789'.slice(first, end + 1), 206)
  await settle()
  return bench
}

const GAP = [...FRESH, 'Content-Range', 'bytes 4-9/10']

function expectReleased({ shared }: Bench): void {
  expect({ fillBytes: shared.fillBytes, flights: shared.flights.size }).toEqual({ fillBytes: 0, flights: 0 })
}

const storedBytes = ({ shared }: Bench): readonly (number | null)[] =>
  (shared.store.get(KEY) ?? []).map((entry) => (entry.body === null ? entry.parts.length : entry.body.length))

describe('a part of what is to be looked into', () => {
  it('is not stored: it does not tell what its whole says', async () => {
    const bench = await startWith(0, 3, { rejectIf: ['error exists'] })
    const again = bench.ask({ headers: ['Range', 'bytes=0-3'] })
    await settle()
    expect(bench.asked).toHaveLength(2)
    last(bench).reply(FRESH, '{}')
    expect(await again.field('Cache-Status')).not.toContain('hit')
  })
})

describe('a part that streams', () => {
  it('is stored when it is whole, with a buffer of its own', async () => {
    const bench = createBench()
    const client = bench.ask({ headers: ['Range', 'bytes=0-3'] })
    await settle()
    const body = last(bench).stream([...FRESH, 'Content-Range', 'bytes 0-3/10'], 206)
    await settle()
    body.send('01')
    expect(bench.shared.store.get(KEY)).toBeNull()
    body.send('23')
    body.end()
    expect(await client.outcome()).toBe('206 0123')
    const [entry] = bench.shared.store.get(KEY) ?? []
    expect(entry).toMatchObject({ body: null, completeBytes: 10, parts: [{ first: 0, last: 3 }] })
    expect(bench.shared.store.bytes).toBe(entry?.sizeBytes)
    expectReleased(bench)
  })

  it.each([
    ['breaks off', '01', 'broken: upstream_reset'],
    ['is shorter than it says', '012', '206 012'],
    ['is longer than it says', '01234', '206 01234'],
  ])('is not stored where it %s', async (_how, text, outcome) => {
    const bench = createBench()
    const client = bench.ask({ headers: ['Range', 'bytes=0-3'] })
    await settle()
    const body = last(bench).stream([...FRESH, 'Content-Range', 'bytes 0-3/10'], 206)
    await settle()
    body.send(text)
    if (outcome.startsWith('broken')) body.fail(BROKEN)
    else body.end()
    expect(await client.outcome()).toBe(outcome)
    expect(bench.shared.store.get(KEY)).toBeNull()
    expectReleased(bench)
  })

  it('is given up with its client', async () => {
    const bench = createBench()
    const client = bench.ask({ headers: ['Range', 'bytes=0-3'] })
    await settle()
    const body = last(bench).stream([...FRESH, 'Content-Range', 'bytes 0-3/10'], 206)
    await settle()
    body.send('01')
    client.abort()
    expect(last(bench).aborted?.code).toBe('client_gone')
    expect(bench.shared.store.get(KEY)).toBeNull()
    expectReleased(bench)
  })

  it('is nobody else’s to wait for', async () => {
    const bench = createBench()
    const clients = ['bytes=0-3', 'bytes=0-3'].map((range) => bench.ask({ headers: ['Range', range] }))
    clients.push(bench.ask())
    await settle()
    expect(bench.asked).toHaveLength(3)
    for (const client of clients) client.abort()
  })

  it('is not added to what another epoch has stored', async () => {
    const bench = await startWith(0, 3)
    bench.reload({}, 'second')
    const client = bench.ask({ headers: ['Range', 'bytes=4-9'] })
    await settle()
    last(bench).reply(GAP, '456789', 206)
    expect(await client.outcome()).toBe('206 456789')
    expect(bench.shared.store.get(KEY)).toMatchObject([{ parts: [{ first: 4, last: 9 }] }])
  })
})

describe('tiers', () => {
  it('get no parts, but the whole that they become', async () => {
    const tier = createHandTier()
    const bench = createBench({}, { tiers: [tier] })
    for (const [range, text] of [
      ['0-3', '0123'],
      ['4-9', '456789'],
    ] as const) {
      expect(tier.writes).toEqual([])
      bench.ask({ headers: ['Range', `bytes=${range}`] })
      await settle()
      tier.reads.at(-1)?.answer()
      await settle()
      last(bench).reply([...FRESH, 'Content-Range', `bytes ${range}/10`], text, 206)
      await settle()
    }
    expect(tier.writes.map(({ status, body }) => `${status} ${body.toString()}`)).toEqual(['200 0123456789'])
    expect(await bench.ask({ headers: ['Range', 'bytes=3-4'] }).outcome()).toBe('206 34')
  })

  it('are asked for the whole where memory has a part that is not enough', async () => {
    const tier = createHandTier()
    const bench = createBench({}, { tiers: [tier] })
    bench.ask({ headers: ['Range', 'bytes=0-3'] })
    await settle()
    tier.reads[0]?.answer()
    await settle()
    last(bench).reply([...FRESH, 'Content-Range', 'bytes 0-3/10'], '0123', 206)
    await settle()
    expect(await bench.ask({ headers: ['Range', 'bytes=1-2'] }).outcome()).toBe('206 12')
    expect(tier.reads).toHaveLength(1)
    const client = bench.ask()
    await settle()
    expect(tier.reads).toHaveLength(2)
    // Another instance has fetched it since.
    const whole = createBench({})
    whole.nowMs = bench.nowMs + 1
    whole.ask()
    await settle()
    last(whole).reply(FRESH, '0123456789')
    await settle()
    const [entry] = whole.shared.store.get(KEY) ?? []
    tier.reads[1]?.answer(entry as StoredResponse)
    expect(await client.outcome()).toBe('200 0123456789')
    expect(bench.asked).toHaveLength(1)
  })
})

describe('the piece that is missing', () => {
  it('streams behind what is there, to everybody who waits', async () => {
    const bench = await startWith(0, 3)
    const clients = [bench.ask(), bench.ask()]
    await settle()
    const body = last(bench).stream(GAP, 206)
    await settle()
    body.send('45')
    body.send('6789')
    body.end()
    expect(await Promise.all(clients.map((client) => client.outcome()))).toEqual(['200 0123456789', '200 0123456789'])
    expect(await clients[0]?.field('Cache-Status')).toBe('weirgate; fwd=partial; stored; detail=incomplete')
    expect(storedBytes(bench)).toEqual([10])
    expectReleased(bench)
  })

  it('streams before what is there, too', async () => {
    const bench = await startWith(4, 9)
    const client = bench.ask()
    await settle()
    const body = last(bench).stream([...FRESH, 'Content-Range', 'bytes 0-3/10'], 206)
    await settle()
    body.send('0123')
    body.end()
    expect(await client.outcome()).toBe('200 0123456789')
    expect(storedBytes(bench)).toEqual([10])
    expectReleased(bench)
  })

  it.each([
    ['breaks off', '45', 'upstream_reset'],
    ['is shorter than it says', '45678', 'upstream_invalid'],
    ['is longer than it says', '456789+', 'upstream_invalid'],
  ])('never looks whole where it %s', async (_how, text, code) => {
    const bench = await startWith(0, 3)
    const clients = [bench.ask(), bench.ask()]
    await settle()
    const body = last(bench).stream(GAP, 206)
    await settle()
    body.send(text)
    if (code === 'upstream_reset') body.fail(BROKEN)
    // One byte too many has ended it already.
    else if (!body.isOver) body.end()
    for (const client of clients) expect(await client.outcome()).toBe(`broken: ${code}`)
    expect(bench.shared.store.get(KEY)).toMatchObject([{ body: null, parts: [{ first: 0, last: 3 }] }])
    expectReleased(bench)
  })

  it('waits for a client that takes its time, and is given up with it', async () => {
    // Too large to be stored, so that the client's pace is the origin's.
    const bench = createBench({ maxObject: '8B' })
    bench.ask({ headers: ['Range', 'bytes=0-3'] })
    await settle()
    last(bench).reply([...FRESH, 'Content-Range', 'bytes 0-3/10'], '0123', 206)
    await settle()
    const client = bench.ask({ roomFor: 1 })
    await settle()
    const body = last(bench).stream(GAP, 206)
    await settle()
    body.send('45')
    expect(body.isWaiting).toBe(true)
    client.abort()
    expect(body.isCancelled).toBe(true)
    expectReleased(bench)
  })

  it('is not put together with what was purged meanwhile: that is for its client alone', async () => {
    const bench = await startWith(0, 3)
    const client = bench.ask()
    await settle()
    bench.shared.flights.spoil((key) => key === KEY, {})
    bench.shared.store.delete(KEY)
    last(bench).reply(GAP, '456789', 206)
    expect(await client.outcome()).toBe('200 0123456789')
    expect(bench.shared.store.get(KEY)).toBeNull()
    expectReleased(bench)
  })

  it.each<[string, Record<string, unknown>, HeaderList]>([
    ['with credentials, where the route alone gives it freshness', { ttl: '1h' }, ['Cookie', 'sid=1']],
    ['with Authorization', { ttl: '1h' }, ['Authorization', 'Bearer one']],
  ])('is not asked for %s', async (_how, route, headers) => {
    const bench = createBench(route)
    bench.ask({ headers: ['Range', 'bytes=0-3'] })
    await settle()
    last(bench).reply([...TAGGED, 'Content-Range', 'bytes 0-3/10'], '0123', 206)
    await settle()
    expect(storedBytes(bench)).toEqual([1])
    const client = bench.ask({ headers })
    await settle()
    expect(last(bench).headers).toEqual(headers)
    last(bench).reply(TAGGED, 'of that user')
    expect(await client.outcome()).toBe('200 of that user')
    expect(await client.field('X-Cache')).toBe('BYPASS')
  })
})
