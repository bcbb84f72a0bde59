// Gives back to the system what a start has left: reading a route table and compiling the plan fill the young generation,
// and V8 keeps its pages for the next ones. That is 15 of 97 MiB, for as long as nobody asks for anything. To collect all of
// it takes 30 to 80 ms, so it waits for a second in which there is nothing to do; under load there is none, and the pages
// are in use.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

const LOOK_EVERY_MS = 1000
/** Part of a second that probes, timers and the like may take. */
const IDLE_UTILIZATION = 0.05
/** Then it is a gateway with work, whose pages are not of its start any more. */
const MAX_LOOKS = 60

/** V8's own collector; only this kind of collection shrinks the young generation. */
type Collect = (options: { readonly type: 'major'; readonly flavor: 'last-resort' }) => void

/** Looks each second for one without work, a minute long; collects once. Keeps no process alive. */
export function giveBackWhenIdle(): void {
  let looks = 0
  let before = performance.eventLoopUtilization()
  const timer = setInterval(() => {
    const now = performance.eventLoopUtilization()
    const isIdle = performance.eventLoopUtilization(now, before).utilization < IDLE_UTILIZATION
    before = now
    looks++
    if (isIdle || looks === MAX_LOOKS) clearInterval(timer)
    if (isIdle) collect()
  }, LOOK_EVERY_MS).unref()
}

/** Node has it for those contexts alone that are made while the flag stands. */
function collect(): void {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as Collect
  setFlagsFromString('--no-expose-gc')
  gc({ type: 'major', flavor: 'last-resort' })
}
