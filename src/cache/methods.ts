// Which methods a route's cache answers. HEAD comes with GET, whose answer serves both. POST and QUERY are told apart by
// their bodies: POST only where the route says so, because only its owner knows that the same body may have the same
// answer (RFC 9110 §9.3.3); QUERY is made for it (RFC 10008 §2.7).

export const CACHEABLE_METHODS = ['GET', 'HEAD', 'POST', 'QUERY'] as const

export const GET_AND_HEAD: ReadonlySet<string> = new Set(['GET', 'HEAD'])

/** The methods whose bodies are part of the key. */
export const isKeyedByBody = (method: string): boolean => method === 'POST' || method === 'QUERY'
