// A gateway for the tests of this folder: answers with fixed values and remembers what was asked of it.

import type { Control, Explanation, HealthReport, LimitStanding, Stats, StatsRow } from '../../src/core/control.ts'

export const HEALTH: HealthReport = {
  status: 'ok',
  redis: 'off',
  upstreams: { presentation: 'ok' },
  overload: null,
  config: { loaded_at: '2026-01-01T00:00:00.000Z', error: null },
  version: '0.1.0',
  uptime_s: 5,
}

const ROW: StatsRow = {
  requests: 2,
  errors: 0,
  limited: 0,
  cache: { hit: 1, miss: 1 },
  hit_rate: 0.5,
  bytes: 100,
  saved: { fetches: 1, seconds: 2, cost: 0, collapsed_fetches: 0, collapsed_cost: 0 },
  latency_ms: { mean: 1, p50: 1, p95: 2, p99: 2, max: 2 },
}

export const STATS: Stats = {
  uptime_s: 5,
  since_start: { total: ROW, routes: { '/a': ROW } },
  last_minute: { total: ROW, routes: {} },
  cache: { entries: 1, bytes: 50, max_bytes: 1000 },
  near_misses: {},
  limits: {},
}

export const EXPLANATION: Explanation = {
  method: 'GET',
  host: 'gateway.test',
  target: '/a',
  client_ip: '127.0.0.1',
  user: null,
  route: '/a',
  upstream: 'presentation',
  upstream_target: '/a',
  limits: [],
  cache: null,
  idempotency: null,
  refused: null,
}

export const STANDING: LimitStanding = {
  policy: 'one',
  mode: 'enforce',
  key: 'ip=192.0.2.7',
  admitted: true,
  limit: 10,
  remaining: 7,
  retry_after_s: null,
  full_after_s: 60,
}

/** asked: every call with an argument, in order. */
export function controlWith(parts: Partial<Control> = {}): { control: Control; asked: [string, unknown][] } {
  const asked: [string, unknown][] = []
  const control: Control = {
    health: () => HEALTH,
    metrics: () => 'up 1\n',
    stats: () => STATS,
    routes: () => [
      {
        route: '/a',
        host: null,
        path: '/a',
        methods: ['GET'],
        upstream: 'presentation',
        canary: null,
        mirror: null,
        cache: 'ttl 1h',
        limits: [],
        websocket: false,
        idempotency: null,
      },
    ],
    upstreams: () => [
      {
        upstream: 'presentation',
        retries: 0,
        hedges: 0,
        hedges_won: 0,
        limit: null,
        waiting: 0,
        refused: 0,
        targets: [
          {
            url: 'http://127.0.0.1:8000',
            weight: 1,
            takes: 'all',
            state: 'up',
            breaker: null,
            cooling_until: null,
            exits: 0,
            addresses: null,
            resolve_failures: 0,
            open_connections: 1,
            in_flight: 0,
            queued: 0,
          },
        ],
      },
    ],
    config: () => ({ admin: { token: '***' } }),
    explain(request) {
      asked.push(['explain', request])
      return Promise.resolve(EXPLANATION)
    },
    purge(request) {
      asked.push(['purge', request])
      return Promise.resolve({
        purged: 3,
        instances: [{ instance: 'here-1', purged: 3 }],
        unacknowledged: [],
        shared: null,
      })
    },
    entries(url) {
      asked.push(['entries', url])
      return Promise.resolve({ entries: [], truncated: false })
    },
    freeKey(route, key) {
      asked.push(['freeKey', { route, key }])
      return Promise.resolve({ route, key_digest: 'digest', freed: 1, shared: null })
    },
    limits: () => [],
    limitStanding(policy, subject) {
      asked.push(['limitStanding', { policy, subject }])
      return Promise.resolve({ ...STANDING, policy })
    },
    resetLimit(policy, subject) {
      asked.push(['resetLimit', { policy, subject }])
      return Promise.resolve({ ...STANDING, policy })
    },
    refundLimit(policy, subject, units) {
      asked.push(['refundLimit', { policy, subject, units }])
      return Promise.resolve({ ...STANDING, policy })
    },
    limitTop: (policy) => Promise.resolve({ policy, subjects: [] }),
    reload() {
      asked.push(['reload', null])
      return Promise.resolve({ ok: true, loaded_at: '2026-01-02T00:00:00.000Z' })
    },
    ...parts,
  }
  return { control, asked }
}
