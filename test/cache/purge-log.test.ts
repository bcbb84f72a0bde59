// The purge log between instances of which a test hears and delays everything; Redis is real.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type PurgeLog, createPurgeLog } from '../../src/cache/purge-log.ts'
import { parseCount, parseRecord } from '../../src/cache/purge-wire.ts'
import { type SharedCache, createSharedCache } from '../../src/cache/shared.ts'
import { createMemoryStore } from '../../src/cache/stores/memory.ts'
import { type Cipher, createCipher } from '../../src/core/cipher.ts'
import { createRedisSubscriber } from '../../src/core/redis-subscriber.ts'
import { closeAfterEach } from '../support/closing.ts'
import { entryOf } from '../support/entry.ts'
import { linksFor, listen } from '../support/redis-link.ts'
import { type RedisServer, describeWithRedis, startRedis, until } from '../support/redis.ts'
import { createHandTier } from '../support/tier.ts'

const KEY = 'http://a.test/x'
const opened = closeAfterEach()
const { linkUp } = linksFor(opened)

describeWithRedis('the purge log', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())
  beforeEach(() => redis.flush())

  interface Member {
    readonly log: PurgeLog
    readonly shared: SharedCache
    /** What it reads from Redis where this lies there. */
    readonly read: (purgeSeq: number) => Promise<number>
  }

  /** isDeaf: nothing that is published reaches it. */
  async function member(instance: string, isDeaf = false, cipher: Cipher | null = null): Promise<Member> {
    const tier = createHandTier('redis')
    const shared = createSharedCache(createMemoryStore(1024 ** 2), Date.now, [tier])
    const log = createPurgeLog({
      shared,
      link: await linkUp(redis.url),
      subscribe: (channels, onMessage) =>
        createRedisSubscriber(
          { url: redis.url, name: 'test', deadlineMs: 2000, channels: isDeaf ? ['nothing'] : channels },
          onMessage,
          listen().log,
        ),
      namespace: 'test',
      cipher,
      deadlineMs: 2000,
      instance,
      log: listen().log,
    })
    opened(log)
    expect(await log.whenFollowing(10_000)).toBe(true)
    return {
      log,
      shared,
      async read(purgeSeq) {
        const reading = shared.tiers.read(KEY, KEY, 'epoch', { headers: [], claims: '' })
        const stored = { ...entryOf({ key: KEY, tags: ['t'], purgeSeq }), freshUntilMs: Date.now() + 60_000 }
        tier.reads.at(-1)?.answer(stored)
        await reading?.done
        const found = shared.store.get(KEY)?.length ?? 0
        shared.store.delete(KEY)
        return found
      },
    }
  }

  it('keeps from a member that has heard nothing what was purged before it reads', async () => {
    const [one, deaf] = [await member('one'), await member('deaf', true)]
    const before = deaf.shared.purgeSeq
    expect(await deaf.read(before)).toBe(1)
    for (let i = 0; i < 500; i++) void one.log.publish({ tags: [`other-${i}`] }, false)
    await one.log.publish({ tags: ['t'] }, false)
    expect(await deaf.read(before)).toBe(0)
    expect(deaf.shared.purgeSeq).toBe(one.shared.purgeSeq)
    expect(await deaf.read(deaf.shared.purgeSeq)).toBe(1)
    expect(one.log.status).toMatchObject({ own: 501, others: 0, gaps: 0, owed: 0 })
    expect(deaf.log.status).toMatchObject({ own: 0, others: 501, gaps: 0, owed: 0 })
    expect(deaf.log.status.ageMs).toBeGreaterThanOrEqual(0)
  })

  it('does not let in what was fetched before it knew the log, nor what is from a log that is gone', async () => {
    const one = await member('one')
    expect(await one.read(0)).toBe(0)
    const known = one.shared.purgeSeq
    expect(await one.read(known)).toBe(1)
    await redis.flush()
    expect(await one.read(known)).toBe(0)
    expect(one.shared.purgeSeq).toBeGreaterThan(known)
    expect(one.log.status.gaps).toBe(1)
  })

  it('counts what each member took, and names who does not answer', async () => {
    const [one, two] = [await member('one'), await member('two')]
    await redis.ask('ZADD', '{test}:instances', String(Date.now() * 1000), 'ghost')
    for (const { shared } of [one, two]) shared.store.put(entryOf({ key: KEY, tags: ['t'] }))
    const { here, isShared, others } = await one.log.publish({ tags: ['t'] }, true)
    expect([here, isShared]).toEqual([1, true])
    expect(await others).toEqual({ counts: [{ id: 1, instance: 'two', purged: 1 }], missing: ['ghost'] })
  })

  it('does not wait for members that have left', async () => {
    const [one, two] = [await member('one'), await member('two')]
    await two.log.close()
    const { others } = await one.log.publish({ all: true }, true)
    expect(await others).toEqual({ counts: [], missing: [] })
  })

  it('is sealed where instances have a cipher: who has another key drops all, in doubt', async () => {
    const [ours, theirs] = [createCipher(['a secret of ours']), createCipher(['a secret of theirs'])]
    const [one, two, three] = [
      await member('one', false, ours),
      await member('two', false, ours),
      await member('three', false, theirs),
    ] as const
    for (const { shared } of [one, two, three]) {
      shared.store.put(entryOf({ key: KEY, tags: ['known-tag'] }))
      shared.store.put(entryOf({ key: `${KEY}other` }))
    }
    await (
      await one.log.publish({ tags: ['known-tag'] }, true)
    ).others
    await until(() => three.shared.store.entries === 0, 'the third to hear of it')
    expect([one.shared.store.entries, two.shared.store.entries]).toEqual([1, 1])
    expect(await redis.ask('XRANGE', '{test}:purges:log', '-', '+')).not.toContain('known')
    // Who begins later reads it as the others have heard it.
    const late = await member('late', false, ours)
    expect(late.shared.purgeSeq).toBe(one.shared.purgeSeq)
  })

  it('is bounded in Redis', async () => {
    const one = await member('one')
    const urls = Array.from({ length: 1200 }, (_, i) => `/${i}/${'x'.repeat(8000)}`)
    for (const part of [urls.slice(0, 600), urls.slice(600)]) await one.log.publish({ urls: part }, false)
    const bytes = Number(await redis.ask('HGET', '{test}:purges', 'bytes'))
    expect(bytes).toBeGreaterThan(7 * 1024 ** 2)
    expect(bytes).toBeLessThanOrEqual(8 * 1024 ** 2)
    expect(Number(await redis.ask('XLEN', '{test}:purges:log'))).toBeLessThan(1200)
    expect(await redis.ask('HGET', '{test}:purges', 'seq')).toBe(String(one.shared.purgeSeq))
  })
})

describe('a record', () => {
  it.each([
    ['{"by":"a","id":1,"isCounted":true,"rule":{"tags":["t"],"soft":true}}', { tags: ['t'], soft: true }],
    ['{"by":"a","id":1,"isCounted":true,"rule":{"hosts":["t"]}}', { all: true }],
    ['{"by":"a","id":1,"isCounted":true,"rule":{"urls":"/"}}', { all: true }],
    ['{"by":"a","id":1,"isCounted":true,"rule":null}', { all: true }],
    ['{"half', null],
    ['{half}', { all: true }],
    ['=c2VhbGVk', { all: true }],
  ])('of %s means %j: what is not understood is everything', (body, rule) => {
    expect(parseRecord(`12 11 ${body}`)?.rule ?? null).toEqual(rule)
  })

  it.each(['', '12 {}', 'x 1 {}', '1 2', '-1 2 {}'])('is not %j', (text) => {
    expect(parseRecord(text)).toBeNull()
  })

  it('is counted in one line', () => {
    expect(parseCount('3 host-1 17')).toEqual({ id: 3, instance: 'host-1', purged: 17 })
    for (const text of ['', '3 host', '3 host 1 2', 'x host 1', '3 host -1']) expect(parseCount(text)).toBeNull()
  })
})
