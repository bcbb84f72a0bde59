// What the admin port tells of traffic: counts and latencies per route and of all, since start and in the last minute.
// The minute is a ring of twelve slices of five seconds, turned by the time of the requests themselves, so there is no
// timer and time is a parameter. A route that has been silent for a minute takes no room in the ring.
//
// On the path of every request: a route has its two tallies at hand, and totals are added up when somebody asks.
//
// Bounds: maxRoutes names in each table; a name that finds no room is counted as `(other)`. What a request without a
// route costs is counted as `(none)`. About 2 KiB a route and table (see histogram.ts).

import type { CacheOutcome, RequestContext } from '../core/context.ts'
import type { Savings, Stats, StatsRow } from '../core/control.ts'
import { Histogram } from './histogram.ts'
import { NO_ROUTE, OTHER, isFault, latencyMs } from './verdict.ts'

const SLICE_MS = 5000
const SLICES = 12

export interface Statistics {
  /** Where the requests of one route are counted; keep it until keepRoutes. callCost: what one of its fetches costs, in the
   *  user's own unit. */
  ofRoute(route: string, callCost?: number): RouteStatistics
  /** nowMs: performance.now(). The gateway adds what cache and limits know. */
  snapshot(nowMs: number): Pick<Stats, 'uptime_s' | 'since_start' | 'last_minute'>
  /** What the cache has saved since start, by route, where it has saved anything. */
  savings(): readonly (readonly [route: string, saved: Savings])[]
  /** Forgets all routes but these; for a reload. What they had counted stays in the totals. */
  keepRoutes(live: ReadonlySet<string>): void
}

export interface RouteStatistics {
  /** Counts a finished request. status: as logged. The request's own times say which slice it falls into. */
  record(ctx: RequestContext, status: number): void
}

/** startedAtMs: performance.now() at start. maxRoutes: names per table. */
export function createStatistics(startedAtMs: number, maxRoutes = 20_000): Statistics {
  const sinceStart = new Table(maxRoutes)
  const ring = new Ring(maxRoutes)

  return {
    ofRoute: (route, callCost = 0) => new RouteTallies(route, callCost, sinceStart.of(route), ring),
    snapshot(nowMs) {
      return {
        uptime_s: Math.round((nowMs - startedAtMs) / 1000),
        since_start: sinceStart.rows(),
        last_minute: ring.lastMinute(nowMs).rows(),
      }
    },
    savings: () => sinceStart.savings(),
    keepRoutes(live) {
      sinceStart.keep(live)
    },
  }
}

/** What one route adds to: two tallies, which change with the slice. */
class RouteTallies implements RouteStatistics {
  readonly #route: string
  readonly #callCost: number
  readonly #sinceStart: Tally
  readonly #ring: Ring
  #number = -1
  #slice: Tally | null = null

  constructor(route: string, callCost: number, sinceStart: Tally, ring: Ring) {
    this.#route = route
    this.#callCost = callCost
    this.#sinceStart = sinceStart
    this.#ring = ring
  }

  record(ctx: RequestContext, status: number): void {
    const number = Math.floor((ctx.receivedAtMs + ctx.durationMs) / SLICE_MS)
    if (number !== this.#number) {
      this.#number = number
      this.#slice = this.#ring.slice(number)?.of(this.#route) ?? null
    }
    this.#sinceStart.add(ctx, status, this.#callCost)
    this.#slice?.add(ctx, status, this.#callCost)
  }
}

class Ring {
  readonly #maxRoutes: number
  readonly #slices: { number: number; readonly table: Table }[]

  constructor(maxRoutes: number) {
    this.#maxRoutes = maxRoutes
    this.#slices = Array.from({ length: SLICES }, () => ({ number: -1, table: new Table(maxRoutes) }))
  }

  /** The table of one slice, which begins with that if it is the newest; null where its time has passed. */
  slice(number: number): Table | null {
    const slice = this.#slices[number % SLICES] as { number: number; readonly table: Table }
    if (slice.number < number) {
      slice.number = number
      slice.table.clear()
    }
    // Requests end in order but for rounding; one that belongs to a slice already turned is not put into the new one.
    return slice.number === number ? slice.table : null
  }

  lastMinute(nowMs: number): Table {
    const all = new Table(this.#maxRoutes)
    const newest = Math.floor(nowMs / SLICE_MS)
    for (const { number, table } of this.#slices) if (number > newest - SLICES && number <= newest) all.merge(table)
    return all
  }
}

class Table {
  readonly #maxRoutes: number
  readonly #routes = new Map<string, Tally>()
  /** What routes had counted that are not told of any more. */
  readonly #forgotten = new Tally()

  constructor(maxRoutes: number) {
    this.#maxRoutes = maxRoutes
  }

  of(route: string): Tally {
    const known = this.#routes.get(route)
    if (known !== undefined) return known
    if (this.#routes.size >= this.#maxRoutes && route !== OTHER) return this.of(OTHER)
    const tally = new Tally()
    this.#routes.set(route, tally)
    return tally
  }

  merge(other: Table): void {
    for (const [route, tally] of other.#routes) this.of(route).merge(tally)
  }

  clear(): void {
    this.#routes.clear()
  }

  keep(live: ReadonlySet<string>): void {
    for (const [route, tally] of this.#routes) {
      if (live.has(route) || route === NO_ROUTE || route === OTHER) continue
      this.#forgotten.merge(tally)
      this.#routes.delete(route)
    }
  }

  savings(): (readonly [string, Savings])[] {
    return [...this.#routes].filter(([, tally]) => tally.hasSaved).map(([route, tally]) => [route, tally.savings()])
  }

  rows(): Stats['since_start'] {
    const total = new Tally()
    total.merge(this.#forgotten)
    for (const tally of this.#routes.values()) total.merge(tally)
    return {
      total: total.row(),
      routes: Object.fromEntries([...this.#routes].map(([route, tally]) => [route, tally.row()])),
    }
  }
}

class Tally {
  #requests = 0
  #errors = 0
  #limited = 0
  #bytes = 0
  #sparedFetches = 0
  #sparedMs = 0
  #sparedCost = 0
  #collapsedCost = 0
  readonly #cache: Record<CacheOutcome, number> = noOutcomes()
  readonly #latency = new Histogram()

  add(ctx: RequestContext, status: number, callCost: number): void {
    const waitedMs = latencyMs(ctx, status)
    this.#requests++
    if (isFault(ctx, status)) this.#errors++
    if (ctx.quota !== null && !ctx.quota.admitted) this.#limited++
    if (ctx.cache !== null) this.#cache[ctx.cache]++
    this.#bytes += ctx.bytesSent
    if (ctx.sparedMs !== null) {
      this.#sparedFetches++
      if (ctx.sparedMs > waitedMs) this.#sparedMs += ctx.sparedMs - waitedMs
      this.#sparedCost += callCost
    } else if (ctx.cache === 'collapsed') this.#collapsedCost += callCost
    this.#latency.observe(waitedMs)
  }

  merge(other: Tally): void {
    this.#requests += other.#requests
    this.#errors += other.#errors
    this.#limited += other.#limited
    for (const outcome of OUTCOMES) this.#cache[outcome] += other.#cache[outcome]
    this.#bytes += other.#bytes
    this.#sparedFetches += other.#sparedFetches
    this.#sparedMs += other.#sparedMs
    this.#sparedCost += other.#sparedCost
    this.#collapsedCost += other.#collapsedCost
    this.#latency.merge(other.#latency)
  }

  get hasSaved(): boolean {
    return this.#sparedFetches > 0 || this.#cache.collapsed > 0
  }

  savings(): Savings {
    return {
      fetches: this.#sparedFetches,
      seconds: rounded(this.#sparedMs / 1000, 3),
      // Sums of what is written in decimals are no decimals.
      cost: rounded(this.#sparedCost, 6),
      collapsed_fetches: this.#cache.collapsed,
      collapsed_cost: rounded(this.#collapsedCost, 6),
    }
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
      saved: this.savings(),
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
