// The head of a request as it goes onto the wire. The last look before that: whatever would frame the message anew, speak
// of the connection, or be read as another line is a fault of ours and stays here, for it could become a second request
// that somebody else gets the answer to.

import type { Readable } from 'node:stream'
import type { HeaderList } from '../core/context.ts'
import { remember } from '../core/remember.ts'
import { isFieldValue, isToken } from '../http/headers.ts'

/** A request without what is said of its connection, which is not chosen yet. */
export interface OutgoingHead {
  readonly method: string
  /** All lines but the last field. */
  readonly text: string
  /** How long the body is, or is said to be; null: it goes out in chunks. */
  readonly bodyBytes: number | null
}

/** Methods whose content means something (RFC 9110 §9.3), so that its absence has to be said. */
const WITH_CONTENT: ReadonlySet<string> = new Set(['PUT', 'POST', 'PATCH', 'QUERY', 'PROPFIND', 'PROPPATCH'])

export const expectsContent = (method: string): boolean => WITH_CONTENT.has(method)

/** Throws for what must not go out. headers: a Content-Length counts where there is a body, and must be right where all of
 *  that is known. */
export function formatHead(
  method: string,
  path: string,
  headers: HeaderList,
  body: Buffer | Readable | null,
): OutgoingHead {
  if (!isToken(method) || !isPath(path) || headers.length % 2 !== 0) throw new Error('no valid request line')
  let text = `${method} ${path} HTTP/1.1\r\n`
  let bodyBytes: number | null = null
  let hosts = 0
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] as string
    const value = headers[i + 1] as string
    const kind = kindOf(name)
    if (kind === 'invalid' || !isFieldValue(value)) throw new Error(`not a valid header field: ${name}`)
    if (kind === 'length') {
      if (bodyBytes !== null || !/^\d{1,15}$/.test(value)) throw new Error('not one length')
      bodyBytes = Number(value)
      continue
    }
    if (kind === 'host' && ++hosts > 1) throw new Error('two hosts')
    if (kind === 'ours') throw new Error(`not for the upstream: ${name}`)
    text += `${name}: ${value}\r\n`
  }
  if (body === null || Buffer.isBuffer(body)) {
    const wholeBytes = body === null ? 0 : body.length
    if (body !== null && bodyBytes !== null && bodyBytes !== wholeBytes) throw new Error('not the length of the body')
    bodyBytes = wholeBytes
    if (wholeBytes === 0 && !expectsContent(method)) return { method, text, bodyBytes }
  }
  text += bodyBytes === null ? 'Transfer-Encoding: chunked\r\n' : `Content-Length: ${bodyBytes}\r\n`
  return { method, text, bodyBytes }
}

/** Fields that frame a message, or speak of its connection. */
const OURS: ReadonlySet<string> = new Set(['expect', 'upgrade', 'connection', 'keep-alive', 'transfer-encoding'])

const MAX_KNOWN_NAMES = 500

const kindOf = remember((name): 'invalid' | 'ours' | 'host' | 'length' | 'other' => {
  const lower = name.toLowerCase()
  if (!isToken(name)) return 'invalid'
  if (OURS.has(lower)) return 'ours'
  return lower === 'host' ? 'host' : lower === 'content-length' ? 'length' : 'other'
}, MAX_KNOWN_NAMES)

/** Origin form; no blank and no control character. */
const isPath = (path: string): boolean => /^\/[!-~\x80-\xff]*$/.test(path)
