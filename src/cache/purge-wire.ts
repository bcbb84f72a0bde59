// How the purge log lies in Redis, and what is sent about it. All keys share one slot of a cluster.
//
//   {ns}:purges        hash   seq: place of the last record; bytes: of the log's records
//   {ns}:purges:log    stream, an entry a record, its ID the record's place; bounded in records, bytes and time
//   {ns}:instances     sorted set of the instances that run, by their last heartbeat
//   {ns}:purges        channel on which each record is published
//   {ns}:purges:<instance>   channel for the counts of the others: `<id> <instance> <count>`
//
// A place is the time in microseconds when the record came, by the clock of Redis, and later than the one before. So a
// place that a wiped Redis or a fail-over has lost is not used again, and each record names the one before it: whoever
// misses one sees it. A record as text: `<seq> <previous seq> <body as JSON>`, or `<seq> <previous seq> =<body sealed, base64>`
// where instances have a cipher. One that does not open names nobody knows what, and so everything.

import type { Cipher } from '../core/cipher.ts'
import type { RedisReply } from '../core/redis-reply.ts'
import type { RedisLink } from '../core/redis.ts'
import type { PurgeRule } from './purge-rule.ts'

const MAX_RECORDS = 50_000
const MAX_LOG_BYTES = 8 * 1024 ** 2
/** A log that nothing is added to. */
const LOG_TTL_MS = 86_400_000
const BEAT_MS = 1000
/** After this long without a heartbeat an instance is not waited for, and is forgotten. */
const ALIVE_MS = 3.5 * BEAT_MS
const FORGET_MS = 60_000

/** Text of one record; a rule with more is told in several. */
export const MAX_RECORD_CHARS = 12 * 1024
export const HEARTBEAT_MS = BEAT_MS

export interface PurgeBody {
  /** The instance that it comes from. */
  readonly by: string
  /** Of the purge, among those of that instance. */
  readonly id: number
  /** That instance waits to hear how many it took from each. */
  readonly isCounted: boolean
  readonly rule: PurgeRule
}

export interface PurgeRecord extends PurgeBody {
  readonly seq: number
  readonly previous: number
}

/** What an instance says of a counted purge. */
export interface PurgeCount {
  readonly id: number
  readonly instance: string
  readonly purged: number
}

/** Methods reject with a RedisError. */
export interface PurgeWire {
  readonly channels: { readonly records: string; readonly counts: string }
  /** Whether the server with the log is there. */
  readonly isUp: boolean
  /** Adds a record and publishes it. instances: all that run. */
  append(body: PurgeBody): Promise<{ readonly record: PurgeRecord; readonly instances: readonly string[] }>
  /** Null for what is no record. */
  recordIn(text: string): PurgeRecord | null
  /** At most `count` records after a place, oldest first. */
  read(afterSeq: number, count: number): Promise<readonly PurgeRecord[]>
  /** The place of the last record; null: Redis has been wiped. */
  head(): Promise<number | null>
  /** Says that this instance runs; answers the place of the last record. */
  beat(): Promise<number>
  /** Says that it does no more. */
  leave(): Promise<unknown>
  tellCount(to: string, count: PurgeCount): Promise<unknown>
}

export function createPurgeWire(
  link: RedisLink,
  namespace: string,
  instance: string,
  cipher: Cipher | null,
): PurgeWire {
  const head = `{${namespace}}:purges`
  const log = `${head}:log`
  const instances = `{${namespace}}:instances`
  const beat = link.script(BEAT)
  const append = link.script(APPEND)
  const recordIn = (text: string): PurgeRecord | null => parseRecord(text, (sealed) => openBody(cipher, head, sealed))
  const channelOf = (name: string): string => `${head}:${name}`

  return {
    channels: { records: head, counts: channelOf(instance) },
    get isUp() {
      return link.shardOf(head).isUp
    },
    async append(body) {
      const limits = [MAX_RECORDS, MAX_LOG_BYTES, LOG_TTL_MS, ALIVE_MS]
      const reply = await append([head, log, instances], [formatBody(body, cipher, head), ...limits])
      const [seq, previous, names] = listOf(reply)
      const record = { ...body, seq: numberOf(seq), previous: numberOf(previous) }
      return { record, instances: listOf(names).map(String) }
    },
    recordIn,
    async read(afterSeq, count) {
      const reply = await link.command('XRANGE', log, `${afterSeq + 1}-0`, '+', 'COUNT', count)
      return listOf(reply).flatMap((entry) => recordIn(String(listOf(listOf(entry)[1])[1])) ?? [])
    },
    async head() {
      const reply = await link.command('HGET', head, 'seq')
      return reply === null ? null : numberOf(reply)
    },
    beat: async () => numberOf(await beat([head, log, instances], [instance, FORGET_MS])),
    leave: () => link.command('ZREM', instances, instance),
    tellCount: (to, { id, purged }) => link.command('PUBLISH', channelOf(to), `${id} ${instance} ${purged}`),
  }
}

/** `%.0f`: Lua writes large numbers with an exponent. */
const NOW = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local head = redis.call('HGET', KEYS[1], 'seq')
if not head then
  head = string.format('%.0f', now)
  redis.call('HSET', KEYS[1], 'seq', head, 'bytes', 0)
  redis.call('DEL', KEYS[2])
end
`

const BEAT = `${NOW}
redis.call('ZADD', KEYS[3], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('%.0f', now - ARGV[2] * 1000))
return head
`

const APPEND = `${NOW}
local seq = string.format('%.0f', math.max(now, head + 1))
local record = seq .. ' ' .. head .. ' ' .. ARGV[1]
local bytes = #record
if redis.call('EXISTS', KEYS[2]) == 1 then bytes = bytes + redis.call('HGET', KEYS[1], 'bytes') end
redis.call('XADD', KEYS[2], seq .. '-0', 'r', record)
while redis.call('XLEN', KEYS[2]) > tonumber(ARGV[2]) or bytes > tonumber(ARGV[3]) do
  local oldest = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', 1)[1]
  redis.call('XDEL', KEYS[2], oldest[1])
  bytes = bytes - #oldest[2][2]
end
redis.call('HSET', KEYS[1], 'seq', seq, 'bytes', bytes)
redis.call('PEXPIRE', KEYS[2], ARGV[4])
redis.call('PUBLISH', KEYS[1], record)
return {seq, head, redis.call('ZRANGEBYSCORE', KEYS[3], string.format('%.0f', now - ARGV[5] * 1000), '+inf')}
`

function formatBody({ by, id, isCounted, rule }: PurgeBody, cipher: Cipher | null, name: string): string {
  const json = JSON.stringify({ by, id, isCounted, rule })
  return cipher === null ? json : `=${cipher.seal(name, Buffer.from(json)).toString('base64')}`
}

function openBody(cipher: Cipher | null, name: string, sealed: string): string {
  const json = cipher?.open(name, Buffer.from(sealed, 'base64'))
  return Buffer.isBuffer(json) ? json.toString() : ''
}

/** Null for what is no record. What an instance of another version may mean by a rule that is not known here: all. */
export function parseRecord(text: string, open: (sealed: string) => string = () => ''): PurgeRecord | null {
  const match = /^(\d{1,16}) (\d{1,16}) (?:(\{.*\})|=(.+))$/s.exec(text)
  if (match === null) return null
  const [, seq, previous, json, sealed = ''] = match
  const place = { seq: Number(seq), previous: Number(previous) }
  const { by, id, isCounted, rule } = parseObject(json ?? open(sealed))
  const from = typeof by === 'string' && typeof id === 'number' ? { by, id } : { by: '', id: 0 }
  return { ...place, ...from, isCounted: isCounted === true, rule: isRule(rule) ? rule : { all: true } }
}

/** Null for what is no count. */
export function parseCount(text: string): PurgeCount | null {
  const match = /^(\d{1,15}) (\S{1,200}) (\d{1,15})$/.exec(text)
  if (match === null) return null
  const [, id, instance = '', purged] = match
  return { id: Number(id), instance, purged: Number(purged) }
}

function parseObject(json: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(json)
    return typeof value === 'object' && value !== null ? { ...value } : {}
  } catch {
    return {}
  }
}

const isTexts = (value: unknown): boolean =>
  Array.isArray(value) && value.every((each: unknown) => typeof each === 'string')
const isText = (value: unknown): boolean => typeof value === 'string'
const isTrue = (value: unknown): boolean => value === true

const MEMBERS: { readonly [Name in keyof PurgeRule]-?: (value: unknown) => boolean } = {
  urls: isTexts,
  tags: isTexts,
  prefix: isText,
  pattern: isText,
  all: isTrue,
  soft: isTrue,
}

function isRule(value: unknown): value is PurgeRule {
  if (typeof value !== 'object' || value === null) return false
  const members = new Map<string, (value: unknown) => boolean>(Object.entries(MEMBERS))
  return Object.entries(value).every(([name, member]) => members.get(name)?.(member) === true)
}

const listOf = (reply: RedisReply | undefined): readonly RedisReply[] =>
  typeof reply === 'object' && reply !== null && !Buffer.isBuffer(reply) ? reply : []

const numberOf = (reply: RedisReply | undefined): number => Number(String(reply))
