// The comparison, for a whole table of rows.

import { isDeepStrictEqual } from 'node:util'
import { difference } from './observed.ts'
import type { Pair, Talk } from './pair.ts'
import type { Row } from './rows.ts'

/** Plays all rows; tells by which of them the lanes can be told apart, and how. '' where they cannot. */
export async function differences(pair: Pair, rows: readonly Row[], last: Talk['last'] = 'apart'): Promise<string> {
  const found: string[] = []
  for (const { name, ...talk } of rows) {
    const { full, both } = await pair.play({ ...talk, last })
    const different = difference(full, both)
    if (different !== null) found.push(`${name}: ${different}`)
  }
  return [...found, countedDifferences(pair)].filter((text) => text !== '').join('\n\n')
}

/** What is not counted alike. */
export function countedDifferences(pair: Pair): string {
  const { full, both } = pair.counts()
  const metrics = full.metrics.filter((line, i) => line !== both.metrics[i])
  if (metrics.length > 0 || full.metrics.length !== both.metrics.length) {
    const others = both.metrics.filter((line, i) => line !== full.metrics[i])
    return `counted differently:\n  full: ${metrics.join('\n        ')}\n  both: ${others.join('\n        ')}`
  }
  if (isDeepStrictEqual(full.stats, both.stats)) return ''
  return `counted differently:\n  full: ${JSON.stringify(full.stats)}\n  both: ${JSON.stringify(both.stats)}`
}

/** How many of the requests the fast path answers, the one for the marker among them; NaN where the other gateway has
 *  one. */
export async function fastAnswersTo(pair: Pair, talk: Talk): Promise<number> {
  const before = pair.fastAnswers()
  await pair.play(talk)
  const after = pair.fastAnswers()
  return after.full === 0 ? after.both - before.both : NaN
}
