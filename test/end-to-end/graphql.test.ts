// A route for GraphQL before a small server of it, which knows a counter and who asks: what is answered from the cache,
// what never is, and what a mutation takes away.

import { createHash } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import type { Seen } from '../support/origin.ts'

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
const hashed = (text: string) => ({ persistedQuery: { version: 1, sha256Hash: sha256(text) } })

interface Asked {
  readonly query?: string
  readonly operationName?: string | null
  readonly variables?: Record<string, unknown>
  readonly extensions?: { readonly persistedQuery?: { readonly sha256Hash: string } }
}

/** `count` is the counter, `mutation {add}` adds to it, `fail` is an error beside data, `refuse` one without, `wait` takes
 *  until it is let go. */
function createServer() {
  const documents = new Map<string, string>()
  const waiting: (() => void)[] = []
  let count = 0

  const parametersOf = (url: string): Asked => {
    const parameters = new URL(url, 'http://a.test').searchParams
    return Object.fromEntries(
      [...parameters].map(([name, value]) => [
        name,
        /^(?:variables|extensions)$/.test(name) ? JSON.parse(value) : value,
      ]),
    )
  }
  const answerTo = ({ query, variables = {}, extensions }: Asked): object => {
    const hash = extensions?.persistedQuery?.sha256Hash
    if (query !== undefined && hash !== undefined) documents.set(hash, query)
    const document = query ?? documents.get(hash ?? '')
    if (document === undefined) return { errors: [{ message: 'PersistedQueryNotFound' }] }
    if (document.includes('refuse')) return { errors: [{ message: 'refused' }] }
    if (document.includes('add')) count++
    if (document.includes('fail')) return { data: { count }, errors: [{ message: 'failed' }] }
    return { data: { count, ...variables } }
  }
  return {
    documents,
    waiting,
    async answer({ method, url, headers, body }: Seen, response: ServerResponse): Promise<void> {
      const asked = method === 'GET' ? parametersOf(url) : (JSON.parse(String(await body)) as Asked | Asked[])
      if (JSON.stringify(asked).includes('wait')) await new Promise<void>((resolve) => waiting.push(resolve))
      const answer = Array.isArray(asked) ? asked.map(answerTo) : answerTo(asked)
      const isNew = headers.accept?.includes('graphql-response') === true
      response.setHeader('Content-Type', isNew ? 'application/graphql-response+json' : 'application/json')
      response.end(JSON.stringify(answer))
    },
  }
}

async function start(fields = '') {
  const server = createServer()
  const route = `{path: /graphql, cache: {ttl: 1h, scope: public, methods: [GET, POST], tags: [all], key: {body: graphql}}, ${fields}}`
  const edge = await startEdge({
    routes: [route, '{path: /tagged, cache: {ttl: 1h, tags: [counts]}}', '{path: /*}'],
  })
  const { gateway, origin } = edge
  origin.answer((_incoming, response, count) => void server.answer(origin.seen[count - 1] as Seen, response))
  const said = async (answering: ReturnType<typeof request>): Promise<string> => {
    const { headers, text } = await answering
    const detail = /detail=(\S+)/.exec(String(headers['cache-status']))?.[1]
    const outcome = `${String(headers['x-cache'])}${detail === undefined || detail === 'absent' ? '' : ` ${detail}`}`
    return `${outcome} ${text.replace(/^\{"data":\{"count":(\d+).*/, '$1')}`
  }
  const post = (body: Asked | readonly Asked[], headers: Record<string, string> = {}, path = '/graphql') =>
    said(
      request(gateway.url + path, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json', ...headers },
        body: JSON.stringify(body),
      }),
    )
  const get = (parameters: Record<string, string>, path = '/graphql') =>
    said(request(`${gateway.url}${path}?${new URLSearchParams(parameters).toString()}`))
  return { ...edge, ...server, post, get }
}

describe('a query by POST', () => {
  it('is asked once, however it is written', async () => {
    const { post, origin } = await start()
    expect(await post({ query: 'query A { count }', operationName: 'A' })).toBe('MISS 0')
    expect(await post({ query: '# how many\nquery A{count}', operationName: 'A', variables: {} })).toBe('HIT 0')
    expect(await post({ query: 'query A { count other }', operationName: 'A' })).toBe('MISS 0')
    expect(await post({ query: 'query A { count }', operationName: 'A', variables: { x: 1 } })).toBe('MISS 0')
    expect(origin.seen).toHaveLength(3)
    expect(JSON.parse(String(await origin.seen[0]?.body))).toEqual({ query: 'query A { count }', operationName: 'A' })
  })

  it('has an answer for each media type that is asked for', async () => {
    const { gateway, post } = await start()
    const accept = { Accept: 'application/graphql-response+json' }
    expect(await post({ query: '{count}' })).toBe('MISS 0')
    expect(await post({ query: '{count}' }, accept)).toBe('MISS 0')
    const headers = { 'Content-Type': 'application/json', ...accept }
    const answer = await request(`${gateway.url}/graphql`, { method: 'POST', headers, body: '{"query":"{count}"}' })
    expect([answer.headers['x-cache'], answer.headers['content-type']]).toEqual(['HIT', accept.Accept])
  })

  it.each([
    ['beside data', '{count fail}', 'MISS error-answer'],
    ['in the place of data', '{count refuse}', 'MISS error-answer'],
  ])('with errors %s is not stored', async (_what, query, expected) => {
    const { post, origin } = await start()
    expect(await post({ query })).toContain(expected)
    expect(await post({ query })).toContain(expected)
    expect(origin.seen).toHaveLength(2)
  })

  it('shares one fetch with all who ask for the same', async () => {
    const { post, origin, waiting, gateway } = await start()
    const all = [post({ query: '{count wait}' }), post({ query: '{count, wait}' })]
    await until(() => waiting.length === 1, 'the fetch to arrive')
    await until(() => /^process_open_connections 2$/m.test(gateway.gateway.metrics()), 'both to be there')
    for (let i = 0; i < 2; i++) await request(`${gateway.url}/health`)
    waiting[0]?.()
    expect((await Promise.all(all)).toSorted()).toEqual(['COLLAPSED 0', 'MISS 0'])
    expect(origin.seen).toHaveLength(1)
  })
})

describe('what is not a query beyond doubt', () => {
  it.each([
    ['a mutation', { query: 'mutation {add}' }, 'mutation'],
    ['a mutation in the same document', { query: 'query A {count} mutation B {x}', operationName: 'A' }, 'mutation'],
    ['a subscription', { query: 'subscription {count}' }, 'subscription'],
    ['a batch', [{ query: '{count}' }, { query: '{count}' }], 'graphql-batch'],
    ['two operations', { query: 'query A {count} query B {count}' }, 'unclear-graphql'],
    ['a document that is unknown', { extensions: hashed('{unknown}') }, 'unknown-document'],
  ])('%s goes to the upstream each time', async (_what, body, reason) => {
    const { post, origin, gateway } = await start()
    for (let i = 0; i < 2; i++) expect(await post(body as Asked)).toMatch(new RegExp(`^BYPASS ${reason} `))
    expect(origin.seen).toHaveLength(2)
    expect((await gateway.requestLines(2))[1]).toMatchObject({ cache: 'bypass', cache_reason: reason })
  })

  it('a query in the body, where the URL has another', async () => {
    const { post } = await start()
    const path = `/graphql?query=${encodeURIComponent('mutation {add}')}`
    for (let i = 0; i < 2; i++) expect(await post({ query: '{count}' }, {}, path)).toMatch(/^BYPASS unclear-graphql /)
  })

  it('a mutation is never shared, at whatever moment', async () => {
    const { post, waiting, origin } = await start()
    const all = [post({ query: 'mutation {add wait}' }), post({ query: 'mutation {add wait}' })]
    await until(() => waiting.length === 2, 'both to arrive')
    for (const go of waiting) go()
    expect((await Promise.all(all)).toSorted()).toEqual(['BYPASS mutation 1', 'BYPASS mutation 2'])
    expect(origin.seen).toHaveLength(2)
  })
})

describe('a mutation', () => {
  it('takes all that is stored under its URL', async () => {
    const { post, get } = await start()
    await post({ query: '{count}' })
    await get({ query: '{count}' }, '/tagged')
    expect(await post({ query: '{count}' })).toBe('HIT 0')
    expect(await post({ query: 'mutation {add}' })).toBe('BYPASS mutation 1')
    expect(await post({ query: '{count}' })).toBe('MISS 1')
    expect(await get({ query: '{count}' }, '/tagged')).toBe('HIT 0')
  })

  it('takes what the route purges, and nothing else', async () => {
    const { post, get } = await start('purges: [counts]')
    await post({ query: '{count}' })
    await get({ query: '{count}' }, '/tagged')
    await post({ query: 'mutation {add}' })
    expect(await post({ query: '{count}' })).toBe('HIT 0')
    expect(await get({ query: '{count}' }, '/tagged')).toBe('MISS 1')
  })

  it('takes nothing where the route says so', async () => {
    const { post } = await start('purges: []')
    await post({ query: '{count}' })
    await post({ query: 'mutation {add}' })
    expect(await post({ query: '{count}' })).toBe('HIT 0')
  })

  it.each([
    ['refused, of which nothing was done', 'mutation {add refuse}', 'HIT 0'],
    ['that failed in part', 'mutation {add fail}', 'MISS 1'],
  ])('%s: what is stored then is as it should be', async (_what, query, expected) => {
    const { post } = await start()
    await post({ query: '{count}' })
    await post({ query })
    expect(await post({ query: '{count}' })).toBe(expected)
  })

  it('among others in a batch counts as one, and a batch of queries does not', async () => {
    const { post } = await start()
    await post({ query: '{count}' })
    await post([{ query: '{count}' }, { query: '{other}' }])
    expect(await post({ query: '{count}' })).toBe('HIT 0')
    await post([{ query: '{count}' }, { query: 'mutation {add}' }])
    expect(await post({ query: '{count}' })).toBe('MISS 1')
  })

  it('spoils a query that is under way', async () => {
    const { post, waiting } = await start()
    const query = post({ query: '{count wait}' })
    await until(() => waiting.length === 1, 'the query to arrive')
    await post({ query: 'mutation {add}' })
    waiting[0]?.()
    expect(await query).toMatch(/^MISS/)
    const again = post({ query: '{count wait}' })
    await until(() => waiting.length === 2, 'the query to be asked again')
    waiting[1]?.()
    expect(await again).toBe('MISS 1')
  })
})

describe('a persisted query', () => {
  const extensions = JSON.stringify(hashed('{count}'))

  it('by GET has its answer stored, but not that nobody knows it', async () => {
    const { get, documents, origin } = await start()
    expect(await get({ extensions })).toContain('MISS error-answer {"errors"')
    expect(await get({ extensions })).toContain('PersistedQueryNotFound')
    documents.set(sha256('{count}'), '{count}')
    expect(await get({ extensions, variables: '{"x":1,"y":2}' })).toBe('MISS 0')
    expect(await get({ variables: '{ "y": 2, "x": 1 }', extensions })).toBe('HIT 0')
    expect(await get({ variables: '{"y":3}', extensions })).toBe('MISS 0')
    expect(origin.seen).toHaveLength(4)
  })

  it('by POST is one with its document, once that has been seen', async () => {
    const { post } = await start()
    expect(await post({ extensions: hashed('{count}') })).toContain('BYPASS unknown-document')
    expect(await post({ query: '{count}', extensions: hashed('{count}') })).toBe('MISS 0')
    expect(await post({ extensions: hashed('{count}') })).toBe('HIT 0')
    expect(await post({ query: '{ count }' })).toBe('HIT 0')
  })

  it('that is a mutation is one by its hash as well', async () => {
    const { post } = await start()
    await post({ query: '{count}' })
    await post({ query: 'mutation {add}', extensions: hashed('mutation {add}') })
    expect(await post({ query: '{count}' })).toBe('MISS 1')
    expect(await post({ extensions: hashed('mutation {add}') })).toBe('BYPASS mutation 2')
    expect(await post({ query: '{count}' })).toBe('MISS 2')
  })
})

describe('a document by GET', () => {
  it('is a query like any, unless it is a mutation', async () => {
    const { get, origin } = await start()
    expect(await get({ query: '{count}' })).toBe('MISS 0')
    expect(await get({ query: '{ count, }' })).toBe('HIT 0')
    for (let i = 0; i < 2; i++) expect(await get({ query: 'mutation {x}' })).toBe('BYPASS mutation 0')
    expect(origin.seen).toHaveLength(3)
  })

  it('is told of by no near misses, since there is nothing to ignore', async () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    onTestFinished(() => void vi.useRealTimers())
    const { get, post, gateway } = await start()
    for (let i = 0; i < 24; i++) {
      vi.setSystemTime(Date.now() + 100)
      const path = `/graphql?_=${Date.now()}`
      expect(
        await (i % 2 === 0 ? get({ query: '{count}', variables: `{"x":${i}}` }) : post({ query: '{count}' }, {}, path)),
      ).toBe('MISS 0')
    }
    expect(gateway.gateway.stats().near_misses).toEqual({})
  })

  it('goes by a purge of its URL, in whatever spelling', async () => {
    const { get, gateway } = await start()
    await get({ query: '{count}' })
    const urls = [`/graphql?query=${encodeURIComponent('{ count }')}`]
    const purged = await gateway.gateway.purge({ urls })
    expect(purged.purged).toBe(1)
    expect(await get({ query: '{count}' })).toBe('MISS 0')
  })
})

it('each user has answers of their own under `scope: user`', async () => {
  const server = createServer()
  const { gateway, origin } = await startEdge({
    routes: ['{path: /graphql, methods: [POST], cache: {ttl: 1h, scope: user, key: {body: graphql}}}'],
  })
  origin.answer((_incoming, response, count) => void server.answer(origin.seen[count - 1] as Seen, response))
  const ask = async (who: string | null, query = '{count}') => {
    const headers = { 'Content-Type': 'application/json', ...(who === null ? {} : { Authorization: `Bearer ${who}` }) }
    const how = { method: 'POST', headers, body: JSON.stringify({ query }) }
    return (await request(`${gateway.url}/graphql`, how)).headers['x-cache']
  }
  expect([await ask('a'), await ask('a'), await ask('b'), await ask(null)]).toEqual(['MISS', 'HIT', 'MISS', 'BYPASS'])
  // Who is not known changes things like anybody.
  expect([await ask(null, 'mutation {add}'), await ask('a'), await ask('a')]).toEqual(['BYPASS', 'MISS', 'HIT'])
})

it('explain says what would become of a request', async () => {
  const { gateway } = await start()
  const headers = ['Content-Type', 'application/json']
  const explain = async (body: string) =>
    (await gateway.gateway.explain({ method: 'POST', url: '/graphql', headers, body })).cache
  expect(await explain('{"query":"mutation {a}"}')).toMatchObject({
    outcome: 'bypass',
    reason: expect.stringMatching(/mutation/),
  })
  expect(await explain('{"query":"{a}"}')).toMatchObject({ outcome: 'miss', key: expect.stringContaining('body:') })
})
