// The bounds on every client, seen from outside: what is too slow, too much or too many is answered where that is
// possible, the connection ends, and whoever behaves is not hurt. Bounds are made small here; which of them fired is
// asserted, and that it did not fire early, never how promptly.

import http from 'node:http'
import net from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type Conversation, converse, request } from '../support/client.ts'
import { holdTime } from '../support/clock.ts'
import { startBareOrigin } from '../support/bare-origin.ts'
import { expectWorking, openConnections, settled, startEdge, startGatewayBefore } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import type { Script } from '../support/origin.ts'
import { field, readAnswers } from '../support/wire.ts'

const HOST = 'Host: gateway.test\r\n'
const CLOSE = 'Connection: close\r\n'
const GET = `GET /x HTTP/1.1\r\n${HOST}\r\n`
const LAST_GET = `GET /x HTTP/1.1\r\n${HOST}${CLOSE}\r\n`

const post = (fields: string, body = '') => `POST /x HTTP/1.1\r\n${HOST}${fields}\r\n${body}`
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const statuses = (received: string) => readAnswers(received).map(({ status }) => status)

/** Answers with the length of the request's body, once it has all of it. */
const measure: Script = (message, response) => {
  let bytes = 0
  message.on('data', (chunk: Buffer) => (bytes += chunk.length)).on('end', () => response.end(String(bytes)))
}

describe('time for a head', () => {
  it('answers 408 to a head that does not come whole, and not early', async () => {
    const edge = await startEdge({ listen: 'headTimeout: 150ms' })
    const startedAtMs = performance.now()
    const client = await converse(edge.gateway.port, `GET /x HTTP/1.1\r\n${HOST}X-A: b`)
    await client.end()
    expect(performance.now() - startedAtMs).toBeGreaterThan(140)
    const [answer] = readAnswers(client.received)
    expect(answer?.status).toBe(408)
    expect(field(answer, 'connection')).toBe('close')
    expect(JSON.parse(answer?.body ?? '')).toMatchObject({ code: 'timeout_head' })
    expect(await edge.gateway.requestLines(1)).toEqual([
      expect.objectContaining({ status_code: 408, error: 'timeout_head', client_ip: '127.0.0.1' }),
    ])
    expect(edge.origin.seen).toEqual([])
    await expectWorking(edge)
  })

  it('is not won by sending a byte now and then', async () => {
    const { gateway } = await startEdge({ listen: 'headTimeout: 150ms' })
    const client = await converse(gateway.port, `GET /x HTTP/1.1\r\n${HOST}X-A: `)
    while (!client.closed) {
      client.send('a')
      await pause(20)
    }
    expect(statuses(client.received)).toEqual([408])
  })

  it('counts for the second request of a connection as for the first', async () => {
    const { gateway } = await startEdge({ listen: 'headTimeout: 150ms' })
    const client = await converse(gateway.port, GET)
    await client.expect('answer 1')
    client.send('GET /y HT')
    await client.end()
    expect(statuses(client.received)).toEqual([200, 408])
    expect(await gateway.requestLines(2)).toHaveLength(2)
  })

  it('closes a connection that sends nothing without a word: nothing was asked', async () => {
    const edge = await startEdge({ listen: 'headTimeout: 100ms' })
    const client = await converse(edge.gateway.port)
    await client.end()
    expect(client.received).toBe('')
    expect(client.closedBy).toBe('end')
    await expectWorking(edge)
    expect(await edge.gateway.requestLines(1)).toHaveLength(1)
  })

  it('does not run while a client waits for its answer, having begun to send the next request', async () => {
    const { gateway } = await startEdge({
      listen: 'headTimeout: 150ms',
      script: (_message, response) => void setTimeout(() => response.end('late'), 450),
    })
    const client = await converse(gateway.port, `${GET}GET /y HT`)
    await client.end()
    const answers = readAnswers(client.received)
    expect(answers.map(({ status, body }) => [status, body.startsWith('late')])).toEqual([
      [200, true],
      [408, false],
    ])
  })
})

describe('time for a body', () => {
  it('answers 408 to a gap in a body, and the origin sees it break off', async () => {
    const edge = await startEdge({ listen: 'bodyIdle: 200ms', script: measure })
    const startedAtMs = performance.now()
    const client = await converse(edge.gateway.port, post('Content-Length: 10\r\n', 'hello'))
    await client.end()
    expect(performance.now() - startedAtMs).toBeGreaterThan(190)
    expect(statuses(client.received)).toEqual([408])
    expect(await edge.gateway.requestLines(1)).toEqual([
      expect.objectContaining({ status_code: 408, error: 'timeout_body' }),
    ])
    await until(() => edge.origin.aborted === 1, 'the origin to see the break')
    await settled(edge)
  })

  it('takes a slow body that keeps coming', async () => {
    const { gateway } = await startEdge({ listen: 'bodyIdle: 600ms', script: measure })
    const client = await converse(gateway.port, post(`Content-Length: 8\r\n${CLOSE}`))
    for (const byte of '12345678') {
      await pause(100)
      client.send(byte)
    }
    await client.end()
    expect(readAnswers(client.received).map(({ status, body }) => [status, body])).toEqual([[200, '8']])
  })

  /** An origin that counts what has come of a body. */
  async function counted(listen: string) {
    let bytes = 0
    const edge = await startEdge({
      listen,
      routes: ['{path: /*, timeouts: {total: 1h}}'],
      script(message, response) {
        message.on('data', (chunk: Buffer) => (bytes += chunk.length)).on('end', () => response.end('whole'))
      },
    })
    return { ...edge, bytes: () => bytes }
  }

  it('answers 408 to one that comes byte by byte, though without a gap', async () => {
    const clock = holdTime()
    const edge = await counted('')
    const client = await converse(edge.gateway.port, post('Content-Length: 1000000\r\n', 'x'.repeat(9000)))
    await clock.until(() => edge.bytes() === 9000, 'the beginning at the origin')
    let seconds = 0
    while (!client.closed && seconds < 60) {
      clock.advance(1000)
      client.send('x'.repeat(10))
      seconds++
      await clock.until(() => client.closed || edge.bytes() === 9000 + 10 * seconds, 'what has come')
    }
    expect(statuses(client.received)).toEqual([408])
    // What came at once in the beginning does not pay for more.
    expect(seconds).toBe(11)
    const isLogged = () => edge.gateway.log.some(({ error }) => error === 'timeout_body')
    await clock.until(isLogged, 'its line')
    await clock.until(() => edge.origin.aborted === 1, 'the origin to see the break')
  })

  it('takes one that is as fast as is asked for, however unevenly it comes', async () => {
    const clock = holdTime()
    const edge = await counted('bodyRate: 1KiB')
    const client = await converse(edge.gateway.port, post(`Content-Length: 40960\r\n${CLOSE}`))
    for (let i = 1; i <= 5; i++) {
      clock.advance(8000)
      client.send('x'.repeat(8192))
      await clock.until(() => edge.bytes() === 8192 * i, 'what has come')
    }
    await clock.until(() => client.closed, 'the answer')
    expect(readAnswers(client.received).map(({ status, body }) => [status, body])).toEqual([[200, 'whole']])
  })

  it('does not hold a slow origin against the client', async () => {
    const body = Buffer.alloc(16 * 1024 * 1024, 'x')
    const origin = await startBareOrigin((message, response) => {
      setTimeout(() => measure(message, response, 0), 500)
    })
    const gateway = await startGatewayBefore(origin.url, {
      listen: 'bodyIdle: 150ms',
      routes: ['{path: /*, maxBody: 32MiB}'],
    })
    const answer = await request(gateway.url, { method: 'POST', body })
    expect([answer.status, answer.text]).toEqual([200, String(body.length)])
  })
})

describe('size of a body', () => {
  const routes = ['{path: /*, maxBody: 100KiB}']
  const MAX = 100 * 1024

  it('refuses one that is declared too large before the origin is asked', async () => {
    const edge = await startEdge({ routes, script: measure })
    const client = await converse(edge.gateway.port, post(`Content-Length: ${MAX + 1}\r\n`))
    await client.end()
    expect(statuses(client.received)).toEqual([413])
    expect(edge.origin.seen).toEqual([])
    expect(await edge.gateway.requestLines(1)).toEqual([
      expect.objectContaining({ status_code: 413, error: 'body_too_large' }),
    ])
    await expectWorking(edge)
  })

  it('cuts off one that proves too large, and the origin sees it break off', async () => {
    const edge = await startEdge({ routes, script: measure })
    const chunk = `${MAX.toString(16)}\r\n${'x'.repeat(MAX)}\r\n`
    const client = await converse(
      edge.gateway.port,
      post('Transfer-Encoding: chunked\r\n', `${chunk}1\r\nx\r\n0\r\n\r\n`),
    )
    await client.end()
    expect(statuses(client.received)).toEqual([413])
    expect(await edge.gateway.requestLines(1)).toEqual([
      expect.objectContaining({ status_code: 413, error: 'body_too_large' }),
    ])
    await until(() => edge.origin.aborted === edge.origin.seen.length, 'the origin to see the break')
    await settled(edge)
  })

  it.each([
    ['declared', post(`Content-Length: ${MAX}\r\n${CLOSE}`, 'x'.repeat(MAX))],
    [
      'chunked',
      post(`Transfer-Encoding: chunked\r\n${CLOSE}`, `${MAX.toString(16)}\r\n${'x'.repeat(MAX)}\r\n0\r\n\r\n`),
    ],
  ])('takes one that is %s with exactly as many bytes as allowed', async (_how, bytes) => {
    const { gateway } = await startEdge({ routes, script: measure })
    const client = await converse(gateway.port, bytes)
    await client.end()
    expect(readAnswers(client.received).map(({ body }) => body)).toEqual([String(MAX)])
  })
})

describe('answers before the body is read', () => {
  const LIMITED = {
    more: 'limits: {one: {limit: 1, window: 1h}}',
    routes: ['{path: /*, limits: [one], maxBody: 1MiB}'],
  }

  /** Sends a head and then as much body as it is let, reading all the while, even when the other side has ended its own. */
  function flood(port: number, head: string): Promise<{ received: string; sentBytes: number }> {
    return new Promise((resolve) => {
      const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
      const chunk = Buffer.alloc(64 * 1024, 'x')
      let received = ''
      let sentBytes = 0
      const send = () => {
        do sentBytes += chunk.length
        while (socket.writable && socket.write(chunk))
      }
      socket.write(head)
      send()
      socket.on('drain', send)
      socket.on('data', (data: Buffer) => (received += data.toString('latin1')))
      socket.on('error', () => {})
      socket.on('close', () => resolve({ received, sentBytes }))
    })
  }

  it('reach a client whole that goes on sending', async () => {
    const declared = (line: string) => `${line} /x HTTP/1.1\r\n${HOST}Content-Length: 1000000000\r\n\r\n`
    const rows = [
      { status: 429, head: declared('POST'), ...LIMITED },
      { status: 413, head: declared('POST'), routes: ['{path: /*, maxBody: 1MiB}'] },
      { status: 404, head: declared('POST'), routes: ['{path: /other}'] },
      { status: 404, head: post('Transfer-Encoding: chunked\r\n', 'fffffff0\r\n'), routes: ['{path: /other}'] },
      { status: 405, head: declared('POST'), routes: ['{path: /x, methods: [GET]}'] },
      { status: 501, head: declared('PLAY').replace('HTTP/1.1', 'RTSP/1.0') },
    ]
    // Each takes as long as the gateway lets the client linger, so all go at once.
    const outcomes = await Promise.all(
      rows.map(async ({ status, head, ...options }) => {
        const edge = await startEdge(options)
        if (status === 429) await request(edge.gateway.url)
        const seen = edge.origin.seen.length
        const { received, sentBytes } = await flood(edge.gateway.port, head)
        await settled(edge)
        const answers = readAnswers(received)
        return {
          answers: answers.map((answer) => [answer.status, answer.whole, field(answer, 'connection')]),
          // What the kernels hold between them comes on top of the 64 KiB that are read.
          isBounded: sentBytes < 50 * 1024 * 1024,
          seen: edge.origin.seen.length - seen,
        }
      }),
    )
    expect(outcomes).toEqual(
      rows.map(({ status }) => ({ answers: [[status, true, 'close']], isBounded: true, seen: 0 })),
    )
  })

  it.each([
    ['in the same packet', [post('Content-Length: 5\r\n', 'hello')]],
    ['in a packet of its own', [post('Content-Length: 5\r\n'), 'hello']],
    ['in chunks in the same packet', [post('Transfer-Encoding: chunked\r\n', '5\r\nhello\r\n0\r\n\r\n')]],
    ['of 60 KiB', [post('Content-Length: 61440\r\n'), 'x'.repeat(30_000), 'x'.repeat(31_440)]],
  ])('leave the connection usable when the body is small and comes %s', async (_how, pieces) => {
    const { gateway, origin } = await startEdge({ routes: ['{path: /x, methods: [GET]}'] })
    const client = await converse(gateway.port)
    for (const piece of pieces) {
      client.send(piece)
      await pause(20)
    }
    client.send(LAST_GET)
    await client.end()
    expect(statuses(client.received)).toEqual([405, 200])
    expect(origin.seen).toHaveLength(1)
    expect(await gateway.requestLines(2)).toHaveLength(2)
  })

  it('do not wait for ever for a small body that does not come', async () => {
    const edge = await startEdge({ routes: ['{path: /x, methods: [GET]}'] })
    const client = await converse(edge.gateway.port, post('Content-Length: 5\r\n', 'hel'))
    await client.end()
    expect(statuses(client.received)).toEqual([405])
    await settled(edge)
  })

  it('are not followed by another answer when the rest of the body cannot be read', async () => {
    const edge = await startEdge({ routes: ['{path: /x, methods: [GET]}'] })
    const client = await converse(edge.gateway.port, post('Content-Length: 5\r\n', 'he'))
    await client.expect('405 ')
    client.send('lloGARBAGE\r\n\r\n')
    await client.end()
    expect(statuses(client.received)).toEqual([405, 400])
    const chunked = await converse(edge.gateway.port, post('Transfer-Encoding: chunked\r\n', '5\r\nhe'))
    await chunked.expect('405 ')
    chunked.send('lloGARBAGE\r\n\r\n')
    await chunked.end()
    expect(statuses(chunked.received)).toEqual([405])
    await settled(edge)
  })

  it('are the origin’s own as well, where it answers early and the client goes on sending', async () => {
    const edge = await startEdge({
      routes: ['{path: /*, maxBody: 1GiB}'],
      script: (_message, response) => response.writeHead(403).end('no'),
    })
    const { received } = await flood(edge.gateway.port, post('Content-Length: 1000000000\r\n'))
    expect(readAnswers(received).map(({ status, body, whole }) => [status, body, whole])).toEqual([[403, 'no', true]])
    await settled(edge)
  })
})

describe('expectations', () => {
  const expecting = (fields = '', line = 'POST /x HTTP/1.1') =>
    `${line}\r\n${HOST}Expect: 100-continue\r\nContent-Length: 5\r\n${fields}\r\n`

  it('[RFC 9110 §10.1.1] invites the body once the origin is asked, and forwards no Expect', async () => {
    const { gateway, origin } = await startEdge({ script: measure })
    const client = await converse(gateway.port, expecting(CLOSE))
    expect(await client.expect('\r\n\r\n')).toBe('HTTP/1.1 100 Continue\r\n\r\n')
    client.send('hello')
    await client.end()
    expect(statuses(client.received)).toEqual([100, 200])
    expect(origin.seen.map(({ headers }) => headers.expect)).toEqual([undefined])
  })

  it.each([
    ['no route', { routes: ['{path: /other}'] }, 404],
    ['another method', { routes: ['{path: /x, methods: [GET]}'] }, 405],
    ['a body too large', { routes: ['{path: /*, maxBody: 1B}'] }, 413],
  ])(
    '[RFC 9110 §10.1.1] answers at once where there is %s, without inviting the body',
    async (_name, options, status) => {
      const edge = await startEdge({ ...options, script: measure })
      const client = await converse(edge.gateway.port, expecting())
      await client.end()
      expect(statuses(client.received)).toEqual([status])
      // The client may send the body all the same: nobody knows where its next request would begin.
      expect(field(readAnswers(client.received)[0], 'connection')).toBe('close')
      expect(edge.origin.seen).toEqual([])
    },
  )

  it('answers 429 without inviting the body', async () => {
    const edge = await startEdge({
      more: 'limits: {one: {limit: 1, window: 1h}}',
      routes: ['{path: /*, limits: [one]}'],
    })
    await request(edge.gateway.url)
    const client = await converse(edge.gateway.port, expecting())
    await client.end()
    expect(statuses(client.received)).toEqual([429])
  })

  it('[RFC 9110 §10.1.1] serves a client that does not wait', async () => {
    const { gateway } = await startEdge({ script: measure })
    const client = await converse(gateway.port, `${expecting()}hello${LAST_GET}`)
    await client.end()
    const answers = readAnswers(client.received)
    expect(answers.filter(({ status }) => status >= 200).map(({ status, body }) => [status, body])).toEqual([
      [200, '5'],
      [200, '0'],
    ])
  })

  it.each(['200-ok', '100-continue, 200-ok', 'x'])('[RFC 9110 §10.1.1] refuses to meet %s', async (value) => {
    const edge = await startEdge({ script: measure })
    const client = await converse(edge.gateway.port, post(`Expect: ${value}\r\nContent-Length: 5\r\n`, 'hello') + GET)
    await client.end()
    expect(statuses(client.received)).toEqual([417])
    expect(edge.origin.seen).toEqual([])
  })

  it('[RFC 9110 §10.1.1] ignores the expectation of HTTP/1.0', async () => {
    const { gateway } = await startEdge({ script: measure })
    const client = await converse(gateway.port, `${expecting('', 'POST /x HTTP/1.0')}hello`)
    await client.end()
    expect(readAnswers(client.received).map(({ status, body }) => [status, body])).toEqual([[200, '5']])
  })
})

describe('HTTP/1.0', () => {
  it.each([
    ['with Host', HOST],
    ['without Host', ''],
    ['that asks to keep the connection', 'Connection: keep-alive\r\n'],
  ])('is answered and closed: %s', async (_name, fields) => {
    const { gateway, origin } = await startEdge()
    const client = await converse(gateway.port, `GET /x HTTP/1.0\r\n${fields}\r\n${GET}`)
    await client.end()
    const answers = readAnswers(client.received)
    expect(answers.map(({ status, body }) => [status, body])).toEqual([[200, 'answer 1']])
    expect(field(answers[0], 'connection')).toBe('close')
    expect(origin.seen).toHaveLength(1)
  })

  it('[RFC 9112 §6.1] gets no chunks: the end of the connection ends the answer', async () => {
    const { gateway } = await startEdge({
      script(_message, response) {
        response.write('one ')
        setTimeout(() => response.end('two'), 20)
      },
    })
    const client = await converse(gateway.port, `GET /x HTTP/1.0\r\n${HOST}\r\n`)
    await client.end()
    const [answer] = readAnswers(client.received)
    expect([answer?.framing, answer?.body]).toEqual(['close', 'one two'])
    expect(client.closedBy).toBe('end')
  })

  it('[RFC 9110 §15.2] gets no interim answers', async () => {
    const { gateway } = await startEdge({
      script(_message, response) {
        response.writeProcessing()
        response.writeEarlyHints({ link: '</a.css>; rel=preload' })
        response.end('ok')
      },
    })
    const client = await converse(gateway.port, `GET /x HTTP/1.0\r\n${HOST}\r\n`)
    await client.end()
    expect(statuses(client.received)).toEqual([200])
  })
})

describe('connections', () => {
  it('end after as many requests as allowed, pipelined or not', async () => {
    const { gateway, origin } = await startEdge({ listen: 'requestsPerConnection: 3' })
    const one = await converse(gateway.port, GET.repeat(5))
    await one.end()
    const answers = readAnswers(one.received)
    expect(answers.map((answer) => field(answer, 'connection'))).toEqual(['keep-alive', 'keep-alive', 'close'])
    expect(origin.seen).toHaveLength(3)
    const other = await converse(gateway.port, GET)
    for (const count of [4, 5, 6]) {
      await other.expect(`answer ${count}`)
      if (!other.closed) other.send(GET)
    }
    await other.end()
    expect(origin.seen).toHaveLength(6)
  })

  it('beyond the bound per address are refused, and have room again when one has gone', async () => {
    const { gateway } = await startEdge({ listen: 'connectionsPerAddress: 2' })
    const first = await converse(gateway.port)
    await converse(gateway.port)
    const third = await converse(gateway.port, GET)
    await third.end()
    expect(third.received).toBe('')
    expect(openConnections(gateway)).toBe(2)
    first.destroy()
    await until(() => openConnections(gateway) === 1, 'the connection to be gone')
    const fourth = await converse(gateway.port, LAST_GET)
    await fourth.end()
    expect(statuses(fourth.received)).toEqual([200])
  })

  it('of trusted proxies are not bounded per address', async () => {
    const { gateway } = await startEdge({ listen: 'connectionsPerAddress: 1', more: 'trustedProxies: [127.0.0.1]' })
    await converse(gateway.port)
    const second = await converse(gateway.port, LAST_GET)
    await second.end()
    expect(statuses(second.received)).toEqual([200])
  })

  it('beyond the bound of all are refused', async () => {
    const { gateway } = await startEdge({ listen: 'connections: 2' })
    await converse(gateway.port)
    await converse(gateway.port)
    const third = await converse(gateway.port, GET)
    await third.end()
    expect(third.received).toBe('')
    expect(openConnections(gateway)).toBe(2)
    expect(gateway.gateway.metrics()).toMatch(/^weirgate_connections_refused_total 1$/m)
  })

  it('are closed when idle for long enough, not before', async () => {
    const { gateway } = await startEdge({ listen: 'keepAlive: 200ms' })
    const client = await converse(gateway.port, GET)
    await client.expect('answer 1')
    const idleSinceMs = performance.now()
    await client.end()
    expect(performance.now() - idleSinceMs).toBeGreaterThan(190)
    expect(client.closedBy).toBe('end')
    expect(await gateway.requestLines(1)).toHaveLength(1)
  })

  it('are closed after each answer where keepAlive is 0', async () => {
    const { gateway } = await startEdge({ listen: 'keepAlive: 0s' })
    const client = await converse(gateway.port, GET + GET)
    await client.end()
    const answers = readAnswers(client.received)
    expect(answers.map((answer) => field(answer, 'connection'))).toEqual(['close'])
  })

  it('that are reset before they are let in cost nothing', async () => {
    const edge = await startEdge({ more: 'trustedProxies: [10.0.0.0/8]' })
    await Promise.all(
      Array.from(
        { length: 200 },
        () =>
          new Promise((resolve) => {
            const socket = net.connect({ port: edge.gateway.port, host: '127.0.0.1' }, () => {
              socket.write(GET)
              socket.resetAndDestroy()
            })
            socket.on('error', () => {}).on('close', resolve)
          }),
      ),
    )
    await settled(edge)
    expect((await request(edge.gateway.url)).status).toBe(200)
  })

  it('say how long they are kept', async () => {
    const { gateway } = await startEdge()
    const { headers } = await request(gateway.url, { agent: new http.Agent({ keepAlive: true, maxFreeSockets: 0 }) })
    expect([headers.connection, headers['keep-alive']]).toEqual(['keep-alive', 'timeout=65'])
  })

  it('come over IPv6 as well', async ({ skip }) => {
    const hasIPv6 = await new Promise<boolean>((resolve) => {
      const server = net.createServer()
      server.once('error', () => resolve(false))
      server.listen(0, '::1', () => server.close(() => resolve(true)))
    })
    if (!hasIPv6) skip('this machine has no IPv6')
    const { origin, gateway } = await startEdge({ address: '"[::1]:0"' })
    const answer = await request(`http://[::1]:${gateway.port}/x`)
    expect(answer.status).toBe(200)
    expect(origin.seen[0]?.headers.host).toBe(`[::1]:${gateway.port}`)
    expect(origin.seen[0]?.headers['x-forwarded-for']).toBe('::1')
    expect(await gateway.requestLines(1)).toEqual([expect.objectContaining({ client_ip: '::1' })])
  })
})

describe('clients that end their side', () => {
  /** Sends, ends its side at once, and reads to the end. */
  function sendAndEnd(port: number, bytes: string): Promise<string> {
    return new Promise((resolve) => {
      let received = ''
      const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
      socket.end(bytes)
      socket.on('data', (data: Buffer) => (received += data.toString('latin1')))
      socket.on('end', () => resolve(received))
    })
  }
  const finals = (received: string) => readAnswers(received).filter(({ status }) => status >= 200)

  it('get their answer all the same, whole, behind a few interim answers', async () => {
    const { gateway } = await startEdge({
      script: (_message, response) => void setTimeout(() => response.end('late'), 700),
    })
    const received = await sendAndEnd(gateway.port, GET)
    const answers = finals(received)
    expect(answers.map((answer) => [answer.status, answer.body, field(answer, 'connection')])).toEqual([
      [200, 'late', 'close'],
    ])
    const interim = statuses(received).slice(0, -1)
    expect(interim).toEqual(interim.map(() => 100))
    expect(interim.length).toBeGreaterThanOrEqual(1)
    expect(interim.length).toBeLessThanOrEqual(5)
    expect(await gateway.requestLines(1)).toEqual([expect.objectContaining({ status_code: 200 })])
  })

  it('get all their answers when they have sent several requests', async () => {
    const { gateway } = await startEdge({
      script: (_message, response) => void setTimeout(() => response.end(), 30),
    })
    const answers = finals(await sendAndEnd(gateway.port, GET + GET + GET))
    expect(answers.map((answer) => [answer.status, field(answer, 'connection')])).toEqual([
      [200, 'keep-alive'],
      [200, 'keep-alive'],
      [200, 'close'],
    ])
  })

  it('are asked to look at no interim answer when the real one is quick', async () => {
    const { gateway } = await startEdge()
    expect(statuses(await sendAndEnd(gateway.port, GET.replace('/x', '/health')))).toEqual([200])
  })

  /** Time on the one loop on which all of this runs: a slow machine makes it as late as the gateway's own timers. */
  const loopTime = async (...steps: readonly number[]): Promise<void> => {
    for (const ms of steps) await pause(ms)
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve))
  }

  it.each<[how: string, bytes: string, leave: (client: Conversation) => void, within: readonly number[]]>([
    ['by ending it', GET, (client) => client.destroy(), [50, 50]],
    ['by ending it, with another request behind', GET + GET, (client) => client.destroy(), [50, 50]],
    ['by a reset', GET, (client) => client.reset(), []],
    ['by a reset, with another request behind', GET + GET, (client) => client.reset(), []],
    ['by a reset, in a body that nobody takes', post('Content-Length: 9\r\n', 'x'), (client) => client.reset(), []],
  ])('and have gone %s are known to be gone within 100 ms, or at once', async (_how, bytes, leave, within) => {
    const edge = await startEdge({ script: () => {} })
    const client = await converse(edge.gateway.port, bytes)
    await until(() => edge.origin.seen.length === 1, 'the request to arrive')
    leave(client)
    await client.end()
    await loopTime(...within)
    expect(edge.origin.aborted).toBe(1)
    expect(edge.gateway.log.filter((line) => line['status_code'] === 499)).not.toEqual([])
    await settled(edge)
  })

  it('and have gone do not keep the origin busy', async () => {
    const edge = await startEdge({
      script: (message, response) => void (message.url === '/x' ? null : response.end('ok')),
    })
    const client = await converse(edge.gateway.port, GET)
    await until(() => edge.origin.seen.length === 1, 'the request to arrive')
    client.destroy()
    await until(() => edge.origin.aborted === 1, 'the origin to see the break')
    expect(await edge.gateway.requestLines(1)).toEqual([expect.objectContaining({ status_code: 499 })])
    await settled(edge)
    await expectWorking(edge)
  })

  it.each([
    ['a request', GET.replace('/x', '/quick')],
    ['a request with a body', post('Content-Length: 5\r\n', 'hello').replace('/x', '/quick')],
  ])('and have gone with a request waiting behind %s do not keep the origin busy either', async (_name, first) => {
    const asked = Promise.withResolvers<http.ServerResponse>()
    const edge = await startEdge({
      script(message, response) {
        if (message.url === '/quick') message.resume().on('end', () => asked.resolve(response))
      },
    })
    const client = await converse(edge.gateway.port, first + GET)
    const response = await asked.promise
    client.destroy()
    await client.end()
    response.end('ok')
    await until(() => edge.origin.aborted === 1, 'the origin to see the break')
    await settled(edge)
    expect(edge.origin.seen.map(({ url }) => url)).toEqual(['/quick', '/x'])
  })

  it('in the middle of a body have given it up', async () => {
    const edge = await startEdge({ script: measure })
    const socket = net.connect({ port: edge.gateway.port, host: '127.0.0.1', allowHalfOpen: true })
    onTestFinished(() => void socket.destroy())
    socket.on('error', () => {})
    socket.write(post('Content-Length: 10\r\n', 'hello'))
    await until(() => edge.origin.seen.length === 1, 'the request to arrive')
    socket.end()
    await until(() => edge.origin.aborted === 1, 'the origin to see the break')
    expect(await edge.gateway.requestLines(1)).toEqual([expect.objectContaining({ status_code: 499 })])
    await settled(edge)
  })

  it('in the middle of a head are recorded once, as gone', async () => {
    const edge = await startEdge()
    const client = await converse(edge.gateway.port, `GET /x HTTP/1.1\r\n${HOST}X-`)
    await until(() => openConnections(edge.gateway) === 1, 'the connection')
    await pause(20)
    client.destroy()
    expect(await edge.gateway.requestLines(1)).toEqual([
      expect.objectContaining({ status_code: 499, error: 'client_gone', method: '-' }),
    ])
    await expectWorking(edge)
    expect(await edge.gateway.requestLines(2)).toHaveLength(2)
  })
})

describe('clients that do not read', () => {
  const large: Script = (_message, response) => {
    response.writeHead(200, { 'Content-Length': String(64 * 1024 * 1024) })
    response.end(Buffer.alloc(64 * 1024 * 1024))
  }

  it('are cut off, and the origin is let go', async () => {
    const edge = await startEdge({ listen: 'writeStall: 300ms', script: large })
    const socket = net.connect({ port: edge.gateway.port, host: '127.0.0.1' })
    onTestFinished(() => void socket.destroy())
    socket.on('error', () => {})
    // Nobody listens for data, so nothing is read.
    socket.pause()
    socket.write(GET)
    const startedAtMs = performance.now()
    expect(await edge.gateway.requestLines(1)).toEqual([expect.objectContaining({ status_code: 499, method: 'GET' })])
    expect(performance.now() - startedAtMs).toBeGreaterThan(290)
    await until(() => edge.origin.aborted === 1, 'the origin to see the break')
    await settled(edge)
  })

  it('are cut off although they keep sending requests', async () => {
    const edge = await startEdge({ listen: 'writeStall: 300ms', script: large })
    const socket = net.connect({ port: edge.gateway.port, host: '127.0.0.1' })
    socket.on('error', () => {}).pause()
    while (!socket.destroyed) {
      socket.write(GET)
      await pause(30)
    }
    await settled(edge)
    expect(edge.origin.seen).toHaveLength(1)
  })

  it('are told apart from clients that wait for a slow origin', async () => {
    const { gateway } = await startEdge({
      listen: 'writeStall: 200ms',
      script(_message, response) {
        setTimeout(() => response.write('begun, '), 500)
        setTimeout(() => response.end('done'), 1000)
      },
    })
    const { status, text } = await request(gateway.url)
    expect([status, text]).toEqual([200, 'begun, done'])
  })

  it('are told apart from clients that connect early and ask late', async () => {
    const { gateway } = await startEdge({ listen: 'writeStall: 100ms' })
    const client = await converse(gateway.port)
    await pause(250)
    client.send(LAST_GET)
    await client.end()
    expect(statuses(client.received)).toEqual([200])
  })

  it('are told apart from clients that read slowly what is in memory', async () => {
    const size = 8 * 1024 * 1024
    const { gateway } = await startEdge({
      listen: 'writeStall: 1s',
      routes: ['{path: /*, cache: {ttl: 1h}}'],
      script: (_message, response) => response.end(Buffer.alloc(size)),
    })
    expect((await request(gateway.url)).body).toHaveLength(size)
    const bytes = await new Promise<number>((resolve, reject) => {
      let received = 0
      http.get(gateway.url, { agent: false }, (message) => {
        expect(message.headers['x-cache']).toBe('HIT')
        message.on('data', (data: Buffer) => {
          received += data.length
          message.pause()
          setTimeout(() => message.resume(), 12)
        })
        message.on('end', () => resolve(received)).on('error', reject)
      })
    })
    expect(bytes).toBe(size)
  })
})
