// The keys that instances share, in a real Redis.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createCipher } from '../../src/core/cipher.ts'
import type { RedisLink } from '../../src/core/redis.ts'
import type { Answer } from '../../src/idempotency/answer.ts'
import { type Claim, type SharedKeys, type SharedKeysSetup, createSharedKeys } from '../../src/idempotency/redis.ts'
import { type RedisServer, describeWithRedis, startRedis, startRedisCluster, until } from '../support/redis.ts'
import { linksFor } from '../support/redis-link.ts'

const LEASE_MS = 300
const FOR_MS = 60_000
const ANSWER: Answer = { status: 201, headers: ['X-Name', 'secret words'], body: Buffer.from('secret deed') }

describeWithRedis('shared keys', () => {
  let redis: RedisServer
  let link: RedisLink
  let opened: { close(): Promise<unknown> }[] = []
  const keep = <T extends { close(): Promise<unknown> }>(part: T): T => {
    opened.push(part)
    return part
  }
  const { linkUp } = linksFor(keep)

  beforeAll(async () => {
    redis = await startRedis()
  })
  afterAll(() => redis.close())
  beforeEach(async () => {
    await redis.flush()
    link = await linkUp(redis.url)
    return async () => {
      for (const part of opened.toReversed()) await part.close()
      opened = []
    }
  })

  const instance = (more: Partial<SharedKeysSetup> = {}): SharedKeys =>
    keep(createSharedKeys({ link, namespace: 'test', cipher: null, leaseMs: LEASE_MS, ...more }))
  const claim = (keys: SharedKeys, token: string, mayRetry = false, forMs = FOR_MS) =>
    keys.claim('id', 'print', token, forMs, mayRetry)
  const claimed = async (keys: SharedKeys, token: string, mayRetry = false, forMs = FOR_MS): Promise<Claim> => {
    const told = await claim(keys, token, mayRetry, forMs)
    if (told.state !== 'mine') throw new Error(`not to be had: ${told.state}`)
    return told.claim
  }
  const stateOf = async (keys: SharedKeys, token = 'other'): Promise<string> => (await claim(keys, token)).state
  const field = (name: string): Promise<string> => redis.ask('HGET', 'test:idempotency:{id}', name)
  const lifeMs = async (): Promise<number> => Number(await redis.ask('PTTL', 'test:idempotency:{id}'))

  it('are of who claims them first, who may ask twice', async () => {
    const [a, b] = [instance(), instance()]
    await claimed(a, 'one')
    expect((await claim(a, 'one')).state).toBe('mine')
    expect(await stateOf(b)).toBe('running')
    expect((await b.claim('id', 'another print', 'other', FOR_MS, true)).state).toBe('reused')
  })

  it.each([
    ['answered', { state: 'answered', answer: ANSWER }],
    ['not_kept', { state: 'not_kept' }],
    ['unknown', { state: 'unknown' }],
  ] as const)('tell that a request is %s for as long as its key is remembered', async (state, told) => {
    const [a, b] = [instance(), instance()]
    await (await claimed(a, 'one')).end(told)
    expect(await claim(b, 'other')).toEqual(told)
    expect(await field('s')).toBe(state)
    expect(await lifeMs()).toBeGreaterThan(FOR_MS - 20_000)
    expect(await lifeMs()).toBeLessThanOrEqual(FOR_MS)
    // Nobody runs it any more.
    expect(a.owed).toBe(0)
  })

  it('of many who have sent the same are freed together, up to a bound', async () => {
    const keys = instance()
    const name = 'n'.repeat(22)
    const ids = Array.from({ length: 1001 }, (_, i) => `${name}${i}`)
    for (const id of ids) await keys.assume(id, 'print', 'one', FOR_MS).end({ state: 'unknown' })
    expect(await keys.free(name)).toHaveLength(1000)
    expect(await keys.free(name)).toEqual([])
    const states: string[] = []
    for (const id of ids) states.push((await keys.claim(id, 'print', 'two', FOR_MS, false)).state)
    expect(states.filter((state) => state === 'mine')).toHaveLength(1000)
    // Who has been told of it counts again.
    expect(await keys.free(name)).toHaveLength(1)
  })

  it('are free where nothing was done', async () => {
    const [a, b] = [instance(), instance()]
    await (await claimed(a, 'one')).end(null)
    expect(await redis.ask('DBSIZE')).toBe('0')
    await claimed(b, 'other')
  })

  it('are held while the instance lives, however short they are remembered, and not known when it has gone', async () => {
    const [a, b] = [instance(), instance()]
    await claimed(a, 'one', false, 20_000)
    const first = Number(await field('u'))
    await until(async () => Number(await field('u')) > first + LEASE_MS, 'the lease to be renewed')
    await redis.ask('PEXPIRE', 'test:idempotency:{id}', '10000')
    await until(async () => (await lifeMs()) > 15_000, 'the key to be kept for it')
    // Without a word, as one that dies.
    await a.close()
    await until(async () => (await stateOf(b)) !== 'running', 'the lease to end')
    expect(await stateOf(b)).toBe('unknown')
  })

  it('that are not known are run again by who may, and what the first then says of them counts no more', async () => {
    const [a, b] = [instance(), instance({ leaseMs: 60_000 })]
    const first = await claimed(a, 'one')
    // Its lease has ended though it lives: it was stopped for a while.
    await redis.ask('HSET', 'test:idempotency:{id}', 'u', '0')
    const second = await claimed(b, 'two', true)
    await first.end({ state: 'unknown' })
    expect(await field('s')).toBe('running')
    await second.end({ state: 'answered', answer: ANSWER })
    expect(await stateOf(a)).toBe('answered')
  })

  it('that Redis has lost are made again by the end of their request', async () => {
    const [a, b] = [instance(), instance()]
    const own = await claimed(a, 'one')
    await redis.flush()
    await own.end({ state: 'answered', answer: ANSWER })
    expect(await claim(b, 'other')).toEqual({ state: 'answered', answer: ANSWER })
  })

  it('too large for Redis are not kept there', async () => {
    const keys = instance()
    const body = Buffer.from(Array.from({ length: 3_000_000 }, () => Math.floor(Math.random() * 256)))
    await (await claimed(keys, 'one')).end({ state: 'answered', answer: { ...ANSWER, body } })
    expect(await stateOf(keys)).toBe('not_kept')
  })

  it('can be read by nobody without the cipher, and answer nobody who has another', async () => {
    const cipher = createCipher(['a secret of the fleet'])
    const [a, b] = [instance({ cipher }), instance({ cipher })]
    await (await claimed(a, 'one')).end({ state: 'answered', answer: ANSWER })
    expect(await field('v')).not.toContain('secret')
    expect(await claim(b, 'other')).toEqual({ state: 'answered', answer: ANSWER })
    const foreign = instance({ cipher: createCipher(['the secret of another']) })
    expect(await stateOf(foreign)).toBe('not_kept')
    expect(await stateOf(instance())).toBe('not_kept')
  })

  it('that cannot be written are owed, up to a bound', async () => {
    const keys = instance()
    const claims: Claim[] = []
    for (let i = 0; i < 1001; i++) claims.push(keys.assume(`id-${i}`, 'print', 'one', FOR_MS))
    await redis.ask('CONFIG', 'SET', 'maxmemory', '1')
    try {
      await Promise.all(claims.map((each) => each.end({ state: 'unknown' })))
      expect([keys.owed, keys.lost]).toEqual([1000, 1])
    } finally {
      await redis.ask('CONFIG', 'SET', 'maxmemory', '0')
    }
    await until(() => keys.owed === 0, 'Redis to be told')
    expect((await redis.ask('--scan', '--pattern', 'test:idempotency:*')).split('\n').filter(Boolean)).toHaveLength(
      1000,
    )
    expect(keys.lost).toBe(1)
  })

  it('are told of when the instance ends', async () => {
    const keys = instance()
    const own = await claimed(keys, 'one')
    void own.end({ state: 'answered', answer: { ...ANSWER, body: Buffer.alloc(500_000, 'x') } })
    await keys.close()
    expect(await field('s')).toBe('answered')
  })
})

describeWithRedis('shared keys in a cluster', () => {
  describe('as anywhere', () => {
    it('are claimed, told and free again', { timeout: 60_000 }, async () => {
      const opened: { close(): Promise<unknown> }[] = []
      const cluster = await startRedisCluster()
      try {
        const { linkUp } = linksFor((part) => (opened.push(part), part))
        const keys = createSharedKeys({ link: await linkUp(cluster.url), namespace: 'test', cipher: null })
        opened.push(keys)
        for (let i = 0; i < 20; i++) {
          const told = await keys.claim(`id-${i}`, 'print', 'one', FOR_MS, false)
          if (told.state === 'mine') await told.claim.end(i % 2 === 0 ? null : { state: 'answered', answer: ANSWER })
        }
        const states: string[] = []
        for (let i = 0; i < 20; i++) states.push((await keys.claim(`id-${i}`, 'print', 'two', FOR_MS, false)).state)
        expect(states).toEqual(Array.from({ length: 10 }, () => ['mine', 'answered']).flat())
        const lost = keys.assume('lost', 'print', 'one', FOR_MS)
        await lost.end({ state: 'unknown' })
        expect(await keys.free('lost')).toEqual(['lost'])
        expect((await keys.claim('lost', 'print', 'two', FOR_MS, false)).state).toBe('mine')
      } finally {
        for (const part of opened.toReversed()) await part.close()
        await cluster.close()
      }
    })
  })
})
