// Bytes that lie where others may read and write, for those alone who know a key: AES-256-GCM (NIST SP 800-38D), in a form
// that opens only under the name it was sealed for. Layout:
//
//   0  id of the key, 8 bytes     8  nonce, 12 bytes, at random     20  what is sealed     then the tag, 16 bytes
//
// Each name has a key of its own, derived from the deployment's by HMAC (RFC 5869 would do the same in two steps): 2^32
// random nonces are as many as one key may see, and a busy fleet seals as many values in some weeks, though never under one
// name. The name goes in as additional data as well. Several keys: the first one seals, all open, so that they can be
// changed one after the other without losing what lies there.
//
// It keeps nobody from putting back what was sealed under a name before. 16 us to seal 1 KiB and 12 to open it, 45 and 26 for
// 64 KiB, four of them for the name's key.

import { createCipheriv, createDecipheriv, createHmac, hkdfSync, randomFillSync } from 'node:crypto'

const ID_BYTES = 8
const NONCE_BYTES = 12
const TAG_BYTES = 16
const SEALED_AT = ID_BYTES + NONCE_BYTES
/** What sealing adds. */
const OVERHEAD_BYTES = SEALED_AT + TAG_BYTES

/** Why nothing was opened. foreign: by a key that is not known here, so that others may have use for it. forged: not sealed
 *  at all, not for this name, or damaged. */
export type Unopened = 'foreign' | 'forged'

export interface Cipher {
  /** name: where it will lie. */
  seal(name: string, plain: Buffer): Buffer
  /** What was sealed for this name. Never throws. */
  open(name: string, sealed: Buffer): Buffer | Unopened
}

/** secrets: texts that nobody can guess, one at least; the first one seals. */
export function createCipher(secrets: readonly string[]): Cipher {
  const keys = secrets.map(keyOf)
  const first = keys[0] as Key

  return {
    seal(name, plain) {
      const sealed = Buffer.allocUnsafe(plain.length + OVERHEAD_BYTES)
      first.id.copy(sealed)
      const nonce = randomFillSync(sealed.subarray(ID_BYTES, SEALED_AT))
      const cipher = createCipheriv('aes-256-gcm', first.of(name), nonce).setAAD(Buffer.from(name))
      cipher.update(plain).copy(sealed, SEALED_AT)
      cipher.final()
      cipher.getAuthTag().copy(sealed, sealed.length - TAG_BYTES)
      return sealed
    },
    open(name, sealed) {
      if (sealed.length < OVERHEAD_BYTES) return 'forged'
      const key = keys.find(({ id }) => id.compare(sealed, 0, ID_BYTES) === 0)
      if (key === undefined) return 'foreign'
      const nonce = sealed.subarray(ID_BYTES, SEALED_AT)
      const tagAt = sealed.length - TAG_BYTES
      const decipher = createDecipheriv('aes-256-gcm', key.of(name), nonce, { authTagLength: TAG_BYTES })
      decipher.setAAD(Buffer.from(name)).setAuthTag(sealed.subarray(tagAt))
      const plain = decipher.update(sealed.subarray(SEALED_AT, tagAt))
      try {
        decipher.final()
      } catch {
        return 'forged'
      }
      return plain
    },
  }
}

interface Key {
  readonly id: Buffer
  of(name: string): Buffer
}

function keyOf(secret: string): Key {
  const derive = (purpose: string, bytes: number): Buffer =>
    Buffer.from(hkdfSync('sha256', secret, '', `weirgate ${purpose}`, bytes))
  const master = derive('sealed values', 32)
  return { id: derive('key id', ID_BYTES), of: (name) => createHmac('sha256', master).update(name).digest() }
}
