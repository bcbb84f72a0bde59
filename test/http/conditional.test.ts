// When a 304 is enough, and what it carries: see src/http/conditional.ts.

import { describe, expect, it } from 'vitest'
import { CONDITIONAL_FIELDS, isNotModified, notModifiedHeaders } from '../../src/http/conditional.ts'

const MONDAY = 'Mon, 07 Nov 1994 08:49:37 GMT'
const SUNDAY = 'Sun, 06 Nov 1994 08:49:37 GMT'

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

  it('compares with nothing where the response has no Last-Modified', () => {
    expect(isNotModified(['If-Modified-Since', MONDAY], ['Date', SUNDAY, 'ETag', '"abc"'])).toBe(false)
  })
})

it('a request without conditions gets the whole response', () => {
  expect(isNotModified(['If-Match', '"abc"'], ['ETag', '"abc"', 'Last-Modified', MONDAY])).toBe(false)
})

it('[RFC 9110 §15.4.5] a 304 carries what updates the stored response, and nothing of its body or its session', () => {
  const kept = ['Date', MONDAY, 'ETag', '"abc"', 'last-modified', SUNDAY, 'Vary', 'A', 'vary', 'B', 'Expires', MONDAY]
  kept.push('Cache-Control', 'max-age=1', 'Content-Location', '/a')
  const ofBody = ['Content-Type', 'text/plain', 'Content-Length', '5', 'Content-Encoding', 'gzip']
  expect(notModifiedHeaders([...ofBody, ...kept, 'Set-Cookie', 'a=b', 'Server', 'x'])).toEqual(kept)
})

it.each(['if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since', 'if-range'])(
  '[RFC 9110 §13.1] %s makes a request conditional',
  (name) => {
    expect(CONDITIONAL_FIELDS.has(name)).toBe(true)
  },
)
