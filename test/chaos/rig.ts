// What a promise is measured with: a gateway, its origins and a load, each in a process of its own on this machine; how
// the result is told; and what must hold whatever is done to them.
//
// A promise about time is broken only where this machine had time for it. Where something else kept it busy, or this very
// process was late, a time that is too long is `unsure`, with no more said against the gateway. What was answered to whom
// is never unsure.

import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { cpuMsOf, processTree } from '../../bench/machine.ts'
import { request } from '../support/client.ts'
import { GatewayProcess, type OriginProcess, createOrigin } from './children.ts'
import { Load, type Sample } from './load.ts'

export type Verdict = 'kept' | 'broken' | 'unsure'

export interface Row {
  readonly promise: string
  readonly measured: string
  readonly verdict: Verdict
}

/** What is done to a gateway. */
export interface Experiment {
  /** As in `npm run chaos -- C18`. */
  readonly name: string
  readonly title: string
  readonly run: (world: World) => Promise<void>
}

export interface Setup {
  /** Two targets of the upstream `app`, and the one of `calm`, to which nothing is done. */
  readonly app: readonly [OriginProcess, OriginProcess]
  readonly calm: OriginProcess
  readonly gateway: GatewayProcess
  /** The table that it runs, with other lines for the upstream app, and others at the end of its upstreams and routes. */
  readonly table: (more?: TableOptions) => string
}

export interface TableOptions {
  readonly listen?: string
  readonly app?: string
  /** Lines of YAML, indented by two. */
  readonly upstreams?: string
  readonly routes?: string
  readonly limits?: string
}

export const FIRST_BYTE_MS = 2000
const PER_SECOND = 200
const PER_SECOND_LONG = 400
/** Of CPU, by which others make this machine a busy one. */
const BUSY_CORES = 0.3
const BUSY_DELAY_MS = 10
/** Below that, of two p99s one is no worse than the other on any machine. */
const SAME_MS = 3
const SETTLE_MS = 15_000
const MAX_LAG_MS = 50
const MAX_LAG_PEAK_MS = 250
const WARMING = 2000
/** Beyond that, what is kept is not what is stored, whose bodies are elsewhere. */
const MAX_HEAP_MIB = 6
/** What the allocator keeps for the next burst: it rises to that and no further. */
const MAX_RESIDENT_MIB = 96

export class World {
  readonly rows: Row[] = []
  /** With the size and the time that find what is rare. */
  readonly isLong: boolean
  readonly #machine = new Machine()
  readonly #closing: (() => Promise<unknown> | void)[] = []
  #load: Load | null = null
  /** Of the gateway's event loop, the p99 of each second under load. */
  readonly #lagsMs: number[] = []

  constructor(isLong: boolean) {
    this.isLong = isLong
  }

  tell(promise: string, measured: string, result: Verdict | boolean): void {
    const verdict = result === true ? 'kept' : result === false ? 'broken' : result
    this.rows.push({ promise, measured, verdict })
    console.log(`${verdict.padEnd(7)} ${promise}\n        ${measured}`)
  }

  /** A promise about time. */
  tellTime(promise: string, ms: number, mostMs: number): void {
    this.tell(`${promise}: <= ${shown(mostMs)}`, shown(ms), this.timed(ms <= mostMs))
  }

  timed(isKept: boolean): Verdict {
    return isKept ? 'kept' : this.isBusy ? 'unsure' : 'broken'
  }

  get isBusy(): boolean {
    return this.#machine.othersCores > BUSY_CORES || (this.#load?.ownDelayMs ?? 0) > BUSY_DELAY_MS
  }

  /** Something else took so much of the machine, and this process was so late. */
  get noise(): string {
    const delay = this.#load === null ? '' : `, this process late by ${shown(this.#load.ownDelayMs)}`
    return `others took ${this.#machine.othersCores.toFixed(1)} cores${delay}`
  }

  /** Waits while the load goes on. */
  async phase(shortMs: number, longMs: number): Promise<void> {
    await sleep(this.isLong ? longMs : shortMs)
  }

  /** Closes a part at the end, last opened first. */
  closing(close: () => Promise<unknown> | void): void {
    this.#closing.push(close)
  }

  async close(): Promise<void> {
    for (const close of this.#closing.splice(0).toReversed()) await close()
  }

  async start(options: TableOptions = {}): Promise<Setup> {
    const seen = { posts: new Map(), gets: new Map(), gone: new Map() }
    const [one, two, calm] = [await createOrigin(seen), await createOrigin(seen), await createOrigin(seen)]
    this.closing(() => Promise.all([one, two, calm].map((origin) => origin.kill())))
    await Promise.all([one, two, calm].map((origin) => origin.start()))
    const table = (more: TableOptions = {}) => tableOf([one, two], calm, { ...options, ...more })
    return { app: [one, two], calm, table, gateway: await this.startGateway(table()) }
  }

  async startGateway(yaml: string): Promise<GatewayProcess> {
    const gateway = await GatewayProcess.start(yaml)
    this.closing(() => gateway.stop())
    return gateway
  }

  startLoad(gateway: GatewayProcess): Load {
    const load = new Load(gateway.url, this.isLong ? PER_SECOND_LONG : PER_SECOND)
    const look = async (): Promise<void> => {
      const lagMs = (await gateway.metric('nodejs_eventloop_lag_p99_seconds').catch(() => Number.NaN)) * 1000
      if (load.isRunning && !Number.isNaN(lagMs)) this.#lagsMs.push(lagMs)
    }
    const timer = setInterval(() => void look(), 1000)
    this.closing(() => clearInterval(timer))
    this.#load = load
    this.closing(() => load.stop())
    return load
  }

  /** What must hold whatever was done. load: stopped. mayExit: the test has ended it. */
  async invariants(
    { gateway, app, calm }: Setup,
    load: Load | null,
    baseline: Baseline,
    mayExit = false,
  ): Promise<void> {
    const samples = load?.samples ?? []
    const count = (is: (sample: Sample) => boolean) => samples.filter(is).length
    const foreign = count(({ isForeign }) => isForeign)
    const truncated = count(({ isTruncated }) => isTruncated)
    const silent = count(({ failure }) => failure === 'silence')
    const posts = [...calm.seen.posts.values(), ...app[0].seen.posts.values()]
    const twice = posts.filter((times) => times > 1).length
    const unseen = count(({ kind, status, id }) => kind === 'post' && status === 200 && !app[0].seen.posts.has(id))
    const unlimited = count(({ kind, status }) => kind === 'greedy' && status >= 500)
    const faults = [
      ...gateway.complaints,
      ...gateway.news.map(({ text }) => text).filter((text) => /fault/i.test(text)),
    ]
    const wrong = { foreign, truncated, silent, 'posts seen twice': twice, 'posts answered and not seen': unseen }
    const all = { ...wrong, 'limited clients with a 5xx': unlimited, 'faults of the process': faults.length }
    const isWell = Object.values(all).every((number) => number === 0) && (mayExit || !gateway.hasExited)
    const told = Object.entries(all).map(([what, number]) => `${number} ${what}`)
    if (gateway.hasExited && !mayExit) told.push('it has ended')
    this.tell(
      `${samples.length} requests beside it: none for another, none cut that looks whole, none in the dark, no POST twice, no fault`,
      told.join(', '),
      isWell,
    )
    for (const fault of faults.slice(0, 3)) console.log(`        ${fault}`)
    if (this.#lagsMs.length > 0) {
      const [p90, most] = [quantile(this.#lagsMs, 0.9), Math.max(...this.#lagsMs)]
      const isPrompt = p90 <= MAX_LAG_MS && most <= MAX_LAG_PEAK_MS
      const promise = `its event loop, p99 of each second: nine in ten <= ${shown(MAX_LAG_MS)}, all <= ${shown(MAX_LAG_PEAK_MS)}`
      this.tell(promise, `${shown(p90)}, ${shown(most)}`, this.timed(isPrompt))
    }
    if (!mayExit) await this.#settles(gateway, baseline)
  }

  /** What it holds when nobody asks any more. */
  async #settles(gateway: GatewayProcess, baseline: Baseline): Promise<void> {
    const most = baseline.descriptors + 5
    const endMs = performance.now() + SETTLE_MS
    while (gateway.descriptors > most && performance.now() < endMs) await sleep(100)
    const now = gateway.descriptors
    this.tell(`descriptors when all is over: <= ${most}`, String(now), now <= most)
    let left = 0
    for (const { waiting, targets } of await gateway.upstreams()) {
      for (const target of targets) left += target.in_flight + target.queued
      left += waiting
    }
    if (left > 0) this.tell('nothing is in flight when all is over', String(left), false)
    const heapMiB = ((await gateway.heapBytes()) - baseline.heapBytes) / MIB
    const residentMiB = ((await residentBytes(gateway)) - baseline.residentBytes) / MIB
    const isSmall = heapMiB <= MAX_HEAP_MIB && residentMiB <= MAX_RESIDENT_MIB
    this.tell(
      `memory, less what the cache holds, beside the beginning: heap <= +${MAX_HEAP_MIB} MiB, all <= +${MAX_RESIDENT_MIB} MiB`,
      `${heapMiB.toFixed(1)} MiB, ${residentMiB.toFixed(0)} MiB`,
      isSmall,
    )
  }

  /** The waits of one time beside those of another. */
  tellAlike(what: string, before: readonly Sample[], during: readonly Sample[], factor = 1.2): void {
    const [was, is] = [p99(before), p99(during)]
    const mostMs = Math.max(was * factor, was + SAME_MS)
    this.tell(`${what}: p99 <= ${factor} x the one before (${shown(was)})`, shown(is), this.timed(is <= mostMs))
  }
}

export const MIB = 1024 ** 2

/** Of a gateway before anything is done to it. */
export interface Baseline {
  readonly descriptors: number
  readonly heapBytes: number
  readonly residentBytes: number
}

/** After some traffic, which brings a process to its size. */
export async function baselineOf(gateway: GatewayProcess): Promise<Baseline> {
  for (let sent = 0; sent < WARMING; sent += 50) {
    const path = (i: number): string => (i % 2 === 0 ? `/live/warming${sent + i}/1024` : `/warm/warming${i}/1024`)
    await Promise.all(Array.from({ length: 50 }, (_, i) => request(gateway.url + path(i))))
  }
  const heapBytes = await gateway.heapBytes()
  await timeUntil(async () => (await gateway.upstreams()).every(({ targets }) => targets.every(isUnused)), 100)
  return { heapBytes, residentBytes: await residentBytes(gateway), descriptors: gateway.descriptors }
}

/** Without what is stored. */
const residentBytes = async (gateway: GatewayProcess): Promise<number> =>
  gateway.residentBytes - (await gateway.metric('weirgate_cache_bytes'))

const isUnused = ({ open_connections }: { readonly open_connections: number }): boolean => open_connections === 0

const tableOf = (app: readonly OriginProcess[], calm: OriginProcess, more: TableOptions): string => `
listen: {address: 127.0.0.1:0, connectionsPerAddress: 10000${more.listen ?? ''}}
admin: {listen: 127.0.0.1:0}
identity: {user: [{header: x-api-key}]}
upstreams:
  app:
    targets: [${app.map(({ url }) => url).join(', ')}]
    health: {path: /health, interval: 1s, timeout: 500ms, slowStart: 1s}
    timeouts: {firstByte: ${FIRST_BYTE_MS}ms}
    ${more.app ?? ''}
  calm: {targets: [${calm.url}]}
${more.upstreams ?? ''}
limits:
  greedy: {limit: 5, window: 1s, key: header:x-client, onMissing: skip}
${more.limits ?? ''}
routes:
  - {path: /live/*, upstream: app}
  - {path: /stream/*, upstream: app}
  - {path: /warm/*, upstream: app, cache: {}}
  - {path: /kept/*, upstream: app, cache: {stale: {ifError: 1h}}}
  - {path: /mine/*, upstream: app, cache: {scope: user}}
  - {path: /calm/*, upstream: calm, limits: [greedy]}
${more.routes ?? ''}
`

/** Milliseconds until it is so; at most 30 s. */
export async function timeUntil(isSo: () => boolean | Promise<boolean>, pauseMs = 10): Promise<number> {
  const fromMs = performance.now()
  while (!(await isSo()) && performance.now() < fromMs + 30_000) await sleep(pauseMs)
  return performance.now() - fromMs
}

export const shown = (ms: number): string => `${ms.toFixed(ms < 10 ? 1 : 0)} ms`
export const percent = (part: number, whole: number): string => `${((100 * part) / Math.max(1, whole)).toFixed(2)} %`

export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0
}

export const p99 = (samples: readonly Sample[]): number =>
  quantile(
    samples.map(({ tookMs }) => tookMs),
    0.99,
  )

/** How much of the machine others take since this began. */
class Machine {
  readonly #startedAtMs = performance.now()
  readonly #busyMs = busyMs()
  readonly #ownMs = ownMs()

  get othersCores(): number {
    const elapsedMs = performance.now() - this.#startedAtMs
    return Math.max(0, busyMs() - this.#busyMs - (ownMs() - this.#ownMs)) / Math.max(1, elapsedMs)
  }
}

/** Of all CPUs, since the machine started. A tick is 10 ms. */
function busyMs(): number {
  const [user = 0, nice = 0, system = 0] = (/^cpu +(.*)$/m.exec(readFileSync('/proc/stat', 'utf8'))?.[1] ?? '')
    .split(' ')
    .map(Number)
  return (user + nice + system) * 10
}

/** Of this process and of all that it has started, those that have ended included. */
function ownMs(): number {
  const stat = readFileSync('/proc/self/stat', 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return cpuMsOf(processTree(process.pid)) + (Number(fields[13]) + Number(fields[14])) * 10
}
