// The frame of both demo backends, over real sockets: routing, HEAD, bodies, faults of a handler, closing.

import { connect } from 'node:net'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { failure, MAX_BODY_BYTES, startBackend, wait } from '../../src/demo/backend.ts'
import type { Backend, Call, Route } from '../../src/demo/backend.ts'

const opened: Backend[] = []
afterEach(async () => {
  await Promise.all(opened.splice(0).map((backend) => backend.close()))
})

async function start(...routes: Route[]): Promise<Backend> {
  const backend = await startBackend('test', 0, routes)
  opened.push(backend)
  return backend
}

const echo = ({ params, query, body }: Call) => ({
  status: 200,
  json: { params, query, bytes: body.length },
  etag: true,
})

describe('a demo backend', () => {
  it('gives a handler the parameters of the path and the last value of each query parameter', async () => {
    const { url } = await start({ method: 'GET', path: '/decks/:id/cards/:card', handle: echo })
    const answer = await fetch(`${url}/decks/7/cards/x%20y?a=1&b=%C3%A9&a=2`)
    expect(await answer.json()).toEqual({ params: { id: '7', card: 'x%20y' }, query: { a: '2', b: 'é' }, bytes: 0 })
  })

  it('answers HEAD like GET, without the body', async () => {
    const { url } = await start({ method: 'GET', path: '/x', handle: echo })
    const [get, head] = [await fetch(`${url}/x`), await fetch(`${url}/x`, { method: 'HEAD' })]
    const body = await get.text()
    expect(await head.text()).toBe('')
    for (const name of ['content-type', 'content-length', 'etag', 'x-backend']) {
      expect(head.headers.get(name)).toBe(get.headers.get(name))
    }
    expect(Number(get.headers.get('content-length'))).toBe(Buffer.byteLength(body))
    expect(get.headers.get('etag')).toMatch(/^"[0-9a-f]{32}"$/)
    expect(get.headers.get('date')).not.toBeNull()
  })

  it('makes the ETag from the content: equal for equal bytes, another for others', async () => {
    const { url } = await start({ method: 'GET', path: '/:id', handle: echo })
    const etag = async (path: string) => (await fetch(url + path)).headers.get('etag')
    expect(await etag('/a')).toBe(await etag('/a'))
    expect(await etag('/a')).not.toBe(await etag('/b'))
  })

  it.each([
    ['GET', '/nowhere', 404, null, { detail: 'Not Found' }],
    ['GET', '/x/', 404, null, { detail: 'Not Found' }],
    ['DELETE', '/x', 405, 'GET, POST, HEAD', { detail: 'Method Not Allowed' }],
    ['OPTIONS', '/y', 405, 'PUT', { detail: 'Method Not Allowed' }],
  ])('answers %s %s with %i', async (method, path, status, allow, json) => {
    const { url } = await start(
      { method: 'GET', path: '/x', handle: echo },
      { method: 'POST', path: '/x', handle: echo },
      { method: 'PUT', path: '/y', handle: echo },
    )
    const answer = await fetch(url + path, { method })
    expect(answer.status).toBe(status)
    expect(answer.headers.get('allow')).toBe(allow)
    expect(await answer.json()).toEqual(json)
  })

  it.each([
    [MAX_BODY_BYTES, 200],
    [MAX_BODY_BYTES + 1, 413],
    [8 * MAX_BODY_BYTES, 413],
  ])('answers a body of %i bytes with %i, and the connection stays usable', async (bytes, status) => {
    const { url, port } = await start({ method: 'POST', path: '/x', handle: echo })
    expect((await fetch(`${url}/x`, { method: 'POST', body: Buffer.alloc(bytes) })).status).toBe(status)

    const socket = connect(port, '127.0.0.1')
    socket.write(`POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: ${bytes}\r\n\r\n`)
    socket.write(Buffer.alloc(bytes))
    socket.write('GET /y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
    const heads = (await socket.toArray()).join('').match(/HTTP\/1\.1 \d+/g)
    expect(heads).toEqual([`HTTP/1.1 ${status}`, 'HTTP/1.1 404'])
  })

  it('says no more than 500 of a fault in a handler, and warns its operator', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { url } = await start({
      method: 'GET',
      path: '/x',
      handle() {
        throw new Error('a secret')
      },
    })
    const answer = await fetch(`${url}/x`)
    expect([answer.status, await answer.text()]).toEqual([500, 'Internal Server Error'])
    expect(warn).toHaveBeenCalledOnce()
    warn.mockRestore()
  })

  it('breaks an event stream off, rather than end it, when its source fails', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { promise: headSeen, resolve: seeHead } = Promise.withResolvers<void>()
    const events = async function* () {
      yield 'data: 1\n\n'
      await headSeen
      throw new Error('the model is gone')
    }
    const { url } = await start({ method: 'GET', path: '/x', handle: () => ({ events: events() }) })
    const answer = await fetch(`${url}/x`)
    expect(answer.status).toBe(200)
    seeHead()
    await expect(answer.text()).rejects.toThrow(/terminated/)
    expect(warn).toHaveBeenCalledOnce()
    warn.mockRestore()
  })

  it('aborts the handler when its client goes', async () => {
    const { promise: aborted, resolve } = Promise.withResolvers<boolean>()
    const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
    const { url } = await start({
      method: 'GET',
      path: '/x',
      async handle({ signal }) {
        begin()
        await wait(60_000, signal).finally(() => resolve(signal.aborted))
        return failure(500, 'nobody reads this')
      },
    })
    const client = new AbortController()
    const request = fetch(`${url}/x`, { signal: client.signal })
    await begun
    client.abort()
    await expect(request).rejects.toThrow(/aborted/)
    expect(await aborted).toBe(true)
  })

  it('closes at once while requests wait, and leaves no handler running', async () => {
    let running = 0
    const { promise: begun, resolve: begin } = Promise.withResolvers<void>()
    const backend = await startBackend('test', 0, [
      {
        method: 'GET',
        path: '/x',
        async handle({ signal }) {
          running++
          begin()
          await wait(60_000, signal).finally(() => running--)
          return failure(500, 'nobody reads this')
        },
      },
    ])
    const cut = fetch(`${backend.url}/x`).then(
      () => 'answered',
      () => 'cut',
    )
    await begun
    expect(running).toBe(1)
    await backend.close()
    expect(running).toBe(0)
    expect(await cut).toBe('cut')
  })

  it('refuses to start on a port that is taken', async () => {
    const { port } = await start()
    await expect(startBackend('test', port, [])).rejects.toThrow(/EADDRINUSE/)
  })
})
