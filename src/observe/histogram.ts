// Latencies as counts in log-linear buckets: each doubling of time is cut into 32 equal parts, so a bucket is at most
// 3.2 % wide and a quantile at most 1.6 % off, from 8 us (below that, in steps of 0.25 us) to 10 minutes.
//
// A latency is counted in units of 0.25 us, which fit 32 bits. Page 0 holds units 0 to 31, page p the units from
// 2^(p+4) to 2^(p+5). Pages come with their first value and are plain arrays: a route lives in a few doublings, so it
// takes about 2 KiB (272 bytes a page, 28 pages at most), and a count turns into a double before it could wrap.

const UNITS_PER_MS = 4000
const PAGES = 28
const PARTS = 32

/** Longest latency that is told apart, in milliseconds; longer ones count as this. */
export const MAX_LATENCY_MS = 600_000

export class Histogram {
  #pages: (number[] | null)[] = Array.from({ length: PAGES }, () => null)
  #sumMs = 0
  #maxMs = 0
  #count = 0

  /** Counts one latency. Anything that is no positive number counts as 0. */
  observe(latencyMs: number): void {
    const ms = latencyMs > 0 ? (latencyMs < MAX_LATENCY_MS ? latencyMs : MAX_LATENCY_MS) : 0
    const units = (ms * UNITS_PER_MS) >>> 0
    const page = units < PARTS ? 0 : 27 - Math.clz32(units)
    const parts = this.#pages[page] ?? this.#addPage(page)
    const part = page === 0 ? units : (units >>> (page - 1)) & (PARTS - 1)
    parts[part] = (parts[part] as number) + 1
    this.#sumMs += ms
    if (ms > this.#maxMs) this.#maxMs = ms
    this.#count++
  }

  get count(): number {
    return this.#count
  }

  /** Milliseconds; exact. 0 where nothing was counted. */
  get meanMs(): number {
    return this.#count === 0 ? 0 : this.#sumMs / this.#count
  }

  /** Milliseconds; exact. 0 where nothing was counted. */
  get maxMs(): number {
    return this.#maxMs
  }

  /** The latency, in milliseconds, that a share q (0 to 1) of all counted did not exceed. 0 where nothing was counted. */
  quantileMs(q: number): number {
    let rest = Math.max(1, Math.ceil(q * this.#count))
    for (const [page, parts] of this.#pages.entries()) {
      if (parts === null) continue
      for (const [part, count] of parts.entries()) {
        rest -= count
        if (rest <= 0) return Math.min(middleMs(page, part), this.#maxMs)
      }
    }
    return 0
  }

  /** Adds all that the other has counted. */
  merge(other: Histogram): void {
    for (const [page, added] of other.#pages.entries()) {
      if (added === null) continue
      const parts = this.#pages[page] ?? this.#addPage(page)
      for (const [part, count] of added.entries()) parts[part] = (parts[part] as number) + count
    }
    this.#sumMs += other.#sumMs
    this.#maxMs = Math.max(this.#maxMs, other.#maxMs)
    this.#count += other.#count
  }

  #addPage(page: number): number[] {
    const parts = Array.from({ length: PARTS }, () => 0)
    this.#pages[page] = parts
    return parts
  }
}

/** The middle of a bucket: what a value in it is off by is half the bucket's width at most. */
function middleMs(page: number, part: number): number {
  const units = page === 0 ? part + 0.5 : (PARTS + part + 0.5) * 2 ** (page - 1)
  return units / UNITS_PER_MS
}
