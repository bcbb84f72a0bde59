// What YAML may say of who a user is: where a name may stand in a request, and what proves it. The first source that
// names one counts.

import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { decoded, duration, flag, text } from '../core/decode.ts'
import { isToken } from '../http/headers.ts'

const headerName = () =>
  decoded('the name of a field', 'letters, digits and dashes', (name) => (isToken(name) ? name.toLowerCase() : null))

/** Where the public keys are: read already, or to be fetched. */
export type KeySource = { readonly kind: 'keys'; readonly json: unknown } | { readonly kind: 'url'; readonly url: URL }

/** RFC 7517 §5: a set has `keys`. */
function parseKeySet(json: string): unknown {
  try {
    const parsed: unknown = JSON.parse(json)
    const isSet = typeof parsed === 'object' && parsed !== null && 'keys' in parsed && Array.isArray(parsed.keys)
    return isSet ? parsed : null
  } catch {
    return null
  }
}

function parseKeySource(value: string): KeySource | null {
  const url = URL.parse(value)
  if (url?.protocol === 'https:' || url?.protocol === 'http:') return { kind: 'url', url }
  const json = parseKeySet(value.startsWith('file:') ? read(value.slice('file:'.length)) : value)
  return json === null ? null : { kind: 'keys', json }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}

/** Asymmetric only: with a secret in the same list, a public key could be used as one (RFC 8725 §3.1). */
export const KEY_SET_ALGORITHMS = ['RS256', 'RS384', 'RS512', 'PS256', 'ES256', 'ES384', 'EdDSA'] as const

/** RFC 7518 §3.2: a key for HS256 has at least 256 bits. */
const MIN_SECRET_BYTES = 32

const jwt = z.strictObject({
  jwks: decoded(
    'the URL of a JSON Web Key Set, or file:PATH of one',
    'the file must be readable, and hold {"keys": [...]} (RFC 7517)',
    parseKeySource,
  )
    .optional()
    .describe('public keys of whoever issues the tokens; a URL is asked again when a token names an unknown key'),
  secret: text('a secret', (secret) =>
    Buffer.byteLength(secret) < MIN_SECRET_BYTES ? `at least ${MIN_SECRET_BYTES} bytes (RFC 7518 §3.2)` : null,
  )
    .optional()
    .describe('in place of jwks: the key of tokens that are signed with HS256'),
  algorithms: z
    .array(decodedAlgorithm())
    .min(1)
    .optional()
    .describe('what a token may be signed with; default RS256 and ES256 with jwks, HS256 with secret'),
  claim: text('the name of a claim').prefault('sub').describe('the claim that names the user'),
  header: headerName()
    .prefault('authorization')
    .describe('the field that the token comes in; `Bearer ` before it is left out'),
  issuer: text('an issuer').optional().describe('what `iss` must be; default anything'),
  audience: text('an audience').optional().describe('what `aud` must hold; default anything'),
  leeway: duration().prefault('30s').describe('how far the clocks of issuer and gateway may be apart'),
})

function decodedAlgorithm() {
  return decoded(
    `one of HS256, ${KEY_SET_ALGORITHMS.join(', ')}`,
    null,
    (name) =>
      ['HS256' as const, ...KEY_SET_ALGORITHMS].find((known) => known.toLowerCase() === name.toLowerCase()) ?? null,
  )
}

/** jwt or header; config/references.ts sees to it. */
const source = z.strictObject({
  jwt: jwt.optional().describe('a signed token (RFC 7519)'),
  header: headerName().optional().describe('in place of jwt: a field whose value names the user'),
  keys: z
    .record(
      text('the name of a user'),
      text('a key', (key) => (key.length < 16 ? 'at least 16 characters' : null)),
    )
    .optional()
    .describe('of a header: API keys by the name of their user; a value that is none of them names nobody'),
  trusted: flag().prefault(false).describe('of a header: true: believed from `trustedProxies` alone, and then proved'),
})

export const identityOptions = z.strictObject({
  user: z.array(source).min(1).describe('where users are named; the first that names one counts'),
})

export type IdentityOptions = z.output<typeof identityOptions>
export type JwtOptions = z.output<typeof jwt>
export type HeaderSourceOptions = Pick<z.output<typeof source>, 'keys' | 'trusted'> & { readonly header: string }
