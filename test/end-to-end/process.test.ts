// The gateway as a process: its start, its one line, its reloads by signal and by file, and its end when it fails.

import net, { type AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { HealthReport } from '../../src/core/control.ts'
import { request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { until } from '../support/gateway.ts'
import { type Origin, startOrigin } from '../support/origin.ts'
import { configFile, runGateway, weirgate, weirgateToEnd, withPorts } from '../support/process.ts'

const closing = closeAfterEach()

const table = (origin: Pick<Origin, 'url'>, more = '') => `
upstreams: {app: {targets: ["${origin.url}"]}}
routes: [{path: /*, upstream: app}]
${more}
`
const NOWHERE = { url: 'http://127.0.0.1:1' }

async function takenPort(): Promise<number> {
  const server = net.createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  closing({ close: () => new Promise((resolve) => server.close(() => resolve())) })
  return (server.address() as AddressInfo).port
}

const isOpen = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = net.connect(port, '127.0.0.1', () => {
      socket.destroy()
      resolve(true)
    })
    socket.on('error', () => resolve(false))
  })

describe('weirgate run', () => {
  it('prints one line once both ports listen, apart from the log on standard output', async () => {
    const origin = closing(await startOrigin())
    const gateway = await runGateway(table(origin))
    expect((await request(`${gateway.url}/x`)).status).toBe(200)
    expect((await request(`${gateway.adminUrl}/health`)).status).toBe(200)
    gateway.kill('SIGTERM')
    expect(await gateway.end).toEqual({ code: 0, signal: null })
    expect(gateway.stderr.trimEnd().split('\n')).toHaveLength(1)
    expect(gateway.log.map(({ message }) => message)).toEqual(['Request completed', 'Shutting down'])
  })

  it.each(['listen', 'admin.listen'])('says so when %s is taken, opens nothing and ends with 1', async (option) => {
    const taken = await takenPort()
    const [port, adminPort] = option === 'listen' ? [taken, 0] : [0, taken]
    const ports = `listen: 127.0.0.1:${port}\nadmin: {listen: 127.0.0.1:${adminPort}}\n`
    const { code, stdout, stderr } = await weirgateToEnd(['run', '-c', configFile(ports + table(NOWHERE)).path])
    expect({ code, stdout, stderr }).toEqual({
      code: 1,
      stdout: '',
      stderr: `${option}: cannot listen on 127.0.0.1:${taken}: another program listens there; stop that one, or choose another port\n`,
    })
  })

  it('takes its port, the log level and the limit of the shipped table from the environment', async () => {
    const origin = closing(await startOrigin())
    const gateway = weirgate(['run'], {
      env: {
        PORT: '0',
        ADMIN_PORT: '0',
        PRESENTATION_URL: origin.url,
        AI_URL: origin.url,
        LOG_LEVEL: 'warn',
        RATE_LIMIT_PER_MINUTE: '2',
      },
    })
    const [, port] = await gateway.printed(/listens on http:\/\/0\.0\.0\.0:(\d+)/)
    const seen: number[] = []
    for (let i = 0; i < 3; i++) seen.push((await request(`http://127.0.0.1:${port}/api/v1/themes`)).status)
    expect(seen).toEqual([200, 200, 429])
    gateway.kill('SIGTERM')
    await gateway.end
    expect(gateway.log).toEqual([])
  })

  it('outlives a standard output that nobody reads any more', async () => {
    const origin = closing(await startOrigin())
    const gateway = await runGateway(table(origin))
    // As `weirgate run | head` does after its first lines.
    gateway.closeStdout()
    for (let i = 0; i < 50; i++) expect((await request(`${gateway.url}/x`)).status).toBe(200)
    await gateway.printed(/\nThe log cannot be written: EPIPE: broken pipe, write; 8MiB of it wait, .*\n$/)
    gateway.kill('SIGTERM')
    expect(await gateway.end).toEqual({ code: 0, signal: null })
  })
})

describe('a signal in the middle of the start', () => {
  /** Sends the signal when the public port is about to open, and holds the port back for a while. */
  const inTheMiddle = (signal: string) => `
    import net from 'node:net'
    const listen = net.Server.prototype.listen
    let servers = 0
    net.Server.prototype.listen = function (...args) {
      if (++servers < 2) return listen.apply(this, args)
      process.kill(process.pid, '${signal}')
      setTimeout(() => listen.apply(this, args), 300)
      return this
    }
  `

  it('SIGTERM ends it with 0, as it would later', async () => {
    const { path } = configFile(withPorts(table(NOWHERE)))
    const { code, stdout } = await weirgateToEnd(['run', '-c', path], { preload: inTheMiddle('SIGTERM') })
    expect(code).toBe(0)
    expect(stdout).toContain('Shutting down')
  })

  it('SIGHUP does not end it', async () => {
    const origin = closing(await startOrigin())
    const gateway = await runGateway(table(origin), { preload: inTheMiddle('SIGHUP') })
    expect((await request(`${gateway.url}/x`)).status).toBe(200)
  })
})

describe('a table that changes under it', () => {
  it('is taken on SIGHUP, and by itself when a new file is renamed over the old one; an invalid one never', async () => {
    const [one, two] = [
      closing(await startOrigin((_incoming, response) => response.end('one'))),
      closing(await startOrigin((_incoming, response) => response.end('two'))),
    ]
    const gateway = await runGateway(table(one))
    const answer = async () => (await request(`${gateway.url}/x`)).text
    const config = async () => {
      const { text } = await request(`${gateway.adminUrl}/health`)
      return (JSON.parse(text) as HealthReport).config
    }
    /** Waits for another state of the configuration than the one given. */
    const after = async (before: HealthReport['config']): Promise<HealthReport['config']> => {
      const now = await config()
      return now.loaded_at === before.loaded_at && now.error === before.error ? after(before) : now
    }
    const first = await config()
    expect(await answer()).toBe('one')

    gateway.file.replace(withPorts(table(two)))
    const second = await after(first)
    expect([second.error, await answer()]).toEqual([null, 'two'])

    gateway.file.replace(withPorts(`nonsense: 1\n${table(one)}`))
    const refused = await after(second)
    expect(refused.error).toContain(`${gateway.file.path}:3:1 nonsense: `)
    expect([refused.loaded_at, await answer()]).toEqual([second.loaded_at, 'two'])

    // The file that runs comes back: that is a change too, and ends the complaint.
    gateway.file.replace(withPorts(table(two)))
    const third = await after(refused)
    expect([third.error, await answer()]).toEqual([null, 'two'])

    gateway.kill('SIGHUP')
    expect((await after(third)).error).toBeNull()
    gateway.kill('SIGTERM')
    await gateway.end
    expect(gateway.log.filter(({ message }) => message === 'Configuration loaded')).toHaveLength(3)
    expect(gateway.log.filter(({ message }) => message === 'Configuration refused, the old one stays')).toHaveLength(1)
  })
})

describe('a fault that nobody caught', () => {
  const FAULTS = {
    'an exception, and more after it,': `
      process.on('SIGUSR2', () => {
        for (let i = 0; i < 3; i++) setImmediate(() => { throw new Error('a bug') })
      })`,
    'a rejection': `process.on('SIGUSR2', () => void Promise.reject(new Error('a bug')))`,
  }
  it.each(Object.entries(FAULTS))(
    '%s is logged once; answers in flight end, nothing new is taken, and the process ends with 1',
    async (_what, preload) => {
      let owed: (() => void) | null = null
      const origin = closing(await startOrigin((_incoming, response) => void (owed = () => response.end('whole'))))
      const gateway = await runGateway(table(origin), { preload })
      const asked = request(`${gateway.url}/x`)
      await until(() => owed !== null, 'the request at the origin')
      gateway.kill('SIGUSR2')
      await gateway.printed(/"CRITICAL"/)
      while (await isOpen(gateway.port));
      ;(owed as (() => void) | null)?.()
      const answer = await asked
      expect([answer.status, answer.text, answer.headers.connection]).toEqual([200, 'whole', 'close'])
      expect(await gateway.end).toEqual({ code: 1, signal: null })
      const faults = gateway.log.filter(({ level }) => level === 'CRITICAL')
      expect(faults).toEqual([
        expect.objectContaining({
          message: 'Uncaught fault, ending',
          error: expect.objectContaining({ message: 'a bug', stack: expect.stringContaining('Error: a bug') }),
        }),
      ])
    },
  )

  it('ends the process even where an answer does not come to its end', async () => {
    const origin = closing(await startOrigin((_incoming, response) => response.write('begun')))
    const gateway = await runGateway(table(origin), { preload: FAULTS['a rejection'] })
    let begun = false
    const outcome = request(`${gateway.url}/x`, { onHead: () => (begun = true) }).then(
      () => 'whole',
      () => 'broken',
    )
    await until(() => begun, 'the head of the answer')
    const startedAtMs = performance.now()
    gateway.kill('SIGUSR2')
    expect(await gateway.end).toEqual({ code: 1, signal: null })
    // Two seconds, but for the moment that is kept for last words.
    expect(performance.now() - startedAtMs).toBeGreaterThanOrEqual(1700)
    expect(await outcome).toBe('broken')
  })
})
