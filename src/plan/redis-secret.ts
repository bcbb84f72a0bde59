// What instances that share a Redis know and its readers do not: names and keys there are made with it, so that a list of
// them tells no address, no user and no request body, not even to who can guess one and try it out. Where the deployment
// wants it, what is behind the names is sealed as well.

import type { Privacy } from '../cache/privacy.ts'
import type { GatewayConfig } from '../config/schema.ts'
import { type Cipher, createCipher } from '../core/cipher.ts'
import { parseRedisUrl } from '../core/redis-url.ts'

type RedisOptions = GatewayConfig['redis']

/** For the names of counters. Without `secret`, what instances share anyway takes its place: only a password of Redis'
 *  makes that hard to guess. */
export const secretOf = ({ url, namespace, secret }: RedisOptions): string =>
  secret ?? `${namespace}\n${passwordIn(url)}`

/** For the keys of what is stored, which a gateway without Redis has as well; null where nothing is secret: a hash is made
 *  in a quarter of the time. */
export const keySecretOf = (options: RedisOptions): string | null =>
  options.secret === undefined && passwordIn(options.url) === '' ? null : secretOf(options)

/** For what lies behind the names; null: it lies there as it is. */
export const cipherOf = ({ encrypt }: RedisOptions): Cipher | null =>
  encrypt === undefined ? null : createCipher(encrypt.secrets)

/** Of the cache. */
export const privacyOf = (options: RedisOptions): Privacy => ({
  secret: keySecretOf(options),
  cipher: cipherOf(options),
})

function passwordIn(url: string): string {
  const address = parseRedisUrl(url)
  return address.kind === 'invalid' ? '' : address.password
}
