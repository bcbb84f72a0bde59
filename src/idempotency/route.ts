// One deed for each Idempotency-Key (draft-ietf-httpapi-idempotency-key-header): the first request with a key goes on, and
// what repeats it waits for its answer or gets it again. What follows in the walk of a request (cache, limits on misses, the
// upstream) is given as a function, and called once for a key.
//
//   same request, under way        waits for it, and gets the same answer or the same failure
//   same request, answered         the recorded answer, with Idempotency-Replayed: true
//   same request, nothing done     goes on as the first one
//   same request, not known        409, or goes on as the first one: as the route says
//   same request, answer not kept  409; it is not sent again
//   another request                422
//
// What has begun goes on without its client, within the upstream's timers: a client that has gone is one that will ask
// again. So a body is read and held first, and the upstream never waits for a client that may go.

import type { Reply, ReplyBody, RequestContext } from '../core/context.ts'
import type { ExplainedKey } from '../core/control.ts'
import { type GatewayError, asGatewayError } from '../core/errors.ts'
import { type Answer, replayed } from './answer.ts'
import type { Ending } from './ending.ts'
import { type Fate, fateOfError, fateOfStatus } from './fate.ts'
import type { Idempotency, Outcome } from './idempotency.ts'
import { readKey } from './key.ts'
import type { IdempotencyOptions } from './options.ts'
import { Recording } from './recording.ts'
import { type Claim, type Told, newToken } from './redis.ts'
import { CROWDED, MISSING, REFUSALS, type Refusal } from './refusals.ts'
import type { Standing, UnderWay } from './table.ts'

export interface RouteIdempotency {
  /** Puts itself before what follows in the walk of a request. */
  readonly before: (rest: Rest) => Rest
  /** What would become of a request, as far as this instance knows. */
  explain(ctx: RequestContext): ExplainedKey | null
}

export interface RouteIdempotencySetup {
  readonly options: IdempotencyOptions
  readonly idempotency: Idempotency
  /** Bytes of the largest body that the client may send. */
  readonly maxBodyBytes: number
  /** Who asks, as a digest; null where nothing says so. */
  readonly userOf: (ctx: RequestContext) => string | null
}

/** Between two questions about what another instance runs. */
const FIRST_PAUSE_MS = 25
const MAX_PAUSE_MS = 400

const NO_BODY = Buffer.alloc(0)

/** A request with a key. */
interface Keyed {
  readonly ctx: RequestContext
  readonly id: string
  readonly fingerprint: string
  readonly token: string
  /** Lets go of its body, which is not sent. */
  drop(): void
}

/** What others hear of it, and what is remembered; null: nothing, the key is free. */
interface Conclusion {
  readonly ending: Ending
  readonly standing: Exclude<Standing, { state: 'running' }> | null
}

export function compileIdempotency({
  options,
  idempotency,
  maxBodyBytes,
  userOf,
}: RouteIdempotencySetup): RouteIdempotency {
  const { table, shared, names, counts, bodies, running } = idempotency
  const methods: ReadonlySet<string> = new Set(options.methods)
  const maxHeldBytes = Math.min(options.maxBody, maxBodyBytes)
  const mayRetry = options.unknown === 'retry'
  const forMs = options.for

  function before(rest: Rest): Rest {
    return (ctx) => {
      if (!methods.has(ctx.method)) return rest(ctx)
      const key = readKey(ctx)
      if (key !== null) return answer(ctx, names.idOf(ctx, userOf(ctx), key), rest)
      if (options.required) throw MISSING
      return rest(ctx)
    }
  }

  async function answer(ctx: RequestContext, id: string, rest: Rest): Promise<Reply> {
    const { bytes, release } = await bodies.read(ctx, maxHeldBytes, maxBodyBytes)
    // From here on to the end of what it does, whether or not its client stays.
    const settle = ctx.outlive()
    const finish = once(() => {
      release()
      settle()
    })
    const drop = (): void => {
      release()
      ctx.body = null
    }
    const keyed = { ctx, id, fingerprint: names.fingerprintOf(ctx, bytes), token: newToken(), drop }
    try {
      return await answerKeyed(keyed, rest, finish)
    } catch (error) {
      finish()
      throw error
    }
  }

  /** What is known of its key, for this very request; a promise: ask again then. Throws where it is that of another. */
  function lookUp({ ctx, id, fingerprint }: Keyed): Standing | null | Promise<void> {
    const known = table.find(id)
    if (known === null || known.fingerprint === fingerprint) return known?.standing ?? null
    // The other may be the one that has no right to it.
    const claiming = known.standing.state === 'running' ? known.standing.claiming : null
    if (claiming === null) throw refuse(ctx, 'reused')
    return claiming
  }

  /** finish: called once it is over, but for who rejects. */
  async function answerKeyed(keyed: Keyed, rest: Rest, finish: () => void): Promise<Reply> {
    const { ctx, id, fingerprint } = keyed
    let standing = lookUp(keyed)
    while (standing instanceof Promise) {
      await standing
      // From here on nothing may be waited for until it has begun: two would begin.
      standing = lookUp(keyed)
    }
    if (standing?.state === 'running') {
      keyed.drop()
      const reply = conclude(ctx, 'joined', await standing.ended)
      finish()
      return reply
    }
    if (standing?.state === 'answered') {
      finish()
      return conclude(ctx, 'replayed', { kind: 'answer', answer: standing.answer })
    }
    // Others may know more: an answer that had to go here, or what came of it when it was sent once more.
    if (standing !== null && shared?.isUp(id) !== true && !(standing.state === 'unknown' && mayRetry)) {
      throw refuse(ctx, standing.state)
    }
    const { promise: ended, resolve: tell } = Promise.withResolvers<Ending>()
    const { promise: claiming, resolve: confirm } = Promise.withResolvers<void>()
    const underWay: UnderWay = { state: 'running', ended, claiming: shared === null ? null : claiming }
    const begun = table.begin(id, fingerprint, underWay)
    if (begun === null) throw CROWDED
    const confirmed = (): void => {
      underWay.claiming = null
      confirm()
    }
    let isConcluded = false
    const conclusion = (told: Conclusion): void => {
      if (isConcluded) return
      isConcluded = true
      table.settle(id, begun, told.standing, forMs)
      tell(told.ending)
      confirmed()
    }
    try {
      const claimed = await claim(keyed, standing, confirmed)
      if (claimed.state === 'go') return await lead(keyed, rest, claimed.claim, conclusion, finish)
      const ending = endingOf(claimed)
      // What Redis knows need not be known here as well.
      conclusion({ ending, standing: claimed.state === 'answered' || claimed.state === 'reused' ? null : standing })
      finish()
      return conclude(ctx, claimed.state === 'answered' ? 'replayed' : claimed.state, ending)
    } catch (error) {
      // Where it has been concluded, this does nothing.
      conclusion({ ending: { kind: 'error', error: asGatewayError(error) }, standing: null })
      throw error
    }
  }

  type Leave = { readonly state: 'go'; readonly claim: Claim | null }
  type Denial = Told | { readonly state: 'reused' | 'in_flight' }

  /** Asks for leave to run it, on behalf of all instances; where another runs it, when that is through. known: what this
   *  one knows of its key. confirmed: called once the key is known to be that of this request. */
  async function claim(
    { id, fingerprint, token }: Keyed,
    known: Told | null,
    confirmed: () => void,
  ): Promise<Leave | Denial> {
    if (shared === null) return { state: 'go', claim: null }
    let isElsewhere = false
    for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(MAX_PAUSE_MS, pauseMs * 2)) {
      try {
        const claimed = await shared.claim(id, fingerprint, token, forMs, mayRetry)
        if (claimed.state !== 'reused') confirmed()
        if (claimed.state === 'mine') return { state: 'go', claim: claimed.claim }
        if (claimed.state !== 'running') return claimed
        isElsewhere = true
      } catch {
        if (isElsewhere) return { state: 'in_flight' }
        if (known !== null && !(known.state === 'unknown' && mayRetry)) return known
        counts.local++
        confirmed()
        return { state: 'go', claim: shared.assume(id, fingerprint, token, forMs) }
      }
      await pause(pauseMs)
    }
  }

  /** Runs it. */
  async function lead(
    { ctx }: Keyed,
    rest: Rest,
    claim: Claim | null,
    conclusion: (told: Conclusion) => void,
    finish: () => void,
  ): Promise<Reply> {
    ctx.idempotency = 'first'
    counts.first++
    running.begin()
    const end = (told: Conclusion): void => {
      conclusion(told)
      running.end()
      finish()
      void claim?.end(told.standing)
    }
    let reply: Reply
    try {
      reply = await rest(ctx)
    } catch (cause) {
      const error = asGatewayError(cause)
      end(ofError(error))
      throw error
    }
    const { status, headers, body } = reply
    // An answer of the gateway's own has its error beside it.
    const fate = ctx.error === null ? fateOfStatus(status) : fateOfError(ctx.error)
    if (reply.isUnframed === true || (Buffer.isBuffer(body) && body.length > options.maxAnswer)) {
      end(notKept(fate))
      return reply
    }
    if (body === null || Buffer.isBuffer(body)) {
      end(ofAnswer({ status, headers, body }, fate))
      return reply
    }
    let heldBytes = 0
    const release = (): void => {
      table.release(heldBytes)
      heldBytes = 0
    }
    const recording = new Recording(body, {
      mayHold(moreBytes, bytes) {
        const isHeld = bytes <= options.maxAnswer && table.hold(moreBytes)
        if (isHeld) heldBytes += moreBytes
        else release()
        return isHeld
      },
      whole(whole) {
        release()
        end(whole === null ? notKept(fate) : ofAnswer({ status, headers, body: whole }, fate))
      },
      broken(error) {
        release()
        end({ ending: { kind: 'error', error }, standing: fate === 'free' ? null : UNKNOWN })
      },
    })
    recording.start()
    return { ...reply, body: recording satisfies ReplyBody }
  }

  function conclude(ctx: RequestContext, outcome: Exclude<Outcome, 'first' | 'local'>, ending: Ending): Reply {
    counts[outcome]++
    ctx.idempotency = outcome === 'joined' || outcome === 'replayed' ? outcome : 'refused'
    if (ending.kind === 'error') throw ending.error
    return replayed(ending.answer)
  }

  function refuse(ctx: RequestContext, outcome: Refusal): GatewayError {
    counts[outcome]++
    ctx.idempotency = 'refused'
    return REFUSALS[outcome]
  }

  function explain(ctx: RequestContext): ExplainedKey | null {
    if (!methods.has(ctx.method)) return null
    let id: string
    try {
      const key = readKey(ctx)
      if (key === null) return options.required ? 'missing' : 'none'
      id = names.idOf(ctx, userOf(ctx), key)
    } catch {
      return 'invalid'
    }
    const known = table.find(id)
    if (known === null) return 'first'
    if (known.fingerprint !== names.fingerprintOf(ctx, ctx.body?.bytes ?? NO_BODY)) return 'reused'
    const { state } = known.standing
    if (state === 'running') return 'joined'
    if (state === 'answered') return 'replayed'
    return state === 'unknown' && mayRetry ? 'first' : state
  }

  return { before, explain }
}

/** Answers or throws. */
type Rest = (ctx: RequestContext) => Reply | Promise<Reply>
const UNKNOWN = { state: 'unknown' } as const
const NOT_KEPT = { state: 'not_kept' } as const

function ofAnswer(answer: Answer, fate: Fate): Conclusion {
  const ending = { kind: 'answer', answer } as const
  if (fate === 'answered') return { ending, standing: { state: 'answered', answer } }
  return { ending, standing: fate === 'free' ? null : UNKNOWN }
}

const notKept = (fate: Fate): Conclusion => ({
  ending: { kind: 'error', error: REFUSALS.not_kept },
  standing: fate === 'free' ? null : fate === 'unknown' ? UNKNOWN : NOT_KEPT,
})

function ofError(error: GatewayError): Conclusion {
  return { ending: { kind: 'error', error }, standing: fateOfError(error) === 'free' ? null : UNKNOWN }
}

const endingOf = (told: Told | { readonly state: 'reused' | 'in_flight' }): Ending =>
  told.state === 'answered' ? { kind: 'answer', answer: told.answer } : { kind: 'error', error: REFUSALS[told.state] }

function once(act: () => void): () => void {
  let isDone = false
  return () => {
    if (isDone) return
    isDone = true
    act()
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms))
