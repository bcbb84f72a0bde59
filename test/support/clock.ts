// Time in the hands of a test, for what takes an hour: timers and performance.now() of the process stand still until the
// test moves them, while sockets and what they carry go on as ever.

import { onTestFinished, vi } from 'vitest'

export interface Clock {
  /** Moves time on; what falls due rings. */
  advance(ms: number): void
  /** Resolves when the condition holds, while time stands; fails after a generous bound of real time. */
  until(condition: () => boolean, what: string): Promise<void>
}

const BOUND_MS = 10_000

/** Until the test ends. Before anything is started, since time begins anew. */
export function holdTime(): Clock {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
  onTestFinished(() => void vi.useRealTimers())
  return {
    advance: (ms) => void vi.advanceTimersByTime(ms),
    async until(condition, what) {
      const endMs = Date.now() + BOUND_MS
      while (!condition()) {
        if (Date.now() > endMs) throw new Error(`waited ${BOUND_MS} ms for ${what}`)
        await new Promise((resolve) => setImmediate(resolve))
      }
    },
  }
}
