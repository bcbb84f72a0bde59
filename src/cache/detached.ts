// Fetches that go on though every client has gone: what they bring is stored for whoever asks next, often the same client
// once more. Each was somebody's wish a moment ago, and none of them is anybody's now, so they are few, and for a while:
// a share of what an upstream may have at the same time, and MAX_DETACHED_MS from the moment when the last client went.
//
// What becomes of each is counted once: used, when somebody joined it or its entry answered somebody, or wasted, when
// it brought nothing or what it brought went unused.

import { type Alarm, Alarms } from '../core/alarms.ts'
import type { StoredResponse } from './entry.ts'
import type { OnAbort } from './options.ts'
import type { CacheStore } from './store.ts'

const MAX_DETACHED_MS = 30_000
/** Fetches of a route of which the median is taken. */
const REMEMBERED_TIMES = 32

export interface Detached {
  /** Fetches that nobody waits for now. */
  readonly running: number
  readonly counts: Readonly<Record<'used' | 'wasted', number>>
  /** A place for one more fetch of an upstream, of which `most` may go on; null: all are taken. onLate: called when it has
   *  had it for too long. */
  begin(upstream: string, most: number, onLate: () => void): Stay | null
  /** Resolves when nothing goes on, or after maxMs. */
  whenNone(maxMs: number): Promise<void>
}

/** A fetch that goes on. The first of these calls counts, and gives its place back. */
export interface Stay {
  /** Somebody waits for it again. */
  joined(): void
  /** It has brought an entry, of which it is to be seen whether that is of use. */
  stored(entry: StoredResponse): void
  /** It brings nothing more. */
  end(): void
}

export function createDetached(store: Pick<CacheStore, 'watch'>): Detached {
  const alarms = new Alarms()
  /** By upstream; those that have none are not in it. */
  const taken = new Map<string, number>()
  const counts = { used: 0, wasted: 0 }
  let running = 0
  let waiting: (() => void)[] = []

  const count = (wasUsed: boolean): void => void counts[wasUsed ? 'used' : 'wasted']++

  function leave(upstream: string): void {
    const left = (taken.get(upstream) ?? 1) - 1
    if (left > 0) taken.set(upstream, left)
    else taken.delete(upstream)
    if (--running > 0) return
    for (const resolve of waiting) resolve()
    waiting = []
  }

  return {
    get running() {
      return running
    },
    counts,
    begin(upstream, most, onLate) {
      const others = taken.get(upstream) ?? 0
      if (others >= most) return null
      taken.set(upstream, others + 1)
      running++
      const alarm: Alarm = { dueMs: 0, place: -1, ring: onLate }
      alarms.set(alarm, performance.now() + MAX_DETACHED_MS)
      let isOver = false
      const isFirst = (): boolean => {
        if (isOver) return false
        isOver = true
        alarms.clear(alarm)
        leave(upstream)
        return true
      }
      return {
        joined: () => isFirst() && count(true),
        stored: (entry) => isFirst() && store.watch(entry, count),
        end: () => isFirst() && count(false),
      }
    },
    async whenNone(maxMs) {
      if (running === 0 || maxMs <= 0) return
      const { promise, resolve } = Promise.withResolvers<void>()
      waiting.push(resolve)
      const timer = setTimeout(resolve, maxMs)
      await promise
      clearTimeout(timer)
    },
  }
}

export interface FinishingSetup {
  readonly onAbort: OnAbort
  readonly upstream: string
  /** Fetches of that upstream, of all its routes, that may go on at the same time. */
  readonly most: number
  readonly detached: Detached
  /** Wall clock, milliseconds. */
  readonly now: () => number
}

/** When a fetch of one route goes on without a client. */
export class Finishing {
  readonly now: () => number
  readonly #setup: FinishingSetup
  /** Of the last fetches that were stored, milliseconds, in a ring; null before the first. */
  #times: Float64Array | null = null
  #timesNoted = 0

  constructor(setup: FinishingSetup) {
    this.now = setup.now
    this.#setup = setup
  }

  note(fetchMs: number): void {
    this.#times ??= new Float64Array(REMEMBERED_TIMES)
    this.#times[this.#timesNoted++ % REMEMBERED_TIMES] = fetchMs
  }

  /** hasBegun: its answer has. sinceMs: when it was asked for. isDear: it holds what its client could not have once more.
   *  onLate: see Detached. Null: it is to be given up. */
  begin(hasBegun: boolean, sinceMs: number, isDear: boolean, onLate: () => void): Stay | null {
    const { onAbort, upstream, most, detached } = this.#setup
    const isFarOn = (): boolean => hasBegun || this.now() - sinceMs >= this.#medianMs() / 2
    return onAbort === 'finish' || (!isDear && isFarOn()) ? detached.begin(upstream, most, onLate) : null
  }

  /** Infinity where nothing is known. */
  #medianMs(): number {
    const times = this.#times?.subarray(0, this.#timesNoted).toSorted()
    return times?.[times.length >> 1] ?? Infinity
  }
}
