// The answer of a route whose upstream gives none: when it comes, when something better does, and what of it is known.

import { describe, expect, it } from 'vitest'
import { converse, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { closedPort, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

const FALLBACK = `fallback: {status: 200, body: '{"items": []}'}`

async function gatewayTo(url: string, route: string, upstream = ''): Promise<TestGateway> {
  return closing(
    await startGateway(`
upstreams: {app: {targets: [${url}], health: {failures: 0}, ${upstream}}}
limits: {few: {limit: 1, window: 1h}}
routes: [{path: /*, upstream: app, ${route}}]
`),
  )
}

const dead = async (): Promise<string> => `http://127.0.0.1:${await closedPort()}`

describe('a fallback', () => {
  it('answers for an upstream that is not there, to every method', async () => {
    const gateway = await gatewayTo(await dead(), FALLBACK)
    for (const method of ['GET', 'POST', 'DELETE']) {
      const { status, text, headers } = await request(gateway.url, { method })
      expect([status, text, headers['content-type'], headers['cache-control']]).toEqual([
        200,
        '{"items": []}',
        'application/json',
        'no-store',
      ])
    }
    const head = await request(gateway.url, { method: 'HEAD' })
    expect([head.status, head.headers['content-length'], head.body.length]).toEqual([200, '13', 0])
    expect(await gateway.requestLines(4)).toMatchObject(
      Array.from({ length: 4 }, () => ({ status_code: 200, error: 'upstream_refused' })),
    )
  })

  it.each<[string, string, string | undefined]>([
    ['{status: 503, body: Closed}', 'Closed', 'text/plain; charset=utf-8'],
    ['{body: "<p>Later</p>", type: text/html}', '<p>Later</p>', 'text/html'],
    ['{status: 503}', '', undefined],
  ])('%s is sent as it is', async (fallback, text, type) => {
    const answer = await request((await gatewayTo(await dead(), `fallback: ${fallback}`)).url)
    expect([answer.status, answer.text, answer.headers['content-type']]).toEqual([503, text, type])
  })

  it('answers for one that is too slow, broken, full or behind an open breaker', async () => {
    const origin = closing(await startOrigin(() => {}))
    const slow = await gatewayTo(origin.url, FALLBACK, 'timeouts: {firstByte: 30ms}')
    expect((await request(slow.url)).text).toBe('{"items": []}')
    const full = await gatewayTo(origin.url, FALLBACK, 'concurrency: {max: 1, queue: 0}')
    const before = origin.seen.length
    const hanging = request(full.url).catch(() => {})
    await until(() => origin.seen.length > before, 'the first at the origin')
    const answer = await request(full.url)
    expect([answer.text, answer.headers['retry-after']]).toEqual(['{"items": []}', '1'])
    await full.close()
    await hanging
    origin.answer((message) => message.socket.destroy())
    const broken = await gatewayTo(origin.url, FALLBACK, 'breaker: {minRequests: 1, cooldown: 1h}, retries: 0')
    const seen = origin.seen.length
    for (let i = 0; i < 3; i++) expect((await request(broken.url)).text).toBe('{"items": []}')
    expect(origin.seen.length - seen).toBe(1)
  })

  it('leaves what the upstream answers as it is, and what the client has done wrong', async () => {
    const origin = closing(await startOrigin((_message, response) => response.writeHead(503).end('down for repair')))
    const gateway = await gatewayTo(origin.url, `${FALLBACK}, limits: [few], maxBody: 1KiB`)
    const answer = await request(gateway.url)
    expect([answer.status, answer.text]).toEqual([503, 'down for repair'])
    expect((await request(gateway.url)).status).toBe(429)
    const other = await gatewayTo(await dead(), `${FALLBACK}, maxBody: 1KiB`)
    expect((await request(other.url, { method: 'POST', body: 'x'.repeat(2000) })).status).toBe(413)
  })

  it('comes after what is stored, stale as it may be, and is not stored itself', async () => {
    const origin = closing(
      await startOrigin((_message, response) => {
        response.setHeader('Cache-Control', 'max-age=0').setHeader('ETag', '"1"').end('stored')
      }),
    )
    const gateway = await gatewayTo(origin.url, `${FALLBACK}, cache: {ttl: 1h, stale: {ifError: 1d}}`)
    expect((await request(gateway.url)).text).toBe('stored')
    origin.answer((message) => message.socket.destroy())
    const stale = await request(gateway.url)
    expect([stale.text, stale.headers['x-cache']]).toEqual(['stored', 'STALE'])
    expect((await request(`${gateway.url}/new`)).text).toBe('{"items": []}')
    origin.answer((_message, response) => response.end('new'))
    expect((await request(`${gateway.url}/new`)).text).toBe('new')
  })

  it('never follows the beginning of an answer', async () => {
    const origin = closing(
      await startOrigin((_message, response) => {
        response.writeHead(200, { 'Content-Length': 100 }).write('begun', () => setImmediate(() => response.destroy()))
      }),
    )
    const gateway = await gatewayTo(origin.url, FALLBACK)
    const client = await converse(gateway.port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    await client.end()
    expect(client.received).not.toContain('items')
    expect(client.closedBy).toBe('reset')
  })
})
