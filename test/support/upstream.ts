// The upstream side on its own: a pool from the options that YAML would give, requests without a client, and a reader
// that keeps what it was told.

import { Readable } from 'node:stream'
import type { BodySink, BodyStream, RequestBody } from '../../src/core/context.ts'
import type { GatewayError } from '../../src/core/errors.ts'
import type { AttemptAnswer } from '../../src/upstream/fetch.ts'
import { resolveTimeouts } from '../../src/upstream/forward.ts'
import { upstreamOptions } from '../../src/upstream/options.ts'
import { systemLookup } from '../../src/upstream/resolve.ts'
import { type UpstreamPool, createPool } from '../../src/upstream/pool.ts'
import { UpstreamFetch, type UpstreamRequest } from '../../src/upstream/retry.ts'

export interface TestPool {
  readonly pool: UpstreamPool
  /** Requests that the pool holds, in line or on a connection. */
  readonly held: number
  fetch(request?: Partial<UpstreamRequest>): UpstreamFetch<AttemptAnswer>
  close(): Promise<void>
}

/** options: as in YAML, without targets. */
export function openPool(targets: readonly string[], options: Record<string, unknown> = {}): TestPool {
  const parsed = upstreamOptions.parse({ targets, ...options })
  const timeouts = resolveTimeouts(parsed.timeouts)
  const pool = createPool({
    name: 'app',
    options: parsed,
    connectMs: timeouts.connectMs,
    out: new Set(),
    lookup: systemLookup,
    tell: () => {},
    coolDowns: null,
  })
  return {
    pool,
    get held() {
      return pool.status().targets.reduce((sum, target) => sum + target.in_flight + target.queued, 0)
    },
    fetch: (request) =>
      new UpstreamFetch(
        pool,
        { ...PLAIN, ...request },
        { timeouts, retries: parsed.retries, refusals: parsed.refusals },
        (answer) => answer,
      ),
    close: () => pool.destroy(),
  }
}

const PLAIN: UpstreamRequest = {
  method: 'GET',
  path: '/',
  headers: ['Host', 'a'],
  body: null,
  maxBodyBytes: 1024 * 1024,
  relayInterim: null,
  isLenient: false,
  hash: null,
  isHandshake: false,
  hasStandIn: false,
  onSent: null,
  onAttempts: () => {},
  onUnsent: () => {},
  client: '192.0.2.1',
}

export interface TestBody extends RequestBody {
  readonly opened: number
  /** What was opened, the last one. */
  readonly stream: Readable | null
}

/** chunks: undefined leaves it open without end. */
export function testBody(chunks?: readonly string[]): TestBody {
  let opened = 0
  let stream: Readable | null = null
  return {
    declaredBytes: null,
    get opened() {
      return opened
    },
    get stream() {
      return stream
    },
    open() {
      opened++
      stream =
        chunks === undefined ? new Readable({ read() {} }) : Readable.from(chunks.map((chunk) => Buffer.from(chunk)))
      return stream
    },
  }
}

/** The code of a fetch's failure; fails when there is an answer. */
export async function failureOf({ answer }: Pick<UpstreamFetch<unknown>, 'answer'>): Promise<string> {
  try {
    await answer
  } catch (error) {
    return (error as GatewayError).code
  }
  throw new Error('expected no answer')
}

/** What a sink was told: text, then `end` or `fail:` and the code. */
export interface TestSink extends BodySink {
  readonly calls: readonly string[]
  readonly text: string
  /** Resolves when the body has ended, well or not. */
  readonly over: Promise<void>
}

/** room: what the n-th write answers. */
export function testSink(room: (count: number) => boolean = () => true): TestSink {
  const calls: string[] = []
  let text = ''
  let writes = 0
  let finish = (): void => {}
  const over = new Promise<void>((resolve) => (finish = resolve))
  return {
    calls,
    over,
    get text() {
      return text
    },
    write(chunk) {
      calls.push('write')
      text += chunk.toString('latin1')
      return room(++writes)
    },
    end() {
      calls.push('end')
      finish()
    },
    fail(error) {
      calls.push(`fail:${error.code}`)
      finish()
    },
  }
}

/** The text of a body that has come whole; fails when it is still coming or none. */
export function textOf(body: Buffer | BodyStream | null): string {
  if (!Buffer.isBuffer(body)) throw new Error('expected a whole body')
  return body.toString('latin1')
}

/** The body as a stream; fails when it came whole or is none. */
export function streamOf(body: Buffer | BodyStream | null): BodyStream {
  if (body === null || Buffer.isBuffer(body)) throw new Error('expected a body that is still coming')
  return body
}
