// When a 304 is enough, what it carries and what it updates: see src/http/conditional.ts.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  CONDITIONAL_FIELDS,
  compareWithHead,
  freshenHeaders,
  ifRangeMatches,
  isNotModified,
  notModifiedHeaders,
  sameRepresentation,
  sharesStrongValidator,
  validatorsOf,
  withStrongIfMatch,
} from '../../src/http/conditional.ts'
import { getHeaders } from '../../src/http/headers.ts'

const MONDAY = 'Mon, 07 Nov 1994 08:49:37 GMT'
const SUNDAY = 'Sun, 06 Nov 1994 08:49:37 GMT'
const SUNDAY_IN_FULL = 'Sunday, 06-Nov-94 08:49:37 GMT'
const A_SECOND_LATER = 'Sun, 06 Nov 1994 08:49:38 GMT'

describe('If-None-Match', () => {
  it.each([
    ['"abc"', '"abc"', true],
    ['"abc"', '"abd"', false],
    ['"abc"', '"ABC"', false],
    ['W/"abc"', '"abc"', true],
    ['"abc"', 'W/"abc"', true],
    ['W/"abc"', 'W/"abc"', true],
    ['"abc", "1", "2"', '"abc"', true],
    ['"1","abc","2"', '"abc"', true],
    ['"1", W/"2" ,, "abc"\t', '"abc"', true],
    ['"1", "2"', '"abc"', false],
    ['"a,b"', '"a,b"', true],
    ['"x, "abc", "', '"abc"', false],
    ['"a,b", "c"', '"c"', true],
    [String.raw`"a\", "b"`, '"b"', true],
    ['"\xfc"', '"\xfc"', true],
    ['""', '""', true],
    ['abc', '"abc"', false],
    ['"abc"', 'abc', false],
    ['abc', 'abc', true],
    ['w/"abc"', '"abc"', false],
    ['x "abc"', '"abc"', false],
    ['', '"abc"', false],
    [' * ', '"abc"', true],
    ['"*"', '"abc"', false],
    ['*, "1"', '"abc"', false],
  ])('[RFC 9110 §13.1.2] %s against %s matches: %s', (list, tag, expected) => {
    expect(isNotModified(['if-none-match', list], ['ETag', tag])).toBe(expected)
  })

  it('[RFC 9110 §5.3] takes several lines as one list', () => {
    expect(isNotModified(['If-None-Match', '"1"', 'if-none-match', '"abc"'], ['ETag', '"abc"'])).toBe(true)
  })

  it('[RFC 9110 §13.1.2] matches nothing without a tag, but * matches anything there is', () => {
    expect(isNotModified(['If-None-Match', '"abc"'], [])).toBe(false)
    expect(isNotModified(['If-None-Match', '*'], [])).toBe(true)
  })

  it('[RFC 9110 §13.1.3] is decisive where both conditions are present', () => {
    const response = ['ETag', '"abc"', 'Last-Modified', MONDAY]
    expect(isNotModified(['If-None-Match', '"abc"', 'If-Modified-Since', SUNDAY], response)).toBe(true)
    expect(isNotModified(['If-None-Match', '"x"', 'If-Modified-Since', MONDAY], response)).toBe(false)
    expect(isNotModified(['If-None-Match', '"x"', 'If-Modified-Since', MONDAY], ['Last-Modified', MONDAY])).toBe(false)
  })

  it('takes time in proportion to the length of blanks and quotes, not to its square', () => {
    const started = performance.now()
    expect(isNotModified(['If-None-Match', `${' '.repeat(100_000)};`], ['ETag', '"abc"'])).toBe(false)
    expect(isNotModified(['If-None-Match', `"${'a'.repeat(100_000)}`], ['ETag', '"abc"'])).toBe(false)
    expect(performance.now() - started).toBeLessThan(1000)
  })
})

describe('If-Modified-Since', () => {
  it.each([
    [MONDAY, MONDAY, true],
    [MONDAY, SUNDAY, true],
    [SUNDAY, MONDAY, false],
    ['Monday, 07-Nov-94 08:49:37 GMT', MONDAY, true],
    ['Mon Nov  7 08:49:37 1994', MONDAY, true],
    ['yesterday', SUNDAY, false],
    [MONDAY, 'yesterday', false],
    ['', SUNDAY, false],
  ])('[RFC 9110 §13.1.3] %s against %s is not modified: %s', (since, modified, expected) => {
    expect(isNotModified(['If-Modified-Since', since], ['last-modified', modified])).toBe(expected)
  })

  it('[RFC 9110 §13.1.3] is ignored when it comes twice', () => {
    expect(isNotModified(['If-Modified-Since', MONDAY, 'If-Modified-Since', MONDAY], ['Last-Modified', MONDAY])).toBe(
      false,
    )
  })

  it.each([
    [MONDAY, SUNDAY, true],
    [SUNDAY, SUNDAY, true],
    [SUNDAY, MONDAY, false],
    [MONDAY, 'yesterday', false],
  ])('[RFC 9111 §4.3.2] %s against a response of %s without Last-Modified: %s', (since, date, expected) => {
    expect(isNotModified(['If-Modified-Since', since], ['Date', date, 'ETag', '"abc"'])).toBe(expected)
  })

  it('[RFC 9111 §4.3.2] is not compared with Date beside a Last-Modified, readable or not', () => {
    expect(isNotModified(['If-Modified-Since', SUNDAY], ['Date', SUNDAY, 'Last-Modified', MONDAY])).toBe(false)
    expect(isNotModified(['If-Modified-Since', MONDAY], ['Date', SUNDAY, 'Last-Modified', 'yesterday'])).toBe(false)
  })

  it('compares with nothing where the response has no date at all', () => {
    expect(isNotModified(['If-Modified-Since', MONDAY], ['ETag', '"abc"'])).toBe(false)
  })
})

it('a request without conditions gets the whole response', () => {
  expect(isNotModified(['If-Match', '"abc"'], ['ETag', '"abc"', 'Last-Modified', MONDAY])).toBe(false)
})

describe('If-Range', () => {
  it.each([
    ['"abc"', ['ETag', '"abc"'], true],
    ['"abc"', ['ETag', '"abd"'], false],
    ['"abc"', ['ETag', 'W/"abc"'], false],
    ['W/"abc"', ['ETag', '"abc"'], false],
    ['W/"abc"', ['ETag', 'W/"abc"'], false],
    ['"abc"', ['Last-Modified', SUNDAY, 'Date', MONDAY], false],
    ['abc', ['ETag', 'abc'], false],
    ['*', ['ETag', '"abc"'], false],
    ['"abc", "def"', ['ETag', '"abc"'], false],
    ['', ['ETag', ''], false],
  ])('[RFC 9110 §13.1.5] the tag %s against %j matches: %s', (condition, response, expected) => {
    expect(ifRangeMatches(['Range', 'bytes=0-1', 'If-Range', condition], response)).toBe(expected)
  })

  it.each([
    ['the same date', SUNDAY, SUNDAY, MONDAY, true],
    ['the same date in another form', SUNDAY_IN_FULL, SUNDAY, MONDAY, true],
    ['the same date, of a response made a second later', SUNDAY, SUNDAY, A_SECOND_LATER, true],
    ['the same date, of a response made in that second', SUNDAY, SUNDAY, SUNDAY, false],
    ['the same date, of a response made before', MONDAY, MONDAY, SUNDAY, false],
    ['the same date, of a response made nobody knows when', SUNDAY, SUNDAY, 'yesterday', false],
    ['a later date', MONDAY, SUNDAY, MONDAY, false],
    ['an earlier date', SUNDAY, A_SECOND_LATER, MONDAY, false],
    ['no date', 'yesterday', 'yesterday', MONDAY, false],
  ])('[RFC 9110 §13.1.5, §8.8.2.2] %s', (_what, condition, modified, date, expected) => {
    const response = ['Date', date, 'Last-Modified', modified, 'ETag', '"abc"']
    expect(ifRangeMatches(['If-Range', condition], response)).toBe(expected)
  })

  it('[RFC 9110 §13.1.5] matches nothing when it comes twice, and anything when it does not come', () => {
    expect(ifRangeMatches(['If-Range', '"a"', 'if-range', '"a"'], ['ETag', '"a"'])).toBe(false)
    expect(ifRangeMatches(['Range', 'bytes=0-1'], [])).toBe(true)
  })

  it('[RFC 9110 §13.1.5] a date matches no response without one', () => {
    expect(ifRangeMatches(['If-Range', SUNDAY], ['Date', MONDAY, 'ETag', '"abc"'])).toBe(false)
  })
})

it('[RFC 9110 §15.4.5] a 304 carries what updates the stored response, and nothing of its body or its session', () => {
  const kept = ['Date', MONDAY, 'ETag', '"abc"', 'last-modified', SUNDAY, 'Vary', 'A', 'vary', 'B', 'Expires', MONDAY]
  kept.push('Cache-Control', 'max-age=1', 'Content-Location', '/a', 'CDN-Cache-Control', 'max-age=2')
  const ofBody = ['Content-Type', 'text/plain', 'Content-Length', '5', 'Content-Encoding', 'gzip']
  expect(notModifiedHeaders([...ofBody, ...kept, 'Set-Cookie', 'a=b', 'Server', 'x'])).toEqual(kept)
})

it.each([
  ['W/"a"', '"a"'],
  ['"b", W/"a"', '"b", "a"'],
  ['W/"a",W/"b"', '"a","b"'],
  ['"aW/", "b"', '"aW/", "b"'],
  ['W/"W/", "b"', '"W/", "b"'],
  ['"a"', '"a"'],
  ['*', '*'],
])('If-Match: %s in strong tags is %s', (before, after) => {
  expect(withStrongIfMatch(['A', 'b', 'if-match', before])).toEqual([
    'A',
    'b',
    expect.stringMatching(/^if-match$/i),
    after,
  ])
})

describe('asking whether a stored response is still good', () => {
  it.each([
    [
      ['ETag', '"a"'],
      ['If-None-Match', '"a"'],
    ],
    [
      ['etag', 'W/"a, b"'],
      ['If-None-Match', 'W/"a, b"'],
    ],
    [
      ['ETag', '""'],
      ['If-None-Match', '""'],
    ],
    [
      ['ETag', '"\xfc"'],
      ['If-None-Match', '"\xfc"'],
    ],
    [
      ['Last-Modified', SUNDAY],
      ['If-Modified-Since', SUNDAY],
    ],
    [
      ['Last-Modified', SUNDAY_IN_FULL],
      ['If-Modified-Since', SUNDAY_IN_FULL],
    ],
    [
      ['Last-Modified', SUNDAY, 'ETag', '"a"', 'Date', MONDAY],
      ['If-None-Match', '"a"', 'If-Modified-Since', SUNDAY],
    ],
    [['Date', MONDAY, 'Content-Length', '1'], []],
    [['Last-Modified', 'yesterday'], []],
    [['ETag', '', 'Last-Modified', ''], []],
  ])('[RFC 9111 §4.3.1] %j is done by %j', (stored, fields) => {
    expect(validatorsOf(stored)).toEqual(fields)
  })

  it('sends a tag without quotes as it came, to an origin that knows it by that', () => {
    expect(validatorsOf(['ETag', 'd41d8cd98f'])).toEqual(['If-None-Match', 'd41d8cd98f'])
  })

  it.each(['*', 'a,*', 'a, *', '*, "a"', '"a", "b"', '"a', 'a"', 'a b', '"a" b'])(
    'never asks by %j, which may match what is not stored',
    (tag) => {
      expect(validatorsOf(['ETag', tag])).toEqual([])
    },
  )

  it('asks what the same response answers with yes', () => {
    const field = fc.constantFrom('"a"', 'W/"a"', '""', '"a,b"', 'a', '*', '', '"', SUNDAY, MONDAY, 'x')
    fc.assert(
      fc.property(field, field, (tag, date) => {
        const stored = ['ETag', tag, 'Last-Modified', date]
        const asked = validatorsOf(stored)
        fc.pre(asked.length > 0)
        expect(isNotModified(asked, stored)).toBe(true)
        expect(sameRepresentation(stored, stored)).toBe(true)
      }),
    )
  })
})

describe('a 304', () => {
  const TAGGED = ['ETag', '"a"', 'Date', MONDAY]
  const WEAK = ['ETag', 'W/"a"', 'Date', MONDAY]
  const DATED = ['Last-Modified', SUNDAY, 'Date', MONDAY]
  const BOTH = ['ETag', '"a"', 'Last-Modified', SUNDAY, 'Date', MONDAY]
  const WEAK_BOTH = ['ETag', 'W/"a"', 'Last-Modified', SUNDAY, 'Date', MONDAY]
  const FRESHLY_DATED = ['Last-Modified', SUNDAY, 'Date', SUNDAY]

  it.each([
    ['the same strong tag', TAGGED, ['ETag', '"a"'], true],
    ['another strong tag', TAGGED, ['ETag', '"b"'], false],
    ['another strong tag and the same date', BOTH, ['ETag', '"b"', 'Last-Modified', SUNDAY], false],
    ['the same strong tag and another date', BOTH, ['ETag', '"a"', 'Last-Modified', MONDAY], true],
    ['the same weak tag', WEAK, ['ETag', 'W/"a"'], true],
    ['another weak tag', WEAK, ['ETag', 'W/"b"'], false],
    ['another weak tag and the same date', WEAK_BOTH, ['ETag', 'W/"b"', 'Last-Modified', SUNDAY], false],
    ['a weak tag for the strong one', TAGGED, ['ETag', 'W/"a"'], true],
    ['a strong tag for the weak one', WEAK, ['ETag', '"a"'], false],
    ['a strong tag for the weak one, and the same date', WEAK_BOTH, ['ETag', '"a"', 'Last-Modified', SUNDAY], true],
    ['the same tag without quotes', ['ETag', 'a'], ['ETag', 'a'], true],
    ['the same date', DATED, ['Last-Modified', SUNDAY], true],
    ['the same date in another form', DATED, ['Last-Modified', SUNDAY_IN_FULL], true],
    ['the same date, which is a weak one', FRESHLY_DATED, ['Last-Modified', SUNDAY], true],
    ['another date', DATED, ['Last-Modified', MONDAY], false],
    ['the same date, and no tag any more', BOTH, ['Last-Modified', SUNDAY], true],
    ['another date, and no tag any more', BOTH, ['Last-Modified', MONDAY], false],
    ['a date where there was none', TAGGED, ['Last-Modified', SUNDAY], false],
    ['a tag where there was none', DATED, ['ETag', '"a"'], false],
    ['a tag where there was none, and the same date', DATED, ['ETag', '"a"', 'Last-Modified', SUNDAY], true],
    ['a tag and the same weak date', FRESHLY_DATED, ['ETag', '"a"', 'Last-Modified', SUNDAY], false],
    ['a tag, and nothing was known', ['Date', MONDAY], ['ETag', '"a"'], false],
    ['no validator, to the one condition that it was asked by', TAGGED, ['Date', MONDAY], true],
    ['a date that is none', TAGGED, ['Last-Modified', 'yesterday'], true],
  ])('[RFC 9111 §4.3.4] with %s', (_what, stored, from304, expected) => {
    expect(sameRepresentation(stored, from304)).toBe(expected)
  })

  const STORED = ['Date', SUNDAY, 'Server', 'a', 'X-A', '1', 'Cache-Control', 'no-cache', 'cache-control', 'max-age=1']

  it('[RFC 9111 §3.2] replaces the fields that it carries, in any case and with all their lines', () => {
    const from304 = ['cache-control', 'max-age=9', 'DATE', MONDAY, 'X-A', '2', 'x-a', '3', 'X-New', '4']
    expect(freshenHeaders(STORED, from304)).toEqual(['Server', 'a', ...from304])
  })

  it('[RFC 9111 §3.2] leaves alone the fields that it does not carry', () => {
    expect(freshenHeaders(STORED, [])).toEqual(STORED)
  })

  it.each([
    'Content-Type',
    'Content-Location',
    'Content-Security-Policy',
    'Content-MD5',
    'Content-Foo',
    'ETag',
    'Vary',
  ])('[RFC 9111 §3.2] replaces %s', (name) => {
    expect(freshenHeaders([name, 'old'], [name, 'new'])).toEqual([name, 'new'])
  })

  it.each(['Content-Length', 'content-encoding', 'Content-Range'])(
    '[RFC 9111 §3.2] neither replaces nor adds %s, which describes the bytes stored',
    (name) => {
      expect(freshenHeaders([name, 'old'], [name, 'new'])).toEqual([name, 'old'])
      expect(freshenHeaders(['A', '1'], [name, 'new'])).toEqual(['A', '1'])
    },
  )

  it.each(['Connection', 'Keep-Alive', 'Transfer-Encoding', 'Proxy-Authenticate', 'Upgrade', 'Trailer', 'TE'])(
    '[RFC 9111 §3.1] never brings in %s, which ends at this hop',
    (name) => {
      expect(freshenHeaders(['A', '1'], [name, 'x'])).toEqual(['A', '1'])
    },
  )

  it('[RFC 9111 §3.1] never brings in what its Connection names', () => {
    const from304 = ['Connection', 'close, X-Hop', 'X-Hop', '1', 'X-End', '2']
    expect(freshenHeaders(['X-Hop', 'kept'], from304)).toEqual(['X-Hop', 'kept', 'X-End', '2'])
  })

  it('[RFC 9111 §3.2] leaves the two as they were, and says the same when it comes again', () => {
    const name = fc.constantFrom('Date', 'date', 'X-A', 'Content-Length', 'Connection', 'Vary', 'vary')
    const headers = fc.array(fc.tuple(name, fc.constantFrom('1', '2', 'close')), { maxLength: 6 })
    fc.assert(
      fc.property(headers, headers, (a, b) => {
        const [stored, from304] = [Object.freeze(a.flat()), Object.freeze(b.flat())]
        const once = freshenHeaders(stored, from304)
        expect(freshenHeaders(once, from304)).toEqual(once)
        for (const field of ['date', 'x-a', 'vary']) {
          const brought = getHeaders(from304, field)
          expect(getHeaders(once, field)).toEqual(brought.length > 0 ? brought : getHeaders(stored, field))
        }
      }),
    )
  })
})

describe('the head of a 200 to HEAD', () => {
  const STORED = ['ETag', '"a"', 'Last-Modified', SUNDAY, 'Date', MONDAY]
  it.each([
    ['the same tag', ['ETag', '"a"'], 'same'],
    ['the same tag, now weak', ['ETag', 'W/"a"'], 'same'],
    ['another tag', ['ETag', '"b"'], 'changed'],
    ['another tag and the same date', ['ETag', '"b"', 'Last-Modified', SUNDAY], 'changed'],
    ['the same date', ['Last-Modified', SUNDAY_IN_FULL], 'same'],
    ['another date', ['Last-Modified', MONDAY], 'changed'],
    ['the same tag and another date', ['ETag', '"a"', 'Last-Modified', MONDAY], 'changed'],
    ['the same tag, date and length', [...STORED, 'Content-Length', '10'], 'same'],
    ['the same tag and another length', ['ETag', '"a"', 'Content-Length', '11'], 'changed'],
    ['another length alone', ['Content-Length', '11'], 'changed'],
    ['a length that is no number', ['ETag', '"a"', 'Content-Length', 'ten'], 'changed'],
    ['the same length alone', ['Content-Length', '10'], 'unproven'],
    ['neither validator nor length', ['Cache-Control', 'max-age=60'], 'unproven'],
  ] as const)('[RFC 9111 §4.3.5] with %s: %s', (_what, head, expected) => {
    expect(compareWithHead(STORED, head, 10)).toBe(expected)
  })

  it('[RFC 9111 §4.3.5] with a validator that the stored response lacks is of another one', () => {
    expect(compareWithHead(['Date', MONDAY], ['ETag', '"a"'], 10)).toBe('changed')
    expect(compareWithHead(['Date', MONDAY], ['Last-Modified', SUNDAY], 10)).toBe('changed')
  })
})

describe('parts that may be put together', () => {
  const later = ['Last-Modified', SUNDAY, 'Date', MONDAY]
  it.each([
    ['share a strong tag', ['ETag', '"a"'], ['ETag', '"a"'], true],
    ['share a weak tag', ['ETag', 'W/"a"'], ['ETag', 'W/"a"'], false],
    ['share a tag that is strong in one alone', ['ETag', '"a"'], ['ETag', 'W/"a"'], false],
    ['share a tag without quotes', ['ETag', 'a'], ['ETag', 'a'], false],
    ['have two strong tags', ['ETag', '"a"'], ['ETag', '"b"'], false],
    ['have two strong tags and share a date', ['ETag', '"a"', ...later], ['ETag', '"b"', ...later], false],
    ['share a date, and one has a tag', ['ETag', '"a"', ...later], later, false],
    ['share a strong date', later, later, true],
    ['share a date that is weak in one', later, ['Last-Modified', SUNDAY, 'Date', SUNDAY], false],
    ['have two dates', later, ['Last-Modified', A_SECOND_LATER, 'Date', MONDAY], false],
    ['have no validators', ['Date', MONDAY], ['Date', MONDAY], false],
  ])('[RFC 9111 §3.4, RFC 9110 §8.8.3.2] %s: %4$s', (_what, a, b, expected) => {
    expect(sharesStrongValidator(a, b)).toBe(expected)
    expect(sharesStrongValidator(b, a)).toBe(expected)
  })
})

it.each(['if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since', 'if-range'])(
  '[RFC 9110 §13.1] %s makes a request conditional',
  (name) => {
    expect(CONDITIONAL_FIELDS.has(name)).toBe(true)
  },
)
