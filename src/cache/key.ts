// What a request asks for, as text: the URL that answers are stored under and purged by (RFC 9111 §2), and what else of
// a request changes its answer without being in the URL.
//
// A key is a URL, or a URL, a line feed, and what a route tells answers apart by beside it (key-rule.ts). No URL has a
// line feed, so the URL of a key is what stands before the first one.
//
// Behind a trusted proxy the URL is the one that its client used: upstreams are told that scheme and host, and a redirect
// to https that were stored under http would be the answer to those who come by https. Whatever else such a proxy says
// of target or user (X-Forwarded-Prefix, X-Forwarded-User, X-Original-URL) upstreams believe too, so it tells answers
// apart. From anybody else these fields go nowhere and mean nothing.

import type { RequestContext } from '../core/context.ts'
import { CLIENT_CLAIMS, UNTRUSTED_FIELDS } from '../http/forwarded.ts'
import { getHeader } from '../http/headers.ts'
import { normalizeHost } from '../http/target.ts'
import { legible } from './digest.ts'

type Asking = Pick<RequestContext, 'scheme' | 'host' | 'path' | 'query' | 'headers' | 'peerIsTrusted'>

/** Scheme, host, path and query. query: in the place of the request's own. */
export function urlOf(request: Asking, query: string = request.query): string {
  const { path, headers } = request
  if (!request.peerIsTrusted) return `${request.scheme}://${request.host}${path}${query}`
  const scheme = schemeIn(getHeader(headers, 'x-forwarded-proto')) ?? request.scheme
  const host = normalizeHost(getHeader(headers, 'x-forwarded-host') ?? '', scheme) ?? request.host
  return `${scheme}://${host}${path}${query}`
}

/** The URL of a key: what stands before its first line end. What follows tells apart what is stored under one URL. */
export function urlOfKey(key: string): string {
  const end = key.indexOf('\n')
  return end < 0 ? key : key.slice(0, end)
}

/** Under which stores list, beside tags, the entries whose keys are this URL and more. No tag has a line feed. */
export const urlTag = (url: string): string => `\n${url}`

/** All that an entry is listed under: its tags, and its URL where its key is more than that. */
export function listingsOf({
  key,
  tags,
}: {
  readonly key: string
  readonly tags: readonly string[]
}): readonly string[] {
  const url = urlOfKey(key)
  return url.length === key.length ? tags : [...tags, urlTag(url)]
}

/** Path and query of a URL that is a key. */
export const pathOfKey = (key: string): string => key.slice(key.indexOf('/', key.indexOf('://') + 3))

/** What a trusted proxy says that the key does not hold; '' where it says nothing more, and for every other peer. */
export function claimsOf({ headers, host, peerIsTrusted }: Asking): string {
  if (!peerIsTrusted) return ''
  let claims = ''
  for (let i = 0; i < headers.length; i += 2) {
    const name = (headers[i] as string).toLowerCase()
    const claim = UNTRUSTED_FIELDS.has(name) ? beyondKey(name, headers[i + 1] as string, host) : ''
    if (claim !== '') claims += `${name}: ${claim}\n`
  }
  return claims
}

function beyondKey(lowerName: string, value: string, host: string): string {
  switch (lowerName) {
    case 'x-forwarded-proto':
      return schemeIn(value) === null ? value : ''
    case 'x-forwarded-host':
      // In the key it stands in the place of the host by which the request was routed.
      return normalizeHost(value, 'http') === null ? value : `for ${host}`
    case 'forwarded':
      // RFC 7239 §5: `for` and `by` are addresses, `proto` and `host` are claims.
      return value.replaceAll(/(?:for|by)=(?:"[^"]*"|[^;,]*)[;,\s]*/gi, '')
    default:
      if (CLIENT_CLAIMS.has(lowerName)) return ''
      // Who the client is, and with which token: it is stored with what it selects.
      return lowerName.startsWith('x-forwarded-') && !OF_THE_WAY.has(lowerName) ? legible(value) : value
  }
}

/** Of `x-forwarded-*`, what says by which way a request has come. */
const OF_THE_WAY: ReadonlySet<string> = new Set([
  'x-forwarded-path',
  'x-forwarded-prefix',
  'x-forwarded-server',
  'x-forwarded-uri',
])

function schemeIn(value: string | null): 'http' | 'https' | null {
  const lower = value?.toLowerCase()
  return lower === 'http' || lower === 'https' ? lower : null
}
