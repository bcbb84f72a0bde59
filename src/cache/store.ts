// The contract of a cache store: entries by key, several variants a key, bounded in bytes. A store decides nothing
// about HTTP: freshness, Vary and epochs are the cache's (policy.ts, cache.ts). Every store passes
// test/cache/store-contract.ts.

import type { CacheEntry, CodedForm, StoredResponse } from './entry.ts'

export interface CacheStore {
  /** All variants under a key, newest first; null when there is none. The list is the store's: read it at once. Changes to
   *  the store do not change it. */
  get(key: string): readonly CacheEntry[] | null
  /** Notes that an entry was of use, for eviction. Cheap: called on every hit. */
  touch(entry: CacheEntry): void
  /** Stores an entry, new to every store, in place of those that its own selecting fields select. False when it does not fit at all; what was there
   *  then stays. */
  put(entry: CacheEntry): boolean
  /** Removes all variants of a key; answers how many. */
  delete(key: string): number
  /** Removes one entry; false when it is not there any more. */
  remove(entry: CacheEntry): boolean
  /** Puts `next` in the place of an entry of the same key, selecting fields, tags and size, which goes; it is as much in use and
   *  as old to eviction as that was. False when that entry is not there any more. */
  replace(entry: CacheEntry, next: CacheEntry): boolean
  /** Adds a coded form to an entry that may have them and has none of this coding, and its size to the entry's. False, and
   *  nothing is changed, when the entry is not there any more, or there is no room for both. */
  addForm(entry: StoredResponse, form: CodedForm): boolean
  /** Tells whether an entry is of use: true when it is touched for the first time from now on, false when it goes before, or
   *  is not there; once. */
  watch(entry: CacheEntry, told: (wasUsed: boolean) => void): void
  /** All keys, those that stayed longest first. Lives on: keys come (at the end) and go while it is read. */
  keys(): Iterable<string>
  /** The entries with a tag; null when there is none. Lives on as keys() does. A urlTag() (key.ts) is on all entries whose
   *  keys are that URL and more. */
  tagged(tag: string): ReadonlySet<CacheEntry> | null
  /** How often an entry has taken the place of another, at the end of keys() and tagged(): who walks those may then not have
   *  seen all, after as many as there were. */
  readonly moves: number
  readonly entries: number
  /** Sum of the entries' sizeBytes; never more than maxBytes. */
  readonly bytes: number
  readonly maxBytes: number
  /** Changes the bound; entries that no longer fit are evicted. */
  resize(maxBytes: number): void
}
