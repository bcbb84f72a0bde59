// Whether this process has more to do than it can. Then what would go to an upstream is refused, so that what is at hand
// goes on being answered; before that, while the heap only fills up, nothing new is stored. What is asked on a request's
// way is one field; all else happens once a second.
//
// The lag of the event loop is the median of a second: one long pause, of the garbage collector or of the whole machine,
// is no overload. The heap is what a full collection has left of it, since before one nobody knows what is garbage. Where
// such a verdict has reduced the load there may be no next collection to lift it, so it holds for a few seconds only; a
// heap that is really full is collected again and again.

import { PerformanceObserver, constants, monitorEventLoopDelay } from 'node:perf_hooks'
import { getHeapStatistics } from 'node:v8'
import { GatewayError } from './errors.ts'

const PERIOD_MS = 1000
const LAG_SAMPLE_MS = 20
/** Fewer in a period are no median; the period then goes on. */
const MIN_LAG_SAMPLES = 3
/** Periods for which a full heap counts after the collection that has shown it. */
const HEAP_PERIODS = 5
/** Of the line, where it is over again: an overload that ends and begins by turns helps nobody. */
const LAG_END = 0.5

/** One period. */
export interface Load {
  /** Of the event loop, median. */
  readonly lagMs: number
  /** What a full collection has left on the heap, as a part of what there may be; null: there was none. */
  readonly heapFill: number | null
}

/** Tells the load of each period until it is stopped, which is what it answers. */
export type Pulse = (tell: (load: Load) => void) => () => void

/** From where on it is too much. */
export interface OverloadLines {
  /** Milliseconds. */
  readonly lag: number
  /** A part of what the heap may have. */
  readonly heap: number
  /** The same, from where on nothing new is stored. */
  readonly storing: number
}

export type OverloadReason = 'lag' | 'heap'

export interface OverloadListener {
  /** It begins, and why, or ends (null). */
  over(why: OverloadReason | null, load: Load): void
  /** From now on nothing new is stored, or it is again. */
  full(isFull: boolean, load: Load): void
}

export class Overload {
  /** What is not at hand is to be refused. */
  isOver = false
  /** Nothing new is to be stored. */
  isFull = false
  /** Why it began; null while it is not over. */
  why: OverloadReason | null = null
  /** Of the last period. */
  lagMs = 0
  /** Requests that were refused. */
  refused = 0
  #lines: OverloadLines | false
  readonly #heap = new HeapVerdict()
  readonly #storing = new HeapVerdict()
  readonly #listener: OverloadListener

  /** false: there is no line. */
  constructor(lines: OverloadLines | false, listener: OverloadListener) {
    this.#lines = lines
    this.#listener = listener
  }

  /** Takes effect with the next period, but for false. */
  configure(lines: OverloadLines | false): void {
    this.#lines = lines
    if (lines === false) this.judge({ lagMs: this.lagMs, heapFill: null })
  }

  judge(load: Load): void {
    this.lagMs = load.lagMs
    const lines = this.#lines
    const why = lines === false ? null : this.#reason(load, lines)
    const isFull = lines !== false && this.#storing.isPast(load.heapFill, lines.storing)
    if (isFull !== this.isFull) {
      this.isFull = isFull
      this.#listener.full(isFull, load)
    }
    if ((why !== null) === this.isOver) return
    this.isOver = why !== null
    this.why = why
    this.#listener.over(why, load)
  }

  /** Counts a refusal. */
  refuse(): GatewayError {
    this.refused++
    return OVERLOADED
  }

  #reason({ lagMs, heapFill }: Load, { lag, heap }: OverloadLines): OverloadReason | null {
    const isHeapFull = this.#heap.isPast(heapFill, heap)
    if (lagMs > (this.isOver ? lag * LAG_END : lag)) return 'lag'
    return isHeapFull ? 'heap' : null
  }
}

/** What a full collection has said, which holds for some periods. */
class HeapVerdict {
  #periods = 0

  /** Once a period. */
  isPast(heapFill: number | null, line: number): boolean {
    if (heapFill !== null) this.#periods = heapFill > line ? HEAP_PERIODS : 0
    else if (this.#periods > 0) this.#periods--
    return this.#periods > 0
  }
}

/** Made once: an Error takes its stack, and now is not the time. */
export const OVERLOADED = new GatewayError('overloaded', 'The gateway has more to do than it can. Try again later.', {
  retryAfterSeconds: 1,
})

/** Of this process; holds it not open. */
export const processPulse: Pulse = (tell) => {
  let heapFill: number | null = null
  const collections = new PerformanceObserver((list) => {
    if (!list.getEntries().some(isFullCollection)) return
    const { used_heap_size, heap_size_limit } = getHeapStatistics()
    heapFill = used_heap_size / heap_size_limit
  })
  collections.observe({ entryTypes: ['gc'] })
  const delay = monitorEventLoopDelay({ resolution: LAG_SAMPLE_MS })
  delay.enable()
  const timer = setInterval(() => {
    if (delay.count < MIN_LAG_SAMPLES) return
    // The samples are the whole gap between two timers, so the timer's own period comes off.
    const lagMs = Math.max(0, delay.percentile(50) / 1e6 - LAG_SAMPLE_MS)
    delay.reset()
    const load = { lagMs, heapFill }
    heapFill = null
    tell(load)
  }, PERIOD_MS).unref()
  return () => {
    clearInterval(timer)
    delay.disable()
    collections.disconnect()
  }
}

const isFullCollection = (entry: PerformanceEntry): boolean =>
  (entry as { readonly detail?: { readonly kind?: number } }).detail?.kind === constants.NODE_PERFORMANCE_GC_MAJOR
