// What a promise is measured with: a Redis, an origin, gateways; and how the result is told.

import { execFileSync } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import { type RedisServer, startRedis } from '../../test/support/redis.ts'
import { type Fleet, type FleetOptions, type Origin, startFleet, startOrigin } from './fleet.ts'

export type Verdict = 'kept' | 'broken' | 'unsure'

export interface Row {
  readonly promise: string
  readonly measured: string
  readonly verdict: Verdict
}

/** What a promise is measured with. */
export interface World {
  readonly redis: RedisServer
  readonly origin: Origin
  /** Three gateways with these limits and routes, stopped at the end. */
  readonly start: (yaml: string, more?: Partial<FleetOptions>) => Promise<Fleet>
  readonly tell: (promise: string, measured: string, verdict: Verdict | boolean) => void
}

export const CLIENTS = 60
export const subject = (name: string) => ({ headers: { 'x-subject': name } })
export const shown = (ms: number) => `${ms.toFixed(ms < 10 ? 1 : 0)} ms`

/** Where some was decided without Redis, a sum over the limit says that this machine stalls, not that the counting errs. */
export const exact = (isExact: boolean, alone: number): Verdict => (isExact ? 'kept' : alone > 0 ? 'unsure' : 'broken')

/** Measures in a world of its own. */
export async function inWorld(measure: (world: World) => Promise<void>): Promise<Row[]> {
  const rows: Row[] = []
  const redis = await startRedis()
  await prefer(redis)
  const origin = await startOrigin()
  const fleets: Fleet[] = []
  try {
    await measure({
      redis,
      origin,
      async start(yaml, more = {}) {
        const fleet = await startFleet({ redisUrl: redis.url, origin, yaml, ...more })
        fleets.push(fleet)
        return fleet
      },
      tell(promise, measured, result) {
        const verdict = result === true ? 'kept' : result === false ? 'broken' : result
        rows.push({ promise, measured, verdict })
        console.log(`${verdict.padEnd(7)} ${promise}\n        ${measured}`)
      },
    })
  } finally {
    await Promise.all(fleets.map((fleet) => fleet.close()))
    origin.close()
    await redis.close()
  }
  return rows
}

/** Lets a Redis go before all else on this machine: one that waits for its turn looks slow, and then a busy machine is what
 *  is measured. Where that is not allowed (Linux, root), more is `unsure`. */
export async function prefer(redis: RedisServer): Promise<void> {
  const [, pid = ''] = /process_id:(\d+)/.exec(await redis.ask('INFO', 'server')) ?? []
  try {
    execFileSync('chrt', ['--rr', '--pid', '1', pid], { stdio: 'ignore' })
  } catch {
    // As it is.
  }
}

/** Milliseconds until it is so; at most 40 s. */
export async function timeUntil(check: () => Promise<boolean>, pauseMs: number): Promise<number> {
  const startedAtMs = performance.now()
  while (!(await check()) && performance.now() < startedAtMs + 40_000) await sleep(pauseMs)
  return performance.now() - startedAtMs
}

/** What each gateway says of Redis. */
export async function redisOf({ gateways }: Fleet): Promise<string[]> {
  const ask = async (url: string): Promise<string> =>
    ((await (await fetch(`${url}/health`)).json()) as { redis: string }).redis
  // A connection that was kept may end just when it is used.
  return Promise.all(gateways.map(({ url }) => ask(url).catch(() => '')))
}

/** What is left for this machine's address, as Redis has it. */
export async function leftOf(adminUrl: string, policy: string): Promise<number> {
  const answer = (await (await fetch(`${adminUrl}/api/limits/${policy}?ip=127.0.0.1`)).json()) as { remaining: number }
  return answer.remaining
}
