// POST and QUERY answered from the cache, told apart by their bodies: what counts as the same, what passes by untouched,
// and what becomes of bodies that are held, seen by clients and by the origin.

import { createHash } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { type Answer, converse, request } from '../support/client.ts'
import { type Edge, type EdgeOptions, arrived, expectWorking, settled, startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'

const JSON_TYPE = { 'Content-Type': 'application/json' }
const DECKS = '{path: /decks, methods: [POST], cache: {ttl: 1h, scope: public, key: {body: [prompt, cards]}}}'
const TEXTS = '{path: /texts, methods: [POST], cache: {ttl: 1h, scope: user, key: {body: canonical}}}'
const RAW = '{path: /raw, methods: [POST], cache: {ttl: 1h, scope: public, key: {body: raw}}}'
const BOTH = '{path: /both, cache: {ttl: 1h, methods: [GET, POST, QUERY], scope: public, key: {body: canonical}}}'
const SEARCH = '{path: /search, methods: [QUERY], cache: {ttl: 1h}}'

const start = (options: EdgeOptions = {}) =>
  startEdge({ routes: [DECKS, TEXTS, RAW, BOTH, SEARCH, '{path: /*}'], ...options })

interface Sent {
  readonly method?: string
  readonly headers?: Record<string, string>
}

const send = (
  { gateway }: Pick<Edge, 'gateway'>,
  path: string,
  body: unknown,
  { method = 'POST', headers = {} }: Sent = {},
) =>
  request(`${gateway.url}${path}`, {
    method,
    headers: { ...JSON_TYPE, ...headers },
    body: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body),
  })

const said = ({ headers }: Answer): string => {
  const detail = /detail=(\S+)/.exec(String(headers['cache-status']))?.[1]
  return `${String(headers['x-cache'])}${detail === undefined || detail === 'absent' ? '' : ` ${detail}`}`
}

const purge = async ({ gateway }: Edge, what: object): Promise<number> => {
  const answer = await fetch(`${gateway.adminUrl}/api/cache/purge`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(what),
  })
  return ((await answer.json()) as { purged: number }).purged
}

describe('a POST that the route declares cacheable', () => {
  it('is asked once for each meaning of its body, and the origin sees the bytes as they came', async () => {
    const edge = await start()
    const first = '{"prompt": "tides", "cards": 5}'
    const answers = [
      await send(edge, '/decks', first),
      await send(edge, '/decks', '{"cards":5.0,"prompt":"t\\u0069des"}'),
      await send(edge, '/decks', { prompt: 'tides', cards: 6 }),
      await send(edge, '/decks', { prompt: 'tides' }),
    ]
    expect(answers.map(said)).toEqual(['MISS', 'HIT', 'MISS', 'MISS'])
    expect(answers.map(({ text }) => text)).toEqual(['answer 1', 'answer 1', 'answer 2', 'answer 3'])
    const [seen] = edge.origin.seen
    expect([seen?.method, (await seen?.body)?.toString(), seen?.headers['content-length']]).toEqual([
      'POST',
      first,
      String(first.length),
    ])
    expect(seen?.headers['transfer-encoding']).toBeUndefined()
  })

  it('in chunks counts and is forwarded as one piece', async () => {
    const edge = await start()
    const client = await converse(
      edge.gateway.port,
      'POST /raw HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n3\r\nabc\r\n',
    )
    client.send('2\r\nde\r\n0\r\n\r\n')
    await client.end()
    expect(client.received).toContain('X-Cache: MISS')
    const [seen] = edge.origin.seen
    expect([(await seen?.body)?.toString(), seen?.headers['content-length']]).toEqual(['abcde', '5'])
    // The same bytes, with a length this time; without a type, as before.
    const again = await request(`${edge.gateway.url}/raw`, {
      method: 'POST',
      headers: { Host: 'a.test' },
      body: 'abcde',
    })
    expect(said(again)).toBe('HIT')
  })

  it.each([
    ['a field that is not listed', { prompt: 'a', seed: 1 }, {}, 'unknown-field'],
    ['a name that comes twice', '{"prompt":"a","prompt":"b"}', {}, 'unsafe-json'],
    ['a number beyond a double', '{"prompt":1e999}', {}, 'unsafe-json'],
    ['no JSON', 'prompt=a', {}, 'body-not-json'],
    ['nothing', '', {}, 'body-not-json'],
    ['another type', { prompt: 'a' }, { 'Content-Type': 'text/plain' }, 'body-not-json'],
    ['a coding', { prompt: 'a' }, { 'Content-Encoding': 'gzip' }, 'body-encoded'],
    ['a condition', { prompt: 'a' }, { 'If-None-Match': '"a"' }, 'precondition'],
  ])('passes by with %s: whole, and never stored', async (_name, body, headers, reason) => {
    const edge = await start()
    const bytes = typeof body === 'string' ? body : JSON.stringify(body)
    for (const n of [1, 2]) {
      const answer = await send(edge, '/decks', bytes, { headers })
      expect([said(answer), answer.text]).toEqual([`BYPASS ${reason}`, `answer ${n}`])
    }
    for (const seen of edge.origin.seen) {
      expect((await seen.body).toString()).toBe(bytes)
      expect(seen.headers).toMatchObject(
        Object.fromEntries(Object.entries(headers).map(([k, v]) => [k.toLowerCase(), v])),
      )
    }
    expect(edge.gateway.gateway.stats().cache.entries).toBe(0)
  })

  it('has no use for Range and If-Modified-Since: the whole is fetched, stored and answered', async () => {
    const edge = await start({
      script: (_message, response) => void response.setHeader('Last-Modified', new Date(0).toUTCString()).end('whole'),
    })
    const headers = { Range: 'bytes=0-1', 'If-Modified-Since': new Date().toUTCString() }
    for (const word of ['MISS', 'HIT']) {
      const answer = await send(edge, '/decks', { prompt: 'a' }, { headers })
      expect([said(answer), answer.status, answer.text]).toEqual([word, 200, 'whole'])
    }
    expect(edge.origin.seen[0]?.headers['range']).toBeUndefined()
  })

  it.each([
    ['no-store', { 'Cache-Control': 'no-store' }, 200],
    ['private', { 'Cache-Control': 'private, max-age=60' }, 200],
    ['set-cookie', { 'Set-Cookie': 'a=1' }, 200],
    ['no-store', { 'Cache-Control': 'no-cache, no-store, max-age=0' }, 200],
    ['no-cache', { 'CDN-Cache-Control': 'no-cache' }, 200],
    ['unterminated', { 'Content-Type': 'text/event-stream' }, 200],
    ['unterminated', { 'Content-Type': 'application/x-ndjson' }, 200],
    ['status', {}, 404],
    ['status', { 'Cache-Control': 'max-age=60' }, 404],
    ['status', {}, 500],
    ['status', {}, 201],
  ])('is not stored: %s', async (reason, headers, status) => {
    const edge = await start({ script: (_message, response) => void response.writeHead(status, headers).end('x') })
    for (const n of [1, 2]) {
      expect(said(await send(edge, '/decks', { prompt: 'a' }))).toBe(`MISS ${reason}`)
      expect(edge.origin.seen).toHaveLength(n)
    }
  })

  it('[RFC 9110 §9.3.3] lives by explicit freshness only, not by the age of its last change', async () => {
    const edge = await start({
      routes: ['{path: /*, methods: [POST], cache: {scope: public, key: {body: raw}}}'],
      script(message, response) {
        if (message.url === '/explicit') response.setHeader('Cache-Control', 'max-age=60')
        response.setHeader('Last-Modified', new Date(0).toUTCString())
        response.end()
      },
    })
    const words: string[] = []
    for (const path of ['/explicit', '/explicit', '/none', '/none']) words.push(said(await send(edge, path, 'x')))
    expect(words).toEqual(['MISS', 'HIT', 'MISS no-freshness', 'MISS no-freshness'])
  })

  it('is another one where events are asked for, though the origin does not say so by Vary', async () => {
    const edge = await start()
    const events = { headers: { Accept: 'text/event-stream' } }
    const words = [
      said(await send(edge, '/decks', { prompt: 'a' })),
      said(await send(edge, '/decks', { prompt: 'a' }, events)),
      said(await send(edge, '/decks', { prompt: 'a' }, { headers: { Accept: 'application/json' } })),
    ]
    expect(words).toEqual(['MISS', 'MISS', 'HIT'])
  })

  it('never has the end of a stream that broke off', async () => {
    const edge = await start({
      script(_message, response) {
        response.writeHead(200, { 'Content-Type': 'text/event-stream' })
        response.write('data: 1\n\n', () => setImmediate(() => response.destroy()))
      },
    })
    for (const n of [1, 2]) {
      await expect(send(edge, '/decks', { prompt: 'a' })).rejects.toThrow(/broke off|aborted|hang up|ECONNRESET/)
      expect(edge.origin.seen).toHaveLength(n)
    }
    expect(edge.gateway.gateway.stats().cache.entries).toBe(0)
  })
})

describe('the answer to a POST', () => {
  const ASK = '{path: /ask, methods: [POST], cache: {ttl: 1h, scope: public, key: {body: canonical}}}'
  const PICKY =
    '{path: /picky, methods: [POST], cache: {ttl: 1h, scope: public, key: {body: canonical}, storeIf: [slides filled], rejectIf: [draft == true]}}'
  const LAX =
    '{path: /lax, methods: [POST], cache: {ttl: 1h, scope: public, key: {body: canonical}, storeUnfinished: true, originNoCache: honor}}'
  const routes = [ASK, PICKY, LAX, '{path: /*}']
  const CUT_SHORT = '{"choices":[{"finish_reason":"length"}]}'

  const answering = (body: string | Buffer, headers: Record<string, string> = JSON_TYPE) =>
    start({ routes, script: (_message, response) => void response.writeHead(200, headers).end(body) })

  it.each<[string, string, string]>([
    ['/ask', '{"text":"a"}', 'HIT'],
    ['/ask', '{"error":{"code":1}}', 'MISS error-answer'],
    ['/ask', CUT_SHORT, 'MISS unfinished'],
    ['/ask', '{"text":', 'MISS answer-not-json'],
    ['/lax', CUT_SHORT, 'HIT'],
    ['/picky', '{"slides":[1]}', 'HIT'],
    ['/picky', '{"slides":[]}', 'MISS store-if'],
    ['/picky', '{"slides":[1],"draft":true}', 'MISS reject-if'],
    ['/picky', '{"slides":[1],"error":"x"}', 'MISS error-answer'],
  ])('on %s, where it is %s, is then %s', async (path, body, then) => {
    const edge = await answering(body)
    expect((await send(edge, path, {})).text).toBe(body)
    const again = await send(edge, path, {})
    expect([said(again), again.text]).toEqual([then, body])
    expect(edge.origin.seen).toHaveLength(then === 'HIT' ? 1 : 2)
    expect(edge.gateway.gateway.stats().cache.entries).toBe(then === 'HIT' ? 1 : 0)
  })

  it('in a content coding is looked into all the same', async () => {
    for (const [body, then] of [
      [CUT_SHORT, 'MISS unfinished'],
      ['{"text":"a"}', 'HIT'],
    ] as const) {
      const edge = await answering(gzipSync(body), { ...JSON_TYPE, 'Content-Encoding': 'gzip' })
      const headers = { 'Accept-Encoding': 'gzip' }
      await send(edge, '/ask', {}, { headers })
      expect(said(await send(edge, '/ask', {}, { headers }))).toBe(then)
    }
  })

  it('that comes in pieces is judged at its end, when everybody has it: once for all who ask meanwhile', async () => {
    const responses: ServerResponse[] = []
    const edge = await start({
      routes,
      script(_message, response) {
        response.writeHead(200, JSON_TYPE)
        response.write('{"choices":[', () => responses.push(response))
      },
    })
    const one = send(edge, '/ask', {})
    await until(() => responses.length === 1, 'the head of the answer')
    const other = send(edge, '/ask', {})
    await arrived(edge.gateway, 2)
    responses[0]?.end('{"finish_reason":"length"}]}')
    const answers = [await one, await other]
    expect(answers.map(({ text }) => text)).toEqual([CUT_SHORT, CUT_SHORT])
    expect(answers.map(({ headers }) => headers['x-cache'])).toEqual(['MISS', 'COLLAPSED'])
    expect(answers.map(({ headers }) => String(headers['cache-status'])).join()).not.toContain('stored')
    expect([edge.origin.seen.length, edge.gateway.gateway.stats().cache.entries]).toEqual([1, 0])
    await settled(edge)
  })

  it.each([
    ['no-cache', 'HIT'],
    ['max-age=0', 'HIT'],
    ['no-cache, must-revalidate, max-age=0', 'HIT'],
    ['no-cache, private', 'MISS private'],
    ['no-cache, no-store', 'MISS no-store'],
  ])('with Cache-Control: %s is then %s', async (control, then) => {
    const edge = await answering('{}', { ...JSON_TYPE, 'Cache-Control': control })
    await send(edge, '/ask', {})
    expect(said(await send(edge, '/ask', {}))).toBe(then)
    expect(said(await send(edge, '/lax', {}))).toMatch(/^MISS/)
    expect(said(await send(edge, '/lax', {}))).toMatch(/^MISS (no-cache|not-fresh|private|no-store)$/)
  })

  it('that was stored before its route became stricter is not used any more', async () => {
    const edge = await answering('{"slides":[]}')
    expect(said(await send(edge, '/ask', {}))).toBe('MISS')
    expect(said(await send(edge, '/ask', {}))).toBe('HIT')
    for (const [route, word] of [
      [ASK.replace('key:', 'storeIf: [slides filled], key:'), 'store-if'],
      [ASK.replace('cache:', 'rewrite: {prefix: /v2}, cache:'), 'config-changed'],
    ] as const) {
      edge.gateway.rewrite(
        `upstreams: {origin: {targets: [${edge.origin.url}]}}\ndefaults: {upstream: origin}\nroutes: [${route}]`,
      )
      expect(await edge.gateway.gateway.reload()).toMatchObject({ ok: true })
      expect(said(await send(edge, '/ask', {}))).toBe(`MISS ${word}`)
    }
  })
})

describe('what the route takes to be alike in bodies', () => {
  const CHAT = `{path: /chat, methods: [POST], cache: {ttl: 1h, scope: public, bypassIf: [temperature > 0, stream == true], key: {body: {
    only: [prompt, n, temperature, stream], ignore: [request_id, /meta/at], defaults: {n: 1, stream: false}, normalize: {prompt: [trim, collapse-spaces]}}}}}`

  it('has one answer, and the origin sees each body as it came', async () => {
    const edge = await start({ routes: [CHAT, '{path: /*}'] })
    const first = '{"prompt":" the  tides\\n","request_id":"r-1"}'
    const words = [said(await send(edge, '/chat', first))]
    for (const body of [
      { prompt: 'the tides', n: 1, request_id: 'r-2' },
      { prompt: 'the tides', stream: false, temperature: 0 },
      { prompt: 'The tides' },
      { prompt: 'the tides', n: 2 },
    ]) {
      words.push(said(await send(edge, '/chat', body)))
    }
    expect(words).toEqual(['MISS', 'HIT', 'MISS', 'MISS', 'MISS'])
    expect((await edge.origin.seen[0]?.body)?.toString()).toBe(first)
  })

  it.each([
    ['a condition holds', { prompt: 'a', temperature: 0.7 }, 'bypass-if'],
    ['it may hold', { prompt: 'a', temperature: '0.7' }, 'bypass-if'],
    ['one of several holds', { prompt: 'a', temperature: 0, stream: true }, 'bypass-if'],
    ['there is more than is ignored', { prompt: 'a', meta: { at: 1, seed: 2 } }, 'unknown-field'],
  ])('is not looked up where %s', async (_name, body, reason) => {
    const edge = await start({ routes: [CHAT, '{path: /*}'] })
    for (const n of [1, 2]) {
      const answer = await send(edge, '/chat', body)
      expect([said(answer), answer.text]).toEqual([`BYPASS ${reason}`, `answer ${n}`])
    }
    expect(edge.gateway.gateway.stats().cache.entries).toBe(0)
  })

  it('is shown by explain as it counts', async () => {
    const edge = await start({ routes: [CHAT, '{path: /*}'] })
    const explained = await fetch(`${edge.gateway.adminUrl}/api/explain`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        method: 'POST',
        url: '/chat',
        headers: JSON_TYPE,
        body: '{"prompt":" a ","request_id":1}',
      }),
    })
    const { cache } = (await explained.json()) as { cache: { outcome: string; key_parts: [string, string][] } }
    expect(new Map(cache.key_parts).get('body')).toBe('{"n":1,"prompt":"a","stream":false}')
  })
})

describe('the methods of one URL', () => {
  it('have answers of their own', async () => {
    const edge = await start()
    const words = [
      said(await request(`${edge.gateway.url}/both`)),
      said(await send(edge, '/both', {})),
      said(await send(edge, '/both', {}, { method: 'QUERY' })),
    ]
    expect(words).toEqual(['MISS', 'MISS', 'MISS'])
    const again = [
      await request(`${edge.gateway.url}/both`),
      await send(edge, '/both', {}),
      await send(edge, '/both', {}, { method: 'QUERY' }),
      await request(`${edge.gateway.url}/both`, { method: 'HEAD' }),
    ]
    expect(again.map(said)).toEqual(['HIT', 'HIT', 'HIT', 'HIT'])
    expect(again.map(({ text }) => text)).toEqual(['answer 1', 'answer 2', 'answer 3', ''])
  })

  it('[RFC 10008 §2.7] QUERY has its body in the key by the byte, with its type', async () => {
    const edge = await start()
    const query = (body: string, type = 'application/sql') =>
      send(edge, '/search', body, { method: 'QUERY', headers: { 'Content-Type': type } }).then(said)
    expect([await query('a'), await query('a'), await query(' a'), await query('a', 'text/plain')]).toEqual([
      'MISS',
      'HIT',
      'MISS',
      'MISS',
    ])
    const withCookie = await send(edge, '/search', 'b', { method: 'QUERY', headers: { Cookie: 'a=1' } })
    expect(said(withCookie)).toBe('MISS cookie')
  })

  it('do not undo one another where they are declared safe, and all go with a write or a purge', async () => {
    const edge = await start({ routes: [BOTH.replace('cache:', 'methods: [GET, POST, QUERY], cache:'), '{path: /*}'] })
    const words = async () => [
      said(await request(`${edge.gateway.url}/both`)),
      said(await send(edge, '/both', { a: 1 })),
    ]
    expect(await words()).toEqual(['MISS', 'MISS'])
    await send(edge, '/both', { a: 2 })
    await send(edge, '/both', 'no JSON')
    expect(await words()).toEqual(['HIT', 'HIT'])
    await send(edge, '/both', {}, { method: 'PUT' })
    expect(await words()).toEqual(['MISS', 'MISS'])
    // The POST's and the GET's; what the PUT took away and nobody asked for again is not there.
    expect(await purge(edge, { urls: ['/both'] })).toBe(2)
    expect(await words()).toEqual(['MISS', 'MISS'])
    expect(await purge(edge, { urls: [`${edge.gateway.url}/both`] })).toBe(2)
    expect(await words()).toEqual(['MISS', 'MISS'])
  })
})

describe('users', () => {
  it('have answers of their own, and who has no name has none', async () => {
    const edge = await start()
    const as = async (user: string | null) =>
      said(await send(edge, '/texts', { a: 1 }, { headers: user === null ? {} : { Authorization: user } }))
    const words: string[] = []
    for (const user of ['Bearer a', 'Bearer b', 'Bearer a', null, null]) words.push(await as(user))
    expect(words).toEqual(['MISS', 'MISS', 'HIT', 'BYPASS no-user', 'BYPASS no-user'])
  })
})

describe('a large body', () => {
  const digest = (bytes: Buffer | undefined) =>
    createHash('sha256')
      .update(bytes ?? '')
      .digest('hex')
  const body = Buffer.alloc(3 * 1024 ** 2, 'abcdefg')

  it.each([
    ['with a length', { 'Content-Length': String(body.length) }],
    ['in chunks', { 'Transfer-Encoding': 'chunked' }],
  ])('%s goes through whole and is not stored', async (_name, headers) => {
    const edge = await start({
      script: (message, response, count) => void message.on('end', () => response.end(`answer ${count}`)),
    })
    for (const n of [1, 2]) {
      const answer = await send(edge, '/raw', body, { headers })
      expect([said(answer), answer.text]).toEqual(['BYPASS body-too-large', `answer ${n}`])
      expect(digest(await edge.origin.seen[n - 1]?.body)).toBe(digest(body))
    }
    await settled(edge)
    await expectWorking(edge)
  })

  it('of just the size is stored, one byte more is not', async () => {
    const edge = await start()
    const most = Buffer.alloc(256 * 1024, 'x')
    for (const word of ['MISS', 'HIT']) expect(said(await send(edge, '/raw', most))).toBe(word)
    const more = Buffer.concat([most, Buffer.from('y')])
    expect(said(await send(edge, '/raw', more, { headers: { 'Transfer-Encoding': 'chunked' } }))).toBe(
      'BYPASS body-too-large',
    )
    expect((await edge.origin.seen[1]?.body)?.equals(more)).toBe(true)
  })

  it.each([
    ['declared', { 'Content-Length': '2000' }],
    ['counted', { 'Transfer-Encoding': 'chunked' }],
  ])('beyond maxBody is refused, %s', async (_name, headers) => {
    const edge = await start({ routes: [RAW.replace('cache', 'maxBody: 1KiB, cache')] })
    expect((await send(edge, '/raw', Buffer.alloc(2000), { headers })).status).toBe(413)
    expect(edge.origin.seen).toHaveLength(0)
  })
})

describe('the client of a body that is held', () => {
  const HEAD = 'POST /raw HTTP/1.1\r\nHost: a.test\r\n'

  it('is told to continue, and the body is forwarded', async () => {
    const edge = await start()
    const client = await converse(edge.gateway.port, `${HEAD}Content-Length: 3\r\nExpect: 100-continue\r\n\r\n`)
    await client.expect('HTTP/1.1 100 Continue\r\n\r\n')
    expect(edge.origin.seen).toHaveLength(0)
    client.send('abc')
    await client.expect('answer 1')
    expect((await edge.origin.seen[0]?.body)?.toString()).toBe('abc')
    client.send(`${HEAD}Content-Length: 3\r\nConnection: close\r\n\r\nabc`)
    await client.end()
    expect(client.received).toContain('X-Cache: HIT')
  })

  it('that sends nothing more meets the limit for slow clients', async () => {
    const edge = await start({ listen: 'bodyIdle: 200ms' })
    const client = await converse(edge.gateway.port, `${HEAD}Content-Length: 3\r\n\r\nab`)
    await client.expect('HTTP/1.1 408 ')
    await client.end()
    expect(edge.origin.seen).toHaveLength(0)
    await expectWorking(edge)
  })

  it('that goes before its end costs no fetch', async () => {
    const edge = await start()
    const client = await converse(edge.gateway.port, `${HEAD}Content-Length: 3\r\n\r\nab`)
    await arrived(edge.gateway, 1)
    client.destroy()
    await edge.gateway.requestLines(3)
    await settled(edge)
    expect(edge.origin.seen).toHaveLength(0)
    await expectWorking(edge)
  })
})

describe('one fetch for many', () => {
  interface Owed {
    readonly message: IncomingMessage
    readonly response: ServerResponse
  }

  async function startOwing(cache = 'ttl: 1h') {
    const owed: Owed[] = []
    const edge = await startEdge({
      routes: [`{path: /*, methods: [POST, QUERY], cache: {${cache}, scope: public, key: {body: canonical}}}`],
      upstream: 'connections: 256',
      script: (message, response) => void owed.push({ message, response }),
    })
    return { ...edge, owed, owes: (count: number) => until(() => owed.length >= count, `${count} fetches`) }
  }

  it('with the same body, and another for another body', async () => {
    const edge = await startOwing()
    const answers = Array.from({ length: 40 }, (_, i) => send(edge, '/x', `{"a":${' '.repeat(i % 5)}${i % 2}}`))
    await edge.owes(2)
    await arrived(edge.gateway, 40)
    for (const [i, { response }] of edge.owed.entries()) response.end(await edge.origin.seen[i]?.body)
    const words: Record<string, number> = {}
    for (const [i, answer] of (await Promise.all(answers)).entries()) {
      expect(JSON.parse(answer.text)).toEqual({ a: i % 2 })
      words[said(answer)] = (words[said(answer)] ?? 0) + 1
    }
    expect(words).toEqual({ MISS: 2, COLLAPSED: 38 })
    expect(edge.owed).toHaveLength(2)
  })

  it('that goes on when the client who began it hangs up', async () => {
    const edge = await startOwing()
    const leader = await converse(
      edge.gateway.port,
      'POST /x HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}',
    )
    await edge.owes(1)
    const follower = send(edge, '/x', {}, { headers: { Host: '127.0.0.1' } })
    await arrived(edge.gateway, 2)
    leader.destroy()
    await edge.gateway.requestLines(1)
    edge.owed[0]?.response.end('late')
    expect(said(await follower)).toBe('COLLAPSED')
    expect([(await follower).text, edge.owed.length]).toEqual(['late', 1])
  })

  it('by which what is stale is refreshed with the body of whoever found it', async () => {
    const edge = await startOwing('ttl: 50ms, stale: {whileRevalidate: 1h}')
    const first = send(edge, '/x', { a: 1 })
    await edge.owes(1)
    edge.owed[0]?.response.writeHead(200, { ETag: '"a"' }).end('old')
    expect(said(await first)).toBe('MISS')
    while (said(await send(edge, '/x', '{"a": 1}')) !== 'STALE refreshing');
    await edge.owes(2)
    const { message, response } = edge.owed[1] as Owed
    expect([message.method, (await edge.origin.seen[1]?.body)?.toString()]).toEqual(['POST', '{"a": 1}'])
    // A condition on a POST would be on something else than its answer.
    expect(message.headers['if-none-match']).toBeUndefined()
    response.end('new')
  })

  it('by which what is stale answers while the origin fails', async () => {
    const edge = await startOwing('ttl: 1ms')
    const first = send(edge, '/x', { a: 1 })
    await edge.owes(1)
    edge.owed[0]?.response.end('old')
    await first
    const second = send(edge, '/x', { a: 1 })
    await edge.owes(2)
    edge.owed[1]?.response.writeHead(503).end()
    expect([said(await second), (await second).text]).toEqual(['STALE failed', 'old'])
  })
})

describe('a connection that breaks before any answer', () => {
  it.each([
    ['QUERY', 200, 2],
    ['POST', 502, 1],
  ])('is tried again for %s: %i', async (method, status, tries) => {
    const edge = await startEdge({
      routes: ['{path: /*, cache: {ttl: 1h, methods: [POST, QUERY], scope: public, key: {body: raw}}}'],
      script(message, response, count) {
        message.resume().on('end', () => {
          if (count === 1) message.socket.resetAndDestroy()
          else response.end('ok')
        })
      },
    })
    expect((await send(edge, '/x', 'the body', { method })).status).toBe(status)
    const bodies = await Promise.all(edge.origin.seen.map(({ body }) => body))
    expect(bodies.map(String)).toEqual(Array.from({ length: tries }, () => 'the body'))
  })
})
