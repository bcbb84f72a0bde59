// What a limit counts, for whom, and since when: the options of limits over real sockets. An origin that answers slowly
// is held by hand, so nothing here depends on the clock but what the clock itself decides.

import { hash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { type Answer, type RequestOptions, converse, request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import type { Script } from '../support/origin.ts'

interface World {
  readonly limits: string
  readonly route: string
  readonly more?: string
  readonly script?: Script
}

async function start({ limits, route, more = '', script }: World) {
  const edge = await startEdge({
    routes: [`{path: /*, ${route}}`],
    more: `limits:\n${limits}\n${more}`,
    ...(script === undefined ? {} : { script }),
  })
  const ask = (path: string, options: RequestOptions = {}) => request(edge.gateway.url + path, options)
  const statuses = async (...paths: readonly (string | RequestOptions)[]) => {
    const seen: number[] = []
    for (const each of paths) {
      const { status } = typeof each === 'string' ? await ask(each) : await ask('/x', each)
      seen.push(status)
    }
    return seen
  }
  return { ...edge, ask, statuses }
}

/** An origin whose answers wait until the test lets them go. */
function held() {
  const waiting: { incoming: IncomingMessage; response: ServerResponse }[] = []
  const script: Script = (incoming, response) => void waiting.push({ incoming, response })
  const arrived = (count: number) => until(() => waiting.length >= count, `${count} requests at the origin`)
  const release = () => waiting.splice(0).forEach(({ response }) => response.end('ok'))
  return { script, waiting, arrived, release }
}

const limitFields = ({ headers }: Answer): string[] =>
  Object.keys(headers).filter((name) => name.includes('ratelimit') || name === 'retry-after')

const remaining = ({ headers }: Answer): string | undefined => headers['x-ratelimit-remaining'] as string | undefined

describe('count: miss', () => {
  const missing = (more = '') => ({
    limits: '  misses: {limit: 2, window: 1h, count: miss}',
    route: `limits: [misses], cache: {ttl: 1h}${more}`,
  })

  it('charges what the upstream is asked for, and hits nothing', async () => {
    const { ask, statuses } = await start(missing())
    expect(remaining(await ask('/a'))).toBe('1')
    for (let i = 0; i < 5; i++) expect([remaining(await ask('/a')), (await ask('/a')).status]).toEqual(['1', 200])
    expect(await statuses('/b', '/c', '/a', '/b')).toEqual([200, 429, 200, 200])
    expect(remaining(await ask('/a'))).toBe('0')
  })

  it('charges one of those who share a fetch', async () => {
    const { script, arrived, release } = held()
    const { ask, gateway } = await start({ ...missing(), script })
    const asked = [ask('/a'), ask('/a'), ask('/a'), ask('/a')]
    await arrived(1)
    await until(() => inFlight(gateway.gateway) === 1, 'one request upstream')
    release()
    const answers = await Promise.all(asked)
    expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200])
    expect(remaining(await ask('/a'))).toBe('1')
  })

  it('charges nothing for a refusal, nor for other policies of the request', async () => {
    const { statuses, ask } = await start({
      limits: '  misses: {limit: 1, window: 1h, count: miss}\n  every: {limit: 10, window: 1h}',
      route: 'limits: [every, misses], cache: {ttl: 1h}',
    })
    expect(await statuses('/a', '/b', '/c', '/d')).toEqual([200, 429, 429, 429])
    const hit = await ask('/a')
    expect(hit.headers['ratelimit']).toMatch(/^"every";r=8;t=\d+, "misses";r=0;t=\d+$/)
  })

  it('says in a refusal which policy it was, as at the first check', async () => {
    const { ask } = await start({
      limits: '  misses: {limit: 1, window: 1h, count: miss}\n  every: {limit: 10, window: 1h}',
      route: 'limits: [every, misses], cache: {ttl: 1h}',
    })
    await ask('/a')
    const refused = await ask('/b')
    expect(refused.status).toBe(429)
    expect(refused.headers['ratelimit-policy']).toBe('"every";q=10;w=3600, "misses";q=1;w=3600')
    expect(refused.headers['ratelimit']).toMatch(/^"misses";r=0;t=\d+$/)
    expect(refused.headers['x-ratelimit-limit']).toBe('1')
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(3000)
    expect(refused.rawHeaders.filter((name) => name.toLowerCase() === 'ratelimit')).toHaveLength(1)
    expect(JSON.parse(refused.text)).toMatchObject({ 'violated-policies': ['misses'] })
  })

  it('gives back what the gateway has answered itself', async () => {
    const { ask, statuses } = await start({
      limits: '  misses: {limit: 2, window: 1h, count: miss}',
      route: 'limits: [misses], maxBody: 10B',
    })
    for (let i = 0; i < 5; i++) {
      const { status } = await ask('/a', { method: 'POST', body: 'x'.repeat(11) })
      expect(status).toBe(413)
    }
    expect(await statuses('/a', '/a', '/a')).toEqual([200, 200, 429])
  })

  it('lets what is stored answer in the place of a refusal where the route says so', async () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    onTestFinished(() => void vi.useRealTimers())
    const { ask } = await start({
      limits: '  misses: {limit: 1, window: 1h, count: miss}',
      route: 'limits: [misses], cache: {ttl: 1m}, onLimited: stale',
    })
    await ask('/a')
    vi.setSystemTime(Date.now() + 100_000)
    const stale = await ask('/a')
    expect([stale.status, stale.headers['x-cache'], stale.text]).toEqual([200, 'STALE', 'answer 1'])
    expect(stale.headers['ratelimit']).toMatch(/^"misses";r=0;t=\d+$/)
    expect(stale.headers['cache-status']).toBe('weirgate; hit; ttl=-40; detail=limited')
    expect((await ask('/never-asked')).status).toBe(429)
  })
})

const inFlight = (gateway: { upstreams(): readonly { targets: readonly { in_flight: number }[] }[] }): number =>
  gateway.upstreams().reduce((sum, { targets }) => sum + targets.reduce((part, each) => part + each.in_flight, 0), 0)

describe('count by the answer', () => {
  const script: Script = (incoming, response) =>
    void response.writeHead(Number((incoming.url ?? '').slice(1))).end('answer')

  it('success: what fails is given back', async () => {
    const { statuses } = await start({
      limits: '  good: {limit: 2, window: 1h, count: success}',
      route: 'limits: [good], retries: 0',
      script,
    })
    expect(await statuses('/500', '/404', '/429', '/502', '/200', '/302', '/200')).toEqual([
      500, 404, 429, 502, 200, 302, 429,
    ])
  })

  it('failure: attempts that fail are counted, all others are free', async () => {
    const { statuses } = await start({
      limits: '  guesses: {limit: 2, window: 1h, count: failure}',
      route: 'limits: [guesses], retries: 0',
      script,
    })
    expect(await statuses('/200', '/200', '/200', '/500', '/401', '/200', '/403', '/200')).toEqual([
      200, 200, 200, 500, 401, 200, 403, 429,
    ])
  })

  it('failure: guesses at the same time cannot slip past', async () => {
    const { script: slow, waiting, arrived } = held()
    const { ask } = await start({
      limits: '  guesses: {limit: 3, window: 1h, count: failure}',
      route: 'limits: [guesses]',
      script: slow,
    })
    const asked = Array.from({ length: 10 }, () => ask('/login', { method: 'POST', body: 'guess' }))
    await arrived(3)
    await until(() => waiting.length === 3, 'three at the origin')
    waiting.splice(0).forEach(({ response }) => response.writeHead(401).end())
    const seen = (await Promise.all(asked)).map(({ status }) => status).toSorted((a, b) => a - b)
    expect(seen).toEqual([401, 401, 401, 429, 429, 429, 429, 429, 429, 429])
  })
})

describe('cost', () => {
  it('is taken by method; 0 is not limited at all', async () => {
    const { ask, statuses } = await start({
      limits: '  units: {limit: 10, window: 1h, cost: {POST: 4, GET: 0}}',
      route: 'limits: [units]',
    })
    expect(limitFields(await ask('/x'))).toEqual([])
    expect(remaining(await ask('/x', { method: 'POST' }))).toBe('6')
    expect(remaining(await ask('/x', { method: 'PUT' }))).toBe('5')
    expect(await statuses({ method: 'POST' }, { method: 'POST' }, { method: 'DELETE' }, '/x')).toEqual([
      200, 429, 200, 200,
    ])
  })

  it('that is more than there ever is gets a 429 without a time, and takes nothing', async () => {
    const { ask } = await start({
      limits: '  units: {limit: 3, window: 1h, cost: {POST: 4}}',
      route: 'limits: [units]',
    })
    for (let i = 0; i < 3; i++) {
      const { status, headers } = await ask('/x', { method: 'POST' })
      expect([status, headers['retry-after'], headers['x-ratelimit-remaining']]).toEqual([429, undefined, '3'])
    }
    expect(remaining(await ask('/x'))).toBe('2')
  })

  it('is what the upstream says in a field of its answer, beyond what is left too', async () => {
    const { ask, statuses } = await start({
      limits: '  units: {limit: 100, window: 1h, costField: X-Cost}',
      route: 'limits: [units]',
      script: (incoming, response) => {
        const cost = (incoming.url ?? '').slice(1)
        response.writeHead(200, cost === '' ? {} : { 'X-Cost': cost }).end()
      },
    })
    await statuses('/30', '/0', '/', '/-5', '/9x')
    // 30, nothing, and one each where it says nothing that makes sense.
    expect(remaining(await ask('/60'))).toBe('66')
    await ask('/500')
    const refused = await ask('/1')
    expect([refused.status, remaining(refused)]).toEqual([429, '0'])
  })
})

describe('a list', () => {
  it('of who is allowed: not limited, nor counted, and no field tells of it', async () => {
    const { ask } = await start({
      limits: '  one: {limit: 1, window: 1h, key: host, allow: [127.0.0.0/8]}',
      route: 'limits: [one]',
      more: 'trustedProxies: [127.0.0.1]',
    })
    for (let i = 0; i < 3; i++) {
      const answer = await ask('/x')
      expect([answer.status, limitFields(answer)]).toEqual([200, []])
    }
    const from = (ip: string) => ask('/x', { headers: { 'X-Forwarded-For': ip } })
    expect([(await from('192.0.2.1')).status, (await from('192.0.2.1')).status]).toEqual([200, 429])
  })

  it('of who is denied: a 403 that tells nothing, counted nowhere; what is stored does not answer in its place', async () => {
    const { ask, origin, gateway } = await start({
      limits: '  one: {limit: 1, window: 1h, key: host, deny: [192.0.2.0/24]}',
      route: 'limits: [one], cache: {ttl: 1h}, onLimited: stale',
      more: 'trustedProxies: [127.0.0.1]',
    })
    await ask('/x')
    const answer = await ask('/x', { headers: { 'X-Forwarded-For': '192.0.2.7' } })
    expect([answer.status, limitFields(answer)]).toEqual([403, []])
    expect(JSON.parse(answer.text)).toMatchObject({ code: 'forbidden', status: 403 })
    expect(origin.seen).toHaveLength(1)
    expect((await gateway.requestLines(2))[1]).toMatchObject({ status_code: 403, limit: null })
  })

  const users = (limit: string) => ({
    limits: `  one: {limit: 1, window: 1h, key: host, ${limit}}`,
    route: 'limits: [one]',
    more: 'identity: {user: [{header: X-Api-Key, keys: {alice: 0123456789abcdef}}, {header: X-Claim}]}',
  })
  const proved = { headers: { 'X-Api-Key': '0123456789abcdef' } }
  const claimed = { headers: { 'X-Claim': 'alice' } }

  /** As identity names who only claims a name. */
  const claimedId = `x-claim:#${hash('sha256', 'alice', 'base64url')}`

  it('lets through who proves the name, not who claims it', async () => {
    const { statuses } = await start(users(`allow: ["user:key:alice", "user:${claimedId}"]`))
    expect(await statuses(proved, proved, claimed, claimed)).toEqual([200, 200, 200, 429])
  })

  it('keeps out by name, claimed or proved', async () => {
    const { statuses } = await start(users('deny: ["user:key:alice"]'))
    expect(await statuses(proved, '/x', '/x')).toEqual([403, 200, 429])
    const other = await start(users(`deny: ["user:${claimedId}"]`))
    expect(await other.statuses(claimed, '/x')).toEqual([403, 200])
  })
})

describe('whose budget it is', () => {
  it('is that of the user, whatever the address; the address where nobody is known', async () => {
    const { statuses } = await start({
      limits: '  one: {limit: 1, window: 1h, key: user}',
      route: 'limits: [one]',
      more: 'identity: {user: [{header: X-Api-Key, keys: {a: 0123456789abcdef, b: fedcba9876543210}}]}',
    })
    const a = { headers: { 'X-Api-Key': '0123456789abcdef' } }
    const b = { headers: { 'X-Api-Key': 'fedcba9876543210' } }
    expect(await statuses(a, b, '/x', a, b, '/x')).toEqual([200, 200, 200, 429, 429, 429])
  })

  it('is one per cookie; a second one of the name is none at all', async () => {
    const { statuses } = await start({
      limits: '  one: {limit: 1, window: 1h, key: "cookie:sid", onMissing: deny}',
      route: 'limits: [one]',
    })
    const cookie = (text: string) => ({ headers: { Cookie: text } })
    expect(
      await statuses(cookie('sid=1'), cookie('a=b; sid=2'), cookie('sid=1; a=b'), cookie('sid=3; sid=4'), '/x'),
    ).toEqual([200, 200, 429, 403, 403])
  })

  it('is one per value of a parameter of the path', async () => {
    const edge = await startEdge({
      routes: ['{path: /t/:tenant/*, limits: [one]}'],
      more: 'limits: {one: {limit: 1, window: 1h, key: "param:tenant"}}',
    })
    const seen: number[] = []
    for (const path of ['/t/a/1', '/t/b/1', '/t/a/2']) seen.push((await request(edge.gateway.url + path)).status)
    expect(seen).toEqual([200, 200, 429])
  })

  it('is nobody’s with `onMissing: deny`: 403, and the origin is not asked', async () => {
    const { ask, statuses, origin } = await start({
      limits: '  one: {limit: 2, window: 1h, key: [ip, "header:x-api-key"], onMissing: deny}',
      route: 'limits: [one]',
    })
    expect(limitFields(await ask('/x'))).toEqual([])
    expect(await statuses('/x', { headers: { 'X-Api-Key': 'a' } })).toEqual([403, 200])
    expect(origin.seen).toHaveLength(1)
  })

  it('is for a part of the clients with `enabledPercent`, always the same ones', async () => {
    const { ask } = await start({
      limits: '  one: {limit: 1, window: 1h, enabledPercent: 30}',
      route: 'limits: [one]',
      more: 'trustedProxies: [127.0.0.1]',
    })
    const limited = new Set<number>()
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 100; i++) {
        const answer = await ask('/x', { headers: { 'X-Forwarded-For': `192.0.2.${i}` } })
        const isLimited = limitFields(answer).length > 0
        if (round === 0 && isLimited) limited.add(i)
        expect(isLimited).toBe(limited.has(i))
        expect(answer.status).toBe(isLimited && round > 0 ? 429 : 200)
      }
    }
    expect(limited.size).toBeGreaterThan(10)
    expect(limited.size).toBeLessThan(55)
  })
})

describe('align', () => {
  it.each([
    ['1d', 'UTC', '2026-11-22T23:59:00Z', 60, 86_400],
    ['1d', 'Asia/Kolkata', '2026-11-22T18:29:00Z', 60, 86_400],
    ['month', 'Europe/Berlin', '2026-10-31T22:58:20Z', 100, 31 * 86_400],
  ])('%s in %s ends when it does there', async (window, zone, now, leftSeconds, w) => {
    vi.useFakeTimers({ toFake: ['Date'], now: Date.parse(now) })
    onTestFinished(() => void vi.useRealTimers())
    const { ask } = await start({
      limits: `  quota: {limit: 1, window: ${window}, align: ${zone}}`,
      route: 'limits: [quota]',
    })
    const first = await ask('/x')
    expect(first.headers['ratelimit-policy']).toBe(`"quota";q=1;w=${w}`)
    expect(first.headers['ratelimit']).toBe(`"quota";r=0;t=${leftSeconds}`)
    const refused = await ask('/x')
    expect(refused.status).toBe(429)
    expect(Number(refused.headers['retry-after'])).toBeGreaterThanOrEqual(leftSeconds)
    vi.setSystemTime(Date.parse(now) + leftSeconds * 1000 - 1)
    expect((await ask('/x')).status).toBe(429)
    vi.setSystemTime(Date.parse(now) + leftSeconds * 1000)
    expect((await ask('/x')).status).toBe(200)
  })
})

describe('kind: concurrency', () => {
  const slots = { limits: '  slots: {kind: concurrency, limit: 2}', route: 'limits: [slots]' }

  it('holds a slot for as long as the answer takes, and refuses more with a time to come back', async () => {
    const { script, arrived, release } = held()
    const { ask, origin } = await start({ ...slots, script })
    const asked = [ask('/a'), ask('/b')]
    await arrived(2)
    const refused = await ask('/c')
    expect(refused.status).toBe(429)
    expect(refused.headers).toMatchObject({
      'retry-after': '1',
      'ratelimit-policy': '"slots";q=2;qu="concurrent-requests"',
      ratelimit: '"slots";r=0;t=1',
    })
    expect(JSON.parse(refused.text)).toMatchObject({ detail: 'Policy slots: 2 requests at the same time.' })
    expect(origin.seen).toHaveLength(2)
    release()
    expect((await Promise.all(asked)).map(({ status }) => status)).toEqual([200, 200])
    const next = ask('/d')
    await arrived(1)
    release()
    expect((await next).status).toBe(200)
  })

  it('holds it during a long stream, after the head has been sent', async () => {
    const { script, waiting, arrived } = held()
    const { ask, gateway } = await start({
      limits: '  slots: {kind: concurrency, limit: 1}',
      route: slots.route,
      script,
    })
    const client = await converse(gateway.port, 'GET /stream HTTP/1.1\r\nHost: a\r\n\r\n')
    await arrived(1)
    waiting[0]?.response.write('first part')
    await client.expect('first part')
    expect((await ask('/b')).status).toBe(429)
    waiting.splice(0).forEach(({ response }) => response.end('last part'))
    await client.expect('last part')
    await gateway.requestLines(2)
    const next = ask('/c')
    await arrived(1)
    waiting.splice(0).forEach(({ response }) => response.end())
    expect((await next).status).toBe(200)
    client.destroy()
  })

  it('frees it at once when the client goes, before an answer and in the middle of one', async () => {
    const { script, waiting, arrived } = held()
    const { ask, gateway } = await start({
      limits: '  slots: {kind: concurrency, limit: 1}',
      route: slots.route,
      script,
    })
    for (const hasBegun of [false, true]) {
      const client = await converse(gateway.port, 'GET /stream HTTP/1.1\r\nHost: a\r\n\r\n')
      await arrived(1)
      if (hasBegun) {
        waiting[0]?.response.write('first part')
        await client.expect('first part')
      }
      expect((await ask('/b')).status).toBe(429)
      client.destroy()
      await gateway.requestLines(hasBegun ? 5 : 2)
      waiting.length = 0
      const next = ask('/c')
      await arrived(1)
      waiting.splice(0).forEach(({ response }) => response.end())
      expect((await next).status).toBe(200)
    }
  })

  it('frees it when the upstream fails, and takes none for hits or who reads along', async () => {
    const { script, waiting, arrived, release } = held()
    const { ask, origin } = await start({
      limits: '  slots: {kind: concurrency, limit: 1}',
      route: 'limits: [slots], retries: 0, cache: {ttl: 1h}',
      script,
    })
    const failing = ask('/a')
    await arrived(1)
    waiting.splice(0).forEach(({ response }) => response.destroy())
    expect((await failing).status).toBe(502)
    const sharing = [ask('/b'), ask('/b'), ask('/b')]
    await arrived(1)
    expect((await ask('/c')).status).toBe(429)
    release()
    expect((await Promise.all(sharing)).map(({ status }) => status)).toEqual([200, 200, 200])
    const slow = ask('/d')
    await arrived(1)
    expect([(await ask('/b')).status, (await ask('/b')).headers['x-cache']]).toEqual([200, 'HIT'])
    release()
    await slow
    expect(origin.seen).toHaveLength(3)
  })

  it('costs other policies nothing where there is no slot', async () => {
    const { script, arrived, release } = held()
    const { ask } = await start({
      limits:
        '  slots: {kind: concurrency, limit: 1}\n  every: {limit: 10, window: 1h}\n  misses: {limit: 5, window: 1h, count: miss}',
      route: 'limits: [slots, every, misses]',
      script,
    })
    const slow = ask('/a')
    await arrived(1)
    for (let i = 0; i < 20; i++) expect((await ask('/b')).status).toBe(429)
    release()
    await slow
    const next = ask('/c')
    await arrived(1)
    release()
    expect((await next).headers['ratelimit']).toMatch(/^"every";r=8;t=\d+, "misses";r=3;t=\d+, "slots";r=0;t=1$/)
  })
})

describe('mode: shadow', () => {
  it.each([
    ['on a policy', 'mode: shadow', ''],
    ['on a route', 'mode: enforce', ', mode: shadow'],
  ])('%s refuses nothing, shows in no field, and is told to the operator', async (_where, mode, route) => {
    const { ask, gateway } = await start({
      limits: `  one: {limit: 1, window: 1h, ${mode}}\n  slots: {kind: concurrency, limit: 1, ${mode}}`,
      route: `limits: [one, slots]${route}`,
      script: (_incoming, response) => void response.writeHead(200, { 'X-RateLimit-Limit': '99' }).end(),
    })
    for (let i = 0; i < 3; i++) {
      const answer = await ask('/x')
      expect([answer.status, limitFields(answer)]).toEqual([200, ['x-ratelimit-limit']])
      expect(answer.headers['x-ratelimit-limit']).toBe('99')
    }
    const lines = await gateway.requestLines(3)
    expect(lines.map(({ limit, limit_shadow }) => [limit, limit_shadow])).toEqual([
      [null, undefined],
      [null, 'one'],
      [null, 'one'],
    ])
  })

  it('beside an enforced policy: that one alone is told, and the other is charged only when it admits', async () => {
    const { statuses, ask, gateway } = await start({
      limits: '  real: {limit: 3, window: 1h}\n  watched: {limit: 2, window: 1h, mode: shadow}',
      route: 'limits: [watched, real]',
    })
    const first = await ask('/x')
    expect(first.headers['ratelimit-policy']).toBe('"real";q=3;w=3600')
    expect(await statuses('/x', '/x', '/x')).toEqual([200, 200, 429])
    expect((await gateway.requestLines(4)).map(({ limit_shadow }) => limit_shadow)).toEqual([
      undefined,
      undefined,
      'watched',
      'watched',
    ])
  })

  it('keeps nobody out by its lists', async () => {
    const { statuses, gateway } = await start({
      limits: '  one: {limit: 1, window: 1h, deny: [127.0.0.1], mode: shadow}',
      route: 'limits: [one]',
    })
    expect(await statuses('/x')).toEqual([200])
    expect((await gateway.requestLines(1))[0]).toMatchObject({ limit_shadow: 'one' })
  })
})
