// Which route answers, as a client sees it: hosts, paths and methods on the wire, and what it hears where none does.

import { describe, expect, it } from 'vitest'
import { type Answer, type RequestOptions, converse, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway } from '../support/gateway.ts'
import { type Origin, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

interface World {
  readonly origin: Origin
  readonly gateway: TestGateway
  readonly ask: (path: string, options?: RequestOptions) => Promise<Answer>
}

/** routes: flow mappings; each answers with its own place in the table, from 0, in X-Route. */
async function world(...routes: readonly string[]): Promise<World> {
  const origin = closing(await startOrigin())
  const rows = routes.map((route, i) => `  - {${route}, headers: {response: {set: {X-Route: "${i}"}}}}`)
  const gateway = closing(
    await startGateway(
      `upstreams: {app: {targets: ["${origin.url}"]}}\ndefaults: {upstream: app}\nroutes:\n${rows.join('\n')}\n`,
    ),
  )
  return { origin, gateway, ask: (path, options) => request(gateway.url + path, options) }
}

const routeOf = ({ status, headers }: Answer): string => String(headers['x-route'] ?? status)

describe('the route that answers', () => {
  it('is the most specific one, wherever it stands in the table', async () => {
    const { ask } = await world(
      'path: /*',
      'path: /decks/:id',
      'path: /decks/new',
      'path: /decks/*',
      'path: /decks/:id, methods: [PUT]',
      'path: "/decks/:id/cards/*"',
      'path: /decks/*, host: api.test',
    )
    const asked: [string, string, string][] = [
      ['GET', '/', '0'],
      ['GET', '/deck', '0'],
      ['GET', '/decks', '3'],
      ['GET', '/decks/', '3'],
      ['GET', '/decks/7', '1'],
      ['PUT', '/decks/7', '4'],
      ['GET', '/decks/new', '2'],
      ['GET', '/decks/7/cards', '5'],
      ['GET', '/decks/7/cards/8', '5'],
      ['GET', '/decks/7/other', '3'],
    ]
    for (const [method, path, route] of asked) {
      expect([method, path, routeOf(await ask(path, { method }))]).toEqual([method, path, route])
    }
    for (const host of ['api.test', 'API.Test:80', 'api.test.']) {
      expect([host, routeOf(await ask('/decks/new', { headers: { Host: host } }))]).toEqual([host, '6'])
    }
  })

  it('is found by the one spelling of the path that the origin sees as well', async () => {
    const { ask, origin } = await world('path: /a-b/:id', 'path: /*')
    for (const path of ['/a%2Db/~x', '//a-b//%7Ex', '/%61%2d%62/%7ex']) expect(routeOf(await ask(path))).toBe('0')
    expect(new Set(origin.seen.map(({ url }) => url))).toEqual(new Set(['/a-b/~x']))
    // Case, reserved characters and what lies behind the query are not touched.
    for (const path of ['/A-b/x', '/a-b%21/x', '/?/a-b/x']) expect(routeOf(await ask(path))).toBe('1')
  })

  it('of hosts is the exact one, then the longer wildcard, then the one without a host', async () => {
    const { ask } = await world(
      'path: /*',
      'path: /*, host: "*.test"',
      'path: /*, host: "*.b.test"',
      'path: /*, host: a.b.test',
    )
    const hosts: [string, string][] = [
      ['a.b.test', '3'],
      ['c.b.test', '2'],
      ['d.c.b.test', '2'],
      ['b.test', '1'],
      ['test', '0'],
      ['a.b.test.evil.example', '0'],
      ['xb.test', '1'],
      ['127.0.0.1', '0'],
      ['[::1]:8080', '0'],
    ]
    for (const [host, route] of hosts) {
      expect([host, routeOf(await ask('/', { headers: { Host: host } }))]).toEqual([host, route])
    }
  })

  it('may be told by an absolute target, or by no host at all (HTTP/1.0)', async () => {
    const { gateway } = await world('path: /*', 'path: /*, host: a.test')
    const absolute = await converse(
      gateway.port,
      'GET http://a.test/x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n',
    )
    await absolute.end()
    expect(absolute.received).toMatch(/^HTTP\/1\.1 200 [^]*\r\nX-Route: 1\r\n/)
    const ancient = await converse(gateway.port, 'GET /x HTTP/1.0\r\n\r\n')
    await ancient.end()
    expect(ancient.received).toMatch(/^HTTP\/1\.1 200 [^]*\r\nX-Route: 0\r\n/)
  })

  it('may change the path on its way to the origin', async () => {
    const { ask, origin } = await world(
      'path: /api/*, rewrite: {strip: /api}',
      'path: /old/*, rewrite: {strip: /old, prefix: /new/er}',
      'path: /bare/*, rewrite: {prefix: /v1}',
    )
    for (const path of ['/api', '/api/', '/api/x%20y?a=/api', '/old/x', '/bare/x'])
      expect((await ask(path)).status).toBe(200)
    expect(origin.seen.map(({ url }) => url)).toEqual(['/', '/', '/x%20y?a=/api', '/new/er/x', '/v1/bare/x'])
  })

  it('of 10,000 is found like one of ten', async () => {
    const routes = Array.from(
      { length: 10_000 },
      (_, i) => `  - {path: "/service${i}/${['*', 'items/:id', 'items'][i % 3]}"}`,
    )
    const origin = closing(await startOrigin())
    const gateway = closing(
      await startGateway(
        `upstreams: {app: {targets: ["${origin.url}"]}}\ndefaults: {upstream: app}\nroutes:\n${routes.join('\n')}\n`,
      ),
    )
    for (const [path, status] of [
      ['/service0/x/y', 200],
      ['/service9997/items/7', 200],
      ['/service9998/items', 200],
      ['/service9998/items/7', 404],
      ['/service9999', 200],
      ['/service10000', 404],
    ] as const) {
      expect([path, (await request(gateway.url + path)).status]).toEqual([path, status])
    }
  })
})

describe('a request that no route takes', () => {
  it('is a 404, a 405 with Allow or a 421, as problem+json, and reaches no origin', async () => {
    const { ask, origin } = await world(
      'path: /decks, methods: [GET, HEAD]',
      'path: /:any, methods: [DELETE]',
      'path: /hosted, methods: [PUT], host: a.test',
    )
    const none = await ask('/no/such/path')
    expect(none.status).toBe(404)
    expect(none.headers['content-type']).toBe('application/problem+json')
    expect(none.headers['cache-control']).toBe('no-store')
    expect(JSON.parse(none.text)).toEqual({
      type: 'urn:weirgate:error:no_route',
      title: 'No Route',
      status: 404,
      code: 'no_route',
      detail: 'No route is for this path.',
      request_id: none.headers['x-request-id'],
    })
    const wrong = await ask('/decks', { method: 'POST', body: 'x' })
    expect([wrong.status, wrong.headers.allow]).toEqual([405, 'GET, HEAD, DELETE'])
    expect(JSON.parse(wrong.text)).toMatchObject({
      code: 'method_not_allowed',
      detail: 'This path has: GET, HEAD, DELETE.',
    })
    const hosted = await ask('/hosted', { method: 'PATCH', headers: { Host: 'a.test' } })
    expect([hosted.status, hosted.headers.allow]).toEqual([405, 'PUT, DELETE'])
    expect(origin.seen).toHaveLength(0)
  })

  it('is a 421 where every route has a host and none has this one: never the first route', async () => {
    const { ask, gateway, origin } = await world('path: /*, host: a.test', 'path: /*, host: "*.b.test"')
    for (const host of ['c.test', 'b.test', 'a.test.evil', '127.0.0.1']) {
      const answer = await ask('/x', { headers: { Host: host } })
      expect([host, answer.status, (JSON.parse(answer.text) as { code: string }).code]).toEqual([
        host,
        421,
        'unknown_host',
      ])
    }
    const ancient = await converse(gateway.port, 'GET /x HTTP/1.0\r\n\r\n')
    await ancient.end()
    expect(ancient.received).toMatch(/^HTTP\/1\.1 421 /)
    expect(origin.seen).toHaveLength(0)
  })

  it('leaves the connection as it was: the next one on it is answered', async () => {
    const { gateway } = await world('path: /x')
    const client = await converse(gateway.port, 'GET /none HTTP/1.1\r\nHost: a.test\r\n\r\n')
    await client.expect('no_route')
    client.send('GET /x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n')
    await client.end()
    expect(client.received).toMatch(/answer 1$/)
  })
})
