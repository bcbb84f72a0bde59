// What is stored and not fresh is asked about, not fetched again, over real sockets.

import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { type Answer, type RequestOptions, request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import type { Script } from '../support/origin.ts'

const MOMENT = Date.UTC(2026, 10, 22, 12)
const DAY_BEFORE = new Date(MOMENT - 86_400_000).toUTCString()

/** A gateway before an origin that a script answers; `get` asks it, `move` moves the wall clock on. */
async function start(script: Script, route = '') {
  vi.useFakeTimers({ toFake: ['Date'], now: MOMENT })
  onTestFinished(() => void vi.useRealTimers())
  const edge = await startEdge({ routes: [`{path: /*, cache: {${route}}}`], script })
  return {
    ...edge,
    move: (seconds: number) => void vi.setSystemTime(Date.now() + seconds * 1000),
    get: (path = '/x', headers: RequestOptions['headers'] = {}, method = 'GET') =>
      request(edge.gateway.url + path, { headers, method }),
  }
}

/** Answers `made N` with these fields, and 304 with those to who asks with a validator. */
const validating =
  (fields: Record<string, string>, on304: Record<string, string> = {}): Script =>
  ({ headers }, response, count) => {
    const isAsked = headers['if-none-match'] !== undefined || headers['if-modified-since'] !== undefined
    if (isAsked) response.writeHead(304, on304).end()
    else response.writeHead(200, fields).end(`made ${count}`)
  }

const said = ({ status, text, headers }: Answer) => [status, text, headers['x-cache'], headers['cache-status']]
const REVALIDATED = 'weirgate; fwd=stale; fwd-status=304; stored; detail=expired'

describe('what is stored and has expired', () => {
  it('[RFC 9111 §4.3.1] is asked about with its validators, and answers again when it is still good', async () => {
    const fields = { 'Cache-Control': 'max-age=60', ETag: '"a"', 'Last-Modified': DAY_BEFORE }
    const { origin, get, move } = await start(validating(fields))
    expect((await get()).text).toBe('made 1')
    move(61)
    expect(said(await get())).toEqual([200, 'made 1', 'REVALIDATED', REVALIDATED])
    expect(origin.seen[1]?.headers).toMatchObject({ 'if-none-match': '"a"', 'if-modified-since': DAY_BEFORE })
    expect(said(await get()).slice(0, 3)).toEqual([200, 'made 1', 'HIT'])
    expect(origin.seen).toHaveLength(2)
  })

  it('[RFC 9111 §3.2] takes the fields of the 304 on, for now and later, but not the length', async () => {
    const fields = { 'Cache-Control': 'max-age=1', ETag: '"a"', 'X-A': 'old', 'X-B': 'kept' }
    const newer = { 'Cache-Control': 'max-age=60', ETag: '"a"', 'X-A': 'new', 'Set-Cookie': 'sid=1' }
    const { get, move } = await start(validating(fields, newer))
    await get()
    move(2)
    const revalidated = await get()
    const hit = await get()
    for (const { headers, text } of [revalidated, hit]) {
      expect(headers).toMatchObject({ 'x-a': 'new', 'x-b': 'kept', 'cache-control': 'max-age=60', age: '0' })
      expect([text, headers['content-length']]).toEqual(['made 1', '6'])
    }
    // A cookie is for the one whose request it answered.
    expect([revalidated.headers['set-cookie'], hit.headers['set-cookie']]).toEqual([['sid=1'], undefined])
    expect(hit.headers['x-cache']).toBe('HIT')
  })

  it('[RFC 9111 §4.3.3] is replaced by a whole answer', async () => {
    const { origin, get, move } = await start((_request, response, count) => {
      response.writeHead(200, { 'Cache-Control': 'max-age=60', ETag: `"${count}"` }).end(`made ${count}`)
    })
    await get()
    move(61)
    expect(said(await get()).slice(0, 3)).toEqual([200, 'made 2', 'MISS'])
    expect(said(await get()).slice(0, 3)).toEqual([200, 'made 2', 'HIT'])
    expect(origin.seen[1]?.headers['if-none-match']).toBe('"1"')
  })

  it('[RFC 9111 §4.3.4] is fetched whole where the 304 is about something else', async () => {
    const { origin, get, move } = await start(
      validating({ 'Cache-Control': 'max-age=60', ETag: '"a"' }, { ETag: '"other"' }),
    )
    await get()
    move(61)
    const answer = await get()
    expect([answer.status, answer.text]).toEqual([200, 'made 3'])
    expect(origin.seen.map(({ headers }) => headers['if-none-match'])).toEqual([undefined, '"a"', undefined])
  })

  it("[RFC 9111 §4.3.2] answers a client's own condition, which the origin does not see", async () => {
    const { origin, get, move } = await start(validating({ 'Cache-Control': 'max-age=60', ETag: '"a"' }))
    await get()
    move(61)
    const same = await get('/x', { 'If-None-Match': '"z", "a"' })
    expect([same.status, same.text, same.headers.etag]).toEqual([304, '', '"a"'])
    move(61)
    const other = await get('/x', { 'If-None-Match': '"z"' })
    expect([other.status, other.text]).toEqual([200, 'made 1'])
    expect(origin.seen.map(({ headers }) => headers['if-none-match'])).toEqual([undefined, '"a"', '"a"'])
  })

  it('is asked about once for all who want it at that moment', async () => {
    const waiting: (() => void)[] = []
    const script = validating({ 'Cache-Control': 'max-age=60', ETag: '"a"' }, { 'Cache-Control': 'max-age=60' })
    const { origin, gateway, get, move } = await start((asked, response, count) => {
      if (count === 1) script(asked, response, count)
      else waiting.push(() => script(asked, response, count))
    })
    await get()
    move(61)
    const clients = Array.from({ length: 20 }, () => get())
    await until(() => Number(/^process_open_connections (\d+)$/m.exec(gateway.gateway.metrics())?.[1]) >= 20, 'all')
    await until(() => waiting.length > 0, 'the one that asks')
    await request(`${gateway.url}/health`)
    for (const go of waiting) go()
    const answers = await Promise.all(clients)
    expect(new Set(answers.map(({ text }) => text))).toEqual(new Set(['made 1']))
    expect(answers.filter(({ headers }) => headers['x-cache'] === 'REVALIDATED')).toHaveLength(1)
    expect(origin.seen).toHaveLength(2)
  })

  it('is forgotten when the origin says that it is gone', async () => {
    const { origin, get, move } = await start((_request, response, count) => {
      if (count === 2) response.writeHead(410).end('gone')
      else if (count === 3) response.destroy()
      else response.writeHead(200, { 'Cache-Control': 'max-age=60', ETag: '"a"' }).end('made')
    })
    await get()
    move(61)
    expect((await get()).status).toBe(410)
    origin.answer((_request, response) => void response.destroy())
    expect((await get()).status).toBe(502)
  })

  it('of one user is not asked about for another: who carries a cookie gets an answer of the origin', async () => {
    const { origin, get, move } = await start(validating({ ETag: '"a"' }), 'ttl: 1m')
    await get()
    move(61)
    const answer = await get('/x', { Cookie: 'sid=a' })
    expect([answer.text, origin.seen[1]?.headers['if-none-match']]).toEqual(['made 2', undefined])
  })
})

describe('[RFC 9111 §5.2.2.4] no-cache', () => {
  it('is stored, and each use of it is validated', async () => {
    const { origin, get } = await start(
      validating({ 'Cache-Control': 'no-cache', ETag: '"a"' }, { 'Cache-Control': 'no-cache', ETag: '"a"' }),
    )
    await get()
    for (let i = 0; i < 3; i++) expect(said(await get())).toEqual([200, 'made 1', 'REVALIDATED', REVALIDATED])
    expect(origin.seen).toHaveLength(4)
  })

  it('is no answer for those who have only waited: each of them asks', async () => {
    const { origin, get } = await start(
      validating({ 'Cache-Control': 'no-cache', ETag: '"a"' }, { 'Cache-Control': 'no-cache', ETag: '"a"' }),
    )
    const answers = await Promise.all(Array.from({ length: 5 }, () => get()))
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
    expect(answers.filter(({ headers }) => headers['x-cache'] === 'COLLAPSED')).toEqual([])
    expect(origin.seen).toHaveLength(5)
  })
})

describe('[RFC 9111 §4.3.5] a HEAD that goes to the origin', () => {
  const head = (fields: Record<string, string>): Script => {
    const first = { 'Cache-Control': 'max-age=60', ETag: '"a"', 'X-A': 'old' }
    return ({ method }, response, count) => {
      if (method === 'HEAD') response.writeHead(200, fields).end()
      else response.writeHead(200, first).end(`made ${count}`)
    }
  }

  it('freshens what is stored, where it names the same', async () => {
    const { get, move } = await start(head({ 'Cache-Control': 'max-age=60', ETag: '"a"', 'X-A': 'new' }))
    await get()
    move(61)
    await get('/x', {}, 'HEAD')
    const hit = await get()
    expect([hit.text, hit.headers['x-cache'], hit.headers['x-a'], hit.headers.age]).toEqual([
      'made 1',
      'HIT',
      'new',
      '0',
    ])
  })

  it.each<[string, Record<string, string>]>([
    ['another tag', { 'Cache-Control': 'max-age=60', ETag: '"b"' }],
    ['another length', { 'Cache-Control': 'max-age=60', ETag: '"a"', 'Content-Length': '7' }],
    ['no validator', { 'Cache-Control': 'max-age=60' }],
  ])('does not where it names %s', async (_name, fields) => {
    const { origin, get, move } = await start(head(fields))
    await get()
    move(61)
    await get('/x', {}, 'HEAD')
    expect((await get()).text).toBe('made 3')
    expect(origin.seen[2]?.headers['if-none-match']).toBe('"a"')
  })

  it('is answered by what is stored when the origin fails', async () => {
    const { origin, get, move } = await start(head({}))
    await get()
    move(61)
    origin.answer((_request, response) => void response.writeHead(503).end())
    const stale = await get('/x', {}, 'HEAD')
    expect([stale.status, stale.headers['x-cache'], stale.headers['content-length']]).toEqual([200, 'STALE', '6'])
  })
})
