// A stored stream sent again at the pace at which it came, for clients that show its events as they come: the same bytes,
// cut where its events were. What waits is one timer for each reply; a client without room holds it back, and gets all that
// is due by then at once when it has some.

import type { BodySink, BodyStream, ReplyBody } from '../core/context.ts'
import { type Step, readTimeline } from './timeline.ts'

export interface Pace {
  /** How many times as fast as it came. */
  readonly speed: number
  /** No gap takes longer, nor does all of it, for which all gaps shrink alike. */
  readonly maxGapMs: number
  readonly maxTotalMs: number
}

/** timeline: of this body. */
export function pacedBody(body: Buffer, timeline: Buffer, pace: Pace): ReplyBody {
  const steps = readTimeline(timeline, body.length)
  return steps === null || steps.length < 2 ? body : new PacedBody(body, paced(steps, pace))
}

/** The same steps, each when it is due. */
function paced(steps: readonly Step[], { speed, maxGapMs, maxTotalMs }: Pace): readonly Step[] {
  let cameMs = 0
  let atMs = 0
  const eased = steps.map((step) => {
    atMs += Math.min((step.atMs - cameMs) / speed, maxGapMs)
    cameMs = step.atMs
    return { endBytes: step.endBytes, atMs }
  })
  if (atMs <= maxTotalMs) return eased
  const share = maxTotalMs / atMs
  return eased.map(({ endBytes, atMs: dueMs }) => ({ endBytes, atMs: dueMs * share }))
}

class PacedBody implements BodyStream {
  readonly #body: Buffer
  readonly #steps: readonly Step[]
  #sink: BodySink | null = null
  #hasRoom = true
  #isFlowing = false
  #startedAtMs = 0
  #next = 0
  #sentBytes = 0
  #timer: NodeJS.Timeout | null = null

  constructor(body: Buffer, steps: readonly Step[]) {
    this.#body = body
    this.#steps = steps
  }

  pipeTo(sink: BodySink): void {
    this.#sink = sink
    this.#startedAtMs = performance.now()
    this.#flow()
  }

  resume(): void {
    this.#hasRoom = true
    this.#flow()
  }

  cancel(): void {
    this.#sink = null
    this.#stopTimer()
  }

  #flow(): void {
    // A sink that asks for more while it is being given some is served by the loop that is already running.
    if (this.#isFlowing) return
    this.#isFlowing = true
    while (this.#sink !== null && this.#hasRoom && this.#next < this.#steps.length) {
      const endBytes = this.#passDue()
      if (endBytes === this.#sentBytes) {
        this.#wait()
        break
      }
      const due = this.#body.subarray(this.#sentBytes, endBytes)
      this.#sentBytes = endBytes
      this.#hasRoom = false
      if (this.#sink.write(due)) this.#hasRoom = true
    }
    this.#isFlowing = false
    if (this.#next < this.#steps.length) return
    const sink = this.#sink
    this.#sink = null
    sink?.end()
  }

  /** Passes all steps that are due, and answers where they end. Timers fire up to a millisecond early. */
  #passDue(): number {
    const nowMs = performance.now() - this.#startedAtMs
    let endBytes = this.#sentBytes
    for (; this.#next < this.#steps.length; this.#next++) {
      const step = this.#steps[this.#next] as Step
      if (step.atMs - nowMs >= 1) break
      endBytes = step.endBytes
    }
    return endBytes
  }

  #wait(): void {
    this.#stopTimer()
    const { atMs } = this.#steps[this.#next] as Step
    const restMs = Math.max(1, this.#startedAtMs + atMs - performance.now())
    this.#timer = setTimeout(() => this.#flow(), restMs)
  }

  #stopTimer(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }
}
