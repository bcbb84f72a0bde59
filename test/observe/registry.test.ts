import { describe, expect, it } from 'vitest'
import { Registry } from '../../src/observe/registry.ts'

describe('the text format', () => {
  it('gives each family its help and type, and ends with a line break', () => {
    const registry = new Registry()
    registry.counter('hits_total', 'Hits.', ['route']).series(['/a']).add(2)
    registry.reading('gauge', 'memory_bytes', 'Memory.', () => 1.5)
    expect(registry.text()).toBe(
      [
        '# HELP hits_total Hits.',
        '# TYPE hits_total counter',
        'hits_total{route="/a"} 2',
        '# HELP memory_bytes Memory.',
        '# TYPE memory_bytes gauge',
        'memory_bytes 1.5',
        '',
      ].join('\n'),
    )
  })

  it.each([
    ['say "hi"', String.raw`say \"hi\"`],
    [String.raw`back\slash`, String.raw`back\\slash`],
    ['two\nlines', String.raw`two\nlines`],
    ['ünïcode', 'ünïcode'],
  ])('escapes the label value %j', (value, escaped) => {
    const registry = new Registry()
    registry.counter('c', 'C.', ['l']).series([value]).add(1)
    expect(registry.text()).toContain(`\nc{l="${escaped}"} 1\n`)
  })

  it('escapes backslash and line break in help, but not quotes', () => {
    const registry = new Registry()
    registry.reading('gauge', 'g', 'a "b" \\ c\nd', () => 0)
    expect(registry.text()).toContain(String.raw`# HELP g a "b" \\ c\nd`)
  })

  it.each([
    [Number.POSITIVE_INFINITY, '+Inf'],
    [Number.NEGATIVE_INFINITY, '-Inf'],
    [Number.NaN, 'NaN'],
    [1e21, '1e+21'],
  ])('writes %d as %s', (value, text) => {
    const registry = new Registry()
    registry.reading('gauge', 'g', 'G.', () => value)
    expect(registry.text()).toContain(`\ng ${text}\n`)
  })
})

describe('a histogram', () => {
  it('has cumulative buckets up to +Inf, which equals the count', () => {
    const registry = new Registry()
    const series = registry.histogram('d_seconds', 'D.', ['route'], [0.1, 1]).series(['/a'])
    for (const value of [0.05, 0.1, 0.5, 7]) series.observe(value)
    expect(registry.text().split('\n').slice(2, -1)).toEqual([
      'd_seconds_bucket{route="/a",le="0.1"} 2',
      'd_seconds_bucket{route="/a",le="1"} 3',
      'd_seconds_bucket{route="/a",le="+Inf"} 4',
      'd_seconds_sum{route="/a"} 7.65',
      'd_seconds_count{route="/a"} 4',
    ])
  })

  it('needs no labels', () => {
    const registry = new Registry()
    registry.histogram('d', 'D.', [], [1]).series([]).observe(2)
    expect(registry.text().split('\n').slice(2, -1)).toEqual([
      'd_bucket{le="1"} 0',
      'd_bucket{le="+Inf"} 1',
      'd_sum 2',
      'd_count 1',
    ])
  })
})

describe('series', () => {
  it('are the same for the same labels', () => {
    const family = new Registry().counter('c', 'C.', ['a', 'b'])
    expect(family.series(['x', 'y'])).toBe(family.series(['x', 'y']))
    expect(family.series(['x', 'y'])).not.toBe(family.series(['y', 'x']))
  })

  it('cannot be confused by quotes in label values', () => {
    const family = new Registry().counter('c', 'C.', ['a', 'b'])
    expect(family.series(['x",b="y', ''])).not.toBe(family.series(['x', 'y",b="']))
  })

  it('share one (other) series once there are too many', () => {
    const registry = new Registry(2)
    const family = registry.counter('c', 'C.', ['route', 'status'])
    for (const route of ['/a', '/b', '/c', '/d', '/a']) family.series([route, '200']).add(1)
    expect(registry.text().split('\n').slice(2, -1)).toEqual([
      'c{route="/a",status="200"} 2',
      'c{route="/b",status="200"} 1',
      'c{route="(other)",status="(other)"} 2',
    ])
  })

  it('are dropped when their label value is not live any more, and others stay', () => {
    const registry = new Registry()
    const byRoute = registry.counter('by_route', 'R.', ['status', 'route'])
    byRoute.series(['200', '/kept']).add(1)
    byRoute.series(['200', '/gone']).add(1)
    registry.counter('by_code', 'C.', ['code']).series(['/gone']).add(1)
    registry.retain('route', new Set(['/kept']))
    expect(registry.text()).toContain('by_route{status="200",route="/kept"} 1')
    expect(registry.text()).not.toContain('by_route{status="200",route="/gone"}')
    expect(registry.text()).toContain('by_code{code="/gone"} 1')
  })
})
