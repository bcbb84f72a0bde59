// A breaker before a target that fails: who gets through, what clients are told, and how it closes again.

import { describe, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Script, closedPort, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

async function gatewayTo(targets: readonly string[], breaker: string, route = '', more = ''): Promise<TestGateway> {
  return closing(
    await startGateway(`
upstreams: {app: {targets: ${JSON.stringify(targets)}, health: {failures: 0}, breaker: {${breaker}}, ${more}}}
routes: [{path: /*, upstream: app, ${route}}]
`),
  )
}

const failing: Script = (_message, response) => response.writeHead(500).end('sick')
const states = ({ gateway }: TestGateway): unknown[] =>
  gateway.upstreams().flatMap(({ targets }) => targets.map(({ breaker }) => breaker))
const news = ({ log }: TestGateway) => log.filter(({ message }) => String(message).startsWith('Upstream breaker'))

async function statuses(gateway: TestGateway, count: number, method = 'GET'): Promise<number[]> {
  const all: number[] = []
  for (let i = 0; i < count; i++) all.push((await request(gateway.url, { method })).status)
  return all
}

describe('a breaker', () => {
  it('opens when its target fails too often, and lets nobody through', async () => {
    const origin = closing(await startOrigin(failing))
    const gateway = await gatewayTo([origin.url], 'failureRate: 0.5, minRequests: 4, cooldown: 90s')
    expect(await statuses(gateway, 6)).toEqual([500, 500, 500, 500, 503, 503])
    expect(await statuses(gateway, 2, 'POST')).toEqual([503, 503])
    expect(origin.seen).toHaveLength(4)
    const refused = await request(gateway.url)
    expect(refused.headers['content-type']).toBe('application/problem+json')
    expect(JSON.parse(refused.text)).toMatchObject({ code: 'breaker_open', status: 503 })
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0)
    expect(Number(refused.headers['retry-after'])).toBeLessThanOrEqual(90)
  })

  it('is seen in /health, on the admin port, in the log and in the metrics, both ways', async () => {
    const origin = closing(await startOrigin(failing))
    const gateway = await gatewayTo([origin.url], 'minRequests: 2, cooldown: 1s')
    const metric = `weirgate_upstream_breaker_open{upstream="app",target="${origin.url}"}`
    expect(gateway.gateway.metrics()).toContain(`${metric} 0\n`)
    await statuses(gateway, 2)
    expect(gateway.gateway.metrics()).toContain(`${metric} 1\n`)
    expect((await request(`${gateway.url}/health`)).text).toContain('"status":"degraded"')
    expect(JSON.parse((await request(`${gateway.adminUrl}/api/upstreams`)).text)).toMatchObject([
      { targets: [{ state: 'up', breaker: 'open' }] },
    ])
    const named = { upstream: 'app', target: origin.url }
    expect(news(gateway)).toMatchObject([{ ...named, level: 'WARNING', reason: 'status 500' }])
    origin.answer((_message, response) => response.end('well'))
    await until(() => states(gateway)[0] === 'half-open', 'the cooldown to be over')
    expect(gateway.gateway.metrics()).toContain(`${metric} 0.5\n`)
    expect(await statuses(gateway, 2)).toEqual([200, 200])
    expect(states(gateway)).toEqual(['closed'])
    expect(gateway.gateway.metrics()).toContain(`${metric} 0\n`)
    expect(news(gateway)[1]).toMatchObject({ ...named, level: 'INFO', message: 'Upstream breaker is closed' })
  })

  it('lets one request at a time through after the cooldown', async () => {
    const origin = closing(await startOrigin(failing))
    const gateway = await gatewayTo([origin.url], 'minRequests: 2, cooldown: 2s')
    await statuses(gateway, 2)
    let finish = (): void => {}
    origin.answer((_message, response) => {
      finish = () => void response.end('well')
    })
    await until(() => states(gateway)[0] === 'half-open', 'the cooldown to be over')
    const first = request(gateway.url)
    await until(() => origin.seen.length === 3, 'one request at the origin')
    expect(await statuses(gateway, 3)).toEqual([503, 503, 503])
    finish()
    expect((await first).status).toBe(200)
    origin.answer(failing)
    expect(await statuses(gateway, 2)).toEqual([500, 503])
    expect(states(gateway)).toEqual(['open'])
  })

  it.each<[string, string, Script]>([
    ['a refusal', '', failing],
    ['an answer broken off', '', (message) => message.socket.destroy()],
    ['no answer in time', 'timeouts: {firstByte: 30ms}', () => {}],
  ])('counts %s', async (_what, more, script) => {
    const origin = closing(await startOrigin(script))
    const url = more === '' && script === failing ? `http://127.0.0.1:${await closedPort()}` : origin.url
    const gateway = await gatewayTo([url], 'minRequests: 3, cooldown: 1h', 'retries: 0', more)
    for (let i = 0; i < 3; i++) expect(await statuses(gateway, 1)).not.toEqual([200])
    expect(states(gateway)).toEqual(['open'])
  })

  it.each([200, 304, 400, 404, 429])('does not count %d', async (status) => {
    const origin = closing(await startOrigin((_message, response) => response.writeHead(status).end()))
    const gateway = await gatewayTo([origin.url], 'failureRate: 0.1, minRequests: 1')
    await statuses(gateway, 5)
    expect([states(gateway), origin.seen.length]).toEqual([['closed'], 5])
  })

  it('counts no client that goes', async () => {
    const origin = closing(await startOrigin(() => {}))
    const gateway = await gatewayTo([origin.url], 'minRequests: 1')
    const controller = new AbortController()
    const asked = fetch(gateway.url, { signal: controller.signal }).catch(() => {})
    await until(() => origin.seen.length === 1, 'the request at the origin')
    controller.abort()
    await asked
    await until(() => origin.aborted === 1, 'the exchange to be broken off')
    expect(states(gateway)).toEqual(['closed'])
  })
})

describe('breakers of several targets', () => {
  it('leave the requests to those that are closed', async () => {
    const [sick, well] = [closing(await startOrigin(failing)), closing(await startOrigin())]
    const gateway = await gatewayTo([sick.url, well.url], 'minRequests: 3, cooldown: 1h')
    const all = await statuses(gateway, 20)
    expect(all.filter((status) => status === 500)).toHaveLength(3)
    expect(all.slice(6)).toEqual(Array.from({ length: 14 }, () => 200))
    expect([states(gateway), sick.seen.length]).toEqual([['open', 'closed'], 3])
    expect((await request(`${gateway.url}/health`)).text).toContain('"upstreams":{"app":"degraded"}')
    expect(news(gateway)).toHaveLength(1)
  })

  it('refuse where all are open', async () => {
    const all = [closing(await startOrigin(failing)), closing(await startOrigin(failing))]
    const gateway = await gatewayTo(
      all.map(({ url }) => url),
      'minRequests: 2, cooldown: 1h',
    )
    expect(await statuses(gateway, 6)).toEqual([500, 500, 500, 500, 503, 503])
    expect((await request(`${gateway.url}/health`)).text).toContain('"upstreams":{"app":"down"}')
  })

  it('give a request that nobody is left for the failure it has met', async () => {
    const all = await Promise.all([1, 2].map(async () => `http://127.0.0.1:${await closedPort()}`))
    const gateway = await gatewayTo(all, 'minRequests: 1, cooldown: 1h', 'retries: 5')
    expect(await statuses(gateway, 2)).toEqual([502, 503])
  })
})

describe('what is stored', () => {
  it('answers while a breaker is open, and the upstream is not asked', async () => {
    const origin = closing(
      await startOrigin((_message, response, count) => {
        if (count > 1) return failing(_message, response, count)
        response.setHeader('Cache-Control', 'max-age=0')
        return void response.setHeader('ETag', '"1"').end('stored')
      }),
    )
    const gateway = await gatewayTo(
      [origin.url],
      'minRequests: 3, failureRate: 0.3, cooldown: 1h',
      'cache: {stale: {ifError: 1d}}',
    )
    expect((await request(gateway.url)).text).toBe('stored')
    for (let i = 0; i < 3; i++) await request(`${gateway.url}/other${i}`)
    expect(states(gateway)).toEqual(['open'])
    const seen = origin.seen.length
    const answer = await request(gateway.url)
    expect([answer.status, answer.text, answer.headers['x-cache']]).toEqual([200, 'stored', 'STALE'])
    expect(origin.seen).toHaveLength(seen)
  })
})
