import { describe, expect, it } from 'vitest'
import { formatPath } from '../../src/config/path.ts'
import { checkReferences } from '../../src/config/references.ts'
import { METHODS } from '../../src/http/methods.ts'

const UPSTREAMS = { app: {}, ai: {} }
const table = (...routes: unknown[]) => ({ upstreams: UPSTREAMS, defaults: { upstream: 'app' }, routes })

/** `path: complaint` of each finding. */
const complaints = (raw: unknown): string[] =>
  checkReferences(raw).map(({ path, expected, got }) => `${formatPath(path)}: ${got ?? expected ?? ''}`)

describe('names', () => {
  it('finds a route without upstream where there is no default', () => {
    expect(complaints({ upstreams: UPSTREAMS, routes: [{ path: '/a' }, { path: '/b', upstream: 'ai' }] })).toEqual([
      'routes[0].upstream: the name of an upstream',
    ])
  })

  it.each([
    ['the default', { upstream: 'app' }],
    ['a default that could not be made out', { upstream: undefined }],
    ['defaults of the wrong shape, which the schema tells', 'app'],
  ])('is content with %s', (_what, defaults) => {
    expect(complaints({ upstreams: UPSTREAMS, defaults, routes: [{ path: '/a' }] })).toEqual([])
  })

  it('suggests the nearest name', () => {
    const raw = { ...table({ path: '/a', limits: ['per-clint'] }), limits: { 'per-client': { window: '1m' } } }
    expect(checkReferences(raw)).toMatchObject([
      { path: ['routes', 0, 'limits', 0], cure: 'did you mean "per-client"?' },
    ])
  })

  it('finds a limit where no limits are defined', () => {
    expect(complaints(table({ path: '/a', limits: ['x'] }))).toEqual(['routes[0].limits[0]: the name of a limit'])
  })

  it('does not take a name of every object for a defined one', () => {
    expect(complaints(table({ path: '/a', upstream: 'constructor' }))).toEqual([
      'routes[0].upstream: the name of an upstream',
    ])
  })

  it('passes over names where what they name is broken', () => {
    expect(complaints({ upstreams: [], limits: 5, routes: [{ path: '/a', upstream: 'x', limits: ['y'] }] })).toEqual([])
  })
})

describe('routes that meet', () => {
  const tie = 'routes[1].path: ties with routes[0]'
  const never = 'never matches: routes of the same path that list methods take every one'

  it.each([
    ['the same path', [{ path: '/a' }, { path: '/a' }], [tie]],
    ['the same path but for the names of parameters', [{ path: '/:x/b' }, { path: '/:y/b' }], [tie]],
    [
      'lists that overlap',
      [
        { path: '/a', methods: ['GET', 'HEAD'] },
        { path: '/a', methods: ['head'] },
      ],
      [tie],
    ],
    [
      'the same host',
      [
        { path: '/a', host: 'x.example' },
        { path: '/a', host: 'x.example' },
      ],
      [tie],
    ],
    [
      'lists apart',
      [
        { path: '/a', methods: ['GET'] },
        { path: '/a', methods: ['POST'] },
      ],
      [],
    ],
    ['a list and none', [{ path: '/a', methods: ['GET'] }, { path: '/a' }], []],
    ['other hosts', [{ path: '/a', host: 'x.example' }, { path: '/a' }], []],
    ['a parameter and a text', [{ path: '/:x' }, { path: '/x' }], []],
    ['a path and all below it', [{ path: '/a' }, { path: '/a/*' }], []],
    ['one list that names a method twice', [{ path: '/a', methods: ['GET', 'GET'] }], []],
    [
      'broken methods',
      [
        { path: '/a', methods: [1] },
        { path: '/a', methods: [1] },
      ],
      [],
    ],
  ])('%s', (_what, routes, expected) => {
    expect(complaints(table(...routes))).toEqual(expected)
  })

  it('finds a route whose every method is taken by lists', () => {
    const first = { path: '/a', methods: ['GET', 'HEAD', 'OPTIONS', 'POST'] }
    const second = { path: '/a', methods: METHODS.filter((method) => !first.methods.includes(method)) }
    expect(complaints(table(first, { path: '/a' }, second))).toEqual([`routes[1].path: ${never}`])
    expect(complaints(table(first, { path: '/a' }, { ...second, host: 'x.example' }))).toEqual([])
  })

  it('names each of three that tie, and the first as the rival', () => {
    expect(complaints(table({ path: '/a' }, { path: '/a' }, { path: '/a' }))).toEqual([
      tie,
      'routes[2].path: ties with routes[0]',
    ])
  })

  it('takes time in proportion to the number of routes', () => {
    const routes = Array.from({ length: 20_000 }, (_, i) => ({
      path: `/${i % 2 === 0 ? 'same' : i}`,
      methods: ['GET'],
    }))
    expect(complaints(table(...routes))).toHaveLength(9_999)
  })
})

describe('the health path', () => {
  const never = 'routes[0].path: never matches: the gateway answers its health path itself'

  it.each([
    ['the default path', undefined, { path: '/health' }, [never]],
    ['a path of its own', '/up', { path: '/up' }, [never]],
    ['any host', undefined, { path: '/health', host: 'x.example' }, [never]],
    ['another path than the configured one', '/up', { path: '/health' }, []],
    ['health switched off', false, { path: '/health' }, []],
    ['more than the path itself', undefined, { path: '/health/*' }, []],
  ])('%s', (_what, health, route, expected) => {
    expect(complaints({ ...table(route), ...(health === undefined ? {} : { health }) })).toEqual(expected)
  })
})

describe('the admin port', () => {
  const exposed = ['admin.listen: a loopback address where no token is set']

  it.each([
    [{ listen: '0.0.0.0:9090' }, exposed],
    [{ listen: '[::]:9090', token: '' }, exposed],
    [{ listen: '192.0.2.1:9090' }, exposed],
    [{ listen: '127.evil.example:9090' }, exposed],
    [{ listen: '0.0.0.0:9090', token: 'secret' }, []],
    [{ listen: '0.0.0.0:9090', token: undefined }, []],
    [{ listen: '127.0.0.1:9090' }, []],
    [{ listen: '127.1.2.3:0' }, []],
    [{ listen: '[::1]:9090' }, []],
    [{ listen: 'localhost:9090' }, []],
    [{ listen: 9090 }, []],
    [{}, []],
  ])('%j', (admin, expected) => {
    expect(complaints({ ...table({ path: '/a' }), admin })).toEqual(expected)
  })
})

describe('onLimited: stale', () => {
  const LIMITS = { limits: ['one'] }
  it.each([
    [{ cache: {}, ...LIMITS }, undefined, []],
    [{ cache: {} }, ['one'], []],
    [{ ...LIMITS }, undefined, ['routes[0].onLimited: has no effect: this route has no cache']],
    [{ cache: {} }, undefined, ['routes[0].onLimited: has no effect: this route has no limits']],
    [{ cache: {} }, [], ['routes[0].onLimited: has no effect: this route has no limits']],
    [{ cache: {}, limits: [] }, ['one'], ['routes[0].onLimited: has no effect: this route has no limits']],
  ])('on %j with the defaults %j', (route, limits, expected) => {
    const raw = {
      ...table({ path: '/a', onLimited: 'Stale', ...route }),
      limits: { one: { window: '1m' } },
      defaults: { upstream: 'app', limits },
    }
    expect(complaints(raw)).toEqual(expected)
  })
})

describe('framing', () => {
  it.each([
    ['lenient', ['http://a:1', { url: 'http://b:1' }], 0],
    ['strict', ['https://a'], 0],
    [undefined, ['https://a'], 0],
    ['lenient', ['http://a:1', 'https://b'], 1],
    ['Lenient', [{ url: 'HTTPS://b' }], 1],
    ['lenient', 'https://b', 0],
  ])('[RFC 9112 §9.8] %s towards %j', (framing, targets, faults) => {
    const raw = { ...table({ path: '/a' }), upstreams: { app: { targets, framing } } }
    expect(complaints(raw)).toEqual(
      Array.from({ length: faults }, () => 'upstreams.app.framing: strict where a target is https'),
    )
  })
})

describe('rewrite.strip', () => {
  it.each([
    ['/api/*', '/api', true],
    ['/api/v1/*', '/api', true],
    ['/api/v1/x', '/api/v1/x', true],
    ['/t/:tenant/*', '/t', true],
    ['/api/*', '/ap', false],
    ['/api/*', '/api/', true],
    ['/api/*', '/api/v1', false],
    ['/api/*', '/other', false],
    ['/t/:tenant/*', '/t/:tenant', false],
    ['/*', '/api', false],
    ['/*', '/', true],
  ])('of %s takes off %s: %s', (path, strip, isRight) => {
    expect(complaints(table({ path, rewrite: { strip } }))).toHaveLength(isRight ? 0 : 1)
  })
})

describe('the cache of a route', () => {
  it.each([
    [undefined, true],
    [['GET'], true],
    [['post', 'head'], true],
    [['query', 'post'], true],
    [['POST'], false],
    [['put', 'delete'], false],
    [[], true],
    [['PSOT'], true],
  ])('with the methods %j is supported: %s', (methods, isSupported) => {
    const route = { path: '/a', cache: {}, ...(methods === undefined ? {} : { methods }) }
    expect(complaints(table(route))).toHaveLength(isSupported ? 0 : 1)
  })

  it.each<[string, Record<string, unknown>, number]>([
    ['public POST', { methods: ['POST'], cache: { scope: 'public', key: { body: ['prompt'] } } }, 0],
    ['POST of users', { methods: ['post', 'PUT'], cache: { scope: 'User', key: { body: 'raw' } } }, 0],
    ['POST of nobody', { methods: ['POST'], cache: { key: { body: 'raw' } } }, 1],
    ['POST beside GET', { cache: { methods: ['get', 'POST'], scope: 'public', key: { body: 'raw' } } }, 0],
    ['QUERY', { methods: ['QUERY'], cache: { key: { body: 'canonical' } } }, 0],
    ['a body for GET', { cache: { key: { body: 'canonical' } } }, 1],
    [
      'what purges and changes',
      { methods: ['POST', 'PUT'], purges: ['a'], cache: { scope: 'public', key: { body: 'raw' } } },
      0,
    ],
    [
      'what purges and changes nothing',
      { methods: ['POST'], purges: ['a'], cache: { scope: 'public', key: { body: 'raw' } } },
      1,
    ],
    ['a list of anything', { cache: { methods: [1, 'x'], key: 1 } }, 0],
  ])('with %s', (_name, route, faults) => {
    expect(complaints(table({ path: '/a', ...route }))).toHaveLength(faults)
  })

  it.each([
    [{ min: '2m', max: '1m' }, 1],
    [{ min: '1m', max: '60s' }, 0],
    [{ min: '2m' }, 0],
    [{ min: 5, max: '1s' }, 0],
  ])('with the clamp %j has %i faults', (clamp, faults) => {
    expect(complaints(table({ path: '/a', cache: { clamp } }))).toHaveLength(faults)
  })
})

describe('the key of a cache', () => {
  it.each<[Record<string, unknown>, readonly string[]]>([
    [{ key: { query: { only: ['a'] } } }, []],
    [{ key: { query: { ignore: [] } } }, []],
    [
      { key: { query: { only: ['a'], ignore: ['b'] } } },
      ['key.query: both `only` and `ignore`; `only` leaves out all others; remove one'],
    ],
    [{ key: { query: {} } }, ['key.query: neither `only` nor `ignore`; list parameters in one of them']],
    [
      { key: { cookies: ['lang'] } },
      [
        'key.cookies: has no effect: a request with cookies shares nothing; add `scope: public` where all who have the same of these may share, or `scope: user`',
      ],
    ],
    [{ key: { cookies: ['lang'] }, scope: 'Public' }, []],
    [{ key: { cookies: ['lang'] }, scope: 'user' }, []],
    [{ key: { cookies: [] } }, []],
  ])('%j', (cache, expected) => {
    const told = checkReferences(table({ path: '/a', cache })).map(
      ({ path, got, cure }) => `${formatPath(path).replace('routes[0].cache.', '')}: ${got}; ${cure}`,
    )
    expect(told).toEqual(expected)
  })
})

describe('the tags of a route', () => {
  it.each<[Record<string, unknown>, readonly string[]]>([
    [{ path: '/a/:id', cache: { tags: ['a', 'a-:id', 'a:1'] } }, []],
    [{ path: '/a/:id', methods: ['GET', 'PUT'], purges: ['a-:id'] }, []],
    [{ path: '/a', purges: ['a'] }, []],
    [
      { path: '/a/:id/:page', cache: { tags: ['a', 'a-:key'] } },
      ['routes[0].cache.tags[1]: parameters of the path, got :key; the path has :id, :page'],
    ],
    [
      { path: '/a', purges: ['a-:id'] },
      ['routes[0].purges[0]: parameters of the path, got :id; the path has no parameters'],
    ],
    [
      { path: '/a', methods: ['get', 'OPTIONS'], purges: ['a'] },
      ['routes[0].purges: has no effect: the methods of this route change nothing; move it to the route that writes'],
    ],
  ])('%j', (route, expected) => {
    const told = checkReferences(table(route)).map(
      ({ path, expected: wanted, got, cure }) =>
        `${formatPath(path)}: ${[wanted, got].filter((part) => part !== null).join(', got ')}; ${cure}`,
    )
    expect(told).toEqual(expected)
  })
})

describe('a document of any shape', () => {
  it.each([
    [null],
    ['text'],
    [[]],
    [{ routes: {} }],
    [{ routes: [null, 1, [], { path: [] }, { path: '/a', limits: 'x', methods: {}, rewrite: [], cache: null }] }],
    [{ upstreams: null, defaults: { limits: { a: 1 } }, admin: [], limits: [] }],
  ])('%j is passed over without complaint of what the schema tells', (raw) => {
    const told = complaints(raw).filter((line) => !line.endsWith('.upstream: the name of an upstream'))
    expect(told).toEqual([])
  })
})

describe('identity', () => {
  const known = (...user: unknown[]) => ({ ...table({ path: '/a', auth: 'required' }), identity: { user } })

  it.each<[string, unknown, string[]]>([
    ['keys and a secret', { jwt: { jwks: 'x', secret: 'y' } }, ['identity.user[0].jwt: both']],
    ['no source', {}, ['identity.user[0]: neither']],
    ['two sources in one', { jwt: { secret: 'x' }, header: 'x' }, ['identity.user[0]: both']],
    ['neither', { jwt: {} }, ['identity.user[0].jwt: neither']],
    [
      'a secret for public keys',
      { jwt: { jwks: 'x', algorithms: ['RS256', 'hs256'] } },
      ['identity.user[0].jwt.algorithms[1]: hs256 does not go with jwks'],
    ],
    [
      'a public key for a secret',
      { jwt: { secret: 'x', algorithms: ['ES256'] } },
      ['identity.user[0].jwt.algorithms[0]: ES256 does not go with secret'],
    ],
    [
      'a proxy that nobody trusts',
      { header: 'x-user', trusted: true },
      ['identity.user[0].trusted: believes nobody: there are no trusted proxies'],
    ],
    ['what is good', { jwt: { secret: 'x', algorithms: ['HS256'] } }, []],
  ])('finds %s', (_what, source, expected) => {
    expect(complaints(known(source))).toEqual(expected)
  })

  it('finds a route for users where nobody is known', () => {
    expect(complaints(table({ path: '/a', auth: 'required' }))).toEqual([
      'routes[0].auth: lets nobody in without identity',
    ])
  })
})

describe('what instances share', () => {
  it.each([
    ['shared', undefined, ['routes[0].cache.collapse: true or false where no Redis is shared']],
    ['shared', { url: '' }, ['routes[0].cache.collapse: true or false where no Redis is shared']],
    ['shared', { url: 'redis://127.0.0.1' }, []],
    [true, undefined, []],
  ])('collapse: %s with redis %j', (collapse, redis, expected) => {
    expect(complaints({ ...table({ path: '/a', cache: { collapse } }), redis })).toEqual(expected)
  })
})
