// A tier that a test answers by hand, and that tells what it was asked.

import type { StoredResponse } from '../../src/cache/entry.ts'
import type { PurgeRule } from '../../src/cache/purge-rule.ts'
import type { CacheTier } from '../../src/cache/tier.ts'

export interface HandTier extends CacheTier {
  /** Reads that have come, oldest first. */
  readonly reads: readonly HandRead[]
  readonly writes: readonly StoredResponse[]
  readonly deletes: readonly string[]
  readonly purges: readonly PurgeRule[]
  /** What purges answer from now on; 0 at first. */
  answerPurges(answer: Promise<number>): void
}

export interface HandRead {
  readonly key: string
  readonly epoch: string
  answer(...entries: readonly StoredResponse[]): void
}

export function createHandTier(name: CacheTier['name'] = 'redis'): HandTier {
  const reads: HandRead[] = []
  const writes: StoredResponse[] = []
  const deletes: string[] = []
  const purges: PurgeRule[] = []
  let purged = Promise.resolve(0)
  return {
    name,
    counts: { hits: 0, misses: 0, bad: 0, locked: 0, failed: 0, written: 0, dropped: 0 },
    reads,
    writes,
    deletes,
    purges,
    answerPurges: (answer) => void (purged = answer),
    read(key, epoch) {
      const { promise, resolve } = Promise.withResolvers<readonly StoredResponse[]>()
      reads.push({ key, epoch, answer: (...entries) => resolve(entries) })
      return promise
    },
    write: (entry) => void writes.push(entry),
    delete: (key) => void deletes.push(key),
    purge(rule) {
      purges.push(rule)
      return purged
    },
    close: async () => {},
  }
}
