// Whose budget a request draws on: the parts of a policy's key as one text. This file alone knows how parts become a
// subject: IPv6 clients by their /64 (a client owns all of it), parts joined with their lengths so that ("a", "bc") and
// ("ab", "c") differ, long parts as a digest, so that no client chooses how much memory its name takes.
//
// No client may choose whom it counts as by saying something twice, or in a way that some read otherwise: the upstream may go by
// the part that this file does not. Then its address counts, even where who lacks the part is not limited.

import { hash } from 'node:crypto'
import type { RequestContext } from '../core/context.ts'
import { cookieValues, readCookies } from '../http/cookies.ts'
import { getHeaders } from '../http/headers.ts'
import { formatKeyPart, type KeyPart, type LimitOptions } from './options.ts'

type OnMissing = LimitOptions['onMissing']
/** null: it is missing. */
type Read = (ctx: RequestContext) => string | null | typeof UNCLEAR
const UNCLEAR = Symbol('a part that may be read in more than one way')

/** Characters of a part that are kept as they are; a longer one counts as its SHA-256. */
const MAX_PART = 256

/** The subject of a request, at most some 300 characters per part; null where a part is missing and the address does not
 *  take its place. Subjects of one policy only are comparable. */
export function compileKey(parts: readonly KeyPart[], onMissing: OnMissing): (ctx: RequestContext) => string | null {
  const reads = parts.map(compileRead)
  // The common case needs no new text: nothing else of this policy can look like it.
  if (parts.length === 1 && parts[0]?.kind === 'ip') return READ.ip
  return (ctx) => {
    let subject = ''
    for (const read of reads) {
      const value = read(ctx)
      if (typeof value === 'string') subject += framed(value)
      else if (isLeftOut(value, onMissing)) return null
      // Marked, or a client could name itself after somebody's address and use up their budget.
      else subject += `@${framed(addressBlock(ctx.clientAddress))}`
    }
    return subject
  }
}

/** Whether the address does not take the place of a part. */
const isLeftOut = (value: null | typeof UNCLEAR, onMissing: OnMissing): boolean =>
  onMissing === 'deny' || (onMissing === 'skip' && value === null)

/** The same key for people: `ip=192.0.2.7, route=/x`; null where compileKey gives null. */
export function compileKeyText(
  parts: readonly KeyPart[],
  onMissing: OnMissing,
): (ctx: RequestContext) => string | null {
  const reads = parts.map((part) => ({ label: formatKeyPart(part), read: compileRead(part) }))
  return (ctx) => {
    const texts: string[] = []
    for (const { label, read } of reads) {
      const value = read(ctx)
      if (typeof value === 'string') {
        texts.push(`${label}=${value.length > MAX_PART ? `sha256:${digest(value)}` : value}`)
      } else if (isLeftOut(value, onMissing)) return null
      else texts.push(`ip=${addressBlock(ctx.clientAddress)}`)
    }
    return texts.join(', ')
  }
}

/** The subject that these values name, by part as formatKeyPart() writes it; or the names of parts that are missing. */
export function subjectOf(
  parts: readonly KeyPart[],
  onMissing: OnMissing,
  values: Readonly<Record<string, string>>,
): { readonly subject: string } | { readonly missing: readonly string[] } {
  const block = values['ip'] === undefined ? null : addressBlock(values['ip'])
  if (parts.length === 1 && parts[0]?.kind === 'ip') return block === null ? { missing: ['ip'] } : { subject: block }
  const missing: string[] = []
  let subject = ''
  for (const part of parts) {
    const label = formatKeyPart(part)
    const value = part.kind === 'ip' ? block : Object.hasOwn(values, label) ? (values[label] as string) : null
    if (value !== null && value !== '') subject += framed(value)
    else if (onMissing === 'ip' && block !== null) subject += `@${framed(block)}`
    else missing.push(label)
  }
  return missing.length > 0 ? { missing } : { subject }
}

/** A subject for people, as compileKeyText() has it. Of the value of a field or a cookie, which may be a secret, and of one
 *  that was too long, the digest. */
export function formatSubject(parts: readonly KeyPart[], subject: string): string {
  if (parts.length === 1 && parts[0]?.kind === 'ip') return `ip=${subject}`
  let at = 0
  const texts = parts.map((part) => {
    const [head = '', mark, , length] = /^(@?)(#|(\d+):)/.exec(subject.slice(at)) ?? []
    const start = at + head.length
    at = start + (length === undefined ? DIGEST_CHARS : Number(length))
    const value = subject.slice(start, at)
    if (mark === '@') return `ip=${value}`
    if (length === undefined) return `${formatKeyPart(part)}=sha256:${value}`
    const mayBeSecret = part.kind === 'header' || part.kind === 'cookie'
    return `${formatKeyPart(part)}=${mayBeSecret ? `sha256:${digest(value)}` : value}`
  })
  return texts.join(', ')
}

/** The text that stands for a client's address: IPv4 as it is, IPv4-mapped IPv6 as IPv4, other IPv6 as its /64 without
 *  zone. Unmapping comes first: masked, all of IPv4 would be one client (CVE-2026-30827). */
export function addressBlock(address: string): string {
  if (!address.includes(':')) return address
  const block = canonicalBlock(address)
  if (block !== null) return block
  const groups = parseGroups(address)
  if (groups === null) return address
  const [a, b, c, d, e, f, g, h] = groups as [number, number, number, number, number, number, number, number]
  if (f === 0xffff && (a | b | c | d | e) === 0) return `${g >> 8}.${g & 255}.${h >> 8}.${h & 255}`
  return `${a.toString(16)}:${b.toString(16)}:${c.toString(16)}:${d.toString(16)}::/64`
}

const READ = {
  ip: (ctx) => addressBlock(ctx.clientAddress),
  route: (ctx) => ctx.route ?? '',
  method: (ctx) => ctx.method,
  // Routes do not go by the port, which clients may make up.
  host: (ctx) => ctx.host.replace(/:\d+$/, ''),
  user: (ctx) => ctx.user?.id ?? null,
} as const satisfies Record<Exclude<KeyPart['kind'], 'header' | 'cookie' | 'param'>, Read>

function compileRead(part: KeyPart): Read {
  if (part.kind === 'header') return compileHeaderRead(part.name)
  if (part.kind === 'cookie') return compileCookieRead(part.name)
  if (part.kind === 'param') return (ctx) => ctx.params?.get(part.name) || null
  return READ[part.kind]
}

const compileCookieRead =
  (name: string): Read =>
  (ctx) => {
    const cookies = readCookies(ctx.headers)
    const [value = '', ...more] = cookies === null ? [] : cookieValues(cookies, name)
    return cookies === null || more.length > 0 ? UNCLEAR : value || null
  }

const compileHeaderRead =
  (name: string): Read =>
  (ctx) => {
    const [value = '', ...more] = getHeaders(ctx.headers, name)
    return more.length > 0 ? UNCLEAR : value || null
  }

const framed = (value: string): string => (value.length > MAX_PART ? `#${digest(value)}` : `${value.length}:${value}`)

/** Of 32 bytes in base64url. */
const DIGEST_CHARS = 43

const digest = (value: string): string => hash('sha256', value, 'base64url')

/** The /64 of an address in the text of RFC 5952 that begins with neither `0` nor `::`, as nearly every client's does: then
 *  the block is made of its own text. null for all others. It is run per request, and takes a fifth of the time. */
function canonicalBlock(address: string): string | null {
  let groups = 0
  let start = 0
  let gapAt = -1
  /** Behind the last group of the four, as far as they are written out. */
  let blockEnd = 0
  for (let i = 0; i <= address.length; i++) {
    const code = i < address.length ? address.charCodeAt(i) : COLON
    if (code !== COLON) {
      const isHex = (code >= 0x30 && code <= 0x39) || (code >= 0x61 && code <= 0x66)
      if (!isHex || i - start === 4 || (i > start && address.charCodeAt(start) === 0x30)) return null
      continue
    }
    if (i > start) {
      if (groups === 0 && address.charCodeAt(0) === 0x30) return null
      groups++
      if (groups <= 4 && gapAt < 0) blockEnd = i
    } else if (groups === 0 || gapAt >= 0) {
      return null
    } else if (i < address.length) {
      gapAt = groups
      // A gap at the end is two colons and nothing.
      if (i + 1 === address.length) break
    } else {
      return null
    }
    start = i + 1
  }
  if (gapAt < 0 ? groups !== 8 : groups > 7) return null
  if (gapAt < 0 || gapAt >= 4) return `${address.slice(0, blockEnd)}::/64`
  // What stands behind the gap lies in the other half.
  return groups - gapAt <= 4 ? `${address.slice(0, blockEnd)}${ZEROS[gapAt]}::/64` : null
}

const COLON = 0x3a

/** Of the four groups, those that a gap behind the first so many leaves out. */
const ZEROS = ['', ':0:0:0', ':0:0', ':0']

/** The eight groups of an IPv6 address (RFC 4291 §2.2); null for anything else. One pass, since it is run per request. */
function parseGroups(address: string): number[] | null {
  const groups: number[] = []
  let gapAt = -1
  let group = 0
  let start = 0
  let i = 0
  for (; i < address.length; i++) {
    const code = address.charCodeAt(i)
    if (code === 0x25 /* % */) break
    if (code === 0x2e /* . */) return withIPv4Tail(groups, gapAt, address.slice(start))
    if (code !== 0x3a /* : */) {
      const digit = hexDigit(code)
      if (digit < 0 || i - start === 4) return null
      group = group * 16 + digit
      continue
    }
    if (i > start) groups.push(group)
    else if (i > 0 && gapAt < 0) gapAt = groups.length
    else if (i > 0 || address.charCodeAt(1) !== 0x3a) return null
    group = 0
    start = i + 1
  }
  if (i > start) groups.push(group)
  else if (gapAt !== groups.length) return null
  return expanded(groups, gapAt)
}

function withIPv4Tail(groups: number[], gapAt: number, tail: string): number[] | null {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})(?:%|$)/.exec(tail)
  if (match === null) return null
  const [a, b, c, d] = match.slice(1).map(Number) as [number, number, number, number]
  if (Math.max(a, b, c, d) > 255) return null
  groups.push(a * 256 + b, c * 256 + d)
  return expanded(groups, gapAt)
}

/** Puts the zeros where `::` stood. */
function expanded(groups: number[], gapAt: number): number[] | null {
  if (gapAt < 0) return groups.length === 8 ? groups : null
  if (groups.length > 7) return null
  const zeros = Array.from({ length: 8 - groups.length }, () => 0)
  return [...groups.slice(0, gapAt), ...zeros, ...groups.slice(gapAt)]
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30
  const lower = code | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}
