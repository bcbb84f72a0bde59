// A bounded hash table from (owner, subject) to an entry, a small number that stands for it until it is removed.
//
// A Map is the tempting alternative. V8 interns every string that a hot Map is asked for, those it does not hold
// included, and frees them in full collections only: in a flood of five million made-up addresses the Map took twice
// the CPU, 80 MB more and pauses of 45 ms. Here a stranger leaves nothing behind, and nothing is ever rehashed.
//
// Layout: buckets of WAYS cells, filled from the left; a cell is 15 bits of the hash above entry + 1, or 0. A look-up
// reads one bucket and no more, so nobody can choose subjects that make it slow: a bucket that is full is no room
// (chance fills one in 10^8 full tables). The hash is seeded, so nobody can choose who shares a bucket either.

import { randomInt } from 'node:crypto'

const WAYS = 32
const BUCKETS = 2 ** 14
const ENTRY_BITS = 17
const ENTRY_MASK = 2 ** ENTRY_BITS - 1

export const NO_ENTRY = -1

export class SubjectTable<Owner> {
  readonly #capacity: number
  readonly #seed = randomInt(2 ** 32)
  readonly #cells = new Int32Array(BUCKETS * WAYS)
  readonly #owners: (Owner | null)[] = []
  readonly #subjects: string[] = []
  readonly #free: number[] = []

  /** capacity: entries, at most 131,071. */
  constructor(capacity: number) {
    this.#capacity = capacity
  }

  /** Entries in use. */
  get size(): number {
    return this.#owners.length - this.#free.length
  }

  /** Entries below this have been in use; each is or has been. */
  get highWater(): number {
    return this.#owners.length
  }

  /** 32 bits (FNV-1a, finished as MurmurHash3) from which the other calls know the bucket. salt: the owner's own. */
  hash(subject: string, salt: number): number {
    let state = this.#seed ^ salt
    for (let i = 0; i < subject.length; i++) state = Math.imul(state ^ subject.charCodeAt(i), 0x01000193)
    state = Math.imul(state ^ (state >>> 16), 0x85ebca6b)
    state = Math.imul(state ^ (state >>> 13), 0xc2b2ae35)
    return state ^ (state >>> 16)
  }

  /** The entry, or NO_ENTRY. */
  find(hash: number, owner: Owner, subject: string): number {
    const start = (hash & (BUCKETS - 1)) * WAYS
    for (let i = start; i < start + WAYS; i++) {
      const cell = this.#cells[i] as number
      if (cell === 0) return NO_ENTRY
      if ((cell ^ hash) >>> ENTRY_BITS !== 0) continue
      const entry = (cell & ENTRY_MASK) - 1
      if (this.#owners[entry] === owner && this.#subjects[entry] === subject) return entry
    }
    return NO_ENTRY
  }

  /** True when a further `count` entries fit, and one of them with this hash. */
  hasRoom(hash: number, count: number): boolean {
    return this.size + count <= this.#capacity && this.#cells[(hash & (BUCKETS - 1)) * WAYS + WAYS - 1] === 0
  }

  /** Adds what find() did not find and hasRoom() has room for. */
  add(hash: number, owner: Owner, subject: string): number {
    const entry = this.#free.pop() ?? this.#owners.length
    this.#owners[entry] = owner
    // A copy: the text may be a slice of a whole header field, which V8 would keep alive with it.
    this.#subjects[entry] = ` ${subject}`.slice(1)
    let i = (hash & (BUCKETS - 1)) * WAYS
    while (this.#cells[i] !== 0) i++
    this.#cells[i] = (hash & ~ENTRY_MASK) | (entry + 1)
    return entry
  }

  /** null: not in use. */
  ownerOf(entry: number): Owner | null {
    return this.#owners[entry] ?? null
  }

  /** Removes an entry in use. salt: its owner's. */
  remove(entry: number, salt: number): void {
    const start = (this.hash(this.#subjects[entry] as string, salt) & (BUCKETS - 1)) * WAYS
    let found = start
    while (((this.#cells[found] as number) & ENTRY_MASK) - 1 !== entry) found++
    let last = found
    while (last + 1 < start + WAYS && this.#cells[last + 1] !== 0) last++
    this.#cells[found] = this.#cells[last] as number
    this.#cells[last] = 0
    this.#owners[entry] = null
    this.#subjects[entry] = ''
    this.#free.push(entry)
  }
}
