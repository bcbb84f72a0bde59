// `kind: concurrency` across gateways that share a Redis: the upstream never has more at once than the limit says, and no
// request fails because Redis does.

import type { ServerResponse } from 'node:http'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { type Answer, converse, request } from '../support/client.ts'
import type { TestGateway } from '../support/gateway.ts'
import { startInstances } from '../support/instances.ts'
import { type RedisServer, describeWithRedis, startRedis, until } from '../support/redis.ts'

const LIMITS = `
limits:
  slots: {kind: concurrency, limit: 5}
  full: {kind: concurrency, limit: 5, fallback: full}
  closed: {kind: concurrency, limit: 5, fallback: closed}
`
const ROUTES = [
  '{path: /full, limits: [full]}',
  '{path: /closed, limits: [closed]}',
  '{path: /*, limits: [slots], retries: 0}',
]

describeWithRedis('slots of gateways that share a Redis', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(() => redis.close())

  /** Gateways before an origin whose answers wait to be given. */
  const start = async (count: number) => {
    const owed: ServerResponse[] = []
    let inFlight = 0
    let most = 0
    const { all } = await startInstances(count, redis.url, {
      routes: ROUTES,
      more: LIMITS,
      script(_request, response) {
        most = Math.max(most, ++inFlight)
        response.once('close', () => inFlight--)
        owed.push(response)
      },
    })
    const asked = (requests: number) => until(() => owed.length >= requests, `request ${requests} at the origin`)
    /** Ends the answers that are due, as they come, until `done`. */
    const answerUntil = async (done: Promise<unknown>): Promise<void> => {
      const timer = setInterval(() => owed.splice(0).forEach((response) => response.end('fine')), 1)
      await done.finally(() => clearInterval(timer))
    }
    const [first, second] = all as [TestGateway, TestGateway]
    return { all, first, second, owed, asked, answerUntil, most: () => most }
  }
  const get = ({ url }: TestGateway, path = '/x'): Promise<Answer> => request(url + path)
  const slotsTaken = async () => {
    const keys = (await redis.ask('--scan', '--pattern', 'weirgate:s1:*')).split('\n').filter(Boolean)
    const counts = await Promise.all(keys.map((key) => redis.ask('ZCARD', key)))
    return counts.reduce((sum, count) => sum + Number(count), 0)
  }
  const noneTaken = () => until(async () => (await slotsTaken()) === 0, 'all slots to be given back')
  /** Answered by the origin as soon as there is a slot. */
  const getWhenFree = async (gateway: TestGateway): Promise<void> => {
    await until(async () => (await get(gateway)).status === 200, 'a free slot')
  }

  it('let no more through than the limit, and answer or refuse everybody', async () => {
    const { all, asked, answerUntil, most } = await start(3)
    const clients = Promise.all(
      all.flatMap((gateway) =>
        Array.from({ length: 20 }, async () => {
          const statuses: number[] = []
          while (statuses.at(-1) !== 200) statuses.push((await get(gateway)).status)
          return statuses
        }),
      ),
    )
    await asked(5)
    await answerUntil(clients)
    const statuses = (await clients).flat()
    expect(statuses.filter((status) => status === 200)).toHaveLength(60)
    expect(statuses.every((status) => status === 200 || status === 429)).toBe(true)
    expect(most()).toBe(5)
    await noneTaken()
  })

  it('tell of one budget, and when to come back', async () => {
    const { first, second, owed, asked } = await start(2)
    const held = [get(first), get(second), get(second), get(first), get(second)]
    await asked(5)
    const { status, headers } = await get(first)
    expect([status, headers['retry-after'], headers['ratelimit']]).toEqual([429, '1', '"slots";r=0;t=1'])
    owed.splice(0).forEach((response) => response.end())
    const left = (await Promise.all(held)).map((answer) => Number(answer.headers['x-ratelimit-remaining']))
    expect(left.toSorted((a, b) => a - b)).toEqual([0, 1, 2, 3, 4])
  })

  it('come free at once when a client goes, for whoever asks next', async () => {
    const { first, second, owed, asked, answerUntil } = await start(2)
    const clients = await Promise.all(
      Array.from({ length: 5 }, () => converse(first.port, 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n')),
    )
    await asked(5)
    expect((await get(second)).status).toBe(429)
    clients[0]?.destroy()
    owed.length = 0
    await answerUntil(getWhenFree(second))
    for (const client of clients) client.destroy()
    await noneTaken()
  })

  it('come free when a gateway is shut down', async () => {
    const { first, second, asked, answerUntil, owed } = await start(2)
    const clients = await Promise.all(
      Array.from({ length: 5 }, () => converse(first.port, 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n')),
    )
    await asked(5)
    await first.close()
    await Promise.all(clients.map((client) => client.end()))
    owed.length = 0
    expect(await slotsTaken()).toBe(0)
    await answerUntil(getWhenFree(second))
  })

  it('are shares of each gateway while Redis is lost, and no request fails for it', async () => {
    const { all, first, owed, asked, answerUntil, most } = await start(3)
    await until(() => all.every(({ gateway }) => gateway.health().redis === 'ok'), 'all to have Redis')
    await until(async () => (await redis.ask('ZCARD', 'weirgate:instances')) === '3', 'all to be known')
    await redis.kill()
    await until(() => all.every(({ gateway }) => gateway.health().redis === 'down'), 'all to know that Redis is lost')
    const answers: Promise<Answer>[] = Array.from({ length: 12 }, () => get(first))
    await asked(1)
    await first.requestLines(7)
    expect((await get(first, '/closed')).status).toBe(503)
    const full = Array.from({ length: 12 }, () => get(first, '/full'))
    await asked(6)
    await answerUntil(Promise.all([...answers, ...full]))
    const served = async (asked: Promise<Answer>[]) => (await Promise.all(asked)).filter(({ status }) => status === 200)
    expect((await served(answers)).length).toBeLessThanOrEqual(5)
    expect((await served(answers)).length).toBeGreaterThanOrEqual(1)
    expect(most()).toBeLessThanOrEqual(10)
    expect(owed).toEqual([])
    await redis.restart()
    await until(() => all.every(({ gateway }) => gateway.health().redis === 'ok'), 'all to have Redis again')
    await answerUntil(getWhenFree(first))
  })
})
