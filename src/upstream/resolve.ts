// The addresses of a target that is given by a name, as far as they are known. A name is looked up when its first connection
// is made, and again from time to time, since the system tells nobody how long its answers are good for; sooner where a
// connection could not be made. No connection waits for that: while there is no newer answer, the last one counts, and a
// look-up that fails changes nothing. New connections begin with each of several addresses in turn, and go on to the others
// where that one does not answer.

import dns from 'node:dns'
import type { LookupFunction } from 'node:net'
import type { Alarm, Alarms } from '../core/alarms.ts'

export interface Address {
  readonly address: string
  readonly family: number
}

/** Finds all addresses of a name. done: called once, not before this returns. */
export type Lookup = (host: string, done: (error: Error | null, addresses: readonly Address[]) => void) => void

/** By the system's rules: hosts file, search domains and all. */
export const systemLookup: Lookup = (host, done) =>
  dns.lookup(host, { all: true }, (error, addresses) => done(error, error === null ? addresses : []))

export interface ResolutionSetup {
  readonly host: string
  readonly intervalMs: number
  readonly lookup: Lookup
  readonly alarms: Alarms
  /** There are others now than before. */
  readonly onChange: () => void
  /** Look-ups have begun to fail, or work again. */
  readonly tell: (event: 'unresolved' | 'resolved', why: string) => void
}

/** Between two look-ups, where connections fail. */
const MIN_PAUSE_MS = 1000
const JITTER = 0.1
/** Connections that wait for the first answer. Those that are given up meanwhile count: nobody tells of that. */
const MAX_WAITING = 1024

export class Resolution implements Alarm {
  dueMs = 0
  place = -1
  /** Look-ups that have failed. */
  failures = 0
  readonly #setup: ResolutionSetup
  #addresses: readonly Address[] = []
  #known: ReadonlySet<string> = new Set()
  /** With which address the next connection begins. */
  #turn = 0
  #waiting: ((error: Error | null) => void)[] = []
  #isAsking = false
  #askedAtMs = 0
  #isFailing = false
  #isClosed = false

  constructor(setup: ResolutionSetup) {
    this.#setup = setup
  }

  /** How many there are; 0: nobody has asked yet. */
  get size(): number {
    return this.#addresses.length
  }

  /** An address that the name still has. */
  has(address: string): boolean {
    return this.#known.has(plain(address))
  }

  /** For net.connect. */
  readonly lookup: LookupFunction = (_host, options, callback) => {
    const answer = (error: Error | null): void => {
      const [first] = this.#addresses
      if (error !== null || first === undefined) callback(error ?? new Error(`no address of ${this.#setup.host}`), [])
      else if (options.all === true) callback(null, this.#inTurn())
      else callback(null, first.address, first.family)
    }
    if (this.#addresses.length > 0) return process.nextTick(answer, null)
    if (this.#waiting.length >= MAX_WAITING)
      return process.nextTick(answer, new Error('too many wait for its addresses'))
    this.#waiting.push(answer)
    this.#ask()
  }

  /** A connection could not be made: it may have other addresses by now. */
  doubt(): void {
    const dueMs = this.#askedAtMs + MIN_PAUSE_MS
    if (this.place >= 0 && dueMs < this.dueMs) this.#setup.alarms.set(this, Math.max(dueMs, performance.now()))
  }

  ring(): void {
    this.#ask()
  }

  close(): void {
    this.#isClosed = true
    this.#setup.alarms.clear(this)
  }

  #inTurn(): Address[] {
    const at = this.#turn++ % this.#addresses.length
    return [...this.#addresses.slice(at), ...this.#addresses.slice(0, at)]
  }

  #ask(): void {
    if (this.#isAsking) return
    this.#isAsking = true
    this.#askedAtMs = performance.now()
    this.#setup.lookup(this.#setup.host, (error, addresses) => {
      this.#isAsking = false
      if (error === null && addresses.length > 0) this.#take(addresses)
      else this.#fail(error)
      const waiting = this.#waiting
      this.#waiting = []
      for (const answer of waiting) answer(error)
      if (this.#isClosed || this.#addresses.length === 0) return
      const spread = 1 + JITTER * (2 * Math.random() - 1)
      this.#setup.alarms.set(this, performance.now() + this.#setup.intervalMs * spread)
    })
  }

  #take(addresses: readonly Address[]): void {
    if (this.#isFailing) {
      this.#isFailing = false
      this.#setup.tell('resolved', 'its name has addresses again')
    }
    const known = new Set(addresses.map(({ address }) => plain(address)))
    const isSame = known.size === this.#known.size && [...known].every((address) => this.#known.has(address))
    if (isSame) return
    const isFirst = this.#addresses.length === 0
    this.#addresses = addresses
    this.#known = known
    if (!isFirst) this.#setup.onChange()
  }

  #fail(error: Error | null): void {
    this.failures++
    if (this.#isFailing) return
    this.#isFailing = true
    this.#setup.tell('unresolved', error?.message ?? 'its name has no address')
  }
}

/** Without the interface that a link-local one may name. */
const plain = (address: string): string => address.replace(/%.*$/, '')
