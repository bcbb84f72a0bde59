// Further attempts over several targets: what each of them sees, what the client gets, and that nothing is done twice.

import { once } from 'node:events'
import http from 'node:http'
import type { Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { type Answer, type RequestOptions, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, type Script, closedPort, startOrigin, startRawOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

async function gatewayTo(targets: readonly string[], options = '', route = ''): Promise<TestGateway> {
  return closing(
    await startGateway(`
upstreams: {app: {targets: ${JSON.stringify(targets)}, ${options}}}
routes: [{path: /*, upstream: app, ${route}}]
`),
  )
}

const failing =
  (status: number, headers: Record<string, string> = {}): Script =>
  (message, response) =>
    void message.resume().on('end', () => response.writeHead(status, headers).end('sick'))

const echo: Script = (message, response) => void message.pipe(response)

/** One that fails with this status, which no failure takes out, and one that is well. */
async function sickAndWell(status: number): Promise<{ sick: Origin; well: Origin; gateway: TestGateway }> {
  const [sick, well] = [closing(await startOrigin(failing(status))), closing(await startOrigin(echo))]
  return { sick, well, gateway: await gatewayTo([sick.url, well.url], 'health: {failures: 0}') }
}

const attemptsOf = ({ headers }: Answer): unknown => headers['x-weirgate-attempts']

/** Two requests: one of them meets the sick target first. */
const twice = async (url: string, options: RequestOptions): Promise<Answer[]> => [
  await request(url, options),
  await request(url, options),
]

describe('an answer by which a target says that it cannot', () => {
  it.each([502, 503, 504])("%d is another target's chance", async (status) => {
    const { sick, well, gateway } = await sickAndWell(status)
    const answers = await twice(gateway.url, {})
    expect(answers.map(({ status: got }) => got)).toEqual([200, 200])
    expect(answers.map(attemptsOf)).toEqual(['2', undefined])
    expect([sick.seen.length, well.seen.length]).toEqual([1, 2])
    expect(gateway.gateway.metrics()).toContain('weirgate_upstream_retries_total{upstream="app"} 1\n')
  })

  it.each([500, 501, 429, 404])('%d is not', async (status) => {
    const { well, gateway } = await sickAndWell(status)
    const answers = await twice(gateway.url, {})
    expect(answers.map(({ status: got }) => got)).toEqual([status, 200])
    expect(well.seen).toHaveLength(1)
  })

  it.each<[string, number]>([
    ['GET', 200],
    ['HEAD', 200],
    ['OPTIONS', 200],
    ['QUERY', 200],
    ['PUT', 200],
    ['DELETE', 200],
    ['POST', 503],
    ['PATCH', 503],
    ['LOCK', 503],
  ])('[RFC 9110 §9.2.2] of %s: the client gets %d', async (method, status) => {
    const { well, gateway } = await sickAndWell(503)
    const answers = await twice(gateway.url, { method })
    expect(answers.map(({ status: got }) => got)).toEqual([status, 200])
    expect(well.seen).toHaveLength(status === 200 ? 2 : 1)
  })

  it.each<[string, number, RequestOptions['headers'], number]>([
    ['of a length', 64 * 1024, {}, 200],
    ['of a length', 64 * 1024 + 1, {}, 503],
    ['in chunks', 64 * 1024, { 'Transfer-Encoding': 'chunked' }, 200],
    ['in chunks', 64 * 1024 + 1, { 'Transfer-Encoding': 'chunked' }, 503],
  ])('is given with the body %s up to 64 KiB: %d bytes', async (_how, bytes, headers, status) => {
    const { sick, well, gateway } = await sickAndWell(503)
    const body = Buffer.alloc(bytes, '0123456789')
    const answer = await request(gateway.url, { method: 'PUT', body, headers: headers ?? {} })
    expect(answer.status).toBe(status)
    expect(answer.body.equals(status === 200 ? body : Buffer.from('sick'))).toBe(true)
    expect((await sick.seen[0]?.body)?.equals(body)).toBe(true)
    expect(well.seen).toHaveLength(status === 200 ? 1 : 0)
  })

  it('is passed on where the target has not even read the body', async () => {
    const sick = closing(await startOrigin((_message, response) => response.writeHead(503).end('sick')))
    const well = closing(await startOrigin(echo))
    const gateway = await gatewayTo([sick.url, well.url])
    const sent = http.request(gateway.url, { method: 'PUT', headers: { 'Content-Length': 10 }, agent: false })
    sent.on('error', () => {}).write('begun')
    const [message] = (await once(sent, 'response')) as [http.IncomingMessage]
    expect(message.statusCode).toBe(503)
    sent.destroy()
    expect(well.seen).toHaveLength(0)
  })

  it('is passed on as it is where no other target is well', async () => {
    const sick = closing(await startOrigin(failing(503, { 'Retry-After': '70' })))
    const alone = await gatewayTo([sick.url], 'retries: 3')
    const answer = await request(alone.url)
    expect([answer.status, answer.headers['retry-after'], answer.text, attemptsOf(answer)]).toEqual([
      503,
      '70',
      'sick',
      undefined,
    ])
    expect(sick.seen).toHaveLength(1)
    const dead = `http://127.0.0.1:${await closedPort()}`
    sick.answer((_message, response) => response.end('well'))
    const pair = await gatewayTo([dead, sick.url], 'retries: 3')
    for (let i = 0; i < 6; i++) expect((await request(pair.url)).text).toBe('well')
    expect(pair.gateway.upstreams()[0]?.targets[0]?.state).toBe('out')
    sick.answer(failing(503))
    const last = await request(pair.url)
    expect([last.status, last.text]).toEqual([503, 'sick'])
  })

  it('takes each target once', async () => {
    const all = await Promise.all([503, 502, 504].map(async (status) => closing(await startOrigin(failing(status)))))
    const gateway = await gatewayTo(
      all.map(({ url }) => url),
      'retries: 5, health: {failures: 0}',
    )
    const answer = await request(gateway.url)
    expect([answer.status, attemptsOf(answer)]).toEqual([504, '3'])
    expect(all.map(({ seen }) => seen.length)).toEqual([1, 1, 1])
  })

  it('is final where retries are 0', async () => {
    const [sick, well] = [closing(await startOrigin(failing(503))), closing(await startOrigin())]
    const gateway = await gatewayTo([sick.url, well.url], 'retries: 1', 'retries: 0')
    expect((await twice(gateway.url, {})).map(({ status }) => status)).toEqual([503, 200])
  })

  it('is final when the budget is spent', async () => {
    const { sick, well, gateway } = await sickAndWell(503)
    const startedAtMs = performance.now()
    const answers = await Promise.all(Array.from({ length: 600 }, () => request(gateway.url)))
    const failed = answers.filter(({ status }) => status === 503).length
    // Half of them meet the sick target: a tenth of 600 may be tried again, and 30 more for each ten seconds.
    const windows = 1 + Math.ceil((performance.now() - startedAtMs) / 10_000)
    expect(failed).toBeGreaterThanOrEqual(300 - 90 * windows)
    expect(failed).toBeLessThan(300)
    expect(sick.seen.length + well.seen.length).toBe(600 + 300 - failed)
  })
})

describe('the time of all attempts', () => {
  it('is one: what the first has taken, the next has not', async () => {
    const slow = closing(
      await startOrigin((_message, response) => void setTimeout(() => response.writeHead(503).end(), 150)),
    )
    const mute = closing(await startOrigin(() => {}))
    const gateway = await gatewayTo([slow.url, mute.url], 'timeouts: {total: 400ms, firstByte: 399ms}')
    const answer = await request(gateway.url)
    expect([answer.status, (JSON.parse(answer.text) as { code: string }).code, attemptsOf(answer)]).toEqual([
      504,
      'timeout_total',
      '2',
    ])
  })
})

describe('a request that is cut off before any byte of an answer', () => {
  it.each(['declared', 'chunked'])('goes out again with its body where it is a QUERY: %s', async (how) => {
    const bodies: string[] = []
    const origin = closing(
      await startOrigin((message, response, count) => {
        const chunks: Buffer[] = []
        message.on('data', (chunk: Buffer) => chunks.push(chunk))
        message.on('end', () => {
          bodies.push(Buffer.concat(chunks).toString())
          if (count === 1) message.socket.destroy()
          else response.end('found')
        })
      }),
    )
    const gateway = await gatewayTo([origin.url])
    const headers = how === 'chunked' ? { 'Transfer-Encoding': 'chunked' } : {}
    const answer = await request(gateway.url, { method: 'QUERY', body: 'select 1', headers })
    expect([answer.status, answer.text, attemptsOf(answer)]).toEqual([200, 'found', '2'])
    expect(bodies).toEqual(['select 1', 'select 1'])
  })

  it('stays alone where it changes something, though it could be asked twice', async () => {
    const origin = closing(
      await startOrigin((message) => void message.on('end', () => message.socket.destroy()).resume()),
    )
    const gateway = await gatewayTo([origin.url, `http://127.0.0.1:${await closedPort()}`], 'retries: 3')
    for (const method of ['PUT', 'DELETE', 'POST']) {
      const before = origin.seen.length
      await twice(gateway.url, { method, body: 'x' })
      expect(origin.seen.length - before).toBe(2)
    }
  })
})

describe('POSTs while targets die and come back', () => {
  it('are seen once at most, and once where the client has heard that they were done', async () => {
    const times = new Map<string, number>()
    const onRequest = (socket: Socket, head: string): void => {
      const id = /^POST \/(\S+)/.exec(head)?.[1] ?? ''
      times.set(id, (times.get(id) ?? 0) + 1)
      const die = Number(id) % 8
      if (die === 0) socket.destroy()
      else if (die === 1) socket.end('HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n')
      else if (die === 2) socket.end('HTTP/1.1 503 No\r\nContent-Length: 0\r\nRetry-After: 0\r\n\r\n')
      else if (die === 3) socket.write('HTTP/1.1 429 No\r\nContent-Length: 0\r\nRetry-After-Ms: 5\r\n\r\n')
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    }
    const origins = [closing(await startRawOrigin(onRequest)), closing(await startRawOrigin(onRequest))]
    const dead = `http://127.0.0.1:${await closedPort()}`
    const gateway = await gatewayTo(
      [...origins.map(({ url }) => url), dead],
      'retries: 5, connections: 4, concurrency: {max: 6, adaptive: true}, refusals: {coolDown: all}',
    )
    const done: string[] = []
    let next = 0
    const client = async (): Promise<void> => {
      while (next < 400) {
        const id = String(next++)
        const { status } = await request(`${gateway.url}/${id}`, { method: 'POST' })
        expect([200, 429, 502, 503]).toContain(status)
        if (status === 200) done.push(id)
      }
    }
    await Promise.all(Array.from({ length: 8 }, client))
    expect([...times.values()].filter((count) => count !== 1)).toEqual([])
    expect(done.filter((id) => times.get(id) !== 1)).toEqual([])
    expect(done.length).toBeGreaterThan(150)
  })
})

describe('the number of attempts', () => {
  it("is told with failures too, and is the gateway's own", async () => {
    const dead = await Promise.all([1, 2].map(async () => `http://127.0.0.1:${await closedPort()}`))
    const answer = await request((await gatewayTo(dead)).url)
    expect([answer.status, attemptsOf(answer)]).toEqual([502, '2'])
    const inner = closing(
      await startOrigin((_message, response) => response.setHeader('X-Weirgate-Attempts', '9').end()),
    )
    expect(attemptsOf(await request((await gatewayTo([inner.url])).url))).toBe(undefined)
  })

  it('is not stored', async () => {
    const [sick, well] = [closing(await startOrigin(failing(503))), closing(await startOrigin())]
    const gateway = await gatewayTo([sick.url, well.url], '', 'cache: {ttl: 1h}')
    const first = await request(gateway.url)
    expect([first.headers['x-cache'], attemptsOf(first)]).toEqual(['MISS', '2'])
    const second = await request(gateway.url)
    expect([second.headers['x-cache'], attemptsOf(second)]).toEqual(['HIT', undefined])
  })
})

describe('a client that goes between two attempts', () => {
  it('ends them', async () => {
    const { sick, gateway } = await sickAndWell(503)
    for (let i = 0; i < 5; i++) {
      const before = sick.seen.length
      const asked = [1, 2].map(() => {
        const controller = new AbortController()
        void until(() => sick.seen.length > before, 'the first attempt').then(() => controller.abort())
        return fetch(gateway.url, { signal: controller.signal }).then(
          () => {},
          () => {},
        )
      })
      await Promise.all(asked)
    }
    await until(
      () => gateway.gateway.upstreams().every(({ targets }) => targets.every(({ in_flight }) => in_flight === 0)),
      'no request in flight',
    )
    expect((await request(gateway.url)).status).toBe(200)
  })
})
