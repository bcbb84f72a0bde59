// The contract of a tier: stored responses beyond the memory of this process, where they outlive it or are shared with
// other instances. Slower than memory, and never needed: whatever becomes of a tier, a request costs at most a fetch.
// tiers.ts puts tiers behind the memory store. Every tier passes test/cache/tier-contract.ts.

import type { HeaderList } from '../core/context.ts'
import type { StoredResponse } from './entry.ts'
import type { PurgeRule } from './purge-rule.ts'

/** By what a request selects among variants (RFC 9111 §4.1). */
export interface Selecting {
  readonly headers: HeaderList
  readonly claims: string
}

/** What a tier has done since it was opened. Every read is one of hits, misses, bad, locked and failed. */
export interface TierCounts {
  /** Reads that gave an entry. */
  readonly hits: number
  /** Reads of what is not there. */
  readonly misses: number
  /** Reads of what is not to be used: damaged, too large, of another form. It is removed. */
  readonly bad: number
  /** Reads of what was sealed with a key that is not known here. It stays, and counts as not there. */
  readonly locked: number
  /** Reads that the tier could not answer, or not in time. */
  readonly failed: number
  /** Entries written. */
  readonly written: number
  /** Entries given up, because they are too large, too many wait, or the tier could not take them. */
  readonly dropped: number
}

export interface CacheTier {
  readonly name: 'disk' | 'redis'
  readonly counts: TierCounts
  /** Variants under a key that were stored for this epoch; among them the one that `by` selects, where there is one.
   *  Others may be left out. [] in any trouble: never rejects, and takes bounded time. */
  read(key: string, epoch: string, by: Selecting): Promise<readonly StoredResponse[]>
  /** Stores an entry, later, in place of what the same requests select. Costs the caller nothing that waits; what does
   *  not fit the tier's bounds is dropped. */
  write(entry: StoredResponse): void
  /** Removes all variants under a key of this epoch, later. A read that begins after this call gives none of them. */
  delete(key: string, epoch: string): void
  /** Carries out a rule on all that is there. A read that begins after this call gives nothing of what it names.
   *  Resolves when it is done for good with how many entries it took, or with null where that is not sure; never
   *  rejects. Where others write too it does nothing: what such a tier gives is held against purges as it comes in. */
  purge(rule: PurgeRule): Promise<number | null>
  /** Resolves when all that was given to write has been carried out or given up. Absent where no other instance reads it. */
  written?(): Promise<unknown>
  /** Carries out what waits, within a bound, and lets go of everything. */
  close(): Promise<void>
}
