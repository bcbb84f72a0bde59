// The one place where a finished request is counted and logged: once, whatever became of it.
//
// On the path of every request: one look-up, one line, nothing else.

import { type RequestContext, canaryName } from '../core/context.ts'
import type { Log } from './log.ts'
import type { Metrics, RouteMetrics } from './metrics.ts'
import type { LogOptions } from './options.ts'
import { COMPLETED, type FormatRest, SLOW, compileLines } from './request-line.ts'
import type { RouteStatistics, Statistics } from './statistics.ts'
import { NO_ROUTE, finalStatus, latencyMs } from './verdict.ts'

/** As many as metrics and statistics tell apart. */
const MAX_ROUTES = 20_000

export type RecordOptions = Pick<LogOptions, 'slow' | 'redactQuery' | 'userId'> & {
  /** What one fetch of a route costs, by its name; absent: 0 each. */
  readonly callCosts?: ReadonlyMap<string, number>
}

export interface Recorder {
  /** Counts and logs a request that has ended, well or not. Call it once per request. */
  record(ctx: RequestContext): void
  /** Takes new options, for a reload. */
  configure(options: RecordOptions): void
  /** Forgets all routes but these; for a reload. */
  keepRoutes(live: ReadonlySet<string>): void
}

/** What the requests of one route are recorded by. */
interface RouteRecord {
  readonly metrics: RouteMetrics
  readonly statistics: RouteStatistics
  readonly formatRest: FormatRest
}

export function createRecorder(
  sinks: { readonly log: Log; readonly metrics: Metrics; readonly statistics: Statistics },
  options: RecordOptions,
): Recorder {
  const { log, metrics, statistics } = sinks
  let slowMs = options.slow
  let lineOf = compileLines(options)
  let { callCosts } = options
  const routes = new Map<string | null, RouteRecord>()

  /** of: the route itself, where it is recorded under another name. */
  const resolve = (route: string | null, of: string | null): RouteRecord => {
    const name = route ?? NO_ROUTE
    const resolved = {
      metrics: metrics.ofRoute(name),
      statistics: statistics.ofRoute(name, callCosts?.get(of ?? NO_ROUTE)),
      formatRest: lineOf(route),
    }
    if (routes.size < MAX_ROUTES) routes.set(route, resolved)
    return resolved
  }

  return {
    record(ctx) {
      const status = finalStatus(ctx)
      const name = ctx.isCanary === true && ctx.route !== null ? canaryName(ctx.route) : ctx.route
      const route = routes.get(name) ?? resolve(name, ctx.route)
      route.metrics.record(ctx, status)
      route.statistics.record(ctx, status)

      const isSlow = latencyMs(ctx, status) > slowMs
      // A bug is an error even where the request was served in time; all other failures are the traffic's own.
      const level = ctx.error?.code === 'internal' ? 'error' : isSlow ? 'warn' : 'info'
      if (!log.isEnabled(level)) return
      const rest = route.formatRest(ctx, status)
      log.line(level, isSlow ? SLOW : COMPLETED, rest, ctx.receivedAtMs + ctx.durationMs)
    },
    configure(next) {
      slowMs = next.slow
      lineOf = compileLines(next)
      callCosts = next.callCosts
      routes.clear()
    },
    keepRoutes(live) {
      metrics.keepRoutes(live)
      statistics.keepRoutes(live)
      routes.clear()
    },
  }
}
