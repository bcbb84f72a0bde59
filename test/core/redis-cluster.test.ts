// The link to a Redis Cluster of three masters, and to a master that a Sentinel knows.

import { setImmediate } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createRedisLink, createRedisSubscriber } from '../../src/core/redis.ts'
import { closeAfterEach } from '../support/closing.ts'
import { codeOf, linksFor, listen, soon, whenDown } from '../support/redis-link.ts'
import {
  type RedisCluster,
  type RedisServer,
  describeWithRedis,
  startRedis,
  startRedisCluster,
  startSentinel,
  until,
} from '../support/redis.ts'

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

  it('hears what is published on any node', async () => {
    const heard: string[] = []
    const subscriber = opened(
      createRedisSubscriber(
        { url: cluster.url, name: 'purge', deadlineMs: 2000, channels: ['one'] },
        (_channel, message) => void heard.push(message.toString()),
        listen().log,
      ),
    )
    expect(await subscriber.whenUp(10_000)).toBe(true)
    for (const node of cluster.nodes) await node.ask('PUBLISH', 'one', String(node.port))
    await until(() => heard.length === cluster.nodes.length, 'a message of each node')
    expect(heard.toSorted()).toEqual(cluster.nodes.map((node) => String(node.port)).toSorted())
  })

  /** The index of the node that holds a key. */
  async function ownerOf(key: string): Promise<number> {
    const slot = Number(await cluster.nodes[0]?.ask('CLUSTER', 'KEYSLOT', key))
    return Math.floor(slot / Math.ceil(16_384 / cluster.nodes.length))
  }

  it('is down while one master hangs, and comes back with it', async () => {
    const up = await linkUp(cluster.url, soon)
    const victim = cluster.nodes[await ownerOf('key-1')] as RedisServer
    victim.pause()
    await Promise.all(Array.from({ length: 30 }, (_, i) => codeOf(up.command('GET', `key-${i}`))))
    await whenDown(up)
    expect(await codeOf(up.command('GET', 'key-1'))).toBe('redis_down')
    victim.resume()
    expect(await up.whenUp(10_000)).toBe(true)
  })

  it('is down at once when one master dies, and comes back with it', async () => {
    const up = await linkUp(cluster.url)
    const victim = cluster.nodes[await ownerOf('list')] as RedisServer
    // One of its keys, so that this command is in flight there.
    const inFlight = codeOf(up.command('BLPOP', 'list', 0))
    await victim.kill()
    expect(await inFlight).toBe('redis_down')
    await setImmediate()
    expect(up.isUp).toBe(false)
    expect(await up.whenUp(800)).toBe(false)
    await victim.restart()
    expect(await up.whenUp(10_000)).toBe(true)
  })

  it('leaves nothing behind when it is closed', async () => {
    const before = process.getActiveResourcesInfo().length
    const up = createRedisLink({ url: cluster.url, name: 'test', deadlineMs: 2000 }, listen().log)
    expect(await up.whenUp(10_000)).toBe(true)
    await up.close()
    await until(() => process.getActiveResourcesInfo().length <= before, 'sockets and timers to be gone')
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
    expect(await up.whenUp(10_000)).toBe(true)
    await up.command('SET', 'k', 'after')
    expect(await second.ask('GET', 'k')).toBe('after')
  })
})
