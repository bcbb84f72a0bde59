// The rules in Lua against their TypeScript, over random histories on a real Redis, and what the script keeps.

import * as fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import type { RedisLink } from '../../../src/core/redis.ts'
import { type Algorithm, type Calendar, type Standing, WHENEVER, blankStanding } from '../../../src/limit/algorithm.ts'
import { ALGORITHMS, BLOCK_ALGORITHMS, type Demand, type Quota } from '../../../src/limit/quota.ts'
import { createMemoryStore } from '../../../src/limit/stores/memory.ts'
import { Ask, Call } from '../../../src/limit/stores/redis-call.ts'
import { timeOf } from '../../../src/limit/stores/redis-reply.ts'
import { QUOTA_SCRIPT } from '../../../src/limit/stores/redis-script.ts'
import { Subject } from '../../../src/limit/stores/redis-subjects.ts'
import { closeAfterEach } from '../../support/closing.ts'
import { linksFor } from '../../support/redis-link.ts'
import { type RedisServer, describeWithRedis, startRedis } from '../../support/redis.ts'

/** So late that no key of the tests ends by itself. */
const START_MS = 3_900_000_000_000

const ALL = [...ALGORITHMS, ...BLOCK_ALGORITHMS]
const [sliding, gcra, fixed] = ALGORITHMS as readonly [Algorithm, Algorithm, Algorithm]
const [leasedGcra] = BLOCK_ALGORITHMS

const calendarOf = (windowMs: number): Calendar => ({
  startMs: (nowMs) => Math.floor(nowMs / windowMs) * windowMs,
  endMs: (nowMs) => (Math.floor(nowMs / windowMs) + 1) * windowMs,
})

interface Rates {
  readonly limit?: number
  readonly windowMs?: number
  readonly burst?: number
  readonly number?: number
  readonly isEnforced?: boolean
}

function quotaOf(algorithm: Algorithm, options: Rates = {}): Quota {
  const { limit = 5, windowMs = 1000, burst = limit, number = 1, isEnforced = true } = options
  const calendar = algorithm === fixed ? calendarOf(windowMs) : null
  const rate = { limit, windowMs, burst: limit, calendar }
  if (algorithm === gcra) rate.burst = burst
  // A block always has room where nothing is used, or the memory store, which lends none, would take it for that.
  if (algorithm === leasedGcra) rate.burst = burst + 6 + Math.ceil((50 * limit) / windowMs)
  const id = `${algorithm.name} ${number}`
  return { id, number, scope: 'ip', algorithm, rate, sharedRate: rate, isEnforced, fallback: 'share', lease: 'off' }
}

const demandOf = (quotas: readonly Quota[], subjects: readonly string[], costs: readonly number[]): Demand => ({
  quotas,
  subjects,
  costs,
  standings: quotas.map(blankStanding),
  atMs: quotas.map(() => 0),
  from: 0,
  to: quotas.length,
})

const numbersOf = (standings: readonly Standing[]) => standings.map((standing) => ({ ...standing, source: null }))

const opened = closeAfterEach()

describeWithRedis('the script', () => {
  let redis: RedisServer
  let run: ReturnType<RedisLink['script']>
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())
  beforeEach(async () => {
    const link = await linksFor(opened).linkUp(redis.url)
    run = link.script(QUOTA_SCRIPT)
    await redis.flush()
  })

  /** Sends a call as of a time; clockMs: what the sender takes for it. */
  async function send(call: Call, nowMs: number, clockMs = nowMs): Promise<Buffer> {
    return (await run(call.keys, [call.message(clockMs), nowMs])) as Buffer
  }

  async function charge(quotas: readonly Quota[], keys: readonly string[], nowMs: number, costs = quotas.map(() => 1)) {
    const demand = demandOf(quotas, keys, costs)
    let admitted = false
    const born: number[] = []
    const ask = new Ask(
      demand,
      keys.map((key) => new Subject(key)),
      () => {},
    )
    const call = new Call()
    call.ask(ask, () => true)
    call.read(
      await send(call, nowMs),
      (_ask, _i, _charged, _nowMs, bornMs) => void born.push(bornMs),
      ({ isAdmitted }) => {
        admitted = isAdmitted
      },
    )
    return { admitted, standings: demand.standings, born }
  }

  async function settle(quota: Quota, key: string, delta: number, chargedAtMs: number, nowMs: number): Promise<void> {
    const call = new Call()
    call.correct(quota, new Subject(key), delta, chargedAtMs)
    await send(call, nowMs)
  }

  const left = async (quota: Quota, key: string, nowMs: number) => {
    // More than there ever is: refused, and told how much is left.
    const { standings } = await charge([quota], [key], nowMs, [quota.rate.burst + 1])
    return (standings[0] as Standing).remaining
  }

  const stepsOf = (afterMs: fc.Arbitrary<number>) =>
    fc.array(
      fc.record({
        afterMs,
        cost: fc.integer({ min: 1, max: 6 }),
        delta: fc.oneof(
          { weight: 3, arbitrary: fc.constant(0) },
          { weight: 1, arbitrary: fc.integer({ min: -6, max: 9 }) },
        ),
        /** Null: whenever it was. */
        agoMs: fc.option(fc.integer({ min: 0, max: 3000 }), { freq: 9 }),
        skewMs: fc.integer({ min: -99, max: 99 }),
      }),
      { maxLength: 60 },
    )
  const forth = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 1500 }))
  const steps = stepsOf(forth)
  /** Here and there the clock steps back. */
  const unsteadySteps = stepsOf(fc.oneof({ weight: 5, arbitrary: forth }, fc.integer({ min: -3000, max: 0 })))
  type History = typeof steps extends fc.Arbitrary<infer T> ? T : never
  /** Many in a short time, so that there is more to remember than can be. */
  const denseSteps = stepsOf(fc.integer({ min: 0, max: 90 }))
  const rates = fc.record({
    limit: fc.integer({ min: 1, max: 20 }),
    windowMs: fc.integer({ min: 100, max: 5000 }),
    burst: fc.integer({ min: 1, max: 60 }),
    isEnforced: fc.boolean(),
  })

  /** Lives the same history here and in Redis; answers what each said. What is given back was charged to an entry that is
   *  still there: of another, Redis gives nothing back. */
  async function liveTwice(quotas: readonly Quota[], subjects: readonly string[], history: History, isSteady = true) {
    const store = createMemoryStore()
    /** By policy, when something was charged. */
    const charges = quotas.map((): number[] => [])
    const someChargeOf = (i: number, nowMs: number, agoMs: number): number => {
      const times = charges[i] as number[]
      if (!isSteady) return Math.max(nowMs, ...times)
      const recent = times.filter((atMs) => nowMs - atMs < (quotas[i] as Quota).rate.windowMs)
      return recent[agoMs % recent.length] ?? nowMs
    }
    const here: unknown[] = []
    const there: Promise<unknown>[] = []
    let nowMs = START_MS
    // All at once: Redis takes them in this order, and the times are given.
    for (const { afterMs, cost, delta, agoMs, skewMs } of history) {
      nowMs += afterMs
      const clockMs = nowMs + skewMs
      if (delta !== 0) {
        for (const [i, quota] of quotas.entries()) {
          const chargedAtMs = agoMs === null ? WHENEVER : someChargeOf(i, nowMs, agoMs)
          if (delta > 0) charges[i]?.push(nowMs)
          store.settle(quota, subjects[i] as string, delta, chargedAtMs, nowMs)
          const call = new Call()
          call.correct(quota, new Subject(`k:${subjects[i]}`), delta, chargedAtMs)
          there.push(send(call, nowMs, clockMs).then(() => null))
          here.push(null)
        }
      }
      const costs = quotas.map(() => cost)
      const mine = demandOf(quotas, subjects, costs)
      const admitted = store.charge(mine, nowMs)
      here.push([admitted, numbersOf(mine.standings)])
      for (const [i, standing] of mine.standings.entries()) if (admitted && standing.admitted) charges[i]?.push(nowMs)
      const theirs = demandOf(quotas, subjects, costs)
      const known = subjects.map((subject) => new Subject(`k:${subject}`))
      const ask = new Ask(theirs, known, () => {})
      const call = new Call()
      call.ask(ask, () => true)
      there.push(
        send(call, nowMs, clockMs).then((reply) => {
          call.read(
            reply,
            () => {},
            () => {},
          )
          return [ask.isAdmitted, numbersOf(theirs.standings)]
        }),
      )
    }
    return { here, there: await Promise.all(there) }
  }

  it.each(ALL.map((algorithm) => ({ name: algorithm.name, algorithm })))(
    'says of $name what TypeScript says, verdicts and standings, also to a sender that is wrong about the time',
    { timeout: 60_000 },
    async ({ algorithm }) => {
      let life = 0
      await fc.assert(
        fc.asyncProperty(rates, fc.oneof(steps, denseSteps), async (options, history) => {
          const quota = quotaOf(algorithm, options)
          const { here, there } = await liveTwice([quota], [`${algorithm.name}-${life++}`], history)
          expect(there).toEqual(here)
        }),
        { numRuns: 100 },
      )
    },
  )

  // Who is refused writes nothing, so a refusal cannot be told from none once the clock steps back: here all are admitted.
  it.each(ALL.map((algorithm) => ({ name: algorithm.name, algorithm })))(
    'says of $name what TypeScript says when the clock steps back',
    { timeout: 60_000 },
    async ({ algorithm }) => {
      let life = 0
      const wide = rates.map((options) => ({ ...options, limit: options.limit + 1000, burst: options.burst + 1000 }))
      await fc.assert(
        fc.asyncProperty(wide, unsteadySteps, async (options, history) => {
          const quota = quotaOf(algorithm, options)
          const { here, there } = await liveTwice([quota], [`back-${algorithm.name}-${life++}`], history, false)
          expect(there).toEqual(here)
        }),
        { numRuns: 100 },
      )
    },
  )

  it.each(ALL.map((algorithm) => ({ name: algorithm.name, algorithm })))(
    'forgets nothing of $name when the clock steps back, and keeps nobody out for longer than a window and a slice',
    async ({ algorithm }) => {
      const quota = quotaOf(algorithm, { limit: 7, burst: 3 })
      for (const backMs of [1, 50, 1000, 3_600_000, 86_400_000]) {
        const key = `${algorithm.name}-${backMs}`
        for (let i = 0; i < 10; i++) await charge([quota], [key], START_MS)
        const steppedMs = START_MS - backMs
        expect((await charge([quota], [key], steppedMs)).admitted).toBe(false)
        let waitedMs = 0
        while (waitedMs <= 1100 && !(await charge([quota], [key], steppedMs + waitedMs)).admitted) waitedMs += 25
        expect(waitedMs).toBeLessThanOrEqual(1100)
      }
    },
  )

  it('says the same of several policies together, all or nothing', { timeout: 60_000 }, async () => {
    let life = 0
    const lists = fc.array(fc.tuple(fc.nat(ALL.length - 1), rates, fc.boolean()), {
      minLength: 2,
      maxLength: 4,
    })
    await fc.assert(
      fc.asyncProperty(lists, steps, async (list, history) => {
        const id = life++
        const quotas = list.map(([algorithm, options], i) =>
          quotaOf(ALL[algorithm] as Algorithm, { ...options, number: i + 1 }),
        )
        const subjects = list.map(([, , isUser]) => `${id}-${isUser ? 'user' : 'ip'}`)
        const { here, there } = await liveTwice(quotas, subjects, history)
        expect(there).toEqual(here)
      }),
      { numRuns: 60 },
    )
  })

  it('says the same of many requests and corrections in one call', { timeout: 60_000 }, async () => {
    let life = 0
    const policies = fc.array(fc.tuple(fc.nat(ALL.length - 1), rates), { minLength: 1, maxLength: 3 })
    const turns = fc.array(
      fc.record({
        afterMs: forth,
        corrections: fc.array(fc.tuple(fc.nat(2), fc.nat(2), fc.integer({ min: -4, max: 4 })), { maxLength: 3 }),
        requests: fc.array(fc.tuple(fc.nat(2), fc.nat(2), fc.integer({ min: 1, max: 4 })), { maxLength: 12 }),
      }),
      { maxLength: 10 },
    )
    await fc.assert(
      fc.asyncProperty(policies, turns, async (list, history) => {
        const id = life++
        const quotas = list.map(([algorithm, options], i) =>
          quotaOf(ALL[algorithm] as Algorithm, { ...options, number: i + 1 }),
        )
        const store = createMemoryStore()
        const known = Array.from({ length: 3 }, (_, i) => new Subject(`k:${id}-${i}`))
        let nowMs = START_MS
        for (const { afterMs, corrections, requests } of history) {
          nowMs += afterMs
          const call = new Call()
          for (const [who, policy, delta] of corrections) {
            const quota = quotas[policy % quotas.length] as Quota
            if (delta === 0) await store.reset(quota, `${who}`, nowMs)
            else store.settle(quota, `${who}`, delta, nowMs, nowMs)
            call.correct(quota, known[who] as Subject, delta, nowMs)
          }
          const here: unknown[] = []
          const asks = requests.map(([who, other, cost]) => {
            // Policies of one request may be of different subjects.
            const whose = quotas.map((_, i) => (i === 0 ? who : other))
            const mine = demandOf(
              quotas,
              whose.map(String),
              quotas.map(() => cost),
            )
            here.push([store.charge(mine, nowMs), numbersOf(mine.standings)])
            const theirs = demandOf(
              quotas,
              whose.map(String),
              quotas.map(() => cost),
            )
            const ask = new Ask(
              theirs,
              whose.map((i) => known[i] as Subject),
              () => {},
            )
            call.ask(ask, () => true)
            return ask
          })
          if (asks.length === 0 && corrections.length === 0) continue
          call.read(
            await send(call, nowMs),
            () => {},
            () => {},
          )
          expect(asks.map(({ isAdmitted, demand }) => [isAdmitted, numbersOf(demand.standings)])).toEqual(here)
        }
      }),
      { numRuns: 100 },
    )
  })

  it('decides the requests of one call in their order', async () => {
    const quota = quotaOf(sliding, { limit: 3 })
    const asks = Array.from({ length: 5 }, () => new Ask(demandOf([quota], ['x'], [1]), [new Subject('k')], () => {}))
    const call = new Call()
    for (const ask of asks) call.ask(ask, () => true)
    expect(call.keys).toEqual(['k'])
    call.read(
      await send(call, START_MS),
      () => {},
      () => {},
    )
    expect(asks.map(({ isAdmitted, demand }) => [isAdmitted, demand.standings[0]?.remaining])).toEqual([
      [true, 2],
      [true, 1],
      [true, 0],
      [false, 0],
      [false, 0],
    ])
  })

  it('keeps entries that it does not know as long as they count, and no longer', async () => {
    const [old, other] = [quotaOf(sliding, { windowMs: 60_000, number: 7 }), quotaOf(gcra, { number: 9 })]
    await charge([old], ['k'], START_MS)
    for (let i = 0; i < 3; i++) await charge([other], ['k'], START_MS + i * 20_000)
    expect(await left(old, 'k', START_MS + 50_000)).toBe(4)
    const both = Number(await redis.ask('STRLEN', 'k'))
    await charge([other], ['k'], START_MS + 70_000)
    expect(Number(await redis.ask('STRLEN', 'k'))).toBeLessThan(both)
  })

  it('lets a record end with the last of its entries', async () => {
    await charge(
      [quotaOf(sliding, { windowMs: 60_000 }), quotaOf(gcra, { windowMs: 3_600_000, number: 2 })],
      ['k', 'k'],
      START_MS,
    )
    // GCRA drains one of five in twelve minutes.
    expect(Number(await redis.ask('PEXPIRETIME', 'k'))).toBe(START_MS + 720_000)
  })

  it('writes nothing for who is refused', async () => {
    const quotas = [quotaOf(sliding, { limit: 1 }), quotaOf(fixed, { windowMs: 86_400_000, number: 2 })]
    await charge(quotas, ['a', 'a'], START_MS)
    const before = await redis.ask('DUMP', 'a')
    for (let i = 0; i < 20; i++) expect((await charge(quotas, ['a', 'b'], START_MS)).admitted).toBe(false)
    expect(await redis.ask('DUMP', 'a')).toBe(before)
    expect(await redis.ask('EXISTS', 'b')).toBe('0')
  })

  it('tells when an entry was born, and keeps that over refunds and resets', async () => {
    const day = quotaOf(fixed, { windowMs: 86_400_000 })
    const first = await charge([day], ['k'], START_MS)
    expect(first.born[0]).toBeGreaterThan(0)
    await settle(day, 'k', -1, START_MS, START_MS + 5)
    expect(await left(day, 'k', START_MS + 6)).toBe(5)
    expect((await charge([day], ['k'], START_MS + 10)).born).toEqual(first.born)
    await settle(day, 'k', 0, 0, START_MS + 15)
    expect(await left(day, 'k', START_MS + 16)).toBe(5)
    expect((await charge([day], ['k'], START_MS + 20)).born).toEqual(first.born)
    await redis.flush()
    expect((await charge([day], ['k'], START_MS + 30)).born).not.toEqual(first.born)
  })

  it('gives nothing back to an entry that was made after the charge', async () => {
    for (const algorithm of ALL) {
      const quota = quotaOf(algorithm, { limit: 50, windowMs: 86_400_000 })
      const key = algorithm.name
      await charge([quota], [key], START_MS, [9])
      await redis.flush()
      await charge([quota], [key], START_MS + 5, [9])
      const before = await left(quota, key, START_MS + 10)
      await settle(quota, key, -7, START_MS, START_MS + 10)
      expect(await left(quota, key, START_MS + 10)).toBe(before)
      await settle(quota, key, -7, START_MS + 5, START_MS + 10)
      expect(await left(quota, key, START_MS + 10)).toBe(before + 7)
    }
  })

  it('takes the time of Redis where none is given', async () => {
    const call = new Call()
    call.ask(new Ask(demandOf([quotaOf(sliding)], ['x'], [1]), [new Subject('k')], () => {}), () => true)
    const reply = (await run(call.keys, [call.message(START_MS)])) as Buffer
    expect(timeOf(reply)).toBeGreaterThan(Date.now() - 60_000)
    expect(timeOf(reply)).toBeLessThan(Date.now() + 60_000)
  })

  it('takes up little room', async () => {
    const quotas = [sliding, gcra, fixed].map((algorithm, i) =>
      quotaOf(algorithm, { windowMs: 86_400_000, number: i + 1 }),
    )
    await charge(quotas, ['k', 'k', 'k'], START_MS)
    expect(Number(await redis.ask('STRLEN', 'k'))).toBe(3 * 13 + 20 + 32 + 16)
  })
})
