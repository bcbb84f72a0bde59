// Links for tests, closed after each, and what they log.

import { expect } from 'vitest'
import { RedisError } from '../../src/core/redis-reply.ts'
import type { RedisConnection } from '../../src/core/redis-connection.ts'
import { type RedisLink, createRedisLink } from '../../src/core/redis.ts'
import type { Closable } from './closing.ts'
import { until } from './redis.ts'

export type LinkLog = Parameters<typeof createRedisLink>[1]

export interface Line {
  readonly level: 'info' | 'warn'
  readonly fields: object
  readonly message: string
}

/** A log that keeps its lines. */
export function listen(): { lines: Line[]; log: LinkLog } {
  const lines: Line[] = []
  return {
    lines,
    log: {
      info: (fields, message) => void lines.push({ level: 'info', fields, message }),
      warn: (fields, message) => void lines.push({ level: 'warn', fields, message }),
    },
  }
}

interface LinkOptions {
  readonly deadlineMs?: number
  readonly probeKey?: string
}

/** opened: what closes the link after the test. The deadline is 2 s, so that no slow machine is seen as a slow Redis. */
export function linksFor(opened: <T extends Closable>(part: T) => T) {
  const link = (url: string, options: LinkOptions = {}, log: LinkLog = listen().log): RedisLink =>
    opened(createRedisLink({ url, name: 'test', deadlineMs: 2000, ...options }, log))
  /** A link that is up. */
  const linkUp = async (url: string, options: LinkOptions = {}, log: LinkLog = listen().log): Promise<RedisLink> => {
    const made = link(url, options, log)
    expect(await made.whenUp(10_000)).toBe(true)
    return made
  }
  return { link, linkUp }
}

/** For tests in which the deadline has to come. */
export const soon = { deadlineMs: 50 } as const

export const whenDown = (of: RedisConnection): Promise<void> => until(() => !of.isUp, 'the link to be down')

/** The code that a command fails with; 'none' when it does not. */
export const codeOf = (command: Promise<unknown>): Promise<string> =>
  command.then(
    () => 'none',
    (error: unknown) => (error instanceof RedisError ? error.code : `not ours: ${String(error)}`),
  )
