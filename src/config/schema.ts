// The whole route table: the features' options composed into one schema, and the types that the rest of the gateway
// compiles from. Shape and units only; what refers to something else in the file is in config/references.ts.

import { z } from 'zod'
import { adminOptions } from '../admin/options.ts'
import { memoryOptions, routeCacheOptions, tagTemplates } from '../cache/options.ts'
import { count, data, decoded, duration, flag, fraction, size, text, word } from '../core/decode.ts'
import { GatewayError } from '../core/errors.ts'
import { parseRedisUrl } from '../core/redis-url.ts'
import { idempotencyMemoryOptions, idempotencyOptions } from '../idempotency/options.ts'
import { identityOptions } from '../identity/options.ts'
import { limitOptions } from '../limit/options.ts'
import { logOptions } from '../observe/options.ts'
import { listenOptions } from '../server/options.ts'
import {
  eventsOptions,
  fallbackOptions,
  headerEditOptions,
  mirrorOptions,
  rewriteOptions,
  routeTimeoutOptions,
  upstreamOptions,
} from '../upstream/options.ts'
import { METHODS } from '../http/methods.ts'
import { parseCidr } from '../http/forwarded.ts'
import { isToken } from '../http/headers.ts'
import { normalizeTarget } from '../http/target.ts'

const name = (what: string) =>
  text(`a name for ${what}`, (value) =>
    /^[A-Za-z][A-Za-z0-9_-]{0,63}$/.test(value) ? null : 'begin with a letter; then letters, digits, - and _',
  )

/** In any case; upper case here, because that is how everybody writes them and editors go by the schema. */
const method = () =>
  decoded(`one of ${METHODS.join(', ')}`, null, (value) => METHODS.find((m) => m === value.toUpperCase()) ?? null).meta(
    {
      anyOf: [{ enum: [...METHODS] }, { type: 'string', pattern: String.raw`\$\{` }],
    },
  )

const MAKE_ONE = 'at least 32 characters; make one: openssl rand -hex 32'

const redisOptions = z.strictObject({
  url: text('a redis:// URL, or "" for none', (value) => {
    const address = value === '' ? null : parseRedisUrl(value)
    return address?.kind === 'invalid' ? address.cure : null
  })
    .prefault('')
    .describe(
      'instances with the same Redis and namespace share cache, purges and limits; empty: this instance stands alone',
    ),
  // Braces in a key tell a Redis Cluster where it belongs.
  namespace: text('a key prefix', (value) =>
    /^[A-Za-z0-9_.:/-]{1,64}$/.test(value) ? null : 'letters, digits and _ . : / - only, at most 64',
  )
    .prefault('weirgate')
    .describe('prefix of every key'),
  deadline: duration({ minMs: 1 }).prefault('25ms').describe('longest wait of a request for Redis'),
  instances: count({ min: 1, max: 10_000 })
    .prefault(1)
    .describe(
      'how many instances there are, for the share of one that starts while Redis is down; from then on, those that Redis knows of are counted',
    ),
  secret: text('a text that nobody can guess', (value) => (value.length >= 16 ? null : 'at least 16 characters'))
    .optional()
    .describe(
      'with it, addresses and users are made unreadable in the names of their counters, and users, fields and bodies in the keys of what is stored; the same in all instances. Default: namespace and password',
    ),
  encrypt: z
    .strictObject({
      secrets: z
        .array(text('a text that nobody can guess', (value) => (value.length >= 32 ? null : MAKE_ONE)))
        .min(1)
        .max(8)
        .describe(
          'keys are made of them, the same in all instances. The first one seals, all open: to change it, add the new one at the end in all instances, then put it first in all, and after a week take the old one away',
        ),
    })
    .optional()
    .describe(
      'seals what is behind the names in Redis (AES-256-GCM): stored responses, answers kept for an Idempotency-Key, and what purges name. What does not open is not used. Needs `secret`',
    ),
})

/** The word for what is switched off. */
const never = data('false', null, (value): value is false | 'false' => value === false || value === 'false')
  .transform(() => false as const)
  .meta({ anyOf: [{ const: false }, { type: 'string', pattern: String.raw`^false$|\$\{` }] })

const overloadOptions = z.strictObject({
  lag: duration({ minMs: 20 })
    .prefault('200ms')
    .describe('of the event loop, median of a second: more is an overload, which ends at half of it'),
  heap: fraction()
    .prefault(0.95)
    .describe('of what Node.js may have on its heap, still in use after a full collection: more is an overload'),
  storing: fraction().prefault(0.85).describe('of the same: more, and nothing new is stored; hits go on'),
})

const canaryOptions = z.strictObject({
  upstream: name('an upstream').describe('where the requests of the canary go'),
  percent: count({ min: 0, max: 100 }).prefault(0).describe('how many of a hundred'),
  by: word(['client', 'request'])
    .prefault('client')
    .describe(
      'of what: client, so that a user, or an address where nobody is known, always goes the same way; or request',
    ),
  header: text('a header field name', (value) => (isToken(value) ? null : 'letters, digits and dashes'))
    .optional()
    .describe(
      'a request field that decides for its request: always or never; with any other value percent does. Any client may send it',
    ),
})

const routeOptions = z.strictObject({
  path: text('a path pattern', checkPattern).describe(
    '/x matches exactly; /x/* matches /x, /x/ and all below; :name matches one segment; what stands behind a ; in a segment does not count',
  ),
  host: text('a host name', (value) =>
    /^(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*$/.test(value) ? null : 'lower case, no port; *.example.com for all below',
  )
    .optional()
    .describe('only requests for this host; default any'),
  methods: z.array(method()).min(1).optional().describe('only these methods; default all'),
  upstream: name('an upstream').optional().describe('where requests go; default defaults.upstream'),
  canary: canaryOptions
    .optional()
    .describe(
      'some of the requests go to another upstream. Its answers are stored apart, and purged with the others; in log, metrics and statistics its requests have a route of their own, with `(canary)` behind the name',
    ),
  mirror: mirrorOptions
    .optional()
    .describe(
      'copies of requests that go to the upstream (no hits, no WebSockets) go to another one as well, whose answers are dropped. As they are, Authorization and Cookie too, with X-Weirgate-Mirror: 1; never twice, and none with a body above 64KiB. A copied POST does what a POST does: name the methods of the route where that must not be',
    ),
  rewrite: rewriteOptions.optional().describe('changes the path on its way upstream'),
  headers: z
    .strictObject({
      request: headerEditOptions
        .optional()
        .describe(
          'on the way upstream; who asks, and what is stored for whom, goes by the fields as the client sent them',
        ),
      response: headerEditOptions
        .optional()
        .describe(
          'on the way back, before it is stored: a Cache-Control that is set counts for the cache like one of the upstream, and without its Set-Cookie an answer may be stored',
        ),
    })
    .optional()
    .describe('sets and removes header fields'),
  limits: z.array(name('a limit')).optional().describe('limits of this route; default defaults.limits; [] for none'),
  cache: routeCacheOptions.optional().describe('keeps responses; without it nothing is stored'),
  purges: tagTemplates()
    .optional()
    .describe(
      'tags purged after a 2xx or 3xx answer to a method that changes things; `:name` is a value from the path',
    ),
  timeouts: routeTimeoutOptions.optional().describe("overrides the upstream's"),
  retries: count({ min: 0, max: 5 }).optional().describe("overrides the upstream's"),
  maxBody: size().prefault('10MiB').describe('largest request body; more is a 413'),
  onLimited: word(['deny', 'stale'])
    .prefault('deny')
    .describe(
      'deny: over a limit is a 429; stale: what this instance has in memory answers in its place, fresh or as stale as it may be when the upstream fails; the upstream is not asked. Where the body is part of the key, only limits on misses, on tokens and of concurrency have such an answer: for one that counts every request no body is read',
    ),
  mode: word(['enforce', 'shadow'])
    .prefault('enforce')
    .describe('shadow: the limits of the route are counted and logged, and refuse nobody'),
  auth: word(['required'])
    .optional()
    .describe('required: only users that prove who they are, by `identity`; others get a 401'),
  idempotency: idempotencyOptions
    .optional()
    .describe(
      'true, or how: requests with the same Idempotency-Key are carried out once; a repeat waits for the answer, or gets it again with `Idempotency-Replayed: true` (2xx, 3xx and 4xx but 401, 407, 408, 409, 421, 425 and 429, after which, and where nothing was sent, the key is free); a key with another request is a 422. A key belongs to the route and to who asks: the proved user and all credentials that the request carries (cookies too), of which a repeat must carry the same; without any to the client address, and then it must have 16 characters, so that nobody can guess it',
    ),
  websocket: flag()
    .prefault(false)
    .describe(
      'true: WebSockets are let through; the handshake is limited as a request, its slots are held until the socket ends. Other requests are answered as on any route',
    ),
  events: eventsOptions
    .optional()
    .describe('what clients of streams of events get while nothing comes from the upstream; default nothing'),
  fallback: fallbackOptions
    .optional()
    .describe(
      'the answer where the upstream gives none (it fails, its breaker is open, it has no place) and nothing that is stored may answer. What the upstream answers itself is passed on',
    ),
})

export type RouteOptions = z.output<typeof routeOptions>

/** RFC 3986 path characters; `:name` for a whole segment; `*` only as the whole last segment. */
function checkPattern(pattern: string): string | null {
  if (!pattern.startsWith('/')) return 'begin with /'
  const segments = pattern.slice(1).split('/')
  for (const [i, segment] of segments.entries()) {
    const last = i === segments.length - 1
    if (segment === '' && !last) return 'no empty segments: // is merged before matching'
    if (segment === '.' || segment === '..') return 'no dot segments: they are refused before matching'
    if (segment.includes('*') && !(last && segment === '*')) return '* stands for everything below and comes last: /x/*'
    if (segment.startsWith(':') && !/^:[A-Za-z][A-Za-z0-9_]*$/.test(segment)) return 'a parameter is :name'
    if (!/^[A-Za-z0-9\-._~!$&'()+,;=:@%*]*$/.test(segment))
      return 'keep to URL path characters; percent-encode the rest'
  }
  const names = segments.filter((segment) => segment.startsWith(':'))
  if (new Set(names).size < names.length) return 'each :name once'
  // Requests are matched in one spelling (http/target.ts); a pattern in another would never match.
  const normal = normalizeTarget(pattern)
  if (normal instanceof GatewayError) return normal.detail
  return normal.path === pattern ? null : `requests are matched in one spelling; write ${normal.path}`
}

export const gatewaySchema = z.strictObject({
  listen: listenOptions.prefault('0.0.0.0:8080'),
  admin: adminOptions.prefault({}).describe('the admin port: health, metrics, statistics, purge, reload'),
  redis: redisOptions.prefault({}).describe('shared state of several instances'),
  trustedProxies: z
    .array(decoded('an address or CIDR such as "10.0.0.0/8"', 'write address/prefix', parseCidr))
    .prefault([])
    .describe('peers whose X-Forwarded-For or Forwarded is believed'),
  log: logOptions.prefault({}).describe('the log on standard output'),
  cache: memoryOptions.prefault({}).describe('the memory that all caching routes share'),
  health: z
    .union([
      z.literal(false),
      text('a path, or false', (value) => (/^\/[\w\-./]*$/.test(value) ? null : 'begin with /')),
    ])
    .prefault('/health')
    .describe('health path on the public port; false leaves it to the backends'),
  overload: z
    .union([never, overloadOptions])
    .prefault({})
    .describe(
      'when the gateway itself has too much to do: what would go to an upstream is then a 503, or answered by what is stored as when the upstream fails; hits go on. false: never',
    ),
  idempotency: idempotencyMemoryOptions
    .prefault({})
    .describe('what this instance may hold for routes with `idempotency`; it outlives no restart, but for Redis'),
  identity: identityOptions.optional().describe('who the user is, for limits, caches, the log and `auth: required`'),
  upstreams: z.record(name('an upstream'), upstreamOptions).describe('the backends, by name'),
  limits: z.record(name('a limit'), limitOptions).prefault({}).describe('the limits, by name'),
  defaults: z
    .strictObject({
      upstream: name('an upstream').optional().describe('upstream of a route that names none'),
      limits: z.array(name('a limit')).prefault([]).describe('limits of a route that names none'),
    })
    .prefault({})
    .describe('what a route has that does not say otherwise'),
  routes: z.array(routeOptions).min(1).describe('the route table; the most specific route wins, in any order'),
})

/** The decoded file: defaults filled in, units converted, frozen. */
export type GatewayConfig = z.output<typeof gatewaySchema>
