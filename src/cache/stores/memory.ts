// Entries in this process, bounded in bytes. Eviction is S3-FIFO (Yang et al., SOSP 2023): what is new waits in a small
// queue, a tenth of the memory. Whoever is used there moves on to the main queue, the others go and leave a ghost; a key
// that comes back while its ghost is known starts in the main queue. There the oldest goes, unless it was used: then it
// loses one use and queues up again. So a hit relinks nothing, it counts to three, and a scan of one-time keys passes
// through the small queue without touching what is in use.
//
// What is dear to fetch again, in upstream milliseconds per byte beside what is usual here, has a credit of up to three
// uses that it has not had yet: of a ten-second answer and a fast one that are asked for alike, the fast one goes.
//
// Keys are whole URLs as strings. V8 seeds its string hashes, and a key begins with its scheme, so a client cannot
// choose keys that collide; a digest per request would only cost. With a million entries a lookup takes some ten times
// what it takes with a thousand: nearly all of it is waiting for memory that is in no cache of the processor's, and what
// counts is how much of it is read one after the other. So a key's one variant has no list of its own (a tenth to a third
// faster than with one, and 150 bytes less; bench/cache-store.ts). A table of our own in typed arrays, seeded against
// chosen keys, was no faster to hit and slower where all is at hand: hashing a URL in JavaScript takes 100 ns.

import { type CacheEntry, formSizeBytes, takesPlaceOf } from '../entry.ts'
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

export function createMemoryStore(initialMaxBytes: number): CacheStore {
  /** A list where there are several: the newest first. */
  const byKey = new Map<string, Place | readonly Place[]>()
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
    setPlaces(
      entry.key,
      placesOf(entry.key).filter((other) => other !== place),
    )
  }

  function tell(entry: CacheEntry, wasUsed: boolean): void {
    const told = watched.get(entry)
    watched.delete(entry)
    isWatching = watched.size > 0
    told?.(wasUsed)
  }

  function placesOf(key: string): readonly Place[] {
    const held = byKey.get(key)
    if (held === undefined) return []
    return isList(held) ? held : [held]
  }

  function setPlaces(key: string, places: readonly Place[]): void {
    const [first] = places
    if (first === undefined) byKey.delete(key)
    else byKey.set(key, places.length === 1 ? first : places)
  }

  const placeOf = (entry: CacheEntry): Place | undefined => placesOf(entry.key).find((each) => each.entry === entry)

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
      ghosts.add(entry.key)
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

  return {
    get(key) {
      const held = byKey.get(key)
      if (held === undefined) return null
      return isList(held) ? held.map(({ entry }) => entry) : [held.entry]
    },
    touch(entry) {
      if (entry.uses < MAX_USES) entry.uses++
      if (isWatching) tell(entry, true)
    },
    put(entry) {
      if (entry.sizeBytes > maxBytes) return false
      let queue = small
      // What takes the place of an entry, because that has aged, is as much in use as that was.
      for (const place of placesOf(entry.key)) {
        if (!takesPlaceOf(entry, place.entry)) continue
        if (place.queue === main) queue = main
        entry.uses = Math.max(entry.uses, place.entry.uses)
        drop(place)
        moves++
      }
      if (ghosts.take(entry.key, main.length + small.length)) queue = main
      // Room is made before it is in, or it could be the first to go.
      evictTo(maxBytes - entry.sizeBytes)
      const tooMany = placesOf(entry.key)[MAX_VARIANTS - 1]
      if (tooMany !== undefined) drop(tooMany)
      const place: Place = { entry, credit: creditOf(entry), queue, older: null, newer: null }
      queue.push(place)
      tags.add(entry)
      setPlaces(entry.key, [place, ...placesOf(entry.key)])
      return true
    },
    delete(key) {
      const places = placesOf(key)
      for (const place of places) drop(place)
      return places.length
    },
    remove(entry) {
      const place = placeOf(entry)
      if (place !== undefined) drop(place)
      return place !== undefined
    },
    replace(entry, next) {
      const place = placeOf(entry)
      if (place === undefined) return false
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
      if (place === undefined || coded === null || coded.some(({ coding }) => coding === form.coding)) return false
      const bytes = formSizeBytes(form)
      if (entry.sizeBytes + bytes > maxBytes) return false
      evictTo(maxBytes - bytes)
      // It may have been the next to go.
      if (placeOf(entry) === undefined) return false
      entry.coded = [...coded, form]
      entry.sizeBytes += bytes
      place.queue.bytes += bytes
      return true
    },
    watch(entry, told) {
      if (placeOf(entry) === undefined) return told(false)
      watched.set(entry, told)
      isWatching = true
    },
    keys: () => byKey.keys(),
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

const isList = (held: Place | readonly Place[]): held is readonly Place[] => Array.isArray(held)
