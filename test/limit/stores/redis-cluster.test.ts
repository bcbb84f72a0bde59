// Instances that share their counters through a Redis Cluster, which decides over one subject at a time.

import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Quota } from '../../../src/limit/quota.ts'
import { closeAfterEach } from '../../support/closing.ts'
import { type Instance, demandOf, instancesFor, quotaOf } from '../../support/quotas.ts'
import {
  type RedisCluster,
  type RedisServer,
  describeWithRedis,
  startRedisCluster,
  until,
} from '../../support/redis.ts'

const opened = closeAfterEach()
const start = instancesFor(opened)

const byAddress = (name: string, limit: number) => quotaOf(name, { limit, window: '1d', align: 'UTC', key: 'ip' })
const byUser = (name: string, limit: number) => quotaOf(name, { limit, window: '1h', key: 'user' })

describeWithRedis('instances that share counters in a Redis Cluster', () => {
  let cluster: RedisCluster
  beforeAll(async () => {
    cluster = await startRedisCluster()
  })
  afterAll(() => cluster.close())

  const startTwo = async () => [await start(cluster.url), await start(cluster.url)] as const

  it('admit exactly the limit together, on every node', async () => {
    const instances = await startTwo()
    const quota = byAddress('exact', 10)
    const asked = instances.flatMap(({ take }) => Array.from({ length: 400 }, (_, i) => take(quota, `s-${i % 40}`)))
    expect((await Promise.all(asked)).filter(Boolean)).toHaveLength(400)
    const sizes = await Promise.all(cluster.nodes.map((node) => node.ask('DBSIZE')))
    expect(sizes.map(Number).every((size) => size > 0)).toBe(true)
  })

  it('never admit more than any policy of a request, and give back what the others have charged', async () => {
    const [first, second] = await startTwo()
    const [address, user] = [byAddress('wide', 1000), byUser('narrow', 20)]
    let admitted = 0
    for (let i = 0; i < 30; i++) {
      // Another address each time, so that no refusal is remembered for all of it.
      const demands = [first, second].map((instance) => [instance, demandOf([address, user], ['ip', 'user'])] as const)
      const verdicts = await Promise.all(demands.map(([instance, demand]) => instance.ask(demand)))
      admitted += verdicts.filter(Boolean).length
    }
    expect(admitted).toBe(20)
    await until(async () => (await first.left(address, 'ip')) === 980, 'what was given back to be there')
    expect(await second.left(user, 'user')).toBe(0)
  })

  it('charge several policies of one subject at once', async () => {
    const [first] = await startTwo()
    const [wide, narrow] = [byUser('wide-user', 100), quotaOf('narrow-user', { limit: 5, window: '1h', key: 'user' })]
    for (let i = 0; i < 20; i++) await first.ask(demandOf([wide, narrow], ['u', 'u']))
    expect(await first.left(wide, 'u')).toBe(95)
  })
})

describeWithRedis('instances that share counters in a Redis Cluster with trouble', () => {
  const sources = (demand: ReturnType<typeof demandOf>) => demand.standings.map(({ source }) => source)

  /** Two who know of each other. */
  async function startTwo(url: string, deadlineMs = 2000) {
    const options = { deadlineMs, probeKey: 'test:probe' }
    const both = [await start(url, options), await start(url, options)] as const
    await until(() => both.every(({ store }) => store.instances === 2), 'both to know of the other')
    return both
  }

  /** Names that the instance cannot, and can, ask Redis about. */
  function sortNames({ store }: Instance, quota: Quota, count: number) {
    const names = Array.from({ length: 40 }, (_, i) => `s-${i}`)
    const lost = names.filter((name) => !store.reaches(quota, name)).slice(0, count)
    const kept = names.filter((name) => store.reaches(quota, name)).slice(0, count)
    expect([lost.length, kept.length]).toEqual([count, count])
    return { lost, kept }
  }

  const whenLost = (instances: readonly Instance[]) =>
    until(() => instances.every(({ link }) => link.shards.some(({ isUp }) => !isUp)), 'all to know of the loss')

  const count = async (asked: Promise<boolean>[]) => (await Promise.all(asked)).filter(Boolean).length

  it('decide about the subjects of a dead master by themselves, about all others exactly, and owe the former', async () => {
    const cluster = opened(await startRedisCluster())
    const instances = await startTwo(cluster.url)
    const [first, second] = instances
    const quota = byAddress('some', 100)
    const [victim] = cluster.nodes as [RedisServer]
    await victim.kill()
    await whenLost(instances)
    const { lost, kept } = sortNames(first, quota, 5)
    const askAll = (name: string) =>
      count(instances.flatMap(({ take }) => Array.from({ length: 100 }, () => take(quota, name))))
    for (const name of kept) expect(await askAll(name)).toBe(100)
    for (const name of lost) expect(await askAll(name)).toBe(100)
    // Half of it each, not whatever one of them can get.
    expect(await count(Array.from({ length: 100 }, () => first.take(quota, 'other')))).toBeGreaterThanOrEqual(50)
    await victim.restart()
    for (const { link } of instances) expect(await link.whenUp(20_000)).toBe(true)
    for (const name of lost) {
      await until(async () => (await second.left(quota, name)) === 0, 'what was used to be owed')
    }
  })

  it('give back here what Redis refuses, and in Redis what is refused here', async () => {
    const cluster = opened(await startRedisCluster())
    const instances = await startTwo(cluster.url)
    const [first] = instances
    const [narrow, wide] = [byUser('narrow-here', 10), byUser('wide', 1000)]
    await cluster.nodes[0]?.kill()
    await whenLost(instances)
    const { lost, kept } = sortNames(first, wide, 2)
    const ask = async (quotas: readonly Quota[], names: readonly string[]) => {
      const demand = demandOf(quotas, names)
      return { admitted: await first.ask(demand), sources: sources(demand), demand }
    }
    const [lostName = '', lostOther = ''] = lost
    const [keptName = '', keptOther = ''] = kept

    const refusedThere = byUser('narrow-there', 10)
    for (let i = 0; i < 10; i++) {
      const { admitted, sources: told } = await ask([wide, refusedThere], [lostName, keptName])
      expect([admitted, told]).toEqual([true, ['share', 'redis']])
    }
    for (let i = 0; i < 10; i++) expect((await ask([wide, refusedThere], [lostName, keptName])).admitted).toBe(false)
    // A refusal that is remembered is not the way to see it.
    const fresh = await ask([wide, refusedThere], [lostName, keptOther])
    expect([fresh.admitted, fresh.demand.standings[0]?.remaining]).toEqual([true, 500 - 11])

    for (let i = 0; i < 20; i++) await ask([narrow, wide], [lostOther, keptName])
    expect(await first.left(wide, keptName)).toBe(1000 - 5)
  })

  it('count once what a master that hangs answers late, and give back what was refused', async () => {
    const cluster = opened(await startRedisCluster())
    const first = await start(cluster.url, { deadlineMs: 25, linkDeadlineMs: 60_000 })
    await start(cluster.url)
    await until(() => first.store.instances === 2, 'both to know of the other')
    const [victim] = cluster.nodes as [RedisServer]
    victim.pause()
    const probe = byUser('probe', 1000)
    const sourceOf = async (name: string) => {
      const demand = demandOf([probe], [name])
      await first.ask(demand)
      return sources(demand)[0]
    }
    const names = await Promise.all(Array.from({ length: 40 }, async (_, i) => [`s-${i}`, await sourceOf(`s-${i}`)]))
    const [hung = ''] = names.find(([, source]) => source === 'share') ?? []
    const [kept = ''] = names.find(([, source]) => source === 'redis') ?? []
    const [narrow, wide] = [byUser('narrow-late', 4), byUser('wide-late', 1000)]
    const asked = Array.from({ length: 6 }, () => first.ask(demandOf([narrow, wide], [hung, kept])))
    // Half of four; the master will charge all four.
    expect(await count(asked)).toBe(2)
    victim.resume()
    await until(async () => (await first.left(narrow, hung)) === 2, 'what was refused to be given back')
    await until(async () => (await first.left(wide, kept)) === 998, 'what was refused to be given back')
    expect(first.store.owed).toBe(0)
  })

  it('wait no longer than the deadline for a master that hangs, and not at all for the others', async () => {
    const cluster = opened(await startRedisCluster())
    const instances = await startTwo(cluster.url, 200)
    const [first] = instances
    const quota = byUser('some', 1000)
    const [victim] = cluster.nodes as [RedisServer]
    victim.pause()
    try {
      const demands = Array.from({ length: 60 }, (_, i) => demandOf([quota], [`s-${i}`]))
      const verdicts = await Promise.all(demands.map((demand) => first.ask(demand)))
      expect(verdicts.every(Boolean)).toBe(true)
      await first.ask(demandOf([quota], ['s-0']))
      await whenLost([first])
      const { lost } = sortNames(first, quota, 5)
      // Who was decided here in the first round lies where nobody answers, and nobody else does.
      for (const [i, demand] of demands.entries()) {
        expect(sources(demand)).toEqual([first.store.reaches(quota, `s-${i}`) ? 'redis' : 'share'])
      }
      for (const name of lost) expect(typeof first.charge(demandOf([quota], [name]))).toBe('boolean')
    } finally {
      victim.resume()
    }
    expect(await first.link.whenUp(10_000)).toBe(true)
    await until(async () => {
      const demand = demandOf([quota], ['s-0'])
      return (await first.ask(demand)) && sources(demand)[0] === 'redis'
    }, 'Redis to decide again')
  })

  it('admit exactly the limit while the slots of their subjects move', async () => {
    const cluster = opened(await startRedisCluster({ spare: 1 }))
    const instances = await startTwo(cluster.url)
    const quota = byAddress('moving', 200)
    const names = ['a', 'b', 'c']
    const end = new AbortController()
    const told: string[] = []
    const admitted = new Map<string, number>()
    const asking = instances.map(async (instance) => {
      while (!end.signal.aborted) {
        for (const name of names) {
          const demand = demandOf([quota], [name])
          if (await instance.ask(demand)) admitted.set(name, (admitted.get(name) ?? 0) + 1)
          told.push(...sources(demand))
        }
        await new Promise((resolve) => setTimeout(resolve, 2))
      }
    })
    await until(() => told.length > 100, 'some to be admitted')
    const to = cluster.nodes[3] as RedisServer
    for (const from of cluster.nodes.slice(0, 3)) {
      for (const key of (await from.ask('KEYS', 'test:r*')).split('\n').filter((each) => each !== '')) {
        await cluster.move(await cluster.slotOf(key), from, to)
      }
    }
    const before = told.length
    await until(() => told.length > before + 600, 'the limit to be reached')
    end.abort()
    await Promise.all(asking)
    expect(new Set(told)).toEqual(new Set(['redis', 'remembered']))
    expect(names.map((name) => admitted.get(name))).toEqual([200, 200, 200])
    expect((await to.ask('KEYS', 'test:r*')).split('\n')).toHaveLength(3)
  })
})
