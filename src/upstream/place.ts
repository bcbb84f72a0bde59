// One request's place at its upstream: how it comes by one, what the adaptive limit learns of it, and that it is given back
// once. It may be had more than once, one after another.

import { NO_COHORT } from './adaptive-limit.ts'
import type { Gate, Guest, Ticket } from './gate.ts'

/** What the upstream has made of it: an answer; none that is any good; or nobody knows. */
export type Outcome = 'answered' | 'failed' | 'gone'

export class Place {
  readonly #gate: Gate
  /** While it is waited for. */
  #ticket: Ticket | null = null
  /** Since when it is had; null: it is not. */
  #sinceMs: number | null = null
  #cohort = NO_COHORT

  constructor(gate: Gate) {
    this.#gate = gate
  }

  get isWaitedFor(): boolean {
    return this.#ticket !== null
  }

  /** Asks for it; the guest hears, at once or later. */
  enter(guest: Guest): void {
    this.#ticket = this.#gate.enter(guest)
  }

  /** The guest has it. */
  taken(): void {
    this.#ticket = null
    const nowMs = performance.now()
    this.#sinceMs = nowMs
    const { adaptive } = this.#gate
    if (adaptive !== null) this.#cohort = adaptive.begin(this.#gate.taken, nowMs)
  }

  /** Told once of each time that it is had; what comes after that says nothing new. */
  measured(outcome: Outcome): void {
    const cohort = this.#cohort
    if (cohort === NO_COHORT || this.#sinceMs === null) return
    this.#cohort = NO_COHORT
    const nowMs = performance.now()
    this.#gate.adaptive?.end(cohort, outcome === 'answered' ? nowMs - this.#sinceMs : outcome, nowMs)
  }

  /** Neither had nor waited for any more. */
  leave(): void {
    this.#ticket?.leave()
    this.#ticket = null
    const sinceMs = this.#sinceMs
    if (sinceMs === null) return
    this.#sinceMs = null
    this.#gate.leave(performance.now() - sinceMs)
  }
}
