// The AI service over real sockets: answers, Server-Sent Events as a client parses them, and calls given up half-way.

import { afterEach, describe, expect, it } from 'vitest'
import { startAiBackend } from '../../src/demo/ai.ts'
import type { AiBackend } from '../../src/demo/ai.ts'

const opened: AiBackend[] = []
afterEach(async () => {
  await Promise.all(opened.splice(0).map((backend) => backend.close()))
})

async function start(delayMs = 0) {
  const backend = await startAiBackend({ delayMs })
  opened.push(backend)
  const post = (path: string, body: unknown, headers: Record<string, string> = {}, signal: AbortSignal | null = null) =>
    fetch(`${backend.url}${path}`, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', ...headers },
      body: JSON.stringify(body),
      signal,
    })
  return { backend, post }
}

interface Deck {
  id: string
  generated_at: string
  cards: { index: number; title: string; content: string }[]
  usage: { prompt_tokens: number; completion_tokens: number }
}

const GENERATE = '/api/v1/ai/generate'
const request = { prompt: 'tides and weirs', num_cards: 3, style: 'plain' }

/** The events of a stream, strictly: two lines and an empty one each. */
function parseEvents(text: string): { event: string; data: string }[] {
  expect(text.endsWith('\n\n')).toBe(true)
  return text
    .slice(0, -2)
    .split('\n\n')
    .map((block) => {
      const match = /^event: (\w+)\ndata: (.+)$/.exec(block)
      return { event: match?.[1] ?? `not an event: ${block}`, data: match?.[2] ?? '' }
    })
}

describe('a deck as JSON', () => {
  it('has as many cards as were asked for, and says what it cost', async () => {
    const { post } = await start()
    const answer = await post(GENERATE, request)
    expect(answer.headers.get('content-type')).toBe('application/json')
    expect(answer.headers.get('x-backend')).toBe('ai')
    const deck = (await answer.json()) as Deck
    expect(deck.cards.map(({ index }) => index)).toEqual([1, 2, 3])
    expect(deck.cards[0]?.content).toBe('Why it matters: tides and weirs. Card 1 of 3, in a plain style.')
    expect(deck.usage.prompt_tokens).toBe(4)
    expect(deck.usage.completion_tokens).toBeGreaterThan(40)
  })

  it('is the same words for the same request, under another id each time', async () => {
    const { post } = await start()
    const [one, two] = (await Promise.all([1, 2].map(async () => (await post(GENERATE, request)).json()))) as [
      Deck,
      Deck,
    ]
    expect(one.cards).toEqual(two.cards)
    expect(one.id).not.toBe(two.id)
    expect(new Date(one.generated_at).toISOString()).toBe(one.generated_at)
  })

  it('has eight cards in a professional style unless asked otherwise', async () => {
    const { post } = await start()
    const deck = (await (await post(GENERATE, { prompt: 'x' })).json()) as Deck
    expect(deck).toMatchObject({ style: 'professional' })
    expect(deck.cards).toHaveLength(8)
  })
})

describe('a deck as an event stream', () => {
  it.each([
    ['Accept: text/event-stream', {}, { Accept: 'text/event-stream' }],
    ['Accept with more types', {}, { Accept: 'application/json;q=0.5, text/event-stream' }],
    ['"stream": true in the body', { stream: true }, {}],
  ])('is sent for %s: a card an event, the usage, the end mark', async (_, extra, headers) => {
    const { post } = await start()
    const answer = await post(GENERATE, { ...request, ...extra }, headers)
    expect(answer.headers.get('content-type')).toBe('text/event-stream; charset=utf-8')
    const events = parseEvents(await answer.text())
    expect(events.map(({ event }) => event)).toEqual(['card', 'card', 'card', 'usage', 'done'])
    expect(events.at(-1)?.data).toBe('[DONE]')
    const cards = events.slice(0, 3).map(({ data }) => JSON.parse(data) as Deck & { index: number })
    expect(cards.map(({ index }) => index)).toEqual([1, 2, 3])
    expect(new Set(cards.map(({ id }) => id)).size).toBe(1)
    expect(JSON.parse(events[3]?.data ?? '')).toEqual({
      usage: { prompt_tokens: 4, completion_tokens: expect.any(Number) as number },
    })
  })

  it('has the cards of the JSON answer, also where the prompt spans lines', async () => {
    const { post } = await start()
    const prompt = { prompt: 'one\n\ndata: two\r\n“three”', num_cards: 2 }
    const deck = (await (await post(GENERATE, prompt)).json()) as Deck
    const events = parseEvents(await (await post(GENERATE, { ...prompt, stream: true })).text())
    for (const [i, card] of deck.cards.entries()) expect(JSON.parse(events[i]?.data ?? '')).toMatchObject(card)
  })

  it('sends its first card at once, long before the last', async () => {
    const { post } = await start(60_000)
    const answer = await post(GENERATE, { ...request, stream: true })
    const reader = answer.body?.getReader()
    const first = await reader?.read()
    expect(parseEvents(Buffer.from(first?.value ?? []).toString()).map(({ event }) => event)).toEqual(['card'])
    await reader?.cancel()
  })

  it('spreads its cards over the delay', async () => {
    const { post } = await start(20)
    const startedAtMs = performance.now()
    await (await post(GENERATE, { ...request, num_cards: 4, stream: true })).text()
    expect(performance.now() - startedAtMs).toBeGreaterThan(15) // four timers, each up to 1 ms early
  })
})

describe('texts and images', () => {
  it.each([
    ['summarize', 'Water rises.'],
    ['rewrite', 'In other words: Water rises. It falls.'],
    ['expand', 'Water rises. It falls. There is more to it: the causes, the people concerned, and what follows.'],
    ['translate', '[fr] Water rises. It falls.'],
  ])('%s answers with a text', async (operation, result) => {
    const { post } = await start()
    const answer = await post(`/api/v1/ai/text/${operation}`, { text: 'Water rises. It falls.', language: 'fr' })
    expect(await answer.json()).toMatchObject({
      operation,
      result,
      usage: { prompt_tokens: 6 },
      id: expect.any(String) as string,
    })
  })

  it('an image is an address that follows from the request', async () => {
    const { post } = await start()
    const url = async (prompt: string) =>
      ((await (await post('/api/v1/ai/image/generate', { prompt })).json()) as { url: string }).url
    expect(await url('a weir')).toMatch(/^https:\/\/images\.example\/generated\/[0-9a-f]{16}\.png$/)
    expect(await url('a weir')).toBe(await url('a weir'))
    expect(await url('a weir')).not.toBe(await url('a lock'))
  })
})

describe('refusals of the AI service', () => {
  it.each([
    [GENERATE, {}, ['body', 'prompt'], 'missing'],
    [GENERATE, { prompt: '' }, ['body', 'prompt'], 'string_too_short'],
    [GENERATE, { prompt: 'x'.repeat(8001) }, ['body', 'prompt'], 'string_too_long'],
    [GENERATE, { prompt: 7 }, ['body', 'prompt'], 'string_type'],
    [GENERATE, { prompt: 'x', num_cards: 0 }, ['body', 'num_cards'], 'greater_than_equal'],
    [GENERATE, { prompt: 'x', num_cards: 51 }, ['body', 'num_cards'], 'less_than_equal'],
    [GENERATE, { prompt: 'x', num_cards: 1.5 }, ['body', 'num_cards'], 'int_parsing'],
    [GENERATE, { prompt: 'x', stream: 'yes' }, ['body', 'stream'], 'bool_type'],
    ['/api/v1/ai/text/rhyme', { text: 'x' }, ['path', 'operation'], 'enum'],
    ['/api/v1/ai/text/rewrite', {}, ['body', 'text'], 'missing'],
    ['/api/v1/ai/image/generate', { prompt: 'x', size: 'huge' }, ['body', 'size'], 'enum'],
  ])('are a 422 without a call: %s %.60j', async (path, body, loc, type) => {
    const { backend, post } = await start()
    const answer = await post(path, body)
    expect(answer.status).toBe(422)
    const { detail } = (await answer.json()) as { detail: { loc: string[]; type: string }[] }
    expect(detail).toMatchObject([{ loc, type }])
    expect(backend.calls()).toBe(0)
  })

  it('include GET on an operation', async () => {
    const { backend } = await start()
    const answer = await fetch(backend.url + GENERATE)
    expect([answer.status, answer.headers.get('allow')]).toEqual([405, 'POST'])
  })
})

describe('calls to the AI service', () => {
  it('are counted, streams too, and the count is public', async () => {
    const { backend, post } = await start()
    await post(GENERATE, request)
    await (await post(GENERATE, { ...request, stream: true })).text()
    await post('/api/v1/ai/text/rewrite', { text: 'x' })
    await post('/api/v1/ai/image/generate', { prompt: 'x' })
    expect(backend.calls()).toBe(4)
    expect(await (await fetch(`${backend.url}/debug/calls`)).json()).toEqual({ calls: 4 })
    expect(await (await fetch(`${backend.url}/health`)).json()).toEqual({ status: 'ok' })
  })

  it.each([
    ['JSON', false],
    ['an event stream', true],
  ])('given up by their clients leave no timer behind: %s', async (_, stream) => {
    const { backend, post } = await start(600_000)
    const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length
    const before = timers()
    const client = new AbortController()
    const given = Array.from({ length: 50 }, async () => {
      const answer = await post(GENERATE, { ...request, stream }, {}, client.signal)
      await answer.text()
    })
    await expect.poll(() => backend.calls()).toBe(50)
    expect(timers()).toBeGreaterThan(before + 40) // the test's own timers come and go: hence 40 and 10, not 50 and 0
    client.abort()
    const outcomes = await Promise.allSettled(given)
    expect(outcomes.every(({ status }) => status === 'rejected')).toBe(true)
    await expect.poll(timers).toBeLessThan(before + 10)
  })
})
