// The strict sliding window: never more than `limit` in any span of one window. Time is cut into slices of a tenth of
// the window, and all slices that touch (now - window, now] count in full. Two buckets with an estimate between them
// are smaller and admit 1.95 times the limit to whoever hammers across their edge; the price of strictness is that a
// hammering client gets its quota once per 1.1 windows at worst.
//
// Cells: the number of the newest slice, the use of all, then the use of eleven slices by age, newest first. Ages rather
// than a ring, so that a clock that steps back keeps them: the newest slice is renumbered and nobody waits for the old time.

import { type Algorithm, type Rate, type Standing, WHENEVER } from '../algorithm.ts'

const SLICES = 10
/** The window's ten, and the one that its beginning cuts. */
const AGES = SLICES + 1
/** What fits the packed form: a count is far below that but for a debt, and one as large refuses everybody all the same. */
const MAX_COUNT = 2 ** 32 - 1
/** Where the sum lies, and the newest count. */
const USED = 1
const NEWEST = 2

export const slidingWindow: Algorithm = {
  name: 'sliding-window',
  cells: NEWEST + AGES,

  fits(cells, at, rate, cost, nowMs) {
    turn(cells, at, rate, nowMs)
    return (cells[at + USED] as number) + cost <= rate.limit
  },

  charge(cells, at, rate, cost, nowMs) {
    turn(cells, at, rate, nowMs)
    cells[at + USED] = (cells[at + USED] as number) + cost
    cells[at + NEWEST] = (cells[at + NEWEST] as number) + cost
  },

  settle(cells, at, rate, delta, chargedAtMs, nowMs) {
    const slice = turn(cells, at, rate, nowMs)
    if (delta < 0 && chargedAtMs === WHENEVER) {
      for (let age = 0, left = delta; age < AGES && left < 0; age++) left = add(cells, at, age, left)
      return
    }
    // A debt counts from now on; what is given back leaves the slice that it was taken in, if that still counts.
    const age = delta > 0 ? 0 : slice - sliceOf(chargedAtMs, rate)
    if (age >= 0 && age < AGES) add(cells, at, age, delta)
  },

  measure(cells, at, rate, cost, nowMs, standing: Standing) {
    const slice = turn(cells, at, rate, nowMs)
    const inUse = cells[at + USED] as number
    const remaining = Math.max(0, rate.limit - inUse)
    const neededForCost = inUse + cost - rate.limit
    // Beyond the limit (it was lowered), more than one unit must leave before one more is left.
    const neededForNext = inUse + remaining + 1 - rate.limit
    let freed = 0
    let waitMs = 0
    let nextMs = 0
    const needed = inUse === 0 ? 0 : Math.max(neededForCost, neededForNext)
    for (let age = AGES - 1; freed < needed && age >= 0; age--) {
      const count = cells[at + NEWEST + age] as number
      if (count === 0) continue
      const leavesMs = endMs(slice - age, rate) - nowMs
      if (freed < neededForCost) waitMs = leavesMs
      if (freed < neededForNext) nextMs = leavesMs
      freed += count
    }
    standing.remaining = remaining
    standing.waitMs = waitMs
    standing.nextMs = nextMs
    standing.fullMs = inUse === 0 ? 0 : endMs(slice - newestAge(cells, at), rate) - nowMs
  },

  fullAtMs(cells, at, rate) {
    return cells[at + USED] === 0 ? 0 : endMs((cells[at] as number) - newestAge(cells, at), rate)
  },

  // Wherever in a slice something is spent, it counts until the same time.
  spendableUntilMs: (rate, chargedAtMs) => Math.ceil(((sliceOf(chargedAtMs, rate) + 1) * rate.windowMs) / SLICES),

  lua: {
    // The newest slice, the sum of all counts, the newest count, and the older ones: most requests come in a slice that was
    // charged before, and leave the older ones packed.
    brief: 'ddI4',
    rest: `c${4 * SLICES}`,
    read(bytes, from, to, cells, at) {
      cells[at] = bytes.readDoubleLE(from)
      cells[at + USED] = bytes.readDoubleLE(from + 8)
      for (let i = from + 16, age = 0; i < to; i += 4, age++) cells[at + NEWEST + age] = bytes.readUInt32LE(i)
    },
    locals: `local SLICE, USED, NEWEST, OLDER = 4, 5, 6, 7
local NONE = string.rep('\\0', ${4 * SLICES})
local function sliceOf(ms, r) return floor((ms * ${SLICES}) / r.window) end
local function turn(c, r)
  local passed = r.slice - c[SLICE]
  if passed == 0 then return end
  c[SLICE] = r.slice
  if passed < 0 then
    moved = true
  elseif passed > ${SLICES} then
    c[USED], c[NEWEST], c[OLDER] = 0, 0, NONE
  elseif c[USED] > 0 then
    local older, kept = c[OLDER], 4 * (${SLICES} - passed)
    if c[USED] > c[NEWEST] then
      for from = kept + 1, ${4 * SLICES}, 4 do c[USED] = c[USED] - unpackBytes('<I4', older, from) end
    end
    c[OLDER] = sub(NONE, 1, 4 * (passed - 1)) .. pack('<I4', c[NEWEST]) .. sub(older, 1, kept)
    c[NEWEST] = 0
  end
end`,
    rules: `
  isBrief = function(c) return c[OLDER] == NONE end,
  fill = function(c) c[OLDER] = NONE end,
  prepare = function(r, now)
    r.slice = sliceOf(now, r)
    r.full = ceil(((r.slice + ${AGES}) * r.window) / ${SLICES})
  end,
  fits = function(c, r, cost)
    turn(c, r)
    return c[USED] + cost <= r.limit
  end,
  charge = function(c, r, cost)
    c[USED] = c[USED] + cost
    c[NEWEST] = c[NEWEST] + cost
  end,
  settle = function(c, r, delta, chargedAt)
    turn(c, r)
    local from, to = 0, 0
    if delta < 0 and chargedAt == ${WHENEVER} then
      to = ${AGES - 1}
    elseif delta < 0 then
      from = r.slice - sliceOf(chargedAt, r)
      to = from
    end
    for age = max(from, 0), min(to, ${AGES - 1}) do
      local before = age == 0 and c[NEWEST] or unpackBytes('<I4', c[OLDER], 4 * age - 3)
      local after = min(${MAX_COUNT}, max(0, before + delta))
      if age == 0 then
        c[NEWEST] = after
      elseif after ~= before then
        c[OLDER] = sub(c[OLDER], 1, 4 * (age - 1)) .. pack('<I4', after) .. sub(c[OLDER], 4 * age + 1)
      end
      c[USED] = c[USED] - before + after
      delta = delta - (after - before)
    end
  end,
  -- What lies in older slices was told of when it came.
  fullAt = function(c, r) return c[SLICE] == r.slice and c[NEWEST] > 0 and r.full or 0 end,`,
  },
}

/** Changes a count as far as it may be; answers by how much less. */
function add(cells: Float64Array, at: number, age: number, delta: number): number {
  const before = cells[at + NEWEST + age] as number
  const after = Math.min(MAX_COUNT, Math.max(0, before + delta))
  cells[at + NEWEST + age] = after
  cells[at + USED] = (cells[at + USED] as number) + after - before
  return delta - (after - before)
}

/** Whole numbers below 2^53 on both sides of the division, so windows that ten does not divide stay exact. */
const sliceOf = (nowMs: number, rate: Rate): number => Math.floor((nowMs * SLICES) / rate.windowMs)

/** Brings the slices up to now; answers the number of the newest. */
function turn(cells: Float64Array, at: number, rate: Rate, nowMs: number): number {
  const slice = sliceOf(nowMs, rate)
  const passed = slice - (cells[at] as number)
  if (passed === 0) return slice
  cells[at] = slice
  if (passed < 0 || cells[at + USED] === 0) return slice
  const first = at + NEWEST
  // By hand: what typed arrays have for it takes longer for so few.
  for (let i = first + AGES - 1; i >= first; i--) {
    const count = cells[i] as number
    if (i + passed < first + AGES) cells[i + passed] = count
    else cells[at + USED] = (cells[at + USED] as number) - count
    if (i < first + passed) cells[i] = 0
  }
  return slice
}

/** Of a state with use in it. */
function newestAge(cells: Float64Array, at: number): number {
  let age = 0
  while (cells[at + NEWEST + age] === 0) age++
  return age
}

/** When the use in a slice stops counting: the first whole millisecond at which the window no longer touches it. */
const endMs = (slice: number, rate: Rate): number => Math.ceil(((slice + AGES) * rate.windowMs) / SLICES)
