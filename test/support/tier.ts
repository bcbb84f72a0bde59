// A tier that a test answers by hand, and that tells what it was asked.

import type { StoredResponse } from '../../src/cache/entry.ts'
import type { CacheTier } from '../../src/cache/tier.ts'

export interface HandTier extends CacheTier {
  /** Reads that have come, oldest first. */
  readonly reads: readonly HandRead[]
  readonly writes: readonly StoredResponse[]
  readonly deletes: readonly string[]
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
  return {
    name,
    counts: { hits: 0, misses: 0, bad: 0, failed: 0, written: 0, dropped: 0 },
    reads,
    writes,
    deletes,
    read(key, epoch) {
      const { promise, resolve } = Promise.withResolvers<readonly StoredResponse[]>()
      reads.push({ key, epoch, answer: (...entries) => resolve(entries) })
      return promise
    },
    write: (entry) => void writes.push(entry),
    delete: (key) => void deletes.push(key),
    close: async () => {},
  }
}
