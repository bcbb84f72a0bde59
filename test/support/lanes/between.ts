// What stands between a client and what is stored: who it is, its limits, the route, the proxies in front. Requests of one
// row come one after the other on one connection.

import { SignJWT } from 'jose'
import { MOMENT, act, move } from './pair.ts'
import { type Row, ask, bare, from, get, head, inTurn, post } from './rows.ts'
import { ALLOWED, ANN, BOB, DENIED, LIMITED, PROXY, SMALL } from './table.ts'
import { JWT_SECRET } from './threads.ts'

// oxfmt-ignore
const CREDENTIALS: readonly (readonly string[])[] = [
  [], ['Authorization: Bearer x'], ['Authorization: Basic YTpi'], ['Authorization:'], ['authorization: x'],
  ['Cookie: a=1'], ['Cookie:'], ['Cookie: a=1', 'Cookie: b=2'], ['cookie: a=1; b=2'], [`X-Api-Key: ${ANN}`],
  [`X-Api-Key: ${BOB}`], ['X-Api-Key: nobody'], ['X-Api-Key:'], ['X-Auth-Token: x'], ['Api-Key: x'], ['X-User: ann'],
  ['Proxy-Authorization: x'], ['X-Jwt: x'], ['X-Jwt: Bearer a.b.c'], [`X-Api-Key: ${ANN}`, `X-Api-Key: ${BOB}`],
  [`X-Api-Key: ${ANN}`, 'Cookie: a=1'], [`x-api-key:${ANN}`],
]

async function users(): Promise<readonly Row[]> {
  const token = (sub: string, expires = MOMENT / 1000 + 86_400) =>
    new SignJWT({ sub }).setProtectedHeader({ alg: 'HS256' }).setExpirationTime(expires).sign(Buffer.from(JWT_SECRET))
  const jwts = [await token('ann'), await token('carl'), await token('carl', MOMENT / 1000 - 3600)].map((text) => [
    `X-Jwt: Bearer ${text}`,
  ])
  const all = [...CREDENTIALS, ...jwts]
  const routes = ['', '/public', '/user', '/authed', '/authed-public', '/cookies', '/edited']
  return [
    ...routes.flatMap((route) =>
      ['/plain', '/said-public', '/unsaid', '/s-maxage', '/must', '/vary-cookie'].map((path) =>
        inTurn(
          `who asks for ${route}${path}`,
          all.flatMap((fields) => [get(route + path, ...fields), get(route + path, ...fields)]),
        ),
      ),
    ),
    inTurn(
      'limits of users',
      all.flatMap((fields) => [
        get('/by-user/plain', ...fields),
        get('/by-user-only/plain', ...fields),
        get('/authed-limited/plain', ...fields),
        get('/by-user/plain', ...fields),
      ]),
    ),
    ...[PROXY, ALLOWED, DENIED].map((address) =>
      from(
        address,
        inTurn(
          `from ${address}`,
          all.flatMap((fields) => [
            get('/user/plain', ...fields),
            get('/listed/plain', ...fields),
            get('/authed/plain', ...fields),
            get('/listed-watched/plain', ...fields),
          ]),
        ),
      ),
    ),
    inTurn(
      'from anywhere',
      all.flatMap((fields) => [get('/listed/plain', ...fields), get('/listed-watched/plain', ...fields)]),
    ),
  ]
}

// ---- limits ----

const LIMITS = [
  ...LIMITED.map((name) =>
    inTurn(`limit ${name}`, [
      ...['a', 'a', 'a', 'a', 'a', 'a'].map((client) => get(`/${name}/plain`, `X-Client: ${client}`)),
      ...Array.from({ length: 3 }, () => get(`/${name}/plain`, 'X-Client: b', 'If-None-Match: *')),
      head(`/${name}/plain`, 'X-Client: b'),
      head(`/${name}/plain`, 'X-Client: b'),
      get(`/${name}/missing`, 'X-Client: c'),
      get(`/${name}/missing`, 'X-Client: c'),
      get(`/${name}/missing`, 'X-Client: c'),
      get(`/${name}/costs`, 'X-Client: d'),
      get(`/${name}/costs`, 'X-Client: d'),
      get(`/${name}/used`, 'X-Client: e'),
      get(`/${name}/used`, 'X-Client: e'),
      get(`/${name}/no-store`, 'X-Client: f'),
      get(`/${name}/no-store`, 'X-Client: f'),
      get(`/${name}/no-store`, 'X-Client: f'),
      get(`/${name}/odder`, 'X-Client: g'),
      get(`/${name}/odder`, 'X-Client: g'),
      get(`/${name}/plain`, 'X-Client: h', 'Range: bytes=0-1'),
      get(`/${name}/plain`, 'X-Client: h', 'Range: bytes=900-'),
      get(`/${name}/plain`),
      get(`/${name}/plain`),
      get(`/${name}/plain`),
      get(`/${name}/plain`, 'X-Client:'),
      get(`/${name}/plain`, 'X-Client: a', 'X-Client: b'),
      get(`/${name}/plain`, 'x-client: a'),
      get(`/${name}/plain`, 'X-Client: gr\xfc\xdfe'),
      get(`/${name}/plain`, 'Cookie: sid=1', 'X-Client: i'),
      get(`/${name}/plain`, 'Cookie: sid=1; a=b', 'X-Client: i'),
      get(`/${name}/plain`, 'Cookie: sid=2', 'X-Client: i'),
      post(`/${name}/plain`, 'x', 'X-Client: j'),
      post(`/${name}/plain`, 'x', 'X-Client: j'),
      get(`/${name}/plain`, 'X-Client: j'),
      get(`/${name}/plain`, 'X-Client: j'),
      move(30),
      get(`/${name}/plain`, 'X-Client: a'),
      get(`/${name}/plain`, 'X-Client: a'),
      move(1000),
      get(`/${name}/plain`, 'X-Client: a'),
      move(3000),
      ...Array.from({ length: 5 }, () => get(`/${name}/plain`, 'X-Client: a')),
    ]),
  ),
  ...['both', 'mixed', 'only-watched', 'instead', 'instead-misses', 'limited-uncached'].map((route) =>
    inTurn(`limits of ${route}`, [
      ...Array.from({ length: 7 }, () => get(`/${route}/plain`, 'X-Client: a')),
      head(`/${route}/plain`, 'X-Client: a'),
      get(`/${route}/etag`, 'X-Client: a', 'If-None-Match: "one"'),
      get(`/${route}/etag`, 'X-Client: b', 'If-None-Match: "one"'),
      get(`/${route}/etag`, 'X-Client: a', 'If-None-Match: "one"'),
      get(`/${route}/etag`, 'X-Client: a', 'Range: bytes=0-1'),
      get(`/${route}/absent`, 'X-Client: a'),
      get(`/${route}/json`, 'X-Client: a', 'Accept-Encoding: br'),
      move(15),
      ...Array.from({ length: 6 }, () => get(`/${route}/ten`, 'X-Client: c')),
      move(12),
      get(`/${route}/ten`, 'X-Client: c'),
      get(`/${route}/ten`, 'X-Client: d'),
      move(700),
      get(`/${route}/ten`, 'X-Client: c'),
      move(3600),
      get(`/${route}/ten`, 'X-Client: c'),
      get(`/${route}/ten`, 'X-Client: c'),
    ]),
  ),
  inTurn(
    'what a limit counts, route by route',
    ['/few', '/each', '/each', '/few', '/both', '/each'].flatMap((route) => [
      get(`${route}/plain`, 'X-Client: shared'),
      head(`${route}/plain`, 'X-Client: shared'),
    ]),
  ),
  inTurn('an operator gives back', [
    ...Array.from({ length: 5 }, () => get('/few/plain', 'X-Client: refunded')),
    act(({ gateway }) => gateway.resetLimit('few', { 'header:x-client': 'refunded' })),
    get('/few/plain', 'X-Client: refunded'),
  ]),
]

// ---- where a request goes, and what becomes of it ----

const ROUTED = [
  inTurn(
    'parameters',
    [
      '/things/1',
      '/things/2',
      '/things/1',
      '/things/%31',
      '/things/1',
      '/things/1',
      '/things/2?x',
      '/things/1/parts/2',
      '/things/1/parts/2',
      '/things/1/parts/3',
      '/things/a%20b',
      '/things/a%20b',
      '/things/1/',
    ].map((path) => get(path)),
  ),
  inTurn(
    'hosts',
    [
      'gateway.test',
      'api.gateway.test',
      'API.GATEWAY.TEST',
      'other.test',
      'gateway.test:80',
      'gateway.test:8080',
    ].flatMap((name) => Array.from({ length: 2 }, () => bare('GET /plain HTTP/1.1', `Host: ${name}`))),
  ),
  inTurn(
    'methods that a route has not',
    ['/only_get/plain', '/no_get/plain', '/tagged/x', '/exact', '/asked', '/gets/plain'].flatMap((path) => [
      get(path),
      head(path),
      ask('DELETE', path),
      ask('OPTIONS', path),
      ask('PUT', path),
      get(path),
      head(path),
    ]),
  ),
  inTurn('health', [
    get('/health'),
    head('/health'),
    ask('POST', '/health'),
    ask('OPTIONS', '/health'),
    get('/health?x'),
    get('/health/'),
    get('/health', 'If-None-Match: *'),
    get('/health', 'Range: bytes=0-1'),
    get('/health', 'Accept-Encoding: br'),
    get('/health', 'Cache-Control: only-if-cached'),
    get('/health', 'Authorization: x'),
  ]),
  inTurn(
    'nothing is cached',
    ['/uncached/plain', '/uncached/etag', '/uncached/broken', '/uncached/huge', '/uncached/nothing'].flatMap((path) => [
      get(path),
      head(path),
      get(path, 'If-None-Match: "one"'),
    ]),
  ),
  ...[
    'plainly',
    'cookies',
    'per-status',
    'override',
    'clamped',
    'alone',
    'small',
    'edited',
    'heads',
    'gets',
    'stale',
    'unstale',
  ].map((route) =>
    inTurn(
      `route ${route}`,
      [...SMALL.slice(0, 24), '/cookie', '/no-cache', '/ten', '/aged', '/expires', '/odd', '/odder', '/hop'].flatMap(
        (path) => [get(`/${route}${path}`), get(`/${route}${path}`), head(`/${route}${path}`)],
      ),
    ),
  ),
  inTurn(
    'parameters that count',
    ['?a=1', '?a=1&z=2', '?z=3&a=1', '?utm_x=1&a=1', '?a=2', '?b1=1&a=1', '?a=1&b1=1', '?', '', '?a', '?a='].flatMap(
      (query) =>
        ['/only', '/ignore'].flatMap((route) => [get(`${route}/unsaid${query}`), get(`${route}/unsaid${query}`)]),
    ),
  ),
  inTurn(
    'fields that count',
    ['a', 'b', 'a', '', 'A', 'a, b'].flatMap((value) => [
      get('/by-fields/plain', `X-Tenant: ${value}`),
      get('/by-fields/plain', `X-Tenant: ${value}`, 'Accept-Language: de'),
    ]),
  ),
  inTurn(
    'cookies that count',
    [
      'lang=de',
      'lang=en',
      'lang=de; x=1',
      'theme=x; lang=de',
      'lang="de"',
      'lang=',
      'x=1',
      'lang=de; lang=en',
      '',
    ].flatMap((value) => [get('/by-cookies/plain', `Cookie: ${value}`), get('/by-cookies/plain', `Cookie: ${value}`)]),
  ),
  inTurn(
    'POSTs that are answered from memory',
    ['{"a":1}', '{ "a": 1 }', '{"a":2}', 'x', ''].flatMap((body) => [
      post('/asked', body, 'Content-Type: application/json'),
      post('/asked', body, 'Content-Type: application/json'),
      get('/plain'),
    ]),
  ),
]

// oxfmt-ignore
const FORWARDING: readonly (readonly string[])[] = [
  ['X-Forwarded-For: 192.0.2.1'], ['X-Forwarded-For: 192.0.2.1, 192.0.2.2'],
  ['X-Forwarded-For: 192.0.2.1', 'X-Forwarded-For: 192.0.2.9'], [`X-Forwarded-For: 192.0.2.1, ${PROXY}`],
  ['X-Forwarded-For: 2001:db8::1'], ['X-Forwarded-For: unknown'], ['X-Forwarded-For:'], ['Forwarded: for=192.0.2.1'],
  ['Forwarded: for="[2001:db8::1]:80";proto=https'], [`X-Forwarded-For: ${ALLOWED}`], [`X-Forwarded-For: ${DENIED}`],
  ['X-Forwarded-Host: other.test'], ['X-Forwarded-Proto: https'], ['X-Real-Ip: 192.0.2.1'],
  ['X-Request-Id: given-by-the-proxy.1'], ['X-Request-Id: not valid'], ['X-Request-Id:'],
  [`X-Request-Id: ${'i'.repeat(128)}`], [`X-Request-Id: ${'i'.repeat(129)}`],
  ['X-Request-Id: one', 'X-Request-Id: two'], ['x-request-id: a/b=c@d'], ['X-User: ann'],
  ['X-User: ann', 'X-Request-Id: abc'], ['Via: 1.1 proxy'], ['Max-Forwards: 0'],
]

const FORWARDED = ['127.0.0.1', PROXY].map((address) =>
  from(
    address,
    inTurn(
      `told by ${address}`,
      FORWARDING.flatMap((fields) => [
        get('/plain', ...fields),
        get('/by-address/plain', ...fields),
        get('/listed/plain', ...fields),
        get('/user/plain', ...fields),
        get('/authed-public/plain', ...fields),
        get('/nowhere/at/all', ...fields),
        get('/few/plain', 'X-Client: told', ...fields),
      ]),
    ),
  ),
)

export const BETWEEN: Readonly<Record<string, readonly Row[]>> = {
  users: await users(),
  limits: LIMITS,
  routes: ROUTED,
  forwarding: FORWARDED,
}
