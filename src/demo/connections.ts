// The few database connections that all requests of a backend share: a semaphore with a bounded, first come first served
// queue. This is what makes the presentation service slow under load: with every connection busy, requests wait here.

export class ConnectionPool {
  #free: number
  readonly #maxWaiting: number
  // Insertion order is the queue; a set lets a client that has gone leave from the middle in one step.
  readonly #waiting = new Set<() => void>()

  constructor(size: number, maxWaiting: number) {
    this.#free = size
    this.#maxWaiting = maxWaiting
  }

  /** Waits for a connection; false at once when maxWaiting requests wait already. Whoever got true must release().
   *  Rejects, having left the queue, when the signal aborts. */
  async acquire(signal: AbortSignal): Promise<boolean> {
    signal.throwIfAborted()
    if (this.#free > 0) {
      this.#free--
      return true
    }
    if (this.#waiting.size >= this.#maxWaiting) return false
    await new Promise<void>((resolve, reject) => {
      const granted = (): void => {
        signal.removeEventListener('abort', gone)
        resolve()
      }
      const gone = (): void => {
        this.#waiting.delete(granted)
        reject(signal.reason as Error)
      }
      this.#waiting.add(granted)
      signal.addEventListener('abort', gone, { once: true })
    })
    return true
  }

  /** Hands the connection to the request that has waited longest. */
  release(): void {
    for (const granted of this.#waiting) {
      this.#waiting.delete(granted)
      granted()
      return
    }
    this.#free++
  }
}
