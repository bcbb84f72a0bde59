// Heads and paths as pure functions; what an origin and a client see of them is in end-to-end/forwarding.test.ts.

import { describe, expect, it } from 'vitest'
import { RequestContext, type RequestFacts } from '../../src/core/context.ts'
import type { GatewayError } from '../../src/core/errors.ts'
import { compileEdit, compileRewrite, requestHead, responseHead } from '../../src/upstream/head.ts'

const FACTS: RequestFacts = {
  method: 'GET',
  scheme: 'http',
  host: 'shop.test',
  path: '/',
  query: '',
  version: '1.1',
  headers: [],
  body: null,
  peerAddress: '192.0.2.7',
  receivedAtMs: 0,
}

const request = (headers: readonly string[], facts: Partial<RequestFacts> = {}): RequestContext =>
  new RequestContext({ ...FACTS, headers, ...facts }, 'id-1')

const asIs = compileEdit()

const OWN = [
  ['X-Forwarded-For', '192.0.2.7'],
  ['X-Forwarded-Proto', 'http'],
  ['X-Forwarded-Host', 'shop.test'],
  ['Forwarded', 'for=192.0.2.7;host=shop.test;proto=http'],
  ['Via', '1.1 gw'],
  ['X-Request-Id', 'id-1'],
].flat()

describe('the head of a request', () => {
  it('begins with Host, goes on with what the client sent, and ends with what the gateway knows', () => {
    const ctx = request(['Accept', '*/*', 'HOST', 'Shop.test:80', 'X-A', '1', 'x-a', '2'])
    expect(requestHead(ctx, 'gw', asIs)).toEqual(['Host', 'shop.test', 'Accept', '*/*', 'X-A', '1', 'x-a', '2', ...OWN])
  })

  it('leaves out what its caller says, in any case', () => {
    const ctx = request(['If-None-Match', '"a"', 'IF-MODIFIED-SINCE', 'x', 'Accept', '*/*'])
    const drop = new Set(['if-none-match', 'if-modified-since'])
    expect(requestHead(ctx, 'gw', asIs, drop)).toEqual(['Host', 'shop.test', 'Accept', '*/*', ...OWN])
  })

  it('has no Host where an HTTP/1.0 client sent none', () => {
    const head = requestHead(request([], { host: '', version: '1.0' }), 'gw', asIs)
    expect(head.slice(0, 2)).toEqual(['X-Forwarded-For', '192.0.2.7'])
    expect(head).toContain('1.0 gw')
  })

  it.each([
    [['Connection', 'close, HOST'], 'bad_message'],
    [['Connection', 'x', 'connection', 'y, X-Forwarded-Proto'], 'bad_message'],
    [['X_Forwarded_For', '6.6.6.6'], 'bad_message'],
    [['Proxy_Connection', 'x'], 'bad_message'],
    [['Via', '1.0 edge, HTTP/1.1 GW (comment)'], 'loop_detected'],
  ])('is refused for %j: %s', (headers, code) => {
    expect(codeOf(() => requestHead(request(headers), 'gw', asIs))).toBe(code)
  })

  it('believes nobody but a trusted peer, and an underscore from nobody', () => {
    const claims = ['X-Real-IP', '1', 'X-Original-URL', '/admin', 'X-Forwarded-Port', '443']
    const stranger = request(claims)
    expect(requestHead(stranger, 'gw', asIs)).toEqual(['Host', 'shop.test', ...OWN])
    const proxy = request([...claims, 'X_Note', '1'])
    proxy.peerIsTrusted = true
    expect(requestHead(proxy, 'gw', asIs).slice(0, 8)).toEqual(['Host', 'shop.test', ...claims])
    const disguised = request(['X_Real_IP', '1'])
    disguised.peerIsTrusted = true
    expect(codeOf(() => requestHead(disguised, 'gw', asIs))).toBe('bad_message')
  })
})

describe('the head of an answer', () => {
  it('keeps order, case and repetitions of what goes on', () => {
    const raw = ['Set-Cookie', 'a', 'X', '1', 'Connection', 'X-Hop', 'set-cookie', 'b', 'X-HOP', '2', 'Proxy-Foo', '3']
    expect(responseHead(200, raw, asIs)).toEqual(['Set-Cookie', 'a', 'X', '1', 'set-cookie', 'b'])
  })

  it.each(['a\rb', 'a\nb', 'a\0b', 'a\x7fb', 'a\x1fb', 'a→b'])(
    'is refused for the value %j, in a field that ends here too',
    (value) => {
      expect(responseHead(200, ['X-A', value], asIs)).toBe(null)
      expect(responseHead(200, ['Alt-Svc', value], asIs)).toBe(null)
    },
  )

  it('leaves out fields that the gateway writes itself, but not what the route sets', () => {
    const edit = compileEdit({ set: { 'X-Limit': 'mine' }, remove: [] })
    expect(responseHead(200, ['X-Limit', 'theirs', 'x-other', '1'], edit, new Set(['x-limit', 'x-other']))).toEqual([
      'X-Limit',
      'mine',
    ])
  })

  it.each([
    [200, ['Content-Length', '0']],
    [304, ['Content-Length', '0']],
    [204, []],
  ])('[RFC 9110 §8.6] of a %i has these of a length: %j', (status, expected) => {
    expect(responseHead(status, ['Content-Length', '0'], asIs)).toEqual(expected)
  })
})

describe('header edits', () => {
  it.each<[string, Record<string, string>, string[], string[]]>([
    ['nothing', {}, [], ['A', '1', 'b', '2', 'a', '3']],
    ['removal in any case', {}, ['A'], ['b', '2']],
    ['a field set in place of all of its name', { a: '9' }, [], ['b', '2', 'a', '9']],
    ['a field removed and set', { B: '9' }, ['b'], ['A', '1', 'a', '3', 'B', '9']],
    ['two spellings of one name', { X: '1', x: '2' }, [], ['A', '1', 'b', '2', 'a', '3', 'x', '2']],
    ['an empty value', { X: '' }, [], ['A', '1', 'b', '2', 'a', '3', 'X', '']],
  ])('%s', (_what, set, remove, expected) => {
    const head = ['A', '1', 'b', '2', 'a', '3']
    expect(compileEdit({ set, remove })(head)).toEqual(expected)
    expect(head).toEqual(['A', '1', 'b', '2', 'a', '3'])
  })
})

describe('a rewrite', () => {
  it.each([
    ['/api/x', {}, '/api/x'],
    ['/api/x', { strip: '/api' }, '/x'],
    ['/api/x', { strip: '/api/' }, '/x'],
    ['/api', { strip: '/api' }, '/'],
    ['/api/', { strip: '/api' }, '/'],
    ['/apiary', { strip: '/api' }, '/apiary'],
    ['/apiary/api', { strip: '/api' }, '/apiary/api'],
    ['/other', { strip: '/api' }, '/other'],
    ['/api/api/x', { strip: '/api' }, '/api/x'],
    ['/', { strip: '/' }, '/'],
    ['/x', { strip: '/' }, '/x'],
    ['/x', { prefix: '/v2' }, '/v2/x'],
    ['/x', { prefix: '/' }, '/x'],
    ['/', { prefix: '/v2/' }, '/v2/'],
    ['/api', { strip: '/api', prefix: '/v2' }, '/v2'],
    ['/api/', { strip: '/api', prefix: '/v2' }, '/v2/'],
    ['/a%20b', { prefix: '/v2' }, '/v2/a%20b'],
  ])('%s by %j is %s', (path, rewrite, expected) => {
    expect(compileRewrite(rewrite)(path)).toBe(expected)
  })
})

function codeOf(run: () => unknown): string {
  try {
    run()
  } catch (error) {
    return (error as GatewayError).code
  }
  return 'none'
}
