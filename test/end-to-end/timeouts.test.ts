// Which of the five timers fires, and that it says so: a 504 with its code before the head, a visible break after it.
// Only lower bounds are measured; everything else waits for events.

import { spawn } from 'node:child_process'
import net, { type AddressInfo, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { converse, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { startGateway, until, type TestGateway } from '../support/gateway.ts'
import { startOrigin, startRawOrigin, type Origin, type Script } from '../support/origin.ts'
import { get } from '../support/exchange.ts'

const closing = closeAfterEach()

interface Options {
  /** The upstream's `timeouts`, as a flow mapping's inside. */
  readonly timeouts: string
  /** Further options of the upstream, and of the one route. */
  readonly upstream?: string
  readonly route?: string
}

async function gatewayTo(
  targets: readonly string[],
  { timeouts, upstream = '', route = '' }: Options,
): Promise<TestGateway> {
  return closing(
    await startGateway(`
upstreams: {app: {targets: ${JSON.stringify(targets)}, timeouts: {${timeouts}}${upstream === '' ? '' : `, ${upstream}`}}}
defaults: {upstream: app}
routes: [{path: /*${route === '' ? '' : `, ${route}`}}]
`),
  )
}

async function setUp(script: Script, options: Options): Promise<{ origin: Origin; gateway: TestGateway }> {
  const origin = closing(await startOrigin(script))
  return { origin, gateway: await gatewayTo([origin.url], options) }
}

/** The code of the 504, and how long it took. */
async function timedOut(answer: ReturnType<typeof request>): Promise<{ code: string; afterMs: number }> {
  const startedAtMs = performance.now()
  const { status, text } = await answer
  expect(status).toBe(504)
  return { code: (JSON.parse(text) as { code: string }).code, afterMs: performance.now() - startedAtMs }
}

const inFlight = (gateway: TestGateway): number =>
  gateway.gateway
    .upstreams()
    .flatMap(({ targets }) => targets)
    .reduce((sum, target) => sum + target.in_flight + target.queued, 0)

/** Accepts connections, and says nothing ever. */
async function deafServer(): Promise<{ port: number; connections: () => number; close(): Promise<void> }> {
  const sockets: Socket[] = []
  const server = net.createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => {}).resume()
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return closing({
    port: (server.address() as AddressInfo).port,
    connections: () => sockets.length,
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy()
        server.close(() => resolve())
      }),
  })
}

const delay = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

const OTHERS_LONG = 'queue: 9s, firstByte: 9s, idle: 9s, total: 9s'

describe('connect', () => {
  it('fires when a TLS handshake does not end, also where less time is given to the queue', async () => {
    const { port, connections } = await deafServer()
    const gateway = await gatewayTo([`https://127.0.0.1:${port}`], {
      timeouts: 'connect: 200ms, queue: 50ms, firstByte: 50ms, idle: 50ms, total: 9s',
      upstream: 'retries: 5',
    })
    const { code, afterMs } = await timedOut(request(gateway.url))
    expect(code).toBe('timeout_connect')
    expect(afterMs).toBeGreaterThanOrEqual(195)
    expect(inFlight(gateway)).toBe(0)
    // There is nobody else to ask.
    expect(connections()).toBe(1)
  })

  it.runIf(process.platform === 'linux')(
    'fires when the kernel of the upstream takes no more connections',
    async () => {
      // A stopped process accepts none, and its backlog of one is soon full.
      const script = `require('net').createServer().listen({port: 0, host: '127.0.0.1', backlog: 1}, function () { console.log(this.address().port) })`
      const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
      closing({
        close: () =>
          new Promise((resolve) => {
            child.once('exit', () => resolve())
            child.kill('SIGKILL')
          }),
      })
      const port = Number(String(await new Promise((resolve) => child.stdout.once('data', resolve))))
      child.kill('SIGSTOP')
      let isFull = false
      while (!isFull) {
        const filler = net.connect(port, '127.0.0.1')
        filler.on('error', () => {})
        closing({ close: () => Promise.resolve(void filler.destroy()) })
        const connected = new Promise((resolve) => filler.once('connect', () => resolve(true)))
        isFull = !(await Promise.race([connected, delay(300)]))
      }
      const gateway = await gatewayTo([`http://127.0.0.1:${port}`], {
        timeouts: `connect: 200ms, ${OTHERS_LONG}`,
        upstream: 'retries: 0',
      })
      const { code, afterMs } = await timedOut(request(gateway.url))
      expect(code).toBe('timeout_connect')
      expect(afterMs).toBeGreaterThanOrEqual(195)
    },
  )

  it('is over once the connection stands, however long it is used', async () => {
    const { origin, gateway } = await setUp((_message, response) => void setTimeout(() => response.end('slow'), 300), {
      timeouts: `connect: 100ms, ${OTHERS_LONG}`,
      upstream: 'connections: 1',
    })
    for (let i = 0; i < 2; i++) expect((await request(gateway.url)).text).toBe('slow')
    expect(origin.openSockets).toBe(1)
  })

  it('sends the request to the next target, a POST with its body too', async () => {
    const { port } = await deafServer()
    const origin = closing(await startOrigin((message, response) => message.on('end', () => response.end('ok'))))
    const gateway = await gatewayTo([`https://127.0.0.1:${port}`, origin.url], {
      timeouts: `connect: 100ms, ${OTHERS_LONG}`,
    })
    for (let i = 0; i < 2; i++) {
      expect((await request(gateway.url)).status).toBe(200)
      expect((await request(gateway.url, { method: 'POST', body: 'hello' })).status).toBe(200)
    }
    for (const { method, body } of origin.seen) expect((await body).toString()).toBe(method === 'POST' ? 'hello' : '')
  })

  it('leaves nothing behind of clients that have gone meanwhile', async () => {
    const { port } = await deafServer()
    const gateway = await gatewayTo([`https://127.0.0.1:${port}`], {
      timeouts: `connect: 500ms, ${OTHERS_LONG}`,
      upstream: 'connections: 2',
    })
    const clients = await Promise.all(Array.from({ length: 6 }, () => converse(gateway.port, get('/'))))
    await until(() => inFlight(gateway) === 6, 'the requests to wait')
    for (const client of clients) client.reset()
    await until(() => inFlight(gateway) === 0, 'all to be forgotten')
    expect(await gateway.requestLines(6)).toMatchObject(Array.from({ length: 6 }, () => ({ status_code: 499 })))
  })
})

describe('queue', () => {
  it('fires for those who wait for a connection, and not for the one who has it', async () => {
    let finish = (): void => {}
    const { origin, gateway } = await setUp((_message, response) => (finish = () => void response.end('first')), {
      timeouts: 'connect: 9s, queue: 200ms, firstByte: 9s, idle: 9s, total: 9s',
      upstream: 'connections: 1',
    })
    const first = request(`${gateway.url}/first`)
    await until(() => origin.seen.length === 1, 'the first request at the origin')
    for (const method of ['GET', 'POST']) {
      const { code, afterMs } = await timedOut(request(`${gateway.url}/second`, { method }))
      expect(code).toBe('timeout_queue')
      expect(afterMs).toBeGreaterThanOrEqual(195)
    }
    expect(inFlight(gateway)).toBe(1)
    finish()
    expect((await first).text).toBe('first')
    expect(origin.seen).toHaveLength(1)
  })

  it("is the route's own where it says so", async () => {
    const { origin, gateway } = await setUp(() => {}, {
      timeouts: OTHERS_LONG,
      upstream: 'connections: 1',
      route: 'timeouts: {queue: 100ms}',
    })
    const hanging = await converse(gateway.port, get('/'))
    await until(() => origin.seen.length === 1, 'the first request at the origin')
    expect((await timedOut(request(gateway.url))).code).toBe('timeout_queue')
    hanging.destroy()
  })
})

describe('first_byte', () => {
  const timeouts = 'connect: 9s, queue: 9s, firstByte: 250ms, idle: 9s, total: 9s'

  it('fires when no answer begins', async () => {
    const { origin, gateway } = await setUp(() => {}, { timeouts })
    const { code, afterMs } = await timedOut(request(gateway.url))
    expect(code).toBe('timeout_first_byte')
    expect(afterMs).toBeGreaterThanOrEqual(245)
    expect(origin.seen).toHaveLength(1)
    await until(() => origin.aborted === 1, 'the origin to see it broken off')
    expect(inFlight(gateway)).toBe(0)
  })

  it('counts from the request sent: a long upload is not late', async () => {
    const { gateway } = await setUp((message, response) => message.on('end', () => response.end('thanks')), {
      timeouts,
    })
    const client = await converse(
      gateway.port,
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\nConnection: close\r\n\r\n',
    )
    for (let i = 0; i < 6; i++) {
      await delay(100)
      client.send('0123456789')
    }
    await client.end()
    expect(client.received).toContain('HTTP/1.1 200 OK')
  })

  it('fires after an upload, counted from its end', async () => {
    const { gateway } = await setUp((message) => void message.resume(), { timeouts })
    const client = await converse(
      gateway.port,
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\nConnection: close\r\n\r\n0123456789',
    )
    await delay(350)
    expect(client.received).toBe('')
    const sentAtMs = performance.now()
    client.send('0123456789')
    await client.end()
    expect(client.received).toContain('"code":"timeout_first_byte"')
    expect(performance.now() - sentAtMs).toBeGreaterThanOrEqual(240)
  })

  it.each([
    ['interim answers', (socket: Socket) => socket.write('HTTP/1.1 102 Processing\r\n\r\n')],
    ['the beginning of a head', (socket: Socket) => socket.write('HTTP/1.1 200 OK\r\nX-Slow: ')],
    ['a reason phrase without end', (socket: Socket) => socket.write(`HTTP/1.1 200 ${'so '.repeat(1000)}`)],
    [
      'a head byte by byte',
      (socket: Socket) => {
        socket.write('HTTP/1.1 200 OK\r\nX-Slow: ')
        const timer = setInterval(() => socket.write('x'), 20)
        socket.on('close', () => clearInterval(timer))
      },
    ],
  ])('is not held off by %s', async (_what, answer) => {
    let requests = 0
    const origin = closing(
      await startRawOrigin((socket) => {
        requests++
        answer(socket)
      }),
    )
    const gateway = await gatewayTo([origin.url], { timeouts })
    expect((await timedOut(request(gateway.url))).code).toBe('timeout_first_byte')
    expect(requests).toBe(1)
    expect(inFlight(gateway)).toBe(0)
  })

  it("is the route's own where it says so", async () => {
    const { gateway } = await setUp((message, response) => void setTimeout(() => response.end(message.url), 400), {
      timeouts,
      route: 'timeouts: {firstByte: 5s}',
    })
    expect((await request(`${gateway.url}/slow`)).text).toBe('/slow')
  })
})

describe('idle', () => {
  const timeouts = 'connect: 9s, queue: 9s, firstByte: 9s, idle: 250ms, total: 9s'

  it.each(['1.0', '1.1'])('breaks off an answer with a gap, visibly to an HTTP/%s client', async (version) => {
    const { origin, gateway } = await setUp((_message, response) => response.write('partial'), { timeouts })
    const client = await converse(gateway.port, `GET / HTTP/${version}\r\nHost: a\r\n\r\n`)
    await client.expect('partial')
    await client.end()
    expect(client.closedBy).toBe('reset')
    expect(client.received).not.toContain('\r\n0\r\n\r\n')
    const lines = await gateway.requestLines(1)
    expect(lines).toMatchObject([{ error: 'timeout_idle', status_code: 200 }])
    expect(lines[0]?.['duration_ms']).toBeGreaterThanOrEqual(245)
    await until(() => origin.aborted === 1, 'the origin to see it broken off')
    expect(inFlight(gateway)).toBe(0)
  })

  it('does not fire while bytes come, however slowly', async () => {
    const { gateway } = await setUp(
      (_message, response) => {
        let count = 0
        const timer = setInterval(() => {
          response.write(`${count++}`)
          if (count < 8) return
          clearInterval(timer)
          response.end()
        }, 60)
      },
      { timeouts },
    )
    expect((await request(gateway.url)).text).toBe('01234567')
  })

  it('is a 504 when the origin takes no more of an upload', async () => {
    const deaf = net.createServer({ pauseOnConnect: true })
    await new Promise<void>((resolve) => deaf.listen(0, '127.0.0.1', resolve))
    const sockets: Socket[] = []
    deaf.on('connection', (socket) => sockets.push(socket.on('error', () => {})))
    closing({
      close: () =>
        new Promise((resolve) => {
          for (const socket of sockets) socket.destroy()
          deaf.close(() => resolve())
        }),
    })
    const gateway = await gatewayTo([`http://127.0.0.1:${(deaf.address() as AddressInfo).port}`], {
      timeouts,
      route: 'maxBody: 1GiB',
    })
    const total = 64 * 1024 * 1024
    const client = await converse(gateway.port, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${total}\r\n\r\n`)
    client.send(Buffer.alloc(total / 2))
    expect(await client.expect('"code":"timeout_idle"')).toContain('HTTP/1.1 504')
    client.destroy()
  })

  it("is not the upstream's fault while the client sends nothing", async () => {
    const { gateway } = await setUp((message, response) => message.on('end', () => response.end('thanks')), {
      timeouts,
    })
    const client = await converse(
      gateway.port,
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nConnection: close\r\n\r\n01234',
    )
    await delay(700)
    client.send('56789')
    await client.end()
    expect(client.received).toContain('HTTP/1.1 200 OK')
  })

  it("is not the upstream's fault while the client reads nothing", async () => {
    const body = Buffer.alloc(32 * 1024 * 1024, 'x')
    const { gateway } = await setUp((_message, response) => response.end(body), { timeouts })
    const client = await converse(gateway.port)
    client.pause()
    client.send(get('/'))
    await delay(900)
    client.resume()
    await client.end()
    expect(client.closedBy).toBe('end')
    expect(client.received.length).toBeGreaterThan(body.length)
  })
})

describe('total', () => {
  const drip: Script = (_message, response) => {
    const timer = setInterval(() => response.write('data: x\n\n'), 20)
    response.on('close', () => clearInterval(timer))
  }

  it('is a 504 while there is no head', async () => {
    const { gateway } = await setUp(() => {}, {
      timeouts: 'connect: 9s, queue: 9s, firstByte: 9s, idle: 9s, total: 250ms',
    })
    const { code, afterMs } = await timedOut(request(gateway.url))
    expect(code).toBe('timeout_total')
    expect(afterMs).toBeGreaterThanOrEqual(245)
  })

  it('counts the time in line', async () => {
    const { origin, gateway } = await setUp(() => {}, {
      timeouts: 'connect: 9s, queue: 9s, firstByte: 9s, idle: 9s, total: 9s',
      upstream: 'connections: 1',
      route: 'timeouts: {total: 300ms}',
    })
    const answers = [timedOut(request(gateway.url))]
    await until(() => origin.seen.length === 1, 'the first request at the origin')
    answers.push(timedOut(request(gateway.url)))
    expect((await Promise.all(answers)).map(({ code }) => code)).toEqual(['timeout_total', 'timeout_total'])
    await until(() => inFlight(gateway) === 0, 'the connection to be given up')
  })

  it('counts the time in line for a place at the upstream', async () => {
    const { origin, gateway } = await setUp(() => {}, {
      timeouts: OTHERS_LONG,
      upstream: 'concurrency: {max: 1, wait: 9s}',
      route: 'timeouts: {total: 300ms}',
    })
    const answers = [timedOut(request(gateway.url))]
    await until(() => origin.seen.length === 1, 'the first request at the origin')
    const { code, afterMs } = await timedOut(request(gateway.url, { method: 'POST', body: 'x' }))
    expect([code, (await answers[0])?.code]).toEqual(['timeout_total', 'timeout_total'])
    expect(afterMs).toBeGreaterThanOrEqual(295)
  })

  const refuseOnce: Script = (_message, response, count) => {
    if (count === 1) response.writeHead(503, { 'Retry-After-Ms': '150' }).end()
  }

  it('counts the time until a refused request may come again', async () => {
    const { origin, gateway } = await setUp(refuseOnce, {
      // Where the total began again, the first byte would be late before it.
      timeouts: 'connect: 9s, queue: 9s, firstByte: 500ms, idle: 9s, total: 600ms',
    })
    const { code, afterMs } = await timedOut(request(gateway.url))
    expect([code, origin.seen.length]).toEqual(['timeout_total', 2])
    expect(afterMs).toBeGreaterThanOrEqual(595)
  })

  it('counts that and the time in line after it, which may be short of what one may wait there', async () => {
    const origin = closing(
      await startOrigin((message, response) => {
        if (message.url === '/refused') response.writeHead(503, { 'Retry-After': '1' }).end()
      }),
    )
    const gateway = closing(
      await startGateway(`
upstreams: {app: {targets: ["${origin.url}"], concurrency: {max: 1, wait: 1300ms}}}
defaults: {upstream: app}
routes: [{path: /held}, {path: /refused, timeouts: {total: 1500ms}}]
`),
    )
    const refused = timedOut(request(`${gateway.url}/refused`))
    await until(() => origin.seen.length === 1 && inFlight(gateway) === 0, 'the refusal')
    const holder = await converse(gateway.port, get('/held'))
    await until(() => origin.seen.length === 2, 'another to have the place')
    expect((await refused).code).toBe('timeout_total')
    holder.destroy()
    expect(origin.seen).toHaveLength(2)
  })

  it('leaves the other timers what they are: each attempt has its own', async () => {
    const { origin, gateway } = await setUp(refuseOnce, {
      timeouts: 'connect: 9s, queue: 9s, firstByte: 300ms, idle: 9s, total: 9s',
      upstream: 'concurrency: {max: 1}',
    })
    const { code, afterMs } = await timedOut(request(gateway.url))
    expect([code, origin.seen.length]).toEqual(['timeout_first_byte', 2])
    expect(afterMs).toBeGreaterThanOrEqual(445)
  })

  it('counts all attempts together', async () => {
    const ports = [(await deafServer()).port, (await deafServer()).port, (await deafServer()).port]
    const gateway = await gatewayTo(
      ports.map((port) => `https://127.0.0.1:${port}`),
      {
        timeouts: 'connect: 250ms, queue: 9s, firstByte: 9s, idle: 9s, total: 400ms',
        upstream: 'retries: 5',
      },
    )
    const { code, afterMs } = await timedOut(request(gateway.url))
    expect(code).toBe('timeout_total')
    expect(afterMs).toBeGreaterThanOrEqual(395)
    await until(() => inFlight(gateway) === 0, 'the connection to be given up')
  })

  it('breaks off an answer that goes on and on', async () => {
    const { origin, gateway } = await setUp(drip, { timeouts: 'total: 300ms' })
    const client = await converse(gateway.port, get('/'))
    await client.end()
    expect(client.closedBy).toBe('reset')
    const lines = await gateway.requestLines(1)
    expect(lines).toMatchObject([{ error: 'timeout_total', status_code: 200 }])
    expect(lines[0]?.['duration_ms']).toBeGreaterThanOrEqual(295)
    await until(() => origin.aborted === 1, 'the origin to see it broken off')
  })

  it('is streamTotal for an event stream, which it ends too', async () => {
    const { gateway } = await setUp(
      (message, response) => {
        response.setHeader('Content-Type', 'Text/Event-Stream; charset=utf-8')
        drip(message, response, 1)
      },
      { timeouts: 'firstByte: 150ms, total: 150ms, streamTotal: 600ms' },
    )
    const client = await converse(gateway.port, get('/'))
    await client.end()
    // Between two events it can say so, and closes without the last chunk.
    expect(client.received).toMatch(/event: error\ndata: \{"code":"timeout_total",[^\n]+\n\n\r\n$/)
    const lines = await gateway.requestLines(1)
    expect(lines).toMatchObject([{ error: 'timeout_total' }])
    expect(lines[0]?.['duration_ms']).toBeGreaterThanOrEqual(595)
  })
})

describe('every timer', () => {
  it('is cleared when its request ends, well or not', async () => {
    const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length
    const { origin, gateway } = await setUp(
      (message, response) => {
        if (message.url === '/hang') return
        if (message.url === '/break') response.write('x', () => response.destroy())
        else message.on('end', () => response.end('ok')).resume()
      },
      { timeouts: 'connect: 60s, queue: 60s, firstByte: 60s, idle: 60s, total: 60s' },
    )
    // The first exchange makes what stays for the life of the pool.
    await request(gateway.url)
    const before = timers()
    for (let i = 0; i < 10; i++) {
      await request(gateway.url)
      await request(gateway.url, { method: 'POST', body: 'hello' })
      await request(`${gateway.url}/break`).catch(() => {})
      const client = await converse(gateway.port, get('/hang'))
      await until(() => inFlight(gateway) === 1, 'the request to be under way')
      client.reset()
      await until(() => inFlight(gateway) === 0, 'the request to end')
    }
    expect(origin.seen.length).toBeGreaterThanOrEqual(31)
    await until(() => timers() <= before, `${before} timers or fewer`)
  })
})
