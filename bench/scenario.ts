// What a scenario is, and what it tells: a row of figures for each server, and what is made of them: ratios between
// servers, with the goal that each has to meet.

import type { LoadGenerator } from './load.ts'
import type { Origin } from './origin.ts'
import type { Peer, Server } from './peers/peer.ts'
import type { GatewayOptions } from './peers/weirgate.ts'

/** Figures, in the order in which tables show them. cpuUs: of all processes of the server, per request. */
export const FIGURES = {
  cpuUs: { title: 'CPU, us', digits: 1 },
  requestsPerSecond: { title: 'requests/s', digits: 0 },
  meanMs: { title: 'mean, ms', digits: 2 },
  p50Ms: { title: 'p50, ms', digits: 2 },
  p95Ms: { title: 'p95, ms', digits: 2 },
  p99Ms: { title: 'p99, ms', digits: 2 },
  errors: { title: 'errors', digits: 0 },
  originPerRequest: { title: 'origin asked, per request', digits: 3 },
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
  readonly rounds: number
  readonly roundSeconds: number
  readonly quick: boolean
  /** The gateway, and another checkout of it where one is to be compared. */
  gateways(options?: GatewayOptions): Peer[]
  /** Those that are installed and asked for. */
  present(peers: readonly Peer[]): Peer[]
  /** Started on the server's core, in a folder of its own, and closed when the scenario ends. */
  start(peer: Peer): Promise<Server>
}

export interface Scenario {
  /** In a few words, for the page. */
  readonly title: string
  run(bench: Bench): Promise<Outcome>
}
