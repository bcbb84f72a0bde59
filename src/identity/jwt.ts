// Signed tokens (RFC 7519, RFC 8725), the one place that knows jose. Which algorithms a token may use is fixed by the
// route table, never by the token; what is verified once is remembered for a while by the token's digest, since a
// signature costs 20 to 130 us and a look-up one. A refusal is remembered too, more shortly, so that a client with an
// old token costs no more than one with a good one.

import { hash } from 'node:crypto'
import { createRequire } from 'node:module'
import type * as Jose from 'jose'
import type { RequestContext } from '../core/context.ts'
import { type Finding, NOBODY, REFUSED, onlyLine } from './finding.ts'
import type { JwtOptions } from './options.ts'

/** A good token counts for as long without being looked at again, and never beyond its `exp`. */
const REMEMBER_MS = 60_000
const REMEMBER_REFUSAL_MS = 5000
/** Tokens remembered, each some 200 bytes; beyond them the oldest goes. */
const MAX_REMEMBERED = 10_000
/** Waiting for a key set; who asks again sooner than the pause after a failure is refused at once. */
const FETCH_TIMEOUT_MS = 3000
const FETCH_PAUSE_MS = 5000
/** Keys that cannot be had are told of no more often. */
const TELL_PAUSE_MS = 60_000

/** Hears where keys should have come from, without what a URL may have of secrets, and why they did not. */
export type TellLostKeys = (place: string, why: string) => void

interface Remembered {
  readonly finding: Finding
  readonly untilMs: number
}

/** Stands for those whom a source of tokens names: of two sources, one name may be two persons. */
export function namespaceOf({ jwks, secret, claim, issuer, audience }: JwtOptions): string {
  const keys = secret === undefined ? jwks : hash('sha256', secret, 'base64url')
  return hash('sha256', JSON.stringify([keys, claim, issuer, audience]), 'base64url').slice(0, 12)
}

/** Finds the user whom a token names. Answers at once what is remembered. prefix: of the ids of users. now: wall clock,
 *  milliseconds. tell: of keys without which everybody is refused. */
export function compileJwtSource(
  options: JwtOptions,
  prefix: string,
  now: () => number,
  tell: TellLostKeys,
): (ctx: RequestContext) => Finding | Promise<Finding> {
  const { header, claim } = options
  const check = compileCheck(options, now)
  const remembered = new Map<string, Remembered>()
  let mayTellAtMs = 0

  function remember(digest: string, finding: Finding, untilMs: number): Finding {
    remembered.set(digest, { finding, untilMs })
    if (remembered.size > MAX_REMEMBERED) {
      for (const oldest of remembered.keys()) {
        remembered.delete(oldest)
        break
      }
    }
    return finding
  }

  async function verify(token: string, digest: string): Promise<Finding> {
    const nowMs = now()
    try {
      const payload = await check(token)
      const name = payload[claim]
      const isName = (typeof name === 'string' && name !== '') || typeof name === 'number'
      if (!isName) return remember(digest, REFUSED, nowMs + REMEMBER_REFUSAL_MS)
      const expiresMs = payload.exp === undefined ? Infinity : payload.exp * 1000 + options.leeway
      const user = { id: `${prefix}${name}`, isProved: true, field: header }
      return remember(digest, { user, isRefused: false }, Math.min(nowMs + REMEMBER_MS, expiresMs))
    } catch (error) {
      if (saysOfToken(error)) return remember(digest, REFUSED, nowMs + REMEMBER_REFUSAL_MS)
      tellLost(error)
      return REFUSED
    }
  }

  function tellLost(error: unknown): void {
    const { jwks } = options
    if (jwks?.kind !== 'url' || performance.now() < mayTellAtMs) return
    mayTellAtMs = performance.now() + TELL_PAUSE_MS
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error
    tell(jwks.url.origin + jwks.url.pathname, cause instanceof Error ? cause.message : String(cause))
  }

  return (ctx) => {
    const value = onlyLine(ctx, header)
    const token = BEARER.exec(value)?.[1] ?? (header === 'authorization' ? '' : value)
    if (token === '') return NOBODY
    const digest = hash('sha256', token, 'base64url')
    const known = remembered.get(digest)
    if (known !== undefined && known.untilMs > now()) return known.finding
    return verify(token, digest)
  }
}

/** False where the keys could not be had: the next time they may be there. */
const saysOfToken = (error: unknown): boolean =>
  error instanceof Error &&
  'code' in error &&
  /^ERR_(?:JWT_|JWS_|JOSE_ALG|JOSE_NOT|JWKS_NO|JWKS_MULT)/.test(String(error.code))

const BEARER = /^bearer +([^\s]+)$/i

type Payload = Readonly<Record<string, unknown>> & { readonly exp?: number }

function compileCheck(options: JwtOptions, now: () => number): (token: string) => Promise<Payload> {
  const { jwks, secret, issuer, audience, leeway } = options
  // Loaded where tokens are read at all: it takes 6 MB.
  const jose = createRequire(import.meta.url)('jose') as typeof Jose
  const fixed: Jose.JWTVerifyOptions = {
    algorithms: options.algorithms ?? (secret === undefined ? ['RS256', 'ES256'] : ['HS256']),
    clockTolerance: leeway / 1000,
    ...(issuer === undefined ? {} : { issuer }),
    ...(audience === undefined ? {} : { audience }),
  }
  const rules = (): Jose.JWTVerifyOptions => ({ ...fixed, currentDate: new Date(now()) })
  if (secret !== undefined) {
    const key = Buffer.from(secret)
    return async (token) => (await jose.jwtVerify(token, key, rules())).payload
  }
  const keys: Jose.JWTVerifyGetKey =
    jwks?.kind === 'url'
      ? jose.createRemoteJWKSet(jwks.url, { timeoutDuration: FETCH_TIMEOUT_MS, cooldownDuration: FETCH_PAUSE_MS })
      : // Its shape is checked key by key, as tokens name them.
        jose.createLocalJWKSet(jwks?.json as Jose.JSONWebKeySet)
  return async (token) => (await jose.jwtVerify(token, keys, rules())).payload
}
