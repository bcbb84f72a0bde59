import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  EventStreamReader,
  EventTail,
  type StreamEvent,
  eventsAlone,
  isEventStream,
} from '../../src/http/event-stream.ts'
import { JsonLinesReader } from '../../src/http/json-lines.ts'

interface Read {
  readonly events: readonly StreamEvent[]
  readonly isAtBoundary: boolean
  readonly eventBytes: number
}

function read(pieces: readonly (Buffer | string)[], maxEventBytes?: number): Read {
  const events: StreamEvent[] = []
  const reader = new EventStreamReader({ onEvent: (event) => void events.push(event) }, maxEventBytes)
  for (const piece of pieces) reader.write(Buffer.from(piece))
  return { events, isAtBoundary: reader.isAtBoundary, eventBytes: reader.eventBytes }
}

const told = ({ events }: Pick<Read, 'events'>): string[] => events.map(({ name, data }) => `${name}|${data}`)

describe('an event stream', () => {
  it.each<[string, string, string[], boolean]>([
    ['nothing', '', [], true],
    ['one event', 'data: a\n\n', ['message|a'], true],
    ['a name', 'event: x\ndata: a\n\n', ['x|a'], true],
    ['no space', 'event:x\ndata:a\n\n', ['x|a'], true],
    ['one space alone is taken off', 'data:  a \n\n', ['message| a '], true],
    ['lines of data', 'data: a\ndata\ndata: b\n\n', ['message|a\n\nb'], true],
    ['CRLF', 'event: x\r\ndata: a\r\n\r\n', ['x|a'], true],
    ['CR', 'data: a\r\rdata: b\r\r', ['message|a', 'message|b'], true],
    ['ends of three kinds', 'data: a\n\r\ndata: b\r\n\rdata: c\r\n\n', ['message|a', 'message|b', 'message|c'], true],
    ['a name is of one event', 'event: x\ndata: a\n\ndata: b\n\n', ['x|a', 'message|b'], true],
    ['a name without data', 'event: done\n\n', ['done|'], true],
    ['an id and a time alone are no event', 'id: 1\nretry: 5\n\n', [], true],
    ['comments', ': hi\n\n:\ndata: a\n: b\ndata: c\n\n', ['message|a\nc'], true],
    ['a mark at the beginning', '\u{FEFF}data: a\n\n\u{FEFF}data: b\n\n', ['message|a'], true],
    ['a comment behind the mark', '\u{FEFF}: hi\n\ndata: a\n\n', ['message|a'], true],
    ['UTF-8', 'data: ä漢😀\n\n', ['message|ä漢😀'], true],
    ['fields that nobody knows', 'datas: a\n data: b\n\n', [], true],
    ['a line that is not ended', 'data: a\n\ndata: b', ['message|a'], false],
    ['an event that is not ended', 'data: a\n\ndata: b\n', ['message|a'], false],
    ['a comment that is not ended', 'data: a\n\n: b', ['message|a'], false],
    ['a comment at the end', 'data: a\n\n: b\n', ['message|a'], true],
    ['an id that is not ended', 'data: a\n\nid: 1\n', ['message|a'], false],
  ])('with %s', (_name, stream, events, isAtBoundary) => {
    expect([told(read([stream])), read([stream]).isAtBoundary]).toEqual([events, isAtBoundary])
  })

  it('is told without the data of an event that is longer than what is kept', () => {
    const long = (bytes: number) => read([`data: ${'x'.repeat(bytes)}\ndata: y\n\ndata: z\n\n`], 16).events[0]?.data
    expect([long(3), long(4), long(100)]).toEqual(['xxx\ny', null, null])
    for (let bytes = 0; bytes < 40; bytes++) {
      const stream = `: ${'c'.repeat(60)}\nevent:e\ndata: ${'x'.repeat(bytes)}\n\ndata: z\n\n`
      // The line with the name counts as well.
      const data = bytes <= 3 ? 'x'.repeat(bytes) : null
      expect(told(read(stream.split(''), 16))).toEqual([`e|${data}`, 'message|z'])
    }
  })

  it('loses what is no event, and nothing else', () => {
    const noisy = '\u{FEFF}: a\r\n\r\n\n: b\n\ndata: 1\r\n: c\r\nid: 7\r\n\r\n\n: d\nretry: 9\n\ndata: 2\n\n: e\n'
    expect(eventsAlone(Buffer.from(noisy)).toString()).toBe('data: 1\r\nid: 7\r\n\r\nretry: 9\n\ndata: 2\n\n')
    // Without it, CR and LF would be one end of a line.
    const needed = 'data: 1\r: a\n\ndata: 2\r\r: b\r'
    expect(eventsAlone(Buffer.from(needed)).toString()).toBe(needed)
    const plain = Buffer.from('data: 1\n\nid: 7\r\n\r\n')
    expect(eventsAlone(plain)).toBe(plain)
  })

  /** Streams of all that matters to their grammar. */
  const anyStream = fc
    .array(
      fc.oneof(
        { weight: 6, arbitrary: fc.constantFrom('data: a', 'data: b', 'event: x', ': c', 'id: 1', 'data', 'ä', ':') },
        { weight: 6, arbitrary: fc.constantFrom('\n', '\r', '\r\n', '\n\n', '\r\r', '\r\n\r\n') },
        { weight: 1, arbitrary: fc.constant('x'.repeat(40)) },
      ),
      { maxLength: 30 },
    )
    .chain((parts) => fc.constantFrom('', '\u{FEFF}').map((mark) => Buffer.from(mark + parts.join(''))))

  const cut = (bytes: Buffer, places: readonly number[]): Buffer[] => {
    const at = [0, ...places.map((place) => place % (bytes.length + 1)), bytes.length].toSorted((a, b) => a - b)
    return at.slice(1).map((end, i) => bytes.subarray(at[i], end))
  }

  it('is the same however it is cut into pieces', () => {
    fc.assert(
      fc.property(anyStream, fc.array(fc.nat(), { maxLength: 12 }), fc.constantFrom(8, 1000), (bytes, places, max) => {
        expect(read(cut(bytes, places), max)).toEqual(read([bytes], max))
      }),
    )
  })

  it('is what the standard says that it is', () => {
    fc.assert(
      fc.property(anyStream, (bytes) => {
        expect(told(read([bytes]))).toEqual(asTheStandardSays(bytes.toString()))
      }),
    )
  })

  it('without what is no event has the same events, as long as it was said to be', () => {
    fc.assert(
      fc.property(anyStream, (bytes) => {
        const whole = read([bytes])
        const alone = eventsAlone(bytes)
        expect(told(read([alone]))).toEqual(told(whole))
        expect(whole.isAtBoundary ? alone.length : whole.eventBytes).toBe(whole.eventBytes)
        expect(eventsAlone(alone)).toBe(alone)
      }),
    )
  })
})

describe('the tail of an event stream', () => {
  const isAtBoundary = (pieces: readonly string[]): boolean => {
    const tail = new EventTail()
    for (const piece of pieces) tail.note(Buffer.from(piece))
    return tail.isAtBoundary
  }

  it.each<[string, boolean]>([
    ['', true],
    ['data: a\n\n', true],
    ['data: a\r\n\r\n', true],
    ['data: a\r\r', true],
    ['data: a\n\r\n', true],
    ['data: a\r\n\n', true],
    [': a\n\n', true],
    ['data: a', false],
    ['data: a\n', false],
    ['data: a\r\n', false],
    ['data: a\r', false],
    ['data: a\n\ndata: b\n', false],
  ])('of %j', (text, expected) => {
    expect([isAtBoundary([text]), isAtBoundary(text.split(''))]).toEqual([expected, expected])
  })

  it('is known by its type', () => {
    const is = (type: string) => isEventStream(['Content-Type', type])
    expect([is('text/event-stream'), is('Text/Event-Stream; charset=utf-8'), is('text/event-streams'), is('')]).toEqual([true, true, false, false]) // prettier-ignore
  })
})

/** WHATWG HTML §9.2.5-6, on the whole text; but that an event needs no data. */
function asTheStandardSays(text: string): string[] {
  const events: string[] = []
  let name = ''
  let data: string[] | null = null
  const lines = text.replace(/^\u{FEFF}/u, '').split(/\r\n|\r|\n/)
  // What follows the last end of a line is none.
  for (const line of lines.slice(0, -1)) {
    if (line === '') {
      if (data !== null || name !== '') events.push(`${name === '' ? 'message' : name}|${(data ?? []).join('\n')}`)
      name = ''
      data = null
      continue
    }
    const colon = line.indexOf(':')
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (field === 'event') name = value
    else if (field === 'data') data = [...(data ?? []), value]
  }
  return events
}

describe('JSON lines', () => {
  const readLines = (pieces: readonly (Buffer | string)[], maxLineBytes?: number): Read => {
    const events: StreamEvent[] = []
    const reader = new JsonLinesReader({ onEvent: (event) => void events.push(event) }, maxLineBytes)
    for (const piece of pieces) reader.write(Buffer.from(piece))
    return { events, isAtBoundary: reader.isAtBoundary, eventBytes: reader.eventBytes }
  }

  it.each<[string, string, string[], boolean]>([
    ['nothing', '', [], true],
    ['one', '{"a":1}\n', ['{"a":1}'], true],
    ['two', '1\r\n2\n', ['1', '2'], true],
    ['blank ones between', '1\n\n \n2\n', ['1', '2'], true],
    ['one that is not ended', '1\n2', ['1'], false],
    ['records', '\u{1E}1\n\u{1E}2\n', ['1', '2'], true],
  ])('with %s', (_name, stream, data, isAtBoundary) => {
    const lines = readLines([stream])
    expect([lines.events.map((event) => event.data), lines.isAtBoundary]).toEqual([data, isAtBoundary])
  })

  it('are the same however they are cut into pieces, and a long one is told without its text', () => {
    const stream = '{"a":1}\r\n\n{"long":"xxxxxxxx"}\n3\n'
    for (const max of [10, 1000]) {
      const whole = readLines([stream], max)
      expect(whole.events.map(({ data }) => data)).toEqual(['{"a":1}', max === 10 ? null : '{"long":"xxxxxxxx"}', '3'])
      expect(whole.eventBytes).toBe(stream.length)
      expect(readLines(stream.split(''), max)).toEqual(whole)
    }
  })
})
