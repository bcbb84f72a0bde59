// Turns of the event loop for long work, one task a turn: two tasks that each take a slice in every turn would make
// requests wait for both.

export interface Turns {
  /** Resolves in a later turn that no other caller has. Callers are served in order. */
  next(): Promise<void>
}

export function createTurns(): Turns {
  let last: Promise<void> = Promise.resolve()
  return {
    next() {
      last = last.then(() => new Promise((resolve) => setImmediate(resolve)))
      return last
    },
  }
}
