// What the two demo backends have in common: a small HTTP service on 127.0.0.1 that behaves like a FastAPI application
// on a bad day: errors as {"detail": ...}, 404, 405 with Allow, 422, bodies up to 1 MiB, plain JSON or Server-Sent
// Events. It stands for somebody else's service, so it imports nothing of the gateway and knows nothing of caching:
// no Cache-Control, and a validator where the route asks for one, yet nobody looks at If-None-Match.
//
// Promise: a client that goes away takes its timers and its place in every queue with it (Call.signal).

import { hash } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** An import would load all that it exports, a client with 12 MiB among it. */
const { createServer } = process.getBuiltinModule('node:http')

export const MAX_BODY_BYTES = 1024 ** 2
const MAX_CONNECTIONS = 4096
const NO_BODY = Buffer.alloc(0)

/** One request, as a handler sees it. */
export interface Call {
  /** Values of `:name` segments, undecoded. */
  readonly params: Readonly<Record<string, string>>
  /** Last value of each query parameter. */
  readonly query: Readonly<Record<string, string>>
  readonly headers: IncomingHttpHeaders
  /** At most MAX_BODY_BYTES; empty for GET and HEAD. */
  readonly body: Buffer
  /** Aborted when the client has gone or the backend closes. */
  readonly signal: AbortSignal
}

/** JSON (without `json`: no body), or an event stream that is sent as it is made. */
export type Answer =
  | {
      readonly status: number
      readonly json?: unknown
      readonly headers?: Readonly<Record<string, string>>
      /** True adds a strong ETag made from the bytes of the body. */
      readonly etag?: boolean
    }
  | { readonly events: AsyncIterable<string> }

export interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Literal segments and `:name`. GET answers HEAD too. The first route that matches wins. */
  readonly path: string
  readonly handle: (call: Call) => Answer | Promise<Answer>
}

export interface Backend {
  /** `http://127.0.0.1:<port>`, no slash at the end. */
  readonly url: string
  readonly port: number
  /** Cuts every connection; resolves when no handler runs any more. Once. */
  close(): Promise<void>
}

/** An error answer in FastAPI's form. */
export function failure(status: number, detail: unknown, headers: Readonly<Record<string, string>> = {}): Answer {
  return { status, json: { detail }, headers }
}

/** Resolves after ms, at once for 0. Rejects, and frees its timer, when the signal aborts. */
export async function wait(ms: number, signal: AbortSignal): Promise<void> {
  if (ms > 0) await sleep(ms, undefined, { signal })
  else signal.throwIfAborted()
}

/** Starts a backend on 127.0.0.1. name: sent as X-Backend; port: 0 for any free one. Rejects where the port is taken. */
export async function startBackend(name: string, port: number, routes: readonly Route[]): Promise<Backend> {
  const table = routes.map((route) => ({ ...route, matches: compilePath(route.path) }))
  const active = new Map<AbortController, Promise<void>>() // at most one for each of MAX_CONNECTIONS

  const answer = async (request: IncomingMessage, signal: AbortSignal): Promise<Answer> => {
    const [path = '', search = ''] = (request.url ?? '').split('?', 2)
    const method = request.method === 'HEAD' ? 'GET' : request.method
    const allowed = new Set<string>()
    for (const route of table) {
      const params = route.matches(path)
      if (params === null) continue
      allowed.add(route.method)
      if (route.method !== method) continue
      const body = method === 'GET' ? NO_BODY : await readBody(request)
      if (body === null) return failure(413, 'Request body too large')
      const query = Object.fromEntries(new URLSearchParams(search))
      return route.handle({ params, query, headers: request.headers, body, signal })
    }
    if (allowed.size === 0) return failure(404, 'Not Found')
    if (allowed.has('GET')) allowed.add('HEAD')
    return failure(405, 'Method Not Allowed', { Allow: [...allowed].join(', ') })
  }

  const serve = async (request: IncomingMessage, response: ServerResponse, signal: AbortSignal): Promise<void> => {
    try {
      await send(await answer(request, signal), name, response)
    } catch (error) {
      if (signal.aborted || response.destroyed) return // nobody is left to answer
      process.emitWarning(error instanceof Error ? error : String(error))
      if (response.headersSent) response.destroy()
      else response.writeHead(500, { 'Content-Type': 'text/plain; charset=utf-8' }).end('Internal Server Error')
    }
  }

  const server = createServer((request, response) => {
    const call = new AbortController()
    response.once('close', () => {
      if (!response.writableFinished) call.abort()
    })
    const served = serve(request, response, call.signal).finally(() => active.delete(call))
    active.set(call, served)
  })
  server.maxConnections = MAX_CONNECTIONS
  server.listen(port, '127.0.0.1')
  await once(server, 'listening')
  const bound = (server.address() as AddressInfo).port

  return {
    url: `http://127.0.0.1:${bound}`,
    port: bound,
    async close() {
      const closed = once(server, 'close')
      server.close()
      for (const call of active.keys()) call.abort()
      server.closeAllConnections()
      await Promise.all([closed, ...active.values()])
    },
  }
}

/** `/a/:b` as a function from a path to its parameters, or null where it does not match. */
function compilePath(pattern: string): (path: string) => Record<string, string> | null {
  const names = [...pattern.matchAll(/:(\w+)/g)].map(([, name]) => name as string)
  const regex = new RegExp(`^${pattern.replaceAll(/:\w+/g, '([^/]+)')}$`)
  return (path) => {
    const match = regex.exec(path)
    return match === null ? null : Object.fromEntries(names.map((name, i) => [name, match[i + 1] as string]))
  }
}

/** The whole body, or null where it is too large. The rest of such a body is read and dropped, and the connection
 *  kept: closing it with bytes unread resets it, and the client might never see the 413. Rejects when the client breaks off. */
function readBody(request: IncomingMessage): Promise<Buffer | null> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    let bytes = 0
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes <= MAX_BODY_BYTES) {
        chunks.push(chunk)
        return
      }
      chunks.length = 0
      resolve(null)
    })
    request.once('end', () => resolve(Buffer.concat(chunks)))
    request.once('error', reject)
  })
}

async function send(answer: Answer, name: string, response: ServerResponse): Promise<void> {
  response.setHeader('X-Backend', name)
  if ('events' in answer) {
    response.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8' })
    for await (const event of answer.events) response.write(event)
    response.end()
    return
  }
  for (const [field, value] of Object.entries(answer.headers ?? {})) response.setHeader(field, value)
  if (answer.json === undefined) {
    response.writeHead(answer.status).end()
    return
  }
  const body = JSON.stringify(answer.json)
  if (answer.etag === true) response.setHeader('ETag', `"${hash('sha256', body, 'hex').slice(0, 32)}"`)
  response.writeHead(answer.status, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(body) })
  response.end(body) // node:http drops it on HEAD and keeps the Content-Length (RFC 9110 §9.3.2)
}
