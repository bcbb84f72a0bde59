// `events`: what clients of streams get while nothing comes from the upstream.

import type { ServerResponse } from 'node:http'
import { describe, expect, it } from 'vitest'
import { type Conversation, converse, request } from '../support/client.ts'
import { type Clock, holdTime } from '../support/clock.ts'
import { type Edge, startEdge } from '../support/edge.ts'
import { get } from '../support/exchange.ts'
import { readAnswers } from '../support/wire.ts'

const SECOND = 1000
const EVENTS = { 'Content-Type': 'text/event-stream' }
const ACCEPT = ['Accept: application/json, Text/Event-Stream']

/** An origin whose answers the test gives. */
async function owing(
  route: string,
): Promise<Edge & { readonly owed: readonly ServerResponse[]; readonly clock: Clock }> {
  const clock = holdTime()
  const owed: ServerResponse[] = []
  const edge = await startEdge({
    routes: [`{path: /*, retries: 0, timeouts: {firstByte: 60s, idle: 2m, total: 5m}, ${route}}`],
    script: (_message, response) => void owed.push(response),
  })
  return { ...edge, owed, clock }
}

type Owing = Awaited<ReturnType<typeof owing>>

/** A client whose request is at the origin. */
async function asking({ gateway, owed, clock }: Owing, fields: readonly string[] = ACCEPT): Promise<Conversation> {
  const before = owed.length
  const client = await converse(gateway.port, get('/events', fields))
  await clock.until(() => owed.length > before, 'the request at the origin')
  return client
}

const bodyOf = ({ received }: Conversation): string => readAnswers(received)[0]?.body ?? ''

/** All that has fallen due has been done by the end of another exchange. */
async function settle({ gateway, clock }: Owing): Promise<void> {
  let isDone = false
  void request(`${gateway.url}/health`).then(() => (isDone = true))
  await clock.until(() => isDone, 'another exchange')
}

describe('a stream with `events: {keepAlive}`', () => {
  it('has a comment after so long a silence, between two events, and none in what is stored', async () => {
    const edge = await owing('events: {keepAlive: 15s}, cache: {ttl: 1h, terminal: {data: bye}}')
    const client = await asking(edge)
    const { clock, owed } = edge
    owed[0]?.writeHead(200, EVENTS).write('data: 1\n\n')
    await clock.until(() => client.received.includes('data: 1\n\n'), 'the first event')
    clock.advance(14 * SECOND)
    await settle(edge)
    expect(bodyOf(client)).toBe('data: 1\n\n')
    clock.advance(SECOND)
    await clock.until(() => bodyOf(client) === 'data: 1\n\n:\n\n', 'a comment')
    clock.advance(15 * SECOND)
    await clock.until(() => bodyOf(client) === 'data: 1\n\n:\n\n:\n\n', 'another')
    owed[0]?.write('data: 2\n')
    await clock.until(() => client.received.includes('data: 2\n'), 'half an event')
    clock.advance(40 * SECOND)
    await settle(edge)
    expect(bodyOf(client)).toBe('data: 1\n\n:\n\n:\n\ndata: 2\n')
    owed[0]?.end('\ndata: bye\n\n')
    await clock.until(() => client.closed, 'the end')
    expect(bodyOf(client)).toBe('data: 1\n\n:\n\n:\n\ndata: 2\n\ndata: bye\n\n')
    const again = await converse(edge.gateway.port, get('/events', ACCEPT))
    await clock.until(() => again.closed, 'what is stored')
    expect([bodyOf(again), owed.length]).toEqual(['data: 1\n\ndata: 2\n\ndata: bye\n\n', 1])
  })

  it('leaves all other answers alone, and breaks off as ever', async () => {
    const edge = await owing('events: {keepAlive: 15s}')
    const { clock, owed } = edge
    const other = await asking(edge)
    owed[0]?.writeHead(200, { 'Content-Type': 'text/plain' }).write('half')
    await clock.until(() => other.received.includes('half'), 'half of it')
    clock.advance(60 * SECOND)
    await settle(edge)
    owed[0]?.end()
    await clock.until(() => other.closed, 'the end')
    expect(bodyOf(other)).toBe('half')
    const client = await asking(edge)
    owed[1]?.writeHead(200, EVENTS).flushHeaders()
    await clock.until(() => client.received.includes('\r\n\r\n'), 'the head')
    owed[1]?.destroy()
    await clock.until(() => client.closed, 'the end')
    expect(bodyOf(client)).toContain('event: error\ndata: {"code":"upstream_reset"')
  })
})

describe('a client that accepts events, with `earlyHead`', () => {
  const EARLY = 'events: {keepAlive: 15s, earlyHead: 20s}'

  /** One that has been given a head. */
  async function early(edge: Owing): Promise<Conversation> {
    const client = await asking(edge)
    edge.clock.advance(20 * SECOND - 1)
    await settle(edge)
    expect(client.received).toBe('')
    edge.clock.advance(2)
    await edge.clock.until(() => client.received.includes(':\n\n'), 'a head and a comment')
    expect(readAnswers(client.received)[0]).toMatchObject({ status: 200, framing: 'chunked' })
    expect(client.received).toMatch(/content-type: text\/event-stream\r\n/i)
    return client
  }

  it('gets one with comments, and then the stream', async () => {
    const edge = await owing(EARLY)
    const client = await early(edge)
    edge.clock.advance(15 * SECOND)
    await edge.clock.until(() => bodyOf(client) === ':\n\n:\n\n', 'another comment')
    edge.owed[0]?.writeHead(200, EVENTS).end('data: 1\n\n')
    await edge.clock.until(() => client.closed, 'the end')
    expect([bodyOf(client), readAnswers(client.received)[0]?.whole]).toEqual([':\n\n:\n\ndata: 1\n\n', true])
  })

  it.each<[string, (response: ServerResponse | undefined) => void, string]>([
    ['fails', (response) => response?.destroy(), 'upstream_reset'],
    ['answers with an error', (response) => void response?.writeHead(422).end('no'), 'upstream_invalid'],
    ['answers something else', (response) => void response?.end('{}'), 'upstream_invalid'],
  ])('is told by an event where the upstream then %s', async (_what, act, code) => {
    const edge = await owing(EARLY)
    const client = await early(edge)
    act(edge.owed[0])
    await edge.clock.until(() => client.closed, 'the end')
    expect(bodyOf(client)).toContain(`:\n\nevent: error\ndata: {"code":"${code}"`)
    expect(readAnswers(client.received)[0]?.whole).toBe(false)
    await edge.clock.until(() => edge.gateway.log.some(({ path }) => path === '/events'), 'its line')
    expect(edge.gateway.log.find(({ path }) => path === '/events')).toMatchObject({ status_code: 200, error: code })
  })

  it('is told nothing early where an answer comes in time, or where it takes none', async () => {
    const edge = await owing(EARLY)
    const inTime = await asking(edge)
    edge.clock.advance(19 * SECOND)
    edge.owed[0]?.writeHead(404).end('none')
    await edge.clock.until(() => inTime.closed, 'the answer')
    expect(inTime.received).toMatch(/^HTTP\/1.1 404 /)
    const other = await asking(edge, ['Accept: application/json'])
    edge.clock.advance(30 * SECOND)
    await settle(edge)
    expect(other.received).toBe('')
    edge.owed[1]?.writeHead(201).end('made')
    await edge.clock.until(() => other.closed, 'the answer')
    expect(other.received).toMatch(/^HTTP\/1.1 201 /)
  })

  it('ends what it has asked for when it leaves', async () => {
    const edge = await owing(EARLY)
    const client = await early(edge)
    client.destroy()
    // A client that has ended its side may still read. The first comment that it does not take is refused, the next one fails.
    for (let i = 0; i < 2; i++) {
      edge.clock.advance(15 * SECOND)
      await settle(edge)
    }
    await edge.clock.until(() => edge.origin.aborted === 1, 'the origin to hear of it')
    await edge.clock.until(() => edge.gateway.log.some(({ path }) => path === '/events'), 'its line')
    expect(edge.gateway.log.find(({ path }) => path === '/events')).toMatchObject({ status_code: 499 })
  })
})
