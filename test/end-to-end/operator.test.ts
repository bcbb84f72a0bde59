// What the operator sees: one log line per request whatever happens, health, metrics, statistics, and an `explain` that
// says what then really comes to pass.

import { SignJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import type { Explanation, Stats } from '../../src/core/control.ts'
import { type Answer, type RequestOptions, converse, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, type Script, closedPort, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

interface World {
  readonly origin: Origin
  readonly gateway: TestGateway
  readonly ask: (path: string, options?: RequestOptions) => Promise<Answer>
  /** GET, or POST where there is a body. */
  readonly admin: (path: string, body?: unknown) => Promise<{ readonly status: number; readonly json: unknown }>
  readonly explain: (asked: object) => Promise<Explanation>
}

/** yaml: all but the upstream `app`, which is the origin. */
async function world(yaml: string, script?: Script): Promise<World> {
  const origin = closing(await startOrigin(script))
  const upstreams = `upstreams: {app: {targets: ["${origin.url}"]}, dead: {targets: ["http://127.0.0.1:${await closedPort()}"]}}`
  const gateway = closing(await startGateway(`${upstreams}\ndefaults: {upstream: app}\n${yaml}`))
  const admin: World['admin'] = async (path, body) => {
    const posted = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
    const { status, text } = await request(gateway.adminUrl + path, body === undefined ? {} : posted)
    return { status, json: JSON.parse(text) as unknown }
  }
  return {
    origin,
    gateway,
    ask: (path, options) => request(gateway.url + path, options),
    admin,
    async explain(asked) {
      const { status, json } = await admin('/api/explain', asked)
      expect(status).toBe(200)
      return json as Explanation
    },
  }
}

const PLAIN = 'routes: [{path: /*}]'

describe('the log line of a request', () => {
  const FIELDS = [
    'timestamp',
    'level',
    'message',
    'request_id',
    'user_id',
    'client_ip',
    'route',
    'method',
    'path',
    'status_code',
    'duration_ms',
    'upstream_ms',
    'cache',
    'cache_reason',
    'limit',
    'bytes',
  ]
  const TABLE = `
limits: {two: {limit: 2, window: 1m}}
log: {slow: 1h}
routes:
  - {path: /cached, cache: {ttl: 1h}}
  - {path: /limited, limits: [two], methods: [GET]}
  - {path: /dead, upstream: dead}
  - {path: /plain/:id}
`

  it('has exactly these fields in this order, and there is one for each request', async () => {
    const { gateway, ask } = await world(TABLE)
    const answers = [
      await ask('/cached'),
      await ask('/cached'),
      await ask('/plain/7?page=2', { method: 'POST', body: 'x' }),
      await ask('/limited'),
      await ask('/limited'),
      await ask('/limited'),
      await ask('/limited', { method: 'PUT' }),
      await ask('/none'),
      await ask('/health'),
      await ask('/dead'),
    ]
    const lines = await gateway.requestLines(answers.length)
    expect(lines).toHaveLength(answers.length)
    for (const [i, line] of lines.entries()) {
      expect(Object.keys(line).filter((name) => name !== 'error' && name !== 'cause')).toEqual(FIELDS)
      expect(line).toMatchObject({
        level: 'INFO',
        message: 'Request completed',
        request_id: answers[i]?.headers['x-request-id'],
        user_id: null,
        client_ip: '127.0.0.1',
        status_code: answers[i]?.status,
        bytes: answers[i]?.body.length,
      })
      expect(line['timestamp']).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
      expect(line['duration_ms']).toBeGreaterThan(0)
    }
    const told = lines.map((line) => [
      line['method'],
      line['path'],
      line['status_code'],
      line['route'],
      line['cache'],
      line['cache_reason'],
      line['limit'],
      line['error'],
    ])
    expect(told).toEqual([
      ['GET', '/cached', 200, '/cached', 'miss', 'absent', null, undefined],
      ['GET', '/cached', 200, '/cached', 'hit', null, null, undefined],
      ['POST', '/plain/7?page=2', 200, '/plain/:id', null, null, null, undefined],
      ['GET', '/limited', 200, 'GET /limited', null, null, null, undefined],
      ['GET', '/limited', 200, 'GET /limited', null, null, null, undefined],
      ['GET', '/limited', 429, 'GET /limited', null, null, 'two', undefined],
      ['PUT', '/limited', 405, null, null, null, null, 'method_not_allowed'],
      ['GET', '/none', 404, null, null, null, null, 'no_route'],
      ['GET', '/health', 200, null, null, null, null, undefined],
      ['GET', '/dead', 502, '/dead', null, null, null, 'upstream_refused'],
    ])
    expect(lines.map((line) => line['upstream_ms'] !== null)).toEqual([
      true,
      false,
      true,
      true,
      true,
      false,
      false,
      false,
      false,
      false,
    ])
  })

  it('comes for requests that cannot be read as well', async () => {
    const { gateway } = await world(TABLE)
    const client = await converse(gateway.port, 'GET /a b c HTTP/1.1\r\nHost: a\r\n\r\n')
    await client.end()
    expect(client.received).toMatch(/^HTTP\/1\.1 400 /)
    const [line] = await gateway.requestLines(1)
    expect(Object.keys(line ?? {})).toEqual([...FIELDS, 'error'])
    expect(line).toMatchObject({ status_code: 400, error: 'bad_message', route: null, client_ip: '127.0.0.1' })
    expect(client.received).toContain(`X-Request-Id: ${String(line?.['request_id'])}\r\n`)
  })

  const silent: Script = () => {}
  const talking: Script = (_incoming, response) => {
    const timer = setInterval(() => response.write('still '), 20)
    response.on('close', () => clearInterval(timer))
  }
  it.each([
    ['before the answer', silent],
    ['in the middle of it', talking],
  ])('says 499 where the client went away %s', async (when, script) => {
    const { origin, gateway } = await world(PLAIN, script)
    const client = await converse(gateway.port, 'GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n')
    await until(() => origin.seen.length === 1, 'the request at the origin')
    if (when === 'in the middle of it') await client.expect('still')
    client.destroy()
    const [line] = await gateway.requestLines(1)
    expect(line).toMatchObject({ status_code: 499, level: 'INFO', route: '/*' })
    expect(Number(line?.['bytes']) > 0).toBe(when === 'in the middle of it')
    expect((await request(`${gateway.url}/health`)).status).toBe(200)
    expect(await gateway.requestLines(2)).toHaveLength(2)
  })

  it('is a WARNING, and says so, where the request took longer than log.slow', async () => {
    const { gateway, ask } = await world(`log: {slow: 20ms}\n${PLAIN}`, (incoming, response) =>
      incoming.url === '/slow' ? void setTimeout(() => response.end(), 40) : response.end(),
    )
    await ask('/slow')
    const [line] = await gateway.requestLines(1)
    expect(line).toMatchObject({ level: 'WARNING', message: 'Slow request' })
    expect(line?.['duration_ms']).toBeGreaterThanOrEqual(20)
    expect(Object.keys(line ?? {})).toEqual(FIELDS)
  })

  it('is not written below log.level; a slow one still is', async () => {
    const quiet = await world(`log: {level: "\${LOG_LEVEL:-warning}", slow: 1h}\n${PLAIN}`)
    await quiet.ask('/x')
    const { gateway } = quiet.gateway
    await until(() => gateway.stats().since_start.total.requests === 1, 'the request to be counted')
    expect(quiet.gateway.log).toEqual([])

    const slow = await world(`log: {level: warning, slow: 20ms}\n${PLAIN}`, (_incoming, response) => {
      setTimeout(() => response.end(), 40)
    })
    await slow.ask('/x')
    expect(await slow.gateway.requestLines(1)).toMatchObject([{ path: '/x', level: 'WARNING' }])
  })

  it('keeps secrets: none from headers or bodies, and masked values of the named query parameters', async () => {
    const { gateway, ask } = await world(PLAIN)
    await ask('/x?page=1&token=hunter2&API_KEY=hunter2&%74oken=hunter2&next=2', {
      method: 'POST',
      headers: {
        Authorization: 'Bearer hunter2',
        Cookie: 'session=hunter2',
        'X-Api-Key': 'hunter2',
        'Content-Type': 'application/json',
      },
      body: '{"password":"hunter2"}',
    })
    const [line] = await gateway.requestLines(1)
    expect(line?.['path']).toBe('/x?page=1&token=***&API_KEY=***&%74oken=***&next=2')
    expect(JSON.stringify(gateway.log)).not.toContain('hunter2')
  })

  it('carries the id of a trusted proxy, and no other', async () => {
    const untrusting = await world(PLAIN)
    await untrusting.ask('/x', { headers: { 'X-Request-Id': 'mine' } })
    expect((await untrusting.gateway.requestLines(1))[0]?.['request_id']).not.toBe('mine')

    const trusting = await world(`trustedProxies: [127.0.0.1]\n${PLAIN}`)
    const answer = await trusting.ask('/x', { headers: { 'X-Request-Id': 'theirs-1' } })
    expect(answer.headers['x-request-id']).toBe('theirs-1')
    expect(trusting.origin.seen[0]?.headers['x-request-id']).toBe('theirs-1')
    await trusting.ask('/x', { headers: { 'X-Request-Id': 'a "quoted" thing' } })
    const lines = await trusting.gateway.requestLines(2)
    expect(lines[0]?.['request_id']).toBe('theirs-1')
    expect(lines[1]?.['request_id']).not.toContain('quoted')
  })
})

describe('X-Process-Time', () => {
  it('is on every answer, whoever made it', async () => {
    const { gateway, ask } = await world(`
limits: {one: {limit: 1, window: 1m}}
routes:
  - {path: /cached, cache: {ttl: 1h}}
  - {path: /limited, limits: [one]}
  - {path: /dead, upstream: dead}
`)
    const answers = [
      await ask('/cached'),
      await ask('/cached'),
      await ask('/cached', { method: 'HEAD' }),
      await ask('/limited'),
      await ask('/limited'),
      await ask('/dead'),
      await ask('/none'),
      await ask('/health'),
      await ask('/a%zz'),
      await ask('/cached', { headers: { Expect: 'wonders' } }),
    ]
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 429, 502, 404, 200, 400, 417])
    for (const { headers } of answers) expect(headers['x-process-time']).toMatch(/^\d+\.\d\dms$/)
    for (const bytes of [
      'OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
      'GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n',
    ]) {
      const client = await converse(gateway.port, bytes)
      await client.end()
      expect(client.received).toMatch(/\r\nX-Process-Time: \d+\.\d\dms\r\n/)
    }
  })

  it('runs from the first byte of the request to the head of the answer', async () => {
    const { ask } = await world(PLAIN, (_incoming, response) => {
      setTimeout(() => {
        response.write('head')
        setTimeout(() => response.end('body'), 300)
      }, 100)
    })
    const { headers } = await ask('/x')
    const processMs = Number.parseFloat(String(headers['x-process-time']))
    expect(processMs).toBeGreaterThanOrEqual(99)
  })
})

describe('/health on the public port', () => {
  it('says what there is to say, also to HEAD; other methods are not for it', async () => {
    const { ask } = await world(PLAIN)
    const { status, headers, text } = await ask('/health')
    expect(status).toBe(200)
    expect(headers['content-type']).toBe('application/json')
    expect(headers['cache-control']).toBe('no-store')
    expect(JSON.parse(text)).toEqual({
      status: 'ok',
      redis: 'off',
      upstreams: { app: 'ok', dead: 'ok' },
      overload: null,
      config: { loaded_at: expect.stringMatching(/^\d{4}-.*Z$/), error: null },
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      uptime_s: expect.any(Number),
    })
    const head = await ask('/health', { method: 'HEAD' })
    expect([head.status, head.body.length]).toEqual([200, 0])
    const posted = await ask('/health', { method: 'POST' })
    expect([posted.status, posted.headers.allow]).toEqual([405, 'GET, HEAD'])
  })

  it('may have another path, or leave its own to the backends', async () => {
    const moved = await world(`health: /alive\n${PLAIN}`)
    expect((await moved.ask('/alive')).text).toContain('"uptime_s"')
    expect((await moved.ask('/health')).text).toBe('answer 1')
    const off = await world(`health: false\n${PLAIN}`)
    expect((await off.ask('/health')).text).toBe('answer 1')
  })
})

describe('/metrics', () => {
  /** Name, labels and value of each sample; throws for a line that Prometheus would not take. */
  function parse(text: string): { name: string; labels: Record<string, string>; value: number }[] {
    const typed = new Set<string>()
    return text.split('\n').flatMap((line) => {
      if (line === '') return []
      const [, kind, name = ''] = /^# (HELP|TYPE) ([a-zA-Z_:][\w:]*) .+$/.exec(line) ?? []
      if (kind === 'TYPE') {
        if (typed.has(name)) throw new Error(`${name} a second time`)
        typed.add(name)
      }
      if (kind !== undefined) return []
      const sample = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
      if (sample === null) throw new Error(`no sample: ${line}`)
      const [, metric = '', labels = '', value = ''] = sample
      if (!typed.has(metric.replace(/_(bucket|sum|count)$/, '')) && !typed.has(metric))
        throw new Error(`${metric} has no type`)
      const pairs = [...labels.matchAll(/([a-zA-Z_]\w*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/g)]
      if (pairs.map(([whole]) => whole).join('') !== labels) throw new Error(`no labels: ${labels}`)
      const number = value === '+Inf' ? Infinity : Number(value)
      if (Number.isNaN(number)) throw new Error(`no number: ${value}`)
      return [
        {
          name: metric,
          labels: Object.fromEntries(pairs.map(([, key, text]) => [key, text])) as Record<string, string>,
          value: number,
        },
      ]
    })
  }

  it('is what Prometheus reads, and agrees with the traffic', async () => {
    const { gateway, ask } = await world(`
limits: {two: {limit: 2, window: 1m}}
routes: [{path: /cached, cache: {ttl: 1h}}, {path: /limited, limits: [two]}, {path: /dead, upstream: dead}]
`)
    for (const path of ['/cached', '/cached', '/limited', '/limited', '/limited', '/dead', '/none']) await ask(path)
    await gateway.requestLines(7)
    const { headers, text } = await request(`${gateway.adminUrl}/metrics`)
    expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8')
    const samples = parse(text)
    const value = (name: string, labels: Record<string, string> = {}) =>
      samples.find((sample) => sample.name === name && JSON.stringify(sample.labels) === JSON.stringify(labels))?.value
    expect(value('weirgate_requests_total', { route: '/cached', status: '200' })).toBe(2)
    expect(value('weirgate_requests_total', { route: '/limited', status: '429' })).toBe(1)
    expect(value('weirgate_requests_total', { route: '(none)', status: '404' })).toBe(1)
    expect(value('weirgate_cache_requests_total', { route: '/cached', outcome: 'hit', reason: '' })).toBe(1)
    expect(value('weirgate_limit_decisions_total', { policy: 'two', result: 'refused', source: 'memory' })).toBe(1)
    expect(value('weirgate_upstream_errors_total', { code: 'upstream_refused' })).toBe(1)
    expect(value('weirgate_cache_entries')).toBe(1)
    expect(value('weirgate_config_last_reload_success')).toBe(1)
    const buckets = samples.filter(
      ({ name, labels }) => name === 'weirgate_request_duration_seconds_bucket' && labels['route'] === '/limited',
    )
    const counts = buckets.map((bucket) => bucket.value)
    expect(counts).toEqual(counts.toSorted((a, b) => a - b))
    expect(buckets.at(-1)).toMatchObject({ labels: { le: '+Inf' }, value: 3 })
    expect(value('weirgate_request_duration_seconds_count', { route: '/limited' })).toBe(3)
  })
})

describe('what the admin port tells', () => {
  it('/api/stats: counts, hit rate and latency, in all and by route', async () => {
    const { gateway, ask, admin } = await world(`
limits: {one: {limit: 1, window: 1m}}
routes: [{path: /cached, cache: {ttl: 1h}}, {path: /limited, limits: [one]}, {path: /dead, upstream: dead}]
`)
    for (const path of ['/cached', '/cached', '/cached', '/cached', '/limited', '/limited', '/dead']) await ask(path)
    await gateway.requestLines(7)
    const json = (await admin('/api/stats')).json as Stats
    for (const { total, routes } of [json.since_start, json.last_minute]) {
      expect(total).toMatchObject({ requests: 7, errors: 1, limited: 1, hit_rate: 0.75 })
      expect(routes['/cached']).toMatchObject({ requests: 4, cache: { hit: 3, miss: 1 }, hit_rate: 0.75 })
      expect(routes['/limited']).toMatchObject({ requests: 2, limited: 1, hit_rate: null })
      expect(routes['/dead']).toMatchObject({ requests: 1, errors: 1 })
      const { p50, p95, p99, max } = total.latency_ms
      expect([p50, p95, p99]).toEqual([p50, p95, p99].toSorted((a, b) => a - b))
      expect(max).toBeGreaterThan(0)
    }
    expect(json.cache).toMatchObject({ entries: 1, max_bytes: 256 * 1024 ** 2 })
  })

  it('/api/routes: the table with its defaults applied, most specific first', async () => {
    const { admin } = await world(`
limits: {a: {limit: 1, window: 1m}, b: {limit: 1, window: 1m}}
routes:
  - {path: /*}
  - {path: /x/*, methods: [get], cache: {ttl: {200: 1h, 404: 30s}, scope: public}}
  - {path: /x/:id, host: a.test, upstream: dead, limits: [a, b], websocket: true}
`)
    expect((await admin('/api/routes')).json).toEqual([
      {
        route: 'a.test/x/:id',
        host: 'a.test',
        path: '/x/:id',
        methods: null,
        upstream: 'dead',
        canary: null,
        mirror: null,
        cache: null,
        limits: ['a', 'b'],
        websocket: true,
        idempotency: null,
      },
      {
        route: 'GET /x/*',
        host: null,
        path: '/x/*',
        methods: ['GET'],
        upstream: 'app',
        canary: null,
        mirror: null,
        cache: 'ttl 200: 1h 404: 30s, public',
        limits: [],
        websocket: false,
        idempotency: null,
      },
      {
        route: '/*',
        host: null,
        path: '/*',
        methods: null,
        upstream: 'app',
        canary: null,
        mirror: null,
        cache: null,
        limits: [],
        websocket: false,
        idempotency: null,
      },
    ])
  })

  it('/api/config: what runs, with every secret hidden', async () => {
    const origin = closing(await startOrigin())
    const token = 'f'.repeat(40)
    const gateway = closing(
      await startGateway(
        `
listen: {address: 127.0.0.1:0}
admin: {listen: 127.0.0.1:0, token: "\${TOKEN}"}
upstreams: {app: {targets: ["${origin.url}"]}}
routes: [{path: /*, upstream: app, headers: {request: {set: {Authorization: Bearer hunter2, X-Backend-Key: "\${KEY}"}}}}]
`,
        { TOKEN: token, KEY: 'hunter2' },
      ),
    )
    expect((await request(`${gateway.adminUrl}/api/config`)).status).toBe(401)
    const { text } = await request(`${gateway.adminUrl}/api/config`, { headers: { Authorization: `Bearer ${token}` } })
    expect(JSON.parse(text)).toMatchObject({
      admin: { token: '(hidden)' },
      routes: [
        { path: '/*', headers: { request: { set: { Authorization: '(hidden)', 'X-Backend-Key': '(hidden)' } } } },
      ],
    })
    expect(text).not.toContain('hunter2')
    expect(text).not.toContain(token)
    await request(`${gateway.url}/x`)
    expect(origin.seen[0]?.headers).toMatchObject({ authorization: 'Bearer hunter2', 'x-backend-key': 'hunter2' })
  })

  it('/api/upstreams: the targets and their connections', async () => {
    const { gateway, origin, admin } = await world(PLAIN, () => {})
    const asked = request(`${gateway.url}/x`).catch(() => {})
    await until(() => origin.seen.length === 1, 'the request at the origin')
    const [first] = (await admin('/api/upstreams')).json as unknown[]
    expect(first).toEqual({
      upstream: 'app',
      retries: 0,
      hedges: 0,
      hedges_won: 0,
      waiting: 0,
      refused: 0,
      limit: null,
      targets: [
        {
          url: origin.url,
          weight: 1,
          takes: 'all',
          state: 'up',
          breaker: null,
          cooling_until: null,
          exits: 0,
          addresses: null,
          resolve_failures: 0,
          open_connections: 1,
          in_flight: 1,
          queued: 0,
        },
      ],
    })
    await gateway.close()
    await asked
  })
})

const KEY = 'a key of thirty-two bytes and more'
const SECRET = 'a secret of thirty-two bytes and more'
const TOKEN = await new SignJWT({ sub: 'alice' })
  .setProtectedHeader({ alg: 'HS256' })
  .setExpirationTime('1h')
  .sign(new TextEncoder().encode(SECRET))

const USERS = `
log: {userId: plain}
identity: {user: [{header: x-api-key, keys: {bob: "${KEY}"}}, {jwt: {secret: "${SECRET}"}}]}
limits:
  per-user: {limit: 10, window: 1h, key: user}
routes:
  - {path: /mine, limits: [per-user], cache: {ttl: 1h, scope: user}}
  - {path: /proved, auth: required, limits: [per-user], cache: {ttl: 1h, scope: user}}
`

describe('explain', () => {
  const TABLE = `
limits:
  per-client: {limit: 3, window: 1m}
  per-key: {limit: 100, window: 1h, key: [header:x-api-key, route]}
routes:
  - {path: /cached/*, cache: {ttl: 1h}, limits: [per-client]}
  - {path: /moved/*, rewrite: {strip: /moved, prefix: /v2}, limits: [per-key]}
  - {path: /only, methods: [GET]}
  - {path: /x, host: a.test}
`

  it.each<[string, RequestOptions & { path: string }]>([
    ['a miss', { path: '/cached/a?b=1' }],
    ['a path spelt in another way', { path: '//cached/%7Ea' }],
    ['HEAD', { path: '/cached/a', method: 'HEAD' }],
    ['a request with credentials', { path: '/cached/a', headers: { Authorization: 'Bearer x' } }],
    ['a part of something', { path: '/cached/a', headers: { Range: 'bytes=0-1' } }],
    ['POST where there is a cache', { path: '/cached/a', method: 'POST' }],
    ['a rewritten path', { path: '/moved/a?b', headers: { 'X-Api-Key': 'k' } }],
    ['another host', { path: '/x', headers: { Host: 'A.TEST:80' } }],
    ['no route', { path: '/none' }],
    ['a route of another host', { path: '/x' }],
    ['another method', { path: '/only', method: 'DELETE' }],
    ['a method of WebDAV where there is a cache', { path: '/cached/a', method: 'PROPFIND' }],
    ['TRACE', { path: '/only', method: 'TRACE' }],
    ['a dot segment', { path: '/cached/%2e%2e;/x' }],
    ['a bad escape', { path: '/cached/%zz' }],
    ['a bad host', { path: '/x', headers: { Host: 'a b' } }],
    ['the health path', { path: '/health' }],
    [
      'an address that an untrusted client claims',
      { path: '/cached/a', headers: { 'X-Forwarded-For': '198.51.100.9' } },
    ],
  ])('of %s is what then happens', async (_what, { path, method = 'GET', headers = {} }) => {
    const { origin, gateway, ask, explain } = await world(TABLE)
    const explained = await explain({ method, url: path, headers })
    const { route, refused, limits, cache, client_ip, target, upstream_target } = explained
    const answer = await ask(path, { method, headers: headers as Record<string, string> })
    const [line] = await gateway.requestLines(1)

    expect(line?.['route']).toBe(route)
    expect(line?.['client_ip']).toBe(client_ip)
    expect(answer.status).toBe(refused?.status ?? 200)
    expect(line?.['path']).toBe(refused === null ? target : line?.['path'])
    const { code, detail } = refused ?? {}
    const problem = { ...(code !== undefined && { code, detail }) }
    expect(refused === null ? {} : JSON.parse(answer.text)).toMatchObject(problem)
    expect(origin.seen[0]?.url ?? null).toBe(upstream_target)
    expect(line?.['cache'] ?? null).toBe(cache?.outcome ?? null)
    const remaining = answer.headers['x-ratelimit-remaining']
    expect(remaining === undefined ? [] : [Number(remaining)]).toEqual(limits.map((limit) => limit.remaining - 1))
  })

  const OWN = ['MISS', 'HIT', 'HIT']
  const PASSED = ['BYPASS', 'BYPASS', 'BYPASS']
  const REFUSED = [undefined, undefined, undefined]
  it.each<[string, string, Record<string, string>, (string | undefined)[]]>([
    ['nobody', '/mine', {}, PASSED],
    ['who has a key', '/mine', { 'X-Api-Key': KEY }, OWN],
    ['who has a token', '/mine', { Authorization: `Bearer ${TOKEN}` }, OWN],
    ['who has no good token', '/mine', { Authorization: 'Bearer x' }, OWN],
    ['nobody', '/proved', {}, REFUSED],
    ['who has a key', '/proved', { 'X-Api-Key': KEY }, OWN],
    ['who has another key', '/proved', { 'X-Api-Key': 'another' }, REFUSED],
    ['who has a token', '/proved', { Authorization: `Bearer ${TOKEN}` }, OWN],
  ])('of %s at %s says what then happens to them', async (_who, path, headers, outcomes) => {
    const { gateway, ask, explain } = await world(USERS)
    for (const [i, outcome] of outcomes.entries()) {
      const explained = await explain({ method: 'GET', url: path, headers })
      const answer = await ask(path, { headers })
      const line = (await gateway.requestLines(i + 1)).at(-1)
      expect(answer.status).toBe(explained.refused?.status ?? 200)
      expect(answer.headers['www-authenticate'] === undefined).toBe(explained.refused === null)
      expect(line).toMatchObject({ route: explained.route, user_id: explained.user })
      const remaining = answer.headers['x-ratelimit-remaining']
      const expected = explained.limits.map((limit) => limit.remaining - 1)
      expect(remaining === undefined ? [] : [Number(remaining)]).toEqual(expected)
      expect([explained.cache?.outcome.toUpperCase(), answer.headers['x-cache']]).toEqual([outcome, outcome])
    }
  })

  it('charges nothing, stores nothing and asks nobody', async () => {
    const { origin, ask, explain } = await world(TABLE)
    for (let i = 0; i < 5; i++) {
      const json = await explain({ method: 'GET', url: '/cached/a' })
      expect(json.limits).toMatchObject([{ policy: 'per-client', remaining: 3, admitted: true, key: 'ip=127.0.0.1' }])
      expect(json.cache).toMatchObject({ outcome: 'miss', age_s: null })
    }
    expect(origin.seen).toHaveLength(0)
    expect((await ask('/cached/a')).headers['x-ratelimit-remaining']).toBe('2')
  })

  it('of a path finds what this machine stored under it, with its age', async () => {
    const { ask, explain, gateway } = await world(TABLE)
    await ask('/cached/a')
    const json = await explain({ method: 'GET', url: '/cached/a' })
    expect(json.host).toBe(`127.0.0.1:${gateway.port}`)
    expect(json.cache).toMatchObject({ outcome: 'hit', reason: null, age_s: expect.any(Number) })
    expect(json.cache?.ttl_s).toBeGreaterThan(3500)
  })

  it('of a request beyond its limit says 429, which policy, and when', async () => {
    const { ask, explain } = await world(TABLE)
    for (let i = 0; i < 3; i++) await ask('/cached/a')
    const json = await explain({ method: 'GET', url: '/cached/a' })
    const [limit] = json.limits
    expect(limit).toMatchObject({ policy: 'per-client', admitted: false, remaining: 0 })
    expect(json.refused).toEqual({
      status: 429,
      code: 'quota_exceeded',
      detail: expect.stringContaining(`per-client`),
    })
    expect(json.refused?.detail).toContain(`${limit?.retry_after_s} s`)
    expect((await ask('/cached/a')).status).toBe(429)
  })

  it('believes X-Forwarded-For where the asker is a trusted proxy', async () => {
    const { explain } = await world(`trustedProxies: [127.0.0.1]\n${TABLE}`)
    const headers = { 'X-Forwarded-For': '198.51.100.9' }
    const json = await explain({ method: 'GET', url: '/cached/a', headers })
    expect(json.client_ip).toBe('198.51.100.9')
    expect(json.limits[0]?.key).toBe('ip=198.51.100.9')
  })
})

describe('purge', () => {
  const CACHED = 'routes: [{path: /*, cache: {ttl: 1h}}]'

  /** Where each URL stands: HIT or MISS. A miss stores it again. */
  const cached = async ({ ask }: World, ...urls: readonly (readonly [path: string, host: string])[]) => {
    const outcomes: unknown[] = []
    for (const [path, host] of urls) outcomes.push((await ask(path, { headers: { Host: host } })).headers['x-cache'])
    return outcomes
  }
  const [A1, A2, B1] = [
    ['/x', 'a.test'],
    ['/x?q', 'a.test'],
    ['/x', 'b.test:8080'],
  ] as const

  it.each([
    ['a path: on every host, without its query', ['/x'], 2, ['MISS', 'HIT', 'MISS']],
    ['a path with a query', ['/x?q'], 1, ['HIT', 'MISS', 'HIT']],
    ['a URL: on its host alone', ['http://a.test/x'], 1, ['MISS', 'HIT', 'HIT']],
    ['a URL as clients know it, with TLS before the gateway', ['https://A.test:443/x'], 1, ['MISS', 'HIT', 'HIT']],
    ['a URL with a port', ['http://b.test:8080/x'], 1, ['HIT', 'HIT', 'MISS']],
    ['a path in another spelling', ['//%78'], 2, ['MISS', 'HIT', 'MISS']],
    ['several at once, each counted once', ['/x', 'http://a.test/x', '/x?q'], 3, ['MISS', 'MISS', 'MISS']],
    ['what is not stored', ['/y', 'http://c.test/x'], 0, ['HIT', 'HIT', 'HIT']],
  ])('%s', async (_what, urls, purged, expected) => {
    const here = await world(CACHED)
    await cached(here, A1, A2, B1)
    const { status, json } = await here.admin('/api/cache/purge', { urls })
    expect([status, json]).toMatchObject([200, { purged }])
    expect(await cached(here, A1, A2, B1)).toEqual(expected)
  })

  it('removes every variant', async () => {
    const here = await world(CACHED, (incoming, response) => {
      response.setHeader('Vary', 'Accept-Language')
      response.end(incoming.headers['accept-language'])
    })
    for (const language of ['de', 'fr']) await here.ask('/x', { headers: { 'Accept-Language': language } })
    expect((await here.admin('/api/cache/purge', { urls: ['/x'] })).json).toMatchObject({ purged: 2 })
  })

  it.each(['/a%zz', '/a/../b', '/a b', 'http://a_b!/x'])(
    'of the bad URL %s is a 400 that names it, and nothing is purged',
    async (bad) => {
      const here = await world(CACHED)
      await cached(here, A1)
      const { status, json } = await here.admin('/api/cache/purge', { urls: ['/x', bad] })
      expect(status).toBe(400)
      expect((json as { detail: string }).detail).toContain(bad)
      expect(await cached(here, A1)).toEqual(['HIT'])
    },
  )

  it('is in the log with who, what and how many', async () => {
    const here = await world(CACHED)
    await cached(here, A1)
    await here.admin('/api/cache/purge', { urls: ['/x?token=hunter2', '/x'] })
    const lines = here.gateway.log.filter(({ message }) => message === 'Admin change')
    expect(lines).toMatchObject([{ client_ip: '127.0.0.1', path: '/api/cache/purge', urls: 2, purged: 1 }])
    expect(JSON.stringify(lines)).not.toContain('hunter2')
  })
})
