// Limits on misses that are counted in Redis, and many clients who want the same: charged is who goes to the origin. All
// questions wait at a relay before Redis until every client has come, so nothing here depends on who is faster.

import type { ServerResponse } from 'node:http'
import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest'
import { type Answer, type Conversation, converse, request } from '../support/client.ts'
import { arrived, startGatewayBefore } from '../support/edge.ts'
import type { TestGateway } from '../support/gateway.ts'
import { purgeBy } from '../support/instances.ts'
import { startOrigin } from '../support/origin.ts'
import { type RedisServer, type Relay, describeWithRedis, startRedis, startRelay, until } from '../support/redis.ts'

const LIMITS = `
limits:
  misses: {limit: 10, window: 1h, key: 'header:x-user', count: miss}
  slots: {kind: concurrency, limit: 2, key: route}
identity: {user: [{header: x-user}]}
`
const ROUTES = [
  '{path: /stale/*, limits: [misses], onLimited: stale, cache: {ttl: 1h, scope: public, stale: {ifError: 1h}}}',
  '{path: /shared/*, limits: [misses, slots], cache: {ttl: 1h, scope: public, collapse: shared}}',
  '{path: /*, limits: [misses, slots], cache: {ttl: 1h, scope: public}}',
]

describeWithRedis('clients of one cold key, under a limit on misses', () => {
  let redis: RedisServer
  let relay: Relay
  beforeEach(async () => {
    redis = await startRedis()
    relay = await startRelay(redis.port)
  })
  afterEach(async () => {
    await relay.close()
    await redis.close()
  })

  /** A gateway that asks through the relay, and another that does not, before an origin whose answers wait to be given. */
  const start = async () => {
    const owed: ServerResponse[] = []
    const origin = await startOrigin((_request, response) => void owed.push(response))
    onTestFinished(() => origin.close())
    const startOne = (url: string) =>
      startGatewayBefore(origin.url, {
        routes: ROUTES,
        upstream: 'retries: 0',
        more: `redis: {url: "${url}", deadline: 10s}\n${LIMITS}`,
      })
    const gateway = await startOne(relay.url)
    const other = await startOne(redis.url)
    const asked = (count: number) => until(() => owed.length >= count, `request ${count} at the origin`)
    /** Uses up what a user may miss. */
    const exhaust = async (user: string) => {
      for (let i = 0; i < 10; i++) {
        const answer = get(other, `/spent/${user}/${i}`, user)
        await until(() => owed.length > 0, 'a request at the origin')
        owed.splice(0).forEach((response) => response.end('spent'))
        expect((await answer).status).toBe(200)
      }
    }
    return { gateway, other, owed, asked, exhaust }
  }
  const get = ({ url }: TestGateway, path: string, user = 'ann'): Promise<Answer> =>
    request(url + path, { headers: { 'x-user': user } })
  const hold = ({ port }: TestGateway, path: string, user: string): Promise<Conversation> =>
    converse(port, `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nX-User: ${user}\r\n\r\n`)
  /** What a user has left, as Redis counts it. */
  const left = async ({ adminUrl }: TestGateway, user: string) => {
    const response = await fetch(`${adminUrl}/api/limits/misses?header:x-user=${user}`)
    return ((await response.json()) as { remaining: number }).remaining
  }
  /** How often a policy has said so, by whoever has decided. */
  const decided = ({ gateway }: TestGateway, policy: string, result: string): number =>
    gateway
      .metrics()
      .split('\n')
      .filter((line) => line.startsWith(`weirgate_limit_decisions_total{policy="${policy}",result="${result}"`))
      .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
  const slotsTaken = async () => Number(await redis.ask('EVAL', COUNT_SLOTS, '0'))

  it('cost one unit and one slot, however many they are, and never more for a moment', async () => {
    const { gateway, other, owed, asked } = await start()
    relay.stall()
    const answers = Array.from({ length: 200 }, () => get(gateway, '/x'))
    await arrived(gateway, 200)
    relay.release()
    await asked(1)
    expect([await left(other, 'ann'), await slotsTaken()]).toEqual([9, 1])
    owed[0]?.end('one')
    const words = (await Promise.all(answers)).map(({ status, headers }) => `${status} ${String(headers['x-cache'])}`)
    expect(words.toSorted()).toEqual([...Array.from({ length: 199 }, () => '200 COLLAPSED'), '200 MISS'])
    expect(owed).toHaveLength(1)
    // All that was ever charged, given back or not.
    expect([decided(gateway, 'misses', 'admitted'), decided(gateway, 'slots', 'admitted')]).toEqual([1, 1])
    await until(async () => (await slotsTaken()) === 0, 'the slot to be given back')
    expect(await left(other, 'ann')).toBe(9)
  })

  it('cost one unit and one slot of all instances where those share a fetch', async () => {
    const { gateway, other, owed, asked } = await start()
    const both = [gateway, other]
    // By one name, so that the key is the same.
    const headers = { Host: 'shop.test', 'x-user': 'ann' }
    const answers = both.flatMap(({ url }) => Array.from({ length: 50 }, () => request(`${url}/shared/x`, { headers })))
    for (const each of both) await arrived(each, 50)
    await asked(1)
    owed[0]?.end('one')
    for (const { status, text } of await Promise.all(answers)) expect([status, text]).toEqual([200, 'one'])
    const admitted = (policy: string) => both.reduce((sum, each) => sum + decided(each, policy, 'admitted'), 0)
    expect([owed.length, admitted('misses'), admitted('slots')]).toEqual([1, 1, 1])
  })

  it('are answered where the first of them is refused and another has units left', async () => {
    const { gateway, other, owed, asked, exhaust } = await start()
    await exhaust('ann')
    const seen = owed.length
    relay.stall()
    const refused = [get(gateway, '/x', 'ann')]
    await arrived(gateway, 1)
    refused.push(get(gateway, '/x', 'ann'))
    await arrived(gateway, 2)
    const admitted = [get(gateway, '/x', 'bob'), get(gateway, '/x', 'cat')]
    await arrived(gateway, 4)
    relay.release()
    await asked(seen + 1)
    owed[seen]?.end('one')
    expect((await Promise.all(refused)).map(({ status }) => status)).toEqual([429, 429])
    expect((await Promise.all(admitted)).map(({ status, text }) => [status, text])).toEqual([
      [200, 'one'],
      [200, 'one'],
    ])
    const units = (await left(other, 'bob')) + (await left(other, 'cat'))
    expect([units, owed.length, decided(gateway, 'misses', 'admitted')]).toEqual([19, seen + 1, 1])
  })

  it('are charged to the next where the first of them leaves before it is decided', async () => {
    const { gateway, other, owed, asked } = await start()
    relay.stall()
    const first = await hold(gateway, '/x', 'ann')
    await arrived(gateway, 1)
    const second = get(gateway, '/x', 'bob')
    await arrived(gateway, 2)
    first.reset()
    await gateway.requestLines(1)
    relay.release()
    await asked(1)
    owed[0]?.end('one')
    expect((await second).text).toBe('one')
    await until(async () => (await left(other, 'ann')) === 10, "the first one's unit to be given back")
    expect([await left(other, 'bob'), owed.length]).toEqual([9, 1])
    await until(async () => (await slotsTaken()) === 0, 'the slots to be given back')
  })

  it('are answered with what is stored, where none of them may ask the origin', async () => {
    const { gateway, owed, asked, exhaust } = await start()
    const before = get(gateway, '/stale/x', 'bob')
    await asked(1)
    owed.splice(0).forEach((response) => response.end('old'))
    await before
    await exhaust('ann')
    await purgeBy(gateway, { all: true, soft: true })
    const seen = owed.length
    relay.stall()
    const answers = Array.from({ length: 20 }, () => get(gateway, '/stale/x', 'ann'))
    await arrived(gateway, 20)
    relay.release()
    for (const { status, headers, text } of await Promise.all(answers)) {
      expect([status, headers['x-cache'], text]).toEqual([200, 'STALE', 'old'])
    }
    expect(owed).toHaveLength(seen)
  })
})

const COUNT_SLOTS = `
local held = 0
for _, key in ipairs(redis.call('KEYS', 'weirgate:s1:*')) do held = held + redis.call('ZCARD', key) end
return held`
