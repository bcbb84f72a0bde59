// The three date forms and nothing else: see src/http/date.ts.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatHttpDate, parseHttpDate } from '../../src/http/date.ts'

describe('reading', () => {
  it.each([
    ['Sun, 06 Nov 1994 08:49:37 GMT', '1994-11-06T08:49:37Z'],
    ['Sunday, 06-Nov-94 08:49:37 GMT', '1994-11-06T08:49:37Z'],
    ['Sun Nov  6 08:49:37 1994', '1994-11-06T08:49:37Z'],
    ['Wed Nov 16 08:49:37 1994', '1994-11-16T08:49:37Z'],
    ['Tue, 19 Jan 2038 14:14:08 GMT', '2038-01-19T14:14:08Z'],
    ['Sun, 21 Nov 2286 04:46:39 GMT', '2286-11-21T04:46:39Z'],
    ['Thu Aug  8 02:01:18 2050', '2050-08-08T02:01:18Z'],
    ['THU, 18 AUG 2050 02:01:18 gMT', '2050-08-18T02:01:18Z'],
    ['thursday, 18-aug-50 02:01:18 gmt', '2050-08-18T02:01:18Z'],
    ['Mon, 01 Jan 0001 00:00:00 GMT', '0001-01-01T00:00:00Z'],
    ['Thu, 29 Feb 2024 23:59:59 GMT', '2024-02-29T23:59:59Z'],
    ['Sat, 31 Dec 2016 23:59:60 GMT', '2017-01-01T00:00:00Z'],
    ['Saturday, 31-Dec-16 23:59:60 GMT', '2017-01-01T00:00:00Z'],
  ])('[RFC 9110 §5.6.7] %s', (text, iso) => {
    expect(parseHttpDate(text)).toBe(Date.parse(iso))
  })

  it.each([
    ['Thursday, 18-Aug-50 02:01:18 GMT', 2050],
    ['Friday, 18-Aug-50 02:01:18 GMT', 1950],
    ['Friday, 31-Dec-99 23:59:59 GMT', 1999],
    ['Saturday, 01-Jan-00 00:00:00 GMT', 2000],
    ['Tuesday, 29-Feb-00 00:00:00 GMT', 2000],
  ])('[RFC 9110 §5.6.7] the weekday tells the century of %s', (text, year) => {
    expect(new Date(parseHttpDate(text) ?? Number.NaN).getUTCFullYear()).toBe(year)
  })

  it.each([
    '',
    '0',
    '-1',
    'Thu, 18 Aug 2050 02:01:18 UTC',
    'Thu, 18 Aug 2050 02:01:18 AEST',
    'Thu, 18 Aug 2050 02:01:18 +0000',
    'Thu, 18 Aug 2050 02:01:18',
    'Thu, 18 Aug 50 02:01:18 GMT',
    'Thu 18 Aug 2050 02:01:18 GMT',
    'Thu, 18  Aug  2050 02:01:18 GMT',
    'Thu, 18-Aug-2050 02:01:18 GMT',
    'Thu, 18 Aug 2050 02.01.18 GMT',
    'Thu, 18 Aug 2050 2:01:18 GMT',
    'Thu, 8 Aug 2050 02:01:18 GMT',
    'Thu, 18 Aug 2050 02:01:18 GMT, Thu, 18 Aug 2050 02:01:19 GMT',
    ' Thu, 18 Aug 2050 02:01:18 GMT',
    'Thu, 18 Aug 2050 02:01:18 GMT\n',
    'Thu, 31 Feb 2050 02:01:18 GMT',
    'Thu, 29 Feb 2023 02:01:18 GMT',
    'Thu, 00 Aug 2050 02:01:18 GMT',
    'Thu, 32 Aug 2050 02:01:18 GMT',
    'Thu, 18 Aug 2050 24:00:00 GMT',
    'Thu, 18 Aug 2050 02:60:18 GMT',
    'Thu, 18 Aug 2050 02:01:61 GMT',
    'Thu, 18 Agu 2050 02:01:18 GMT',
    'Thr, 18 Aug 2050 02:01:18 GMT',
    'Thu, 18-Aug-50 02:01:18 GMT',
    'Monday, 18-Aug-50 02:01:18 GMT',
    'Thursday, 18 Aug 2050 02:01:18 GMT',
    'Thu Aug 8 02:01:18 2050',
    'Thu Aug 08 02:01:18 2050 GMT',
    '2050-08-18T02:01:18Z',
  ])('[RFC 9110 §5.6.7] %j is no date', (text) => {
    expect(parseHttpDate(text)).toBeNull()
  })
})

describe('writing', () => {
  it('[RFC 9110 §5.6.7] gives IMF-fixdate in whole seconds', () => {
    expect(formatHttpDate(Date.UTC(1994, 10, 6, 8, 49, 37, 999))).toBe('Sun, 06 Nov 1994 08:49:37 GMT')
  })

  it('is what reading takes, in any year of four digits', () => {
    const min = Date.parse('0000-01-01T00:00:00Z') / 1000
    const max = Date.parse('9999-12-31T23:59:59Z') / 1000
    fc.assert(
      fc.property(fc.integer({ min, max }), (seconds) => {
        expect(parseHttpDate(formatHttpDate(seconds * 1000))).toBe(seconds * 1000)
      }),
    )
  })
})
