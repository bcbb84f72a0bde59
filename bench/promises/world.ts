// What a promise is measured with: a Redis, an origin, gateways; and how the result is told.

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
