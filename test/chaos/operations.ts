// What an operator does to a gateway that is at work: other tables, good and bad, and its end.

import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { request } from '../support/client.ts'
import type { Sample } from './load.ts'
import { type Experiment, type World, baselineOf, quantile, shown, timeUntil } from './rig.ts'
import { END } from './stamp.ts'

const HOURLY = {
  limits: '  hourly: {limit: 100, window: 1h, key: header:x-client}',
  routes: '  - {path: /hourly/*, upstream: calm, limits: [hourly]}',
}
const isFailed = ({ kind, status }: Sample): boolean => status !== 200 && !(kind === 'greedy' && status === 429)

const reloads: Experiment = {
  name: 'C20',
  title: 'the table is replaced, again and again, by good ones and bad ones',
  async run(world) {
    const setup = await world.start(HOURLY)
    const { gateway, table } = setup
    const baseline = await baselineOf(gateway)
    const load = world.startLoad(gateway)
    await world.phase(3000, 30_000)
    const spend = async (): Promise<number> => {
      const { headers } = await request(`${gateway.url}/hourly/x`, { headers: { 'X-Client': 'one' } })
      return Number(headers['x-ratelimit-remaining'])
    }
    for (let i = 0; i < 9; i++) await spend()
    const remaining = await spend()

    const adminMs: number[] = []
    const fileMs: number[] = []
    const wrong: string[] = []
    const rounds = world.isLong ? 50 : 12
    // Not by the log, whose lines leave once a second.
    const loadedAt = async (): Promise<string> =>
      (JSON.parse(await gateway.ask('/health')) as { config: { loaded_at: string } }).config.loaded_at
    for (let round = 0; round < rounds; round++) {
      // Other connections to the upstream each time, so that those before have to go.
      const before = await loadedAt()
      gateway.write(table({ app: `connections: ${100 + 2 * round}` }))
      fileMs.push(await timeUntil(async () => (await loadedAt()) !== before, 2))
      gateway.write(table({ app: `connections: ${101 + 2 * round}` }))
      const fromMs = performance.now()
      const { ok, text } = await gateway.reload()
      adminMs.push(performance.now() - fromMs)
      if (!ok) wrong.push(`refused: ${text}`)
      gateway.write(table({ app: 'connections: many' }))
      const refused = await gateway.reload()
      if (refused.ok || !/weirgate\.yaml:\d+:\d+ upstreams\.app\.connections/.test(refused.text))
        wrong.push(refused.text)
      if (world.isLong) await sleep(200)
    }
    world.tell(
      `${2 * rounds} good tables are taken, ${rounds} bad ones refused with their place`,
      wrong[0] ?? 'as promised',
      wrong.length === 0,
    )
    world.tellTime('by the admin port, in force after, p99', quantile(adminMs, 0.99), 250)
    world.tellTime('by the file, in force after, p99', quantile(fileMs, 0.99), 250)
    gateway.write(table())
    await gateway.reload()
    const endMs = performance.now()
    await world.phase(2000, 30_000)
    const left = (await spend()) - remaining + 1
    world.tell('counters go on', left === 0 ? 'as before' : `off by ${left}`, left === 0)
    await load.stop()
    const failed = load.samples.filter(isFailed)
    world.tell('requests beside it: none fails', `${failed.length} of ${load.samples.length}`, failed.length === 0)
    const warm = load.between(endMs).filter(({ kind }) => kind === 'warm')
    const misses = warm.filter(({ cache }) => cache !== 'HIT').length
    world.tell('what is stored stays', `${misses} misses of ${warm.length}`, misses === 0 && warm.length > 0)
    await world.invariants(setup, load, baseline)
  },
}

const ending: Experiment = {
  name: 'C21',
  title: 'SIGTERM while it is at work, twice, and with a stream that does not end',
  async run(world) {
    await endUnderLoad(world)
    await endTwice(world)
    await endWithoutEnd(world)
  },
}

async function endUnderLoad(world: World): Promise<void> {
  const setup = await world.start()
  const { gateway } = setup
  const baseline = await baselineOf(gateway)
  const load = world.startLoad(gateway)
  await world.phase(2000, 30_000)
  const streamMs = world.isLong ? 5000 : 2500
  const streams = Array.from({ length: 30 }, (_, i) => stream(`${gateway.url}/stream/own${i}?ms=${streamMs}`))
  await sleep(300)
  const termMs = performance.now()
  gateway.kill('SIGTERM')
  const isReady = async () => (await request(`${gateway.url}/health`).catch(() => null))?.status === 200
  world.tellTime('not ready after', await timeUntil(async () => !(await isReady()), 5), 100)
  await sleep(700)
  await load.stop()
  const ends = await Promise.all(streams)
  const { code, atMs } = await gateway.exit
  const cut = ends.filter(({ isWhole }) => !isWhole).length
  world.tell(`streams of ${shown(streamMs)} are cut: none`, `${cut} of ${ends.length}`, cut === 0)
  const begun = load.between(0, termMs).filter((sample) => isFailed(sample) && !isTurnedAway(sample, termMs))
  world.tell(
    'requests before it fail: none',
    `${begun.length} of ${load.between(0, termMs).length}`,
    begun.length === 0,
  )
  const after = load.between(termMs)
  // What is sent on a kept connection while its end is on the way is lost (RFC 9112 §9.3.1), the more so by a late client.
  const reset = after.filter((sample) => isFailed(sample) && !isTurnedAway(sample, termMs))
  const why = [...new Set(reset.map(({ failure, status }) => failure ?? String(status)))].join(' ')
  world.tell(
    'requests after it: answered, or not taken',
    `${reset.length} broken off of ${after.length} ${why}`,
    world.timed(reset.length === 0),
  )
  const answered = after.filter(({ status, atMs: plannedMs }) => status !== 0 && plannedMs > termMs + 100)
  const staying = answered.filter(({ closes }) => !closes).length
  world.tell('answers after it say Connection: close', `${staying} of ${answered.length} do not`, staying === 0)
  const longestMs = Math.max(...ends.map((end) => end.endedMs), ...load.samples.map((each) => each.atMs + each.tookMs))
  world.tell('exit 0', String(code), code === 0)
  world.tellTime('exit after the last answer', atMs - longestMs, 1000)
  await world.invariants(setup, load, baseline, true)
}

/** Whoever comes too late meets a closed door. */
const isTurnedAway = ({ failure, atMs, tookMs }: Sample, termMs: number): boolean =>
  failure === 'ECONNREFUSED' && atMs + tookMs > termMs

async function endTwice(world: World): Promise<void> {
  const { gateway } = await world.start()
  const cut = stream(`${gateway.url}/stream/long?ms=60000`)
  await sleep(300)
  gateway.kill('SIGTERM')
  await sleep(300)
  const secondMs = performance.now()
  gateway.kill('SIGTERM')
  const { atMs } = await gateway.exit
  world.tellTime('a second signal ends it after', atMs - secondMs, 200)
  world.tell('whoever was still answered sees a break', String(!(await cut).isWhole), !(await cut).isWhole)
}

async function endWithoutEnd(world: World): Promise<void> {
  const drainMs = world.isLong ? 30_000 : 2000
  const { gateway } = await world.start({ listen: `, drain: ${drainMs}ms` })
  const cut = stream(`${gateway.url}/stream/long?ms=120000`)
  await sleep(300)
  const termMs = performance.now()
  gateway.kill('SIGTERM')
  const { atMs, code } = await gateway.exit
  world.tell(`a stream of two minutes: exit 0 at the end of drain`, String(code), code === 0)
  world.tellTime('and', atMs - termMs, drainMs + 1000)
  world.tell('and it is visibly cut', String(!(await cut).isWhole), !(await cut).isWhole)
}

/** Of one request on a connection of its own. */
function stream(url: string): Promise<{ readonly isWhole: boolean; readonly endedMs: number }> {
  return new Promise((resolve) => {
    const done = (isWhole: boolean): void => resolve({ isWhole, endedMs: performance.now() })
    const sent = http.get(url, { agent: false }, (message) => {
      let text = ''
      message.setEncoding('latin1').on('data', (chunk: string) => (text += chunk))
      message.on('error', () => done(false))
      message.on('end', () => done(message.complete && text.endsWith(END)))
    })
    sent.on('error', () => done(false))
  })
}

export const operations: readonly Experiment[] = [reloads, ending]
