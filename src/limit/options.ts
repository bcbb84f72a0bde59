// What YAML may say of a limit. `limit` per `window` is a strict sliding window; with `burst` it is GCRA, with `align` a
// fixed window of the calendar. What contradicts what is in config/references.ts.

import { z } from 'zod'
import { amount, count, countOr, decoded, duration, fraction, text, word } from '../core/decode.ts'
import { parseCidr } from '../http/forwarded.ts'
import { isToken } from '../http/headers.ts'
import { parseField } from '../http/json.ts'
import { isKnownMethod } from '../http/methods.ts'
import { MONTH_MS, isTimeZone } from './calendar.ts'
import { USAGE_FORMATS } from './usage.ts'

/** One part of the subject that a budget belongs to. */
export type KeyPart =
  | { readonly kind: 'ip' | 'user' | 'route' | 'method' | 'host' }
  /** name: of a field in lower case, of a cookie or a parameter of the path as it is. */
  | { readonly kind: 'header' | 'cookie' | 'param'; readonly name: string }

const PLAIN_PARTS: ReadonlySet<string> = new Set(['ip', 'user', 'route', 'method', 'host'])

/** `ip user route method host header:<name> cookie:<name> param:<name>`; null for anything else. */
export function parseKeyPart(text: string): KeyPart | null {
  if (PLAIN_PARTS.has(text)) return { kind: text as 'ip' }
  const [, kind, name = ''] = /^(header|cookie|param):(.*)$/.exec(text) ?? []
  if (kind === 'header') return isToken(name) ? { kind, name: name.toLowerCase() } : null
  if (kind === 'cookie') return isToken(name) ? { kind, name } : null
  return kind === 'param' && /^[A-Za-z][A-Za-z0-9_]*$/.test(name) ? { kind, name } : null
}

export const formatKeyPart = (part: KeyPart): string => ('name' in part ? `${part.kind}:${part.name}` : part.kind)

const keyPart = () =>
  decoded('ip, user, route, method, host, header:<name>, cookie:<name> or param:<name>', null, parseKeyPart)

/** Who is meant by an entry of `allow` or `deny`. */
export type Member =
  | { readonly kind: 'network'; readonly cidr: NonNullable<ReturnType<typeof parseCidr>> }
  | { readonly kind: 'user'; readonly id: string }

function parseMember(text: string): Member | null {
  if (text.startsWith('user:')) return text.length > 5 ? { kind: 'user', id: text.slice(5) } : null
  const cidr = parseCidr(text)
  return cidr === null ? null : { kind: 'network', cidr }
}

const members = () =>
  z.array(
    decoded(
      'an address, a CIDR or user:<id>',
      'a user by token is user:jwt:<name>, one by API key user:key:<name>',
      parseMember,
    ),
  )

const units = () => count({ min: 0, max: 1_000_000 })

/** Where a number is in the answer: one field, or several of which the largest counts. */
const numberField = () => {
  const field = () =>
    decoded('a field of the JSON answer, as tokens or /usage/prompt_tokens', 'names through objects only', parseField)
  return z.union([field().transform((one) => [one]), z.array(field()).min(1).max(8)])
}

const usage = () =>
  z
    .union([
      word(USAGE_FORMATS),
      z.strictObject({
        input: numberField().describe('tokens of the request'),
        output: numberField().describe('tokens of the answer'),
        cached: numberField().optional().describe('of `input`, what the service had in its own cache'),
      }),
    ])
    .optional()
    .describe(
      'where an answer, JSON or a stream of events, says how many tokens it has used: as services of these kinds say it, any of them by default, or in fields of your own. Where it does not (streams of OpenAI say it only if the request has asked for that), and where it is broken off, they are estimated by its length. With `costField`, nothing is read unless this is set. The upstream is asked for answers without compression',
    )

const quantity = () =>
  amount({ max: 2 ** 31, expected: 'a whole number from 1 to 2147483648, or with unit: cost any number above 0' })

/** Something for tokens of each kind. */
const perKind = (what: string, ofInput: string, ofCached: string, ofOutput: string) =>
  z.strictObject({
    input: factor().optional().describe(`${what} of the request; default ${ofInput}`),
    cached: factor().optional().describe(`${what} of it that the service had in its own cache; default ${ofCached}`),
    output: factor().optional().describe(`${what} of the answer; default ${ofOutput}`),
  })

const factor = () => amount({ max: 1_000_000, orNothing: true })

const requestField = () =>
  decoded('a field of the JSON body, as max_tokens or /options/limit', 'a name, or a JSON Pointer', parseField)
const requestFields = () => z.array(requestField()).min(1).max(16)

const byBody = () =>
  z.strictObject({
    input: requestFields()
      .optional()
      .describe('fields whose texts are what is asked, about four bytes to a token; default the whole body'),
    output: requestFields().describe('fields that cap the tokens of an answer, as max_tokens; the largest counts'),
    times: requestField().optional().describe('the field that says how many answers are wanted, as n'),
    default: count({ min: 0, max: 2 ** 31 })
      .prefault(1024)
      .describe('tokens of an answer for which the body names no cap'),
  })

const method = () =>
  text('a method such as POST', (name) => (isKnownMethod(name.toUpperCase()) ? null : 'names are those of RFC 9110'))

export const limitOptions = z.strictObject({
  limit: quantity().describe('units admitted per window, or at the same time'),
  window: duration({ minMs: 100, named: { month: MONTH_MS } })
    .optional()
    .describe('the window; never more than `limit` in any span of this length. `month` goes with `align`'),
  key: z
    .union([keyPart().transform((part) => [part]), z.array(keyPart()).min(1)])
    .prefault('ip')
    .describe('whose budget it is: one part or a list; a policy is one budget for all routes that name it'),
  burst: quantity().optional().describe('turns the window into a steady rate (GCRA) that allows this many at once'),
  align: decoded('UTC, or a time zone such as Europe/Berlin', null, (zone) => (isTimeZone(zone) ? zone : null))
    .optional()
    .describe('counts from midnight there, or from the first of the month: a quota, not a rate'),
  onMissing: word(['ip', 'skip', 'deny'])
    .prefault('ip')
    .describe(
      'where a part of the key is missing: the address in its place, no limit, or a 403; what comes twice is the address, too',
    ),
  mode: word(['enforce', 'shadow'])
    .prefault('enforce')
    .describe('shadow: counted and logged, never a 429, and no field tells of it'),
  count: word(['all', 'miss', 'success', 'failure'])
    .prefault('all')
    .describe(
      'which requests are charged: all; those that the upstream is asked for; those answered below 400; those answered with 400 to 499 (except 408, 429 and 499). With unit: tokens or cost, a call that fails is charged its request, and by success nothing; who hangs up pays for what has been done',
    ),
  kind: word(['rate', 'concurrency'])
    .prefault('rate')
    .describe('concurrency: `limit` requests at the upstream at the same time; no window'),
  unit: word(['requests', 'tokens', 'cost'])
    .prefault('requests')
    .describe(
      'tokens: `reserve` of them are charged beforehand, and what has been used when the answer is whole or broken off; a hit uses none, nor does who shares a fetch. cost: likewise what they cost by `price`; `limit` and `burst` are then in its currency, fractions and all, while fields of answers and the admin port tell millionths of it',
    ),
  reserve: z
    .union([countOr({ min: 1, max: 2 ** 31 }, ['learned']), byBody()])
    .prefault(1000)
    .describe(
      'tokens charged before the answer is known, as if they were all of the answer. learned: what nine in ten requests have used to the same route with about as long a body; until ten are known 1000, or a tenth of what there is at once where that is less. A mapping: by what its JSON body says, up to 256 KiB, which is read for that',
    ),
  weights: perKind('what one token counts', '1', '0', '1')
    .optional()
    .describe('with unit: tokens, where some count more than others'),
  price: perKind('what a million tokens cost', '0', 'as `input`', '0')
    .optional()
    .describe('with unit: cost, in any currency'),
  usage: usage(),
  cost: z
    .union([
      units().transform((every) => ({ every, byMethod: null })),
      z.record(method(), units()).transform((record) => ({
        every: 1,
        byMethod: new Map(Object.entries(record).map(([name, cost]) => [name.toUpperCase(), cost])),
      })),
    ])
    .prefault('1')
    .describe(
      'units that a request takes; a mapping gives them by method, 1 for those it does not name; 0: not limited',
    ),
  costField: decoded('the name of a field', 'letters, digits and dashes', (name) =>
    isToken(name) ? name.toLowerCase() : null,
  )
    .optional()
    .describe('response field in which the upstream says how many units the request has cost; `cost` until then'),
  enabledPercent: count({ min: 0, max: 100 })
    .prefault(100)
    .describe('share of the subjects that are limited at all, always the same ones: for a gradual start'),
  staleFrom: fraction()
    .optional()
    .describe(
      'part of the budget that is used up when routes with `onLimited: stale` begin to answer from what is stored, stale too, before they ask the upstream; the rest is for what is not stored at all',
    ),
  allow: members().prefault([]).describe('who is not limited, nor counted; a user by a proved name only'),
  deny: members().prefault([]).describe('who gets a 403'),
  fallback: word(['share', 'full', 'open', 'closed'])
    .prefault('share')
    .describe(
      'while Redis is lost: the limit divided by the instances, all of it in each instance, no limit, or a 503 for every request',
    ),
  lease: word(['auto', 'on', 'off'])
    .prefault('auto')
    .describe(
      'with Redis: takes units in blocks for who asks often, so that most requests are decided without a round trip; never more than the limit, but an instance may hold a tenth of what is left for a moment. auto: only where the limit is large, and for who asks often',
    ),
})

export type LimitOptions = z.output<typeof limitOptions>
