// What takes stored answers away: tags, prefixes, patterns, everything; by an operator and by a write that succeeded. Seen
// by clients, by the origin and through the admin port.

import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { request } from '../support/client.ts'
import { type Edge, startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import type { Script } from '../support/origin.ts'

const get = async ({ gateway }: Edge, path: string, host = 'a.test') =>
  await request(`${gateway.url}${path}`, { headers: { Host: host } })

const outcomes = async (edge: Edge, ...paths: readonly string[]) => {
  const words: unknown[] = []
  for (const path of paths) words.push((await get(edge, path)).headers['x-cache'])
  return words
}

const post = async ({ gateway }: Edge, body: unknown): Promise<unknown> => {
  const response = await fetch(`${gateway.adminUrl}/api/cache/purge`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  return response.json()
}

const entriesOf = async ({ gateway }: Edge, url: string): Promise<{ entries: Record<string, unknown>[] }> => {
  const response = await fetch(`${gateway.adminUrl}/api/cache/entry?url=${encodeURIComponent(url)}`)
  return (await response.json()) as { entries: Record<string, unknown>[] }
}

/** An origin that tags what it answers with what the query says: `?Cache-Tag=a,b`. */
const tagging: Script = ({ url = '/' }, response, count) => {
  for (const [name, value] of new URL(url, 'http://origin.test').searchParams) response.setHeader(name, value)
  response.end(`made ${count}`)
}

const startTagging = (...routes: string[]) =>
  startEdge({ script: tagging, routes: routes.length > 0 ? routes : ['{path: /*, cache: {ttl: 1h}}'] })

describe('tags', () => {
  it.each(['surrogate-key=a%20b', 'xkey=a%20b', 'Cache-Tag=a,%20b'])(
    'that the origin names in %s are purged by, and no client sees them',
    async (query) => {
      const edge = await startTagging()
      const { headers } = await get(edge, `/x?${query}`)
      expect(['surrogate-key', 'xkey', 'cache-tag'].filter((name) => name in headers)).toEqual([])
      await get(edge, '/untagged')
      expect(await post(edge, { tags: ['b', 'c'] })).toMatchObject({ purged: 1 })
      expect(await outcomes(edge, `/x?${query}`, '/untagged')).toEqual(['MISS', 'HIT'])
      expect(await post(edge, { tags: ['a'] })).toMatchObject({ purged: 1 })
    },
  )

  it('survive a validation, gain those of the 304, and reach a validation that is under way', async () => {
    const held: ServerResponse[] = []
    const edge = await startEdge({
      routes: ['{path: /*, cache: {}}'],
      script({ headers }, response, count) {
        response.setHeader('ETag', '"v"').setHeader('Cache-Control', 'no-cache')
        if (headers['if-none-match'] === undefined) response.setHeader('xkey', 'old').end(`made ${count}`)
        else held.push(response.writeHead(304, { xkey: 'new' }))
      },
    })
    await get(edge, '/x')
    const validated = get(edge, '/x')
    await until(() => held.length === 1, 'the validation to reach the origin')
    held[0]?.end()
    expect((await validated).headers['x-cache']).toBe('REVALIDATED')
    expect((await entriesOf(edge, '/x')).entries.map(({ tags }) => tags)).toEqual([['old', 'new']])

    const purged = get(edge, '/x')
    await until(() => held.length === 2, 'the second validation to reach the origin')
    expect(await post(edge, { tags: ['old'] })).toMatchObject({ purged: 1 })
    held[1]?.end()
    expect((await purged).text).toBe('made 1')
    expect((await entriesOf(edge, '/x')).entries).toEqual([])
  })

  it('that the origin names are not seen on a route without a cache either', async () => {
    const edge = await startTagging('{path: /*}')
    expect((await get(edge, '/x?xkey=a&Cache-Tag=b')).headers).not.toHaveProperty('xkey')
    expect((await get(edge, '/x?xkey=a&Cache-Tag=b')).headers).not.toHaveProperty('cache-tag')
  })

  it('of the route take values from the path', async () => {
    const edge = await startTagging('{path: /decks/:id/:page, cache: {ttl: 1h, tags: [decks, "deck-:id"]}}')
    for (const path of ['/decks/1/a', '/decks/1/b', '/decks/2/a']) await get(edge, path)
    expect(await post(edge, { tags: ['deck-1'] })).toMatchObject({ purged: 2 })
    expect(await outcomes(edge, '/decks/1/a', '/decks/1/b', '/decks/2/a')).toEqual(['MISS', 'MISS', 'HIT'])
    expect(await post(edge, { tags: ['decks', 'deck-2'] })).toMatchObject({ purged: 3 })
  })

  it('take away one variant and leave the others', async () => {
    const edge = await startEdge({
      routes: ['{path: /*, cache: {ttl: 1h}}'],
      script({ headers }, response) {
        response.setHeader('Vary', 'Accept-Language')
        response.setHeader('xkey', String(headers['accept-language']))
        response.end()
      },
    })
    const speak = async (language: string) =>
      (await request(`${edge.gateway.url}/x`, { headers: { 'Accept-Language': language } })).headers['x-cache']
    for (const language of ['de', 'fr']) await speak(language)
    expect(await post(edge, { tags: ['de'] })).toMatchObject({ purged: 1 })
    expect([await speak('fr'), await speak('de')]).toEqual(['HIT', 'MISS'])
  })

  it.each([
    ['too many', `/x?xkey=${Array.from({ length: 65 }, (_, i) => i).join('+')}`],
    ['one too long', `/x?xkey=${'x'.repeat(129)}`],
    ['one too long from the path', `/long/${'x'.repeat(125)}`],
  ])('that cannot be kept keep the answer from being stored: %s', async (_what, path) => {
    const edge = await startTagging(
      '{path: /*, cache: {ttl: 1h}}',
      '{path: /long/:id, cache: {ttl: 1h, tags: ["long-:id"]}}',
    )
    const { headers } = await get(edge, path)
    expect(headers['cache-status']).toBe('weirgate; fwd=miss; detail=tags')
    expect(await outcomes(edge, path)).toEqual(['MISS'])
  })
})

describe('a write on a route that purges', () => {
  const startDecks = (status = 204) =>
    startEdge({
      routes: [
        '{path: /decks/*, methods: [GET], cache: {ttl: 1h, tags: [decks]}}',
        '{path: /decks/:id, methods: [GET], cache: {ttl: 1h, tags: ["deck-:id"]}}',
        '{path: /decks/:id/pages, purges: [decks, "deck-:id"]}',
      ],
      script({ method }, response) {
        if (method !== 'GET') response.statusCode = status
        response.end()
      },
    })
  const PATHS = ['/decks', '/decks/1', '/decks/2'] as const
  const write = ({ gateway }: Edge, method = 'POST') =>
    request(`${gateway.url}/decks/1/pages`, { method, headers: { Host: 'a.test' } })

  it.each([200, 204, 303])('takes its tags away before the client has its %i', async (status) => {
    const edge = await startDecks(status)
    await outcomes(edge, ...PATHS)
    await write(edge)
    expect(await outcomes(edge, ...PATHS)).toEqual(['MISS', 'MISS', 'HIT'])
  })

  it.each([400, 404, 500])('takes nothing away when it is answered %i', async (status) => {
    const edge = await startDecks(status)
    await outcomes(edge, ...PATHS)
    await write(edge)
    expect(await outcomes(edge, ...PATHS)).toEqual(['HIT', 'HIT', 'HIT'])
  })

  it('is none when its method is safe', async () => {
    const edge = await startDecks()
    await outcomes(edge, ...PATHS)
    for (const method of ['OPTIONS', 'GET', 'HEAD']) await write(edge, method)
    expect(await outcomes(edge, ...PATHS)).toEqual(['HIT', 'HIT', 'HIT'])
  })
})

describe('a purge by tag while a fetch is under way', () => {
  it.each([
    ['a tag of the route', 'route-x'],
    ['a tag that the answer will turn out to carry', 'answer'],
  ])('keeps what was asked for before out of the store: %s', async (_what, tag) => {
    const owed: ServerResponse[] = []
    const edge = await startEdge({
      routes: ['{path: /:id, cache: {ttl: 1h, tags: ["route-:id"]}}'],
      script: (_message, response) => void owed.push(response),
    })
    const before = get(edge, '/x')
    await until(() => owed.length === 1, 'the fetch')
    await post(edge, { tags: [tag] })
    const after = get(edge, '/x')
    if (tag === 'route-x') await until(() => owed.length === 2, 'a fetch of its own')
    owed[0]?.setHeader('xkey', 'answer').end('old')
    expect((await before).text).toBe('old')
    await until(() => owed.length === 2, 'a fetch of its own')
    owed[1]?.setHeader('xkey', 'answer').end('new')
    expect((await after).text).toBe('new')
    expect((await get(edge, '/x')).text).toBe('new')
    expect(await post(edge, { tags: [tag] })).toMatchObject({ purged: 1 })
  })

  it('lets pass what carries other tags', async () => {
    const owed: ServerResponse[] = []
    const edge = await startEdge({
      routes: ['{path: /*, cache: {ttl: 1h}}'],
      script: (_message, response) => void owed.push(response),
    })
    const before = get(edge, '/x')
    await until(() => owed.length === 1, 'the fetch')
    await post(edge, { tags: ['b'] })
    owed[0]?.setHeader('xkey', 'a').end('one')
    await before
    expect(await outcomes(edge, '/x')).toEqual(['HIT'])
  })
})

describe('a purge by prefix or pattern', () => {
  const STORED = ['/a', '/a/b', '/a/b?q=1', '/ab.png', '/c/b.png'] as const

  it.each<[string, Record<string, unknown>, readonly string[]]>([
    ['a prefix on every host', { prefix: '/a' }, ['/a', '/a/b', '/a/b?q=1', '/ab.png']],
    ['a prefix to a segment', { prefix: '/a/' }, ['/a/b', '/a/b?q=1']],
    ['a prefix on a host, by either scheme', { prefix: 'https://A.test/c' }, ['/c/b.png']],
    ['a prefix on another host', { prefix: 'http://b.test/' }, []],
    ['a prefix in another spelling', { prefix: '//%61/' }, ['/a/b', '/a/b?q=1']],
    ['a pattern for a whole path', { pattern: '/a*b' }, ['/a/b']],
    ['a pattern with several gaps', { pattern: '/*/b*' }, ['/a/b', '/a/b?q=1', '/c/b.png']],
    ['a pattern for an ending', { pattern: '*.png' }, ['/ab.png', '/c/b.png']],
    ['a pattern for a host', { pattern: 'https://*.TEST/c/*' }, ['/c/b.png']],
    ['a pattern without a gap', { pattern: '/a' }, ['/a']],
    ['a pattern whose pieces would have to overlap', { pattern: '/a/b*b?q=1' }, []],
    ['a dot that is only a dot', { pattern: '/a.*' }, []],
    ['everything', { all: true }, STORED],
    ['everything by pattern', { pattern: '*' }, STORED],
  ])('takes away %s', async (_what, body, gone) => {
    const edge = await startTagging()
    await outcomes(edge, ...STORED)
    expect(await post(edge, body)).toMatchObject({ purged: gone.length })
    expect(await outcomes(edge, ...STORED)).toEqual(STORED.map((path) => (gone.includes(path) ? 'MISS' : 'HIT')))
  })

  it.each([
    [{ pattern: 'a.test/*' }, 'A pattern begins with'],
    [{ pattern: '/a%zz*' }, 'cannot be purged'],
    [{ prefix: '/a/../b' }, 'cannot be purged'],
    [{ pattern: '/*', soft: 'yes' }, 'soft: expected true or false'],
  ])('refuses %j and takes nothing away', async (body, detail) => {
    const edge = await startTagging()
    await get(edge, '/a')
    expect(await post(edge, body)).toMatchObject({ status: 400, detail: expect.stringContaining(detail) })
    expect(await outcomes(edge, '/a')).toEqual(['HIT'])
  })
})

describe('GET /api/cache/entry', () => {
  it('tells what is stored under a URL, without bodies', async () => {
    const edge = await startTagging('{path: /*, cache: {ttl: 1h, tags: [route]}}')
    for (const host of ['a.test', 'b.test']) await get(edge, '/x?xkey=own', host)
    const { entries } = await entriesOf(edge, 'https://a.test/x?xkey=own')
    expect(entries).toEqual([
      {
        url: 'http://a.test/x?xkey=own',
        key: null,
        status: 200,
        vary: {},
        age_s: expect.any(Number),
        ttl_s: expect.any(Number),
        tags: ['route', 'own'],
        body_bytes: 'made 1'.length,
        complete_bytes: 'made 1'.length,
        codings: {},
        size_bytes: expect.any(Number),
      },
    ])
    expect(entries[0]?.['ttl_s']).toBeGreaterThan(3500)
    expect((await entriesOf(edge, '/x?xkey=own')).entries).toHaveLength(2)
    expect(await entriesOf(edge, '/y')).toEqual({ entries: [], truncated: false })
  })

  it('refuses what is no URL', async () => {
    const edge = await startTagging()
    expect(await entriesOf(edge, 'x')).toMatchObject({ status: 400 })
    expect(await entriesOf(edge, '/%zz')).toMatchObject({ status: 400 })
  })
})

describe('a soft purge', () => {
  const STALE = 'stale: {whileRevalidate: 1m}'
  const versions: Script = ({ url = '', headers }, response, count) => {
    if (url.startsWith('/strict')) response.setHeader('Cache-Control', 'max-age=60, must-revalidate')
    if (url.endsWith('validated')) response.setHeader('ETag', '"v"')
    if (headers['if-none-match'] === '"v"') response.writeHead(304).end()
    else response.end(`made ${count}`)
  }
  const startVersions = async (options = STALE) =>
    await startEdge({ routes: [`{path: /*, cache: {ttl: 1h, tags: [t], ${options}}}`], script: versions })

  it.each([
    ['URLs', { urls: ['/x'] }],
    ['an absolute URL', { urls: ['https://a.test/x'] }],
    ['tags', { tags: ['t'] }],
    ['a prefix', { prefix: '/x' }],
    ['a pattern', { pattern: '*/x' }],
    ['everything', { all: true }],
  ])('by %s lets what is stored answer while it is refreshed', async (_what, rule) => {
    const edge = await startVersions()
    await get(edge, '/x')
    expect(await post(edge, { ...rule, soft: true })).toMatchObject({ purged: 1 })
    const { text, headers } = await get(edge, '/x')
    expect([text, headers['x-cache']]).toEqual(['made 1', 'STALE'])
    await until(() => edge.origin.seen.length === 2, 'the refresh')
    let next = await get(edge, '/x')
    while (next.headers['x-cache'] === 'STALE') next = await get(edge, '/x')
    expect([next.text, next.headers['x-cache']]).toEqual(['made 2', 'HIT'])
  })

  it.each([
    ['may not answer stale and can be validated', '/strict/validated', 1, 'REVALIDATED', 'made 1'],
    ['may not answer stale, and so is removed', '/strict', 1, 'MISS', 'made 2'],
    ['may answer when the origin fails, and does not else', '/validated', 1, 'REVALIDATED', 'made 1'],
  ])('asks the origin about what %s', async (_what, path, purged, outcome, text) => {
    const edge = await startVersions('stale: {whileRevalidate: 0s}')
    await get(edge, path)
    expect(await post(edge, { urls: [path], soft: true })).toMatchObject({ purged })
    const answer = await get(edge, path)
    expect([answer.headers['x-cache'], answer.text]).toEqual([outcome, text])
  })

  it('keeps what is stored for when the origin fails', async () => {
    const edge = await startVersions()
    await get(edge, '/x')
    await post(edge, { all: true, soft: true })
    edge.origin.answer((_request, response) => response.writeHead(500).end('broken'))
    expect((await get(edge, '/x')).text).toBe('made 1')
    expect((await get(edge, '/x')).headers['x-cache']).toBe('STALE')
  })

  it('of what is being fetched makes nobody wait for it, and keeps it out of the store', async () => {
    const owed: ServerResponse[] = []
    const edge = await startEdge({
      routes: [`{path: /*, cache: {ttl: 1h, ${STALE}}}`],
      script: (_message, response) => void owed.push(response),
    })
    const before = get(edge, '/x')
    await until(() => owed.length === 1, 'the fetch')
    expect(await post(edge, { urls: ['/x'], soft: true })).toMatchObject({ purged: 0 })
    const after = get(edge, '/x')
    await until(() => owed.length === 2, 'a fetch of its own')
    owed[1]?.end('new')
    expect((await after).text).toBe('new')
    owed[0]?.end('old')
    expect((await before).text).toBe('old')
    expect((await get(edge, '/x')).text).toBe('new')
  })
})

describe('a URL as people know it', () => {
  const ROUTES = [
    '{path: /q/*, methods: [GET], cache: {ttl: 1h, key: {query: {ignore: [utm_*]}}}}',
    '{path: /h/*, cache: {ttl: 1h, key: {headers: [X-Tenant]}}}',
    '{path: /*}',
  ]
  const ask = async ({ gateway }: Edge, path: string, fields: Record<string, string> = {}) =>
    (await request(`${gateway.url}${path}`, { headers: { Host: 'a.test', ...fields } })).headers['x-cache']

  it('is asked for in full, and found under the query that its key has', async () => {
    const edge = await startTagging(...ROUTES)
    const path = '/q/x?utm_source=mail&b=1&a=2'
    expect(await outcomes(edge, path, '/q/x?a=2&b=1&utm_source=web')).toEqual(['MISS', 'HIT'])
    expect(edge.origin.seen.map(({ url }) => url)).toEqual([path])
    const { entries } = await entriesOf(edge, `http://a.test${path}`)
    expect(entries.map(({ url, key }) => [url, key])).toEqual([['http://a.test/q/x?a=2&b=1', null]])
    expect((await entriesOf(edge, path)).entries).toHaveLength(1)
    expect(await post(edge, { urls: [`https://a.test${path}`] })).toMatchObject({ purged: 1 })
    expect(await outcomes(edge, path)).toEqual(['MISS'])
    expect(await post(edge, { urls: [path] })).toMatchObject({ purged: 1 })
    expect(await outcomes(edge, path)).toEqual(['MISS'])
  })

  it('is taken away by a write to it, in the spelling of its key', async () => {
    const edge = await startTagging(...ROUTES)
    await get(edge, '/q/x?b=1')
    await request(`${edge.gateway.url}/q/x?utm_a=1&b=1`, { method: 'PUT', headers: { Host: 'a.test' } })
    expect(await outcomes(edge, '/q/x?b=1')).toEqual(['MISS'])
  })

  it('stands for every key that it has', async () => {
    const edge = await startTagging(...ROUTES)
    const tenants = ['a', 'b', 'a'].map((tenant) => ({ 'X-Tenant': tenant }))
    const words: unknown[] = []
    for (const fields of tenants) words.push(await ask(edge, '/h/x', fields))
    expect(words).toEqual(['MISS', 'MISS', 'HIT'])
    const { entries } = await entriesOf(edge, 'http://a.test/h/x')
    expect(entries.map(({ url, key }) => [url, /^with:[\w-]{43}$/.test(String(key))])).toEqual([
      ['http://a.test/h/x', true],
      ['http://a.test/h/x', true],
    ])
    expect(await post(edge, { urls: ['http://a.test/h/x'] })).toMatchObject({ purged: 2 })
    expect(await ask(edge, '/h/x', tenants[0])).toBe('MISS')
    expect(await post(edge, { prefix: '/h/' })).toMatchObject({ purged: 1 })
  })
})

it("keeps the answer to a POST from others by a tag that only the answer names, but not by the POST's own", async () => {
  const answers: (() => void)[] = []
  const edge = await startEdge({
    routes: ['{path: /*, purges: [written], cache: {ttl: 1h}}'],
    script({ method }, response) {
      const fields = { 'Content-Location': '', 'Cache-Control': 'max-age=60', 'Cache-Tag': 'written, own' }
      if (method === 'POST') answers.push(() => response.writeHead(200, fields).end('posted'))
      else response.end('got')
    },
  })
  const postBeside = async (purged: string) => {
    const posted = request(`${edge.gateway.url}/x`, { method: 'POST' })
    await until(() => answers.length > 0, 'the POST to arrive')
    await edge.gateway.gateway.purge({ tags: [purged] })
    answers.pop()?.()
    const { headers } = await posted
    const next = await request(`${edge.gateway.url}/x`)
    return [headers['cache-status'], next.headers['x-cache'], next.text]
  }
  expect(await postBeside('another')).toEqual(['weirgate; fwd=method; stored; detail=method', 'HIT', 'posted'])
  expect(await postBeside('own')).toEqual(['weirgate; fwd=method; detail=purged', 'MISS', 'got'])
})
