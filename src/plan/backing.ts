// Where the answers of a route come from: an upstream, and before it what is stored of what that has answered. A route has
// one of these, or two where some of its requests go to a canary (canary.ts).

import { hash } from 'node:crypto'
import { compileCache, type RouteCache } from '../cache/cache.ts'
import { compileKeyRule } from '../cache/key-rule.ts'
import { compilePolicy } from '../cache/policy.ts'
import type { SharedCache } from '../cache/shared.ts'
import type { GatewayConfig, RouteOptions } from '../config/schema.ts'
import { type FetchOrigin, type RequestContext, canaryName } from '../core/context.ts'
import type { Overload } from '../core/overload.ts'
import type { CredentialFields } from '../http/credentials.ts'
import { meaningOfIds } from '../identity/user.ts'
import { type Forwarder, compileForward, resolveTimeouts } from '../upstream/forward.ts'
import { type Mirror, type Mirrors, compileMirror } from '../upstream/mirror.ts'
import type { PlannedPool, PlannedPools } from './pools.ts'
import { keySecretOf } from './redis-secret.ts'
import { routeName } from './table.ts'

export interface Backing {
  /** Whose requests are counted until they have their answers. */
  readonly pool: Pick<PlannedPool, 'enter' | 'leave'>
  readonly forwarder: Pick<Forwarder, 'stage' | 'handshake' | 'rewritePath'>
  readonly cache: RouteCache | null
  /** The name of the upstream of a request. */
  readonly upstreamOf: (ctx: RequestContext) => string
}

/** What all routes of a plan have in common. */
export interface BackingParts {
  readonly config: GatewayConfig
  readonly shared: {
    readonly cache: SharedCache
    readonly random: () => number
    readonly viaToken: string
    readonly overload: Overload
    readonly mirrors: Mirrors
  }
  readonly pools: PlannedPools
  /** The request fields that say who asks. */
  readonly credentials: CredentialFields
  readonly weakensTags: boolean
}

/** What one route has of its own. */
export interface BackingSetup {
  readonly options: RouteOptions
  readonly upstream: string
  /** The upstream is the canary of the route: what is stored of it is kept apart. */
  readonly isCanary: boolean
  /** The methods that its cache answers. */
  readonly methods: ReadonlySet<string>
  /** Lower-case names of answer fields that the gateway writes itself. */
  readonly replacedFields: ReadonlySet<string>
  /** Has the limits know what its answers use; null where they do not ask. */
  readonly metered: ((fetch: FetchOrigin) => FetchOrigin) | null
}

export function compileBacking(setup: BackingSetup, parts: BackingParts): Backing {
  const { options, upstream, isCanary, methods, replacedFields, metered } = setup
  const { config, shared, pools, credentials, weakensTags } = parts
  const pool = required(pools.get(upstream), `upstream ${upstream}`)
  const { timeouts, retries, refusals, framing, balance, concurrency, connections } = required(
    config.upstreams[upstream],
    `upstream ${upstream}`,
  )
  const resolved = resolveTimeouts(timeouts, options.timeouts)
  const forwarder = compileForward({
    pool: pool.pool,
    balance,
    timeouts: resolved,
    retries: options.retries ?? retries,
    refusals,
    maxBodyBytes: options.maxBody,
    isLenient: framing === 'lenient',
    rewrite: options.rewrite,
    requestEdits: options.headers?.request ?? null,
    responseEdits: options.headers?.response ?? null,
    weakensTags,
    replacedFields,
    metered,
    viaToken: shared.viaToken,
    mirror: mirrorOf(options, parts),
    overload: shared.overload,
  })
  const cache =
    options.cache === undefined
      ? null
      : compileCache({
          route: isCanary ? canaryName(routeName(options)) : routeName(options),
          shared: shared.cache,
          policy: compilePolicy(options.cache, {
            maxObjectBytes: config.cache.maxObject,
            targeted: config.cache.targeted,
            random: shared.random,
            methods,
            credentials,
          }),
          key: compileKeyRule(options.cache.key ?? {}, options.cache.scope === 'user', {
            credentials,
            bypassIf: options.cache.bypassIf ?? [],
            secret: keySecretOf(config.redis),
            isCanary,
            documents: shared.cache.documents,
            hasStreams: options.cache.terminal !== undefined,
          }),
          collapse: options.cache.collapse,
          maxBodyBytes: options.maxBody,
          epoch: epochOf(options, upstream, config),
          onAbort: options.cache.onAbort,
          upstream,
          mostDetached: Math.max(1, Math.floor((concurrency?.max ?? connections) / 10)),
          longestFetchMs: Math.max(resolved.totalMs, resolved.streamTotalMs),
          fetch: forwarder.fetch,
        })
  return { pool, forwarder, cache, upstreamOf: () => upstream }
}

function mirrorOf({ mirror }: RouteOptions, { config, shared, pools }: BackingParts): Mirror | null {
  if (mirror === undefined) return null
  const { upstream } = mirror
  const { timeouts, framing } = required(config.upstreams[upstream], `upstream ${upstream}`)
  return compileMirror({
    options: mirror,
    pool: required(pools.get(upstream), `upstream ${upstream}`).pool,
    timeouts: resolveTimeouts(timeouts),
    isLenient: framing === 'lenient',
    mirrors: shared.mirrors,
    random: shared.random,
  })
}

/** Stands for all that decides what a URL of this route is answered by the upstream, what that is tagged with, and whose it
 *  is. */
function epochOf(options: RouteOptions, upstream: string, config: GatewayConfig): string {
  // A purge by a new tag must find all that would carry it now.
  const tags = options.cache?.tags
  // However requests are spread, all targets give the same answers.
  const { targets = [], primary } = config.upstreams[upstream] ?? {}
  const origins = [...targets.map(({ url }) => ({ url })), ...(primary === undefined ? [] : [{ primary }])]
  const forwarded = [upstream, origins, options.rewrite, options.headers, tags]
  const { identity } = config
  const users = options.cache?.scope === 'user' && identity !== undefined ? [meaningOfIds(identity)] : []
  return hash('sha256', JSON.stringify([...forwarded, ...users])).slice(0, 16)
}

/** config/references.ts has checked it; this tells the compiler, and whoever breaks that. */
export function required<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new Error(`The configuration was compiled unchecked: there is no ${what}.`)
  return value
}
