// The script that counts in Redis: every algorithm's rules, in one call for many requests. Redis' TIME is the only clock.
//
//   <namespace>:r2:{tag}    all that one subject has used, under every policy that counts by the same key
//
// A record is a list of entries: number u32 | length u8 | until u32, s | born u32, ms | cells, packed in one of the two
// forms that the algorithm has. Entries describe themselves: one of a policy that the caller does not know is kept until its
// `until`, so neither a reload nor instances of two versions side by side reset a count. The key ends with the last
// `until`. `born` tells an entry from one that was made anew after Redis lost its data.
//
// In: KEYS are records; ARGV[1] is a flat list in JSON (redis-call.ts writes it):
//   count, then per policy    number, algorithm, limit, window, burst, is enforced, four bounds of its calendar's windows
//                             (the second window holds now, as far as the caller knows), or four zeros
//   count, then corrections   key, policy, delta (0: forget), time of the charge
//   count, then per shape     counts of policies and keys, then per policy    which of the keys, policy, cost
//   count, then per request   shape (negative: charges nothing), then its keys
// Out: now f64; then each record that a request is about, in the order in which they come up, as it was before all
//   requests, with a number 0 behind it; then per request a byte: 1 where it is admitted and all its policies have room,
//   else 0 and a byte per policy (1: has room, plus 2: the request is admitted).
// Corrections come first; requests are decided in the order of the list, each all or nothing. Times are in ms.
//
// Redis decides and writes; how much is left and for how long, each caller reckons from the records for itself
// (redis-reply.ts). One thread serves all instances, so here every table and every text that is not made counts:
// measured in bench/limit-redis.ts.
//
// Redis 6.2 is enough: EVALSHA, TIME, MGET, SET EXAT and KEEPTTL, struct, cjson.

import { type Algorithm, WHENEVER } from '../algorithm.ts'
import { ALGORITHMS, BLOCK_ALGORITHMS } from '../quota.ts'

const KINDS = [...ALGORITHMS, ...BLOCK_ALGORITHMS]

/** How the script knows an algorithm. */
export const kindOf = (algorithm: Algorithm): number => KINDS.indexOf(algorithm) + 1

/** Of an entry: number and length, until, born. */
const HEAD = 'c5I4I4'
const HEAD_BYTES = 13

/** Of the texts for struct.pack that are used here. */
function bytesOf(layout: string): number {
  let bytes = 0
  for (const [, letter, count] of layout.matchAll(/([dIc])(\d*)/g)) bytes += letter === 'd' ? 8 : Number(count)
  return bytes
}

const rulesOf = ({ lua: { brief, rest, locals, rules } }: Algorithm): string => `function()
  ${locals}
  return {
    bytes = ${bytesOf(brief + rest)},
    format = '<${HEAD}${brief}${rest}',
    briefBytes = ${bytesOf(brief)},
    briefFormat = '<${HEAD}${brief}',
    blank = '${'\\0'.repeat(HEAD_BYTES + bytesOf(brief))}',
    ${rules}
  }
end`

/** ARGV[2], the time, is for tests alone: rules are compared with their TypeScript at times of the test's choice. */
export const QUOTA_SCRIPT = `
local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min
local unpackBytes, pack, sub = struct.unpack, struct.pack, string.sub
local moved = false
local KINDS = {${KINDS.map(rulesOf).join(', ')}}
local HEAD, UNTIL, BORN = 1, 2, 3
local MOST = 4294967295
local END_OF_RECORD = '\\0\\0\\0\\0'

local now = tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + floor(time[2] / 1000)
end

local list = cjson.decode(ARGV[1])
local at = 1

local rates, rateOf, owners, rulesOf = {}, {}, {}, {}
for i = 1, list[at] do
  local number, kind = list[at + 1], list[at + 2]
  local before, starts, ends, later = list[at + 7], list[at + 8], list[at + 9], list[at + 10]
  -- The caller's clock is not asked: of the windows it names, this one holds now.
  if now >= ends then starts, ends = ends, later elseif now < starts then starts, ends = before, starts end
  local rules = rulesOf[kind]
  if not rules then
    rules = KINDS[kind]()
    rulesOf[kind] = rules
  end
  -- Before and after a reload, two rates may be of one policy: they share its entries.
  local same = rateOf[number]
  local rate = {
    head = pack('<I4B', number, rules.bytes), briefHead = pack('<I4B', number, rules.briefBytes), rules = rules,
    limit = list[at + 3], window = list[at + 4], burst = list[at + 5], isEnforced = list[at + 6] == 1,
    starts = starts, ends = ends, fits = rules.fits, charge = rules.charge, entries = same and same.entries or {},
  }
  rules.prepare(rate, now)
  rates[i] = rate
  if not same then
    rateOf[number] = rate
    owners[#owners + 1] = rate
  end
  at = at + 10
end
at = at + 1

-- Entries lie with their policy, by key: one table each, of head and cells. Others are kept as they are.
local records = redis.call('MGET', unpack(KEYS))
local lastOf, others = {}, {}

local function unpackEntry(rules, bytes, packed, from)
  if bytes == rules.bytes then return {unpackBytes(rules.format, packed, from)} end
  local entry = {unpackBytes(rules.briefFormat, packed, from)}
  rules.fill(entry)
  return entry
end

local function load(key)
  local packed, last = records[key], 0
  local from, length = 1, packed and #packed or 0
  -- Of others that lie side by side, and still count.
  local othersFrom
  while from < length do
    local number, bytes, ends = unpackBytes('<I4BI4', packed, from)
    local rate, behind = rateOf[number], from + ${HEAD_BYTES} + bytes
    local rules = rate and rate.rules
    local isOwn = rules and (bytes == rules.briefBytes or bytes == rules.bytes)
    if isOwn then rate.entries[key] = unpackEntry(rules, bytes, packed, from) end
    if othersFrom and (isOwn or ends * 1000 <= now) then
      others[key] = (others[key] or '') .. sub(packed, othersFrom, from - 1)
      othersFrom = nil
    elseif not isOwn and not othersFrom and ends * 1000 > now then
      othersFrom = from
    end
    if ends > last then last = ends end
    from = behind
  end
  if othersFrom then others[key] = (others[key] or '') .. sub(packed, othersFrom) end
  lastOf[key] = last
end

local function open(key, rate)
  if not lastOf[key] then load(key) end
  local entry = rate.entries[key]
  if not entry then
    entry = unpackEntry(rate.rules, rate.rules.briefBytes, rate.rules.blank, 1)
    rate.entries[key] = entry
  end
  return entry
end

-- Every text costs its length, since Lua hashes it, so parts are joined once. A number as an argument is turned into text
-- anew each time, at the price of the rest of the command.
local parts, textOf = {}, {}
local function save(key)
  local count, last = 0, 0
  if others[key] then count, parts[1], last = 1, others[key], lastOf[key] end
  for i = 1, #owners do
    local rate = owners[i]
    local entry = rate.entries[key]
    if entry and entry[BORN] > 0 then
      -- Never earlier than said before: what has been given back or forgotten was born when it was.
      local ends = max(entry[UNTIL], ceil(rate.rules.fullAt(entry, rate) / 1000))
      if ends * 1000 > now then
        entry[UNTIL] = ends
        local isBrief = rate.rules.isBrief(entry)
        entry[HEAD] = isBrief and rate.briefHead or rate.head
        count = count + 1
        parts[count] = pack(isBrief and rate.rules.briefFormat or rate.rules.format, unpack(entry))
        if ends > last then last = ends end
      end
    end
  end
  local packed = table.concat(parts, '', 1, count)
  if count == 0 then
    redis.call('DEL', KEYS[key])
  elseif last == lastOf[key] then
    redis.call('SET', KEYS[key], packed, 'KEEPTTL')
  else
    textOf[last] = textOf[last] or string.format('%d', last)
    redis.call('SET', KEYS[key], packed, 'EXAT', textOf[last])
  end
  records[key], lastOf[key] = packed, last
end

local changed = {}
for i = 1, list[at] do
  local key, rate, delta, chargedAt = list[at + 1], rates[list[at + 2]], list[at + 3], list[at + 4]
  local entry = open(key, rate)
  if delta == 0 then
    local ends, born = entry[UNTIL], entry[BORN]
    entry = unpackEntry(rate.rules, rate.rules.briefBytes, rate.rules.blank, 1)
    entry[UNTIL], entry[BORN] = ends, born
    rate.entries[key] = entry
  -- What was charged before the entry was made went with another one, and is not in this one to be given back.
  elseif delta > 0 or chargedAt == ${WHENEVER} or (entry[BORN] > 0 and (now + 1 - entry[BORN]) % MOST >= now - chargedAt) then
    rate.rules.settle(entry, rate, delta, chargedAt, now)
  end
  if entry[BORN] == 0 then entry[BORN] = now % MOST + 1 end
  changed[key] = true
  at = at + 4
end
at = at + 1
for key in pairs(changed) do save(key) end
changed = {}

local shapes = {}
for i = 1, list[at] do
  shapes[i] = at + 1
  at = at + 2 + 3 * list[at + 1]
end
at = at + 1

local out, told, isTold = {pack('<d', now)}, 1, {}
local verdicts, opened, rooms = {}, {}, {}
for request = 1, list[at] do
  local shape = list[at + 1]
  local isCharged = shape > 0
  local shapeAt = shapes[isCharged and shape or -shape]
  local keys = list[shapeAt + 1]
  local first = shapeAt + 2
  local last = first + 3 * (list[shapeAt] - 1)
  at = at + 1
  for i = at + 1, at + keys do
    local key = list[i]
    if not isTold[key] then
      isTold[key] = true
      out[told + 1], out[told + 2] = records[key] or '', END_OF_RECORD
      told = told + 2
    end
  end
  local admitted, hasRoom = true, true
  moved = false
  for i = first, last, 3 do
    local key, rate, cost = list[at + list[i]], rates[list[i + 1]], list[i + 2]
    local entry = rate.entries[key] or open(key, rate)
    local fits = cost <= rate.burst and rate.fits(entry, rate, cost, now)
    opened[i], rooms[i] = entry, fits
    if not fits then
      hasRoom = false
      if rate.isEnforced then admitted = false end
    end
  end
  if admitted and isCharged then
    for i = first, last, 3 do
      if rooms[i] then
        local rate, entry = rates[list[i + 1]], opened[i]
        rate.charge(entry, rate, list[i + 2], now)
        if entry[BORN] == 0 then entry[BORN] = now % MOST + 1 end
        changed[list[at + list[i]]] = true
      end
    end
  end
  local verdict = '\\1'
  if not hasRoom then
    verdict = '\\0'
    for i = first, last, 3 do
      verdict = verdict .. string.char((rooms[i] and 1 or 0) + (admitted and 2 or 0))
    end
  end
  verdicts[request] = verdict
  -- A state pulled back to now has to stay there, also where nothing is charged.
  if moved then
    for i = at + 1, at + keys do changed[list[i]] = true end
  end
  at = at + keys
end
for key in pairs(changed) do save(key) end

out[told + 1] = table.concat(verdicts)
return table.concat(out)
`
