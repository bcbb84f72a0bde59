import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { NumberScan, numberPlaces } from '../../src/http/json-numbers.ts'
import { parsePointer } from '../../src/http/json.ts'

function scan(pointers: readonly string[], chunks: readonly Buffer[]): [number, number][] {
  const found: [number, number][] = []
  const places = numberPlaces(pointers.map((text, slot) => ({ at: parsePointer(text) ?? [], slot })))
  const reader = new NumberScan(places, (slot, value) => found.push([slot, value]))
  for (const chunk of chunks) reader.read(chunk)
  return found
}

/** Whole, and byte by byte: it must not matter how a text arrives. */
function numbersIn(text: string, ...pointers: string[]): [number, number][] {
  const bytes = Buffer.from(text)
  const whole = scan(pointers, [bytes])
  expect(
    scan(
      pointers,
      [...bytes].map((byte) => Buffer.from([byte])),
    ),
  ).toEqual(whole)
  return whole
}

describe('numbers by where they are', () => {
  it.each([
    ['{"a":{"b":12}}', ['/a/b'], [[0, 12]]],
    [
      '{ "a" : { "b" : 12 , "c" : 3.5e1 } }',
      ['/a/b', '/a/c'],
      [
        [0, 12],
        [1, 35],
      ],
    ],
    ['{"x":[{"a":{"b":1}}],"a":{"b":2}}', ['/a/b'], [[0, 2]]],
    ['{"x":{"a":{"b":1}},"a":{"b":2}}', ['/a/b'], [[0, 2]]],
    ['{"x":"{\\"a\\":{\\"b\\":1}}","a":{"b":2}}', ['/a/b'], [[0, 2]]],
    ['{"x":"\\\\","a":{"b":2}}', ['/a/b'], [[0, 2]]],
    ['{"x":"\\\\\\"","a":{"b":2}}', ['/a/b'], [[0, 2]]],
    ['{"\\"a":1,"a":2}', ['/a'], [[0, 2]]],
    ['{"a":null,"b":"5","c":true,"d":[4],"e":-6}', ['/a', '/b', '/c', '/d', '/e'], [[4, -6]]],
    [
      '{"a":1}',
      ['/a', '/a'],
      [
        [0, 1],
        [1, 1],
      ],
    ],
    [
      '{"a":1,"a":2}',
      ['/a'],
      [
        [0, 1],
        [0, 2],
      ],
    ],
    ['{"größe":7}', ['/größe'], [[0, 7]]],
    ['[{"a":1}]', ['/a', '/0/a'], []],
    ['{"a":[{"b":1}],"b":2}', ['/a/b'], []],
    ['{"a":{}}', ['/a'], []],
    ['{"a":{"c":{"b":1}},"b":{"b":1}}', ['/a/b'], []],
  ] as const)('%s %j', (text, pointers, found) => {
    expect(numbersIn(text, ...pointers)).toEqual(found)
  })

  it.each(['', '}', '"', '{"a":', '{"a":--}', '}}{"a":1', '{"a":1e999}', ']{"b":[}{"a":', '\\"', '{"a":1'])(
    'none in %j, which is no JSON',
    (text) => {
      expect(numbersIn(text, '/a')).toEqual([])
    },
  )

  it('are those that JSON.parse would show, in any JSON', () => {
    const value = fc.dictionary(
      fc.constantFrom('a', 'b', 'c"', '\\', 'ü'),
      fc.oneof(
        fc.nat(),
        fc.string({ unit: 'binary' }),
        fc.json().map((text) => JSON.parse(text) as unknown),
      ),
    )
    fc.assert(
      fc.property(value, value, fc.nat(3), (outer, inner, indent) => {
        const text = JSON.stringify({ ...outer, a: inner }, null, indent)
        const at = inner['b']
        expect(numbersIn(text, '/a/b')).toEqual(typeof at === 'number' ? [[0, at]] : [])
      }),
    )
  })

  it('keep nothing of texts that are long', () => {
    const long = Buffer.alloc(1024, 'x')
    const [head, tail] = [Buffer.from('{"x":"'), Buffer.from('","a":4}')]
    expect(scan(['/a'], [head, ...Array.from({ length: 1000 }, () => long), tail])).toEqual([[0, 4]])
    const name = Buffer.from('{"')
    expect(scan(['/a'], [name, ...Array.from({ length: 1000 }, () => long), Buffer.from('":1,"a":4}')])).toEqual([
      [0, 4],
    ])
  })
})
