// One behaviour, two lanes (see lanes.test.ts): requests that come together, in pieces, behind others, or with the end of
// the connection.

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { CLOSINGS, CUT, CUT_AND_CLOSED, cutEverywhere } from '../support/lanes/closings.ts'
import { differences } from '../support/lanes/compare.ts'
import { type Pair, startPair } from '../support/lanes/pair.ts'
import { row } from '../support/lanes/rows.ts'
import { originOfAll, yamlOfAll } from '../support/lanes/table.ts'

vi.mock('node:zlib', async (original) => (await import('../support/lanes/threads.ts')).codeAtOnce(await original()))

let pair: Pair
beforeAll(async () => {
  pair = await startPair({ yaml: (originUrl) => yamlOfAll(originUrl), script: originOfAll })
})
afterAll(() => pair.close())

describe('the lanes cannot be told apart by', () => {
  it.each(Object.entries(CLOSINGS))('%s', async (_what, rows) => {
    expect(await differences(pair, rows)).toBe('')
  })
  it.each(Object.entries(CLOSINGS))('%s, with another request behind', async (_what, rows) => {
    expect(await differences(pair, rows, 'behind')).toBe('')
  })
  it.each(Object.entries(CUT))('%s that is cut in two', async (name, bytes) => {
    expect(await differences(pair, [cutEverywhere(name, bytes)])).toBe('')
  })
  it.each(Object.entries(CUT_AND_CLOSED))('%s that is cut in two, and ends the connection', async (_name, bytes) => {
    const places = Array.from({ length: bytes.length - 1 }, (_, i) => i + 1)
    const rows = places.map((at) => row(`after ${at} bytes`, bytes.slice(0, at), bytes.slice(at)))
    expect(await differences(pair, rows)).toBe('')
  })
})
