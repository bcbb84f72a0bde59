// What is sealed opens for those who know a key, under its name, and as it was.

import { randomBytes } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { createCipher } from '../../src/core/cipher.ts'

const OLD = 'the secret of last year'
const NEW = 'the secret of this year'
const PLAIN = Buffer.from('what was said to one user alone')
const cipher = createCipher([NEW])

describe('a cipher', () => {
  it.each([0, 1, 15, 16, 17, 100_000])('opens %i bytes as they were', (bytes) => {
    const plain = randomBytes(bytes)
    expect(cipher.open('a', cipher.seal('a', plain))).toEqual(plain)
  })

  it('shows nothing of what is sealed, nor that it is the same as before', () => {
    const [one, two] = [cipher.seal('a', PLAIN), cipher.seal('a', PLAIN)]
    expect(one.includes('user')).toBe(false)
    // Beside the id of the key.
    const shared = one.subarray(8).filter((byte, i) => byte === two[i + 8]).length
    expect(shared).toBeLessThan(12)
  })

  it('opens nothing under another name', () => {
    expect(cipher.open('b', cipher.seal('a', PLAIN))).toBe('forged')
  })

  it('opens nothing that was changed, wherever', () => {
    const sealed = cipher.seal('a', PLAIN)
    for (let at = 0; at < sealed.length; at++) {
      const changed = Buffer.from(sealed)
      changed[at] = (changed[at] as number) ^ 1
      expect(cipher.open('a', changed)).toBe(at < 8 ? 'foreign' : 'forged')
    }
  })

  it('opens nothing that was cut, lengthened or never sealed', () => {
    const sealed = cipher.seal('a', PLAIN)
    for (let bytes = 0; bytes < sealed.length; bytes++) {
      expect(cipher.open('a', sealed.subarray(0, bytes))).toBe('forged')
    }
    expect(cipher.open('a', Buffer.concat([sealed, sealed.subarray(0, 1)]))).toBe('forged')
    expect(cipher.open('a', Buffer.concat([PLAIN, PLAIN]))).toBe('foreign')
  })

  it('goes over from one key to the next', () => {
    const [before, during, after] = [createCipher([OLD]), createCipher([NEW, OLD]), cipher]
    expect(during.open('a', before.seal('a', PLAIN))).toEqual(PLAIN)
    expect(after.open('a', during.seal('a', PLAIN))).toEqual(PLAIN)
    expect(before.open('a', during.seal('a', PLAIN))).toBe('foreign')
    expect(after.open('a', before.seal('a', PLAIN))).toBe('foreign')
  })
})
