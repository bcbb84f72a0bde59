// One deed for each Idempotency-Key over all instances that share a Redis, and what is left of that while it is lost.

import { afterEach, beforeEach, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import type { TestGateway } from '../support/gateway.ts'
import { type InstancesOptions, startInstances } from '../support/instances.ts'
import { KEY, codeOf, gate, isReplayed, send } from '../support/keyed.ts'
import { runGateway } from '../support/process.ts'
import { type RedisServer, describeWithRedis, startRedis, until } from '../support/redis.ts'

const ROUTE = '{path: /*, idempotency: true}'

const metric = ({ gateway }: TestGateway, series: string): number =>
  Number(new RegExp(`^${series.replaceAll(/[{}]/g, String.raw`\$&`)} (\\d+)$`, 'm').exec(gateway.metrics())?.[1])

describeWithRedis('Idempotency-Keys of several instances', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(() => redis.close())

  const start = (options = 'true', more: InstancesOptions = {}) =>
    startInstances(2, redis.url, { routes: [`{path: /*, idempotency: ${options}}`], ...more })

  it('answer with what another has recorded, whatever its bytes', async () => {
    const body = Buffer.from(Array.from({ length: 5000 }, (_, i) => i % 256))
    const { all, origin } = await start('true', {
      script: (_r, response) => void response.writeHead(201, { 'X-Name': 'h\u00e9' }).end(body),
    })
    const [a, b] = all as [TestGateway, TestGateway]
    const first = await send(a)
    const again = await send(b)
    expect([again.status, isReplayed(again), again.headers['x-name']]).toEqual([201, true, first.headers['x-name']])
    expect(again.body.equals(body)).toBe(true)
    expect((await send(b, { body: 'other' })).status).toBe(422)
    expect((await send(b, { headers: { Authorization: 'Bearer bob' } })).status).toBe(201)
    expect(origin.seen).toHaveLength(2)
  })

  it('do one deed for a hundred requests at the same time', async () => {
    const { script, waiting } = gate()
    const { all, origin } = await start('true', { script })
    const sent = Array.from({ length: 100 }, (_, i) => send(all[i % 2] as TestGateway))
    await until(() => waiting.length === 1, 'the first request')
    waiting[0]?.(200, 'x'.repeat(100_000))
    const answers = await Promise.all(sent)
    expect(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size).toBe(1)
    expect(answers.filter(isReplayed)).toHaveLength(99)
    expect(origin.seen).toHaveLength(1)
  })

  it('share that a key is free again, not known, not kept, or of another request', async () => {
    const answers = [503, 201, 500]
    const { all, origin } = await start('{maxAnswer: 1KiB}', {
      script: (_r, response, count) => {
        const status = answers[count - 1]
        if (status === undefined) response.end('x'.repeat(2000))
        else response.writeHead(status).end()
      },
    })
    const [a, b] = all as [TestGateway, TestGateway]
    expect((await send(a)).status).toBe(503)
    expect((await send(b)).status).toBe(201)
    expect(isReplayed(await send(a))).toBe(true)
    expect((await send(a, { key: 'unknown' })).status).toBe(500)
    expect(codeOf(await send(b, { key: 'unknown' }))).toBe('idempotency_unknown')
    expect(codeOf(await send(a, { key: 'unknown' }))).toBe('idempotency_unknown')
    expect((await send(a, { key: 'large' })).status).toBe(200)
    expect(codeOf(await send(b, { key: 'large' }))).toBe('idempotency_not_kept')
    expect(codeOf(await send(a, { key: 'large' }))).toBe('idempotency_not_kept')
    expect(origin.seen).toHaveLength(4)
  })

  it('of which one retries what is not known tell the others what came of it', async () => {
    const { all, origin } = await start('{unknown: retry}', {
      script: (_r, response, count) => void response.writeHead(count === 1 ? 500 : 201).end(),
    })
    const [a, b] = all as [TestGateway, TestGateway]
    expect((await send(a)).status).toBe(500)
    expect((await send(b)).status).toBe(201)
    expect(isReplayed(await send(a))).toBe(true)
    expect(origin.seen).toHaveLength(2)
  })

  it('write neither keys nor users nor bodies into names, and all of it ends by itself', async () => {
    const { all } = await start('{for: 1h}', { redis: 'deadline: 2s, secret: 0123456789abcdef' })
    await send(all[0] as TestGateway)
    const name = await redis.ask('--scan', '--pattern', 'weirgate:idempotency:*')
    expect(name).toMatch(/^weirgate:idempotency:\{[\w-]{22}\}[\w-]{22}$/)
    const lifeMs = Number(await redis.ask('PTTL', name))
    expect(lifeMs).toBeGreaterThan(3_500_000)
    expect(lifeMs).toBeLessThanOrEqual(3_600_000)
    expect(await redis.ask('HMGET', name, 'f', 's', 't')).not.toMatch(/alice|8e03978e|"n"/)
  })

  it('do not send again what was under way when its instance was killed', { timeout: 60_000 }, async () => {
    const { script, waiting } = gate()
    const { all, origin } = await startInstances(1, redis.url, { routes: [ROUTE], script })
    const [b] = all as [TestGateway]
    const a = await runGateway(`
redis: {url: "${redis.url}", deadline: 2s}
upstreams: {origin: {targets: [${origin.url}]}}
defaults: {upstream: origin}
routes: [${ROUTE}]
`)
    const first = send(a).catch(() => 'broken')
    await until(() => waiting.length === 1, 'the request')
    const waits = send(b)
    a.kill('SIGKILL')
    expect(await first).toBe('broken')
    expect(codeOf(await waits)).toBe('idempotency_unknown')
    expect(codeOf(await send(b))).toBe('idempotency_unknown')
    expect(origin.seen).toHaveLength(1)
  })

  it('hear at once of what an instance leaves undone that ends by itself', async () => {
    const { script, waiting } = gate()
    const { all, origin } = await start('true', { script })
    const [a, b] = all as [TestGateway, TestGateway]
    const first = send(a).catch(() => null)
    await until(() => waiting.length === 1, 'the request')
    const waits = send(b)
    await a.close()
    await first
    expect(codeOf(await waits)).toBe('idempotency_unknown')
    expect(origin.seen).toHaveLength(1)
  })

  it('go on by themselves while Redis is lost, and tell it afterwards what they have done', async () => {
    const { script, waiting } = gate()
    const { all, origin } = await start('true', { script, redis: 'deadline: 200ms' })
    const [a, b] = all as [TestGateway, TestGateway]
    const first = send(a)
    await until(() => waiting.length === 1, 'the request')
    await redis.kill()
    await until(() => [a, b].every((gateway) => metric(gateway, 'weirgate_redis_up') === 0), 'the loss to be seen')
    waiting[0]?.()
    expect((await first).status).toBe(201)
    // This instance knows; the key is not sent twice by it.
    expect(isReplayed(await send(a))).toBe(true)
    const alone = send(a, { key: 'alone' })
    await until(() => waiting.length === 2, 'a new request')
    waiting[1]?.()
    expect((await alone).status).toBe(201)
    expect(metric(a, 'weirgate_idempotency_requests_total{outcome="local"}')).toBe(1)
    expect(metric(a, 'weirgate_idempotency_owed')).toBe(2)
    await redis.restart()
    await until(() => metric(a, 'weirgate_idempotency_owed') === 0, 'Redis to be told')
    await until(() => metric(b, 'weirgate_redis_up') === 1, 'the other to have Redis')
    for (const key of [KEY, 'alone']) expect(isReplayed(await send(b, { key }))).toBe(true)
    expect(origin.seen).toHaveLength(2)
  })

  it('tell who waits for another instance when Redis is lost, and send nothing', async () => {
    const { script, waiting } = gate()
    const { all, origin } = await start('true', { script, redis: 'deadline: 200ms' })
    const [a, b] = all as [TestGateway, TestGateway]
    const first = send(a)
    await until(() => waiting.length === 1, 'the request')
    const waits = send(b)
    await until(() => metric(b, 'weirgate_idempotency_keys') === 1, 'the other request')
    // It has asked by then: a gateway answers what came before.
    await request(`${b.url}/health`)
    await redis.ask('PING')
    await redis.kill()
    const answer = await waits
    expect([answer.status, codeOf(answer)]).toEqual([409, 'idempotency_in_flight'])
    waiting[0]?.()
    expect((await first).status).toBe(201)
    expect(origin.seen).toHaveLength(1)
  })

  it('send nothing again where what is stored is damaged', async () => {
    const { all, origin } = await start()
    const [a, b] = all as [TestGateway, TestGateway]
    await send(a)
    const name = await redis.ask('--scan', '--pattern', 'weirgate:idempotency:*')
    await until(async () => (await redis.ask('HGET', name, 's')) === 'answered', 'it to be told')
    await redis.ask('HSET', name, 'v', 'nonsense')
    expect(codeOf(await send(b))).toBe('idempotency_not_kept')
    expect(origin.seen).toHaveLength(1)
  })
})
