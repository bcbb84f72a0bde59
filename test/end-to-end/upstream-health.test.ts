// Targets that die, stall, fail and come back, before a real gateway: who is asked meanwhile, and what operators see.

import net from 'node:net'
import { describe, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { type Origin, type Script, closedPort, startOrigin } from '../support/origin.ts'

const closing = closeAfterEach()

const yamlFor = (targets: readonly string[], options = ''): string => `
upstreams: {app: {targets: ${JSON.stringify(targets)}, ${options}}}
routes: [{path: /*, upstream: app}]
`

const gatewayTo = async (targets: readonly string[], options?: string): Promise<TestGateway> =>
  closing(await startGateway(yamlFor(targets, options)))

const states = ({ gateway }: TestGateway): string[] =>
  gateway.upstreams().flatMap(({ targets }) => targets.map(({ state }) => state))

const statuses = async (gateway: TestGateway, count: number, method = 'GET'): Promise<number[]> => {
  const all: number[] = []
  for (let i = 0; i < count; i++) all.push((await request(gateway.url, { method })).status)
  return all
}

const ok = (count: number): number[] => Array.from({ length: count }, () => 200)
const news = ({ log }: TestGateway) => log.filter(({ message }) => String(message).startsWith('Upstream target'))

describe('a target that takes no connections', () => {
  it('is out after three tries, none of which costs a request, and back when it listens again', async () => {
    const stays = closing(await startOrigin())
    const port = await closedPort()
    const gateway = await gatewayTo([`http://127.0.0.1:${port}`, stays.url], 'health: {slowStart: 0s}')
    expect(await statuses(gateway, 20, 'POST')).toEqual(ok(20))
    expect(states(gateway)).toEqual(['out', 'up'])
    expect(stays.seen).toHaveLength(20)
    const named = { upstream: 'app', target: `http://127.0.0.1:${port}` }
    expect(news(gateway)).toMatchObject([
      { ...named, level: 'WARNING', message: 'Upstream target is out', reason: 'upstream_refused' },
    ])
    const back = closing(await startOrigin(undefined, port))
    await until(() => states(gateway)[0] === 'up', 'the target to be back')
    expect(await statuses(gateway, 10)).toEqual(ok(10))
    expect(back.seen.length).toBeGreaterThanOrEqual(4)
    expect(news(gateway)[1]).toMatchObject({ ...named, level: 'INFO', message: 'Upstream target is back' })
  })

  it('is seen on both ports and in the metrics, both ways', async () => {
    const stays = closing(await startOrigin())
    const port = await closedPort()
    const dead = `http://127.0.0.1:${port}`
    const gateway = await gatewayTo([dead, stays.url], 'health: {slowStart: 1h}')
    await statuses(gateway, 8)
    const health = async () => JSON.parse((await request(`${gateway.url}/health`)).text) as unknown
    expect(await health()).toMatchObject({ status: 'degraded', upstreams: { app: 'degraded' } })
    expect((await request(`${gateway.url}/health`)).status).toBe(200)
    const rows = async () => JSON.parse((await request(`${gateway.adminUrl}/api/upstreams`)).text) as unknown
    expect(await rows()).toMatchObject([
      {
        targets: [
          { state: 'out', exits: 1 },
          { state: 'up', exits: 0 },
        ],
      },
    ])
    const up = `weirgate_upstream_target_up{upstream="app",target="${dead}"}`
    expect(gateway.gateway.metrics()).toContain(`${up} 0\n`)
    closing(await startOrigin(undefined, port))
    await until(() => states(gateway)[0] === 'starting', 'the target to be back')
    expect(await health()).toMatchObject({ status: 'ok', upstreams: { app: 'ok' } })
    expect(await rows()).toMatchObject([
      {
        targets: [
          { state: 'starting', exits: 1 },
          { state: 'up', exits: 0 },
        ],
      },
    ])
    expect(gateway.gateway.metrics()).toContain(`${up} 1\n`)
  })

  it('gets few requests at first when it is back', async () => {
    const stays = closing(await startOrigin())
    const port = await closedPort()
    const gateway = await gatewayTo([`http://127.0.0.1:${port}`, stays.url], 'health: {slowStart: 7d}')
    await statuses(gateway, 8)
    const back = closing(await startOrigin(undefined, port))
    await until(() => states(gateway)[0] === 'starting', 'the target to be back')
    expect(await statuses(gateway, 33)).toEqual(ok(33))
    // Of a weight of 0.1 beside 1, and what the turns before have left.
    expect(back.seen.length).toBeGreaterThanOrEqual(2)
    expect(back.seen.length).toBeLessThanOrEqual(4)
  })

  it('is asked all the same where more than half are out, so that nobody waits for a check', async () => {
    const ports = [await closedPort(), await closedPort()]
    const gateway = await gatewayTo(ports.map((port) => `http://127.0.0.1:${port}`))
    expect(await statuses(gateway, 8)).toEqual(Array.from({ length: 8 }, () => 502))
    expect(states(gateway)).toEqual(['out', 'out'])
    expect((await request(`${gateway.url}/health`)).text).toContain('"upstreams":{"app":"down"}')
    const back = closing(await startOrigin(undefined, ports[1]))
    expect(await statuses(gateway, 4)).toEqual(ok(4))
    expect(back.seen).toHaveLength(4)
  })

  it('is asked beside those that are well, too, where it is one of more than half', async () => {
    const all = [closing(await startOrigin()), closing(await startOrigin()), closing(await startOrigin())]
    for (const origin of all.slice(0, 2)) {
      origin.answer((_message, response, count) => response.writeHead(count === 1 ? 503 : 200).end())
    }
    const gateway = await gatewayTo(
      all.map(({ url }) => url),
      'retries: 0, health: {failures: 1, path: /no-such, interval: 1h, unhealthyAfter: 100, healthyAfter: 100}',
    )
    expect(await statuses(gateway, 3, 'POST')).toEqual([503, 503, 200])
    expect(states(gateway)).toEqual(['out', 'out', 'up'])
    const before = all.map(({ seen }) => seen.length)
    expect(await statuses(gateway, 9)).toEqual(ok(9))
    const asked = all.map(({ seen }, i) => seen.slice(before[i]).filter(({ url }) => url === '/').length)
    expect(asked).toEqual([3, 3, 3])
  })

  it('is known to be out after a reload', async () => {
    const stays = closing(await startOrigin())
    const targets = [`http://127.0.0.1:${await closedPort()}`, stays.url]
    const gateway = await gatewayTo(targets)
    await statuses(gateway, 8)
    gateway.rewrite(yamlFor(targets, 'connections: 5'))
    expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
    expect(states(gateway)).toEqual(['out', 'up'])
  })
})

describe('one of two targets killed in the middle of requests', () => {
  it('costs no GET, and leaves no request of the other', async () => {
    const stays = closing(await startOrigin((_message, response) => void setTimeout(() => response.end('ok'), 2)))
    const dies = await startOrigin((_message, response) => void setTimeout(() => response.end('ok'), 2))
    const gateway = await gatewayTo([dies.url, stays.url])
    const results: number[] = []
    const client = async (): Promise<void> => {
      for (let i = 0; i < 40; i++) {
        results.push((await request(`${gateway.url}/${i}`)).status)
        if (results.length === 200) await dies.close()
      }
    }
    await Promise.all(Array.from({ length: 16 }, client))
    expect(results.filter((status) => status !== 200)).toEqual([])
    expect(states(gateway)).toEqual(['out', 'up'])
    expect(stays.seen.length).toBeGreaterThan(320)
  })
})

describe('a target that fails requests', () => {
  const failing = (status: number) => startOrigin((_message, response) => response.writeHead(status).end())

  it.each([502, 503, 504])('with %d is out after five in a row', async (status) => {
    const [bad, good] = [closing(await failing(status)), closing(await startOrigin())]
    const gateway = await gatewayTo([bad.url, good.url], 'retries: 0')
    expect(await statuses(gateway, 10, 'POST')).toEqual(Array.from({ length: 5 }, () => [status, 200]).flat())
    expect(states(gateway)).toEqual(['out', 'up'])
    expect(news(gateway)).toMatchObject([{ reason: `answers with ${status}` }])
  })

  it('with 500 is not, since that may be the fault of one URL', async () => {
    const [bad, good] = [closing(await failing(500)), closing(await startOrigin())]
    const gateway = await gatewayTo([bad.url, good.url])
    await statuses(gateway, 20)
    expect(states(gateway)).toEqual(['up', 'up'])
  })

  it('comes back on trial, and is out again with its first failure', async () => {
    const [bad, good] = [closing(await failing(503)), closing(await startOrigin())]
    const gateway = await gatewayTo([bad.url, good.url], 'retries: 0, health: {failures: 3, slowStart: 0s}')
    await statuses(gateway, 6)
    expect(states(gateway)).toEqual(['out', 'up'])
    await until(() => states(gateway)[0] === 'up', 'the trial')
    expect((await statuses(gateway, 4)).filter((status) => status === 503)).toHaveLength(1)
    expect(states(gateway)).toEqual(['out', 'up'])
    // It was never back, so nobody was told.
    expect(news(gateway)).toHaveLength(1)
    bad.answer((_message, response) => response.end('well'))
    await until(() => states(gateway)[0] === 'up', 'the next trial')
    await statuses(gateway, 4)
    expect(news(gateway).map(({ message }) => message)).toEqual(['Upstream target is out', 'Upstream target is back'])
  })

  it('by breaking answers off counts too, and so does one that does not begin to answer', async () => {
    const good = closing(await startOrigin())
    const cut = closing(
      await startOrigin((_message, response) => {
        response.writeHead(200, { 'Content-Length': 10 }).write('x', () => response.destroy())
      }),
    )
    const mute = closing(await startOrigin(() => {}))
    for (const bad of [cut, mute]) {
      const gateway = await gatewayTo(
        [bad.url, good.url],
        'retries: 0, health: {failures: 2}, timeouts: {firstByte: 50ms}',
      )
      for (let i = 0; i < 4; i++) await request(gateway.url).catch(() => {})
      await until(() => states(gateway)[0] === 'out', 'the target to be out')
      expect(states(gateway)).toEqual(['out', 'up'])
    }
  })

  it('is not out for a kept connection that it closes, nor for a client that goes', async () => {
    const origin = closing(await startOrigin())
    const gateway = await gatewayTo([origin.url], 'health: {failures: 1}, retries: 0')
    expect(await statuses(gateway, 1)).toEqual([200])
    origin.answer((message) => message.socket.destroy())
    expect(await statuses(gateway, 1, 'POST')).toEqual([502])
    expect(states(gateway)).toEqual(['up'])
    expect(await statuses(gateway, 1, 'POST')).toEqual([502])
    expect(states(gateway)).toEqual(['out'])
    origin.answer((_message, response) => response.end())
    expect(await statuses(gateway, 1)).toEqual([200])
    expect(states(gateway)).not.toContain('out')
    origin.answer(() => {})
    const { seen } = origin
    const before = seen.length
    const client = net.connect(gateway.port, '127.0.0.1').on('error', () => {})
    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    await until(() => seen.length > before, 'the request at the origin')
    client.destroy()
    await until(() => origin.openSockets === 0, 'the exchange to be over')
    expect(states(gateway)).not.toContain('out')
  })
})

describe('checks', () => {
  const CHECKS =
    'health: {path: /alive?deep, interval: 50ms, timeout: 500ms, healthyAfter: 2, unhealthyAfter: 2, slowStart: 0s}'
  const checksOf = ({ seen }: Origin) => seen.filter(({ url }) => url === '/alive?deep')

  it('are GETs under the name of the target, and go on while it is up', async () => {
    const origin = closing(await startOrigin())
    await gatewayTo([origin.url], CHECKS)
    await until(() => checksOf(origin).length >= 3, 'three checks')
    expect(checksOf(origin)[0]).toMatchObject({
      method: 'GET',
      headers: { host: `127.0.0.1:${origin.port}`, 'user-agent': 'weirgate', connection: 'close' },
    })
  })

  it.each<[string, Parameters<typeof startOrigin>[0]]>([
    ['answers with 500', (_message, response) => response.writeHead(500).end()],
    ['answers with 404', (_message, response) => response.writeHead(404).end()],
    ['breaks off', (message) => message.socket.destroy()],
    ['does not answer', () => {}],
  ])('take out a target that %s, without a request of anybody, and bring it back', async (_what, sick) => {
    const [one, other] = [closing(await startOrigin(sick)), closing(await startOrigin())]
    const gateway = await gatewayTo([one.url, other.url], CHECKS)
    await until(() => states(gateway)[0] === 'out', 'the target to be out')
    expect(news(gateway)).toMatchObject([{ message: 'Upstream target is out', reason: 'fails its checks' }])
    expect(await statuses(gateway, 6)).toEqual(ok(6))
    expect(one.seen.filter(({ url }) => url === '/')).toEqual([])
    one.answer((_message, response) => response.writeHead(204).end())
    await until(() => states(gateway)[0] === 'up', 'the target to be back')
    await statuses(gateway, 6)
    expect(one.seen.filter(({ url }) => url === '/')).toHaveLength(3)
  })

  it('take out a target that stands still with its socket open', async () => {
    // The system takes connections for it, as for a process that was stopped.
    const stopped = net.createServer({ pauseOnConnect: true }, (socket) => void socket.on('error', () => {}))
    await new Promise<void>((resolve) => stopped.listen(0, '127.0.0.1', resolve))
    closing({ close: async () => void stopped.close() })
    const { port } = stopped.address() as net.AddressInfo
    const other = closing(await startOrigin())
    const gateway = await gatewayTo([`http://127.0.0.1:${port}`, other.url], CHECKS)
    await until(() => states(gateway)[0] === 'out', 'the target to be out')
    expect(await statuses(gateway, 4)).toEqual(ok(4))
  })

  it.each<[string, string, Script]>([
    ['does not answer the requests that it has', '', () => {}],
    ['fails one', 'failures: 0,', (message) => message.socket.destroy()],
  ])('come at once where a target %s, and again soon', async (_what, failures, sick) => {
    const [one, other] = [closing(await startOrigin()), closing(await startOrigin())]
    const health = `{path: /alive, interval: 1h, timeout: 200ms, ${failures}}`
    const gateway = await gatewayTo([one.url, other.url], `retries: 0, health: ${health}`)
    await until(() => [one, other].every(({ seen }) => seen.length === 1), 'the first checks')
    one.answer(sick)
    const asked = [1, 2].map(() => request(gateway.url).catch(() => null))
    await until(() => states(gateway)[0] === 'out', 'the target to be out')
    expect(news(gateway)).toMatchObject([{ message: 'Upstream target is out', reason: 'fails its checks' }])
    one.answer((_message, response) => response.end())
    await until(() => states(gateway)[0] !== 'out', 'the target to be back')
    await gateway.close()
    await Promise.all(asked)
  })

  it('do not come where a target says something now and then', async () => {
    const origin = closing(await startOrigin())
    const gateway = await gatewayTo([origin.url], 'health: {path: /alive, interval: 1h}')
    await until(() => origin.seen.length === 1, 'the first check')
    let pieces = 0
    origin.answer((_message, response) => {
      const timer = setInterval(() => {
        response.write('x')
        if (++pieces < 30) return
        clearInterval(timer)
        response.end()
      }, 50)
    })
    expect((await request(gateway.url)).text).toHaveLength(30)
    expect(origin.seen.map(({ url }) => url)).toEqual(['/alive', '/'])
  })

  it('end with the upstream', async () => {
    const origin = closing(await startOrigin())
    const next = closing(await startOrigin())
    const gateway = await gatewayTo([origin.url], CHECKS)
    await until(() => checksOf(origin).length >= 1, 'a check')
    gateway.rewrite(yamlFor([next.url], CHECKS))
    expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
    await until(() => checksOf(next).length >= 2, 'checks of the next')
    const before = checksOf(origin).length
    await until(() => checksOf(next).length >= 8, 'more checks of the next')
    // One may have been on its way.
    expect(checksOf(origin).length - before).toBeLessThanOrEqual(1)
  })
})
