import { describe, expect, it } from 'vitest'
import type { RequestContext } from '../../src/core/context.ts'
import { GatewayError } from '../../src/core/errors.ts'
import { type Statistics, createStatistics } from '../../src/observe/statistics.ts'
import { NO_ROUTE } from '../../src/observe/verdict.ts'
import { finished } from './request.ts'

const SECOND = 1000

const record = (statistics: Statistics, ctx: RequestContext, status: number): void =>
  statistics.ofRoute(ctx.route ?? NO_ROUTE).record(ctx, status)

describe('a row', () => {
  it('counts requests, bytes and outcomes of its route, and the total counts all', () => {
    const statistics = createStatistics(0)
    record(statistics, finished({ route: '/a', cache: 'hit', bytesSent: 10 }), 200)
    record(statistics, finished({ route: '/a', cache: 'miss', bytesSent: 20 }), 200)
    record(statistics, finished({ route: '/b', bytesSent: 5 }), 200)
    const { total, routes } = statistics.snapshot(SECOND).since_start
    expect(routes['/a']).toMatchObject({ requests: 2, bytes: 30, cache: { hit: 1, miss: 1, bypass: 0 } })
    expect(routes['/b']).toMatchObject({ requests: 1, bytes: 5 })
    expect(total).toMatchObject({ requests: 3, bytes: 35, cache: { hit: 1, miss: 1 } })
  })

  it('puts requests that no route matched under (none)', () => {
    const statistics = createStatistics(0)
    record(statistics, finished({ route: null }), 404)
    expect(statistics.snapshot(0).since_start.routes['(none)']?.requests).toBe(1)
  })

  it('has latencies in milliseconds', () => {
    const statistics = createStatistics(0)
    for (let ms = 1; ms <= 100; ms++) record(statistics, finished({ route: '/a', durationMs: ms }), 200)
    const { latency_ms } = statistics.snapshot(0).since_start.total
    expect(latency_ms.mean).toBe(50.5)
    expect(latency_ms.max).toBe(100)
    expect(Math.abs(latency_ms.p50 - 50)).toBeLessThan(2.5)
    expect(Math.abs(latency_ms.p95 - 95)).toBeLessThan(4.75)
    expect(Math.abs(latency_ms.p99 - 99)).toBeLessThan(4.95)
  })

  it.each([
    ['a 500 of the upstream', 500, null, 1],
    ['a 502 of the gateway', 502, new GatewayError('upstream_reset', ''), 1],
    ['an answer that broke after its head', 200, new GatewayError('upstream_reset', ''), 1],
    ['a client that left', 499, new GatewayError('client_gone', ''), 0],
    ['a client that left while the upstream failed', 499, new GatewayError('upstream_reset', ''), 0],
    ['a refusal for the client', 404, new GatewayError('no_route', ''), 0],
    ['a good answer', 200, null, 0],
  ])('%s (%i) counts %s as %i errors', (_what, status, error, errors) => {
    const statistics = createStatistics(0)
    record(statistics, finished({ route: '/a', status, error }), status)
    expect(statistics.snapshot(0).since_start.total.errors).toBe(errors)
  })

  it('counts a request as limited only where the limits refused it', () => {
    const statistics = createStatistics(0)
    const quota = { policy: 'per-client', limit: 60, remaining: 0 }
    record(statistics, finished({ route: '/a', quota: { ...quota, admitted: false } }), 429)
    record(statistics, finished({ route: '/a', quota: { ...quota, admitted: true } }), 200)
    expect(statistics.snapshot(0).since_start.total.limited).toBe(1)
  })
})

describe('saved', () => {
  const ofTotal = (statistics: Statistics) => statistics.snapshot(SECOND).since_start.total.saved
  const nothing = { fetches: 0, seconds: 0, cost: 0, collapsed_fetches: 0, collapsed_cost: 0 }

  it('is what spared fetches had taken, less what their answers took, and what they cost', () => {
    const statistics = createStatistics(0)
    const route = statistics.ofRoute('/a', 0.02)
    for (let i = 0; i < 3; i++) route.record(finished({ cache: 'hit', sparedMs: 10_000, durationMs: 4 }), 200)
    const saved = { fetches: 3, seconds: 29.988, cost: 0.06, collapsed_fetches: 0, collapsed_cost: 0 }
    expect(ofTotal(statistics)).toEqual(saved)
    expect(statistics.snapshot(SECOND).last_minute.routes['/a']?.saved).toEqual(saved)
    expect(statistics.savings()).toEqual([['/a', saved]])
  })

  it.each([
    ['a fetch that was sent', { cache: 'miss', sparedMs: null }, nothing],
    ['a spared fetch of unknown length', { cache: 'hit', sparedMs: 0 }, { ...nothing, fetches: 1, cost: 2 }],
    [
      'an answer slower than the fetch',
      { cache: 'hit', sparedMs: 3, durationMs: 9 },
      { ...nothing, fetches: 1, cost: 2 },
    ],
    ['one that waited for another', { cache: 'collapsed' }, { ...nothing, collapsed_fetches: 1, collapsed_cost: 2 }],
  ] as const)('of %s', (_what, how, saved) => {
    const statistics = createStatistics(0)
    statistics.ofRoute('/a', 2).record(finished(how), 200)
    expect(ofTotal(statistics)).toEqual(saved)
  })

  it('keeps what was saved at the price of its time, and of routes that are gone', () => {
    const statistics = createStatistics(0)
    statistics.ofRoute('/a', 1).record(finished({ cache: 'hit', sparedMs: 1000, durationMs: 0 }), 200)
    statistics.ofRoute('/a', 5).record(finished({ cache: 'hit', sparedMs: 1000, durationMs: 0 }), 200)
    statistics.keepRoutes(new Set())
    expect(ofTotal(statistics)).toMatchObject({ fetches: 2, seconds: 2, cost: 6 })
    expect(statistics.savings()).toEqual([])
  })
})

describe('hit_rate', () => {
  it('is null where no request consulted the cache', () => {
    const statistics = createStatistics(0)
    record(statistics, finished({ route: '/a', cache: null }), 200)
    record(statistics, finished({ route: '/a', cache: 'bypass' }), 200)
    expect(statistics.snapshot(0).since_start.total.hit_rate).toBeNull()
  })

  it('counts stale answers as hits, and leaves bypasses out', () => {
    const statistics = createStatistics(0)
    for (const cache of ['hit', 'stale', 'miss', 'collapsed', 'revalidated', 'bypass', 'bypass'] as const) {
      record(statistics, finished({ route: '/a', cache }), 200)
    }
    expect(statistics.snapshot(0).since_start.total.hit_rate).toBe(0.4)
  })
})

describe('the last minute', () => {
  const requestsAt = (nowMs: number) => {
    const statistics = createStatistics(0)
    const route = statistics.ofRoute('/a')
    for (const endedAtSeconds of [1, 30, 58, 62, 90]) {
      // A request belongs to the moment at which it ended.
      route.record(finished({ receivedAtMs: (endedAtSeconds - 1) * SECOND, durationMs: SECOND }), 200)
    }
    return statistics.snapshot(nowMs).last_minute.total.requests
  }

  it.each([
    // At 90 s the ring reaches back to 35 s: the newest slice has just begun, so the minute is 55 s long.
    [90, 3],
    [94.9, 3],
    [114.9, 3],
    [115, 2],
    [120, 1],
    [145, 1],
    [150, 0],
    [10_000, 0],
  ])('at %d s holds %i of the requests that ended at 1, 30, 58, 62 and 90 s', (atSeconds, requests) => {
    expect(requestsAt(atSeconds * SECOND)).toBe(requests)
  })

  it('leaves a request out that ends in a slice which another route has turned already, and counts the next', () => {
    const statistics = createStatistics(0)
    const [early, late] = [statistics.ofRoute('/a'), statistics.ofRoute('/b')]
    late.record(finished({ receivedAtMs: 1 * SECOND }), 200)
    early.record(finished({ receivedAtMs: 61 * SECOND }), 200)
    for (const endedAtSeconds of [1, 61, 1]) late.record(finished({ receivedAtMs: endedAtSeconds * SECOND }), 200)
    const { since_start, last_minute } = statistics.snapshot(61 * SECOND)
    expect(last_minute.routes).toMatchObject({ '/a': { requests: 1 }, '/b': { requests: 1 } })
    expect(last_minute.total.requests).toBe(2)
    expect(since_start.routes['/b']?.requests).toBe(4)
  })

  it('forgets nothing of what happened since start', () => {
    const statistics = createStatistics(0)
    record(statistics, finished({ route: '/a' }), 200)
    const { since_start, last_minute } = statistics.snapshot(600 * SECOND)
    expect(since_start.routes['/a']?.requests).toBe(1)
    expect(last_minute.routes).toEqual({})
    expect(last_minute.total.latency_ms).toEqual({ mean: 0, p50: 0, p95: 0, p99: 0, max: 0 })
  })

  it('has quantiles over all its slices', () => {
    const statistics = createStatistics(0)
    for (let second = 0; second < 60; second++) {
      record(statistics, finished({ route: '/a', receivedAtMs: second * SECOND, durationMs: 10 }), 200)
    }
    const row = statistics.snapshot(59 * SECOND).last_minute.routes['/a']
    expect(row?.requests).toBe(60)
    expect(row?.latency_ms.mean).toBe(10)
  })
})

describe('bounds and reload', () => {
  it('counts routes beyond the bound as (other)', () => {
    const statistics = createStatistics(0, 2)
    for (const route of ['/a', '/b', '/c', '/d', '/a']) record(statistics, finished({ route }), 200)
    const { routes, total } = statistics.snapshot(0).since_start
    expect(Object.fromEntries(Object.entries(routes).map(([name, row]) => [name, row.requests]))).toEqual({
      '/a': 2,
      '/b': 1,
      '(other)': 2,
    })
    expect(total.requests).toBe(5)
  })

  it('forgets routes that are gone after a reload, but not what they had counted in the total', () => {
    const statistics = createStatistics(0)
    for (const route of ['/kept', '/gone', null]) record(statistics, finished({ route, durationMs: 8 }), 200)
    statistics.keepRoutes(new Set(['/kept']))
    statistics.keepRoutes(new Set(['/kept']))
    record(statistics, finished({ route: '/kept' }), 200)
    const { routes, total } = statistics.snapshot(0).since_start
    expect(Object.keys(routes).toSorted()).toEqual(['(none)', '/kept'])
    expect(total).toMatchObject({ requests: 4, latency_ms: { mean: 6, max: 8 } })
  })

  it('tells whole seconds since start', () => {
    expect(createStatistics(2 * SECOND).snapshot(12.4 * SECOND).uptime_s).toBe(10)
  })
})
