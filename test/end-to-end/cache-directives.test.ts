// What origins say of storing beside Cache-Control, and what unsafe requests take away, over real sockets.

import { describe, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import { type EdgeOptions, startEdge } from '../support/edge.ts'
import type { Script } from '../support/origin.ts'

async function start(script: Script, more: Partial<EdgeOptions> = {}) {
  const { origin, gateway } = await startEdge({ routes: ['{path: /*, cache: {}}'], script, ...more })
  const ask = (path: string, headers: Record<string, string> = {}, method = 'GET') =>
    request(gateway.url + path, { headers, method })
  return { origin, ask, outcome: async (...asked: Parameters<typeof ask>) => (await ask(...asked)).headers['x-cache'] }
}

const answering =
  (fields: Record<string, string>): Script =>
  (_request, response) =>
    void response.writeHead(200, fields).end('made')

describe('[RFC 9213 §2.2] a field for caches like this one', () => {
  it('counts before Cache-Control and goes on to the client as it came', async () => {
    const { ask } = await start(answering({ 'CDN-Cache-Control': 'max-age=60', 'Cache-Control': 'no-store' }))
    await ask('/x')
    const { headers } = await ask('/x')
    expect(headers).toMatchObject({
      'x-cache': 'HIT',
      'cdn-cache-control': 'max-age=60',
      'cache-control': 'no-store',
    })
  })

  it('is the one that the configuration names, where it names others or none', async () => {
    const fields = { 'CDN-Cache-Control': 'max-age=60', 'Edge-Control': 'no-store', 'Cache-Control': 'max-age=60' }
    const named = await start(answering(fields), { more: 'cache: {targeted: [Edge-Control]}' })
    await named.ask('/x')
    expect(await named.outcome('/x')).toBe('MISS')
    const ignoring = await start(answering({ ...fields, 'Cache-Control': 'no-store' }), {
      more: 'cache: {targeted: []}',
    })
    await ignoring.ask('/x')
    expect(await ignoring.outcome('/x')).toBe('MISS')
  })
})

describe('[RFC 9111 §4.1] Vary', () => {
  const varying = answering({ 'Cache-Control': 'max-age=60', Vary: 'Accept-Language, X-A' })

  it.each([
    ['order of equal weights', 'de, en', 'en,de'],
    ['case', 'de-CH', 'DE-ch'],
    ['blanks', 'de, en;q=0.5', 'de,en; q=0.5'],
  ])('does not tell apart by %s', async (_name, first, second) => {
    const { ask, outcome } = await start(varying)
    await ask('/x', { 'Accept-Language': first })
    expect(await outcome('/x', { 'Accept-Language': second })).toBe('HIT')
  })

  it.each<[string, Record<string, string>, Record<string, string>]>([
    ['weights', { 'Accept-Language': 'de;q=0.5, en' }, { 'Accept-Language': 'de, en;q=0.5' }],
    ['absence', { 'X-A': '' }, {}],
    ['the case of what it does not know', { 'X-A': 'a' }, { 'X-A': 'A' }],
  ])('tells apart by %s', async (_name, first, second) => {
    const { ask, outcome } = await start(varying)
    await ask('/x', first)
    expect(await outcome('/x', second)).toBe('MISS')
  })
})

describe('[RFC 9111 §4.4] an unsafe request that succeeded', () => {
  const naming =
    (name: string, value: (host: string) => string, status = 201): Script =>
    ({ method, headers }, response) => {
      if (method === 'POST') response.writeHead(status, { [name]: value(headers.host ?? '') })
      else response.setHeader('Cache-Control', 'max-age=60')
      response.end('made')
    }

  it.each<[string, string, (host: string) => string]>([
    ['Location, absolute', 'Location', (host) => `http://${host}/new?a=1`],
    ['Location, a path', 'Location', () => '/new?a=1'],
    ['Location, relative', 'Location', () => 'new?a=1'],
    ['Location, spelled otherwise', 'Location', () => '/a/../%6eew?a=1#part'],
    ['Content-Location', 'Content-Location', () => '/new?a=1'],
  ])('takes away what it names: %s', async (_name, field, value) => {
    const { ask, outcome } = await start(naming(field, value))
    for (const path of ['/new?a=1', '/other']) await ask(path)
    await ask('/list', {}, 'POST')
    expect([await outcome('/new?a=1'), await outcome('/other')]).toEqual(['MISS', 'HIT'])
  })

  it.each<[string, (host: string) => string, number]>([
    ['is of another host', () => 'http://other.test/new', 201],
    ['is of another scheme', (host) => `https://${host}/new`, 201],
    ['is of another port', (host) => `http://${host.replace(/\d+$/, '1')}/new`, 201],
    ['is no URL', () => 'http://[', 201],
    ['comes with an error', () => '/new', 500],
  ])('leaves alone what %s', async (_name, value, status) => {
    const { ask, outcome } = await start(naming('Location', value, status))
    await ask('/new')
    await ask('/list', {}, 'POST')
    expect(await outcome('/new')).toBe('HIT')
  })
})

describe('[RFC 9111 §5.2.1] what a client asks of the cache', () => {
  const fresh = answering({ 'Cache-Control': 'max-age=60' })

  it.each([
    ['Cache-Control', 'no-cache', 'MISS', 'fwd=request; stored; detail=client-no-cache'],
    ['Cache-Control', 'max-age=0', 'MISS', 'fwd=request; stored; detail=client-max-age'],
    ['Cache-Control', 'min-fresh=61', 'MISS', 'fwd=request; stored; detail=client-min-fresh'],
    ['Pragma', 'no-cache', 'MISS', 'fwd=request; stored; detail=client-no-cache'],
    ['Cache-Control', 'only-if-cached', 'HIT', 'hit;'],
    ['Cache-Control', 'max-age=60', 'HIT', 'hit;'],
  ])('counts where the route honours it: %s: %s', async (name, value, outcome, status) => {
    const { ask, origin } = await start(fresh, { routes: ['{path: /*, cache: {clientControl: honor}}'] })
    await ask('/x')
    const { headers } = await ask('/x', { [name]: value })
    expect([headers['x-cache'], origin.seen.length]).toEqual([outcome, outcome === 'HIT' ? 1 : 2])
    expect(headers['cache-status']).toContain(`weirgate; ${status}`)
  })

  it('is a 504 where it wants nothing but what is stored, and nothing is', async () => {
    const { ask, origin } = await start(fresh, { routes: ['{path: /*, cache: {clientControl: honor}}'] })
    const { status, headers, text } = await ask('/x', { 'Cache-Control': 'only-if-cached' })
    expect([status, headers['x-cache'], headers['cache-status']]).toEqual([504, 'MISS', 'weirgate; detail=absent'])
    expect(JSON.parse(text)).toMatchObject({ status: 504, code: 'not_cached' })
    expect(origin.seen).toEqual([])
  })

  it('is nothing by default', async () => {
    const { outcome, ask, origin } = await start(fresh)
    expect((await ask('/x', { 'Cache-Control': 'only-if-cached' })).status).toBe(200)
    expect(await outcome('/x', { 'Cache-Control': 'no-cache, no-store', Pragma: 'no-cache' })).toBe('HIT')
    expect(origin.seen).toHaveLength(1)
  })
})
