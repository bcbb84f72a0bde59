// The one file that knows ioredis. A link is one connection (of a Redis, a Sentinel's master, a Redis Cluster) for one
// use: cache and limiter each have their own, so that neither waits behind the other; a subscriber hears channels.
//
// Its promise: whatever Redis does, a command settles within the deadline, and at once while the link is down; nothing
// is queued for later, retried or sent again; what comes after the deadline is ignored (the server may still have done
// it). Whether Redis is up is for background probes to find out, never for a request (core/availability.ts).
// Every failure is a RedisError, and always a rejection. ioredis errors carry the arguments of their command, passwords
// included, so they go no further than this file.

import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import { isIP } from 'node:net'
import type * as IoRedis from 'ioredis'
import type { Cluster, Redis, RedisOptions } from 'ioredis'
import { Availability, type ChangeLog } from './availability.ts'
import { Sweeper } from './deadlines.ts'
import { formatRedisAddress, parseRedisUrl, type RedisAddress } from './redis-url.ts'

export type RedisArgument = string | Buffer | number
/** Texts come as buffers, exactly as stored. */
export type RedisReply = Buffer | number | null | readonly RedisReply[]
export type RedisCommand = readonly [name: string, ...args: RedisArgument[]]

/** redis_down: not connected, or the breaker is open, or the connection broke. redis_timeout: no reply by the deadline.
 *  redis_error: the server said no. redis_overload: too much in flight. After a timeout, and after a broken connection,
 *  the command may have been carried out all the same. */
export type RedisErrorCode = 'redis_down' | 'redis_timeout' | 'redis_error' | 'redis_overload'

export class RedisError extends Error {
  readonly code: RedisErrorCode
  /** The first word of the server's refusal, as WRONGTYPE; null when it was not the server. */
  readonly refusal: string | null

  constructor(code: RedisErrorCode, detail: string, refusal: string | null = null) {
    super(`${code}: ${detail}`)
    this.name = 'RedisError'
    this.code = code
    this.refusal = refusal
  }
}

export interface RedisLinkOptions {
  /** See core/redis-url.ts. */
  readonly url: string
  /** The use, for log lines and Redis' CLIENT LIST: `cache`, `limits`. */
  readonly name: string
  /** Longest wait for a reply. */
  readonly deadlineMs: number
  /** A key that probes write (and let expire), so that a replica or a full server counts as down; without it, a server
   *  that answers PING (of a cluster: that sees it whole) is up. */
  readonly probeKey?: string
}

export interface RedisSubscriberOptions extends Omit<RedisLinkOptions, 'probeKey'> {
  readonly channels: readonly [string, ...string[]]
}

export interface RedisConnection {
  readonly isUp: boolean
  readonly status: 'ok' | 'down'
  /** Calls the listener after each change of isUp; answers a function that ends that. */
  onChange(listener: (isUp: boolean) => void): () => void
  /** Resolves with isUp when that turns true, or after maxMs. For the start: afterwards ask isUp. */
  whenUp(maxMs: number): Promise<boolean>
  /** Ends the connection and all timers. Commands in flight fail with redis_down. */
  close(): Promise<void>
}

export interface RedisLink extends RedisConnection {
  /** True for a Redis Cluster: the keys of one command or script must lie in one slot. */
  readonly isCluster: boolean
  /** Sends one command. */
  command(name: string, ...args: readonly RedisArgument[]): Promise<RedisReply>
  /** Sends commands in one write, under one deadline. One that the server refuses is a RedisError in its place. Not a
   *  transaction, and at most 1,000. Rejects where no answer can be had for all of them. */
  pipeline(commands: readonly RedisCommand[]): Promise<readonly (RedisReply | RedisError)[]>
  /** A Lua script, sent by its hash, and in full where the server does not have it (any more). */
  script(lua: string): (keys: readonly RedisArgument[], args: readonly RedisArgument[]) => Promise<RedisReply>
}

/** Up means: every channel is subscribed. What was published while it was down is lost; onChange tells when. */
export type RedisSubscriber = RedisConnection

/** Commands that Redis may owe an answer; the next fails. Late ones count until their answer comes or the socket goes. */
const MAX_IN_FLIGHT = 1000
/** Bytes of arguments that these may have. */
const MAX_BYTES_IN_FLIGHT = 16 * 1024 ** 2
const CONNECT_TIMEOUT_MS = 500
/** A socket without a byte for this long, while an answer is due, is dead though it looks open. */
const SILENCE_MS = 2000
/** A good probe takes no longer than this, nor than the deadline: a Redis too slow for commands must not look up. */
const MAX_PROBE_MS = 50
const PROBE_KEY_TTL_MS = 1000
/** READONLY and LOADING: another server may be behind the address by now. At most one new connection in this time. */
const RECONNECT_PAUSE_MS = 1000

/** Refusals that say that the server cannot serve. Redis 6.2 puts those of a script's commands behind its own words. */
const UNWELL = /(?:^|: -?)(?:LOADING|READONLY|CLUSTERDOWN|OOM|BUSY|MASTERDOWN|MISCONF|NOREPLICAS|NOAUTH|TRYAGAIN) /

/** Connects in the background. Throws when the URL makes no sense. */
export function createRedisLink(options: RedisLinkOptions, log: ChangeLog): RedisLink {
  return new Link(options, log)
}

/** Connects in the background and subscribes, again after each loss. Throws when the URL makes no sense. */
export function createRedisSubscriber(
  options: RedisSubscriberOptions,
  onMessage: (channel: string, message: Buffer) => void,
  log: ChangeLog,
): RedisSubscriber {
  return new Subscriber(options, onMessage, log)
}

/** What link and subscriber share: the connection, and what it tells of whether Redis is there. */
abstract class Connection implements RedisConnection {
  protected readonly client: Redis | Cluster
  protected readonly availability: Availability
  readonly #password: string
  /** Why there is no connection, in words. */
  #trouble = 'not connected yet'
  #isClosed = false

  constructor(options: Omit<RedisLinkOptions, 'probeKey'>, log: ChangeLog) {
    const address = parseRedisUrl(options.url)
    if (address.kind === 'invalid') throw new RedisError('redis_down', `not a Redis URL: ${address.cure}`)
    this.#password = address.password
    const note = (error: Error): void => void (this.#trouble = this.inWords(error))
    this.client = connect(address, options.name, note)
    this.availability = new Availability(
      {
        service: 'Redis',
        fields: { redis: options.name, server: formatRedisAddress(address) },
        probeLimitMs: Math.min(options.deadlineMs, MAX_PROBE_MS),
        probe: () => this.#look(),
      },
      log,
    )
    // An 'error' without a listener would go to stderr, with everything that ioredis knows. It comes before 'close'.
    const lost = (): void => this.availability.lost(this.#trouble)
    this.client.on('error', note)
    this.client.on('node error', note)
    this.client.on('close', lost)
    this.client.on('ready', () => {
      this.#trouble = 'connection closed'
      this.availability.connected()
    })
    // One master gone is a part of the keys gone: a cluster is whole or it is down.
    this.client.on('+node', (node: Redis) => {
      node.on('close', () => {
        if (node.options.readOnly !== true) lost()
      })
    })
  }

  get isUp(): boolean {
    return this.availability.isUp
  }

  get status(): 'ok' | 'down' {
    return this.isUp ? 'ok' : 'down'
  }

  onChange(listener: (isUp: boolean) => void): () => void {
    return this.availability.onChange(listener)
  }

  whenUp(maxMs: number): Promise<boolean> {
    return this.availability.whenUp(maxMs)
  }

  async close(): Promise<void> {
    if (this.#isClosed) return
    this.#isClosed = true
    this.availability.close()
    await disconnect(this.client)
  }

  /** What has to succeed for Redis to be up. Called only when the client is connected. */
  protected abstract probe(): Promise<unknown>

  /** An error of ioredis for people, without secrets. */
  protected inWords(error: Error): string {
    // Redis repeats the arguments of a command that it does not know, and AUTH may be one.
    const text = error.message.replace(/,? with args beginning with.*/s, '').slice(0, 200)
    return this.#password === '' ? text : text.replaceAll(this.#password, '***')
  }

  async #look(): Promise<string | null> {
    const { client } = this
    if (client.status !== 'ready') return this.#trouble
    // A cluster in trouble may have new masters: ask again which server holds what.
    if (isCluster(client) && !this.isUp) client.refreshSlotsCache(() => {})
    try {
      await this.probe()
      return null
    } catch (error) {
      return isRefusal(error) || error instanceof RedisError ? this.inWords(error) : this.#trouble
    }
  }
}

class Link extends Connection implements RedisLink {
  readonly #waits: Sweeper
  readonly #probeKey: string | undefined
  #inFlight = 0
  #bytesInFlight = 0

  constructor(options: RedisLinkOptions, log: ChangeLog) {
    super(options, log)
    this.#probeKey = options.probeKey
    this.#waits = new Sweeper(options.deadlineMs, (count) => this.availability.missed(count))
  }

  get isCluster(): boolean {
    return isCluster(this.client)
  }

  command(name: string, ...args: readonly RedisArgument[]): Promise<RedisReply> {
    return this.#within(1, bytesOf(args), () => this.#send(name, args))
  }

  pipeline(commands: readonly RedisCommand[]): Promise<readonly (RedisReply | RedisError)[]> {
    const bytes = commands.reduce((sum, command) => sum + bytesOf(command), 0)
    return this.#within(commands.length, bytes, () => {
      const stream = isCluster(this.client) ? undefined : streamOf(this.client)
      stream?.cork()
      const replies = commands.map(async ([name, ...args]) => {
        try {
          return await this.#send(name, args)
        } catch (error) {
          if (!isRefusal(error)) throw error
          return this.#asRedisError(error)
        }
      })
      stream?.uncork()
      return Promise.all(replies)
    })
  }

  script(lua: string): (keys: readonly RedisArgument[], args: readonly RedisArgument[]) => Promise<RedisReply> {
    const hash = createHash('sha1').update(lua).digest('hex')
    return (keys, args) => {
      const rest = [keys.length, ...keys, ...args]
      return this.#within(1, bytesOf(rest), async (isAwaited) => {
        try {
          return await this.#send('evalsha', [hash, ...rest])
        } catch (error) {
          if (!isAwaited() || !isRefusal(error) || !error.message.startsWith('NOSCRIPT')) throw error
          return await this.#send('eval', [lua, ...rest])
        }
      })
    }
  }

  protected override async probe(): Promise<void> {
    const { client } = this
    const answers: Promise<unknown>[] = isCluster(client) ? wholeCluster(client) : [client.ping()]
    // ioredis goes on in database 0 where the one of the URL does not exist.
    if (!isCluster(client) && client.options.db) answers.push(client.select(client.options.db))
    if (this.#probeKey !== undefined) answers.push(client.set(this.#probeKey, '1', 'PX', PROBE_KEY_TTL_MS))
    await Promise.all(answers)
  }

  /** Lets `start` run within the bounds and the deadline. commands: how many answers it waits for. isAwaited: false once
   *  the deadline has passed. */
  #within<T>(commands: number, bytes: number, start: (isAwaited: () => boolean) => Promise<T>): Promise<T> {
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
          if (!settle()) return
          this.availability.good()
          resolve(reply)
        },
        (error: unknown) => {
          if (settle()) reject(this.#asRedisError(error))
        },
      )
    })
  }

  // Async, so that an argument which ioredis cannot take is a rejection as well.
  async #send(name: string, args: readonly RedisArgument[]): Promise<RedisReply> {
    return (await this.client.callBuffer(name, [...args])) as RedisReply
  }

  #asRedisError(error: unknown): RedisError {
    if (!isRefusal(error)) return new RedisError('redis_down', 'the connection was lost')
    if (UNWELL.test(error.message)) this.availability.unwell(this.inWords(error))
    else this.availability.good()
    return new RedisError('redis_error', this.inWords(error), /^[A-Z]+/.exec(error.message)?.[0] ?? 'ERR')
  }
}

class Subscriber extends Connection implements RedisSubscriber {
  readonly #channels: readonly string[]

  constructor(options: RedisSubscriberOptions, onMessage: (channel: string, message: Buffer) => void, log: ChangeLog) {
    super(options, log)
    this.#channels = options.channels
    this.client.on('messageBuffer', (channel: Buffer, message: Buffer) => onMessage(channel.toString(), message))
  }

  // Asking again changes nothing where it holds, and proves that the very connection that shall hear is alive.
  protected override probe(): Promise<unknown> {
    return this.client.subscribe(...this.#channels)
  }
}

/** 50 ms, doubled to 500, each 20 % more or less, so that instances do not come back in step. */
const backOffMs = (attempt: number): number => Math.min(50 * 2 ** (attempt - 1), 500) * (0.8 + 0.4 * Math.random())

/** onLeave: hears the refusal for which a connection is given up. */
function connect(
  address: Exclude<RedisAddress, { kind: 'invalid' }>,
  name: string,
  onLeave: (refusal: Error) => void,
): Redis | Cluster {
  let reconnectedAtMs = -RECONNECT_PAUSE_MS
  const options = {
    connectionName: `weirgate-${name}`,
    connectTimeout: CONNECT_TIMEOUT_MS,
    disconnectTimeout: CONNECT_TIMEOUT_MS,
    socketTimeout: SILENCE_MS,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    // Done by Subscriber: ioredis leaves the promise of its own attempt alone, and its failure would end the process.
    autoResubscribe: false,
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
  if (address.kind === 'cluster') {
    return new (loadClient().Cluster)(
      address.hosts.map((host) => ({ ...host })),
      {
        enableOfflineQueue: false,
        maxRedirections: 3,
        retryDelayOnFailover: 0,
        retryDelayOnClusterDown: 0,
        clusterRetryStrategy: backOffMs,
        // A master that is gone stays known, so that its probes fail; else the cluster without it would look whole.
        clusterNodeRetryStrategy: backOffMs,
        slotsRefreshTimeout: CONNECT_TIMEOUT_MS,
        slotsRefreshInterval: 5000,
        redisOptions: options,
        // Names stay names, so that certificates fit them.
        ...(address.tls ? { dnsLookup: (host, found) => found(null, host) } : {}),
      },
    )
  }
  const single = {
    ...options,
    enableOfflineQueue: false,
    // Probes find out whether it is loading, without INFO, which an access list may deny.
    enableReadyCheck: false,
    retryStrategy: backOffMs,
    db: address.database,
  } satisfies RedisOptions
  if (address.kind === 'single') {
    const [{ host, port }] = address.hosts
    return new (loadClient().Redis)({
      ...single,
      host,
      port,
      ...(address.tls && isIP(host) === 0 ? { tls: { servername: host } } : {}),
    })
  }
  return new (loadClient().Redis)({
    ...single,
    // The check asks the server for its role: a Sentinel may still name the old master.
    enableReadyCheck: true,
    maxLoadingRetryTime: CONNECT_TIMEOUT_MS,
    sentinels: address.hosts.map((host) => ({ ...host })),
    name: address.master,
    sentinelRetryStrategy: backOffMs,
    sentinelCommandTimeout: CONNECT_TIMEOUT_MS,
    enableTLSForSentinelMode: address.tls,
    ...(address.tls ? { sentinelTLS: {} } : {}),
  })
}

/** Ends at once, without the farewell that a hung server would not answer. */
async function disconnect(client: Redis | Cluster): Promise<void> {
  const nodes = isCluster(client) ? client.nodes() : [client]
  const streams = nodes.map(streamOf).filter((stream) => stream !== undefined && !stream.destroyed)
  const closed = streams.map((stream) => new Promise((resolve) => stream?.once('close', resolve)))
  client.disconnect()
  for (const stream of streams) stream?.destroy()
  await Promise.all(closed)
}

/** One answer for each master; each fails unless that master sees the cluster whole. PING would not tell. */
function wholeCluster(client: Cluster): Promise<void>[] {
  const masters = client.nodes('master')
  if (masters.length === 0) return [Promise.reject(new RedisError('redis_down', 'no master is known'))]
  return masters.map(async (master) => {
    const info = await master.cluster('INFO')
    if (!info.includes('cluster_state:ok')) throw new RedisError('redis_down', 'the cluster is not whole')
  })
}

const isCluster = (client: Redis | Cluster): client is Cluster => client.isCluster

/** Loaded with the first connection: it takes 14 MB, and who stands alone needs none. */
const loadClient = (): typeof IoRedis => createRequire(import.meta.url)('ioredis') as typeof IoRedis

/** None before the first attempt to connect, whatever its type says. */
const streamOf = (client: Redis): Redis['stream'] | undefined => client.stream

const isRefusal = (error: unknown): error is Error => error instanceof Error && error.name === 'ReplyError'

function bytesOf(args: readonly RedisArgument[]): number {
  let bytes = 0
  for (const arg of args) bytes += typeof arg === 'number' ? 8 : Buffer.byteLength(arg)
  return bytes
}
