// What holds for every algorithm, over random histories. A new one is covered by being registered.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { blankStanding, type Algorithm, type Calendar, type Rate, WHENEVER } from '../../../src/limit/algorithm.ts'
import { ALGORITHMS } from '../../../src/limit/quota.ts'

const START_MS = 1_795_341_600_000
/** Cells lie somewhere in the middle of a store's array. */
const AT = 5

const rates = fc.record({
  limit: fc.integer({ min: 1, max: 40 }),
  windowMs: fc.integer({ min: 100, max: 5000 }),
  burst: fc.integer({ min: 1, max: 40 }),
})
const steps = fc.array(
  fc.record({
    afterMs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 1500 })),
    cost: fc.integer({ min: 1, max: 3 }),
  }),
  { maxLength: 120 },
)

/** Windows from the epoch on, one after the other. */
const calendarOf = (windowMs: number): Calendar => ({
  startMs: (nowMs) => Math.floor(nowMs / windowMs) * windowMs,
  endMs: (nowMs) => (Math.floor(nowMs / windowMs) + 1) * windowMs,
})

class Subject {
  readonly cells: Float64Array
  readonly algorithm: Algorithm
  readonly rate: Rate

  constructor(algorithm: Algorithm, rate: Omit<Rate, 'calendar'>) {
    this.algorithm = algorithm
    // Only GCRA knows a burst apart from the limit, and only the fixed window a calendar.
    this.rate = {
      ...rate,
      burst: algorithm.name === 'gcra' ? rate.burst : rate.limit,
      calendar: algorithm.name === 'fixed-window' ? calendarOf(rate.windowMs) : null,
    }
    this.cells = new Float64Array(AT + algorithm.cells + 5)
  }

  fits(cost: number, nowMs: number): boolean {
    return this.algorithm.fits(this.cells, AT, this.rate, cost, nowMs)
  }

  charge(cost: number, nowMs: number): boolean {
    if (cost > this.rate.burst || !this.fits(cost, nowMs)) return false
    this.algorithm.charge(this.cells, AT, this.rate, cost, nowMs)
    return true
  }

  settle(delta: number, chargedAtMs: number, nowMs: number): void {
    this.algorithm.settle(this.cells, AT, this.rate, delta, chargedAtMs, nowMs)
  }

  measure(cost: number, nowMs: number) {
    const standing = blankStanding()
    this.algorithm.measure(this.cells, AT, this.rate, cost, nowMs, standing)
    return standing
  }

  /** Charges the whole history; answers the time after it. */
  live(history: readonly { afterMs: number; cost: number }[]): number {
    let nowMs = START_MS
    for (const { afterMs, cost } of history) this.charge(cost, (nowMs += afterMs))
    return nowMs
  }

  copy(): Subject {
    const copy = new Subject(this.algorithm, this.rate)
    copy.cells.set(this.cells)
    return copy
  }
}

describe.each(ALGORITHMS.map((algorithm) => ({ name: algorithm.name, algorithm })))('$name', ({ algorithm }) => {
  const always = (check: (subject: Subject, nowMs: number) => void) =>
    fc.assert(
      fc.property(rates, steps, (rate, history) => {
        const subject = new Subject(algorithm, rate)
        check(subject, subject.live(history))
      }),
      { numRuns: 300 },
    )

  it('takes zeros for a subject that has used nothing', () => {
    fc.assert(
      fc.property(rates, (rate) => {
        const subject = new Subject(algorithm, rate)
        expect(subject.fits(subject.rate.burst, START_MS)).toBe(true)
        expect(subject.measure(1, START_MS)).toMatchObject({
          remaining: subject.rate.burst,
          waitMs: 0,
          nextMs: 0,
          fullMs: 0,
        })
      }),
    )
  })

  it('leaves exactly the cost less after a charge', () => {
    always((subject, nowMs) => {
      const before = subject.measure(1, nowMs).remaining
      const charged = subject.charge(1, nowMs)
      expect(charged).toBe(before > 0)
      expect(subject.measure(1, nowMs).remaining).toBe(charged ? before - 1 : 0)
    })
  })

  it('says the same however often it is asked', () => {
    always((subject, nowMs) => {
      const first = subject.measure(1, nowMs)
      subject.fits(1, nowMs)
      expect(subject.measure(1, nowMs)).toEqual(first)
      expect(subject.copy().measure(1, nowMs)).toEqual(first)
    })
  })

  it('fits a cost after exactly the wait it names, and not a millisecond sooner', () => {
    fc.assert(
      fc.property(rates, steps, fc.integer({ min: 1, max: 40 }), (rate, history, cost) => {
        const subject = new Subject(algorithm, rate)
        fc.pre(cost <= subject.rate.burst)
        const nowMs = subject.live(history)
        const { waitMs } = subject.measure(cost, nowMs)
        expect(subject.fits(cost, nowMs)).toBe(waitMs === 0)
        expect(subject.copy().fits(cost, nowMs + Math.max(0, waitMs - 1))).toBe(waitMs === 0)
        expect(subject.copy().fits(cost, nowMs + waitMs)).toBe(true)
      }),
      { numRuns: 500 },
    )
  })

  it('has one unit more after exactly the time it names', () => {
    always((subject, nowMs) => {
      subject.charge(1, nowMs)
      const { remaining, nextMs } = subject.measure(1, nowMs)
      expect(nextMs).toBeGreaterThan(0)
      expect(subject.copy().measure(1, nowMs + nextMs - 1).remaining).toBe(remaining)
      expect(subject.copy().measure(1, nowMs + nextMs).remaining).toBeGreaterThan(remaining)
    })
  })

  it('is as good as new from exactly the time it names', () => {
    always((subject, nowMs) => {
      subject.charge(1, nowMs)
      const { fullMs } = subject.measure(1, nowMs)
      expect(subject.copy().measure(1, nowMs + fullMs)).toMatchObject({ remaining: subject.rate.burst, fullMs: 0 })
      expect(subject.algorithm.fullAtMs(subject.cells, AT, subject.rate)).toBe(nowMs + fullMs)
      expect(subject.copy().measure(1, nowMs + fullMs - 1).fullMs).toBe(1)
    })
  })

  it('is as if it had never been where all of a charge is given back at once', () => {
    fc.assert(
      fc.property(rates, steps, fc.integer({ min: 1, max: 3 }), (rate, history, cost) => {
        const subject = new Subject(algorithm, rate)
        const nowMs = subject.live(history)
        const before = subject.copy()
        fc.pre(subject.charge(cost, nowMs))
        subject.settle(-cost, nowMs, nowMs)
        expect(subject.measure(1, nowMs)).toEqual(before.measure(1, nowMs))
      }),
    )
  })

  /** Charges, some of them given back later, each once; to what they leave, and what they leave without those. */
  const lateHistory = (afterMs: fc.Arbitrary<number>, maxLength: number) =>
    fc.array(
      fc.record({
        afterMs,
        cost: fc.integer({ min: 1, max: 3 }),
        /** Null: it counts. */
        backAfterMs: fc.option(fc.integer({ min: 0, max: 4000 })),
      }),
      { maxLength },
    )
  type LateHistory = ReturnType<typeof lateHistory> extends fc.Arbitrary<infer T> ? T : never
  type LateEvent = { readonly atMs: number; readonly cost: number; readonly backAtMs: number | null }

  function liveLate(rate: Omit<Rate, 'calendar'>, history: LateHistory) {
    const subject = new Subject(algorithm, rate)
    const charged: LateEvent[] = []
    const due = (untilMs: number) => {
      const now = charged.filter(({ backAtMs }) => backAtMs !== null && backAtMs <= untilMs)
      for (const each of now.toSorted((a, b) => (a.backAtMs as number) - (b.backAtMs as number))) {
        subject.settle(-each.cost, each.atMs, each.backAtMs as number)
        charged.splice(charged.indexOf(each), 1)
      }
    }
    let nowMs = START_MS
    const counted: LateEvent[] = []
    for (const { afterMs, cost, backAfterMs } of history) {
      nowMs += afterMs
      due(nowMs)
      if (!subject.charge(cost, nowMs)) continue
      const event = { atMs: nowMs, cost, backAtMs: backAfterMs === null ? null : nowMs + backAfterMs }
      if (event.backAtMs === null) counted.push(event)
      else charged.push(event)
    }
    const endMs = nowMs + 4001
    due(endMs)
    const never = new Subject(algorithm, rate)
    for (const { atMs, cost } of counted) never.algorithm.charge(never.cells, AT, never.rate, cost, atMs)
    return { subject, never, nowMs: endMs }
  }

  it('gives back late, whatever came between, never more than as if it had not been charged', () => {
    const gaps = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 900 }))
    fc.assert(
      fc.property(rates, lateHistory(gaps, 100), (rate, history) => {
        const { subject, never, nowMs } = liveLate(rate, history)
        const [left, leftThen] = [subject, never].map((each) => each.measure(1, nowMs))
        expect(left?.remaining).toBeLessThanOrEqual(leftThen?.remaining as number)
        expect(left?.fullMs).toBeGreaterThanOrEqual(leftThen?.fullMs as number)
        // Windows remember all; a bucket remembers a few lows.
        expect(algorithm.name === 'gcra' ? leftThen : left).toEqual(leftThen)
      }),
      { numRuns: 1000 },
    )
  })

  it('gives back late all that is still counted, where not much came between', () => {
    const gaps = fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 900 }))
    fc.assert(
      fc.property(rates, lateHistory(gaps, 4), fc.integer({ min: 0, max: 4000 }), (rate, history, sooner) => {
        const soon = history.map((each) => ({
          ...each,
          backAfterMs: each.backAfterMs && each.backAfterMs % (sooner + 1),
        }))
        const { subject, never, nowMs } = liveLate(rate, soon)
        expect(subject.measure(1, nowMs)).toEqual(never.measure(1, nowMs))
      }),
      { numRuns: 1000 },
    )
  })

  it('gives as much back in two parts as in one', () => {
    fc.assert(
      fc.property(rates, steps, fc.nat(20), fc.nat(20), fc.nat(6000), (rate, history, one, other, agoMs) => {
        const subject = new Subject(algorithm, rate)
        const nowMs = subject.live(history)
        const atOnce = subject.copy()
        for (const units of [one, other]) if (units > 0) subject.settle(-units, nowMs - agoMs, nowMs)
        if (one + other > 0) atOnce.settle(-one - other, nowMs - agoMs, nowMs)
        expect(subject.cells).toEqual(atOnce.cells)
      }),
      { numRuns: 500 },
    )
  })

  it('gives back whenever it was taken just what is asked for, of a debt too, and not below zero', () => {
    fc.assert(
      fc.property(rates, steps, fc.nat(60), fc.integer({ min: 1, max: 80 }), (rate, history, debt, units) => {
        const subject = new Subject(algorithm, rate)
        const nowMs = subject.live(history)
        if (debt > 0) subject.settle(debt, nowMs, nowMs)
        // How much is used: what has to be given back until nothing is.
        const usedOf = (each: Subject): number => {
          const rest = each.copy()
          for (let used = 0; ; used++) {
            if (rest.measure(1, nowMs).fullMs === 0) return used
            rest.settle(-1, WHENEVER, nowMs)
          }
        }
        const used = usedOf(subject)
        subject.settle(-units, WHENEVER, nowMs)
        expect(usedOf(subject)).toBe(Math.max(0, used - units))
      }),
      { numRuns: 300 },
    )
  })

  it('gives back no more than was used, whatever is asked for, and never raises what is left above the limit', () => {
    fc.assert(
      fc.property(
        rates,
        steps,
        fc.integer({ min: 1, max: 100 }),
        fc.integer({ min: 0, max: 8000 }),
        (rate, history, units, agoMs) => {
          const subject = new Subject(algorithm, rate)
          const nowMs = subject.live(history)
          const before = subject.measure(1, nowMs).remaining
          subject.settle(-units, nowMs - agoMs, nowMs)
          const after = subject.measure(1, nowMs).remaining
          expect(after).toBeGreaterThanOrEqual(before)
          expect(after).toBeLessThanOrEqual(Math.min(subject.rate.burst, before + units))
          // A later charge leaves as much as one of that size would.
          const charged = subject.charge(1, nowMs)
          expect(subject.measure(1, nowMs).remaining).toBe(charged ? after - 1 : 0)
        },
      ),
      { numRuns: 300 },
    )
  })

  it('gives nothing back of what has long been given back by time', () => {
    fc.assert(
      fc.property(rates, steps, (rate, history) => {
        const subject = new Subject(algorithm, rate)
        subject.charge(1, START_MS)
        const laterMs = START_MS + subject.measure(1, START_MS).fullMs + 1
        let nowMs = laterMs
        for (const { afterMs, cost } of history) subject.charge(cost, (nowMs += afterMs))
        const before = subject.copy()
        subject.settle(-1, START_MS, nowMs)
        expect(subject.measure(1, nowMs)).toEqual(before.measure(1, nowMs))
      }),
      { numRuns: 300 },
    )
  })

  it('takes a debt beyond the limit, and admits nothing until it is paid off', () => {
    fc.assert(
      fc.property(rates, fc.integer({ min: 1, max: 60 }), fc.integer({ min: 0, max: 3000 }), (rate, debt, lateMs) => {
        const subject = new Subject(algorithm, rate)
        subject.charge(1, START_MS)
        const nowMs = START_MS + lateMs
        const before = subject.measure(1, nowMs).remaining
        subject.settle(debt, START_MS, nowMs)
        const { remaining, waitMs, fullMs } = subject.measure(1, nowMs)
        expect(remaining).toBe(Math.max(0, before - debt))
        expect(subject.fits(1, nowMs)).toBe(before > debt)
        expect(subject.copy().fits(1, nowMs + Math.max(0, waitMs - 1))).toBe(waitMs === 0)
        expect(subject.copy().fits(1, nowMs + waitMs)).toBe(true)
        expect(subject.copy().measure(1, nowMs + fullMs).remaining).toBe(subject.rate.burst)
        expect(subject.algorithm.fullAtMs(subject.cells, AT, subject.rate)).toBe(nowMs + fullMs)
      }),
      { numRuns: 300 },
    )
  })

  it('has paid off any debt after eleven windows', () => {
    const subject = new Subject(algorithm, { limit: 5, windowMs: 1000, burst: 5 })
    subject.settle(999_999_999, START_MS, START_MS)
    expect(subject.fits(1, START_MS)).toBe(false)
    expect(subject.fits(1, START_MS + 11_000)).toBe(true)
  })

  it('touches no cell but its own', () => {
    always((subject) => {
      expect([...subject.cells.subarray(0, AT)]).toEqual([0, 0, 0, 0, 0])
      expect([...subject.cells.subarray(AT + algorithm.cells)]).toEqual([0, 0, 0, 0, 0])
    })
  })

  it.each([1, 50, 1000, 3_600_000, START_MS - 1])(
    'keeps nobody out for longer than a window and a slice when the clock steps back %i ms, however much they hammer',
    (backMs) => {
      const subject = new Subject(algorithm, { limit: 7, windowMs: 1000, burst: 3 })
      for (let i = 0; i < 10; i++) subject.charge(1, START_MS)
      const steppedMs = START_MS - backMs
      let waitedMs = 0
      while (waitedMs <= 1100 && !subject.fits(1, steppedMs + waitedMs)) waitedMs += 10
      expect(waitedMs).toBeLessThanOrEqual(1100)
    },
  )

  it('forgets no use when the clock steps back', () => {
    const subject = new Subject(algorithm, { limit: 7, windowMs: 1000, burst: 3 })
    for (let i = 0; i < 10; i++) subject.charge(1, START_MS)
    expect(subject.fits(1, START_MS - 3_600_000)).toBe(false)
    expect(subject.measure(1, START_MS - 3_600_000).remaining).toBe(0)
  })

  it('keeps what was used when the limit is raised, and is over it when the limit is lowered', () => {
    const subject = new Subject(algorithm, { limit: 8, windowMs: 1000, burst: 8 })
    for (let i = 0; i < 6; i++) subject.charge(1, START_MS)
    const remaining = (limit: number) => {
      const changed = new Subject(algorithm, { limit, windowMs: 1000, burst: limit })
      changed.cells.set(subject.cells)
      return changed.measure(1, START_MS).remaining
    }
    expect([8, 20, 4, 1].map(remaining)).toEqual([2, 14, 0, 0])
  })

  it('lets a subject over a lowered limit in again within a window and a slice', () => {
    const before = new Subject(algorithm, { limit: 1000, windowMs: 1000, burst: 1000 })
    for (let i = 0; i < 1000; i++) before.charge(1, START_MS)
    const after = new Subject(algorithm, { limit: 2, windowMs: 1000, burst: 2 })
    after.cells.set(before.cells)
    const { waitMs } = after.measure(1, START_MS)
    expect(waitMs).toBeGreaterThan(0)
    expect(waitMs).toBeLessThanOrEqual(1100)
    expect(after.copy().fits(1, START_MS + waitMs - 1)).toBe(false)
    expect(after.fits(1, START_MS + waitMs)).toBe(true)
  })
})
