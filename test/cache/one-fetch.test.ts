// `collapse: shared` between a tier and leases that a test gives by hand, so that everything can happen meanwhile.

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { Lease, LeaseOutcome, Leases, Taken } from '../../src/cache/lease.ts'
import { START_MS, createBench, settle } from '../support/cache.ts'
import { entryOf } from '../support/entry.ts'
import { type HandRead, createHandTier } from '../support/tier.ts'

const FRESH = ['Cache-Control', 'max-age=60']

function createHandLeases() {
  const asked: ((answer: Lease | Taken | null) => void)[] = []
  const ended: LeaseOutcome[] = []
  const leases: Leases = {
    counts: { led: 0, followed: 0, lost: 0, unanswered: 0 },
    prepare() {},
    take() {
      const { promise, resolve } = Promise.withResolvers<Lease | Taken | null>()
      asked.push(resolve)
      return promise
    },
    close: async () => {},
  }
  const lease: Lease = { end: async (outcome) => void ended.push(outcome) }
  return { leases, asked, ended, lease }
}

function createWorld() {
  const written = Promise.withResolvers<void>()
  const tier = { ...createHandTier(), written: () => written.promise }
  const hand = createHandLeases()
  const bench = createBench({ collapse: 'shared' }, { tiers: [tier], leases: hand.leases })
  const answerRead = async (at: number, isThere: boolean) => {
    const read = tier.reads[at] as HandRead
    const { key, epoch } = read
    const times = { freshUntilMs: START_MS + 60_000, bornAtMs: START_MS }
    read.answer(...(isThere ? [{ ...entryOf({ key, body: 'theirs' }), epoch, ...times }] : []))
    await settle()
  }
  return { ...hand, bench, tier, written, answerRead }
}

it('looks once more when it has the lease: another may just have been through', async () => {
  const { bench, asked, ended, lease, answerRead } = createWorld()
  const clients = [bench.ask(), bench.ask()]
  await settle()
  await answerRead(0, false)
  expect(asked).toHaveLength(1)
  asked[0]?.(lease)
  await settle()
  await answerRead(1, true)
  for (const client of clients) {
    expect([await client.field('X-Cache'), await client.outcome()]).toEqual(['COLLAPSED', '200 theirs'])
  }
  expect([bench.asked.length, ended]).toEqual([0, ['stored']])
})

it('gives the lease back when others can read what it has stored, and not before', async () => {
  const { bench, asked, ended, lease, written, answerRead } = createWorld()
  const clients = [bench.ask(), bench.ask()]
  await settle()
  await answerRead(0, false)
  asked[0]?.(lease)
  await settle()
  await answerRead(1, false)
  bench.asked[0]?.reply(FRESH, 'ours')
  expect(await Promise.all(clients.map((client) => client.outcome()))).toEqual(['200 ours', '200 ours'])
  await settle()
  expect([bench.asked.length, ended]).toEqual([1, []])
  written.resolve()
  await settle()
  expect(ended).toEqual(['stored'])
})

it('gives the lease back when its client goes, whenever that is', async () => {
  for (const goesAt of ['the lease', 'the read', 'the fetch']) {
    const { bench, asked, ended, lease, answerRead } = createWorld()
    const client = bench.ask()
    client.reply.catch(() => {})
    await settle()
    await answerRead(0, false)
    if (goesAt === 'the lease') client.abort()
    asked[0]?.(lease)
    await settle()
    if (goesAt === 'the read') client.abort()
    await answerRead(1, false)
    if (goesAt === 'the fetch') client.abort()
    await settle()
    expect(ended).toEqual(['nothing'])
  }
})

it('lets those who waited behind a client that went go on by themselves', async () => {
  const { bench, asked, lease, answerRead } = createWorld()
  const [first, second] = [bench.ask(), bench.ask()]
  first?.reply.catch(() => {})
  await settle()
  await answerRead(0, false)
  asked[0]?.({ ended: new Promise(() => {}) })
  await settle()
  first?.abort()
  await settle()
  await answerRead(1, false)
  expect(asked).toHaveLength(2)
  asked[1]?.(lease)
  await settle()
  await answerRead(2, false)
  bench.asked[0]?.reply(FRESH, 'ours')
  expect(await second?.outcome()).toBe('200 ours')
})

describe('behind another instance that goes on and on', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }))
  afterEach(() => void vi.useRealTimers())

  /** Three clients who hear nothing of it but that it still has its lease, each time 3 s later. */
  async function createWaiting() {
    const world = createWorld()
    const { bench, asked, tier, answerRead } = world
    const clients = [bench.ask(), bench.ask(), bench.ask()]
    await settle()
    await answerRead(0, false)
    const goOn = async (terms: number) => {
      for (let i = 0; i < terms; i++) {
        const taken = Promise.withResolvers<null>()
        asked.at(-1)?.({ ended: taken.promise })
        await settle()
        vi.advanceTimersByTime(3000)
        taken.resolve(null)
        await settle()
        await answerRead(tier.reads.length - 1, false)
      }
    }
    return { ...world, clients, goOn }
  }

  it('waits for as long as a fetch may take, one asking for all', async () => {
    const { bench, asked, clients, tier, answerRead, goOn } = await createWaiting()
    await goOn(95)
    expect([asked.length, bench.asked.length]).toEqual([96, 0])
    asked.at(-1)?.({ ended: Promise.resolve('stored') })
    await settle()
    await answerRead(tier.reads.length - 1, true)
    expect(await Promise.all(clients.map((client) => client.outcome()))).toEqual(Array(3).fill('200 theirs'))
    expect(bench.asked).toHaveLength(0)
  })

  it('fetches once for all when that is over', async () => {
    const { bench, clients, goOn } = await createWaiting()
    await goOn(101)
    bench.asked[0]?.reply(FRESH, 'ours')
    expect(await Promise.all(clients.map((client) => client.outcome()))).toEqual(Array(3).fill('200 ours'))
    expect(bench.asked).toHaveLength(1)
  })

  it('fetches once for all where Redis tells no more', async () => {
    const { bench, asked, clients, goOn } = await createWaiting()
    await goOn(20)
    asked.at(-1)?.(null)
    await settle()
    bench.asked[0]?.reply(FRESH, 'ours')
    expect(await Promise.all(clients.map((client) => client.outcome()))).toEqual(Array(3).fill('200 ours'))
    expect(bench.asked).toHaveLength(1)
  })
})
