// Request targets and hosts (RFC 3986 §2.1, §3.2.2, §6.2; RFC 9112 §3.2), brought to one spelling or refused.
// The path that comes out is the one string for routes, limit keys, cache keys and the wire: two spellings that an
// origin takes for the same resource must not pass as two, and none may mean something else one hop further.
//
// Refused rather than repaired, because origins disagree on their meaning: dot segments however spelt, encoded
// slashes, backslashes, control bytes, escapes that are no UTF-8. Reserved characters keep their spelling
// (`%21` is not `!`, RFC 3986 §2.2); everything that a path may not contain raw is escaped. The query stays as it came.
// Promise: what was normalised once is never changed by a second pass.

import { isIPv6 } from 'node:net'
import type { Scheme } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'

export interface NormalTarget {
  readonly form: 'origin' | 'absolute' | 'asterisk'
  /** Normalised; begins with '/', or is '*' in asterisk form. */
  readonly path: string
  /** '' or '?' and the raw query. */
  readonly query: string
  /** Absolute form only: its host as normalizeHost gives it. */
  readonly authority: string | null
  /** Absolute form only. Normalise the Host field by this scheme before comparing it with `authority`. */
  readonly scheme: Scheme | null
}

const SLASH = 0x2f
const DOT = 0x2e
const PERCENT = 0x25
const QUESTION = 0x3f

const UNRESERVED = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~'
const UNRESERVED_BYTES = byteSet(UNRESERVED)
/** pchar without escapes, and '/' (RFC 3986 §3.3). */
const PLAIN_BYTES = byteSet(`${UNRESERVED}!$&'()*+,;=:@/`)

function byteSet(characters: string): Uint8Array {
  const set = new Uint8Array(256)
  for (const character of characters) set[character.charCodeAt(0)] = 1
  return set
}

/** The target of a request line. raw: latin1, one character per byte. Never throws; `bad_target` says what is wrong. */
export function normalizeTarget(raw: string): NormalTarget | GatewayError {
  if (raw.charCodeAt(0) === SLASH) return split('origin', raw, null, null)
  if (raw === '*') return { form: 'asterisk', path: '*', query: '', authority: null, scheme: null }
  const absolute = /^(https?):\/\/([^/?#]*)/i.exec(raw)
  if (absolute === null) {
    return refused('The request target must begin with "/", or be an absolute http:// or https:// URL.')
  }
  const scheme: Scheme = absolute[1]?.length === 5 ? 'https' : 'http'
  const authority = normalizeHost(absolute[2] ?? '', scheme)
  if (authority === null) return refused('The host in the request target is not valid; write host or host:port.')
  const rest = raw.slice(absolute[0].length)
  // An empty path is "/" (RFC 3986 §6.2.3).
  return split('absolute', rest.charCodeAt(0) === SLASH ? rest : `/${rest}`, authority, scheme)
}

/** The host of a Host field or an authority, lower case, without the scheme's own port and one trailing dot; null when it
 *  is not valid. DNS names, IPv4 and [IPv6] only: sub-delims and escapes, which RFC 3986 §3.2.2 lets into a reg-name,
 *  name no host that can be reached and are how one host is passed off as two. An empty port counts as none. */
export function normalizeHost(raw: string, scheme: Scheme): string | null {
  const match = /^(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9_-][A-Za-z0-9._-]{0,253}))(?::(\d{0,5}))?$/.exec(raw)
  if (match === null) return null
  const [, v6, name, portText] = match
  if (v6 !== undefined && !isIPv6(v6)) return null
  if (name?.includes('..')) return null
  const host = v6 === undefined ? (name ?? '').toLowerCase().replace(/\.$/, '') : `[${v6.toLowerCase()}]`
  if (portText === undefined || portText === '') return host
  const port = Number(portText)
  if (port === 0 || port > 65_535) return null
  return port === (scheme === 'https' ? 443 : 80) ? host : `${host}:${port}`
}

function split(
  form: 'origin' | 'absolute',
  target: string,
  authority: string | null,
  scheme: Scheme | null,
): NormalTarget | GatewayError {
  let end = plainEnd(target)
  let path: string | GatewayError
  if (end >= 0) {
    path = end === target.length ? target : target.slice(0, end)
  } else {
    const mark = target.indexOf('?')
    end = mark < 0 ? target.length : mark
    path = normalizePath(target.slice(0, end))
    if (typeof path !== 'string') return path
  }
  const query = end === target.length ? '' : target.slice(end)
  const fault = queryFault(query)
  return fault === null ? { form, path, query, authority, scheme } : refused(fault)
}

/** Where the path ends if it is normal and without escapes, which nearly every path is; -1 when it needs the long way.
 *  The hot path: one pass, nothing allocated. A '.' after '/' may be a dot segment and goes the long way. */
function plainEnd(target: string): number {
  for (let i = 0; i < target.length; i++) {
    const code = target.charCodeAt(i)
    if (code === SLASH) {
      const next = target.charCodeAt(i + 1)
      if (next === SLASH || next === DOT) return -1
    } else if (PLAIN_BYTES[code] !== 1) {
      return code === QUESTION ? i : -1
    }
  }
  return target.length
}

// `..;x` is a dot segment to servers that cut path parameters first; `%3B` is the same to those that decode first.
const DOT_SEGMENT = /\/\.{1,2}(?:\/|;|%3B|$)/

function normalizePath(raw: string): string | GatewayError {
  let path = ''
  let last = 0
  const utf8 = new Utf8Check()
  for (let i = 0; i < raw.length; i++) {
    let code = raw.charCodeAt(i)
    const escaped = code === PERCENT
    if (escaped) {
      const hex = raw.slice(i + 1, i + 3)
      if (!/^[0-9A-Fa-f]{2}$/.test(hex)) {
        return refused('The path has a "%" that two hexadecimal digits do not follow; write %25 for the sign itself.')
      }
      code = Number.parseInt(hex, 16)
      i += 2
    }
    const fault = byteFault(code, escaped)
    if (fault !== null) return refused(fault)
    if (!utf8.accepts(code)) return refused('The path is not valid UTF-8 once its escapes are decoded.')
    if (code === SLASH && last === SLASH) continue
    path +=
      UNRESERVED_BYTES[code] === 1 || (!escaped && PLAIN_BYTES[code] === 1)
        ? String.fromCharCode(code)
        : escapeByte(code)
    last = code
  }
  if (!utf8.isComplete) return refused('The path is not valid UTF-8 once its escapes are decoded.')
  if (DOT_SEGMENT.test(path)) return refused('The path has a "." or ".." segment; send the path that it stands for.')
  return path
}

const escapeByte = (code: number): string => `%${code < 16 ? '0' : ''}${code.toString(16).toUpperCase()}`

/** Why a byte may not be in a path, raw or escaped; null when it may. */
function byteFault(code: number, escaped: boolean): string | null {
  if (code > 0xff) return 'The path has a character that is no byte; send it as UTF-8, percent-encoded.'
  if (code < 0x20 || code === 0x7f) return 'The path has a control character, raw or escaped.'
  if (code === 0x5c) return 'The path has a backslash, raw or as %5C; use "/" between segments.'
  if (code === SLASH && escaped) return 'The path has an encoded slash (%2F).'
  if (code === 0x20 && !escaped) return 'The path has a space; write %20.'
  if (code === 0x23 && !escaped)
    return 'The request target has a "#"; fragments stay with the client, write %23 for the sign.'
  return null
}

function queryFault(query: string): string | null {
  for (let i = 0; i < query.length; i++) {
    const code = query.charCodeAt(i)
    if (code <= 0x20 || code === 0x7f) return 'The query has a space or a control character; percent-encode it.'
    if (code === 0x23) return 'The request target has a "#"; fragments stay with the client, write %23 for the sign.'
    if (code > 0xff) return 'The query has a character that is no byte; send it as UTF-8, percent-encoded.'
  }
  return null
}

const refused = (detail: string): GatewayError => new GatewayError('bad_target', detail)

/** UTF-8 byte by byte (RFC 3629 §4): no overlong forms (`%C0%AF` is a slash to a lenient decoder), no surrogates,
 *  nothing above U+10FFFF. */
class Utf8Check {
  #missing = 0
  #low = 0x80
  #high = 0xbf

  get isComplete(): boolean {
    return this.#missing === 0
  }

  accepts(byte: number): boolean {
    if (this.#missing > 0) {
      if (byte < this.#low || byte > this.#high) return false
      this.#missing--
      this.#low = 0x80
      this.#high = 0xbf
      return true
    }
    if (byte < 0x80) return true
    if (byte < 0xc2 || byte > 0xf4) return false
    this.#missing = byte < 0xe0 ? 1 : byte < 0xf0 ? 2 : 3
    if (byte === 0xe0) this.#low = 0xa0
    else if (byte === 0xed) this.#high = 0x9f
    else if (byte === 0xf0) this.#low = 0x90
    else if (byte === 0xf4) this.#high = 0x8f
    return true
  }
}
