// `npm run bench [-- name ...]`: runs the named benches, or all. Benches print figures and never fail on them;
// limit-promises alone fails, when a promise is broken.

import { benchCacheMemory } from './cache-memory.ts'
import { benchCacheStore } from './cache-store.ts'
import { benchLimitLease } from './limit-lease.ts'
import { benchLimitPromises } from './limit-promises.ts'
import { benchLimitRedis } from './limit-redis.ts'
import { benchRouter } from './router.ts'
import { benchTransfer } from './transfer.ts'

const BENCHES: Readonly<Record<string, () => void | Promise<void>>> = {
  'cache-memory': benchCacheMemory,
  'cache-store': benchCacheStore,
  'limit-lease': benchLimitLease,
  'limit-promises': benchLimitPromises,
  'limit-redis': benchLimitRedis,
  router: benchRouter,
  transfer: benchTransfer,
}

const named = process.argv.slice(2)
const unknown = named.filter((name) => !(name in BENCHES))
if (unknown.length > 0) {
  console.error(`no bench ${unknown.join(', ')}; there are: ${Object.keys(BENCHES).join(', ')}`)
  process.exitCode = 2
} else {
  for (const name of named.length > 0 ? named : Object.keys(BENCHES)) {
    console.log(`\n== ${name}`)
    await BENCHES[name]?.()
  }
}
