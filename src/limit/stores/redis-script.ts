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
// Out: a flat list: now, then per request its verdict 1 or 0, and per policy   fits 1 or 0, remaining, wait, next, full,
//   and for a policy with a calendar when the entry was born, or 0 when there is none.
// Corrections come first; requests are decided in the order of the list, each all or nothing. Times are in ms.
//
// Redis 6.2 is enough: EVALSHA, TIME, GET, SET PXAT, struct, cjson.

import type { Algorithm } from '../algorithm.ts'
import { ALGORITHMS } from '../quota.ts'

/** How the script knows an algorithm. */
export const kindOf = (algorithm: Algorithm): number => ALGORITHMS.indexOf(algorithm) + 1

const rulesOf = ({ cells, lua: { layout, source } }: Algorithm): string => `
do
  local rules = (function()${source}
end)()
  rules.layout, rules.cells, rules.bytes = '${layout}', ${cells}, struct.size('${layout}')
  RULES[#RULES + 1] = rules
end`

/** ARGV[2], the time, is for tests alone: rules are compared with their TypeScript at times of the test's choice. */
export const QUOTA_SCRIPT = `
local RULES = {}
${ALGORITHMS.map(rulesOf).join('')}
local HEAD = '<I4I4I4B'
local HEAD_BYTES = struct.size(HEAD)

local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local list = cjson.decode(ARGV[1])
local at = 1
local out = {now}

local rates = {}
for i = 1, list[at] do
  local before, starts, ends, later = list[at + 7], list[at + 8], list[at + 9], list[at + 10]
  -- The caller's clock is not asked: of the windows it names, this one holds now.
  if now >= ends then starts, ends = ends, later elseif now < starts then starts, ends = before, starts end
  rates[i] = {
    number = list[at + 1], rules = RULES[list[at + 2]], limit = list[at + 3], window = list[at + 4],
    burst = list[at + 5], isEnforced = list[at + 6] == 1, starts = starts, ends = ends, hasCalendar = later > 0,
  }
  at = at + 10
end
at = at + 1

local records = {}
local function load(key)
  local record = {order = {}, byNumber = {}}
  records[key] = record
  local packed = redis.call('GET', KEYS[key])
  if not packed then return record end
  local from = 1
  while from + HEAD_BYTES <= #packed do
    local number, ends, born, bytes = struct.unpack(HEAD, packed, from)
    from = from + HEAD_BYTES
    local entry = {number = number, ends = ends, born = born, packed = string.sub(packed, from, from + bytes - 1)}
    from = from + bytes
    record.order[#record.order + 1] = entry
    record.byNumber[number] = entry
  end
  return record
end

local function entryOf(record, rate)
  local entry = record.byNumber[rate.number]
  if not entry then
    entry = {number = rate.number, ends = 0, born = 0}
    record.order[#record.order + 1] = entry
    record.byNumber[rate.number] = entry
  end
  if not entry.cells then
    entry.rate = rate
    if entry.packed and #entry.packed == rate.rules.bytes then
      entry.cells = {struct.unpack(rate.rules.layout, entry.packed)}
    else
      entry.cells = {}
      for i = 1, rate.rules.cells do entry.cells[i] = 0 end
    end
  end
  return entry
end

local function changed(record, entry)
  record.isChanged = true
  if entry.born == 0 then entry.born = now % 4294967295 + 1 end
end

for i = 1, list[at] do
  local key, rate, delta, chargedAt = list[at + 1], rates[list[at + 2]], list[at + 3], list[at + 4]
  local record = records[key] or load(key)
  local entry = entryOf(record, rate)
  if delta == 0 then
    for cell = 1, rate.rules.cells do entry.cells[cell] = 0 end
  else
    rate.rules.settle(entry.cells, rate, delta, chargedAt, now)
  end
  changed(record, entry)
  at = at + 4
end
at = at + 1

local entries, fits = {}, {}
for request = 1, list[at] do
  local count = math.abs(list[at + 1])
  local isCharged = list[at + 1] > 0
  local first = at + 2
  local admitted = true
  for i = 1, count do
    local j = first + (i - 1) * 3
    local key, rate, cost = list[j], rates[list[j + 1]], list[j + 2]
    local record = records[key] or load(key)
    local entry = entryOf(record, rate)
    entries[i] = entry
    fits[i] = cost <= rate.burst and rate.rules.fits(entry.cells, rate, cost, now)
    if not fits[i] and rate.isEnforced then admitted = false end
  end
  out[#out + 1] = admitted and 1 or 0
  for i = 1, count do
    local j = first + (i - 1) * 3
    if isCharged and admitted and fits[i] then
      local rate = rates[list[j + 1]]
      rate.rules.charge(entries[i].cells, rate, list[j + 2], now)
      changed(records[list[j]], entries[i])
    end
  end
  for i = 1, count do
    local j = first + (i - 1) * 3
    local rate = rates[list[j + 1]]
    local n = #out
    out[n + 1] = fits[i] and 1 or 0
    out[n + 2], out[n + 3], out[n + 4], out[n + 5] = rate.rules.measure(entries[i].cells, rate, list[j + 2], now)
    if rate.hasCalendar then out[n + 6] = entries[i].born end
    -- A state pulled back to now has to stay there, also where nothing is charged.
    if entries[i].cells.moved then records[list[j]].isChanged = true end
  end
  at = first + count * 3 - 1
end

for key, record in pairs(records) do
  if record.isChanged then
    local parts, last = {}, 0
    for _, entry in ipairs(record.order) do
      local packed = entry.packed
      if entry.cells then
        local rules = entry.rate.rules
        -- Never earlier than said before: what has been given back or forgotten was born when it was.
        entry.ends = math.max(entry.ends, math.ceil(rules.fullAt(entry.cells, entry.rate) / 1000))
        packed = struct.pack(rules.layout, unpack(entry.cells, 1, rules.cells))
      end
      if entry.born > 0 and entry.ends * 1000 > now then
        parts[#parts + 1] = struct.pack(HEAD, entry.number, entry.ends, entry.born, #packed)
        parts[#parts + 1] = packed
        last = math.max(last, entry.ends)
      end
    end
    if last > 0 then
      redis.call('SET', KEYS[key], table.concat(parts), 'PXAT', string.format('%.0f', last * 1000))
    else
      redis.call('DEL', KEYS[key])
    end
  end
end

return out
`
