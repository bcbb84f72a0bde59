// Several gateways that share a Redis, as clients and the origin see them: what one has fetched, all have; whatever
// becomes of Redis, no request fails for it.

import { randomBytes } from 'node:crypto'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { compileKeyRule } from '../../src/cache/key-rule.ts'
import { request } from '../support/client.ts'
import type { TestGateway } from '../support/gateway.ts'
import { type Instances, ask, purgeBy, startInstances } from '../support/instances.ts'
import { type RedisServer, describeWithRedis, startRedis, until } from '../support/redis.ts'

const HOST = { Host: 'shop.test' }

const metric = ({ gateway }: TestGateway, series: string): number => {
  const line = gateway
    .metrics()
    .split('\n')
    .find((each) => each.startsWith(`${series} `))
  return Number(line?.slice(series.length + 1))
}
const writes = (gateway: TestGateway, result: string) =>
  metric(gateway, `weirgate_cache_tier_writes_total{tier="redis",result="${result}"}`)
const reads = (gateway: TestGateway, result: string) =>
  metric(gateway, `weirgate_cache_tier_reads_total{tier="redis",result="${result}"}`)

/** Fetches, and waits until Redis has it. */
async function fetchInto(gateway: TestGateway, path: string, fields: Readonly<Record<string, string>> = {}) {
  const before = writes(gateway, 'written')
  const { text } = await request(`${gateway.url}${path}`, { headers: { ...HOST, ...fields } })
  await until(() => writes(gateway, 'written') > before, `${path} to be in Redis`)
  return text
}

const health = async (gateway: TestGateway) => {
  const { status, text } = await request(`${gateway.url}/health`)
  const { status: word, redis } = JSON.parse(text) as { status: string; redis: string }
  return { status, word, redis }
}

describeWithRedis('instances that share a cache', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(() => redis.close())

  const startTwo = async (options?: Parameters<typeof startInstances>[2]) => {
    const instances = await startInstances(2, redis.url, options)
    const [first, second] = instances.all as [TestGateway, TestGateway]
    return { ...instances, first, second }
  }
  const keys = async (pattern = '*:c1:*') => (await redis.ask('KEYS', pattern)).split('\n').filter((key) => key !== '')

  it('answer what another one has fetched, without asking the origin', async () => {
    const { origin, first, second } = await startTwo()
    await fetchInto(first, '/a')
    const { headers, text } = await request(`${second.url}/a`, { headers: HOST })
    expect([headers['x-cache'], text]).toEqual(['HIT', 'answer 1'])
    expect(headers['cache-status']).toMatch(/^weirgate; hit; ttl=\d+; detail=redis$/)
    expect(await ask(second, '/a')).toBe('HIT answer 1')
    expect(origin.seen).toHaveLength(1)
    expect([reads(second, 'hit'), reads(first, 'miss'), writes(second, 'written')]).toEqual([1, 1, 0])
    expect(await health(second)).toEqual({ status: 200, word: 'ok', redis: 'ok' })
  })

  it('explain as a hit what another one has fetched', async () => {
    const { first, second } = await startTwo()
    const asked = { method: 'GET', url: '/a', headers: ['Host', HOST.Host] }
    expect((await second.gateway.explain(asked)).cache).toMatchObject({ outcome: 'miss' })
    await fetchInto(first, '/a')
    expect((await second.gateway.explain(asked)).cache).toMatchObject({ outcome: 'hit', reason: null })
    expect(await ask(second, '/a')).toBe('HIT answer 1')
  })

  it('[RFC 9111 §4.1] answer with the variant that is asked for', async () => {
    const { origin, first, second } = await startTwo({
      script({ headers }, response) {
        response.setHeader('Vary', 'Accept-Language')
        response.end(`in ${headers['accept-language'] ?? 'any'}`)
      },
    })
    const languages = ['en', 'de', 'fr']
    for (const language of languages) await fetchInto(first, '/a', { 'Accept-Language': language })
    for (const language of languages.toReversed()) {
      const { headers, text } = await request(`${second.url}/a`, { headers: { ...HOST, 'Accept-Language': language } })
      expect([headers['x-cache'], text]).toEqual(['HIT', `in ${language}`])
    }
    const other = await request(`${second.url}/a`, { headers: { ...HOST, 'Accept-Language': 'it' } })
    expect([other.headers['x-cache'], other.text]).toEqual(['MISS', 'in it'])
    expect(origin.seen).toHaveLength(4)
  })

  it('have it still after a restart, also what still had to be written', async () => {
    const noise = randomBytes(30_000).toString('latin1')
    const { origin, first, second, add } = await startTwo({ script: (_request, response) => response.end(noise) })
    const paths = Array.from({ length: 30 }, (_, i) => `/${i}`)
    await Promise.all(paths.map((path) => ask(first, path)))
    await first.close()
    await second.close()
    const next = await add()
    for (const path of paths) expect((await ask(next, path)).slice(0, 3)).toBe('HIT')
    expect(origin.seen).toHaveLength(30)
  })

  it('keep what is asked and by whom to themselves: not in Redis, not in logs, not in metrics, not even to guess', async () => {
    const secret = 's'.repeat(16)
    const routes = [
      '{path: /ai, methods: [POST], limits: [per-token], cache: {ttl: 1h, scope: user, collapse: shared, key: {body: canonical, headers: [X-Plan]}}}',
    ]
    const more = 'log: {level: debug}\nlimits: {per-token: {limit: 100, window: 1m, key: header:authorization}}'
    const { first, second } = await startTwo({
      routes,
      more,
      redis: `deadline: 2s, secret: ${secret}`,
      script: (_request, response) => void response.setHeader('Vary', 'Authorization, Cookie').end('done'),
    })
    const [prompt, token, plan] = ['write-to-my-doctor', 'Bearer hunter2', 'gold-plan']
    const body = JSON.stringify({ prompt })
    const headers = {
      ...HOST,
      'Content-Type': 'application/json',
      Authorization: token,
      Cookie: 'sid=hunter3',
      'X-Plan': plan,
    }
    const post = (gateway: TestGateway, sent = body) =>
      request(`${gateway.url}/ai`, { method: 'POST', headers, body: sent })
    await post(first)
    await until(() => writes(first, 'written') === 1, 'it to be in Redis')
    expect((await post(second)).headers['x-cache']).toBe('HIT')
    // What is not looked up, and what breaks, is told no more of.
    await post(first, `{"prompt":"${prompt}","prompt":1}`)
    await post(first, prompt)

    await redis.ask('CONFIG', 'SET', 'rdbcompression', 'no')
    const names = await keys('*')
    expect(names.length).toBeGreaterThan(1)
    const values = await Promise.all(names.map((name) => redis.ask('DUMP', name)))
    const seen = [names, values, first.log, second.log, first.gateway.metrics(), first.gateway.stats()].map((each) =>
      JSON.stringify(each),
    )
    for (const telling of [prompt, 'doctor', 'hunter', plan]) expect(seen.join('\n')).not.toContain(telling)
    // Made without the secret, digests of the right guesses are nowhere.
    const asked = { method: 'POST', scheme: 'http', host: 'shop.test', path: '/ai', query: '', user: null } as const
    const rule = compileKeyRule({ body: 'canonical', headers: ['x-plan'] }, true)
    const fields = Object.entries(headers).flat()
    const part = rule.bodyPart(fields, Buffer.from(body))
    const guess = rule.ofBody({ ...asked, headers: fields, peerIsTrusted: false }, part.ok ? part.part : '') ?? ''
    const digests = [...guess.matchAll(/(?:body|with|user):(\S+)/g)].map(([, digest]) => digest)
    expect(digests).toHaveLength(3)
    for (const digest of digests) expect(seen.join('\n')).not.toContain(digest)
  })

  it('share no answer with requests that carry credentials, unless it is marked for that', async () => {
    const { origin, first, second } = await startTwo({
      script({ url }, response, count) {
        if (url === '/shared') response.setHeader('Cache-Control', 'public, max-age=60')
        response.end(`answer ${count}`)
      },
    })
    await fetchInto(first, '/own')
    await fetchInto(first, '/shared')
    const withToken = async (path: string) => {
      const { headers, text } = await request(`${second.url}${path}`, {
        headers: { ...HOST, Authorization: 'Bearer me' },
      })
      return `${String(headers['x-cache'])} ${text}`
    }
    expect(await withToken('/own')).toBe('BYPASS answer 3')
    expect(await withToken('/shared')).toBe('HIT answer 2')
    expect(origin.seen).toHaveLength(3)
  })

  it('share nothing where their routes differ in what makes an answer', async () => {
    const { origin, first } = await startTwo()
    await fetchInto(first, '/a')
    const other = await startInstances(1, redis.url, { routes: ['{path: /*, cache: {ttl: 1h, scope: public}}'] })
    expect(await ask(other.all[0] as TestGateway, '/a')).toBe('MISS answer 1')
    expect(origin.seen).toHaveLength(1)
  })

  it('bring nothing back that was purged on one of them', async () => {
    const { first, second, add } = await startTwo()
    await fetchInto(first, '/a')
    await fetchInto(first, '/b')
    expect(await purgeBy(second, { urls: ['/a'] })).toMatchObject({ shared: true })
    expect(await ask(second, '/a')).toBe('MISS answer 3')
    expect(await ask(second, '/b')).toBe('HIT answer 2')
    expect(await purgeBy(second, { all: true })).toMatchObject({ shared: true })
    const third = await add()
    expect(await ask(third, '/b')).toMatch(/^MISS/)
    expect(await ask(first, '/a')).toMatch(/^MISS/)
  })

  it('leave nothing in Redis that does not end by itself', async () => {
    const { first } = await startTwo()
    for (const path of ['/a', '/b', '/c']) await fetchInto(first, path)
    expect(await keys()).toHaveLength(3)
    for (const key of await keys()) expect(Number(await redis.ask('PTTL', key))).toBeGreaterThan(0)
  })

  it('refuse at a reload what would take a restart', async () => {
    const { first } = await startTwo()
    first.rewrite(`
upstreams: {origin: {targets: [http://127.0.0.1:1]}}
redis: {url: "redis://:hunter2@127.0.0.1:1"}
routes: [{path: /*, upstream: origin}]
`)
    const result = await first.gateway.reload()
    expect(result).toMatchObject({ ok: false, error: expect.stringMatching(/redis\.url.*cannot change while/) })
    expect(JSON.stringify(result)).not.toContain('hunter2')
  })

  // ---- whatever lies in Redis ----

  it.each([
    ['nonsense', (key: string) => ['SET', key, 'nonsense']],
    ['other versions', (key: string) => ['SETRANGE', key, '0', 'WGR0']],
    [
      'a cut',
      (key: string) => ['EVAL', "redis.call('SET', KEYS[1], redis.call('GETRANGE', KEYS[1], 0, 90))", '1', key],
    ],
    ['64 MiB', (key: string) => ['SETRANGE', key, String(64 * 1024 ** 2), 'end']],
    [
      "another's value",
      (key: string) => ['EVAL', `redis.call('COPY', KEYS[1], KEYS[2], 'REPLACE')`, '2', '$other', key],
    ],
  ])('take %s for a miss, and put it right', async (_what, value) => {
    const { origin, first, second, add } = await startTwo()
    await fetchInto(first, '/other')
    const [other = ''] = await keys()
    await fetchInto(first, '/a')
    const own = (await keys()).find((key) => key !== other) ?? ''
    await redis.ask(...value(own).map((part) => (part === '$other' ? other : part)))
    expect(await fetchInto(second, '/a')).toBe('answer 3')
    expect(reads(second, 'bad')).toBe(1)
    expect(origin.seen.map(({ url }) => url)).toEqual(['/other', '/a', '/a'])
    expect(await ask(await add(), '/a')).toBe('HIT answer 3')
  })

  // ---- whatever becomes of Redis ----

  const redisIs = (gateway: TestGateway, word: string) =>
    until(async () => (await health(gateway)).redis === word, `redis: ${word}`)

  async function expectWorking({ origin, all }: Pick<Instances, 'origin' | 'all'>, path: string): Promise<void> {
    const [gateway] = all as [TestGateway]
    const seen = origin.seen.length
    expect(await ask(gateway, path)).toBe(`MISS answer ${seen + 1}`)
    expect(await ask(gateway, path)).toBe(`HIT answer ${seen + 1}`)
  }

  it('go on alone when Redis is killed, say so, and share again when it is back', async () => {
    const instances = await startTwo()
    const { first, second } = instances
    await fetchInto(first, '/a')
    await redis.kill()
    await redisIs(first, 'down')
    expect(await health(first)).toEqual({ status: 200, word: 'degraded', redis: 'down' })
    expect(metric(first, 'weirgate_redis_up')).toBe(0)
    expect(await ask(first, '/a')).toBe('HIT answer 1')
    await expectWorking(instances, '/b')
    await redis.restart()
    for (const gateway of [first, second]) await redisIs(gateway, 'ok')
    const text = await fetchInto(first, '/c')
    expect(await ask(second, '/c')).toBe(`HIT ${text}`)
    const says = (text: string): boolean => first.log.some(({ message }) => message === text)
    // Said once, a moment later, for all that the gateway uses it for.
    await until(() => says('Redis is down') && says('Redis is up'), 'the words that Redis was lost and is back')
  })

  it('answer while Redis hangs, from memory and from the origin', async () => {
    const instances = await startTwo({ redis: 'deadline: 100ms' })
    const { first } = instances
    await ask(first, '/a')
    redis.pause()
    expect(await ask(first, '/a')).toBe('HIT answer 1')
    await expectWorking(instances, '/b')
    await redisIs(first, 'down')
    await expectWorking(instances, '/c')
    redis.resume()
    await redisIs(first, 'ok')
  })

  it('work with a Redis that is full', async () => {
    const instances = await startTwo()
    const { first, second } = instances
    await fetchInto(first, '/a')
    await redis.ask('CONFIG', 'SET', 'maxmemory', '1')
    await expectWorking(instances, '/b')
    await until(() => writes(first, 'dropped') > 0, 'the write to be refused')
    expect(await ask(second, '/b')).toBe('MISS answer 3')
  })

  it('start without Redis, and use it as soon as it is there', async () => {
    await redis.kill()
    const instances = await startTwo()
    const { first, second } = instances
    expect(await health(first)).toEqual({ status: 200, word: 'degraded', redis: 'down' })
    await expectWorking(instances, '/a')
    await redis.restart()
    for (const gateway of [first, second]) await redisIs(gateway, 'ok')
    const text = await fetchInto(first, '/b')
    expect(await ask(second, '/b')).toBe(`HIT ${text}`)
  })

  it('[RFC 9110 §9.3.3] answer GETs with the answer to a POST, which its own change does not take away', async () => {
    const { origin, first, second } = await startTwo({
      routes: ['{path: /*, purges: [all], cache: {ttl: 1h, tags: [all]}}'],
      script({ method }, response, count) {
        if (method === 'POST') response.setHeader('Content-Location', '/a').setHeader('Cache-Control', 'max-age=60')
        response.end(`answer ${count}`)
      },
    })
    await fetchInto(first, '/a')
    const before = writes(first, 'written')
    const posted = await request(`${first.url}/a`, { method: 'POST', headers: HOST })
    expect([posted.text, posted.headers['cache-status']]).toEqual([
      'answer 2',
      'weirgate; fwd=method; stored; detail=method',
    ])
    expect(await ask(first, '/a')).toBe('HIT answer 2')
    await until(() => writes(first, 'written') > before, 'it to be in Redis')
    expect(await ask(second, '/a')).toBe('HIT answer 2')
    expect(origin.seen).toHaveLength(2)
  })
})
