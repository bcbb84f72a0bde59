// One server that keys lie on, as a link uses it: whether it is up, what it is asked and has not answered, what has to
// succeed for it to be up. A hung or refusing master of a cluster costs those of its own keys, and no others.

import { Availability, type ChangeLog } from './availability.ts'
import { Sweeper } from './deadlines.ts'
import type { RedisClient, RedisNode } from './redis-client.ts'
import { type RedisReply, RedisError, isRedirect, isRefusal, isUnwell } from './redis-reply.ts'

/** Commands that a server may owe an answer; the next fails. Late ones count until their answer comes or the socket goes. */
const MAX_IN_FLIGHT = 1000
/** Bytes of arguments that these may have. */
const MAX_BYTES_IN_FLIGHT = 16 * 1024 ** 2
/** A good probe takes no longer than this, nor than the deadline: a Redis too slow for commands must not look up. */
const MAX_PROBE_MS = 50
const PROBE_KEY_TTL_MS = 1000

export interface ShardSetup {
  readonly client: RedisClient
  readonly node: RedisNode
  /** For log lines. */
  readonly name: string
  readonly deadlineMs: number
  /** See RedisLinkOptions. */
  readonly probeKey: string | undefined
  readonly database: number
  /** An error of the client for people, without secrets. */
  readonly inWords: (error: Error) => string
  readonly log: ChangeLog
  /** Called after each change of isUp. */
  readonly onChange: () => void
}

export class Shard {
  readonly node: RedisNode
  readonly #setup: ShardSetup
  readonly #availability: Availability
  readonly #waits: Sweeper
  /** Why there is no connection, in words. */
  #trouble = 'not connected yet'
  #inFlight = 0
  #bytesInFlight = 0

  constructor(setup: ShardSetup) {
    const { node, name, deadlineMs, log, onChange } = setup
    this.node = node
    this.#setup = setup
    this.#availability = new Availability(
      {
        service: 'Redis',
        fields: { redis: name, server: node.address },
        probeLimitMs: probeLimitMs(deadlineMs),
        probe: () => this.#probe(),
        onChange,
      },
      log,
    )
    this.#waits = new Sweeper(deadlineMs, (count) => this.#availability.missed(count))
  }

  get isUp(): boolean {
    return this.#availability.isUp
  }

  keyOf(prefix: string): string | null {
    const tag = this.node.tag()
    if (tag === null) return null
    return tag === '' ? prefix : `${prefix}:{${tag}}`
  }

  failed(error: Error): void {
    this.#trouble = this.#setup.inWords(error)
  }

  lost(): void {
    this.#availability.lost(this.#trouble)
  }

  connected(): void {
    this.#trouble = 'connection closed'
    this.#availability.look()
  }

  look(): void {
    this.#availability.look()
  }

  close(): void {
    this.#availability.close()
  }

  /** Lets `start` run within the bounds and the deadline. commands: how many answers it waits for. isAwaited: false once
   *  the deadline has passed. late: called after that, see RedisScript. Rejects with a RedisError. */
  run<T>(
    commands: number,
    bytes: number,
    start: (isAwaited: () => boolean) => Promise<T>,
    late: (reply: T | RedisError) => void = noOp,
  ): Promise<T> {
    if (!this.isUp) return Promise.reject(new RedisError('redis_down', 'not connected'))
    if (this.#inFlight + commands > MAX_IN_FLIGHT || this.#bytesInFlight + bytes > MAX_BYTES_IN_FLIGHT) {
      return Promise.reject(new RedisError('redis_overload', `${this.#inFlight} commands are in flight`))
    }
    this.#inFlight += commands
    this.#bytesInFlight += bytes
    return new Promise((resolve, reject) => {
      let isExpired = false
      const wait = this.#waits.add(() => {
        isExpired = true
        reject(new RedisError('redis_timeout', 'no reply by the deadline'))
      })
      const settle = (): boolean => {
        this.#inFlight -= commands
        this.#bytesInFlight -= bytes
        return this.#waits.delete(wait)
      }
      start(() => !isExpired).then(
        (reply) => {
          if (!settle()) {
            late(reply)
            return
          }
          this.#availability.good()
          resolve(reply)
        },
        (error: unknown) => {
          if (settle()) reject(this.asRedisError(error))
          else late(this.#name(error))
        },
      )
    })
  }

  /** Takes in what a failure tells of the server. */
  asRedisError(error: unknown): RedisError {
    if (isRefusal(error) && isUnwell(error)) this.#availability.unwell(this.#setup.inWords(error))
    else if (isRefusal(error)) this.#availability.good()
    return this.#name(error)
  }

  #name(error: unknown): RedisError {
    if (error instanceof RedisError) return error
    if (!isRefusal(error)) return new RedisError('redis_lost', 'the connection was lost')
    return new RedisError('redis_error', this.#setup.inWords(error), /^[A-Z]+/.exec(error.message)?.[0] ?? 'ERR')
  }

  async #probe(): Promise<string | null> {
    const { client, inWords } = this.#setup
    if (!client.isReady) return this.#trouble
    // In trouble, others may have its keys by now.
    if (!this.isUp) client.refresh()
    try {
      await Promise.all([this.#answers(), this.#writes()])
      return null
    } catch (error) {
      return isRefusal(error) || error instanceof RedisError ? inWords(error) : this.#trouble
    }
  }

  async #answers(): Promise<void> {
    const { client, database, probeKey } = this.#setup
    if (!client.isCluster) {
      // The client goes on in database 0 where the one of the URL does not exist.
      if (database > 0) await this.node.send('SELECT', [database])
      // Who writes need not ask as well.
      else if (probeKey === undefined) await this.node.send('PING', [])
      return
    }
    // PING would not tell whether it is cut off from the others.
    const info = String(await this.node.send('CLUSTER', ['INFO']))
    if (!info.includes('cluster_state:ok')) throw new RedisError('redis_down', 'the cluster is not whole')
  }

  async #writes(): Promise<RedisReply> {
    const { probeKey, client } = this.#setup
    const key = probeKey === undefined ? null : this.keyOf(probeKey)
    if (key === null) return null
    try {
      return await this.node.send('SET', [key, '1', 'PX', PROBE_KEY_TTL_MS])
    } catch (error) {
      // An answer, and news of where that key is now.
      if (!isRefusal(error) || !isRedirect(error)) throw error
      client.refresh()
      return null
    }
  }
}

const noOp = (): void => {}

export const probeLimitMs = (deadlineMs: number): number => Math.min(deadlineMs, MAX_PROBE_MS)
