// What the body of an answer says of whether it may be stored: see src/cache/answer-rule.ts.

import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { MAX_READ_BYTES, compileAnswerRule } from '../../src/cache/answer-rule.ts'
import { routeCacheOptions } from '../../src/cache/options.ts'

interface Case {
  readonly cache?: Record<string, unknown>
  readonly method?: string
  readonly type?: string
  readonly coding?: string
  readonly status?: number
}

/** stored, or why not. */
function verdict(body: string | Buffer | object, given: Case = {}): string {
  const { cache = {}, method = 'POST', type = 'application/json', coding = null, status = 200 } = given
  const rule = compileAnswerRule(routeCacheOptions.parse(cache))
  const codings = coding === null ? [] : ['Content-Encoding', coding]
  const head = { status, headers: ['content-type', type, ...codings] }
  if (!rule.concerns(method, head)) return 'stored'
  const bytes = Buffer.from(typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body))
  return rule.refusal(method, head, bytes) ?? 'stored'
}

describe('the answer to a POST', () => {
  it.each([
    {},
    [],
    'a text',
    { error: null },
    { error: false },
    { error: '' },
    { errors: [] },
    { data: { error: 'of the user' } },
    { choices: [{ finish_reason: 'stop' }] },
    { choices: [{ finish_reason: 'tool_calls' }, { finish_reason: 'STOP' }] },
    { choices: 'length' },
    { choices: [null, 'length'] },
    { stop_reason: 'end_turn' },
    { stop_reason: 'stop_sequence', stop_sequence: 'length' },
    { object: 'response', status: 'completed', incomplete_details: null, error: null },
    { status: 'failed' },
    { candidates: [{ finishReason: 'STOP' }] },
    { done: true, done_reason: 'stop' },
  ])('is stored: %j', (body) => {
    expect(verdict(typeof body === 'string' ? JSON.stringify(body) : body)).toBe('stored')
  })

  it.each([
    { error: { message: 'overloaded' } },
    { error: 'overloaded' },
    { error: true },
    { error: 1 },
    { type: 'error', error: { type: 'api_error' } },
    { data: {}, errors: [{ message: 'partly' }] },
  ])('that is an error is not: %j', (body) => {
    expect(verdict(body)).toBe('error-answer')
  })

  it.each([
    { choices: [{ finish_reason: 'length' }] },
    { choices: [{ finish_reason: 'stop' }, { finish_reason: 'content_filter' }] },
    { choices: [{ finish_reason: null }] },
    { finish_reason: 'length' },
    { stop_reason: 'max_tokens' },
    { stop_reason: 'refusal' },
    { stop_reason: null },
    { stopReason: 'guardrail_intervened' },
    { candidates: [{ finishReason: 'MAX_TOKENS' }] },
    { candidates: [{ finishReason: 'SAFETY' }] },
    { done_reason: 'length' },
    { object: 'response', status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } },
    { object: 'response', status: 'in_progress' },
    { incomplete_details: {} },
  ])('that was cut short is not: %j', (body) => {
    expect(verdict(body)).toBe('unfinished')
  })

  it.each([
    ['', 'application/json'],
    ['{"a":', 'application/json; charset=utf-8'],
    ['data: 1', 'Application/JSON'],
    [Buffer.from([0x22, 0xff, 0x22]), 'application/vnd.a+json'],
  ])('that is not the JSON it says is not: %j', (body, type) => {
    expect(verdict(body, { type })).toBe('answer-not-json')
  })

  it('is none of a problem document, and any of another type', () => {
    expect(verdict({}, { type: 'application/problem+json' })).toBe('error-answer')
    for (const type of ['text/plain', 'image/png', '', 'application/jsonp']) {
      expect(verdict('{"error":1}', { type })).toBe('stored')
    }
  })

  it.each([
    ['gzip', gzipSync],
    ['x-gzip', gzipSync],
    ['deflate', deflateSync],
    ['BR', brotliCompressSync],
    ['zstd', zstdCompressSync],
  ])('is read in %s', (coding, code) => {
    expect(verdict(code('{"error":1}'), { coding })).toBe('error-answer')
    expect(verdict(code('{"error":null}'), { coding })).toBe('stored')
    expect(verdict(code('{"error":null}').subarray(0, -3), { coding })).toBe('unread')
    expect(verdict('{}', { coding })).toBe('unread')
  })

  it('that cannot be looked into is not stored: too long, as it is or unpacked, or in a coding nobody knows', () => {
    const long = (bytes: number) => `"${'x'.repeat(bytes - 2)}"`
    expect(verdict(long(MAX_READ_BYTES))).toBe('stored')
    expect(verdict(long(MAX_READ_BYTES + 1))).toBe('unread')
    expect(verdict(gzipSync(long(MAX_READ_BYTES)), { coding: 'gzip' })).toBe('stored')
    expect(verdict(gzipSync(long(MAX_READ_BYTES + 1)), { coding: 'gzip' })).toBe('unread')
    expect(verdict('{}', { coding: 'compress' })).toBe('unread')
    expect(verdict(gzipSync(gzipSync('{}')), { coding: 'gzip, gzip' })).toBe('unread')
    expect(verdict('{}', { coding: 'identity' })).toBe('stored')
  })

  it('is stored, whatever it says, where the route says so', () => {
    const cache = { storeUnfinished: true }
    for (const body of ['{"error":1}', '{"stop_reason":null}', '{', '']) expect(verdict(body, { cache })).toBe('stored')
  })

  it('is not stored where it breaks off, at whatever place', () => {
    const answer = fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 }), { minKeys: 1 })
    fc.assert(
      fc.property(answer, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (value, share) => {
        const text = Buffer.from(JSON.stringify(value))
        expect(verdict(text.subarray(0, Math.floor(text.length * share)))).toBe('answer-not-json')
      }),
    )
  })
})

describe('the conditions of a route', () => {
  const cache = { storeIf: ['slides filled', 'n >= 2'], rejectIf: ['draft == true', 'warning exists'] }

  it.each<[object | string, string]>([
    [{ slides: [1], n: 2 }, 'stored'],
    [{ slides: [1], n: 2, draft: false, warning: null }, 'stored'],
    [{ slides: [1], n: 1 }, 'store-if'],
    [{ slides: [1], n: '2' }, 'store-if'],
    [{ slides: [1] }, 'store-if'],
    [{ n: 2 }, 'store-if'],
    [{ slides: 7, n: 2 }, 'store-if'],
    [{ slides: [1], n: 2, draft: true }, 'reject-if'],
    [{ slides: [1], n: 2, draft: 'true' }, 'reject-if'],
    [{ slides: [1], n: 2, warning: '' }, 'reject-if'],
    [[], 'store-if'],
    ['slides', 'answer-not-json'],
  ])('make of %j: %s', (body, wanted) => {
    for (const method of ['GET', 'POST', 'QUERY']) expect(verdict(body, { cache, method })).toBe(wanted)
  })

  it('are for successes, which have to be JSON', () => {
    for (const type of ['text/html', 'image/png', '']) expect(verdict('{}', { cache, type })).toBe('answer-not-json')
    expect(verdict('', { cache, status: 204, type: '' })).toBe('answer-not-json')
    for (const status of [301, 404, 503]) expect(verdict('gone', { cache, status, type: 'text/html' })).toBe('stored')
  })

  it('are all there is for other methods than POST', () => {
    for (const method of ['GET', 'QUERY']) {
      expect(verdict({ error: 1 }, { method })).toBe('stored')
      expect(verdict({ error: 1 }, { method, cache: { rejectIf: ['error exists'] } })).toBe('reject-if')
    }
  })

  it('make another rule, so that what was stored before is not used', () => {
    const rules: object[] = [{}, { storeUnfinished: true }, { storeIf: ['a exists'] }, { rejectIf: ['a exists'] }]
    rules.push({ storeIf: ['a > 1'] }, { storeIf: ['a > 2'] }, { storeIf: ['/a/b exists'] })
    const ids = rules.map((rule) => compileAnswerRule(routeCacheOptions.parse(rule)).id)
    expect(new Set(ids).size).toBe(rules.length)
  })
})
