// A wire that takes its time: a TCP relay to a port of this machine which holds every byte for so long, in both directions. It
// runs as a process of its own, so that it does not wait behind what is measured, and while something is on the wire it
// polls: a timer of Node is late by up to a millisecond, which is as much as is to be held.

import { fork } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, type Socket, connect, createServer } from 'node:net'

export interface SlowWire {
  readonly port: number
  readonly close: () => void
}

/** holdMs: one way. */
export async function startSlowWire(targetPort: number, holdMs: number): Promise<SlowWire> {
  const child = fork(import.meta.filename, [String(targetPort), String(holdMs)])
  const [port] = (await once(child, 'message')) as [number]
  return { port, close: () => void child.kill() }
}

function relay(targetPort: number, holdMs: number): void {
  /** In the order in which it is due: all is held for the same time. */
  const onTheWire: { readonly dueMs: number; readonly to: Socket; readonly bytes: string | Buffer }[] = []

  function deliver(): void {
    const nowMs = performance.now()
    while (onTheWire[0] !== undefined && onTheWire[0].dueMs <= nowMs) {
      const { to, bytes } = onTheWire.shift() as (typeof onTheWire)[number]
      to.write(bytes)
    }
    if (onTheWire.length > 0) setImmediate(deliver)
  }

  const server = createServer((client) => {
    const target = connect(targetPort, '127.0.0.1')
    for (const [from, to] of [
      [client, target],
      [target, client],
    ] as const) {
      from.setNoDelay()
      from.on('data', (bytes) => {
        if (onTheWire.push({ dueMs: performance.now() + holdMs, to, bytes }) === 1) setImmediate(deliver)
      })
      from.on('error', () => to.destroy())
      from.on('close', () => to.destroy())
    }
  })
  server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port))
  // The wire goes with whoever has laid it.
  process.once('disconnect', () => process.exit())
}

if (import.meta.main) relay(Number(process.argv[2]), Number(process.argv[3]))
