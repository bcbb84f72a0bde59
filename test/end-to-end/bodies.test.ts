// Bodies on their way through: framed anew and never wrong, held back where the reader is slow, given up where the reader
// has gone, and visibly broken where the writer broke off.

import http from 'node:http'
import net, { type Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type BareOrigin, startBareOrigin } from '../support/bare-origin.ts'
import { converse, request } from '../support/client.ts'
import { openConnections, settled, startEdge, startGatewayBefore } from '../support/edge.ts'
import { type TestGateway, until } from '../support/gateway.ts'
import { startRawOrigin } from '../support/origin.ts'
import { field, readAnswers } from '../support/wire.ts'

const HOST = 'Host: gateway.test\r\n'
const CLOSE = 'Connection: close\r\n'
const MIB = 1024 * 1024

const ask = (line: string, fields = '') => `${line}\r\n${HOST}${fields}\r\n`

/** A gateway before an origin that answers every request with these bytes, and closes where it is told to. */
async function startBefore(
  answer: string,
  ending: 'keep' | 'end' | 'reset' = 'keep',
  more: { routes?: string[] } = {},
) {
  const origin = await startRawOrigin((socket) => {
    socket.write(answer, 'latin1', () => {
      if (ending === 'end') socket.end()
      // The bytes before it must have arrived, or the reset would overtake them.
      if (ending === 'reset') setTimeout(() => socket.resetAndDestroy(), 30)
    })
  })
  onTestFinished(() => origin.close())
  return startGatewayBefore(origin.url, more)
}

describe('framing of answers', () => {
  it.each([
    ['HEAD with a length', 'HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n', [200, '1000', undefined]],
    ['HEAD without one', 'HEAD', 'HTTP/1.1 200 OK\r\n\r\n', [200, undefined, undefined]],
    ['HEAD with chunks', 'HEAD', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', [200, undefined, undefined]],
    ['204', 'GET', 'HTTP/1.1 204 No Content\r\n\r\n', [204, undefined, undefined]],
    ['204 with a length', 'GET', 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n', [204, undefined, undefined]],
    ['204 to POST', 'POST', 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n', [204, undefined, undefined]],
    ['304', 'GET', 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n', [304, undefined, undefined]],
    ['304 with a length', 'GET', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n', [304, '5', undefined]],
    ['205', 'GET', 'HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n', [205, '0', undefined]],
    ['an empty body', 'GET', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', [200, '0', undefined]],
    [
      'a status that nobody knows',
      'GET',
      'HTTP/1.1 299 Whatever\r\nContent-Length: 2\r\n\r\nok',
      [299, '2', undefined],
    ],
  ])('[RFC 9112 §6.3] leaves the connection in step after %s', async (_name, method, answer, expected) => {
    const gateway = await startBefore(answer)
    const client = await converse(gateway.port, ask(`${method} /1 HTTP/1.1`) + ask(`${method} /2 HTTP/1.1`, CLOSE))
    await client.end()
    const answers = readAnswers(client.received, [method, method])
    const framing = answers.map((one) => [one.status, field(one, 'content-length'), field(one, 'transfer-encoding')])
    expect(framing).toEqual([expected, expected])
    expect(answers.map((one) => field(one, 'connection'))).toEqual(['keep-alive', 'close'])
  })

  it.each([
    ['HTTP/1.1', 'chunked', 'keep-alive'],
    ['HTTP/1.0', 'close', 'close'],
  ])('[RFC 9112 §6.3] gives a body without length an end that %s can see', async (version, framing, connection) => {
    const { gateway } = await startEdge({
      script(_message, response) {
        response.write('one ')
        setTimeout(() => response.end('two'), 30)
      },
    })
    const client = await converse(gateway.port, ask(`GET /x ${version}`))
    await client.expect(framing === 'chunked' ? '0\r\n\r\n' : 'two')
    const [answer] = readAnswers(client.received)
    expect([answer?.framing, answer?.body, field(answer, 'connection')]).toEqual([framing, 'one two', connection])
    client.destroy()
  })

  it('[RFC 9112 §6.1] never repeats the framing of the origin', async () => {
    const gateway = await startBefore(
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTrailer: X-T\r\n\r\n' +
        '3;ext=1\r\nabc\r\n0\r\nX-T: 1\r\n\r\n',
    )
    const client = await converse(gateway.port, ask('GET /x HTTP/1.1', CLOSE))
    await client.end()
    const [answer] = readAnswers(client.received)
    expect([answer?.body, answer?.whole]).toEqual(['abc', true])
    for (const name of ['x-hop', 'trailer', 'x-t']) expect(field(answer, name)).toBeUndefined()
    expect(client.received).not.toContain('ext=1')
  })

  it('carries bytes beyond ASCII in fields of a stored answer as they came', async () => {
    const bytes = 'caf\xe9 \x80\xff'
    const gateway = await startBefore(`HTTP/1.1 200 OK\r\nX-Name: ${bytes}\r\nContent-Length: 2\r\n\r\nok`, 'keep', {
      routes: ['{path: /*, cache: {ttl: 1h}}'],
    })
    const client = await converse(gateway.port, ask('GET /x HTTP/1.1') + ask('GET /x HTTP/1.1', CLOSE))
    await client.end()
    const answers = readAnswers(client.received)
    expect(answers.map((one) => [field(one, 'x-cache'), field(one, 'x-name')])).toEqual([
      ['MISS', bytes],
      ['HIT', bytes],
    ])
  })

  it('tells a client nothing of what is inside', async () => {
    const { gateway, origin } = await startEdge()
    const { rawHeaders } = await request(gateway.url)
    const names = rawHeaders.filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase())
    expect(names.toSorted()).toEqual([
      'connection',
      'content-length',
      'content-type',
      'date',
      'via',
      'x-process-time',
      'x-request-id',
    ])
    expect(rawHeaders.join(' ')).not.toContain(String(origin.port))
  })
})

describe('interim answers', () => {
  it.each([
    ['one link', ['</a.css>; rel=preload; as=style'], '</a.css>; rel=preload; as=style'],
    [
      'a list of links',
      ['</a.css>; rel=preload, </b,c.js>; rel=preload'],
      '</a.css>; rel=preload, </b,c.js>; rel=preload',
    ],
    [
      'links in lines',
      ['</a.css>; rel=preload', '</b.js>; rel=preload'],
      '</a.css>; rel=preload, </b.js>; rel=preload',
    ],
  ])('[RFC 8297 §2] pass early hints on: %s', async (_name, lines, expected) => {
    const hints = lines.map((line) => `Link: ${line}\r\n`).join('')
    const gateway = await startBefore(
      `HTTP/1.1 103 Early Hints\r\n${hints}\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok`,
    )
    const { status, interim } = await request(gateway.url)
    expect(status).toBe(200)
    expect(interim.map(({ status, headers }) => [status, headers['link']])).toEqual([[103, expected]])
  })

  it.each([
    ['hints that are no links', '103 Early Hints', { link: '"not a link' }],
    ['hints without links', '103 Early Hints', { x: 'y' }],
    ['one that nobody knows', '199 Whatever', { x: 'y' }],
  ])('[RFC 9110 §15.2] pass on: %s', async (_name, line, headers) => {
    const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`)
    const interimAnswer = `HTTP/1.1 ${line}\r\n${fields.join('')}\r\n`
    const gateway = await startBefore(`${interimAnswer}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok`)
    const { status, text, interim } = await request(gateway.url)
    expect([status, text, interim]).toEqual([200, 'ok', [{ status: Number.parseInt(line), headers }]])
  })

  it('[RFC 9110 §15.2.1] are passed over where they invite to go on, and nobody has asked', async () => {
    const gateway = await startBefore('HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    const { status, text, interim } = await request(gateway.url)
    expect([status, text, interim]).toEqual([200, 'ok', []])
  })

  it('[RFC 9111 §3] are not stored, nor are their fields', async () => {
    const gateway = await startBefore(
      'HTTP/1.1 103 Early Hints\r\nX-Hint: 1\r\n\r\nHTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok',
      'keep',
      { routes: ['{path: /*, cache: {}}'] },
    )
    const answers = [await request(gateway.url), await request(gateway.url)]
    expect(answers.map(({ headers, interim }) => [headers['x-cache'], headers['x-hint'], interim.length])).toEqual([
      ['MISS', undefined, 1],
      ['HIT', undefined, 0],
    ])
  })
})

describe('answers that break off', () => {
  it.each([
    ['with a length, ended early', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello', 'end'],
    ['with a length, reset', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello', 'reset'],
    ['in chunks, ended early', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n', 'end'],
    [
      'in chunks, with a broken chunk',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n',
      'keep',
    ],
    ['until the connection ends, reset', 'HTTP/1.1 200 OK\r\n\r\nhello', 'reset'],
  ] as const)('[RFC 9112 §8] never look whole: %s', async (_name, answer, ending) => {
    const gateway = await startBefore(answer, ending)
    for (const version of ['HTTP/1.1', 'HTTP/1.0']) {
      const client = await converse(gateway.port, ask(`GET /x ${version}`))
      await client.end()
      // Either nothing of it was sent on and the client gets an error, or what was sent is cut off by a reset.
      const isRefused = client.received.startsWith('HTTP/1.1 502 ')
      expect(isRefused || client.closedBy === 'reset').toBe(true)
      expect(isRefused && client.received.includes('hello')).toBe(false)
    }
    const lines = await gateway.requestLines(2)
    expect(lines.map(({ error }) => error)).toEqual(
      lines.map(() => expect.stringMatching(/^upstream_(reset|invalid)$/)),
    )
    await settled({ gateway })
  })

  it('takes the end of the connection for the end of a body that has no other', async () => {
    const gateway = await startBefore('HTTP/1.1 200 OK\r\n\r\nhello', 'end')
    const { status, text } = await request(gateway.url)
    expect([status, text]).toEqual([200, 'hello'])
  })
})

describe('large bodies', () => {
  const BODY_BYTES = 256 * MIB
  /** What a slow reader leaves in the sockets between him and the writer; the system's share is nearly all of it. */
  const MAX_HELD_BYTES = 40 * MIB
  /** Of that, what the buffers of this process hold, which is both ends and the gateway. */
  const MAX_BUFFERED_BYTES = 2 * MIB

  /** Resolves when a figure has not changed for a while. */
  async function steady(read: () => number): Promise<number> {
    let last = -1
    let sinceMs = performance.now()
    await until(() => {
      if (read() !== last) {
        last = read()
        sinceMs = performance.now()
      }
      return last > 0 && performance.now() - sinceMs > 300
    }, 'bytes to stop moving')
    return last
  }

  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  /** Bytes in buffers that are still in use. */
  function bufferedBytes(): number {
    collect()
    return process.memoryUsage().arrayBuffers
  }

  /** Buffers are freed some time after they are collected, so this waits; what is held stays held. */
  const expectFewBuffered = (before: number): Promise<void> =>
    until(() => bufferedBytes() - before < MAX_BUFFERED_BYTES, 'less to be held in buffers')

  const chunk = Buffer.alloc(64 * 1024, 'x')
  /** Writes as fast as the reader takes it. */
  function pour(sink: NodeJS.WritableStream, bytes: number): void {
    let left = bytes
    const write = () => {
      while (left > 0) {
        left -= chunk.length
        if (!sink.write(chunk)) {
          sink.once('drain', write)
          return
        }
      }
      sink.end()
    }
    write()
  }

  it('wait for a client that stops reading, and are not held', async () => {
    const origin = await startBareOrigin((_message, response) => {
      response.writeHead(200, { 'Content-Length': String(BODY_BYTES) })
      pour(response, BODY_BYTES)
    })
    const gateway = await startGatewayBefore(origin.url)
    const before = bufferedBytes()
    const received = await new Promise<number>((resolve, reject) => {
      http.get(gateway.url, { agent: false }, (message) => {
        let bytes = 0
        message.pause()
        const readOn = async () => {
          expect(await steady(() => origin.bytesWritten)).toBeLessThan(MAX_HELD_BYTES)
          await expectFewBuffered(before)
          message
            .on('data', (data: Buffer) => (bytes += data.length))
            .on('end', () => resolve(bytes))
            .resume()
        }
        message.on('error', reject)
        readOn().catch(reject)
      })
    })
    expect(received).toBe(BODY_BYTES)
  })

  it('wait for an origin that does not read yet, and are not held', async () => {
    let read: (() => void) | null = null
    let received = 0
    const origin: BareOrigin = await startBareOrigin((message, response) => {
      read = () => message.on('data', (data: Buffer) => (received += data.length)).on('end', () => response.end('ok'))
    })
    const gateway = await startGatewayBefore(origin.url, { routes: ['{path: /*, maxBody: 1GiB}'] })
    const before = bufferedBytes()
    const status = await new Promise<number | undefined>((resolve, reject) => {
      const sent = http.request(gateway.url, {
        method: 'POST',
        agent: false,
        headers: { 'Content-Length': BODY_BYTES },
      })
      sent.on('response', (message) => resolve(message.resume().statusCode)).on('error', reject)
      pour(sent, BODY_BYTES)
      const letRead = async () => {
        await until(() => read !== null, 'the request to arrive')
        const sentBytes = () => (sent.socket?.bytesWritten ?? 0) - (sent.socket?.writableLength ?? 0)
        expect(await steady(sentBytes)).toBeLessThan(MAX_HELD_BYTES)
        await expectFewBuffered(before)
        read?.()
      }
      letRead().catch(reject)
    })
    expect([status, received]).toEqual([200, BODY_BYTES])
  })
})

describe('clients that go', () => {
  /** Reproducible, so that a failure can be seen again. */
  function createRandom(seed: number): () => number {
    let state = seed
    return () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
      return state / 2 ** 32
    }
  }

  const resources = () => {
    const counts = new Map<string, number>()
    for (const name of process.getActiveResourcesInfo()) counts.set(name, (counts.get(name) ?? 0) + 1)
    return counts
  }

  const WHOLE = ask('GET /wait HTTP/1.1')
  const KINDS: readonly { readonly bytes: string; readonly body: number }[] = [
    // Before the head is whole, in the body on its way up, with all sent and nothing back, and in the body on its way down.
    { bytes: WHOLE.slice(0, 30), body: 0 },
    { bytes: ask('POST /up HTTP/1.1', 'Content-Length: 100000\r\n'), body: 20_000 },
    { bytes: ask('POST /up HTTP/1.1', 'Transfer-Encoding: chunked\r\n'), body: 0 },
    { bytes: WHOLE, body: 0 },
    { bytes: ask('GET /down HTTP/1.1'), body: 0 },
  ]

  const BATCH = 100

  /** Opens a hundred connections, and breaks each off at a point of its own. */
  async function abortBatch(gateway: TestGateway, random: () => number): Promise<void> {
    await until(() => openConnections(gateway) === 0, 'the batch before to be gone')
    const sockets = await Promise.all(
      Array.from(
        { length: BATCH },
        () =>
          new Promise<Socket>((resolve) => {
            const socket: Socket = net.connect({ port: gateway.port, host: '127.0.0.1' }, () => resolve(socket))
            socket.on('error', () => {})
          }),
      ),
    )
    // Who leaves before being let in has asked for nothing.
    await until(() => openConnections(gateway) === BATCH, 'all connections to be open')
    await Promise.all(
      sockets.map(async (socket, i) => {
        const { bytes, body } = KINDS[i % KINDS.length] as (typeof KINDS)[number]
        socket.resume()
        socket.write(bytes + 'x'.repeat(Math.floor(random() * body)))
        await new Promise((resolve) => setTimeout(resolve, random() * 30))
        if (random() < 0.5) socket.resetAndDestroy()
        else socket.destroy()
      }),
    )
  }

  it('leave nothing behind: 2,000 at random points', async () => {
    const { gateway, origin } = await startEdge({
      script(message, response) {
        message.resume().on('error', () => {})
        if (message.url === '/down') {
          response.writeHead(200, { 'Content-Length': String(8 * MIB) })
          response.write(Buffer.alloc(MIB))
          setTimeout(() => response.end(Buffer.alloc(7 * MIB)), 40)
        } else if (message.url === '/wait') {
          setTimeout(() => response.end('late'), 60)
        }
      },
    })
    const edge = { gateway, origin }
    const random = createRandom(20_261_122)
    await abortBatch(gateway, random)
    await settled(edge)
    const before = resources()

    for (let batch = 1; batch < 20; batch++) await abortBatch(gateway, random)
    await settled(edge)
    const lines = await gateway.requestLines(20 * BATCH)
    expect(lines).toHaveLength(20 * BATCH)
    expect(new Set(lines.map(({ request_id: id }) => id)).size).toBe(20 * BATCH)
    expect(gateway.log.filter(({ level }) => level === 'ERROR' || level === 'FATAL')).toEqual([])

    // What is left are the warm connections to the origin, seen from both ends.
    const warm = () =>
      2 * gateway.gateway.upstreams().reduce((sum, { targets }) => sum + (targets[0]?.open_connections ?? 0), 0)
    await until(() => (resources().get('TCPSocketWrap') ?? 0) <= warm(), 'all sockets to be gone')
    await until(
      () => (resources().get('Timeout') ?? 0) <= (before.get('Timeout') ?? 0) + warm(),
      'all timers to be gone',
    )
    const { status } = await request(`${gateway.url}/wait`)
    expect(status).toBe(200)
  }, 60_000)
})

describe('an answer from memory', () => {
  it('is whole at every size around the one up to which it is copied into one piece', async () => {
    const bodyOf = (path = '') => 'x'.repeat(Number(path.slice(1)) - 1) + 'y'
    const { gateway } = await startEdge({
      routes: ['{path: /*, cache: {ttl: 1h}}'],
      script: (asked, response) => response.end(bodyOf(asked.url)),
    })
    for (let size = 15_400; size <= 16_400; size += 2) {
      const url = `${gateway.url}/${size}`
      await request(url)
      const { status, headers, text } = await request(url)
      expect([status, headers['x-cache'], text === bodyOf(`/${size}`)]).toEqual([200, 'HIT', true])
    }
  })
})
