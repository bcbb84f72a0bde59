// Targets that are given by name: whose addresses connections go to, and what happens when those change.

import http, { type ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import type { Address, Lookup } from '../../src/upstream/resolve.ts'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { type TestGateway, startGateway, until } from '../support/gateway.ts'
import { closedPort } from '../support/origin.ts'

const closing = closeAfterEach()

/** A name server that a test turns by hand. */
class Names {
  asked = 0
  answer: readonly string[] | Error | 'none'

  constructor(...addresses: readonly string[]) {
    this.answer = addresses
  }

  readonly lookup: Lookup = (_host, done) => {
    this.asked++
    const { answer } = this
    if (answer === 'none') return
    const found: readonly Address[] = answer instanceof Error ? [] : answer.map((address) => ({ address, family: 4 }))
    setImmediate(() => done(answer instanceof Error ? answer : null, found))
  }
}

/** One of several backends that share a port, each on an address of this machine. */
async function backendAt(address: string, port: number) {
  const held: ServerResponse[] = []
  const backend = { held, isHolding: false, sockets: 0, connections: 0 }
  const server = http.createServer({ keepAliveTimeout: 60_000 }, (_incoming, response) => {
    if (backend.isHolding) held.push(response)
    else response.end(address)
  })
  server.on('connection', (socket) => {
    backend.sockets++
    backend.connections++
    socket.on('close', () => backend.sockets--)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, address, resolve)
  })
  const stop = async (): Promise<void> => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  closing({ close: stop })
  return { ...backend, stop, of: backend }
}

const ONE = '127.0.0.1'
const TWO = '127.0.0.2'

const gatewayTo = async (names: Names, port: number, options = 'resolve: 100ms'): Promise<TestGateway> =>
  closing(
    await startGateway(
      `
upstreams: {app: {targets: ["http://backend.test:${port}"], ${options}}}
routes: [{path: /*, upstream: app}]
`,
      {},
      { lookup: names.lookup },
    ),
  )

const texts = async (gateway: TestGateway, count: number): Promise<string[]> => {
  const all = await Promise.all(Array.from({ length: count }, () => request(gateway.url)))
  return all.map(({ text }) => text).toSorted()
}
const news = ({ log }: TestGateway) =>
  log.map(({ message }) => String(message)).filter((message) => message.includes('looked up'))
const metric = ({ gateway }: TestGateway, name: string): number =>
  Number(new RegExp(`^${name}\\{.*\\} (\\d+)$`, 'm').exec(gateway.metrics())?.[1])

describe('the addresses of a name', () => {
  it('get new connections in turn', async () => {
    const port = await closedPort()
    const [one, two] = [await backendAt(ONE, port), await backendAt(TWO, port)]
    const gateway = await gatewayTo(new Names(ONE, TWO), port)
    for (const { of } of [one, two]) of.isHolding = true
    const asked = texts(gateway, 6)
    await until(() => one.held.length + two.held.length === 6, 'the requests')
    expect([one.of.connections, two.of.connections]).toEqual([3, 3])
    expect(metric(gateway, 'weirgate_upstream_target_addresses')).toBe(2)
    for (const response of [...one.held, ...two.held]) response.end('x')
    await asked
  })

  it('are passed over where one does not answer', async () => {
    const port = await closedPort()
    await backendAt(TWO, port)
    const gateway = await gatewayTo(new Names(ONE, TWO), port)
    expect(await texts(gateway, 4)).toEqual([TWO, TWO, TWO, TWO])
  })

  it('are left when the name has others: at once where they are idle, else after the answer', async () => {
    const port = await closedPort()
    const [one, two] = [await backendAt(ONE, port), await backendAt(TWO, port)]
    const names = new Names(ONE)
    const gateway = await gatewayTo(names, port)
    one.of.isHolding = true
    const asked = [request(gateway.url), request(gateway.url)]
    await until(() => one.held.length === 2, 'the requests')
    one.held[0]?.end('idle now')
    expect((await Promise.race(asked)).text).toBe('idle now')
    names.answer = [TWO]
    await until(() => one.of.sockets === 1, 'the idle connection to be closed')
    expect(await texts(gateway, 2)).toEqual([TWO, TWO])
    one.held[1]?.end('whole')
    expect((await Promise.all(asked)).map(({ text }) => text).toSorted()).toEqual(['idle now', 'whole'])
    await until(() => one.of.sockets === 0, 'the other one to be closed')
    expect([one.of.connections, two.of.sockets > 0]).toEqual([2, true])
  })

  it('stay where they are while the name has them beside others', async () => {
    const port = await closedPort()
    const one = await backendAt(ONE, port)
    await backendAt(TWO, port)
    const names = new Names(ONE)
    const gateway = await gatewayTo(names, port)
    expect(await texts(gateway, 1)).toEqual([ONE])
    names.answer = [TWO, ONE]
    await until(() => metric(gateway, 'weirgate_upstream_target_addresses') === 2, 'the new ones')
    expect(await texts(gateway, 1)).toEqual([ONE])
    expect(one.of.connections).toBe(1)
  })
})

describe('a look-up that fails', () => {
  it('changes nothing, and is told of once', async () => {
    const port = await closedPort()
    const one = await backendAt(ONE, port)
    const names = new Names(ONE)
    const gateway = await gatewayTo(names, port)
    expect(await texts(gateway, 1)).toEqual([ONE])
    names.answer = new Error('SERVFAIL')
    await until(() => metric(gateway, 'weirgate_upstream_resolve_failures_total') >= 3, 'three failures')
    one.of.isHolding = true
    const asked = texts(gateway, 3)
    await until(() => one.held.length === 3, 'new connections')
    for (const response of one.held) response.end('x')
    await asked
    names.answer = [ONE]
    await until(() => news(gateway).length === 2, 'the end of it')
    expect(news(gateway)).toEqual([
      'Upstream target cannot be looked up, it keeps what addresses it has',
      'Upstream target can be looked up again',
    ])
  })

  it('or does not end keeps nobody waiting', async () => {
    const port = await closedPort()
    const one = await backendAt(ONE, port)
    const names = new Names(ONE)
    const gateway = await gatewayTo(names, port)
    expect(await texts(gateway, 1)).toEqual([ONE])
    names.answer = 'none'
    const before = names.asked
    await until(() => names.asked > before, 'the look-up')
    one.of.isHolding = true
    const asked = texts(gateway, 2)
    await until(() => one.held.length === 2, 'a new connection')
    for (const response of one.held) response.end('x')
    await asked
  })

  it('from the beginning is a 502, until there is an address', async () => {
    const port = await closedPort()
    await backendAt(ONE, port)
    const names = new Names()
    names.answer = new Error('ENOTFOUND')
    const gateway = await gatewayTo(names, port, 'health: {failures: 0}')
    const first = await request(gateway.url)
    expect([first.status, JSON.parse(first.text)]).toMatchObject([502, { code: 'upstream_refused' }])
    names.answer = [ONE]
    expect(await texts(gateway, 1)).toEqual([ONE])
  })
})

it('a name is looked up early where no connection can be made', async () => {
  const port = await closedPort()
  const one = await backendAt(ONE, port)
  const names = new Names(ONE)
  const gateway = await gatewayTo(names, port, 'resolve: 1h, retries: 0')
  expect(await texts(gateway, 1)).toEqual([ONE])
  await one.stop()
  await backendAt(TWO, port)
  names.answer = [TWO]
  await until(() => names.asked === 1, 'nothing yet')
  expect((await request(gateway.url)).status).toBe(502)
  await until(() => names.asked === 2, 'another look-up')
  await until(() => metric(gateway, 'weirgate_upstream_target_up') === 1, 'the target to be up')
  expect(await texts(gateway, 1)).toEqual([TWO])
})

it('an address is not looked up', async () => {
  const port = await closedPort()
  await backendAt(ONE, port)
  const names = new Names(TWO)
  const yaml = `upstreams: {app: {targets: ["http://127.0.0.1:${port}"]}}\nroutes: [{path: /*, upstream: app}]`
  const gateway = closing(await startGateway(yaml, {}, { lookup: names.lookup }))
  expect(await texts(gateway, 1)).toEqual([ONE])
  expect(names.asked).toBe(0)
})
