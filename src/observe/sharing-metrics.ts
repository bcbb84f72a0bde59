// What instances with one Redis tell of each other: whether purges of all have been carried out here, and who fetches for whom.

import type { Registry } from './registry.ts'

export interface SharingSources {
  /** The part of Redis that is up, from 0 to 1; null where there is none. */
  readonly redisUp: () => number | null
  /** Null where there is no log. */
  readonly purgeLog: () => {
    /** Purges carried out: of this instance, and of the others. */
    readonly own: number
    readonly others: number
    /** How often the log did not tell all that was missed, and what was in doubt was dropped. */
    readonly gaps: number
    /** Purges of this instance that wait for Redis. */
    readonly owed: number
    /** Milliseconds since it was last certain that all purges have been carried out here; null: never yet. */
    readonly ageMs: number | null
  } | null
  /** The rights to fetch on behalf of all instances: how often this one has had it, has waited for who had it and heard of
   *  the end, has heard of none, or could not ask. Null where there are no other instances. */
  readonly fetchLeases: () => Readonly<Record<FetchLease, number>> | null
}

type FetchLease = 'led' | 'followed' | 'lost' | 'unanswered'
const FETCH_LEASES: readonly FetchLease[] = ['led', 'followed', 'lost', 'unanswered']

export function addSharingMetrics(registry: Registry, { redisUp, purgeLog, fetchLeases }: SharingSources): void {
  registry.readings(
    'gauge',
    'weirgate_redis_up',
    '1 while Redis is used, 0 while it is lost; of a Redis Cluster the part of the masters that is used.',
    [],
    () => {
      const up = redisUp()
      return up === null ? [] : [[[], up]]
    },
  )
  registry.readings(
    'counter',
    'weirgate_purge_log_records_total',
    'Purges of the log that were carried out here, by where they came from.',
    ['from'],
    () => {
      const log = purgeLog()
      return log === null ? [] : [[['here'], log.own] as const, [['others'], log.others] as const]
    },
  )
  registry.readings(
    'gauge',
    'weirgate_purge_log_age_seconds',
    'Since it was last certain that all purges have been carried out here; below 2 while all is well.',
    [],
    () => {
      const ageMs = purgeLog()?.ageMs ?? null
      return ageMs === null ? [] : [[[], ageMs / 1000]]
    },
  )
  registry.readings(
    'counter',
    'weirgate_purge_log_gaps_total',
    'How often purges were missed for good, and all that may be out of date was dropped.',
    [],
    () => {
      const log = purgeLog()
      return log === null ? [] : [[[], log.gaps]]
    },
  )
  registry.readings('gauge', 'weirgate_purge_log_owed', 'Purges that wait for Redis to be told to others.', [], () => {
    const log = purgeLog()
    return log === null ? [] : [[[], log.owed]]
  })
  registry.readings(
    'counter',
    'weirgate_fetch_leases_total',
    'Fetches for all instances: led by this one, followed to the end, followed without hearing of an end, or Redis unanswered.',
    ['result'],
    () => {
      const counts = fetchLeases()
      return counts === null ? [] : FETCH_LEASES.map((result) => [[result], counts[result]] as const)
    },
  )
}
