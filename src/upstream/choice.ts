// Who among the targets of an upstream is asked: those that are well, by the rule of the table; where that leaves nobody, or
// most are out, all the others too. One target is no choice, and costs none.

import { type Rule, type Standing, hashed, leastRequests, roundRobin } from './balance.ts'
import { hashText } from './hash-key.ts'
import type { Balance } from './options.ts'

/** A target as far as it matters here. */
export interface Candidate {
  readonly origin: URL
  readonly weight: number
  /** Requests on connections and in line. */
  readonly load: number
  readonly isOut: boolean
  /** Of its weight, from 0 to 1; 0 while it is out. nowMs: performance.now(). */
  share(nowMs: number): number
  /** False while it is to be left alone. */
  mayTake(nowMs: number): boolean
  /** A request goes. */
  take(nowMs: number): void
}

/** The target for a request; see UpstreamPool. T: what others know of it. mayRest: some may not be asked at times. */
export function compileChoice<T, C extends T & Candidate>(
  targets: readonly C[],
  balance: Balance,
  mayRest: boolean,
): (tried: readonly T[], hash: number | null) => C | null {
  const [only] = targets
  if (only !== undefined && targets.length === 1) {
    if (!mayRest) return () => only
    return () => taken(only.mayTake(performance.now()) ? only : null)
  }
  const rule = compileRule(targets, balance)
  const standing: Standing = { weights: new Float64Array(targets.length), loads: new Float64Array(targets.length) }

  /** False where nobody is left. heedsHealth: of those alone that are not out. */
  function weigh(tried: readonly T[], nowMs: number, heedsHealth: boolean): boolean {
    let isAny = false
    let i = 0
    for (const target of targets) {
      const isLeft = (tried.length === 0 || !tried.includes(target)) && (!mayRest || target.mayTake(nowMs))
      const weight = isLeft ? target.weight * (heedsHealth ? target.share(nowMs) : 1) : 0
      isAny ||= weight > 0
      standing.weights[i] = weight
      standing.loads[i] = target.load
      i++
    }
    return isAny
  }

  function isPanic(): boolean {
    let out = 0
    for (const target of targets) if (target.isOut) out++
    return 2 * out > targets.length
  }

  return (tried, hash) => {
    const nowMs = performance.now()
    // Better one that is out than none; where all have been tried, all may be again.
    const isAny =
      (!isPanic() && weigh(tried, nowMs, true)) ||
      weigh(tried, nowMs, false) ||
      (tried.length > 0 && weigh([], nowMs, false))
    if (!isAny) return null
    const after = tried.length === 0 ? -1 : targets.indexOf(tried.at(-1) as C)
    const chosen = targets[rule.choose(standing, hash, after)] as C
    return mayRest ? taken(chosen) : chosen
  }
}

function taken<C extends Candidate>(target: C | null): C | null {
  target?.take(performance.now())
  return target
}

function compileRule(targets: readonly Candidate[], { rule }: Balance): Rule {
  if (rule === 'least-requests') return leastRequests(Math.random)
  const inTurn = roundRobin(targets.length)
  if (rule === 'round-robin') return inTurn
  return hashed(
    targets.map(({ origin }) => hashText(origin.origin)),
    inTurn,
  )
}
