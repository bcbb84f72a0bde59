// What the admin port tells of traffic: counts and latencies per route and of all, since start and in the last minute.
// The minute is a ring of twelve slices of five seconds, turned by the time of the requests themselves, so there is no
// timer and time is a parameter. A route that has been silent for a minute takes no room in the ring.
//
// Bounds: maxRoutes names in each table; a name that finds no room is counted as `(other)`. What a request without a
// route costs is counted as `(none)`. About 2 KiB a route and table (see histogram.ts).

import type { CacheOutcome, RequestContext } from '../core/context.ts'
import type { Stats, StatsRow } from '../core/control.ts'
import { Histogram } from './histogram.ts'
import { NO_ROUTE, OTHER, isFault } from './verdict.ts'

const SLICE_MS = 5000
const SLICES = 12

export interface Statistics {
  /** Counts a finished request. status: as logged. The request's own times say which slice it falls into. */
  record(ctx: RequestContext, status: number): void
  /** nowMs: performance.now(). The gateway adds the numbers of the cache and of the limits. */
  snapshot(nowMs: number): Omit<Stats, 'cache' | 'limits'>
  /** Forgets all routes but these; for a reload. What they had counted stays in the totals. */
  keepRoutes(live: ReadonlySet<string>): void
}

/** startedAtMs: performance.now() at start. maxRoutes: names per table. */
export function createStatistics(startedAtMs: number, maxRoutes = 20_000): Statistics {
  const sinceStart = new Table(maxRoutes)
  const ring = Array.from({ length: SLICES }, () => ({ number: -1, table: new Table(maxRoutes) }))

  const sliceAt = (number: number): (typeof ring)[number] => ring[number % SLICES] as (typeof ring)[number]

  return {
    record(ctx, status) {
      sinceStart.add(ctx, status)
      const number = Math.floor((ctx.receivedAtMs + ctx.durationMs) / SLICE_MS)
      const slice = sliceAt(number)
      if (slice.number < number) {
        slice.number = number
        slice.table.reset()
      }
      // Requests end in order but for rounding; one that belongs to a slice already turned is not put into the new one.
      if (slice.number === number) slice.table.add(ctx, status)
    },
    snapshot(nowMs) {
      const lastMinute = new Table(maxRoutes)
      const newest = Math.floor(nowMs / SLICE_MS)
      for (const { number, table } of ring) {
        if (number > newest - SLICES && number <= newest) lastMinute.merge(table)
      }
      return {
        uptime_s: Math.round((nowMs - startedAtMs) / 1000),
        since_start: sinceStart.rows(),
        last_minute: lastMinute.rows(),
      }
    },
    keepRoutes(live) {
      sinceStart.keep(live)
    },
  }
}

class Table {
  readonly #maxRoutes: number
  readonly #total = new Tally()
  readonly #routes = new Map<string, Tally>()

  constructor(maxRoutes: number) {
    this.#maxRoutes = maxRoutes
  }

  add(ctx: RequestContext, status: number): void {
    this.#total.add(ctx, status)
    this.#route(ctx.route ?? NO_ROUTE).add(ctx, status)
  }

  merge(other: Table): void {
    this.#total.merge(other.#total)
    for (const [route, tally] of other.#routes) this.#route(route).merge(tally)
  }

  reset(): void {
    this.#total.reset()
    this.#routes.clear()
  }

  keep(live: ReadonlySet<string>): void {
    for (const route of this.#routes.keys()) {
      if (!live.has(route) && route !== NO_ROUTE && route !== OTHER) this.#routes.delete(route)
    }
  }

  rows(): Stats['since_start'] {
    return {
      total: this.#total.row(),
      routes: Object.fromEntries([...this.#routes].map(([route, tally]) => [route, tally.row()])),
    }
  }

  #route(route: string): Tally {
    const known = this.#routes.get(route)
    if (known !== undefined) return known
    if (this.#routes.size >= this.#maxRoutes && route !== OTHER) return this.#route(OTHER)
    const tally = new Tally()
    this.#routes.set(route, tally)
    return tally
  }
}

class Tally {
  #requests = 0
  #errors = 0
  #limited = 0
  #bytes = 0
  readonly #cache: Record<CacheOutcome, number> = noOutcomes()
  readonly #latency = new Histogram()

  add(ctx: RequestContext, status: number): void {
    this.#requests++
    if (isFault(ctx, status)) this.#errors++
    if (ctx.quota !== null && !ctx.quota.admitted) this.#limited++
    if (ctx.cache !== null) this.#cache[ctx.cache]++
    this.#bytes += ctx.bytesSent
    this.#latency.observe(ctx.durationMs)
  }

  merge(other: Tally): void {
    this.#requests += other.#requests
    this.#errors += other.#errors
    this.#limited += other.#limited
    for (const outcome of OUTCOMES) this.#cache[outcome] += other.#cache[outcome]
    this.#bytes += other.#bytes
    this.#latency.merge(other.#latency)
  }

  reset(): void {
    this.#requests = 0
    this.#errors = 0
    this.#limited = 0
    this.#bytes = 0
    Object.assign(this.#cache, noOutcomes())
    this.#latency.reset()
  }

  row(): StatsRow {
    const { hit, miss, stale, revalidated, collapsed } = this.#cache
    // A stale answer came from the store at once, so it is a hit; a bypass did not consult the cache.
    const consulted = hit + miss + stale + revalidated + collapsed
    return {
      requests: this.#requests,
      errors: this.#errors,
      limited: this.#limited,
      cache: { ...this.#cache },
      hit_rate: consulted === 0 ? null : rounded((hit + stale) / consulted, 4),
      bytes: this.#bytes,
      latency_ms: {
        mean: rounded(this.#latency.meanMs, 3),
        p50: rounded(this.#latency.quantileMs(0.5), 3),
        p95: rounded(this.#latency.quantileMs(0.95), 3),
        p99: rounded(this.#latency.quantileMs(0.99), 3),
        max: rounded(this.#latency.maxMs, 3),
      },
    }
  }
}

const OUTCOMES = ['hit', 'miss', 'stale', 'revalidated', 'collapsed', 'bypass'] as const satisfies CacheOutcome[]

const noOutcomes = (): Record<CacheOutcome, number> => ({
  hit: 0,
  miss: 0,
  stale: 0,
  revalidated: 0,
  collapsed: 0,
  bypass: 0,
})

const rounded = (value: number, digits: number): number => Math.round(value * 10 ** digits) / 10 ** digits
