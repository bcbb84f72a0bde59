// What all routes' caches share, and what outlives a reload: the store, the tiers behind it, the fetches in flight, and
// the bytes that are on their way into the store.

import { type Bids, createBids } from './bids.ts'
import { type Flights, createFlights } from './collapse.ts'
import { type Compressor, createCompressor } from './compress.ts'
import { type Detached, createDetached } from './detached.ts'
import { type Failures, createFailures } from './failures.ts'
import { KnownDocuments } from './graphql-key.ts'
import { type KeyHash, createKeyHash } from './key-hash.ts'
import type { Leases } from './lease.ts'
import { MissWatches } from './near-misses.ts'
import type { CacheStore } from './store.ts'
import type { CacheTier } from './tier.ts'
import { type Tiers, createTiers } from './tiers.ts'
import { type Turns, createTurns } from './turns.ts'

export interface SharedCache {
  readonly store: CacheStore
  readonly tiers: Tiers
  readonly flights: Flights
  readonly detached: Detached
  readonly bids: Bids
  /** Null where there are no other instances. */
  readonly leases: Leases | null
  readonly failures: Failures
  readonly compressor: Compressor
  readonly nearMisses: MissWatches
  readonly documents: KnownDocuments
  /** For work on the store that is too long for one turn of the event loop. */
  readonly turns: Turns
  /** Whether there is no memory for storing more. */
  readonly memory: { readonly isFull: boolean }
  /** Wall clock, milliseconds. */
  readonly now: () => number
  /** Place in the purge log up to which purges have been carried out here; 0 where there is no log. */
  purgeSeq: number
  /** Bytes of all bodies that are being recorded; back at 0 when none is. */
  fillBytes: number
  /** Bytes of all request bodies that are held for their keys; back at 0 when no such request waits. */
  heldBytes: number
}

/** now: wall clock, milliseconds. tiers: behind the store, in the order in which to ask them. memory: asked whenever something
 *  is to be stored. hash: the store's. */
export const createSharedCache = (
  store: CacheStore,
  now: () => number,
  tiers: readonly CacheTier[] = [],
  leases: Leases | null = null,
  memory: SharedCache['memory'] = { isFull: false },
  hash: KeyHash = createKeyHash(),
): SharedCache => ({
  store,
  tiers: createTiers(tiers, store, now),
  flights: createFlights(hash),
  detached: createDetached(store),
  bids: createBids(),
  leases,
  failures: createFailures(),
  compressor: createCompressor(store),
  nearMisses: new MissWatches(),
  documents: new KnownDocuments(),
  turns: createTurns(),
  memory,
  now,
  purgeSeq: 0,
  fillBytes: 0,
  heldBytes: 0,
})
