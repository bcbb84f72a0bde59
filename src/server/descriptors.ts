// How many client connections the system has files for. One that finds none is lost at the door, by the system, and with
// it whatever else needs a file: a connection to an upstream, to Redis, to whoever wants to know what is wrong. So some are
// kept for those, and the listener refuses what would take them.

import { readFileSync } from 'node:fs'

/** A process has some thirty by itself. */
const MIN_KEPT = 96
const KEPT = 0.25

/** At most; Infinity where the system does not say, or sets no bound. */
export function connectionsThatFit(limits: string | null = readLimits()): number {
  const files = Number(/^Max open files +(\d+)/m.exec(limits ?? '')?.[1] ?? Infinity)
  return files === Infinity ? Infinity : Math.max(1, files - Math.max(MIN_KEPT, Math.ceil(files * KEPT)))
}

/** What Linux tells; null elsewhere. */
function readLimits(): string | null {
  try {
    return readFileSync('/proc/self/limits', 'utf8')
  } catch {
    return null
  }
}
