// Who draws on a policy the most, without a counter for everybody: the Space-Saving sketch (Metwally, Agrawal and El
// Abbadi, 2005). A subject that is not counted takes the place of the one with the least, and inherits its count as the
// most that it may be wrong by, so whoever draws much is never missing. In sets of WAYS counters, chosen by a hash: an
// addition looks at one set and no more, whatever the subjects are.
//
// It runs on every request, so beyond EXACT additions in a span only one in SAMPLED is looked at, chosen at random, and
// counts for all of them: what is told is then an estimate.
//
// What is told is of the last five to ten minutes: counters of the current span, and of the one before. Some 30 KiB for a
// policy, and texts of bounded length (key.ts).

const SPAN_MS = 300_000
const WAYS = 8
const SETS = 32
const EXACT = 10_000
/** A power of two. */
const SAMPLED = 16

export interface TopSubject {
  readonly subject: string
  /** Units asked for, those refused included. Not less than was asked for, and by `excess` more at most; estimates. */
  readonly units: number
  readonly excess: number
  /** Requests that were not admitted, since the subject is counted. */
  readonly refused: number
}

export class TopSubjects {
  #current = new Span()
  #previous = new Span()
  #endsAtMs = 0
  #added = 0
  #random = 1

  /** nowMs: wall clock. */
  add(subject: string, units: number, admitted: boolean, nowMs: number): void {
    if (nowMs >= this.#endsAtMs || nowMs < this.#endsAtMs - SPAN_MS) this.#turn(nowMs)
    if (++this.#added <= EXACT) return this.#current.add(subject, units, admitted ? 0 : 1)
    // Of a linear congruential generator, the high bits are the random ones.
    this.#random = (Math.imul(this.#random, 1_664_525) + 1_013_904_223) >>> 0
    if (this.#random >= 2 ** 32 / SAMPLED) return
    this.#current.add(subject, units * SAMPLED, admitted ? 0 : SAMPLED)
  }

  /** At most `count`, most units first. */
  list(count: number, nowMs: number): TopSubject[] {
    if (nowMs >= this.#endsAtMs) this.#turn(nowMs)
    const bySubject = new Map<string, TopSubject>()
    for (const each of [...this.#previous.rows(), ...this.#current.rows()]) {
      const { units = 0, excess = 0, refused = 0 } = bySubject.get(each.subject) ?? {}
      bySubject.set(each.subject, {
        subject: each.subject,
        units: units + each.units,
        excess: excess + each.excess,
        refused: refused + each.refused,
      })
    }
    return [...bySubject.values()].toSorted((a, b) => b.units - a.units).slice(0, count)
  }

  #turn(nowMs: number): void {
    const isNext = nowMs >= this.#endsAtMs && nowMs < this.#endsAtMs + SPAN_MS
    this.#previous = isNext ? this.#current : new Span()
    this.#current = new Span()
    this.#added = 0
    this.#endsAtMs = nowMs - (nowMs % SPAN_MS) + SPAN_MS
  }
}

class Span {
  readonly #subjects: (string | null)[] = Array.from({ length: SETS * WAYS }, () => null)
  readonly #units = new Float64Array(SETS * WAYS)
  readonly #excess = new Float64Array(SETS * WAYS)
  readonly #refused = new Float64Array(SETS * WAYS)

  add(subject: string, units: number, refused: number): void {
    const at = this.#place(subject)
    this.#units[at] = (this.#units[at] as number) + units
    this.#refused[at] = (this.#refused[at] as number) + refused
  }

  /** Where a subject is counted, from now on if it was not. */
  #place(subject: string): number {
    const start = setOf(subject) * WAYS
    let least = start
    for (let i = start; i < start + WAYS; i++) {
      if (this.#subjects[i] === subject) return i
      if ((this.#units[i] as number) < (this.#units[least] as number)) least = i
    }
    // A copy: the text may be a slice of a whole header field, which would be kept with it.
    this.#subjects[least] = ` ${subject}`.slice(1)
    this.#excess[least] = this.#units[least] as number
    this.#refused[least] = 0
    return least
  }

  *rows(): Generator<TopSubject> {
    for (const [i, subject] of this.#subjects.entries()) {
      if (subject === null) continue
      const [units, excess, refused] = [this.#units[i], this.#excess[i], this.#refused[i]] as [number, number, number]
      yield { subject, units, excess, refused }
    }
  }
}

/** FNV-1a, finished. Not seeded: whoever fills a set with made-up subjects hides there only from a list. */
function setOf(subject: string): number {
  let state = 0x811c9dc5
  for (let i = 0; i < subject.length; i++) state = Math.imul(state ^ subject.charCodeAt(i), 0x01000193)
  return (state ^ (state >>> 15)) & (SETS - 1)
}
