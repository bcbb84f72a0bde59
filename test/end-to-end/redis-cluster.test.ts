// Gateways that share a Redis Cluster of three masters: what they share lies on one or another of them, and the loss of one
// takes what lies there, and nothing else.

import type { ServerResponse } from 'node:http'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import type { TestGateway } from '../support/gateway.ts'
import { ask, purgeBy, startInstances, stored, whenEmpty } from '../support/instances.ts'
import { type RedisCluster, type RedisServer, describeWithRedis, startRedisCluster, until } from '../support/redis.ts'

/** What the purge log's keys have in common. */
const LOG = '{weirgate}'
const TAGGED = ['{path: /:id, cache: {ttl: 1h, tags: ["id-:id"]}}']

describeWithRedis('gateways that share a Redis Cluster', () => {
  let cluster: RedisCluster
  beforeEach(async () => {
    cluster = await startRedisCluster()
  })
  afterEach(() => cluster.close())

  const health = async (gateway: TestGateway) =>
    JSON.parse((await request(`${gateway.url}/health`)).text) as { status: string; redis: string }
  const whenAll = (all: readonly TestGateway[], word: string) =>
    until(() => all.every(({ gateway }) => gateway.health().redis === word), `Redis to be ${word} everywhere`)
  const others = async () => {
    const owner = await cluster.ownerOf(LOG)
    return { owner, other: cluster.nodes.find((node) => node !== owner) as RedisServer }
  }

  it('purge on all of them, also while a master is lost that does not hold the log', async () => {
    const { all } = await startInstances(3, cluster.url, { routes: TAGGED })
    const [first] = all as [TestGateway]
    const purgeAll = async (id: string) => {
      for (const gateway of all) await ask(gateway, `/${id}`)
      return purgeBy(first, { tags: [`id-${id}`] })
    }
    expect(await purgeAll('a')).toMatchObject({ purged: 3, unacknowledged: [], shared: true })
    const { other } = await others()
    await other.kill()
    await whenAll(all, 'partly')
    for (let i = 0; i < 6; i++) {
      expect(await purgeAll(`b${i}`)).toMatchObject({ purged: 3, unacknowledged: [], shared: true })
    }
  })

  it('purge each by itself while the master with the log is lost, and all of them when it is back', async () => {
    const { all } = await startInstances(2, cluster.url, { routes: TAGGED })
    const [first, second] = all as [TestGateway, TestGateway]
    for (const gateway of all) await ask(gateway, '/a')
    const { owner } = await others()
    await owner.kill()
    await whenAll(all, 'partly')
    expect(await purgeBy(first, { tags: ['id-a'] })).toMatchObject({ purged: 1, shared: false })
    expect([stored(first), stored(second)]).toEqual([0, 1])
    await owner.restart()
    await whenEmpty(second)
    await whenAll(all, 'ok')
  })

  it('purge in order while the log moves from one master to another', async () => {
    const { all } = await startInstances(2, cluster.url, { routes: TAGGED })
    const [first, second] = all as [TestGateway, TestGateway]
    const { owner, other } = await others()
    const purges: boolean[] = []
    const purgeSome = async (count: number) => {
      for (let i = 0; i < count; i++) {
        await ask(second, '/a')
        const { shared } = await purgeBy(first, { tags: ['id-a'] })
        purges.push(shared === true)
        await whenEmpty(second)
      }
    }
    await purgeSome(5)
    const slot = await cluster.slotOf(LOG)
    await cluster.move(slot, owner, other, () => purgeSome(5))
    await purgeSome(5)
    expect(purges.filter(Boolean).length).toBeGreaterThanOrEqual(10)
    expect(Number(await other.ask('XLEN', `${LOG}:purges:log`))).toBeGreaterThanOrEqual(10)
  })

  it('share one fetch, whichever master has its lease, and go on when that is lost', async () => {
    const owed: ServerResponse[] = []
    const { all } = await startInstances(3, cluster.url, {
      routes: ['{path: /*, cache: {ttl: 1h, collapse: shared}}'],
      script: (_request, response) => void owed.push(response),
    })
    for (let i = 0; i < 6; i++) {
      const answers = Promise.all(all.flatMap((gateway) => [ask(gateway, `/${i}`), ask(gateway, `/${i}`)]))
      await until(() => owed.length > i, 'the fetch')
      owed[i]?.end('one')
      expect((await answers).toSorted()).toEqual([...Array<string>(5).fill('COLLAPSED one'), 'MISS one'])
    }
    expect(owed).toHaveLength(6)
    const [victim] = cluster.nodes as [RedisServer]
    await victim.kill()
    await whenAll(all, 'partly')
    const answers = Promise.all(Array.from({ length: 12 }, (_, i) => ask(all[0] as TestGateway, `/alone-${i}`)))
    await until(() => owed.length === 18, 'all fetches')
    for (const response of owed.slice(6)) response.end('two')
    expect(new Set(await answers)).toEqual(new Set(['MISS two']))
  })

  it('limit together whom the living masters count, and each by itself whom a lost one did', async () => {
    const { all, origin } = await startInstances(3, cluster.url, {
      more: 'limits: {each: {limit: 30, window: 1h, key: header:x-name}}',
      routes: ['{path: /*, limits: [each]}'],
    })
    const [first] = all as [TestGateway]
    const get = async ({ url }: TestGateway, name: string) =>
      (await request(`${url}/x`, { headers: { 'X-Name': name } })).status
    const askAll = async (name: string) => {
      const statuses = await Promise.all(all.flatMap((gateway) => Array.from({ length: 20 }, () => get(gateway, name))))
      return statuses.filter((status) => status === 200).length
    }
    expect(await askAll('before')).toBe(30)
    await cluster.nodes[0]?.kill()
    await whenAll(all, 'partly')
    expect(await health(first)).toMatchObject({ status: 'degraded', redis: 'partly' })
    const up = /^weirgate_redis_up (\S+)$/m.exec(first.gateway.metrics())?.[1]
    expect(Number(up)).toBeCloseTo(2 / 3)
    const counts = new Map<string, number>()
    for (let i = 0; i < 12; i++) counts.set(`name-${i}`, await askAll(`name-${i}`))
    const decided = (source: string): number => {
      let sum = 0
      for (const { gateway } of all) {
        for (const line of gateway.metrics().split('\n')) {
          const [, labels = '', count] = /^weirgate_limit_decisions_total\{(.*)\} (\d+)$/.exec(line) ?? []
          if (labels.includes(`source="${source}"`)) sum += Number(count)
        }
      }
      return sum
    }
    expect(decided('share')).toBeGreaterThan(0)
    expect(decided('redis')).toBeGreaterThan(60)
    // 10 each where all know of three, as they do after two seconds.
    expect([...counts.values()].every((count) => count >= 30)).toBe(true)
    expect([...counts.values()].filter((count) => count === 30).length).toBeGreaterThan(4)
    expect(origin.seen.length).toBeGreaterThan(300)
    await cluster.nodes[0]?.restart()
    await whenAll(all, 'ok')
  })
})
