// `weirgate check`: is the route table valid, and what does it come to?

import { Command } from 'commander'
import { readConfig } from '../config/load.ts'
import type { LimitRow, RouteRow } from '../core/control.ts'
import { createGateway } from '../gateway.ts'
import { configOption, jsonOption } from './files.ts'
import { formatTable } from './table.ts'

export const checkCommand = () =>
  new Command('check')
    .description('validate a route table and print what it comes to')
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async ({ config, json }: { config: string; json?: boolean }) => {
      const gateway = createGateway({ load: () => readConfig(config, process.env) })
      const rows = gateway.routes()
      const limits = gateway.limits()
      await gateway.destroy()
      console.log(
        json === true ? JSON.stringify(rows, null, 2) : [formatRoutes(rows), ...formatLimits(limits)].join('\n\n'),
      )
    })

function formatLimits(rows: readonly LimitRow[]): string[] {
  if (rows.length === 0) return []
  const cells = rows.map(({ policy, mode, rule, key }) => [
    policy,
    mode === 'shadow' ? `${rule} (only watched)` : rule,
    key.join(' '),
  ])
  return [formatTable(['LIMIT', 'RULE', 'KEY'], cells)]
}

function formatRoutes(rows: readonly RouteRow[]): string {
  const hasKeys = rows.some(({ idempotency }) => idempotency !== null)
  return formatTable(
    ['ROUTE', 'METHODS', 'UPSTREAM', 'CACHE', 'LIMITS', 'WEBSOCKET', ...(hasKeys ? ['ONCE PER KEY'] : [])],
    rows.map(({ host, path, methods, upstream, canary, mirror, cache, limits, websocket, idempotency }) => [
      `${host ?? ''}${path}`,
      methods?.join(' ') ?? 'all',
      [upstream, canary, mirror === null ? null : `copies: ${mirror}`].filter((text) => text !== null).join('; '),
      cache ?? '-',
      limits.join(' ') || '-',
      websocket ? 'yes' : '-',
      ...(hasKeys ? [idempotency ?? '-'] : []),
    ]),
  )
}
