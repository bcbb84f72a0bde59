// Deadlines of any length under one timer. It is set for the earliest deadline there is, and left alone when that goes
// away or is put off: it then rings for nothing, looks for what is the earliest now, and is set again. Deadlines are
// nearly always put off or taken back, so in the usual case this costs a few stores each, where three timers a request
// took 2 us and filled the heap with objects that outlive a scavenge. The timer holds no process open.

/** What rings at a time. Whoever has one makes no other use of `place`. */
export interface Alarm {
  /** performance.now() at which it is due. */
  dueMs: number
  /** Where its owner keeps it; -1 while it is not set. */
  place: number
  /** Called once, and not set any more by then. */
  ring(nowMs: number): void
}

/** The longest time that setTimeout takes. */
const MAX_TIMER_MS = 2 ** 31 - 1

export class Alarms {
  readonly #set: Alarm[] = []
  #timer: NodeJS.Timeout | null = null
  #timerDueMs = Infinity

  /** Sets it, or puts it off or forward. */
  set(alarm: Alarm, dueMs: number): void {
    alarm.dueMs = dueMs
    if (alarm.place < 0) alarm.place = this.#set.push(alarm) - 1
    if (dueMs < this.#timerDueMs) this.#start(dueMs)
  }

  /** Takes it back; nothing where it is not set. */
  clear(alarm: Alarm): void {
    const { place } = alarm
    if (place < 0) return
    alarm.place = -1
    const last = this.#set.pop() as Alarm
    if (last === alarm) return
    this.#set[place] = last
    last.place = place
  }

  #start(dueMs: number): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timerDueMs = dueMs
    const restMs = Math.max(1, dueMs - performance.now())
    this.#timer = setTimeout(() => this.#ring(), Math.min(restMs, MAX_TIMER_MS)).unref()
  }

  #ring(): void {
    this.#timer = null
    this.#timerDueMs = Infinity
    const nowMs = performance.now()
    // A copy, since whoever rings may set and clear others.
    for (const alarm of this.#set.slice()) {
      // Timers fire up to a millisecond early.
      if (alarm.place < 0 || alarm.dueMs - nowMs >= 1) continue
      this.clear(alarm)
      alarm.ring(nowMs)
    }
    let earliestMs = Infinity
    for (const { dueMs } of this.#set) earliestMs = Math.min(earliestMs, dueMs)
    if (earliestMs < this.#timerDueMs) this.#start(earliestMs)
  }
}
