// Which entries carry a tag, and which are of a URL that is not their whole key (key.ts). Holds nothing beside what its
// store holds, so the store's bound is its bound as well; the entries' sizeBytes count it (entry.ts).

import type { CacheEntry } from '../entry.ts'
import { listingsOf } from '../key.ts'

export interface TagIndex {
  add(entry: CacheEntry): void
  delete(entry: CacheEntry): void
  /** The entries with a tag; null when there is none. Lives on: entries come and go while it is read. */
  get(tag: string): ReadonlySet<CacheEntry> | null
}

export function createTagIndex(): TagIndex {
  const byTag = new Map<string, Set<CacheEntry>>()

  return {
    add(entry) {
      for (const tag of listingsOf(entry)) {
        const entries = byTag.get(tag)
        if (entries === undefined) byTag.set(tag, new Set([entry]))
        else entries.add(entry)
      }
    },
    delete(entry) {
      for (const tag of listingsOf(entry)) {
        const entries = byTag.get(tag)
        if (entries?.delete(entry) === true && entries.size === 0) byTag.delete(tag)
      }
    },
    get: (tag) => byTag.get(tag) ?? null,
  }
}
