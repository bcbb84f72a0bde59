// A target that stands still with requests waiting at it, before a real gateway: what becomes of those when it goes out.

import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { type Answer, type RequestOptions, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

/** An origin that may stand still, as a process does that was stopped, and go on with what it has got. */
interface Staller extends Pick<Origin, 'url' | 'port' | 'seen' | 'answer'> {
  /** checks: what it says to those all the same, from now on; null: nothing. */
  stall(checks?: number | null): void
  goOn(): void
  /** What it was asked, checks apart. */
  readonly asked: readonly string[]
  readonly checks: number
}

async function startStaller(): Promise<Staller> {
  let isStalled = false
  let checkStatus: number | null = null
  const held = new Map<ServerResponse, string>()
  const origin = closing(
    await startOrigin((message, response) => {
      const isCheck = message.url === '/alive'
      if (isStalled && isCheck && checkStatus !== null) response.writeHead(checkStatus).end()
      else if (isStalled) held.set(response, String(message.url))
      else response.end(String(origin.port))
    }),
  )
  return {
    ...origin,
    stall(checks = null) {
      isStalled = true
      checkStatus = checks
      if (checks === null) return
      for (const [response, url] of held) {
        if (url !== '/alive') continue
        held.delete(response)
        response.writeHead(checks).end()
      }
    },
    goOn() {
      isStalled = false
      for (const response of held.keys()) response.end(String(origin.port))
    },
    get asked() {
      return origin.seen.filter(({ url }) => url !== '/alive').map(({ method, url }) => `${method} ${url}`)
    },
    get checks() {
      return origin.seen.filter(({ url }) => url === '/alive').length
    },
  }
}

interface Pair {
  readonly stalls: Staller
  readonly well: Staller
  readonly gateway: TestGateway
  /** One request at each of them; resolves when both have got theirs. */
  ask(options?: RequestOptions, path?: string): Promise<readonly Promise<Answer>[]>
}

async function startPair({ upstream = '', health = '', route = '' } = {}): Promise<Pair> {
  const [stalls, well] = [await startStaller(), await startStaller()]
  const gateway = closing(
    await startGateway(`
upstreams:
  app:
    targets: ['${stalls.url}', '${well.url}']
    health: {path: /alive, interval: 1h, ${health || 'timeout: 300ms'}}
    ${upstream}
routes: [{path: /*, upstream: app, ${route}}]
`),
  )
  await until(() => stalls.checks === 1 && well.checks === 1, 'the first checks')
  return {
    stalls,
    well,
    gateway,
    async ask(options = {}, path = '/') {
      const before = [stalls.asked.length, well.asked.length]
      const asked = [1, 2].map(() => request(gateway.url + path, options))
      await until(
        () => stalls.asked.length > (before[0] ?? 0) && well.asked.length > (before[1] ?? 0),
        'one request at each',
      )
      return asked
    },
  }
}

const portsOf = (answers: readonly Answer[]): number[] => answers.map(({ text }) => Number(text))

const stateOf = ({ gateway }: TestGateway): string | undefined => gateway.upstreams()[0]?.targets[0]?.state
const untilOut = (gateway: TestGateway) => until(() => stateOf(gateway) === 'out', 'the target to be out')

describe('requests that wait at a target which stands still', () => {
  it.each<[string, RequestOptions]>([
    ['GET', {}],
    ['HEAD', { method: 'HEAD' }],
    ['QUERY', { method: 'QUERY', body: 'select', headers: { 'Content-Length': 6 } }],
  ])('by %s are answered by another when it goes out', async (method, options) => {
    const pair = await startPair()
    const { stalls, well, gateway } = pair
    stalls.stall()
    const answers = await Promise.all(await pair.ask(options))
    expect(answers.map(({ status }) => status)).toEqual([200, 200])
    expect(stateOf(gateway)).toBe('out')
    expect(stalls.asked).toEqual([`${method} /`])
    expect(well.asked).toEqual([`${method} /`, `${method} /`])
    expect(await Promise.all(well.seen.filter(({ url }) => url === '/').map(({ body }) => body))).toEqual(
      [1, 2].map(() => Buffer.from(String(options.body ?? ''))),
    )
    expect(gateway.gateway.upstreams()[0]?.targets).toMatchObject([
      { in_flight: 0, queued: 0, open_connections: 0 },
      { in_flight: 0, queued: 0 },
    ])
  })

  it.each(['POST', 'PUT', 'DELETE'])('by %s are not asked twice, and answered when it goes on', async (method) => {
    const pair = await startPair()
    const { stalls, well, gateway } = pair
    stalls.stall()
    const asked = await pair.ask({ method })
    await untilOut(gateway)
    stalls.goOn()
    const answers = await Promise.all(asked)
    expect(new Set(portsOf(answers))).toEqual(new Set([stalls.port, well.port]))
    expect([stalls.asked, well.asked]).toEqual([[`${method} /`], [`${method} /`]])
  })

  it('and were never sent go to another, whatever they are', async () => {
    const pair = await startPair({ upstream: 'connections: 1' })
    const { stalls, well, gateway } = pair
    stalls.stall()
    const [one, another] = await pair.ask({ method: 'POST' })
    await Promise.race([one, another])
    const body = 'x'.repeat(1000)
    const waiting = [1, 2, 3, 4].map(() => request(gateway.url, { method: 'POST', body }))
    const answers = await Promise.all(waiting)
    expect(portsOf(answers)).toEqual(waiting.map(() => well.port))
    expect(stateOf(gateway)).toBe('out')
    expect(stalls.asked).toEqual(['POST /'])
    const bodies = await Promise.all(well.seen.slice(2).map((seen) => seen.body))
    expect(bodies.map(String)).toEqual(waiting.map(() => body))
    stalls.goOn()
    await Promise.all([one, another])
  })

  it('and others wait for the same are asked for all of them, once', async () => {
    const { stalls, well, gateway } = await startPair({ route: 'cache: {ttl: 1h}' })
    stalls.stall()
    const asked = [1, 2, 3, 4].map(() => request(gateway.url))
    await until(() => stalls.asked.length === 1, 'the request of all')
    const answers = await Promise.all(asked)
    expect(portsOf(answers)).toEqual(asked.map(() => well.port))
    expect([stalls.asked, well.asked]).toEqual([['GET /'], ['GET /']])
  })

  it('stay where there are to be no further attempts', async () => {
    const pair = await startPair({ upstream: 'retries: 0' })
    const { stalls, well, gateway } = pair
    stalls.stall()
    const asked = await pair.ask()
    await untilOut(gateway)
    stalls.goOn()
    await Promise.all(asked)
    expect([stalls.asked.length, well.asked.length]).toEqual([1, 1])
  })

  it('stay where part of the answer has come', async () => {
    const pair = await startPair()
    const { stalls, well, gateway } = pair
    const responses: ServerResponse[] = []
    stalls.answer((message, response) => {
      if (message.url === '/alive') return
      responses.push(response)
      response.writeEarlyHints({ link: '</x>; rel=preload' })
    })
    const asked = await pair.ask()
    await untilOut(gateway)
    for (const response of responses) response.end('late')
    const answers = await Promise.all(asked)
    expect(answers.map(({ text }) => text)).toContain('late')
    expect(well.asked).toHaveLength(1)
  })

  it('stay where the target speaks, and says that it is to be left: it may be about to answer them', async () => {
    const pair = await startPair({ health: 'unhealthyAfter: 1' })
    const { stalls, well, gateway } = pair
    stalls.stall(503)
    const asked = await pair.ask()
    await untilOut(gateway)
    stalls.goOn()
    const answers = await Promise.all(asked)
    expect(new Set(portsOf(answers))).toEqual(new Set([stalls.port, well.port]))
    expect([stalls.asked.length, well.asked.length]).toEqual([1, 1])
  })
})

describe('a target that says nothing while requests wait at it', () => {
  const post = ({ gateway }: Pair) => request(gateway.url, { method: 'POST' })

  it('gets no others once a check goes unanswered too, until it says something', async () => {
    // Long, so that it is not out.
    const pair = await startPair({ health: 'timeout: 1m' })
    const { stalls, well, gateway } = pair
    stalls.stall()
    const asked = await pair.ask({ method: 'POST' })
    // The second one is sent beside the first.
    await until(() => stalls.checks === 3, 'two checks that are not answered')
    for (let i = 0; i < 6; i++) expect(portsOf([await post(pair)])).toEqual([well.port])
    expect(stateOf(gateway)).toBe('up')
    stalls.stall(204)
    const more = await pair.ask({ method: 'POST' })
    stalls.goOn()
    await Promise.all([...asked, ...more])
  })

  it('and passes its checks is slow, and keeps its share', async () => {
    const pair = await startPair()
    const { stalls, well, gateway } = pair
    const sentAtMs: number[] = []
    stalls.stall(204)
    const asked = [...(await pair.ask({ method: 'POST' }))]
    for (let checks = 2; checks <= 3; checks++) {
      await until(() => stalls.checks === checks, 'a check')
      sentAtMs.push(performance.now())
      asked.push(...(await pair.ask({ method: 'POST' })))
    }
    expect(stateOf(gateway)).toBe('up')
    expect([stalls.asked.length, well.asked.length]).toEqual([3, 3])
    // Once a second, less what one of them may take longer to arrive than the other.
    expect((sentAtMs[1] ?? 0) - (sentAtMs[0] ?? 0)).toBeGreaterThan(600)
    stalls.goOn()
    await Promise.all(asked)
  })
})
