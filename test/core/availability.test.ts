// When a service that is up is looked after, with a clock of the test's.

import { afterEach, beforeEach, expect, it, onTestFinished, vi } from 'vitest'
import { Availability } from '../../src/core/availability.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const seconds = (count: number) => vi.advanceTimersByTimeAsync(count * 1000)

/** One that is up, how often it was probed since, and what it has told. */
async function up() {
  const seen = { probes: 0, trouble: null as string | null, told: [] as [string, unknown][] }
  const tell = (fields: object, message: string) => void seen.told.push([message, Reflect.get(fields, 'reason')])
  const availability = new Availability(
    {
      service: 'It',
      fields: {},
      probeLimitMs: 50,
      probe() {
        seen.probes++
        return Promise.resolve(seen.trouble)
      },
      onChange() {},
    },
    { info: tell, warn: tell },
  )
  onTestFinished(() => availability.close())
  availability.look()
  await seconds(0.5)
  expect(availability.isUp).toBe(true)
  seen.probes = 0
  return { availability, seen }
}

/** As many seconds, in each of which something happens. */
async function each(count: number, act: () => void): Promise<void> {
  for (let i = 0; i < count; i++) {
    act()
    await seconds(1)
  }
}

it('is probed every second while nobody uses it, and down after two bad ones', async () => {
  const { availability, seen } = await up()
  await seconds(10)
  expect(seen.probes).toBe(10)
  seen.trouble = 'gone'
  await seconds(2)
  expect(availability.isUp).toBe(false)
})

it('is looked at again after a bad probe, whatever it answers', async () => {
  const { availability, seen } = await up()
  seen.trouble = 'read-only'
  await seconds(0.55)
  expect(availability.isUp).toBe(true)
  availability.good()
  await seconds(0.2)
  expect(availability.isUp).toBe(false)
})

it('is not probed while it answers', async () => {
  const { availability, seen } = await up()
  await each(10, () => availability.good())
  expect(seen.probes).toBe(0)
  await seconds(3)
  expect(seen.probes).toBe(3)
})

it('is probed when something was wrong, whatever else it answers', async () => {
  const { availability, seen } = await up()
  await each(10, () => {
    availability.good()
    availability.unwell('read-only')
  })
  expect(seen.probes).toBe(10)
  seen.trouble = 'read-only'
  await each(2, () => {
    availability.good()
    availability.unwell('read-only')
  })
  expect(availability.isUp).toBe(false)
  const late = await up()
  await each(10, () => {
    late.availability.good()
    if (late.seen.probes === 0) late.availability.missed(1)
  })
  expect(late.seen.probes).toBe(1)
})

it('is told of again while it stays down, with the trouble of then', async () => {
  const { availability, seen } = await up()
  availability.lost('connection closed')
  seen.trouble = 'wrong password'
  await seconds(25)
  const changes = [
    ['It is up', undefined],
    ['It is down', 'connection closed'],
  ]
  expect(seen.told).toEqual(changes)
  await seconds(75)
  const again = ['It is still down', 'wrong password']
  expect(seen.told).toEqual([...changes, again, again, again])
  seen.trouble = null
  await seconds(10)
  expect(seen.told.slice(5)).toEqual([['It is up', undefined]])
})
