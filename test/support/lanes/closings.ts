// What happens on one connection besides single requests: several at once, pieces, misses and bodies in between, and all
// the ways in which either side may end it.

import { FINISHED, SETTLED, type Step, act } from './pair.ts'
import { type Row, HOST, ask, bare, get, head, inTurn, post, row } from './rows.ts'

const HIT = get('/plain')
const BIG = get('/large')
const LAST = get('/plain', 'Connection: close')
const LAST_OLD = bare('GET /plain HTTP/1.0', HOST)
const miss = (name: string) => get(`/missed/${name}`)
const refused = get('/a/../b')
const malformed = get('/plain', 'X : y')
const chunked = `${ask('POST', '/exact', 'Transfer-Encoding: chunked')}5\r\nhello\r\n0\r\n\r\n`
const never = get('/no-store')

/** All that may come before, between and after others, by name. */
const KINDS: Readonly<Record<string, string>> = {
  hit: HIT,
  'coded hit': get('/json', 'Accept-Encoding: br'),
  'large hit': BIG,
  HEAD: head('/plain'),
  304: get('/etag', 'If-None-Match: "one"'),
  part: get('/etag', 'Range: bytes=0-1'),
  'limited hit': get('/burst/plain', 'X-Client: piped'),
  miss: never,
  POST: post('/exact', 'hello'),
  'chunked POST': chunked,
  'empty POST': ask('POST', '/exact', 'Content-Length: 0'),
  'POST without a length': ask('POST', '/exact'),
  'POST that is not for its route': post('/only_get/x', 'hello'),
  'POST with an expectation': `${ask('POST', '/exact', 'Expect: 100-continue', 'Content-Length: 5')}hello`,
  'POST that is too large': post('/uncached/x', 'x'.repeat(200)),
  404: get('/things/'),
  405: ask('PUT', '/only_get/x'),
  416: get('/etag', 'Range: bytes=900-'),
  429: get('/dear/plain', 'X-Client: piped'),
  'stored 404': get('/missing'),
  204: get('/nothing'),
  401: get('/authed/plain'),
  'OPTIONS *': ask('OPTIONS', '*'),
  TRACE: ask('TRACE', '/plain'),
  'offer to upgrade': get('/plain', 'Connection: Upgrade', 'Upgrade: h2c'),
  'GET with an empty body': get('/plain', 'Content-Length: 0'),
  'GET of HTTP/1.0': LAST_OLD,
  'last GET': LAST,
  'refused target': refused,
  'malformed field': malformed,
  'GET with a body': `${get('/plain', 'Content-Length: 5')}hello`,
  'unknown method': ask('BREW', '/plain'),
  CONNECT: ask('CONNECT', 'gateway.test:80'),
  health: get('/health'),
}

const kinds = Object.entries(KINDS)
const others = kinds.filter(([name]) => name !== 'hit')

const TOGETHER: readonly Row[] = [
  ...kinds.flatMap(([name, bytes]) => [
    row(`${name} in one packet with a hit`, bytes + HIT),
    row(`a hit in one packet with ${name}`, HIT + bytes),
    row(`${name} between hits in one packet`, HIT + bytes + HIT),
    row(`${name} twice in one packet`, bytes + bytes),
    row(`${name}, then a hit apart`, bytes, HIT),
    row(`${name} and the beginning of a hit`, bytes + HIT.slice(0, 20), HIT.slice(20)),
    row(`a hit, answered, then ${name}, answered, then a hit`, HIT, SETTLED, bytes, SETTLED, HIT, SETTLED, HIT),
    row(`${name} and half a head, then nothing`, bytes + HIT.slice(0, 30), FINISHED),
  ]),
  ...kinds.map(([name, bytes]) =>
    row(`${name} twice in one packet, a hit, then garbage`, bytes + bytes, HIT, 'garbage\r\n\r\n'),
  ),
  ...kinds.map(([name, bytes]) =>
    row(`${name}, answered, then garbage`, bytes, SETTLED, 'garbage\r\n\r\n', SETTLED, HIT),
  ),
  ...kinds.map(([name, bytes]) =>
    row(`${name}, last of all`, bytes.replace(HOST, `${HOST}\r\nConnection: close`), SETTLED, HIT),
  ),
  ...[2, 3, 10, 99, 100, 101, 102, 150].map((count) => row(`${count} hits in one packet`, HIT.repeat(count))),
  ...[2, 10, 50].map((count) => row(`${count} hits in as many packets`, ...Array.from({ length: count }, () => HIT))),
  ...[2, 10].map((count) => row(`${count} misses in one packet`, never.repeat(count))),
  row('large hits in one packet', BIG.repeat(10)),
  row('large hits in as many packets', ...Array.from({ length: 10 }, () => BIG)),
  row('huge hits in as many packets', get('/huge'), get('/huge'), HIT, get('/huge'), HIT),
  row('hits behind a huge one', get('/huge') + HIT + HIT),
  row('hits behind a huge one, apart', get('/huge'), HIT, HIT, never, HIT),
  row(
    'all kinds in one packet',
    kinds
      .slice(0, 20)
      .map(([, bytes]) => bytes)
      .join(''),
  ),
  inTurn(
    'all kinds in turn',
    kinds.slice(0, 20).flatMap(([, bytes]) => [bytes, HIT]),
  ),
  row('all kinds without waiting', ...kinds.slice(0, 20).flatMap(([, bytes]) => [bytes, HIT])),
  row(
    'misses and hits without waiting',
    ...Array.from({ length: 10 }, (_, i) => [miss(`a${i}`), HIT, miss(`a${i}`)]).flat(),
  ),
  row(
    'a slow body between hits',
    HIT,
    SETTLED,
    ask('POST', '/exact', 'Content-Length: 5'),
    SETTLED,
    'he',
    SETTLED,
    'llo',
    SETTLED,
    HIT,
  ),
  row(
    'a slow chunked body between hits',
    HIT,
    SETTLED,
    ask('POST', '/exact', 'Transfer-Encoding: chunked'),
    SETTLED,
    '5\r\nhe',
    SETTLED,
    'llo\r\n',
    SETTLED,
    '0\r\n',
    SETTLED,
    'X: y\r\n\r\n',
    SETTLED,
    HIT,
  ),
  row('a body that looks like a hit', ask('POST', '/exact', `Content-Length: ${HIT.length}`), HIT, SETTLED, HIT),
  row(
    'a body that looks like a hit, to a POST that is answered early',
    ask('POST', '/only_get/x', `Content-Length: ${HIT.length}`),
    SETTLED,
    HIT,
    SETTLED,
    HIT,
  ),
  row(
    'a body that looks like two hits, announced as one',
    ask('POST', '/exact', `Content-Length: ${HIT.length}`),
    HIT + HIT,
  ),
  row(
    'a chunked body that looks like a hit',
    ask('POST', '/exact', 'Transfer-Encoding: chunked'),
    `${HIT.length.toString(16)}\r\n`,
    HIT,
    '\r\n0\r\n\r\n',
    HIT,
  ),
  row(
    'a chunk, then a hit in the place of the next',
    ask('POST', '/exact', 'Transfer-Encoding: chunked'),
    '5\r\nhello\r\n',
    HIT,
  ),
  row('a trailer that looks like a hit', ask('POST', '/exact', 'Transfer-Encoding: chunked'), '0\r\n', HIT),
  row('the end of chunks together with a hit', ask('POST', '/exact', 'Transfer-Encoding: chunked'), `0\r\n\r\n${HIT}`),
  row(
    'an expected body that does not come',
    ask('POST', '/exact', 'Expect: 100-continue', 'Content-Length: 5'),
    SETTLED,
    HIT,
  ),
  row(
    'an expected body that is refused',
    ask('POST', '/only_get/x', 'Expect: 100-continue', 'Content-Length: 5'),
    SETTLED,
    HIT,
  ),
  row('a body of GET that is refused, apart', get('/plain', 'Content-Length: 5'), SETTLED, 'hello', SETTLED, HIT),
  row('a body in the place of a request', HIT, SETTLED, 'hello', SETTLED, HIT),
  row('a CRLF too much after a body', `${post('/exact', 'hello')}\r\n`, SETTLED, HIT),
  row('a CRLF too much, apart', post('/exact', 'hello'), SETTLED, '\r\n', SETTLED, HIT),
  row('CRLFs between hits', HIT, SETTLED, '\r\n', SETTLED, HIT, SETTLED, '\r\n\r\n', HIT),
  row('a CR, then a hit', HIT, SETTLED, '\r', SETTLED, HIT),
  row('a LF, then a hit', HIT, SETTLED, '\n', SETTLED, HIT),
  row('the last byte of a miss late', HIT, SETTLED, never.slice(0, -1), SETTLED, never.slice(-1), SETTLED, HIT),
  row('the last byte of a hit late', HIT, SETTLED, HIT.slice(0, -1), SETTLED, HIT.slice(-1), SETTLED, HIT),
  row('the last two bytes of a hit late', HIT, SETTLED, HIT.slice(0, -2), SETTLED, HIT.slice(-2), SETTLED, HIT),
  row('a head that ends with another head', HIT.slice(0, -2), SETTLED, HIT, SETTLED, HIT),
  row('a head in a head, cut before a line', HIT.slice(0, HIT.indexOf('\r\n') + 2), SETTLED, HIT, SETTLED, HIT),
  row('a request line, then a whole hit', 'GET /plain HTTP/1.1\r\nHost: other.test\r\nX: ', SETTLED, HIT, SETTLED, HIT),
  row('half a method, then a hit', HIT, SETTLED, 'G', SETTLED, HIT),
  row('half a method, then the rest', 'G', SETTLED, HIT.slice(1), SETTLED, HIT),
  row('bytes one by one', HIT, SETTLED, ...HIT.split(''), SETTLED, HIT),
]

/** What a client sends before it ends its side, or at the same moment. */
const ENDED: readonly Row[] = [
  row('an end without a byte', FINISHED),
  row('an end after an answer', HIT, SETTLED, FINISHED),
  ...kinds.flatMap(([name, bytes]) => [
    row(`an end behind ${name}`, bytes, FINISHED),
    row(`an end behind ${name}, after a hit`, HIT, SETTLED, bytes, FINISHED),
    row(`an end behind ${name}, with a hit before it`, HIT + bytes, FINISHED),
    row(`an end behind a hit, after ${name}`, bytes, SETTLED, HIT, FINISHED),
  ]),
  ...[1, 3, 4, 10, 19, 21, 40, HIT.length - 2, HIT.length - 1].map((at) =>
    row(`an end after ${at} bytes`, HIT.slice(0, at), FINISHED),
  ),
  ...[1, 10, HIT.length - 1].map((at) =>
    row(`an end after a hit and ${at} bytes`, HIT, SETTLED, HIT.slice(0, at), FINISHED),
  ),
  row('an end in a body', ask('POST', '/exact', 'Content-Length: 5') + 'he', SETTLED, FINISHED),
  row('an end behind a huge hit', get('/huge'), FINISHED),
  row('an end behind hits', HIT, HIT, HIT, FINISHED),
  row('an end behind hits in one packet', HIT.repeat(3), FINISHED),
]

const CHANGED: readonly Row[] = [
  row(
    'a reload between two requests',
    HIT,
    SETTLED,
    act(({ gateway }) => gateway.reload()),
    HIT,
    SETTLED,
    never,
    SETTLED,
    HIT,
  ),
  ...others.slice(0, 8).map(([name, bytes]) =>
    row(
      `a purge between two of ${name}`,
      bytes,
      SETTLED,
      act(({ gateway }) => gateway.purge({ prefix: '/plain' })),
      bytes,
      SETTLED,
      bytes,
    ),
  ),
]

export const CLOSINGS: Readonly<Record<string, readonly Row[]>> = {
  together: TOGETHER,
  ended: ENDED,
  changed: CHANGED,
}

/** Requests that are sent in two pieces, cut at every byte. */
export const CUT: Readonly<Record<string, string>> = {
  'a hit': HIT,
  'a hit with fields': get('/etag', 'Accept: */*', 'If-None-Match: "x", "one"', 'Accept-Encoding: br, gzip'),
  'HEAD of a hit': head('/plain', 'User-Agent: x'),
  'a limited hit': get('/few/plain', 'X-Client: cut'),
  'a miss': never,
  'a POST': post('/exact', 'hello'),
  'a chunked POST': chunked,
  'a GET with an empty body': get('/plain', 'Content-Length: 0'),
  'two hits': HIT + HIT,
  'a miss and a hit': never + HIT,
  'a POST and a hit': post('/exact', 'hello') + HIT,
  'a 404': get('/things/'),
  health: get('/health'),
  'a part': get('/etag', 'Range: bytes=0-1'),
}

/** The same, where each needs a connection of its own. */
export const CUT_AND_CLOSED: Readonly<Record<string, string>> = {
  'a last hit': LAST,
  'a GET of HTTP/1.0': LAST_OLD,
  'a refused target': refused,
  'a malformed field': malformed,
  'a bare LF': `GET /plain HTTP/1.1\r\n${HOST}\n\r\n`,
  'a hit and garbage': `${HIT}garbage\r\n\r\n`,
}

/** The row that sends the request again and again, each time cut at the next byte. */
export const cutEverywhere = (name: string, bytes: string): Row => ({
  name,
  steps: Array.from({ length: bytes.length - 1 }, (_, i): Step[] => [
    bytes.slice(0, i + 1),
    bytes.slice(i + 1),
    SETTLED,
  ]).flat(),
})
