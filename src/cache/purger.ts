// Who carries purges out: this instance alone, or all that share a Redis.

import type { PurgeResult } from '../core/control.ts'
import type { PurgeLog } from './purge-log.ts'
import type { PurgeRule } from './purge-rule.ts'
import { purge } from './purge.ts'
import type { SharedCache } from './shared.ts'

export interface Purger {
  /** After a write that succeeded. Resolves when it is done here, and told to the others or kept to be told later. Never
   *  rejects. */
  invalidate(rule: PurgeRule): Promise<unknown>
  /** For an operator, who wants to know what became of it where. */
  purge(rule: PurgeRule): Promise<PurgeResult>
}

/** instance: the name of this one. log: null where it stands alone. */
export function createPurger(shared: SharedCache, instance: string, log: PurgeLog | null): Purger {
  if (log === null) {
    return {
      invalidate: (rule) => purge(shared, rule),
      async purge(rule) {
        const purged = await purge(shared, rule)
        return { purged, instances: [{ instance, purged }], unacknowledged: [], shared: null }
      },
    }
  }
  return {
    invalidate: (rule) => log.publish(rule, false),
    async purge(rule) {
      const { here, isShared, others } = await log.publish(rule, true)
      const { counts, missing } = await others
      const byInstance = new Map([[instance, here]])
      for (const { instance: name, purged } of counts) byInstance.set(name, (byInstance.get(name) ?? 0) + purged)
      return {
        purged: [...byInstance.values()].reduce((sum, purged) => sum + purged, 0),
        instances: [...byInstance].map(([name, purged]) => ({ instance: name, purged })),
        unacknowledged: missing.toSorted(),
        shared: isShared,
      }
    },
  }
}
