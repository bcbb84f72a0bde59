// A route's idempotency between an upstream that a test answers by hand and clients without sockets.

import { Readable } from 'node:stream'
import { type HeaderList, type Reply, type ReplyBody, RequestContext } from '../../src/core/context.ts'
import type { GatewayError } from '../../src/core/errors.ts'
import { type Idempotency, createIdempotency } from '../../src/idempotency/idempotency.ts'
import { compileIdempotency } from '../../src/idempotency/route.ts'
import { compileKeyNames } from '../../src/idempotency/key.ts'
import { idempotencyOptions } from '../../src/idempotency/options.ts'
import type { SharedKeys } from '../../src/idempotency/redis.ts'
import { HandBody, NotingSink } from './body.ts'
import { settle } from './cache.ts'

/** A request that has arrived at the upstream. */
export interface Call {
  readonly ctx: RequestContext
  answer(status: number, body?: string | null, headers?: HeaderList): void
  /** Answers with a body that is sent by hand. */
  stream(status: number, headers?: HeaderList): HandBody
  fail(error: GatewayError): void
}

export interface KeyedRequest {
  readonly user?: string | null
  readonly key?: string | null
  readonly body?: string
  readonly method?: string
  readonly address?: string
  /** Its body as it comes, in place of a whole one. */
  readonly stream?: Readable
}

/** A client's request and what became of it. */
export interface KeyedAsking {
  readonly ctx: RequestContext
  /** `200 body`, with `again` behind it where it was replayed; `broken`, or the code of its failure. Null while it waits. */
  readonly outcome: string | null
  abort(): void
}

export interface KeyBench {
  readonly idempotency: Idempotency
  readonly calls: readonly Call[]
  nowMs: number
  ask(request?: KeyedRequest): KeyedAsking
}

export interface KeyBenchOptions {
  readonly maxBytes?: number
  readonly maxKeys?: number
  readonly shared?: SharedKeys | null
  /** Called with each call as it arrives. */
  readonly onCall?: (call: Call) => void
}

export function createKeyBench(
  route: Record<string, unknown> = {},
  { maxBytes = 1024 ** 2, maxKeys = 1000, shared = null, onCall = () => {} }: KeyBenchOptions = {},
): KeyBench {
  const calls: Call[] = []
  let nowMs = Date.UTC(2026, 10, 22)
  const idempotency = createIdempotency({
    bounds: { maxBytes, maxKeys },
    shared,
    names: compileKeyNames('a secret'),
    now: () => nowMs,
  })
  const options = idempotencyOptions.parse(route)
  if (options === null) throw new Error('switched off')
  const { before } = compileIdempotency({
    options,
    idempotency,
    maxBodyBytes: 1024 ** 2,
    userOf: ({ user }) => user?.id ?? null,
  })
  const stage = before((ctx) => {
    const { promise, resolve, reject } = Promise.withResolvers<Reply>()
    const answerWith = (status: number, headers: HeaderList, body: ReplyBody): void =>
      resolve({ status, headers, body })
    const call: Call = {
      ctx,
      answer: (status, body = 'done', headers = []) =>
        answerWith(status, headers, body === null ? null : Buffer.from(body)),
      stream(status, headers = []) {
        const body = new HandBody()
        answerWith(status, headers, body)
        return body
      },
      fail: reject,
    }
    calls.push(call)
    onCall(call)
    return promise
  })
  return {
    idempotency,
    calls,
    get nowMs() {
      return nowMs
    },
    set nowMs(next) {
      nowMs = next
    },
    ask(request) {
      const ctx = requestOf(request)
      let outcome: string | null = null
      let body: ReplyBody = null
      const read = async (): Promise<void> => {
        const reply = await stage(ctx)
        ;({ body } = reply)
        const again = reply.headers.includes('Idempotency-Replayed') ? ' again' : ''
        const tell = (text: string): void => void (outcome = `${reply.status} ${text}${again}`)
        if (body === null || Buffer.isBuffer(body)) return tell(String(body ?? ''))
        if (ctx.aborted) return body.cancel()
        const sink = new NotingSink()
        const watched = {
          write: (chunk: Buffer) => sink.write(chunk),
          end: () => tell(sink.text),
          fail: () => void (outcome = 'broken'),
        }
        body.pipeTo(watched)
      }
      read().catch((error: unknown) => {
        outcome = (error as GatewayError).code
      })
      return {
        ctx,
        get outcome() {
          return outcome
        },
        abort() {
          ctx.abort()
          if (body !== null && !Buffer.isBuffer(body)) body.cancel()
        },
      }
    },
  }
}

function requestOf({
  user = 'ann',
  key = 'key-1',
  body = '',
  method = 'POST',
  address = '192.0.2.7',
  stream,
}: KeyedRequest = {}): RequestContext {
  const bytes = Buffer.from(body)
  const ctx = new RequestContext(
    {
      method,
      scheme: 'http',
      host: 'gateway.test',
      path: '/pay',
      query: '',
      version: '1.1',
      headers: key === null ? [] : ['Idempotency-Key', key],
      body:
        body === '' && stream === undefined
          ? null
          : {
              declaredBytes: stream === undefined ? bytes.length : 1024 ** 2,
              open: () => stream ?? Readable.from([bytes]),
            },
      peerAddress: address,
      receivedAtMs: 0,
    },
    'req-1',
  )
  ctx.user = user === null ? null : { id: user, isProved: true, field: 'x-user' }
  ctx.route = '/pay'
  return ctx
}

/** Lets all that can happen without an answer of the upstream happen: bodies are read in several turns of the loop. */
export async function settled(): Promise<void> {
  for (let i = 0; i < 5; i++) await settle()
}
