// How many requests an upstream has at the same time, over all its targets, and the line of those that wait for a place.
//
// The line is bounded in length and in time, and fair: clients take turns, however many requests each has in it. Where it
// is full, a client that has fewer in it than another takes the place of that one's last: whoever asks for everything at
// once keeps nobody out.

import { type Alarm, Alarms } from '../core/alarms.ts'
import { GatewayError } from '../core/errors.ts'

export interface GateRules {
  readonly max: number
  readonly maxWaiting: number
  readonly waitMs: number
}

/** A request that wants a place. Exactly one of these is called, once, unless it leaves the line before. */
export interface Guest {
  /** Whose request it is. */
  readonly client: string
  /** It has no use for a place after so many milliseconds. */
  readonly longestWaitMs: number
  onPlace(): void
  onRefused(error: GatewayError): void
}

/** It stands in line. */
export interface Ticket {
  /** Leaves the line; nothing where it is not in it any more. */
  leave(): void
}

/** Longest Retry-After that is made of the pace, in seconds. */
const MAX_RETRY_AFTER_SECONDS = 60
/** Weight of the last interval between two places that came free. */
const PACE_WEIGHT = 0.2

class Waiting implements Alarm, Ticket {
  dueMs = 0
  place = -1
  readonly guest: Guest
  readonly #gate: Gate

  constructor(gate: Gate, guest: Guest) {
    this.#gate = gate
    this.guest = guest
  }

  ring(): void {
    this.#gate.refuse(this)
  }

  leave(): void {
    this.#gate.forget(this)
  }
}

export class Gate {
  readonly #rules: GateRules
  readonly #alarms = new Alarms()
  /** By client, in the order of their turns; each one's in order of arrival. */
  readonly #lines = new Map<string, Set<Waiting>>()
  #taken = 0
  #waiting = 0
  /** Between two places that come free while somebody waits, milliseconds, on average. */
  #paceMs = 0
  #freedAtMs = 0
  /** Requests that were refused for want of a place. */
  refused = 0

  constructor(rules: GateRules) {
    this.#rules = rules
  }

  get taken(): number {
    return this.#taken
  }

  get waiting(): number {
    return this.#waiting
  }

  /** A place at once, or in line; null: onPlace or onRefused has been called already. */
  enter(guest: Guest): Ticket | null {
    if (this.#taken < this.#rules.max && this.#waiting === 0) {
      this.#taken++
      guest.onPlace()
      return null
    }
    if (this.#waiting >= this.#rules.maxWaiting && !this.#makeRoom(guest.client)) {
      this.refused++
      guest.onRefused(this.#saturated())
      return null
    }
    const ticket = new Waiting(this, guest)
    const line = this.#lines.get(guest.client)
    if (line === undefined) this.#lines.set(guest.client, new Set([ticket]))
    else line.add(ticket)
    this.#waiting++
    this.#alarms.set(ticket, performance.now() + Math.min(this.#rules.waitMs, guest.longestWaitMs))
    return ticket
  }

  /** A place is free again. */
  leave(): void {
    this.#taken--
    const nowMs = performance.now()
    if (this.#waiting > 0) {
      const sinceMs = nowMs - this.#freedAtMs
      this.#paceMs = this.#paceMs === 0 ? sinceMs : this.#paceMs + PACE_WEIGHT * (sinceMs - this.#paceMs)
      // Not at once: who leaves may be in the middle of reading its answer.
      queueMicrotask(() => this.#admit())
    }
    this.#freedAtMs = nowMs
  }

  /** Nobody is let in any more. */
  close(error: GatewayError): void {
    for (const line of this.#lines.values()) {
      for (const ticket of line) {
        this.forget(ticket)
        ticket.guest.onRefused(error)
      }
    }
  }

  forget(ticket: Waiting): void {
    const { client } = ticket.guest
    const line = this.#lines.get(client)
    if (line?.delete(ticket) !== true) return
    if (line.size === 0) this.#lines.delete(client)
    this.#waiting--
    this.#alarms.clear(ticket)
  }

  refuse(ticket: Waiting): void {
    this.forget(ticket)
    this.refused++
    ticket.guest.onRefused(this.#saturated())
  }

  #admit(): void {
    for (const [client, line] of this.#lines) {
      if (this.#taken >= this.#rules.max) return
      const [ticket] = line
      if (ticket === undefined) continue
      this.forget(ticket)
      // Whoever has more waits for all others first; this loop comes to it again.
      if (line.size > 0) {
        this.#lines.delete(client)
        this.#lines.set(client, line)
      }
      this.#taken++
      ticket.guest.onPlace()
    }
  }

  /** Takes the last of whoever has the most in line, if that is more than this client would have. */
  #makeRoom(client: string): boolean {
    let longest: Set<Waiting> | null = null
    for (const line of this.#lines.values()) if (longest === null || line.size > longest.size) longest = line
    const own = this.#lines.get(client)?.size ?? 0
    if (longest === null || longest.size <= own + 1) return false
    const last = [...longest].at(-1)
    if (last !== undefined) this.refuse(last)
    return true
  }

  #saturated(): GatewayError {
    const waitSeconds = Math.ceil((this.#paceMs * (this.#waiting + 1)) / 1000)
    return new GatewayError('saturated', 'The upstream has as many requests as it may have. Try again later.', {
      retryAfterSeconds: Math.min(Math.max(1, waitSeconds), MAX_RETRY_AFTER_SECONDS),
    })
  }
}
