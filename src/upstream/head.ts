// The head of a request on its way upstream, and of an answer on its way back: what ends here (RFC 9110 §7.6.1), what
// the gateway adds, what routes change. A request field that only the gateway may write never passes from a client.

import type { HeaderList, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { remember } from '../core/remember.ts'
import { FORWARDING_FIELDS, UNTRUSTED_FIELDS, forwardingFields, hasOwnVia } from '../http/forwarded.ts'
import { HOP_BY_HOP, connectionNames, isFieldValue, withoutHeaders } from '../http/headers.ts'
import { TAG_FIELDS } from '../http/tags.ts'
import type { HeaderEditOptions, RewriteOptions } from './options.ts'

/** Framing is computed anew, Expect is answered by the gateway (RFC 9110 §10.1.1), Host and the id are written first. That
 *  a request is a copy, the gateway says itself. */
const REQUEST_ENDS_HERE: ReadonlySet<string> = new Set([
  ...HOP_BY_HOP,
  ...FORWARDING_FIELDS,
  'host',
  'expect',
  'x-request-id',
  'x-weirgate-mirror',
])

/** Fields that Connection may not name: it would strip what frames, routes or authorises the request. */
const NOT_HOP_BY_HOP: ReadonlySet<string> = new Set([
  'host',
  'content-length',
  'authorization',
  'cookie',
  'x-request-id',
  ...FORWARDING_FIELDS,
])

/** Alt-Svc would lead clients past the gateway; the id, the time and the attempts are its own; tags are for caches. */
const RESPONSE_ENDS_HERE: ReadonlySet<string> = new Set([
  ...HOP_BY_HOP,
  ...TAG_FIELDS.keys(),
  'alt-svc',
  'x-process-time',
  'x-request-id',
  'x-weirgate-attempts',
])

/** Between a client and its proxy, which we are not. CGI makes HTTP_PROXY of `Proxy`, and libraries obey that. */
const isProxyField = (lowerName: string): boolean => lowerName === 'proxy' || lowerName.startsWith('proxy-')

const NONE: ReadonlySet<string> = new Set()

/** Changes a head as a route says. Gives back the same list where it says nothing. */
export type HeadEdit = (head: string[]) => string[]

/** Fields to send upstream; drop: further lower-case names to leave out; add: further fields, flat. Throws GatewayError for what must not pass. */
export function requestHead(
  ctx: RequestContext,
  viaToken: string,
  edit: HeadEdit,
  drop: ReadonlySet<string> = NONE,
  add: HeaderList = [],
): string[] {
  if (hasOwnVia(ctx.headers, viaToken)) {
    throw new GatewayError('loop_detected', 'This request has been through this gateway before.')
  }
  const named = connectionNames(ctx.headers)
  for (const name of named) {
    if (isProtected(name)) throw new GatewayError('bad_message', `Connection may not name ${name}.`)
  }

  const head: string[] = ctx.host === '' ? [] : ['Host', ctx.host]
  for (let i = 0; i < ctx.headers.length; i += 2) {
    const name = ctx.headers[i] as string
    const { lower, endsHere, isClaim, hasUnderscore, disguises } = requestField(name)
    if (endsHere || drop.has(lower) || named.includes(lower)) continue
    if (isClaim && !ctx.peerIsTrusted) continue
    if (disguises !== null) throw new GatewayError('bad_message', `A backend could take ${lower} for ${disguises}.`)
    if (!hasUnderscore) head.push(name, ctx.headers[i + 1] as string)
  }
  head.push(...add, ...forwardingFields(ctx, viaToken), 'X-Request-Id', ctx.id)
  return edit(head)
}

const isProtected = (lowerName: string): boolean => NOT_HOP_BY_HOP.has(lowerName) || UNTRUSTED_FIELDS.has(lowerName)

/** Names that are told apart once. */
const MAX_KNOWN_NAMES = 500

/** What the name of a request field says. */
const requestField = remember((name) => {
  const lower = name.toLowerCase()
  return {
    lower,
    endsHere: REQUEST_ENDS_HERE.has(lower) || isProxyField(lower),
    isClaim: UNTRUSTED_FIELDS.has(lower),
    hasUnderscore: lower.includes('_'),
    disguises: disguisedBy(lower),
  }
}, MAX_KNOWN_NAMES)

/** Many servers read X_Real_IP as X-Real-IP, so an underscore is a way around all the rules above. Null where it is none. */
function disguisedBy(lowerName: string): string | null {
  if (!lowerName.includes('_')) return null
  const dashed = lowerName.replaceAll('_', '-')
  return isProtected(dashed) || HOP_BY_HOP.has(dashed) ? dashed : null
}

/** The same of an answer's. */
const responseField = remember((name) => {
  const lower = name.toLowerCase()
  const endsHere = RESPONSE_ENDS_HERE.has(lower) || isProxyField(lower) || lower.startsWith('surrogate-')
  return { lower, endsHere }
}, MAX_KNOWN_NAMES)

/** Fields of an answer that go on to the client or the store; null where one is not valid. replaced: lower-case names of
 *  fields that the gateway writes itself on this route. */
export function responseHead(
  status: number,
  raw: HeaderList,
  edit: HeadEdit,
  replaced: ReadonlySet<string> = NONE,
): string[] | null {
  const named = connectionNames(raw)
  const head: string[] = []
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] as string
    const value = raw[i + 1] as string
    if (!isFieldValue(value)) return null
    const { lower, endsHere } = responseField(name)
    if (endsHere || named.includes(lower) || replaced.has(lower)) continue
    // RFC 9110 §8.6: a 204 and an interim answer have none.
    if ((status === 204 || status < 200) && lower === 'content-length') continue
    head.push(name, value)
  }
  return edit(head)
}

/** Compiles `headers.request` or `headers.response`. */
export function compileEdit({ set, remove }: HeaderEditOptions = { set: {}, remove: [] }): HeadEdit {
  // Of two spellings of one name the last counts.
  const fields = new Map(Object.entries(set).map(([name, value]) => [name.toLowerCase(), [name, value]]))
  const gone = new Set([...remove.map((name) => name.toLowerCase()), ...fields.keys()])
  if (gone.size === 0) return (head) => head
  const added = [...fields.values()].flat()
  return (head) => [...withoutHeaders(head, gone), ...added]
}

/** Compiles `rewrite` to a function of the normalised path. */
export function compileRewrite(rewrite: RewriteOptions | undefined): (path: string) => string {
  const strip = trimSlash(rewrite?.strip ?? '')
  const prefix = trimSlash(rewrite?.prefix ?? '')
  if (strip === '' && prefix === '') return (path) => path
  return (path) => {
    // Only at a segment's border: /apiary does not begin with /api.
    if (path === strip) return prefix === '' ? '/' : prefix
    return prefix + (path.startsWith(`${strip}/`) ? path.slice(strip.length) : path)
  }
}

const trimSlash = (path: string): string => (path.endsWith('/') ? path.slice(0, -1) : path)
