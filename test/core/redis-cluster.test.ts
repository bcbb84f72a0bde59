// The link to a Redis Cluster of three masters, and to a master that a Sentinel knows.

import { setImmediate } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { createRedisSubscriber } from '../../src/core/redis-subscriber.ts'
import { createRedisLink } from '../../src/core/redis.ts'
import { closeAfterEach } from '../support/closing.ts'
import { codeOf, linksFor, listen, whenDown } from '../support/redis-link.ts'
import {
  type RedisCluster,
  type RedisServer,
  describeWithRedis,
  startRedis,
  startRedisCluster,
  startSentinel,
  until,
} from '../support/redis.ts'

// Nodes of a cluster take seconds to agree that one of them is back.
vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 })
const opened = closeAfterEach()
const { linkUp } = linksFor(opened)

describeWithRedis('a link to a Redis Cluster', () => {
  let cluster: RedisCluster
  beforeAll(async () => {
    cluster = await startRedisCluster()
  })
  afterAll(() => cluster.close())

  it('reaches every node, for commands, pipelines and scripts', async () => {
    const up = await linkUp(cluster.url)
    const keys = Array.from({ length: 50 }, (_, i) => `key-${i}`)
    const stored = await up.pipeline(keys.map((key) => ['SET', key, key] as const))
    expect(stored.every((reply) => Buffer.isBuffer(reply))).toBe(true)
    const sizes = await Promise.all(cluster.nodes.map((node) => node.ask('DBSIZE')))
    expect(sizes.map(Number).every((size) => size > 0)).toBe(true)
    const read = up.script('return redis.call("get", KEYS[1])')
    expect(await Promise.all(keys.map((key) => read([key], [])))).toEqual(keys.map((key) => Buffer.from(key)))
    await expect(up.command('MGET', 'key-1', 'key-2')).rejects.toMatchObject({ refusal: 'CROSSSLOT' })
  })

  it('finds the cluster by any one of its nodes', async () => {
    const up = await linkUp(`redis+cluster://127.0.0.1:${cluster.nodes[2]?.port}`, { probeKey: 'test:probe' })
    for (const key of ['a', 'b', 'c']) expect(await codeOf(up.command('SET', key, key))).toBe('none')
  })

  it('still hears while the node that it listens at hangs', async () => {
    const heard: string[] = []
    const subscriber = opened(
      createRedisSubscriber(
        { url: cluster.url, name: 'purge', deadlineMs: 50, channels: ['hung'] },
        (_channel, message) => void heard.push(message.toString()),
        listen().log,
      ),
    )
    expect(await subscriber.whenUp(30_000)).toBe(true)
    const clients = await Promise.all(cluster.nodes.map((node) => node.ask('PUBSUB', 'NUMSUB', 'hung')))
    const victim = cluster.nodes[clients.findIndex((text) => text.endsWith('1'))] as RedisServer
    victim.pause()
    try {
      await whenDown(subscriber)
      expect(await subscriber.whenUp(30_000)).toBe(true)
      const other = cluster.nodes.find((node) => node !== victim)
      await other?.ask('PUBLISH', 'hung', 'message')
      await until(() => heard.length > 0, 'the message')
    } finally {
      victim.resume()
    }
  })

  it('hears what is published on any node', async () => {
    const heard: string[] = []
    const subscriber = opened(
      createRedisSubscriber(
        { url: cluster.url, name: 'purge', deadlineMs: 2000, channels: ['one'] },
        (_channel, message) => void heard.push(message.toString()),
        listen().log,
      ),
    )
    expect(await subscriber.whenUp(30_000)).toBe(true)
    for (const node of cluster.nodes) await node.ask('PUBLISH', 'one', String(node.port))
    await until(() => heard.length === cluster.nodes.length, 'a message of each node')
    expect(heard.toSorted()).toEqual(cluster.nodes.map((node) => String(node.port)).toSorted())
  })

  /** A key of each master. */
  const keyOn = async (master: RedisServer): Promise<string> => {
    for (let i = 0; ; i++) if ((await cluster.ownerOf(`key-${i}`)) === master) return `key-${i}`
  }

  it.each([
    ['dies', (master: RedisServer) => master.kill(), (master: RedisServer) => master.restart()],
    ['hangs', async (master: RedisServer) => master.pause(), async (master: RedisServer) => master.resume()],
  ])('loses the keys of a master that %s, and no others, until it is back', async (_how, lose, find) => {
    const { lines, log } = listen()
    const up = await linkUp(cluster.url, { deadlineMs: 500, probeKey: 'test:probe' }, log)
    const [victim, other, third] = cluster.nodes as [RedisServer, RedisServer, RedisServer]
    const keys = await Promise.all([victim, other, third].map(keyOn))
    const [lost = '', ...rest] = keys
    const codes = () => Promise.all(keys.map((key) => codeOf(up.command('SET', key, key))))
    expect(await codes()).toEqual(['none', 'none', 'none'])
    await lose(victim)
    await until(async () => {
      const [code, ...others] = await codes()
      expect(others).toEqual(['none', 'none'])
      return code === 'redis_down'
    }, 'the keys of that master to be lost')
    expect(up.isUp).toBe(false)
    expect(keys.map((key) => up.shardOf(key).isUp)).toEqual([false, true, true])
    const [refused, ...stored] = await up.pipeline(keys.map((key) => ['GET', key] as const))
    expect(refused).toMatchObject({ code: 'redis_down' })
    expect(stored).toEqual(rest.map((key) => Buffer.from(key)))
    await expect(up.pipeline([['GET', lost]])).rejects.toMatchObject({ code: 'redis_down' })
    // What needs no key goes to whoever is there.
    for (let i = 0; i < 10; i++) expect(await codeOf(up.command('PUBLISH', 'channel', 'x'))).toBe('none')
    await find(victim)
    expect(await up.whenUp(30_000)).toBe(true)
    expect(await codes()).toEqual(['none', 'none', 'none'])
    const server = `127.0.0.1:${victim.port}`
    const told = lines.filter(({ fields }) => (fields as { server?: string }).server === server)
    expect(told.map(({ message }) => message)).toEqual(['Redis is up', 'Redis is down', 'Redis is up'])
    expect(lines).toHaveLength(5)
  })

  it('fails at once what is in flight to a master that dies', async () => {
    const up = await linkUp(cluster.url)
    const victim = await cluster.ownerOf('list')
    const inFlight = codeOf(up.command('BLPOP', 'list', 0))
    await victim.kill()
    expect(await inFlight).toBe('redis_lost')
    await setImmediate()
    expect(up.shardOf('list').isUp).toBe(false)
    await victim.restart()
    expect(await up.whenUp(30_000)).toBe(true)
  })

  it('finds a key for every shard', async () => {
    const up = await linkUp(cluster.url)
    const keys = up.shards.map((shard) => shard.keyOf('test:each') as string)
    expect(keys).toHaveLength(3)
    expect(keys.map((key) => up.shardOf(key))).toEqual(up.shards)
    const owners = await Promise.all(keys.map((key) => cluster.ownerOf(key)))
    expect(new Set(owners).size).toBe(3)
  })

  it('leaves nothing behind when it is closed', async () => {
    const before = process.getActiveResourcesInfo().length
    const up = createRedisLink({ url: cluster.url, name: 'test', deadlineMs: 2000 }, listen().log)
    expect(await up.whenUp(30_000)).toBe(true)
    await up.close()
    await until(() => process.getActiveResourcesInfo().length <= before, 'sockets and timers to be gone')
  })
})

describeWithRedis('a link to a Redis Cluster that changes', () => {
  it('loses nothing while slots move to a node that had none', async () => {
    const cluster = opened(await startRedisCluster({ spare: 1 }))
    const up = await linkUp(cluster.url, { probeKey: 'test:probe' })
    const to = cluster.nodes[3] as RedisServer
    const from = await cluster.ownerOf('{n}')
    const slot = await cluster.slotOf('{n}')
    const add = up.script('return redis.call("incr", KEYS[1])')
    const codes: string[] = []
    let sent = 0
    const ask = async (key: string): Promise<string> => {
      const code = await codeOf(add([`{n}${key}`], []))
      codes.push(code)
      return code
    }
    const end = new AbortController()
    const asking = (async () => {
      while (!end.signal.aborted) {
        if ((await ask(String(sent % 10))) === 'none') sent++
        // What is refused at once leaves the loop no time to find the new node.
        await setImmediate()
      }
    })()
    await until(() => sent > 50, 'counts')
    await cluster.move(slot, from, to, async () => {
      // Neither node has these: they go to the new one.
      await Promise.all(Array.from({ length: 20 }, (_, i) => ask(`new-${i}`)))
    })
    const before = sent
    await until(() => sent > before + 50, 'counts after the move')
    end.abort()
    await asking
    // A node that nobody knew yet is not asked, which is said at once.
    expect(codes.filter((code) => code !== 'none' && code !== 'redis_down')).toEqual([])
    const kept = await Promise.all(Array.from({ length: 10 }, (_, i) => to.ask('GET', `{n}${i}`)))
    expect(kept.map(Number).reduce((sum, count) => sum + count)).toBe(sent)
    await until(() => up.shards.length === 4 && up.isUp, 'the new master to be known')
  })

  it('goes on with the replica that takes over from a dead master', async () => {
    const cluster = opened(await startRedisCluster({ replicas: 1 }))
    const { lines, log } = listen()
    const up = await linkUp(cluster.url, { probeKey: 'test:probe' }, log)
    const [victim, replica] = [cluster.nodes[0] as RedisServer, cluster.nodes[3] as RedisServer]
    let key = 'k'
    while ((await cluster.ownerOf(key)) !== victim) key += 'k'
    await victim.kill()
    await until(() => !up.shardOf(key).isUp, 'the loss')
    await replica.ask('CLUSTER', 'FAILOVER', 'TAKEOVER')
    expect(await up.whenUp(30_000)).toBe(true)
    expect(await codeOf(up.command('SET', key, 'after'))).toBe('none')
    expect(await replica.ask('GET', key)).toBe('after')
    expect(up.shards).toHaveLength(3)
    const told = lines.slice(3).map(({ message, fields }) => [message, (fields as { server: string }).server])
    expect(told).toEqual([
      ['Redis is down', `127.0.0.1:${victim.port}`],
      ['Redis is up', `127.0.0.1:${replica.port}`],
    ])
  })

  it('loses a master that says that the cluster is not whole, and has it back when it is', async () => {
    const cluster = opened(await startRedisCluster({ fullCoverage: true }))
    const up = await linkUp(cluster.url)
    const owner = await cluster.ownerOf('k')
    const slot = String(await cluster.slotOf('k'))
    await owner.ask('CLUSTER', 'DELSLOTS', slot)
    await until(() => !up.shardOf('k').isUp, 'the loss')
    await owner.ask('CLUSTER', 'ADDSLOTS', slot)
    expect(await up.whenUp(30_000)).toBe(true)
  })
})

describeWithRedis('a link to the master of a Sentinel', () => {
  it('finds the master, and asks for the next one when that is lost', async () => {
    const first = opened(await startRedis())
    const second = opened(await startRedis())
    const sentinel = opened(await startSentinel(first.port))
    const up = await linkUp(`redis+sentinel://127.0.0.1:1,127.0.0.1:${sentinel.port}/main`, { probeKey: 'test:probe' })
    await up.command('SET', 'k', 'before')
    expect(await first.ask('GET', 'k')).toBe('before')
    await sentinel.ask('SENTINEL', 'REMOVE', 'main')
    await sentinel.ask('SENTINEL', 'MONITOR', 'main', '127.0.0.1', String(second.port), '1')
    await first.kill()
    await whenDown(up)
    expect(await up.whenUp(30_000)).toBe(true)
    await up.command('SET', 'k', 'after')
    expect(await second.ask('GET', 'k')).toBe('after')
  })
})
