// Many clients, one fetch: what each of them gets, and what the origin sees, when all goes well and when it does not.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { type Answer, type Conversation, converse, request } from '../support/client.ts'
import { type Edge, type EdgeOptions, arrived, settled, startEdge, startGatewayBefore } from '../support/edge.ts'
import { until } from '../support/gateway.ts'
import { closedPort } from '../support/origin.ts'

interface Owing extends Edge {
  /** Exchanges at the origin, in order; it answers none by itself. */
  readonly owed: readonly { readonly message: IncomingMessage; readonly response: ServerResponse }[]
  owes(count: number): Promise<void>
}

async function startOwing(route = 'ttl: 1h', options: EdgeOptions = {}): Promise<Owing> {
  const owed: { message: IncomingMessage; response: ServerResponse }[] = []
  const edge = await startEdge({
    routes: [`{path: /*, cache: {${route}}}`],
    upstream: 'retries: 0, connections: 256',
    script: (message, response) => void owed.push({ message, response }),
    ...options,
  })
  return { ...edge, owed, owes: (count) => until(() => owed.length >= count, `${count} fetches`) }
}

const get = ({ gateway }: Pick<Edge, 'gateway'>, headers: Record<string, string> = {}): Promise<Answer> =>
  request(`${gateway.url}/x`, { headers })

/** The answer's text, or that it broke. */
const outcome = (answer: Promise<Answer>): Promise<string> =>
  answer.then(
    ({ status, text }) => `${status} ${text}`,
    () => 'broken',
  )

const cacheWords = async (answers: readonly Promise<Answer>[]): Promise<Record<string, number>> => {
  const counts: Record<string, number> = {}
  for (const { headers } of await Promise.all(answers)) {
    const word = String(headers['x-cache'])
    counts[word] = (counts[word] ?? 0) + 1
  }
  return counts
}

const rawGet = ({ gateway }: Pick<Edge, 'gateway'>): Promise<Conversation> =>
  converse(gateway.port, `GET /x HTTP/1.1\r\nHost: 127.0.0.1:${gateway.port}\r\n\r\n`)

describe('many clients on one cold key', () => {
  it('cost one fetch, and all get the same, whole', async () => {
    const edge = await startOwing()
    const answers = Array.from({ length: 200 }, () => get(edge))
    await edge.owes(1)
    await arrived(edge.gateway, 200)
    const { response } = edge.owed[0] as Owing['owed'][number]
    const parts = Array.from({ length: 40 }, (_, i) => Buffer.alloc(16 * 1024, i))
    for (const part of parts) {
      response.write(part)
      await new Promise((resolve) => setImmediate(resolve))
    }
    response.end()
    const expected = Buffer.concat(parts)
    for (const answer of answers) expect((await answer).body.equals(expected)).toBe(true)
    expect(await cacheWords(answers)).toEqual({ MISS: 1, COLLAPSED: 199 })
    expect(edge.owed).toHaveLength(1)
    const again = await get(edge)
    expect([again.headers['x-cache'], again.body.equals(expected)]).toEqual(['HIT', true])
    const lines = await edge.gateway.requestLines(201)
    const sent = lines.filter(({ path }) => path === '/x').map(({ bytes, error }) => [bytes, error])
    expect(sent).toEqual(sent.map(() => [expected.length, undefined]))
    await settled(edge)
  })

  it('cost one fetch each where the route does not collapse', async () => {
    const edge = await startOwing('ttl: 1h, collapse: false')
    const answers = [get(edge), get(edge), get(edge)]
    await edge.owes(3)
    for (const { response } of edge.owed) response.end('x')
    expect(await cacheWords(answers)).toEqual({ MISS: 3 })
  })

  it('tell what became of them', async () => {
    const edge = await startOwing()
    const leader = get(edge)
    await edge.owes(1)
    const follower = get(edge)
    await arrived(edge.gateway, 2)
    edge.owed[0]?.response.end('x')
    expect((await leader).headers).toMatchObject({ 'cache-status': 'weirgate; fwd=miss; stored; detail=absent' })
    expect((await follower).headers).toMatchObject({
      'cache-status': 'weirgate; fwd=miss; collapsed; detail=absent',
      age: '0',
    })
    await settled(edge)
    const lines = (await edge.gateway.requestLines(4)).filter(({ path }) => path === '/x')
    expect(lines.toSorted((a, b) => String(a['cache']).localeCompare(String(b['cache'])))).toEqual([
      expect.objectContaining({ cache: 'collapsed', upstream_ms: null }),
      expect.objectContaining({ cache: 'miss', upstream_ms: expect.any(Number) }),
    ])
  })

  it('cost one fetch for each variant', async () => {
    const edge = await startOwing()
    const languages = ['en', 'de', 'fr', 'it']
    const answers = languages.flatMap((language) =>
      Array.from({ length: 5 }, () => get(edge, { 'Accept-Language': language })),
    )
    await edge.owes(1)
    await arrived(edge.gateway, 20)
    const answer = ({ message, response }: Owing['owed'][number]) =>
      response.writeHead(200, { Vary: 'Accept-Language' }).end(message.headers['accept-language'])
    answer(edge.owed[0] as Owing['owed'][number])
    await edge.owes(4)
    edge.owed.slice(1).forEach(answer)
    expect((await Promise.all(answers)).map(({ text }) => text)).toEqual(
      languages.flatMap((each) => Array.from({ length: 5 }, () => each)),
    )
    expect(edge.owed).toHaveLength(4)
  })
})

describe('who leaves', () => {
  it.each(['before the head', 'after the head', 'in the middle of the body'])(
    'though first, %s, leaves the others with all of it',
    async (phase) => {
      const edge = await startOwing()
      const leader = await rawGet(edge)
      await edge.owes(1)
      const others = [get(edge), get(edge), get(edge)]
      await arrived(edge.gateway, 4)
      const { response } = edge.owed[0] as Owing['owed'][number]
      if (phase === 'before the head') leader.reset()
      response.flushHeaders()
      if (phase === 'after the head') {
        await leader.expect('\r\n\r\n')
        leader.reset()
      }
      response.write('one ')
      if (phase === 'in the middle of the body') {
        await leader.expect('one ')
        leader.reset()
      }
      await until(() => edge.gateway.log.some(({ status_code: status }) => status === 499), 'the leader to be gone')
      response.end('two')
      for (const answer of others) expect(await outcome(answer)).toBe('200 one two')
      expect((await get(edge)).headers['x-cache']).toBe('HIT')
      expect([edge.owed.length, edge.origin.aborted]).toEqual([1, 0])
      await settled(edge)
    },
  )

  it.each(['before the head', 'in the middle of the body'])(
    'as the last, %s, ends the fetch, and the next one begins another',
    async (phase) => {
      const edge = await startOwing('ttl: 1h, onAbort: abort')
      const clients = [await rawGet(edge)]
      await edge.owes(1)
      clients.push(await rawGet(edge), await rawGet(edge))
      await arrived(edge.gateway, 3)
      if (phase !== 'before the head') {
        edge.owed[0]?.response.write('one ')
        for (const client of clients) await client.expect('one ')
      }
      for (const client of clients) client.reset()
      await until(() => edge.origin.aborted === 1, 'the origin to be told')
      await settled(edge)
      expect(edge.gateway.gateway.stats().cache.entries).toBe(0)
      const next = get(edge)
      await edge.owes(2)
      edge.owed[1]?.response.end('all')
      expect(await outcome(next)).toBe('200 all')
      const lines = (await edge.gateway.requestLines(6)).filter(({ path }) => path === '/x')
      expect(lines.map(({ status_code: status }) => status)).toEqual([499, 499, 499, 200])
    },
  )
})

describe('who reads slowly', () => {
  const BYTES = 6 * 1024 ** 2
  const CHUNK = Buffer.alloc(64 * 1024, 'x')

  it.each([
    ['first, with a declared length', true, true],
    ['first, in chunks', true, false],
    ['later, with a declared length', false, true],
    ['later, in chunks', false, false],
  ])('holds nobody who reads along: %s', async (_name, isLeader, isDeclared) => {
    const edge = await startOwing()
    const slowly = async () => {
      const slow = await rawGet(edge)
      slow.pause()
      return slow
    }
    const first = isLeader ? await slowly() : get(edge)
    await edge.owes(1)
    const second = isLeader ? get(edge) : await slowly()
    await arrived(edge.gateway, 2)
    const { response } = edge.owed[0] as Owing['owed'][number]
    if (isDeclared) response.setHeader('Content-Length', BYTES)
    for (let i = 0; i < BYTES / CHUNK.length; i++) response.write(CHUNK)
    response.end()
    const [fast, slow] = (isLeader ? [second, first] : [first, second]) as [Promise<Answer>, Conversation]
    expect((await fast).body.length).toBe(BYTES)
    expect((await get(edge)).headers['x-cache']).toBe('HIT')
    slow.resume()
    await until(() => slow.received.length >= BYTES, 'the slow one to have it all')
    slow.destroy()
    await settled(edge)
  })
})

describe('an origin that fails', () => {
  it('in the middle of the body breaks it for all; nothing is stored, and the next one asks again', async () => {
    const edge = await startOwing()
    const answers = [get(edge)]
    await edge.owes(1)
    answers.push(get(edge), get(edge))
    await arrived(edge.gateway, 3)
    const { message, response } = edge.owed[0] as Owing['owed'][number]
    response.write('half')
    const late = await rawGet(edge)
    await late.expect('half')
    message.socket.destroy()
    for (const answer of answers) expect(await outcome(answer)).toBe('broken')
    await late.end()
    expect(late.received).not.toMatch(/\r\n0\r\n\r\n$/)
    expect(edge.gateway.gateway.stats().cache.entries).toBe(0)

    const next = [get(edge)]
    await edge.owes(2)
    next.push(get(edge))
    await arrived(edge.gateway, 2)
    edge.owed[1]?.response.end('whole')
    for (const answer of next) expect(await outcome(answer)).toBe('200 whole')
    expect(edge.owed).toHaveLength(2)
    await settled(edge)
  })

  it('before the head gives all the same error, after one fetch', async () => {
    const edge = await startOwing()
    const answers = [get(edge)]
    await edge.owes(1)
    answers.push(get(edge), get(edge))
    await arrived(edge.gateway, 3)
    edge.owed[0]?.message.socket.destroy()
    for (const answer of answers) {
      const { status, headers, text } = await answer
      expect([status, headers['x-cache'], headers['cache-status']]).toEqual([
        502,
        'MISS',
        'weirgate; fwd=miss; detail=failed',
      ])
      expect(JSON.parse(text)).toMatchObject({ code: 'upstream_reset', request_id: headers['x-request-id'] })
    }
    expect(edge.owed).toHaveLength(1)
    await settled(edge)
  })

  it('by silence gives all the same timeout, after one fetch', async () => {
    const edge = await startOwing('ttl: 1h', { upstream: 'retries: 0, timeouts: {firstByte: 500ms}' })
    const answers = [get(edge)]
    await edge.owes(1)
    answers.push(get(edge))
    for (const answer of answers) expect(JSON.parse((await answer).text)).toMatchObject({ code: 'timeout_first_byte' })
    expect(edge.owed).toHaveLength(1)
    await settled(edge)
  })

  it('by not being there gives each its error, and nobody hangs', async () => {
    const gateway = await startGatewayBefore(`http://127.0.0.1:${await closedPort()}`, {
      routes: ['{path: /*, cache: {ttl: 1h}}'],
    })
    for (const answer of await Promise.all(Array.from({ length: 20 }, () => get({ gateway })))) {
      expect([answer.status, JSON.parse(answer.text).code]).toEqual([502, 'upstream_refused'])
    }
  })
})

describe('an origin that answers errors', () => {
  /** Many clients who wait for one fetch, of which the origin has seen the first. */
  async function crowd(route?: string) {
    const edge = await startOwing(route)
    const answers = [get(edge)]
    await edge.owes(1)
    answers.push(...Array.from({ length: 99 }, () => get(edge)))
    await arrived(edge.gateway, 100)
    const answer = (i: number, status: number, text: string) =>
      edge.owed[i]?.response.writeHead(status, { 'Retry-After': '7' }).end(text)
    return { edge, answers, answer }
  }

  it.each([500, 503, 429])('is asked twice, not by all who waited, when both get a %i', async (status) => {
    const { edge, answers, answer } = await crowd()
    answer(0, status, 'first')
    await edge.owes(2)
    answer(1, status, 'second')
    const all = await Promise.all(answers)
    expect(all.filter(({ text }) => text === 'first' || text === 'second').map((each) => each.status)).toEqual([
      status,
      status,
    ])
    const others = all.filter(({ text }) => text.startsWith('{'))
    expect(others).toHaveLength(98)
    for (const { status, headers, text } of others) {
      expect([status, headers['retry-after'], JSON.parse(text).code]).toEqual([503, '1', 'upstream_failing'])
      expect(headers['cache-status']).toBe('weirgate; fwd=miss; detail=failed')
    }
    expect(edge.owed).toHaveLength(2)
    const next = get(edge)
    await edge.owes(3)
    edge.owed[2]?.response.end('well')
    expect(await outcome(next)).toBe('200 well')
    await settled(edge)
  })

  it('to one request only leaves the others with the answer to the next', async () => {
    const { edge, answers, answer } = await crowd()
    answer(0, 500, 'for something that only this one sent')
    await edge.owes(2)
    answer(1, 200, 'well')
    const texts = await Promise.all(answers.map(outcome))
    expect(texts.filter((text) => text === '200 well')).toHaveLength(99)
    expect(edge.owed).toHaveLength(2)
    expect((await get(edge)).headers['x-cache']).toBe('HIT')
    await settled(edge)
  })
})

describe('a crowd', () => {
  const PEOPLE = 500

  /** 500 clients who wait for one fetch. The first is a raw one, the others as given. */
  async function gather<T>(ask: (edge: Owing) => T) {
    const edge = await startOwing('ttl: 1h', { listen: 'connectionsPerAddress: 2000' })
    const leader = await rawGet(edge)
    await edge.owes(1)
    const others = await Promise.all(Array.from({ length: PEOPLE - 1 }, () => ask(edge)))
    await arrived(edge.gateway, PEOPLE)
    const { message, response } = edge.owed[0] as Owing['owed'][number]
    return { edge, leader, others, message, response }
  }
  /** The body; null where it broke off. In a box, so that nobody waits for it by mistake. */
  const asked = (edge: Owing) => ({
    body: get(edge).then(
      (answer) => answer.body,
      () => null,
    ),
  })
  const parts = Array.from({ length: 20 }, (_, i) => Buffer.alloc(4096, i))
  const whole = Buffer.concat(parts)

  it.each(['stays', 'leaves'])('of 500 costs one fetch, and all who wait get it whole; the first %s', async (first) => {
    const { edge, leader, others, response } = await gather(asked)
    response.setHeader('Content-Length', whole.length)
    for (const [i, part] of parts.entries()) {
      response.write(part)
      if (i === 10 && first === 'leaves') leader.reset()
      await new Promise((resolve) => setImmediate(resolve))
    }
    response.end()
    const bodies = await Promise.all(others.map(({ body }) => body))
    expect(bodies.filter((body) => body?.equals(whole))).toHaveLength(PEOPLE - 1)
    expect([edge.owed.length, edge.origin.aborted]).toEqual([1, 0])
    leader.destroy()
    await settled(edge)
  })

  it.each([
    ['with a length', true],
    ['in chunks', false],
  ])('of 500 sees no whole body when the origin dies in the middle of it, sent %s', async (_name, isDeclared) => {
    const { edge, leader, others, message, response } = await gather(asked)
    if (isDeclared) response.setHeader('Content-Length', whole.length)
    response.write(parts[0])
    await leader.expect('\r\n\r\n')
    message.socket.destroy()
    const bodies = await Promise.all(others.map(({ body }) => body))
    expect(bodies.filter((body) => body !== null)).toEqual([])
    await leader.end()
    expect(leader.received).not.toMatch(/\r\n0\r\n\r\n$/)
    expect([edge.owed.length, edge.gateway.gateway.stats().cache.entries]).toEqual([1, 0])
    await settled(edge)
  })

  it('of 500 that leaves ends the fetch', async () => {
    const { edge, leader, others } = await gather(rawGet)
    for (const client of [leader, ...others]) client.reset()
    await until(() => edge.origin.aborted === 1, 'the origin to be told')
    expect([edge.owed.length, edge.gateway.gateway.stats().cache.entries]).toEqual([1, 0])
    await settled(edge)
  })
})

describe('an answer that is not for sharing', () => {
  it('lets those who waited go ahead side by side, and nobody waits the next time', async () => {
    const edge = await startOwing()
    const answers = [get(edge)]
    await edge.owes(1)
    answers.push(...Array.from({ length: 9 }, () => get(edge)))
    await arrived(edge.gateway, 10)
    expect(edge.owed).toHaveLength(1)
    const noStore = { 'Cache-Control': 'no-store' }
    edge.owed[0]?.response.writeHead(200, noStore).end('1')
    // All of them at once: none of these has an answer yet.
    await edge.owes(10)
    for (const [i, { response }] of edge.owed.slice(1).entries()) response.writeHead(200, noStore).end(String(i + 2))
    const texts = (await Promise.all(answers)).map(({ text }) => text)
    expect(new Set(texts).size).toBe(10)
    expect((await answers[1])?.headers['cache-status']).toBe('weirgate; fwd=miss; detail=no-store')

    const next = Array.from({ length: 5 }, () => get(edge))
    await edge.owes(15)
    for (const { response } of edge.owed.slice(10)) response.writeHead(200, noStore).end()
    expect(await cacheWords(next)).toEqual({ MISS: 5 })
    await settled(edge)
  })
})
