// How long until the gateway answers, with a table of 1,000 routes: from the start of the process to the first answer on its
// port; from the sources, as in a checkout, and from what was built from them, as in the package and in the image.

import { spawnSync } from 'node:child_process'
import { cpSync, mkdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { CHECKOUT, gatewayYaml, startGateway } from '../peers/weirgate.ts'
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
    for (const [what, main] of [
      ['from its sources', 'src/main.ts'],
      ['built', join(build(bench), 'dist/main.js')],
    ] as const) {
      rows.push(await rowOf(`weirgate, ${what}`, main, bench))
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

async function rowOf(name: string, main: string, bench: Bench): Promise<Row> {
  const [times, cpuTimes, resident]: number[][] = [[], [], []]
  for (let i = -1; i < STARTS; i++) {
    const place = bench.place()
    const startedAtMs = performance.now()
    const server = await startGateway({ root: CHECKOUT, main, yaml: gatewayYaml(routesYaml(ROUTES), place), place })
    await ask(server.port, '/health')
    const [readyMs, cpuMs, residentMib] = [
      performance.now() - startedAtMs,
      server.cpuMs(),
      server.residentBytes() / 1024 ** 2,
    ]
    await server.close()
    // The first one reads the files from disk.
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

/** Compiles the sources into a folder that has what the package has. */
function build(bench: Bench): string {
  const { folder } = bench.place()
  mkdirSync(folder, { recursive: true })
  cpSync(join(CHECKOUT, 'package.json'), join(folder, 'package.json'))
  symlinkSync(join(CHECKOUT, 'node_modules'), join(folder, 'node_modules'))
  const tsc = join(CHECKOUT, 'node_modules/.bin/tsc')
  const { status, stdout } = spawnSync(tsc, ['-p', 'tsconfig.build.json', '--outDir', join(folder, 'dist')], {
    cwd: CHECKOUT,
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`it does not build: ${stdout}`)
  return folder
}
