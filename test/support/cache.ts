// A route's cache between an origin that a test answers by hand and clients without sockets.

import { Readable } from 'node:stream'
import { type RouteCache, compileCache } from '../../src/cache/cache.ts'
import { invalidation, purge } from '../../src/cache/purge.ts'
import { compileKeyRule } from '../../src/cache/key-rule.ts'
import type { Leases } from '../../src/cache/lease.ts'
import { cachedMethods, routeCacheOptions } from '../../src/cache/options.ts'
import { compilePolicy } from '../../src/cache/policy.ts'
import { type SharedCache, createSharedCache } from '../../src/cache/shared.ts'
import type { CacheTier } from '../../src/cache/tier.ts'
import { createMemoryStore } from '../../src/cache/stores/memory.ts'
import { type HeaderList, type Reply, type ReplyBody, RequestContext, type Stage } from '../../src/core/context.ts'
import type { GatewayError } from '../../src/core/errors.ts'
import { compilePipeline } from '../../src/plan/pipeline.ts'
import { HandBody, NotingSink } from './body.ts'

export const START_MS = Date.UTC(2026, 10, 22, 12)

/** A fetch that has arrived at the origin. */
export interface Asked {
  readonly ctx: RequestContext
  /** The request's fields as they arrived, flat. */
  readonly headers: HeaderList
  /** Why it was given up; null while it was not. */
  readonly aborted: GatewayError | null
  /** Answers with a whole body. */
  reply(headers: HeaderList, body?: string | null, status?: number): void
  /** Answers with a body that is sent by hand, and breaks when the fetch is given up. */
  stream(headers: HeaderList, status?: number): HandBody
  /** Answers with any body. */
  answer(headers: HeaderList, body: ReplyBody, status?: number, framed?: boolean): void
  fail(error: GatewayError): void
}

/** A client's request and what became of it. */
export interface Asking {
  readonly ctx: RequestContext
  /** Rejects like the request. */
  readonly reply: Promise<Reply>
  /** A field of the answer; the gateway's own come after the origin's. */
  field(name: string): Promise<string | null>
  /** The status line and a whole body as text: `200 body`, or `broken: ...` where it broke off. */
  outcome(): Promise<string>
  /** Leaves, wherever the request is. */
  abort(): void
}

export interface RequestParts {
  readonly method?: string
  readonly path?: string
  readonly headers?: HeaderList
  readonly body?: string | Buffer
  /** Time passes between the two stages, as it does where tiers are read. */
  readonly isDelayed?: boolean
  /** The limits on misses. */
  readonly mayAsk?: Stage
  /** Behind a trusted proxy. */
  readonly trusted?: boolean
  /** Chunks that it takes of a streamed body before it waits for a drain that never comes. */
  readonly roomFor?: number
}

export interface Bench {
  readonly shared: SharedCache
  readonly asked: readonly Asked[]
  /** Milliseconds of the wall clock. */
  nowMs: number
  ask(parts?: RequestParts): Asking
  /** Changes the route, as a reload does. */
  reload(route: Record<string, unknown>, epoch?: string): void
  readonly cache: RouteCache
}

/** Lets all promises that can settle do so. */
export const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

export function createBench(
  route: Record<string, unknown> = {},
  options: { maxObjectBytes?: number; tiers?: readonly CacheTier[]; leases?: Leases } = {},
): Bench {
  const asked: Asked[] = []
  let nowMs = START_MS
  const shared = createSharedCache(createMemoryStore(64 * 1024 ** 2), () => nowMs, options.tiers, options.leases)

  const fetch: Parameters<typeof compileCache>[0]['fetch'] = (ctx, drop, add = []) => {
    const { promise, resolve, reject } = Promise.withResolvers<Awaited<ReturnType<typeof fetch>['answer']>>()
    let aborted: GatewayError | null = null
    let sent: HandBody | null = null
    let isOver = false
    const answer = (headers: HeaderList, body: ReplyBody, status = 200, framed = true) => {
      isOver = body === null || Buffer.isBuffer(body)
      resolve({ status, headers, framed, takeBody: () => body })
    }
    asked.push({
      ctx,
      headers: [...ctx.headers.filter((_, i) => !drop.has((ctx.headers[i - (i % 2)] as string).toLowerCase())), ...add],
      get aborted() {
        return aborted
      },
      answer,
      reply: (headers, body = 'body', status) => answer(headers, body === null ? null : Buffer.from(body), status),
      stream(headers, status) {
        sent = new HandBody()
        answer(headers, sent, status)
        return sent
      },
      fail: reject,
    })
    return {
      answer: promise,
      isSent: true,
      abort(reason) {
        if (isOver || sent?.isOver === true) return
        aborted ??= reason
        reject(reason)
        sent?.fail(reason)
      },
    }
  }
  const compile = (yaml: Record<string, unknown>, epoch: string) => {
    // Unless it says otherwise: what nobody waits for is given up at once.
    const parsed = routeCacheOptions.parse({ onAbort: 'abort', ...yaml })
    const methods = cachedMethods(parsed.methods ?? null, null, parsed.key?.body !== undefined)
    const policy = compilePolicy(parsed, { maxObjectBytes: options.maxObjectBytes ?? 1024 ** 2, methods })
    const key = compileKeyRule(parsed.key ?? {}, parsed.scope === 'user', {
      bypassIf: parsed.bypassIf ?? [],
      hasStreams: parsed.terminal !== undefined,
    })
    const { collapse, onAbort } = parsed
    const known = { route: '/*', shared, policy, key, collapse, onAbort, epoch, fetch }
    const bounds = { maxBodyBytes: 1024 ** 2, mostDetached: 2, longestFetchMs: 300_000 }
    return compileCache({ ...known, ...bounds, upstream: 'origin' })
  }
  let cache = compile(route, 'first')

  return {
    shared,
    asked,
    get nowMs() {
      return nowMs
    },
    set nowMs(next) {
      nowMs = next
    },
    get cache() {
      return cache
    },
    reload(yaml, epoch = 'first') {
      cache = compile(yaml, epoch)
    },
    ask(parts = {}) {
      const ctx = requestOf(parts)
      const { lookup, fill } = cache
      const pipeline = compilePipeline({
        identity: null,
        limits: null,
        whenLimited: null,
        lookup: parts.isDelayed === true ? async (asking) => await lookup(asking) : lookup,
        isLow: null,
        misses: parts.mayAsk ?? null,
        fetch: fill,
        onAnswer: null,
        invalidate(asking, status, fields) {
          const rule = invalidation(asking, status, fields)
          return rule === null ? null : purge(shared, rule)
        },
      })
      const reply = (async () => pipeline(ctx))()
      let reading: { sink: NotingSink; body: ReplyBody } | null = null
      const read = async () => {
        const { body } = await reply
        const sink = new NotingSink(parts.roomFor)
        reading = { sink, body }
        if (body !== null && !Buffer.isBuffer(body)) {
          if (ctx.aborted) body.cancel()
          else body.pipeTo(sink)
        } else if (body !== null) sink.write(body)
        return sink
      }
      const sink = read()
      // Who does not ask for the outcome does not want its failure either.
      sink.catch(() => {})
      return {
        ctx,
        reply,
        async field(name) {
          const { headers } = await reply
          const all = [...headers, ...ctx.ownFields]
          const at = all.findLastIndex((text, i) => i % 2 === 0 && text.toLowerCase() === name.toLowerCase())
          return at < 0 ? null : (all[at + 1] as string)
        },
        async outcome() {
          const { status } = await reply
          const { outcome, error, text } = await sink
          await settle()
          return outcome === 'broken' ? `broken: ${error?.code}` : `${status} ${text}`
        },
        abort() {
          ctx.abort()
          if (reading?.body !== null && reading !== null && !Buffer.isBuffer(reading.body)) reading.body.cancel()
        },
      }
    },
  }
}

function requestOf({ method = 'GET', path = '/', headers = [], body, trusted = false }: RequestParts): RequestContext {
  const bytes = body === undefined ? null : Buffer.from(body)
  const ctx = new RequestContext(
    {
      method,
      scheme: 'http',
      host: 'gateway.test',
      path,
      query: '',
      version: '1.1',
      headers,
      body: bytes === null ? null : { declaredBytes: bytes.length, open: () => Readable.from([bytes]) },
      peerAddress: '192.0.2.7',
      receivedAtMs: 0,
    },
    'req-1',
  )
  ctx.peerIsTrusted = trusted
  return ctx
}
