// What an operator learns of the limits, and can change: over the admin port of a running gateway.

import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import { describeWithRedis, startRedis } from '../support/redis.ts'

async function start(limits: string, route: string, more = '') {
  const edge = await startEdge({ routes: [`{path: /*, ${route}}`], more: `limits:\n${limits}\n${more}` })
  const ask = async (headers: Record<string, string> = {}) =>
    (await request(`${edge.gateway.url}/x`, { headers })).status
  const admin = async (method: string, path: string, body?: unknown) => {
    const answer = await request(`${edge.gateway.adminUrl}${path}`, {
      method,
      headers: { 'Content-Type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    return { status: answer.status, json: JSON.parse(answer.text) as Record<string, unknown> }
  }
  return { ...edge, ask, admin }
}

const PROXIED = 'trustedProxies: [127.0.0.1]'
const from = (ip: string) => ({ 'X-Forwarded-For': ip })

describe('GET /api/limits', () => {
  it('lists policies by rule, key and route, with what they have decided', async () => {
    const { ask, admin } = await start(
      '  one: {limit: 1, window: 1m}\n  month: {limit: 5, window: month, align: UTC, count: miss, key: [ip, route], mode: shadow}\n  spare: {kind: concurrency, limit: 4}',
      'limits: [one, month]',
    )
    for (let i = 0; i < 3; i++) await ask()
    const { json } = await admin('GET', '/api/limits')
    const none = { admitted: 0, refused: 0, shadowed: 0, by_source: {} }
    expect(json).toEqual([
      {
        policy: 'one',
        mode: 'enforce',
        rule: '1 per 1m',
        key: ['ip'],
        routes: ['/*'],
        decisions: { admitted: 1, refused: 2, shadowed: 0, by_source: { memory: 3 } },
      },
      {
        policy: 'month',
        mode: 'shadow',
        rule: '5 per month, by the calendar of UTC, counts what the upstream is asked',
        key: ['ip', 'route'],
        routes: ['/*'],
        decisions: { admitted: 1, refused: 0, shadowed: 0, by_source: { memory: 1 } },
      },
      { policy: 'spare', mode: 'enforce', rule: '4 at the same time', key: ['ip'], routes: [], decisions: none },
    ])
  })

  it.each([
    ['unit: tokens, reserve: 500', '5000 tokens per 1h, reserves 500'],
    [
      'unit: tokens, reserve: learned, weights: {output: 4}',
      '5000 tokens per 1h, reserves as learned, weights output 4',
    ],
    [
      'unit: cost, align: UTC, price: {input: 3, output: 15}, reserve: {output: [max_tokens]}, staleFrom: 0.8',
      '5000 of cost per 1h, by the calendar of UTC, reserves what the body asks for, a million tokens at input 3, output 15, what is stored first from 80 % on',
    ],
  ])('says of a budget what it counts: %s', async (limit, rule) => {
    const { ask, admin } = await start(
      `  used: {limit: 5000, window: 1h, ${limit}}`,
      'limits: [used], cache: {ttl: 1h}, onLimited: stale',
    )
    await ask()
    expect((await admin('GET', '/api/limits')).json).toMatchObject([{ policy: 'used', rule }])
    const { json } = await admin('POST', '/api/explain', { method: 'GET', url: '/x' })
    const unit = limit.includes('tokens,') ? 'tokens' : 'cost-millionths'
    expect(json).toMatchObject({ limits: [{ policy: 'used', unit, limit: unit === 'tokens' ? 5000 : 5_000_000_000 }] })
  })

  it('agrees with /api/stats and /metrics, shadows included', async () => {
    const { ask, admin, gateway } = await start(
      '  real: {limit: 2, window: 1m}\n  watched: {limit: 1, window: 1m, mode: shadow}',
      'limits: [real, watched]',
    )
    for (let i = 0; i < 3; i++) await ask()
    const { json } = await admin('GET', '/api/stats')
    expect(json['limits']).toEqual({
      real: { admitted: 2, refused: 1, shadowed: 0, by_source: { memory: 3 } },
      watched: { admitted: 1, refused: 0, shadowed: 2, by_source: { memory: 3 } },
    })
    expect(gateway.gateway.metrics()).toContain(
      'weirgate_limit_decisions_total{policy="watched",result="shadowed",source="memory"} 2\n',
    )
  })
})

describe('one subject', () => {
  it('is read, refunded and reset by the parts of its key, and nobody else is', async () => {
    const { ask, admin } = await start('  two: {limit: 2, window: 1h}', 'limits: [two]', PROXIED)
    for (const ip of ['192.0.2.7', '192.0.2.7', '192.0.2.7', '192.0.2.8', '192.0.2.8']) await ask(from(ip))
    const read = async (ip: string) => (await admin('GET', `/api/limits/two?ip=${ip}`)).json
    expect(await read('192.0.2.7')).toEqual({
      policy: 'two',
      mode: 'enforce',
      key: 'ip=192.0.2.7',
      admitted: false,
      limit: 2,
      remaining: 0,
      retry_after_s: expect.any(Number),
      full_after_s: expect.any(Number),
    })
    expect(await read('::ffff:192.0.2.7')).toMatchObject({ key: 'ip=192.0.2.7', remaining: 0 })

    const refunded = await admin('POST', '/api/limits/two/refund', { subject: { ip: '192.0.2.7' }, units: 1 })
    expect(refunded).toMatchObject({ status: 200, json: { remaining: 1, admitted: true, retry_after_s: null } })
    expect([await ask(from('192.0.2.7')), await ask(from('192.0.2.7'))]).toEqual([200, 429])

    const reset = await admin('DELETE', '/api/limits/two?ip=192.0.2.7')
    expect(reset).toMatchObject({ status: 200, json: { remaining: 2, full_after_s: 0 } })
    expect([await ask(from('192.0.2.7')), await ask(from('192.0.2.8'))]).toEqual([200, 429])
    const much = await admin('POST', '/api/limits/two/refund', { subject: { ip: '192.0.2.7' }, units: 1000 })
    expect(much.json).toMatchObject({ remaining: 2 })
  })

  it.each([
    ['a steady rate', 'limit: 5, window: 1h, burst: 5'],
    ['a quota of the calendar', 'limit: 5, window: month, align: UTC'],
  ])('of %s gets back what it is given', async (_what, rule) => {
    const { ask, admin } = await start(`  five: {${rule}}`, 'limits: [five]')
    for (let i = 0; i < 5; i++) await ask()
    const { json } = await admin('POST', '/api/limits/five/refund', { subject: { ip: '127.0.0.1' }, units: 3 })
    expect(json['remaining']).toBe(3)
  })

  it.each(['window: 1h', 'window: 1h, burst: 5', 'window: month, align: UTC'])(
    'who owes units is forgiven as many as are given back, and no more: %s',
    async (rule) => {
      const { ask, admin, origin } = await start(`  five: {limit: 5, ${rule}, costField: X-Cost}`, 'limits: [five]')
      origin.answer((_request, response) => void response.setHeader('X-Cost', '9').end())
      expect([await ask(), await ask()]).toEqual([200, 429])
      const refund = async (units: number) => {
        const { json } = await admin('POST', '/api/limits/five/refund', { subject: { ip: '127.0.0.1' }, units })
        return json['remaining']
      }
      expect([await refund(3), await refund(2), await refund(1)]).toEqual([0, 1, 2])
    },
  )

  it('of several parts is named by all of them; the address stands in for one that is missing', async () => {
    const { ask, admin } = await start(
      '  keyed: {limit: 3, window: 1h, key: ["header:x-api-key", route]}',
      'limits: [keyed]',
    )
    await ask({ 'X-Api-Key': 'alice' })
    await ask()
    await ask()
    const read = async (query: string) => (await admin('GET', `/api/limits/keyed?${query}`)).json
    expect(await read('header:x-api-key=alice&route=/*')).toMatchObject({
      key: expect.stringMatching(/^header:x-api-key=sha256:[\w-]{43}, route=\/\*$/) as string,
      remaining: 2,
    })
    expect(await read('ip=127.0.0.1&route=/*')).toMatchObject({ key: 'ip=127.0.0.1, route=/*', remaining: 1 })
    expect(await read('header:x-api-key=127.0.0.1&route=/*')).toMatchObject({ remaining: 3 })
  })

  it('at whose slots somebody looks shows how many are free, and they cannot be given back from outside', async () => {
    const { admin } = await start('  slots: {kind: concurrency, limit: 4}', 'limits: [slots]')
    expect((await admin('GET', '/api/limits/slots?ip=127.0.0.1')).json).toMatchObject({ remaining: 4, admitted: true })
    expect(await admin('DELETE', '/api/limits/slots?ip=127.0.0.1')).toMatchObject({ status: 400 })
  })

  it('that is only watched on a route is reset as well', async () => {
    const { ask, admin, gateway } = await start('  one: {limit: 1, window: 1h}', 'limits: [one], mode: shadow')
    await ask()
    await ask()
    await admin('DELETE', '/api/limits/one?ip=127.0.0.1')
    await ask()
    const lines = await gateway.requestLines(3)
    expect(lines.map(({ limit_shadow }) => limit_shadow)).toEqual([undefined, 'one', undefined])
  })

  it.each([
    ['GET', '/api/limits/none?ip=192.0.2.7', undefined, 404, 'There is no limit none'],
    ['GET', '/api/limits/toString?ip=192.0.2.7', undefined, 404, 'There is no limit toString'],
    ['GET', '/api/limits/none/top', undefined, 404, 'There is no limit none'],
    ['GET', '/api/limits/one', undefined, 400, 'A subject of one needs ip as well.'],
    ['GET', '/api/limits/one?ip=192.0.2.7&user=a', undefined, 400, 'user: a subject of one has ip.'],
    ['POST', '/api/limits/one/refund', { subject: { ip: '192.0.2.7' } }, 400, 'units'],
    ['POST', '/api/limits/one/refund', { subject: { ip: 7 }, units: 1 }, 400, 'subject.ip'],
    ['POST', '/api/limits/one', { units: 1 }, 405, 'takes GET, HEAD, DELETE'],
    ['GET', '/api/limits/one/two/three', undefined, 404, 'no such endpoint'],
  ])('%s %s %j is refused with %i: %s', async (method, path, body, status, detail) => {
    const { admin } = await start('  one: {limit: 1, window: 1h}', 'limits: [one]')
    const answer = await admin(method, path, body)
    expect(answer.status).toBe(status)
    expect(answer.json['detail']).toContain(detail)
  })
})

describe('the subjects that draw the most', () => {
  it('are told by the parts of their key, what may be secret as a digest', async () => {
    const { ask, admin } = await start(
      '  keyed: {limit: 2, window: 1h, key: [ip, "header:x-api-key"]}',
      'limits: [keyed]',
      PROXIED,
    )
    for (let i = 0; i < 3; i++) await ask({ ...from('192.0.2.7'), 'X-Api-Key': 'alice' })
    for (let i = 0; i < 2; i++) await ask({ ...from('192.0.2.8'), 'X-Api-Key': 'b'.repeat(300) })
    await ask(from('192.0.2.9'))
    const { json } = await admin('GET', '/api/limits/keyed/top')
    expect(json).toEqual({
      policy: 'keyed',
      subjects: [
        {
          key: expect.stringMatching(/^ip=192\.0\.2\.7, header:x-api-key=sha256:[\w-]{43}$/) as string,
          units: 3,
          excess: 0,
          refused: 1,
        },
        {
          key: expect.stringMatching(/^ip=192\.0\.2\.8, header:x-api-key=sha256:[\w-]{43}$/) as string,
          units: 2,
          excess: 0,
          refused: 0,
        },
        { key: 'ip=192.0.2.9, ip=192.0.2.9', units: 1, excess: 0, refused: 0 },
      ],
    })
  })
})

describeWithRedis('with counters in Redis', () => {
  it.each(['window: 1h', 'window: 1h, burst: 5', 'window: 1d, align: UTC'])(
    'one subject is read, refunded and reset for all instances: %s',
    async (rule) => {
      const redis = await startRedis()
      onTestFinished(() => redis.close())
      const limits = `  five: {limit: 5, ${rule}}`
      const shared = `redis: {url: "redis://127.0.0.1:${redis.port}", deadline: 2s}`
      const [a, b] = [await start(limits, 'limits: [five]', shared), await start(limits, 'limits: [five]', shared)]
      for (const { gateway } of [a, b]) await until(() => gateway.gateway.health().redis === 'ok', 'Redis')
      expect([await a.ask(), await a.ask(), await a.ask(), await b.ask(), await b.ask()]).toEqual(Array(5).fill(200))
      const read = async () => (await b.admin('GET', '/api/limits/five?ip=127.0.0.1')).json['remaining']
      expect([await read(), await a.ask()]).toEqual([0, 429])
      await a.admin('POST', '/api/limits/five/refund', { subject: { ip: '127.0.0.1' }, units: 3 })
      expect(await read()).toBe(3)
      await a.admin('DELETE', '/api/limits/five?ip=127.0.0.1')
      expect([await read(), await a.ask()]).toEqual([5, 200])
    },
  )

  it.each(['window: 1h', 'window: 1h, burst: 5', 'window: 1d, align: UTC'])(
    'one subject is refunded by the clock of Redis, however wrong the own one is: %s',
    async (rule) => {
      const redis = await startRedis()
      onTestFinished(() => redis.close())
      const now = Date.now.bind(Date)
      const spied = vi.spyOn(Date, 'now').mockImplementation(() => now() - 2 * 86_400_000)
      onTestFinished(() => spied.mockRestore())
      const shared = `redis: {url: "redis://127.0.0.1:${redis.port}", deadline: 2s}`
      const { gateway, ask, admin } = await start(`  five: {limit: 5, ${rule}}`, 'limits: [five]', shared)
      await until(() => gateway.gateway.health().redis === 'ok', 'Redis')
      for (let asked = 0; asked < 5; asked++) expect(await ask()).toBe(200)
      const { json } = await admin('POST', '/api/limits/five/refund', { subject: { ip: '127.0.0.1' }, units: 3 })
      expect(json['remaining']).toBe(3)
    },
  )
})
