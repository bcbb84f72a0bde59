// The rules by which a target is chosen: as tables, and over many requests.

import { array, assert, integer, property } from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Rule, type Standing, hashed, leastRequests, roundRobin } from '../../src/upstream/balance.ts'
import { hashText } from '../../src/upstream/hash-key.ts'

const standing = (weights: readonly number[], loads: readonly number[] = weights.map(() => 0)): Standing => ({
  weights: Float64Array.from(weights),
  loads: Float64Array.from(loads),
})

const choices = (rule: Rule, at: Standing, count: number): number[] =>
  Array.from({ length: count }, () => rule.choose(at, null, -1))

const countOf = (places: readonly number[], targets: number): number[] =>
  Array.from({ length: targets }, (_, i) => places.filter((place) => place === i).length)

/** Numbers from 0 to below 1, the same in every run. */
function sequence(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

const weightLists = array(integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 8 })
const seedsOf = (count: number): number[] =>
  Array.from({ length: count }, (_, i) => hashText(`http://10.0.0.${i + 1}:8000`))

describe('in turn', () => {
  it('goes through the list, beginning with the first', () => {
    expect(choices(roundRobin(3), standing([1, 1, 1]), 6)).toEqual([0, 1, 2, 0, 1, 2])
  })

  it('spreads the turns of a heavy target', () => {
    expect(choices(roundRobin(3), standing([5, 1, 1]), 7)).toEqual([0, 0, 1, 0, 2, 0, 0])
  })

  it('gives each target its weight exactly, in each span as long as the weights together', () => {
    assert(
      property(weightLists, (weights) => {
        const cycle = weights.reduce((sum, weight) => sum + weight, 0)
        const places = choices(roundRobin(weights.length), standing(weights), 3 * cycle)
        for (let cut = 0; cut < 3; cut++) {
          expect(countOf(places.slice(cut * cycle, (cut + 1) * cycle), weights.length)).toEqual(weights)
        }
      }),
    )
  })

  it('passes over who is out, and owes him nothing afterwards', () => {
    const rule = roundRobin(3)
    choices(rule, standing([1, 1, 1]), 3)
    expect(countOf(choices(rule, standing([1, 0, 1]), 10), 3)).toEqual([5, 0, 5])
    expect(countOf(choices(rule, standing([1, 1, 1]), 9), 3)).toEqual([3, 3, 3])
  })

  it('gives another try to the next in the list, and takes no turn for it', () => {
    const rule = roundRobin(3)
    expect([0, 1, 2].map((after) => rule.choose(standing([1, 1, 1]), null, after))).toEqual([1, 2, 0])
    expect(rule.choose(standing([0, 0, 5]), null, 0)).toBe(2)
    expect(choices(rule, standing([1, 1, 1]), 3)).toEqual([0, 1, 2])
  })
})

describe('the fewer requests of two', () => {
  it('takes the one with fewer for its weight', () => {
    const rule = leastRequests(sequence(1))
    expect(new Set(choices(rule, standing([1, 1], [3, 2]), 50))).toEqual(new Set([1]))
    expect(new Set(choices(rule, standing([4, 1], [7, 2]), 50))).toEqual(new Set([0]))
    expect(new Set(choices(rule, standing([4, 1], [9, 2]), 50))).toEqual(new Set([1]))
  })

  it('goes by weight among idle targets', () => {
    const counts = countOf(choices(leastRequests(sequence(2)), standing([6, 3, 1]), 10_000), 3)
    expect(counts.map((count) => Math.round(count / 500))).toEqual([12, 6, 2])
  })

  it('never takes the worst of three, and both others', () => {
    const places = choices(leastRequests(sequence(3)), standing([1, 1, 1], [0, 1, 9]), 1000)
    const [best = 0, second = 0, worst] = countOf(places, 3)
    expect(worst).toBe(0)
    expect(best).toBeGreaterThan(second)
    expect(second).toBeGreaterThan(0)
  })

  it('keeps loads together where requests stay', () => {
    const at = standing([1, 1, 1, 1])
    const rule = leastRequests(sequence(4))
    for (let i = 0; i < 4000; i++) {
      const place = rule.choose(at, null, -1)
      at.loads[place] = (at.loads[place] as number) + 1
    }
    expect(Math.max(...at.loads) - Math.min(...at.loads)).toBeLessThan(10)
  })

  it('takes the only one there is', () => {
    expect(choices(leastRequests(sequence(5)), standing([0, 3, 0], [0, 99, 0]), 5)).toEqual([1, 1, 1, 1, 1])
  })
})

describe('by key', () => {
  const keys = Array.from({ length: 20_000 }, (_, i) => hashText(`user-${i}`))
  const place = (rule: Rule, at: Standing, key: number): number => rule.choose(at, key, -1)
  /** Nobody is busy, so the bound on loads moves nothing. */
  const free = (weights: readonly number[]): Standing => standing(weights)

  it('keeps to a target', () => {
    const rule = hashed(seedsOf(5), roundRobin(5))
    for (const key of keys.slice(0, 100)) {
      expect(place(rule, free([1, 1, 1, 1, 1]), key)).toBe(place(rule, free([1, 1, 1, 1, 1]), key))
    }
  })

  it('spreads keys by weight', () => {
    const rule = hashed(seedsOf(4), roundRobin(4))
    const places = keys.map((key) => place(rule, free([1, 2, 3, 4]), key))
    for (const [i, count] of countOf(places, 4).entries()) {
      expect(Math.abs(count / keys.length - (i + 1) / 10)).toBeLessThan(0.015)
    }
  })

  it('moves only the keys of a target that leaves, to all others', () => {
    const rule = hashed(seedsOf(5), roundRobin(5))
    const before = keys.map((key) => place(rule, free([1, 1, 1, 1, 1]), key))
    const after = keys.map((key) => place(rule, free([1, 1, 0, 1, 1]), key))
    const moved = before.flatMap((from, i) => (from === after[i] ? [] : [[from, after[i]] as const]))
    expect(new Set(moved.map(([from]) => from))).toEqual(new Set([2]))
    expect(Math.abs(moved.length / keys.length - 1 / 5)).toBeLessThan(0.02)
    expect(new Set(moved.map(([, to]) => to))).toEqual(new Set([0, 1, 3, 4]))
  })

  it('gives a target that comes its share, and moves nothing else', () => {
    const before = keys.map((key) => place(hashed(seedsOf(4), roundRobin(4)), free([1, 1, 1, 1]), key))
    const after = keys.map((key) => place(hashed(seedsOf(5), roundRobin(5)), free([1, 1, 1, 1, 1]), key))
    const moved = before.flatMap((from, i) => (from === after[i] ? [] : [after[i]]))
    expect(new Set(moved)).toEqual(new Set([4]))
    expect(Math.abs(moved.length / keys.length - 1 / 5)).toBeLessThan(0.02)
  })

  it('does not depend on the order of the list', () => {
    const seeds = seedsOf(4)
    const [there, back] = [hashed(seeds, roundRobin(4)), hashed(seeds.toReversed(), roundRobin(4))]
    for (const key of keys.slice(0, 500)) {
      expect(place(back, free([1, 1, 1, 1]), key)).toBe(3 - place(there, free([1, 1, 1, 1]), key))
    }
  })

  it('gives no target more than a quarter above its share, whoever asks for what', () => {
    assert(
      property(weightLists, array(integer({ min: 0, max: 3 }), { maxLength: 300 }), (weights, asked) => {
        const at = standing(weights)
        const rule = hashed(seedsOf(weights.length), roundRobin(weights.length))
        const sum = weights.reduce((all, weight) => all + weight, 0)
        for (const [i, key] of asked.entries()) {
          const chosen = rule.choose(at, key, -1)
          at.loads[chosen] = (at.loads[chosen] as number) + 1
          const share = ((i + 1) * (weights[chosen] as number)) / sum
          expect(at.loads[chosen]).toBeLessThanOrEqual(Math.ceil(1.25 * share))
        }
      }),
    )
  })

  it('takes in turn what has no key', () => {
    expect(choices(hashed(seedsOf(3), roundRobin(3)), standing([1, 1, 1]), 4)).toEqual([0, 1, 2, 0])
  })
})

describe('every rule', () => {
  it.each<[string, Rule]>([
    ['round-robin', roundRobin(3)],
    ['least-requests', leastRequests(sequence(9))],
    ['hash', hashed(seedsOf(3), roundRobin(3))],
  ])('finds nobody where all are out: %s', (_name, rule) => {
    for (const hash of [null, 7]) expect(rule.choose(standing([0, 0, 0], [1, 2, 3]), hash, -1)).toBe(-1)
    expect(rule.choose(standing([0, 0, 0]), 7, 1)).toBe(-1)
  })
})
