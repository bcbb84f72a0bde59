// The head of a request as the fast path reads it: a GET or HEAD of HTTP/1.1 that leaves no room for doubt. Whatever has
// another meaning, or a spelling that some parser takes otherwise, is not read here and goes to node:http, byte for byte
// (RFC 9112 §2.2, §3, §5; RFC 9110 §5.6.2). What is read has the very values that full-lane.ts would have read.
//
// A client on a kept connection sends the same fields over and over, so they are read once and compared from then on.

import { isFieldValue, isToken, sameName } from '../http/headers.ts'
import { normalizeHost, normalizeTarget } from '../http/target.ts'
import type { ListenOptions } from './options.ts'

/** All of a head but its first line. */
export interface RequestFields {
  /** As they stood there, line ends and all. */
  readonly bytes: Buffer
  readonly headers: readonly string[]
  /** Normalised host. */
  readonly host: string
  /** The client ends the connection after this answer. */
  readonly wantsClose: boolean
}

export interface RequestHead {
  /** The first line, without its end. */
  readonly line: string
  readonly method: 'GET' | 'HEAD'
  readonly path: string
  readonly query: string
  readonly fields: RequestFields
}

const VERSION = ' HTTP/1.1'
/** What ends a head, read backwards in a chunk. */
const [CR, LF] = [0x0d, 0x0a]

/** True where the first bytes of a buffer may be one whole head: which ones are worth reading. */
export const mayBeHead = (chunk: Buffer, length: number, maxBytes: number): boolean => {
  if (length < MIN_BYTES || length > maxBytes) return false
  if (chunk[0] !== G && chunk[0] !== H) return false
  return chunk[length - 1] === LF && chunk[length - 2] === CR && chunk[length - 3] === LF && chunk[length - 4] === CR
}

const [G, H] = [0x47, 0x48]
/** `GET / HTTP/1.1`, a Host, and what ends them. */
const MIN_BYTES = 24

/** Reads one head that is all of these bytes, of which the first that may be one has been looked at (mayBeHead); null where
 *  anything about it is in doubt. known: what the connection's last one had. */
export function readRequestHead(
  bytes: Buffer,
  length: number,
  options: ListenOptions,
  known: RequestFields | null,
): RequestHead | null {
  let lineEnd = 0
  while (lineEnd < length && bytes[lineEnd] !== CR) lineEnd++
  if (bytes[lineEnd + 1] !== LF) return null
  // A text of its own: what is stored keeps a part of it, and with that all of the text that it is a part of.
  const line = bytes.toString('latin1', 0, lineEnd)
  const method = line.startsWith('GET /') ? 'GET' : line.startsWith('HEAD /') ? 'HEAD' : null
  if (method === null) return null
  const targetAt = method.length + 1
  const targetEnd = line.indexOf(' ', targetAt)
  if (targetEnd < 0 || line.length !== targetEnd + VERSION.length || !line.endsWith(VERSION)) return null
  const rawTarget = line.slice(targetAt, targetEnd)
  if (rawTarget.length > options.target || !isPlain(rawTarget)) return null
  const target = normalizeTarget(rawTarget)
  // A path in another spelling than its normal one is one that servers differ on.
  if (target instanceof Error || target.path.length + target.query.length !== rawTarget.length) return null

  const fieldsAt = lineEnd + 2
  const fields =
    known !== null && isAt(bytes, fieldsAt, length, known.bytes) ? known : readFields(bytes, fieldsAt, length, options)
  return fields === null ? null : { line, method, path: target.path, query: target.query, fields }
}

/** Visible ASCII alone. */
function isPlain(target: string): boolean {
  for (let i = 0; i < target.length; i++) {
    const code = target.charCodeAt(i)
    if (code <= 0x20 || code >= 0x7f) return false
  }
  return true
}

/** Up to this length bytes are compared here: calling out for that takes longer. */
const SHORT_BYTES = 96

/** True where `all` holds, from start to before end, these bytes. */
function isAt(all: Buffer, start: number, end: number, bytes: Buffer): boolean {
  const { length } = bytes
  if (end - start !== length) return false
  if (length > SHORT_BYTES) return bytes.compare(all, start, end) === 0
  for (let i = 0; i < length; i++) if (all[start + i] !== bytes[i]) return false
  return true
}

/** From start to before end: field lines and the empty line, which is its end. */
function readFields(
  all: Buffer,
  start: number,
  end: number,
  { headFields, headLine }: ListenOptions,
): RequestFields | null {
  const text = all.toString('latin1', start, end)
  const headers: string[] = []
  let host: string | null = null
  let connection: string | null = null
  let at = 0
  for (let lineEnd = text.indexOf('\r\n'); lineEnd > at; lineEnd = text.indexOf('\r\n', at)) {
    const colon = text.indexOf(':', at)
    if (colon < 0 || colon > lineEnd) return null
    const name = text.slice(at, colon)
    const value = trimmed(text, colon + 1, lineEnd)
    if (!isToken(name) || !isFieldValue(value) || name.length + value.length > headLine) return null
    if (sameName(name, 'host')) {
      if (host !== null) return null
      host = normalizeHost(value, 'http')
      if (host === null) return null
    } else if (sameName(name, 'connection')) {
      if (connection !== null) return null
      connection = value.toLowerCase()
    } else if (CHANGES_MEANING.has(name.toLowerCase())) return null
    headers.push(name, value)
    at = lineEnd + 2
  }
  // The first empty line has to be the end: what comes behind it is another request, or a body.
  if (at !== text.length - 2 || host === null || headers.length > headFields * 2) return null
  if (connection !== null && connection !== 'keep-alive' && connection !== 'close') return null
  // Of its own: what is kept of a pool keeps all of the pool.
  const bytes = Buffer.allocUnsafeSlow(end - start)
  all.copy(bytes, 0, start, end)
  return { bytes, headers, host, wantsClose: connection === 'close' }
}

/** Fields by which a message has a body, or a connection another meaning. */
const CHANGES_MEANING: ReadonlySet<string> = new Set([
  'content-length',
  'transfer-encoding',
  'trailer',
  'te',
  'expect',
  'upgrade',
  'http2-settings',
  'keep-alive',
  'proxy-connection',
])

/** RFC 9110 §5.5: the space around a value is not a part of it. */
function trimmed(text: string, from: number, to: number): string {
  let [start, end] = [from, to]
  while (start < end && isSpace(text.charCodeAt(start))) start++
  while (end > start && isSpace(text.charCodeAt(end - 1))) end--
  return text.slice(start, end)
}

const isSpace = (code: number): boolean => code === 0x20 || code === 0x09
