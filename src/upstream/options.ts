// What YAML may say of an upstream, and of what a route changes on the way there and back.

import { z } from 'zod'
import { count, decoded, duration, flag, fraction, text, word } from '../core/decode.ts'
import { GatewayError } from '../core/errors.ts'
import { HOP_BY_HOP, isFieldValue, isToken } from '../http/headers.ts'
import { normalizeTarget } from '../http/target.ts'

/** An origin: scheme, host and port, no path. */
function parseTarget(text: string): URL | null {
  if (!/^https?:\/\/[^/?#@\s]+\/?$/.test(text)) return null
  return URL.canParse(text) ? new URL(text) : null
}

const url = () =>
  decoded(
    'an http:// or https:// origin such as "http://127.0.0.1:8000"',
    'give scheme, host and port only; a path goes into the route as rewrite.prefix',
    parseTarget,
  )

const target = z.union([
  url().transform((origin) => ({ url: origin, weight: 1 })),
  z.strictObject({
    url: url().describe('origin of the backend'),
    weight: count({ min: 1, max: 1000 })
      .prefault(1)
      .describe('its share of the requests, beside the weights of the other targets'),
  }),
])

/** What requests have in common that go to the same target. */
export type BalanceKey =
  | { readonly kind: 'ip' | 'user' | 'host' | 'path' | 'url' }
  /** name: of a field in lower case, of a cookie or a parameter of the path as it is. */
  | { readonly kind: 'header' | 'cookie' | 'param'; readonly name: string }

export type Balance =
  | { readonly rule: 'round-robin' | 'least-requests' }
  | { readonly rule: 'hash'; readonly key: BalanceKey }

function parseBalance(text: string): Balance | null {
  const rule = text.toLowerCase()
  if (rule === 'round-robin' || rule === 'least-requests') return { rule }
  const key = rule.startsWith('hash:') ? parseBalanceKey(text.slice(5)) : null
  return key === null ? null : { rule: 'hash', key }
}

const PLAIN_KEYS: ReadonlySet<string> = new Set(['ip', 'user', 'host', 'path', 'url'])

function parseBalanceKey(text: string): BalanceKey | null {
  if (PLAIN_KEYS.has(text)) return { kind: text as 'ip' }
  const [, kind, name = ''] = /^(header|cookie|param):(.*)$/.exec(text) ?? []
  if (kind === 'header') return isToken(name) ? { kind, name: name.toLowerCase() } : null
  if (kind === 'cookie') return isToken(name) ? { kind, name } : null
  return kind === 'param' && /^[A-Za-z][A-Za-z0-9_]*$/.test(name) ? { kind, name } : null
}

const balance = () =>
  decoded(
    'round-robin, least-requests or hash:<key>',
    'a key is ip, user, host, path, url, header:<name>, cookie:<name> or param:<name>',
    parseBalance,
  ).meta({ anyOf: [{ enum: ['round-robin', 'least-requests'] }, { pattern: String.raw`^hash:|\$\{` }] })

const timeout = () => duration({ minMs: 1 }).optional()

/** Each phase of an exchange has its own timer; the 504 names the one that fired. */
export const timeoutOptions = z.strictObject({
  connect: timeout().describe('until the connection stands (default 2s)'),
  queue: timeout().describe('waiting for a free connection (default 30s)'),
  firstByte: timeout().describe('from the request sent to the head of the answer (default 30s)'),
  firstEvent: timeout().describe(
    'from the head of a stream of events to its first event, comments aside; its head is held until its first byte, so that until then the client can be told by a 504 (default: no limit but idle)',
  ),
  idle: timeout().describe('longest gap in a body, either way (default 30s)'),
  total: timeout().describe('the whole exchange (default 60s)'),
  streamTotal: timeout().describe(
    'instead of total, for an answer that is a stream by its type: events, gRPC-web, JSON lines, parts that replace each other (default 5m)',
  ),
  websocketIdle: timeout().describe(
    'instead of idle and total, for an open WebSocket: longest time without a byte either way (default 5m)',
  ),
})

export type TimeoutOptions = z.output<typeof timeoutOptions>

/** A route's own: all but connect, since its upstream's connections are shared with other routes. */
export const routeTimeoutOptions = timeoutOptions.omit({ connect: true })

export type RouteTimeoutOptions = z.output<typeof routeTimeoutOptions>

export const healthOptions = z.strictObject({
  path: text('a path such as "/health"', (value) =>
    /^\/[\w\-.~!$&'()*+,;=:@/%?]*$/.test(value) ? null : 'begin with / and keep to URL characters',
  )
    .optional()
    .describe(
      'asked for by GET to see whether a target is well: an answer from 200 to 399 in time. Without it a target is judged by its requests, and is back when it takes connections',
    ),
  interval: duration({ minMs: 50 })
    .prefault('5s')
    .describe(
      'between two checks; 1s at most while a target is out, 250ms after a failed one. A target is checked at once, though no more than once a second, when it fails a request, or has some and nothing is heard of it for half a second. Where that check is not answered either, the next one goes out beside it after 250ms, and from then on other targets are asked first',
    ),
  timeout: duration({ minMs: 1 }).prefault('1s').describe('longest time of a check'),
  healthyAfter: count({ min: 1, max: 100 }).prefault(2).describe('good checks in a row that bring a target back'),
  unhealthyAfter: count({ min: 1, max: 100 }).prefault(2).describe('failed checks in a row that take a target out'),
  failures: count({ min: 0, max: 1000 })
    .prefault(5)
    .describe(
      'requests in a row that take a target out: no answer, or 502, 503 or 504; of connections that are refused, 3 will do. 0: requests never do',
    ),
  slowStart: duration()
    .prefault('10s')
    .describe('in which the requests for a target that is back grow from a tenth of its share to all of it'),
})

export type HealthOptions = z.output<typeof healthOptions>

export const breakerOptions = z.strictObject({
  failureRate: fraction()
    .prefault(0.5)
    .describe('of the requests within the window: no answer, or one with a status from 500; then it opens'),
  window: duration({ minMs: 100 }).prefault('10s').describe('how far back requests count'),
  minRequests: count({ min: 1, max: 1_000_000 })
    .prefault(20)
    .describe('requests within the window below which it does not open'),
  cooldown: duration({ minMs: 10 })
    .prefault('5s')
    .describe(
      'how long it stays open; then one request at a time shows whether it may close, which takes two good ones',
    ),
})

export type BreakerOptions = z.output<typeof breakerOptions>

export const concurrencyOptions = z.strictObject({
  max: count({ min: 1, max: 100_000 }).describe('requests that the upstream has at the same time, on all targets'),
  adaptive: flag()
    .prefault(false)
    .describe(
      'whether fewer are sent at the same time where more do not bring more: the limit grows while answers begin as fast as usual, and shrinks while they take longer or fail; from min to max',
    ),
  min: count({ min: 1, max: 100_000 })
    .optional()
    .describe('requests that the upstream may always have, and at first, where the limit is adaptive. Default: 3'),
  queue: count({ min: 0, max: 100_000 })
    .prefault(128)
    .describe('requests that may wait for a place; clients take turns, however many of these each has'),
  wait: duration({ minMs: 1 })
    .prefault('10s')
    .describe(
      'longest time in that line; who would wait for longer, as requests have been answered of late, gets a 503 with Retry-After at once, or a 429 where it has more than its share of the line',
    ),
})

export type ConcurrencyOptions = z.output<typeof concurrencyOptions>

export const refusalOptions = z.strictObject({
  wait: duration()
    .prefault('10s')
    .describe(
      'longest time that the upstream may ask for: so long a refused request waits, within its total, and goes out again. Beyond it clients get the refusal with its Retry-After. 0s: no request waits',
    ),
  methods: word(['idempotent', 'all'])
    .prefault('idempotent')
    .describe(
      'which requests go out again. all: POST and PATCH too; right only where the upstream has done nothing of what it refuses, which no answer proves',
    ),
  coolDown: word(['off', 'unavailable', 'all'])
    .prefault('off')
    .describe(
      'which of these answers stop all requests to the target that gave it, until that time. unavailable: 503; all: 429 too. Then others wait in line where there is one (concurrency) and the time fits, or get a 503 with Retry-After at once, or what is stored; instances with the same Redis do as this one. off, since one client may be all that was meant: a 429 mostly speaks of who has asked too much, and a 503 may be for one path alone',
    ),
  maxCoolDown: duration({ minMs: 1 }).prefault('1m').describe('longest cool-down, whatever an upstream asks for'),
})

export type RefusalOptions = z.output<typeof refusalOptions>

export const hedgeOptions = z.strictObject({
  after: duration({ minMs: 1, named: { auto: 0 } })
    .prefault('auto')
    .transform((ms): number | 'auto' => (ms === 0 ? 'auto' : ms))
    .describe(
      'without the head of an answer; auto: what 19 of 20 requests of late have taken, at least 20ms; until 20 have come, none is sent twice',
    ),
  percent: count({ min: 1, max: 100 })
    .prefault(5)
    .describe('of a hundred requests that may be sent twice, as many are at most'),
})

export type HedgeOptions = z.output<typeof hedgeOptions>

export const upstreamOptions = z.strictObject({
  targets: z.array(target).min(1).max(256).describe('the backends, all of which can answer every request'),
  primary: url()
    .optional()
    .describe(
      'the one target for requests that may change something; the targets then have those that cannot (GET, HEAD, OPTIONS, QUERY, PROPFIND, REPORT, SEARCH). It has those too where it is among the targets',
    ),
  balance: balance()
    .prefault('round-robin')
    .describe(
      'how a target is chosen: in turn, by weight; of two drawn at random the one with fewer requests; or hash:<key>: requests with the same key (ip, user, host, path, url, header:<name>, cookie:<name> or param:<name>) go to the same target, unless that has a quarter more than its share already; those without one in turn',
    ),
  connections: count({ min: 1, max: 10_000 }).prefault(64).describe('keep-alive connections per target'),
  connectionLifetime: duration({ minMs: 100 }).prefault('1h').describe('age at which a connection is replaced'),
  resolve: duration({ minMs: 100 })
    .prefault('30s')
    .describe(
      'after which the names of targets are looked up again. New connections go to all addresses of a name in turn; those to addresses that it has no more carry no further request. A look-up that fails changes nothing',
    ),
  timeouts: timeoutOptions.prefault({}).describe('how long each phase may take'),
  retries: count({ min: 0, max: 5 })
    .prefault(1)
    .describe(
      'further attempts of a request where no work is done twice: no connection was made; a GET, HEAD or QUERY was cut off before any byte of an answer, or waits for that of a target that has gone out since it says nothing; or one target has answered by 502, 503 or 504, the method is idempotent, and another target is well; or it was refused for a while (see refusals). For that, bodies are kept up to 64KiB',
    ),
  framing: word(['strict', 'lenient'])
    .prefault('strict')
    .describe(
      'strict: an answer that ends with its connection is passed on but not stored, since nobody can tell whether it is whole, and an unknown transfer coding is a 502; lenient, for old backends by http: such an answer counts as whole and may be stored, and a coding that is not registered counts as none',
    ),
  health: healthOptions
    .prefault({})
    .describe('when a target is out and gets no requests; where more than half of the targets are out, all get them'),
  breaker: breakerOptions
    .optional()
    .describe(
      'one per target: while it is open, the target gets no requests; where all are open, clients get a 503 at once, or what is stored. Default: none',
    ),
  refusals: refusalOptions
    .prefault({})
    .describe('what becomes of a 429 or 503 that says in Retry-After, or retry-after-ms, when to come again'),
  hedge: hedgeOptions
    .optional()
    .describe(
      'a GET, HEAD or QUERY that waits long for its answer goes to another target as well: the head that comes first is the answer, the other attempt is broken off, and counts for limits in tokens or cost as a request without an answer. Not while the upstream has as many requests as it may have. Default: never',
    ),
  concurrency: concurrencyOptions
    .optional()
    .describe('how many requests the upstream bears at the same time; others wait in line. Default: as many as come'),
})

export type UpstreamOptions = z.output<typeof upstreamOptions>

export const mirrorOptions = z.strictObject({
  upstream: text('a name for an upstream').describe('where the copies go'),
  percent: count({ min: 1, max: 100 }).prefault(100).describe('how many of a hundred requests are copied'),
  concurrency: count({ min: 1, max: 10_000 })
    .prefault(32)
    .describe('copies under way at the same time; further ones are left out'),
})

export type MirrorOptions = z.output<typeof mirrorOptions>

/** These frame messages or concern one connection; an edit of them would break every request. */
const isFraming = (lowerName: string): boolean =>
  HOP_BY_HOP.has(lowerName) || lowerName === 'content-length' || lowerName === 'expect'

const fieldName = () =>
  text('a header field name', (name) => {
    if (!isToken(name)) return 'letters, digits and dashes'
    return isFraming(name.toLowerCase()) ? 'leave out what frames messages; the gateway writes it itself' : null
  })
const fieldValue = () =>
  text('a header field value', (value) => (isFieldValue(value) ? null : 'no line breaks or control characters'))

export const headerEditOptions = z.strictObject({
  set: z.record(fieldName(), fieldValue()).prefault({}).describe('fields to set, replacing any of that name'),
  remove: z.array(fieldName()).prefault([]).describe('fields to remove'),
})

export type HeaderEditOptions = z.output<typeof headerEditOptions>

export const eventsOptions = z.strictObject({
  keepAlive: duration({ minMs: 10 })
    .prefault('15s')
    .describe('silence after which a stream of events gets a comment, between two events'),
  earlyHead: duration({ minMs: 10 })
    .optional()
    .describe(
      'time without an answer after which a client that accepts text/event-stream gets the head of one, a 200, and comments; whatever else comes then is an `event: error`. Default: its answer has the status that it has, however long that takes',
    ),
})

const MAX_FALLBACK_CHARS = 64 * 1024

export const fallbackOptions = z.strictObject({
  status: count({ min: 200, max: 599 }).prefault(503).describe('its status'),
  body: text('a text', (value) => (value.length <= MAX_FALLBACK_CHARS ? null : 'at most 65536 characters'))
    .prefault('')
    .describe('its content'),
  type: text('a media type such as "text/html"', (value) =>
    /^[\w!#$&^.+-]+\/[\w!#$&^.+-]+(?: *; *[\w-]+=[\w."-]+)*$/.test(value) ? null : 'type/subtype',
  )
    .optional()
    .describe('its Content-Type; default application/json where it is JSON, else text/plain'),
})

export type FallbackOptions = z.output<typeof fallbackOptions>

const path = (expected: string) =>
  text(expected, (value) =>
    isNormalPath(value) ? null : 'begin with / and keep to URL path characters, without "." and ".." segments',
  )

/** As a request's path is after normalisation: anything else would never match, or go out unchecked. */
function isNormalPath(value: string): boolean {
  if (!/^\/[A-Za-z0-9\-._~!$&'()*+,;=:@/]*$/.test(value)) return false
  const target = normalizeTarget(value)
  return !(target instanceof GatewayError) && target.path === value
}

export const rewriteOptions = z.strictObject({
  strip: path('a path prefix such as "/api"').optional().describe('prefix to take off the path'),
  prefix: path('a path prefix such as "/v2"').optional().describe('prefix to put before the path, after strip'),
})

export type RewriteOptions = z.output<typeof rewriteOptions>
