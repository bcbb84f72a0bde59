// `weirgate demo`: it starts without any set-up, what its page claims is so, and Ctrl-C ends it.

import type { IncomingMessage } from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { Explanation, Stats } from '../../src/core/control.ts'
import { type Answer, request } from '../support/client.ts'
import { closeAfterEach } from '../support/closing.ts'
import { weirgate, weirgateToEnd } from '../support/process.ts'

const closing = closeAfterEach()

const JSON_TYPE = { 'Content-Type': 'application/json' }

describe('weirgate demo', () => {
  it('answers as its page says, logs nothing over it, and ends with 0 on Ctrl-C', async () => {
    const demo = weirgate(['demo', '--ai-delay', '600'], { env: { PORT: '0', ADMIN_PORT: '0' } })
    const [, url = '', adminUrl = ''] = await demo.printed(/listens on (http:\S+), its admin port on (http:\S+)\.\n/)
    await demo.printed(/Ctrl-C ends it\./)
    const post = async <T>(path: string, body: unknown): Promise<T> => {
      const { text } = await request(adminUrl + path, {
        method: 'POST',
        headers: JSON_TYPE,
        body: JSON.stringify(body),
      })
      return JSON.parse(text) as T
    }
    const decks = `${url}/api/v1/presentations`
    const took = (answer: { headers: Record<string, unknown> }) =>
      Number.parseFloat(String(answer.headers['x-process-time']))
    const queries = async () => (await request(`${url}/debug/queries`)).text

    const [miss, hit] = [await request(decks), await request(decks)]
    expect([miss.status, miss.headers['x-cache'], hit.headers['x-cache']]).toEqual([200, 'MISS', 'HIT'])
    expect(took(miss)).toBeGreaterThanOrEqual(200)
    expect(took(hit)).toBeLessThan(took(miss))
    expect(hit.headers.age).toMatch(/^\d+$/)
    const before = await queries()
    const head = await request(decks, { method: 'HEAD' })
    expect([head.headers['x-cache'], head.body.length]).toEqual(['HIT', 0])
    expect(await queries()).toBe(before)

    const credentials = { headers: { Authorization: 'Bearer user-7' } }
    expect((await request(decks, credentials)).headers['x-cache']).toBe('BYPASS')
    expect((await request(decks, credentials)).headers['x-cache']).toBe('BYPASS')
    expect((await request(`${url}/api/v1/users/me`, credentials)).status).toBe(200)

    let firstEvents = ''
    const made = (body: string) => request(`${url}/api/v1/ai/generate`, { method: 'POST', headers: JSON_TYPE, body })
    const making = made('{"prompt": "tides", "num_cards": 5, "style": "plain"}')
    const stream = (onHead?: (message: IncomingMessage) => void) =>
      request(`${url}/api/v1/ai/generate`, {
        method: 'POST',
        headers: { ...JSON_TYPE, Accept: 'text/event-stream' },
        body: '{"prompt": "tides", "num_cards": 5, "style": "plain"}',
        ...(onHead === undefined ? {} : { onHead }),
      })
    const joining: Promise<Answer>[] = []
    const deck = await stream((message) => {
      message.once('data', (chunk: Buffer) => {
        firstEvents = chunk.toString()
        joining.push(stream())
      })
    })
    const [joined] = await Promise.all(joining)
    const replayed = await stream()
    const streams = [deck, joined, replayed]
    expect(streams.map((answer) => answer?.headers['x-cache'])).toEqual(['MISS', 'COLLAPSED', 'HIT'])
    expect(new Set(streams.map((answer) => answer?.text)).size).toBe(1)
    // The other is the deck that comes whole.
    expect(JSON.parse((await request(`${url}/debug/calls`)).text)).toEqual({ calls: 2 })
    expect(deck.text.match(/^event: card$/gm)).toHaveLength(5)
    expect(firstEvents.match(/^event: card$/gm)?.length ?? 0).toBeLessThan(5)

    const [first, again] = [await making, await made('{"style":"plain","num_cards":5,"prompt":"tides"}')]
    expect([first.headers['x-cache'], again.headers['x-cache'], again.text]).toEqual(['MISS', 'HIT', first.text])
    expect(took(again)).toBeLessThan(took(first))

    const explained = await post<Explanation>('/api/explain', { method: 'GET', url: '/api/v1/presentations' })
    expect(explained).toMatchObject({
      route: 'GET,HEAD /api/v1/presentations/*',
      cache: { outcome: 'hit' },
      refused: null,
    })
    expect(await post('/api/cache/purge', { tags: ['presentations'] })).toMatchObject({ purged: 1 })
    expect((await request(decks)).headers['x-cache']).toBe('MISS')
    expect((await request(decks, { method: 'POST', headers: JSON_TYPE, body: '{"title": "Tides"}' })).status).toBe(201)
    expect((await request(decks)).headers['x-cache']).toBe('MISS')

    expect(JSON.parse((await request(`${url}/health`)).text)).toMatchObject({ status: 'ok' })
    const stats = JSON.parse((await request(`${adminUrl}/api/stats`)).text) as Stats
    expect(stats.since_start.routes['GET,HEAD /api/v1/presentations/*']?.hit_rate).toBeGreaterThan(0)
    expect((await request(`${adminUrl}/metrics`)).text).toContain('weirgate_requests_total{')

    let refusedAt = 0
    for (let i = 1; i <= 61 && refusedAt === 0; i++) {
      if ((await request(`${url}/api/v1/themes`)).status === 429) refusedAt = i
    }
    expect(refusedAt).toBeGreaterThan(0)
    expect((await request(`${url}/api/v1/themes`)).headers['retry-after']).toMatch(/^\d+$/)

    demo.kill('SIGINT')
    expect(await demo.end).toEqual({ code: 0, signal: null })
    // On a busy machine a request may take longer than `log.slow`, and that is said.
    const lines = demo.stdout.split('\n').filter((line) => line !== '' && !line.includes('"Slow request"'))
    expect(lines).toEqual([])
  })

  it('does not outlive the terminal that it was started in', async () => {
    const demo = weirgate(['demo'], { env: { PORT: '0', ADMIN_PORT: '0' } })
    await demo.printed(/Ctrl-C ends it\./)
    demo.kill('SIGHUP')
    expect(await demo.end).toEqual({ code: 0, signal: null })
  })

  it('ends with 1 and a cure where its port is taken, and leaves nothing running', async () => {
    const taken = net.createServer()
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
    closing({ close: () => new Promise((resolve) => taken.close(() => resolve())) })
    const { port } = taken.address() as AddressInfo
    const { code, stderr } = await weirgateToEnd(['demo'], { env: { PORT: String(port), ADMIN_PORT: '0' } })
    expect(code).toBe(1)
    expect(stderr).toBe(
      `listen: cannot listen on 127.0.0.1:${port}: another program listens there; stop that one, or choose another port: PORT=8081 ADMIN_PORT=9091 npm start\n`,
    )
  })

  it('ends with 2 where the environment does not fit its table', async () => {
    const { code, stderr } = await weirgateToEnd(['demo'], { env: { PORT: 'eighty', ADMIN_PORT: '0' } })
    expect(code).toBe(2)
    expect(stderr).toMatch(/demo\.yaml:5:9 listen: expected an address/)
  })
})
