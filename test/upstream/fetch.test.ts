// One exchange as its reader sees it: every byte once and in order, and one last word.

import type { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { BodySink } from '../../src/core/context.ts'
import { GatewayError } from '../../src/core/errors.ts'
import type { AttemptAnswer } from '../../src/upstream/fetch.ts'
import { closeAfterEach } from '../support/closing.ts'
import { until } from '../support/gateway.ts'
import { closedPort, startOrigin, startRawOrigin } from '../support/origin.ts'
import { type TestPool, failureOf, openPool, streamOf, testBody, testSink, textOf } from '../support/upstream.ts'

const closing = closeAfterEach()
const GONE = new GatewayError('client_gone', 'The client has gone.')

/** An exchange whose head has come; more is for the test to send. */
async function begun(
  first: string,
  request: Parameters<TestPool['fetch']>[0] = {},
): Promise<{ pool: TestPool; socket: Socket; answer: AttemptAnswer; abort: (reason: GatewayError) => void }> {
  let socket: Socket | undefined
  const origin = closing(
    await startRawOrigin((latest) => {
      socket = latest
      latest.write(first)
    }),
  )
  const pool = closing(openPool([origin.url]))
  const fetch = pool.fetch(request)
  const answer = await fetch.answer
  if (socket === undefined) throw new Error('an answer without a request')
  return { pool, socket, answer, abort: (reason) => fetch.abort(reason) }
}

const CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
const chunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`
const END = '0\r\n\r\n'

describe('a body', () => {
  it('that has come whole is one buffer', async () => {
    const { pool, answer } = await begun(CHUNKED + chunk('one ') + chunk('two') + END)
    await until(() => pool.held === 0, 'the exchange to end')
    expect(textOf(answer.takeBody())).toBe('one two')
    expect(answer.framed).toBe(true)
  })

  it.each([
    ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n'],
    ['GET', 'HTTP/1.1 204 No Content\r\n\r\n'],
    ['GET', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n'],
  ])('is none for %s answered by %j, before and after its end', async (method, bytes) => {
    const origin = closing(await startRawOrigin((socket) => socket.write(bytes)))
    const pool = closing(openPool([origin.url]))
    const answer = await pool.fetch({ method }).answer
    expect(answer.takeBody()).toBe(null)
    await until(() => pool.held === 0, 'the exchange to end')
    expect(answer.takeBody()).toBe(null)
    expect(answer.framed).toBe(true)
  })

  it('comes in order through a reader that has no room for most of it', async () => {
    const { socket, answer } = await begun(CHUNKED + chunk('0,') + chunk('1,'))
    const sink = testSink((count) => count % 3 === 0)
    const stream = streamOf(answer.takeBody())
    stream.pipeTo(sink)
    for (let i = 2; i < 200; i++) socket.write(chunk(`${i},`))
    socket.write(END)
    const timer = setInterval(() => stream.resume(), 1)
    await sink.over
    clearInterval(timer)
    expect(sink.text).toBe(Array.from({ length: 200 }, (_, i) => `${i},`).join(''))
    expect(sink.calls.filter((call) => call !== 'write')).toEqual(['end'])
  })

  it('comes in order through a reader that has room again while it is being given some', async () => {
    const { socket, answer } = await begun(CHUNKED + chunk('0,') + chunk('1,'))
    const stream = streamOf(answer.takeBody())
    const kept = testSink()
    let depth = 0
    let deepest = 0
    const eager: BodySink = {
      write(bytes) {
        deepest = Math.max(deepest, ++depth)
        stream.resume()
        kept.write(bytes)
        stream.resume()
        depth--
        return false
      },
      end: () => kept.end(),
      fail: (error) => kept.fail(error),
    }
    stream.pipeTo(eager)
    for (let i = 2; i < 200; i++) {
      socket.write(chunk(`${i},`))
      stream.resume()
    }
    socket.write(END)
    const timer = setInterval(() => stream.resume(), 1)
    await kept.over
    clearInterval(timer)
    expect(kept.text).toBe(Array.from({ length: 200 }, (_, i) => `${i},`).join(''))
    expect(deepest).toBe(1)
    expect(kept.calls.filter((call) => call !== 'write')).toEqual(['end'])
  })

  it('waits in a bounded part until somebody takes it, and then goes on', async () => {
    const { socket, answer } = await begun(CHUNKED)
    const big = 'x'.repeat(64 * 1024)
    let written = 0
    const more = (): void => {
      while (written < 32 * 1024 * 1024) {
        written += big.length
        if (!socket.write(chunk(big))) return
      }
      socket.off('drain', more).write(END)
    }
    socket.on('drain', more)
    more()
    let last = -1
    while (last !== written) {
      last = written
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
    expect(written).toBeLessThan(16 * 1024 * 1024)
    let bytes = 0
    await new Promise<void>((resolve, reject) => {
      streamOf(answer.takeBody()).pipeTo({
        write(part) {
          bytes += part.length
          return true
        },
        end: () => resolve(),
        fail: reject,
      })
    })
    expect(bytes).toBe(32 * 1024 * 1024)
  })

  it('that is over while its reader has no room ends when the reader has taken all', async () => {
    const { pool, socket, answer } = await begun(CHUNKED + chunk('one'))
    const stream = streamOf(answer.takeBody())
    const sink = testSink(() => false)
    stream.pipeTo(sink)
    socket.write(chunk('two') + chunk('three') + END)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(sink.text).toBe('one')
    for (let i = 0; i < 5; i++) {
      stream.resume()
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect(sink.text).toBe('onetwothree')
    expect(sink.calls).toEqual(['write', 'write', 'write', 'end'])
    expect(pool.held).toBe(0)
  })

  it('of which some had come before its reader ends after that, too', async () => {
    const { pool, socket, answer } = await begun(CHUNKED + chunk('one') + chunk('two'))
    await new Promise((resolve) => setTimeout(resolve, 20))
    const stream = streamOf(answer.takeBody())
    const sink = testSink(() => false)
    stream.pipeTo(sink)
    socket.write(END)
    await until(() => pool.held === 0, 'the exchange to end')
    expect(sink.calls).toEqual(['write'])
    stream.resume()
    expect(sink.calls).toEqual(['write', 'write', 'end'])
    expect(sink.text).toBe('onetwo')
  })

  it('that failed before anybody took it does not look whole', async () => {
    const { pool, socket, answer } = await begun(CHUNKED + chunk('partial'))
    socket.destroy()
    await until(() => pool.held === 0, 'the exchange to end')
    const sink = testSink()
    streamOf(answer.takeBody()).pipeTo(sink)
    expect(sink.calls).toEqual(['fail:upstream_reset'])
  })

  it('that was given up before anybody took it does not look whole', async () => {
    const { pool, answer, abort } = await begun(CHUNKED + chunk('partial'))
    abort(GONE)
    abort(GONE)
    expect(pool.held).toBe(0)
    const sink = testSink()
    streamOf(answer.takeBody()).pipeTo(sink)
    expect(sink.calls).toEqual(['fail:client_gone'])
  })

  it.each(['end', 'reset'])('until the connection ends cannot be proved whole; it is by %s or is not', async (how) => {
    const { socket, answer } = await begun('HTTP/1.1 200 OK\r\n\r\nsome')
    expect(answer.framed).toBe(false)
    const sink = testSink()
    streamOf(answer.takeBody()).pipeTo(sink)
    if (how === 'end') socket.end(' more')
    else socket.resetAndDestroy()
    await sink.over
    expect(sink.calls.at(-1)).toBe(how === 'end' ? 'end' : 'fail:upstream_reset')
  })

  it('until the connection ends counts as whole where the upstream is trusted with it, unless it is reset', async () => {
    for (const [how, last] of [
      ['end', 'end'],
      ['reset', 'fail:upstream_reset'],
    ]) {
      const { socket, answer } = await begun('HTTP/1.1 200 OK\r\n\r\nsome', { isLenient: true })
      expect(answer.framed).toBe(true)
      const sink = testSink()
      streamOf(answer.takeBody()).pipeTo(sink)
      if (how === 'end') socket.end(' more')
      else socket.resetAndDestroy()
      await sink.over
      expect(sink.calls.at(-1)).toBe(last)
    }
  })

  it('tells its reader once, whatever else happens', async () => {
    const { pool, socket, answer, abort } = await begun(CHUNKED + chunk('partial'))
    const sink = testSink()
    const stream = streamOf(answer.takeBody())
    stream.pipeTo(sink)
    socket.resetAndDestroy()
    await sink.over
    abort(GONE)
    stream.resume()
    stream.cancel()
    expect(sink.calls).toEqual(['write', 'fail:upstream_reset'])
    expect(pool.held).toBe(0)
  })

  it('says nothing to a reader that has gone, even from within a write', async () => {
    const { pool, socket, answer } = await begun(CHUNKED + chunk('one'))
    const stream = streamOf(answer.takeBody())
    const calls: string[] = []
    stream.pipeTo({
      write() {
        calls.push('write')
        stream.cancel()
        return true
      },
      end: () => calls.push('end'),
      fail: () => calls.push('fail'),
    })
    socket.on('error', () => {}).write(chunk('two') + END)
    await until(() => pool.held === 0, 'the exchange to end')
    stream.resume()
    expect(calls).toEqual(['write'])
  })
})

describe('a request body', () => {
  it('is opened once, by the first attempt that has a connection of its own, and arrives whole', async () => {
    const origin = closing(await startOrigin((message, response) => message.on('end', () => response.end('ok'))))
    const dead = [`http://127.0.0.1:${await closedPort()}`, `http://127.0.0.1:${await closedPort()}`]
    const pool = closing(openPool([...dead, origin.url], { retries: 2 }))
    const body = testBody(['one ', 'two ', 'three'])
    await pool.fetch({ method: 'POST', body }).answer
    expect(body.opened).toBe(1)
    expect((await origin.seen[0]?.body)?.toString()).toBe('one two three')
  })

  it.each([
    ['the connection is refused', async () => closing(openPool([`http://127.0.0.1:${await closedPort()}`]))],
    [
      'the upstream breaks off',
      async () => closing(openPool([closing(await startRawOrigin((socket) => socket.destroy())).url])),
    ],
    [
      'the upstream lies',
      async () => closing(openPool([closing(await startRawOrigin((socket) => socket.write('nonsense\r\n\r\n'))).url])),
    ],
    [
      'the answer does not begin',
      async () =>
        closing(
          openPool([closing(await startRawOrigin(() => {})).url], {
            timeouts: { idle: '5s', firstByte: '100ms', total: '150ms' },
          }),
        ),
    ],
  ])('is given up when %s', async (_when, start) => {
    const pool = await start()
    const body = testBody()
    const failure = failureOf(pool.fetch({ method: 'POST', body }))
    body.stream?.push('beginning')
    expect(await failure).toMatch(/^upstream_|^timeout_/)
    expect(body.stream?.destroyed).toBe(true)
    await until(() => pool.held === 0, 'the exchange to end')
  })

  it.each([
    ['body_too_large', 'on its way', true],
    ['timeout_body', 'on its way', true],
    ['client_gone', 'on its way', true],
    ['body_too_large', 'before the connection stands', false],
    ['client_gone', 'before the connection stands', false],
  ] as const)('that fails with %s %s fails the request with that', async (code, _when, isUnderWay) => {
    let requests = 0
    const origin = closing(await startRawOrigin(() => requests++))
    const pool = closing(openPool([origin.url]))
    const body = testBody()
    const failure = failureOf(pool.fetch({ method: 'POST', body }))
    body.stream?.push('beginning')
    if (isUnderWay) await until(() => requests === 1, 'the request at the origin')
    body.stream?.destroy(new GatewayError(code, 'Test.'))
    expect(await failure).toBe(code)
    await until(() => pool.held === 0, 'the exchange to end')
  })

  it('that fails while the next target has no connection free ends the waiting', async () => {
    const busy = closing(await startRawOrigin(() => {}))
    const pool = closing(openPool([`http://127.0.0.1:${await closedPort()}`, busy.url], { connections: 1 }))
    // The first turn is the dead target's, so both end up with the other one.
    const hanging = pool.fetch()
    const hangingFailure = failureOf(hanging)
    await until(() => busy.connections === 1, 'the only connection to be taken')
    pool.pool.next([], null)
    const body = testBody()
    const failure = failureOf(pool.fetch({ method: 'POST', body }))
    await until(() => pool.pool.status().targets[1]?.queued === 1, 'the second to wait')
    expect(body.opened).toBe(1)
    body.stream?.destroy(new GatewayError('timeout_body', 'Test.'))
    expect(await failure).toBe('timeout_body')
    expect(pool.held).toBe(1)
    hanging.abort(GONE)
    expect(await hangingFailure).toBe('client_gone')
  })

  it('that fails after the head breaks the answer off', async () => {
    const origin = closing(await startRawOrigin((socket) => socket.write(CHUNKED + chunk('early'))))
    const pool = closing(openPool([origin.url]))
    const body = testBody()
    const { answer } = pool.fetch({ method: 'POST', body })
    body.stream?.push('beginning')
    const sink = testSink()
    streamOf((await answer).takeBody()).pipeTo(sink)
    body.stream?.destroy(new GatewayError('body_too_large', 'Test.'))
    await sink.over
    expect(sink.calls.at(-1)).toBe('fail:body_too_large')
  })
})

describe('giving up', () => {
  it('while the connection is being made is answered at once, and nothing is sent', async () => {
    const origin = closing(await startOrigin())
    const pool = closing(openPool([origin.url]))
    const fetch = pool.fetch()
    fetch.abort(GONE)
    expect(await failureOf(fetch)).toBe('client_gone')
    await until(() => pool.held === 0, 'the connection to be given up')
    expect(origin.seen).toHaveLength(0)
    expect((await pool.fetch().answer).status).toBe(200)
  })

  it('after the end changes nothing', async () => {
    const origin = closing(await startOrigin())
    const pool = closing(openPool([origin.url]))
    const fetch = pool.fetch()
    const answer = await fetch.answer
    await until(() => pool.held === 0, 'the exchange to end')
    fetch.abort(GONE)
    expect(textOf(answer.takeBody())).toBe('answer 1')
    expect((await pool.fetch().answer).status).toBe(200)
    expect(origin.openSockets).toBe(1)
  })
})

describe('a late answer', () => {
  it('reaches nobody: not the one who has stopped waiting, and not the next', async () => {
    const origin = closing(
      await startRawOrigin((socket, head) => {
        const path = /^GET (\S+)/.exec(head)?.[1] ?? ''
        const bytes = `HTTP/1.1 200 OK\r\nContent-Length: ${path.length}\r\n\r\n${path}`
        if (path === '/late') setTimeout(() => socket.write(bytes), 200)
        else socket.write(bytes)
      }),
    )
    const pool = closing(openPool([origin.url], { connections: 1, timeouts: { firstByte: '100ms' } }))
    expect(await failureOf(pool.fetch({ path: '/late' }))).toBe('timeout_first_byte')
    const endMs = performance.now() + 300
    while (performance.now() < endMs) {
      const answer = await pool.fetch({ path: '/mine' }).answer
      await until(() => pool.held === 0, 'the exchange to end')
      expect(textOf(answer.takeBody())).toBe('/mine')
    }
  })
})
