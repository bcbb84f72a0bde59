// What no single value of the file can know: names that must exist elsewhere, routes that contradict one another,
// options that only make sense together. Reads the raw document, so these faults are told beside all others; a part
// that is broken or absent is passed over here, the schema complains of it.

import { METHODS } from '../http/methods.ts'
import { parseAddress } from '../server/options.ts'
import { checkCaching } from './check-cache.ts'
import { checkCanary, checkMirror } from './check-canary.ts'
import { checkIdempotency } from './check-idempotency.ts'
import { checkIdentity } from './check-identity.ts'
import { checkLimits } from './check-limits.ts'
import { checkUpstreams } from './check-upstreams.ts'
import { suggestName } from './issues.ts'
import type { Finding } from './issues.ts'
import { formatPath, isMapping, valueAt } from './path.ts'
import type { Path } from './path.ts'
import { type RawRoute, complaint, listAt, methodsOf } from './raw.ts'

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
    ...checkEncryption(raw),
    ...checkOverload(raw),
    ...checkUpstreams(raw),
    ...checkLimits(raw),
    ...checkIdentity(raw, routes),
    ...routes.flatMap(checkRewrite),
    ...routes.flatMap(checkFallback),
    ...routes.flatMap(checkWebSocket),
    ...routes.flatMap((route) => [...checkCanary(raw, route), ...checkMirror(raw, route)]),
    ...routes.flatMap(checkIdempotency),
    ...checkCaching(raw, routes),
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
    checkUpstream([...path, 'canary', 'upstream'])
    checkUpstream([...path, 'mirror', 'upstream'])
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

/** What is stored comes from an upstream, so a line beyond the one where nobody asks one is never reached. */
function checkOverload(raw: unknown): Finding[] {
  const lineAt = (name: string): number => Number(valueAt(raw, ['overload', name]))
  const storing = lineAt('storing')
  const heap = valueAt(raw, ['overload', 'heap']) === undefined ? 0.95 : lineAt('heap')
  if (!(storing > heap)) return []
  const got = `is never reached: above ${heap} nothing comes from an upstream (overload.heap)`
  return [complaint(['overload', 'storing'], got, 'write less, or leave it out')]
}

/** Names made without a secret would tell what is sealed behind them, to who can guess it. */
function checkEncryption(raw: unknown): Finding[] {
  if (valueAt(raw, ['redis', 'encrypt']) === undefined || valueAt(raw, ['redis', 'secret']) !== undefined) return []
  return [
    complaint(['redis', 'encrypt'], 'not without redis.secret, which the names in Redis are made with', 'add one'),
  ]
}

/** What says of WebSockets what cannot be. */
function checkWebSocket(route: RawRoute): Finding[] {
  const { path, fields } = route
  const methods = methodsOf(route)
  const isOn = String(fields['websocket']) === 'true'
  if (isOn && methods !== null && !methods.includes('GET')) {
    return [complaint([...path, 'websocket'], 'never happens: a WebSocket begins with a GET', 'add GET to methods')]
  }
  if (isOn) return []
  const timeout: Path = [...path, 'timeouts', 'websocketIdle']
  if (valueAt(fields, ['timeouts', 'websocketIdle']) === undefined) return []
  return [complaint(timeout, 'means nothing: the route lets no WebSockets through', 'add websocket: true')]
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

/** Of a status that has no content (RFC 9110 §6.4.1). */
function checkFallback({ path, fields }: RawRoute): Finding[] {
  const status = Number(valueAt(fields, ['fallback', 'status']))
  const body = valueAt(fields, ['fallback', 'body']) ?? ''
  if (body === '' || (status !== 204 && status !== 205 && status !== 304)) return []
  return [complaint([...path, 'fallback', 'body'], `an answer with ${status} has none`, 'remove it')]
}
