// Which instances share the counters. Every instance writes its name down every 2 s and is counted for 6 s; the number that
// was heard last holds while Redis is lost, one of the configuration's until any was. On every master of a cluster, so that
// the loss of one is not the loss of all; the answers tell the time there as well.

import type { RedisLink, RedisShard } from '../../core/redis.ts'

const BEAT_MS = 2000
const LIVE_MS = 6000

/** Redis' clock is the only one. A name from the future was written before that clock stepped back. */
const BEAT = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ${LIVE_MS})
redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. now, '+inf')
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ${LIVE_MS})
return {now, redis.call('ZCARD', KEYS[1])}
`

export interface PeersSetup {
  readonly link: RedisLink
  readonly namespace: string
  /** This instance's name, unlike any other's. */
  readonly instance: string
  /** How many there are taken to be until Redis has said. */
  readonly assumed: number
  /** Wall clock, epoch milliseconds. */
  readonly clock: () => number
  /** A shard has told its time, epoch milliseconds, when asked at sentAtMs. */
  readonly heard: (shard: RedisShard, theirMs: number, sentAtMs: number) => void
}

export class Peers {
  readonly #setup: PeersSetup
  readonly #name: string
  readonly #script: ReturnType<RedisLink['script']>
  readonly #timer: NodeJS.Timeout
  #count: number

  /** Begins to beat. */
  constructor(setup: PeersSetup) {
    this.#setup = setup
    this.#count = setup.assumed
    this.#name = `${setup.namespace}:instances`
    this.#script = setup.link.script(BEAT)
    this.#timer = setInterval(() => void this.beat(), BEAT_MS)
    this.#timer.unref()
  }

  /** Instances that are alive, this one among them. */
  get count(): number {
    return this.#count
  }

  /** Resolves when every shard that is up has answered, or cannot. */
  async beat(): Promise<void> {
    const shards = this.#setup.link.shards.filter(({ isUp }) => isUp)
    const counts = await Promise.all(shards.map((shard) => this.#beatOn(shard)))
    const heard = counts.filter((count) => count !== null)
    // One that was wiped, or has just joined, knows of fewer.
    if (heard.length > 0) this.#count = Math.max(1, ...heard)
  }

  async #beatOn(shard: RedisShard): Promise<number | null> {
    const { instance, clock, heard } = this.#setup
    const key = shard.keyOf(this.#name)
    if (key === null) return null
    const sentAtMs = clock()
    try {
      const [theirMs, count] = (await this.#script([key], [instance])) as readonly [number, number]
      heard(shard, theirMs, sentAtMs)
      return count
    } catch {
      // The link tells of what is wrong.
      return null
    }
  }

  /** Takes this instance off the list. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    const { link, instance } = this.#setup
    const keys = link.shards.map((shard) => shard.keyOf(this.#name)).filter((key) => key !== null)
    await Promise.all(keys.map((key) => link.command('ZREM', key, instance).catch(() => {})))
  }
}
