// What the limits tell: who has decided, how it goes with Redis, and what they hold. Stores count where it happens; here it is
// read and named. Labels are policies and words of ours.

import type { BucketHistogram } from '../core/bucket-histogram.ts'
import type { Registry } from './registry.ts'

export interface LimitSources {
  /** What the limits have decided since the start. */
  readonly limitDecisions: () => readonly {
    readonly policy: string
    readonly result: string
    readonly source: string
    readonly count: number
  }[]
  /** Units by policies that charge what was used: reserved, and charged in the end. */
  readonly limitReservations: () => readonly {
    readonly policy: string
    readonly reserved: number
    readonly charged: number
  }[]
  /** Tokens used, and not used, on routes whose limits count them. */
  readonly tokens: () => readonly {
    readonly route: string
    readonly kind: string
    readonly source: string
    readonly count: number
  }[]
  /** How the stores that count are doing. */
  readonly limitStores: () => LimitStores
}

export interface LimitStores {
  /** Subjects that this process counts. */
  readonly subjects: number
  /** Requests, by policy, that found no room there and were counted together with other strangers. */
  readonly overflowed: number
  /** Null where no Redis counts. */
  readonly shared: {
    /** False while the limits do without Redis. */
    readonly isUsed: boolean
    /** Instances that count there. */
    readonly instances: number
    /** Subjects of which it is known how they stand there. */
    readonly known: number
    /** Subjects whose use Redis is yet to hear of. */
    readonly owed: number
    /** Units of others, which it will not hear of. */
    readonly forgiven: number
    /** Requests that went together. */
    readonly batches: BucketHistogram
    /** Seconds from the first request of a call to its answer, or to the end of waiting for one. */
    readonly waits: BucketHistogram
  } | null
  /** Units taken beforehand; null where no Redis counts. */
  readonly leases: {
    /** Held now, and not spent. */
    readonly held: number
    readonly taken: number
    readonly returned: number
    /** Neither spent nor returned when their time was over. */
    readonly lapsed: number
  } | null
}

export function addLimitMetrics(registry: Registry, sources: LimitSources): void {
  const { limitDecisions, limitReservations, tokens, limitStores } = sources
  registry.readings(
    'counter',
    'weirgate_limit_decisions_total',
    'Decisions of the limits: by policy, what became of it (shadowed: it would have refused), and who decided.',
    ['policy', 'result', 'source'],
    () => limitDecisions().map(({ policy, result, source, count }) => [[policy, result, source], count] as const),
  )
  registry.readings(
    'counter',
    'weirgate_limit_units_total',
    'Units of limits in tokens or cost, of requests that are over: reserved for them, and charged in the end.',
    ['policy', 'event'],
    () =>
      limitReservations().flatMap(({ policy, reserved, charged }) => [
        [[policy, 'reserved'], reserved] as const,
        [[policy, 'charged'], charged] as const,
      ]),
  )
  registry.readings(
    'counter',
    'weirgate_tokens_total',
    'Tokens on routes with limits in tokens or cost. actual: as answers say; saved: by answers from the cache, as much as a call takes on average.',
    ['route', 'kind', 'source'],
    () => tokens().map(({ route, kind, source, count }) => [[route, kind, source], count] as const),
  )
  registry.readings(
    'gauge',
    'weirgate_limit_subjects',
    'Entries for clients that the limits hold: counted in this process, or known of those that Redis counts.',
    ['where'],
    () => {
      const { subjects, shared } = limitStores()
      return [[['memory'], subjects] as const, ...(shared === null ? [] : [[['redis'], shared.known] as const])]
    },
  )
  registry.reading(
    'counter',
    'weirgate_limit_overflow_total',
    'Checks of clients for whom there was no room and who were counted together with others.',
    () => limitStores().overflowed,
  )

  type Shared = NonNullable<LimitStores['shared']>
  const shared = (type: 'gauge' | 'counter', name: string, help: string, read: (shared: Shared) => number): void =>
    registry.readings(type, name, help, [], () => {
      const { shared } = limitStores()
      return shared === null ? [] : [[[], read(shared)]]
    })
  shared(
    'gauge',
    'weirgate_limit_redis_used',
    '1 while the limits count in Redis, 0 while this instance goes by its own share alone.',
    ({ isUsed }) => (isUsed ? 1 : 0),
  )
  shared('gauge', 'weirgate_limit_instances', 'Instances that share the limits.', ({ instances }) => instances)
  registry.histogramReading(
    'weirgate_limit_batch_requests',
    'Requests that are sent to Redis together.',
    () => limitStores().shared?.batches ?? null,
  )
  registry.histogramReading(
    'weirgate_limit_wait_seconds',
    'How long the first of the requests that are sent together waits for Redis.',
    () => limitStores().shared?.waits ?? null,
  )
  shared('gauge', 'weirgate_limit_debts', 'Clients whose use without Redis it is yet to hear of.', ({ owed }) => owed)
  shared(
    'counter',
    'weirgate_limit_debt_units_dropped_total',
    'Units used without Redis that it will not hear of, since there were too many clients.',
    ({ forgiven }) => forgiven,
  )
  registry.readings(
    'gauge',
    'weirgate_limit_lease_units',
    'Units taken from Redis beforehand and not spent yet: what others are refused though nobody has used it.',
    [],
    () => {
      const { leases } = limitStores()
      return leases === null ? [] : [[[], leases.held]]
    },
  )
  registry.readings(
    'counter',
    'weirgate_limit_lease_units_total',
    'Units taken from Redis beforehand, and what was not spent: returned, or lapsed with the block.',
    ['event'],
    () => {
      const { leases } = limitStores()
      if (leases === null) return []
      return (['taken', 'returned', 'lapsed'] as const).map((event) => [[event], leases[event]] as const)
    },
  )
}
