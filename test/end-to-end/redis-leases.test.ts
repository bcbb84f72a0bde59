// `lease` across gateways that share a Redis, with one client whom all of them hear of all the time: decided without
// Redis, and still never more than the limit, nor less once what nobody has spent is back.

import http from 'node:http'
import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest'
import { request } from '../support/client.ts'
import { startInstances } from '../support/instances.ts'
import { runGateway } from '../support/process.ts'
import { type RedisServer, describeWithRedis, startRedis, until } from '../support/redis.ts'

const LIMIT = 100_000
/** Units that a POST takes: more than a block has, so that it is always asked of Redis. */
const DEAR = 5000
const LIMITS = `limits: {day: {limit: ${LIMIT}, window: 1d, align: UTC, lease: on, cost: {POST: ${DEAR}}}}`
const ROUTES = ['{path: /*, limits: [day], methods: [GET], cache: {ttl: 1h}}', '{path: /*, limits: [day]}']
const CLIENTS_EACH = 4

interface Address {
  readonly url: string
  readonly adminUrl: string
}

/** Clients of several gateways that ask as fast as they are answered, and what they took. */
class Crowd {
  taken = 0
  /** By gateway. */
  readonly answered = new Map<Address, number>()
  readonly #agent = new http.Agent({ keepAlive: true })
  #isOver = false
  readonly #clients: Promise<void>[] = []

  constructor(gateways: readonly Address[]) {
    onTestFinished(() => this.#agent.destroy())
    for (const gateway of gateways) {
      for (let i = 0; i < CLIENTS_EACH; i++) this.#clients.push(this.#client(gateway))
    }
  }

  /** True where it was admitted. */
  async ask({ url }: Address, method: 'GET' | 'POST' = 'GET'): Promise<boolean> {
    const { status } = await request(`${url}/x`, { method, agent: this.#agent })
    if (status !== 200 && status !== 429) throw new Error(`answered ${status}`)
    if (status === 200) this.taken += method === 'GET' ? 1 : DEAR
    return status === 200
  }

  async stop(): Promise<void> {
    this.#isOver = true
    await Promise.all(this.#clients)
  }

  async #client(gateway: Address): Promise<void> {
    while (!this.#isOver) {
      // The gateway may be gone.
      const answer = await this.ask(gateway).catch(() => null)
      if (answer === null) return
      this.answered.set(gateway, (this.answered.get(gateway) ?? 0) + 1)
    }
  }
}

const leasedBy = async ({ adminUrl }: Address): Promise<number> => {
  const text = await (await fetch(`${adminUrl}/metrics`)).text()
  return Number(/^weirgate_limit_decisions_total\{[^}]*source="lease"[^}]*\} (\d+)$/m.exec(text)?.[1] ?? 0)
}

describeWithRedis('units in blocks', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(() => redis.close())

  const allLease = (gateways: readonly Address[]) =>
    until(async () => (await Promise.all(gateways.map(leasedBy))).every((count) => count > 100), 'all to have blocks')
  const spendTo = async (crowd: Crowd, gateway: Address): Promise<void> => {
    while (await crowd.ask(gateway, 'POST')) expect(crowd.taken).toBeLessThanOrEqual(LIMIT)
  }

  it('are never more than the limit in all, and all of it when what is held has come back', async () => {
    const { all } = await startInstances(3, redis.url, { routes: ROUTES, more: LIMITS })
    const crowd = new Crowd(all)
    await allLease(all)
    await spendTo(crowd, all[0] as Address)
    await until(async () => {
      await crowd.ask(all[1] as Address)
      return crowd.taken >= LIMIT
    }, 'all to be spent')
    await crowd.stop()
    for (let i = 0; i < 30; i++) await crowd.ask(all[i % 3] as Address)
    expect(crowd.taken).toBe(LIMIT)
  })

  it('come back when a gateway is shut down', async () => {
    const { all } = await startInstances(2, redis.url, { routes: ROUTES, more: LIMITS })
    const [first, second] = all as [(typeof all)[number], (typeof all)[number]]
    const crowd = new Crowd([first])
    await allLease([first])
    await crowd.stop()
    await first.close()
    const { headers } = await request(`${second.url}/x`)
    expect(Number(headers['x-ratelimit-remaining'])).toBe(LIMIT - crowd.taken - 1)
  })

  it('are lost with a gateway that is killed, and no more than that', async () => {
    const { all, origin } = await startInstances(2, redis.url, { routes: ROUTES, more: LIMITS })
    const killed = await runGateway(`
upstreams: {origin: {targets: [${origin.url}]}}
defaults: {upstream: origin}
redis: {url: "${redis.url}", deadline: 2s}
${LIMITS}
routes:
${ROUTES.map((route) => `  - ${route}`).join('\n')}
`)
    const crowd = new Crowd([...all, killed])
    await allLease([...all, killed])
    killed.kill('SIGKILL')
    await killed.end
    await spendTo(crowd, all[0] as Address)
    const [gateway] = all as readonly Address[] as readonly [Address]
    await until(async () => !(await crowd.ask(gateway)), 'a refusal')
    await crowd.stop()
    // What the other two hold comes back within a second.
    let before = -1
    await until(async () => {
      while (await crowd.ask(gateway));
      const isSettled = before === crowd.taken
      before = crowd.taken
      await new Promise((resolve) => setTimeout(resolve, 1200))
      return isSettled
    }, 'the rest to be spent')
    expect(crowd.taken).toBeLessThanOrEqual(LIMIT)
    // A block is what a second brings; it never held more than it had been asked for. Who was cut off may have been charged.
    const lost = LIMIT - crowd.taken
    expect(lost).toBeLessThanOrEqual((crowd.answered.get(killed) as number) + CLIENTS_EACH)
  })
})
