// What tells the answers of one route apart, compiled from `key`, `scope` and the method: the key of a request is its URL,
// and behind that a word for each further thing that counts.
//
//   http://a.test/x?b=1                                the URL alone, where the route says no more
//   http://a.test/x?b=1 LF with:DIGEST user:DIGEST     fields and cookies that the key names, and who asks
//
// Keys are read by operators, so what is secret or long is in them as a digest (digest.ts). What the upstream is asked
// for is never changed.

import type { RequestContext } from '../core/context.ts'
import { getHeaders } from '../http/headers.ts'
import { cookieValues, readCookies } from '../http/cookies.ts'
import { digestOf } from './digest.ts'
import { selectingValue } from './entry.ts'
import { urlOf } from './key.ts'
import { type QueryKeyOptions, type QueryRule, compileQueryRule } from './query-key.ts'
import { userOf } from './user.ts'

export interface KeyRuleOptions {
  readonly query?: QueryKeyOptions | undefined
  /** Lower-case names of request fields. */
  readonly headers?: readonly string[] | undefined
  readonly cookies?: readonly string[] | undefined
}

type Asking = Parameters<typeof urlOf>[0] & Pick<RequestContext, 'method'>

export interface KeyRule {
  /** The key of a request; null where users are to be told apart and it does not say who asks. */
  readonly of: (request: Asking) => string | null
  /** How queries are spelt in the keys; null: as they came. */
  readonly query: QueryRule | null
  /** Stands for the rule: what was stored under another one is not looked at. */
  readonly id: string
}

/** isPerUser: each user has keys of their own. */
export function compileKeyRule(options: KeyRuleOptions, isPerUser: boolean): KeyRule {
  const { query, headers = [], cookies = [] } = options
  const id = digestOf([JSON.stringify(options), String(isPerUser)]).slice(0, 16)
  const queryRule = query === undefined ? null : compileQueryRule(query)
  const url = (request: Asking): string =>
    queryRule === null ? urlOf(request) : urlOf(request, queryRule(request.query))
  if (headers.length === 0 && cookies.length === 0 && !isPerUser) return { of: url, query: queryRule, id }

  return {
    of(request) {
      const words: string[] = []
      const values = [...fieldValues(request, headers), ...cookieParts(request, cookies)]
      if (values.length > 0) words.push(`with:${digestOf(values)}`)
      if (isPerUser) {
        const user = userOf(request.headers)
        if (user === null) return null
        words.push(`user:${user}`)
      }
      return `${url(request)}\n${words.join(' ')}`
    },
    query: queryRule,
    id,
  }
}

/** Names and values in turn; two of the same meaning have one spelling, as with Vary. */
const fieldValues = ({ headers }: Asking, names: readonly string[]): (string | null)[] =>
  names.flatMap((name) => [name, selectingValue(headers, name)])

/** The named cookies, or the whole fields where those cannot be read in one way only. */
function cookieParts({ headers }: Asking, names: readonly string[]): (string | null)[] {
  if (names.length === 0) return []
  const cookies = readCookies(headers)
  if (cookies === null) return ['', ...getHeaders(headers, 'cookie')]
  return names.flatMap((name) => {
    const values = cookieValues(cookies, name)
    return [name, String(values.length), ...values]
  })
}
