// Servers under the same load in turns: one round each, then the next round, so that what else the machine does falls on
// all alike. A figure is the median of the rounds. Each server first has a round that does not count, in which it has to
// write a log line per request, where it writes a log at all.

import { readFileSync, truncateSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Load, LoadResult } from './load.ts'
import type { Server } from './peers/peer.ts'
import type { Bench, Check, Row } from './scenario.ts'

/** Where the CPU times of the rounds lie further apart than this part of their median, the row is marked. */
const NOISY = 0.2
const LOG_SETTLES_MS = 1500
const NEW_LINE = 10

export interface Contestant {
  readonly name: string
  readonly server: Server
  readonly load: Load
}

interface Sample extends LoadResult {
  readonly cpuUs: number
  readonly originRequests: number
}

export async function measure(bench: Bench, contestants: readonly Contestant[], rounds = bench.rounds): Promise<Row[]> {
  let next = 0
  const run = async ({ server, load }: Contestant): Promise<Sample> => {
    if (server.log !== null) truncateSync(server.log)
    const [cpuMs, originRequests] = [server.cpuMs(), bench.origin.requests]
    const result = await bench.load.run(server.port, numbered(load, next))
    next += result.requests + load.connections
    const cpuUs = ((server.cpuMs() - cpuMs) * 1000) / result.requests
    return { ...result, cpuUs, originRequests: bench.origin.requests - originRequests }
  }
  for (const contestant of contestants) {
    const { requests } = await run(contestant)
    await mustHaveLogged(contestant, requests)
  }
  const samples = contestants.map((): Sample[] => [])
  for (let round = 0; round < rounds; round++) {
    for (const i of contestants.keys()) {
      // Another first one each round.
      const turn = (i + round) % contestants.length
      samples[turn]?.push(await run(contestants[turn] as Contestant))
    }
  }
  return contestants.map(({ name }, i) => rowOf(name, samples[i] as Sample[]))
}

/** Numbers that count never come again. */
const numbered = (load: Load, next: number): Load =>
  load.numbers !== undefined && 'from' in load.numbers ? { ...load, numbers: { from: load.numbers.from + next } } : load

async function mustHaveLogged({ name, server }: Contestant, requests: number): Promise<void> {
  if (server.log === null) return
  // Nothing else is asked of it, so lines that wait for their piece to fill stay away.
  await sleep(LOG_SETTLES_MS)
  const lines = readFileSync(server.log).reduce((count, byte) => (byte === NEW_LINE ? count + 1 : count), 0)
  if (lines < requests * 0.98) console.log(`${name} has logged ${lines} of ${requests} requests`)
}

function rowOf(server: string, samples: readonly Sample[]): Row {
  const medianOf = (figure: (sample: Sample) => number): number => median(samples.map(figure))
  const times = samples.map(({ cpuUs }) => cpuUs)
  const spread = (Math.max(...times) - Math.min(...times)) / median(times)
  return {
    server,
    noisy: spread > NOISY,
    figures: {
      cpuUs: median(times),
      requestsPerSecond: medianOf(({ requests, seconds }) => requests / seconds),
      meanMs: medianOf(({ meanMs }) => meanMs),
      p50Ms: medianOf(({ p50Ms }) => p50Ms),
      p95Ms: medianOf(({ p95Ms }) => p95Ms),
      p99Ms: medianOf(({ p99Ms }) => p99Ms),
      errors: samples.reduce((sum, { errors }) => sum + errors, 0),
      originPerRequest: medianOf(({ originRequests, requests }) => originRequests / requests),
      spread,
    },
  }
}

/** The upper one of the two in the middle. */
export const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] as number

/** CPU of the first row beside each of the others; goals: the most that it may be, by name. */
export function cpuRatios(rows: readonly Row[], goals: Readonly<Record<string, number>> = {}): Check[] {
  const [own, ...others] = rows
  return others.map(({ server, figures }) => ({
    what: `CPU per request, ${own?.server} / ${server}`,
    value: (own?.figures.cpuUs as number) / (figures.cpuUs as number),
    goal: goals[server] === undefined ? null : { atMost: goals[server] },
    guarded: true,
  }))
}
