// The admin port: a server of its own, never a route, so no request of a client can reach it. It asks the gateway only
// through Control. The order of the checks is the order in which they stand in `answer`: where from, token, endpoint, body.
//
// Every answer forbids storing and sniffing; none carries a CORS field, so no other site can read one.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Control } from '../core/control.ts'
import { GatewayError } from '../core/errors.ts'
import { http } from '../core/node-http.ts'
import { formatAddress } from '../server/options.ts'
import { createGuard, isLoopback } from './auth.ts'
import type { Guard } from './auth.ts'
import { readBody } from './body.ts'
import { CACHE } from './endpoints/cache.ts'
import { json, problem } from './endpoints/endpoint.ts'
import type { Answer, Endpoint } from './endpoints/endpoint.ts'
import { EXPLAIN } from './endpoints/explain.ts'
import { HEALTH } from './endpoints/health.ts'
import { IDEMPOTENCY } from './endpoints/idempotency.ts'
import { LIMITS } from './endpoints/limits.ts'
import { METRICS } from './endpoints/metrics.ts'
import { RELOAD } from './endpoints/reload.ts'
import { ROUTES } from './endpoints/routes.ts'
import { STATS } from './endpoints/stats.ts'
import type { AdminOptions } from './options.ts'

const INDEX: Endpoint = {
  method: 'GET',
  path: '/',
  summary: 'this list',
  run: () => json({ endpoints: ENDPOINTS.map(({ method, path, summary }) => ({ method, path, summary })) }),
}

/** All that can be asked. A new topic is one file and one entry here. */
export const ENDPOINTS: readonly Endpoint[] = [
  INDEX,
  ...HEALTH,
  ...METRICS,
  ...STATS,
  ...ROUTES,
  ...EXPLAIN,
  ...CACHE,
  ...IDEMPOTENCY,
  ...LIMITS,
  ...RELOAD,
]

/** What this folder needs of the log. */
export interface AdminLog {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
  error(fields: object, message: string): void
}

export interface AdminServer {
  /** Starts listening and tells where. Fails where the address is taken, or lies beyond loopback without a token. */
  listen(): Promise<{ host: string; port: number }>
  /** Stops listening, lets answers under way end for a second, then cuts them off. */
  close(): Promise<void>
}

const MAX_CONNECTIONS = 64
const MAX_HEAD_BYTES = 16_384
const MAX_PATH_CHARS = 2048
const REQUEST_TIMEOUT_MS = 10_000
const KEEP_ALIVE_MS = 5000
const CLOSE_GRACE_MS = 1000
const SAFE_FIELDS = { 'Cache-Control': 'no-store', 'X-Content-Type-Options': 'nosniff' }
const BAD_MESSAGE = [
  'HTTP/1.1 400 Bad Request',
  ...Object.entries(SAFE_FIELDS).map(([name, value]) => `${name}: ${value}`),
  'Content-Length: 0',
  'Connection: close',
  '\r\n',
].join('\r\n')

export function createAdminServer(control: Control, options: AdminOptions, log: AdminLog): AdminServer {
  const guard = createGuard(options)
  const server = http.createServer(
    {
      maxHeaderSize: MAX_HEAD_BYTES,
      headersTimeout: REQUEST_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: 1000,
      keepAliveTimeout: KEEP_ALIVE_MS,
    },
    (request, response) => void handle(request, response),
  )
  server.maxConnections = MAX_CONNECTIONS
  server.on('clientError', (_error, socket) => {
    if (socket.writable) socket.end(BAD_MESSAGE)
    else socket.destroy()
  })

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let reply: Answer
    try {
      reply = await answer(request, control, guard, log)
    } catch (error) {
      // A client that breaks off its body is no fault, and hears nothing.
      if (request.destroyed && !request.complete) return
      reply = fault(error, request, log)
    }
    const body = Buffer.from(reply.text)
    response.writeHead(reply.status, {
      ...SAFE_FIELDS,
      'Content-Type': reply.type,
      'Content-Length': body.length,
      // What is left of a body is not read to its end.
      ...(request.complete ? {} : { Connection: 'close' }),
      ...reply.headers,
    })
    response.end(request.method === 'HEAD' ? undefined : body)
  }

  return {
    async listen() {
      const { host, port } = options.listen
      if (options.token === '' && !isLoopback(host)) {
        throw new Error(
          `admin.listen ${formatAddress(options.listen)} is reachable from other machines, which needs a token: ` +
            'set admin.token (openssl rand -hex 32), or listen on 127.0.0.1',
        )
      }
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen(port, host, () => {
          server.removeListener('error', reject)
          // Without a listener, one connection that cannot be accepted (EMFILE) would end the process.
          server.on('error', (error) => log.error({ error }, 'Admin port failed'))
          resolve()
        })
      })
      const bound = server.address() as AddressInfo
      return { host: bound.address, port: bound.port }
    },
    close() {
      return new Promise((resolve) => {
        const cutOff = setTimeout(() => server.closeAllConnections(), CLOSE_GRACE_MS)
        server.close(() => {
          clearTimeout(cutOff)
          resolve()
        })
      })
    },
  }
}

async function answer(request: IncomingMessage, control: Control, guard: Guard, log: AdminLog): Promise<Answer> {
  const { headers, method = '' } = request
  const clientIp = clientAddress(request)
  const path = pathOf(request)
  const here = ENDPOINTS.filter((endpoint) => segmentsOf(endpoint.path, path) !== null)

  const isOpen = here.some((endpoint) => endpoint.isOpen === true)
  const refused = guard.checkSource(headers) ?? (isOpen ? null : guard.checkToken(headers, clientIp, performance.now()))
  if (refused !== null) {
    log.warn(
      { client_ip: clientIp, method, path, status_code: refused.status, reason: refused.detail },
      'Admin request refused',
    )
    return refusal(refused.status, refused.detail, refused.headers)
  }

  if (here.length === 0) return refusal(404, 'There is no such endpoint; GET / lists what there is.')
  const endpoint = here.find((candidate) => candidate.method === (method === 'HEAD' ? 'GET' : method))
  if (endpoint === undefined) {
    const allowed = here.map((candidate) => (candidate.method === 'GET' ? 'GET, HEAD' : candidate.method)).join(', ')
    return refusal(405, `${path} takes ${allowed}.`, { Allow: allowed })
  }

  let value: unknown = queryOf(request)
  if (endpoint.method === 'POST') {
    const body = await readBody(request)
    if (!body.ok) return refusal(body.status, body.detail)
    value = body.value
  }
  const reply = await endpoint.run(control, value, clientIp, segmentsOf(endpoint.path, path) ?? {})
  if (reply.change !== undefined) {
    log.info({ client_ip: clientIp, method, path, status_code: reply.status, ...reply.change }, 'Admin change')
  }
  return reply
}

const refusal = (status: number, detail: string, headers: Readonly<Record<string, string>> = {}): Answer => ({
  ...problem(status, http.STATUS_CODES[status] ?? 'Error', detail),
  headers,
})

/** What Control refuses in its own words is passed on; anything else is a bug. */
function fault(error: unknown, request: IncomingMessage, log: AdminLog): Answer {
  if (error instanceof GatewayError && error.kind.source === 'client') return refusal(error.kind.status, error.detail)
  log.error(
    { client_ip: clientAddress(request), method: request.method, path: pathOf(request), error },
    'Admin request failed',
  )
  return refusal(500, 'The gateway failed to answer; its log says why.')
}

/** The peer, IPv4-mapped IPv6 unmapped. */
const clientAddress = (request: IncomingMessage): string =>
  (request.socket.remoteAddress ?? '').replace(/^::ffff:/i, '')

/** Parameters by name; of one that is repeated, the last. */
const queryOf = (request: IncomingMessage): unknown =>
  Object.fromEntries(new URLSearchParams((request.url ?? '').replace(/^[^?]*/s, '')))

/** The named segments of a path; null where it is not one of this pattern. */
function segmentsOf(pattern: string, path: string): Record<string, string> | null {
  if (pattern === path) return {}
  const [names, values] = [pattern.split('/'), path.split('/')]
  if (names.length !== values.length) return null
  const segments: Record<string, string> = {}
  for (const [i, name] of names.entries()) {
    const value = values[i] as string
    if (name.startsWith(':') && value !== '') segments[name.slice(1)] = value
    else if (name !== value) return null
  }
  return segments
}

/** Without the query, and no longer than the log should hold. */
const pathOf = (request: IncomingMessage): string => (request.url ?? '').slice(0, MAX_PATH_CHARS).replace(/\?.*$/s, '')
