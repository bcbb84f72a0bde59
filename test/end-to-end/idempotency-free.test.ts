// An Idempotency-Key freed by hand: which requests can be sent again then, by whom, and at which instances.

import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { startEdge } from '../support/edge.ts'
import { type TestGateway, until } from '../support/gateway.ts'
import { type InstancesOptions, startInstances } from '../support/instances.ts'
import { KEY, type Sent, codeOf, gate, isReplayed, send } from '../support/keyed.ts'
import type { Script } from '../support/origin.ts'
import { runGateway } from '../support/process.ts'
import { type RedisServer, describeWithRedis, startRedis } from '../support/redis.ts'

const ROUTE = '/*'
const BOB: Sent = { headers: { Authorization: 'Bearer bob' } }

/** What the admin port answers. */
async function free({ adminUrl }: Pick<TestGateway, 'adminUrl'>, key = KEY, route = ROUTE) {
  const response = await fetch(`${adminUrl}/api/idempotency/free`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ route, key }),
  })
  return { status: response.status, json: (await response.json()) as Record<string, unknown> }
}

/** Answers in this order, and 201 from then on. */
const answering =
  (...statuses: readonly number[]): Script =>
  (_request, response, count) =>
    void response.writeHead(statuses[count - 1] ?? 201).end(`deed ${count}`)

const start = (...statuses: readonly number[]) =>
  startEdge({
    routes: ['{path: /*, idempotency: true}', '{path: /free/*}'],
    script: answering(...statuses),
  })

describe('a key that is freed', () => {
  it('is that of a first request again, where nobody knew what had become of the last', async () => {
    const { gateway, origin } = await start(500)
    expect((await send(gateway)).status).toBe(500)
    expect(codeOf(await send(gateway))).toBe('idempotency_unknown')
    const { status, json } = await free(gateway)
    expect([status, json]).toEqual([
      200,
      { route: ROUTE, key_digest: expect.stringMatching(/^[\w-]{22}$/), freed: 1, shared: null },
    ])
    expect((await send(gateway)).text).toBe('deed 2')
    expect(isReplayed(await send(gateway))).toBe(true)
    expect(origin.seen).toHaveLength(2)
  })

  it('is free for all who have sent it, and no other is', async () => {
    const { gateway, origin } = await start(500, 502, 504)
    await send(gateway)
    await send(gateway, BOB)
    await send(gateway, { key: `${KEY}-2` })
    expect((await free(gateway)).json).toMatchObject({ freed: 2 })
    expect([(await send(gateway)).status, (await send(gateway, BOB)).status]).toEqual([201, 201])
    expect(codeOf(await send(gateway, { key: `${KEY}-2` }))).toBe('idempotency_unknown')
    expect(origin.seen).toHaveLength(5)
  })

  it('may be given bare or as a String, as in requests', async () => {
    const { gateway } = await start(500)
    await send(gateway)
    expect((await free(gateway, `"${KEY}"`)).json).toMatchObject({ freed: 1 })
  })

  it('stays done once where it is known what became of its request, or where that is under way', async () => {
    const { script, waiting } = gate()
    const { gateway, origin } = await startEdge({ routes: ['{path: /*, idempotency: {maxAnswer: 10B}}'], script })
    const done = send(gateway)
    await until(() => waiting.length === 1, 'a request')
    expect((await free(gateway)).json).toMatchObject({ freed: 0 })
    waiting[0]?.()
    expect((await done).status).toBe(201)
    expect((await free(gateway)).json).toMatchObject({ freed: 0 })
    expect(isReplayed(await send(gateway))).toBe(true)
    const large = send(gateway, { key: 'large' })
    await until(() => waiting.length === 2, 'another request')
    waiting[1]?.(201, 'more than is kept')
    await large
    expect((await free(gateway, 'large')).json).toMatchObject({ freed: 0 })
    expect(codeOf(await send(gateway, { key: 'large' }))).toBe('idempotency_not_kept')
    expect(origin.seen).toHaveLength(2)
  })

  it('is in the log, which does not tell the key', async () => {
    const { gateway } = await start(500)
    await send(gateway)
    const { json } = await free(gateway)
    const line = gateway.log.find(({ message }) => message === 'Admin change')
    expect(line).toMatchObject({ path: '/api/idempotency/free', status_code: 200, client_ip: '127.0.0.1', ...json })
    expect(JSON.stringify(gateway.log)).not.toContain(KEY)
  })

  it.each([
    [
      'a route that there is not',
      KEY,
      '/nowhere',
      404,
      /^There is no route \/nowhere with Idempotency-Keys\. These have: \/\*\.$/,
    ],
    [
      'a route without keys',
      KEY,
      '/free/*',
      404,
      /^There is no route \/free\/\* with Idempotency-Keys\. These have: \/\*\.$/,
    ],
    ['what is no key', 'two words', ROUTE, 400, /^Idempotency-Key must be one text of 1 to 255 visible ASCII/],
    ['no key at all', '', ROUTE, 400, /^Idempotency-Key must be/],
    ['a key that is too long', 'x'.repeat(2000), ROUTE, 400, /^key: expected at most 1024 characters$/],
  ])('is refused for %s', async (_what, key, route, status, detail) => {
    const { gateway } = await start()
    const answer = await free(gateway, key, route)
    expect(answer.status).toBe(status)
    expect(answer.json['detail']).toMatch(detail)
  })
})

describeWithRedis('a key that is freed at one of several instances', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(() => redis.close())

  const startAll = async (more: InstancesOptions = {}) => {
    const { all, ...rest } = await startInstances(2, redis.url, {
      routes: ['{path: /*, idempotency: true}'],
      ...more,
    })
    return { ...rest, gateways: all as [TestGateway, TestGateway] }
  }

  it('is free at all of them, and done once again', async () => {
    const { gateways, origin } = await startAll({ script: answering(500, 502) })
    const [a, b] = gateways
    expect((await send(a)).status).toBe(500)
    expect((await send(b, BOB)).status).toBe(502)
    for (const gateway of gateways) expect(codeOf(await send(gateway))).toBe('idempotency_unknown')
    expect((await free(b)).json).toMatchObject({ freed: 2, shared: true })
    expect((await send(a)).text).toBe('deed 3')
    expect(isReplayed(await send(b))).toBe(true)
    expect((await send(a, BOB)).text).toBe('deed 4')
    expect((await free(a)).json).toMatchObject({ freed: 0, shared: true })
    expect(origin.seen).toHaveLength(4)
  })

  it(
    'is free where the instance that ran it has been killed, once somebody was told so',
    { timeout: 60_000 },
    async () => {
      const { script, waiting } = gate()
      const { gateways, origin } = await startAll({ script })
      const dying = await runGateway(`
redis: {url: "${redis.url}", deadline: 2s}
upstreams: {origin: {targets: [${origin.url}]}}
defaults: {upstream: origin}
routes: [{path: /*, idempotency: true}]
`)
      const first = send(dying).catch(() => 'broken')
      await until(() => waiting.length === 1, 'the request')
      expect((await free(gateways[0])).json).toMatchObject({ freed: 0 })
      const waits = send(gateways[0])
      dying.kill('SIGKILL')
      expect(await first).toBe('broken')
      expect(codeOf(await waits)).toBe('idempotency_unknown')
      expect((await free(gateways[1])).json).toMatchObject({ freed: 1, shared: true })
      const again = send(gateways[1])
      await until(() => waiting.length === 2, 'it to be sent again')
      waiting[1]?.()
      expect((await again).status).toBe(201)
      expect(isReplayed(await send(gateways[0]))).toBe(true)
    },
  )

  it('is not free while Redis does not say so', async () => {
    const { gateways, origin } = await startAll({ script: answering(500), redis: 'deadline: 200ms' })
    const [a] = gateways
    await send(a)
    await redis.kill()
    expect((await free(a)).json).toMatchObject({ freed: 0, shared: false })
    expect(codeOf(await send(a))).toBe('idempotency_unknown')
    expect(origin.seen).toHaveLength(1)
  })
})
