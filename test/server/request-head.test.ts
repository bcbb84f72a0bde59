// Which heads the fast path reads, and as what. In doubt it reads none: node:http does then.

import { describe, expect, it } from 'vitest'
import { listenOptions } from '../../src/server/options.ts'
import { type RequestFields, mayBeHead, readRequestHead } from '../../src/server/request-head.ts'

const options = listenOptions.parse({ address: '127.0.0.1:0', target: '256B', headLine: '256B', headFields: 10 })
const read = (text: string, known: RequestFields | null = null) =>
  readRequestHead(Buffer.from(text, 'latin1'), text.length, options, known)
const head = (...lines: string[]) => `${lines.join('\r\n')}\r\n\r\n`
const get = (target: string) => head(`GET ${target} HTTP/1.1`, 'Host: a')

describe('a head beyond doubt', () => {
  it('is read with its fields as they came', () => {
    const found = read(head('GET /a/b?c=d HTTP/1.1', 'Host: Example.COM:80', 'Accept:  text/html \t', 'X-Empty:'))
    expect(found).toMatchObject({
      method: 'GET',
      path: '/a/b',
      query: '?c=d',
      fields: {
        host: 'example.com',
        headers: ['Host', 'Example.COM:80', 'Accept', 'text/html', 'X-Empty', ''],
        wantsClose: false,
      },
    })
  })

  it.each([
    ['HEAD', head('HEAD / HTTP/1.1', 'Host: a')],
    ['a normal path with escapes', get('/a%20b')],
    ['keep-alive', head('GET / HTTP/1.1', 'Host: a', 'Connection: Keep-Alive')],
    ['bytes beyond ASCII in a value', head('GET / HTTP/1.1', 'Host: a', 'X-A: \xe9')],
    ['credentials', head('GET / HTTP/1.1', 'Host: a', 'Authorization: Bearer x', 'Cookie: a=b')],
    ['a condition and a range', head('GET / HTTP/1.1', 'Host: a', 'If-None-Match: "x"', 'Range: bytes=0-1')],
    ['as many fields as may be', head('GET / HTTP/1.1', 'Host: a', ...Array.from({ length: 9 }, () => 'A: b'))],
  ])('%s', (_what, text) => {
    expect(read(text)).not.toBeNull()
  })

  it('says when the client ends the connection', () => {
    expect(read(head('GET / HTTP/1.1', 'Host: a', 'Connection: close'))?.fields.wantsClose).toBe(true)
  })

  it('shares what it read of the same fields before', () => {
    const first = read(get('/a'))
    expect(read(get('/b'), first?.fields)?.fields).toBe(first?.fields)
    const other = read(head('GET /b HTTP/1.1', 'Host: b'), first?.fields)
    expect(other?.fields.host).toBe('b')
  })

  it.each([4, 200])('takes no fields for those of before that differ in one of %i characters', (length) => {
    const from = (user: string) =>
      head('GET / HTTP/1.1', 'Host: a', `Authorization: ${'x'.repeat(length)}${user}`, 'A: b')
    const first = read(from('1'))
    expect(read(from('1'), first?.fields)?.fields).toBe(first?.fields)
    expect(read(from('2'), first?.fields)?.fields.headers[3]).toBe(`${'x'.repeat(length)}2`)
  })

  it.each([4, 200])('takes no more than the fields of before, where these had %i characters', (length) => {
    const one = head('GET / HTTP/1.1', 'Host: a', `X-A: ${'x'.repeat(length)}`)
    const first = read(one)
    expect(read(one + one, first?.fields)).toBeNull()
    const fewer = head('GET / HTTP/1.1', 'Host: a')
    expect(read(fewer, first?.fields)?.fields.headers).toEqual(['Host', 'a'])
  })
})

describe('what is in doubt', () => {
  it.each([
    ['another method', head('POST / HTTP/1.1', 'Host: a')],
    ['a method in another case', head('get / HTTP/1.1', 'Host: a')],
    ['another version', head('GET / HTTP/1.0', 'Host: a')],
    ['two spaces', head('GET  / HTTP/1.1', 'Host: a')],
    ['a tab', head('GET\t/ HTTP/1.1', 'Host: a')],
    ['no target', head('GET HTTP/1.1', 'Host: a')],
    ['the absolute form', get('http://a/')],
    ['the asterisk', get('*')],
    ['a path that is not normal', get('/a/../b')],
    ['two slashes', get('/a//b')],
    ['an escape that is not normal', get('/%7e')],
    ['a fragment', get('/a#b')],
    ['a byte beyond ASCII in the path', get('/\xe9')],
    ['a byte beyond ASCII in the query', get('/?\xe9')],
    ['a control byte in the query', get('/?\x01')],
    ['a target that is too long', get(`/${'a'.repeat(256)}`)],
    ['a bare line feed', 'GET / HTTP/1.1\nHost: a\r\n\r\n'],
    ['a bare line feed in a value', head('GET / HTTP/1.1', 'Host: a\nX: b')],
    ['a bare carriage return', head('GET / HTTP/1.1', 'Host: a\rX: b')],
    ['a NUL', head('GET / HTTP/1.1', 'Host: a', 'X: \0')],
    ['a folded line', head('GET / HTTP/1.1', 'Host: a', 'X: b', ' c')],
    ['a space before the colon', head('GET / HTTP/1.1', 'Host : a')],
    ['a line without a colon', head('GET / HTTP/1.1', 'Host: a', 'X')],
    ['a field without a name', head('GET / HTTP/1.1', 'Host: a', ': b')],
    ['no Host', head('GET / HTTP/1.1', 'X: b')],
    ['two Hosts', head('GET / HTTP/1.1', 'Host: a', 'Host: a')],
    ['a Host that is none', head('GET / HTTP/1.1', 'Host: a b')],
    ['a length', head('GET / HTTP/1.1', 'Host: a', 'Content-Length: 0')],
    ['a transfer coding', head('GET / HTTP/1.1', 'Host: a', 'Transfer-Encoding: chunked')],
    ['an expectation', head('GET / HTTP/1.1', 'Host: a', 'Expect: 100-continue')],
    ['an upgrade', head('GET / HTTP/1.1', 'Host: a', 'Connection: Upgrade', 'Upgrade: websocket')],
    ['another connection option', head('GET / HTTP/1.1', 'Host: a', 'Connection: X-A')],
    ['two connection options', head('GET / HTTP/1.1', 'Host: a', 'Connection: close, keep-alive')],
    ['two Connection fields', head('GET / HTTP/1.1', 'Host: a', 'Connection: close', 'Connection: close')],
    ['a connection option for proxies', head('GET / HTTP/1.1', 'Host: a', 'Proxy-Connection: close')],
    ['too many fields', head('GET / HTTP/1.1', 'Host: a', ...Array.from({ length: 10 }, () => 'A: b'))],
    ['a field that is too long', head('GET / HTTP/1.1', 'Host: a', `X: ${'b'.repeat(256)}`)],
    ['a request behind it', get('/a') + get('/b')],
    ['a body behind it', `${get('/a')}x\r\n\r\n`],
    ['an end that is not there yet', 'GET / HTTP/1.1\r\nHost: a\r\n'],
    ['an empty line before it', `\r\n${get('/')}`],
  ])('%s', (_what, text) => {
    expect(read(text)).toBeNull()
  })
})

it('looks at the ends of what came before it reads it', () => {
  const bytes = Buffer.from(get('/abcdef'))
  expect(mayBeHead(bytes, bytes.length, 1024)).toBe(true)
  expect(mayBeHead(bytes, bytes.length - 1, 1024)).toBe(false)
  expect(mayBeHead(bytes, bytes.length, bytes.length - 1)).toBe(false)
  const post = Buffer.from(head('POST /abcdef HTTP/1.1', 'Host: a'))
  expect(mayBeHead(post, post.length, 1024)).toBe(false)
})
