// What would become of a request that nobody sends: the same route, user, limits and look-up that a real one meets, asked
// without charging or storing. Whatever a client would be refused with is part of the answer, never an error.

import type { ExplainRequest, Explanation } from '../core/control.ts'
import { type RequestFacts, RequestContext } from '../core/context.ts'
import { HeldBody } from '../core/held-body.ts'
import { GatewayError, asGatewayError } from '../core/errors.ts'
import { OVERLOADED } from '../core/overload.ts'
import { getHeaders } from '../http/headers.ts'
import { METHODS, isKnownMethod } from '../http/methods.ts'
import { normalizeHost, normalizeTarget } from '../http/target.ts'
import type { GatewayPlan } from './compile.ts'

/** defaultHost: the host of a request that names none, `name:port`. isOverloaded: nothing goes to the upstreams. */
export async function explainRequest(
  plan: GatewayPlan,
  request: ExplainRequest,
  defaultHost: string,
  isOverloaded: boolean,
): Promise<Explanation> {
  const { ctx, fault } = imagine(request, defaultHost)
  const nothing: Explanation = {
    method: ctx.method,
    host: ctx.host,
    target: ctx.path + ctx.query,
    client_ip: ctx.clientAddress,
    user: null,
    route: null,
    upstream: null,
    upstream_target: null,
    limits: [],
    cache: null,
    idempotency: null,
    refused: null,
  }
  try {
    if (fault !== null) throw fault
    const route = plan.resolve(ctx)
    if (route === 'health') return { ...nothing, client_ip: ctx.clientAddress }
    const stranger = route.identity === null ? null : await route.identity(ctx)
    const user = ctx.user?.id ?? null
    if (stranger !== null) {
      const refused = toldOf(asGatewayError(ctx.error))
      return { ...nothing, client_ip: ctx.clientAddress, user, route: route.row.route, refused }
    }
    const limits = route.limiter?.explain(ctx) ?? []
    const cache = (await route.cache?.explain(ctx)) ?? null
    const overLimits = overLimit(limits, cache)
    const refused = overLimits ?? (isOverloaded && isMiss(cache) ? toldOf(OVERLOADED) : null)
    const idempotency = route.idempotency?.explain(ctx) ?? null
    const isLate = !limits.some((limit) => refuses(limit) && limit.counts === 'requests')
    const mayAnswer = refused !== null && (overLimits === null || route.answersLimited)
    const inItsPlace = mayAnswer ? (route.cache?.explainUnasked(ctx, isLate) ?? null) : null
    return {
      ...nothing,
      client_ip: ctx.clientAddress,
      user,
      route: route.row.route,
      upstream: route.upstreamOf(ctx),
      upstream_target: route.forwarder.rewritePath(ctx.path) + ctx.query,
      limits,
      cache: inItsPlace === null || overLimits !== null ? (inItsPlace ?? cache) : { ...inItsPlace, reason: INSTEAD },
      idempotency,
      refused: inItsPlace === null ? refused : null,
    }
  } catch (cause) {
    return { ...nothing, client_ip: ctx.clientAddress, refused: toldOf(asGatewayError(cause)) }
  }
}

const INSTEAD = 'the gateway is overloaded, and what is stored answers in place of the upstream'

const refuses = ({ admitted, mode }: Explanation['limits'][number]): boolean => !admitted && mode === 'enforce'

/** The refusal of the policy with the longest wait, as a client meets it; null when all admit. */
function overLimit(limits: Explanation['limits'], cache: Explanation['cache']): Explanation['refused'] {
  const [longest] = limits
    .filter((limit) => refuses(limit) && (isMiss(cache) || limit.counts === 'requests'))
    .toSorted((a, b) => (b.retry_after_s ?? Infinity) - (a.retry_after_s ?? Infinity))
  if (longest === undefined) return null
  const { policy, retry_after_s } = longest
  const until =
    retry_after_s === null ? 'the request costs more than it ever has' : `it admits again in ${retry_after_s} s`
  return toldOf(new GatewayError('quota_exceeded', `Policy ${policy} is used up; ${until}.`))
}

const isMiss = (cache: Explanation['cache']): boolean => cache?.outcome !== 'hit' && cache?.outcome !== 'stale'

const toldOf = ({ kind, code, detail }: GatewayError): NonNullable<Explanation['refused']> => ({
  status: kind.status,
  code,
  detail,
})

/** A request that nobody sent, and what a lane would refuse it for. */
function imagine(request: ExplainRequest, defaultHost: string): { ctx: RequestContext; fault: GatewayError | null } {
  const { method, url, headers, body, client = '127.0.0.1' } = request
  const facts: RequestFacts = {
    method,
    scheme: 'http',
    host: '',
    path: url,
    query: '',
    version: '1.1',
    headers,
    body: body === undefined ? null : heldText(body),
    peerAddress: client,
    receivedAtMs: performance.now(),
  }
  const read = readTarget(request, defaultHost)
  const unknown = isKnownMethod(method) ? null : methodFault(method)
  const fault = unknown ?? (read instanceof GatewayError ? read : null)
  return { ctx: new RequestContext(read instanceof GatewayError ? facts : { ...facts, ...read }, 'explain'), fault }
}

function heldText(text: string): HeldBody {
  const bytes = Buffer.from(text)
  return new HeldBody(bytes, bytes.length)
}

function readTarget(
  { url, headers }: ExplainRequest,
  defaultHost: string,
): Pick<RequestFacts, 'host' | 'path' | 'query'> | GatewayError {
  const target = normalizeTarget(url)
  if (target instanceof GatewayError) return target
  if (target.form === 'asterisk') return new GatewayError('bad_target', 'The gateway answers * itself; name a path.')
  const named = getHeaders(headers, 'host')
  if (named.length > 1) return new GatewayError('bad_host', 'Exactly one valid Host field is needed.')
  // As with curl: the URL tells where to connect, and a Host field of one's own takes its place in the request.
  const host = normalizeHost(named[0] ?? target.authority ?? defaultHost, target.scheme ?? 'http')
  if (host === null) return new GatewayError('bad_host', 'Exactly one valid Host field is needed.')
  return { host, path: target.path, query: target.query }
}

const methodFault = (method: string): GatewayError =>
  method === 'TRACE' || method === 'CONNECT'
    ? new GatewayError('method_not_allowed', `${method} is not forwarded.`)
    : new GatewayError('method_unknown', `Known methods: ${METHODS.join(', ')}.`)
