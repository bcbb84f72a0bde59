// Values in their own units, and what a refusal says: see src/core/decode.ts.

import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import {
  NOT_SUPPORTED_YET,
  amount,
  count,
  countOr,
  decoded,
  duration,
  flag,
  flagOr,
  formatDuration,
  formatSize,
  fraction,
  later,
  parseDuration,
  parseSize,
  size,
  text,
  word,
} from '../../src/core/decode.ts'

/** The value, or `{expected, cure}` of the one refusal. */
function decode(schema: z.ZodType, value: unknown): unknown {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  expect(result.error.issues).toHaveLength(1)
  const [issue] = result.error.issues
  return issue?.code === 'custom' ? issue.params : issue?.message
}

describe('durations', () => {
  it.each([
    ['250ms', 250],
    ['30s', 30_000],
    ['10m', 600_000],
    ['1h', 3_600_000],
    ['7d', 604_800_000],
    ['1h30m', 5_400_000],
    ['0s', 0],
  ])('%s is %i ms', (written, ms) => {
    expect(parseDuration(written)).toBe(ms)
    expect(parseDuration(formatDuration(ms))).toBe(ms)
  })

  it.each(['', '30', 's', '30 s', '-1s', '1.5s', '30S', '1w', '30s ', `${'9'.repeat(20)}d`])(
    '%j is none',
    (written) => {
      expect(parseDuration(written)).toBeNull()
    },
  )

  it.each([
    [1500, '1s500ms'],
    [0, '0s'],
    [86_400_000, '1d'],
    [90_061_001, '1d1h1m1s1ms'],
  ])('%i ms is written %s', (ms, written) => {
    expect(formatDuration(ms)).toBe(written)
  })

  it.each([30, '30'])('a bare number is refused with the cure: %j', (value) => {
    expect(decode(duration(), value)).toEqual({
      expected: 'a duration such as "30s"',
      cure: 'add the unit: "30s" for seconds, "30ms" for milliseconds',
    })
  })

  it('below the least is refused, and says the least', () => {
    expect(decode(duration({ minMs: 100 }), '99ms')).toEqual({
      expected: 'a duration such as "30s", at least 100ms',
      cure: null,
    })
    expect(decode(duration({ minMs: 100 }), '100ms')).toBe(100)
  })

  it.each([
    ['1.5h', '1h30m'],
    ['0.25s', '250ms'],
  ])('%s is refused, and written in whole units in the cure', (value, written) => {
    expect(decode(duration(), value)).toMatchObject({ cure: `write ${written}` })
  })

  it.each([null, undefined, true, [], {}, '1 hour'])('anything else is refused with the units: %j', (value) => {
    expect(decode(duration(), value)).toMatchObject({ cure: 'units are ms, s, m, h, d' })
  })
})

describe('sizes', () => {
  it.each([
    ['512B', 512],
    ['64KiB', 65_536],
    ['10MiB', 10_485_760],
    ['2GiB', 2_147_483_648],
    ['0B', 0],
  ])('%s is %i bytes', (written, bytes) => {
    expect(parseSize(written)).toBe(bytes)
    expect(formatSize(bytes)).toBe(written)
  })

  it.each(['', '64', '64KB', '64kib', '1.5MiB', '-1B', '64 KiB', `${'9'.repeat(20)}B`])('%j is none', (written) => {
    expect(parseSize(written)).toBeNull()
  })

  it('a fraction is refused, and written in whole units in the cure', () => {
    expect(decode(size(), '1.5GiB')).toMatchObject({ cure: 'write 1536MiB' })
  })

  it('what no unit divides is written in bytes', () => {
    expect(formatSize(1025)).toBe('1025B')
  })

  it.each([64, '64'])('a bare number is refused with the cure: %j', (value) => {
    expect(decode(size(), value)).toEqual({
      expected: 'a size such as "64KiB"',
      cure: 'add the unit: "64B" for bytes, "64MiB" for mebibytes',
    })
  })

  it('below the least is refused, and says the least', () => {
    expect(decode(size({ minBytes: 1024 }), '1023B')).toEqual({
      expected: 'a size such as "64KiB", at least 1KiB',
      cure: null,
    })
    expect(decode(size({ minBytes: 1024 }), '1KiB')).toBe(1024)
  })
})

describe('counts', () => {
  const schema = count({ min: 1, max: 10 })

  it.each([
    [1, 1],
    [10, 10],
    ['7', 7],
  ])('%j is %i', (value, number) => {
    expect(decode(schema, value)).toBe(number)
  })

  it.each([0, 11, 1.5, '11', '', '1.5', '-1', ' 1', '0x1', Number.NaN, null, true])(
    '%j is refused with the range',
    (value) => {
      expect(decode(schema, value)).toEqual({ expected: 'a whole number from 1 to 10', cure: null })
    },
  )
})

describe('fractions', () => {
  it.each([
    [0.5, 0.5],
    [1, 1],
    ['0.25', 0.25],
    ['.5', 0.5],
    ['1.0', 1],
  ])('%j is %d', (value, number) => {
    expect(decode(fraction(), value)).toBe(number)
  })

  it.each([0, 1.01, -0.5, 'half', '', '2', '1e-1', Number.NaN, null, true])('%j is refused', (value) => {
    expect(decode(fraction(), value)).toEqual({ expected: 'a number above 0, up to 1', cure: null })
  })

  it('is refused as a percentage, with what to write', () => {
    expect(decode(fraction(), '25%')).toMatchObject({ cure: 'write 0.25' })
  })
})

describe('a count or a word', () => {
  it.each([
    [5, 5],
    ['5', 5],
    ['all', 'all'],
  ])('%j is %j', (value, expected) => {
    expect(decode(countOr({ min: 1, max: 9 }, ['all']), value)).toBe(expected)
  })

  it.each([0, 10, 1.5, 'some', null])('%j is refused', (value) => {
    const expected = 'a whole number from 1 to 9 or "all"'
    expect(decode(countOr({ min: 1, max: 9 }, ['all']), value)).toEqual({ expected, cure: null })
  })
})

describe('amounts', () => {
  it.each([
    [0.02, 0.02],
    [3, 3],
    [1e-5, 0.00001],
    ['0.5', 0.5],
    ['.25', 0.25],
    ['12', 12],
  ])('%j is %d', (value, number) => {
    expect(decode(amount(), value)).toBe(number)
  })

  it.each([0, -1, 2e9, '1e3', '0', '', 'two', Number.NaN, Number.POSITIVE_INFINITY, null, true])(
    '%j is refused',
    (value) => {
      expect(decode(amount(), value)).toEqual({ expected: 'a number above 0, such as 0.02', cure: null })
    },
  )

  it.each([
    [0, 0],
    ['0', 0],
    [0.5, 0.5],
    [5, 5],
  ])('%j is %d where nothing is an amount', (value, number) => {
    expect(decode(amount({ max: 5, orNothing: true }), value)).toBe(number)
  })

  it.each([-1, -0.1, 6])('%j is refused by its bounds and its name', (value) => {
    const expected = 'a few'
    expect(decode(amount({ max: 5, orNothing: true, expected }), value)).toEqual({ expected, cure: null })
  })
})

describe('flags', () => {
  it.each([
    [true, true],
    ['true', true],
    [false, false],
    ['false', false],
  ])('%j is %s', (value, expected) => {
    expect(decode(flag(), value)).toBe(expected)
  })

  it.each(['yes', 'no'])('%s is refused with the reason', (value) => {
    expect(decode(flag(), value)).toEqual({
      expected: 'true or false',
      cure: `in YAML 1.2 "${value}" is a text; write true or false`,
    })
  })

  it.each([1, 0, '', 'TRUE', null])('%j is refused', (value) => {
    expect(decode(flag(), value)).toEqual({ expected: 'true or false', cure: null })
  })

  it.each([true, false, 'a', 'b'])('can be words as well: %j', (value) => {
    expect(decode(flagOr(['a', 'b']), value)).toBe(value)
    expect(decode(flagOr(['a', 'b']), String(value))).toBe(value)
    expect(decode(flagOr(['c']), 'a')).toEqual({ expected: 'true, false or "c"', cure: null })
  })
})

describe('words', () => {
  const schema = word(['auto', 'public'], ['user'])

  it.each(['public', 'PUBLIC', 'Public'])('%s is public', (value) => {
    expect(decode(schema, value)).toBe('public')
  })

  it('a word of the design that does not work yet is refused by name', () => {
    expect(decode(schema, 'user')).toEqual({
      expected: 'one of "auto", "public"',
      cure: `"user" is ${NOT_SUPPORTED_YET}`,
    })
  })

  it.each(['other', '', null, 1])('%j is refused with the list', (value) => {
    expect(decode(schema, value)).toEqual({ expected: 'one of "auto", "public"', cure: null })
  })

  it('a list of one is not called a list', () => {
    expect(decode(word(['rate']), 'x')).toEqual({ expected: '"rate"', cure: null })
  })
})

describe('texts', () => {
  const schema = text('a name', (value) => (value === 'bad' ? 'choose another' : null))

  it('pass the check or carry what is wrong', () => {
    expect(decode(schema, 'good')).toBe('good')
    expect(decode(schema, 'bad')).toEqual({ expected: 'a name', cure: 'choose another' })
  })

  it('a number is refused with the cure', () => {
    expect(decode(schema, 12)).toEqual({ expected: 'a name', cure: 'quote it: "12"' })
    expect(decode(schema, null)).toEqual({ expected: 'a name', cure: null })
  })

  it('a decoded text is what its decoder makes of it', () => {
    const letters = decoded('letters', 'no digits', (value) => (/^[a-z]+$/.test(value) ? value.length : null))
    expect(decode(letters, 'abc')).toBe(3)
    expect(decode(letters, '123')).toEqual({ expected: 'letters', cure: 'no digits' })
    expect(decode(letters, 123)).toEqual({ expected: 'letters', cure: 'no digits' })
  })
})

describe('options whose engine comes later', () => {
  const schema = z.strictObject({ tags: later() })

  it('may be absent', () => {
    expect(decode(schema, {})).toEqual({})
  })

  it.each([[[]], [null], [false], ['x']])('are refused when written, even as %j', (value) => {
    expect(decode(schema, { tags: value })).toBe(NOT_SUPPORTED_YET)
  })
})

it.each([
  ['duration', duration()],
  ['size', size()],
  ['count', count({ min: 1, max: 9 })],
  ['flag', flag()],
  ['flag or word', flagOr(['a'])],
  ['word', word(['a'])],
])('the JSON schema of a %s lets a variable through and refuses what the decoder refuses', (_name, schema) => {
  const json = z.toJSONSchema(schema, { io: 'input' })
  const alternatives = [json, ...(json.anyOf ?? [])].flatMap((part) =>
    typeof part === 'object' && typeof part.pattern === 'string' ? [new RegExp(part.pattern)] : [],
  )
  expect(alternatives.some((pattern) => pattern.test('${NAME:-x}'))).toBe(true)
  expect(alternatives.some((pattern) => pattern.test('nonsense'))).toBe(false)
})
