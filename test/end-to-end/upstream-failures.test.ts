// Upstreams that are not there, break off, or lie; and clients that go. Either the client gets a 502 or 503 that says
// what was wrong, or, once the head is out, a break that nobody can take for an end. And the next client never notices.

import type { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { converse, request, type Conversation } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { startGateway, until, type TestGateway } from '../support/gateway.ts'
import { closedPort, startOrigin, startRawOrigin, type Origin, type RawOrigin } from '../support/origin.ts'
import { exchange, get } from '../support/exchange.ts'

const closing = closeAfterEach()

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

interface Options {
  /** Further options of the upstream. */
  readonly upstream?: string
  /** Further options of the one route. */
  readonly route?: string
}

async function gatewayTo(
  targets: readonly string[],
  { upstream = '', route = '' }: Options = {},
): Promise<TestGateway> {
  return closing(await startGateway(yamlFor(targets, { upstream, route })))
}

const yamlFor = (targets: readonly string[], { upstream = '', route = '' }: Options): string => `
upstreams: {app: {targets: ${JSON.stringify(targets)}${upstream === '' ? '' : `, ${upstream}`}}}
defaults: {upstream: app}
routes: [{path: /*${route === '' ? '' : `, ${route}`}}]
`

/** answer: what the n-th request (from 1) is answered; a function does it itself. */
async function rawOrigin(
  answer: (count: number, head: string, socket: Socket) => string | null,
): Promise<RawOrigin & { readonly heads: readonly string[] }> {
  const heads: string[] = []
  const origin = await startRawOrigin((socket, head, count) => {
    heads.push(head)
    const bytes = answer(count, head, socket)
    if (bytes !== null) socket.write(Buffer.from(bytes, 'latin1'))
  })
  return closing({
    url: origin.url,
    heads,
    get connections() {
      return origin.connections
    },
    close: () => origin.close(),
  })
}

const inFlight = (gateway: TestGateway): number =>
  gateway.gateway
    .upstreams()
    .flatMap(({ targets }) => targets)
    .reduce((sum, target) => sum + target.in_flight + target.queued, 0)

const post = (fields: string, body = ''): string => `POST / HTTP/1.1\r\nHost: a\r\n${fields}\r\n\r\n${body}`

describe('a request that the upstream client refuses to send', () => {
  const everyByte = Array.from({ length: 256 }, (_, code) => String.fromCharCode(code))

  it.each<[string, readonly string[]]>([
    ['OPTIONS *', ['OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n']],
    ['Expect: 100-continue', [post('Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close', 'hi')]],
    ['another Expect', [get('/', ['Expect: 200-maybe'])]],
    ['Upgrade', [get('/', ['Upgrade: websocket', 'Connection: upgrade'])]],
    ['an h2c upgrade', [get('/', ['Upgrade: h2c', 'HTTP2-Settings: AAMAAABk', 'Connection: Upgrade, HTTP2-Settings'])]],
    [
      'odd Connection fields',
      ['Connection: ,', 'Connection: "a b"', 'Connection: @', 'Connection: keep-alive, close, TE'].map((line) =>
        get('/', [line]),
      ),
    ],
    ['Keep-Alive', [get('/', ['Keep-Alive: timeout=1000, max=x'])]],
    ['chunks', [post('Transfer-Encoding: chunked\r\nConnection: close', '2\r\nhi\r\n0\r\n\r\n')]],
    ['chunks that are none', [post('Transfer-Encoding: chunked\r\nConnection: close', 'zz\r\n')]],
    ['a coding that is unknown', [post('Transfer-Encoding: gzip\r\nConnection: close', 'zz')]],
    [
      'lengths',
      ['0', '00', '0002', '2 ', '+2', '-2', '2,2', '1e3', '99999999999999999999'].map((length) =>
        post(`Connection: close\r\nContent-Length: ${length}`, 'hi'),
      ),
    ],
    ['a length with GET', [get('/', ['Content-Length: 0']), get('/', ['Content-Length: 2'])]],
    ['every byte in a value', everyByte.map((byte) => get('/', [`X-Byte: a${byte}b`]))],
    ['every byte in a name', everyByte.map((byte) => get('/', [`X${byte}Y: 1`]))],
    ['every byte in the target', everyByte.map((byte) => get(`/a${byte}b`))],
    ['every byte in the query', everyByte.map((byte) => get(`/a?${byte}`))],
    ['every byte in Host', everyByte.map((byte) => `GET / HTTP/1.1\r\nHost: a${byte}b\r\nConnection: close\r\n\r\n`)],
    [
      'names that objects have by nature',
      ['__proto__: x', 'constructor: x', 'prototype: x', 'toString: x'].map((line) => get('/', [line])),
    ],
    ['a head at its bounds', [get(`/${'a'.repeat(7000)}`, [`X-Long: ${'b'.repeat(7000)}`])]],
    [
      'methods',
      ['HEAD', 'DELETE', 'OPTIONS', 'QUERY', 'PATCH', 'TRACE', 'CONNECT', 'PROPFIND', 'get'].map((method) =>
        get('/').replace('GET', method),
      ),
    ],
  ])('leaves its connections in use: %s', async (_what, messages) => {
    const origin = closing(await startOrigin())
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 2, timeouts: {queue: 2s}' })
    const rounds = messages.length > 5 ? 1 : 5
    for (let round = 0; round < rounds; round++) {
      const answers = await Promise.all(
        messages.map((message) => exchange(gateway.port, Buffer.from(message, 'latin1'))),
      )
      for (const { status } of answers) {
        expect(
          status === 200 || (status >= 400 && status < 500) || status === 501 || status === 204,
          `status ${status}`,
        ).toBe(true)
      }
    }
    const after = await Promise.all([1, 2, 3].map(() => request(gateway.url)))
    expect(after.map(({ status }) => status)).toEqual([200, 200, 200])
    expect(inFlight(gateway)).toBe(0)
  })
})

describe('an upstream that accepts no connections', () => {
  it('is a 502 upstream_refused, for every method', async () => {
    const gateway = await gatewayTo([`http://127.0.0.1:${await closedPort()}`])
    for (const method of ['GET', 'HEAD', 'DELETE']) expect((await request(gateway.url, { method })).status).toBe(502)
    const answer = await request(gateway.url, { method: 'POST', body: 'hello' })
    expect(answer.status).toBe(502)
    expect(answer.headers['content-type']).toBe('application/problem+json')
    expect(JSON.parse(answer.text)).toMatchObject({ code: 'upstream_refused', status: 502 })
    expect(answer.text).not.toMatch(/ECONNREFUSED|127\.0\.0\.1/)
    expect(await gateway.requestLines(4)).toMatchObject(
      Array.from({ length: 4 }, () => ({ error: 'upstream_refused', cause: expect.stringContaining('ECONNREFUSED') })),
    )
    expect(inFlight(gateway)).toBe(0)
  })

  it('[RFC 9110 §9.2.2] gives its requests to the next one, a POST with its body too', async () => {
    const origin = closing(await startOrigin((message, response) => message.on('end', () => response.end())))
    const gateway = await gatewayTo([`http://127.0.0.1:${await closedPort()}`, origin.url])
    const body = Buffer.alloc(300_000, '0123456789')
    for (let i = 0; i < 4; i++) {
      expect((await request(gateway.url, { method: 'POST', body })).status).toBe(200)
      expect((await request(gateway.url)).status).toBe(200)
    }
    expect(origin.seen).toHaveLength(8)
    for (const { method, body: received } of origin.seen) {
      expect((await received).equals(method === 'POST' ? body : Buffer.alloc(0))).toBe(true)
    }
  })

  it('is passed over also when many requests take turns', async () => {
    const origin = closing(await startOrigin())
    const gateway = await gatewayTo([`http://127.0.0.1:${await closedPort()}`, origin.url])
    const answers = await Promise.all(Array.from({ length: 40 }, () => request(gateway.url)))
    expect(answers.every(({ status }) => status === 200)).toBe(true)
    expect(origin.seen).toHaveLength(40)
  })

  it('is passed over once per retry, through all targets', async () => {
    const origin = closing(await startOrigin())
    const dead = [`http://127.0.0.1:${await closedPort()}`, `http://127.0.0.1:${await closedPort()}`]
    const patient = await gatewayTo([...dead, origin.url], { upstream: 'retries: 2' })
    for (let i = 0; i < 6; i++) expect((await request(patient.url)).status).toBe(200)
    const hasty = await gatewayTo([...dead, origin.url], { upstream: 'retries: 1' })
    const statuses: number[] = []
    for (let i = 0; i < 3; i++) statuses.push((await request(hasty.url)).status)
    expect(statuses.toSorted((a, b) => a - b)).toEqual([200, 200, 502])
  })

  it.each([
    ['upstream', { upstream: 'retries: 0' }],
    ['route', { upstream: 'retries: 5', route: 'retries: 0' }],
  ])('is asked once where retries are 0 for the %s', async (_where, options) => {
    const origin = closing(await startOrigin())
    const gateway = await gatewayTo([`http://127.0.0.1:${await closedPort()}`, origin.url], options)
    const statuses: number[] = []
    for (let i = 0; i < 4; i++) statuses.push((await request(gateway.url)).status)
    expect(statuses.toSorted((a, b) => a - b)).toEqual([200, 200, 502, 502])
  })
})

describe('an upstream that breaks off before its answer', () => {
  it.each([
    ['GET', 2],
    ['HEAD', 2],
    ['DELETE', 1],
    ['OPTIONS', 1],
    ['QUERY', 2],
    ['PROPFIND', 1],
    ['M-SEARCH', 1],
    ['POST', 1],
  ])('[RFC 9110 §9.2.2] sees %s %d times, and the client a 502', async (method, times) => {
    const origin = await rawOrigin((_count, _head, socket) => {
      socket.destroy()
      return null
    })
    const gateway = await gatewayTo([origin.url])
    const answer = await request(gateway.url, { method })
    expect(answer.status).toBe(502)
    expect(answer.text).toContain(method === 'HEAD' ? '' : '"code":"upstream_reset"')
    expect(origin.heads).toHaveLength(times)
    expect(origin.connections).toBe(times)
    expect(inFlight(gateway)).toBe(0)
  })

  it('is asked again on a connection of its own, which says that it is', async () => {
    const origin = await rawOrigin((count, _head, socket) => {
      if (count !== 2) return OK
      socket.resetAndDestroy()
      return null
    })
    const gateway = await gatewayTo([origin.url])
    expect((await request(gateway.url)).text).toBe('ok')
    expect((await request(gateway.url)).text).toBe('ok')
    expect(origin.heads).toHaveLength(3)
    expect(origin.heads[2]).toMatch(/\r\nconnection: close(?:\r\n|$)/i)
  })

  it('is not asked again where retries are 0', async () => {
    const origin = await rawOrigin((_count, _head, socket) => {
      socket.destroy()
      return null
    })
    const gateway = await gatewayTo([origin.url], { upstream: 'retries: 0' })
    expect((await request(gateway.url)).status).toBe(502)
    expect(origin.heads).toHaveLength(1)
  })

  it('is not asked again once a byte of an answer has come', async () => {
    const origin = await rawOrigin((_count, _head, socket) => {
      socket.end('HTTP/1.1 2')
      return null
    })
    const gateway = await gatewayTo([origin.url])
    expect((await request(gateway.url)).status).toBe(502)
    expect(origin.heads).toHaveLength(1)
  })

  it('costs no GET when it closes kept connections just as the next request comes', async () => {
    const used = new WeakSet<Socket>()
    const origin = await rawOrigin((_count, _head, socket) => {
      if (used.has(socket)) {
        socket.destroy()
        return null
      }
      used.add(socket)
      return OK
    })
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 4' })
    for (let i = 0; i < 10; i++) {
      const answers = await Promise.all([1, 2, 3, 4].map(() => request(gateway.url)))
      expect(answers.map(({ text }) => text)).toEqual(['ok', 'ok', 'ok', 'ok'])
    }
  })

  it('costs no GET and doubles no POST when it closes idle connections at its own time', async () => {
    const posts = new Map<string, number>()
    const origin = await rawOrigin((count, head, socket) => {
      const id = /^POST \/(\S+)/.exec(head)?.[1]
      if (id !== undefined) posts.set(id, (posts.get(id) ?? 0) + 1)
      setTimeout(() => socket.destroy(), count % 7)
      return OK
    })
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 2' })
    for (let i = 0; i < 100; i++) {
      expect((await request(`${gateway.url}/`)).text).toBe('ok')
      const { status } = await request(`${gateway.url}/${i}`, { method: 'POST', body: 'x' })
      expect([200, 502]).toContain(status)
      await new Promise((resolve) => setTimeout(resolve, i % 5))
    }
    expect([...posts.values()].every((times) => times === 1)).toBe(true)
  })
})

describe('an upstream that closes idle connections by the clock', () => {
  it('finds them closed before, once it has done so a few times', async () => {
    const ends: string[] = []
    const origin = closing(
      await startOrigin((message, response) => {
        const { socket } = message
        const end = (by: string): void => {
          clearTimeout(timer)
          socket.off('end', onEnd).end()
          ends.push(by)
        }
        const onEnd = (): void => end('gateway')
        const timer = setTimeout(() => end('upstream'), 300)
        socket.on('end', onEnd)
        response.end()
      }),
    )
    const { url } = await gatewayTo([origin.url])
    while (ends.at(-1) !== 'gateway') {
      const { length } = ends
      expect((await request(url, { method: 'POST' })).status).toBe(200)
      await until(() => ends.length > length, 'the end of the connection')
    }
    expect(ends.length).toBeGreaterThan(3)
  })
})

describe('an upstream that breaks off within its answer', () => {
  const LENGTH = 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial'
  const CHUNKS = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\npartial\r\n'
  const UNTIL_CLOSE = 'HTTP/1.1 200 OK\r\n\r\npartial'
  const CLOSING = 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 100\r\n\r\npartial'
  const CLOSING_CHUNKS = 'HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n7\r\npartial\r\n'

  describe.each([
    ['1.1', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'],
    ['1.0', 'GET / HTTP/1.0\r\nHost: a\r\n\r\n'],
  ])('[RFC 9112 §8] is a visible break for an HTTP/%s client', (_version, message) => {
    it.each([
      ['with a length, by its end', LENGTH, 'end'],
      ['with a length, by a reset', LENGTH, 'reset'],
      ['in chunks, by its end', CHUNKS, 'end'],
      ['in chunks, by a reset', CHUNKS, 'reset'],
      ['of a closing connection with a length, by its end', CLOSING, 'end'],
      ['of a closing connection with a length, by a reset', CLOSING, 'reset'],
      ['of a closing connection in chunks, by its end', CLOSING_CHUNKS, 'end'],
      ['of a closing connection in chunks, by a reset', CLOSING_CHUNKS, 'reset'],
      ['until the connection ends, by a reset', UNTIL_CLOSE, 'reset'],
    ])('%s', async (_what, bytes, how) => {
      let upstream: Socket | undefined
      const origin = await rawOrigin((_count, _head, socket) => {
        upstream = socket
        return bytes
      })
      const gateway = await gatewayTo([origin.url])
      const client = await converse(gateway.port, message)
      await client.expect('partial')
      if (how === 'end') upstream?.end()
      else upstream?.resetAndDestroy()
      await client.end()
      expect(client.closedBy).toBe('reset')
      expect(client.received).not.toContain('\r\n0\r\n\r\n')
      const lines = await gateway.requestLines(1)
      expect(lines).toHaveLength(1)
      expect(lines[0]).toMatchObject({ error: 'upstream_reset', status_code: 200, bytes: 7 })
      expect(inFlight(gateway)).toBe(0)
    })
  })

  it('is a visible break too when it breaks off at once, before anybody has taken the body', async () => {
    const origin = await rawOrigin((_count, _head, socket) => {
      socket.end(Buffer.from(LENGTH))
      return null
    })
    const gateway = await gatewayTo([origin.url])
    await expect(request(gateway.url)).rejects.toThrow(/aborted|ECONNRESET|hang up/)
    expect(await gateway.requestLines(1)).toMatchObject([{ error: 'upstream_reset' }])
  })

  it('is a visible break too for a client that has been slow to read', async () => {
    let upstream: Socket | undefined
    let written = 0
    const chunk = Buffer.alloc(64 * 1024, 'x')
    const origin = await rawOrigin((_count, _head, socket) => {
      upstream = socket
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n')
      const more = () => {
        while (!socket.destroyed && written < 50_000_000) {
          written += chunk.length
          if (!socket.write(chunk)) return
        }
      }
      socket.on('drain', more)
      more()
      return null
    })
    const gateway = await gatewayTo([origin.url])
    const client = await converse(gateway.port)
    client.pause()
    client.send(get('/'))
    let last = -1
    while (last !== written) {
      last = written
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    upstream?.resetAndDestroy()
    client.resume()
    await client.end()
    expect(client.closedBy).toBe('reset')
    expect(inFlight(gateway)).toBe(0)
  })
})

describe('a hostile upstream', () => {
  const fields = (count: number, line: (i: number) => string): string =>
    Array.from({ length: count }, (_, i) => `${line(i)}\r\n`).join('')
  const head = (extra: string): string => `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n${extra}\r\nok`

  it.each([
    ['another protocol', 'SSH-2.0-OpenSSH_9.6\r\n\r\n'],
    ['another version of HTTP', 'HTTP/3.0 200 OK\r\nContent-Length: 2\r\n\r\nok'],
    ['a status of two digits', 'HTTP/1.1 99 Odd\r\nContent-Length: 2\r\n\r\nok'],
    ['a status below 100', 'HTTP/1.1 042 Odd\r\nContent-Length: 2\r\n\r\nok'],
    [
      'a length and chunks',
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    ],
    [
      'chunks and a length',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    ],
    ['two lengths', head('Content-Length: 3\r\n')],
    ['two lengths that are equal', head('Content-Length: 2\r\n')],
    ['a list of lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok'],
    ['a length that is no number', 'HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok'],
    ['a negative length', 'HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok'],
    ['a length beyond any number', 'HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\nok'],
    [
      'a transfer coding that nobody asked for',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    ],
    [
      'a last coding that is not chunked',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\nConnection: close\r\n\r\nok',
    ],
    [
      'chunks in chunks',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    ],
    ['NUL in a value', head('X-Bad: a\0b\r\n')],
    ['CR in a value', head('X-Bad: a\rSet-Cookie: x=y\r\n')],
    ['a control byte in a value', head('X-Bad: a\x01b\r\n')],
    ['DEL in a value', head('X-Bad: a\x7fb\r\n')],
    ['a folded line', head('X-Bad: a\r\n b\r\n')],
    ['a space before the colon', head('X-Bad : a\r\n')],
    ['a space in a name', head('X Bad: a\r\n')],
    ['a line without a colon', head('X-Bad\r\n')],
    ['300 fields', head(fields(300, (i) => `X-${i}: x`))],
    ['a field of 40 KiB', head(`X-Long: ${'x'.repeat(40 * 1024)}\r\n`)],
    ['a head of 100 KiB', head(fields(100, (i) => `X-${i}: ${'x'.repeat(1024)}`))],
    ['1,000 interim answers', fields(1000, () => 'HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n') + OK],
    [
      '101 without being asked',
      'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n',
    ],
    ['101 that does not say to what', `HTTP/1.1 101 Switching Protocols\r\n\r\n${OK}`],
  ])('is a 502 upstream_invalid, and its connection is not used again: %s', async (_what, bytes) => {
    const origin = await rawOrigin((count) => (count === 1 ? bytes : OK))
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 1' })
    const client = await converse(gateway.port, get('/'))
    await client.end()
    const final = client.received.slice(client.received.lastIndexOf('HTTP/1.1 '))
    expect(final).toMatch(/^HTTP\/1\.1 502 /)
    expect(final).toContain('"code":"upstream_invalid"')
    expect(client.received).not.toMatch(/x-bad|set-cookie/i)
    expect(origin.heads).toHaveLength(1)
    expect((await request(gateway.url)).text).toBe('ok')
    expect(origin.connections).toBe(2)
    expect((await gateway.requestLines(2))[0]).toMatchObject({ error: 'upstream_invalid', status_code: 502 })
    expect(inFlight(gateway)).toBe(0)
  })

  it.each([
    ['a coding that has been done to the body', 'Transfer-Encoding: gzip'],
    ['chunks in a coding', 'Transfer-Encoding: chunked, foo'],
    ['a coding in chunks', 'Transfer-Encoding: foo, chunked'],
    ['two codings', 'Transfer-Encoding: foo, bar'],
    ['two codings in two lines', 'Transfer-Encoding: foo\r\nTransfer-Encoding: bar'],
    ['a coding and a length', 'Transfer-Encoding: foo\r\nContent-Length: 2'],
    ['a length and a coding', 'Content-Length: 2\r\nTransfer-Encoding: foo'],
    ['no coding at all', 'Transfer-Encoding: '],
  ])(
    '[RFC 9112 §6.3] is a 502 upstream_invalid even where it is trusted with its framing: %s',
    async (_what, lines) => {
      const origin = await rawOrigin((_count, _head, socket) => {
        socket.end(`HTTP/1.1 200 OK\r\n${lines}\r\n\r\n2\r\nok\r\n0\r\n\r\n`)
        return null
      })
      const gateway = await gatewayTo([origin.url], { upstream: 'framing: lenient' })
      const { status, text } = await request(gateway.url)
      expect([status, JSON.parse(text)]).toEqual([502, expect.objectContaining({ code: 'upstream_invalid' })])
    },
  )

  it.each([
    ['a short body', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort', true],
    ['a chunk size that is none', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n', false],
    [
      'a chunk longer than it said',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n',
      false,
    ],
    [
      'a chunk size beyond any number',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\nok',
      false,
    ],
    [
      'trailers of 100 KiB',
      `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: ${'x'.repeat(100_000)}\r\n\r\n`,
      false,
    ],
  ])('is a visible break after its head, and its connection is not used again: %s', async (_what, bytes, ends) => {
    const origin = await rawOrigin((count, _head, socket) => {
      if (count > 1) return OK
      if (ends) setTimeout(() => socket.end(), 20)
      return bytes
    })
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 1' })
    const client = await converse(gateway.port, get('/'))
    await client.end()
    expect(client.closedBy).toBe('reset')
    expect(client.received).not.toContain('\r\n0\r\n\r\n')
    expect((await request(gateway.url)).text).toBe('ok')
    expect(origin.connections).toBe(2)
    const lines = await gateway.requestLines(2)
    expect(lines).toHaveLength(2)
    expect(lines[0]?.['error']).toMatch(/^upstream_(invalid|reset)$/)
  })

  it.each([
    ['at once', 0],
    ['while the connection is idle', 30],
  ])('cannot answer the next client with an answer that nobody asked for: %s', async (_when, delayMs) => {
    const POISON = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison'
    const origin = await rawOrigin((count, _head, socket) => {
      if (count > 1) return OK
      if (delayMs === 0) return OK + POISON
      setTimeout(() => socket.write(POISON), delayMs)
      return OK
    })
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 1' })
    expect((await request(gateway.url)).text).toBe('ok')
    if (delayMs > 0)
      await until(
        () => gateway.gateway.upstreams()[0]?.targets[0]?.open_connections === 0,
        'the connection to be dropped',
      )
    const next = await Promise.all([1, 2, 3].map(() => request(gateway.url)))
    expect(next.map(({ text }) => text)).toEqual(['ok', 'ok', 'ok'])
    expect(origin.connections).toBeGreaterThan(1)
  })

  it.each(['GET', 'HEAD'])("cannot lengthen its answer to %s: the rest is nobody's", async (method) => {
    const origin = await rawOrigin((count) => (count > 1 ? OK : `${OK}and more HTTP/1.1 200 OK\r\n\r\n`))
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 1' })
    expect((await request(gateway.url, { method })).text).toBe(method === 'GET' ? 'ok' : '')
    expect((await request(gateway.url)).text).toBe('ok')
    expect(origin.connections).toBe(2)
  })

  it.each(['204 No Content', '304 Not Modified'])('cannot hide an answer behind %s', async (status) => {
    const origin = await rawOrigin((count) =>
      count > 1
        ? OK
        : `HTTP/1.1 ${status}\r\nContent-Length: 44\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison`,
    )
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 1' })
    expect((await request(gateway.url)).status).toBe(Number(status.slice(0, 3)))
    expect((await request(gateway.url)).text).toBe('ok')
    expect(origin.connections).toBe(2)
  })

  it('cannot send a head without end', async () => {
    let closed = false
    const origin = await rawOrigin((count, _head, socket) => {
      if (count > 1) return OK
      socket.write('HTTP/1.1 200 OK\r\n')
      const timer = setInterval(() => socket.write(`X-More: ${'x'.repeat(1000)}\r\n`), 1)
      socket.on('close', () => {
        closed = true
        clearInterval(timer)
      })
      return null
    })
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 1' })
    const answer = await request(gateway.url)
    expect(answer.status).toBe(502)
    expect(JSON.parse(answer.text)).toMatchObject({ code: 'upstream_invalid' })
    await until(() => closed, 'the connection to be closed')
    expect((await request(gateway.url)).text).toBe('ok')
  })

  it('[RFC 9110 §15.2] may send up to ten interim answers', async () => {
    const origin = await rawOrigin(() => 'HTTP/1.1 102 Processing\r\n\r\n'.repeat(10) + OK)
    const gateway = await gatewayTo([origin.url])
    expect((await request(gateway.url)).interim).toHaveLength(10)
  })
})

describe('a client that goes', () => {
  /** An origin that answers nothing on /hang, a body without end on /stream, and reads nothing much on POST. */
  async function setUp(upstream = 'connections: 1'): Promise<{ origin: Origin; gateway: TestGateway }> {
    const origin = closing(
      await startOrigin((message, response) => {
        if (message.url === '/hang') return
        if (message.url === '/stream') {
          const timer = setInterval(() => response.write('more '), 5)
          response.on('close', () => clearInterval(timer))
          return
        }
        message.on('end', () => response.end('done'))
        message.resume()
      }),
    )
    return { origin, gateway: await gatewayTo([origin.url], { upstream }) }
  }

  const leave = (client: Conversation, how: string): void => (how === 'end' ? client.destroy() : client.reset())

  describe.each(['end', 'reset'])('by %s', (how) => {
    it.each([
      ['waiting for the answer', 'GET /hang HTTP/1.1\r\nHost: a\r\n\r\n', null],
      ['within the answer', 'GET /stream HTTP/1.1\r\nHost: a\r\n\r\n', 'more'],
      ['within its own body', 'POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart', null],
      [
        'within its own body in chunks',
        'POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n',
        null,
      ],
    ])('%s: the upstream request is broken off and its connection is free', async (_when, message, awaited) => {
      const { origin, gateway } = await setUp()
      const client = await converse(gateway.port, message)
      await until(() => origin.seen.length === 1, 'the request at the origin')
      if (awaited !== null) await client.expect(awaited)
      leave(client, how)
      await until(() => origin.aborted === 1, 'the origin to see it broken off')
      await until(() => inFlight(gateway) === 0, 'the connection to be free')
      expect((await request(gateway.url)).text).toBe('done')
      const lines = await gateway.requestLines(2)
      expect(lines).toHaveLength(2)
      expect(lines[0]).toMatchObject({ status_code: 499 })
    })

    it.each([
      ['without a body', 'GET /queued HTTP/1.1\r\nHost: a\r\n\r\n'],
      ['with a body on its way', 'POST /queued HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart'],
      ['with a body that has come', 'POST /queued HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody'],
    ])(
      'while it waits for a connection, %s: the origin never hears of it, and nobody waits behind it',
      async (_what, message) => {
        const { origin, gateway } = await setUp()
        const first = await converse(gateway.port, 'GET /hang HTTP/1.1\r\nHost: a\r\n\r\n')
        await until(() => origin.seen.length === 1, 'the first request at the origin')
        const waiting = await Promise.all([1, 2, 3].map(() => converse(gateway.port, message)))
        await until(() => inFlight(gateway) === 4, 'the others to wait')
        for (const client of waiting) leave(client, how)
        await until(() => inFlight(gateway) === 1, 'the others to be forgotten')
        const patient = request(`${gateway.url}/patient`)
        await until(() => inFlight(gateway) === 2, 'the patient one to wait')
        first.destroy()
        expect((await patient).text).toBe('done')
        expect(origin.seen.map(({ url }) => url)).toEqual(['/hang', '/patient'])
        expect(inFlight(gateway)).toBe(0)
      },
    )
  })

  it('in a storm leaves no connection, no timer and no request behind', async () => {
    const { origin, gateway } = await setUp('connections: 8')
    const messages = [
      'GET /hang HTTP/1.1\r\nHost: a\r\n\r\n',
      'GET /stream HTTP/1.1\r\nHost: a\r\n\r\n',
      'GET /fast HTTP/1.1\r\nHost: a\r\n\r\n',
      'POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\npart',
      'POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n',
    ]
    for (let round = 0; round < 20; round++) {
      const clients = await Promise.all(
        Array.from({ length: 20 }, (_, i) => converse(gateway.port, messages[(i + round) % messages.length])),
      )
      for (const [i, client] of clients.entries())
        setTimeout(() => leave(client, i % 2 === 0 ? 'end' : 'reset'), (i * 7) % 30)
      await Promise.all(clients.map((client) => client.end()))
    }
    await until(() => inFlight(gateway) === 0, 'every request to end')
    const answers = await Promise.all(Array.from({ length: 16 }, () => request(gateway.url)))
    expect(answers.every(({ text }) => text === 'done')).toBe(true)
    expect(origin.openSockets).toBeLessThanOrEqual(8)
    // One that left at once may never have been a request; none is told of twice.
    const ids = (await gateway.requestLines(16)).map(({ request_id: id }) => id)
    expect(new Set(ids).size).toBe(ids.length)
  })
})

describe('an answer that comes before the end of the request', () => {
  it('reaches the client while it still sends', async () => {
    const origin = closing(
      await startOrigin((_message, response) => response.writeHead(413, { Connection: 'close' }).end('too much')),
    )
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 1' })
    for (let i = 0; i < 3; i++) {
      const client = await converse(
        gateway.port,
        'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\nbeginning',
      )
      expect(await client.expect('too much')).toContain('HTTP/1.1 413 Payload Too Large')
      client.destroy()
    }
    await until(() => inFlight(gateway) === 0, 'the exchanges to end')
  })

  it('and then breaks off does not look whole', async () => {
    const origin = await rawOrigin((_count, _head, socket) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npartial')
      setTimeout(() => socket.destroy(), 20)
      return null
    })
    const gateway = await gatewayTo([origin.url])
    const client = await converse(
      gateway.port,
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\nbeginning',
    )
    await client.end()
    expect(client.closedBy).toBe('reset')
  })
})

describe('several requests', () => {
  it('go to the targets in turn', async () => {
    const origins = [closing(await startOrigin()), closing(await startOrigin()), closing(await startOrigin())]
    const gateway = await gatewayTo(origins.map(({ url }) => url))
    for (let i = 0; i < 9; i++) await request(gateway.url)
    expect(origins.map(({ seen }) => seen.length)).toEqual([3, 3, 3])
  })

  it('share the connections that the upstream is given, no more, and use them again', async () => {
    let most = 0
    let sockets = 0
    const origin = closing(
      await startOrigin((_message, response) => {
        sockets = Math.max(sockets, origin.openSockets)
        most++
        setTimeout(() => {
          most--
          response.end('ok')
        }, 5)
      }),
    )
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 3' })
    const answers = await Promise.all(Array.from({ length: 40 }, () => request(gateway.url)))
    expect(answers.every(({ text }) => text === 'ok')).toBe(true)
    expect(most).toBe(0)
    expect(sockets).toBe(3)
    expect(gateway.gateway.upstreams()[0]?.targets[0]).toMatchObject({ in_flight: 0, queued: 0 })
  })

  it('get new connections when the old ones have reached their age, and none of them fails', async () => {
    const origin = await rawOrigin(() => OK)
    const gateway = await gatewayTo([origin.url], { upstream: 'connections: 1, connectionLifetime: 100ms' })
    const endMs = performance.now() + 450
    while (performance.now() < endMs) expect((await request(gateway.url)).text).toBe('ok')
    expect(origin.connections).toBeGreaterThanOrEqual(3)
    expect(origin.connections).toBeLessThanOrEqual(6)
  })

  it('keep the old pool until they are through when the configuration changes', async () => {
    const finish: (() => void)[] = []
    const slow = (name: string) =>
      startOrigin((_message, response) => {
        response.write('begun ')
        finish.push(() => response.end(name))
      })
    const [before, after] = [
      closing(await slow('before')),
      closing(await startOrigin((_message, response) => response.end('after'))),
    ]
    const upstream = 'connections: 1'
    const gateway = await gatewayTo([before.url], { upstream })
    const running = await converse(gateway.port, get('/'))
    await running.expect('begun')
    const queued = await converse(gateway.port, get('/'))
    await until(() => inFlight(gateway) === 2, 'the second to wait')
    gateway.rewrite(yamlFor([after.url], { upstream }))
    expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
    expect((await request(gateway.url)).text).toBe('after')
    finish[0]?.()
    await running.end()
    await queued.expect('begun')
    finish[1]?.()
    await queued.end()
    expect(running.received.endsWith('6\r\nbefore\r\n0\r\n\r\n')).toBe(true)
    expect(queued.received.endsWith('6\r\nbefore\r\n0\r\n\r\n')).toBe(true)
    await until(() => before.openSockets === 0, 'the old connections to close')
  })
})
