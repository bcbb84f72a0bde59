import { describe, expect, it } from 'vitest'
import { describeValue, formatIssue, isSecret, nearestName, suggestName, toIssue } from '../../src/config/issues.ts'
import { formatPath, quote, valueAt } from '../../src/config/path.ts'

describe('formatIssue', () => {
  const issue = {
    file: 'w.yaml',
    line: 14,
    column: 9,
    path: 'routes[2].cache.ttl',
    expected: 'x',
    got: '30',
    cure: 'do y',
  }

  it.each([
    ['place, expectation, value and cure', issue, 'w.yaml:14:9 routes[2].cache.ttl: expected x, got 30; do y'],
    ['no cure', { ...issue, cure: null }, 'w.yaml:14:9 routes[2].cache.ttl: expected x, got 30'],
    ['nothing that could stand there', { ...issue, expected: null }, 'w.yaml:14:9 routes[2].cache.ttl: 30; do y'],
    ['the whole file', { ...issue, path: '' }, 'w.yaml:14:9: expected x, got 30; do y'],
    ['a file that could not be read', { ...issue, path: '', line: 0, column: 0 }, 'w.yaml: expected x, got 30; do y'],
  ])('prints %s on one line', (_what, given, line) => {
    expect(formatIssue(given)).toBe(line)
  })
})

describe('formatPath', () => {
  it.each([
    [[], ''],
    [['routes', 2, 'cache', 'ttl'], 'routes[2].cache.ttl'],
    [['limits', 'per-client', 'key', 0], 'limits.per-client.key[0]'],
    [['cache', 'ttl', '200'], 'cache.ttl["200"]'],
    [['upstreams', 'a b.c'], 'upstreams["a b.c"]'],
    [['upstreams', 'x\n'], 'upstreams["x\\n"]'],
    [[''], '[""]'],
  ])('%j is %s', (path, text) => {
    expect(formatPath(path)).toBe(text)
  })
})

describe('quote', () => {
  it('escapes control characters and cuts long texts', () => {
    expect(quote('a\u001b[31m\n')).toBe(String.raw`"a\u001b[31m\n"`)
    expect(quote('x'.repeat(100))).toBe(`"${'x'.repeat(60)}..."`)
  })
})

describe('valueAt', () => {
  const root = { list: [{ a: 1 }], text: 'abc' }

  it.each([
    [['list', 0, 'a'], 1],
    [['list', 1, 'a'], undefined],
    [['text', 'length'], undefined],
    [['toString'], undefined],
    [['missing', 'deeper'], undefined],
  ])('%j leads to %j', (path, value) => {
    expect(valueAt(root, path)).toBe(value)
  })
})

describe('describeValue', () => {
  it.each([
    ['text', '"text"', 'a text that is not shown'],
    ['', '""', 'an empty text'],
    [30, '30', 'a number that is not shown'],
    [true, 'true', 'true'],
    [null, 'nothing', 'nothing'],
    [undefined, 'nothing', 'nothing'],
    [[], 'an empty list', 'an empty list'],
    [[1], 'a list', 'a list'],
    [{}, 'an empty mapping', 'an empty mapping'],
    [{ a: 1 }, 'a mapping', 'a mapping'],
  ])('%j is shown as %s and hidden as %s', (value, shown, hidden) => {
    expect(describeValue(value, false)).toBe(shown)
    expect(describeValue(value, true)).toBe(hidden)
  })
})

describe('isSecret', () => {
  it.each([
    [['admin', 'token'], 'x', true],
    [['redis', 'password'], 'x', true],
    [['headers', 'request', 'set', 'X-Api-Key'], 'x', true],
    [['headers', 'request', 'set', 'Authorization'], 'x', true],
    [['redis', 'url'], 'redis://user:password@host', true],
    [['redis', 'url'], 'redis://:pass/word@host', true],
    [['targets', 0], 'http://user@host', true],
    [['redis', 'url'], 'redis://host:6379', false],
    [['limits', 'a', 'key'], 'header:x', false],
    [['cache', 'storeSetCookie'], 'yes', false],
  ])('%j with %s: %s', (path, value, expected) => {
    expect(isSecret(path, value)).toBe(expected)
  })
})

describe('toIssue', () => {
  const position = { file: 'w.yaml', line: 1, column: 1 }
  const finding = { path: ['slow'], at: 'value', expected: 'a duration', got: null, cure: 'write "Abc1s"' } as const

  it('keeps a cure that repeats a value of the file', () => {
    expect(toIssue(finding, position, 'aBC1', false)).toMatchObject({ got: '"aBC1"', cure: 'write "Abc1s"' })
  })

  it('leaves out a cure that would repeat a value from outside', () => {
    expect(toIssue(finding, position, 'aBC1', true)).toMatchObject({ got: 'a text that is not shown', cure: null })
  })

  it('keeps a cure that does not, though the value is from outside', () => {
    expect(toIssue(finding, position, 'other', true)).toMatchObject({
      got: 'a text that is not shown',
      cure: 'write "Abc1s"',
    })
    expect(toIssue(finding, position, '', true)).toMatchObject({ got: 'an empty text', cure: 'write "Abc1s"' })
  })
})

describe('nearestName', () => {
  const known = ['ttl', 'override', 'maxObject', 'scope', 'methods']

  it.each([
    ['a changed letter', 'tll', 'ttl'],
    ['two letters swapped', 'tlt', 'ttl'],
    ['a letter too many', 'methodss', 'methods'],
    ['a letter too few', 'overide', 'override'],
    ['another case', 'MAXOBJECT', 'maxObject'],
    ['another spelling of words', 'max_object', 'maxObject'],
    ['a word of another meaning', 'stale', null],
    ['one letter, which is near to everything', 't', null],
    ['nothing', '', null],
    ['a text far too long', 'ttl'.repeat(1000), null],
  ])('judges %s', (_what, name, nearest) => {
    expect(nearestName(name, known)).toBe(nearest)
  })

  it('takes the nearest of several', () => {
    expect(nearestName('metods', ['method', 'methods'])).toBe('methods')
  })
})

describe('suggestName', () => {
  it('lists what is known where no name is near, up to a bound', () => {
    expect(suggestName('zzzz', ['a', 'b'])).toBe('known: a, b')
    const many = Array.from({ length: 25 }, (_, i) => `n${i}`)
    expect(suggestName('zzzz', many)).toMatch(/, n19 and 5 more$/)
  })

  it('is silent where nothing is known', () => {
    expect(suggestName('zzzz', [])).toBeNull()
  })
})
