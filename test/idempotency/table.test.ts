import { beforeEach, describe, expect, it } from 'vitest'
import { KeyTable, type Standing } from '../../src/idempotency/table.ts'

const HOUR_MS = 3_600_000
const never = new Promise<never>(() => {})
const answered = (bytes: number): Standing => ({
  state: 'answered',
  answer: { status: 200, headers: [], body: Buffer.alloc(bytes) },
})

let nowMs = 0
let table: KeyTable
beforeEach(() => {
  nowMs = 1_000_000
  table = new KeyTable({ maxBytes: 1000, maxKeys: 5 }, () => nowMs)
})

const begin = (id: string) => table.begin(id, 'print', { state: 'running', ended: never, claiming: null })
const put = (id: string, standing: Standing | null = { state: 'unknown' }, forMs = HOUR_MS): void => {
  const kept = begin(id)
  if (kept === null) throw new Error('no room')
  table.settle(id, kept, standing, forMs)
}
const stateOf = (id: string): string | null => table.find(id)?.standing.state ?? null

describe('a key', () => {
  it('is remembered for its time from the end of its request, and while that is under way', () => {
    const kept = begin('a')
    nowMs += 10 * HOUR_MS
    expect(stateOf('a')).toBe('running')
    table.settle('a', kept as NonNullable<typeof kept>, answered(10), HOUR_MS)
    nowMs += HOUR_MS - 1
    expect(stateOf('a')).toBe('answered')
    nowMs++
    expect(stateOf('a')).toBeNull()
    expect([table.keys, table.bytes]).toEqual([0, 0])
  })

  it('is free where nothing came of it', () => {
    put('a', null)
    expect([stateOf('a'), table.keys]).toEqual([null, 0])
  })

  it('is not settled by who has begun before', () => {
    const first = begin('a') as NonNullable<ReturnType<typeof begin>>
    const second = begin('a') as NonNullable<ReturnType<typeof begin>>
    table.settle('a', first, null, HOUR_MS)
    expect(table.find('a')).toBe(second)
  })

  it('that has expired goes with the next ones, asked for or not', () => {
    for (const id of ['a', 'b', 'c']) put(id, answered(100))
    nowMs += HOUR_MS
    for (const id of ['d', 'e']) put(id)
    expect([table.keys, table.bytes]).toEqual([2, 0])
    expect(table.dropped).toEqual({ answers: 0, keys: 0 })
  })
})

describe('where there is too much', () => {
  it('the oldest answers go, and their keys stay', () => {
    for (const id of ['a', 'b', 'c']) put(id, answered(400))
    expect(['a', 'b', 'c'].map(stateOf)).toEqual(['not_kept', 'answered', 'answered'])
    expect([table.bytes, table.dropped.answers]).toEqual([800, 1])
    put('d', answered(1001))
    expect(['b', 'c', 'd'].map(stateOf)).toEqual(['not_kept', 'not_kept', 'not_kept'])
    expect(table.bytes).toBe(0)
  })

  it('answers that are being recorded take the place of old ones, and not of each other', () => {
    put('a', answered(600))
    expect(table.hold(700)).toBe(true)
    expect([stateOf('a'), table.bytes]).toEqual(['not_kept', 700])
    expect(table.hold(301)).toBe(false)
    expect(table.bytes).toBe(700)
    table.release(700)
    expect(table.bytes).toBe(0)
  })

  it('the oldest keys go, but none of a request under way', () => {
    begin('running')
    for (const id of ['a', 'b', 'c', 'd']) put(id, answered(1))
    put('e')
    expect(['running', 'a', 'b', 'e'].map(stateOf)).toEqual(['running', null, 'answered', 'unknown'])
    expect([table.keys, table.bytes, table.dropped.keys]).toEqual([5, 3, 1])
  })

  it('nothing begins while all are under way', () => {
    for (const id of ['a', 'b', 'c', 'd', 'e']) begin(id)
    expect(begin('f')).toBeNull()
    expect(stateOf('a')).toBe('running')
  })

  it('by a reload, what is beyond it goes', () => {
    for (const id of ['a', 'b', 'c', 'd']) put(id, answered(200))
    table.resize({ maxBytes: 450, maxKeys: 3 })
    expect(['a', 'b', 'c', 'd'].map(stateOf)).toEqual([null, 'not_kept', 'answered', 'answered'])
  })
})
