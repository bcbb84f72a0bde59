// Messages that two parsers could read in two ways, sent byte by byte as a hostile client would. Each is refused whole,
// once, on a connection that ends; nothing of it, and nothing behind it, reaches the origin.

import { describe, expect, it } from 'vitest'
import { METHODS } from '../../src/http/methods.ts'
import { converse } from '../support/client.ts'
import { expectWorking, settled, startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import type { Script } from '../support/origin.ts'
import { field, readAnswers } from '../support/wire.ts'

const HOST = 'Host: gateway.test\r\n'
/** Answers with the body of the request, once it has all of it. */
const echo: Script = (request, response) => {
  let body = ''
  request.on('data', (chunk: Buffer) => (body += chunk.toString())).on('end', () => response.end(body))
}
/** Rides behind every message below: it must never be taken for a request. */
const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: gateway.test\r\n\r\n'

type Refusal = readonly [name: string, bytes: string, status: number, code: string]

/** What is seen of bytes that must be refused, with SMUGGLED behind them, and of the gateway after that. */
async function observe(bytes: string) {
  const edge = await startEdge()
  const { gateway, origin } = edge
  const client = await converse(gateway.port, Buffer.from(bytes + SMUGGLED, 'latin1'))
  await client.end()
  const answers = readAnswers(client.received).map((answer) => {
    const problem = JSON.parse(answer.body) as Record<string, unknown>
    return {
      status: answer.status,
      whole: answer.whole,
      type: field(answer, 'content-type'),
      connection: field(answer, 'connection'),
      via: field(answer, 'via'),
      isTimed: /^\d+\.\d\dms$/.test(field(answer, 'x-process-time') ?? ''),
      code: problem['code'],
      namesItself: problem['request_id'] === field(answer, 'x-request-id'),
    }
  })
  await gateway.requestLines(1)
  const seen = origin.seen.length
  await expectWorking(edge)
  const lines = await gateway.requestLines(2)
  return {
    answers,
    seen,
    logged: lines.map(({ status_code: status, error }) => [status, error]),
    counted: gateway.gateway.stats().since_start.total.requests,
  }
}

const refused = (status: number, code: string): Awaited<ReturnType<typeof observe>> => ({
  answers: [
    {
      status,
      whole: true,
      type: 'application/problem+json',
      connection: 'close',
      via: '1.1 weirgate',
      isTimed: true,
      code,
      namesItself: true,
    },
  ],
  seen: 0,
  logged: [
    [status, code],
    [200, undefined],
  ],
  counted: 2,
})

const post = (fields: string, body = '') => `POST /x HTTP/1.1\r\n${HOST}${fields}\r\n${body}`
const get = (fields: string) => `GET /x HTTP/1.1\r\n${HOST}${fields}\r\n`
const target = (text: string) => `GET ${text} HTTP/1.1\r\n${HOST}\r\n`

describe('lengths and codings', () => {
  it.each<Refusal>([
    [
      'Content-Length with Transfer-Encoding',
      post('Content-Length: 5\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
      400,
      'bad_message',
    ],
    [
      'Transfer-Encoding with Content-Length',
      post('Transfer-Encoding: chunked\r\nContent-Length: 5\r\n', '0\r\n\r\n'),
      400,
      'bad_message',
    ],
    ['two equal Content-Length', post('Content-Length: 5\r\nContent-Length: 5\r\n', 'hello'), 400, 'bad_message'],
    ['two different Content-Length', post('Content-Length: 5\r\nContent-Length: 6\r\n', 'hello'), 400, 'bad_message'],
    [
      'two Content-Length in different case',
      post('content-length: 5\r\nCONTENT-LENGTH: 5\r\n', 'hello'),
      400,
      'bad_message',
    ],
    ['a list of equal lengths', post('Content-Length: 5, 5\r\n', 'hello'), 400, 'bad_message'],
    ['a length with a sign', post('Content-Length: +5\r\n', 'hello'), 400, 'bad_message'],
    ['a negative length', post('Content-Length: -5\r\n', 'hello'), 400, 'bad_message'],
    ['a hexadecimal length', post('Content-Length: 0x5\r\n', 'hello'), 400, 'bad_message'],
    ['a length with an exponent', post('Content-Length: 5e0\r\n', 'hello'), 400, 'bad_message'],
    ['a length with a fraction', post('Content-Length: 5.0\r\n', 'hello'), 400, 'bad_message'],
    ['a length with a space in it', post('Content-Length: 1 2\r\n', 'hello'), 400, 'bad_message'],
    ['an empty length', post('Content-Length:\r\n', 'hello'), 400, 'bad_message'],
    ['a length that is a word', post('Content-Length: five\r\n', 'hello'), 400, 'bad_message'],
    ['a length beyond 2^53 - 1', post('Content-Length: 9007199254740993\r\n', 'hello'), 400, 'bad_message'],
    ['a length beyond 2^64', post('Content-Length: 18446744073709551621\r\n', 'hello'), 400, 'bad_message'],
    ['gzip, chunked', post('Transfer-Encoding: gzip, chunked\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    ['chunked, chunked', post('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    [
      'chunked twice',
      post('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n', '0\r\n\r\n'),
      400,
      'bad_message',
    ],
    ['chunked, xchunked', post('Transfer-Encoding: chunked, xchunked\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    ['xchunked', post('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    ['chunked, identity', post('Transfer-Encoding: chunked, identity\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    ['identity', post('Transfer-Encoding: identity\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    ['"chunked" in quotes', post('Transfer-Encoding: "chunked"\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    ['chunked;q=1', post('Transfer-Encoding: chunked;q=1\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    ['chunked with an empty member', post('Transfer-Encoding: chunked,\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    ['an empty coding', post('Transfer-Encoding:\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    ['chunked behind a vertical tab', post('Transfer-Encoding: \x0bchunked\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    [
      'HTTP/1.0 with Transfer-Encoding',
      `POST /x HTTP/1.0\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      400,
      'bad_message',
    ],
    ['GET with a length', get('Content-Length: 5\r\n') + 'hello', 400, 'bad_message'],
    ['GET with chunks', get('Transfer-Encoding: chunked\r\n') + '5\r\nhello\r\n0\r\n\r\n', 400, 'bad_message'],
  ])('[RFC 9112 §6.3] refuses %s', async (_name, bytes, status, code) => {
    expect(await observe(bytes)).toEqual(refused(status, code))
  })
})

describe('lines and fields', () => {
  it.each<Refusal>([
    ['bare LF after the request line', `GET /x HTTP/1.1\n${HOST}\r\n`, 400, 'bad_message'],
    ['bare LF after a field', `GET /x HTTP/1.1\r\nHost: gateway.test\nX: 1\r\n\r\n`, 400, 'bad_message'],
    ['bare LF at the end of the head', `GET /x HTTP/1.1\r\n${HOST}\n`, 400, 'bad_message'],
    ['bare CR in a value', get('X: a\rb\r\n'), 400, 'bad_message'],
    ['bare CR after the request line', `GET /x HTTP/1.1\r${HOST}\r\n`, 400, 'bad_message'],
    ['CR CR LF', get('X: a\r\r\n'), 400, 'bad_message'],
    ['a folded field', get('X: a\r\n b\r\n'), 400, 'bad_message'],
    ['a folded coding', post('Transfer-Encoding:\r\n chunked\r\n', '0\r\n\r\n'), 400, 'bad_message'],
    ['a first field that begins with a space', `GET /x HTTP/1.1\r\n X: 1\r\n${HOST}\r\n`, 400, 'bad_message'],
    ['a space before the colon', get('X : a\r\n'), 400, 'bad_message'],
    ['a space before the colon of Content-Length', post('Content-Length : 5\r\n', 'hello'), 400, 'bad_message'],
    [
      'a tab before the colon of Transfer-Encoding',
      post('Transfer-Encoding\t: chunked\r\n', '0\r\n\r\n'),
      400,
      'bad_message',
    ],
    ['a field without a colon', get('Nonsense\r\n'), 400, 'bad_message'],
    ['a field without a name', get(': a\r\n'), 400, 'bad_message'],
    ['NUL in a name', get('X\0: a\r\n'), 400, 'bad_message'],
    ['NUL in a value', get('X: a\0b\r\n'), 400, 'bad_message'],
    ['a control byte in a value', get('X: a\x01b\r\n'), 400, 'bad_message'],
    ['DEL in a value', get('X: a\x7fb\r\n'), 400, 'bad_message'],
    ['a letter beyond ASCII in a name', get('X\xe4: a\r\n'), 400, 'bad_message'],
    ['parentheses in a name', get('X(y): a\r\n'), 400, 'bad_message'],
    ['a tab in the request line', `GET\t/x HTTP/1.1\r\n${HOST}\r\n`, 400, 'bad_message'],
    ['something behind the version', `GET /x HTTP/1.1 x\r\n${HOST}\r\n`, 400, 'bad_message'],
    ['no HTTP at all', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03', 400, 'bad_message'],
    ['an answer in place of a request', `HTTP/1.1 200 OK\r\n${HOST}\r\n`, 400, 'bad_message'],
  ])('[RFC 9112 §2.2, §5] refuses %s', async (_name, bytes, status, code) => {
    expect(await observe(bytes)).toEqual(refused(status, code))
  })
})

describe('hosts', () => {
  it.each<Refusal>([
    ['no Host', 'GET /x HTTP/1.1\r\n\r\n', 400, 'bad_host'],
    ['two Hosts', get('Host: other.test\r\n'), 400, 'bad_host'],
    ['two equal Hosts', get(HOST), 400, 'bad_host'],
    ['an empty Host', 'GET /x HTTP/1.1\r\nHost:\r\n\r\n', 400, 'bad_host'],
    ['a Host with userinfo', 'GET /x HTTP/1.1\r\nHost: user@gateway.test\r\n\r\n', 400, 'bad_host'],
    ['a list of Hosts', 'GET /x HTTP/1.1\r\nHost: gateway.test, other.test\r\n\r\n', 400, 'bad_host'],
    ['a Host with a path', 'GET /x HTTP/1.1\r\nHost: gateway.test/x\r\n\r\n', 400, 'bad_host'],
    ['a Host with a space', 'GET /x HTTP/1.1\r\nHost: gateway .test\r\n\r\n', 400, 'bad_host'],
    ['a Host with a port that is none', 'GET /x HTTP/1.1\r\nHost: gateway.test:99999\r\n\r\n', 400, 'bad_host'],
    ['two Hosts in HTTP/1.0', `GET /x HTTP/1.0\r\n${HOST}Host: other.test\r\n\r\n`, 400, 'bad_host'],
    ['an absolute target that disagrees with Host', target('http://other.test/x'), 400, 'bad_host'],
    ['an absolute target with another port', target('http://gateway.test:8080/x'), 400, 'bad_host'],
    ['an absolute target with userinfo', target('http://user@gateway.test/x'), 400, 'bad_target'],
    ['an absolute target of another scheme', target('ftp://gateway.test/x'), 400, 'bad_target'],
    ['an absolute target without Host', 'GET http://gateway.test/x HTTP/1.1\r\n\r\n', 400, 'bad_host'],
  ])('[RFC 9112 §3.2] refuses %s', async (_name, bytes, status, code) => {
    expect(await observe(bytes)).toEqual(refused(status, code))
  })
})

describe('targets', () => {
  it.each<Refusal>([
    ['a dot segment', target('/a/../b'), 400, 'bad_target'],
    ['a dot segment at the end', target('/a/..'), 400, 'bad_target'],
    ['a single dot', target('/a/./b'), 400, 'bad_target'],
    ['an escaped dot segment', target('/a/%2e%2E/b'), 400, 'bad_target'],
    ['a half escaped dot segment', target('/a/.%2e/b'), 400, 'bad_target'],
    ['a dot segment with a parameter', target('/a/..;x/b'), 400, 'bad_target'],
    ['an encoded slash', target('/a%2Fb'), 400, 'bad_target'],
    ['an encoded backslash', target('/a%5Cb'), 400, 'bad_target'],
    ['a backslash', target('/a\\b'), 400, 'bad_target'],
    ['an escaped NUL', target('/a%00'), 400, 'bad_target'],
    ['an escaped line break', target('/a%0d%0aX:%20y'), 400, 'bad_target'],
    ['a bad escape', target('/a%zz'), 400, 'bad_target'],
    ['half an escape', target('/a%4'), 400, 'bad_target'],
    ['escapes that are no UTF-8', target('/a%C0%AF'), 400, 'bad_target'],
    ['a fragment', target('/a#b'), 400, 'bad_target'],
    ['a relative target', target('x'), 400, 'bad_message'],
    ['a target that is an authority', target('gateway.test:80'), 400, 'bad_message'],
    ['* with GET', target('*'), 400, 'bad_target'],
    ['a raw control byte', target('/a\x01b'), 400, 'bad_message'],
  ])('[RFC 9112 §3.2, RFC 3986] refuses %s', async (_name, bytes, status, code) => {
    expect(await observe(bytes)).toEqual(refused(status, code))
  })
})

describe('methods and versions', () => {
  it.each<Refusal>([
    ['CONNECT', `CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n`, 405, 'method_not_allowed'],
    ['a method that nobody knows', `BREW /x HTTP/1.1\r\n${HOST}\r\n`, 501, 'method_unknown'],
    ['a method of RTSP', `PLAY /x RTSP/1.0\r\n${HOST}\r\n`, 501, 'method_unknown'],
    ['a method in lower case', `get /x HTTP/1.1\r\n${HOST}\r\n`, 501, 'method_unknown'],
    ['HTTP/0.9', `GET /x HTTP/0.9\r\n${HOST}\r\n`, 505, 'version_unsupported'],
    ['HTTP/1.2', `GET /x HTTP/1.2\r\n${HOST}\r\n`, 505, 'version_unsupported'],
    ['HTTP/2.0', `GET /x HTTP/2.0\r\n${HOST}\r\n`, 505, 'version_unsupported'],
    ['HTTP/11.1', `GET /x HTTP/11.1\r\n${HOST}\r\n`, 400, 'bad_message'],
    ['http in lower case', `GET /x http/1.1\r\n${HOST}\r\n`, 400, 'bad_message'],
    ['a request line without a version', `GET /x\r\n${HOST}\r\n`, 505, 'version_unsupported'],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 505, 'version_unsupported'],
  ])('refuses %s', async (_name, bytes, status, code) => {
    expect(await observe(bytes)).toEqual(refused(status, code))
  })

  it.each([
    ['CONNECT', 'CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n'],
    ['TRACE', `TRACE /x HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`],
  ])('[RFC 9110 §15.5.6] answers %s with the methods that are allowed', async (method, bytes) => {
    const { gateway, origin } = await startEdge()
    const client = await converse(gateway.port, bytes)
    await client.end()
    const [answer] = readAnswers(client.received)
    expect(answer?.status).toBe(405)
    expect(field(answer, 'allow')).toBe(METHODS.join(', '))
    expect(await gateway.requestLines(1)).toEqual([expect.objectContaining({ method, status_code: 405 })])
    expect(origin.seen).toEqual([])
  })
})

describe('sizes', () => {
  const tiny = (count: number) => Array.from({ length: count }, (_, i) => `a${i % 10}:\r\n`).join('')
  it.each<Refusal>([
    ['a target over 8 KiB', target(`/${'a'.repeat(8192)}`), 414, 'target_too_long'],
    ['a target over the whole head', target(`/${'a'.repeat(20_000)}`), 414, 'target_too_long'],
    ['a field over 8 KiB', get(`X: ${'a'.repeat(8192)}\r\n`), 431, 'head_too_large'],
    ['a name over 8 KiB', get(`${'a'.repeat(8193)}: x\r\n`), 431, 'head_too_large'],
    [
      'a head over 16 KiB',
      get(`X: ${'a'.repeat(8000)}\r\nY: ${'b'.repeat(8000)}\r\nZ: ${'c'.repeat(1000)}\r\n`),
      431,
      'head_too_large',
    ],
    ['101 fields', get(tiny(100)), 431, 'head_too_large'],
    ['5,000 tiny fields', get(tiny(5000)), 431, 'head_too_large'],
    // 3,000 names and no values stay below 16 KiB: only the count can refuse them.
    ['3,000 tiny fields', get(tiny(3000)), 431, 'head_too_large'],
    [
      'a Content-Length behind 2,000 tiny fields, with a request in its body',
      post(`${tiny(2000)}Content-Length: ${SMUGGLED.length}\r\n`, SMUGGLED),
      431,
      'head_too_large',
    ],
    [
      'a Transfer-Encoding behind 2,000 tiny fields, with a request in its body',
      post(
        `${tiny(2000)}Transfer-Encoding: chunked\r\n`,
        `${SMUGGLED.length.toString(16)}\r\n${SMUGGLED}\r\n0\r\n\r\n`,
      ),
      431,
      'head_too_large',
    ],
  ])('refuses %s', async (_name, bytes, status, code) => {
    expect(await observe(bytes)).toEqual(refused(status, code))
  })

  it('sees the field that frames a request behind thousands of others, where so many are allowed', async () => {
    const { gateway, origin } = await startEdge({
      listen: 'headFields: 10000, headBytes: 256KiB',
      routes: ['{path: /*, maxBody: 1B}'],
    })
    const client = await converse(gateway.port, post(`${tiny(6000)}Content-Length: ${SMUGGLED.length}\r\n`, SMUGGLED))
    await client.end()
    expect(readAnswers(client.received).map(({ status }) => status)).toEqual([413])
    expect(origin.seen).toEqual([])
  })

  it('takes 100 fields, a field of 8 KiB and a target of 8 KiB', async () => {
    const { gateway, origin } = await startEdge()
    const requests = [
      get(`${tiny(98)}Connection: close\r\n`),
      get(`X: ${'a'.repeat(8191)}\r\nConnection: close\r\n`),
      `GET /${'a'.repeat(8191)} HTTP/1.1\r\n${HOST}Connection: close\r\n\r\n`,
    ]
    for (const bytes of requests) {
      const client = await converse(gateway.port, bytes)
      await client.end()
      expect(readAnswers(client.received).map(({ status }) => status)).toEqual([200])
    }
    expect(origin.seen.length).toBe(3)
  })
})

describe('what is unusual and beyond doubt', () => {
  /** The one answer to bytes, and what the origin saw. */
  async function exchange(bytes: string, methods: readonly string[] = []) {
    const { gateway, origin } = await startEdge()
    const client = await converse(gateway.port, Buffer.from(bytes, 'latin1'))
    await client.end()
    return { answers: readAnswers(client.received, methods), seen: origin.seen, lines: await gateway.requestLines(1) }
  }
  const CLOSE = 'Connection: close\r\n'

  it.each([
    ['an absolute target that agrees with Host', `GET http://gateway.test/x?y HTTP/1.1\r\n${HOST}`],
    ['an absolute target in capitals with its default port', `GET HTTP://GATEWAY.TEST:80/x?y HTTP/1.1\r\n${HOST}`],
    ['a Host in capitals with the default port and the last dot', 'GET /x?y HTTP/1.1\r\nHost: GATEWAY.test.:80\r\n'],
    ['an absolute https target', 'GET https://gateway.test/x?y HTTP/1.1\r\nHost: gateway.test:443\r\n'],
    ['an absolute target in HTTP/1.0 without Host', 'GET http://gateway.test/x?y HTTP/1.0\r\n'],
    ['slashes one after the other', `GET //x?y HTTP/1.1\r\n${HOST}`],
    ['escaped letters', `GET /%78?y HTTP/1.1\r\n${HOST}`],
    // RFC 9112 §3 lets a recipient split at whitespace; what goes on is written anew.
    ['two spaces in the request line', `GET  /x?y HTTP/1.1\r\n${HOST}`],
    ['empty lines before the request', `\r\n\r\nGET /x?y HTTP/1.1\r\n${HOST}`],
  ])('[RFC 9112 §3.2] forwards %s as one and the same request', async (_name, head) => {
    const { answers, seen } = await exchange(`${head}${CLOSE}\r\n`)
    expect(answers.map(({ status }) => status)).toEqual([200])
    expect(seen.map(({ method, url, headers }) => [method, url, headers.host])).toEqual([
      ['GET', '/x?y', 'gateway.test'],
    ])
  })

  it('[RFC 9110 §9.3.7] answers OPTIONS * itself', async () => {
    const { answers, seen, lines } = await exchange(`OPTIONS * HTTP/1.1\r\n${HOST}${CLOSE}\r\n`)
    expect(answers.map(({ status, framing }) => [status, framing])).toEqual([[204, 'none']])
    expect(field(answers[0], 'allow')).toBe(METHODS.join(', '))
    expect(field(answers[0], 'content-length')).toBeUndefined()
    expect(field(answers[0], 'x-process-time')).toBeDefined()
    expect(seen).toEqual([])
    expect(lines).toEqual([expect.objectContaining({ method: 'OPTIONS', path: '*', status_code: 204 })])
  })

  it('[RFC 9110 §9.3.2] refuses a HEAD with a body without sending one', async () => {
    const { answers, seen } = await exchange(`HEAD /x HTTP/1.1\r\n${HOST}Content-Length: 5\r\n\r\nhello`, ['HEAD'])
    expect(answers.map(({ status, body }) => [status, body])).toEqual([[400, '']])
    expect(seen).toEqual([])
  })

  it('keeps the connection after a TRACE that it does not forward', async () => {
    const { answers, seen } = await exchange(`TRACE /x HTTP/1.1\r\n${HOST}\r\nGET /y HTTP/1.1\r\n${HOST}${CLOSE}\r\n`)
    expect(answers.map(({ status }) => status)).toEqual([405, 200])
    expect(seen.map(({ url }) => url)).toEqual(['/y'])
  })

  it.each(['__proto__', 'constructor', 'prototype', 'hasOwnProperty', '__defineGetter__', 'toString'])(
    'takes a field named %s for a field',
    async (name) => {
      const { answers, seen } = await exchange(`GET /x HTTP/1.1\r\n${HOST}${name}: 1\r\n${name}: 2\r\n${CLOSE}\r\n`)
      expect(answers.map(({ status }) => status)).toEqual([200])
      // Names with underscores are dropped on the way: many backends read them as dashes.
      const values = seen[0]?.rawHeaders.filter((_, i, all) => i % 2 === 1 && all[i - 1] === name)
      expect(values).toEqual(name.includes('_') ? [] : ['1', '2'])
    },
  )

  it('[RFC 9110 §7.8] drops an offer to upgrade and answers the request', async () => {
    const offer =
      'Upgrade: h2c, websocket\r\nConnection: Upgrade, HTTP2-Settings, close\r\nHTTP2-Settings: AAMAAABk\r\n'
    const { answers, seen } = await exchange(`GET /x HTTP/1.1\r\n${HOST}${offer}\r\n`)
    expect(answers.map(({ status }) => status)).toEqual([200])
    expect(seen[0]?.headers).not.toHaveProperty('upgrade')
    expect(seen[0]?.headers).not.toHaveProperty('http2-settings')
  })

  it.each([
    ['GET', 'GET /x HTTP/1.1', ''],
    ['POST', 'POST /x HTTP/1.1', 'hello'],
  ])(
    '[RFC 9110 §7.8] ends the connection after a %s that offers to upgrade with another request behind it',
    async (_method, line, body) => {
      // node:http gives away what it has read behind the offer; half of it would pass for a request of its own.
      const offer = 'Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n'
      const length = body === '' ? '' : `Content-Length: ${body.length}\r\n`
      const edge = await startEdge({ script: echo })
      const client = await converse(edge.gateway.port, `${line}\r\n${HOST}${offer}${length}\r\n${body}${SMUGGLED}`)
      await client.end()
      const answers = readAnswers(client.received)
      expect(answers.map((answer) => [answer.status, answer.body, field(answer, 'connection')])).toEqual([
        [200, body, 'close'],
      ])
      expect(edge.origin.seen.map(({ url }) => url)).toEqual(['/x'])
      await settled(edge)
    },
  )

  it('[RFC 9110 §7.8] keeps the connection after an offer to upgrade that stands alone', async () => {
    const { gateway, origin } = await startEdge()
    const offer = 'Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n'
    const client = await converse(gateway.port, `GET /x HTTP/1.1\r\n${HOST}${offer}\r\n`)
    await client.expect('answer 1')
    client.send(`GET /y HTTP/1.1\r\n${HOST}\r\n`)
    await client.expect('answer 2')
    client.send(`GET /z HTTP/1.1\r\n${HOST}${CLOSE}\r\n`)
    await client.end()
    expect(readAnswers(client.received).map(({ body }) => body)).toEqual(['answer 1', 'answer 2', 'answer 3'])
    expect(origin.seen.map(({ url }) => url)).toEqual(['/x', '/y', '/z'])
  })

  it('[RFC 9110 §5.5] carries bytes beyond ASCII in values both ways as they are', async () => {
    const { gateway, origin } = await startEdge({
      script: (_request, response) => response.writeHead(200, { 'X-Back': 'gr\xfc\xdfe \x80\xff' }).end('ok'),
    })
    const client = await converse(
      gateway.port,
      Buffer.from(`GET /x HTTP/1.1\r\n${HOST}X-Forth: \xe4\x80\xff\r\n${CLOSE}\r\n`, 'latin1'),
    )
    await client.end()
    expect(origin.seen[0]?.headers['x-forth']).toBe('\xe4\x80\xff')
    expect(field(readAnswers(client.received)[0], 'x-back')).toBe('gr\xfc\xdfe \x80\xff')
  })
})

describe('bodies that break', () => {
  it.each([
    ['a chunk size that is no number', 'zz\r\nhello\r\n0\r\n\r\n'],
    ['a chunk size with a sign', '+5\r\nhello\r\n0\r\n\r\n'],
    ['a chunk size beyond 2^64', 'fffffffffffffffff\r\nhello\r\n0\r\n\r\n'],
    ['a chunk size that ends with a bare LF', '5\nhello\r\n0\r\n\r\n'],
    ['a chunk longer than its size', '5\r\nhelloXX\r\n0\r\n\r\n'],
    ['a chunk without its last line break', '5\r\nhello0\r\n\r\n'],
    ['a chunk that ends with a bare LF', '5\r\nhello\n0\r\n\r\n'],
    ['a chunk extension with a bare LF', '5;a=b\nhello\r\n0\r\n\r\n'],
    ['chunk extensions over 16 KiB', `5;${'a'.repeat(17_000)}\r\nhello\r\n0\r\n\r\n`],
    ['a bad chunk after a good one', '5\r\nhello\r\nxyz\r\n0\r\n\r\n'],
    ['a Content-Length in a trailer', '5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n'],
    ['a trailer with a bare LF', '5\r\nhello\r\n0\r\nX: 1\n\r\n'],
  ])('[RFC 9112 §7.1] refuses %s, and the origin never sees a whole request', async (_name, body) => {
    let whole = 0
    const edge = await startEdge({
      script(request, response) {
        request.on('end', () => whole++).resume()
        if (request.method === 'GET') response.end('ok')
      },
    })
    const { gateway } = edge
    const client = await converse(gateway.port, post('Transfer-Encoding: chunked\r\n', body) + SMUGGLED)
    await client.end()
    const answers = readAnswers(client.received)
    expect(answers.map(({ status }) => status)).toEqual([400])
    expect(field(answers[0], 'connection')).toBe('close')
    const lines = await gateway.requestLines(1)
    expect(lines).toEqual([
      expect.objectContaining({ method: 'POST', path: '/x', status_code: 400, error: 'bad_message' }),
    ])
    expect(whole).toBe(0)
    await expectWorking(edge)
    expect(gateway.gateway.stats().since_start.total.requests).toBe(2)
    expect(edge.origin.seen.map(({ url }) => url)).not.toContain('/smuggled')
  })

  it('[RFC 9112 §7.1.2] drops trailers', async () => {
    const { gateway, origin } = await startEdge({ script: echo })
    const trailers = 'Authorization: Bearer x\r\nX-Forwarded-For: 192.0.2.1\r\n'
    const client = await converse(
      gateway.port,
      post(
        'Transfer-Encoding: chunked\r\nConnection: close\r\nTrailer: Authorization\r\n',
        `5\r\nhello\r\n0\r\n${trailers}\r\n`,
      ),
    )
    await client.end()
    expect(readAnswers(client.received).map(({ status }) => status)).toEqual([200])
    const [seen] = origin.seen
    expect((await seen?.body)?.toString()).toBe('hello')
    expect(seen?.headers).not.toHaveProperty('authorization')
    expect(seen?.headers).not.toHaveProperty('trailer')
  })
})

describe('pipelines', () => {
  const CLOSE = 'Connection: close\r\n'
  const first = `GET /first HTTP/1.1\r\n${HOST}\r\n`

  it('answers the first request whole, then refuses the second, which is malformed', async () => {
    const body = 'x'.repeat(300_000)
    const edge = await startEdge({
      script(request, response) {
        response.write(body)
        setTimeout(() => response.end(request.url), 50)
      },
    })
    const { gateway, origin } = edge
    const client = await converse(gateway.port, `${first}GET /second HTTP/1.1\r\nHost : a\r\n\r\n${SMUGGLED}`)
    await client.end()
    const answers = readAnswers(client.received)
    expect(answers.map(({ status, whole }) => [status, whole])).toEqual([
      [200, true],
      [400, true],
    ])
    expect(answers[0]?.body).toBe(`${body}/first`)
    expect(origin.seen.map(({ url }) => url)).toEqual(['/first'])
    const lines = await gateway.requestLines(2)
    expect(lines.map(({ status_code: status }) => status)).toEqual([200, 400])
    await expectWorking(edge)
  })

  it('refuses a body that cannot be read when its request has waited for its turn', async () => {
    const edge = await startEdge({ script: echo })
    const { gateway } = edge
    const second = post('Transfer-Encoding: chunked\r\n', '5\r\nhello\r\nxyz\r\n0\r\n\r\n')
    const client = await converse(gateway.port, first + second + SMUGGLED)
    await client.end()
    expect(readAnswers(client.received).map(({ status }) => status)).toEqual([200, 400])
    const lines = await gateway.requestLines(2)
    expect(lines.map(({ path, status_code: status, error }) => [path, status, error])).toEqual([
      ['/first', 200, undefined],
      ['/x', 400, 'bad_message'],
    ])
    await expectWorking(edge)
    expect(edge.origin.seen.map(({ url }) => url)).not.toContain('/smuggled')
    await settled(edge)
  })

  it('[RFC 9112 §9.3.2] answers in order and asks the origin for one after the other', async () => {
    let atOnce = 0
    let mostAtOnce = 0
    const { gateway, origin } = await startEdge({
      script(request, response) {
        mostAtOnce = Math.max(mostAtOnce, ++atOnce)
        request.resume()
        // The first takes longest.
        setTimeout(
          () => {
            atOnce--
            response.end(request.url)
          },
          request.url === '/0' ? 60 : 1,
        )
      },
    })
    const numbers = Array.from({ length: 30 }, (_, i) => i)
    const requests = numbers.map((i) =>
      i % 3 === 1
        ? `POST /${i} HTTP/1.1\r\n${HOST}Content-Length: 5\r\n\r\nhello`
        : `GET /${i} HTTP/1.1\r\n${HOST}${i === 29 ? CLOSE : ''}\r\n`,
    )
    const client = await converse(gateway.port, requests.join(''))
    await client.end()
    expect(readAnswers(client.received).map(({ body }) => body)).toEqual(numbers.map((i) => `/${i}`))
    expect(origin.seen.map(({ url }) => url)).toEqual(numbers.map((i) => `/${i}`))
    expect(mostAtOnce).toBe(1)
  })

  it('[RFC 9112 §9.6] looks at nothing behind a request that closes', async () => {
    const edge = await startEdge()
    const client = await converse(edge.gateway.port, `GET /last HTTP/1.1\r\n${HOST}${CLOSE}\r\n${SMUGGLED}`)
    await client.end()
    expect(readAnswers(client.received).map(({ status }) => status)).toEqual([200])
    expect(edge.origin.seen.map(({ url }) => url)).toEqual(['/last'])
    await expectWorking(edge)
    expect(edge.gateway.gateway.stats().since_start.total.requests).toBe(2)
  })

  it('cuts off a client that sends hundreds of requests ahead of their answers', async () => {
    const edge = await startEdge({
      script: (request, response) => void (request.url === '/first' ? null : response.end('ok')),
    })
    const { gateway, origin } = edge
    const client = await converse(gateway.port, first + SMUGGLED.repeat(2000))
    await client.end()
    expect(client.received).toBe('')
    const lines = await gateway.requestLines(1)
    expect(lines.map(({ path, status_code: status }) => [path, status])).toEqual([['/first', 499]])
    expect(origin.seen.map(({ url }) => url)).not.toContain('/smuggled')
    await expectWorking(edge)
    await settled(edge)
  })

  it('survives 1 MiB of garbage behind a request', async () => {
    const edge = await startEdge()
    const { gateway, origin } = edge
    const client = await converse(gateway.port, first)
    client.send(Buffer.alloc(1024 * 1024, 'garbage \x00\xff\r\n', 'latin1'))
    await client.end()
    expect(readAnswers(client.received).map(({ status }) => status)).toEqual([200, 400])
    expect(await gateway.requestLines(2)).toHaveLength(2)
    expect(origin.seen.map(({ url }) => url)).toEqual(['/first'])
    await expectWorking(edge)
    await settled(edge)
  })

  it('refuses CONNECT behind a request that is being answered by cutting off', async () => {
    const edge = await startEdge({
      script: (request, response) => void (request.url === '/first' ? null : response.end('ok')),
    })
    const client = await converse(
      edge.gateway.port,
      `${first}CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n`,
    )
    await client.end()
    expect(client.received).toBe('')
    await expectWorking(edge)
    await settled(edge)
  })
})

describe('pieces', () => {
  it('reads a request that is split at any byte as the same request', async () => {
    const { gateway, origin } = await startEdge({ script: echo })
    const bytes = `POST /x?y HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nX-A: b\r\n\r\n5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n`
    const client = await converse(gateway.port)
    for (let at = 1; at < bytes.length; at++) {
      client.send(bytes.slice(0, at))
      await new Promise((resolve) => setImmediate(resolve))
      client.send(bytes.slice(at))
      // The next piece must not ride on the same packet.
      await until(() => client.received.split('hello!').length > at, `answer ${at}`)
    }
    client.destroy()
    const answers = readAnswers(client.received)
    expect(answers).toHaveLength(bytes.length - 1)
    expect(new Set(answers.map(({ status, body }) => `${status} ${body}`))).toEqual(new Set(['200 hello!']))
    const seen = origin.seen.map(({ method, url, headers }) => [method, url, headers['x-a']].join(' '))
    expect(new Set(seen)).toEqual(new Set(['POST /x?y b']))
    expect(origin.seen).toHaveLength(bytes.length - 1)
  })

  it('reads a request that comes byte by byte', async () => {
    const { gateway, origin } = await startEdge({ script: echo })
    const client = await converse(gateway.port)
    for (const byte of `POST /x HTTP/1.1\r\n${HOST}Content-Length: 5\r\nConnection: close\r\n\r\nhello`) {
      client.send(byte)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await client.end()
    expect(readAnswers(client.received).map(({ body }) => body)).toEqual(['hello'])
    expect(origin.seen).toHaveLength(1)
  })

  it.each([
    ['a field', `GET /x HTTP/1.1\r\n${HOST}X-A : b\r\n\r\n`, 400],
    ['a method', `BREW /x HTTP/1.1\r\n${HOST}\r\n`, 400],
    ['a head over 16 KiB', `GET /x HTTP/1.1\r\n${HOST}X: ${'a'.repeat(17_000)}\r\n\r\n`, 431],
  ])('refuses %s that comes in pieces as it would in one', async (_name, bytes, status) => {
    const edge = await startEdge()
    const client = await converse(edge.gateway.port)
    const size = Math.ceil(bytes.length / 60)
    for (let at = 0; at < bytes.length && !client.closed; at += size) {
      client.send(bytes.slice(at, at + size))
      await new Promise((resolve) => setImmediate(resolve))
    }
    await client.end()
    expect(readAnswers(client.received).map((answer) => answer.status)).toEqual([status])
    expect(edge.origin.seen).toEqual([])
    expect(await edge.gateway.requestLines(1)).toHaveLength(1)
  })
})
