// The targets of one upstream, the gate before them, and what they have in common.

import type { UpstreamRow } from '../core/control.ts'
import type { GatewayError } from '../core/errors.ts'
import { AdaptiveLimit } from './adaptive-limit.ts'
import { compileChoice } from './choice.ts'
import { Gate } from './gate.ts'
import { Hedging } from './hedging.ts'
import type { ConcurrencyOptions, UpstreamOptions } from './options.ts'
import { RetryBudget } from './retry-budget.ts'
import { DRAINING, PooledTarget, type Target, type TargetSetup } from './target.ts'

/** How many milliseconds each phase of an exchange may take. */
export interface Timeouts {
  readonly connectMs: number
  readonly queueMs: number
  readonly firstByteMs: number
  /** 0: no limit. */
  readonly firstEventMs: number
  readonly idleMs: number
  readonly totalMs: number
  readonly streamTotalMs: number
  readonly websocketIdleMs: number
}

export const DEFAULT_TIMEOUTS: Timeouts = {
  connectMs: 2000,
  queueMs: 30_000,
  firstByteMs: 30_000,
  firstEventMs: 0,
  idleMs: 30_000,
  totalMs: 60_000,
  streamTotalMs: 300_000,
  websocketIdleMs: 300_000,
}

/** Of an adaptive limit. */
const DEFAULT_MIN = 3

/** Targets of which one is taken for a request. */
export interface TargetChoice {
  /** The target for a request. tried: those that have failed it, the last one at the end; it meets another where there is
   *  one. hash: of the key by which it keeps to a target, null where it has none. Null: all are to be left alone. */
  next(tried: readonly Target[], hash: number | null): Target | null
  /** Why it is null. */
  refusal(): GatewayError
  /** True where there is a target that is not among these, and may be asked. */
  hasOther(tried: readonly Target[]): boolean
  /** The same of targets that are not out. */
  hasWell(tried: readonly Target[]): boolean
}

export interface UpstreamPool extends TargetChoice {
  readonly name: string
  /** For requests that may change something, where those have a target of their own. */
  readonly writes: TargetChoice | null
  readonly budget: RetryBudget
  /** Requests between two attempts, which hold nothing else of the pool. */
  readonly pausing: Set<{ abort(reason: GatewayError): void }>
  /** Null: as many requests at the same time as come. */
  readonly gate: Gate | null
  /** Null: no request is sent twice for being late. */
  readonly hedging: Hedging | null
  /** A request goes out once more. */
  countRetry(): void
  status(): UpstreamRow
  /** Lets requests in flight finish, then closes every connection. Takes no more requests. */
  close(): Promise<void>
  /** Breaks everything off. */
  destroy(): Promise<void>
}

export function createPool(setup: TargetSetup): UpstreamPool {
  const { name, options } = setup
  const open = (url: URL, weight: number): PooledTarget => new PooledTarget(url, weight, setup, onRest)
  const targets = options.targets.map(({ url, weight }) => open(url, weight))
  const primary = options.primary === undefined ? null : findOrOpen(targets, options.primary, open)
  const all = primary === null || targets.includes(primary) ? targets : [...targets, primary]
  const takes = (target: PooledTarget): UpstreamRow['targets'][number]['takes'] => {
    if (primary === null || (target === primary && all === targets)) return 'all'
    return target === primary ? 'writes' : 'reads'
  }
  const { concurrency } = options
  const gate = concurrency === undefined ? null : createGate(concurrency)
  /** Who waits in line for a place need not be told that there is nobody to ask. */
  function onRest(): void {
    gate?.rest(Math.min(...all.map(({ restsUntilMs }) => restsUntilMs)))
  }
  const pausing: UpstreamPool['pausing'] = new Set()
  const hedging = options.hedge === undefined ? null : new Hedging(options.hedge)
  let retries = 0
  return {
    name,
    budget: new RetryBudget(),
    pausing,
    gate,
    hedging,
    countRetry: () => void retries++,
    ...choiceOf(targets, options),
    writes: primary === null ? null : choiceOf([primary], options),
    status: () => ({
      upstream: name,
      retries,
      hedges: hedging?.sent ?? 0,
      hedges_won: hedging?.won ?? 0,
      limit: gate?.limit ?? null,
      waiting: gate?.waiting ?? 0,
      refused: gate?.refused ?? 0,
      targets: all.map((target) => ({ ...target.status(), takes: takes(target) })),
    }),
    async close() {
      await Promise.all(all.map((target) => target.close()))
    },
    async destroy() {
      gate?.close(DRAINING)
      for (const request of pausing) request.abort(DRAINING)
      for (const target of all) target.destroy()
    },
  }
}

function createGate({ max, min, adaptive, queue, wait }: ConcurrencyOptions): Gate {
  const range = { min: Math.min(min ?? DEFAULT_MIN, max), max }
  return new Gate({ max, adaptive: adaptive ? new AdaptiveLimit(range) : null, maxWaiting: queue, waitMs: wait })
}

const findOrOpen = (
  targets: readonly PooledTarget[],
  url: URL,
  open: (url: URL, weight: number) => PooledTarget,
): PooledTarget => targets.find(({ origin }) => origin.origin === url.origin) ?? open(url, 1)

const choiceOf = (targets: readonly PooledTarget[], { balance, breaker, refusals }: UpstreamOptions): TargetChoice => ({
  next: compileChoice<Target, PooledTarget>(targets, balance, breaker !== undefined || refusals.coolDown !== 'off'),
  refusal() {
    const nowMs = performance.now()
    return targets.reduce((a, b) => (b.waitMs(nowMs) < a.waitMs(nowMs) ? b : a)).refusal(nowMs)
  },
  hasOther: (tried) => mayBeAsked(targets, tried).length > 0,
  hasWell: (tried) => mayBeAsked(targets, tried).some(({ isOut }) => !isOut),
})

function mayBeAsked(targets: readonly PooledTarget[], tried: readonly Target[]): readonly PooledTarget[] {
  const nowMs = performance.now()
  return targets.filter((target) => !tried.includes(target) && target.mayTake(nowMs))
}
