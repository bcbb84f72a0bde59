// `npm run bench` runs the suite: scenarios that measure the gateway beside other servers. `npm run bench -- name ...` runs
// the named scenarios, or benches of single parts; `--help` lists both. Figures are printed and never fail, but for two:
// `--guard` fails on a regression, limit-promises when a promise is broken.

import { mkdirSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { benchCacheMemory } from './cache-memory.ts'
import { benchCacheStore } from './cache-store.ts'
import { benchLimitLease } from './limit-lease.ts'
import { benchLimitPromises } from './limit-promises.ts'
import { benchLimitRedis } from './limit-redis.ts'
import { benchLimitStrangers } from './limit-strangers.ts'
import { pinSelf, shareCores } from './machine.ts'
import { pageOf } from './page.ts'
import { publish } from './publish.ts'
import { benchRecord } from './record.ts'
import { BASELINE, FOLDER, LAST, type Results, readResults, regressions, writeResults } from './results.ts'
import { benchRouter } from './router.ts'
import { SCENARIOS, type SuiteOptions, runSuite } from './suite.ts'
import { benchTransfer } from './transfer.ts'

/** Of single parts: what they print is for who works on the part. */
const BENCHES: Readonly<Record<string, () => void | Promise<void>>> = {
  'cache-memory': benchCacheMemory,
  'cache-store': benchCacheStore,
  'limit-lease': benchLimitLease,
  'limit-promises': benchLimitPromises,
  'limit-redis': benchLimitRedis,
  'limit-strangers': benchLimitStrangers,
  record: benchRecord,
  router: benchRouter,
  transfer: benchTransfer,
}

/** Those that tell of a regression in a minute or two. */
const GUARDED = ['hit', '304', 'miss', 'routes-10k']

const HELP = `npm run bench [-- NAME ...] [options]

Scenarios, beside peers where they are installed; all of them without a name:
  ${[...SCENARIOS.keys()].join(' ')}
Benches of single parts:
  ${Object.keys(BENCHES).join(' ')}

  --quick          fewer rounds, fewer stored answers, users for a shorter time
  --rounds N       rounds that count, for each server (5; quick: 2)
  --seconds N      length of a round, whole (1)
  --peers A,B      only these peers beside the gateway; none: --peers ''
  --against DIR    a second checkout of Weirgate, its packages installed, as one more peer
  --profile        a CPU profile of the gateway for each scenario, into bench/results
  --guard          exits 1 where a CPU ratio is more than 15 % worse than in bench/results/baseline.json;
                   without a name: ${GUARDED.join(' ')}
  --publish        writes the baseline, the picture and the table of the README anew: the whole suite, on a quiet machine

What a run has told is in bench/results: report.html to look at, last.json to compute with.`

const ARGUMENTS = {
  allowPositionals: true,
  options: {
    help: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    peers: { type: 'string' },
    against: { type: 'string' },
    profile: { type: 'boolean', default: false },
    guard: { type: 'boolean', default: false },
    publish: { type: 'boolean', default: false },
  },
} as const

const { values, positionals } = readArguments()
if (values.help) console.log(HELP)
else {
  const named = positionals.filter((name) => SCENARIOS.has(name))
  if (named.length > 0 || positionals.length === 0) await suite(named)
  for (const name of positionals.filter((name) => name in BENCHES)) {
    console.log(`\n== ${name}`)
    await BENCHES[name]?.()
  }
}

function readArguments() {
  try {
    const read = parseArgs(ARGUMENTS)
    const unknown = read.positionals.filter((name) => !(name in BENCHES) && !SCENARIOS.has(name))
    if (unknown.length > 0) throw new Error(`no bench ${unknown.join(', ')}`)
    for (const name of ['rounds', 'seconds'] as const) {
      if (!/^[1-9]\d*$/.test(read.values[name] ?? '1')) throw new Error(`--${name} takes a whole number from 1 on`)
    }
    return read
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n\n${HELP}`)
    return process.exit(2)
  }
}

async function suite(named: readonly string[]): Promise<void> {
  mkdirSync(FOLDER, { recursive: true })
  const cores = shareCores()
  pinSelf(cores.load)
  const options: SuiteOptions = {
    cores,
    names: named.length > 0 ? named : values.guard ? GUARDED : [...SCENARIOS.keys()],
    rounds: Number(values.rounds ?? (values.quick ? 2 : 5)),
    roundSeconds: Number(values.seconds ?? 1),
    quick: values.quick,
    against: values.against ?? null,
    peers: values.peers?.split(',') ?? null,
    profileInto: values.profile ? FOLDER : null,
  }
  const results = await runSuite(options)
  writeResults(LAST, results)
  writeFileSync(`${FOLDER}/report.html`, pageOf(results))
  console.log(`\nwritten: ${LAST}, ${FOLDER}/report.html`)
  if (values.publish) publish(results)
  if (values.guard) await guard(results, options)
}

/** What is worse is measured once more: only what is worse twice is a regression. */
async function guard(results: Results, options: SuiteOptions): Promise<void> {
  const baseline = readResults(BASELINE)
  if (baseline === null) throw new Error(`there is no ${BASELINE}`)
  const first = regressions(baseline, results)
  if (first.compared === 0) throw new Error('the guard has nothing to compare: no peer of the baseline was measured')
  const names = [...new Set(first.worse.map(({ scenario }) => scenario))]
  if (names.length > 0) console.log(`\nworse than the baseline, so measured again: ${names.join(', ')}`)
  const again = names.length === 0 ? first : regressions(baseline, await runSuite({ ...options, names }))
  const worse = again.worse.filter(({ scenario, what }) =>
    first.worse.some((other) => other.scenario === scenario && other.what === what),
  )
  for (const { scenario, what, was, is } of worse) {
    console.error(`${scenario}: ${what} is ${is.toFixed(2)}, was ${was.toFixed(2)}`)
  }
  console.log(`\nguard: ${first.compared} ratios compared, ${worse.length} worse`)
  if (worse.length > 0) process.exitCode = 1
}
