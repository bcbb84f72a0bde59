// Idempotency-Keys of the whole gateway: what all routes share, made once and kept through reloads, and whose key it is on
// a route. Who asks is told as for a cache with `scope: user`.

import { digestWith } from '../cache/digest.ts'
import { userOf } from '../cache/user.ts'
import type { GatewayConfig, RouteOptions } from '../config/schema.ts'
import type { KeyFreed, RouteRow } from '../core/control.ts'
import { GatewayError } from '../core/errors.ts'
import type { CredentialFields } from '../http/credentials.ts'
import { meaningOfIds } from '../identity/user.ts'
import { freeKey } from '../idempotency/free.ts'
import { type Idempotency, createIdempotency } from '../idempotency/idempotency.ts'
import { compileKeyNames } from '../idempotency/key.ts'
import { boundsOf } from '../idempotency/options.ts'
import { createSharedKeys } from '../idempotency/redis.ts'
import { type RouteIdempotency, compileIdempotency } from '../idempotency/route.ts'
import type { SharedRedis } from './redis.ts'
import { cipherOf, secretOf } from './redis-secret.ts'

/** now: wall clock, milliseconds. */
export function openIdempotency(config: GatewayConfig, redis: SharedRedis | null, now: () => number): Idempotency {
  const { namespace } = config.redis
  return createIdempotency({
    bounds: boundsOf(config.idempotency),
    // Beside the cache's values, which are as large.
    shared: redis === null ? null : createSharedKeys({ link: redis.cache, namespace, cipher: cipherOf(config.redis) }),
    names: compileKeyNames(secretOf(config.redis)),
    now,
  })
}

/** null: the route knows no keys. */
export function compileKeys(
  { idempotency: options, maxBody: maxBodyBytes }: RouteOptions,
  { redis, identity }: GatewayConfig,
  idempotency: Idempotency,
  credentials: CredentialFields,
): RouteIdempotency | null {
  if (options === undefined || options === null) return null
  const digest = digestWith(secretOf(redis))
  // Keys outlive a reload, after which the same id may be another person's.
  const meaning = identity === undefined ? '' : meaningOfIds(identity)
  return compileIdempotency({
    options,
    idempotency,
    maxBodyBytes,
    userOf: (ctx) => userOf(ctx, credentials, (said) => digest([meaning, ...said])),
  })
}

/** Frees a key of one of these routes. Rejects with a GatewayError where that has none. */
export async function freeKeyOf(
  routes: readonly { readonly row: Pick<RouteRow, 'route'>; readonly idempotency: RouteIdempotency | null }[],
  idempotency: Idempotency,
  route: string,
  key: string,
): Promise<KeyFreed> {
  const keyed = routes.flatMap((each) => (each.idempotency === null ? [] : [each.row.route]))
  if (keyed.includes(route)) return freeKey(idempotency, route, key)
  const known = keyed.length === 0 ? 'No route has any.' : `These have: ${keyed.join(', ')}.`
  throw new GatewayError('no_route', `There is no route ${route} with Idempotency-Keys. ${known}`)
}
