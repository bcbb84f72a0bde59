// Purges on several instances that share a Redis: what one is told, all do, whatever becomes of the connections.

import { afterEach, beforeEach, expect, it } from 'vitest'
import type { TestGateway } from '../support/gateway.ts'
import { ask, purgeBy, put, startInstances, stored, whenEmpty } from '../support/instances.ts'
import { type RedisServer, describeWithRedis, startRedis, startRelay, until } from '../support/redis.ts'

const TAGGED = ['{path: /:id, cache: {ttl: 1h, tags: ["id-:id"], stale: {whileRevalidate: 1m}}}']

describeWithRedis('a purge on one of several instances', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(() => redis.close())

  const warm = async (all: readonly TestGateway[], ...paths: readonly string[]) => {
    for (const gateway of all) for (const path of paths) await ask(gateway, path)
  }

  it.each([
    ['URLs', { urls: ['/a'] }],
    ['tags', { tags: ['id-a'] }],
    ['a prefix', { prefix: '/a' }],
    ['a pattern', { pattern: '*/a' }],
  ])('by %s reaches all of them, and is told with who did what', async (_what, rule) => {
    const { all, origin } = await startInstances(3, redis.url, { routes: TAGGED })
    await warm(all, '/a', '/b')
    const [first] = all as [TestGateway]
    const asked = origin.seen.length
    const answer = await purgeBy(first, rule)
    expect(answer).toMatchObject({ purged: 3, unacknowledged: [], shared: true })
    expect(answer.instances.map(({ purged }) => purged)).toEqual([1, 1, 1])
    expect(new Set(answer.instances.map(({ instance }) => instance)).size).toBe(3)
    expect(all.map(stored)).toEqual([1, 1, 1])
    // The others may have it from the first that asks anew.
    expect(await ask(first, '/a')).toBe(`MISS answer ${asked + 1}`)
    for (const gateway of all) expect(Number((await ask(gateway, '/a')).split(' ')[2])).toBeGreaterThan(asked)
  })

  it('that is soft is soft everywhere', async () => {
    const { all } = await startInstances(2, redis.url, { routes: TAGGED })
    await warm(all, '/a')
    const [first, second] = all as [TestGateway, TestGateway]
    expect(await purgeBy(first, { tags: ['id-a'], soft: true })).toMatchObject({ purged: 2 })
    for (const gateway of [second, first]) expect(await ask(gateway, '/a')).toMatch(/^STALE answer [12]$/)
  })

  it('of more than a record holds reaches all of them', async () => {
    const { all } = await startInstances(2, redis.url)
    const paths = Array.from({ length: 20 }, (_, i) => `/${i}/${'x'.repeat(2000)}`)
    await warm(all, ...paths)
    const [first] = all as [TestGateway]
    expect(await purgeBy(first, { urls: paths })).toMatchObject({ purged: 40, shared: true })
    expect(all.map(stored)).toEqual([0, 0])
  })

  it('by a write reaches all of them: its URL, and what its route purges', async () => {
    const { all } = await startInstances(2, redis.url, {
      routes: [
        '{path: /*, methods: [GET], cache: {ttl: 1h}}',
        '{path: /tagged, methods: [GET], cache: {ttl: 1h, tags: [t]}}',
        '{path: /*, methods: [PUT], purges: [t]}',
      ],
    })
    await warm(all, '/a', '/b', '/tagged')
    const [first, second] = all as [TestGateway, TestGateway]
    await put(first, '/a')
    expect(stored(first)).toBe(1)
    await until(() => stored(second) === 1, 'the other to follow')
    expect([await ask(second, '/b'), await ask(second, '/a')]).toEqual([
      expect.stringMatching(/^HIT/),
      expect.stringMatching(/^MISS/),
    ])
  })

  it('reaches an instance whose feed was cut meanwhile, as soon as it is back', async () => {
    const { all, add } = await startInstances(1, redis.url)
    const relay = await startRelay(redis.port)
    const cut = await add(relay.url)
    const [first] = all as [TestGateway, TestGateway]
    await warm(all, '/a', '/b')
    relay.stall()
    relay.cut('reset')
    const answer = await purgeBy(first, { urls: ['/a'] })
    expect(answer).toMatchObject({ purged: 1, shared: true })
    expect(answer.unacknowledged).toHaveLength(1)
    expect(stored(cut)).toBe(2)
    relay.release()
    relay.cut('end')
    await until(() => stored(cut) === 1, 'the purge to be made up for')
    expect(await ask(cut, '/b')).toMatch(/^HIT/)
    expect(await ask(cut, '/a')).toMatch(/^MISS/)
    await relay.close()
  })

  it('reaches those whose feeds Redis has closed', async () => {
    const { all } = await startInstances(2, redis.url)
    await warm(all, '/a', '/b')
    const [first, second] = all as [TestGateway, TestGateway]
    await redis.ask('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await purgeBy(first, { urls: ['/a'] })
    await until(() => stored(second) === 1, 'the other to follow')
    expect(stored(first)).toBe(1)
  })

  it('that the log does not tell any more makes who missed it drop all', async () => {
    const { all, add } = await startInstances(1, redis.url)
    const relay = await startRelay(redis.port)
    const cut = await add(relay.url)
    await warm(all, '/a', '/b')
    relay.stall()
    relay.cut('reset')
    const [first] = all as [TestGateway]
    await purgeBy(first, { urls: ['/a'] })
    await purgeBy(first, { urls: ['/x'] })
    await redis.ask('XTRIM', '{weirgate}:purges:log', 'MAXLEN', '1')
    relay.release()
    relay.cut('end')
    await whenEmpty(cut)
    expect(stored(first)).toBe(1)
    expect(cut.log.map(({ message }) => message)).toContain('Purges were missed, what may be out of date is dropped')
    await relay.close()
  })

  it('before Redis was wiped is not undone by that', async () => {
    const { all } = await startInstances(2, redis.url)
    await warm(all, '/a')
    const [first] = all as [TestGateway]
    await purgeBy(first, { urls: ['/b'] })
    await redis.flush()
    for (const gateway of all) await whenEmpty(gateway)
    await warm(all, '/a')
    expect(await purgeBy(first, { urls: ['/a'] })).toMatchObject({ purged: 2, unacknowledged: [] })
  })

  it('that Redis has lost makes all of them drop everything', async () => {
    const { all } = await startInstances(2, redis.url)
    const [first] = all as [TestGateway]
    await purgeBy(first, { urls: ['/x'] })
    const head = await redis.ask('HGET', '{weirgate}:purges', 'seq')
    await purgeBy(first, { urls: ['/y'] })
    await warm(all, '/a')
    // As a replica would have it that did not get the last record before it became the master.
    await redis.ask('XTRIM', '{weirgate}:purges:log', 'MAXLEN', '0')
    await redis.ask('HSET', '{weirgate}:purges', 'seq', head)
    for (const gateway of all) await whenEmpty(gateway)
    expect(await ask(first, '/a')).toMatch(/^MISS/)
  })

  it('by one that is cut off from Redis is done there, said not to be done elsewhere, and made up for later', async () => {
    const { all, add } = await startInstances(1, redis.url, { redis: 'deadline: 100ms' })
    const relay = await startRelay(redis.port)
    const cut = await add(relay.url)
    await warm(all, '/a', '/b', '/c')
    relay.stall()
    expect(await put(cut, '/b')).toBe(200)
    relay.cut('reset')
    expect(await purgeBy(cut, { urls: ['/a'] })).toMatchObject({ purged: 1, unacknowledged: [], shared: false })
    expect(all.map(stored)).toEqual([3, 1])
    relay.release()
    relay.cut('end')
    await until(() => stored(all[0] as TestGateway) === 1, 'the other to hear of it')
    expect(await ask(cut, '/c')).toMatch(/^HIT/)
    await relay.close()
  })

  it('is not undone by what was being fetched elsewhere', async () => {
    const owed: (() => void)[] = []
    const { all } = await startInstances(2, redis.url, {
      script: (_request, response, count) => void owed.push(() => response.end(`answer ${count}`)),
    })
    const [first, second] = all as [TestGateway, TestGateway]
    const before = ask(second, '/a')
    await until(() => owed.length === 1, 'the fetch')
    await purgeBy(first, { urls: ['/a'] })
    owed[0]?.()
    expect(await before).toBe('MISS answer 1')
    const after = ask(second, '/a')
    await until(() => owed.length === 2, 'a fetch of its own')
    owed[1]?.()
    expect(await after).toBe('MISS answer 2')
  })

  it('of what nobody has stored is no purge of anything else', async () => {
    const { all } = await startInstances(2, redis.url)
    await warm(all, '/a')
    expect(await purgeBy(all[0] as TestGateway, { urls: ['http://other.test/a'] })).toMatchObject({ purged: 0 })
    expect(all.map(stored)).toEqual([1, 1])
  })

  it('reaches no instance of another namespace', async () => {
    const { all } = await startInstances(1, redis.url, { redis: 'namespace: one, deadline: 2s' })
    const others = await startInstances(1, redis.url, { redis: 'namespace: two, deadline: 2s' })
    await warm([...all, ...others.all], '/a')
    expect(await purgeBy(all[0] as TestGateway, { all: true })).toMatchObject({ purged: 1, unacknowledged: [] })
    expect(others.all.map(stored)).toEqual([1])
  })
})
