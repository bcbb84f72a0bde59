import { describe, expect, it } from 'vitest'
import { cookieValues, readCookies } from '../../src/http/cookies.ts'

describe('[RFC 6265 §4.2.1] the cookies of a request', () => {
  it.each([
    [[], []],
    [['Cookie', ''], []],
    [
      ['cookie', 'a=1'],
      ['a', '1'],
    ],
    [
      ['Cookie', 'a=1; b="2"; A=;'],
      ['a', '1', 'b', '"2"', 'A', ''],
    ],
    [
      ['Cookie', 'a=1;b=x=y', 'X', 'c=1', 'COOKIE', 'a=3'],
      ['a', '1', 'b', 'x=y', 'a', '3'],
    ],
  ])('of %j are %j', (headers, expected) => {
    expect(readCookies(headers)).toEqual(expected)
  })

  it.each(['a', '=1', 'a b=1', 'a="x; b=2"', 'a="', 'a=x"y"', 'a=1,b=2', 'a=x y', 'a=1; b', 'a=\\1', 'a=\u00e9'])(
    'cannot be read in one way only in %s',
    (line) => {
      expect(readCookies(['Cookie', 'c=1', 'Cookie', line])).toBeNull()
    },
  )

  it('are looked up by their exact names, all values in order', () => {
    const cookies = readCookies(['Cookie', 'a=b; A=2; b=a; a=1']) ?? []
    expect(['a', 'A', 'b', 'c'].map((name) => cookieValues(cookies, name))).toEqual([['b', '1'], ['2'], ['a'], []])
  })
})
