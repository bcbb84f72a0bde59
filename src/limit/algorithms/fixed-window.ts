// The fixed window of a calendar: `limit` from midnight to midnight, or from one first of the month to the next. Not
// strict: who uses all of it at the end of one window and the beginning of the next has had it twice in a short while.
// It is for quotas that people reckon with, and tells exactly when there is more.
//
// Cells: when the counted window ends, and what was used in it. Its end rather than its beginning, so that what has
// expired is known without a calendar.

import { type Algorithm, type Calendar, type Rate, type Standing, WHENEVER } from '../algorithm.ts'

export const fixedWindow: Algorithm = {
  name: 'fixed-window',
  cells: 2,

  fits(cells, at, rate, cost, nowMs) {
    return usedAt(cells, at, rate, nowMs) + cost <= rate.limit
  },

  charge(cells, at, rate, cost, nowMs) {
    cells[at + 1] = usedAt(cells, at, rate, nowMs) + cost
    cells[at] = calendarOf(rate).endMs(nowMs)
  },

  settle(cells, at, rate, delta, chargedAtMs, nowMs) {
    // What was taken in a window that is over has been given back by its end.
    if (delta < 0 && chargedAtMs !== WHENEVER && chargedAtMs < calendarOf(rate).startMs(nowMs)) return
    cells[at + 1] = Math.max(0, usedAt(cells, at, rate, nowMs) + delta)
    cells[at] = calendarOf(rate).endMs(nowMs)
  },

  measure(cells, at, rate, cost, nowMs, standing: Standing) {
    const used = usedAt(cells, at, rate, nowMs)
    const leftMs = used === 0 ? 0 : calendarOf(rate).endMs(nowMs) - nowMs
    standing.remaining = Math.max(0, rate.limit - used)
    standing.waitMs = used + cost <= rate.limit ? 0 : leftMs
    standing.nextMs = leftMs
    standing.fullMs = leftMs
  },

  fullAtMs(cells, at) {
    return cells[at + 1] === 0 ? 0 : (cells[at] as number)
  },

  spendableUntilMs: (rate, chargedAtMs) => calendarOf(rate).endMs(chargedAtMs),

  lua: {
    brief: 'dd',
    rest: '',
    read(bytes, from, _to, cells, at) {
      cells[at] = bytes.readDoubleLE(from)
      cells[at + 1] = bytes.readDoubleLE(from + 8)
    },
    locals: `local ENDS, USED = 4, 5
local function used(c, r)
  if c[ENDS] > r.ends then c[ENDS] = r.ends; moved = true end
  return c[ENDS] == r.ends and c[USED] or 0
end`,
    rules: `
  prepare = function() end,
  isBrief = function() return true end,
  fill = function() end,
  fits = function(c, r, cost) return used(c, r) + cost <= r.limit end,
  charge = function(c, r, cost) c[USED] = used(c, r) + cost; c[ENDS] = r.ends end,
  settle = function(c, r, delta, chargedAt)
    if delta < 0 and chargedAt ~= ${WHENEVER} and chargedAt < r.starts then return end
    c[USED] = max(0, used(c, r) + delta)
    c[ENDS] = r.ends
  end,
  fullAt = function(c) return c[USED] == 0 and 0 or c[ENDS] end,`,
  },
}

/** What was used in the window that holds nowMs. One that ends later was counted before the clock stepped back: it
 *  counts as this one. */
function usedAt(cells: Float64Array, at: number, rate: Rate, nowMs: number): number {
  const endMs = calendarOf(rate).endMs(nowMs)
  if ((cells[at] as number) > endMs) cells[at] = endMs
  return cells[at] === endMs ? (cells[at + 1] as number) : 0
}

function calendarOf({ calendar }: Rate): Calendar {
  if (calendar === null) throw new Error('A fixed window needs a calendar.')
  return calendar
}
