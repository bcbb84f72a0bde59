// Keys that were let go of lately, as fingerprints: one that comes back soon was worth keeping. A table of fixed size, 8
// bytes a place, where a newer key takes the place of an older one; what it says may be wrong for a key in some million,
// which costs a misjudged entry and nothing else. The seed is random, so no client can choose keys that collide.

import { randomInt } from 'node:crypto'

export interface Ghosts {
  add(key: string): void
  /** True for one of the latest `within` keys that were added; it is forgotten then. */
  take(key: string, within: number): boolean
}

/** places: rounded up to a power of two. */
export function createGhosts(places: number): Ghosts {
  const size = 2 ** Math.ceil(Math.log2(Math.max(2, places)))
  const fingerprints = new Uint32Array(size)
  const addedAt = new Uint32Array(size)
  const seed = randomInt(2 ** 32)
  let added = 0

  /** FNV-1a with a last mixing (murmur3), so that its low bits depend on all of the key. */
  function fingerprintOf(key: string): number {
    let hash = seed ^ 0x811c9dc5
    for (let i = 0; i < key.length; i++) hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193)
    hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
    hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
    return (hash ^ (hash >>> 16)) >>> 0 || 1
  }

  return {
    add(key) {
      const fingerprint = fingerprintOf(key)
      added = (added + 1) >>> 0
      fingerprints[fingerprint % size] = fingerprint
      addedAt[fingerprint % size] = added
    },
    take(key, within) {
      const fingerprint = fingerprintOf(key)
      const place = fingerprint % size
      if (fingerprints[place] !== fingerprint) return false
      fingerprints[place] = 0
      return (added - (addedAt[place] as number)) >>> 0 < within
    },
  }
}
