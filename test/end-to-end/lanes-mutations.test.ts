// One behaviour, two lanes (see lanes.test.ts): conversations by chance, made of all that the other files send.
// `npm run soak:lanes` plays more of them, with a seed of its own; WEIRGATE_LANES_SEED repeats one.

import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { CLOSINGS } from '../support/lanes/closings.ts'
import { countedDifferences } from '../support/lanes/compare.ts'
import { HOT, STORED } from '../support/lanes/stored.ts'
import { BETWEEN } from '../support/lanes/between.ts'
import { chanceOf, compileMutations, shownTalk } from '../support/lanes/mutations.ts'
import { difference } from '../support/lanes/observed.ts'
import { type Pair, startPair } from '../support/lanes/pair.ts'
import { SYNTAX } from '../support/lanes/syntax.ts'
import { originOfAll, yamlOfAll } from '../support/lanes/table.ts'

vi.mock('node:zlib', async (original) => (await import('../support/lanes/threads.ts')).codeAtOnce(await original()))

const RUNS = Number(process.env['WEIRGATE_LANES_RUNS'] ?? 500)
const LONG_SEED = Math.floor(Math.random() * 2 ** 31)
const SEED = Number(process.env['WEIRGATE_LANES_SEED'] ?? (RUNS > 500 ? LONG_SEED : 1))
const isCounted = (number: number): boolean => number % 250 === 249 || number === RUNS - 1

const generate = compileMutations(
  HOT,
  [STORED, BETWEEN, SYNTAX, CLOSINGS].flatMap((groups) => Object.values(groups)).flat(),
)

let pair: Pair
beforeAll(async () => {
  pair = await startPair({ yaml: (originUrl) => yamlOfAll(originUrl), script: originOfAll })
})
afterAll(() => pair.close())

it(
  `the lanes cannot be told apart by any of ${RUNS} conversations with the seed ${SEED}`,
  { timeout: 3_600_000 },
  async () => {
    for (let number = 0; number < RUNS; number++) {
      const talk = generate(chanceOf(SEED, number))
      const { full, both } = await pair.play(talk)
      const found = [difference(full, both) ?? '', isCounted(number) ? countedDifferences(pair) : ''].join('')
      const where = `WEIRGATE_LANES_SEED=${SEED} WEIRGATE_LANES_RUNS=${number + 1}`
      expect(found === '' ? '' : `${where}\n${shownTalk(talk)}\n${found}`).toBe('')
    }
    // A comparison of the full lane with itself would say the same.
    expect(pair.fastAnswers().both).toBeGreaterThan(RUNS / 2)
  },
)
