// The demo with a hundred users at once: straight at its backends, and through the gateway of `npm start`, but built as it is
// in the package and the image. It begins with nothing stored. Both at the same time, each with backends of its own: who asks
// these directly mostly waits.
//
// Users who never pause wait all the time, so their mean is their number by the requests/s, whatever stands between them and
// the backends. At first they wait for the AI: as soon as each has met a deck that nobody has asked for yet, all stand still
// until the first of these is made, and again until the last is. That costs the same in a run of any length, so the longer
// the run, the smaller the mean. The times of what came from the cache are told apart, and how much of theirs the rest took.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startAiBackend } from '../../src/demo/ai.ts'
import { startPresentationBackend } from '../../src/demo/presentation.ts'
import { CHECKOUT, buildInto, startGateway } from '../peers/weirgate.ts'
import type { Check, Row, Scenario } from '../scenario.ts'
import { type Asked, KINDS, type Kind, runUsers } from '../users.ts'

const USERS = 100
const RUN_MS = 60_000
/** The same proportion. */
const QUICK = { runMs: 12_000, deckMs: 2000 }
const SETTLES_MS = 1000
/** What a hand-made optimisation of the same service reached: to be exceeded. */
const HIT_RATES: Readonly<Record<Kind, number>> = { presentations: 0.68, templates: 0.85, themes: 0.9, ai: 0.45 }

export const hundredUsers: Scenario = {
  title: '100 users on the demo backends for a minute, 90 % database and 10 % AI, without a pause, from an empty cache',
  async run(bench) {
    const runMs = bench.quick ? QUICK.runMs : RUN_MS
    const backends = async () => {
      const [presentation, ai] = await Promise.all([
        startPresentationBackend(),
        startAiBackend(bench.quick ? { delayMs: QUICK.deckMs } : {}),
      ])
      return {
        presentation,
        ai,
        close: () => Promise.all([presentation.close(), ai.close()]),
        queries: () => presentation.queries() + ai.calls(),
      }
    }
    const [bare, behind] = await Promise.all([backends(), backends()])
    const gateway = await startGateway({
      root: buildInto(bench.place().folder),
      yaml: readFileSync(join(CHECKOUT, 'config/demo.yaml'), 'utf8'),
      place: bench.place(),
      env: {
        PORT: '0',
        ADMIN_PORT: '0',
        LOG_LEVEL: 'info',
        RATE_LIMIT_PER_MINUTE: '1000000000',
        DEMO_PRESENTATION_URL: behind.presentation.url,
        DEMO_AI_URL: behind.ai.url,
      },
    })
    try {
      await sleep(SETTLES_MS)
      const idleMib = gateway.residentBytes() / 1024 ** 2
      const cpuMs = gateway.cpuMs()
      const at = (port: number, aiPort = port) => ({ presentations: port, templates: port, themes: port, ai: aiPort })
      const end = sleep(runMs)
      const [direct, through] = await Promise.all([
        runUsers(USERS, end, at(bare.presentation.port, bare.ai.port)),
        runUsers(USERS, end, at(gateway.port)),
      ])
      const cpuUs = ((gateway.cpuMs() - cpuMs) * 1000) / through.length
      const rows = [
        rowOf('direct', direct, runMs, bare.queries()),
        rowOf('weirgate', through, runMs, behind.queries(), {
          cpuUs,
          residentMib: gateway.residentBytes() / 1024 ** 2,
        }),
        { server: 'weirgate, from its cache', noisy: false, figures: timesOf(through.filter(isHit)) },
      ]
      return { rows, checks: checksOf(rows, through, runMs, idleMib) }
    } finally {
      await gateway.close()
      await Promise.all([bare.close(), behind.close()])
    }
  },
}

function rowOf(
  server: string,
  asked: readonly Asked[],
  runMs: number,
  queries: number,
  more: Row['figures'] = {},
): Row {
  return {
    server,
    noisy: false,
    figures: {
      ...more,
      requestsPerSecond: asked.length / (runMs / 1000),
      ...timesOf(asked),
      errors: asked.filter(({ isError }) => isError).length,
      originPerRequest: queries / asked.length,
    },
  }
}

function timesOf(asked: readonly Asked[]): Row['figures'] {
  const times = Float64Array.from(asked, ({ tookMs }) => tookMs).sort()
  return {
    meanMs: waitedMs(asked) / times.length,
    p50Ms: percentile(times, 50),
    p95Ms: percentile(times, 95),
    p99Ms: percentile(times, 99),
    maxMs: times.at(-1) ?? Number.NaN,
  }
}

function checksOf([direct, through]: readonly Row[], asked: readonly Asked[], runMs: number, idleMib: number): Check[] {
  const check = (what: string, value: number, goal: Check['goal'] = null): Check => ({
    what,
    value,
    goal,
    guarded: false,
  })
  const figure = (name: keyof Row['figures']): number => through?.figures[name] ?? Number.NaN
  const hits = asked.filter(isHit)
  const hitRates = KINDS.map((kind) => {
    const ofKind = (all: readonly Asked[]): number => all.filter((one) => one.kind === kind).length
    return check(`hit rate, ${kind}`, ofKind(hits) / ofKind(asked), { atLeast: HIT_RATES[kind] })
  })
  const insideMs = Float64Array.from(
    hits.filter(({ kind }) => kind === 'ai'),
    (hit) => hit.insideMs,
  ).sort()
  return [
    check('times the requests/s of direct', figure('requestsPerSecond') / (direct?.figures.requestsPerSecond ?? 1), {
      atLeast: 100,
    }),
    check('mean, ms', figure('meanMs'), { atMost: 10 }),
    check('p95, ms', figure('p95Ms'), { atMost: 20 }),
    check('seconds', runMs / 1000),
    check('part of their time that users waited for first answers', 1 - waitedMs(hits) / waitedMs(asked)),
    check('errors', figure('errors'), { atMost: 0 }),
    ...hitRates,
    check('AI answer from the cache, ms in the gateway, p99', percentile(insideMs, 99), { atMost: 1 }),
    check('backend queries per request', figure('originPerRequest'), { atMost: 0.1 }),
    // 100 MB.
    check('resident before the first request, MiB', idleMib, { atMost: 95 }),
  ]
}

const isHit = ({ cache }: Asked): boolean => cache === 'HIT'

const waitedMs = (asked: readonly Asked[]): number => asked.reduce((sum, { tookMs }) => sum + tookMs, 0)

/** Of sorted values. */
const percentile = (sorted: Float64Array, percent: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))] ?? Number.NaN
