// What does a check of a hot subject cost from a block of units (src/limit/leases.ts), beside asking Redis? One subject,
// some 20,000 checks a second, a quota of a day and a limit per second: time per check that is decided at once, the share of
// those, and calls to Redis per 1000 checks. Medians of the rounds.

import { setImmediate as turn } from 'node:timers/promises'
import { createRedisLink } from '../src/core/redis.ts'
import { blankStanding } from '../src/limit/algorithm.ts'
import { createLeases } from '../src/limit/leases.ts'
import { limitOptions } from '../src/limit/options.ts'
import { type Demand, type Quota, compileQuota } from '../src/limit/quota.ts'
import { createRedisStore } from '../src/limit/stores/redis.ts'
import { compileSubjectTag } from '../src/limit/subject-tag.ts'
import { startRedis } from '../test/support/redis.ts'

const ROUNDS = 5
const ROUND_MS = 1000
/** Of one turn of the event loop. */
const AT_ONCE = 20
const PER_SECOND = 20_000

const POLICIES = {
  'a quota of a day': { limit: '1000000000', window: '1d', align: 'UTC' },
  'a limit per second': { limit: '1000000', window: '1s' },
  'a steady rate': { limit: '1000000', window: '1s', burst: '500000' },
} as const

export async function benchLimitLease(): Promise<void> {
  const redis = await startRedis()
  const link = createRedisLink({ url: redis.url, name: 'bench', deadlineMs: 1000 }, { info() {}, warn() {} })
  const tagOf = compileSubjectTag('bench')
  const setup = { link, namespace: 'bench', tagOf, instance: 'bench', deadlineMs: 1000 }
  const counters = createRedisStore({ ...setup, clock: Date.now })
  const store = createLeases({
    counters,
    instances: () => counters.instances,
    clock: Date.now,
    steadyClock: () => performance.now(),
  })
  await counters.whenReady(5000)
  const calls = async (): Promise<number> =>
    Number(/cmdstat_evalsha:calls=(\d+)/.exec(await redis.ask('INFO', 'commandstats'))?.[1] ?? 0)
  try {
    console.log('one subject, us per check that is decided at once; medians of the rounds')
    console.log(`${''.padEnd(32)}us  at once  calls per 1000`)
    for (const lease of ['off', 'on'] as const) {
      for (const [name, options] of Object.entries(POLICIES)) {
        const quota = compileQuota(`${name} ${lease}`, limitOptions.parse({ ...options, lease }))
        const rounds: Round[] = []
        // Two to become known as hot.
        for (let round = 0; round < ROUNDS + 2; round++) {
          const before = await calls()
          const figures = await check(store, quota)
          const called = (await calls()) - before
          if (round >= 2) rounds.push({ ...figures, called })
        }
        const of = (pick: (round: Round) => number) => rounds.map(pick).toSorted((a, b) => a - b)[ROUNDS >> 1] as number
        const cells = [
          lease === 'off'
            ? '    -'
            : of(({ micros, atOnce }) => micros / atOnce)
                .toFixed(2)
                .padStart(5),
          `${(of(({ atOnce, all }) => atOnce / all) * 100).toFixed(1)} %`.padStart(8),
          of(({ called, all }) => (called / all) * 1000)
            .toFixed(1)
            .padStart(15),
        ]
        console.log(`${`${name}, lease: ${lease}`.padEnd(29)}${cells.join(' ')}`)
      }
    }
  } finally {
    await store.close()
    await link.close()
    await redis.close()
  }
}

interface Counted {
  all: number
  atOnce: number
  /** Of those that were decided at once. */
  micros: number
}
interface Round extends Counted {
  readonly called: number
}

async function check(store: ReturnType<typeof createLeases>, quota: Quota): Promise<Counted> {
  const counted = { all: 0, atOnce: 0, micros: 0 }
  const demands = Array.from({ length: AT_ONCE }, (): Demand => ({
    quotas: [quota],
    subjects: ['192.0.2.7'],
    costs: [1],
    standings: [blankStanding()],
    atMs: [0],
    from: 0,
    to: 1,
  }))
  const startMs = performance.now()
  for (let passedMs = 0; passedMs < ROUND_MS; passedMs = performance.now() - startMs) {
    if (counted.all * 1000 < PER_SECOND * passedMs) {
      const nowMs = Date.now()
      const beganMs = performance.now()
      const answers = demands.map((demand) => store.charge(demand, nowMs))
      const micros = (performance.now() - beganMs) * 1000
      counted.all += AT_ONCE
      if (answers.every((answer) => answer === true)) {
        counted.atOnce += AT_ONCE
        counted.micros += micros
      }
      await Promise.all(answers.filter((answer) => typeof answer !== 'boolean'))
    }
    await turn()
  }
  return counted
}
