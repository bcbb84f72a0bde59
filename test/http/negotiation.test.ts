// One spelling for what means the same, and codings by preference: see src/http/negotiation.ts.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { acceptsEncoding, normalizeSelecting } from '../../src/http/negotiation.ts'

const LISTS = ['accept', 'accept-charset', 'accept-encoding', 'accept-language']

describe('selecting fields of the same meaning', () => {
  it.each([
    ['accept-language', 'order at the same weight', ['en, de', 'de, en', 'de,en;q=1']],
    ['accept-language', 'case', ['en, de-CH', 'EN, DE-ch']],
    ['accept-language', 'blanks', ['en, de', ' en ,   de', 'en,\tde\t', 'de , en']],
    ['accept-language', 'empty members', ['en, de', ', en,, de ,']],
    ['accept-language', 'order that the weights tell', ['en;q=0.8, de', 'de, en;q=0.8']],
    ['accept-language', 'the weight of 1', ['en', 'en;q=1', 'en;q=1.', 'en;q=1.000']],
    ['accept-language', 'spellings of a weight', ['en;q=0.5', 'en;q=0.50', 'en ;\tQ=0.500', 'en; q=0.5']],
    ['accept-language', 'spellings of nought', ['en;q=0', 'en;q=0.', 'en;q=0.000']],
    ['accept-encoding', 'order, case and blanks', ['gzip, br', 'BR,GZip', 'br , gzip;q=1.0']],
    ['accept-encoding', 'the old name of a coding', ['gzip, compress', 'x-gzip, X-Compress']],
    ['accept-encoding', 'nothing, in more words', ['', ' ', ',', ' , ,']],
    ['accept-charset', 'order, case and blanks', ['utf-8, *;q=0.1', '*; q=0.1 ,UTF-8']],
    ['accept', 'order, case and blanks', ['text/html, */*;q=0.8', '*/*;q=0.8,TEXT/Html', '*/* ; q=0.80 , text/html']],
    ['accept', 'case and blanks of parameters', ['text/html;level=1;q=0.5', 'text/html ; LEVEL=1 ; Q=0.5']],
    ['accept', 'order around a quoted comma', ['a/b;c="x, y", d/e', 'd/e,a/b; c="x, y"']],
    ['foo', 'blanks around commas', ['1,2', ' 1, 2 ', '1 ,\t2', '1  ,  2']],
    ['foo', 'outer blanks', ['1', ' 1', '1\t', '\t 1 ']],
    ['foo', 'blanks outside quotes', ['"a , b",c', '"a , b" , c']],
    ['user-agent', 'outer blanks', ['Mozilla/5.0 (KHTML, like Gecko)', ' Mozilla/5.0 (KHTML, like Gecko)\t']],
  ])('[RFC 9111 §4.1] %s: %s makes no difference', (name, _what, values) => {
    const spellings = new Set(values.map((value) => normalizeSelecting(name, value)))
    expect([...spellings]).toHaveLength(1)
  })

  it('[RFC 9110 §5.3] several lines are as one', () => {
    expect(normalizeSelecting('foo', ['1', '2'].join(', '))).toBe(normalizeSelecting('foo', '1,2'))
  })
})

describe('selecting fields of different meaning', () => {
  it.each([
    ['accept-language', 'en', 'de'],
    ['accept-language', 'en, de', 'en'],
    ['accept-language', 'en, de;q=0.5', 'en;q=0.5, de'],
    ['accept-language', 'en, de', 'fr;q=0.5, de;q=1.0'],
    ['accept-language', 'en;q=0.5', 'en;q=0.501'],
    ['accept-language', 'en;q=0', 'de'],
    ['accept-language', 'de-CH', 'de'],
    ['accept-language', '*', ''],
    ['accept-encoding', 'gzip', 'gzip, identity'],
    ['accept-encoding', 'gzip', 'gzip;q=0'],
    ['accept-encoding', 'identity', ''],
    ['accept-encoding', 'x-br', 'br'],
    ['accept', 'text/html;level=1', 'text/html'],
    ['accept', 'text/html;a=x;b=y', 'text/html;b=y;a=x'],
    ['accept', 'a/b;c=x', 'a/b;c=X'],
    ['accept', 'a/b;c="x,y"', 'a/b;c="x, y"'],
    ['accept', 'a/b;c="x;q=1"', 'a/b;c="x"'],
    ['accept', 'a/b;c="d/e, f/g"', 'f/g, a/b;c="d/e"'],
    ['foo', 'a', 'A'],
    ['foo', 'b,a', 'a,b'],
    ['foo', 'a,,b', 'a,b'],
    ['foo', 'a b', 'ab'],
    ['foo', 'a; q=1', 'a;q=1'],
    ['foo', '"a,b"', '"a, b"'],
    ['foo', String.raw`"a\" , b"`, String.raw`"a\",b"`],
    ['foo', String.raw`"\" , \""`, String.raw`"\",\""`],
    ['foo', 'a\xa0', 'a'],
    ['user-agent', 'a, b', 'a,b'],
    ['cookie', 'a=b, c', 'a=b,c'],
    ['authorization', 'Digest a="b", c', 'Digest a="b",c'],
  ])('[RFC 9111 §4.1] %s: %j and %j stay apart', (name, a, b) => {
    expect(normalizeSelecting(name, a)).not.toBe(normalizeSelecting(name, b))
  })

  it.each([...LISTS, 'foo', 'user-agent'])('[RFC 9111 §4.1] %s: absent is not empty', (name) => {
    expect(normalizeSelecting(name, null)).toBeNull()
    expect(normalizeSelecting(name, '')).toBe('')
  })

  it.each([
    ['accept-language', 'en;q=0.5, en', 'en, en;q=0.5'],
    ['accept-language', 'en, en', 'en'],
    ['accept-language', 'b;q=2, a', 'a, b;q=2'],
    ['accept-language', 'b;q=0.1234, a', 'a, b;q=0.1234'],
    ['accept-language', 'b;x=1, a', 'a, b;x=1'],
    ['accept-language', 'b c, a', 'a, b c'],
    ['accept-language', 'B C', 'b c'],
    ['accept-encoding', 'b;q="1", a', 'a, b;q="1"'],
    ['accept', 'b, a', 'a, b'],
    ['accept', 'b/b;q=0.5;ext=1, a/a', 'a/a, b/b;q=0.5;ext=1'],
    ['accept', 'b/b;c="x, a/a', 'a/a, b/b;c="x'],
    ['accept', 'b/b;c="x"y, a/a', 'a/a, b/b;c="x"y'],
  ])('%s: what its grammar does not cover keeps its order and case: %j, %j', (name, a, b) => {
    expect(normalizeSelecting(name, a)).not.toBe(normalizeSelecting(name, b))
  })

  it('an open quote keeps the blanks of all that follows', () => {
    expect(normalizeSelecting('foo', ' a , "b , c ')).toBe('a , "b , c')
  })
})

describe('any value', () => {
  const name = fc.constantFrom(...LISTS, 'foo', 'user-agent')
  const soup = fc.array(
    fc.constantFrom(
      'a',
      'B',
      'a/b',
      'gzip',
      '*',
      ',',
      ', ',
      ';',
      ';q=',
      '0.5',
      '1.0',
      '0',
      '"',
      '\\',
      ' ',
      '\t',
      'x=y',
    ),
    { maxLength: 14 },
  )

  it('changes no more when it comes again', () => {
    fc.assert(
      fc.property(name, soup, (name, pieces) => {
        const once = normalizeSelecting(name, pieces.join(''))
        expect(normalizeSelecting(name, once)).toBe(once)
      }),
      { numRuns: 3000 },
    )
  })

  it('[RFC 9110 §12.5.4] is the same in any order of members', () => {
    const weight = fc.constantFrom('', ';q=0.5', ';q=1', ';q=0', ' ; q=0.75')
    const members = fc.uniqueArray(fc.tuple(fc.constantFrom('en', 'de', 'fr', 'it', 'es', '*'), weight), {
      selector: ([tag]) => tag,
    })
    fc.assert(
      fc.property(
        members.chain((list) => fc.tuple(fc.constant(list), fc.shuffledSubarray(list, { minLength: list.length }))),
        ([a, b]) => {
          const [one, other] = [a, b].map((list) => list.map((pair) => pair.join('')).join(', '))
          expect(normalizeSelecting('accept-language', one ?? '')).toBe(
            normalizeSelecting('accept-language', other ?? ''),
          )
        },
      ),
    )
  })

  it('is read alike however many others came between', () => {
    const before = [normalizeSelecting('accept-language', 'B, a;q=0.5'), acceptsEncoding('gzip;q=0.5, br')]
    for (let i = 0; i < 1000; i++) {
      expect(normalizeSelecting('accept-language', `x${i}, b`)).toBe(`b,x${i}`)
      expect(acceptsEncoding(`x${i}, br`)).toEqual(['br'])
    }
    expect([normalizeSelecting('accept-language', 'B, a;q=0.5'), acceptsEncoding('gzip;q=0.5, br')]).toEqual(before)
  })

  it('is not read where it is longer than anybody needs: that would take long for each variant', () => {
    const [short, long] = ['b,a'.padStart(512, 'b,a,'), 'b,a'.padStart(513, 'b,a,')]
    for (const name of ['accept-encoding', 'x-other']) {
      expect(normalizeSelecting(name, ` ${long} `)).toBe(long)
      expect(normalizeSelecting(name, short.replaceAll(',', ', ').slice(0, 512))).not.toContain(' ')
    }
    expect(acceptsEncoding(`gzip,${long}`)).toEqual([])
    expect(acceptsEncoding(`gzip,${'x'.repeat(500)}`)).toEqual(['gzip'])
  })
})

describe('codings', () => {
  it.each([
    ['gzip', ['gzip']],
    ['gzip, deflate, br, zstd', ['br', 'zstd', 'gzip']],
    ['gzip, br', ['br', 'gzip']],
    ['GZIP', ['gzip']],
    ['x-gzip', ['gzip']],
    ['br;q=0.5, gzip', ['gzip', 'br']],
    ['br;q=0.8, zstd;q=0.9, gzip;q=0.8', ['zstd', 'br', 'gzip']],
    ['gzip;q=0.001', ['gzip']],
    ['gzip;q=0', []],
    ['gzip;q=0.000, br', ['br']],
    ['deflate', []],
    ['*', ['br', 'zstd', 'gzip']],
    ['*;q=0.5, gzip', ['gzip', 'br', 'zstd']],
    ['gzip, *;q=0', ['gzip']],
    ['*;q=0', []],
    ['*, br;q=0', ['zstd', 'gzip']],
    ['identity', []],
    ['identity, gzip', ['gzip']],
    ['identity;q=0', []],
    ['identity;q=0, gzip', ['gzip']],
    ['identity;q=0, *;q=0.1', ['br', 'zstd', 'gzip']],
    ['identity;q=0.5, gzip;q=0.4, br;q=0.6', ['br']],
    ['identity;q=0.5, gzip;q=0.5', ['gzip']],
    ['gzip;q=0.5, *', ['br', 'zstd']],
    ['gzip;q=0.5, gzip;q=0', []],
    ['', []],
    [' , ', []],
  ])('[RFC 9110 §12.5.3] %s takes %j', (value, codings) => {
    expect(acceptsEncoding(value)).toEqual(codings)
  })

  it('[RFC 9110 §12.5.3] no field asks for nothing', () => {
    expect(acceptsEncoding(null)).toEqual([])
  })

  it.each(['gzip;q=2', 'gzip;q=-1', 'gzip;q=', 'gzip;q=0.1234', 'gzip;level=9', 'gzip br', 'gzip;q=1;q=0', '"gzip"'])(
    'what cannot be read takes none: %s',
    (value) => {
      expect(acceptsEncoding(value)).toEqual([])
    },
  )

  it('are answered alike for all spellings that Vary takes for one', () => {
    const member = fc.constantFrom('gzip', 'BR', 'zstd;q=0.5', 'x-gzip;q=0.25', '*;q=0.1', ' identity ; q=0 ', 'a', '')
    fc.assert(
      fc.property(fc.array(member, { maxLength: 5 }), (members) => {
        const value = members.join(',')
        expect(acceptsEncoding(normalizeSelecting('accept-encoding', value))).toEqual(acceptsEncoding(value))
      }),
    )
  })
})
