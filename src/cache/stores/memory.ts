// Entries in this process, bounded in bytes. Eviction is S3-FIFO (Yang et al., SOSP 2023): what is new waits in a small
// queue, a tenth of the memory. Whoever is used there moves on to the main queue, the others go and leave a ghost; a key
// that comes back while its ghost is known starts in the main queue. There the oldest goes, unless it was used: then it
// loses one use and queues up again. So a hit relinks nothing, it counts to three, and a scan of one-time keys passes
// through the small queue without touching what is in use.
//
// What is dear to fetch again, in upstream milliseconds per byte beside what is usual here, has a credit of up to three
// uses that it has not had yet: of a ten-second answer and a fast one that are asked for alike, the fast one goes.
//
// Keys are whole URLs as strings, found by their hash (key-hash.ts). Beside a Map of the keys themselves, with 100,000
// entries, what is not there is found out in 0.6 of the time, what is there is found in 0.6, and storing takes half. What
// has one hash is linked, the newest first: the variants of a key, and once in some million keys those of another.
//
// With a million entries a lookup takes some ten times what it takes with a thousand: nearly all of it is waiting for
// memory that is in no cache of the processor's.

import { type CacheEntry, formSizeBytes, takesPlaceOf } from '../entry.ts'
import { type KeyHash, createKeyHash } from '../key-hash.ts'
import type { CacheStore } from '../store.ts'
import { Fifo, type Place } from './fifo.ts'
import { type Ghosts, createGhosts } from './ghosts.ts'
import { createTagIndex } from './tag-index.ts'

/** Variants kept under one key; the oldest goes. More would let one header of a client fill the memory. */
const MAX_VARIANTS = 16
const SMALL_SHARE = 0.1
const MAX_USES = 3
/** Uses, or credit in their place, that lead from the small queue to the main one. */
const PROMOTING_USES = 2
/** One ghost for so many bytes of memory, at most MAX_GHOSTS: 1 % of it or less, and never more than 8 MiB. */
const BYTES_PER_GHOST = 1024
const MAX_GHOSTS = 2 ** 20
/** Entries over which the usual cost is averaged. */
const COST_MEMORY = 256

export function createMemoryStore(initialMaxBytes: number, hash: KeyHash = createKeyHash()): CacheStore {
  /** The newest of those with this hash of a key. */
  const byHash = new Map<number, Place>()
  const tags = createTagIndex()
  const small = new Fifo()
  const main = new Fifo()
  const watched = new Map<CacheEntry, (wasUsed: boolean) => void>()
  /** Asked on every hit. */
  let isWatching = false
  let maxBytes = initialMaxBytes
  let moves = 0
  let ghosts = ghostsFor(maxBytes)
  /** Logarithm to base 4 of the usual cost per byte; null before anything had one. */
  let usualCost: number | null = null

  /** Takes an entry out of everything. */
  function drop(place: Place): void {
    const { entry } = place
    place.queue.remove(place)
    tags.delete(entry)
    if (isWatching) tell(entry, false)
    unlink(place)
  }

  function tell(entry: CacheEntry, wasUsed: boolean): void {
    const told = watched.get(entry)
    watched.delete(entry)
    isWatching = watched.size > 0
    told?.(wasUsed)
  }

  /** The newest place of a key at or behind one that has its hash; null: there is none. */
  function ofKey(key: string, from: Place | null | undefined): Place | null {
    let place = from ?? null
    while (place !== null && place.entry.key !== key) place = place.next
    return place
  }

  const newestOf = (key: string): Place | null => ofKey(key, byHash.get(hash.of(key)))

  /** The newest first. */
  function placesOf(key: string): Place[] {
    const places: Place[] = []
    for (let place = newestOf(key); place !== null; place = ofKey(key, place.next)) places.push(place)
    return places
  }

  /** place: one of those that are linked. */
  function unlink(place: Place): void {
    const { keyHash, next } = place
    let before = byHash.get(keyHash) as Place
    if (before === place) {
      if (next === null) byHash.delete(keyHash)
      else byHash.set(keyHash, next)
      return
    }
    while (before.next !== place) before = before.next as Place
    before.next = next
  }

  function placeOf(entry: CacheEntry): Place | null {
    let place = byHash.get(hash.of(entry.key)) ?? null
    while (place !== null && place.entry !== entry) place = place.next
    return place
  }

  function evictTo(limitBytes: number): void {
    while (small.bytes + main.bytes > limitBytes) {
      if (main.oldest === null || small.bytes > maxBytes * SMALL_SHARE) evictSmall()
      else evictMain(main.oldest)
    }
  }

  /** Moves the oldest on or out. The queue is not empty: all that is stored is in one of the two. */
  function evictSmall(): void {
    const place = small.oldest as Place
    const { entry, credit } = place
    if (entry.uses + credit >= PROMOTING_USES) {
      small.remove(place)
      entry.uses = credit
      main.push(place)
    } else {
      ghosts.add(place.keyHash)
      drop(place)
    }
  }

  function evictMain(place: Place): void {
    if (place.entry.uses === 0) return drop(place)
    place.entry.uses--
    main.remove(place)
    main.push(place)
  }

  /** 0 for what costs at most four times what is usual, and one for each further fourfold. */
  function creditOf({ costMs, sizeBytes }: CacheEntry): number {
    if (costMs <= 0) return 0
    const cost = Math.log2(costMs / sizeBytes) / 2
    usualCost ??= cost
    const credit = Math.floor(cost - usualCost)
    usualCost += (cost - usualCost) / COST_MEMORY
    return Math.min(Math.max(credit, 0), MAX_USES)
  }

  /** Each key once, whatever has its hash. */
  function* allKeys(): Iterable<string> {
    for (const first of byHash.values()) {
      if (first.next === null) yield first.entry.key
      else yield* keysFrom(first)
    }
  }

  return {
    get(key) {
      let place = newestOf(key)
      if (place === null) return null
      const entries = [place.entry]
      while ((place = ofKey(key, place.next)) !== null) entries.push(place.entry)
      return entries
    },
    touch(entry) {
      if (entry.uses < MAX_USES) entry.uses++
      if (isWatching) tell(entry, true)
    },
    put(entry) {
      if (entry.sizeBytes > maxBytes) return false
      let queue = small
      const keyHash = hash.of(entry.key)
      const variants = placesOf(entry.key)
      // What takes the place of an entry, because that has aged, is as much in use as that was.
      for (const place of variants) {
        if (!takesPlaceOf(entry, place.entry)) continue
        if (place.queue === main) queue = main
        entry.uses = Math.max(entry.uses, place.entry.uses)
        drop(place)
        moves++
      }
      if (ghosts.take(keyHash, main.length + small.length)) queue = main
      // Room is made before it is in, or it could be the first to go.
      evictTo(maxBytes - entry.sizeBytes)
      const tooMany = variants.length < MAX_VARIANTS ? undefined : placesOf(entry.key)[MAX_VARIANTS - 1]
      if (tooMany !== undefined) drop(tooMany)
      const next = byHash.get(keyHash) ?? null
      const place: Place = { entry, keyHash, credit: creditOf(entry), queue, older: null, newer: null, next }
      queue.push(place)
      tags.add(entry)
      byHash.set(keyHash, place)
      return true
    },
    delete(key) {
      const places = placesOf(key)
      for (const place of places) drop(place)
      return places.length
    },
    remove(entry) {
      const place = placeOf(entry)
      if (place !== null) drop(place)
      return place !== null
    },
    replace(entry, next) {
      const place = placeOf(entry)
      if (place === null) return false
      next.uses = entry.uses
      place.entry = next
      const told = watched.get(entry)
      if (told !== undefined) watched.set(next, told)
      watched.delete(entry)
      tags.delete(entry)
      tags.add(next)
      moves++
      return true
    },
    addForm(entry, form) {
      const place = placeOf(entry)
      const { coded } = entry
      if (place === null || coded === null || coded.some(({ coding }) => coding === form.coding)) return false
      const bytes = formSizeBytes(form)
      if (entry.sizeBytes + bytes > maxBytes) return false
      evictTo(maxBytes - bytes)
      // It may have been the next to go.
      if (placeOf(entry) === null) return false
      entry.coded = [...coded, form]
      entry.sizeBytes += bytes
      place.queue.bytes += bytes
      return true
    },
    watch(entry, told) {
      if (placeOf(entry) === null) return told(false)
      watched.set(entry, told)
      isWatching = true
    },
    keys: allKeys,
    tagged: (tag) => tags.get(tag),
    get moves() {
      return moves
    },
    get entries() {
      return small.length + main.length
    },
    get bytes() {
      return small.bytes + main.bytes
    },
    get maxBytes() {
      return maxBytes
    },
    resize(nextMaxBytes) {
      if (nextMaxBytes !== maxBytes) ghosts = ghostsFor(nextMaxBytes)
      maxBytes = nextMaxBytes
      evictTo(maxBytes)
    },
  }
}

const ghostsFor = (maxBytes: number): Ghosts => createGhosts(Math.min(maxBytes / BYTES_PER_GHOST, MAX_GHOSTS))

/** The keys of all that is linked to a place. */
function keysFrom(first: Place): Set<string> {
  const keys = new Set<string>()
  for (let place: Place | null = first; place !== null; place = place.next) keys.add(place.entry.key)
  return keys
}
