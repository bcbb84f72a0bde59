// The keys that this instance remembers, with what has become of their requests; bounded in number and in the bytes of the
// answers. Where answers take too much, the oldest goes and its key stays: a repeat is then refused, not sent again. Where
// there are too many keys, the oldest is forgotten. A request under way is never forgotten.
//
// Keys that have expired are found by who asks for them, and some by each new key, so that no timer has to.

import type { Answer } from './answer.ts'
import { sizeOf } from './answer.ts'
import type { Ending } from './ending.ts'

export interface UnderWay {
  readonly state: 'running'
  readonly ended: Promise<Ending>
  /** Until it is known whether the key is that of this request, for all instances; null: it is. */
  claiming: Promise<void> | null
}

export type Standing =
  | UnderWay
  | { readonly state: 'answered'; readonly answer: Answer }
  /** It was carried out; its answer was too large, or had no proper end, or has had to go. */
  | { readonly state: 'not_kept' }
  | { readonly state: 'unknown' }

export interface Kept {
  readonly fingerprint: string
  readonly standing: Standing
}

interface Entry {
  readonly fingerprint: string
  standing: Standing
  expiresAtMs: number
  /** Of its answer. */
  bytes: number
}

export interface TableBounds {
  readonly maxBytes: number
  readonly maxKeys: number
}

/** Entries looked at with each new key: expired ones go faster than new ones come. */
const LOOKED_AT = 4
/** Of all, in one turn of the event loop. */
const LOOKED_AT_ONCE = 10_000

export class KeyTable {
  readonly #now: () => number
  #bounds: TableBounds
  /** Oldest first. */
  readonly #entries = new Map<string, Entry>()
  /** Those with an answer, oldest first. */
  readonly #answered = new Map<string, Entry>()
  #cursor: Iterator<[string, Entry]> | null = null
  #bytes = 0
  #dropped = { answers: 0, keys: 0 }

  /** now: wall clock, milliseconds. */
  constructor(bounds: TableBounds, now: () => number) {
    this.#bounds = bounds
    this.#now = now
  }

  get keys(): number {
    return this.#entries.size
  }

  get bytes(): number {
    return this.#bytes
  }

  /** What had to go before its time. */
  get dropped(): Readonly<Record<'answers' | 'keys', number>> {
    return this.#dropped
  }

  resize(bounds: TableBounds): void {
    this.#bounds = bounds
    this.#makeRoom(0)
    while (this.#entries.size > bounds.maxKeys && this.#forgetOldest()) continue
  }

  find(id: string): Kept | null {
    const entry = this.#entries.get(id)
    if (entry === undefined) return null
    if (entry.expiresAtMs > this.#now()) return entry
    this.#remove(id, entry)
    return null
  }

  /** Remembers a request that begins, in the place of what was known of its key. Null where as many are under way as may
   *  be remembered. */
  begin(id: string, fingerprint: string, standing: UnderWay): Kept | null {
    const before = this.#entries.get(id)
    if (before !== undefined) this.#remove(id, before)
    this.#lookAround()
    if (this.#entries.size >= this.#bounds.maxKeys && !this.#forgetOldest()) return null
    const entry: Entry = { fingerprint, standing, expiresAtMs: Infinity, bytes: 0 }
    this.#entries.set(id, entry)
    return entry
  }

  /** What has become of a request that was begun; null: nothing, its key is free. */
  settle(id: string, kept: Kept, standing: Standing | null, forMs: number): void {
    const entry = this.#entries.get(id)
    if (entry === undefined || entry !== kept) return
    this.#remove(id, entry)
    if (standing === null) return
    entry.standing = standing
    entry.expiresAtMs = this.#now() + forMs
    if (standing.state === 'answered') {
      const bytes = sizeOf(standing.answer)
      if (this.#makeRoom(bytes)) {
        entry.bytes = bytes
        this.#bytes += bytes
        this.#answered.set(id, entry)
      } else this.#letGo(entry)
    }
    this.#entries.set(id, entry)
  }

  /** Forgets those of the requests at hand whose ids begin so and of which nobody knows what became of them; answers their ids. */
  async free(name: string): Promise<string[]> {
    const freed: string[] = []
    let left = this.#entries.size
    for (const [id, entry] of this.#entries) {
      if (id.startsWith(name) && entry.standing.state === 'unknown') {
        this.#remove(id, entry)
        freed.push(id)
      }
      // What comes meanwhile stands at the end.
      if (--left === 0) break
      if (left % LOOKED_AT_ONCE === 0) await new Promise(setImmediate)
    }
    return freed
  }

  /** Counts bytes of answers that are being recorded. False where there is no room, and nothing is counted then. */
  hold(bytes: number): boolean {
    if (!this.#makeRoom(bytes)) return false
    this.#bytes += bytes
    return true
  }

  release(bytes: number): void {
    this.#bytes -= bytes
  }

  #makeRoom(bytes: number): boolean {
    const { maxBytes } = this.#bounds
    for (const [id, entry] of this.#answered) {
      if (this.#bytes + bytes <= maxBytes) break
      this.#answered.delete(id)
      this.#letGo(entry)
    }
    return this.#bytes + bytes <= maxBytes
  }

  #letGo(entry: Entry): void {
    entry.standing = NOT_KEPT
    this.#bytes -= entry.bytes
    entry.bytes = 0
    this.#dropped.answers++
  }

  #remove(id: string, entry: Entry): void {
    this.#entries.delete(id)
    this.#answered.delete(id)
    this.#bytes -= entry.bytes
    entry.bytes = 0
  }

  #forgetOldest(): boolean {
    for (const [id, entry] of this.#entries) {
      if (entry.standing.state === 'running') continue
      this.#remove(id, entry)
      if (entry.expiresAtMs > this.#now()) this.#dropped.keys++
      return true
    }
    return false
  }

  #lookAround(): void {
    const nowMs = this.#now()
    for (let i = 0; i < LOOKED_AT; i++) {
      this.#cursor ??= this.#entries.entries()
      const next = this.#cursor.next()
      if (next.done === true) {
        this.#cursor = null
        return
      }
      const [id, entry] = next.value
      if (entry.expiresAtMs <= nowMs) this.#remove(id, entry)
    }
  }
}

const NOT_KEPT: Standing = { state: 'not_kept' }
