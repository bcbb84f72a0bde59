// Which stored responses could not be refreshed of late, so that an origin that is sick is not asked by every request
// for what a stale response can answer. Each failure in a row doubles the pause, and the origin's own Retry-After makes
// it longer. Bounded in bytes: beyond them the oldest is forgotten, and asked again.

const FIRST_PAUSE_MS = 1000
const MAX_PAUSE_MS = 60_000
/** However long an origin wants to be left alone. */
const MAX_RETRY_AFTER_MS = 600_000
const MAX_BYTES = 2 * 1024 ** 2
/** What a key takes beside its text. */
const KEY_OVERHEAD_BYTES = 150

/** nowMs: wall clock, the same in all calls. */
export interface Failures {
  /** A refresh has failed; those that fail meanwhile count as the same failure. retryAfterMs: what the origin asks for. */
  add(key: string, nowMs: number, retryAfterMs: number): void
  /** True while the origin is not to be asked again. */
  has(key: string, nowMs: number): boolean
  /** It has been refreshed. */
  delete(key: string): void
}

export function createFailures(): Failures {
  const byKey = new Map<string, { readonly untilMs: number; readonly pauseMs: number }>()
  let bytes = 0

  function forget(key: string): void {
    // The key of a miss is new to a Map, and dear (key-hash.ts); mostly nothing has failed.
    if (byKey.size > 0 && byKey.delete(key)) bytes -= key.length + KEY_OVERHEAD_BYTES
  }

  return {
    add(key, nowMs, retryAfterMs) {
      const last = byKey.get(key)
      if (last !== undefined && isPaused(last, nowMs)) return
      const pauseMs = last === undefined ? FIRST_PAUSE_MS : Math.min(2 * last.pauseMs, MAX_PAUSE_MS)
      forget(key)
      bytes += key.length + KEY_OVERHEAD_BYTES
      byKey.set(key, { untilMs: nowMs + Math.max(pauseMs, Math.min(retryAfterMs, MAX_RETRY_AFTER_MS)), pauseMs })
      for (const oldest of byKey.keys()) {
        if (bytes <= MAX_BYTES) return
        forget(oldest)
      }
    },
    has(key, nowMs) {
      const last = byKey.get(key)
      return last !== undefined && isPaused(last, nowMs)
    },
    delete: forget,
  }
}

/** A pause that seems longer than the longest is one that a clock was set back in, and over. */
const isPaused = ({ untilMs }: { readonly untilMs: number }, nowMs: number): boolean =>
  untilMs > nowMs && untilMs - nowMs <= MAX_RETRY_AFTER_MS
