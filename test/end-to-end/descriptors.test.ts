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
