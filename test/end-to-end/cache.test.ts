// The cache as clients and origins see it, over real sockets.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { type Answer, type RequestOptions, converse, request } from '../support/client.ts'
import { type Edge, type EdgeOptions, arrived, settled, startEdge, startGatewayBefore } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import { type Script, startOrigin, startRawOrigin } from '../support/origin.ts'
import { parseList } from '../support/structured-fields.ts'
import { readAnswers } from '../support/wire.ts'

/** A gateway that caches everything below `/` as the route says, before an origin that answers `made N`. */
async function startCache(route = 'ttl: 1h', options: EdgeOptions & { fields?: readonly string[] } = {}) {
  const { fields = [], ...edge } = options
  const script: Script = (_request, response, count) => {
    for (let i = 0; i < fields.length; i += 2) response.appendHeader(fields[i] as string, fields[i + 1] as string)
    response.end(`made ${count}`)
  }
  return startEdge({ routes: [`{path: /*, cache: {${route}}}`], script, ...edge })
}

/** A client of the gateway: `get('/x', {Cookie: 'a'})`. */
const client =
  ({ gateway }: Pick<Edge, 'gateway'>) =>
  (path: string, headers: RequestOptions['headers'] = {}, method = 'GET'): Promise<Answer> =>
    request(gateway.url + path, { headers, method })

const xCache = ({ headers }: Answer) => headers['x-cache']

/** The gateway's member of Cache-Status, read strictly: what has a value as that, what is true as its name. */
function cacheStatus({ headers }: Answer): string {
  const own = parseList(String(headers['cache-status'])).at(-1)
  if (own === undefined || typeof own.value !== 'object' || own.value.token !== 'weirgate') throw new Error('not ours')
  return [...own.params]
    .map(([name, value]) => (value === true ? name : `${name}=${typeof value === 'object' ? value.token : value}`))
    .join(' ')
}

/** Takes the wall clock over; answers how to move it on. */
function takeClock(): (seconds: number) => void {
  vi.useFakeTimers({ toFake: ['Date'] })
  onTestFinished(() => void vi.useRealTimers())
  return (seconds) => void vi.setSystemTime(Date.now() + seconds * 1000)
}

describe('what a route changes', () => {
  it.each([
    ['without a change', '', ['MISS', 'MISS']],
    ['Set-Cookie taken off the answer', 'response: {remove: [Set-Cookie]}', ['MISS', 'HIT']],
    [
      'the same, and no-store put on it',
      'response: {remove: [Set-Cookie], set: {Cache-Control: no-store}}',
      ['MISS', 'MISS'],
    ],
    [
      'the same, and Cookie taken off the request',
      'request: {remove: [Cookie]}, response: {remove: [Set-Cookie]}',
      ['MISS', 'HIT'],
    ],
  ])('of an answer counts for the cache: %s', async (_what, headers, outcomes) => {
    const edge = await startCache('ttl: 1h', {
      routes: [`{path: /*, cache: {ttl: 1h}, headers: {${headers}}}`],
      fields: ['Set-Cookie', 'a=1'],
    })
    const get = client(edge)
    expect([xCache(await get('/x')), xCache(await get('/x'))]).toEqual(outcomes)
    // Whose request it is goes by what the client sent.
    expect(xCache(await get('/x', { Cookie: 'sid=1' }))).toBe(outcomes[1] === 'HIT' ? 'BYPASS' : 'MISS')
  })
})

describe('a second request', () => {
  it('is answered from memory: the same answer, its age, and what the cache did', async () => {
    const move = takeClock()
    const edge = await startCache('ttl: 10m', { fields: ['Content-Type', 'text/x', 'X-Own', 'a', 'X-Own', 'b'] })
    const get = client(edge)
    const miss = await get('/x')
    move(90)
    const hit = await get('/x')
    expect(edge.origin.seen).toHaveLength(1)
    expect([xCache(miss), cacheStatus(miss)]).toEqual(['MISS', 'fwd=miss stored detail=absent'])
    expect([xCache(hit), cacheStatus(hit)]).toEqual(['HIT', 'hit ttl=510'])
    expect([hit.status, hit.text]).toEqual([200, 'made 1'])
    expect(hit.headers).toMatchObject({ age: '90', 'content-length': '6', 'content-type': 'text/x', 'x-own': 'a, b' })
    expect(hit.headers.date).toBe(miss.headers.date)
    expect(hit.headers['x-request-id']).not.toBe(miss.headers['x-request-id'])
    expect(await edge.gateway.requestLines(2)).toEqual([
      expect.objectContaining({ cache: 'miss', cache_reason: 'absent', bytes: 6 }),
      expect.objectContaining({ cache: 'hit', cache_reason: null, upstream_ms: null, bytes: 6 }),
    ])
  })

  it('is fetched anew when what is stored has expired', async () => {
    const move = takeClock()
    const edge = await startCache('ttl: 10m')
    const get = client(edge)
    await get('/x')
    move(599)
    expect(cacheStatus(await get('/x'))).toBe('hit ttl=1')
    move(1)
    const expired = await get('/x')
    expect([expired.text, xCache(expired), cacheStatus(expired)]).toEqual([
      'made 2',
      'MISS',
      'fwd=stale stored detail=expired',
    ])
    expect((await get('/x')).text).toBe('made 2')
  })

  it('gets a body that came in chunks with its length', async () => {
    let finish = () => {}
    const edge = await startCache('ttl: 1h', {
      script(_request, response) {
        response.write('one ')
        finish = () => void response.end('two')
      },
    })
    const miss = await request(`${edge.gateway.url}/x`, { onHead: () => finish() })
    const hit = await client(edge)('/x')
    expect([miss.headers['transfer-encoding'], miss.text]).toEqual(['chunked', 'one two'])
    const { 'transfer-encoding': coding, 'content-length': length } = hit.headers
    expect([coding, length, hit.text]).toEqual([undefined, '7', 'one two'])
  })

  it('gets bytes as they are, up to a mebibyte', async () => {
    const bytes = Buffer.alloc(
      1024 ** 2,
      Uint8Array.from({ length: 256 }, (_, i) => i),
    )
    const edge = await startCache('ttl: 1h', { script: (_request, response) => void response.end(bytes) })
    const get = client(edge)
    expect((await get('/x')).body.equals(bytes)).toBe(true)
    const hit = await get('/x')
    expect([xCache(hit), hit.body.equals(bytes)]).toEqual(['HIT', true])
  })

  it.each([
    [204, undefined],
    [200, '0'],
  ])('of an empty %i is whole, with Content-Length %s', async (status, length) => {
    const edge = await startCache('ttl: 1h', { script: (_request, response) => void response.writeHead(status).end() })
    const get = client(edge)
    const miss = await get('/x')
    const hit = await get('/x')
    expect([miss.status, hit.status, xCache(hit), hit.text]).toEqual([status, status, 'HIT', ''])
    expect(hit.headers['content-length']).toBe(length)
    expect(hit.headers['transfer-encoding']).toBeUndefined()
  })

  it('[RFC 9110 §6.6.1] gets the Date at which it came, where the origin gave none', async () => {
    const move = takeClock()
    vi.setSystemTime(Date.UTC(2030, 0, 1))
    const edge = await startCache('ttl: 1h', {
      script(_request, response) {
        response.sendDate = false
        response.end()
      },
    })
    const get = client(edge)
    await get('/x')
    move(100)
    expect((await get('/x')).headers).toMatchObject({ age: '100', date: 'Tue, 01 Jan 2030 00:00:00 GMT' })
  })

  it('gets nothing that belonged to the exchange of the first', async () => {
    const move = takeClock()
    const edge = await startCache('ttl: 1h', {
      fields: Object.entries({
        'X-RateLimit-Limit': '1',
        'X-RateLimit-Remaining': '0',
        'X-RateLimit-Limit-Minute': '1',
        RateLimit: '"a";r=0',
        'RateLimit-Policy': '"a";q=1',
        'Retry-After': '7',
        'X-Cache': 'HIT',
        'Cache-Status': 'inner; hit',
        Age: '7',
        'X-Request-Id': 'theirs',
        'X-Process-Time': '1ms',
        'X-Kept': 'yes',
      }).flat(),
    })
    const get = client(edge)
    const miss = await get('/x')
    expect([miss.headers.age, miss.headers['x-cache'], miss.headers['cache-status']]).toEqual([
      '7',
      'MISS',
      'inner; hit, weirgate; fwd=miss; stored; detail=absent',
    ])
    move(1)
    const { headers } = await get('/x')
    expect(Object.keys(headers).filter((name) => /ratelimit|^retry-after$/.test(name))).toEqual([])
    expect(headers).toMatchObject({ 'x-kept': 'yes', age: '8', 'x-cache': 'HIT' })
    expect(headers['cache-status']).toBe('weirgate; hit; ttl=3599')
    expect([headers['x-request-id'], headers['x-process-time']]).not.toContain('theirs')
    expect(headers['x-process-time']).toMatch(/^\d+\.\d\dms$/)
    expect(headers['x-process-time']).not.toBe('1ms')
  })

  it('does not find what does not fit into memory any more', async () => {
    const edge = await startCache('ttl: 1h', {
      more: 'cache: {memory: 1MiB}',
      script: (_request, response) => void response.end(Buffer.alloc(100_000)),
    })
    const get = client(edge)
    for (let i = 0; i < 30; i++) await get(`/${i}`)
    const { cache } = edge.gateway.gateway.stats()
    expect(cache.bytes).toBeLessThanOrEqual(1024 ** 2)
    expect(cache.entries).toBe(10)
    expect([xCache(await get('/0')), xCache(await get('/29'))]).toEqual(['MISS', 'HIT'])
  })
})

describe('what a route or an origin says of freshness', () => {
  const date = (seconds: number) => new Date(Date.now() + seconds * 1000).toUTCString()
  it.each<[string, string, () => readonly string[], string, string]>([
    ['ttl', 'ttl: 1h', () => [], 'fwd=miss stored detail=absent', 'hit ttl=3599'],
    ['ttl by status', 'ttl: {200: 5m, 404: 30s}', () => [], 'fwd=miss stored detail=absent', 'hit ttl=299'],
    ['nothing', '', () => [], 'fwd=miss detail=no-freshness', 'fwd=miss detail=no-freshness'],
    [
      'max-age before ttl',
      'ttl: 1h',
      () => ['Cache-Control', 'max-age=60'],
      'fwd=miss stored detail=absent',
      'hit ttl=59',
    ],
    [
      'override',
      'ttl: 1h, override: true',
      () => ['Cache-Control', 'max-age=60'],
      'fwd=miss stored detail=absent',
      'hit ttl=3599',
    ],
    [
      'clamp',
      'clamp: {max: 30s}',
      () => ['Cache-Control', 'max-age=60'],
      'fwd=miss stored detail=absent',
      'hit ttl=29',
    ],
    ['s-maxage', '', () => ['Cache-Control', 'max-age=1, s-maxage=60'], 'fwd=miss stored detail=absent', 'hit ttl=59'],
    ['Expires', '', () => ['Date', date(0), 'Expires', date(120)], 'fwd=miss stored detail=absent', 'hit ttl=119'],
    [
      'a heuristic',
      '',
      () => ['Date', date(0), 'Last-Modified', date(-1000)],
      'fwd=miss stored detail=absent',
      'hit ttl=99',
    ],
    [
      'max-age=0',
      'ttl: 1h',
      () => ['Cache-Control', 'max-age=0'],
      'fwd=miss detail=not-fresh',
      'fwd=miss detail=not-fresh',
    ],
    [
      'no-store',
      'ttl: 1h',
      () => ['Cache-Control', 'no-store'],
      'fwd=miss detail=no-store',
      'fwd=miss detail=no-store',
    ],
    ['private', 'ttl: 1h', () => ['Cache-Control', 'private'], 'fwd=miss detail=private', 'fwd=miss detail=private'],
    [
      'no-cache',
      'ttl: 1h',
      () => ['Cache-Control', 'no-cache'],
      'fwd=miss detail=no-cache',
      'fwd=miss detail=no-cache',
    ],
    [
      'nonsense',
      'ttl: 1h',
      () => ['Cache-Control', 'max-age="60'],
      'fwd=miss detail=invalid-cache-control',
      'fwd=miss detail=invalid-cache-control',
    ],
    ['Vary: *', 'ttl: 1h', () => ['Vary', '*'], 'fwd=miss detail=vary-star', 'fwd=miss detail=vary-star'],
    ['Set-Cookie', 'ttl: 1h', () => ['Set-Cookie', 'a=b'], 'fwd=miss detail=set-cookie', 'fwd=miss detail=set-cookie'],
  ])('%s', async (_name, route, fields, first, second) => {
    const move = takeClock()
    const edge = await startCache(route, { fields: fields() })
    const get = client(edge)
    const miss = await get('/x')
    // Milliseconds are counted, seconds are told.
    move(0.001)
    const next = await get('/x')
    expect([cacheStatus(miss), cacheStatus(next)]).toEqual([first, second])
    expect([xCache(miss), xCache(next)]).toEqual(['MISS', second.startsWith('hit') ? 'HIT' : 'MISS'])
    expect([miss.text, next.text]).toEqual(['made 1', second.startsWith('hit') ? 'made 1' : 'made 2'])
  })

  it.each([
    ['404 with a ttl of its own', 'ttl: {404: 30s}', 404, [], 'HIT'],
    ['404 with a ttl for all', 'ttl: 1h', 404, [], 'MISS'],
    ['500 with max-age', 'ttl: 1h', 500, ['Cache-Control', 'max-age=60'], 'HIT'],
    ['500 with a ttl for all', 'ttl: 1h', 500, [], 'MISS'],
    ['301 with a ttl for all', 'ttl: 1h', 301, [], 'HIT'],
    ['302 with a ttl for all', 'ttl: 1h', 302, [], 'MISS'],
    ['599 with max-age', '', 599, ['Cache-Control', 'max-age=60'], 'HIT'],
    ['206 with max-age', '', 206, ['Cache-Control', 'max-age=60'], 'MISS'],
  ])('status %s', async (_name, route, status, fields, second) => {
    const edge = await startCache(route, {
      script: (_request, response) => void response.writeHead(status, fields).end(),
    })
    const get = client(edge)
    await get('/x')
    const next = await get('/x')
    expect([next.status, xCache(next)]).toEqual([status, second])
  })

  it('storeSetCookie stores the cookie, and gives it to everybody', async () => {
    const get = client(
      await startCache('ttl: 1h, storeSetCookie: true', { fields: ['Set-Cookie', 'a=b', 'Set-Cookie', 'c=d'] }),
    )
    await get('/x')
    const hit = await get('/x')
    expect([xCache(hit), hit.headers['set-cookie']]).toEqual(['HIT', ['a=b', 'c=d']])
  })

  it('Cache-Control of a client changes nothing', async () => {
    const get = client(await startCache())
    await get('/x')
    expect(xCache(await get('/x', { 'Cache-Control': 'no-cache, no-store', Pragma: 'no-cache' }))).toBe('HIT')
  })

  it('an error answer of the gateway itself is not stored', async () => {
    const edge = await startCache('ttl: {200: 1h, 502: 1h}', { upstream: 'retries: 0' })
    const get = client(edge)
    edge.origin.answer((message) => message.socket.destroy())
    const failed = await get('/x')
    expect([failed.status, xCache(failed), cacheStatus(failed)]).toEqual([502, 'MISS', 'fwd=miss detail=failed'])
    edge.origin.answer((_request, response) => void response.end('back'))
    expect((await get('/x')).text).toBe('back')
  })
})

describe('people with cookies and tokens', () => {
  const A = { Cookie: 'sid=a' }
  const B = { Cookie: 'sid=b' }
  const BEARER = { Authorization: 'Bearer a' }
  const whose = ({ headers }: IncomingMessage) =>
    `for ${String(headers.cookie ?? headers.authorization ?? headers['x-api-key'] ?? 'nobody')}`
  /** Names whom the answer is for. */
  const personal =
    (...fields: string[]): Script =>
    (message, response) => {
      for (let i = 0; i < fields.length; i += 2) response.appendHeader(fields[i] as string, fields[i + 1] as string)
      response.end(whose(message))
    }

  it('share nothing under a ttl: somebody first, then nobody', async () => {
    const get = client(await startCache('ttl: 1h', { script: personal() }))
    const first = await get('/x', A)
    expect([first.text, cacheStatus(first)]).toEqual(['for sid=a', 'fwd=miss detail=cookie'])
    for (let i = 0; i < 2; i++) expect((await get('/x')).text).toBe('for nobody')
    expect((await get('/x', B)).text).toBe('for sid=b')
    expect((await get('/x', BEARER)).text).toBe('for Bearer a')
  })

  it.each([
    [A, 'for sid=a', 'cookie'],
    [B, 'for sid=b', 'cookie'],
    [BEARER, 'for Bearer a', 'authorization'],
    [{ 'X-API-Key': 'k' }, 'for k', 'authorization'],
  ])('share nothing under a ttl: nobody first, then %j', async (headers, text, reason) => {
    const get = client(await startCache('ttl: 1h', { script: personal() }))
    await get('/x')
    expect(xCache(await get('/x'))).toBe('HIT')
    const own = await get('/x', headers)
    expect([own.text, xCache(own), cacheStatus(own)]).toEqual([text, 'BYPASS', `fwd=bypass detail=${reason}`])
    expect((await get('/x')).text).toBe('for nobody')
  })

  it.each(['', 'scope: public, '])('get each what is theirs when they come at once (%s)', async (scope) => {
    const owed: [IncomingMessage, ServerResponse][] = []
    const edge = await startCache(`${scope}ttl: 1h`, {
      script: (...exchange) => void owed.push([exchange[0], exchange[1]]),
    })
    const get = client(edge)
    const kinds: { Cookie?: string; Authorization?: string }[] = [A, {}, BEARER, {}, B, {}, A, {}]
    const answers = kinds.map((headers) => get('/x', headers))
    // Those without credentials share one fetch; where the route is public, all do.
    const fetches = scope === '' ? 5 : 1
    await until(() => owed.length === fetches, `${fetches} fetches`)
    for (const [message, response] of owed) response.end(whose(message))
    const texts = (await Promise.all(answers)).map(({ text }) => text)
    const theirs = kinds.map((headers) => `for ${headers.Cookie ?? headers.Authorization ?? 'nobody'}`)
    expect(texts).toEqual(scope === '' ? theirs : texts.map(() => texts[0]))
    expect(owed).toHaveLength(fetches)
  })

  it('share what the origin calls fresh', async () => {
    const get = client(await startCache('', { script: personal('Cache-Control', 'max-age=60') }))
    await get('/x', A)
    expect((await get('/x')).text).toBe('for sid=a')
    expect((await get('/x', B)).text).toBe('for sid=a')
    // But not with those who are authorised, for whom RFC 9111 §3.5 wants more.
    expect((await get('/x', BEARER)).text).toBe('for Bearer a')
  })

  it('do not share what the origin calls fresh beyond its own time, though the route calls it fresh for longer', async () => {
    const move = takeClock()
    const get = client(await startCache('ttl: 1h, override: true', { script: personal('Cache-Control', 'max-age=60') }))
    await get('/x')
    move(59)
    expect((await get('/x', A)).text).toBe('for nobody')
    move(1)
    expect((await get('/x', A)).text).toBe('for sid=a')
    expect((await get('/x')).text).toBe('for nobody')
  })

  it.each(['public, max-age=60', 's-maxage=60', 'must-revalidate, max-age=60'])(
    '[RFC 9111 §3.5] share with the authorised what is marked %s',
    async (control) => {
      const get = client(await startCache('', { script: personal('Cache-Control', control) }))
      await get('/x', BEARER)
      expect((await get('/x', BEARER)).text).toBe('for Bearer a')
      expect((await get('/x')).text).toBe('for Bearer a')
    },
  )

  it('share everything in a public route, until that is taken back', async () => {
    const edge = await startCache('ttl: 1h, scope: public', { script: personal() })
    const get = client(edge)
    await get('/x', A)
    for (const headers of [{}, B, BEARER]) expect((await get('/x', headers)).text).toBe('for sid=a')
    edge.gateway.rewrite(
      `upstreams: {origin: {targets: [${edge.origin.url}]}}\nroutes: [{path: /*, upstream: origin, cache: {ttl: 1h}}]`,
    )
    expect(await edge.gateway.gateway.reload()).toMatchObject({ ok: true })
    expect((await get('/x')).text).toBe('for nobody')
    expect((await get('/x', B)).text).toBe('for sid=b')
  })

  it('are not fooled by a page under the name of a style sheet', async () => {
    const script = personal('Cache-Control', 'public, max-age=60', 'Content-Type', 'text/html')
    const get = client(await startCache('', { script }))
    expect(cacheStatus(await get('/account/x.css', A))).toBe('fwd=miss detail=disguised')
    expect((await get('/account/x.css')).text).toBe('for nobody')
  })
})

describe('what tells answers apart', () => {
  const echo =
    (...fields: string[]): Script =>
    (message, response) => {
      const {
        host,
        'accept-language': language,
        'x-forwarded-proto': proto,
        'x-forwarded-user': user,
      } = message.headers
      response.writeHead(200, fields)
      response.end([message.url, host, language?.replace(', ', ',') ?? 'none', proto, user ?? 'nobody'].join(' '))
    }

  it('the query', async () => {
    const edge = await startCache('ttl: 1h', { script: echo() })
    const get = client(edge)
    const paths = ['/x', '/x?a=1', '/x?a=2', '/x?A=1', '/x?a=1&b', '/x?b&a=1']
    for (const path of paths) expect((await get(path)).text).toContain(`${path} `)
    for (const path of paths) expect(xCache(await get(path))).toBe('HIT')
    expect(edge.origin.seen).toHaveLength(paths.length)
  })

  it('the host, however it is spelt', async () => {
    const edge = await startCache('ttl: 1h', { script: echo() })
    const get = client(edge)
    expect((await get('/x', { Host: 'a.test' })).text).toContain(' a.test ')
    expect((await get('/x', { Host: 'b.test' })).text).toContain(' b.test ')
    for (const host of ['A.Test', 'a.test:80', 'a.test.'])
      expect((await get('/x', { Host: host })).text).toContain(' a.test ')
    expect((await get('/x', { Host: 'a.test:81' })).text).toContain(' a.test:81 ')
    expect(edge.origin.seen).toHaveLength(3)
  })

  it('the path, but not its spelling', async () => {
    const edge = await startCache('ttl: 1h', { script: echo() })
    for (const path of ['/a/%7Eb', '/a/~b', '/a/%7eb', '/a//~b']) await request(edge.gateway.url + path)
    const absolute = await converse(
      edge.gateway.port,
      `GET http://${new URL(edge.gateway.url).host}/a/~b HTTP/1.1\r\nHost: ${new URL(edge.gateway.url).host}\r\nConnection: close\r\n\r\n`,
    )
    await absolute.end()
    expect(readAnswers(absolute.received)[0]?.fields).toContainEqual(['x-cache', 'HIT'])
    for (const path of ['/A/~b', '/a/~b/', '/a/~b;c', '/a/%21', '/a/!']) await request(edge.gateway.url + path)
    expect(edge.origin.seen.map(({ url }) => url)).toEqual(['/a/~b', '/A/~b', '/a/~b/', '/a/~b;c', '/a/%21', '/a/!'])
  })

  it('[RFC 9111 §4.1] the fields that Vary names; an absent one matches an absent one', async () => {
    const edge = await startCache('ttl: 1h', { script: echo('Vary', 'Accept-Language, X-Other') })
    const get = client(edge)
    const variants: [headers: string[], language: string][] = [
      [['Host', 'x', 'Accept-Language', 'en'], 'en'],
      [['Host', 'x', 'Accept-Language', 'de'], 'de'],
      [['Host', 'x', 'Accept-Language', 'de', 'X-Other', '1'], 'de'],
      [['Host', 'x', 'Accept-Language', 'en', 'Accept-Language', 'de'], 'en,de'],
      [['Host', 'x'], 'none'],
    ]
    for (const [headers] of variants) expect(xCache(await get('/x', headers))).toBe('MISS')
    for (const [headers, language] of variants) {
      const hit = await get('/x', headers)
      expect([xCache(hit), hit.text.split(' ')[2]]).toEqual(['HIT', language])
    }
    expect(cacheStatus(await get('/x', { Host: 'x', 'Accept-Language': 'fr' }))).toBe(
      'fwd=vary-miss stored detail=vary',
    )
  })

  it('[RFC 9110 §7.6.1] a field that a client hides by Connection does not select what is stored for others', async () => {
    const edge = await startCache('ttl: 1h', { script: echo('Vary', 'Accept-Language') })
    const get = client(edge)
    const attack = await get('/x', { 'Accept-Language': 'de', Connection: 'close, Accept-Language' })
    expect([attack.text.split(' ')[2], cacheStatus(attack)]).toEqual(['none', 'fwd=bypass detail=connection'])
    expect((await get('/x', { 'Accept-Language': 'de' })).text.split(' ')[2]).toBe('de')
  })

  describe('behind a trusted proxy', () => {
    const trusted = { more: 'trustedProxies: [127.0.0.1]' }

    it('the scheme and the host that its client used', async () => {
      const edge = await startCache('ttl: 1h', { script: echo(), ...trusted })
      const get = client(edge)
      const https = { Host: 'inner', 'X-Forwarded-Proto': 'https', 'X-Forwarded-Host': 'shop.test' }
      expect((await get('/x', { Host: 'shop.test' })).text).toContain(' http ')
      expect((await get('/x', https)).text).toContain(' https ')
      expect(xCache(await get('/x', https))).toBe('HIT')
      expect((await get('/x', { ...https, Host: 'other' })).text).toContain(' other ')
      expect(xCache(await get('/x', { Host: 'shop.test', 'X-Forwarded-Proto': 'http' }))).toBe('HIT')
      expect(await edge.gateway.gateway.purge({ urls: ['https://shop.test/x'] })).toMatchObject({ purged: 3 })
      expect(xCache(await get('/x', https))).toBe('MISS')
    })

    it('the user whom it names', async () => {
      const get = client(await startCache('ttl: 1h', { script: echo(), ...trusted }))
      for (const user of ['ann', 'bob', 'ann', 'bob']) {
        expect((await get('/x', { 'X-Forwarded-User': user })).text).toMatch(new RegExp(`${user}$`))
      }
      expect((await get('/x')).text).toMatch(/nobody$/)
    })

    it('whom it names, among those who come at once', async () => {
      const owed: [IncomingMessage, ServerResponse][] = []
      const edge = await startCache('ttl: 1h', {
        script: (...exchange) => void owed.push([exchange[0], exchange[1]]),
        ...trusted,
      })
      const users = ['ann', 'bob', 'ann', 'bob']
      const answers = users.map((user) => client(edge)('/x', { 'X-Forwarded-User': user }))
      await until(() => owed.length === 2, 'two fetches')
      for (const [message, response] of owed) response.end(String(message.headers['x-forwarded-user']))
      expect((await Promise.all(answers)).map(({ text }) => text)).toEqual(users)
    })
  })

  it('nothing that anybody else says of scheme, host, user or method', async () => {
    const edge = await startCache('ttl: 1h', { script: echo() })
    const get = client(edge)
    await get('/x', { 'X-Forwarded-Proto': 'https', 'X-Forwarded-User': 'ann', 'X-HTTP-Method-Override': 'DELETE' })
    const hit = await get('/x')
    expect([xCache(hit), hit.text.split(' ').slice(3)]).toEqual(['HIT', ['http', 'nobody']])
  })
})

describe('HEAD', () => {
  it('is answered from what GET has stored', async () => {
    const edge = await startCache('ttl: 1h', { fields: ['X-Own', 'a'] })
    const get = client(edge)
    await get('/x')
    const head = await get('/x', {}, 'HEAD')
    expect([head.status, xCache(head), head.text]).toEqual([200, 'HIT', ''])
    expect(head.headers).toMatchObject({ 'content-length': '6', 'x-own': 'a' })
    expect(edge.origin.seen).toHaveLength(1)
  })

  it('stores nothing itself', async () => {
    const edge = await startCache()
    const get = client(edge)
    const head = await get('/x', {}, 'HEAD')
    expect([xCache(head), cacheStatus(head)]).toEqual(['MISS', 'fwd=miss detail=absent'])
    expect((await get('/x')).text).toBe('made 2')
    expect(edge.origin.seen.map(({ method }) => method)).toEqual(['HEAD', 'GET'])
  })
})

describe('conditions', () => {
  const LAST_MODIFIED = 'Sun, 22 Nov 2026 10:00:00 GMT'
  const TAGGED = { fields: ['ETag', '"a"', 'Last-Modified', LAST_MODIFIED, 'X-Own', 'b', 'Content-Type', 'image/x'] }

  it.each<[string, Record<string, string>, number]>([
    ['a tag that matches', { 'If-None-Match': '"a"' }, 304],
    ['one of several tags', { 'If-None-Match': '"b", W/"a"' }, 304],
    ['any tag', { 'If-None-Match': '*' }, 304],
    ['another tag', { 'If-None-Match': '"b"' }, 200],
    ['another tag, whatever the date', { 'If-None-Match': '"b"', 'If-Modified-Since': LAST_MODIFIED }, 200],
    ['the date of the last change', { 'If-Modified-Since': LAST_MODIFIED }, 304],
    ['a later date', { 'If-Modified-Since': 'Sun, 22 Nov 2026 10:00:01 GMT' }, 304],
    ['an earlier date', { 'If-Modified-Since': 'Sun, 22 Nov 2026 09:59:59 GMT' }, 200],
    ['no date', { 'If-Modified-Since': 'yesterday' }, 200],
  ])('[RFC 9110 §13.2] are evaluated on a hit and on a miss alike: %s', async (_name, condition, status) => {
    const edge = await startCache('ttl: 1h', TAGGED)
    const get = client(edge)
    for (const outcome of ['MISS', 'HIT', 'HIT']) {
      const answer = await get('/x', condition)
      expect([answer.status, xCache(answer), answer.text]).toEqual([status, outcome, status === 304 ? '' : 'made 1'])
      expect(answer.headers.etag).toBe('"a"')
      // RFC 9110 §15.4.5: what describes the content stays away with it.
      expect(answer.headers['content-type']).toBe(status === 304 ? undefined : 'image/x')
    }
    const head = await get('/x', condition, 'HEAD')
    expect([head.status, xCache(head)]).toEqual([status, 'HIT'])
    expect(edge.origin.seen).toHaveLength(1)
    expect(edge.origin.seen[0]?.headers).not.toHaveProperty('if-none-match')
    expect(edge.origin.seen[0]?.headers).not.toHaveProperty('if-modified-since')
  })

  it('go to the origin where nothing is stored for them', async () => {
    const edge = await startCache('ttl: 1h', {
      script(message, response) {
        response.setHeader('ETag', '"a"')
        if (message.headers['if-none-match'] === '"a"') response.writeHead(304).end()
        else response.end('all')
      },
    })
    const get = client(edge)
    await get('/x')
    const own = await get('/x', { Cookie: 'a', 'If-None-Match': '"a"' })
    expect([own.status, xCache(own), edge.origin.seen.length]).toEqual([304, 'BYPASS', 2])
    expect(own.headers).not.toHaveProperty('content-length')
  })

  it.each([
    ['is not stored', 200],
    ['says that what is stored is good', 304],
  ])('keep no cookie from the client whose answer %s', async (_what, status) => {
    const edge = await startCache('ttl: 1h', {
      script({ headers }, response) {
        const isStored = headers['if-none-match'] === '"a"' && status === 304
        response.setHeader('ETag', '"a"').setHeader('Cache-Control', 'max-age=0')
        if (isStored || status === 200) response.setHeader('Set-Cookie', ['a=b', 'c=d'])
        response.writeHead(isStored ? 304 : 200).end(isStored ? undefined : 'all')
      },
    })
    const get = client(edge)
    await get('/x')
    const own = await get('/x', { 'If-None-Match': '"a"' })
    expect([own.status, own.headers['set-cookie']]).toEqual([304, ['a=b', 'c=d']])
    expect(edge.origin.seen).toHaveLength(2)
  })

  it('do not touch answers other than 200', async () => {
    const get = client(
      await startCache('ttl: {404: 1h}', {
        script: (_request, response) => void response.writeHead(404, { ETag: '"a"' }).end('no'),
      }),
    )
    for (let i = 0; i < 2; i++) expect((await get('/x', { 'If-None-Match': '"a"' })).status).toBe(404)
  })
})

describe('what goes past the cache', () => {
  it('a part that nobody can be sure about', async () => {
    const edge = await startCache('ttl: 1h', {
      script(message, response) {
        if (message.headers.range === undefined) response.end('whole')
        else response.writeHead(206, { 'Content-Range': 'bytes 0-0/5', 'Cache-Control': 'max-age=60' }).end('w')
      },
    })
    const get = client(edge)
    const part = await get('/x', { Range: 'bytes=0-0', 'If-Range': '"a"' })
    expect([part.status, part.text, xCache(part), cacheStatus(part)]).toEqual([
      206,
      'w',
      'MISS',
      'fwd=miss detail=partial',
    ])
    expect(edge.origin.seen[0]?.headers).toMatchObject({ range: 'bytes=0-0', 'if-range': '"a"' })
    expect((await get('/x')).text).toBe('whole')
  })

  it('other methods', async () => {
    const edge = await startCache()
    const post = await client(edge)('/x', {}, 'POST')
    expect([post.status, xCache(post), cacheStatus(post)]).toEqual([200, 'BYPASS', 'fwd=method detail=method'])
    expect((await client(edge)('/x')).text).toBe('made 2')
  })

  it.each<[string, Script]>([
    [
      'declared',
      (_request, response) => void response.writeHead(200, { 'Content-Length': 2000 }).end(Buffer.alloc(2000, 'x')),
    ],
    [
      'in chunks',
      (_request, response) => {
        response.write(Buffer.alloc(1000, 'x'))
        setImmediate(() => response.end(Buffer.alloc(1000, 'x')))
      },
    ],
  ])('what is too large: %s', async (_name, script) => {
    const edge = await startCache('ttl: 1h, maxObject: 1999B', { script })
    const get = client(edge)
    for (let i = 0; i < 2; i++) {
      const answer = await get('/x')
      expect([answer.text, xCache(answer)]).toEqual(['x'.repeat(2000), 'MISS'])
    }
    expect(edge.gateway.gateway.stats().cache.entries).toBe(0)
    await settled(edge)
  })
})

describe('bodies whose end is not certain', () => {
  const FRESH = 'Cache-Control: max-age=60\r\n'
  const whole = `HTTP/1.1 200 OK\r\n${FRESH}Content-Length: 5\r\n\r\nwhole`

  it.each([
    ['shorter than declared', `HTTP/1.1 200 OK\r\n${FRESH}Content-Length: 10\r\n\r\nhalf`],
    ['chunks without an end', `HTTP/1.1 200 OK\r\n${FRESH}Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n`],
    ['a chunk that is cut', `HTTP/1.1 200 OK\r\n${FRESH}Transfer-Encoding: chunked\r\n\r\n9\r\nhalf`],
    ['no chunk at all', `HTTP/1.1 200 OK\r\n${FRESH}Transfer-Encoding: chunked\r\n\r\n`],
  ])('break visibly for everybody and are not stored: %s', async (_name, bytes) => {
    const owed: Socket[] = []
    const origin = await startRawOrigin((socket, _head, count) => {
      if (count === 1) owed.push(socket)
      else socket.write(whole)
    })
    onTestFinished(() => origin.close())
    const gateway = await startGatewayBefore(origin.url, { routes: ['{path: /*, cache: {}}'], upstream: 'retries: 0' })
    const outcome = () =>
      request(`${gateway.url}/x`).then(
        ({ status, text }) => `${status} ${text}`,
        () => 'broken',
      )
    const clients = [outcome(), outcome()]
    await until(() => owed.length === 1, 'the fetch')
    await arrived(gateway, 2)
    owed[0]?.end(bytes)
    for (const outcome of await Promise.all(clients)) expect(outcome).toMatch(/^(?:broken$|502 )/)
    expect(gateway.gateway.stats().cache.entries).toBe(0)
    expect((await request(`${gateway.url}/x`)).text).toBe('whole')
    expect(xCache(await request(`${gateway.url}/x`))).toBe('HIT')
  })

  it('pass, but are not stored, when they end with the connection', async () => {
    const origin = await startRawOrigin((socket) => socket.end(`HTTP/1.1 200 OK\r\n${FRESH}\r\nto the end`))
    onTestFinished(() => origin.close())
    const gateway = await startGatewayBefore(origin.url, { routes: ['{path: /*, cache: {}}'] })
    for (let i = 0; i < 2; i++) {
      const answer = await request(`${gateway.url}/x`)
      expect([answer.text, cacheStatus(answer)]).toEqual(['to the end', 'fwd=miss detail=no-length'])
    }
  })
})

describe('an upstream that is trusted with its framing', () => {
  const startBefore = async (head: string, framing: string) => {
    const origin = await startRawOrigin((socket) => socket.end(`HTTP/1.1 200 OK\r\n${head}\r\n\r\nto the end`))
    onTestFinished(() => origin.close())
    return startGatewayBefore(origin.url, { routes: ['{path: /*, cache: {ttl: 1h}}'], upstream: `framing: ${framing}` })
  }

  it.each([
    ['neither length nor chunks', 'X-A: 1'],
    ['a coding that is none', 'Transfer-Encoding: binary'],
  ])('[RFC 9112 §8] has stored what ends with its connection: %s', async (_what, head) => {
    const gateway = await startBefore(head, 'lenient')
    for (const outcome of ['MISS', 'HIT']) {
      const answer = await request(`${gateway.url}/x`)
      expect([answer.text, xCache(answer)]).toEqual(['to the end', outcome])
      expect(answer.headers).not.toHaveProperty('transfer-encoding', 'binary')
    }
  })

  it('[RFC 9112 §6.1] else is not, and a coding that is unknown is a 502', async () => {
    const gateway = await startBefore('Transfer-Encoding: binary', 'strict')
    expect((await request(`${gateway.url}/x`)).status).toBe(502)
  })
})

describe('what takes a stored answer away', () => {
  it.each<[string, string, number, number, string]>([
    ['POST', 'POST', 201, 200, 'MISS'],
    ['PUT', 'PUT', 204, 200, 'MISS'],
    ['DELETE', 'DELETE', 200, 200, 'MISS'],
    ['PATCH', 'PATCH', 303, 200, 'MISS'],
    ['a POST that is refused', 'POST', 400, 200, 'HIT'],
    ['a POST that fails', 'POST', 500, 200, 'HIT'],
    ['a method of which nothing is known', 'M-SEARCH', 200, 200, 'MISS'],
    ['such a method that fails', 'M-SEARCH', 500, 200, 'HIT'],
    ['OPTIONS', 'OPTIONS', 200, 200, 'HIT'],
    ['PROPFIND', 'PROPFIND', 207, 200, 'HIT'],
  ])('[RFC 9111 §4.4] %s', async (_name, method, status, _get, outcome) => {
    const edge = await startCache('ttl: 1h', {
      script: (message, response) => void response.writeHead(message.method === 'GET' ? 200 : status).end(),
    })
    const get = client(edge)
    for (const path of ['/x', '/x?q', '/y']) await get(path)
    await get('/x', {}, method)
    expect([xCache(await get('/x')), xCache(await get('/x?q')), xCache(await get('/y'))]).toEqual([
      outcome,
      'HIT',
      'HIT',
    ])
  })

  it('[RFC 9111 §4.4] an unsafe request by another route, all variants at once', async () => {
    const edge = await startEdge({
      routes: ['{path: /*, methods: [GET, HEAD], cache: {ttl: 1h}}', '{path: /*, methods: [POST]}'],
      script: (_request, response) => void response.writeHead(200, { Vary: 'Accept-Language' }).end(),
    })
    const get = client(edge)
    for (const language of ['en', 'de']) await get('/x', { 'Accept-Language': language })
    const { headers } = await get('/x', {}, 'POST')
    expect(headers).not.toHaveProperty('x-cache')
    for (const language of ['en', 'de']) expect(xCache(await get('/x', { 'Accept-Language': language }))).toBe('MISS')
  })

  it('an unsafe request while the old answer is still being fetched: who comes after it gets the new one', async () => {
    const owed: ServerResponse[] = []
    const edge = await startCache('ttl: 1h', {
      script(message, response) {
        if (message.method === 'POST') response.end()
        else owed.push(response)
      },
    })
    const get = client(edge)
    const before = get('/x')
    await until(() => owed.length === 1, 'the first fetch')
    await get('/x', {}, 'POST')
    const after = get('/x')
    await until(() => owed.length === 2, 'a fetch of its own')
    owed[1]?.end('new')
    owed[0]?.end('old')
    expect([(await before).text, (await after).text]).toEqual(['old', 'new'])
    expect((await get('/x')).text).toBe('new')
  })

  it('a purge by URL, and by path on every host', async () => {
    const edge = await startCache()
    const get = client(edge)
    const ask = (path: string, host: string) => get(path, { Host: host })
    const fill = async () => {
      for (const host of ['a.test', 'b.test']) for (const path of ['/x', '/x?q', '/x/y']) await ask(path, host)
    }
    const { gateway } = edge.gateway
    await fill()
    expect(await gateway.purge({ urls: ['http://A.test/x'] })).toMatchObject({ purged: 1 })
    expect([xCache(await ask('/x', 'a.test')), xCache(await ask('/x', 'b.test'))]).toEqual(['MISS', 'HIT'])
    expect(await gateway.purge({ urls: ['/x'] })).toMatchObject({ purged: 2 })
    expect([xCache(await ask('/x', 'a.test')), xCache(await ask('/x', 'b.test'))]).toEqual(['MISS', 'MISS'])
    expect([xCache(await ask('/x?q', 'a.test')), xCache(await ask('/x/y', 'b.test'))]).toEqual(['HIT', 'HIT'])
    expect(await gateway.purge({ urls: ['/none', 'http://c.test/x'] })).toMatchObject({ purged: 0 })
  })

  it('nothing but a change of what the route asks: a reload keeps it', async () => {
    const edge = await startCache()
    const other = await startOrigin((_request, response) => void response.end('other'))
    onTestFinished(() => other.close())
    const get = client(edge)
    const reload = (url: string, route: string) => {
      edge.gateway.rewrite(
        `upstreams: {origin: {targets: [${url}]}}\nroutes: [{path: /*, upstream: origin, cache: {${route}}}]`,
      )
      return edge.gateway.gateway.reload()
    }
    await get('/x')
    await reload(edge.origin.url, 'ttl: 2h')
    expect((await get('/x')).text).toBe('made 1')
    await reload(other.url, 'ttl: 2h')
    const changed = await get('/x')
    expect([changed.text, cacheStatus(changed)]).toEqual(['other', 'fwd=miss stored detail=config-changed'])
    expect(xCache(await get('/x'))).toBe('HIT')
  })
})

describe('what the operator is told of a request beforehand', () => {
  it('names the key, what would happen, and why', async () => {
    const move = takeClock()
    const edge = await startCache()
    const explain = async (headers: string[] = [], method = 'GET') =>
      (await edge.gateway.gateway.explain({ method, url: `${edge.gateway.url}/a/%7Eb?c`, headers })).cache
    expect(await explain()).toEqual({
      outcome: 'miss',
      reason: 'nothing is stored under this key',
      key: `${edge.gateway.url}/a/~b?c`,
      key_parts: [['url', `${edge.gateway.url}/a/~b?c`]],
      tags: [],
      age_s: null,
      ttl_s: null,
    })
    await client(edge)('/a/~b?c')
    move(60)
    expect(await explain()).toMatchObject({ outcome: 'hit', reason: null, age_s: 60, ttl_s: 3540 })
    expect(await explain(['Cookie', 'a'])).toMatchObject({
      outcome: 'bypass',
      reason: expect.stringContaining('Cookie'),
    })
    expect(await explain([], 'POST')).toMatchObject({ outcome: 'bypass', reason: expect.stringContaining('method') })
    expect(edge.origin.seen).toHaveLength(1)
  })
})

describe('what the operator is told of a key', () => {
  it('names all that it is made of, secrets as digests, and the tags', async () => {
    const edge = await startEdge({
      routes: [
        '{path: /get/:id, methods: [GET], cache: {tags: ["item-:id"], scope: user, key: {query: {only: [a]}, headers: [X-Tenant], cookies: [lang]}}}',
        '{path: /post, methods: [POST], cache: {scope: public, key: {body: [a, b]}}}',
        '{path: /query, methods: [QUERY], cache: {}}',
      ],
    })
    const explain = async (method: string, path: string, headers: string[] = [], body?: string) => {
      const asked = { method, url: `http://a.test${path}`, headers, ...(body !== undefined && { body }) }
      return (await edge.gateway.gateway.explain(asked)).cache
    }
    const digest = expect.stringMatching(/^[\w-]{43}$/)
    expect(await explain('GET', '/get/7?b=1&a=2', ['Cookie', 'lang=de; sid=1'])).toMatchObject({
      outcome: 'miss',
      key: expect.stringMatching(/^http:\/\/a\.test\/get\/7\?a=2\nwith:[\w-]{43} user:[\w-]{43}$/),
      key_parts: [
        ['url', 'http://a.test/get/7?a=2'],
        ['header x-tenant', null],
        ['cookie lang', 'de'],
        ['user', digest],
      ],
      tags: ['item-7'],
    })
    expect(await explain('GET', '/get/7')).toMatchObject({
      outcome: 'bypass',
      key: null,
      reason: expect.stringContaining('who asks'),
    })
    const type = ['Content-Type', 'application/json']
    expect(await explain('POST', '/post', type, '{"b": 1.0, "a": 2}')).toMatchObject({
      outcome: 'miss',
      key: expect.stringMatching(/^http:\/\/a\.test\/post\nPOST body:[\w-]{43}$/),
      key_parts: [
        ['url', 'http://a.test/post'],
        ['method', 'POST'],
        ['body', '{"a":2,"b":1}'],
      ],
    })
    expect(await explain('POST', '/post', type, '{"c": 1}')).toMatchObject({
      outcome: 'bypass',
      key: null,
      reason: expect.stringContaining('does not list'),
    })
    expect((await explain('QUERY', '/query', [], 'a b'))?.key_parts.at(-1)).toEqual(['body', '3 bytes'])
    expect(edge.origin.seen).toHaveLength(0)
  })
})
