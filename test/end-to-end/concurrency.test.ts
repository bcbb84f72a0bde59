// An upstream that bears so many requests at the same time: what it sees, and what becomes of those that wait.

import http from 'node:http'
import { describe, expect, it } from 'vitest'
import { type Answer, type RequestOptions, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, closedPort, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

const yamlFor = (targets: readonly string[], concurrency: string, route = ''): string => `
trustedProxies: [127.0.0.1]
upstreams: {app: {targets: ${JSON.stringify(targets)}, concurrency: {${concurrency}}}}
routes: [{path: /*, upstream: app, ${route}}]
`

const gatewayTo = async (targets: readonly string[], concurrency: string, route?: string): Promise<TestGateway> =>
  closing(await startGateway(yamlFor(targets, concurrency, route)))

/** Answers when it is told to, in order of arrival. */
async function heldOrigin(): Promise<Origin & { readonly held: http.ServerResponse[] }> {
  const held: http.ServerResponse[] = []
  const origin = closing(await startOrigin((_message, response) => void held.push(response)))
  return Object.create(origin, { held: { value: held } }) as Origin & { held: http.ServerResponse[] }
}

const row = ({ gateway }: TestGateway) => gateway.upstreams()[0]
const of = (client: number): RequestOptions => ({ headers: { 'X-Forwarded-For': `192.0.2.${client}` } })

describe('an upstream that may have so many requests', () => {
  it('never has more, and answers all', async () => {
    let now = 0
    let most = 0
    const origin = closing(
      await startOrigin((_message, response) => {
        most = Math.max(most, ++now)
        setTimeout(() => {
          now--
          response.end('ok')
        }, 3)
      }),
    )
    const gateway = await gatewayTo([origin.url], 'max: 3, queue: 50')
    const answers = await Promise.all(Array.from({ length: 40 }, () => request(gateway.url)))
    expect(answers.every(({ text }) => text === 'ok')).toBe(true)
    expect(most).toBe(3)
    expect(row(gateway)).toMatchObject({ waiting: 0, refused: 0 })
  })

  it("keeps a request's place to the last byte of its answer", async () => {
    const origin = await heldOrigin()
    const gateway = await gatewayTo([origin.url], 'max: 1')
    const first = request(gateway.url)
    await until(() => origin.held.length === 1, 'the first at the origin')
    origin.held[0]?.write('begun ')
    const second = request(gateway.url)
    await until(() => row(gateway)?.waiting === 1, 'the second in line')
    expect(gateway.gateway.metrics()).toContain('weirgate_upstream_waiting{upstream="app"} 1\n')
    expect(origin.seen).toHaveLength(1)
    origin.held[0]?.end('done')
    expect((await first).text).toBe('begun done')
    await until(() => origin.held.length === 2, 'the second at the origin')
    origin.held[1]?.end('next')
    expect((await second).text).toBe('next')
  })

  it('refuses beyond the line: 503 saturated, which says when to come again', async () => {
    const origin = await heldOrigin()
    const gateway = await gatewayTo([origin.url], 'max: 1, queue: 1')
    const waiting = [request(gateway.url)]
    await until(() => origin.held.length === 1, 'the first at the origin')
    waiting.push(request(gateway.url))
    await until(() => row(gateway)?.waiting === 1, 'the second in line')
    const refused = await request(gateway.url, { method: 'POST', body: 'x' })
    expect([refused.status, refused.headers['retry-after']]).toEqual([503, '1'])
    expect(JSON.parse(refused.text)).toMatchObject({ code: 'saturated' })
    expect(gateway.gateway.metrics()).toContain('weirgate_upstream_refused_total{upstream="app"} 1\n')
    origin.held[0]?.end()
    await until(() => origin.held.length === 2, 'the second at the origin')
    origin.held[1]?.end()
    expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual([200, 200])
  })

  it('refuses who has waited for too long', async () => {
    const origin = await heldOrigin()
    const gateway = await gatewayTo([origin.url], 'max: 1, wait: 30ms')
    const first = request(gateway.url)
    await until(() => origin.held.length === 1, 'the first at the origin')
    const late = await request(gateway.url)
    expect([late.status, JSON.parse(late.text)]).toMatchObject([503, { code: 'saturated' }])
    origin.held[0]?.end('ok')
    expect((await first).text).toBe('ok')
    expect(origin.seen).toHaveLength(1)
  })

  it('refuses at once who would wait for longer than it has time', async () => {
    const origin = await heldOrigin()
    const gateway = closing(
      await startGateway(`
upstreams: {app: {targets: ["${origin.url}"], concurrency: {max: 1}}}
defaults: {upstream: app}
routes: [{path: /*}, {path: /short, timeouts: {total: 250ms}}]
`),
    )
    const first = request(gateway.url)
    await until(() => origin.held.length === 1, 'the first at the origin')
    setTimeout(() => origin.held[0]?.end(), 300)
    await first
    const second = request(gateway.url)
    await until(() => origin.held.length === 2, 'the second at the origin')
    // Had it been in line, this were a 504.
    const refused = await request(`${gateway.url}/short`, { method: 'POST', body: 'x' })
    expect([refused.status, refused.headers['retry-after'], JSON.parse(refused.text)]).toMatchObject([
      503,
      '1',
      { code: 'saturated' },
    ])
    origin.held[1]?.end()
    expect((await second).status).toBe(200)
    expect(origin.seen).toHaveLength(2)
  })

  it('tells a client that it has more than its share of the line', async () => {
    const origin = await heldOrigin()
    const gateway = await gatewayTo([origin.url], 'max: 1, queue: 3', 'cache: {ttl: 1h}')
    const answers = [request(`${gateway.url}/0`, of(9))]
    await until(() => origin.held.length === 1, 'the first at the origin')
    for (let i = 1; i < 4; i++) {
      answers.push(request(`${gateway.url}/${i}`, of(1)))
      await until(() => row(gateway)?.waiting === i, 'it to be in line')
    }
    answers.push(request(`${gateway.url}/4`, of(2)))
    const last = await (answers[3] as Promise<Answer>)
    expect([last.status, last.headers['retry-after'], JSON.parse(last.text)]).toMatchObject([
      429,
      '1',
      { code: 'share_exceeded' },
    ])
    for (let i = 0; i < 4; i++) {
      await until(() => origin.held.length === i + 1, 'the next at the origin')
      origin.held[i]?.end()
    }
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([200, 200, 200, 429, 200])
  })

  it('lets a client that asks for little in before one that asks for much', async () => {
    const origin = await heldOrigin()
    const gateway = await gatewayTo([origin.url], 'max: 1')
    const answers = [request(`${gateway.url}/first`, of(9))]
    await until(() => origin.held.length === 1, 'the first at the origin')
    for (let i = 0; i < 6; i++) {
      answers.push(request(`${gateway.url}/much`, of(1)))
      await until(() => row(gateway)?.waiting === i + 1, 'it to be in line')
    }
    answers.push(request(`${gateway.url}/little`, of(2)))
    await until(() => row(gateway)?.waiting === 7, 'all to be in line')
    for (let i = 0; i < 8; i++) {
      await until(() => origin.held.length === i + 1, 'the next at the origin')
      origin.held[i]?.end()
    }
    await Promise.all(answers)
    expect(origin.seen.map(({ url }) => url).slice(0, 4)).toEqual(['/first', '/much', '/little', '/much'])
  })

  it('forgets a client that goes while it waits, and has not read its body', async () => {
    const origin = await heldOrigin()
    const gateway = await gatewayTo([origin.url], 'max: 1')
    const first = request(gateway.url)
    await until(() => origin.held.length === 1, 'the first at the origin')
    const gone = http.request(gateway.url, { method: 'POST', agent: false, headers: { Expect: '100-continue' } })
    let wasInvited = false
    gone.on('error', () => {}).on('continue', () => (wasInvited = true))
    gone.flushHeaders()
    await until(() => row(gateway)?.waiting === 1, 'it to be in line')
    gone.destroy()
    await until(() => row(gateway)?.waiting === 0, 'it to be out of it')
    expect(wasInvited).toBe(false)
    origin.held[0]?.end('ok')
    expect((await first).text).toBe('ok')
    const next = request(gateway.url)
    await until(() => origin.held.length === 2, 'the next at the origin')
    origin.held[1]?.end('next')
    expect((await next).text).toBe('next')
    expect(origin.seen).toHaveLength(2)
  })

  it('counts a request once, whatever becomes of its attempts', async () => {
    const origin = closing(await startOrigin())
    const sick = closing(await startOrigin((_message, response) => response.writeHead(503).end()))
    const dead = `http://127.0.0.1:${await closedPort()}`
    const gateway = await gatewayTo([dead, sick.url, origin.url], 'max: 1', 'retries: 3')
    for (let i = 0; i < 12; i++) expect((await request(gateway.url)).status).toBe(200)
    const alone = await gatewayTo([dead], 'max: 1')
    for (let i = 0; i < 4; i++) expect((await request(alone.url)).status).toBe(502)
    const cut = closing(
      await startOrigin((_message, response) => {
        response.writeHead(200, { 'Content-Length': 9 }).write('x', () => response.destroy())
      }),
    )
    const broken = await gatewayTo([cut.url], 'max: 1')
    for (let i = 0; i < 4; i++)
      await expect(request(broken.url)).rejects.toThrow(/aborted|ECONNRESET|hang up|broke off/)
    expect(cut.seen).toHaveLength(4)
  })

  it("keeps a request's place from one attempt to the next", async () => {
    const sick = closing(await startOrigin((_message, response) => response.writeHead(503).end()))
    const origin = await heldOrigin()
    const gateway = await gatewayTo([sick.url, origin.url], 'max: 1')
    const first = request(gateway.url)
    await until(() => origin.held.length === 1, 'the second attempt of the first')
    const second = request(gateway.url, { method: 'POST' })
    await until(() => row(gateway)?.waiting === 1, 'the second in line')
    origin.held[0]?.end('first')
    expect((await first).text).toBe('first')
    await until(() => origin.held.length === 2, 'the second at the origin')
    origin.held[1]?.end('second')
    expect((await second).text).toBe('second')
  })

  it('has the least at first where its limit adapts, and more when that is well', async () => {
    const origin = await heldOrigin()
    const gateway = await gatewayTo([origin.url], 'max: 20, adaptive: true, min: 2')
    const held = Array.from({ length: 5 }, () => request(gateway.url))
    await until(() => row(gateway)?.waiting === 3, 'three in line')
    expect([origin.held.length, row(gateway)?.limit]).toEqual([2, 2])
    expect(gateway.gateway.metrics()).toContain('weirgate_upstream_limit{upstream="app"} 2\n')
    origin.answer((_message, response) => response.end('ok'))
    for (const response of origin.held) response.end()
    await Promise.all(held)
    const ask = () => Promise.all(Array.from({ length: 4 }, () => request(gateway.url)))
    for (let i = 0; i < 500 && row(gateway)?.limit === 2; i++) await ask()
    expect(row(gateway)?.limit).toBeGreaterThan(2)
  })

  it('has the least again where its limit adapts and it fails', async () => {
    const origin = closing(await startOrigin())
    const gateway = await gatewayTo([origin.url], 'max: 20, adaptive: true, min: 2')
    const ask = () => Promise.all(Array.from({ length: 8 }, () => request(gateway.url)))
    for (let i = 0; i < 500 && Number(row(gateway)?.limit) < 4; i++) await ask()
    expect(row(gateway)?.limit).toBeGreaterThanOrEqual(4)
    origin.answer((_message, response) => response.writeHead(503).end())
    for (let i = 0; i < 500 && row(gateway)?.limit !== 2; i++) await ask()
    expect(row(gateway)?.limit).toBe(2)
  })

  it('has its line emptied when the gateway ends, and kept when it reloads', async () => {
    const origin = await heldOrigin()
    const gateway = await gatewayTo([origin.url], 'max: 1')
    const first = request(gateway.url)
    await until(() => origin.held.length === 1, 'the first at the origin')
    const second = request(gateway.url)
    await until(() => row(gateway)?.waiting === 1, 'the second in line')
    gateway.rewrite(yamlFor([origin.url], 'max: 2'))
    expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
    origin.held[0]?.end('one')
    await until(() => origin.held.length === 2, 'the second at the origin')
    origin.held[1]?.end('two')
    expect([(await first).text, (await second).text]).toEqual(['one', 'two'])
    const more = Array.from({ length: 3 }, () => request(gateway.url).catch(() => null))
    await until(() => row(gateway)?.waiting === 1, 'one in line')
    await gateway.close()
    await Promise.all(more)
    expect(row(gateway)?.waiting).toBe(0)
  })

  it('has what is stored answered at once', async () => {
    const origin = await heldOrigin()
    const gateway = await gatewayTo([origin.url], 'max: 1, queue: 0', 'cache: {ttl: 1h}')
    const first = request(`${gateway.url}/a`)
    await until(() => origin.held.length === 1, 'the first at the origin')
    origin.held[0]?.end('stored')
    await first
    const busy = request(`${gateway.url}/b`)
    await until(() => origin.held.length === 2, 'the second at the origin')
    expect((await request(`${gateway.url}/a`)).text).toBe('stored')
    expect((await request(`${gateway.url}/c`)).status).toBe(503)
    origin.held[1]?.end()
    expect((await busy).status).toBe(200)
  })
})
