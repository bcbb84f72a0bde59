// What becomes of requests with an Idempotency-Key, and what is held for those that repeat them.

import type { Registry } from './registry.ts'

export interface IdempotencySources {
  readonly idempotency: () => {
    readonly counts: Readonly<Record<string, number>>
    readonly table: {
      readonly keys: number
      readonly bytes: number
      /** What had to go before its time. */
      readonly dropped: Readonly<Record<'answers' | 'keys', number>>
    }
    /** Null where no other instances are. */
    readonly shared: { readonly owed: number; readonly lost: number } | null
  }
}

export function addIdempotencyMetrics(registry: Registry, { idempotency }: IdempotencySources): void {
  registry.readings(
    'counter',
    'weirgate_idempotency_requests_total',
    'Requests with an Idempotency-Key, by what became of them. local: of the first ones, those that Redis could not be asked about.',
    ['outcome'],
    () => Object.entries(idempotency().counts).map(([outcome, count]) => [[outcome], count] as const),
  )
  registry.reading(
    'gauge',
    'weirgate_idempotency_keys',
    'Idempotency-Keys that are remembered.',
    () => idempotency().table.keys,
  )
  registry.reading(
    'gauge',
    'weirgate_idempotency_bytes',
    'Bytes of the answers that are kept for repeated requests.',
    () => idempotency().table.bytes,
  )
  registry.readings(
    'counter',
    'weirgate_idempotency_dropped_total',
    'What had to go before its time for want of room: answers, whose requests are refused when they are repeated, and whole keys, whose requests are then sent again.',
    ['what'],
    () => Object.entries(idempotency().table.dropped).map(([what, count]) => [[what], count] as const),
  )
  registry.readings('gauge', 'weirgate_idempotency_owed', 'Answers that Redis is yet to hear of.', [], () => {
    const { shared } = idempotency()
    return shared === null ? [] : [[[], shared.owed]]
  })
  registry.readings(
    'counter',
    'weirgate_idempotency_lost_total',
    'Answers that Redis never heard of, since there were too many: other instances refuse their requests.',
    [],
    () => {
      const { shared } = idempotency()
      return shared === null ? [] : [[[], shared.lost]]
    },
  )
}
