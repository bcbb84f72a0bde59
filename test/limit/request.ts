// Requests as the limiter sees them.

import { RequestContext } from '../../src/core/context.ts'
import type { HeaderList } from '../../src/core/context.ts'

export interface RequestParts {
  readonly ip?: string
  readonly route?: string
  readonly method?: string
  readonly host?: string
  readonly headers?: HeaderList
}

export function request(parts: RequestParts = {}): RequestContext {
  const ctx = new RequestContext(
    {
      method: parts.method ?? 'GET',
      scheme: 'http',
      host: parts.host ?? 'gateway.test',
      path: '/',
      query: '',
      version: '1.1',
      headers: parts.headers ?? [],
      body: null,
      peerAddress: parts.ip ?? '192.0.2.7',
      receivedAtMs: 0,
    },
    'req-1',
  )
  ctx.route = parts.route ?? '/x'
  return ctx
}

/** A field of a flat list; the last one counts. */
export function field(fields: HeaderList, name: string): string | undefined {
  const at = fields.lastIndexOf(name)
  return at < 0 ? undefined : fields[at + 1]
}
