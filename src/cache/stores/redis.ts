// Stored responses in Redis, shared by all instances with the same namespace. Keys hold digests only, no URL and no
// user's text, made with the secret of the deployment where it has one; every key ends by itself once its entry is of no use.
//
//   <namespace>:c1:{digest of encoding, key and epoch}              the first variant that was stored, the primary
//   <namespace>:c1:{digest of encoding, key and epoch}:<selector>   other variants by the same fields
//
// So a response that does not vary, and the first variant of one that does, takes one round trip; other variants take
// two, because only the primary tells by which fields they differ. A variant counts only as long as its primary is of
// the same family: who removes the primary has removed them all.
//
// Writes wait, at most MAX_WAITING_BYTES of them, and go out a batch at a time, so that reads on the same connection never
// queue behind more than one. What cannot be written is dropped: with Redis down or full, the cache is what it was without.

import { randomBytes } from 'node:crypto'
import { type RedisCommand, type RedisReply, RedisError } from '../../core/redis-reply.ts'
import type { RedisLink } from '../../core/redis.ts'
import { digestWith } from '../digest.ts'
import { ENCODING } from '../encoding.ts'
import { type StoredResponse, selectorOf } from '../entry.ts'
import { NO_PRIVACY, type Privacy } from '../privacy.ts'
import type { CacheTier, Selecting, TierCounts } from '../tier.ts'
import {
  FAMILY_AT,
  FAMILY_BYTES,
  MAGIC_BYTES,
  MAX_ENTRY_BYTES,
  MAX_VALUE_BYTES,
  NAMES_AT,
  type Opened,
  SELECTOR_AT,
  SELECTOR_BYTES,
  type Unreadable,
  createValues,
} from './redis-value.ts'

/** Of memory that entries waiting to be written may take. */
const MAX_WAITING_BYTES = 16 * 1024 ** 2
/** Removals that wait; beyond that the oldest is given up. */
const MAX_DELETES = 10_000
const MAX_BATCH_BYTES = 256 * 1024
const MAX_BATCH = 64
const MAX_TTL_MS = 7 * 86_400_000
/** After a refusal, such as of a full server, nothing is written for so long. Then one entry tries. */
const REFUSED_PAUSE_MS = 1000
/** Longest wait at the end for what is still to be written. */
const MAX_FLUSH_MS = 500

/** Writes an entry to the primary, or beside it where that holds another variant by the same fields. A primary lives as
 *  long as its variants. Whatever else lies there is overwritten.
 *  KEYS: primary, variant. ARGV: head as far as the family, family for a new primary, selector, names, payload, ttl. */
const WRITE = `
local lies = redis.pcall('GETRANGE', KEYS[1], 0, ${NAMES_AT - 1} + #ARGV[4])
local family, to = ARGV[2], KEYS[1]
if type(lies) == 'string' and string.sub(lies, 1, ${MAGIC_BYTES}) == string.sub(ARGV[1], 1, ${MAGIC_BYTES})
  and string.sub(lies, ${NAMES_AT + 1}) == ARGV[4] then
  family = string.sub(lies, ${FAMILY_AT + 1}, ${FAMILY_AT + FAMILY_BYTES})
  if string.sub(lies, ${SELECTOR_AT + 1}, ${SELECTOR_AT + SELECTOR_BYTES}) ~= ARGV[3] then
    to = KEYS[2]
    if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[6]) then redis.call('PEXPIRE', KEYS[1], ARGV[6]) end
  end
end
redis.call('SET', to, ARGV[1] .. family .. ARGV[3] .. ARGV[4] .. ARGV[5], 'PX', ARGV[6])`

/** A value as it lies there: nothing, something that is no use, or its head. */
type Found = Opened | Unreadable | 'absent' | 'failed'

/** False where the server has not answered, or not in time. */
const isAnswer = (reply: RedisReply | RedisError): boolean =>
  !(reply instanceof RedisError) || reply.code === 'redis_error'

/** link: for this tier alone; it stays the caller's. now: wall clock, milliseconds. */
export function createRedisTier(
  link: RedisLink,
  namespace: string,
  now: () => number,
  privacy: Privacy = NO_PRIVACY,
): CacheTier {
  const digestOf = digestWith(privacy.secret)
  const { form, selectorDigest, sealEntry, openValue, unsealEntry } = createValues(privacy)
  const counts = { hits: 0, misses: 0, bad: 0, locked: 0, failed: 0, written: 0, dropped: 0 } satisfies TierCounts
  /** By primary and selector, oldest first. */
  const writes = new Map<string, { readonly primary: string; readonly entry: StoredResponse }>()
  /** Primaries to remove, oldest first; nothing is read from there meanwhile. */
  const deletes = new Set<string>()
  let waitingBytes = 0
  /** Runs while something is being written. */
  let flushing: Promise<void> | null = null
  let isClosed = false
  /** On the clock of this process; 0: the last batch was taken. */
  let pausedUntilMs = 0
  const stopListening = link.onChange(() => flush())
  const isUp = (primary: string): boolean => link.shardOf(primary).isUp

  const primaryOf = (key: string, epoch: string): string =>
    `${namespace}:c1:{${digestOf([ENCODING, form, key, epoch])}}`
  const variantOf = (primary: string, selector: Buffer): string => `${primary}:${selector.toString('base64url')}`

  // ---- reading ----

  async function look(at: string, primary: string): Promise<Found> {
    try {
      // One byte more than a value may have tells that it is too large, without all of it being sent.
      const value = await link.command('GETRANGE', at, 0, MAX_VALUE_BYTES)
      if (!Buffer.isBuffer(value)) return 'bad'
      return value.length === 0 ? 'absent' : openValue(value, primary)
    } catch (error) {
      return error instanceof RedisError && error.refusal === 'WRONGTYPE' ? 'bad' : 'failed'
    }
  }

  async function read(key: string, epoch: string, by: Selecting): Promise<readonly StoredResponse[]> {
    const primary = primaryOf(key, epoch)
    const first = deletes.has(primary) ? 'absent' : await look(primary, primary)
    if (typeof first !== 'object') return take(first, primary, key, epoch)
    const selector = selectorDigest(selectorOf(by.headers, by.claims, first.varyNames))
    if (first.selector.equals(selector)) return take(first, primary, key, epoch)
    const at = variantOf(primary, selector)
    const second = asVariant(await look(at, primary), first, selector)
    if (typeof second === 'object' || second === 'bad') return take(second, at, key, epoch)
    // Not what was asked for; but it tells by which fields to ask.
    const other = await unseal(first, key, epoch)
    if (other === null) return take('bad', primary, key, epoch)
    await take(second, at, key, epoch)
    return [other]
  }

  /** The entry of what was found. Counts the read, and removes what is no use. */
  async function take(found: Found, at: string, key: string, epoch: string): Promise<readonly StoredResponse[]> {
    const entry = typeof found === 'object' ? await unseal(found, key, epoch) : null
    if (entry !== null) {
      counts.hits++
      return [entry]
    }
    if (found === 'absent') counts.misses++
    else if (found === 'failed') counts.failed++
    else if (found === 'locked') counts.locked++
    else {
      counts.bad++
      link.command('UNLINK', at).catch(() => {})
    }
    return []
  }

  async function unseal(found: Opened, key: string, epoch: string): Promise<StoredResponse | null> {
    const entry = await unsealEntry(found)
    return entry !== null && entry.key === key && entry.epoch === epoch ? entry : null
  }

  /** A value beside a primary, as far as it is the variant that it is taken for. */
  function asVariant(found: Found, primary: Opened, selector: Buffer): Found {
    if (typeof found !== 'object') return found
    if (!found.family.equals(primary.family)) return 'absent'
    return found.selector.equals(selector) ? found : 'bad'
  }

  // ---- writing ----

  function drop(at: string): void {
    const waiting = writes.get(at)
    if (waiting === undefined) return
    writes.delete(at)
    waitingBytes -= waiting.entry.sizeBytes
  }

  function flush(): void {
    if (flushing !== null || writes.size + removable().length === 0) return
    flushing = writeAll().finally(() => {
      flushing = null
    })
  }

  /** Batch after batch, until nothing waits or Redis does not take it. */
  async function writeAll(): Promise<void> {
    // What is stored in this turn goes together.
    await new Promise((resolve) => setImmediate(resolve))
    for (let batch = removable(); writes.size + batch.length > 0; batch = removable()) {
      if (!(await remove(batch)) || performance.now() < pausedUntilMs) return dropAll()
      await writeBatch()
    }
  }

  /** Primaries that can be removed now; others wait for their server. */
  function removable(): string[] {
    const batch: string[] = []
    for (const primary of deletes) {
      if (batch.length === MAX_BATCH) break
      if (isUp(primary)) batch.push(primary)
    }
    return batch
  }

  /** False where some could not be asked for; these wait for better times. */
  async function remove(batch: readonly string[]): Promise<boolean> {
    if (batch.length === 0) return true
    let isDone = true
    try {
      const replies = await link.pipeline(batch.map((primary) => ['UNLINK', primary]))
      for (const [i, reply] of replies.entries()) {
        if (isAnswer(reply)) deletes.delete(batch[i] as string)
        else isDone = false
      }
    } catch {
      isDone = false
    }
    return isDone
  }

  function dropAll(): void {
    counts.dropped += writes.size
    writes.clear()
    waitingBytes = 0
  }

  async function writeBatch(): Promise<void> {
    const commands: RedisCommand[] = []
    let bytes = 0
    const most = pausedUntilMs === 0 ? MAX_BATCH : 1
    for (const [at, { primary, entry }] of writes) {
      if (commands.length === most || bytes >= MAX_BATCH_BYTES) break
      drop(at)
      const sealed = await sealEntry(entry, primary)
      const ttlMs = ttlOf(entry)
      if (sealed === null) counts.dropped++
      else if (ttlMs > 0) {
        const { start, selector, names, payload } = sealed
        const family = randomBytes(FAMILY_BYTES)
        const keys = [primary, variantOf(primary, selector)]
        commands.push(['EVAL', WRITE, 2, ...keys, start, family, selector, names, payload, ttlMs])
        bytes += payload.length
      }
    }
    if (commands.length === 0) return
    try {
      const replies = await link.pipeline(commands)
      const failures = replies.filter((reply) => reply instanceof RedisError)
      counts.written += replies.length - failures.length
      counts.dropped += failures.length
      pausedUntilMs = failures.some(isAnswer) ? performance.now() + REFUSED_PAUSE_MS : 0
    } catch {
      counts.dropped += commands.length
      dropAll()
    }
  }

  function ttlOf(entry: StoredResponse): number {
    const { freshUntilMs, staleWhileRevalidateUntilMs, staleIfErrorUntilMs } = entry
    const untilMs = Math.max(freshUntilMs, staleWhileRevalidateUntilMs, staleIfErrorUntilMs)
    return Math.min(Math.ceil(untilMs - now()), MAX_TTL_MS)
  }

  return {
    name: 'redis',
    counts,
    read,
    write(entry) {
      if (ttlOf(entry) <= 0) return
      const primary = primaryOf(entry.key, entry.epoch)
      const at = variantOf(primary, selectorDigest(entry))
      drop(at)
      const isTooMuch = entry.sizeBytes > MAX_ENTRY_BYTES || waitingBytes + entry.sizeBytes > MAX_WAITING_BYTES
      if (isTooMuch || isClosed || !isUp(primary)) {
        counts.dropped++
        return
      }
      writes.set(at, { primary, entry })
      waitingBytes += entry.sizeBytes
      flush()
    },
    delete(key, epoch) {
      const primary = primaryOf(key, epoch)
      for (const [at, waiting] of writes) if (waiting.primary === primary) drop(at)
      if (isClosed) return
      deletes.delete(primary)
      deletes.add(primary)
      for (const oldest of deletes) {
        if (deletes.size <= MAX_DELETES) break
        deletes.delete(oldest)
      }
      flush()
    },
    purge: () => Promise.resolve(0),
    written: async () => await flushing,
    async close() {
      stopListening()
      const end = Promise.withResolvers<void>()
      const timer = setTimeout(end.resolve, MAX_FLUSH_MS)
      await Promise.race([flushing, end.promise])
      clearTimeout(timer)
      isClosed = true
      dropAll()
      deletes.clear()
    },
  }
}
