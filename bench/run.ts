// `npm run bench` runs the suite: scenarios that measure the gateway beside other servers. `npm run bench -- name ...` runs
// the named scenarios, or benches of single parts; `--help` lists both. Benches print figures and never fail on them;
// limit-promises alone fails, when a promise is broken.

import { mkdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { benchCacheMemory } from './cache-memory.ts'
import { benchCacheStore } from './cache-store.ts'
import { benchLimitLease } from './limit-lease.ts'
import { benchLimitPromises } from './limit-promises.ts'
import { benchLimitRedis } from './limit-redis.ts'
import { benchRecord } from './record.ts'
import { benchRouter } from './router.ts'
import { SCENARIOS, runSuite } from './suite.ts'
import { benchTransfer } from './transfer.ts'

/** Of single parts: what they print is for who works on the part. */
const BENCHES: Readonly<Record<string, () => void | Promise<void>>> = {
  'cache-memory': benchCacheMemory,
  'cache-store': benchCacheStore,
  'limit-lease': benchLimitLease,
  'limit-promises': benchLimitPromises,
  'limit-redis': benchLimitRedis,
  record: benchRecord,
  router: benchRouter,
  transfer: benchTransfer,
}

const RESULTS = fileURLToPath(new URL('results', import.meta.url))

const HELP = `npm run bench [-- NAME ...] [options]

Scenarios, with peers where they are installed; all of them without a name:
  ${Object.keys(SCENARIOS).join(' ')}
Benches of single parts:
  ${Object.keys(BENCHES).join(' ')}

  --quick          fewer and shorter rounds
  --rounds N       rounds that count, for each server (5)
  --seconds N      length of a round (2)
  --peers A,B      only these peers beside the gateway; none: --peers ''
  --against DIR    a second checkout of Weirgate, its packages installed, as one more peer
  --profile        a CPU profile of the gateway for each scenario, into bench/results`

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    help: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    rounds: { type: 'string' },
    seconds: { type: 'string' },
    peers: { type: 'string' },
    against: { type: 'string' },
    profile: { type: 'boolean', default: false },
  },
})
const unknown = positionals.filter((name) => !(name in BENCHES) && !(name in SCENARIOS))
if (values.help) console.log(HELP)
else if (unknown.length > 0) {
  console.error(`no bench ${unknown.join(', ')}\n\n${HELP}`)
  process.exitCode = 2
} else {
  const names = positionals.filter((name) => name in SCENARIOS)
  if (names.length > 0 || positionals.length === 0) {
    mkdirSync(RESULTS, { recursive: true })
    await runSuite({
      names,
      rounds: Number(values.rounds ?? (values.quick ? 2 : 5)),
      roundSeconds: Number(values.seconds ?? (values.quick ? 1 : 2)),
      quick: values.quick,
      against: values.against ?? null,
      peers: values.peers?.split(',') ?? null,
      profileInto: values.profile ? RESULTS : null,
    })
  }
  for (const name of positionals.filter((name) => name in BENCHES)) {
    console.log(`\n== ${name}`)
    await BENCHES[name]?.()
  }
}
