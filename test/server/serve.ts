// A listener without a gateway behind it: the test is the door.

import { onTestFinished } from 'vitest'
import type { BodySink, BodyStream, Reply, RequestContext } from '../../src/core/context.ts'
import { type Listener, createListener } from '../../src/server/listener.ts'
import { listenOptions } from '../../src/server/options.ts'

export interface Served {
  readonly listener: Listener
  readonly port: number
  /** Requests that have ended, in this order. */
  readonly recorded: readonly RequestContext[]
  /** What the gateway does first when it shuts down. */
  readonly stopReuse: () => void
}

type Answer = (ctx: RequestContext) => Reply | Promise<Reply>

/** Listens until the test ends. options: as in YAML. */
export async function serve(answer: Answer, options: Readonly<Record<string, string | number>> = {}): Promise<Served> {
  const recorded: RequestContext[] = []
  let mayReuse = true
  const listener = createListener(listenOptions.parse({ address: '127.0.0.1:0', ...options }), {
    answer,
    answerNow: () => null,
    record: (ctx) => void recorded.push(ctx),
    mayReuseConnections: () => mayReuse,
    isTrusted: () => false,
  })
  const { port } = await listener.listen()
  onTestFinished(() => listener.destroy())
  return {
    listener,
    port,
    recorded,
    stopReuse: () => {
      mayReuse = false
    },
  }
}

export const text = (body: string): Reply => ({ status: 200, headers: [], body: Buffer.from(body) })

/** A body that the test writes. */
export interface Tap {
  readonly stream: BodyStream
  /** Set once somebody reads. */
  readonly sink: BodySink | null
  readonly isCancelled: boolean
}

export function createTap(): Tap {
  let sink: BodySink | null = null
  let isCancelled = false
  return {
    stream: {
      pipeTo(to) {
        sink = to
      },
      resume: () => {},
      cancel() {
        isCancelled = true
      },
    },
    get sink() {
      return sink
    },
    get isCancelled() {
      return isCancelled
    },
  }
}
