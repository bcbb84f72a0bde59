// One deed for each Idempotency-Key, over real sockets: what the origin sees, and what those who repeat a request get.

import { type ServerResponse } from 'node:http'
import { describe, expect, it, vi } from 'vitest'
import { type Answer, converse, request } from '../support/client.ts'
import { type Edge, type EdgeOptions, settled, startEdge } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import { KEY, type Sent, codeOf, gate, isReplayed, send } from '../support/keyed.ts'
import { startRawOrigin } from '../support/origin.ts'
import { startGatewayBefore } from '../support/edge.ts'

const USER = { Authorization: 'Bearer alice' }

const start = (options: string = 'true', more: EdgeOptions = {}): Promise<Edge> =>
  startEdge({ routes: [`{path: /*, idempotency: ${options}}`], ...more })

describe('a repeated request', () => {
  it('gets the first answer again, head and body, and the origin does not see it', async () => {
    const { gateway, origin } = await start('true', {
      script: (_request, response, count) =>
        void response
          .writeHead(201, { Location: '/orders/7', 'X-Two': ['a', 'b'], 'Content-Type': 'application/json' })
          .end(`{"count":${count}}`),
    })
    const first = await send(gateway)
    const again = await send(gateway)
    expect(first.status).toBe(201)
    expect(isReplayed(first)).toBe(false)
    expect(isReplayed(again)).toBe(true)
    expect([again.status, again.text, again.headers.location]).toEqual([201, '{"count":1}', '/orders/7'])
    expect(again.headers['x-two']).toBe('a, b')
    expect(again.headers.date).toBe(first.headers.date)
    expect(origin.seen).toHaveLength(1)
  })

  it('is told apart in the log, and counted', async () => {
    const { gateway } = await start()
    await send(gateway)
    await send(gateway)
    await send(gateway, { body: 'other' })
    await send(gateway, { key: null })
    const lines = await gateway.requestLines(4)
    expect(lines.map(({ idempotency }) => idempotency)).toEqual(['first', 'replayed', 'refused', undefined])
    const metrics = gateway.gateway.metrics()
    expect(metrics).toContain('weirgate_idempotency_requests_total{outcome="first"} 1\n')
    expect(metrics).toContain('weirgate_idempotency_requests_total{outcome="replayed"} 1\n')
    expect(metrics).toContain('weirgate_idempotency_requests_total{outcome="reused"} 1\n')
    expect(metrics).toMatch(/^weirgate_idempotency_keys 1$/m)
  })

  it('has its key forwarded with the first', async () => {
    const { gateway, origin } = await start()
    await send(gateway, { key: '"quoted \\" key"' })
    expect(origin.seen[0]?.headers['idempotency-key']).toBe('"quoted \\" key"')
  })

  it('may give its key bare or as a String', async () => {
    const { gateway, origin } = await start()
    await send(gateway, { key: KEY })
    expect(isReplayed(await send(gateway, { key: `"${KEY}"` }))).toBe(true)
    expect(origin.seen).toHaveLength(1)
  })

  it.each([
    ['empty', ''],
    ['an empty String', '""'],
    ['a String that does not end', '"abc'],
    ['two keys', 'abc, def'],
    ['blanks in it', 'a b'],
    ['256 characters', 'x'.repeat(256)],
  ])('is refused with a key that is %s', async (_what, key) => {
    const { gateway, origin } = await start()
    const answer = await send(gateway, { key })
    expect([answer.status, codeOf(answer)]).toEqual([400, 'idempotency_key_invalid'])
    expect(origin.seen).toHaveLength(0)
  })

  it('is a request without a key carried out each time, unless the route requires one', async () => {
    const { gateway, origin } = await start()
    await send(gateway, { key: null })
    await send(gateway, { key: null })
    expect(origin.seen).toHaveLength(2)
    const strict = await start('{required: true}')
    const refused = await send(strict.gateway, { key: null })
    expect([refused.status, codeOf(refused)]).toEqual([400, 'idempotency_key_missing'])
    expect((await send(strict.gateway, { key: null, method: 'PUT' })).status).toBe(200)
  })

  it('is one by its method as the route says', async () => {
    const { gateway, origin } = await start('{methods: [put, POST]}')
    for (const method of ['PUT', 'PUT', 'PATCH', 'PATCH']) await send(gateway, { method, key: `${KEY}-${method}` })
    expect(origin.seen.map(({ method }) => method)).toEqual(['PUT', 'PATCH', 'PATCH'])
  })

  it.each<[string, Sent]>([
    ['body', { body: '{"n":2}' }],
    ['method', { method: 'PATCH' }],
    ['path', { path: '/other' }],
    ['query', { path: '/pay?twice' }],
    ['content type', { headers: { ...USER, 'Content-Type': 'text/plain' } }],
  ])('with another %s is refused, whether the first is under way or answered', async (_what, other) => {
    const { script, waiting } = gate()
    const { gateway, origin } = await start('true', { script })
    const first = send(gateway)
    await until(() => waiting.length === 1, 'the first request')
    const early = await send(gateway, other)
    waiting[0]?.()
    await first
    const late = await send(gateway, other)
    for (const answer of [early, late]) {
      expect([answer.status, codeOf(answer)]).toEqual([422, 'idempotency_key_reused'])
      expect(answer.headers['content-type']).toBe('application/problem+json')
    }
    expect(origin.seen).toHaveLength(1)
    expect(isReplayed(await send(gateway))).toBe(true)
  })

  it('a hundred at the same time are one deed, and all get the same bytes', async () => {
    const { script, waiting } = gate()
    const { gateway, origin } = await start('true', { script })
    const all = Array.from({ length: 100 }, () => send(gateway))
    await until(() => waiting.length === 1, 'the first request')
    await until(() => /requests_total\{outcome="first"\} 1/.test(gateway.gateway.metrics()), 'it to be counted')
    waiting[0]?.(200, 'x'.repeat(100_000))
    const answers = await Promise.all(all)
    expect(new Set(answers.map(({ status, text }) => `${status} ${text}`)).size).toBe(1)
    expect(answers.filter(isReplayed)).toHaveLength(99)
    expect(origin.seen).toHaveLength(1)
  })

  it('is gone from memory after its time', async () => {
    vi.useFakeTimers({ toFake: ['Date'] })
    try {
      const { gateway, origin } = await start('{for: 24h}')
      await send(gateway)
      vi.setSystemTime(Date.now() + 86_399_000)
      expect(isReplayed(await send(gateway))).toBe(true)
      vi.setSystemTime(Date.now() + 2000)
      expect((await send(gateway)).text).toBe('answer 2')
      expect(origin.seen).toHaveLength(2)
    } finally {
      vi.useRealTimers()
    }
  })
})

describe('whose key it is', () => {
  it.each<[string, Readonly<Record<string, string>>]>([
    ['another token', { Authorization: 'Bearer bob' }],
    ['no token', {}],
    ['the token and a cookie', { ...USER, Cookie: 'session=1' }],
    ['the token and an API key', { ...USER, 'X-Api-Key': 'k' }],
  ])('with %s it is of somebody else, who gets an answer of his own', async (_what, headers) => {
    const { gateway, origin } = await start()
    await send(gateway)
    const other = await send(gateway, { headers })
    expect([other.text, isReplayed(other)]).toEqual(['answer 2', false])
    // Nor does he learn of the other's request by another body.
    expect((await send(gateway, { headers: { ...headers, 'X-Other': '1' }, body: 'x', key: `${KEY}2` })).status).toBe(
      200,
    )
    expect(origin.seen).toHaveLength(3)
  })

  it('a proved user is the same whichever token says it', async () => {
    const { gateway, origin } = await start('true', {
      more: 'identity: {user: [{header: x-user, trusted: true}]}\ntrustedProxies: [127.0.0.1]',
    })
    const as = (user: string) => send(gateway, { headers: { 'X-User': user } })
    await as('alice')
    expect(isReplayed(await as('alice'))).toBe(true)
    expect(isReplayed(await as('bob'))).toBe(false)
    expect(origin.seen).toHaveLength(2)
  })

  it('the same name is another user where users are known otherwise from now on', async () => {
    const { gateway, origin } = await start('true', {
      more: 'identity: {user: [{header: x-user, trusted: true}]}\ntrustedProxies: [127.0.0.1]',
    })
    const headers = { 'X-User': 'key:alice', 'X-Key': '0123456789abcdef' }
    await send(gateway, { headers })
    const yaml = (identity: string) => `
upstreams: {origin: {targets: [${origin.url}]}}
trustedProxies: [127.0.0.1]
identity: {user: [${identity}]}
routes: [{path: /*, upstream: origin, idempotency: true}]`
    gateway.rewrite(yaml('{header: x-user, trusted: true}'))
    expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
    expect(isReplayed(await send(gateway, { headers }))).toBe(true)
    gateway.rewrite(yaml('{header: x-key, keys: {alice: 0123456789abcdef}}, {header: x-user, trusted: true}'))
    expect(await gateway.gateway.reload()).toMatchObject({ ok: true })
    expect(isReplayed(await send(gateway, { headers: { 'X-User': 'key:alice' } }))).toBe(false)
  })

  it('without credentials it goes by the address, and must be long enough not to be guessed', async () => {
    const { gateway, origin } = await start('true', { more: 'trustedProxies: [127.0.0.1]' })
    const from = (address: string, key = KEY) => send(gateway, { key, headers: { 'X-Forwarded-For': address } })
    await from('192.0.2.1')
    expect(isReplayed(await from('192.0.2.1'))).toBe(true)
    expect(isReplayed(await from('192.0.2.2'))).toBe(false)
    const short = await from('192.0.2.1', 'order-1')
    expect([short.status, codeOf(short)]).toEqual([400, 'idempotency_key_invalid'])
    expect(short.text).toContain('UUID')
    expect(origin.seen).toHaveLength(2)
  })

  it('behind a proxy that logs users in it is the user of whom that tells', async () => {
    const more = 'trustedProxies: [127.0.0.1]'
    const { gateway, origin } = await start('true', { more })
    const as = (user: string, token: string) =>
      send(gateway, { headers: { 'X-Forwarded-User': user, 'X-Forwarded-Access-Token': token } })
    expect((await as('alice', 'one')).text).toBe('answer 1')
    const again = await as('alice', 'two')
    expect([again.text, isReplayed(again)]).toEqual(['answer 1', true])
    const other = await as('bob', 'one')
    expect([other.text, isReplayed(other)]).toEqual(['answer 2', false])
    expect(origin.seen).toHaveLength(2)
  })

  it('on another route it is another key', async () => {
    const { gateway, origin } = await startEdge({
      routes: ['{path: /a, idempotency: true}', '{path: /b, idempotency: true}'],
    })
    expect((await send(gateway, { path: '/a' })).status).toBe(200)
    expect((await send(gateway, { path: '/b' })).text).toBe('answer 2')
    expect(origin.seen).toHaveLength(2)
  })
})

describe('what is recorded', () => {
  it.each([200, 202, 204, 303, 400, 402, 403, 404, 412, 422])('%i is the answer from then on', async (status) => {
    const { gateway, origin } = await start('true', { script: (_r, response) => void response.writeHead(status).end() })
    await send(gateway)
    const again = await send(gateway)
    expect([again.status, isReplayed(again)]).toEqual([status, true])
    expect(origin.seen).toHaveLength(1)
  })

  it.each([401, 408, 409, 425, 429, 501, 503])('%i leaves the key free: nothing was done', async (status) => {
    const { gateway, origin } = await start('true', {
      script: (_r, response, count) => void response.writeHead(count === 1 ? status : 201).end(),
    })
    expect((await send(gateway)).status).toBe(status)
    expect((await send(gateway)).status).toBe(201)
    expect(isReplayed(await send(gateway))).toBe(true)
    expect(origin.seen).toHaveLength(2)
  })

  it.each([500, 502, 504])('after %i nobody knows whether it was done: it is not sent again', async (status) => {
    const { gateway, origin } = await start('true', {
      script: (_r, response) => void response.writeHead(status).end('?'),
    })
    expect((await send(gateway)).text).toBe('?')
    const again = await send(gateway)
    expect([again.status, codeOf(again)]).toEqual([409, 'idempotency_unknown'])
    expect(origin.seen).toHaveLength(1)
  })

  it('unless the upstream knows the key itself, as the route says', async () => {
    const { gateway, origin } = await start('{unknown: retry}', {
      script: (request, response, count) => void (count === 1 ? request.socket.destroy() : response.end('done')),
    })
    expect((await send(gateway)).status).toBe(502)
    expect((await send(gateway)).text).toBe('done')
    expect(isReplayed(await send(gateway))).toBe(true)
    expect(origin.seen.map(({ headers }) => headers['idempotency-key'])).toEqual([KEY, KEY])
  })

  it.each<[string, (response: ServerResponse) => void]>([
    ['before its head', (response) => void response.destroy()],
    [
      'in its body',
      (response) => void response.writeHead(200, { 'Content-Length': '10' }).write('12345', () => response.destroy()),
    ],
  ])('an answer that breaks off %s tells nobody what was done', async (_when, script) => {
    const { gateway, origin } = await start('true', { script: (_r, response) => script(response) })
    await Promise.allSettled([send(gateway)])
    const again = await send(gateway)
    expect([again.status, codeOf(again)]).toEqual([409, 'idempotency_unknown'])
    expect(origin.seen).toHaveLength(1)
  })

  it('an answer whose end nobody can prove is not told again', async () => {
    const origin = await startRawOrigin((socket) => void socket.end('HTTP/1.1 200 OK\r\n\r\nperhaps all'))
    const gateway = await startGatewayBefore(origin.url, { routes: ['{path: /*, idempotency: true}'] })
    try {
      expect((await send(gateway)).text).toBe('perhaps all')
      const again = await send(gateway)
      expect([again.status, codeOf(again)]).toEqual([409, 'idempotency_not_kept'])
      expect(origin.connections).toBe(1)
    } finally {
      await origin.close()
    }
  })

  it('a request that never was sent leaves the key free', async () => {
    const { gateway, origin } = await start('true', { upstream: 'concurrency: {max: 1, queue: 0}' })
    const { script, waiting } = gate()
    origin.answer(script)
    const busy = send(gateway, { key: null })
    await until(() => waiting.length === 1, 'the place to be taken')
    expect((await send(gateway)).status).toBe(503)
    waiting[0]?.()
    await busy
    const second = send(gateway)
    await until(() => waiting.length === 2, 'the request')
    waiting[1]?.()
    expect((await second).status).toBe(201)
  })

  it('a larger one goes whole to the first, and is not asked for again', async () => {
    const { gateway, origin } = await start('{maxAnswer: 1KiB}', {
      script: (_r, response) => {
        response.write('a'.repeat(700))
        setTimeout(() => response.end('b'.repeat(700)), 20)
      },
    })
    const both = [send(gateway), send(gateway)]
    const [first, joined] = await Promise.all(both)
    const sorted = [first, joined].toSorted((a, b) => (a?.status ?? 0) - (b?.status ?? 0)) as [Answer, Answer]
    expect([sorted[0].status, sorted[0].text.length]).toEqual([200, 1400])
    expect([sorted[1].status, codeOf(sorted[1])]).toEqual([409, 'idempotency_not_kept'])
    expect(codeOf(await send(gateway))).toBe('idempotency_not_kept')
    expect(origin.seen).toHaveLength(1)
    expect(gateway.gateway.metrics()).toMatch(/^weirgate_idempotency_bytes 0$/m)
  })

  it('a stream comes to the first as it is sent, and to others when it is whole', async () => {
    let go = (): void => {}
    const { gateway, origin } = await start('true', {
      script: (_r, response) => {
        response.writeHead(200, { 'Content-Type': 'text/event-stream' }).write('data: 1\n\n')
        go = () => void response.end('data: 2\n\n')
      },
    })
    const first = await converse(
      gateway.port,
      `POST /pay HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\nIdempotency-Key: ${KEY}\r\nContent-Length: 0\r\n\r\n`,
    )
    await first.expect('data: 1')
    const joined = request(`${gateway.url}/pay`, {
      method: 'POST',
      headers: { Host: 'a', ...USER, 'Idempotency-Key': KEY, 'Content-Length': '0' },
    })
    go()
    await first.expect('data: 2')
    expect((await joined).text).toBe('data: 1\n\ndata: 2\n\n')
    first.destroy()
    expect(origin.seen).toHaveLength(1)
  })
})

describe('bounds', () => {
  it('a body that is too large to be held is refused, and not sent', async () => {
    const { gateway, origin } = await start('{maxBody: 1KiB}')
    const declared = await send(gateway, { body: 'x'.repeat(1025) })
    expect([declared.status, codeOf(declared)]).toEqual([413, 'body_too_large'])
    const chunked = await send(gateway, {
      body: 'x'.repeat(1025),
      headers: { ...USER, 'Transfer-Encoding': 'chunked' },
      key: `${KEY}-chunked`,
    })
    expect([chunked.status, codeOf(chunked)]).toEqual([413, 'body_too_large'])
    expect((await send(gateway, { body: 'x'.repeat(1024) })).status).toBe(200)
    expect((await send(gateway, { body: 'x'.repeat(2000), key: null })).status).toBe(200)
    expect(origin.seen).toHaveLength(2)
  })

  it('the oldest answers go where they take too much memory, and their requests are not sent again', async () => {
    const { gateway, origin } = await start('true', {
      more: 'idempotency: {memory: 1MiB}',
      script: (_r, response) => void response.end('x'.repeat(400 * 1024)),
    })
    for (const n of [1, 2, 3]) await send(gateway, { key: `${KEY}${n}` })
    expect(codeOf(await send(gateway, { key: `${KEY}1` }))).toBe('idempotency_not_kept')
    expect(isReplayed(await send(gateway, { key: `${KEY}2` }))).toBe(true)
    expect(isReplayed(await send(gateway, { key: `${KEY}3` }))).toBe(true)
    expect(origin.seen).toHaveLength(3)
    expect(gateway.gateway.metrics()).toContain('weirgate_idempotency_dropped_total{what="answers"} 1\n')
  })
})

describe('a client that goes', () => {
  it('does not stop what has begun, and finds the answer when it asks again', async () => {
    const { script, waiting } = gate()
    const edge = await start('true', { script })
    const { gateway, origin } = edge
    const gone = await converse(
      gateway.port,
      `POST /pay HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\nIdempotency-Key: ${KEY}\r\nContent-Length: 2\r\n\r\n{}`,
    )
    await until(() => waiting.length === 1, 'the request')
    gone.destroy()
    const [line] = await gateway.requestLines(1)
    expect(line).toMatchObject({ status_code: 499 })
    const again = request(`${gateway.url}/pay`, {
      method: 'POST',
      headers: { Host: 'a', ...USER, 'Idempotency-Key': KEY },
      body: '{}',
    })
    waiting[0]?.(201, 'done')
    const answer = await again
    expect([answer.status, answer.text, isReplayed(answer)]).toEqual([201, 'done', true])
    expect([origin.seen.length, origin.aborted]).toEqual([1, 0])
    await settled(edge)
  })

  it('in the middle of an answer neither, however large that is', async () => {
    let go = (): void => {}
    const edge = await start('true', {
      script: (_r, response) => {
        response.write('begin')
        go = () => void response.end('x'.repeat(500_000))
      },
    })
    const gone = await converse(
      edge.gateway.port,
      `POST /pay HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\nIdempotency-Key: ${KEY}\r\nContent-Length: 0\r\n\r\n`,
    )
    await gone.expect('begin')
    gone.destroy()
    await edge.gateway.requestLines(1)
    go()
    const again = await request(`${edge.gateway.url}/pay`, {
      method: 'POST',
      headers: { Host: 'a', ...USER, 'Idempotency-Key': KEY, 'Content-Length': '0' },
    })
    expect([again.text.length, isReplayed(again)]).toEqual([500_005, true])
    expect([edge.origin.seen.length, edge.origin.aborted]).toEqual([1, 0])
  })

  it('is waited for when the gateway ends', async () => {
    const { script, waiting } = gate()
    const { gateway, origin } = await start('true', { script })
    const gone = await converse(
      gateway.port,
      `POST /pay HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\nIdempotency-Key: ${KEY}\r\nContent-Length: 0\r\n\r\n`,
    )
    await until(() => waiting.length === 1, 'the request')
    gone.destroy()
    await gateway.requestLines(1)
    let isDrained = false
    const drained = gateway.gateway.drain().then(() => (isDrained = true))
    // Time enough for one that does not wait.
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect([isDrained, origin.aborted]).toEqual([false, 0])
    waiting[0]?.()
    await drained
    expect(origin.aborted).toBe(0)
  })

  it('with half of its body sent has asked for nothing', async () => {
    const { gateway, origin } = await start()
    const gone = await converse(
      gateway.port,
      `POST /pay HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\nIdempotency-Key: ${KEY}\r\nContent-Length: 7\r\n\r\n{"n`,
    )
    gone.destroy()
    await gateway.requestLines(1)
    expect((await send(gateway)).text).toBe('answer 1')
    expect(origin.seen).toHaveLength(1)
  })

  it('ends with the timers of the upstream at the latest', async () => {
    const edge = await start('true', {
      script: () => {},
      upstream: 'timeouts: {firstByte: 100ms}',
    })
    const gone = await converse(
      edge.gateway.port,
      `POST /pay HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\nIdempotency-Key: ${KEY}\r\nContent-Length: 0\r\n\r\n`,
    )
    await until(() => edge.origin.seen.length === 1, 'the request')
    gone.destroy()
    await edge.gateway.requestLines(1)
    await settled(edge)
    const again = await request(`${edge.gateway.url}/pay`, {
      method: 'POST',
      headers: { Host: 'a', ...USER, 'Idempotency-Key': KEY, 'Content-Length': '0' },
    })
    expect(codeOf(again)).toBe('idempotency_unknown')
  })
})

describe('beside limits', () => {
  it('a repeat counts as a request, and not as a miss', async () => {
    const { gateway, origin } = await start('true, limits: [all, misses]', {
      more: `limits:
  all: {limit: 4, window: 1h, key: ip}
  misses: {limit: 1, window: 1h, key: ip, count: miss}`,
    })
    const statuses: number[] = []
    for (let i = 0; i < 5; i++) statuses.push((await send(gateway)).status)
    expect(statuses).toEqual([200, 200, 200, 200, 429])
    expect(origin.seen).toHaveLength(1)
  })

  it('a repeat uses no tokens', async () => {
    const { gateway } = await start('true, limits: [tokens]', {
      more: 'limits: {tokens: {unit: tokens, limit: 100, window: 1h, key: ip, reserve: 10}}',
      script: (_r, response) =>
        void response
          .setHeader('Content-Type', 'application/json')
          .end('{"usage":{"prompt_tokens":40,"completion_tokens":20,"total_tokens":60}}'),
    })
    const statuses: number[] = []
    for (let i = 0; i < 4; i++) statuses.push((await send(gateway)).status)
    expect(statuses).toEqual([200, 200, 200, 200])
    const left = async (key: string) => Number((await send(gateway, { key })).headers['x-ratelimit-remaining'])
    expect(await left(KEY)).toBeGreaterThanOrEqual(30)
    expect((await send(gateway, { key: `${KEY}2` })).status).toBe(200)
    expect((await send(gateway, { key: `${KEY}3` })).status).toBe(429)
  })

  it('a refusal on misses leaves the key free', async () => {
    const { gateway } = await start('true, limits: [misses]', {
      more: 'limits: {misses: {limit: 1, window: 1h, key: ip, count: miss}}',
    })
    await send(gateway, { key: `${KEY}-1` })
    expect((await send(gateway)).status).toBe(429)
    expect((await send(gateway)).status).toBe(429)
    expect(isReplayed(await send(gateway, { key: `${KEY}-1` }))).toBe(true)
  })

  it('who waits for the first takes no slot, and the first holds its own without its client', async () => {
    const { script, waiting } = gate()
    const { gateway } = await start('true, limits: [slots]', {
      script,
      more: 'limits: {slots: {kind: concurrency, limit: 1, key: ip}}',
    })
    const controller = await converse(
      gateway.port,
      `POST /pay HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\nIdempotency-Key: ${KEY}\r\nContent-Length: 0\r\n\r\n`,
    )
    await until(() => waiting.length === 1, 'the request')
    controller.destroy()
    await gateway.requestLines(1)
    expect((await send(gateway, { key: `${KEY}-other` })).status).toBe(429)
    const joined = request(`${gateway.url}/pay`, {
      method: 'POST',
      headers: { Host: 'a', ...USER, 'Idempotency-Key': KEY, 'Content-Length': '0' },
    })
    waiting[0]?.()
    expect((await joined).status).toBe(201)
    const after = send(gateway, { key: `${KEY}-other` })
    await until(() => waiting.length === 2, 'the slot to be free')
    waiting[1]?.()
    expect((await after).status).toBe(201)
  })
})

describe('beside a cache', () => {
  const CACHED = 'true, methods: [POST], cache: {ttl: 1h, scope: public, key: {body: canonical}}'

  it('the key has its answer, whatever the cache would say; a stored answer is one as well', async () => {
    const { gateway, origin } = await start(CACHED)
    const plain = await send(gateway, { key: null })
    expect([plain.text, plain.headers['x-cache']]).toEqual(['answer 1', 'MISS'])
    const first = await send(gateway)
    expect([first.text, first.headers['x-cache'], isReplayed(first)]).toEqual(['answer 1', 'HIT', false])
    await gateway.gateway.purge({ all: true })
    const again = await send(gateway)
    expect([again.text, isReplayed(again)]).toEqual(['answer 1', true])
    expect((await send(gateway, { key: null })).text).toBe('answer 2')
    // Stored or not: another body with the key is a fault.
    await send(gateway, { key: null, body: '{"n":2}' })
    expect((await send(gateway, { body: '{"n":2}' })).status).toBe(422)
    expect(origin.seen).toHaveLength(3)
  })

  it.each(['abort', 'finish', 'auto'])('a client that goes stops nothing, with onAbort: %s', async (onAbort) => {
    const { script, waiting } = gate()
    const { gateway, origin } = await start(CACHED.replace('ttl: 1h', `ttl: 1h, onAbort: ${onAbort}`), { script })
    const gone = await converse(
      gateway.port,
      `POST /pay HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer alice\r\nContent-Type: application/json\r\nIdempotency-Key: ${KEY}\r\nContent-Length: 2\r\n\r\n{}`,
    )
    await until(() => waiting.length === 1, 'the request')
    gone.destroy()
    await gateway.requestLines(1)
    waiting[0]?.(200)
    const again = await send(gateway, { body: '{}', headers: { ...USER, Host: 'a' } })
    expect([again.text, isReplayed(again)]).toEqual(['deed 1', true])
    expect([origin.seen.length, origin.aborted]).toEqual([1, 0])
  })

  it('an answer of the gateway itself, that nothing is stored, leaves the key free', async () => {
    const { gateway } = await start(CACHED.replace('ttl: 1h', 'ttl: 1h, clientControl: honor'))
    const asked = await send(gateway, { headers: { ...USER, 'Cache-Control': 'only-if-cached' } })
    expect([asked.status, codeOf(asked)]).toEqual([504, 'not_cached'])
    expect((await send(gateway)).text).toBe('answer 1')
  })

  it('requests with keys of their own share one fetch, and leave none behind when their clients go', async () => {
    const { script, waiting } = gate()
    const { gateway, origin } = await start(CACHED, { script })
    const all = [1, 2, 3].map((n) => send(gateway, { key: `${KEY}${n}` }))
    await until(() => waiting.length === 1, 'the fetch')
    waiting[0]?.(200)
    expect((await Promise.all(all)).map(({ text }) => text)).toEqual(['deed 1', 'deed 1', 'deed 1'])
    expect(isReplayed(await send(gateway, { key: `${KEY}2` }))).toBe(true)
    expect(origin.seen).toHaveLength(1)
  })
})

it('is explained, and shown in the table of routes', async () => {
  const { gateway } = await start('{for: 1h, required: true}')
  const { gateway: control } = gateway
  expect(control.routes()[0]?.idempotency).toBe('POST PATCH, 1h, required')
  const ask = async (headers: readonly string[], body = '{"n":1}', method = 'POST') =>
    (await control.explain({ method, url: `${gateway.url}/pay`, headers, body })).idempotency
  const fields = [
    'Host',
    'shop.test',
    'Content-Type',
    'application/json',
    'Authorization',
    'Bearer alice',
    'Idempotency-Key',
    KEY,
  ]
  expect(await ask([])).toBe('missing')
  expect(await ask(['Idempotency-Key', 'short'])).toBe('invalid')
  expect(await ask(fields)).toBe('first')
  await send(gateway)
  expect(await ask(fields)).toBe('replayed')
  expect(await ask(fields, 'else')).toBe('reused')
  expect(await ask(fields, '', 'GET')).toBeNull()
})

it('survives a reload', async () => {
  const { gateway, origin } = await start()
  await send(gateway)
  await gateway.gateway.reload()
  expect(isReplayed(await send(gateway))).toBe(true)
  expect(origin.seen).toHaveLength(1)
})
