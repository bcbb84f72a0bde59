import { describe, expect, it } from 'vitest'
import { limitOptions } from '../../src/limit/options.ts'
import { compileQuota } from '../../src/limit/quota.ts'

const quota = (name: string, yaml: object) => compileQuota(name, limitOptions.parse(yaml))

describe('a quota', () => {
  it.each([
    [{ limit: 60, window: '1m' }, 'sliding-window', { limit: 60, windowMs: 60_000, burst: 60, calendar: null }],
    [{ limit: 100, window: '1s', burst: 20 }, 'gcra', { limit: 100, windowMs: 1000, burst: 20, calendar: null }],
  ])('of %j counts with %s', (yaml, algorithm, rate) => {
    const compiled = quota('a', yaml)
    expect(compiled.algorithm.name).toBe(algorithm)
    expect(compiled.rate).toEqual(rate)
  })

  const base = { limit: 60, window: '1m', key: ['ip', 'header:x-api-key'] }

  it.each([{ limit: 7 }, { onMissing: 'skip' }, { key: ['ip', 'header:X-API-Key'] }])(
    'keeps its identity when %j changes no meaning of a count',
    (change) => {
      expect(quota('a', { ...base, ...change }).id).toBe(quota('a', base).id)
    },
  )

  it.each([
    { window: '2m' },
    { burst: 60 },
    { key: 'ip' },
    { key: ['header:x-api-key', 'ip'] },
    { key: ['ip', 'host'] },
    { window: '1d', align: 'UTC' },
    { mode: 'shadow' },
  ])('has another identity with %j', (change) => {
    expect(quota('a', { ...base, ...change }).id).not.toBe(quota('a', base).id)
    expect(quota('b', base).id).not.toBe(quota('a', base).id)
  })

  it('of a calendar counts in fixed windows, apart for each time zone', () => {
    const daily = quota('a', { limit: 500, window: '1d', align: 'UTC' })
    expect(daily.algorithm.name).toBe('fixed-window')
    expect(daily.rate.calendar?.endMs(0)).toBe(86_400_000)
    expect(daily.id).not.toBe(quota('a', { limit: 500, window: '1d', align: 'Europe/Berlin' }).id)
    expect(daily.id).not.toBe(quota('a', { limit: 500, window: '7d', align: 'UTC' }).id)
  })

  it('keeps its identity when only the burst changes', () => {
    expect(quota('a', { ...base, burst: 5 }).id).toBe(quota('a', { ...base, burst: 50 }).id)
  })

  it.each([1, 2, 3, 60, 2 ** 31])('of %i shares counters at a rate that admits no more in any window', (limit) => {
    const { sharedRate } = quota('a', { limit, window: '1m' })
    expect(sharedRate.burst).toBeGreaterThanOrEqual(1)
    expect(sharedRate.limit).toBeGreaterThanOrEqual(1)
    // Just before the end of a window, the burst and all but the last unit of the rate.
    expect(sharedRate.burst + sharedRate.limit - 1).toBe(limit)
  })
})
