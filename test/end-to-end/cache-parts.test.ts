// Parts that are stored and put together (RFC 9111 §3.3, §3.4), over real sockets.

import type { IncomingMessage, ServerResponse } from 'node:http'
import * as fc from 'fast-check'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { type Answer, type RequestOptions, converse, request } from '../support/client.ts'
import { type EdgeOptions, startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import type { Script } from '../support/origin.ts'

const MOMENT = Date.UTC(2026, 10, 22, 12)
const FRESH = { 'Cache-Control': 'max-age=60', 'Content-Type': 'text/plain' }
const DIGITS = '0123456789'

/** What an origin has to send. */
interface Resource {
  body: string
  fields: Record<string, string>
}

/** Answers as RFC 9110 §14.2 asks for: If-Range, one range, 416. */
function serve({ body, fields }: Resource, message: IncomingMessage, response: ServerResponse): void {
  const { range, 'if-range': condition } = message.headers
  const asked = /^bytes=(\d*)-(\d*)$/.exec(range ?? '')
  if (asked === null || (condition !== undefined && condition !== fields.ETag)) {
    response.writeHead(200, { ...fields, 'Content-Length': body.length }).end(body)
    return
  }
  const [, from = '', to = ''] = asked
  const first = from === '' ? Math.max(0, body.length - Number(to)) : Number(from)
  const last = from === '' || to === '' ? body.length - 1 : Math.min(Number(to), body.length - 1)
  if (first > last) {
    response.writeHead(416, { 'Content-Range': `bytes */${body.length}` }).end()
    return
  }
  const part = body.slice(first, last + 1)
  const range206 = { 'Content-Range': `bytes ${first}-${last}/${body.length}`, 'Content-Length': part.length }
  response.writeHead(206, { ...fields, ...range206 }).end(part)
}

/** A gateway before an origin that has one resource, or answers by a script; `get` asks for it, or for a range of it. */
async function start(fields: Record<string, string>, options: EdgeOptions & { route?: string } = {}) {
  vi.useFakeTimers({ toFake: ['Date'], now: MOMENT })
  onTestFinished(() => void vi.useRealTimers())
  const resource: Resource = { body: DIGITS, fields: { ...FRESH, ...fields } }
  const edge = await startEdge({
    routes: [`{path: /*, cache: {${options.route ?? ''}}}`],
    script: (message, response) => serve(resource, message, response),
    ...options,
  })
  const ask = (headers: RequestOptions['headers'] = {}, method = 'GET') =>
    request(`${edge.gateway.url}/x`, { headers, method })
  return {
    ...edge,
    resource,
    ask,
    get: (range: string | null = null, headers: Record<string, string> = {}) =>
      ask({ ...headers, ...(range === null ? {} : { Range: `bytes=${range}` }) }),
    move: (seconds: number) => void vi.setSystemTime(Date.now() + seconds * 1000),
    /** What the origin was asked for, range by range. */
    asked: () => edge.origin.seen.map(({ headers }) => headers.range?.replace('bytes=', '') ?? 'all'),
    stored: () => edge.gateway.gateway.entries('/x'),
  }
}

const A = { ETag: '"a"' }
const said = ({ status, text, headers }: Answer) => [status, text, headers['x-cache']]
const HIT = 'HIT'
const MISS = 'MISS'

describe('a part that was fetched', () => {
  it('[RFC 9111 §3.3] answers who asks for bytes of it', async () => {
    const { get, asked } = await start(A)
    const miss = await get('2-6')
    expect(said(miss)).toEqual([206, '23456', MISS])
    expect(miss.headers['cache-status']).toBe('weirgate; fwd=miss; stored; detail=absent')
    const hit = await get('3-5')
    expect(said(hit)).toEqual([206, '345', HIT])
    expect(hit.headers).toMatchObject({ etag: '"a"', 'content-type': 'text/plain', 'content-length': '3', age: '0' })
    expect([hit.headers['content-range'], hit.headers['cache-status']]).toEqual([
      'bytes 3-5/10',
      'weirgate; hit; ttl=60',
    ])
    expect(asked()).toEqual(['2-6'])
  })

  it.each([
    ['-3', 'bytes 7-9/10', '789'],
    ['8-', 'bytes 8-9/10', '89'],
    ['8-99', 'bytes 8-9/10', '89'],
    ['7-8,9-9', 'bytes 7-9/10', '789'],
  ])('[RFC 9111 §3.3] answers %s by the length of the whole', async (range, expected, text) => {
    const { get, asked } = await start(A)
    await get('5-9')
    const hit = await get(range)
    expect([...said(hit), hit.headers['content-range']]).toEqual([206, text, HIT, expected])
    expect(asked()).toEqual(['5-9'])
  })

  it('[RFC 9110 §15.3.7.2] answers for several pieces, where they are all there', async () => {
    const { get, asked } = await start(A)
    await get('0-1')
    await get('6-8')
    const hit = await get('0-0,7-8')
    expect([hit.status, hit.headers['x-cache'], hit.headers['content-range']]).toEqual([206, HIT, undefined])
    expect(hit.text.match(/^Content-Range: [^\r]*/gm)).toEqual([
      'Content-Range: bytes 0-0/10',
      'Content-Range: bytes 7-8/10',
    ])
    expect((await get('0-0,5-8')).headers['x-cache']).toBe(MISS)
    expect(asked()).toEqual(['0-1', '6-8', '0-0,5-8'])
  })

  it('[RFC 9110 §15.5.17] says what is beyond the end', async () => {
    const { get, asked } = await start(A)
    await get('0-1')
    const hit = await get('10-')
    expect([...said(hit), hit.headers['content-range']]).toEqual([416, '', HIT, 'bytes */10'])
    expect(asked()).toHaveLength(1)
  })

  it('[RFC 9111 §3.3] answers nobody who asks for more, for all, or for the head', async () => {
    const { ask, get, asked, origin } = await start(A)
    await get('2-6')
    const more = await get('5-7')
    expect(said(more)).toEqual([206, '567', MISS])
    expect(more.headers['cache-status']).toBe('weirgate; fwd=partial; stored; detail=incomplete')
    const head = await ask({}, 'HEAD')
    expect([head.status, head.headers['content-length'], head.headers['x-cache']]).toEqual([200, '10', MISS])
    expect(said(await get())).toEqual([200, DIGITS, MISS])
    expect(said(await get())).toEqual([200, DIGITS, HIT])
    expect(asked()).toEqual(['2-6', '5-7', 'all', 'all'])
    expect(origin.seen.map(({ method }) => method)).toEqual(['GET', 'GET', 'HEAD', 'GET'])
  })

  it('[RFC 9110 §13.1.5] answers If-Range by its tag alone', async () => {
    const { get } = await start(A)
    await get('2-6')
    expect(said(await get('3-4', { 'If-Range': '"a"' }))).toEqual([206, '34', HIT])
    expect(said(await get('3-4', { 'If-Range': '"b"' }))).toEqual([200, DIGITS, MISS])
    // The whole has taken the place of the part.
    expect(said(await get('3-4', { 'If-Range': '"b"' }))).toEqual([200, DIGITS, HIT])
  })

  it('[RFC 9110 §13.2.2] is not sent to who has it', async () => {
    const { get } = await start(A)
    await get('2-6')
    expect(said(await get('3-4', { 'If-None-Match': '"a"' }))).toEqual([304, '', HIT])
  })

  it('[RFC 9111 §4.2] answers as long as it is fresh, and is added to when it is not', async () => {
    const { get, move, asked } = await start(A)
    await get('0-4')
    move(61)
    const stale = await get('3-7')
    expect([...said(stale), stale.headers['cache-status']]).toEqual([
      206,
      '34567',
      MISS,
      'weirgate; fwd=stale; stored; detail=expired',
    ])
    expect(said(await get('0-7'))).toEqual([206, '01234567', HIT])
    expect(asked()).toEqual(['0-4', '3-7'])
  })

  it('takes the route’s ttl for a 200, and is bounded by it', async () => {
    const { get, move } = await start({ ...A, 'Cache-Control': '' }, { route: 'ttl: {200: 10s}' })
    await get('0-4')
    expect((await get('0-4')).headers['x-cache']).toBe(HIT)
    move(11)
    expect((await get('0-4')).headers['x-cache']).toBe(MISS)
  })

  it('is shown as what it is', async () => {
    const { get, stored } = await start(A)
    await get('2-6')
    await get('9-9')
    expect(await stored()).toMatchObject({
      entries: [{ status: 206, body_bytes: 6, complete_bytes: 10, ttl_s: 60, vary: {} }],
      truncated: false,
    })
  })
})

describe('parts that were fetched', () => {
  it.each([
    ['touch', ['0-4', '5-9']],
    ['overlap', ['0-6', '3-9']],
    ['come in any order', ['7-9', '0-2', '2-7']],
    ['lie in one another', ['4-5', '0-9']],
  ])('[RFC 9111 §3.4] and that %s become the whole', async (_how, ranges) => {
    const { get, asked, stored } = await start(A)
    for (const range of ranges) expect((await get(range)).headers['x-cache']).toBe(MISS)
    const whole = await get()
    expect(said(whole)).toEqual([200, DIGITS, HIT])
    expect(whole.headers).toMatchObject({ 'content-length': '10', etag: '"a"', 'content-type': 'text/plain' })
    expect(whole.headers['content-range']).toBeUndefined()
    expect(said(await get('1-8'))).toEqual([206, '12345678', HIT])
    expect(asked()).toEqual(ranges)
    expect((await stored()).entries).toMatchObject([{ status: 200, body_bytes: 10 }])
  })

  it('[RFC 9111 §3.2] has the fields of the latest, but what describes the bytes', async () => {
    const { get, resource, move } = await start({ ...A, 'X-A': 'old', 'Content-Digest': 'sha-256=:AA==:', 'X-B': 'b' })
    await get('0-4')
    move(30)
    resource.fields = { ...FRESH, ...A, 'X-A': 'new', 'Content-MD5': 'AA==' }
    await get('5-9')
    move(40)
    const { headers } = await get()
    expect(headers).toMatchObject({ 'x-a': 'new', 'x-b': 'b', age: '40', 'x-cache': HIT, 'content-length': '10' })
    expect([headers['content-digest'], headers['content-md5']]).toEqual([undefined, undefined])
  })

  it.each<[string, Record<string, string>, Record<string, string>]>([
    ['another tag', A, { ETag: '"b"' }],
    ['no tag any more', A, {}],
    ['a weak tag', A, { ETag: 'W/"a"' }],
  ])('[RFC 9111 §3.4] and then come with %s are of two', async (_what, first, second) => {
    const { get, resource } = await start(first)
    await get('0-4')
    resource.body = 'abcdefghij'
    resource.fields = { ...FRESH, ...second }
    expect(said(await get('5-9'))).toEqual([206, 'fghij', MISS])
    const whole = await get()
    expect(said(whole)).toEqual([200, 'abcdefghij', MISS])
  })

  it('[RFC 9111 §3.4] of another representation take the place of those that are stored', async () => {
    const { get, resource } = await start(A)
    await get('0-4')
    resource.body = 'abcdefghij'
    resource.fields = { ...FRESH, ETag: '"b"' }
    await get('5-9')
    expect(said(await get('5-9'))).toEqual([206, 'fghij', HIT])
    expect(said(await get('0-4'))).toEqual([206, 'abcde', MISS])
    expect(said(await get())).toEqual([200, 'abcdefghij', HIT])
  })

  it.each<[string, Record<string, string>]>([
    ['a weak tag', { ETag: 'W/"a"' }],
    ['no validator', {}],
    ['a date of just now', { 'Last-Modified': new Date(MOMENT).toUTCString(), Date: new Date(MOMENT).toUTCString() }],
    ['no-store', { ...A, 'Cache-Control': 'no-store' }],
    ['private', { ...A, 'Cache-Control': 'private, max-age=60' }],
    ['a cookie', { ...A, 'Set-Cookie': 'a=b' }],
    ['Vary: *', { ...A, Vary: '*' }],
  ])('with %s are not stored', async (_what, fields) => {
    const { get, asked, stored } = await start(fields)
    for (const range of ['0-4', '0-4', '5-9']) expect((await get(range)).headers['x-cache']).toBe(MISS)
    expect((await stored()).entries).toEqual([])
    expect(asked()).toEqual(['0-4', '0-4', '5-9'])
  })

  it('[RFC 9110 §8.8.2.2] are put together by a date that is strong', async () => {
    const Date206 = new Date(MOMENT).toUTCString()
    const { get } = await start({ 'Last-Modified': new Date(MOMENT - 60_000).toUTCString(), Date: Date206 })
    await get('0-4')
    await get('5-9')
    expect(said(await get())).toEqual([200, DIGITS, HIT])
  })

  it('[RFC 9111 §4.1] are selected by what Vary names', async () => {
    const { get } = await start({ ...A, Vary: 'X-Kind' })
    await get('0-4', { 'X-Kind': 'one' })
    await get('5-9', { 'X-Kind': 'two' })
    expect(said(await get('0-4', { 'X-Kind': 'one' }))).toEqual([206, '01234', HIT])
    expect(said(await get('0-4', { 'X-Kind': 'two' }))).toEqual([206, '01234', MISS])
    expect(said(await get(null, { 'X-Kind': 'two' }))).toEqual([200, DIGITS, HIT])
    expect(said(await get(null, { 'X-Kind': 'one' }))).toEqual([200, DIGITS, MISS])
  })

  it('[RFC 9111 §3.5] of one user are for that user alone, and so is what they are asked for with', async () => {
    const { get, asked, stored } = await start({ ...A, 'Cache-Control': '' }, { route: 'ttl: 1h' })
    await get('0-4', { Authorization: 'Bearer one' })
    expect((await stored()).entries).toEqual([])
    await get('0-4')
    expect(said(await get('0-4', { Authorization: 'Bearer one' }))).toEqual([206, '01234', 'BYPASS'])
    expect(said(await get('0-4', { Cookie: 'sid=1' }))).toEqual([206, '01234', 'BYPASS'])
    expect(said(await get('0-4'))).toEqual([206, '01234', HIT])
    expect(asked()).toHaveLength(4)
  })

  it('are not more than an object may be', async () => {
    const { get, resource, stored } = await start(A, { route: 'maxObject: 6B' })
    await get('0-3')
    await get('6-9')
    expect((await stored()).entries).toMatchObject([{ body_bytes: 4 }])
    expect(said(await get('6-9'))).toEqual([206, '6789', HIT])
    expect(said(await get('0-3'))).toEqual([206, '0123', MISS])
    expect((await get('0-6')).headers['cache-status']).toBe('weirgate; fwd=partial; detail=too-large')
    expect(resource.body).toBe(DIGITS)
  })
})

describe('an answer to a range', () => {
  const answering = (status: number, fields: Record<string, string | string[]>, body: string): Script => {
    return (_message, response) => void response.writeHead(status, fields).end(body)
  }

  it.each<[string, Record<string, string | string[]>, string]>([
    ['claims more than it brings', { 'Content-Range': 'bytes 4-9/10', 'Content-Length': '5' }, '45678'],
    ['claims less than it brings', { 'Content-Range': 'bytes 4-7/10', 'Content-Length': '5' }, '45678'],
    ['claims more than comes in chunks', { 'Content-Range': 'bytes 4-9/10', 'Transfer-Encoding': 'chunked' }, '45678'],
    ['claims less than comes in chunks', { 'Content-Range': 'bytes 4-7/10', 'Transfer-Encoding': 'chunked' }, '45678'],
    ['does not add up', { 'Content-Range': 'bytes 4-8/8' }, '45678'],
    ['does not say of what it is a part', {}, '45678'],
    ['says it twice', { 'Content-Range': ['bytes 4-8/10', 'bytes 4-8/10'] }, '45678'],
    [
      'brings several parts',
      { 'Content-Type': 'multipart/byteranges; boundary=b' },
      '--b\r\nContent-Range: bytes 0-0/10\r\n\r\n0\r\n--b\r\nContent-Range: bytes 9-9/10\r\n\r\n9\r\n--b--\r\n',
    ],
    [
      'is several parts, and says one',
      { 'Content-Range': 'bytes 4-8/10', 'Content-Type': 'multipart/byteranges; boundary=b' },
      '45678',
    ],
  ])('that %s is passed on, and not stored', async (_what, fields, body) => {
    const { get, stored, origin } = await start(A, { script: answering(206, { ...FRESH, ...A, ...fields }, body) })
    for (let i = 0; i < 2; i++) expect((await get('4-8')).text).toBe(body)
    expect((await stored()).entries).toEqual([])
    expect(origin.seen).toHaveLength(2)
  })

  it.each([
    [404, 'none'],
    [412, 'no'],
    [416, 'beyond'],
  ])('with status %i says nothing of the whole', async (status, text) => {
    const { get, stored } = await start(A, {
      script: answering(status, { 'Cache-Control': 'max-age=60', ETag: '"a"' }, text),
    })
    expect(said(await get('4-8'))).toEqual([status, text, MISS])
    expect((await stored()).entries).toEqual([])
  })

  it('that is the whole is stored as such', async () => {
    const { get, origin } = await start(A, { script: answering(200, { ...FRESH, ...A }, DIGITS) })
    expect(said(await get('4-8'))).toEqual([200, DIGITS, MISS])
    expect(said(await get('4-8'))).toEqual([206, '45678', HIT])
    expect(origin.seen).toHaveLength(1)
  })

  it('[RFC 9110 §15.3.7] that leaves fields out for If-Range is no beginning, but a good end', async () => {
    const { get, resource } = await start(A)
    const full = resource.fields
    resource.fields = { ...A, 'Cache-Control': 'max-age=60' }
    await get('0-4', { 'If-Range': '"a"' })
    resource.fields = full
    expect(said(await get('0-4'))).toEqual([206, '01234', MISS])
    resource.fields = { ...A, 'Cache-Control': 'max-age=60' }
    await get('5-9', { 'If-Range': '"a"' })
    const whole = await get()
    expect([...said(whole), whole.headers['content-type']]).toEqual([200, DIGITS, HIT, 'text/plain'])
  })

  it('that nobody asked for is passed on, and not stored', async () => {
    const fields = { ...FRESH, ...A, 'Content-Range': 'bytes 4-8/10' }
    const { get, stored, origin } = await start(A, { script: answering(206, fields, '45678') })
    for (let i = 0; i < 2; i++) expect(said(await get())).toEqual([206, '45678', MISS])
    expect((await stored()).entries).toEqual([])
    expect(origin.seen).toHaveLength(2)
  })

  it('that contradicts what is stored under its own tag costs both their place', async () => {
    const { get, resource, stored } = await start(A)
    await get('0-4')
    resource.body = 'abcdefghij'
    expect(said(await get('3-6'))).toEqual([206, 'defg', MISS])
    expect((await stored()).entries).toEqual([])
  })

  it('that tells of another length under the same tag, too', async () => {
    const { get, resource, stored } = await start(A)
    await get('0-4')
    resource.body = '0123456789+'
    await get('6-9')
    expect((await stored()).entries).toEqual([])
  })

  it('of what is stored whole and stale makes it fresh again', async () => {
    const { get, move, asked } = await start(A)
    await get()
    move(61)
    expect(said(await get('3-4'))).toEqual([206, '34', MISS])
    expect(said(await get())).toEqual([200, DIGITS, HIT])
    expect(asked()).toEqual(['all', '3-4'])
  })

  it('that changed takes the place of what is stored whole and stale', async () => {
    const { get, move, resource } = await start(A)
    await get()
    move(61)
    resource.body = 'abcdefghij'
    resource.fields = { ...FRESH, ETag: '"b"' }
    await get('3-4')
    expect(said(await get('3-4'))).toEqual([206, 'de', HIT])
    expect(said(await get())).toEqual([200, 'abcdefghij', MISS])
  })

  it('is cut from what is stored, stale, when the origin fails', async () => {
    const { get, move, origin } = await start(A, { route: 'stale: {ifError: 1h}' })
    await get()
    move(61)
    origin.answer((_message, response) => void response.writeHead(503).end())
    expect(said(await get('3-4'))).toEqual([206, '34', 'STALE'])
  })
})

describe('the whole of which all but one piece is stored', () => {
  it.each([
    ['end', ['0-3'], '4-9'],
    ['beginning', ['4-9'], '0-3'],
    ['middle', ['7-9', '0-3'], '4-6'],
  ])('[RFC 9111 §3.4] is fetched by its %s alone', async (_where, ranges, missing) => {
    const { get, asked, origin } = await start(A)
    for (const range of ranges) await get(range)
    const whole = await get()
    expect([...said(whole), whole.headers['cache-status']]).toEqual([
      200,
      DIGITS,
      MISS,
      'weirgate; fwd=partial; stored; detail=incomplete',
    ])
    expect(whole.headers).toMatchObject({ 'content-length': '10', 'content-type': 'text/plain', etag: '"a"' })
    expect(whole.headers['content-range']).toBeUndefined()
    expect(asked()).toEqual([...ranges, missing])
    expect(origin.seen.at(-1)?.headers).toMatchObject({ range: `bytes=${missing}`, 'if-range': '"a"' })
    expect(said(await get())).toEqual([200, DIGITS, HIT])
  })

  it('[RFC 9111 §3.4] is fetched so when what is stored is stale, too', async () => {
    const { get, asked, move } = await start(A)
    await get('0-3')
    move(61)
    expect(said(await get())).toEqual([200, DIGITS, MISS])
    expect(asked()).toEqual(['0-3', '4-9'])
  })

  it('[RFC 9110 §13.1.5] is what the origin has now, where that is something else', async () => {
    const { get, resource, asked } = await start(A)
    await get('0-3')
    resource.body = 'abcdefghij'
    resource.fields = { ...FRESH, ETag: '"b"' }
    expect(said(await get())).toEqual([200, 'abcdefghij', MISS])
    expect(said(await get('0-3'))).toEqual([206, 'abcd', HIT])
    expect(asked()).toEqual(['0-3', '4-9'])
  })

  it.each<[string, number, Record<string, string>, string]>([
    ['a piece of something else, against If-Range', 206, { ETag: '"b"', 'Content-Range': 'bytes 4-9/10' }, 'efghij'],
    ['a piece without a tag', 206, { 'Content-Range': 'bytes 4-9/10' }, 'efghij'],
    ['another piece', 206, { ...A, 'Content-Range': 'bytes 3-9/10' }, 'defghij'],
    ['a piece of another length', 206, { ...A, 'Content-Range': 'bytes 4-9/11' }, 'efghij'],
    ['too little', 206, { ...A, 'Content-Range': 'bytes 4-9/10', 'Content-Length': '5' }, 'efghi'],
    ['that there is none', 416, { 'Content-Range': 'bytes */3' }, ''],
  ])('is fetched whole where the origin answers %s', async (_what, status, fields, text) => {
    const { get, origin, resource, asked } = await start(A)
    await get('0-3')
    resource.body = 'abcdefghij'
    resource.fields = { ...FRESH, ETag: '"b"' }
    origin.answer((message, response) => {
      if (message.headers.range === undefined) serve(resource, message, response)
      else response.writeHead(status, fields).end(text)
    })
    expect(said(await get())).toEqual([200, 'abcdefghij', MISS])
    expect(asked()).toEqual(['0-3', '4-9', 'all'])
    expect(said(await get())).toEqual([200, 'abcdefghij', HIT])
  })

  it('is for everybody who waits for it', async () => {
    const { get, origin, asked } = await start(A)
    await get('0-3')
    let answer: (() => void) | null = null
    origin.answer((_message, response) => {
      answer = () => void response.writeHead(206, { ...FRESH, ...A, 'Content-Range': 'bytes 4-9/10' }).end('456789')
    })
    const clients = [get(), get(), get()]
    await until(() => answer !== null, 'the origin to be asked')
    await new Promise((resolve) => setImmediate(resolve))
    ;(answer as unknown as () => void)()
    const answers = await Promise.all(clients)
    expect(answers.map(({ text }) => text)).toEqual([DIGITS, DIGITS, DIGITS])
    expect(asked()).toEqual(['0-3', '4-9'])
  })
})

describe('what happens while a part is fetched', () => {
  /** Asks for 0-4, and holds the second half of it back. */
  async function held() {
    const edge = await start(A, { route: 'tags: [red]' })
    let finish: (() => void) | null = null
    edge.origin.answer((_message, response) => {
      const fields = { 'Content-Range': 'bytes 0-4/10', 'Content-Length': '5' }
      response.writeHead(206, { ...edge.resource.fields, ...fields }).write('01')
      finish = () => void response.end('234')
    })
    const client = await converse(edge.gateway.port, 'GET /x HTTP/1.1\r\nHost: a\r\nRange: bytes=0-4\r\n\r\n')
    await client.expect(/\r\n\r\n01$/)
    edge.origin.answer((message, response) => serve(edge.resource, message, response))
    return { ...edge, client, finish: finish as unknown as () => void }
  }
  const range = { Host: 'a', Range: 'bytes=0-4' }

  it('is not stored while it comes, and then is', async () => {
    const { client, finish, ask } = await held()
    expect((await ask(range)).headers['x-cache']).toBe(MISS)
    finish()
    await client.expect(/01234$/)
    expect(said(await ask(range))).toEqual([206, '01234', HIT])
  })

  it.each<[string, object]>([
    ['its URL', { urls: ['/x'] }],
    ['everything', { all: true }],
    ['its tag', { tags: ['red'] }],
  ])('a purge of %s keeps it from being stored', async (_what, purge) => {
    const { client, finish, ask, gateway, stored } = await held()
    await request(`${gateway.adminUrl}/api/cache/purge`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(purge),
    })
    finish()
    await client.expect(/01234$/)
    expect((await stored()).entries).toEqual([])
    expect((await ask(range)).headers['x-cache']).toBe(MISS)
  })

  it('its client leaves: nothing of it is stored, and the origin is told', async () => {
    const { client, origin, stored } = await held()
    client.reset()
    await until(() => origin.aborted === 1, 'the origin to be told')
    expect((await stored()).entries).toEqual([])
  })

  it('the whole comes: the part adds nothing', async () => {
    const { client, finish, ask, resource } = await held()
    resource.body = 'abcdefghij'
    resource.fields = { ...FRESH, ETag: '"b"' }
    await ask({ Host: 'a' })
    finish()
    await client.expect(/01234$/)
    expect(said(await ask({ Host: 'a' }))).toEqual([200, 'abcdefghij', HIT])
  })
})

it('a purge takes parts as anything else, and a soft one leaves them to be added to', async () => {
  const { get, gateway, asked } = await start(A, { route: 'tags: [red]' })
  const purge = (body: object) =>
    request(`${gateway.adminUrl}/api/cache/purge`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body),
    })
  await get('0-4')
  expect(JSON.parse((await purge({ tags: ['red'], soft: true })).text)).toMatchObject({ purged: 1 })
  expect(said(await get('0-1'))).toEqual([206, '01', MISS])
  expect(said(await get('0-4'))).toEqual([206, '01234', HIT])
  expect(JSON.parse((await purge({ tags: ['red'] })).text)).toMatchObject({ purged: 1 })
  expect(said(await get('0-4'))).toEqual([206, '01234', MISS])
  expect(asked()).toEqual(['0-4', '0-1', '0-4'])
})

it('[RFC 9110 §15.3.7.3] each answer is of one body, whichever ranges are asked for, and whenever it changes', async () => {
  const range = fc.oneof(
    fc.tuple(fc.nat(30), fc.nat(12)).map(([first, more]) => `${first}-${first + more}`),
    fc.nat(30).map((first) => `${first}-`),
    fc.integer({ min: 1, max: 30 }).map((count) => `-${count}`),
  )
  const step = fc.oneof(
    { weight: 6, arbitrary: range },
    { weight: 3, arbitrary: fc.constant('all') },
    { weight: 3, arbitrary: fc.constant('change') },
    { weight: 1, arbitrary: fc.constant('wait') },
  )
  const { resource, gateway, move, origin } = await start({})
  let run = 0
  let hits = 0
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 4, maxLength: 25 }), fc.boolean(), async (steps, isHonest) => {
      const url = `${gateway.url}/${++run}`
      let version = 0
      const change = () => {
        // As many bytes each time, none of them the same.
        resource.body = Array.from({ length: 31 }, (_, at) => String.fromCharCode(48 + ((at + 7 * version) % 64))).join(
          '',
        )
        resource.fields = { ...FRESH, ETag: `"${run}-${version++}"` }
      }
      change()
      origin.answer((message, response) => {
        // An origin that knows no If-Range answers with a piece of what it has now.
        if (!isHonest) delete message.headers['if-range']
        serve(resource, message, response)
      })
      const bodies = new Map([[resource.fields.ETag, resource.body]])
      for (const each of steps) {
        if (each === 'change') change()
        else if (each === 'wait') move(61)
        bodies.set(resource.fields.ETag, resource.body)
        if (each === 'change' || each === 'wait') continue
        const { status, text, headers } = await request(url, {
          headers: each === 'all' ? {} : { Range: `bytes=${each}` },
        })
        const body = bodies.get(headers.etag) ?? '?'
        if (headers['x-cache'] === 'HIT') hits++
        const [, first, last] = /^bytes (\d+)-(\d+)\/31$/.exec(headers['content-range'] ?? '') ?? []
        const asked = status === 206 ? body.slice(Number(first), Number(last) + 1) : body
        expect([each, status, text]).toEqual([each, each === 'all' ? 200 : 206, asked])
      }
    }),
    { numRuns: 60 },
  )
  expect(hits).toBeGreaterThan(50)
})
