// What a test opens is closed after it, last opened first, whether it passed or not.

import { afterEach } from 'vitest'

export interface Closable {
  close(): Promise<void>
}

/** Call once per file; hands out a function that notes what to close and gives it back. */
export function closeAfterEach(): <T extends Closable>(part: T) => T {
  const open: Closable[] = []
  afterEach(async () => {
    for (const part of open.splice(0).toReversed()) await part.close()
  })
  return (part) => {
    open.push(part)
    return part
  }
}
