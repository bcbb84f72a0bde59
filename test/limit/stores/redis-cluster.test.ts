// Instances that share their counters through a Redis Cluster, which decides over one subject at a time.

import { afterAll, beforeAll, expect, it } from 'vitest'
import { closeAfterEach } from '../../support/closing.ts'
import { demandOf, instancesFor, quotaOf } from '../../support/quotas.ts'
import { type RedisCluster, describeWithRedis, startRedisCluster, until } from '../../support/redis.ts'

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
