// GatewayConfig -> GatewayPlan: everything that can be known before the first request is worked out here. A reload
// compiles a new plan and swaps it in; a request ends under the plan it began with. What must survive a reload comes in
// from outside (Shared): the store, the counters, and pools whose options are unchanged.

import type { RouteCache } from '../cache/cache.ts'
import type { KnownDocuments } from '../cache/graphql-key.ts'
import { graphqlRule } from '../cache/key-rule.ts'
import { cachedMethods } from '../cache/options.ts'
import { mayCompress } from '../cache/policy.ts'
import { compileInvalidation } from '../cache/purge.ts'
import type { Purger } from '../cache/purger.ts'
import { type QueryRule, compileQueryRule } from '../cache/query-key.ts'
import type { SharedCache } from '../cache/shared.ts'
import { compileTags } from '../cache/tags.ts'
import type { GatewayConfig, RouteOptions } from '../config/schema.ts'
import type { Reply, RequestContext, Stage } from '../core/context.ts'
import type { RouteRow } from '../core/control.ts'
import { GatewayError, asGatewayError } from '../core/errors.ts'
import type { Overload } from '../core/overload.ts'
import { compileTrust, resolveClient } from '../http/forwarded.ts'
import { credentialFields } from '../http/credentials.ts'
import { getHeader } from '../http/headers.ts'
import { problemReply } from '../http/problem.ts'
import { isHandshake } from '../http/websocket.ts'
import type { Idempotency } from '../idempotency/idempotency.ts'
import type { RouteIdempotency } from '../idempotency/route.ts'
import type { TellLostKeys } from '../identity/jwt.ts'
import { type Identity, compileIdentity, identifyingFields } from '../identity/user.ts'
import { type LimitState, type Limiter, compileLimiter } from '../limit/limiter.ts'
import type { SharedCoolDowns } from '../upstream/shared-cool-downs.ts'
import type { TargetNews } from '../upstream/target.ts'
import type { Mirrors } from '../upstream/mirror.ts'
import type { Lookup } from '../upstream/resolve.ts'
import { type Backing, type BackingParts, compileBacking, required } from './backing.ts'
import { withCanary } from './canary.ts'
import { type EventKeeping, compileEventKeeping } from './events.ts'
import { type Fallback, compileFallback } from './fallback.ts'
import { compileMisses } from './misses.ts'
import { compileKeys } from './idempotency.ts'
import {
  type AnswerNow,
  type Pipeline,
  type RouteStages,
  compileAnswerNow,
  compileHandshake,
  compilePipeline,
} from './pipeline.ts'
import { type PlannedPools, compilePools } from './pools.ts'
import { type RouteMatch, bySpecificity, compileRouter } from './router.ts'
import { describeRoute } from './table.ts'

/** What outlives a plan. */
export interface Shared {
  readonly cache: SharedCache
  readonly purger: Purger
  readonly limits: LimitState
  readonly idempotency: Idempotency
  /** Wall clock, milliseconds. */
  readonly now: () => number
  /** From 0 to below 1. */
  readonly random: () => number
  /** How this instance signs the Via field of the requests it forwards. */
  readonly viaToken: string
  /** The answer on the health path. */
  readonly health: () => Reply
  /** Hears of targets that go out and come back. */
  readonly tellTarget: (news: TargetNews) => void
  readonly tellLostKeys: TellLostKeys
  /** Null: this instance stands alone. */
  readonly coolDowns: SharedCoolDowns | null
  readonly overload: Overload
  /** Finds the addresses of names. */
  readonly lookup: Lookup
  /** The copies of requests. */
  readonly mirrors: Mirrors
}

export interface RoutePlan {
  readonly row: RouteRow
  readonly pool: Backing['pool']
  readonly upstreamOf: Backing['upstreamOf']
  readonly pipeline: Pipeline
  /** For WebSocket handshakes; null: they are requests like others. */
  readonly handshake: Pipeline | null
  /** Finds out who asks, and answers who may not; null: nobody is told apart. */
  readonly identity: Stage | null
  /** null: nothing of this route is in memory. */
  readonly answerNow: AnswerNow | null
  readonly limiter: Limiter | null
  readonly cache: RouteCache | null
  readonly idempotency: RouteIdempotency | null
  /** What is stored answers in the place of a refusal by the limits. */
  readonly answersLimited: boolean
  readonly forwarder: Backing['forwarder']
  readonly fallback: Fallback | null
  /** null: streams of events are as their upstream sends them. */
  readonly keepEvents: EventKeeping | null
}

export interface GatewayPlan {
  readonly config: GatewayConfig
  /** Most specific first. */
  readonly routes: readonly RoutePlan[]
  readonly pools: PlannedPools
  /** The spellings of queries in cache keys, as far as they are not the requests' own. */
  readonly queries: readonly QueryRule[]
  /** Answers every request; never throws, never rejects. */
  answer(ctx: RequestContext): Reply | Promise<Reply>
  /** The answer to a GET or HEAD that is at hand in memory, the same that answer() would give; never rejects. null: there is
   *  none, which has changed nothing but the context. */
  answerNow(ctx: RequestContext): Reply | Promise<Reply> | null
  /** Sets whose request it is, and finds its route, or that it asks for the gateway's own health. Throws GatewayError
   *  where there is none. */
  resolve(ctx: RequestContext): RoutePlan | 'health'
}

/** Compiles a checked configuration. previous: the running plan, whose unchanged pools are kept. */
export function compilePlan(config: GatewayConfig, shared: Shared, previous: GatewayPlan | null): GatewayPlan {
  // Where it throws there must be no pools yet: they look after their targets from the first moment on.
  const identity =
    config.identity === undefined ? null : compileIdentity(config.identity, shared.now, shared.tellLostKeys)
  const pools = compilePools(config, previous?.pools ?? null, shared.tellTarget, shared.coolDowns, shared.lookup)
  const queries = compileQueries(config, shared.cache.documents)
  const credentials = credentialFields(config.identity === undefined ? [] : identifyingFields(config.identity))
  const parts: PlanParts = {
    config,
    shared,
    pools,
    identity,
    credentials,
    queries,
    limiterOf: limitersOf(config, shared),
    // One route's tags come back on another: what is read by GET is written by PUT.
    weakensTags: config.routes.some(({ cache }) => cache !== undefined && mayCompress(cache)),
  }
  const table = bySpecificity(config.routes.map((options) => patternOf(compileRoute(options, parts))))
  const routes = table.map(({ route }) => route)
  const router = compileRouter(table)
  const isTrusted = compileTrust(config.trustedProxies)

  function identify(ctx: RequestContext): void {
    ctx.peerIsTrusted = isTrusted(ctx.peerAddress)
    if (!ctx.peerIsTrusted) return
    ctx.clientAddress = resolveClient(ctx.peerAddress, ctx.headers, isTrusted)
    const id = getHeader(ctx.headers, 'x-request-id')
    if (id !== null && REQUEST_ID.test(id)) ctx.id = id
  }

  function resolve(ctx: RequestContext): RoutePlan | 'health' {
    identify(ctx)
    if (ctx.path === config.health) {
      if (ctx.method !== 'GET' && ctx.method !== 'HEAD') throw new MethodNotAllowed(['GET', 'HEAD'])
      return 'health'
    }
    const found = router.match(ctx.host, ctx.method, ctx.path)
    if ('route' in found) return enter(ctx, found)
    if (!router.knowsHost(ctx.host)) throw new GatewayError('unknown_host', 'No route is for this host.')
    if (found.length === 0) throw new GatewayError('no_route', 'No route is for this path.')
    throw new MethodNotAllowed(found)
  }

  function enter(ctx: RequestContext, { route, params }: RouteMatch<RoutePlan>): RoutePlan {
    ctx.route = route.row.route
    ctx.params = params
    return route
  }

  function answer(ctx: RequestContext): Reply | Promise<Reply> {
    try {
      const route = resolve(ctx)
      if (route === 'health') return shared.health()
      const reply = pipelineFor(ctx, route)(ctx)
      if (!(reply instanceof Promise)) return reply
      route.pool.enter()
      const leave = (): void => {
        route.pool.leave()
        ctx.body?.release?.()
      }
      const answered = reply.then(
        (given) => {
          leave()
          return given
        },
        (error: unknown) => {
          leave()
          return failed(ctx, error, ctx.isUpgrading ? null : route.fallback)
        },
      )
      return route.keepEvents === null || ctx.isUpgrading ? answered : route.keepEvents(ctx, answered)
    } catch (error) {
      return failed(ctx, error)
    }
  }

  function pipelineFor(ctx: RequestContext, { pipeline, handshake }: RoutePlan): Pipeline {
    if (handshake === null || !isHandshake(ctx)) return pipeline
    if (!ctx.mayUpgrade) {
      throw new GatewayError('bad_message', 'Nothing may come behind a WebSocket handshake before its answer.')
    }
    ctx.isUpgrading = true
    return handshake
  }

  function answerNow(ctx: RequestContext): Reply | Promise<Reply> | null {
    try {
      identify(ctx)
      const found = ctx.path === config.health ? null : router.match(ctx.host, ctx.method, ctx.path)
      const route = found !== null && 'route' in found ? enter(ctx, found) : null
      const reply = route === null || route.answerNow === null ? null : route.answerNow(ctx)
      return reply instanceof Promise ? reply.catch((error: unknown) => failed(ctx, error)) : reply
    } catch (error) {
      return failed(ctx, error)
    }
  }

  return { config, routes, pools, queries, answer, answerNow, resolve }
}

const patternOf = (route: RoutePlan) => ({
  host: route.row.host,
  path: route.row.path,
  methods: route.row.methods,
  route,
})

/** All ways in which the routes spell queries in their keys. */
function compileQueries({ routes }: GatewayConfig, documents: KnownDocuments): readonly QueryRule[] {
  const options = routes.flatMap(({ cache }) => (cache?.key?.query === undefined ? [] : [cache.key.query]))
  const rules = [...new Map(options.map((each) => [JSON.stringify(each), each])).values()].map(compileQueryRule)
  const isGraphql = routes.some(({ cache }) => cache?.key?.body === 'graphql')
  return isGraphql ? [...rules, graphqlRule(documents)] : rules
}

/** An id that may go into a header and a log line as it is. */
const REQUEST_ID = /^[A-Za-z0-9\-._~+/=:@]{1,128}$/

class MethodNotAllowed extends GatewayError {
  readonly allow: string

  constructor(methods: readonly string[]) {
    const allow = methods.join(', ')
    super('method_not_allowed', `This path has: ${allow}.`)
    this.allow = allow
  }
}

function failed(ctx: RequestContext, cause: unknown, fallback: Fallback | null = null): Reply {
  const error = asGatewayError(cause)
  ctx.error = error
  const instead = fallback === null ? null : fallback(error)
  if (instead !== null) return instead
  return problemReply(error, ctx.id, {}, error instanceof MethodNotAllowed ? ['Allow', error.allow] : [])
}

/** What the routes of a plan are made with. */
interface PlanParts extends BackingParts {
  readonly shared: Shared
  readonly identity: Identity | null
  readonly queries: readonly QueryRule[]
  /** null: it has no limits. */
  readonly limiterOf: (route: RouteOptions) => Limiter | null
}

function compileRoute(options: RouteOptions, parts: PlanParts): RoutePlan {
  const { config, shared, identity, queries, limiterOf } = parts
  const limiter = limiterOf(options)
  const upstream = options.upstream ?? config.defaults.upstream ?? ''
  const methods =
    options.cache === undefined
      ? NONE
      : cachedMethods(options.cache.methods ?? null, options.methods ?? null, options.cache.key?.body !== undefined)
  const replacedFields = limiter?.ownFields ?? NONE
  const metered = limiter?.metered ?? null
  const stable = compileBacking({ options, upstream, isCanary: false, methods, replacedFields, metered }, parts)
  const { canary } = options
  const backing =
    canary === undefined
      ? stable
      : withCanary(
          canary,
          stable,
          compileBacking(
            { options, upstream: canary.upstream, isCanary: true, methods, replacedFields, metered },
            parts,
          ),
        )
  const { cache, forwarder } = backing
  const purges = options.purges === undefined ? null : compileTags(options.purges)
  const outdated = compileInvalidation(methods, options.cache?.key?.body === 'graphql', purges, queries)
  const entrance = {
    identity: identity?.stage(options.auth === 'required') ?? null,
    limits: limiter?.check ?? null,
    whenLimited: options.onLimited === 'stale' && cache !== null ? cache.answerUnasked : null,
  }
  const misses = limiter === null ? null : compileMisses(limiter, shared.cache, options.maxBody)
  const onAnswer = limiter?.onAnswer ?? null
  const idempotency = compileKeys(options, config, shared.idempotency, parts.credentials)
  const stages: RouteStages = {
    ...entrance,
    lookup: cache?.lookup ?? null,
    misses,
    isLow: limiter?.isLow ?? null,
    onAnswer,
    fetch: cache?.fill ?? forwarder.stage,
    invalidate(ctx, status, headers, body) {
      const rule = outdated(ctx, status, headers, body)
      return rule === null ? null : shared.purger.invalidate(rule)
    },
  }
  return {
    row: describeRoute(options, upstream, limitsOf(options, config)),
    pool: backing.pool,
    upstreamOf: backing.upstreamOf,
    pipeline: compilePipeline(stages, idempotency?.before ?? null),
    handshake: options.websocket ? compileHandshake({ ...entrance, misses, onAnswer }, forwarder.handshake) : null,
    identity: entrance.identity,
    answerNow: cache === null ? null : compileAnswerNow(entrance, cache),
    limiter,
    cache,
    idempotency,
    answersLimited: options.onLimited === 'stale',
    forwarder,
    fallback: options.fallback === undefined ? null : compileFallback(options.fallback),
    keepEvents: options.events === undefined ? null : compileEventKeeping(options.events),
  }
}

/** Which policies a route is under. */
const limitsOf = ({ limits }: RouteOptions, { defaults }: GatewayConfig): readonly string[] => limits ?? defaults.limits

/** Routes under the same policies have one limiter: most of them are under those of `defaults`. */
function limitersOf(config: GatewayConfig, { limits, now }: Shared): PlanParts['limiterOf'] {
  const limiters = new Map<string, Limiter>()
  return (route) => {
    const { mode } = route
    const names = limitsOf(route, config)
    if (names.length === 0) return null
    const alike = JSON.stringify([mode, names])
    const known = limiters.get(alike)
    if (known !== undefined) return known
    const policies = names.map((name) => {
      const limit = required(config.limits[name], `limit ${name}`)
      return { name, options: mode === 'shadow' ? { ...limit, mode } : limit }
    })
    const limiter = compileLimiter(policies, { ...limits, clock: now })
    limiters.set(alike, limiter)
    return limiter
  }
}

const NONE: ReadonlySet<string> = new Set()
