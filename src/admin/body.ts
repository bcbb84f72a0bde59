// The JSON body of an admin request, within bounds: 1 MiB, UTF-8, 64 levels deep.

import type { IncomingMessage } from 'node:http'

const MAX_BODY_BYTES = 1024 ** 2
const MAX_DEPTH = 64

/** A decoded body, or the status and the words to refuse it with. */
export type Body =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly status: 400 | 413 | 415; readonly detail: string }

/** Reads and parses the whole body; an empty one counts as `{}`. Fails where the client breaks off. */
export async function readBody(request: IncomingMessage): Promise<Body> {
  // A type that no form and no script of another site can send without asking first.
  if (!/^application\/json\s*(;|$)/i.test(request.headers['content-type'] ?? '')) {
    return { ok: false, status: 415, detail: 'Send "Content-Type: application/json".' }
  }
  const tooLarge: Body = { ok: false, status: 413, detail: `The body may have at most ${MAX_BODY_BYTES} bytes.` }
  if (Number(request.headers['content-length'] ?? 0) > MAX_BODY_BYTES) return tooLarge
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.length
    if (bytes > MAX_BODY_BYTES) return tooLarge
    chunks.push(chunk)
  }
  return parseBody(Buffer.concat(chunks))
}

function parseBody(bytes: Buffer): Body {
  if (bytes.length === 0) return { ok: true, value: {} }
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    // Measured before parsing: a value of great depth overflows the stack of whoever walks it.
    if (isDeeper(text, MAX_DEPTH)) return { ok: false, status: 400, detail: `JSON may be ${MAX_DEPTH} levels deep.` }
    return { ok: true, value: JSON.parse(text) }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    return { ok: false, status: 400, detail: `The body is not JSON: ${reason}` }
  }
}

function isDeeper(json: string, maxDepth: number): boolean {
  let depth = 0
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[[\]{}]/gs)) {
    if (token === '[' || token === '{') depth++
    else if (token === ']' || token === '}') depth--
    if (depth > maxDepth) return true
  }
  return false
}
