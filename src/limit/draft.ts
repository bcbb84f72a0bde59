// The numbers of one request, by policy: what the stores are asked with, what they answer, and what has been taken so
// far and may have to be given back.

import type { RequestContext } from '../core/context.ts'
import { blankStanding, type Standing } from './algorithm.ts'
import type { Meter } from './meter.ts'
import type { Policy } from './policy.ts'
import type { Demand, Quota } from './quota.ts'
import type { Slot } from './slots.ts'

export interface Draft extends Demand {
  readonly quotas: readonly Quota[]
  readonly subjects: (string | null)[]
  /** True where every policy applies. */
  isWhole: boolean
  readonly costs: number[]
  readonly standings: readonly Standing[]
  from: number
  to: number
  /** When each was asked about last, wall clock. */
  readonly atMs: number[]
  /** Units charged and not given back. */
  readonly taken: number[]
  readonly slots: Slot[]
  /** What the answer says that the request has cost; null: nothing. */
  readonly told: (number | null)[]
  /** Of what goes to the upstream; null where no policy asks what that uses. */
  meter: Meter | null
  /** What it has used, or has not, is among the figures. */
  isCounted: boolean
}

export const createDraft = (policies: readonly Policy[]): Draft => ({
  quotas: policies.map(({ quota }) => quota),
  subjects: policies.map(() => null),
  isWhole: false,
  costs: policies.map(() => 0),
  standings: policies.map(blankStanding),
  from: 0,
  to: 0,
  atMs: policies.map(() => 0),
  taken: policies.map(() => 0),
  slots: [],
  told: policies.map(() => null),
  meter: null,
  isCounted: false,
})

/** Fills in whom and how much; false where no policy applies. */
export function fillIn(draft: Draft, policies: readonly Policy[], ctx: RequestContext): boolean {
  let applies = false
  draft.isWhole = true
  let subjectOf: Policy['subjectOf'] | null = null
  let subject: string | null = null
  for (let i = 0; i < policies.length; i++) {
    const policy = policies[i] as Policy
    // Policies that go by the address, most of all, share one function.
    if (policy.subjectOf !== subjectOf) {
      subjectOf = policy.subjectOf
      subject = subjectOf(ctx)
    }
    const cost = subject === null ? 0 : policy.costOf(ctx)
    draft.costs[i] = cost
    draft.subjects[i] = cost === 0 ? null : subject
    if (cost === 0) draft.isWhole = false
    else applies = true
  }
  return applies
}

/** Turns to the policies from `from` to before `to`, which is now; false where none of them applies. */
export function turnTo(draft: Draft, from: number, to: number, nowMs: number): boolean {
  draft.from = from
  draft.to = to
  let applies = false
  for (let i = from; i < to; i++) {
    draft.atMs[i] = nowMs
    if (draft.subjects[i] !== null) applies = true
  }
  return applies
}
