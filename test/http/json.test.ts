// Canonical JSON and JSON Pointer: see src/http/json.ts.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type JsonRefusal, type JsonValue, canonicalJson, parsePointer, valueAt } from '../../src/http/json.ts'

const MAX_DEPTH = 64
const read = (text: string) => canonicalJson(Buffer.from(text), { maxDepth: MAX_DEPTH })

function canonicalOf(text: string): string {
  const result = read(text)
  if (!result.ok) throw new Error(`${result.reason}: ${text}`)
  return result.canonical
}

function valueOf(text: string): JsonValue {
  const result = read(text)
  if (!result.ok) throw new Error(`${result.reason}: ${text}`)
  return result.value
}

const reasonOf = (text: string): JsonRefusal | null => {
  const result = read(text)
  return result.ok ? null : result.reason
}

/** As JSON.parse would have it, `__proto__` as a property of its own. */
function plain(value: JsonValue): unknown {
  if (Array.isArray(value)) return value.map(plain)
  return value instanceof Map ? Object.fromEntries([...value].map(([name, member]) => [name, plain(member)])) : value
}

describe('the canonical text', () => {
  it.each([
    ['null', 'null'],
    ['true', 'true'],
    ['false', 'false'],
    ['""', '""'],
    ['{}', '{}'],
    ['[]', '[]'],
    [' [ 1 ,\t2,\r\n{ "a" : null } ] \n', '[1,2,{"a":null}]'],
    ['[3,1,2]', '[3,1,2]'],
    ['{"b":1,"a":{"d":1,"c":2}}', '{"a":{"c":2,"d":1},"b":1}'],
    ['{"":1}', '{"":1}'],
    ['{"10":1,"9":2,"a":3}', '{"10":1,"9":2,"a":3}'],
  ])('of %j is %s', (text, canonical) => {
    expect(canonicalOf(text)).toBe(canonical)
  })

  it('holds all there is of a large object and a long list', () => {
    const names = Array.from({ length: 2000 }, (_, i) => String(10_000 + i))
    const members = names.map((name) => `"${name}":${name}`)
    expect(canonicalOf(`{${members.toReversed().join(',')}}`)).toBe(`{${members.join(',')}}`)
    expect(canonicalOf(`[${names.join(', ')}]`)).toBe(`[${names.join(',')}]`)
  })

  it('[RFC 8785 §3.2.3] sorts names by UTF-16 code unit, as its example has it', () => {
    const text = String.raw`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh",
      "1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`
    const value = valueOf(canonicalOf(text))
    const said = value instanceof Map ? [...value.values()] : []
    expect(said).toEqual([
      'Carriage Return',
      'One',
      'Control',
      'Latin Small Letter O With Diaeresis',
      'Euro Sign',
      'Emoji: Grinning Face',
      'Hebrew Letter Dalet With Dagesh',
    ])
  })

  it('[RFC 8785 §3.2.2] writes literals, strings and numbers as its example does', () => {
    const text = String.raw`{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }`
    expect(reasonOf(text)).toBe('unsafe-number')
    // Its first number has a digit too many for a double, so it is refused here; the rest stands.
    expect(canonicalOf(text.replace('333333333.33333329', '333333333.3333333'))).toBe(
      String.raw`{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
    )
  })

  it.each([
    [String.raw`"\u0041"`, '"A"'],
    [String.raw`"\/"`, '"/"'],
    [String.raw`"\u00e9"`, '"é"'],
    [String.raw`"\ud83d\ude00"`, '"😀"'],
    [String.raw`"\u000A"`, String.raw`"\n"`],
    [String.raw`"\u0000"`, String.raw`"\u0000"`],
    ['"\u007f\u2028"', '"\u007f\u2028"'],
    [String.raw`{"\u0061":1}`, '{"a":1}'],
  ])('[RFC 8259 §7] of the string %s is %s', (text, canonical) => {
    expect(canonicalOf(text)).toBe(canonical)
  })

  it.each([
    ['composed and decomposed letters', '"\u00e9"', '"e\u0301"'],
    ['an escape and its escaped spelling', String.raw`"\u0041"`, String.raw`"\\u0041"`],
    ['null and absent', '{"a":null}', '{}'],
    ['a number and its text', '1', '"1"'],
    ['a literal and its text', 'null', '"null"'],
    ['false and null', 'false', 'null'],
    ['an empty list and an empty object', '[]', '{}'],
    ['lists in another order', '[1,2]', '[2,1]'],
    ['one list and two', '[[1],[2]]', '[[1,2]]'],
    ['zero and minus zero', '0', '-0'],
    ['letters of another case', '{"a":1}', '{"A":1}'],
    ['a member and a name that looks like it', '{"a":1,"b":2}', String.raw`{"a\":1,\"b":2}`],
  ])('tells apart %s', (_what, one, other) => {
    expect(canonicalOf(one)).not.toBe(canonicalOf(other))
  })
})

describe('numbers', () => {
  it.each([
    ['0', '0'],
    ['0.0', '0'],
    ['0e999999999999999999999', '0'],
    ['-0', '-0'],
    ['-0.0e5', '-0'],
    ['1', '1'],
    ['1.0', '1'],
    ['1e0', '1'],
    ['10E-1', '1'],
    ['0.00001e+5', '1'],
    ['-1.50', '-1.5'],
    ['100', '100'],
    ['0.1', '0.1'],
    ['0.10000', '0.1'],
    ['1e-7', '1e-7'],
    ['0.0000001', '1e-7'],
    ['1e21', '1e+21'],
    ['1000000000000000000000', '1e+21'],
    ['123456789012345680000', '123456789012345680000'],
    ['9007199254740991', '9007199254740991'],
    ['9007199254740992', '9007199254740992'],
    ['9007199254740994', '9007199254740994'],
    ['1.7976931348623157e308', '1.7976931348623157e+308'],
    ['5e-324', '5e-324'],
    [`1${'0'.repeat(300)}`, '1e+300'],
    [`0.${'0'.repeat(299)}1e300`, '1'],
  ])('count by value: %s is %s', (text, canonical) => {
    expect(canonicalOf(text)).toBe(canonical)
  })

  it.each([
    ['9007199254740993', 'an integer beyond 2^53 that is between two doubles'],
    ['-9007199254740993', 'the same below zero'],
    ['18446744073709551616', 'a double by its binary value, but another decimal than its shortest text'],
    ['0.1000000000000000055', 'more digits than a double has'],
    ['0.30000000000000004000001', 'the same in its last place'],
    ['1e400', 'too large'],
    ['-1e400', 'too large below zero'],
    ['1e99999999999999999999999', 'an exponent beyond any bound'],
    ['1e-400', 'too small'],
    ['4.9e-324', 'the smallest double in other digits'],
    ['1.7976931348623158e308', 'the largest double in other digits'],
  ])('[RFC 8259 §6] are refused where a double says something else: %s (%s)', (text) => {
    expect(reasonOf(text)).toBe('unsafe-number')
    expect(reasonOf(`{"a":[${text}]}`)).toBe('unsafe-number')
  })

  it('agree with exact decimal arithmetic on what a double holds', () => {
    const digits = fc.string({ unit: fc.constantFrom('0', '1', '2', '4', '5', '7', '9'), minLength: 1, maxLength: 24 })
    fc.assert(
      fc.property(digits, digits, fc.integer({ min: -30, max: 30 }), (whole, fraction, exponent) => {
        const text = `${BigInt(whole)}.${fraction}e${exponent}`
        // Both sides as integers: scaled by a power of ten that leaves no fraction in either.
        const scaled = (number: string): bigint => {
          const [mantissa = '', power = '0'] = number.toLowerCase().split('e')
          const [left = '', right = ''] = mantissa.split('.')
          return BigInt(left + right) * 10n ** BigInt(100 + Number(power) - right.length)
        }
        expect(reasonOf(text)).toBe(scaled(text) === scaled(String(Number(text))) ? null : 'unsafe-number')
      }),
      { numRuns: 500 },
    )
  })

  it.each([
    ['digits', '1'.repeat(250_000)],
    ['zeros before one digit', `0.${'0'.repeat(250_000)}1`],
    ['zeros between two digits', `1${'0'.repeat(250_000)}1`],
    ['digits of an exponent', `1e${'9'.repeat(250_000)}`],
  ])('do not take long to refuse, however long they are: %s', (_what, text) => {
    expect(reasonOf(text)).toBe('unsafe-number')
  })
})

describe('what is refused', () => {
  it.each([
    ['nothing', ''],
    ['blanks only', ' \n'],
    ['[RFC 8259 §8.1] a byte order mark', '\ufeff{}'],
    ['a second value', '{} {}'],
    ['a trailing word', '1 x'],
    ['a trailing comma in a list', '[1,]'],
    ['a trailing comma in an object', '{"a":1,}'],
    ['a leading comma', '[,1]'],
    ['a missing comma', '[1 2]'],
    ['a missing colon', '{"a" 1}'],
    ['a missing value', '{"a":}'],
    ['a missing member', '{"a":1,,"b":2}'],
    ['a name without quotes', '{a:1}'],
    ['a number as name', '{1:1}'],
    ['single quotes', "{'a':1}"],
    ['a comment', '[1/**/]'],
    ['an open list', '[1'],
    ['an open object', '{"a":1'],
    ['an object that ends like a list', '{"a":1]'],
    ['a list that ends like an object', '[1}'],
    ['an open string', '"abc'],
    ['a string that ends in a backslash', '"abc\\'],
    ['a string whose end is escaped', String.raw`"abc\"`],
    ['a raw control character', '"a\nb"'],
    ['a raw NUL', '"\u0000"'],
    ['an unknown escape', String.raw`"\x41"`],
    ['a short escape', String.raw`"\u41"`],
    ['an escape that is no hex', String.raw`"\u00g0"`],
    ['a word in part', 'tru'],
    ['a word and more', 'nullx'],
    ['a word in upper case', 'True'],
    ['NaN', 'NaN'],
    ['Infinity', '-Infinity'],
    ['a plus sign', '+1'],
    ['a minus sign alone', '-'],
    ['a leading zero', '01'],
    ['a leading zero below zero', '-01'],
    ['no digit before the point', '.5'],
    ['no digit after the point', '1.'],
    ['no digit in the exponent', '1e+'],
    ['hex', '0x10'],
    ['digits of another script', '\u0661'],
    ['a blank that JSON does not know', '\u00a01'],
    ['a form feed', '\f1'],
  ])('as syntax: %s', (_what, text) => {
    expect(read(text)).toEqual({ ok: false, reason: 'syntax' })
  })

  it.each([
    ['a stray byte', [0x22, 0xff, 0x22]],
    ['an overlong form', [0x22, 0xc0, 0xa2, 0x22]],
    ['a surrogate in three bytes', [0x22, 0xed, 0xa0, 0x80, 0x22]],
    ['a character cut short', [0x22, 0xe2, 0x82, 0x22]],
    ['UTF-16 with its mark', [0xff, 0xfe, 0x7b, 0x00, 0x7d, 0x00]],
  ])('[RFC 8259 §8.1] as not UTF-8: %s', (_what, bytes) => {
    expect(canonicalJson(Buffer.from(bytes), { maxDepth: MAX_DEPTH })).toEqual({ ok: false, reason: 'not-utf8' })
  })

  it.each([
    ['the same value twice', '{"a":1,"a":1}'],
    ['another value', '{"a":1,"b":2,"a":3}'],
    ['deep inside', '[{"x":{"a":1,"a":1}}]'],
    ['another spelling', String.raw`{"a":1,"\u0061":2}`],
    ['the empty name', '{"":1,"":2}'],
    ['a name that objects have', '{"__proto__":1,"__proto__":2}'],
  ])('[RFC 8259 §4] repeated names: %s', (_what, text) => {
    expect(reasonOf(text)).toBe('duplicate-member')
  })

  it('one name in two objects is no repetition', () => {
    expect(canonicalOf('[{"a":1},{"a":2,"b":{"a":3}}]')).toBe('[{"a":1},{"a":2,"b":{"a":3}}]')
  })

  it.each([
    ['a high one', String.raw`"\ud83d"`],
    ['a low one', String.raw`"\ude00"`],
    ['two in the wrong order', String.raw`"\ude00\ud83d"`],
    ['a high one before another escape', String.raw`"\ud83d\u0041"`],
    ['in a name', String.raw`{"\ud800":1}`],
  ])('[RFC 8259 §8.2] lone surrogates, which readers replace or keep: %s', (_what, text) => {
    expect(reasonOf(text)).toBe('lone-surrogate')
  })

  it.each([
    ['lists', '[', ']', '1'],
    ['objects', '{"a":', '}', '1'],
    ['both', '[{"a":', '}]', '1'],
    ['empty ones', '[', ']', ''],
  ])('[RFC 8259 §9] nesting beyond the bound: %s', (what, open, close, inner) => {
    const levels = what === 'both' ? MAX_DEPTH / 2 : MAX_DEPTH
    const nested = (count: number) => open.repeat(count) + inner + close.repeat(count)
    expect(reasonOf(nested(levels))).toBeNull()
    expect(reasonOf(nested(levels + 1))).toBe('too-deep')
    expect(reasonOf(open.repeat(100_000))).toBe('too-deep')
  })

  it('names the first fault in reading order', () => {
    expect(reasonOf('{"a":1,"a":1e400')).toBe('duplicate-member')
    expect(reasonOf('{"a":1e400,"a":1}')).toBe('unsafe-number')
    expect(reasonOf('[1,,1e400]')).toBe('syntax')
  })
})

describe('the value', () => {
  it('has names of objects in Maps, so that none reaches a prototype', () => {
    const value = valueOf('{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}},"toString":1}')
    expect(value).toEqual(
      new Map<string, JsonValue>([
        ['__proto__', new Map([['polluted', true]])],
        ['constructor', new Map([['prototype', new Map([['polluted', true]])]])],
        ['toString', 1],
      ]),
    )
    expect('polluted' in {}).toBe(false)
  })

  it('says nothing of a name that is not there', () => {
    expect(valueAt(valueOf('{}'), ['toString'])).toBeUndefined()
    expect(valueAt(valueOf('[]'), ['length'])).toBeUndefined()
  })
})

/** A JSON text in one of its many spellings: blanks, escapes, exponents, and members in an order of their own. */
interface Spelling {
  readonly text: string
  /** The same value with its members in reverse, and no blanks. */
  readonly other: string
}

const blanks = fc.string({ unit: fc.constantFrom(' ', '\t', '\n', '\r'), maxLength: 2 })
const anyText = fc.string({ unit: 'binary', maxLength: 6 }).map((text) => text.toWellFormed())

const escaped = (text: string): string =>
  `"${Array.from({ length: text.length }, (_, i) => `\\u${text.charCodeAt(i).toString(16).padStart(4, '0')}`).join('')}"`

const string = anyText.map((text): Spelling => ({ text: escaped(text), other: JSON.stringify(text) }))
const number = fc
  .oneof(fc.integer(), fc.double({ noNaN: true, noDefaultInfinity: true }))
  .filter((value) => !Object.is(value, -0))
  .map((value): Spelling => {
    const [mantissa = '', power = '0'] = value.toExponential().split('e')
    const zeros = mantissa.includes('.') ? '00' : '.00'
    return { text: `${mantissa}${zeros}E${power}`, other: String(value) }
  })
const literal = fc.constantFrom('null', 'true', 'false').map((text): Spelling => ({ text, other: text }))

const { spelling } = fc.letrec<{ spelling: Spelling; list: Spelling; object: Spelling }>((tie) => ({
  spelling: fc.oneof({ maxDepth: 4 }, literal, string, number, tie('list'), tie('object')),
  list: fc.tuple(blanks, fc.array(tie('spelling'), { maxLength: 4 })).map(([blank, elements]) => ({
    text: `[${blank}${elements.map(({ text }) => text).join(`${blank},${blank}`)}${blank}]`,
    other: `[${elements.map(({ other }) => other).join(',')}]`,
  })),
  object: fc
    .tuple(blanks, fc.uniqueArray(fc.tuple(anyText, tie('spelling')), { maxLength: 4, selector: ([name]) => name }))
    .map(([blank, members]) => ({
      text: `{${blank}${members.map(([name, { text }]) => `${escaped(name)}${blank}:${blank}${text}`).join(',')}${blank}}`,
      other: `{${members
        .map(([name, { other }]) => `${JSON.stringify(name)}:${other}`)
        .reverse()
        .join(',')}}`,
    })),
}))

describe('of any JSON', () => {
  it('the canonical text is one for all spellings: order, blanks, escapes, exponents', () => {
    fc.assert(
      fc.property(spelling, ({ text, other }) => {
        expect(canonicalOf(text)).toBe(canonicalOf(other))
      }),
      { numRuns: 500 },
    )
  })

  it('the canonical text parses back to the same value, and is its own canonical text', () => {
    fc.assert(
      fc.property(spelling, ({ text }) => {
        const canonical = canonicalOf(text)
        expect(JSON.parse(canonical)).toEqual(JSON.parse(text))
        expect(plain(valueOf(text))).toEqual(JSON.parse(text))
        expect(canonicalOf(canonical)).toBe(canonical)
      }),
      { numRuns: 500 },
    )
  })

  it('two texts are one exactly when their values are', () => {
    fc.assert(
      fc.property(spelling, spelling, ({ text: one }, { text: other }) => {
        const same = deepEqual(valueOf(one), valueOf(other))
        expect(canonicalOf(one) === canonicalOf(other)).toBe(same)
      }),
      { numRuns: 500 },
    )
  })

  it('changing any one value changes the canonical text', () => {
    fc.assert(
      fc.property(spelling, fc.nat(), ({ other }, at) => {
        const value = valueOf(other)
        const places = placesIn(value)
        const place = places[at % places.length] as readonly string[]
        const changed = withAnother(value, place)
        expect(valueAt(changed, place)).not.toEqual(valueAt(value, place))
        expect(canonicalOf(written(changed))).not.toBe(canonicalOf(other))
      }),
      { numRuns: 500 },
    )
  })

  it('every value is found at its pointer', () => {
    fc.assert(
      fc.property(spelling, ({ text }) => {
        const value = valueOf(text)
        for (const place of placesIn(value)) {
          const pointer = place.map((token) => `/${token.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
          expect(parsePointer(pointer)).toEqual(place)
          expect(valueAt(value, place)).toBeDefined()
        }
      }),
    )
  })

  it('agrees with JSON.parse on what is JSON, apart from what is refused by name', () => {
    const pieces = ['{', '}', '[', ']', '"', ':', ',', '0', '1', '-', '.', 'e', 'E+', ' ', '\\', 'u', '\n', 'é']
    const units = fc.constantFrom(...pieces, 'true', 'false', 'null', '"a"', '"b":', '\\u0041', '\\ud800', '\ufeff')
    // Now and then JSON that lost or gained a piece, since chance alone seldom gets far into the grammar.
    const damaged = fc
      .tuple(spelling, fc.nat(), fc.nat({ max: 2 }), fc.option(units, { nil: '' }))
      .map(([{ text, other }, at, cut, piece]) => {
        const whole = at % 2 === 0 ? text : other
        const from = at % (whole.length + 1)
        return whole.slice(0, from) + piece + whole.slice(from + cut)
      })
    const seen = { json: 0, other: 0 }
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: units, maxLength: 12 }), damaged), (given) => {
        const text = given.toWellFormed()
        const result = read(text)
        if (!result.ok && result.reason !== 'syntax') return
        seen[result.ok ? 'json' : 'other']++
        expect(result.ok ? [plain(result.value)] : null).toEqual(parsed(text))
      }),
      { numRuns: 3000 },
    )
    expect(Math.min(seen.json, seen.other)).toBeGreaterThan(100)
  })

  it('random bytes never throw', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        expect(canonicalJson(Buffer.from(bytes), { maxDepth: 2 })).toHaveProperty('ok')
      }),
      { numRuns: 1000 },
    )
  })
})

/** In a list; null where JSON.parse throws. */
function parsed(text: string): [unknown] | null {
  try {
    return [JSON.parse(text)]
  } catch {
    return null
  }
}

function deepEqual(one: JsonValue, other: JsonValue): boolean {
  if (Array.isArray(one) && Array.isArray(other)) {
    return one.length === other.length && one.every((element, i) => deepEqual(element, other[i] as JsonValue))
  }
  if (one instanceof Map && other instanceof Map) {
    return (
      one.size === other.size &&
      [...one].every(([name, member]) => other.has(name) && deepEqual(member, other.get(name) as JsonValue))
    )
  }
  return Object.is(one, other)
}

/** Where each value of a document is, the whole first. */
function placesIn(value: JsonValue): (readonly string[])[] {
  const members = Array.isArray(value) ? [...value.entries()] : value instanceof Map ? [...value] : []
  return [[], ...members.flatMap(([name, member]) => placesIn(member).map((place) => [String(name)].concat(place)))]
}

/** A copy with something else at one place, as near to it as can be. */
function withAnother(value: JsonValue, [first, ...rest]: readonly string[]): JsonValue {
  if (first === undefined) return another(value)
  if (Array.isArray(value))
    return value.map((element, i) => (String(i) === first ? withAnother(element, rest) : element))
  if (!(value instanceof Map)) throw new Error(`nothing at ${first}`)
  return new Map([...value].map(([name, member]) => [name, name === first ? withAnother(member, rest) : member]))
}

function another(value: JsonValue): JsonValue {
  if (typeof value === 'string') return `${value} `
  if (typeof value === 'number') return Math.abs(value) < 1e15 ? value + 1 : value / 2
  if (typeof value === 'boolean') return !value
  if (Array.isArray(value)) return [...value, null]
  return value === null ? new Map() : new Map([...value, [`${[...value.keys()].join('')}+`, null]])
}

const written = (value: JsonValue): string =>
  Array.isArray(value)
    ? `[${value.map(written).join(',')}]`
    : value instanceof Map
      ? `{${[...value].map(([name, member]) => `${JSON.stringify(name)}:${written(member)}`).join(',')}}`
      : JSON.stringify(value)

describe('JSON Pointer', () => {
  const document = valueOf(
    String.raw`{"foo":["bar","baz"],"":0,"a/b":1,"c%d":2,"e^f":3,"g|h":4,"i\\j":5,"k\"l":6," ":7,"m~n":8}`,
  )

  it.each<[string, JsonValue]>([
    ['/foo', ['bar', 'baz']],
    ['/foo/0', 'bar'],
    ['/', 0],
    ['/a~1b', 1],
    ['/c%d', 2],
    ['/e^f', 3],
    ['/g|h', 4],
    [String.raw`/i\j`, 5],
    ['/k"l', 6],
    ['/ ', 7],
    ['/m~0n', 8],
  ])('[RFC 6901 §5] %j points at %j', (text, value) => {
    expect(valueAt(document, parsePointer(text) ?? [])).toEqual(value)
  })

  it('[RFC 6901 §5] the empty text points at the whole document', () => {
    expect(parsePointer('')).toEqual([])
    expect(valueAt(document, [])).toBe(document)
  })

  it('[RFC 6901 §4] unescapes ~1 before ~0', () => {
    expect(parsePointer('/~01')).toEqual(['~1'])
    expect(parsePointer('/~00~10')).toEqual(['~0/0'])
  })

  it.each(['foo', '#/foo', ' /foo', '/~', '/~2', '/a~', '/foo/~a/b'])('[RFC 6901 §3] %j is none', (text) => {
    expect(parsePointer(text)).toBeNull()
  })

  it.each([
    '/nothing',
    '/foo/2',
    '/foo/-',
    '/foo/00',
    '/foo/01',
    '/foo/-1',
    '/foo/0.0',
    '/foo/ 0',
    '/foo/',
    '/foo/length',
    '/a~1b/0',
  ])('[RFC 6901 §4] %j points at nothing', (text) => {
    expect(valueAt(document, parsePointer(text) ?? [])).toBeUndefined()
  })

  it('[RFC 6901 §4] tells null from nothing', () => {
    expect(valueAt(valueOf('{"a":null}'), ['a'])).toBeNull()
    expect(valueAt(valueOf('{}'), ['a'])).toBeUndefined()
  })
})
