// What of a request body goes into a cache key: see src/cache/body-key.ts.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type BodyKeyOptions,
  MAX_KEYED_BODY_BYTES,
  MAX_KEYED_BODY_DEPTH,
  compileBodyKey,
} from '../../src/cache/body-key.ts'
import type { HeaderList } from '../../src/core/context.ts'
import { type JsonPointer, parseField } from '../../src/http/json.ts'

const JSON_TYPE: HeaderList = ['Content-Type', 'application/json']

const listed = (...fields: readonly string[]): BodyKeyOptions => ({
  fields: fields.map((field) => parseField(field) as JsonPointer),
})
const GENERATE = listed('prompt', 'num_cards', 'style')

const keyOf = (options: BodyKeyOptions, body: string | Buffer, headers: HeaderList = JSON_TYPE) =>
  compileBodyKey(options)(headers, Buffer.from(body))

/** The part, or the reason in brackets. */
function partOf(options: BodyKeyOptions, body: string | Buffer, headers: HeaderList = JSON_TYPE): string {
  const key = keyOf(options, body, headers)
  return key.ok ? key.part : `<${key.reason}>`
}

describe('a canonical body', () => {
  it('has one part for all spellings of a value', () => {
    const part = partOf('canonical', '{"prompt":"A","num_cards":5}')
    expect(part).toBe('4:json16:application/json28:{"num_cards":5,"prompt":"A"}')
    expect(partOf('canonical', String.raw` { "num_cards" : 5.0, "prompt" : "\u0041" } `)).toBe(part)
  })

  it.each([
    ['another value', '{"a":1}', '{"a":2}'],
    ['another type of value', '{"a":1}', '{"a":"1"}'],
    ['a further member', '{"a":1}', '{"a":1,"b":1}'],
    ['null and absent', '{"a":null}', '{}'],
    ['another order of a list', '[1,2]', '[2,1]'],
  ])('has parts of its own for %s', (_what, one, other) => {
    expect(partOf('canonical', one)).not.toBe(partOf('canonical', other))
  })

  it.each([
    ['nothing', ''],
    ['text', 'prompt=A'],
    ['JSON and more', '{}{}'],
    ['bytes that are not UTF-8', Buffer.from([0x22, 0xff, 0x22])],
    ['a byte order mark', '\ufeff{}'],
  ])('is not JSON where it holds %s', (_what, body) => {
    expect(keyOf('canonical', body)).toEqual({ ok: false, reason: 'body-not-json' })
  })

  it.each([
    ['repeated names', '{"a":1,"a":2}'],
    ['a number beyond a double', '{"seed":9007199254740993}'],
    ['a lone surrogate', String.raw`{"a":"\ud800"}`],
    ['nesting beyond the bound', '['.repeat(MAX_KEYED_BODY_DEPTH + 1) + ']'.repeat(MAX_KEYED_BODY_DEPTH + 1)],
  ])('is unsafe where it holds %s', (_what, body) => {
    expect(keyOf('canonical', body)).toEqual({ ok: false, reason: 'unsafe-json' })
  })

  it('may be nested as deep as the bound', () => {
    const body = '['.repeat(MAX_KEYED_BODY_DEPTH) + ']'.repeat(MAX_KEYED_BODY_DEPTH)
    expect(keyOf('canonical', body).ok).toBe(true)
  })
})

describe('the media type of a JSON body', () => {
  const part = partOf('canonical', '{}')

  it.each([
    'application/json',
    'Application/JSON',
    'application/json; charset=utf-8',
    'application/json;charset=UTF-8',
    'application/json; Charset="utf-8"',
    'application/json ; ',
    'application/json;;charset=utf-8;',
  ])('is the same as %j', (type) => {
    expect(partOf('canonical', '{}', ['content-type', type])).toBe(part)
  })

  it.each([
    'application/vnd.example+json',
    'application/merge-patch+json',
    'application/json; version=2',
    'application/json; version="2;charset=utf-8"',
  ])('tells bodies of type %j from plain ones', (type) => {
    const own = keyOf('canonical', '{}', ['Content-Type', type])
    expect(own.ok).toBe(true)
    expect(own).not.toEqual({ ok: true, part })
  })

  it.each([
    'text/plain',
    'text/json',
    'application/x-www-form-urlencoded',
    'application/jsonp',
    'application/json-seq',
    'json',
    '',
    ' application/json',
    'application/json charset=utf-8',
    'application/json; charset',
    'application/json; charset=',
    'application/json; charset=latin1',
    'application/json; charset=utf-16',
    'application/json; charset=utf-8; charset=latin1',
    'application/json; charset="utf-8',
    'application/json, text/plain',
  ])('%j is none', (type) => {
    expect(keyOf('canonical', '{}', ['Content-Type', type])).toEqual({ ok: false, reason: 'body-not-json' })
    expect(keyOf(GENERATE, '{}', ['Content-Type', type])).toEqual({ ok: false, reason: 'body-not-json' })
  })

  it('is none where the field is absent, or there twice', () => {
    expect(partOf('canonical', '{}', [])).toBe('<body-not-json>')
    expect(partOf('canonical', '{}', [...JSON_TYPE, ...JSON_TYPE])).toBe('<body-not-json>')
  })

  it('takes no long time over a long row of blanks or parameters', () => {
    for (const row of [' '.repeat(8000), ';'.repeat(8000), '; a=b'.repeat(1600), ';a="'.repeat(2000)]) {
      expect(partOf('canonical', '{}', ['Content-Type', `application/json${row} x`])).toBe('<body-not-json>')
    }
  })
})

describe('the coding of a JSON body', () => {
  it.each(['identity', 'Identity', '', 'identity, identity'])('may be %j', (coding) => {
    expect(partOf('canonical', '{}', [...JSON_TYPE, 'Content-Encoding', coding])).toBe(partOf('canonical', '{}'))
  })

  it.each(['gzip', 'br', 'identity, gzip', 'x-identity'])('may not be %j, whatever the bytes are', (coding) => {
    const headers = [...JSON_TYPE, 'content-encoding', coding]
    expect(keyOf('canonical', '{}', headers)).toEqual({ ok: false, reason: 'body-encoded' })
    expect(keyOf(GENERATE, '{}', headers)).toEqual({ ok: false, reason: 'body-encoded' })
  })

  it('is seen on a second line', () => {
    const headers = [...JSON_TYPE, 'Content-Encoding', 'identity', 'Content-Encoding', 'gzip']
    expect(partOf('canonical', '{}', headers)).toBe('<body-encoded>')
  })
})

describe('a body under a field list', () => {
  it('has the part of its value, the same under any list that names all of it', () => {
    const body = '{"style":"modern","prompt":"Weirs","num_cards":5}'
    expect(partOf(GENERATE, body)).toBe(partOf('canonical', body))
    expect(partOf(listed('style', '/num_cards', '/prompt', 'more'), body)).toBe(partOf('canonical', body))
  })

  it('tells absent, null, empty and false apart, field by field', () => {
    const bodies = [
      '{}',
      ...['null', '""', 'false', '0', '[]', '{}'].flatMap((v) => [`{"prompt":${v}}`, `{"style":${v}}`]),
    ]
    const parts = bodies.map((body) => partOf(GENERATE, body))
    expect(parts.filter((part) => part.startsWith('<'))).toEqual([])
    expect(new Set(parts).size).toBe(bodies.length)
  })

  it.each([
    ['a further member', '{"prompt":"A","temperature":1}'],
    ['a further member that is null', '{"prompt":"A","user":null}'],
    ['a name in another case', '{"Prompt":"A"}'],
    ['a name that objects have', '{"prompt":"A","__proto__":{}}'],
    ['a list', '[{"prompt":"A"}]'],
    ['a text', '"prompt"'],
    ['null', 'null'],
  ])('is refused where it holds %s, which may change the answer', (_what, body) => {
    expect(keyOf(GENERATE, body)).toEqual({ ok: false, reason: 'unknown-field' })
  })

  it.each([
    [['/input/prompt'], '{"input":{"prompt":"A"}}', true],
    [['/input/prompt'], '{"input":{}}', true],
    [['/input/prompt'], '{}', true],
    [['/input/prompt'], '{"input":{"prompt":{"any":["thing"]}}}', true],
    [['/input/prompt'], '{"input":{"prompt":"A","seed":1}}', false],
    [['/input/prompt'], '{"input":"A"}', false],
    [['/input/prompt'], '{"input":null}', false],
    [['/input/prompt'], '{"prompt":"A"}', false],
    [['/input/prompt', '/input'], '{"input":{"prompt":"A","seed":1}}', true],
    [['/input/prompt', '/input/seed'], '{"input":{"seed":1,"prompt":"A"}}', true],
    [['/messages/0'], '{"messages":["A"]}', true],
    [['/messages/0'], '{"messages":["A","B"]}', false],
    [['/messages/0/text'], '{"messages":[{"text":"A","role":"user"}]}', false],
    [['/a~1b'], '{"a/b":1}', true],
    [['a/b'], '{"a/b":1}', true],
    [['a~1b'], '{"a~1b":1}', true],
    [['/'], '{"":1}', true],
  ])('under %j, %s has a part: %s', (fields, body, has) => {
    expect(partOf(listed(...fields), body)).toBe(has ? partOf('canonical', body) : '<unknown-field>')
  })

  it('is unsafe or no JSON before it is anything else', () => {
    expect(partOf(GENERATE, '{"prompt":"A","prompt":"B"}')).toBe('<unsafe-json>')
    expect(partOf(GENERATE, '{"prompt":"A"')).toBe('<body-not-json>')
  })

  it('knows no field without a name, nor a pointer that is none', () => {
    expect(parseField('')).toBeNull()
    expect(parseField('/a~2')).toBeNull()
    expect(parseField('prompt')).toEqual(['prompt'])
    expect(parseField('/input/prompt')).toEqual(['input', 'prompt'])
  })
})

describe('a raw body', () => {
  it('has a part for its exact bytes', () => {
    expect(partOf('raw', '{"a":1}')).toBe(partOf('raw', '{"a":1}'))
    expect(partOf('raw', '{"a":1}')).not.toBe(partOf('raw', '{"a": 1}'))
    expect(partOf('raw', '')).not.toBe(partOf('raw', '\0'))
  })

  it('need not be text: bytes that no text has are told apart', () => {
    const parts = [[0xfe], [0xff], [0xef, 0xbf, 0xbd]].map((bytes) => partOf('raw', Buffer.from(bytes)))
    expect(new Set(parts).size).toBe(parts.length)
  })

  it('may be of any type and coding, and is told apart by them', () => {
    const kinds: HeaderList[] = [
      [],
      ['Content-Type', ''],
      ['Content-Type', 'text/plain'],
      ['Content-Type', 'text/plain', 'Content-Type', 'text/html'],
      ['Content-Type', 'text/plain, text/html'],
      ['Content-Encoding', 'text/plain'],
      ['Content-Type', 'text/plain', 'Content-Encoding', 'gzip'],
    ]
    const parts = kinds.map((headers) => partOf('raw', 'x', headers))
    expect(parts.filter((part) => part.startsWith('<'))).toEqual([])
    expect(new Set(parts).size).toBe(kinds.length)
  })

  it('never has the part of a JSON body', () => {
    expect(partOf('raw', '{}')).not.toBe(partOf('canonical', '{}'))
  })

  it('is not told apart by fields that say nothing of it', () => {
    expect(partOf('raw', 'x', ['X-Request-Id', '1'])).toBe(partOf('raw', 'x', ['X-Request-Id', '2']))
  })

  it('never has the part of another body: bytes, types and codings do not run together', () => {
    const field = fc.string({ unit: fc.constantFrom('0', '1', ':', 'a'), maxLength: 4 })
    const message = fc.record({
      types: fc.array(field, { maxLength: 2 }),
      codings: fc.array(field, { maxLength: 2 }),
      body: fc.oneof(
        field.map((text) => Buffer.from(text)),
        fc.uint8Array({ maxLength: 3 }).map((bytes) => Buffer.from(bytes)),
      ),
    })
    fc.assert(
      fc.property(message, message, (one, other) => {
        const part = ({ types, codings, body }: typeof one) =>
          partOf('raw', body, [
            ...types.flatMap((v) => ['content-type', v]),
            ...codings.flatMap((v) => ['content-encoding', v]),
          ])
        const written = ({ types, codings, body }: typeof one) => JSON.stringify([types, codings, body.toString('hex')])
        expect(part(one) === part(other)).toBe(written(one) === written(other))
      }),
      { numRuns: 2000 },
    )
  })
})

describe('the size of a body', () => {
  it.each<[string, BodyKeyOptions]>([
    ['canonical', 'canonical'],
    ['raw', 'raw'],
    ['fields', GENERATE],
  ])('is bounded under %s', (_how, options) => {
    const body = (bytes: number) => `{"prompt":"${'x'.repeat(bytes - 13)}"}`
    expect(keyOf(options, body(MAX_KEYED_BODY_BYTES)).ok).toBe(true)
    expect(keyOf(options, body(MAX_KEYED_BODY_BYTES + 1))).toEqual({ ok: false, reason: 'body-too-large' })
  })
})

describe('any part', () => {
  it('is well-formed Unicode, so that hashing it as UTF-8 keeps bodies apart, and nothing throws', () => {
    const body = fc.oneof(
      fc.uint8Array({ maxLength: 32 }).map((bytes) => Buffer.from(bytes)),
      fc.json().map((text) => Buffer.from(text)),
      fc.string({ unit: fc.constantFrom('\\ud8', '00', '"', '[', ']', 'é') }).map((text) => Buffer.from(text)),
    )
    fc.assert(
      fc.property(body, fc.constantFrom<BodyKeyOptions>('canonical', 'raw', GENERATE), (bytes, options) => {
        expect(partOf(options, bytes).isWellFormed()).toBe(true)
      }),
      { numRuns: 1000 },
    )
  })
})
