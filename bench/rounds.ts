// Servers under the same load in turns: one round each, then the next round, so that what else the machine does falls on
// all alike. A figure is the median of the rounds. Before that each server has to answer what is expected, and gets warm in
// rounds that do not count. In the last of those the lines of its log are counted, where it writes one: a log that loses lines
// is cheaper.

import { readFileSync, statSync, truncateSync } from 'node:fs'
import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Load, LoadResult } from './load.ts'
import type { Peer, Server } from './peers/peer.ts'
import type { Bench, Check, Row } from './scenario.ts'

/** Where the CPU times of the rounds lie further apart than this part of their median, the row is marked. */
const NOISY = 0.2
/** Before the first round that counts, in at most so many. */
const WARM_REQUESTS = 50_000
const WARM_ROUNDS = 5
/** By then each has written what it collects. */
const LOG_SETTLES_MS = 1500
/** A log that lags behind its server gets so long to catch up in each round; its CPU time is part of the round. */
const LOG_LAGS_MS = 2000
const LOG_STEP_MS = 100
const NEW_LINE = 10

export interface Contestant {
  readonly name: string
  readonly server: Server
  readonly load: Load
  /** It was under load before. */
  readonly isWarm?: boolean
  /** Default: any 200. */
  readonly expect?: Expected
}

/** Of an answer. */
export interface Expected {
  readonly status: number
  readonly bytes: number
}

/** The gateway and the peers, each started, all under the same load. */
export async function startAll(
  bench: Bench,
  peers: readonly Peer[],
  load: Omit<Load, 'seconds'>,
  expect: Expected,
): Promise<Contestant[]> {
  const contestants: Contestant[] = []
  for (const peer of [...bench.gateways(), ...bench.present(peers)]) {
    const server = await bench.start(peer)
    contestants.push({ name: peer.name, server, load: { ...load, seconds: bench.roundSeconds }, expect })
  }
  return contestants
}

interface Sample extends LoadResult {
  readonly cpuUs: number
  readonly originRequests: number
}

/** A row for each, in the order given. maxRounds: for scenarios that need no more. */
export async function measure(
  bench: Bench,
  contestants: readonly Contestant[],
  maxRounds = Number.POSITIVE_INFINITY,
): Promise<Row[]> {
  let next = 0
  const run = async ({ name, server, load }: Contestant): Promise<Sample> => {
    if (server.log !== null) truncateSync(server.log)
    const [cpuMs, originRequests] = [server.cpuMs(), bench.origin.requests]
    const result = await bench.load.run(server.port, numbered(load, next))
    await logStops(server)
    if (result.requests === 0) throw new Error(`${name} answers nothing under load`)
    next += result.requests + load.connections
    const cpuUs = ((server.cpuMs() - cpuMs) * 1000) / result.requests
    return { ...result, cpuUs, originRequests: bench.origin.requests - originRequests }
  }
  for (const contestant of contestants) await mustAnswer(contestant)
  const warmUps: Sample[] = []
  for (const contestant of contestants) {
    let warmUp = await run(contestant)
    // What a compiler makes of code that has run often: by count, because on a busy machine a round may hold few requests.
    for (let rounds = 1, count = warmUp.requests; count < WARM_REQUESTS && rounds < WARM_ROUNDS; rounds++) {
      if (contestant.isWarm) break
      warmUp = await run(contestant)
      count += warmUp.requests
    }
    warmUps.push(warmUp)
  }
  await sleep(LOG_SETTLES_MS)
  const logged = contestants.map(({ server }, i) => loggedOf(server, (warmUps[i] as Sample).requests))

  const samples = contestants.map((): Sample[] => [])
  for (let round = 0; round < Math.min(bench.rounds, maxRounds); round++) {
    for (const i of contestants.keys()) {
      // Another first one each round.
      const turn = (i + round) % contestants.length
      samples[turn]?.push(await run(contestants[turn] as Contestant))
    }
  }
  return contestants.map(({ name }, i) => rowOf(name, samples[i] as Sample[], logged[i] ?? null))
}

/** Numbers that count never come again. */
const numbered = (load: Load, next: number): Load =>
  load.numbers !== undefined && 'from' in load.numbers ? { ...load, numbers: { from: load.numbers.from + next } } : load

async function mustAnswer({ name, server, load, expect }: Contestant): Promise<void> {
  const path = load.path.replace('{n}', '0')
  await ask(server.port, path)
  const answer = await ask(server.port, path, load.headers)
  const isRight = expect === undefined ? answer.status === 200 : JSON.stringify(answer) === JSON.stringify(expect)
  if (!isRight) throw new Error(`${name} answers ${path} with ${JSON.stringify(answer)}`)
}

/** A request over a connection of its own. */
export function ask(
  port: number,
  path: string,
  headers: Readonly<Record<string, string>> = {},
): Promise<{ status: number; bytes: number }> {
  return new Promise((resolve, reject) => {
    const request = http.get({ host: '127.0.0.1', port, path, headers, agent: false }, (response) => {
      let bytes = 0
      response.on('data', (chunk: Buffer) => (bytes += chunk.length))
      response.on('end', () => resolve({ status: response.statusCode as number, bytes }))
      response.on('error', reject)
    })
    request.on('error', reject)
  })
}

/** Resolves when the log grows no more. */
async function logStops({ log }: Server): Promise<void> {
  if (log === null) return
  let bytes = -1
  for (let waitedMs = 0; statSync(log).size !== bytes && waitedMs < LOG_LAGS_MS; waitedMs += LOG_STEP_MS) {
    bytes = statSync(log).size
    await sleep(LOG_STEP_MS)
  }
}

/** Lines in the log, as a part of the requests; null where there is no log. */
function loggedOf({ log }: Server, requests: number): number | null {
  if (log === null) return null
  const lines = readFileSync(log).reduce((count, byte) => (byte === NEW_LINE ? count + 1 : count), 0)
  return lines / requests
}

function rowOf(server: string, samples: readonly Sample[], logged: number | null): Row {
  const medianOf = (figure: (sample: Sample) => number): number => median(samples.map(figure))
  const spread = spreadOf(samples.map(({ cpuUs }) => cpuUs))
  return {
    server,
    noisy: spread > NOISY,
    figures: {
      cpuUs: medianOf(({ cpuUs }) => cpuUs),
      requestsPerSecond: medianOf(({ requests, seconds }) => requests / seconds),
      meanMs: medianOf(({ meanMs }) => meanMs),
      p50Ms: medianOf(({ p50Ms }) => p50Ms),
      p95Ms: medianOf(({ p95Ms }) => p95Ms),
      p99Ms: medianOf(({ p99Ms }) => p99Ms),
      maxMs: Math.max(...samples.map(({ maxMs }) => maxMs)),
      errors: samples.reduce((sum, { errors }) => sum + errors, 0),
      originPerRequest: medianOf(({ originRequests, requests }) => originRequests / requests),
      ...(logged === null ? {} : { logged }),
      spread,
    },
  }
}

/** The upper one of the two in the middle, where there are two. */
export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] as number

/** Largest less smallest, as a part of the median. */
export const spreadOf = (values: readonly number[]): number =>
  (Math.max(...values) - Math.min(...values)) / median(values)

/** CPU per request of the first row beside each of the others; goals: the most that it may be, by name. */
export function cpuRatios([own, ...others]: readonly Row[], goals: Readonly<Record<string, number>> = {}): Check[] {
  return others.map(({ server, figures }) => ({
    what: `CPU per request, ${own?.server} / ${server}`,
    value: (own?.figures.cpuUs as number) / (figures.cpuUs as number),
    goal: goals[server] === undefined ? null : { atMost: goals[server] },
    guarded: true,
  }))
}
