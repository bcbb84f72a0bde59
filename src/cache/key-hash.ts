// The hash of keys, for the tables of what is stored and of what is being fetched: keyed at random, so no client can choose
// keys that fall together, and made once where a request asks for its key several times.
//
// A Map of the keys themselves would be shorter. But V8 has a table of one copy of each text that a Map is asked for: a
// text that comes for the first time, as the key of a miss does, costs 0.5 us there, and the copy waits for a full
// collection.

import { KeyedHash } from '../core/keyed-hash.ts'

export interface KeyHash {
  /** 32 bits, signed. */
  of(key: string): number
}

export function createKeyHash(): KeyHash {
  const hash = new KeyedHash()
  let latestKey = ''
  let latest = hash.of('', 0)
  return {
    of(key) {
      if (key === latestKey) return latest
      latestKey = key
      latest = hash.of(key, 0)
      return latest
    },
  }
}
