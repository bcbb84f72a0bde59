// When a connection carries another request, and when it must not: an answer that is left on it would be the next one's.

import type { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { closeAfterEach } from '../support/closing.ts'
import { until } from '../support/gateway.ts'
import { type RawOrigin, startRawOrigin } from '../support/origin.ts'
import { failureOf, openPool, testBody, textOf } from '../support/upstream.ts'

const closing = closeAfterEach()

const answer = (text: string, fields = ''): string =>
  `HTTP/1.1 200 OK\r\n${fields}Content-Length: ${text.length}\r\n\r\n${text}`

/** answer: what the n-th request, from 1, is answered; a function does it itself. */
async function startOrigin(reply: (count: number, socket: Socket) => string | null): Promise<RawOrigin> {
  return closing(
    await startRawOrigin((socket, _head, count) => {
      const bytes = reply(count, socket)
      if (bytes !== null) socket.write(bytes)
    }),
  )
}

describe('a connection', () => {
  it.each([
    ['is used again after a body with a length', 'GET', answer('ok'), 1],
    ['is used again after chunks', 'GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 1],
    ['is used again after a 304', 'GET', 'HTTP/1.1 304 Not Modified\r\n\r\n', 1],
    ['is used again where an old upstream says so', 'GET', answer('ok', 'Connection: keep-alive\r\n'), 1],
    ['is used again within the time that the upstream names', 'GET', answer('ok', 'Keep-Alive: timeout=60\r\n'), 1],
    ['is closed where that time is as good as over', 'GET', answer('ok', 'Keep-Alive: max=5, timeout=2\r\n'), 2],
    ['is closed after HEAD, to which some send a body', 'HEAD', answer('').replace('0', '2'), 2],
    ['is closed after a 204 that announces a body', 'GET', 'HTTP/1.1 204 x\r\nContent-Length: 2\r\n\r\n', 2],
    ['is closed after a 304 that announces a body', 'GET', 'HTTP/1.1 304 x\r\nContent-Length: 2\r\n\r\n', 2],
    ['is closed after an answer that more follows', 'GET', `${answer('ok')}${answer('to somebody else')}`, 2],
    ['is closed after an answer that says so', 'GET', answer('ok', 'Connection: close\r\n'), 2],
    ['is closed after HTTP/1.0', 'GET', answer('ok').replace('1.1', '1.0'), 2],
    ['is closed after content that means nothing', 'DELETE', answer('ok'), 2],
  ])('[RFC 9112 §9.3] %s', async (_what, method, bytes, connections) => {
    const origin = await startOrigin(() => bytes)
    const pool = closing(openPool([origin.url], { connections: 1 }))
    const body = method === 'DELETE' ? testBody(['x']) : null
    for (let i = 0; i < 2; i++) {
      await pool.fetch({ method, body: i === 0 ? body : null }).answer
      await until(() => pool.held === 0, 'the exchange to end')
    }
    expect(origin.connections).toBe(connections)
  })

  it('that gets bytes while nobody asks is closed, and they answer nobody', async () => {
    let late: Socket | undefined
    const origin = await startOrigin((count, socket) => {
      late = socket
      return answer(`${count}`)
    })
    const pool = closing(openPool([origin.url], { connections: 1 }))
    await pool.fetch().answer
    late?.write(answer('poison'))
    await until(() => pool.pool.status().targets[0]?.open_connections === 0, 'the connection to be closed')
    const next = await pool.fetch().answer
    await until(() => pool.held === 0, 'the exchange to end')
    expect(textOf(next.takeBody())).toBe('2')
  })

  it('[RFC 9110 §9.2.2] that was closed just now is not used for what must not be sent twice', async () => {
    const origin = await startOrigin((count, socket) => {
      socket.end(answer(`${count}`))
      return null
    })
    const pool = closing(openPool([origin.url], { connections: 1, retries: 0 }))
    for (let i = 1; i <= 10; i++) expect((await pool.fetch({ method: 'POST' }).answer).status).toBe(200)
    expect(origin.connections).toBe(10)
  })

  it('that carries a body is closed when the answer comes before its end', async () => {
    const origin = await startOrigin(() => answer('enough'))
    const pool = closing(openPool([origin.url], { connections: 1 }))
    const body = testBody()
    const { answer: head } = pool.fetch({ method: 'POST', body })
    body.stream?.push('beginning')
    await head
    await until(() => pool.held === 0, 'the exchange to end')
    expect(body.stream?.destroyed).toBe(true)
    await pool.fetch().answer
    expect(origin.connections).toBe(2)
  })
})

describe('connections', () => {
  it('are never more than the target is given, those made for another try among them', async () => {
    let open = 0
    let most = 0
    const origin = await startOrigin((count, socket) => {
      most = Math.max(most, open)
      if (count % 3 !== 0) return answer('ok')
      socket.destroy()
      return null
    })
    const pool = closing(openPool([origin.url], { connections: 3, retries: 1 }))
    const watch = setInterval(() => {
      open = pool.pool.status().targets[0]?.open_connections ?? 0
    }, 1)
    for (let round = 0; round < 20; round++) {
      const fetches = Array.from({ length: 9 }, () => pool.fetch())
      await Promise.all(fetches.map((fetch) => fetch.answer.catch(() => failureOf(fetch))))
      expect(pool.pool.status().targets[0]?.open_connections).toBeLessThanOrEqual(3)
    }
    clearInterval(watch)
    expect(most).toBeLessThanOrEqual(3)
  })
})
