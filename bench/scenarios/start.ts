// How long until the gateway answers, with a table of 1,000 routes: from the start of the process to the first answer on its
// port; from the sources, as in a checkout, and from what was built from them, as in the package and in the image. The first
// start compiles, and keeps what it compiled for those after it.

import { CHECKOUT, buildInto, gatewayYaml, startGateway } from '../peers/weirgate.ts'
import { ask, median, spreadOf } from '../rounds.ts'
import type { Bench, Check, Row, Scenario } from '../scenario.ts'
import { routesYaml } from './growth.ts'

const ROUTES = 1000
const STARTS = 5
const NOISY = 0.2
const GOAL_MS = 400

export const start: Scenario = {
  title: 'From the start of the process to its first answer: 1,000 routes',
  async run(bench) {
    const rows: Row[] = []
    for (const [what, root] of [
      ['from its sources', CHECKOUT],
      ['built', buildInto(bench.place().folder)],
    ] as const) {
      rows.push(await rowOf(`weirgate, ${what}, first start`, root, bench, () => bench.place().folder))
      const kept = bench.place().folder
      rows.push(await rowOf(`weirgate, ${what}`, root, bench, () => kept))
    }
    const checks = rows.map(({ server, figures }): Check => ({
      what: `ms until ${server} is ready`,
      value: figures.readyMs as number,
      goal: { atMost: GOAL_MS },
      guarded: false,
    }))
    return { rows, checks }
  },
}

/** compiled: where a start finds what those before it have compiled. */
async function rowOf(name: string, root: string, bench: Bench, compiled: () => string): Promise<Row> {
  const [times, cpuTimes, resident]: number[][] = [[], [], []]
  for (let i = -1; i < STARTS; i++) {
    // On any core, as its users start it: V8 compiles and collects beside what runs.
    const place = { ...bench.place(), core: null }
    const env = { NODE_COMPILE_CACHE: compiled() }
    const startedAtMs = performance.now()
    const server = await startGateway({ root, yaml: gatewayYaml(routesYaml(ROUTES), place), place, env })
    await ask(server.port, '/health')
    const [readyMs, cpuMs, residentMib] = [
      performance.now() - startedAtMs,
      server.cpuMs(),
      server.residentBytes() / 1024 ** 2,
    ]
    await server.close()
    // This one reads the files from disk, and fills what is kept.
    if (i < 0) continue
    times?.push(readyMs)
    cpuTimes?.push(cpuMs)
    resident?.push(residentMib)
  }
  const spread = spreadOf(cpuTimes as number[])
  return {
    server: name,
    noisy: spread > NOISY,
    figures: {
      readyMs: median(times as number[]),
      readyCpuMs: median(cpuTimes as number[]),
      residentMib: median(resident as number[]),
      spread,
    },
  }
}
