// A gateway that may open fewer files than clients would have it: who is connected is served, upstreams included, and
// whoever comes when there is room again is taken.

import { readFileSync } from 'node:fs'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type Conversation, converse, request } from '../support/client.ts'
import { until } from '../support/gateway.ts'
import { startOrigin } from '../support/origin.ts'
import { runGateway } from '../support/process.ts'

const FILES = 250
/** Less what is kept. */
const CONNECTIONS = FILES - 96

const GET = (n: number) => `GET /${n} HTTP/1.1\r\nHost: a\r\n\r\n`

/** Of a process, user and system, in milliseconds. */
function cpuMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10
}

describe.runIf(process.platform === 'linux')('a gateway that may open few files', () => {
  it('serves who is connected, upstreams too, refuses the others, and takes them when some have gone', async () => {
    const origin = await startOrigin((_message, response) => void setTimeout(() => response.end('fine'), 50))
    onTestFinished(() => origin.close())
    const yaml = `upstreams: {app: {targets: ["${origin.url}"]}}\nroutes: [{path: /*, upstream: app}]`
    const gateway = await runGateway(yaml, { maxFiles: FILES })
    await gateway.printed(new RegExp(`"level":"WARNING".*"connections":${CONNECTIONS},`))

    const clients: Conversation[] = []
    const connect = async (count: number): Promise<void> => {
      clients.push(...(await Promise.all(Array.from({ length: count }, () => converse(gateway.port)))))
    }
    onTestFinished(() => {
      for (const client of clients) client.destroy()
    })
    await connect(FILES + 50)
    const open = () => clients.filter(({ closed }) => !closed)
    await until(() => open().length === CONNECTIONS, 'all that are too many to be refused')

    // As many at once as the upstream takes: they need files of their own.
    for (const [n, client] of open().entries()) client.send(GET(n))
    await until(() => open().every(({ received }) => received.includes('fine')), 'an answer to each')
    expect(open().filter(({ received }) => received.startsWith('HTTP/1.1 200 '))).toHaveLength(CONNECTIONS)
    const told = (await request(`${gateway.adminUrl}/metrics`)).text
    expect(told).toMatch(new RegExp(`^weirgate_connections_refused_total ${FILES + 50 - CONNECTIONS}$`, 'm'))

    // Full, it has nothing to do.
    const before = cpuMs(gateway.pid)
    await new Promise((resolve) => setTimeout(resolve, 1000))
    expect(cpuMs(gateway.pid) - before).toBeLessThan(500)

    for (const client of open().slice(0, 20)) client.destroy()
    const left = await connectUntilTaken(gateway.port)
    onTestFinished(() => left.destroy())
    expect(left.received).toContain('fine')
    gateway.kill('SIGTERM')
    expect(await gateway.end).toMatchObject({ code: 0 })
  })

  it('holds no upstream to account for what it cannot open itself', async () => {
    const released = Promise.withResolvers<void>()
    const origin = await startOrigin((message, response) => {
      if (message.url === '/health') response.end()
      else void released.promise.then(() => response.end('fine'))
    })
    onTestFinished(() => origin.close())
    const health = 'health: {path: /health, interval: 100ms, timeout: 500ms}'
    const gateway = await runGateway(
      `upstreams: {app: {targets: ["${origin.url}"], connections: 300, ${health}}}\nroutes: [{path: /*, upstream: app}]`,
      { maxFiles: FILES },
    )
    const clients = await Promise.all(Array.from({ length: CONNECTIONS - 5 }, () => converse(gateway.port)))
    // One that is answered has been accepted.
    for (const client of clients) client.send('GET /health HTTP/1.1\r\nHost: a\r\n\r\n')
    await until(() => clients.every(({ received }) => received.includes('uptime_s')), 'all of them')
    for (const [n, client] of clients.entries()) client.send(GET(n))
    onTestFinished(() => {
      for (const client of clients) client.destroy()
    })
    const refused = () => clients.filter(({ received }) => received.includes('HTTP/1.1 503 '))
    const forwarded = () => origin.seen.filter(({ url }) => url !== '/health')
    await until(() => refused().length + forwarded().length === clients.length, 'the fate of each')
    expect(refused().length).toBeGreaterThan(0)
    for (const { received } of refused()) expect(received).toContain('"overloaded"')
    // Some checks, which cannot be made.
    await new Promise((resolve) => setTimeout(resolve, 1000))
    released.resolve()
    await until(
      () => clients.every(({ received }) => received.includes('fine') || received.includes('503')),
      'the rest',
    )
    for (const client of clients) client.destroy()
    const later = await connectUntilTaken(gateway.port)
    expect(later.received).toContain('fine')
    later.destroy()
    const [upstream] = JSON.parse((await request(`${gateway.adminUrl}/api/upstreams`)).text) as [
      { targets: readonly { state: string; exits: number }[] },
    ]
    expect(upstream.targets).toMatchObject([{ state: 'up', exits: 0 }])
  })
})

/** At most two seconds. */
async function connectUntilTaken(port: number): Promise<Conversation> {
  const endMs = performance.now() + 2000
  for (;;) {
    const client = await converse(port, GET(0))
    await until(() => client.closed || client.received.includes('fine'), 'an answer or the end')
    if (!client.closed || performance.now() > endMs) return client
  }
}
