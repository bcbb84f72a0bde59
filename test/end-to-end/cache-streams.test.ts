// Streams of events in the cache: recorded while they come, joined while they run, stored only when they have proved whole,
// and sent again byte for byte.

import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { onTestFinished, describe, expect, it } from 'vitest'
import { type Answer, type Conversation, converse, request } from '../support/client.ts'
import { type Edge, type EdgeOptions, arrived, settled, startEdge, startGatewayBefore } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import { startRawOrigin } from '../support/origin.ts'
import { readAnswers } from '../support/wire.ts'

const EVENTS = { 'Content-Type': 'text/event-stream; charset=utf-8', 'Cache-Control': 'no-cache' }
const cached = (more = '') =>
  `{path: /*, cache: {ttl: 1h, methods: [GET, POST], scope: public, key: {body: canonical}, ${more}}}`
const OPENAI = cached('terminal: openai')

const WHOLE = ': hello\n\ndata: {"n":1}\n\nid: 7\ndata: {"n":2}\n: still here\n\ndata: [DONE]\n\n'
/** Without its comments. */
const RECORD = 'data: {"n":1}\n\nid: 7\ndata: {"n":2}\n\ndata: [DONE]\n\n'

const start = (options: EdgeOptions = {}) => startEdge({ routes: [OPENAI], ...options })

const answering = (stream: string, type: Record<string, string> = EVENTS) => ({
  script: (_message: unknown, response: ServerResponse) => void response.writeHead(200, type).end(stream),
})

interface Sent {
  readonly path?: string
  readonly headers?: Record<string, string>
  readonly method?: string
}

const send = (
  { gateway }: Pick<Edge, 'gateway'>,
  body: unknown,
  { path = '/', headers = {}, method = 'POST' }: Sent = {},
) =>
  request(`${gateway.url}${path}`, {
    method,
    headers: { 'Content-Type': 'application/json', ...headers },
    ...(method === 'GET' || method === 'HEAD' ? {} : { body: JSON.stringify(body) }),
  })

const said = ({ headers }: Answer): string => {
  const detail = /detail=(\S+)/.exec(String(headers['cache-status']))?.[1]
  return `${String(headers['x-cache'])}${detail === undefined || detail === 'absent' ? '' : ` ${detail}`}`
}

/** A request as bytes, for clients that read as it comes. */
const post = (body: string, fields: readonly string[] = []): string =>
  `POST / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n${fields.map((field) => `${field}\r\n`).join('')}\r\n${body}`

/** An origin whose streams the test sends. */
async function tapped(options: EdgeOptions = {}): Promise<Edge & { readonly taps: readonly ServerResponse[] }> {
  const taps: ServerResponse[] = []
  const edge = await start({
    script(_message, response) {
      response.writeHead(200, EVENTS).flushHeaders()
      taps.push(response)
    },
    ...options,
  })
  return { ...edge, taps }
}

/** The body of what has come so far. */
const bodyOf = ({ received }: Conversation): string =>
  received.includes('\r\n\r\n') ? (readAnswers(received)[0]?.body ?? '') : ''

describe('a stream that is whole', () => {
  it('is sent again byte for byte, without its comments', async () => {
    const edge = await start(answering(WHOLE))
    const answers = [await send(edge, { p: 1 }), await send(edge, { p: 1 }), await send(edge, { p: 2 })]
    expect(answers.map(said)).toEqual(['MISS', 'HIT', 'MISS'])
    expect(answers.map(({ text }) => text)).toEqual([WHOLE, RECORD, WHOLE])
    expect(answers[1]?.headers).toMatchObject({
      'content-type': EVENTS['Content-Type'],
      'content-length': String(RECORD.length),
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
    })
    expect(answers[1]?.headers['content-encoding']).toBeUndefined()
    expect(edge.origin.seen).toHaveLength(2)
  })

  it('is stored as well where it comes piece by piece, with a length that counts the comments, and none', async () => {
    for (const fields of [EVENTS, { ...EVENTS, 'Content-Length': String(WHOLE.length) }]) {
      const edge = await start({
        async script(_message, response) {
          response.writeHead(200, fields)
          for (const byte of WHOLE.split('')) await new Promise((resolve) => response.write(byte, resolve))
          response.end()
        },
      })
      expect((await send(edge, { p: 1 })).text).toBe(WHOLE)
      const again = await send(edge, { p: 1 })
      expect([said(again), again.text]).toEqual(['HIT', RECORD])
    }
  })

  it('is no answer for who wants it whole, nor the other way round', async () => {
    const edge = await start({
      script({ headers }, response) {
        if (headers.accept === 'text/event-stream') response.writeHead(200, EVENTS).end(RECORD)
        else response.end('{"whole":true}')
      },
      routes: [OPENAI],
    })
    const words: string[] = []
    for (const method of ['POST', 'GET']) {
      for (const Accept of ['text/event-stream', 'application/json', 'text/event-stream', 'application/json']) {
        const answer = await send(edge, { p: 1 }, { method, headers: { Accept } })
        words.push(`${said(answer)} ${answer.text === RECORD ? 'events' : 'whole'}`)
      }
    }
    expect(words).toEqual([...Array(2)].flatMap(() => ['MISS events', 'MISS whole', 'HIT events', 'HIT whole']))
    // Who asks for the rest of one has had its beginning.
    const headers = { Accept: 'text/event-stream', 'Last-Event-ID': '7' }
    expect(said(await send(edge, { p: 1 }, { headers }))).toBe('MISS')
    expect(said(await send(edge, { p: 1 }, { headers, method: 'GET' }))).toBe('MISS')
  })

  it('that is an answer to a GET is stored only where the route says how it ends', async () => {
    const edge = await start({
      ...answering(RECORD),
      routes: [cached(), '{path: /declared, cache: {ttl: 1h, terminal: openai}}'],
    })
    const ask = async (path: string) => said(await send(edge, null, { path, method: 'GET' }))
    expect([await ask('/'), await ask('/')]).toEqual(['MISS event-stream', 'MISS event-stream'])
    expect([await ask('/declared'), await ask('/declared')]).toEqual(['MISS', 'HIT'])
  })

  it('is kept beside others in JSON lines', async () => {
    const edge = await start({
      ...answering('{"a":1}\n{"done":true}\n', { 'Content-Type': 'application/x-ndjson' }),
      routes: [cached()],
    })
    expect([said(await send(edge, {})), said(await send(edge, {}))]).toEqual(['MISS', 'HIT'])
  })
})

describe('a stream that is not whole', () => {
  it.each([
    ['data: a\n\ndata: b\n\n', 'unterminated'],
    ['data: a\n\ndata: [DONE]\n', 'unterminated'],
    ['event: error\ndata: x\n\ndata: [DONE]\n\n', 'error-answer'],
    ['data: {"choices":[{"finish_reason":"length"}]}\n\ndata: [DONE]\n\n', 'unfinished'],
  ])('but ends properly is passed on as it is and not stored: %j', async (stream, reason) => {
    const edge = await start(answering(stream))
    for (const n of [1, 2]) {
      const answer = await send(edge, { p: 1 })
      expect([said(answer), answer.text, edge.origin.seen.length]).toEqual([`MISS ${reason}`, stream, n])
    }
    const [line] = await edge.gateway.requestLines(2)
    expect(line).toMatchObject({ cache: 'miss', cache_reason: reason })
  })

  const FRAMINGS: readonly (readonly [name: string, head: string, body: (text: string) => string])[] = [
    ['a length', `Content-Length: ${WHOLE.length}\r\n`, (text) => text],
    ['chunks', 'Transfer-Encoding: chunked\r\n', (text) => text.replaceAll(/[^]{1,9}/g, inChunk) + '0\r\n\r\n'],
    ['the end of its connection', '', (text) => text],
  ]
  const inChunk = (text: string): string => `${text.length.toString(16)}\r\n${text}\r\n`

  it.each(FRAMINGS)(
    'since it was cut at any byte, in a body that ends by %s, looks whole to nobody',
    async (_name, head, framed) => {
      const body = framed(WHOLE)
      const cuts = body.length
      const asked = new Map<number, number>()
      const origin = await startRawOrigin((socket: Socket, requestHead) => {
        const cut = Number(/^x-cut: (\d+)$/im.exec(requestHead)?.[1])
        const count = (asked.get(cut) ?? 0) + 1
        asked.set(cut, count)
        const sent = count === 1 ? body.slice(0, cut) : body
        const close = head === '' || count === 1 ? 'Connection: close\r\n' : ''
        socket.write(`HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n${close}${head}\r\n${sent}`)
        if (close !== '') socket.end()
      })
      onTestFinished(() => origin.close())
      const gateway = await startGatewayBefore(origin.url, { routes: [OPENAI] })
      const isStored = head !== ''
      const outcomes = new Set<string>()
      for (let cut = 0; cut < cuts; cut++) {
        const client = await converse(gateway.port, post(`{"p":${cut}}`, [`X-Cut: ${cut}`]))
        await client.end()
        const [first] = client.received === '' ? [] : readAnswers(client.received)
        const isBroken = first === undefined || first.status === 502 || !first.whole
        expect([cut, isBroken, WHOLE.startsWith(first?.status === 200 ? withoutError(first.body) : '')]).toEqual([
          cut,
          true,
          true,
        ])
        const again = await converse(gateway.port, post(`{"p":${cut}}`, [`X-Cut: ${cut}`]))
        await again.end()
        const [second] = readAnswers(again.received)
        expect([cut, second?.body, second?.whole, asked.get(cut)]).toEqual([cut, WHOLE, true, 2])
        outcomes.add(String(gateway.gateway.stats().cache.entries - (isStored ? cut + 1 : 0)))
      }
      expect([...outcomes]).toEqual(['0'])
    },
  )

  /** What the gateway says of a stream that broke off. */
  const withoutError = (body: string): string => body.replace(/event: error\ndata: .*\n\n$/, '')
})

describe('a stream that runs', () => {
  it('is fetched once for 100 clients, who all get the same bytes', async () => {
    const edge = await tapped()
    const clients = await Promise.all(Array.from({ length: 100 }, () => converse(edge.gateway.port, post('{"p":1}'))))
    await until(() => edge.taps.length === 1, 'the request at the origin')
    const [tap] = edge.taps
    await Promise.all(clients.map((client) => client.expect('\r\n\r\n')))
    for (let i = 0; i < 20; i++) {
      tap?.write(`data: {"i":${i}}\n\n`)
      await clients[i]?.expect(`{"i":${i}}`)
    }
    tap?.end('data: [DONE]\n\n')
    await Promise.all(clients.map((client) => client.end()))
    const answers = clients.map(({ received }) => readAnswers(received)[0])
    expect(new Set(answers.map((answer) => answer?.body))).toEqual(new Set([answers[0]?.body]))
    expect(answers.every((answer) => answer?.whole === true && answer.body.endsWith('data: [DONE]\n\n'))).toBe(true)
    const words = answers.map((answer) => answer?.fields.find(([name]) => name === 'x-cache')?.[1])
    expect([
      words.filter((word) => word === 'MISS').length,
      words.filter((word) => word === 'COLLAPSED').length,
    ]).toEqual([1, 99])
    expect(edge.origin.seen).toHaveLength(1)
    const later = await send(edge, { p: 1 }, { headers: { Host: 'a.test' } })
    expect([said(later), later.text]).toEqual(['HIT', answers[0]?.body])
    await settled(edge)
  })

  it('gives who joins late what has come at once, and the rest as it comes', async () => {
    const edge = await tapped()
    const first = await converse(edge.gateway.port, post('{"p":1}'))
    await until(() => edge.taps.length === 1, 'the request at the origin')
    const [tap] = edge.taps
    for (let i = 0; i < 3; i++) {
      tap?.write(`data: ${i}\n\n`)
      await first.expect(`data: ${i}\n\n`)
    }
    const late = await converse(edge.gateway.port, post('{"p":1}'))
    await late.expect('data: 2\n\n')
    expect(bodyOf(late)).toBe('data: 0\n\ndata: 1\n\ndata: 2\n\n')
    tap?.write(': still here\n\n')
    await Promise.all([first, late].map((client) => client.expect(': still here\n\n')))
    tap?.write('data: 3\n\n')
    await Promise.all([first, late].map((client) => client.expect('data: 3\n\n')))
    tap?.end('data: [DONE]\n\n')
    await Promise.all([first, late].map((client) => client.end()))
    expect(bodyOf(late)).toBe(bodyOf(first))
    expect([late.closedBy, edge.origin.seen.length]).toEqual(['end', 1])
  })

  it('goes on for the others when who began it leaves, and breaks for all of them when it breaks', async () => {
    const edge = await tapped()
    const [leader, ...others] = [
      await converse(edge.gateway.port, post('{"p":1}')),
      await converse(edge.gateway.port, post('{"p":1}')),
      await converse(edge.gateway.port, post('{"p":1}')),
    ]
    await until(() => edge.taps.length === 1, 'the request at the origin')
    await arrived(edge.gateway, 3)
    edge.taps[0]?.write('data: 1\n\n')
    await Promise.all([leader, ...others].map((client) => client?.expect('data: 1\n\n')))
    leader?.destroy()
    edge.taps[0]?.write('data: 2\n\n')
    await Promise.all(others.map((client) => client.expect('data: 2\n\n')))
    edge.taps[0]?.destroy()
    await Promise.all(others.map((client) => client.end()))
    for (const client of others) {
      expect(client.received).not.toContain('\r\n0\r\n')
      expect(bodyOf(client)).toMatch(
        /^data: 1\n\ndata: 2\n\nevent: error\ndata: \{"code":"upstream_reset","request_id":"[^"]+"\}\n\n$/,
      )
    }
    expect(new Set(others.map((client) => /request_id":"[^"]+/.exec(client.received)?.[0])).size).toBe(2)
    expect(edge.gateway.gateway.stats().cache.entries).toBe(0)
    void send(edge, { p: 1 }, { headers: { Host: 'a.test' } }).catch(() => {})
    await until(() => edge.taps.length === 2, 'another fetch')
  })
})

describe('a stream that breaks off', () => {
  it.each([
    ['within an event', {}, 'data: 1\n\ndata: 2\n'],
    ['in a body of a declared length', { 'Content-Length': '500' }, 'data: 1\n\n'],
  ])('%s is reset and says nothing', async (_where, fields, sent) => {
    const edge = await start({
      script: (_message, response) => void response.writeHead(200, { ...EVENTS, ...fields }).write(sent),
    })
    const client = await converse(edge.gateway.port, post('{"p":1}'))
    await client.expect(sent.slice(-8))
    await edge.origin.close()
    await client.end()
    expect([client.closedBy, client.received.includes('event: error')]).toEqual(['reset', false])
  })
})

describe('a stored stream with `replay: paced`', () => {
  it('has the same bytes and length, for any method and by any way to the client', async () => {
    const edge = await start({
      routes: [cached('terminal: openai, replay: {maxGap: 2ms}')],
      async script(_message, response) {
        response.writeHead(200, EVENTS)
        for (const event of WHOLE.split(/(?<=\n\n)/)) {
          response.write(event)
          await new Promise((resolve) => setTimeout(resolve, 3))
        }
        response.end()
      },
    })
    for (const method of ['POST', 'GET']) {
      const answers = [1, 2, 3].map(() => send(edge, { p: 1 }, { method }))
      expect((await Promise.all(answers)).map(({ text }) => text)).toEqual([WHOLE, WHOLE, WHOLE])
      for (const n of [1, 2]) {
        const again = await send(edge, { p: 1 }, { method })
        expect([n, said(again), again.text, again.headers['content-length']]).toEqual([
          n,
          'HIT',
          RECORD,
          String(RECORD.length),
        ])
      }
    }
    const head = await send(edge, null, { method: 'HEAD' })
    expect([said(head), head.headers['content-length'], head.text]).toEqual(['HIT', String(RECORD.length), ''])
    const part = await send(edge, null, { method: 'GET', headers: { Range: 'bytes=0-3' } })
    expect([said(part), part.status, part.text]).toEqual(['HIT', 206, RECORD.slice(0, 4)])
    await settled(edge)
  })
})
