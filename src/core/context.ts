// The nouns that every stage shares: a request on its way (RequestContext), its answer (Reply), and bodies that
// arrive over time (BodyStream into BodySink). Nothing here knows a socket, node:http or the YAML.
//
// Header lists are flat: name, value, name, value, in wire order and wire case; look-ups in http/headers.ts ignore
// case. A list inside a Reply may belong to the cache and is never changed in place: what one request adds goes
// into its own fields, and server/respond.ts joins the two.

import type { Readable } from 'node:stream'
import type { GatewayError } from './errors.ts'
import type { FilledFields } from './field-pattern.ts'

export type HeaderList = readonly string[]

export type Scheme = 'http' | 'https'

/** The body of a request. Nothing is read, and no `100 Continue` is sent, before open() is called. */
export interface RequestBody {
  /** Declared Content-Length in bytes; null when the body is chunked. */
  readonly declaredBytes: number | null
  /** Starts reading; at most once, unless mayReopen. The stream fails with a GatewayError where a client-side limit is
   *  broken. */
  open(maxBytes: number): Readable
  /** True where each open() gives all of it from its beginning. */
  readonly mayReopen?: boolean
  /** All of it, where it is held here; then it need not be opened. */
  readonly bytes?: Buffer
  /** Called when the request's answer is there: nobody will open it for that any more. */
  release?(): void
}

/** Takes a body. `write` answers false when the source shall wait for its `resume()`; the chunk is taken all the same.
 *  Exactly one of `end` (the body is whole) and `fail` (it is not, and must not look so) is called, as the last call. */
export interface BodySink {
  write(chunk: Buffer): boolean
  end(): void
  fail(error: GatewayError): void
}

/** A response body that arrives over time, for one reader. */
export interface BodyStream {
  /** Starts the flow; once. Calls into the sink may come before this returns. */
  pipeTo(sink: BodySink): void
  /** The sink has room again. */
  resume(): void
  /** The reader has gone; the sink is not called any more. */
  cancel(): void
}

/** What client and upstream go on with after a 101, in another protocol: what the upstream sends, as a stream, and the other
 *  direction. The stream ends when the upstream ends its side. */
export interface Upgraded extends BodyStream {
  /** Takes what the client has sent; false: the rest shall wait for onSpace. The chunk is taken all the same. */
  send(chunk: Buffer): boolean
  /** The client has ended its side. */
  sendEnd(): void
  /** Set by who sends. */
  onSpace: (() => void) | null
}

/** A buffer is a whole body; null is none. */
export type ReplyBody = Buffer | BodyStream | null

export interface Reply {
  readonly status: number
  readonly headers: HeaderList
  readonly body: ReplyBody
  /** `headers` as lines of a message, for what is sent often; Date and, where it has a body, Content-Length are among them. */
  readonly lines?: string
  /** True when the connection cannot be trusted after this answer. */
  readonly close?: boolean
  /** With a 101, whose body is null. */
  readonly upgraded?: Upgraded
  /** Stores it, where it may be, and answers what takes its place; called once, after the invalidation that it calls for. */
  readonly keep?: () => Reply
  /** True where the end of the body cannot be proved: whether it is whole nobody can tell. */
  readonly isUnframed?: boolean
}

/** An upstream's answer as far as its head, cleaned of what ends at this hop. */
export interface OriginAnswer {
  readonly status: number
  readonly headers: HeaderList
  /** True when the end of the body can be proved: by its length, by chunks, or because there is none; or when the upstream
   *  is trusted with it. */
  readonly framed: boolean
  /** What the upstream tags it with (http/tags.ts); absent: nothing, null: more than can be kept. */
  readonly tags?: readonly string[] | null
  /** The body, once: whole where it has come already. */
  takeBody(): ReplyBody
}

/** A request on its way upstream. It belongs to whoever started it, which need not be one client. */
export interface OriginFetch {
  /** Rejects with a GatewayError. */
  readonly answer: Promise<OriginAnswer>
  /** False while all of it waits for its turn: then nobody but the gateway knows of it. */
  readonly isSent: boolean
  /** Gives up, at any point of it. */
  abort(reason: GatewayError): void
  /** How many of its attempts somebody may have worked on, once there is an answer or a failure. Absent where that is not
   *  known. */
  readonly workedOn?: number
}

/** Asks the route's upstream. drop: lower-case names of request fields to leave out; add: fields to send in their place,
 *  flat. Throws or rejects with GatewayError. */
export type FetchOrigin = (ctx: RequestContext, drop: ReadonlySet<string>, add?: HeaderList) => OriginFetch

/** One step of a request. A Reply ends the walk, null passes on. See plan/pipeline.ts. */
export type Stage = (ctx: RequestContext) => Reply | null | Promise<Reply | null>

/** What the cache did with a request: one word for the `X-Cache` header, log, metrics and statistics. */
export type CacheOutcome = 'hit' | 'miss' | 'stale' | 'revalidated' | 'collapsed' | 'bypass'

/** What its Idempotency-Key has made of a request: it went on, as the first of its key; it waited for the answer to the first,
 *  or got what that had got before; or the key cannot be used for it (again). */
export type IdempotencyOutcome = 'first' | 'joined' | 'replayed' | 'refused'

/** The verdict of the limits on one request; of several policies, the one that binds: least remaining, or the longest wait. */
export interface QuotaDecision {
  readonly admitted: boolean
  readonly policy: string
  readonly limit: number
  readonly remaining: number
}

/** Who a request comes from, as far as its credentials say. */
export interface User {
  /** Unique over all sources that may name one. */
  readonly id: string
  /** True where a signature, a known key or a trusted proxy proves it; else it is a claim. */
  readonly isProved: boolean
  /** The request field that names them, lower case. */
  readonly field: string
}

/** Facts of a request that a lane knows before any rule is applied. */
export interface RequestFacts {
  readonly method: string
  readonly scheme: Scheme
  /** Normalised host, lower case, without the default port; '' where HTTP/1.0 gave none. */
  readonly host: string
  /** Normalised path: the one string for match, keys and wire (http/target.ts). */
  readonly path: string
  /** '' or '?' and the raw query. */
  readonly query: string
  readonly version: '1.0' | '1.1'
  readonly headers: HeaderList
  readonly body: RequestBody | null
  /** The socket's peer, IPv4-mapped IPv6 already unmapped. */
  readonly peerAddress: string
  /** performance.now() when the request was first seen. */
  readonly receivedAtMs: number
}

/** Under which name the requests of a route are recorded that go to its canary. */
export const canaryName = (route: string): string => `${route} (canary)`

/** One request, from its head to its log line. Every field is set here once; none is added later, so that all
 *  requests keep one shape. A request finishes under the plan it started with. */
export class RequestContext implements RequestFacts {
  readonly method: string
  readonly scheme: Scheme
  readonly host: string
  readonly path: string
  readonly query: string
  readonly version: '1.0' | '1.1'
  readonly headers: HeaderList
  /** Whoever has to read it before it is forwarded puts in its place what goes on (held-body.ts). */
  body: RequestBody | null
  readonly peerAddress: string
  readonly receivedAtMs: number

  /** X-Request-Id: made by the lane, replaced by a trusted proxy's. */
  id: string
  /** Whose request it is: the peer, or what trusted proxies say of it. */
  clientAddress: string
  /** True when the peer is one of `trustedProxies`, so its forwarding fields are believed. */
  peerIsTrusted = false
  /** Name of the route, for the log and metrics; null while none matched. */
  route: string | null = null
  /** Values of `:name` segments, by name. */
  params: ReadonlyMap<string, string> | null = null
  user: User | null = null
  /** Whether it goes to the canary of its route; null while that is open, and where there is none. */
  isCanary: boolean | null = null
  quota: QuotaDecision | null = null
  /** The policy that would have refused it, if it did not only watch. */
  shadowedBy: string | null = null
  cache: CacheOutcome | null = null
  /** What the cache looks it up by, once it is known. */
  cacheKey: string | null = null
  /** Why it was not a hit, from the closed set in cache/reasons.ts. */
  cacheReason: string | null = null
  /** What the cache's answer has made needless: a fetch, which had taken this many milliseconds; 0: that is not known.
   *  null: the upstream was asked, or would not have been. */
  sparedMs: number | null = null
  /** True where what is stored may answer in the place of an error, so that nobody need wait for an upstream to be well. */
  hasStandIn = false
  /** null: it has no key, or its route knows none. */
  idempotency: IdempotencyOutcome | null = null
  /** True once an upstream was asked on behalf of this request; false again where it was given up before its turn. */
  wasForwarded = false
  /** It has taken the last slot that some limit has for its subject. */
  hasLastSlot = false
  /** Milliseconds from sending the request upstream to the head of its answer; null when no upstream was asked. */
  upstreamMs: number | null = null
  error: GatewayError | null = null
  /** What the limits say in its answer; null: nothing. */
  quotaFields: FilledFields | null = null
  /** What the cache says there of itself, where it answers from memory; else that is among the fields. */
  hitFields: FilledFields | null = null
  /** All other fields that this request alone adds to its answer, flat. */
  readonly fields: string[] = []
  /** Passes an interim (1xx) answer to the client at once; set by a lane that can. */
  relayInterim: ((status: number, headers: HeaderList) => void) | null = null
  /** True where a 101 can be answered: nothing but this request is on its connection. Set by a lane that can. */
  mayUpgrade = false
  /** True once the upstream is to be asked for a 101, at once where that is known: what the client sends from now on is in
   *  another protocol, or means nothing. */
  isUpgrading = false

  /** Set when the answer is finished or broken off. */
  status = 0
  bytesSent = 0
  /** Milliseconds from receivedAtMs to the head of the answer, and to its end. */
  headMs = 0
  durationMs = 0
  /** True once the client has gone before its answer was complete. */
  aborted = false
  #onAbort: (() => void) | null = null
  #onEnd: ((ctx: RequestContext) => void) | null = null
  #onThrough: ((ctx: RequestContext) => void) | null = null
  #lingering = 0
  #isOver = false
  #outlives = false

  constructor(facts: RequestFacts, id: string) {
    this.method = facts.method
    this.scheme = facts.scheme
    this.host = facts.host
    this.path = facts.path
    this.query = facts.query
    this.version = facts.version
    this.headers = facts.headers
    this.body = facts.body
    this.peerAddress = facts.peerAddress
    this.receivedAtMs = facts.receivedAtMs
    this.id = id
    this.clientAddress = facts.peerAddress
  }

  /** All that it adds to its answer, flat. */
  get ownFields(): HeaderList {
    return [...(this.quotaFields?.fields ?? []), ...(this.hitFields?.fields ?? []), ...this.fields]
  }

  /** Its answer will be another one, of which nothing has been said. */
  unsay(): void {
    this.quotaFields = this.hitFields = null
    this.fields.length = 0
  }

  /** Nobody wants it done any more. */
  get isGivenUp(): boolean {
    return this.aborted && !this.#outlives
  }

  /** From now on it is done whether or not its client stays: nothing is stopped when that goes, and what is held for it is
   *  held on. Whoever asks for this sees to it that it ends, and calls what is answered, once, when it has. */
  outlive(): () => void {
    this.#outlives = true
    return () => {
      this.#outlives = false
      if (this.#isOver) this.#runEnd()
    }
  }

  /** Names what to stop when the client goes; the latest caller counts, null clears. Runs at once if it has gone. */
  whenAborted(stop: (() => void) | null): void {
    this.#onAbort = stop
    if (this.isGivenUp) stop?.()
  }

  /** Has something done when the answer is finished or broken off, before the request is recorded; in the order of the
   *  calls. At once where that has been: a client may go while something is still taken for it. */
  whenEnded(act: Act): void {
    if (this.#isOver && !this.#outlives) return act(this)
    this.#onEnd = both(this.#onEnd, act)
  }

  /** The same for what has to wait until nothing goes on, either, that the request has begun. */
  whenThrough(act: Act): void {
    if (this.#isOver && !this.#outlives && this.#lingering === 0) return act(this)
    this.#onThrough = both(this.#onThrough, act)
  }

  /** Something that it has begun goes on after its end, until what is answered is called, once. */
  linger(): () => void {
    this.#lingering++
    return () => {
      if (--this.#lingering === 0 && this.#isOver && !this.#outlives) this.#runThrough()
    }
  }

  /** The answer is finished or broken off. Called once, by whoever records it. */
  end(): void {
    this.#isOver = true
    if (!this.#outlives) this.#runEnd()
  }

  /** The client has gone. Called by the lane; further calls do nothing. */
  abort(): void {
    if (this.aborted) return
    this.aborted = true
    if (!this.#outlives) this.#onAbort?.()
  }

  #runEnd(): void {
    const act = this.#onEnd
    this.#onEnd = null
    act?.(this)
    if (this.#lingering === 0) this.#runThrough()
  }

  #runThrough(): void {
    const act = this.#onThrough
    this.#onThrough = null
    act?.(this)
  }
}

type Act = (ctx: RequestContext) => void

const both = (first: Act | null, second: Act): Act =>
  first === null
    ? second
    : (ctx) => {
        first(ctx)
        second(ctx)
      }
