import { describe, expect, it } from 'vitest'
import { LearnedReserve } from '../../src/limit/learned-reserve.ts'
import { request } from './request.ts'

const to = (route: string, bytes: number | null = 100) => {
  const ctx = request({ route })
  ctx.body = { declaredBytes: bytes, open: () => undefined as never }
  return ctx
}

describe('a reservation that is learned', () => {
  it('is not known before ten requests', () => {
    const learned = new LearnedReserve()
    for (let i = 0; i < 9; i++) learned.note(to('/a'), 500)
    expect(learned.of(to('/a'))).toBeNull()
    learned.note(to('/a'), 500)
    expect(learned.of(to('/a'))).toBeGreaterThanOrEqual(500)
    expect(learned.of(to('/a'))).toBeLessThanOrEqual(600)
  })

  it('is what nine in ten have used', () => {
    const learned = new LearnedReserve()
    for (let i = 1; i <= 100; i++) learned.note(to('/a'), i * 10)
    expect(learned.of(to('/a'))).toBeGreaterThanOrEqual(900)
    expect(learned.of(to('/a'))).toBeLessThanOrEqual(900 * 1.2)
  })

  it('is another one for another route, and for requests of another length', () => {
    const learned = new LearnedReserve()
    for (let i = 0; i < 20; i++) {
      learned.note(to('/a'), 10)
      learned.note(to('/a', 10_000), 1000)
      learned.note(to('/b'), 100_000)
      learned.note(to('/b', null), 5)
    }
    const found = [to('/a'), to('/a', 110), to('/a', 9000), to('/b'), to('/b', null), to('/c')].map((each) =>
      learned.of(each),
    )
    expect(found.map((each) => each && 10 ** Math.round(Math.log10(each)))).toEqual([10, 10, 1000, 100_000, 10, null])
  })

  it('follows a service that changes', () => {
    const learned = new LearnedReserve()
    for (let i = 0; i < 1000; i++) learned.note(to('/a'), 1000)
    for (let i = 0; i < 400; i++) learned.note(to('/a'), 50)
    expect(learned.of(to('/a'))).toBeLessThanOrEqual(60)
  })

  it('is 1 at least, whatever was used', () => {
    const learned = new LearnedReserve()
    for (let i = 0; i < 20; i++) learned.note(to('/a'), 0)
    for (let i = 0; i < 20; i++) learned.note(to('/b'), 2 ** 50)
    expect(learned.of(to('/a'))).toBe(1)
    expect(Number.isSafeInteger(learned.of(to('/b')))).toBe(true)
  })
})
