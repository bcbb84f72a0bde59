// Which bytes a Range asks for, and how parts are described, sent and combined: see src/http/range.ts.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  MAX_PARTS,
  type Part,
  type RangeVerdict,
  combineSpans,
  contentRange,
  multipartBody,
  multipartType,
  parseContentRange,
  parseRange,
  rangeWithin,
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

describe('a stored part', () => {
  const stored = { first: 4, last: 9, completeLength: 20 }
  it.each([
    ['bytes=4-9', '4-9'],
    ['bytes=6-8', '6-8'],
    ['bytes=6-7,8-8', '6-8'],
    ['bytes=3-8', null],
    ['bytes=6-10', null],
    ['bytes=6-', null],
    ['bytes=-5', null],
    ['bytes=4-5,8-9', null],
    ['bytes=20-', null],
    ['items=6-8', null],
    ['bytes=8-6', null],
  ])('[RFC 9111 §3.3] bytes 4-9 of 20 answers %s with %s', (value, part) => {
    const span = rangeWithin(value, stored)
    expect(span && written([span])).toBe(part)
  })

  it.each([
    ['bytes=6-', { first: 4, last: 9, completeLength: 10 }, '6-9'],
    ['bytes=6-99', { first: 4, last: 9, completeLength: 10 }, '6-9'],
    ['bytes=-5', { first: 4, last: 9, completeLength: 10 }, '5-9'],
    ['bytes=-7', { first: 4, last: 9, completeLength: 10 }, null],
    ['bytes=6-8', { first: 4, last: 9, completeLength: null }, '6-8'],
    ['bytes=6-', { first: 4, last: 9, completeLength: null }, null],
    ['bytes=6-10', { first: 4, last: 9, completeLength: null }, null],
    ['bytes=-5', { first: 4, last: 9, completeLength: null }, null],
    [`bytes=${HUGE}-`, { first: 4, last: 9, completeLength: null }, null],
  ])('[RFC 9111 §3.3] %.40s of the part %j is %s', (value, part, expected) => {
    const span = rangeWithin(value, part)
    expect(span && written([span])).toBe(expected)
  })
})

describe('an answer of several parts', () => {
  it('[RFC 9110 §14.6, §15.3.7.2] names type and place of each, and no length', () => {
    const parts = [
      { first: 7, last: 9 },
      { first: 0, last: 1 },
    ]
    expect(multipartBody(parts, Buffer.from('0123456789'), 'text/plain; charset=utf-8', 'b0undary').toString()).toBe(
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

  it('[RFC 9110 §15.3.7.2] gives no type where the whole has none', () => {
    const body = multipartBody([{ first: 0, last: 0 }], Buffer.from('a'), null, 'x').toString()
    expect(body).toBe('--x\r\nContent-Range: bytes 0-0/1\r\n\r\na\r\n--x--\r\n')
  })

  it('[RFC 2046 §5.1.1] is taken apart into the bytes that were put in', () => {
    const boundary = 'c0ffee00c0ffee00'
    const spans = fc.array(fc.tuple(fc.nat(49), fc.nat(49)), { minLength: 1, maxLength: 5 })
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 50, maxLength: 50 }), spans, (bytes, ends) => {
        const body = Buffer.from(bytes)
        const parts = ends.map(([a, b]) => ({ first: Math.min(a, b), last: Math.max(a, b) }))
        const sent = multipartBody(parts, body, 'application/octet-stream', boundary)
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

describe('two parts of one representation', () => {
  const WHOLE = Buffer.from('0123456789')
  const part = (first: number, last: number): Part => ({ first, last, body: WHOLE.subarray(first, last + 1) })

  it.each([
    ['touch', part(0, 3), part(4, 9), '0-9'],
    ['overlap', part(0, 5), part(3, 9), '0-9'],
    ['overlap in a byte', part(2, 4), part(4, 6), '2-6'],
    ['begin together', part(0, 3), part(0, 6), '0-6'],
    ['end together', part(3, 9), part(5, 9), '3-9'],
    ['hold one another', part(1, 8), part(3, 4), '1-8'],
    ['are the same', part(3, 4), part(3, 4), '3-4'],
  ])('[RFC 9110 §15.3.7.3] that %s are one, whichever came first', (_how, a, b, expected) => {
    for (const combined of [combineSpans(a, b), combineSpans(b, a)]) {
      expect(combined && written([combined])).toBe(expected)
      expect(combined?.body.toString()).toBe(WHOLE.subarray(combined?.first, (combined?.last ?? 0) + 1).toString())
    }
  })

  it('[RFC 9110 §15.3.7.3] with a gap between them stay two', () => {
    expect(combineSpans(part(0, 3), part(5, 9))).toBeNull()
    expect(combineSpans(part(5, 9), part(0, 3))).toBeNull()
  })

  it.each([
    ['one byte', { first: 0, last: 3, body: Buffer.from('012x') }, part(3, 9)],
    ['a part inside', part(0, 9), { first: 4, last: 5, body: Buffer.from('4x') }],
    ['the same part', part(4, 5), { first: 4, last: 5, body: Buffer.from('x5') }],
  ])('that disagree on %s are not of one representation, whatever their validators say', (_what, a, b) => {
    expect(combineSpans(a, b)).toBeNull()
    expect(combineSpans(b, a)).toBeNull()
  })

  it('are the larger one where it holds the other', () => {
    const [whole, start] = [part(0, 9), part(0, 3)]
    expect(combineSpans(start, whole)).toBe(whole)
    expect(combineSpans(whole, start)).toBe(whole)
  })

  it('make a buffer of just their bytes, and leave the two as they were', () => {
    const [a, b] = [part(0, 5), part(4, 9)]
    const combined = combineSpans(a, b)
    expect(combined?.body.buffer.byteLength).toBe(10)
    combined?.body.fill(0)
    expect(WHOLE.toString()).toBe('0123456789')
  })
})
