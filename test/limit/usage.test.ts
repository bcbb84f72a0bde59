import { describe, expect, it } from 'vitest'
import { type UsageFormat, compileUsage, usageFormats, usageReader } from '../../src/limit/usage.ts'

const JSON_TYPE = ['Content-Type', 'application/json; charset=utf-8']
const EVENTS = ['Content-Type', 'text/event-stream']

/** Read at once, and a byte at a time. */
function read(format: UsageFormat, headers: readonly string[], text: string) {
  const rule = usageFormats[format]
  const bytes = Buffer.from(text)
  const readIn = (chunks: readonly Buffer[]) => {
    const plan = compileUsage([rule])
    const reader = usageReader(plan, headers)
    for (const chunk of chunks) reader.read(chunk)
    return { ...reader.figures(plan.numberOf(rule)), estimate: reader.estimate }
  }
  const whole = readIn([bytes])
  expect(readIn([...bytes].map((byte) => Buffer.from([byte])))).toEqual(whole)
  return whole
}

const stream = (...events: (object | string)[]): string =>
  events.map((data) => `data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`).join('')

const CHAT = { id: 'chatcmpl-1', object: 'chat.completion' }

const told = {
  openai: JSON.stringify({
    ...CHAT,
    choices: [{ message: { content: 'usage: {"prompt_tokens": 9}' } }],
    usage: {
      prompt_tokens: 100,
      completion_tokens: 20,
      total_tokens: 120,
      prompt_tokens_details: { cached_tokens: 60 },
      completion_tokens_details: { reasoning_tokens: 5 },
    },
  }),
  responses: JSON.stringify({
    object: 'response',
    output: [{ type: 'message' }],
    usage: { input_tokens: 100, input_tokens_details: { cached_tokens: 60 }, output_tokens: 20, total_tokens: 120 },
  }),
  anthropic: JSON.stringify({
    type: 'message',
    usage: { input_tokens: 30, cache_creation_input_tokens: 10, cache_read_input_tokens: 60, output_tokens: 20 },
  }),
} as const

const streamed = {
  openai: stream(
    { ...CHAT, choices: [{ delta: { content: 'Hel' } }], usage: null },
    { ...CHAT, choices: [{ delta: { content: 'lo' } }], usage: null },
    {
      ...CHAT,
      choices: [],
      usage: { prompt_tokens: 100, completion_tokens: 20, prompt_tokens_details: { cached_tokens: 60 } },
    },
    '[DONE]',
  ),
  responses: stream(
    { type: 'response.created', response: { usage: null } },
    { type: 'response.output_text.delta', delta: 'Hello' },
    {
      type: 'response.completed',
      response: { usage: { input_tokens: 100, input_tokens_details: { cached_tokens: 60 }, output_tokens: 20 } },
    },
  ),
  // The numbers of the last event are not those of the whole: the largest count.
  anthropic: stream(
    {
      type: 'message_start',
      message: {
        usage: { input_tokens: 30, cache_creation_input_tokens: 10, cache_read_input_tokens: 60, output_tokens: 1 },
      },
    },
    { type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: 'Hello' } },
    { type: 'message_delta', delta: { stop_reason: 'end_turn' }, usage: { output_tokens: 20 } },
    { type: 'message_delta', usage: { input_tokens: 0, output_tokens: 15 } },
    { type: 'message_stop' },
  ),
} as const

describe('what an answer says it has used', () => {
  const formats = ['openai', 'responses', 'anthropic'] as const

  it.each(formats.flatMap((format) => (['json', 'events'] as const).map((form) => [format, form] as const)))(
    'is found in an answer of %s, %s, by its name and by auto',
    (format, form) => {
      const [headers, text] = form === 'json' ? [JSON_TYPE, told[format]] : [EVENTS, streamed[format]]
      const whole = { input: 100, cached: 60, output: 20 }
      expect(read(format, headers, text)).toMatchObject(whole)
      expect(read('auto', headers, text)).toMatchObject(whole)
    },
  )

  it('is found in lines of JSON', () => {
    const text = '{"response":"Hel"}\n{"usage":{"prompt_tokens":4,"completion_tokens":2}}\n'
    expect(read('openai', ['Content-Type', 'application/x-ndjson'], text)).toMatchObject({ input: 4, output: 2 })
  })

  it('may be the request alone, as of embeddings', () => {
    const text = '{"data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}'
    expect(read('openai', JSON_TYPE, text)).toMatchObject({ input: 8, cached: 0, output: null })
  })

  it.each([
    ['a number that is none to count with', '{"usage":{"prompt_tokens":-5,"completion_tokens":1.5}}'],
    ['another format', told.anthropic.replaceAll('put_tokens', 'put')],
    ['no usage', '{"choices":[]}'],
    ['no JSON', 'usage prompt_tokens 5'],
  ])('is nothing in %s', (_what, text) => {
    expect(read('openai', JSON_TYPE, text)).toMatchObject({ input: null, cached: 0, output: null })
  })

  it('is not looked for in bytes that are coded, and nothing can be said of their length', () => {
    const coded = read('auto', [...JSON_TYPE, 'Content-Encoding', 'gzip'], told.openai)
    expect(coded).toEqual({ input: null, cached: 0, output: null, estimate: null })
  })

  it('is no more in what was cached than in the whole', () => {
    const text = '{"usage":{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":50}}}'
    expect(read('openai', JSON_TYPE, text)).toMatchObject({ input: 5, cached: 5 })
  })
})

describe('an estimate', () => {
  it('is four bytes of text a token', () => {
    expect(read('auto', JSON_TYPE, '{"text":"1234567"}').estimate).toBe(5)
    expect(read('auto', ['Content-Type', 'text/plain'], 'x'.repeat(9)).estimate).toBe(3)
    expect(read('auto', ['Content-Type', 'image/png'], 'x'.repeat(9)).estimate).toBeNull()
    expect(read('auto', [], 'x'.repeat(9)).estimate).toBeNull()
  })

  it('of a stream counts what is new in each event, not the frame around it', () => {
    const chunk = (content: string) => ({
      ...CHAT,
      created: 1_700_000_000,
      choices: [{ index: 0, delta: { content } }],
    })
    const words = ['Once', ' upon', ' a', ' time', ' there', ' was', ' a', ' weir', ' that', ' held']
    const first = read('openai', EVENTS, stream(chunk('Once'))).estimate as number
    const all = read('openai', EVENTS, stream(...words.map(chunk))).estimate as number
    expect(all - first).toBeGreaterThanOrEqual(9)
    expect(all - first).toBeLessThanOrEqual(18)
  })

  it('of a stream is at least a token for each event', () => {
    expect(read('openai', EVENTS, stream('x', 'x', 'x')).estimate).toBe(3)
  })

  it('of an event that is not whole is nothing yet', () => {
    expect(read('openai', EVENTS, 'data: once upon a time').estimate).toBe(0)
  })
})
