// One log line for what several connections find out at about the same time: that Redis is lost, that it is back. It says
// for which uses, and of a Redis Cluster which masters. Connections look when one of them has news (plan/redis.ts), so a
// second is enough for all.

import type { ChangeLog } from '../core/availability.ts'

const NEWS_MS = 1000

export interface News extends ChangeLog {
  /** Writes what waits. */
  close(): void
}

interface Line {
  readonly level: 'info' | 'warn'
  readonly fields: object
  readonly message: string
}

export function gatherNews(log: ChangeLog): News {
  let lines: Line[] = []
  let timer: NodeJS.Timeout | undefined

  function add(line: Line): void {
    lines.push(line)
    timer ??= setTimeout(tell, NEWS_MS)
  }

  function tell(): void {
    clearTimeout(timer)
    timer = undefined
    for (const [first, ...more] of Map.groupBy(lines, ({ message }) => message).values()) {
      if (first === undefined) continue
      const all = [first, ...more]
      log[first.level]({ ...first.fields, redis: listOf(all, 'redis'), server: listOf(all, 'server') }, first.message)
    }
    lines = []
  }

  return {
    info: (fields, message) => add({ level: 'info', fields, message }),
    warn: (fields, message) => add({ level: 'warn', fields, message }),
    close: tell,
  }
}

/** What a field says, each once. */
const listOf = (lines: readonly Line[], field: string): string =>
  [...new Set(lines.map(({ fields }) => String(Reflect.get(fields, field))))].toSorted().join(', ')
