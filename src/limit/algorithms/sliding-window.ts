// The strict sliding window: never more than `limit` in any span of one window. Time is cut into slices of a tenth of
// the window, and all slices that touch (now - window, now] count in full. Two buckets with an estimate between them
// are smaller and admit 1.95 times the limit to whoever hammers across their edge; the price of strictness is that a
// hammering client gets its quota once per 1.1 windows at worst.
//
// Cells: the number of the newest slice, then the use of eleven slices by age, newest first. Ages rather than a ring,
// so that a clock that steps back keeps them: the newest slice is renumbered and nobody waits for the old time.

import { type Algorithm, type Rate, type Standing, WHENEVER } from '../algorithm.ts'

const SLICES = 10
/** The window's ten, and the one that its beginning cuts. */
const AGES = SLICES + 1
/** What fits the packed form: a count is far below that but for a debt, and one as large refuses everybody all the same. */
const MAX_COUNT = 2 ** 32 - 1

export const slidingWindow: Algorithm = {
  name: 'sliding-window',
  cells: 1 + AGES,

  fits(cells, at, rate, cost, nowMs) {
    turn(cells, at, rate, nowMs)
    return used(cells, at) + cost <= rate.limit
  },

  charge(cells, at, rate, cost, nowMs) {
    turn(cells, at, rate, nowMs)
    cells[at + 1] = (cells[at + 1] as number) + cost
  },

  settle(cells, at, rate, delta, chargedAtMs, nowMs) {
    const slice = turn(cells, at, rate, nowMs)
    if (delta < 0 && chargedAtMs === WHENEVER) {
      for (let age = 0, left = delta; age < AGES && left < 0; age++) left = add(cells, at + 1 + age, left)
      return
    }
    // A debt counts from now on; what is given back leaves the slice that it was taken in, if that still counts.
    const age = delta > 0 ? 0 : slice - sliceOf(chargedAtMs, rate)
    if (age >= 0 && age < AGES) add(cells, at + 1 + age, delta)
  },

  measure(cells, at, rate, cost, nowMs, standing: Standing) {
    const slice = turn(cells, at, rate, nowMs)
    const inUse = used(cells, at)
    const remaining = Math.max(0, rate.limit - inUse)
    const neededForCost = inUse + cost - rate.limit
    // Beyond the limit (it was lowered), more than one unit must leave before one more is left.
    const neededForNext = inUse + remaining + 1 - rate.limit
    let freed = 0
    let waitMs = 0
    let nextMs = 0
    let fullMs = 0
    for (let age = AGES - 1; age >= 0; age--) {
      const count = cells[at + 1 + age] as number
      if (count === 0) continue
      const leavesMs = endMs(slice - age, rate) - nowMs
      if (freed < neededForCost) waitMs = leavesMs
      if (freed < neededForNext) nextMs = leavesMs
      fullMs = leavesMs
      freed += count
    }
    standing.remaining = remaining
    standing.waitMs = waitMs
    standing.nextMs = nextMs
    standing.fullMs = fullMs
  },

  fullAtMs(cells, at, rate) {
    for (let age = 0; age < AGES; age++) {
      if (cells[at + 1 + age] !== 0) return endMs((cells[at] as number) - age, rate)
    }
    return 0
  },

  // Wherever in a slice something is spent, it counts until the same time.
  spendableUntilMs: (rate, chargedAtMs) => Math.ceil(((sliceOf(chargedAtMs, rate) + 1) * rate.windowMs) / SLICES),

  lua: {
    layout: `<d${'I4'.repeat(AGES)}`,
    // One script has one time, so a state is turned once and its sum is kept.
    source: `
local FIRST, LAST, OWN = 2, ${1 + AGES}, ${2 + AGES}
local function sliceOf(ms, r) return floor((ms * ${SLICES}) / r.window) end
local function endOf(slice, r) return ceil(((slice + ${AGES}) * r.window) / ${SLICES}) end
local function used(c, r, now)
  if c[OWN] then return c[OWN] end
  local slice = sliceOf(now, r)
  local passed = slice - c[1]
  c[1] = slice
  if passed < 0 then moved = true end
  if passed > 0 then
    for i = LAST, FIRST, -1 do c[i] = i - passed >= FIRST and c[i - passed] or 0 end
  end
  local sum = 0
  for i = FIRST, LAST do sum = sum + c[i] end
  c[OWN] = sum
  return sum
end
return {
  fits = function(c, r, cost, now) return used(c, r, now) + cost <= r.limit end,
  charge = function(c, r, cost, now)
    c[OWN] = used(c, r, now) + cost
    c[FIRST] = c[FIRST] + cost
  end,
  settle = function(c, r, delta, chargedAt, now)
    local sum = used(c, r, now)
    local from, to = FIRST, FIRST
    if delta < 0 and chargedAt == ${WHENEVER} then
      to = LAST
    elseif delta < 0 then
      from = FIRST + c[1] - sliceOf(chargedAt, r)
      to = from
    end
    for i = max(from, FIRST), min(to, LAST) do
      local before = c[i]
      c[i] = min(${MAX_COUNT}, max(0, before + delta))
      sum = sum - before + c[i]
      delta = delta - (c[i] - before)
    end
    c[OWN] = sum
  end,
  measure = function(c, r, cost, now)
    local inUse = used(c, r, now)
    local remaining = max(0, r.limit - inUse)
    if inUse == 0 then return remaining, 0, 0, 0 end
    local newest = FIRST
    while c[newest] == 0 do newest = newest + 1 end
    local full = endOf(c[1] - (newest - FIRST), r) - now
    local neededForCost = inUse + cost - r.limit
    local neededForNext = inUse + remaining + 1 - r.limit
    local freed, wait, nextUnit = 0, 0, 0
    local i = LAST
    while i >= newest and (freed < neededForCost or freed < neededForNext) do
      if c[i] > 0 then
        local leaves = endOf(c[1] - (i - FIRST), r) - now
        if freed < neededForCost then wait = leaves end
        if freed < neededForNext then nextUnit = leaves end
        freed = freed + c[i]
      end
      i = i - 1
    end
    return remaining, wait, nextUnit, full
  end,
  fullAt = function(c, r)
    for i = FIRST, LAST do
      if c[i] > 0 then return endOf(c[1] - (i - FIRST), r) end
    end
    return 0
  end,
}`,
  },
}

/** Changes a count as far as it may be; answers by how much less. */
function add(cells: Float64Array, at: number, delta: number): number {
  const before = cells[at] as number
  const after = Math.min(MAX_COUNT, Math.max(0, before + delta))
  cells[at] = after
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
  if (passed > 0) {
    const first = at + 1
    if (passed < AGES) cells.copyWithin(first + passed, first, first + AGES - passed)
    cells.fill(0, first, first + Math.min(passed, AGES))
  }
  return slice
}

function used(cells: Float64Array, at: number): number {
  let sum = 0
  for (let i = at + 1; i <= at + AGES; i++) sum += cells[i] as number
  return sum
}

/** When the use in a slice stops counting: the first whole millisecond at which the window no longer touches it. */
const endMs = (slice: number, rate: Rate): number => Math.ceil(((slice + AGES) * rate.windowMs) / SLICES)
