// Warm connections to the targets of one upstream: one undici Pool per target, requests to the targets in turn, and
// before each Pool a line of our own. Undici's own queue has no bound, and what waits in it cannot be taken back: a
// client that has gone would get its turn all the same, and cost a connection.
//
// Two more things are not undici's defaults. The factory guards each client: when undici refuses a request before
// sending it, Client.dispatch answers false, the Pool takes that client for busy and waits for a drain that never
// comes, so a bounded pool is gone after `connections` such requests. And connections are made here, because undici's
// own connect timeout ticks in half seconds.

import net from 'node:net'
import tls from 'node:tls'
import { Client, Pool, type Dispatcher, type buildConnector } from 'undici'
import { GatewayError } from '../core/errors.ts'
import type { UpstreamRow } from '../core/control.ts'
import type { UpstreamOptions } from './options.ts'

/** Idle connections are kept this long: shorter than any usual server's keep-alive, so that we close first. */
const KEEP_ALIVE_MS = 4000
/** A server's `Keep-Alive: timeout=` hint is honoured up to this, less the threshold below. */
const KEEP_ALIVE_MAX_MS = 30_000
const KEEP_ALIVE_MARGIN_MS = 2000
const MAX_REQUESTS_PER_CONNECTION = 1000
const MAX_HEAD_BYTES = 32 * 1024
/** Requests that may wait for a free connection of one target; more are refused as saturated. */
export const MAX_WAITING = 1024

/** How many milliseconds each phase of an exchange may take. */
export interface Timeouts {
  readonly connectMs: number
  readonly queueMs: number
  readonly firstByteMs: number
  readonly idleMs: number
  readonly totalMs: number
  readonly streamTotalMs: number
}

export const DEFAULT_TIMEOUTS: Timeouts = {
  connectMs: 2000,
  queueMs: 30_000,
  firstByteMs: 30_000,
  idleMs: 30_000,
  totalMs: 60_000,
  streamTotalMs: 300_000,
}

/** One exchange, as its target sees it: it waits in line, has a connection's place from onTurn on, and leaves. */
export interface Exchange extends Dispatcher.DispatchHandler {
  /** True once undici has refused the request without sending it. */
  readonly refusedUnsent: boolean
  /** A connection is free, or may be made: `send` now. Must not throw. */
  onTurn(): void
}

/** One backend. */
export interface Target {
  readonly origin: URL
  /** Gets in line; onTurn may be called before this returns. False: too many wait already, nothing has changed. After
   *  true, `leave` is owed, once. */
  enter(exchange: Exchange): boolean
  /** Once, on its turn. onFreshConnection: on one that is made for this request and closed after it. */
  send(request: Dispatcher.DispatchOptions, exchange: Exchange, onFreshConnection: boolean): void
  /** Out of the line, or out of the way of the next. */
  leave(exchange: Exchange): void
}

export interface UpstreamPool {
  readonly name: string
  readonly targetCount: number
  /** The next target in turn; after a failure the one that follows it, so that another try meets another target. */
  next(failed: Target | null): Target
  status(): UpstreamRow
  /** Lets requests in flight finish, then closes every connection. Takes no more requests. */
  close(): Promise<void>
  /** Breaks everything off. */
  destroy(): Promise<void>
}

export function createPool(name: string, options: UpstreamOptions, connectMs: number): UpstreamPool {
  const targets = options.targets.map(({ url }) => createTarget(url, options, connectMs))
  let turn = -1
  return {
    name,
    targetCount: targets.length,
    next(failed) {
      const last = failed === null ? turn : targets.findIndex((target) => target === failed)
      const next = (last + 1) % targets.length
      if (failed === null) turn = next
      return targets[next] as PooledTarget
    },
    status: () => ({ upstream: name, targets: targets.map((target) => target.status()) }),
    async close() {
      await Promise.all(targets.map((target) => target.close()))
    },
    async destroy() {
      await Promise.all(targets.map((target) => target.destroy()))
    },
  }
}

interface PooledTarget extends Target {
  status(): UpstreamRow['targets'][number]
  close(): Promise<void>
  destroy(): Promise<void>
}

function createTarget(origin: URL, options: UpstreamOptions, connectMs: number): PooledTarget {
  const clientOptions = {
    connect: connector(connectMs),
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MAX_MS,
    keepAliveTimeoutThreshold: KEEP_ALIVE_MARGIN_MS,
    maxRequestsPerClient: MAX_REQUESTS_PER_CONNECTION,
    maxHeaderSize: MAX_HEAD_BYTES,
    pipelining: 1,
    allowH2: false,
    // Ours are exact; undici's tick by the half second.
    headersTimeout: 0,
    bodyTimeout: 0,
  } satisfies Client.Options
  const pool = new Pool(origin, {
    ...clientOptions,
    connections: options.connections,
    clientTtl: options.connectionLifetime,
    factory: (target: URL, poolOptions: object) => guarded(new Client(target, poolOptions)),
  })
  // Connections of their own, for attempts that must not draw another dead one from the pool.
  const fresh = new Set<Client>()
  // In order of arrival; leaving it costs the same wherever one stands.
  const line = new Set<Exchange>()
  let busy = 0

  function admit(): void {
    for (const exchange of line) {
      if (busy === options.connections) return
      line.delete(exchange)
      busy++
      exchange.onTurn()
    }
  }

  return {
    origin,
    enter(exchange) {
      if (busy < options.connections && line.size === 0) {
        busy++
        exchange.onTurn()
        return true
      }
      if (line.size === MAX_WAITING) return false
      line.add(exchange)
      return true
    },
    send(request, exchange, onFreshConnection) {
      if (!onFreshConnection) {
        pool.dispatch(request, exchange)
        return
      }
      const client = new Client(origin, clientOptions)
      fresh.add(client)
      client.dispatch({ ...request, reset: true }, exchange)
      void client.close().then(() => fresh.delete(client))
    },
    leave(exchange) {
      if (line.delete(exchange)) return
      busy--
      // Not at once: undici may be in the middle of parsing an answer, where it cannot take another request.
      if (line.size > 0) queueMicrotask(admit)
    },
    status: () => ({
      url: origin.origin,
      open_connections: pool.stats.connected + fresh.size,
      in_flight: busy,
      queued: line.size,
    }),
    close: () => pool.close(),
    async destroy() {
      await Promise.all([pool.destroy(), ...[...fresh].map((client) => client.destroy())])
    },
  }
}

function guarded(client: Client): Client {
  const dispatch = client.dispatch.bind(client)
  client.dispatch = (request, exchange) => {
    const free = dispatch(request, exchange)
    return (exchange as Exchange).refusedUnsent ? true : free
  }
  return client
}

/** Connects within connectMs, to the millisecond. TLS names the target, whatever Host the request carries. */
function connector(connectMs: number): buildConnector.connector {
  let session: Buffer | undefined
  return ({ hostname, port, protocol }, callback) => {
    const secure = protocol === 'https:'
    const host = hostname.replace(/^\[|\]$/g, '')
    const options = { host, port: Number(port) || (secure ? 443 : 80), noDelay: true, keepAlive: true }
    const named = net.isIP(host) === 0 ? { servername: host } : {}
    const resumed = session === undefined ? {} : { session }
    const socket: net.Socket = secure
      ? tls.connect({ ...options, ...named, ...resumed, ALPNProtocols: ['http/1.1'] })
      : net.connect(options)
    let settled = false
    const timer = setTimeout(() => {
      socket.destroy(
        new GatewayError('timeout_connect', `The upstream did not accept a connection in ${connectMs} ms.`),
      )
    }, connectMs)
    socket
      .once(secure ? 'secureConnect' : 'connect', () => {
        settled = true
        clearTimeout(timer)
        callback(null, socket)
      })
      // Stays for the life of the socket: one without a listener would end the process.
      .on('error', (error: NodeJS.ErrnoException) => {
        clearTimeout(timer)
        // Undici takes this code for the proper end of an answer without length, which a reset never is.
        if (error.code === 'ECONNRESET') error.code = 'RESET'
        if (settled) return
        settled = true
        callback(error, null)
      })
    if (secure) socket.on('session', (fresh: Buffer) => (session = fresh))
  }
}
