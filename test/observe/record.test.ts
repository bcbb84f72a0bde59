import { afterEach, describe, expect, it } from 'vitest'
import { GatewayError } from '../../src/core/errors.ts'
import { createLog } from '../../src/observe/log.ts'
import type { LogLevel } from '../../src/observe/log.ts'
import { createMetrics } from '../../src/observe/metrics.ts'
import type { Metrics } from '../../src/observe/metrics.ts'
import { createRecorder } from '../../src/observe/record.ts'
import { createStatistics } from '../../src/observe/statistics.ts'
import { finished } from './request.ts'

const opened: Metrics[] = []
afterEach(() => {
  for (const metrics of opened.splice(0)) metrics.close()
})

function recording(level: LogLevel = 'info') {
  const texts: string[] = []
  const log = createLog({ level }, { write: (line) => texts.push(line) })
  const none = () => 0
  const metrics = createMetrics({
    openConnections: none,
    refusedConnections: none,
    fastAnswers: none,
    openWebSockets: none,
    cacheEntries: none,
    cacheBytes: none,
    cacheDisk: null,
    overload: { isOver: false, isFull: false, lagMs: 0, refused: 0 },
    savings: () => [],
    droppedLogLines: none,
    cacheTiers: () => [],
    redisUp: () => null,
    mirrored: () => new Map(),
    upstreams: () => [],
    limitDecisions: () => [],
    limitReservations: () => [],
    tokens: () => [],
    limitStores: () => ({ subjects: 0, overflowed: 0, shared: null, leases: null }),
    purgeLog: () => null,
    fetchLeases: () => null,
    idempotency: () => ({ counts: {}, table: { keys: 0, bytes: 0, dropped: { answers: 0, keys: 0 } }, shared: null }),
    detached: () => ({ running: 0, counts: { used: 0, wasted: 0 } }),
  })
  opened.push(metrics)
  const statistics = createStatistics(0)
  const recorder = createRecorder({ log, metrics, statistics }, { slow: 1000, redactQuery: ['token'], userId: 'hash' })
  return {
    recorder,
    metrics,
    statistics,
    texts,
    line: () => JSON.parse(texts.at(-1) ?? 'null') as Record<string, unknown>,
  }
}

const FIELDS = [
  'timestamp',
  'level',
  'message',
  'request_id',
  'user_id',
  'client_ip',
  'route',
  'method',
  'path',
  'status_code',
  'duration_ms',
  'upstream_ms',
  'cache',
  'cache_reason',
  'limit',
  'bytes',
]

describe('the line of a request', () => {
  it('has the agreed fields in the agreed order, and no more', () => {
    const { recorder, line, texts } = recording()
    recorder.record(
      finished({
        id: 'abc',
        clientAddress: '198.51.100.9',
        route: '/api/v1/themes/*',
        method: 'GET',
        path: '/api/v1/themes/7',
        query: '?page=2',
        durationMs: 12.3456,
        upstreamMs: 10.005,
        cache: 'miss',
        cacheReason: 'absent',
        quota: { admitted: true, policy: 'per-client', limit: 60, remaining: 59 },
        bytesSent: 740,
      }),
    )
    expect(texts).toHaveLength(1)
    expect(Object.keys(line())).toEqual(FIELDS)
    expect(line()).toMatchObject({
      level: 'INFO',
      message: 'Request completed',
      request_id: 'abc',
      user_id: null,
      client_ip: '198.51.100.9',
      route: '/api/v1/themes/*',
      method: 'GET',
      path: '/api/v1/themes/7?page=2',
      status_code: 200,
      duration_ms: 12.35,
      upstream_ms: 10.01,
      cache: 'miss',
      cache_reason: 'absent',
      limit: null,
      bytes: 740,
    })
  })

  it('has null for what did not happen', () => {
    const { recorder, line } = recording()
    recorder.record(finished({ route: null, status: 404 }))
    expect(Object.keys(line())).toEqual(FIELDS)
    expect(line()).toMatchObject({
      route: null,
      upstream_ms: null,
      cache: null,
      cache_reason: null,
      limit: null,
      bytes: 0,
    })
  })

  it('names the policy that refused', () => {
    const { recorder, line } = recording()
    const quota = { admitted: false, policy: 'per-client', limit: 60, remaining: 0 }
    recorder.record(finished({ status: 429, quota }))
    expect(line()).toMatchObject({ status_code: 429, limit: 'per-client' })
  })

  it('says slow, at WARNING, only above the bound', () => {
    const { recorder, line } = recording()
    recorder.record(finished({ durationMs: 1000 }))
    expect(line()).toMatchObject({ level: 'INFO', message: 'Request completed' })
    recorder.record(finished({ durationMs: 1000.01 }))
    expect(line()).toMatchObject({ level: 'WARNING', message: 'Slow request' })
  })

  it('masks secrets in the query and cuts what is long', () => {
    const { recorder, line } = recording()
    recorder.record(finished({ path: '/a', query: '?token=abc&b=1' }))
    expect(line()['path']).toBe('/a?token=***&b=1')
    recorder.record(finished({ path: `/${'a'.repeat(5000)}`, id: 'i'.repeat(5000) }))
    expect(String(line()['path'])).toHaveLength(2051)
    expect(String(line()['request_id'])).toHaveLength(2051)
  })

  it('never has Authorization, Cookie or any other field of the request', () => {
    const { recorder, texts } = recording()
    const headers = ['Authorization', 'Bearer hush', 'Cookie', 'sid=hush', 'X-Api-Key', 'hush']
    recorder.record(finished({ headers, error: new GatewayError('upstream_reset', 'It broke.'), status: 502 }))
    expect(texts.join('')).not.toContain('hush')
  })

  it('takes new options without a restart', () => {
    const { recorder, line } = recording()
    recorder.configure({ slow: 5, redactQuery: ['page'], userId: 'hash' })
    recorder.record(finished({ durationMs: 6, query: '?page=2&token=abc' }))
    expect(line()).toMatchObject({ message: 'Slow request', path: '/a?page=***&token=abc' })
  })
})

describe('a failed request', () => {
  const connectRefused = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:8000'), { code: 'ECONNREFUSED' })

  it.each([
    ['an upstream error', 'upstream_refused', connectRefused, 'connect ECONNREFUSED 127.0.0.1:8000'],
    [
      'an error with several causes',
      'upstream_refused',
      new AggregateError([connectRefused]),
      'Error: connect ECONNREFUSED 127.0.0.1:8000',
    ],
    ['a text as cause', 'upstream_invalid', 'bad chunk size', 'bad chunk size'],
    ['no cause', 'timeout_first_byte', undefined, 'For the client.'],
    ['a gateway error', 'saturated', new Error('queue full'), 'queue full'],
  ] as const)('with %s has the code and the cause', (_what, code, cause, logged) => {
    const { recorder, line } = recording()
    const error = new GatewayError(code, 'For the client.', { cause })
    recorder.record(finished({ status: error.kind.status, error }))
    expect(Object.keys(line())).toEqual([...FIELDS, 'error', 'cause'])
    expect(line()).toMatchObject({ level: 'INFO', error: code, cause: logged })
  })

  it('has the code alone where the client was at fault', () => {
    const { recorder, line } = recording()
    recorder.record(finished({ status: 400, error: new GatewayError('bad_target', 'No.', { cause: new Error('x') }) }))
    expect(Object.keys(line())).toEqual([...FIELDS, 'error'])
    expect(line()['error']).toBe('bad_target')
  })

  it('is an ERROR with the stack where the gateway has a bug', () => {
    const { recorder, line } = recording('error')
    recorder.record(
      finished({
        status: 500,
        error: new GatewayError('internal', 'It failed.', { cause: new TypeError('x of null') }),
      }),
    )
    expect(line()).toMatchObject({ level: 'ERROR', error: 'internal' })
    expect(line()['cause']).toMatch(/^TypeError: x of null\n.*record\.test\.ts/)
  })

  it('has no stack for anything else', () => {
    const { recorder, texts } = recording()
    recorder.record(
      finished({ status: 502, error: new GatewayError('upstream_reset', 'No.', { cause: new Error('reset') }) }),
    )
    expect(texts.join('')).not.toContain('record.test.ts')
  })
})

describe('counting', () => {
  it('a client that left is a 499 in log, metrics and statistics', () => {
    const { recorder, line, metrics, statistics } = recording()
    recorder.record(finished({ route: '/a', status: 200, aborted: true }))
    expect(line()['status_code']).toBe(499)
    expect(metrics.text()).toContain('weirgate_requests_total{route="/a",status="499"} 1')
    expect(statistics.snapshot(0).since_start.total).toMatchObject({ requests: 1, errors: 0 })
  })

  it('forgets routes that are gone, and counts them anew if they come back', () => {
    const { recorder, line, metrics, statistics } = recording()
    for (const route of ['/kept', '/gone', null]) recorder.record(finished({ route }))
    recorder.keepRoutes(new Set(['/kept']))
    expect(metrics.text()).not.toContain('/gone')
    for (const route of ['/kept', '/gone', '/gone']) recorder.record(finished({ route }))
    expect(line()['route']).toBe('/gone')
    expect(metrics.text()).toContain('weirgate_requests_total{route="/gone",status="200"} 2')
    expect(metrics.text()).toContain('weirgate_requests_total{route="/kept",status="200"} 2')
    const { routes, total } = statistics.snapshot(0).since_start
    expect(routes).toMatchObject({ '/kept': { requests: 2 }, '/gone': { requests: 2 }, '(none)': { requests: 1 } })
    expect(total.requests).toBe(6)
  })

  it('goes on where the log is silent', () => {
    const { recorder, texts, metrics, statistics } = recording('silent')
    recorder.record(finished({ route: '/a' }))
    expect(texts).toEqual([])
    expect(metrics.text()).toContain('weirgate_requests_total{route="/a",status="200"} 1')
    expect(statistics.snapshot(0).since_start.total.requests).toBe(1)
  })

  it('writes slow requests alone where the level is warn', () => {
    const { recorder, texts } = recording('warn')
    recorder.record(finished({ durationMs: 1 }))
    recorder.record(finished({ durationMs: 2000 }))
    expect(texts).toHaveLength(1)
  })
})
