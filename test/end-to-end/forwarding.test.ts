// What an origin sees of a client's request, and what a client sees of an origin's answer, byte by byte where it matters.

import http from 'node:http'
import net, { type AddressInfo, type Socket } from 'node:net'
import tls from 'node:tls'
import https from 'node:https'
import { describe, expect, it } from 'vitest'
import { METHODS } from '../../src/http/methods.ts'
import { createCertificate } from '../support/certificate.ts'
import { converse, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { startGateway, until, type TestGateway } from '../support/gateway.ts'
import { startOrigin, startRawOrigin, type Origin, type Script } from '../support/origin.ts'
import { exchange, fieldValues, get } from '../support/exchange.ts'

const closing = closeAfterEach()

interface Setup {
  readonly origin: Origin
  readonly gateway: TestGateway
}

/** route: further options of the one route `/*`; top: further top-level YAML. */
async function setUp(script?: Script, route = '', top = ''): Promise<Setup> {
  const origin = closing(await startOrigin(script))
  const gateway = closing(await startGateway(yaml(origin.url, route, top)))
  return { origin, gateway }
}

const yaml = (url: string, route = '', top = ''): string => `
upstreams: {app: {targets: ["${url}"]}}
defaults: {upstream: app}
${top}
routes: [{path: /*${route === '' ? '' : `, ${route}`}}]
`

/** Answers each request with these bytes, and records the heads it saw. */
async function setUpRaw(answer: string | Buffer, route = ''): Promise<{ gateway: TestGateway; heads: string[] }> {
  const heads: string[] = []
  const origin = closing(
    await startRawOrigin((socket, head) => {
      heads.push(head)
      socket.write(typeof answer === 'string' ? Buffer.from(answer, 'latin1') : answer)
    }),
  )
  return { gateway: closing(await startGateway(yaml(origin.url, route))), heads }
}

/** Names of the fields that the origin saw, lower case. */
const namesSeen = (origin: Origin): string[] =>
  (origin.seen[0]?.rawHeaders ?? []).filter((_, i) => i % 2 === 0).map((name) => name.toLowerCase())

/** Values that the origin saw of a field. */
const valuesSeen = (origin: Origin, lowerName: string, request = 0): string[] =>
  (origin.seen[request]?.rawHeaders ?? []).filter(
    (_, i, all) => i % 2 === 1 && (all[i - 1] as string).toLowerCase() === lowerName,
  )

describe('fields of a request', () => {
  it.each([
    ['Connection', 'Connection: keep-alive, X-Private', 'connection', ['keep-alive']],
    ['a field that Connection names', 'Connection: x-private', 'x-private', []],
    ['a field that a second Connection line names', 'Connection: foo', 'foo', []],
    ['Keep-Alive', 'Keep-Alive: timeout=5', 'keep-alive', []],
    ['Proxy-Connection', 'Proxy-Connection: keep-alive', 'proxy-connection', []],
    ['Proxy-Authorization', 'Proxy-Authorization: Basic eDp5', 'proxy-authorization', []],
    ['Proxy-Anything', 'Proxy-Anything: x', 'proxy-anything', []],
    ['Proxy, which CGI makes HTTP_PROXY', 'Proxy: http://evil.test', 'proxy', []],
    ['TE', 'TE: trailers', 'te', []],
    ['Trailer', 'Trailer: X-Sum', 'trailer', []],
    ['Upgrade', 'Upgrade: h2c', 'upgrade', []],
    ['HTTP2-Settings', 'HTTP2-Settings: AAMAAABk', 'http2-settings', []],
    ['a name with an underscore', 'X_Custom: 1', 'x_custom', []],
  ])('[RFC 9110 §7.6.1] end here: %s', async (_what, line, name, expected) => {
    const { origin, gateway } = await setUp()
    const fields = [line, 'X-Private: secret', 'Foo: bar', 'X-Public: yes']
    expect((await exchange(gateway.port, get('/', fields))).status).toBe(200)
    expect(valuesSeen(origin, name)).toEqual(expected)
    expect(valuesSeen(origin, 'x-public')).toEqual(['yes'])
  })

  it.each([
    'host',
    'content-length',
    'authorization',
    'cookie',
    'x-forwarded-for',
    'X-Forwarded-Anything',
    'Forwarded',
    'via',
    'X-Real-IP',
    'x-request-id',
  ])('[RFC 9110 §7.6.1] refuses a Connection that names %s', async (name) => {
    const { origin, gateway } = await setUp()
    const answer = await exchange(gateway.port, get('/', [`Connection: ${name}`]))
    expect(answer.status).toBe(400)
    expect(answer.body).toContain('bad_message')
    expect(origin.seen).toEqual([])
  })

  it.each([
    'X_Forwarded_For: 1.2.3.4',
    'Transfer_Encoding: chunked',
    'Content_Length: 5',
    'x-real_ip: 1.2.3.4',
    'AUTHORIZATION_: x',
  ])('refuses or drops an underscore name that a backend could read as a protected one: %s', async (line) => {
    const { origin, gateway } = await setUp()
    const { status } = await exchange(gateway.port, get('/', [line]))
    const isProtected = !line.startsWith('AUTHORIZATION_')
    expect(status).toBe(isProtected ? 400 : 200)
    expect(namesSeen(origin).filter((name) => name.includes('_'))).toEqual([])
  })

  it.each([
    'X-Forwarded-For: 6.6.6.6',
    'X-Forwarded-Host: evil.test',
    'X-Forwarded-Proto: https',
    'X-Forwarded-Port: 1',
    'X-Forwarded-Prefix: /admin',
    'X-Forwarded-User: root',
    'Forwarded: for=6.6.6.6;host=evil.test',
    'X-Real-IP: 6.6.6.6',
    'X-Client-IP: 6.6.6.6',
    'True-Client-IP: 6.6.6.6',
    'CF-Connecting-IP: 6.6.6.6',
    'X-Original-URL: /admin',
    'X-Rewrite-URL: /admin',
    'X-Override-URL: /admin',
    'X-Script-Name: /admin',
    'X-Matched-Path: /admin',
    'X-Middleware-Subrequest: middleware',
    'X-HTTP-Method-Override: DELETE',
    'X-Request-Id: mine',
  ])('are not believed from an untrusted peer: %s', async (line) => {
    const { origin, gateway } = await setUp()
    await exchange(gateway.port, get('/', [line]))
    const value = line.slice(line.indexOf(':') + 2)
    expect(origin.seen[0]?.rawHeaders).not.toContain(value)
    expect(valuesSeen(origin, 'x-forwarded-for')).toEqual(['127.0.0.1'])
    expect(valuesSeen(origin, 'x-forwarded-proto')).toEqual(['http'])
    expect(valuesSeen(origin, 'x-forwarded-host')).toEqual(['shop.test'])
    expect(valuesSeen(origin, 'forwarded')).toEqual(['for=127.0.0.1;host=shop.test;proto=http'])
  })

  it('are believed and carried on from a trusted peer', async () => {
    const { origin, gateway } = await setUp(undefined, '', 'trustedProxies: [127.0.0.1]')
    const fields = [
      'X-Forwarded-For: 192.0.2.7',
      'X-Forwarded-Proto: https',
      'X-Forwarded-Host: www.shop.test',
      'X-Real-IP: 192.0.2.7',
      'X-Request-Id: edge-1',
    ]
    const answer = await exchange(gateway.port, get('/', fields))
    expect(valuesSeen(origin, 'x-forwarded-for')).toEqual(['192.0.2.7, 127.0.0.1'])
    expect(valuesSeen(origin, 'x-forwarded-proto')).toEqual(['https'])
    expect(valuesSeen(origin, 'x-forwarded-host')).toEqual(['www.shop.test'])
    expect(valuesSeen(origin, 'x-real-ip')).toEqual(['192.0.2.7'])
    expect(valuesSeen(origin, 'forwarded')).toEqual(['for=192.0.2.7, for=127.0.0.1;host=shop.test;proto=http'])
    expect(valuesSeen(origin, 'x-request-id')).toEqual(['edge-1'])
    expect(answer.values('x-request-id')).toEqual(['edge-1'])
  })

  it('carry the id that the client is told', async () => {
    const { origin, gateway } = await setUp()
    const answer = await exchange(gateway.port, get('/'))
    expect(valuesSeen(origin, 'x-request-id')).toEqual(answer.values('x-request-id'))
    expect(valuesSeen(origin, 'x-request-id')).toHaveLength(1)
  })

  it('[RFC 9110 §7.6.3] name the gateway in Via, after those that were before', async () => {
    const { origin, gateway } = await setUp()
    await exchange(gateway.port, get('/', ['Via: 1.0 fred, 1.1 edge']))
    expect(valuesSeen(origin, 'via')).toEqual([
      expect.stringMatching(/^1\.0 fred, 1\.1 edge, 1\.1 weirgate-[0-9a-f]{8}$/),
    ])
  })

  it('[RFC 9110 §7.6.3] end a loop with 508', async () => {
    let second: TestGateway | null = null
    const origin = closing(
      await startOrigin((message, response) => {
        // Sends the request back to the gateway that it came from, as a misconfigured backend would.
        const headers = { ...message.headers, connection: 'close' }
        http.get(`${second?.url}${message.url}`, { headers, agent: false }, (answer) => {
          response.writeHead(answer.statusCode ?? 0)
          answer.pipe(response)
        })
      }),
    )
    second = closing(await startGateway(yaml(origin.url)))
    const answer = await request(second.url)
    expect(answer.status).toBe(508)
    expect(answer.text).toContain('loop_detected')
    expect(origin.seen).toHaveLength(1)
  })

  it('keep their order, their case and their repetitions', async () => {
    const { origin, gateway } = await setUp()
    await exchange(gateway.port, get('/', ['X-B: 1', 'x-a: 2', 'X-B: 3', 'X-A:', 'X-B: 1']))
    const { rawHeaders = [] } = origin.seen[0] ?? {}
    const own = rawHeaders.flatMap((name, i) =>
      i % 2 === 0 && /^x-[ab]$/i.test(name) ? [[name, rawHeaders[i + 1]]] : [],
    )
    expect(own).toEqual([
      ['X-B', '1'],
      ['x-a', '2'],
      ['X-B', '3'],
      ['X-A', ''],
      ['X-B', '1'],
    ])
  })

  it('[RFC 9110 §5.5] keep every byte of their values, obs-text too', async () => {
    const { gateway, heads } = await setUpRaw('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
    const every = Buffer.from(Array.from({ length: 128 }, (_, i) => 128 + i)).toString('latin1')
    await exchange(gateway.port, Buffer.from(get('/', [`X-Bytes: a\tb ${every}`]), 'latin1'))
    expect(fieldValues(heads[0] ?? '', 'x-bytes')).toEqual([`a\tb ${every}`])
  })

  it('pass names that objects have by nature', async () => {
    const { origin, gateway } = await setUp()
    const names = ['constructor', 'prototype', 'hasOwnProperty', 'toString', 'valueOf']
    await exchange(
      gateway.port,
      get(
        '/',
        names.map((name) => `${name}: x`),
      ),
    )
    for (const name of names) expect(valuesSeen(origin, name.toLowerCase())).toEqual(['x'])
  })
})

describe('the Host field', () => {
  it("is the client's for a target by http, without the default port and in lower case", async () => {
    const { origin, gateway } = await setUp()
    await exchange(gateway.port, 'GET / HTTP/1.1\r\nHost: Shop.Test:80\r\nConnection: close\r\n\r\n')
    expect(valuesSeen(origin, 'host')).toEqual(['shop.test'])
  })

  it("[RFC 9112 §3.2] is the target's own where an HTTP/1.0 client sent none", async () => {
    const { origin, gateway } = await setUp()
    await exchange(gateway.port, 'GET / HTTP/1.0\r\n\r\n')
    expect(valuesSeen(origin, 'host')).toEqual([`127.0.0.1:${origin.port}`])
  })

  it.each([
    ['set', 'headers: {request: {set: {Host: inside.test}}}', () => 'inside.test'],
    ['set in lower case', 'headers: {request: {set: {host: inside.test}}}', () => 'inside.test'],
    ['removed: the target gets its own', 'headers: {request: {remove: [Host]}}', (port: number) => `127.0.0.1:${port}`],
  ])('can be %s by a route', async (_how, route, expected) => {
    const { origin, gateway } = await setUp(undefined, route)
    await exchange(gateway.port, get('/'))
    expect(valuesSeen(origin, 'host')).toEqual([expected(origin.port)])
  })
})

describe('a target by https', () => {
  /** An origin for localhost whose certificate this process trusts, unless it is a stranger's. */
  async function startTlsOrigin(
    names: readonly string[] = ['localhost'],
    isTrusted = true,
  ): Promise<{ url: string; host: string; seen: { host: string; name: string }[]; connections: () => number }> {
    const certificate = createCertificate(names)
    if (isTrusted) {
      const before = tls.getCACertificates('default')
      tls.setDefaultCACertificates([...before, certificate.cert])
      closing({ close: () => Promise.resolve(tls.setDefaultCACertificates(before)) })
    }
    const seen: { host: string; name: string }[] = []
    let connections = 0
    const server = https.createServer(certificate, (message, response) => {
      const { servername } = message.socket as tls.TLSSocket & { servername?: string | false }
      seen.push({ host: message.headers.host ?? '', name: String(servername) })
      response.end('secret')
    })
    server.on('secureConnection', () => connections++)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    closing({
      close: () =>
        new Promise((resolve) => {
          server.close(() => resolve())
          server.closeAllConnections()
        }),
    })
    const host = `localhost:${(server.address() as AddressInfo).port}`
    return { url: `https://${host}`, host, seen, connections: () => connections }
  }

  it('gets its own name as Host and as TLS server name, whatever the clients call it', async () => {
    const origin = await startTlsOrigin()
    const gateway = closing(await startGateway(yaml(origin.url)))
    for (const host of ['shop.test', 'other.test', 'shop.test']) {
      const answer = await exchange(gateway.port, `GET / HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`)
      expect([answer.status, answer.body]).toEqual([200, 'secret'])
    }
    expect(origin.seen).toEqual(Array.from({ length: 3 }, () => ({ host: origin.host, name: 'localhost' })))
    expect(origin.connections()).toBe(1)
  })

  it('gets the Hosts that routes set, and still its own TLS server name, on the same connection', async () => {
    const origin = await startTlsOrigin()
    const gateway = closing(
      await startGateway(`
upstreams: {app: {targets: ["${origin.url}"]}}
defaults: {upstream: app}
routes:
  - {path: /a, headers: {request: {set: {Host: a.test}}}}
  - {path: /b, headers: {request: {set: {Host: b.test}}}}
`),
    )
    for (const path of ['/a', '/b', '/a']) expect((await exchange(gateway.port, get(path))).status).toBe(200)
    expect(origin.seen).toEqual(['a.test', 'b.test', 'a.test'].map((host) => ({ host, name: 'localhost' })))
    expect(origin.connections()).toBe(1)
  })

  it.each([
    ['is not trusted', ['localhost'], false, 'self-signed'],
    ['is for another name', ['elsewhere.test'], true, 'altnames'],
  ])('is a 502 upstream_refused when its certificate %s', async (_what, names, isTrusted, cause) => {
    const origin = await startTlsOrigin(names, isTrusted)
    const gateway = closing(await startGateway(yaml(origin.url)))
    for (let i = 0; i < 3; i++) {
      const answer = await request(gateway.url)
      expect(answer.status).toBe(502)
      expect(answer.text).toContain('upstream_refused')
    }
    expect(origin.seen).toEqual([])
    expect((await gateway.requestLines(3))[0]).toMatchObject({
      error: 'upstream_refused',
      cause: expect.stringContaining(cause),
    })
  })
})

describe('the target of a request', () => {
  it.each([
    ['/', '/'],
    ['/a/b?x=1&y=%zz', '/a/b?x=1&y=%zz'],
    ['/a%7Eb/%41', '/a~b/A'],
    ['/a%21b', '/a%21b'],
    ['/%c3%a9', '/%C3%A9'],
    ['//a///b', '/a/b'],
    ['/a;v=1/b', '/a;v=1/b'],
    ['/a?', '/a?'],
    ['/a??b=/../', '/a??b=/../'],
    ['http://shop.test/abs?q', '/abs?q'],
  ])('%s goes over the wire as %s, the same string that was matched', async (sent, expected) => {
    const { gateway, heads } = await setUpRaw('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
    expect((await exchange(gateway.port, get(sent))).status).toBe(200)
    expect(heads[0]?.split('\r\n')[0]).toBe(`GET ${expected} HTTP/1.1`)
    expect(await gateway.requestLines(1)).toMatchObject([
      { path: expect.stringContaining(expected.split('?')[0] ?? '') },
    ])
  })

  it.each(['/a/../b', '/a/%2e%2e/b', '/a%2fb', '/a%5cb', '/a%00b', '/%zz', '/%ff'])(
    '%s never gets to the origin',
    async (path) => {
      const { origin, gateway } = await setUp()
      expect((await exchange(gateway.port, get(path))).status).toBe(400)
      expect(origin.seen).toEqual([])
    },
  )

  it.each([
    ['/api', 'path: /api/*, rewrite: {strip: /api}', '/'],
    ['/api/', 'path: /api/*, rewrite: {strip: /api}', '/'],
    ['/api/x?q=1', 'path: /api/*, rewrite: {strip: /api}', '/x?q=1'],
    ['/api?q=/api/', 'path: /api/*, rewrite: {strip: /api/}', '/?q=/api/'],
    ['/x', 'path: /*, rewrite: {prefix: /v2}', '/v2/x'],
    ['/', 'path: /*, rewrite: {prefix: /v2}', '/v2/'],
    ['/api', 'path: /api/*, rewrite: {strip: /api, prefix: /v2}', '/v2'],
    ['/api/x%20y', 'path: /api/*, rewrite: {strip: /api, prefix: /v2/}', '/v2/x%20y'],
    ['/api/api/x', 'path: /api/*, rewrite: {strip: /api}', '/api/x'],
    ['/a/b/c', 'path: /a/:name/*, rewrite: {strip: /a}', '/b/c'],
  ])('%s is rewritten by {%s} to %s', async (sent, route, expected) => {
    const origin = closing(await startOrigin())
    const gateway = closing(
      await startGateway(
        `upstreams: {app: {targets: ["${origin.url}"]}}\ndefaults: {upstream: app}\nroutes: [{${route}}]`,
      ),
    )
    await exchange(gateway.port, get(sent))
    expect(origin.seen.map(({ url }) => url)).toEqual([expected])
  })
})

describe("a route's header edits", () => {
  it('set and remove fields both ways, and only the fields they name', async () => {
    const { origin, gateway } = await setUp(
      (_message, response) =>
        response
          .writeHead(200, ['Server', 'apache', 'X-Powered-By', 'php', 'X-Mine', 'a', 'X-Mine', 'b', 'X-Keep', 'k'])
          .end('ok'),
      `headers: {request: {set: {X-Api-Key: s3cret, user-agent: gw}, remove: [Cookie]},
        response: {set: {X-Mine: once}, remove: [server, X-POWERED-BY]}}`,
    )
    const fields = ['X-Api-Key: guess', 'x-api-key: guess2', 'User-Agent: curl', 'Cookie: a=b', 'Accept: */*']
    const answer = await exchange(gateway.port, get('/', fields))
    expect(valuesSeen(origin, 'x-api-key')).toEqual(['s3cret'])
    expect(valuesSeen(origin, 'user-agent')).toEqual(['gw'])
    expect(valuesSeen(origin, 'cookie')).toEqual([])
    expect(valuesSeen(origin, 'accept')).toEqual(['*/*'])
    expect(['server', 'x-powered-by', 'x-mine', 'x-keep'].map(answer.values)).toEqual([[], [], ['once'], ['k']])
  })
})

describe('fields of an answer', () => {
  it.each([
    ['Connection: x-private', 'x-private'],
    ['Keep-Alive: timeout=5', 'keep-alive'],
    ['Proxy-Connection: keep-alive', 'proxy-connection'],
    ['Proxy-Authenticate: Basic', 'proxy-authenticate'],
    ['Proxy-Anything: x', 'proxy-anything'],
    ['TE: trailers', 'te'],
    ['Trailer: X-Sum', 'trailer'],
    ['Upgrade: h2c', 'upgrade'],
    ['Alt-Svc: h3=":443"', 'alt-svc'],
    ['Surrogate-Control: max-age=5', 'surrogate-control'],
  ])('[RFC 9110 §7.6.1] end here: %s', async (line, name) => {
    const { gateway } = await setUpRaw(
      `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n${line}\r\nX-Private: x\r\nX-Public: y\r\n\r\nok`,
    )
    const answer = await exchange(gateway.port, get('/'))
    expect(answer.values(name)).toEqual([])
    expect(answer.values('x-public')).toEqual(['y'])
    expect(answer.values('connection')).toEqual(['close'])
    expect(answer.body).toBe('ok')
  })

  it('[RFC 6265 §3] keep Set-Cookie lines apart, and every other field in order and case', async () => {
    const { gateway } = await setUpRaw(
      'HTTP/1.1 200 OK\r\nSet-Cookie: a=1; Path=/\r\nX-B: 1\r\nx-b: 2\r\nSet-Cookie: b=2, c\r\nContent-Length: 0\r\nset-cookie: a=1\r\n\r\n',
    )
    const { head } = await exchange(gateway.port, get('/'))
    const own = head.split('\r\n').filter((line) => /^(set-cookie|x-b):/i.test(line))
    expect(own).toEqual(['Set-Cookie: a=1; Path=/', 'X-B: 1', 'x-b: 2', 'Set-Cookie: b=2, c', 'set-cookie: a=1'])
  })

  it('[RFC 9110 §5.5] keep every byte of their values, obs-text too', async () => {
    const every = Buffer.from(Array.from({ length: 128 }, (_, i) => 128 + i)).toString('latin1')
    const { gateway } = await setUpRaw(`HTTP/1.1 200 OK\r\nX-Bytes: a\tb ${every}\r\nContent-Length: 0\r\n\r\n`)
    expect((await exchange(gateway.port, get('/'))).values('x-bytes')).toEqual([`a\tb ${every}`])
  })

  it('pass names that objects have by nature', async () => {
    const { gateway } = await setUpRaw(
      'HTTP/1.1 200 OK\r\nconstructor: x\r\n__proto__: y\r\ntoString: z\r\nContent-Length: 0\r\n\r\n',
    )
    const answer = await exchange(gateway.port, get('/'))
    expect(['constructor', '__proto__', 'tostring'].map(answer.values)).toEqual([['x'], ['y'], ['z']])
  })

  it("[RFC 9110 §7.6.3] name the gateway in Via, and carry its id and time in place of the origin's", async () => {
    const { gateway } = await setUpRaw(
      'HTTP/1.1 200 OK\r\nVia: 1.1 inner\r\nX-Request-Id: theirs\r\nX-Process-Time: 5ms\r\nContent-Length: 0\r\n\r\n',
    )
    const answer = await exchange(gateway.port, get('/'))
    expect(answer.values('via')).toEqual(['1.1 inner', '1.1 weirgate'])
    expect(answer.values('x-request-id')).toEqual([expect.not.stringMatching('theirs')])
    expect(answer.values('x-process-time')).toEqual([expect.stringMatching(/^\d+\.\d\dms$/)])
  })
})

describe('answers without content', () => {
  it.each([
    ['[RFC 9110 §9.3.2] to HEAD, with a length', 'HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 42\r\n\r\n', ['42']],
    [
      '[RFC 9110 §9.3.2] to HEAD, chunked: none is made up',
      'HEAD',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
      [],
    ],
    ['[RFC 9110 §9.3.2] to HEAD, without framing', 'HEAD', 'HTTP/1.1 200 OK\r\nX: y\r\n\r\n', []],
    ['[RFC 9110 §8.6] 204', 'GET', 'HTTP/1.1 204 No Content\r\n\r\n', []],
    [
      '[RFC 9110 §8.6] 204 that gives a length nonetheless',
      'DELETE',
      'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n',
      [],
    ],
    ['[RFC 9110 §15.4.5] 304 without a length', 'GET', 'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n', []],
    [
      "[RFC 9110 §15.4.5] 304 with the representation's length",
      'GET',
      'HTTP/1.1 304 Not Modified\r\nContent-Length: 42\r\n\r\n',
      ['42'],
    ],
    ['200 of no bytes', 'GET', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', ['0']],
    ['200 of no chunks', 'GET', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', ['0']],
  ])('%s', async (_what, method, bytes, lengths) => {
    const { gateway } = await setUpRaw(bytes)
    const answer = await exchange(gateway.port, get('/').replace('GET', method))
    expect(answer.status).toBe(Number(bytes.slice(9, 12)))
    expect(answer.values('content-length')).toEqual(lengths)
    expect(answer.body).toBe('')
  })

  it("leave the client's connection in use", async () => {
    const { origin, gateway } = await setUp((message, response) => {
      response.statusCode = message.url === '/204' ? 204 : 200
      response.end(message.method === 'HEAD' || message.url === '/204' ? undefined : 'body')
    })
    const client = await converse(gateway.port)
    client.send(
      'HEAD /a HTTP/1.1\r\nHost: a\r\n\r\nGET /204 HTTP/1.1\r\nHost: a\r\n\r\nGET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
    )
    await client.end()
    expect(client.received.match(/HTTP\/1\.1 2\d\d/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 204', 'HTTP/1.1 200'])
    expect(client.received.endsWith('\r\n\r\nbody')).toBe(true)
    expect(origin.seen).toHaveLength(3)
  })
})

describe('a request body', () => {
  it.each([
    ['with a length', 'Content-Length: 5\r\n\r\nhello', 'hello', ['5']],
    ['of no bytes', 'Content-Length: 0\r\n\r\n', '', ['0']],
    ['not there', '\r\n', '', ['0']],
  ])('%s arrives with one length', async (_what, rest, body, lengths) => {
    const { origin, gateway } = await setUp()
    await exchange(gateway.port, `POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${rest}`)
    expect((await origin.seen[0]?.body)?.toString()).toBe(body)
    expect(valuesSeen(origin, 'content-length')).toEqual(lengths)
    expect(valuesSeen(origin, 'transfer-encoding')).toEqual([])
  })

  it('[RFC 9112 §6.2] in chunks is framed anew, one way and not two; extensions and trailers end here', async () => {
    const { origin, gateway } = await setUp()
    const chunks = 'Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\nX-Trailer: x\r\n\r\n'
    await exchange(gateway.port, `POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n${chunks}`)
    expect((await origin.seen[0]?.body)?.toString()).toBe('hello')
    const framing = [...valuesSeen(origin, 'content-length'), ...valuesSeen(origin, 'transfer-encoding')]
    expect(framing).toEqual([expect.stringMatching(/^(5|chunked)$/)])
    expect(namesSeen(origin)).not.toContain('x-trailer')
  })

  it.each(['DELETE', 'OPTIONS', 'PATCH', 'PUT', 'QUERY'])('goes along with %s', async (method) => {
    const { origin, gateway } = await setUp()
    const { status } = await request(`${gateway.url}/x`, { method, body: '{"a":1}', headers: { 'Content-Length': 7 } })
    expect(status).toBe(200)
    expect((await origin.seen[0]?.body)?.toString()).toBe('{"a":1}')
  })

  it('[RFC 9110 §10.1.1] is invited by the gateway, and Expect never forwarded', async () => {
    const { origin, gateway } = await setUp()
    const client = await converse(
      gateway.port,
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n',
    )
    await client.expect('HTTP/1.1 100 Continue\r\n\r\n')
    client.send('hello')
    await client.end()
    expect(client.received).toContain('HTTP/1.1 200 OK')
    expect(namesSeen(origin)).not.toContain('expect')
    expect((await origin.seen[0]?.body)?.toString()).toBe('hello')
  })

  it('streams: the origin has the beginning before the client has sent the end', async () => {
    let begun = false
    const { gateway } = await setUp((message, response) => {
      message.once('data', () => (begun = true))
      message.on('end', () => response.end('thanks'))
    })
    const client = await converse(
      gateway.port,
      'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nConnection: close\r\n\r\nfirst',
    )
    await until(() => begun, 'the beginning of the body at the origin')
    client.send('other')
    await client.end()
    expect(client.received.endsWith('thanks')).toBe(true)
  })

  it('waits when the origin does not read: the gateway holds a bounded part of it', async () => {
    const deaf = net.createServer({ pauseOnConnect: true })
    await new Promise<void>((resolve) => deaf.listen(0, '127.0.0.1', resolve))
    const sockets: Socket[] = []
    deaf.on('connection', (socket) => sockets.push(socket))
    closing({
      close: () =>
        new Promise((resolve) => {
          deaf.close(() => resolve())
          for (const socket of sockets) socket.destroy()
        }),
    })
    const { port } = deaf.address() as AddressInfo
    const gateway = closing(await startGateway(yaml(`http://127.0.0.1:${port}`, 'maxBody: 1GiB')))
    const total = 64 * 1024 * 1024
    const client = await converse(gateway.port, `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${total}\r\n\r\n`)
    const chunk = Buffer.alloc(256 * 1024, 'x')
    let sent = 0
    // The buffers of the kernel take some; then the client is not read any more, and its own writes wait.
    while (
      sent < total &&
      (await Promise.race([client.flush(chunk).then(() => true), delay(1000).then(() => false)]))
    ) {
      sent += chunk.length
    }
    expect(sent).toBeLessThan(total / 2)
    client.destroy()
  })
})

describe('the body of an answer', () => {
  it('streams: the client has the beginning before the origin has sent the end', async () => {
    let finish = (): void => {}
    const { gateway } = await setUp((_message, response) => {
      response.write('first')
      finish = () => void response.end('last')
    })
    const client = await converse(gateway.port, get('/'))
    await client.expect('first')
    finish()
    await client.end()
    expect(client.received.endsWith('4\r\nlast\r\n0\r\n\r\n')).toBe(true)
  })

  it('waits when the client does not read: the gateway holds a bounded part of it', async () => {
    let written = 0
    const total = 256 * 1024 * 1024
    const { gateway } = await setUp((_message, response) => {
      const chunk = Buffer.alloc(256 * 1024, 'x')
      const more = () => {
        while (written < total && !response.destroyed) {
          written += chunk.length
          if (!response.write(chunk)) return
        }
        response.end()
      }
      response.on('drain', more)
      more()
    })
    const client = await converse(gateway.port)
    client.pause()
    client.send(get('/'))
    await until(() => written > 0, 'the answer to begin')
    let last = -1
    while (last !== written) {
      last = written
      await delay(300)
    }
    expect(written).toBeLessThan(total / 4)
    client.destroy()
  })

  it('of 8 MiB arrives whole, in chunks and with a length', async () => {
    const body = Buffer.alloc(8 * 1024 * 1024, 'abcdefgh')
    const { gateway } = await setUp((message, response) => {
      if (message.url === '/length') response.setHeader('Content-Length', body.length)
      response.end(body)
    })
    for (const path of ['/length', '/chunks']) {
      const answer = await request(gateway.url + path)
      expect(answer.body.equals(body)).toBe(true)
    }
  })

  it('is sent by its end of connection to an HTTP/1.0 client where the origin gave no length', async () => {
    const { gateway } = await setUp((_message, response) => {
      response.write('first ')
      response.end('last')
    })
    const client = await converse(gateway.port, 'GET / HTTP/1.0\r\nHost: a\r\n\r\n')
    await client.end()
    expect(client.received.endsWith('\r\n\r\nfirst last')).toBe(true)
    expect(client.received.toLowerCase()).not.toContain('transfer-encoding')
    expect(client.closedBy).toBe('end')
  })

  it("that ends with the origin's connection is whole", async () => {
    const origin = closing(await startRawOrigin((socket) => socket.end('HTTP/1.1 200 OK\r\n\r\nuntil the end')))
    const gateway = closing(await startGateway(yaml(origin.url)))
    const answer = await request(gateway.url)
    expect(answer.text).toBe('until the end')
  })
})

describe('a method', () => {
  it('[RFC 9110 §9.1] is forwarded as it is, with the body that came with it', async () => {
    const { origin, gateway } = await setUp()
    const methods = METHODS.filter((method) => method !== 'GET' && method !== 'HEAD')
    for (const method of methods) {
      const body = `<${method}>`
      const headers = { 'Content-Length': String(body.length) }
      expect((await request(`${gateway.url}/x`, { method, headers, body })).status).toBe(200)
    }
    const seen = await Promise.all(origin.seen.map(async ({ method, body }) => [method, String(await body)]))
    expect(seen).toEqual(methods.map((method) => [method, `<${method}>`]))
  })
})

describe('events', () => {
  it('come to the client one by one as the origin sends them, the head before the first', async () => {
    let send = (_event: string): void => {}
    const { gateway } = await setUp((_message, response) => {
      response.writeHead(200, { 'Content-Type': 'text/event-stream' })
      response.flushHeaders()
      send = (event) => void response.write(`data: ${event}\n\n`)
    })
    const client = await converse(gateway.port, get('/'))
    await client.expect('Content-Type: text/event-stream')
    for (const event of ['one', 'two', 'three']) {
      expect(client.received).not.toContain(event)
      send(event)
      await client.expect(`data: ${event}\n\n`)
    }
    client.destroy()
  })
})

describe('interim answers and trailers', () => {
  it('[RFC 9110 §15.2] come to the client at once', async () => {
    let finish = (): void => {}
    const { gateway } = await setUp((_message, response) => {
      response.writeProcessing()
      response.writeEarlyHints({ link: ['</a.css>; rel=preload', '</b.css>; rel=preload'], 'X-Own': 'a' })
      response.writeInformation(170, { 'X-Progress': '50%' })
      finish = () => void response.end('final')
    })
    const client = await converse(gateway.port, get('/'))
    const received = await client.expect('50%\r\n\r\n')
    expect(received).toBe(
      [
        'HTTP/1.1 102 Processing\r\n\r\n',
        'HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload, </b.css>; rel=preload\r\nX-Own: a\r\n\r\n',
        'HTTP/1.1 170 unknown\r\nX-Progress: 50%\r\n\r\n',
      ].join(''),
    )
    finish()
    await client.end()
    expect(client.received).toContain('HTTP/1.1 200 OK')
    expect(client.received.split('HTTP/1.1 200 OK')[1]).not.toMatch(/x-own|link|x-progress/i)
  })

  it.each<[string, string[], string[]]>([
    ['a list in one line', ['Link: </a>, </b>; title="a b"'], ['Link: </a>, </b>; title="a b"']],
    ['lines that repeat', ['Link: </a>', 'X-A: 1', 'link: </b>'], ['Link: </a>', 'X-A: 1', 'link: </b>']],
    ['no link', ['X-Other: 1'], ['X-Other: 1']],
    ['no field', [], []],
    ['what is no link', ['Link: nonsense'], ['Link: nonsense']],
    ['[RFC 6265 §3] a cookie, which is for this client alone', ['Set-Cookie: a=1'], ['Set-Cookie: a=1']],
    ['every byte of a value', ['X-A: \x80\xff\t~'], ['X-A: \x80\xff\t~']],
    [
      '[RFC 9110 §7.6.1] what ends at this hop',
      ['Keep-Alive: timeout=5', 'Te: x', 'Proxy-Connection: x', 'X-A: 1'],
      ['X-A: 1'],
    ],
    ['what Connection names', ['Connection: X-B', 'X-B: 1', 'X-A: 1'], ['X-A: 1']],
    ['[RFC 9110 §8.6] a length', ['Content-Length: 5', 'X-A: 1'], ['X-A: 1']],
    ['what the gateway says itself', ['X-Request-Id: a', 'X-Process-Time: 1ms', 'X-A: 1'], ['X-A: 1']],
    ["what the route's edits say", ['X-Gone: 1', 'X-A: 1'], ['X-A: 1']],
  ])('of 103 pass with %s', async (_what, lines, relayed) => {
    const { gateway } = await setUpRaw(
      `HTTP/1.1 103 Early Hints\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok`,
      'headers: {response: {remove: [X-Gone]}}',
    )
    const client = await converse(gateway.port, get('/'))
    await client.end()
    const [interim, final, ...more] = client.received.split(/(?<=\r\n\r\n)(?=HTTP)/)
    expect(interim?.split('\r\n')).toEqual(['HTTP/1.1 103 Early Hints', ...relayed, '', ''])
    expect(final).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nok$/)
    expect(more).toEqual([])
  })

  it('[RFC 9110 §15.2] an HTTP/1.0 client gets none', async () => {
    const { gateway } = await setUpRaw(
      'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
    )
    const client = await converse(gateway.port, 'GET / HTTP/1.0\r\nHost: a\r\n\r\n')
    await client.end()
    expect(client.received).toMatch(/^HTTP\/1\.1 200 OK/)
  })

  it('trailers are dropped, and not announced', async () => {
    const { gateway } = await setUpRaw(
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n',
    )
    const client = await converse(gateway.port, get('/'))
    await client.end()
    expect(client.received).not.toMatch(/x-sum|set-cookie/i)
    expect(client.received).toMatch(/ok(\r\n0\r\n\r\n)?$/)
  })
})

const delay = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
