// What is stored, in the codings that clients take, over real sockets.

import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib'
import { fetch } from 'undici'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { type Answer, request } from '../support/client.ts'
import { startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import type { Script } from '../support/origin.ts'

const MOMENT = Date.UTC(2026, 10, 22, 12)
const MODIFIED = 'Sat, 21 Nov 2026 12:00:00 GMT'
const TEXT = JSON.stringify(Array.from({ length: 200 }, (_, i) => ({ id: i, title: `Presentation ${i}`, of: 'ü' })))
const BROWSER = 'gzip, deflate, br, zstd'

const CODABLE = { 'Content-Type': 'application/json', 'Cache-Control': 'max-age=60' }

const DECODERS: Record<string, (body: Buffer) => Buffer> = {
  br: brotliDecompressSync,
  zstd: zstdDecompressSync,
  gzip: gunzipSync,
}

interface Setup {
  readonly fields?: Record<string, string>
  readonly body?: string | Buffer
  readonly route?: string
  readonly script?: Script
}

/** A gateway before an origin that answers TEXT with a strong tag. */
async function start({ fields = {}, body = TEXT, route = '', script }: Setup = {}) {
  vi.useFakeTimers({ toFake: ['Date'], now: MOMENT })
  onTestFinished(() => void vi.useRealTimers())
  const length = Buffer.byteLength(body)
  const { origin, gateway } = await startEdge({
    routes: [`{path: /*, cache: {${route}}}`, '{path: /other, cache: {}}'],
    script(asked, response, count) {
      if (asked.url === '/other') response.writeHead(200, CODABLE).end(TEXT)
      else if (script !== undefined) script(asked, response, count)
      else response.writeHead(200, { ...CODABLE, ETag: '"a"', 'Content-Length': length, ...fields }).end(body)
    },
  })
  const get = (acceptEncoding: string | null = BROWSER, headers: Record<string, string> = {}, method = 'GET') =>
    request(`${gateway.url}/x`, {
      headers: { ...headers, ...(acceptEncoding === null ? {} : { 'Accept-Encoding': acceptEncoding }) },
      method,
    })
  const stored = async (path = '/x') => (await gateway.gateway.entries(path)).entries
  /** Resolves when /x is at hand in these codings. */
  const coded = (...codings: string[]) =>
    vi.waitUntil(
      async () => {
        const [entry] = await stored()
        return codings.every((name) => entry?.codings[name] !== undefined)
      },
      { timeout: 10_000 },
    )
  /** Resolves when what was asked for later has been coded. */
  const othersAreCoded = async () => {
    const others = () => request(`${gateway.url}/other`, { headers: { 'Accept-Encoding': 'br' } })
    await others()
    await others()
    await vi.waitUntil(async () => (await stored('/other'))[0]?.codings['br'] !== undefined, { timeout: 10_000 })
  }
  /** Has /x stored, and at hand in these codings. */
  const prepare = async (...codings: string[]) => {
    await get(null)
    for (const coding of codings) await get(coding)
    await coded(...codings)
  }
  return {
    origin,
    gateway,
    get,
    stored,
    coded,
    othersAreCoded,
    prepare,
    move: (seconds: number) => void vi.setSystemTime(Date.now() + seconds * 1000),
  }
}

const decoded = ({ headers, body }: Answer): string =>
  (DECODERS[headers['content-encoding'] ?? ''] ?? ((plain) => plain))(body).toString()

const coding = ({ headers }: Answer) => headers['content-encoding'] ?? 'identity'

describe('a stored answer', () => {
  it('is given as it is at first, and coded from then on, with the same bytes in the end', async () => {
    const { origin, get, coded } = await start()
    const [miss, hit] = [await get(), await get()]
    await coded('br')
    const answer = await get()
    expect([miss, hit, answer].map(coding)).toEqual(['identity', 'identity', 'br'])
    expect([miss, hit, answer].map(({ headers }) => headers['x-cache'])).toEqual(['MISS', 'HIT', 'HIT'])
    expect([miss, hit, answer].map(decoded)).toEqual([TEXT, TEXT, TEXT])
    expect(answer.headers['content-length']).toBe(String(answer.body.length))
    expect(answer.body.length).toBeLessThan(TEXT.length / 5)
    expect(origin.seen).toHaveLength(1)
  })

  it.each([
    ['br', 'br'],
    ['zstd', 'zstd'],
    ['gzip', 'gzip'],
    ['x-gzip', 'gzip'],
    [BROWSER, 'br'],
    ['gzip, br;q=0', 'gzip'],
    ['br;q=0.5, gzip;q=0.9, zstd;q=0.8', 'gzip'],
    ['*', 'br'],
    ['identity;q=0, *', 'br'],
    ['GZIP', 'gzip'],
    ['deflate, compress', 'identity'],
    ['identity, gzip;q=0.5', 'identity'],
    ['', 'identity'],
    [null, 'identity'],
    ['gzip;q=high', 'identity'],
    ['br;q=0, gzip;q=0, zstd;q=0', 'identity'],
    ['*;q=0', 'identity'],
  ])('[RFC 9110 §12.5.3] is given to who sends %j as %s', async (acceptEncoding, expected) => {
    const { get, prepare } = await start()
    await prepare('br', 'zstd', 'gzip')
    const answer = await get(acceptEncoding)
    expect([answer.status, coding(answer), decoded(answer)]).toEqual([200, expected, TEXT])
  })

  it('reads well in a client that decodes by itself', async () => {
    const { gateway, prepare } = await start()
    await prepare('br', 'zstd', 'gzip')
    for (const accepted of ['br', 'gzip', 'gzip, deflate, br']) {
      const response = await fetch(`${gateway.url}/x`, { headers: { 'Accept-Encoding': accepted } })
      expect([response.headers.get('content-encoding'), await response.text()]).toEqual([
        accepted.includes('br') ? 'br' : accepted,
        TEXT,
      ])
    }
  })

  it('is given in the next best coding while the best is being made', async () => {
    const { get, prepare, coded } = await start()
    await prepare('gzip')
    expect(coding(await get())).toBe('gzip')
    await coded('br')
    expect(coding(await get())).toBe('br')
  })

  it('is coded once for a hundred who come at a time', async () => {
    const { gateway, get, coded, stored } = await start()
    await get()
    const before = (await stored())[0]?.size_bytes ?? 0
    const answers = await Promise.all(Array.from({ length: 100 }, () => get()))
    await coded('br')
    for (const answer of answers) expect(decoded(answer)).toBe(TEXT)
    const [entry] = await stored()
    expect(Object.keys(entry?.codings ?? {})).toEqual(['br'])
    expect(entry?.size_bytes).toBeGreaterThan(before + (entry?.codings['br'] ?? Infinity))
    expect(gateway.gateway.stats().cache.bytes).toBe(entry?.size_bytes)
  })

  it('[RFC 9110 §9.3.2] has the same head for HEAD', async () => {
    const { get, prepare } = await start()
    await prepare('br')
    const [whole, head] = [await get(), await get(BROWSER, {}, 'HEAD')]
    const comparable = ({ headers }: Answer) =>
      Object.fromEntries(Object.entries(headers).filter(([name]) => !/^x-(request-id|process-time)$/.test(name)))
    expect(comparable(head)).toEqual(comparable(whole))
    expect(head.headers).toMatchObject({ 'content-encoding': 'br', 'content-length': String(whole.body.length) })
    expect(head.body).toHaveLength(0)
  })

  it('is gone in all its forms when it is purged', async () => {
    const { gateway, get, prepare, origin } = await start()
    await prepare('br', 'gzip')
    expect(await gateway.gateway.purge({ all: true })).toMatchObject({ purged: 1 })
    expect(gateway.gateway.stats().cache).toMatchObject({ entries: 0, bytes: 0 })
    const answer = await get()
    expect([coding(answer), answer.headers['x-cache'], origin.seen.length]).toEqual(['identity', 'MISS', 2])
  })

  it('keeps its forms and gives them new heads when it is validated', async () => {
    const { get, prepare, move, stored } = await start({
      script: ({ headers }, response) => {
        const fields = { 'Content-Type': 'text/plain', 'Cache-Control': 'max-age=60', ETag: '"a"' }
        if (headers['if-none-match'] === '"a"') response.writeHead(304, { ...fields, 'X-New': '1' }).end()
        else response.writeHead(200, fields).end(TEXT)
      },
    })
    await prepare('br')
    const bytes = (await stored())[0]?.codings
    move(61)
    const [revalidated, hit] = [await get(), await get()]
    expect([revalidated, hit].map(({ headers }) => headers['x-cache'])).toEqual(['REVALIDATED', 'HIT'])
    for (const answer of [revalidated, hit]) {
      expect([coding(answer), answer.headers['x-new'], decoded(answer)]).toEqual(['br', '1', TEXT])
    }
    expect((await stored())[0]?.codings).toEqual(bytes)
  })

  it('is not coded any more when a validation says that it must not be', async () => {
    const { get, prepare, move } = await start({
      script: ({ headers }, response) => {
        const fields = { 'Content-Type': 'text/plain', 'Cache-Control': 'max-age=60', ETag: '"a"' }
        if (headers['if-none-match'] === '"a"') {
          response.writeHead(304, { 'Cache-Control': 'max-age=60, no-transform' }).end()
        } else response.writeHead(200, fields).end(TEXT)
      },
    })
    await prepare('br')
    move(61)
    for (const answer of [await get(), await get()]) {
      expect([coding(answer), answer.text, answer.headers.etag]).toEqual(['identity', TEXT, '"a"'])
    }
  })
})

describe('Vary', () => {
  const vary = ({ headers }: Answer) => headers['vary']

  it('[RFC 9110 §12.5.5] is on every answer that may come in another coding', async () => {
    const { get, prepare } = await start()
    const first = await get(null)
    await prepare('br')
    const others = [
      await get(null),
      await get(),
      await get(BROWSER, {}, 'HEAD'),
      await get(BROWSER, { Range: 'bytes=0-9' }),
    ]
    others.push(await get(BROWSER, { 'If-None-Match': '"a"' }))
    expect(others.map(({ status }) => status)).toEqual([200, 200, 200, 206, 304])
    expect([first, ...others].map(vary)).toEqual(Array(6).fill('Accept-Encoding'))
  })

  it('is on what others wait for together', async () => {
    let answer = () => {}
    const { origin, gateway, get } = await start({
      script: (_request, response) => {
        answer = () =>
          void response.writeHead(200, { 'Content-Type': 'text/plain', 'Cache-Control': 'max-age=9' }).end(TEXT)
      },
    })
    const answers = [get(), get()]
    await until(() => origin.seen.length === 1, 'the fetch')
    await until(() => Number(/^process_open_connections (\d+)$/m.exec(gateway.gateway.metrics())?.[1]) === 2, 'both')
    await request(`${gateway.url}/health`)
    answer()
    const both = await Promise.all(answers)
    expect(new Set(both.map(({ headers }) => headers['x-cache']))).toEqual(new Set(['COLLAPSED', 'MISS']))
    expect(both.map(vary)).toEqual(['Accept-Encoding', 'Accept-Encoding'])
  })

  it("stands beside the origin's own, and does not come twice", async () => {
    const { get, prepare } = await start({ fields: { Vary: 'Origin' } })
    await prepare('br')
    expect([vary(await get()), vary(await get(null))]).toEqual(Array(2).fill('Origin, Accept-Encoding'))
    const own = await start({ fields: { Vary: 'accept-encoding' } })
    expect([vary(await own.get()), vary(await own.get())]).toEqual(Array(2).fill('accept-encoding'))
  })

  it('selects nothing here: one stored answer serves all codings', async () => {
    const { origin, get, prepare, stored } = await start()
    await prepare('br', 'gzip')
    for (const accepted of ['br', 'gzip', 'deflate', null]) await get(accepted)
    expect([origin.seen.length, (await stored()).map((entry) => entry.vary)]).toEqual([1, [{}]])
  })
})

describe('what stays as it is', () => {
  it.each<[string, Setup]>([
    ['less than 1 KiB', { body: TEXT.slice(0, 1000) }],
    ['an image', { fields: { 'Content-Type': 'image/png' } }],
    ['what is coded already', { fields: { 'Content-Encoding': 'deflate' } }],
    ['[RFC 9111 §5.2.2.6] what is not to be transformed', { fields: { 'Cache-Control': 'max-age=60, no-transform' } }],
    ['[RFC 9530] what has a digest', { fields: { 'Content-Digest': 'sha-256=:YQ==:' } }],
    ['what the route leaves as it is', { route: 'compress: false' }],
  ])('%s', async (_what, setup) => {
    const { get, stored, othersAreCoded } = await start(setup)
    const answers = [await get(), await get(), await get()]
    await othersAreCoded()
    answers.push(await get())
    const expected = setup.body ?? TEXT
    for (const { text, headers } of answers) {
      expect([text, headers['content-encoding'], headers['vary'], headers['etag']]).toEqual([
        expected,
        setup.fields?.['Content-Encoding'],
        undefined,
        '"a"',
      ])
    }
    expect((await stored()).map(({ codings }) => codings)).toEqual([{}])
  })

  it.each([
    ['', {}],
    ['compress: true', { br: expect.any(Number) }],
  ])("one user's own, unless the route says otherwise: %j", async (option, codings) => {
    const { gateway, stored, othersAreCoded } = await start({ route: `scope: user, ${option}` })
    const headers = { Authorization: 'Bearer mine', 'Accept-Encoding': 'br' }
    for (let i = 0; i < 2; i++) await request(`${gateway.url}/x`, { headers })
    await othersAreCoded()
    expect((await stored()).map((entry) => entry.codings)).toEqual([codings])
  })

  it("the origin's own variants, each for whom it is", async () => {
    const { origin, get, stored } = await start({
      script: ({ headers }, response) => {
        const isCoded = headers['accept-encoding'] === 'gzip'
        const fields = { 'Content-Type': 'text/plain', 'Cache-Control': 'max-age=60', Vary: 'Accept-Encoding' }
        response.writeHead(200, isCoded ? { ...fields, 'Content-Encoding': 'gzip', ETag: '"a-gzip"' } : fields)
        response.end(isCoded ? 'as if coded'.repeat(200) : TEXT)
      },
    })
    for (let i = 0; i < 2; i++) {
      const own = await get('gzip')
      expect([own.text, own.headers['content-encoding'], own.headers.etag]).toEqual([
        'as if coded'.repeat(200),
        'gzip',
        '"a-gzip"',
      ])
      expect((await get(null)).text).toBe(TEXT)
    }
    expect([origin.seen.length, (await stored()).length]).toEqual([2, 2])
  })
})

describe('a condition', () => {
  const told = ({ status, headers, body }: Answer) => [status, headers.etag, headers['content-encoding'], body.length]

  it.each([
    ['br', 'W/"a"'],
    [null, '"a"'],
  ])('[RFC 9110 §8.8.3.3] the form for %s has a tag of its own', async (accepted, tag) => {
    const { get, prepare } = await start()
    await prepare('br')
    expect((await get(accepted)).headers.etag).toBe(tag)
  })

  it.each([
    ['W/"a"', BROWSER, 'W/"a"'],
    ['"a"', BROWSER, 'W/"a"'],
    ['W/"a"', null, 'W/"a"'],
    ['"a"', null, '"a"'],
    ['"b", W/"a"', BROWSER, 'W/"a"'],
  ])('[RFC 9110 §13.1.2] by %s from who accepts %j holds, and its 304 names %s', async (held, accepted, tag) => {
    const { origin, get, prepare } = await start()
    await prepare('br')
    expect(told(await get(accepted, { 'If-None-Match': held }))).toEqual([304, tag, undefined, 0])
    expect(origin.seen).toHaveLength(1)
  })

  it('by another tag brings the coded form', async () => {
    const { get, prepare } = await start()
    await prepare('br')
    expect(coding(await get(BROWSER, { 'If-None-Match': 'W/"b"' }))).toBe('br')
  })

  it.each([
    ['cache: {}', '"a"'],
    ['cache: {compress: false}', 'W/"a"'],
    ['cache: {scope: user}', 'W/"a"'],
  ])('[RFC 9110 §13.1.1] of a change, by W/"a", reaches the origin beside %s as %s', async (cache, expected) => {
    const { origin, gateway } = await startEdge({
      routes: [`{path: /*, methods: [GET, HEAD], ${cache}}`, '{path: /*, methods: [PUT]}'],
    })
    await request(`${gateway.url}/x`, { method: 'PUT', headers: { 'If-Match': 'W/"a"' }, body: 'new' })
    expect(origin.seen[0]?.headers['if-match']).toBe(expected)
  })

  it('[RFC 9111 §4.3.1] to the origin is about what it sent itself', async () => {
    const { origin, get, prepare, move } = await start()
    await prepare('br')
    move(61)
    await get(BROWSER, { 'If-None-Match': 'W/"a"' })
    expect(origin.seen[1]?.headers['if-none-match']).toBe('"a"')
  })
})

describe('a part', () => {
  const dated = { 'Last-Modified': MODIFIED, 'Accept-Ranges': 'bytes', Date: 'Sun, 22 Nov 2026 12:00:00 GMT' }

  it('[RFC 9110 §14.2] is cut from the whole as it came', async () => {
    const { get, prepare } = await start({ fields: dated })
    await prepare('br')
    const part = await get(BROWSER, { Range: 'bytes=5-14' })
    expect([part.status, coding(part), part.text, part.headers.etag]).toEqual([
      206,
      'identity',
      TEXT.slice(5, 15),
      '"a"',
    ])
  })

  it.each([
    ['"a"', 206],
    ['W/"a"', 200],
    [MODIFIED, 200],
  ])('[RFC 9110 §13.1.5] is given if %s says what the client holds: %i', async (condition, status) => {
    const { get, prepare } = await start({ fields: dated })
    await prepare('br')
    const answer = await get(BROWSER, { Range: 'bytes=5-14', 'If-Range': condition })
    expect([answer.status, coding(answer), answer.text]).toEqual([
      status,
      'identity',
      status === 206 ? TEXT.slice(5, 15) : TEXT,
    ])
  })

  it('[RFC 9110 §14.3] is not offered with a coded form', async () => {
    const { get, prepare } = await start({ fields: dated })
    await prepare('br')
    expect([await get(), await get(null)].map(({ headers }) => headers['accept-ranges'])).toEqual(['none', 'bytes'])
  })
})
