// The line before the connections, and what is left when everybody has gone.

import net from 'node:net'
import { networkInterfaces } from 'node:os'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../src/core/errors.ts'
import { MAX_WAITING, type Target } from '../../src/upstream/target.ts'
import { closeAfterEach } from '../support/closing.ts'
import { until } from '../support/gateway.ts'
import { closedPort, startOrigin, startRawOrigin } from '../support/origin.ts'
import { failureOf, openPool, streamOf, testBody, testSink } from '../support/upstream.ts'

const closing = closeAfterEach()

const hasIpv6 = Object.values(networkInterfaces()).some((addresses) =>
  addresses?.some(({ address }) => address === '::1'),
)

const GONE = new GatewayError('client_gone', 'The client has gone.')
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

describe('a request that must not go out as it is', () => {
  it.each<[string, object]>([
    ['the target *', { method: 'OPTIONS', path: '*' }],
    ['a space in the path', { path: '/a b' }],
    ['a control byte in the path', { path: '/a\nb' }],
    ['Transfer-Encoding', { headers: ['Transfer-Encoding', 'chunked'] }],
    ['Keep-Alive', { headers: ['Keep-Alive', 'timeout=5'] }],
    ['Upgrade', { headers: ['Upgrade', 'websocket'] }],
    ['Expect', { headers: ['Expect', '100-continue'] }],
    ['a Connection that is no list of tokens', { headers: ['Connection', 'a b'] }],
    ['two Hosts', { headers: ['Host', 'a', 'host', 'b'] }],
    ['two lengths', { headers: ['Content-Length', '1', 'Content-Length', '1'] }],
    ['a length that is no number', { headers: ['Content-Length', 'x'] }],
    ['a name that is no token', { headers: ['a b', 'x'] }],
    ['a control byte in a value', { headers: ['A', 'x\ny'] }],
    ['a name without a value', { headers: ['A'] }],
    ['a method that is no token', { method: 'GE T' }],
  ])('does not wedge the pool: %s', async (_what, request) => {
    const origin = closing(await startOrigin())
    const pool = closing(openPool([origin.url], { connections: 2, timeouts: { queue: '2s', total: '3s' } }))
    const body = testBody(['x'])
    for (let i = 0; i < 5; i++) expect(await failureOf(pool.fetch(request))).toBe('internal')
    expect(await failureOf(pool.fetch({ ...request, body }))).toBe('internal')
    expect(body.stream?.destroyed).toBe(true)
    // In between and in line, too.
    const mixed = await Promise.allSettled(
      Array.from({ length: 20 }, (_, i) => pool.fetch(i % 2 === 0 ? request : {}).answer),
    )
    expect(mixed.map(({ status }) => status)).toEqual(mixed.map((_, i) => (i % 2 === 0 ? 'rejected' : 'fulfilled')))
    expect(pool.held).toBe(0)
    expect(origin.seen).toHaveLength(10)
  })

  it('does not wedge the pool: a body that is not as long as it was said to be', async () => {
    const origin = closing(await startOrigin((message, response) => message.resume().on('end', () => response.end())))
    const pool = closing(openPool([origin.url], { connections: 2, timeouts: { queue: '2s', total: '3s' } }))
    for (const chunks of [['short'], ['much', 'too', 'long', 'for', 'it']]) {
      for (let i = 0; i < 3; i++) {
        const sent = { method: 'POST', headers: ['Content-Length', '10'], body: testBody(chunks) }
        expect(await failureOf(pool.fetch(sent))).toMatch(/^internal$|^upstream_/)
      }
    }
    await Promise.all(Array.from({ length: 6 }, () => pool.fetch().answer))
    expect(pool.held).toBe(0)
  })
})

describe('the line', () => {
  it(`takes ${MAX_WAITING} requests beyond the connections, and no more`, async () => {
    const origin = closing(await startOrigin(() => {}))
    const pool = closing(openPool([origin.url], { connections: 1 }))
    const fetches = Array.from({ length: 1 + MAX_WAITING }, () => pool.fetch())
    const failures = fetches.map((fetch) => failureOf(fetch))
    expect(pool.held).toBe(1 + MAX_WAITING)
    const body = testBody(['x'])
    const refused = pool.fetch({ method: 'POST', body })
    await expect(refused.answer).rejects.toMatchObject({ code: 'saturated', retryAfterSeconds: 1 })
    expect(body.opened).toBe(0)
    fetches[500]?.abort(GONE)
    expect(pool.held).toBe(MAX_WAITING)
    const late = pool.fetch()
    expect(pool.held).toBe(1 + MAX_WAITING)
    failures.push(failureOf(late))
    for (const fetch of [...fetches, late]) fetch.abort(GONE)
    expect(new Set(await Promise.all(failures))).toEqual(new Set(['client_gone']))
    await until(() => pool.held === 0, 'the one that has a connection to let go of it')
    await until(() => origin.openSockets === 0, 'the one connection to be closed')
    expect(origin.seen.length).toBeLessThanOrEqual(1)
  })

  it('moves up in order of arrival', async () => {
    const origin = closing(
      await startOrigin((message, response) => void setTimeout(() => response.end(message.url), 2)),
    )
    const pool = closing(openPool([origin.url], { connections: 2 }))
    await Promise.all(Array.from({ length: 20 }, (_, i) => pool.fetch({ path: `/${i}` }).answer))
    expect(origin.seen.map(({ url }) => url)).toEqual(Array.from({ length: 20 }, (_, i) => `/${i}`))
  })

  it('opens no body before its turn, and none of those who have gone', async () => {
    const origin = closing(
      await startOrigin((message, response) => message.on('end', () => response.end('ok')).resume()),
    )
    const pool = closing(openPool([origin.url], { connections: 1 }))
    const first = pool.fetch({ method: 'POST', body: testBody() })
    const failure = failureOf(first)
    await until(() => origin.seen.length === 1 || pool.held === 1, 'the first to be on its way')
    const bodies = [testBody(['a']), testBody(['b']), testBody(['c'])]
    const fetches = bodies.map((body) => pool.fetch({ method: 'POST', body }))
    fetches[1]?.abort(GONE)
    expect(await failureOf(fetches[1] ?? first)).toBe('client_gone')
    expect(bodies.map(({ opened }) => opened)).toEqual([0, 0, 0])
    first.abort(GONE)
    expect(await failure).toBe('client_gone')
    await Promise.all([fetches[0]?.answer, fetches[2]?.answer])
    expect(bodies.map(({ opened }) => opened)).toEqual([1, 0, 1])
    await until(() => pool.held === 0, 'all to end')
  })

  it('lets nobody pass who comes just as a connection becomes free', async () => {
    const origin = closing(await startOrigin((message, response) => response.end(message.url)))
    const pool = closing(openPool([origin.url], { connections: 1 }))
    const answers: Promise<unknown>[] = []
    const again = (left: number): void => {
      // Each answer brings a new request, which has to stand behind those that wait.
      answers.push(pool.fetch({ path: `/new${left}` }).answer.then(() => (left > 0 ? again(left - 1) : undefined)))
    }
    again(3)
    answers.push(pool.fetch({ path: '/waiting1' }).answer, pool.fetch({ path: '/waiting2' }).answer)
    await Promise.all(answers)
    await until(() => origin.seen.length === 6, 'all to be answered')
    expect(origin.seen.map(({ url }) => url).slice(0, 3)).toEqual(['/new3', '/waiting1', '/waiting2'])
  })
})

describe('targets', () => {
  it('are taken in turn, beginning with the first; another try goes to the next in order', async () => {
    const urls = ['http://127.0.0.1:1', 'http://127.0.0.1:2', 'http://127.0.0.1:3']
    const { pool } = closing(openPool(urls))
    const turn = (tried: readonly Target[]): Target => {
      const target = pool.next(tried, null)
      if (target === null) throw new Error('expected a target')
      return target
    }
    const turns = Array.from({ length: 4 }, () => turn([]))
    expect(turns.map(({ origin }) => origin.port)).toEqual(['1', '2', '3', '1'])
    expect(turns.slice(0, 3).map((target) => turn([target]).origin.port)).toEqual(['2', '3', '1'])
    expect(turn([]).origin.port).toBe('2')
  })

  it.runIf(hasIpv6)('may have an IPv6 address', async () => {
    const server = net.createServer((socket) => socket.on('error', () => {}).once('data', () => socket.end(OK)))
    await new Promise<void>((resolve) => server.listen(0, '::1', resolve))
    closing({ close: () => new Promise((resolve) => server.close(() => resolve())) })
    const { port } = server.address() as net.AddressInfo
    const pool = closing(openPool([`http://[::1]:${port}`]))
    expect((await pool.fetch().answer).status).toBe(200)
  })

  it('tell how they are doing', async () => {
    const origin = closing(await startOrigin(() => {}))
    const dead = `http://127.0.0.1:${await closedPort()}`
    const pool = closing(openPool([origin.url, dead], { connections: 1, retries: 0 }))
    const fetches = Array.from({ length: 6 }, () => pool.fetch())
    const failures = fetches.map((fetch) => failureOf(fetch))
    await until(() => origin.seen.length === 1, 'the first request at the origin')
    await until(() => pool.held === 3, 'the dead one to have refused all')
    expect(pool.pool.status()).toEqual({
      upstream: 'app',
      retries: 0,
      hedges: 0,
      hedges_won: 0,
      limit: null,
      waiting: 0,
      refused: 0,
      targets: [
        {
          url: origin.url,
          weight: 1,
          takes: 'all',
          state: 'up',
          breaker: null,
          cooling_until: null,
          exits: 0,
          addresses: null,
          resolve_failures: 0,
          open_connections: 1,
          in_flight: 1,
          queued: 2,
        },
        {
          url: dead,
          weight: 1,
          takes: 'all',
          state: 'out',
          breaker: null,
          cooling_until: null,
          exits: 1,
          addresses: null,
          resolve_failures: 0,
          open_connections: 0,
          in_flight: 0,
          queued: 0,
        },
      ],
    })
    for (const fetch of fetches) fetch.abort(GONE)
    expect((await Promise.all(failures)).toSorted()).toEqual([
      ...Array(3).fill('client_gone'),
      ...Array(3).fill('upstream_refused'),
    ])
  })
})

describe('connections', () => {
  it('that have reached their age are replaced under load, and nobody waits for ever', async () => {
    const origin = await startRawOrigin((socket) => socket.write(OK))
    closing(origin)
    const pool = closing(
      openPool([origin.url], { connections: 3, connectionLifetime: '100ms', timeouts: { total: '5s' } }),
    )
    const endMs = performance.now() + 500
    while (performance.now() < endMs) {
      const answers = await Promise.all(Array.from({ length: 12 }, () => pool.fetch().answer))
      expect(answers.every(({ status }) => status === 200)).toBe(true)
    }
    expect(origin.connections).toBeGreaterThanOrEqual(6)
    expect(pool.held).toBe(0)
  })

  it('close when the pool does, after the answers in flight', async () => {
    let finish = (): void => {}
    const origin = closing(
      await startOrigin((_message, response) => {
        response.write('begun ')
        finish = () => void response.end('done')
      }),
    )
    const pool = closing(openPool([origin.url]))
    const answer = await pool.fetch().answer
    const sink = testSink()
    streamOf(answer.takeBody()).pipeTo(sink)
    let isClosed = false
    const closed = pool.pool.close().then(() => (isClosed = true))
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(isClosed).toBe(false)
    finish()
    await Promise.all([sink.over, closed])
    expect([sink.text, sink.calls.at(-1)]).toEqual(['begun done', 'end'])
    await until(() => origin.openSockets === 0, 'the connection to close')
  })

  it('break off when the pool is destroyed, and those in line fail too', async () => {
    const origin = closing(await startOrigin(() => {}))
    const pool = closing(openPool([origin.url], { connections: 1 }))
    const failures = Array.from({ length: 5 }, () => failureOf(pool.fetch()))
    await until(() => origin.seen.length === 1, 'the first request at the origin')
    await pool.pool.destroy()
    expect(await Promise.all(failures)).toEqual(Array(5).fill('draining'))
    expect(pool.held).toBe(0)
    await until(() => origin.openSockets === 0, 'the connection to close')
  })
})
