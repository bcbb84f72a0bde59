// A policy's budget as the stores see it: which algorithm counts, at what rate, and under what identity. This file alone
// knows which algorithms there are and which options choose one, and what a store promises.
//
// The identity says what a counter means, so it outlives a reload with another limit or burst, and ends where the
// numbers would mean something else: another algorithm, window or key.

import { gcra } from './algorithms/gcra.ts'
import { slidingWindow } from './algorithms/sliding-window.ts'
import type { Algorithm, Rate, Standing } from './algorithm.ts'
import { formatKeyPart, type LimitOptions } from './options.ts'

/** Every algorithm; the contract suite runs over them and stores size their cells by them. */
export const ALGORITHMS: readonly Algorithm[] = [slidingWindow, gcra]

export interface Quota {
  readonly id: string
  readonly algorithm: Algorithm
  readonly rate: Rate
  /** For a counter that strangers share: GCRA that never admits what the algorithm would not. */
  readonly sharedRate: Rate
}

/** Counts. Subjects are texts of bounded length (key.ts), or null where a policy does not apply to the request; the
 *  lists of one call belong together by index, and no quota comes twice in one. */
export interface QuotaStore {
  /** Charges `cost` to every subject, or to none when one of the quotas refuses. Fills standings[i] where subjects[i]
   *  is not null, with what holds after the charge. True when charged. A store that must ask elsewhere answers
   *  later and leaves the lists to itself until then; one that decides here answers at once. Never rejects.
   *  cost: whole units, 1 to the smallest capacity. nowMs: wall clock, whole milliseconds. */
  charge(
    quotas: readonly Quota[],
    subjects: readonly (string | null)[],
    cost: number,
    nowMs: number,
    standings: readonly Standing[],
  ): boolean | Promise<boolean>
  /** As charge(), but charges nothing, and answers at once from what this instance knows. */
  peek(
    quotas: readonly Quota[],
    subjects: readonly (string | null)[],
    cost: number,
    nowMs: number,
    standings: readonly Standing[],
  ): void
  /** Lets go of everything the store holds; no call may follow. */
  close(): void | Promise<void>
}

/** name: unique among the policies of a configuration. */
export function compileQuota(name: string, options: LimitOptions): Quota {
  const { limit, window: windowMs, burst } = options
  const algorithm = burst === undefined ? slidingWindow : gcra
  const rate = { limit, windowMs, burst: burst ?? limit }
  return {
    id: [name, algorithm.name, windowMs, ...options.key.map(formatKeyPart)].join(' '),
    algorithm,
    rate,
    sharedRate: algorithm === gcra ? rate : strictRate(rate),
  }
}

/** GCRA that admits at most `limit` in any window. A window holds the burst and what the rate gives until just before
 *  its end, burst + perWindow - 1; half of each keeps both a burst and a pace. */
function strictRate({ limit, windowMs }: Rate): Rate {
  const perWindow = Math.ceil(limit / 2)
  return { limit: perWindow, windowMs, burst: limit + 1 - perWindow }
}
