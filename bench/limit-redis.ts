// What does a check of three policies against Redis cost? 100 callers at once, 1000 subjects, all admitted: our store,
// rate-limiter-flexible with three limiters, and the INCR + EXPIRE that people write themselves, in turns on the same
// server. Printed: CPU of this process and of Redis per check, checks per second, the ratio to rate-limiter-flexible,
// and for one caller alone what the check takes beside a PING. Medians of the rounds.

import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { RateLimiterRedis } from 'rate-limiter-flexible'
import { createRedisLink } from '../src/core/redis.ts'
import { blankStanding } from '../src/limit/algorithm.ts'
import { limitOptions } from '../src/limit/options.ts'
import { type Demand, type Quota, compileQuota } from '../src/limit/quota.ts'
import { createRedisStore } from '../src/limit/stores/redis.ts'
import { compileSubjectTag } from '../src/limit/subject-tag.ts'

const CALLERS = 100
const SUBJECTS = 1000
const CHECKS = 40_000
const ALONE = 3000
const ROUNDS = 5
const WINDOWS_SECONDS = [1, 60, 86_400]
const LIMIT = 10_000_000

/** Checks one subject. */
type Check = (subject: string) => Promise<unknown>

interface Figures {
  readonly cpuMicros: number
  readonly redisMicros: number
  readonly perSecond: number
  readonly aloneMicros: number
}

export async function benchLimitRedis(): Promise<void> {
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-bench-'))
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--save', '', '--appendonly', 'no']
  const server = spawn('redis-server', args, { stdio: ['ignore', 'pipe', 'inherit'] })
  const closers: (() => unknown)[] = []
  try {
    await ready(server)
    const url = `redis://127.0.0.1:${port}`
    const plain = new Redis(url)
    closers.push(() => plain.disconnect())
    const modes = {
      'PING alone': () => plain.ping(),
      'rate-limiter-flexible x3': flexible(plain),
      'INCR + EXPIRE x3, pipeline': incrementing(plain),
      'ours, 3 x sliding window': await ours(url, {}, closers),
      'ours, 3 x gcra': await ours(url, { burst: String(LIMIT) }, closers),
    } satisfies Record<string, Check>
    const rounds = new Map<string, Figures[]>(Object.keys(modes).map((name) => [name, []]))
    for (let round = 0; round <= ROUNDS; round++) {
      for (const [name, check] of Object.entries(modes)) {
        const figures = await measure(check, plain)
        // The first warms up.
        if (round > 0) rounds.get(name)?.push(figures)
      }
    }
    print(rounds)
  } finally {
    for (const close of closers.toReversed()) await close()
    server.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
}

function print(rounds: ReadonlyMap<string, readonly Figures[]>): void {
  const of = (name: string, pick: (figures: Figures) => number) => median((rounds.get(name) ?? []).map(pick))
  const base = of('rate-limiter-flexible x3', ({ cpuMicros }) => cpuMicros)
  console.log(`3 policies a check, ${CALLERS} callers, ${SUBJECTS} subjects; us per check, medians of ${ROUNDS} rounds`)
  console.log(`${''.padEnd(28)}    cpu  vs rlf  redis cpu  checks/s  one caller, p50`)
  for (const name of rounds.keys()) {
    const cpu = of(name, ({ cpuMicros }) => cpuMicros)
    const cells = [
      cpu.toFixed(2).padStart(7),
      (cpu / base).toFixed(2).padStart(7),
      of(name, ({ redisMicros }) => redisMicros)
        .toFixed(2)
        .padStart(10),
      of(name, ({ perSecond }) => perSecond)
        .toFixed(0)
        .padStart(9),
      of(name, ({ aloneMicros }) => aloneMicros)
        .toFixed(0)
        .padStart(16),
    ]
    console.log(`${name.padEnd(28)}${cells.join(' ')}`)
  }
}

async function ours(url: string, more: object, closers: (() => unknown)[]): Promise<Check> {
  const link = createRedisLink({ url, name: 'bench', deadlineMs: 1000 }, { info() {}, warn() {} })
  const tagOf = compileSubjectTag('bench')
  const setup = { link, namespace: 'bench', tagOf, instance: `bench${closers.length}`, deadlineMs: 1000 }
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

const incrementing =
  (redis: Redis): Check =>
  (subject) => {
    const pipeline = redis.pipeline()
    for (const seconds of WINDOWS_SECONDS) {
      const key = `incr${seconds}:${subject}`
      pipeline.incr(key).expire(key, seconds, 'NX')
    }
    return pipeline.exec()
  }

async function measure(check: Check, redis: Redis): Promise<Figures> {
  let next = 0
  const subjects = Array.from({ length: SUBJECTS }, (_, i) => `192.0.2.${i}`)
  const call = async (): Promise<void> => {
    while (next < CHECKS) await check(subjects[next++ % SUBJECTS] as string)
  }
  const before = { cpu: process.cpuUsage(), redis: await redisMicros(redis), ms: performance.now() }
  await Promise.all(Array.from({ length: CALLERS }, call))
  const { user, system } = process.cpuUsage(before.cpu)
  const passedMs = performance.now() - before.ms
  const spent = (await redisMicros(redis)) - before.redis
  const waits: number[] = []
  for (let i = 0; i < ALONE; i++) {
    const startMs = performance.now()
    await check(subjects[i % SUBJECTS] as string)
    waits.push((performance.now() - startMs) * 1000)
  }
  return {
    cpuMicros: (user + system) / CHECKS,
    redisMicros: spent / CHECKS,
    perSecond: (CHECKS / passedMs) * 1000,
    aloneMicros: median(waits),
  }
}

/** CPU that Redis has used so far. */
async function redisMicros(redis: Redis): Promise<number> {
  const info = await redis.info('cpu')
  const seconds = (name: string): number => Number(new RegExp(`${name}:([\\d.]+)`).exec(info)?.[1])
  return (seconds('used_cpu_user') + seconds('used_cpu_sys')) * 1e6
}

const median = (values: readonly number[]): number => values.toSorted((a, b) => a - b)[values.length >> 1] as number

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

function ready(server: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    let printed = ''
    server.stdout?.setEncoding('utf8').on('data', (text: string) => {
      printed = (printed + text).slice(-2000)
      if (printed.includes('Ready to accept connections')) resolve()
    })
  })
}
