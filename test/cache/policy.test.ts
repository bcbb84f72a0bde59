import { describe, expect, it } from 'vitest'
import type { HeaderList } from '../../src/core/context.ts'
import { routeCacheOptions } from '../../src/cache/options.ts'
import {
  type StoreVerdict,
  asksForPart,
  compilePolicy,
  credentialOf,
  decideStore,
  fillRefusal,
  lookupRefusal,
  reuseRefusal,
  varyNames,
} from '../../src/cache/policy.ts'

const NOW_MS = Date.UTC(2026, 10, 22, 12)
const HOUR_MS = 3_600_000
const DATE = new Date(NOW_MS).toUTCString()
const at = (ms: number): string => new Date(ms).toUTCString()

const policyOf = (yaml: Record<string, unknown> = {}) =>
  compilePolicy(routeCacheOptions.parse(yaml), { maxObjectBytes: 1024 })

interface Case {
  readonly route?: Record<string, unknown>
  readonly method?: string
  readonly request?: HeaderList
  readonly path?: string
  readonly status?: number
  readonly response?: HeaderList
  readonly framed?: boolean
  readonly delayMs?: number
}

/** The verdict on an answer that has a Date of now, unless it says otherwise. */
function decide({
  route,
  method = 'GET',
  request = [],
  path = '/',
  status = 200,
  response = [],
  framed = true,
  delayMs = 0,
}: Case) {
  const headers = response.includes('Date') ? response : ['Date', DATE, ...response]
  return decideStore({ method, headers: request, path }, { status, headers, framed }, policyOf(route), NOW_MS, delayMs)
}

const reason = (verdict: StoreVerdict) => (verdict.store ? 'stored' : verdict.reason)
const freshSeconds = (verdict: StoreVerdict) => (verdict.store ? verdict.freshMs / 1000 : verdict.reason)

const cc = (value: string): HeaderList => ['Cache-Control', value]
const COOKIE = ['Cookie', 'sid=a']
const AUTHORIZATION = ['Authorization', 'Bearer a']

describe('what is stored at all', () => {
  it.each<[string, Case, string]>([
    ['[RFC 9111 §3] a 200 with explicit freshness', { response: cc('max-age=60') }, 'stored'],
    ['[RFC 9111 §5.2.2.5] no-store', { response: cc('max-age=60, no-store') }, 'no-store'],
    ['[RFC 9111 §5.2.2.5] no-store in any case', { response: cc('No-StOrE, max-age=60') }, 'no-store'],
    ['[RFC 9111 §5.2.2.5] no-store with an argument', { response: cc('no-store="x", max-age=60') }, 'no-store'],
    ['[RFC 9111 §5.2.2.7] private', { response: cc('private, max-age=60') }, 'private'],
    [
      '[RFC 9111 §5.2.2.7] private for some fields counts as private',
      { response: cc('private="x-a", max-age=60') },
      'private',
    ],
    ['[RFC 9111 §5.2.2.4] no-cache without a validator', { response: cc('no-cache, max-age=60') }, 'no-cache'],
    [
      '[RFC 9111 §5.2.2.4] no-cache with a validator, to be validated',
      { response: [...cc('no-cache'), 'ETag', '"a"'] },
      'stored',
    ],
    [
      'no-cache with a validator, to who carries credentials',
      { request: COOKIE, response: [...cc('no-cache, max-age=60'), 'ETag', '"a"'] },
      'no-cache',
    ],
    ['what is stale when it comes', { response: cc('max-age=0') }, 'not-fresh'],
    ['what is stale when it comes and has a validator', { response: [...cc('max-age=0'), 'ETag', '"a"'] }, 'stored'],
    ['what has a validator and no freshness', { response: ['ETag', '"a"'] }, 'no-freshness'],
    [
      '[RFC 9111 §4.2.1] Cache-Control that cannot be read',
      { response: cc('max-age="60, public') },
      'invalid-cache-control',
    ],
    [
      '[RFC 9111 §4.2.1] two Cache-Control lines are one list',
      { response: [...cc('max-age=60'), ...cc('no-store')] },
      'no-store',
    ],
    ['[RFC 9111 §4.1] Vary: *', { response: [...cc('max-age=60'), 'Vary', '*'] }, 'vary-star'],
    [
      '[RFC 9111 §4.1] Vary with * on a second line',
      { response: [...cc('max-age=60'), 'Vary', 'a', 'Vary', ' *'] },
      'vary-star',
    ],
    [
      'Vary by a field that every request gets from the gateway',
      { response: [...cc('max-age=60'), 'Vary', 'X-Forwarded-For'] },
      'vary-star',
    ],
    ['[RFC 9111 §3] 206, since parts are not combined', { status: 206, response: cc('max-age=60') }, 'partial'],
    ['[RFC 9111 §3] 304 has nothing to store', { status: 304, response: cc('max-age=60') }, 'status'],
    ['Set-Cookie', { response: [...cc('public, max-age=60'), 'Set-Cookie', 'a=b'] }, 'set-cookie'],
    [
      'Set-Cookie where the route stores it',
      { route: { storeSetCookie: true }, response: [...cc('max-age=60'), 'Set-Cookie', 'a=b'] },
      'stored',
    ],
    ['an answer whose end cannot be proved', { framed: false, response: cc('max-age=60') }, 'no-length'],
    [
      '[RFC 9112 §8] a declared length above maxObject',
      { response: [...cc('max-age=60'), 'Content-Length', '1025'] },
      'too-large',
    ],
    ['a declared length of just maxObject', { response: [...cc('max-age=60'), 'Content-Length', '1024'] }, 'stored'],
    [
      "the route's own maxObject, where it is less",
      { route: { maxObject: '10B' }, response: [...cc('max-age=60'), 'Content-Length', '11'] },
      'too-large',
    ],
    [
      "the route's own maxObject is no more than that of all",
      { route: { maxObject: '1MiB' }, response: [...cc('max-age=60'), 'Content-Length', '1025'] },
      'too-large',
    ],
    [
      '[RFC 9111 §5.2.2.3] must-understand with a known status takes no-store back',
      { response: cc('must-understand, no-store, max-age=60') },
      'stored',
    ],
    [
      '[RFC 9111 §5.2.2.3] must-understand with an unknown status',
      { status: 599, response: cc('must-understand, max-age=60') },
      'status',
    ],
    [
      '[RFC 9111 §5.2.2.3] must-understand does not let the ttl of a route undo no-store',
      { route: { ttl: '1h' }, response: cc('must-understand, no-store') },
      'no-store',
    ],
    ['no-store is not overridden', { route: { ttl: '1h', override: true }, response: cc('no-store') }, 'no-store'],
    [
      'private is not overridden',
      { route: { ttl: '1h', override: true, scope: 'public' }, response: cc('private') },
      'private',
    ],
    [
      '[RFC 9111 §5.4] Pragma in an answer means nothing',
      { response: [...cc('max-age=60'), 'Pragma', 'no-cache'] },
      'stored',
    ],
  ])('%s', (_name, given, expected) => {
    expect(reason(decide(given))).toBe(expected)
  })

  it.each([200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599])(
    '[RFC 9111 §3] any final status with explicit freshness: %i',
    (status) => {
      expect(freshSeconds(decide({ status, response: cc('max-age=60') }))).toBe(60)
    },
  )
})

describe('for how long it is fresh', () => {
  const expires = (ms: number): HeaderList => ['Expires', at(ms)]
  it.each<[string, Case, number | string]>([
    ['[RFC 9111 §4.2.1] s-maxage before max-age', { response: cc('max-age=10, s-maxage=60') }, 60],
    ['[RFC 9111 §4.2.1] s-maxage before max-age, though shorter', { response: cc('s-maxage=5, max-age=60') }, 5],
    ['[RFC 9111 §4.2.1] max-age before Expires', { response: [...cc('max-age=60'), ...expires(NOW_MS - HOUR_MS)] }, 60],
    ['[RFC 9111 §5.3] Expires less Date', { response: expires(NOW_MS + 90_000) }, 90],
    [
      '[RFC 9111 §5.3] Expires less Date, where Date is ahead of us',
      { response: ['Date', at(NOW_MS + HOUR_MS), ...expires(NOW_MS + HOUR_MS + 7000)] },
      7,
    ],
    ['[RFC 9111 §4.2] Expires of just Date', { response: expires(NOW_MS) }, 'not-fresh'],
    ['[RFC 9111 §5.3] an invalid Expires is in the past', { response: ['Expires', '0'] }, 'not-fresh'],
    [
      '[RFC 9111 §5.3] an invalid Expires is not for the ttl to replace',
      { route: { ttl: '1h' }, response: ['Expires', '-1'] },
      'not-fresh',
    ],
    [
      '[RFC 9111 §4.2.1] Expires on two lines',
      { response: [...expires(NOW_MS + 9000), ...expires(NOW_MS + 9000)] },
      'not-fresh',
    ],
    ['[RFC 9111 §5.2.2.1] max-age=0', { response: cc('max-age=0') }, 'not-fresh'],
    ['[RFC 9111 §4.2.1] of two max-age the shorter', { response: cc('max-age=60, max-age=6') }, 6],
    ['[RFC 9111 §1.2.2] a max-age that is no number', { response: cc('max-age=1h') }, 'not-fresh'],
    ['[RFC 9111 §4.2.3] less the Age with which it came', { response: [...cc('max-age=60'), 'Age', '20'] }, 40],
    [
      '[RFC 9111 §4.2.3] less Age and the time of the exchange',
      { response: [...cc('max-age=60'), 'Age', '20'], delayMs: 5000 },
      35,
    ],
    [
      '[RFC 9111 §4.2.3] without Age the time of the exchange does not count',
      { response: cc('max-age=60'), delayMs: 5000 },
      60,
    ],
    ['[RFC 9111 §4.2.3] less the apparent age', { response: ['Date', at(NOW_MS - 50_000), ...cc('max-age=60')] }, 10],
    [
      '[RFC 9111 §4.2.3] the larger of Age and apparent age',
      { response: ['Date', at(NOW_MS - 50_000), ...cc('max-age=60'), 'Age', '55'] },
      5,
    ],
    [
      '[RFC 9111 §4.2.3] a Date ahead of us makes nobody younger',
      { response: ['Date', at(NOW_MS + HOUR_MS), ...cc('max-age=60'), 'Age', '50'] },
      10,
    ],
    ['[RFC 9111 §4.2.3] Age beyond the lifetime', { response: [...cc('max-age=60'), 'Age', '60'] }, 'not-fresh'],
    [
      '[RFC 5861 §3] what was stale when it came, since then: its time to answer stale is running',
      { response: [...cc('max-age=60'), 'Age', '80', 'ETag', '"1"'] },
      -20,
    ],
    ['[RFC 9110 §6.6.1] without Date it was made now', { response: ['Date', 'yesterday', ...cc('max-age=60')] }, 60],

    [
      '[RFC 9111 §4.2.2] a tenth of the time since Last-Modified',
      { response: ['Last-Modified', at(NOW_MS - HOUR_MS)] },
      360,
    ],
    ['[RFC 9111 §4.2.2] at most a day', { response: ['Last-Modified', at(NOW_MS - 1000 * HOUR_MS)] }, 86_400],
    ['[RFC 9111 §4.2.2] no heuristic without Last-Modified', {}, 'no-freshness'],
    [
      '[RFC 9111 §4.2.2] no heuristic from the future',
      { response: ['Last-Modified', at(NOW_MS + HOUR_MS)] },
      'no-freshness',
    ],
    [
      '[RFC 9111 §4.2.2] no heuristic beside a ttl',
      { route: { ttl: { 404: '1m' } }, response: ['Last-Modified', at(NOW_MS - HOUR_MS)] },
      'no-freshness',
    ],
    [
      '[RFC 9111 §4.2.2] a heuristic for any status that is public',
      { status: 599, response: [...cc('public'), 'Last-Modified', at(NOW_MS - HOUR_MS)] },
      360,
    ],

    ['ttl where the answer has none of its own', { route: { ttl: '1h' } }, 3600],
    ["the origin's own before ttl", { route: { ttl: '1h' }, response: cc('max-age=60') }, 60],
    ["the origin's max-age=0 before ttl", { route: { ttl: '1h' }, response: cc('max-age=0') }, 'not-fresh'],
    ['ttl with override', { route: { ttl: '1h', override: true }, response: cc('max-age=60') }, 3600],
    ['ttl with override over Expires: 0', { route: { ttl: '1h', override: true }, response: ['Expires', '0'] }, 3600],
    [
      'ttl counts from now, whatever the clock of the backend says',
      { route: { ttl: '1m' }, response: ['Date', at(NOW_MS - HOUR_MS)] },
      60,
    ],
    ['ttl by status', { route: { ttl: { 200: '1h', 404: '30s' } }, status: 404 }, 30],
    ['ttl by status, for another one', { route: { ttl: { 404: '30s' } } }, 'no-freshness'],
    ['ttl of 0', { route: { ttl: '0s' } }, 'not-fresh'],
    ['clamp.min', { route: { clamp: { min: '5m' } }, response: cc('max-age=60') }, 300],
    ['clamp.min of what is stale', { route: { clamp: { min: '5m' } }, response: cc('max-age=0') }, 300],
    ['clamp.min gives no lifetime where there is none', { route: { clamp: { min: '5m' } } }, 'no-freshness'],
    ['clamp.max', { route: { clamp: { max: '30s' } }, response: cc('max-age=60') }, 30],
    ['clamp.max of a ttl', { route: { ttl: '1h', clamp: { max: '30s' } } }, 30],
    [
      'clamp.max of a heuristic',
      { route: { clamp: { max: '30s' } }, response: ['Last-Modified', at(NOW_MS - HOUR_MS)] },
      30,
    ],
  ])('%s', (_name, given, expected) => {
    expect(freshSeconds(decide(given))).toBe(expected)
  })

  const HEURISTIC = ['Last-Modified', at(NOW_MS - HOUR_MS)]
  it.each([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])('[RFC 9110 §15.1] a heuristic for %i', (status) => {
    expect(reason(decide({ status, response: HEURISTIC }))).toBe('stored')
  })
  it.each([201, 202, 302, 400, 401, 403, 500, 502, 503, 504, 599])('[RFC 9110 §15.1] no heuristic for %i', (status) => {
    expect(reason(decide({ status, response: HEURISTIC }))).toBe('status')
  })
  it.each([200, 203, 204, 300, 301, 308])('one ttl covers %i', (status) => {
    expect(reason(decide({ status, route: { ttl: '1h' } }))).toBe('stored')
  })
  it.each([201, 302, 400, 401, 403, 404, 410, 429, 500, 503])('one ttl does not cover %i', (status) => {
    expect(decide({ status, route: { ttl: '1h' } }).store).toBe(false)
  })

  it('reports how old the answer was when it came', () => {
    expect(decide({ response: [...cc('max-age=60'), 'Age', '20'] })).toMatchObject({ ageMs: 20_000 })
  })
})

describe('the answer to a POST that the route answers from the cache', () => {
  const decidePost = (route: Record<string, unknown>, response: HeaderList, status = 200, methods = ['POST']) => {
    const options = routeCacheOptions.parse({ scope: 'public', ...route })
    const policy = compilePolicy(options, { maxObjectBytes: 1024, methods: new Set(methods) })
    const answer = { status, headers: ['Date', DATE, ...response], framed: true }
    return freshSeconds(decideStore({ method: 'POST', headers: [], path: '/' }, answer, policy, NOW_MS, 0))
  }
  const HOUR = { ttl: '1h' }

  it.each<[string, Record<string, unknown>, HeaderList, number | string]>([
    ['no-cache', HOUR, cc('no-cache'), 3600],
    ['no-cache with fields', HOUR, cc('no-cache="set-cookie"'), 3600],
    ['max-age=0', HOUR, cc('max-age=0, must-revalidate'), 3600],
    ['s-maxage=0', HOUR, cc('s-maxage=0'), 3600],
    ['an Expires of long ago', HOUR, ['Expires', '0'], 3600],
    ['a lifetime of its own', HOUR, cc('max-age=60'), 60],
    ['no-cache and a lifetime', HOUR, cc('no-cache, max-age=60'), 60],
    ['a lifetime that is over', HOUR, [...cc('max-age=60'), 'Age', '61'], 'not-fresh'],
    ['no-store', HOUR, cc('no-cache, no-store'), 'no-store'],
    ['private', HOUR, cc('private, max-age=0'), 'private'],
    ['no-cache for caches like this', HOUR, ['CDN-Cache-Control', 'no-cache'], 'no-cache'],
    ['max-age=0 for caches like this', HOUR, ['CDN-Cache-Control', 'max-age=0'], 'not-fresh'],
    ['no-cache, where no ttl takes its place', {}, cc('no-cache'), 'no-cache'],
    ['no-cache, where the ttl is for another status', { ttl: { 404: '1h' } }, cc('no-cache'), 'no-cache'],
    ['no-cache, honoured', { ...HOUR, originNoCache: 'honor' }, cc('no-cache'), 'no-cache'],
    ['max-age=0, honoured', { ...HOUR, originNoCache: 'honor' }, cc('max-age=0'), 'not-fresh'],
    ['events, which are judged at their end', HOUR, ['Content-Type', 'text/event-stream'], 3600],
    ['lines, which are judged at their end', HOUR, ['Content-Type', 'application/x-ndjson'], 3600],
    ['events in a coding', HOUR, ['Content-Type', 'text/event-stream', 'Content-Encoding', 'gzip'], 'unread'],
  ])('with %s', (_what, route, response, wanted) => {
    expect(decidePost(route, response)).toBe(wanted)
  })

  it('answers stale at no time where the origin said no-cache', () => {
    const policy = compilePolicy(routeCacheOptions.parse({ scope: 'public', ...HOUR }), {
      maxObjectBytes: 1024,
      methods: new Set(['POST']),
    })
    const answer = { status: 200, headers: cc('no-cache'), framed: true }
    expect(decideStore({ method: 'POST', headers: [], path: '/' }, answer, policy, NOW_MS, 0)).toMatchObject({
      staleIfErrorMs: 0,
      staleWhileRevalidateMs: 0,
    })
  })

  it('is a 200, or what ttl names', () => {
    for (const status of [201, 203, 204, 301, 404, 410, 500]) {
      expect(decidePost(HOUR, cc('max-age=60'), status)).toBe('status')
    }
    expect(decidePost({ ttl: { 404: '30s' } }, [], 404)).toBe(30)
  })

  it('has no-cache honoured where POST is not among the methods', () => {
    expect(decidePost(HOUR, cc('no-cache'), 200, ['GET'])).toBe('no-cache')
  })
})

describe('the jitter of lifetimes', () => {
  const lifetimes = (route: Record<string, unknown>, response: HeaderList = []) =>
    [0, 0.25, 0.5, 0.999_999].map((random) => {
      const policy = compilePolicy(routeCacheOptions.parse(route), { maxObjectBytes: 1024, random: () => random })
      const answer = { status: 200, headers: ['Date', DATE, ...response], framed: true }
      return freshSeconds(decideStore({ method: 'GET', headers: [], path: '/' }, answer, policy, NOW_MS, 0))
    })

  it.each<[string, Record<string, unknown>, HeaderList, number[]]>([
    ["spreads the route's ttl by 5 %", { ttl: '100s' }, [], [95, 97.5, 100, 105]],
    ['spreads a ttl by status', { ttl: { 200: '100s' } }, [], [95, 97.5, 100, 105]],
    ['spreads a ttl that overrides', { ttl: '100s', override: true }, cc('max-age=9'), [95, 97.5, 100, 105]],
    ["leaves the origin's own lifetime", { ttl: '100s' }, cc('max-age=100'), [100, 100, 100, 100]],
    ['leaves a heuristic', {}, ['Last-Modified', at(NOW_MS - HOUR_MS)], [360, 360, 360, 360]],
    ['keeps within clamp', { ttl: '100s', clamp: { min: '99s', max: '101s' } }, [], [99, 99, 100, 101]],
    ['is none where the route says so', { ttl: '100s', jitter: false }, [], [100, 100, 100, 100]],
  ])('%s', (_what, route, response, seconds) => {
    expect(lifetimes(route, response)).toEqual(seconds)
  })
})

describe('answers to requests with credentials', () => {
  it.each<[string, Case, string]>([
    ['[RFC 9111 §3.5] Authorization', { request: AUTHORIZATION, response: cc('max-age=60') }, 'authorization'],
    [
      '[RFC 9111 §3.5] Authorization and public',
      { request: AUTHORIZATION, response: cc('public, max-age=60') },
      'stored',
    ],
    ['[RFC 9111 §3.5] Authorization and s-maxage', { request: AUTHORIZATION, response: cc('s-maxage=60') }, 'stored'],
    [
      '[RFC 9111 §3.5] Authorization and must-revalidate',
      { request: AUTHORIZATION, response: cc('must-revalidate, max-age=60') },
      'stored',
    ],
    [
      '[RFC 9111 §3.5] public with an argument allows nothing',
      { request: AUTHORIZATION, response: cc('public="x", max-age=60') },
      'authorization',
    ],
    ['Authorization and a ttl', { route: { ttl: '1h' }, request: AUTHORIZATION }, 'authorization'],
    [
      'Authorization, public and a ttl',
      { route: { ttl: '1h' }, request: AUTHORIZATION, response: cc('public') },
      'authorization',
    ],
    ['Authorization in a public route', { route: { ttl: '1h', scope: 'public' }, request: AUTHORIZATION }, 'stored'],
    ['an API key', { route: { ttl: '1h' }, request: ['X-Api-Key', 'k'] }, 'authorization'],
    ['Cookie and explicit freshness', { request: COOKIE, response: cc('max-age=60') }, 'stored'],
    ['Cookie and a ttl', { route: { ttl: '1h' }, request: COOKIE }, 'cookie'],
    ['Cookie and a ttl with override', { route: { ttl: '1h', override: true }, request: COOKIE }, 'cookie'],
    ['Cookie and a heuristic', { request: COOKIE, response: ['Last-Modified', at(NOW_MS - HOUR_MS)] }, 'cookie'],
    ['Cookie and a ttl in a public route', { route: { ttl: '1h', scope: 'public' }, request: COOKIE }, 'stored'],
    [
      'Cookie and clamp.min',
      { route: { clamp: { min: '5m' } }, request: COOKIE, response: cc('max-age=0') },
      'not-fresh',
    ],
    [
      'a page under the name of a style sheet',
      {
        path: '/account/x.css',
        request: COOKIE,
        response: [...cc('max-age=60'), 'Content-Type', 'text/html; charset=utf-8'],
      },
      'disguised',
    ],
    [
      'JSON under the name of an image',
      {
        path: '/me/x.PNG',
        request: AUTHORIZATION,
        response: [...cc('public, max-age=60'), 'Content-Type', 'application/problem+json'],
      },
      'disguised',
    ],
    [
      'a style sheet under the name of a style sheet',
      { path: '/x.css', request: COOKIE, response: [...cc('max-age=60'), 'Content-Type', 'text/css'] },
      'stored',
    ],
    [
      'JSON under the name of an image, for nobody in particular',
      { path: '/x.png', response: [...cc('max-age=60'), 'Content-Type', 'application/json'] },
      'stored',
    ],
  ])('%s', (_name, given, expected) => {
    expect(reason(decide(given))).toBe(expected)
  })

  it('get neither override nor clamp.min, but clamp.max', () => {
    const given = { request: COOKIE, response: cc('max-age=60') }
    expect(freshSeconds(decide({ ...given, route: { ttl: '1h', override: true } }))).toBe(60)
    expect(freshSeconds(decide({ ...given, route: { clamp: { min: '5m' } } }))).toBe(60)
    expect(freshSeconds(decide({ ...given, route: { clamp: { max: '30s' } } }))).toBe(30)
  })
})

describe('[RFC 9213 §2.2] CDN-Cache-Control', () => {
  const cdn = (value: string, ...more: string[]): HeaderList => ['CDN-Cache-Control', value, ...more]
  const EXPIRED = ['Expires', at(NOW_MS - HOUR_MS)]
  it.each<[string, Case, number | string]>([
    ['counts alone', { response: cdn('max-age=60') }, 60],
    ['counts in place of a shorter Cache-Control', { response: cdn('max-age=60', ...cc('max-age=1')) }, 60],
    ['counts in place of a longer Cache-Control', { response: cdn('max-age=1', ...cc('max-age=60')) }, 1],
    ['counts in place of no-store', { response: cdn('max-age=60', ...cc('no-store')) }, 60],
    ['counts in place of Cache-Control that cannot be read', { response: cdn('max-age=60', ...cc('a="')) }, 60],
    ['counts in place of Expires', { response: cdn('max-age=60', ...EXPIRED) }, 60],
    [
      'without a lifetime leaves none to Expires',
      { response: cdn('public', 'Expires', at(NOW_MS + HOUR_MS)) },
      'no-freshness',
    ],
    ['forbids storing', { response: cdn('no-store', ...cc('max-age=60')) }, 'no-store'],
    ['says private', { response: cdn('private', ...cc('max-age=60')) }, 'private'],
    ['says no-cache', { response: cdn('no-cache', ...cc('max-age=60')) }, 'no-cache'],
    ['is ignored where it is no dictionary', { response: cdn('max-age=60, &', ...cc('max-age=5')) }, 5],
    ['is ignored where seconds are no integer', { response: cdn('max-age="60"', ...cc('max-age=5')) }, 5],
  ])('%s', (_name, given, expected) => {
    expect(freshSeconds(decide(given))).toBe(expected)
  })

  it('counts in the order of the list, and not at all outside of it', () => {
    const headers = ['Date', DATE, ...cdn('max-age=60'), 'X-Edge-Control', 'max-age=7', ...cc('max-age=5')]
    const listed = (targeted: readonly string[]) => {
      const policy = compilePolicy(routeCacheOptions.parse({}), { maxObjectBytes: 1024, targeted })
      return freshSeconds(
        decideStore(
          { method: 'GET', headers: [], path: '/' },
          { status: 200, headers, framed: true },
          policy,
          NOW_MS,
          0,
        ),
      )
    }
    expect([
      listed(['x-edge-control', 'cdn-cache-control']),
      listed(['x-other', 'cdn-cache-control']),
      listed([]),
    ]).toEqual([7, 60, 5])
  })
})

describe('for how long it may answer stale', () => {
  const DAY_S = 86_400
  it.each<[string, Case, number, number]>([
    ['by default only when the origin fails, for a day', { response: cc('max-age=1') }, 0, DAY_S],
    [
      'as the route says',
      { route: { stale: { whileRevalidate: '5s', ifError: '1m' } }, response: cc('max-age=1') },
      5,
      60,
    ],
    [
      '[RFC 5861 §3, §4] as the origin says',
      { response: cc('max-age=1, stale-while-revalidate=7, stale-if-error=0') },
      7,
      0,
    ],
    ['[RFC 9111 §5.2.2.2] never with must-revalidate', { response: cc('max-age=1, must-revalidate') }, 0, 0],
    ['[RFC 9111 §5.2.2.8] never with proxy-revalidate', { response: cc('max-age=1, proxy-revalidate') }, 0, 0],
    ['[RFC 9111 §5.2.2.10] never with s-maxage', { response: cc('s-maxage=1, stale-if-error=9') }, 0, 0],
    ['[RFC 9111 §4.2.4] never with no-cache', { response: [...cc('no-cache, stale-if-error=9'), 'ETag', '"a"'] }, 0, 0],
  ])('%s', (_name, given, whileRevalidate, ifError) => {
    expect(decide(given)).toMatchObject({
      staleWhileRevalidateMs: whileRevalidate * 1000,
      staleIfErrorMs: ifError * 1000,
    })
  })
})

describe('whom a stored response may answer', () => {
  const refusal = (stored: Case, request: HeaderList, afterSeconds = 0, route = stored.route) => {
    const verdict = decide(stored)
    if (!verdict.store) throw new Error(`not stored: ${verdict.reason}`)
    const { originFreshMs, sharedDespiteAuthorization } = verdict
    const entry = { originFreshUntilMs: originFreshMs === 0 ? 0 : NOW_MS + originFreshMs, sharedDespiteAuthorization }
    return reuseRefusal(request, entry, policyOf(route), NOW_MS + afterSeconds * 1000)
  }
  const MAX_AGE = { response: cc('max-age=60') }
  const PUBLIC = { response: cc('public, max-age=60') }
  const TTL = { route: { ttl: '1h' } }
  const OVERRIDDEN = { route: { ttl: '1h', override: true }, response: cc('public, max-age=60') }
  const STALE_OVERRIDDEN = { route: { ttl: '1h', override: true }, response: cc('public, max-age=0') }

  it.each<[string, Case, HeaderList, number, string | null]>([
    ['anybody without credentials', TTL, [], 0, null],
    ['a Cookie, with explicit freshness', MAX_AGE, COOKIE, 0, null],
    ['a Cookie, with a ttl alone', TTL, COOKIE, 0, 'cookie'],
    ['a Cookie, with a heuristic alone', { response: ['Last-Modified', at(NOW_MS - HOUR_MS)] }, COOKIE, 0, 'cookie'],
    ['a Cookie, while the origin itself calls it fresh', OVERRIDDEN, COOKIE, 59, null],
    ['a Cookie, when only the route still calls it fresh', OVERRIDDEN, COOKIE, 60, 'cookie'],
    ['a Cookie, where only the route ever called it fresh', STALE_OVERRIDDEN, COOKIE, 0, 'cookie'],
    ['[RFC 9111 §3.5] Authorization, with explicit freshness', MAX_AGE, AUTHORIZATION, 0, 'authorization'],
    ['[RFC 9111 §3.5] Authorization, with public', PUBLIC, AUTHORIZATION, 0, null],
    [
      'Authorization, with public and a ttl alone',
      { ...TTL, response: cc('public') },
      AUTHORIZATION,
      0,
      'authorization',
    ],
    ['Authorization, when only the route still calls it fresh', OVERRIDDEN, AUTHORIZATION, 60, 'authorization'],
    ['an API key', TTL, ['x-api-key', 'k'], 0, 'authorization'],
    ['anybody, in a public route', { route: { ttl: '1h', scope: 'public' } }, [...COOKIE, ...AUTHORIZATION], 0, null],
  ])('%s', (_name, stored, request, afterSeconds, expected) => {
    expect(refusal(stored, request, afterSeconds)).toBe(expected)
  })

  it('gives nothing with credentials what was only meant for those without, though the clock was set back', () => {
    expect(refusal(TTL, COOKIE, -3600)).toBe('cookie')
    expect(refusal(STALE_OVERRIDDEN, COOKIE, -3600)).toBe('cookie')
  })
})

describe('requests', () => {
  it.each<[string, string, readonly string[], HeaderList, string | null]>([
    ['GET is looked up', 'GET', ['GET', 'HEAD'], [], null],
    ['HEAD is looked up', 'HEAD', ['GET', 'HEAD'], [], null],
    ['POST is not', 'POST', ['GET', 'HEAD'], [], 'method'],
    ['DELETE is not', 'DELETE', ['GET', 'HEAD'], [], 'method'],
    ['POST is, where the route says so', 'POST', ['POST'], ['If-Modified-Since', DATE, 'Range', 'bytes=0-1'], null],
    ['GET is not, where it does not', 'GET', ['POST'], [], 'method'],
    ['GET with a condition is', 'GET', ['GET', 'HEAD'], ['If-None-Match', '"a"'], null],
    ['[RFC 9110 §13.1.2] POST with a condition is not', 'POST', ['POST'], ['If-None-Match', '"a"'], 'precondition'],
    ['nor QUERY with one', 'QUERY', ['QUERY'], ['if-match', '*'], 'precondition'],
    ['nor with another', 'QUERY', ['QUERY'], ['If-Unmodified-Since', DATE], 'precondition'],
  ])('%s', (_name, method, methods, headers, expected) => {
    const policy = compilePolicy(routeCacheOptions.parse({}), { maxObjectBytes: 1024, methods: new Set(methods) })
    expect(lookupRefusal({ method, headers }, policy)).toBe(expected)
  })

  it.each<[string, string, HeaderList, boolean]>([
    ['a GET with Range asks for a part', 'GET', ['range', 'bytes=0-1'], true],
    ['[RFC 9110 §14.2] Range means nothing in HEAD', 'HEAD', ['Range', 'bytes=0-1'], false],
    ['any other GET asks for the whole', 'GET', ['If-Range', '"a"'], false],
  ])('%s', (_name, method, headers, expected) => {
    expect(asksForPart(method, headers)).toBe(expected)
  })

  it.each<[HeaderList, string | null]>([
    [[], null],
    [['Connection', 'keep-alive'], null],
    [['Connection', 'Close, TE'], null],
    [['Connection', 'close', 'Connection', 'Accept-Language'], 'connection'],
    [['connection', 'keep-alive, x-tenant'], 'connection'],
  ])('[RFC 9110 §7.6.1] %j may hide a field by which Vary selects', (headers, expected) => {
    expect(fillRefusal(headers)).toBe(expected)
  })

  it.each<[HeaderList, string | null]>([
    [[], null],
    [['Accept', '*/*', 'Cooki', 'a', 'Cookies', 'a'], null],
    [['cookie', ''], 'cookie'],
    [['COOKIE', 'a', 'AUTHORIZATION', 'b'], 'authorization'],
    [['Authorization', 'b', 'Cookie', 'a'], 'authorization'],
    ...[
      'Api-Key',
      'ApiKey',
      'X-API-Key',
      'X-ApiKey',
      'X-Auth-Token',
      'X-Access-Token',
      'X-Goog-Api-Key',
      'X-Amz-Security-Token',
    ].map((name): [HeaderList, string] => [[name, 'k'], 'authorization']),
  ])('%j carries the credential %s', (headers, expected) => {
    expect(credentialOf(headers)).toBe(expected)
  })

  it.each<[HeaderList, readonly string[] | null]>([
    [[], []],
    [['Vary', ''], []],
    [
      ['Vary', 'Accept-Language, accept-encoding'],
      ['accept-encoding', 'accept-language'],
    ],
    [
      ['Vary', 'B', 'vary', 'a, b,'],
      ['a', 'b'],
    ],
    [['Vary', 'a, *'], null],
    [['Vary', '*, *'], null],
    [['Vary', '', 'Vary', '*'], null],
    [['Vary', 'Forwarded'], null],
    [['Vary', 'X-Request-ID'], null],
    [['Vary', 'Via'], null],
    [
      ['Vary', 'Host, X-Forwarded-Host, X-Forwarded-Proto'],
      ['host', 'x-forwarded-host', 'x-forwarded-proto'],
    ],
  ])('[RFC 9110 §12.5.5] %j names %j', (headers, expected) => {
    expect(varyNames(headers)).toEqual(expected)
  })
})
