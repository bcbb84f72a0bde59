// Runs scenarios, one after the other, and prints what they tell.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLoadGenerator } from './load.ts'
import { describeMachine, loadAverage, pinSelf, shareCores } from './machine.ts'
import { startOrigin } from './origin.ts'
import type { Peer, Server } from './peers/peer.ts'
import { type GatewayOptions, gateway, otherCheckout } from './peers/weirgate.ts'
import { type Bench, type Check, FIGURES, type Figure, type Outcome, type Row, type Scenario } from './scenario.ts'
import { hit } from './scenarios/hit.ts'
import { miss } from './scenarios/miss.ts'

export const SCENARIOS: Readonly<Record<string, Scenario>> = { hit, miss }

export interface SuiteOptions {
  /** All where empty. */
  readonly names: readonly string[]
  readonly rounds: number
  readonly roundSeconds: number
  readonly quick: boolean
  /** Another checkout to compare with. */
  readonly against: string | null
  /** Peers by name; null: all. */
  readonly peers: readonly string[] | null
  /** Gets a CPU profile of the gateway for each scenario. */
  readonly profileInto: string | null
}

export async function runSuite(options: SuiteOptions): Promise<void> {
  const cores = shareCores()
  pinSelf(cores.load)
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-bench-'))
  const load = createLoadGenerator(folder)
  console.log(`${describeMachine()}; server on core ${cores.server}, load by ${load.name} on ${cores.load}`)
  const missing = new Set<string>()
  const origin = await startOrigin()
  try {
    for (const name of options.names.length > 0 ? options.names : Object.keys(SCENARIOS)) {
      const scenario = SCENARIOS[name] as Scenario
      console.log(`\n== ${name}: ${scenario.title} (load average ${loadAverage().toFixed(2)})`)
      const started: Server[] = []
      const bench: Bench = {
        ...options,
        load,
        origin,
        gateways: (given) => gatewaysOf(options, name, given),
        present(peers) {
          for (const peer of peers) if (peer.version === null) missing.add(`${peer.name} (${peer.install})`)
          return peers.filter(({ name, version }) => version !== null && (options.peers?.includes(name) ?? true))
        },
        async start(peer) {
          const place = {
            folder: join(folder, `${name}-${started.length}`),
            originPort: origin.port,
            core: cores.server,
          }
          const server = await peer.start(place)
          started.push(server)
          return server
        },
      }
      try {
        print(await scenario.run(bench))
      } finally {
        await Promise.all(started.map((server) => server.close()))
      }
    }
  } finally {
    await origin.close()
    rmSync(folder, { recursive: true, force: true })
  }
  if (missing.size > 0) console.log(`\nnot installed, so left out: ${[...missing].join(', ')}`)
}

function gatewaysOf({ against, profileInto }: SuiteOptions, scenario: string, given: GatewayOptions = {}): Peer[] {
  const name = given.name ?? 'weirgate'
  const profile = profileInto === null ? {} : { profileInto, profileName: `${scenario} ${name}` }
  const own = gateway({ ...given, ...profile })
  if (against === null) return [own]
  const other = otherCheckout(against)
  return [own, gateway({ ...given, root: other.root, name: name.replace('weirgate', other.name) })]
}

function print({ rows, checks }: Outcome): void {
  const figures = (Object.keys(FIGURES) as Figure[]).filter((figure) => rows.some((row) => figure in row.figures))
  const cells = (row: Row): string[] =>
    figures.map((figure) => row.figures[figure]?.toFixed(FIGURES[figure].digits) ?? '')
  const table = [
    ['', ...figures.map((figure) => FIGURES[figure].title), ''],
    ...rows.map((row) => [row.server, ...cells(row), row.noisy ? 'noisy' : '']),
  ]
  const widths = (table[0] as string[]).map((_, column) =>
    Math.max(...table.map((line) => (line[column] ?? '').length)),
  )
  for (const line of table) {
    console.log(
      line.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join('  '),
    )
  }
  for (const check of checks) console.log(`${check.what}: ${check.value.toFixed(2)}${goalOf(check)}`)
}

function goalOf({ value, goal }: Check): string {
  if (goal === null) return ''
  const [isMet, text] =
    'atMost' in goal
      ? [value <= goal.atMost, `at most ${goal.atMost}`]
      : [value >= goal.atLeast, `at least ${goal.atLeast}`]
  return `, goal ${text}: ${isMet ? 'met' : 'MISSED'}`
}
