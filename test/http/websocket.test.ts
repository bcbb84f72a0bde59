import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { FrameBorders, acceptsHandshake, isHandshake } from '../../src/http/websocket.ts'

const HANDSHAKE = [
  'Host',
  'a',
  'Connection',
  'Upgrade',
  'Upgrade',
  'websocket',
  'Sec-WebSocket-Key',
  'dGhlIHNhbXBsZSBub25jZQ==',
]

describe('a handshake', () => {
  const ask = (headers: readonly string[], rest: Partial<Parameters<typeof isHandshake>[0]> = {}) =>
    isHandshake({ method: 'GET', version: '1.1', body: null, headers, ...rest })
  const without = (name: string) => HANDSHAKE.filter((_, i) => HANDSHAKE[i - (i % 2)] !== name)

  it('[RFC 6455 §4.2.1] is a GET of HTTP/1.1 with the three fields', () => {
    expect(ask(HANDSHAKE)).toBe(true)
    expect(ask(HANDSHAKE, { method: 'POST' })).toBe(false)
    expect(ask(HANDSHAKE, { version: '1.0' })).toBe(false)
    expect(ask(HANDSHAKE, { body: { declaredBytes: 1 } as never })).toBe(false)
    for (const name of ['Connection', 'Upgrade', 'Sec-WebSocket-Key'])
      expect([name, ask(without(name))]).toEqual([name, false])
    expect(ask([...HANDSHAKE, 'Sec-WebSocket-Key', 'x'])).toBe(false)
  })

  it.each<[connection: string, upgrade: string, is: boolean]>([
    ['keep-alive, Upgrade', 'WebSocket', true],
    ['upgrade', 'h2c, websocket', true],
    ['keep-alive', 'websocket', false],
    ['upgrade', 'h2c', false],
    ['upgrade', 'websockets', false],
  ])('with Connection: %s and Upgrade: %s is one: %s', (connection, upgrade, is) => {
    expect(
      ask([...without('Connection'), 'connection', connection].map((text) => (text === 'websocket' ? upgrade : text))),
    ).toBe(is)
  })

  it.each<[what: string, answer: readonly string[], accepts: boolean]>([
    ['its own answer', ['upgrade', 'WebSocket', 'sec-websocket-accept', 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='], true],
    ['that of another', ['Upgrade', 'websocket', 'Sec-WebSocket-Accept', 'x3pPLMBiTxaQ9kYGzzhZRbK+xOo='], false],
    ['one without the proof', ['Upgrade', 'websocket'], false],
    [
      'one that switches to something else',
      ['Upgrade', 'h2c', 'Sec-WebSocket-Accept', 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='],
      false,
    ],
    ['one that says nothing', [], false],
  ])('[RFC 6455 §4.1] %s: %j is accepted: %s', (_what, answer, accepts) => {
    expect(acceptsHandshake(HANDSHAKE, answer)).toBe(accepts)
  })
})

describe('the borders of frames', () => {
  /** length: of the payload. */
  function frame(opcode: number, length: number, isMasked: boolean): Buffer {
    const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8
    const head = Buffer.alloc(2 + extended + (isMasked ? 4 : 0))
    head[0] = 0x80 | opcode
    head[1] = (isMasked ? 0x80 : 0) | (extended === 0 ? length : extended === 2 ? 126 : 127)
    if (extended === 2) head.writeUInt16BE(length, 2)
    if (extended === 8) head.writeBigUInt64BE(BigInt(length), 2)
    return Buffer.concat([head, Buffer.alloc(length, 0xff)])
  }
  const frames = fc.array(
    fc.record({
      opcode: fc.constantFrom(0, 1, 2, 9, 10),
      length: fc.oneof(fc.nat(300), fc.constantFrom(0, 125, 126, 65_535, 65_536)),
      isMasked: fc.boolean(),
    }),
    { minLength: 1, maxLength: 6 },
  )

  it('are found however the bytes come', () => {
    fc.assert(
      fc.property(
        frames,
        fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 10 }),
        (list, cuts) => {
          const parts = list.map(({ opcode, length, isMasked }) => frame(opcode, length, isMasked))
          const bytes = Buffer.concat(parts)
          const borders = new Set<number>()
          parts.reduce((at, part) => (borders.add(at + part.length), at + part.length), 0)
          const reader = new FrameBorders()
          const stopping = new FrameBorders()
          const stops: number[] = []
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const piece = bytes.subarray(at, at + (cuts[i % cuts.length] as number))
            expect(reader.read(piece, false)).toBe(piece.length)
            for (let read = 0; read < piece.length;) {
              read += stopping.read(piece.subarray(read), true)
              if (stopping.isBetween) stops.push(at + read)
            }
            at += piece.length
            expect(reader.isBetween).toBe(borders.has(at))
          }
          expect(stops).toEqual([...borders])
          expect(reader.hasClosed).toBe(false)
        },
      ),
    )
  })

  it('tell when a Close frame has gone by', () => {
    const reader = new FrameBorders()
    const close = frame(8, 2, false)
    reader.read(Buffer.concat([frame(1, 5, false), close.subarray(0, 3)]), false)
    expect(reader.hasClosed).toBe(false)
    reader.read(close.subarray(3), false)
    expect([reader.hasClosed, reader.isBetween]).toEqual([true, true])
  })
})
