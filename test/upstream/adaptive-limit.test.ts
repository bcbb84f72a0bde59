// The limit that adapts, against simulated servers: so many workers, a line before them, and times as they may be.

import { describe, expect, it } from 'vitest'
import { AdaptiveLimit, NO_COHORT } from '../../src/upstream/adaptive-limit.ts'

/** From 0 to below 1, the same numbers in each run (mulberry32). */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Milliseconds of work that a request takes. */
type Work = (random: () => number) => number

const always =
  (ms: number): Work =>
  () =>
    ms
/** Log-normal: of two thirds, the time differs by no more than a factor of e^sigma from the median. */
const around =
  (medianMs: number, sigma: number): Work =>
  (random) =>
    medianMs * Math.exp(sigma * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random()))
const exponential =
  (meanMs: number): Work =>
  (random) =>
    -meanMs * Math.log(1 - random())

interface Server {
  readonly work: (nowMs: number) => Work
  readonly workers: (nowMs: number) => number
  readonly fails?: (nowMs: number) => boolean
  /** Requests that want to be there; without it, more than may. */
  readonly demand?: number
  readonly min?: number
  readonly max?: number
  readonly seed?: number
}

interface Run {
  /** Answers so far. */
  readonly answers: number
  /** Average limit from one time to another. */
  average(fromMs: number, toMs: number): number
  range(fromMs: number, toMs: number): readonly [min: number, max: number]
}

function simulate(server: Server, untilMs: number): Run {
  const { workers, work, fails = () => false, demand = Infinity, min = 3, max = 400, seed = 1 } = server
  const random = randomOf(seed)
  const limit = new AdaptiveLimit({ min, max })
  const waiting: { begunMs: number; cohort: number }[] = []
  const working: { begunMs: number; cohort: number; endsMs: number }[] = []
  const steps: { atMs: number; limit: number }[] = []
  let answers = 0
  let nowMs = 0
  while (nowMs < untilMs) {
    while (waiting.length + working.length < Math.min(limit.limit, demand)) {
      const taken = waiting.length + working.length + 1
      waiting.push({ begunMs: nowMs, cohort: limit.begin(taken, nowMs) })
    }
    while (working.length < workers(nowMs)) {
      const next = waiting.shift()
      if (next === undefined) break
      working.push({ ...next, endsMs: nowMs + work(nowMs)(random) })
    }
    if (steps.at(-1)?.limit !== limit.limit) steps.push({ atMs: nowMs, limit: limit.limit })
    const ended = working.reduce((a, b) => (b.endsMs < a.endsMs ? b : a))
    working.splice(working.indexOf(ended), 1)
    nowMs = ended.endsMs
    answers++
    limit.end(ended.cohort, fails(nowMs) ? 'failed' : nowMs - ended.begunMs, nowMs)
  }
  const within = (fromMs: number, toMs: number) =>
    steps.flatMap((step, i) => {
      const forMs = Math.min(toMs, steps[i + 1]?.atMs ?? untilMs) - Math.max(fromMs, step.atMs)
      return forMs > 0 ? [{ forMs, limit: step.limit }] : []
    })
  return {
    answers,
    average: (fromMs, toMs) =>
      within(fromMs, toMs).reduce((sum, { forMs, limit: at }) => sum + forMs * at, 0) / (toMs - fromMs),
    range(fromMs, toMs) {
      const all = within(fromMs, toMs).map(({ limit: at }) => at)
      return [Math.min(...all), Math.max(...all)]
    },
  }
}

const MINUTE_MS = 60_000

describe('a server with so many workers', () => {
  it.each<[string, Work, number, number]>([
    ['all the same', always(100), 100, 1.4],
    ['alike', around(100, 0.3), 105, 1.5],
    ['very different', around(100, 1), 165, 1.5],
    ['as of chance', exponential(100), 100, 1.6],
  ])('gets what it can work on, and not much more, of requests that are %s', (_how, work, meanMs, most) => {
    for (const workers of [20, 80]) {
      for (const seed of [1, 2, 3, 4]) {
        const run = simulate({ workers: () => workers, work: () => work, seed }, 5 * MINUTE_MS)
        const average = run.average(MINUTE_MS, 5 * MINUTE_MS) / workers
        expect(average, `${workers} workers, seed ${seed}`).toBeGreaterThan(0.9)
        expect(average, `${workers} workers, seed ${seed}`).toBeLessThan(most)
        const possible = (workers * 5 * MINUTE_MS) / meanMs
        expect(run.answers / possible, `${workers} workers, seed ${seed}`).toBeGreaterThan(0.85)
      }
    }
  })

  it.each([1, 4])('gets enough where they are few: %d', (workers) => {
    for (const seed of [1, 2, 3, 4]) {
      const run = simulate({ workers: () => workers, work: () => around(100, 0.5), seed }, 5 * MINUTE_MS)
      expect(run.average(MINUTE_MS, 5 * MINUTE_MS)).toBeLessThan(24)
      expect(run.answers / ((workers * 5 * MINUTE_MS) / 113)).toBeGreaterThan(0.9)
    }
  })

  it('gets less while it has fewer, and more again afterwards', () => {
    const workers = (nowMs: number) => (nowMs > 2 * MINUTE_MS && nowMs < 4 * MINUTE_MS ? 5 : 40)
    for (const seed of [1, 2, 3, 4]) {
      const run = simulate({ workers, work: () => around(100, 0.3), seed }, 6 * MINUTE_MS)
      const [before, meanwhile, afterwards] = [1, 3, 5].map((n) => run.average(n * MINUTE_MS, (n + 1) * MINUTE_MS))
      expect(before).toBeGreaterThan(40)
      expect(meanwhile).toBeLessThan(20)
      expect(afterwards).toBeGreaterThan(36)
    }
  })

  it.each([
    ['slower', 1, 3],
    ['faster', 3, 1],
  ])('gets as much where its work has become %s', (_how, before, afterwards) => {
    const work = (nowMs: number) => around(100 * (nowMs < 2 * MINUTE_MS ? before : afterwards), 0.3)
    for (const seed of [1, 2, 3, 4]) {
      const run = simulate({ workers: () => 20, work, seed }, 6 * MINUTE_MS)
      expect(run.average(3 * MINUTE_MS, 6 * MINUTE_MS)).toBeGreaterThan(18)
      expect(run.average(3 * MINUTE_MS, 6 * MINUTE_MS)).toBeLessThan(40)
    }
  })
})

describe('a server that bears whatever comes', () => {
  it('gets as many as there may be, and keeps them though its answers differ', () => {
    for (const seed of [1, 2, 3, 4]) {
      const run = simulate({ workers: () => Infinity, work: () => around(10_000, 0.7), max: 32, seed }, 60 * MINUTE_MS)
      expect(run.range(2 * MINUTE_MS, 3 * MINUTE_MS)[1]).toBeGreaterThan(24)
      expect(run.average(3 * MINUTE_MS, 60 * MINUTE_MS)).toBeGreaterThan(26)
    }
  })

  it('is not given more than it is asked for', () => {
    const run = simulate({ workers: () => Infinity, work: () => around(100, 0.5), demand: 10 }, 3 * MINUTE_MS)
    expect(run.range(MINUTE_MS, 3 * MINUTE_MS)[1]).toBeLessThan(20)
  })
})

describe('a server that fails', () => {
  it('gets the least at last, and soon enough again when it is well', () => {
    const fails = (nowMs: number) => nowMs > MINUTE_MS && nowMs < 1.2 * MINUTE_MS
    const run = simulate({ workers: () => 20, work: () => always(100), fails }, 2 * MINUTE_MS)
    expect(run.range(1.1 * MINUTE_MS, 1.2 * MINUTE_MS)).toEqual([3, 3])
    expect(run.average(1.3 * MINUTE_MS, 2 * MINUTE_MS)).toBeGreaterThan(20)
  })

  it('hardly gets less for one failure in a hundred', () => {
    const random = randomOf(7)
    const run = simulate({ workers: () => 20, work: () => always(100), fails: () => random() < 0.01 }, 3 * MINUTE_MS)
    expect(run.average(MINUTE_MS, 3 * MINUTE_MS)).toBeGreaterThan(20)
  })
})

describe('a limit that adapts', () => {
  it('begins with the least, and never leaves its range', () => {
    const limit = new AdaptiveLimit({ min: 5, max: 7 })
    expect(limit.limit).toBe(5)
    const run = simulate({ workers: () => 1, work: () => exponential(10), min: 5, max: 7 }, MINUTE_MS)
    expect(run.range(0, MINUTE_MS)).toEqual([5, 7])
  })

  it('waits for nobody: not for who hangs, nor for who has gone', () => {
    const limit = new AdaptiveLimit({ min: 8, max: 100 })
    const cohorts = Array.from({ length: 8 }, (_, i) => limit.begin(i + 1, i))
    const last = limit.begin(8, 200)
    limit.end(last, 'gone', 201)
    for (const cohort of cohorts.slice(0, 6)) limit.end(cohort, 100, 300)
    expect(limit.limit).toBe(16)
    // Too late for this one.
    for (const cohort of cohorts.slice(6)) limit.end(cohort, 10_000, 10_300)
    expect(limit.limit).toBe(16)
  })

  it('judges what has ended too soon as soon as another comes', () => {
    const limit = new AdaptiveLimit({ min: 2, max: 100 })
    const cohorts = Array.from({ length: 8 }, () => limit.begin(2, 0))
    for (const cohort of cohorts) limit.end(cohort, 5, 5)
    expect(limit.limit).toBe(2)
    limit.begin(1, 200)
    expect(limit.limit).toBe(4)
  })

  it('watches no more of a cohort than tell enough', () => {
    const limit = new AdaptiveLimit({ min: 1, max: 1 })
    const cohorts = Array.from({ length: 8 }, () => limit.begin(1, 0))
    expect(limit.begin(1, 150)).toBe(NO_COHORT)
    for (const cohort of cohorts) limit.end(cohort, 10, 160)
    expect(limit.begin(1, 161)).not.toBe(NO_COHORT)
  })
})
