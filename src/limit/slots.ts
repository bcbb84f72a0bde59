// How many requests of one subject are at the upstream at the same time. A slot is taken last, when nothing else can
// refuse the request any more, and given back when its answer is finished or broken off, whatever became of it, and no
// fetch goes on that it has led.

import type { DecisionSource } from './algorithm.ts'
import type { Quota } from './quota.ts'

/** A place that is held. */
export interface Slot {
  /** Slots that were free after this one was taken. */
  readonly remaining: number
  /** Who has decided. */
  readonly source: DecisionSource
  /** Gives it back; once. */
  release(): void
}

/** Holds slots. One that must ask elsewhere answers later; never rejects. */
export interface SlotStore {
  /** A slot, or, where there is none to be had, who says so. */
  acquire(quota: Quota, subject: string): Slot | DecisionSource | Promise<Slot | DecisionSource>
  /** Slots in use, as far as this instance knows. */
  used(quota: Quota, subject: string): number
  close(): void | Promise<void>
}

/** Slots of this process alone. What it holds is bounded by the requests that are open. */
export function createMemorySlots(): SlotStore {
  const taken = new Map<string, number>()

  return {
    acquire({ id, rate }, subject) {
      const key = `${id}\n${subject}`
      const inUse = taken.get(key) ?? 0
      if (inUse >= rate.limit) return 'memory'
      taken.set(key, inUse + 1)
      return {
        remaining: rate.limit - inUse - 1,
        source: 'memory',
        release() {
          const left = (taken.get(key) ?? 1) - 1
          if (left > 0) taken.set(key, left)
          else taken.delete(key)
        },
      }
    },
    used: ({ id }, subject) => taken.get(`${id}\n${subject}`) ?? 0,
    close() {},
  }
}
