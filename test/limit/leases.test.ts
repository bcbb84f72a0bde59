// Blocks of units, by three instances before one counter, in a time of our own: what is really spent, and when, is held
// against the promise of each algorithm.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type DecisionSource, type Standing, blankStanding } from '../../src/limit/algorithm.ts'
import { type Leases, createLeases } from '../../src/limit/leases.ts'
import { limitOptions } from '../../src/limit/options.ts'
import { type Demand, type Quota, type SharedQuotaStore, compileQuota } from '../../src/limit/quota.ts'
import { createMemoryStore } from '../../src/limit/stores/memory.ts'

/** The beginning of a day. */
const START_MS = 1_795_305_600_000

const quotaOf = (name: string, options: object): Quota =>
  compileQuota(name, limitOptions.parse({ lease: 'on', ...options }))

const demandOf = (quotas: readonly Quota[], subject = 'ann', cost = 1): Demand => ({
  quotas,
  subjects: quotas.map(() => subject),
  costs: quotas.map(() => cost),
  standings: quotas.map(blankStanding),
  atMs: quotas.map(() => 0),
  from: 0,
  to: quotas.length,
})

/** A counter that is some milliseconds away, as Redis is, and the time in which everything happens. */
class World {
  readonly counters = createMemoryStore()
  nowMs = 0
  calls = 0
  corrections = 0
  /** Calls go out, and no answer comes in time. */
  isMute = false
  readonly #due: { atMs: number; act: () => void }[] = []

  get serverMs(): number {
    return START_MS + this.nowMs
  }

  after(delayMs: number, act: () => void): void {
    this.#due.push({ atMs: this.nowMs + delayMs, act })
  }

  /** One millisecond on. */
  async tick(): Promise<void> {
    this.nowMs++
    for (let i = 0; i < this.#due.length;) {
      const { atMs, act } = this.#due[i] as { atMs: number; act: () => void }
      if (atMs > this.nowMs) i++
      else {
        this.#due.splice(i, 1)
        act()
      }
    }
    for (let i = 0; i < 6; i++) await Promise.resolve()
  }

  /** The counter as an instance sees it whose calls take as long as `delay` says, there and back. */
  remote(delay: () => number): SharedQuotaStore {
    const { counters } = this
    const charge = (demand: Demand): Promise<boolean> => {
      this.calls++
      return new Promise((resolve) => {
        this.after(delay(), () => {
          const standings = demand.standings.map(blankStanding)
          const admitted = counters.charge({ ...demand, standings }, this.serverMs)
          const { serverMs } = this
          this.after(delay(), () => {
            for (let i = demand.from; i < demand.to; i++) {
              Object.assign(demand.standings[i] as Standing, standings[i], { source: 'redis' satisfies DecisionSource })
              demand.atMs[i] = serverMs
            }
            resolve(admitted)
          })
        })
      })
    }
    return {
      charge,
      take: async (quota, subject, units, standing) => {
        const { isMute } = this
        const demand = { ...demandOf([quota], subject, units), standings: [standing] }
        const admitted = (await charge(demand)) && standing.admitted
        if (isMute && admitted) counters.settle(quota, subject, -units, demand.atMs[0] as number, this.serverMs)
        return admitted && !isMute ? (demand.atMs[0] as number) : null
      },
      peek: (demand) => counters.peek(demand, this.serverMs),
      inspect: async () => {},
      settle: (quota, subject, delta, chargedAtMs) => {
        this.corrections++
        this.after(delay(), () => counters.settle(quota, subject, delta, chargedAtMs, this.serverMs))
      },
      reset: (quota, subject) => counters.reset(quota, subject, this.serverMs),
      close: () => {},
    }
  }
}

interface Spent {
  readonly atMs: number
}

/** What instances let through, each unit at the time at which it was spent. */
class Gateways {
  readonly world = new World()
  readonly all: Leases[]
  readonly spent: Spent[] = []
  /** Units that were taken from blocks. */
  leased = 0
  quotas: readonly Quota[]
  /** Of the next request. */
  backAfterMs: () => number | null = () => null
  /** How long the machine has slept: time that its steady clock does not know of. */
  sleptMs = 0
  /** How far wall clocks have been set forward. */
  setMs = 0

  constructor(count: number, quotas: readonly Quota[], delay: () => number = () => 1) {
    this.quotas = quotas
    const { world } = this
    this.all = Array.from({ length: count }, (_, i) =>
      createLeases({
        counters: world.remote(delay),
        instances: () => count,
        // Neither is right: only the counter's time counts.
        clock: () => this.wallMs(i),
        steadyClock: () => world.nowMs - this.sleptMs + i * 777,
      }),
    )
  }

  wallMs(instance: number): number {
    return this.world.serverMs + this.setMs + (instance - 1) * 3_600_000
  }

  sleep(ms: number): void {
    this.world.nowMs += ms
    this.sleptMs += ms
  }

  /** backAfterMs: what it took is given back then, and so was never spent; null: it is kept. */
  ask(instance: number, { subject = 'ann', cost = 1, backAfterMs = this.backAfterMs() } = {}): void {
    const { world, quotas } = this
    const store = this.all[instance] as Leases
    const demand = demandOf(quotas, subject, cost)
    const answer = store.charge(demand, this.wallMs(instance))
    const note = (admitted: boolean): void => {
      const isLeased = demand.standings[0]?.source === 'lease'
      const atMs = isLeased ? world.serverMs : (demand.atMs[0] as number)
      if (admitted && isLeased) this.leased += cost
      if (admitted && backAfterMs !== null) {
        world.after(backAfterMs, () => {
          for (const [i, quota] of quotas.entries()) {
            store.settle(quota, subject, -cost, demand.atMs[i] as number, world.serverMs)
          }
        })
      } else if (admitted) for (let i = 0; i < cost; i++) this.spent.push({ atMs })
    }
    if (typeof answer === 'boolean') note(answer)
    else void answer.then(note)
  }

  async tick(): Promise<void> {
    await this.world.tick()
    if (this.world.nowMs % 25 === 0) for (const store of this.all) store.sweep()
  }

  async idle(ms: number): Promise<void> {
    for (let i = 0; i < ms; i++) await this.tick()
  }

  /** perMs: how many ask each millisecond, of each instance; below 1: as often. */
  async load(ms: number, ...perMs: readonly number[]): Promise<void> {
    for (let i = 0; i < ms; i++) {
      await this.tick()
      for (const [instance, each] of perMs.entries()) {
        const asks = each >= 1 ? each : i % Math.round(1 / each) === 0 ? 1 : 0
        for (let n = 0; n < asks; n++) this.ask(instance)
      }
    }
  }

  /** What is left where all count. */
  left(index = 0): number {
    const demand = demandOf([this.quotas[index] as Quota])
    this.world.counters.peek(demand, this.world.serverMs)
    return (demand.standings[0] as Standing).remaining
  }

  times(): number[] {
    return this.spent.map(({ atMs }) => atMs).toSorted((a, b) => a - b)
  }
}

/** The most in any span of one window. */
function mostInWindow(times: readonly number[], windowMs: number): number {
  let most = 0
  for (let from = 0, to = 0; to < times.length; to++) {
    while ((times[to] as number) - (times[from] as number) >= windowMs) from++
    most = Math.max(most, to - from + 1)
  }
  return most
}

/** How far a bucket that is filled by each unit, and drains at the rate, fills: at most to the burst. */
function highestLevel(times: readonly number[], { limit, windowMs }: Quota['rate']): number {
  let level = 0
  let atMs = 0
  let highest = 0
  for (const timeMs of times) {
    level = Math.max(0, level - ((timeMs - atMs) * limit) / windowMs) + 1
    atMs = timeMs
    highest = Math.max(highest, level)
  }
  return highest
}

const loads = fc.array(
  fc.record({
    ms: fc.integer({ min: 20, max: 900 }),
    perMs: fc.array(fc.constantFrom(0.005, 0.05, 0.1, 0.3, 1, 2), { minLength: 3, maxLength: 3 }),
    pauseMs: fc.constantFrom(0, 0, 3, 40, 300),
  }),
  { minLength: 3, maxLength: 8 },
)

/** When what was taken is given back, in milliseconds; null: never. */
const returns = fc.array(fc.constantFrom(null, null, 0, 3, 20, 60, 200, 1200), { minLength: 5, maxLength: 30 })

/** Random loads on three instances whose calls take up to delayMs each way, some of it given back. */
async function always(quota: Quota, check: (gateways: Gateways) => void | Promise<void>): Promise<{ leased: number }> {
  const seen = { leased: 0 }
  const delayLists = fc.array(fc.nat(12), { minLength: 7, maxLength: 30 })
  await fc.assert(
    fc.asyncProperty(loads, delayLists, fc.oneof(fc.constant([null]), returns), async (phases, delays, backs) => {
      let calls = 0
      let asks = 0
      const gateways = new Gateways(3, [quota], () => delays[calls++ % delays.length] as number)
      gateways.backAfterMs = () => backs[asks++ % backs.length] as number | null
      // Long enough for all to be known as frequent.
      await gateways.load(1100, 0.2, 0.2, 0.2)
      for (const { ms, perMs, pauseMs } of phases) {
        await gateways.load(ms, ...perMs)
        await gateways.idle(pauseMs)
      }
      await gateways.idle(30)
      await check(gateways)
      seen.leased += gateways.leased
    }),
    { numRuns: 40 },
  )
  return seen
}

describe('blocks of units', () => {
  it.each([
    { limit: 1000, window: '1s' },
    { limit: 600, window: '300ms' },
    { limit: 2000, window: '3s' },
  ])(
    'never let more through than $limit in any $window',
    async (options) => {
      const quota = quotaOf('sliding', options)
      const { leased } = await always(quota, (gateways) => {
        expect(mostInWindow(gateways.times(), quota.rate.windowMs)).toBeLessThanOrEqual(quota.rate.limit)
      })
      expect(leased).toBeGreaterThan(100)
    },
    60_000,
  )

  it.each([
    { limit: 1000, burst: 400 },
    { limit: 400, burst: 200 },
    { limit: 3000, burst: 1000 },
  ])(
    'never let more through than the steady rate of $limit a second and $burst at once',
    async (options) => {
      const quota = quotaOf('gcra', { ...options, window: '1s' })
      const { leased } = await always(quota, (gateways) => {
        expect(highestLevel(gateways.times(), quota.rate)).toBeLessThanOrEqual(quota.rate.burst + 1e-6)
      })
      expect(leased).toBeGreaterThan(100)
    },
    60_000,
  )

  it('never let more through than the quota, and all of it once what was idle is returned', async () => {
    const quota = quotaOf('day', { limit: 2500, window: '1d', align: 'UTC' })
    const { leased } = await always(quota, async (gateways) => {
      expect(gateways.spent.length).toBeLessThanOrEqual(2500)
      gateways.backAfterMs = () => null
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < 2600; i++) gateways.ask(i % 3)
        // Long enough for what is held to come back, and for nobody to be known as frequent.
        await gateways.idle(2200)
      }
      expect(gateways.spent).toHaveLength(2500)
    })
    expect(leased).toBeGreaterThan(100)
  }, 60_000)

  it('give nothing back to a bucket that has drained meanwhile', async () => {
    const quota = quotaOf('gcra', { limit: 1000, burst: 1000, window: '1s' })
    for (let stopMs = 0; stopMs < 50; stopMs += 10) {
      for (let lateMs = 30; lateMs < 80; lateMs += 5) {
        const gateways = new Gateways(2, [quota])
        await gateways.load(1300 + stopMs, 1, 0)
        await gateways.idle(lateMs)
        for (let i = 0; i < 600; i++) gateways.ask(1)
        await gateways.idle(40)
        for (let i = 0; i < 1000; i++) gateways.ask(1)
        await gateways.idle(5)
        expect(highestLevel(gateways.times(), quota.rate)).toBeLessThanOrEqual(1000 + 1e-6)
      }
    }
  })
})

const DAY = { limit: 100_000, window: '1d', align: 'UTC' }

describe('who asks often', () => {
  it('is decided here nearly always, with few calls, however far away Redis is', async () => {
    const gateways = new Gateways(1, [quotaOf('day', DAY)], () => 40)
    await gateways.load(1200, 2)
    const before = { leased: gateways.leased, calls: gateways.world.calls }
    await gateways.load(5000, 2)
    expect(gateways.leased - before.leased).toBeGreaterThan(9900)
    expect(gateways.world.calls - before.calls).toBeLessThan(50)
  })

  it.each([
    ['while its block is here', 5, 40],
    ['when its block is gone, many at once', 1500, 200],
  ])('gives back %s, with few corrections', async (_when, backAfterMs, most) => {
    const gateways = new Gateways(1, [quotaOf('day', DAY)])
    await gateways.load(1200, 2)
    gateways.backAfterMs = () => backAfterMs
    const spent = gateways.spent.length
    const before = gateways.world.corrections
    await gateways.load(5000, 2)
    expect(gateways.world.corrections - before).toBeLessThanOrEqual(most + 10)
    await gateways.idle(2200)
    expect([gateways.spent.length - spent, gateways.left()]).toEqual([0, 100_000 - spent])
  })

  it('is not refused what it has given back', async () => {
    const quota = quotaOf('sliding', { limit: 1000, window: '1s' })
    const gateways = new Gateways(1, [quota])
    await gateways.load(1100, 0.2)
    gateways.backAfterMs = () => 70
    for (let i = 0; i < 2000; i++) gateways.ask(0)
    await gateways.idle(74)
    gateways.backAfterMs = () => null
    const before = gateways.spent.length
    for (let i = 0; i < 500; i++) gateways.ask(0)
    await gateways.idle(3)
    expect(gateways.spent.length - before).toBe(500)
  })

  it('is told of what is left, as if each had been asked of Redis', async () => {
    const quota = quotaOf('day', DAY)
    const gateways = new Gateways(1, [quota])
    await gateways.load(1500, 1)
    const demand = demandOf([quota])
    const [store] = gateways.all as [Leases]
    store.peek(demand, 0)
    const [standing] = demand.standings as [Standing]
    // But for what was on its way when the block was charged.
    expect(standing.admitted).toBe(true)
    expect(Math.abs(standing.remaining - 98_500)).toBeLessThan(5)
    expect(store.charge(demand, 0)).toBe(true)
    const { source, remaining, waitMs, fullMs } = standing
    expect([source, waitMs]).toEqual(['lease', 0])
    expect(Math.abs(remaining - 98_500)).toBeLessThan(5)
    expect((demand.atMs[0] as number) + fullMs).toBe(START_MS + 86_400_000)
    // Since the block was charged, time has passed.
    expect(Math.abs(standing.nextMs - (START_MS + 86_400_000 - gateways.world.serverMs))).toBeLessThan(5)
  })

  it('has no block where one of the policies lends none', async () => {
    const gateways = new Gateways(1, [quotaOf('day', DAY), quotaOf('other', { ...DAY, lease: 'off' })])
    await gateways.load(2500, 1)
    expect([gateways.leased, gateways.world.calls]).toEqual([0, 2500])
  })

  it('draws on a block of each policy at once', async () => {
    const gateways = new Gateways(1, [quotaOf('day', DAY), quotaOf('sliding', { limit: 5000, window: '1s' })])
    await gateways.load(3000, 1)
    expect(gateways.leased).toBeGreaterThan(500)
    await gateways.idle(1100)
    expect(gateways.left(0)).toBe(100_000 - 3000)
    expect(gateways.spent).toHaveLength(3000)
  })

  it('spends no block that Redis may not have charged', async () => {
    const gateways = new Gateways(1, [quotaOf('day', DAY)])
    await gateways.load(1500, 1)
    gateways.world.isMute = true
    await gateways.load(1100, 1)
    const { leased } = gateways
    await gateways.load(500, 1)
    expect(gateways.leased).toBe(leased)
  })

  it('is told of in units: taken, held, and what went back or was lost', async () => {
    for (const [options, isReturned] of [
      [{ limit: 5000, window: '1d', align: 'UTC' }, true],
      [{ limit: 1000, window: '1s', burst: 900 }, false],
    ] as const) {
      const gateways = new Gateways(1, [quotaOf('told', options)])
      const [store] = gateways.all as [Leases]
      await gateways.load(1200, 0.2)
      const { held, taken, returned, lapsed } = store.counts
      expect(taken).toBeGreaterThan(0)
      expect(held).toBe(taken - returned - lapsed - gateways.leased)
      await gateways.idle(1500)
      const end = store.counts
      expect(end.held).toBe(0)
      expect(end.taken - gateways.leased).toBe(isReturned ? end.returned : end.lapsed)
      expect(isReturned ? end.lapsed : end.returned).toBe(0)
    }
  })

  it('spends none of what a policy that only watches had no room for', async () => {
    const quota = quotaOf('watched', { ...DAY, limit: 1500, mode: 'shadow' })
    const gateways = new Gateways(1, [quota])
    let admitted = 0
    for (let i = 0; i < 4000; i++) {
      await gateways.tick()
      const demand = demandOf([quota])
      const answer = gateways.all[0]?.charge(demand, gateways.wallMs(0)) as boolean | Promise<boolean>
      const note = () => void (demand.standings[0]?.admitted === true && admitted++)
      if (typeof answer === 'boolean') note()
      else void answer.then(note)
    }
    await gateways.idle(10)
    expect(admitted).toBe(1500)
  })

  it('spends none after a sleep of the machine, which its steady clock does not know of', async () => {
    const gateways = new Gateways(1, [quotaOf('day', DAY)])
    await gateways.load(1500, 1)
    const { leased } = gateways
    gateways.ask(0)
    expect(gateways.leased).toBe(leased + 1)
    gateways.sleep(60_000)
    gateways.ask(0)
    expect(gateways.leased).toBe(leased + 1)
  })

  it('is none the worse for a wall clock that is set back', async () => {
    const gateways = new Gateways(1, [quotaOf('day', DAY)])
    await gateways.load(1500, 1)
    gateways.setMs = -3_600_000
    gateways.world.isMute = true
    const { leased } = gateways
    gateways.ask(0)
    expect(gateways.leased).toBe(leased + 1)
    await gateways.idle(1100)
    gateways.ask(0)
    expect(gateways.leased).toBe(leased + 1)
    await gateways.idle(10)
    expect(gateways.left()).toBe(100_000 - gateways.spent.length)
  })

  it('leaves nothing behind when the instance ends', async () => {
    const gateways = new Gateways(1, [quotaOf('day', DAY)])
    for (let ms = 1500; gateways.spent.length < 1600; ms++) await gateways.load(1, 1)
    expect(gateways.left()).toBeLessThan(100_000 - 1600)
    const closed = (gateways.all[0] as Leases).close()
    await gateways.idle(10)
    await closed
    await gateways.idle(10)
    expect(gateways.left()).toBe(100_000 - gateways.spent.length)
  })

  it('begins anew after a reset, without what was under way', async () => {
    const quota = quotaOf('day', DAY)
    for (let waitMs = 0; waitMs < 30; waitMs++) {
      const gateways = new Gateways(1, [quota], () => 12)
      await gateways.load(1500, 1)
      await gateways.load(waitMs * 20, 1)
      const isReset = gateways.all[0]?.reset(quota, 'ann', 0)
      await gateways.idle(50)
      await isReset
      gateways.world.isMute = true
      const { leased } = gateways
      gateways.ask(0)
      await gateways.idle(50)
      gateways.ask(0)
      await gateways.idle(1500)
      // What was charged before is forgotten: it can be neither spent nor given back.
      expect([gateways.leased - leased, gateways.left()]).toEqual([0, 99_998])
    }
  })

  it('goes by the new limit after a reload', async () => {
    const gateways = new Gateways(2, [quotaOf('day', DAY)])
    await gateways.load(1500, 1, 1)
    gateways.quotas = [quotaOf('day', { ...DAY, limit: 6000 })]
    await gateways.load(4000, 1, 1)
    expect(gateways.spent.length).toBeGreaterThan(5500)
    expect(gateways.spent.length).toBeLessThanOrEqual(6000)
  })

  it('spends no block of a limit that is lower now, nor one that was under way', async () => {
    for (let waitMs = 0; waitMs < 30; waitMs++) {
      const gateways = new Gateways(2, [quotaOf('day', DAY)], () => 12)
      await gateways.load(1500, 1, 1)
      await gateways.load(waitMs * 20, 1, 1)
      const { leased } = gateways
      gateways.quotas = [quotaOf('day', { ...DAY, limit: 2000 })]
      await gateways.load(1500, 1, 1)
      await gateways.idle(50)
      expect(gateways.leased).toBe(leased)
      // All that was held is back.
      gateways.quotas = [quotaOf('day', DAY)]
      expect(gateways.left()).toBe(100_000 - gateways.spent.length)
    }
  })

  it('is not held to an older block where a reload only makes other objects of the same limit', async () => {
    const gateways = new Gateways(1, [quotaOf('day', DAY)])
    await gateways.load(1500, 1)
    const { calls } = gateways.world
    gateways.quotas = [quotaOf('day', DAY)]
    await gateways.load(100, 1)
    expect(gateways.world.calls).toBeLessThanOrEqual(calls + 1)
  })

  it('is one of 10,000 at a time', async () => {
    const gateways = new Gateways(1, [quotaOf('day', { ...DAY, lease: 'auto' })])
    for (let i = 0; i < 10_000; i++) gateways.ask(0, { subject: `stranger${i}` })
    await gateways.load(990, 1)
    await gateways.idle(50)
    await gateways.load(100, 1)
    expect(gateways.leased).toBe(0)
    // Strangers have gone.
    await gateways.load(1500, 1)
    expect(gateways.leased).toBeGreaterThan(0)
  })
})

describe('blocks are lent', () => {
  const rare = 0.01
  it.each([
    ['nowhere by default', { ...DAY, lease: 'off' }, 1, 1, false],
    ['by auto of large quotas', { ...DAY, lease: 'auto' }, 1, 1, true],
    ['by auto of large rates', { limit: 400, window: '2s', lease: 'auto' }, 0.1, 1, true],
    ['by auto of no small quota', { ...DAY, limit: 99_999, lease: 'auto' }, 1, 1, false],
    ['by auto of no small rate', { limit: 199, window: '1s', lease: 'auto' }, 0.1, 1, false],
    ['not of tokens, whose number is known afterwards', { ...DAY, unit: 'tokens', reserve: 1 }, 1, 1, false],
    ['not of what the answer tells the cost of', { ...DAY, costField: 'x-cost' }, 1, 1, false],
    ['by auto not to who asks rarely', { ...DAY, lease: 'auto' }, rare, 1, false],
    ['by auto not for what costs more', { ...DAY, lease: 'auto' }, 1, 2, false],
    ['by on for what costs more', DAY, 1, 2, true],
    ['by on to who asks less often', DAY, rare, 1, true],
    ['by on of small quotas', { limit: 2000, window: '1d', align: 'UTC' }, 0.1, 1, true],
    ['not of a bucket that drains within the time of a block', { limit: 1000, burst: 40, window: '1s' }, 1, 1, false],
    ['not of what is nearly used up', { ...DAY, limit: 19 }, 0.01, 1, false],
  ])('%s', async (_what, options, perMs, cost, isLent) => {
    const gateways = new Gateways(1, [quotaOf('policy', options)])
    for (let i = 0; i < 3000; i++) {
      await gateways.tick()
      if (i % Math.round(1 / perMs) === 0) gateways.ask(0, { cost })
    }
    expect(gateways.leased > 0).toBe(isLent)
  })
})
