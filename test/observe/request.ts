// A finished request for the tests of this folder: only what a test names differs from a plain hit.

import { RequestContext } from '../../src/core/context.ts'

type Finished = Partial<
  Pick<
    RequestContext,
    | 'route'
    | 'quota'
    | 'cache'
    | 'cacheReason'
    | 'sparedMs'
    | 'upstreamMs'
    | 'error'
    | 'status'
    | 'bytesSent'
    | 'durationMs'
    | 'aborted'
    | 'clientAddress'
    | 'user'
    | 'shadowedBy'
  >
>
type Facts = Partial<Pick<RequestContext, 'method' | 'path' | 'query' | 'headers' | 'receivedAtMs' | 'id'>>

export function finished(how: Finished & Facts = {}): RequestContext {
  const { method = 'GET', path = '/a', query = '', headers = [], receivedAtMs = 0, id = 'id-1', ...rest } = how
  const ctx = new RequestContext(
    {
      method,
      scheme: 'http',
      host: 'gateway.test',
      path,
      query,
      version: '1.1',
      headers,
      body: null,
      peerAddress: '192.0.2.7',
      receivedAtMs,
    },
    id,
  )
  return Object.assign(ctx, { status: 200, ...rest })
}
