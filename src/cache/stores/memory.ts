// Entries in this process, bounded in bytes. Eviction is second chance (CLOCK): keys stay in the order in which they
// were stored, a hit only sets a mark, and the oldest key goes unless it is marked, in which case it loses the mark and
// moves to the back. So a hit relinks nothing, and a scan of one-time keys does not flush what is in use.
//
// Keys are whole URLs as strings. V8 seeds its string hashes, and a key begins with its scheme, so a client cannot
// choose keys that collide; a digest per request would only cost.

import { type StoredResponse, isSelected } from '../entry.ts'
import type { CacheStore } from '../store.ts'
import { createTagIndex } from './tag-index.ts'

/** Variants kept under one key; the oldest goes. More would let one header of a client fill the memory. */
const MAX_VARIANTS = 16

interface Slot {
  /** Newest first; at least one. */
  readonly variants: readonly StoredResponse[]
  readonly bytes: number
}

export function createMemoryStore(initialMaxBytes: number): CacheStore {
  const slots = new Map<string, Slot>()
  let maxBytes = initialMaxBytes
  let bytes = 0
  let entries = 0
  const tags = createTagIndex()

  function take(key: string): Slot | undefined {
    const slot = slots.get(key)
    if (slot === undefined) return undefined
    slots.delete(key)
    bytes -= slot.bytes
    entries -= slot.variants.length
    for (const entry of slot.variants) tags.delete(entry)
    return slot
  }

  function append(key: string, slot: Slot): void {
    slots.set(key, slot)
    bytes += slot.bytes
    entries += slot.variants.length
    for (const entry of slot.variants) tags.add(entry)
  }

  /** Each key is looked at twice at most: the second time it has lost its mark. */
  function evictTo(limitBytes: number): void {
    for (const [key, slot] of slots) {
      if (bytes <= limitBytes) return
      take(key)
      if (slot.variants.some(({ used }) => used)) append(key, unmarked(slot))
    }
  }

  return {
    get: (key) => slots.get(key)?.variants ?? null,
    touch(entry) {
      entry.used = true
    },
    put(entry) {
      if (entry.sizeBytes > maxBytes) return false
      const slot = slotWith(entry, take(entry.key)?.variants ?? [], maxBytes)
      // Room is made before it is in: where all others are marked, the newest would be the first to go.
      evictTo(maxBytes - slot.bytes)
      append(entry.key, slot)
      return true
    },
    delete: (key) => take(key)?.variants.length ?? 0,
    remove(entry) {
      if (slots.get(entry.key)?.variants.includes(entry) !== true) return false
      const variants = take(entry.key)?.variants.filter((other) => other !== entry) ?? []
      const left = variants.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
      if (variants.length > 0) append(entry.key, { variants, bytes: left })
      return true
    },
    keys: () => slots.keys(),
    tagged: (tag) => tags.get(tag),
    get entries() {
      return entries
    },
    get bytes() {
      return bytes
    },
    get maxBytes() {
      return maxBytes
    },
    resize(nextMaxBytes) {
      maxBytes = nextMaxBytes
      evictTo(maxBytes)
    },
  }
}

/** The new entry and those of the others that it does not replace, as many as may be and as fit. */
function slotWith(entry: StoredResponse, others: readonly StoredResponse[], maxBytes: number): Slot {
  const variants = [entry]
  let bytes = entry.sizeBytes
  for (const other of others) {
    if (isSameVariant(other, entry)) continue
    if (variants.length === MAX_VARIANTS || bytes + other.sizeBytes > maxBytes) break
    variants.push(other)
    bytes += other.sizeBytes
  }
  return { variants, bytes }
}

function unmarked(slot: Slot): Slot {
  for (const entry of slot.variants) entry.used = false
  return slot
}

/** True when the request that `entry` answered would have selected `other` too, so the newer takes its place. */
function isSameVariant(other: StoredResponse, entry: StoredResponse): boolean {
  const selecting: string[] = []
  for (const [i, name] of entry.varyNames.entries()) {
    const value = entry.varyValues[i] ?? null
    if (value !== null) selecting.push(name, value)
  }
  return isSelected(selecting, entry.claims, other)
}
