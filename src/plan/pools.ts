// The connections behind a plan. A pool outlives plans: the next one takes it over where its upstream's options are the
// same. Otherwise it is retired, which must wait for more than its requests in flight: a request that has no answer
// yet may still try again, or ask for itself after waiting for another's fetch in vain. So each pool counts those.

import type { GatewayConfig } from '../config/schema.ts'
import { resolveTimeouts } from '../upstream/forward.ts'
import { type UpstreamPool, createPool } from '../upstream/pool.ts'
import type { Lookup } from '../upstream/resolve.ts'
import type { SharedCoolDowns } from '../upstream/shared-cool-downs.ts'
import type { TargetNews } from '../upstream/target.ts'

export class PlannedPool {
  readonly pool: UpstreamPool
  /** What it was made from: a plan with the same text under the same name takes it over. */
  readonly madeFrom: string
  #waiting = 0
  #whenUnused: (() => void) | null = null

  constructor(pool: UpstreamPool, madeFrom: string) {
    this.pool = pool
    this.madeFrom = madeFrom
  }

  /** A request waits for the head of its answer; leave() when it has it. */
  enter(): void {
    this.#waiting++
  }

  leave(): void {
    if (--this.#waiting === 0) this.#whenUnused?.()
  }

  /** Lets every request that may still need it finish, then closes its connections. For a pool of no running plan; once. */
  async retire(): Promise<void> {
    if (this.#waiting > 0) {
      await new Promise<void>((resolve) => {
        this.#whenUnused = resolve
      })
    }
    await this.pool.close()
  }
}

export type PlannedPools = ReadonlyMap<string, PlannedPool>

/** The options that a pool is made of; with another one of these it is a new pool. */
const MADE_OF = [
  'targets',
  'primary',
  'balance',
  'connections',
  'connectionLifetime',
  'resolve',
  'health',
  'breaker',
  'refusals',
  'hedge',
  'concurrency',
] as const

/** By upstream name. previous: the running plan's pools. tell: hears of targets that go out and come back. coolDowns: of
 *  all instances. */
export function compilePools(
  config: GatewayConfig,
  previous: PlannedPools | null,
  tell: (news: TargetNews) => void,
  coolDowns: SharedCoolDowns | null,
  lookup: Lookup,
): PlannedPools {
  const pools = new Map<string, PlannedPool>()
  for (const [name, options] of Object.entries(config.upstreams)) {
    const { connectMs } = resolveTimeouts(options.timeouts)
    const madeFrom = JSON.stringify([...MADE_OF.map((part) => options[part]), connectMs])
    const running = previous?.get(name)
    if (running?.madeFrom === madeFrom) pools.set(name, running)
    else {
      const out = new Set(running === undefined ? [] : outOf(running.pool))
      pools.set(name, new PlannedPool(createPool({ name, options, connectMs, out, lookup, tell, coolDowns }), madeFrom))
    }
  }
  return pools
}

/** The targets that are out now. */
function outOf(pool: UpstreamPool): string[] {
  return pool.status().targets.flatMap(({ url, state }) => (state === 'out' ? [url] : []))
}
