// Tells when the content of one file has changed. The folder is watched, not the file: a watch on the file goes deaf
// after an atomic rename and never sees the symlink swap of a Kubernetes volume. What counts is the hash of the
// content, so touching the file, its neighbours' changes and a moment of absence are no change.
//
// A link to a file in another folder is followed when read, but only changes in the file's own folder wake us.

import { hash } from 'node:crypto'
import { readFileSync, watch } from 'node:fs'
import type { FSWatcher } from 'node:fs'
import { dirname } from 'node:path'

/** Quiet after the last event before the file is read: an editor writes in several steps. */
const QUIET_MS = 100
/** Longest delay under ceaseless events, those of a log in the same folder for instance. */
const MAX_DELAY_MS = 1000

/** Calls onChange after each change of the file's content, and never otherwise. Keeps no process alive. Where the
 *  folder cannot be watched nothing is ever told; the other ways to reload remain. Never throws. */
export function watchConfig(file: string, onChange: () => void): { close(): void } {
  let known = contentHash(file)
  let timer: NodeJS.Timeout | null = null
  let firstEventAtMs = 0

  const look = (): void => {
    timer = null
    const found = contentHash(file)
    if (found === null || found === known) return
    known = found
    onChange()
  }
  const notice = (): void => {
    const nowMs = performance.now()
    if (timer === null) {
      firstEventAtMs = nowMs
      timer = setTimeout(look, QUIET_MS).unref()
    } else if (nowMs - firstEventAtMs < MAX_DELAY_MS) {
      timer.refresh()
    }
  }

  const watcher = watchFolder(dirname(file), notice)
  return {
    close() {
      watcher?.close()
      if (timer !== null) clearTimeout(timer)
    },
  }
}

function watchFolder(folder: string, notice: () => void): FSWatcher | null {
  try {
    // An error after the start, the folder's removal for instance, ends the watch and nothing else.
    return watch(folder, { persistent: false }, notice).on('error', () => {})
  } catch {
    return null
  }
}

/** null while the file cannot be read. */
function contentHash(file: string): string | null {
  try {
    return hash('sha256', readFileSync(file))
  } catch {
    return null
  }
}
