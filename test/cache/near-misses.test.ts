import { describe, expect, it } from 'vitest'
import type { NearMisses } from '../../src/core/control.ts'
import { MissWatches, type MissWatch } from '../../src/cache/near-misses.ts'
import { readJson } from '../../src/http/json.ts'

const NOW_MS = Date.UTC(2026, 10, 22, 12)
const MISSES = 100

/** What is told of a route after these misses. */
function told(see: (watch: MissWatch, i: number) => void, misses = MISSES): NearMisses['differs'] {
  const watches = new MissWatches()
  const watch = watches.ofRoute('/a', 'rule')
  for (let i = 0; i < misses; i++) see(watch, i)
  return watches.report()['/a']?.differs ?? []
}

const sawBody = (watch: MissWatch, body: unknown, elsewhere = 'http://a.test/x'): void => {
  const json = readJson(Buffer.from(JSON.stringify(body)), { maxDepth: 64 })
  watch.sawBody(elsewhere, json.ok ? json.value : null, NOW_MS)
}

const uuid = (i: number): string => `123e4567-e89b-42d3-a456-${String(i).padStart(12, '0')}`
const PROMPTS = ['tides', 'otters', 'weirs', 'lakes']
const prompt = (i: number): string => `Tell me of ${PROMPTS[i % PROMPTS.length]}`

describe('a body that differs from one of shortly before', () => {
  const toIgnore = (field: string, percent: number) => ({
    field,
    percent_of_misses: percent,
    advice: `${field} differs in ${percent} % of misses: if no answer depends on it, add it to key.body.ignore`,
  })

  it.each([
    ['an id of the request', (i: number) => ({ prompt: prompt(i), request_id: uuid(i) }), 'request_id'],
    ['one with a prefix', (i: number) => ({ prompt: prompt(i), id: `req_01h8xyz${1e9 + i}abcdef` }), 'id'],
    [
      'a trace context',
      (i: number) => ({ prompt: prompt(i), tp: `00-${`${1e9 + i}`.padStart(32, 'a')}-00f067aa0ba902b7-01` }),
      'tp',
    ],
    ['a time in milliseconds', (i: number) => ({ prompt: prompt(i), at: NOW_MS + i }), 'at'],
    [
      'a time in seconds',
      (i: number) => ({ prompt: prompt(i), at: Math.floor(NOW_MS / 1000) + Math.floor(i / 3) }),
      'at',
    ],
    ['a time of day', (i: number) => ({ prompt: prompt(i), at: new Date(NOW_MS + 1000 * i).toISOString() }), 'at'],
    ['a field further down', (i: number) => ({ prompt: prompt(i), meta: { trace: { id: uuid(i) } } }), 'meta/trace/id'],
  ])('by %s alone: the field is told, and may be ignored', (_what, bodyOf, field) => {
    const differs = told((watch, i) => sawBody(watch, bodyOf(i)))
    // The first of each prompt was like none before.
    const [first] = differs
    expect(first?.field).toBe(`/${field}`)
    expect(first?.percent_of_misses).toBeGreaterThanOrEqual(96 - 33)
    expect(first?.advice).toMatch(
      /^\/\S+ differs in \d+ % of misses: if no answer depends on it, add it to key\.body\.ignore$/,
    )
  })

  it('by an id and a time: both are told', () => {
    const differs = told((watch, i) => sawBody(watch, { prompt: prompt(i), id: uuid(i), at: NOW_MS + i }))
    expect(differs.slice(0, 2).map(({ field, advice }) => [field, advice !== null])).toEqual([
      ['/id', true],
      ['/at', true],
    ])
  })

  it('says in how many of all misses', () => {
    const differs = told((watch, i) => {
      if (i % 2 === 0) sawBody(watch, { prompt: 'one', request_id: uuid(i) })
      else watch.sawOther()
    })
    expect(differs).toEqual([toIgnore('/request_id', 49)])
  })

  it.each([
    ['a text that somebody has written', (i: number) => ({ prompt: `a deck on ${i} otters`, cards: 5 }), '/prompt'],
    ['a small number', (i: number) => ({ prompt: 'x', page: i }), '/page'],
    ['a seed', (i: number) => ({ prompt: 'x', seed: 2_000_000_000 + 7919 * i }), '/seed'],
    [
      'a time of another day',
      (i: number) => ({ q: 'x', from: new Date(NOW_MS - 864e5 * (i + 1)).toISOString() }),
      '/from',
    ],
  ])('by %s: the field is told, but not to be ignored', (_what, bodyOf, field) => {
    const differs = told((watch, i) => sawBody(watch, bodyOf(i)))
    expect(differs).toEqual([{ field, percent_of_misses: 99, advice: null }])
  })

  it('by what names a document, which comes again with something else: it is not to be ignored', () => {
    const differs = told((watch, i) =>
      sawBody(watch, { document: uuid(Math.floor(i / 2)), op: i % 2 === 0 ? 'sum up' : 'explain' }),
    )
    expect(differs.map(({ field, advice }) => [field, advice])).toContainEqual(['/document', null])
  })

  it('by a new id and a new text: ignoring the one would have made no hit', () => {
    const differs = told((watch, i) => sawBody(watch, { prompt: `on ${i} otters`, id: uuid(i) }))
    expect(differs.map(({ field, advice }) => [field, advice])).toEqual([
      ['/prompt', null],
      ['/id', null],
    ])
  })

  it('by a field that is absent in one of them: it may have a default', () => {
    const differs = told((watch, i) =>
      sawBody(watch, { prompt: `p${i >> 1}`, n: 1, ...(i % 2 === 0 ? {} : { style: 'plain' }) }),
    )
    expect(differs.find(({ field }) => field === '/style')).toEqual({
      field: '/style',
      percent_of_misses: 50,
      advice:
        '/style is there or absent in 50 % of misses, all else alike: if absent means the same as some value, name that in key.body.defaults',
    })
  })

  it('in three fields: it was not nearly a hit', () => {
    expect(told((watch, i) => sawBody(watch, { a: i, b: i, c: i, d: 1 }))).toEqual([])
  })

  it('and is for another URL, or user: it was not nearly a hit', () => {
    expect(told((watch, i) => sawBody(watch, { request_id: uuid(i) }, `http://a.test/${i}`))).toEqual([])
  })

  it('is not looked into where it is not a JSON object, or too large', () => {
    const large = (i: number) => ({ text: 'x'.repeat(70_000), id: uuid(i) })
    const many = (i: number) => ({
      ...Object.fromEntries(Array.from({ length: 50 }, (_, at) => [`f${at}`, at])),
      id: uuid(i),
    })
    for (const bodyOf of [large, many, (i: number) => uuid(i), () => ({})]) {
      expect(told((watch, i) => sawBody(watch, bodyOf(i)))).toEqual([])
    }
    expect(told((watch) => watch.sawBody('http://a.test/', null, NOW_MS))).toEqual([])
  })

  it('that was the same, and is asked for again since nothing of it was kept, says nothing of fields', () => {
    expect(told((watch) => sawBody(watch, { prompt: 'x', id: uuid(1) }))).toEqual([])
  })

  it('has arrays as one field, but for short ones of objects', () => {
    const scalars = told((watch, i) => sawBody(watch, { ids: [uuid(i), 'x'], n: 1 }))
    expect(scalars).toEqual([{ field: '/ids', percent_of_misses: 99, advice: null }])
    const objects = told((watch, i) => sawBody(watch, { messages: [{ role: 'user', id: uuid(i) }] }))
    expect(objects.map(({ field }) => field)).toEqual(['/messages/0/id'])
  })

  it.each(['a name with blanks', 'x'.repeat(41), 'bob@example.com', '1', 'a/b', 'ä', ''])(
    'never tells what may be no name but a value: %j',
    (name) => {
      const differs = told((watch, i) => sawBody(watch, { by: { [name]: uuid(i) }, n: 1 }))
      expect(differs.map(({ field }) => field)).toEqual(['/by'])
    },
  )
})

describe('a URL that differs from one of shortly before', () => {
  const url = (query: string, rest = '') => `http://a.test/x${query}${rest}`
  const seen = (queryOf: (i: number) => string) => told((watch, i) => watch.sawUrl(url(queryOf(i)), NOW_MS))

  it.each([
    ['a campaign', (i: number) => `?a=1&utm_source=s${i}&utm_medium=m${i}&utm_campaign=c${i % 3}`, 'utm_*'],
    ['a click', (i: number) => `?gclid=Cj0KCQ${i}`, 'gclid'],
    ['what keeps caches from answering', (i: number) => `?a=1&_=${NOW_MS + i}`, '_'],
    ['an id of the request', (i: number) => `?rid=${uuid(i)}&a=1`, 'rid'],
  ])('by %s alone: the parameter is told, and may be ignored', (_what, queryOf, field) => {
    expect(seen(queryOf)).toEqual([
      {
        field,
        percent_of_misses: 99,
        advice: `${field} differs in 99 % of misses: if no answer depends on it, add it to key.query.ignore`,
      },
    ])
  })

  it.each([
    ['a page', (i: number) => `?page=${i}`, 'page'],
    ['a search', (i: number) => `?q=some+words+${i}`, 'q'],
  ])('by %s: it is told, but not to be ignored', (_what, queryOf, field) => {
    expect(seen(queryOf)).toEqual([{ field, percent_of_misses: 99, advice: null }])
  })

  it('by its path: it was not nearly a hit', () => {
    expect(told((watch, i) => watch.sawUrl(`http://a.test/${i}?a=1`, NOW_MS))).toEqual([])
    expect(told((watch, i) => watch.sawUrl(url('?a=1', `\nuser:${i}`), NOW_MS))).toEqual([])
  })

  it('by a parameter whose name may be a value: nothing is told of it', () => {
    expect(seen((i) => `?tell%20me%20of%20${i}`)).toEqual([])
  })
})

describe('a watch', () => {
  it('looks at no more than one miss in 50 ms, and at the next when the clock goes back', () => {
    const watch = new MissWatches().ofRoute('/a', 'rule')
    const due = [0, 1, 49, 50, 99, 100, 40, 60].map((ms) => watch.isDue(NOW_MS + ms))
    expect(due).toEqual([true, false, false, true, false, true, true, false])
  })

  it('looks at no more than one miss in 10 ms on all routes', () => {
    const watches = new MissWatches()
    const [a, b] = [watches.ofRoute('/a', 'rule'), watches.ofRoute('/b', 'rule')]
    expect([a.isDue(NOW_MS), b.isDue(NOW_MS + 9), b.isDue(NOW_MS + 10)]).toEqual([true, false, true])
  })

  it('says nothing before there are some', () => {
    expect(told((watch, i) => sawBody(watch, { id: uuid(i) }), 19)).toEqual([])
    expect(told((watch, i) => sawBody(watch, { id: uuid(i) }), 20)).toHaveLength(1)
  })

  it('tells of late misses: what has been cured fades', () => {
    const differs = told((watch, i) => sawBody(watch, i < 300 ? { id: uuid(i) } : { text: `number ${i}` }), 9000)
    expect(differs.map(({ field }) => field)).toEqual(['/text'])
  })

  it('begins anew where the rule of the keys has changed, goes on where it has not, and ends with its route', () => {
    const watches = new MissWatches()
    const see = (rule: string) => {
      const watch = watches.ofRoute('/a', rule)
      for (let i = 0; i < 30; i++) sawBody(watch, { id: uuid(i) })
      return watch
    }
    const first = see('one')
    expect(watches.ofRoute('/a', 'one')).toBe(first)
    expect(watches.report()['/a']?.misses).toBe(30)
    expect(watches.ofRoute('/a', 'two')).not.toBe(first)
    expect(watches.report()).toEqual({})
    expect(first.isDue(NOW_MS + 1e6)).toBe(false)
    see('two')
    watches.keepRoutes(new Set(['/b']))
    expect(watches.report()).toEqual({})
  })

  it('tells ten fields at most, of as many routes as there are, however many names clients send', () => {
    const differs = told((watch, i) => sawBody(watch, { n: 1, [`f${i % 200}`]: 'x' }), 900)
    expect(differs).toHaveLength(10)
  })
})
