import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { routeCacheOptions } from '../../src/cache/options.ts'
import { type StreamRecord, compileStreamRule } from '../../src/cache/stream-rule.ts'

const EVENTS = 'text/event-stream; charset=utf-8'
const LINES = 'application/x-ndjson'

const ruleOf = (route: Record<string, unknown> = {}, methods = ['POST']) =>
  compileStreamRule(routeCacheOptions.parse(route), new Set(methods))

function recordOf(stream: string, route: Record<string, unknown> = {}, type = EVENTS): StreamRecord {
  const record = ruleOf(route).recordOf('POST', ['Content-Type', type])
  if (record === null) throw new Error('no stream')
  record.write(Buffer.from(stream), 0)
  return record
}

const verdict = (stream: string, route?: Record<string, unknown>, type?: string): string =>
  recordOf(stream, route, type).refusal() ?? 'whole'

const data = (...values: unknown[]): string =>
  values.map((value) => `data: ${typeof value === 'string' ? value : JSON.stringify(value)}\n\n`).join('')

const named = (type: string, value: object = {}): string =>
  `event: ${type}\ndata: ${JSON.stringify({ type, ...value })}\n\n`

const chunk = (finish_reason: string | null = null) => ({
  object: 'chat.completion.chunk',
  choices: [{ delta: { content: 'a' }, finish_reason }],
})

describe('a stream', () => {
  it.each<[string, string, string]>([
    ['with one event', 'data: a\n\n', 'whole'],
    ['with a comment at the end', 'data: a\n\n: bye\n\n', 'whole'],
    ['without any event', '', 'unterminated'],
    ['of comments', ': a\n\n', 'unterminated'],
    ['that ends within an event', 'data: a\n\ndata: b\n', 'unterminated'],
    ['that ends within a line', 'data: a\n\ndata: b', 'unterminated'],
    ['with an event of an error', 'event: error\ndata: x\n\ndata: [DONE]\n\n', 'error-answer'],
    ['with an error', data({ error: { code: 1 } }, '[DONE]'), 'error-answer'],
    ['with no error', data({ error: null, text: 'a' }), 'whole'],
    ['of OpenAI', data(chunk(), chunk('stop'), '[DONE]'), 'whole'],
    ['of OpenAI without its end', data(chunk(), chunk('stop')), 'unterminated'],
    ['of OpenAI that was out of room', data(chunk(), chunk('length'), '[DONE]'), 'unfinished'],
    ['of OpenAI that was filtered', data(chunk('content_filter'), '[DONE]'), 'unfinished'],
    ['of OpenAI that goes on behind its end', data(chunk(), '[DONE]', 'more'), 'unterminated'],
    ['of Anthropic', named('message_start') + named('message_stop'), 'whole'],
    ['of Anthropic without its end', named('message_start') + named('message_delta'), 'unterminated'],
    [
      'of Anthropic that was out of room',
      named('message_start') + named('message_delta', { delta: { stop_reason: 'max_tokens' } }) + named('message_stop'),
      'unfinished',
    ],
    ['of Anthropic with an error', named('message_start') + named('error', { error: {} }), 'error-answer'],
    [
      'of Responses',
      named('response.created', { response: { status: 'in_progress', error: null, incomplete_details: null } }) +
        named('response.completed', { response: { status: 'completed', error: null, incomplete_details: null } }),
      'whole',
    ],
    [
      'of Responses that was out of room',
      named('response.created') + named('response.incomplete', { response: { incomplete_details: { reason: 'x' } } }),
      'unfinished',
    ],
    ['of Responses that failed', named('response.created') + named('response.failed'), 'error-answer'],
    ['of Google', data({ candidates: [{}] }, { candidates: [{ finishReason: 'STOP' }] }), 'whole'],
    ['of Google that was out of room', data({ candidates: [{ finishReason: 'MAX_TOKENS' }] }), 'unfinished'],
    ['with an event that is too long to look into', `data: ${'x'.repeat(1024 ** 2)}\n\n`, 'unread'],
  ])('%s', (_name, stream, expected) => {
    expect(verdict(stream)).toBe(expected)
  })

  it.each<[unknown, string, string]>([
    ['openai', data('a', '[DONE]'), 'whole'],
    ['openai', data('a', ' [DONE] '), 'whole'],
    ['openai', data('a'), 'unterminated'],
    ['openai', data('[DONE]', 'a'), 'unterminated'],
    ['openai', data('[DONE]') + named('error'), 'error-answer'],
    ['anthropic', named('message_stop'), 'whole'],
    ['anthropic', data({ type: 'message_stop' }), 'whole'],
    ['anthropic', data('[DONE]'), 'unterminated'],
    ['responses', named('response.completed'), 'whole'],
    ['responses', named('response.done'), 'unterminated'],
    [{ event: 'end' }, 'event: end\n\n', 'whole'],
    [{ event: 'end' }, data('end'), 'unterminated'],
    [{ data: 'bye' }, data('a', 'bye'), 'whole'],
    [{ data: 'bye' }, data('a', 'bye!'), 'unterminated'],
    [{ when: ['done == true'] }, data({ done: true }), 'whole'],
    [{ when: ['done == true'] }, data({ done: false }), 'unterminated'],
    [{ when: ['done == true'] }, data('bye'), 'unterminated'],
    [{ event: 'end', when: ['/n > 1'] }, 'event: end\ndata: {"n":2}\n\n', 'whole'],
    [{ event: 'end', when: ['/n > 1'] }, data({ n: 2 }), 'unterminated'],
  ])('whose end is %j: %j is %s', (terminal, stream, expected) => {
    expect(verdict(stream, { terminal })).toBe(expected)
  })

  it('is not looked into where the route says so, but for its end', () => {
    const route = { storeUnfinished: true }
    expect(verdict(data({ error: 1 }, chunk('length'), '[DONE]'), route)).toBe('whole')
    expect(verdict(data(chunk('stop')), route)).toBe('unterminated')
  })

  it('is no JSON of which conditions could hold', () => {
    expect(verdict(data({ slides: [1] }), { storeIf: ['slides filled'] })).toBe('answer-not-json')
  })

  it.each<[string, string, string]>([
    ['of lines', '{"a":1}\n{"a":2}\n', 'whole'],
    ['whose last line is not ended', '{"a":1}\n{"a":2}', 'unterminated'],
    ['with no JSON', '{"a":1}\nb\n', 'answer-not-json'],
    ['with an error', '{"a":1}\n{"error":"x"}\n', 'error-answer'],
    ['of Ollama', '{"done":false}\n{"done":true,"done_reason":"stop"}\n', 'whole'],
    ['of Ollama without its end', '{"done":false}\n', 'unterminated'],
    ['of Ollama that was out of room', '{"done":true,"done_reason":"length"}\n', 'unfinished'],
  ])('%s', (_name, stream, expected) => {
    expect(verdict(stream, {}, LINES)).toBe(expected)
  })

  it('cut anywhere before its end is not whole', () => {
    const anyEvents = fc.array(fc.constantFrom('data: a\n\n', ': c\n\n', 'event: x\ndata: b\n\n', data(chunk())))
    fc.assert(
      fc.property(anyEvents, fc.nat(), (events, place) => {
        const whole = [...events, data('[DONE]')].join('')
        expect(verdict(whole, { terminal: 'openai' })).toBe('whole')
        const cut = place % (whole.length - 1)
        expect(recordOf(whole.slice(0, cut), { terminal: 'openai' }).isCutOff).toBe(true)
      }),
    )
  })

  it('is stored without its comments', () => {
    const record = recordOf(': a\n\ndata: 1\n: b\n\n: c\n\n')
    expect(record.recorded(Buffer.from(': a\n\ndata: 1\n: b\n\n: c\n\n')).body.toString()).toBe('data: 1\n\n')
  })
})

describe('what may be a stream that is stored', () => {
  const refusal = (method: string, type: string, terminal?: string, status = 200, coding?: string): string | null =>
    ruleOf(terminal === undefined ? {} : { terminal }, ['GET', 'HEAD', 'POST', 'QUERY']).refusal(method, {
      status,
      headers: ['Content-Type', type, ...(coding === undefined ? [] : ['Content-Encoding', coding])],
    })

  it.each<[string, string | null, string | null]>([
    ['an answer to a POST', refusal('POST', EVENTS), null],
    ['an answer to a GET', refusal('GET', EVENTS), 'event-stream'],
    ['an answer to a QUERY', refusal('QUERY', EVENTS), 'event-stream'],
    ['an answer to a GET whose end is named', refusal('GET', EVENTS, 'openai'), null],
    ['lines to a POST', refusal('POST', LINES), null],
    ['lines to a GET, which are a file', refusal('GET', LINES), null],
    ['an error', refusal('POST', EVENTS, 'openai', 404), 'status'],
    ['a coded one', refusal('POST', EVENTS, 'openai', 200, 'gzip'), 'unread'],
    ['no coding', refusal('POST', EVENTS, 'openai', 200, 'identity'), null],
    ['anything else', refusal('GET', 'application/json'), null],
    ['an answer to a POST that the cache does not answer', ruleOf({}, ['GET']).refusal('POST', { status: 200, headers: ['Content-Type', EVENTS] }), 'event-stream'], // prettier-ignore
  ])('%s', (_name, actual, expected) => {
    expect(actual).toBe(expected)
  })

  it('is not taken for a stream where it is a file of lines', () => {
    const isStream = (method: string, type: string) => ruleOf().isStream(method, ['Content-Type', type])
    expect([isStream('GET', LINES), isStream('POST', LINES), isStream('GET', 'text/plain')]).toEqual([
      false,
      true,
      false,
    ])
  })
})
