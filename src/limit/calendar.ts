// Where the windows of `align` begin: at each midnight in a time zone, every so many hours or minutes from there, on
// Mondays (ISO 8601), or on the first of each month. Zones move by daylight saving, so a day there has 23, 24 or 25
// hours, and the last window of it may be cut short or left over. Every instance must find the same windows, whenever it
// was started, so bounds follow from the time alone; what Intl says of a zone is asked once a window.

import type { Calendar } from './algorithm.ts'

const DAY_MS = 86_400_000
const WEEK_MS = 7 * DAY_MS
/** The first Monday after the epoch, which was a Thursday. */
const MONDAY_MS = 4 * DAY_MS

/** What a month counts as where a window has to have one length. */
export const MONTH_MS = 31 * DAY_MS

/** True where windows of this length can be aligned. */
export const isAlignable = (windowMs: number): boolean =>
  windowMs === MONTH_MS || windowMs === WEEK_MS || (windowMs >= 1000 && DAY_MS % windowMs === 0)

/** True for UTC and every zone that this system knows, `Europe/Berlin` for instance. */
export function isTimeZone(zone: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: zone }).resolvedOptions().timeZone !== ''
  } catch {
    return false
  }
}

/** windowMs: as isAlignable() has it. zone: as isTimeZone() has it. */
export function compileCalendar(windowMs: number, zone: string): Calendar {
  const offsetMs = zone === 'UTC' ? () => 0 : compileOffset(zone)
  let startMs = 0
  let endMs = 0

  function turnTo(nowMs: number): void {
    if (nowMs >= startMs && nowMs < endMs) return
    const [start, end] = wallBounds(nowMs + offsetMs(nowMs), Math.max(windowMs, DAY_MS))
    startMs = instantOf(start, offsetMs)
    endMs = instantOf(end, offsetMs)
    if (windowMs >= DAY_MS) return
    // By time passed since midnight: by what clocks show, an hour that comes twice would have to be two windows in one.
    startMs += Math.floor((nowMs - startMs) / windowMs) * windowMs
    endMs = Math.min(endMs, startMs + windowMs)
  }

  return {
    startMs(nowMs) {
      turnTo(nowMs)
      return startMs
    },
    endMs(nowMs) {
      turnTo(nowMs)
      return endMs
    },
  }
}

/** The days, week or month around a time that clocks show, as times that clocks show. */
function wallBounds(wallMs: number, windowMs: number): readonly [startMs: number, endMs: number] {
  if (windowMs === MONTH_MS) {
    const date = new Date(wallMs)
    const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()]
    return [Date.UTC(year, month, 1), Date.UTC(year, month + 1, 1)]
  }
  const phaseMs = windowMs === WEEK_MS ? MONDAY_MS : 0
  const startMs = Math.floor((wallMs - phaseMs) / windowMs) * windowMs + phaseMs
  return [startMs, startMs + windowMs]
}

/** When clocks first show this time; where they jump over it, when they jump. */
function instantOf(wallMs: number, offsetMs: (nowMs: number) => number): number {
  const beforeMs = offsetMs(wallMs - DAY_MS)
  const first = wallMs - beforeMs
  const afterMs = offsetMs(first)
  if (afterMs === beforeMs) return first
  const second = wallMs - afterMs
  return offsetMs(second) === afterMs ? second : first
}

/** How far clocks in a zone are ahead of UTC at an instant, milliseconds. */
function compileOffset(zone: string): (nowMs: number) => number {
  const format = new Intl.DateTimeFormat('en', { timeZone: zone, timeZoneName: 'longOffset' })
  return (nowMs) => {
    const name = format.formatToParts(nowMs).find(({ type }) => type === 'timeZoneName')?.value ?? ''
    const [, sign = '+', hours = '0', minutes = '0', seconds = '0'] =
      /^GMT([+-])(\d\d):(\d\d)(?::(\d\d))?$/.exec(name) ?? []
    return Number(`${sign}1`) * (Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)) * 1000
  }
}
