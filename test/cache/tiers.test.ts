// A route's cache with a tier behind its memory. The tier is answered by hand, so that everything can happen meanwhile.

import { describe, expect, it } from 'vitest'
import { type StoredResponse, selectorOf } from '../../src/cache/entry.ts'
import { purge } from '../../src/cache/purge.ts'
import type { PurgeCheck } from '../../src/cache/tiers.ts'
import { type Bench, type RequestParts, START_MS, createBench, settle } from '../support/cache.ts'
import { entryOf } from '../support/entry.ts'
import { type HandRead, type HandTier, createHandTier } from '../support/tier.ts'

const KEY = 'http://gateway.test/'
const FRESH = ['Cache-Control', 'max-age=60']

function benchWithTier(route: Record<string, unknown> = {}): { bench: Bench; tier: HandTier } {
  const tier = createHandTier()
  return { bench: createBench(route, { tiers: [tier] }), tier }
}

/** What a tier has: fresh for a minute at the start. */
function heldEntry(
  read: HandRead | undefined,
  parts: Partial<StoredResponse> & { text?: string } = {},
): StoredResponse {
  const { text = 'held', ...rest } = parts
  return {
    ...entryOf({ body: text }),
    key: read?.key ?? KEY,
    epoch: read?.epoch ?? '',
    bornAtMs: START_MS,
    freshUntilMs: START_MS + 60_000,
    staleWhileRevalidateUntilMs: START_MS + 60_000,
    staleIfErrorUntilMs: START_MS + 60_000,
    ...rest,
  }
}

/** Asks, and lets the read or the fetch begin. */
async function ask(bench: Bench, parts?: RequestParts) {
  const asking = bench.ask(parts)
  await settle()
  return asking
}

describe('a lookup without tiers', () => {
  it('waits for nothing, whether it hits or misses', async () => {
    const bench = createBench()
    const missing = await ask(bench, { path: '/missing' })
    bench.asked[0]?.reply(['Cache-Control', 'no-store'])
    await missing.outcome()
    expect(bench.cache.lookup(missing.ctx)).toBeNull()
    const stored = await ask(bench)
    bench.asked[1]?.reply(FRESH)
    await stored.outcome()
    expect(bench.cache.lookup(stored.ctx)).toMatchObject({ status: 200 })
  })
})

describe('a lookup with a tier', () => {
  it('is a hit where the tier has something fresh, and then memory has it', async () => {
    const { bench, tier } = benchWithTier()
    const client = await ask(bench)
    expect(tier.reads.map(({ key }) => key)).toEqual([KEY])
    tier.reads[0]?.answer(heldEntry(tier.reads[0]))
    expect(await client.outcome()).toBe('200 held')
    expect(await client.field('X-Cache')).toBe('HIT')
    expect(await client.field('Cache-Status')).toBe('weirgate; hit; ttl=60; detail=redis')
    const next = await ask(bench)
    expect(await next.field('Cache-Status')).toBe('weirgate; hit; ttl=60')
    expect(bench.cache.lookup(bench.ask().ctx)).not.toBeInstanceOf(Promise)
    expect([tier.reads.length, tier.writes.length, bench.asked.length]).toEqual([1, 0, 0])
  })

  it('goes on as without where the tier has nothing', async () => {
    const { bench, tier } = benchWithTier()
    const clients = [await ask(bench), await ask(bench)]
    tier.reads[0]?.answer()
    await settle()
    expect([tier.reads.length, bench.asked.length]).toEqual([1, 1])
    bench.asked[0]?.reply(FRESH)
    expect(await Promise.all(clients.map((client) => client.field('X-Cache')))).toEqual(['MISS', 'COLLAPSED'])
    expect(tier.writes.map(({ body }) => body.toString())).toEqual(['body'])
  })

  it('joins a fetch that is under way without reading', async () => {
    const { bench, tier } = benchWithTier()
    await ask(bench)
    tier.reads[0]?.answer()
    await settle()
    const late = await ask(bench)
    bench.asked[0]?.reply(FRESH)
    expect(await late.field('X-Cache')).toBe('COLLAPSED')
    expect(tier.reads).toHaveLength(1)
  })

  it('[RFC 9111 §4.1] reads once for all who wait, and once more for who needs another variant', async () => {
    const { bench, tier } = benchWithTier()
    const variant = (language: string) => {
      const request = ['Accept-Language', language]
      return heldEntry(tier.reads[0], { text: language, ...selectorOf(request, '', ['accept-language']) })
    }
    const english = [await ask(bench, { headers: ['Accept-Language', 'en'] })]
    const german = []
    for (let i = 0; i < 3; i++) {
      english.push(await ask(bench, { headers: ['Accept-Language', 'en'] }))
      german.push(await ask(bench, { headers: ['Accept-Language', 'de'] }))
    }
    tier.reads[0]?.answer(variant('en'))
    expect(await Promise.all(english.map((client) => client.outcome()))).toEqual(Array(4).fill('200 en'))
    expect(tier.reads).toHaveLength(2)
    tier.reads[1]?.answer(variant('de'))
    expect(await Promise.all(german.map((client) => client.outcome()))).toEqual(Array(3).fill('200 de'))
    expect([tier.reads.length, bench.asked.length]).toEqual([2, 0])
  })

  it('does not use what belongs to another epoch or was selected by other fields', async () => {
    const { bench, tier } = benchWithTier()
    await ask(bench)
    const [read] = tier.reads
    read?.answer(heldEntry(read, { epoch: 'other' }), heldEntry(read, selectorOf(['A', '1'], '', ['a'])))
    await settle()
    expect([tier.reads.length, bench.asked.length]).toEqual([1, 1])
  })

  it('does not read where the reason lies in the request, or the answer is known not to be for sharing', async () => {
    const { bench, tier } = benchWithTier({ ttl: '1m' })
    const first = await ask(bench, { headers: ['Authorization', 'mine'] })
    tier.reads[0]?.answer(heldEntry(tier.reads[0]))
    await settle()
    await ask(bench, { headers: ['Authorization', 'mine'] })
    expect([tier.reads.length, bench.asked.length]).toEqual([1, 2])
    bench.asked[0]?.reply([])
    expect(await first.field('X-Cache')).toBe('BYPASS')

    const uncacheable = await ask(bench, { path: '/private' })
    tier.reads[1]?.answer()
    await settle()
    bench.asked[2]?.reply(['Cache-Control', 'private'])
    await uncacheable.outcome()
    await ask(bench, { path: '/private' })
    expect([tier.reads.length, bench.asked.length]).toEqual([2, 4])
  })

  it('does not read for a client that wants the upstream asked', async () => {
    const { bench, tier } = benchWithTier({ clientControl: 'honor' })
    const first = await ask(bench)
    tier.reads[0]?.answer(heldEntry(tier.reads[0]))
    await first.outcome()
    await ask(bench, { headers: ['Cache-Control', 'no-cache'] })
    expect([tier.reads.length, bench.asked.length]).toEqual([1, 1])
  })

  it('has a bounded number of reads under way; who comes beyond that does without', async () => {
    const { bench, tier } = benchWithTier()
    for (let i = 0; i < 200; i++) bench.ask({ path: `/${i}` })
    await settle()
    expect([tier.reads.length, bench.asked.length]).toEqual([128, 72])
    tier.reads[0]?.answer()
    await settle()
    await ask(bench, { path: '/next' })
    expect([tier.reads.length, bench.asked.length]).toEqual([129, 73])
  })

  it('gives up on nothing when its client goes meanwhile', async () => {
    const { bench, tier } = benchWithTier()
    const gone = await ask(bench)
    const stays = await ask(bench)
    gone.abort()
    tier.reads[0]?.answer()
    await expect(gone.reply).rejects.toThrow('client_gone')
    bench.asked[0]?.reply(FRESH)
    expect(await stays.outcome()).toBe('200 body')
  })
})

describe('a read from a tier', () => {
  it.each([
    ['of its key', (bench: Bench) => purge(bench.shared, { urls: [KEY] })],
    ['of keys like it', (bench: Bench) => purge(bench.shared, { prefix: '//gateway.test/' })],
    ['of any tag', (bench: Bench) => purge(bench.shared, { tags: ['some'] })],
  ])('brings nothing into memory after a purge %s', async (_what, carryOut) => {
    const { bench, tier } = benchWithTier()
    const before = await ask(bench)
    await carryOut(bench)
    const after = await ask(bench)
    // Who comes after the purge reads anew.
    expect(tier.reads).toHaveLength(2)
    tier.reads[0]?.answer(heldEntry(tier.reads[0]))
    await settle()
    expect([bench.asked.length, bench.shared.store.entries]).toEqual([1, 0])
    tier.reads[1]?.answer(heldEntry(tier.reads[1], { text: 'new' }))
    expect(await after.outcome()).toBe('200 new')
    bench.asked[0]?.reply(FRESH)
    expect(await before.outcome()).toBe('200 body')
  })

  it('is not spoiled by a purge of other keys', async () => {
    const { bench, tier } = benchWithTier()
    const client = await ask(bench)
    await purge(bench.shared, { urls: [`${KEY}other`] })
    tier.reads[0]?.answer(heldEntry(tier.reads[0]))
    expect(await client.outcome()).toBe('200 held')
  })

  it('does not replace what came into memory meanwhile and is younger', async () => {
    const { bench, tier } = benchWithTier()
    const client = await ask(bench)
    bench.shared.store.put(heldEntry(tier.reads[0], { text: 'younger', bornAtMs: START_MS + 1000 }))
    tier.reads[0]?.answer(heldEntry(tier.reads[0]))
    expect(await client.outcome()).toBe('200 younger')
  })
})

describe('what purges of others have to say', () => {
  const whenTold = (
    isUpToDate: boolean | Promise<boolean>,
    leaves: PurgeCheck['leaves'] = (entry) => entry,
    place: number | null = 10,
  ) => ({
    isUpToDate: async () => await isUpToDate,
    leaves,
    place: () => place,
  })

  it('is waited for, and what they have taken away is not used and is removed', async () => {
    const { bench, tier } = benchWithTier()
    const told = Promise.withResolvers<boolean>()
    bench.shared.tiers.heed(whenTold(told.promise, () => null))
    const client = await ask(bench)
    tier.reads[0]?.answer(heldEntry(tier.reads[0]))
    await settle()
    expect([bench.asked.length, tier.deletes]).toEqual([0, []])
    told.resolve(true)
    await settle()
    expect(tier.deletes).toEqual([KEY])
    bench.asked[0]?.reply(FRESH, 'new')
    expect(await client.outcome()).toBe('200 new')
  })

  it('counts as much as what they have made stale', async () => {
    const { bench, tier } = benchWithTier({ stale: { whileRevalidate: '1m' } })
    bench.shared.tiers.heed(
      whenTold(true, (entry) => ({ ...entry, freshUntilMs: START_MS, staleWhileRevalidateUntilMs: START_MS + 1000 })),
    )
    const client = await ask(bench)
    tier.reads[0]?.answer(heldEntry(tier.reads[0]))
    expect([await client.field('X-Cache'), await client.outcome()]).toEqual(['STALE', '200 held'])
  })

  it('where it cannot be had, nothing that others may have written is used', async () => {
    const { bench, tier } = benchWithTier()
    bench.shared.tiers.heed(whenTold(false))
    const client = await ask(bench)
    tier.reads[0]?.answer(heldEntry(tier.reads[0]))
    await settle()
    bench.asked[0]?.reply(FRESH, 'new')
    expect(await client.outcome()).toBe('200 new')
  })

  it('is not waited for where only this instance writes', async () => {
    const tier = createHandTier('disk')
    const bench = createBench({}, { tiers: [tier] })
    bench.shared.tiers.heed(whenTold(new Promise(() => {})))
    const client = await ask(bench)
    tier.reads[0]?.answer(heldEntry(tier.reads[0]))
    expect(await client.outcome()).toBe('200 held')
  })

  it.each([
    ['is not known yet', null, 0],
    ['has lost what the entry has seen', 10, 11],
  ])('keeps out what this instance wrote itself while the purge log %s', async (_what, place, purgeSeq) => {
    const tier = createHandTier('disk')
    const bench = createBench({}, { tiers: [tier] })
    bench.shared.tiers.heed(whenTold(true, undefined, place))
    const client = await ask(bench)
    tier.reads[0]?.answer(heldEntry(tier.reads[0], { purgeSeq }))
    await settle()
    bench.asked[0]?.reply(FRESH, 'new')
    expect(await client.outcome()).toBe('200 new')
  })
})

describe('a purge', () => {
  it('reaches what is behind memory before anything that is stored after it, and is done when that is', async () => {
    const { bench, tier } = benchWithTier()
    const told = Promise.withResolvers<number>()
    tier.answerPurges(told.promise)
    let taken: number | null = null
    void purge(bench.shared, { tags: ['a'] }).then((count) => (taken = count))
    expect(tier.purges).toEqual([{ tags: ['a'] }])
    await settle()
    expect(taken).toBeNull()
    told.resolve(3)
    await settle()
    expect(taken).toBe(3)
  })
})

describe('what is stale in memory', () => {
  /** A bench with one response stored that has been stale for ten seconds. */
  async function stale(route: Record<string, unknown> = {}) {
    const { bench, tier } = benchWithTier(route)
    const first = await ask(bench)
    tier.reads[0]?.answer()
    await settle()
    bench.asked[0]?.reply(['Cache-Control', 'max-age=60', 'ETag', '"a"'])
    await first.outcome()
    bench.nowMs += 70_000
    const younger = (): StoredResponse =>
      heldEntry(tier.reads[0], { text: 'younger', bornAtMs: bench.nowMs, freshUntilMs: bench.nowMs + 60_000 })
    return { bench, tier, younger }
  }

  it('is replaced by what the tier has, where that is fresh', async () => {
    const { bench, tier, younger } = await stale()
    const client = await ask(bench)
    tier.reads[1]?.answer(younger())
    expect(await client.outcome()).toBe('200 younger')
    expect(bench.asked).toHaveLength(1)
  })

  it('is validated where the tier has nothing better, and goes to the tier again', async () => {
    const { bench, tier } = await stale()
    const client = await ask(bench)
    tier.reads[1]?.answer({ ...(tier.writes[0] as StoredResponse) })
    await settle()
    expect(bench.asked[1]?.headers).toContain('If-None-Match')
    bench.asked[1]?.reply(['Cache-Control', 'max-age=60'], null, 304)
    expect(await client.field('X-Cache')).toBe('REVALIDATED')
    expect(tier.writes.map(({ freshUntilMs }) => freshUntilMs)).toEqual([START_MS + 60_000, bench.nowMs + 60_000])
  })

  it.each([
    ['gone', [], 404],
    ['not to be stored any more', ['Cache-Control', 'no-store'], 200],
    ['the same and not to be stored any more', ['Cache-Control', 'no-store'], 304],
  ] as const)('leaves the tier when the origin says that it is %s', async (_what, headers, status) => {
    const { bench, tier } = await stale()
    const client = await ask(bench)
    tier.reads[1]?.answer()
    await settle()
    bench.asked[1]?.reply(headers, null, status)
    await client.reply
    expect([tier.deletes, bench.shared.store.entries]).toEqual([[KEY], 0])
  })

  it('is not replaced by what the clock of another instance has put far ahead', async () => {
    const { bench, tier, younger } = await stale()
    const client = await ask(bench)
    const aheadMs = 365 * 86_400_000
    tier.reads[1]?.answer({ ...younger(), bornAtMs: bench.nowMs + aheadMs, freshUntilMs: bench.nowMs + 2 * aheadMs })
    await settle()
    bench.asked[1]?.reply(['Cache-Control', 'max-age=60'], null, 304)
    expect(await client.field('X-Cache')).toBe('REVALIDATED')
  })

  it('answers at once where it may, and the refresh in the background reads first', async () => {
    const { bench, tier, younger } = await stale({ stale: { whileRevalidate: '1m' } })
    const clients = [bench.ask(), bench.ask()]
    for (const client of clients) expect(await client.field('X-Cache')).toBe('STALE')
    expect(tier.reads).toHaveLength(2)
    tier.reads[1]?.answer(younger())
    await settle()
    expect(bench.asked).toHaveLength(1)
    expect(await bench.ask().outcome()).toBe('200 younger')
  })

  it('is refreshed once where the tier has nothing better, and not at all once it is purged', async () => {
    const { bench, tier } = await stale({ stale: { whileRevalidate: '1m' } })
    for (const client of [bench.ask(), bench.ask()]) await client.outcome()
    tier.reads[1]?.answer()
    await settle()
    expect(bench.asked).toHaveLength(2)
    bench.asked[1]?.reply(['Cache-Control', 'max-age=60'], null, 304)
    await settle()

    bench.nowMs += 70_000
    expect(await bench.ask().field('X-Cache')).toBe('STALE')
    await purge(bench.shared, { urls: [KEY] })
    tier.reads[2]?.answer()
    await settle()
    expect([bench.asked.length, bench.shared.store.entries]).toEqual([2, 0])
  })
})

describe('two tiers', () => {
  it('are read one after another, until one has something fresh', async () => {
    const [disk, redis] = [createHandTier('disk'), createHandTier('redis')]
    const bench = createBench({}, { tiers: [disk, redis] })
    const client = await ask(bench)
    expect([disk.reads.length, redis.reads.length]).toEqual([1, 0])
    disk.reads[0]?.answer(heldEntry(disk.reads[0], { text: 'old', freshUntilMs: START_MS - 1, bornAtMs: START_MS - 2 }))
    await settle()
    redis.reads[0]?.answer(heldEntry(redis.reads[0]))
    expect(await client.outcome()).toBe('200 held')
    expect(await client.field('Cache-Status')).toContain('detail=redis')
    expect([disk.writes.length, redis.writes.length]).toEqual([0, 0])

    const other = await ask(bench, { path: '/other' })
    disk.reads[1]?.answer(heldEntry(disk.reads[1]))
    expect(await other.field('Cache-Status')).toContain('detail=disk')
    expect(redis.reads).toHaveLength(1)
  })
})
