// One behaviour, two lanes (see lanes.test.ts): under other configurations than the one that has most.

import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { differences } from '../support/lanes/compare.ts'
import { type Pair, SETTLED, act, startPair } from '../support/lanes/pair.ts'
import { HOST, bare, get, head, inTurn, post, row } from '../support/lanes/rows.ts'
import { originOfAll, yamlOfAll } from '../support/lanes/table.ts'

vi.mock('node:zlib', async (original) => (await import('../support/lanes/threads.ts')).codeAtOnce(await original()))

async function start(yaml: (originUrl: string) => string): Promise<Pair> {
  const pair = await startPair({ yaml, script: originOfAll })
  onTestFinished(() => pair.close())
  return pair
}

const HIT = get('/plain')

describe('the lanes cannot be told apart under bounds', () => {
  it('on heads, lines, counts and targets', async () => {
    const pair = await start((url) => yamlOfAll(url, 'headBytes: 1KiB, headLine: 256B, headFields: 10, target: 256B'))
    const many = (count: number) => get('/plain', ...Array.from({ length: count }, (_, i) => `X-${i}: y`))
    const long = (bytes: number) => {
      const fields = ['A', 'B', 'C', 'D'].map((name) => `${name}: ${name.repeat(200)}`)
      const rest = get('/plain', ...fields, 'E: ').length
      return get('/plain', ...fields, `E: ${'E'.repeat(bytes - rest)}`)
    }
    const rows = [
      ...[240, 253, 254, 255, 256, 257, 300, 900, 1100].map((bytes) =>
        row(`a field of ${bytes}`, HIT, get('/plain', `X: ${'a'.repeat(bytes)}`)),
      ),
      ...[7, 8, 9, 10, 11].map((count) => row(`${count} fields`, HIT, many(count))),
      ...[245, 249, 250, 251, 255, 256, 257, 300, 1200].map((bytes) =>
        row(`a target of about ${bytes}`, HIT, get(`/plain?${'a'.repeat(bytes)}`), get(`/${'b'.repeat(bytes)}`)),
      ),
      ...Array.from({ length: 100 }, (_, i) => 1000 + 2 * i).map((bytes) =>
        row(`a head of ${bytes}`, HIT, long(bytes)),
      ),
    ]
    expect(await differences(pair, rows)).toBe('')
  })

  it.each([1, 2, 5])('of %i requests on a connection', async (count) => {
    const pair = await start((url) => yamlOfAll(url, `requestsPerConnection: ${count}`))
    const before = Array.from({ length: count - 1 }, () => [HIT, SETTLED]).flat()
    const kinds = [HIT, get('/etag', 'If-None-Match: *'), get('/no-store'), get('/authed/plain'), get('/health')]
    const rows = [...kinds, post('/exact', 'x')].flatMap((bytes, i) => [
      inTurn(`kind ${i}, in turn`, [bytes, HIT, bytes, HIT, HIT, HIT]),
      row(`kind ${i}, together`, (bytes + HIT).repeat(4)),
      row(`kind ${i}, last`, ...before, bytes, SETTLED, HIT),
      row(`kind ${i}, last, and says so`, ...before, bytes.replace(HOST, `${HOST}\r\nConnection: close`)),
    ])
    expect(await differences(pair, rows)).toBe('')
  })

  it.each(['0s', '500ms', '1500ms', '2m'])('of %s between requests', async (keepAlive) => {
    const pair = await start((url) => yamlOfAll(url, `keepAlive: ${keepAlive}`))
    const rows = [
      inTurn('in turn', [HIT, HIT, get('/no-store'), HIT, get('/authed/plain'), head('/plain')]),
      row('together', HIT + HIT),
      row('last', get('/authed/plain', 'Connection: close')),
    ]
    expect(await differences(pair, rows)).toBe('')
  })
})

/** A table of one route beside the marker's. */
const one = (originUrl: string, more: string, route = '{path: /*, cache: {ttl: 1h}}') => `
listen: {address: 127.0.0.1:0, connectionsPerAddress: 10000}
admin: {listen: 127.0.0.1:0}
upstreams: {origin: {targets: [${originUrl}]}}
defaults: {upstream: origin}
${more}
routes: [{path: /marker, cache: {ttl: 1h}}, ${route}]
`

const PROXIED = get('/plain', 'X-Forwarded-For: 192.0.2.1', 'X-Request-Id: given')

describe('the lanes cannot be told apart with', () => {
  // oxfmt-ignore
  const requests = [
    HIT, HIT, head('/plain'), get('/health'), get('/plain?secret=1'), get('/etag', 'If-None-Match: "one"'),
    get('/plain', 'X-User: ann'), PROXIED, get('/large'), get('/large'), get('/json', 'Accept-Encoding: br'),
    get('/json', 'Accept-Encoding: br'), get('/no-store'), HIT,
  ]

  it.each([
    ['no health path', 'health: false'],
    ['another health path', 'health: /plain'],
    ['a log without requests', 'log: {level: error}'],
    ['plain names in the log', 'log: {userId: plain}\nidentity: {user: [{header: x-user}]}'],
    ['trust in everybody', 'trustedProxies: [0.0.0.0/0, "::/0"]'],
    ['little memory', 'cache: {memory: 1MiB, maxObject: 64KiB}'],
    ['limits for all', 'limits: {all: {limit: 5, window: 1h}}', '{path: /*, cache: {ttl: 1h}, limits: [all]}'],
  ])('%s', async (what, more, route?: string) => {
    const pair = await start((url) => one(url, more, route))
    expect(await differences(pair, [inTurn(what, requests), inTurn(`${what}, again`, requests)])).toBe('')
  })

  it('routes for one host only', async () => {
    const pair = await start((url) => one(url, '', '{path: /*, host: api.test, cache: {ttl: 1h}}'))
    const names = ['api.test', 'other.test', 'API.test:80', 'api.test', 'x.api.test']
    const rows = [
      inTurn(
        'hosts',
        names.map((name) => bare('GET /plain HTTP/1.1', `Host: ${name}`)),
      ),
    ]
    expect(await differences(pair, rows)).toBe('')
  })

  it('a table that changes while connections stay', async () => {
    const tables: readonly ((url: string) => string)[] = [
      (url) => one(url, 'limits: {few: {limit: 3, window: 1h}}', '{path: /*, limits: [few], cache: {ttl: 1h}}'),
      (url) => one(url, '', '{path: /*, cache: {ttl: 1h}, headers: {response: {set: {X-New: "1"}}}}'),
      (url) => one(url, '', '{path: /*}'),
      (url) => one(url, 'trustedProxies: [127.0.0.1]'),
      (url) => one(url, 'identity: {user: [{header: x-user, trusted: true}]}', '{path: /*, auth: required}'),
      (url) => one(url, 'no: such option'),
      (url) => one(url, 'health: /plain'),
      (url) => one(url, ''),
    ]
    const pair = await start((url) => one(url, ''))
    const asked = [HIT, HIT, PROXIED, head('/plain'), HIT, get('/etag')]
    const adopt = (table: (url: string) => string) =>
      act(async (gateway, url) => {
        gateway.rewrite(table(url))
        await gateway.gateway.reload()
      })
    const reloads = tables.flatMap((table) => [adopt(table), asked].flat())
    expect(await differences(pair, [inTurn('reloads', [...asked, ...reloads])])).toBe('')
  })
})
