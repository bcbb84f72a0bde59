// HTTP dates (RFC 9110 §5.6.7): the one form that is written and the three that are read. Strict but for letter case:
// `Date.parse` takes "UTC", one-digit hours and two-digit years in any form, and so revives responses that have expired.
//
// The two-digit year of the RFC 850 form is completed by its weekday. A century moves every date by 5 or 6 weekdays, so
// only one century fits; for any date within fifty years that is the one the RFC asks for, and no clock is needed.

import { remember } from '../core/remember.ts'

const MONTHS = ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec']
const WEEKDAYS = ['sunday', 'monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday']

const SHORT_DAY = WEEKDAYS.map((weekday) => weekday.slice(0, 3)).join('|')
const LONG_DAY = WEEKDAYS.join('|')
const MONTH = `(?<month>${MONTHS.join('|')})`
// 60 is a leap second.
const TIME = String.raw`(?<hour>[01]\d|2[0-3]):(?<minute>[0-5]\d):(?<second>[0-5]\d|60)`

const IMF_FIXDATE = new RegExp(String.raw`^(?:${SHORT_DAY}), (?<day>\d\d) ${MONTH} (?<year>\d{4}) ${TIME} gmt$`, 'i')
const RFC_850 = new RegExp(String.raw`^(?<weekday>${LONG_DAY}), (?<day>\d\d)-${MONTH}-(?<year>\d\d) ${TIME} gmt$`, 'i')
const ASCTIME = new RegExp(String.raw`^(?:${SHORT_DAY}) ${MONTH} (?<day>\d\d| \d) ${TIME} (?<year>\d{4})$`, 'i')

/** Answers of one second have the same. */
const MAX_KNOWN_DATES = 200

/** Epoch milliseconds, years 0000 to 9999; null for anything but the three forms and for days that do not exist. */
export const parseHttpDate = remember((text): number | null => {
  const fields = (IMF_FIXDATE.exec(text) ?? RFC_850.exec(text) ?? ASCTIME.exec(text))?.groups
  if (fields === undefined) return null
  const year = Number(fields['year'])
  const month = MONTHS.indexOf((fields['month'] ?? '').toLowerCase())
  const day = Number(fields['day'])
  const weekday = fields['weekday']?.toLowerCase()
  const midnightMs = weekday === undefined ? midnight(year, month, day) : midnightOn(weekday, year, month, day)
  if (midnightMs === null) return null
  return midnightMs + ((Number(fields['hour']) * 60 + Number(fields['minute'])) * 60 + Number(fields['second'])) * 1000
}, MAX_KNOWN_DATES)

/** IMF-fixdate in whole seconds, rounded down. epochMs: within the years 0000 to 9999. */
export const formatHttpDate = (epochMs: number): string => new Date(epochMs).toUTCString()

/** The start of a day in epoch milliseconds. month: 0-11. null for 30 February and its kind, which end up in the next month. */
function midnight(year: number, month: number, day: number): number | null {
  // Not Date.UTC, which takes the years 0 to 99 for 1900 to 1999.
  const date = new Date(0)
  date.setUTCFullYear(year, month, day)
  return date.getUTCMonth() === month ? date.getTime() : null
}

function midnightOn(weekday: string, yearOfCentury: number, month: number, day: number): number | null {
  for (const century of [1900, 2000]) {
    const ms = midnight(century + yearOfCentury, month, day)
    if (ms !== null && WEEKDAYS[new Date(ms).getUTCDay()] === weekday) return ms
  }
  return null
}
