// The targets of one upstream, the gate before them, and what they have in common.

import type { UpstreamRow } from '../core/control.ts'
import type { GatewayError } from '../core/errors.ts'
import { compileChoice } from './choice.ts'
import { Gate } from './gate.ts'
import type { UpstreamOptions } from './options.ts'
import { RetryBudget } from './retry-budget.ts'
import { DRAINING, PooledTarget, type Target, type TargetSetup } from './target.ts'

/** How many milliseconds each phase of an exchange may take. */
export interface Timeouts {
  readonly connectMs: number
  readonly queueMs: number
  readonly firstByteMs: number
  readonly idleMs: number
  readonly totalMs: number
  readonly streamTotalMs: number
  readonly websocketIdleMs: number
}

export const DEFAULT_TIMEOUTS: Timeouts = {
  connectMs: 2000,
  queueMs: 30_000,
  firstByteMs: 30_000,
  idleMs: 30_000,
  totalMs: 60_000,
  streamTotalMs: 300_000,
  websocketIdleMs: 300_000,
}

/** Targets of which one is taken for a request. */
export interface TargetChoice {
  /** The target for a request. tried: those that have failed it, the last one at the end; it meets another where there is
   *  one. hash: of the key by which it keeps to a target, null where it has none. Null: no breaker lets a request go. */
  next(tried: readonly Target[], hash: number | null): Target | null
  /** Milliseconds until one does. */
  waitMs(): number
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
  const targets = options.targets.map(({ url, weight }) => new PooledTarget(url, weight, setup))
  const primary = options.primary === undefined ? null : findOrMake(targets, options.primary, setup)
  const all = primary === null || targets.includes(primary) ? targets : [...targets, primary]
  const takes = (target: PooledTarget): UpstreamRow['targets'][number]['takes'] => {
    if (primary === null || (target === primary && all === targets)) return 'all'
    return target === primary ? 'writes' : 'reads'
  }
  const { concurrency } = options
  const gate =
    concurrency === undefined
      ? null
      : new Gate({ max: concurrency.max, maxWaiting: concurrency.queue, waitMs: concurrency.wait })
  const pausing: UpstreamPool['pausing'] = new Set()
  let retries = 0
  return {
    name,
    budget: new RetryBudget(),
    pausing,
    gate,
    countRetry: () => void retries++,
    ...choiceOf(targets, options),
    writes: primary === null ? null : choiceOf([primary], options),
    status: () => ({
      upstream: name,
      retries,
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

const findOrMake = (targets: readonly PooledTarget[], url: URL, setup: TargetSetup): PooledTarget =>
  targets.find(({ origin }) => origin.origin === url.origin) ?? new PooledTarget(url, 1, setup)

const choiceOf = (targets: readonly PooledTarget[], { balance, breaker }: UpstreamOptions): TargetChoice => ({
  next: compileChoice<Target, PooledTarget>(targets, balance, breaker !== undefined),
  waitMs: () => Math.min(...targets.map((target) => target.waitMs(performance.now()))),
  hasOther: (tried) => mayBeAsked(targets, tried).length > 0,
  hasWell: (tried) => mayBeAsked(targets, tried).some(({ isOut }) => !isOut),
})

function mayBeAsked(targets: readonly PooledTarget[], tried: readonly Target[]): readonly PooledTarget[] {
  const nowMs = performance.now()
  return targets.filter((target) => !tried.includes(target) && target.mayTake(nowMs))
}
