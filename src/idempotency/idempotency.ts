// What all routes with `idempotency` share, made once: the keys that are known here and everywhere, what is held for them, and
// what is still being carried out. What becomes of a request is in route.ts.

import { HeldBodies } from './bodies.ts'
import type { KeyNames } from './key.ts'
import type { SharedKeys } from './redis.ts'
import { KeyTable, type TableBounds } from './table.ts'

/** What all routes share, and what outlives a reload. */
export interface Idempotency {
  readonly table: KeyTable
  readonly shared: SharedKeys | null
  readonly names: KeyNames
  readonly counts: Record<Outcome, number>
  readonly bodies: HeldBodies
  readonly running: Running
}

/** What became of requests with a key. local: of those that went on, in how many cases Redis could not be asked. */
export const OUTCOMES = ['first', 'joined', 'replayed', 'reused', 'unknown', 'not_kept', 'in_flight', 'local'] as const
export type Outcome = (typeof OUTCOMES)[number]

export interface IdempotencySetup {
  readonly bounds: TableBounds
  readonly shared: SharedKeys | null
  readonly names: KeyNames
  /** Wall clock, milliseconds. */
  readonly now: () => number
}

export function createIdempotency({ bounds, shared, names, now }: IdempotencySetup): Idempotency {
  const counts = Object.fromEntries(OUTCOMES.map((outcome) => [outcome, 0])) as Record<Outcome, number>
  return { table: new KeyTable(bounds, now), shared, names, counts, bodies: new HeldBodies(), running: new Running() }
}

/** How many requests with a key are being carried out. */
class Running {
  #count = 0
  #waiting: (() => void)[] = []

  begin(): void {
    this.#count++
  }

  end(): void {
    if (--this.#count > 0) return
    for (const resolve of this.#waiting) resolve()
    this.#waiting = []
  }

  /** Resolves when there is none, or after maxMs. */
  whenNone(maxMs: number): Promise<void> {
    if (this.#count === 0 || maxMs <= 0) return Promise.resolve()
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, maxMs)
      this.#waiting.push(() => {
        clearTimeout(timer)
        resolve()
      })
    })
  }
}
