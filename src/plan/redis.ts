// The connections to the Redis that instances share, made here and nowhere else: one for each use, so that none waits
// behind another. They outlive every plan.

import type { GatewayConfig } from '../config/schema.ts'
import type { ChangeLog } from '../core/availability.ts'
import type { RedisConnection } from '../core/redis-connection.ts'
import { type RedisSubscriber, createRedisSubscriber } from '../core/redis-subscriber.ts'
import { type RedisLink, createRedisLink } from '../core/redis.ts'
import { gatherNews } from './redis-news.ts'

export interface SharedRedis {
  /** Of the cache tier. */
  readonly cache: RedisLink
  /** Of the limits. */
  readonly limits: RedisLink
  /** Of the purge log, of leases and of cool-downs. */
  readonly purges: RedisLink
  /** Hears channels; whoever asks for it closes it. */
  readonly subscribe: (
    channels: readonly [string, ...string[]],
    onMessage: (channel: string, message: Buffer) => void,
  ) => RedisSubscriber
  /** The part that can be used, from 0 to 1: of the masters of a cluster, for the use that has the fewest. */
  readonly up: number
  /** Resolves when every link is up, or after maxMs. */
  whenUp(maxMs: number): Promise<unknown>
  close(): Promise<void>
}

/** Connects in the background; null where no Redis is named. */
export function openRedis(options: GatewayConfig['redis'], log: ChangeLog): SharedRedis | null {
  const { url, deadline: deadlineMs, namespace } = options
  if (url === '') return null
  const news = gatherNews(log)
  const cache = createRedisLink({ url, name: 'cache', deadlineMs }, news)
  const purges = createRedisLink({ url, name: 'purges', deadlineMs }, news)
  // A replica, or a server that is full, can count nothing.
  const limits = createRedisLink({ url, name: 'limits', deadlineMs, probeKey: `${namespace}:probe` }, news)
  const links = [cache, limits, purges]
  const connections = new Set<RedisConnection>()
  /** What one of them has seen the others need not find out with their own next probe, or by making a request wait. */
  const tellOthers = (connection: RedisConnection): void => {
    connections.add(connection)
    connection.onChange(() => {
      for (const other of connections) if (other !== connection) other.look()
    })
  }
  links.forEach(tellOthers)
  return {
    cache,
    limits,
    purges,
    subscribe(channels, onMessage) {
      const subscriber = createRedisSubscriber({ url, name: 'feed', deadlineMs, channels }, onMessage, news)
      tellOthers(subscriber)
      return subscriber
    },
    get up() {
      return Math.min(...links.map(({ shards }) => shards.filter(({ isUp }) => isUp).length / shards.length))
    },
    whenUp: (maxMs) => Promise.all(links.map((link) => link.whenUp(maxMs))),
    async close() {
      await Promise.all(links.map((link) => link.close()))
      news.close()
    },
  }
}
