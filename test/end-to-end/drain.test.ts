// SIGTERM: nothing new is taken, what has begun is finished, and the process ends as soon as it has.

import http from 'node:http'
import { describe, expect, it } from 'vitest'
import { type Answer, converse, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { until } from '../support/gateway.ts'
import { type Origin, type Script, startOrigin } from '../support/origin.ts'
import { type RunningGateway, runGateway } from '../support/process.ts'

const closing = closeAfterEach()

/** An origin that begins every answer and ends it when told to. */
async function streamingOrigin() {
  const open: http.ServerResponse[] = []
  const origin = closing(
    await startOrigin((_incoming, response) => {
      response.write('begun')
      open.push(response)
    }),
  )
  const finish = (): void => {
    for (const response of open) response.end(', ended')
  }
  return { origin, finish }
}

/** An origin that answers nothing until told to. */
async function silentOrigin() {
  const owed: http.ServerResponse[] = []
  const origin = closing(await startOrigin((_incoming, response) => void owed.push(response)))
  return { origin, owed, owes: (count: number) => until(() => owed.length >= count, `${count} requests at the origin`) }
}

const table = (origin: Origin, listen = '') => `
listen: {address: 127.0.0.1:0${listen === '' ? '' : `, ${listen}`}}
admin: {listen: 127.0.0.1:0}
upstreams: {app: {targets: ["${origin.url}"], connections: 200}}
routes: [{path: /*, upstream: app}]
`

/** How an answer ends that does not come whole. */
const broken = (answer: Promise<Answer>): Promise<string> =>
  answer.then(
    () => 'whole',
    () => 'broken',
  )

/** Waits until the gateway has taken the signal; its answer then. */
async function draining({ adminUrl }: RunningGateway): Promise<Answer> {
  for (;;) {
    const answer = await request(`${adminUrl}/health`)
    if (answer.status === 503) return answer
  }
}

/** Waits until the gateway knows of this many connections. */
async function connected({ adminUrl }: RunningGateway, count: number): Promise<void> {
  const wanted = new RegExp(`^process_open_connections ${count}$`, 'm')
  while (!wanted.test((await request(`${adminUrl}/metrics`)).text));
}

describe.each(['SIGTERM', 'SIGINT'] as const)('after %s', (signal) => {
  it('answers in flight end whole, streams too; then the process ends with 0', async () => {
    const { origin, finish } = await streamingOrigin()
    const gateway = await runGateway(table(origin))
    let begun = 0
    const agent = new http.Agent({ keepAlive: true })
    closing({ close: async () => agent.destroy() })
    // Half of them on connections that could be kept: nobody says on those that they end.
    const streams = Array.from({ length: 30 }, (_, i) =>
      request(`${gateway.url}/${i}`, { onHead: () => begun++, ...(i % 2 === 0 && { agent }) }),
    )
    await until(() => begun === 30, '30 streams')
    gateway.kill(signal)
    const health = await draining(gateway)
    expect(JSON.parse(health.text)).toMatchObject({ status: 'draining' })
    finish()
    for (const { status, text } of await Promise.all(streams)) expect([status, text]).toEqual([200, 'begun, ended'])
    expect(await gateway.end).toEqual({ code: 0, signal: null })
    const lines = gateway.log.filter(
      ({ message }) => String(message).includes('request') || String(message).includes('Request'),
    )
    expect(lines).toHaveLength(30)
    expect(gateway.log.find(({ message }) => message === 'Shutting down')).toMatchObject({ open_connections: 30 })
  })
})

describe('while it drains', () => {
  it('a request that waits for its upstream is answered, with Connection: close; new connections are refused', async () => {
    const { origin, owed, owes } = await silentOrigin()
    const gateway = await runGateway(table(origin))
    const agent = new http.Agent({ keepAlive: true })
    const asked = request(`${gateway.url}/x`, { agent })
    await owes(1)
    gateway.kill('SIGTERM')
    await draining(gateway)
    await expect(request(`${gateway.url}/late`)).rejects.toThrow('ECONNREFUSED')
    owed[0]?.end('in the end')
    const answer = await asked
    expect([answer.status, answer.text, answer.headers.connection]).toEqual([200, 'in the end', 'close'])
    expect((await gateway.end).code).toBe(0)
  })

  it('an upload goes on to its end', async () => {
    const origin = closing(
      await startOrigin((incoming, response) => {
        let bytes = 0
        incoming.on('data', (chunk: Buffer) => (bytes += chunk.length))
        incoming.on('end', () => response.end(String(bytes)))
      }),
    )
    const gateway = await runGateway(table(origin))
    const client = await converse(gateway.port, 'POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 10\r\n\r\n12345')
    await until(() => origin.seen.length === 1, 'the upload at the origin')
    gateway.kill('SIGTERM')
    await draining(gateway)
    client.send('67890')
    const received = await client.expect(/\r\n\r\n10$/)
    expect(received).toMatch(/^HTTP\/1\.1 200 [^]*\r\nConnection: close\r\n/i)
    expect((await gateway.end).code).toBe(0)
  })

  it('under load: every request that was taken is answered whole, and the last one on a connection says so', async () => {
    const slow: Script = (_incoming, response, count) => void setTimeout(() => response.end('whole'), count % 7)
    const origin = closing(await startOrigin(slow))
    const gateway = await runGateway(table(origin))
    const failures: unknown[] = []
    let answered = 0
    let closed = 0
    const client = async (): Promise<void> => {
      const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
      for (let isOver = false; !isOver;) {
        try {
          const { status, text, headers } = await request(`${gateway.url}/x`, { agent })
          if (status !== 200 || text !== 'whole') failures.push([status, text])
          answered++
          isOver = headers.connection === 'close'
          if (isOver) closed++
        } catch (error) {
          isOver = true
          failures.push(error)
        }
      }
      agent.destroy()
    }
    const clients = Array.from({ length: 20 }, client)
    await until(() => answered > 200, 'the load')
    gateway.kill('SIGTERM')
    await Promise.all(clients)
    expect(failures).toEqual([])
    expect(closed).toBe(20)
    expect((await gateway.end).code).toBe(0)
    expect(gateway.log.filter(({ message }) => message === 'Request completed')).toHaveLength(answered)
  })
})

describe('what does not hold it up', () => {
  it.each([
    ['a connection that is kept and idle', 'GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n', /answer 1$/],
    ['a connection that has said nothing yet', '', null],
    ['half a request head, beyond the time that any has', 'GET /x HTTP/1.1\r\nHost: a', null],
  ])('%s', async (_what, bytes, answer) => {
    const origin = closing(await startOrigin())
    // Nothing but the drain itself can end this within the bounds of a test.
    const gateway = await runGateway(table(origin, 'drain: 5m, keepAlive: 5m, headTimeout: 200ms'))
    const client = await converse(gateway.port, bytes)
    if (answer === null) await connected(gateway, 1)
    else await client.expect(answer)
    gateway.kill('SIGTERM')
    expect(await gateway.end).toEqual({ code: 0, signal: null })
    await client.end()
  })
})

describe('the end of patience', () => {
  it('comes with listen.drain: what has not begun is a 503, what has breaks visibly, and the process ends with 0', async () => {
    const origin = closing(
      await startOrigin((incoming, response) => void (incoming.url === '/begun' && response.write('begun'))),
    )
    const gateway = await runGateway(table(origin, 'drain: 700ms'))
    let begun = false
    const stream = broken(request(`${gateway.url}/begun`, { onHead: () => (begun = true) }))
    const silent = request(`${gateway.url}/silent`)
    await until(() => begun && origin.seen.length === 2, 'both requests')
    const startedAtMs = performance.now()
    gateway.kill('SIGTERM')
    expect(await stream).toBe('broken')
    const answer = await silent
    expect(performance.now() - startedAtMs).toBeGreaterThanOrEqual(600)
    expect([answer.status, answer.headers.connection]).toEqual([503, 'close'])
    expect(JSON.parse(answer.text)).toMatchObject({ code: 'draining' })
    expect(await gateway.end).toEqual({ code: 0, signal: null })
    const lines = gateway.log.filter(({ message }) => String(message).includes('equest'))
    expect(new Set(lines.map(({ path, status_code, error }) => [path, status_code, error].join(' ')))).toEqual(
      new Set(['/begun 200 draining', '/silent 503 draining']),
    )
    expect(lines).toHaveLength(2)
  })

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'comes with a second %s: the process ends at once, with 1',
    async (signal) => {
      const { origin } = await streamingOrigin()
      const gateway = await runGateway(table(origin, 'drain: 5m'))
      let begun = false
      const stream = broken(request(`${gateway.url}/x`, { onHead: () => (begun = true) }))
      await until(() => begun, 'the stream')
      gateway.kill('SIGTERM')
      await draining(gateway)
      // As long as one keypress may take to come twice.
      await new Promise((resolve) => setTimeout(resolve, 150))
      gateway.kill(signal)
      expect(await gateway.end).toEqual({ code: 1, signal: null })
      expect(await stream).toBe('broken')
    },
  )

  it('does not come with one Ctrl-C that arrives twice, from the terminal and through npm', async () => {
    const { origin, finish } = await streamingOrigin()
    const gateway = await runGateway(table(origin))
    let begun = false
    const stream = request(`${gateway.url}/x`, { onHead: () => (begun = true) })
    await until(() => begun, 'the stream')
    gateway.kill('SIGINT')
    gateway.kill('SIGINT')
    await draining(gateway)
    finish()
    expect((await stream).text).toBe('begun, ended')
    expect(await gateway.end).toEqual({ code: 0, signal: null })
  })
})
