// Any sequence of requests, origin answers, purges and clock steps, against a cache model that is slow and obviously
// right; and any interleaving of requests, of which is asked what no cache may ever do. The words that they are made of
// are few on purpose: no heuristics, one selecting field, no parts. WEIRGATE_MODEL_RUNS runs more of them.

import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { purge } from '../../src/cache/purge.ts'
import type { HeaderList } from '../../src/core/context.ts'
import { GatewayError } from '../../src/core/errors.ts'
import { type Asked, type Asking, type Bench, createBench, settle } from '../support/cache.ts'

const RUNS = Number(process.env['WEIRGATE_MODEL_RUNS'] ?? 400)
const ROUTE = { stale: { whileRevalidate: '10s', ifError: '60s' }, tags: ['things'] }
const HOST = 'http://gateway.test'

interface Request {
  readonly method: 'GET' | 'HEAD' | 'POST'
  readonly path: string
  readonly language: string | null
  readonly user: string | null
  readonly ifNoneMatch: string | null
  readonly wantsPart: boolean
}

/** What the origin answers when it is asked. */
interface Answer {
  readonly fails: boolean
  readonly status: number
  readonly control: string | null
  readonly vary: string | null
  readonly etag: string | null
  readonly age: number
  readonly setsCookie: boolean
}

type Purge =
  | { readonly urls: string[] }
  | { readonly tags: string[] }
  | { readonly prefix: string }
  | { readonly all: true }

const PATHS = ['/a', '/a/x', '/b']
const request: fc.Arbitrary<Request> = fc
  .record({
    method: fc.constantFrom('GET', 'GET', 'GET', 'GET', 'HEAD', 'POST'),
    path: fc.constantFrom(...PATHS),
    language: fc.constantFrom(null, null, 'en', 'de'),
    user: fc.constantFrom(null, null, null, 'Authorization: ann', 'Authorization: bob', 'Cookie: cat'),
    ifNoneMatch: fc.constantFrom(null, null, null, '"1"'),
    wantsPart: fc.constantFrom(false, false, false, false, true),
  } as const)
  .filter(({ ifNoneMatch, wantsPart }) => ifNoneMatch === null || !wantsPart)
const answer: fc.Arbitrary<Answer> = fc.record({
  fails: fc.constantFrom(false, false, false, false, false, true),
  status: fc.constantFrom(200, 200, 200, 200, 200, 404, 500, 503),
  control: fc.constantFrom(
    null,
    'max-age=10',
    'max-age=10',
    'max-age=10',
    'public, max-age=10',
    's-maxage=20',
    'max-age=10, must-revalidate',
    'max-age=0',
    'no-cache',
    'max-age=10, no-cache',
    'private, max-age=10',
    'no-store',
  ),
  vary: fc.constantFrom(null, null, 'X-Language', 'X-Language', '*'),
  etag: fc.constantFrom(null, '"1"', '"1"', '"2"'),
  age: fc.constantFrom(0, 0, 0, 5, 15),
  setsCookie: fc.constantFrom(false, false, false, false, true),
})
const purging = fc.oneof<fc.Arbitrary<Purge>[]>(
  fc.constantFrom(...PATHS).map((path) => ({ urls: [`${HOST}${path}`] })),
  fc.constant({ tags: ['things'] }),
  fc.constantFrom('/a', '/b').map((prefix) => ({ prefix })),
  fc.constant({ all: true } as const),
)
const seconds = fc.constantFrom(1, 2, 5, 9, 12, 25, 61, 130)

const fieldsOf = ({ language, user, ifNoneMatch, wantsPart }: Request): string[] => [
  ...(language === null ? [] : ['X-Language', language]),
  ...(user === null ? [] : user.split(': ')),
  ...(ifNoneMatch === null ? [] : ['If-None-Match', ifNoneMatch]),
  ...(wantsPart ? ['Range', 'bytes=0-1'] : []),
]

const fieldsFrom = ({ control, vary, etag, age, setsCookie }: Answer): string[] => [
  ...(control === null ? [] : ['Cache-Control', control]),
  ...(vary === null ? [] : ['Vary', vary]),
  ...(etag === null ? [] : ['ETag', etag]),
  ...(age === 0 ? [] : ['Age', String(age)]),
  ...(setsCookie ? ['Set-Cookie', 'c=1'] : []),
]

const isPurged = (path: string, rule: Purge): boolean =>
  'urls' in rule ? rule.urls.includes(`${HOST}${path}`) : 'prefix' in rule ? path.startsWith(rule.prefix) : true

/** What a client can tell, and how often the origin has been asked until then. */
interface Seen {
  readonly word: string
  readonly answered: string
  readonly asked: number
}

/** A stored answer, times in seconds. */
interface Entry extends Answer {
  readonly path: string
  readonly language: string | null
  readonly body: string
  readonly freshUntil: number
  readonly originFreshUntil: number
  readonly whileRevalidateUntil: number
  readonly ifErrorUntil: number
}

const isError = (status: number): boolean => status >= 500
const withoutUser = (request: Request): boolean => request.user === null
const needsLeave = ({ user }: Request): boolean => user?.startsWith('Authorization') === true
const says = ({ control }: Answer, ...words: readonly string[]): boolean =>
  words.some((word) => control?.includes(word) === true)

/** A shared cache by RFC 9111, one request after another. */
class Model {
  /** In seconds, and as the bench does not begin with 0 either. */
  now = 1_000_000
  asked = 0
  /** The newest first. */
  entries: Entry[] = []
  /** Until when a URL is asked for with the client's own condition, because its last answer could not be stored. */
  readonly hopelessUntil = new Map<string, number>()
  /** After a failed refresh. */
  readonly pauses = new Map<string, { readonly until: number; readonly length: number }>()

  request(request: Request, answer: Answer): Seen {
    const [word, answered] = this.decide(request, answer)
    return { word, answered: seenBy(request, answered), asked: this.asked }
  }

  forget(isGone: (path: string) => boolean): void {
    this.entries = this.entries.filter(({ path }) => !isGone(path))
  }

  decide(request: Request, answer: Answer): [word: string, answered: string] {
    const { method, path } = request
    if (method === 'POST') {
      const [, answered] = this.pass(request, answer)
      if (!answer.fails && answer.status < 400) this.forget((other) => other === path)
      return ['BYPASS', answered]
    }
    const selected = this.selected(request)
    const fresh = selected.find(({ freshUntil }) => freshUntil > this.now)
    if (fresh !== undefined) {
      if (this.mayUse(request, fresh, this.now)) return ['HIT', shown(request, fresh)]
      return ['BYPASS', this.pass(request, answer)[1]]
    }
    const stale = selected.find((entry) => this.mayUse(request, entry, 0)) ?? null
    if (stale !== null) {
      const isPaused = this.isPaused(path)
      if (isPaused && stale.ifErrorUntil > this.now) return ['STALE', shown(request, stale)]
      if (stale.whileRevalidateUntil > this.now) {
        if (!isPaused) this.lead({ ...request, method: 'GET', ifNoneMatch: null, wantsPart: false }, answer, stale)
        return ['STALE', shown(request, stale)]
      }
    }
    return method === 'HEAD' ? this.head(request, answer, stale) : this.lead(request, answer, stale)
  }

  selected = ({ path, language }: Request): Entry[] =>
    this.entries.filter((entry) => entry.path === path && (entry.vary === null || entry.language === language))

  /** §3.5, and what the gateway asks for beyond it: freshness by the origin's own word. */
  mayUse = (request: Request, entry: Entry, at: number): boolean =>
    withoutUser(request) || (entry.originFreshUntil > at && (!needsLeave(request) || isShared(entry)))

  isPaused = (path: string): boolean => (this.pauses.get(path)?.until ?? 0) > this.now

  /** Asks the origin for this client alone. */
  pass(request: Request, answer: Answer): [word: string, answered: string] {
    const number = this.asked++
    if (answer.fails) return ['MISS', 'upstream_refused']
    const isUnchanged = answer.status === 200 && answer.etag !== null && request.ifNoneMatch === answer.etag
    return ['MISS', isUnchanged && request.method !== 'POST' ? '304 ' : `${answer.status} ${bodyOf(number, request)}`]
  }

  /** §4.3.5 */
  head(request: Request, answer: Answer, stale: Entry | null): [word: string, answered: string] {
    const [word, answered] = this.pass(request, answer)
    if (answer.fails || isError(answer.status)) return this.orStale(request, stale) ?? [word, answered]
    if (stale !== null && stale.etag !== null && stale.status === 200 && answered.startsWith('200')) {
      if (answer.etag === stale.etag) this.freshen(request, stale, answer)
    }
    return [word, answered]
  }

  orStale = (request: Request, stale: Entry | null): [word: string, answered: string] | null =>
    stale === null || stale.ifErrorUntil <= this.now || isError(stale.status) ? null : ['STALE', shown(request, stale)]

  /** §4.3, §3 */
  lead(request: Request, answer: Answer, stale: Entry | null): [word: string, answered: string] {
    const { path } = request
    const memory = withoutUser(request) ? path : `${path} with user`
    const isHopeless = (this.hopelessUntil.get(memory) ?? 0) > this.now
    const validated = stale !== null && stale.etag !== null && !request.wantsPart ? stale : null
    const condition = validated !== null ? validated.etag : isHopeless ? request.ifNoneMatch : null
    const number = this.asked++
    if (answer.fails || isError(answer.status)) {
      if (stale !== null) this.pause(path)
      const instead = this.orStale(request, stale)
      if (instead !== null) return instead
      if (answer.fails) return ['MISS', 'upstream_refused']
    } else this.pauses.delete(path)
    const is304 = answer.status === 200 && answer.etag !== null && condition === answer.etag
    if (is304 && validated !== null) {
      const entry = this.freshen(request, validated, answer)
      this.remember(memory, entry)
      return ['REVALIDATED', shown(request, validated)]
    }
    if (is304) return ['MISS', '304 ']
    const isWithdrawn = answer.status === 404 || says(answer, 'no-store', 'private')
    if (stale !== null && !request.wantsPart && isWithdrawn && withoutUser(request))
      this.forget((other) => other === path)
    const body = bodyOf(number, request)
    const entry = this.store(request, answer, body)
    if (entry !== null || answer.status < 500) this.remember(memory, entry)
    return ['MISS', shown({ ...request, wantsPart: false }, { ...answer, body })]
  }

  remember(memory: string, entry: Entry | null): void {
    if (entry !== null && entry.freshUntil > this.now) this.hopelessUntil.delete(memory)
    else this.hopelessUntil.set(memory, this.now + 120)
  }

  pause(path: string): void {
    const last = this.pauses.get(path)
    if (this.isPaused(path)) return
    const length = last === undefined ? 1 : Math.min(2 * last.length, 60)
    this.pauses.set(path, { until: this.now + length, length })
  }

  /** §4.3.4: the stored answer with the fields of the newer one. */
  freshen(request: Request, stored: Entry, answer: Answer): Entry | null {
    const merged = { ...answer, status: stored.status, setsCookie: false, ...kept(stored, answer) }
    const entry = this.store(request, merged, stored.body)
    if (request.method === 'GET' && entry === null && says(merged, 'no-store', 'private') && withoutUser(request)) {
      this.forget((other) => other === request.path)
    }
    return entry
  }

  /** §3; null when it may not be stored. */
  store(request: Request, answer: Answer, body: string): Entry | null {
    const { vary, etag, age, status } = answer
    if (says(answer, 'no-store', 'private') || vary === '*' || answer.setsCookie) return null
    if (needsLeave(request) && !isShared(answer)) return null
    const lifetime = /age=(\d+)/.exec(answer.control ?? '')?.[1] ?? null
    if (lifetime === null && (!withoutUser(request) || !says(answer, 'no-cache') || isError(status))) return null
    const originFresh = Number(lifetime ?? 0) - age
    const fresh = says(answer, 'no-cache') ? Math.min(0, originFresh) : originFresh
    if (fresh <= 0 && (etag === null || !withoutUser(request))) return null
    const [whileRevalidate, ifError] = says(answer, 'must-revalidate', 'no-cache', 's-maxage') ? [0, 0] : [10, 60]
    const freshUntil = this.now + (says(answer, 'no-cache') ? 0 : fresh)
    const entry: Entry = {
      ...answer,
      path: request.path,
      language: vary === null ? null : request.language,
      body,
      freshUntil,
      originFreshUntil: originFresh <= 0 ? 0 : this.now + originFresh,
      whileRevalidateUntil: freshUntil + whileRevalidate,
      ifErrorUntil: freshUntil + ifError,
    }
    const isReplaced = (other: Entry) =>
      other.path === entry.path && (other.vary === null || other.language === entry.language)
    this.entries = [entry, ...this.entries.filter((other) => !isReplaced(other))]
    return entry
  }
}

const isShared = (answer: Answer): boolean => says(answer, 'public', 's-maxage', 'must-revalidate')
const kept = (stored: Answer, { control, vary, etag }: Answer): Pick<Answer, 'control' | 'vary' | 'etag'> => ({
  control: control ?? stored.control,
  vary: vary ?? stored.vary,
  etag: etag ?? stored.etag,
})

/** Says all of which it is the answer to, so that one that came to somebody else would show. */
const bodyOf = (number: number, { path, language, user }: Request): string =>
  `#${number} ${path} ${language ?? 'any'} ${user ?? 'nobody'}`

/** A HEAD gets no body. */
const seenBy = ({ method }: Request, answered: string): string =>
  method === 'HEAD' && /^\d/.test(answered) ? answered.slice(0, 3) : answered

/** What a client gets of a whole answer. */
function shown(request: Request, { status, etag, body }: Pick<Entry, 'status' | 'etag' | 'body'>): string {
  if (status === 200 && etag !== null && request.ifNoneMatch === etag) return '304 '
  return status === 200 && request.wantsPart && request.method === 'GET'
    ? `206 ${body.slice(0, 2)}`
    : `${status} ${body}`
}

const REFUSED = new GatewayError('upstream_refused', 'Nobody listens there.')

/** Answers a fetch as the origin of the model would. */
function answerFetch(asked: Asked, number: number, request: Request, answer: Answer): void {
  const condition = valueOf(asked.headers, 'if-none-match')
  if (answer.fails) asked.fail(REFUSED)
  else if (answer.status === 200 && answer.etag !== null && condition === answer.etag && request.method !== 'POST') {
    asked.reply(fieldsFrom(answer), null, 304)
  } else asked.reply(fieldsFrom(answer), bodyOf(number, request), answer.status)
}

function valueOf(headers: HeaderList, lowerName: string): string | null {
  const at = headers.findIndex((text, i) => i % 2 === 0 && text.toLowerCase() === lowerName)
  return at < 0 ? null : (headers[at + 1] as string)
}

const wordOf = ({ ctx }: Asking): string => valueOf(ctx.ownFields, 'x-cache') ?? 'none'

const outcomeOf = (asking: Asking): Promise<string> =>
  asking.outcome().catch((error: unknown) => (error instanceof GatewayError ? error.code : String(error)))

async function ask(bench: Bench, request: Request, answer: Answer): Promise<Seen> {
  const before = bench.asked.length
  const asking = bench.ask({ method: request.method, path: request.path, headers: fieldsOf(request) })
  await settle()
  // Who is asked a second time for the same thing is asked for nothing.
  for (let i = before; i < bench.asked.length && i < before + 3; i++) {
    answerFetch(bench.asked[i] as Asked, i, request, answer)
    await settle()
  }
  const answered = await outcomeOf(asking)
  return { word: wordOf(asking), answered: seenBy(request, answered), asked: bench.asked.length }
}

type Step =
  | { readonly do: 'ask'; readonly request: Request; readonly answer: Answer }
  | { readonly do: 'purge'; readonly rule: Purge }
  | { readonly do: 'wait'; readonly seconds: number }

describe('a route cache', () => {
  it('does to any sequence of requests what an obviously right cache does', async () => {
    const step: fc.Arbitrary<Step> = fc.oneof(
      { weight: 8, arbitrary: fc.record({ do: fc.constant('ask' as const), request, answer }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('purge' as const), rule: purging }) },
      { weight: 3, arbitrary: fc.record({ do: fc.constant('wait' as const), seconds }) },
    )
    const sequence = fc.asyncProperty(fc.array(step, { maxLength: 40, size: 'max' }), async (steps) => {
      const bench = createBench(ROUTE)
      const model = new Model()
      for (const each of steps) {
        const [ours, right] = await take(bench, model, each)
        expect(ours).toEqual(right)
      }
      expect([bench.shared.flights.size, bench.shared.fillBytes]).toEqual([0, 0])
    })
    await fc.assert(sequence, { numRuns: RUNS })
  }, 600_000)

  it('gives nobody what is of another URL, variant or user, or from before a purge, however requests interleave', async () => {
    const act: fc.Arbitrary<Act> = fc.oneof(
      { weight: 6, arbitrary: fc.record({ do: fc.constant('ask' as const), request, isDelayed: fc.boolean() }) },
      { weight: 6, arbitrary: fc.record({ do: fc.constant('answer' as const), which: fc.nat(20), answer }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('purge' as const), rule: purging }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('leave' as const), which: fc.nat(20) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('wait' as const), seconds }) },
      { weight: 2, arbitrary: fc.constant({ do: 'settle' as const }) },
    )
    await fc.assert(fc.asyncProperty(fc.array(act, { maxLength: 60, size: 'max' }), interleave), { numRuns: RUNS })
  }, 600_000)
})

/** Does one step with both; answers what each had to say to it. */
async function take(bench: Bench, model: Model, step: Step): Promise<[ours: Seen | null, right: Seen | null]> {
  if (step.do === 'ask') {
    // What else an origin may answer to who asks for a part: test/cache/parts.test.ts.
    const answer = step.request.wantsPart ? { ...step.answer, status: 200 } : step.answer
    return [await ask(bench, step.request, answer), model.request(step.request, answer)]
  }
  if (step.do === 'wait') {
    bench.nowMs += step.seconds * 1000
    model.now += step.seconds
  } else {
    await purge(bench.shared, step.rule)
    model.forget((path) => isPurged(path, step.rule))
  }
  return [null, null]
}

type Act =
  | { readonly do: 'ask'; readonly request: Request; readonly isDelayed: boolean }
  | { readonly do: 'answer'; readonly which: number; readonly answer: Answer }
  | { readonly do: 'leave'; readonly which: number }
  | { readonly do: 'settle' }
  | Exclude<Step, { readonly do: 'ask' }>

/** When something happened: the how-manieth act it was. */
interface Fetched {
  readonly at: number
  readonly request: Request
  readonly answer: Answer
}

async function interleave(acts: readonly Act[]): Promise<void> {
  const bench = createBench(ROUTE)
  const asks: { readonly at: number; readonly request: Request; readonly asking: Asking }[] = []
  const purges: { readonly at: number; readonly rule: Purge }[] = []
  const sentAt: number[] = []
  const fetched = new Map<number, Fetched>()
  let now = 0

  const noteSent = () => {
    while (sentAt.length < bench.asked.length) sentAt.push(now)
  }
  const pending = () => bench.asked.flatMap((each, i) => (fetched.has(i) || each.aborted !== null ? [] : [i]))
  const answerOne = (number: number, answer: Answer) => {
    const asked = bench.asked[number] as Asked
    const request = requestAt(asked)
    fetched.set(number, { at: sentAt[number] as number, request, answer })
    answerFetch(asked, number, request, answer)
  }
  for (const act of acts) {
    now++
    if (act.do === 'wait') bench.nowMs += act.seconds * 1000
    else if (act.do === 'purge') {
      await purge(bench.shared, act.rule)
      purges.push({ at: now, rule: act.rule })
    } else if (act.do === 'ask') {
      const { method, path } = act.request
      // What an origin answers to a request for a part is another matter: test/cache/parts.test.ts.
      const request = { ...act.request, wantsPart: false }
      const asking = bench.ask({ method, path, headers: fieldsOf(request), isDelayed: act.isDelayed })
      asks.push({ at: now, request, asking })
    } else if (act.do === 'answer') {
      const open = pending()
      const number = open[act.which % open.length]
      if (number !== undefined) answerOne(number, act.answer)
    } else if (act.do === 'leave') asks[act.which % asks.length]?.asking.abort()
    else await settle()
    noteSent()
  }
  const last: Answer = { fails: false, status: 200, control: null, vary: null, etag: null, age: 0, setsCookie: false }
  for (let rounds = 0; rounds < 2 * asks.length + 2; rounds++) {
    await settle()
    noteSent()
    for (const number of pending()) answerOne(number, last)
  }
  for (const { at, request, asking } of asks) {
    if (asking.ctx.aborted) continue
    const text = /^200 (.*)$/.exec(await outcomeOf(asking))?.[1] ?? ''
    if (text === '') continue
    const number = Number(/^#(\d+)/.exec(text)?.[1])
    const from = fetched.get(number)
    if (from === undefined) throw new Error(`nobody has sent ${text}`)
    expect(text).toBe(bodyOf(number, from.request))
    expect(from.request.path).toBe(request.path)
    const isVariant = from.answer.vary === null || from.request.language === request.language
    const isOthers = from.request.user !== request.user && !mayBeShared(from)
    expect({ text, isVariant, isOthers }).toEqual({ text, isVariant: true, isOthers: false })
    for (const before of purges.filter((each) => each.at < at && isPurged(request.path, each.rule))) {
      expect(from.at, `${text} came from before a purge`).toBeGreaterThanOrEqual(before.at)
    }
  }
  expect([bench.shared.flights.size, bench.shared.fillBytes]).toEqual([0, 0])
}

/** By its own word, with whoever asked for it. */
function mayBeShared({ request, answer }: Fetched): boolean {
  if (says(answer, 'no-store', 'private') || answer.vary === '*' || answer.setsCookie) return false
  if (needsLeave(request)) return isShared(answer)
  return withoutUser(request) || says(answer, 'age=')
}

/** What the origin sees of a request. */
const requestAt = ({ ctx, headers }: Asked): Request => ({
  method: ctx.method as Request['method'],
  path: ctx.path,
  language: valueOf(headers, 'x-language'),
  user:
    ['Authorization', 'Cookie']
      .map((name) => [name, valueOf(headers, name.toLowerCase())])
      .filter(([, value]) => value !== null)
      .map((pair) => pair.join(': '))
      .join() || null,
  ifNoneMatch: null,
  wantsPart: false,
})
