import net from 'node:net'
import type { Readable } from 'node:stream'
import { describe, expect, it, onTestFinished } from 'vitest'
import { GatewayError } from '../../src/core/errors.ts'
import { networkOf } from '../../src/server/listener.ts'
import { converse } from '../support/client.ts'
import { until } from '../support/gateway.ts'
import { field, readAnswers } from '../support/wire.ts'
import { createTap, serve, text } from './serve.ts'

const GET = 'GET /x HTTP/1.1\r\nHost: a\r\n\r\n'
/** Far beyond what any of these tests takes: a drain that needs it has failed. */
const LONG_MS = 15_000

describe('a drain', () => {
  it('ends idle connections at once, those that never asked anything among them', async () => {
    const { listener, port, stopReuse } = await serve(() => text('ok'))
    const idle = await converse(port, GET)
    await idle.expect('ok')
    const silent = await converse(port)
    await until(() => listener.openConnections === 2, 'both connections')
    stopReuse()
    const startedAtMs = performance.now()
    await listener.drain(LONG_MS)
    expect(performance.now() - startedAtMs).toBeLessThan(LONG_MS / 2)
    await Promise.all([idle.end(), silent.end()])
    expect([idle.closedBy, silent.closedBy]).toEqual(['end', 'end'])
    expect(listener.openConnections).toBe(0)
  })

  it('lets an answer end, says that the connection closes, and takes no more', async () => {
    const tap = createTap()
    const { listener, port, recorded, stopReuse } = await serve(() => ({ status: 200, headers: [], body: tap.stream }))
    const early = await converse(port, GET)
    await early.expect('\r\n\r\n')
    stopReuse()
    const drained = listener.drain(LONG_MS)
    await expect(converse(port)).rejects.toThrow('ECONNREFUSED')
    tap.sink?.write(Buffer.from('done'))
    tap.sink?.end()
    await early.end()
    await drained
    expect(readAnswers(early.received).map(({ body, whole }) => [body, whole])).toEqual([['done', true]])
    expect(recorded.map(({ status, aborted }) => [status, aborted])).toEqual([[200, false]])
  })

  it('answers what was asked before it, and closes', async () => {
    const replies: (() => void)[] = []
    const { listener, port, stopReuse } = await serve(
      () => new Promise((resolve) => replies.push(() => resolve(text('late')))),
    )
    const client = await converse(port, GET)
    await until(() => replies.length === 1, 'the request')
    stopReuse()
    const drained = listener.drain(LONG_MS)
    replies[0]?.()
    await client.end()
    await drained
    const [answer] = readAnswers(client.received)
    expect([answer?.body, field(answer, 'connection')]).toEqual(['late', 'close'])
  })

  it('does not cut off an answer whose last bytes wait for a slow client', async () => {
    const size = 32 * 1024 * 1024
    const { listener, port, stopReuse } = await serve(() => ({ status: 200, headers: [], body: Buffer.alloc(size) }))
    const socket = net.connect({ port, host: '127.0.0.1' })
    onTestFinished(() => void socket.destroy())
    let received = 0
    socket.write(GET)
    await new Promise<void>((resolve) => {
      socket.once('data', (chunk) => {
        received += chunk.length
        socket.pause()
        resolve()
      })
    })
    stopReuse()
    const drained = listener.drain(LONG_MS)
    await new Promise((resolve) => setTimeout(resolve, 100))
    socket.on('data', (chunk) => (received += chunk.length))
    await new Promise((resolve) => socket.once('end', resolve).resume())
    await drained
    expect(received).toBeGreaterThan(size)
  })

  it('waits no longer for a head than at other times', async () => {
    const { listener, port, stopReuse } = await serve(() => text('ok'), { headTimeout: '200ms' })
    const client = await converse(port, 'GET /x HTTP/1.1\r\n')
    await until(() => listener.openConnections === 1, 'the connection')
    stopReuse()
    const startedAtMs = performance.now()
    await listener.drain(LONG_MS)
    expect(performance.now() - startedAtMs).toBeLessThan(LONG_MS / 2)
    await client.end()
    expect(readAnswers(client.received).map(({ status }) => status)).toEqual([408])
  })

  it('cuts off what is left at its deadline, and records it', async () => {
    const { listener, port, recorded, stopReuse } = await serve(() => new Promise(() => {}))
    const client = await converse(port, GET)
    await until(() => listener.openConnections === 1, 'the connection')
    stopReuse()
    const startedAtMs = performance.now()
    await listener.drain(200)
    expect(performance.now() - startedAtMs).toBeGreaterThan(190)
    await client.end()
    expect(recorded).toHaveLength(1)
  })
})

describe('an answer that cannot be sent', () => {
  it.each([
    ['a field value with a line break', () => ({ ...text('ok'), headers: ['X', 'a\r\nb'] })],
    ['a field name that is none', () => ({ ...text('ok'), headers: ['a b', 'x'] })],
    ['a status that is none', () => ({ ...text('ok'), status: 42 })],
    ['a promise that is broken', () => Promise.reject(new Error('secret'))],
    ['a later field value with NUL', () => Promise.resolve({ ...text('ok'), headers: ['X', '\0'] })],
  ] as const)('is a 500 that tells nothing, and one record with the cause: %s', async (_name, answer) => {
    const { port, recorded } = await serve(answer)
    const client = await converse(port, GET)
    await client.end()
    const answers = readAnswers(client.received)
    expect(answers.map(({ status }) => status)).toEqual([500])
    expect(JSON.parse(answers[0]?.body ?? '')).toMatchObject({ code: 'internal' })
    expect(client.received).not.toContain('secret')
    await until(() => recorded.length === 1, 'the record')
    expect(recorded[0]?.error).toMatchObject({ code: 'internal', cause: expect.any(Error) })
  })

  it('is a 500 as well when the fault is in what the request has gathered', async () => {
    const { port } = await serve((ctx) => {
      ctx.fields.push('X', '\n')
      return text('ok')
    })
    const client = await converse(port, GET)
    await client.end()
    expect(readAnswers(client.received).map(({ status }) => status)).toEqual([500])
  })

  it('lets go of the body that went with it', async () => {
    const tap = createTap()
    const { port } = await serve(() => ({ status: 200, headers: ['X', '\n'], body: tap.stream }))
    const client = await converse(port, GET)
    await client.end()
    expect(tap.isCancelled).toBe(true)
  })
})

describe('an answer that arrives over time', () => {
  it('shows its head before its first byte', async () => {
    const tap = createTap()
    const { port } = await serve(() => ({ status: 200, headers: ['X-A', 'b'], body: tap.stream }))
    const client = await converse(port, GET)
    expect(await client.expect('\r\n\r\n')).toContain('X-A: b')
    client.destroy()
    await until(() => tap.isCancelled, 'the body to be let go')
  })

  it('is cut off by a reset when it fails, with the reason in its record', async () => {
    const tap = createTap()
    const { port, recorded } = await serve(() => ({ status: 200, headers: [], body: tap.stream }))
    const client = await converse(port, GET)
    await client.expect('\r\n\r\n')
    tap.sink?.write(Buffer.from('half'))
    await client.expect('half')
    tap.sink?.fail(new GatewayError('upstream_reset', 'broken'))
    await client.end()
    expect(client.closedBy).toBe('reset')
    await until(() => recorded.length === 1, 'the record')
    expect(recorded[0]).toMatchObject({ status: 200, bytesSent: 4, aborted: false, error: { code: 'upstream_reset' } })
  })

  it.each(['end', 'reset'])('is not written to a client that has gone by an %s', async (how) => {
    const tap = createTap()
    const { port, recorded } = await serve(() => ({ status: 200, headers: [], body: tap.stream }))
    const socket = net.connect({ port, host: '127.0.0.1' })
    socket.write(GET)
    await new Promise((resolve) => socket.once('data', resolve))
    if (how === 'end') socket.destroy()
    else socket.resetAndDestroy()
    // What is written before the loss is noticed fails unheard.
    await until(() => {
      tap.sink?.write(Buffer.alloc(1024))
      return tap.isCancelled
    }, 'the body to be let go')
    tap.sink?.write(Buffer.alloc(1024))
    await until(() => recorded.length === 1, 'the record')
    expect(recorded[0]?.aborted).toBe(true)
  })

  it('is given up for a client that has gone when one more write is all there is to tell', async () => {
    const tap = createTap()
    const { port } = await serve(() => ({ status: 200, headers: [], body: tap.stream }))
    const client = await converse(port, GET)
    await client.expect('\r\n\r\n')
    client.destroy()
    setTimeout(() => tap.sink?.write(Buffer.from('last')), 100)
    await until(() => tap.isCancelled, 'the body to be let go')
    expect(tap.isCancelled).toBe(true)
  })

  it('goes on for a client that has only ended its side', async () => {
    const tap = createTap()
    const { port, recorded } = await serve(() => ({ status: 200, headers: [], body: tap.stream }))
    const socket = net.connect({ port, host: '127.0.0.1', allowHalfOpen: true })
    let received = ''
    socket.on('data', (chunk: Buffer) => (received += chunk.toString('latin1')))
    socket.write(GET)
    await until(() => tap.sink !== null, 'the answer to begin')
    socket.end()
    for (let i = 0; i < 8; i++) {
      await new Promise((resolve) => setTimeout(resolve, 180))
      tap.sink?.write(Buffer.from(String(i)))
    }
    tap.sink?.end()
    await new Promise((resolve) => socket.once('end', resolve))
    expect(readAnswers(received).map(({ body, whole }) => [body, whole])).toEqual([['01234567', true]])
    await until(() => recorded.length === 1, 'the record')
    expect(recorded[0]?.aborted).toBe(false)
  })
})

describe('the body of a request', () => {
  const post = (length: number) => `POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\n`

  it('that was opened and not read is closed with the answer, and leaves the connection usable', async () => {
    const opened: Readable[] = []
    const { port } = await serve((ctx) => {
      if (ctx.body !== null) opened.push(ctx.body.open(100))
      return text('ok')
    })
    const client = await converse(port, post(10))
    await client.expect('ok')
    await until(() => opened[0]?.destroyed === true, 'the body to be closed')
    client.send('helloworld')
    // Longer than a body that nobody reads may take to come.
    await new Promise((resolve) => setTimeout(resolve, 1200))
    client.send(GET)
    await client.expect(/ok[^]*ok/)
    client.destroy()
    expect(opened).toHaveLength(1)
  })

  it('fails in peace when nobody listens to it any more', async () => {
    let failure: Error | null | undefined
    const { port } = await serve(
      async (ctx) => {
        const body = ctx.body?.open(100)
        body?.resume()
        await new Promise((resolve) => body?.once('close', resolve))
        failure = body?.errored
        return text('ok')
      },
      { bodyIdle: '100ms' },
    )
    const client = await converse(port, post(10))
    await client.expect('ok')
    client.destroy()
    expect(failure).toMatchObject({ code: 'timeout_body' })
  })

  it('that is opened after its client has gone fails at once', async () => {
    let failure: Error | null | undefined
    const { port } = await serve(async (ctx) => {
      await new Promise<void>((resolve) => ctx.whenAborted(resolve))
      await new Promise((resolve) => setTimeout(resolve, 50))
      const body = ctx.body?.open(100)
      await new Promise((resolve) => body?.once('close', resolve))
      failure = body?.errored
      return text('nobody reads this')
    })
    const client = await converse(port, post(10))
    await new Promise((resolve) => setTimeout(resolve, 50))
    client.destroy()
    await until(() => failure !== undefined, 'the body to fail')
    expect(failure).toMatchObject({ code: 'client_gone' })
  })
})

describe('what a request is', () => {
  it.each([
    ['GET /x HTTP/1.1\r\nHost: a\r\n\r\n', { version: '1.1', host: 'a', path: '/x', query: '', body: null }],
    ['GET /x?y=1 HTTP/1.0\r\n\r\n', { version: '1.0', host: '', path: '/x', query: '?y=1', body: null }],
    ['GET http://b:80/x HTTP/1.0\r\n\r\n', { version: '1.0', host: 'b', path: '/x', query: '', body: null }],
    ['POST /x HTTP/1.1\r\nHost: A:80\r\nContent-Length: 0\r\n\r\n', { method: 'POST', host: 'a', body: null }],
    ['POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 05\r\n\r\nhello', { body: { declaredBytes: 5 } }],
    ['POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n', { body: { declaredBytes: null } }],
    ['GET /x HTTP/1.1\r\nHoSt: a\r\nX-A: 1\r\nx-a: 2\r\n\r\n', { headers: ['HoSt', 'a', 'X-A', '1', 'x-a', '2'] }],
  ])('comes out of %j', async (bytes, expected) => {
    const { port, recorded } = await serve(() => text('ok'))
    const client = await converse(port, bytes)
    await client.expect('ok')
    await until(() => recorded.length === 1, 'the record')
    expect(recorded[0]).toMatchObject({
      ...expected,
      scheme: 'http',
      peerAddress: '127.0.0.1',
      clientAddress: '127.0.0.1',
    })
    client.destroy()
  })

  it('has an id of its own', async () => {
    const { port, recorded } = await serve(() => text('ok'))
    const client = await converse(port, GET.repeat(50))
    await until(() => recorded.length === 50, 'all records')
    client.destroy()
    expect(new Set(recorded.map(({ id }) => id)).size).toBe(50)
  })
})

describe('the bound per address', () => {
  it.each([
    ['192.0.2.7', '192.0.2.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:db8:1:2::6', '2001:db8:1:2'],
    ['2001:db8:1::6', '2001:db8:1:0'],
    ['2001:db8::', '2001:db8:0:0'],
    ['2001:db8::3:4:5:6', '2001:db8:0:0'],
    ['2001:db8:0:3::', '2001:db8:0:3'],
    ['::1', '0:0:0:0'],
    ['::', '0:0:0:0'],
    ['1:0:0:2::', '1:0:0:2'],
    ['::2:3:4:5:6:7:8', '0:2:3:4'],
  ])('counts %s with all of %s', (address, expected) => {
    expect(networkOf(address)).toBe(expected)
  })
})
