// A whole gateway from inline YAML on free ports, with its log at hand.

import { loadConfig } from '../../src/config/load.ts'
import { type Gateway, type GatewaySetup, createGateway } from '../../src/gateway.ts'

export interface TestGateway {
  readonly gateway: Gateway
  readonly url: string
  readonly port: number
  readonly adminUrl: string
  readonly adminPort: number
  /** Log lines so far, parsed. */
  readonly log: readonly Record<string, unknown>[]
  /** The lines of finished requests, waiting until there are at least `count`. */
  requestLines(count: number): Promise<readonly Record<string, unknown>[]>
  /** Changes the YAML that the next reload reads. */
  rewrite(yaml: string): void
  close(): Promise<void>
}

const PORTS = `
listen: {address: 127.0.0.1:0}
admin: {listen: 127.0.0.1:0}
`

/** yaml: all but listen and admin, or with them where it says `listen:` itself. */
export async function startGateway(
  yaml: string,
  env: NodeJS.ProcessEnv = {},
  setup: Pick<GatewaySetup, 'lanes' | 'lookup' | 'pulse'> = {},
): Promise<TestGateway> {
  const whole = (text: string) => (/^listen:/m.test(text) ? text : PORTS + text)
  let text = whole(yaml)
  const log: Record<string, unknown>[] = []
  const gateway = createGateway({
    // However busy the machine is that a test runs on.
    pulse: () => () => {},
    ...setup,
    load: () => loadConfig(text, 'test.yaml', env),
    // Lifetimes as the table gives them.
    random: () => 0.5,
    logDestination: { write: (line: string) => void log.push(JSON.parse(line) as Record<string, unknown>) },
  })
  const { listen, admin } = await gateway.start()
  const requests = () => log.filter(({ message }) => message === 'Request completed' || message === 'Slow request')
  return {
    gateway,
    url: `http://127.0.0.1:${listen.port}`,
    port: listen.port,
    adminUrl: `http://127.0.0.1:${admin.port}`,
    adminPort: admin.port,
    log,
    async requestLines(count) {
      await until(() => requests().length >= count, `${count} request lines in the log`)
      return requests()
    },
    rewrite(next) {
      text = whole(next)
    },
    close: () => gateway.destroy(),
  }
}

/** Resolves when the condition holds; fails after a generous bound, naming what was waited for. */
export async function until(condition: () => boolean, what: string, boundMs = 10_000): Promise<void> {
  const endMs = performance.now() + boundMs
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`waited ${boundMs} ms for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}
