import { request } from 'node:http'
import type { IncomingHttpHeaders, OutgoingHttpHeaders } from 'node:http'
import { connect } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { createAdminServer } from '../../src/admin/server.ts'
import type { AdminServer } from '../../src/admin/server.ts'
import type { Control } from '../../src/core/control.ts'
import { GatewayError } from '../../src/core/errors.ts'
import { EXPLANATION, HEALTH, STATS, controlWith } from './control.ts'

const TOKEN = 'correct-horse-battery-staple-0123456789'
const JSON_TYPE = { 'Content-Type': 'application/json' }

const opened: AdminServer[] = []
afterEach(async () => {
  for (const server of opened.splice(0)) await server.close()
})

interface Answer {
  status: number
  headers: IncomingHttpHeaders
  text: string
  /** The text as JSON. */
  json: () => Record<string, unknown>
}

async function started(how: { control?: Partial<Control>; token?: string } = {}) {
  const { control, asked } = controlWith(how.control)
  const logged: [string, Record<string, unknown>, string][] = []
  const write = (level: string) => (fields: object, message: string) =>
    void logged.push([level, { ...fields }, message])
  const log = { info: write('info'), warn: write('warn'), error: write('error') }
  const server = createAdminServer(control, { listen: { host: '127.0.0.1', port: 0 }, token: how.token ?? '' }, log)
  opened.push(server)
  const { port } = await server.listen()

  const ask = (method: string, path: string, headers: OutgoingHttpHeaders = {}, body?: string) =>
    new Promise<Answer>((resolve, reject) => {
      const outgoing = request({ port, host: '127.0.0.1', method, path, headers, agent: false }, (response) => {
        let text = ''
        response.setEncoding('utf8')
        response.on('data', (chunk: string) => (text += chunk))
        response.on('error', reject)
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text,
            json: () => JSON.parse(text) as Record<string, unknown>,
          }),
        )
      })
      outgoing.on('error', reject)
      outgoing.end(body)
    })
  /** All that comes back for these bytes, until the server closes. */
  const raw = (bytes: string) =>
    new Promise<string>((resolve) => {
      let got = ''
      const socket = connect(port, '127.0.0.1', () => socket.write(bytes))
      socket.setEncoding('utf8')
      socket.on('data', (chunk: string) => (got += chunk))
      socket.on('error', () => {})
      socket.on('close', () => resolve(got))
    })
  const post = (path: string, body: unknown) => ask('POST', path, JSON_TYPE, JSON.stringify(body))
  return { server, port, ask, raw, post, asked, logged }
}

describe('what can be read', () => {
  it.each([
    ['/health', HEALTH],
    ['/api/stats', STATS],
    ['/api/routes', [expect.objectContaining({ route: '/a', upstream: 'presentation' })]],
    ['/api/upstreams', [expect.objectContaining({ upstream: 'presentation' })]],
    ['/api/config', { admin: { token: '***' } }],
  ])('GET %s answers with what the gateway says', async (path, expected) => {
    const { ask } = await started()
    const answer = await ask('GET', path)
    expect(answer.status).toBe(200)
    expect(answer.headers['content-type']).toBe('application/json')
    expect(answer.json()).toEqual(expected)
  })

  it('GET /metrics has the content type that Prometheus expects', async () => {
    const { ask } = await started()
    const answer = await ask('GET', '/metrics')
    expect(answer.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(answer.text).toBe('up 1\n')
  })

  it('GET / lists every endpoint with its method and a summary', async () => {
    const { ask } = await started()
    const { endpoints } = (await ask('GET', '/')).json() as { endpoints: Record<string, string>[] }
    expect(endpoints.map(({ method, path }) => `${method} ${path}`)).toEqual([
      'GET /',
      'GET /health',
      'GET /metrics',
      'GET /api/stats',
      'GET /api/routes',
      'GET /api/upstreams',
      'GET /api/config',
      'POST /api/explain',
      'POST /api/cache/purge',
      'GET /api/cache/entry',
      'POST /api/idempotency/free',
      'GET /api/limits',
      'GET /api/limits/:policy',
      'DELETE /api/limits/:policy',
      'POST /api/limits/:policy/refund',
      'GET /api/limits/:policy/top',
      'POST /api/reload',
    ])
    for (const { summary } of endpoints) expect(summary).toMatch(/\w{3}/)
  })

  it('a query changes nothing', async () => {
    const { ask } = await started()
    expect((await ask('GET', '/api/stats?pretty')).status).toBe(200)
  })

  it('[RFC 9110 §9.3.2] HEAD has the head of GET and no body', async () => {
    const { ask } = await started()
    const [head, get] = [await ask('HEAD', '/api/stats'), await ask('GET', '/api/stats')]
    expect(head.status).toBe(200)
    expect(head.text).toBe('')
    expect(head.headers['content-length']).toBe(get.headers['content-length'])
  })

  it.each([
    ['ok', 200],
    ['degraded', 200],
    ['draining', 503],
  ] as const)('/health while %s is a %i', async (status, code) => {
    const { ask } = await started({ control: { health: () => ({ ...HEALTH, status }) } })
    expect((await ask('GET', '/health')).status).toBe(code)
  })
})

describe('every answer', () => {
  it.each([
    ['GET', '/', {}],
    ['GET', '/nothing', {}],
    ['DELETE', '/health', {}],
    ['OPTIONS', '/api/reload', {}],
    ['GET', '/', { Host: 'evil.test' }],
    ['GET', '/', { Origin: 'http://evil.test' }],
    ['POST', '/api/reload', {}],
  ])('%s %s with %j forbids storing and sniffing, and has no CORS field', async (method, path, headers) => {
    const { ask } = await started()
    const answer = await ask(method, path, headers)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.headers['x-content-type-options']).toBe('nosniff')
    expect(Object.keys(answer.headers).filter((name) => name.startsWith('access-control'))).toEqual([])
  })

  it('is a plain 400 where the message is not HTTP', async () => {
    const { raw } = await started()
    expect(await raw('what?\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 400 Bad Request\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n/,
    )
  })

  it('leaves the connection open where the request was read to its end', async () => {
    const { raw } = await started()
    const get = 'GET /metrics HTTP/1.1\r\nHost: localhost\r\n'
    const text = await raw(`${get}\r\n${get}Connection: close\r\n\r\n`)
    expect(text.match(/HTTP\/1\.1 200 OK/g)).toHaveLength(2)
  })
})

describe('what is not there', () => {
  it('is a 404 as problem+json', async () => {
    const { ask } = await started()
    const answer = await ask('GET', '/api/nothing')
    expect(answer.headers['content-type']).toBe('application/problem+json')
    expect(answer.json()).toEqual({
      type: 'about:blank',
      title: 'Not Found',
      status: 404,
      detail: 'There is no such endpoint; GET / lists what there is.',
    })
  })

  it.each([
    ['POST', '/api/stats', 'GET, HEAD'],
    ['DELETE', '/', 'GET, HEAD'],
    ['GET', '/api/reload', 'POST'],
    ['OPTIONS', '/api/cache/purge', 'POST'],
  ])('[RFC 9110 §15.5.6] %s %s is a 405 with Allow: %s', async (method, path, allow) => {
    const { ask } = await started()
    const answer = await ask(method, path)
    expect(answer.status).toBe(405)
    expect(answer.headers['allow']).toBe(allow)
  })
})

describe('with a token', () => {
  it('everything but /health asks for it, what is not there included', async () => {
    const { ask, post, asked } = await started({ token: TOKEN })
    expect((await ask('GET', '/health')).status).toBe(200)
    for (const path of ['/', '/metrics', '/api/config', '/nothing']) {
      const answer = await ask('GET', path)
      expect(answer.status).toBe(401)
      expect(answer.headers['www-authenticate']).toBe('Bearer realm="weirgate admin"')
      expect(answer.headers['content-type']).toBe('application/problem+json')
    }
    expect((await post('/api/cache/purge', { urls: ['/a'] })).status).toBe(401)
    expect(asked).toEqual([])
  })

  it('the right one opens, whatever the Host', async () => {
    const { ask } = await started({ token: TOKEN })
    const headers = { Authorization: `Bearer ${TOKEN}`, Host: 'gateway.example' }
    expect((await ask('GET', '/api/stats', headers)).status).toBe(200)
  })

  it('ten wrong ones lock out, and the log has no token', async () => {
    const { ask, logged } = await started({ token: TOKEN })
    for (let i = 0; i < 10; i++) {
      expect((await ask('GET', '/metrics', { Authorization: 'Bearer guess-of-a-stranger' })).status).toBe(401)
    }
    const locked = await ask('GET', '/metrics', { Authorization: `Bearer ${TOKEN}` })
    expect(locked.status).toBe(429)
    expect(Number(locked.headers['retry-after'])).toBeGreaterThan(50)
    expect(logged[0]).toEqual([
      'warn',
      expect.objectContaining({ client_ip: '127.0.0.1', method: 'GET', path: '/metrics', status_code: 401 }),
      'Admin request refused',
    ])
    expect(JSON.stringify(logged)).not.toMatch(/guess|horse/)
  })
})

describe('a page of another site in the browser of the operator', () => {
  it('gets nothing by rebinding its name to loopback', async () => {
    const { ask } = await started()
    expect((await ask('GET', '/api/config', { Host: 'evil.test:9090' })).status).toBe(421)
  })

  it('gets nothing and changes nothing by requests of its own', async () => {
    const { ask, asked } = await started()
    expect((await ask('GET', '/api/config', { 'Sec-Fetch-Site': 'cross-site' })).status).toBe(403)
    const simple = { Origin: 'http://evil.test', 'Content-Type': 'text/plain' }
    expect((await ask('POST', '/api/reload', simple, '{}')).status).toBe(403)
    const form = { 'Content-Type': 'application/x-www-form-urlencoded' }
    expect((await ask('POST', '/api/reload', form, '{}')).status).toBe(415)
    expect(asked).toEqual([])
  })
})

describe('a body', () => {
  it.each([
    ['no type', {}],
    ['text', { 'Content-Type': 'text/plain' }],
    ['a type that only begins alike', { 'Content-Type': 'application/jsonp' }],
  ])('of %s is a 415', async (_what, headers) => {
    const { ask } = await started()
    expect((await ask('POST', '/api/reload', headers, '{}')).status).toBe(415)
  })

  it('may name its charset', async () => {
    const { ask } = await started()
    expect((await ask('POST', '/api/reload', { 'Content-Type': 'application/json; charset=utf-8' }, '{}')).status).toBe(
      200,
    )
  })

  it('may be empty where nothing needs to be said', async () => {
    const { ask } = await started()
    expect((await ask('POST', '/api/reload', JSON_TYPE)).status).toBe(200)
  })

  it.each([
    ['declared', 'Content-Length: 1048577\r\n\r\n'],
    ['in chunks', `Transfer-Encoding: chunked\r\n\r\n100001\r\n${' '.repeat(0x100001)}\r\n`],
  ])('over 1 MiB, %s, is a 413 before its end, and the connection ends', async (_how, rest) => {
    const { raw } = await started()
    const text = await raw(`POST /api/reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n${rest}`)
    expect(text).toMatch(/^HTTP\/1\.1 413 /)
    expect(text).toContain('\r\nConnection: close\r\n')
  })

  it('of 1 MiB is taken', async () => {
    const { ask } = await started()
    expect((await ask('POST', '/api/reload', JSON_TYPE, `${' '.repeat(1024 ** 2 - 2)}{}`)).status).toBe(200)
  })

  const notJson = /^The body is not JSON: /
  const tooDeep = /^JSON may be 64 levels deep\.$/
  const unknownKey = /Unrecognized key: "x"/

  it.each([
    ['{', notJson],
    ['nonsense', notJson],
    ['{"urls":["/a"]', notJson],
    [`{"x":${'['.repeat(63)}${']'.repeat(63)}}`, unknownKey],
    [`{"x":${'['.repeat(64)}${']'.repeat(64)}}`, tooDeep],
    [`{"x":"${'['.repeat(100)}"}`, unknownKey],
    [String.raw`{"x":"\"${'[{'.repeat(100)}"}`, unknownKey],
  ])('%j is a 400 that says %s', async (body, detail) => {
    const { ask } = await started()
    const answer = await ask('POST', '/api/explain', JSON_TYPE, body)
    expect(answer.status).toBe(400)
    expect(answer.json()['detail']).toMatch(detail)
  })

  it('that is not UTF-8 is a 400', async () => {
    const { port } = await started()
    const answer = await fetch(`http://127.0.0.1:${port}/api/reload`, {
      method: 'POST',
      headers: JSON_TYPE,
      body: Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]),
    })
    expect(answer.status).toBe(400)
  })

  it('that breaks off changes nothing and is no fault', async () => {
    const { port, ask, asked, logged } = await started()
    await new Promise<void>((resolve) => {
      const socket = connect(port, '127.0.0.1', () =>
        socket.write(
          'POST /api/reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{}',
          () => socket.destroy(),
        ),
      )
      socket.on('close', () => resolve())
    })
    expect((await ask('GET', '/health')).status).toBe(200)
    expect(asked).toEqual([])
    expect(logged).toEqual([])
  })
})

describe('POST /api/explain', () => {
  it('hands over method, URL and headers as a flat list, and answers with the explanation', async () => {
    const { post, asked, logged } = await started()
    const answer = await post('/api/explain', {
      method: 'GET',
      url: 'http://gateway.test/a?b=1',
      headers: { Accept: 'text/html', 'X-Tag': ['one', 'two'] },
      body: '{"a": 1}',
    })
    expect(answer.status).toBe(200)
    expect(answer.json()).toEqual(EXPLANATION)
    expect(asked).toEqual([
      [
        'explain',
        {
          method: 'GET',
          url: 'http://gateway.test/a?b=1',
          headers: ['Accept', 'text/html', 'X-Tag', 'one', 'X-Tag', 'two'],
          body: '{"a": 1}',
          client: '127.0.0.1',
        },
      ],
    ])
    expect(logged).toEqual([])
  })

  it.each([
    [{}, 'method: expected a method such as "GET"; url: expected a URL as text'],
    [{ method: 'GE T', url: '/' }, 'method: expected a method such as "GET"'],
    [{ method: 'GET', url: 7 }, 'url: expected a URL as text'],
    [{ method: 'GET', url: 'a' }, 'url: expected "/path" or "http://host/path"'],
    [{ method: 'GET', url: 'ftp://h/a' }, 'url: expected "/path" or "http://host/path"'],
    [{ method: 'GET', url: '/', headers: [] }, 'headers: expected {name: value}'],
    [{ method: 'GET', url: '/', headers: { a: 1 } }, 'headers.a: expected a header value, or a list of them'],
    [{ method: 'GET', url: '/', headers: { 'a b': '1' } }, 'headers.a b: expected a header name'],
    [{ method: 'GET', url: '/', body: {} }, 'body: expected the body as a text'],
    [{ method: 'GET', url: '/', mode: 1 }, 'body: Unrecognized key: "mode"'],
    [[], 'body: Invalid input: expected object, received array'],
  ])('with %j is a 400 that says so', async (body, detail) => {
    const { post, asked } = await started()
    const answer = await post('/api/explain', body)
    expect(answer.status).toBe(400)
    expect(answer.json()['detail']).toBe(detail)
    expect(asked).toEqual([])
  })

  it('refuses a URL that is too long for any request', async () => {
    const { post } = await started()
    const answer = await post('/api/explain', { method: 'GET', url: `/${'a'.repeat(8192)}` })
    expect(answer.status).toBe(400)
    expect(answer.json()['detail']).toBe('url: expected at most 8192 characters')
  })

  it('refuses a line break in a header value', async () => {
    const { post, asked } = await started()
    expect((await post('/api/explain', { method: 'GET', url: '/', headers: { a: 'b\r\nc: d' } })).status).toBe(400)
    expect(asked).toEqual([])
  })

  it('passes on what the gateway refuses in its own words', async () => {
    const explain = () => Promise.reject(new GatewayError('bad_target', 'The path holds a backslash.'))
    const { post } = await started({ control: { explain } })
    const answer = await post('/api/explain', { method: 'GET', url: '/a\\b' })
    expect(answer.status).toBe(400)
    expect(answer.json()['detail']).toBe('The path holds a backslash.')
  })
})

describe('POST /api/cache/purge', () => {
  it('says how many went, and the log says what was asked, without queries', async () => {
    const { post, asked, logged } = await started()
    const urls = ['/a?token=hush', 'https://gateway.test/b']
    const answer = await post('/api/cache/purge', { urls })
    expect(answer.json()).toMatchObject({ purged: 3 })
    expect(asked).toEqual([['purge', { urls }]])
    expect(logged).toEqual([
      [
        'info',
        {
          client_ip: '127.0.0.1',
          method: 'POST',
          path: '/api/cache/purge',
          status_code: 200,
          urls: 2,
          first: ['/a?***', 'https://gateway.test/b'],
          soft: false,
          purged: 3,
          instances: 1,
          unacknowledged: [],
          shared: null,
        },
        'Admin change',
      ],
    ])
  })

  it.each([
    [{}, 'body: expected one of urls, tags, prefix, pattern, all'],
    [{ urls: ['/a'], all: true }, 'body: expected one of urls, tags, prefix, pattern, all'],
    [{ urls: '/a' }, 'urls: expected a list of URLs'],
    [{ urls: [] }, 'urls: expected at least one URL'],
    [{ urls: ['/a', 7] }, 'urls[1]: expected a URL as text'],
    [{ urls: ['/a'], soft: 1 }, 'soft: expected true or false'],
    [{ tags: ['a b'] }, 'tags[0]: expected a tag: 1 to 128 visible ASCII characters'],
    [{ prefix: 'a' }, 'prefix: expected "/path" or "http://host/path"'],
    [{ all: false }, 'all: expected true, or nothing'],
  ])('with %j is a 400 that says so', async (body, detail) => {
    const { post, asked } = await started()
    const answer = await post('/api/cache/purge', body)
    expect(answer.status).toBe(400)
    expect(answer.json()['detail']).toBe(detail)
    expect(asked).toEqual([])
  })
})

describe('the work of one purge', () => {
  it('is bounded to 1000 URLs', async () => {
    const { post, asked } = await started()
    const answer = await post('/api/cache/purge', { urls: Array.from({ length: 1001 }, () => '/a') })
    expect(answer.status).toBe(400)
    expect(answer.json()['detail']).toBe('urls: expected at most 1000 URLs')
    expect(asked).toEqual([])
  })
})

describe('POST /api/reload', () => {
  it('answers 200 where it worked, and the log says so', async () => {
    const { post, logged } = await started()
    const answer = await post('/api/reload', {})
    expect(answer.status).toBe(200)
    expect(answer.json()).toEqual({ ok: true, loaded_at: '2026-01-02T00:00:00.000Z' })
    expect(logged).toEqual([['info', expect.objectContaining({ path: '/api/reload', ok: true }), 'Admin change']])
  })

  it('answers 422 with the errors where the configuration is invalid', async () => {
    const failed = { ok: false, error: 'weirgate.yaml:3:5 routes[0].path: expected a path' } as const
    const { post, logged } = await started({ control: { reload: () => Promise.resolve(failed) } })
    const answer = await post('/api/reload', {})
    expect(answer.status).toBe(422)
    expect(answer.json()).toEqual(failed)
    expect(logged).toEqual([['info', expect.objectContaining({ status_code: 422, ...failed }), 'Admin change']])
  })

  it('takes no options', async () => {
    const { post, asked } = await started()
    expect((await post('/api/reload', { force: true })).status).toBe(400)
    expect(asked).toEqual([])
  })
})

describe('a fault of the gateway', () => {
  it('is a 500 that tells the caller nothing and the log all', async () => {
    const error = new Error('secret internals')
    const stats = () => {
      throw error
    }
    const { ask, logged } = await started({ control: { stats } })
    const answer = await ask('GET', '/api/stats')
    expect(answer.status).toBe(500)
    expect(answer.text).not.toContain('secret')
    expect(logged).toEqual([['error', expect.objectContaining({ path: '/api/stats', error }), 'Admin request failed']])
    expect((await ask('GET', '/health')).status).toBe(200)
  })
})

describe('listening', () => {
  const log = { info: () => {}, warn: () => {}, error: () => {} }

  it.each(['0.0.0.0', '::', '192.0.2.7'])('on %s without a token is refused with the cure', async (host) => {
    const server = createAdminServer(controlWith().control, { listen: { host, port: 0 }, token: '' }, log)
    await expect(server.listen()).rejects.toThrow(/needs a token: set admin\.token .* or listen on 127\.0\.0\.1/)
  })

  it('beyond loopback works with a token', async () => {
    const server = createAdminServer(controlWith().control, { listen: { host: '0.0.0.0', port: 0 }, token: TOKEN }, log)
    opened.push(server)
    expect((await server.listen()).port).toBeGreaterThan(0)
  })

  it('on a port that is taken fails', async () => {
    const { port } = await started()
    const server = createAdminServer(controlWith().control, { listen: { host: '127.0.0.1', port }, token: '' }, log)
    await expect(server.listen()).rejects.toThrow('EADDRINUSE')
  })

  it('ends on close, even while a connection is idle or an answer does not come', async () => {
    let reloading = (): void => {}
    const isReloading = new Promise<void>((resolve) => (reloading = resolve))
    const reload = () => {
      reloading()
      return new Promise<never>(() => {})
    }
    const { server, port } = await started({ control: { reload } })
    const idle = connect(port, '127.0.0.1')
    const waiting = connect(port, '127.0.0.1')
    waiting.write(
      'POST /api/reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}',
    )
    const closed = [idle, waiting].map((socket) => new Promise((resolve) => socket.on('close', resolve)))
    await isReloading
    await server.close()
    await Promise.all(closed)
    await server.close()
    await expect(fetch(`http://127.0.0.1:${port}/health`)).rejects.toThrow('fetch failed')
  })
})
