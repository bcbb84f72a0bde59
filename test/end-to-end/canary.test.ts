// A canary: some requests of a route go to another upstream. Who goes there, that nobody sees what was stored for the
// others, and that operators can tell the two apart.

import type { ServerResponse } from 'node:http'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, type Script, startOrigin } from '../support/origin.ts'
import { describeWithRedis, startRedis } from '../support/redis.ts'

const closing = closeAfterEach()

interface Split {
  readonly gateway: TestGateway
  readonly stable: Origin
  readonly next: Origin
}

const naming =
  (name: string): Script =>
  (_request, response, count) =>
    response.setHeader('Cache-Tag', 'all').end(`${name} ${count}`)

const yamlFor = ({ stable, next }: Pick<Split, 'stable' | 'next'>, routes: readonly string[], more = ''): string => `
upstreams: {app: {targets: [${stable.url}]}, next: {targets: [${next.url}]}}
defaults: {upstream: app}
trustedProxies: [127.0.0.1]
${more}
routes: ${routes.map((route) => `\n  - ${route}`).join('')}
`

async function startSplit(routes: readonly string[], more = ''): Promise<Split> {
  const stable = closing(await startOrigin(naming('stable')))
  const next = closing(await startOrigin(naming('next')))
  return { stable, next, gateway: closing(await startGateway(yamlFor({ stable, next }, routes, more))) }
}

const CACHED = '{path: /*, cache: {ttl: 1h}, canary: {upstream: next, header: X-Canary}}'
const ON = { Host: 'a.test', 'X-Canary': 'always' }
const OFF = { Host: 'a.test' }
const JSON_BODY = { 'Content-Type': 'application/json' }

/** What was answered, and how: `next 1 MISS`. */
async function ask({ gateway }: Pick<Split, 'gateway'>, path: string, headers: Record<string, string>, method = 'GET') {
  const answer = await request(`${gateway.url}${path}`, { headers, method })
  return `${answer.text} ${String(answer.headers['x-cache'])}`
}

const purge = async ({ gateway }: Split, body: unknown) => {
  const headers = { 'content-type': 'application/json' }
  const sent = await fetch(`${gateway.adminUrl}/api/cache/purge`, {
    method: 'POST',
    headers,
    body: JSON.stringify(body),
  })
  return (await sent.json()) as { purged: number }
}

describe('who goes to the canary', () => {
  it('is said by a field of the request: always or never', async () => {
    const split = await startSplit(['{path: /*, canary: {upstream: next, percent: 100, header: X-Canary}}'])
    const sent = async (value: string) => (await request(split.gateway.url, { headers: { 'X-Canary': value } })).text
    expect(await sent('never')).toBe('stable 1')
    expect(await sent('Always')).toBe('next 1')
    expect(await sent('sometimes')).toBe('next 2')
  })

  it('is nobody who does not ask for it, where there is no percentage', async () => {
    const split = await startSplit([CACHED])
    for (const value of ['1', 'true', '']) {
      expect(await ask(split, `/${value}`, { ...OFF, 'X-Canary': value })).toMatch(/^stable/)
    }
  })

  it('is the same clients each time, on every route, and all of them still where there are more', async () => {
    const clients = Array.from({ length: 200 }, (_, i) => `192.0.2.${i}`)
    const onCanary = async (percent: number, path: string) => {
      const split = await startSplit(
        ['/a', '/b'].map((p) => `{path: ${p}, canary: {upstream: next, percent: ${percent}}}`),
      )
      const texts = clients.map(async (client) => {
        const { text } = await request(`${split.gateway.url}${path}`, { headers: { 'X-Forwarded-For': client } })
        return text.startsWith('next') ? [client] : []
      })
      return (await Promise.all(texts)).flat()
    }
    const few = await onCanary(10, '/a')
    expect(few.length).toBeGreaterThan(10)
    expect(few.length).toBeLessThan(35)
    expect(await onCanary(10, '/b')).toEqual(few)
    const more = await onCanary(30, '/a')
    expect(more.length).toBeGreaterThan(few.length)
    expect(few.filter((client) => !more.includes(client))).toEqual([])
  })

  it('is a user wherever that comes from', async () => {
    const identity = 'identity: {user: [{header: x-user, trusted: true}]}'
    const split = await startSplit(['{path: /*, canary: {upstream: next, percent: 50}}'], identity)
    const ways = new Set<string>()
    for (let user = 0; user < 8; user++) {
      const sent = [1, 2, 3, 4].map(async (address) => {
        const headers = { 'X-User': `u${user}`, 'X-Forwarded-For': `192.0.2.${address}` }
        return (await request(split.gateway.url, { headers })).text.split(' ')[0]
      })
      const seen = new Set(await Promise.all(sent))
      expect(seen.size).toBe(1)
      for (const way of seen) ways.add(way ?? '')
    }
    expect(ways.size).toBe(2)
  })

  it('is drawn for each request where it is by request', async () => {
    const split = await startSplit(['{path: /*, canary: {upstream: next, percent: 50, by: request}}'])
    const ways = new Set<string>()
    for (let id = 0; id < 16; id++) {
      const { text } = await request(split.gateway.url, { headers: { 'X-Request-Id': `r${id}` } })
      ways.add(text.split(' ')[0] ?? '')
    }
    expect([...ways].toSorted()).toEqual(['next', 'stable'])
  })
})

describe('what is stored of a canary', () => {
  it('answers nobody else, nor the other way', async () => {
    const split = await startSplit([CACHED])
    expect(await ask(split, '/x', ON)).toBe('next 1 MISS')
    expect(await ask(split, '/x', OFF)).toBe('stable 1 MISS')
    for (let i = 0; i < 2; i++) {
      expect(await ask(split, '/x', ON)).toBe('next 1 HIT')
      expect(await ask(split, '/x', OFF)).toBe('stable 1 HIT')
    }
    expect([split.stable.seen.length, split.next.seen.length]).toEqual([1, 1])
  })

  it('is told apart by body as well', async () => {
    const cache = 'cache: {ttl: 1h, scope: public, key: {body: canonical}}'
    const split = await startSplit([
      `{path: /*, methods: [POST], ${cache}, canary: {upstream: next, header: X-Canary}}`,
    ])
    const post = async (headers: Record<string, string>) =>
      (
        await request(`${split.gateway.url}/x`, {
          headers: { ...headers, ...JSON_BODY },
          method: 'POST',
          body: '{"a":1}',
        })
      ).text
    expect([await post(ON), await post(OFF), await post(ON), await post(OFF)]).toEqual([
      'next 1',
      'stable 1',
      'next 1',
      'stable 1',
    ])
  })

  it('is fetched for itself while the other is being fetched', async () => {
    const split = await startSplit([CACHED])
    const held: ServerResponse[] = []
    split.stable.answer((_request, response) => held.push(response))
    const waiting = ask(split, '/x', OFF)
    await until(() => held.length === 1, 'the fetch of the others')
    expect(await ask(split, '/x', ON)).toBe('next 1 MISS')
    held[0]?.end('at last')
    expect(await waiting).toBe('at last MISS')
    expect(await ask(split, '/x', ON)).toBe('next 1 HIT')
  })

  it('is refreshed by it', async () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    onTestFinished(() => void vi.useRealTimers())
    const cache = 'cache: {ttl: 1m, stale: {whileRevalidate: 1h}}'
    const split = await startSplit([`{path: /*, ${cache}, canary: {upstream: next, header: X-Canary}}`])
    await ask(split, '/x', ON)
    await ask(split, '/x', OFF)
    vi.setSystemTime(Date.now() + 120_000)
    expect(await ask(split, '/x', ON)).toBe('next 1 STALE')
    await until(() => split.next.seen.length === 2, 'the refresh')
    expect(split.stable.seen.length).toBe(1)
    expect(await ask(split, '/x', OFF)).toBe('stable 1 STALE')
    await until(() => split.stable.seen.length === 2, 'the refresh')
    expect(split.next.seen.length).toBe(2)
  })

  it.each<[string, unknown]>([
    ['its URL', { urls: ['http://a.test/x'] }],
    ['its tag', { tags: ['all'] }],
    ['a prefix', { prefix: 'http://a.test/' }],
    ['a pattern', { pattern: 'http://a.test/*' }],
  ])('is purged with the other, by %s', async (_by, what) => {
    const split = await startSplit([CACHED])
    await ask(split, '/x', ON)
    await ask(split, '/x', OFF)
    expect(await purge(split, what)).toMatchObject({ purged: 2 })
    expect(await ask(split, '/x', ON)).toBe('next 2 MISS')
    expect(await ask(split, '/x', OFF)).toBe('stable 2 MISS')
  })

  it('goes with the other when something is written', async () => {
    const split = await startSplit([CACHED])
    await ask(split, '/x', ON)
    await ask(split, '/x', OFF)
    await ask(split, '/x', OFF, 'DELETE')
    expect(await ask(split, '/x', ON)).toBe('next 2 MISS')
    expect(await ask(split, '/x', OFF)).toBe('stable 3 MISS')
  })

  it('comes and goes with it, and leaves the other where it is', async () => {
    const split = await startSplit([CACHED])
    await ask(split, '/x', OFF)
    await ask(split, '/x', ON)
    split.gateway.rewrite(yamlFor(split, ['{path: /*, cache: {ttl: 1h}}']))
    await split.gateway.gateway.reload()
    expect(await ask(split, '/x', ON)).toBe('stable 1 HIT')
    split.gateway.rewrite(yamlFor(split, [CACHED]))
    await split.gateway.gateway.reload()
    expect(await ask(split, '/x', ON)).toBe('next 1 HIT')
  })
})

describeWithRedis('instances that share what is stored', () => {
  it('keep a canary apart', async () => {
    const redis = closing(await startRedis())
    const more = `redis: {url: "${redis.url}"}`
    const split = await startSplit([CACHED], more)
    const second = closing(await startGateway(yamlFor(split, [CACHED], more)))
    const written = () =>
      Number(
        /^weirgate_cache_tier_writes_total\{tier="redis",result="written"\} (\d+)$/m.exec(
          split.gateway.gateway.metrics(),
        )?.[1],
      )
    await ask(split, '/x', ON)
    await until(() => written() === 1, 'the answer to be in Redis')
    expect(await ask({ gateway: second }, '/x', OFF)).toBe('stable 1 MISS')
    expect(await ask({ gateway: second }, '/x', ON)).toBe('next 1 HIT')
  })
})

describe('operators', () => {
  it('see who went where in the log, the metrics, the statistics and the table', async () => {
    const split = await startSplit([CACHED])
    await ask(split, '/x', ON)
    await ask(split, '/x', OFF)
    const lines = await split.gateway.requestLines(2)
    expect(lines.map(({ route }) => route)).toEqual(['/* (canary)', '/*'])
    const metrics = split.gateway.gateway.metrics()
    expect(metrics).toContain('weirgate_requests_total{route="/* (canary)",status="200"} 1')
    expect(metrics).toContain('weirgate_requests_total{route="/*",status="200"} 1')
    expect(split.gateway.gateway.routes()[0]).toMatchObject({ upstream: 'app', canary: 'by X-Canary to next' })
    const of = (headers: readonly string[]) =>
      split.gateway.gateway.explain({ method: 'GET', url: '/x', headers: ['Host', 'a.test', ...headers] })
    expect(await of([])).toMatchObject({ upstream: 'app', cache: { outcome: 'hit' } })
    expect(await of(['X-Canary', 'always'])).toMatchObject({ upstream: 'next', cache: { outcome: 'hit' } })
    await split.gateway.gateway.reload()
    expect(split.gateway.gateway.metrics()).toContain('weirgate_requests_total{route="/* (canary)",status="200"} 1')
  })

  it('limit both as one', async () => {
    const limits = 'limits: {few: {limit: 2, window: 1h, key: [ip, route]}}'
    const split = await startSplit(['{path: /*, limits: [few], canary: {upstream: next, header: X-Canary}}'], limits)
    const statusOf = async (headers: Record<string, string>) => (await request(split.gateway.url, { headers })).status
    expect([await statusOf(ON), await statusOf(OFF), await statusOf(ON), await statusOf(OFF)]).toEqual([
      200, 200, 429, 429,
    ])
  })
})
