// Which target takes a request. Pure: weights and loads in, a place in the list out, so every rule is a table in
// test/upstream/balance.test.ts. A weight of 0 takes a target out for this choice; who sets it is health's business.
//
//   round-robin     smooth and exact: of the sum of the weights in turns, each target has its weight, spread out
//   least-requests  of two targets drawn by weight the one with fewer requests for its weight: near the best of all,
//                   and no herd runs to one that has just become free (Mitzenmacher, The Power of Two Choices)
//   hash            weighted rendezvous: a target that goes or comes moves only the keys that it had or gets. No target
//                   takes more than its share and a quarter, so that one key that everybody wants ends nobody
//                   (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads)

/** The targets, by their places in the list. */
export interface Standing {
  readonly weights: Float64Array
  /** Requests that a target has, on a connection or in line for one. */
  readonly loads: Float64Array
}

export interface Rule {
  /** The place of the target for a request; -1 where all weights are 0. hash: of its key, 32 bits; null: it has none.
   *  after: the place of the target that has failed it; -1: it is new. */
  choose(standing: Standing, hash: number | null, after: number): number
}

/** What a target may have of all requests beyond its share, where keys say who has what. */
const MAX_SHARE = 1.25

export function roundRobin(count: number): Rule {
  const credits = new Float64Array(count)
  return {
    choose({ weights }, _hash, after) {
      if (after >= 0) return following(weights, after)
      let sum = 0
      let best = -1
      for (let i = 0; i < count; i++) {
        const weight = weights[i] as number
        if (weight === 0) continue
        sum += weight
        const credit = (credits[i] as number) + weight
        credits[i] = credit
        if (best < 0 || credit > (credits[best] as number)) best = i
      }
      if (best >= 0) credits[best] = (credits[best] as number) - sum
      return best
    },
  }
}

/** Another try takes no turn. */
function following(weights: Float64Array, after: number): number {
  const count = weights.length
  for (let step = 1; step <= count; step++) {
    const i = (after + step) % count
    if ((weights[i] as number) > 0) return i
  }
  return -1
}

/** random: from 0 to below 1. */
export function leastRequests(random: () => number): Rule {
  return {
    choose({ weights, loads }) {
      const first = draw(weights, -1, random)
      if (first < 0) return -1
      const second = draw(weights, first, random)
      if (second < 0) return first
      // The first where they are even, so that idle targets are taken by weight.
      const isLess =
        (loads[second] as number) * (weights[first] as number) < (loads[first] as number) * (weights[second] as number)
      return isLess ? second : first
    },
  }
}

/** A place, by weight, but not this one. */
function draw(weights: Float64Array, but: number, random: () => number): number {
  let sum = 0
  for (let i = 0; i < weights.length; i++) if (i !== but) sum += weights[i] as number
  let left = random() * sum
  let last = -1
  for (let i = 0; i < weights.length; i++) {
    const weight = weights[i] as number
    if (i === but || weight === 0) continue
    last = i
    left -= weight
    if (left < 0) break
  }
  return last
}

/** seeds: one number of 32 bits for each target, the same wherever it is in the list. keyless: for what has no key. */
export function hashed(seeds: readonly number[], keyless: Rule): Rule {
  return {
    choose(standing, hash, after) {
      if (hash === null) return keyless.choose(standing, hash, after)
      const { weights, loads } = standing
      let sum = 0
      let requests = 1
      for (let i = 0; i < seeds.length; i++) {
        const weight = weights[i] as number
        if (weight === 0) continue
        sum += weight
        requests += loads[i] as number
      }
      let best = -1
      let bestScore = 0
      for (let i = 0; i < seeds.length; i++) {
        const weight = weights[i] as number
        if (weight === 0 || (loads[i] as number) >= Math.ceil((MAX_SHARE * requests * weight) / sum)) continue
        const score = weight / -Math.log((mixed(hash ^ (seeds[i] as number)) + 0.5) / 2 ** 32)
        if (score > bestScore) {
          best = i
          bestScore = score
        }
      }
      return best
    },
  }
}

/** 32 bits that depend on each bit of the input (MurmurHash3's end). */
function mixed(bits: number): number {
  let h = bits
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}
