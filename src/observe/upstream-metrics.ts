// What the targets of upstreams tell: whether they get requests, and how many they have. Labels are names of the route table.

import type { UpstreamRow } from '../core/control.ts'
import type { Registry } from './registry.ts'

export interface UpstreamSources {
  readonly upstreams: () => readonly UpstreamRow[]
  /** What became of copies of requests, by upstream. */
  readonly mirrored: () => ReadonlyMap<string, Readonly<Record<string, number>>>
}

type Target = UpstreamRow['targets'][number]

export function addUpstreamMetrics(registry: Registry, { upstreams, mirrored }: UpstreamSources): void {
  const perTarget = (type: 'gauge' | 'counter', name: string, help: string, read: (target: Target) => number): void =>
    registry.readings(type, name, help, ['upstream', 'target'], () =>
      upstreams().flatMap(({ upstream, targets }) =>
        targets.map((target) => [[upstream, target.url], read(target)] as const),
      ),
    )
  perTarget(
    'gauge',
    'weirgate_upstream_target_up',
    '1 while a target gets requests, 0 while it is out.',
    ({ state }) => (state === 'out' ? 0 : 1),
  )
  perTarget(
    'counter',
    'weirgate_upstream_target_exits_total',
    'How often a target went out, for failed requests or checks.',
    ({ exits }) => exits,
  )
  perTarget(
    'gauge',
    'weirgate_upstream_target_addresses',
    'Addresses of a target, 1 where it is given by that.',
    ({ addresses }) => addresses ?? 1,
  )
  perTarget(
    'counter',
    'weirgate_upstream_resolve_failures_total',
    'Look-ups of the name of a target that have failed.',
    (target) => target.resolve_failures,
  )
  perTarget(
    'gauge',
    'weirgate_upstream_connections',
    'Connections to a target, idle ones among them.',
    ({ open_connections }) => open_connections,
  )
  perTarget(
    'gauge',
    'weirgate_upstream_requests_in_flight',
    'Requests that a target has at the moment.',
    ({ in_flight }) => in_flight,
  )
  perTarget(
    'gauge',
    'weirgate_upstream_requests_queued',
    'Requests that wait for a free connection to a target.',
    ({ queued }) => queued,
  )
  perTarget(
    'gauge',
    'weirgate_upstream_breaker_open',
    '1 while the breaker of a target is open, 0.5 while it lets one request at a time go, else 0.',
    ({ breaker }) => (breaker === null ? 0 : OPEN[breaker]),
  )
  perTarget(
    'gauge',
    'weirgate_upstream_target_cooling',
    '1 while a target gets no requests since it has asked for that by Retry-After, else 0.',
    ({ cooling_until }) => (cooling_until === null ? 0 : 1),
  )
  const perUpstream = (
    type: 'gauge' | 'counter',
    name: string,
    help: string,
    read: (upstream: UpstreamRow) => number,
  ): void =>
    registry.readings(type, name, help, ['upstream'], () =>
      upstreams().map((row) => [[row.upstream], read(row)] as const),
    )
  perUpstream(
    'counter',
    'weirgate_upstream_retries_total',
    'Further attempts that requests to an upstream have taken.',
    ({ retries }) => retries,
  )
  registry.readings(
    'gauge',
    'weirgate_upstream_limit',
    'Requests that an upstream may have at the same time at present, where the table limits them.',
    ['upstream'],
    () => upstreams().flatMap(({ upstream, limit }) => (limit === null ? [] : [[[upstream], limit] as const])),
  )
  perUpstream(
    'counter',
    'weirgate_upstream_hedges_total',
    'Requests sent to a second target since the first was late.',
    ({ hedges }) => hedges,
  )
  perUpstream(
    'counter',
    'weirgate_upstream_hedges_won_total',
    'Those of them that the second target answered first.',
    (row) => row.hedges_won,
  )
  perUpstream(
    'gauge',
    'weirgate_upstream_waiting',
    'Requests that wait until an upstream may have one more.',
    ({ waiting }) => waiting,
  )
  perUpstream(
    'counter',
    'weirgate_upstream_refused_total',
    'Requests refused because an upstream had as many as it may have.',
    ({ refused }) => refused,
  )
  registry.readings(
    'counter',
    'weirgate_mirrored_requests_total',
    'Copies of requests, by what became of them. dropped: too many at the same time; too_long: the body was.',
    ['upstream', 'result'],
    () =>
      upstreams().flatMap(({ upstream }) =>
        MIRROR_RESULTS.map((result) => [[upstream, result], mirrored().get(upstream)?.[result] ?? 0] as const),
      ),
  )
}

const MIRROR_RESULTS = ['answered', 'failed', 'dropped', 'too_long'] as const

const OPEN = { closed: 0, 'half-open': 0.5, open: 1 } as const
