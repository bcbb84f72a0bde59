// Limits as a client meets them: real sockets, a real origin, every field of every answer.

import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { type Answer, type RequestOptions, converse, request } from '../support/client.ts'
import { type TestGateway, startGateway } from '../support/gateway.ts'
import { type Origin, type Script, startOrigin } from '../support/origin.ts'

const closers: (() => Promise<void> | void)[] = []
afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close()
})

interface World {
  readonly origin: Origin
  readonly gateway: TestGateway
  /** One request on a kept connection. */
  readonly ask: (path: string, options?: RequestOptions) => Promise<Answer>
}

/** yaml: all but the upstream `app`, which is the origin. */
async function world(yaml: string, script?: Script): Promise<World> {
  const origin = await startOrigin(script)
  closers.push(() => origin.close())
  const defaults = yaml.includes('defaults:') ? '' : 'defaults: {upstream: app}'
  const gateway = await startGateway(`upstreams: {app: {targets: ["${origin.url}"]}}\n${defaults}\n${yaml}`)
  closers.push(() => gateway.close())
  const agent = new http.Agent({ keepAlive: true })
  closers.push(() => agent.destroy())
  return { origin, gateway, ask: (path, options) => request(gateway.url + path, { agent, ...options }) }
}

async function statuses(asking: () => Promise<Answer>, count: number): Promise<number[]> {
  const seen: number[] = []
  for (let i = 0; i < count; i++) seen.push((await asking()).status)
  return seen
}

const limitFields = ({ headers }: Answer) =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => name.includes('ratelimit') || name === 'retry-after'))

const problemOf = ({ text }: Answer) => JSON.parse(text) as Record<string, unknown>

const epochSeconds = (): number => Math.floor(Date.now() / 1000)

describe('the 61st request in a minute', () => {
  it('is a 429 that says when to come back, and never reaches the origin', async () => {
    const { origin, ask } = await world(`
limits: {per-client: {limit: 60, window: 1m, key: ip}}
routes: [{path: /*, limits: [per-client]}]
`)
    for (let left = 59; left >= 0; left--) {
      const { status, headers } = await ask('/x')
      expect(status).toBe(200)
      expect(headers['x-ratelimit-limit']).toBe('60')
      expect(headers['x-ratelimit-remaining']).toBe(String(left))
      expect(headers['ratelimit']).toMatch(new RegExp(`^"per-client";r=${left};t=\\d+$`))
      expect(headers['retry-after']).toBeUndefined()
    }
    const refused = await ask('/x')
    const { status, headers } = refused
    expect(status).toBe(429)
    expect(headers['content-type']).toBe('application/problem+json')
    expect(headers['cache-control']).toBe('no-store')
    expect(headers['x-ratelimit-limit']).toBe('60')
    expect(headers['x-ratelimit-remaining']).toBe('0')
    expect(headers['ratelimit-policy']).toBe('"per-client";q=60;w=60')

    const retryAfter = Number(headers['retry-after'])
    const [, wait] = /^"per-client";r=0;t=(\d+)$/.exec(String(headers['ratelimit'])) ?? []
    expect(retryAfter).toBeGreaterThanOrEqual(Number(wait))
    expect(retryAfter).toBeGreaterThan(0)
    // The window, a tenth for its coarseness, a tenth so that not all come back at once.
    expect(retryAfter).toBeLessThanOrEqual(73)
    const reset = Number(headers['x-ratelimit-reset'])
    expect(reset).toBeGreaterThan(epochSeconds())
    expect(reset).toBeLessThanOrEqual(epochSeconds() + 67)

    expect(problemOf(refused)).toEqual({
      type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
      title: 'Quota Exceeded',
      status: 429,
      code: 'quota_exceeded',
      detail: 'Policy per-client: 60 requests per 60 s.',
      request_id: headers['x-request-id'],
      'violated-policies': ['per-client'],
      scope: 'ip',
      unit: 'requests',
      reset,
      retryAfter,
    })
    expect(headers['x-process-time']).toMatch(/^\d+\.\d\dms$/)
    expect(origin.seen).toHaveLength(60)
  })

  it('is one line in the log, which names the policy', async () => {
    const { gateway, ask } = await world(`
limits: {one: {limit: 1, window: 1m}}
routes: [{path: /*, limits: [one]}]
`)
    await statuses(() => ask('/x'), 2)
    const lines = await gateway.requestLines(2)
    expect(lines.map(({ status_code, limit, error }) => ({ status_code, limit, error }))).toEqual([
      { status_code: 200, limit: null, error: undefined },
      { status_code: 429, limit: 'one', error: undefined },
    ])
  })
})

describe('Retry-After', () => {
  it.each([
    ['of a sliding window', 'limit: 2, window: 1s', 2],
    ['of a steady rate', 'limit: 1, window: 1s, burst: 2', 2],
  ])('%s is true: who waits that long is admitted', async (_what, policy, capacity) => {
    const { ask } = await world(`
limits: {short: {${policy}}}
routes: [{path: /*, limits: [short]}]
`)
    let refused = await ask('/x')
    let admitted = 0
    // A slow machine may take so long over them that the window moves on.
    for (; refused.status !== 429 && admitted < 100; admitted++) refused = await ask('/x')
    expect(admitted).toBeGreaterThanOrEqual(capacity)
    expect(refused.status).toBe(429)
    await sleep(Number(refused.headers['retry-after']) * 1000)
    expect((await ask('/x')).status).toBe(200)
  })
})

describe('what is counted', () => {
  it('hits of the cache as well: a client cannot hide behind it', async () => {
    const { origin, ask } = await world(`
limits: {three: {limit: 3, window: 1m}}
routes: [{path: /*, limits: [three], cache: {ttl: 1h}}]
`)
    const answers = [await ask('/x'), await ask('/x'), await ask('/x'), await ask('/x')]
    expect(
      answers.map(({ status, headers }) => [status, headers['x-cache'], headers['x-ratelimit-remaining']]),
    ).toEqual([
      [200, 'MISS', '2'],
      [200, 'HIT', '1'],
      [200, 'HIT', '0'],
      [429, undefined, '0'],
    ])
    expect(origin.seen).toHaveLength(1)
  })

  it('requests that come all at once: not one more than the limit gets through', async () => {
    const { origin, gateway } = await world(`
limits: {fifty: {limit: 50, window: 1m}}
routes: [{path: /*, limits: [fifty]}]
`)
    const answers = await Promise.all(Array.from({ length: 120 }, () => request(`${gateway.url}/x`)))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(50)
    expect(answers.filter(({ status }) => status === 429)).toHaveLength(70)
    expect(origin.seen).toHaveLength(50)
  })

  it('HEAD and failures of the origin, and each such answer says what is left', async () => {
    const { ask } = await world(
      `
limits: {three: {limit: 3, window: 1m}}
routes: [{path: /*, limits: [three], retries: 0}]
`,
      (incoming, response) => (incoming.url === '/broken' ? response.destroy() : response.writeHead(500).end()),
    )
    const answers = [await ask('/x', { method: 'HEAD' }), await ask('/broken'), await ask('/x')]
    expect(answers.map(({ status, headers }) => [status, headers['x-ratelimit-remaining']])).toEqual([
      [500, '2'],
      [502, '1'],
      [500, '0'],
    ])
    const head = await ask('/x', { method: 'HEAD' })
    expect([head.status, head.body.length]).toEqual([429, 0])
    expect(head.headers['retry-after']).toBeDefined()
  })

  it('nothing where there is no route, or the gateway answers its health path', async () => {
    const { ask } = await world(`
limits: {one: {limit: 1, window: 1m}}
routes: [{path: /x, methods: [GET], limits: [one]}]
`)
    for (const [path, method, status] of [
      ['/none', 'GET', 404],
      ['/x', 'POST', 405],
      ['/health', 'GET', 200],
      ['/health', 'GET', 200],
    ] as const) {
      const answer = await ask(path, { method })
      expect(answer.status).toBe(status)
      expect(limitFields(answer)).toEqual({})
    }
    expect((await ask('/x')).status).toBe(200)
  })

  it('a refused upload without reading it: the answer comes before the body does', async () => {
    const { origin, gateway, ask } = await world(`
limits: {one: {limit: 1, window: 1m}}
routes: [{path: /*, limits: [one]}]
`)
    await ask('/x')
    const client = await converse(
      gateway.port,
      'POST /x HTTP/1.1\r\nHost: gateway.test\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n',
    )
    const received = await client.expect('quota_exceeded')
    expect(received).toMatch(/^HTTP\/1\.1 429 /)
    expect(received).toMatch(/\r\nConnection: close\r\n/i)
    client.destroy()
    expect(origin.seen).toHaveLength(1)
  })
})

describe('whose budget it is', () => {
  it('is shared by all routes that name the policy', async () => {
    const { ask } = await world(`
limits: {both: {limit: 2, window: 1m}}
routes: [{path: /a, limits: [both]}, {path: /b, limits: [both]}]
`)
    expect([await ask('/a'), await ask('/b'), await ask('/a'), await ask('/b')].map(({ status }) => status)).toEqual([
      200, 200, 429, 429,
    ])
  })

  it('is one per route where `route` is in the key, whatever the path below it', async () => {
    const { ask } = await world(`
limits: {each: {limit: 1, window: 1m, key: [ip, route]}}
routes: [{path: /a/*, limits: [each]}, {path: /b/*, limits: [each]}]
`)
    expect(
      [await ask('/a/1'), await ask('/b/1'), await ask('/a/2'), await ask('/b/2')].map(({ status }) => status),
    ).toEqual([200, 200, 429, 429])
  })

  it.each([
    ['method', [['GET'], ['POST'], ['GET']], [200, 200, 429]],
    [
      'host',
      [
        ['GET', 'a.test'],
        ['GET', 'b.test'],
        ['GET', 'A.test:80'],
      ],
      [200, 200, 429],
    ],
  ])('is one per %s where that is the key', async (key, requests, expected) => {
    const { ask } = await world(`
limits: {one: {limit: 1, window: 1m, key: ${key}}}
routes: [{path: /*, limits: [one]}]
`)
    const seen: number[] = []
    for (const [method = '', host = 'gateway.test'] of requests) {
      seen.push((await ask('/x', { method, headers: { host } })).status)
    }
    expect(seen).toEqual(expected)
  })

  it('is one per value of a header, in any case of its name; without it, the address stands in', async () => {
    const { ask } = await world(`
limits: {per-key: {limit: 1, window: 1m, key: header:x-api-key}}
routes: [{path: /*, limits: [per-key]}]
`)
    const withKey = (name: string, key: string) => ask('/x', { headers: { [name]: key } })
    expect((await withKey('X-Api-Key', 'alice')).status).toBe(200)
    expect((await withKey('x-api-key', 'bob')).status).toBe(200)
    expect((await withKey('X-API-KEY', 'alice')).status).toBe(429)
    expect((await ask('/x')).status).toBe(200)
    expect((await ask('/x')).status).toBe(429)
    // Naming oneself after an address does not use up that address's budget, nor get a second one twice.
    expect((await withKey('X-Api-Key', '127.0.0.1')).status).toBe(200)
    expect((await withKey('X-Api-Key', '127.0.0.1')).status).toBe(429)
  })

  it("is nobody's where the header is missing and the policy says `onMissing: skip`", async () => {
    const { ask } = await world(`
limits: {per-key: {limit: 1, window: 1m, key: header:x-api-key, onMissing: skip}}
routes: [{path: /*, limits: [per-key]}]
`)
    for (let i = 0; i < 3; i++) {
      const answer = await ask('/x')
      expect(answer.status).toBe(200)
      expect(limitFields(answer)).toEqual({})
    }
    const named = () => ask('/x', { headers: { 'x-api-key': 'alice' } })
    expect([(await named()).status, (await named()).status]).toEqual([200, 429])
  })

  const perClient = `
limits: {per-client: {limit: 2, window: 1m}}
routes: [{path: /*, limits: [per-client]}]
`
  const from = (world: World, forwardedFor: string) => world.ask('/x', { headers: { 'X-Forwarded-For': forwardedFor } })

  it("is the peer's: X-Forwarded-For and its kin from an untrusted one change nothing", async () => {
    const here = await world(perClient)
    expect((await from(here, '198.51.100.1')).status).toBe(200)
    expect((await here.ask('/x', { headers: { Forwarded: 'for=198.51.100.2' } })).status).toBe(200)
    expect((await from(here, '198.51.100.3')).status).toBe(429)
    expect((await here.ask('/x', { headers: { 'X-Real-IP': '198.51.100.4' } })).status).toBe(429)
    const lines = await here.gateway.requestLines(4)
    expect(new Set(lines.map(({ client_ip }) => client_ip))).toEqual(new Set(['127.0.0.1']))
  })

  it('is that of the client whom a trusted proxy names; what that client wrote itself is not believed', async () => {
    const here = await world(`trustedProxies: [127.0.0.0/8]\n${perClient}`)
    expect((await from(here, '198.51.100.1')).status).toBe(200)
    expect((await from(here, '203.0.113.9, 198.51.100.1')).status).toBe(200)
    expect((await from(here, '198.51.100.77, 198.51.100.1')).status).toBe(429)
    expect((await from(here, '198.51.100.2')).status).toBe(200)
    const lines = await here.gateway.requestLines(4)
    expect(lines.map(({ client_ip }) => client_ip)).toEqual([
      '198.51.100.1',
      '198.51.100.1',
      '198.51.100.1',
      '198.51.100.2',
    ])
  })

  it('is that of a whole /64 of IPv6, and of IPv4 in whatever form it is written', async () => {
    const here = await world(`trustedProxies: [127.0.0.0/8]\n${perClient}`)
    const seen: number[] = []
    for (const address of ['2001:db8::1', '2001:db8:0:0:ffff::2', '2001:db8::3', '2001:db8:0:1::1']) {
      seen.push((await from(here, address)).status)
    }
    expect(seen).toEqual([200, 200, 429, 200])
    seen.length = 0
    for (const address of ['192.0.2.7', '::ffff:192.0.2.7', '192.0.2.7:4711', '192.0.2.8']) {
      seen.push((await from(here, address)).status)
    }
    expect(seen).toEqual([200, 200, 429, 200])
  })
})

describe('several policies', () => {
  it('are charged all or not at all', async () => {
    const { ask } = await world(`
limits:
  narrow: {limit: 2, window: 1m}
  wide: {limit: 10, window: 1m}
routes: [{path: /both, limits: [narrow, wide]}, {path: /wide, limits: [wide]}]
`)
    expect(await statuses(() => ask('/both'), 5)).toEqual([200, 200, 429, 429, 429])
    // Three refusals cost nothing: two of ten are used, and this one.
    expect((await ask('/wide')).headers['x-ratelimit-remaining']).toBe('7')
  })

  it('are all described; the one with the least left speaks in X-RateLimit, the violated ones alone in a refusal', async () => {
    const { ask } = await world(`
limits:
  wide: {limit: 1000, window: 1h}
  narrow: {limit: 2, window: 1m}
  steady: {limit: 60, window: 1m, burst: 5}
routes: [{path: /*, limits: [wide, narrow, steady]}]
`)
    const admitted = await ask('/x')
    const policies = '"wide";q=1000;w=3600, "narrow";q=2;w=60, "steady";q=60;w=60;gw-burst=5'
    expect(admitted.headers['ratelimit-policy']).toBe(policies)
    expect(admitted.headers['ratelimit']).toMatch(/^"wide";r=999;t=\d+, "narrow";r=1;t=\d+, "steady";r=4;t=1$/)
    // Of `steady` 4 of 60 are left at once, a smaller share than 1 of 2.
    expect(admitted.headers['x-ratelimit-limit']).toBe('60')
    expect(admitted.headers['x-ratelimit-remaining']).toBe('4')
    await ask('/x')
    const refused = await ask('/x')
    expect(refused.status).toBe(429)
    expect(refused.headers['ratelimit-policy']).toBe(policies)
    expect(refused.headers['ratelimit']).toMatch(/^"narrow";r=0;t=\d+$/)
    expect(refused.headers['x-ratelimit-limit']).toBe('2')
    expect(problemOf(refused)['violated-policies']).toEqual(['narrow'])
  })

  it('leave routes without limits alone', async () => {
    const { ask } = await world(`
limits: {one: {limit: 1, window: 1m}}
defaults: {upstream: app, limits: [one]}
routes: [{path: /free, limits: []}, {path: /*}]
`)
    for (let i = 0; i < 3; i++) expect(limitFields(await ask('/free'))).toEqual({})
    expect(await statuses(() => ask('/x'), 2)).toEqual([200, 429])
  })
})

describe('a policy with a burst', () => {
  it('admits the burst at once, then one at a time at its rate', async () => {
    const { ask } = await world(`
limits: {steady: {limit: 60, window: 1m, burst: 3}}
routes: [{path: /*, limits: [steady]}]
`)
    let refused = await ask('/x')
    let admitted = 1
    for (; refused.status === 200 && admitted < 50; refused = await ask('/x')) admitted++
    expect(admitted).toBeGreaterThanOrEqual(4)
    expect(refused.status).toBe(429)
    // One a second: a machine slow enough to earn another on the way would still wait less than one.
    expect(refused.headers['ratelimit']).toBe('"steady";r=0;t=1')
    expect(problemOf(refused)['detail']).toBe('Policy steady: 60 requests per 60 s, 3 at once.')
  })
})

describe("the upstream's own limits", () => {
  const boasting: Script = (_incoming, response) => {
    response.writeHead(200, {
      'X-RateLimit-Limit': '99999',
      'x-ratelimit-remaining': '99998',
      'X-RATELIMIT-RESET': '1',
      RateLimit: '"theirs";r=99998;t=1',
      'RateLimit-Policy': '"theirs";q=99999;w=60',
    })
    response.end('ok')
  }

  it('never contradict ours: X-RateLimit says one thing, the lists name both', async () => {
    const { ask } = await world(
      `
limits: {ours: {limit: 10, window: 1m}}
routes: [{path: /*, limits: [ours]}]
`,
      boasting,
    )
    const { rawHeaders } = await ask('/x')
    const values = (name: string) =>
      rawHeaders.filter((_value, i) => i % 2 === 1 && rawHeaders[i - 1]?.toLowerCase() === name)
    expect(values('x-ratelimit-limit')).toEqual(['10'])
    expect(values('x-ratelimit-remaining')).toEqual(['9'])
    expect(values('x-ratelimit-reset')).toHaveLength(1)
    expect(Number(values('x-ratelimit-reset')[0])).toBeGreaterThan(epochSeconds())
    expect(values('ratelimit-policy').join(', ')).toBe('"theirs";q=99999;w=60, "ours";q=10;w=60')
    expect(values('ratelimit').join(', ')).toMatch(/^"theirs";r=99998;t=1, "ours";r=9;t=\d+$/)
  })

  it('pass on a route that has none of ours', async () => {
    const { ask } = await world('routes: [{path: /*}]', boasting)
    expect((await ask('/x')).headers['x-ratelimit-limit']).toBe('99999')
  })

  it('are not kept in the cache: a hit tells of now, or nothing', async () => {
    const { ask } = await world(
      `
limits: {ours: {limit: 10, window: 1m}}
routes: [{path: /limited, limits: [ours], cache: {ttl: 1h}}, {path: /free, cache: {ttl: 1h}}]
`,
      boasting,
    )
    await ask('/limited')
    const limited = await ask('/limited')
    expect(limited.headers['x-cache']).toBe('HIT')
    expect(limited.headers['x-ratelimit-limit']).toBe('10')
    expect(limited.headers['x-ratelimit-remaining']).toBe('8')
    await ask('/free')
    const free = await ask('/free')
    expect(free.headers['x-cache']).toBe('HIT')
    expect(limitFields(free)).toEqual({})
  })

  it('are told as they are when the upstream itself says 429', async () => {
    const { ask } = await world(
      `
limits: {ours: {limit: 10, window: 1m}}
routes: [{path: /*, limits: [ours]}]
`,
      (_incoming, response) => response.writeHead(429, { 'Retry-After': '17' }).end('busy'),
    )
    const answer = await ask('/x')
    expect([answer.status, answer.text, answer.headers['retry-after']]).toEqual([429, 'busy', '17'])
    expect(answer.headers['x-ratelimit-remaining']).toBe('9')
  })
})
