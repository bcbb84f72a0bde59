// How often something happened within the last while. The window slides by tenths, so what is counted is of the whole window
// but for a tenth of it at most.

const SLICES = 10

export class SlidingCount {
  readonly #sliceMs: number
  readonly #counts = new Uint32Array(SLICES)
  #slice = 0

  constructor(windowMs: number) {
    this.#sliceMs = windowMs / SLICES
  }

  add(nowMs: number): void {
    this.#turn(nowMs)
    const slot = this.#slice % SLICES
    this.#counts[slot] = (this.#counts[slot] as number) + 1
  }

  within(nowMs: number): number {
    this.#turn(nowMs)
    let sum = 0
    for (const count of this.#counts) sum += count
    return sum
  }

  clear(): void {
    this.#counts.fill(0)
  }

  /** Never back: whoever comes with an older time is counted in the latest slice. */
  #turn(nowMs: number): void {
    const slice = Math.floor(nowMs / this.#sliceMs)
    if (slice <= this.#slice) return
    for (let past = Math.max(this.#slice + 1, slice - SLICES + 1); past <= slice; past++)
      this.#counts[past % SLICES] = 0
    this.#slice = slice
  }
}
