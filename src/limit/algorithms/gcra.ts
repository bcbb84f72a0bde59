// GCRA (ITU-T I.371, annex A), a steady rate of `limit` per window with `burst` at once: in any span of s windows at
// most burst + limit * s are admitted. In the form of the continuous-state leaky bucket, which decides as the better
// known form with a theoretical arrival time does, but counts use rather than time: a limit that changes on reload
// keeps what was used, and a small rate is not lost in the last bits of an epoch time.
//
// Cells: the level, the time it was taken at, how far a debt lifts it over the capacity, and what it takes to give back.
// The level is in units x windowMs, so that it falls by exactly `limit` every millisecond and all arithmetic is in whole
// numbers (below 2^53): a wait is exact to the millisecond.
//
// What is given back leaves the level as if it had never been taken. That is not always all of it: what was charged to
// a bucket that would have run empty since without it has drained in part, and is not there any more; to take it off all
// the same would forgive somebody's use. What is left is the lowest level since the charge, or the charge where that is
// less. So the lows are kept, as steps: when, and the level just before what was charged then, each lower than all that
// came later. The first is the time from which on the level has not been zero. Where there is no room for one more, the two
// that differ least become one, the lower: then less is given back than could be, never more.
//
// A block of units that is charged beforehand and spent later (leases.ts) counts as if it were spent as late as it can be,
// or the level would have drained meanwhile: a level below what drains in that time is lifted to that first. Units charged
// at the times at which they are spent never make a higher level, so the bound above holds for what is really spent.

import { type Algorithm, type Rate, type Standing, WHENEVER } from '../algorithm.ts'

/** A debt is paid off within so many windows, or an upstream that reckons wildly would lock a client out for ever. */
const MAX_DEBT_WINDOWS = 10

/** How long a block of units can be spent. */
const LEASE_MS = 50

/** Lows that are kept. */
const STEPS = 4

/** The cells of their times, and behind them of their levels but for the first, which is zero. A time of zero is none. */
const TIMES = 3

export const gcra: Algorithm = compileGcra('gcra', 0, STEPS)

/** The same counter for who charges a block. */
export const leasedGcra: Algorithm = compileGcra('leased-gcra', LEASE_MS, STEPS)

/** A counter that strangers share, and that takes little room. */
export const sharedGcra: Algorithm = compileGcra('shared-gcra', 0, 1)

/** spentWithinMs: how long after its charge a unit may be spent. */
function compileGcra(name: string, spentWithinMs: number, steps: number): Algorithm {
  const LEVELS = TIMES + steps - 1
  const CELLS = TIMES + steps + steps - 1

  const lowAt = (cells: Float64Array, at: number, step: number): number =>
    step === 0 ? 0 : (cells[at + LEVELS + step] as number)

  function countSteps(cells: Float64Array, at: number): number {
    let count = 0
    while (count < steps && cells[at + TIMES + count] !== 0) count++
    return count
  }

  /** Keeps the level before a charge as a low: it takes the place of those that are not lower. */
  function step(cells: Float64Array, at: number, level: number, nowMs: number): void {
    const before = countSteps(cells, at)
    let count = before
    while (count > 0 && lowAt(cells, at, count - 1) >= level) count--
    // In one millisecond nothing drains: what comes later in it is no low for what came before.
    const isNew = count === 0 || (cells[at + TIMES + count - 1] as number) < nowMs
    if (isNew && count === steps) count = joinTwo(cells, at, level, nowMs)
    else if (isNew) count = put(cells, at, count, level, nowMs)
    for (let i = count; i < before; i++) put(cells, at, i, 0, 0)
  }

  function put(cells: Float64Array, at: number, i: number, level: number, timeMs: number): number {
    cells[at + TIMES + i] = timeMs
    if (i > 0) cells[at + LEVELS + i] = level
    return i + 1
  }

  /** Makes room for one more step. */
  function joinTwo(cells: Float64Array, at: number, level: number, nowMs: number): number {
    let lower = steps - 1
    let least = level - lowAt(cells, at, lower)
    for (let i = steps - 2; i >= 0; i--) {
      const apart = lowAt(cells, at, i + 1) - lowAt(cells, at, i)
      if (apart >= least) continue
      least = apart
      lower = i
    }
    for (let i = lower; i < steps - 1; i++) {
      cells[at + TIMES + i] = cells[at + TIMES + i + 1] as number
      if (i > lower) cells[at + LEVELS + i] = lowAt(cells, at, i + 1)
    }
    if (lower === steps - 1) cells[at + TIMES + lower] = nowMs
    else put(cells, at, steps - 1, level, nowMs)
    return steps
  }

  /** Gives back up to `most`; answers the level after that. */
  function giveBack(cells: Float64Array, at: number, level: number, most: number, chargedAtMs: number): number {
    const count = countSteps(cells, at)
    if (chargedAtMs === WHENEVER) {
      const given = Math.min(most, level)
      for (let i = 1; i < count; i++) cells[at + LEVELS + i] = Math.max(0, lowAt(cells, at, i) - given)
      return level - given
    }
    let since = 0
    while (since < count && (cells[at + TIMES + since] as number) <= chargedAtMs) since++
    const low = since === count ? level : Math.min(level, lowAt(cells, at, since))
    const given = Math.min(most, low)
    for (let i = 1; i < count; i++) {
      const own = lowAt(cells, at, i)
      cells[at + LEVELS + i] = i < since ? Math.min(own, low - given) : own - given
    }
    return level - given
  }

  return {
    name,
    cells: CELLS,

    fits(cells, at, rate, cost, nowMs) {
      const level = Math.max(levelAt(cells, at, rate, nowMs), spentWithinMs * rate.limit)
      return level + cost * rate.windowMs <= rate.burst * rate.windowMs
    },

    charge(cells, at, rate, cost, nowMs) {
      const level = levelAt(cells, at, rate, nowMs)
      step(cells, at, level, nowMs)
      cells[at] = Math.max(level, spentWithinMs * rate.limit) + cost * rate.windowMs
      cells[at + 1] = nowMs
      cells[at + 2] = 0
    },

    settle(cells, at, rate, delta, chargedAtMs, nowMs) {
      const level = levelAt(cells, at, rate, nowMs)
      const capacity = rate.burst * rate.windowMs
      const most = capacity + MAX_DEBT_WINDOWS * rate.limit * rate.windowMs
      const units = Math.abs(delta) * rate.windowMs
      let settled = level
      if (delta > 0) {
        step(cells, at, level, nowMs)
        settled = Math.min(most, level + units)
      } else if (chargedAtMs <= nowMs) settled = giveBack(cells, at, level, units, chargedAtMs)
      cells[at] = settled
      cells[at + 1] = nowMs
      cells[at + 2] = Math.max(0, settled - capacity)
    },

    measure(cells, at, rate, cost, nowMs, standing: Standing) {
      const { limit, windowMs } = rate
      const capacity = rate.burst * windowMs
      const level = levelAt(cells, at, rate, nowMs)
      const remaining = Math.max(0, Math.floor((capacity - level) / windowMs))
      standing.remaining = remaining
      standing.waitMs = Math.max(0, Math.ceil((level + cost * windowMs - capacity) / limit))
      standing.nextMs = level === 0 ? 0 : Math.ceil((level + (remaining + 1) * windowMs - capacity) / limit)
      standing.fullMs = Math.ceil(level / limit)
    },

    fullAtMs(cells, at, rate) {
      return (cells[at + 1] as number) + Math.ceil((cells[at] as number) / rate.limit)
    },

    spendableUntilMs: (_rate, chargedAtMs) => chargedAtMs + spentWithinMs,

    lua: {
      // Who lets the bucket run empty between requests has one low, at zero.
      brief: 'd'.repeat(TIMES + 1),
      rest: 'd'.repeat(CELLS - TIMES - 1),
      read(bytes, from, to, cells, at) {
        for (let i = 0; from + 8 * i < to; i++) cells[at + i] = bytes.readDoubleLE(from + 8 * i)
      },
      locals: `local LEVEL, TAKEN_AT, DEBT = 4, 5, 6
local STEPS, TIMES, LEVELS, LAST = ${steps}, ${3 + TIMES}, ${3 + LEVELS}, ${3 + CELLS}
local function levelAt(c, r, now)
  local level = min(c[LEVEL], r.capacity + c[DEBT])
  local passed = now - c[TAKEN_AT]
  if passed >= 0 then return max(0, level - passed * r.limit) end
  c[TAKEN_AT] = now
  moved = true
  return level
end
-- A brief state has no room for more lows yet: few need it.
local function makeRoom(c)
  if c[LAST] then return end
  for i = TIMES + 2, LAST do c[i] = 0 end
end
local function low(c, i) return i == 1 and 0 or c[LEVELS + i] end
local function put(c, i, level, time)
  c[TIMES + i] = time
  if i > 1 then c[LEVELS + i] = level end
end
local function countSteps(c)
  local count = 0
  while count < STEPS and c[TIMES + count + 1] > 0 do count = count + 1 end
  return count
end
local function joinTwo(c, level, now)
  local lower, least = STEPS, level - low(c, STEPS)
  for i = STEPS - 1, 1, -1 do
    local apart = low(c, i + 1) - low(c, i)
    if apart < least then least, lower = apart, i end
  end
  for i = lower, STEPS - 1 do
    c[TIMES + i] = c[TIMES + i + 1]
    if i > lower then c[LEVELS + i] = low(c, i + 1) end
  end
  if lower == STEPS then c[TIMES + lower] = now else put(c, STEPS, level, now) end
end
local function step(c, level, now)
  -- The most common case, and all that the rest would come to.
  if level == 0 and c[TIMES + 2] == 0 then
    c[TIMES + 1] = now
    return
  end
  makeRoom(c)
  local before = countSteps(c)
  local count = before
  while count > 0 and low(c, count) >= level do count = count - 1 end
  if count == 0 or c[TIMES + count] < now then
    if count == STEPS then
      joinTwo(c, level, now)
    else
      count = count + 1
      put(c, count, level, now)
    end
  end
  for i = count + 1, before do put(c, i, 0, 0) end
end
local function giveBack(c, level, most, chargedAt)
  makeRoom(c)
  local count = countSteps(c)
  if chargedAt == ${WHENEVER} then
    local given = min(most, level)
    for i = 2, count do c[LEVELS + i] = max(0, c[LEVELS + i] - given) end
    return level - given
  end
  local since = 1
  while since <= count and c[TIMES + since] <= chargedAt do since = since + 1 end
  local lowest = since > count and level or min(level, low(c, since))
  local given = min(most, lowest)
  for i = 2, count do
    local own = c[LEVELS + i]
    c[LEVELS + i] = i < since and min(own, lowest - given) or own - given
  end
  return level - given
end`,
      rules: `
  isBrief = function(c) return c[TIMES + 2] == 0 end,
  fill = function(c) c[TIMES + 2] = 0 end,
  prepare = function(r)
    r.capacity = r.burst * r.window
    r.least = ${spentWithinMs} * r.limit
  end,
  fits = function(c, r, cost, now)
    return max(levelAt(c, r, now), r.least) + cost * r.window <= r.capacity
  end,
  charge = function(c, r, cost, now)
    local level = levelAt(c, r, now)
    step(c, level, now)
    c[LEVEL] = max(level, r.least) + cost * r.window
    c[TAKEN_AT] = now
    c[DEBT] = 0
  end,
  settle = function(c, r, delta, chargedAt, now)
    local level = levelAt(c, r, now)
    local most = r.capacity + ${MAX_DEBT_WINDOWS} * r.limit * r.window
    local units = math.abs(delta) * r.window
    local settled = level
    if delta > 0 then
      step(c, level, now)
      settled = min(most, level + units)
    elseif chargedAt <= now then
      settled = giveBack(c, level, units, chargedAt)
    end
    c[LEVEL] = settled
    c[TAKEN_AT] = now
    c[DEBT] = max(0, settled - r.capacity)
  end,
  fullAt = function(c, r) return c[TAKEN_AT] + ceil(c[LEVEL] / r.limit) end,`,
    },
  }
}

/** The level now. One above capacity and debt (the burst was lowered) counts as full from the time it was taken at, or a
 *  lowered daily limit would keep a client out for as long as its old use takes to drain. */
function levelAt(cells: Float64Array, at: number, rate: Rate, nowMs: number): number {
  const level = Math.min(cells[at] as number, rate.burst * rate.windowMs + (cells[at + 2] as number))
  const passedMs = nowMs - (cells[at + 1] as number)
  if (passedMs >= 0) return Math.max(0, level - passedMs * rate.limit)
  // The clock stepped back. Written down, or the level would stand still until the old time comes again.
  cells[at + 1] = nowMs
  return level
}
