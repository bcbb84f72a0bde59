// Places at an upstream and the line before them: who is let in when, and that nobody is forgotten.

import { array, assert, asyncProperty, integer, record } from 'fast-check'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../src/core/errors.ts'
import { Gate, type Ticket } from '../../src/upstream/gate.ts'
import { until } from '../support/gateway.ts'

const rules = { max: 1, adaptive: null, maxWaiting: 10, waitMs: 3_600_000 }
const settle = () => new Promise<void>((resolve) => void setImmediate(resolve))

/** A gate, and what has happened before it: `a1` is let in, `-a1` is refused, `~a1` has no more time. */
function gateOf({ longestWaitMs = Infinity, ...over }: Partial<typeof rules & { longestWaitMs: number }> = {}) {
  const gate = new Gate({ ...rules, ...over })
  const events: string[] = []
  const errors: GatewayError[] = []
  const enter = (name: string): Ticket | null =>
    gate.enter({
      client: name.slice(0, 1),
      longestWaitMs,
      onPlace: () => void events.push(name),
      onRefused(error) {
        events.push(`-${name}`)
        errors.push(error)
      },
      onTooLate: () => void events.push(`~${name}`),
    })
  const leave = async (times = 1, heldMs = 0): Promise<void> => {
    for (let i = 0; i < times; i++) {
      gate.leave(heldMs)
      await settle()
    }
  }
  return { gate, events, errors, enter, leave }
}

describe('places', () => {
  it('are taken at once while there are any', () => {
    const { gate, events, enter } = gateOf({ max: 2 })
    expect(['a1', 'a2'].map(enter)).toEqual([null, null])
    expect(enter('a3')).not.toBe(null)
    expect([events, gate.taken, gate.waiting]).toEqual([['a1', 'a2'], 2, 1])
  })

  it('go to those in line, not to who comes just then', async () => {
    const { gate, events, enter } = gateOf()
    enter('a1')
    enter('b1')
    gate.leave(0)
    enter('c1')
    await settle()
    gate.leave(0)
    await settle()
    expect(events).toEqual(['a1', 'b1', 'c1'])
  })
})

describe('the line', () => {
  it('lets clients take turns, each with its own in order', async () => {
    const { events, enter, leave } = gateOf()
    for (const name of ['x0', 'a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'c1']) enter(name)
    await leave(7)
    expect(events).toEqual(['x0', 'a1', 'b1', 'c1', 'a2', 'b2', 'a3', 'a4'])
  })

  it('can be left from any place', async () => {
    const { gate, events, enter, leave } = gateOf()
    enter('x0')
    const [a1, a2, b1] = ['a1', 'a2', 'b1'].map(enter)
    a1?.leave()
    b1?.leave()
    b1?.leave()
    expect(gate.waiting).toBe(1)
    await leave()
    a2?.leave()
    expect([events, gate.waiting, gate.taken]).toEqual([['x0', 'a2'], 0, 1])
  })

  it('has an end: beyond it is a refusal', () => {
    const { gate, events, errors, enter } = gateOf({ maxWaiting: 2 })
    for (const name of ['x0', 'a1', 'a2', 'a3']) enter(name)
    expect([events, gate.waiting, gate.refused]).toEqual([['x0', '-a3'], 2, 1])
    expect(errors[0]).toMatchObject({ code: 'saturated', retryAfterSeconds: 1 })
  })

  it('may have no length at all', () => {
    const { events, enter } = gateOf({ maxWaiting: 0 })
    for (const name of ['a1', 'b1']) enter(name)
    expect(events).toEqual(['a1', '-b1'])
  })

  it('has room for a client with fewer in it, at the cost of the last of who has the most', () => {
    const { events, enter } = gateOf({ maxWaiting: 4 })
    for (const name of ['x0', 'a1', 'a2', 'a3', 'a4', 'b1', 'b2', 'c1', 'b3', 'a5']) enter(name)
    // With a1, a2, b1 and b2, nobody has so many that another could have more than before.
    expect(events).toEqual(['x0', '-a4', '-a3', '-a2', '-b3', '-a5'])
  })

  it.each([
    ['told', { waitMs: 10 }, '-', 2],
    ['there is time for an answer', { longestWaitMs: 10 }, '~', 0],
  ])('lets nobody wait longer than %s', async (_what, over, sign, refused) => {
    const { gate, events, enter } = gateOf(over)
    for (const name of ['x0', 'a1', 'b1']) enter(name)
    await until(() => events.length === 3, 'both to be told')
    expect([events.toSorted(), gate.waiting, gate.refused]).toEqual([
      [`${sign}a1`, `${sign}b1`, 'x0'].toSorted(),
      0,
      refused,
    ])
  })

  it('ends with the gate', () => {
    const { gate, events, errors, enter } = gateOf()
    for (const name of ['x0', 'a1', 'b1', 'a2']) enter(name)
    gate.close(new GatewayError('draining', ''))
    expect([events, gate.waiting]).toEqual([['x0', '-a1', '-a2', '-b1'], 0])
    expect(errors.map(({ code }) => code)).toEqual(['draining', 'draining', 'draining'])
  })
})

describe('who would wait for too long', () => {
  /** Two places, which were held for 4 s of late, are taken. */
  async function busy(over: Parameters<typeof gateOf>[0] = {}) {
    const bench = gateOf({ max: 2, waitMs: 10_000, ...over })
    for (const name of ['x1', 'x2']) bench.enter(name)
    for (let i = 0; i < 2; i++) {
      await bench.leave(1, 4000)
      bench.enter(`x${i + 3}`)
    }
    bench.events.length = 0
    return bench
  }

  it('is not let into the line, and is told when to come again', async () => {
    const { events, errors, enter, gate } = await busy()
    // One comes free every 2 s.
    for (const name of ['a1', 'b1', 'c1', 'd1', 'e1', 'f1']) enter(name)
    expect([events, gate.waiting, gate.refused]).toEqual([['-f1'], 5, 1])
    expect(errors[0]).toMatchObject({ code: 'saturated', retryAfterSeconds: 12 })
  })

  it('is judged by its turn, not by how many there are', async () => {
    const { events, enter } = await busy()
    for (const name of ['a1', 'a2', 'a3', 'a4', 'a5', 'b1', 'b2', 'c1']) enter(name)
    // b2 is the fourth, c1 the third.
    expect(events).toEqual([])
  })

  it('is judged by the time that it has left, too', async () => {
    const { events, errors, enter } = await busy({ longestWaitMs: 3000 })
    for (const name of ['a1', 'b1']) enter(name)
    expect([events, errors[0]?.code]).toEqual([['-b1'], 'saturated'])
  })

  it('is a client with more than its share: then it is told so', async () => {
    const { events, errors, enter } = await busy()
    for (const name of ['b1', 'a1', 'a2', 'a3', 'a4', 'a5', 'c1']) enter(name)
    expect(events).toEqual(['-a5'])
    expect(errors[0]).toMatchObject({ code: 'share_exceeded', retryAfterSeconds: 12 })
    expect(errors[0]?.kind.status).toBe(429)
  })

  it('may wait again soon after the upstream has become fast', async () => {
    const { events, enter, gate } = await busy({ waitMs: 1000 })
    enter('a1')
    expect(events).toEqual(['-a1'])
    for (let i = 0; i < 5; i++) {
      gate.leave(10)
      enter(`y${i}`)
    }
    enter('a2')
    expect([events.includes('-a2'), gate.waiting]).toEqual([false, 1])
  })

  it('is let in where nobody knows yet', () => {
    const { gate, enter } = gateOf({ waitMs: 1, maxWaiting: 3 })
    for (const name of ['x0', 'a1', 'a2', 'b1']) enter(name)
    expect([gate.waiting, gate.refused]).toEqual([3, 0])
  })
})

describe('a line that is full', () => {
  it('is the doing of who has more than its share of it, beside others', () => {
    const { events, errors, enter } = gateOf({ maxWaiting: 4 })
    for (const name of ['x0', 'a1', 'a2', 'a3', 'b1', 'a4']) enter(name)
    expect([events, errors[0]?.code]).toEqual([['x0', '-a4'], 'share_exceeded'])
  })

  it.each([
    ['alone in it', ['a1', 'a2', 'a3', 'a4', 'a5']],
    ['not in it', ['a1', 'b1', 'c1', 'd1', 'e1']],
    ['in it with as many as the others', ['a1', 'a2', 'b1', 'b2', 'b3']],
  ])('is not that of who is %s', (_who, names) => {
    const { errors, enter } = gateOf({ maxWaiting: 4 })
    for (const name of ['x0', ...names]) enter(name)
    expect(errors.map(({ code }) => code)).toEqual(['saturated'])
  })

  it('tells who has to make room for another why', () => {
    const { events, errors, enter } = gateOf({ maxWaiting: 4 })
    for (const name of ['x0', 'a1', 'a2', 'a3', 'a4', 'b1']) enter(name)
    expect([events, errors[0]?.code]).toEqual([['x0', '-a4'], 'share_exceeded'])
  })
})

describe('an upstream that rests', () => {
  it('has nobody until then, and those who have waited in their turns', async () => {
    const { gate, events, enter } = gateOf({ max: 2 })
    enter('x0')
    const startedAtMs = performance.now()
    gate.rest(startedAtMs + 50)
    for (const name of ['a1', 'a2', 'b1']) enter(name)
    gate.leave(1)
    await settle()
    expect([events, gate.waiting]).toEqual([['x0'], 3])
    await until(() => gate.waiting === 1, 'the end of the rest')
    expect(performance.now() - startedAtMs).toBeGreaterThanOrEqual(50)
    expect(events).toEqual(['x0', 'a1', 'b1'])
  })

  it('has no line of those who cannot wait for so long', () => {
    const { gate, events, errors, enter } = gateOf({ max: 1, waitMs: 20_000 })
    for (const name of ['x0', 'a1', 'b1']) enter(name)
    gate.rest(performance.now() + 30_000)
    enter('c1')
    expect([events, gate.waiting, gate.refused]).toEqual([['x0', '-a1', '-b1', '-c1'], 0, 3])
    expect(errors.map(({ code, retryAfterSeconds }) => [code, retryAfterSeconds])).toEqual(
      errors.map(() => ['cooling_down', 30]),
    )
  })

  it('is judged with that: the rest counts for who would wait for too long', async () => {
    const { gate, events, enter, leave } = gateOf({ waitMs: 10_000 })
    enter('x0')
    await leave(1, 3000)
    gate.rest(performance.now() + 5000)
    for (const name of ['a1', 'b1']) enter(name)
    expect(events).toEqual(['x0', '-b1'])
  })

  it('has rested where that time is over', () => {
    const { gate, events, enter } = gateOf()
    gate.rest(performance.now() - 1)
    enter('a1')
    expect(events).toEqual(['a1'])
  })
})

it('loses nobody and lets in no more than it may, whatever comes in which order', async () => {
  const steps = array(record({ act: integer({ min: 0, max: 4 }), who: integer({ min: 0, max: 3 }) }), { maxLength: 60 })
  await assert(
    asyncProperty(integer({ min: 1, max: 3 }), integer({ min: 0, max: 4 }), steps, async (max, maxWaiting, all) => {
      const gate = new Gate({ max, adaptive: null, maxWaiting, waitMs: 3_600_000 })
      const told: number[] = []
      const tickets = new Map<number, Ticket>()
      let inside = 0
      let asked = 0
      for (const { act, who } of all) {
        if (act < 2) {
          const id = asked++
          told[id] = 0
          const tell = (): void => {
            told[id] = (told[id] ?? 0) + 1
            tickets.delete(id)
          }
          const ticket = gate.enter({
            client: String(who),
            longestWaitMs: Infinity,
            onPlace() {
              tell()
              inside++
            },
            onRefused: tell,
            onTooLate: tell,
          })
          if (ticket !== null) tickets.set(id, ticket)
        } else if (act === 2 && inside > 0) {
          inside--
          gate.leave(0)
        } else if (act === 3) {
          const [waiting] = tickets
          waiting?.[1].leave()
          if (waiting !== undefined) tickets.delete(waiting[0])
        } else if (act === 4) {
          if (who < 2) gate.rest(performance.now() + 60_000)
          else gate.ring()
        }
        if (who === 0) await settle()
        expect(inside).toBeLessThanOrEqual(max)
        expect(gate.waiting).toBe(tickets.size)
        expect(gate.waiting).toBeLessThanOrEqual(maxWaiting)
      }
      gate.ring()
      await settle()
      expect(Math.max(0, ...told)).toBeLessThanOrEqual(1)
      expect(gate.taken).toBe(inside)
      expect(gate.waiting === 0 || inside === max).toBe(true)
    }),
  )
})
