// `npm run chaos`: what the gateway promises about faults, each measured on real processes while they happen: upstreams
// killed, stopped and hostile, clients that break off, reloads and the end of the process, all beside a steady load. Prints
// each promise with what was measured, kept, broken or unsure, and ends with 1 where one is broken.
//
// `npm run chaos -- C18 C21` runs those alone; `--long` gives each the size and the time that find what is rare.

import { clients } from './clients.ts'
import { operations } from './operations.ts'
import { type Experiment, type Row, type Verdict, World } from './rig.ts'
import { upstreams } from './upstreams.ts'
import { wires } from './wires.ts'

const EXPERIMENTS: readonly Experiment[] = [...upstreams, ...wires, ...clients, ...operations]

if (process.platform !== 'linux') throw new Error('What processes hold is read from /proc, so this needs Linux.')
const USAGE = `npm run chaos [-- NAME ...] [--long]

${EXPERIMENTS.map(({ name, title }) => `  ${name.padEnd(4)} ${title}`).join('\n')}

  --long   the size and the time that find what is rare`

const args = process.argv.slice(2)
if (args.includes('--help')) {
  console.log(USAGE)
  process.exit(0)
}
const odd = args.find((arg) => arg.startsWith('-') && arg !== '--long')
if (odd !== undefined) {
  console.error(`No option ${odd}.\n\n${USAGE}`)
  process.exit(2)
}
const names = args.filter((arg) => !arg.startsWith('--')).map((name) => name.toUpperCase())
const wanted = names.length === 0 ? EXPERIMENTS : EXPERIMENTS.filter(({ name }) => names.includes(name))
const unknown = names.filter((name) => !EXPERIMENTS.some((each) => each.name === name))
if (unknown.length > 0) {
  console.error(`No ${unknown.join(', ')}; there are ${EXPERIMENTS.map(({ name }) => name).join(', ')}.`)
  process.exit(2)
}

const startedAtMs = performance.now()
const rows: Row[] = []
for (const { name, title, run } of wanted) {
  console.log(`\n${name}: ${title}`)
  const world = new World(args.includes('--long'))
  try {
    await run(world)
  } catch (error) {
    world.tell('the experiment goes to its end', String(error), false)
  } finally {
    await world.close()
  }
  if (world.isBusy) console.log(`        (${world.noise})`)
  rows.push(...world.rows)
}
const count = (verdict: Verdict) => rows.filter((row) => row.verdict === verdict).length
const seconds = ((performance.now() - startedAtMs) / 1000).toFixed(0)
console.log(`\n${count('kept')} kept, ${count('broken')} broken, ${count('unsure')} unsure, in ${seconds} s`)
process.exitCode = count('broken') === 0 ? 0 : 1
