// WebSockets through the gateway: the handshake is a request like others, what follows it is nobody's business, and
// however a socket ends, nothing of it stays.

import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import type { Socket } from 'node:net'
import tls from 'node:tls'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { WebSocket } from 'ws'
import { createCertificate } from '../support/certificate.ts'
import { converse, request } from '../support/client.ts'
import { holdTime } from '../support/clock.ts'
import { type EdgeOptions, openConnections, startGatewayBefore } from '../support/edge.ts'
import { exchange, fieldValues } from '../support/exchange.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { closedPort, startRawOrigin } from '../support/origin.ts'
import { runGateway } from '../support/process.ts'
import { type SocketOrigin, openSocket, startSocketOrigin } from '../support/websocket.ts'

const ROUTES = ['{path: /ws/*, websocket: true}', '{path: /*}']

const gatewayTo = (url: string, options: EdgeOptions = {}): Promise<TestGateway> =>
  startGatewayBefore(url, { routes: ROUTES, ...options })

async function setUp(options: EdgeOptions = {}): Promise<{ origin: SocketOrigin; gateway: TestGateway }> {
  const origin = await startSocketOrigin()
  return { origin, gateway: await gatewayTo(origin.url, options) }
}

/** What a metric says; NaN where it is not there. */
const metric = ({ gateway }: TestGateway, name: string): number =>
  Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(gateway.metrics())?.[1])

const openWebSockets = (gateway: TestGateway): number => metric(gateway, 'weirgate_websockets_open')

/** Nothing is left: no socket, no connection of a client, none to the backend. */
async function expectNothingLeft(gateway: TestGateway, origin?: Pick<SocketOrigin, 'openSockets'>): Promise<void> {
  await until(() => openWebSockets(gateway) === 0, 'no WebSocket')
  await until(() => openConnections(gateway) === 0, 'no client connection')
  const busy = () =>
    gateway.gateway
      .upstreams()
      .flatMap(({ targets }) => targets.map((t) => t.in_flight + t.queued + t.open_connections))
  await until(() => busy().every((count) => count === 0), `nothing upstream`)
  if (origin !== undefined) await until(() => origin.openSockets === 0, 'no connection at the origin')
}

/** KEY is the sample of RFC 6455 §1.3, and ACCEPT its answer. */
const KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
const ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
const SWITCHED = `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${ACCEPT}\r\n\r\n`
const handshake = (target = '/ws/x', fields: readonly string[] = []): string =>
  [
    `GET ${target} HTTP/1.1`,
    'Host: a.test',
    'Connection: keep-alive, Upgrade',
    'Upgrade: websocket',
    `Sec-WebSocket-Key: ${KEY}`,
    'Sec-WebSocket-Version: 13',
    ...fields,
    '\r\n',
  ].join('\r\n')

/** Frames of a server, as text: of the text `hi`, and the one that says 1001. */
const HI = '\x81\x02hi'
const GOING_AWAY = '\x88\x02\x03\xe9'

/** A backend that answers each head as the test says; what comes behind one is kept. */
async function rawBackend(onRequest: (socket: Socket) => void) {
  const sockets: Socket[] = []
  let received = ''
  const origin = await startRawOrigin((socket) => {
    sockets.push(socket)
    socket.on('data', (chunk: Buffer) => (received += chunk.toString('latin1')))
    onRequest(socket)
  })
  onTestFinished(() => origin.close())
  return {
    url: origin.url,
    sockets,
    get received() {
      return received
    },
  }
}

/** Closes the socket, and gives the one line that is logged of it. */
const lineOf = async (gateway: TestGateway): Promise<Record<string, unknown>> =>
  (await gateway.requestLines(1))[0] as Record<string, unknown>

describe('what goes through', () => {
  it('messages of any kind and size, both ways and in order', async () => {
    const { gateway } = await setUp()
    const { socket } = await openSocket(`${gateway.url}/ws/x`)
    const sent = [Buffer.from('text'), Buffer.alloc(1024 * 1024, 7), Buffer.alloc(0), Buffer.alloc(70_000, 1)]
    const answers: Buffer[] = []
    socket.on('message', (data) => answers.push(data as Buffer))
    for (const message of sent) socket.send(message)
    await until(() => answers.length === sent.length, 'the answers')
    expect(answers.map((answer, i) => answer.equals(sent[i] as Buffer))).toEqual([true, true, true, true])
  })

  it('pings, pongs, and the code and reason of a close, from either side', async () => {
    const { origin, gateway } = await setUp()
    const one = await openSocket(`${gateway.url}/ws/x`)
    one.socket.ping('hello')
    expect(String((await once(one.socket, 'pong'))[0])).toBe('hello')
    one.socket.close(4001, 'mine')
    expect(await one.closed()).toBe(4001)
    await until(() => origin.closeCodes.length === 1, 'the origin to hear of it')
    expect(origin.closeCodes).toEqual([4001])
    const other = await openSocket(`${gateway.url}/ws/x`)
    for (const socket of origin.server.clients) socket.close(4002, 'yours')
    expect(await other.closed()).toBe(4002)
    await expectNothingLeft(gateway, origin)
    expect((await gateway.requestLines(2)).map(({ error }) => error)).toEqual([undefined, undefined])
  })

  it('subprotocols and compression, as client and backend agree on them', async () => {
    const origin = await startSocketOrigin({ perMessageDeflate: { threshold: 0 }, handleProtocols: () => 'chat.v2' })
    const gateway = await gatewayTo(origin.url)
    const client = await openSocket(`${gateway.url}/ws/x`, {}, ['chat.v1', 'chat.v2'])
    expect(client.socket.protocol).toBe('chat.v2')
    expect(client.socket.extensions).toContain('permessage-deflate')
    const text = 'again and '.repeat(10_000)
    expect(await client.ask(text)).toBe(text)
    client.socket.close()
    expect((await lineOf(gateway))['bytes']).toBeLessThan(5000)
  })

  it('frames that come with the 101, and bytes that the client sends before it', async () => {
    let owed: Socket | undefined
    const backend = await rawBackend((socket) => (owed = socket))
    const gateway = await gatewayTo(backend.url)
    const client = await converse(gateway.port, handshake())
    await until(() => owed !== undefined, 'the handshake at the origin')
    await client.flush('early')
    await request(`${gateway.url}/health`)
    expect(backend.received).toBe('')
    owed?.write(SWITCHED + HI, 'latin1')
    await client.expect(`\r\n\r\n${HI}`)
    await until(() => backend.received === 'early', 'what was sent early')
    client.send(' late')
    await until(() => backend.received === 'early late', 'what was sent late')
  })
})

describe('the handshake', () => {
  it('is forwarded as any request is, and answered so', async () => {
    const { origin, gateway } = await setUp({
      routes: [
        '{path: /ws/*, websocket: true, rewrite: {strip: /ws, prefix: /v2}, headers: {request: {set: {X-Set: a}}, response: {set: {X-Back: b}}}}',
      ],
    })
    const fields = { Origin: 'https://app.test', Cookie: 'a=b', 'X-Forwarded-For': '192.0.2.1', Connection2: 'x' }
    const { socket } = await openSocket(`${gateway.url}/ws/room/1?token=abc`, fields)
    const { url, headers } = origin.seen[0] as (typeof origin.seen)[0]
    expect(url).toBe('/v2/room/1?token=abc')
    expect(headers).toMatchObject({
      host: `127.0.0.1:${gateway.port}`,
      connection: 'Upgrade',
      upgrade: 'websocket',
      origin: 'https://app.test',
      cookie: 'a=b',
      'x-set': 'a',
      'x-forwarded-for': '127.0.0.1',
      'x-forwarded-proto': 'http',
      via: expect.stringMatching(/^1\.1 weirgate-/),
      'x-request-id': expect.any(String),
    })
    socket.close()
    const client = await converse(gateway.port, handshake('/ws/x', ['X-Hop: 1', 'Connection: X-Hop']))
    const received = await client.expect('\r\n\r\n')
    expect(origin.seen[1]?.headers['x-hop']).toBeUndefined()
    const values = (name: string) => fieldValues(received.slice(0, -4), name)
    expect(received).toMatch(/^HTTP\/1\.1 101 Switching Protocols\r\n/)
    expect(values('connection')).toEqual(['Upgrade'])
    expect(values('upgrade')).toEqual(['websocket'])
    expect(values('sec-websocket-accept')).toEqual([ACCEPT])
    expect(values('x-back')).toEqual(['b'])
    expect(values('via')).toEqual(['1.1 weirgate'])
    for (const name of ['x-request-id', 'x-process-time']) expect(values(name)).toHaveLength(1)
    for (const name of ['content-length', 'transfer-encoding']) expect(values(name)).toEqual([])
  })

  it('may come in pieces, and on a connection that has been used', async () => {
    const origin = await startSocketOrigin()
    const gateway = await gatewayTo(origin.url, { routes: [...ROUTES, '{path: /kept, cache: {ttl: 1h}}'] })
    const client = await converse(gateway.port)
    // By either lane.
    for (const [i, path] of ['/plain', '/kept', '/kept', '/plain', '/kept'].entries()) {
      client.send(`GET ${path} HTTP/1.1\r\nHost: a.test\r\n\r\n`)
      await until(() => client.received.split('no handshake').length === i + 2, 'the answer')
    }
    expect(metric(gateway, 'weirgate_fast_answers_total')).toBe(2)
    const bytes = handshake()
    for (const piece of [bytes.slice(0, 9), bytes.slice(9, -3), bytes.slice(-3, -1), bytes.slice(-1)]) {
      await client.flush(piece)
      await request(`${gateway.url}/health`)
    }
    expect(await client.expect('HTTP/1.1 101 ')).toContain(ACCEPT)
  })

  it.each([
    ['the beginning of something', 'x'],
    ['another request', 'GET /secret HTTP/1.1\r\nHost: a.test\r\n\r\n'],
    ['another handshake', handshake()],
  ])('is refused where %s stands behind it', async (_what, more) => {
    const { origin, gateway } = await setUp()
    const client = await converse(gateway.port, handshake() + more)
    await client.end()
    expect(client.received).toMatch(/^HTTP\/1\.1 400 /)
    expect(client.received.match(/HTTP\/1\.1/g)).toHaveLength(1)
    expect(origin.seen).toHaveLength(0)
  })

  it.each([
    ['on a route without websocket', handshake('/other', ['Connection: close'])],
    ['to another protocol', handshake().replace('Upgrade: websocket', 'Upgrade: h2c').replace('keep-alive', 'close')],
    ['without a key', handshake('/ws/x', ['Connection: close']).replace(/Sec-WebSocket-Key.*\r\n/, '')],
    ['by HTTP/1.0', handshake().replace('HTTP/1.1', 'HTTP/1.0')],
  ])('is an ordinary request %s', async (_what, bytes) => {
    const origin = await startSocketOrigin(
      {},
      { plain: (incoming, response) => response.end(JSON.stringify(incoming.headers)) },
    )
    const gateway = await gatewayTo(origin.url)
    const client = await converse(gateway.port, bytes)
    await client.end()
    expect(client.received).toMatch(/^HTTP\/1\.1 200 /)
    expect(client.received).not.toContain('"upgrade"')
  })

  it('leaves other requests of its route alone', async () => {
    const { gateway } = await setUp()
    expect((await request(`${gateway.url}/ws/x`)).text).toBe('no handshake')
  })

  it('is taken to the next target where one cannot be reached', async () => {
    const origin = await startSocketOrigin()
    const gateway = await gatewayTo(`http://127.0.0.1:${await closedPort()}, ${origin.url}`)
    for (let i = 0; i < 2; i++) expect(await (await openSocket(`${gateway.url}/ws/x`)).ask('hi')).toBe('hi')
  })

  it('goes to a backend by TLS, under its own name', async () => {
    const certificate = createCertificate(['localhost'])
    const before = tls.getCACertificates('default')
    tls.setDefaultCACertificates([...before, certificate.cert])
    onTestFinished(() => tls.setDefaultCACertificates(before))
    const origin = await startSocketOrigin({}, { certificate })
    const gateway = await gatewayTo(origin.url)
    const client = await openSocket(`${gateway.url}/ws/x`)
    const text = 'secret '.repeat(100_000)
    expect(await client.ask(text)).toBe(text)
    expect(origin.seen[0]?.headers.host).toBe(`localhost:${origin.port}`)
    const drained = gateway.gateway.drain()
    expect(await client.closed()).toBe(1001)
    await drained
  })

  it('takes no place of a request once it is answered', async () => {
    const { gateway } = await setUp({ upstream: 'connections: 1, concurrency: {max: 1, queue: 0}' })
    for (let i = 0; i < 3; i++) await openSocket(`${gateway.url}/ws/x`)
    expect((await request(`${gateway.url}/plain`)).text).toBe('no handshake')
    expect(gateway.gateway.upstreams()[0]?.targets[0]).toMatchObject({ in_flight: 0, queued: 0, open_connections: 4 })
  })
})

describe('an answer that is no 101', () => {
  it('reaches the client whole, and the connection ends', async () => {
    const body = 'x'.repeat(300_000)
    const backend = await rawBackend((socket) => {
      socket.write(
        `HTTP/1.1 403 Not Today\r\nX-Why: quota\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nTransfer-Encoding: chunked\r\n\r\n`,
      )
      for (let at = 0; at < body.length; at += 100_000) socket.write(`186a0\r\n${body.slice(at, at + 100_000)}\r\n`)
      socket.write('0\r\n\r\n')
    })
    const gateway = await gatewayTo(backend.url)
    const answer = await exchange(gateway.port, handshake())
    expect([answer.status, answer.values('x-why'), answer.values('set-cookie')]).toEqual([403, ['quota'], ['a', 'b']])
    expect(answer.values('connection')).toEqual(['close'])
    expect(answer.body.replaceAll(/[^x]/g, '')).toBe(body)
    await expectNothingLeft(gateway)
    expect(await lineOf(gateway)).toMatchObject({ status_code: 403, bytes: body.length })
  })

  it('breaks off visibly where it breaks off', async () => {
    const backend = await rawBackend((socket) => {
      socket.write('HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nhalf')
      setTimeout(() => socket.resetAndDestroy(), 50)
    })
    const gateway = await gatewayTo(backend.url)
    const client = await converse(gateway.port, handshake())
    await client.expect('half')
    await client.end()
    expect(client.closedBy).toBe('reset')
    await expectNothingLeft(gateway)
  })

  it.each([
    ['a 101 that proves nothing', SWITCHED.replace(ACCEPT, 'AAAA')],
    ['a 101 to another protocol', SWITCHED.replace('Upgrade: websocket', 'Upgrade: h2c')],
    ['a 101 without Connection', SWITCHED.replace('Connection: Upgrade\r\n', '')],
    ['a 101 with a body', SWITCHED.replace('Upgrade: websocket', 'Upgrade: websocket\r\nContent-Length: 5')],
    ['no HTTP', 'hello\r\n\r\n'],
  ])('is a 502 where it is %s', async (_what, bytes) => {
    const backend = await rawBackend((socket) => socket.write(bytes))
    const gateway = await gatewayTo(backend.url)
    const { status, body } = await exchange(gateway.port, handshake())
    expect([status, (JSON.parse(body) as { code: string }).code]).toEqual([502, 'upstream_invalid'])
    await until(() => backend.sockets[0]?.destroyed === true || backend.sockets[0]?.readableEnded === true, 'its end')
    await expectNothingLeft(gateway)
  })

  it('is a 504 where none comes in time, and a 502 where nobody is there', async () => {
    const backend = await rawBackend(() => {})
    const slow = await gatewayTo(backend.url, { upstream: 'timeouts: {firstByte: 150ms}' })
    expect(JSON.parse((await exchange(slow.port, handshake())).body)).toMatchObject({ code: 'timeout_first_byte' })
    const gone = await gatewayTo(`http://127.0.0.1:${await closedPort()}`)
    expect(JSON.parse((await exchange(gone.port, handshake())).body)).toMatchObject({ code: 'upstream_refused' })
    await expectNothingLeft(slow)
  })
})

describe('rules of the route', () => {
  it('hold for the handshake: who is not let in is told why', async () => {
    const { origin, gateway } = await setUp({
      routes: ['{path: /ws/*, websocket: true, auth: required}'],
      more: 'identity: {user: [{header: x-api-key, keys: {alice: 0123456789abcdef}}]}',
    })
    expect((await exchange(gateway.port, handshake())).status).toBe(401)
    expect(origin.seen).toHaveLength(0)
    await openSocket(`${gateway.url}/ws/x`, { 'X-Api-Key': '0123456789abcdef' })
  })

  it('charge it once, whatever goes through the socket', async () => {
    const { gateway } = await setUp({
      routes: ['{path: /ws/*, websocket: true, limits: [few]}'],
      more: 'limits: {few: {limit: 2, window: 1h, key: ip}}',
    })
    const client = await openSocket(`${gateway.url}/ws/x`)
    for (let i = 0; i < 10; i++) await client.ask(`message ${i}`)
    const second = await converse(gateway.port, handshake())
    expect(fieldValues(await second.expect('\r\n\r\n'), 'x-ratelimit-remaining')).toEqual(['0'])
    const third = await exchange(gateway.port, handshake())
    expect([third.status, third.values('connection')]).toEqual([429, ['close']])
    expect(await client.ask('still')).toBe('still')
  })

  it('hold a slot for as long as the socket lives', async () => {
    const { gateway } = await setUp({
      routes: ['{path: /ws/*, websocket: true, limits: [slots]}'],
      more: 'limits: {slots: {kind: concurrency, limit: 2, key: ip}}',
    })
    const clients = [await openSocket(`${gateway.url}/ws/x`), await openSocket(`${gateway.url}/ws/x`)]
    expect((await exchange(gateway.port, handshake())).status).toBe(429)
    clients[0]?.socket.close()
    await gateway.requestLines(2)
    await openSocket(`${gateway.url}/ws/x`)
    expect((await exchange(gateway.port, handshake())).status).toBe(429)
  })
})

describe('what is told of a socket', () => {
  it('is a gauge while it is open, and one line when it has ended', async () => {
    const { gateway } = await setUp({ more: 'log: {slow: 40ms}' })
    const client = await openSocket(`${gateway.url}/ws/x`)
    await client.ask('12345')
    await delay(60)
    expect(openWebSockets(gateway)).toBe(1)
    expect(gateway.log.filter(({ route }) => route === '/ws/*')).toEqual([])
    client.socket.close()
    await client.closed()
    const line = await lineOf(gateway)
    expect(line).toMatchObject({ message: 'Request completed', level: 'INFO', status_code: 101, route: '/ws/*' })
    expect(line['duration_ms']).toBeGreaterThanOrEqual(60)
    // The frame of the text, and that of the close.
    expect(line['bytes']).toBe(7 + 2)
    expect(line['error']).toBeUndefined()
    await expectNothingLeft(gateway)
    const { latency_ms } = gateway.gateway.stats().since_start.routes['/ws/*'] as { latency_ms: { max: number } }
    expect(latency_ms.max).toBeLessThan(line['duration_ms'] as number)
    expect(metric(gateway, 'weirgate_requests_total{route="/ws/\\*",status="101"}')).toBe(1)
  })
})

describe('the end', () => {
  it('of a client comes to the backend, and of the backend to the client, however abrupt', async () => {
    const { origin, gateway } = await setUp()
    const first = await openSocket(`${gateway.url}/ws/x`)
    first.socket.terminate()
    await until(() => origin.closeCodes.length === 1, 'the origin to see the end')
    const second = await openSocket(`${gateway.url}/ws/x`)
    origin.kill()
    expect(await second.closed()).toBe(1006)
    const third = await converse(gateway.port, handshake())
    await third.expect('HTTP/1.1 101 ')
    third.reset()
    await expectNothingLeft(gateway, origin)
    const lines = await gateway.requestLines(3)
    expect(lines.map(({ status_code, error }) => [status_code, error])).toEqual([
      [101, undefined],
      [101, 'upstream_reset'],
      [101, undefined],
    ])
  })

  it('of a client that goes in the handshake ends that', async () => {
    for (const go of ['reset', 'finish', 'destroy'] as const) {
      const backend = await rawBackend(() => {})
      const gateway = await gatewayTo(backend.url)
      const client = await converse(gateway.port, handshake())
      await until(() => backend.sockets.length === 1, 'the handshake at the origin')
      client[go]()
      await until(() => backend.sockets[0]?.closed === true, `the end of it after ${go}`)
      await expectNothingLeft(gateway)
      expect(await lineOf(gateway)).toMatchObject({ status_code: 499 })
    }
  })

  it('comes where nothing moves for websocketIdle, and not for a day in which anything does', async () => {
    const clock = holdTime()
    const { origin, gateway } = await setUp({
      upstream: 'timeouts: {idle: 1s, total: 2s, websocketIdle: 1h}',
      routes: ['{path: /ws/*, websocket: true, timeouts: {websocketIdle: 30m}}'],
    })
    const client = await openSocket(`${gateway.url}/ws/x`)
    const [backend] = origin.server.clients
    let pongs = 0
    client.socket.on('pong', () => pongs++)
    backend?.on('pong', () => pongs++)
    // Each direction alone is enough: a pong is not answered.
    for (let i = 1; i <= 50; i++) {
      clock.advance(29 * 60_000)
      ;(i % 20 < 10 ? client.socket : backend)?.pong()
      await clock.until(() => pongs === i, 'the pong')
    }
    clock.advance(29 * 60_000)
    // Whatever has fallen due has been done by the end of another exchange.
    expect((await request(`${gateway.url}/health`)).status).toBe(200)
    expect([client.code, openWebSockets(gateway)]).toEqual([null, 1])
    clock.advance(60_000)
    expect(await client.closed()).toBe(1006)
    const line = () => gateway.log.find(({ status_code }) => status_code === 101)
    await clock.until(() => line() !== undefined, 'the line')
    expect(line()).toMatchObject({ error: 'timeout_idle' })
    await clock.until(() => openConnections(gateway) + origin.openSockets === 0, 'the end of both sides')
  })

  it('leaves nothing behind: 200 that either side breaks off at random points', async () => {
    // The same numbers in every run.
    let state = 1
    const random = (below: number): number => (state = (state * 48_271) % 2_147_483_647) % below
    const ends: ((socket: Socket) => void)[] = [
      (socket) => void socket.resetAndDestroy(),
      (socket) => void socket.end(),
      (socket) => void socket.end(HI, 'latin1'),
      (socket) => void socket.destroy(),
    ]
    const later = (act: () => void): void => void (random(3) === 0 ? act() : setTimeout(act, random(15)))
    const backend = await rawBackend((socket) => {
      later(() => {
        if (random(8) === 0) return ends[random(4)]?.(socket)
        socket.write(random(10) === 0 ? 'HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nno' : SWITCHED)
        for (let i = random(5); i > 0; i--) socket.write(Buffer.alloc(random(100_000), 1))
        if (random(2) === 0) later(() => ends[random(4)]?.(socket))
      })
    })
    const gateway = await gatewayTo(backend.url, {
      routes: ['{path: /ws/*, websocket: true, limits: [slots]}'],
      more: 'limits: {slots: {kind: concurrency, limit: 40, key: ip}}',
    })
    const COUNT = 200
    for (let i = 0; i < COUNT; i += 40) {
      await Promise.all(
        Array.from({ length: 40 }, async () => {
          const client = await converse(gateway.port, handshake())
          // Some of them go before they are answered.
          if (random(3) > 0) await until(() => client.received !== '' || client.closed, 'an answer')
          if (random(4) === 0) client.pause()
          await delay(random(20))
          for (let more = random(4); more > 0; more--) client.send(Buffer.alloc(random(20_000), 1))
          await delay(random(20))
          client[(['reset', 'destroy', 'finish'] as const)[random(3)] as 'reset']()
          client.resume()
          await client.end()
        }),
      )
      await expectNothingLeft(gateway)
    }
    const statuses = (await gateway.requestLines(COUNT / 2)).map(({ status_code }) => Number(status_code))
    expect(statuses.length).toBeLessThanOrEqual(COUNT)
    expect(statuses.filter((status) => status === 101).length).toBeGreaterThan(COUNT / 4)
    // Nobody was refused by the limit: every slot has come back.
    expect(statuses.filter((status) => ![101, 400, 499, 502].includes(status))).toEqual([])
    await until(() => backend.sockets.every(({ closed }) => closed), 'the end of all at the origin')
  })

  it.each(['reset', 'destroy'] as const)(
    'comes soon where a client goes (%s) that a deaf backend holds back',
    async (go) => {
      const clock = holdTime()
      const backend = await rawBackend((socket) => void socket.write(SWITCHED))
      const gateway = await gatewayTo(backend.url)
      const client = await converse(gateway.port, handshake())
      await clock.until(() => client.received.includes('\r\n\r\n'), 'the 101')
      backend.sockets[0]?.pause()
      // Until nobody takes more.
      const piece = Buffer.alloc(256 * 1024)
      for (let isTaken = true; isTaken;) {
        isTaken = false
        void client.flush(piece).then(() => (isTaken = true))
        const sinceMs = Date.now()
        await clock.until(() => isTaken || Date.now() - sinceMs > 300, 'a while')
      }
      client[go]()
      for (let i = 0; i < 4 && openWebSockets(gateway) > 0; i++) {
        clock.advance(5000)
        expect((await request(`${gateway.url}/health`)).status).toBe(200)
      }
      await clock.until(() => openWebSockets(gateway) === 0, 'the end of it')
      const line = () => gateway.log.find(({ status_code }) => status_code === 101)
      await clock.until(() => line() !== undefined, 'its line')
    },
  )

  it('waits for what is on its way to a client that reads slowly', async () => {
    const backend = await rawBackend((socket) => {
      socket.write(SWITCHED)
      socket.end(Buffer.alloc(8 * 1024 * 1024, 'x'))
    })
    const gateway = await gatewayTo(backend.url)
    const client = await converse(gateway.port)
    client.pause()
    await client.flush(handshake())
    await delay(1500)
    client.resume()
    await client.end()
    expect(client.received.length - SWITCHED.length).toBeGreaterThanOrEqual(8 * 1024 * 1024)
    await expectNothingLeft(gateway)
  })
})

describe('whoever does not read', () => {
  const MESSAGES = 64

  /** Sends much from one end while the other does not read; then it does. Answers how many messages had to wait where they
   *  came from, and how many have come. */
  async function flood(from: WebSocket, to: WebSocket): Promise<{ held: number; taken: number }> {
    let taken = 0
    to.on('message', () => taken++)
    to.pause()
    for (let i = 0; i < MESSAGES; i++) from.send(Buffer.alloc(1024 * 1024))
    let before = -1
    while (from.bufferedAmount !== before) {
      before = from.bufferedAmount
      await delay(200)
    }
    const held = from.bufferedAmount / 1024 / 1024
    to.resume()
    await until(() => taken === MESSAGES, 'all messages')
    return { held, taken }
  }

  it.each(['client', 'backend'] as const)('holds the other side back: a %s', async (who) => {
    const origin = await startSocketOrigin()
    origin.server.on('connection', (socket) => void socket.removeAllListeners('message'))
    const gateway = await gatewayTo(origin.url)
    const { socket: client } = await openSocket(`${gateway.url}/ws/x`)
    const [backend] = origin.server.clients
    if (backend === undefined) throw new Error('no socket at the origin')
    const { held, taken } = await (who === 'client' ? flood(backend, client) : flood(client, backend))
    expect(taken).toBe(MESSAGES)
    // What the kernel and the gateway take in is far less than all.
    expect(held).toBeGreaterThan(MESSAGES / 2)
    client.close()
    await expectNothingLeft(gateway, origin)
  })
})

describe('shutting down', () => {
  it('says 1001 to clients, between two frames', async () => {
    const { origin, gateway } = await setUp()
    const client = await openSocket(`${gateway.url}/ws/x`)
    await client.ask('hi')
    const drained = gateway.gateway.drain()
    expect(await client.closed()).toBe(1001)
    await drained
    await until(() => origin.openSockets === 0, 'the origin to be left')
    expect(origin.closeCodes).toEqual([1001])
    expect(await lineOf(gateway)).toMatchObject({ status_code: 101 })
  })

  it('lets a frame that is on its way come whole before', async () => {
    const backend = await rawBackend((socket) => socket.write(`${SWITCHED}\x82\x0512`, 'latin1'))
    const gateway = await gatewayTo(backend.url)
    const client = await converse(gateway.port, handshake())
    await client.expect('\x82\x0512')
    const drained = gateway.gateway.drain()
    await delay(100)
    expect(client.received.endsWith('\x82\x0512')).toBe(true)
    backend.sockets[0]?.write('345\x82\x01x', 'latin1')
    const received = await client.expect(`\x82\x0512345${GOING_AWAY}`)
    client.send('bye')
    await until(() => backend.received === 'bye', 'the answer of the client')
    backend.sockets[0]?.end()
    client.finish()
    await drained
    expect(client.received).toBe(received)
  })

  it('ends where neither client nor backend does anything', async () => {
    const backend = await rawBackend((socket) => socket.write(SWITCHED))
    const gateway = await gatewayTo(backend.url)
    const clients = [await converse(gateway.port, handshake()), await converse(gateway.port, handshake())]
    for (const client of clients) await client.expect('\r\n\r\n')
    clients[0]?.pause()
    const startedAtMs = performance.now()
    await gateway.gateway.drain()
    expect(performance.now() - startedAtMs).toBeLessThan(10_000)
    expect(clients[1]?.received.endsWith(GOING_AWAY)).toBe(true)
    clients[0]?.destroy()
  })

  it('tells a socket that opens only now', async () => {
    let owed: Socket | undefined
    const backend = await rawBackend((socket) => (owed = socket))
    const gateway = await gatewayTo(backend.url)
    const client = await converse(gateway.port, handshake())
    await until(() => owed !== undefined, 'the handshake at the origin')
    const drained = gateway.gateway.drain()
    owed?.write(SWITCHED)
    const received = await client.expect(GOING_AWAY)
    client.finish()
    await drained
    expect(client.received).toBe(received)
  })
})

it('a reload leaves sockets open, and lets go of their pool when they end', async () => {
  const [before, after] = [await startSocketOrigin(), await startSocketOrigin()]
  const yaml = (url: string) => `
upstreams: {app: {targets: ["${url}"]}}
routes: [{path: /ws, upstream: app, websocket: true}]
`
  const gateway = await startGateway(yaml(before.url))
  onTestFinished(() => gateway.close())
  const old = await openSocket(`${gateway.url}/ws`)
  gateway.rewrite(yaml(after.url))
  expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
  const young = await openSocket(`${gateway.url}/ws`)
  expect(await old.ask('old')).toBe('old')
  expect(await young.ask('young')).toBe('young')
  expect([before.openSockets, after.openSockets]).toEqual([1, 1])
  const drained = gateway.gateway.drain()
  expect([await old.closed(), await young.closed()]).toEqual([1001, 1001])
  await drained
})

it('200 sockets, half of them killed, the backend restarted: nothing is left, and a drain says 1001 to the others', async () => {
  const origin = await startSocketOrigin()
  const gateway = await runGateway(`
listen: {address: 127.0.0.1:0}
admin: {listen: 127.0.0.1:0}
upstreams: {app: {targets: ["${origin.url}"]}}
limits: {slots: {kind: concurrency, limit: 200, key: ip}}
routes: [{path: /ws, upstream: app, websocket: true, limits: [slots]}]
`)
  const told = async (what: RegExp): Promise<number> =>
    Number(what.exec((await request(`${gateway.adminUrl}/metrics`)).text)?.[1])
  const sockets = () => told(/^weirgate_websockets_open (\d+)$/m)
  const settled = async (count: number): Promise<void> => {
    const endMs = performance.now() + 10_000
    while ((await sockets()) !== count) if (performance.now() > endMs) throw new Error(`not ${count} sockets`)
  }
  /** Sockets that the process has open, by the system. */
  const handles = (): number => (process.platform === 'linux' ? readdirSync(`/proc/${gateway.pid}/fd`).length : 0)
  const open = () => Promise.all(Array.from({ length: 200 }, () => openSocket(`${gateway.url}/ws`)))
  const talk = (clients: readonly { ask(text: string): Promise<string> }[]) =>
    Promise.all(clients.map((client, i) => client.ask(`${i};`)))

  await settled(0)
  const handlesBefore = handles()
  const first = await open()
  await talk(first)
  await settled(200)
  await expect(openSocket(`${gateway.url}/ws`)).rejects.toThrow('429')
  for (const { socket } of first.slice(0, 100)) socket.terminate()
  await settled(100)
  await until(() => origin.openSockets === 100, '100 sockets at the origin')
  await talk(first.slice(100))

  await origin.close()
  expect(new Set(await Promise.all(first.slice(100).map((client) => client.closed())))).toEqual(new Set([1006]))
  await settled(0)
  await expect(openSocket(`${gateway.url}/ws`)).rejects.toThrow('502')
  await until(() => handles() <= handlesBefore, 'as many handles as before')
  const again = await startSocketOrigin({}, { port: origin.port })

  const second = await open()
  await talk(second)
  await settled(200)
  gateway.kill('SIGTERM')
  expect(new Set(await Promise.all(second.map((client) => client.closed())))).toEqual(new Set([1001]))
  expect(await gateway.end).toEqual({ code: 0, signal: null })
  await until(() => again.openSockets === 0, 'no socket at the origin')
  const lines = gateway.log.filter(({ route }) => route === '/ws')
  expect(lines.filter(({ status_code }) => status_code === 101)).toHaveLength(400)
  expect(lines).toHaveLength(402)
})
