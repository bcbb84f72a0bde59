// One behaviour, two lanes (see lanes.test.ts): every way in which a request may be spelt, rightly and wrongly.

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { differences } from '../support/lanes/compare.ts'
import { type Pair, SETTLED, startPair } from '../support/lanes/pair.ts'
import { get, row } from '../support/lanes/rows.ts'
import { SWEEPS, SYNTAX } from '../support/lanes/syntax.ts'
import { originOfAll, yamlOfAll } from '../support/lanes/table.ts'

vi.mock('node:zlib', async (original) => (await import('../support/lanes/threads.ts')).codeAtOnce(await original()))

/** Those that some grammar treats apart, and a few that none does; in a long run all of them. */
const BYTES = Array.from({ length: 256 }, (_, code) => code)
  .filter(
    (code) =>
      process.env['WEIRGATE_LANES_RUNS'] !== undefined ||
      !/[1-8B-FI-YBb-z\x81-\x84\x86-\x9f\xa1-\xfd]/.test(String.fromCharCode(code)),
  )
  .map((code) => String.fromCharCode(code))

let pair: Pair
beforeAll(async () => {
  pair = await startPair({ yaml: (originUrl) => yamlOfAll(originUrl), script: originOfAll })
})
afterAll(() => pair.close())

describe('the lanes cannot be told apart by', () => {
  it.each(Object.entries(SYNTAX))('%s', async (_what, rows) => {
    expect(await differences(pair, rows)).toBe('')
  })
  it.each(Object.entries(SYNTAX))('%s, with another request behind', async (_what, rows) => {
    expect(await differences(pair, rows, 'behind')).toBe('')
  })
  it.each(Object.entries(SWEEPS))('any byte %s', async (_where, requestWith) => {
    const rows = BYTES.map((byte) => row(`byte ${byte.charCodeAt(0)}`, requestWith(byte), SETTLED, requestWith(byte)))
    expect(await differences(pair, [row('asked for', get('/plain'), get('/only/plain')), ...rows])).toBe('')
  })
})
