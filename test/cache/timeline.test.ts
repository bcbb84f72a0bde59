import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { TimelineWriter, readTimeline } from '../../src/cache/timeline.ts'

function written(notes: readonly (readonly [bytes: number, nowMs: number])[]): Buffer {
  const writer = new TimelineWriter()
  for (const [bytes, nowMs] of notes) writer.note(bytes, nowMs)
  return writer.finish()
}

describe('a timeline', () => {
  it('counts from its first event, and has one step for what came within a millisecond', () => {
    const timeline = written([
      [0, 1000],
      [10, 5000.2],
      [30, 5000.9],
      [30, 6000],
      [300, 6500.5],
      [301, 6501],
    ])
    expect(readTimeline(timeline, 301)).toEqual([
      { endBytes: 30, atMs: 0 },
      { endBytes: 300, atMs: 1500 },
      { endBytes: 301, atMs: 1501 },
    ])
    expect(timeline).toHaveLength(8)
  })

  it('stands still while its clock goes back', () => {
    const steps = readTimeline(written([[1, 5000], [2, 5100], [3, 100], [4, 5200]]), 4) // prettier-ignore
    expect(steps?.at(-1)).toEqual({ endBytes: 4, atMs: 200 })
    expect(steps?.map(({ atMs }) => atMs)).toEqual(steps?.map(({ atMs }) => atMs).toSorted((a, b) => a - b))
  })

  const anyNotes = fc
    .array(fc.tuple(fc.nat(100_000), fc.nat(10_000_000)), { minLength: 1, maxLength: 60 })
    .map((gaps) => {
      let bytes = 0
      let nowMs = 1.7e12
      return gaps.map(([moreBytes, moreMs]) => [(bytes += 1 + moreBytes), (nowMs += moreMs)] as const)
    })

  it('comes back as it was', () => {
    fc.assert(
      fc.property(anyNotes, (notes) => {
        const [[, startMs]] = notes as [readonly [number, number]]
        const expected = notes
          .filter(([, nowMs], i) => notes[i + 1]?.[1] !== nowMs)
          .map(([endBytes, nowMs]) => ({ endBytes, atMs: nowMs - startMs }))
        expect(readTimeline(written(notes), notes.at(-1)?.[0] ?? 0)).toEqual(expected)
      }),
    )
  })

  it('of another body, or damaged, is none', () => {
    const timeline = written([[10, 0], [200, 50]]) // prettier-ignore
    expect(readTimeline(timeline, 200)).toHaveLength(2)
    for (const bytes of [0, 10, 199, 201]) expect(readTimeline(timeline, bytes)).toBeNull()
    for (let end = 1; end < timeline.length; end++) expect(readTimeline(timeline.subarray(0, end), 200)).toBeNull()
    expect(readTimeline(Buffer.alloc(40, 0xff), 200)).toBeNull()
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.nat(1000), (bytes, bodyBytes) => {
        const steps = readTimeline(Buffer.from(bytes), bodyBytes)
        expect(steps?.at(-1)?.endBytes ?? bodyBytes).toBe(bodyBytes)
      }),
    )
  })
})
