// What a scenario is, and what it tells: a row of figures for each server, and what is made of them: ratios between
// servers, and the goals that are to be met.

import type { LoadGenerator } from './load.ts'
import type { Cores } from './machine.ts'
import type { Origin } from './origin.ts'
import type { Peer, Server } from './peers/peer.ts'
import type { GatewayOptions } from './peers/weirgate.ts'

/** Figures, in the order in which tables show them. */
export const FIGURES = {
  /** User and system time of all processes of the server, per request. */
  cpuUs: { title: 'CPU, µs', digits: 1 },
  requestsPerSecond: { title: 'requests/s', digits: 0 },
  meanMs: { title: 'mean, ms', digits: 2 },
  p50Ms: { title: 'p50, ms', digits: 2 },
  p95Ms: { title: 'p95, ms', digits: 2 },
  p99Ms: { title: 'p99, ms', digits: 2 },
  /** Of all rounds. */
  maxMs: { title: 'slowest, ms', digits: 1 },
  errors: { title: 'errors', digits: 0 },
  originPerRequest: { title: 'origin asked', digits: 4 },
  /** Lines in the log, per request, in the round that does not count. */
  logged: { title: 'logged', digits: 2 },
  readyMs: { title: 'ready after, ms', digits: 0 },
  readyCpuMs: { title: 'CPU until then, ms', digits: 0 },
  idleConnectionBytes: { title: 'bytes per idle connection', digits: 0 },
  residentMib: { title: 'resident, MiB', digits: 0 },
  /** Of the CPU times of the rounds: largest less smallest, as a part of the median. */
  spread: { title: 'spread', digits: 2 },
} as const

export type Figure = keyof typeof FIGURES

export interface Row {
  readonly server: string
  readonly figures: Partial<Readonly<Record<Figure, number>>>
  /** The rounds differ so much that another run may tell something else. */
  readonly noisy: boolean
}

export interface Check {
  readonly what: string
  readonly value: number
  /** null: shown only. */
  readonly goal: { readonly atMost: number } | { readonly atLeast: number } | null
  /** A ratio of CPU times: it says the same on any machine, so the guard holds it. Less is better. */
  readonly guarded: boolean
}

export interface Outcome {
  readonly rows: readonly Row[]
  readonly checks: readonly Check[]
}

/** What a scenario runs with. */
export interface Bench {
  readonly load: LoadGenerator
  readonly origin: Origin
  readonly cores: Cores
  readonly rounds: number
  /** Whole. */
  readonly roundSeconds: number
  readonly quick: boolean
  /** The gateway, and another checkout of it where one is to be compared. */
  gateways(options?: GatewayOptions): Peer[]
  /** Those that are installed and asked for. */
  present(peers: readonly Peer[]): Peer[]
  /** Says that something is not installed. */
  missing(what: string): void
  /** A folder of its own, the origin and the server's core. */
  place(): { readonly folder: string; readonly originPort: number; readonly core: number }
  /** Starts a peer in such a place; it is closed when the scenario ends. */
  start(peer: Peer): Promise<Server>
}

export interface Scenario {
  /** In a few words, for the page. */
  readonly title: string
  run(bench: Bench): Promise<Outcome>
}

export const isMet = ({ value, goal }: Check): boolean =>
  goal === null || ('atMost' in goal ? value <= goal.atMost : value >= goal.atLeast)

export const goalText = ({ goal }: Check): string => {
  if (goal === null) return ''
  return 'atMost' in goal ? `at most ${goal.atMost}` : `at least ${goal.atLeast}`
}
