// Places at an upstream and the line before them: who is let in when, and that nobody is forgotten.

import { array, assert, asyncProperty, integer, record } from 'fast-check'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../src/core/errors.ts'
import { Gate, type Ticket } from '../../src/upstream/gate.ts'
import { until } from '../support/gateway.ts'

const rules = { max: 1, maxWaiting: 10, waitMs: 3_600_000 }
const settle = () => new Promise<void>((resolve) => void setImmediate(resolve))

/** A gate, and what has happened before it: `a1` is let in, `-a1` is refused. */
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
    })
  const leave = async (times = 1): Promise<void> => {
    for (let i = 0; i < times; i++) {
      gate.leave()
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
    gate.leave()
    enter('c1')
    await settle()
    gate.leave()
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
    ['told', { waitMs: 10 }],
    ['there is time for an answer', { longestWaitMs: 10 }],
  ])('lets nobody wait longer than %s', async (_what, over) => {
    const { gate, events, enter } = gateOf(over)
    for (const name of ['x0', 'a1', 'b1']) enter(name)
    await until(() => events.length === 3, 'both to be refused')
    expect([events.toSorted(), gate.waiting, gate.refused]).toEqual([['-a1', '-b1', 'x0'], 0, 2])
  })

  it('ends with the gate', () => {
    const { gate, events, errors, enter } = gateOf()
    for (const name of ['x0', 'a1', 'b1', 'a2']) enter(name)
    gate.close(new GatewayError('draining', ''))
    expect([events, gate.waiting]).toEqual([['x0', '-a1', '-a2', '-b1'], 0])
    expect(errors.map(({ code }) => code)).toEqual(['draining', 'draining', 'draining'])
  })
})

it('loses nobody and lets in no more than it may, whatever comes in which order', async () => {
  const steps = array(record({ act: integer({ min: 0, max: 3 }), who: integer({ min: 0, max: 3 }) }), { maxLength: 60 })
  await assert(
    asyncProperty(integer({ min: 1, max: 3 }), integer({ min: 0, max: 4 }), steps, async (max, maxWaiting, all) => {
      const gate = new Gate({ max, maxWaiting, waitMs: 3_600_000 })
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
          })
          if (ticket !== null) tickets.set(id, ticket)
        } else if (act === 2 && inside > 0) {
          inside--
          gate.leave()
        } else if (act === 3) {
          const [waiting] = tickets
          waiting?.[1].leave()
          if (waiting !== undefined) tickets.delete(waiting[0])
        }
        if (who === 0) await settle()
        expect(inside).toBeLessThanOrEqual(max)
        expect(gate.waiting).toBe(tickets.size)
        expect(gate.waiting).toBeLessThanOrEqual(maxWaiting)
      }
      await settle()
      expect(Math.max(0, ...told)).toBeLessThanOrEqual(1)
      expect(gate.taken).toBe(inside)
      expect(gate.waiting === 0 || inside === max).toBe(true)
    }),
  )
})
