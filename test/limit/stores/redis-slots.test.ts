// Slots in Redis, taken by several instances, each with a connection of its own.

import { beforeEach, describe, expect, it } from 'vitest'
import type { RedisLink } from '../../../src/core/redis.ts'
import { limitOptions } from '../../../src/limit/options.ts'
import { type Quota, compileQuota } from '../../../src/limit/quota.ts'
import type { Slot, SlotStore } from '../../../src/limit/slots.ts'
import { createRedisSlots } from '../../../src/limit/stores/redis-slots.ts'
import { compileSubjectTag } from '../../../src/limit/subject-tag.ts'
import { closeAfterEach } from '../../support/closing.ts'
import { linksFor, soon, whenDown } from '../../support/redis-link.ts'
import {
  type RedisServer,
  describeWithRedis,
  freePort,
  startRedis,
  startRedisCluster,
  startRelay,
  until,
} from '../../support/redis.ts'

const opened = closeAfterEach()
const { linkUp } = linksFor(opened)

const quotaOf = (options: object = {}): Quota =>
  compileQuota('slots', limitOptions.parse({ kind: 'concurrency', limit: 2, ...options }))
const two = quotaOf()

interface Times {
  readonly leaseMs?: number
  readonly renewMs?: number
}

let instancesMade = 0
function slotsOn(link: RedisLink, times: Times = {}, count = 2): SlotStore {
  const slots = createRedisSlots({
    link,
    namespace: 'ns',
    tagOf: compileSubjectTag('secret'),
    instance: `instance${++instancesMade}`,
    instances: () => count,
    ...times,
  })
  opened({ close: async () => slots.close() })
  return slots
}

type Answer = Awaited<ReturnType<SlotStore['acquire']>>

const isHeld = (answer: Answer): answer is Slot => typeof answer === 'object'

async function take(slots: SlotStore, quota = two, subject = 'ann'): Promise<Slot> {
  const answer = await slots.acquire(quota, subject)
  if (!isHeld(answer)) throw new Error(`refused by ${answer}`)
  return answer
}

/** Takes one as soon as there is one. */
async function takeWhenFree(slots: SlotStore): Promise<Slot> {
  const found: Answer[] = []
  await until(async () => isHeld(found[found.push(await slots.acquire(two, 'ann')) - 1] as Answer), 'a free slot')
  return found.at(-1) as Slot
}

describeWithRedis('slots in Redis', () => {
  let redis: RedisServer
  beforeEach(async () => {
    redis = opened(await startRedis())
  })

  const instances = (count: number, times: Times = {}) =>
    Promise.all(Array.from({ length: count }, async () => slotsOn(await linkUp(redis.url), times, count)))
  const keys = async () => (await redis.ask('--scan', '--pattern', 'ns:s1:*')).split('\n').filter(Boolean)
  /** Slots that Redis knows of, of all subjects. */
  const known = async () => {
    const counts = await Promise.all((await keys()).map((key) => redis.ask('ZCARD', key)))
    return counts.reduce((sum, count) => sum + Number(count), 0)
  }
  const knows = (count: number) => until(async () => (await known()) === count, `${count} slots in Redis`)

  it('are never more than the limit, whichever instance asks, and come back to all', async () => {
    const [a, b] = (await instances(2)) as [SlotStore, SlotStore]
    const first = await take(a)
    expect([first.source, first.remaining]).toEqual(['redis', 1])
    expect((await take(b)).remaining).toBe(0)
    expect([await a.acquire(two, 'ann'), await b.acquire(two, 'ann')]).toEqual(['redis', 'redis'])
    expect([a.used(two, 'ann'), b.used(two, 'ann')]).toEqual([2, 2])
    first.release()
    expect((await takeWhenFree(b)).remaining).toBe(0)
    expect(await a.acquire(two, 'ann')).toBe('redis')
  })

  it('go to who asks in the turn in which one comes back', async () => {
    const [a] = (await instances(1)) as [SlotStore]
    const first = await take(a)
    await take(a)
    first.release()
    expect((await take(a)).remaining).toBe(0)
  })

  it('are those of one subject and policy', async () => {
    const [a] = (await instances(1)) as [SlotStore]
    const other = compileQuota('other', limitOptions.parse({ kind: 'concurrency', limit: 1 }))
    await take(a)
    await take(a)
    expect((await take(a, two, 'ben')).remaining).toBe(1)
    expect((await take(a, other)).remaining).toBe(0)
    expect(await a.acquire(two, 'ann')).toBe('redis')
    expect(await keys()).toHaveLength(3)
    expect((await keys()).join(' ')).not.toMatch(/ann|ben/)
    // Nobody has to come by for what is left of a dead instance to go.
    for (const key of await keys()) expect(Number(await redis.ask('PTTL', key))).toBeGreaterThan(0)
  })

  it('are as many as the limit when all ask in one turn, and one call sees to all', async () => {
    const [a] = (await instances(1)) as [SlotStore]
    await take(a, two, 'warm')
    const calls = async () => Number(/evalsha:calls=(\d+)/.exec(await redis.ask('INFO', 'commandstats'))?.[1])
    const before = await calls()
    const answers = await Promise.all(Array.from({ length: 40 }, async (_, i) => a.acquire(two, `s${i % 4}`)))
    expect(answers.filter(isHeld)).toHaveLength(8)
    expect((await calls()) - before).toBe(1)
    for (const answer of answers) if (isHeld(answer)) answer.release()
    await knows(1)
    expect((await calls()) - before).toBe(2)
  })

  it('are held by no more than the limit at any time, however they come and go', async () => {
    const all = await instances(3)
    const five = quotaOf({ limit: 5 })
    let held = 0
    let most = 0
    let taken = 0
    const client = async (slots: SlotStore): Promise<void> => {
      for (let left = 30; left > 0;) {
        const answer = await slots.acquire(five, 'ann')
        if (!isHeld(answer)) continue
        most = Math.max(most, ++held)
        taken++
        left--
        await new Promise((resolve) => setImmediate(resolve))
        held--
        answer.release()
      }
    }
    await Promise.all(all.flatMap((slots) => [client(slots), client(slots), client(slots), client(slots)]))
    expect([most, taken]).toEqual([5, 360])
    await knows(0)
  })

  it('come free when the instance that holds them dies', async () => {
    const dying = await linkUp(redis.url)
    const [a, b] = [slotsOn(dying, { leaseMs: 1500 }), slotsOn(await linkUp(redis.url), { leaseMs: 1500 })]
    await Promise.all([take(a), take(a)])
    expect(await b.acquire(two, 'ann')).toBe('redis')
    await dying.close()
    await takeWhenFree(b)
  })

  it('are held for longer than a lease while the instance lives', async () => {
    const [a, b] = (await instances(2, { leaseMs: 1500, renewMs: 50 })) as [SlotStore, SlotStore]
    const slots = [await take(a), await take(a)]
    const endsMs = Date.now() + 1500
    await until(() => Date.now() > endsMs, 'the first lease to be over')
    expect(await b.acquire(two, 'ann')).toBe('redis')
    for (const slot of slots) slot.release()
    await takeWhenFree(b)
  })

  it('are known again to a Redis that has lost its data', async () => {
    const [a, b] = (await instances(2, { renewMs: 50 })) as [SlotStore, SlotStore]
    await take(a)
    await take(a)
    await redis.flush()
    await knows(2)
    expect(await b.acquire(two, 'ann')).toBe('redis')
  })

  it('come back when the instance ends', async () => {
    const [a] = (await instances(1)) as [SlotStore]
    await take(a)
    await take(a, two, 'ben')
    await a.close()
    expect(await known()).toBe(0)
  })

  it('do not stay until an old time comes again when the clock of Redis has stepped back', async () => {
    const [a, b] = (await instances(2, { leaseMs: 500 })) as [SlotStore, SlotStore]
    const slot = await take(a)
    const [key] = (await keys()) as [string]
    slot.release()
    await knows(0)
    // A slot of an instance that died in the future.
    await redis.ask('ZADD', key, String(Date.now() + 3_600_000), 'dead:1', String(Date.now() + 3_600_000), 'dead:2')
    expect(await b.acquire(two, 'ann')).toBe('redis')
    await takeWhenFree(b)
  })

  describe('while Redis is lost', () => {
    const lost = async (count: number) => {
      const link = await linkUp(redis.url)
      // Renewed for a reason only.
      const slots = slotsOn(link, { renewMs: 60_000 }, count)
      return { link, slots, lose: async () => [await redis.kill(), await whenDown(link)] }
    }

    it.each([
      ['share', 3, 2],
      ['full', 3, 7],
      ['open', 3, 30],
      ['closed', 3, 0],
      // Each at least one.
      ['share', 9, 1],
    ])('fallback %s with %i instances lets %i of 30 in here', async (fallback, count, admitted) => {
      const { slots, lose } = await lost(count)
      await lose()
      const seven = quotaOf({ limit: 7, fallback })
      const answers = Array.from({ length: 30 }, () => slots.acquire(seven, 'ann'))
      // At once: nobody waits for a Redis that is known to be lost.
      expect(answers.filter((answer) => answer instanceof Promise)).toEqual([])
      expect(answers.filter((answer) => typeof answer === 'object')).toHaveLength(admitted)
      expect(new Set(answers.filter((answer) => typeof answer === 'string'))).toEqual(
        new Set(admitted === 30 ? [] : [fallback === 'closed' ? 'closed' : 'share']),
      )
    })

    it('what is held already counts, and what is given back is there again', async () => {
      const { slots, lose } = await lost(2)
      const four = quotaOf({ limit: 4 })
      const held = [await take(slots, four), await take(slots, four), await take(slots, four)]
      await lose()
      expect(slots.acquire(four, 'ann')).toBe('share')
      held.pop()?.release()
      expect(slots.acquire(four, 'ann')).toBe('share')
      held.pop()?.release()
      expect(slots.acquire(four, 'ann')).toMatchObject({ source: 'share', remaining: 0 })
      expect(slots.used(four, 'ann')).toBe(2)
    })

    it('what is taken here is known to Redis when it is back, and what was given back is not', async () => {
      const { link, slots, lose } = await lost(2)
      const before = await take(slots)
      await lose()
      before.release()
      const slot = slots.acquire(two, 'ann') as Slot
      await redis.restart()
      expect(await link.whenUp(10_000)).toBe(true)
      await knows(1)
      const [b] = (await instances(1)) as [SlotStore]
      await take(b)
      expect(await b.acquire(two, 'ann')).toBe('redis')
      slot.release()
      await takeWhenFree(b)
    })

    it('what was given back meanwhile is free when it is back', async () => {
      const relay = opened(await startRelay(redis.port))
      const link = await linkUp(relay.url)
      const slots = slotsOn(link)
      const held = [await take(slots), await take(slots)]
      relay.stall()
      held.pop()?.release()
      // It is on its way, and will not arrive.
      await new Promise((resolve) => setImmediate(resolve))
      relay.target = await freePort()
      relay.cut('reset')
      await whenDown(link)
      held.pop()?.release()
      expect(await known()).toBe(2)
      relay.target = redis.port
      relay.release()
      expect(await link.whenUp(10_000)).toBe(true)
      await knows(0)
    })

    it('who has just asked is answered as who asks then', async () => {
      const link = await linkUp(redis.url)
      const slots = slotsOn(link)
      const answers = [slots.acquire(two, 'ann'), slots.acquire(two, 'ann')]
      await link.close()
      expect(await answers[0]).toMatchObject({ source: 'share', remaining: 0 })
      expect(await answers[1]).toBe('share')
    })

    it('hung rather than gone, all wait for the deadline at most, and nothing stays taken for them', async () => {
      const [link, other] = [await linkUp(redis.url, soon), await linkUp(redis.url)]
      const [a, b] = [slotsOn(link), slotsOn(other)]
      const held = await take(a)
      redis.pause()
      held.release()
      const answers = await Promise.all(Array.from({ length: 10 }, async () => a.acquire(two, 'ann')))
      expect(answers.filter(isHeld).map(({ source }) => source)).toEqual(['share'])
      redis.resume()
      expect(await link.whenUp(10_000)).toBe(true)
      await knows(1)
      answers.find(isHeld)?.release()
      await knows(0)
      await take(b)
      await take(b)
    })
  })
})

describeWithRedis('slots in a Redis Cluster', () => {
  it('are counted wherever their subject lies', async () => {
    const cluster = opened(await startRedisCluster())
    const [a, b] = [slotsOn(await linkUp(cluster.url)), slotsOn(await linkUp(cluster.url))]
    const answers = await Promise.all(Array.from({ length: 60 }, async (_, i) => a.acquire(two, `s${i % 20}`)))
    expect(answers.filter(isHeld)).toHaveLength(40)
    expect(await b.acquire(two, 's7')).toBe('redis')
    for (const answer of answers) if (isHeld(answer)) answer.release()
    await until(async () => isHeld(await b.acquire(two, 's7')), 'a free slot')
  })
})
