// The Redis tier before a real Redis, and whatever may lie in it.

import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { createRedisTier } from '../../src/cache/stores/redis.ts'
import type { CacheTier } from '../../src/cache/tier.ts'
import { closeAfterEach } from '../support/closing.ts'
import { linksFor } from '../support/redis-link.ts'
import { type RedisServer, describeWithRedis, startRedis, startRedisCluster } from '../support/redis.ts'
import { describeTier, lasting, readFor, writeAll } from './tier-contract.ts'

const EPOCH = 'epoch'
const KEY = 'http://gateway.test/'

describeWithRedis('with Redis', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())
  beforeEach(() => redis.flush())
  const opened = closeAfterEach()
  const { linkUp } = linksFor(opened)
  const open = async (now = Date.now): Promise<CacheTier> =>
    opened(createRedisTier(await linkUp(redis.url), 'test', now))

  describeTier('the Redis tier', () => ({ open }))

  const keys = async (): Promise<string[]> => (await redis.ask('KEYS', '*')).split('\n').filter((key) => key !== '')
  const variant = (value: string, body = value) => lasting({ body, vary: ['a'], request: ['a', value] })
  /** Commands that reached Redis while `run` ran, of this kind. */
  const calls = async (command: string, run: () => Promise<unknown>): Promise<number> => {
    const count = async () =>
      Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(await redis.ask('INFO', 'commandstats'))?.[1] ?? 0)
    const before = await count()
    await run()
    return (await count()) - before
  }

  it('takes one round trip for what does not vary and for the first variant, two for others', async () => {
    const tier = await open()
    await writeAll(tier, lasting({ key: `${KEY}plain` }), variant('1'))
    await writeAll(tier, variant('2'))
    expect(await calls('getrange', () => readFor(tier, [], `${KEY}plain`))).toBe(1)
    expect(await calls('getrange', () => readFor(tier, ['a', '1']))).toBe(1)
    expect(await calls('getrange', () => readFor(tier, ['a', '2']))).toBe(2)
    expect(await keys()).toHaveLength(3)
  })

  it('tells nothing of URLs and users in keys, and lets every key end', async () => {
    const tier = await open()
    await writeAll(tier, lasting({ key: 'http://gateway.test/secret?token=1', claims: 'user: secret' }), variant('x'))
    await writeAll(tier, variant('secret'))
    await writeAll(tier, { ...lasting({ key: `${KEY}long` }), staleIfErrorUntilMs: Date.now() + 90 * 86_400_000 })
    const all = await keys()
    expect(all).toHaveLength(4)
    for (const key of all) {
      expect(key).toMatch(/^test:c1:\{[\w-]{43}\}(?::[\w-]{22})?$/)
      const ttlMs = Number(await redis.ask('PTTL', key))
      expect(ttlMs).toBeGreaterThan(0)
      expect(ttlMs).toBeLessThanOrEqual(7 * 86_400_000)
    }
  })

  it('keeps an entry for as long as it may be of use, stale or not, and a primary as long as its variants', async () => {
    const tier = await open()
    const nowMs = Date.now()
    await writeAll(tier, { ...variant('1'), freshUntilMs: nowMs - 1, staleIfErrorUntilMs: nowMs + 7_200_000 })
    const [primary = ''] = await keys()
    expect(Number(await redis.ask('PTTL', primary))).toBeGreaterThan(3_600_000)
    await writeAll(tier, { ...variant('2'), freshUntilMs: nowMs + 36_000_000 })
    expect(Number(await redis.ask('PTTL', primary))).toBeGreaterThan(7_200_000)

    const over = lasting({ key: `${KEY}over` })
    const pastMs = nowMs - 1
    tier.write({ ...over, freshUntilMs: pastMs, staleIfErrorUntilMs: pastMs, staleWhileRevalidateUntilMs: pastMs })
    await writeAll(tier, lasting({ key: `${KEY}last` }))
    expect(await keys()).toHaveLength(3)
    expect(tier.counts.dropped).toBe(0)
  })

  it('keeps a key and its variants together on a Redis Cluster', async () => {
    const cluster = opened(await startRedisCluster())
    const link = await linkUp(cluster.url)
    const tier = opened(createRedisTier(link, 'test', Date.now))
    for (let i = 0; i < 20; i++) {
      const key = `${KEY}${i}`
      for (const a of ['1', '2']) {
        await writeAll(tier, lasting({ key, body: `${i} ${a}`, vary: ['a'], request: ['a', a] }))
      }
      for (const a of ['1', '2']) expect(await readFor(tier, ['a', a], key)).toEqual([`${i} ${a}`])
    }
  })

  it('compresses what that makes smaller', async () => {
    const tier = await open()
    const text = lasting({ body: 'one of many, '.repeat(10_000) })
    await writeAll(tier, text)
    const [key = ''] = await keys()
    expect(Number(await redis.ask('STRLEN', key))).toBeLessThan(10_000)
    const noise = lasting({ body: randomBytes(100_000) })
    await writeAll(tier, noise)
    const length = Number(await redis.ask('STRLEN', key))
    expect(length).toBeGreaterThan(100_000)
    expect(length).toBeLessThan(101_000)
  })

  /** Writes an entry, lets `spoil` do something to its value, and reads. */
  async function readSpoilt(spoil: (key: string) => Promise<unknown>): Promise<{ tier: CacheTier; got: string[] }> {
    const tier = await open()
    await writeAll(tier, lasting({ body: 'one of many, '.repeat(100) }))
    const [key = ''] = await keys()
    await spoil(key)
    return { tier, got: await readFor(tier) }
  }
  const set = (key: string, value: string) => redis.ask('SET', key, value)

  it.each([
    ['nonsense', (key: string) => set(key, 'nonsense')],
    ['an older form', (key: string) => redis.ask('SETRANGE', key, '0', 'WGR0')],
    ['a form that does not exist', (key: string) => redis.ask('SETRANGE', key, '4', '\u0007')],
    ['other names', (key: string) => redis.ask('SETRANGE', key, '35', '[1')],
    ['another selector', (key: string) => redis.ask('SETRANGE', key, '17', 'abc')],
    ['a changed byte', (key: string) => redis.ask('SETRANGE', key, '120', '!')],
    ['a length that is not true', (key: string) => redis.ask('SETRANGE', key, '6', '!')],
    ['a shorter length', (key: string) => redis.ask('SETRANGE', key, '7', '\u0001')],
    ['a list', async (key: string) => [await redis.ask('DEL', key), await redis.ask('RPUSH', key, 'a')]],
    ['64 MiB', (key: string) => redis.ask('SETRANGE', key, String(64 * 1024 ** 2), 'end')],
  ])('takes %s in place of a value for nothing, and removes it', async (_what, spoil) => {
    const { tier, got } = await readSpoilt(spoil)
    expect(got).toEqual([])
    expect(tier.counts).toMatchObject({ hits: 0, misses: 0, bad: 1, failed: 0 })
    // The removal went out before this, on the same connection.
    expect(await readFor(tier)).toEqual([])
    expect(tier.counts).toMatchObject({ misses: 1, bad: 1 })
    await writeAll(tier, lasting({ body: 'again' }))
    expect(await readFor(tier)).toEqual(['again'])
  })

  it('lets Redis send no more than a value may have', async () => {
    const sent = async () => Number(/total_net_output_bytes:(\d+)/.exec(await redis.ask('INFO', 'stats'))?.[1])
    let before = 0
    const { got } = await readSpoilt(async (key) => {
      await redis.ask('SETRANGE', key, String(64 * 1024 ** 2), 'end')
      before = await sent()
    })
    expect(got).toEqual([])
    expect((await sent()) - before).toBeLessThan(1024 ** 2)
  })

  it('takes a value cut off anywhere, or with more at its end, for nothing', async () => {
    const tier = await open()
    await writeAll(tier, lasting({ body: 'short' }))
    const [key = ''] = await keys()
    const length = Number(await redis.ask('STRLEN', key))
    for (let end = 0; end < length - 1; end += 7) {
      await redis.ask(
        'EVAL',
        `redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], 0, ARGV[1]))`,
        '1',
        key,
        `${end}`,
      )
      expect(await readFor(tier)).toEqual([])
      await writeAll(tier, lasting({ body: 'short' }))
    }
    await redis.ask('APPEND', key, 'x')
    expect(await readFor(tier)).toEqual([])
  })

  it('never gives what was put under the key of something else', async () => {
    const tier = await open()
    await writeAll(tier, lasting({ body: 'mine' }))
    const [mine = ''] = await keys()
    await writeAll(tier, lasting({ key: `${KEY}other`, body: 'other' }))
    const other = (await keys()).find((key) => key !== mine) ?? ''
    await redis.ask('COPY', mine, other, 'REPLACE')
    expect(await readFor(tier, [], `${KEY}other`)).toEqual([])
    expect(tier.counts.bad).toBe(1)
    expect(await readFor(tier)).toEqual(['mine'])
  })

  it('never gives a variant for another', async () => {
    const tier = await open()
    for (const value of ['1', '2', '3']) await writeAll(tier, variant(value))
    const all = await keys()
    const beside = all.filter((key) => key.includes('}:'))
    await redis.ask('COPY', beside[0] ?? '', beside[1] ?? '', 'REPLACE')
    const got = [await readFor(tier, ['a', '2']), await readFor(tier, ['a', '3'])].flat()
    expect(got.filter((body) => body !== '1')).toHaveLength(1)
    expect(tier.counts.bad).toBe(1)
  })

  it('unpacks nothing beyond its bound', async () => {
    const tier = await open()
    await writeAll(tier, lasting({ body: 'x'.repeat(3_000_000) }))
    const [key = ''] = await keys()
    expect(Number(await redis.ask('STRLEN', key))).toBeLessThan(10_000)
    // Says that it is short, and is not.
    await redis.ask('EVAL', `redis.call('SETRANGE', KEYS[1], 5, string.char(0, 0, 1, 0))`, '1', key)
    expect(await readFor(tier)).toEqual([])
    expect(tier.counts.bad).toBe(1)
  })

  it('drops what is too large, and what is beyond the bytes that may wait', async () => {
    const tier = await open()
    tier.write(lasting({ body: Buffer.alloc(5 * 1024 ** 2) }))
    expect(tier.counts.dropped).toBe(1)
    const bytes = 1024 ** 2
    for (let i = 0; i < 20; i++) tier.write(lasting({ key: `${KEY}${i}`, body: Buffer.alloc(bytes) }))
    expect(tier.counts.dropped).toBe(6)
    // What waits is written all the same, and then there is room again.
    await tier.close()
    expect([tier.counts.written, tier.counts.dropped]).toEqual([15, 6])
    const noise = await open()
    noise.write(lasting({ body: randomBytes(bytes) }))
    await noise.close()
    expect([noise.counts.written, noise.counts.dropped]).toEqual([0, 1])
  })

  it('writes the last of what is stored under one key while it waits', async () => {
    const tier = await open()
    for (let i = 0; i < 100; i++) tier.write(lasting({ body: `${i} ${'x'.repeat(500_000)}` }))
    await tier.close()
    expect([tier.counts.written, tier.counts.dropped]).toEqual([1, 0])
    const got = await readFor(await open())
    expect(got.map((body) => body.slice(0, 3))).toEqual(['99 '])
  })

  it('waits for nothing while Redis is known to be gone, and removes later what was to be removed meanwhile', async () => {
    const own = await startRedis()
    opened({ close: () => own.close() })
    const link = await linkUp(own.url, { deadlineMs: 250 })
    const tier = opened(createRedisTier(link, 'test', Date.now))
    await writeAll(tier, lasting())
    own.pause()
    // The commands that find it out.
    while (link.isUp) await readFor(tier)
    const { failed } = tier.counts
    let turns = 0
    const turn = setImmediate(() => turns++)
    expect(await readFor(tier)).toEqual([])
    expect(turns).toBe(0)
    clearImmediate(turn)
    tier.write(lasting())
    tier.delete(KEY, EPOCH)
    expect(tier.counts).toMatchObject({ failed: failed + 1, dropped: 1 })
    own.resume()
    expect(await link.whenUp(10_000)).toBe(true)
    expect(await readFor(tier)).toEqual([])
    await tier.close()
    expect(await own.ask('DBSIZE')).toBe('0')
  })

  it('drops writes to a full server, and reads what is there', async () => {
    const own = await startRedis(['--maxmemory-policy', 'noeviction'])
    opened({ close: () => own.close() })
    const link = await linkUp(own.url)
    const tier = opened(createRedisTier(link, 'test', Date.now))
    await writeAll(tier, lasting({ body: 'there' }))
    await own.ask('CONFIG', 'SET', 'maxmemory', '1')
    for (let i = 0; i < 10; i++) tier.write(lasting({ key: `${KEY}${i}` }))
    await tier.close()
    expect(tier.counts).toMatchObject({ written: 1, dropped: 10 })
    const again = opened(createRedisTier(link, 'test', Date.now))
    expect(await link.whenUp(10_000)).toBe(true)
    expect(await readFor(again)).toEqual(['there'])
  })
})
