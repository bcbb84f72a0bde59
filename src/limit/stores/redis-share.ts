// Limits while Redis is lost, as each policy's `fallback` has it: this instance counts its share alone, or all of the
// limit, or lets all pass, or none. What was used before counts on: a subject begins with its part of what Redis said
// was left, never with a fresh burst.

import { blankStanding, type Standing } from '../algorithm.ts'
import { type Demand, type Quota, shareOf } from '../quota.ts'
import { createMemoryStore } from './memory.ts'
import { type Mark, type Subject, recall } from './redis-subjects.ts'

/** When to come back after a refusal because nobody may pass. */
const CLOSED_MS = 1000

export class Share {
  readonly #counters = createMemoryStore()
  readonly #untold: (mark: Mark) => number
  /** For the number of instances that was asked for last. */
  readonly #shares = new WeakMap<Quota, { readonly instances: number; readonly quota: Quota }>()
  readonly #quotas: Quota[] = []
  readonly #subjects: (string | null)[] = []
  readonly #costs: number[] = []
  readonly #standing = blankStanding()
  readonly #probe = { quotas: [] as Quota[], subjects: [''], costs: [1], standings: [this.#standing], atMs: [0] }

  /** untold: units used here that are not in what Redis has told. */
  constructor(untold: (mark: Mark) => number) {
    this.#untold = untold
  }

  get subjects(): number {
    return this.#counters.subjects
  }

  get overflowed(): number {
    return this.#counters.overflowed
  }

  /** As QuotaStore.charge(). known: by the indexes of the demand. */
  charge(demand: Demand, known: readonly (Subject | null)[], instances: number, nowMs: number): boolean {
    const isClosed = this.#translate(demand, known, instances, nowMs)
    const inner = this.#inner(demand)
    if (isClosed) this.#counters.peek(inner, nowMs)
    const admitted = !isClosed && this.#counters.charge(inner, nowMs)
    this.#sign(demand, nowMs)
    return admitted
  }

  /** As QuotaStore.peek(). */
  peek(demand: Demand, known: readonly (Subject | null)[], instances: number, nowMs: number): void {
    this.#translate(demand, known, instances, nowMs)
    this.#counters.peek(this.#inner(demand), nowMs)
    this.#sign(demand, nowMs)
  }

  /** Undoes a charge that was admitted. The standings are as without it. */
  takeBack(demand: Demand, known: readonly (Subject | null)[], instances: number, nowMs: number): void {
    const { quotas, subjects, costs, standings, atMs, from, to } = demand
    for (let i = from; i < to; i++) {
      const quota = quotas[i] as Quota
      const subject = subjects[i] as string | null
      if (subject === null || !(standings[i] as Standing).admitted || !isCounted(quota)) continue
      const share = this.#shareFor(quota, instances)
      const cost = Math.min(costs[i] as number, share.rate.burst)
      this.#counters.settle(share, subject, -cost, atMs[i] as number, nowMs)
    }
    this.peek(demand, known, instances, nowMs)
  }

  settle(
    quota: Quota,
    subject: string,
    delta: number,
    { chargedAtMs, nowMs, instances }: { chargedAtMs: number; nowMs: number; instances: number },
  ): void {
    this.#counters.settle(this.#shareFor(quota, instances), subject, delta, chargedAtMs, nowMs)
  }

  reset(quota: Quota, subject: string, nowMs: number): void {
    void this.#counters.reset(quota, subject, nowMs)
  }

  #inner({ standings, atMs, from, to }: Demand): Demand {
    return { quotas: this.#quotas, subjects: this.#subjects, costs: this.#costs, standings, atMs, from, to }
  }

  /** Turns the demand into one that counters of this instance can decide, and the rest into standings; true where
   *  nobody passes. */
  #translate(demand: Demand, known: readonly (Subject | null)[], instances: number, nowMs: number): boolean {
    const { quotas, subjects, costs, standings, from, to } = demand
    let isClosed = false
    for (let i = from; i < to; i++) {
      const quota = quotas[i] as Quota
      const subject = subjects[i] as string | null
      const cost = costs[i] as number
      const share = this.#shareFor(quota, instances)
      this.#quotas[i] = share
      // What fits the limit and not the share would be locked out: it takes all of the share.
      this.#costs[i] = cost > quota.rate.burst ? cost : Math.min(cost, share.rate.burst)
      this.#subjects[i] = null
      if (subject === null) continue
      const standing = standings[i] as Standing
      if (isCounted(quota)) {
        this.#subjects[i] = subject
        this.#inherit(quota, share, subject, known[i] ?? null, nowMs)
      } else if (quota.fallback === 'closed') {
        tell(standing, { admitted: !quota.isEnforced, remaining: 0, waitMs: CLOSED_MS })
        if (quota.isEnforced) isClosed = true
      } else {
        tell(standing, { admitted: true, remaining: quota.rate.burst, waitMs: 0 })
      }
    }
    return isClosed
  }

  /** Says who has decided. */
  #sign({ quotas, subjects, standings, atMs, from, to }: Demand, nowMs: number): void {
    for (let i = from; i < to; i++) {
      if (subjects[i] === null) continue
      ;(standings[i] as Standing).source = (quotas[i] as Quota).fallback === 'closed' ? 'closed' : 'share'
      atMs[i] = nowMs
    }
  }

  /** Takes what Redis has told since the last outage: no more is left than this instance's part of that. */
  #inherit(quota: Quota, share: Quota, subject: string, known: Subject | null, nowMs: number): void {
    const mark = known?.findMark(quota) ?? null
    if (mark === null || !mark.isNews) return
    mark.isNews = false
    const standing = this.#standing
    recall(mark, quota, 1, nowMs, standing)
    const part = Math.floor((standing.remaining * share.rate.burst) / quota.rate.burst)
    // What is on its way there comes out of this part, since all others have theirs.
    const inherited = Math.max(0, part - this.#untold(mark))
    const probe = this.#probe
    probe.quotas[0] = share
    probe.subjects[0] = subject
    this.#counters.peek({ ...probe, from: 0, to: 1 }, nowMs)
    const surplus = standing.remaining - inherited
    if (surplus > 0) this.#counters.settle(share, subject, surplus, nowMs, nowMs)
  }

  #shareFor(quota: Quota, instances: number): Quota {
    if (quota.fallback !== 'share' || instances === 1) return quota
    const known = this.#shares.get(quota)
    if (known?.instances === instances) return known.quota
    const share = { instances, quota: shareOf(quota, instances) }
    this.#shares.set(quota, share)
    return share.quota
  }
}

const isCounted = ({ fallback }: Quota): boolean => fallback === 'share' || fallback === 'full'

function tell(
  standing: Standing,
  { admitted, remaining, waitMs }: Pick<Standing, 'admitted' | 'remaining' | 'waitMs'>,
) {
  standing.admitted = admitted
  standing.remaining = remaining
  standing.waitMs = standing.nextMs = standing.fullMs = waitMs
}
