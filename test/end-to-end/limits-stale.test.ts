// `onLimited: stale`: what is stored answers in the place of a 429, over real sockets.

import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { type RequestOptions, request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'

/** A route with one request a minute, of which `/x` has been asked for once. */
async function start(cache: string, fields: Record<string, string> = {}, onLimited = 'stale') {
  vi.useFakeTimers({ toFake: ['Date'] })
  onTestFinished(() => void vi.useRealTimers())
  const edge = await startEdge({
    routes: [`{path: /*, limits: [one], cache: {${cache}}, onLimited: ${onLimited}}`],
    more: 'limits: {one: {limit: 1, window: 1h}}',
    script: (_request, response, count) =>
      void response.writeHead(200, { ETag: '"a"', ...fields }).end(`made ${count}`),
  })
  const ask = (path: string, options: RequestOptions = {}) => request(edge.gateway.url + path, options)
  expect((await ask('/x')).status).toBe(200)
  const move = (seconds: number) => void vi.setSystemTime(Date.now() + seconds * 1000)
  return { ...edge, ask, move }
}

describe('over a limit', () => {
  it('what is fresh answers, tells of the limits as they are, and shows in the log', async () => {
    const { ask, move, origin, gateway } = await start('ttl: 10m')
    move(60)
    const { status, headers, text } = await ask('/x')
    expect([status, text, headers['x-cache'], headers['age']]).toEqual([200, 'made 1', 'HIT', '60'])
    expect(headers['cache-status']).toBe('weirgate; hit; ttl=540; detail=limited')
    expect(headers).toMatchObject({
      'x-ratelimit-limit': '1',
      'x-ratelimit-remaining': '0',
      ratelimit: expect.stringMatching(/^"one";r=0;t=\d+$/),
    })
    expect(headers).not.toHaveProperty('retry-after')
    expect((await gateway.requestLines(2))[1]).toMatchObject({
      status_code: 200,
      limit: 'one',
      cache: 'hit',
      cache_reason: 'limited',
    })
    expect(origin.seen).toHaveLength(1)
  })

  it.each(['ttl: 1m', 'ttl: 1m, stale: {whileRevalidate: 10m, ifError: 0s}'])(
    'what is stale answers as far as it may, and the upstream is not asked: %s',
    async (cache) => {
      const { ask, move, origin } = await start(cache)
      move(100)
      const { status, headers } = await ask('/x')
      expect([status, headers['x-cache']]).toEqual([200, 'STALE'])
      expect(headers['cache-status']).toBe('weirgate; hit; ttl=-40; detail=limited')
      expect((await ask('/x')).status).toBe(200)
      expect(origin.seen).toHaveLength(1)
    },
  )

  it.each<[string, RequestOptions, number]>([
    ['HEAD', { method: 'HEAD' }, 200],
    ['a part', { headers: { Range: 'bytes=0-3' } }, 206],
    ['a condition', { headers: { 'If-None-Match': '"a"' } }, 304],
  ])('%s is answered, too', async (_what, options, status) => {
    const { ask } = await start('ttl: 10m')
    expect((await ask('/x', options)).status).toBe(status)
  })

  it.each<[string, string, Record<string, string>, string, RequestOptions, number]>([
    ['nothing is stored', 'ttl: 10m', {}, '/y', {}, 0],
    ['the method is another', 'ttl: 10m', {}, '/x', { method: 'POST' }, 0],
    ['credentials bar it', 'ttl: 10m', {}, '/x', { headers: { Cookie: 'a=1' } }, 0],
    ['another variant is stored', 'ttl: 10m', { Vary: 'X-A' }, '/x', { headers: { 'X-A': '1' } }, 0],
    ['it is too stale', 'ttl: 1m, stale: {ifError: 1m}', {}, '/x', {}, 121],
    ['the origin forbids it stale', '', { 'Cache-Control': 'max-age=60, must-revalidate' }, '/x', {}, 61],
    ['the client turns it down', 'ttl: 10m, clientControl: honor', {}, '/x', { headers: { Pragma: 'no-cache' } }, 0],
  ])('stays a 429 where %s', async (_what, cache, fields, path, options, seconds) => {
    const { ask, move, origin } = await start(cache, fields)
    move(seconds)
    const { status, headers } = await ask(path, options)
    expect([status, headers['x-cache']]).toEqual([429, undefined])
    expect(headers).toHaveProperty('retry-after')
    expect(origin.seen).toHaveLength(1)
  })

  it('is a 429 by default', async () => {
    const { ask } = await start('ttl: 10m', {}, 'deny')
    expect((await ask('/x')).status).toBe(429)
  })

  it('is explained as it then happens', async () => {
    const { move, gateway } = await start('ttl: 1m')
    const explain = (path: string) => gateway.gateway.explain({ method: 'GET', url: gateway.url + path, headers: [] })
    expect(await explain('/x')).toMatchObject({ refused: null, cache: { outcome: 'hit', ttl_s: 60 } })
    move(100)
    expect(await explain('/x')).toMatchObject({
      refused: null,
      cache: { outcome: 'stale' },
      limits: [{ admitted: false }],
    })
    expect(await explain('/y')).toMatchObject({ refused: { status: 429 }, cache: { outcome: 'miss' } })
  })
})

/** Prompts to a route that tells them apart by their bodies. */
async function startPrompts(limits: string) {
  const { gateway, origin } = await startEdge({
    routes: [`{path: /*, methods: [POST], limits: [${limits}], ${PROMPTS}, onLimited: stale}`],
    more: 'limits: {one: {limit: 1, window: 1h}, five: {limit: 5, window: 1h}, misses: {limit: 1, window: 1h, count: miss}}',
  })
  const url = `${gateway.url}/x`
  const type = ['Content-Type', 'application/json'] as const
  const body = (prompt: string) => JSON.stringify({ prompt })
  return {
    origin,
    ask: (prompt: string) => request(url, { method: 'POST', headers: { [type[0]]: type[1] }, body: body(prompt) }),
    explain: (prompt: string) => gateway.gateway.explain({ method: 'POST', url, headers: type, body: body(prompt) }),
    purge: () => gateway.gateway.purge({ all: true, soft: true }),
  }
}

const PROMPTS = 'cache: {scope: public, ttl: 10m, key: {body: canonical}}'

describe('over a limit, where the body is part of the key', () => {
  it.each(['misses', 'five, misses'])('of %s: what is stored for the body answers', async (limits) => {
    const { origin, ask, explain, purge } = await startPrompts(limits)
    expect((await ask('a')).status).toBe(200)
    await purge()
    expect(await explain('a')).toMatchObject({ refused: null, cache: { outcome: 'stale' } })
    const { status, text, headers } = await ask('a')
    expect([status, text, headers['x-cache']]).toEqual([200, 'answer 1', 'STALE'])
    expect(headers['cache-status']).toMatch(/detail=limited$/)
    expect((await ask('b')).status).toBe(429)
    expect(origin.seen).toHaveLength(1)
  })

  it('that counts every request: no body is read, and none has an answer', async () => {
    const { origin, ask, explain } = await startPrompts('one')
    expect((await ask('a')).status).toBe(200)
    expect(await explain('a')).toMatchObject({ refused: { status: 429 } })
    expect((await ask('a')).status).toBe(429)
    expect(origin.seen).toHaveLength(1)
  })
})

describe('with a budget that runs low', () => {
  async function low(limit: string) {
    vi.useFakeTimers({ toFake: ['Date'] })
    onTestFinished(() => void vi.useRealTimers())
    const edge = await startEdge({
      routes: [`{path: /*, limits: [few], cache: {ttl: 1m}, onLimited: stale}`],
      more: `limits: {few: {limit: 5, window: 1h, count: miss, ${limit}}}`,
      script: (_request, response, count) => void response.end(`made ${count}`),
    })
    const ask = async (path: string) => {
      const { status, headers } = await request(edge.gateway.url + path)
      return `${status} ${String(headers['x-cache'] ?? '')} ${String(headers['x-ratelimit-remaining'])}`
    }
    const move = (seconds: number) => void vi.setSystemTime(Date.now() + seconds * 1000)
    return { ...edge, ask, move }
  }

  it('what is stale answers before the upstream is asked, and the rest is for what is not stored', async () => {
    const { ask, move, origin } = await low('staleFrom: 0.6')
    expect(await ask('/a')).toBe('200 MISS 4')
    move(100)
    expect([await ask('/a'), await ask('/b')]).toEqual(['200 MISS 3', '200 MISS 2'])
    move(100)
    expect([await ask('/a'), await ask('/b')]).toEqual(['200 STALE 2', '200 STALE 2'])
    expect([await ask('/c'), await ask('/d'), await ask('/e')]).toEqual(['200 MISS 1', '200 MISS 0', '429  0'])
    expect([await ask('/d'), await ask('/a')]).toEqual(['200 HIT 0', '200 STALE 0'])
    expect(origin.seen).toHaveLength(5)
  })

  it.each([
    ['nothing', ''],
    ['a limit that only watches', 'staleFrom: 0.2, mode: shadow'],
  ])('is refreshed as ever where %s says so', async (_what, limit) => {
    const { ask, move, origin } = await low(limit)
    for (let i = 0; i < 4; i++) {
      expect(await ask('/a')).toContain('200 MISS')
      move(100)
    }
    expect(origin.seen).toHaveLength(4)
  })
})
