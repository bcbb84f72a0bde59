// What is learned of the time after which a target closes idle connections: closes at times of the test's own.

import { describe, expect, it } from 'vitest'
import { IdleLimit } from '../../src/upstream/idle-limit.ts'

/** One every ten seconds: closed after so many milliseconds, or ['open', so many] and still open. */
type Event = number | readonly ['open', number]

const SIX: readonly number[] = [2000, 2000, 2000, 2000, 2000, 2000]

function after(events: readonly Event[], everyMs = 10_000): number {
  const limit = new IdleLimit()
  let nowMs = 0
  for (const event of events) {
    nowMs += everyMs
    if (typeof event === 'number') limit.closed(event, nowMs)
    else limit.survived(event[1])
  }
  return limit.keepMs(nowMs)
}

describe('how long a connection may be idle', () => {
  it.each<[string, readonly Event[], number]>([
    ['is not known at first', [], Infinity],
    ['nor from one close', [2000], Infinity],
    ['nor from two', [2000, 2000], Infinity],
    ['three that agree are enough', [2000, 2000, 2000], 1320],
    ['their average counts', [2000, 2400, 2100], 1386],
    ['one that does not agree speaks against it', [2000, 2000, 500, 2000], Infinity],
    ['and is outvoted', [2000, 2000, 500, 2000, 2000], 1320],
    ['a shorter time is learned too', [...SIX, 500, 500, 500, 500, 500, 500, 500, 500, 500], 330],
    ['a target that is started anew now and then closes by no clock', [3, 800, 3200, 40, 1500, 10, 300], Infinity],
    ['one that stays open for longer says that it is no clock', [2000, 2000, ['open', 3500], 2000], Infinity],
    ['not for a little longer', [2000, 2000, ['open', 2500], 2000], 1320],
    ['nothing is kept of what is closed at once', [0, 0, 0], 0],
  ])('%s', (_what, events, ms) => {
    expect(after(events)).toBe(ms)
  })

  it('is not learned from what is closed all at once, however many they are', () => {
    // Each was idle already at the close before.
    expect(after(SIX, 1)).toBe(Infinity)
  })

  it('is forgotten after ten minutes, since the target may keep them for longer by now', () => {
    const limit = new IdleLimit()
    for (const nowMs of [10_000, 20_000, 30_000]) limit.closed(2000, nowMs)
    expect(limit.keepMs(629_999)).toBe(1320)
    expect(limit.keepMs(630_000)).toBe(Infinity)
    limit.closed(2000, 640_000)
    expect(limit.keepMs(640_000)).toBe(Infinity)
  })
})
