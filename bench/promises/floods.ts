// A budget that is used up, and who asks for more of it all the time: what it costs Redis and the processor to say no.

import { setImmediate as turn } from 'node:timers/promises'
import { createRedisLink } from '../../src/core/redis.ts'
import { blankStanding } from '../../src/limit/algorithm.ts'
import { createLeases } from '../../src/limit/leases.ts'
import { limitOptions } from '../../src/limit/options.ts'
import { compileQuota } from '../../src/limit/quota.ts'
import { createRedisStore } from '../../src/limit/stores/redis.ts'
import { compileSubjectTag } from '../../src/limit/subject-tag.ts'
import { admitted, crowdFor, quantile } from './fleet.ts'
import { watchTraffic } from './traffic.ts'
import { CLIENTS, type World, exact } from './world.ts'

const FLOOD_MS = 6000
/** What the promise allows one instance, a second. */
const MAX_CALLS = 2
const MAX_MICROS = 1

/** 15, through three gateways, at what they can answer. */
export async function floods({ redis, start, tell }: World): Promise<void> {
  const { ask, decidedAlone } = await start(`
limits: {empty: {limit: 1, window: 1d, align: UTC}}
routes: [{path: /*, limits: [empty]}]
`)
  for (let number = 0; number < 6; number++) await ask(number, '/empty')
  const traffic = await watchTraffic(redis)
  const before = await traffic.of('weirgate-limits')
  const answers = await crowdFor(FLOOD_MS, CLIENTS, (number) => ask(number, '/empty'))
  const calls = (await traffic.of('weirgate-limits')).map((count, i) => count - (before[i] ?? 0))
  traffic.close()
  const perSecond = calls.map((count) => (count * 1000) / FLOOD_MS)
  tell(
    '15. a flood on an empty day quota: <= 2 calls of Redis a second and instance, those included that say that it lives',
    `${((answers.length * 1000) / FLOOD_MS).toFixed(0)} refused a second; ${perSecond.map((each) => each.toFixed(1)).join(', ')} calls`,
    exact(
      admitted(answers) === 0 && calls.length === 3 && Math.max(...perSecond) <= MAX_CALLS,
      await decidedAlone('empty'),
    ),
  )
  await decisions({ redis, tell })
}

/** The same at 50,000 a second, for one instance in this process: a gateway cannot be asked as fast over connections. */
async function decisions({ redis, tell }: Pick<World, 'redis' | 'tell'>): Promise<void> {
  const perMs = 50
  const link = createRedisLink(
    { url: redis.url, name: 'flood', deadlineMs: 25, probeKey: 'flood:probe' },
    { info() {}, warn() {} },
  )
  const tagOf = compileSubjectTag('flood')
  const counters = createRedisStore({
    link,
    namespace: 'flood',
    tagOf,
    instance: 'flood',
    deadlineMs: 25,
    clock: Date.now,
  })
  const quotas = createLeases({
    counters,
    instances: () => counters.instances,
    clock: Date.now,
    steadyClock: () => performance.now(),
  })
  await counters.whenReady(5000)
  const quota = compileQuota('day', limitOptions.parse({ limit: '1', window: '1d', align: 'UTC' }))
  const demand = {
    quotas: [quota],
    subjects: ['x'],
    costs: [1],
    standings: [blankStanding()],
    atMs: [0],
    from: 0,
    to: 1,
  }
  while (await quotas.charge(demand, Date.now()));
  const traffic = await watchTraffic(redis)
  const [before = 0] = await traffic.of('weirgate-flood')
  const micros: number[] = []
  const startedAtMs = performance.now()
  let [asked, passed] = [0, 0]
  for (let passedMs = 0; passedMs < FLOOD_MS; passedMs = performance.now() - startedAtMs) {
    for (; asked < passedMs * perMs; asked += perMs) {
      const beganMs = performance.now()
      for (let i = 0; i < perMs; i++) {
        const answer = quotas.charge(demand, Date.now())
        // Whoever asks anew has the demand until the answer is there.
        if (typeof answer !== 'boolean' ? await answer : answer) passed++
      }
      micros.push(((performance.now() - beganMs) * 1000) / perMs)
    }
    await turn()
  }
  const [after = 0] = await traffic.of('weirgate-flood')
  traffic.close()
  await quotas.close()
  await link.close()
  const perSecond = ((after - before) * 1000) / FLOOD_MS
  const middle = quantile(micros, 0.5)
  tell(
    '15. the same at 50,000 a second of one instance: <= 2 calls a second, <= 1 us to decide',
    `${((asked * 1000) / FLOOD_MS).toFixed(0)} a second; ${perSecond.toFixed(1)} calls, ${middle.toFixed(2)} us (median of ${micros.length} bunches of ${perMs})`,
    passed === 0 && perSecond <= MAX_CALLS && middle <= MAX_MICROS,
  )
}
