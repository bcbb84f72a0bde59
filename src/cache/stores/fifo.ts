// A queue of entries in the order in which they came, bounded by nobody but its owner. Linked, so that an entry leaves from
// anywhere at no cost; a Map used as a queue has to step over all that has left at its front.

import type { CacheEntry } from '../entry.ts'

/** An entry's place in one queue. */
export interface Place {
  entry: CacheEntry
  readonly keyHash: number
  /** Laps that it may stay without being of use, for what it cost to fetch. */
  readonly credit: number
  queue: Fifo
  older: Place | null
  newer: Place | null
  /** Another whose key has the same hash: an older variant, or one of another key. The store's (memory.ts). */
  next: Place | null
}

export class Fifo {
  /** Sum of the entries' sizeBytes. */
  bytes = 0
  length = 0
  oldest: Place | null = null
  #newest: Place | null = null

  /** place: in no queue at present. */
  push(place: Place): void {
    place.queue = this
    place.older = this.#newest
    if (this.#newest === null) this.oldest = place
    else this.#newest.newer = place
    this.#newest = place
    this.bytes += place.entry.sizeBytes
    this.length++
  }

  /** place: in this queue. */
  remove(place: Place): void {
    const { older, newer } = place
    if (older === null) this.oldest = newer
    else older.newer = newer
    if (newer === null) this.#newest = older
    else newer.older = older
    place.older = null
    place.newer = null
    this.bytes -= place.entry.sizeBytes
    this.length--
  }
}
