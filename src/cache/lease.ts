// The right to fetch something on behalf of all instances that share a Redis: a key there that its owner alone can renew
// and remove, and that ends by itself soon after its owner does. Who does not get it is told when the owner is through.
//
//   <ns>:lease:{<digest>}   the owner's token, for LEASE_MS, renewed while the fetch runs
//   <ns>:leases            channel: `<digest> <outcome>`
//
// A lease saves fetches, nothing depends on it: two owners at once, as after a pause of one of them, make two fetches.

import { randomBytes } from 'node:crypto'
import type { RedisSubscriber } from '../core/redis-subscriber.ts'
import type { RedisLink } from '../core/redis.ts'
import { digestWith } from './digest.ts'

/** How long others wait for an owner that is gone. */
const LEASE_MS = 3000
const RENEW_MS = 1000

/** What became of a fetch: what it brought is in Redis; it must not be shared; or there is nothing, which says nothing
 *  of the next fetch. */
export const OUTCOMES = ['stored', 'unshareable', 'nothing'] as const
export type LeaseOutcome = (typeof OUTCOMES)[number]

export interface Lease {
  /** Lets the others go on. Never rejects. */
  end(outcome: LeaseOutcome): Promise<void>
}

/** Another instance, or another request of this one, has the lease. */
export interface Taken {
  /** Resolves with what became of the fetch, or with null when the lease may have ended without a word. */
  readonly ended: Promise<LeaseOutcome | null>
}

export interface Leases {
  /** Opens what take() needs to hear others, in the background. */
  prepare(): void
  /** what: any text that stands for the same fetch everywhere. Null: Redis cannot tell in time, so go ahead. Never
   *  rejects. */
  take(what: string): Promise<Lease | Taken | null>
  /** How often this instance got a lease; waited for another's and heard of its end, or of none; or could not ask. */
  readonly counts: Readonly<Record<'led' | 'followed' | 'lost' | 'unanswered', number>>
  close(): Promise<void>
}

export interface LeasesSetup {
  readonly link: RedisLink
  readonly subscribe: (
    channels: readonly [string, ...string[]],
    onMessage: (channel: string, message: Buffer) => void,
  ) => RedisSubscriber
  readonly namespace: string
  /** What digests are made with; null: nothing. */
  readonly secret: string | null
}

/** Answers 0 to who gets it, or for how many milliseconds another has it. */
const TAKE = `
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
return math.max(1, redis.call('PTTL', KEYS[1]))`

const RENEW = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end`

const END = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
redis.call('PUBLISH', ARGV[2], ARGV[3])`

export function createLeases({ link, subscribe, namespace, secret }: LeasesSetup): Leases {
  const digestOf = digestWith(secret)
  const channel = `${namespace}:leases`
  const keyOf = (digest: string): string => `${namespace}:lease:{${digest}}`
  const take = link.script(TAKE)
  const renew = link.script(RENEW)
  const end = link.script(END)
  /** Tokens of the leases that this instance has, by digest. */
  const held = new Map<string, string>()
  const waiting = new Map<string, Set<Wait>>()
  const counts = { led: 0, followed: 0, lost: 0, unanswered: 0 }
  let subscriber: RedisSubscriber | null = null
  let renewing: NodeJS.Timeout | undefined

  // Who waits would hear of no end, and of no other owner.
  const stopListening = link.onChange(() => {
    for (const digest of waiting.keys()) if (!link.shardOf(keyOf(digest)).isUp) wake(digest, null)
  })

  function wake(digest: string, outcome: LeaseOutcome | null): void {
    for (const wait of waiting.get(digest) ?? []) wait.end(outcome)
  }

  function wakeAll(): void {
    for (const digest of waiting.keys()) wake(digest, null)
  }

  function openWait(digest: string): Wait {
    const { promise, resolve } = Promise.withResolvers<LeaseOutcome | null>()
    let timer: NodeJS.Timeout | undefined
    const waits = waiting.get(digest) ?? new Set()
    const wait: Wait = {
      ended: promise,
      atMost(maxMs) {
        if (waits.has(wait)) timer = setTimeout(() => wait.end(null), maxMs)
      },
      end(outcome) {
        clearTimeout(timer)
        waits.delete(wait)
        if (waits.size === 0 && waiting.get(digest) === waits) waiting.delete(digest)
        resolve(outcome)
      },
    }
    waiting.set(digest, waits.add(wait))
    return wait
  }

  function hold(digest: string, token: string): Lease {
    held.set(digest, token)
    renewing ??= setInterval(() => {
      for (const [each, own] of held) renew([keyOf(each)], [own, LEASE_MS]).catch(() => {})
    }, RENEW_MS)
    return { end: (outcome) => letGo(digest, token, outcome) }
  }

  async function letGo(digest: string, token: string, outcome: LeaseOutcome): Promise<void> {
    if (held.get(digest) === token) held.delete(digest)
    if (held.size === 0) {
      clearInterval(renewing)
      renewing = undefined
    }
    // Where that does not get through, the lease ends by itself.
    await end([keyOf(digest)], [token, channel, `${digest} ${outcome}`]).catch(() => {})
  }

  function prepare(): void {
    subscriber ??= subscribe([channel], (_channel, message) => {
      const [digest = '', word] = message.toString().split(' ')
      const outcome = OUTCOMES.find((each) => each === word)
      if (outcome !== undefined) wake(digest, outcome)
    })
  }

  return {
    counts,
    prepare,
    async take(what) {
      prepare()
      const digest = digestOf([what])
      const token = randomBytes(12).toString('base64url')
      // Open before the question is sent: the owner may be through before the answer is here.
      const wait = openWait(digest)
      try {
        const leftMs = Number(await take([keyOf(digest)], [token, LEASE_MS]))
        if (leftMs > 0) {
          wait.atMost(leftMs)
          void wait.ended.then((outcome) => counts[outcome === null ? 'lost' : 'followed']++)
          return wait
        }
        wait.end(null)
        counts.led++
        return hold(digest, token)
      } catch {
        wait.end(null)
        counts.unanswered++
        return null
      }
    },
    async close() {
      stopListening()
      wakeAll()
      await Promise.all([...held].map(([digest, token]) => letGo(digest, token, 'nothing')))
      await subscriber?.close()
    },
  }
}

interface Wait extends Taken {
  /** Ends without a word after so long. */
  atMost(maxMs: number): void
  end(outcome: LeaseOutcome | null): void
}
