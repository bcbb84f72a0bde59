// Slots that all instances with the same namespace share: never more held than the limit, whoever holds them.
//
//   <namespace>:s1:{tag}    the slots of one policy and subject that are held: `instance:number`, scored by when they end
//
// A slot ends by itself one lease after it was renewed last, by Redis' clock, so that those of an instance that dies come
// free; while it is held it is renewed. What is taken and given back in one turn of the event loop goes in one call of
// the script (in a Redis Cluster, one per subject), given back first.
//
// Its promise: nobody waits longer than the link's deadline, nor at all while Redis (of a cluster: its master) is lost. Then, as the policy's
// `fallback` says, this instance goes by what it holds itself. What it took meanwhile it registers when Redis is back, and
// what a Redis that has lost its data no longer knows as well: renewing is taking without asking.
//
// Bounds: what is held, by the requests that are open; 10,000 slots given back while Redis is lost; more of them end by
// themselves.

import { RedisError } from '../../core/redis-reply.ts'
import type { RedisLink } from '../../core/redis.ts'
import type { DecisionSource } from '../algorithm.ts'
import type { Quota } from '../quota.ts'
import type { Slot, SlotStore } from '../slots.ts'
import type { SubjectTag } from '../subject-tag.ts'

const LEASE_MS = 30_000
const RENEW_MS = 10_000
/** A script keeps everybody waiting. */
const MAX_PER_CALL = 500
const MAX_UNTOLD = 10_000

/** Where the script expects a limit. */
const RENEW = 0
const RELEASE = -1

/** In: KEYS are the sets; ARGV[1] is the lease in ms, then for each slot: which key, limit (or RENEW, RELEASE), member.
 *  Out: for each that was asked for, how many are held with it, or, negative, how many without it. */
const SCRIPT = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = tonumber(ARGV[1])
local ends = now + lease
local out, swept, kept = {}, {}, {}

local function sweep(key)
  if swept[key] then return end
  swept[key] = true
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  -- From before the clock stepped back: whoever holds it may be dead, and it would stay until the old time comes again.
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. ends, '+inf')) do
    redis.call('ZADD', key, ends, member)
  end
end

for at = 2, #ARGV, 3 do
  local key, limit, member = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 1]), ARGV[at + 2]
  if limit == ${RELEASE} then
    redis.call('ZREM', key, member)
  elseif limit == ${RENEW} then
    redis.call('ZADD', key, ends, member)
    kept[key] = true
  else
    sweep(key)
    local held = redis.call('ZCARD', key)
    if held < limit then
      redis.call('ZADD', key, ends, member)
      kept[key] = true
      out[#out + 1] = held + 1
    else
      out[#out + 1] = -held
    end
  end
end
for key in pairs(kept) do redis.call('PEXPIRE', key, lease) end
return out
`

export interface RedisSlotsSetup {
  readonly link: RedisLink
  readonly namespace: string
  /** The same in all instances. */
  readonly tagOf: SubjectTag
  /** This instance's name, unlike any other's. */
  readonly instance: string
  /** How many instances share the slots, this one among them; at least 1. */
  readonly instances: () => number
  /** How long the slots of an instance that dies are held; default 30 s. */
  readonly leaseMs?: number
  /** Between renewals; default 10 s. */
  readonly renewMs?: number
}

/** One policy and subject of which this instance holds a slot, or waits for one. */
interface Subject {
  readonly id: string
  readonly key: string
  readonly held: Set<string>
  waiting: number
  /** As Redis has told last, less what has been given back here. */
  heldByAll: number
}

/** What a call does about one slot. */
interface Step {
  readonly key: string
  /** The limit, where one is asked for. */
  readonly limit: number
  readonly member: string
  /** Hears what the script says; null: it cannot tell. */
  readonly answer: ((told: number | null) => void) | null
}

export function createRedisSlots(setup: RedisSlotsSetup): SlotStore {
  const { link, namespace, tagOf, instance, instances, leaseMs = LEASE_MS, renewMs = RENEW_MS } = setup
  const run = link.script(SCRIPT)
  const subjects = new Map<string, Subject>()
  let asked: Step[] = []
  let released: Step[] = []
  let isFlushDue = false
  let slotsAskedFor = 0
  let renewing: NodeJS.Timeout | undefined

  const isUp = (key: string): boolean => link.shardOf(key).isUp
  const stopListening = link.onChange(() => {
    void renew()
    void flush()
  })

  function acquire(quota: Quota, name: string): ReturnType<SlotStore['acquire']> {
    const id = `${quota.id}\n${name}`
    const subject = subjects.get(id) ?? open(id, tagOf(quota.id, name))
    const member = `${instance}:${(slotsAskedFor++).toString(36)}`
    if (!isUp(subject.key)) return decideHere(quota, subject, member)
    subject.waiting++
    return new Promise((resolve) => {
      const answer = (told: number | null): void => {
        subject.waiting--
        resolve(told === null ? decideAnyway(quota, subject, member) : decided(quota, subject, member, told))
      }
      asked.push({ key: subject.key, limit: quota.rate.limit, member, answer })
      flushSoon()
    })
  }

  function open(id: string, name: string): Subject {
    const subject = { id, key: `${namespace}:s1:{${name}}`, held: new Set<string>(), waiting: 0, heldByAll: 0 }
    subjects.set(id, subject)
    return subject
  }

  function forgetUnused({ id, held, waiting }: Subject): void {
    if (held.size === 0 && waiting === 0) subjects.delete(id)
    if (subjects.size > 0) return
    clearInterval(renewing)
    renewing = undefined
  }

  function decided(quota: Quota, subject: Subject, member: string, told: number): Slot | DecisionSource {
    subject.heldByAll = Math.abs(told)
    if (told > 0) return hold(subject, member, { remaining: quota.rate.limit - told, source: 'redis', isTold: true })
    forgetUnused(subject)
    return 'redis'
  }

  /** Redis has been asked and may have said yes: then it counts for the slot that is held here, or goes back. */
  function decideAnyway(quota: Quota, subject: Subject, member: string): Slot | DecisionSource {
    const answer = decideHere(quota, subject, member, true)
    if (typeof answer === 'string') giveBack(subject.key, member)
    return answer
  }

  function decideHere(quota: Quota, subject: Subject, member: string, isTold = false): Slot | DecisionSource {
    const { limit } = quota.rate
    const most = mostHere(quota)
    if (subject.held.size < most) {
      const remaining = Math.max(0, Math.min(limit, most) - subject.held.size - 1)
      return hold(subject, member, { remaining, source: 'share', isTold })
    }
    forgetUnused(subject)
    return quota.fallback === 'closed' ? 'closed' : 'share'
  }

  /** How many slots this instance may hold while nobody counts those of all. */
  function mostHere({ fallback, rate }: Quota): number {
    if (fallback === 'share') return Math.max(1, Math.floor(rate.limit / instances()))
    return { full: rate.limit, open: Infinity, closed: 0 }[fallback]
  }

  /** isTold: Redis knows of it, or may. */
  function hold(
    subject: Subject,
    member: string,
    { remaining, source, isTold }: { remaining: number; source: DecisionSource; isTold: boolean },
  ): Slot {
    subject.held.add(member)
    renewing ??= setInterval(() => void renew(), renewMs)
    return {
      remaining,
      source,
      release() {
        subject.held.delete(member)
        subject.heldByAll = Math.max(subject.held.size, subject.heldByAll - 1)
        forgetUnused(subject)
        if (isTold || isUp(subject.key)) giveBack(subject.key, member)
      },
    }
  }

  function giveBack(key: string, member: string): void {
    if (released.length < MAX_UNTOLD) released.push({ key, limit: RELEASE, member, answer: null })
    flushSoon()
  }

  function flushSoon(): void {
    if (isFlushDue) return
    isFlushDue = true
    setImmediate(() => void flush())
  }

  async function flush(): Promise<void> {
    isFlushDue = false
    const steps = [...released, ...asked]
    asked = []
    released = steps.filter(({ key, answer }) => answer === null && !isUp(key))
    for (const { key, answer } of steps) if (!isUp(key)) answer?.(null)
    await send(steps.filter(({ key }) => isUp(key)))
  }

  async function renew(): Promise<void> {
    const reachable = [...subjects.values()].filter(({ key }) => isUp(key))
    await send(
      reachable.flatMap(({ key, held }) => Array.from(held, (member) => ({ key, limit: RENEW, member, answer: null }))),
    )
  }

  async function send(steps: readonly Step[]): Promise<void> {
    const groups = link.isCluster ? [...Map.groupBy(steps, ({ key }) => key).values()] : [steps]
    await Promise.all(groups.flatMap((group) => inCalls(group).map(call)))
  }

  async function call(steps: readonly Step[]): Promise<void> {
    const keys = [...new Set(steps.map(({ key }) => key))]
    const places = new Map(keys.map((key, i) => [key, i + 1]))
    const args = steps.flatMap(({ key, limit, member }) => [places.get(key) as number, limit, member])
    let told: readonly number[]
    try {
      told = (await run(keys, [leaseMs, ...args])) as readonly number[]
    } catch (error) {
      for (const { answer } of steps) answer?.(null)
      // What the server has refused it will refuse again.
      if (error instanceof RedisError && error.code === 'redis_error') return
      const untold = steps.filter(({ limit }) => limit === RELEASE)
      released.push(...untold.slice(0, MAX_UNTOLD - released.length))
      return
    }
    let at = 0
    for (const { answer } of steps) answer?.(told[at++] as number)
  }

  return {
    acquire,
    used({ id }, name) {
      const subject = subjects.get(`${id}\n${name}`)
      if (subject === undefined) return 0
      return isUp(subject.key) ? Math.max(subject.held.size, subject.heldByAll) : subject.held.size
    },
    async close() {
      stopListening()
      clearInterval(renewing)
      for (const { key, held } of subjects.values()) for (const member of held) giveBack(key, member)
      await flush()
    },
  }
}

function inCalls(steps: readonly Step[]): (readonly Step[])[] {
  const calls: (readonly Step[])[] = []
  for (let at = 0; at < steps.length; at += MAX_PER_CALL) calls.push(steps.slice(at, at + MAX_PER_CALL))
  return calls
}
