// Who may ask the admin port: the bearer token, and where a browser's request comes from. A token is compared by digest in
// constant time; ten failures a minute lock an address out. Without a token the port is on loopback, where the danger is
// a web page in the operator's own browser: DNS rebinding (Host allow-list) and cross-site requests (Origin, Fetch
// Metadata). Caddy's admin endpoint does the same.

import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { isIPv4 } from 'node:net'
import type { AdminOptions } from './options.ts'

/** Why a request is turned away. */
export interface Refusal {
  readonly status: number
  /** For the caller: what was expected. */
  readonly detail: string
  readonly headers: Readonly<Record<string, string>>
}

export interface Guard {
  /** Whether it may come from there; concerns every request. */
  checkSource(headers: IncomingHttpHeaders): Refusal | null
  /** Whether it has the token, where one is set. nowMs: monotonic. */
  checkToken(headers: IncomingHttpHeaders, address: string, nowMs: number): Refusal | null
}

const MAX_FAILURES = 10
const FAILURE_WINDOW_MS = 60_000
/** Addresses whose failures are remembered; beyond, the one that failed first is forgotten. */
const MAX_ADDRESSES = 1000

/** True for an address or name that only this machine can reach. host: without brackets. */
export const isLoopback = (host: string): boolean =>
  host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'))

export function createGuard(options: AdminOptions): Guard {
  const expected = options.token === '' ? null : digest(options.token)
  const failures = createFailures()

  return {
    checkSource(headers) {
      // A token cannot be had by rebinding, and the names of a port beyond loopback are not known here.
      if (expected === null && !isKnownHost(headers.host, options.listen.host)) {
        return refusal(421, 'Host must name loopback or the address of the admin port.')
      }
      return isForeign(headers) ? refusal(403, 'Requests from other web sites are refused.') : null
    },
    checkToken(headers, address, nowMs) {
      if (expected === null) return null
      const lockedMs = failures.lockedMs(address, nowMs)
      if (lockedMs > 0) {
        const seconds = String(Math.ceil(lockedMs / 1000))
        return refusal(429, `Too many wrong tokens from this address; try again in ${seconds} s.`, {
          'Retry-After': seconds,
        })
      }
      const token = /^bearer +([^\s]+) *$/i.exec(headers.authorization ?? '')?.[1]
      if (token === undefined) {
        return refusal(401, 'Send the admin token: "Authorization: Bearer <token>".', { 'WWW-Authenticate': CHALLENGE })
      }
      if (timingSafeEqual(digest(token), expected)) return null
      failures.add(address, nowMs)
      // RFC 6750 §3.1
      return refusal(401, 'This is not the admin token.', { 'WWW-Authenticate': `${CHALLENGE}, error="invalid_token"` })
    },
  }
}

const CHALLENGE = 'Bearer realm="weirgate admin"'

const refusal = (status: number, detail: string, headers: Record<string, string> = {}): Refusal => ({
  status,
  detail,
  headers,
})

/** Digests have one length, which timingSafeEqual needs, and tell nothing of the token's. */
const digest = (token: string): Buffer => createHash('sha256').update(token).digest()

function isKnownHost(hostField: string | undefined, listenHost: string): boolean {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::\d+)?$/.exec(hostField ?? '')
  const host = (match?.[1] ?? match?.[2] ?? '').toLowerCase()
  return isLoopback(host) || host === listenHost.toLowerCase()
}

/** True where a browser says that another site sent it. Programs send neither field. */
function isForeign(headers: IncomingHttpHeaders): boolean {
  const site = headers['sec-fetch-site']
  if (site !== undefined && site !== 'same-origin' && site !== 'none') return true
  const { origin, host } = headers
  if (origin === undefined) return false
  return !URL.canParse(origin) || new URL(origin).host !== host?.toLowerCase()
}

interface Failures {
  add(address: string, nowMs: number): void
  /** Milliseconds until the address may try again; 0 where it may now. */
  lockedMs(address: string, nowMs: number): number
}

function createFailures(): Failures {
  /** The times of an address's failures, oldest first, at most MAX_FAILURES. */
  const byAddress = new Map<string, number[]>()
  const recent = (address: string, nowMs: number): number[] =>
    (byAddress.get(address) ?? []).filter((atMs) => atMs > nowMs - FAILURE_WINDOW_MS)

  return {
    add(address, nowMs) {
      const times = recent(address, nowMs)
      const [oldest] = byAddress.keys()
      if (!byAddress.has(address) && byAddress.size >= MAX_ADDRESSES && oldest !== undefined) byAddress.delete(oldest)
      byAddress.set(address, [...times, nowMs])
    },
    lockedMs(address, nowMs) {
      const times = recent(address, nowMs)
      return times.length < MAX_FAILURES ? 0 : (times[0] as number) + FAILURE_WINDOW_MS - nowMs
    },
  }
}
