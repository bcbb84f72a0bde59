// What may answer past its freshness, and when the origin is left alone, over real sockets.

import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { type Answer, type RequestOptions, request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import type { Script } from '../support/origin.ts'

const MOMENT = Date.UTC(2026, 10, 22, 12)

async function start(script: Script, route = 'ttl: 1m', upstream = '') {
  vi.useFakeTimers({ toFake: ['Date'], now: MOMENT })
  onTestFinished(() => void vi.useRealTimers())
  const edge = await startEdge({ routes: [`{path: /*, cache: {${route}}}`], script, upstream })
  return {
    ...edge,
    move: (seconds: number) => void vi.setSystemTime(Date.now() + seconds * 1000),
    get: (path = '/x', headers: RequestOptions['headers'] = {}, method = 'GET') =>
      request(edge.gateway.url + path, { headers, method }),
  }
}

const made =
  (fields: Record<string, string> = {}): Script =>
  (_request, response, count) =>
    void response.writeHead(200, fields).end(`made ${count}`)
const broken: Script = (_request, response) => void response.destroy()
const failing =
  (status: number, fields: Record<string, string> = {}): Script =>
  (_request, response) =>
    void response.writeHead(status, fields).end('failed')

const said = ({ text, headers }: Answer) => [text, headers['x-cache'], headers['cache-status']]

describe('a stale response while it is refreshed', () => {
  it('[RFC 5861 §3] answers at once, and is fresh for the next one', async () => {
    const { origin, get, move } = await start(made(), 'ttl: 1m, stale: {whileRevalidate: 30s}')
    await get()
    move(70)
    const stale = await get()
    expect(said(stale)).toEqual(['made 1', 'STALE', 'weirgate; hit; ttl=-10; detail=refreshing'])
    expect(stale.headers.age).toBe('70')
    await until(() => origin.seen.length === 2, 'the refresh')
    await vi.waitFor(async () => expect(said(await get()).slice(0, 2)).toEqual(['made 2', 'HIT']))
    expect(origin.seen).toHaveLength(2)
  })

  it('is asked about with its validators', async () => {
    const { origin, get, move } = await start(({ headers }, response) => {
      if (headers['if-none-match'] === undefined) response.writeHead(200, { ETag: '"a"' }).end('made')
      else response.writeHead(304).end()
    }, 'ttl: 1m, stale: {whileRevalidate: 30s}')
    await get()
    move(70)
    await get('/x', { 'If-None-Match': '"other"', Range: 'bytes=0-0' }, 'HEAD')
    await until(() => origin.seen.length === 2, 'the refresh')
    expect([origin.seen[1]?.method, origin.seen[1]?.headers['if-none-match']]).toEqual(['GET', '"a"'])
    expect(origin.seen[1]?.headers.range).toBeUndefined()
    await vi.waitFor(async () => expect((await get()).headers['x-cache']).toBe('HIT'))
  })

  it('is refreshed once, however many ask meanwhile, and although they have gone', async () => {
    const waiting: (() => void)[] = []
    const { origin, get, move } = await start((_request, response, count) => {
      const answer = () => void response.end(`made ${count}`)
      if (count === 1) answer()
      else waiting.push(answer)
    }, 'ttl: 1m, stale: {whileRevalidate: 30s}')
    await get()
    move(70)
    const answers = await Promise.all(Array.from({ length: 20 }, () => get()))
    expect(new Set(answers.map(({ headers }) => headers['x-cache']))).toEqual(new Set(['STALE']))
    await until(() => waiting.length === 1, 'the refresh')
    for (const go of waiting) go()
    await vi.waitFor(async () => expect(said(await get()).slice(0, 2)).toEqual(['made 2', 'HIT']))
    expect(origin.seen).toHaveLength(2)
  })

  it('[RFC 5861 §3] does not answer when the time for that is over', async () => {
    const { get, move } = await start(made(), 'ttl: 1m, stale: {whileRevalidate: 30s}')
    await get()
    move(90)
    expect(said(await get()).slice(0, 2)).toEqual(['made 2', 'MISS'])
  })

  it('is counted apart from hits', async () => {
    const { gateway, get, move } = await start(made(), 'ttl: 1m, stale: {whileRevalidate: 30s}')
    await get()
    move(70)
    await get()
    const [, line] = await gateway.requestLines(2)
    expect(line).toMatchObject({ cache: 'stale', cache_reason: 'refreshing' })
    expect(gateway.gateway.metrics()).toMatch(/cache_requests_total\{[^}]*stale[^}]*\} 1/)
  })
})

describe('a stale response in place of an error', () => {
  it.each<[string, Script]>([
    ['breaks the connection off', broken],
    ['answers 500', failing(500)],
    ['answers 502', failing(502)],
    ['answers 503', failing(503)],
    ['answers 504', failing(504)],
  ])('[RFC 5861 §4] answers when the origin %s', async (_name, script) => {
    const { origin, get, move } = await start(made())
    await get()
    move(70)
    origin.answer(script)
    const stale = await get()
    expect([stale.status, ...said(stale)]).toEqual([200, 'made 1', 'STALE', 'weirgate; fwd=stale; detail=failed'])
    expect(stale.headers.age).toBe('70')
  })

  it('answers when the origin does not in time', async () => {
    const { origin, get, move } = await start(made(), 'ttl: 1m', 'timeouts: {firstByte: 100ms}')
    await get()
    move(70)
    origin.answer(() => {})
    expect(said(await get()).slice(0, 2)).toEqual(['made 1', 'STALE'])
  })

  it.each<[string, string, Record<string, string>, number]>([
    ['ifError is 0s', 'ttl: 1m, stale: {ifError: 0s}', {}, 70],
    ['the time for that is over', 'ttl: 1m, stale: {ifError: 1m}', {}, 121],
    ['[RFC 9111 §5.2.2.2] must-revalidate forbids it', '', { 'Cache-Control': 'max-age=60, must-revalidate' }, 70],
    ['[RFC 9111 §5.2.2.10] s-maxage forbids it', '', { 'Cache-Control': 's-maxage=60' }, 70],
    ['[RFC 9111 §5.2.2.4] no-cache forbids it', '', { 'Cache-Control': 'no-cache', ETag: '"a"' }, 70],
    ['[RFC 5861 §4] the origin allows less', '', { 'Cache-Control': 'max-age=60, stale-if-error=5' }, 70],
  ])('does not answer where %s', async (_name, route, fields, afterSeconds) => {
    const { origin, get, move } = await start(made(fields), route)
    await get()
    move(afterSeconds)
    origin.answer(failing(503))
    const answer = await get()
    expect([answer.status, answer.text]).toEqual([503, 'failed'])
    origin.answer(broken)
    expect((await get()).status).toBe(502)
  })

  it('does not answer for an error that is not the origin failing', async () => {
    const { origin, get, move } = await start(made())
    await get()
    move(70)
    origin.answer(failing(501))
    expect((await get()).status).toBe(501)
  })

  it('answers all who wait for the same', async () => {
    const waiting: (() => void)[] = []
    const { origin, get, move } = await start(made())
    await get()
    move(70)
    origin.answer((_request, response) => void waiting.push(() => response.destroy()))
    const clients = Array.from({ length: 10 }, () => get())
    // The one try, and the one more that a broken connection allows.
    await until(() => waiting.length === 1, 'the fetch')
    waiting[0]?.()
    await until(() => waiting.length === 2, 'the second try')
    waiting[1]?.()
    const answers = await Promise.all(clients)
    expect(new Set(answers.map(({ text, headers }) => `${text} ${String(headers['x-cache'])}`))).toEqual(
      new Set(['made 1 STALE']),
    )
    expect(origin.seen).toHaveLength(3)
  })
})

describe('an origin that has failed', () => {
  it('is left alone for a second, then for two', async () => {
    const { origin, get, move } = await start(made())
    await get()
    move(70)
    origin.answer(failing(503))
    await get()
    expect(said(await get())).toEqual(['made 1', 'STALE', 'weirgate; hit; ttl=-10; detail=backing-off'])
    expect(origin.seen).toHaveLength(2)
    move(1)
    await get()
    expect(origin.seen).toHaveLength(3)
    move(1)
    await get()
    expect(origin.seen).toHaveLength(3)
    move(1)
    origin.answer(made())
    expect(said(await get()).slice(0, 2)).toEqual(['made 4', 'MISS'])
    expect(said(await get()).slice(0, 2)).toEqual(['made 4', 'HIT'])
  })

  it('[RFC 9110 §10.2.3] is left alone for as long as it asks', async () => {
    const { origin, get, move } = await start(made())
    await get()
    move(70)
    origin.answer(failing(503, { 'Retry-After': '30' }))
    await get()
    move(29)
    expect((await get()).headers['x-cache']).toBe('STALE')
    expect(origin.seen).toHaveLength(2)
    move(1)
    await get()
    expect(origin.seen).toHaveLength(3)
  })

  it('is asked by who may not be given what is stored', async () => {
    const { origin, get, move } = await start(made())
    await get()
    move(70)
    origin.answer(failing(503))
    await get()
    const answer = await get('/x', { Authorization: 'Bearer a' })
    expect([answer.status, answer.text]).toEqual([503, 'failed'])
  })
})
