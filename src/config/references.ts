// What no single value of the file can know: names that must exist elsewhere, routes that contradict one another,
// options that only make sense together. Reads the raw document, so these faults are told beside all others; a part
// that is broken or absent is passed over here, the schema complains of it.

import { TAG_PARAMETER, cachedMethods } from '../cache/options.ts'
import { parseDuration } from '../core/decode.ts'
import { MONTH_MS, isAlignable } from '../limit/calendar.ts'
import { METHODS, isSafeMethod } from '../http/methods.ts'
import { limitOptions } from '../limit/options.ts'
import { compileQuota } from '../limit/quota.ts'
import { parseAddress } from '../server/options.ts'
import { suggestName } from './issues.ts'
import type { Finding } from './issues.ts'
import { formatPath, isMapping, valueAt } from './path.ts'
import type { Path } from './path.ts'

/** A route with its place, reduced to what the checks read. */
interface RawRoute {
  readonly path: Path
  readonly fields: Record<string, unknown>
}

/** All findings, in no particular order. raw: plain data after substitution; never throws, whatever it is. */
export function checkReferences(raw: unknown): Finding[] {
  const routes: RawRoute[] = []
  for (const [i, fields] of listAt(raw, ['routes']).entries()) {
    if (isMapping(fields)) routes.push({ path: ['routes', i], fields })
  }
  return [
    ...checkNames(raw, routes),
    ...checkRivals(routes),
    ...checkHealth(raw, routes),
    ...checkAdmin(raw),
    ...checkFraming(raw),
    ...checkLimits(raw),
    ...checkIdentity(raw, routes),
    ...routes.flatMap(checkRewrite),
    ...routes.flatMap(checkCache),
    ...checkSharing(raw, routes),
    ...routes.flatMap(checkTags),
    ...routes.flatMap((route) => checkLimited(route, raw)),
  ]
}

function checkNames(raw: unknown, routes: readonly RawRoute[]): Finding[] {
  const findings: Finding[] = []
  const upstreams = valueAt(raw, ['upstreams'])
  const limits = valueAt(raw, ['limits']) ?? {}

  const checkName = (path: Path, what: string, known: unknown): void => {
    const name = valueAt(raw, path)
    if (typeof name !== 'string' || !isMapping(known) || Object.hasOwn(known, name)) return
    const cure = suggestName(name, Object.keys(known))
    findings.push({ path, at: 'value', expected: `the name of ${what}`, got: null, cure })
  }
  const checkUpstream = (path: Path): void => checkName(path, 'an upstream', upstreams)
  const checkLimits = (path: Path): void => {
    const seen = new Set<unknown>()
    for (const [i, name] of listAt(raw, path).entries()) {
      if (seen.has(name)) findings.push(complaint([...path, i], 'the same limit twice', 'remove one'))
      else checkName([...path, i], 'a limit', limits)
      seen.add(name)
    }
  }

  checkUpstream(['defaults', 'upstream'])
  checkLimits(['defaults', 'limits'])
  const defaults = valueAt(raw, ['defaults'])
  const hasDefault = defaults !== undefined && (!isMapping(defaults) || Object.hasOwn(defaults, 'upstream'))
  for (const { path, fields } of routes) {
    if (Object.hasOwn(fields, 'upstream')) checkUpstream([...path, 'upstream'])
    else if (!hasDefault) {
      const cure = 'add one here, or for all routes as defaults.upstream'
      findings.push({ path: [...path, 'upstream'], at: 'value', expected: 'the name of an upstream', got: null, cure })
    }
    checkLimits([...path, 'limits'])
  }
  return findings
}

/** Routes that share host and path: two that would answer the same request, or one that never answers any. */
function checkRivals(routes: readonly RawRoute[]): Finding[] {
  const findings: Finding[] = []
  const groups = Map.groupBy(
    routes.filter(({ fields }) => typeof fields['path'] === 'string'),
    ({ fields }) => `${JSON.stringify(fields['host'])} ${shapeOf(fields['path'] as string)}`,
  )
  for (const rivals of groups.values()) {
    /** First route that has the method; '*' stands for a route without `methods`. */
    const owners = new Map<string, RawRoute>()
    for (const route of rivals) {
      const methods = methodsOf(route) ?? ['*']
      const owner = methods.map((method) => owners.get(method)).find((other) => other !== undefined)
      if (owner !== undefined) {
        const cure = 'tell them apart by path, host or methods, or remove one'
        findings.push(complaint([...route.path, 'path'], `ties with ${formatPath(owner.path)}`, cure))
      }
      for (const method of methods) if (!owners.has(method)) owners.set(method, route)
    }
    const rest = owners.get('*')
    if (rest !== undefined && METHODS.every((method) => owners.has(method))) {
      const got = 'never matches: routes of the same path that list methods take every one'
      findings.push(complaint([...rest.path, 'path'], got, 'remove it, or take a method from their lists'))
    }
  }
  return findings
}

/** Two patterns of one shape match the same paths: parameter names do not count. */
const shapeOf = (pattern: string): string => pattern.replaceAll(/\/:[^/]*/g, '/:')

const methodsOf = ({ fields }: RawRoute): string[] | null => upperCase(fields['methods'])

/** Each text of a list once; null where it is no list. */
function upperCase(list: unknown): string[] | null {
  if (!Array.isArray(list)) return null
  const texts = (list as unknown[]).filter((method) => typeof method === 'string')
  return [...new Set(texts.map((method) => method.toUpperCase()))]
}

function checkHealth(raw: unknown, routes: readonly RawRoute[]): Finding[] {
  const health = isMapping(raw) && Object.hasOwn(raw, 'health') ? raw['health'] : '/health'
  const got = 'never matches: the gateway answers its health path itself'
  return routes
    .filter(({ fields }) => fields['path'] === health)
    .map(({ path }) => complaint([...path, 'path'], got, 'write health: false, or give health another path'))
}

const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|::1)$/

function checkAdmin(raw: unknown): Finding[] {
  const listen = valueAt(raw, ['admin', 'listen'])
  const address = typeof listen === 'string' ? parseAddress(listen) : null
  const admin = valueAt(raw, ['admin'])
  const isBroken = isMapping(admin) && Object.hasOwn(admin, 'token') && typeof admin['token'] !== 'string'
  if (address === null || LOOPBACK.test(address.host) || isBroken) return []
  const token = valueAt(raw, ['admin', 'token']) ?? ''
  if (token !== '') return []
  const cure = 'set admin.token, or listen on 127.0.0.1'
  return [
    { path: ['admin', 'listen'], at: 'value', expected: 'a loopback address where no token is set', got: null, cure },
  ]
}

/** Who cuts a TLS connection off shortens what is read from it (RFC 9112 §9.8), so its end proves nothing. */
function checkFraming(raw: unknown): Finding[] {
  const upstreams = valueAt(raw, ['upstreams'])
  return Object.keys(isMapping(upstreams) ? upstreams : {}).flatMap((name): Finding[] => {
    const path: Path = ['upstreams', name, 'framing']
    if (String(valueAt(raw, path)).toLowerCase() !== 'lenient') return []
    const urls = listAt(raw, ['upstreams', name, 'targets']).map((target) => valueAt(target, ['url']) ?? target)
    if (!urls.some((url) => typeof url === 'string' && /^https:/i.test(url))) return []
    const expected = 'strict where a target is https'
    return [{ path, at: 'value', expected, got: null, cure: 'a TLS connection that was cut off looks ended' }]
  })
}

/** What of a limit goes with what: a rate has a window, a quota of the calendar one that a calendar has, slots have none. */
function checkLimits(raw: unknown): Finding[] {
  const limits = valueAt(raw, ['limits'])
  const knowsUsers = valueAt(raw, ['identity']) !== undefined
  const entries = Object.entries(isMapping(limits) ? limits : {})
  return [
    ...entries.flatMap(([name, limit]) => (isMapping(limit) ? checkLimit(['limits', name], limit, knowsUsers) : [])),
    ...checkNumbers(entries),
  ]
}

/** Two policies that Redis could not tell apart would share their counters. */
function checkNumbers(limits: readonly (readonly [name: string, limit: unknown])[]): Finding[] {
  const owners = new Map<number, string>()
  return limits.flatMap(([name, limit]): Finding[] => {
    const options = limitOptions.safeParse(limit)
    if (!options.success) return []
    const { number } = compileQuota(name, options.data)
    const owner = owners.get(number)
    owners.set(number, name)
    if (owner === undefined) return []
    return [complaint(['limits', name], `by chance the same number in Redis as ${owner}`, 'rename it')]
  })
}

const NOT_OF_SLOTS = ['window', 'burst', 'align', 'count', 'unit', 'reserve', 'cost', 'costField']

function checkLimit(path: Path, limit: Record<string, unknown>, knowsUsers: boolean): Finding[] {
  const findings: Finding[] = []
  const refuse = (key: string, got: string, cure: string): void => {
    if (limit[key] !== undefined) findings.push(complaint([...path, key], got, cure))
  }
  const names = (key: string, isUser: (text: unknown) => boolean): boolean => listOf(limit[key]).some(isUser)
  const cure = 'say under identity.user how users are known'
  if (!knowsUsers && names('key', (part) => part === 'user')) refuse('key', 'names the user, and nobody is known', cure)
  for (const key of knowsUsers ? [] : ['allow', 'deny']) {
    const isUser = (member: unknown) => typeof member === 'string' && member.startsWith('user:')
    if (names(key, isUser)) refuse(key, 'names users, and nobody is known', cure)
  }
  if (isWord(limit['kind'], 'concurrency')) {
    for (const key of NOT_OF_SLOTS) refuse(key, 'says nothing of requests at the same time', 'remove it')
    return findings
  }
  return [...findings, ...checkWindow(path, limit), ...checkCost(path, limit)]
}

function checkWindow(path: Path, limit: Record<string, unknown>): Finding[] {
  const at: Path = [...path, 'window']
  if (limit['window'] === undefined) {
    const expected = 'a duration such as "30s", at least 100ms, or month'
    return [{ path: at, at: 'value', expected, got: null, cure: 'add "window"' }]
  }
  const text = limit['window']
  if (typeof text !== 'string') return []
  const windowMs = text === 'month' ? MONTH_MS : parseDuration(text)
  if (limit['align'] === undefined) {
    const cure = 'add align: UTC, or another time zone'
    return text === 'month' ? [complaint(at, 'a month begins and ends by a calendar', cure)] : []
  }
  const findings: Finding[] = []
  if (limit['burst'] !== undefined) {
    const got = 'a burst is of a steady rate, a window of the calendar has none'
    findings.push(complaint([...path, 'burst'], got, 'remove burst or align'))
  }
  if (windowMs !== null && !isAlignable(windowMs)) {
    const cure = 'with align: month, 7d, 1d, or what divides a day, from 1s'
    findings.push(complaint(at, `${text} fits no calendar`, cure))
  }
  return findings
}

function checkCost(path: Path, limit: Record<string, unknown>): Finding[] {
  const isTokens = isWord(limit['unit'], 'tokens')
  if (isTokens && limit['cost'] !== undefined) {
    return [complaint([...path, 'cost'], 'is of requests, and tokens are counted', 'write reserve, or remove it')]
  }
  if (!isTokens && limit['reserve'] !== undefined) {
    return [complaint([...path, 'reserve'], 'is of tokens, and requests are counted', 'add unit: tokens, or remove it')]
  }
  if (isMapping(limit['cost']) || limit['cost'] === undefined) return []
  const [cost, most] = [Number(limit['cost']), Number(limit['burst'] ?? limit['limit'])]
  if (cost === 0) return [complaint([...path, 'cost'], 'limits nothing', 'write 1 or more')]
  if (cost > most) return [complaint([...path, 'cost'], `never fits into ${most}`, 'raise limit or burst')]
  return []
}

const isWord = (value: unknown, word: string): boolean => typeof value === 'string' && value.toLowerCase() === word

const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : [value])

/** Keys without a source of users, or the other way round, and tokens that two kinds of key would have to prove. */
function checkIdentity(raw: unknown, routes: readonly RawRoute[]): Finding[] {
  const findings: Finding[] = []
  const sources = listAt(raw, ['identity', 'user'])
  if (!isMapping(valueAt(raw, ['identity']))) {
    for (const { path, fields } of routes) {
      if (fields['auth'] === undefined) continue
      const cure = 'say under identity.user how users are known, or remove it'
      findings.push({
        path: [...path, 'auth'],
        at: 'key',
        expected: null,
        got: 'lets nobody in without identity',
        cure,
      })
    }
  }
  for (const [i, source] of sources.entries()) {
    const path: Path = ['identity', 'user', i]
    const jwt = valueAt(source, ['jwt'])
    if (isMapping(source) && (jwt === undefined) === (source['header'] === undefined)) {
      const got = jwt === undefined ? 'neither' : 'both'
      findings.push({ path, at: 'value', expected: 'either jwt or header', got, cure: null })
    }
    if (isMapping(jwt)) findings.push(...checkJwt([...path, 'jwt'], jwt))
    const isTrusting = String(valueAt(source, ['trusted'])) === 'true'
    if (isTrusting && listAt(raw, ['trustedProxies']).length === 0) {
      const cure = 'list the proxies that write it under trustedProxies'
      findings.push(complaint([...path, 'trusted'], 'believes nobody: there are no trusted proxies', cure))
    }
  }
  return findings
}

function checkJwt(path: Path, jwt: Record<string, unknown>): Finding[] {
  const [hasKeys, hasSecret] = [jwt['jwks'] !== undefined, jwt['secret'] !== undefined]
  if (hasKeys === hasSecret) {
    return [{ path, at: 'value', expected: 'either jwks or secret', got: hasKeys ? 'both' : 'neither', cure: null }]
  }
  return listAt(jwt, ['algorithms']).flatMap((name, i): Finding[] => {
    if ((String(name).toUpperCase() === 'HS256') === hasSecret) return []
    const cure = hasSecret ? 'a secret goes with HS256 alone' : 'HS256 needs a secret; public keys are no secret'
    return [
      complaint([...path, 'algorithms', i], `${String(name)} does not go with ${hasSecret ? 'secret' : 'jwks'}`, cure),
    ]
  })
}

function checkRewrite({ path, fields }: RawRoute): Finding[] {
  const strip = valueAt(fields, ['rewrite', 'strip'])
  const pattern = fields['path']
  if (typeof strip !== 'string' || typeof pattern !== 'string') return []
  // What every matched path begins with: the segments before the first parameter or `*`.
  const segments = pattern.split('/')
  const open = segments.findIndex((segment) => segment === '*' || segment.startsWith(':'))
  const certain = open === -1 ? pattern : segments.slice(0, open).join('/')
  const wanted = strip.replace(/\/$/, '')
  if (certain === wanted || certain.startsWith(`${wanted}/`)) return []
  const expected =
    certain === ''
      ? 'nothing, because the path of the route has no fixed beginning'
      : 'what the path of the route begins with, in whole segments'
  return [{ path: [...path, 'rewrite', 'strip'], at: 'value', expected, got: null, cure: null }]
}

function checkCache(route: RawRoute): Finding[] {
  const findings: Finding[] = []
  const min = durationAt(route.fields, ['cache', 'clamp', 'min'])
  const max = durationAt(route.fields, ['cache', 'clamp', 'max'])
  if (min !== null && max !== null && min > max) {
    const path = [...route.path, 'cache', 'clamp', 'min']
    findings.push({ path, at: 'value', expected: 'no more than clamp.max', got: null, cure: null })
  }
  return [...findings, ...checkCachedMethods(route), ...checkKey(route)]
}

/** A POST is answered from the cache only where the file says what of its body counts and who may share the answer. */
function checkCachedMethods({ path, fields }: RawRoute): Finding[] {
  const cache = fields['cache']
  const own = upperCase(fields['methods'])
  const listed = isMapping(cache) ? upperCase(cache['methods']) : null
  const known = new Set<string>(METHODS)
  if (!isMapping(cache) || [...(own ?? []), ...(listed ?? [])].some((method) => !known.has(method))) return []
  if (own?.length === 0 || listed?.length === 0) return []

  const findings: Finding[] = []
  const fault = (at: Path, got: string, cure: string): void => {
    findings.push({ path: [...path, 'cache', ...at], at: 'key', expected: null, got, cure })
  }
  for (const [i, method] of (listed ?? []).entries()) {
    if (own !== null && !own.includes(method)) {
      findings.push(
        complaint([...path, 'cache', 'methods', i], `${method} never comes here`, 'add it to the methods of the route'),
      )
    }
  }
  const hasBodyKey = valueAt(cache, ['key', 'body']) !== undefined
  const methods = cachedBy(cache, own)
  const isByBody = methods.has('POST') || methods.has('QUERY')
  if (methods.has('HEAD') && !methods.has('GET'))
    fault(['methods'], 'HEAD alone, which stores nothing', 'write GET; HEAD comes with it')
  if (methods.has('POST') ? !hasBodyKey : methods.size === 0 && own?.includes('POST') === true) {
    const cure =
      'say what of the body counts, `key: {body: canonical}`, and who may share, `scope: public` or `scope: user`'
    fault([], 'tells no POST from another', cure)
  } else if (methods.size === 0)
    fault([], 'has no effect: no method of this route is answered from a cache', 'remove it')
  else if (methods.has('POST') && isAuto(cache['scope'])) {
    const cure = 'add `scope: public` where all who send the same may share an answer, or `scope: user`'
    fault([], 'does not say who may share the answer to a POST', cure)
  }
  if (hasBodyKey && methods.size > 0 && !isByBody) {
    fault(
      ['key', 'body'],
      `has no effect: ${[...methods].join(' and ')} have no body`,
      'add `methods: [GET, POST]` to the cache',
    )
  }
  return findings
}

const cachedBy = (cache: object, own: readonly string[] | null): ReadonlySet<string> =>
  cachedMethods(upperCase(valueAt(cache, ['methods'])), own, valueAt(cache, ['key', 'body']) !== undefined)

const isAuto = (scope: unknown): boolean =>
  scope === undefined || (typeof scope === 'string' && scope.toLowerCase() === 'auto')

function checkKey({ path, fields }: RawRoute): Finding[] {
  const findings: Finding[] = []
  const query = valueAt(fields, ['cache', 'key', 'query'])
  const at = [...path, 'cache', 'key', 'query']
  if (isMapping(query)) {
    const hasBoth = Object.hasOwn(query, 'only') && Object.hasOwn(query, 'ignore')
    const isEmpty = Object.keys(query).length === 0
    if (hasBoth) findings.push(complaint(at, 'both `only` and `ignore`', '`only` leaves out all others; remove one'))
    if (isEmpty) findings.push(complaint(at, 'neither `only` nor `ignore`', 'list parameters in one of them'))
  }
  if (isAuto(valueAt(fields, ['cache', 'scope'])) && listAt(fields, ['cache', 'key', 'cookies']).length > 0) {
    const got = 'has no effect: a request with cookies shares nothing'
    const cure = 'add `scope: public` where all who have the same of these may share, or `scope: user`'
    findings.push({ path: [...path, 'cache', 'key', 'cookies'], at: 'key', expected: null, got, cure })
  }
  return findings
}

/** An answer in the place of a refusal needs both: what refuses and what answers. */
function checkLimited({ path, fields }: RawRoute, raw: unknown): Finding[] {
  if (String(fields['onLimited']).toLowerCase() !== 'stale') return []
  const at = [...path, 'onLimited']
  const got = 'has no effect: this route has no'
  if (fields['cache'] === undefined) return [complaint(at, `${got} cache`, 'add one, or write deny')]
  const limits = Object.hasOwn(fields, 'limits') ? fields['limits'] : valueAt(raw, ['defaults', 'limits'])
  const isUnlimited = limits === undefined || (Array.isArray(limits) && limits.length === 0)
  return isUnlimited ? [complaint(at, `${got} limits`, 'name some, or write deny')] : []
}

/** What instances share, they share through Redis. */
function checkSharing(raw: unknown, routes: readonly RawRoute[]): Finding[] {
  const url = valueAt(raw, ['redis', 'url']) ?? ''
  if (url !== '') return []
  return routes
    .filter(({ fields }) => valueAt(fields, ['cache', 'collapse']) === 'shared')
    .map(({ path }) => ({
      path: [...path, 'cache', 'collapse'],
      at: 'value',
      expected: 'true or false where no Redis is shared',
      got: null,
      cure: 'set redis.url, or write true',
    }))
}

/** What a tag takes from the path must be in the path, and a route that changes nothing purges nothing. */
function checkTags(route: RawRoute): Finding[] {
  const findings: Finding[] = []
  const { path, fields } = route
  if (typeof fields['path'] !== 'string') return findings
  const known = new Set(fields['path'].split('/').filter((segment) => segment.startsWith(':')))
  for (const at of [['cache', 'tags'], ['purges']]) {
    for (const [i, tag] of listAt(fields, at).entries()) {
      const unknown = typeof tag === 'string' ? parametersOf(tag).find((name) => !known.has(name)) : undefined
      if (unknown === undefined) continue
      const cure = known.size === 0 ? 'the path has no parameters' : `the path has ${[...known].join(', ')}`
      findings.push({ path: [...path, ...at, i], at: 'value', expected: 'parameters of the path', got: unknown, cure })
    }
  }
  const methods = methodsOf(route) ?? ['POST']
  // What is answered from the cache changes nothing.
  const cached = isMapping(fields['cache']) ? cachedBy(fields['cache'], methodsOf(route)) : new Set<string>()
  const changesNothing = (method: string): boolean => isSafeMethod(method) || cached.has(method)
  if (listAt(fields, ['purges']).length > 0 && methods.length > 0 && methods.every(changesNothing)) {
    const got = 'has no effect: the methods of this route change nothing'
    findings.push({
      path: [...path, 'purges'],
      at: 'key',
      expected: null,
      got,
      cure: 'move it to the route that writes',
    })
  }
  return findings
}

/** `:name`, as written. */
const parametersOf = (text: string): readonly string[] => text.match(TAG_PARAMETER) ?? []

function durationAt(root: unknown, path: Path): number | null {
  const text = valueAt(root, path)
  return typeof text === 'string' ? parseDuration(text) : null
}

function listAt(root: unknown, path: Path): readonly unknown[] {
  const value = valueAt(root, path)
  return Array.isArray(value) ? value : []
}

const complaint = (path: Path, got: string, cure: string): Finding => ({ path, at: 'value', expected: null, got, cure })
