import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Reply, RequestContext } from '../../src/core/context.ts'
import type { DecisionSource } from '../../src/limit/algorithm.ts'
import { Decisions } from '../../src/limit/decisions.ts'
import { compileLimiter, type Limiter } from '../../src/limit/limiter.ts'
import type { NamedLimit } from '../../src/limit/policy.ts'
import { limitOptions } from '../../src/limit/options.ts'
import type { QuotaStore } from '../../src/limit/quota.ts'
import { type Slot, createMemorySlots } from '../../src/limit/slots.ts'
import { createMemoryStore } from '../../src/limit/stores/memory.ts'
import { parseList } from '../support/structured-fields.ts'
import { field, request, type RequestParts } from './request.ts'

const START_MS = 1_795_341_600_000

class Clock {
  nowMs = START_MS
  readonly read = () => this.nowMs
}

const policy = (name: string, yaml: object): NamedLimit => ({ name, options: limitOptions.parse(yaml) })

function limiterOf(policies: readonly NamedLimit[], random = 0) {
  const clock = new Clock()
  return { clock, limiter: limiterWith(policies, createMemoryStore(), clock.read, random) }
}

const limiterWith = (policies: readonly NamedLimit[], quotas: QuotaStore, clock: () => number, random = 0): Limiter =>
  compileLimiter(policies, {
    quotas,
    slots: createMemorySlots(),
    decisions: new Decisions(),
    clock,
    random: () => random,
  })

/** What a client would see of the limits: the status of a refusal or null, and the fields. */
function ask(limiter: Limiter, parts: RequestParts = {}) {
  const ctx = request(parts)
  const reply = limiter.check(ctx) as Reply | null
  return { ctx, reply, status: reply?.status ?? null, fields: fieldsOf(ctx, reply) }
}

const FIELDS = [
  'RateLimit-Policy',
  'RateLimit',
  'X-RateLimit-Limit',
  'X-RateLimit-Remaining',
  'X-RateLimit-Reset',
  'Retry-After',
]

function fieldsOf(ctx: RequestContext, reply: Reply | null): Record<string, string> {
  const sent = [...(reply?.headers ?? []), ...ctx.ownFields]
  return Object.fromEntries(
    FIELDS.flatMap((name) => (sent.includes(name) ? [[name, field(sent, name) as string]] : [])),
  )
}

const bodyOf = (reply: Reply | null): unknown => JSON.parse(((reply as Reply).body as Buffer).toString())

const times = (count: number, act: () => void) => {
  for (let i = 0; i < count; i++) act()
}

describe('the limiter', () => {
  it('admits the limit and refuses the next', () => {
    const { limiter } = limiterOf([policy('per-client', { limit: 60, window: '1m' })])
    const statuses = Array.from({ length: 61 }, () => ask(limiter).status)
    expect(statuses.slice(0, 60).every((status) => status === null)).toBe(true)
    expect(statuses[60]).toBe(429)
  })

  it('answers at once when the store decides here', () => {
    const { limiter } = limiterOf([policy('per-client', { limit: 1, window: '1m' })])
    expect(limiter.check(request())).toBeNull()
    expect(limiter.check(request())).not.toBeInstanceOf(Promise)
  })

  it('describes one policy to an admitted client', () => {
    const { limiter } = limiterOf([policy('api', { limit: 100, window: '1s', burst: 20 })])
    const { ctx, fields } = ask(limiter)
    expect(fields).toEqual({
      'RateLimit-Policy': '"api";q=100;w=1;gw-burst=20',
      RateLimit: '"api";r=19;t=1',
      'X-RateLimit-Limit': '100',
      'X-RateLimit-Remaining': '19',
      'X-RateLimit-Reset': '1795341601',
    })
    expect(ctx.quota).toEqual({ admitted: true, policy: 'api', limit: 100, remaining: 19 })
  })

  it('describes several policies, and the one with the least of its limit left in X-RateLimit', () => {
    const { limiter, clock } = limiterOf([
      policy('sec', { limit: 10, window: '1s' }),
      policy('min', { limit: 600, window: '1m' }),
      policy('day', { limit: 1000, window: '1d', burst: 1000 }),
    ])
    times(100, () => {
      clock.nowMs += 1000
      ask(limiter)
    })
    clock.nowMs += 1000
    const { ctx, fields } = ask(limiter)
    expect(fields).toMatchObject({
      'RateLimit-Policy': '"sec";q=10;w=1, "min";q=600;w=60, "day";q=1000;w=86400;gw-burst=1000',
      RateLimit: '"sec";r=8;t=1, "min";r=534;t=1, "day";r=900;t=73',
      'X-RateLimit-Limit': '10',
      'X-RateLimit-Remaining': '8',
    })
    expect(ctx.quota).toEqual({ admitted: true, policy: 'sec', limit: 10, remaining: 8 })
    clock.nowMs += 10_000
    const later = ask(limiter)
    expect(later.fields['RateLimit']).toBe('"sec";r=9;t=2, "min";r=545;t=3, "day";r=899;t=63')
    expect(later.ctx.quota).toEqual({ admitted: true, policy: 'day', limit: 1000, remaining: 899 })
  })

  it('refuses as problem+json that says which policy and how long', () => {
    const { limiter } = limiterOf([
      policy('sec', { limit: 10, window: '1s' }),
      policy('min', { limit: 2, window: '1m' }),
    ])
    times(2, () => void ask(limiter))
    const { ctx, reply, fields } = ask(limiter)
    // Slices are 6 s; the two uses leave when the eleventh after theirs begins.
    expect(fields).toEqual({
      'RateLimit-Policy': '"sec";q=10;w=1, "min";q=2;w=60',
      RateLimit: '"min";r=0;t=66',
      'X-RateLimit-Limit': '2',
      'X-RateLimit-Remaining': '0',
      'X-RateLimit-Reset': String(START_MS / 1000 + 66),
      'Retry-After': '66',
    })
    expect(field(reply?.headers ?? [], 'Content-Type')).toBe('application/problem+json')
    expect(field(reply?.headers ?? [], 'Cache-Control')).toBe('no-store')
    expect(bodyOf(reply)).toEqual({
      type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
      title: 'Quota Exceeded',
      status: 429,
      code: 'quota_exceeded',
      detail: 'Policy min: 2 requests per 60 s.',
      request_id: 'req-1',
      'violated-policies': ['min'],
      scope: 'ip',
      unit: 'requests',
      reset: 1_795_341_666,
      retryAfter: 66,
    })
    expect(ctx.quota).toEqual({ admitted: false, policy: 'min', limit: 2, remaining: 0 })
  })

  it('binds to the longest wait where several policies refuse, and lists those alone', () => {
    const { limiter } = limiterOf([
      policy('min', { limit: 1, window: '1m' }),
      policy('open', { limit: 100, window: '1m' }),
      policy('hour', { limit: 1, window: '1h' }),
    ])
    ask(limiter)
    const { reply, fields } = ask(limiter)
    expect(parseList(fields['RateLimit'] as string).map((item) => item.value)).toEqual(['min', 'hour'])
    expect(fields).toMatchObject({ 'Retry-After': '3960', 'X-RateLimit-Limit': '1' })
    expect(bodyOf(reply)).toMatchObject({
      detail: 'Policy hour: 1 request per 3600 s.',
      'violated-policies': ['min', 'hour'],
    })
  })

  it('charges nothing for a refused request, in any policy', () => {
    const { limiter, clock } = limiterOf([
      policy('day', { limit: 50, window: '1d' }),
      policy('sec', { limit: 1, window: '1s' }),
    ])
    ask(limiter)
    times(1000, () => expect(ask(limiter).status).toBe(429))
    clock.nowMs += 1100
    expect(ask(limiter).fields['RateLimit']).toMatch(/^"day";r=48;/)
  })

  it('never names more units than the limit, though a burst be larger', () => {
    const { limiter } = limiterOf([policy('a', { limit: 10, window: '1s', burst: 50 })])
    const { ctx, fields } = ask(limiter)
    expect(fields).toMatchObject({ RateLimit: '"a";r=10;t=1', 'X-RateLimit-Remaining': '10' })
    expect(ctx.quota?.remaining).toBe(10)
  })

  it('leaves windows below a second out of the draft fields, and keeps X-RateLimit', () => {
    const { limiter } = limiterOf([policy('fast', { limit: 5, window: '500ms' })])
    expect(ask(limiter).fields).toEqual({
      'X-RateLimit-Limit': '5',
      'X-RateLimit-Remaining': '4',
      'X-RateLimit-Reset': String(START_MS / 1000 + 1),
    })
    const both = limiterOf([policy('fast', { limit: 5, window: '500ms' }), policy('min', { limit: 9, window: '1m' })])
    expect(ask(both.limiter).fields).toMatchObject({
      'RateLimit-Policy': '"min";q=9;w=60',
      RateLimit: '"min";r=8;t=66',
    })
  })

  it('counts a policy once that is named twice', () => {
    const { limiter } = limiterOf([policy('a', { limit: 4, window: '1m' }), policy('a', { limit: 4, window: '1m' })])
    expect(ask(limiter).fields['RateLimit']).toBe('"a";r=3;t=66')
  })

  it('shares one budget among the routes that name a policy, unless the route is in its key', () => {
    const store = createMemoryStore()
    const policies = [
      policy('all', { limit: 3, window: '1m' }),
      policy('each', { limit: 3, window: '1m', key: ['ip', 'route'] }),
    ]
    const [a, b] = [limiterWith(policies, store, () => START_MS), limiterWith(policies, store, () => START_MS)]
    times(2, () => void ask(a, { route: '/a' }))
    expect(ask(b, { route: '/b' }).fields['RateLimit']).toBe('"all";r=0;t=66, "each";r=2;t=66')
  })

  describe('with a policy that does not apply', () => {
    const skipping = policy('per-key', { limit: 1, window: '1m', key: 'header:x-api-key', onMissing: 'skip' })
    const withKey = { headers: ['X-API-Key', 'a'] }

    it('sends no field of it and counts nothing', () => {
      const { limiter } = limiterOf([skipping, policy('min', { limit: 10, window: '1m' })])
      times(3, () => void ask(limiter))
      const { status, fields } = ask(limiter)
      expect(status).toBeNull()
      expect(fields).toMatchObject({ 'RateLimit-Policy': '"min";q=10;w=60', RateLimit: '"min";r=6;t=66' })
      expect(ask(limiter, withKey).fields['RateLimit-Policy']).toBe('"per-key";q=1;w=60, "min";q=10;w=60')
      expect(ask(limiter, withKey).status).toBe(429)
      // The verdict on the last request must not leak into the next.
      expect(ask(limiter).status).toBeNull()
    })

    it('blames a refusal on no policy but those that apply, whatever the last request met', () => {
      const { limiter } = limiterOf([
        policy('per-key', { limit: 1, window: '1h', key: 'header:x-api-key', onMissing: 'skip' }),
        policy('min', { limit: 2, window: '1m' }),
      ])
      times(2, () => void ask(limiter, withKey))
      expect(ask(limiter).status).toBeNull()
      const { reply, ctx } = ask(limiter)
      expect(bodyOf(reply)).toMatchObject({ 'violated-policies': ['min'], retryAfter: 66 })
      expect(ctx.quota).toMatchObject({ policy: 'min' })
    })

    it('does not limit at all where no policy applies', () => {
      const { limiter } = limiterOf([skipping])
      const { ctx, status } = ask(limiter)
      expect(status).toBeNull()
      expect(ctx.ownFields).toEqual([])
      expect(ctx.quota).toBeNull()
    })
  })

  it('falls back to the address for a missing header, never into the budget of a header that names it', () => {
    const { limiter } = limiterOf([policy('per-key', { limit: 1, window: '1m', key: 'header:x-api-key' })])
    expect(ask(limiter, { ip: '192.0.2.1' }).status).toBeNull()
    expect(ask(limiter, { ip: '192.0.2.2' }).status).toBeNull()
    expect(ask(limiter, { ip: '192.0.2.1' }).status).toBe(429)
    expect(ask(limiter, { ip: '192.0.2.9', headers: ['X-API-Key', '192.0.2.1'] }).status).toBeNull()
  })

  it('takes a clock of fractions of a millisecond', () => {
    const policies = [policy('a', { limit: 1, window: '1s', burst: 1 })]
    const limiter = limiterWith(policies, createMemoryStore(), () => START_MS + 0.7)
    expect(ask(limiter).fields).toMatchObject({
      RateLimit: '"a";r=0;t=1',
      'X-RateLimit-Reset': String(START_MS / 1000 + 1),
    })
  })
})

describe('Retry-After', () => {
  const windows = fc.integer({ min: 100, max: 200_000 }).map((ms) => `${ms}ms`)
  const counts = fc.integer({ min: 1, max: 30 })
  const options = fc.oneof(
    fc.record({ limit: counts, window: windows }),
    fc.record({ limit: counts, window: windows, burst: counts }),
  )
  const refusals = (check: (asked: ReturnType<typeof ask>, limiter: Limiter, clock: Clock) => void, random = 0) => {
    let refused = 0
    fc.assert(
      fc.property(
        fc.array(options, { minLength: 1, maxLength: 3 }),
        fc.array(fc.integer({ min: 0, max: 20_000 })),
        (yaml, gaps) => {
          const { limiter, clock } = limiterOf(
            yaml.map((one, i) => policy(`p${i}`, one)),
            random,
          )
          for (const gapMs of gaps) {
            clock.nowMs += gapMs
            ask(limiter)
          }
          let asked = ask(limiter)
          for (let i = 0; i < 31 && asked.reply === null; i++) asked = ask(limiter)
          refused++
          check(asked, limiter, clock)
        },
      ),
    )
    expect(refused).toBeGreaterThan(50)
  }

  it('is honest: waiting exactly that long is enough', () => {
    refusals(({ fields }, limiter, clock) => {
      clock.nowMs += Number(fields['Retry-After']) * 1000
      expect(ask(limiter).status).toBeNull()
    })
  })

  it('is tight: a second less is not enough, jitter aside', () => {
    refusals(({ fields }, limiter, clock) => {
      clock.nowMs += (Number(fields['Retry-After']) - 1) * 1000
      expect(ask(limiter).status).toBe(429)
    })
  })

  it('with jitter is later by a tenth at most, and never earlier', () => {
    refusals(({ fields }, limiter, clock) => {
      const waits = parseList(fields['RateLimit'] ?? '').map((item) => Number(item.params.get('t')))
      for (const seconds of waits) expect(Number(fields['Retry-After'])).toBeGreaterThanOrEqual(seconds)
      clock.nowMs += Number(fields['Retry-After']) * 1000
      expect(ask(limiter).status).toBeNull()
    }, 0.999)
    const { limiter } = limiterOf([policy('hour', { limit: 1, window: '1h' })], 0.999)
    ask(limiter)
    expect(ask(limiter).fields).toMatchObject({ 'Retry-After': '4356', RateLimit: '"hour";r=0;t=3960' })
  })

  it('comes with fields that a strict reader accepts, with r from 0 to q', () => {
    const check = ({ fields }: ReturnType<typeof ask>) => {
      const quotas = new Map(parseList(fields['RateLimit-Policy'] ?? '').map((item) => [item.value, item.params]))
      for (const params of quotas.values()) expect(params.get('w')).toBeGreaterThanOrEqual(1)
      for (const { value, params } of parseList(fields['RateLimit'] ?? '')) {
        expect(params.get('r')).toBeGreaterThanOrEqual(0)
        expect(params.get('r')).toBeLessThanOrEqual(Number(quotas.get(value)?.get('q')))
        expect(params.get('t')).toBeGreaterThanOrEqual(1)
        expect([...params.values()].every(Number.isSafeInteger)).toBe(true)
      }
      for (const name of ['X-RateLimit-Limit', 'X-RateLimit-Remaining', 'X-RateLimit-Reset'])
        expect(fields[name]).toMatch(/^\d+$/)
    }
    refusals((asked, limiter, clock) => {
      check(asked)
      clock.nowMs += Number(asked.fields['Retry-After']) * 1000
      check(ask(limiter))
    })
  })
})

describe('explain', () => {
  it('says how every policy stands, and charges nothing', () => {
    const { limiter } = limiterOf([
      policy('per-client', { limit: 2, window: '1m' }),
      policy('per-route', { limit: 5, window: '500ms', burst: 3, key: ['ip', 'route'] }),
      policy('per-key', { limit: 5, window: '1m', key: 'header:x-api-key', onMissing: 'skip' }),
    ])
    times(2, () => void ask(limiter))
    const expected = [
      {
        policy: 'per-client',
        mode: 'enforce',
        counts: 'requests',
        admitted: false,
        unit: 'requests',
        limit: 2,
        remaining: 0,
        window_s: 60,
        key: 'ip=192.0.2.7',
        retry_after_s: 66,
      },
      {
        policy: 'per-route',
        mode: 'enforce',
        counts: 'requests',
        admitted: true,
        unit: 'requests',
        limit: 5,
        remaining: 1,
        window_s: 0.5,
        key: 'ip=192.0.2.7, route=/x',
        retry_after_s: null,
      },
    ]
    times(10, () => expect(limiter.explain(request())).toEqual(expected))
  })

  it('tells a stranger the whole limit', () => {
    const { limiter } = limiterOf([policy('per-client', { limit: 2, window: '1m' })])
    times(3, () => expect(limiter.explain(request())).toMatchObject([{ admitted: true, remaining: 2 }]))
    expect(ask(limiter).fields['RateLimit']).toBe('"per-client";r=1;t=66')
  })
})

describe('a store that answers later', () => {
  /** The memory's decision, told when the test says so: as a store across a network behaves. */
  function laterStore() {
    const memory = createMemoryStore()
    const waiting: (() => void)[] = []
    const store: QuotaStore = {
      charge: (...question) => new Promise((resolve) => waiting.push(() => resolve(memory.charge(...question)))),
      peek: (...question) => memory.peek(...question),
      inspect: (...question) => memory.inspect(...question),
      settle: (...correction) => memory.settle(...correction),
      reset: (...subject) => memory.reset(...subject),
      close: () => memory.close(),
    }
    return { store, answer: () => waiting.splice(0).forEach((tell) => tell()) }
  }

  it('keeps requests that overlap apart', async () => {
    const { store, answer } = laterStore()
    const limiter = limiterWith([policy('a', { limit: 2, window: '1m' })], store, () => START_MS)
    const first = limiter.check(request({ ip: '192.0.2.9' }))
    answer()
    expect(await first).toBeNull()
    const asked = ['192.0.2.1', '192.0.2.2', '192.0.2.1', '192.0.2.1'].map((ip) => request({ ip }))
    const replies = asked.map(async (ctx) => limiter.check(ctx))
    answer()
    expect((await Promise.all(replies)).map((reply) => reply?.status ?? null)).toEqual([null, null, null, 429])
    expect(asked.map((ctx) => ctx.quota?.remaining)).toEqual([1, 1, 0, 0])
    expect(asked.map((ctx) => field(ctx.ownFields, 'RateLimit'))).toEqual([
      '"a";r=1;t=66',
      '"a";r=1;t=66',
      '"a";r=0;t=66',
      '"a";r=0;t=66',
    ])
  })
})

describe('what is taken is given back once, whatever happens', () => {
  /** Stores that answer when the test says so, over the memory's decisions. */
  function bench(...policies: readonly NamedLimit[]) {
    const [quotas, slots] = [createMemoryStore(), createMemorySlots()]
    const waiting: (() => void)[] = []
    let released = 0
    const limiter = compileLimiter(policies, {
      quotas: {
        charge: (...question) => new Promise((resolve) => waiting.push(() => resolve(quotas.charge(...question)))),
        peek: (...question) => quotas.peek(...question),
        inspect: (...question) => quotas.inspect(...question),
        settle: (...correction) => quotas.settle(...correction),
        reset: (...subject) => quotas.reset(...subject),
        close: () => quotas.close(),
      },
      slots: {
        acquire: (...asked) =>
          new Promise((resolve) =>
            waiting.push(() => {
              const slot = slots.acquire(...asked) as Slot | DecisionSource
              resolve(typeof slot === 'string' ? slot : { ...slot, release: () => [released++, slot.release()] })
            }),
          ),
        used: (...asked) => slots.used(...asked),
        close: () => slots.close(),
      },
      decisions: new Decisions(),
      clock: () => START_MS,
      random: () => 0,
    })
    const tell = async () => {
      await Promise.resolve()
      waiting.splice(0).forEach((answer) => answer())
      for (let i = 0; i < 5; i++) await Promise.resolve()
    }
    const left = () => limiter.explain(request()).map(({ remaining }) => remaining)
    return { limiter, tell, left, released: () => released }
  }

  const every = policy('every', { limit: 10, window: '1m', count: 'success' })
  const misses = policy('misses', { limit: 10, window: '1m', count: 'miss' })
  const slots = policy('slots', { kind: 'concurrency', limit: 2 })

  it.each(['the first check', 'the check of misses', 'the slot'])(
    'also when the client goes during %s',
    async (when) => {
      const { limiter, tell, left, released } = bench(every, misses, slots)
      const ctx = request()
      const go = () => {
        ctx.status = 499
        ctx.abort()
        ctx.end()
      }
      const first = limiter.check(ctx)
      if (when === 'the first check') go()
      await tell()
      await first
      const second = limiter.checkMiss?.(ctx)
      if (when === 'the check of misses') go()
      await tell()
      if (when === 'the slot') go()
      await tell()
      await second
      expect(left()).toEqual([10, 10, 2])
      expect(released()).toBe(1)
    },
  )

  it('and once only when it ends as it should', async () => {
    const { limiter, tell, left, released } = bench(every, misses, slots)
    const ctx = request()
    const first = limiter.check(ctx)
    await tell()
    await first
    const second = limiter.checkMiss?.(ctx)
    await tell()
    await tell()
    await second
    expect(left()).toEqual([9, 9, 1])
    ctx.status = 200
    ctx.wasForwarded = true
    ctx.end()
    expect(left()).toEqual([9, 9, 2])
    expect(released()).toBe(1)
  })

  it('and at once when a slot is not to be had: a refusal that takes long to send holds nothing', async () => {
    const one = policy('one', { kind: 'concurrency', limit: 1, key: 'method' })
    const { limiter, tell, left, released } = bench(every, misses, slots, one)
    const ask = async () => {
      const ctx = request()
      const first = limiter.check(ctx)
      await tell()
      await first
      const second = limiter.checkMiss?.(ctx)
      for (let i = 0; i < 3; i++) await tell()
      return (await second)?.status ?? null
    }
    expect([await ask(), await ask(), await ask()]).toEqual([null, 429, 429])
    expect(left()).toEqual([9, 9, 1, 0])
    expect(released()).toBe(2)
  })

  it('does nothing for a request that met no limit', () => {
    const { limiter } = bench(
      policy('keyed', { limit: 1, window: '1m', key: 'header:x-api-key', onMissing: 'skip', count: 'miss' }),
    )
    const ctx = request()
    expect([limiter.check(ctx), limiter.checkMiss?.(ctx)]).toEqual([null, null])
    ctx.end()
    expect(ctx.ownFields).toEqual([])
  })
})
