// Flat header lists (RFC 9110 §5): look-ups that ignore case, and which fields end at each hop (§7.6.1).
// Names keep the case in which they came, for backends that care; compare with `sameName`.

import type { HeaderList } from '../core/context.ts'

/** True when `name` is `lowerName` in any case. The length is compared first, which settles most, and the first letter but
 *  for its case. */
export function sameName(name: string, lowerName: string): boolean {
  if (name.length !== lowerName.length) return false
  if (name === lowerName) return true
  return ((name.charCodeAt(0) ^ lowerName.charCodeAt(0)) & ~0x20) === 0 && name.toLowerCase() === lowerName
}

/** First value of a field, or null. lowerName: the name in lower case. */
export function getHeader(headers: HeaderList, lowerName: string): string | null {
  for (let i = 0; i < headers.length; i += 2) {
    if (sameName(headers[i] as string, lowerName)) return headers[i + 1] as string
  }
  return null
}

/** All values of a field, in order. */
export function getHeaders(headers: HeaderList, lowerName: string): string[] {
  const values: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    if (sameName(headers[i] as string, lowerName)) values.push(headers[i + 1] as string)
  }
  return values
}

/** A list field's lines joined by ", " (RFC 9110 §5.3); null when absent. Never use it for Set-Cookie. */
export function getCombined(headers: HeaderList, lowerName: string): string | null {
  let combined: string | null = null
  for (let i = 0; i < headers.length; i += 2) {
    if (!sameName(headers[i] as string, lowerName)) continue
    combined = combined === null ? (headers[i + 1] as string) : `${combined}, ${headers[i + 1] as string}`
  }
  return combined
}

export function hasHeader(headers: HeaderList, lowerName: string): boolean {
  return getHeader(headers, lowerName) !== null
}

/** A new list without the fields whose lower-case names `drop` holds. */
export function withoutHeaders(headers: HeaderList, drop: { has(lowerName: string): boolean }): string[] {
  const kept: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    if (!drop.has(name.toLowerCase())) kept.push(name, headers[i + 1] as string)
  }
  return kept
}

/** Members of a comma-separated list, trimmed, empty ones left out. Not for quoted strings. */
export function listMembers(value: string): string[] {
  return value
    .split(',')
    .map((member) => member.trim())
    .filter((member) => member !== '')
}

/** Fields that concern one connection and are never forwarded in either direction, whether or not Connection names them. */
export const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-authentication-info',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings',
])

/** The lower-case names that the Connection field lists (RFC 9110 §7.6.1), `close` and `keep-alive` among them. */
export function connectionNames(headers: HeaderList): string[] {
  const value = getCombined(headers, 'connection')
  return value === null ? [] : listMembers(value.toLowerCase())
}

const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

/** RFC 9110 §5.1: a field name is a token. */
export const isToken = (name: string): boolean => TOKEN.test(name)

/** RFC 9110 §5.5: no CR, LF, NUL or other control bytes, nothing beyond latin1. */
export const isFieldValue = (value: string): boolean => FIELD_VALUE.test(value)

/** A list as lines of a message, each with its line end. Throws TypeError where a line would not be one field. Who keeps
 *  them makes them ownText: what was put together piece by piece is put together anew by each who reads it. */
export function fieldLines(headers: HeaderList): string {
  let lines = ''
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const value = headers[i + 1] as string
    if (!isToken(name) || !isFieldValue(value)) throw new TypeError(`The field ${JSON.stringify(name)} is not valid.`)
    lines += `${name}: ${value}\r\n`
  }
  return lines
}

/** The same text, and no part of another: what is kept of one keeps all of it. text: latin1. */
export const ownText = (text: string): string => Buffer.from(text, 'latin1').toString('latin1')
