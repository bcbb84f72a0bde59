// The gateway's metrics by name. Base units are seconds and bytes; labels come from bounded sets (routes, policies,
// codes, statuses) and never carry a path, a key or a client. registry.ts does the counting and the text.

import { monitorEventLoopDelay } from 'node:perf_hooks'
import { getHeapStatistics } from 'node:v8'
import type { CacheOutcome, RequestContext } from '../core/context.ts'
import type { ErrorCode } from '../core/errors.ts'
import { Registry } from './registry.ts'
import type { BucketHistogram, Counter } from './registry.ts'
import { NO_ROUTE, OTHER } from './verdict.ts'

/** What others know and metrics tell. Each is asked once per scrape. */
export interface MetricSources {
  /** Client connections open now. */
  readonly openConnections: () => number
  /** Requests answered by the fast path. */
  readonly fastAnswers: () => number
  readonly cacheEntries: () => number
  readonly cacheBytes: () => number
  /** The copy on disk of what is stored; null without one. */
  readonly cacheDisk: { readonly isUp: boolean; readonly bytes: number } | null
  readonly droppedLogLines: () => number
  /** What the cache's tiers have done since the start. */
  readonly cacheTiers: () => readonly {
    readonly name: string
    readonly counts: Readonly<Record<TierCount, number>>
  }[]
  /** Whether Redis is there; null where none is configured. */
  readonly redisIsUp: () => boolean | null
  /** What the limits have decided since the start. */
  readonly limitDecisions: () => readonly {
    readonly policy: string
    readonly result: string
    readonly source: string
    readonly count: number
  }[]
}

type TierCount = 'hits' | 'misses' | 'bad' | 'failed' | 'written' | 'dropped'

export interface Metrics {
  /** Counts a finished request. status: as logged. */
  record(ctx: RequestContext, status: number): void
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

/** The series of one route, resolved. */
interface RouteSeries {
  readonly name: string
  readonly byStatus: Map<number, Counter>
  readonly byCache: Map<CacheOutcome, Map<string | null, Counter>>
  readonly duration: BucketHistogram
  readonly bytes: Counter
}

export function createMetrics(sources: MetricSources): Metrics {
  const registry = new Registry()
  const requests = registry.counter('weirgate_requests_total', 'Requests answered or given up.', ['route', 'status'])
  const durations = registry.histogram(
    'weirgate_request_duration_seconds',
    'From the first byte of a request to the end of its answer.',
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
    'Reads of what is stored beyond memory. bad: damaged, and removed; failed: no answer in time.',
    ['tier', 'result'],
    perTier({ hit: 'hits', miss: 'misses', bad: 'bad', failed: 'failed' }),
  )
  registry.readings(
    'counter',
    'weirgate_cache_tier_writes_total',
    'Responses for storage beyond memory. dropped: too large, too many at once, or not taken.',
    ['tier', 'result'],
    perTier({ written: 'written', dropped: 'dropped' }),
  )
  registry.readings('gauge', 'weirgate_redis_up', '1 while Redis is used, 0 while it is lost.', [], () => {
    const isUp = sources.redisIsUp()
    return isUp === null ? [] : [[[], isUp ? 1 : 0]]
  })
  registry.readings(
    'counter',
    'weirgate_limit_decisions_total',
    'Decisions of the limits: by policy, what became of it (shadowed: it would have refused), and who decided.',
    ['policy', 'result', 'source'],
    () =>
      sources.limitDecisions().map(({ policy, result, source, count }) => [[policy, result, source], count] as const),
  )
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
  registry.reading('gauge', 'process_open_connections', 'Client connections open now.', sources.openConnections)
  registry.reading('gauge', 'process_resident_memory_bytes', 'Resident memory.', () => process.memoryUsage.rss())
  registry.reading('gauge', 'nodejs_heap_size_used_bytes', 'Heap in use.', () => getHeapStatistics().used_heap_size)
  registry.reading(
    'gauge',
    'nodejs_eventloop_lag_p99_seconds',
    'Delay of the event loop since the last scrape, 99th percentile.',
    loopDelayP99Seconds,
  )

  const routes = new Map<string, RouteSeries>()
  const routeSeries = (route: string): RouteSeries => {
    const known = routes.get(route)
    if (known !== undefined) return known
    if (routes.size >= MAX_ROUTES && route !== OTHER) return routeSeries(OTHER)
    const series = {
      name: route,
      byStatus: new Map<number, Counter>(),
      byCache: new Map<CacheOutcome, Map<string | null, Counter>>(),
      duration: durations.series([route]),
      bytes: bytes.series([route]),
    }
    routes.set(route, series)
    return series
  }

  const cacheCounter = (series: RouteSeries, outcome: CacheOutcome, reason: string | null): Counter => {
    const byReason = getOrAdd(series.byCache, outcome, () => new Map<string | null, Counter>())
    return getOrAdd(byReason, reason, () => cached.series([series.name, outcome, reason ?? '']))
  }

  const byCode = new Map<ErrorCode, Counter>()

  return {
    record(ctx, status) {
      const series = routeSeries(ctx.route ?? NO_ROUTE)
      getOrAdd(series.byStatus, status, () => requests.series([series.name, String(status)])).add(1)
      series.duration.observe(ctx.durationMs / 1000)
      series.bytes.add(ctx.bytesSent)
      if (ctx.cache !== null) cacheCounter(series, ctx.cache, ctx.cacheReason).add(1)
      const { error } = ctx
      if (error !== null && error.kind.source === 'upstream') {
        getOrAdd(byCode, error.code, () => upstreamErrors.series([error.code])).add(1)
      }
    },
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

function getOrAdd<K, V>(map: Map<K, V>, key: K, create: () => V): V {
  const known = map.get(key)
  if (known !== undefined) return known
  const created = create()
  map.set(key, created)
  return created
}
