// The demo's AI service: slow, and paid by the token. Decks as JSON or, card by card, as Server-Sent Events; operations on
// a text; image addresses. The words follow from the request, while id and generated_at differ on each call, so an
// answer from a cache is recognised at sight.
//
// Promise: a call that is given up by its client stops at once; calls() counts it all the same, as a provider would.

import { hash, randomUUID } from 'node:crypto'
import { startBackend, wait } from './backend.ts'
import type { Answer, Backend, Call, Route } from './backend.ts'
import { boolean, choice, decodeBody, decodeFields, integer, optional, string } from './validation.ts'

export interface AiOptions {
  /** Default 0: any free port of 127.0.0.1. */
  readonly port?: number
  /** How long a deck takes, in ms; a text takes 3/10 of it, an image half. Default 10,000. */
  readonly delayMs?: number
}

export interface AiBackend extends Backend {
  /** Valid calls begun so far; also `GET /debug/calls`. */
  calls(): number
}

const TEXT_SHARE = 3 / 10
const IMAGE_SHARE = 1 / 2

const deckFields = {
  prompt: string(1, 8000),
  num_cards: optional(integer(1, 50), 8),
  style: optional(string(1, 100), 'professional'),
  stream: optional(boolean(), false),
}
const operations = { operation: choice(['summarize', 'rewrite', 'expand', 'translate']) }
const textFields = { text: string(1, 100_000), language: optional(string(2, 35), 'en') }
const imageFields = {
  prompt: string(1, 8000),
  size: optional(choice(['512x512', '1024x1024', '1792x1024']), '1024x1024' as const),
}

interface Card {
  readonly index: number
  readonly title: string
  readonly content: string
}

/** Starts the service. Rejects where the port is taken. */
export async function startAiBackend(options: AiOptions = {}): Promise<AiBackend> {
  const deckMs = options.delayMs ?? 10_000
  let calls = 0

  const generate = async (call: Call): Promise<Answer> => {
    const body = decodeBody(deckFields, call.body, call.headers)
    if ('refusal' in body) return body.refusal
    const { prompt, num_cards, style, stream } = body.fields
    calls++
    const marks = mark()
    const cards = deck(prompt, num_cards, style)
    const usage = countTokens(prompt, JSON.stringify(cards))
    if (stream || (call.headers.accept ?? '').includes('text/event-stream')) {
      return { events: cardByCard(cards, marks, usage, deckMs, call.signal) }
    }
    await wait(deckMs, call.signal)
    return { status: 200, json: { ...marks, prompt, style, cards, usage } }
  }

  const text = async (call: Call): Promise<Answer> => {
    const path = decodeFields(operations, call.params, 'path')
    if ('refusal' in path) return path.refusal
    const body = decodeBody(textFields, call.body, call.headers)
    if ('refusal' in body) return body.refusal
    const { operation } = path.fields
    calls++
    const result = work[operation](body.fields.text, body.fields.language)
    await wait(deckMs * TEXT_SHARE, call.signal)
    return { status: 200, json: { ...mark(), operation, result, usage: countTokens(body.fields.text, result) } }
  }

  const image = async (call: Call): Promise<Answer> => {
    const body = decodeBody(imageFields, call.body, call.headers)
    if ('refusal' in body) return body.refusal
    const { prompt, size } = body.fields
    calls++
    await wait(deckMs * IMAGE_SHARE, call.signal)
    const url = `https://images.example/generated/${hash('sha256', `${size} ${prompt}`, 'hex').slice(0, 16)}.png`
    return { status: 200, json: { ...mark(), url, size } }
  }

  const routes: Route[] = [
    { method: 'GET', path: '/health', handle: () => ({ status: 200, json: { status: 'ok' } }) },
    { method: 'GET', path: '/debug/calls', handle: () => ({ status: 200, json: { calls } }) },
    { method: 'POST', path: '/api/v1/ai/generate', handle: generate },
    { method: 'POST', path: '/api/v1/ai/text/:operation', handle: text },
    { method: 'POST', path: '/api/v1/ai/image/generate', handle: image },
  ]
  return { ...(await startBackend('ai', options.port ?? 0, routes)), calls: () => calls }
}

const mark = () => ({ id: randomUUID(), generated_at: new Date().toISOString() })

/** One card after the other over the whole delay, the first at once; then what it cost, then the end mark. */
async function* cardByCard(
  cards: readonly Card[],
  marks: ReturnType<typeof mark>,
  usage: ReturnType<typeof countTokens>,
  delayMs: number,
  signal: AbortSignal,
): AsyncGenerator<string> {
  for (const card of cards) {
    yield event('card', JSON.stringify({ ...marks, ...card }))
    await wait(delayMs / cards.length, signal)
  }
  yield event('usage', JSON.stringify({ usage }))
  yield event('done', '[DONE]')
}

const event = (name: string, data: string): string => `event: ${name}\ndata: ${data}\n\n`

const CARD_TITLES = [
  'Why it matters',
  'Where we are',
  'How it works',
  'An example',
  'What it costs',
  'Risks',
  'Next steps',
]

function deck(prompt: string, count: number, style: string): Card[] {
  const subject = prompt.length > 80 ? `${prompt.slice(0, 79)}…` : prompt
  return Array.from({ length: count }, (_, i) => {
    const title = CARD_TITLES[i % CARD_TITLES.length] as string
    return { index: i + 1, title, content: `${title}: ${subject}. Card ${i + 1} of ${count}, in a ${style} style.` }
  })
}

const work = {
  summarize: (text: string) => text.split(/(?<=[.!?])\s/)[0] as string,
  rewrite: (text: string) => `In other words: ${text}`,
  expand: (text: string) => `${text} There is more to it: the causes, the people concerned, and what follows.`,
  translate: (text: string, language: string) => `[${language}] ${text}`,
} as const

/** About four characters to a token, as providers do on average. */
function countTokens(prompt: string, completion: string) {
  return { prompt_tokens: Math.ceil(prompt.length / 4), completion_tokens: Math.ceil(completion.length / 4) }
}
