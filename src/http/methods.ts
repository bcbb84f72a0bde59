// The methods that the gateway forwards (RFC 9110 §9, RFC 5789, RFC 10008), and what is known of them.

export const METHODS = ['GET', 'HEAD', 'OPTIONS', 'POST', 'PUT', 'PATCH', 'DELETE', 'QUERY'] as const

const KNOWN: ReadonlySet<string> = new Set(METHODS)
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'QUERY'])

/** Anything else is a 501, CONNECT and TRACE a 405. */
export const isKnownMethod = (method: string): boolean => KNOWN.has(method)

/** RFC 9110 §9.2.1: the client asks for no change. Unknown methods count as unsafe. */
export const isSafeMethod = (method: string): boolean => SAFE.has(method)
