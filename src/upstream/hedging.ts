// When a request of an upstream is sent for a second time while the first is still out, and how often that may be.
//
// Who waits longer than nearly all others do has likely met a target that is busy with something else. To ask another one
// then costs little and shortens the longest waits most (Dean and Barroso, The Tail at Scale). It is bounded by the calls
// there are: where all of them are slow, nobody is helped by asking twice.

import { Alarms } from '../core/alarms.ts'
import type { HedgeOptions } from './options.ts'

/** What `auto` goes by: the last so many durations, looked through again after so many new ones. */
const SAMPLES = 200
const RENEWED_AFTER = 20
const QUANTILE = 0.95
/** `auto` never waits for less, milliseconds: what is answered at once is not worth the work. */
const MIN_AUTO_MS = 20
/** Second attempts that may be saved up while none is needed. */
const MAX_CREDIT = 10

export class Hedging {
  /** Of the requests that wait for the head of an answer. */
  readonly alarms = new Alarms()
  readonly #afterMs: number | null
  readonly #perCall: number
  readonly #samples: number[] = []
  #next = 0
  #autoMs: number | null = null
  /** Of second attempts; the first call may have one. */
  #credit = 1
  /** Second attempts, and those that were the first to answer. */
  sent = 0
  won = 0

  constructor({ after, percent }: HedgeOptions) {
    this.#afterMs = after === 'auto' ? null : after
    this.#perCall = percent / 100
  }

  /** Milliseconds without a head after which another target is asked; null: not known yet. */
  get delayMs(): number | null {
    return this.#afterMs ?? this.#autoMs
  }

  /** A call begins that may have a second attempt. */
  begin(): void {
    this.#credit = Math.min(MAX_CREDIT, this.#credit + this.#perCall)
  }

  /** An attempt has taken so long to the head of its answer, or has been given up after so long. */
  note(durationMs: number): void {
    if (this.#afterMs !== null) return
    this.#samples[this.#next % SAMPLES] = durationMs
    if (++this.#next % RENEWED_AFTER !== 0) return
    const sorted = this.#samples.toSorted((a, b) => a - b)
    const quantileMs = sorted[Math.min(sorted.length - 1, Math.floor(QUANTILE * sorted.length))] ?? 0
    this.#autoMs = Math.max(MIN_AUTO_MS, quantileMs)
  }

  /** True where there may be one more, which then counts. */
  take(): boolean {
    // Twenty times a twentieth is a little less than one.
    if (this.#credit < 1 - 1e-9) return false
    this.#credit -= 1
    this.sent++
    return true
  }
}
