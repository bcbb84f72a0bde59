import { describe, expect, it } from 'vitest'
import { createGhosts } from '../../src/cache/stores/ghosts.ts'
import { KeyedHash } from '../../src/core/keyed-hash.ts'

const hash = new KeyedHash()
const hashOf = (key: string) => hash.of(key, 0)
const keys = (count: number, prefix = 'http://gateway.test/') =>
  Array.from({ length: count }, (_, i) => hashOf(`${prefix}${i}`))

describe('ghosts', () => {
  it('are known once, and only those that were added', () => {
    const ghosts = createGhosts(1024)
    ghosts.add(hashOf('a'))
    expect([ghosts.take(hashOf('b'), 10), ghosts.take(hashOf('a'), 10), ghosts.take(hashOf('a'), 10)]).toEqual([
      false,
      true,
      false,
    ])
  })

  it('are forgotten when as many others have come since as were asked for', () => {
    const ghosts = createGhosts(2 ** 16)
    for (const key of keys(101)) ghosts.add(key)
    expect([
      ghosts.take(hashOf('http://gateway.test/0'), 100),
      ghosts.take(hashOf('http://gateway.test/100'), 1),
    ]).toEqual([false, true])
  })

  it('are mostly known where there is room for twice as many, and hardly ever mistaken', () => {
    const ghosts = createGhosts(2 ** 14)
    for (const key of keys(2 ** 13)) ghosts.add(key)
    const known = (all: readonly number[]) => all.filter((key) => ghosts.take(key, 2 ** 14)).length
    expect(known(keys(2 ** 13, 'http://other.test/'))).toBeLessThan(10)
    expect(known(keys(2 ** 13))).toBeGreaterThan(0.7 * 2 ** 13)
  })

  it.each([0, 1, 3])('need room for at least something: %d', (places) => {
    const ghosts = createGhosts(places)
    ghosts.add(hashOf('a'))
    expect(ghosts.take(hashOf('a'), 1)).toBe(true)
  })
})
