// Any sequence of requests, answers, failures, departures and hours, against a model that is slow and obviously right; and
// any interleaving of two instances with one Redis, of which is asked what must never be. WEIRGATE_MODEL_RUNS runs more.

import * as fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type ErrorCode, GatewayError } from '../../src/core/errors.ts'
import { createSharedKeys } from '../../src/idempotency/redis.ts'
import { type RedisLink, createRedisLink } from '../../src/core/redis.ts'
import type { HandBody } from '../support/body.ts'
import { type Call, type KeyedAsking, createKeyBench, settled } from '../support/idempotency.ts'
import { type RedisServer, describeWithRedis, startRedis } from '../support/redis.ts'

const RUNS = Number(process.env['WEIRGATE_MODEL_RUNS'] ?? 150)
const FOR_MS = 60_000
const MAX_ANSWER_BYTES = 20

type Step =
  | { readonly do: 'ask'; readonly user: string; readonly key: string; readonly body: string }
  /** At the upstream; which: of those that wait for an answer. */
  | { readonly do: 'answer'; readonly which: number; readonly status: number; readonly isLarge: boolean }
  | { readonly do: 'stream'; readonly which: number; readonly status: number }
  | { readonly do: 'fail'; readonly which: number; readonly code: ErrorCode }
  /** Of those that are being sent. */
  | { readonly do: 'send'; readonly which: number }
  | { readonly do: 'end' | 'break'; readonly which: number }
  | { readonly do: 'leave'; readonly which: number }
  | { readonly do: 'wait'; readonly ms: number }

const which = fc.nat({ max: 5 })
const status = fc.constantFrom(200, 201, 201, 404, 429, 500, 503)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('ask' as const),
      user: fc.constantFrom('ann', 'bob'),
      key: fc.constantFrom('key-1', 'key-1', 'key-2'),
      body: fc.constantFrom('', '', '', 'other'),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('answer' as const),
      which,
      status,
      isLarge: fc.constantFrom(false, false, true),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('stream' as const), which, status }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('fail' as const),
      which,
      code: fc.constantFrom<ErrorCode>('upstream_refused', 'upstream_reset', 'saturated', 'timeout_total'),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('send' as const), which }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom('end' as const, 'end' as const, 'break' as const), which }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('leave' as const), which }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(1000, FOR_MS - 1000, FOR_MS) }),
  },
)

/** What the model knows of a key. */
type Known =
  | { readonly state: 'running'; readonly body: string; readonly waiting: Expected[] }
  | { readonly state: 'answered'; readonly body: string; readonly answer: string; readonly untilMs: number }
  | { readonly state: 'unknown' | 'not_kept'; readonly body: string; readonly untilMs: number }

/** A request and what has to become of it. */
interface Expected {
  readonly asked: KeyedAsking
  outcome: string | null
  hasLeft: boolean
}

interface Open {
  readonly name: string
  readonly call: Call
  readonly first: Expected
  status: number
  stream: HandBody | null
  sent: string
}

const isFree = (each: number): boolean => each === 429 || each === 503

it('never is another than the model says', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60, size: 'max' }), fc.boolean(), async (steps, mayRetry) => {
      const bench = createKeyBench({
        for: '1m',
        maxAnswer: `${MAX_ANSWER_BYTES}B`,
        unknown: mayRetry ? 'retry' : 'refuse',
      })
      const known = new Map<string, Known>()
      const all: Expected[] = []
      const open: Open[] = []
      let calls = 0

      const pick = <T>(list: readonly T[], at: number): T | undefined => list[at % Math.max(1, list.length)]

      const conclude = (
        each: Open,
        standing: 'answered' | 'unknown' | 'not_kept' | 'free',
        mine: string,
        others: string,
      ): void => {
        open.splice(open.indexOf(each), 1)
        const running = known.get(each.name)
        if (running?.state !== 'running') throw new Error('not running')
        each.first.outcome = mine
        for (const other of running.waiting) other.outcome = others
        const { body } = running
        const untilMs = bench.nowMs + FOR_MS
        if (standing === 'free') known.delete(each.name)
        else if (standing === 'answered') known.set(each.name, { state: standing, body, answer: others, untilMs })
        else known.set(each.name, { state: standing, body, untilMs })
      }
      const standingOf = (each: number, isKept: boolean): 'answered' | 'unknown' | 'not_kept' | 'free' =>
        isFree(each) ? 'free' : each === 500 ? 'unknown' : isKept ? 'answered' : 'not_kept'

      for (const each of steps) {
        switch (each.do) {
          case 'ask': {
            const name = `${each.user} ${each.key}`
            const expected: Expected = { asked: bench.ask(each), outcome: null, hasLeft: false }
            all.push(expected)
            let before = known.get(name)
            if (before !== undefined && before.state !== 'running' && before.untilMs <= bench.nowMs) before = undefined
            if (before !== undefined && before.body !== each.body) expected.outcome = 'idempotency_key_reused'
            else if (before?.state === 'running') before.waiting.push(expected)
            else if (before?.state === 'answered') expected.outcome = before.answer
            else if (before?.state === 'not_kept' || (before?.state === 'unknown' && !mayRetry))
              expected.outcome = `idempotency_${before.state}`
            else {
              known.set(name, { state: 'running', body: each.body, waiting: [] })
              await settled()
              const call = bench.calls[calls++]
              if (call === undefined) throw new Error('was not sent')
              open.push({ name, call, first: expected, status: 0, stream: null, sent: '' })
            }
            break
          }
          case 'answer': {
            const one = pick(
              open.filter(({ stream }) => stream === null),
              each.which,
            )
            if (one === undefined) break
            const body =
              (each.isLarge ? 'x' : '').padEnd(each.isLarge ? MAX_ANSWER_BYTES + 1 : 0, 'x') || `deed ${calls}`
            one.call.answer(each.status, body)
            const told = `${each.status} ${body}`
            conclude(
              one,
              standingOf(each.status, !each.isLarge),
              told,
              each.isLarge ? 'idempotency_not_kept' : `${told} again`,
            )
            break
          }
          case 'stream': {
            const one = pick(
              open.filter(({ stream }) => stream === null),
              each.which,
            )
            if (one === undefined) break
            one.status = each.status
            one.stream = one.call.stream(each.status)
            break
          }
          case 'fail': {
            const one = pick(
              open.filter(({ stream }) => stream === null),
              each.which,
            )
            if (one === undefined) break
            one.call.fail(new GatewayError(each.code, 'as the test says'))
            const standing = each.code === 'upstream_refused' || each.code === 'saturated' ? 'free' : 'unknown'
            conclude(one, standing, each.code, each.code)
            break
          }
          case 'send':
          case 'end':
          case 'break': {
            const one = pick(
              open.filter(({ stream }) => stream !== null),
              each.which,
            )
            if (one === undefined || one.stream === null) break
            if (each.do === 'send') {
              one.sent += 'part! '
              one.stream.send('part! ')
              break
            }
            const told = `${one.status} ${one.sent}`
            const isKept = one.sent.length <= MAX_ANSWER_BYTES
            if (each.do === 'end') {
              one.stream.end()
              conclude(one, standingOf(one.status, isKept), told, isKept ? `${told} again` : 'idempotency_not_kept')
            } else {
              one.stream.fail()
              conclude(one, isFree(one.status) ? 'free' : 'unknown', 'broken', 'upstream_reset')
            }
            break
          }
          case 'leave': {
            const one = pick(all, each.which)
            if (one === undefined) break
            one.hasLeft = true
            one.asked.abort()
            break
          }
          case 'wait':
            bench.nowMs += each.ms
        }
        await settled()
        expect(bench.calls).toHaveLength(calls)
        for (const { stream } of open) expect(stream?.isCancelled ?? false).toBe(false)
        const stayed = all.filter(({ hasLeft }) => !hasLeft)
        expect(stayed.map(({ asked }) => asked.outcome)).toEqual(stayed.map(({ outcome }) => outcome))
      }
      // Nothing is held for what is over.
      const { table, bodies } = bench.idempotency
      expect(bodies.bytes).toBe(open.reduce((sum, { name }) => sum + (known.get(name)?.body.length ?? 0), 0))
      const running = [...known.values()].filter(({ state }) => state === 'running').length
      expect(running).toBe(open.length)
      bench.nowMs += 10 * FOR_MS
      for (let i = 0; i < 20; i++) {
        bench.ask({ key: `other-${i}` })
        await settled()
      }
      const recorded = open.reduce((sum, { sent }) => sum + (sent.length <= MAX_ANSWER_BYTES ? sent.length : 0), 0)
      expect(table.bytes).toBe(recorded)
    }),
    { numRuns: RUNS },
  )
})

describeWithRedis('two instances', () => {
  let redis: RedisServer
  let links: RedisLink[] = []
  beforeAll(async () => {
    redis = await startRedis()
    const log = { info() {}, warn() {} }
    links = [1, 2].map(() => createRedisLink({ url: redis.url, name: 'test', deadlineMs: 5000 }, log))
    await Promise.all(links.map((link) => link.whenUp(10_000)))
  })
  afterAll(async () => {
    await Promise.all(links.map((link) => link.close()))
    await redis.close()
  })

  interface Sent {
    readonly instance: number
    readonly key: string
    readonly body: string
    /** Turns of the loop before it is sent. */
    readonly afterTurns: number
  }
  const sent: fc.Arbitrary<Sent> = fc.record({
    instance: fc.nat({ max: 1 }),
    key: fc.constantFrom('key-1', 'key-2'),
    body: fc.constantFrom('', '', '', 'other'),
    afterTurns: fc.nat({ max: 40 }),
  })
  /** What the upstream answers, one call after the other, and how many turns it takes. */
  const served = fc.record({
    status: fc.constantFrom(201, 201, 404, 429, 500, 503),
    turns: fc.nat({ max: 20 }),
  })

  it('never send a request again that has been answered, or of which nobody knows, nor at the same time', async () => {
    let run = 0
    await fc.assert(
      fc.asyncProperty(
        fc.array(sent, { minLength: 2, maxLength: 12, size: 'max' }),
        fc.array(served, { minLength: 12, maxLength: 12 }),
        async (requests, answers) => {
          const namespace = `run-${run++}`
          /** By key, in the order in which they came; word 0: not answered yet. */
          const seen = new Map<string, { readonly body: string; word: number; readonly text: string }[]>()
          let calls = 0
          const onCall = async (call: Call): Promise<void> => {
            const key = call.ctx.headers[1] as string
            const own = seen.get(key) ?? []
            seen.set(key, own)
            // At the same time as another, or after an answer that was the last word.
            for (const { word } of own) expect([429, 503]).toContain(word)
            const { status: word, turns } = answers[calls++] as { status: number; turns: number }
            const body = call.ctx.body?.bytes?.toString() ?? ''
            const one = { body, word: 0, text: `deed ${calls}` }
            own.push(one)
            for (let i = 0; i < turns; i++) await new Promise(setImmediate)
            one.word = word
            call.answer(word, one.text)
          }
          const faults: unknown[] = []
          const shared = links.map((link) => createSharedKeys({ link, namespace, cipher: null }))
          const benches = shared.map((each) =>
            createKeyBench(
              {},
              { shared: each, onCall: (call) => void onCall(call).catch((fault) => faults.push(fault)) },
            ),
          )
          const asked = await Promise.all(
            requests.map(async ({ instance, key, body, afterTurns }) => {
              for (let i = 0; i < afterTurns; i++) await new Promise(setImmediate)
              return { key, body, asking: benches[instance]?.ask({ key, body }) as KeyedAsking }
            }),
          )
          const endMs = performance.now() + 10_000
          while (asked.some(({ asking }) => asking.outcome === null) && performance.now() < endMs)
            await new Promise((resolve) => setTimeout(resolve, 1))
          expect(faults).toEqual([])
          for (const { key, body, asking } of asked) {
            const own = seen.get(key) ?? []
            const outcome = (asking.outcome ?? 'nothing').replace(/ again$/, '')
            const possible = own.map((each) =>
              each.body === body ? `${each.word} ${each.text}` : 'idempotency_key_reused',
            )
            if (own.at(-1)?.word === 500) possible.push('idempotency_unknown')
            expect(possible).toContain(outcome)
          }
          await Promise.all(shared.map((each) => each.close()))
        },
      ),
      { numRuns: Math.ceil(RUNS / 5) },
    )
  })
})
