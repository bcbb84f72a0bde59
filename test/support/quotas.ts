// Instances that count in one Redis, as stores without a gateway around them.

import type { RedisLink } from '../../src/core/redis.ts'
import { blankStanding } from '../../src/limit/algorithm.ts'
import { limitOptions } from '../../src/limit/options.ts'
import { type Demand, type Quota, compileQuota } from '../../src/limit/quota.ts'
import { type RedisStore, createRedisStore } from '../../src/limit/stores/redis.ts'
import { compileSubjectTag } from '../../src/limit/subject-tag.ts'
import type { Closable } from './closing.ts'
import { linksFor } from './redis-link.ts'

export const quotaOf = (name: string, yaml: object): Quota => compileQuota(name, limitOptions.parse(yaml))

export function demandOf(
  quotas: readonly Quota[],
  subjects: readonly (string | null)[],
  costs: readonly number[] = quotas.map(() => 1),
): Demand {
  const standings = quotas.map(blankStanding)
  return { quotas, subjects, costs, standings, atMs: quotas.map(() => 0), from: 0, to: quotas.length }
}

export interface Instance {
  readonly link: RedisLink
  readonly store: RedisStore
  /** Its wall clock. */
  readonly clock: () => number
  /** Charges one unit, or `cost`, and says whether that was admitted. */
  readonly take: (quota: Quota, subject: string, cost?: number) => Promise<boolean>
  /** Charges a demand; answers at once where the store does. */
  readonly charge: (demand: Demand) => boolean | Promise<boolean>
  readonly ask: (demand: Demand) => Promise<boolean>
  /** What Redis says is left. */
  readonly left: (quota: Quota, subject: string) => Promise<number>
}

export interface InstanceOptions {
  readonly deadlineMs?: number
  /** Of the connection, where that is another one. */
  readonly linkDeadlineMs?: number
  /** How far its clock is ahead. */
  readonly aheadMs?: number
  readonly probeKey?: string
  readonly assumedInstances?: number
  /** How long to wait for Redis. */
  readonly readyMs?: number
}

const tagOf = compileSubjectTag('a secret of all instances')

/** opened: what closes an instance after the test. The deadline is 2 s, so that no slow machine is seen as a slow Redis. */
export function instancesFor(opened: <T extends Closable>(part: T) => T) {
  const { link: connect } = linksFor(opened)
  let made = 0
  return async (url: string, options: InstanceOptions = {}): Promise<Instance> => {
    const {
      deadlineMs = 2000,
      linkDeadlineMs = deadlineMs,
      aheadMs = 0,
      probeKey,
      assumedInstances = 1,
      readyMs = 10_000,
    } = options
    const link = connect(url, { deadlineMs: linkDeadlineMs, ...(probeKey === undefined ? {} : { probeKey }) })
    const clock = () => Date.now() + aheadMs
    const store = opened(
      createRedisStore({
        link,
        namespace: 'test',
        tagOf,
        instance: `i${made++}`,
        assumedInstances,
        deadlineMs,
        clock,
      }),
    )
    await store.whenReady(readyMs)
    const charge = (demand: Demand) => store.charge(demand, clock())
    return {
      link,
      store,
      clock,
      charge,
      ask: async (demand) => charge(demand),
      take: async (quota, subject, cost = 1) => charge(demandOf([quota], [subject], [cost])),
      async left(quota, subject) {
        const demand = demandOf([quota], [subject])
        await store.inspect(demand, clock())
        return demand.standings[0]?.remaining ?? -1
      },
    }
  }
}
