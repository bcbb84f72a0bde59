// Whether a target is fit to be asked. Pure: events and times in, a state out, so every rule is a row in
// test/upstream/health.test.ts. target-watch.ts brings the events, and looks after a target that is out.
//
//   up    gets its share; fewer requests at first where it has been out, so that a cold one is not run over
//   out   gets none, unless more than half of the targets are out: then nobody knows better, and all are used
//
// Out goes who has failed too many requests in a row, or too many checks. With checks, they alone bring it back.
// Without, it comes back when it takes connections again, on trial: its first failure takes it out for longer. So a
// target that cannot be seen through without asking costs a request now and then, no more often than every 4 s.

export interface HealthRules {
  /** Failures in a row that take it out; 0: requests never do. */
  readonly failures: number
  /** Milliseconds after its return in which its share grows from a tenth to all; 0: at once. */
  readonly slowStartMs: number
  /** Null: nobody checks it while it is up. */
  readonly checks: {
    readonly intervalMs: number
    readonly healthyAfter: number
    readonly unhealthyAfter: number
  } | null
}

/** Of connections that could not be made, so many in a row will do: no request is lost by that, and none is needed to
 *  see that it is back. */
const MAX_REFUSALS = 3
const FIRST_SHARE = 0.1
const FIRST_PAUSE_MS = 500
const MAX_PAUSE_MS = 4000
/** Who fails again within this time after its return has not recovered. */
const RELAPSE_MS = 10_000
/** Between checks while it is out. */
const MAX_DOUBT_MS = 1000
/** After one that has failed while it is up: whether that was more than a hiccup is to be known soon. */
const SECOND_LOOK_MS = 250
const JITTER = 0.1

export class TargetHealth {
  readonly #rules: HealthRules
  #isOut: boolean
  /** In a row. */
  #failures = 0
  /** Checks in a row that speak against the state. */
  #checks = 0
  #returnedAtMs = -Infinity
  #pauseMs = FIRST_PAUSE_MS
  /** How often it went out. */
  exits = 0

  /** isOut: as a target that was out before and is still to be judged. */
  constructor(rules: HealthRules, isOut = false) {
    this.#rules = rules
    this.#isOut = isOut
  }

  get isOut(): boolean {
    return this.#isOut
  }

  /** True where a good answer would change anything. */
  get isInDoubt(): boolean {
    return this.#failures > 0 || this.#isOut
  }

  /** Of its weight: 0 while it is out. */
  share(nowMs: number): number {
    if (this.#isOut) return 0
    const sinceMs = nowMs - this.#returnedAtMs
    const { slowStartMs } = this.#rules
    return sinceMs >= slowStartMs ? 1 : FIRST_SHARE + (1 - FIRST_SHARE) * (sinceMs / slowStartMs)
  }

  /** It has answered a request well. */
  answered(nowMs: number): void {
    this.#failures = 0
    // It was asked since all others are out as well, and no check says otherwise.
    if (this.#isOut && this.#rules.checks === null) this.#return(nowMs)
  }

  /** It has failed a request. isUnreachable: no connection was made. */
  failed(isUnreachable: boolean, nowMs: number): void {
    const { failures } = this.#rules
    if (failures === 0 || this.#isOut) return
    this.#failures++
    if (this.#failures >= (isUnreachable ? Math.min(failures, MAX_REFUSALS) : failures)) this.#leave(nowMs)
  }

  /** A check, or a try to connect where there are no checks. */
  checked(isGood: boolean, nowMs: number): void {
    const { checks } = this.#rules
    if (isGood !== this.#isOut) {
      this.#checks = 0
      if (!isGood) this.#pauseMs = Math.min(2 * this.#pauseMs, MAX_PAUSE_MS)
      return
    }
    this.#checks++
    const needed = isGood ? (checks?.healthyAfter ?? 1) : (checks?.unhealthyAfter ?? Infinity)
    if (this.#checks < needed) return
    if (isGood) this.#return(nowMs)
    else this.#leave(nowMs)
  }

  /** Milliseconds to the next check, or try to connect; null: none is needed. random: 0 to 1. */
  nextLookMs(random: number): number | null {
    const { checks } = this.#rules
    const spread = 1 + JITTER * (2 * random - 1)
    if (checks === null) return this.#isOut ? this.#pauseMs * spread : null
    const mostMs = this.#isOut ? MAX_DOUBT_MS : this.#checks > 0 ? SECOND_LOOK_MS : Infinity
    return Math.min(checks.intervalMs, mostMs) * spread
  }

  #leave(nowMs: number): void {
    const isRelapse = nowMs - this.#returnedAtMs < RELAPSE_MS
    this.#pauseMs = isRelapse ? Math.min(2 * this.#pauseMs, MAX_PAUSE_MS) : FIRST_PAUSE_MS
    this.#isOut = true
    this.#failures = this.#checks = 0
    this.exits++
  }

  #return(nowMs: number): void {
    this.#isOut = false
    this.#checks = 0
    this.#returnedAtMs = nowMs
    // On trial, where nothing but the next request can tell.
    this.#failures = this.#rules.checks === null ? Math.max(0, this.#rules.failures - 1) : 0
  }
}
