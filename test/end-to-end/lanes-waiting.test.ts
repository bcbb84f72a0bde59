// One behaviour, two lanes (see lanes.test.ts): where time, another process, the end of the gateway, or a client that does
// not read decides what comes next.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { countedDifferences, differences, fastAnswersTo } from '../support/lanes/compare.ts'
import { difference } from '../support/lanes/observed.ts'
import * as the from '../support/lanes/pair.ts'
import { type Step, SETTLED, act, logged, pass } from '../support/lanes/pair.ts'
import { ask, get, head, row } from '../support/lanes/rows.ts'
import { originOfAll, yamlOfAll } from '../support/lanes/table.ts'
import { describeWithRedis, startRedis } from '../support/redis.ts'

vi.mock('node:zlib', async (original) => (await import('../support/lanes/threads.ts')).codeAtOnce(await original()))

async function start(yaml: the.PairOptions['yaml'], hasOtherClock = false): Promise<the.Pair> {
  const pair = await the.startPair({ yaml, script: originOfAll, hasOtherClock })
  onTestFinished(() => pair.close())
  return pair
}

const HIT = get('/plain')
const HUGE = get('/huge')
const MISS = get('/no-store')

/** How the lanes can be told apart by this conversation. */
const differenceIn = (pair: the.Pair, ...steps: readonly Step[]): Promise<string> =>
  differences(pair, [row('it', ...steps)])

describe('the lanes cannot be told apart while the gateway drains, by', () => {
  it.each([
    ['a hit', [HIT]],
    ['a last hit', [get('/plain', 'Connection: close')]],
    ['what is generated', [get('/authed/plain')]],
    ['two hits together', [HIT + HIT]],
    ['a hit behind a miss', [MISS, SETTLED, HIT]],
    ['nothing', [the.CLOSED]],
  ])('%s', async (_what, steps) => {
    const pair = await start((url) => yamlOfAll(url))
    const drained = act(({ gateway }) => void gateway.drain())
    expect(await differenceIn(pair, HIT, SETTLED, drained, ...steps)).toBe('')
  })
})

describe('the lanes cannot be told apart by time:', () => {
  it('an idle connection is kept for longer than is said', async () => {
    const pair = await start((url) => yamlOfAll(url, 'keepAlive: 100ms'))
    await pair.play({ steps: [HIT], last: 'apart' })
    for (const steps of [[HIT], [MISS], [MISS, SETTLED, HIT]]) {
      const { full, both } = await pair.play({ steps: [...steps, SETTLED, the.CLOSED], last: 'apart' })
      expect(difference(full, both)).toBeNull()
      // A client that believes what it is told may send at the last moment.
      expect(Math.min(full.waitedMs ?? 0, both.waitedMs ?? 0)).toBeGreaterThan(1080)
    }
  })

  it('what is between two requests is no late head', async () => {
    const pair = await start((url) => yamlOfAll(url, 'headTimeout: 100ms'))
    const idle = [SETTLED, pass(400)]
    expect(await differenceIn(pair, HIT, ...idle, HIT, ...idle, MISS, ...idle, HIT)).toBe('')
  })

  it.each([
    ['the first head', [HIT.slice(0, 20)]],
    ['a head behind a hit', [HIT, SETTLED, HIT.slice(0, 20)]],
    ['a head behind hits, the first byte of it', [HIT, SETTLED, HIT, SETTLED, 'G']],
    ['a head behind a miss', [MISS, SETTLED, HIT.slice(0, 20)]],
    ['a head behind a miss and a hit', [MISS, SETTLED, HIT, SETTLED, HIT.slice(0, 20)]],
    ['a head behind a hit, of which a part has come after a while', [HIT, SETTLED, pass(150), HIT.slice(0, 20)]],
  ])('408 for %s', async (_what, steps) => {
    const pair = await start((url) => yamlOfAll(url, 'headTimeout: 100ms'))
    expect(await differenceIn(pair, ...steps, the.CLOSED)).toBe('')
    const { both } = await pair.play({ steps: [...steps, the.CLOSED], last: 'apart' })
    expect(both.answers).toContain('HTTP/1.1 408 ')
  })

  it('a connection on which nothing comes, or nothing more, is closed', async () => {
    const pair = await start((url) => yamlOfAll(url, 'headTimeout: 100ms'))
    expect(await differenceIn(pair, the.CLOSED)).toBe('')
    expect(await differenceIn(pair, HIT + HIT.slice(0, 20), the.CLOSED)).toBe('')
  })
})

describe('the lanes cannot be told apart by a client that does not read', () => {
  /** In what the log says, and in how it ends: how much of an answer comes through is for the kernel to say. */
  async function endsOf(pair: the.Pair, ...steps: readonly Step[]) {
    const { full, both } = await pair.play({ steps, last: 'apart' })
    const endOf = ({ log, closedBy }: typeof full) => ({ log, closedBy })
    return { full: endOf(full), both: endOf(both) }
  }

  it.each([
    ['behind a huge hit', [HUGE, SETTLED], 1],
    ['with another behind', [HUGE, SETTLED, HIT, SETTLED], 1],
    ['with others behind, together', [HUGE, SETTLED, HUGE + HIT, SETTLED], 1],
    ['behind others', [get('/large'), SETTLED, HUGE, SETTLED], 2],
  ])('and goes: %s', async (_what, steps, lines) => {
    const pair = await start((url) => yamlOfAll(url))
    await pair.play({ steps: [HUGE, SETTLED, get('/large'), SETTLED, HIT], last: 'apart' })
    const { full, both } = await endsOf(pair, the.PAUSED, ...steps, the.RESET, logged(lines))
    expect(both).toEqual(full)
    expect(countedDifferences(pair)).toBe('')
  })

  it.each([
    ['a huge hit, with others behind', [HUGE, SETTLED, HIT, SETTLED, MISS, SETTLED, the.RESUMED, SETTLED, HIT]],
    ['huge hits, with others behind', [HUGE, HUGE, HIT, get('/large'), SETTLED, the.RESUMED]],
    ['a huge hit together with another', [HUGE + HIT, SETTLED, the.RESUMED, SETTLED, HIT]],
  ])('until later: %s', async (_what, steps) => {
    const pair = await start((url) => yamlOfAll(url))
    await pair.play({ steps: [HUGE], last: 'apart' })
    expect(await differenceIn(pair, the.PAUSED, ...steps)).toBe('')
  })

  it.each([
    ['a huge hit', [the.PAUSED, HUGE], 1],
    ['others behind', [the.PAUSED, HUGE, SETTLED, HIT, HIT], 1],
    ['others before, and one behind', [HIT, SETTLED, MISS, SETTLED, the.PAUSED, HUGE + HIT], 3],
  ])('and is cut off: %s', async (_what, steps, lines) => {
    const pair = await start((url) => yamlOfAll(url, 'writeStall: 200ms'))
    await pair.play({ steps: [HUGE], last: 'apart' })
    const { full, both } = await endsOf(pair, ...steps, logged(lines), the.RESUMED, the.CLOSED)
    expect(both).toEqual(full)
    expect(countedDifferences(pair)).toBe('')
  })
})

/** Each when the one before is over, which this process cannot know by itself. */
const awaited = (requests: readonly string[]): Step[] => requests.flatMap((bytes, i) => [bytes, logged(i + 1)])

describe('the lanes cannot be told apart before', () => {
  it('a copy on disk', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'weirgate-lanes-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const disk = (lanes: string) => `cache: {disk: {path: ${join(folder, lanes)}, max: 16MiB}}`
    const pair = await start((url, lanes) => yamlOfAll(url, '', disk(lanes)))
    const limited = get('/few/plain', 'X-Client: a')
    const steps = awaited([HIT, HIT, get('/etag', 'If-None-Match: "one"'), get('/missing'), limited, limited])
    expect(await differenceIn(pair, ...steps)).toBe('')
    expect(await fastAnswersTo(pair, { steps, last: 'apart' })).toBe(7)
  })
})

describeWithRedis('the lanes cannot be told apart before a Redis that counts', () => {
  // Without leases: when a block of units comes is the machine's to say.
  it('without leases', async () => {
    const redis = await startRedis()
    onTestFinished(() => redis.close())
    const pair = await start(
      (url, lanes) => `
listen: {address: 127.0.0.1:0, connectionsPerAddress: 10000}
admin: {listen: 127.0.0.1:0}
redis: {url: "${redis.url}", namespace: ${lanes}, deadline: 5s}
upstreams: {origin: {targets: [${url}]}}
defaults: {upstream: origin}
limits:
  some: {limit: 5, window: 1h, key: "header:x-client", lease: off}
  three: {limit: 3, window: 1h, key: "header:x-client", count: miss}
routes:
  - {path: /marker, cache: {ttl: 1d}}
  - {path: /some/*, limits: [some], rewrite: {strip: /some}, cache: {ttl: 1h}}
  - {path: /both/*, limits: [some, three], rewrite: {strip: /both}, cache: {ttl: 1h}}
  - {path: /instead/*, limits: [some], onLimited: stale, rewrite: {strip: /instead}, cache: {ttl: 1h}}
  - {path: /*, cache: {ttl: 1h}}
`,
      true,
    )
    const asked = ['/some', '/both', '/instead', ''].flatMap((route) => {
      const own = `X-Client: ${route}`
      const [plain, other] = [get(`${route}/plain`, own), get(`${route}/plain`, 'X-Client: other')]
      const more = [head(`${route}/plain`, own), get(`${route}/etag`, own, 'If-None-Match: "one"')]
      return [plain, plain, plain, plain, more, plain, other, ask('POST', `${route}/plain`, own), other].flat()
    })
    const before = pair.fastAnswers().both
    expect(await differenceIn(pair, ...awaited(asked))).toBe('')
    expect(pair.fastAnswers().both - before).toBeGreaterThan(10)
    // What waits for Redis holds back what comes behind it.
    const counted = get('/some/plain', 'X-Client: together')
    const mixed = [counted, HIT, counted, HIT, counted]
    expect(await differenceIn(pair, ...mixed, logged(5))).toBe('')
    expect(await differenceIn(pair, mixed.join(''), logged(5))).toBe('')
    expect(await differenceIn(pair, counted, logged(1), counted + HIT, logged(3), HIT, counted, logged(5))).toBe('')
  })
})
