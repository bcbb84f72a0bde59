// The keys as all instances know them. One Redis hash for each, which lives as long as the key is remembered:
//
//   <ns>:idempotency:{<name>}<owner>   f fingerprint   s running, answered, not_kept, unknown   t token of who runs it
//                                      u until when it is certainly run, ms by Redis' clock     v the answer (answer.ts)
//
// An id is a name and an owner (key.ts). Who has to free a key by hand knows its name alone, so there is a set for each name
// with a request that somebody was told is unknown:
//
//   <ns>:idempotency-unknown:{<name>}  owners
//
// Who claims a key first runs its request and says every few seconds that it still does. Where that stops, the instance has
// died with the request on its way, and nobody knows what became of it: then the key is `unknown`, not free.
//
// What has become of a request is told until Redis has taken it: a Redis that was lost meanwhile would else call it unknown.
// Redis lost or too slow: each instance goes by its own keys alone.

import { randomBytes } from 'node:crypto'
import type { Cipher } from '../core/cipher.ts'
import { type RedisArgument, RedisError, type RedisReply } from '../core/redis-reply.ts'
import type { RedisLink } from '../core/redis.ts'
import { type Answer, packAnswer, unpackAnswer } from './answer.ts'
import { NAME_CHARS } from './key.ts'

const LEASE_MS = 6000
/** A request that has had no answer from Redis may ask again: what it does next cannot be undone. */
const ASKS = 4
/** Tellings that wait for Redis, and their bytes. */
const MAX_OWED = 1000
const MAX_OWED_BYTES = 16 * 1024 ** 2
/** Of a name that can be freed at once. */
const MAX_OWNERS = 1000

export type Told = { readonly state: 'answered'; readonly answer: Answer } | { readonly state: 'not_kept' | 'unknown' }

/** The right to run a request, for all instances. */
export interface Claim {
  /** What has become of it; null: nothing, its key is free. Never rejects; resolves when Redis has taken it, or will be told
   *  later. */
  end(told: Told | null): Promise<void>
}

export type Claimed =
  | Told
  | { readonly state: 'mine'; readonly claim: Claim }
  /** Another instance runs it. */
  | { readonly state: 'running' }
  /** It is the key of another request. */
  | { readonly state: 'reused' }

export interface SharedKeys {
  /** True where the key can be asked about. */
  isUp(id: string): boolean
  /** token: the same for one request, however often it asks. mayRetry: what is unknown may be run again. Rejects where
   *  Redis cannot tell. */
  claim(id: string, fingerprint: string, token: string, forMs: number, mayRetry: boolean): Promise<Claimed>
  /** A claim that Redis has not confirmed. */
  assume(id: string, fingerprint: string, token: string, forMs: number): Claim
  /** Forgets the requests of a name of which nobody knows what became of them; answers their ids. Rejects where Redis does not
   *  say that it has. */
  free(name: string): Promise<string[]>
  /** Endings that Redis is yet to hear of, and those that it never will. */
  readonly owed: number
  readonly lost: number
  close(): Promise<void>
}

export const newToken = (): string => randomBytes(12).toString('base64url')

/** So that they can be found again. */
const NOTE = `
local function note(index, owner, ms)
  if redis.call('SCARD', index) < ${MAX_OWNERS} then redis.call('SADD', index, owner) end
  redis.call('PEXPIRE', index, ms)
end`

const CLAIM = `${NOTE}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.call('HMGET', KEYS[1], 'f', 's', 't', 'u')
local function begin()
  redis.call('HSET', KEYS[1], 'f', ARGV[1], 's', 'running', 't', ARGV[2], 'u', string.format('%.0f', now + ARGV[3]))
  redis.call('PEXPIRE', KEYS[1], ARGV[4] + ARGV[3])
  return {'mine'}
end
if not found[1] then return begin() end
if found[1] ~= ARGV[1] then return {'reused'} end
if found[2] == 'running' then
  if found[3] == ARGV[2] then return {'mine'} end
  if tonumber(found[4]) > now then return {'running'} end
elseif found[2] == 'answered' then
  return {'answered', redis.call('HGET', KEYS[1], 'v')}
elseif found[2] == 'not_kept' then
  return {'not_kept'}
end
if ARGV[5] == '1' then return begin() end
note(KEYS[2], ARGV[6], ARGV[4])
return {'unknown'}`

const RENEW = `
local found = redis.call('HMGET', KEYS[1], 't', 's')
if found[1] ~= ARGV[1] or found[2] ~= 'running' then return end
local time = redis.call('TIME')
redis.call('HSET', KEYS[1], 'u', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3] + ARGV[2])`

/** Where the key has gone, as with a Redis that was started anew, it is made again. */
const END = `${NOTE}
local token = redis.call('HGET', KEYS[1], 't')
if token and token ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
  return 1
end
redis.call('HSET', KEYS[1], 'f', ARGV[4], 's', ARGV[2], 't', ARGV[1], 'v', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
if ARGV[2] == 'unknown' then note(KEYS[2], ARGV[6], ARGV[3]) end
return 1`

const OWNERS = `return redis.call('SMEMBERS', KEYS[1])`

/** Those that are not unknown any more stay. */
const FREE = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local freed = {}
for i = 2, #KEYS do
  local found = redis.call('HMGET', KEYS[i], 's', 'u')
  if found[1] == 'unknown' or (found[1] == 'running' and tonumber(found[2]) <= now) then
    redis.call('DEL', KEYS[i])
    freed[#freed + 1] = ARGV[i - 1]
  end
end
redis.call('DEL', KEYS[1])
return freed`

export interface SharedKeysSetup {
  readonly link: RedisLink
  readonly namespace: string
  /** For answers; null: they lie there as they are. */
  readonly cipher: Cipher | null
  /** How long others wait for an instance that is gone. */
  readonly leaseMs?: number
}

/** A request that this instance runs, or whose end it has still to tell. */
interface Held {
  readonly token: string
  readonly forMs: number
  /** Arguments of END; null while it runs. */
  ending: readonly RedisArgument[] | null
}

export function createSharedKeys({ link, namespace, cipher, leaseMs = LEASE_MS }: SharedKeysSetup): SharedKeys {
  const claim = link.script(CLAIM)
  const renew = link.script(RENEW)
  const end = link.script(END)
  const owners = link.script(OWNERS)
  const free = link.script(FREE)
  const held = new Map<string, Held>()
  /** Endings that are being told. */
  const telling = new Set<Promise<void>>()
  let owed = 0
  let owedBytes = 0
  let lost = 0
  let timer: NodeJS.Timeout | undefined
  const ownerOf = (id: string): string => id.slice(NAME_CHARS)
  const keyOf = (id: string): string => `${namespace}:idempotency:{${id.slice(0, NAME_CHARS)}}${ownerOf(id)}`
  const indexOf = (name: string): string => `${namespace}:idempotency-unknown:{${name.slice(0, NAME_CHARS)}}`

  function hold(id: string, fingerprint: string, token: string, forMs: number): Claim {
    const before = held.get(id)
    if (before !== undefined) letGo(id, before)
    const own: Held = { token, forMs, ending: null }
    held.set(id, own)
    timer ??= setInterval(tellAll, leaseMs / 3)
    const conclude = async (told: Told | null): Promise<void> => {
      const value = told?.state === 'answered' ? await sealed(id, told.answer) : null
      const state = told?.state === 'answered' && value === null ? 'not_kept' : (told?.state ?? '')
      const ending = [token, state, forMs, fingerprint, value ?? '', ownerOf(id)]
      if (await tell(id, ending)) letGo(id, own)
      else if (held.get(id) === own) owe(id, own, ending)
    }
    return {
      end(told) {
        const ended = conclude(told).finally(() => telling.delete(ended))
        telling.add(ended)
        return ended
      },
    }
  }

  /** True where nothing is left to be told. */
  async function tell(id: string, ending: readonly RedisArgument[]): Promise<boolean> {
    try {
      await end([keyOf(id), indexOf(id)], ending)
      return true
    } catch (error) {
      return error instanceof RedisError && error.code === 'redis_error' && error.refusal === 'WRONGTYPE'
    }
  }

  function owe(id: string, own: Held, ending: readonly RedisArgument[]): void {
    const bytes = bytesOf(ending)
    if (owed >= MAX_OWED || owedBytes + bytes > MAX_OWED_BYTES) {
      lost++
      return letGo(id, own)
    }
    own.ending = ending
    owed++
    owedBytes += bytes
  }

  function letGo(id: string, own: Held): void {
    if (own.ending !== null) {
      owed--
      owedBytes -= bytesOf(own.ending)
      own.ending = null
    }
    if (held.get(id) === own) held.delete(id)
    if (held.size > 0) return
    clearInterval(timer)
    timer = undefined
  }

  function tellAll(): void {
    for (const [id, own] of held) {
      if (!isUp(id)) continue
      if (own.ending === null) renew([keyOf(id)], [own.token, leaseMs, own.forMs]).catch(() => {})
      else void tell(id, own.ending).then((isTold) => (isTold && own.ending !== null ? letGo(id, own) : undefined))
    }
  }

  // What is owed need not wait for its turn.
  const stopListening = link.onChange(() => tellAll())

  const isUp = (id: string): boolean => link.shardOf(keyOf(id)).isUp

  async function sealed(id: string, answer: Answer): Promise<Buffer | null> {
    const packed = await packAnswer(answer)
    return packed === null || cipher === null ? packed : cipher.seal(keyOf(id), packed)
  }

  async function opened(id: string, value: Buffer): Promise<Told> {
    const packed = cipher === null ? value : cipher.open(keyOf(id), value)
    const answer = typeof packed === 'string' ? null : await unpackAnswer(packed)
    // It has been carried out: whatever has become of its answer, it is not to be sent again.
    return answer === null ? { state: 'not_kept' } : { state: 'answered', answer }
  }

  async function ask(id: string, args: readonly RedisArgument[]): Promise<RedisReply> {
    for (let asked = 1; ; asked++) {
      try {
        return await claim([keyOf(id), indexOf(id)], args)
      } catch (error) {
        if (asked === ASKS || !(error instanceof RedisError) || error.code !== 'redis_timeout') throw error
      }
    }
  }

  return {
    isUp,
    async claim(id, fingerprint, token, forMs, mayRetry) {
      const reply = await ask(id, [fingerprint, token, leaseMs, forMs, mayRetry ? '1' : '0', ownerOf(id)])
      const [word, value] = Array.isArray(reply) ? (reply as readonly RedisReply[]) : []
      const state = String(word)
      switch (state) {
        case 'mine':
          return { state, claim: hold(id, fingerprint, token, forMs) }
        case 'answered':
          return Buffer.isBuffer(value) ? await opened(id, value) : { state: 'not_kept' }
        case 'running':
        case 'reused':
        case 'not_kept':
        case 'unknown':
          return { state }
        default:
          throw new RedisError('redis_error', 'a reply that makes no sense')
      }
    },
    assume: hold,
    async free(name) {
      const found = textsOf(await owners([indexOf(name)], []))
      if (found.length === 0) return []
      const keys = found.map((owner) => keyOf(name + owner))
      return textsOf(await free([indexOf(name), ...keys], found)).map((owner) => name + owner)
    },
    get owed() {
      return owed
    },
    get lost() {
      return lost
    },
    async close() {
      stopListening()
      clearInterval(timer)
      await Promise.all(telling)
      const owing = [...held].flatMap(([id, { ending }]) => (ending === null ? [] : [tell(id, ending)]))
      await Promise.all(owing)
      lost += owed
      held.clear()
    },
  }
}

const textsOf = (reply: RedisReply): string[] => (Array.isArray(reply) ? reply.map(String) : [])

/** Of the value in the arguments of END. */
const bytesOf = (args: readonly RedisArgument[]): number => {
  const value = args[4]
  return Buffer.isBuffer(value) ? value.length : 0
}
