// The wrong answer to the wrong person is the worst that a cache can do. Random clients, some with credentials, ask
// side by side and one after another for the same URL; random answers come in random order while time goes by. Every
// answer names whom it was made for, so it can be checked whether somebody else was allowed to get it.

import { isDeepStrictEqual } from 'node:util'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compileKeyRule } from '../../src/cache/key-rule.ts'
import type { HeaderList } from '../../src/core/context.ts'
import { type Asking, type RequestParts, createBench, settle } from '../support/cache.ts'

/** Each with a list of fields that is its own, by which it is known at the origin. */
type Clients = Readonly<Record<string, RequestParts & { readonly headers: HeaderList }>>

const CLIENTS: Clients = {
  nobody: { headers: [] },
  'cookie-a': { headers: ['Cookie', 'sid=a'] },
  'cookie-b': { headers: ['Cookie', 'sid=b'] },
  'bearer-a': { headers: ['Authorization', 'Bearer a'] },
  'bearer-b': { headers: ['Authorization', 'Bearer b'] },
  'key-a': { headers: ['X-Api-Key', 'a'] },
}

const ANSWERS: readonly HeaderList[] = [
  [],
  ['Cache-Control', 'max-age=60'],
  ['Cache-Control', 'max-age=0'],
  ['Cache-Control', 'public'],
  ['Cache-Control', 'public, max-age=60'],
  ['Cache-Control', 's-maxage=60'],
  ['Cache-Control', 'must-revalidate, max-age=60'],
  ['Cache-Control', 'private, max-age=60'],
  ['Cache-Control', 'no-store'],
  ['Cache-Control', 'public, max-age=60', 'Set-Cookie', 'sid=c'],
  ['Cache-Control', 'public, max-age=60', 'Vary', 'Cookie, Authorization, X-Api-Key'],
  ['Vary', 'Cookie'],
  ['Last-Modified', 'Sun, 01 Nov 2026 00:00:00 GMT'],
]

const ROUTES: readonly Record<string, unknown>[] = [
  {},
  { ttl: '1h' },
  { ttl: '1h', override: true },
  { clamp: { min: '10m' } },
  { ttl: '1h', override: true, clamp: { min: '10m' }, collapse: false },
]

const stepOf = (clients: Clients) =>
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ do: fc.constant('ask' as const), who: fc.constantFrom(...Object.keys(clients)) }),
    },
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constant('answer' as const),
        which: fc.nat(3),
        with: fc.nat(ANSWERS.length - 1),
        streamed: fc.boolean(),
      }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const), seconds: fc.constantFrom(1, 59, 61, 700) }) },
  )

interface Made {
  readonly for: string
  readonly headers: HeaderList
  readonly atMs: number
}

/** Why `asker`, who asked at that time, must not get what was made for somebody else; null when that is allowed. */
function complaint(asker: string, made: Made, askedAtMs: number): string | null {
  const control = made.headers.join(' ')
  if (/no-store|private|Set-Cookie/.test(control)) return 'the origin forbids it'
  const involved = [asker, made.for]
  if (/Vary Cookie/.test(control) && involved.some((who) => who.startsWith('cookie'))) return 'a cookie selected it'
  if (/Vary .*X-Api-Key/.test(control) && involved.some((who) => who !== 'nobody')) return 'credentials selected it'
  if (involved.every((who) => who === 'nobody')) return null
  const isExplicitlyFresh = /(?:max-age|s-maxage)=60/.test(control) && askedAtMs < made.atMs + 60_000
  if (!isExplicitlyFresh) return 'the origin does not call it fresh'
  const isAuthorized = involved.some((who) => who.startsWith('bearer') || who.startsWith('key'))
  return isAuthorized && !/public|s-maxage|must-revalidate/.test(control)
    ? 'the origin does not share it with who is authorized'
    : null
}

/** Lets clients play against a route. Answers how often one got what was made for another, and how often what was made for
 *  an earlier request of its own. */
async function play(
  route: Record<string, unknown>,
  clients: Clients,
  complain: typeof complaint,
  numRuns = 150,
): Promise<{ readonly shared: number; readonly reused: number }> {
  let shared = 0
  let reused = 0
  await fc.assert(
    fc.asyncProperty(fc.array(stepOf(clients), { maxLength: 40, size: 'max' }), async (steps) => {
      const bench = createBench(route)
      const askings: { asking: Asking; who: string; atMs: number }[] = []
      const made: Made[] = []
      let pending: number[] = []
      let seen = 0
      for (const each of steps) {
        if (each.do === 'ask') {
          askings.push({ asking: bench.ask(clients[each.who]), who: each.who, atMs: bench.nowMs })
        } else if (each.do === 'wait') bench.nowMs += each.seconds * 1000
        else if (pending.length > 0) {
          const index = pending[each.which % pending.length] as number
          pending = pending.filter((other) => other !== index)
          const asked = bench.asked[index]
          if (asked === undefined) throw new Error('nothing asked')
          const owner = Object.keys(clients).find((who) => clients[who]?.headers === asked.ctx.headers) as string
          const headers = ANSWERS[each.with] as HeaderList
          const body = String(made.push({ for: owner, headers, atMs: bench.nowMs }) - 1)
          if (each.streamed) {
            const stream = asked.stream(headers)
            await settle()
            stream.send(body)
            stream.end()
          } else asked.reply(headers, body)
        }
        await settle()
        while (seen < bench.asked.length) pending.push(seen++)
      }
      for (const index of pending) bench.asked[index]?.reply(['Cache-Control', 'no-store'], 'late')
      await settle()
      while (seen < bench.asked.length) bench.asked[seen++]?.reply(['Cache-Control', 'no-store'], 'late')

      const answers = new Set<Made>()
      for (const { asking, who, atMs } of askings) {
        const outcome = await asking.outcome()
        if (outcome === '200 late') continue
        const answer = made[Number(outcome.slice('200 '.length))]
        if (answer === undefined) throw new Error(`no such answer: ${outcome}`)
        if (answer.for === who) {
          if (answers.has(answer)) reused++
          answers.add(answer)
          continue
        }
        shared++
        expect(
          complain(who, answer, atMs),
          `${who} got what was made for ${answer.for}: ${answer.headers.join(' ')}`,
        ).toBeNull()
      }
    }),
    { numRuns },
  )
  return { shared, reused }
}

// Else nothing was tried.
const ENOUGH = 100

describe('a route that is not public', () => {
  it.each(ROUTES)('never gives an answer to somebody it is not for: %j', async (route) => {
    expect((await play(route, CLIENTS, complaint)).shared).toBeGreaterThan(ENOUGH)
  })
})

describe('a route with an answer for each user alone', () => {
  const PER_USER: readonly Record<string, unknown>[] = [
    { ttl: '1h', scope: 'user' },
    { ttl: '1h', override: true, scope: 'user', clamp: { min: '10m' } },
    { ttl: '1h', scope: 'user', key: { cookies: ['lang'] } },
  ]

  it.each(PER_USER)('never gives it to another: %j', async (route) => {
    const clients = {
      ...CLIENTS,
      'cookie-a-lang': { headers: ['Cookie', 'lang=de; sid=a'] },
      'cookie-b-lang': { headers: ['Cookie', 'lang=de; sid=b'] },
    }
    const { shared, reused } = await play(route, clients, (asker, made) => `${made.for} is not ${asker}`)
    expect(shared).toBe(0)
    expect(reused).toBeGreaterThan(ENOUGH)
  })

  it('keeps nothing for who does not say who it is', async () => {
    const bench = createBench({ ttl: '1h', scope: 'user' })
    for (const n of [0, 1]) {
      const asking = bench.ask()
      await settle()
      bench.asked[n]?.reply([], String(n))
      expect(await asking.outcome()).toBe(`200 ${n}`)
      expect(await asking.field('cache-status')).toBe('weirgate; fwd=bypass; detail=no-user')
    }
    expect(bench.shared.store.entries).toBe(0)
  })
})

describe('a route whose key names fields and cookies', () => {
  it.each<[Record<string, unknown>, Clients]>([
    [
      { headers: ['X-Tenant'] },
      { none: { headers: [] }, empty: { headers: ['X-Tenant', ''] }, a: { headers: ['X-Tenant', 'a'] } },
    ],
    [
      { cookies: ['lang'] },
      {
        none: { headers: [] },
        de: { headers: ['Cookie', 'lang=de'] },
        en: { headers: ['Cookie', 'lang=en'] },
        odd: { headers: ['Cookie', 'lang="de;'] },
      },
    ],
  ])('never gives an answer to who has other values: %j', async (key, clients) => {
    const route = { ttl: '1h', scope: 'public', key }
    const { shared, reused } = await play(route, clients, (asker, made) => `${made.for} is not ${asker}`)
    expect(shared).toBe(0)
    expect(reused).toBeGreaterThan(ENOUGH)
  })
})

describe('a route whose key has the body', () => {
  const clientsWith = (...common: string[]): Clients => {
    const ask = (body: string, ...headers: string[]) => ({
      method: 'POST',
      body,
      headers: ['Content-Type', 'application/json', ...common, ...headers],
    })
    return {
      one: ask('{"a":1,"b":[]}'),
      'one, written otherwise': ask('{ "b": [], "a": 1.0 }'),
      two: ask('{"a":2,"b":[]}'),
      'one as text': ask('{"a":"1","b":[]}'),
      'one and null': ask('{"a":1,"b":[],"c":null}'),
      'one for a': ask('{"a":1,"b":[]}', 'Authorization', 'a'),
      'one for b': ask('{"a":1,"b":[]}', 'Authorization', 'b'),
      'two for b': ask('{"a":2,"b":[]}', 'Authorization', 'b'),
      'a name twice': ask('{"a":1,"a":1,"b":[]}'),
      GET: { headers: [...common] },
    }
  }
  const meaning = (who: string) => who.replace(', written otherwise', '')
  const withoutUser = (who: string) => meaning(who).replace(/ for .$/, '')
  const route = { ttl: '1h', methods: ['GET', 'POST'], key: { body: 'canonical' } }

  it.each([
    ['public', withoutUser, []],
    ['user', meaning, ['Cookie', 'sid=a']],
  ])('never gives an answer to another body or method, scope: %s', async (scope, same, common) => {
    const { shared, reused } = await play(
      { ...route, scope },
      clientsWith(...common),
      (asker, made) =>
        same(asker) === same(made.for) && asker !== 'a name twice' ? null : `${made.for} is not ${asker}`,
      600,
    )
    expect(shared + reused).toBeGreaterThan(ENOUGH)
  })

  it('has no key in common for two bodies that do not mean the same', () => {
    const { ofBody, bodyPart } = compileKeyRule({ body: 'canonical' }, false)
    const keyOf = (body: string): string | null => {
      const headers = ['Content-Type', 'application/json']
      const part = bodyPart(headers, Buffer.from(body))
      const facts = {
        method: 'POST',
        user: null,
        scheme: 'http' as const,
        host: 'a.test',
        path: '/',
        query: '',
        headers,
      }
      return part.ok ? ofBody({ ...facts, peerIsTrusted: false }, part.part) : null
    }
    const body = fc.jsonValue({ maxDepth: 3 })
    let keyed = 0
    fc.assert(
      fc.property(body, body, (one, other) => {
        const [a, b] = [keyOf(JSON.stringify(one)), keyOf(JSON.stringify(other, null, 2))]
        fc.pre(a !== null && b !== null)
        keyed++
        expect(a === b).toBe(isDeepStrictEqual(JSON.parse(JSON.stringify(one)), JSON.parse(JSON.stringify(other))))
      }),
      { numRuns: 1000 },
    )
    expect(keyed).toBeGreaterThan(ENOUGH)
  })
})
