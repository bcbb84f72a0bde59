// A bounded hash table from (owner, subject) to an entry, a small number that stands for it until it is removed. It keeps
// no subject, only 64 bits of its keyed hash (core/keyed-hash.ts), which nobody can make the same for two.
//
// A Map of texts is the tempting alternative. V8 interns every string that a hot Map is asked for, those it does not hold
// included, and frees them in full collections only: in a flood of five million made-up addresses the Map took twice
// the CPU, 80 MB more and pauses of 45 ms. Here a stranger leaves nothing behind, and nothing is ever rehashed.
//
// Layout: buckets of WAYS cells, filled from the left; a cell is 15 bits of the hash above entry + 1, or 0. A look-up
// reads one bucket and no more, so nobody can choose subjects that make it slow: a bucket that is full is no room
// (chance fills one in 10^8 full tables).

import { KeyedHash } from '../../core/keyed-hash.ts'

const WAYS = 32
const BUCKETS = 2 ** 14
const ENTRY_BITS = 17
const ENTRY_MASK = 2 ** ENTRY_BITS - 1

export const NO_ENTRY = -1

export class SubjectTable<Owner> {
  /** Gives the two halves of a hash, `low` and `high`, that the calls below go by. salt: the owner's own. */
  readonly hash = new KeyedHash()
  readonly #capacity: number
  readonly #cells = new Int32Array(BUCKETS * WAYS)
  readonly #lows: Int32Array
  readonly #highs: Int32Array
  readonly #owners: (Owner | null)[] = []
  readonly #free: number[] = []

  /** capacity: entries, at most 131,071. */
  constructor(capacity: number) {
    this.#capacity = capacity
    this.#lows = new Int32Array(capacity)
    this.#highs = new Int32Array(capacity)
  }

  /** Entries in use. */
  get size(): number {
    return this.#owners.length - this.#free.length
  }

  /** Entries below this have been in use; each is or has been. */
  get highWater(): number {
    return this.#owners.length
  }

  /** The entry, or NO_ENTRY. */
  find(low: number, high: number, owner: Owner): number {
    const start = (low & (BUCKETS - 1)) * WAYS
    for (let i = start; i < start + WAYS; i++) {
      const cell = this.#cells[i] as number
      if (cell === 0) return NO_ENTRY
      if ((cell ^ low) >>> ENTRY_BITS !== 0) continue
      const entry = (cell & ENTRY_MASK) - 1
      if (this.#lows[entry] === low && this.#highs[entry] === high && this.#owners[entry] === owner) return entry
    }
    return NO_ENTRY
  }

  /** True when a further `count` entries fit, and one of them with this hash. */
  hasRoom(low: number, count: number): boolean {
    return this.size + count <= this.#capacity && this.#cells[(low & (BUCKETS - 1)) * WAYS + WAYS - 1] === 0
  }

  /** Adds what find() did not find and hasRoom() has room for. */
  add(low: number, high: number, owner: Owner): number {
    const entry = this.#free.pop() ?? this.#owners.length
    this.#owners[entry] = owner
    this.#lows[entry] = low
    this.#highs[entry] = high
    let i = (low & (BUCKETS - 1)) * WAYS
    while (this.#cells[i] !== 0) i++
    this.#cells[i] = (low & ~ENTRY_MASK) | (entry + 1)
    return entry
  }

  /** null: not in use. */
  ownerOf(entry: number): Owner | null {
    return this.#owners[entry] ?? null
  }

  /** Removes an entry in use. */
  remove(entry: number): void {
    const start = ((this.#lows[entry] as number) & (BUCKETS - 1)) * WAYS
    let found = start
    while (((this.#cells[found] as number) & ENTRY_MASK) - 1 !== entry) found++
    let last = found
    while (last + 1 < start + WAYS && this.#cells[last + 1] !== 0) last++
    this.#cells[found] = this.#cells[last] as number
    this.#cells[last] = 0
    this.#owners[entry] = null
    this.#free.push(entry)
  }
}
