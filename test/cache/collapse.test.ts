import { describe, expect, it } from 'vitest'
import { type Flight, type Flights, createFlights, createKeyMemory } from '../../src/cache/collapse.ts'
import type { OriginFetch } from '../../src/core/context.ts'
import { BROKEN } from '../support/body.ts'

const KEY = 'http://gateway.test/'

/** A fetch that counts how often it was given up. */
function startFetch() {
  const fetch = { answer: new Promise<never>(() => {}), isSent: true, aborts: 0, abort: () => void fetch.aborts++ }
  return fetch satisfies OriginFetch
}

describe('a flight', () => {
  it('is given up when the last who waits has left, each counted once', () => {
    const flights = createFlights()
    const fetch = startFetch()
    const flight = flights.open(KEY, 'epoch', KEY, fetch)
    const [first, second] = [flight.join(), flight.join()]
    first()
    first()
    expect([fetch.aborts, flights.at(KEY)]).toEqual([0, flight])
    second()
    expect([fetch.aborts, flights.at(KEY), flights.size]).toEqual([1, undefined, 0])
    second()
    expect(fetch.aborts).toBe(1)
    // Its answer may have been on its way, and no purge would reach that any more.
    expect(flight.isSpoiled).toBe(true)
  })

  it.each<[string, (flight: Flight) => void]>([
    ['pass', (flight) => flight.pass()],
    ['fail', (flight) => flight.fail(BROKEN)],
    ['close', (flight) => flight.close()],
  ])('cannot be joined after %s, though others still wait', (_name, end) => {
    const flights = createFlights()
    const flight = flights.open(KEY, 'epoch', KEY, startFetch())
    flight.join()
    end(flight)
    expect([flights.at(KEY), flights.size]).toEqual([undefined, 0])
  })

  it('that ends does not hide the one that took its place', () => {
    const flights = createFlights()
    const old = flights.open(KEY, 'epoch', KEY, startFetch())
    const next = flights.open(KEY, 'epoch', KEY, startFetch())
    old.close()
    expect([flights.at(KEY), flights.size]).toEqual([next, 1])
  })

  it('is never found at another place whose hash is the same, nor hides what is there', () => {
    const flights = createFlights({ of: () => -1 })
    const first = flights.open(KEY, 'epoch', KEY, startFetch())
    expect(flights.at('there')).toBe(undefined)
    const next = flights.open('http://other.test/', 'epoch', 'there', startFetch())
    expect([flights.at(KEY), flights.at('there')]).toEqual([undefined, next])
    first.close()
    expect([flights.at('there'), flights.size]).toEqual([next, 1])
    next.close()
    expect([flights.at(KEY), flights.at('there'), flights.size]).toEqual([undefined, undefined, 0])
  })

  it('that has no place is found by nobody, but can be spoilt', () => {
    const flights = createFlights()
    const flight = flights.open(KEY, 'epoch', null, startFetch())
    const other = flights.open('http://other.test/', 'epoch', 'there', startFetch())
    flights.spoil((key) => key === KEY, {})
    expect([flight.isSpoiled, other.isSpoiled]).toEqual([true, false])
    expect([flights.at(KEY), flights.at('there')]).toEqual([undefined, other])
  })

  describe('changed by a purge of its key', () => {
    const own = {}
    const startChanged = (tags: readonly string[] = []) => {
      const flights = createFlights()
      return { flights, flight: flights.open(KEY, 'epoch', null, startFetch(), tags) }
    }
    const byKey = (flights: Flights, change: object) => flights.spoil(() => true, change)
    const by = (tag: string) => (flights: Flights, change: object) => flights.spoilTags(new Set([tag]), change)

    it.each<[string, ((flights: Flights, change: object) => void)[], string[]]>([
      ['and nothing else', [], []],
      ['and by the same purge of its tag', [by('known')], []],
      ['and by the same purge of a tag that it turns out to have', [by('own')], ['own']],
    ])('%s is changed once', (_what, also, tags) => {
      const { flights, flight } = startChanged(['known'])
      byKey(flights, own)
      for (const change of also) change(flights, own)
      flight.landWith(tags)
      expect([flight.isSpoiled, flight.isSpoiledTwice]).toEqual([true, false])
    })

    const others: [string, (flights: Flights, change: object) => void, string[]][] = [
      ['its key', byKey, []],
      ['its tag', by('known'), []],
      ['a tag that it turns out to have', by('own'), ['own']],
      ['a tag that both purge, and that it turns out to have', by('both'), ['both']],
    ]
    const inBothOrders = others.flatMap((each) => [['before', ...each] as const, ['after', ...each] as const])
    it.each(inBothOrders)('and %s that by another purge, of %s, is changed twice', (order, _what, other, tags) => {
      const { flights, flight } = startChanged(['known'])
      const change = {}
      if (order === 'before') other(flights, change)
      byKey(flights, own)
      by('both')(flights, own)
      if (order === 'after') other(flights, change)
      flight.landWith(tags)
      expect([flight.isSpoiled, flight.isSpoiledTwice]).toEqual([true, true])
    })
  })

  it('is full with a thousand who wait, until one leaves or its answer is there', () => {
    const flight = createFlights().open(KEY, 'epoch', KEY, startFetch())
    for (let i = 0; i < 999; i++) flight.join()
    expect(flight.isFull).toBe(false)
    const last = flight.join()
    expect(flight.isFull).toBe(true)
    last()
    expect(flight.isFull).toBe(false)
    flight.join()
    const head = { status: 200, headers: [], bornAtMs: 0, claims: '', varyNames: [], varyValues: [] }
    flight.share({ head, open: () => null })
    expect(flight.isFull).toBe(false)
  })

  it('that fails fails for nobody when nobody waits', async () => {
    const flight = createFlights().open(KEY, 'epoch', KEY, startFetch())
    flight.fail(BROKEN)
    await expect(flight.landed).rejects.toBe(BROKEN)
  })
})

describe('a memory of keys', () => {
  it('forgets a key when its time is over, or when told to', () => {
    const memory = createKeyMemory(1000, 10_000)
    memory.add('a', 0)
    memory.add('b', 0)
    memory.delete('b')
    expect([memory.has('a', 999), memory.has('a', 1000), memory.has('b', 0), memory.has('c', 0)]).toEqual([
      true,
      false,
      false,
      false,
    ])
  })

  it('begins anew when a key is added again', () => {
    const memory = createKeyMemory(1000, 10_000)
    memory.add('a', 0)
    memory.add('a', 900)
    expect(memory.has('a', 1800)).toBe(true)
  })

  it('forgets the oldest when it is full, long keys counting for more', () => {
    const memory = createKeyMemory(1000, 1000)
    for (const key of ['a', 'b', 'c']) memory.add(key, 0)
    memory.add('a', 1)
    memory.add('x'.repeat(700), 2)
    expect(['a', 'b', 'c', 'x'.repeat(700)].map((key) => memory.has(key, 3))).toEqual([true, false, false, true])
    memory.add('y'.repeat(2000), 4)
    expect(memory.has('y'.repeat(2000), 5)).toBe(false)
    memory.add('z', 6)
    expect(memory.has('z', 7)).toBe(true)
  })
})
