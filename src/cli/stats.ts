// `weirgate stats`: what a running gateway has counted, route by route.

import { Command } from 'commander'
import type { Stats, StatsRow } from '../core/control.ts'
import { formatDuration } from '../core/decode.ts'
import { askAdmin } from './admin-client.ts'
import { configOf, configOption, jsonOption } from './files.ts'
import { formatTable } from './table.ts'

export const statsCommand = () =>
  new Command('stats')
    .description('print what a running gateway has counted since its start')
    .addOption(configOption())
    .addOption(jsonOption())
    .action(async ({ config, json }: { config: string; json?: boolean }) => {
      const stats = (await askAdmin(configOf(config).admin, 'GET', '/api/stats', 'since_start')) as Stats
      console.log(json === true ? JSON.stringify(stats, null, 2) : formatStats(stats))
    })

/** For people. */
export function formatStats({ since_start: { total, routes }, cache, near_misses }: Stats): string {
  const hasCost = total.saved.cost > 0 || total.saved.collapsed_cost > 0
  const row = (name: string, r: StatsRow): string[] => [
    name,
    String(r.requests),
    String(r.errors),
    String(r.limited),
    r.hit_rate === null ? '-' : `${(100 * r.hit_rate).toFixed(1)} %`,
    r.latency_ms.p50.toFixed(2),
    r.latency_ms.p99.toFixed(2),
    r.saved.seconds === 0 ? '-' : formatSeconds(r.saved.seconds),
    ...(hasCost ? [formatCost(r.saved.cost + r.saved.collapsed_cost)] : []),
  ]
  const table = formatTable(
    [...HEADINGS, ...(hasCost ? ['SAVED COST'] : [])],
    [row('total', total), ...Object.entries(routes).map(([name, r]) => row(name, r))],
  )
  const kept = `cache: ${cache.entries} entries, ${cache.bytes} of ${cache.max_bytes} bytes`
  return [table, kept, ...formatNearMisses(near_misses)].join('\n\n')
}

/** A paragraph for each route. */
const formatNearMisses = (byRoute: Stats['near_misses']): string[] =>
  Object.entries(byRoute).map(([route, { differs }]) => {
    const lines = differs.map(({ field, percent_of_misses, advice }) =>
      advice === null ? `${field} differs in ${percent_of_misses} % of misses` : advice,
    )
    return [`near misses of ${route}:`, ...lines.map((line) => `  ${line}`)].join('\n')
  })

const HEADINGS = ['ROUTE', 'REQUESTS', 'ERRORS', 'LIMITED', 'HITS', 'P50 MS', 'P99 MS', 'SAVED']

/** Time that the upstreams did not have to take, in whole units. */
const formatSeconds = (seconds: number): string =>
  seconds < 60 ? `${seconds.toFixed(1)}s` : formatDuration(Math.round(seconds) * 1000)

const formatCost = (cost: number): string => (cost === 0 ? '-' : cost.toFixed(2))
