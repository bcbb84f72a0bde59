// Keys that were let go of lately, as fingerprints: one that comes back soon was worth keeping. A table of fixed size, 8
// bytes a place, where a newer key takes the place of an older one; what it says may be wrong for a key in some million,
// which costs a misjudged entry and nothing else. The hash is the store's, so no client can choose keys that collide.

export interface Ghosts {
  /** keyHash: 32 bits. */
  add(keyHash: number): void
  /** True for one of the latest `within` keys that were added; it is forgotten then. */
  take(keyHash: number, within: number): boolean
}

/** places: rounded up to a power of two. */
export function createGhosts(places: number): Ghosts {
  const size = 2 ** Math.ceil(Math.log2(Math.max(2, places)))
  const fingerprints = new Uint32Array(size)
  const addedAt = new Uint32Array(size)
  let added = 0

  return {
    add(keyHash) {
      const fingerprint = fingerprintOf(keyHash)
      added = (added + 1) >>> 0
      fingerprints[fingerprint % size] = fingerprint
      addedAt[fingerprint % size] = added
    },
    take(keyHash, within) {
      const fingerprint = fingerprintOf(keyHash)
      const place = fingerprint % size
      if (fingerprints[place] !== fingerprint) return false
      fingerprints[place] = 0
      return (added - (addedAt[place] as number)) >>> 0 < within
    },
  }
}

/** Never 0, which is an empty place. */
const fingerprintOf = (keyHash: number): number => keyHash >>> 0 || 1
