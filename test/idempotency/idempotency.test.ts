// What waits, what is held and what is told while requests with a key are carried out; over real sockets the rest of it is
// in test/end-to-end/idempotency.test.ts.

import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../src/core/errors.ts'
import { createKeyBench, settled } from '../support/idempotency.ts'

const GONE = new GatewayError('upstream_reset', 'It is gone.')
const REFUSED = new GatewayError('upstream_refused', 'Nobody is there.')

describe('who waits for the first', () => {
  it.each([
    ['its answer', 201, '201 deed again'],
    ['a refusal', 429, '429 deed again'],
    ['an answer that says nothing of what was done', 500, '500 deed again'],
  ])('gets %s', async (_what, status, outcome) => {
    const bench = createKeyBench()
    const [first, second] = [bench.ask(), bench.ask()]
    await settled()
    bench.calls[0]?.answer(status, 'deed')
    await settled()
    expect([first.outcome, second.outcome, bench.calls.length]).toEqual([`${status} deed`, outcome, 1])
  })

  it.each([
    ['that leaves the key free', REFUSED, 2],
    ['that leaves it open what was done', GONE, 1],
  ])('gets a failure %s', async (_what, error, calls) => {
    const bench = createKeyBench()
    const both = [bench.ask(), bench.ask()]
    await settled()
    bench.calls[0]?.fail(error)
    await settled()
    expect(both.map(({ outcome }) => outcome)).toEqual([error.code, error.code])
    bench.ask()
    await settled()
    expect(bench.calls).toHaveLength(calls)
  })

  it('gets the failure where the answer breaks off in the middle', async () => {
    const bench = createKeyBench()
    const [first, second] = [bench.ask(), bench.ask()]
    await settled()
    const body = bench.calls[0]?.stream(200)
    await settled()
    body?.send('some')
    body?.fail(GONE)
    await settled()
    expect([first.outcome, second.outcome]).toEqual(['broken', 'upstream_reset'])
    expect(bench.idempotency.table.bytes).toBe(0)
  })

  it('holds no body meanwhile', async () => {
    const bench = createKeyBench()
    const body = 'x'.repeat(1000)
    for (let i = 0; i < 10; i++) bench.ask({ body })
    await settled()
    expect([bench.calls.length, bench.idempotency.bodies.bytes]).toEqual([1, 1000])
    bench.calls[0]?.answer(200)
    await settled()
    expect(bench.idempotency.bodies.bytes).toBe(0)
  })
})

it('what the gateway answers itself says of the key what its error says, whatever the status', async () => {
  const bench = createKeyBench()
  const asked = bench.ask()
  await settled()
  const [call] = bench.calls
  if (call !== undefined) call.ctx.error = new GatewayError('forbidden', 'Not let in.')
  call?.answer(403, 'no')
  await settled()
  expect(asked.outcome).toBe('403 no')
  bench.ask()
  await settled()
  expect(bench.calls).toHaveLength(2)
})

describe('bodies', () => {
  const body = 'x'.repeat(1024 ** 2)

  it('of all clients are held up to a bound, and nothing is carried out for more', async () => {
    const bench = createKeyBench()
    const ask = (i: number) => bench.ask({ key: `key-${i}`, body, address: `192.0.2.${i % 8}` })
    const asked = Array.from({ length: 65 }, (_, i) => ask(i))
    await settled()
    expect(asked.filter(({ outcome }) => outcome === 'saturated')).toHaveLength(1)
    expect([bench.calls.length, bench.idempotency.bodies.bytes]).toEqual([64, 64 * 1024 ** 2])
    for (const call of bench.calls) call.answer(200)
    await settled()
    expect(bench.idempotency.bodies.bytes).toBe(0)
    ask(100)
    await settled()
    expect(bench.calls).toHaveLength(65)
  })

  it('of one client take no more than a part of that', async () => {
    const bench = createKeyBench()
    const asked = Array.from({ length: 17 }, (_, i) => bench.ask({ key: `key-${i}`, body }))
    const other = bench.ask({ key: 'other', body, address: '192.0.2.200' })
    await settled()
    expect(asked.filter(({ outcome }) => outcome === 'saturated')).toHaveLength(1)
    expect(other.outcome).toBeNull()
    expect(bench.calls).toHaveLength(17)
  })

  it('that are only announced take none', async () => {
    const bench = createKeyBench()
    for (let i = 0; i < 200; i++) bench.ask({ key: `slow-${i}`, stream: new Readable({ read() {} }) })
    await settled()
    expect(bench.idempotency.bodies.bytes).toBe(0)
    bench.ask({ body })
    await settled()
    expect(bench.calls).toHaveLength(1)
  })

  it('that break off are not held', async () => {
    const bench = createKeyBench()
    const stream = new Readable({ read() {} })
    const asked = bench.ask({ stream })
    stream.push('some of it')
    await settled()
    expect(bench.idempotency.bodies.bytes).toBe(10)
    stream.destroy(new GatewayError('client_gone', 'It is gone.'))
    await settled()
    expect([asked.outcome, bench.idempotency.bodies.bytes, bench.calls.length]).toEqual(['client_gone', 0, 0])
  })
})

it('what is held for a request is held until it is over, whether or not its client stays', async () => {
  const bench = createKeyBench()
  const asked = bench.ask()
  let isFree = false
  asked.ctx.whenEnded(() => (isFree = true))
  await settled()
  asked.abort()
  asked.ctx.end()
  const body = bench.calls[0]?.stream(200)
  await settled()
  body?.send('some')
  expect(isFree).toBe(false)
  body?.end()
  expect(isFree).toBe(true)
})

it('tells when nothing is carried out any more', async () => {
  const bench = createKeyBench()
  const { running } = bench.idempotency
  await running.whenNone(60_000)
  bench.ask()
  bench.ask({ key: 'key-2' })
  await settled()
  let isNone = false
  void running.whenNone(60_000).then(() => (isNone = true))
  bench.calls[0]?.answer(200)
  await settled()
  expect(isNone).toBe(false)
  bench.calls[1]?.fail(GONE)
  await settled()
  expect(isNone).toBe(true)
  bench.ask({ key: 'key-3' })
  await settled()
  await running.whenNone(1)
})

it('answers that are still being recorded take no more memory than there is', async () => {
  const bench = createKeyBench({}, { maxBytes: 1000 })
  const both = [bench.ask({ key: 'key-1' }), bench.ask({ key: 'key-2' })]
  await settled()
  const bodies = bench.calls.map((call) => call.stream(200))
  await settled()
  bodies[0]?.send('x'.repeat(600))
  bodies[1]?.send('y'.repeat(600))
  expect(bench.idempotency.table.bytes).toBe(600)
  for (const body of bodies) body.end()
  await settled()
  expect(both.map(({ outcome }) => outcome?.length)).toEqual([604, 604])
  const again = [bench.ask({ key: 'key-1' }), bench.ask({ key: 'key-2' })]
  await settled()
  expect(again.map(({ outcome }) => outcome?.slice(0, 20))).toEqual([`200 ${'x'.repeat(16)}`, 'idempotency_not_kept'])
})
