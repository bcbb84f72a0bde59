// What a run of the suite has told, as it is kept in files: the last run, which git does not see, and the baseline, which it
// does. The guard holds the CPU ratios of a run against those of the baseline: they say the same on any machine.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Check, Outcome } from './scenario.ts'

export interface Results {
  /** ISO 8601. */
  readonly measuredAt: string
  readonly commit: string
  readonly machine: string
  /** The load generator. */
  readonly load: string
  readonly rounds: number
  readonly roundSeconds: number
  readonly quick: boolean
  readonly missing: readonly string[]
  readonly servers: Readonly<Record<string, { readonly version: string; readonly does: string }>>
  readonly scenarios: Readonly<Record<string, Outcome & { readonly title: string; readonly loadAverage: number }>>
}

export const FOLDER = fileURLToPath(new URL('results', import.meta.url))
export const BASELINE = `${FOLDER}/baseline.json`
export const LAST = `${FOLDER}/last.json`

export function writeResults(file: string, results: Results): void {
  mkdirSync(FOLDER, { recursive: true })
  // Four digits tell all that was measured, and keep the differences between two baselines readable.
  const short = (_key: string, value: unknown): unknown =>
    typeof value === 'number' ? Number(value.toPrecision(4)) : value
  writeFileSync(file, `${JSON.stringify(results, short, 2)}\n`)
}

/** null where there is none. */
export function readResults(file: string): Results | null {
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Results) : null
}

/** A ratio may grow by this part of itself. */
export const TOLERANCE = 0.15

export interface Regression {
  readonly scenario: string
  readonly what: string
  readonly was: number
  readonly is: number
}

/** Ratios that both runs have, and which are worse than in the baseline by more than the tolerance. compared: how many both
 *  have; 0 means that nothing was guarded. */
export function regressions(baseline: Results, results: Results): { compared: number; worse: Regression[] } {
  const worse: Regression[] = []
  let compared = 0
  for (const [scenario, { checks }] of Object.entries(results.scenarios)) {
    for (const { what, value: is, guarded } of checks) {
      const was = baseline.scenarios[scenario]?.checks.find((check: Check) => check.what === what)?.value
      if (!guarded || was === undefined || !isSameYardstick(what, baseline, results)) continue
      compared++
      if (is > was * (1 + TOLERANCE)) worse.push({ scenario, what, was, is })
    }
  }
  return { compared, worse }
}

/** Another version of a peer measures otherwise. */
function isSameYardstick(what: string, baseline: Results, results: Results): boolean {
  const peer = what.slice(what.indexOf(' / ') + 3)
  return peer.startsWith('weirgate') || baseline.servers[peer]?.version === results.servers[peer]?.version
}
