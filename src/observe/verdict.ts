// The few words on a finished request that log, metrics and statistics must share, or they would contradict one another.

import type { RequestContext } from '../core/context.ts'

/** Stands for the route of a request that none matched. */
export const NO_ROUTE = '(none)'
/** Stands for all names that found no room in a bounded table. */
export const OTHER = '(other)'

/** The status as an operator sees it: 499 where the client had gone before its answer was complete. */
export const finalStatus = (ctx: RequestContext): number => (ctx.aborted ? 499 : ctx.status)

/** How long a client has waited. A WebSocket is there from its 101 on, and how long it lasts is nobody's fault. */
export const latencyMs = (ctx: RequestContext, status: number): number => (status === 101 ? ctx.headMs : ctx.durationMs)

/** True when gateway or upstream failed: any 5xx, or an answer that broke after its head. A client that leaves is no fault. */
export const isFault = (ctx: RequestContext, status: number): boolean =>
  status >= 500 || (status !== 499 && ctx.error !== null && ctx.error.kind.source !== 'client')
