// How a request may be spelt, rightly and wrongly: every row is about bytes, and asks for what is stored where it can be
// read at all. What the bytes mean to the gateway is not told here; the lanes have to agree.

import { METHODS } from '../../../src/http/methods.ts'
import { SETTLED } from './pair.ts'
import { type Row, HOST, ask, bare, get, head, row, shown } from './rows.ts'

/** Twice: what can be read at all is in memory the second time. */
const named = (what: string, text: string, bytes: string): Row => row(`${what} ${shown(text)}`, bytes, SETTLED, bytes)

const LONG = 'a'.repeat(30_000)

// oxfmt-ignore
const TARGETS: readonly string[] = [
  '/plain', '//plain', '///plain', '/plain/', '/plain//', '//', '/', '/./plain', '/../plain', '/a/../plain',
  '/plain/.', '/plain/..', '/plain/...', '/.plain', '/..plain', '/plain..', '/%70lain', '/%50lain', '/pl%61in',
  '/pl%6', '/pl%', '/pl%zz', '/pl%6g', '/a%2fb', '/a%2Fb', '/a%5Cb', '/a%5cb', '/a\\b', '\\plain', '/%2e/plain',
  '/%2E%2e/plain', '/.%2e/x', '/%2e./x', '/..;x/y', '/.;x', '/%00', '/%0a', '/%0d%0a', '/%09', '/%7f', '/%20x',
  '/ plain', '/pla in', '/plain ', ' /plain', '/\tplain', '/plain\t', '/plain#f', '/plain#', '#', '/plain?#',
  '/plain?', '/plain??', '/plain?a', '/plain?a=b', '/plain?a=b&a=c', '/plain?a=b;c', '/plain?%', '/plain?%zz',
  '/plain?%00', '/plain?a=%20', '/plain?a=+', '/plain?a b', '/plain?a\tb', '/plain?a#b', '/plain?"<>', '/plain?{}|^`',
  '/plain?\\', '/plain?/../x', '/plain?http://x', '/"', '/<x>', '/{x}', '/|', '/^', '/`', '/a"b', '/~x',
  "/!$&'()*+,;=:@", '/%21', '/%7E', '/%7e', '/%41', '/%3A', '/%3a', '/%3F', '/%23', '/%25', '/%25%32%65', '/plain;v=1',
  '/a:b', '/\xe4', '/plain?\xe4', '/\xc3\xa4', '/%C3%A4', '/%c3%a4', '/%E4', '/%C0%AF', '/%ED%A0%80', '/%F0%9F%98%80',
  '/\x01', '/\x1f', '/\x7f', '/\x80', '/\x85', '/\xa0', '/\xff', '/plain\0', '/plain?\0', '/plain\x0b', '', '*', '*x',
  '/*', 'plain', 'plain/x', '?x', 'http://gateway.test/plain', 'HTTP://GATEWAY.TEST/plain', 'http://gateway.test',
  'http://gateway.test?x', 'http://gateway.test#x', 'http://gateway.test/', 'http://gateway.test:80/plain',
  'http://gateway.test:/plain', 'http://gateway.test:8080/plain', 'http://gateway.test./plain',
  'https://gateway.test/plain', 'http://other.test/plain', 'http://user@gateway.test/plain', 'http:///plain',
  'http:/plain', 'http:plain', 'http://', 'ftp://gateway.test/plain', 'file:///plain', '//gateway.test/plain',
  'gateway.test:80', 'gateway.test', '[::1]:80', '/http://gateway.test/plain', '/MARKER', '/Plain', '/health',
  '/health?x', '/health/', '//health', '/HEALTH', '/%68ealth', '/things/1', '/things/%31', '/things/', '/things',
  '/things//1', '/things/1/parts/2', '/things/a%20b', '/things/%2e', '/exact', '/exact/', '/exact?', '/few', '/few/',
  '/few?x', '/no_get/x', '/only_get/x', '/plain?secret=1&token=2&x=3', '/plain?SECRET=1', `/${LONG.slice(0, 8190)}`,
  `/${LONG.slice(0, 8191)}`, `/${LONG.slice(0, 8192)}`, `/${LONG.slice(0, 20_000)}`, `/plain?${LONG.slice(0, 8185)}`,
  `/plain?${LONG.slice(0, 8186)}`, `/${'%61'.repeat(2730)}`, `/${'%61'.repeat(2731)}`, `/${'/'.repeat(5000)}x`,
]

// oxfmt-ignore
const STRANGE_METHODS: readonly string[] = [
  'get', 'Get', 'head', 'GE', 'GETT', 'GETS', 'GE T', ' GET', '\tGET', 'GET ', 'GET\t', 'GET\0', 'G\xc9T', 'BREW',
  'TRACE', 'TRACK', 'CONNECT', 'PRI', 'PLAY', 'DESCRIBE', 'HEADS', 'HEA', 'H', '', '"GET"', 'GET/', 'GET:',
  'M-SEARCHX', LONG.slice(0, 40), LONG.slice(0, 20_000),
]

const METHOD_ROWS = [
  ...METHODS.map((method) => row(`method ${method}`, ask(method, '/plain'))),
  ...METHODS.filter((method) => method !== 'GET' && method !== 'HEAD').map((method) =>
    row(`method ${method} with an empty body`, ask(method, '/exact', 'Content-Length: 0')),
  ),
  ...STRANGE_METHODS.map((method) => named('method', method, ask(method, '/plain'))),
  ...['OPTIONS', 'HEAD', 'GET', 'POST', 'TRACE', 'CONNECT'].map((method) => row(`${method} *`, ask(method, '*'))),
  row('CONNECT with an authority', ask('CONNECT', 'gateway.test:80')),
  row('the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
  row('the beginning of TLS', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'),
  row('an answer', bare('HTTP/1.1 200 OK', HOST)),
  row('a PROXY line', `PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n${get('/plain')}`),
]

// oxfmt-ignore
const REQUEST_LINES: readonly string[] = [
  'GET /plain HTTP/1.0', 'GET /plain HTTP/0.9', 'GET /plain HTTP/1.2', 'GET /plain HTTP/1.9', 'GET /plain HTTP/2.0',
  'GET /plain HTTP/2', 'GET /plain HTTP/3.0', 'GET /plain HTTP/0.0', 'GET /plain HTTP/11.1', 'GET /plain HTTP/1.10',
  'GET /plain HTTP/1.11', 'GET /plain HTTP/1.', 'GET /plain HTTP/.1', 'GET /plain HTTP/1', 'GET /plain HTTP/',
  'GET /plain HTTP', 'GET /plain HTTP/1.1x', 'GET /plain HTTP/1.1 x', 'GET /plain HTTP/1.1 ', 'GET /plain HTTP/1.1\t',
  'GET /plain http/1.1', 'GET /plain Http/1.1', 'GET /plain HTTP/1,1', 'GET /plain HTTP /1.1', 'GET /plain HTTP/ 1.1',
  'GET /plain HTTP/1 .1', 'GET  /plain HTTP/1.1', 'GET /plain  HTTP/1.1', 'GET   /plain   HTTP/1.1',
  'GET\t/plain\tHTTP/1.1', 'GET\t/plain HTTP/1.1', 'GET /plain\tHTTP/1.1', 'GET /plain', 'GET', 'GET ', 'GET HTTP/1.1',
  'GET  HTTP/1.1', '/plain HTTP/1.1', 'GET/plain HTTP/1.1', 'GET /plainHTTP/1.1', 'GET /plain HTTP/1.1 HTTP/1.1',
  'GET /plain RTSP/1.0', 'GET /plain ICE/1.0', 'SOURCE /plain ICE/1.0', 'GET /plain HTTQ/1.1', 'GET /plain HTTP/1.1\0',
  'GET /plain HTTP/1.\xb1', 'GET /plain SHTTP/1.1', 'GET /plain HTTP/1.1;', 'GET\x0b/plain HTTP/1.1',
  'GET\xa0/plain HTTP/1.1', 'GET /plain\xa0HTTP/1.1', 'HEAD /plain HTTP/1.0', 'HEAD /plain HTTP/1.2', ' ', 'x', '\0',
  '',
]

const LINES = REQUEST_LINES.flatMap((line) => [
  named('line', line, bare(line, HOST)),
  named('line alone', line, `${line}\r\n\r\n`),
])

/** Lines in the place of a field. */
// oxfmt-ignore
const FIELDS: readonly string[] = [
  'X', 'X y', 'X:', 'X: ', 'X:\t', 'X:y', 'X: y', 'X:  y', 'X:\ty', 'X: y ', 'X: y\t', 'X: y \t ', 'X: y z', 'X: y\tz',
  'X : y', 'X\t: y', 'X\x0b: y', ' X: y', '\tX: y', ': y', ':', '::', 'X:: y', 'X: :', 'X: y: z', 'X\0: y', 'X: \0',
  'X: y\0z', 'X: \x01', 'X: y\x08', 'X: y\x0bz', 'X: y\x0cz', 'X: y\x1f', 'X: y\x7f', 'X: \x80', 'X: gr\xfc\xdfe',
  'X: \xff', 'X: \xa0y\xa0', 'X\xe4: y', '\xe4: y', 'X\x7f: y', 'X(y): z', 'X,y: z', 'X;y: z', 'X<y: z', 'X=y: z',
  'X?y: z', 'X@y: z', 'X[y]: z', 'X\\y: z', 'X{y}: z', '"X": y', 'X/y: z', "X!#$%&'*+-.^_`|~9: y", 'X y: z', 'X: y\rz',
  'X: y\nz', 'X: y\r', 'X: y\n', '\rX: y', '\nX: y', 'X:\r', 'X:\n', 'X\r: y', 'X\n: y', 'X: y\r\n z', 'X: y\r\n\tz',
  'X: y\r\n ', 'X: y\r\n\t', 'X:\r\n y', 'X\r\n: y', 'X: y\r\nz', ' ', '\t', 'X: y\r\r', 'X: y\n\n', 'X: y\n\r',
  '__proto__: y', 'constructor: y', 'prototype: y', 'hasOwnProperty: y', 'toString: y', 'X_y: z', 'x: y', 'COOKIE:',
  'Cookie: ', 'Authorization:', 'X: "', 'X: (', "X: '", 'X: \\', 'X: %0d%0a', 'X: ,', 'X: ;', 'X: =?utf-8?q?x?=',
  'GET /smuggled HTTP/1.1', 'HTTP/1.1 200 OK', 'Content-Type: text/plain', 'Content-Encoding: gzip', 'Date: x',
  'Via: 1.1 a', 'Via: 1.1 weirgate', 'Max-Forwards: 0', 'TE: trailers', 'TE: gzip', 'Trailer: X',
  'Keep-Alive: timeout=5', 'Proxy-Connection: keep-alive', 'Proxy-Authorization: Basic x', 'HTTP2-Settings: AAMAAABk',
  'Upgrade: h2c', 'Upgrade: websocket', 'Upgrade:', 'Sec-WebSocket-Key: x', 'Origin: null', 'Referer: /', 'From: a@b',
  'X-HTTP-Method-Override: DELETE', 'X-Original-URL: /x', 'Forwarded: for=192.0.2.1', 'X-Forwarded-For: 192.0.2.1',
  'X-Forwarded-Host: other.test', 'X-Forwarded-Proto: https', 'X-Request-Id: mine', 'X-Request-Id: ',
  'X-Process-Time: 1ms', 'Age: 5', 'X-Cache: HIT',
]

const FIELD_ROWS = FIELDS.flatMap((line) => [
  named('field', line, get('/plain', line)),
  named('first field', line, bare('GET /plain HTTP/1.1', line, HOST)),
])

/** What ends lines, and heads. */
const ENDS = ['\n', '\r', '\r\r\n', '\n\r', '\r\n\n', '\n\n', ' \r\n', '\t\r\n', '\0\r\n', '\r\n\0', ''].flatMap(
  (end) => [
    named('after the request line', end, `GET /plain HTTP/1.1${end}${HOST}\r\n\r\n`),
    named('after a field', end, `GET /plain HTTP/1.1\r\n${HOST}${end}X: y\r\n\r\n`),
    named('after the last field', end, `GET /plain HTTP/1.1\r\n${HOST}${end}\r\n`),
    named('for the empty line', end, `GET /plain HTTP/1.1\r\n${HOST}\r\n${end}`),
    named('all lines end with', end, ['GET /plain HTTP/1.1', HOST, '', ''].join(end)),
  ],
)

const BEFORE = [
  '\r\n',
  '\r\n\r\n',
  '\n',
  '\n\n',
  '\r',
  '\r\r\n',
  ' ',
  '\t',
  '\0',
  '\r\n ',
  '\xef\xbb\xbf',
  '\r\n'.repeat(50),
  '\r\n'.repeat(20_000),
  '0',
  '0\r\n',
  '0\r\n\r\n',
].flatMap((text) => [
  named('before a request', text, text + get('/plain')),
  row(`between requests ${shown(text)}`, get('/plain'), text + get('/plain')),
])

const AFTER = [
  '\r\n',
  '\n',
  '\r',
  ' ',
  '\0',
  'x',
  'GET',
  'GET ',
  'G',
  '\r\n\r\n',
  '\r\n'.repeat(20),
  'garbage\r\n\r\n',
  '{}',
  '\xff\xfe',
].flatMap((text) => [
  named('after a request', text, get('/plain') + text),
  row(`after a request, apart ${shown(text)}`, get('/plain'), text),
])

// oxfmt-ignore
const HOSTS: readonly (readonly string[])[] = [
  [], ['Host:'], ['Host: '], ['Host:gateway.test'], ['Host:  gateway.test'], ['Host:\tgateway.test'],
  ['Host: gateway.test '], ['Host: gateway.test\t'], ['host: gateway.test'], ['HOST: gateway.test'],
  ['hOsT: gateway.test'], ['Host: GATEWAY.TEST'], ['Host: gateway.test:80'], ['Host: gateway.test:'],
  ['Host: gateway.test:8080'], ['Host: gateway.test:0'], ['Host: gateway.test:080'], ['Host: gateway.test:65535'],
  ['Host: gateway.test:65536'], ['Host: gateway.test:99999'], ['Host: gateway.test:x'], ['Host: gateway.test:443'],
  ['Host: gateway.test.'], ['Host: gateway.test..'], ['Host: .gateway.test'], ['Host: gateway..test'], ['Host: .'],
  ['Host: -'], ['Host: _x'], ['Host: a_b.test'], ['Host: other.test'], ['Host: api.gateway.test'],
  ['Host: API.gateway.test:80'], ['Host: x.api.gateway.test'], ['Host: 127.0.0.1'], ['Host: 127.1'],
  ['Host: 2130706433'], ['Host: [::1]'], ['Host: [::1]:80'], ['Host: [::ffff:127.0.0.1]'], ['Host: [::1'],
  ['Host: ::1'], ['Host: [x]'], ['Host: [fe80::1%25eth0]'], ['Host: user@gateway.test'], ['Host: gateway.test/x'],
  ['Host: gateway.test?x'], ['Host: gateway.test#x'], ['Host: gateway .test'], ['Host: gateway.test, other.test'],
  ['Host: gateway.test,gateway.test'], ['Host: gateway%2etest'], ['Host: gateway\xe4.test'], ['Host: "gateway.test"'],
  ['Host: gateway.test\\x'], ['Host: http://gateway.test'], ['Host: *'], [`Host: ${LONG.slice(0, 254)}`],
  [`Host: ${LONG.slice(0, 255)}`], [`Host: ${LONG.slice(0, 5000)}`], [HOST, HOST], [HOST, 'host: gateway.test'],
  [HOST, 'Host: other.test'], ['Host: other.test', HOST], [HOST, 'Host:'], ['Host:', HOST],
  [HOST, 'Host : gateway.test'], [HOST, 'Hosts: gateway.test'], ['Hos: gateway.test'], [HOST, 'X-Host: other.test'],
  ['X: y', HOST, 'Z: y'],
]

const HOST_ROWS = [
  ...HOSTS.map((fields) => named('host', fields.join(' + '), bare('GET /plain HTTP/1.1', ...fields))),
  ...HOSTS.slice(0, 4).map((fields) =>
    named('host in HTTP/1.0', fields.join(' + '), bare('GET /plain HTTP/1.0', ...fields)),
  ),
  row(
    'hosts in turn',
    ...['gateway.test', 'api.gateway.test', 'GATEWAY.test', 'other.test', 'gateway.test:80', 'gateway.test'].map(
      (name) => bare('GET /plain HTTP/1.1', `Host: ${name}`),
    ),
  ),
  row('an absolute target and another Host', bare('GET http://gateway.test/plain HTTP/1.1', 'Host: other.test')),
  row('an absolute target and no Host', bare('GET http://gateway.test/plain HTTP/1.1')),
]

/** Fields by which a message has a body, with the body. */
// oxfmt-ignore
const FRAMINGS: readonly (readonly [fields: readonly string[], body: string])[] = [
  [['Content-Length: 0'], ''], [['Content-Length: 00'], ''], [['Content-Length: +0'], ''],
  [['Content-Length: -0'], ''], [['Content-Length: 0x0'], ''], [['Content-Length:'], ''], [['Content-Length: '], ''],
  [['Content-Length: x'], ''], [['Content-Length: 0,0'], ''], [['Content-Length: 0, 0'], ''],
  [['Content-Length: 0 0'], ''], [['Content-Length: 0;'], ''], [['Content-Length: 0', 'Content-Length: 0'], ''],
  [['content-length: 0', 'CONTENT-LENGTH: 0'], ''], [['Content-Length: 0', 'Content-Length: 5'], 'hello'],
  [['Content-Length: 5', 'Content-Length: 0'], 'hello'], [['Content-Length: 5'], 'hello'],
  [['Content-Length: 5'], 'hel'], [['Content-Length: 5'], ''], [['Content-Length: 5'], 'hello world'],
  [['Content-Length: 05'], 'hello'], [['Content-Length: 5.0'], 'hello'], [['Content-Length: 5e0'], 'hello'],
  [['Content-Length: 18446744073709551616'], ''], [['Content-Length: 9007199254740993'], ''],
  [['Content-Length : 5'], 'hello'], [['Content-Length\t: 5'], 'hello'], [[' Content-Length: 5'], 'hello'],
  [['Content_Length: 5'], 'hello'], [['Content-Length:5'], 'hello'], [['Content-Length: 5 '], 'hello'],
  [['X-Content-Length: 5'], ''], [['Transfer-Encoding: chunked'], '0\r\n\r\n'],
  [['Transfer-Encoding: chunked'], '5\r\nhello\r\n0\r\n\r\n'], [['Transfer-Encoding: chunked'], '5\r\nhel'],
  [['Transfer-Encoding: chunked'], ''], [['Transfer-Encoding: chunked'], '0\r\nX: y\r\n\r\n'],
  [['Transfer-Encoding: Chunked'], '0\r\n\r\n'], [['Transfer-Encoding:chunked '], '0\r\n\r\n'],
  [['Transfer-Encoding: identity'], ''], [['Transfer-Encoding: gzip'], ''], [['Transfer-Encoding:'], ''],
  [['Transfer-Encoding: gzip, chunked'], '0\r\n\r\n'], [['Transfer-Encoding: chunked, chunked'], '0\r\n\r\n'],
  [['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'], '0\r\n\r\n'],
  [['Transfer-Encoding: xchunked'], '0\r\n\r\n'], [['Transfer-Encoding: "chunked"'], '0\r\n\r\n'],
  [['Transfer-Encoding: \x0bchunked'], '0\r\n\r\n'], [['Transfer-Encoding : chunked'], '0\r\n\r\n'],
  [['Transfer-Encoding: chunked', 'Content-Length: 0'], '0\r\n\r\n'],
  [['Content-Length: 5', 'Transfer-Encoding: chunked'], '0\r\n\r\n'], [['Transfer_Encoding: chunked'], '0\r\n\r\n'],
  [['X-Transfer-Encoding: chunked'], ''], [['TE: chunked'], ''], [['Transfer-Encodin: chunked'], ''],
]

const FRAMING_ROWS = FRAMINGS.flatMap(([fields, body]) => {
  const what = `${fields.join(' + ')} and ${shown(body)}`
  return [
    row(`GET with ${what}`, get('/plain', ...fields) + body),
    row(`HEAD with ${what}`, head('/plain', ...fields) + body),
    row(`POST with ${what}`, ask('POST', '/exact', ...fields) + body),
    row(`HTTP/1.0 with ${what}`, bare('GET /plain HTTP/1.0', HOST, ...fields) + body),
  ]
})

// oxfmt-ignore
const CONNECTIONS: readonly (readonly string[])[] = [
  ['Connection: keep-alive'], ['Connection: Keep-Alive'], ['Connection: KEEP-ALIVE'], ['connection: keep-alive'],
  ['Connection:keep-alive'], ['Connection: keep-alive '], ['Connection: close'], ['Connection: Close'],
  ['CONNECTION: CLOSE'], ['Connection: close '], ['Connection:\tclose'], ['Connection:'], ['Connection: ,'],
  ['Connection: close, keep-alive'], ['Connection: keep-alive, close'], ['Connection: keep-alive,close'],
  ['Connection: close,'], ['Connection: ,close'], ['Connection: close;x'], ['Connection: closed'],
  ['Connection: xclose'], ['Connection: "close"'], ['Connection: close keep-alive'], ['Connection: close\x80'],
  ['Connection: keep-alive', 'Connection: close'], ['Connection: close', 'Connection: keep-alive'],
  ['Connection: close', 'Connection: close'], ['Connection: keep-alive', 'Connection: keep-alive'], ['Connection: x'],
  ['Connection: X-Hop', 'X-Hop: 1'], ['Connection: close, X-Hop', 'X-Hop: 1'],
  ['Connection: Accept-Language', 'Accept-Language: de'], ['Connection: Host'], ['Connection: Cookie', 'Cookie: a=1'],
  ['Connection: Authorization', 'Authorization: x'], ['Connection: Upgrade'],
  ['Connection: Upgrade', 'Upgrade: websocket'], ['Connection: Upgrade', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABk'],
  ['Connection: upgrade, close', 'Upgrade: h2c'], ['Upgrade: websocket'],
  ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version: 13'],
  ['Connection: te', 'TE: trailers'], ['Connection: Keep-Alive', 'Keep-Alive: timeout=1, max=1'],
  ['Keep-Alive: timeout=1'], ['Proxy-Connection: close'], ['Proxy-Connection: keep-alive'], ['Connection : close'],
  ['X-Connection: close'], ['Expect: 100-continue'], ['Expect: 100-Continue'], ['Expect:'], ['Expect: 200-ok'],
  ['Expect: 100-continue, x'], ['Expect: 100-continue', 'Content-Length: 0'],
  ['Expect: 100-continue', 'Content-Length: 5'], ['Expect: 100-continue', 'Transfer-Encoding: chunked'],
  ['Expect: 100-continue', 'Connection: close'],
]

const CONNECTION_ROWS = CONNECTIONS.flatMap((fields) => {
  const what = fields.join(' + ')
  return [
    row(`GET with ${what}`, get('/plain', ...fields)),
    row(`HTTP/1.0 with ${what}`, bare('GET /plain HTTP/1.0', HOST, ...fields)),
    row(`a miss with ${what}`, get(`/never/${encodeURIComponent(what)}`, ...fields)),
  ]
})

const tiny = (count: number) => Array.from({ length: count }, (_, i) => `a${i % 10}:`)

const SIZES = [
  ...[97, 98, 99, 100, 101, 500, 2000].map((count) => row(`${count} fields`, get('/plain', ...tiny(count)))),
  ...[8189, 8190, 8191, 8192, 8193].map((bytes) =>
    row(`a field with a value of ${bytes}`, get('/plain', `X: ${LONG.slice(0, bytes)}`)),
  ),
  ...[8190, 8191, 8192].map((bytes) => row(`a name of ${bytes}`, get('/plain', `${LONG.slice(0, bytes)}: x`))),
  ...[16_100, 16_200, ...Array.from({ length: 80 }, (_, i) => 16_340 + i), 17_000, 20_000].map((bytes) => {
    const fields = [`A: ${LONG.slice(0, 7000)}`, `B: ${LONG.slice(0, 7000)}`]
    const rest = get('/plain', ...fields, 'C: ').length
    return row(`a head of ${bytes}`, get('/plain', ...fields, `C: ${LONG.slice(0, bytes - rest)}`))
  }),
  row('a field of blanks', get('/plain', `X: ${' '.repeat(8000)}y`)),
  row('a field of blanks, at its end', get('/plain', `X: y${' '.repeat(9000)}`)),
  row('4,000 fields that are hardly bytes', get('/plain', ...tiny(4000))),
  row('cookies of 4 KiB', get('/plain', `Cookie: a=${LONG.slice(0, 4096)}`)),
  row(
    'large heads in turn',
    ...[4000, 4100, 8000, 4100, 100].map((bytes) => get('/plain', `X: ${LONG.slice(0, bytes)}`)),
  ),
]

export const SYNTAX: Readonly<Record<string, readonly Row[]>> = {
  targets: [
    ...TARGETS.flatMap((target) => [named('GET', target, get(target)), named('HEAD', target, head(target))]),
    // Where the query makes no difference, so that any of them would be answered from memory.
    ...TARGETS.filter((target) => target.startsWith('/plain?')).map((target) =>
      named('GET', `/only${target}`, get(`/only${target}`)),
    ),
  ],
  methods: METHOD_ROWS,
  lines: LINES,
  fields: FIELD_ROWS,
  ends: ENDS,
  before: BEFORE,
  after: AFTER,
  hosts: HOST_ROWS,
  framings: FRAMING_ROWS,
  connections: CONNECTION_ROWS,
  sizes: SIZES,
}

/** A whole request around one byte; what it asks for is in memory, once it has been asked for. */
export const SWEEPS: Readonly<Record<string, (byte: string) => string>> = {
  'in the method': (byte) => `GE${byte}T /plain HTTP/1.1\r\n${HOST}\r\n\r\n`,
  'after the method': (byte) => `GET${byte}/plain HTTP/1.1\r\n${HOST}\r\n\r\n`,
  'in the path': (byte) => get(`/pl${byte}in`),
  'after the path': (byte) => `GET /plain${byte}HTTP/1.1\r\n${HOST}\r\n\r\n`,
  'in the query': (byte) => get(`/only/plain?z${byte}y`),
  'in an escape': (byte) => get(`/pl%6${byte}in`),
  'in the version': (byte) => `GET /plain HTTP/1${byte}1\r\n${HOST}\r\n\r\n`,
  'after the version': (byte) => `GET /plain HTTP/1.1${byte}\r\n${HOST}\r\n\r\n`,
  'before a field': (byte) => get('/plain', `${byte}X: y`),
  'in a name': (byte) => get('/plain', `X${byte}Y: z`),
  'before the colon': (byte) => get('/plain', `X${byte}: y`),
  'after the colon': (byte) => get('/plain', `X:${byte}y`),
  'in a value': (byte) => get('/plain', `X: y${byte}z`),
  'after a value': (byte) => get('/plain', `X: y${byte}`),
  'in the place of CR': (byte) => `GET /plain HTTP/1.1\r\n${HOST}${byte}\nX: y\r\n\r\n`,
  'in the place of LF': (byte) => `GET /plain HTTP/1.1\r\n${HOST}\r${byte}X: y\r\n\r\n`,
  'in the place of the last CR': (byte) => `GET /plain HTTP/1.1\r\n${HOST}\r\n${byte}\n`,
  'in the place of the last LF': (byte) => `GET /plain HTTP/1.1\r\n${HOST}\r\n\r${byte}`,
  'in the host': (byte) => bare('GET /plain HTTP/1.1', `Host: gate${byte}way.test`),
  'after the host': (byte) => bare('GET /plain HTTP/1.1', `Host: gateway.test${byte}`),
  'in Connection': (byte) => get('/plain', `Connection: close${byte}`),
  'before a request': (byte) => byte + get('/plain'),
  'after a request': (byte) => get('/plain') + byte,
}
