import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { BucketHistogram } from '../../src/core/bucket-histogram.ts'
import type { RequestContext } from '../../src/core/context.ts'
import { GatewayError } from '../../src/core/errors.ts'
import { createMetrics } from '../../src/observe/metrics.ts'
import type { Metrics } from '../../src/observe/metrics.ts'
import { NO_ROUTE } from '../../src/observe/verdict.ts'
import { finished } from './request.ts'

const histogramOf = (bounds: readonly number[], values: readonly number[]): BucketHistogram => {
  const histogram = new BucketHistogram(bounds)
  for (const each of values) histogram.observe(each)
  return histogram
}

const sources = {
  refusedConnections: () => 8,
  fastAnswers: () => 0,
  openWebSockets: () => 3,
  openConnections: () => 7,
  cacheEntries: () => 3,
  cacheBytes: () => 2048,
  cacheDisk: { isUp: true, bytes: 4096 },
  overload: { isOver: true, isFull: true, lagMs: 350, refused: 6 },
  droppedLogLines: () => 5,
  savings: () =>
    [['/a', { fetches: 3, seconds: 28.5, cost: 0.06, collapsed_fetches: 2, collapsed_cost: 0.04 }]] as const,
  cacheTiers: () => [
    { name: 'redis', counts: { hits: 4, misses: 3, bad: 2, locked: 5, failed: 1, written: 6, dropped: 0 } },
  ],
  redisUp: () => 0,
  mirrored: () => new Map(),
  upstreams: () => [
    {
      upstream: 'app',
      retries: 7,
      hedges: 0,
      hedges_won: 0,
      limit: null,
      waiting: 0,
      refused: 0,
      targets: [
        {
          url: 'http://a:1',
          weight: 1,
          takes: 'all',
          state: 'up',
          breaker: null,
          cooling_until: null,
          exits: 0,
          addresses: null,
          resolve_failures: 0,
          open_connections: 5,
          in_flight: 3,
          queued: 0,
        },
        {
          url: 'http://b:1',
          weight: 1,
          takes: 'all',
          state: 'out',
          breaker: 'half-open',
          cooling_until: '2026-11-22T12:00:00.000Z',
          exits: 2,
          addresses: null,
          resolve_failures: 0,
          open_connections: 0,
          in_flight: 0,
          queued: 4,
        },
      ] as const,
    },
  ],
  limitDecisions: () => [
    { policy: 'per-client', result: 'refused', source: 'memory', count: 2 },
    { policy: 'per-client', result: 'shadowed', source: 'redis', count: 1 },
  ],
  limitReservations: () => [{ policy: 'tpm', reserved: 3000, charged: 1200 }],
  tokens: () => [{ route: '/chat', kind: 'output', source: 'actual', count: 900 }],
  limitStores: () => ({
    subjects: 11,
    overflowed: 12,
    shared: {
      isUsed: true,
      instances: 3,
      known: 13,
      owed: 14,
      forgiven: 15,
      batches: histogramOf([1, 2, 4], [1, 3, 100]),
      waits: histogramOf([0.001], [0.0005]),
    },
    leases: { held: 16, taken: 17, returned: 18, lapsed: 19 },
  }),
  purgeLog: () => ({ own: 21, others: 22, gaps: 23, owed: 24, ageMs: 1500 as number | null }),
  fetchLeases: () => ({ led: 31, followed: 32, lost: 33, unanswered: 34 }),
  idempotency: () => ({
    counts: { first: 41, replayed: 42 },
    table: { keys: 43, bytes: 44, dropped: { answers: 45, keys: 46 } },
    shared: { owed: 47, lost: 48 } as { owed: number; lost: number } | null,
  }),
  detached: () => ({ running: 35, counts: { used: 36, wasted: 37 } }),
}

/** Of a gateway that stands alone. */
const alone = {
  ...sources,
  limitDecisions: () => [],
  cacheDisk: null,
  cacheTiers: () => [],
  savings: () => [],
  redisUp: () => null,
  mirrored: () => new Map(),
  upstreams: () => [],
  limitReservations: () => [],
  tokens: () => [],
  limitStores: () => ({ subjects: 11, overflowed: 0, shared: null, leases: null }),
  purgeLog: () => null,
  fetchLeases: () => null,
  idempotency: () => ({ counts: {}, table: { keys: 0, bytes: 0, dropped: { answers: 0, keys: 0 } }, shared: null }),
}

let metrics: Metrics
beforeEach(() => {
  metrics = createMetrics(sources)
})
afterEach(() => metrics.close())

const lines = (): string[] => metrics.text().split('\n')

const record = (ctx: RequestContext, status: number): void => metrics.ofRoute(ctx.route ?? NO_ROUTE).record(ctx, status)

/** The value of one series, or null where it is not there. */
function value(series: string): number | null {
  const line = lines().find((candidate) => candidate.startsWith(`${series} `))
  return line === undefined ? null : Number(line.slice(series.length + 1))
}

describe('the limits', () => {
  it('are told by policy, result and who decided', () => {
    const labels = (result: string, source: string) => `{policy="per-client",result="${result}",source="${source}"}`
    expect(value(`weirgate_limit_decisions_total${labels('refused', 'memory')}`)).toBe(2)
    expect(value(`weirgate_limit_decisions_total${labels('shadowed', 'redis')}`)).toBe(1)
  })
})

describe('tokens', () => {
  it('are told by route, kind and source, and by policy as reserved and as charged', () => {
    expect(value('weirgate_tokens_total{route="/chat",kind="output",source="actual"}')).toBe(900)
    expect(value('weirgate_limit_units_total{policy="tpm",event="reserved"}')).toBe(3000)
    expect(value('weirgate_limit_units_total{policy="tpm",event="charged"}')).toBe(1200)
  })
})

describe('a finished request', () => {
  it('is counted by route and status, with its bytes and its duration', () => {
    record(finished({ route: '/a', bytesSent: 100, durationMs: 30 }), 200)
    record(finished({ route: '/a', bytesSent: 50, durationMs: 2 }), 200)
    record(finished({ route: '/a' }), 499)
    expect(value('weirgate_requests_total{route="/a",status="200"}')).toBe(2)
    expect(value('weirgate_requests_total{route="/a",status="499"}')).toBe(1)
    expect(value('weirgate_response_bytes_total{route="/a"}')).toBe(150)
    expect(value('weirgate_request_duration_seconds_count{route="/a"}')).toBe(3)
    expect(value('weirgate_request_duration_seconds_sum{route="/a"}')).toBeCloseTo(0.032)
    expect(value('weirgate_request_duration_seconds_bucket{route="/a",le="0.025"}')).toBe(2)
    expect(value('weirgate_request_duration_seconds_bucket{route="/a",le="0.05"}')).toBe(3)
  })

  it('is counted under (none) where no route matched', () => {
    record(finished({ route: null }), 404)
    expect(value('weirgate_requests_total{route="(none)",status="404"}')).toBe(1)
  })

  it('is counted by what the cache did and why, where the cache was asked', () => {
    record(finished({ route: '/a', cache: 'hit' }), 200)
    record(finished({ route: '/a', cache: 'miss', cacheReason: 'absent' }), 200)
    record(finished({ route: '/a', cache: null }), 200)
    expect(value('weirgate_cache_requests_total{route="/a",outcome="hit",reason=""}')).toBe(1)
    expect(value('weirgate_cache_requests_total{route="/a",outcome="miss",reason="absent"}')).toBe(1)
    expect(lines().filter((line) => line.startsWith('weirgate_cache_requests_total'))).toHaveLength(2)
  })

  it('is counted as an upstream error only where the upstream was at fault', () => {
    record(finished({ error: new GatewayError('timeout_first_byte', '') }), 504)
    record(finished({ error: new GatewayError('saturated', '') }), 503)
    record(finished({ error: new GatewayError('bad_message', '') }), 400)
    expect(lines().filter((line) => line.startsWith('weirgate_upstream_errors_total'))).toEqual([
      'weirgate_upstream_errors_total{code="timeout_first_byte"} 1',
    ])
  })

  it('leaves no trace of path, query or client in the text', () => {
    record(finished({ route: '/a', path: '/secret-path', query: '?secret=1', clientAddress: '198.51.100.9' }), 200)
    expect(metrics.text()).not.toMatch(/secret|198\.51/)
  })
})

describe('what is read at a scrape', () => {
  it.each([
    ['process_open_connections', 7],
    ['weirgate_connections_refused_total', 8],
    ['weirgate_cache_entries', 3],
    ['weirgate_cache_bytes', 2048],
    ['weirgate_log_dropped_lines_total', 5],
    ['weirgate_overloaded', 1],
    ['weirgate_overload_not_storing', 1],
    ['weirgate_overload_lag_seconds', 0.35],
    ['weirgate_overload_refused_total', 6],
    ['weirgate_cache_tier_reads_total{tier="redis",result="hit"}', 4],
    ['weirgate_cache_tier_reads_total{tier="redis",result="bad"}', 2],
    ['weirgate_cache_tier_reads_total{tier="redis",result="locked"}', 5],
    ['weirgate_cache_tier_writes_total{tier="redis",result="written"}', 6],
    ['weirgate_redis_up', 0],
    ['weirgate_limit_subjects{where="memory"}', 11],
    ['weirgate_limit_subjects{where="redis"}', 13],
    ['weirgate_limit_overflow_total', 12],
    ['weirgate_limit_redis_used', 1],
    ['weirgate_limit_instances', 3],
    ['weirgate_limit_batch_requests_bucket{le="2"}', 1],
    ['weirgate_limit_batch_requests_bucket{le="+Inf"}', 3],
    ['weirgate_limit_batch_requests_sum', 104],
    ['weirgate_limit_wait_seconds_count', 1],
    ['weirgate_limit_debts', 14],
    ['weirgate_limit_debt_units_dropped_total', 15],
    ['weirgate_limit_lease_units', 16],
    ['weirgate_limit_lease_units_total{event="taken"}', 17],
    ['weirgate_limit_lease_units_total{event="returned"}', 18],
    ['weirgate_limit_lease_units_total{event="lapsed"}', 19],
    ['weirgate_purge_log_records_total{from="here"}', 21],
    ['weirgate_purge_log_records_total{from="others"}', 22],
    ['weirgate_purge_log_gaps_total', 23],
    ['weirgate_purge_log_owed', 24],
    ['weirgate_purge_log_age_seconds', 1.5],
    ['weirgate_fetch_leases_total{result="led"}', 31],
    ['weirgate_fetch_leases_total{result="followed"}', 32],
    ['weirgate_fetch_leases_total{result="lost"}', 33],
    ['weirgate_fetch_leases_total{result="unanswered"}', 34],
    ['weirgate_idempotency_requests_total{outcome="first"}', 41],
    ['weirgate_idempotency_requests_total{outcome="replayed"}', 42],
    ['weirgate_idempotency_keys', 43],
    ['weirgate_idempotency_bytes', 44],
    ['weirgate_idempotency_dropped_total{what="answers"}', 45],
    ['weirgate_idempotency_dropped_total{what="keys"}', 46],
    ['weirgate_idempotency_owed', 47],
    ['weirgate_idempotency_lost_total', 48],
  ])('%s is %i', (name, expected) => {
    expect(value(name)).toBe(expected)
  })

  it('without Redis says nothing of what there is only with it', () => {
    metrics.close()
    metrics = createMetrics(alone)
    expect(metrics.text()).not.toMatch(
      /redis|purge_log|fetch_lease|limit_(?:batch|wait|lease|debt|instances)|idempotency_(?:owed|lost)/,
    )
    expect(value('weirgate_limit_subjects{where="memory"}')).toBe(11)
  })

  it('memory and the loop have plausible values', () => {
    expect(value('process_resident_memory_bytes')).toBeGreaterThan(1e7)
    expect(value('nodejs_heap_size_used_bytes')).toBeGreaterThan(1e6)
    expect(value('nodejs_eventloop_lag_p99_seconds')).toBeGreaterThanOrEqual(0)
  })

  it('a blocked event loop shows, and is forgotten after the scrape', async () => {
    await expect.poll(lagsOfTwoScrapes, { timeout: 5000 }).toEqual([expect.toSatisfy((s: number) => s > 0.05), 0])

    async function lagsOfTwoScrapes(): Promise<(number | null)[]> {
      // The first sample only starts the measurement: one must pass before the loop is blocked.
      await new Promise((resolve) => setTimeout(resolve, 60))
      const untilMs = performance.now() + 150
      while (performance.now() < untilMs);
      await new Promise((resolve) => setTimeout(resolve, 30))
      return [value('nodejs_eventloop_lag_p99_seconds'), value('nodejs_eventloop_lag_p99_seconds')]
    }
  })
})

describe('reload', () => {
  it('a failed load shows, and the time of the good one stays', () => {
    metrics.reloaded(true, 1_700_000_000_500)
    expect(value('weirgate_config_last_reload_success')).toBe(1)
    metrics.reloaded(false, 1_800_000_000_000)
    expect(value('weirgate_config_last_reload_success')).toBe(0)
    expect(value('weirgate_config_loaded_timestamp_seconds')).toBe(1_700_000_000.5)
  })

  it('drops the series of routes that are gone and counts anew if they come back', () => {
    for (const route of ['/kept', '/gone', null]) record(finished({ route, cache: 'hit' }), 200)
    metrics.keepRoutes(new Set(['/kept']))
    expect(metrics.text()).not.toContain('/gone')
    expect(value('weirgate_requests_total{route="/kept",status="200"}')).toBe(1)
    expect(value('weirgate_requests_total{route="(none)",status="200"}')).toBe(1)
    record(finished({ route: '/gone' }), 200)
    record(finished({ route: '/kept' }), 200)
    expect(value('weirgate_requests_total{route="/gone",status="200"}')).toBe(1)
    expect(value('weirgate_requests_total{route="/kept",status="200"}')).toBe(2)
  })
})

it('every line of the text is a comment or one sample', () => {
  record(finished({ route: 'odd "route"\\\n', cache: 'miss', cacheReason: 'absent' }), 200)
  const sample = /^[a-z0-9_]+(\{([a-z]+="([^"\\\n]|\\["\\n])*",?)*\})? -?[0-9.e+]+$/
  for (const line of lines().slice(0, -1))
    expect(line).toMatch(line.startsWith('#') ? /^# (HELP|TYPE) [a-z_0-9]+ ./ : sample)
})
