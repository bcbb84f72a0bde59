// An upstream that has asked to be left alone, where the table says that this is heard for all: who waits, who is told at
// once, and that nothing goes to it meanwhile.

import { describe, expect, it } from 'vitest'
import { type Answer, type RequestOptions, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, type Script, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

async function gatewayTo(targets: readonly string[], refusals: string, more = '', route = ''): Promise<TestGateway> {
  return closing(
    await startGateway(`
trustedProxies: [127.0.0.1]
upstreams: {app: {targets: ${JSON.stringify(targets)}, refusals: {${refusals}}, health: {failures: 0}, ${more}}}
routes: [{path: /*, upstream: app, ${route}}]
`),
  )
}

const LATE = { 'Retry-After': '3600' }

const refusing =
  (status: number, headers: Record<string, string> = LATE): Script =>
  (_message, response) =>
    void response.writeHead(status, headers).end('refused')

const refuserOf = async (status: number, headers?: Record<string, string>): Promise<Origin> =>
  closing(await startOrigin(refusing(status, headers)))

const row = ({ gateway }: TestGateway) => gateway.upstreams()[0]
const codeOf = (text: string): unknown => (JSON.parse(text) as { code: string }).code
/** Retry-After is what is left of so many seconds. */
function expectLeft({ headers }: Answer, seconds: number): void {
  expect(Number(headers['retry-after'])).toBeLessThanOrEqual(seconds)
  expect(Number(headers['retry-after'])).toBeGreaterThan(seconds - 15)
}
const of = (client: number): RequestOptions => ({ headers: { 'X-Forwarded-For': `192.0.2.${client}` } })

describe('an upstream that has asked to be left alone', () => {
  it.each<[string, number, boolean]>([
    ['', 503, false],
    ['', 429, false],
    ['coolDown: unavailable', 503, true],
    ['coolDown: unavailable', 429, false],
    ['coolDown: all', 503, true],
    ['coolDown: all', 429, true],
    ['coolDown: all', 502, false],
  ])('is left alone by everybody where the table says so: {%s} and %d, %j', async (refusals, status, isLeftAlone) => {
    const origin = await refuserOf(status)
    const gateway = await gatewayTo([origin.url], refusals)
    const first = await request(gateway.url, { method: 'POST', ...of(1) })
    expect([first.status, first.text]).toEqual([status, 'refused'])
    const second = await request(gateway.url, of(2))
    expect(second.status).toBe(isLeftAlone ? 503 : status)
    expectLeft(second, isLeftAlone ? 60 : 3600)
    expect(second.text).toContain(isLeftAlone ? '"code":"cooling_down"' : 'refused')
    expect(origin.seen).toHaveLength(isLeftAlone ? 1 : 2)
  })

  it('is asked by the first who comes after that', async () => {
    const origin = await refuserOf(503, { 'Retry-After-Ms': '300' })
    const gateway = await gatewayTo([origin.url], 'coolDown: unavailable, wait: 0s')
    const startedAtMs = performance.now()
    await request(gateway.url)
    origin.answer((_message, response) => response.end('well'))
    await until(() => row(gateway)?.targets[0]?.cooling_until === null, 'the cool-down to be over')
    expect(performance.now() - startedAtMs).toBeGreaterThanOrEqual(299)
    expect((await request(gateway.url)).text).toBe('well')
    expect(origin.seen).toHaveLength(2)
  })

  it('names no time: then nothing changes', async () => {
    const origin = await refuserOf(503, {})
    const gateway = await gatewayTo([origin.url], 'coolDown: all')
    for (let i = 0; i < 3; i++) expect((await request(gateway.url)).text).toBe('refused')
  })

  it.each([
    [100, 20, 'changes nothing'],
    [100, 1000, 'counts from then on'],
  ])('after %d s asks for %d s: that %s', async (first, then) => {
    let release = (): void => {}
    const origin = closing(
      await startOrigin((message, response) => {
        const time = message.url?.slice(1) ?? ''
        release = () => void response.writeHead(503, { 'Retry-After': time }).end()
        if (time === String(first)) release()
      }),
    )
    const gateway = await gatewayTo([origin.url], 'coolDown: unavailable, maxCoolDown: 1h')
    const held = request(`${gateway.url}/${then}`)
    await until(() => origin.seen.length === 1, 'the slow one at the origin')
    const finish = release
    await request(`${gateway.url}/${first}`)
    finish()
    await held
    const told = await request(gateway.url)
    expect(told.status).toBe(503)
    expectLeft(told, Math.max(first, then))
  })

  it('is seen in /health, on the admin port, in the log and in the metrics', async () => {
    const origin = await refuserOf(503)
    const gateway = await gatewayTo([origin.url], 'coolDown: unavailable')
    const metric = `weirgate_upstream_target_cooling{upstream="app",target="${origin.url}"}`
    expect(gateway.gateway.metrics()).toContain(`${metric} 0\n`)
    expect(row(gateway)?.targets[0]?.cooling_until).toBe(null)
    const beforeMs = Date.now()
    await request(gateway.url)
    expect(gateway.gateway.metrics()).toContain(`${metric} 1\n`)
    expect((await request(`${gateway.url}/health`)).text).toContain('"upstreams":{"app":"down"}')
    const untilMs = Date.parse(row(gateway)?.targets[0]?.cooling_until ?? '')
    expect(untilMs).toBeGreaterThanOrEqual(beforeMs + 59_000)
    expect(untilMs).toBeLessThanOrEqual(Date.now() + 61_000)
    const lines = gateway.log.filter(({ message }) => message === 'Upstream target is left alone, as it has asked')
    expect(lines).toMatchObject([{ upstream: 'app', target: origin.url, level: 'WARNING', reason: 'status 503, 60 s' }])
  })

  it('has what is stored answered for it, and hits go on', async () => {
    const origin = closing(
      await startOrigin((message, response) => {
        if (message.url === '/sick') refusing(503)(message, response, 0)
        else
          response
            .writeHead(200, { 'Cache-Control': message.url === '/hit' ? 'max-age=60' : 'max-age=0', ETag: '"1"' })
            .end('ok')
      }),
    )
    const gateway = await gatewayTo([origin.url], 'coolDown: unavailable', '', 'cache: {stale: {ifError: 1d}}')
    for (const path of ['/hit', '/stale', '/sick']) await request(`${gateway.url}${path}`)
    const answers = await Promise.all(['/hit', '/stale', '/new'].map((path) => request(`${gateway.url}${path}`)))
    expect(answers.map(({ status, headers }) => `${status} ${String(headers['x-cache'])}`)).toEqual([
      '200 HIT',
      '200 STALE',
      '503 MISS',
    ])
    expect(origin.seen).toHaveLength(3)
  })

  it('has its fallback answered for it', async () => {
    const origin = await refuserOf(503)
    const gateway = await gatewayTo([origin.url], 'coolDown: unavailable', '', "fallback: {status: 200, body: '[]'}")
    await request(gateway.url)
    const answer = await request(gateway.url)
    expect([answer.status, answer.text]).toEqual([200, '[]'])
    expectLeft(answer, 60)
  })
})

describe('one of several targets that has asked to be left alone', () => {
  it('is left out; the others have its requests', async () => {
    const [sick, well] = [await refuserOf(429), closing(await startOrigin())]
    const gateway = await gatewayTo([sick.url, well.url], 'coolDown: all', 'concurrency: {max: 1}')
    for (let i = 0; i < 8; i++) expect((await request(gateway.url)).status).toBe(200)
    expect([sick.seen.length, well.seen.length]).toEqual([1, 8])
    expect((await request(`${gateway.url}/health`)).text).toContain('"upstreams":{"app":"degraded"}')
  })

  it('is one of all: then the first that may be asked again says when', async () => {
    const all = [await refuserOf(503, { 'Retry-After': '50' }), await refuserOf(503, { 'Retry-After': '20' })]
    const gateway = await gatewayTo(
      all.map(({ url }) => url),
      'coolDown: unavailable',
    )
    await request(gateway.url, { method: 'POST' })
    await request(gateway.url, { method: 'POST' })
    const told = await request(gateway.url)
    expect(codeOf(told.text)).toBe('cooling_down')
    expectLeft(told, 20)
    expect(all.map(({ seen }) => seen.length)).toEqual([1, 1])
  })
})

describe('a line before such an upstream', () => {
  it('is where requests wait for the end of it, a POST too, if there is time', async () => {
    const origin = await refuserOf(503, { 'Retry-After': '1' })
    const gateway = await gatewayTo([origin.url], 'coolDown: unavailable, wait: 0s', 'concurrency: {max: 2}')
    const startedAtMs = performance.now()
    await request(gateway.url)
    origin.answer((_message, response) => response.end('well'))
    const waiting = Array.from({ length: 5 }, () => request(gateway.url, { method: 'POST', body: 'x' }))
    await until(() => row(gateway)?.waiting === 5, 'all to be in line')
    expect(origin.seen).toHaveLength(1)
    expect((await Promise.all(waiting)).map(({ text }) => text)).toEqual(Array.from({ length: 5 }, () => 'well'))
    expect(performance.now() - startedAtMs).toBeGreaterThanOrEqual(999)
    expect(origin.seen).toHaveLength(6)
  })

  it('is not joined by who has no time for that', async () => {
    const origin = await refuserOf(503)
    const gateway = await gatewayTo([origin.url], 'coolDown: unavailable', 'concurrency: {max: 2}')
    await request(gateway.url)
    const told = await request(gateway.url)
    expect([codeOf(told.text), row(gateway)?.refused]).toEqual(['cooling_down', 1])
    expectLeft(told, 60)
  })

  it('is left by those who have no time for that, at once', async () => {
    let release = (): void => {}
    const origin = closing(
      await startOrigin((message, response) => (release = () => refusing(503)(message, response, 0))),
    )
    const gateway = await gatewayTo([origin.url], 'coolDown: unavailable', 'concurrency: {max: 1}')
    const first = request(gateway.url)
    await until(() => origin.seen.length === 1, 'the first at the origin')
    const waiting = [request(gateway.url), request(gateway.url)]
    await until(() => row(gateway)?.waiting === 2, 'the others in line')
    release()
    expect((await first).text).toBe('refused')
    for (const { status, text } of await Promise.all(waiting))
      expect([status, codeOf(text)]).toEqual([503, 'cooling_down'])
    expect([origin.seen.length, row(gateway)?.waiting]).toEqual([1, 0])
  })
})
