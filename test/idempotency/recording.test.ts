import { beforeEach, describe, expect, it } from 'vitest'
import type { GatewayError } from '../../src/core/errors.ts'
import { Recording } from '../../src/idempotency/recording.ts'
import { BROKEN, HandBody, NotingSink } from '../support/body.ts'

let source: HandBody
let held: number
let told: (string | null | GatewayError)[]
let recording: Recording

beforeEach(() => {
  source = new HandBody()
  held = 0
  told = []
  recording = new Recording(source, {
    mayHold(moreBytes, bytes) {
      held += moreBytes
      return bytes === held && bytes <= 10
    },
    whole: (body) => void told.push(body === null ? null : body.toString()),
    broken: (error) => void told.push(error),
  })
  recording.start()
})

const client = (roomFor?: number): NotingSink => {
  const sink = new NotingSink(roomFor)
  recording.pipeTo(sink)
  return sink
}

describe('while it is kept', () => {
  it('the client gets it as it comes', () => {
    const sink = client()
    source.send('one')
    expect(sink.text).toBe('one')
    source.send('two')
    source.end()
    expect([sink.text, sink.outcome, told]).toEqual(['onetwo', 'whole', ['onetwo']])
  })

  it('a client that comes late gets it from its beginning', () => {
    source.send('one')
    source.end()
    expect(told).toEqual(['one'])
    const sink = client()
    expect([sink.text, sink.outcome]).toEqual(['one', 'whole'])
  })

  it('a slow client does not hold it up', () => {
    const sink = client(1)
    for (const text of ['a', 'b', 'c']) source.send(text)
    source.end()
    expect([sink.text, sink.outcome, told]).toEqual(['a', 'open', ['abc']])
    for (const text of ['ab', 'abc']) {
      sink.drain()
      recording.resume()
      expect(sink.text).toBe(text)
    }
    expect(sink.outcome).toBe('whole')
  })

  it.each(['before', 'after'] as const)('is read to its end without a client, gone %s it had begun', (when) => {
    if (when === 'after') client()
    source.send('one')
    recording.cancel()
    source.send('two')
    expect(source.isCancelled).toBe(false)
    source.end()
    expect(told).toEqual(['onetwo'])
  })

  it('is broken for all where it breaks off', () => {
    const sink = client()
    source.send('one')
    source.fail()
    expect([sink.outcome, sink.error, told]).toEqual(['broken', BROKEN, [BROKEN]])
  })

  it('an empty one is whole', () => {
    source.end()
    expect([client().outcome, told]).toEqual(['whole', ['']])
  })
})

describe('once it is too large', () => {
  it('the client gets all of it, at its own pace, and nobody else', () => {
    const sink = client(1)
    source.send('123456')
    source.send('7890')
    expect(source.isWaiting).toBe(false)
    source.send('more')
    expect(source.isWaiting).toBe(true)
    for (const text of ['1234567890', '1234567890more']) {
      expect(source.isWaiting).toBe(true)
      sink.drain()
      recording.resume()
      expect(sink.text).toBe(text)
    }
    expect(source.isWaiting).toBe(false)
    // Nobody is asked about it again.
    source.send('x'.repeat(100))
    source.end()
    sink.drain()
    recording.resume()
    expect([sink.outcome, sink.bytes, told, held]).toEqual(['whole', 114, [null], 14])
  })

  it('waits for a client that is still to come', () => {
    source.send('x'.repeat(11))
    expect(source.isWaiting).toBe(true)
    expect(client().bytes).toBe(11)
    expect(source.isWaiting).toBe(false)
  })

  it.each(['before', 'after'] as const)('goes on without its client, gone %s that', (when) => {
    client(1)
    if (when === 'before') recording.cancel()
    source.send('123456')
    source.send('78901')
    const wasWaiting = source.isWaiting
    if (when === 'after') recording.cancel()
    expect(wasWaiting).toBe(when === 'after')
    expect([source.isWaiting, source.isCancelled]).toEqual([false, false])
    source.send('x'.repeat(1000))
    source.end()
    expect(told).toEqual([null])
  })
})
