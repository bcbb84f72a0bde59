// The methods that the gateway forwards, and what is known of them (RFC 9110 §9, RFC 4918, RFC 10008, the IANA registry).
//
// Every method that the parser reads is forwarded: what it means is between a client and its backend. But CONNECT asks
// for a tunnel, and TRACE would show what the gateway adds for the backend's eyes.

export const METHODS: readonly string[] = `
  GET HEAD OPTIONS POST PUT PATCH DELETE QUERY
  ACL BIND CHECKOUT COPY LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY PROPFIND PROPPATCH PURGE
  REBIND REPORT SEARCH SOURCE SUBSCRIBE UNBIND UNLINK UNLOCK UNSUBSCRIBE`
  .trim()
  .split(/\s+/)

const KNOWN: ReadonlySet<string> = new Set(METHODS)
/** As registered; all others may change something, so they invalidate what is stored (RFC 9111 §4.4). */
const SAFE: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'QUERY', 'PROPFIND', 'REPORT', 'SEARCH'])

/** Anything else is a 501, CONNECT and TRACE a 405. */
export const isKnownMethod = (method: string): boolean => KNOWN.has(method)

/** RFC 9110 §9.2.1: the client asks for no change. */
export const isSafeMethod = (method: string): boolean => SAFE.has(method)

/** RFC 9110 §9.2.2: asked twice, the same comes of it as asked once. */
export const isIdempotentMethod = (method: string): boolean =>
  SAFE.has(method) || method === 'PUT' || method === 'DELETE'
