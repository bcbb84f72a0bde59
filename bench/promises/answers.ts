// What clients are told, what it costs Redis to tell them, and whom a request counts for.

import { setTimeout as sleep } from 'node:timers/promises'
import { admitted, crowd, read, remainingOf } from './fleet.ts'
import { type World, exact, subject } from './world.ts'

/** 13. */
export async function waits(world: World): Promise<void> {
  await waitAsTold(world)
  await waitLess(world)
  world.tell(
    '13. all fields parse strictly, 0 <= r <= q',
    `${read.answers} answers of this run read; one that does not parse ends it`,
    read.answers > 0,
  )
}

async function waitAsTold({ start, tell }: World): Promise<void> {
  const { ask, decidedAlone } = await start(`
limits:
  sliding: {limit: 3, window: 1s, key: header:x-subject}
  steady: {limit: 2, window: 1s, burst: 2, key: header:x-subject}
  slower: {limit: 3, window: 2500ms, key: header:x-subject}
routes: [{path: /sliding, limits: [sliding]}, {path: /steady, limits: [steady]}, {path: /slower, limits: [slower]}]
`)
  const asking = async (path: string, i: number): Promise<number[]> => {
    const once = (number: number) => ask(i + number, path, subject(String(i)))
    const statuses: number[] = []
    for (let round = 0; round < 2; round++) {
      let last = await once(0)
      for (let tries = 1; last.status !== 429 && tries < 200; tries++) last = await once(tries)
      // A timer may ring a millisecond early.
      await sleep(Number(last.headers['retry-after']) * 1000 + 1)
      statuses.push((await once(round)).status)
    }
    return statuses
  }
  const lone = ['/sliding', '/steady', '/slower'].flatMap((path) =>
    Array.from({ length: 170 }, (_, i) => asking(path, i)),
  )
  const statuses = (await Promise.all(lone)).flat()
  const admittedAgain = statuses.filter((status) => status === 200).length
  const refused = statuses.filter((status) => status === 429).length
  let alone = 0
  for (const name of ['sliding', 'steady', 'slower']) alone += await decidedAlone(name)
  tell(
    '13. a lone client that waits as long as Retry-After says is admitted, by another instance, 1,000 of 1,000',
    `${admittedAgain} of ${statuses.length}, ${refused} refused; ${alone} decided without Redis`,
    // What is neither has found the origin too busy.
    refused > 0 ? exact(false, alone) : admittedAgain >= 1000 || 'unsure',
  )
}

/** Retry-After is rounded up. So that it is half a second more than needed, nobody asks but in the middle of a second, of
 *  budgets that come back with a full one, or with a half. */
async function waitLess({ start, tell }: World): Promise<void> {
  const { ask, decidedAlone } = await start(`
limits:
  sliding: {limit: 1, window: 10s, key: header:x-subject}
  steady: {limit: 2, window: 9s, burst: 1, key: header:x-subject}
  fixed: {limit: 1, window: 10s, align: UTC, key: header:x-subject}
routes: [{path: /sliding, limits: [sliding]}, {path: /steady, limits: [steady]}, {path: /fixed, limits: [fixed]}]
`)
  const asking = async (path: string, i: number) => {
    const once = (number: number) => ask(i + number, path, subject(String(i)))
    // Not all at once.
    await sleep(1400 - (Date.now() % 1000) + (i % 8) * 1000 + (i % 100))
    const askedAtMs = performance.now()
    await once(0)
    const refused = await once(1)
    const toldMs = Number(refused.headers['retry-after'] ?? 1) * 1000
    // Else the half is not one, and a second less may be enough.
    const isHalf = Math.abs((Date.now() % 1000) - 500) < 150 && performance.now() - askedAtMs < 150
    const until = (ms: number) => sleep(Math.max(1, refused.sentAtMs + ms - performance.now()))
    await until(toldMs - 1000)
    const early = await once(2)
    await until(toldMs + refused.tookMs)
    const inTime = await once(0)
    return { early, inTime, counts: refused.status === 429 && isHalf && early.tookMs < 150 }
  }
  const paths = ['/sliding', '/steady', '/fixed']
  const lone = paths.flatMap((path) => Array.from({ length: 400 }, (_, i) => asking(path, i)))
  const all = (await Promise.all(lone)).filter(({ counts }) => counts)
  const early = all.filter((each) => each.early.status === 429).length
  const inTime = all.filter((each) => each.inTime.status === 200).length
  let alone = 0
  for (const name of ['sliding', 'steady', 'fixed']) alone += await decidedAlone(name)
  tell(
    '13. who waits a second less is refused, 1,000 of 1,000, and then admitted at the time that was told',
    `${early} refused and ${inTime} admitted, of ${all.length} that were asked in time; ${alone} decided without Redis`,
    early === all.length && inTime === all.length ? all.length >= 1000 || 'unsure' : exact(false, alone),
  )
}

/** 14. */
export async function hits({ redis, start, tell }: World): Promise<void> {
  const { ask, decidedAlone } = await start(`
limits:
  every: {limit: 1000, window: 1d, align: UTC}
  misses: {limit: 10, window: 1d, align: UTC, count: miss}
routes:
  - {path: /every, limits: [every], cache: {ttl: 1h}}
  - {path: /misses, limits: [misses], cache: {ttl: 1h}}
`)
  const told = await crowd(600, 30, (number) => ask(number, '/every'))
  const values = new Set(told.map(remainingOf))
  const cached = told.filter(({ headers }) => headers['x-cache'] === 'HIT').length
  tell(
    '14. a cached answer never tells of a limit as it was when it was stored',
    `${cached} hits of 600, ${values.size} different values of what is left`,
    exact(cached > 500 && values.size === 600, await decidedAlone('every')),
  )
  const calls = async () => {
    const stats = await redis.ask('INFO', 'commandstats')
    return Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1] ?? 0)
  }
  for (let number = 0; number < 9; number++) await ask(number, '/misses')
  const [before, startedAtMs] = [await calls(), performance.now()]
  const free = await crowd(3000, 30, (number) => ask(number, '/misses'))
  const seconds = (performance.now() - startedAtMs) / 1000
  const used = (await calls()) - before
  // Each tells the others every 2 s that it lives; other parts call by the clock as well. A call for each hit would be 3,000.
  const beats = 3 * (Math.ceil(seconds / 2) + 1)
  tell(
    '14. hits cost nothing under `count: miss`, and no call of Redis',
    `3,000 hits, ${admitted(free)} admitted, ${used} calls in ${seconds.toFixed(1)} s (${beats} tell that the gateways live)`,
    admitted(free) === 3000 && used <= 10 * beats,
  )
}

/** 17. */
export async function addresses({ start, tell }: World): Promise<void> {
  const { ask } = await start(`
trustedProxies: [127.0.0.0/8]
limits:
  client: {limit: 1, window: 1d}
  pair: {limit: 1, window: 1d, key: ["header:x-a", "header:x-b"]}
routes: [{path: /client, limits: [client]}, {path: /pair, limits: [pair]}]
`)
  const statusesOf = async (path: string, fields: readonly Record<string, string>[]) => {
    const statuses: number[] = []
    for (const [number, headers] of fields.entries()) statuses.push((await ask(number, path, { headers })).status)
    return statuses.join(' ')
  }
  const from = (...names: string[]) =>
    statusesOf(
      '/client',
      names.map((name) => ({ 'x-forwarded-for': name })),
    )
  const results = [
    await from('::ffff:192.0.2.1', '192.0.2.1', '192.0.2.2'),
    await from('2001:db8::1', '2001:db8::2:0:0:1', '2001:db8:0:1::1'),
    await from('198.51.100.1', '203.0.113.1, 198.51.100.1', '198.51.100.2'),
    await statusesOf('/pair', [
      { 'x-a': 'a', 'x-b': 'bc' },
      { 'x-a': 'a', 'x-b': 'bc' },
      { 'x-a': 'ab', 'x-b': 'c' },
    ]),
  ]
  tell(
    '17. mapped IPv4 = IPv4; one /64 = one client; a forged X-Forwarded-For and moved ends of key parts change nothing',
    results.join('; '),
    results.every((result) => result === '200 429 200'),
  )
}
