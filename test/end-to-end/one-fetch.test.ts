// `collapse: shared`: one fetch for a key across all instances that share a Redis, whatever becomes of who makes it.

import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ask, purgeBy, put, startInstances, stored } from '../support/instances.ts'
import { owing } from '../support/owing.ts'
import { runGateway } from '../support/process.ts'
import { type RedisServer, describeWithRedis, startRedis, until } from '../support/redis.ts'

const SHARED = 'ttl: 1h, collapse: shared'

describeWithRedis('one fetch for all instances', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(() => redis.close())

  /** Instances before an origin whose answers wait to be given. */
  const startOwing = async (count: number, options: { cache?: string; redis?: string } = {}) => {
    const { script, owed, owes: asked } = owing()
    const instances = await startInstances(count, redis.url, {
      routes: [`{path: /*, cache: {${options.cache ?? SHARED}}}`],
      script,
      ...(options.redis === undefined ? {} : { redis: options.redis }),
    })
    return { ...instances, owed, asked }
  }
  /** All requests have come in, and none of them has an answer. */
  const waiting = (all: readonly TestGateway[], each: number) =>
    until(() => all.every((gateway) => clients(gateway) >= each), 'all clients to wait')
  const clients = (gateway: TestGateway): number =>
    Number(/^process_open_connections (\d+)$/m.exec(gateway.gateway.metrics())?.[1])
  /** Led, followed, lost, unanswered. */
  const fetchLeases = (gateway: TestGateway): string[] =>
    [...gateway.gateway.metrics().matchAll(/^weirgate_fetch_leases_total\{[^}]*\} (\d+)$/gm)].map(
      ([, count]) => count ?? '',
    )
  const leases = async () => (await redis.ask('--scan', '--pattern', 'weirgate:lease:*')).split('\n').filter(Boolean)

  it('is all that the origin sees of 60 clients of three instances', async () => {
    const { all, owed, asked } = await startOwing(3)
    const answers = Promise.all(all.flatMap((gateway) => Array.from({ length: 20 }, () => ask(gateway, '/a'))))
    await asked(1)
    await waiting(all, 20)
    expect(await leases()).toHaveLength(1)
    owed[0]?.end('one')
    const got = await answers
    expect(got.filter((answer) => answer === 'MISS one')).toHaveLength(1)
    expect(got.filter((answer) => answer === 'COLLAPSED one')).toHaveLength(59)
    expect(owed).toHaveLength(1)
    await until(async () => (await leases()).length === 0, 'the lease to be given back')
    const results = all.map((gateway) => fetchLeases(gateway).join(' '))
    expect(results.toSorted()).toEqual(['0 1 0 0', '0 1 0 0', '1 0 0 0'])
  })

  it('is made anew by another when who makes it is gone', async () => {
    const { all, origin, owed, asked } = await startOwing(2)
    const first = await runGateway(`
upstreams: {origin: {targets: [${origin.url}]}}
defaults: {upstream: origin}
redis: {url: "${redis.url}", deadline: 2s}
routes: [{path: /*, cache: {${SHARED}}}]
`)
    const lost = request(`${first.url}/a`, { headers: { Host: 'shop.test' } }).catch(() => 'lost')
    await asked(1)
    const answers = Promise.all(all.map((gateway) => ask(gateway, '/a')))
    await waiting(all, 1)
    first.kill('SIGKILL')
    expect(await lost).toBe('lost')
    await asked(2)
    owed[1]?.end('two')
    expect((await answers).toSorted()).toEqual(['COLLAPSED two', 'MISS two'])
    expect(owed).toHaveLength(2)
    // Who led was not heard of any more.
    expect(all.reduce((sum, gateway) => sum + Number(fetchLeases(gateway)[2]), 0)).toBeGreaterThan(0)
  })

  it('of a stream that outlives its lease stays one, and all others get what it has brought', async () => {
    const { all, owed, asked } = await startOwing(3, { cache: `${SHARED}, terminal: openai` })
    const [first, ...others] = all as [TestGateway, TestGateway, TestGateway]
    const one = ask(first, '/a')
    await asked(1)
    const rest = Promise.all(others.map((gateway) => ask(gateway, '/a')))
    await waiting(others, 1)
    owed[0]?.writeHead(200, { 'Content-Type': 'text/event-stream' })
    const [lease = ''] = await leases()
    let leftMs = Infinity
    // As often as it takes for the first term to be over.
    for (let renewals = 0; renewals < 4;) {
      const nowLeftMs = Number(await redis.ask('PTTL', lease))
      if (nowLeftMs > leftMs) owed[0]?.write(`data: ${++renewals}\n\n`)
      leftMs = nowLeftMs
    }
    expect(owed).toHaveLength(1)
    owed[0]?.end('data: [DONE]\n\n')
    const stream = 'data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\ndata: [DONE]\n\n'
    expect([await one, await rest]).toEqual([`MISS ${stream}`, [`COLLAPSED ${stream}`, `COLLAPSED ${stream}`]])
    expect([await ask(first, '/a'), owed.length]).toEqual([`HIT ${stream}`, 1])
  })

  it('is waited for as long as the route gives a fetch, whoever makes it', async () => {
    const { all, add, owed, asked } = await startOwing(1)
    const [first] = all as [TestGateway]
    const one = ask(first, '/a')
    await asked(1)
    const hasty = await add(redis.url, 'timeouts: {total: 2s, streamTotal: 2s}')
    const patient = await add(redis.url, 'timeouts: {total: 2s}')
    const answers = Promise.all([ask(hasty, '/a'), ask(patient, '/a')])
    await waiting([hasty, patient], 1)
    await asked(2)
    for (const response of owed) response.end('alike')
    expect([await one, await answers]).toEqual(['MISS alike', ['MISS alike', 'COLLAPSED alike']])
    expect(owed).toHaveLength(2)
  })

  it('that fails lets the next one try', async () => {
    const { all, owed, asked } = await startOwing(2)
    const [first, second] = all as [TestGateway, TestGateway]
    const one = ask(first, '/a')
    await asked(1)
    const two = ask(second, '/a')
    await waiting([second], 1)
    owed[0]?.writeHead(500).end('broken')
    expect(await one).toBe('MISS broken')
    await asked(2)
    owed[1]?.end('two')
    expect(await two).toBe('MISS two')
    expect(await ask(first, '/a')).toBe('HIT two')
  })

  it('whose answer is not for sharing keeps nobody waiting, then and later', async () => {
    const { all, owed, asked } = await startOwing(2)
    const [first, second] = all as [TestGateway, TestGateway]
    const one = ask(first, '/a')
    await asked(1)
    const two = Promise.all([ask(second, '/a'), ask(second, '/a')])
    await waiting([second], 2)
    owed[0]?.setHeader('Cache-Control', 'no-store').end('one')
    expect(await one).toBe('MISS one')
    await asked(3)
    for (const response of owed.slice(1)) response.setHeader('Cache-Control', 'no-store').end('own')
    expect(await two).toEqual(['MISS own', 'MISS own'])
    const later = [ask(first, '/a'), ask(second, '/a')]
    await asked(5)
    expect(await leases()).toEqual([])
    for (const response of owed.slice(3)) response.end('last')
    expect(await Promise.all(later)).toEqual(['MISS last', 'MISS last'])
  })

  it('is made by each where what it brings does not go through Redis', async () => {
    const { all, owed, asked } = await startOwing(3)
    const [first, ...others] = all as [TestGateway, TestGateway, TestGateway]
    const one = ask(first, '/a')
    await asked(1)
    const rest = Promise.all(others.map((gateway) => ask(gateway, '/a')))
    await waiting(others, 1)
    owed[0]?.end(randomBytes(1024 ** 2))
    await one
    await asked(3)
    for (const response of owed.slice(1)) response.end('own')
    expect(await rest).toEqual(['MISS own', 'MISS own'])
  })

  it.each([
    ['stopped', (server: RedisServer) => server.kill()],
    ['hung', async (server: RedisServer) => server.pause()],
  ])('is not waited for while Redis is %s', async (_how, trouble) => {
    const { all, owed, asked } = await startOwing(2, { redis: 'deadline: 50ms' })
    await trouble(redis)
    const answers = Promise.all(all.map((gateway) => ask(gateway, '/a')))
    await asked(2)
    for (const response of owed) response.end('own')
    expect(await answers).toEqual(['MISS own', 'MISS own'])
  })

  it('is no longer waited for when Redis goes', async () => {
    const { all, owed, asked } = await startOwing(2)
    const [first, second] = all as [TestGateway, TestGateway]
    const one = ask(first, '/a')
    await asked(1)
    const two = ask(second, '/a')
    await waiting([second], 1)
    await redis.kill()
    await asked(2)
    for (const response of owed) response.end('own')
    expect(await Promise.all([one, two])).toEqual(['MISS own', 'MISS own'])
  })

  it.each([
    ['of its URL', { urls: ['/a'] }],
    ['of a tag that its answer has', { tags: ['t'] }],
    ['of all', { all: true }],
  ])('is not enough where a purge %s came meanwhile, and is waited for no longer', async (_what, rule) => {
    const { all, owed, asked } = await startOwing(2, { cache: `${SHARED}, tags: [t]` })
    const [first, second] = all as [TestGateway, TestGateway]
    const one = ask(first, '/a')
    await asked(1)
    const two = ask(second, '/a')
    await waiting([second], 1)
    await purgeBy(second, rule)
    await asked(2)
    owed[1]?.end('new')
    expect(await two).toBe('MISS new')
    owed[0]?.end('old')
    expect(await one).toBe('MISS old')
    expect([await ask(first, '/a'), await ask(second, '/a'), owed.length]).toEqual(['HIT new', 'HIT new', 2])
  })

  it('is not for routes that do not say so', async () => {
    const { all, owed, asked } = await startOwing(2, { cache: 'ttl: 1h' })
    const answers = Promise.all(all.map((gateway) => ask(gateway, '/a')))
    await asked(2)
    for (const response of owed) response.end('own')
    expect(await answers).toEqual(['MISS own', 'MISS own'])
  })

  it('refreshes in the background for all', async () => {
    const { all, owed, asked } = await startOwing(2, { cache: `${SHARED}, stale: {whileRevalidate: 1m}` })
    const [first, second] = all as [TestGateway, TestGateway]
    const one = ask(first, '/a')
    await asked(1)
    owed[0]?.end('old')
    await one
    await until(async () => (await entriesIn(redis)) === 1, 'Redis to have it')
    expect(await ask(second, '/a')).toBe('HIT old')
    await purgeBy(first, { all: true, soft: true })
    for (const gateway of all) expect(await ask(gateway, '/a')).toBe('STALE old')
    await asked(2)
    for (const gateway of all) expect(await ask(gateway, '/a')).toBe('STALE old')
    owed[1]?.end('new')
    await until(async () => (await ask(first, '/a')) === 'HIT new', 'the refresh here')
    await until(async () => (await ask(second, '/a')) === 'HIT new', 'the refresh there')
    expect(owed).toHaveLength(2)
  })
})

describeWithRedis('what one instance has fetched', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(() => redis.close())

  it('before a purge is not given to an instance that starts after it', async () => {
    const { all, add } = await startInstances(1, redis.url)
    const [first] = all as [TestGateway]
    for (const path of ['/a', '/b', '/c']) await ask(first, path)
    await until(async () => (await entriesIn(redis)) === 3, 'Redis to have them')
    await purgeBy(first, { urls: ['/a'] })
    await put(first, '/b')
    const late = await add()
    expect([await ask(late, '/a'), await ask(late, '/b'), await ask(late, '/c')]).toEqual([
      expect.stringMatching(/^MISS/),
      expect.stringMatching(/^MISS/),
      'HIT answer 3',
    ])
    expect(stored(late)).toBe(3)
  })

  it('and that has been purged softly is stale for an instance that starts after it', async () => {
    const routes = ['{path: /*, cache: {ttl: 1h, stale: {whileRevalidate: 1m}}}']
    const { all, add } = await startInstances(1, redis.url, { routes })
    const [first] = all as [TestGateway]
    await ask(first, '/a')
    await until(async () => (await entriesIn(redis)) === 1, 'Redis to have it')
    await purgeBy(first, { prefix: '/', soft: true })
    expect(await ask(await add(), '/a')).toBe('STALE answer 1')
  })
})

const entriesIn = async (server: RedisServer) =>
  (await server.ask('--scan', '--pattern', 'weirgate:c*')).split('\n').filter(Boolean).length
