// `collapse: shared` between a tier and leases that a test gives by hand, so that everything can happen meanwhile.

import { expect, it } from 'vitest'
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
