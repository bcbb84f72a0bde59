// What the script has answered: who is admitted, and from the records that it decided by, how each subject stands. Redis
// tells a record once, as it was before the requests; what these have taken is charged here again, by the same rules and at
// the same time. So Redis, which has one thread for all instances, reckons and writes no standing for anybody.

import type { Standing } from '../algorithm.ts'
import { ALGORITHMS, type Quota } from '../quota.ts'

const STRIDE = Math.max(...ALGORITHMS.map((algorithm) => algorithm.cells))
const TIME_BYTES = 8
/** Of an entry, see redis-script.ts. */
const LENGTH_AT = 4
const BORN_AT = 9
const HEAD_BYTES = 13
const END_BYTES = 4
const MOST = 2 ** 32 - 1

/** Redis' time of a reply, ms. */
export const timeOf = (bytes: Buffer): number => bytes.readDoubleLE(0)

export class Reply {
  readonly nowMs: number
  /** Of the request at hand. */
  isAdmitted = false
  #hasAllRoom = false
  readonly #bytes: Buffer
  #at = TIME_BYTES
  readonly #quotas: readonly Quota[]
  /** Of each quota, the first with its number: they share their entries. */
  readonly #owners: readonly number[]
  /** By place: what the entry says, zeros where there is none. */
  readonly #cells: Float64Array
  readonly #born: Float64Array

  /** quotas: of the call, which has so many keys. told: the keys whose records it answers, from 1 on, in their order. */
  constructor(bytes: Buffer, quotas: readonly Quota[], keys: number, told: Iterable<number>) {
    this.nowMs = timeOf(bytes)
    this.#bytes = bytes
    this.#quotas = quotas
    this.#owners = quotas.map(({ number }) => quotas.findIndex((quota) => quota.number === number))
    this.#cells = new Float64Array(keys * quotas.length * STRIDE)
    this.#born = new Float64Array(keys * quotas.length)
    for (const key of told) this.#readRecord(key)
  }

  #readRecord(key: number): void {
    const bytes = this.#bytes
    for (let number = bytes.readUInt32LE(this.#at); number !== 0; number = bytes.readUInt32LE(this.#at)) {
      const endAt = this.#at + HEAD_BYTES + (bytes[this.#at + LENGTH_AT] as number)
      const owner = this.#quotas.findIndex((quota) => quota.number === number)
      if (owner >= 0) {
        const place = this.place(key, owner + 1)
        const { lua } = (this.#quotas[owner] as Quota).algorithm
        this.#born[place] = bytes.readUInt32LE(this.#at + BORN_AT)
        lua.read(bytes, this.#at + HEAD_BYTES, endAt, this.#cells, place * STRIDE)
      }
      this.#at = endAt
    }
    this.#at += END_BYTES
  }

  /** Where a subject is counted; both from 1 on. */
  place(key: number, quota: number): number {
    return (key - 1) * this.#quotas.length + (this.#owners[quota - 1] as number)
  }

  /** Turns to the next request. */
  next(): void {
    this.#hasAllRoom = this.#bytes[this.#at++] === 1
    // One without policies has room.
    this.isAdmitted = this.#hasAllRoom || ((this.#bytes[this.#at] as number) & 2) !== 0
  }

  /** Of the policies of the request, in their order: whether the cost fits. Once for each. */
  nextHasRoom(): boolean {
    return this.#hasAllRoom || ((this.#bytes[this.#at++] as number) & 1) !== 0
  }

  /** Takes what Redis has taken. */
  charge(place: number, { algorithm, rate }: Quota, cost: number): void {
    algorithm.charge(this.#cells, place * STRIDE, rate, cost, this.nowMs)
    if (this.#born[place] === 0) this.#born[place] = (this.nowMs % MOST) + 1
  }

  measure(place: number, { algorithm, rate }: Quota, cost: number, standing: Standing): void {
    algorithm.measure(this.#cells, place * STRIDE, rate, cost, this.nowMs, standing)
  }

  /** When the entry was made, as a number that tells it from others; 0: not yet. */
  bornOf(place: number): number {
    return this.#born[place] as number
  }
}
