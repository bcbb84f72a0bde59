// What is stored, and asked for in every way that is well spelt: whole, by condition, in part, in a coding, as a variant,
// as the client wishes it; and while it grows old, is purged and fails. Requests of one row come one after the other on one
// connection, so that most of them are answered from memory.

import type { PurgeRequest } from '../../../src/core/control.ts'
import { act, move } from './pair.ts'
import { type Row, ask, get, head, inTurn, post, row } from './rows.ts'
import { RESOURCES, SMALL } from './table.ts'

const MODIFIED = 'Sun, 01 Feb 2026 12:00:00 GMT'
const EARLIER = 'Sat, 31 Jan 2026 12:00:00 GMT'
const LATER = 'Sun, 01 Mar 2026 11:59:57 GMT'

const PLAIN = [
  ...Object.keys(RESOURCES).map((path) =>
    inTurn(`what is stored: ${path}`, [get(path), get(path), head(path), get(path)]),
  ),
  inTurn(
    'HEAD before GET',
    ['/plain', '/etag', '/json', '/missing'].flatMap((path) => [
      head(`${path}?h`),
      head(`${path}?h`),
      get(`${path}?h`),
      head(`${path}?h`),
    ]),
  ),
  inTurn(
    'a client that sends the same again and again',
    Array.from({ length: 30 }, () => get('/plain', 'User-Agent: curl/8', 'Accept: */*')),
  ),
  inTurn(
    'a client that sends other fields each time',
    Array.from({ length: 30 }, (_, i) => get('/plain', `X-Turn: ${i % 7}`, ...(i % 3 === 0 ? ['Accept: */*'] : []))),
  ),
  inTurn(
    'a browser',
    SMALL.slice(0, 20).map((path) =>
      get(
        path,
        'Connection: keep-alive',
        'sec-ch-ua: "Chromium";v="140"',
        'User-Agent: Mozilla/5.0 (X11; Linux x86_64)',
        'Accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8',
        'Accept-Encoding: gzip, deflate, br, zstd',
        'Accept-Language: de-DE,de;q=0.9',
      ),
    ),
  ),
  inTurn(
    'queries',
    ['?', '?a', '?a=1', '?a=1&b=2', '?b=2&a=1', '?a=1&a=1', '?a=%31', '?A=1', '?a=1#', '??', '?a=1&'].flatMap(
      (query) => [get(`/unsaid${query}`), get(`/unsaid${query}`)],
    ),
  ),
]

// oxfmt-ignore
const CONDITIONS: readonly (readonly string[])[] = [
  ['If-None-Match: "one"'], ['If-None-Match: W/"one"'], ['If-None-Match: "two"'],
  ['If-None-Match: "one", "two", W/"three"'], ['If-None-Match: "x","one"'],
  ['If-None-Match: "x"', 'If-None-Match: "one"'], ['If-None-Match: *'], ['If-None-Match: one'],
  ['If-None-Match: unquoted'], ['If-None-Match:'], ['If-None-Match: "on'], ['If-None-Match: ,'],
  ['If-None-Match: "json"'], ['If-None-Match: W/"json"'], ['If-None-Match: W/"three"'], ['If-None-Match: "three"'],
  ['If-None-Match: "empty"'], ['If-None-Match: "missing"'], ['if-none-match: "one"'],
  [`If-Modified-Since: ${MODIFIED}`], [`If-Modified-Since: ${EARLIER}`], [`If-Modified-Since: ${LATER}`],
  ['If-Modified-Since: yesterday'], ['If-Modified-Since:'], ['If-Modified-Since: Sunday, 01-Feb-26 12:00:00 GMT'],
  ['If-Modified-Since: Sun Feb  1 12:00:00 2026'],
  [`If-Modified-Since: ${MODIFIED}`, `If-Modified-Since: ${MODIFIED}`],
  ['If-None-Match: "x"', `If-Modified-Since: ${LATER}`], ['If-None-Match: "one"', `If-Modified-Since: ${EARLIER}`],
  ['If-Match: "one"'], ['If-Match: "x"'], ['If-Match: *'], [`If-Unmodified-Since: ${EARLIER}`],
  [`If-Unmodified-Since: ${LATER}`], ['If-Range: "one"'], ['If-None-Match: "one"', 'Range: bytes=0-3'],
]

// oxfmt-ignore
const CONDITIONED = [
  '/etag', '/tag-only', '/weak', '/odd-tag', '/dated', '/undated', '/json', '/text', '/empty', '/nothing', '/missing',
  '/moved', '/other', '/choices', '/odd', '/no-cache', '/language',
]
const CODED_AS_BR = 'Accept-Encoding: br'

const CONDITIONAL = [
  ...CONDITIONED.map((path) =>
    inTurn(`conditions on ${path}`, [get(path), ...CONDITIONS.map((fields) => get(path, ...fields))]),
  ),
  ...['/etag', '/json'].flatMap((path) => [
    inTurn(
      `conditions of HEAD on ${path}`,
      CONDITIONS.map((fields) => head(path, ...fields)),
    ),
    inTurn(
      `conditions on ${path} in a coding`,
      CONDITIONS.map((fields) => get(path, CODED_AS_BR, ...fields)),
    ),
  ]),
]

// oxfmt-ignore
const RANGES: readonly (readonly string[])[] = [
  ['Range: bytes=0-0'], ['Range: bytes=0-3'], ['Range: bytes=2-'], ['Range: bytes=-3'], ['Range: bytes=0-'],
  ['Range: bytes=5-2'], ['Range: bytes=1000000-'], ['Range: bytes=-0'], ['Range: bytes=0-1000000'],
  ['Range: bytes=0-1,3-4'], ['Range: bytes=0-1, 3-4, 6-6'], ['Range: bytes=0-4,2-8'], ['Range: bytes=0-0,-1'],
  ['Range: bytes='], ['Range: bytes=x'], ['Range: bytes=-'], ['Range: lines=0-3'], ['Range: 0-3'], ['Range:'],
  ['Range: BYTES=0-3'], ['Range: bytes = 0-3'], ['Range: bytes=0-1', 'Range: bytes=3-4'], ['range: bytes=0-3'],
  ['Range: bytes=0-3', 'If-Range: "one"'], ['Range: bytes=0-3', 'If-Range: "x"'],
  ['Range: bytes=0-3', 'If-Range: W/"one"'], ['Range: bytes=0-3', `If-Range: ${MODIFIED}`],
  ['Range: bytes=0-3', `If-Range: ${EARLIER}`], ['Range: bytes=0-3', 'If-Range:'],
  ['Range: bytes=0-3', 'If-None-Match: "one"'], ['Range: bytes=0-3', `If-Modified-Since: ${LATER}`],
  ['Range: bytes=0-3', 'Accept-Encoding: br'], ['Range: bytes=99999999999999999999-'],
  [`Range: bytes=${Array.from({ length: 17 }, (_, i) => `${i * 3}-${i * 3}`).join(',')}`], ['If-Range: "one"'],
]

const PARTED = ['/etag', '/plain', '/dated', '/weak', '/json', '/text', '/empty', '/missing', '/large', '/odd']

const PARTS = [
  ...PARTED.map((path) => inTurn(`parts of ${path}`, [get(path), ...RANGES.map((fields) => get(path, ...fields))])),
  inTurn(
    'parts that HEAD asks for',
    RANGES.map((fields) => head('/etag', ...fields)),
  ),
]

// oxfmt-ignore
const CODINGS = [
  'br', 'gzip', 'zstd', 'x-gzip', 'deflate', 'identity', '*', '', ' ', ',', 'gzip, deflate, br, zstd', 'zstd, gzip',
  'br;q=0', 'br;q=0, gzip', '*;q=0', 'identity;q=0', 'identity;q=0, *;q=0', 'gzip;q=0.5, br;q=0.1', 'gzip;q=1.0',
  'gzip;q=2', 'gzip;q=x', 'gzip; q=0.5', 'GZIP', 'BR', 'gzip br', 'gzip;x=y', '"gzip"', 'br;q=0.001', 'br;q=1.000',
  'br;q=1.0000', 'identity, br', 'identity;q=1, br;q=0.5', 'br, br;q=0', 'compress',
]

const CODED = ['/json', '/text', '/noise', '/plain', '/no-transform', '/gzipped', '/empty'].map((path) =>
  inTurn(`codings of ${path}`, [
    ...['br', 'zstd', 'gzip'].flatMap((coding) => [
      get(path, `Accept-Encoding: ${coding}`),
      get(path, `Accept-Encoding: ${coding}`),
    ]),
    get(path),
    ...CODINGS.map((value) => get(path, `Accept-Encoding: ${value}`)),
    get(path, 'Accept-Encoding: gzip', 'Accept-Encoding: br'),
    head(path, 'Accept-Encoding: br'),
    get(path, 'accept-encoding: br'),
    get(path, 'Accept-Encoding: br', 'If-None-Match: W/"json"'),
    get(path, 'Accept-Encoding: br', 'If-None-Match: "json"'),
    get(path, 'Accept-Encoding: br', 'Range: bytes=0-9'),
    get(`/plainly${path}`, 'Accept-Encoding: br'),
    get(`/plainly${path}`, 'Accept-Encoding: br'),
    get(`/user-coded${path}`, 'Accept-Encoding: br', 'Cookie: a=1'),
    get(`/user-coded${path}`, 'Accept-Encoding: br', 'Cookie: a=1'),
    get(`/user-coded${path}`, 'Accept-Encoding: br', 'Cookie: a=1'),
    get(`/user-coded${path}`, 'Accept-Encoding: br', 'Cookie: a=2'),
  ]),
)

const VARIED = [
  inTurn(
    'languages',
    ['de', 'en', 'de', 'en', 'DE', 'de, en', 'de,en', 'en;q=0.5, de', 'de;q=1', ''].map((value) =>
      get('/language', `Accept-Language: ${value}`),
    ),
  ),
  inTurn('languages in lines', [
    get('/language', 'Accept-Language: de', 'Accept-Language: en'),
    get('/language', 'Accept-Language: de, en'),
    get('/language'),
    get('/language'),
    get('/language', 'accept-language: de, en'),
    head('/language'),
  ]),
  inTurn(
    'two fields',
    ['1 1', '1 2', '1 1', '2 1', '1 2']
      .map((pair) => get('/vary-two', `X-A: ${pair[0]}`, `X-B: ${pair[2]}`))
      .concat([
        get('/vary-two', 'X-B: 1', 'X-A: 1'),
        get('/vary-two', 'X-A: 1'),
        get('/vary-two', 'x-a: 1', 'x-b: 1'),
        get('/vary-two', 'X-A:', 'X-B:'),
        get('/vary-two'),
      ]),
  ),
  ...['/vary-agent', '/vary-cookie', '/vary-host', '/vary-all'].map((path) =>
    inTurn(`by ${path}`, [
      get(path),
      get(path),
      get(path, 'User-Agent: a'),
      get(path, 'User-Agent: a'),
      get(path, 'Cookie: a=1'),
      get(path, 'Cookie: a=1'),
      get(path, 'Connection: keep-alive'),
      get(path, 'Connection: keep-alive'),
    ]),
  ),
]

// ---- the client's own control ----

// oxfmt-ignore
const CONTROLS = [
  'no-cache', 'no-store', 'max-age=0', 'max-age=1', 'max-age=2', 'max-age=3', 'max-age=4', 'max-age=100', 'max-age=x',
  'max-age=', 'max-age="5"', 'min-fresh=10', 'min-fresh=3597', 'min-fresh=3598', 'min-fresh=100000', 'max-stale',
  'max-stale=5', 'max-stale=0', 'only-if-cached', 'only-if-cached, no-cache', 'no-transform', 'no-cache, no-store',
  'NO-CACHE', 'no-cache="x"', 'x', '', ',', 'max-age=0, max-stale', 'private', 'public',
]

const HONORED = [
  ...['/honor', '', '/limited-honor'].map((route) =>
    inTurn(`control of the client on ${route === '' ? '/*' : route}`, [
      get(`${route}/plain`),
      ...CONTROLS.flatMap((control) => [
        get(`${route}/plain`, `Cache-Control: ${control}`, `X-Client: ${control}`),
        get(`${route}/plain`, 'X-Client: other'),
      ]),
    ]),
  ),
  inTurn(
    'pragma',
    ['/honor/etag', '/etag'].flatMap((path) => [
      get(path, 'Pragma: no-cache'),
      get(path),
      get(path, 'Pragma: x'),
      get(path, 'Pragma: no-cache', 'Cache-Control: max-age=100'),
      head(path, 'Pragma: no-cache'),
    ]),
  ),
  inTurn('control of what is stale', [
    get('/honor/ten'),
    move(11),
    ...CONTROLS.flatMap((control) => [get('/honor/ten', `Cache-Control: ${control}`), move(3)]),
  ]),
  inTurn('only what is stored', [
    get('/honor/never', 'Cache-Control: only-if-cached'),
    head('/honor/never', 'Cache-Control: only-if-cached'),
    get('/honor/never'),
    get('/honor/never', 'Cache-Control: only-if-cached'),
  ]),
]

// ---- time, purges, failures ----

const PURGES: readonly (readonly [string, PurgeRequest])[] = [
  ['by URL', { urls: ['http://gateway.test/exact'] }],
  ['by tag', { tags: ['exact', 'thing-1', 'tagged'] }],
  ['by prefix', { prefix: '/things/' }],
  ['softly', { tags: ['exact'], soft: true }],
  ['of all', { all: true }],
]

const CHANGED: readonly Row[] = [
  ...PURGES.map(([how, request]) =>
    inTurn(`a purge ${how}`, [
      ...['/exact', '/things/1', '/tagged/x', '/exact'].map((path) => get(path)),
      act(({ gateway }) => gateway.purge(request)),
      ...['/exact', '/things/1', '/tagged/x', '/plain', '/exact', '/things/1'].map((path) => get(path)),
      get('/marker'),
    ]),
  ),
  inTurn('a write', [
    get('/exact'),
    get('/exact'),
    post('/exact', 'x'),
    get('/exact'),
    get('/exact'),
    ask('DELETE', '/exact'),
    head('/exact'),
    get('/exact'),
    ask('PUT', '/exact', 'Content-Length: 0'),
    get('/exact'),
  ]),
  inTurn('a write that purges a tag', [
    get('/tagged/1'),
    get('/tagged/2'),
    post('/tagged/3', 'x'),
    get('/tagged/1'),
    get('/tagged/2'),
    get('/tagged/2'),
  ]),
  inTurn('age', [
    get('/aged?now'),
    ...[0.4, 0.6, 1, 5, 60].flatMap((seconds) => [
      move(seconds),
      get('/aged?now'),
      head('/aged?now'),
      get('/aged?now', 'If-None-Match: *'),
    ]),
  ]),
  inTurn('what expires', [
    get('/ten?x'),
    move(9),
    get('/ten?x'),
    move(0.999),
    get('/ten?x'),
    move(0.002),
    get('/ten?x'),
    get('/ten?x'),
    move(30),
    get('/ten?x'),
    get('/ten?x'),
    move(100),
    get('/ten?x'),
    get('/ten?x'),
    move(71),
    head('/ten?x'),
    head('/ten?x'),
  ]),
  ...['/stale', '/unstale', '/clamped', '/instead'].map((route) =>
    inTurn(
      `what expires on ${route}`,
      ['/unsaid', '/etag', '/must', '/ten'].flatMap((path) => [
        get(route + path),
        get(route + path),
        move(11),
        get(route + path),
        get(route + path),
        move(25),
        get(route + path),
        get(route + path),
        move(90),
        get(route + path),
        get(route + path, 'If-None-Match: "one"'),
        move(700),
        get(route + path),
      ]),
    ),
  ),
  inTurn(
    'failures',
    ['', '/per-status', '/stale', '/override'].flatMap((route) => [
      get(`${route}/broken`),
      get(`${route}/broken`),
      move(2),
      get(`${route}/broken`),
      head(`${route}/broken`),
    ]),
  ),
  row(
    'a moment later',
    move(3600),
    get('/plain'),
    get('/etag'),
    get('/json', 'Accept-Encoding: br'),
    get('/marker'),
    get('/marker'),
  ),
]

/** What is in memory, once it has been asked for. */

/** What is in memory, once it has been asked for. */
export const HOT: readonly Row[] = [...PLAIN.slice(0, 24), ...CONDITIONAL.slice(0, 2), ...CODED.slice(0, 1), ...VARIED]

export const STORED: Readonly<Record<string, readonly Row[]>> = {
  plain: PLAIN,
  conditions: CONDITIONAL,
  parts: PARTS,
  codings: CODED,
  variants: VARIED,
  control: HONORED,
  changes: CHANGED,
}
