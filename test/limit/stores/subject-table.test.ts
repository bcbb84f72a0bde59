import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { NO_ENTRY, SubjectTable } from '../../../src/limit/stores/subject-table.ts'

interface Owner {
  readonly salt: number
}

const OWNERS: readonly Owner[] = [{ salt: 1 }, { salt: 2 }]

const findIn = (table: SubjectTable<Owner>, owner: Owner, subject: string) =>
  table.find(table.hash.of(subject, owner.salt), table.hash.high, owner)

function enter(table: SubjectTable<Owner>, model: Map<string, number>, owner: Owner, name: string, subject: string) {
  const low = table.hash.of(subject, owner.salt)
  if (!model.has(name) && table.hasRoom(low, 1)) model.set(name, table.add(low, table.hash.high, owner))
}

function forget(table: SubjectTable<Owner>, model: Map<string, number>, owner: Owner, name: string, subject: string) {
  const entry = findIn(table, owner, subject)
  if (entry !== NO_ENTRY) table.remove(entry)
  model.delete(name)
}

describe('the subject table', () => {
  it('agrees with a Map over any history of adding and removing', () => {
    const steps = fc.record({
      owner: fc.constantFrom(...OWNERS),
      subject: fc.string({ maxLength: 2 }),
      remove: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(steps, { maxLength: 300 }), (history) => {
        const table = new SubjectTable<Owner>(20)
        const model = new Map<string, number>()
        for (const { owner, subject, remove } of history) {
          const name = `${owner.salt} ${subject}`
          expect(findIn(table, owner, subject)).toBe(model.get(name) ?? NO_ENTRY)
          if (remove) forget(table, model, owner, name, subject)
          else enter(table, model, owner, name, subject)
          expect(findIn(table, owner, subject)).toBe(model.get(name) ?? NO_ENTRY)
          expect(table.size).toBe(model.size)
        }
        for (const [name, entry] of model) expect(table.ownerOf(entry)?.salt).toBe(Number(name[0]))
        expect(new Set(model.values()).size).toBe(model.size)
        expect(table.highWater).toBeLessThanOrEqual(20)
      }),
    )
  })

  it('has room for as many as it was made for', () => {
    const [owner] = OWNERS as [Owner]
    const table = new SubjectTable<Owner>(100_000)
    for (let i = 0; i < 100_000; i++) {
      const low = table.hash.of(`2001:db8:0:${i.toString(16)}::/64`, owner.salt)
      expect(table.hasRoom(low, 1)).toBe(true)
      table.add(low, table.hash.high, owner)
    }
    expect(table.hasRoom(table.hash.of('one more', owner.salt), 1)).toBe(false)
    expect(table.size).toBe(100_000)
  })

  it('has no room where a bucket is full, and finds all that are in it', () => {
    const [owner] = OWNERS as [Owner]
    const table = new SubjectTable<Owner>(100)
    // One bucket: the same half for all, as the worst choice of subjects would give.
    const low = 7
    let count = 0
    while (table.hasRoom(low, 1)) table.add(low, count++, owner)
    expect(count).toBe(32)
    const highs = Array.from({ length: count }, (_, i) => i)
    expect(highs.map((high) => table.find(low, high, owner))).toEqual(highs)
    expect(table.find(low, count, owner)).toBe(NO_ENTRY)
    expect(table.hasRoom(low + 1, 1)).toBe(true)
  })

  it('tells owners apart where everything else is the same', () => {
    const [a, b] = OWNERS as [Owner, Owner]
    const table = new SubjectTable<Owner>(10)
    const entries = [table.add(7, 9, a), table.add(7, 9, b)]
    expect([table.find(7, 9, a), table.find(7, 9, b)]).toEqual(entries)
    expect(new Set(entries).size).toBe(2)
  })

  it('finds the others of a bucket after any of them has gone', () => {
    const [owner] = OWNERS as [Owner]
    for (let gone = 0; gone < 5; gone++) {
      const table = new SubjectTable<Owner>(10)
      const names = neighbours(table, owner, 5)
      const entries = names.map((name) => table.add(table.hash.of(name, owner.salt), table.hash.high, owner))
      table.remove(entries[gone] as number)
      const left = entries.map((entry, i) => (i === gone ? NO_ENTRY : entry))
      expect(names.map((name) => findIn(table, owner, name))).toEqual(left)
    }
  })
})

/** Subjects of one bucket. */
function neighbours(table: SubjectTable<Owner>, owner: Owner, count: number): string[] {
  const bucketOf = (name: string) => table.hash.of(name, owner.salt) & (2 ** 14 - 1)
  const found: string[] = []
  for (let i = 0; found.length < count; i++) {
    if (bucketOf(`s${i}`) === bucketOf('s0')) found.push(`s${i}`)
  }
  return found
}
