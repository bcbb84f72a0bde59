import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { CacheOutcome } from '../../src/core/context.ts'
import { GatewayError } from '../../src/core/errors.ts'
import { compileLines } from '../../src/observe/request-line.ts'
import { finished } from './request.ts'

const UNITS = [
  'a',
  '/',
  '%',
  ' ',
  '"',
  '\\',
  '\n',
  '\u0000',
  '\u001f',
  '\u007f',
  '\u0080',
  'é',
  '\u2028',
  '→',
  '漢',
  '😀',
]
const ugly = fc.string({ unit: fc.constantFrom(...UNITS, '\ud800', '\udfff', '</script>'), maxLength: 40 })
/** Some of which are cut, within a pair of surrogates too. */
const text = fc.oneof(ugly, fc.webPath(), fc.string({ unit: 'binary' }), fc.constant(`${'x'.repeat(2047)}😀`))
const milliseconds = fc.oneof(fc.double({ min: 0, max: 20, noNaN: true }), fc.double({ min: 0, noNaN: true }))

const request = fc.record({
  id: text,
  userId: fc.option(text),
  clientAddress: text,
  route: fc.option(fc.constantFrom('/api/*', '/"\\\n/*')),
  method: fc.oneof(fc.constantFrom('GET', 'HEAD', 'POST'), ugly),
  path: text,
  query: fc.oneof(
    fc.constant(''),
    ugly.map((query) => `?${query}`),
  ),
  status: fc.constantFrom(200, 200, 304, 404, 499, 503),
  durationMs: milliseconds,
  upstreamMs: fc.option(milliseconds),
  cache: fc.option(fc.constantFrom<CacheOutcome>('hit', 'hit', 'miss', 'bypass')),
  cacheReason: fc.option(ugly, { freq: 2 }),
  quota: fc.option(fc.record({ admitted: fc.boolean(), policy: ugly, limit: fc.nat(), remaining: fc.nat() })),
  bytesSent: fc.maxSafeNat(),
  shadowedBy: fc.option(ugly, { freq: 2 }),
  error: fc.option(
    fc.oneof(
      ugly.map((cause) => new GatewayError('upstream_invalid', 'No.', { cause })),
      ugly.map((detail) => new GatewayError('bad_target', detail)),
    ),
    { freq: 2 },
  ),
})

const cut = (long: string): string => (long.length > 2048 ? `${long.slice(0, 2048)}...` : long)
const rounded = (ms: number): number => Math.round(ms * 100) / 100

describe('the line of a request', () => {
  it('is, to the byte, what JSON.stringify makes of its fields, whatever the texts are', () => {
    // One for all runs: what is kept for a route must not show in the line of another request.
    const lineOf = compileLines({ redactQuery: [], userId: 'plain' })
    const byRoute = new Map<string | null, ReturnType<typeof lineOf>>()
    fc.assert(
      fc.property(request, ({ userId, ...given }) => {
        const user = userId === null ? null : { id: userId, isProved: true, field: 'x-api-key' }
        const ctx = finished({ ...given, user })
        const format = byRoute.get(ctx.route) ?? lineOf(ctx.route)
        byRoute.set(ctx.route, format)
        const fields = {
          request_id: cut(given.id),
          user_id: userId === null ? null : cut(userId),
          client_ip: given.clientAddress,
          route: given.route,
          method: cut(given.method),
          path: cut(given.path + given.query),
          status_code: given.status,
          duration_ms: rounded(given.durationMs),
          upstream_ms: given.upstreamMs === null ? null : rounded(given.upstreamMs),
          cache: given.cache,
          cache_reason: given.cacheReason,
          limit: given.quota === null || given.quota.admitted ? null : given.quota.policy,
          bytes: given.bytesSent,
          limit_shadow: given.shadowedBy ?? undefined,
          error: given.error?.code,
          cause: given.error?.kind.source === 'upstream' ? cut(String(given.error.cause)) : undefined,
        }
        expect(`{"request_id":"${format(ctx, given.status)}`).toBe(`${JSON.stringify(fields)}\n`)
      }),
      { numRuns: 2000 },
    )
  })

  it('of a hit differs by its own duration and bytes alone', () => {
    const format = compileLines({ redactQuery: [], userId: 'hash' })('/a')
    const line = (durationMs: number, bytesSent: number): unknown =>
      JSON.parse(`{"request_id":"${format(finished({ route: '/a', cache: 'hit', durationMs, bytesSent }), 200)}`)
    const [duration_ms, bytes] = [0.07, 700]
    for (let i = 0; i < 3; i++) {
      expect(line(0.07, 700)).toMatchObject({ duration_ms, bytes, status_code: 200, cache: 'hit', cache_reason: null })
      expect(line(0.074, 701)).toMatchObject({ duration_ms, bytes: 701 })
      expect(line(70, 700)).toMatchObject({ duration_ms: 70, bytes })
    }
  })
})
