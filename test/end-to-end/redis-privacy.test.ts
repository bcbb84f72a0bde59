// What whoever reads the Redis of a deployment learns from it: nothing that a client has said or was told.

import { readFileSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest'
import { type RequestOptions, request } from '../support/client.ts'
import { startGatewayBefore } from '../support/edge.ts'
import { type TestGateway, until } from '../support/gateway.ts'
import { purgeBy } from '../support/instances.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { type RedisServer, describeWithRedis, startRedis } from '../support/redis.ts'

/** Short, so that nothing is compressed, and each of a kind of its own. */
const PROMPT = 'Zebraprompt'
const ANSWER = 'Zebraanswer'
const BEARER = 'Zebrabearer0123456789'
const QUERY = 'Zebraquery'
const TAG = 'Zebratag'
const IDEMPOTENCY = 'Zebraidempotency0123456789'
const VARIED = 'Zebravaried'

const ROUTES = [
  `{path: /ai/*, methods: [POST], limits: [slots, tokens, mine], idempotency: true, cache: {ttl: 1h, scope: user, collapse: shared, key: {body: canonical}, tags: ["${TAG}"]}}`,
  '{path: /search, limits: [mine], cache: {ttl: 1h, scope: public, collapse: shared, key: {headers: [x-kind]}}}',
  '{path: /plain, limits: [], cache: {ttl: 1h, collapse: shared}}',
  '{path: /pay, methods: [POST], idempotency: true}',
]
const LIMITS = `
limits:
  mine: {limit: 1000, window: 1m, key: [ip, "header:authorization"]}
  tokens: {unit: tokens, limit: 100000, window: 1m, key: "header:authorization", reserve: 100}
  slots: {kind: concurrency, limit: 100, key: "header:authorization"}
`
const sealedBy = (secret: string): string =>
  `deadline: 2s, secret: "${secret}", encrypt: {secrets: ["${secret} and so on and so on"]}`

/** All commands that Redis gets, those of scripts among them, until the test ends. */
async function monitor(redis: RedisServer): Promise<{ readonly text: () => Promise<string> }> {
  const socket = net.connect({ port: redis.port, host: '127.0.0.1' })
  onTestFinished(() => void socket.destroy())
  let seen = ''
  socket.setEncoding('latin1').on('data', (chunk: string) => void (seen += chunk))
  socket.write('MONITOR\r\n')
  await until(() => seen.includes('+OK'), 'the monitor')
  return {
    async text() {
      await redis.ask('ECHO', 'the last one')
      await until(() => seen.includes('the last one'), 'all that was sent')
      return seen
    },
  }
}

describeWithRedis('a Redis that is read by others', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis(['--rdbcompression', 'no'])
  })
  afterEach(() => redis.close())

  const startBackend = async (): Promise<Origin> => {
    const origin = await startOrigin((_message, response) => {
      const usage = { prompt_tokens: 5, completion_tokens: 7, total_tokens: 12 }
      response.writeHead(200, { 'Content-Type': 'application/json', Vary: 'X-Varied', 'X-Told': ANSWER })
      response.end(JSON.stringify({ text: ANSWER, usage }))
    })
    onTestFinished(() => origin.close())
    return origin
  }
  /** Two instances. */
  const start = async (origin: Origin, { url }: RedisServer, secret: string): Promise<readonly TestGateway[]> => {
    const more = `redis: {url: "${url}", ${sealedBy(secret)}}${LIMITS}`
    const first = await startGatewayBefore(origin.url, { routes: ROUTES, more })
    return [first, await startGatewayBefore(origin.url, { routes: ROUTES, more })]
  }

  /** All that may leave traces. */
  async function traffic([first, second]: readonly TestGateway[]): Promise<string[]> {
    const outcomes: string[] = []
    const send = async (gateway: TestGateway | undefined, path: string, options: RequestOptions): Promise<void> => {
      const { status, headers } = await request(`${gateway?.url}${path}`, options)
      outcomes.push(`${status} ${String(headers['x-cache'] ?? headers['idempotency-replayed'])}`)
    }
    const headers = { Host: 'shop.test', Authorization: `Bearer ${BEARER}`, 'X-Varied': VARIED, 'X-Kind': VARIED }
    const body = JSON.stringify({ prompt: PROMPT })
    const ai = { method: 'POST', body, headers: { ...headers, 'Content-Type': 'application/json' } }
    await send(first, '/ai/text', ai)
    await until(() => /tier_writes_total\{tier="redis",result="written"\} 1/.test(first?.gateway.metrics() ?? ''), 'it')
    await send(second, '/ai/text', ai)
    await send(first, `/search?q=${QUERY}`, { headers })
    await send(first, `/plain?q=${QUERY}`, { headers: { Host: 'shop.test' } })
    await send(first, '/pay', { method: 'POST', body, headers: { ...ai.headers, 'Idempotency-Key': IDEMPOTENCY } })
    await send(second, '/pay', { method: 'POST', body, headers: { ...ai.headers, 'Idempotency-Key': IDEMPOTENCY } })
    for (const rule of [{ tags: [TAG] }, { urls: [`http://shop.test/search?q=${QUERY}`] }, { pattern: `/${QUERY}*` }]) {
      expect(await purgeBy(first as TestGateway, rule)).toMatchObject({ shared: true, unacknowledged: [] })
    }
    await send(second, '/ai/text', ai)
    await until(
      () => /tier_writes_total\{tier="redis",result="written"\} 1/.test(second?.gateway.metrics() ?? ''),
      'it',
    )
    return outcomes
  }

  it('holds no prompt, no answer, no credential, and is told none', async () => {
    const heard = await monitor(redis)
    const instances = await start(await startBackend(), redis, 'a secret of one deployment')
    expect(await traffic(instances)).toEqual([
      '200 MISS',
      '200 HIT',
      '200 MISS',
      '200 MISS',
      '200 undefined',
      '200 true',
      '200 MISS',
    ])
    await redis.ask('SAVE')
    const folder = (await redis.ask('CONFIG', 'GET', 'dir')).split('\n')[1] ?? ''
    const dump = readFileSync(join(folder, 'dump.rdb'), 'latin1')
    const told = await heard.text()
    // It sees what is there to be seen.
    for (const text of [dump, told]) expect(text).toMatch(/weirgate:c1:\{/)
    for (const word of ['PUBLISH', 'weirgate:lease:{', 'weirgate:idempotency:{', 'WGS1']) expect(told).toContain(word)
    for (const text of [dump, told]) {
      for (const word of [PROMPT, ANSWER, BEARER, QUERY, TAG, IDEMPOTENCY, VARIED, 'shop.test', 'Zebra']) {
        expect([word, text.includes(word)]).toEqual([word, false])
        expect([word, text.includes(Buffer.from(word).toString('base64').slice(0, 10))]).toEqual([word, false])
      }
    }
  })

  it('is not the only place: logs, metrics and the admin port tell no prompt, answer or credential either', async () => {
    const instances = await start(await startBackend(), redis, 'a secret of one deployment')
    await traffic(instances)
    for (const { log, gateway, adminUrl } of instances) {
      expect(log.length).toBeGreaterThan(2)
      const paths = [
        '/api/stats',
        '/api/limits',
        '/api/limits/mine/top',
        '/api/config',
        '/api/cache/entry?url=/ai/text',
      ]
      const pages = await Promise.all(paths.map(async (path) => (await request(adminUrl + path)).text))
      const texts = [JSON.stringify(log), gateway.metrics(), ...pages]
      for (const text of texts) {
        for (const word of [PROMPT, ANSWER, BEARER, IDEMPOTENCY]) {
          expect([word, text.includes(word)]).toEqual([word, false])
        }
        expect(text).not.toContain('a secret of one')
      }
    }
  })

  it('cannot be tried with guesses: of two deployments that served the same, no name is in both', async () => {
    const origin = await startBackend()
    const namesIn = async (secret: string): Promise<Set<string>> => {
      const own = await startRedis()
      onTestFinished(() => own.close())
      const heard = await monitor(own)
      await traffic(await start(origin, own, secret))
      const text = await heard.text()
      // Digests; what else is as long is the text of scripts.
      return new Set(text.match(/(?<=[:{])[\w-]{22,43}(?=[}":])/g))
    }
    const first = await namesIn('a secret of one deployment')
    const second = await namesIn('a secret of the other one')
    expect(first.size).toBeGreaterThan(5)
    expect([...first].filter((name) => second.has(name))).toEqual([])
  })
})
