// Streams of events through a route's cache, with time in the hands of the test: when they came, and when they come again.

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { decodeEntry, encodeEntry } from '../../src/cache/encoding.ts'
import type { StoredResponse } from '../../src/cache/entry.ts'
import type { BodyStream, Reply } from '../../src/core/context.ts'
import { NotingSink } from '../support/body.ts'
import { type Bench, createBench, settle } from '../support/cache.ts'
import { createHandTier } from '../support/tier.ts'

const EVENTS = ['Content-Type', 'text/event-stream']
const QUERY = { method: 'QUERY', headers: ['Content-Type', 'application/json'], body: '{"p":1}' }
const ROUTE = { ttl: '1h', methods: ['QUERY'], scope: 'public', terminal: { data: '4' } }

/** Sends a stream whose pieces come when they are said to. */
async function record(bench: Bench, pieces: readonly (readonly [atMs: number, text: string])[]): Promise<void> {
  const asking = bench.ask(QUERY)
  for (const asked = bench.asked.length; bench.asked.length === asked;) await settle()
  const body = bench.asked.at(-1)?.stream(EVENTS)
  await asking.reply
  const startedAtMs = bench.nowMs
  for (const [atMs, text] of pieces) {
    bench.nowMs = startedAtMs + atMs
    body?.send(text)
  }
  body?.end()
  await asking.outcome()
}

/** What a client gets of it, and when. */
async function replayed(bench: Bench): Promise<readonly (readonly [atMs: number, text: string])[]> {
  const asking = bench.ask(QUERY)
  await asking.reply
  expect(await asking.field('X-Cache')).toBe('HIT')
  asking.abort()
  // Another one, which nobody reads yet.
  const { body } = (await bench.cache.lookup(asking.ctx)) as Reply
  const sink = new NotingSink()
  const came: (readonly [number, string])[] = []
  ;(body as BodyStream).pipeTo(sink)
  for (let ms = 0; ms < 20_000; ms++) {
    while (came.length < sink.chunks.length) came.push([ms, String(sink.chunks[came.length])])
    if (sink.outcome !== 'open') break
    vi.advanceTimersByTime(1)
  }
  expect(sink.outcome).toBe('whole')
  return came
}

describe('a stored stream', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] }))
  afterEach(() => void vi.useRealTimers())

  const CAME = [
    [700, ': wait\n\n'],
    [900, 'data: 1\n\n'],
    [950, 'data: 2'],
    [1900, '\n\n'],
    [1930, 'data: 3\n\ndata: 4\n\n'],
  ] as const

  it.each<[unknown, readonly (readonly [number, string])[]]>([
    [
      'paced',
      [
        [0, 'data: 1\n\n'],
        [200, 'data: 2\n\n'],
        [230, 'data: 3\n\ndata: 4\n\n'],
      ],
    ],
    [
      { maxGap: '2s' },
      [
        [0, 'data: 1\n\n'],
        [1000, 'data: 2\n\n'],
        [1030, 'data: 3\n\ndata: 4\n\n'],
      ],
    ],
    [
      { speed: 2, maxGap: '2s' },
      [
        [0, 'data: 1\n\n'],
        [500, 'data: 2\n\n'],
        [515, 'data: 3\n\ndata: 4\n\n'],
      ],
    ],
    [
      { maxTotal: '23ms' },
      [
        [0, 'data: 1\n\n'],
        [20, 'data: 2\n\n'],
        [23, 'data: 3\n\ndata: 4\n\n'],
      ],
    ],
  ])('with `replay: %j` comes event by event, when each is due', async (replay, expected) => {
    const bench = createBench({ ...ROUTE, replay })
    await record(bench, CAME)
    expect(await replayed(bench)).toEqual(expected)
  })

  it('comes at once without it', async () => {
    const bench = createBench(ROUTE)
    await record(bench, CAME)
    expect(await bench.ask(QUERY).outcome()).toBe('200 data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\n')
  })

  it('keeps its times where it comes back from beyond memory', async () => {
    const tier = createHandTier()
    const first = createBench({ ...ROUTE, replay: 'paced' }, { tiers: [tier] })
    const recording = record(first, CAME)
    while (tier.reads.length === 0) await settle()
    tier.reads[0]?.answer()
    await recording
    const [written] = tier.writes
    const second = createBench({ ...ROUTE, replay: 'paced' }, { tiers: [tier] })
    const replaying = replayed(second)
    while (tier.reads.length === 1) await settle()
    tier.reads[1]?.answer(decodeEntry(encodeEntry(written as StoredResponse)) as StoredResponse)
    expect((await replaying).map(([atMs]) => atMs)).toEqual([0, 200, 230])
  })
})
