// What the cache has saved, as operators are told: the time and the cost of fetches that would have been sent, and of no
// others. The origin takes as long as the test moves the clock.

import { expect, it, onTestFinished, vi } from 'vitest'
import type { Savings, Stats } from '../../src/core/control.ts'
import { request, type RequestOptions } from '../support/client.ts'
import { type EdgeOptions, startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'

const NOTHING: Savings = { fetches: 0, seconds: 0, cost: 0, collapsed_fetches: 0, collapsed_cost: 0 }

/** A gateway whose origin takes ten seconds for each answer. */
async function start(route: string, options: EdgeOptions = {}) {
  vi.useFakeTimers({ toFake: ['Date'] })
  onTestFinished(() => void vi.useRealTimers())
  const pass = (seconds: number) => void vi.setSystemTime(Date.now() + seconds * 1000)
  const { gateway, origin } = await startEdge({
    routes: [route],
    script(_request, response) {
      pass(10)
      response.writeHead(200, { ETag: '"a"' }).end('0123456789')
    },
    ...options,
  })
  let asked = 0
  return {
    gateway,
    origin,
    pass,
    ask: async (path = '/x', how: RequestOptions = {}): Promise<string> => {
      asked++
      const { status, headers } = await request(gateway.url + path, how)
      return `${status} ${String(headers['x-cache'])}`
    },
    saved: async (): Promise<Savings> => {
      await gateway.requestLines(asked)
      const stats = (await (await fetch(`${gateway.adminUrl}/api/stats`)).json()) as Stats
      expect(stats.last_minute.total.saved).toEqual(stats.since_start.total.saved)
      return stats.since_start.total.saved
    },
  }
}

/** A little less than that: the answers took their time as well. */
const about = (seconds: number): unknown => ({
  asymmetricMatch: (said: number) => said <= seconds && said > seconds - 5,
  toString: () => `about ${seconds}`,
})

it('a hit saves what the fetch had taken, and what it costs', async () => {
  const { ask, saved, gateway } = await start('{path: /*, cache: {ttl: 1h, callCost: 0.02}}')
  expect(await ask()).toBe('200 MISS')
  expect(await saved()).toEqual(NOTHING)
  expect(await ask()).toBe('200 HIT')
  expect(await ask()).toBe('200 HIT')
  expect(await saved()).toEqual({ ...NOTHING, fetches: 2, seconds: about(20), cost: 0.04 })
  const scraped = await (await fetch(`${gateway.adminUrl}/metrics`)).text()
  expect(scraped).toMatch(/^weirgate_saved_fetches_total\{route="\/\*",by="hit"\} 2$/m)
  expect(scraped).toMatch(/^weirgate_saved_seconds_total\{route="\/\*"\} 1[5-9]\.\d+$/m)
  expect(scraped).toMatch(/^weirgate_saved_cost_total\{route="\/\*",by="hit"\} 0\.04$/m)
})

it('so does a 304 from what is stored', async () => {
  const { ask, saved } = await start('{path: /*, cache: {ttl: 1h}}')
  await ask()
  expect(await ask('/x', { headers: { 'If-None-Match': '"a"' } })).toBe('304 HIT')
  expect(await saved()).toEqual({ ...NOTHING, fetches: 1, seconds: about(10) })
})

it.each([
  ['a part', { headers: { Range: 'bytes=0-1' } }, '206 HIT'],
  ['a head', { method: 'HEAD' }, '200 HIT'],
])('%s saves a fetch of which nobody knows how long it would have taken', async (_what, how, expected) => {
  const { ask, saved } = await start('{path: /*, cache: {ttl: 1h, callCost: 1}}')
  await ask()
  expect(await ask('/x', how)).toBe(expected)
  expect(await saved()).toEqual({ ...NOTHING, fetches: 1, cost: 1 })
})

it('whoever shares a fetch is counted apart', async () => {
  const held: (() => void)[] = []
  const { gateway, ask, saved } = await start('{path: /*, cache: {ttl: 1h, callCost: 3}}', {
    script: (_request, response) => void held.push(() => response.end('late')),
  })
  const all = [ask(), ask(), ask()]
  await until(() => held.length === 1, 'the fetch to arrive')
  const open = () => Number(/^process_open_connections (\d+)$/m.exec(gateway.gateway.metrics())?.[1])
  await until(() => open() === 3, 'all to be connected')
  for (let i = 0; i < 2; i++) await request(`${gateway.url}/health`)
  held[0]?.()
  expect((await Promise.all(all)).toSorted()).toEqual(['200 COLLAPSED', '200 COLLAPSED', '200 MISS'])
  expect(await saved()).toEqual({ ...NOTHING, collapsed_fetches: 2, collapsed_cost: 6 })
})

it('what would not have gone out saves nothing: an answer in the place of a refusal', async () => {
  const { ask, saved, pass } = await start('{path: /*, limits: [one], onLimited: stale, cache: {ttl: 1h}}', {
    more: 'limits: {one: {limit: 1, window: 1d}}',
  })
  await ask()
  expect(await ask()).toBe('200 HIT')
  pass(2 * 3600)
  expect(await ask()).toBe('200 STALE')
  expect(await saved()).toEqual(NOTHING)
})

it('what has gone out saves nothing: an answer in the place of an error, and one that the origin was asked about', async () => {
  let status = 200
  const { ask, saved, pass } = await start('{path: /*, cache: {ttl: 1m}}', {
    script: (_request, response) => void response.writeHead(status, { ETag: '"a"' }).end(),
  })
  await ask()
  pass(120)
  status = 304
  expect(await ask()).toBe('200 REVALIDATED')
  pass(120)
  status = 503
  expect(await ask()).toBe('200 STALE')
  // It has just failed: nobody asks it again at once, and nobody would have had an answer from it.
  expect(await ask()).toBe('200 STALE')
  expect(await saved()).toEqual(NOTHING)
})

it('of stale answers, those save a fetch for which none is sent', async () => {
  const held: (() => void)[] = []
  let isHolding = false
  const { ask, saved, pass, origin } = await start('{path: /*, cache: {ttl: 1m, stale: {whileRevalidate: 1h}}}', {
    script(_request, response) {
      vi.setSystemTime(Date.now() + 10_000)
      if (isHolding) held.push(() => response.end('new'))
      else response.end('old')
    },
  })
  await ask()
  pass(120)
  isHolding = true
  expect(await ask()).toBe('200 STALE')
  await until(() => held.length === 1, 'the refresh to arrive')
  expect(await ask()).toBe('200 STALE')
  expect(await saved()).toEqual({ ...NOTHING, fetches: 1, seconds: about(10) })
  expect(origin.seen).toHaveLength(2)
  held[0]?.()
})

it('a reload changes what a call costs from then on', async () => {
  const route = (cost: string) => `{path: /*, cache: {ttl: 1h, ${cost}}}`
  const { ask, saved, gateway, origin } = await start(route('callCost: 2'))
  await ask()
  await ask()
  await gateway.requestLines(2)
  gateway.rewrite(`
listen: {address: 127.0.0.1:0}
admin: {listen: 127.0.0.1:0}
upstreams: {origin: {targets: [${origin.url}]}}
defaults: {upstream: origin}
routes: [${route('callCost: 7')}]
`)
  expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
  await ask()
  expect(await saved()).toMatchObject({ fetches: 2, cost: 9 })
})
