// What the limits promise, kept by three processes and one Redis: exact budgets, fields that are true, nothing charged for
// what is refused, nothing forgotten over reloads and restarts.

import http from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, it, onTestFinished } from 'vitest'
import { type Answer, type RequestOptions, request } from '../support/client.ts'
import { readLimits } from '../support/limit-fields.ts'
import { type Origin, type Script, startOrigin } from '../support/origin.ts'
import { type RunningGateway, runGateway, withPorts } from '../support/process.ts'
import { type RedisServer, describeWithRedis, startRedis } from '../support/redis.ts'

interface Fleet {
  readonly redis: RedisServer
  readonly origin: Origin
  readonly all: readonly RunningGateway[]
  /** The route table of this fleet; yaml as for startFleet(). */
  readonly table: (yaml: string) => string
  /** Asks the gateways in turn, on kept connections; number: of the request. */
  readonly ask: (number: number, path: string, options?: RequestOptions) => Promise<Answer>
}

/** Three gateways. yaml: limits and routes. The deadline is long, so that no slow machine is seen as a slow Redis. */
async function startFleet(yaml: string, script?: Script): Promise<Fleet> {
  const redis = await startRedis()
  onTestFinished(() => redis.close())
  const origin = await startOrigin(script)
  onTestFinished(() => origin.close())
  const table = (rest: string) => `
upstreams: {origin: {targets: ["${origin.url}"]}}
defaults: {upstream: origin}
redis: {url: "${redis.url}", deadline: 2s}
${rest}`
  const all = await Promise.all([1, 2, 3].map(() => runGateway(table(yaml))))
  const agent = new http.Agent({ keepAlive: true })
  onTestFinished(() => agent.destroy())
  return {
    redis,
    origin,
    all,
    table,
    ask: (number, path, options) =>
      request((all[number % all.length] as RunningGateway).url + path, { agent, ...options }),
  }
}

/** Answers to so many requests, `atOnce` of them at any time. */
async function crowd(count: number, atOnce: number, ask: (number: number) => Promise<Answer>): Promise<Answer[]> {
  const answers: Answer[] = []
  let asked = 0
  const client = async () => {
    while (asked < count) answers.push(await ask(asked++))
  }
  await Promise.all(Array.from({ length: atOnce }, client))
  return answers
}

const withStatus = (answers: readonly Answer[], status: number) => answers.filter((each) => each.status === status)

const remaining = ({ headers }: Answer) => Number(headers['x-ratelimit-remaining'])

/** The statuses of the answers to these, asked one after the other. */
async function statuses(fleet: Fleet, path: string, options: readonly RequestOptions[]): Promise<number[]> {
  const seen: number[] = []
  for (const [number, each] of options.entries()) seen.push((await fleet.ask(number, path, each)).status)
  return seen
}

describeWithRedis('three processes', () => {
  it('admit exactly 5,000 of one key, with scripts flushed on the way', { timeout: 60_000 }, async () => {
    const { redis, origin, ask } = await startFleet(`
limits: {quota: {limit: 5000, window: 1d, align: UTC}}
routes: [{path: /*, limits: [quota]}]
`)
    let flushes = 0
    const answers = await crowd(5400, 60, async (number) => {
      if (number % 1000 === 500) flushes += (await redis.ask('SCRIPT', 'FLUSH')) === 'OK' ? 1 : 0
      return ask(number, '/x')
    })
    expect(flushes).toBe(5)
    expect([withStatus(answers, 200).length, withStatus(answers, 429).length]).toEqual([5000, 400])
    expect(origin.seen).toHaveLength(5000)
    // Each unit was given out once.
    expect(new Set(withStatus(answers, 200).map(remaining)).size).toBe(5000)
  })

  it('charge all or nothing: what one policy refuses costs no other anything', async () => {
    const { ask } = await startFleet(`
limits:
  narrow: {limit: 3, window: 1h}
  wide: {limit: 1000, window: 1d, align: UTC}
  steady: {limit: 1000, window: 1d, burst: 1000}
routes: [{path: /both, limits: [wide, narrow, steady]}, {path: /wide, limits: [wide, steady]}]
`)
    const answers = await crowd(300, 30, (number) => ask(number, '/both'))
    expect(withStatus(answers, 200)).toHaveLength(3)
    const after = await ask(0, '/wide')
    expect([...readLimits(after.headers)].map(([name, { r }]) => [name, r])).toEqual([
      ['wide', 996],
      ['steady', 996],
    ])
  })

  it('count costs as units, and nothing where a cost is more than there ever is', async () => {
    const { ask } = await startFleet(`
limits: {units: {limit: 1000, window: 1h, cost: {POST: 7, PUT: 1001}}}
routes: [{path: /*, limits: [units]}]
`)
    const posts = await crowd(180, 20, (number) => ask(number, '/x', { method: 'POST' }))
    expect(withStatus(posts, 200)).toHaveLength(142)
    const large = await crowd(9, 3, (number) => ask(number, '/x', { method: 'PUT' }))
    for (const each of large) {
      expect([each.status, each.headers['retry-after'], remaining(each)]).toEqual([429, undefined, 6])
    }
    const single = await crowd(9, 1, (number) => ask(number, '/x'))
    expect(single.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200, 200, 429, 429, 429])
  })

  it('say when to come back, in fields that a strict reader takes: who waits that long is admitted', async () => {
    const { ask } = await startFleet(`
limits:
  sliding: {limit: 3, window: 1s, key: header:x-subject}
  slower: {limit: 4, window: 1500ms, key: header:x-subject}
  steady: {limit: 2, window: 1s, burst: 2, key: header:x-subject}
routes: [{path: /sliding, limits: [sliding]}, {path: /steady, limits: [steady]}, {path: /all, limits: [steady, slower, sliding]}]
`)
    const lone = async (path: string, subject: number): Promise<number> => {
      const once = (number: number) => ask(subject + number, path, { headers: { 'x-subject': `${path}-${subject}` } })
      // A slow machine may take so long over them that the window moves on.
      let refused = await once(0)
      for (let i = 1; refused.status !== 429 && i < 200; i++) {
        for (const { t } of readLimits(refused.headers).values()) {
          expect(t).toBeGreaterThan(0)
        }
        refused = await once(i)
      }
      expect(refused.status).toBe(429)
      const retryAfter = Number(refused.headers['retry-after'])
      const violated = [...readLimits(refused.headers).values()].filter(({ r }) => r !== null)
      expect(violated.length).toBeGreaterThanOrEqual(1)
      for (const { r, t } of violated) expect([r, (t ?? 0) <= retryAfter]).toEqual([0, true])
      // A timer may ring a millisecond early.
      await sleep(retryAfter * 1000 + 1)
      return (await once(1)).status
    }
    const asked = ['/sliding', '/steady', '/all'].flatMap((path) =>
      Array.from({ length: 15 }, (_, subject) => lone(path, subject)),
    )
    expect(new Set(await Promise.all(asked))).toEqual(new Set([200]))
  })

  it('never tell of a limit from the cache, and charge nothing for hits where misses count', async () => {
    const { redis, origin, ask } = await startFleet(
      `
limits:
  every: {limit: 100, window: 1h}
  misses: {limit: 5, window: 1h, count: miss}
routes:
  - {path: /every, limits: [every], cache: {ttl: 1h}}
  - {path: /misses, limits: [misses], cache: {ttl: 1h}}
`,
      (_incoming, response) => {
        response.writeHead(200, { RateLimit: '"theirs";r=99;t=1', 'X-RateLimit-Remaining': '99', 'Retry-After': '7' })
        response.end('kept')
      },
    )
    const every = await crowd(30, 1, (number) => ask(number, '/every', { headers: { Host: 'shop.test' } }))
    expect(every.map(remaining)).toEqual(Array.from({ length: 30 }, (_, i) => 99 - i))
    const hits = every.filter(({ headers }) => headers['x-cache'] === 'HIT')
    expect(hits.length).toBeGreaterThanOrEqual(27)
    for (const hit of hits) {
      expect(hit.headers['retry-after']).toBeUndefined()
      expect([...readLimits(hit.headers)].map(([name, { r }]) => [name, r])).toEqual([['every', remaining(hit)]])
    }

    const calls = async () => {
      const stats = await redis.ask('INFO', 'commandstats')
      return Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1] ?? 0)
    }
    const shop = (count: number, atOnce: number) =>
      crowd(count, atOnce, (number) => ask(number, '/misses', { headers: { Host: 'shop.test' } }))
    const fetchedBefore = origin.seen.length
    await shop(9, 1)
    const fetched = origin.seen.length - fetchedBefore
    const before = await calls()
    const later = await shop(300, 30)
    expect(new Set(later.map(({ headers }) => headers['x-cache']))).toEqual(new Set(['HIT']))
    // What is called by the clock is a few; a call for every hit would be three hundred.
    expect((await calls()) - before).toBeLessThan(100)
    expect(Math.min(...later.map(remaining))).toBe(5 - fetched)
  })

  it('know a client by its address however it is written, and by no name that it gives itself', async () => {
    const fleet = await startFleet(`
trustedProxies: [127.0.0.0/8]
limits:
  per-client: {limit: 2, window: 1h}
  per-pair: {limit: 1, window: 1h, key: ["header:x-a", "header:x-b"]}
routes: [{path: /pair, limits: [per-pair]}, {path: /*, limits: [per-client]}]
`)
    const from = (...addresses: readonly string[]) =>
      statuses(
        fleet,
        '/x',
        addresses.map((address) => ({ headers: { 'X-Forwarded-For': address } })),
      )
    expect(await from('::ffff:192.0.2.1', '192.0.2.1', '::FFFF:c000:201', '192.0.2.2')).toEqual([200, 200, 429, 200])
    expect(await from('2001:db8::1', '2001:db8:0:0:f::2', '2001:db8::', '2001:db8:0:1::1')).toEqual([
      200, 200, 429, 200,
    ])
    expect(await from('198.51.100.1', '203.0.113.9, 198.51.100.1', '192.0.2.99, 198.51.100.1')).toEqual([200, 200, 429])
    const pairs = [
      ['a', 'bc'],
      ['ab', 'c'],
      ['a', 'bc'],
    ]
    expect(
      await statuses(
        fleet,
        '/pair',
        pairs.map(([a = '', b = '']) => ({ headers: { 'X-A': a, 'X-B': b } })),
      ),
    ).toEqual([200, 200, 429])
  })

  it('keep what was used over a new configuration, and over a restart of each in turn', async () => {
    const limits = 'day: {limit: 100, window: 1d, align: UTC}, rate: {limit: 100, window: 1d, burst: 100}'
    const before = `
limits: {${limits}, other: {limit: 50, window: 1h}}
routes: [{path: /*, limits: [day, rate, other]}]
`
    const after = `
limits: {new: {limit: 70, window: 1h}, ${limits}}
routes: [{path: /*, limits: [new, day, rate]}]
`
    const { all, table, ask } = await startFleet(before)
    await crowd(30, 6, (number) => ask(number, '/x'))
    const left = (answer: Answer, ...names: readonly string[]) =>
      names.map((name) => readLimits(answer.headers).get(name)?.r)
    const [first] = all as [RunningGateway]
    first.file.replace(withPorts(table(after)))
    const json = { 'Content-Type': 'application/json' }
    expect(await request(`${first.adminUrl}/api/reload`, { method: 'POST', headers: json })).toMatchObject({
      status: 200,
    })
    expect(left(await ask(0, '/x'), 'new', 'day', 'rate')).toEqual([69, 69, 69])
    expect(left(await ask(1, '/x'), 'other', 'day', 'rate')).toEqual([19, 68, 68])
    let used = 32
    for (const old of all) {
      old.kill('SIGTERM')
      await old.end
      const next = await runGateway(table(after))
      const answer = await request(`${next.url}/x`)
      expect(left(answer, 'day', 'rate')).toEqual([100 - ++used, 100 - used])
    }
  })
})
