// How many requests an upstream has at the same time, over all its targets, and the line of those that wait for a place.
//
// The line is bounded in length and in time, and fair: clients take turns, however many requests each has in it. Where it
// is full, a client that has fewer in it than another takes the place of that one's last: whoever asks for everything at
// once keeps nobody out. Who would wait for too long, as places have come free of late, is not let into it: it is told at
// once when to come again. Of those, a client that has more than its share of the line is told that it is its own doing.
// While the upstream has asked to be left alone nobody gets a place; who has the time waits in line for the end of that.

import { type Alarm, Alarms } from '../core/alarms.ts'
import { GatewayError } from '../core/errors.ts'
import type { AdaptiveLimit } from './adaptive-limit.ts'
import { coolingDown } from './cool-down.ts'

export interface GateRules {
  readonly max: number
  /** Instead of max; null: that alone. */
  readonly adaptive: AdaptiveLimit | null
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
  /** That time is over. */
  onTooLate(): void
}

/** It stands in line. */
export interface Ticket {
  /** Leaves the line; nothing where it is not in it any more. */
  leave(): void
}

const MAX_RETRY_AFTER_SECONDS = 60
/** Weight of the last time for which a place was held. An upstream that is well again is believed sooner: who is refused
 *  for nothing has lost more than who waits in vain. */
const LONGER_WEIGHT = 0.1
const SHORTER_WEIGHT = 0.3

class Waiting implements Alarm, Ticket {
  dueMs = 0
  place = -1
  readonly guest: Guest
  readonly #gate: Gate
  /** Its own time ends before it has waited for as long as it might. */
  readonly #isShort: boolean

  constructor(gate: Gate, guest: Guest, isShort: boolean) {
    this.#gate = gate
    this.guest = guest
    this.#isShort = isShort
  }

  ring(): void {
    if (!this.#isShort) return this.#gate.refuse(this)
    this.#gate.forget(this)
    this.guest.onTooLate()
  }

  leave(): void {
    this.#gate.forget(this)
  }
}

export class Gate implements Alarm {
  dueMs = 0
  place = -1
  readonly #rules: GateRules
  readonly #alarms = new Alarms()
  /** By client, in the order of their turns; each one's in order of arrival. */
  readonly #lines = new Map<string, Set<Waiting>>()
  #taken = 0
  #waiting = 0
  /** For which a place was held of late, milliseconds, on average; null: none has come free. */
  #heldMs: number | null = null
  #restsUntilMs = -Infinity
  /** Requests that were refused for want of a place. */
  refused = 0

  constructor(rules: GateRules) {
    this.#rules = rules
  }

  /** What finds out how many places there are; null: that is known. */
  get adaptive(): AdaptiveLimit | null {
    return this.#rules.adaptive
  }

  /** Places that there are at present. */
  get limit(): number {
    return this.#rules.adaptive === null ? this.#rules.max : this.#rules.adaptive.limit
  }

  get taken(): number {
    return this.#taken
  }

  /** Whoever comes need not wait. */
  get hasRoom(): boolean {
    return this.#restMs() === 0 && this.#taken < this.limit && this.#waiting === 0
  }

  get waiting(): number {
    return this.#waiting
  }

  /** A place at once, or in line; null: onPlace or onRefused has been called already. */
  enter(guest: Guest): Ticket | null {
    if (this.hasRoom) {
      this.#taken++
      guest.onPlace()
      return null
    }
    const restMs = this.#restMs()
    const { client, longestWaitMs } = guest
    const { maxWaiting, waitMs } = this.#rules
    const patienceMs = Math.min(waitMs, longestWaitMs)
    if (restMs > patienceMs) {
      this.refused++
      guest.onRefused(coolingDown(restMs))
      return null
    }
    const mayWait = this.#mayComeInTime(client, patienceMs - restMs)
    if (!mayWait || (this.#waiting >= maxWaiting && !this.#makeRoom(client))) {
      this.refused++
      guest.onRefused(this.#refusal(client, mayWait ? maxWaiting : (patienceMs - restMs) / this.#paceMs))
      return null
    }
    const ticket = new Waiting(this, guest, longestWaitMs < waitMs)
    const line = this.#lines.get(client)
    if (line === undefined) this.#lines.set(client, new Set([ticket]))
    else line.add(ticket)
    this.#waiting++
    this.#alarms.set(ticket, performance.now() + patienceMs)
    return ticket
  }

  /** A place is free again. heldMs: for so long it was not. */
  leave(heldMs: number): void {
    this.#taken--
    this.#learn(heldMs)
    // Not at once: who leaves may be in the middle of reading its answer.
    if (this.#waiting > 0) queueMicrotask(() => this.#admit())
  }

  /** Nobody gets a place until then, by performance.now(); who cannot wait for so long is told so. */
  rest(untilMs: number): void {
    const restMs = untilMs - performance.now()
    if (restMs <= 0) return
    this.#restsUntilMs = untilMs
    // Timers fire up to a millisecond early.
    this.#alarms.set(this, untilMs + 1)
    for (const line of this.#lines.values()) {
      for (const ticket of line) if (ticket.dueMs < untilMs) this.refuse(ticket, coolingDown(restMs))
    }
  }

  /** The rest is over. */
  ring(): void {
    this.#restsUntilMs = -Infinity
    this.#admit()
  }

  #restMs(): number {
    return this.#restsUntilMs === -Infinity ? 0 : Math.max(0, this.#restsUntilMs - performance.now())
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

  refuse(ticket: Waiting, error: GatewayError = this.#saturated()): void {
    this.forget(ticket)
    this.refused++
    ticket.guest.onRefused(error)
  }

  #admit(): void {
    if (this.#restsUntilMs !== -Infinity) return
    for (const [client, line] of this.#lines) {
      if (this.#taken >= this.limit) return
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

  #learn(heldMs: number): void {
    const usualMs = this.#heldMs
    if (usualMs === null) this.#heldMs = heldMs
    else this.#heldMs = usualMs + (heldMs > usualMs ? LONGER_WEIGHT : SHORTER_WEIGHT) * (heldMs - usualMs)
  }

  /** Between two places that come free while all are taken, milliseconds, as far as one can tell. */
  get #paceMs(): number {
    return (this.#heldMs ?? 0) / this.limit
  }

  #mayComeInTime(client: string, patienceMs: number): boolean {
    const paceMs = this.#paceMs
    // What it costs to know its turn is only spent where that matters.
    return (this.#waiting + 1) * paceMs <= patienceMs || this.#turnOf(client) * paceMs <= patienceMs
  }

  /** How many places come free until the next of this client has one, if nobody else comes. */
  #turnOf(client: string): number {
    const own = this.#lines.get(client)?.size ?? 0
    let turn = 1
    for (const [other, line] of this.#lines) turn += other === client ? own : Math.min(line.size, own + 1)
    return turn
  }

  /** Takes the last of whoever has the most in line, if that is more than this client would have. */
  #makeRoom(client: string): boolean {
    let longest: Set<Waiting> | null = null
    for (const line of this.#lines.values()) if (longest === null || line.size > longest.size) longest = line
    const own = this.#lines.get(client)?.size ?? 0
    if (longest === null || longest.size <= own + 1) return false
    const last = [...longest].at(-1)
    if (last === undefined) return false
    this.refuse(last, this.#refusal(last.guest.client, this.#rules.maxWaiting, own === 0 ? 1 : 0))
    return true
  }

  /** room: how many may be in line. comers: clients that get in line just now. */
  #refusal(client: string, room: number, comers = 0): GatewayError {
    const own = this.#lines.get(client)?.size ?? 0
    const clients = this.#lines.size + comers
    // Alone in line it has taken nothing from anybody.
    if (clients > 1 && own * clients > room) {
      return new GatewayError(
        'share_exceeded',
        `This client has ${own} requests in line for the upstream, which is more than its share among ${clients} clients. Try again when some of them are answered.`,
        { retryAfterSeconds: this.#secondsFor(this.#turnOf(client)) },
      )
    }
    return this.#saturated()
  }

  #saturated(): GatewayError {
    return new GatewayError('saturated', 'The upstream has as many requests as it may have. Try again later.', {
      retryAfterSeconds: this.#secondsFor(this.#waiting + 1),
    })
  }

  /** Until so many places have come free. */
  #secondsFor(places: number): number {
    return Math.min(Math.max(1, Math.ceil((this.#paceMs * places) / 1000)), MAX_RETRY_AFTER_SECONDS)
  }
}
