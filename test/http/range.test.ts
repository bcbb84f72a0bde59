// Which bytes a Range asks for, and how parts are described, sent and combined: see src/http/range.ts.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  MAX_HELD_PARTS,
  MAX_PARTS,
  type Part,
  type RangeVerdict,
  addPart,
  contentRange,
  cutFrom,
  gapsIn,
  lengthOf,
  multipartBody,
  multipartType,
  parseContentRange,
  parseRange,
  unsatisfiedRange,
} from '../../src/http/range.ts'

const HUGE = '9'.repeat(400)

/** `0-4 6-6` for the parts of a verdict; the word itself for the others. */
const written = (verdict: RangeVerdict): string =>
  typeof verdict === 'string' ? verdict : verdict.map(({ first, last }) => `${first}-${last}`).join(' ')

describe('Range', () => {
  it.each([
    ['bytes=0-4', 10, '0-4'],
    ['bytes=0-0', 10, '0-0'],
    ['bytes=9-9', 10, '9-9'],
    ['bytes=0-', 10, '0-9'],
    ['bytes=5-', 10, '5-9'],
    ['bytes=5-9999', 10, '5-9'],
    [`bytes=5-${HUGE}`, 10, '5-9'],
    ['bytes=-1', 10, '9-9'],
    ['bytes=-10', 10, '0-9'],
    ['bytes=-9999', 10, '0-9'],
    [`bytes=-${HUGE}`, 10, '0-9'],
    ['bytes=007-008', 10, '7-8'],
    ['BYTES=0-4', 10, '0-4'],
    ['bytes=\t 0-4 \t', 10, '0-4'],
    ['bytes=, ,0-4,,', 10, '0-4'],
    ['bytes=0-', 1, '0-0'],
    ['bytes=-1', 1, '0-0'],
  ])('[RFC 9110 §14.1.2] %.40s of %i bytes is %s', (value, length, parts) => {
    expect(written(parseRange(value, length))).toBe(parts)
  })

  it.each([
    ['keep the order asked for', 'bytes=5-6,0-1,8-9', '5-6 0-1 8-9'],
    ['keep the gap between them', 'bytes=0-1,3-4', '0-1 3-4'],
    ['leave out what is not to be had', 'bytes=20-30,0-1,-0,10-', '0-1'],
    ['are one where they overlap', 'bytes=0-5,3-8', '0-8'],
    ['are one where they touch', 'bytes=0-4,5-9', '0-9'],
    ['are one in any order', 'bytes=5-9,0-4', '0-9'],
    ['are one where one holds the other', 'bytes=0-9,3-4', '0-9'],
    ['are one where they are the same', 'bytes=0-0,0-0,0-0', '0-0'],
    ['are one where a third joins two', 'bytes=0-1,4-5,2-3', '0-5'],
    ['stand where the first of them stood', 'bytes=8-9,0-1,7-7,4-4', '7-9 0-1 4-4'],
    ['are one with a suffix that meets them', 'bytes=0-6,-4', '0-9'],
  ])('[RFC 9110 §15.3.7.2] several ranges %s', (_rule, value, parts) => {
    expect(written(parseRange(value, 10))).toBe(parts)
  })

  it.each([
    ['bytes=10-', 10],
    ['bytes=10-20', 10],
    [`bytes=${HUGE}-`, 10],
    ['bytes=-0', 10],
    ['bytes=-0,99-', 10],
    ['bytes=0-', 0],
    ['bytes=0-0', 0],
    ['bytes=-0', 0],
  ])('[RFC 9110 §14.1.2] %.40s of %i bytes is unsatisfiable', (value, length) => {
    expect(parseRange(value, length)).toBe('unsatisfiable')
  })

  it.each([
    '',
    'bytes',
    'bytes=',
    'bytes= ,',
    'bytes=-',
    'bytes=0',
    'bytes=a-b',
    'bytes=0-4-5',
    'bytes=--5',
    'bytes=0--5',
    'bytes=+1-2',
    'bytes=1.0-2',
    'bytes=0x1-2',
    'bytes=0 - 4',
    'bytes=0-4;x',
    'bytes=0-4 6-7',
    'bytes=0-4,x',
    'bytes=x,0-4',
    'bytes:0-4',
    'bytes =0-4',
    'bytes 0-4/10',
    ' bytes=0-4',
    'bytes=0-1, bytes=2-3',
    'bytes=4-0',
    'bytes=0-1,4-3',
    'bytes=99-98',
    'items=0-4',
    'byte=0-4',
    'bytes=0-4\n',
    'bytes=٠-٤',
  ])('[RFC 9110 §14.2] %j is ignored', (value) => {
    expect(parseRange(value, 10)).toBe('ignore')
  })

  it('[RFC 9110 §14.1.2] a suffix of nothing is all of it, which no 206 can say', () => {
    expect(parseRange('bytes=-5', 0)).toBe('ignore')
    expect(parseRange('bytes=0-,-5', 0)).toBe('ignore')
  })

  it('[RFC 9110 §17.15] many parts are answered with the whole, but not many ranges that make few', () => {
    const apart = (count: number): string =>
      `bytes=${Array.from({ length: count }, (_, i) => `${i * 2}-${i * 2}`).join(',')}`
    expect(parseRange(apart(MAX_PARTS), 1000)).toHaveLength(MAX_PARTS)
    expect(parseRange(apart(MAX_PARTS + 1), 1000)).toBe('ignore')
    expect(written(parseRange(`bytes=${'0-,'.repeat(2000)}`, 1000))).toBe('0-999')
    expect(written(parseRange(apart(500).replaceAll(/(\d+)-\d+/g, '$1-999'), 1000))).toBe('0-999')
  })

  it('takes time in proportion to the length of blanks, not to its square', () => {
    const started = performance.now()
    expect(parseRange(`bytes=${' '.repeat(100_000)};`, 10)).toBe('ignore')
    expect(parseRange(`bytes=0-1${' '.repeat(100_000)};`, 10)).toBe('ignore')
    expect(performance.now() - started).toBeLessThan(1000)
  })

  const range = fc.oneof(
    fc.tuple(fc.nat(40), fc.nat(20)).map(([first, more]) => ({
      text: `${first}-${first + more}`,
      covers: (at: number) => at >= first && at <= first + more,
    })),
    fc.nat(40).map((first) => ({ text: `${first}-`, covers: (at: number) => at >= first })),
    fc.nat(40).map((count) => ({ text: `-${count}`, covers: (at: number, length: number) => at >= length - count })),
  )

  it('[RFC 9110 §14.2] answers just the bytes that were asked for, each once', () => {
    fc.assert(
      fc.property(
        fc.array(range, { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: 30 }),
        (ranges, length) => {
          const bytes = Array.from({ length }, (_, at) => at)
          const asked = bytes.filter((at) => ranges.some(({ covers }) => covers(at, length)))
          const verdict = parseRange(`bytes=${ranges.map(({ text }) => text).join(', ')}`, length)
          const sent =
            typeof verdict === 'string' ? [] : verdict.flatMap(({ first, last }) => bytes.slice(first, last + 1))
          expect(sent.toSorted((a, b) => a - b)).toEqual(asked)
          expect(verdict === 'unsatisfiable').toBe(asked.length === 0)
        },
      ),
      { numRuns: 1000 },
    )
  })
})

describe('Content-Range', () => {
  it.each([
    ['bytes 0-4/10', { first: 0, last: 4, completeLength: 10 }],
    ['bytes 9-9/10', { first: 9, last: 9, completeLength: 10 }],
    ['Bytes 0-9/10', { first: 0, last: 9, completeLength: 10 }],
    ['bytes 4-9/*', { first: 4, last: 9, completeLength: null }],
    ['bytes 00-09/010', { first: 0, last: 9, completeLength: 10 }],
    ['bytes */10', { unsatisfied: 10 }],
    ['bytes */0', { unsatisfied: 0 }],
  ])('[RFC 9110 §14.4] reads %s', (value, expected) => {
    expect(parseContentRange(value)).toEqual(expected)
  })

  it.each([
    '',
    'bytes',
    'bytes 0-4',
    'bytes=0-4/10',
    'bytes  0-4/10',
    'bytes\t0-4/10',
    'bytes 0-4 /10',
    'bytes 0-4/ 10',
    'bytes 0 - 4/10',
    'bytes 4-0/10',
    'bytes 0-10/10',
    'bytes 10-10/10',
    'bytes 0-0/0',
    'bytes -4/10',
    'bytes 4-/10',
    'bytes */*',
    'bytes 0-*/10',
    'bytes +0-4/10',
    'bytes -1-4/10',
    'bytes 0-4.0/10',
    'bytes 0-1e1/100',
    'items 0-4/10',
    'bytes 0-4/10, bytes 5-9/10',
    'bytes 0-4/10\n',
    `bytes 0-4/${'9'.repeat(16)}`,
    `bytes 0-${HUGE}/*`,
  ])('[RFC 9110 §14.4] %.60j does not add up', (value) => {
    expect(parseContentRange(value)).toBeNull()
  })

  it('[RFC 9110 §14.4] is read as it was written', () => {
    const size = fc.nat({ max: 999_999_999_999_999 })
    fc.assert(
      fc.property(size, size, fc.option(size), (a, b, over) => {
        const [first, last] = [Math.min(a, b), Math.max(a, b)]
        const completeLength = over === null ? null : Math.min(last + 1 + over, 999_999_999_999_999)
        fc.pre(completeLength === null || last < completeLength)
        expect(parseContentRange(contentRange(first, last, completeLength))).toEqual({ first, last, completeLength })
        expect(parseContentRange(unsatisfiedRange(a))).toEqual({ unsatisfied: a })
      }),
    )
  })
})

const DIGITS = Buffer.from('0123456789')
const part = (first: number, last: number): Part => ({ first, last, body: DIGITS.subarray(first, last + 1) })

describe('an answer of several parts', () => {
  it('[RFC 9110 §14.6, §15.3.7.2] names type and place of each, and no length', () => {
    const parts = [part(7, 9), part(0, 1)]
    expect(multipartBody(parts, 10, 'text/plain; charset=utf-8', 'b0undary').toString()).toBe(
      [
        '--b0undary',
        'Content-Type: text/plain; charset=utf-8',
        'Content-Range: bytes 7-9/10',
        '',
        '789',
        '--b0undary',
        'Content-Type: text/plain; charset=utf-8',
        'Content-Range: bytes 0-1/10',
        '',
        '01',
        '--b0undary--',
        '',
      ].join('\r\n'),
    )
    expect(multipartType('b0undary')).toBe('multipart/byteranges; boundary=b0undary')
  })

  it('[RFC 9110 §15.3.7.2] gives no type where the whole has none, nor a length that is not known', () => {
    const body = multipartBody([part(0, 0)], null, null, 'x').toString()
    expect(body).toBe('--x\r\nContent-Range: bytes 0-0/*\r\n\r\n0\r\n--x--\r\n')
  })

  it('[RFC 2046 §5.1.1] is taken apart into the bytes that were put in', () => {
    const boundary = 'c0ffee00c0ffee00'
    const spans = fc.array(fc.tuple(fc.nat(49), fc.nat(49)), { minLength: 1, maxLength: 5 })
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 50, maxLength: 50 }), spans, (bytes, ends) => {
        const body = Buffer.from(bytes)
        const parts = ends.map(([a, b]) => {
          const [first, last] = [Math.min(a, b), Math.max(a, b)]
          return { first, last, body: body.subarray(first, last + 1) }
        })
        const sent = multipartBody(parts, 50, 'application/octet-stream', boundary)
        expect(readMultipart(sent, boundary)).toEqual(
          parts.map(({ first, last }) => ({
            head: `Content-Type: application/octet-stream\r\nContent-Range: bytes ${first}-${last}/50`,
            body: body.subarray(first, last + 1).toString('latin1'),
          })),
        )
      }),
    )
  })
})

/** A reader of its own: delimiters begin a line, the line break before them is theirs. */
function readMultipart(sent: Buffer, boundary: string): { head: string; body: string }[] {
  const pieces = `\r\n${sent.toString('latin1')}`.split(`\r\n--${boundary}`)
  expect(pieces[0]).toBe('')
  expect(pieces.at(-1)).toBe('--\r\n')
  return pieces.slice(1, -1).map((piece) => {
    expect(piece.startsWith('\r\n')).toBe(true)
    const end = piece.indexOf('\r\n\r\n')
    return { head: piece.slice(2, end), body: piece.slice(end + 4) }
  })
}

describe('parts of one representation', () => {
  const add = (...parts: Part[]) =>
    parts.reduce<readonly Part[] | null>((held, each) => held && addPart(held, each, 10), [])

  it.each([
    ['nothing', [], '0-9', '0-9'],
    ['what touches', [part(0, 3)], '4-9', '4-9'],
    ['what overlaps at its beginning', [part(0, 5)], '3-9', '6-9'],
    ['what overlaps at its end', [part(5, 9)], '0-6', '0-4'],
    ['what lies inside it', [part(3, 4)], '0-9', '0-2 5-9'],
    ['what holds it', [part(0, 9)], '3-4', ''],
    ['the same', [part(3, 4)], '3-4', ''],
    ['several', [part(8, 8), part(2, 3)], '1-9', '1-1 4-7 9-9'],
  ])('[RFC 9110 §15.3.7.3] beside %s bring just what is new', (_what, held, added, expected) => {
    const [first = 0, last = 0] = added.split('-').map(Number)
    const all = addPart(held, part(first, last), 10)
    expect(all?.slice(0, held.length)).toEqual(held)
    const news = all?.slice(held.length) ?? []
    expect(news.map((each) => `${each.first}-${each.last}`).join(' ')).toBe(expected)
    for (const each of news) expect(each).toEqual(part(each.first, each.last))
    expect(gapsIn({ first: 0, last: 9 }, all ?? [])).toEqual(
      gapsIn({ first: 0, last: 9 }, [...held, part(first, last)]),
    )
  })

  it.each([
    ['a byte at the edge', part(3, 9), { first: 0, last: 3, body: Buffer.from('012x') }],
    ['bytes inside', part(0, 9), { first: 4, last: 5, body: Buffer.from('4x') }],
    ['the same bytes', part(4, 5), { first: 4, last: 5, body: Buffer.from('x5') }],
  ])('that disagree on %s are not of one, whatever their validators say', (_what, a, b) => {
    expect(add(a, b)).toBeNull()
    expect(add(b, a)).toBeNull()
  })

  it('hold no larger buffers alive than their bytes', () => {
    const [, ...added] = add(part(3, 4), part(0, 9)) ?? []
    expect(added.map(({ body }) => body.buffer.byteLength)).toEqual([3, 5])
  })

  it('are no more bytes than allowed: beyond that the newest stays alone', () => {
    expect(addPart([part(0, 3)], part(6, 7), 6)).toHaveLength(2)
    expect(addPart([part(0, 3)], part(6, 8), 6)).toEqual([part(6, 8)])
  })

  it('that touch are joined where there are too many; and where that does not help the newest stays alone', () => {
    const bytes = Buffer.from(Array.from({ length: 4 * MAX_HELD_PARTS }, (_, at) => at % 251))
    const byte = (at: number): Part => ({ first: at, last: at, body: bytes.subarray(at, at + 1) })
    const addAll = (places: readonly number[]) => {
      let [held, most]: [readonly Part[], number] = [[], 0]
      for (const at of places) {
        held = addPart(held, byte(at), Infinity) ?? []
        most = Math.max(most, held.length)
      }
      return { held, most }
    }
    const beside = addAll(Array.from({ length: bytes.length }, (_, at) => at))
    expect(beside.most).toBe(MAX_HELD_PARTS)
    expect(cutFrom(beside.held, { first: 0, last: bytes.length - 1 })).toEqual(bytes)
    const apart = addAll(Array.from({ length: MAX_HELD_PARTS + 1 }, (_, at) => 2 * at))
    expect(apart).toEqual({ held: [byte(2 * MAX_HELD_PARTS)], most: MAX_HELD_PARTS })
  })

  it('answer with the bytes of a span where they hold all of them', () => {
    const held = [part(4, 6), part(0, 1), part(7, 8)]
    const cut = (first: number, last: number) => cutFrom(held, { first, last })?.toString() ?? null
    expect([cut(0, 1), cut(5, 8), cut(4, 4), cut(0, 2), cut(1, 4), cut(8, 9), cut(9, 9)]).toEqual([
      '01',
      '5678',
      '4',
      null,
      null,
      null,
      null,
    ])
    expect([cut(0, Infinity), cut(Infinity, Infinity)]).toEqual([null, null])
  })

  it('put together in any order are the bytes that they were cut from', () => {
    const length = 40
    const spans = fc.array(fc.tuple(fc.nat(length - 1), fc.nat(length - 1)), { minLength: 1, maxLength: 30 })
    fc.assert(
      fc.property(fc.uint8Array({ minLength: length, maxLength: length }), spans, (bytes, ends) => {
        const body = Buffer.from(bytes)
        const have = new Set<number>()
        let held: readonly Part[] = []
        for (const [a, b] of ends) {
          const [first, last] = [Math.min(a, b), Math.max(a, b)]
          for (let at = first; at <= last; at++) have.add(at)
          held = addPart(held, { first, last, body: Buffer.from(body.subarray(first, last + 1)) }, length) ?? []
          expect(lengthOf(held)).toBe(have.size)
        }
        for (let at = 0; at < length; at++) {
          expect(cutFrom(held, { first: at, last: at })).toEqual(have.has(at) ? body.subarray(at, at + 1) : null)
        }
        const gaps = gapsIn({ first: 0, last: length - 1 }, held)
        const missing = gaps.flatMap(({ first, last }) => Array.from({ length: last - first + 1 }, (_, i) => first + i))
        expect(missing).toEqual(Array.from({ length }, (_, at) => at).filter((at) => !have.has(at)))
      }),
    )
  })
})
