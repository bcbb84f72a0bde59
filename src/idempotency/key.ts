// Whose key it is, and whether two requests with it are the same: pure text in, digests out. Everything is hashed with the
// secret of the deployment, since keys and fingerprints lie in Redis for a day: who reads them there learns neither the key
// nor the user, and cannot try out whether a body is one that he can guess.
//
// The field is a String of RFC 9651 by the draft (§2.1); most clients send the bare text, so both are one key.

import { createHmac } from 'node:crypto'
import type { RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { getCombined, getHeaders } from '../http/headers.ts'

export const FIELD = 'idempotency-key'

const MAX_KEY_CHARS = 255
/** From whoever shows nothing that says who asks, a key is all that keeps the answer from others at the same address: it has
 *  to be long enough for a random one. A UUID has 36. */
const MIN_ANONYMOUS_CHARS = 16

/** A String: visible ASCII and blanks, `\` before `"` and `\`. */
const STRING = /^"((?:[ !#-[\]-~]|\\["\\])*)"$/
const BARE = /^[!#-+\--~]+$/

/** The key of a request; null where it has none. Throws where nobody can tell which one it is. */
export function readKey({ headers }: Pick<RequestContext, 'headers'>): string | null {
  const [field, ...more] = getHeaders(headers, FIELD)
  if (field === undefined) return null
  return parseKey(more.length === 0 ? field : '')
}

/** The key that a field says. Throws where it says none. */
export function parseKey(field: string): string {
  const text = field.trim()
  const quoted = STRING.exec(text)?.[1]
  const key = quoted === undefined ? text : quoted.replaceAll(/\\(.)/g, '$1')
  const isValid = quoted === undefined ? BARE.test(key) : key !== ''
  if (isValid && key.length <= MAX_KEY_CHARS) return key
  throw new GatewayError(
    'idempotency_key_invalid',
    `Idempotency-Key must be one text of 1 to ${MAX_KEY_CHARS} visible ASCII characters, such as a UUID.`,
  )
}

/** Of a name, with which an id begins. */
export const NAME_CHARS = 22

export interface KeyNames {
  /** Of a key on a route, whoever has sent it. */
  readonly nameOf: (route: string, key: string) => string
  /** Where a key belongs: to one who asks and one route. That name, and who it is. user: a digest of who asks; null where
   *  nothing says so. Throws where the key is too easily guessed for that. */
  readonly idOf: (ctx: RequestContext, user: string | null, key: string) => string
  /** The same for requests that are the same. */
  readonly fingerprintOf: (ctx: RequestContext, body: Buffer) => string
}

/** secret: of all instances. Names and fingerprints are 22 characters of base64url, ids twice as many. */
export function compileKeyNames(secret: string): KeyNames {
  /** Each text carries its length, so that no two lists run together. */
  const digest = (purpose: string, texts: readonly string[], rest: Buffer): string => {
    const hmac = createHmac('sha256', secret).update(purpose)
    for (const text of texts) hmac.update(`${Buffer.byteLength(text)}:${text}`)
    return hmac.update(rest).digest('base64url').slice(0, NAME_CHARS)
  }
  const nameOf = (route: string, key: string): string => digest('key', [route, key], NOTHING)
  return {
    nameOf,
    idOf(ctx, user, key) {
      if (user === null && key.length < MIN_ANONYMOUS_CHARS) {
        throw new GatewayError(
          'idempotency_key_invalid',
          `Without credentials an Idempotency-Key must have ${MIN_ANONYMOUS_CHARS} characters or more, so that nobody guesses it; send a UUID.`,
        )
      }
      const owner = user === null ? ['address', ctx.clientAddress] : ['user', user]
      const name = nameOf(ctx.route ?? '', key)
      return name + digest('owner', [...owner, name], NOTHING)
    },
    fingerprintOf(ctx, body) {
      const { method, scheme, host, path, query, headers } = ctx
      const type = getCombined(headers, 'content-type') ?? ''
      const coding = getCombined(headers, 'content-encoding') ?? ''
      return digest('request', [method, scheme, host, path, query, type, coding], body)
    },
  }
}

const NOTHING = Buffer.alloc(0)
