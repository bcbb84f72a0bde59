import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { compileQueryRule, keySpellings } from '../../src/cache/query-key.ts'

describe('only', () => {
  const rule = compileQueryRule({ only: ['lang', 'page', 'f*'] })

  it.each([
    ['', ''],
    ['?', ''],
    ['?utm=1', ''],
    ['?page=2&lang=de', '?lang=de&page=2'],
    ['?lang=de&utm=1&page=2', '?lang=de&page=2'],
    ['?lang&lang=', '?lang&lang='],
    ['?page=1&&page=2&', '?page=1&page=2'],
    ['?page=2&page=1', '?page=2&page=1'],
    ['?filter=1&f=2&g=3', '?f=2&filter=1'],
  ])('makes %j %j', (query, expected) => {
    expect(rule(query)).toBe(expected)
  })

  it.each([
    ['escaped', '?%6Cang=de'],
    ['in another case', '?LANG=de'],
    ['as a list', '?lang[]=de'],
    ['as an escaped list', '?lang%5B0%5D=de'],
    ['with a blank before it', '?+lang=de'],
  ])('keeps what a server may take for a listed name: %s', (_name, query) => {
    expect(rule(query)).toBe(query)
    expect(rule(`${query}&x=1`)).toBe(query)
  })

  it.each([
    ['my_lang', 'my.lang'],
    ['my_lang', 'my[lang'],
    ['my_lang', 'my%20lang'],
    ['my_lang', '+my[lang'],
    ['a_b_c', 'a.b[c'],
    ['a_b_c', 'A[b.c'],
    ['user.name', 'user[name]'],
    ['user.name', 'user%5bname%5d'],
    ['user[name]', 'user.name'],
    ['user.*', 'user[name]'],
  ])('keeps, of %s, what PHP or ASP.NET takes for it: %s', (listed, name) => {
    const rule = compileQueryRule({ only: [listed] })
    expect(rule(`?${name}=de&a=1`)).toBe(`?${name}=de`)
  })

  it.each([['?x=1;lang=de&a=1'], ['?%zz=1&x=2'], ['?%ff=1&x=2'], ['?lang%00x=de&a=1'], ['?%00=1&a=1']])(
    'leaves %s as it is, which not all read alike',
    (query) => {
      expect(rule(query)).toBe(query)
    },
  )
})

describe('ignore', () => {
  const rule = compileQueryRule({ ignore: ['utm_*', 'sid'] })

  it.each([
    ['?b=1&utm_source=x&a=2&utm_=&sid=3', '?a=2&b=1'],
    ['?utm_source=x&sid', ''],
    // Whoever reads them as others do reads them here as well.
    ['?utm=1&SID=2&sid[]=3', '?SID=2&sid[]=3&utm=1'],
    ['?%73id=1', '?%73id=1'],
    ['?sid=1;lang=de', '?sid=1;lang=de'],
  ])('makes %j %j', (query, expected) => {
    expect(rule(query)).toBe(expected)
  })
})

it('leaves a query as it is that would take long to read', () => {
  const rule = compileQueryRule({ only: ['a'] })
  expect(rule(`?x=1${'&a=1'.repeat(499)}`)).toBe(`?a=1${'&a=1'.repeat(498)}`)
  expect(rule(`?x=1${'&a=1'.repeat(500)}`)).toBe(`?x=1${'&a=1'.repeat(500)}`)
})

it('keeps the order of one name in all its spellings', () => {
  const rule = compileQueryRule({ ignore: [] })
  expect(rule('?b=0&a=2&%61=1&a[]=3&A=4')).toBe('?a=2&%61=1&a[]=3&A=4&b=0')
  expect(rule('?b=0&a_b=2&a.b=1&a[b=3&a_a=4')).toBe('?a_b=2&a.b=1&a[b=3&a_a=4&b=0')
  expect(rule('?a_b=2&a_a=4')).toBe('?a_a=4&a_b=2')
})

/** How servers read the names of parameters, decoded. */
const READERS: Readonly<Record<string, (name: string) => string>> = {
  'by case': (name) => name,
  'without case': (name) => name.toLowerCase(),
  PHP: (name) =>
    name
      .trimStart()
      .replace(/(?<=.)\[.*\].*$/, '')
      .replaceAll(/[ .[]/g, '_'),
  'ASP.NET': (name) => name.toLowerCase().replace(/\[(\w+)\]/, '.$1'),
}

it.each(Object.entries(READERS))(
  'never makes one of two queries that a server reads as different: %s',
  (_name, nameOf) => {
    const listed = new Set(['a_b', 'b', 'c.d'])
    const rule = compileQueryRule({ only: [...listed] })
    const names = ['a_b', 'a.b', 'a[b', 'a[b]', 'a', 'b', '%62', 'B', 'b[]', 'c.d', 'c[d]', 'c_d', 'x']
    const parameter = fc.tuple(fc.constantFrom(...names), fc.constantFrom('1', '2', ''))
    const query = fc.array(parameter, { maxLength: 5 }).map((all) => `?${all.map((each) => each.join('=')).join('&')}`)
    const read = (text: string) => {
      const values: Record<string, string[]> = { a_b: [], b: [], 'c.d': [] }
      for (const [name, value] of new URLSearchParams(text)) values[nameOf(name)]?.push(value)
      return values
    }
    fc.assert(
      fc.property(query, query, (one, other) => {
        expect(read(rule(one))).toEqual(read(one))
        fc.pre(rule(one) === rule(other))
        expect(read(one)).toEqual(read(other))
      }),
    )
  },
)

describe('the spellings of a URL', () => {
  const rules = [compileQueryRule({ ignore: ['utm_*'] }), compileQueryRule({ only: ['page'] })]

  it.each([
    ['/a', ['/a']],
    ['//h.test/a?page=1', ['//h.test/a?page=1']],
    ['//h.test/a?x=1&utm_a=2', ['//h.test/a?x=1&utm_a=2', '//h.test/a?x=1', '//h.test/a']],
  ])('%s: %j', (url, expected) => {
    expect(keySpellings(url, rules)).toEqual(expected)
  })
})
