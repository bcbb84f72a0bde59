// Gateways as processes of their own before one origin, and clients that ask them: what the promises of the limits are
// measured with. All times are of this process's monotonic clock, so that what a client sent and what the origin saw can
// be compared. Every answer that tells of a limit is read by a strict parser.

import { spawn } from 'node:child_process'
import { mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { readLimits } from '../../test/support/limit-fields.ts'

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url))
/** Tells the origin when a request was sent. */
const SENT = 'x-sent'
const MAX_OUTSTANDING = 2000

export interface Gateway {
  readonly url: string
  readonly adminUrl: string
  /** Replaces the route table, and answers whether the gateway has taken it. */
  readonly reload: (yaml: string) => Promise<boolean>
  /** Resolves when it is gone. */
  readonly stop: (signal?: NodeJS.Signals) => Promise<void>
}

export interface Asked {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
  readonly sentAtMs: number
  readonly tookMs: number
}

export interface AskOptions {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  /** Breaks the request off after so long. */
  readonly abortAfterMs?: number
}

/** A request as the origin saw it. */
export interface Seen {
  readonly path: string
  readonly sentAtMs: number
  readonly seenAtMs: number
}

export interface Origin {
  readonly port: number
  /** The requests that came for a path. */
  readonly seen: (path: string) => readonly Seen[]
  /** Requests for a path that it works on, and the most that it ever worked on at the same time. */
  readonly busy: (path: string) => { readonly now: number; readonly most: number }
  readonly close: () => void
}

/** Answers with what the query asks for: `status`, `cost` in a field X-Cost, `used` as tokens in its JSON, after `delay` ms, fresh for `ttl` s. */
export async function startOrigin(): Promise<Origin> {
  const all: Seen[] = []
  const work = new Map<string, { now: number; most: number }>()
  const server = http.createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    const [path = '', query = ''] = (request.url ?? '').split('?')
    all.push({ path, sentAtMs: Number(request.headers[SENT] ?? 0), seenAtMs: performance.now() })
    const asked = new URLSearchParams(query)
    response.statusCode = Number(asked.get('status') ?? 200)
    const cost = asked.get('cost')
    if (cost !== null) response.setHeader('X-Cost', cost)
    const used = asked.get('used')
    const busy = work.get(path) ?? { now: 0, most: 0 }
    work.set(path, busy)
    busy.most = Math.max(busy.most, ++busy.now)
    let isDone = false
    const done = (): void => {
      if (!isDone) busy.now--
      isDone = true
    }
    const answer = (): void => {
      // Nobody can know of the end before this.
      done()
      if (used === null) return void response.end('fine')
      response.setHeader('Content-Type', 'application/json')
      response.end(JSON.stringify({ usage: { prompt_tokens: 10, completion_tokens: Number(used) - 10 } }))
    }
    const delayMs = Number(asked.get('delay') ?? 0)
    const timer = delayMs > 0 ? setTimeout(answer, delayMs) : undefined
    if (timer === undefined) answer()
    response.on('close', () => {
      clearTimeout(timer)
      done()
    })
  })
  server.listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  return {
    port: (server.address() as AddressInfo).port,
    seen: (path) => all.filter((each) => each.path === path),
    busy: (path) => work.get(path) ?? { now: 0, most: 0 },
    close() {
      server.closeAllConnections()
      server.close()
    },
  }
}

export interface Fleet {
  readonly gateways: readonly Gateway[]
  /** The route table of one of them; rest: limits and routes. */
  readonly table: (rest: string) => string
  /** One more, with what the others have. */
  readonly add: (rest: string) => Promise<Gateway>
  /** Decisions of a policy that come from there, over all of them that are alive. */
  readonly decidedBy: (policy: string, ...sources: readonly string[]) => Promise<number>
  /** Those that were made without Redis. */
  readonly decidedAlone: (policy: string) => Promise<number>
  readonly ask: (number: number, path: string, options?: AskOptions) => Promise<Asked>
  readonly close: () => Promise<void>
}

export interface FleetOptions {
  readonly redisUrl: string
  readonly origin: Origin
  /** Limits, routes and more, as YAML. */
  readonly yaml: string
  readonly deadline?: string
  /** JavaScript that runs in the gateway of a number before the program. */
  readonly preload?: (number: number) => string
}

/** Three gateways. */
export async function startFleet({ redisUrl, origin, yaml, deadline, preload }: FleetOptions): Promise<Fleet> {
  const wait = deadline === undefined ? '' : `, deadline: ${deadline}`
  const table = (rest: string) => `listen: 127.0.0.1:0
admin: {listen: 127.0.0.1:0}
upstreams: {origin: {targets: ["http://127.0.0.1:${origin.port}"], connections: 256}}
defaults: {upstream: origin}
redis: {url: "${redisUrl}"${wait}}
${rest}`
  const started: Gateway[] = []
  const add = async (rest: string) => {
    const gateway = await startGateway(table(rest), preload?.(started.length))
    started.push(gateway)
    return gateway
  }
  const gateways = await Promise.all([0, 1, 2].map(async () => add(yaml)))
  const agent = new http.Agent({ keepAlive: true })
  async function decidedBy(policy: string, ...sources: readonly string[]): Promise<number> {
    let count = 0
    for (const { adminUrl } of gateways) {
      const answer = await fetch(`${adminUrl}/api/limits`).catch(() => null)
      const limits = ((await answer?.json()) ?? []) as readonly LimitReport[]
      const bySource = limits.find((each) => each.policy === policy)?.decisions.by_source ?? {}
      for (const source of sources) count += bySource[source] ?? 0
    }
    return count
  }
  return {
    gateways,
    table,
    add,
    decidedBy,
    decidedAlone: (policy) => decidedBy(policy, 'share', 'closed'),
    ask: (number, path, options) => ask((gateways[number % gateways.length] as Gateway).url + path, agent, options),
    async close() {
      agent.destroy()
      await Promise.all(started.map((gateway) => gateway.stop()))
    },
  }
}

interface LimitReport {
  readonly policy: string
  readonly decisions: { readonly by_source: Readonly<Record<string, number>> }
}

async function startGateway(yaml: string, preload: string | undefined): Promise<Gateway> {
  const folder = mkdtempSync(join(tmpdir(), 'weirgate-bench-'))
  const file = join(folder, 'weirgate.yaml')
  writeFileSync(file, yaml)
  const imports = preload === undefined ? [] : ['--import', `data:text/javascript,${encodeURIComponent(preload)}`]
  const child = spawn(process.execPath, [...imports, MAIN, 'run', '-c', file], { stdio: ['ignore', 'ignore', 'pipe'] })
  const killAtExit = (): void => void child.kill('SIGKILL')
  process.once('exit', killAtExit)
  const gone = new Promise<void>((resolve) => {
    child.once('exit', () => {
      process.removeListener('exit', killAtExit)
      rmSync(folder, { recursive: true })
      resolve()
    })
  })
  const [url, adminUrl] = await new Promise<[string, string]>((resolve, reject) => {
    let said = ''
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text
      const [, address, admin] = /listens on (\S+), admin on (\S+)\n/.exec(said) ?? []
      if (address !== undefined && admin !== undefined) resolve([address, admin])
    })
    child.once('exit', () => reject(new Error(`the gateway ended: ${said}`)))
  })
  return {
    url,
    adminUrl,
    async reload(next) {
      writeFileSync(`${file}.new`, next)
      renameSync(`${file}.new`, file)
      const headers = { 'Content-Type': 'application/json' }
      return (await fetch(`${adminUrl}/api/reload`, { method: 'POST', headers })).ok
    },
    async stop(signal = 'SIGTERM') {
      child.kill(signal)
      await gone
    },
  }
}

/** How many answers told of a limit, and were read. */
export const read = { answers: 0 }

/** status 0: broken off. */
function ask(url: string, agent: http.Agent, options: AskOptions = {}): Promise<Asked> {
  const { method = 'GET', headers = {}, abortAfterMs } = options
  const sentAtMs = performance.now()
  return new Promise((resolve, reject) => {
    const done = (status: number, fields: http.IncomingHttpHeaders): void =>
      resolve({ status, headers: fields, sentAtMs, tookMs: performance.now() - sentAtMs })
    const request = http.request(url, { method, agent, headers: { Host: 'shop.test', [SENT]: sentAtMs, ...headers } })
    request.on('response', (response) => {
      response.on('end', () => {
        try {
          if (response.headers['ratelimit-policy'] !== undefined) {
            readLimits(response.headers)
            read.answers++
          }
          done(response.statusCode ?? 0, response.headers)
        } catch (error) {
          reject(error)
        }
      })
      response.resume()
    })
    request.on('error', () => done(0, {}))
    request.end()
    if (abortAfterMs !== undefined) setTimeout(() => request.destroy(), abortAfterMs)
  })
}

type Asking = (number: number) => Promise<Asked>

/** So many requests from so many clients, each of which asks again as soon as it has its answer. */
export async function crowd(count: number, clients: number, asking: Asking): Promise<Asked[]> {
  const answers: Asked[] = []
  let asked = 0
  const client = async () => {
    while (asked < count) answers.push(await asking(asked++))
  }
  await Promise.all(Array.from({ length: clients }, client))
  return answers
}

/** The same for so long. */
export async function crowdFor(forMs: number, clients: number, asking: Asking): Promise<Asked[]> {
  const answers: Asked[] = []
  const endMs = performance.now() + forMs
  let asked = 0
  const client = async () => {
    while (performance.now() < endMs) answers.push(await asking(asked++))
  }
  await Promise.all(Array.from({ length: clients }, client))
  return answers
}

/** Requests at a rate, whatever becomes of them. */
export async function steady(perSecond: number, forMs: number, asking: Asking): Promise<Asked[]> {
  const pending: Promise<unknown>[] = []
  const answers: Asked[] = []
  const startedAtMs = performance.now()
  let asked = 0
  for (let passedMs = 0; passedMs < forMs; passedMs = performance.now() - startedAtMs) {
    for (; asked < (passedMs / 1000) * perSecond && asked - answers.length < MAX_OUTSTANDING; asked++) {
      pending.push(asking(asked).then((answer) => answers.push(answer)))
    }
    await sleep(4)
  }
  await Promise.all(pending)
  return answers
}

export const admitted = (answers: readonly Asked[]): number => answers.filter(({ status }) => status === 200).length

export const remainingOf = ({ headers }: Asked): number => Number(headers['x-ratelimit-remaining'])

/** The most requests that were certainly admitted within one span: each was decided after it was sent and before the
 *  origin saw it. Never more than there were, whatever else the machine does. */
export function mostWithin(seen: readonly Seen[], spanMs: number): number {
  const bySent = seen.toSorted((a, b) => a.sentAtMs - b.sentAtMs)
  let most = 0
  for (const [from, { sentAtMs }] of bySent.entries()) {
    let count = 0
    for (let i = from; i < bySent.length && (bySent[i] as Seen).sentAtMs <= sentAtMs + spanMs; i++) {
      if ((bySent[i] as Seen).seenAtMs <= sentAtMs + spanMs) count++
    }
    most = Math.max(most, count)
  }
  return most
}

/** The value below which a share of them lies. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0
}
