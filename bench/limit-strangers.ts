// What do five million strangers leave behind while Redis is lost? Requests from made-up /64s of IPv6 come to the limiter of a
// route with a limit per minute and a quota per day, as they would in a flood. Resident memory at the start; after as many
// requests from clients that are known, since V8 makes room for garbage under any traffic; the most during the flood; after
// it, and after it once garbage is collected. One known client asks now and then, and keeps what it has left.
//
// Beside it, the same requests where nothing limits them. Each is measured in a process of its own.

import { fork } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { once } from 'node:events'
import { loadavg } from 'node:os'
import { setImmediate as turn } from 'node:timers/promises'
import { RequestContext } from '../src/core/context.ts'
import { createRedisLink } from '../src/core/redis.ts'
import { Decisions } from '../src/limit/decisions.ts'
import { createLeases } from '../src/limit/leases.ts'
import { compileLimiter } from '../src/limit/limiter.ts'
import { limitOptions } from '../src/limit/options.ts'
import { createMemorySlots } from '../src/limit/slots.ts'
import { createRedisStore } from '../src/limit/stores/redis.ts'
import { compileSubjectTag } from '../src/limit/subject-tag.ts'
import { startRedis } from '../test/support/redis.ts'

const STRANGERS = 5_000_000
/** Of one turn of the event loop. */
const AT_ONCE = 200
const MB = 1e6
const PROMISED_MB = 60
/** The name of what is measured. */
const LIMITED = 'two policies'

const POLICIES = { minute: { limit: '60', window: '1m' }, day: { limit: '1000', window: '1d', align: 'UTC' } } as const

/** Memory in MB. */
interface Told {
  readonly start: number
  readonly before: number
  readonly most: number
  readonly after: number
  readonly collected: number
  /** CPU of this process for a stranger, microseconds. */
  readonly cpu: number
  /** What the known client has had left, each time that it asked; -1 where it was refused. */
  readonly left: readonly number[]
}

export async function benchLimitStrangers(): Promise<void> {
  console.log(`${STRANGERS / 1e6} million strangers while Redis is lost; resident memory, MB`)
  console.log(`${''.padEnd(16)} start  known    most   after  collected  growth   us of CPU each`)
  for (const name of ['nothing limits', LIMITED]) {
    const child = fork(import.meta.filename, [name], { execArgv: ['--expose-gc'] })
    const [told] = (await once(child, 'message')) as [Told]
    const { start, before, most, after, collected, cpu, left } = told
    const cells = [start, before, most, after].map((mb) => mb.toFixed(1).padStart(6))
    cells.push(collected.toFixed(1).padStart(9), (most - before).toFixed(1).padStart(8), cpu.toFixed(2).padStart(12))
    console.log(`${name.padEnd(15)} ${cells.join('  ')}`)
    if (name !== LIMITED) continue
    console.log(
      `growth at its most, promised <= ${PROMISED_MB} MB: ${most - before <= PROMISED_MB ? 'kept' : 'missed'}`,
    )
    const isKept = left.every((each, i) => each >= 0 && (i === 0 || each >= (left[i - 1] as number) - 1))
    const had = `${left[0]} left before, then ${left.slice(1).join(' ')}`
    console.log(`a known client keeps its state: ${had}: ${isKept && left.length > 1 ? 'kept' : 'missed'}`)
  }
  console.log(`load ${loadavg()[0]?.toFixed(1)}`)
}

const residentMb = (): number => process.memoryUsage.rss() / MB

function request(address: string): RequestContext {
  const facts = { method: 'GET', scheme: 'http', host: 'shop.test', path: '/', query: '', version: '1.1' } as const
  return new RequestContext({ ...facts, headers: [], body: null, peerAddress: address, receivedAtMs: 0 }, 'request')
}

type Door = ReturnType<typeof compileLimiter>['check']

/** Requests, many in a turn of the event loop. nowAndThen: twenty times in a flood. */
async function send(door: Door, count: number, address: (bytes: Buffer, at: number) => string, nowAndThen: () => void) {
  const bytes = Buffer.alloc(8 * AT_ONCE)
  for (let sent = 0; sent < count; sent += AT_ONCE) {
    randomFillSync(bytes)
    for (let at = 0; at < bytes.length; at += 8) await door(request(address(bytes, at)))
    if (sent % (STRANGERS / 20) === 0) nowAndThen()
    await turn()
  }
}

const known = (bytes: Buffer, at: number): string => `198.51.100.${bytes[at]}`

const stranger = (bytes: Buffer, at: number): string => {
  const group = (i: number) => bytes.readUInt16BE(at + 2 * i).toString(16)
  return `2001:${group(0)}:${group(1)}:${group(2)}::${group(3)}`
}

async function flood(door: Door, nowAndThen: () => void, collect: () => void): Promise<Omit<Told, 'left'>> {
  collect()
  const start = residentMb()
  await send(door, STRANGERS, known, () => {})
  const before = residentMb()
  let most = before
  const cpu = process.cpuUsage()
  await send(door, STRANGERS, stranger, () => {
    most = Math.max(most, residentMb())
    nowAndThen()
  })
  const { user, system } = process.cpuUsage(cpu)
  const after = residentMb()
  collect()
  const collected = residentMb()
  return { start, before, most: Math.max(most, after), after, collected, cpu: (user + system) / STRANGERS }
}

async function measure(isLimited: boolean, collect: () => void): Promise<Told> {
  if (!isLimited)
    return {
      ...(await flood(
        () => null,
        () => {},
        collect,
      )),
      left: [],
    }
  const redis = await startRedis()
  const link = createRedisLink({ url: redis.url, name: 'bench', deadlineMs: 50 }, { info() {}, warn() {} })
  const tagOf = compileSubjectTag('bench')
  const setup = { link, namespace: 'bench', tagOf, instance: 'bench', deadlineMs: 50, clock: Date.now }
  const counters = createRedisStore(setup)
  await counters.whenReady(5000)
  const quotas = createLeases({
    counters,
    instances: () => counters.instances,
    clock: Date.now,
    steadyClock: () => performance.now(),
  })
  const named = Object.entries(POLICIES).map(([name, yaml]) => ({ name, options: limitOptions.parse(yaml) }))
  const slots = createMemorySlots()
  const { check } = compileLimiter(named, { quotas, slots, decisions: new Decisions(), clock: Date.now })
  const ask = (): ReturnType<Door> => check(client)
  const client = request('192.0.2.7')
  for (let i = 0; i < 20; i++) await ask()
  const lost = new Promise<void>((resolve) => {
    link.onChange((isUp) => {
      if (!isUp) resolve()
    })
  })
  await redis.kill()
  await lost
  const left: number[] = []
  const told = await flood(
    check,
    () => {
      client.fields.length = 0
      left.push(ask() === null ? (client.quota?.remaining ?? -1) : -1)
    },
    collect,
  )
  await quotas.close()
  await link.close()
  await redis.close()
  return { ...told, left }
}

if (import.meta.main) {
  const { gc: collect } = globalThis as { gc?: () => void }
  if (collect === undefined) throw new Error('needs --expose-gc')
  process.send?.(await measure(process.argv[2] === LIMITED, () => collect()))
  process.disconnect?.()
}
