// The limits on misses, asked for those who share a fetch: of any interleaving of requests, decisions and answers it is
// asked who was charged, and that nobody waits for ever.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Reply, RequestContext } from '../../src/core/context.ts'
import { GatewayError } from '../../src/core/errors.ts'
import { type Asking, type Bench, createBench, settle } from '../support/cache.ts'

const RUNS = Number(process.env['WEIRGATE_MODEL_RUNS'] ?? 400)
const FRESH = ['Cache-Control', 'max-age=60']
const REFUSAL: Reply = { status: 429, headers: [], body: null }
const REFUSED = new GatewayError('upstream_refused', 'Nobody listens there.')

/** Limits that a test decides by hand. */
class Limits {
  readonly asked: RequestContext[] = []
  readonly refused = new Set<RequestContext>()
  readonly #pending = new Map<RequestContext, (reply: Reply | null) => void>()

  readonly mayAsk = (ctx: RequestContext): Promise<Reply | null> => {
    this.asked.push(ctx)
    return new Promise((resolve) => this.#pending.set(ctx, resolve))
  }

  get pending(): RequestContext[] {
    return [...this.#pending.keys()]
  }

  async decide(isAdmitted: boolean, which = 0): Promise<void> {
    const { pending } = this
    const ctx = pending[which % pending.length]
    if (ctx === undefined) return
    if (!isAdmitted) this.refused.add(ctx)
    this.#pending.get(ctx)?.(isAdmitted ? null : REFUSAL)
    this.#pending.delete(ctx)
    await settle()
  }
}

async function start(count: number, route: Record<string, unknown> = {}) {
  const bench = createBench(route)
  const limits = new Limits()
  const clients = Array.from({ length: count }, () => bench.ask({ mayAsk: limits.mayAsk }))
  for (const { reply } of clients) reply.catch(() => {})
  await settle()
  return { bench, limits, clients }
}

const outcomes = (clients: readonly Asking[]): Promise<string[]> =>
  Promise.all(clients.map((client) => client.outcome()))

describe('the limits on misses', () => {
  it('are asked once for all who share a fetch', async () => {
    const { bench, limits, clients } = await start(5)
    expect(limits.asked).toEqual([clients[0]?.ctx])
    await limits.decide(true)
    bench.asked[0]?.reply(FRESH, 'one')
    expect(await outcomes(clients)).toEqual(clients.map(() => '200 one'))
    expect([limits.asked.length, bench.asked.length]).toEqual([1, 1])
  })

  it('are asked for the next who waits, in the order in which they came, where the one before is refused', async () => {
    const { bench, limits, clients } = await start(4)
    await limits.decide(false)
    expect(limits.asked).toEqual([clients[0]?.ctx, clients[1]?.ctx])
    await limits.decide(false)
    await limits.decide(true)
    bench.asked[0]?.reply(FRESH, 'three')
    expect(await outcomes(clients)).toEqual(['429 ', '429 ', '200 three', '200 three'])
    expect(limits.asked).toHaveLength(3)
  })

  it('are asked for the next where the one before has gone', async () => {
    const { bench, limits, clients } = await start(3)
    clients[0]?.abort()
    await limits.decide(true)
    expect(bench.asked).toHaveLength(0)
    await limits.decide(true)
    bench.asked[0]?.reply(FRESH, 'two')
    expect(await outcomes(clients.slice(1))).toEqual(['200 two', '200 two'])
    expect(limits.asked).toEqual([clients[0]?.ctx, clients[1]?.ctx])
  })

  it('are not asked for who has gone while it waited', async () => {
    const { limits, clients } = await start(3)
    clients[1]?.abort()
    await limits.decide(false)
    expect(limits.asked).toEqual([clients[0]?.ctx, clients[2]?.ctx])
  })

  it('are asked for each who goes to the origin for itself: because it shares with nobody, or has waited in vain', async () => {
    const { bench, limits, clients } = await start(3)
    await limits.decide(true)
    bench.asked[0]?.reply(['Cache-Control', 'private'], 'own')
    await settle()
    expect(limits.asked).toEqual(clients.map(({ ctx }) => ctx))
    const alone = ['Cookie: a=1', 'Range: bytes=0-1'].map((field) =>
      bench.ask({ path: '/other', headers: field.split(': '), mayAsk: limits.mayAsk }),
    )
    await settle()
    expect(limits.pending).toEqual([...clients.slice(1), ...alone].map(({ ctx }) => ctx))
    for (let i = 0; i < 4; i++) await limits.decide(true)
    for (const asked of bench.asked.slice(1)) asked.reply(FRESH, 'own')
    expect(await outcomes([...clients, ...alone])).toEqual([...clients, ...alone].map(() => '200 own'))
  })

  it('are not waited for by many in turn where one after the other is refused', async () => {
    const { limits, clients } = await start(30)
    for (let i = 0; i < 8; i++) await limits.decide(false)
    expect(limits.pending).toEqual(clients.slice(8).map(({ ctx }) => ctx))
  })

  it('are not asked again for who was admitted, and joined a flight that had nothing for it', async () => {
    const { bench, limits, clients } = await start(10)
    for (let i = 0; i < 8; i++) await limits.decide(false)
    await limits.decide(true)
    await limits.decide(true)
    expect(bench.asked).toHaveLength(1)
    bench.asked[0]?.reply(['Cache-Control', 'private'], 'own')
    await settle()
    bench.asked[1]?.reply(FRESH, 'own')
    expect(await outcomes(clients.slice(8))).toEqual(['200 own', '200 own'])
    expect([limits.asked.length, bench.asked.length]).toEqual([10, 2])
  })

  it('leave who was admitted and then found an answer with that', async () => {
    const { bench, limits, clients } = await start(1)
    const head = ['Cache-Control', 'max-age=60', 'Vary', 'X-A']
    const other = bench.ask({ method: 'POST', mayAsk: limits.mayAsk })
    await settle()
    await limits.decide(true, 1)
    bench.asked[0]?.reply([...head, 'Content-Location', 'http://gateway.test/'], 'posted')
    expect(await other.outcome()).toBe('200 posted')
    await limits.decide(true)
    expect(await outcomes(clients)).toEqual(['200 posted'])
    expect(bench.asked).toHaveLength(1)
  })
})

type Act =
  | { readonly do: 'ask'; readonly path: string; readonly language: string; readonly method: 'GET' | 'HEAD' }
  | { readonly do: 'decide'; readonly which: number; readonly admits: boolean }
  | { readonly do: 'answer'; readonly which: number; readonly how: string }
  | { readonly do: 'leave'; readonly which: number }
  | { readonly do: 'settle' }

const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('ask' as const),
      path: fc.constantFrom('/a', '/a', '/b'),
      language: fc.constantFrom('en', 'de'),
      method: fc.constantFrom('GET', 'GET', 'GET', 'GET', 'HEAD'),
    } as const),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant('decide' as const), which: fc.nat(20), admits: fc.boolean() }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('answer' as const),
      which: fc.nat(20),
      how: fc.constantFrom('max-age=60', 'vary', 'max-age=0', 'private', '503', 'fails'),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('leave' as const), which: fc.nat(20) }) },
  { weight: 2, arbitrary: fc.constant({ do: 'settle' as const }) },
)

function answer(bench: Bench, number: number, how: string): void {
  const asked = bench.asked[number]
  if (how === 'fails') asked?.fail(REFUSED)
  else if (how === '503') asked?.reply([], 'sick', 503)
  else asked?.reply(how === 'vary' ? [...FRESH, 'Vary', 'X-Language'] : ['Cache-Control', how], 'body')
}

it('charges whoever asks the origin, once, and nobody twice, and lets nobody wait for ever, whatever happens', async () => {
  const property = fc.asyncProperty(fc.array(act, { maxLength: 60, size: 'max' }), async (acts) => {
    const bench = createBench()
    const limits = new Limits()
    const clients: Asking[] = []
    const answered = new Set<number>()
    const open = () => bench.asked.flatMap((each, i) => (answered.has(i) || each.aborted !== null ? [] : [i]))
    const answerOne = (which: number, how: string) => {
      const number = open()[which % open().length]
      if (number === undefined) return
      answered.add(number)
      answer(bench, number, how)
    }
    for (const each of acts) {
      if (each.do === 'ask') {
        const { path, method, language } = each
        const client = bench.ask({ path, method, headers: ['X-Language', language], mayAsk: limits.mayAsk })
        client.reply.catch(() => {})
        clients.push(client)
      } else if (each.do === 'decide') await limits.decide(each.admits, each.which)
      else if (each.do === 'answer') answerOne(each.which, each.how)
      else if (each.do === 'leave') clients[each.which % clients.length]?.abort()
      else await settle()
    }
    for (let round = 0; round < 4 * clients.length + 4; round++) {
      await settle()
      await limits.decide(true)
      answerOne(0, 'max-age=60')
    }
    const settled = await Promise.race([
      Promise.allSettled(clients.map(({ reply }) => reply)),
      settle().then(() => null),
    ])
    expect(settled, 'all are answered').not.toBeNull()
    expect(new Set(limits.asked).size).toBe(limits.asked.length)
    expect(new Set(bench.asked.map(({ ctx }) => ctx)).size).toBe(bench.asked.length)
    for (const { ctx } of bench.asked) {
      expect([limits.asked.includes(ctx), limits.refused.has(ctx)]).toEqual([true, false])
    }
    const { flights, bids, fillBytes } = bench.shared
    expect([flights.size, bids.size, fillBytes, limits.pending]).toEqual([0, 0, 0, []])
  })
  await fc.assert(property, { numRuns: RUNS })
}, 600_000)
