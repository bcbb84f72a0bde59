// A gateway that has too much to do: what is at hand goes on, what would go to an upstream is refused, and nobody is
// charged for it.

import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { Load } from '../../src/core/overload.ts'
import { type Answer, type RequestOptions, request } from '../support/client.ts'
import { type EdgeOptions, arrived, startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import { openSocket } from '../support/websocket.ts'

const BUSY: Load = { lagMs: 900, heapFill: null }
const CALM: Load = { lagMs: 1, heapFill: null }

async function start(options: EdgeOptions = {}) {
  let tell: (load: Load) => void = () => {}
  let isWatched = false
  const edge = await startEdge({
    ...options,
    pulse(told) {
      tell = told
      isWatched = true
      return () => void (isWatched = false)
    },
  })
  return {
    ...edge,
    turn: (load: Load) => tell(load),
    health: async () => JSON.parse((await request(`${edge.gateway.url}/health`)).text) as Record<string, unknown>,
    explain: (path: string) => edge.gateway.gateway.explain({ method: 'GET', url: path, headers: [] }),
    isWatched: () => isWatched,
    get: (path = '/x', more: RequestOptions = {}) => request(edge.gateway.url + path, more),
    metric: (name: string) => Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(edge.gateway.gateway.metrics())?.[1]),
  }
}

const code = ({ text }: Answer): unknown => (JSON.parse(text) as { code: unknown }).code

describe('an overloaded gateway', () => {
  it('refuses what would go to the upstream, and says when to come again', async () => {
    const { origin, gateway, get, turn, metric } = await start()
    expect((await get()).status).toBe(200)
    turn(BUSY)
    const refused = await get()
    expect([refused.status, code(refused), refused.headers['retry-after']]).toEqual([503, 'overloaded', '1'])
    const post = await get('/x', { method: 'POST', body: 'x' })
    expect([post.status, code(post)]).toEqual([503, 'overloaded'])
    expect(origin.seen).toHaveLength(1)
    expect([metric('weirgate_overloaded'), metric('weirgate_overload_lag_seconds')]).toEqual([1, 0.9])
    expect(metric('weirgate_overload_refused_total')).toBe(2)
    turn(CALM)
    expect((await get()).status).toBe(200)
    expect(metric('weirgate_overloaded')).toBe(0)
    const lines = await gateway.requestLines(4)
    expect(lines.map(({ status_code, error }) => [status_code, error])).toEqual([
      [200, undefined],
      [503, 'overloaded'],
      [503, 'overloaded'],
      [200, undefined],
    ])
  })

  it('answers hits, its health and the admin port', async () => {
    const { origin, gateway, get, turn } = await start({ routes: ['{path: /*, cache: {ttl: 1h}}'] })
    await get('/kept')
    turn(BUSY)
    const hit = await get('/kept')
    expect([hit.status, hit.text, hit.headers['x-cache']]).toEqual([200, 'answer 1', 'HIT'])
    expect(code(await get('/other'))).toBe('overloaded')
    expect((await get('/health')).status).toBe(200)
    expect((await request(`${gateway.adminUrl}/metrics`)).status).toBe(200)
    expect(origin.seen).toHaveLength(1)
  })

  it('lets what is being fetched end, and whoever comes for it share it', async () => {
    const { origin, gateway, get, turn } = await start({ routes: ['{path: /*, cache: {ttl: 1h}}'] })
    const released = Promise.withResolvers<void>()
    origin.answer((_request, response) => void released.promise.then(() => response.end('whole')))
    const leader = get('/slow')
    await until(() => origin.seen.length === 1, 'the fetch')
    turn(BUSY)
    const follower = get('/slow')
    await arrived(gateway, 2)
    released.resolve()
    expect((await leader).text).toBe('whole')
    const shared = await follower
    expect([shared.status, shared.text]).toEqual([200, 'whole'])
    expect(origin.seen).toHaveLength(1)
  })

  it('answers with what is stale, and asks for it as soon as it can again', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.UTC(2026, 10, 22, 12) })
    onTestFinished(() => void vi.useRealTimers())
    const { get, turn, explain } = await start({ routes: ['{path: /*, cache: {ttl: 1m, stale: {ifError: 1d}}}'] })
    await get()
    vi.setSystemTime(Date.now() + 90_000)
    turn(BUSY)
    expect(await explain('/x')).toMatchObject({
      refused: null,
      cache: {
        outcome: 'stale',
        reason: 'the gateway is overloaded, and what is stored answers in place of the upstream',
      },
    })
    for (let i = 0; i < 3; i++) {
      const { status, text, headers } = await get()
      expect([status, text, headers['x-cache']]).toEqual([200, 'answer 1', 'STALE'])
    }
    turn(CALM)
    // The upstream has not failed: there is no reason to leave it alone.
    expect((await get()).text).toBe('answer 2')
  })

  it('takes the fallback of a route', async () => {
    const { get, turn } = await start({ routes: ["{path: /*, fallback: {status: 200, body: '[]'}}"] })
    turn(BUSY)
    const { status, text, headers } = await get()
    expect([status, text, headers['retry-after']]).toEqual([200, '[]', '1'])
  })

  it.each(['{path: /*, limits: [few]}', '{path: /*, limits: [few], cache: {ttl: 1h}}'])(
    'charges no limit on misses for what it refuses: %s',
    async (route) => {
      const more = 'limits: {few: {limit: 2, window: 1h, key: ip, count: miss}}'
      const { get, turn } = await start({ routes: [route], more })
      turn(BUSY)
      for (let i = 0; i < 4; i++) expect(code(await get(`/${i}`))).toBe('overloaded')
      turn(CALM)
      expect([(await get('/a')).status, (await get('/b')).status, (await get('/c')).status]).toEqual([200, 200, 429])
    },
  )

  it('takes no slot for what it refuses', async () => {
    const more = 'limits: {slots: {kind: concurrency, limit: 1, key: ip}}'
    const { get, turn } = await start({ routes: ['{path: /*, limits: [slots]}'], more })
    turn(BUSY)
    expect(code(await get())).toBe('overloaded')
    turn(CALM)
    expect((await get()).status).toBe(200)
  })

  it('refuses a WebSocket before the upstream hears of it', async () => {
    const { origin, gateway, turn } = await start({ routes: ['{path: /*, websocket: true}'] })
    turn(BUSY)
    await expect(openSocket(gateway.url)).rejects.toThrow('503')
    expect(origin.seen).toHaveLength(0)
  })

  it('tells once when it begins, and once when it ends', async () => {
    const { gateway, turn } = await start()
    for (const load of [BUSY, BUSY, { lagMs: 0, heapFill: 0.99 }, CALM, { lagMs: 0, heapFill: 0.5 }, CALM]) turn(load)
    const told = gateway.log.filter(({ message }) => String(message).startsWith('Overload'))
    expect(told).toMatchObject([
      { level: 'WARNING', message: 'Overloaded, nothing goes to the upstreams', reason: 'lag', lag_ms: 900 },
      { level: 'INFO', message: 'Overload is over' },
    ])
  })

  it('says so on the health path and in what it explains', async () => {
    const { get, turn, health, explain } = await start({ routes: ['{path: /*, cache: {ttl: 1h}}'] })
    await get('/kept')
    expect(await health()).toMatchObject({ status: 'ok', overload: null })
    turn(BUSY)
    expect(await health()).toMatchObject({ status: 'degraded', overload: 'lag' })
    expect((await explain('/other')).refused).toMatchObject({ status: 503, code: 'overloaded' })
    expect(await explain('/kept')).toMatchObject({ refused: null, cache: { outcome: 'hit' } })
    turn({ lagMs: 0, heapFill: 0.99 })
    turn(CALM)
    expect(await health()).toMatchObject({ status: 'degraded', overload: 'lag' })
    turn({ lagMs: 0, heapFill: 0.1 })
    expect(await health()).toMatchObject({ status: 'ok', overload: null })
    expect((await explain('/other')).refused).toBe(null)
    turn({ lagMs: 0, heapFill: 0.99 })
    expect(await health()).toMatchObject({ status: 'degraded', overload: 'heap' })
  })

  it('takes its lines from the route table, at a reload too, and none where it says false', async () => {
    const { gateway, get, turn, isWatched } = await start({ more: 'overload: {lag: 1s}' })
    turn(BUSY)
    expect((await get()).status).toBe(200)
    turn({ lagMs: 1001, heapFill: null })
    expect((await get()).status).toBe(503)
    const { targets } = gateway.gateway.upstreams()[0] ?? { targets: [] }
    gateway.rewrite(`
listen: {address: 127.0.0.1:0}
admin: {listen: 127.0.0.1:0}
overload: false
upstreams: {origin: {targets: ["${targets[0]?.url}"]}}
routes: [{path: /*, upstream: origin}]
`)
    expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
    expect((await get()).status).toBe(200)
    turn({ lagMs: 9999, heapFill: 1 })
    expect((await get()).status).toBe(200)
    expect(isWatched()).toBe(true)
    await gateway.close()
    expect(isWatched()).toBe(false)
  })
})

describe('a gateway whose heap fills up', () => {
  const FULL: Load = { lagMs: 0, heapFill: 0.9 }
  const ROUTES = ['{path: /*, cache: {ttl: 1h}}']

  it('stores nothing new, answers hits, and asks upstreams', async () => {
    const { origin, gateway, get, turn, health, metric } = await start({ routes: ROUTES })
    origin.answer((incoming, response, count) => {
      // Once with all at hand, once bit by bit.
      if (incoming.url === '/streamed') {
        response.write('answer ')
        setImmediate(() => response.end(String(count)))
      } else response.end(`answer ${count}`)
    })
    await get('/kept')
    turn(FULL)
    expect(await health()).toMatchObject({ status: 'degraded', overload: 'storing' })
    expect(metric('weirgate_overload_not_storing')).toBe(1)
    expect((await get('/kept')).headers['x-cache']).toBe('HIT')
    for (const [path, first] of [
      ['/plain', 2],
      ['/streamed', 4],
    ] as const) {
      for (const count of [first, first + 1]) {
        const { status, text, headers } = await get(path)
        expect([status, text]).toEqual([200, `answer ${count}`])
        expect(headers['cache-status']).toBe('weirgate; fwd=miss; detail=heap-full')
      }
    }
    turn({ lagMs: 0, heapFill: 0.5 })
    await get('/plain')
    expect((await get('/plain')).headers['x-cache']).toBe('HIT')
    const told = gateway.log.filter(({ message }) => String(message).includes('heap'))
    expect(told).toMatchObject([
      { level: 'WARNING', message: 'The heap fills up, nothing new is stored', heap_fill: 0.9 },
      { level: 'INFO', message: 'The heap has room again' },
    ])
  })

  it('still sends what is asked for at the same time to all who ask, by one fetch', async () => {
    const { origin, gateway, get, turn } = await start({ routes: ROUTES })
    const released = Promise.withResolvers<void>()
    origin.answer((_request, response) => {
      response.write('who')
      void released.promise.then(() => response.end('le'))
    })
    turn(FULL)
    const asked = [get('/slow'), get('/slow'), get('/slow')]
    await arrived(gateway, 3)
    released.resolve()
    expect((await Promise.all(asked)).map(({ text }) => text)).toEqual(['whole', 'whole', 'whole'])
    expect(origin.seen).toHaveLength(1)
    await get('/slow')
    expect(origin.seen).toHaveLength(2)
  })

  it('stores no part either', async () => {
    const { origin, get, turn } = await start({ routes: ROUTES })
    origin.answer((_request, response) => {
      const fields = { ETag: '"a"', 'Content-Range': 'bytes 0-3/9', 'Content-Length': '4' }
      response.writeHead(206, fields).end('part')
    })
    turn(FULL)
    for (let i = 0; i < 2; i++) {
      const { status, text, headers } = await get('/part', { headers: { Range: 'bytes=0-3' } })
      expect([status, text, headers['cache-status']]).toEqual([206, 'part', 'weirgate; fwd=miss; detail=heap-full'])
    }
    expect(origin.seen).toHaveLength(2)
  })

  it('replaces what is stored and stale', async () => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.UTC(2026, 10, 22, 12) })
    onTestFinished(() => void vi.useRealTimers())
    const { get, turn } = await start({ routes: ['{path: /*, cache: {ttl: 1m}}'] })
    await get()
    vi.setSystemTime(Date.now() + 90_000)
    turn(FULL)
    expect((await get()).text).toBe('answer 2')
    expect([(await get()).text, (await get()).headers['x-cache']]).toEqual(['answer 2', 'HIT'])
  })
})
