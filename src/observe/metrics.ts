// The gateway's metrics by name. Base units are seconds and bytes; labels come from bounded sets (routes, policies,
// codes, statuses) and never carry a path, a key or a client. registry.ts does the counting and the text.

import { monitorEventLoopDelay } from 'node:perf_hooks'
import { getHeapStatistics } from 'node:v8'
import type { BucketHistogram } from '../core/bucket-histogram.ts'
import type { CacheOutcome, RequestContext } from '../core/context.ts'
import type { Savings } from '../core/control.ts'
import { type IdempotencySources, addIdempotencyMetrics } from './idempotency-metrics.ts'
import { type LimitSources, addLimitMetrics } from './limit-metrics.ts'
import { Counter, type Family, Registry } from './registry.ts'
import { type SharingSources, addSharingMetrics } from './sharing-metrics.ts'
import { type UpstreamSources, addUpstreamMetrics } from './upstream-metrics.ts'
import { NO_ROUTE, OTHER, latencyMs } from './verdict.ts'

/** What others know and metrics tell. Each is asked once per scrape. */
export interface MetricSources extends IdempotencySources, LimitSources, SharingSources, UpstreamSources {
  /** Client connections open now. */
  readonly openConnections: () => number
  /** Connections that were closed unread, since there were as many as there may be. */
  readonly refusedConnections: () => number
  /** Requests answered by the fast path. */
  readonly fastAnswers: () => number
  /** Connections that are WebSockets now. */
  readonly openWebSockets: () => number
  readonly cacheEntries: () => number
  readonly cacheBytes: () => number
  /** The copy on disk of what is stored; null without one. */
  readonly cacheDisk: { readonly isUp: boolean; readonly bytes: number } | null
  /** Whether the gateway has too much to do. */
  readonly overload: {
    readonly isOver: boolean
    readonly isFull: boolean
    readonly lagMs: number
    readonly refused: number
  }
  readonly droppedLogLines: () => number
  /** What the cache has saved, by route. */
  readonly savings: () => readonly (readonly [route: string, saved: Savings])[]
  /** Fetches that go on though every client has gone, and what became of those before. */
  readonly detached: () => { readonly running: number; readonly counts: Readonly<Record<'used' | 'wasted', number>> }
  /** What the cache's tiers have done since the start. */
  readonly cacheTiers: () => readonly {
    readonly name: string
    readonly counts: Readonly<Record<TierCount, number>>
  }[]
}

type TierCount = 'hits' | 'misses' | 'bad' | 'locked' | 'failed' | 'written' | 'dropped'

export interface Metrics {
  /** Where the requests of one route are counted; keep it until keepRoutes. */
  ofRoute(route: string): RouteMetrics
  /** Tells how the last load of the configuration went; at start as well. atEpochMs: wall clock. */
  reloaded(ok: boolean, atEpochMs: number): void
  /** Drops the series of all routes but these; for a reload. */
  keepRoutes(live: ReadonlySet<string>): void
  /** Prometheus text format, version 0.0.4. The event loop's delay counts anew after each call. */
  text(): string
  /** Ends the measuring of the event loop. */
  close(): void
}

const MAX_ROUTES = 20_000
const LOOP_SAMPLE_MS = 20
const DURATION_BOUNDS_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

export interface RouteMetrics {
  /** Counts a finished request. status: as logged. */
  record(ctx: RequestContext, status: number): void
}

export function createMetrics(sources: MetricSources): Metrics {
  const registry = new Registry()
  const requests = registry.counter('weirgate_requests_total', 'Requests answered or given up.', ['route', 'status'])
  const durations = registry.histogram(
    'weirgate_request_duration_seconds',
    'From the first byte of a request to the end of its answer; of a WebSocket to its 101.',
    ['route'],
    DURATION_BOUNDS_SECONDS,
  )
  const cached = registry.counter(
    'weirgate_cache_requests_total',
    'Requests on routes with a cache, by what it did and why it was no hit.',
    ['route', 'outcome', 'reason'],
  )
  const bytes = registry.counter('weirgate_response_bytes_total', 'Bytes of answers sent to clients.', ['route'])
  const upstreamErrors = registry.counter('weirgate_upstream_errors_total', 'Requests that an upstream failed.', [
    'code',
  ])

  let lastReloadSuccess = 0
  let loadedAtEpochMs = 0
  const loopDelay = monitorEventLoopDelay({ resolution: LOOP_SAMPLE_MS })
  loopDelay.enable()
  // The samples are the whole gap between two timers, so the timer's own period comes off.
  const loopDelayP99Seconds = (): number =>
    loopDelay.count === 0 ? 0 : Math.max(0, loopDelay.percentile(99) / 1e9 - LOOP_SAMPLE_MS / 1000)

  registry.reading('gauge', 'weirgate_cache_entries', 'Responses stored in memory.', sources.cacheEntries)
  registry.reading('gauge', 'weirgate_cache_bytes', 'Bytes that stored responses take.', sources.cacheBytes)
  registry.reading(
    'gauge',
    'weirgate_detached_fetches',
    'Fetches that go on though every client has gone.',
    () => sources.detached().running,
  )
  registry.readings(
    'counter',
    'weirgate_detached_fetches_total',
    'Fetches that went on though every client had gone. used: joined, or what was stored has answered somebody; wasted: not stored, or gone from memory unused.',
    ['result'],
    () => {
      const { used, wasted } = sources.detached().counts
      return [[['used'], used] as const, [['wasted'], wasted] as const]
    },
  )
  /** results: label values with the counts that they stand for. */
  const perTier = (results: Readonly<Record<string, TierCount>>) => () =>
    sources
      .cacheTiers()
      .flatMap(({ name, counts }) =>
        Object.entries(results).map(([result, count]) => [[name, result], counts[count]] as const),
      )
  registry.readings(
    'counter',
    'weirgate_cache_tier_reads_total',
    'Reads of what is stored beyond memory. bad: damaged or forged, and removed; locked: sealed with a key that is not known here; failed: no answer in time.',
    ['tier', 'result'],
    perTier({ hit: 'hits', miss: 'misses', bad: 'bad', locked: 'locked', failed: 'failed' }),
  )
  registry.readings(
    'counter',
    'weirgate_cache_tier_writes_total',
    'Responses for storage beyond memory. dropped: too large, too many at once, or not taken.',
    ['tier', 'result'],
    perTier({ written: 'written', dropped: 'dropped' }),
  )
  addSavingMetrics(registry, sources.savings)
  addSharingMetrics(registry, sources)
  addIdempotencyMetrics(registry, sources)
  addLimitMetrics(registry, sources)
  addUpstreamMetrics(registry, sources)
  const { cacheDisk } = sources
  if (cacheDisk !== null) {
    const isUp = (): number => (cacheDisk.isUp ? 1 : 0)
    registry.reading('gauge', 'weirgate_cache_disk_up', '1 while the disk is used, 0 while it is passed over.', isUp)
    registry.reading(
      'gauge',
      'weirgate_cache_disk_bytes',
      'Bytes of the file that hold something.',
      () => cacheDisk.bytes,
    )
  }
  registry.reading(
    'gauge',
    'weirgate_config_last_reload_success',
    '1 when the last load of the configuration worked, else 0.',
    () => lastReloadSuccess,
  )
  registry.reading(
    'gauge',
    'weirgate_config_loaded_timestamp_seconds',
    'When the running configuration was loaded.',
    () => loadedAtEpochMs / 1000,
  )
  const { overload } = sources
  registry.reading('gauge', 'weirgate_overloaded', '1 while nothing goes to the upstreams for overload, else 0.', () =>
    overload.isOver ? 1 : 0,
  )
  registry.reading(
    'gauge',
    'weirgate_overload_not_storing',
    '1 while nothing new is stored since the heap fills up, else 0.',
    () => (overload.isFull ? 1 : 0),
  )
  registry.reading(
    'gauge',
    'weirgate_overload_lag_seconds',
    'Delay of the event loop that tells an overload, the median of a second.',
    () => overload.lagMs / 1000,
  )
  registry.reading(
    'counter',
    'weirgate_overload_refused_total',
    'Requests to upstreams that were not sent for overload.',
    () => overload.refused,
  )
  registry.reading(
    'counter',
    'weirgate_log_dropped_lines_total',
    'Log lines given up because nobody took them in time.',
    sources.droppedLogLines,
  )
  registry.reading(
    'counter',
    'weirgate_fast_answers_total',
    'Requests answered from memory by the short way, before they were parsed in full.',
    sources.fastAnswers,
  )
  registry.reading('gauge', 'weirgate_websockets_open', 'WebSockets open now.', sources.openWebSockets)
  registry.reading(
    'counter',
    'weirgate_connections_refused_total',
    'Client connections closed at once: more than there may be, or no descriptor left.',
    sources.refusedConnections,
  )
  registry.reading('gauge', 'process_open_connections', 'Client connections open now.', sources.openConnections)
  registry.reading('gauge', 'process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss())
  registry.reading('gauge', 'nodejs_heap_size_used_bytes', 'Heap in use.', () => getHeapStatistics().used_heap_size)
  registry.reading(
    'gauge',
    'nodejs_eventloop_lag_p99_seconds',
    'Delay of the event loop since the last scrape, 99th percentile.',
    loopDelayP99Seconds,
  )

  const families = { requests, durations, cached, bytes, upstreamErrors }
  const routes = new Map<string, RouteMetrics>()
  const ofRoute = (route: string): RouteMetrics => {
    const known = routes.get(route)
    if (known !== undefined) return known
    if (routes.size >= MAX_ROUTES && route !== OTHER) return ofRoute(OTHER)
    const series = new RouteSeries(route, families)
    routes.set(route, series)
    return series
  }

  return {
    ofRoute,
    reloaded(ok, atEpochMs) {
      lastReloadSuccess = ok ? 1 : 0
      if (ok) loadedAtEpochMs = atEpochMs
    },
    keepRoutes(live) {
      const kept = new Set([...live, NO_ROUTE, OTHER])
      for (const route of routes.keys()) if (!kept.has(route)) routes.delete(route)
      registry.retain('route', kept)
    },
    text() {
      const text = registry.text()
      loopDelay.reset()
      return text
    },
    close: () => void loopDelay.disable(),
  }
}

/** Of requests that would have gone to the upstream. */
function addSavingMetrics(registry: Registry, savings: MetricSources['savings']): void {
  const perWay = (ofHits: keyof Savings, ofCollapsed: keyof Savings) => () =>
    savings().flatMap(([route, saved]) => [
      [[route, 'hit'], saved[ofHits]] as const,
      [[route, 'collapsed'], saved[ofCollapsed]] as const,
    ])
  registry.readings(
    'counter',
    'weirgate_saved_fetches_total',
    'Fetches from upstreams that were not needed: for what is stored, or since another request had sent one.',
    ['route', 'by'],
    perWay('fetches', 'collapsed_fetches'),
  )
  registry.readings(
    'counter',
    'weirgate_saved_seconds_total',
    'What those for what is stored would have taken, as long as it took to fetch, less what the answers took.',
    ['route'],
    () => savings().map(([route, { seconds }]) => [[route], seconds]),
  )
  registry.readings(
    'counter',
    'weirgate_saved_cost_total',
    'What the fetches that were not needed would have cost, in the unit of callCost.',
    ['route', 'by'],
    perWay('cost', 'collapsed_cost'),
  )
}

interface Families {
  readonly requests: Family<Counter>
  readonly durations: Family<BucketHistogram>
  readonly cached: Family<Counter>
  readonly bytes: Family<Counter>
  readonly upstreamErrors: Family<Counter>
}

/** The series of one route, as far as it has come to need them. Most requests are like the one before, whose counters are
 *  at hand. */
class RouteSeries implements RouteMetrics {
  readonly #route: string
  readonly #families: Families
  readonly #duration: BucketHistogram
  readonly #bytes: Counter
  readonly #byStatus = new Map<number, Counter>()
  readonly #byOutcome = new Map<CacheOutcome, Map<string | null, Counter>>()
  #status = 0
  #requests = new Counter()
  #outcome: CacheOutcome | null = null
  #reason: string | null = null
  #cached = new Counter()

  constructor(route: string, families: Families) {
    this.#route = route
    this.#families = families
    this.#duration = families.durations.series([route])
    this.#bytes = families.bytes.series([route])
  }

  record(ctx: RequestContext, status: number): void {
    if (status !== this.#status) this.#turnToStatus(status)
    this.#requests.add(1)
    this.#duration.observe(latencyMs(ctx, status) / 1000)
    this.#bytes.add(ctx.bytesSent)
    const { cache, cacheReason, error } = ctx
    if (cache !== null) {
      if (cache !== this.#outcome || cacheReason !== this.#reason) this.#turnToOutcome(cache, cacheReason)
      this.#cached.add(1)
    }
    if (error !== null && error.kind.source === 'upstream') this.#families.upstreamErrors.series([error.code]).add(1)
  }

  #turnToStatus(status: number): void {
    const { requests } = this.#families
    this.#requests = getOrAdd(this.#byStatus, status, () => requests.series([this.#route, String(status)]))
    this.#status = status
  }

  #turnToOutcome(outcome: CacheOutcome, reason: string | null): void {
    const { cached } = this.#families
    const byReason = getOrAdd(this.#byOutcome, outcome, () => new Map<string | null, Counter>())
    this.#cached = getOrAdd(byReason, reason, () => cached.series([this.#route, outcome, reason ?? '']))
    this.#outcome = outcome
    this.#reason = reason
  }
}

function getOrAdd<K, V>(map: Map<K, V>, key: K, create: () => V): V {
  const known = map.get(key)
  if (known !== undefined) return known
  const created = create()
  map.set(key, created)
  return created
}
