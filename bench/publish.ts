// What git keeps of a run: the baseline of the guard, the picture of the README, and its tables, which stand between two
// marks and are written from the baseline alone.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { CHECKOUT } from './peers/weirgate.ts'
import { pictureOf } from './picture.ts'
import { BASELINE, FOLDER, type Results, readResults, writeResults } from './results.ts'
import { SCENARIOS } from './suite.ts'
import { tablesOf, withTables } from './tables.ts'

const README = join(CHECKOUT, 'README.md')

export function publish(results: Results): void {
  const missing = [...SCENARIOS.keys()].filter((name) => !(name in results.scenarios))
  if (missing.length > 0 || results.quick) {
    throw new Error(`A baseline is a whole suite, not a quick one: ${missing.join(', ')}`)
  }
  writeResults(BASELINE, results)
  // As it was rounded, so that the tables follow from the file.
  const kept = readResults(BASELINE) as Results
  writeFileSync(`${FOLDER}/figures.svg`, pictureOf(kept))
  writeFileSync(README, withTables(readFileSync(README, 'utf8'), tablesOf(kept)))
  console.log(`written: ${BASELINE}, ${FOLDER}/figures.svg, ${README}`)
}
