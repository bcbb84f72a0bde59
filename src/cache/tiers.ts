// The tiers behind the memory store: what they hold comes into memory when a request asks for it (read-through), and what
// is stored goes on to them (write-behind). The one place where entries come in from outside this process.
//
// A purge reaches the reads that are under way: what they bring may be from before it, so it does not come in.

import { type StoredResponse, isAhead, isSelected } from './entry.ts'
import type { PurgeRule } from './purge-rule.ts'
import type { CacheStore } from './store.ts'
import type { CacheTier, Selecting } from './tier.ts'

/** Reads under way at once; beyond that a request does without. Each may hold one large entry. */
const MAX_READS = 128

/** What is known of purges by others, for what comes in from where others write. */
export interface PurgeCheck {
  /** Resolves with true once all purges have been carried out here that came before this call; false where that cannot
   *  be had soon. Never rejects. */
  isUpToDate(): Promise<boolean>
  /** What purges have left of an entry: itself, the same made stale, or null. */
  leaves(entry: StoredResponse): StoredResponse | null
  /** Place in the purge log up to which purges have been carried out here; null while it has not been read yet. */
  place(): number | null
}

/** A read of all tiers, for all requests that meet at its place. */
export interface Reading {
  readonly place: string
  /** True when it was begun for another request, which may select another variant. */
  readonly isShared: boolean
  /** Where the last entry came from that was brought into memory; null: from nowhere. Never rejects. */
  readonly done: Promise<CacheTier['name'] | null>
}

export interface Tiers {
  /** In the order in which they are asked. */
  readonly all: readonly CacheTier[]
  /** Brings what tiers hold of a key into memory. place: where reads for the same key and variant meet. Null where there
   *  is no tier, or too many reads are under way. */
  read(place: string, key: string, epoch: string, by: Selecting): Reading | null
  write(entry: StoredResponse): void
  /** Resolves when other instances can read what was given to write. */
  written(): Promise<unknown>
  /** Removes all variants under a key of this epoch. */
  delete(key: string, epoch: string): void
  /** Carries out a rule on what tiers hold. Resolves when that is done, or not sure to be, with the most entries that it
   *  took in one; never rejects. */
  purge(rule: PurgeRule): Promise<number>
  /** Keeps what is being read for these keys from coming into memory. */
  spoil(matches: (key: string) => boolean): void
  /** From now on, what purges have taken away does not come into memory. */
  heed(check: PurgeCheck): void
  close(): Promise<void>
}

interface OpenRead {
  readonly key: string
  /** True when a purge came after it began. */
  isSpoiled: boolean
}

/** tiers: in the order in which to ask them. now: wall clock, milliseconds. */
export function createTiers(tiers: readonly CacheTier[], store: CacheStore, now: () => number): Tiers {
  const open = new Set<OpenRead>()
  let check: PurgeCheck | null = null
  /** By place: those that others may wait for. */
  const shared = new Map<string, { readonly read: OpenRead; readonly done: Reading['done'] }>()

  /** True while it is not known which purges there were while this process was not. */
  const isUnproved = (): boolean => check !== null && check.place() === null

  function leftOf(tier: CacheTier, stored: StoredResponse): StoredResponse | null {
    if (check === null) return stored
    // What is on disk has seen no more of the log than this instance, unless the log has lost its end since.
    if (tier.name === 'disk' && stored.purgeSeq > (check.place() ?? 0)) return null
    return check.leaves(stored)
  }

  async function bring(read: OpenRead, epoch: string, by: Selecting): Promise<CacheTier['name'] | null> {
    let source: CacheTier['name'] | null = null
    for (const tier of tiers) {
      const [entries, isUpToDate] = await Promise.all([
        tier.read(read.key, epoch, by),
        // Others write there: what was purged may still lie there, and this instance may not have heard of it.
        tier.name === 'redis' && check !== null ? check.isUpToDate() : true,
      ])
      if (read.isSpoiled) return null
      if (!isUpToDate || (tier.name === 'disk' && isUnproved())) continue
      let isFresh = false
      for (const stored of entries) {
        const entry = leftOf(tier, stored)
        if (entry === null) tier.delete(read.key, epoch)
        if (entry === null || isAhead(entry, now()) || isOutdone(store, entry)) continue
        store.put(entry)
        source = tier.name
        isFresh ||= entry.freshUntilMs > now() && isSelected(by.headers, by.claims, entry)
      }
      if (isFresh) break
    }
    return source
  }

  function spoil(matches: (key: string) => boolean): void {
    for (const read of open) if (matches(read.key)) read.isSpoiled = true
    // Who comes from now on reads what is there now.
    for (const [place, { read }] of shared) if (read.isSpoiled) shared.delete(place)
  }

  return {
    all: tiers,
    read(place, key, epoch, by) {
      const there = `${epoch}\n${place}`
      const other = shared.get(there)
      if (other !== undefined) return { place, isShared: true, done: other.done }
      if (tiers.length === 0 || open.size >= MAX_READS) return null
      const read = { key, isSpoiled: false }
      open.add(read)
      const done = bring(read, epoch, by).finally(() => {
        open.delete(read)
        if (shared.get(there)?.read === read) shared.delete(there)
      })
      shared.set(there, { read, done })
      return { place, isShared: false, done }
    },
    write(entry) {
      for (const tier of tiers) tier.write(entry)
    },
    written: () => Promise.all(tiers.map(async (tier) => await tier.written?.())),
    delete(key, epoch) {
      spoil((other) => other === key)
      for (const tier of tiers) tier.delete(key, epoch)
    },
    async purge(rule) {
      const taken = await Promise.all(tiers.map((tier) => tier.purge(rule)))
      return Math.max(0, ...taken.map((entries) => entries ?? 0))
    },
    spoil,
    heed(next) {
      check = next
    },
    async close() {
      await Promise.all(tiers.map((tier) => tier.close()))
    },
  }
}

/** True when what is in memory is younger, and would be replaced. Ages are in whole seconds where the origin tells Date;
 *  of one second is younger what has seen more purges. */
const isOutdone = (
  store: CacheStore,
  { key, epoch, bornAtMs, purgeSeq, claims, varyNames, varyValues }: StoredResponse,
): boolean =>
  (store.get(key) ?? []).some(
    (other) =>
      other.epoch === epoch &&
      other.claims === claims &&
      (other.bornAtMs > bornAtMs || (other.bornAtMs === bornAtMs && other.purgeSeq >= purgeSeq)) &&
      (!isSame(other.varyNames, varyNames) || isSame(other.varyValues, varyValues)),
  )

const isSame = (a: readonly unknown[], b: readonly unknown[]): boolean =>
  a.length === b.length && a.every((value, i) => value === b[i])
