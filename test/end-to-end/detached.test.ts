// What becomes of a fetch when the last of its clients has gone: given up, or finished for who comes next.

import type { ServerResponse } from 'node:http'
import { afterEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { type Answer, type Conversation, converse, request } from '../support/client.ts'
import { holdTime } from '../support/clock.ts'
import { type Edge, type EdgeOptions, settled, startEdge, startGatewayBefore } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import { type Owing, owing } from '../support/owing.ts'
import { describeWithRedis, startRedis } from '../support/redis.ts'

afterEach(() => void vi.useRealTimers())

type OwingEdge = Edge & Pick<Owing, 'owed' | 'owes'>

async function startOwing(cache: string, options: EdgeOptions = {}): Promise<OwingEdge> {
  const { script, owed, owes } = owing()
  const edge = await startEdge({
    routes: [`{path: /*, cache: {ttl: 1h, ${cache}}}`],
    upstream: 'retries: 0, connections: 100',
    script,
    ...options,
  })
  return { ...edge, owed, owes }
}

const rawGet = ({ gateway }: Edge, path = '/x'): Promise<Conversation> =>
  converse(gateway.port, `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${gateway.port}\r\n\r\n`)
const get = ({ gateway }: Edge, path = '/x'): Promise<Answer> => request(gateway.url + path)
const running = ({ gateway }: Edge): number =>
  Number(/^weirgate_detached_fetches (\d+)$/m.exec(gateway.gateway.metrics())?.[1])
const counts = ({ gateway }: Edge): string =>
  [...gateway.gateway.metrics().matchAll(/^weirgate_detached_fetches_total\{result="(\w+)"\} (\d+)$/gm)]
    .map(([, result, count]) => `${result} ${count}`)
    .join(', ')
const statuses = ({ gateway }: Edge): readonly unknown[] =>
  gateway.log.filter(({ path }) => path !== '/health').flatMap(({ status_code: status }) => status ?? [])

/** A client that asks and leaves, and whose leaving the gateway knows of. phase: when it does. */
async function desert(edge: OwingEdge, phase: 'before' | 'after' | 'mid', path = '/x'): Promise<ServerResponse> {
  const [asked, logged] = [edge.owed.length, statuses(edge).length]
  const client = await rawGet(edge, path)
  const response = await edge.owes(asked + 1)
  if (phase !== 'before') response.flushHeaders()
  if (phase === 'after') await client.expect('\r\n\r\n')
  if (phase === 'mid') {
    response.write('one ')
    await client.expect('one ')
  }
  client.reset()
  await until(() => statuses(edge).length > logged, 'its line in the log')
  expect(statuses(edge).at(-1)).toBe(499)
  return response
}

const expectGoingOn = async (edge: OwingEdge, count = 1): Promise<void> => {
  await until(() => running(edge) === count, `${count} to go on`)
  expect(edge.origin.aborted).toBe(0)
}
const expectGivenUp = async (edge: OwingEdge, count = 1): Promise<void> => {
  await until(() => edge.origin.aborted === count, 'the origin to be told')
  expect(running(edge)).toBe(0)
  await settled(edge)
  expect(edge.gateway.gateway.stats().cache.entries).toBe(0)
}

describe('with onAbort: finish', () => {
  it.each(['before', 'after', 'mid'] as const)(
    'who comes next has it all: deserted %s its first byte',
    async (phase) => {
      const edge = await startOwing('onAbort: finish')
      const response = await desert(edge, phase)
      await expectGoingOn(edge)
      response.end('two')
      await until(() => running(edge) === 0, 'its end')
      const next = await get(edge)
      expect([next.headers['x-cache'], next.text]).toEqual(['HIT', phase === 'mid' ? 'one two' : 'two'])
      expect(counts(edge)).toBe('used 1, wasted 0')
      await settled(edge)
      expect(statuses(edge)).toEqual([499, 200])
    },
  )

  it('reads on at its own pace, however much it is', async () => {
    const edge = await startOwing('onAbort: finish')
    const response = await desert(edge, 'mid')
    await expectGoingOn(edge)
    const part = Buffer.alloc(256 * 1024, 'x')
    for (let i = 0; i < 20; i++) if (!response.write(part)) await new Promise((done) => response.once('drain', done))
    response.end()
    await until(() => running(edge) === 0, 'its end')
    expect((await get(edge)).body).toHaveLength(4 + 20 * part.length)
    expect(edge.owed).toHaveLength(1)
  })

  it('goes on where a slow client had held it back', async () => {
    const edge = await startOwing('onAbort: finish')
    const slow = await rawGet(edge)
    slow.pause()
    const response = await edge.owes(1)
    const part = Buffer.alloc(1024 ** 2, 'x')
    for (let i = 0; i < 7; i++) response.write(part)
    response.end()
    await until(() => response.socket?.writableLength !== 0, 'the origin to be held')
    slow.destroy()
    await until(() => edge.gateway.gateway.stats().cache.entries === 1, 'all of it to be stored')
    expect((await get(edge)).body).toHaveLength(7 * part.length)
  })

  it.each(['before', 'mid'] as const)('who comes meanwhile joins it: deserted %s its first byte', async (phase) => {
    const edge = await startOwing('onAbort: finish')
    const response = await desert(edge, phase)
    await expectGoingOn(edge)
    const late = get(edge)
    await until(() => running(edge) === 0, 'somebody to wait for it')
    expect(counts(edge)).toBe('used 1, wasted 0')
    response.end('two')
    expect((await late).text).toBe(phase === 'mid' ? 'one two' : 'two')
    expect([(await late).headers['x-cache'], edge.owed.length]).toEqual(['COLLAPSED', 1])
    await settled(edge)
  })

  it('goes on again when who has joined it leaves as well', async () => {
    const edge = await startOwing('onAbort: finish')
    const response = await desert(edge, 'mid')
    await expectGoingOn(edge)
    const late = await rawGet(edge)
    await late.expect('one ')
    late.reset()
    await until(() => statuses(edge).length === 2 && running(edge) === 1, 'it to go on')
    response.end('two')
    await until(() => running(edge) === 0, 'its end')
    expect((await get(edge)).text).toBe('one two')
    expect(counts(edge)).toBe('used 2, wasted 0')
  })

  it.each([
    ['by its URL', { urls: ['/x'] }],
    ['by its tag', { tags: ['t'] }],
    ['by a tag that only its answer knows', { tags: ['own'] }],
    ['with all', { all: true as const }],
  ])('is given up when it is purged: %s', async (_name, purge) => {
    const edge = await startOwing('onAbort: finish, tags: [t]')
    const asked = rawGet(edge)
    const response = await edge.owes(1)
    response.writeHead(200, { 'Cache-Tag': 'own' }).write('one ')
    const client = await asked
    await client.expect('one ')
    client.reset()
    await expectGoingOn(edge)
    const urls = 'urls' in purge ? { urls: [`${edge.gateway.url}/x`] } : purge
    await edge.gateway.gateway.purge(urls)
    await expectGivenUp(edge)
    expect(counts(edge)).toBe('used 0, wasted 1')
  })

  it('brings nothing where a purge came before its head told the tag', async () => {
    const edge = await startOwing('onAbort: finish')
    const response = await desert(edge, 'before')
    await expectGoingOn(edge)
    await edge.gateway.gateway.purge({ tags: ['own'] })
    response.writeHead(200, { 'Cache-Tag': 'own' }).write('one ')
    await expectGivenUp(edge)
    expect(counts(edge)).toBe('used 0, wasted 1')
  })

  it.each(['before', 'mid'] as const)(
    'gives up at once what may not be stored: deserted %s its head',
    async (phase) => {
      const edge = await startOwing('onAbort: finish')
      const client = await rawGet(edge)
      const response = await edge.owes(1)
      if (phase === 'before') client.reset()
      if (phase === 'before') await expectGoingOn(edge)
      response.writeHead(200, { 'Cache-Control': 'no-store' }).write('one ')
      if (phase === 'mid') {
        await client.expect('one ')
        client.reset()
      }
      await expectGivenUp(edge)
      expect(counts(edge)).toBe(`used 0, wasted ${phase === 'before' ? 1 : 0}`)
    },
  )

  it('gives up what turns out to be too large', async () => {
    const edge = await startOwing('onAbort: finish, maxObject: 1KiB')
    const response = await desert(edge, 'mid')
    await expectGoingOn(edge)
    response.write(Buffer.alloc(2048))
    await expectGivenUp(edge)
    expect(counts(edge)).toBe('used 0, wasted 1')
  })

  it('counts as wasted what breaks off, and lets the next one ask', async () => {
    const edge = await startOwing('onAbort: finish')
    const response = await desert(edge, 'mid')
    await expectGoingOn(edge)
    response.destroy()
    await until(() => running(edge) === 0, 'its end')
    expect(counts(edge)).toBe('used 0, wasted 1')
    const next = get(edge)
    const second = await edge.owes(2)
    second.end('all')
    expect((await next).text).toBe('all')
  })

  it('counts nothing where the upstream breaks off under its client', async () => {
    const edge = await startOwing('onAbort: finish')
    const client = await rawGet(edge)
    const response = await edge.owes(1)
    response.write('one ')
    await client.expect('one ')
    response.destroy()
    await client.end()
    await settled(edge)
    expect(counts(edge)).toBe('used 0, wasted 0')
  })

  it('counts as wasted what goes unused', async () => {
    const edge = await startOwing('onAbort: finish')
    const response = await desert(edge, 'mid')
    response.end()
    await until(() => edge.gateway.gateway.stats().cache.entries === 1, 'it to be stored')
    expect(counts(edge)).toBe('used 0, wasted 0')
    await edge.gateway.gateway.purge({ all: true })
    expect(counts(edge)).toBe('used 0, wasted 1')
  })

  it('goes on for 30 s at most', async () => {
    const clock = holdTime()
    const edge = await startOwing('onAbort: finish')
    const client = await rawGet(edge)
    await clock.until(() => edge.owed.length === 1, 'the fetch')
    edge.owed[0]?.write('one ')
    await clock.until(() => client.received.includes('one '), 'its first bytes')
    client.reset()
    await clock.until(() => running(edge) === 1, 'it to go on')
    clock.advance(29_000)
    edge.owed[0]?.write('two ')
    expect([running(edge), edge.origin.aborted]).toEqual([1, 0])
    clock.advance(1000)
    await clock.until(() => edge.origin.aborted === 1, 'the origin to be told')
    expect([running(edge), counts(edge)]).toEqual([0, 'used 0, wasted 1'])
  })

  it.each([
    ['concurrency: {max: 20}', 2],
    ['concurrency: {max: 5}', 1],
    ['connections: 30', 3],
  ])('with %s, goes on for as many as %i', async (upstream, most) => {
    const edge = await startOwing('onAbort: finish', { upstream: `retries: 0, ${upstream}` })
    const responses: ServerResponse[] = []
    for (let i = 0; i < most; i++) responses.push(await desert(edge, 'mid', `/${i}`))
    await expectGoingOn(edge, most)
    await desert(edge, 'mid', '/more')
    await until(() => edge.origin.aborted === 1, 'one more to be given up')
    responses[0]?.end()
    await until(() => running(edge) === most - 1, 'a place to come free')
    await desert(edge, 'mid', '/again')
    await until(() => running(edge) === most, 'that place to be taken')
    expect(edge.origin.aborted).toBe(1)
  })

  it('takes a place of its upstream to its end', async () => {
    const edge = await startOwing('onAbort: finish', { upstream: 'concurrency: {max: 1}' })
    const response = await desert(edge, 'mid')
    await expectGoingOn(edge)
    const other = get(edge, '/other')
    await until(() => edge.gateway.gateway.upstreams()[0]?.waiting === 1, 'the other in line')
    response.end()
    const second = await edge.owes(2)
    second.end('other')
    expect((await other).text).toBe('other')
  })

  it('survives a reload, and is found by who comes after it', async () => {
    const edge = await startOwing('onAbort: finish')
    const response = await desert(edge, 'mid')
    await expectGoingOn(edge)
    const yaml = (more: string) => `
upstreams: {origin: {targets: [${edge.origin.url}], retries: 0, ${more}}}
routes: [{path: /*, upstream: origin, cache: {ttl: 1h}}]
`
    edge.gateway.rewrite(`listen: {address: 127.0.0.1:0}\nadmin: {listen: 127.0.0.1:0}${yaml('connections: 50')}`)
    expect(await edge.gateway.gateway.reload()).toMatchObject({ ok: true })
    expect([running(edge), edge.origin.aborted]).toEqual([1, 0])
    response.end('two')
    await until(() => running(edge) === 0, 'its end')
    expect(await get(edge)).toMatchObject({ text: 'one two', headers: { 'x-cache': 'HIT' } })
  })

  it('is waited for when the gateway ends', async () => {
    const edge = await startOwing('onAbort: finish')
    const response = await desert(edge, 'mid')
    await expectGoingOn(edge)
    const drained = edge.gateway.gateway.drain()
    await until(() => edge.gateway.log.some(({ message }) => message === 'Shutting down'), 'the drain to begin')
    response.end('two')
    await drained
    expect([edge.origin.aborted, counts(edge)]).toEqual([0, 'used 0, wasted 0'])
  })

  it('is given up after 10 s of that', async () => {
    const clock = holdTime()
    const edge = await startOwing('onAbort: finish')
    const client = await rawGet(edge)
    await clock.until(() => edge.owed.length === 1, 'the fetch')
    edge.owed[0]?.write('one ')
    await clock.until(() => client.received.includes('one '), 'its first bytes')
    client.reset()
    await clock.until(() => running(edge) === 1, 'it to go on')
    let isDrained = false
    void edge.gateway.gateway.drain().then(() => (isDrained = true))
    await clock.until(() => edge.gateway.log.some(({ message }) => message === 'Shutting down'), 'the drain')
    for (let i = 0; i < 50; i++) await new Promise((resolve) => setImmediate(resolve))
    expect([isDrained, edge.origin.aborted]).toEqual([false, 0])
    clock.advance(10_000)
    await clock.until(() => isDrained && edge.origin.aborted === 1, 'the end')
  })
})

describe('with onAbort: auto, which is the default', () => {
  it.each(['after', 'mid'] as const)('goes on where its answer has begun: deserted %s its head', async (phase) => {
    const edge = await startOwing('')
    const response = await desert(edge, phase)
    await expectGoingOn(edge)
    response.end('two')
    await until(() => running(edge) === 0, 'its end')
    expect((await get(edge)).headers['x-cache']).toBe('HIT')
  })

  it('is given up before its answer while nothing is known of the route', async () => {
    const edge = await startOwing('')
    await desert(edge, 'before')
    await expectGivenUp(edge)
    expect(counts(edge)).toBe('used 0, wasted 0')
  })

  it('goes on before its answer once it has taken half as long as others', async () => {
    const START = Date.UTC(2026, 10, 22, 12)
    vi.useFakeTimers({ toFake: ['Date'], now: START })
    const edge = await startOwing('')
    for (const [i, seconds] of [2, 100, 1].entries()) {
      const answer = get(edge, `/known-${i}`)
      const response = await edge.owes(i + 1)
      vi.setSystemTime(Date.now() + seconds * 1000)
      response.end()
      await answer
    }
    const leaveAfter = async (ms: number, path: string) => {
      const client = await rawGet(edge, path)
      await edge.owes(edge.owed.length + 1)
      vi.setSystemTime(Date.now() + ms)
      client.reset()
    }
    await leaveAfter(999, '/early')
    await until(() => edge.origin.aborted === 1, 'the origin to be told')
    await leaveAfter(1000, '/late')
    await until(() => running(edge) === 1, 'it to go on')
    expect(edge.origin.aborted).toBe(1)
  })
})

describe('with onAbort: abort', () => {
  it.each(['before', 'after', 'mid'] as const)('is given up, whenever: deserted %s its first byte', async (phase) => {
    const edge = await startOwing('onAbort: abort')
    await desert(edge, phase)
    await expectGivenUp(edge)
    expect(counts(edge)).toBe('used 0, wasted 0')
  })
})

describe('limits', () => {
  const limited = (limit: string, cache = 'onAbort: finish', upstream = 'connections: 100') =>
    startOwing(cache, {
      upstream: `retries: 0, ${upstream}`,
      more: `limits: {mine: {${limit}, key: ip}}`,
      routes: [`{path: /*, limits: [mine], cache: {ttl: 1h, ${cache}}}`],
    })

  it('count it: a slot is held to the end of what nobody waits for', async () => {
    const edge = await limited('kind: concurrency, limit: 2')
    const first = await desert(edge, 'mid', '/1')
    const second = await desert(edge, 'mid', '/2')
    await expectGoingOn(edge, 2)
    expect((await get(edge, '/3')).status).toBe(429)
    first.end()
    await until(() => running(edge) === 1, 'the first to end')
    const third = get(edge, '/3')
    const response = await edge.owes(3)
    response.end('three')
    expect((await third).text).toBe('three')
    second.end()
    await until(() => running(edge) === 0, 'the second to end')
    const more = [get(edge, '/4'), get(edge, '/5')]
    for (const at of [4, 5]) (await edge.owes(at)).end()
    expect((await Promise.all(more)).map(({ status }) => status)).toEqual([200, 200])
  })

  it("hold the leader's slot while others wait for what it has begun", async () => {
    const edge = await limited('kind: concurrency, limit: 1', 'onAbort: abort')
    const leader = await rawGet(edge)
    const response = await edge.owes(1)
    response.write('one ')
    await leader.expect('one ')
    const follower = await rawGet(edge)
    await follower.expect('one ')
    leader.reset()
    await until(() => statuses(edge).length === 1, 'the leader to be gone')
    expect((await get(edge, '/other')).status).toBe(429)
    response.end('two')
    await follower.expect('two')
    const other = get(edge, '/other')
    ;(await edge.owes(2)).end()
    expect((await other).status).toBe(200)
    follower.destroy()
  })

  it('are not used up by it with auto: who holds the last slot gets it back', async () => {
    const edge = await limited('kind: concurrency, limit: 2', 'onAbort: auto')
    const first = await desert(edge, 'mid', '/1')
    await expectGoingOn(edge, 1)
    await desert(edge, 'mid', '/2')
    await until(() => edge.origin.aborted === 1, 'the second to be given up')
    expect(running(edge)).toBe(1)
    first.end()
    const next = get(edge, '/3')
    ;(await edge.owes(3)).end()
    expect((await next).status).toBe(200)
  })

  it.each([
    ['cache', 'onAbort: finish'],
    ['no cache', null],
  ])('on misses get back what waits in line, which is given up (%s)', async (_name, cache) => {
    const edge = await startOwing('', {
      upstream: 'retries: 0, concurrency: {max: 1}',
      more: 'limits: {mine: {limit: 10, window: 1h, key: ip, count: miss}}',
      routes: [`{path: /*, limits: [mine]${cache === null ? '' : `, cache: {ttl: 1h, ${cache}}`}}`],
    })
    const first = get(edge, '/1')
    const response = await edge.owes(1)
    const waiting = await rawGet(edge, '/2')
    const inLine = () => edge.gateway.gateway.upstreams()[0]?.waiting
    await until(() => inLine() === 1, 'the second in line')
    waiting.reset()
    await until(() => inLine() === 0, 'it to be out of the line')
    await until(() => statuses(edge).includes(499), 'its line in the log')
    expect(running(edge)).toBe(0)
    response.end()
    await first
    const last = get(edge, '/3')
    ;(await edge.owes(2)).end()
    expect((await last).headers['x-ratelimit-remaining']).toBe('8')
    expect(edge.origin.seen.map(({ url }) => url)).toEqual(['/1', '/3'])
  })
})

describe('an answer to a POST', () => {
  const AI = 'methods: [POST], scope: public, key: {body: canonical}, onAbort: finish'
  const BODY = '{"prompt": "a deck", "stream": true}'
  const ask = ({ gateway }: Edge) =>
    request(gateway.url, { method: 'POST', body: BODY, headers: { 'Content-Type': 'application/json' } })
  const rawAsk = ({ gateway }: Edge): Promise<Conversation> =>
    converse(
      gateway.port,
      `POST / HTTP/1.1\r\nHost: 127.0.0.1:${gateway.port}\r\nContent-Type: application/json\r\nContent-Length: ${BODY.length}\r\n\r\n${BODY}`,
    )

  it('is there for who asks once more, with the same words in another order', async () => {
    const edge = await startOwing(AI)
    const client = await rawAsk(edge)
    const response = await edge.owes(1)
    client.reset()
    await expectGoingOn(edge)
    response.writeHead(200, { 'Content-Type': 'application/json' }).end('{"slides": [1]}')
    await until(() => running(edge) === 0, 'its end')
    const headers = { 'Content-Type': 'application/json' }
    const body = '{"stream":true,"prompt":"a deck"}'
    const again = await request(edge.gateway.url, { method: 'POST', body, headers })
    expect([again.headers['x-cache'], again.text]).toEqual(['HIT', '{"slides": [1]}'])
    expect(edge.owed).toHaveLength(1)
  })

  it('is finished as a stream, which who comes back reads from its beginning', async () => {
    const edge = await startOwing(`${AI}, terminal: openai`)
    const client = await rawAsk(edge)
    const response = await edge.owes(1)
    response.writeHead(200, { 'Content-Type': 'text/event-stream' }).write('data: {"n":1}\n\n')
    await client.expect('{"n":1}')
    client.reset()
    await expectGoingOn(edge)
    response.write('data: {"n":2}\n\n')
    const late = ask(edge)
    await until(() => running(edge) === 0, 'it to be joined')
    response.end('data: [DONE]\n\n')
    expect((await late).text).toBe('data: {"n":1}\n\ndata: {"n":2}\n\ndata: [DONE]\n\n')
    expect((await ask(edge)).headers['x-cache']).toBe('HIT')
    expect([edge.owed.length, counts(edge)]).toEqual([1, 'used 1, wasted 0'])
  })

  it('is not stored as a stream that does not prove whole', async () => {
    const edge = await startOwing(`${AI}, terminal: openai`)
    const client = await rawAsk(edge)
    const response = await edge.owes(1)
    response.writeHead(200, { 'Content-Type': 'text/event-stream' }).write('data: {"n":1}\n\n')
    await client.expect('{"n":1}')
    client.reset()
    await expectGoingOn(edge)
    response.end()
    await until(() => running(edge) === 0, 'its end')
    expect([edge.gateway.gateway.stats().cache.entries, counts(edge)]).toEqual([0, 'used 0, wasted 1'])
  })

  it('counts in tokens for who has asked, though that one has gone', async () => {
    const edge = await startOwing('', {
      upstream: 'retries: 0',
      more: 'limits: {mine: {unit: tokens, limit: 1000, window: 1h, key: ip, reserve: 100}}',
      routes: [`{path: /*, limits: [mine], cache: {ttl: 1h, ${AI}}}`],
    })
    const client = await rawAsk(edge)
    const response = await edge.owes(1)
    client.reset()
    await expectGoingOn(edge)
    const usage = { prompt_tokens: 30, completion_tokens: 400, total_tokens: 430 }
    response.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify({ usage }))
    await until(() => running(edge) === 0, 'its end')
    const { headers } = await ask(edge)
    expect([headers['x-cache'], headers['x-ratelimit-remaining']]).toEqual(['HIT', '570'])
  })
})

describeWithRedis('with another instance', () => {
  it('is for that as well: it waits for the lease of a fetch that nobody waits for', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.close())
    const more = `redis: {url: "${redis.url}", deadline: 2s}`
    const routes = ['{path: /*, cache: {ttl: 1h, onAbort: finish, collapse: shared}}']
    const edge = await startOwing('', { more, routes })
    const gateway = await startGatewayBefore(edge.origin.url, { more, routes })
    const head = 'GET /x HTTP/1.1\r\nHost: shop.test\r\n\r\n'
    const client = await converse(edge.gateway.port, head)
    const response = await edge.owes(1)
    client.reset()
    await expectGoingOn(edge)
    const other = request(`${gateway.url}/x`, { headers: { Host: 'shop.test' } })
    await until(() => /^process_open_connections 1$/m.test(gateway.gateway.metrics()), 'its client')
    response.end('one')
    expect((await other).text).toBe('one')
    expect([edge.owed.length, (await other).headers['x-cache']]).toEqual([1, 'COLLAPSED'])
  })
})

it('a hundred who leave leave nothing behind', async () => {
  const edge = await startOwing('onAbort: finish')
  const clients = await Promise.all(Array.from({ length: 100 }, (_, i) => rawGet(edge, `/${i}`)))
  await edge.owes(100)
  for (const response of edge.owed) response.write('one ')
  for (const client of clients) await client.expect('one ')
  for (const client of clients) client.reset()
  await until(() => statuses(edge).length === 100, 'all lines')
  expect(statuses(edge)).toEqual(Array.from({ length: 100 }, () => 499))
  await until(() => edge.origin.aborted === 90 && running(edge) === 10, 'a tenth to go on')
  for (const response of edge.owed) response.end()
  await until(() => running(edge) === 0, 'the rest to end')
  await settled(edge)
  expect(edge.gateway.gateway.stats().cache.entries).toBe(10)
  expect(counts(edge)).toBe('used 0, wasted 0')
})
