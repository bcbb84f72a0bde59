// Upstreams that are killed, that take too long, and that stop in the middle of everything.

import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { request } from '../support/client.ts'
import { createOrigin } from './children.ts'
import type { Sample } from './load.ts'
import {
  FIRST_BYTE_MS,
  type Experiment,
  type Setup,
  type World,
  baselineOf,
  p99,
  percent,
  shown,
  timeUntil,
} from './rig.ts'

const isRead = ({ kind }: Sample): boolean => kind !== 'post' && kind !== 'stream' && kind !== 'greedy'
/** Nobody can make whole what was half sent. */
const isLost = ({ status }: Sample): boolean => status !== 200
/** Of the cache alone, whatever upstreams do. */
const isHit = ({ kind, cache }: Sample): boolean => kind === 'warm' && cache === 'HIT'

async function stateOf({ gateway }: Setup, i: number): Promise<string | undefined> {
  const upstreams = await gateway.upstreams()
  return upstreams.find(({ upstream }) => upstream === 'app')?.targets[i]?.state
}

const timeUntilOut = (setup: Setup, i: number) => timeUntil(async () => (await stateOf(setup, i)) === 'out')
const timeUntilBack = (setup: Setup, i: number) => timeUntil(async () => (await stateOf(setup, i)) !== 'out')

const timeUntilTold = ({ gateway }: Setup, status: string) =>
  timeUntil(async () => (JSON.parse(await gateway.ask('/health')) as { status: string }).status === status)

const killed: Experiment = {
  name: 'C7',
  title: 'one of two targets is killed, then both',
  async run(world) {
    const setup = await world.start()
    const { app, gateway } = setup
    const [one, two] = app
    const baseline = await baselineOf(gateway)
    const load = world.startLoad(gateway)
    await world.phase(4000, 30_000)

    let fromMs = performance.now()
    await one.kill()
    world.tellTime('one killed: out', await timeUntilOut(setup, 0), 1000)
    world.tellTime('one killed: told on /health', await timeUntilTold(setup, 'degraded'), 2000)
    await world.phase(4000, 30_000)
    await one.start()
    world.tellTime('one back: in use again', await timeUntilBack(setup, 0), 5000)
    world.tellTime('one back: told on /health', await timeUntilTold(setup, 'ok'), 2000)
    await sleep(1000)
    const during = load.between(fromMs)
    const reads = during.filter(isRead)
    const lost = reads.filter(isLost).length
    world.tell('one killed: reads that fail <= 0.1 %', percent(lost, reads.length), lost <= reads.length / 1000)
    const posts = during.filter((sample) => sample.kind === 'post' && isLost(sample))
    const odd = posts.filter(({ status }) => status !== 502).length
    world.tell('one killed: POSTs fail by 502 alone', `${posts.length} failed, ${odd} by another`, odd === 0)

    await Promise.all([one.kill(), two.kill()])
    await sleep(200)
    fromMs = performance.now()
    await world.phase(3000, 30_000)
    const dark = load.between(fromMs)
    await Promise.all([one.start(), two.start()])
    const startedMs = performance.now()
    const stored = dark.filter(({ kind }) => kind === 'kept' || kind === 'warm' || kind === 'mine')
    const answered = stored.filter(({ status }) => status === 200)
    const missing = `${stored.length - answered.length} of ${stored.length}`
    world.tell('both killed: what is stored is answered', `${missing} not`, answered.length === stored.length)
    world.tellTime('both killed: p99 of that', p99(answered), 20)
    const others = dark.filter(({ kind }) => kind === 'live' || kind === 'post')
    const isPlain = others.every(({ status }) => status === 502 || status === 503)
    world.tell('both killed: all else is a 502 or 503', `${others.length} requests`, isPlain)
    world.tellTime('both killed: p99 of that', p99(others), 100)
    await Promise.all([timeUntilBack(setup, 0), timeUntilBack(setup, 1)])
    world.tellTime('both back: in use again', performance.now() - startedMs, 5000)
    await world.phase(2000, 30_000)
    await load.stop()
    tellNews(world, setup)
    await world.invariants(setup, load, baseline)
  },
}

/** A log that repeats itself hides what matters. */
function tellNews(world: World, { gateway }: Setup): void {
  const times = new Map<string, number[]>()
  for (const { text, atMs } of gateway.news) times.set(text, [...(times.get(text) ?? []), atMs])
  const closest = [...times].flatMap(([text, at]) =>
    at.slice(1).map((atMs, i) => ({ text, gapMs: atMs - (at[i] as number) })),
  )
  const [worst] = closest.toSorted((a, b) => a.gapMs - b.gapMs)
  const measured = worst === undefined ? 'none twice' : `${shown(worst.gapMs)}: ${worst.text}`
  world.tell('log: two lines alike are 1 s apart or more', measured, worst === undefined || worst.gapMs >= 1000)
}

const slow: Experiment = {
  name: 'C8',
  title: 'an upstream answers after a minute',
  async run(world) {
    const CONNECTIONS = 32
    const crawling = await createOrigin()
    world.closing(() => crawling.kill())
    await crawling.start()
    const timeouts = `timeouts: {firstByte: ${FIRST_BYTE_MS}ms}, concurrency: {max: ${CONNECTIONS}, queue: 32, wait: 1s}`
    const setup = await world.start({
      upstreams: `  slow: {targets: [${crawling.url}], health: {failures: 0}, ${timeouts}}`,
      routes: '  - {path: /slow/*, upstream: slow}',
    })
    const { gateway } = setup
    const baseline = await baselineOf(gateway)
    const load = world.startLoad(gateway)
    await world.phase(3000, 30_000)
    const fromMs = performance.now()
    const before = load.between(0, fromMs)

    const answers: Promise<{ status: number; tookMs: number }>[] = []
    let mostConnections = 0
    const PER_SECOND = 40
    const FOR_MS = world.isLong ? 30_000 : 6000
    for (let sent = 0; performance.now() < fromMs + FOR_MS;) {
      for (; sent < ((performance.now() - fromMs) / 1000) * PER_SECOND; sent++) {
        const sentMs = performance.now()
        const asked = request(`${gateway.url}/slow/${sent}?ms=60000`)
        answers.push(asked.then(({ status }) => ({ status, tookMs: performance.now() - sentMs })))
      }
      await sleep(50)
      const row = (await gateway.upstreams()).find(({ upstream }) => upstream === 'slow')
      mostConnections = Math.max(mostConnections, row?.targets[0]?.open_connections ?? 0)
    }
    const during = load.between(fromMs)
    const ended = await Promise.all(answers)
    world.tellAlike('other routes', before.filter(isRead), during.filter(isRead))
    const failed = during.filter(({ status, kind }) => status !== 200 && kind !== 'greedy').length
    world.tell('other routes: none fails', `${failed} of ${during.length}`, failed === 0)
    world.tell(`connections to it <= ${CONNECTIONS}`, String(mostConnections), mostConnections <= CONNECTIONS)
    const late = ended.filter(({ status }) => status === 504)
    const refused = ended.filter(({ status }) => status !== 504)
    const tooMany = refused.filter(({ status }) => status !== 503).length
    world.tell('beyond them: 503', `${refused.length}, ${tooMany} of another kind`, refused.length > 0 && tooMany === 0)
    const slowest = Math.max(...refused.map(({ tookMs }) => tookMs))
    world.tellTime('after', slowest, 1100)
    // A request that waited in line has its time from then on.
    const [soonest, latest] = [Math.min, Math.max].map((pick) => pick(...late.map(({ tookMs }) => tookMs)))
    const isInTime = (soonest ?? 0) >= FIRST_BYTE_MS - 10 && (latest ?? Infinity) <= FIRST_BYTE_MS + 1500
    const measured = `${late.length}, after ${shown(soonest ?? 0)} to ${shown(latest ?? 0)}`
    world.tell('the others: 504 after firstByte, and the wait before it', measured, world.timed(isInTime))
    await load.stop()
    await world.invariants(setup, load, baseline)
  },
}

const toldOf = ({ kind, status, failure, atMs, tookMs }: Sample, fromMs: number): string =>
  `${kind}: ${failure ?? status}, sent after ${shown(atMs - fromMs)}, ended ${shown(tookMs)} later`

const stopped: Experiment = {
  name: 'C9',
  title: 'an upstream stops: it takes connections, and does nothing',
  async run(world) {
    const deaf = net.createServer({ pauseOnConnect: true })
    await new Promise<void>((resolve) => deaf.listen(0, '127.0.0.1', resolve))
    const sockets = new Set<net.Socket>()
    deaf.on('connection', (socket) => sockets.add(socket))
    world.closing(() => {
      for (const socket of sockets) socket.destroy()
      deaf.close()
    })
    const { port } = deaf.address() as net.AddressInfo
    const setup = await world.start({
      upstreams: `  deaf: {targets: [http://127.0.0.1:${port}], health: {failures: 0}, timeouts: {firstByte: 1s}}`,
      routes: '  - {path: /deaf/*, upstream: deaf}',
    })
    const { app, gateway } = setup
    const baseline = await baselineOf(gateway)
    const load = world.startLoad(gateway)
    await world.phase(3000, 30_000)
    const fromMs = performance.now()
    const hits = load.between(0, fromMs).filter(isHit)
    const asked = Array.from({ length: 20 }, async (_, i) => (await request(`${gateway.url}/deaf/${i}`)).status)

    const stoppedMs = performance.now()
    app[0].signal('SIGSTOP')
    world.tellTime('out, by two checks of 500 ms', await timeUntilOut(setup, 0), 2000)
    const outMs = performance.now()
    await world.phase(4000, 30_000)
    const before = load.between(stoppedMs, outMs)
    const reads = before.filter(({ kind }) => kind !== 'post' && kind !== 'greedy')
    const failed = reads.filter(isLost).length
    world.tell('reads fail until then: none', `${failed} of ${reads.length}`, world.timed(failed === 0))
    const posts = before.filter((sample) => sample.kind === 'post' && isLost(sample))
    const lastMs = Math.max(0, ...posts.map(({ atMs }) => atMs - stoppedMs))
    world.tellTime(`POSTs fail that were sent until then: ${posts.length}, the last one`, lastMs, 1000)
    const after = load.between(outMs).filter(({ kind }) => kind !== 'greedy')
    const lost = after.filter(isLost)
    world.tell('fail after that: none', percent(lost.length, after.length), lost.length === 0)
    for (const each of lost.slice(0, 3)) console.log(`        ${toldOf(each, outMs)}`)
    world.tellAlike('hits', hits, load.between(fromMs).filter(isHit))
    app[0].signal('SIGCONT')
    world.tellTime('in use again when it goes on', await timeUntilBack(setup, 0), 5000)
    await world.phase(2000, 30_000)
    const statuses = new Set(await Promise.all(asked))
    world.tell('one that reads nothing: 504', [...statuses].join(' '), statuses.size === 1 && statuses.has(504))
    const rows = await gateway.upstreams()
    const open = rows.find(({ upstream }) => upstream === 'deaf')?.targets[0]?.open_connections
    world.tell('connections to it that are kept: none', String(open), open === 0)
    await load.stop()
    await world.invariants(setup, load, baseline)
  },
}

export const upstreams: readonly Experiment[] = [killed, slow, stopped]
