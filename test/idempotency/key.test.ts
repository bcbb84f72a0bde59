import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { RequestContext, type RequestFacts } from '../../src/core/context.ts'
import { compileKeyNames, readKey } from '../../src/idempotency/key.ts'

const ctxOf = (facts: Partial<RequestFacts> = {}): RequestContext => {
  const ctx = new RequestContext(
    {
      method: 'POST',
      scheme: 'http',
      host: 'a.test',
      path: '/pay',
      query: '',
      version: '1.1',
      headers: [],
      body: null,
      peerAddress: '192.0.2.1',
      receivedAtMs: 0,
      ...facts,
    },
    'id',
  )
  ctx.route = '/pay'
  return ctx
}

const keyOf = (...values: string[]): string | null =>
  readKey({ headers: values.flatMap((value) => ['idempotency-KEY', value]) })

describe('the field', () => {
  it.each([
    ['8e03978e-40d5-43dd-bc93-6894a57f9324', '8e03978e-40d5-43dd-bc93-6894a57f9324'],
    ['"8e03978e-40d5-43dd-bc93-6894a57f9324"', '8e03978e-40d5-43dd-bc93-6894a57f9324'],
    [' stainless-node-retry-1 ', 'stainless-node-retry-1'],
    ['"a \\"b\\" \\\\ c, d"', 'a "b" \\ c, d'],
    ['x'.repeat(255), 'x'.repeat(255)],
    ['a:b/c=d;e', 'a:b/c=d;e'],
  ])('%s is the key %s', (value, key) => expect(keyOf(value)).toBe(key))

  it.each([
    ['nothing', ''],
    ['an empty String', '""'],
    ['a quote alone', '"'],
    ['an open String', '"abc'],
    ['a String with more behind it', '"abc" d'],
    ['a bad escape', '"a\\b"'],
    ['a quote inside', 'a"b'],
    ['a list', 'a,b'],
    ['blanks', 'a b'],
    ['a control character', 'a\tb'],
    ['other than ASCII', 'sch\u00f6n'],
    ['too long', 'x'.repeat(256)],
    ['too long as a String', `"${'x'.repeat(256)}"`],
  ])('%s is refused', (_what, value) => expect(() => keyOf(value)).toThrow('idempotency_key_invalid'))

  it('twice is refused', () => expect(() => keyOf('a', 'a')).toThrow('idempotency_key_invalid'))
  it('may be absent', () => expect(keyOf()).toBeNull())
})

describe('names', () => {
  const { idOf, fingerprintOf } = compileKeyNames('secret')
  const LONG = 'x'.repeat(16)

  it('are of one user, one route, one secret', () => {
    const other = ctxOf()
    other.route = '/b'
    const ids = [
      idOf(ctxOf(), 'ann', LONG),
      idOf(ctxOf(), 'bob', LONG),
      idOf(other, 'ann', LONG),
      idOf(ctxOf(), null, LONG),
      idOf(ctxOf({ peerAddress: '192.0.2.2' }), null, LONG),
      idOf(ctxOf(), '192.0.2.1', LONG),
      compileKeyNames('other').idOf(ctxOf(), 'ann', LONG),
    ]
    expect(new Set(ids).size).toBe(ids.length)
    for (const id of ids) expect(id).toMatch(/^[\w-]{44}$/)
    expect(idOf(ctxOf({ peerAddress: '192.0.2.2' }), 'ann', LONG)).toBe(ids[0])
  })

  it('of nobody have to be long', () => {
    expect(() => idOf(ctxOf(), null, 'x'.repeat(15))).toThrow('idempotency_key_invalid')
    expect(idOf(ctxOf(), 'ann', 'x')).toMatch(/^[\w-]{44}$/)
  })

  it('never run together, whatever the parts are', () => {
    const text = fc.string({ minLength: 1, maxLength: 3 })
    const parts = fc.tuple(text, text, text)
    fc.assert(
      fc.property(parts, parts, (one, two) => {
        const id = ([user, route, key]: readonly string[]): string => {
          const ctx = ctxOf()
          ctx.route = route as string
          return idOf(ctx, user as string, key as string)
        }
        expect(id(one) === id(two)).toBe(one.join('\n') === two.join('\n') && one.every((each, i) => each === two[i]))
      }),
    )
  })

  it.each<[string, Partial<RequestFacts>]>([
    ['method', { method: 'PATCH' }],
    ['scheme', { scheme: 'https' }],
    ['host', { host: 'b.test' }],
    ['path', { path: '/other' }],
    ['query', { query: '?a' }],
    ['content type', { headers: ['Content-Type', 'a/b'] }],
    ['content coding', { headers: ['Content-Encoding', 'gzip'] }],
  ])('of requests tell another %s', (_what, facts) => {
    const body = Buffer.from('{}')
    expect(fingerprintOf(ctxOf(facts), body)).not.toBe(fingerprintOf(ctxOf(), body))
    expect(fingerprintOf(ctxOf(), Buffer.from('{ }'))).not.toBe(fingerprintOf(ctxOf(), body))
    // Who asks for what he gets by other fields asks for the same.
    const accepting = ctxOf({ ...facts, headers: [...(facts.headers ?? []), 'Accept', 'x/y'] })
    expect(fingerprintOf(accepting, body)).toBe(fingerprintOf(ctxOf(facts), body))
  })
})
