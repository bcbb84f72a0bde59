// What a gateway says of itself on its public port, and how much of an upstream is well.

import type { Reply } from '../core/context.ts'
import type { HealthReport, UpstreamRow } from '../core/control.ts'

export function stateOf({ targets }: UpstreamRow): HealthReport['upstreams'][string] {
  const isOut = targets.map(
    ({ state, breaker, cooling_until }) => state === 'out' || breaker === 'open' || cooling_until !== null,
  )
  return isOut.every(Boolean) ? 'down' : isOut.some(Boolean) ? 'degraded' : 'ok'
}

/** The report for everybody: that a reload was refused, but not the text, which quotes the file. */
export function healthReply(report: HealthReport): Reply {
  const { loaded_at, error } = report.config
  const told = error === null ? null : 'the last reload was refused; the log and the admin port say why'
  const body = Buffer.from(JSON.stringify({ ...report, config: { loaded_at, error: told } }))
  return {
    status: report.status === 'draining' ? 503 : 200,
    headers: ['Content-Type', 'application/json', 'Content-Length', String(body.length), 'Cache-Control', 'no-store'],
    body,
  }
}
