// What a limit costs that all instances share in Redis: a hit with the limit in memory, asked of Redis for each request, and
// with units taken in blocks (`lease: auto`). CPU at 64 connections; the time that it adds at one.

import { startRedis } from '../../test/support/redis.ts'
import { isInstalled } from '../machine.ts'
import { EVERYTHING_ON } from '../peers/weirgate.ts'
import { type Contestant, cpuRatios, measure } from '../rounds.ts'
import type { Scenario } from '../scenario.ts'

const PATH = '/api/v1/presentations/7'

export const hitRedisLimit: Scenario = {
  title: 'Answered from the cache, with a limit that instances share in Redis: 64 connections',
  async run(bench) {
    if (!isInstalled('redis-server')) {
      bench.missing('redis-server (apt-get install redis-server)')
      return { rows: [], checks: [] }
    }
    const redis = await startRedis()
    try {
      const inRedis = (namespace: string, lease: string): string =>
        `redis: {url: "${redis.url}", namespace: ${namespace}}\n${EVERYTHING_ON.replace('key: ip', `key: ip, lease: ${lease}`)}`
      const contestants: Contestant[] = []
      const load = { path: PATH, connections: 64, seconds: bench.roundSeconds }
      for (const [what, yaml] of [
        ['limit in memory', EVERYTHING_ON],
        ['limit in Redis', inRedis('asked', 'off')],
        ['limit in Redis, lease: auto', inRedis('leased', 'auto')],
      ] as const) {
        const [peer] = bench.gateways({ name: `weirgate, ${what}`, yaml })
        if (peer !== undefined) contestants.push({ name: peer.name, server: await bench.start(peer), load })
      }
      const rows = await measure(bench, contestants, 3)
      const calm = await measure(
        bench,
        contestants.map(({ name, server }) => ({
          name,
          server,
          isWarm: true,
          load: { path: PATH, connections: 1, seconds: 1 },
        })),
        3,
      )
      const [inMemoryMs = 0, askedMs = 0, leasedMs = 0] = calm.map(({ figures }) => figures.p50Ms as number)
      const added = (what: string, ms: number) => ({
        what: `ms that ${what} adds at p50, one connection`,
        value: ms - inMemoryMs,
        goal: { atMost: 0.1 },
        guarded: false,
      })
      const [memory, asked, leased] = rows
      return {
        rows,
        checks: [
          ...[asked, leased].flatMap((row) => (row && memory ? cpuRatios([row, memory]) : [])),
          added('a check against Redis', askedMs),
          added('a check with lease: auto', leasedMs),
        ],
      }
    } finally {
      await redis.close()
    }
  },
}
