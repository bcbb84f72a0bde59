// One backend with its warm connections, and before those a line: who waits in it can still leave, and it has an end.
//
// A target has at most `connections` of them, idle ones among them. The one used last is used next, so that what is not
// needed grows old and is closed, before its target does so (idle-limit.ts). A kept connection may have been closed by the
// other side just now all the same: a request that may go out again is sent at once, any other after one more look at what
// has come.

import net from 'node:net'
import { Alarms } from '../core/alarms.ts'
import type { UpstreamRow } from '../core/control.ts'
import { GatewayError } from '../core/errors.ts'
import type { Candidate } from './choice.ts'
import { type Connect, compileConnect } from './connect.ts'
import { type Carried, type ConnectionOwner, type OutgoingRequest, UpstreamConnection } from './connection.ts'
import { IdleLimit } from './idle-limit.ts'
import type { UpstreamOptions } from './options.ts'
import { type Lookup, Resolution } from './resolve.ts'
import type { SharedCoolDowns } from './shared-cool-downs.ts'
import { type TargetEvent, TargetWatch } from './target-watch.ts'

/** Requests that may wait for a free connection of one target; more are refused as saturated. */
export const MAX_WAITING = 1024

/** One exchange, as its target sees it: it waits in line, has a connection's place from onTurn on, and leaves. */
export interface Exchange extends Carried {
  /** A connection is free, or may be made: `send` now. Must not throw. */
  onTurn(): void
  /** Nobody new is sent to its target for now. isMute: since that says nothing; otherwise it may be about to answer. */
  onTargetOut(isMute: boolean): void
}

/** How a request goes out. fresh: on a connection that is made for it and closed after it; kept: on one that is there, if
 *  that may have been closed just now without harm; checked: after a look. */
export type Sending = 'fresh' | 'kept' | 'checked'

/** What has been sent, or is to be: until it ends it can be broken off, and then its exchange is not called any more. */
export interface Sent {
  destroy(): void
}

/** One backend. */
export interface Target {
  readonly origin: URL
  /** The deadlines of the exchanges with it. */
  readonly alarms: Alarms
  /** Gets in line; onTurn may be called before this returns. False: too many wait already, nothing has changed. After
   *  true, `leave` is owed, once. */
  enter(exchange: Exchange): boolean
  /** Once, on its turn. */
  send(request: OutgoingRequest, exchange: Exchange, how: Sending): Sent
  /** Out of the line, or out of the way of the next. */
  leave(exchange: Exchange): void
  /** What becomes of the requests it gets, by which it is judged: a whole answer, or a failure, before its head or after. */
  answered(status: number): void
  failed(error: GatewayError): void
  /** Something has come from it. */
  heard(): void
  /** It may be unwell. */
  suspect(): void
  /** The head of an answer says when to come again. */
  refused(status: number, retryAfterMs: number): void
}

export interface TargetNews {
  readonly upstream: string
  readonly target: string
  readonly event: TargetEvent
  readonly why: string
}

export interface TargetSetup {
  readonly name: string
  readonly options: UpstreamOptions
  readonly connectMs: number
  /** Origins of targets that were out under the configuration before. */
  readonly out: ReadonlySet<string>
  readonly lookup: Lookup
  readonly tell: (news: TargetNews) => void
  /** Null: this instance stands alone. */
  readonly coolDowns: SharedCoolDowns | null
}
export class PooledTarget implements Target, Candidate, ConnectionOwner {
  readonly origin: URL
  readonly weight: number
  readonly alarms = new Alarms()
  readonly #maxConnections: number
  readonly #lifetimeMs: number
  readonly #connect: Connect
  /** Null: it is given by its address. */
  readonly #resolution: Resolution | null
  readonly #watch: TargetWatch
  readonly #onRest: () => void
  readonly #tellOthers: (restMs: number) => void
  readonly #stopHearing: () => void
  /** All that are open, or are being made. */
  readonly #connections = new Set<UpstreamConnection>()
  /** Those that have gone over to another protocol. They take no place of a request's; clients' connections bound them. */
  readonly #upgraded = new Set<UpstreamConnection>()
  /** The one used last at the end. */
  readonly #idle: UpstreamConnection[] = []
  readonly #idleLimit = new IdleLimit()
  /** In order of arrival; leaving it costs the same wherever one stands. */
  readonly #line = new Set<Exchange>()
  #busy = 0
  #isClosing = false
  #isDestroyed = false
  #whenUnused: (() => void) | null = null

  /** onRest: hears when it is to be left alone for a while, or for longer. */
  constructor(origin: URL, weight: number, setup: TargetSetup, onRest: () => void) {
    const { name, options, connectMs, out, lookup, tell } = setup
    this.#onRest = onRest
    this.origin = origin
    this.weight = weight
    this.#maxConnections = options.connections
    this.#lifetimeMs = options.connectionLifetime
    const tellOf = (event: TargetEvent, why: string): void =>
      tell({ upstream: name, target: origin.origin, event, why })
    const host = origin.hostname
    this.#resolution =
      net.isIP(host.replace(/^\[|\]$/g, '')) !== 0
        ? null
        : new Resolution({
            host,
            intervalMs: options.resolve,
            lookup,
            alarms: this.alarms,
            onChange: () => this.#onMoved(),
            tell: tellOf,
          })
    this.#connect = compileConnect(origin, connectMs, this.#resolution)
    this.#watch = new TargetWatch({
      origin,
      connect: this.#connect,
      alarms: this.alarms,
      health: options.health,
      breaker: options.breaker,
      refusals: options.refusals,
      isOut: out.has(origin.origin),
      load: () => this.#busy,
      tell: tellOf,
      onOut: (isMute) => this.#onOut(isMute),
    })
    const coolDowns = options.refusals.coolDown === 'off' ? null : setup.coolDowns
    const self = `${name} ${origin.origin}`
    this.#tellOthers = (restMs) => coolDowns?.tell(self, restMs)
    this.#stopHearing =
      coolDowns === null
        ? () => {}
        : coolDowns.hear(self, (restMs) => {
            if (this.#watch.rest(restMs) !== null) onRest()
          })
  }

  get isOut(): boolean {
    return this.#watch.isOut
  }

  /** Of its weight. */
  share(nowMs: number): number {
    return this.#watch.share(nowMs)
  }

  mayTake(nowMs: number): boolean {
    return this.#watch.mayTake(nowMs)
  }

  take(nowMs: number): void {
    this.#watch.take(nowMs)
  }

  waitMs(nowMs: number): number {
    return this.#watch.waitMs(nowMs)
  }

  refusal(nowMs: number): GatewayError {
    return this.#watch.refusal(nowMs)
  }

  get restsUntilMs(): number {
    return this.#watch.restsUntilMs
  }

  refused(status: number, retryAfterMs: number): void {
    const change = this.#watch.refused(status, retryAfterMs)
    if (change !== null) this.#onRest()
    if (change === 'news') this.#tellOthers(this.restsUntilMs - performance.now())
  }

  answered(status: number): void {
    this.#watch.answered(status)
  }

  heard(): void {
    this.#watch.heard()
  }

  suspect(): void {
    this.#watch.suspect()
  }

  failed(error: GatewayError): void {
    this.#watch.failed(error)
  }

  /** Requests on connections and in line, and WebSockets, which are work as well. */
  get load(): number {
    return this.#busy + this.#line.size + this.#upgraded.size
  }

  enter(exchange: Exchange): boolean {
    if (this.#busy < this.#maxConnections && this.#line.size === 0) {
      this.#busy++
      exchange.onTurn()
      return true
    }
    if (this.#line.size === MAX_WAITING) return false
    this.#line.add(exchange)
    return true
  }

  send(request: OutgoingRequest, exchange: Exchange, how: Sending): Sent {
    if (how !== 'checked') return this.#send(request, exchange, how === 'fresh')
    let sent: Sent | null = null
    let isGivenUp = false
    const afterLook = (): void => {
      if (!isGivenUp) sent = this.#send(request, exchange, false)
    }
    // The first runs before the next poll, the second behind it.
    setImmediate(() => setImmediate(afterLook))
    return {
      destroy() {
        isGivenUp = true
        sent?.destroy()
      },
    }
  }

  leave(exchange: Exchange): void {
    if (!this.#line.delete(exchange)) this.#busy--
    // Not at once: who leaves may be in the middle of reading its answer.
    if (this.#line.size > 0) queueMicrotask(() => this.#admit())
    else if (!this.#isUsed) this.#whenUnused?.()
  }

  status(): Omit<UpstreamRow['targets'][number], 'takes'> {
    const nowMs = performance.now()
    const restMs = this.restsUntilMs - nowMs
    return {
      url: this.origin.origin,
      weight: this.weight,
      state: this.isOut ? 'out' : this.#watch.isStarting(nowMs) ? 'starting' : 'up',
      breaker: this.#watch.breakerState(nowMs),
      cooling_until: restMs > 0 ? new Date(Date.now() + restMs).toISOString() : null,
      exits: this.#watch.exits,
      addresses: this.#resolution?.size ?? null,
      resolve_failures: this.#resolution?.failures ?? 0,
      open_connections: this.#connections.size + this.#upgraded.size,
      in_flight: this.#busy,
      queued: this.#line.size,
    }
  }

  async close(): Promise<void> {
    this.#isClosing = true
    this.#resolution?.close()
    this.#watch.close()
    this.#stopHearing()
    for (const connection of this.#idle.slice()) connection.destroy()
    if (!this.#isUsed) return
    await new Promise<void>((resolve) => {
      this.#whenUnused = resolve
    })
  }

  destroy(): void {
    this.#isClosing = this.#isDestroyed = true
    this.#resolution?.close()
    this.#watch.close()
    this.#stopHearing()
    for (const connection of [...this.#connections, ...this.#upgraded]) connection.fail(DRAINING)
  }

  // ---- its connections ----

  onFree(connection: UpstreamConnection): void {
    const nowMs = performance.now()
    if (this.#isClosing || this.#connections.size > this.#maxConnections || this.#isOld(connection, nowMs))
      return connection.destroy()
    connection.idleSinceMs = nowMs
    this.#idle.push(connection)
    this.alarms.set(connection, nowMs + Math.min(connection.keepMs, this.#idleLimit.keepMs(nowMs)))
  }

  onUpgraded(connection: UpstreamConnection): void {
    this.#connections.delete(connection)
    this.#upgraded.add(connection)
  }

  onLost({ idleSinceMs }: UpstreamConnection): void {
    const nowMs = performance.now()
    this.#idleLimit.closed(nowMs - idleSinceMs, nowMs)
  }

  onGone(connection: UpstreamConnection): void {
    this.#connections.delete(connection)
    if (this.#upgraded.delete(connection) && !this.#isUsed) this.#whenUnused?.()
    this.alarms.clear(connection)
    const at = this.#idle.lastIndexOf(connection)
    if (at >= 0) this.#idle.splice(at, 1)
  }

  get #isUsed(): boolean {
    return this.#busy > 0 || this.#line.size > 0 || this.#upgraded.size > 0
  }

  #admit(): void {
    for (const exchange of this.#line) {
      if (this.#busy === this.#maxConnections) return
      this.#line.delete(exchange)
      this.#busy++
      exchange.onTurn()
    }
  }

  #send(request: OutgoingRequest, exchange: Exchange, isLast: boolean): Sent {
    if (this.#isDestroyed) {
      exchange.onFailure(DRAINING)
      return NOTHING_SENT
    }
    const connection = (isLast ? null : this.#takeIdle()) ?? this.#open()
    connection.carry(request, exchange, isLast)
    return connection
  }

  #takeIdle(): UpstreamConnection | null {
    const nowMs = performance.now()
    for (let connection = this.#idle.pop(); connection !== undefined; connection = this.#idle.pop()) {
      this.alarms.clear(connection)
      if (connection.isUsable && !this.#isOld(connection, nowMs)) {
        this.#idleLimit.survived(nowMs - connection.idleSinceMs)
        return connection
      }
      connection.destroy()
    }
    return null
  }

  #open(): UpstreamConnection {
    if (this.#connections.size >= this.#maxConnections) this.#idle[0]?.destroy()
    const connection = new UpstreamConnection(this.#connect, this)
    this.#connections.add(connection)
    return connection
  }

  #isOld({ isRetired, openedAtMs }: UpstreamConnection, nowMs: number): boolean {
    return isRetired || nowMs - openedAtMs >= this.#lifetimeMs
  }

  /** Each that waits for it decides for itself whether it asks another. */
  #onOut(isMute: boolean): void {
    for (const exchange of this.#line) exchange.onTargetOut(isMute)
    for (const connection of this.#connections) connection.onTargetOut(isMute)
  }

  /** Its name has other addresses. Requests in flight end where they are; WebSockets stay. */
  #onMoved(): void {
    for (const connection of this.#connections) {
      const { remoteAddress } = connection
      if (remoteAddress === null || this.#resolution?.has(remoteAddress) !== true) connection.isRetired = true
    }
    for (const connection of this.#idle.slice()) if (connection.isRetired) connection.destroy()
  }
}

const NOTHING_SENT: Sent = { destroy() {} }
export const DRAINING = new GatewayError('draining', 'The gateway is shutting down.')
