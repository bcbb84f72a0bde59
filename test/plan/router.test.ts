// The one rule of the router, the most specific route wins: as tables, against a matcher too slow and simple to be
// wrong, and with ten thousand routes.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { METHODS } from '../../src/http/methods.ts'
import { type RoutePattern, bySpecificity, compileRouter } from '../../src/plan/router.ts'

/** `GET,HEAD *.example.com/x/:id`; methods and host may be left out. */
function parse(text: string): RoutePattern {
  const [first = '', second] = text.split(' ')
  const where = second ?? first
  const slash = where.indexOf('/')
  return {
    methods: second === undefined ? null : first.split(','),
    host: slash === 0 ? null : where.slice(0, slash),
    path: where.slice(slash),
  }
}

const routerOf = (...texts: readonly string[]) =>
  compileRouter(texts.map((route) => Object.assign(parse(route), { route })))

/** The route's own text; `405 GET,HEAD`, `404` or `421` where there is none. */
function answer(routes: readonly string[], request: string): string {
  const router = routerOf(...routes)
  const { host, path, methods } = parse(request)
  const found = router.match(host ?? 'gateway.test', methods?.[0] ?? 'GET', path)
  if ('route' in found) return found.route
  if (!router.knowsHost(host ?? 'gateway.test')) return '421'
  return found.length === 0 ? '404' : `405 ${found.join(',')}`
}

describe('a path pattern', () => {
  it.each([
    ['/x', '/x', true],
    ['/x', '/x/', false],
    ['/x', '/x/y', false],
    ['/x', '/xy', false],
    ['/x', '/X', false],
    ['/x', '/', false],
    ['/x/', '/x/', true],
    ['/x/', '/x', false],
    ['/x/*', '/x', true],
    ['/x/*', '/x/', true],
    ['/x/*', '/x/y', true],
    ['/x/*', '/x/y/z/', true],
    ['/x/*', '/xy', false],
    ['/x/*', '/', false],
    ['/', '/', true],
    ['/', '/x', false],
    ['/*', '/', true],
    ['/*', '/x/y', true],
    ['/:a', '/x', true],
    ['/:a', '/', false],
    ['/:a', '/x/', false],
    ['/:a', '/x/y', false],
    ['/x/:a', '/x/', false],
    ['/x/:a', '/x/y', true],
    ['/x/:a/', '/x/y/', true],
    ['/x/:a/*', '/x/y', true],
    ['/x/:a/*', '/x/', false],
    ['/:a/:b', '/x/y', true],
    ['/a:b', '/a:b', true],
    ['/a:b', '/axb', false],
    ['/a%20b', '/a%20b', true],
    // A request may spell what looks like a pattern.
    ['/x/*', '/x/*', true],
    ['/x', '/*', false],
    ['/:a', '/:a', true],
    ['/__proto__', '/__proto__', true],
    ['/x', '/__proto__', false],
    ['/x', '/constructor/prototype', false],
  ])('%s and the path %s: %s', (pattern, path, matches) => {
    expect(answer([pattern], path)).toBe(matches ? pattern : '404')
  })
})

describe('of several routes that match, the most specific one wins', () => {
  it.each([
    // Static over :name over *, segment by segment from the left.
    [['/*', '/:a', '/x'], '/x', '/x'],
    [['/*', '/:a', '/x'], '/y', '/:a'],
    [['/*', '/:a', '/x'], '/y/z', '/*'],
    [['/:a/y', '/x/:b'], '/x/y', '/x/:b'],
    [['/:a/y', '/x/*'], '/x/y', '/x/*'],
    [['/:a/y/z', '/x/*'], '/x/y/z', '/x/*'],
    // Longer over shorter.
    [['/x/*', '/x/y/*'], '/x/y/z', '/x/y/*'],
    [['/x/*', '/x/y/*'], '/x/y', '/x/y/*'],
    [['/x/*', '/x/y/*'], '/x/z', '/x/*'],
    [['/x', '/x/*'], '/x', '/x'],
    [['/x', '/x/*'], '/x/', '/x/*'],
    [['/x/', '/x/*'], '/x/', '/x/'],
    [['/x/:a', '/x/*'], '/x/', '/x/*'],
    // A way that leads nowhere is left again.
    [['/x/y/z', '/:a/y/w'], '/x/y/w', '/:a/y/w'],
    [['/x/y/z', '/x/*'], '/x/y/w', '/x/*'],
    [['/x/:a/z', '/x/y/w', '/*'], '/x/y/z', '/x/:a/z'],
    [['/:a/:b/:c/end', '/:a/:b/*', '/*'], '/1/2/3/4', '/:a/:b/*'],
    // With methods over without; then the next less specific route that has the method.
    [['/x', 'GET /x'], 'GET /x', 'GET /x'],
    [['/x', 'GET /x'], 'POST /x', '/x'],
    [['GET /x', '/*'], 'POST /x', '/*'],
    [['GET /x', 'POST /:a', '/*'], 'POST /x', 'POST /:a'],
    [['GET /x', 'POST /x'], 'POST /x', 'POST /x'],
    [['/x', 'GET /*'], 'GET /x', '/x'],
    // Host before all else: exact over wildcard, the longer wildcard, none last.
    [['/x', 'a.test/*'], 'a.test/x', 'a.test/*'],
    [['*.test/x', 'a.test/*'], 'a.test/x', 'a.test/*'],
    [['*.test/x', '*.b.test/*'], 'a.b.test/x', '*.b.test/*'],
    [['*.test/x', '/x'], 'a.b.c.test/x', '*.test/x'],
    [['*.test/x', '/x'], 'test/x', '/x'],
    [['*.test/x', '/x'], 'atest/x', '/x'],
    [['*.test/x', '/x'], 'a.test.evil/x', '/x'],
    [['a.test/x', '/*'], 'a.test:8443/x', 'a.test/x'],
    [['a.test/x', '/*'], 'a.test/y', '/*'],
    [['GET a.test/x', '/x'], 'POST a.test/x', '/x'],
    [['*.b.test/x', '*.test/y'], 'a.b.test/y', '*.test/y'],
  ])('%j and %s: %s', (routes, request, expected) => {
    expect(answer(routes, request)).toBe(expected)
    expect(answer(routes.toReversed(), request)).toBe(expected)
  })
})

describe('what stands behind a semicolon', () => {
  it.each([
    ['/x;a=1', '/x/*'],
    ['/x;a=1/z', '/x/*'],
    ['/x%3Ba=1/z', '/x/*'],
    ['/;a/x/y', '/x/y'],
    ['/x/y;a', '/x/y'],
    ['/x/y;a/', '/x/*'],
    ['/xy;a', '/*'],
    ['/z;b/y', '/z;b/*'],
    ['/z;c/y', '/*'],
    ['/z;B/y', '/*'],
  ])('is no way past a route: %s is for %s', (path, expected) => {
    expect(answer(['/x/*', '/x/y', '/z;b/*', '/*'], path)).toBe(expected)
  })
})

describe('a request that no route takes', () => {
  it.each([
    [['/x'], '/y', '404'],
    [['GET,HEAD /x'], 'POST /x', '405 GET,HEAD'],
    [['GET /x', 'PUT /x'], 'POST /x', '405 GET,PUT'],
    // All methods that the path has, wherever they come from.
    [['GET /x', 'PUT /:a', 'DELETE /*'], 'POST /x', '405 GET,PUT,DELETE'],
    [['GET a.test/x', 'PUT /x'], 'POST a.test/x', '405 GET,PUT'],
    [['GET /x'], 'POST /y', '404'],
    // Misdirected only where every route names a host.
    [['a.test/x'], 'b.test/x', '421'],
    [['a.test/x', '*.c.test/x'], 'c.test/x', '421'],
    [['a.test/x'], 'a.test/y', '404'],
    [['a.test/x', '/y'], 'b.test/x', '404'],
  ])('%j and %s: %s', (routes, request, expected) => {
    expect(answer(routes, request)).toBe(expected)
  })
})

describe('the listed order', () => {
  it('has the route that answers before all others that match', () => {
    const listed = [
      'GET a.test/x',
      'a.test/x',
      'a.test/*',
      '*.a.test/x',
      '*.test/x',
      'GET /x/y/z',
      '/x/y/z',
      '/x/y/:a',
      '/x/y',
      '/x/y/*',
      '/x/:a/z',
      '/x/:a',
      '/x',
      '/x/*',
      '/:a/y',
      '/*',
    ]
    const order = (texts: readonly string[]) =>
      bySpecificity(texts.map((text) => ({ ...parse(text), text }))).map(({ text }) => text)
    expect(order(listed)).toEqual(listed)
    expect(order(listed.toReversed())).toEqual(listed)
  })
})

describe('parameters', () => {
  it.each([
    ['/x/:id', '/x/7', { id: '7' }],
    ['/:a/:b', '/1/2', { a: '1', b: '2' }],
    ['/:a/*', '/1/2/3', { a: '1' }],
    ['/x/:id', '/x/%E2%82%AC%20', { id: '%E2%82%AC%20' }],
    ['/x/:id', "/x/a,d!$&'()*+@:=", { id: "a,d!$&'()*+@:=" }],
    ['/x/:id', '/x/a;b=c', { id: 'a' }],
    ['/x;b/:id', '/x;b/a', { id: 'a' }],
    ['/x/:id', '/x/...', { id: '...' }],
    ['/x/:__proto__', '/x/constructor', { ['__proto__']: 'constructor' }],
  ])('%s takes from %s what stands there, escapes and all', (pattern, path, expected) => {
    const found = routerOf(pattern).match('', 'GET', path)
    expect('route' in found && new Map(found.params)).toEqual(new Map(Object.entries(expected)))
  })

  it('are null for a pattern without any', () => {
    expect(routerOf('/x/*').match('', 'GET', '/x/7')).toEqual({ route: '/x/*', params: null })
  })

  it('keep no value of a way that led nowhere', () => {
    const found = routerOf('/x/:b/y', '/:a/*').match('', 'GET', '/x/1/z')
    expect('route' in found && [...(found.params ?? [])]).toEqual([['a', 'x']])
  })
})

// ---- a matcher that is obviously right ----

/** As a regular expression; every pattern on its own. */
function matchesPath(pattern: string, path: string): boolean {
  if (pattern.endsWith('/*')) {
    const base = pattern.slice(0, -2)
    return matchesPath(base === '' ? '/' : base, path) || new RegExp(`^${source(base)}/`).test(path)
  }
  return new RegExp(`^${source(pattern)}$`).test(path)
}
const source = (pattern: string): string =>
  pattern.replaceAll(/:[a-z]+|[.]/g, (part) => (part === '.' ? '[.]' : '[^/]+'))

function matchesHost(pattern: string | null, host: string): boolean {
  if (pattern === null || pattern === host) return true
  return pattern.startsWith('*.') && host.endsWith(pattern.slice(1)) && host.length > pattern.length - 1
}

/** A text that sorts before another's where the pattern is more specific. */
function specificity({ host, path, methods }: RoutePattern): string {
  const hostRank = host === null ? '9' : host.startsWith('*.') ? `5${String(999 - host.length)}` : '1'
  const segments = path.split('/').slice(1)
  const pathRank = segments.map((segment) => (segment === '*' ? '9' : segment.startsWith(':') ? '5' : '1')).join('')
  return `${hostRank}|${pathRank.padEnd(20, '7')}|${methods === null ? 2 : 1}`
}

function slowMatch(routes: readonly RoutePattern[], host: string, method: string, path: string): RoutePattern | null {
  return (
    routes
      .filter(
        (route) =>
          matchesHost(route.host, host) &&
          matchesPath(route.path, path) &&
          (route.methods === null || route.methods.includes(method)),
      )
      .toSorted((a, b) => (specificity(a) < specificity(b) ? -1 : 1))[0] ?? null
  )
}

const segment = fc.constantFrom('a', 'b')
const host = fc.constantFrom(null, 'a.test', 'b.test', '*.test', '*.a.test')
const patternPath = fc
  .tuple(fc.array(fc.constantFrom('a', 'b', ':p', ':q'), { maxLength: 3 }), fc.constantFrom('', '/', '/*'))
  .map(([segments, end]) => {
    // Parameter names are unique in a pattern.
    const named = segments.map((part, i) => (part.startsWith(':') ? `:${'pqrs'[i]}` : part))
    const whole = named.map((part) => `/${part}`).join('') + end
    return whole === '' ? '/' : whole
  })
const methods = fc.option(fc.uniqueArray(fc.constantFrom('GET', 'POST', 'PUT'), { minLength: 1 }), { nil: null })
const pattern: fc.Arbitrary<RoutePattern> = fc.record({ host, path: patternPath, methods })

/** As the configuration does: of routes that tie, the first stays. */
function withoutTies(routes: readonly RoutePattern[]): RoutePattern[] {
  const taken = new Set<string>()
  return routes.filter((route) => {
    const shape = `${route.host} ${route.path.replaceAll(/:[a-z]/g, ':')}`
    const claims = (route.methods ?? ['*']).map((method) => `${method} ${shape}`)
    if (claims.some((claim) => taken.has(claim))) return false
    for (const claim of claims) taken.add(claim)
    return true
  })
}

const requestPath = fc
  .tuple(fc.array(segment, { maxLength: 4 }), fc.boolean())
  .map(([segments, slash]) => `/${segments.join('/')}${slash && segments.length > 0 ? '/' : ''}`)
const requestHost = fc.constantFrom('a.test', 'b.test', 'c.a.test', 'd.c.a.test', 'test', 'other')

describe('the compiled router', () => {
  it('agrees with a matcher that looks at every route', () => {
    fc.assert(
      fc.property(
        fc.array(pattern, { maxLength: 25 }).map(withoutTies),
        requestHost,
        fc.constantFrom('GET', 'POST', 'PUT', 'DELETE'),
        requestPath,
        (routes, asked, method, path) => {
          const router = compileRouter(routes.map((route) => ({ ...route, route })))
          const found = router.match(asked, method, path)
          const expected = slowMatch(routes, asked, method, path)
          expect('route' in found ? found.route : null).toBe(expected)
          const others = METHODS.filter((other) => slowMatch(routes, asked, other, path) !== null)
          expect('route' in found ? [] : found.toSorted()).toEqual(expected === null ? others.toSorted() : [])
          expect(router.knowsHost(asked)).toBe(routes.some((route) => matchesHost(route.host, asked)))
        },
      ),
      { numRuns: 2000 },
    )
  })

  it('finds each of 10,000 routes, and the same ones whatever their order', () => {
    const texts = Array.from({ length: 10_000 }, (_, i) => {
      const service = Math.floor(i / 4)
      return [
        `/api/service${service}/items`,
        `/api/service${service}/*`,
        `/api/service${service}/items/:id`,
        `GET service${service}.test/*`,
      ][i % 4] as string
    })
    for (const order of [texts, texts.toReversed()]) {
      const router = routerOf(...order)
      for (let service = 0; service < 2500; service++) {
        const path = `/api/service${service}`
        const match = (at: string, below: string) => {
          const found = router.match(at, 'GET', below)
          return 'route' in found ? found.route : null
        }
        expect(match('gateway.test', `${path}/items`)).toBe(`${path}/items`)
        expect(match('gateway.test', `${path}/items/7`)).toBe(`${path}/items/:id`)
        expect(match('gateway.test', `${path}/other/7`)).toBe(`${path}/*`)
        expect(match(`service${service}.test`, `${path}/items`)).toBe(`GET service${service}.test/*`)
      }
      expect(router.match('gateway.test', 'GET', '/api/service2500/items')).toEqual([])
    }
  })
})
