// Several gateways that share a Redis, as their clients see the limits: one budget over all of them, whatever becomes of
// Redis, and no request that fails for it.

import { afterEach, beforeEach, expect, it } from 'vitest'
import { type Answer, request } from '../support/client.ts'
import type { TestGateway } from '../support/gateway.ts'
import { startInstances } from '../support/instances.ts'
import { type RedisServer, describeWithRedis, startRedis, until } from '../support/redis.ts'

const LIMITS = `
limits:
  per-client: {limit: 60, window: 1d, align: UTC}
  wide: {limit: 1000, window: 1h}
  login: {limit: 5, window: 1h, fallback: closed}
  misses: {limit: 5, window: 1h, count: miss}
  failures: {limit: 3, window: 1h, count: failure}
`
const ROUTES = [
  '{path: /login, limits: [login]}',
  '{path: /cached, limits: [misses], cache: {ttl: 1h}}',
  '{path: /guess, limits: [failures]}',
  '{path: /wide, limits: [wide]}',
  '{path: /*, limits: [wide, per-client]}',
]

describeWithRedis('gateways that share limits', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(() => redis.close())

  const startThree = async () => {
    const { all, origin } = await startInstances(3, redis.url, {
      routes: ROUTES,
      more: LIMITS,
      script({ url }, response) {
        response.statusCode = url === '/guess' ? 401 : 200
        response.end('fine')
      },
    })
    return { all, origin, first: all[0] as TestGateway, second: all[1] as TestGateway }
  }
  const get = ({ url }: TestGateway, path: string): Promise<Answer> => request(url + path)
  const health = async (gateway: TestGateway) =>
    JSON.parse((await get(gateway, '/health')).text) as { status: string; redis: string }
  const decisions = ({ gateway }: TestGateway, labels: string): number => {
    const lines = gateway.metrics().split('\n')
    const line = lines.find((each) => each.startsWith(`weirgate_limit_decisions_total{${labels}} `))
    return Number(line?.split(' ').at(-1) ?? 0)
  }
  const metric = ({ gateway }: TestGateway, name: string): number => {
    const line = gateway
      .metrics()
      .split('\n')
      .find((each) => each.startsWith(`${name} `))
    return Number(line?.split(' ').at(-1))
  }
  const whenLost = (all: readonly TestGateway[]) =>
    until(() => all.every(({ gateway }) => gateway.health().redis === 'down'), 'all to know that Redis is lost')

  it('admit as many requests together as the policy says, and tell of one budget', async () => {
    const { all, origin } = await startThree()
    const answers: Answer[] = []
    for (let i = 0; i < 30; i++) answers.push(...(await Promise.all(all.map((gateway) => get(gateway, `/x${i}`)))))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(60)
    const refused = answers.filter(({ status }) => status === 429)
    expect(refused).toHaveLength(30)
    expect(origin.seen).toHaveLength(60)
    const left = answers
      .filter(({ status }) => status === 200)
      .map(({ headers }) => Number(headers['x-ratelimit-remaining']))
    expect(left.toSorted((a, b) => b - a)).toEqual(Array.from({ length: 60 }, (_, i) => 59 - i))
    expect(refused[0]?.headers['ratelimit']).toMatch(/^"per-client";r=0;t=\d+$/)
    expect(Number(refused[0]?.headers['retry-after'])).toBeGreaterThanOrEqual(1)
    const count = (labels: string) => all.reduce((sum, gateway) => sum + decisions(gateway, labels), 0)
    expect(count('policy="per-client",result="admitted",source="redis"')).toBe(60)
    const asked = count('policy="per-client",result="refused",source="redis"')
    for (const gateway of all) {
      expect(metric(gateway, 'weirgate_limit_batch_requests_sum')).toBeGreaterThanOrEqual(20)
      expect(metric(gateway, 'weirgate_limit_wait_seconds_sum')).toBeGreaterThan(0)
      expect(metric(gateway, 'weirgate_limit_redis_used')).toBe(1)
      expect(metric(gateway, 'weirgate_limit_subjects{where="redis"}')).toBe(1)
    }
    expect(asked + count('policy="per-client",result="refused",source="remembered"')).toBe(30)
  })

  it('charge only what the upstream is asked for, or what fails, where the policy says so', async () => {
    const { all, origin, first, second } = await startThree()
    for (let i = 0; i < 10; i++) for (const gateway of all) expect((await get(gateway, '/cached')).status).toBe(200)
    expect(origin.seen.length).toBeLessThanOrEqual(3)
    const statuses: number[] = []
    for (let i = 0; i < 4; i++) statuses.push((await get(i % 2 === 0 ? first : second, '/guess')).status)
    expect(statuses).toEqual([401, 401, 401, 429])
  })

  it('keep what was used when they are configured anew', async () => {
    const { first, second, origin } = await startThree()
    for (let i = 0; i < 10; i++) await get(first, '/x')
    first.rewrite(`
upstreams: {origin: {targets: [${origin.url}]}}
defaults: {upstream: origin}
redis: {url: "${redis.url}", deadline: 2s}
limits:
  new-one: {limit: 7, window: 1h}
  per-client: {limit: 70, window: 1d, align: UTC}
routes: [{path: /*, limits: [new-one, per-client]}]
`)
    expect(await first.gateway.reload()).toMatchObject({ ok: true })
    expect((await get(first, '/x')).headers['ratelimit']).toMatch(/^"new-one";r=6;t=\d+, "per-client";r=59;t=\d+$/)
    expect((await get(second, '/x')).headers['x-ratelimit-remaining']).toBe('48')
  })

  it('go on without Redis, each with its share, and with 503 where the policy is closed', async () => {
    const { all, first } = await startThree()
    for (let i = 0; i < 10; i++) await get(first, '/x')
    await redis.kill()
    await whenLost(all)
    expect(await health(first)).toMatchObject({ status: 'degraded', redis: 'down' })
    expect(metric(first, 'weirgate_limit_redis_used')).toBe(0)
    const answers = await Promise.all(all.flatMap((gateway) => Array.from({ length: 40 }, () => get(gateway, '/x'))))
    const admitted = answers.filter(({ status }) => status === 200).length
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(120 - admitted)
    // How many there are is told every 2 s: each may still have known of fewer.
    expect(admitted).toBeGreaterThanOrEqual(48)
    expect(admitted).toBeLessThanOrEqual(40 * 3)
    const { status, headers, text } = await get(first, '/login')
    expect([status, headers['retry-after'], (JSON.parse(text) as { code: string }).code]).toEqual([
      503,
      '1',
      'limits_unavailable',
    ])
    expect(decisions(first, 'policy="per-client",result="admitted",source="share"')).toBeGreaterThan(0)
    expect(decisions(first, 'policy="login",result="refused",source="closed"')).toBe(1)
    await redis.restart()
    await until(() => all.every(({ gateway }) => gateway.health().redis === 'ok'), 'all to have Redis again')
    expect((await get(first, '/login')).status).toBe(200)
  })

  it.each([
    ['dies', () => redis.kill(), () => redis.restart()],
    ['hangs', async () => redis.pause(), async () => redis.resume()],
  ])('say in one line each that Redis %s and that it is back', async (_how, lose, find) => {
    const { all, first } = await startThree()
    const uses = 'cache, feed, limits, purges'
    const told = () =>
      first.log.flatMap(({ message, redis: name }) =>
        String(message).startsWith('Redis is ') ? [[message, name]] : [],
      )
    await until(() => told().length > 0, 'the first line')
    await lose()
    await whenLost(all)
    await until(() => told().length > 1, 'the second line')
    await find()
    await until(() => all.every(({ gateway }) => gateway.health().redis === 'ok'), 'all to have Redis again')
    await until(() => told().length > 2, 'the third line')
    expect(told()).toEqual([
      ['Redis is up', uses],
      ['Redis is down', uses],
      ['Redis is up', uses],
    ])
  })

  it('answer every request while Redis is started anew under them', async () => {
    const { all } = await startThree()
    const asking = Promise.all(
      all.map(async (gateway) => {
        const statuses = new Set<number>()
        for (let i = 0; i < 60; i++) statuses.add((await get(gateway, '/wide')).status)
        return statuses
      }),
    )
    await redis.restart()
    for (const statuses of await asking) expect(statuses).toEqual(new Set([200]))
  })
})
