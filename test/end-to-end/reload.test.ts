// Reload: a new table is taken whole or not at all, nobody's request suffers, and what was counted and stored stays.

import http from 'node:http'
import { describe, expect, it } from 'vitest'
import { type Answer, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, type Script, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

const originWith = async (script?: Script): Promise<Origin> => closing(await startOrigin(script))
const gatewayWith = async (yaml: string): Promise<TestGateway> => closing(await startGateway(yaml))

function keptConnections(): http.Agent {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 16 })
  closing({ close: async () => agent.destroy() })
  return agent
}

/** One route for everything, to one origin. */
const tableFor = (origin: Origin, route = '', more = '') => `
upstreams: {app: {targets: ["${origin.url}"]}}
defaults: {upstream: app}
routes: [{path: /*${route === '' ? '' : `, ${route}`}}]
${more}
`

const metric = (gateway: TestGateway, name: string): number =>
  Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(gateway.gateway.metrics())?.[1])

const healthOf = async (gateway: TestGateway) => {
  const answer = await request(`${gateway.url}/health`)
  const { status, config } = JSON.parse(answer.text) as { status: string; config: Record<string, unknown> }
  return { code: answer.status, status, config }
}

/** An origin that answers only when told to; `waiting` are the answers it owes. */
async function patientOrigin() {
  const waiting: http.ServerResponse[] = []
  const origin = await originWith((_incoming, response) => void waiting.push(response))
  return {
    origin,
    waiting,
    owes: (count: number) => until(() => waiting.length >= count, `${count} requests at the origin`),
  }
}

describe('a valid table', () => {
  it('is in force from the next request on, and the log, /health and a metric say so', async () => {
    const [one, two] = [await originWith(), await originWith((_incoming, response) => response.end('two'))]
    const gateway = await gatewayWith(tableFor(one))
    const before = gateway.gateway.health().config.loaded_at
    expect((await request(`${gateway.url}/x`)).text).toBe('answer 1')

    gateway.rewrite(tableFor(two))
    await until(() => new Date().toISOString() > before, 'the clock to move on')
    const result = await gateway.gateway.reload()
    expect(result).toEqual({ ok: true, loaded_at: expect.stringMatching(/^\d{4}-/) })
    expect((await request(`${gateway.url}/x`)).text).toBe('two')

    const health = await healthOf(gateway)
    expect(health).toMatchObject({ code: 200, status: 'ok', config: { error: null } })
    expect(gateway.gateway.health().config.loaded_at > before).toBe(true)
    expect(gateway.log.filter(({ message }) => message === 'Configuration loaded')).toHaveLength(1)
    expect(metric(gateway, 'weirgate_config_last_reload_success')).toBe(1)
  })

  it('may change the routes, the limits, who is trusted, the log and the memory', async () => {
    const origin = await originWith()
    const gateway = await gatewayWith(tableFor(origin))
    const ask = (path: string) => request(gateway.url + path, { headers: { 'X-Forwarded-For': '198.51.100.7' } })
    expect((await ask('/other')).status).toBe(200)
    gateway.rewrite(`
upstreams: {app: {targets: ["${origin.url}"]}}
limits: {one: {limit: 1, window: 1m}}
defaults: {upstream: app, limits: [one]}
routes: [{path: /only}]
trustedProxies: [127.0.0.1]
log: {level: warn}
cache: {memory: 1MiB}
health: /alive
`)
    await gateway.gateway.reload()
    const lines = gateway.log.length
    expect((await ask('/other')).status).toBe(404)
    expect((await ask('/only')).status).toBe(200)
    expect((await ask('/only')).status).toBe(429)
    expect((await request(`${gateway.url}/only`)).status).toBe(200)
    expect((await request(`${gateway.url}/alive`)).status).toBe(200)
    expect(gateway.log).toHaveLength(lines)
    expect(gateway.gateway.stats().cache.max_bytes).toBe(1024 ** 2)
    expect(Object.keys(gateway.gateway.stats().since_start.routes).toSorted()).toEqual(['(none)', '/only'])
  })
})

describe('an invalid table', () => {
  const BROKEN = `
upstreams: {app: {targets: [http://127.0.0.1:1]}}
defaults: {upstream: app}
routes: [{path: x}, {path: /*, cache: {ttl: 30}}]
`

  it('changes nothing; the log and the admin port say what is wrong and where, /health and a metric that it is', async () => {
    const origin = await originWith()
    const gateway = await gatewayWith(tableFor(origin))
    gateway.rewrite(BROKEN)
    const result = await gateway.gateway.reload()
    const error = 'ok' in result && !result.ok ? result.error : ''
    expect(error.split('\n')).toEqual([
      expect.stringMatching(/^test\.yaml:7:17 routes\[0\]\.path: expected a path pattern, got "x"/),
      expect.stringMatching(/^test\.yaml:7:\d+ routes\[1\]\.cache\.ttl: expected a duration such as "30s", got 30/),
    ])
    expect((await request(`${gateway.url}/x`)).text).toBe('answer 1')
    const { status, config, code } = await healthOf(gateway)
    expect([code, status]).toEqual([200, 'degraded'])
    expect(config).toMatchObject({ error: 'the last reload was refused; the log and the admin port say why' })
    expect(await (await fetch(`${gateway.adminUrl}/health`)).json()).toMatchObject({ status, config: { error } })
    expect(metric(gateway, 'weirgate_config_last_reload_success')).toBe(0)
    expect(gateway.log.find(({ message }) => message === 'Configuration refused, the old one stays')).toMatchObject({
      level: 'ERROR',
      error,
    })

    gateway.rewrite(tableFor(origin))
    expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
    expect(await healthOf(gateway)).toMatchObject({ status: 'ok', config: { error: null } })
    expect(metric(gateway, 'weirgate_config_last_reload_success')).toBe(1)
  })

  it.each([
    ['listen: {address: 127.0.0.1:0, headBytes: 32KiB}\nadmin: {listen: 127.0.0.1:0}', 'listen.headBytes'],
    ['listen: 127.0.0.1:1\nadmin: {listen: 127.0.0.1:0}', 'listen.address'],
    ['listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:1}', 'admin.listen'],
    [`listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0, token: ${'secret'.repeat(8)}}`, 'admin.token'],
    ['listen: 127.0.0.1:1\nadmin: {listen: 127.0.0.1:1}', 'listen.address, admin.listen'],
  ])('is also one that changes what only a restart can: %s', async (ports, names) => {
    const [one, two] = [await originWith(), await originWith()]
    const gateway = await gatewayWith(tableFor(one))
    gateway.rewrite(ports + tableFor(two))
    expect(await gateway.gateway.reload()).toEqual({
      ok: false,
      error: `${names}: cannot change while the gateway runs; restart it, or put the old value back`,
    })
    await request(`${gateway.url}/x`)
    expect([one.seen.length, two.seen.length]).toEqual([1, 0])
    expect(JSON.stringify([gateway.log, gateway.gateway.health()])).not.toContain('secretsecret')
  })
})

describe('what survives', () => {
  it('what a client has used of its budget, even where the limit changes', async () => {
    const origin = await originWith()
    const limit = (count: number) => tableFor(origin, 'limits: [l]', `limits: {l: {limit: ${count}, window: 1m}}`)
    const gateway = await gatewayWith(limit(3))
    const left = async () => {
      const { status, headers } = await request(`${gateway.url}/x`)
      return [status, headers['x-ratelimit-remaining']]
    }
    expect([await left(), await left()]).toEqual([
      [200, '2'],
      [200, '1'],
    ])
    await gateway.gateway.reload()
    expect([await left(), await left()]).toEqual([
      [200, '0'],
      [429, '0'],
    ])
    gateway.rewrite(limit(4))
    await gateway.gateway.reload()
    expect([await left(), await left()]).toEqual([
      [200, '0'],
      [429, '0'],
    ])
  })

  it('what is stored, as long as its URL would still be forwarded to the same place', async () => {
    const [one, two] = [await originWith(), await originWith()]
    const gateway = await gatewayWith(tableFor(one, 'cache: {ttl: 1h}'))
    const cached = async () => (await request(`${gateway.url}/x`)).headers['x-cache']
    expect([await cached(), await cached()]).toEqual(['MISS', 'HIT'])
    gateway.rewrite(tableFor(one, 'cache: {ttl: 2h}, limits: []'))
    await gateway.gateway.reload()
    expect(await cached()).toBe('HIT')
    gateway.rewrite(tableFor(two, 'cache: {ttl: 2h}'))
    await gateway.gateway.reload()
    expect([await cached(), await cached()]).toEqual(['MISS', 'HIT'])
    expect(two.seen).toHaveLength(1)
  })

  it('what has been counted', async () => {
    const origin = await originWith()
    const gateway = await gatewayWith(tableFor(origin))
    await request(`${gateway.url}/x`)
    await gateway.gateway.reload()
    await request(`${gateway.url}/x`)
    await gateway.requestLines(2)
    expect(gateway.gateway.stats().since_start.total.requests).toBe(2)
    expect(gateway.gateway.metrics()).toContain('weirgate_requests_total{route="/*",status="200"} 2')
  })

  it('warm connections of an upstream that stays as it is', async () => {
    const origin = await originWith()
    let connections = 0
    const agent = keptConnections()
    const seenPorts = new Set<number | undefined>()
    origin.answer((incoming, response) => {
      seenPorts.add(incoming.socket.remotePort)
      response.end()
    })
    const gateway = await gatewayWith(tableFor(origin))
    for (; connections < 5; connections++) {
      await request(`${gateway.url}/x`, { agent })
      await gateway.gateway.reload()
    }
    expect(seenPorts.size).toBe(1)
  })
})

describe('requests in flight', () => {
  it('end under the plan that they began with, bodies and all; later ones meet the new one', async () => {
    const { origin, waiting, owes } = await patientOrigin()
    const two = await originWith((_incoming, response) => response.end('two'))
    const gateway = await gatewayWith(tableFor(origin, 'headers: {response: {set: {X-Plan: old}}}'))
    let headCame = false
    const unanswered = request(`${gateway.url}/unanswered`)
    await owes(1)
    const streaming = request(`${gateway.url}/streaming`, { onHead: () => (headCame = true) })
    await owes(2)
    waiting[1]?.write('begun, ')
    await until(() => headCame, 'the head of the stream')

    gateway.rewrite(tableFor(two, 'headers: {response: {set: {X-Plan: new}}}'))
    await gateway.gateway.reload()
    const later = await request(`${gateway.url}/later`)
    expect([later.text, later.headers['x-plan']]).toEqual(['two', 'new'])
    waiting[0]?.end('answered')
    waiting[1]?.end('ended')
    const answers = [await unanswered, await streaming]
    expect(answers.map(({ status, text, headers }) => [status, text, headers['x-plan']])).toEqual([
      [200, 'answered', 'old'],
      [200, 'begun, ended', 'old'],
    ])
  })

  it('may still ask their old upstream: one that waited in vain for what another was fetching', async () => {
    const { origin, waiting, owes } = await patientOrigin()
    const two = await originWith()
    const counted = 'limits: {l: {limit: 9, window: 1m}}'
    const gateway = await gatewayWith(tableFor(origin, 'cache: {ttl: 1h}, limits: [l]', counted))
    const leader = request(`${gateway.url}/x`)
    await owes(1)
    const follower = request(`${gateway.url}/x`)
    // Its connection alone says nothing: it is on the old plan once that has counted it.
    await until(() => gateway.gateway.limits()[0]?.decisions.admitted === 2, 'the second client')

    gateway.rewrite(tableFor(two, 'cache: {ttl: 1h}'))
    await gateway.gateway.reload()
    waiting[0]?.writeHead(200, { 'Cache-Control': 'private' }).end('mine')
    expect((await leader).text).toBe('mine')
    await owes(2)
    waiting[1]?.end('yours')
    expect([(await follower).status, (await follower).text]).toEqual([200, 'yours'])
    expect(two.seen).toHaveLength(0)
  })

  it('may still try again at their old upstream', async () => {
    const { origin, waiting, owes } = await patientOrigin()
    const two = await originWith()
    const gateway = await gatewayWith(tableFor(origin, 'retries: 1'))
    const asked = request(`${gateway.url}/x`)
    await owes(1)
    gateway.rewrite(tableFor(two))
    await gateway.gateway.reload()
    waiting[0]?.destroy()
    await owes(2)
    waiting[1]?.end('the second time')
    expect((await asked).text).toBe('the second time')
  })

  it('hold their old connections, which close when the last of them has ended', async () => {
    const { origin, waiting, owes } = await patientOrigin()
    const two = await originWith()
    const gateway = await gatewayWith(tableFor(origin))
    const asked = [request(`${gateway.url}/a`), request(`${gateway.url}/b`)]
    await owes(2)
    expect(origin.openSockets).toBe(2)
    gateway.rewrite(tableFor(two))
    await gateway.gateway.reload()
    waiting[0]?.end('a')
    await asked[0]
    expect(origin.openSockets).toBeGreaterThan(0)
    waiting[1]?.end('b')
    await asked[1]
    await until(() => origin.openSockets === 0, 'the connections to close')
    expect(gateway.gateway.upstreams().map(({ targets }) => targets.map(({ url }) => url))).toEqual([[two.url]])
  })

  it('are told when the gateway ends before they do, those under an old plan too', async () => {
    const { origin, owes } = await patientOrigin()
    const two = await originWith()
    const ports = 'listen: {address: 127.0.0.1:0, drain: 500ms}\nadmin: {listen: 127.0.0.1:0}\n'
    const gateway = await gatewayWith(ports + tableFor(origin))
    const asked = request(`${gateway.url}/x`)
    await owes(1)
    gateway.rewrite(ports + tableFor(two))
    expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
    await gateway.gateway.drain()
    expect((await asked).status).toBe(503)
    await until(() => origin.openSockets === 0, 'the old connection to close')
    expect(await gateway.gateway.reload()).toEqual({ ok: false, error: 'The gateway is shutting down.' })
  })
})

describe('many reloads', () => {
  it('at the same moment each end with a whole table; the last one stays', async () => {
    const origins = [await originWith(), await originWith(), await originWith()]
    const gateway = await gatewayWith(tableFor(origins[0] as Origin))
    const results = await Promise.all(
      Array.from({ length: 30 }, (_, i) => {
        gateway.rewrite(tableFor(origins[i % 3] as Origin))
        return gateway.gateway.reload()
      }),
    )
    expect(results.filter(({ ok }) => ok)).toHaveLength(30)
    await request(`${gateway.url}/x`)
    expect(origins.map(({ seen }) => seen.length)).toEqual([0, 0, 1])
  })

  it('50 valid and 25 invalid ones under load: not one request fails', async () => {
    const delayed: Script = (_incoming, response, count) => void setTimeout(() => response.end('ok'), count % 5)
    const [one, two] = [await originWith(delayed), await originWith(delayed)]
    const table = (origin: Origin, connections: number) => `
upstreams: {app: {targets: ["${origin.url}"], connections: ${connections}}}
limits: {many: {limit: 1000000, window: 1m}}
defaults: {upstream: app, limits: [many]}
routes:
  - {path: /cached/*, cache: {ttl: 1s}}
  - {path: /*}
`
    const gateway = await gatewayWith(table(one, 4))
    const agent = keptConnections()
    const failures: unknown[] = []
    let answered = 0
    const load = { goesOn: true }
    const client = async (number: number): Promise<void> => {
      for (let i = 0; load.goesOn; i++) {
        const [path, options] = [
          ['/plain', {}],
          [`/cached/${number}-${i}`, {}],
          ['/cached/shared', {}],
          ['/upload', { method: 'POST', body: 'x'.repeat(5000) }],
        ][i % 4] as [string, object]
        try {
          const answer: Answer = await request(gateway.url + path, { agent, ...options })
          if (answer.status !== 200 || answer.text !== 'ok') failures.push([path, answer.status, answer.text])
        } catch (error) {
          failures.push([path, error])
        }
        answered++
      }
    }
    const clients = Array.from({ length: 8 }, (_, number) => client(number))
    for (let i = 0; i < 75; i++) {
      gateway.rewrite(i % 3 === 2 ? 'routes: nonsense' : table(i % 2 === 0 ? two : one, 4 + (i % 4)))
      expect((await gateway.gateway.reload()).ok).toBe(i % 3 !== 2)
      const target = answered + 10
      await until(() => answered >= target, 'the load to go on')
    }
    load.goesOn = false
    await Promise.all(clients)
    expect(failures).toEqual([])
    expect(answered).toBeGreaterThan(750)
    // Connections of tables that are gone are gone as well.
    gateway.rewrite(table(one, 3))
    await gateway.gateway.reload()
    await until(() => one.openSockets + two.openSockets === 0, 'connections of old plans to close')
  })
})

describe('the admin port', () => {
  const post = (gateway: TestGateway) =>
    request(`${gateway.adminUrl}/api/reload`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: '{}',
    })

  it('reloads on POST /api/reload, and answers 422 with the errors where the table is invalid', async () => {
    const [one, two] = [await originWith(), await originWith()]
    const gateway = await gatewayWith(tableFor(one))
    gateway.rewrite(tableFor(two))
    const done = await post(gateway)
    expect([done.status, JSON.parse(done.text)]).toMatchObject([200, { ok: true }])
    await request(`${gateway.url}/x`)
    expect(two.seen).toHaveLength(1)

    gateway.rewrite('routes: []')
    const refused = await post(gateway)
    expect(refused.status).toBe(422)
    expect((JSON.parse(refused.text) as { error: string }).error).toMatch(/^test\.yaml:\d+:\d+ /m)
  })
})
