// The promises of the limits, measured with three gateways as processes and a real Redis: what is promised, what was
// measured, kept or not. A broken promise fails the run. What this machine was too busy to show is `unsure`, with the
// reason, and fails nothing; bounds on times compare with requests to a route without limits, asked at the same time.
//
// Measured elsewhere: what a check costs (`npm run bench -- limit-redis`), and what millions of strangers leave behind
// (`npm run bench -- limit-strangers`).

import { addresses, hits, waits } from './promises/answers.ts'
import { lentQuotas, lentRates } from './promises/blocks.ts'
import { changes, clocks, cluster, quotas, stalls, units, windows } from './promises/budgets.ts'
import { redisClock } from './promises/clock-step.ts'
import { floods } from './promises/floods.ts'
import { outages, slots, spells, wipes } from './promises/losses.ts'
import { masters, moves } from './promises/masters.ts'
import { type Row, type Verdict, inWorld } from './promises/world.ts'

export async function benchLimitPromises(): Promise<void> {
  const startedAtMs = performance.now()
  const rows: Row[] = []
  for (const measure of [
    windows,
    quotas,
    lentRates,
    lentQuotas,
    stalls,
    outages,
    spells,
    wipes,
    clocks,
    redisClock,
    cluster,
    masters,
    moves,
    units,
    waits,
    hits,
    floods,
    slots,
    addresses,
    changes,
  ]) {
    rows.push(...(await inWorld(measure)))
  }
  const count = (verdict: Verdict) => rows.filter((row) => row.verdict === verdict).length
  const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(0)
  console.log(`\n${count('kept')} kept, ${count('broken')} broken, ${count('unsure')} unsure, in ${seconds} s`)
  if (count('broken') > 0) process.exitCode = 1
}
