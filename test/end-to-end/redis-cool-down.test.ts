// An upstream that has asked one instance to be left alone is left alone by all that share a Redis; and no request waits or
// fails because of that Redis.

import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest'
import { request } from '../support/client.ts'
import type { TestGateway } from '../support/gateway.ts'
import { startInstances } from '../support/instances.ts'
import { type RedisServer, describeWithRedis, startRedis, startRelay, until } from '../support/redis.ts'

const COOLING = 'Upstream target is left alone, as it has asked'
const isCooling = ({ gateway }: TestGateway): boolean =>
  gateway.upstreams().some(({ targets }) => targets.some(({ cooling_until }) => cooling_until !== null))
const codeOf = async ({ url }: TestGateway): Promise<unknown> => {
  const { status, text } = await request(url)
  return status === 503 && text.startsWith('{') ? (JSON.parse(text) as { code: string }).code : status
}

describeWithRedis('a cool-down of gateways that share a Redis', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(() => redis.close())

  /** Gateways before an origin that refuses the first request. */
  const start = async (count: number, retryAfter = '40') => {
    const instances = await startInstances(count, redis.url, {
      routes: ['{path: /*}'],
      upstream: 'refusals: {coolDown: unavailable, wait: 0s}, health: {failures: 0}',
      script(_message, response, nth) {
        if (nth === 1) response.writeHead(503, { 'Retry-After': retryAfter }).end('refused')
        else response.end('fine')
      },
    })
    return { ...instances, first: instances.all[0] as TestGateway, second: instances.all[1] as TestGateway }
  }

  it('is that of all of them, and of who comes later', async () => {
    const { first, second, add, origin } = await start(2)
    expect((await request(first.url)).text).toBe('refused')
    await until(() => isCooling(second), 'the other to have heard')
    const third = await add()
    await until(() => isCooling(third), 'the new one to know')
    expect(await Promise.all([first, second, third].map(codeOf))).toEqual(Array(3).fill('cooling_down'))
    expect(origin.seen).toHaveLength(1)
    const [key = ''] = (await redis.ask('--scan', '--pattern', 'weirgate:cool-down:*')).split('\n')
    expect(Number(await redis.ask('PTTL', key))).toBeGreaterThan(20_000)
    expect(Number(await redis.ask('PTTL', key))).toBeLessThanOrEqual(40_000)
    const told = second.log.filter(({ message }) => message === COOLING)
    expect(told).toMatchObject([{ reason: 'told by another instance, 40 s' }])
    // Nobody hears himself.
    expect(first.log.filter(({ message }) => message === COOLING)).toHaveLength(1)
  })

  it('is over for all of them', async () => {
    const { first, second } = await start(2, '1')
    await request(first.url)
    await until(() => isCooling(second), 'the other to have heard')
    await until(() => !isCooling(first) && !isCooling(second), 'the end of it')
    expect(await Promise.all([first, second].map(codeOf))).toEqual([200, 200])
  })

  it('is not made longer by what an instance hears of itself', async () => {
    const relay = await startRelay(redis.port)
    onTestFinished(() => relay.close())
    const { second, add } = await start(2, '1')
    const far = await add(relay.url)
    relay.delayMs = 500
    await request(far.url)
    await until(() => isCooling(second), 'another to have heard')
    await until(() => !isCooling(far) && !isCooling(second), 'the end of it')
    expect(far.log.filter(({ message }) => message === COOLING)).toHaveLength(1)
  })

  it('is caught up with by who has missed it', async () => {
    const relay = await startRelay(redis.port)
    onTestFinished(() => relay.close())
    const { first, add } = await start(1)
    const second = await add(relay.url)
    relay.stall()
    await request(first.url)
    expect(isCooling(second)).toBe(false)
    relay.cut('reset')
    relay.release()
    await until(() => isCooling(second), 'the other to have heard')
    expect(await codeOf(second)).toBe('cooling_down')
  })

  it("is each one's own while Redis is lost, and no request fails for that", async () => {
    const { first, second } = await start(2)
    await redis.kill()
    expect((await request(first.url)).text).toBe('refused')
    expect([isCooling(first), isCooling(second)]).toEqual([true, false])
    expect(await Promise.all([first, second].map(codeOf))).toEqual(['cooling_down', 200])
  })
})
