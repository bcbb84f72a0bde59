// Links to the Redis that instances share: one server, a Sentinel's master, a Redis Cluster. A link has connections of
// its own for one use: cache and limiter each have theirs, so that neither waits behind the other.
//
// Its promise: whatever Redis does, a command settles within the deadline, and at once while its keys cannot be reached;
// nothing is queued for later, retried or sent again; what comes after the deadline is ignored (the server may still have
// done it), but for who asks to hear of it. Whether Redis is up is for background probes to find out, never for a request (core/availability.ts).
// Every failure is a RedisError, and always a rejection; none carries a password.
//
// A cluster is up master by master (redis-shard.ts): while one is lost, the keys of all others are as they were.

import { createHash } from 'node:crypto'
import type { ChangeLog } from './availability.ts'
import { type RedisClient, type RedisNode, connectRedis, databaseOf } from './redis-client.ts'
import { Connection, type RedisConnection, addressOf, wordsFor } from './redis-connection.ts'
import {
  type RedisArgument,
  type RedisCommand,
  type RedisReply,
  RedisError,
  bytesOf,
  isRefusal,
} from './redis-reply.ts'
import { Shard } from './redis-shard.ts'

export interface RedisLinkOptions {
  /** See core/redis-url.ts. */
  readonly url: string
  /** The use, for log lines and Redis' CLIENT LIST: `cache`, `limits`. */
  readonly name: string
  /** Longest wait for a reply. */
  readonly deadlineMs: number
  /** A key that probes write (and let expire), on each master of a cluster one that begins so: then a replica or a full
   *  server counts as down. Without it, a server that answers PING (of a cluster: that sees it whole) is up. */
  readonly probeKey?: string
}

/** What is up or down as one: of a Redis Cluster a master, else all there is. The same object for all its keys. */
export interface RedisShard {
  readonly isUp: boolean
  /** The key of that name on this shard: `<prefix>`, of a cluster `<prefix>:{<tag>}`; null where it holds none. Another
   *  after keys have moved. */
  keyOf(prefix: string): string | null
}

export interface RedisLink extends RedisConnection {
  /** True for a Redis Cluster: the keys of one command or script must lie in one slot. */
  readonly isCluster: boolean
  /** All that are known, one at least. */
  readonly shards: readonly RedisShard[]
  /** Where a key is. In a cluster, keys move: ask each time. */
  shardOf(key: string): RedisShard
  /** Sends one command. */
  command(name: string, ...args: readonly RedisArgument[]): Promise<RedisReply>
  /** Sends commands in one write to each shard, each under one deadline. One that the server refuses, or whose shard gives
   *  no answer while others do, is a RedisError in its place. Not a transaction, and at most 1,000. Rejects where no
   *  answer can be had. */
  pipeline(commands: readonly RedisCommand[]): Promise<readonly (RedisReply | RedisError)[]>
  /** A Lua script, sent by its hash, and in full where the server does not have it (any more). */
  script(lua: string): RedisScript
}

/** Runs it. late: called once after a rejection with `redis_timeout`, with the reply that comes after all, or with why none
 *  does: where it was lost, the server may have run it; where it was refused, surely not. */
export type RedisScript = (
  keys: readonly RedisArgument[],
  args: readonly RedisArgument[],
  late?: (reply: RedisReply | RedisError) => void,
) => Promise<RedisReply>

/** Connects in the background. Throws when the URL makes no sense. */
export function createRedisLink(options: RedisLinkOptions, log: ChangeLog): RedisLink {
  return new Link(options, log)
}

/** Where commands go. */
type Place = Pick<Shard, 'isUp' | 'keyOf' | 'run' | 'asRedisError'>

/** For keys that nobody is known to hold. */
const NOWHERE: Place = {
  isUp: false,
  keyOf: () => null,
  run: () => Promise.reject(new RedisError('redis_down', 'no server is there for it')),
  asRedisError: () => new RedisError('redis_down', 'no server is there for it'),
}

class Link extends Connection implements RedisLink {
  readonly #client: RedisClient
  readonly #shardAt: (node: RedisNode) => Shard
  #shards: ReadonlyMap<RedisNode, Shard>
  #isUp = false

  constructor({ url, name, deadlineMs, probeKey }: RedisLinkOptions, log: ChangeLog) {
    super()
    const address = addressOf(url)
    const inWords = wordsFor(address)
    const database = databaseOf(address)
    this.#client = connectRedis(address, name, {
      failed: (error, at) => {
        for (const [node, shard] of this.#shards) if (at === null || at === node) shard.failed(error)
      },
      connected: (node) => this.#shards.get(node)?.connected(),
      lost: (node) => this.#shards.get(node)?.lost(),
      moved: () => this.#follow(),
      heard: () => {},
    })
    const client = this.#client
    const onChange = (): void => this.#update()
    this.#shardAt = (node) => new Shard({ client, node, name, deadlineMs, probeKey, database, inWords, log, onChange })
    this.#shards = new Map(client.nodes.map((node) => [node, this.#shardAt(node)]))
  }

  get isUp(): boolean {
    return this.#isUp
  }

  get isCluster(): boolean {
    return this.#client.isCluster
  }

  get shards(): readonly RedisShard[] {
    return [...this.#shards.values()]
  }

  shardOf(key: string): RedisShard {
    const node = this.#client.nodeOf(key)
    return (node && this.#shards.get(node)) ?? NOWHERE
  }

  look(): void {
    for (const shard of this.#shards.values()) shard.look()
  }

  async command(name: string, ...args: readonly RedisArgument[]): Promise<RedisReply> {
    const { shard, send } = this.#route(name, args)
    return await shard.run(1, bytesOf(args), send)
  }

  async pipeline(commands: readonly RedisCommand[]): Promise<readonly (RedisReply | RedisError)[]> {
    const routes = commands.map(([name, ...args]) => this.#route(name, args))
    const replies: (RedisReply | RedisError)[] = []
    const run = async (shard: Place, places: readonly number[]): Promise<RedisError | null> => {
      const bytes = places.reduce((sum, place) => sum + bytesOf(commands[place] as RedisCommand), 0)
      const send = (place: number): Promise<RedisReply | RedisError> =>
        (routes[place] as Route).send().catch((error: unknown) => {
          if (isRefusal(error)) return shard.asRedisError(error)
          throw error
        })
      try {
        const told = await shard.run(places.length, bytes, () =>
          this.#client.together(() => Promise.all(places.map(send))),
        )
        for (const [i, place] of places.entries()) replies[place] = told[i] as RedisReply | RedisError
        return null
      } catch (error) {
        for (const place of places) replies[place] = error as RedisError
        return error as RedisError
      }
    }
    const groups = Map.groupBy(routes.keys(), (place) => (routes[place] as Route).shard)
    const failures = await Promise.all(Array.from(groups, ([shard, places]) => run(shard, places)))
    const [failure = null] = failures
    if (failure !== null && !failures.includes(null)) throw failure
    return replies
  }

  script(lua: string): RedisScript {
    const hash = createHash('sha1').update(lua).digest('hex')
    return async (keys, args, late) => {
      const rest = [keys.length, ...keys, ...args]
      const { shard, send } = this.#route('evalsha', [hash, ...rest])
      const run = async (isAwaited: () => boolean): Promise<RedisReply> => {
        try {
          return await send()
        } catch (error) {
          if (!isAwaited() || !isRefusal(error) || !error.message.startsWith('NOSCRIPT')) throw error
          return await this.#route('eval', [lua, ...rest]).send()
        }
      }
      return await shard.run(1, bytesOf(rest), run, late)
    }
  }

  protected override async end(): Promise<void> {
    for (const shard of this.#shards.values()) shard.close()
    await this.#client.close()
  }

  #route(name: string, args: readonly RedisArgument[]): Route {
    const routed = this.#client.route(name, args)
    const send = (): Promise<RedisReply> => routed.send()
    const { node } = routed
    if (node !== 'any') return { shard: (node && this.#shards.get(node)) ?? NOWHERE, send }
    for (const shard of this.#shards.values()) {
      if (shard.isUp) return { shard, send: () => shard.node.send(name, args) }
    }
    return { shard: NOWHERE, send }
  }

  /** Takes in which nodes a cluster has now. */
  #follow(): void {
    const before = this.#shards
    this.#shards = new Map(this.#client.nodes.map((node) => [node, before.get(node) ?? this.#shardAt(node)]))
    for (const [node, shard] of before) if (!this.#shards.has(node)) shard.close()
    this.#update()
  }

  #update(): void {
    this.#isUp = [...this.#shards.values()].every(({ isUp }) => isUp)
    this.changed()
  }
}

interface Route {
  readonly shard: Place
  readonly send: () => Promise<RedisReply>
}
