// Copies of requests, for an upstream that nobody waits for: what it answers is dropped. Only a request that goes out is
// copied, after it, as it went out; whatever becomes of the copy, the request has no part in it. There are so many copies
// at the same time and no more; one that finds no room is left out, as is one whose body is too long to keep. Nothing is
// tried twice, and nobody is charged.
//
// Fields go along as they are, credentials among them: it is the operator who names the upstream, and without them most
// requests would be refused. A field says that it is a copy, which no client can send.

import type { Readable } from 'node:stream'
import type { BodySink, ReplyBody, RequestBody } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { HeldBody } from '../core/held-body.ts'
import type { MirrorOptions } from './options.ts'
import type { Timeouts, UpstreamPool } from './pool.ts'
import { MAX_REPLAY_BYTES, Replay } from './replay.ts'
import { UpstreamFetch, type UpstreamRequest } from './retry.ts'

/** What becomes of copies: answered, whatever by; failed: no answer; dropped: as many as there may be were under way;
 *  too_long: more of a body than is kept. */
export type MirrorResult = 'answered' | 'failed' | 'dropped' | 'too_long'

export type MirrorCounts = Readonly<Record<MirrorResult, number>>

/** All copies of an instance; outlives plans. */
export class Mirrors {
  readonly #counts = new Map<string, Record<MirrorResult, number>>()
  readonly #underWay = new Set<(reason: GatewayError) => void>()
  #isClosed = false

  get isClosed(): boolean {
    return this.#isClosed
  }

  /** By the upstream that they went to. */
  get counts(): ReadonlyMap<string, MirrorCounts> {
    return this.#counts
  }

  count(upstream: string, result: MirrorResult): void {
    let counts = this.#counts.get(upstream)
    if (counts === undefined) this.#counts.set(upstream, (counts = { answered: 0, failed: 0, dropped: 0, too_long: 0 }))
    counts[result]++
  }

  /** Forgets what went to other upstreams than these. */
  keep(upstreams: ReadonlySet<string>): void {
    for (const upstream of this.#counts.keys()) if (!upstreams.has(upstream)) this.#counts.delete(upstream)
  }

  /** A copy goes out, which `cut` breaks off; call the answer when it is over. */
  enter(cut: (reason: GatewayError) => void): () => void {
    this.#underWay.add(cut)
    return () => void this.#underWay.delete(cut)
  }

  /** Breaks all off, and lets no more go. */
  close(): void {
    this.#isClosed = true
    for (const cut of this.#underWay) cut(ENDING)
  }
}

/** What one route copies to where. */
export interface MirrorSetup {
  readonly options: MirrorOptions
  readonly pool: UpstreamPool
  readonly timeouts: Timeouts
  readonly isLenient: boolean
  readonly mirrors: Mirrors
  /** From 0 to below 1. */
  readonly random: () => number
}

/** Bytes of an answer that are read, so that its connection can be used again; a longer one is broken off. */
const MAX_ANSWER_BYTES = 64 * 1024
const MARK = ['X-Weirgate-Mirror', '1'] as const
const NO_REFUSALS = { wait: 0, methods: 'idempotent' } as const
const ENDING = new GatewayError('draining', 'The gateway is shutting down.')

/** Gives back what is to be sent in the place of a request: itself, or the same with an ear to it. */
export type Mirror = (request: UpstreamRequest) => UpstreamRequest

export function compileMirror({ options, pool, timeouts, isLenient, mirrors, random }: MirrorSetup): Mirror {
  const patience = { timeouts, retries: 0, refusals: NO_REFUSALS }
  let underWay = 0

  function copy(request: UpstreamRequest, body: RequestBody | null): void {
    if (mirrors.isClosed) return
    if (underWay >= options.concurrency) return mirrors.count(pool.name, 'dropped')
    underWay++
    const sent = new UpstreamFetch(
      pool,
      {
        ...request,
        headers: [...request.headers, ...MARK],
        body,
        relayInterim: null,
        isLenient,
        hasStandIn: false,
        onSent: null,
        onAttempts: () => {},
        onUnsent: () => {},
      },
      patience,
      (answer) => answer.takeBody(),
    )
    const leave = mirrors.enter((reason) => sent.abort(reason))
    const end = (result: MirrorResult): void => {
      underWay--
      leave()
      mirrors.count(pool.name, result)
    }
    sent.answer.then(
      (answer) => discard(answer, () => end('answered')),
      () => end('failed'),
    )
  }

  return (request) => {
    if (random() * 100 >= options.percent) return request
    const { body } = request
    if (body === null || body.bytes !== undefined) {
      if ((body?.bytes?.length ?? 0) > MAX_REPLAY_BYTES) {
        mirrors.count(pool.name, 'too_long')
        return request
      }
      return { ...request, onSent: () => copy(request, body) }
    }
    return {
      ...request,
      body: overheard(body, (bytes) => {
        if (bytes === null) mirrors.count(pool.name, 'too_long')
        else copy(request, new HeldBody(bytes, body.declaredBytes))
      }),
    }
  }
}

/** The same body; once it has gone out to its end, `told` gets it, or null where it was too long. */
function overheard(body: RequestBody, told: (bytes: Buffer | null) => void): RequestBody {
  return {
    declaredBytes: body.declaredBytes,
    open(maxBytes): Readable {
      const stream = body.open(maxBytes)
      const replay = new Replay(stream)
      stream.once('end', () => told(replay.bytes))
      return stream
    },
  }
}

function discard(body: ReplyBody, done: () => void): void {
  if (body === null || Buffer.isBuffer(body)) return done()
  let bytes = 0
  const sink: BodySink = {
    write(chunk) {
      bytes += chunk.length
      if (bytes <= MAX_ANSWER_BYTES) return true
      body.cancel()
      done()
      return false
    },
    end: done,
    fail: done,
  }
  body.pipeTo(sink)
}
