// The route table in words: one row per route, as `weirgate check`, `GET /api/routes` and every log line name it.

import type { RouteOptions } from '../config/schema.ts'
import type { RouteRow } from '../core/control.ts'
import { formatDuration } from '../core/decode.ts'

/** upstream, limits: what the route resolves to, defaults applied. */
export function describeRoute(options: RouteOptions, upstream: string, limits: readonly string[]): RouteRow {
  const { host = null, path, methods = null, cache, websocket, idempotency } = options
  return {
    route: routeName(options),
    host,
    path,
    methods,
    upstream,
    canary: options.canary === undefined ? null : describeCanary(options.canary),
    mirror: options.mirror === undefined ? null : `${options.mirror.percent} % to ${options.mirror.upstream}`,
    cache: cache === undefined ? null : describeCache(cache),
    limits,
    websocket,
    idempotency: idempotency === undefined || idempotency === null ? null : describeKeys(idempotency, methods),
  }
}

/** Unique, since two routes that share host, path and a method are refused at load. */
export const routeName = ({ host = '', path, methods }: Pick<RouteOptions, 'host' | 'path' | 'methods'>): string =>
  `${methods === undefined ? '' : `${methods.join(',')} `}${host}${path}`

/** What one fetch of a route costs, by its name, where the file says so. */
export const callCosts = (routes: readonly RouteOptions[]): ReadonlyMap<string, number> =>
  new Map(
    routes.flatMap((route) => (route.cache?.callCost === undefined ? [] : [[routeName(route), route.cache.callCost]])),
  )

function describeCanary({ upstream, percent, header, by }: NonNullable<RouteOptions['canary']>): string {
  const ways: string[] = []
  if (percent > 0) ways.push(`${percent} % of ${by}s`)
  if (header !== undefined) ways.push(`by ${header}`)
  return `${ways.join(', or ')} to ${upstream}`
}

function describeKeys(options: NonNullable<RouteOptions['idempotency']>, methods: RouteRow['methods']): string {
  const keyed = options.methods.filter((method) => methods?.includes(method) !== false)
  const words = [keyed.join(' '), formatDuration(options.for)]
  if (options.required) words.push('required')
  if (options.unknown === 'retry') words.push('retried where unknown')
  return words.join(', ')
}

function describeCache({
  ttl,
  override,
  clamp,
  scope,
  collapse,
  compress,
  tags,
}: NonNullable<RouteOptions['cache']>): string {
  const words: string[] = []
  if (ttl === undefined) words.push("origin's freshness")
  else if (ttl.every !== null) words.push(`ttl ${formatDuration(ttl.every)}`)
  else words.push(`ttl ${[...ttl.byStatus].map(([status, ms]) => `${status}: ${formatDuration(ms)}`).join(' ')}`)
  if (override) words.push('override')
  if (clamp !== undefined && clamp.min > 0) words.push(`at least ${formatDuration(clamp.min)}`)
  if (clamp?.max !== undefined) words.push(`at most ${formatDuration(clamp.max)}`)
  if (scope === 'public') words.push('public')
  if (scope === 'user') words.push('per user')
  if (collapse === false) words.push('not collapsed')
  if (collapse === 'shared') words.push('collapsed across instances')
  if (compress === false) words.push('not compressed')
  if (tags !== undefined && tags.length > 0) words.push(`tags ${tags.join(' ')}`)
  return words.join(', ')
}
