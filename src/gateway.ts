// Owns the life of everything: start, reload (compile, swap, retire), drain, destroy; and implements Control, what the
// admin port and the command line may ask. What survives a reload is made here once: the store, the counters, the log,
// the sockets. A request ends under the plan it began with.

import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { createAdminServer } from './admin/server.ts'
import { createLeases } from './cache/lease.ts'
import { createPurgeLog } from './cache/purge-log.ts'
import { createPurger } from './cache/purger.ts'
import { createKeyHash } from './cache/key-hash.ts'
import { createSharedCache } from './cache/shared.ts'
import { createDiskTier } from './cache/stores/disk.ts'
import { createMemoryStore } from './cache/stores/memory.ts'
import { createRedisTier } from './cache/stores/redis.ts'
import { type ConfigIssue, formatIssue } from './config/issues.ts'
import type { LoadResult } from './config/load.ts'
import { needsRestart } from './config/restart.ts'
import type { GatewayConfig } from './config/schema.ts'
import { canaryName } from './core/context.ts'
import type { Control, HealthReport, ReloadResult, RouteRow } from './core/control.ts'
import { GatewayError } from './core/errors.ts'
import { Overload, type Pulse, processPulse } from './core/overload.ts'
import { VERSION } from './core/version.ts'
import { compileTrust } from './http/forwarded.ts'
import { boundsOf } from './idempotency/options.ts'
import { type LogDestination, createLog } from './observe/log.ts'
import { createMetrics } from './observe/metrics.ts'
import { createRecorder } from './observe/record.ts'
import { createStatistics } from './observe/statistics.ts'
import { Mirrors } from './upstream/mirror.ts'
import { type Lookup, systemLookup } from './upstream/resolve.ts'
import { type GatewayPlan, type Shared, compilePlan } from './plan/compile.ts'
import { explainRequest } from './plan/explain.ts'
import { healthReply, stateOf } from './plan/health.ts'
import type { PlannedPool } from './plan/pools.ts'
import { countDecisions, createLimitDesk } from './plan/limits.ts'
import { freeKeyOf, openIdempotency } from './plan/idempotency.ts'
import { openLimits } from './plan/limit-state.ts'
import { compilePurge, storedEntries } from './plan/purge.ts'
import { openRedis } from './plan/redis.ts'
import { callCosts } from './plan/table.ts'
import { privacyOf } from './plan/redis-secret.ts'
import type { Lanes } from './server/connection.ts'
import { type ListenerDoor, createListener } from './server/listener.ts'
import { cannotListen } from './server/cannot-listen.ts'
import { type Address, formatAddress } from './server/options.ts'
import { createSharedCoolDowns } from './upstream/shared-cool-downs.ts'

/** How long the start waits for Redis, so that the first requests have it. */
const MAX_REDIS_START_MS = 1000
/** Of the time to drain, what is kept for telling those whose answer will not come. */
const MAX_LAST_WORDS_MS = 500
/** Of the time to drain, what fetches have that nobody waits for, when nobody else is there. */
const MAX_DETACHED_DRAIN_MS = 10_000

export interface GatewaySetup {
  /** Reads the configuration, at the start and at every reload. */
  readonly load: () => LoadResult
  /** Takes the log in place of stdout. */
  readonly logDestination?: LogDestination
  /** From 0 to below 1, in place of Math.random for the jitter of lifetimes. */
  readonly random?: () => number
  /** Tells how much there is to do, in place of what this process measures. */
  readonly pulse?: Pulse
  /** Finds the addresses of targets, in place of the system. */
  readonly lookup?: Lookup
  /** 'full' leaves out the fast path, for whoever compares. */
  readonly lanes?: Lanes
}

/** Where a running gateway answers. */
export interface Addresses {
  readonly listen: Address
  readonly admin: Address
}

export interface Gateway extends Control {
  /** Opens both ports. Rejects where that cannot be; then nothing is held any more. Once. */
  start(): Promise<Addresses>
  /** Not ready at once; resolves when every answer in flight has ended, at the latest after `listen.drain`. */
  drain(): Promise<void>
  /** Cuts everything off and lets go of all that is held. */
  destroy(): Promise<void>
  /** Logs a fault of the process that nobody caught and takes no more connections; resolves when every answer in flight
   *  has ended, at the latest after graceMs. */
  fail(error: unknown, graceMs: number): Promise<void>
}

/** The configuration is not valid. `issues` are all that is wrong with it. */
export class InvalidConfig extends Error {
  readonly issues: readonly ConfigIssue[]

  constructor(issues: readonly ConfigIssue[]) {
    super(formatIssues(issues))
    this.name = 'InvalidConfig'
    this.issues = issues
  }
}

/** Compiles a gateway, which begins to look for its Redis; no port is opened yet. Throws InvalidConfig. */
export function createGateway(setup: GatewaySetup): Gateway {
  const loaded = setup.load()
  if (!loaded.ok) throw new InvalidConfig(loaded.issues)
  const { config: initial } = loaded

  const startedAtMs = performance.now()
  const log = createLog(initial.log, setup.logDestination)
  const keyHash = createKeyHash()
  const store = createMemoryStore(initial.cache.memory, keyHash)
  const { disk: file } = initial.cache
  const disk = file === undefined ? null : createDiskTier({ path: file.path, maxBytes: file.max }, Date.now, log)
  const statistics = createStatistics(startedAtMs)
  const overload = new Overload(initial.overload, {
    over(reason, { lagMs, heapFill }) {
      const measured = { lag_ms: Math.round(lagMs), heap_fill: heapFill }
      if (reason === null) log.info(measured, 'Overload is over')
      else log.warn({ ...measured, reason }, 'Overloaded, nothing goes to the upstreams')
    },
    full(isFull, { heapFill }) {
      if (isFull) log.warn({ heap_fill: heapFill }, 'The heap fills up, nothing new is stored')
      else log.info({ heap_fill: heapFill }, 'The heap has room again')
    },
  })
  const metrics = createMetrics({
    openConnections: () => listener.openConnections,
    refusedConnections: () => listener.refusedConnections,
    fastAnswers: () => listener.fastAnswers,
    openWebSockets: () => listener.openWebSockets,
    cacheEntries: () => store.entries,
    cacheBytes: () => store.bytes,
    cacheDisk: disk,
    overload,
    droppedLogLines: () => log.droppedLines,
    savings: () => statistics.savings(),
    cacheTiers: () => shared.cache.tiers.all,
    redisUp: () => redis?.up ?? null,
    upstreams: () => control.upstreams(),
    mirrored: () => mirrors.counts,
    limitDecisions: () => limits.decisions.counts(),
    limitReservations: () => limits.decisions.reservations(),
    tokens: () => limits.decisions.tokens.counts(),
    limitStores: () => ({
      subjects: limits.counters.subjects,
      overflowed: limits.counters.overflowed,
      shared: limits.shared,
      // Added up over all that hold a block.
      leases: limits.leased?.counts ?? null,
    }),
    purgeLog: () => purgeLog?.status ?? null,
    fetchLeases: () => leases?.counts ?? null,
    idempotency: () => idempotency,
    detached: () => cache.detached,
  })
  const recorder = createRecorder({ log, metrics, statistics }, recording(initial))
  const redis = openRedis(initial.redis, log)
  const privacy = privacyOf(initial.redis)
  // In the order in which they are asked: the disk is nearer.
  const tiers = [
    ...(disk === null ? [] : [disk]),
    ...(redis === null ? [] : [createRedisTier(redis.cache, initial.redis.namespace, Date.now, privacy)]),
  ]
  const { namespace, deadline: deadlineMs } = initial.redis
  const leases =
    redis && createLeases({ link: redis.purges, subscribe: redis.subscribe, namespace, secret: privacy.secret })
  const coolDowns = redis && createSharedCoolDowns({ link: redis.purges, subscribe: redis.subscribe, namespace })
  const cache = createSharedCache(store, Date.now, tiers, leases, overload, keyHash)
  const mirrors = new Mirrors()
  const token = randomBytes(4).toString('hex')
  const instance = `${hostname().replaceAll(/[^A-Za-z0-9.-]/g, '-')}-${token}`
  const limits = openLimits(initial, redis, instance, Date.now)
  const idempotency = openIdempotency(initial, redis, Date.now)
  const purgeLog =
    redis === null
      ? null
      : createPurgeLog({
          shared: cache,
          link: redis.purges,
          subscribe: redis.subscribe,
          namespace,
          cipher: privacy.cipher,
          deadlineMs,
          instance,
          log,
        })
  const purger = createPurger(cache, instance, purgeLog)
  const shared: Shared = {
    cache,
    purger,
    limits,
    idempotency,
    now: Date.now,
    random: setup.random ?? Math.random,
    // Its own for each instance: two gateways in a row are no loop.
    viaToken: `weirgate-${token}`,
    health: () => healthReply(health()),
    tellLostKeys: (keys, reason) => log.warn({ keys, reason }, 'Keys of tokens cannot be had, so tokens are refused'),
    tellTarget({ event, why: reason, ...named }) {
      const isBad = event !== 'back' && event !== 'closed' && event !== 'resolved'
      log[isBad ? 'warn' : 'info']({ ...named, reason }, TARGET_NEWS[event])
    },
    coolDowns,
    overload,
    mirrors,
    lookup: setup.lookup ?? systemLookup,
  }

  const desk = createLimitDesk(limits, Date.now)

  let plan: GatewayPlan = compilePlan(initial, shared, null)
  let shownConfig = loaded.shown
  let loadedAt = new Date()
  let configError: string | null = null
  let isTrusted = compileTrust(initial.trustedProxies)
  let address = initial.listen.address
  let draining = false
  /** Pools of former plans whose last requests are still under way. */
  const retiring = new Set<PlannedPool>()
  metrics.reloaded(true, loadedAt.getTime())

  const door: ListenerDoor = {
    answer: (ctx) => plan.answer(ctx),
    answerNow: (ctx) => plan.answerNow(ctx),
    record(ctx) {
      ctx.end()
      recorder.record(ctx)
    },
    mayReuseConnections: () => !draining,
    isTrusted: (peer) => isTrusted(peer),
  }
  const listener = createListener(initial.listen, door, setup.lanes)

  function health(): HealthReport {
    const upstreams = Object.fromEntries([...plan.pools].map(([name, { pool }]) => [name, stateOf(pool.status())]))
    const isBusy = overload.isOver || overload.isFull
    const isWell =
      !isBusy && (redis === null || redis.up === 1) && Object.values(upstreams).every((state) => state === 'ok')
    return {
      // A refused file, a lost Redis and a lost backend are served around, but what runs is not what was asked for.
      status: draining ? 'draining' : configError === null && isWell ? 'ok' : 'degraded',
      redis: redis === null ? 'off' : redis.up === 1 ? 'ok' : redis.up > 0 ? 'partly' : 'down',
      upstreams,
      overload: overload.why ?? (overload.isFull ? 'storing' : null),
      config: { loaded_at: loadedAt.toISOString(), error: configError },
      version: VERSION,
      uptime_s: Math.floor((performance.now() - startedAtMs) / 1000),
    }
  }

  /** Never rejects: a signal or a changed file has nobody to tell. */
  async function reload(): Promise<ReloadResult> {
    if (draining) return { ok: false, error: 'The gateway is shutting down.' }
    const next = setup.load()
    const refusal = next.ok ? needsRestart(plan.config, next.config) : formatIssues(next.issues)
    if (!next.ok || refusal !== null) return refuse(refusal ?? '')
    try {
      adopt(compilePlan(next.config, shared, plan), next.shown)
    } catch (error) {
      log.error({ error }, 'Configuration could not be compiled')
      return refuse('The configuration is valid and could not be compiled; the log says why.')
    }
    return { ok: true, loaded_at: loadedAt.toISOString() }
  }

  function refuse(error: string): ReloadResult {
    configError = error
    metrics.reloaded(false, Date.now())
    log.error({ error }, 'Configuration refused, the old one stays')
    return { ok: false, error }
  }

  function adopt(next: GatewayPlan, nextShown: () => unknown): void {
    const previous = plan
    plan = next
    shownConfig = nextShown
    isTrusted = compileTrust(next.config.trustedProxies)
    loadedAt = new Date()
    configError = null
    store.resize(next.config.cache.memory)
    idempotency.table.resize(boundsOf(next.config.idempotency))
    log.setLevel(next.config.log.level)
    overload.configure(next.config.overload)
    recorder.configure(recording(next.config))
    const live = new Set(next.routes.flatMap(({ row }) => recordedAs(row)))
    recorder.keepRoutes(live)
    cache.nearMisses.keepRoutes(live)
    mirrors.keep(new Set(Object.keys(next.config.upstreams)))
    limits.decisions.keep(new Set(Object.keys(next.config.limits)), new Set(next.routes.map(({ row }) => row.route)))
    metrics.reloaded(true, loadedAt.getTime())
    for (const [name, pool] of previous.pools) if (next.pools.get(name) !== pool) retire(name, pool)
    log.info({ routes: next.routes.length }, 'Configuration loaded')
  }

  function retire(upstream: string, pool: PlannedPool): void {
    retiring.add(pool)
    pool
      .retire()
      .catch((error: unknown) => log.warn({ upstream, error }, 'Retired connections did not close'))
      .finally(() => retiring.delete(pool))
  }

  const control: Control = {
    health,
    metrics: () => metrics.text(),
    stats: () => ({
      ...statistics.snapshot(performance.now()),
      cache: { entries: store.entries, bytes: store.bytes, max_bytes: store.maxBytes },
      near_misses: cache.nearMisses.report(),
      limits: countDecisions(plan, limits.decisions),
    }),
    routes: () => plan.routes.map(({ row }) => row),
    upstreams: () => [...plan.pools.values()].map(({ pool }) => pool.status()),
    config: () => shownConfig(),
    explain: (request) => explainRequest(plan, request, reachableHost(address), overload.isOver),
    async purge(request) {
      const result = await purger.purge(compilePurge(request, plan.queries))
      if (disk?.isUnsure === true) throw UNSURE
      return result
    },
    entries: (url) => storedEntries(shared.cache, url, plan.queries),
    freeKey: async (route, key) => freeKeyOf(plan.routes, idempotency, route, key),
    limits: () => desk.rows(plan),
    limitStanding: (policy, subject) => desk.standing(plan, policy, subject),
    resetLimit: (policy, subject) => desk.reset(plan, policy, subject),
    refundLimit: (policy, subject, units) => desk.refund(plan, policy, subject, units),
    limitTop: async (policy) => desk.top(plan, policy),
    reload,
  }
  const admin = createAdminServer(control, initial.admin, log)
  let stopPulse = (): void => {}

  async function start(): Promise<Addresses> {
    try {
      await disk?.open()
      await Promise.all([
        redis?.whenUp(MAX_REDIS_START_MS),
        purgeLog?.whenFollowing(MAX_REDIS_START_MS),
        limits.whenReady(MAX_REDIS_START_MS),
      ])
      // The admin port first: clients come only once all stands.
      const adminAddress = await admin.listen().catch(cannotListen('admin.listen', initial.admin.listen))
      stopPulse = (setup.pulse ?? processPulse)((load) => overload.judge(load))
      address = await listener.listen().catch(cannotListen('listen', address))
      const { maxConnections } = listener
      if (maxConnections < initial.listen.connections) log.warn({ connections: maxConnections }, FEWER_CONNECTIONS)
      return { listen: address, admin: adminAddress }
    } catch (error) {
      await destroy()
      throw error
    }
  }

  /** Takes no more, and waits for the answers in flight. What is left a moment before the end is given up, which may
   *  still be told: 503 where an answer has not begun, a visible break where it has. */
  async function finish(deadlineMs: number): Promise<void> {
    draining = true
    mirrors.close()
    const lastWordsMs = Math.min(MAX_LAST_WORDS_MS, deadlineMs / 10)
    const givenUpAtMs = performance.now() + deadlineMs - lastWordsMs
    const timer = setTimeout(() => void destroyPools(), deadlineMs - lastWordsMs)
    await listener.drain(deadlineMs)
    // What goes on without a client.
    await cache.detached.whenNone(Math.min(MAX_DETACHED_DRAIN_MS, givenUpAtMs - performance.now()))
    await idempotency.running.whenNone(givenUpAtMs - performance.now())
    clearTimeout(timer)
  }

  async function destroyPools(): Promise<void> {
    await Promise.all([...plan.pools.values(), ...retiring].map(({ pool }) => pool.destroy()))
  }

  async function destroy(): Promise<void> {
    draining = true
    listener.destroy()
    stopPulse()
    await admin.close()
    await destroyPools()
    await idempotency.shared?.close()
    await leases?.close()
    await coolDowns?.close()
    await purgeLog?.close()
    await cache.tiers.close()
    await limits.close()
    await redis?.close()
    metrics.close()
    log.close()
  }

  return {
    ...control,
    start,
    async drain() {
      log.info({ open_connections: listener.openConnections }, 'Shutting down')
      await finish(plan.config.listen.drain)
      await destroy()
    },
    destroy,
    async fail(error, graceMs) {
      log.fatal({ error }, 'Uncaught fault, ending')
      log.flush()
      await finish(graceMs)
    },
  }
}

const recording = ({ log, routes }: GatewayConfig) => ({ ...log, callCosts: callCosts(routes) })

const formatIssues = (issues: readonly ConfigIssue[]): string => issues.map(formatIssue).join('\n')

const TARGET_NEWS = {
  out: 'Upstream target is out',
  back: 'Upstream target is back',
  open: 'Upstream breaker is open',
  closed: 'Upstream breaker is closed',
  cooling: 'Upstream target is left alone, as it has asked',
  unresolved: 'Upstream target cannot be looked up, it keeps what addresses it has',
  resolved: 'Upstream target can be looked up again',
} as const

const FEWER_CONNECTIONS =
  'The system lets this process open too few files for listen.connections; what is beyond these is refused. Raise ulimit -n'

/** Not an answer in numbers: who purges must hear of it. */
const UNSURE = new GatewayError(
  'internal',
  'Purged in memory, but cache.disk has not confirmed it: what is in its file may come back with the next start. The log says why; ask again, or remove the file.',
)

/** All names under which the requests of a route are recorded. */
const recordedAs = ({ route, canary }: RouteRow): readonly string[] =>
  canary === null ? [route] : [route, canaryName(route)]

/** The Host that a client on this machine sends. */
const reachableHost = ({ host, port }: Address): string =>
  formatAddress({ host: host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host, port })
