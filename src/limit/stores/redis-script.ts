// The script that counts in Redis: every algorithm's rules, in one call for many requests. Redis' TIME is the only clock.
//
//   <namespace>:r1:{tag}    all that one subject has used, under every policy that counts by the same key
//
// A record is a list of entries: number u32 | until u32, s | born u32, ms | length u8 | cells, packed as the algorithm
// says. Entries describe themselves: one of a policy that the caller does not know is kept until its `until`, so neither
// a reload nor instances of two versions side by side reset a count. The key ends with the last `until`. `born` tells an
// entry from one that was made anew after Redis lost its data.
//
// In: KEYS are records; ARGV[1] is a flat list in JSON (redis-call.ts writes it):
//   count, then per policy    number, algorithm, limit, window, burst, is enforced, four bounds of its calendar's windows
//                             (the second window holds now, as far as the caller knows), or four zeros
//   count, then corrections   key, policy, delta (0: forget), time of the charge
//   count, then per request   count (negative: charges nothing), then per policy    key, policy, cost
// Out: now f64, then per request and policy  verdict u8 (1: has room, 2: the request is admitted), remaining, wait, next,
//   full and when the entry was born (0: not yet), u32 each. Bytes cost both sides less than numbers of the protocol.
// Corrections come first; requests are decided in the order of the list, each all or nothing. Times are in ms.
//
// Redis 6.2 is enough: EVALSHA, TIME, MGET, SET PXAT, struct, cjson.

import type { Algorithm } from '../algorithm.ts'
import { ALGORITHMS, BLOCK_ALGORITHMS } from '../quota.ts'

const KINDS = [...ALGORITHMS, ...BLOCK_ALGORITHMS]

/** How the script knows an algorithm. */
export const kindOf = (algorithm: Algorithm): number => KINDS.indexOf(algorithm) + 1

/** Of the reply. */
export const HEAD_BYTES = 8
export const ITEM_BYTES = 21

const ENTRY = 'I4I4I4B'

const rulesOf = ({ cells, lua: { layout, source } }: Algorithm): string => `
do
  local rules = (function()${source}
end)()
  rules.own = ${cells + 1}
  rules.cells, rules.layout, rules.bytes = ${cells}, '${layout}', struct.size('${layout}')
  rules.zeros = string.rep('\\0', rules.bytes)
  rules.whole = '<${ENTRY}${layout.slice(1)}'
  RULES[#RULES + 1] = rules
end`

/** ARGV[2], the time, is for tests alone: rules are compared with their TypeScript at times of the test's choice. */
export const QUOTA_SCRIPT = `
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local unpackBytes, pack = struct.unpack, struct.pack
local moved = false
local RULES = {}
${KINDS.map(rulesOf).join('')}
local ENTRY_BYTES = struct.size('<${ENTRY}')
local MOST = 4294967295

local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
end

local list = cjson.decode(ARGV[1])
local at = 1
local out, answers = {pack('<d', now)}, 1

local rates, rateOf, owners = {}, {}, {}
for i = 1, list[at] do
  local before, starts, ends, later = list[at + 7], list[at + 8], list[at + 9], list[at + 10]
  -- The caller's clock is not asked: of the windows it names, this one holds now.
  if now >= ends then starts, ends = ends, later elseif now < starts then starts, ends = before, starts end
  local rules = RULES[list[at + 2]]
  local number = list[at + 1]
  -- Before and after a reload, two rates may be of one policy: they share its entries.
  local same = rateOf[number]
  rates[i] = {
    number = number, rules = rules, limit = list[at + 3], window = list[at + 4], burst = list[at + 5],
    isEnforced = list[at + 6] == 1, starts = starts, ends = ends,
    fits = rules.fits, charge = rules.charge, measure = rules.measure,
    cellsOf = same and same.cellsOf or {}, endsOf = same and same.endsOf or {}, bornOf = same and same.bornOf or {},
  }
  if not same then
    rateOf[number] = rates[i]
    owners[#owners + 1] = rates[i]
  end
  at = at + 10
end
at = at + 1

-- Entries lie with their policy, by key: one table each, of cells. Others are kept as they are.
local packedRecords = redis.call('MGET', unpack(KEYS))
local isLoaded, others, lastOf, changed = {}, {}, {}, {}
local function load(key)
  isLoaded[key] = true
  local packed = packedRecords[key]
  if not packed then return end
  local from, length = 1, #packed
  while from < length do
    local number, ends, born, bytes = unpackBytes('<${ENTRY}', packed, from)
    local rate = rateOf[number]
    local cellsFrom = from + ENTRY_BYTES
    if rate and rate.rules.bytes == bytes then
      local cells = {unpackBytes(rate.rules.layout, packed, cellsFrom)}
      cells[rate.rules.own] = false
      rate.cellsOf[key], rate.endsOf[key], rate.bornOf[key] = cells, ends, born
    elseif ends * 1000 > now then
      others[key] = (others[key] or '') .. string.sub(packed, from, cellsFrom + bytes - 1)
      lastOf[key] = max(lastOf[key] or 0, ends)
    end
    from = cellsFrom + bytes
  end
end

local function open(key, rate)
  if not isLoaded[key] then load(key) end
  local cells = rate.cellsOf[key]
  if not cells then
    cells = {unpackBytes(rate.rules.layout, rate.rules.zeros)}
    cells[rate.rules.own] = false
    rate.cellsOf[key], rate.endsOf[key], rate.bornOf[key] = cells, 0, 0
  end
  return cells
end

local function touch(key, rate)
  if rate.bornOf[key] == 0 then rate.bornOf[key] = now % MOST + 1 end
  changed[key] = true
end

for i = 1, list[at] do
  local key, rate, delta, chargedAt = list[at + 1], rates[list[at + 2]], list[at + 3], list[at + 4]
  local cells = open(key, rate)
  if delta == 0 then
    for cell = 1, rate.rules.cells do cells[cell] = 0 end
    cells[rate.rules.own] = false
  else
    rate.rules.settle(cells, rate, delta, chargedAt, now)
  end
  touch(key, rate)
  at = at + 4
end
at = at + 1

local opened, fits = {}, {}
for request = 1, list[at] do
  local count = list[at + 1]
  local isCharged = count > 0
  if not isCharged then count = -count end
  local first = at + 2
  local last = first + 3 * (count - 1)
  local admitted = true
  moved = false
  for j = first, last, 3 do
    local rate, cost = rates[list[j + 1]], list[j + 2]
    local cells = open(list[j], rate)
    local hasRoom = cost <= rate.burst and rate.fits(cells, rate, cost, now)
    opened[j], fits[j] = cells, hasRoom
    if not hasRoom and rate.isEnforced then admitted = false end
  end
  if admitted and isCharged then
    for j = first, last, 3 do
      if fits[j] then
        local rate = rates[list[j + 1]]
        rate.charge(opened[j], rate, list[j + 2], now)
        touch(list[j], rate)
      end
    end
  end
  for j = first, last, 3 do
    local rate = rates[list[j + 1]]
    local remaining, wait, nextUnit, full = rate.measure(opened[j], rate, list[j + 2], now)
    answers = answers + 1
    out[answers] = pack('<BI4I4I4I4I4', (fits[j] and 1 or 0) + (admitted and 2 or 0), min(remaining, MOST),
      min(wait, MOST), min(nextUnit, MOST), min(full, MOST), rate.bornOf[list[j]])
  end
  -- A state pulled back to now has to stay there, also where nothing is charged.
  if moved then
    for j = first, last, 3 do changed[list[j]] = true end
  end
  at = last + 2
end

for key in pairs(changed) do
  local parts, last = {others[key]}, lastOf[key] or 0
  for _, rate in ipairs(owners) do
    local cells, born = rate.cellsOf[key], rate.bornOf[key]
    if cells and born > 0 then
      local rules = rate.rules
      -- Never earlier than said before: what has been given back or forgotten was born when it was.
      local ends = max(rate.endsOf[key], ceil(rules.fullAt(cells, rate) / 1000))
      if ends * 1000 > now then
        parts[#parts + 1] = pack(rules.whole, rate.number, ends, born, rules.bytes, unpack(cells, 1, rules.cells))
        last = max(last, ends)
      end
    end
  end
  if last > 0 then
    redis.call('SET', KEYS[key], table.concat(parts), 'PXAT', last * 1000)
  else
    redis.call('DEL', KEYS[key])
  end
end

return table.concat(out)
`
