// What a running gateway cannot take from a new configuration: what it has opened with the old one.

import type { GatewayConfig } from './schema.ts'

/** Which options of a new configuration cannot take effect while running; null when all can. Names only: one of them
 *  is the admin token. */
export function needsRestart(running: GatewayConfig, next: GatewayConfig): string | null {
  const changed: string[] = []
  if (JSON.stringify(running.cache.disk) !== JSON.stringify(next.cache.disk)) changed.push('cache.disk')
  for (const part of ['listen', 'admin', 'redis'] as const) {
    const [before, after] = [new Map(Object.entries(running[part])), new Map(Object.entries(next[part]))]
    for (const [name, value] of after) {
      if (JSON.stringify(value) !== JSON.stringify(before.get(name))) changed.push(`${part}.${name}`)
    }
  }
  if (changed.length === 0) return null
  return `${changed.join(', ')}: cannot change while the gateway runs; restart it, or put the old value back`
}
