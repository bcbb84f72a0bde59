// How what the cache tells other instances is kept from others who read the Redis that they share.

import type { Cipher } from '../core/cipher.ts'

export interface Privacy {
  /** Names are digests, made with it: who does not know it cannot try out whether one is that of a URL that he can guess.
   *  null: there is none. */
  readonly secret: string | null
  /** Seals what lies under the names; null: it lies there as it is. */
  readonly cipher: Cipher | null
}

export const NO_PRIVACY: Privacy = { secret: null, cipher: null }
