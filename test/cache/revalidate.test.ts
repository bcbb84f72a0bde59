import { describe, expect, it } from 'vitest'
import { purge } from '../../src/cache/purge.ts'
import { BROKEN } from '../support/body.ts'
import { type Asked, type Bench, createBench, settle } from '../support/cache.ts'

const KEY = 'http://gateway.test/'
const TAGGED = ['Cache-Control', 'max-age=60', 'ETag', '"a"']
const at = ({ asked }: Bench, i: number): Asked => asked[i] as Asked

/** A bench with one response stored that has been stale for ten seconds. */
async function stale(headers: readonly string[] = TAGGED, route: Record<string, unknown> = {}): Promise<Bench> {
  const bench = createBench(route)
  const first = bench.ask()
  await settle()
  at(bench, 0).reply(headers)
  expect(await first.outcome()).toBe('200 body')
  bench.nowMs += 70_000
  return bench
}

const SWR = { stale: { whileRevalidate: '1m' } }

function expectReleased({ shared }: Bench): void {
  expect({ fillBytes: shared.fillBytes, flights: shared.flights.size }).toEqual({ fillBytes: 0, flights: 0 })
}

it('[RFC 9111 §4.3.5] a stored error is not freshened by a HEAD that gets the same error', async () => {
  const bench = createBench()
  const first = bench.ask()
  await settle()
  at(bench, 0).reply([...TAGGED, 'Cache-Control', 's-maxage=60'], 'sick', 503)
  await first.outcome()
  bench.nowMs += 70_000
  const head = bench.ask({ method: 'HEAD' })
  await settle()
  at(bench, 1).reply(TAGGED, null, 503)
  await head.reply
  const next = bench.ask()
  await settle()
  at(bench, 2).reply([], 'well')
  expect(await next.outcome()).toBe('200 well')
})

describe('a clock that is set back', () => {
  it.each([
    ['by a little leaves what is fresh', 50_000, 'HIT', '0'],
    ['by a year makes nothing fresh for a year', 365 * 86_400_000, 'MISS', null],
  ])('%s', async (_how, backMs, said, age) => {
    const bench = createBench()
    const first = bench.ask()
    await settle()
    at(bench, 0).reply(TAGGED)
    await first.outcome()
    bench.nowMs -= backMs
    const next = bench.ask()
    await settle()
    if (said === 'MISS') at(bench, 1).reply(TAGGED, 'body')
    expect([await next.outcome(), await next.field('X-Cache'), await next.field('Age')]).toEqual([
      '200 body',
      said,
      age,
    ])
    expect(await bench.ask().field('X-Cache')).toBe('HIT')
  })

  it('makes no part fresh for as long', async () => {
    const bench = createBench()
    const part = () => bench.ask({ headers: ['Range', 'bytes=0-3'] })
    const first = part()
    await settle()
    at(bench, 0).reply([...TAGGED, 'Content-Range', 'bytes 0-3/9'], 'body', 206)
    await first.outcome()
    expect(await part().field('X-Cache')).toBe('HIT')
    bench.nowMs -= 365 * 86_400_000
    const next = part()
    await settle()
    at(bench, 1).reply([...TAGGED, 'Content-Range', 'bytes 0-3/9'], 'body', 206)
    expect(await next.field('X-Cache')).toBe('MISS')
  })

  it('ends the pause after a failure, and what is known of answers that are not for sharing', async () => {
    const bench = await stale(TAGGED, SWR)
    const { failures, flights } = bench.shared
    failures.add(KEY, bench.nowMs, 600_000)
    flights.unshareable.add(KEY, bench.nowMs)
    expect([failures.has(KEY, bench.nowMs), flights.unshareable.has(KEY, bench.nowMs)]).toEqual([true, true])
    bench.nowMs -= 86_400_000
    expect([failures.has(KEY, bench.nowMs), flights.unshareable.has(KEY, bench.nowMs)]).toEqual([false, false])
  })
})

it('that was not for sharing is not called purged by the last who has waited for it', async () => {
  const bench = createBench()
  const leader = bench.ask()
  await settle()
  const follower = bench.ask()
  await settle()
  leader.abort()
  at(bench, 0).reply(['Cache-Control', 'private'], 'of one user')
  await settle()
  at(bench, 1).reply(['Cache-Control', 'max-age=60'])
  expect(await follower.field('Cache-Status')).toBe('weirgate; fwd=miss; stored; detail=not-shared')
  expectReleased(bench)
})

describe('what cannot be validated', () => {
  it.each([
    ['gone', [], 404],
    ['gone for good', [], 410],
    ['not to be stored any more', ['Cache-Control', 'no-store'], 200],
    ["one user's", ['Cache-Control', 'private'], 200],
  ] as const)('answers no more once the origin has said that it is %s', async (_what, headers, status) => {
    const bench = await stale(['Cache-Control', 'max-age=60'], SWR)
    expect(await bench.ask().field('X-Cache')).toBe('STALE')
    at(bench, 1).reply(headers, 'other', status)
    await settle()
    expect(bench.shared.store.entries).toBe(0)
    const next = bench.ask()
    await settle()
    at(bench, 2).reply(headers, 'other', status)
    expect(await next.outcome()).toBe(`${status} other`)
    expectReleased(bench)
  })

  it('stays where that is said to one user alone', async () => {
    const bench = await stale(['Cache-Control', 'public, max-age=60'], SWR)
    expect(await bench.ask({ headers: ['Cookie', 'a=b'] }).field('X-Cache')).toBe('STALE')
    at(bench, 1).reply(['Cache-Control', 'private'], 'other')
    await settle()
    expect(bench.shared.store.entries).toBe(1)
  })
})

describe('a validation', () => {
  it('that a purge overtakes answers who asked before, and stores nothing', async () => {
    const bench = await stale()
    const client = bench.ask()
    await settle()
    await purge(bench.shared, { urls: [KEY] })
    at(bench, 1).reply([], null, 304)
    expect(await client.outcome()).toBe('200 body')
    expect(bench.shared.store.entries).toBe(0)
    expectReleased(bench)
  })

  it('that everybody has left is given up', async () => {
    const bench = await stale()
    const client = bench.ask()
    await settle()
    client.abort()
    expect(at(bench, 1).aborted?.code).toBe('client_gone')
    await expect(client.reply).rejects.toThrow('client_gone')
    expectReleased(bench)
  })

  it('that everybody has left does not ask for the whole after a 304 about something else', async () => {
    const bench = await stale()
    const client = bench.ask()
    await settle()
    at(bench, 1).reply(['ETag', '"b"'], null, 304)
    client.abort()
    await expect(client.reply).rejects.toThrow('client_gone')
    expect(bench.asked).toHaveLength(2)
    expectReleased(bench)
  })

  it.each(['no-store', 'private'])('that answers %s takes away what is stored', async (directive) => {
    const bench = await stale()
    const client = bench.ask()
    await settle()
    at(bench, 1).reply(['Cache-Control', directive], null, 304)
    expect(await client.outcome()).toBe('200 body')
    expect(bench.shared.store.entries).toBe(0)
    expectReleased(bench)
  })

  it('is not shared with those whose request selects another response by the Vary that came with it', async () => {
    const bench = await stale()
    const clients = ['1', '2'].map((value) => bench.ask({ headers: ['X-A', value] }))
    await settle()
    expect(bench.asked).toHaveLength(2)
    at(bench, 1).reply([...TAGGED, 'Vary', 'X-A'], null, 304)
    await settle()
    at(bench, 2).reply([...TAGGED, 'Vary', 'X-A'], 'other')
    expect(await Promise.all(clients.map((client) => client.outcome()))).toEqual(['200 body', '200 other'])
    expectReleased(bench)
  })
})

describe('a refresh in the background', () => {
  it('goes on when the client has gone who brought it about', async () => {
    const bench = await stale(TAGGED, SWR)
    const client = bench.ask()
    expect(await client.outcome()).toBe('200 body')
    client.abort()
    const body = at(bench, 1).stream([...TAGGED, 'X-New', 'a'])
    await settle()
    body.send('new')
    body.end()
    await settle()
    expect(await bench.ask().outcome()).toBe('200 new')
    expect(bench.asked).toHaveLength(2)
    expectReleased(bench)
  })

  it('lets go of an answer that is not stored, and of one that is too large', async () => {
    for (const headers of [
      ['Cache-Control', 'no-store'],
      ['Cache-Control', 'max-age=60'],
    ]) {
      const bench = await stale(TAGGED, { ...SWR, maxObject: '10B' })
      expect(await bench.ask().field('X-Cache')).toBe('STALE')
      const body = at(bench, 1).stream(headers)
      await settle()
      body.send('eleven bytes and more')
      await settle()
      expect(body.isCancelled || body.isOver).toBe(true)
      expectReleased(bench)
    }
  })

  it("that fails is nobody's failure, and is not tried again at once", async () => {
    const bench = await stale(TAGGED, SWR)
    await bench.ask().reply
    at(bench, 1).fail(BROKEN)
    await settle()
    expect(await bench.ask().field('Cache-Status')).toBe('weirgate; hit; ttl=-10; detail=backing-off')
    expect(bench.asked).toHaveLength(2)
    expectReleased(bench)
  })

  it('is one for each variant, and one for those who carry a cookie', async () => {
    const bench = await stale([...TAGGED, 'Vary', 'X-A'], SWR)
    const cookie = ['Cookie', 'sid=a']
    const ask = async (headers: readonly string[]) => await bench.ask({ headers }).field('X-Cache')
    expect([await ask([]), await ask([]), await ask(cookie), await ask(cookie)]).toEqual(Array(4).fill('STALE'))
    expect(bench.asked).toHaveLength(3)
  })

  it('is waited for by who comes when the stale response may not answer any more', async () => {
    const bench = await stale(TAGGED, SWR)
    await bench.ask().reply
    bench.nowMs += 60_000
    const late = bench.ask()
    await settle()
    at(bench, 1).reply(TAGGED, 'new')
    expect([await late.outcome(), await late.field('X-Cache')]).toEqual(['200 new', 'COLLAPSED'])
    expect(bench.asked).toHaveLength(2)
    expectReleased(bench)
  })
})

describe('a fetch that a thousand wait for', () => {
  const crowd = (bench: Bench) => Array.from({ length: 1000 }, () => bench.ask())

  it('takes no more of them, and answers those who wait', async () => {
    const bench = createBench()
    const waiting = crowd(bench)
    await settle()
    const late = bench.ask()
    await expect(late.reply).rejects.toMatchObject({ code: 'saturated', retryAfterSeconds: 1 })
    at(bench, 0).reply(['Cache-Control', 'max-age=60'])
    const outcomes = await Promise.all(waiting.map((each) => each.outcome()))
    expect(new Set(outcomes)).toEqual(new Set(['200 body']))
    expect(await bench.ask().outcome()).toBe('200 body')
    expect(bench.asked).toHaveLength(1)
    expectReleased(bench)
  })

  it('leaves the others what is stale, where it may answer', async () => {
    const bench = await stale()
    const waiting = crowd(bench)
    await settle()
    const late = bench.ask()
    expect([await late.outcome(), await late.field('X-Cache')]).toEqual(['200 body', 'STALE'])
    at(bench, 1).reply([], null, 304)
    for (const each of waiting) expect(await each.outcome()).toBe('200 body')
    expectReleased(bench)
  })
})
