// Copies of requests for another upstream: what is copied, and that nobody notices.

import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, type Script, closedPort, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

interface Pair {
  readonly gateway: TestGateway
  readonly app: Origin
  readonly shadow: Origin
  /** What became of copies, as the metrics say. */
  readonly copies: (result: string) => number
}

interface Options {
  readonly route?: string
  readonly mirror?: string
  readonly script?: Script
  readonly shadowUrl?: string
  readonly upstream?: string
}

async function startPair({ route = '', mirror = '', script, shadowUrl, upstream = '' }: Options = {}): Promise<Pair> {
  const app = closing(await startOrigin())
  const shadow = closing(await startOrigin(script))
  const gateway = closing(
    await startGateway(`
upstreams: {app: {targets: [${app.url}]}, shadow: {targets: [${shadowUrl ?? shadow.url}], ${upstream}}}
defaults: {upstream: app}
routes: [{path: /*, mirror: {upstream: shadow, ${mirror}}, ${route}}]
`),
  )
  const copies = (result: string): number => {
    const series = `weirgate_mirrored_requests_total{upstream="shadow",result="${result}"} `
    const line = gateway.gateway
      .metrics()
      .split('\n')
      .find((each) => each.startsWith(series))
    return Number(line?.slice(series.length) ?? 0)
  }
  return { gateway, app, shadow, copies }
}

const silent: Script = () => {}

describe('a copy', () => {
  it('is what went out, with a mark', async () => {
    const { gateway, app, shadow, copies } = await startPair({ route: 'rewrite: {prefix: /v2}' })
    const headers = { Authorization: 'Bearer x', Cookie: 'a=b', 'X-Weirgate-Mirror': 'mine', 'X-A': '1' }
    const answer = await request(`${gateway.url}/x?q=1`, { headers })
    expect(answer.text).toBe('answer 1')
    await until(() => copies('answered') === 1, 'the answer to the copy')
    const [sent] = app.seen
    const [copy] = shadow.seen
    expect(sent?.headers['x-weirgate-mirror']).toBeUndefined()
    expect([copy?.method, copy?.url]).toEqual(['GET', '/v2/x?q=1'])
    expect(copy?.headers).toEqual({ ...sent?.headers, 'x-weirgate-mirror': '1' })
    expect(copy?.headers).toMatchObject({ authorization: 'Bearer x', cookie: 'a=b' })
  })

  it.each<[string, Record<string, string>]>([
    ['of a known length', {}],
    ['in chunks', { 'Transfer-Encoding': 'chunked' }],
  ])('has the body, %s', async (_how, headers) => {
    const { gateway, app, shadow, copies } = await startPair()
    const body = 'x'.repeat(64 * 1024)
    expect((await request(gateway.url, { method: 'POST', headers, body })).status).toBe(200)
    await until(() => copies('answered') === 1, 'the answer to the copy')
    expect((await app.seen[0]?.body)?.toString()).toBe(body)
    expect((await shadow.seen[0]?.body)?.toString()).toBe(body)
  })

  it.each<[string, Options, Record<string, string>]>([
    ['of a known length', {}, {}],
    ['in chunks', {}, { 'Transfer-Encoding': 'chunked' }],
    ['that is part of the key', { route: 'cache: {ttl: 1h, scope: public, methods: [POST], key: {body: raw}}' }, {}],
  ])('is not made of a longer body, %s', async (_how, options, headers) => {
    const { gateway, app, shadow, copies } = await startPair(options)
    const body = 'x'.repeat(64 * 1024 + 1)
    expect((await request(gateway.url, { method: 'POST', headers, body })).status).toBe(200)
    await until(() => copies('too_long') === 1, 'it to be counted')
    expect((await app.seen[0]?.body)?.length).toBe(body.length)
    expect(shadow.seen).toEqual([])
  })

  it('is made of what goes to the upstream, not of hits', async () => {
    const { gateway, app, shadow, copies } = await startPair({ route: 'cache: {ttl: 1h}' })
    for (const path of ['/a', '/a', '/b', '/a']) await request(gateway.url + path)
    await until(() => copies('answered') === 2, 'the answers to the copies')
    expect(shadow.seen.map(({ url }) => url).toSorted()).toEqual(app.seen.map(({ url }) => url).toSorted())
  })

  it.each<[number, number]>([
    [50, 0],
    [51, 1],
  ])('is made of so many of a hundred: of %i where the lot is 50', async (percent, count) => {
    const { gateway, shadow } = await startPair({ mirror: `percent: ${percent}` })
    await request(gateway.url)
    await request(gateway.url)
    // Copies go out before the answer comes back, but over a connection that has to be made.
    await until(() => shadow.seen.length >= 2 * count, 'the copies')
    expect(shadow.seen.length).toBe(2 * count)
  })

  it('is not made of a request that is not sent', async () => {
    const { gateway, app, shadow, copies } = await startPair({ route: 'maxBody: 10B' })
    expect((await request(gateway.url, { method: 'POST', body: 'x'.repeat(11) })).status).toBe(413)
    await request(gateway.url)
    await until(() => copies('answered') === 1, 'the copy of the one that is')
    expect([app.seen.length, shadow.seen.length]).toEqual([1, 1])
  })
})

describe('nobody notices', () => {
  it('that the other upstream says nothing', async () => {
    const { gateway, shadow } = await startPair({ script: silent })
    for (let i = 1; i <= 3; i++) expect((await request(gateway.url)).text).toBe(`answer ${i}`)
    await until(() => shadow.seen.length === 3, 'the copies')
  })

  it('that it fails, which is counted and not tried again', async () => {
    const { gateway, shadow, copies } = await startPair({ script: (_incoming, response) => response.destroy() })
    for (let i = 1; i <= 3; i++) {
      const { headers, text } = await request(gateway.url)
      expect([text, headers['x-weirgate-attempts']]).toEqual([`answer ${i}`, undefined])
    }
    await until(() => copies('failed') === 3, 'the failures')
    expect(shadow.seen.length).toBe(3)
  })

  it('that it is not there', async () => {
    const { gateway, copies } = await startPair({ shadowUrl: `http://127.0.0.1:${await closedPort()}` })
    expect((await request(gateway.url, { method: 'POST', body: 'x' })).status).toBe(200)
    await until(() => copies('failed') === 1, 'the failure')
  })

  it('that it answers without end, which is broken off', async () => {
    const { gateway, shadow, copies } = await startPair({
      script: (_incoming, response) => {
        const more = (): void => {
          while (!response.destroyed && response.write(Buffer.alloc(16 * 1024)));
          if (!response.destroyed) response.once('drain', more)
        }
        more()
      },
    })
    expect((await request(gateway.url)).text).toBe('answer 1')
    await until(() => copies('answered') === 1 && shadow.aborted === 1, 'the end of the copy')
  })

  it('that there are as many as there may be: further ones are left out', async () => {
    const held: ServerResponse[] = []
    const { gateway, shadow, copies } = await startPair({
      mirror: 'concurrency: 2',
      script: (_incoming, response) => void held.push(response),
    })
    for (let i = 1; i <= 5; i++) expect((await request(gateway.url)).text).toBe(`answer ${i}`)
    await until(() => shadow.seen.length === 2, 'the copies')
    expect(copies('dropped')).toBe(3)
    for (const response of held) response.end()
    await until(() => copies('answered') === 2, 'the answers to the copies')
    await request(gateway.url)
    await until(() => shadow.seen.length === 3, 'the next copy')
  })

  it('when the gateway ends: copies are cut off at once', async () => {
    const { gateway, app, shadow } = await startPair({ script: silent })
    let finish = (): void => {}
    app.answer((_incoming, response) => {
      finish = () => response.end('whole')
    })
    const answer = request(gateway.url)
    await until(() => shadow.seen.length === 1, 'the copy')
    const drained = gateway.gateway.drain()
    await until(() => shadow.aborted === 1, 'the end of the copy')
    finish()
    expect((await answer).text).toBe('whole')
    await drained
  })
})

it('is in the route table', async () => {
  const { gateway } = await startPair({ mirror: 'percent: 10' })
  expect(gateway.gateway.routes()[0]).toMatchObject({ upstream: 'app', mirror: '10 % to shadow' })
})
