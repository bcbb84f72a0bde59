// Clients that break off, alone and while others wait for the same.

import http from 'node:http'
import net from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Experiment, type World, baselineOf, quantile, timeUntil } from './rig.ts'
import { END, readStamp } from './stamp.ts'

/** How long an upstream takes that nobody waits for any more. */
const LATE_MS = 3000
const MAX_PATIENCE_MS = 100
const HELD = { routes: '  - {path: /held/*, upstream: app, cache: {}}' }

/** What is asked for and left; alone: its request upstream is for nobody else. */
const ABORTED: readonly { readonly isAlone: boolean; readonly text: (id: string) => string }[] = [
  { isAlone: false, text: () => 'GET /warm/1/65536 HTTP/1.1\r\nHost: a\r\n\r\n' },
  { isAlone: true, text: (id) => `GET /live/${id}/100?ms=${LATE_MS} HTTP/1.1\r\nHost: a\r\nX-Id: ${id}\r\n\r\n` },
  { isAlone: true, text: (id) => `GET /stream/${id}?ms=${LATE_MS} HTTP/1.1\r\nHost: a\r\nX-Id: ${id}\r\n\r\n` },
  { isAlone: false, text: (id) => `GET /held/${id}?ms=200 HTTP/1.1\r\nHost: a\r\nX-Id: ${id}\r\n\r\n` },
  {
    isAlone: true,
    text: (id) =>
      `POST /live/${id}/100?ms=${LATE_MS} HTTP/1.1\r\nHost: a\r\nX-Id: ${id}\r\nContent-Length: 4\r\n\r\nbody`,
  },
  {
    isAlone: true,
    text: (id) =>
      `POST /live/${id}/100?ms=${LATE_MS} HTTP/1.1\r\nHost: a\r\nX-Id: ${id}\r\nContent-Length: 100000\r\n\r\nsome of it`,
  },
  { isAlone: false, text: () => 'GET /live/half HTTP/1.1\r\nHos' },
]

const storm: Experiment = {
  name: 'C18',
  title: 'clients break off, at any time and in either way',
  async run(world) {
    const setup = await world.start(HELD)
    const { app, gateway } = setup
    const { seen } = app[0]
    await breakOff(world, gateway.port, 1000, 'w')
    await sleep(MAX_PATIENCE_MS)
    const baseline = await baselineOf(gateway)
    const load = world.startLoad(gateway)
    const count = world.isLong ? 20_000 : 4000
    const leftMs = await breakOff(world, gateway.port, count, 's')
    await sleep(1000)
    // Whatever the upstream saw of them has ended by its client, in time.
    const delays: number[] = []
    let kept = 0
    for (const [id, atMs] of leftMs) {
      const isSeen = seen.posts.has(id) || seen.gets.has(`/live/${id}/100`) || seen.gets.has(`/stream/${id}`)
      const goneMs = seen.gone.get(id)
      if (goneMs !== undefined) delays.push(goneMs - atMs)
      else if (isSeen) kept++
    }
    world.tell('upstream requests for nobody go on: none', `${kept} of ${leftMs.size}`, kept === 0)
    world.tellTime(`the upstream is left (${delays.length} times), p99`, quantile(delays, 0.99), 1000)
    const inFlight = await timeUntil(async () => {
      const row = (await gateway.upstreams()).find(({ upstream }) => upstream === 'app')
      return (row?.targets ?? []).every((target) => target.in_flight < 30)
    }, 50)
    world.tellTime('no request is left behind', inFlight, 5000)
    await load.stop()
    const failed = load.samples.filter(({ status, kind }) => status !== 200 && kind !== 'greedy').length
    world.tell('requests beside it: none fails', `${failed} of ${load.samples.length}`, failed === 0)
    await world.invariants(setup, load, baseline)
  },
}

/** So many, at a steady rate; answers when those broke off that are alone (Date.now()). */
async function breakOff(world: World, port: number, count: number, name: string): Promise<Map<string, number>> {
  const leftMs = new Map<string, number>()
  const ended: Promise<unknown>[] = []
  for (let i = 0; i < count; i++) {
    const { isAlone, text } = ABORTED[i % ABORTED.length] as (typeof ABORTED)[number]
    const id = `${name}${i}`
    const socket = net.connect(port, '127.0.0.1')
    socket.on('error', () => {})
    socket.resume()
    socket.write(text(id))
    // The same in every run, and of no period.
    const patienceMs = (i * 61.803) % MAX_PATIENCE_MS
    setTimeout(() => {
      if (isAlone) leftMs.set(id, Date.now())
      if (i % 2 === 0) socket.destroy()
      else socket.resetAndDestroy()
    }, patienceMs)
    ended.push(new Promise((resolve) => socket.once('close', resolve)))
    if (i % 2 === 1) await sleep(world.isLong ? 5 : 4)
  }
  await Promise.all(ended)
  return leftMs
}

interface Waited {
  readonly end: 'whole' | 'broken' | 'refused'
  readonly isForeign: boolean
}

const WAITERS = 500

const collapse: Experiment = {
  name: 'C19',
  title: `${WAITERS} clients wait for one fetch, whose leader goes or whose upstream dies`,
  async run(world) {
    const setup = await world.start(HELD)
    const { app, gateway } = setup
    const baseline = await baselineOf(gateway)
    const load = world.startLoad(gateway)
    const fetches = (path: string): number => app[0].seen.gets.get(path) ?? 0
    const rounds = world.isLong ? 10 : 2

    let worst: readonly Waited[] = []
    let mostFetches = 0
    for (let round = 0; round < rounds; round++) {
      const path = `/held/leader${round}`
      const leader = http.get(`${gateway.url}${path}?ms=1500`, { agent: false })
      leader.on('error', () => {})
      await timeUntil(() => fetches(path) === 1)
      const waiting = Array.from({ length: WAITERS }, () => wait(gateway.url, path, 1500))
      await sleep(500)
      leader.destroy()
      const waited = await Promise.all(waiting)
      if (wholeOf(waited) <= wholeOf(worst) || worst.length === 0) worst = waited
      mostFetches = Math.max(mostFetches, fetches(path))
    }
    const whole = wholeOf(worst)
    world.tell(`the leader goes: all ${WAITERS} get all of it`, String(whole), whole === WAITERS)
    world.tell('the leader goes: fetches <= 2', String(mostFetches), mostFetches <= 2)

    const cold = '/held/dying'
    const waiting = Array.from({ length: WAITERS }, () => wait(gateway.url, cold, 3000))
    await timeUntil(() => fetches(cold) >= 1)
    await sleep(800)
    await Promise.all(app.map((origin) => origin.kill()))
    const waited = await Promise.all(waiting)
    const looksWhole = wholeOf(waited)
    const broken = waited.filter(({ end }) => end === 'broken').length
    const refused = waited.length - looksWhole - broken
    const told = `${broken} broken off, ${refused} refused, ${looksWhole} whole`
    world.tell('the upstream dies: each is refused or sees a break', told, looksWhole === 0)
    await Promise.all(app.map((origin) => origin.start()))
    await timeUntil(async () => (await gateway.upstreams()).every(({ targets }) => targets.some(isUp)), 50)
    const again = await wait(gateway.url, cold, 10)
    const isFetched = again.end === 'whole' && fetches(cold) >= 2
    world.tell('the upstream dies: nothing of it is stored', isFetched ? 'fetched anew' : again.end, isFetched)
    const foreign = [...worst, ...waited].filter(({ isForeign }) => isForeign).length
    world.tell('answers for another: none', String(foreign), foreign === 0)
    await world.phase(1000, 5000)
    await load.stop()
    await world.invariants(setup, load, baseline)
  },
}

const isUp = ({ state }: { readonly state: string }): boolean => state !== 'out'
const wholeOf = (waited: readonly Waited[]): number => waited.filter(({ end }) => end === 'whole').length

function wait(url: string, path: string, ms: number): Promise<Waited> {
  return new Promise((resolve) => {
    const broken = (): void => resolve({ end: 'broken', isForeign: false })
    const sent = http.get(`${url}${path}?ms=${ms}`, { agent: false }, (message) => {
      let text = ''
      message.setEncoding('latin1').on('data', (chunk: string) => (text += chunk))
      message.on('error', broken)
      message.on('end', () => {
        if (message.statusCode !== 200) return resolve({ end: 'refused', isForeign: false })
        const isForeign = readStamp(text)?.path !== path
        resolve({ end: message.complete && text.endsWith(END) ? 'whole' : 'broken', isForeign })
      })
    })
    sent.on('error', broken)
  })
}

export const clients: readonly Experiment[] = [storm, collapse]
