// Does a hit cost more in a large table, or in a full cache? 10 routes beside 10,000, and 1,000 stored answers beside a
// million, asked for at random.

import { type Contestant, cpuRatios, measure } from '../rounds.ts'
import type { Bench, Outcome, Row, Scenario } from '../scenario.ts'
import { LIMITS } from '../peers/weirgate.ts'

/** The measured ratio may stray by so much from "as before". */
const ROUTES_GOAL = 1.1

export const routes10k: Scenario = {
  title: 'Answered from the cache, with 10 and with 10,000 routes: 64 connections',
  async run(bench) {
    // The same ten URLs in both.
    const load = { path: '/api/v1/service{n}/items', numbers: { below: 10 }, connections: 64 }
    const contestants: Contestant[] = []
    for (const count of [10_000, 10]) {
      const [peer] = bench.gateways({ name: `weirgate, ${count.toLocaleString('en')} routes`, yaml: routesYaml(count) })
      if (peer === undefined) continue
      contestants.push({
        name: peer.name,
        server: await bench.start(peer),
        load: { ...load, seconds: bench.roundSeconds },
      })
    }
    return outcome(bench, contestants, ROUTES_GOAL)
  },
}

export const entries1M: Scenario = {
  title: 'Answered from a cache of 1,000 and of 1,000,000 answers of 0.7 KiB, at random: 64 connections',
  async run(bench) {
    const yaml = `
cache: {memory: 6GiB}
limits: {${LIMITS}}
defaults: {upstream: origin, limits: [per-client]}
routes: [{path: /*, cache: {ttl: 1h}}]
`
    const contestants: Contestant[] = []
    // A tenth of it tells as much where time is short.
    for (const count of [bench.quick ? 100_000 : 1_000_000, 1000]) {
      const [peer] = bench.gateways({ name: `weirgate, ${count.toLocaleString('en')} answers`, yaml })
      if (peer === undefined) continue
      const server = await bench.start(peer)
      const path = '/api/v1/presentations/{n}'
      const connections = 64
      for (let stored = 0; stored < count;) {
        // The last requests of a round may be given up, so they are asked for once more.
        const { requests } = await bench.load.run(server.port, {
          path,
          numbers: { from: stored },
          connections,
          seconds: 2,
        })
        stored += requests - connections
      }
      contestants.push({
        name: peer.name,
        server,
        load: { path, numbers: { below: count }, connections, seconds: bench.roundSeconds },
      })
    }
    return outcome(bench, contestants, null)
  },
}

async function outcome(bench: Bench, contestants: readonly Contestant[], goal: number | null): Promise<Outcome> {
  const measured = await measure(bench, contestants, 3)
  const rows: Row[] = []
  for (const [i, row] of measured.entries()) {
    const residentMib = (contestants[i]?.server.residentBytes() ?? 0) / 1024 ** 2
    rows.push({ ...row, figures: { ...row.figures, residentMib } })
  }
  const [, few] = rows
  return { rows, checks: cpuRatios(rows, goal === null ? {} : { [few?.server ?? '']: goal }) }
}

/** Tables as they grow: exact paths, prefixes and parameters in turn, with and without methods. */
export function routesYaml(count: number): string {
  const shapes = ['items', '*', 'items/:id/parts']
  const lines = Array.from({ length: count }, (_, i) => {
    const methods = i % 2 === 0 ? '' : ', methods: [GET, HEAD]'
    // The ten that are asked for are of one shape.
    return `  - {path: /api/v1/service${i}/${i < 10 ? 'items' : shapes[i % 3]}${methods}, cache: {ttl: 1h}}`
  })
  return `
cache: {memory: 256MiB}
limits: {${LIMITS}}
defaults: {upstream: origin, limits: [per-client]}
routes:
${lines.join('\n')}
`
}
