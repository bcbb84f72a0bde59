// What the cache options of a route contradict: one another, its methods, its path, and what the gateway has to share.

import { TAG_PARAMETER, cachedMethods } from '../cache/options.ts'
import { METHODS, isSafeMethod } from '../http/methods.ts'
import { checkBodies, isGraphql } from './check-bodies.ts'
import type { Finding } from './issues.ts'
import { isMapping, valueAt } from './path.ts'
import type { Path } from './path.ts'
import { type RawRoute, complaint, durationAt, listAt, methodsOf, upperCase } from './raw.ts'

/** All findings about how routes cache and purge. */
export const checkCaching = (raw: unknown, routes: readonly RawRoute[]): Finding[] => [
  ...routes.flatMap(checkCache),
  ...routes.flatMap(checkBodies),
  ...checkSharing(raw, routes),
  ...routes.flatMap(checkTags),
  ...routes.flatMap((route) => checkLimited(route, raw)),
]

function checkCache(route: RawRoute): Finding[] {
  const findings: Finding[] = []
  const min = durationAt(route.fields, ['cache', 'clamp', 'min'])
  const max = durationAt(route.fields, ['cache', 'clamp', 'max'])
  if (min !== null && max !== null && min > max) {
    const path = [...route.path, 'cache', 'clamp', 'min']
    findings.push({ path, at: 'value', expected: 'no more than clamp.max', got: null, cure: null })
  }
  return [...findings, ...checkCachedMethods(route), ...checkKey(route), ...checkTerminal(route)]
}

const KNOWN: ReadonlySet<string> = new Set(METHODS)

/** A POST is answered from the cache only where the file says what of its body counts and who may share the answer. */
function checkCachedMethods({ path, fields }: RawRoute): Finding[] {
  const cache = fields['cache']
  const own = upperCase(fields['methods'])
  const listed = isMapping(cache) ? upperCase(cache['methods']) : null
  if (!isMapping(cache) || [...(own ?? []), ...(listed ?? [])].some((method) => !KNOWN.has(method))) return []
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
  for (const option of FOR_POST) {
    if (methods.size === 0 || methods.has('POST') || hasEnd(cache) || !Object.hasOwn(cache, option)) continue
    fault([option], 'has no effect: no answer to a POST is stored here', 'remove it')
  }
  if (methods.size > 0 && !methods.has('POST') && !hasEnd(cache) && isPaced(cache)) {
    const cure = 'say by `terminal` how a stream ends, or remove it'
    fault(['replay'], 'has no effect: no stream is stored here, since nobody says how one ends', cure)
  }
  return findings
}

const hasEnd = (cache: object): boolean => Object.hasOwn(cache, 'terminal')

const isPaced = (cache: object): boolean => {
  const replay = valueAt(cache, ['replay']) ?? 'instant'
  return typeof replay !== 'string' || replay.toLowerCase() !== 'instant'
}

function checkTerminal({ path, fields }: RawRoute): Finding[] {
  const terminal = valueAt(fields, ['cache', 'terminal'])
  if (!isMapping(terminal) || Object.keys(terminal).length > 0) return []
  const cure = 'say what it is: by `event`, `data` or `when`'
  return [complaint([...path, 'cache', 'terminal'], 'any event would be the last one', cure)]
}

/** Options that concern the answers to POST, and streams, alone. */
const FOR_POST = ['storeUnfinished', 'originNoCache'] as const

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

const TAG_LISTS: readonly Path[] = [['cache', 'tags'], ['purges']]

/** What a tag takes from the path must be in the path, and a route that changes nothing purges nothing. */
function checkTags(route: RawRoute): Finding[] {
  const findings: Finding[] = []
  const { path, fields } = route
  if (typeof fields['path'] !== 'string') return findings
  const listed = TAG_LISTS.filter((at) => listAt(fields, at).length > 0)
  // Most routes have none.
  if (listed.length === 0) return findings
  const known = new Set(fields['path'].split('/').filter((segment) => segment.startsWith(':')))
  for (const at of listed) {
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
  const changesNothing = (method: string): boolean => isSafeMethod(method) || (cached.has(method) && !isGraphql(route))
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
