// Which instances share the counters, and what time it is there. Every instance writes its name down every 2 s and is
// counted for 6 s; the number that was heard last holds while Redis is lost.

import type { RedisLink } from '../../core/redis.ts'

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
  /** Wall clock, epoch milliseconds. */
  readonly clock: () => number
}

export class Peers {
  readonly #setup: PeersSetup
  readonly #key: string
  readonly #beat: ReturnType<RedisLink['script']>
  readonly #timer: NodeJS.Timeout
  /** Redis' clock less ours. */
  #aheadMs = 0
  #count = 1
  #isHeard = false

  /** Begins to beat. */
  constructor(setup: PeersSetup) {
    this.#setup = setup
    this.#key = `${setup.namespace}:instances`
    this.#beat = setup.link.script(BEAT)
    this.#timer = setInterval(() => void this.beat(), BEAT_MS)
    this.#timer.unref()
  }

  /** Instances that are alive, this one among them. */
  get count(): number {
    return this.#count
  }

  /** False until Redis has told its time. */
  get isHeard(): boolean {
    return this.#isHeard
  }

  /** A time of ours by Redis' clock; whole milliseconds. */
  there(ourMs: number): number {
    return ourMs + this.#aheadMs
  }

  /** Redis has just told its time. */
  heard(theirMs: number): void {
    this.#aheadMs = theirMs - Math.floor(this.#setup.clock())
    this.#isHeard = true
  }

  /** True when Redis has answered. */
  async beat(): Promise<boolean> {
    const { link, instance } = this.#setup
    if (!link.isUp) return false
    try {
      const [theirMs, count] = (await this.#beat([this.#key], [instance])) as readonly [number, number]
      this.#count = Math.max(1, count)
      this.heard(theirMs)
      return true
    } catch {
      // The link tells of what is wrong; the last number holds.
      return false
    }
  }

  /** Takes this instance off the list. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    await this.#setup.link.command('ZREM', this.#key, this.#setup.instance).catch(() => {})
  }
}
