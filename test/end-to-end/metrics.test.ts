// What a scrape says of the limits after requests have gone through, and that docs/metrics.md says the same of all metrics.

import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it, onTestFinished } from 'vitest'
import { type Answer, request } from '../support/client.ts'
import type { TestGateway } from '../support/gateway.ts'
import { startInstances } from '../support/instances.ts'
import { type RedisServer, describeWithRedis, startRedis, until } from '../support/redis.ts'

const LIMITS = `
limits:
  few: {limit: 3, window: 1h}
  watched: {limit: 2, window: 1h, mode: shadow}
  often: {limit: 100000, window: 1d, align: UTC, lease: on}
  login: {limit: 5, window: 1h, fallback: closed}
  tpm: {unit: tokens, limit: 5000, window: 1h}
`
const ROUTES = [
  '{path: /few, limits: [few]}',
  '{path: /watched, limits: [watched]}',
  '{path: /often, limits: [often], cache: {ttl: 1h}}',
  '{path: /login, limits: [login]}',
  '{path: /chat, limits: [tpm]}',
]

describeWithRedis('a scrape', () => {
  let redis: RedisServer
  let folder: string
  beforeEach(async () => {
    redis = await startRedis()
    folder = mkdtempSync(join(tmpdir(), 'weirgate-metrics-'))
  })
  afterEach(async () => {
    await redis.close()
    rmSync(folder, { recursive: true, force: true })
  })

  const startOne = async (more = '') => {
    const { all } = await startInstances(1, redis.url, {
      routes: ROUTES,
      upstream: 'concurrency: {max: 9}',
      more: LIMITS + more,
      script: (_seen, response) => void response.setHeader('Content-Type', 'text/plain').end('fine'),
    })
    return all[0] as TestGateway
  }
  const get = ({ url }: TestGateway, path: string): Promise<Answer> => request(url + path)
  const getAll = async (gateway: TestGateway, path: string, count: number): Promise<number[]> => {
    const statuses: number[] = []
    for (let i = 0; i < count; i++) statuses.push((await get(gateway, path)).status)
    return statuses
  }
  const scrape = async ({ adminUrl }: TestGateway): Promise<string> => (await fetch(`${adminUrl}/metrics`)).text()
  /** Of a series; 0 where there is none yet. */
  const number = (text: string, series: string): number =>
    Number(
      text
        .split('\n')
        .find((line) => line.startsWith(`${series} `))
        ?.split(' ')[1] ?? 0,
    )
  const decided = (text: string, policy: string, result: string, source: string): number =>
    number(text, `weirgate_limit_decisions_total{policy="${policy}",result="${result}",source="${source}"}`)

  it('tells who has decided, in how many calls and after what wait', async () => {
    const gateway = await startOne()
    expect(await getAll(gateway, '/few', 8)).toEqual([200, 200, 200, 429, 429, 429, 429, 429])
    expect(await getAll(gateway, '/watched', 5)).toEqual([200, 200, 200, 200, 200])
    const text = await scrape(gateway)
    expect(decided(text, 'few', 'admitted', 'redis')).toBe(3)
    const asked = decided(text, 'few', 'refused', 'redis')
    expect(asked).toBeGreaterThan(0)
    expect(asked + decided(text, 'few', 'refused', 'remembered')).toBe(5)
    expect(decided(text, 'watched', 'admitted', 'redis')).toBe(2)
    expect(decided(text, 'watched', 'shadowed', 'redis')).toBe(3)
    const calls = 3 + asked + 5
    expect(number(text, 'weirgate_limit_batch_requests_count')).toBe(calls)
    expect(number(text, 'weirgate_limit_batch_requests_sum')).toBe(calls)
    expect(number(text, 'weirgate_limit_wait_seconds_count')).toBe(calls)
    expect(number(text, 'weirgate_limit_wait_seconds_sum')).toBeGreaterThan(0)
    expect(number(text, 'weirgate_limit_redis_used')).toBe(1)
    expect(number(text, 'weirgate_limit_instances')).toBe(1)
    // One client: both policies go by its address.
    expect(number(text, 'weirgate_limit_subjects{where="redis"}')).toBe(1)
    expect(number(text, 'weirgate_limit_subjects{where="memory"}')).toBe(0)
    expect(text).toMatch(/^weirgate_limit_overflow_total 0$/m)
  })

  it('tells of units in blocks: each is spent, held, or has gone back', async () => {
    const gateway = await startOne()
    const spent = (text: string): number => decided(text, 'often', 'admitted', 'lease')
    await until(async () => {
      await getAll(gateway, '/often', 20)
      return spent(await scrape(gateway)) > 100
    }, 'blocks')
    const units = (text: string, event: string): number =>
      number(text, `weirgate_limit_lease_units_total{event="${event}"}`)
    const busy = await scrape(gateway)
    const gone = units(busy, 'returned') + units(busy, 'lapsed')
    expect(number(busy, 'weirgate_limit_lease_units')).toBe(units(busy, 'taken') - spent(busy) - gone)
    await until(async () => number(await scrape(gateway), 'weirgate_limit_lease_units') === 0, 'blocks to go back')
    const idle = await scrape(gateway)
    expect(units(idle, 'returned')).toBe(units(idle, 'taken') - spent(idle))
    expect(units(idle, 'lapsed')).toBe(0)
  })

  it('tells of an outage: who decides, what is owed, and that nothing is any more', async () => {
    const gateway = await startOne()
    await getAll(gateway, '/few', 1)
    await redis.kill()
    await until(async () => number(await scrape(gateway), 'weirgate_limit_redis_used') === 0, 'the loss to be known')
    await getAll(gateway, '/few', 4)
    expect(await getAll(gateway, '/login', 1)).toEqual([503])
    const lost = await scrape(gateway)
    expect(decided(lost, 'few', 'admitted', 'share')).toBe(2)
    expect(decided(lost, 'few', 'refused', 'share')).toBe(2)
    expect(decided(lost, 'login', 'refused', 'closed')).toBe(1)
    expect(number(lost, 'weirgate_limit_debts')).toBe(1)
    expect(number(lost, 'weirgate_limit_subjects{where="memory"}')).toBe(1)
    expect(number(lost, 'weirgate_redis_up')).toBe(0)
    await redis.restart()
    await until(async () => number(await scrape(gateway), 'weirgate_limit_redis_used') === 1, 'the return to be known')
    await until(async () => number(await scrape(gateway), 'weirgate_limit_debts') === 0, 'what is owed to be told')
  })

  it('has the metrics of docs/metrics.md, each with its type and in its words, and no others', async () => {
    const gateway = await startOne(`cache: {disk: {path: "${join(folder, 'cache.db')}", max: 64MiB}}\n`)
    onTestFinished(() => gateway.close())
    await getAll(gateway, '/often', 2)
    await getAll(gateway, '/chat', 1)
    const scraped = [...(await scrape(gateway)).matchAll(/^# HELP (\S+) (.*)\n# TYPE \S+ (\S+)$/gm)]
    const listed = scraped.map(([, name, help, type]) => `| \`${name}\` | ${type} | ${help} |`).toSorted()
    const page = readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
    expect(page.split('\n').filter((line) => line.startsWith('| `'))).toEqual(listed)
  })
})
