// When the breaker opens, and what closes it; times are parameters.

import { describe, expect, it } from 'vitest'
import { Breaker } from '../../src/core/breaker.ts'

/** Closed at the time 0, long after its start. */
function closed(): Breaker {
  const breaker = new Breaker()
  breaker.probed(true, 0)
  return breaker
}

type Event = readonly [atMs: number, what: 'good' | 'error' | 'missed' | 'trip', times?: number]

function play(breaker: Breaker, events: readonly Event[]): void {
  for (const [atMs, what, times = 1] of events) {
    for (let i = 0; i < times; i++) {
      if (what === 'missed') breaker.missed(1, atMs)
      else breaker[what](atMs)
    }
  }
}

describe('Breaker', () => {
  it('starts open and closes with its first good probe', () => {
    const breaker = new Breaker()
    expect(breaker.state).toBe('open')
    breaker.probed(false, 10)
    expect(breaker.state).toBe('open')
    breaker.probed(true, 20)
    expect(breaker.state).toBe('closed')
  })

  it.each<[string, readonly Event[], 'open' | 'closed']>([
    ['a lost connection opens at once', [[9000, 'trip']], 'open'],
    ['one sweep with misses does not open', [[9000, 'missed']], 'closed'],
    [
      'two sweeps with misses open',
      [
        [9000, 'missed'],
        [9005, 'missed'],
      ],
      'open',
    ],
    [
      'misses far apart open when nothing good came between',
      [
        [9000, 'missed'],
        [60_000, 'missed'],
      ],
      'open',
    ],
    [
      'a good reply at once after a miss does not forgive it',
      [
        [9000, 'missed'],
        [9100, 'good'],
        [9200, 'missed'],
      ],
      'open',
    ],
    [
      'a good reply a second later does',
      [
        [9000, 'missed'],
        [10_100, 'good'],
        [10_200, 'missed'],
      ],
      'closed',
    ],
    ['19 errors are too few to judge', [[9000, 'error', 19]], 'closed'],
    ['20 errors open', [[9000, 'error', 20]], 'open'],
    [
      'half of 20 open',
      [
        [9000, 'good', 10],
        [9001, 'error', 10],
      ],
      'open',
    ],
    [
      'less than half do not',
      [
        [9000, 'good', 11],
        [9001, 'error', 10],
      ],
      'closed',
    ],
    [
      'errors spread over one second count together',
      [
        [9000, 'error', 10],
        [9850, 'error', 10],
      ],
      'open',
    ],
    [
      'errors of the second before do not',
      [
        [9000, 'error', 10],
        [10_050, 'error', 10],
      ],
      'closed',
    ],
    [
      'good replies of long ago do not outweigh errors',
      [
        [9000, 'good', 1000],
        [30_000, 'error', 20],
      ],
      'open',
    ],
  ])('%s', (_rule, events, state) => {
    const breaker = closed()
    play(breaker, events)
    expect(breaker.state).toBe(state)
  })

  it('counts each missed command of a sweep as an error', () => {
    const breaker = closed()
    breaker.missed(20, 9000)
    expect(breaker.state).toBe('open')
  })

  it('is half-open after one good probe and closed after two', () => {
    const breaker = closed()
    breaker.trip(9000)
    breaker.probed(true, 9100)
    expect(breaker.state).toBe('half-open')
    breaker.probed(true, 9200)
    expect(breaker.state).toBe('closed')
  })

  it('begins to count again after a bad probe', () => {
    const breaker = closed()
    breaker.trip(9000)
    for (const isGood of [true, false, true]) breaker.probed(isGood, 9100)
    expect(breaker.state).toBe('half-open')
  })

  it('has forgotten old errors and misses when it closes', () => {
    const breaker = closed()
    play(breaker, [
      [9000, 'error', 19],
      [9000, 'missed'],
    ])
    expect(breaker.state).toBe('open')
    breaker.probed(true, 9100)
    breaker.probed(true, 9200)
    play(breaker, [
      [9210, 'error', 18],
      [9220, 'missed'],
    ])
    expect(breaker.state).toBe('closed')
  })

  it('asks a server that keeps failing for more good probes, up to eight, and for two again after a quiet spell', () => {
    const breaker = closed()
    const needed = [9000, 10_000, 11_000, 12_000, 40_000].map((atMs) => {
      breaker.trip(atMs)
      let probes = 0
      for (; breaker.state !== 'closed'; probes++) breaker.probed(true, atMs + 500)
      return probes
    })
    expect(needed).toEqual([2, 4, 8, 8, 2])
  })

  it('probes after 100 ms, then half as long again each time, up to 500 ms', () => {
    const breaker = closed()
    breaker.trip(9000)
    expect([1, 2, 3, 4, 5, 6].map(() => Math.round(breaker.nextProbeMs(0.5)))).toEqual([100, 150, 225, 338, 500, 500])
    breaker.hasten()
    expect(breaker.nextProbeMs(0.5)).toBe(100)
  })

  it('spreads probes by a fifth either way', () => {
    const breaker = closed()
    expect(breaker.nextProbeMs(0)).toBeCloseTo(80)
    breaker.hasten()
    expect(breaker.nextProbeMs(1)).toBeCloseTo(120)
  })
})
