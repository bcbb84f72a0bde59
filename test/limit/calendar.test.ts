import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MONTH_MS, compileCalendar, isAlignable, isTimeZone } from '../../src/limit/calendar.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
const WEEK_MS = 7 * DAY_MS

function windowAt(windowMs: number, zone: string, now: string): [start: string, end: string] {
  const calendar = compileCalendar(windowMs, zone)
  const nowMs = Date.parse(now)
  const short = (ms: number) => new Date(ms).toISOString().replace(':00.000Z', 'Z')
  return [short(calendar.startMs(nowMs)), short(calendar.endMs(nowMs))]
}

describe('a window of the calendar', () => {
  it.each([
    // In UTC.
    [DAY_MS, 'UTC', '2026-11-22T10:00Z', '2026-11-22T00:00Z', '2026-11-23T00:00Z'],
    [DAY_MS, 'UTC', '2026-11-22T00:00Z', '2026-11-22T00:00Z', '2026-11-23T00:00Z'],
    [DAY_MS, 'UTC', '2026-11-22T23:59:59.999Z', '2026-11-22T00:00Z', '2026-11-23T00:00Z'],
    [6 * HOUR_MS, 'UTC', '2026-11-22T13:10Z', '2026-11-22T12:00Z', '2026-11-22T18:00Z'],
    // A Sunday and a Monday.
    [WEEK_MS, 'UTC', '2026-11-22T10:00Z', '2026-11-16T00:00Z', '2026-11-23T00:00Z'],
    [WEEK_MS, 'UTC', '2026-11-23T00:00Z', '2026-11-23T00:00Z', '2026-11-30T00:00Z'],
    [MONTH_MS, 'UTC', '2026-11-22T10:00Z', '2026-11-01T00:00Z', '2026-12-01T00:00Z'],
    [MONTH_MS, 'UTC', '2028-02-29T23:59Z', '2028-02-01T00:00Z', '2028-03-01T00:00Z'],
    [MONTH_MS, 'UTC', '2026-12-31T23:59Z', '2026-12-01T00:00Z', '2027-01-01T00:00Z'],
    // Half an hour off.
    [DAY_MS, 'Asia/Kolkata', '2026-11-22T18:29Z', '2026-11-21T18:30Z', '2026-11-22T18:30Z'],
    [DAY_MS, 'Asia/Kolkata', '2026-11-22T18:30Z', '2026-11-22T18:30Z', '2026-11-23T18:30Z'],
    [HOUR_MS, 'Asia/Kolkata', '2026-11-22T18:40Z', '2026-11-22T18:30Z', '2026-11-22T19:30Z'],
    [MONTH_MS, 'Asia/Kolkata', '2026-11-30T18:30Z', '2026-11-30T18:30Z', '2026-12-31T18:30Z'],
    // West of Greenwich, another day than in UTC.
    [DAY_MS, 'America/New_York', '2026-11-23T03:00Z', '2026-11-22T05:00Z', '2026-11-23T05:00Z'],
    // The day on which clocks go back has 25 hours, the one on which they go forward 23.
    [DAY_MS, 'Europe/Berlin', '2026-10-25T00:30Z', '2026-10-24T22:00Z', '2026-10-25T23:00Z'],
    [DAY_MS, 'Europe/Berlin', '2026-10-25T12:00Z', '2026-10-24T22:00Z', '2026-10-25T23:00Z'],
    [DAY_MS, 'Europe/Berlin', '2026-10-26T12:00Z', '2026-10-25T23:00Z', '2026-10-26T23:00Z'],
    [DAY_MS, 'Europe/Berlin', '2026-03-29T12:00Z', '2026-03-28T23:00Z', '2026-03-29T22:00Z'],
    [WEEK_MS, 'Europe/Berlin', '2026-10-25T12:00Z', '2026-10-18T22:00Z', '2026-10-25T23:00Z'],
    [MONTH_MS, 'Europe/Berlin', '2026-10-05T12:00Z', '2026-09-30T22:00Z', '2026-10-31T23:00Z'],
    // Parts of such a day: what is left over at its end is a window of its own.
    [6 * HOUR_MS, 'Europe/Berlin', '2026-10-25T03:30Z', '2026-10-24T22:00Z', '2026-10-25T04:00Z'],
    [6 * HOUR_MS, 'Europe/Berlin', '2026-10-25T22:30Z', '2026-10-25T22:00Z', '2026-10-25T23:00Z'],
    [6 * HOUR_MS, 'Europe/Berlin', '2026-03-29T18:00Z', '2026-03-29T17:00Z', '2026-03-29T22:00Z'],
    // Clocks that jump over midnight (Beirut), and that show it twice (Havana).
    [DAY_MS, 'Asia/Beirut', '2026-03-29T12:00Z', '2026-03-28T22:00Z', '2026-03-29T21:00Z'],
    [DAY_MS, 'America/Havana', '2026-11-01T12:00Z', '2026-11-01T04:00Z', '2026-11-02T05:00Z'],
    [DAY_MS, 'America/Havana', '2026-11-01T05:30Z', '2026-11-01T04:00Z', '2026-11-02T05:00Z'],
  ])('of %i ms in %s at %s goes from %s to %s', (windowMs, zone, now, start, end) => {
    expect(windowAt(windowMs, zone, now)).toEqual([start, end])
  })

  it.each(['UTC', 'Europe/Berlin', 'America/Havana', 'Asia/Beirut', 'Asia/Kolkata', 'Australia/Lord_Howe'])(
    'in %s holds now, ends where the next begins, and is the same for whoever looks first',
    (zone) => {
      const lengths = fc.constantFrom(1000, 60_000, HOUR_MS, 6 * HOUR_MS, DAY_MS, WEEK_MS, MONTH_MS)
      const times = fc.integer({ min: Date.parse('2026-01-01'), max: Date.parse('2028-01-01') })
      fc.assert(
        fc.property(lengths, times, fc.double({ min: 0, max: 1, noNaN: true }), (windowMs, nowMs, part) => {
          const calendar = compileCalendar(windowMs, zone)
          const [startMs, endMs] = [calendar.startMs(nowMs), calendar.endMs(nowMs)]
          expect(startMs).toBeLessThanOrEqual(nowMs)
          expect(endMs).toBeGreaterThan(nowMs)
          const within = Math.min(endMs - 1, Math.floor(startMs + part * (endMs - startMs)))
          const other = compileCalendar(windowMs, zone)
          expect([other.startMs(within), other.endMs(within)]).toEqual([startMs, endMs])
          expect(other.startMs(endMs)).toBe(endMs)
          expect(other.endMs(startMs - 1)).toBe(startMs)
        }),
        { numRuns: 200 },
      )
    },
  )

  it.each([
    [MONTH_MS, true],
    [WEEK_MS, true],
    [DAY_MS, true],
    [12 * HOUR_MS, true],
    [1000, true],
    [500, false],
    [7 * HOUR_MS, false],
    [2 * DAY_MS, false],
    [30 * DAY_MS, false],
  ])('of %i ms can be aligned: %j', (windowMs, expected) => {
    expect(isAlignable(windowMs)).toBe(expected)
  })

  it('is of a zone that the system knows', () => {
    expect(['UTC', 'Europe/Berlin', 'Mars/Olympus', ''].map(isTimeZone)).toEqual([true, true, false, false])
  })
})
