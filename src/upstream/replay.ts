// A request body kept while it goes out, so that it can be sent once more: whole or not at all, and up to 64 KiB.

import type { Readable } from 'node:stream'

export const MAX_REPLAY_BYTES = 64 * 1024

export class Replay {
  #chunks: Buffer[] | null = []
  #bytes = 0
  #isWhole = false

  /** stream: nobody reads it yet, and nothing is read by this. */
  constructor(stream: Readable) {
    stream.pause()
    stream
      .on('data', (chunk: Buffer) => this.#keep(chunk))
      .on('end', () => {
        this.#isWhole = true
      })
  }

  /** All of it; null where it has not come whole, or was too long. */
  get bytes(): Buffer | null {
    return this.#isWhole && this.#chunks !== null ? Buffer.concat(this.#chunks, this.#bytes) : null
  }

  #keep(chunk: Buffer): void {
    if (this.#chunks === null) return
    this.#bytes += chunk.length
    if (this.#bytes <= MAX_REPLAY_BYTES) this.#chunks.push(chunk)
    else this.#chunks = null
  }
}
