// What does a check of three policies against Redis cost? All admitted, 1000 subjects, in turns on the same server: our
// store, rate-limiter-flexible with three limiters, the INCR + EXPIRE that people write themselves, as a pipeline and one
// command after the other, and a PING, which is what asking costs at all.
//
//   100 callers         CPU of this process and of Redis a check, checks a second, how long a check takes (p50)
//   one caller          how long a check takes, on this machine and over a wire of 2 ms there and back
//
// Medians of the rounds. Below, what is promised of it; a bench tells and fails on nothing.

import { loadavg } from 'node:os'
import { Redis } from 'ioredis'
import { RateLimiterRedis } from 'rate-limiter-flexible'
import { createRedisLink } from '../src/core/redis.ts'
import { blankStanding } from '../src/limit/algorithm.ts'
import { limitOptions } from '../src/limit/options.ts'
import { type Demand, type Quota, compileQuota } from '../src/limit/quota.ts'
import { createRedisStore } from '../src/limit/stores/redis.ts'
import { compileSubjectTag } from '../src/limit/subject-tag.ts'
import { startRedis } from '../test/support/redis.ts'
import { startSlowWire } from './slow-wire.ts'

const CALLERS = 100
const SUBJECTS = Array.from({ length: 1000 }, (_, i) => `192.0.2.${i}`)
/** In each round: for CPU, for the time of a check with all callers, with one, and over the slow wire. */
const CHECKS = { cpu: 30_000, crowd: 5000, alone: 1500, far: 150 }
const ROUNDS = 7
const WIRE_MS = 2
const WINDOWS_SECONDS = [1, 60, 86_400]
const LIMIT = 10_000_000

/** Checks one subject. */
type Check = (subject: string) => Promise<unknown>

/** How checks are made; over the slow wire as well. */
interface Mode {
  readonly near: Check
  readonly far: Check
}

/** Microseconds a check, but for perSecond. */
interface Figures {
  readonly cpu: number
  readonly redis: number
  readonly perSecond: number
  readonly crowd: number
  readonly alone: number
  readonly far: number
}

const PING = 'PING'
const FLEXIBLE = 'rate-limiter-flexible x3'
const SEQUENCE = '6 commands one by one'
const OURS = ['ours, 3 x sliding window', 'ours, 3 x gcra'] as const

export async function benchLimitRedis(): Promise<void> {
  const server = await startRedis()
  const wire = await startSlowWire(server.port, WIRE_MS / 2)
  const closers: (() => unknown)[] = []
  const both = async (compile: (url: string) => Check | Promise<Check>): Promise<Mode> => ({
    near: await compile(server.url),
    far: await compile(`redis://127.0.0.1:${wire.port}`),
  })
  const plainly = (compile: (redis: Redis) => Check): Promise<Mode> =>
    both((url) => {
      const redis = new Redis(url)
      closers.push(() => redis.disconnect())
      return compile(redis)
    })
  try {
    const asked = new Redis(server.url)
    closers.push(() => asked.disconnect())
    const modes: Readonly<Record<string, Mode>> = {
      [PING]: await plainly((redis) => () => redis.ping()),
      [FLEXIBLE]: await plainly(flexible),
      'INCR + EXPIRE x3, pipeline': await plainly(inPipeline),
      [SEQUENCE]: await plainly(inSequence),
      [OURS[0]]: await both((url) => ours(url, {}, closers)),
      [OURS[1]]: await both((url) => ours(url, { burst: String(LIMIT) }, closers)),
    }
    const rounds = new Map<string, Figures[]>(Object.keys(modes).map((name) => [name, []]))
    for (let round = 0; round <= ROUNDS; round++) {
      for (const [name, mode] of Object.entries(modes)) {
        const figures = await measure(mode, asked)
        // The first warms up.
        if (round > 0) rounds.get(name)?.push(figures)
      }
    }
    print(rounds)
  } finally {
    for (const close of closers.toReversed()) await close()
    wire.close()
    await server.close()
  }
}

function print(rounds: ReadonlyMap<string, readonly Figures[]>): void {
  const all = (name: string) => rounds.get(name) as readonly Figures[]
  const of = (name: string, what: keyof Figures) => median(all(name).map((figures) => figures[what]))
  /** Of the same round: what else the machine does changes from one to the next. */
  const beside = (name: string, other: string, what: keyof Figures) =>
    median(all(name).map((figures, round) => figures[what] / (all(other)[round] as Figures)[what]))
  console.log(`3 policies a check, ${SUBJECTS.length} subjects; us a check, medians of ${ROUNDS} rounds`)
  console.log(
    `${''.padEnd(28)}${CALLERS} callers: cpu  vs rlf   redis  vs rlf  checks/s     p50 | one: p50  over ${WIRE_MS} ms`,
  )
  for (const name of rounds.keys()) {
    const cells = [
      of(name, 'cpu').toFixed(2).padStart(16),
      beside(name, FLEXIBLE, 'cpu').toFixed(2).padStart(7),
      of(name, 'redis').toFixed(2).padStart(7),
      beside(name, FLEXIBLE, 'redis').toFixed(2).padStart(7),
      of(name, 'perSecond').toFixed(0).padStart(9),
      of(name, 'crowd').toFixed(0).padStart(7),
      '|',
      of(name, 'alone').toFixed(0).padStart(8),
      of(name, 'far').toFixed(0).padStart(10),
    ]
    console.log(`${name.padEnd(28)}${cells.join(' ')}`)
  }
  for (const name of OURS) {
    console.log(`\n${name}`)
    promised('CPU beside rate-limiter-flexible', beside(name, FLEXIBLE, 'cpu'), '<=', 0.25)
    promised(`over ${WIRE_MS} ms, beside a PING`, beside(name, PING, 'far'), '<=', 1.2)
    promised('6 commands over the same wire, beside it', beside(SEQUENCE, name, 'far'), '>=', 5)
  }
  console.log(`\nload ${loadavg()[0]?.toFixed(1)}`)
}

function promised(what: string, ratio: number, comparison: '<=' | '>=', bound: number): void {
  const isKept = comparison === '<=' ? ratio <= bound : ratio >= bound
  console.log(
    `  ${what.padEnd(42)} ${ratio.toFixed(2)}, promised ${comparison} ${bound}: ${isKept ? 'kept' : 'missed'}`,
  )
}

async function ours(url: string, more: object, closers: (() => unknown)[]): Promise<Check> {
  const link = createRedisLink({ url, name: 'bench', deadlineMs: 1000 }, { info() {}, warn() {} })
  const tagOf = compileSubjectTag('bench')
  // Each has its own records: they are kept by subject.
  const setup = {
    link,
    namespace: `bench${closers.length}`,
    tagOf,
    instance: `bench${closers.length}`,
    deadlineMs: 1000,
  }
  const store = createRedisStore({ ...setup, clock: Date.now })
  closers.push(
    () => link.close(),
    () => store.close(),
  )
  await store.whenReady(5000)
  const quotas = WINDOWS_SECONDS.map((seconds): Quota => {
    const options = { limit: String(LIMIT), window: `${seconds}s`, ...more }
    return compileQuota(`${closers.length} ${seconds}`, limitOptions.parse(options))
  })
  const costs = quotas.map(() => 1)
  return async (subject) => {
    const subjects = quotas.map(() => subject)
    const atMs = quotas.map(() => 0)
    const demand: Demand = { quotas, subjects, costs, standings: quotas.map(blankStanding), atMs, from: 0, to: 3 }
    const admitted = await store.charge(demand, Date.now())
    if (!admitted || demand.standings[0]?.source !== 'redis') throw new Error('not decided by Redis')
  }
}

function flexible(storeClient: Redis): Check {
  const limiters = WINDOWS_SECONDS.map(
    (duration) => new RateLimiterRedis({ storeClient, keyPrefix: `rlf${duration}`, points: LIMIT, duration }),
  )
  return (subject) => Promise.all(limiters.map((limiter) => limiter.consume(subject)))
}

const inPipeline =
  (redis: Redis): Check =>
  (subject) => {
    const pipeline = redis.pipeline()
    for (const seconds of WINDOWS_SECONDS) {
      const key = `incr${seconds}:${subject}`
      pipeline.incr(key).expire(key, seconds, 'NX')
    }
    return pipeline.exec()
  }

const inSequence =
  (redis: Redis): Check =>
  async (subject) => {
    for (const seconds of WINDOWS_SECONDS) {
      const key = `incr${seconds}:${subject}`
      await redis.incr(key)
      await redis.expire(key, seconds, 'NX')
    }
  }

async function measure({ near, far }: Mode, asked: Redis): Promise<Figures> {
  const before = { cpu: process.cpuUsage(), redis: await redisMicros(asked), ms: performance.now() }
  await crowd(near, CHECKS.cpu)
  const { user, system } = process.cpuUsage(before.cpu)
  const passedMs = performance.now() - before.ms
  const redis = (await redisMicros(asked)) - before.redis
  return {
    cpu: (user + system) / CHECKS.cpu,
    redis: redis / CHECKS.cpu,
    perSecond: (CHECKS.cpu / passedMs) * 1000,
    crowd: await timeOf(near, CHECKS.crowd, CALLERS),
    alone: await timeOf(near, CHECKS.alone, 1),
    far: await timeOf(far, CHECKS.far, 1),
  }
}

async function crowd(check: Check, count: number, callers = CALLERS): Promise<void> {
  let next = 0
  const call = async (): Promise<void> => {
    while (next < count) await check(SUBJECTS[next++ % SUBJECTS.length] as string)
  }
  await Promise.all(Array.from({ length: callers }, call))
}

/** p50, microseconds. */
async function timeOf(check: Check, count: number, callers: number): Promise<number> {
  const waits: number[] = []
  const timed: Check = async (subject) => {
    const startMs = performance.now()
    await check(subject)
    waits.push((performance.now() - startMs) * 1000)
  }
  await crowd(timed, count, callers)
  return median(waits)
}

/** CPU that Redis has used so far. */
async function redisMicros(redis: Redis): Promise<number> {
  const info = await redis.info('cpu')
  const seconds = (name: string): number => Number(new RegExp(`${name}:([\\d.]+)`).exec(info)?.[1])
  return (seconds('used_cpu_user') + seconds('used_cpu_sys')) * 1e6
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] as number
