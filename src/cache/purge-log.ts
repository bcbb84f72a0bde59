// Purges of all instances that share a Redis, in one order. Each instance carries out every record of the log exactly in
// that order: as it is published, and from the log itself where it has missed one, which the next record, the next
// connection, the next heartbeat or the next read of the Redis tier shows. Where the log does not reach back that far any more, all
// that was fetched before its beginning is dropped. So a lost message leaves no stale copy: the guarantee is that of
// epochs per tag, given to URLs, prefixes and patterns as well.
//
// A purge is carried out here when its record comes, never before: what is read from Redis between the two would be
// from before the purge, and stay. What cannot be handed over is carried out here at once, kept, and handed over when
// Redis is back; until then nothing that Redis holds is used.

import type { ChangeLog } from '../core/availability.ts'
import type { Cipher } from '../core/cipher.ts'
import type { RedisSubscriber } from '../core/redis-subscriber.ts'
import type { RedisLink } from '../core/redis.ts'
import type { CacheEntry } from './entry.ts'
import { createPurgeHistory } from './purge-history.ts'
import { type PurgeRule, splitRule } from './purge-rule.ts'
import {
  HEARTBEAT_MS,
  MAX_RECORD_CHARS,
  type PurgeCount,
  type PurgeRecord,
  createPurgeWire,
  parseCount,
} from './purge-wire.ts'
import { purge, sweep } from './purge.ts'
import type { SharedCache } from './shared.ts'

/** Records read at once. */
const PAGE = 200
/** Purges that wait for Redis; with more, everything is purged in their place. */
const MAX_OWED = 1000
/** How long the counts of other instances are waited for. */
const COUNTS_MS = 1000

export interface Published {
  /** How many it took here. */
  readonly here: number
  /** False where Redis cannot be reached: the others hear of it when it is back. */
  readonly isShared: boolean
  /** What the other instances say, within a second; those that run and say nothing are missing. */
  readonly others: Promise<{ readonly counts: readonly PurgeCount[]; readonly missing: readonly string[] }>
}

export interface PurgeLog {
  /** Carries a rule out here, and has it carried out everywhere else. Waits for the former, and no longer for Redis than
   *  the link's deadline. isCounted: whether the others shall say how many it took. Never rejects. */
  publish(rule: PurgeRule, isCounted: boolean): Promise<Published>
  /** Resolves with true once the log has been read for the first time; false after maxMs. */
  whenFollowing(maxMs: number): Promise<boolean>
  readonly status: PurgeLogStatus
  close(): Promise<void>
}

/** For metrics. */
export interface PurgeLogStatus {
  /** Records carried out here, of this instance's purges and of others'. */
  readonly own: number
  readonly others: number
  /** How often the log did not tell all that was missed. */
  readonly gaps: number
  /** Purges that wait for Redis. */
  readonly owed: number
  /** Milliseconds since it was certain that all purges had been carried out; null: never yet. */
  readonly ageMs: number | null
}

export interface PurgeLogSetup {
  readonly shared: SharedCache
  readonly link: RedisLink
  readonly subscribe: (
    channels: readonly [string, ...string[]],
    onMessage: (channel: string, message: Buffer) => void,
  ) => RedisSubscriber
  readonly namespace: string
  /** Seals what is purged; null: it is told as it is. */
  readonly cipher: Cipher | null
  /** How long a purge that is in the log waits for its turn here, and a read for the purges before it. */
  readonly deadlineMs: number
  /** The name of this instance, without blanks; no other has it. */
  readonly instance: string
  readonly log: ChangeLog
}

/** A record is being carried out here. */
interface Turn {
  readonly here: Promise<number>
}

interface Counting {
  readonly counts: Map<string, PurgeCount>
  /** Those who have still to answer; null: not known yet. */
  waiting: Set<string> | null
  readonly check: () => void
}

export function createPurgeLog(setup: PurgeLogSetup): PurgeLog {
  const { shared, link, instance, deadlineMs, log } = setup
  const wire = createPurgeWire(link, setup.namespace, instance, setup.cipher)
  const history = createPurgeHistory()
  /** The place of the last record that was carried out here; null before the log was first read. */
  let applied: number | null = null
  let lastId = 0
  /** Purges of this instance whose record has not come back, by id. */
  const own = new Map<number, (turn: Turn) => void>()
  const countings = new Map<number, Counting>()
  let owed: PurgeRule[] = []
  /** A record was passed over, so that the log has to be read once more. */
  let isBehind = false
  let tending: Promise<void> | null = null
  const carriedOut = { own: 0, others: 0 }
  let gaps = 0
  /** performance.now() when the log was last read to its end. */
  let upToDateAtMs: number | null = null
  let isClosed = false
  const following = Promise.withResolvers<void>()

  const subscriber = setup.subscribe([wire.channels.records, wire.channels.counts], (channel, message) => {
    if (channel === wire.channels.counts) return takeCount(message.toString())
    const record = wire.recordIn(message.toString())
    if (record !== null && tending === null && follow(record)) return
    isBehind = true
    void tend()
  })
  const timer = setInterval(() => void tend(), HEARTBEAT_MS)
  for (const connection of [link, subscriber]) connection.onChange(() => void tend())
  void tend()

  // ---- following ----

  /** Carries out a record if it is the next; true also where it has been carried out. */
  function follow(record: PurgeRecord): boolean {
    if (applied === null) return false
    if (record.seq <= applied) return true
    if (record.previous !== applied) return false
    reach(record.seq)
    history.note(record.rule, record.seq)
    settle(record, purge(shared, record.rule))
    return true
  }

  function reach(seq: number): void {
    applied = seq
    shared.purgeSeq = seq
  }

  /** Tells whoever waits for it. */
  function settle({ by, id, isCounted }: PurgeRecord, here: Promise<number>): void {
    carriedOut[by === instance ? 'own' : 'others']++
    if (by === instance) {
      own.get(id)?.({ here })
      own.delete(id)
    } else if (isCounted) {
      // Who is not told in time says so.
      here.then((purged) => wire.tellCount(by, { id, instance, purged })).catch(() => {})
    }
  }

  /** Hands over what is owed, and catches up with the log. Never rejects: whatever fails is tried again. */
  function tend(): Promise<void> {
    if (tending !== null || !wire.isUp || isClosed) return tending ?? Promise.resolve()
    tending = (async () => {
      try {
        await handOver()
        do {
          isBehind = false
          await catchUp()
        } while (hasPassedOver())
        upToDateAtMs = performance.now()
        following.resolve()
      } catch {
        // The link tells of its troubles itself.
      } finally {
        tending = null
      }
    })()
    return tending
  }

  const hasPassedOver = (): boolean => isBehind

  async function catchUp(): Promise<void> {
    const askedAt = applied
    const head = await wire.beat()
    if (head === askedAt) return
    if (askedAt === null || head < askedAt) return rebuild(head, askedAt)
    for (;;) {
      const records = await wire.read(applied ?? 0, PAGE)
      if (!records.every(follow)) return rebuild(head, askedAt)
      if ((applied ?? 0) >= head) return
      if (records.length < PAGE) return rebuild(head, askedAt)
    }
  }

  /** Begins anew from what the log still tells. askedAt: the place that was known before; null: none. */
  async function rebuild(head: number, askedAt: number | null): Promise<void> {
    const records: PurgeRecord[] = []
    for (let page: readonly PurgeRecord[] | null = null; page === null || page.length === PAGE;) {
      page = await wire.read(records.at(-1)?.seq ?? 0, PAGE)
      records.push(...page)
    }
    const begin = records[0]?.previous ?? head
    history.forgetBefore(begin)
    const last = applied ?? 0
    for (const { rule, seq } of records) if (seq > last) history.note(rule, seq)
    reach(records.at(-1)?.seq ?? head)
    shared.flights.spoil(() => true, {})
    shared.tiers.spoil(() => true)
    const here = dropPurged()
    for (const record of records) if (record.seq > last) settle(record, here)
    if (askedAt === null) return
    gaps++
    log.warn({ since: new Date(askedAt / 1000) }, 'Purges were missed, what may be out of date is dropped')
    // A log that reaches back over our place and does not have it is not the log that we knew: Redis has lost records
    // (a fail-over). Whom they were about nobody knows, here or elsewhere.
    if (begin <= askedAt) void publish({ all: true }, false)
  }

  /** Goes over what is in memory; resolves with how many it took. */
  function dropPurged(): Promise<number> {
    const { store } = shared
    return sweep(shared, store.keys(), store.entries, (key) => {
      let taken = 0
      for (const entry of store.get(key) ?? []) {
        const left = leaves(entry)
        if (left !== entry && (left === null ? store.remove(entry) : store.replace(entry, left))) taken++
      }
      return taken
    })
  }

  // ---- for the tiers ----

  async function isUpToDate(): Promise<boolean> {
    const askedAt = applied
    const head = await wire.head().catch(() => null)
    // Where Redis says less than before, it has lost something.
    const wanted = head === null || askedAt === null || head < askedAt ? Infinity : head
    const isReached = (): boolean => applied !== null && applied >= wanted && owed.length === 0
    for (let tries = 0; tries < 2 && !isReached(); tries++) await within(deadlineMs, tend())
    return isReached()
  }

  const leaves = <Entry extends CacheEntry>(entry: Entry): Entry | null => history.leaves(entry, shared.now())

  // ---- telling ----

  async function publish(rule: PurgeRule, isCounted: boolean): Promise<Published> {
    const [part = rule, ...more] = splitRule(rule, MAX_RECORD_CHARS)
    const first = await publishPart(part, isCounted)
    if (more.length === 0) return first
    const all = [first]
    // One by one: a link takes only so many commands at once.
    for (const each of more) all.push(await publishPart(each, isCounted))
    return {
      here: all.reduce((sum, { here }) => sum + here, 0),
      isShared: all.every(({ isShared }) => isShared),
      others: Promise.all(all.map(({ others }) => others)).then((told) => ({
        counts: told.flatMap(({ counts }) => counts),
        missing: [...new Set(told.flatMap(({ missing }) => missing))],
      })),
    }
  }

  async function publishPart(rule: PurgeRule, isCounted: boolean): Promise<Published> {
    const id = ++lastId
    const turn = Promise.withResolvers<Turn>()
    own.set(id, turn.resolve)
    const others = isCounted ? countOthers(id) : NOBODY
    try {
      const { record, instances } = await wire.append({ by: instance, id, isCounted, rule })
      if (tending !== null || !follow(record)) {
        isBehind = true
        void tend()
      }
      if (isCounted) awaitCounts(id, instances)
      const { here } = (await within(deadlineMs, turn.promise)) ?? { here: purge(shared, rule) }
      return { here: await here, isShared: true, others }
    } catch {
      owe(rule)
      if (isCounted) awaitCounts(id, [])
      return { here: await purge(shared, rule), isShared: false, others }
    } finally {
      own.delete(id)
    }
  }

  function owe(rule: PurgeRule): void {
    owed.push(rule)
    if (owed.length > MAX_OWED) owed = [{ all: true }]
    void tend()
  }

  async function handOver(): Promise<void> {
    for (let rule = owed[0]; rule !== undefined; rule = owed[0]) {
      const given = owed
      for (const part of splitRule(rule, MAX_RECORD_CHARS)) {
        await wire.append({ by: instance, id: ++lastId, isCounted: false, rule: part })
      }
      // Meanwhile all of them may have become one.
      if (owed === given) owed.shift()
    }
  }

  // ---- counts ----

  function countOthers(id: number): Published['others'] {
    return new Promise((resolve) => {
      const counting: Counting = {
        counts: new Map(),
        waiting: null,
        check() {
          if (counting.waiting?.size === 0) end()
        },
      }
      const end = (): void => {
        clearTimeout(late)
        countings.delete(id)
        resolve({ counts: [...counting.counts.values()], missing: [...(counting.waiting ?? [])] })
      }
      const late = setTimeout(end, COUNTS_MS)
      countings.set(id, counting)
    })
  }

  function awaitCounts(id: number, instances: readonly string[]): void {
    const counting = countings.get(id)
    if (counting === undefined) return
    counting.waiting = new Set(instances.filter((name) => name !== instance && !counting.counts.has(name)))
    counting.check()
  }

  function takeCount(text: string): void {
    const count = parseCount(text)
    const counting = count === null ? undefined : countings.get(count.id)
    if (count === null || counting === undefined) return
    counting.counts.set(count.instance, count)
    counting.waiting?.delete(count.instance)
    counting.check()
  }

  shared.tiers.heed({ isUpToDate, leaves, place: () => applied })
  return {
    publish,
    async whenFollowing(maxMs) {
      await within(maxMs, following.promise)
      return applied !== null
    },
    get status() {
      const ageMs = upToDateAtMs === null ? null : performance.now() - upToDateAtMs
      return { ...carriedOut, gaps, owed: owed.length, ageMs }
    },
    async close() {
      if (isClosed) return
      isClosed = true
      clearInterval(timer)
      for (const counting of countings.values()) {
        counting.waiting ??= new Set()
        counting.waiting.clear()
        counting.check()
      }
      await wire.leave().catch(() => {})
      await subscriber.close()
    },
  }
}

const NOBODY: Published['others'] = Promise.resolve({ counts: [], missing: [] })

/** What a promise resolves with; undefined where that takes too long. */
async function within<T>(maxMs: number, promise: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), maxMs)
  })
  const first = await Promise.race([promise, late])
  clearTimeout(timer)
  return first
}
