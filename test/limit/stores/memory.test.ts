import { describe, expect, it } from 'vitest'
import { blankStanding, type Standing } from '../../../src/limit/algorithm.ts'
import { limitOptions } from '../../../src/limit/options.ts'
import { type Demand, type Quota, compileQuota } from '../../../src/limit/quota.ts'
import { MAX_SUBJECTS, createMemoryStore, type MemoryStore } from '../../../src/limit/stores/memory.ts'

const START_MS = 1_795_341_600_000
const quota = (name: string, yaml: object): Quota => compileQuota(name, limitOptions.parse(yaml))

function demandOf(quotas: readonly Quota[], subjects: readonly (string | null)[], cost = 1): Demand {
  const standings = quotas.map(blankStanding)
  const atMs = quotas.map(() => 0)
  return { quotas, subjects, costs: quotas.map(() => cost), standings, atMs, from: 0, to: quotas.length }
}

function charge(store: MemoryStore, quotas: Quota[], subjects: (string | null)[], nowMs = START_MS, cost = 1) {
  const demand = demandOf(quotas, subjects, cost)
  return { admitted: store.charge(demand, nowMs), standings: demand.standings }
}

const one = (store: MemoryStore, quota: Quota, subject: string, nowMs = START_MS): boolean =>
  charge(store, [quota], [subject], nowMs).admitted

function peek(store: MemoryStore, quota: Quota, subject: string, nowMs = START_MS): Standing {
  const demand = demandOf([quota], [subject])
  store.peek(demand, nowMs)
  return demand.standings[0] as Standing
}

const left = (store: MemoryStore, quota: Quota, subject: string, nowMs = START_MS) =>
  peek(store, quota, subject, nowMs).remaining

/** Strangers, each charged once. */
function flood(store: MemoryStore, quota: Quota, count: number, nowMs = START_MS, prefix = 'flood') {
  for (let i = 0; i < count; i++) one(store, quota, `${prefix}-${i}`, nowMs)
}

describe.each([
  ['sliding-window', { limit: 5, window: '1m' }],
  ['gcra', { limit: 5, window: '1m', burst: 5 }],
])('the memory store with %s', (_, options) => {
  it('counts each subject of each policy apart', () => {
    const store = createMemoryStore()
    const a = quota('a', options)
    const b = quota('b', options)
    for (let i = 0; i < 5; i++) expect(one(store, a, 'x')).toBe(true)
    expect(one(store, a, 'x')).toBe(false)
    expect(left(store, a, 'y')).toBe(5)
    expect(left(store, b, 'x')).toBe(5)
  })

  it('shares one budget between all that compile the same policy', () => {
    const store = createMemoryStore()
    const admitted = Array.from({ length: 10 }, () => one(store, quota('a', options), 'x'))
    expect(admitted.filter(Boolean)).toHaveLength(5)
  })

  it('charges all or nothing: one policy that refuses leaves the others as they were, a thousand times', () => {
    const store = createMemoryStore()
    const wide = quota('wide', { ...options, limit: 100, ...('burst' in options ? { burst: 100 } : {}) })
    const narrow = quota('narrow', options)
    for (let i = 0; i < 5; i++) charge(store, [wide, narrow], ['x', 'x'])
    for (let i = 0; i < 1000; i++) {
      const { admitted, standings } = charge(store, i % 2 === 0 ? [wide, narrow] : [narrow, wide], ['x', 'x'])
      expect(admitted).toBe(false)
      expect(standings.map((standing) => standing.remaining).sort((p, q) => p - q)).toEqual([0, 95])
      expect(standings.filter((standing) => standing.admitted)).toHaveLength(1)
    }
    expect(left(store, wide, 'x')).toBe(95)
  })

  it('takes in no stranger whom another policy refuses', () => {
    const store = createMemoryStore()
    const narrow = quota('narrow', options)
    for (let i = 0; i < 5; i++) one(store, narrow, 'x')
    for (let i = 0; i < 100; i++) charge(store, [narrow, quota('wide', options)], ['x', `made-up-${i}`])
    expect(store.subjects).toBe(1)
  })

  it('passes over policies that do not apply', () => {
    const store = createMemoryStore()
    const quotas = [quota('a', options), quota('b', options)]
    const { admitted, standings } = charge(store, quotas, [null, 'x'])
    expect(admitted).toBe(true)
    expect(standings[1]).toMatchObject({ admitted: true, remaining: 4 })
    expect(store.subjects).toBe(1)
  })

  it('peeks without charging or taking anybody in', () => {
    const store = createMemoryStore()
    const a = quota('a', options)
    one(store, a, 'x')
    for (let i = 0; i < 100; i++) expect(left(store, a, 'x')).toBe(4)
    expect(peek(store, a, 'stranger')).toEqual({ ...blankStanding(), remaining: 5 })
    expect(store.subjects).toBe(1)
  })

  it('keeps the state of a known client while 200,000 strangers come, and holds no more than its bound', () => {
    const store = createMemoryStore()
    const a = quota('a', options)
    for (let i = 0; i < 3; i++) one(store, a, 'known')
    flood(store, a, 200_000)
    expect(left(store, a, 'known')).toBe(2)
    expect(one(store, a, 'known')).toBe(true)
    expect(left(store, a, 'known')).toBe(1)
    expect(store.subjects).toBe(MAX_SUBJECTS)
  })

  it('tells how often strangers were counted together', () => {
    const store = createMemoryStore()
    const [a, b] = [quota('a', options), quota('b', options)]
    flood(store, a, MAX_SUBJECTS)
    expect(store.overflowed).toBe(0)
    for (let i = 0; i < 3; i++) charge(store, [a, b], ['late', 'late'])
    expect(store.overflowed).toBe(6)
    one(store, a, 'flood-1')
    peek(store, a, 'late')
    expect(store.overflowed).toBe(6)
  })

  it('never gives strangers beyond the bound more than their limit', () => {
    const store = createMemoryStore()
    const a = quota('a', options)
    flood(store, a, MAX_SUBJECTS)
    const admitted = Array.from({ length: 50 }, () => one(store, a, 'late')).filter(Boolean).length
    expect(admitted).toBeGreaterThanOrEqual(1)
    expect(admitted).toBeLessThanOrEqual(5)
    const { remaining, waitMs } = peek(store, a, 'late')
    expect(remaining).toBe(0)
    expect(one(store, a, 'late', START_MS + waitMs - 1)).toBe(false)
    expect(one(store, a, 'late', START_MS + waitMs)).toBe(true)
  })

  it('lets entries go once their state has expired, a few at a time as strangers come', () => {
    const store = createMemoryStore()
    const a = quota('a', options)
    flood(store, a, 20_000)
    const laterMs = START_MS + 66_000
    flood(store, a, 1, laterMs, 'later')
    expect(store.subjects).toBeGreaterThan(19_990)
    flood(store, a, 10_000, laterMs, 'later')
    expect(store.subjects).toBeLessThan(14_000)
    expect(store.subjects).toBeGreaterThanOrEqual(10_000)
    expect(left(store, a, 'later-0', laterMs)).toBe(3)
  })

  it('never sweeps a client whose use still counts', () => {
    const store = createMemoryStore()
    const a = quota('a', options)
    for (let i = 0; i < 5; i++) one(store, a, 'known')
    const { waitMs } = peek(store, a, 'known')
    flood(store, a, 1000, START_MS + waitMs - 1)
    expect(one(store, a, 'known', START_MS + waitMs - 1)).toBe(false)
  })

  it('takes strangers in again once the crowd has gone', () => {
    const store = createMemoryStore()
    const a = quota('a', options)
    flood(store, a, MAX_SUBJECTS + 1000)
    const laterMs = START_MS + 600_000
    flood(store, a, 100, laterMs, 'sweeping')
    for (let i = 0; i < 5; i++) expect(one(store, a, 'late', laterMs)).toBe(true)
    expect(one(store, a, 'late', laterMs)).toBe(false)
  })

  it('keeps the count over a reload that changes the limit', () => {
    const store = createMemoryStore()
    for (let i = 0; i < 4; i++) one(store, quota('a', options), 'x')
    const limits = (limit: number) => ({ ...options, limit, ...('burst' in options ? { burst: limit } : {}) })
    expect(left(store, quota('a', limits(50)), 'x')).toBe(46)
    expect(left(store, quota('a', limits(2)), 'x')).toBe(0)
    expect(left(store, quota('a', options), 'x')).toBe(1)
  })

  it('starts afresh after a reload that changes what a count means', () => {
    const store = createMemoryStore()
    const before = quota('a', options)
    for (let i = 0; i < 5; i++) one(store, before, 'x')
    const { burst: _, ...withoutBurst } = { burst: 5, ...options }
    const otherAlgorithm = 'burst' in options ? withoutBurst : { ...options, burst: 5 }
    for (const changed of [{ ...options, window: '2m' }, { ...options, key: 'host' }, otherAlgorithm]) {
      expect(left(store, quota('a', changed), 'x')).toBe(5)
    }
    expect(left(store, before, 'x')).toBe(0)
  })

  it('keeps the count while other policies come and go', () => {
    const store = createMemoryStore()
    const day = quota('day', { ...options, window: '1d' })
    for (let i = 0; i < 3; i++) one(store, day, 'x')
    for (let reload = 0; reload < 50; reload++)
      flood(store, quota(`other-${reload}`, options), 100, START_MS + reload * 120_000)
    expect(left(store, day, 'x', START_MS)).toBe(2)
    // Sweeping let all but the last two or three generations go.
    expect(store.subjects).toBeLessThan(400)
  })
})

describe('policies that differ in one store', () => {
  const sliding = quota('sliding', { limit: 5, window: '1m' })
  const steady = quota('steady', { limit: 5, window: '1m', burst: 5 })
  const daily = quota('daily', { limit: 5, window: '1d' })

  it('have an entry each for the same subject, however many they are', () => {
    const store = createMemoryStore()
    for (let i = 0; i < 100; i++) one(store, quota(`policy-${i}`, { limit: 5, window: '1m' }), 'x')
    expect(store.subjects).toBe(100)
  })

  it('tell a stranger each their whole limit', () => {
    const store = createMemoryStore()
    expect([sliding, steady, sliding].map((one) => left(store, one, 'stranger'))).toEqual([5, 5, 5])
  })

  it.each([
    { gone: sliding, come: steady },
    { gone: steady, come: sliding },
    { gone: sliding, come: daily },
  ])('leave nothing of $gone.id in entries that $come.id takes over', ({ gone, come }) => {
    const store = createMemoryStore()
    flood(store, gone, 1000)
    const laterMs = START_MS + 120_000
    flood(store, gone, 500, laterMs, 'sweeping')
    for (let i = 0; i < 500; i++) {
      one(store, come, `x-${i}`, laterMs)
      expect(left(store, come, `x-${i}`, laterMs)).toBe(4)
    }
    expect(store.subjects).toBeLessThanOrEqual(1010)
  })
})

describe('a reload that slows a policy down', () => {
  it('keeps what was used for as long as the new rate takes', () => {
    const store = createMemoryStore()
    const fast = quota('a', { limit: 600, window: '1m', burst: 5 })
    const slow = quota('a', { limit: 1, window: '1m', burst: 5 })
    one(store, fast, 'x')
    for (let i = 0; i < 4; i++) one(store, slow, 'x')
    flood(store, slow, 1000, START_MS + 5000)
    expect(one(store, slow, 'x', START_MS + 5000)).toBe(false)
  })
})

describe('a request that needs more entries than there are', () => {
  it('gets those that there are, and shared counters beyond', () => {
    const store = createMemoryStore()
    const a = quota('a', { limit: 4, window: '1m' })
    const b = quota('b', { limit: 4, window: '1m' })
    flood(store, a, MAX_SUBJECTS - 1)
    const remaining = Array.from({ length: 4 }, () =>
      charge(store, [a, b], ['x', 'x']).standings.map((standing) => standing.remaining),
    )
    expect(store.subjects).toBe(MAX_SUBJECTS)
    expect(remaining.slice(0, 3)).toEqual([
      [3, 2],
      [2, 1],
      [1, 0],
    ])
  })
})

describe('a stranger who moves between the shared counters and an entry', () => {
  it.each([1, 2, 3, 5, 60])('never has more than a limit of %i in any window', (limit) => {
    const store = createMemoryStore()
    const a = quota('a', { limit, window: '10s' })
    flood(store, a, MAX_SUBJECTS)
    const admittedMs: number[] = []
    // Hammered through the whole life of the crowd, while newcomers drive the sweep and find the room it makes.
    for (let ms = 0; ms < 60_000; ms += 50) {
      const nowMs = START_MS + ms
      if (one(store, a, 'hammer', nowMs)) admittedMs.push(nowMs)
      if (one(store, a, 'hammer', nowMs)) admittedMs.push(nowMs)
      flood(store, a, 10, nowMs, `new-${ms}`)
    }
    const worst = Math.max(...admittedMs.map((t) => admittedMs.filter((ms) => ms > t - 10_000 && ms <= t).length))
    expect(store.subjects).toBeLessThan(MAX_SUBJECTS)
    expect(worst).toBeLessThanOrEqual(limit)
    expect(worst).toBeGreaterThanOrEqual(Math.ceil(limit / 2))
  })

  it('has no second budget when its shared counter has just run empty', () => {
    const store = createMemoryStore()
    const a = quota('a', { limit: 60, window: '10s' })
    flood(store, a, MAX_SUBJECTS)
    const burst = (count: number, nowMs: number) =>
      Array.from({ length: count }, () => one(store, a, 'late', nowMs)).filter(Boolean).length
    const first = burst(29, START_MS + 5000)
    expect(first).toBe(29)
    // 29 units drain in 9.7 s; by then the crowd has gone, and newcomers have made room.
    flood(store, a, 1000, START_MS + 14_900, 'new')
    expect(store.subjects).toBeLessThan(MAX_SUBJECTS)
    expect(first + burst(100, START_MS + 14_900)).toBeLessThanOrEqual(60)
  })
})
