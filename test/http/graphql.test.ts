import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readGraphql } from '../../src/http/graphql.ts'

const textOf = (source: string): string | null => readGraphql(source)?.text ?? null
const operationsOf = (source: string): readonly string[] | null =>
  readGraphql(source)?.operations.map(({ type, name }) => `${type} ${name ?? '-'}`) ?? null

describe('two documents', () => {
  it.each([
    ['white space and line ends', '{a b}', ' {\r\n\ta\n\n b }\r'],
    ['commas', '{a(x: 1, y: [1, 2]) b}', '{,,a(x:1 y:[1 2],),b,}'],
    ['comments', '{a b}', '# of "all" {\n{a # one\r b}#'],
    ['a byte order mark', '{a}', '\uFEFF{a}'],
    ['no blanks at all', 'query A ( $x : Int ! = 1 ) @d ( a : $x ) { a ... F }', 'query A($x:Int!=1)@d(a:$x){a...F}'],
    ['a comment in Unicode', '{a}', '{a # größer 漢字 🦦\n}'],
    ['where an empty text ends', '{a(x: "") b}', '{a(x:"")b}'],
  ])('are the same but for %s', (_what, a, b) => {
    expect(textOf(a)).not.toBeNull()
    expect(textOf(a)).toBe(textOf(b))
  })

  it.each([
    ['a field', '{a}', '{b}'],
    ['the order of fields', '{a b}', '{b a}'],
    ['where a name ends', '{ab}', '{a b}'],
    ['an alias', '{a}', '{b: a}'],
    ['a text', '{a(x: "1")}', '{a(x: "2")}'],
    ['blanks in a text', '{a(x: "1 2")}', '{a(x: "1  2")}'],
    ['commas in a text', '{a(x: "1,2")}', '{a(x: "12")}'],
    ['what looks like a comment in a text', '{a(x: "1 # 2")}', '{a(x: "1")}'],
    ['a text and a number', '{a(x: "1")}', '{a(x: 1)}'],
    ['line ends in a block', '{a(x: """1\n2""")}', '{a(x: """1 2""")}'],
    ['a comment in a block', '{a(x: """1 # 2""")}', '{a(x: """1""")}'],
    ['where a block ends', '{a(x: """1\\""" 2""")}', '{a(x: """1\\""" 3""")}'],
    ['the case of a letter', '{a}', '{A}'],
    ['the name of the operation', 'query A {a}', 'query B {a}'],
    ['an unnamed operation and its short form', 'query {a}', '{a}'],
    ['a fragment', '{...F} fragment F on T {a}', '{...F} fragment F on T {b}'],
    ['Unicode that looks alike', '{a(x: "\u00E9")}', '{a(x: "e\u0301")}'],
  ])('differ in %s', (_what, a, b) => {
    expect(textOf(a)).not.toBeNull()
    expect(textOf(b)).not.toBeNull()
    expect(textOf(a)).not.toBe(textOf(b))
  })
})

describe('the operations of a document', () => {
  it.each([
    ['{a}', ['query -']],
    ['query {a}', ['query -']],
    ['query A {a}', ['query A']],
    ['query query {a}', ['query query']],
    ['query A($x: I = {y: [{z: 1}]}) @d(e: "}") {a(b: {c: "}"}) {d}}', ['query A']],
    ['mutation M {a}', ['mutation M']],
    ['mutation {a}', ['mutation -']],
    ['subscription S($x: I) {a}', ['subscription S']],
    ['query A {a} mutation B {b} fragment F on T @d {c}', ['query A', 'mutation B']],
    ['fragment mutation on query {a} query A {...mutation}', ['query A']],
    ['query A {mutation {b}}', ['query A']],
    ['query A {a(x: "} mutation M {b}")}', ['query A']],
    ['query A {a(x: """"} mutation M {b}""")}', ['query A']],
    ['query A {a # } mutation M {b}\n}', ['query A']],
    [String.raw`query A {a(x: "\"} mutation M {b}")}`, ['query A']],
    ['query A {a(x: """\\"""} mutation M {b}""")}', ['query A']],
  ])('of %s are %j', (source, operations) => {
    expect(operationsOf(source)).toEqual(operations)
  })

  it.each([
    '',
    ' # nothing\n',
    'a',
    '{a',
    '{a}}',
    '{a)}',
    '{a(b: [1)]}',
    'query A',
    'query A B {a}',
    'query A ($x: I) ($y: I) {a}',
    'query A @ {a}',
    'query A @d(a: 1 {a}',
    'fragment F on T {a}',
    'fragment on on T {a} {b}',
    'fragment F($x: I) on T {a} {b}',
    'fragment F {a} {b}',
    '{a} {b}',
    'query A {a} {b}',
    'type T {a: I}',
    '{a} type T {a: I}',
    'extend type T {a: I}',
    '"of all" query A {a}',
    '{a} "of none"',
    '{a(x: "1)}',
    '{a(x: "1\n")}',
    '{a(x: "1\u0007")}',
    String.raw`{a(x: "\x")}`,
    String.raw`{a(x: "\u12")}`,
    '{a(x: """1"")}',
    '{a(x: """1\\""")}',
    '{a(x: 01)}',
    '{a(x: 1.)}',
    '{a(x: 1a)}',
    '{a(x: 1.5.6)}',
    "{a(x: '1')}",
    '{a; b}',
    '{a %}',
    '{ä}',
    '{a\u00A0b}',
    '{a\u2028b}',
    '{a # \u2028 b\n}',
    '{a # \u000B b\n}',
    '{a # \u0085 b\n}',
    '{a ..F}',
  ])('of %j cannot be told', (source) => {
    expect(readGraphql(source)).toBeNull()
  })

  it.each([
    ['{a ... @defer {b}}', true],
    ['{a @ stream(first: 1)}', true],
    ['{a @include(if: true)}', false],
    ['{defer(x: "@defer") stream}', false],
  ])('of %s may have an answer that comes in parts: %s', (source, isIncremental) => {
    expect(readGraphql(source)?.isIncremental).toBe(isIncremental)
  })

  it('take no long time to read, however long the document', () => {
    const long = 250_000
    for (const source of [
      '#'.repeat(long),
      ','.repeat(long),
      '"'.repeat(long),
      `"""${'"" '.repeat(long / 3)}`,
      `"${'\\"'.repeat(long / 2)}`,
      `{a(x: ${'['.repeat(long)}`,
      '1'.repeat(long),
      '{a'.repeat(long / 2),
      '@a'.repeat(long / 2),
    ]) {
      expect(readGraphql(source)).toBeNull()
    }
    expect(textOf(`{${' '.repeat(long)}a}`)).toBe('{ a }')
  })
})

// ---- documents at random, as tokens ----

const name = fc.constantFrom('a', 'b', 'query', 'mutation', 'on', 'fragment', 'true', 'null', '_x9')
const text = fc.constantFrom(
  '"x"',
  '""',
  '"a, b # c"',
  String.raw`"\"} mutation {"`,
  '"""a\n  b"""',
  '"""\\""" }"""',
  '"é🦦"',
)
const scalar = fc.oneof(name, text, fc.constantFrom('0', '-1', '1.5', '2e10', '-0.1E-3'))
const { value, selections } = fc.letrec<{ value: string[]; field: string[]; selections: string[] }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 2 },
    scalar.map((token) => [token]),
    name.map((token) => ['$', token]),
    fc.array(tie('value'), { maxLength: 2 }).map((each) => ['[', each.flat(), ']'].flat()),
    fc.tuple(name, tie('value')).map(([key, inner]) => ['{', key, ':', inner, '}'].flat()),
  ),
  field: fc.oneof(
    { maxDepth: 3 },
    name.map((token) => [token]),
    fc.tuple(name, name).map(([alias, token]) => [alias, ':', token]),
    fc.tuple(name, name, tie('value')).map(([token, key, inner]) => [token, '(', key, ':', inner, ')'].flat()),
    fc.tuple(name, tie('selections')).map(([token, inner]) => [token, inner].flat()),
    fc.tuple(name, tie('selections')).map(([type, inner]) => ['...', 'on', type, '@', 'd', inner].flat()),
  ),
  selections: fc.array(tie('field'), { minLength: 1, maxLength: 3 }).map((each) => ['{', each.flat(), '}'].flat()),
}))
const document = fc.oneof(
  selections,
  fc
    .tuple(fc.constantFrom('query', 'mutation'), name, value, selections)
    .map(([type, called, inner, all]) => [type, called, '(', '$', 'x', ':', 'I', '=', inner, ')', all].flat()),
)
const ignored = fc
  .array(fc.constantFrom(' ', '\t', '\n', '\r\n', ',', '\uFEFF', '# } " mutation\n'), { minLength: 1, maxLength: 3 })
  .map((each) => each.join(''))

describe('any document', () => {
  it('is the same with ignored tokens between its tokens', () => {
    fc.assert(
      fc.property(document, fc.infiniteStream(ignored), (tokens, between) => {
        const source = tokens.map((token) => token + String(between.next().value)).join('')
        expect(textOf(source)).toBe(tokens.join(' '))
      }),
    )
  })

  it('is the same without any that are not needed', () => {
    const isMark = (token = '') => /^[!$&():=@[\]{|}]$/.test(token)
    fc.assert(
      fc.property(document, (tokens) => {
        const source = tokens.map((token, i) => (isMark(token) || isMark(tokens[i + 1]) ? token : `${token} `)).join('')
        expect(textOf(source)).toBe(tokens.join(' '))
      }),
    )
  })

  it('is another, or none, with another token in the place of any', () => {
    fc.assert(
      fc.property(document, fc.nat(), scalar, (tokens, place, other) => {
        const at = place % tokens.length
        fc.pre(tokens[at] !== other)
        expect(textOf(tokens.with(at, other).join(' '))).not.toBe(textOf(tokens.join(' ')))
      }),
    )
  })
})
