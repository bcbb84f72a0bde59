// What the calls of one request to its upstream have used: each answer is read while it passes, after whoever it is for
// has got the bytes, and nothing of it is held. What cannot be read is estimated, so that nobody gets for nothing what he
// has broken off:
//
//   never sent, or refused by 429 or 503    nothing
//   no answer, or an error                  the request
//   an answer that says what it used        that; where it was broken off, at least what has come of it
//   any other                               the request, and what has come of the answer
//   each further attempt that was sent,     the request
//   as of a hedge
//
// A call belongs to the request that has led it, for as long as it takes: it may go on for others when that one's client
// has gone. Upstreams are asked for answers without a content coding, since of another one nothing can be read.

import type { BodySink, BodyStream, FetchOrigin, HeaderList, OriginAnswer, RequestContext } from '../core/context.ts'
import type { GatewayError } from '../core/errors.ts'
import { type Figures, type Tokens, type UsagePlan, type UsageReader, tokensIn, usageReader } from './usage.ts'

/** What a request has used. */
export interface Spent extends Tokens {
  /** True where not all of it was told. */
  readonly isEstimated: boolean
  /** True where there was more that nobody can estimate. */
  readonly isPart: boolean
}

export class Meter {
  readonly #plan: UsagePlan
  readonly #calls: Call[] = []
  #underWay = 0
  #onIdle: (() => void) | null = null

  constructor(plan: UsagePlan) {
    this.#plan = plan
  }

  /** False while a call may still use more. */
  get isIdle(): boolean {
    return this.#underWay === 0
  }

  /** Called once, as soon as no call is under way. */
  whenIdle(act: () => void): void {
    this.#onIdle = act
    // Whoever has not taken a body by now will not.
    for (const call of this.#calls) call.left()
    if (this.isIdle) this.#idle()
  }

  begin(ctx: RequestContext): Call {
    const call = new Call(this.#plan, requestTokens(ctx), () => {
      this.#underWay--
      if (this.isIdle) this.#idle()
    })
    this.#calls.push(call)
    this.#underWay++
    return call
  }

  /** By the rule of that number; null where nothing was asked. */
  spent(rule: number): Spent | null {
    if (this.#calls.length === 0) return null
    const sum = { input: 0, cached: 0, output: 0, isEstimated: false, isPart: false }
    for (const call of this.#calls) {
      const { input, cached, output, isEstimated, isPart } = call.spent(rule)
      sum.input += input
      sum.cached += cached
      sum.output += output
      sum.isEstimated ||= isEstimated
      sum.isPart ||= isPart
    }
    return sum
  }

  #idle(): void {
    const act = this.#onIdle
    this.#onIdle = null
    act?.()
  }
}

const UNTOLD: Figures = { input: null, cached: 0, output: null }
const NOTHING: Spent = { input: 0, cached: 0, output: 0, isEstimated: false, isPart: false }

/** One call, from when it is sent to its last byte. */
class Call {
  readonly #plan: UsagePlan
  readonly #requestTokens: number | null
  readonly #onOver: () => void
  #reader: UsageReader | null = null
  /** Nobody has to pay for it; the request at most. */
  #isFree = false
  #isFailed = false
  /** Attempts of it that somebody may have worked on, beside the one that has answered, or failed last. */
  #others = 0
  #isTaken = false
  #isWhole = false
  #isOver = false

  constructor(plan: UsagePlan, requestTokens: number | null, onOver: () => void) {
    this.#plan = plan
    this.#requestTokens = requestTokens
    this.#onOver = onOver
  }

  /** There is no answer. workedOn: attempts that somebody may have worked on all the same. */
  failed(workedOn: number): void {
    this.#isFree = workedOn === 0
    this.#isFailed = true
    this.#others = Math.max(0, workedOn - 1)
    this.#end(false)
  }

  /** Answers it in a form whose body is read. workedOn: as above, but for answers that nobody has to pay for. */
  answered(answer: OriginAnswer, workedOn: number): OriginAnswer {
    const { status, headers } = answer
    this.#isFree = status === 429 || status === 503
    this.#others = this.#isFree ? workedOn : Math.max(0, workedOn - 1)
    this.#isFailed = status >= 400 || status === 304
    const reader = usageReader(this.#plan, headers)
    this.#reader = reader
    return {
      ...answer,
      takeBody: () => {
        this.#isTaken = true
        const body = answer.takeBody()
        if (body !== null && !Buffer.isBuffer(body)) return new Read(body, reader, (isWhole) => this.#end(isWhole))
        if (body !== null) reader.read(body)
        this.#end(true)
        return body
      },
    }
  }

  /** Whoever has asked is through with it; an answer whose body nobody takes ends with that. */
  left(): void {
    if (this.#reader !== null && !this.#isTaken) this.#end(false)
  }

  spent(rule: number): Spent {
    const last = this.#ofLast(rule)
    if (this.#others === 0) return last
    const request = this.#requestTokens
    const input = last.input + this.#others * (request ?? 0)
    return { ...last, input, isEstimated: true, isPart: last.isPart || request === null }
  }

  #ofLast(rule: number): Spent {
    const { input, cached, output } = this.#reader?.figures(rule) ?? UNTOLD
    const isTold = input !== null || output !== null
    if (this.#isFree && !isTold) return NOTHING
    const isEstimated = !isTold || !this.#isWhole
    const request = input ?? this.#requestTokens
    const asked = { input: (request ?? 0) - cached, cached, isEstimated }
    if (!isTold && this.#isFailed) return { ...asked, output: 0, isPart: request === null }
    const come = isTold && this.#isWhole ? 0 : (this.#reader?.estimate ?? null)
    return { ...asked, output: Math.max(output ?? 0, come ?? 0), isPart: request === null || come === null }
  }

  #end(isWhole: boolean): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#isWhole = isWhole
    this.#onOver()
  }
}

/** A body on its way. */
class Read implements BodyStream, BodySink {
  readonly #body: BodyStream
  readonly #reader: UsageReader
  readonly #onEnd: (isWhole: boolean) => void
  #sink: BodySink | null = null

  constructor(body: BodyStream, reader: UsageReader, onEnd: (isWhole: boolean) => void) {
    this.#body = body
    this.#reader = reader
    this.#onEnd = onEnd
  }

  pipeTo(sink: BodySink): void {
    this.#sink = sink
    this.#body.pipeTo(this)
  }

  resume(): void {
    this.#body.resume()
  }

  cancel(): void {
    this.#onEnd(false)
    this.#body.cancel()
  }

  write(chunk: Buffer): boolean {
    const hasRoom = this.#sink?.write(chunk) ?? true
    this.#reader.read(chunk)
    return hasRoom
  }

  end(): void {
    this.#onEnd(true)
    this.#sink?.end()
  }

  fail(error: GatewayError): void {
    this.#onEnd(false)
    this.#sink?.fail(error)
  }
}

/** The same fetch for requests that have a meter. */
export function metered(fetch: FetchOrigin, meterOf: (ctx: RequestContext) => Meter | null): FetchOrigin {
  return (ctx, drop, add) => {
    const meter = meterOf(ctx)
    if (meter === null) return fetch(ctx, drop, add)
    const sent = fetch(ctx, new Set([...drop, 'accept-encoding']), [...(add ?? NO_FIELDS), ...PLAIN])
    const call = meter.begin(ctx)
    const answer = sent.answer.then(
      (answered) => call.answered(answered, sent.workedOn ?? 0),
      (error: unknown) => {
        call.failed(sent.workedOn ?? 1)
        throw error
      },
    )
    return {
      answer,
      get isSent() {
        return sent.isSent
      },
      abort(reason) {
        sent.abort(reason)
        call.left()
      },
    }
  }
}

const NO_FIELDS: HeaderList = []
const PLAIN: HeaderList = ['Accept-Encoding', 'identity']

/** As the upstream would count them, more or less; null where the length is not known beforehand. */
export function requestTokens({ body }: RequestContext): number | null {
  if (body === null) return 0
  const bytes = body.bytes?.length ?? body.declaredBytes
  return bytes === null ? null : tokensIn(bytes)
}
