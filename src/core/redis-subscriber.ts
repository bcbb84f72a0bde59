// Hears channels of the Redis that instances share, on a connection of its own, and subscribes again after each loss. What
// was published meanwhile is lost: who must not miss it looks elsewhere when the subscriber is up again.

import { Availability, type ChangeLog } from './availability.ts'
import { type RedisClient, connectRedis } from './redis-client.ts'
import { Connection, type RedisConnection, addressOf, wordsFor } from './redis-connection.ts'
import { isRefusal } from './redis-reply.ts'
import { probeLimitMs } from './redis-shard.ts'
import { formatRedisAddress } from './redis-url.ts'

export interface RedisSubscriberOptions {
  /** See core/redis-url.ts. */
  readonly url: string
  /** The use, for log lines and Redis' CLIENT LIST: `feed`. */
  readonly name: string
  readonly deadlineMs: number
  readonly channels: readonly [string, ...string[]]
}

/** Up means: every channel is subscribed. What was published while it was down is lost; onChange tells when. */
export type RedisSubscriber = RedisConnection

/** A subscriber of a cluster whose probe has had no answer for so long takes another node. */
const SILENCE_MS = 1000

/** Connects in the background and subscribes, again after each loss. Throws when the URL makes no sense. */
export function createRedisSubscriber(
  options: RedisSubscriberOptions,
  onMessage: (channel: string, message: Buffer) => void,
  log: ChangeLog,
): RedisSubscriber {
  return new Subscriber(options, onMessage, log)
}

class Subscriber extends Connection implements RedisSubscriber {
  readonly #client: RedisClient
  readonly #availability: Availability
  readonly #channels: readonly string[]
  readonly #inWords: (error: Error) => string
  #trouble = 'not connected yet'
  /** When a probe was sent that has not been answered. */
  #askedAtMs: number | null = null

  constructor(
    { url, name, deadlineMs, channels }: RedisSubscriberOptions,
    onMessage: (channel: string, message: Buffer) => void,
    log: ChangeLog,
  ) {
    super()
    const address = addressOf(url)
    this.#inWords = wordsFor(address)
    this.#channels = channels
    this.#client = connectRedis(address, name, {
      failed: (error) => void (this.#trouble = this.#inWords(error)),
      connected: () => {
        this.#trouble = 'connection closed'
        this.#availability.look()
      },
      lost: () => this.#availability.lost(this.#trouble),
      moved: () => this.look(),
      heard: onMessage,
    })
    this.#availability = new Availability(
      {
        service: 'Redis',
        fields: { redis: name, server: formatRedisAddress(address) },
        probeLimitMs: probeLimitMs(deadlineMs),
        probe: () => this.#probe(),
        onChange: () => this.changed(),
      },
      log,
    )
  }

  get isUp(): boolean {
    return this.#availability.isUp
  }

  look(): void {
    this.#availability.look()
  }

  protected override async end(): Promise<void> {
    this.#availability.close()
    await this.#client.close()
  }

  /** Asking again changes nothing where it holds, and proves that the very connection that shall hear is alive. */
  async #probe(): Promise<string | null> {
    const client = this.#client
    if (!client.isReady) return this.#trouble
    const nowMs = performance.now()
    this.#askedAtMs ??= nowMs
    if (client.isCluster && nowMs - this.#askedAtMs > SILENCE_MS) {
      // The one node that it listens at hangs: ioredis would stay with it.
      this.#askedAtMs = null
      client.reconnect()
      return 'no reply to a probe'
    }
    try {
      await client.subscribe(this.#channels)
      this.#askedAtMs = null
      return null
    } catch (error) {
      this.#askedAtMs = null
      return isRefusal(error) ? this.#inWords(error) : this.#trouble
    }
  }
}
