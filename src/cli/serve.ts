// A gateway as a process: signals, reloads, and what happens to a fault that nobody caught (log once, let answers in
// flight finish, exit 1; never carry on). Everything is tied before the gateway starts, so a signal in the middle of the
// start ends it as it would later, and no change of the file is missed.

import { setFlagsFromString } from 'node:v8'
import { readConfig } from '../config/load.ts'
import { watchConfig } from '../config/watch.ts'
import { type Addresses, createGateway } from '../gateway.ts'
import { EXIT } from './files.ts'

/** After a fault that nobody caught, answers in flight get this long. The state of the process is unknown by then. */
const FAULT_GRACE_MS = 2000
/** A terminal signals the whole process group, and npm passes its own on to its child: one Ctrl-C may come twice. */
const SAME_KEYPRESS_MS = 100

/** V8 learns which kinds of objects live long, and allocates those among the old ones at once. What a request leaves is dead
 *  soon, but while a start is busy much of it outlives a collection, and from then on all of its kind, and whatever that
 *  refers to, waited for the next full one: 5.5 of the 20 KB that a forwarded request allocates, and 14 us of its CPU. Without
 *  it is 45 bytes and 1 us. */
const ALLOCATE_AS_YOUNG = '--no-allocation-site-pretenuring'

/** Node has these behind getters, and V8 calls those each time; a request uses them some 25 times. */
const GLOBALS = ['performance', 'Buffer'] as const

export interface ServeOptions {
  /** The route table; watched. */
  readonly file: string
  readonly env: NodeJS.ProcessEnv
  /** What SIGHUP means: it is also what a terminal sends when it is closed. */
  readonly onHangup: 'reload' | 'end'
  /** Ends what runs beside the gateway, after it. */
  readonly beforeExit?: () => Promise<void>
}

/** Starts a gateway and runs it until the process ends: SIGTERM and SIGINT drain, a second one ends at once, a change of
 *  the file reloads. Resolves when both ports listen; rejects with InvalidConfig, or where it cannot listen. Once per
 *  process. */
export async function serve({ file, env, onHangup, beforeExit = async () => {} }: ServeOptions): Promise<Addresses> {
  setFlagsFromString(ALLOCATE_AS_YOUNG)
  for (const name of GLOBALS) {
    Object.defineProperty(globalThis, name, { value: globalThis[name], writable: true, configurable: true })
  }
  let endingSinceMs: number | null = null
  let failed = false

  const end = async (signal: NodeJS.Signals): Promise<void> => {
    const nowMs = performance.now()
    if (endingSinceMs !== null || failed) {
      if (signal !== 'SIGTERM' && nowMs - (endingSinceMs ?? 0) < SAME_KEYPRESS_MS) return
      process.exit(EXIT.fault)
    }
    endingSinceMs = nowMs
    watcher.close()
    // A start that fails ends the process in its own words.
    const isListening = await started.then(
      () => true,
      () => false,
    )
    if (!isListening) return
    await gateway.drain()
    await beforeExit()
    process.exit(EXIT.ok)
  }
  const fail = async (fault: unknown): Promise<void> => {
    if (failed) return
    failed = true
    // Should the end itself be at fault.
    setTimeout(() => process.exit(EXIT.fault), 2 * FAULT_GRACE_MS)
    await gateway.fail(fault, FAULT_GRACE_MS)
    process.exit(EXIT.fault)
  }
  process.on('SIGTERM', () => void end('SIGTERM'))
  process.on('SIGINT', () => void end('SIGINT'))
  process.on('SIGHUP', () => void (onHangup === 'end' ? end('SIGHUP') : gateway.reload()))
  process.on('uncaughtException', (error) => void fail(error))
  process.on('unhandledRejection', (reason) => void fail(reason))

  const watcher = watchConfig(file, () => void gateway.reload())
  const gateway = createGateway({ load: () => readConfig(file, env) })
  const started = gateway.start()
  return started
}
