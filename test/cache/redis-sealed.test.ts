// The Redis tier where values are sealed: what lies there tells nothing, and what was not sealed for its place is not used.

import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import type { Privacy } from '../../src/cache/privacy.ts'
import { createRedisTier } from '../../src/cache/stores/redis.ts'
import type { CacheTier } from '../../src/cache/tier.ts'
import { createCipher } from '../../src/core/cipher.ts'
import { closeAfterEach } from '../support/closing.ts'
import { linksFor } from '../support/redis-link.ts'
import { type RedisServer, describeWithRedis, startRedis } from '../support/redis.ts'
import { describeTier, lasting, readFor, writeAll } from './tier-contract.ts'

const SECRET = 'of the deployment'
const OLD = 'the key of last year'
const NEW = 'the key of this year'
const KEY = 'http://gateway.test/'

describeWithRedis('with Redis', () => {
  let redis: RedisServer
  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())
  beforeEach(() => redis.flush())
  const opened = closeAfterEach()
  const { linkUp } = linksFor(opened)
  const open = async (privacy: Partial<Privacy> = {}): Promise<CacheTier> => {
    const whole = { secret: SECRET, cipher: createCipher([NEW]), ...privacy }
    return opened(createRedisTier(await linkUp(redis.url), 'test', Date.now, whole))
  }

  describeTier('the Redis tier with a cipher', () => ({ open }))

  const keys = async (): Promise<string[]> => (await redis.ask('KEYS', '*')).split('\n').filter((key) => key !== '')
  const only = async (): Promise<string> => (await keys())[0] ?? ''
  const variant = (value: string, key = KEY) =>
    lasting({ key, body: value, vary: ['x-kind'], request: ['x-kind', value] })
  /** Changes one byte. */
  const flip = (key: string, at: number) => redis.ask('EVAL', FLIP, '1', key, String(at))
  const FLIP = `
    local byte = string.byte(redis.call('GETRANGE', KEYS[1], ARGV[1], ARGV[1]))
    redis.call('SETRANGE', KEYS[1], ARGV[1], string.char(bit.bxor(byte, 1)))`

  it('shows nothing of a response, not its fields, its tags or what selects it', async () => {
    const tier = await open()
    await writeAll(
      tier,
      lasting({
        body: 'known body',
        headers: ['X-Known', 'known field'],
        tags: ['known-tag'],
        vary: ['x-known-name'],
        request: ['x-known-name', 'known value'],
      }),
    )
    for (const key of await keys()) {
      const value = await redis.ask('GET', key)
      expect(value.startsWith('WGS1')).toBe(true)
      expect(`${key} ${value}`.toLowerCase()).not.toContain('known')
    }
    expect(await readFor(tier, ['x-known-name', 'known value'])).toEqual(['known body'])
  })

  it.each([
    ['its magic', 0],
    ['its selector', 20],
    ['the digest of its names', 40],
    ['its nonce', 62],
    ['what is sealed', 100],
    ['its tag', -1],
  ])('takes a value with another byte in %s for nothing, and removes it', async (_what, at) => {
    const tier = await open()
    await writeAll(tier, lasting({ body: 'x'.repeat(100) }))
    const length = Number(await redis.ask('STRLEN', await only()))
    await flip(await only(), (at + length) % length)
    expect(await readFor(tier)).toEqual([])
    expect(tier.counts).toMatchObject({ hits: 0, bad: 1, locked: 0 })
    expect(await readFor(tier)).toEqual([])
    expect(await keys()).toEqual([])
  })

  it('takes nothing that was sealed for another key, nor a variant of it', async () => {
    const tier = await open()
    await writeAll(tier, lasting({ body: 'of one user' }))
    const from = await only()
    await writeAll(tier, lasting({ key: `${KEY}other` }))
    const to = (await keys()).find((key) => key !== from) ?? ''
    await redis.ask('COPY', from, to, 'REPLACE')
    expect(await readFor(tier, [], `${KEY}other`)).toEqual([])
    expect(tier.counts).toMatchObject({ hits: 0, bad: 1 })
    expect(await readFor(tier)).toEqual(['of one user'])
  })

  it('keeps variants apart, and takes none for another', async () => {
    const tier = await open()
    for (const value of ['1', '2', '3']) await writeAll(tier, variant(value))
    for (const value of ['1', '2', '3']) expect(await readFor(tier, ['x-kind', value])).toEqual([value])
    const [second = '', third = ''] = (await keys()).filter((key) => key.includes('}:'))
    await redis.ask('COPY', second, third, 'REPLACE')
    const got = [await readFor(tier, ['x-kind', '2']), await readFor(tier, ['x-kind', '3'])].flat()
    expect(got.filter((body) => body !== '1')).toHaveLength(1)
    expect(tier.counts.bad).toBe(1)
  })

  it('takes no open value in the place of a sealed one', async () => {
    const tier = await open()
    await writeAll(tier, lasting({ body: 'sealed' }))
    const at = await only()
    await redis.flush()
    const other = await open({ cipher: null })
    await writeAll(other, lasting({ body: 'open' }))
    // By their names they do not even meet.
    expect(await only()).not.toBe(at)
    await redis.ask('COPY', await only(), at)
    expect(await readFor(tier)).toEqual([])
    expect([tier.counts.bad, await redis.ask('EXISTS', at)]).toEqual([1, '0'])
    expect(await readFor(other)).toEqual(['open'])
  })

  it('goes over from one key to the next: a value by one that is not known stays, and gives way to a new one', async () => {
    const [before, during, after] = [
      await open({ cipher: createCipher([OLD]) }),
      await open({ cipher: createCipher([NEW, OLD]) }),
      await open(),
    ] as const
    await writeAll(before, lasting({ body: 'old' }))
    expect(await readFor(during)).toEqual(['old'])
    expect(await readFor(after)).toEqual([])
    expect(after.counts).toMatchObject({ bad: 0, locked: 1 })
    expect(await readFor(before)).toEqual(['old'])
    await writeAll(during, lasting({ body: 'new' }))
    expect(await readFor(after)).toEqual(['new'])
    expect(await readFor(before)).toEqual([])
    expect(before.counts).toMatchObject({ bad: 0, locked: 1 })
  })

  it('has other names with another secret', async () => {
    await writeAll(await open(), variant('1'), variant('2'))
    const names = await keys()
    await redis.flush()
    await writeAll(await open({ secret: 'of another deployment' }), variant('1'), variant('2'))
    const others = await keys()
    expect([names.length, others.length]).toEqual([2, 2])
    for (const part of names.flatMap((name) => name.split(/[{}:]+/)).filter((each) => each.length > 20)) {
      expect(others.join(' ')).not.toContain(part)
    }
  })
})
