import * as fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type Pace, pacedBody } from '../../src/cache/replay.ts'
import { TimelineWriter } from '../../src/cache/timeline.ts'
import type { BodyStream } from '../../src/core/context.ts'
import { NotingSink } from '../support/body.ts'

const AS_IT_CAME: Pace = { speed: 1, maxGapMs: Infinity, maxTotalMs: Infinity }

/** A body of events that are a byte each. */
function streamOf(gapsMs: readonly number[], pace: Pace, roomFor?: number) {
  const body = Buffer.from(gapsMs.map((_, i) => 97 + (i % 26)))
  const writer = new TimelineWriter()
  let nowMs = 1e6
  for (const [i, gapMs] of gapsMs.entries()) writer.note(i + 1, (nowMs += gapMs))
  const replayed = pacedBody(body, writer.finish(), pace)
  const sink = new NotingSink(roomFor)
  return { body, replayed, stream: replayed as BodyStream, sink }
}

describe('a stream that is sent at its own pace', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] }))
  afterEach(() => void vi.useRealTimers())

  /** After how many milliseconds each event has come, and the end. */
  function times(gapsMs: readonly number[], pace: Pace): number[] {
    const { stream, sink, body } = streamOf(gapsMs, pace)
    const came: number[] = []
    stream.pipeTo(sink)
    for (let ms = 0; came.length < gapsMs.length; ms++) {
      while (came.length < sink.bytes) came.push(ms)
      expect(vi.getTimerCount()).toBe(sink.outcome === 'open' ? 1 : 0)
      vi.advanceTimersByTime(1)
    }
    expect([sink.outcome, sink.text]).toEqual(['whole', body.toString()])
    return came
  }

  it.each<[string, Pace, number[], number[]]>([
    ['as it came', AS_IT_CAME, [7, 100, 50, 900], [0, 100, 150, 1050]],
    ['twice as fast', { ...AS_IT_CAME, speed: 2 }, [0, 100, 50, 900], [0, 50, 75, 525]],
    ['with short gaps', { ...AS_IT_CAME, maxGapMs: 80 }, [0, 100, 50, 900], [0, 80, 130, 210]],
    ['in so long', { ...AS_IT_CAME, maxTotalMs: 105 }, [0, 100, 50, 900], [0, 10, 15, 105]],
    ['in no time', { ...AS_IT_CAME, maxTotalMs: 0 }, [0, 100, 50, 900], [0, 0, 0, 0]],
  ])('comes %s', (_name, pace, gapsMs, expected) => {
    expect(times(gapsMs, pace)).toEqual(expected)
  })

  it('is one buffer where it all came at once', () => {
    const { replayed, body } = streamOf([5, 0, 0], AS_IT_CAME)
    expect(replayed).toBe(body)
    expect(pacedBody(body, Buffer.from([1, 0]), AS_IT_CAME)).toBe(body)
  })

  it('waits for a client without room, without a timer, and gives it then what is due', () => {
    const { stream, sink } = streamOf([0, 10, 10, 10, 10], AS_IT_CAME, 2)
    stream.pipeTo(sink)
    vi.advanceTimersByTime(10)
    expect([sink.text, sink.isFull, vi.getTimerCount()]).toEqual(['ab', true, 0])
    vi.advanceTimersByTime(25)
    expect(sink.text).toBe('ab')
    sink.drain()
    stream.resume()
    expect([sink.chunks.map(String), vi.getTimerCount()]).toEqual([['a', 'b', 'cd'], 1])
    vi.advanceTimersByTime(5)
    expect([sink.text, sink.outcome, vi.getTimerCount()]).toEqual(['abcde', 'whole', 0])
  })

  it('stops when its client leaves, before the first event or later', () => {
    const { stream, sink } = streamOf([0, 10, 10], AS_IT_CAME)
    stream.pipeTo(sink)
    expect(vi.getTimerCount()).toBe(1)
    stream.cancel()
    expect(vi.getTimerCount()).toBe(0)
    vi.advanceTimersByTime(1000)
    expect([sink.text, sink.outcome]).toEqual(['a', 'open'])
    streamOf([0, 10], AS_IT_CAME).stream.cancel()
    expect(vi.getTimerCount()).toBe(0)
  })

  it('is the same bytes, whatever its pace and its reader', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(500), { minLength: 2, maxLength: 30 }),
        fc.record({ speed: fc.integer({ min: 1, max: 9 }), maxGapMs: fc.nat(300), maxTotalMs: fc.nat(2000) }),
        fc.integer({ min: 1, max: 5 }),
        (gapsMs, pace, roomFor) => {
          const { stream, sink, body, replayed } = streamOf(gapsMs, pace, roomFor)
          fc.pre(!Buffer.isBuffer(replayed))
          stream.pipeTo(sink)
          for (let ms = 0; sink.outcome === 'open' && ms < 20_000; ms += 40) {
            vi.advanceTimersByTime(40)
            if (!sink.isFull) continue
            sink.drain()
            stream.resume()
          }
          expect([sink.outcome, sink.text]).toEqual(['whole', body.toString()])
          expect(vi.getTimerCount()).toBe(0)
        },
      ),
    )
  })
})
