// What becomes of limits when the clock of Redis steps back. Its process is given a clock that can be set
// (clock-step.c), so that scripts, expiry and all else go by it as they would by a machine's.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { type RedisServer, startRedis } from '../../test/support/redis.ts'
import { type Asked, admitted, crowd, steady } from './fleet.ts'
import { CLIENTS, type World, exact, shown } from './world.ts'

const SOURCE = fileURLToPath(new URL('clock-step.c', import.meta.url))
const STEP_SECONDS = -10

interface SteppedRedis {
  readonly redis: RedisServer
  /** Seconds that its clock is ahead from now on. */
  step(seconds: number): void
  close(): Promise<void>
}

/** null where this machine cannot: it takes Linux and a C compiler. */
async function startSteppedRedis(): Promise<SteppedRedis | null> {
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-clock-'))
  const [library, file] = [join(folder, 'clock.so'), join(folder, 'step')]
  const step = (seconds: number): void => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(BigInt(seconds))
    // Over the same bytes: they are mapped.
    writeFileSync(file, bytes, { flag: 'r+' })
  }
  writeFileSync(file, Buffer.alloc(8))
  try {
    execFileSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, SOURCE], { stdio: 'ignore' })
  } catch {
    rmSync(folder, { recursive: true })
    return null
  }
  const redis = await startRedis([], null, null, { LD_PRELOAD: library, CLOCK_STEP_FILE: file })
  return {
    redis,
    step,
    async close() {
      await redis.close()
      rmSync(folder, { recursive: true })
    },
  }
}

/** The longest time between two that were admitted, after a moment. */
function longestGapMs(answers: readonly Asked[], sinceMs: number): number {
  const times = answers.filter(({ status }) => status === 200).map(({ sentAtMs }) => sentAtMs)
  const sorted = [...times.filter((time) => time > sinceMs), sinceMs].toSorted((a, b) => a - b)
  return Math.max(...sorted.map((time, i) => time - (sorted[i - 1] ?? time)))
}

/** 8, of Redis' clock. */
export async function redisClock({ start, tell }: World): Promise<void> {
  const stepped = process.platform === 'linux' ? await startSteppedRedis() : null
  if (stepped === null) {
    tell("8. Redis' clock 10 s back", 'not measured: it takes Linux and a C compiler (cc)', 'unsure')
    return
  }
  const { redis } = stepped
  try {
    const { ask, decidedAlone } = await start(
      `
limits:
  steady: {limit: 50, window: 1s, burst: 20}
  sliding: {limit: 100, window: 2s}
  leased: {limit: 200, window: 1s, lease: on}
  hour: {limit: 300, window: 1h}
  day: {limit: 300, window: 1d, align: UTC}
routes:
${['steady', 'sliding', 'leased', 'hour', 'day'].map((name) => `  - {path: /${name}, limits: [${name}]}`).join('\n')}
`,
      { redisUrl: redis.url, deadline: '2s' },
    )
    const long = async (count: number) => [
      await crowd(count, CLIENTS, (number) => ask(number, '/hour')),
      await crowd(count, CLIENTS, (number) => ask(number, '/day')),
    ]
    const before = (await long(200)).map(admitted)
    const FOR_MS = 8000
    const asked = ['steady', 'sliding', 'leased'].map((name) =>
      steady(name === 'leased' ? 500 : 150, FOR_MS, (number) => ask(number, `/${name}`)),
    )
    await sleep(FOR_MS / 2)
    const steppedAtMs = performance.now()
    const clockBefore = Number((await redis.ask('TIME')).split('\n')[0])
    stepped.step(STEP_SECONDS)
    const hasStepped = Number((await redis.ask('TIME')).split('\n')[0]) < clockBefore - 5
    const [gcra, sliding, leased] = (await Promise.all(asked)) as [Asked[], Asked[], Asked[]]
    for (const { name, answers, perSecond, capacity, waitMs } of [
      { name: 'gcra 50/s, burst 20', answers: gcra, perSecond: 50, capacity: 20, waitMs: 400 },
      { name: 'sliding 100 per 2 s', answers: sliding, perSecond: 50, capacity: 100, waitMs: 2000 },
      { name: 'sliding 200/s, leased', answers: leased, perSecond: 200, capacity: 200, waitMs: 1000 },
    ]) {
      const first = answers[0] as Asked
      const spanMs = Math.max(...answers.map(({ sentAtMs, tookMs }) => sentAtMs + tookMs)) - first.sentAtMs
      const most = (perSecond * spanMs) / 1000 + 2 * capacity
      const gapMs = longestGapMs(answers, steppedAtMs)
      const count = admitted(answers)
      const alone = await decidedAlone(
        name.startsWith('gcra') ? 'steady' : name.endsWith('leased') ? 'leased' : 'sliding',
      )
      tell(
        `8. Redis' clock 10 s back, ${name}: nobody blocked longer than ${shown(waitMs + 1000)}, <= ${most.toFixed(0)} admitted`,
        `longest time without ${shown(gapMs)}; ${count} of ${answers.length}; ${alone} decided without Redis`,
        !hasStepped
          ? 'unsure'
          : count > most
            ? exact(false, alone)
            : gapMs <= waitMs + 1000
              ? true
              : gapMs <= waitMs + 2000
                ? 'unsure'
                : false,
      )
    }
    const after = (await long(400)).map(admitted)
    const sums = before.map((count, i) => count + (after[i] as number))
    const alone = (await decidedAlone('hour')) + (await decidedAlone('day'))
    tell(
      "8. Redis' clock 10 s back, 300 an hour (sliding) and a day (fixed), 200 used before: 300 each",
      `${sums.join(', ')} of 600 each; ${alone} decided without Redis`,
      exact(hasStepped && sums.every((sum) => sum === 300), hasStepped ? alone : 1),
    )
  } finally {
    await stepped.close()
  }
}
