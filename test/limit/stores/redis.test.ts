// Instances that share their counters through a real Redis: what they admit together, and what becomes of it when Redis
// hangs, dies, forgets, or can no longer write.

import { setImmediate } from 'node:timers/promises'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { type Standing, blankStanding } from '../../../src/limit/algorithm.ts'
import type { Demand, Quota } from '../../../src/limit/quota.ts'
import { closeAfterEach } from '../../support/closing.ts'
import { type Instance, demandOf, instancesFor, quotaOf } from '../../support/quotas.ts'
import { whenDown } from '../../support/redis-link.ts'
import { type RedisServer, describeWithRedis, freePort, startRedis, startRelay, until } from '../../support/redis.ts'

const opened = closeAfterEach()
const start = instancesFor(opened)

const day = (limit: number, more: object = {}) => quotaOf('day', { limit, window: '1d', align: 'UTC', ...more })
const hour = (limit: number, more: object = {}) => quotaOf('hour', { limit, window: '1h', ...more })

const ofEachKind = [hour(100), day(100), quotaOf('slow', { limit: 1, window: '1h', burst: 100 })]

/** Of the first policy. */
function giveBack({ store, clock }: Instance, { quotas, subjects, atMs, standings }: Demand, units: number): void {
  store.settle(
    quotas[0] as Quota,
    subjects[0] as string,
    -units,
    atMs[0] as number,
    Math.floor(clock()),
    standings[0]?.source,
  )
}

const admitted = (verdicts: readonly boolean[]) => verdicts.filter(Boolean).length

/** Each instance asks `count` times, in bunches, as connections would. */
async function hammer(
  instances: readonly Instance[],
  count: number,
  ask: (instance: Instance, i: number) => Promise<boolean>,
) {
  const verdicts: boolean[] = []
  for (let i = 0; i < count; i += 50) {
    const bunch = instances.flatMap((instance) => Array.from({ length: 50 }, (_, j) => ask(instance, i + j)))
    verdicts.push(...(await Promise.all(bunch)))
  }
  return verdicts
}

/** The most in any span of so many milliseconds, of ascending times. */
function mostWithin(times: readonly number[], spanMs: number): number {
  let from = 0
  let most = 0
  for (const [i, time] of times.entries()) {
    while (time - (times[from] as number) >= spanMs) from++
    most = Math.max(most, i - from + 1)
  }
  return most
}

describeWithRedis('instances that share counters', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = await startRedis()
  })
  afterEach(() => redis.close())

  const startSome = (count: number) => Promise.all(Array.from({ length: count }, () => start(redis.url)))
  const calls = async () => {
    const stats = await redis.ask('INFO', 'commandstats')
    return [...stats.matchAll(/cmdstat_eval(?:sha)?:calls=(\d+)/g)].reduce((sum, [, count]) => sum + Number(count), 0)
  }
  /** Redis with everything in it gone, also instances. */
  const whenBack = async (instances: readonly Instance[]) => {
    for (const { link } of instances) expect(await link.whenUp(10_000)).toBe(true)
  }

  it('admit exactly the limit together, of one subject', async () => {
    const instances = await startSome(3)
    for (const quota of [day(1000), hour(1000), quotaOf('slow', { limit: 1, window: '1h', burst: 1000 })]) {
      const verdicts = await hammer(instances, 500, ({ take }) => take(quota, 'x'))
      expect([verdicts.length, admitted(verdicts)]).toEqual([1500, 1000])
    }
  })

  it('admit exactly the limit together, of many subjects', async () => {
    const instances = await startSome(3)
    const quota = day(10)
    const verdicts = await hammer(instances, 500, ({ take }, i) => take(quota, `subject-${i % 100}`))
    expect(admitted(verdicts)).toBe(1000)
  })

  it('never admit more than the limit in any window, by the time of Redis', async () => {
    const instances = await startSome(3)
    const strict = quotaOf('strict', { limit: 30, window: '200ms' })
    const steady = quotaOf('steady', { limit: 100, window: '1s', burst: 20 })
    const times = { strict: [] as number[], steady: [] as number[] }
    const endMs = performance.now() + 1200
    while (performance.now() < endMs) {
      for (const [quota, kept] of [
        [strict, times.strict],
        [steady, times.steady],
      ] as const) {
        const demands = instances.flatMap((instance) =>
          Array.from({ length: 5 }, () => [instance, demandOf([quota], ['x'])] as const),
        )
        const verdicts = await Promise.all(demands.map(([instance, demand]) => instance.ask(demand)))
        for (const [i, [, demand]] of demands.entries()) if (verdicts[i] === true) kept.push(demand.atMs[0] as number)
      }
    }
    const strictTimes = times.strict.toSorted((a, b) => a - b)
    expect(mostWithin(strictTimes, 200)).toBe(30)
    const steadyTimes = times.steady.toSorted((a, b) => a - b)
    for (const spanMs of [50, 200, 1000]) expect(mostWithin(steadyTimes, spanMs)).toBeLessThanOrEqual(20 + spanMs / 10)
    expect(steadyTimes.length).toBeGreaterThanOrEqual(20)
  })

  it('charge all or nothing: a policy that refuses leaves the others as they were', async () => {
    const instances = await startSome(2)
    const [wide, narrow] = [hour(1000), day(5)]
    for (let i = 0; i < 300; i++) {
      const instance = instances[i % 2] as Instance
      // Others, so that what is remembered of a refusal is not all that is tested.
      await instance.charge(demandOf([wide, narrow], ['x', i % 3 === 0 ? 'y' : 'x']))
    }
    expect(await (instances[0] as Instance).left(wide, 'x')).toBe(990)
  })

  it('charge what only watches where it has room, and refuse nothing for it', async () => {
    const [instance] = (await startSome(1)) as [Instance]
    const shadow = hour(3, { mode: 'shadow' })
    const demands = Array.from({ length: 5 }, () => demandOf([shadow, day(100)], ['x', 'x']))
    expect(await Promise.all(demands.map((demand) => instance.ask(demand)))).toEqual([true, true, true, true, true])
    expect(demands.map(({ standings }) => standings[0]?.admitted)).toEqual([true, true, true, false, false])
  })

  it('ask once for all requests of a turn', async () => {
    const [instance] = (await startSome(1)) as [Instance]
    // The first call finds that Redis does not have the script.
    await instance.take(day(10), 'x')
    const before = await calls()
    await Promise.all(Array.from({ length: 100 }, (_, i) => instance.take(day(10), `s-${i}`)))
    expect((await calls()) - before).toBe(1)
    await Promise.all(Array.from({ length: 300 }, (_, i) => instance.take(day(10), `s-${i}`)))
    expect((await calls()) - before).toBe(4)
    const { batches, waits, isUsed, known } = instance.store
    // One, 100, then twice 128 and the rest.
    expect([...batches.counts]).toEqual([1, 0, 0, 0, 0, 0, 1, 3, 0])
    expect(batches.sum).toBe(401)
    expect(waits.counts.reduce((sum, count) => sum + count)).toBe(5)
    expect(waits.sum).toBeGreaterThan(0)
    expect([isUsed, known]).toEqual([true, 301])
  })

  it('remember a refusal, and ask no more for what cannot fit', async () => {
    const [instance] = (await startSome(1)) as [Instance]
    const quota = hour(3)
    for (let i = 0; i < 4; i++) await instance.take(quota, 'x')
    const before = await calls()
    const demand = demandOf([quota, day(10)], ['x', 'x'])
    for (let i = 0; i < 1000; i++) expect(instance.charge(demand)).toBe(false)
    expect(demand.standings[0]).toMatchObject({ admitted: false, remaining: 0, source: 'remembered' })
    expect(demand.standings[0]?.waitMs).toBeGreaterThan(3_000_000)
    expect(demand.standings[1]).toMatchObject({ admitted: true, remaining: 10 })
    expect(instance.charge(demandOf([day(10)], ['x'], [11]))).toBe(false)
    expect((await calls()) - before).toBe(0)
    // Somebody else has not been refused, nor has who gives units back.
    expect(await instance.take(quota, 'y')).toBe(true)
    instance.store.settle(quota, 'x', -1, Date.now(), Date.now())
    expect(await instance.take(quota, 'x')).toBe(true)
  })

  it('ask anew for a refusal before it is forgotten, once for all who come meanwhile', async () => {
    const [instance] = (await startSome(1)) as [Instance]
    const quota = day(1)
    const refusal = demandOf([quota], ['x'])
    for (let i = 0; i < 2; i++) await instance.charge(refusal)
    const ask = (toldMs: number, afterMs: number, demand = demandOf([quota], ['x'])) =>
      instance.store.charge(demand, toldMs + afterMs)
    const before = await calls()
    const toldMs = refusal.atMs[0] as number
    // Redis' time is known to some milliseconds only.
    expect(ask(toldMs, -50)).toBe(false)
    expect(ask(toldMs, 800)).toBe(false)
    const renewal = ask(toldMs, 950, refusal)
    for (let i = 0; i < 100; i++) expect(ask(toldMs, 950)).toBe(false)
    expect(await renewal).toBe(false)
    expect((await calls()) - before).toBe(1)
    redis.pause()
    const renewedMs = refusal.atMs[0] as number
    const lost = ask(renewedMs, 950)
    expect(lost).toBeInstanceOf(Promise)
    expect(ask(renewedMs, 990)).toBe(false)
    // An answer that does not come refuses nobody for longer than the second.
    const later = ask(renewedMs, 1010)
    expect(later).toBeInstanceOf(Promise)
    redis.resume()
    expect([await lost, await later]).toEqual([false, false])
  })

  it('renew no refusal for a request that another policy refuses, and none that ends by itself', async () => {
    const [instance] = (await startSome(1)) as [Instance]
    const [quota, other] = [day(1), hour(1)]
    const brief = quotaOf('brief', { limit: 1, window: '500ms' })
    const refused = demandOf([quota], ['x'])
    for (let i = 0; i < 2; i++) await instance.charge(refused)
    const laterMs = (refused.atMs[0] as number) + 950
    await instance.take(other, 'x')
    expect(instance.store.charge(demandOf([quota, other], ['x', 'x'], [1, 2]), laterMs)).toBe(false)
    expect(instance.store.charge(demandOf([quota], ['x']), laterMs)).toBeInstanceOf(Promise)
    const short = demandOf([brief], ['y'])
    while (await instance.charge(short));
    const endsMs = (short.atMs[0] as number) + (short.standings[0] as Standing).waitMs
    expect(instance.store.charge(demandOf([brief], ['y']), endsMs - 2)).toBe(false)
    const all = [1, 2, 3].map(() => instance.store.charge(demandOf([brief], ['y']), endsMs + 2))
    for (const each of all) expect(each).toBeInstanceOf(Promise)
    await Promise.all(all.map(async (each) => each))
  })

  it('do not ask their own clocks', async () => {
    const instances = [await start(redis.url, { aheadMs: 3_600_000 }), await start(redis.url, { aheadMs: -3_600_000 })]
    // Windows so short that two hours are many of them.
    for (const quota of [day(100), hour(100), quotaOf('minute', { limit: 100, window: '10m', align: 'UTC' })]) {
      const verdicts = await hammer(instances, 100, ({ take }) => take(quota, 'x'))
      expect(admitted(verdicts)).toBe(100)
      const waits = await Promise.all(
        instances.map(async ({ charge }) => {
          const demand = demandOf([{ ...quota, isEnforced: false }], ['x'])
          await charge(demand)
          return demand.standings[0]?.waitMs as number
        }),
      )
      expect(Math.abs((waits[0] as number) - (waits[1] as number))).toBeLessThan(5000)
    }
  })

  it('take an answer that was long on its way for no step of its clock', async () => {
    const relay = opened(await startRelay(redis.port))
    const instance = await start(relay.url)
    await instance.take(day(10), 'x')
    relay.delayMs = 400
    await instance.take(day(10), 'x')
    await redis.kill()
    await whenDown(instance.link)
    const demand = demandOf([day(10)], ['x'])
    const beforeMs = instance.clock()
    await instance.ask(demand)
    // Decided here, at the time that it is taken to be there. Both have the clock of this machine.
    expect(demand.standings[0]?.source).toBe('share')
    expect(demand.atMs[0]).toBeGreaterThan(beforeMs - 300)
  })

  it('correct what a request has cost, for all of them', async () => {
    const [first, second] = (await startSome(2)) as [Instance, Instance]
    for (const quota of [hour(10), day(10), quotaOf('slow', { limit: 1, window: '1h', burst: 10 })]) {
      const demand = demandOf([quota], ['x'], [4])
      await first.charge(demand)
      expect(await second.left(quota, 'x')).toBe(6)
      first.store.settle(quota, 'x', -3, demand.atMs[0] as number, first.clock())
      // The correction goes before.
      expect(await first.left(quota, 'x')).toBe(9)
      first.store.settle(quota, 'x', 15, demand.atMs[0] as number, first.clock())
      await first.left(quota, 'x')
      expect(await second.take(quota, 'x')).toBe(false)
      expect(await second.left(quota, 'x')).toBe(0)
    }
  })

  it('give units out beforehand, where there is room for all of them', async () => {
    const [first, second] = (await startSome(2)) as [Instance, Instance]
    const take = (quota: Quota, units: number, { store }: Instance = first) =>
      store.take(quota, 'x', units, blankStanding())
    for (const quota of [hour(100), day(100), quotaOf('slow', { limit: 1, window: '1h', burst: 100 })]) {
      const before = Date.now()
      const chargedAtMs = await take(quota, 60)
      expect(Math.abs((chargedAtMs as number) - before)).toBeLessThan(2000)
      expect(await take(quota, 41, second)).toBeNull()
      expect(await second.left(quota, 'x')).toBe(40)
      first.store.settle(quota, 'x', -60, chargedAtMs as number, first.clock())
      expect(await first.left(quota, 'x')).toBe(100)
    }
    // Requests pass where it only watches, but there is nothing to be given out.
    const watched = hour(100, { mode: 'shadow' })
    expect(await take(watched, 60)).not.toBeNull()
    expect(await take(watched, 60)).toBeNull()
    expect(await first.left(watched, 'x')).toBe(40)
  })

  it('give out nothing that Redis does not answer for in time, nor count it as used here', async () => {
    const instance = await start(redis.url, { deadlineMs: 25, linkDeadlineMs: 60_000 })
    const quota = hour(10)
    await instance.take(quota, 'x', 2)
    redis.pause()
    expect(await instance.store.take(quota, 'x', 5, blankStanding())).toBeNull()
    expect(instance.link.isUp).toBe(true)
    for (let i = 0; i < 8; i++) expect(await instance.take(quota, 'x')).toBe(true)
    expect(await instance.take(quota, 'x')).toBe(false)
    await redis.kill()
    await whenDown(instance.link)
    expect(await instance.store.take(quota, 'y', 5, blankStanding())).toBeNull()
  })

  it('give nothing back of what Redis has lost, since then others have taken it', async () => {
    const [first, second] = (await startSome(2)) as [Instance, Instance]
    for (const quota of [hour(100), day(100), quotaOf('slow', { limit: 1, window: '1h', burst: 100 })]) {
      const demand = demandOf([quota], ['x'], [60])
      await first.ask(demand)
      // The same counter, and not the same entry of it.
      await redis.flush()
      while ((await first.left(quota, 'nobody')) === -1 || Date.now() <= (demand.atMs[0] as number) + 2);
      await second.take(quota, 'x', 50)
      first.store.settle(quota, 'x', -60, demand.atMs[0] as number, first.clock())
      await first.left(quota, 'x')
      expect(await second.left(quota, 'x')).toBe(50)
      await redis.flush()
    }
  })

  it('give back all there is at the end, however much', async () => {
    const [first, second] = (await startSome(2)) as [Instance, Instance]
    const quota = day(10)
    const subjects = Array.from({ length: 5000 }, (_, i) => `s-${i}`)
    for (let i = 0; i < 5000; i += 1000) {
      await Promise.all(subjects.slice(i, i + 1000).map((subject) => first.take(quota, subject, 6)))
    }
    const nowMs = first.clock()
    for (const subject of subjects) first.store.settle(quota, subject, -5, nowMs, nowMs)
    await first.store.close()
    for (const subject of ['s-0', 's-2500', 's-4999']) expect(await second.left(quota, subject)).toBe(9)
  })

  it('forget what a subject has used, when asked to', async () => {
    const [first, second] = (await startSome(2)) as [Instance, Instance]
    const quota = day(3)
    for (let i = 0; i < 4; i++) await first.take(quota, 'x')
    await second.store.reset(quota, 'x', second.clock())
    expect(await second.left(quota, 'x')).toBe(3)
    await first.store.reset(quota, 'x', first.clock())
    expect(await first.take(quota, 'x')).toBe(true)
    expect(await second.left(quota, 'x')).toBe(2)
  })

  it('keep counts over a reload and a restart', async () => {
    const [first] = (await startSome(1)) as [Instance]
    for (let i = 0; i < 3; i++) await first.take(day(10), 'x')
    expect(await first.left(day(50), 'x')).toBe(47)
    await first.store.close()
    const [second] = (await startSome(1)) as [Instance]
    // Policies have come beside it.
    await second.charge(demandOf([hour(5), quotaOf('other', { limit: 5, window: '1m' })], ['x', 'x']))
    expect(await second.left(day(10), 'x')).toBe(7)
  })

  it('write no subject to Redis', async () => {
    const [instance] = (await startSome(1)) as [Instance]
    await instance.take(day(10), '192.0.2.77')
    const keys = (await redis.ask('KEYS', '*')).split('\n')
    expect(keys.some((key) => /^test:r2:\{[\w-]{22}\}$/.test(key))).toBe(true)
    const dumps = await Promise.all(keys.map((key) => redis.ask('DUMP', key)))
    expect([...keys, ...dumps].join('\n')).not.toContain('192.0.2.77')
  })

  it('tell from what they know, without asking', async () => {
    const [instance] = (await startSome(1)) as [Instance]
    await instance.take(hour(10), 'x', 4)
    const before = await calls()
    const demand = demandOf([hour(10), day(5)], ['x', 'x'])
    instance.store.peek(demand, instance.clock())
    expect(demand.standings.map(({ admitted: fits, remaining }) => [fits, remaining])).toEqual([
      [true, 6],
      [true, 5],
    ])
    expect(await calls()).toBe(before)
  })

  it('decide here what is more than may wait', async () => {
    const [instance] = (await startSome(1)) as [Instance]
    const verdicts = Array.from({ length: 10_000 }, (_, i) => instance.charge(demandOf([day(10)], [`s-${i}`])))
    const waiting = verdicts.filter((verdict) => verdict instanceof Promise).length
    expect(waiting).toBe((4 + 32) * 128)
    expect(admitted(await Promise.all(verdicts.map(async (verdict) => verdict)))).toBe(10_000)
  })

  it('tell Redis soon what they have decided without it, though it was there', async () => {
    const [first, second] = (await startSome(2)) as [Instance, Instance]
    const quota = hour(100_000)
    const charge = (count: number) => Array.from({ length: count }, () => first.charge(demandOf([quota], ['x'])))
    const verdicts = charge(10_000)
    expect(verdicts.filter((verdict) => verdict === true).length).toBeGreaterThan(5000)
    await until(async () => (await second.left(quota, 'x')) === 90_000, 'what was used to be told')
    await until(() => first.store.owed === 0, 'that to be known')
    for (const verdict of charge(10_000)) await verdict
    await first.store.close()
    expect(await second.left(quota, 'x')).toBe(80_000)
  })

  it('stay exact when scripts are flushed', async () => {
    const instances = await startSome(2)
    const asking = hammer(instances, 1000, ({ take }) => take(day(1000), 'x'))
    for (let i = 0; i < 5; i++) await redis.ask('SCRIPT', 'FLUSH')
    expect(admitted(await asking)).toBe(1000)
  })

  it('know how many they are', async () => {
    const instances = await startSome(3)
    const [first] = instances as [Instance]
    await until(() => first.store.instances === 3, 'three instances to be known')
    await instances[2]?.store.close()
    await until(() => first.store.instances === 2, 'the one that left to be noticed')
    expect(instances[1]?.store.instances).toBeLessThanOrEqual(3)
  })

  it('take themselves for as many as they were told of until Redis says how many they are', async () => {
    const port = await freePort()
    const lonely = await start(`redis://127.0.0.1:${port}`, { assumedInstances: 3, readyMs: 1 })
    const quota = hour(30)
    const verdicts = await Promise.all(Array.from({ length: 30 }, () => lonely.take(quota, 'x')))
    expect(admitted(verdicts)).toBe(10)
    opened(await startRedis([], port))
    await until(() => lonely.store.instances === 1, 'Redis to say that it is alone')
  })

  /** Instances that know of each other. */
  async function startThree(options: Parameters<typeof start>[1] = {}) {
    const instances: Instance[] = []
    for (let i = 0; i < 3; i++) instances.push(await start(redis.url, options))
    for (const { store } of instances) await until(() => store.instances === 3, 'all instances to be known')
    return instances as [Instance, Instance, Instance]
  }

  it('admit their share of what is left while Redis is dead, at once, and then owe it', async () => {
    const instances = await startThree()
    const quota = hour(90)
    for (let i = 0; i < 30; i++) await (instances[i % 3] as Instance).take(quota, 'x')
    // Each knows how it stands.
    for (const instance of instances) await instance.left(quota, 'x')
    await redis.kill()
    for (const { link } of instances) await whenDown(link)
    let taken = 0
    for (const { charge } of instances) {
      const verdicts = Array.from({ length: 50 }, () => charge(demandOf([quota], ['x'])))
      // Booleans: nothing is waited for.
      taken += verdicts.filter((verdict) => verdict === true).length
      expect(verdicts.filter((verdict) => verdict === true)).toHaveLength(20)
      expect(verdicts.filter((verdict) => verdict === false)).toHaveLength(30)
    }
    expect(taken).toBe(60)
    const { store } = instances[0]
    expect([store.isUsed, store.owed, store.forgiven, store.subjects]).toEqual([false, 1, 0, 1])
    await redis.restart()
    await whenBack(instances)
    // Redis came back empty: it holds what was owed.
    await until(async () => (await instances[0].left(quota, 'x')) === 30, 'what was used to be known')
    expect([store.isUsed, store.owed]).toEqual([true, 0])
  })

  it('owe the use of 10,000 subjects, and say how much of others is forgiven', async () => {
    const instance = await start(redis.url)
    await redis.kill()
    await whenDown(instance.link)
    for (let i = 0; i < 10_050; i++) void instance.charge(demandOf([hour(90)], [`s-${i}`], [2]))
    expect([instance.store.owed, instance.store.forgiven]).toEqual([10_000, 100])
  })

  it.each([
    ['open', 50],
    ['full', 9],
    ['share', 3],
    ['closed', 0],
  ] as const)('let pass with fallback: %s what that says', async (fallback, passes) => {
    const instances = await startThree()
    const [{ charge, link }] = instances
    await redis.kill()
    await whenDown(link)
    const quota = hour(9, { fallback })
    const demands = Array.from({ length: 50 }, () => demandOf([quota], ['x']))
    const verdicts = demands.map((demand) => charge(demand))
    expect(verdicts.filter((verdict) => verdict === true)).toHaveLength(passes)
    expect(demands[49]?.standings[0]?.source).toBe(fallback === 'closed' ? 'closed' : 'share')
  })

  it('answer every request while Redis hangs, and none waits once that is known', async () => {
    const [first] = await startThree({ deadlineMs: 25 })
    redis.pause()
    const verdicts: boolean[] = []
    while (first.link.isUp) {
      const asked = Array.from({ length: 20 }, (_, i) => first.take(day(1000), `s-${i}`))
      verdicts.push(...(await Promise.all(asked)))
    }
    expect(verdicts.every(Boolean)).toBe(true)
    expect(first.charge(demandOf([day(1000)], ['x']))).toBe(true)
    redis.resume()
    expect(await first.link.whenUp(10_000)).toBe(true)
    expect(first.charge(demandOf([day(1000)], ['x']))).toBeInstanceOf(Promise)
  })

  it('let no request wait longer than the deadline, in the queue included, and take no answer after it', async () => {
    const instance = await start(redis.url, { deadlineMs: 25, linkDeadlineMs: 60_000 })
    await instance.take(day(1000), 'x')
    redis.pause()
    const demands = Array.from({ length: 1000 }, () => demandOf([day(1000)], ['x']))
    expect(admitted(await Promise.all(demands.map((demand) => instance.ask(demand))))).toBe(999)
    // The connection knows of nothing yet: it was their own deadline.
    expect(instance.link.isUp).toBe(true)
    redis.resume()
    await until(async () => (await redis.ask('GET', 'nothing')) === '', 'Redis to be back')
    await instance.left(day(1000), 'x')
    expect(new Set(demands.map(({ standings }) => standings[0]?.source))).toEqual(new Set(['share']))
  })

  /** One whose way to Redis can be held up, without its connection taking note, and one who sees what is there. */
  async function startHeld() {
    const relay = opened(await startRelay(redis.port))
    const held = await start(relay.url, { deadlineMs: 25, linkDeadlineMs: 60_000 })
    const other = await start(redis.url)
    await until(() => held.store.instances === 2, 'both to know of the other')
    return { relay, held, other }
  }

  it('learn from an answer that comes late that nothing is left', async () => {
    const { relay, held, other } = await startHeld()
    const quota = hour(20)
    expect(await held.take(quota, 'x')).toBe(true)
    expect(await other.take(quota, 'x', 19)).toBe(true)
    relay.stall()
    // By what it knows, it has nine.
    expect(await held.take(quota, 'x')).toBe(true)
    relay.release()
    const { standings, ...rest } = demandOf([quota], ['x'])
    await until(() => {
      held.store.peek({ ...rest, standings }, held.clock())
      return standings[0]?.admitted === false
    }, 'the answer')
    relay.stall()
    expect(held.charge(demandOf([quota], ['x']))).toBe(false)
    await until(() => held.store.owed === 1, 'what was used on top to be noted')
  })

  it('count once what was decided here and charged later, and give back what was refused here', async () => {
    const { relay, held, other } = await startHeld()
    const quota = hour(10)
    expect(await held.take(quota, 'x')).toBe(true)
    const askAll = () => Promise.all(Array.from({ length: 12 }, () => held.take(quota, 'x')))
    relay.stall()
    // Half of nine. All twelve are on their way to Redis, which will charge nine.
    expect(admitted(await askAll())).toBe(4)
    relay.release()
    await until(async () => (await other.left(quota, 'x')) === 5, 'what was refused to be given back')
    relay.stall()
    // Half of five: what Redis has charged is not counted here as well.
    expect(admitted(await askAll())).toBe(2)
    relay.release()
    await until(async () => (await other.left(quota, 'x')) === 3, 'what was refused to be given back')
    expect(held.store.owed).toBe(0)
  })

  it('tell of what they could not even ask for, once', async () => {
    const { relay, held, other } = await startHeld()
    const quota = hour(100_000)
    relay.stall()
    let taken = 0
    // More than there is room for, and half a second in which nobody can be told.
    for (let i = 0; i < 6; i++) {
      const asked = Array.from({ length: 1000 }, () => held.take(quota, 'x'))
      taken += admitted(await Promise.all(asked))
      await new Promise((resolve) => setTimeout(resolve, 120))
    }
    expect(taken).toBe(6000)
    expect(held.store.owed).toBe(1)
    relay.release()
    await until(() => held.store.owed === 0, 'all to be told')
    expect(await other.left(quota, 'x')).toBe(94_000)
  })

  it('owe what Redis, when it answered late, did not know the script for', async () => {
    const relay = opened(await startRelay(redis.port))
    const held = await start(relay.url, { deadlineMs: 25 })
    const other = await start(redis.url)
    const quota = hour(100)
    await redis.ask('SCRIPT', 'FLUSH')
    relay.stall()
    expect(admitted(await Promise.all([1, 2, 3].map(() => held.take(quota, 'x'))))).toBe(3)
    relay.release()
    await until(() => held.store.owed === 1, 'what was used to be owed')
    await until(async () => (await other.left(quota, 'x')) === 97, 'it to be told')
    await until(() => held.store.owed === 0, 'that to be known')
    expect(await other.left(quota, 'x')).toBe(97)
  })

  it('give back units that were to be given out, and for which Redis answered late', async () => {
    const { relay, held, other } = await startHeld()
    for (const quota of [hour(100), day(100), quotaOf('slow', { limit: 1, window: '1h', burst: 100 })]) {
      relay.stall()
      expect(await held.store.take(quota, 'x', 60, blankStanding())).toBeNull()
      relay.release()
      await until(async () => (await redis.ask('DBSIZE')) !== '0', 'the charge')
      await until(async () => (await other.left(quota, 'x')) === 100, 'the units to be back')
    }
  })

  /** One whose Redis can be taken away, and one who sees what is there. */
  async function startApart() {
    const relay = opened(await startRelay(redis.port))
    const cut = await start(relay.url, { deadlineMs: 25 })
    const other = await start(redis.url)
    await until(() => cut.store.instances === 2, 'both to know of the other')
    /** first: what is asked before that is known. */
    const lose = async <T>(first: () => Promise<T> | null = () => null): Promise<T | null> => {
      relay.stall()
      const asked = first()
      while (cut.link.isUp) await cut.take(hour(100_000), 'somebody else')
      return await asked
    }
    const find = async () => {
      relay.release()
      expect(await cut.link.whenUp(10_000)).toBe(true)
    }
    return { cut, other, lose, find }
  }

  it('tell Redis of what was given back while it was away', async () => {
    const { cut, other, lose, find } = await startApart()
    const demands = ofEachKind.map((quota) => demandOf([quota], ['x'], [60]))
    for (const demand of demands) await cut.ask(demand)
    await lose()
    for (const demand of demands) for (const units of [10, 40]) giveBack(cut, demand, units)
    await find()
    for (const quota of ofEachKind) {
      await until(async () => (await other.left(quota, 'x')) > 40, 'the units to be back')
      expect(await other.left(quota, 'x')).toBe(90)
    }
  })

  it('give back units that were to be given out, and for which Redis answered after it was lost', async () => {
    const { cut, other, lose, find } = await startApart()
    const takeAll = () => Promise.all(ofEachKind.map((quota) => cut.store.take(quota, 'x', 60, blankStanding())))
    expect(await lose(takeAll)).toEqual([null, null, null])
    await find()
    for (const quota of ofEachKind) {
      await until(async () => (await other.left(quota, 'x')) === 100, 'the units to be back')
    }
  })

  it('tell Redis of what was given back of their own, once, whether it had heard of that or not', async () => {
    const { cut, other, lose, find } = await startApart()
    await lose()
    const demands = ofEachKind.map((quota) => demandOf([quota], ['x'], [9]))
    for (const demand of demands) {
      expect(cut.charge(demand)).toBe(true)
      giveBack(cut, demand, 2)
    }
    await find()
    await until(() => cut.store.owed === 0, 'what was used to be told')
    for (const [i, quota] of ofEachKind.entries()) {
      expect(await other.left(quota, 'x')).toBe(93)
      giveBack(cut, demands[i] as Demand, 4)
      await cut.left(quota, 'x')
      expect(await other.left(quota, 'x')).toBe(97)
    }
  })

  it('give Redis nothing back of what they have not told it', async () => {
    const { cut, other, lose, find } = await startApart()
    const quota = quotaOf('brief', { limit: 100, window: '50s' })
    await lose()
    // At the same time, so that one could be taken for the other.
    const demand = demandOf([quota], ['x'], [9])
    await other.take(quota, 'x', 50)
    const { owed } = cut.store
    expect(cut.charge(demand)).toBe(true)
    expect(cut.store.owed).toBe(owed)
    // What counts for long is owed, however short the window.
    expect(cut.charge(demandOf([quotaOf('slow', { limit: 1, window: '10s', burst: 100 })], ['x']))).toBe(true)
    expect(cut.store.owed).toBe(owed + 1)
    await find()
    giveBack(cut, demand, 9)
    await cut.left(quota, 'x')
    expect(await other.left(quota, 'x')).toBe(50)
  })

  it('tell Redis of what was used on top when there was no room to say so', async () => {
    const { relay, held, other } = await startHeld()
    const quota = hour(100_000)
    const demand = demandOf([quota], ['x'])
    await held.ask(demand)
    relay.stall()
    const asked = Array.from({ length: 6000 }, (_, i) => held.charge(demandOf([hour(10)], [`s-${i}`])))
    giveBack(held, demand, -7)
    await Promise.all(asked.map(async (each) => each))
    relay.release()
    await until(() => held.store.owed === 0, 'all to be told')
    expect(await other.left(quota, 'x')).toBe(100_000 - 8)
  })

  it('put back what Redis has lost of a quota of the calendar, once', async () => {
    const [first, second] = (await startSome(2)) as [Instance, Instance]
    const quota = day(1000)
    await Promise.all(Array.from({ length: 100 }, () => first.take(quota, 'x')))
    await Promise.all(Array.from({ length: 50 }, () => second.take(quota, 'x')))
    await redis.flush()
    for (let i = 0; i < 3; i++) {
      expect(await first.take(quota, 'x')).toBe(true)
      expect(await second.take(quota, 'x')).toBe(true)
      await setImmediate()
    }
    expect(await first.left(quota, 'x')).toBe(1000 - 156)
    expect(await second.left(quota, 'x')).toBe(1000 - 156)
  })

  it('put back what Redis has lost when there is room to say so', async () => {
    const { relay, held, other } = await startHeld()
    const quota = day(100_000)
    await held.take(quota, 'x', 100)
    await redis.flush()
    relay.stall()
    const asked = [held.charge(demandOf([quota], ['x']))]
    await setImmediate()
    await setImmediate()
    for (let i = 0; i < 6000; i++) asked.push(held.charge(demandOf([hour(10)], [`s-${i}`])))
    await Promise.all(asked.map(async (each) => each))
    relay.release()
    let taken = 101
    await until(async () => {
      taken++
      await held.take(quota, 'x')
      return (await other.left(quota, 'x')) < 99_900
    }, 'what was lost to be back')
    await until(() => held.store.owed === 0, 'all to be told')
    expect(await other.left(quota, 'x')).toBe(100_000 - taken)
  })

  it('count on, each for itself, when Redis turns read-only or full', async () => {
    const other = opened(await startRedis())
    const instance = await start(redis.url, { probeKey: 'test:probe' })
    for (const [break_, mend] of [
      [
        ['REPLICAOF', '127.0.0.1', String(other.port)],
        ['REPLICAOF', 'NO', 'ONE'],
      ],
      [
        ['CONFIG', 'SET', 'maxmemory', '1'],
        ['CONFIG', 'SET', 'maxmemory', '0'],
      ],
    ] as const) {
      await redis.ask(...break_)
      const quota: Quota = quotaOf(`q-${break_[0]}`, { limit: 5, window: '1h' })
      const verdicts: boolean[] = []
      while (instance.link.isUp) verdicts.push(await instance.take(quota, 'x'))
      for (let i = 0; i < 10; i++) verdicts.push(await instance.take(quota, 'x'))
      expect(admitted(verdicts)).toBe(5)
      await redis.ask(...mend)
      expect(await instance.link.whenUp(10_000)).toBe(true)
    }
  })
})
