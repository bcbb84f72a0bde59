// Budgets in tokens over real sockets: an AI service that says what it used, clients that wait, share, hang up, and what
// is charged for it.

import type { ServerResponse } from 'node:http'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { converse, request } from '../support/client.ts'
import { arrived, startEdge } from '../support/edge.ts'
import type { Script } from '../support/origin.ts'
import { owing } from '../support/owing.ts'
import { until } from '../support/gateway.ts'

const LIMIT = 10_000

interface World {
  readonly script?: Script
  readonly route?: string
  readonly limit?: string
  readonly reserve?: string
}

async function start({ script = answering(10, 20), route = '', limit = '', reserve = 'reserve: 1000' }: World = {}) {
  const edge = await startEdge({
    routes: [`{path: /*, limits: [tpm], ${route}}`],
    more: `limits:\n  tpm: {unit: tokens, limit: ${LIMIT}, window: 1h, ${[reserve, limit].filter(Boolean).join(', ')}}`,
    script,
  })
  const used = async (): Promise<number> => {
    const { remaining } = await edge.gateway.gateway.limitStanding('tpm', { ip: '127.0.0.1' })
    return LIMIT - remaining
  }
  const settles = async (tokens: number): Promise<void> => {
    let seen = -1
    await until(() => {
      void used().then((now) => (seen = now))
      return seen === tokens
    }, `${tokens} tokens used`)
  }
  const post = (path: string, body: object, headers = {}) =>
    request(edge.gateway.url + path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body: JSON.stringify(body),
    })
  return { ...edge, used, settles, post }
}

const usage = (input: number, output: number) => ({ usage: { prompt_tokens: input, completion_tokens: output } })

const answering =
  (input: number, output: number): Script =>
  (_request, response) => {
    response.setHeader('Content-Type', 'application/json')
    response.end(JSON.stringify({ choices: [], ...usage(input, output) }))
  }

/** Answers as a stream that the test writes. */
function streaming() {
  const open: ServerResponse[] = []
  const script: Script = (_request, response) => {
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    open.push(response)
  }
  const say = (...events: object[]) => {
    for (const event of events) open[0]?.write(`data: ${JSON.stringify(event)}\n\n`)
  }
  return { script, open, say }
}

const word = (content: string) => ({ id: 'x', object: 'chunk', choices: [{ index: 0, delta: { content } }] })

/** A client that takes a stream of 2000 words, of one token each at least, and goes before its end. */
async function hangsUpAfter2000(limit = '') {
  const { script, open, say } = streaming()
  const started = await start({ script, limit })
  const client = await converse(started.gateway.port, 'GET /chat HTTP/1.1\r\nHost: x\r\n\r\n')
  await until(() => open.length === 1, 'the stream')
  say(...Array.from({ length: 2000 }, (_, i) => word(`w${i}`)))
  await client.expect('w1999')
  client.reset()
  await until(() => started.origin.aborted === 1, 'the end of the call')
  return started
}

describe('a budget in tokens', () => {
  it('is charged what the answer says', async () => {
    const { post, settles } = await start()
    const { status, text } = await post('/chat', { prompt: 'x' })
    expect([status, JSON.parse(text)]).toMatchObject([200, usage(10, 20)])
    await settles(30)
  })

  it('refuses who has spent it, and says when there is more', async () => {
    const { post, settles } = await start({ script: answering(4000, 8000) })
    expect((await post('/chat', {})).status).toBe(200)
    await settles(LIMIT)
    const { status, headers } = await post('/chat', {})
    expect([status, headers['x-ratelimit-remaining']]).toEqual([429, '0'])
    expect(Number(headers['retry-after'])).toBeGreaterThan(3000)
  })

  it('is charged what a stream says, which passes as it comes', async () => {
    const { script, open, say } = streaming()
    const { gateway, settles, used } = await start({ script })
    const client = await converse(gateway.port, 'GET /chat HTTP/1.1\r\nHost: x\r\n\r\n')
    await until(() => open.length === 1, 'the stream')
    say(word('Hel'))
    await client.expect('Hel')
    say(word('lo'))
    await client.expect('lo')
    expect(await used()).toBe(1000)
    say({ ...usage(100, 200), choices: [] })
    open[0]?.end()
    await client.expect('\r\n0\r\n\r\n')
    await settles(300)
  })

  it('is charged for what had come when its client hangs up', async () => {
    const { used } = await hangsUpAfter2000()
    let tokens = 0
    await until(() => {
      void used().then((now) => (tokens = now))
      return tokens > 1000
    }, 'the call to be charged')
    expect(tokens).toBeGreaterThanOrEqual(2000)
    expect(tokens).toBeLessThan(2100)
  })

  it('is charged for nothing that nobody has worked on', async () => {
    const { post, settles, origin, used } = await start()
    await origin.close()
    expect((await post('/chat', { prompt: 'x'.repeat(400) })).status).toBe(502)
    await settles(0)
    expect(await used()).toBe(0)
  })

  it('is charged for nothing that the service refuses', async () => {
    const { post, settles, used } = await start({
      script: (_request, response) => response.writeHead(429, { 'Retry-After': '5' }).end('{}'),
    })
    expect((await post('/chat', {})).status).toBe(429)
    await settles(0)
    expect(await used()).toBe(0)
  })

  it('is charged for the request where the service fails it', async () => {
    const { post, settles } = await start({
      script: (_request, response) =>
        response.writeHead(500, { 'Content-Type': 'application/json' }).end('{"error":1}'),
    })
    expect((await post('/chat', { prompt: 'x'.repeat(400 - 13) })).status).toBe(500)
    await settles(100)
  })

  it('is charged for the request where its answer does not come', async () => {
    const { post, settles } = await start({ script: () => {}, route: 'timeouts: {firstByte: 50ms}' })
    expect((await post('/chat', { prompt: 'x'.repeat(400 - 13) })).status).toBe(504)
    await settles(100)
  })
})

describe('a budget in tokens that counts what succeeds', () => {
  const limit = 'count: success'

  it('is charged what that has used, and for nothing that fails', async () => {
    const { post, settles, used, origin } = await start({ limit })
    await post('/chat', { prompt: 'x' })
    await settles(30)
    const failing = [
      ((_request, response) => response.writeHead(500).end('{"error":1}')) satisfies Script,
      ((_request, response) => response.writeHead(400).end('{"error":1}')) satisfies Script,
      ((_request, response) => response.destroy()) satisfies Script,
    ]
    for (const script of failing) {
      origin.answer(script)
      expect((await post('/chat', { prompt: 'x'.repeat(4000) })).status).toBeGreaterThanOrEqual(400)
      await settles(30)
    }
    expect(await used()).toBe(30)
  })

  it('is charged for what has been done when a client hangs up', async () => {
    const { used } = await hangsUpAfter2000(limit)
    let tokens = 1000
    await until(() => {
      void used().then((now) => (tokens = now))
      return tokens !== 1000
    }, 'the call to be settled')
    expect(tokens).toBeGreaterThanOrEqual(2000)
  })

  it('is charged for the request of a client that does not wait for the answer', async () => {
    const { gateway, settles, used, origin } = await start({ script: () => {}, limit })
    const head = `POST /chat HTTP/1.1\r\nHost: x\r\nContent-Length: 400\r\n\r\n`
    const client = await converse(gateway.port, head + 'x'.repeat(400))
    await until(() => origin.seen.length === 1, 'the call')
    client.reset()
    await settles(100)
    expect(await used()).toBe(100)
  })
})

describe('a budget in tokens and an Idempotency-Key', () => {
  it('is charged once for a call that is asked for twice', async () => {
    const { post, settles, origin } = await start({ route: 'idempotency: true' })
    const key = { 'Idempotency-Key': '8e03978e-40d5-43dd-bc93-6894a57f9324' }
    const [first, second] = [await post('/chat', { prompt: 'x' }, key), await post('/chat', { prompt: 'x' }, key)]
    expect([first.status, second.status, second.headers['idempotency-replayed']]).toEqual([200, 200, 'true'])
    await settles(30)
    expect(origin.seen).toHaveLength(1)
  })
})

describe('a reservation by the body', () => {
  const limit =
    'reserve: {input: [prompt, /messages], output: [max_tokens, max_completion_tokens], times: n, default: 700}'

  async function reservedFor(body: string): Promise<[number, string]> {
    const { script, owes } = owing()
    const { gateway, used, origin } = await start({ script, limit, reserve: '' })
    const asked = request(`${gateway.url}/chat`, { method: 'POST', body })
    const call = await owes(1)
    const reserved = await used()
    const seen = String(await origin.seen[0]?.body)
    call.writeHead(429).end()
    await asked
    return [reserved, seen]
  }

  it.each([
    ['texts and the cap', { prompt: 'x'.repeat(40), max_tokens: 300 }, 310],
    ['the largest of the caps', { max_tokens: 1, max_completion_tokens: 300 }, 300],
    ['a cap for each answer', { max_tokens: 300, n: 3 }, 900],
    ['what is taken for granted without a cap', { prompt: 'x'.repeat(40) }, 710],
    [
      'all texts below a field',
      { messages: [{ content: 'x'.repeat(40) }, { content: [{ text: 'é'.repeat(20) }] }] },
      720,
    ],
    ['no more than there is', { max_tokens: 1e12, n: 1e12 }, LIMIT],
    ['what is taken for granted for caps that are none', { max_tokens: -5, n: 'many' }, 700],
  ])('counts %s', async (_what, body, reserved) => {
    const text = JSON.stringify(body)
    expect(await reservedFor(text)).toEqual([reserved, text])
  })

  it.each([
    ['no JSON', 'x'.repeat(400), 800],
    ['a repeated name', `{"max_tokens":5,"max_tokens":9,"x":"${'x'.repeat(400 - 38)}"}`, 800],
    ['more than is read', 'x'.repeat(300 * 1024), LIMIT],
  ])('goes by the length of %s, which goes on as it is', async (_what, text, reserved) => {
    expect(await reservedFor(text)).toEqual([reserved, text])
  })

  it('goes by the body that a cache has read already', async () => {
    const route = 'methods: [POST], cache: {ttl: 1h, scope: public, key: {body: canonical}}'
    const { post, settles, origin } = await start({ route, limit, reserve: '' })
    await post('/chat', { prompt: 'a', max_tokens: 50 })
    await settles(30)
    expect(String(await origin.seen[0]?.body)).toBe('{"prompt":"a","max_tokens":50}')
    expect((await post('/chat', { prompt: 'a', max_tokens: 50 })).headers['x-cache']).toBe('HIT')
    await settles(30)
  })
})

describe('a budget in tokens before a cache', () => {
  const route = 'methods: [POST], cache: {ttl: 1h, scope: public, key: {body: canonical}}'

  it('is charged for what is fetched, and for no hit', async () => {
    const { post, settles, origin } = await start({ route })
    const caches = []
    for (const prompt of ['a', 'a', 'a', 'b']) caches.push((await post('/chat', { prompt })).headers['x-cache'])
    expect(caches).toEqual(['MISS', 'HIT', 'HIT', 'MISS'])
    await settles(60)
    expect(origin.seen).toHaveLength(2)
  })

  it('is charged once for all who wait for the same answer', async () => {
    const { script, owes } = owing()
    const { post, settles, used, gateway } = await start({ route, script })
    const asked = [1, 2, 3, 4].map(() => post('/chat', { prompt: 'a' }))
    const call = await owes(1)
    await arrived(gateway, 4)
    expect(await used()).toBe(1000)
    call.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(usage(10, 20)))
    expect((await Promise.all(asked)).map(({ status }) => status)).toEqual([200, 200, 200, 200])
    await settles(30)
  })

  it('is charged what the whole has used where its first client has gone, and another waits', async () => {
    const { script, owes } = owing()
    const { gateway, settles, used, origin } = await start({ route: 'cache: {ttl: 1h}', script })
    const first = await converse(gateway.port, 'GET /chat HTTP/1.1\r\nHost: x\r\n\r\n')
    const call = await owes(1)
    const second = await converse(gateway.port, 'GET /chat HTTP/1.1\r\nHost: x\r\n\r\n')
    await arrived(gateway, 2)
    first.reset()
    await until(() => gateway.log.some((line) => line['status_code'] === 499), 'the first to be gone')
    expect(await used()).toBe(1000)
    call.writeHead(200, { 'Content-Type': 'application/json' }).end(JSON.stringify(usage(10, 4000)))
    await second.expect('4000')
    await settles(4010)
    expect(origin.seen).toHaveLength(1)
  })

  it('tells in metrics what was used, reserved and saved', async () => {
    const { post, settles, gateway } = await start({ route })
    for (const prompt of ['a', 'a', 'a']) await post('/chat', { prompt })
    await settles(30)
    const lines = gateway.gateway.metrics().split('\n')
    expect(lines.filter((line) => line.startsWith('weirgate_tokens_total'))).toEqual([
      'weirgate_tokens_total{route="POST /*",kind="input",source="actual"} 10',
      'weirgate_tokens_total{route="POST /*",kind="output",source="actual"} 20',
      'weirgate_tokens_total{route="POST /*",kind="input",source="saved"} 20',
      'weirgate_tokens_total{route="POST /*",kind="output",source="saved"} 40',
    ])
    expect(lines.filter((line) => line.startsWith('weirgate_limit_units_total'))).toEqual([
      'weirgate_limit_units_total{policy="tpm",event="reserved"} 1000',
      'weirgate_limit_units_total{policy="tpm",event="charged"} 30',
    ])
  })

  it('still serves what is stored when it is spent', async () => {
    const { post, settles } = await start({ route, script: answering(6000, 6000) })
    await post('/chat', { prompt: 'a' })
    await settles(LIMIT)
    expect((await post('/chat', { prompt: 'b' })).status).toBe(429)
    expect((await post('/chat', { prompt: 'a' })).status).toBe(200)
  })
})

describe('an answer under a budget in tokens', () => {
  it('is asked for without compression, and is charged as reserved where it comes with one all the same', async () => {
    const { post, settles, origin } = await start({
      script: (incoming, response) => {
        const text = JSON.stringify(usage(10, 20))
        const isGzip = incoming.url === '/gzip'
        response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Encoding': isGzip ? 'gzip' : 'br' })
        response.end(isGzip ? gzipSync(text) : brotliCompressSync(text))
      },
    })
    const { headers } = await post('/gzip', {}, { 'Accept-Encoding': 'gzip, br' })
    expect(headers['content-encoding']).toBe('gzip')
    expect(origin.seen[0]?.headers['accept-encoding']).toBe('identity')
    await settles(1000)
    await post('/br', {})
    await settles(2000)
  })

  it('of a route that counts no tokens is asked for as the client asks', async () => {
    const edge = await startEdge({
      more: 'limits:\n  every: {limit: 10, window: 1h}',
      routes: ['{path: /*, limits: [every]}'],
    })
    await request(`${edge.gateway.url}/x`, { headers: { 'Accept-Encoding': 'gzip, br' } })
    expect(edge.origin.seen[0]?.headers['accept-encoding']).toBe('gzip, br')
  })
})
