// What limits are counted in, made once and kept through reloads: in this process, or in the Redis that instances share, with
// blocks of units taken out for clients that ask often.

import type { GatewayConfig } from '../config/schema.ts'
import { Decisions } from '../limit/decisions.ts'
import { type Leases, createLeases } from '../limit/leases.ts'
import { createMemorySlots } from '../limit/slots.ts'
import { type MemoryStore, createMemoryStore } from '../limit/stores/memory.ts'
import { createRedisSlots } from '../limit/stores/redis-slots.ts'
import { type RedisStore, createRedisStore } from '../limit/stores/redis.ts'
import { compileSubjectTag } from '../limit/subject-tag.ts'
import type { LimitState } from '../limit/limiter.ts'
import type { SharedRedis } from './redis.ts'
import { secretOf } from './redis-secret.ts'

export interface OpenLimits extends LimitState {
  /** Which count, behind the blocks. */
  readonly counters: Pick<MemoryStore | RedisStore, 'subjects' | 'overflowed'>
  /** The same where Redis counts; else null. */
  readonly shared: RedisStore | null
  readonly leased: Leases | null
  /** Resolves when all can decide, or after maxMs. */
  whenReady(maxMs: number): Promise<unknown>
  close(): Promise<void>
}

/** instance: names this one among those with the same Redis. now: wall clock, milliseconds. */
export function openLimits(
  config: GatewayConfig,
  redis: SharedRedis | null,
  instance: string,
  now: () => number,
): OpenLimits {
  const decisions = new Decisions()
  if (redis === null) {
    const [quotas, slots] = [createMemoryStore(), createMemorySlots()]
    const whenReady = async (): Promise<void> => {}
    const close = () => closeBoth({ quotas, slots })
    return { quotas, slots, decisions, counters: quotas, shared: null, leased: null, whenReady, close }
  }
  const { namespace, deadline: deadlineMs, instances: assumedInstances } = config.redis
  const tagOf = compileSubjectTag(secretOf(config.redis))
  const counted = { link: redis.limits, namespace, tagOf, instance }
  const counters = createRedisStore({ ...counted, assumedInstances, deadlineMs, clock: now })
  const instances = (): number => counters.instances
  const slots = createRedisSlots({ ...counted, instances })
  const quotas = createLeases({ counters, instances, clock: now, steadyClock: () => performance.now() })
  return {
    quotas,
    slots,
    decisions,
    counters,
    shared: counters,
    leased: quotas,
    whenReady: (maxMs) => counters.whenReady(maxMs),
    close: () => closeBoth({ quotas, slots }),
  }
}

async function closeBoth({ quotas, slots }: Pick<LimitState, 'quotas' | 'slots'>): Promise<void> {
  await quotas.close()
  await slots.close()
}
