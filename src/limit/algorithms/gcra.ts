// GCRA (ITU-T I.371, annex A), a steady rate of `limit` per window with `burst` at once: in any span of s windows at
// most burst + limit * s are admitted. In the form of the continuous-state leaky bucket, which decides as the better
// known form with a theoretical arrival time does, but counts use rather than time: a limit that changes on reload
// keeps what was used, and a small rate is not lost in the last bits of an epoch time.
//
// Cells: the level, the time it was taken at, how far a debt lifts it over the capacity, and since when it has not been
// zero. The level is in units x windowMs, so that it falls by exactly `limit` every millisecond and all arithmetic is in
// whole numbers (below 2^53): a wait is exact to the millisecond.
//
// A block of units that is charged beforehand and spent later (leases.ts) counts as if it were spent as late as it can be,
// or the level would have drained meanwhile: a level below what drains in that time is lifted to that first. Units charged
// at the times at which they are spent never make a higher level, so the bound above holds for what is really spent.

import type { Algorithm, Rate, Standing } from '../algorithm.ts'

/** A debt is paid off within so many windows, or an upstream that reckons wildly would lock a client out for ever. */
const MAX_DEBT_WINDOWS = 10

/** How long a block of units can be spent. */
const LEASE_MS = 50

export const gcra: Algorithm = compileGcra('gcra', 0)

/** The same counter for who charges a block. */
export const leasedGcra: Algorithm = compileGcra('leased-gcra', LEASE_MS)

/** spentWithinMs: how long after its charge a unit may be spent. */
function compileGcra(name: string, spentWithinMs: number): Algorithm {
  return {
    name,
    cells: 4,

    fits(cells, at, rate, cost, nowMs) {
      const level = Math.max(levelAt(cells, at, rate, nowMs), spentWithinMs * rate.limit)
      return level + cost * rate.windowMs <= rate.burst * rate.windowMs
    },

    charge(cells, at, rate, cost, nowMs) {
      const level = levelAt(cells, at, rate, nowMs)
      if (level === 0) cells[at + 3] = nowMs
      cells[at] = Math.max(level, spentWithinMs * rate.limit) + cost * rate.windowMs
      cells[at + 1] = nowMs
      cells[at + 2] = 0
    },

    settle(cells, at, rate, delta, chargedAtMs, nowMs) {
      const level = levelAt(cells, at, rate, nowMs)
      // Once the level has been zero, whatever was taken before it has drained.
      if (delta < 0 && (level === 0 || chargedAtMs < (cells[at + 3] as number))) return
      if (level === 0) cells[at + 3] = nowMs
      const capacity = rate.burst * rate.windowMs
      const most = capacity + MAX_DEBT_WINDOWS * rate.limit * rate.windowMs
      const settled = Math.min(most, Math.max(0, level + delta * rate.windowMs))
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
      layout: '<dddd',
      source: `
local function levelAt(c, r, now)
  local level = min(c[1], r.burst * r.window + c[3])
  local passed = now - c[2]
  if passed >= 0 then return max(0, level - passed * r.limit) end
  c[2] = now
  moved = true
  return level
end
return {
  fits = function(c, r, cost, now)
    local level = max(levelAt(c, r, now), ${spentWithinMs} * r.limit)
    return level + cost * r.window <= r.burst * r.window
  end,
  charge = function(c, r, cost, now)
    local level = levelAt(c, r, now)
    if level == 0 then c[4] = now end
    c[1] = max(level, ${spentWithinMs} * r.limit) + cost * r.window
    c[2] = now
    c[3] = 0
  end,
  settle = function(c, r, delta, chargedAt, now)
    local level = levelAt(c, r, now)
    if delta < 0 and (level == 0 or chargedAt < c[4]) then return end
    if level == 0 then c[4] = now end
    local capacity = r.burst * r.window
    local most = capacity + ${MAX_DEBT_WINDOWS} * r.limit * r.window
    local settled = min(most, max(0, level + delta * r.window))
    c[1] = settled
    c[2] = now
    c[3] = max(0, settled - capacity)
  end,
  measure = function(c, r, cost, now)
    local capacity = r.burst * r.window
    local level = levelAt(c, r, now)
    local remaining = max(0, floor((capacity - level) / r.window))
    return remaining, max(0, ceil((level + cost * r.window - capacity) / r.limit)),
      level == 0 and 0 or ceil((level + (remaining + 1) * r.window - capacity) / r.limit),
      ceil(level / r.limit)
  end,
  fullAt = function(c, r) return c[2] + ceil(c[1] / r.limit) end,
}`,
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
