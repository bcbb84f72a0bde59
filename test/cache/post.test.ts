// Answers to POST that later GETs are answered with: see src/cache/post.ts.

import { describe, expect, it } from 'vitest'
import { purge } from '../../src/cache/purge.ts'
import type { HeaderList } from '../../src/core/context.ts'
import { type Asked, type Bench, type RequestParts, createBench, settle } from '../support/cache.ts'

const URL = 'http://gateway.test/'
const OWN = ['Cache-Control', 'max-age=60', 'Content-Location', '/']
const at = ({ asked }: Bench, i: number): Asked => asked[i] as Asked

interface Post {
  readonly route?: Record<string, unknown>
  readonly request?: HeaderList
  readonly answer?: HeaderList
  readonly status?: number
}

/** A bench on which a POST has been answered, and what a GET then gets. */
async function post({ route, request = [], answer = OWN, status = 200 }: Post, get: RequestParts = {}) {
  const bench = createBench(route)
  const posted = bench.ask({ method: 'POST', headers: request })
  await settle()
  at(bench, 0).reply(answer, 'posted', status)
  expect(await posted.outcome()).toBe(`${status} posted`)
  const after = bench.ask(get)
  await settle()
  const isHit = bench.asked.length === 1
  if (!isHit) at(bench, 1).reply([], 'got')
  expect(await after.outcome()).toBe(isHit ? '200 posted' : '200 got')
  expect({ flights: bench.shared.flights.size, fillBytes: bench.shared.fillBytes }).toEqual({
    flights: 0,
    fillBytes: 0,
  })
  return { isHit, posted, after }
}

describe('[RFC 9110 §9.3.3] the answer to a POST', () => {
  it('that names its own URL and has explicit freshness answers the next GET', async () => {
    const { isHit, posted, after } = await post({})
    expect(isHit).toBe(true)
    expect([await posted.field('X-Cache'), await posted.field('Cache-Status')]).toEqual([
      'BYPASS',
      'weirgate; fwd=method; stored; detail=method',
    ])
    expect([await after.field('X-Cache'), await after.field('Age')]).toEqual(['HIT', '0'])
  })

  it.each<[string, Post]>([
    ['an absolute URL', { answer: ['Content-Location', URL, 'Cache-Control', 'max-age=60'] }],
    ['no text at all, which is its own URL', { answer: ['Content-Location', '', 'Cache-Control', 'max-age=60'] }],
    ['s-maxage', { answer: ['Content-Location', '/', 'Cache-Control', 's-maxage=60'] }],
    ['Expires', { answer: ['Content-Location', '/', 'Expires', 'Mon, 22 Nov 2027 12:00:00 GMT'] }],
    ['a ttl of the route beside its own', { route: { ttl: '1h' } }],
  ])('with %s does so, too', async (_what, given) => {
    expect((await post(given)).isHit).toBe(true)
  })

  it.each<[string, Post]>([
    ['no Content-Location', { answer: ['Cache-Control', 'max-age=60'] }],
    ['another URL', { answer: ['Content-Location', '/x', 'Cache-Control', 'max-age=60'] }],
    ['another query', { answer: ['Content-Location', '/?x', 'Cache-Control', 'max-age=60'] }],
    ['another origin', { answer: ['Content-Location', 'http://other.test/', 'Cache-Control', 'max-age=60'] }],
    ['two URLs', { answer: [...OWN, 'Content-Location', '/x'] }],
    ['a URL that is none', { answer: ['Content-Location', 'http://[', 'Cache-Control', 'max-age=60'] }],
    ['another status', { status: 201 }],
    ['a status of an error', { status: 404 }],
    ['no freshness of its own', { route: { ttl: '1h' }, answer: ['Content-Location', '/'] }],
    [
      'freshness that is a guess',
      { answer: ['Content-Location', '/', 'Last-Modified', 'Mon, 22 Nov 2021 12:00:00 GMT'] },
    ],
    ['no time to live', { answer: ['Content-Location', '/', 'Cache-Control', 'max-age=0', 'ETag', '"a"'] }],
    ['no-store', { answer: [...OWN, 'Cache-Control', 'no-store'] }],
    ['private', { answer: [...OWN, 'Cache-Control', 'private'] }],
    ['no-cache', { answer: [...OWN, 'Cache-Control', 'no-cache', 'ETag', '"a"'] }],
    ['a cookie', { answer: [...OWN, 'Set-Cookie', 'a=1'] }],
    ['Vary: *', { answer: [...OWN, 'Vary', '*'] }],
    ['Authorization in the request', { request: ['Authorization', 'x'], answer: [...OWN, 'Cache-Control', 'public'] }],
    ['Cookie in the request', { request: ['Cookie', 'a=1'] }],
    ['credentials, though the route shares', { route: { scope: 'public' }, request: ['Cookie', 'a=1'] }],
    ['fields that Connection takes off', { request: ['Connection', 'X-A', 'X-A', '1'] }],
    ['a condition', { request: ['If-None-Match', '"b"'], answer: [...OWN, 'ETag', '"b"'] }],
    ['a part that was asked for', { request: ['Range', 'bytes=0-1'] }],
  ])('answers nobody else with %s', async (_what, given) => {
    expect((await post(given)).isHit).toBe(false)
  })

  it('[RFC 9111 §4.1] is selected as any other', async () => {
    const given = { request: ['Accept', 'a'], answer: [...OWN, 'Vary', 'Accept'] }
    expect((await post(given, { headers: ['Accept', 'a'] })).isHit).toBe(true)
    expect((await post(given, { headers: ['Accept', 'b'] })).isHit).toBe(false)
  })

  it('to another method answers nobody else', async () => {
    const bench = createBench()
    const put = bench.ask({ method: 'PUT' })
    await settle()
    at(bench, 0).reply(OWN)
    expect(await put.outcome()).toBe('200 body')
    expect(bench.shared.store.entries).toBe(0)
  })

  it('[RFC 9111 §4.4] takes the place of what was there, and of what is being fetched', async () => {
    const bench = createBench()
    const first = bench.ask()
    await settle()
    at(bench, 0).reply(['Cache-Control', 'max-age=60', 'Vary', 'Accept'], 'old')
    await first.outcome()
    const posted = bench.ask({ method: 'POST' })
    await settle()
    const before = bench.ask({ headers: ['Accept', 'other'] })
    await settle()
    at(bench, 1).reply(OWN, 'posted')
    expect(await posted.outcome()).toBe('200 posted')
    at(bench, 2).reply(['Cache-Control', 'max-age=60', 'Vary', 'Accept'], 'from before')
    expect(await before.outcome()).toBe('200 from before')
    for (const headers of [[], ['Accept', 'other']]) expect(await bench.ask({ headers }).outcome()).toBe('200 posted')
    expect(bench.shared.store.entries).toBe(1)
  })
})

describe('a change by somebody else', () => {
  const changes: [string, (bench: Bench) => Promise<unknown>][] = [
    ['a purge', ({ shared }) => purge(shared, { urls: [URL] })],
    ['a purge of a tag', ({ shared }) => purge(shared, { tags: ['a'] })],
    ['a purge of everything', ({ shared }) => purge(shared, { all: true })],
    [
      'a PUT',
      async (bench) => {
        const put = bench.ask({ method: 'PUT' })
        await settle()
        bench.asked.at(-1)?.reply([], 'put')
        await put.outcome()
      },
    ],
  ]

  it.each(changes)('while the POST is under way keeps its answer from others: %s', async (_what, change) => {
    const bench = createBench({ tags: ['a'] })
    const posted = bench.ask({ method: 'POST' })
    await settle()
    await change(bench)
    at(bench, 0).reply(OWN, 'posted')
    expect(await posted.outcome()).toBe('200 posted')
    expect(bench.shared.store.entries).toBe(0)
    expect(bench.shared.flights.size).toBe(0)
  })

  it.each(changes)('while the answer comes keeps it from others: %s', async (_what, change) => {
    const bench = createBench({ tags: ['a'] })
    const posted = bench.ask({ method: 'POST' })
    await settle()
    const body = at(bench, 0).stream(OWN)
    await settle()
    body.send('pos')
    await change(bench)
    body.send('ted')
    body.end()
    expect(await posted.outcome()).toBe('200 posted')
    expect(bench.shared.store.entries).toBe(0)
    expect(bench.shared.flights.size).toBe(0)
  })
})

describe('an answer to a POST that breaks off', () => {
  it.each(['the origin', 'the client'])('by %s is not stored', async (who) => {
    const bench = createBench()
    const posted = bench.ask({ method: 'POST' })
    await settle()
    const body = at(bench, 0).stream(OWN)
    await settle()
    body.send('pos')
    if (who === 'the origin') body.fail()
    else posted.abort()
    await settle()
    expect([bench.shared.store.entries, bench.shared.flights.size, bench.shared.fillBytes]).toEqual([0, 0, 0])
  })

  it('before its head leaves nothing behind', async () => {
    const bench = createBench()
    const posted = bench.ask({ method: 'POST' })
    await settle()
    posted.abort()
    await expect(posted.reply).rejects.toThrow('client_gone')
    expect(bench.shared.flights.size).toBe(0)
  })
})
