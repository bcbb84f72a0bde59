// What a route takes to be alike in bodies: see src/cache/body-alike.ts, by way of the part of a key.

import { isDeepStrictEqual } from 'node:util'
import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compileBodyKey } from '../../src/cache/body-key.ts'
import { type Condition, parseCondition } from '../../src/cache/condition.ts'
import { routeCacheOptions } from '../../src/cache/options.ts'

/** The part of a body, or the reason in brackets. body: as in `cache.key.body`. */
function partOf(body: unknown, text: string, bypassIf: readonly string[] = []): string {
  const options = routeCacheOptions.parse({ key: { body } }).key?.body ?? 'raw'
  const conditions = bypassIf.map((condition) => parseCondition(condition) as Condition)
  const part = compileBodyKey(options, conditions)(['Content-Type', 'application/json'], Buffer.from(text))
  return part.ok ? part.part : `<${part.reason}>`
}

describe('fields that do not count', () => {
  it.each<[unknown, string, string]>([
    [{ ignore: ['id'] }, '{"a":1,"id":7}', '{"a":1}'],
    [{ ignore: ['id'] }, '{"a":1,"id":{"deep":[]}}', '{"id":null,"a":1}'],
    [{ ignore: ['/meta/at'] }, '{"meta":{"at":1}}', '{"meta":{}}'],
    [{ ignore: ['/m/0/id'] }, '{"m":[{"id":1,"t":"x"}]}', '{"m":[{"t":"x"}]}'],
    [{ only: ['a'], ignore: ['id'] }, '{"a":1,"id":7}', '{"a":1}'],
    [{ only: ['m'], ignore: ['/m/id'] }, '{"m":{"id":1}}', '{"m":{}}'],
  ])('under %j: %s is %s', (body, one, other) => {
    expect(partOf(body, one)).toBe(partOf(body, other))
    expect(partOf(body, one)).not.toMatch(/^</)
  })

  it.each<[unknown, string, string]>([
    [{ ignore: ['id'] }, '{"m":{"id":1}}', '{"m":{"id":2}}'],
    [{ ignore: ['/meta/at'] }, '{"meta":{}}', '{}'],
    [{ ignore: ['/meta/at'] }, '{"meta":"at"}', '{"meta":"on"}'],
    // An element cannot be left out: the others would move.
    [{ ignore: ['/m/0'] }, '{"m":[1,2]}', '{"m":[3,2]}'],
    [{ ignore: ['/m/length'] }, '{"m":[1]}', '{"m":[2]}'],
  ])('under %j: %s is not %s', (body, one, other) => {
    expect(partOf(body, one)).not.toBe(partOf(body, other))
  })

  it('leave a field list as strict as it is', () => {
    expect(partOf({ only: ['a'], ignore: ['id'] }, '{"a":1,"di":7}')).toBe('<unknown-field>')
    expect(partOf({ only: ['m'], ignore: ['/x/id'] }, '{"x":{"id":1}}')).toBe('<unknown-field>')
  })
})

describe('defaults', () => {
  const body = { defaults: { n: 1, '/options/style': 'plain', stop: [{ a: null }] } }

  it.each([
    ['{}', '{"n":1.0,"stop":[{"a":null}]}', true],
    ['{"options":{}}', '{"options":{"style":"plain"}}', true],
    ['{}', '{"options":{}}', false],
    ['{}', '{"n":null}', false],
    ['{}', '{"n":2}', false],
    ['{}', '{"n":"1"}', false],
    ['{"options":[]}', '{"options":{}}', false],
  ])('make %s the same as %s: %s', (one, other, isSame) => {
    expect(partOf(body, one) === partOf(body, other)).toBe(isSame)
  })

  it('are as they were for the next body', () => {
    const rule = { defaults: { options: { style: ' A ' } }, normalize: { '/options/style': ['trim'] } }
    const options = routeCacheOptions.parse({ key: { body: rule } }).key?.body ?? 'raw'
    const before = JSON.stringify(options)
    const keyOf = compileBodyKey(options)
    const parts = ['{}', '{}'].map((text) => keyOf(['Content-Type', 'application/json'], Buffer.from(text)))
    expect(parts[0]).toEqual(parts[1])
    expect(JSON.stringify(options)).toBe(before)
  })

  it('count for conditions, which also see what does not count', () => {
    expect(partOf({ defaults: { t: 1 } }, '{}', ['t > 0'])).toBe('<bypass-if>')
    expect(partOf({ defaults: { t: 1 } }, '{"t":0}', ['t > 0'])).not.toMatch(/^</)
    expect(partOf({ ignore: ['t'] }, '{"t":1}', ['t > 0'])).toBe('<bypass-if>')
  })
})

describe('texts in several spellings', () => {
  it.each<[string[], string, string, boolean]>([
    [['trim'], ' a b\n', 'a b', true],
    [['trim'], 'a  b', 'a b', false],
    [['collapse-spaces'], 'a \n\t b', 'a b', true],
    [['collapse-spaces'], ' a', 'a', false],
    [['collapse-spaces', 'trim'], '\u00a0 a', 'a', true],
    [['nfc'], 'e\u0301', '\u00e9', true],
    [[], 'x', 'X', false],
    [['lower'], 'STRA\u1e9eE', 'stra\u00dfe', true],
    [['lower', 'nfc'], 'E\u0301', '\u00e9', true],
    [['trim', 'nfc'], 'A', 'a', false],
  ])('by %j, %j and %j are one: %s', (forms, one, other, isSame) => {
    const body = forms.length === 0 ? 'canonical' : { normalize: { p: forms } }
    const of = (p: string) => partOf(body, JSON.stringify({ p }))
    expect(of(one) === of(other)).toBe(isSame)
  })

  it('are texts, and at that place alone', () => {
    const body = { normalize: { p: ['trim'] } }
    const parts = ['{"p":1}', '{"p":["a "]}', '{"p":["a"]}', '{"q":"a "}', '{"q":"a"}', '{"p":null}', '{}']
    expect(new Set(parts.map((text) => partOf(body, text))).size).toBe(parts.length)
  })

  it('stay so when they are normal already', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'binary' }),
        fc.subarray(['trim', 'collapse-spaces', 'nfc', 'lower']),
        (p, forms) => {
          fc.pre(forms.length > 0)
          const body = { normalize: { p: forms } }
          const normal = (text: string): string => {
            const json = partOf(body, JSON.stringify({ p: text })).replace(/^.*?16:application\/json\d+:/s, '')
            return (JSON.parse(json) as { p: string }).p
          }
          expect(normal(normal(p))).toBe(normal(p))
        },
      ),
    )
  })
})

describe('any two bodies', () => {
  it('have one part where they are alike by all that is said, and never else', () => {
    const rule = { only: ['a', 'b', 'c'], ignore: ['x', '/c/x'], defaults: { b: 1 }, normalize: { a: ['trim'] } }
    const value = fc.constantFrom(null, 1, 2, '', 'p', ' p', 'P', [], ['p '])
    const inner = fc.oneof(value, fc.record({ x: value, y: value }, { requiredKeys: [] }))
    const body = fc.record({ a: value, b: value, c: inner, x: inner }, { requiredKeys: [] })
    type Body = { a?: unknown; b?: unknown; c?: unknown; x?: unknown }
    /** By hand what the rule says. */
    const meaning = ({ a, b = 1, c }: Body) => {
      const within = typeof c === 'object' && c !== null && !Array.isArray(c) ? { y: (c as { y?: unknown }).y } : c
      return JSON.parse(JSON.stringify({ a: typeof a === 'string' ? a.trim() : a, b, c: within })) as unknown
    }
    fc.assert(
      fc.property(body, body, (one, other) => {
        const [first, second] = [one, other].map((each) => partOf(rule, JSON.stringify(each)))
        expect(first).not.toMatch(/^</)
        expect(first === second).toBe(isDeepStrictEqual(meaning(one as Body), meaning(other as Body)))
      }),
      { numRuns: 3000 },
    )
  })
})
