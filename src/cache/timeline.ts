// When the events of a stored stream came, in as few bytes as it takes: for each step, how many bytes of events came, and
// how many milliseconds after the step before; both as LEB128. The first step is at 0: what came before it was the wait
// for the first event. Events of the same millisecond are one step.

/** Events that are due together. */
export interface Step {
  /** Where they end in the body. */
  readonly endBytes: number
  /** Since the first step. */
  readonly atMs: number
}

const FIRST_BYTES = 64
const MAX_VARINT_BYTES = 8

/** Written while a stream comes. */
export class TimelineWriter {
  #bytes = Buffer.allocUnsafe(FIRST_BYTES)
  #at = 0
  /** Of the step that is open: where it begins, where it ends, when it came, and that of the one before. */
  #fromBytes = 0
  #endBytes = 0
  #stepMs = 0
  #beforeMs: number | null = null

  /** Events up to here have come. nowMs: any clock; one that goes back stands still. */
  note(eventBytes: number, nowMs: number): void {
    if (eventBytes === this.#endBytes) return
    const wholeMs = Math.floor(nowMs)
    if (this.#endBytes > this.#fromBytes && wholeMs > this.#stepMs) this.#close()
    if (this.#endBytes === this.#fromBytes) this.#stepMs = Math.max(wholeMs, this.#beforeMs ?? wholeMs)
    this.#endBytes = eventBytes
  }

  /** In a buffer of its own. */
  finish(): Buffer {
    if (this.#endBytes > this.#fromBytes) this.#close()
    const timeline = Buffer.allocUnsafeSlow(this.#at)
    this.#bytes.copy(timeline, 0, 0, this.#at)
    return timeline
  }

  #close(): void {
    this.#put(this.#endBytes - this.#fromBytes)
    this.#put(this.#stepMs - (this.#beforeMs ?? this.#stepMs))
    this.#fromBytes = this.#endBytes
    this.#beforeMs = this.#stepMs
  }

  #put(value: number): void {
    if (this.#at + MAX_VARINT_BYTES > this.#bytes.length) {
      const larger = Buffer.allocUnsafe(2 * this.#bytes.length)
      this.#bytes.copy(larger, 0, 0, this.#at)
      this.#bytes = larger
    }
    let rest = value
    while (rest >= 0x80) {
      this.#bytes[this.#at++] = (rest % 0x80) + 0x80
      rest = Math.floor(rest / 0x80)
    }
    this.#bytes[this.#at++] = rest
  }
}

/** The steps of a body of so many bytes; null where this is not its timeline. */
export function readTimeline(timeline: Buffer, bodyBytes: number): readonly Step[] | null {
  const steps: Step[] = []
  let at = 0
  let endBytes = 0
  let atMs = 0
  const next = (): number => {
    let value = 0
    let unit = 1
    for (const end = Math.min(timeline.length, at + MAX_VARINT_BYTES); at < end; unit *= 0x80) {
      const byte = timeline[at++] as number
      value += (byte % 0x80) * unit
      if (byte < 0x80) return value
    }
    return NaN
  }
  while (at < timeline.length) {
    endBytes += next()
    atMs += next()
    if (!(endBytes <= bodyBytes && Number.isSafeInteger(atMs))) return null
    steps.push({ endBytes, atMs })
  }
  return endBytes === bodyBytes ? steps : null
}
