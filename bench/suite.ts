// Runs scenarios, one after the other, and gathers what they tell.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLoadGenerator } from './load.ts'
import { type Cores, describeMachine, loadAverage } from './machine.ts'
import { startOrigin } from './origin.ts'
import type { Peer, Server } from './peers/peer.ts'
import { CHECKOUT, type GatewayOptions, gateway, otherCheckout, versionOfCheckout } from './peers/weirgate.ts'
import { printOutcome } from './print.ts'
import type { Results } from './results.ts'
import type { Bench, Outcome, Scenario } from './scenario.ts'
import { connections5k } from './scenarios/connections.ts'
import { entries1M, routes10k } from './scenarios/growth.ts'
import { hitRedisLimit } from './scenarios/hit-redis-limit.ts'
import { hit, hit100kB, notModified } from './scenarios/hit.ts'
import { hundredUsers } from './scenarios/hundred-users.ts'
import { miss } from './scenarios/miss.ts'
import { start } from './scenarios/start.ts'

export const SCENARIOS: ReadonlyMap<string, Scenario> = new Map([
  ['hit', hit],
  ['hit-redis-limit', hitRedisLimit],
  ['hit-100kB', hit100kB],
  ['304', notModified],
  ['miss', miss],
  ['routes-10k', routes10k],
  ['entries-1M', entries1M],
  ['connections-5k', connections5k],
  ['start', start],
  ['hundred-users', hundredUsers],
])

export interface SuiteOptions {
  /** This process is bound to those of the load. */
  readonly cores: Cores
  readonly names: readonly string[]
  readonly rounds: number
  readonly roundSeconds: number
  /** Smaller where a scenario is long. */
  readonly quick: boolean
  /** Another checkout to compare with. */
  readonly against: string | null
  /** Peers by name; null: all. */
  readonly peers: readonly string[] | null
  /** Gets a CPU profile of the gateway for each scenario. */
  readonly profileInto: string | null
}

/** Prints as it goes. Throws where a server does not do what it is measured for. */
export async function runSuite(options: SuiteOptions): Promise<Results> {
  const { cores } = options
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-bench-'))
  const load = createLoadGenerator(folder)
  const origin = await startOrigin()
  const missing = new Set<string>()
  const servers: Record<string, { version: string; does: string }> = {}
  const scenarios: Record<string, Outcome & { title: string; loadAverage: number }> = {}
  if (!load.isPrecise) missing.add('wrk (apt-get install wrk), so the load is by autocannon')
  console.log(`${describeMachine()}; server on core ${cores.server}, load by ${load.name} on ${cores.load}`)

  let places = 0
  const run = async (name: string, scenario: Scenario): Promise<void> => {
    const { title } = scenario
    const busy = loadAverage()
    console.log(`\n== ${name}: ${title} (load average ${busy.toFixed(2)})`)
    const started: Server[] = []
    const bench: Bench = {
      ...options,
      load,
      origin,
      gateways: (given) => gatewaysOf(options, name, given),
      missing: (what) => void missing.add(what),
      present(peers) {
        for (const peer of peers) if (peer.version === null) missing.add(`${peer.name} (${peer.install})`)
        return peers.filter(({ name, version }) => version !== null && (options.peers?.includes(name) ?? true))
      },
      place: () => ({ folder: join(folder, String(places++)), originPort: origin.port, core: cores.server }),
      async start(peer) {
        servers[peer.name] = { version: peer.version ?? '', does: peer.does }
        const server = await peer.start(bench.place())
        started.push(server)
        return server
      },
    }
    try {
      const outcome = await scenario.run(bench)
      printOutcome(outcome)
      scenarios[name] = { title, loadAverage: busy, ...outcome }
    } finally {
      await Promise.all(started.map((server) => server.close()))
    }
  }

  try {
    for (const name of options.names) {
      const scenario = SCENARIOS.get(name)
      if (scenario !== undefined) await run(name, scenario)
    }
  } finally {
    await origin.close()
    rmSync(folder, { recursive: true, force: true })
  }
  if (missing.size > 0) console.log(`\nnot installed, so left out: ${[...missing].join(', ')}`)
  return {
    measuredAt: new Date().toISOString(),
    commit: versionOfCheckout(CHECKOUT),
    machine: describeMachine(),
    load: load.name,
    rounds: options.rounds,
    roundSeconds: options.roundSeconds,
    quick: options.quick,
    missing: [...missing],
    servers,
    scenarios,
  }
}

function gatewaysOf({ against, profileInto }: SuiteOptions, scenario: string, given: GatewayOptions = {}): Peer[] {
  const name = given.name ?? 'weirgate'
  const profile = profileInto === null ? {} : { profileInto, profileName: `${scenario} ${name}` }
  const own = gateway({ ...given, ...profile })
  if (against === null) return [own]
  const other = otherCheckout(against)
  return [own, gateway({ ...given, root: other.root, name: name.replace('weirgate', other.name) })]
}
