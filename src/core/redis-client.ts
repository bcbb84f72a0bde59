// The one file that knows ioredis: how it is set up to fail fast and to repeat nothing, and what its events mean. Speaks of
// nodes: the server of a URL, the master that a Sentinel names, the masters of a cluster.
//
// Errors of ioredis carry the arguments of their command, passwords included: they go to redis.ts, and no further.

import { createRequire } from 'node:module'
import { isIP } from 'node:net'
import type * as IoRedis from 'ioredis'
import type { Cluster, Command, Redis, RedisOptions } from 'ioredis'
import { type RedisArgument, RedisError, type RedisReply } from './redis-reply.ts'
import { type RedisAddress, formatRedisAddress } from './redis-url.ts'

export type KnownAddress = Exclude<RedisAddress, { kind: 'invalid' }>

/** A server that keys lie on. */
export interface RedisNode {
  /** For log lines. */
  readonly address: string
  /** Sends a command to this server, wherever its keys lie. Rejects where there is no connection. */
  send(name: string, args: readonly RedisArgument[]): Promise<RedisReply>
  /** Text which, in braces in a key, puts that on this server; null where none does. '' where every key is. */
  tag(): string | null
}

/** A command that knows where it goes. */
export interface Routed {
  /** null: to whichever node. */
  readonly node: RedisNode | null | 'any'
  send(): Promise<RedisReply>
}

export interface RedisClient {
  readonly isCluster: boolean
  /** False: nothing can be sent. */
  readonly isReady: boolean
  /** One at least: where a cluster has not been found yet, what stands for all of it. */
  readonly nodes: readonly RedisNode[]
  /** The node that a key lies on; null where none is known. */
  nodeOf(key: string): RedisNode | null
  /** Throws where the arguments cannot be sent. */
  route(name: string, args: readonly RedisArgument[]): Routed
  /** What `write` sends goes in one write. */
  together<T>(write: () => T): T
  subscribe(channels: readonly string[]): Promise<unknown>
  /** Looks up again which node holds what, in the background. */
  refresh(): void
  /** Gives up all connections for new ones. */
  reconnect(): void
  /** Ends at once, without the farewell that a hung server would not answer. */
  close(): Promise<void>
}

export interface ClientEvents {
  /** node: null where it is not about one that is known. Comes before `lost`. */
  failed(error: Error, node: RedisNode | null): void
  connected(node: RedisNode): void
  lost(node: RedisNode): void
  /** A cluster has other nodes than before, or they hold other keys. */
  moved(): void
  heard(channel: string, message: Buffer): void
}

const CONNECT_TIMEOUT_MS = 500
/** A socket without a byte for this long, while an answer is due, is dead though it looks open. */
const SILENCE_MS = 2000
/** READONLY and LOADING: another server may be behind the address by now. At most one new connection in this time. */
const RECONNECT_PAUSE_MS = 1000
/** While a slot moves to another node, a script over several keys of it may have to wait for the rest of them. */
const TRY_AGAIN_MS = 5
const SLOTS = 16_384
/** Numbers that are tried for the tag of a node: enough for one that holds a single slot of the 16,384. */
const MAX_TAGS = 200_000

/** Connects in the background. */
export function connectRedis(address: KnownAddress, name: string, events: ClientEvents): RedisClient {
  return address.kind === 'cluster' ? connectCluster(address, name, events) : connectOne(address, name, events)
}

function connectOne(address: KnownAddress, name: string, events: ClientEvents): RedisClient {
  const redis = new (loadClient().Redis)(oneOptions(address, name, (refusal) => events.failed(refusal, node)))
  const node: RedisNode = {
    address: formatRedisAddress(address),
    send: (command, args) => sendTo(redis, command, args),
    tag: () => '',
  }
  // An 'error' without a listener would go to stderr, with everything that ioredis knows. It comes before 'close'.
  redis.on('error', (error: Error) => events.failed(error, node))
  redis.on('close', () => events.lost(node))
  redis.on('ready', () => events.connected(node))
  redis.on('messageBuffer', (channel: Buffer, message: Buffer) => events.heard(channel.toString(), message))
  return {
    isCluster: false,
    get isReady() {
      return redis.status === 'ready'
    },
    nodes: [node],
    nodeOf: () => node,
    route: (command, args) => ({ node, send: () => sendTo(redis, command, args) }),
    together(write) {
      const stream = streamOf(redis)
      stream?.cork()
      try {
        return write()
      } finally {
        stream?.uncork()
      }
    },
    subscribe: (channels) => redis.subscribe(...channels),
    refresh() {},
    reconnect: () => redis.disconnect(true),
    close: () => end(redis, [redis]),
  }
}

/** A master of a cluster; the connection to it may be made anew. */
class Master implements RedisNode {
  readonly address: string
  redis: Redis
  readonly #isHere: (tag: string) => boolean
  #tag = 0

  /** isHere: whether keys with a tag lie there. */
  constructor(address: string, redis: Redis, isHere: (tag: string) => boolean) {
    this.address = address
    this.redis = redis
    this.#isHere = isHere
  }

  async send(name: string, args: readonly RedisArgument[]): Promise<RedisReply> {
    // Any other keeps it until there is a connection.
    if (this.redis.status !== 'ready' && this.redis.status !== 'wait')
      throw new RedisError('redis_down', 'not connected')
    return await sendTo(this.redis, name, args)
  }

  tag(): string | null {
    for (let tried = 0; tried < MAX_TAGS; tried++) {
      if (this.#isHere(String(this.#tag))) return String(this.#tag)
      this.#tag = (this.#tag + 1) % MAX_TAGS
    }
    return null
  }
}

function connectCluster(address: KnownAddress, name: string, events: ClientEvents): RedisClient {
  const cluster = new (loadClient().Cluster)(
    address.hosts.map((host) => ({ ...host })),
    {
      // For a node that another has just named, while it is being connected. Nothing is sent to one that is lost.
      enableOfflineQueue: true,
      // Probes find out more: whether each master is well.
      enableReadyCheck: false,
      maxRedirections: 3,
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
      retryDelayOnTryAgain: TRY_AGAIN_MS,
      clusterRetryStrategy: backOffMs,
      // A master that is gone stays known, so that its keys count as lost until others have them.
      clusterNodeRetryStrategy: backOffMs,
      slotsRefreshTimeout: CONNECT_TIMEOUT_MS,
      slotsRefreshInterval: 5000,
      redisOptions: commonOptions(address, name, () => {}),
      // Names stay names, so that certificates fit them.
      ...(address.tls ? { dnsLookup: (host, found) => found(null, host) } : {}),
    },
  )
  const slotOf = createRequire(import.meta.url)('cluster-key-slot') as (key: string) => number
  const unknown: RedisNode = {
    address: formatRedisAddress(address),
    send: () => Promise.reject(new RedisError('redis_down', 'no master is known')),
    tag: () => null,
  }
  const masters = new Map<string, Master>()
  /** By slot, where it was when that was looked up last. */
  const places: (string | undefined)[] = []
  const masterAt = (slot: number): Master | null => masters.get(cluster.slots[slot]?.[0] ?? '') ?? null

  function watch(master: Master, redis: Redis): void {
    const isCurrent = (): boolean => master.redis === redis && masters.get(master.address) === master
    redis.on('ready', () => isCurrent() && events.connected(master))
    redis.on('close', () => isCurrent() && events.lost(master))
  }

  function look(): void {
    const found = new Map(cluster.nodes('master').map((redis) => [formatPlace(redis), redis]))
    // Between two attempts to find the cluster, what was known of it stays.
    if (found.size === 0 || cluster.status !== 'ready') return
    let hasMoved = false
    for (const [place, redis] of found) {
      const known = masters.get(place)
      if (known?.redis === redis) continue
      const master = known ?? new Master(place, redis, (tag) => masterAt(slotOf(tag)) === masters.get(place))
      master.redis = redis
      masters.set(place, master)
      watch(master, redis)
      hasMoved = true
    }
    for (const place of masters.keys()) if (!found.has(place)) hasMoved = masters.delete(place)
    for (let slot = 0; slot < SLOTS; slot++) {
      const place = cluster.slots[slot]?.[0]
      if (places[slot] !== place) hasMoved = true
      places[slot] = place
    }
    if (hasMoved) events.moved()
  }

  // See connectOne.
  cluster.on('error', (error: Error) => events.failed(error, null))
  cluster.on('node error', (error: Error, place: string) => events.failed(error, masters.get(place) ?? null))
  for (const change of ['ready', 'refresh', '+node', '-node']) cluster.on(change, look)
  cluster.on('messageBuffer', (channel: Buffer, message: Buffer) => events.heard(channel.toString(), message))

  return {
    isCluster: true,
    get isReady() {
      return cluster.status === 'ready'
    },
    get nodes() {
      return masters.size === 0 ? [unknown] : [...masters.values()]
    },
    nodeOf: (key) => masterAt(slotOf(key)),
    route(command, args) {
      const made = commandOf(command, args)
      const slot = made.getSlot()
      return {
        node: slot === null ? 'any' : masterAt(slot),
        send: async () => (await cluster.sendCommand(made)) as RedisReply,
      }
    },
    together: (write) => write(),
    subscribe: (channels) => cluster.subscribe(...channels),
    refresh: () => cluster.refreshSlotsCache(() => {}),
    reconnect: () => cluster.disconnect(true),
    close: () => end(cluster, cluster.nodes()),
  }
}

/** As ioredis names nodes. */
const formatPlace = ({ options }: Redis): string => `${options.host}:${options.port}`

/** 50 ms, doubled to 500, each 20 % more or less, so that instances do not come back in step. */
const backOffMs = (attempt: number): number => Math.min(50 * 2 ** (attempt - 1), 500) * (0.8 + 0.4 * Math.random())

/** onLeave: hears the refusal for which a connection is given up. */
function commonOptions(address: KnownAddress, name: string, onLeave: (refusal: Error) => void) {
  let reconnectedAtMs = -RECONNECT_PAUSE_MS
  return {
    connectionName: `weirgate-${name}`,
    connectTimeout: CONNECT_TIMEOUT_MS,
    disconnectTimeout: CONNECT_TIMEOUT_MS,
    socketTimeout: SILENCE_MS,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    // Done by Subscriber: ioredis leaves the promise of its own attempt alone, and its failure would end the process.
    autoResubscribe: false,
    // Probes find out whether it is loading, without INFO, which an access list may deny.
    enableReadyCheck: false,
    disableClientInfo: true,
    // RESP2 costs less and is all that is needed here.
    protocol: 2,
    reconnectOnError: (error) => {
      const nowMs = performance.now()
      if (!/^(?:READONLY|LOADING) /.test(error.message) || nowMs - reconnectedAtMs < RECONNECT_PAUSE_MS) return false
      reconnectedAtMs = nowMs
      onLeave(error)
      return true
    },
    ...(address.user === '' ? {} : { username: address.user }),
    ...(address.password === '' ? {} : { password: address.password }),
    ...(address.tls ? { tls: {} } : {}),
  } satisfies RedisOptions
}

function oneOptions(address: KnownAddress, name: string, onLeave: (refusal: Error) => void) {
  const options = {
    ...commonOptions(address, name, onLeave),
    enableOfflineQueue: false,
    retryStrategy: backOffMs,
  }
  if (address.kind !== 'sentinel') {
    const [{ host, port }] = address.hosts
    return {
      ...options,
      host,
      port,
      db: databaseOf(address),
      ...(address.tls && isIP(host) === 0 ? { tls: { servername: host } } : {}),
    } satisfies RedisOptions
  }
  return {
    ...options,
    // The check asks the server for its role: a Sentinel may still name the old master.
    enableReadyCheck: true,
    maxLoadingRetryTime: CONNECT_TIMEOUT_MS,
    db: address.database,
    sentinels: address.hosts.map((host) => ({ ...host })),
    name: address.master,
    sentinelRetryStrategy: backOffMs,
    sentinelCommandTimeout: CONNECT_TIMEOUT_MS,
    enableTLSForSentinelMode: address.tls,
    ...(address.tls ? { sentinelTLS: {} } : {}),
  } satisfies RedisOptions
}

export const databaseOf = (address: KnownAddress): number => (address.kind === 'cluster' ? 0 : address.database)

/** Loaded with the first connection: it takes 14 MB, and who stands alone needs none. */
const loadClient = (): typeof IoRedis => createRequire(import.meta.url)('ioredis') as typeof IoRedis

const commandOf = (name: string, args: readonly RedisArgument[]): Command =>
  new (loadClient().Command)(name, [...args], { replyEncoding: null })

// Async, so that an argument which ioredis cannot take is a rejection as well.
const sendTo = async (redis: Redis, name: string, args: readonly RedisArgument[]): Promise<RedisReply> =>
  (await redis.callBuffer(name, [...args])) as RedisReply

/** None before the first attempt to connect, whatever its type says. */
const streamOf = (redis: Redis): Redis['stream'] | undefined => redis.stream

async function end(client: Redis | Cluster, nodes: readonly Redis[]): Promise<void> {
  const streams = nodes.map(streamOf).filter((stream) => stream !== undefined && !stream.destroyed)
  const closed = streams.map((stream) => new Promise((resolve) => stream?.once('close', resolve)))
  client.disconnect()
  for (const stream of streams) stream?.destroy()
  await Promise.all(closed)
}
