// What a client may say of the answer that it wants: see src/cache/client-control.ts.

import { describe, expect, it } from 'vitest'
import { acceptsStale, isChoosy, unwantedBy, wishOf } from '../../src/cache/client-control.ts'
import { type Asked, type Bench, createBench, settle } from '../support/cache.ts'

const NOW_MS = Date.UTC(2026, 10, 22, 12)
/** Ten seconds old, fresh for sixty more. */
const FRESH = {
  bornAtMs: NOW_MS - 10_000,
  freshUntilMs: NOW_MS + 60_000,
  staleWhileRevalidateUntilMs: NOW_MS + 60_000,
  staleIfErrorUntilMs: NOW_MS + 90_000,
}
/** Stale for ten seconds, and allowed to answer so for twenty more. */
const STALE = {
  bornAtMs: NOW_MS - 70_000,
  freshUntilMs: NOW_MS - 10_000,
  staleWhileRevalidateUntilMs: NOW_MS - 10_000,
  staleIfErrorUntilMs: NOW_MS + 20_000,
}

const wished = (control: string) => {
  const wish = wishOf(['Cache-Control', control])
  if (wish === null) throw new Error(`${control} asks for nothing`)
  return wish
}

describe('a wish', () => {
  const RELOAD = { noCache: true, noStore: false, onlyIfCached: false }
  it.each([
    ['nothing', [], null],
    ['nothing that is known', ['Cache-Control', 'foo, no-transform'], null],
    ['[RFC 9111 §5.2.1.4] no-cache', ['cache-control', 'No-Cache'], RELOAD],
    ['two lines', ['Cache-Control', 'no-cache', 'Cache-Control', 'no-store'], { ...RELOAD, noStore: true }],
    ['[RFC 9111 §5.2.1.7] only-if-cached', ['Cache-Control', 'only-if-cached'], { noCache: false, onlyIfCached: true }],
    ['[RFC 9111 §5.2.1.1] max-age', ['Cache-Control', 'max-age="5"'], { maxAgeSeconds: 5 }],
    ['two numbers, of which the stricter counts', ['Cache-Control', 'max-age=5, max-age=3'], { maxAgeSeconds: 3 }],
    ['[RFC 9111 §5.2.1.3] min-fresh', ['Cache-Control', 'min-fresh=3, min-fresh=5'], { minFreshSeconds: 5 }],
    ['[RFC 9111 §5.2.1.2] max-stale', ['Cache-Control', 'max-stale=5'], { maxStaleSeconds: 5 }],
    ['max-stale without a bound', ['Cache-Control', 'max-stale'], { maxStaleSeconds: Infinity }],
    ['max-stale with one and without', ['Cache-Control', 'max-stale=5, max-stale'], { maxStaleSeconds: 5 }],
    ['numbers that are none', ['Cache-Control', 'max-age=a, min-fresh=-1, max-stale=1.5, max-age'], null],
    ['a number beside no number', ['Cache-Control', 'max-age=a, min-fresh=1'], { maxAgeSeconds: null }],
    ['no list of directives', ['Cache-Control', 'no-cache, a="'], null],
    ['[RFC 9111 §5.4] Pragma', ['Pragma', 'foo, No-Cache'], RELOAD],
    ['[RFC 9111 §5.4] Pragma beside Cache-Control', ['Pragma', 'no-cache', 'Cache-Control', 'foo'], null],
    ['another Pragma', ['Pragma', 'foo'], null],
  ])('is read from %s', (_what, headers, wish) => {
    const read = wishOf(headers)
    expect(read === null ? null : { ...read, ...wish }).toEqual(read)
    expect(read === null).toBe(wish === null)
  })

  it.each([
    ['no-cache', true],
    ['max-age=5', true],
    ['min-fresh=5', true],
    ['max-stale', false],
    ['only-if-cached', false],
    ['no-store', false],
  ])('%s is choosy: %s', (control, choosy) => {
    expect(isChoosy(wished(control))).toBe(choosy)
  })
})

describe('what is stored', () => {
  it.each([
    ['no-store', FRESH, null],
    ['only-if-cached', FRESH, null],
    ['max-stale', FRESH, null],
    ['no-cache', FRESH, 'client-no-cache'],
    ['max-age=11', FRESH, null],
    ['max-age=10', FRESH, null],
    ['max-age=9', FRESH, 'client-max-age'],
    ['max-age=9, max-stale', FRESH, 'client-max-age'],
    ['max-age=0', { ...FRESH, bornAtMs: NOW_MS }, 'client-max-age'],
    ['max-age=1', { ...FRESH, bornAtMs: NOW_MS - 1001 }, 'client-max-age'],
    ['min-fresh=60', FRESH, null],
    ['min-fresh=61', FRESH, 'client-min-fresh'],
    ['no-store', STALE, null],
    ['no-cache', STALE, 'expired'],
    ['no-cache, max-stale', STALE, 'expired'],
    ['max-age=100', STALE, 'expired'],
    ['max-age=100, max-stale=10', STALE, null],
    ['max-age=69, max-stale=10', STALE, 'expired'],
    ['max-stale=10', STALE, null],
    ['max-stale=9', STALE, 'expired'],
    ['min-fresh=0, max-stale', STALE, 'expired'],
    ['max-stale=0', { ...STALE, freshUntilMs: NOW_MS }, null],
  ])('[RFC 9111 §5.2.1] by %s is turned down or not: %#', (control, stored, reason) => {
    expect(unwantedBy(wished(control), stored, NOW_MS)).toBe(reason)
  })

  it.each([
    ['max-stale', STALE, true],
    ['no-store', STALE, false],
    ['max-stale', { ...STALE, staleIfErrorUntilMs: NOW_MS }, false],
    ['max-stale', { ...STALE, staleIfErrorUntilMs: NOW_MS, staleWhileRevalidateUntilMs: NOW_MS + 1 }, true],
  ])('by %s is taken stale, as far as it may answer stale to anybody: %#', (control, stored, taken) => {
    expect(acceptsStale(wished(control), stored, NOW_MS)).toBe(taken)
  })
})

const at = ({ asked }: Bench, i: number): Asked => asked[i] as Asked
const HONOR = { clientControl: 'honor' }
const TAGGED = ['Cache-Control', 'max-age=60', 'ETag', '"a"']

/** A bench with one response stored, ten seconds old. */
async function stored(route: Record<string, unknown> = HONOR, headers = TAGGED): Promise<Bench> {
  const bench = createBench(route)
  const first = bench.ask()
  await settle()
  at(bench, 0).reply(headers, 'stored')
  expect(await first.outcome()).toBe('200 stored')
  bench.nowMs += 10_000
  return bench
}

const asking = (bench: Bench, control: string, method = 'GET') =>
  bench.ask({ method, headers: ['Cache-Control', control] })

describe('a route that honours its clients', () => {
  it.each(['no-cache', 'max-age=9', 'min-fresh=51'])('validates for %s what is fresh', async (control) => {
    const bench = await stored()
    const client = asking(bench, control)
    await settle()
    expect(at(bench, 1).headers).toEqual(['Cache-Control', control, 'If-None-Match', '"a"'])
    at(bench, 1).reply(['ETag', '"a"', 'Cache-Control', 'max-age=60'], null, 304)
    expect(await client.outcome()).toBe('200 stored')
    expect(await client.field('X-Cache')).toBe('REVALIDATED')
    expect(await client.field('Cache-Status')).toMatch(/^weirgate; fwd=request; fwd-status=304; stored; detail=client-/)
    expect(await bench.ask().field('Age')).toBe('0')
  })

  it('gives what is new in its place to all who come later', async () => {
    const bench = await stored()
    const client = asking(bench, 'no-cache')
    await settle()
    at(bench, 1).reply(TAGGED, 'new')
    expect([await client.outcome(), await client.field('X-Cache')]).toEqual(['200 new', 'MISS'])
    expect(await bench.ask().outcome()).toBe('200 new')
  })

  it.each(['no-cache', 'max-age=9'])('keeps from %s, when the origin fails, what it turned down', async (control) => {
    const bench = await stored()
    const client = asking(bench, control)
    await settle()
    at(bench, 1).reply([], 'broken', 502)
    expect(await client.outcome()).toBe('502 broken')
    expect(await bench.ask().outcome()).toBe('200 stored')
  })

  it('does not let no-cache wait for what was asked for before', async () => {
    const bench = createBench(HONOR)
    const first = bench.ask()
    await settle()
    const client = asking(bench, 'no-cache')
    await settle()
    expect(bench.asked).toHaveLength(2)
    at(bench, 0).reply(TAGGED, 'one')
    at(bench, 1).reply(TAGGED, 'two')
    expect([await first.outcome(), await client.outcome()]).toEqual(['200 one', '200 two'])
  })

  it.each(['GET', 'HEAD'])(
    '[RFC 9111 §5.2.1.5] stores nothing of a %s with no-store, and answers it from what is stored',
    async (method) => {
      const bench = createBench(HONOR)
      const client = asking(bench, 'no-store', method)
      await settle()
      at(bench, 0).reply(TAGGED, 'secret')
      await client.outcome()
      expect([await client.field('X-Cache'), bench.shared.store.entries]).toEqual(['BYPASS', 0])
      const other = await stored()
      expect(await asking(other, 'no-store', method).field('X-Cache')).toBe('HIT')
    },
  )

  it('[RFC 9111 §5.2.1.5] refreshes nothing by a request with no-store', async () => {
    const bench = await stored({ ...HONOR, stale: { whileRevalidate: '1h' } })
    bench.nowMs += 60_000
    expect(await asking(bench, 'no-store').outcome()).toBe('200 stored')
    expect(bench.asked).toHaveLength(1)
    expect(await bench.ask().outcome()).toBe('200 stored')
    expect(bench.asked).toHaveLength(2)
  })

  it('[RFC 9111 §5.2.1.5] stores nothing of a POST with no-store', async () => {
    const bench = createBench(HONOR)
    const client = asking(bench, 'no-store', 'POST')
    await settle()
    at(bench, 0).reply([...TAGGED, 'Content-Location', '/'])
    await client.outcome()
    expect(bench.shared.store.entries).toBe(0)
  })

  it.each(['GET', 'HEAD'])(
    '[RFC 9111 §5.2.1.7] answers only-if-cached with %s from the store, or 504',
    async (method) => {
      const bench = await stored()
      expect(await asking(bench, 'only-if-cached', method).field('X-Cache')).toBe('HIT')
      await expect(asking(bench, 'only-if-cached, no-cache', method).reply).rejects.toThrow('not_cached')
      bench.nowMs += 60_000
      await expect(asking(bench, 'only-if-cached', method).reply).rejects.toThrow('not_cached')
      expect(await asking(bench, 'only-if-cached, max-stale', method).field('X-Cache')).toBe('STALE')
      expect(bench.asked).toHaveLength(1)
    },
  )

  it('[RFC 9111 §5.2.1.7] does not let only-if-cached wait for what is being fetched', async () => {
    const bench = createBench(HONOR)
    bench.ask().reply.catch(() => {})
    await settle()
    const client = asking(bench, 'only-if-cached')
    await expect(client.reply).rejects.toThrow('not_cached')
    expect(client.ctx.ownFields).toEqual(['X-Cache', 'MISS', 'Cache-Status', 'weirgate; detail=absent'])
  })

  it.each([['must-revalidate'], ['proxy-revalidate'], ['s-maxage=60'], ['no-cache']])(
    '[RFC 9111 §5.2.1.2] asks the origin for max-stale where that says %s',
    async (directive) => {
      const bench = await stored(HONOR, ['Cache-Control', `max-age=60, ${directive}`, 'ETag', '"a"'])
      bench.nowMs += 60_000
      const client = asking(bench, 'max-stale')
      await settle()
      expect(bench.asked).toHaveLength(2)
      at(bench, 1).reply([], 'new')
      expect(await client.outcome()).toBe('200 new')
    },
  )

  it('[RFC 9111 §5.2.1.2] answers max-stale with what is stale, and says so', async () => {
    const bench = await stored()
    bench.nowMs += 60_000
    const client = asking(bench, 'max-stale=10')
    expect(await client.outcome()).toBe('200 stored')
    expect([await client.field('X-Cache'), await client.field('Cache-Status')]).toEqual([
      'STALE',
      'weirgate; hit; ttl=-10; detail=client-max-stale',
    ])
    const strict = asking(bench, 'max-stale=9')
    await settle()
    expect(bench.asked).toHaveLength(2)
    at(bench, 1).reply([], 'new')
    expect(await strict.outcome()).toBe('200 new')
  })
})

describe('a route that does not', () => {
  it.each(['no-cache', 'no-store', 'max-age=0', 'min-fresh=1000', 'only-if-cached'])(
    'answers %s as it would without',
    async (control) => {
      const bench = await stored({})
      const client = asking(bench, control)
      expect([await client.outcome(), await client.field('X-Cache')]).toEqual(['200 stored', 'HIT'])
    },
  )
})
