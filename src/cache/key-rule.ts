// What tells the answers of one route apart, compiled from `key`, `scope` and the method: the key of a request is its URL,
// and behind that a word for each further thing that counts.
//
//   http://a.test/x?b=1                                the URL alone, where the route says no more
//   http://a.test/x?b=1 LF with:DIGEST user:DIGEST     fields and cookies that the key names, and who asks
//   http://a.test/x LF POST body:DIGEST                a method with a body
//   http://a.test/x LF as:DIGEST                       a GET for events, where such answers are stored
//   http://a.test/x LF canary                          what the route's canary answers, another upstream
//
// Keys are read by operators, so what is secret or long is in them as a digest (digest.ts). What the upstream is asked
// for is never changed.

import type { HeaderList, RequestContext } from '../core/context.ts'
import { getCombined, getHeaders } from '../http/headers.ts'
import { type CredentialFields, WELL_KNOWN } from '../http/credentials.ts'
import { cookieValues, readCookies } from '../http/cookies.ts'
import { type BodyKeyOptions, type BodyKeyPart, compileBodyKey, shownBody } from './body-key.ts'
import type { Condition } from './condition.ts'
import { digestOf, digestWith } from './digest.ts'
import { selectingValue } from './entry.ts'
import { urlOf } from './key.ts'
import { KnownDocuments, graphqlQuery } from './graphql-key.ts'
import { isKeyedByBody } from './methods.ts'
import { type QueryKeyOptions, type QueryRule, compileMeaning, compileQueryRule } from './query-key.ts'
import type { Reason } from './reasons.ts'
import { userOf } from './user.ts'

export interface KeyRuleOptions {
  readonly query?: QueryKeyOptions | undefined
  /** Lower-case names of request fields. */
  readonly headers?: readonly string[] | undefined
  readonly cookies?: readonly string[] | undefined
  /** For methods with a body; default raw, which takes nothing to be the same that is not. */
  readonly body?: BodyKeyOptions | undefined
}

type Asking = Parameters<typeof urlOf>[0] & Pick<RequestContext, 'method' | 'user'>

export interface KeyRule {
  /** The key of a GET or HEAD, or of a GET of the same URL; null where users are to be told apart and it does not say
   *  who asks. */
  readonly ofGet: (request: Asking) => string | null
  /** The same of a request that is told apart by its method and body. part: what bodyPart() says of that. */
  readonly ofBody: (request: Asking, part: string) => string | null
  readonly bodyPart: (headers: HeaderList, body: Buffer) => BodyKeyPart
  /** What makes the key of a request, as names and values for people; null: absent. body: null where it does not count. */
  readonly parts: (request: Asking, body: Buffer | null) => readonly (readonly [name: string, value: string | null])[]
  /** How queries are spelt in the keys; null: as they came. */
  readonly query: QueryRule | null
  /** Requests are those of GraphQL, whose parts are all settled. */
  readonly isGraphql: boolean
  /** Why a request has no key. */
  readonly whyNone: (request: Asking) => Reason
  /** Stands for the rule: what was stored under another one is not looked at. */
  readonly id: string
}

/** What a rule depends on beside `key`. */
export interface KeySetup {
  /** The fields that tell users apart. */
  readonly credentials?: CredentialFields
  /** Of a body of which one of these holds, there is no key. */
  readonly bypassIf?: readonly Condition[]
  /** What digests in keys are made with; by default nothing. */
  readonly secret?: string | null
  /** For keys of GraphQL. */
  readonly documents?: KnownDocuments
  /** All keys say that they are of the canary. */
  readonly isCanary?: boolean
  /** Answers to GET may be streams of events. */
  readonly hasStreams?: boolean
}

/** isPerUser: each user has keys of their own. */
export function compileKeyRule(options: KeyRuleOptions, isPerUser: boolean, setup: KeySetup = {}): KeyRule {
  const { query, cookies = [], body = 'raw' } = options
  const isGraphql = body === 'graphql'
  // By that field servers choose a media type, and with it the status of an answer that has errors.
  const headers = isGraphql ? [...new Set([...(options.headers ?? []), 'accept'])] : (options.headers ?? [])
  const { credentials = WELL_KNOWN, bypassIf = [], secret = null, isCanary = false, hasStreams = false } = setup
  const { documents = new KnownDocuments() } = setup
  const digest = digestWith(secret)
  const id = digestOf([JSON.stringify(options), String(isPerUser)]).slice(0, 16)
  const queryRule = isGraphql ? graphqlRule(documents) : query === undefined ? null : compileQueryRule(query)
  const bodyPart = compileBodyKey(body, bypassIf, documents)
  const cookieParts = cookies.length === 0 ? () => [] : compileCookieParts(cookies)
  const isPlain = headers.length === 0 && cookies.length === 0 && !isPerUser && !isCanary
  const url = (request: Asking): string =>
    queryRule === null ? urlOf(request) : urlOf(request, queryRule(request.query))

  const spelling = (request: Asking) => graphqlQuery(request.query, isKeyedByBody(request.method), documents)

  function keyOf(request: Asking, first: readonly string[]): string | null {
    const spelt = isGraphql ? spelling(request) : null
    if (typeof spelt === 'string') return null
    const where = spelt === null ? url(request) : urlOf(request, spelt.query)
    const words = [...first]
    const values = [...fieldValues(request, headers), ...cookieParts(request)]
    if (values.length > 0) words.push(`with:${digest(values)}`)
    if (isPerUser) {
      const user = userOf(request, credentials, digest)
      if (user === null) return null
      words.push(`user:${user}`)
    }
    if (isCanary) words.push('canary')
    return words.length === 0 ? where : `${where}\n${words.join(' ')}`
  }

  function keyOfGet(request: Asking): string | null {
    const representation = hasStreams ? representationFor(request.headers) : ''
    return keyOf(request, representation === '' ? [] : [`as:${digest([representation])}`])
  }

  return {
    ofGet: isPlain && !hasStreams ? url : keyOfGet,
    ofBody: (request, part) =>
      keyOf(request, [request.method, `body:${digest([representationFor(request.headers), part])}`]),
    bodyPart,
    parts(request, body) {
      const parts: [string, string | null][] = [['url', url(request)]]
      if (isKeyedByBody(request.method)) parts.push(['method', request.method])
      for (const name of headers) parts.push([`header ${name}`, selectingValue(request.headers, name)])
      const sent = cookies.length === 0 ? null : readCookies(request.headers)
      for (const name of cookies) {
        const values = sent === null ? getHeaders(request.headers, 'cookie') : cookieValues(sent, name)
        parts.push([`cookie ${name}`, values.length === 0 ? null : values.join('; ')])
      }
      if (isPerUser) parts.push(['user', userOf(request, credentials, digest)])
      if (isCanary) parts.push(['upstream', 'canary'])
      if (body !== null) parts.push(['body', shownBody(options.body ?? 'raw', body)])
      return parts
    },
    query: queryRule,
    isGraphql,
    whyNone(request) {
      const spelt = isGraphql ? spelling(request) : null
      return typeof spelt === 'string' ? spelt : 'no-user'
    },
    id,
  }
}

/** How the queries of URLs are spelt in keys where they may have an operation in them. */
export const graphqlRule =
  (documents: KnownDocuments): QueryRule =>
  (query) => {
    const spelt = graphqlQuery(query, false, documents)
    return typeof spelt === 'string' ? query : spelt.query
  }

/** What kind of answer is asked for, where the answers to one body differ in that and seldom say so by Vary: events as they
 *  come, or one whole, or of a stream the rest that a client has not had. */
function representationFor(headers: HeaderList): string {
  const accept = getCombined(headers, 'accept')?.toLowerCase() ?? ''
  const types = STREAMED.filter((type) => accept.includes(type)).join(' ')
  const lastEventId = getCombined(headers, 'last-event-id')
  return lastEventId === null ? types : `${types}\n${lastEventId}`
}

const STREAMED = ['text/event-stream', 'ndjson', 'json-seq', 'jsonl', 'stream+json'] as const

/** Names and values in turn; two of the same meaning have one spelling, as with Vary. */
const fieldValues = ({ headers }: Asking, names: readonly string[]): (string | null)[] =>
  names.flatMap((name) => [name, selectingValue(headers, name)])

/** As many as browsers keep for a site; more would take long to tell apart. */
const MAX_COOKIES = 180

/** Reads the named cookies, or the whole fields where those cannot be read in one way only. */
function compileCookieParts(names: readonly string[]): (request: Pick<Asking, 'headers'>) => (string | null)[] {
  const isNamed = compileMeaning(names)
  return ({ headers }) => {
    const cookies = readCookies(headers)
    if (cookies === null || cookies.length > 2 * MAX_COOKIES) return ['', ...getHeaders(headers, 'cookie')]
    const counting = cookies.filter((_, i) => isNamed(cookies[i - (i % 2)] as string))
    // What only some servers take for a named one counts with all others, in their order.
    const isExact = counting.every((name, i) => i % 2 === 1 || names.includes(name))
    if (!isExact) return ['', '', ...counting]
    return names.flatMap((name) => {
      const values = cookieValues(counting, name)
      return [name, String(values.length), ...values]
    })
  }
}
