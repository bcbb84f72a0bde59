// Answers that are sent for as long as there is something to tell, and bodies that take long to come: they pass as they
// are, each piece when it comes, for as long as the route lets them.

import { hash, randomBytes } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { converse, request } from '../support/client.ts'
import { type Clock, holdTime } from '../support/clock.ts'
import { type Edge, type EdgeOptions, startEdge } from '../support/edge.ts'
import { get } from '../support/exchange.ts'

/** An origin whose answers the test sends, and a gateway before it. */
async function tapped(type: string, options: EdgeOptions): Promise<Edge & { taps: readonly ServerResponse[] }> {
  const taps: ServerResponse[] = []
  const edge = await startEdge({
    ...options,
    script(_incoming, response) {
      response.writeHead(200, { 'Content-Type': type }).flushHeaders()
      taps.push(response)
    },
  })
  return { ...edge, taps }
}

/** The line of the one request that is not about health. */
const lineOf = ({ gateway }: Edge) => gateway.log.find(({ path }) => path === '/events')

/** All that has fallen due has been done by the end of another exchange. */
async function settle(clock: Clock, { gateway }: Edge): Promise<void> {
  let isDone = false
  void request(`${gateway.url}/health`).then(() => (isDone = true))
  await clock.until(() => isDone, 'another exchange')
}

const SECOND = 1000
const MINUTE = 60 * SECOND

describe('a stream of events', () => {
  const LONG = { routes: ['{path: /*, timeouts: {idle: 30s, total: 1m, streamTotal: 2h}}'] }

  it('of an hour comes whole, each event when it is sent, with gaps below idle', async () => {
    const clock = holdTime()
    const edge = await tapped('text/event-stream; charset=utf-8', LONG)
    const client = await converse(edge.gateway.port, get('/events', ['Accept-Encoding: gzip, br', 'Connection: close']))
    await clock.until(() => client.received.includes('\r\n\r\n'), 'the head, before any event')
    expect(client.received).not.toMatch(/content-encoding|content-length/i)
    const [tap] = edge.taps
    const EVENTS = 720
    for (let i = 0; i < EVENTS; i++) {
      tap?.write(`id: ${i}\ndata: ${'x'.repeat(i % 300)}\n\n`)
      await clock.until(() => client.received.includes(`id: ${i}\n`), `event ${i}`)
      clock.advance(5 * SECOND)
    }
    tap?.end()
    await clock.until(() => client.closed, 'the end')
    expect([client.closedBy, client.received.endsWith('\r\n0\r\n\r\n')]).toEqual(['end', true])
    const ids = [...client.received.matchAll(/^id: (\d+)$/gm)].map(([, id]) => Number(id))
    expect(ids).toEqual(Array.from({ length: EVENTS }, (_, i) => i))
    await clock.until(() => lineOf(edge) !== undefined, 'its line')
    expect(lineOf(edge)).toMatchObject({ status_code: 200 })
    expect(lineOf(edge)).not.toHaveProperty('error')
    expect(lineOf(edge)?.['duration_ms']).toBeGreaterThanOrEqual(60 * MINUTE)
  })

  it.each(['1.0', '1.1'])('that falls silent is cut after idle, visibly to an HTTP/%s client', async (version) => {
    const clock = holdTime()
    const edge = await tapped('text/event-stream', LONG)
    const client = await converse(edge.gateway.port, `GET /events HTTP/${version}\r\nHost: a\r\n\r\n`)
    await clock.until(() => edge.taps.length === 1, 'the request at the origin')
    for (let i = 0; i < 5; i++) {
      edge.taps[0]?.write(': beat\n\n')
      await clock.until(() => client.received.split(': beat').length === i + 2, 'the beat')
      clock.advance(29 * SECOND)
    }
    await settle(clock, edge)
    expect(client.closed).toBe(false)
    clock.advance(SECOND)
    await clock.until(() => client.closed, 'the end')
    // Where there are chunks, an end without the last one is none, and the stream can say why.
    const isTold = /\nevent: error\ndata: \{"code":"timeout_idle","request_id":"[^"]+"\}\n\n\r\n$/.test(client.received)
    expect([client.closedBy, isTold, client.received.includes('\r\n0\r\n')]).toEqual(
      version === '1.1' ? ['end', true, false] : ['reset', false, false],
    )
    await clock.until(() => lineOf(edge) !== undefined && edge.origin.aborted === 1, 'both sides to hear of it')
    expect(lineOf(edge)).toMatchObject({ status_code: 200, error: 'timeout_idle' })
  })

  describe('with `firstEvent`', () => {
    const FIRST = { routes: ['{path: /*, timeouts: {firstEvent: 10s, idle: 30s}}'] }

    it.each(['the head', 'half a comment'])(
      'that says no more than %s gets its client a 504 or an error',
      async (what) => {
        const clock = holdTime()
        const edge = await tapped('text/event-stream', FIRST)
        const client = await converse(edge.gateway.port, get('/events'))
        await clock.until(() => edge.taps.length === 1, 'the request at the origin')
        await settle(clock, edge)
        const isHeld = what === 'the head'
        if (!isHeld) {
          edge.taps[0]?.write(': still')
          await clock.until(() => client.received.includes(': still'), 'the comment')
        }
        clock.advance(10 * SECOND - 1)
        await settle(clock, edge)
        expect([client.closed, client.received === '']).toEqual([false, isHeld])
        clock.advance(2)
        await clock.until(() => client.closed, 'the end')
        expect(client.received).toMatch(isHeld ? /^HTTP\/1.1 504 [^]*"code":"timeout_first_event"/ : /^HTTP\/1.1 200 /)
        expect([client.closedBy, client.received.includes('event: error')]).toEqual([isHeld ? 'end' : 'reset', false])
        await clock.until(() => lineOf(edge) !== undefined && edge.origin.aborted === 1, 'both sides to hear of it')
        expect(lineOf(edge)).toMatchObject({ status_code: isHeld ? 504 : 200, error: 'timeout_first_event' })
      },
    )

    it('is told why it ends where comments alone have come, which are passed on', async () => {
      const clock = holdTime()
      const edge = await tapped('text/event-stream', FIRST)
      const client = await converse(edge.gateway.port, get('/events'))
      await clock.until(() => edge.taps.length === 1, 'the request at the origin')
      await settle(clock, edge)
      for (let i = 1; i <= 3; i++) {
        clock.advance(3 * SECOND)
        edge.taps[0]?.write(': beat\n\n')
        await clock.until(() => client.received.split(': beat').length === i + 1, 'the beat')
      }
      clock.advance(SECOND)
      await clock.until(() => client.closed, 'the end')
      expect(client.received).toContain('event: error\ndata: {"code":"timeout_first_event"')
    })

    it('has no other limit than idle after its first event, nor where it ends before one', async () => {
      const clock = holdTime()
      const edge = await tapped('text/event-stream', FIRST)
      const client = await converse(edge.gateway.port, get('/events'))
      await clock.until(() => edge.taps.length === 1, 'the request at the origin')
      await settle(clock, edge)
      clock.advance(9 * SECOND)
      edge.taps[0]?.write('data: 1\n\n')
      await clock.until(() => client.received.includes('data: 1'), 'the first event')
      clock.advance(29 * SECOND)
      await settle(clock, edge)
      edge.taps[0]?.end('data: 2\n\n')
      await clock.until(() => client.closed, 'the end')
      expect(client.received).toMatch(/data: 2\n\n\r\n0\r\n\r\n$/)

      const other = await converse(edge.gateway.port, get('/empty'))
      await clock.until(() => edge.taps.length === 2, 'the request at the origin')
      await settle(clock, edge)
      edge.taps[1]?.end()
      await clock.until(() => other.closed, 'the end')
      expect(other.received).toMatch(/^HTTP\/1.1 200 /)
    })
  })

  it.each([
    ['text/event-stream', 5 * MINUTE],
    ['application/grpc-web+proto', 5 * MINUTE],
    ['application/grpc-web-text; charset=x', 5 * MINUTE],
    ['application/x-ndjson', 5 * MINUTE],
    ['multipart/x-mixed-replace; boundary=b', 5 * MINUTE],
    ['application/json', MINUTE],
    ['text/event-streams', MINUTE],
  ])('and any other has its time: %s ends after %d ms', async (type, totalMs) => {
    const clock = holdTime()
    const edge = await tapped(type, {})
    const client = await converse(edge.gateway.port, get('/events'))
    await clock.until(() => edge.taps.length === 1, 'the request at the origin')
    const STEP = 10 * SECOND
    for (let ms = STEP; ms < totalMs; ms += STEP) {
      clock.advance(STEP)
      edge.taps[0]?.write('more;')
      await clock.until(() => client.received.split('more;').length === ms / STEP + 1, 'more of it')
    }
    clock.advance(STEP)
    await clock.until(() => client.closed, 'the end')
    expect(client.closedBy).toBe('reset')
    await clock.until(() => lineOf(edge) !== undefined, 'its line')
    expect(lineOf(edge)).toMatchObject({ error: 'timeout_total', duration_ms: totalMs })
  })

  it('waits for a client that reads nothing for longer than idle', async () => {
    const clock = holdTime()
    const edge = await tapped('text/event-stream', LONG)
    const client = await converse(edge.gateway.port)
    client.pause()
    await client.flush(get('/events'))
    await clock.until(() => edge.taps.length === 1, 'the request at the origin')
    const [tap] = edge.taps
    // As long as the gateway takes it.
    let sent = 0
    const piece = Buffer.alloc(64 * 1024, 'x')
    for (let isTaken = true; isTaken; isTaken = (tap?.writableLength ?? 0) < 1024 * 1024) {
      tap?.write(piece)
      sent++
      await settle(clock, edge)
    }
    clock.advance(5 * MINUTE)
    await settle(clock, edge)
    client.resume()
    tap?.end('the end')
    await clock.until(() => client.closed || client.received.includes('the end'), 'all of it')
    expect(client.received.split('x'.repeat(1024)).length).toBeGreaterThan(sent * 60)
    expect(client.received).toContain('the end')
    client.destroy()
  })
})

describe('gRPC-web', () => {
  /** A frame: flags, length, message (the trailers are one with the highest bit). */
  const frame = (flags: number, message: Buffer): Buffer => {
    const head = Buffer.alloc(5)
    head[0] = flags
    head.writeUInt32BE(message.length, 1)
    return Buffer.concat([head, message])
  }

  it('goes both ways byte for byte, each message of the answer when it is sent', async () => {
    const edge = await tapped('application/grpc-web+proto', {})
    const asked = frame(0, randomBytes(300))
    const client = await converse(
      edge.gateway.port,
      Buffer.concat([
        Buffer.from(
          [
            'POST /pkg.Service/Watch HTTP/1.1',
            'Host: a',
            'Content-Type: application/grpc-web+proto',
            'X-Grpc-Web: 1',
            'Grpc-Timeout: 30S',
            'TE: trailers',
            'Connection: close',
            `Content-Length: ${asked.length}\r\n\r\n`,
          ].join('\r\n'),
        ),
        asked,
      ]),
    )
    await client.expect('Content-Type: application/grpc-web+proto')
    expect(await edge.origin.seen[0]?.body).toEqual(asked)
    expect(edge.origin.seen[0]?.headers).toMatchObject({ 'x-grpc-web': '1', 'grpc-timeout': '30S' })
    const messages = [
      frame(0, randomBytes(50)),
      frame(1, randomBytes(40_000)),
      frame(0x80, Buffer.from('grpc-status: 0\r\n')),
    ]
    for (const message of messages) {
      edge.taps[0]?.write(message)
      await client.expect(message.toString('latin1'))
    }
    edge.taps[0]?.end()
    await client.end()
    expect(client.closedBy).toBe('end')
  })
})

describe('an upload', () => {
  it('of 256 MiB goes through, with a length and in chunks', async () => {
    const { gateway } = await startEdge({
      routes: ['{path: /*, maxBody: 1GiB}'],
      script(incoming, response) {
        let bytes = 0
        let last: Buffer = Buffer.alloc(0)
        incoming.on('data', (chunk: Buffer) => {
          bytes += chunk.length
          last = chunk
        })
        incoming.on('end', () => response.end(`${bytes} ${hash('sha1', last.subarray(-1000))}`))
      },
    })
    const part = randomBytes(1024 * 1024)
    const wanted = `${256 * part.length} ${hash('sha1', part.subarray(-1000))}`
    for (const framing of [`Content-Length: ${256 * part.length}`, 'Transfer-Encoding: chunked']) {
      const client = await converse(
        gateway.port,
        `PUT /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${framing}\r\n\r\n`,
      )
      const isChunked = framing.startsWith('T')
      for (let i = 0; i < 256; i++) {
        if (isChunked) client.send(`${part.length.toString(16)}\r\n`)
        await client.flush(part)
        if (isChunked) client.send('\r\n')
      }
      if (isChunked) client.send('0\r\n\r\n')
      await client.end()
      expect(client.received).toMatch(/^HTTP\/1\.1 200 /)
      expect(client.received).toContain(wanted)
    }
  })

  it('that takes an hour goes through where the route gives it the time, and the listener does not ask for more', async () => {
    const clock = holdTime()
    let bytes = 0
    const edge = await startEdge({
      listen: 'bodyRate: 0B',
      routes: ['{path: /*, timeouts: {total: 2h}}'],
      script(incoming, response) {
        incoming.on('data', (chunk: Buffer) => (bytes += chunk.length))
        incoming.on('end', () => response.end(`took ${bytes}`))
      },
    })
    const client = await converse(
      edge.gateway.port,
      'POST /slow HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 720\r\n\r\n',
    )
    for (let i = 1; i <= 720; i++) {
      clock.advance(5 * SECOND)
      client.send('x')
      await clock.until(() => bytes === i, 'the byte at the origin')
    }
    await clock.until(() => client.closed, 'the answer')
    expect(client.received).toContain('took 720')
  })
})
