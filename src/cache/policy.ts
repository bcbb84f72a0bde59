// What RFC 9111 and the route say of storing and reusing, as pure functions: fields and a clock in, a verdict with its
// reason out. Storability is §3, freshness §4.2, shared caches and Authorization §3.5. No I/O here, so every rule is a
// row in test/cache/policy.test.ts.
//
// The rule above the rules: nothing is shared that belongs to one user. What only the route says (ttl, clamp) makes no
// answer shareable with requests that carry credentials, neither theirs with others nor others' with them, unless its
// scope says who shares: all (public), or each user with nobody (user), whose key then holds who that is.

import type { HeaderList, OriginAnswer, RequestContext } from '../core/context.ts'
import { type CacheControl, parseAge, parseCacheControl, parseTargeted } from '../http/cache-control.ts'
import { validatorsOf } from '../http/conditional.ts'
import { type CredentialFields, WELL_KNOWN } from '../http/credentials.ts'
import { parseHttpDate } from '../http/date.ts'
import {
  HOP_BY_HOP,
  connectionNames,
  getCombined,
  getHeader,
  getHeaders,
  hasHeader,
  listMembers,
} from '../http/headers.ts'
import { type AnswerRule, compileAnswerRule } from './answer-rule.ts'
import type { StoredResponse } from './entry.ts'
import { GET_AND_HEAD, isKeyedByBody } from './methods.ts'
import type { RouteCacheOptions } from './options.ts'
import type { Reason } from './reasons.ts'
import type { Pace } from './replay.ts'
import { type StreamRule, compileStreamRule } from './stream-rule.ts'
import { type TagRule, compileTags } from './tags.ts'

/** A route's rules, compiled. */
export interface CachePolicy {
  readonly ttl: { readonly everyMs: number | null; readonly byStatusMs: ReadonlyMap<number, number> | null } | null
  readonly override: boolean
  /** From 0 to below 1: by how much the route's own lifetime is shorter or longer for one response. */
  readonly random: () => number
  readonly minMs: number
  readonly maxMs: number
  /** That are answered from the cache, upper case. */
  readonly methods: ReadonlySet<string>
  /** Credentials make no difference: who may share an answer is whoever has the same key. */
  readonly isPublic: boolean
  /** The same, where the user is part of the key. */
  readonly isPerUser: boolean
  /** The request fields that make an answer one user's, beside Cookie. */
  readonly credentials: CredentialFields
  readonly storeSetCookie: boolean
  /** What the bodies of answers have to say. */
  readonly answerRule: AnswerRule
  /** What their events have to say, where they come as such. */
  readonly streamRule: StreamRule
  /** no-cache and max-age=0 in the answer to a POST leave its freshness to the route's ttl. */
  readonly ignoresNoCache: boolean
  /** Cache-Control and Pragma of a request count. */
  readonly honorsClient: boolean
  /** What is stored may be sent in other codings (coding.ts). */
  readonly compress: boolean
  /** At which a stored stream is sent; null: at once. */
  readonly pace: Pace | null
  readonly maxObjectBytes: number
  /** Past the freshness lifetime, where the origin says nothing of it. */
  readonly staleWhileRevalidateMs: number
  readonly staleIfErrorMs: number
  /** Fields that count before Cache-Control (RFC 9213), lower case, the first one first. */
  readonly targeted: readonly string[]
  /** The tags that the route itself gives. */
  readonly tagsOf: TagRule
}

/** What a route's rules depend on beside its own options. */
export interface PolicySetup {
  readonly maxObjectBytes: number
  /** Lower-case names of the fields that count before Cache-Control, the first one first. */
  readonly targeted?: readonly string[]
  /** From 0 to below 1, for the jitter; by default there is none. */
  readonly random?: () => number
  readonly methods?: ReadonlySet<string>
  readonly credentials?: CredentialFields
}

export function compilePolicy(options: RouteCacheOptions, setup: PolicySetup): CachePolicy {
  const { maxObjectBytes, targeted = ['cdn-cache-control'], random = EVENLY } = setup
  const { ttl } = options
  const methods = setup.methods ?? GET_AND_HEAD
  return {
    ttl: ttl === undefined ? null : { everyMs: ttl.every, byStatusMs: ttl.byStatus },
    override: options.override,
    random: options.jitter ? random : EVENLY,
    minMs: options.clamp?.min ?? -Infinity,
    maxMs: options.clamp?.max ?? Infinity,
    methods,
    credentials: setup.credentials ?? WELL_KNOWN,
    isPublic: options.scope === 'public',
    isPerUser: options.scope === 'user',
    storeSetCookie: options.storeSetCookie,
    answerRule: compileAnswerRule({ ...options, isGraphql: options.key?.body === 'graphql' }),
    streamRule: compileStreamRule(options, methods),
    ignoresNoCache: options.originNoCache === 'ignore',
    honorsClient: options.clientControl === 'honor',
    compress: mayCompress(options),
    pace: options.replay,
    maxObjectBytes: Math.min(options.maxObject ?? maxObjectBytes, maxObjectBytes),
    staleWhileRevalidateMs: options.stale.whileRevalidate,
    staleIfErrorMs: options.stale.ifError,
    targeted,
    tagsOf: compileTags(options.tags),
  }
}

/** As a random number: no spread at all. */
const EVENLY = () => 0.5

/** Whether a route's stored answers are sent in other codings. */
export const mayCompress = ({ compress, scope }: Pick<RouteCacheOptions, 'compress' | 'scope'>): boolean =>
  compress ?? scope !== 'user'

/** The parts of an answer by which it is judged. */
export type Storable = Pick<OriginAnswer, 'status' | 'headers' | 'framed'>

export type StoreVerdict =
  | {
      readonly store: true
      /** How old it was when it came. */
      readonly ageMs: number
      /** For how long from now it is fresh. 0 or less: it has a validator, and is to be validated before each use. */
      readonly freshMs: number
      /** For how long after that it may answer stale: while it is refreshed, and when the origin fails. */
      readonly staleWhileRevalidateMs: number
      readonly staleIfErrorMs: number
      /** The same by the origin's own word; 0 where it said nothing, or nothing good. */
      readonly originFreshMs: number
      readonly sharedDespiteAuthorization: boolean
    }
  | { readonly store: false; readonly reason: Reason }

/** RFC 9110 §15.1: statuses that may be stored on a heuristic. 206 is left out: a part is judged as the whole would be. */
const HEURISTICALLY_CACHEABLE: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
/** Statuses that a single `ttl` covers. An error or a missing page is kept only where the route says so by status. */
const COVERED_BY_TTL: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 308])
/** RFC 9111 §5.2.2.3: statuses whose caching requirements are known here, so that must-understand is kept. */
const UNDERSTOOD: ReadonlySet<number> = new Set([200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 405, 410, 414, 501])

const HEURISTIC_SHARE = 0.1
const MAX_HEURISTIC_MS = 86_400_000

/** Why a request is not looked up at all; null when it is. */
export function lookupRefusal(
  { method, headers }: Pick<RequestContext, 'method' | 'headers'>,
  { methods }: CachePolicy,
): Reason | null {
  if (!methods.has(method)) return 'method'
  return isKeyedByBody(method) && PRECONDITIONS.some((name) => hasHeader(headers, name)) ? 'precondition' : null
}

/** RFC 9110 §13.1: of a POST they are about what its URL shows at the origin, not about an answer to the same POST. */
const PRECONDITIONS = ['if-match', 'if-none-match', 'if-unmodified-since'] as const

/** True for a request for a part (RFC 9110 §14.2: only GET asks for one). */
export const asksForPart = (method: string, request: HeaderList): boolean =>
  method === 'GET' && hasHeader(request, 'range')

/** Why the answer to this request may be another than others get for the same fields; null when it is not.
 *  A field that Connection names does not reach the upstream, yet Vary would select by it. */
export function fillRefusal(request: HeaderList): Reason | null {
  return connectionNames(request).every((name) => name === 'close' || HOP_BY_HOP.has(name)) ? null : 'connection'
}

/** What a request carries that may make its answer one user's alone; the stronger of two. An API key in a field of its
 *  own counts as Authorization, which is what it is. */
export function credentialOf(
  request: HeaderList,
  { names, hasLength }: CredentialFields = WELL_KNOWN,
): 'authorization' | 'cookie' | null {
  let hasCookie = false
  for (let i = 0; i < request.length; i += 2) {
    const name = request[i] as string
    // Every hit comes by here, and most names are settled by their length.
    if (hasLength[name.length] !== true) continue
    const lower = name.toLowerCase()
    if (names.has(lower)) return 'authorization'
    hasCookie ||= lower === 'cookie'
  }
  return hasCookie ? 'cookie' : null
}

/** The credential by which an answer may be one user's alone, although its key does not tell users apart; null where there
 *  is none. */
export const barringCredential = (
  request: HeaderList,
  { isPublic, isPerUser, credentials }: CachePolicy,
): 'authorization' | 'cookie' | null => (isPublic || isPerUser ? null : credentialOf(request, credentials))

/** Why a stored response must not answer this request; null when it may. nowMs: wall clock for a fresh response; 0 for one
 *  that is to be validated or may answer stale, where it counts that the origin once gave it freshness for all. */
export function reuseRefusal(
  request: HeaderList,
  stored: Pick<StoredResponse, 'originFreshUntilMs' | 'sharedDespiteAuthorization'>,
  policy: CachePolicy,
  nowMs: number,
): Reason | null {
  const credential = barringCredential(request, policy)
  if (credential === null) return null
  if (credential === 'authorization' && !stored.sharedDespiteAuthorization) return credential
  return stored.originFreshUntilMs <= nowMs ? credential : null
}

/** Decides whether an answer may be stored for others (RFC 9111 §3); to a POST only with explicit freshness, the origin's
 *  or the route's (RFC 9110 §9.3.3), and never for asking about it: a condition on a POST means something else. nowMs: wall clock when its head came;
 *  delayMs: how long the exchange took, by which Age is corrected (§4.2.3). */
export function decideStore(
  request: Pick<RequestContext, 'method' | 'headers' | 'path'>,
  response: Storable,
  policy: CachePolicy,
  nowMs: number,
  delayMs: number,
): StoreVerdict {
  const { status, headers } = response
  const isOfGet = !isKeyedByBody(request.method)
  const { control, isTargeted } = controlOf(headers, policy.targeted)
  if (control === null) return no('invalid-cache-control')
  const refusal =
    storeRefusal(request.method, response, control, policy) ??
    (request.method === 'POST' ? postRefusal(response, policy) : null)
  if (refusal !== null) return no(refusal)

  const sharedDespiteAuthorization = control.isPublic || control.sMaxAgeSeconds !== null || control.mustRevalidate
  const credential = barringCredential(request.headers, policy)
  if (credential === 'authorization' && !sharedDespiteAuthorization) return no(credential)
  if (credential !== null && isDisguised(request.path, headers)) return no('disguised')

  const dateMs = parseHttpDate(getHeader(headers, 'date') ?? '') ?? nowMs
  const ageMs = correctedAgeMs(headers, dateMs, nowMs, delayMs)
  const givenMs = explicitLifetimeMs(isTargeted ? [] : headers, control, dateMs)
  // Services that answer POSTs say no-cache of everything, and mean browsers; what is meant for this cache counts.
  const isForBrowsers = !isTargeted && leavesToTtl(request.method, response, policy)
  const explicitMs = isForBrowsers && givenMs !== null && givenMs <= 0 ? null : givenMs
  const noCache = control.noCache && !isForBrowsers
  const originFreshMs = explicitMs === null ? 0 : Math.max(0, Math.min(explicitMs - ageMs, policy.maxMs))

  let freshMs: number
  if (credential !== null) {
    if (explicitMs === null) return no(credential)
    freshMs = originFreshMs
  } else {
    const routeMs = routeFreshMs(status, policy)
    const heuristicMs = isOfGet ? heuristicLifetimeMs(status, headers, control, dateMs) : null
    if (routeMs !== null && (policy.override || explicitMs === null)) freshMs = spread(routeMs, policy.random())
    else if (explicitMs !== null) freshMs = explicitMs - ageMs
    else if (policy.ttl === null && heuristicMs !== null) freshMs = heuristicMs - ageMs
    else if (noCache && HEURISTICALLY_CACHEABLE.has(status)) freshMs = 0
    else return no(HEURISTICALLY_CACHEABLE.has(status) ? 'no-freshness' : 'status')
    freshMs = Math.min(Math.max(freshMs, policy.minMs), policy.maxMs)
  }
  // RFC 9111 §5.2.2.4: kept, and validated each time.
  if (noCache) freshMs = 0
  // What is not fresh is of use for the next request only if the origin can be asked about it.
  if (freshMs <= 0 && (credential !== null || !isOfGet || validatorsOf(headers).length === 0)) {
    return no(noCache ? 'no-cache' : 'not-fresh')
  }
  return { store: true, ageMs, freshMs, originFreshMs, sharedDespiteAuthorization, ...staleMs(control, policy) }
}

/** RFC 9111 §4.2.4 and RFC 5861: for how long past its freshness a response may be used. s-maxage carries
 *  proxy-revalidate for a shared cache (§5.2.2.10). */
function staleMs(
  control: CacheControl,
  policy: CachePolicy,
): { readonly staleWhileRevalidateMs: number; readonly staleIfErrorMs: number } {
  const { mustRevalidate, proxyRevalidate, noCache, sMaxAgeSeconds } = control
  if (mustRevalidate || proxyRevalidate || noCache || sMaxAgeSeconds !== null) {
    return { staleWhileRevalidateMs: 0, staleIfErrorMs: 0 }
  }
  const { staleWhileRevalidateSeconds, staleIfErrorSeconds } = control
  return {
    staleWhileRevalidateMs:
      staleWhileRevalidateSeconds === null ? policy.staleWhileRevalidateMs : staleWhileRevalidateSeconds * 1000,
    staleIfErrorMs: staleIfErrorSeconds === null ? policy.staleIfErrorMs : staleIfErrorSeconds * 1000,
  }
}

/** The names that Vary lists, lower case, sorted; null when they cannot be compared: `*` anywhere (RFC 9110 §12.5.5), or
 *  a field that the gateway writes into each request itself, whatever the client sent. */
export function varyNames(headers: HeaderList): readonly string[] | null {
  const value = getCombined(headers, 'vary')
  if (value === null) return NO_NAMES
  const names = [...new Set(listMembers(value.toLowerCase()))].toSorted()
  return names.some((name) => name === '*' || WRITTEN_FOR_EACH.has(name)) ? null : names
}

const NO_NAMES: readonly string[] = []

/** Scheme and host, which the gateway writes too, are in the key. */
const WRITTEN_FOR_EACH: ReadonlySet<string> = new Set(['x-forwarded-for', 'forwarded', 'via', 'x-request-id'])

/** RFC 9213 §2.2: the first targeted field that is valid counts alone, in place of Cache-Control and Expires. */
function controlOf(
  headers: HeaderList,
  targeted: readonly string[],
): { readonly control: CacheControl | null; readonly isTargeted: boolean } {
  for (const lowerName of targeted) {
    const value = getCombined(headers, lowerName)
    const control = value === null ? null : parseTargeted(value)
    if (control !== null) return { control, isTargeted: true }
  }
  return { control: parseCacheControl(getCombined(headers, 'cache-control') ?? ''), isTargeted: false }
}

const no = (reason: Reason): StoreVerdict => ({ store: false, reason })

function storeRefusal(
  method: string,
  { status, headers, framed }: Storable,
  control: CacheControl,
  policy: CachePolicy,
): Reason | null {
  if (status === 206) return 'partial'
  if (status < 200 || status === 304) return 'status'
  if (control.mustUnderstand && !UNDERSTOOD.has(status)) return 'status'
  if (control.noStore && !isForOthers(control)) return 'no-store'
  if (control.isPrivate) return 'private'
  if (varyNames(headers) === null) return 'vary-star'
  if (!policy.storeSetCookie && hasHeader(headers, 'set-cookie')) return 'set-cookie'
  const refusal = policy.streamRule.refusal(method, { status, headers })
  if (refusal !== null) return refusal
  if (!framed) return 'no-length'
  const length = getHeader(headers, 'content-length')
  return length !== null && Number(length) > policy.maxObjectBytes ? 'too-large' : null
}

/** A POST may mean anything, so of its answers only a 200 is stored, and what the route's ttl names. */
const postRefusal = ({ status }: Storable, { ttl }: CachePolicy): Reason | null =>
  status === 200 || ttl?.byStatusMs?.has(status) === true ? null : 'status'

/** Whether the route's ttl takes the place of a lifetime of nothing: of answers to POST, and of streams, which say no-cache
 *  nearly always. */
const leavesToTtl = (method: string, { status, headers }: Storable, policy: CachePolicy): boolean =>
  policy.methods.has(method) &&
  policy.ignoresNoCache &&
  routeFreshMs(status, policy) !== null &&
  (method === 'POST' || policy.streamRule.isStream(method, headers))

/** RFC 9111 §5.2.2.3: no-store beside must-understand is for caches that do not know the status. Only where the rest of
 *  the field asks for storing, or a route's ttl would undo a no-store. */
const isForOthers = ({ mustUnderstand, maxAgeSeconds, sMaxAgeSeconds }: CacheControl): boolean =>
  mustUnderstand && (maxAgeSeconds !== null || sMaxAgeSeconds !== null)

const ASSET = /\.(?:css|m?js|png|jpe?g|gif|webp|avif|svg|ico|bmp|woff2?|ttf|otf|eot)$/i
const PAGE = /^\s*(?:text\/html|application\/(?:xhtml\+xml|(?:[\w.-]+\+)?json))\b/i

/** A page of a user's own under a name like /account/x.css is how web cache deception looks: origins that ignore the end
 *  of a path, behind rules that mark whatever ends like an asset as public. */
const isDisguised = (path: string, headers: HeaderList): boolean =>
  ASSET.test(path) && PAGE.test(getHeader(headers, 'content-type') ?? '')

/** RFC 9111 §4.2.1: s-maxage, then max-age, then Expires; an invalid Expires is in the past (§5.3). */
function explicitLifetimeMs(headers: HeaderList, control: CacheControl, dateMs: number): number | null {
  const seconds = control.sMaxAgeSeconds ?? control.maxAgeSeconds
  if (seconds !== null) return seconds * 1000
  const lines = getHeaders(headers, 'expires')
  if (lines.length === 0) return null
  const expiresMs = lines.length === 1 ? parseHttpDate(lines[0] as string) : null
  return expiresMs === null ? 0 : expiresMs - dateMs
}

const JITTER_SHARE = 0.05

/** Up to 5 % less or more, so that what was stored together does not expire together. */
const spread = (lifetimeMs: number, random: number): number =>
  Math.round(lifetimeMs * (1 + JITTER_SHARE * (2 * random - 1)))

/** The route's ttl counts from the moment when the answer came: a backend whose clock is wrong does not shorten it. */
function routeFreshMs(status: number, { ttl }: CachePolicy): number | null {
  if (ttl === null) return null
  if (ttl.byStatusMs !== null) return ttl.byStatusMs.get(status) ?? null
  return COVERED_BY_TTL.has(status) ? ttl.everyMs : null
}

/** RFC 9111 §4.2.2: a tenth of the time since the last change, at most a day. */
function heuristicLifetimeMs(
  status: number,
  headers: HeaderList,
  control: CacheControl,
  dateMs: number,
): number | null {
  if (!HEURISTICALLY_CACHEABLE.has(status) && !control.isPublic) return null
  const changedMs = parseHttpDate(getHeader(headers, 'last-modified') ?? '')
  if (changedMs === null || changedMs >= dateMs) return null
  return Math.min((dateMs - changedMs) * HEURISTIC_SHARE, MAX_HEURISTIC_MS)
}

/** RFC 9111 §4.2.3: the larger of what Age and what Date say. Without Age the origin itself answered, and its Date says
 *  when: the time that it took to make the answer does not make the answer old. */
function correctedAgeMs(headers: HeaderList, dateMs: number, nowMs: number, delayMs: number): number {
  const ageSeconds = parseAge(getHeaders(headers, 'age'))
  const apparentMs = Math.max(0, nowMs - dateMs)
  return ageSeconds === null ? apparentMs : Math.max(apparentMs, ageSeconds * 1000 + delayMs)
}
