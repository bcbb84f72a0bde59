import { describe, expect, it } from 'vitest'
import { invalidation, purge } from '../../src/cache/purge.ts'
import type { RequestContext } from '../../src/core/context.ts'
import type { GatewayError } from '../../src/core/errors.ts'
import { BROKEN } from '../support/body.ts'
import { type Asked, type Bench, createBench, settle } from '../support/cache.ts'

const KEY = 'http://gateway.test/'
const FRESH = ['Cache-Control', 'max-age=60']
const first = ({ asked }: Bench): Asked => asked[0] as Asked
const at = ({ asked }: Bench, i: number): Asked => asked[i] as Asked

/** Nothing is held, and nothing is in flight. */
function expectReleased({ shared }: Bench): void {
  expect({ fillBytes: shared.fillBytes, flights: shared.flights.size }).toEqual({ fillBytes: 0, flights: 0 })
}

describe('a fetch and those who wait for it', () => {
  it('asks once, and gives all of them the same', async () => {
    const bench = createBench()
    const clients = Array.from({ length: 50 }, () => bench.ask())
    await settle()
    expect(bench.asked).toHaveLength(1)
    const body = first(bench).stream(FRESH)
    await settle()
    body.send('one ')
    const late = bench.ask()
    await settle()
    body.send('two')
    body.end()
    for (const client of [...clients, late]) expect(await client.outcome()).toBe('200 one two')
    expect(await Promise.all([...clients, late].map((client) => client.field('X-Cache')))).toEqual([
      'MISS',
      ...Array.from({ length: 50 }, () => 'COLLAPSED'),
    ])
    expect(bench.asked).toHaveLength(1)
    expect(bench.shared.store.entries).toBe(1)
    expectReleased(bench)
  })

  it('gives all of them the same error, after one fetch', async () => {
    const bench = createBench()
    const clients = Array.from({ length: 5 }, () => bench.ask())
    await settle()
    first(bench).fail(BROKEN)
    for (const { reply, ctx } of clients) {
      await expect(reply).rejects.toBe(BROKEN)
      expect(ctx.ownFields).toEqual(['X-Cache', 'MISS', 'Cache-Status', 'weirgate; fwd=miss; detail=failed'])
    }
    expect(bench.asked).toHaveLength(1)
    expectReleased(bench)
  })

  it('breaks for all of them when it breaks, stores nothing, and the next one asks again and may be waited for', async () => {
    const bench = createBench()
    const clients = [bench.ask(), bench.ask()]
    await settle()
    const body = first(bench).stream(FRESH)
    await settle()
    body.send('half')
    body.fail()
    for (const client of clients) expect(await client.outcome()).toBe('broken: upstream_reset')
    expectReleased(bench)
    expect(bench.shared.store.entries).toBe(0)
    const next = [bench.ask(), bench.ask()]
    await settle()
    expect(bench.asked).toHaveLength(2)
    at(bench, 1).reply(FRESH)
    for (const client of next) expect(await client.outcome()).toBe('200 body')
  })

  it('breaks when the body broke before anybody read it', async () => {
    const bench = createBench()
    const clients = [bench.ask(), bench.ask()]
    await settle()
    first(bench).answer(FRESH, { pipeTo: (sink) => sink.fail(BROKEN), resume: () => {}, cancel: () => {} })
    expect(await clients[0]?.outcome()).toBe('broken: upstream_reset')
    // Too late to join, so the second asks for itself.
    await settle()
    at(bench, 1).reply(FRESH)
    expect(await clients[1]?.outcome()).toBe('200 body')
    expectReleased(bench)
  })

  it.each([
    ['before the head', 0],
    ['after the head', 1],
    ['in the middle of the body', 2],
  ])('does without the one who began it, who leaves %s', async (_name, phase) => {
    const bench = createBench()
    const leader = bench.ask()
    const others = [bench.ask(), bench.ask()]
    await settle()
    if (phase === 0) leader.abort()
    const body = first(bench).stream(FRESH)
    if (phase === 1) leader.abort()
    await settle()
    body.send('one ')
    if (phase === 2) leader.abort()
    body.send('two')
    body.end()
    for (const client of others) expect(await client.outcome()).toBe('200 one two')
    expect(first(bench).aborted).toBeNull()
    expectReleased(bench)
  })

  it.each([
    ['before the head', 0],
    ['after the head', 1],
    ['in the middle of the body', 2],
  ])('is given up when all have left %s, and the next one begins another', async (_name, phase) => {
    const bench = createBench()
    const clients = [bench.ask(), bench.ask(), bench.ask()]
    const leave = () => clients.forEach((client) => client.abort())
    await settle()
    if (phase === 0) leave()
    else {
      const body = first(bench).stream(FRESH)
      if (phase === 1) leave()
      await settle()
      if (phase === 2) {
        body.send('one ')
        leave()
      }
    }
    // In the same turn, before any promise could settle.
    const next = bench.ask()
    await settle()
    expect(first(bench).aborted?.code).toBe('client_gone')
    expect(bench.asked).toHaveLength(2)
    at(bench, 1).reply(FRESH)
    expect(await next.outcome()).toBe('200 body')
    expect(await next.field('X-Cache')).toBe('MISS')
    expectReleased(bench)
  })

  it('is not begun for a client who left while it waited in vain', async () => {
    const bench = createBench()
    const leader = bench.ask()
    const gone = bench.ask()
    await settle()
    gone.abort()
    first(bench).reply(['Cache-Control', 'no-store'])
    await expect(gone.reply).rejects.toMatchObject({ code: 'client_gone' })
    expect(await leader.outcome()).toBe('200 body')
    expect(bench.asked).toHaveLength(1)
    expectReleased(bench)
  })

  it('holds nobody for one who reads slowly, and the slow one gets all in the end', async () => {
    const bench = createBench()
    const slow = bench.ask({ roomFor: 1 })
    const fast = bench.ask()
    await settle()
    const body = first(bench).stream([...FRESH, 'Content-Length', '100'])
    await settle()
    for (let i = 0; i < 100; i++) body.send('x')
    body.end()
    expect(await fast.outcome()).toBe(`200 ${'x'.repeat(100)}`)
    expect(await slow.outcome()).toBe('200 x')
    expect(bench.shared.store.entries).toBe(1)
    expect(bench.shared.fillBytes).toBe(0)
    slow.abort()
    expectReleased(bench)
  })

  it('is one for each client where the route does not collapse', async () => {
    const bench = createBench({ collapse: false })
    const clients = [bench.ask(), bench.ask()]
    await settle()
    expect(bench.asked).toHaveLength(2)
    for (const asked of bench.asked) asked.reply(FRESH)
    for (const client of clients) expect(await client.field('X-Cache')).toBe('MISS')
    expect(await bench.ask().field('X-Cache')).toBe('HIT')
  })
})

describe('an answer that is not for sharing', () => {
  const NO_STORE = ['Cache-Control', 'no-store']

  it('lets those who waited go ahead side by side, and is remembered', async () => {
    const bench = createBench()
    const clients = Array.from({ length: 20 }, () => bench.ask())
    await settle()
    expect(bench.asked).toHaveLength(1)
    first(bench).reply(NO_STORE)
    await settle()
    expect(bench.asked).toHaveLength(20)
    for (const asked of bench.asked) asked.reply(NO_STORE)
    for (const client of clients) expect(await client.outcome()).toBe('200 body')

    const next = [bench.ask(), bench.ask()]
    await settle()
    expect(bench.asked).toHaveLength(22)
    for (const asked of bench.asked.slice(20)) asked.reply(NO_STORE)
    for (const client of next) expect(await client.field('Cache-Status')).toBe('weirgate; fwd=miss; detail=no-store')
    expectReleased(bench)
  })

  it('because it is an error lets those who waited wait for one of them, and no third one is asked for', async () => {
    const bench = createBench()
    const clients = Array.from({ length: 10 }, () => bench.ask())
    await settle()
    first(bench).reply([], 'down', 503)
    await settle()
    expect(bench.asked).toHaveLength(2)
    bench.asked[1]?.reply([], 'still down', 503)
    const outcomes = clients.map((client) => client.outcome().catch((error: unknown) => (error as GatewayError).code))
    expect(await Promise.all(outcomes)).toEqual([
      '503 down',
      '503 still down',
      ...Array.from({ length: 8 }, () => 'upstream_failing'),
    ])
    expect(bench.asked).toHaveLength(2)
    expectReleased(bench)
  })

  it('is remembered for two minutes, or until one is stored', async () => {
    const bench = createBench()
    const together = async () => {
      const before = bench.asked.length
      bench.ask()
      bench.ask()
      await settle()
      return bench.asked.length - before
    }
    expect(await together()).toBe(1)
    first(bench).reply(NO_STORE)
    await settle()
    expect(await together()).toBe(2)
    bench.nowMs += 120_000
    expect(await together()).toBe(1)
    at(bench, bench.asked.length - 1).reply(NO_STORE)
    await settle()
    bench.ask()
    await settle()
    at(bench, bench.asked.length - 1).reply(FRESH)
    await settle()
    bench.nowMs += 60_000
    expect(await together()).toBe(1)
  })

  it.each<[string, (asked: Asked) => void]>([
    ['an error of the origin', (asked) => asked.reply([], 'down', 503)],
    ['a break', (asked) => asked.stream(FRESH).fail()],
    ['a failure', (asked) => asked.fail(BROKEN)],
  ])('is not remembered when it is %s, which says nothing of the next', async (_name, happen) => {
    const bench = createBench()
    bench.ask()
    await settle()
    happen(first(bench))
    await settle()
    bench.ask()
    bench.ask()
    await settle()
    expect(bench.asked).toHaveLength(2)
  })

  it('is not remembered when it was for somebody with credentials: it says nothing of the others', async () => {
    const bench = createBench({ ttl: '1h' })
    for (const headers of [
      ['Cookie', 'a'],
      ['Authorization', 'b'],
    ])
      bench.ask({ headers })
    await settle()
    for (const asked of bench.asked) asked.reply(['Cache-Control', 'private'])
    await settle()
    bench.ask()
    bench.ask()
    await settle()
    expect(bench.asked).toHaveLength(3)
  })

  it('makes the next fetches carry the condition of the client, whose answer nobody else needs', async () => {
    const condition = ['If-None-Match', '"a"']
    const bench = createBench()
    bench.ask({ headers: condition })
    await settle()
    expect(first(bench).headers).toEqual([])
    first(bench).reply([...NO_STORE, 'ETag', '"a"'])
    await settle()
    bench.nowMs += 60_000
    const next = bench.ask({ headers: condition })
    await settle()
    expect(at(bench, 1).headers).toEqual(condition)
    at(bench, 1).reply([...NO_STORE, 'ETag', '"a"'], null, 304)
    expect(await next.outcome()).toBe('304 ')
    // Two minutes after the first answer: the 304 says nothing of what others would get.
    bench.nowMs += 60_000
    bench.ask({ headers: condition })
    await settle()
    expect(at(bench, 2).headers).toEqual([])
  })

  it('is not read to its end for a client who has it', async () => {
    const bench = createBench()
    const client = bench.ask({ headers: ['If-None-Match', '"a"'] })
    await settle()
    const body = first(bench).stream([...NO_STORE, 'ETag', '"a"'])
    expect(await client.outcome()).toBe('304 ')
    expect(body.isCancelled).toBe(true)
    expectReleased(bench)
  })
})

describe('a client who has what it asks for', () => {
  const TAGGED = [...FRESH, 'ETag', '"a"']
  const headers = ['If-None-Match', '"a"']

  it('gets 304 though it began the fetch, which goes on and is stored', async () => {
    const bench = createBench()
    const leader = bench.ask({ headers })
    const follower = bench.ask({ headers })
    await settle()
    const body = first(bench).stream(TAGGED)
    expect(await leader.outcome()).toBe('304 ')
    expect(await follower.outcome()).toBe('304 ')
    body.send('all')
    body.end()
    expect(await bench.ask().outcome()).toBe('200 all')
    expect(bench.asked).toHaveLength(1)
    expectReleased(bench)
  })

  it('keeps no fetch alive that another began, who leaves', async () => {
    const bench = createBench()
    const leader = bench.ask()
    const follower = bench.ask({ headers })
    await settle()
    first(bench).stream(TAGGED)
    expect(await follower.outcome()).toBe('304 ')
    leader.abort()
    expect(first(bench).aborted?.code).toBe('client_gone')
    expectReleased(bench)
  })

  it('does not make a body that is too large be read for nobody', async () => {
    const bench = createBench({}, { maxObjectBytes: 10 })
    const leader = bench.ask({ headers })
    await settle()
    const body = first(bench).stream(TAGGED)
    expect(await leader.outcome()).toBe('304 ')
    body.send('x'.repeat(11))
    expect(first(bench).aborted?.code).toBe('client_gone')
    expectReleased(bench)
  })
})

describe('variants that are asked for at the same moment', () => {
  const VARY = [...FRESH, 'Vary', 'Accept-Language']
  const languages = ['en', 'de', 'fr']
  const ask = (bench: Bench, isDelayed = false) =>
    languages.flatMap((language) =>
      [0, 1, 2, 3].map(() => bench.ask({ headers: ['Accept-Language', language], isDelayed })),
    )

  it.each([false, true])(
    'are fetched once each: the first answer tells by what they differ (delayed: %s)',
    async (isDelayed) => {
      const bench = createBench()
      const clients = ask(bench, isDelayed)
      await settle()
      expect(bench.asked).toHaveLength(1)
      for (let i = 0; i < 3; i++) {
        const asked = at(bench, i)
        asked.reply(VARY, asked.headers[1])
        await settle()
      }
      expect(bench.asked).toHaveLength(3)
      for (const [i, client] of clients.entries())
        expect(await client.outcome()).toBe(`200 ${languages[Math.floor(i / 4)]}`)
      expectReleased(bench)
    },
  )

  it('are fetched side by side while the first still comes', async () => {
    const bench = createBench()
    const clients = ask(bench)
    await settle()
    const english = first(bench).stream(VARY)
    await settle()
    expect(bench.asked).toHaveLength(3)
    const late = bench.ask({ headers: ['Accept-Language', 'en'] })
    for (const asked of bench.asked.slice(1)) asked.reply(VARY, asked.headers[1])
    english.send('en')
    english.end()
    for (const [i, client] of clients.entries())
      expect(await client.outcome()).toBe(`200 ${languages[Math.floor(i / 4)]}`)
    expect(await late.outcome()).toBe('200 en')
    expect(bench.asked).toHaveLength(3)
  })

  it('are fetched side by side when one is stored', async () => {
    const bench = createBench()
    bench.ask({ headers: ['Accept-Language', 'it'] })
    await settle()
    first(bench).reply(VARY)
    await settle()
    ask(bench)
    await settle()
    expect(bench.asked).toHaveLength(4)
  })

  it('do not keep a fetch alive that turned out to be for others', async () => {
    const bench = createBench()
    const english = bench.ask({ headers: ['Accept-Language', 'en'] })
    bench.ask({ headers: ['Accept-Language', 'de'] })
    await settle()
    first(bench).stream(VARY)
    await settle()
    english.abort()
    expect(first(bench).aborted?.code).toBe('client_gone')
  })

  it('never answer one another', async () => {
    const bench = createBench()
    const absent = bench.ask()
    const empty = bench.ask({ headers: ['Accept-Language', ''] })
    await settle()
    first(bench).reply(VARY, 'absent')
    await settle()
    at(bench, 1).reply(VARY, 'empty')
    expect([await absent.outcome(), await empty.outcome()]).toEqual(['200 absent', '200 empty'])
    expect(await bench.ask().outcome()).toBe('200 absent')
    expect(await bench.ask({ headers: ['accept-language', ' '] }).outcome()).toBe('200 empty')
  })
})

describe('a change while a fetch is under way', () => {
  const post = (path: string): RequestContext => createBench().ask({ method: 'POST', path }).ctx
  const change = async ({ shared }: Bench, ctx: RequestContext, status: number): Promise<unknown> => {
    const rule = invalidation(ctx, status, [])
    return rule === null ? null : purge(shared, rule)
  }

  it.each<[string, (bench: Bench) => Promise<unknown>]>([
    ['[RFC 9111 §4.4] an unsafe request', (bench) => change(bench, post('/'), 204)],
    ['a purge of its URL', (bench) => purge(bench.shared, { urls: [KEY] })],
    ['a purge of its path', (bench) => purge(bench.shared, { urls: ['/'] })],
    ['a purge of many', (bench) => purge(bench.shared, { pattern: '//*/' })],
    ['a soft purge', (bench) => purge(bench.shared, { all: true, soft: true })],
  ])('keeps the old answer out of the store, and from those who come after: %s', async (_name, begin) => {
    const bench = createBench()
    const before = bench.ask()
    await settle()
    const old = first(bench).stream(FRESH)
    await settle()
    old.send('old')
    const changed = begin(bench)
    const after = bench.ask()
    await settle()
    expect(bench.asked).toHaveLength(2)
    old.end()
    expect(await before.outcome()).toBe('200 old')
    const together = bench.ask()
    await settle()
    expect(bench.asked).toHaveLength(2)
    at(bench, 1).reply(FRESH, 'new')
    expect(await after.outcome()).toBe('200 new')
    expect(await together.outcome()).toBe('200 new')
    expect(await bench.ask().outcome()).toBe('200 new')
    await changed
    expectReleased(bench)
  })

  it.each([
    ['a safe request', 'GET', '/', 200],
    ['an unsafe request that failed', 'POST', '/', 500],
    ['an unsafe request to another URL', 'POST', '/other', 200],
  ])('is no change when it is %s', async (_name, method, path, status) => {
    const bench = createBench()
    bench.ask()
    await settle()
    const { ctx } = createBench().ask({ method, path })
    await change(bench, ctx, status)
    first(bench).reply(FRESH)
    await settle()
    expect(await bench.ask().field('X-Cache')).toBe('HIT')
  })

  it('of the route makes nobody wait for what the old one fetches, nor use it', async () => {
    const bench = createBench()
    bench.ask()
    await settle()
    bench.reload({}, 'second')
    const next = bench.ask()
    await settle()
    expect(bench.asked).toHaveLength(2)
    at(bench, 1).reply(FRESH, 'new')
    expect(await next.outcome()).toBe('200 new')
    first(bench).reply(FRESH, 'old')
    await settle()
    bench.ask()
    await settle()
    expect(bench.asked).toHaveLength(3)
    expect(at(bench, 2).ctx.cacheReason).toBe('config-changed')
  })

  it.each<[string, Record<string, unknown>]>([
    ['its scope', { scope: 'public', ttl: '1h' }],
    ['cookies in answers', { storeSetCookie: true, ttl: '1h' }],
  ])('of the route that forbids sharing forbids what is stored as well: %s', async (_name, generous) => {
    const bench = createBench(generous)
    bench.ask()
    await settle()
    first(bench).reply([])
    await settle()
    bench.reload({ ttl: '1h' })
    bench.ask()
    await settle()
    expect(bench.asked).toHaveLength(2)
  })
})

describe('memory for answers on their way', () => {
  it('is bounded: beyond, an answer passes through', async () => {
    const bench = createBench()
    bench.shared.fillBytes = 128 * 1024 ** 2
    const client = bench.ask()
    await settle()
    const body = first(bench).stream([...FRESH, 'Content-Length', '1'])
    await settle()
    body.send('x')
    body.end()
    expect(await client.outcome()).toBe('200 x')
    expect(await client.field('Cache-Status')).toBe('weirgate; fwd=miss; detail=fill-budget')
    expect([bench.shared.store.entries, bench.shared.fillBytes]).toEqual([0, 128 * 1024 ** 2])
    bench.ask()
    bench.ask()
    await settle()
    expect(bench.asked).toHaveLength(2)
  })

  it('is bounded in the middle of a body as well', async () => {
    const bench = createBench()
    const client = bench.ask()
    await settle()
    const body = first(bench).stream(FRESH)
    await settle()
    body.send('x')
    bench.shared.fillBytes += 128 * 1024 ** 2
    body.send('y')
    body.end()
    expect(await client.outcome()).toBe('200 xy')
    expect([bench.shared.store.entries, bench.shared.fillBytes]).toEqual([0, 128 * 1024 ** 2])
    // That says nothing of the next.
    bench.ask()
    bench.ask()
    await settle()
    expect(bench.asked).toHaveLength(2)
  })

  it('is not spent on a slow reader beyond 256 MiB: the others go on', async () => {
    const bench = createBench()
    const slow = bench.ask({ roomFor: 1 })
    const fast = bench.ask()
    await settle()
    const body = first(bench).stream(FRESH)
    await settle()
    body.send('x')
    bench.shared.fillBytes += 256 * 1024 ** 2
    for (let i = 0; i < 3; i++) body.send('y'.repeat(50 * 1024))
    body.end()
    expect(await slow.outcome()).toMatch(/^broken: /)
    expect(await fast.outcome()).toBe(`200 x${'y'.repeat(150 * 1024)}`)
    expect(bench.shared.fillBytes).toBe(256 * 1024 ** 2)
  })

  it('is counted while it is held', async () => {
    const bench = createBench()
    bench.ask()
    await settle()
    const body = first(bench).stream(FRESH)
    await settle()
    body.send('x'.repeat(1000))
    expect(bench.shared.fillBytes).toBe(1000)
    body.end()
    expectReleased(bench)
  })

  it('is not spent on what turns out too large, nor is it tried again soon by those who would wait', async () => {
    const bench = createBench({}, { maxObjectBytes: 10 })
    const client = bench.ask()
    await settle()
    const body = first(bench).stream(FRESH)
    await settle()
    body.send('x'.repeat(11))
    expect(bench.shared.fillBytes).toBe(0)
    body.end()
    expect(await client.outcome()).toBe(`200 ${'x'.repeat(11)}`)
    bench.ask()
    bench.ask()
    await settle()
    expect(bench.asked).toHaveLength(3)
  })
})

describe('a request that nobody else has a part in', () => {
  it.each([
    ['a part of a whole', { headers: ['Range', 'bytes=0-1'] }],
    ['a head', { method: 'HEAD' }],
    ['a change', { method: 'POST' }],
    ['one that hides a field', { headers: ['Connection', 'x-a'] }],
  ])('is given up with its client: %s', async (_name, parts) => {
    const bench = createBench()
    bench.ask(parts).abort()
    await settle()
    expect(first(bench).aborted?.code).toBe('client_gone')
    expectReleased(bench)
  })

  it('does not wait, even for the same URL', async () => {
    const bench = createBench()
    bench.ask()
    await settle()
    for (const parts of [{ method: 'HEAD' }, { headers: ['Range', 'bytes=0-1'] }, { headers: ['Cookie', 'a'] }])
      bench.ask(parts)
    await settle()
    expect(bench.asked).toHaveLength(4)
  })

  it('is given up when what came of it cannot be taken', async () => {
    const bench = createBench()
    const client = bench.ask()
    await settle()
    const fault = new Error('a fault')
    const body = {
      pipeTo() {
        throw fault
      },
      resume() {},
      cancel() {},
    }
    first(bench).answer(FRESH, body)
    await expect(client.reply).rejects.toBe(fault)
    await settle()
    expect(first(bench).aborted?.code).toBe('client_gone')
    expectReleased(bench)
  })
})

describe('what is stored', () => {
  const storedBy = async (headers: readonly string[], body: string | null = 'body', status = 200) => {
    const bench = createBench({ ttl: '1h' })
    bench.ask()
    await settle()
    first(bench).reply(headers, body, status)
    await settle()
    return { bench, entry: bench.shared.store.get(KEY)?.[0] }
  }

  it('[RFC 9110 §8.6] has a length, but for a 204', async () => {
    expect((await storedBy([])).entry?.headers.slice(-2)).toEqual(['Content-Length', '4'])
    expect((await storedBy(['content-length', '4'])).entry?.headers).not.toContain('Content-Length')
    const { bench, entry } = await storedBy([], null, 204)
    expect(entry?.headers).not.toContain('Content-Length')
    expect((await bench.ask().reply).body).toBeNull()
  })

  it('[RFC 9110 §6.6.1] has a Date: its own, or the time at which it came', async () => {
    expect((await storedBy(['date', 'whatever it said'])).entry?.headers).not.toContain('Date')
    expect((await storedBy(['Age', '100'])).entry?.headers).toEqual(
      expect.arrayContaining(['Date', 'Sun, 22 Nov 2026 12:00:00 GMT']),
    )
  })

  it('is marked when it is of use', async () => {
    const { bench, entry } = await storedBy([])
    expect(entry?.uses).toBe(0)
    await bench.ask().reply
    expect(entry?.uses).toBe(1)
  })

  it('is never for those with credentials where only the route calls it fresh, though the clock was set back', async () => {
    const { bench } = await storedBy([])
    bench.nowMs -= 30_000
    bench.ask({ headers: ['Cookie', 'a'] })
    await settle()
    expect(bench.asked).toHaveLength(2)
    expect(await bench.ask().field('Age')).toBe('0')
  })
})
