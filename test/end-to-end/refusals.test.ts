// An upstream that refuses requests and says when to come again: who waits for that, who gets it as it is, and that
// nothing is done twice.

import { describe, expect, it } from 'vitest'
import { type Answer, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, type Script, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

async function gatewayTo(targets: readonly string[], options = '', route = ''): Promise<TestGateway> {
  return closing(
    await startGateway(`
upstreams: {app: {targets: ${JSON.stringify(targets)}, health: {failures: 0}, ${options}}}
routes: [{path: /*, upstream: app, ${route}}]
`),
  )
}

type Fields = Record<string, string>

const SOON: Fields = { 'Retry-After-Ms': '60' }
const LATE: Fields = { 'Retry-After': '3600' }

/** Refuses the first requests, and echoes the others. */
const refusing =
  (status: number, headers: Fields, times = 1): Script =>
  (message, response, count) => {
    if (count > times) message.pipe(response)
    else message.resume().on('end', () => response.writeHead(status, headers).end('refused'))
  }

const refuserOf = async (status: number, headers: Fields, times?: number): Promise<Origin> =>
  closing(await startOrigin(refusing(status, headers, times)))

const attemptsOf = ({ headers }: Answer): unknown => headers['x-weirgate-attempts']
const row = ({ gateway }: TestGateway) => gateway.upstreams()[0]

async function timed(answer: Promise<Answer>): Promise<Answer & { readonly afterMs: number }> {
  const startedAtMs = performance.now()
  return { ...(await answer), afterMs: performance.now() - startedAtMs }
}

describe('an upstream that refuses a request for a while', () => {
  it.each<[number, Fields, number]>([
    [503, { 'Retry-After-Ms': '60' }, 60],
    [429, { 'Retry-After-Ms': '60' }, 60],
    [503, { 'Retry-After': '0' }, 0],
    [503, { 'Retry-After': '1' }, 1000],
    [503, { 'Retry-After': 'Sun, 06 Nov 1994 08:49:37 GMT' }, 0],
  ])('is asked once more when it has had its time: %d %j', async (status, headers, waitMs) => {
    const origin = await refuserOf(status, headers)
    const gateway = await gatewayTo([origin.url])
    const answer = await timed(request(gateway.url, { method: 'PUT', body: 'hello' }))
    expect([answer.status, answer.text, attemptsOf(answer)]).toEqual([200, 'hello', '2'])
    expect(answer.afterMs).toBeGreaterThanOrEqual(waitMs)
  })

  it.each<[string, Fields, string]>([
    ['it names no time', {}, ''],
    ['the time makes no sense', { 'Retry-After': 'soon' }, ''],
    ['the time is too long', LATE, ''],
    ['the time is too long for this upstream', { 'Retry-After-Ms': '60' }, 'refusals: {wait: 50ms}'],
    ['nobody is to wait', { 'Retry-After': '0' }, 'refusals: {wait: 0s}'],
    ['the total ends before it', { 'Retry-After': '2' }, 'timeouts: {total: 1s}'],
    ['nothing is tried again', SOON, 'retries: 0'],
  ])('is passed on where %s', async (_why, headers, options) => {
    for (const status of [503, 429]) {
      const origin = await refuserOf(status, headers, 9)
      const gateway = await gatewayTo([origin.url], options)
      const answer = await request(gateway.url)
      const [[name, value] = ['retry-after', undefined]] = Object.entries(headers)
      expect([answer.status, answer.text, answer.headers[name.toLowerCase()]]).toEqual([status, 'refused', value])
      expect(origin.seen).toHaveLength(1)
    }
  })

  it('is passed on, the last answer of it, when it goes on refusing', async () => {
    const origin = await refuserOf(503, SOON, 9)
    const gateway = await gatewayTo([origin.url], 'retries: 2')
    const answer = await request(gateway.url)
    expect([answer.status, answer.text, attemptsOf(answer)]).toEqual([503, 'refused', '3'])
  })

  it.each<[string, string, string, number]>([
    ['GET', 'idempotent', '', 2],
    ['PUT', 'idempotent', 'x', 2],
    ['DELETE', 'idempotent', '', 2],
    ['POST', 'idempotent', 'x', 1],
    ['PATCH', 'idempotent', 'x', 1],
    ['POST', 'all', 'x', 2],
    ['POST', 'all', 'x'.repeat(64 * 1024 + 1), 1],
    ['PATCH', 'all', '', 2],
  ])('[RFC 9110 §9.2.2] sees a %s where methods are %s: %.3s, %d times', async (method, methods, body, times) => {
    for (const status of [503, 429]) {
      const origin = await refuserOf(status, SOON)
      const gateway = await gatewayTo([origin.url], `refusals: {methods: ${methods}}`)
      const answer = await request(gateway.url, { method, body })
      expect([answer.status, origin.seen.length]).toEqual([times === 1 ? status : 200, times])
      for (const { body: seen } of origin.seen) expect((await seen).toString()).toBe(body)
    }
  })

  it('never sees a POST twice for a 503 without Retry-After, or any other failure, whatever methods say', async () => {
    for (const status of [500, 502, 503, 504, 429]) {
      const [sick, well] = [
        await refuserOf(status, status === 503 || status === 429 ? {} : SOON, 9),
        await refuserOf(200, {}, 0),
      ]
      const gateway = await gatewayTo([sick.url, well.url], 'refusals: {methods: all}')
      for (let i = 0; i < 4; i++) await request(gateway.url, { method: 'POST', body: 'x' })
      expect(sick.seen.length + well.seen.length).toBe(4)
    }
  })
})

describe('another target that is well', () => {
  it.each([503, 429])('is asked at once after a %d, however long the first wants to be left alone', async (status) => {
    const [sick, well] = [await refuserOf(status, LATE, 9), await refuserOf(200, {}, 0)]
    const gateway = await gatewayTo([sick.url, well.url])
    for (let i = 0; i < 4; i++) expect((await request(gateway.url)).status).toBe(200)
    expect(sick.seen.length).toBeGreaterThan(0)
    expect(
      (await request(gateway.url, { method: 'POST' })).status + (await request(gateway.url, { method: 'POST' })).status,
    ).toBe(200 + status)
  })
})

describe('a request that waits until it may come again', () => {
  it('has no place at the upstream meanwhile, and gets in line for one', async () => {
    const origin = closing(
      await startOrigin((message, response) => {
        if (message.url === '/other') response.end('other')
        else
          refusing(503, { 'Retry-After': '1' })(message, response, origin.seen.filter(({ url }) => url === '/').length)
      }),
    )
    const gateway = await gatewayTo([origin.url], 'concurrency: {max: 1, queue: 1}')
    const waiting = request(gateway.url)
    await until(() => row(gateway)?.retries === 0 && origin.seen.length === 1, 'the refusal')
    expect((await request(`${gateway.url}/other`)).text).toBe('other')
    expect([origin.seen.length, (await waiting).status, origin.seen.length]).toEqual([2, 200, 3])
  })

  it('is forgotten when its client goes', async () => {
    const origin = await refuserOf(503, { 'Retry-After': '5' }, 9)
    const gateway = await gatewayTo([origin.url])
    const controller = new AbortController()
    const asked = fetch(gateway.url, { signal: controller.signal }).catch(() => {})
    await until(() => origin.aborted + origin.seen.length > 0 && row(gateway)?.targets[0]?.in_flight === 0, 'the wait')
    controller.abort()
    await asked
    expect(await gateway.requestLines(1)).toMatchObject([{ status_code: 499 }])
    expect(origin.seen).toHaveLength(1)
  })

  it('is told when the gateway ends', async () => {
    const origin = await refuserOf(503, { 'Retry-After': '9' }, 9)
    const gateway = closing(
      await startGateway(`
listen: {address: 127.0.0.1:0, drain: 600ms}
admin: {listen: 127.0.0.1:0}
upstreams: {app: {targets: ["${origin.url}"]}}
routes: [{path: /*, upstream: app}]
`),
    )
    const asked = request(gateway.url)
    await until(() => origin.seen.length === 1 && row(gateway)?.targets[0]?.in_flight === 0, 'the wait')
    await gateway.gateway.drain()
    const answer = await asked
    expect([answer.status, JSON.parse(answer.text)]).toMatchObject([503, { code: 'draining' }])
  })

  it('does not wait where something stored may answer', async () => {
    const origin = closing(
      await startOrigin((_message, response, count) => {
        if (count === 1) response.writeHead(200, { 'Cache-Control': 'max-age=0', ETag: '"1"' }).end('stored')
        else response.writeHead(503, { 'Retry-After': '5' }).end('refused')
      }),
    )
    const gateway = await gatewayTo([origin.url], '', 'cache: {stale: {ifError: 1d}}')
    await request(gateway.url)
    const answer = await timed(request(gateway.url))
    expect([answer.text, answer.headers['x-cache'], attemptsOf(answer)]).toEqual(['stored', 'STALE', undefined])
    expect(answer.afterMs).toBeLessThan(5000)
    expect(origin.seen).toHaveLength(2)
  })
})
