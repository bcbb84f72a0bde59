// The plan as the lanes see it: whatever happens inside, a request gets an answer that tells no internals, and the log
// gets the cause.

import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { createPurger } from '../../src/cache/purger.ts'
import { createSharedCache } from '../../src/cache/shared.ts'
import { createMemoryStore } from '../../src/cache/stores/memory.ts'
import { loadConfig } from '../../src/config/load.ts'
import { type HeaderList, RequestContext } from '../../src/core/context.ts'
import { Decisions } from '../../src/limit/decisions.ts'
import type { QuotaStore } from '../../src/limit/quota.ts'
import { createMemorySlots } from '../../src/limit/slots.ts'
import { createMemoryStore as createQuotaMemory } from '../../src/limit/stores/memory.ts'
import { createIdempotency } from '../../src/idempotency/idempotency.ts'
import { compileKeyNames } from '../../src/idempotency/key.ts'
import { Overload } from '../../src/core/overload.ts'
import { systemLookup } from '../../src/upstream/resolve.ts'
import { Mirrors } from '../../src/upstream/mirror.ts'
import { type GatewayPlan, type Shared, compilePlan } from '../../src/plan/compile.ts'

const cache = createSharedCache(createMemoryStore(1024 ** 2), Date.now)

const PARTS: Shared = {
  cache,
  purger: createPurger(cache, 'test', null),
  limits: { quotas: createQuotaMemory(), slots: createMemorySlots(), decisions: new Decisions() },
  idempotency: createIdempotency({
    bounds: { maxBytes: 1024 ** 2, maxKeys: 100 },
    shared: null,
    names: compileKeyNames('test'),
    now: Date.now,
  }),
  now: Date.now,
  random: Math.random,
  viaToken: 'weirgate-test',
  health: () => ({ status: 200, headers: [], body: null }),
  tellTarget: () => {},
  tellLostKeys: () => {},
  coolDowns: null,
  overload: new Overload(false, { over: () => {}, full: () => {} }),
  mirrors: new Mirrors(),
  lookup: systemLookup,
}

function planOf(yaml: string, parts: Partial<Shared> = {}, previous: GatewayPlan | null = null): GatewayPlan {
  const loaded = loadConfig(yaml, 'test.yaml', {})
  if (!loaded.ok) throw new Error(JSON.stringify(loaded.issues))
  return compilePlan(loaded.config, { ...PARTS, ...parts }, previous)
}

const requestFor = (
  path: string,
  headers: HeaderList = [],
  peerAddress = '127.0.0.1',
  method = 'GET',
): RequestContext =>
  new RequestContext(
    {
      method,
      scheme: 'http',
      host: 'a.test',
      path,
      query: '',
      version: '1.1',
      headers,
      body: null,
      peerAddress,
      receivedAtMs: 0,
    },
    'id-1',
  )

const TABLE = `
upstreams: {a: {targets: [http://127.0.0.1:1]}, b: {targets: [http://127.0.0.1:2]}}
limits: {one: {limit: 1, window: 1m}}
routes: [{path: /a, upstream: a, limits: [one]}, {path: /b, upstream: b}]
`

describe('a request body that is held for its key', () => {
  it('is let go of when its request is over', async () => {
    const cache = createSharedCache(createMemoryStore(1024 ** 2), Date.now)
    const plan = planOf(
      `{upstreams: {a: {targets: [http://127.0.0.1:1]}}, defaults: {upstream: a},
        routes: [{path: /*, methods: [POST], cache: {scope: public, key: {body: raw}}}]}`,
      { cache },
    )
    const ctx = requestFor('/x', [], '127.0.0.1', 'POST')
    ctx.body = { declaredBytes: 4, open: () => Readable.from([Buffer.from('body')]) }
    const reply = plan.answer(ctx)
    expect(cache.heldBytes).toBe(4)
    expect((await reply).status).toBe(502)
    expect(cache.heldBytes).toBe(0)
    for (const { pool } of plan.pools.values()) await pool.destroy()
  })
})

const withQuotas = (parts: Partial<QuotaStore>): Partial<Shared> => ({
  limits: { ...PARTS.limits, quotas: { ...PARTS.limits.quotas, ...parts } },
})

describe('a fault inside', () => {
  const broken = (): never => {
    throw new TypeError('secret internals')
  }

  it.each([
    ['in the plan itself', '/health', { health: broken }],
    ['in a stage', '/a', withQuotas({ charge: broken, peek: broken })],
    ['in a stage that waits', '/a', withQuotas({ charge: () => Promise.reject(new TypeError('secret internals')) })],
  ])('%s is a 500 without internals, and the cause is there for the log', async (_where, path, parts) => {
    const ctx = requestFor(path)
    const reply = await planOf(TABLE, parts).answer(ctx)
    expect(reply.status).toBe(500)
    const text = Buffer.isBuffer(reply.body) ? reply.body.toString() : ''
    expect(text).not.toContain('secret')
    expect(JSON.parse(text)).toMatchObject({ code: 'internal', request_id: 'id-1' })
    expect(ctx.error?.cause).toEqual(new TypeError('secret internals'))
  })
})

describe('whose request it is', () => {
  const trusting = `trustedProxies: [10.0.0.0/8]\n${TABLE}`
  const headers = ['X-Forwarded-For', '198.51.100.9', 'X-Request-Id', 'theirs']

  it.each([
    ['an untrusted peer', '192.0.2.1', '192.0.2.1', 'id-1', false],
    ['a trusted one', '10.1.2.3', '198.51.100.9', 'theirs', true],
  ])('is told by %s', (_who, peer, client, id, isTrusted) => {
    const ctx = requestFor('/b', headers, peer)
    planOf(trusting).resolve(ctx)
    expect([ctx.clientAddress, ctx.id, ctx.peerIsTrusted]).toEqual([client, id, isTrusted])
  })

  it.each(['', ' ', 'a b', '"', 'é', 'x'.repeat(129), '<script>'])('is not told by the bad id %j', (id) => {
    const ctx = requestFor('/b', ['X-Request-Id', id], '10.1.2.3')
    planOf(trusting).resolve(ctx)
    expect(ctx.id).toBe('id-1')
  })
})

describe('pools', () => {
  const same = (first: string, second: string): boolean[] => {
    const before = planOf(first)
    const after = planOf(second, {}, before)
    return [...after.pools].map(([name, pool]) => before.pools.get(name) === pool)
  }

  it.each([
    ['nothing', TABLE, [true, true]],
    ['routes and limits', TABLE.replace('limit: 1', 'limit: 2').replace('/b,', '/c,'), [true, true]],
    ['a target', TABLE.replace('127.0.0.1:2', '127.0.0.1:3'), [true, false]],
    [
      'the number of connections',
      TABLE.replace('{targets: [http://127.0.0.1:1]', '{connections: 7, targets: [http://127.0.0.1:1]'),
      [false, true],
    ],
    [
      'a timeout that is not about connections',
      TABLE.replace('{targets: [http://127.0.0.1:1]', '{timeouts: {idle: 7s}, targets: [http://127.0.0.1:1]'),
      [true, true],
    ],
    [
      'the time to connect',
      TABLE.replace('{targets: [http://127.0.0.1:1]', '{timeouts: {connect: 7s}, targets: [http://127.0.0.1:1]'),
      [false, true],
    ],
  ])('are taken over where %s has changed, unless the connections would be others', (_what, next, expected) => {
    expect(same(TABLE, next)).toEqual(expected)
  })
})
