// The route table of the comparison, with one of everything that an answer from memory may meet, and the origin behind it.
// A route is about what the gateway does, its last part about what the origin answers: `/few/etag` is the resource `/etag`
// on the route with the limit `few`.

import type { IncomingMessage } from 'node:http'
import type { Script } from '../origin.ts'
import { MARKED } from './pair.ts'
import { JWT_SECRET } from './threads.ts'

export const ANN = 'the-api-key-of-ann-0123456789'
export const BOB = 'the-api-key-of-bob-0123456789'
/** Clients by what they are. */
export const PROXY = '127.0.0.2'
export const ALLOWED = '127.0.0.3'
export const DENIED = '127.0.0.4'

const LIMITS = `
  few: {limit: 4, window: 1h, key: "header:x-client"}
  fewer: {limit: 3, window: 10m, key: "header:x-client"}
  each: {limit: 3, window: 1h, key: ["header:x-client", route, method, host]}
  burst: {limit: 60, window: 1m, burst: 3, key: "header:x-client"}
  day: {limit: 4, window: 1d, align: UTC, key: "header:x-client"}
  month: {limit: 4, window: month, align: Europe/Berlin, key: "header:x-client"}
  watched: {limit: 2, window: 1h, key: "header:x-client", mode: shadow}
  forgiving: {limit: 2, window: 1h, key: "header:x-client"}
  misses: {limit: 2, window: 1h, key: "header:x-client", count: miss}
  successes: {limit: 2, window: 1h, key: "header:x-client", count: success}
  failures: {limit: 2, window: 1h, key: "header:x-client", count: failure}
  costly: {limit: 10, window: 1h, key: "header:x-client", cost: {GET: 3, HEAD: 1, POST: 11}}
  free-gets: {limit: 2, window: 1h, key: "header:x-client", cost: {GET: 0}}
  told: {limit: 10, window: 1h, key: "header:x-client", costField: X-Cost}
  dear: {limit: 4, window: 1h, key: "header:x-client", cost: 3}
  tokens: {unit: tokens, limit: 2500, window: 1h, key: "header:x-client", reserve: 1000}
  token-misses: {unit: tokens, limit: 2500, window: 1h, key: "header:x-client", reserve: 1000, count: miss}
  slots: {kind: concurrency, limit: 2, key: "header:x-client"}
  some: {limit: 2, window: 1h, key: "header:x-client", enabledPercent: 50}
  skipping: {limit: 2, window: 1h, key: "header:x-client", onMissing: skip}
  asking: {limit: 2, window: 1h, key: "header:x-client", onMissing: deny}
  by-address: {limit: 3, window: 1h, key: ip}
  by-user: {limit: 3, window: 1h, key: user}
  by-user-only: {limit: 3, window: 1h, key: user, onMissing: deny}
  by-cookie: {limit: 3, window: 1h, key: "cookie:sid"}
  by-param: {limit: 3, window: 1h, key: "param:id"}
  listed: {limit: 3, window: 1h, key: ip, allow: [${ALLOWED}, "user:key:ann"], deny: [${DENIED}, "user:key:bob"]}
  listed-watched: {limit: 3, window: 1h, key: ip, deny: [${DENIED}], mode: shadow}
`

/** Names of the routes that only have a limit. */
export const LIMITED = LIMITS.trim()
  .split('\n')
  .map((line) => line.trim().split(':')[0] as string)

/** Route by route what it has beside its path, and beside taking its own name off the path. */
const CACHES: Readonly<Record<string, string>> = {
  honor: 'cache: {ttl: 1h, clientControl: honor, stale: {whileRevalidate: 10s, ifError: 10m}}',
  public: 'cache: {ttl: 1h, scope: public}',
  user: 'cache: {ttl: 1h, scope: user}',
  'user-coded': 'cache: {ttl: 1h, scope: user, compress: true}',
  plainly: 'cache: {ttl: 1h, compress: false}',
  cookies: 'cache: {ttl: 1h, storeSetCookie: true}',
  only: 'cache: {ttl: 1h, key: {query: {only: [a, b*]}}}',
  ignore: 'cache: {ttl: 1h, key: {query: {ignore: [utm_*, z]}}}',
  'by-fields': 'cache: {ttl: 1h, key: {headers: [X-Tenant, Accept-Language]}}',
  'by-cookies': 'cache: {ttl: 1h, scope: public, key: {cookies: [lang, theme]}}',
  'per-status': 'cache: {ttl: {200: 1h, 404: 10m, 500: 1m}}',
  override: 'cache: {ttl: 1h, override: true}',
  clamped: 'cache: {ttl: 1h, clamp: {min: 5s, max: 20s}}',
  stale: 'cache: {ttl: 10s, stale: {whileRevalidate: 1m, ifError: 10m}}',
  unstale: 'cache: {ttl: 10s, stale: {ifError: 0s}}',
  alone: 'cache: {ttl: 1h, collapse: false}',
  small: 'cache: {ttl: 1h, maxObject: 1KiB}',
  only_get: 'methods: [GET], cache: {ttl: 1h}',
  no_get: 'methods: [POST, PUT]',
  gets: 'cache: {ttl: 1h, methods: [GET]}',
  uncached: 'maxBody: 100B',
  edited:
    'headers: {request: {set: {X-Set: yes}, remove: [X-Gone]}, response: {set: {X-Frame-Options: DENY, ETag: "\\"set\\""}, remove: [X-Odd, Last-Modified]}}, cache: {ttl: 1h}',
  authed: 'auth: required, cache: {ttl: 1h, scope: user}',
  'authed-public': 'auth: required, cache: {ttl: 1h, scope: public}',
  'authed-limited': 'auth: required, limits: [by-user], cache: {ttl: 1h, scope: public}',
  both: 'limits: [few, fewer], cache: {ttl: 1h}',
  mixed: 'limits: [burst, misses, watched], cache: {ttl: 1h}',
  'only-watched': 'limits: [forgiving], mode: shadow, cache: {ttl: 1h}',
  instead: 'limits: [few], onLimited: stale, cache: {ttl: 10s, stale: {whileRevalidate: 1m, ifError: 1h}}',
  'instead-misses': 'limits: [misses], onLimited: stale, cache: {ttl: 10s, stale: {ifError: 1h}}',
  'limited-honor': 'limits: [few], cache: {ttl: 1h, clientControl: honor}',
  'limited-uncached': 'limits: [few]',
}

const own = (name: string, options: string) => `  - {path: /${name}/*, rewrite: {strip: /${name}}, ${options}}`

const ROUTES = [
  '  - {path: /*, cache: {ttl: 1h}}',
  '  - {path: /*, host: api.gateway.test, cache: {ttl: 1h}, headers: {response: {set: {X-Api: "1"}}}}',
  '  - {path: /things/:id, limits: [by-param], cache: {ttl: 1h, tags: ["thing-:id", things]}}',
  '  - {path: /things/:id/parts/:part, cache: {ttl: 1h, tags: ["thing-:id"]}}',
  '  - {path: /exact, cache: {ttl: 1h, tags: [exact]}}',
  '  - {path: /tagged/*, methods: [GET, HEAD], cache: {ttl: 1h, tags: [tagged]}}',
  '  - {path: /tagged/*, methods: [POST, DELETE], purges: [tagged]}',
  '  - {path: /asked, methods: [POST], cache: {ttl: 1h, scope: public, key: {body: canonical}}}',
  ...Object.entries(CACHES).map(([name, options]) => own(name, options)),
  ...LIMITED.map((name) => own(name, `limits: [${name}], cache: {ttl: 1h}`)),
]

/** listen: further entries. */
export const yamlOfAll = (originUrl: string, listen = '', more = ''): string => `
listen: {address: 127.0.0.1:0, connectionsPerAddress: 10000, ${listen}}
admin: {listen: 127.0.0.1:0}
log: {slow: 1h, redactQuery: [secret, token]}
trustedProxies: [${PROXY}]
identity:
  user:
    - {header: x-api-key, keys: {ann: ${ANN}, bob: ${BOB}}}
    - {jwt: {secret: ${JWT_SECRET}, header: x-jwt}}
    - {header: x-user, trusted: true}
upstreams: {origin: {targets: [${originUrl}]}}
defaults: {upstream: origin}
${more}
limits:${LIMITS}
routes:
${ROUTES.join('\n')}
`

// ---- what the origin answers ----

interface Resource {
  readonly status?: number
  readonly fields?: readonly string[]
  /** '#' stands for how often it was asked for. */
  readonly body?: string
}

const MODIFIED = 'Sun, 01 Feb 2026 12:00:00 GMT'
const HOUR = ['Cache-Control', 'max-age=3600']
const TEXT = ['Content-Type', 'text/plain']
const lines = (count: number) => Array.from({ length: count }, (_, i) => `line ${i} of the body\n`).join('')
const JSON_TEXT = JSON.stringify(
  Array.from({ length: 60 }, (_, i) => ({ id: i, title: `Thing ${i}`, of: 'gr\xfc\xdfe' })),
)

export const RESOURCES: Readonly<Record<string, Resource>> = {
  '/marker': { fields: ['Cache-Control', 'max-age=31536000'], body: MARKED },
  '/plain': { fields: [...HOUR, ...TEXT], body: 'plain #' },
  '/etag': { fields: [...HOUR, ...TEXT, 'ETag', '"one"', 'Last-Modified', MODIFIED], body: 'tagged and dated #' },
  '/tag-only': { fields: [...HOUR, 'ETag', '"two"'], body: 'tagged #' },
  '/weak': { fields: [...HOUR, ...TEXT, 'ETag', 'W/"three"'], body: 'weakly tagged #' },
  '/odd-tag': { fields: [...HOUR, 'ETag', 'unquoted'], body: 'oddly tagged #' },
  '/dated': { fields: [...HOUR, 'Last-Modified', MODIFIED], body: 'dated #' },
  '/undated': { fields: [...HOUR, 'Date', ''], body: 'no date #' },
  '/json': { fields: [...HOUR, 'Content-Type', 'application/json', 'ETag', '"json"'], body: JSON_TEXT },
  '/text': {
    fields: [...HOUR, 'Content-Type', 'text/html; charset=utf-8', 'Last-Modified', MODIFIED],
    body: lines(200),
  },
  '/noise': { fields: [...HOUR, 'Content-Type', 'text/plain', 'ETag', '"noise"'], body: noise(1500) },
  '/no-transform': { fields: ['Cache-Control', 'max-age=3600, no-transform', ...TEXT], body: lines(100) },
  '/gzipped': {
    fields: [...HOUR, ...TEXT, 'Content-Encoding', 'gzip', 'Vary', 'Accept-Encoding'],
    body: 'not really #',
  },
  '/empty': { fields: [...HOUR, 'ETag', '"empty"'], body: '' },
  '/nothing': { status: 204, fields: HOUR },
  '/moved': { status: 301, fields: [...HOUR, 'Location', '/elsewhere'], body: 'moved #' },
  '/found': { status: 302, fields: [...HOUR, 'Location', '/elsewhere'], body: 'found #' },
  '/permanent': { status: 308, fields: [...HOUR, 'Location', '/elsewhere'], body: '' },
  '/choices': { status: 300, fields: [...HOUR, 'ETag', '"many"'], body: 'many #' },
  '/other': { status: 203, fields: [...HOUR, 'ETag', '"second-hand"'], body: 'second hand #' },
  '/missing': { status: 404, fields: [...HOUR, ...TEXT, 'ETag', '"missing"'], body: 'not here #' },
  '/gone': { status: 410, fields: HOUR, body: 'gone #' },
  '/teapot': { status: 418, fields: HOUR, body: 'short and stout #' },
  '/unassigned': { status: 299, fields: HOUR, body: 'nobody knows #' },
  '/broken': { status: 500, fields: HOUR, body: 'broken #' },
  '/large': { fields: [...HOUR, 'Content-Type', 'application/octet-stream', 'ETag', '"large"'], body: noise(100_000) },
  '/huge': { fields: [...HOUR, 'Content-Type', 'application/octet-stream', 'ETag', '"huge"'], body: noise(5_000_000) },
  '/language': { fields: [...HOUR, ...TEXT, 'Vary', 'Accept-Language'], body: 'varies #' },
  '/vary-two': { fields: [...HOUR, ...TEXT, 'Vary', 'X-A, X-B'], body: 'varies by two #' },
  '/vary-agent': { fields: [...HOUR, ...TEXT, 'Vary', 'User-Agent'], body: 'varies by agent #' },
  '/vary-cookie': { fields: [...HOUR, ...TEXT, 'Vary', 'Cookie'], body: 'varies by cookie #' },
  '/vary-host': { fields: [...HOUR, ...TEXT, 'Vary', 'Host, Connection'], body: 'varies by host #' },
  '/vary-all': { fields: [...HOUR, ...TEXT, 'Vary', '*'], body: 'varies by all #' },
  '/private': { fields: ['Cache-Control', 'private, max-age=3600'], body: 'private #' },
  '/no-store': { fields: ['Cache-Control', 'no-store'], body: 'never stored #' },
  '/no-cache': { fields: ['Cache-Control', 'no-cache', 'ETag', '"asked"'], body: 'always asked #' },
  '/said-public': { fields: ['Cache-Control', 'public, max-age=3600'], body: 'public #' },
  '/s-maxage': { fields: ['Cache-Control', 's-maxage=3600'], body: 'shared #' },
  '/must': { fields: ['Cache-Control', 'max-age=3600, must-revalidate'], body: 'must #' },
  '/ten': {
    fields: ['Cache-Control', 'max-age=10, stale-while-revalidate=60', 'ETag', '"ten"'],
    body: 'ten seconds #',
  },
  '/aged': { fields: [...HOUR, 'Age', '100'], body: 'aged #' },
  '/expires': { fields: ['Expires', 'Sun, 01 Mar 2026 14:00:00 GMT'], body: 'expires #' },
  '/unsaid': { fields: TEXT, body: 'says nothing #' },
  '/cookie': { fields: [...HOUR, 'Set-Cookie', 'a=1; Path=/', 'Set-Cookie', 'b=2'], body: 'sets a cookie #' },
  '/odd': {
    fields: [
      ...HOUR,
      'x-WeIrD-cAsE',
      'KePt',
      'X-Odd',
      '',
      'X-Odd',
      'gr\xfc\xdfe \x80\xff',
      'X-Odd',
      'a\tb',
      'Via',
      '1.0 elsewhere',
    ],
    body: 'odd fields #',
  },
  '/odder': {
    fields: [
      ...HOUR,
      'Server',
      'origin/1',
      'X-Cache',
      'HIT from origin',
      'Cache-Status',
      'origin; hit',
      'X-Request-Id',
      'origins-own',
      'X-RateLimit-Limit',
      '7',
      'RateLimit',
      '"x";r=1',
      'X-Process-Time',
      '1s',
      'Retry-After',
      '5',
      'Warning',
      '110 - "x"',
    ],
    body: 'fields of ours #',
  },
  '/hop': {
    fields: [
      ...HOUR,
      'Connection',
      'X-Hop, keep-alive',
      'X-Hop',
      '1',
      'Keep-Alive',
      'timeout=1',
      'Proxy-Authenticate',
      'Basic',
      'Upgrade',
      'h2c',
    ],
    body: 'hop by hop #',
  },
  '/many-fields': {
    fields: [...HOUR, ...Array.from({ length: 40 }, (_, i) => [`X-Field-${i}`, 'v'.repeat(i * 10)]).flat()],
    body: 'many #',
  },
  '/costs': { fields: [...HOUR, 'X-Cost', '4'], body: 'costs #' },
  '/used': { fields: [...HOUR, 'Content-Type', 'application/json'], body: '{"usage":{"total_tokens":300},"made":"#"}' },
  '/tags': { fields: [...HOUR, 'Cache-Tag', 'tagged, more', 'Surrogate-Key', 'keyed'], body: 'names its tags #' },
  '/targeted': { fields: [...HOUR, 'CDN-Cache-Control', 'max-age=600'], body: 'targeted #' },
}

/** Those that are answered in one write whatever the machine. */
export const SMALL = Object.keys(RESOURCES).filter((path) => path !== '/huge' && path !== '/large')

/** Incompressible, and the same every time. */
function noise(bytes: number): string {
  let state = 1
  const characters: string[] = []
  for (let i = 0; i < bytes; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    characters.push(String.fromCharCode(33 + ((state >>> 24) % 90)))
  }
  return characters.join('')
}

/** Its clock is three seconds behind. An unknown path is answered without a word on how long it is fresh. */
export function originOfAll(): Script {
  const counts = new Map<string, number>()
  return (request, response) => {
    const { method = '', url = '' } = request
    const path = url.split('?')[0] as string
    const what = `${method} ${url}`
    const count = (counts.get(what) ?? 0) + 1
    counts.set(what, count)
    const known = RESOURCES[path]
    const { status = 200, fields = TEXT, body = `${url} #` } = known ?? {}
    response.sendDate = false
    const date = hasDate(fields) ? [] : ['Date', new Date(Date.now() - 3000).toUTCString()]
    const given = fields.filter((_, i) => !isEmptyDate(fields, i))
    if (isUnchanged(request, fields, status)) {
      response.writeHead(304, [...given, ...date]).end()
      return
    }
    request.resume()
    const text = body.replace('#', String(count))
    // Some in chunks; not the large ones, whose chunks on their way through depend on the machine.
    const isChunked = path.length % 2 === 1 && text.length < 16_384
    const length = isChunked ? [] : ['Content-Length', String(text.length)]
    const hasBody = status !== 204 && method !== 'HEAD'
    request.on('end', () => {
      response.writeHead(status, [...given, ...date, ...(status === 204 ? [] : length)])
      response.end(hasBody ? Buffer.from(text, 'latin1') : undefined)
    })
  }
}

const hasDate = (fields: readonly string[]): boolean => fields.some((name, i) => i % 2 === 0 && name === 'Date')
/** An empty Date stands for none. */
const isEmptyDate = (fields: readonly string[], i: number): boolean => {
  const at = i - (i % 2)
  return fields[at] === 'Date' && fields[at + 1] === ''
}

function isUnchanged({ headers, method }: IncomingMessage, fields: readonly string[], status: number): boolean {
  const tag = fields[fields.indexOf('ETag') + 1]
  const asked = headers['if-none-match']
  return status === 200 && (method === 'GET' || method === 'HEAD') && asked !== undefined && asked === tag
}
