// Limits in tokens, over an upstream driven by hand: what is charged for each way in which a call can end, and when.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type {
  BodySink,
  BodyStream,
  HeaderList,
  Reply,
  ReplyBody,
  RequestBody,
  RequestContext,
} from '../../src/core/context.ts'
import { GatewayError } from '../../src/core/errors.ts'
import { Decisions } from '../../src/limit/decisions.ts'
import { compileLimiter } from '../../src/limit/limiter.ts'
import { limitOptions } from '../../src/limit/options.ts'
import { createMemorySlots } from '../../src/limit/slots.ts'
import { createMemoryStore } from '../../src/limit/stores/memory.ts'
import { field, request } from './request.ts'

const NO_NAMES: ReadonlySet<string> = new Set()
const JSON_TYPE = ['Content-Type', 'application/json']
const EVENTS = ['Content-Type', 'text/event-stream']
const GONE = new GatewayError('client_gone', 'gone')

/** A body that the test sends. */
class Sent implements BodyStream {
  sink: BodySink | null = null
  isCancelled = false
  pipeTo(sink: BodySink): void {
    this.sink = sink
  }
  resume(): void {}
  cancel(): void {
    this.isCancelled = true
  }
}

const unread = (declaredBytes: number | null): RequestBody => ({
  declaredBytes,
  open() {
    throw new Error('The limits read no body.')
  },
})

const ignoring = (): BodySink & { chunks: string[] } => {
  const chunks: string[] = []
  return { chunks, write: (chunk) => chunks.push(chunk.toString()) > 0, end() {}, fail() {} }
}

function start(...yaml: readonly object[]) {
  const policies = yaml.map((each, i) => ({ name: `tpm${i}`, options: limitOptions.parse(each) }))
  const limiter = compileLimiter(policies, {
    quotas: createMemoryStore(),
    slots: createMemorySlots(),
    decisions: new Decisions(),
    clock: () => 1_795_341_600_000,
    random: () => 0,
  })
  const asked: { drop: ReadonlySet<string>; add: HeaderList }[] = []
  const used = () => limiter.explain(request()).map(({ limit, remaining }) => limit - remaining)

  /** A request of so many bytes that is let in. */
  const enter = (bytes: number | null = null): RequestContext => {
    const ctx = request()
    if (bytes !== null) ctx.body = unread(bytes)
    expect([limiter.check(ctx), limiter.checkMiss?.(ctx)]).toEqual([null, null])
    return ctx
  }

  /** Asks the upstream, which has that answer. */
  const call = async (ctx: RequestContext, status: number, headers: HeaderList, body: ReplyBody) => {
    ctx.wasForwarded = true
    const fetch = limiter.metered?.((_ctx, drop, add = []) => {
      asked.push({ drop, add })
      return {
        answer: Promise.resolve({ status, headers, framed: true, takeBody: () => body }),
        isSent: true,
        abort() {},
      }
    })
    const sent = fetch?.(ctx, NO_NAMES)
    if (sent === undefined) throw new Error('Nothing is metered.')
    return { abort: () => sent.abort(GONE), answer: await sent.answer }
  }

  const fail = async (ctx: RequestContext, workedOn?: number) => {
    ctx.wasForwarded = true
    const known = workedOn === undefined ? {} : { workedOn }
    const fetch = limiter.metered?.(() => ({ answer: Promise.reject(GONE), isSent: true, abort() {}, ...known }))
    await expect(fetch?.(ctx, NO_NAMES).answer).rejects.toBe(GONE)
  }

  return { limiter, asked, used, enter, call, fail }
}

const tokens = { unit: 'tokens', limit: 10_000, window: '1m', reserve: 1000 }
const usage = (input: number, output: number, cached = 0): Buffer =>
  Buffer.from(
    JSON.stringify({
      choices: [],
      usage: { prompt_tokens: input, completion_tokens: output, prompt_tokens_details: { cached_tokens: cached } },
    }),
  )

describe('a limit in tokens', () => {
  it('reserves beforehand, and says that it counts tokens', () => {
    const { enter, used } = start(tokens)
    const ctx = enter()
    expect(used()).toEqual([1000])
    expect(field(ctx.ownFields, 'RateLimit-Policy')).toBe('"tpm0";q=10000;w=60;gw-unit="tokens"')
    expect(field(ctx.ownFields, 'RateLimit')).toMatch(/^"tpm0";r=9000;/)
  })

  it('reserves no more than there is at once, or nobody would ever be let in', () => {
    const { enter, used } = start({ ...tokens, limit: 50, reserve: 100 })
    enter()
    expect(used()).toEqual([50])
  })

  it.each([
    ['what the answer says', 200, JSON_TYPE, usage(100, 200), 300],
    ['nothing for what its service had in its own cache', 200, JSON_TYPE, usage(100, 200, 80), 220],
    ['more than was reserved', 200, JSON_TYPE, usage(1000, 4000), 5000],
    [
      'the request and the answer by their length, where it does not say',
      200,
      JSON_TYPE,
      Buffer.from('"1234567"'),
      103,
    ],
    [
      'what was reserved at least, where nothing can be said',
      200,
      ['Content-Type', 'image/png'],
      Buffer.from('x'),
      1000,
    ],
    ['the request for an error', 500, JSON_TYPE, Buffer.from('{"error":"some text that costs nothing"}'), 100],
    ['an error that says what it used', 500, JSON_TYPE, usage(7, 5), 12],
    ['nothing for a refusal', 429, JSON_TYPE, Buffer.from('{"error":"rate"}'), 0],
    ['nothing for an overload', 503, JSON_TYPE, Buffer.from('{"error":"busy"}'), 0],
    ['the request for what has not changed', 304, [], null, 100],
  ])('charges %s', async (_what, status, headers, body, charged) => {
    const { enter, call, used } = start(tokens)
    const ctx = enter(400)
    const { answer } = await call(ctx, status, headers, body)
    expect(answer.takeBody()).toBe(body)
    ctx.end()
    expect(used()).toEqual([charged])
  })

  it.each([
    ['nothing where the request was not sent', 0, 400, 0],
    ['the request where it was', 1, 400, 100],
    ['each request where it was sent to several', 2, 400, 200],
    ['the request where nobody knows', undefined, 400, 100],
    ['something where it was and has no body', 1, null, 1],
  ])('charges %s', async (_what, workedOn, bytes, charged) => {
    const { enter, fail, used } = start(tokens)
    const ctx = enter(bytes)
    await fail(ctx, workedOn)
    ctx.end()
    expect(used()).toEqual([charged])
  })

  it('charges nothing where nobody was asked', () => {
    const { enter, used } = start(tokens)
    enter().end()
    expect(used()).toEqual([0])
  })

  it('charges what was reserved for a WebSocket', () => {
    const { enter, used } = start(tokens)
    const ctx = enter()
    ctx.wasForwarded = true
    ctx.end()
    expect(used()).toEqual([1000])
  })

  it('charges what was reserved where the length of the request is not known either', async () => {
    const { enter, call, used } = start(tokens)
    const ctx = enter()
    ctx.body = unread(null)
    ;(await call(ctx, 500, JSON_TYPE, null)).answer.takeBody()
    ctx.end()
    expect(used()).toEqual([1000])
  })

  it('has as much again as a debt at most, so that no call locks its client out for long', async () => {
    const { enter, call, used, limiter } = start({ ...tokens, burst: 10_000 })
    const ctx = enter()
    ;(await call(ctx, 200, JSON_TYPE, usage(0, 900_000))).answer.takeBody()
    ctx.end()
    expect(used()).toEqual([10_000])
    expect(limiter.explain(request())).toMatchObject([{ admitted: false, retry_after_s: 66 }])
  })

  it('is not charged twice by two policies that read the same', async () => {
    const { enter, call, used } = start(tokens, { ...tokens, usage: 'openai', limit: 5000 })
    const ctx = enter()
    ;(await call(ctx, 200, JSON_TYPE, usage(10, 20))).answer.takeBody()
    ctx.end()
    expect(used()).toEqual([30, 30])
  })

  it('reads fields of your own, each policy its own', async () => {
    const own = { input: '/meta/in', output: ['/meta/out', 'generated'] }
    const { enter, call, used } = start({ ...tokens, usage: own }, tokens)
    const ctx = enter()
    const body = Buffer.from('{"meta":{"in":3},"generated":4,"usage":{"prompt_tokens":50}}')
    ;(await call(ctx, 200, JSON_TYPE, body)).answer.takeBody()
    ctx.end()
    expect(used()).toEqual([7, 50])
  })

  it.each([
    [{ weights: { input: 2, cached: 0.5, output: 5 } }, 5000, 40 + 30 + 1000],
    [{ weights: { cached: 1 } }, 1000, 20 + 60 + 200],
    [{ weights: { output: 0 } }, 1, 20],
    [{ weights: { output: 0.3 }, reserve: 10 }, 3, 20 + 60],
  ])('weighs tokens by their kind: %j', async (weights, reserved, charged) => {
    const { enter, call, used } = start({ ...tokens, limit: 5000, ...weights })
    const ctx = enter()
    expect(used()).toEqual([reserved])
    ;(await call(ctx, 200, JSON_TYPE, usage(80, 200, 60))).answer.takeBody()
    ctx.end()
    expect(used()).toEqual([charged])
  })

  it('says in fields of their own how the tightest of those in tokens stands', () => {
    const { enter } = start(tokens, { ...tokens, limit: 4000 }, { limit: 1, window: '1h' })
    const { ownFields: fields } = enter()
    const told = ['X-RateLimit-Limit', 'X-RateLimit-Limit-Tokens', 'X-RateLimit-Remaining-Tokens']
    expect(told.map((name) => field(fields, name))).toEqual(['1', '4000', '3000'])
    expect(field(fields, 'X-RateLimit-Reset-Tokens')).toBe('1m6s')
  })

  it('leaves the fields of its upstream that it does not write itself', () => {
    expect(start(tokens).limiter.ownFields).toContain('x-ratelimit-remaining-tokens')
    expect(start({ ...tokens, mode: 'shadow' }).limiter.ownFields).toEqual(new Set())
    expect(start({ limit: 1, window: '1h' }).limiter.ownFields).not.toContain('x-ratelimit-remaining-tokens')
  })

  it('tells who is refused whose budget it was, what is counted, and when all of it is there again', async () => {
    const { enter, call, limiter } = start({ ...tokens, limit: 1000, key: ['ip', 'route'] })
    ;(await call(enter(), 200, JSON_TYPE, null)).answer.takeBody()
    const ctx = request()
    expect(limiter.check(ctx)).toBeNull()
    const reply = limiter.checkMiss?.(ctx) as Reply
    expect(JSON.parse((reply.body as Buffer).toString())).toMatchObject({
      detail: 'Policy tpm0: 1000 tokens per 60 s.',
      scope: 'ip route',
      unit: 'tokens',
      reset: 1_795_341_666,
    })
  })

  it('reserves what nine in ten have used, once it knows', async () => {
    const { enter, call, used } = start({ ...tokens, limit: 1_000_000, reserve: 'learned' })
    let before = 0
    const ask = async (): Promise<number> => {
      const ctx = enter(400)
      const reserved = (used()[0] as number) - before
      ;(await call(ctx, 200, JSON_TYPE, usage(100, 300))).answer.takeBody()
      ctx.end()
      before = used()[0] as number
      return reserved
    }
    const reserved: number[] = []
    for (let i = 0; i < 12; i++) reserved.push(await ask())
    expect(reserved.slice(0, 10)).toEqual(Array(10).fill(1000))
    expect(reserved[11]).toBeGreaterThanOrEqual(400)
    expect(reserved[11]).toBeLessThanOrEqual(480)
    expect(before).toBe(12 * 400)
  })

  it('lets a client of a small budget ask often enough to learn from', async () => {
    const { enter, call, used } = start({ ...tokens, limit: 1000, reserve: 'learned' })
    for (let i = 0; i < 12; i++) {
      const ctx = enter(400)
      ;(await call(ctx, 200, JSON_TYPE, usage(5, 10))).answer.takeBody()
      ctx.end()
    }
    expect(used()).toEqual([12 * 15])
  })

  it('asks for an answer that can be read', async () => {
    const { enter, call, asked } = start(tokens)
    await call(enter(), 200, JSON_TYPE, null)
    expect(asked).toEqual([{ drop: new Set(['accept-encoding']), add: ['Accept-Encoding', 'identity'] }])
  })
})

describe('a limit in money', () => {
  const money = { unit: 'cost', limit: 0.5, window: '1h', price: { input: 3, cached: 0.3, output: 15 }, reserve: 2000 }

  it('counts millionths of what tokens cost by the million', async () => {
    const { enter, call, used } = start(money)
    const ctx = enter()
    expect(used()).toEqual([30_000])
    expect(field(ctx.ownFields, 'RateLimit-Policy')).toBe('"tpm0";q=500000;w=3600;gw-unit="cost-millionths"')
    expect(field(ctx.ownFields, 'X-RateLimit-Limit-Tokens')).toBeUndefined()
    ;(await call(ctx, 200, JSON_TYPE, usage(1000, 500, 400))).answer.takeBody()
    ctx.end()
    expect(used()).toEqual([600 * 3 + 400 * 0.3 + 500 * 15])
  })

  it('takes what is cached for input where no price says otherwise', async () => {
    const { enter, call, used } = start({ ...money, price: { input: 3, output: 15 } })
    const ctx = enter()
    ;(await call(ctx, 200, JSON_TYPE, usage(1000, 0, 400))).answer.takeBody()
    ctx.end()
    expect(used()).toEqual([3000])
  })

  it('goes beside one in tokens, each in its own unit', async () => {
    const { enter, call, used } = start(money, tokens)
    const ctx = enter()
    ;(await call(ctx, 200, JSON_TYPE, usage(1000, 500))).answer.takeBody()
    ctx.end()
    expect(used()).toEqual([10_500, 1500])
  })
})

describe('a stream under a limit in tokens', () => {
  const event = (data: object | string): Buffer =>
    Buffer.from(`data: ${typeof data === 'string' ? data : JSON.stringify(data)}\n\n`)
  const word = (content: string) => event({ choices: [{ delta: { content } }] })

  async function streaming() {
    const world = start(tokens)
    const ctx = world.enter(400)
    const sent = new Sent()
    const { answer, abort } = await world.call(ctx, 200, EVENTS, sent)
    const body = answer.takeBody() as BodyStream
    const sink = ignoring()
    body.pipeTo(sink)
    return { ...world, ctx, body, sink, abort, sent: sent.sink as BodySink, upstream: sent }
  }

  it('is charged by what its events say, after its end', async () => {
    const { ctx, sent, sink, used } = await streaming()
    for (const chunk of [word('a'), event({ usage: { prompt_tokens: 30, completion_tokens: 40 } })]) sent.write(chunk)
    sent.end()
    expect(used()).toEqual([1000])
    ctx.end()
    expect(used()).toEqual([70])
    expect(sink.chunks).toHaveLength(2)
  })

  it('that its client has left is charged by what had come, with the request', async () => {
    const { ctx, sent, body, upstream, used } = await streaming()
    for (let i = 0; i < 50; i++) sent.write(word(`w${i}`))
    body.cancel()
    ctx.end()
    const [charged = 0] = used()
    expect(charged).toBeGreaterThanOrEqual(150)
    expect(charged).toBeLessThanOrEqual(175)
    expect(upstream.isCancelled).toBe(true)
  })

  it('that broke off is charged by what it had said, where that is more', async () => {
    const { ctx, sent, used } = await streaming()
    sent.write(event({ message: { usage: { input_tokens: 30, output_tokens: 500 } } }))
    sent.fail(GONE)
    ctx.end()
    expect(used()).toEqual([530])
  })

  it('that goes on for others is charged when it is over', async () => {
    const { ctx, sent, used } = await streaming()
    ctx.abort()
    ctx.end()
    expect(used()).toEqual([1000])
    sent.write(event({ usage: { prompt_tokens: 30, completion_tokens: 4000 } }))
    sent.end()
    expect(used()).toEqual([4030])
  })

  it('that nobody has begun to read is charged when its request is over', async () => {
    const world = start(tokens)
    const ctx = world.enter(400)
    await world.call(ctx, 200, EVENTS, new Sent())
    ctx.end()
    expect(world.used()).toEqual([100])
  })
})

describe('calls that come and go in any order', () => {
  interface Call {
    readonly bytes: number | null
    readonly words: number
    /** Input and output tokens that it says it has used. */
    readonly told: readonly [number, number] | null
    readonly ends: 'end' | 'fail' | 'cancel'
    /** Its client goes that many steps after it has come: before its end, or after it. */
    readonly leavesAt: number
  }

  const calls = fc.array(
    fc.record<Call>({
      bytes: fc.option(fc.nat(5000)),
      words: fc.nat(5),
      told: fc.option(fc.tuple(fc.nat(3000), fc.nat(3000))),
      ends: fc.constantFrom('end', 'fail', 'cancel'),
      leavesAt: fc.nat(8),
    }),
    { minLength: 1, maxLength: 5 },
  )

  type World = ReturnType<typeof start>

  /** Each step of a call, to be taken one after the other. */
  async function stepsOf({ enter, call }: World, { bytes, words, told, ends, leavesAt }: Call) {
    const ctx = enter(bytes)
    const sent = new Sent()
    const body = (await call(ctx, 200, EVENTS, sent)).answer.takeBody() as BodyStream
    body.pipeTo(ignoring())
    const sink = sent.sink as BodySink
    const say = (data: object) => sink.write(Buffer.from(`data: ${JSON.stringify(data)}\n\n`))
    const steps: (() => void)[] = Array.from({ length: words }, (_, i) => () => void say({ word: `w${i}` }))
    if (told !== null) steps.push(() => void say({ usage: { prompt_tokens: told[0], completion_tokens: told[1] } }))
    steps.push(() => (ends === 'end' ? sink.end() : ends === 'fail' ? sink.fail(GONE) : body.cancel()))
    steps.splice(leavesAt, 0, () => ctx.end())
    return steps
  }

  const world = () => start({ ...tokens, limit: 1_000_000_000 })

  it('are charged as if each had been alone and its client had stayed, once', async () => {
    await fc.assert(
      fc.asyncProperty(calls, fc.array(fc.nat(4), { maxLength: 60 }), async (all, order) => {
        let sum = 0
        for (const each of all) {
          const alone = world()
          for (const step of await stepsOf(alone, { ...each, leavesAt: Infinity })) step()
          sum += alone.used()[0] as number
        }
        const together = world()
        const steps: (() => void)[][] = []
        for (const each of all) steps.push(await stepsOf(together, each))
        for (const i of order) steps[i % steps.length]?.shift()?.()
        for (const rest of steps) for (const step of rest) step()
        expect(together.used()).toEqual([sum])
      }),
      { numRuns: 50 },
    )
  })
})
